//! openat2(2): the only way to touch a path in a tree that we do not trust. // L1

use super::{Errno, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2};
use std::ffi::CStr;

/// What stands at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Symbolic links are followed, as seen from `root`.
    Inside,
    /// A symbolic link anywhere in the path is an error (ELOOP).
    Refused,
}

/// A handle (O_PATH) on `path` below `root`: never outside it, and never through a magic link of procfs.
pub fn handle(root: BorrowedFd, path: &CStr, links: Links) -> Result<OwnedFd> {
    open_below(root, path, OFlags::PATH, links)
}

/// Open `path` below `root`, with the same promise.
pub fn open_below(root: BorrowedFd, path: &CStr, flags: OFlags, links: Links) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_MAGICLINKS
        | match links {
            Links::Inside => ResolveFlags::empty(),
            Links::Refused => ResolveFlags::NO_SYMLINKS,
        };
    // EAGAIN: something was renamed or mounted while the kernel looked; man: openat2(2) says to try again.
    for _ in 0..32 {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The handle of `path`, made first where components are missing: directories, the last one a file if `file`.
/// Existing components may be links, as seen from `root`; missing ones are made by name in a handle of their parent.
pub fn make(root: BorrowedFd, path: &CStr, file: bool, links: Links) -> Result<OwnedFd> {
    match handle(root, path, links) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let bytes = path.to_bytes();
    let mut at = rustix::io::fcntl_dupfd_cloexec(root, 3)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        rest = tail.get(1..).unwrap_or(&[]);
        if name.is_empty() {
            continue;
        }
        let mut buffer = [0u8; 256];
        let name = component(name, &mut buffer)?;
        let last = rest.iter().all(|b| *b == b'/');
        let made = if last && file {
            rustix::fs::openat(&at, name, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(drop)
        } else {
            rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755))
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
        // A component that is a link is resolved from `root`, not from here: take the whole path up to it.
        let so_far = bytes.len() - rest.len();
        let mut buffer = [0u8; 4096];
        let prefix = bytes.get(..so_far).ok_or(Errno::NAMETOOLONG)?;
        let slot = buffer.get_mut(..so_far).ok_or(Errno::NAMETOOLONG)?;
        slot.copy_from_slice(prefix);
        if so_far >= 4096 {
            return Err(Errno::NAMETOOLONG);
        }
        let prefix = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
        at = handle(root, prefix, links)?;
    }
    Ok(at)
}

fn component<'a>(name: &[u8], buffer: &'a mut [u8; 256]) -> Result<&'a CStr> {
    let slot = buffer.get_mut(..name.len()).ok_or(Errno::NAMETOOLONG)?;
    slot.copy_from_slice(name);
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::NAMETOOLONG)
}

/// Is this handle the device that it should be? // L2
pub fn is_device(handle: BorrowedFd, major: u32, minor: u32) -> Result<bool> {
    let stat: Stat = rustix::fs::fstat(handle)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(character && rustix::fs::major(stat.st_rdev) == major && rustix::fs::minor(stat.st_rdev) == minor)
}

/// A file of procfs, sysfs and their kin, where files are answers of the kernel. man: statfs(2)
pub fn is_made_up(file: BorrowedFd) -> bool {
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    const DEBUGFS: u64 = 0x6462_6720;
    const TRACEFS: u64 = 0x7472_6163;
    const BPF: u64 = 0xcafe_4a11;
    const SECURITYFS: u64 = 0x7363_6673;
    const DEVPTS: u64 = 0x1cd1;
    const MQUEUE: u64 = 0x1980_0202;
    let all = [PROC, SYSFS, CGROUP, CGROUP2, DEBUGFS, TRACEFS, BPF, SECURITYFS, DEVPTS, MQUEUE];
    // One that cannot be asked is not to be trusted.
    rustix::fs::fstatfs(file).map_or(true, |s| all.contains(&(s.f_type as u64)))
}

/// The working directory is inside the root: man: getcwd(2) says "(unreachable)" otherwise. // L6
pub fn cwd_is_reachable() -> Result<bool> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is writable for the length that is passed.
    let n = super::check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(n > 0 && buffer.first() == Some(&b'/'))
}

/// mknod(2) of a whiteout: a character device 0:0, allowed to everybody since Linux 5.8. kernel: fs/namei.c vfs_mknod()
pub fn whiteout(dir: BorrowedFd, path: &CStr) -> Result<()> {
    rustix::fs::mknodat(dir.as_fd(), path, FileType::CharacterDevice, Mode::empty(), 0)
}

/// chown(2) by name, not following a link.
pub fn chown(dir: BorrowedFd, path: &CStr, uid: u32, gid: u32) -> Result<()> {
    use rustix::fs::{Gid, Uid};
    rustix::fs::chownat(dir, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
}
