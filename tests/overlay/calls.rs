//! System calls by their bare names, answering with a number or an errno: what is compared are answers of the kernel, so nothing may
//! stand between. Used by everything here; the only unsafe code of these tests.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What a call gave, or its errno.
pub type Answer<T = i64> = Result<T, i32>;

pub const ROOT: u32 = 0;

fn answer(value: i64) -> Answer {
    if value < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) } else { Ok(value) }
}

macro_rules! call {
    // SAFETY: pointers that go to the kernel come from live references and slices in the same expression.
    ($e:expr) => {
        answer(i64::from(unsafe { $e }))
    };
}

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no zero byte in a path")
}

fn owned(fd: Answer) -> Answer<OwnedFd> {
    // SAFETY: the kernel has just given it to us.
    fd.map(|n| unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

/// The id with which this thread meets file systems; root keeps its capabilities, others lose them.
pub fn appear(id: u32) {
    // SAFETY: no pointers.
    unsafe {
        libc::setfsuid(0);
        libc::setfsgid(id);
        libc::setfsuid(id);
    }
}

/// Run as that id.
pub fn as_user<T>(id: u32, work: impl FnOnce() -> T) -> T {
    if id == ROOT {
        return work();
    }
    appear(id);
    let result = work();
    appear(ROOT);
    result
}

pub fn open(dir: RawFd, path: &[u8], flags: i32, mode: u32) -> Answer<OwnedFd> {
    owned(call!(libc::openat(dir, c(path).as_ptr(), flags | libc::O_CLOEXEC, mode)))
}

pub fn mkdir(dir: RawFd, path: &[u8], mode: u32) -> Answer {
    call!(libc::mkdirat(dir, c(path).as_ptr(), mode))
}

pub fn mknod(dir: RawFd, path: &[u8], mode: u32, device: u64) -> Answer {
    call!(libc::mknodat(dir, c(path).as_ptr(), mode, device))
}

pub fn symlink(target: &[u8], dir: RawFd, path: &[u8]) -> Answer {
    call!(libc::symlinkat(c(target).as_ptr(), dir, c(path).as_ptr()))
}

pub fn link(dir: RawFd, from: &[u8], to: &[u8], flags: i32) -> Answer {
    call!(libc::linkat(dir, c(from).as_ptr(), dir, c(to).as_ptr(), flags))
}

pub fn unlink(dir: RawFd, path: &[u8], flags: i32) -> Answer {
    call!(libc::unlinkat(dir, c(path).as_ptr(), flags))
}

pub fn rename(dir: RawFd, from: &[u8], to: &[u8], flags: u32) -> Answer {
    let (from, to) = (c(from), c(to));
    call!(libc::syscall(libc::SYS_renameat2, dir, from.as_ptr(), dir, to.as_ptr(), flags))
}

pub fn readlink(dir: RawFd, path: &[u8]) -> Answer<Vec<u8>> {
    let mut buffer = vec![0_u8; 4200];
    let len = call!(libc::readlinkat(dir, c(path).as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as i64)?;
    buffer.truncate(len as usize);
    Ok(buffer)
}

pub fn chmod(dir: RawFd, path: &[u8], mode: u32) -> Answer {
    call!(libc::fchmodat(dir, c(path).as_ptr(), mode, 0))
}

pub fn fchmod(fd: RawFd, mode: u32) -> Answer {
    call!(libc::fchmod(fd, mode))
}

pub fn chown(dir: RawFd, path: &[u8], uid: u32, gid: u32, flags: i32) -> Answer {
    call!(libc::fchownat(dir, c(path).as_ptr(), uid, gid, flags))
}

pub fn fchown(fd: RawFd, uid: u32, gid: u32) -> Answer {
    call!(libc::fchown(fd, uid, gid))
}

/// Seconds and nanoseconds, of which UTIME_NOW and UTIME_OMIT are two.
pub type Time = (i64, i64);

fn times(atime: Time, mtime: Time) -> [libc::timespec; 2] {
    [atime, mtime].map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec })
}

pub fn utimens(dir: RawFd, path: &[u8], atime: Time, mtime: Time, flags: i32) -> Answer {
    let times = times(atime, mtime);
    call!(libc::utimensat(dir, c(path).as_ptr(), times.as_ptr(), flags))
}

pub fn futimens(fd: RawFd, atime: Time, mtime: Time) -> Answer {
    let times = times(atime, mtime);
    call!(libc::futimens(fd, times.as_ptr()))
}

pub fn truncate(path: &[u8], len: i64) -> Answer {
    call!(libc::truncate(c(path).as_ptr(), len))
}

pub fn ftruncate(fd: RawFd, len: i64) -> Answer {
    call!(libc::ftruncate(fd, len))
}

pub fn fallocate(fd: RawFd, mode: i32, at: i64, len: i64) -> Answer {
    call!(libc::fallocate(fd, mode, at, len))
}

pub fn pread(fd: RawFd, len: usize, at: i64) -> Answer<Vec<u8>> {
    let mut buffer = vec![0_u8; len];
    let got = call!(libc::pread(fd, buffer.as_mut_ptr().cast(), len, at) as i64)?;
    buffer.truncate(got as usize);
    Ok(buffer)
}

pub fn read(fd: RawFd, len: usize) -> Answer<Vec<u8>> {
    let mut buffer = vec![0_u8; len];
    let got = call!(libc::read(fd, buffer.as_mut_ptr().cast(), len) as i64)?;
    buffer.truncate(got as usize);
    Ok(buffer)
}

pub fn pwrite(fd: RawFd, bytes: &[u8], at: i64) -> Answer {
    call!(libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), at) as i64)
}

