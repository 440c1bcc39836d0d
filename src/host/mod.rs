//! What this machine can do, and the cure for what it cannot.
//!
//! *What*: facts about the host, each read once and bounded: who calls us, which subordinate ids they own, what is mounted where,
//! how new the kernel is, where the two set-uid programs are that we need. And one table of cures (`remedy`), which feeds
//! the hint of every refusal and `sandbox doctor` alike.
//!
//! *Why this way*: every file here is a pure parser of bytes with a thin reading shell around it, so that a host that we do not have
//! is a string in a test. Rejected: glibc's getpwnam and libsubid, because a static binary that loads NSS modules is
//! neither static nor safe; and asking `uname` for what a system call can be asked itself, so `doctor` tries each of them (`sys::probe`).
//!
//! *Invariants*
//! - I1 nothing here changes the machine, and nothing here believes a file that it did not bound in size and kind first.
//! - I2 a program is run only by an absolute path whose every directory belongs to root, with an environment made from nothing.
//! - I3 every refusal for the host's sake carries the cure from `remedy`.
//!
//! *Kernel*: see [`FEATURES`].
#![forbid(unsafe_code)]

pub mod caller;
pub mod mounts;
pub mod process;
pub mod program;
pub mod remedy;
pub mod subid;

pub use caller::Caller;
pub use program::helper;

use crate::error::Result;
use remedy::Missing;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest kernel that we run on: mount_setattr(2), the only way to make a whole tree read-only at once.
pub const FLOOR: Kernel = Kernel { major: 5, minor: 12 };

/// The running kernel; 0.0 if it does not say.
pub fn kernel() -> Kernel {
    release(rustix::system::uname().release().to_bytes())
}

