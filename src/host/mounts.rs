//! What is mounted where, and what the kernel will say to a fresh /proc or /sys.
//!
//! Called by `rootfs` (which takes each mount of the host tree by handle) and `cli::doctor`. Never follows a path: it only compares names.
//! man: proc_pid_mountinfo(5)

use super::remedy::Missing;
use crate::error::{Doing, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::MountAttrFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const TABLE: &str = "/proc/self/mountinfo";
/// A hundred thousand mounts and more; then the host is broken.
const TABLE_LIMIT: u64 = 32 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    pub id: u32,
    pub parent: u32,
    /// What of its file system is shown; `/` is all.
    pub root: PathBuf,
    pub point: PathBuf,
    /// `rw,nosuid,...` of this mount.
    pub options: String,
    pub fstype: String,
    pub source: String,
    /// The options of the file system, shared by all its mounts.
    pub super_options: String,
}

impl MountPoint {
    /// Has this mount, or its file system, the option `ro`?
    pub fn is_read_only(&self) -> bool {
        self.has("ro") || self.super_options.split(',').any(|o| o == "ro")
    }

    /// Its access-time options as fsmount(2) wants them.
    pub fn access_time(&self) -> MountAttrFlags {
        let time = if self.has("noatime") {
            MountAttrFlags::MOUNT_ATTR_NOATIME
        } else if self.has("relatime") {
            MountAttrFlags::MOUNT_ATTR_RELATIME
        } else {
            MountAttrFlags::MOUNT_ATTR_STRICTATIME
        };
        if self.has("nodiratime") { time | MountAttrFlags::MOUNT_ATTR_NODIRATIME } else { time }
    }

    /// Has this mount the option `name`?
    pub fn has(&self, name: &str) -> bool {
        self.options.split(',').any(|o| o == name)
    }
}

pub fn mounts() -> Result<Vec<MountPoint>> {
    Table::open()?.read()
}

/// The table of our mount namespace.
pub struct Table(File);

impl Table {
    pub fn open() -> Result<Table> {
        match File::open(TABLE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Missing::ProcMissing.error(format!("cannot read {TABLE}: /proc is not mounted here")))
            }
            other => other.doing("read", TABLE).map(Table),
        }
    }

    pub fn read(&self) -> Result<Vec<MountPoint>> {
        let mut text = Vec::with_capacity(8 << 10);
        (&self.0).take(TABLE_LIMIT + 1).read_to_end(&mut text).doing("read", TABLE)?;
        if text.len() as u64 > TABLE_LIMIT {
            return Err(Error::new(Kind::Io, format!("cannot read {TABLE}: it is larger than {} MiB", TABLE_LIMIT >> 20)));
        }
        parse(&text)
    }

    /// Something was mounted, moved or unmounted since it was opened, even if all is as it was again. man: proc_pid_mounts(5)
    pub fn has_changed(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::PRI)], Some(&now)).is_ok_and(|n| n > 0)
    }
}

/// A line that we do not understand is an error: skipping it would show a tree with a hole in it.
pub fn parse(text: &[u8]) -> Result<Vec<MountPoint>> {
    let mut mounts = Vec::with_capacity(48);
    for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let mount = parse_line(line)
            .ok_or_else(|| Error::new(Kind::Io, format!("cannot understand a line of {TABLE}: {}", String::from_utf8_lossy(line))))?;
        mounts.push(mount);
    }
    Ok(mounts)
}

fn parse_line(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|b| *b == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let _device = fields.next()?;
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = word(fields.next()?);
    // Optional fields (`shared:1`) until a lone dash.
    fields.find(|f| *f == b"-")?;
    let fstype = word(fields.next()?);
    let source = word(fields.next()?);
    let super_options = word(fields.next()?);
    point.is_absolute().then_some(MountPoint { id, parent, root, point, options, fstype, source, super_options })
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn word(field: &[u8]) -> String {
    String::from_utf8(unescape(field)).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Blank, tab, newline, backslash and `#` come as `\040` and so on. kernel: fs/proc_namespace.c mangle()
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => out.push(*first),
        }
    }
    out
}