pub fn write(fd: RawFd, bytes: &[u8]) -> Answer {
    call!(libc::write(fd, bytes.as_ptr().cast(), bytes.len()) as i64)
}

pub fn lseek(fd: RawFd, at: i64, whence: i32) -> Answer {
    call!(libc::lseek(fd, at, whence))
}

pub fn copy_range(from: RawFd, mut from_at: i64, to: RawFd, mut to_at: i64, len: usize) -> Answer {
    call!(libc::copy_file_range(from, &raw mut from_at, to, &raw mut to_at, len, 0) as i64)
}

pub fn sendfile(to: RawFd, from: RawFd, mut at: i64, len: usize) -> Answer {
    call!(libc::sendfile(to, from, &raw mut at, len) as i64)
}

pub fn fsync(fd: RawFd) -> Answer {
    call!(libc::fsync(fd))
}

pub fn fdatasync(fd: RawFd) -> Answer {
    call!(libc::fdatasync(fd))
}

pub fn syncfs(fd: RawFd) -> Answer {
    call!(libc::syncfs(fd))
}

pub fn access(dir: RawFd, path: &[u8], mode: i32) -> Answer {
    let path = c(path);
    call!(libc::syscall(libc::SYS_faccessat2, dir, path.as_ptr(), mode, libc::AT_EACCESS))
}

pub fn stat(dir: RawFd, path: &[u8], flags: i32) -> Answer<libc::stat> {
    // SAFETY: all zeros are a stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(libc::fstatat(dir, c(path).as_ptr(), &raw mut stat, flags))?;
    Ok(stat)
}

pub fn fstat(fd: RawFd) -> Answer<libc::stat> {
    // SAFETY: all zeros are a stat.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    call!(libc::fstat(fd, &raw mut stat))?;
    Ok(stat)
}

pub fn statfs(path: &[u8]) -> Answer<libc::statfs> {
    // SAFETY: all zeros are a statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    call!(libc::statfs(c(path).as_ptr(), &raw mut stat))?;
    Ok(stat)
}

/// `follow` a link, or ask the link itself.
pub fn set_xattr(path: &[u8], name: &str, value: &[u8], flags: i32, follow: bool) -> Answer {
    let (path, name) = (c(path), c(name.as_bytes()));
    if follow {
        call!(libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags))
    } else {
        call!(libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags))
    }
}

pub fn fset_xattr(fd: RawFd, name: &str, value: &[u8], flags: i32) -> Answer {
    call!(libc::fsetxattr(fd, c(name.as_bytes()).as_ptr(), value.as_ptr().cast(), value.len(), flags))
}

/// With room for so many bytes: none asks for the length.
pub fn get_xattr(path: &[u8], name: &str, room: usize, follow: bool) -> Answer<Vec<u8>> {
    let (path, name) = (c(path), c(name.as_bytes()));
    let mut buffer = vec![0_u8; room];
    let len = if follow {
        call!(libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), room) as i64)?
    } else {
        call!(libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), room) as i64)?
    };
    if room == 0 {
        return Ok(len.to_string().into_bytes());
    }
    buffer.truncate(len as usize);
    Ok(buffer)
}

/// Sorted.
pub fn list_xattr(path: &[u8], follow: bool) -> Answer<Vec<String>> {
    let path = c(path);
    let mut buffer = vec![0_u8; 64 << 10];
    let len = if follow {
        call!(libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as i64)?
    } else {
        call!(libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) as i64)?
    };
    let names = buffer[..len as usize].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut names: Vec<String> = names.map(|n| String::from_utf8_lossy(n).into_owned()).collect();
    names.sort();
    Ok(names)
}

pub fn remove_xattr(path: &[u8], name: &str, follow: bool) -> Answer {
    let (path, name) = (c(path), c(name.as_bytes()));
    if follow { call!(libc::removexattr(path.as_ptr(), name.as_ptr())) } else { call!(libc::lremovexattr(path.as_ptr(), name.as_ptr())) }
}

/// Those it was opened with.
pub fn flags(fd: RawFd) -> Answer {
    call!(libc::fcntl(fd, libc::F_GETFL))
}