fn release(text: &[u8]) -> Kernel {
    let mut numbers = text.split(|b| !b.is_ascii_digit()).map(|n| std::str::from_utf8(n).ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    Kernel { major: numbers.next().unwrap_or(0), minor: numbers.next().unwrap_or(0) }
}

/// Refuse a kernel older than [`FLOOR`].
pub fn kernel_floor() -> Result<()> {
    let kernel = kernel();
    if kernel < FLOOR {
        return Err(Missing::OldKernel.error(format!("cannot run on Linux {kernel}: Linux {FLOOR} is the oldest that can")));
    }
    Ok(())
}

/// A kernel feature that we use. `call` is the system call's name where there is one, so that `doctor` can try it.
#[derive(Debug)]
pub struct Feature {
    pub name: &'static str,
    pub call: Option<&'static str>,
    pub since: (u32, u32),
    pub why: &'static str,
    pub without: &'static str,
}

impl Feature {
    /// Without it nothing runs: it is as old as our floor.
    pub fn is_needed(&self) -> bool {
        self.since <= (FLOOR.major, FLOOR.minor)
    }
}

const fn feature(name: &'static str, call: Option<&'static str>, since: (u32, u32), why: &'static str, without: &'static str) -> Feature {
    Feature { name, call, since, why, without }
}

/// Oldest first.
pub const FEATURES: &[Feature] = &[
    feature("seccomp filters", Some("seccomp"), (3, 17), "the allow-list of system calls", "nothing runs"),
    feature("mounts by descriptor", Some("open_tree"), (5, 2), "take each mount by handle, so that no path can be swapped", "nothing runs"),
    feature("mount attach", Some("move_mount"), (5, 2), "put a mount held by handle in its place", "nothing runs"),
    feature("mount configuration", Some("fsopen"), (5, 2), "make filesystems without one option string", "nothing runs"),
    feature("clone by structure", Some("clone3"), (5, 3), "all namespaces and a pidfd at once", "nothing runs"),
    feature("process descriptors", Some("pidfd_open"), (5, 3), "kill and await exactly our child, never a stranger with its number", "nothing runs"),
    feature("safe path lookup", Some("openat2"), (5, 6), "resolve a path inside a root without leaving it", "nothing runs"),
    feature("descriptor ranges", Some("close_range"), (5, 9), "close every descriptor that the command must not inherit", "nothing runs"),
    feature("overlay without root", None, (5, 11), "copy-on-write trees", "nothing runs on the host's own tree"),
    feature("mount attributes", Some("mount_setattr"), (5, 12), "make a tree with all its submounts read-only at once", "nothing runs"),
    feature("landlock", Some("landlock_create_ruleset"), (5, 13), "a second wall around files", "the `strict` file rules are off"),
    feature("landlock rename rules", None, (5, 19), "rename and link between directories under landlock (ABI 2)", "`strict` refuses such renames"),
    feature("landlock truncate rules", None, (6, 2), "truncation counts as writing under landlock (ABI 3)", "`strict` cannot stop truncation"),
    feature(
        "attributes on tmpfs",
        None,
        (6, 6),
        "mark a directory as opaque in a copy-on-write layer",
        "removing a directory of the host and making it again fails inside",
    ),
    feature("landlock TCP rules", None, (6, 7), "allow-list of TCP ports (ABI 4)", "`strict` cannot name TCP ports"),
    feature(
        "landlock scopes",
        None,
        (6, 12),
        "no signals and no abstract sockets to the outside (ABI 6)",
        "namespaces alone stand between the command and abstract sockets",
    ),
    feature(
        "overlay by descriptor",
        None,
        (6, 13),
        "layers given by handle instead of by path",
        "layers are named by path below a directory of ours",
    ),
];

/// Read a regular file of the host, at most `limit` bytes; larger is an error (EFBIG). // I1
pub fn read(path: impl AsRef<Path>, limit: usize) -> io::Result<Vec<u8>> {
    // O_NONBLOCK: a fifo in its place must not hang us before we know that it is one.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let expected = usize::try_from(meta.size()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(expected.min(limit) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(bytes)
}

/// A small file of /proc or /sys as trimmed text; None if it is not there or cannot be read.
pub fn word(path: impl AsRef<Path>) -> Option<String> {
    let text = read(path, 64 << 10).ok()?;
    Some(String::from_utf8_lossy(&text).trim_matches(['\0', '\n', ' ']).to_string())
}

/// Bytes. man: sysinfo(2)
pub fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for (text, major, minor) in
            [("6.18.44-fc-v782", 6, 18), ("5.12", 5, 12), ("6.1-rc3+", 6, 1), ("", 0, 0), ("next", 0, 0), ("99999999999.1", 0, 1)]
        {
            assert_eq!(release(text.as_bytes()), Kernel { major, minor }, "{text:?}");
        }
        assert!(Kernel { major: 5, minor: 11 } < FLOOR && Kernel { major: 6, minor: 0 } > FLOOR);
    }

    #[test]
    fn features_name_each_thing_once_and_the_floor_is_one_of_them() {
        for (n, feature) in FEATURES.iter().enumerate() {
            assert!(FEATURES.iter().skip(n + 1).all(|f| f.name != feature.name), "{}", feature.name);
            assert!(!feature.why.is_empty() && !feature.without.is_empty());
        }
        assert!(FEATURES.is_sorted_by_key(|f| f.since));
        assert!(FEATURES.iter().any(|f| f.since == (FLOOR.major, FLOOR.minor)));
    }

    #[test]
    fn cve_2024_9676_only_bounded_regular_files_are_read() {
        let name = format!("sandbox-host-read-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        std::fs::write(&file, b"12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        let sparse = dir.join("sparse");
        std::fs::File::create(&sparse).unwrap().set_len(8 << 30).unwrap();
        assert_eq!(read(&sparse, 1 << 20).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        let fifo = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        for odd in [fifo.as_path(), dir.as_path(), Path::new("/dev/zero")] {
            assert!(read(odd, 1 << 20).is_err(), "{odd:?}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