/// The mounts strictly below `dir` that a path can reach, in the table's order.
pub fn submounts<'a>(mounts: &'a [MountPoint], dir: &'a Path) -> impl Iterator<Item = &'a MountPoint> {
    mounts.iter().filter(move |m| is_below(&m.point, dir) && is_visible(mounts, m))
}

/// The mount that a path at exactly `point` reaches, if one is mounted there.
pub fn mounted_at<'a>(mounts: &'a [MountPoint], point: &Path) -> Option<&'a MountPoint> {
    mounts.iter().find(|m| m.point.as_os_str() == point.as_os_str() && is_visible(mounts, m))
}

/// At `dir` or below it, by names; both absolute and without `.` and `..`.
pub fn is_within(path: &Path, dir: &Path) -> bool {
    path.as_os_str() == dir.as_os_str() || is_below(path, dir)
}

/// Strictly below, by names. Bytes, because comparing components one by one is ten times slower.
pub fn is_below(path: &Path, dir: &Path) -> bool {
    let (path, dir) = (path.as_os_str().as_bytes(), dir.as_os_str().as_bytes());
    match path.strip_prefix(dir) {
        Some(rest) if dir == b"/" => !rest.is_empty(),
        Some(rest) => rest.len() > 1 && rest.starts_with(b"/"),
        None => false,
    }
}

fn is_visible(mounts: &[MountPoint], mount: &MountPoint) -> bool {
    // Another one may be stacked on its top, ...
    if mounts.iter().any(|m| m.parent == mount.id && m.id != mount.id && m.point.as_os_str() == mount.point.as_os_str()) {
        return false;
    }
    // ... or on a directory on the way to it, on any of the mounts below.
    let mut at = mount;
    for _ in 0..mounts.len() {
        let hidden = |m: &MountPoint| {
            m.parent == at.parent && m.id != at.id && (is_below(&at.point, &m.point) || (m.point.as_os_str() == at.point.as_os_str() && m.id > at.id))
        };
        if mounts.iter().any(hidden) {
            return false;
        }
        match mounts.iter().find(|m| m.id == at.parent && m.id != at.id) {
            Some(parent) => at = parent,
            None => return true,
        }
    }
    false
}

/// May a user namespace mount a fresh instance of proc or sysfs?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// `read_only`: only a read-only one.
    Yes { read_only: bool },
    /// What covers something in every instance that is here; `/proc` itself if there is none.
    No { by: PathBuf },
}

/// Directories that are always empty, so that a mount on them hides nothing. kernel: callers of sysfs_create_mount_point(),
/// proc_create_mount_point(), register_sysctl_mount_point()
const EMPTY_IN_PROC: &[&str] = &["/sys/fs/binfmt_misc", "/fs/nfsd", "/openprom", "/xen"];
const EMPTY_IN_SYSFS: &[&str] = &[
    "/fs/cgroup",
    "/fs/bpf",
    "/fs/fuse/connections",
    "/fs/pstore",
    "/fs/selinux",
    "/fs/smackfs",
    "/fs/resctrl",
    "/kernel/debug",
    "/kernel/tracing",
    "/kernel/security",
    "/kernel/config",
    "/firmware/efi/efivars",
    "/hypervisor/s390",
];

/// What the kernel will say, without asking it (if it is asked from a namespace whose mounts are a copy of these). kernel: fs/namespace.c mnt_already_visible() since 4.2
pub fn fully_visible(mounts: &[MountPoint], fstype: &str) -> Visible {
    match visible_instance(mounts, fstype) {
        Ok(mount) => Visible::Yes { read_only: mount.is_read_only() },
        Err(by) => Visible::No { by },
    }
}