pub fn flock(fd: RawFd, operation: i32) -> Answer {
    call!(libc::flock(fd, operation | libc::LOCK_NB))
}

/// A lock of the open file description: set, or ask who would be in the way (its kind is the answer).
pub fn ofd_lock(fd: RawFd, ask: bool, kind: i32, start: i64, len: i64) -> Answer {
    // SAFETY: all zeros are a flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence, lock.l_start, lock.l_len) = (kind as i16, libc::SEEK_SET as i16, start, len);
    let command = if ask { libc::F_OFD_GETLK } else { libc::F_OFD_SETLK };
    call!(libc::fcntl(fd, command, &raw mut lock))?;
    Ok(if ask { i64::from(lock.l_type) } else { 0 })
}

/// Map, do something with the bytes, and unmap; shared maps are synced.
pub fn mapped<T>(fd: RawFd, at: i64, len: usize, shared: bool, writable: bool, work: impl FnOnce(&mut [u8]) -> T) -> Answer<T> {
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    // SAFETY: a fresh mapping where the kernel likes; it is ours until munmap below, and the callers touch nothing behind the file's end.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, at);
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
        }
        let result = work(std::slice::from_raw_parts_mut(start.cast(), len));
        if shared && writable {
            libc::msync(start, len, libc::MS_SYNC);
        }
        libc::munmap(start, len);
        Ok(result)
    }
}

/// An open directory, read entry by entry.
pub struct Entries {
    fd: OwnedFd,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

pub struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    /// Where lseek finds what comes after it.
    pub next: i64,
}

impl Entries {
    /// `size` of the buffer is how much is asked for at once.
    pub fn of(fd: OwnedFd, size: usize) -> Entries {
        Entries { fd, buffer: vec![0; size], at: 0, end: 0 }
    }

    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Go to a place that an entry named.
    pub fn seek(&mut self, to: i64) -> Answer {
        (self.at, self.end) = (0, 0);
        lseek(self.fd(), to, libc::SEEK_SET)
    }

    pub fn next(&mut self) -> Answer<Option<Entry>> {
        if self.at == self.end {
            self.end = call!(libc::syscall(libc::SYS_getdents64, self.fd.as_raw_fd(), self.buffer.as_mut_ptr(), self.buffer.len()))? as usize;
            self.at = 0;
            if self.end == 0 {
                return Ok(None);
            }
        }
        let entry = &self.buffer[self.at..self.end];
        let len = usize::from(u16::from_ne_bytes([entry[16], entry[17]]));
        let name: Vec<u8> = entry[19..len].iter().take_while(|b| **b != 0).copied().collect();
        self.at += len;
        Ok(Some(Entry { name, kind: entry[18], next: i64::from_ne_bytes(entry[8..16].try_into().expect("8 bytes")) }))
    }

    /// All that are left, but for `.` and `..`.
    pub fn rest(&mut self) -> Answer<Vec<Entry>> {
        let mut all = Vec::new();
        while let Some(entry) = self.next()? {
            if entry.name != b"." && entry.name != b".." {
                all.push(entry);
            }
        }
        Ok(all)
    }
}

pub fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> Answer {
    let [source, target, kind, data] = [source, target, kind, data].map(|s| c(s.as_bytes()));
    call!(libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()))
}

pub fn umount(target: &str, flags: i32) -> Answer {
    call!(libc::umount2(c(target.as_bytes()).as_ptr(), flags))
}

pub fn unshare(flags: i32) -> Answer {
    call!(libc::unshare(flags))
}

/// All ids of this process; only where nothing else runs yet.
pub fn set_ids(uid: u32, gid: u32) -> Answer {
    call!(libc::setgroups(0, std::ptr::null()))?;
    call!(libc::setresgid(gid, gid, gid))?;
    call!(libc::setresuid(uid, uid, uid))
}

/// This process ends with its parent.
pub fn die_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

pub fn umask(mask: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::umask(mask) }
}

const NAMES: [(i32, &str); 42] = [
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::EXDEV, "EXDEV"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENOTTY, "ENOTTY"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::ESPIPE, "ESPIPE"),
    (libc::EROFS, "EROFS"),
    (libc::EMLINK, "EMLINK"),
    (libc::EPIPE, "EPIPE"),
    (libc::ERANGE, "ERANGE"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOSYS, "ENOSYS"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENODATA, "ENODATA"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ENOTCONN, "ENOTCONN"),
    (libc::ECONNABORTED, "ECONNABORTED"),
    (libc::ESTALE, "ESTALE"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::ENOLCK, "ENOLCK"),
    (libc::EDEADLK, "EDEADLK"),
    (libc::EFAULT, "EFAULT"),
    (libc::EDOM, "EDOM"),
    (libc::EMFILE, "EMFILE"),
];

pub fn errno_name(errno: i32) -> String {
    NAMES.iter().find(|(n, _)| *n == errno).map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_string())
}
