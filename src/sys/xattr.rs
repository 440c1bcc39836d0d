//! Extended attributes of a name in a directory, and file handles: getxattrat(2) and its family, name_to_handle_at(2).
//!
//! No link is followed. Before Linux 6.13 the calls go through /proc/self/fd, which then has to be there.

use super::{Errno, Result, check};
use rustix::fd::{AsRawFd, BorrowedFd};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering};

const SETXATTRAT: libc::c_long = 463;
const GETXATTRAT: libc::c_long = 464;
const LISTXATTRAT: libc::c_long = 465;
const REMOVEXATTRAT: libc::c_long = 466;

/// The kernel lacks the calls.
static ABSENT: AtomicBool = AtomicBool::new(false);

#[repr(C)]
struct Value {
    at: u64,
    size: u32,
    flags: u32,
}

/// `new` if the kernel has it, else `old` with a path.
fn either(dir: BorrowedFd, name: &CStr, new: impl Fn() -> libc::c_long, old: impl Fn(&CStr) -> libc::c_long) -> Result<usize> {
    if !ABSENT.load(Ordering::Relaxed) {
        match check(new()) {
            Err(Errno::NOSYS) => ABSENT.store(true, Ordering::Relaxed),
            other => return Ok(usize::try_from(other?).unwrap_or(0)),
        }
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    Ok(usize::try_from(check(old(&path))?).unwrap_or(0))
}

/// The value of `key` of `name` in `dir`. An empty buffer asks for its size.
pub fn get(dir: BorrowedFd, name: &CStr, key: &CStr, value: &mut [u8]) -> Result<usize> {
    let record = Value { at: value.as_mut_ptr() as u64, size: value.len() as u32, flags: 0 };
    either(
        dir,
        name,
        // SAFETY: both strings end with NUL; the record with its true size and the buffer that it names outlive the call.
        || unsafe {
            let at = (dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW);
            libc::syscall(GETXATTRAT, at.0, at.1, at.2, key.as_ptr(), &raw const record, size_of::<Value>())
        },
        // SAFETY: both strings end with NUL, and the buffer has the length that is passed.
        |path| unsafe { libc::lgetxattr(path.as_ptr(), key.as_ptr(), record.at as *mut libc::c_void, record.size as usize) } as libc::c_long,
    )
}

/// man: setxattr(2) for the flags
pub fn set(dir: BorrowedFd, name: &CStr, key: &CStr, value: &[u8], flags: u32) -> Result<()> {
    let record = Value { at: value.as_ptr() as u64, size: value.len() as u32, flags };
    either(
        dir,
        name,
        // SAFETY: both strings end with NUL; the record with its true size and the value that it names outlive the call.
        || unsafe {
            let at = (dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW);
            libc::syscall(SETXATTRAT, at.0, at.1, at.2, key.as_ptr(), &raw const record, size_of::<Value>())
        },
        // SAFETY: both strings end with NUL, and the value has the length that is passed.
        |path| unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), flags as libc::c_int) }.into(),
    )
    .map(drop)
}

/// The names, each with its NUL. An empty buffer asks for their size.
pub fn list(dir: BorrowedFd, name: &CStr, names: &mut [u8]) -> Result<usize> {
    let (at, size) = (names.as_mut_ptr(), names.len());
    either(
        dir,
        name,
        // SAFETY: the name ends with NUL, and the buffer has the length that is passed.
        || unsafe { libc::syscall(LISTXATTRAT, dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, at, size) },
        // SAFETY: the path ends with NUL, and the buffer has the length that is passed.
        |path| unsafe { libc::llistxattr(path.as_ptr(), at.cast(), size) } as libc::c_long,
    )
}

pub fn remove(dir: BorrowedFd, name: &CStr, key: &CStr) -> Result<()> {
    either(
        dir,
        name,
        // SAFETY: both strings end with NUL.
        || unsafe { libc::syscall(REMOVEXATTRAT, dir.as_raw_fd(), name.as_ptr(), libc::AT_SYMLINK_NOFOLLOW, key.as_ptr()) },
        // SAFETY: both strings end with NUL.
        |path| unsafe { libc::lremovexattr(path.as_ptr(), key.as_ptr()) }.into(),
    )
    .map(drop)
}

#[repr(C)]
struct Handle {
    size: u32,
    kind: i32,
    bytes: [u8; 128],
}

/// What the file system calls this object for good: a kind and some bytes. man: name_to_handle_at(2)
pub fn file_handle(dir: BorrowedFd, name: &CStr) -> Result<(i32, Vec<u8>)> {
    let mut handle = Handle { size: 128, kind: 0, bytes: [0; 128] };
    let (mut mount, flags) = (0 as libc::c_int, if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 });
    // SAFETY: the name ends with NUL; the record is as large as it says, and both out parameters outlive the call.
    check(unsafe { libc::syscall(libc::SYS_name_to_handle_at, dir.as_raw_fd(), name.as_ptr(), &raw mut handle, &raw mut mount, flags) })?;
    let bytes = handle.bytes.get(..handle.size as usize).ok_or(Errno::OVERFLOW)?;
    Ok((handle.kind, bytes.to_vec()))
}

/// The identity of the file system that `fd` is on, where the kernel tells it: FS_IOC_GETFSUUID, since Linux 6.9.
pub fn filesystem_uuid(fd: BorrowedFd) -> Option<[u8; 16]> {
    #[repr(C)]
    struct Uuid {
        len: u8,
        uuid: [u8; 16],
    }
    const GETFSUUID: libc::c_ulong = 0x8011_1500;
    let mut answer = Uuid { len: 0, uuid: [0; 16] };
    // SAFETY: FS_IOC_GETFSUUID writes 17 bytes, the size of the record, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), GETFSUUID as _, &raw mut answer) }.into()).ok()?;
    (answer.len == 16).then_some(answer.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn attributes_of_a_name() {
        let dir = std::env::temp_dir().join(format!("sandbox-xattr-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("f"), "x").unwrap();
        let fd = std::fs::File::open(&dir).unwrap();
        let fd = fd.as_fd();
        let mut value = [0u8; 16];
        for absent in [false, true] {
            ABSENT.store(absent, Ordering::Relaxed);
            match set(fd, c"f", c"user.a", b"value", 0) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => break,
                Err(e) => panic!("{e}"),
            }
            assert_eq!(get(fd, c"f", c"user.a", &mut []).unwrap(), 5);
            assert_eq!(get(fd, c"f", c"user.a", &mut value).unwrap(), 5);
            assert_eq!(&value[..5], b"value");
            let n = list(fd, c"f", &mut value).unwrap();
            assert!(value[..n].ends_with(b"user.a\0"));
            remove(fd, c"f", c"user.a").unwrap();
            assert_eq!(get(fd, c"f", c"user.a", &mut value), Err(Errno::NODATA));
        }
        ABSENT.store(false, Ordering::Relaxed);
        let (kind, bytes) = file_handle(fd, c"f").unwrap();
        assert!(kind > 0 && !bytes.is_empty());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