/// The instance that makes a fresh one possible, or what is in the way. The fresh one must have its `access_time`, too, because
/// the copy in a user namespace has them locked: beside a `noatime` /proc a `relatime` one is EPERM.
pub fn visible_instance<'a>(mounts: &'a [MountPoint], fstype: &str) -> std::result::Result<&'a MountPoint, PathBuf> {
    let empty = if fstype == "proc" { EMPTY_IN_PROC } else { EMPTY_IN_SYSFS };
    let mut cover = None;
    let mut read_only = None;
    for mount in mounts.iter().filter(|m| m.fstype == fstype && m.root == Path::new("/")) {
        let below = |m: &&MountPoint| {
            let inside = m.point.as_os_str().as_bytes().strip_prefix(mount.point.as_os_str().as_bytes()).unwrap_or_default();
            m.parent == mount.id && m.id != mount.id && !empty.iter().any(|e| e.as_bytes() == inside)
        };
        match mounts.iter().find(below) {
            Some(covering) => cover = cover.or(Some(covering.point.clone())),
            None if mount.is_read_only() => read_only = read_only.or(Some(mount)),
            None => return Ok(mount),
        }
    }
    let nothing = if fstype == "proc" { "/proc" } else { "/sys" };
    read_only.ok_or_else(|| cover.unwrap_or_else(|| PathBuf::from(nothing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `id parent root point options fstype super_options`, the rest filled in.
    fn table(lines: &[&str]) -> Vec<MountPoint> {
        let text: String = lines
            .iter()
            .map(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
                [id, parent, root, point, options, fstype, rest] => {
                    format!("{id} {parent} 0:1 {root} {point} {options} shared:1 master:2 - {fstype} none {rest}\n")
                }
                _ => panic!("{line}"),
            })
            .collect();
        parse(text.as_bytes()).unwrap()
    }

    fn points<'a>(mounts: impl Iterator<Item = &'a MountPoint>) -> Vec<String> {
        mounts.map(|m| m.point.display().to_string()).collect()
    }

    #[test]
    fn lines() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            37 35 0:30 / /a\\040b\\011c\\012d\\134e\\043f rw - tmpfs my\\040disk rw\n38 35 0:31 / /\xff rw - fuse \xfe rw\n";
        let mounts = parse(text).unwrap();
        let first = mounts.first().unwrap();
        assert_eq!((first.id, first.parent, first.root.as_path(), first.point.as_path()), (36, 35, Path::new("/mnt1"), Path::new("/mnt2")));
        assert_eq!((first.options.as_str(), first.fstype.as_str(), first.source.as_str()), ("rw,noatime", "ext3", "/dev/root"));
        assert_eq!(first.super_options, "rw,errors=continue");
        assert_eq!(mounts[1].point.as_os_str().as_bytes(), b"/a b\tc\nd\\e#f");
        assert_eq!(mounts[1].source, "my disk");
        assert_eq!(mounts[2].point.as_os_str().as_bytes(), b"/\xff");
        for bad in [
            "x",
            "1 2 3",
            "1 2 0:1 / /a rw - ext4 none",
            "1 2 0:1 / /a rw shared:1 ext4 none rw",
            "1 2 0:1 / a rw - x y z",
            "-1 2 0:1 / /a rw - x y z",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn access_times() {
        for (options, flags) in
            [("rw,relatime", 0x0), ("ro,noatime", 0x10), ("rw", 0x20), ("rw,noatime,nodiratime", 0x90), ("rw,nodiratime,relatime", 0x80)]
        {
            let mounts = table(&[&format!("1 0 / / {options} ext4 rw")]);
            assert_eq!(mounts[0].access_time().bits(), flags, "{options}");
        }
    }

    #[test]
    fn odd_escapes_stay_as_they_are() {
        for (raw, plain) in [("\\", "\\"), ("\\04", "\\04"), ("\\08a", "\\08a"), ("\\400", "\\400"), ("\\0400", " 0"), ("a\\", "a\\")] {
            assert_eq!(unescape(raw.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn submounts_are_strictly_below() {
        let mounts = table(&["1 0 / / rw ext4 rw", "2 1 / /home rw ext4 rw", "3 2 / /home/a rw nfs rw", "4 1 / /home2 rw ext4 rw"]);
        assert_eq!(points(submounts(&mounts, Path::new("/home"))), ["/home/a"]);
        assert_eq!(points(submounts(&mounts, Path::new("/"))).len(), 3);
        assert!(points(submounts(&mounts, Path::new("/home/a"))).is_empty());
        assert!(points(submounts(&mounts, Path::new("/hom"))).is_empty());
    }

    #[test]
    fn covered_mounts_are_not_seen() {
        let mounts = table(&[
            "1 0 / / rw ext4 rw",
            "2 1 / /a/b rw ext4 rw", // hidden by 3, mounted on /a later
            "3 1 / /a rw tmpfs rw",
            "4 3 / /a/b rw ext4 rw",   // on 3, so it is seen
            "5 2 / /a/b/c rw ext4 rw", // on 2, so it is hidden with it
            "6 1 / /d rw tmpfs rw",    // 7 is stacked on it
            "7 6 / /d rw tmpfs rw",
            "8 6 / /d/e rw tmpfs rw", // on 6, below 7
            "9 7 / /d/f rw tmpfs rw",
        ]);
        let seen: Vec<_> = submounts(&mounts, Path::new("/")).map(|m| m.id).collect();
        assert_eq!(seen, [3, 4, 7, 9]);
        assert_eq!(mounted_at(&mounts, Path::new("/d")).map(|m| m.id), Some(7));
        assert_eq!(mounted_at(&mounts, Path::new("/d/e")), None);
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let mounts = table(&["1 2 / /a rw tmpfs rw", "2 1 / /a/b rw tmpfs rw", "3 3 / /c rw tmpfs rw"]);
        assert_eq!(points(submounts(&mounts, Path::new("/"))), ["/c"]);
    }

    #[test]
    fn proc_and_sysfs_may_be_made_anew() {
        let yes = |read_only| Visible::Yes { read_only };
        let no = |by: &str| Visible::No { by: by.into() };
        for (fstype, lines, expected) in [
            ("proc", vec!["2 1 / /proc rw proc rw"], yes(false)),
            ("proc", vec!["2 1 / /proc ro,nosuid proc rw"], yes(true)),
            ("proc", vec!["2 1 / /proc rw proc ro"], yes(true)),
            ("proc", vec!["2 1 / /proc rw proc rw", "3 2 / /proc/sys/fs/binfmt_misc rw autofs rw"], yes(false)),
            // docker: masks and read-only binds
            ("proc", vec!["2 1 / /proc rw proc rw", "3 2 /kcore /proc/kcore rw tmpfs rw"], no("/proc/kcore")),
            ("proc", vec!["2 1 / /proc rw proc rw", "3 2 /sys /proc/sys ro proc rw"], no("/proc/sys")),
            ("proc", vec!["2 1 / /proc rw proc rw", "3 2 / /proc rw tmpfs rw"], no("/proc")),
            // lxd: a second, untouched instance elsewhere is enough
            ("proc", vec!["2 1 / /proc rw proc rw", "3 2 /x /proc/uptime rw fuse.lxcfs rw", "4 1 / /dev/.lxc/proc rw proc rw"], yes(false)),
            ("proc", vec!["2 1 / /proc ro proc rw", "4 1 / /other rw proc rw"], yes(false)),
            ("proc", vec!["2 1 /sys /proc/sys rw proc rw"], no("/proc")),
            ("proc", vec![], no("/proc")),
            ("sysfs", vec!["2 1 / /sys rw sysfs rw", "3 2 / /sys/fs/cgroup rw tmpfs rw", "4 3 / /sys/fs/cgroup/cpu rw cgroup rw"], yes(false)),
            ("sysfs", vec!["2 1 / /sys rw sysfs rw", "3 2 / /sys/firmware ro tmpfs rw"], no("/sys/firmware")),
            ("sysfs", vec!["2 1 / /proc rw proc rw"], no("/sys")),
        ] {
            let mut all = vec!["1 0 / / rw ext4 rw"];
            all.extend(lines);
            assert_eq!(fully_visible(&table(&all), fstype), expected, "{all:?}");
        }
    }

    #[test]
    fn this_machine() {
        let mounts = mounts().unwrap();
        assert!(mounted_at(&mounts, Path::new("/proc")).is_some_and(|m| m.fstype == "proc"));
    }

    /// The start-up budget: 30 mounts in 60 us when optimised; a debug build gets twenty times that.
    #[test]
    fn thirty_mounts_are_parsed_in_no_time() {
        let line = "28 27 0:25 / /mnt/some/where/deep/down ro,nosuid,nodev,relatime shared:12 - tmpfs tmpfs ro,size=4k,mode=755\n";
        let text = line.repeat(30);
        let best = (0..20)
            .map(|_| {
                let start = std::time::Instant::now();
                assert_eq!(parse(text.as_bytes()).unwrap().len(), 30);
                start.elapsed()
            })
            .min();
        assert!(best.unwrap() < std::time::Duration::from_micros(1200), "{best:?}");
    }
}
