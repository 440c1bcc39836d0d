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

/// So many links to nowhere may follow one another in `make`.
const MOST_LINKS: u32 = 8;

/// The handle of `path`, made first where components are missing: directories, the last one a file if `file`.
/// Existing components may be links, as seen from `root`, and what they lead to is made as well, if it is missing; all is made by name in a
/// handle of its parent.
pub fn make(root: BorrowedFd, path: &CStr, file: bool, links: Links) -> Result<OwnedFd> {
    make_through(root, path, file, links, MOST_LINKS)
}

fn make_through(root: BorrowedFd, path: &CStr, file: bool, links: Links, more: u32) -> Result<OwnedFd> {
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
        let so_far = bytes.get(..bytes.len() - rest.len()).ok_or(Errno::NAMETOOLONG)?;
        at = match handle(root, joined(&mut [0; 4096], so_far, &[])?, links) {
            Err(Errno::NOENT) if matches!(links, Links::Inside) && more > 0 => {
                let mut target = [0u8; 4096];
                let length = rustix::fs::readlinkat_raw(&at, name, &mut target[..])?;
                let target = target.get(..length).ok_or(Errno::NAMETOOLONG)?;
                let parent = so_far.strip_suffix(b"/").unwrap_or(so_far).strip_suffix(name.to_bytes()).unwrap_or(&[]);
                let from = if target.starts_with(b"/") { &[] } else { parent };
                make_through(root, joined(&mut [0; 4096], from, target)?, last && file, links, more - 1)?
            }
            other => other?,
        };
    }
    Ok(at)
}

fn joined<'a>(buffer: &'a mut [u8; 4096], first: &[u8], second: &[u8]) -> Result<&'a CStr> {
    let slot = buffer.get_mut(..first.len() + second.len()).ok_or(Errno::NAMETOOLONG)?;
    let (a, b) = slot.split_at_mut(first.len());
    a.copy_from_slice(first);
    b.copy_from_slice(second);
    CStr::from_bytes_until_nul(buffer).map_err(|_| Errno::NAMETOOLONG)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_to_nowhere_is_made_to_lead_somewhere_inside() {
        let dir = std::env::temp_dir().join(format!("sandbox-path-{}", std::process::id()));
        fs::create_dir_all(dir.join("root/etc")).unwrap();
        let root = OwnedFd::from(fs::File::open(dir.join("root")).unwrap());
        for (name, target) in [
            ("etc/relative", "../run/a/b"),
            ("etc/absolute", "/run/c/d"),
            ("etc/climbs", "../../../../../outside"),
            ("etc/chain", "relative-too"),
            ("etc/relative-too", "deep/er"),
            ("away", "/gone/far"),
            ("loop", "loop"),
        ] {
            symlink(target, dir.join("root").join(name)).unwrap();
        }
        for (path, made) in [
            (c"etc/relative", "run/a/b"),
            (c"etc/absolute", "run/c/d"),
            (c"etc/climbs", "outside"),
            (c"etc/chain", "etc/deep/er"),
            (c"away/x/y", "gone/far/x/y"),
            (c"etc/plain", "etc/plain"),
        ] {
            assert_eq!(make(root.as_fd(), path, true, Links::Refused).err().is_none(), path == c"etc/plain", "{path:?}");
            make(root.as_fd(), path, true, Links::Inside).unwrap();
            assert!(dir.join("root").join(made).is_file(), "{path:?}");
        }
        assert!(!dir.join("outside").exists());
        for path in [c"loop", c"loop/x"] {
            assert_eq!(make(root.as_fd(), path, true, Links::Inside).err(), Some(Errno::LOOP));
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
