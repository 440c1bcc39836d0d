//! Another process, as who answers its system calls sees it: its memory, its limits; and what stat(2) would give it.

use super::{Errno, Result, check};
use rustix::fd::{AsRawFd, BorrowedFd};

pub use libc::{stat as Stat, statx as Statx};

const PAGE: u64 = 4096;

/// Its memory from `at` on, as much of `buffer` as there is in one piece. man: process_vm_readv(2)
pub fn read_memory(pid: i32, at: u64, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: `local` is the buffer and its length; `remote` is an address of the other process, which the kernel checks.
    let n = check(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) } as libc::c_long)?;
    Ok(n as usize)
}

/// A C string of it, without its NUL; ENAMETOOLONG as for a path.
pub fn read_path(pid: i32, at: u64) -> Result<Vec<u8>> {
    let mut path = Vec::new();
    while path.len() < libc::PATH_MAX as usize {
        // What is behind the end of a page may be nobody's.
        let from = at.checked_add(path.len() as u64).ok_or(Errno::FAULT)?;
        let mut piece = [0u8; PAGE as usize];
        let piece = &mut piece[..(PAGE - from % PAGE) as usize];
        let got = read_memory(pid, from, piece)?;
        let piece = &piece[..got];
        if let Some(end) = piece.iter().position(|b| *b == 0) {
            path.extend_from_slice(&piece[..end]);
            return if path.len() < libc::PATH_MAX as usize { Ok(path) } else { Err(Errno::NAMETOOLONG) };
        }
        if got == 0 {
            return Err(Errno::FAULT);
        }
        path.extend_from_slice(piece);
    }
    Err(Errno::NAMETOOLONG)
}

fn write_memory(pid: i32, at: u64, from: *const libc::c_void, len: usize) -> Result<()> {
    let local = libc::iovec { iov_base: from.cast_mut(), iov_len: len };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: len };
    // SAFETY: the callers pass a live object and its size, which is only read; `remote` is checked by the kernel, which honours the protection
    // of the other process's pages.
    let n = check(unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) } as libc::c_long)?;
    if n as usize == len { Ok(()) } else { Err(Errno::FAULT) }
}

pub fn write_words(pid: i32, at: u64, words: &[u32]) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    write_memory(pid, at, words.as_ptr().cast(), size_of_val(words))
}

pub fn write_stat(pid: i32, at: u64, stat: &Stat) -> Result<()> {
    write_memory(pid, at, (&raw const *stat).cast(), size_of::<Stat>())
}

pub fn write_statx(pid: i32, at: u64, stat: &Statx) -> Result<()> {
    write_memory(pid, at, (&raw const *stat).cast(), size_of::<Statx>())
}

/// As the kernel lays it out for programs of this machine.
pub fn stat(fd: BorrowedFd) -> Result<Stat> {
    // SAFETY: a plain record, for which all zeroes is a valid value.
    let mut stat: Stat = unsafe { core::mem::zeroed() };
    // SAFETY: the name ends with NUL, and the record, whose layout is the kernel's on 64-bit machines, outlives the call.
    check(unsafe { libc::syscall(libc::SYS_newfstatat, fd.as_raw_fd(), c"".as_ptr(), &raw mut stat, libc::AT_EMPTY_PATH) })?;
    Ok(stat)
}

pub fn statx(fd: BorrowedFd, flags: u32, mask: u32) -> Result<Statx> {
    // SAFETY: a plain record, for which all zeroes is a valid value.
    let mut stat: Statx = unsafe { core::mem::zeroed() };
    let flags = flags | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the name ends with NUL, and the record outlives the call.
    check(unsafe { libc::syscall(libc::SYS_statx, fd.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat) })?;
    Ok(stat)
}

/// Its limit, soft and hard. man: prlimit(2)
pub fn limit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: only the old limit is asked for, into a record that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, core::ptr::null::<libc::rlimit64>(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is only read, and the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, core::ptr::null_mut::<libc::rlimit64>()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_ends_at_the_end_of_a_mapping() {
        let me = std::process::id() as i32;
        let text = c"/a/path";
        assert_eq!(read_path(me, text.as_ptr() as u64), Ok(b"/a/path".to_vec()));
        let long = vec![b'x'; 5000];
        assert_eq!(read_path(me, long.as_ptr() as u64), Err(Errno::NAMETOOLONG));
        assert_eq!(read_path(me, 8), Err(Errno::FAULT));
        assert_eq!(read_path(me, u64::MAX), Err(Errno::FAULT));
        assert_eq!(write_words(me, 8, &[1]), Err(Errno::FAULT));
    }
}
