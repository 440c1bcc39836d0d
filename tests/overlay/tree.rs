//! Everything that can be seen below a directory, as a line for each path. Two trees are the same if the lines are.

use crate::calls::{self, Answer, Entries};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

pub type Tree = BTreeMap<Vec<u8>, String>;

/// Files got their times from us, and those are of before; what is later is of this run, and has no defined value.
const LONG_AGO: i64 = 1_700_000_000;

/// Larger files are known by their size alone.
const LARGE: i64 = 16 << 20;

/// What can be compared of a stat.
pub fn attributes(stat: &libc::stat) -> String {
    let dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let device = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
    let mut line = format!("{:06o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
    // Size and links of a directory are the file system's own affair.
    if !dir {
        let _ = write!(line, " size {} links {}", stat.st_size, stat.st_nlink);
    }
    if device {
        let _ = write!(line, " device {}:{}", libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    }
    if stat.st_mtime < LONG_AGO {
        let _ = write!(line, " at {}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
    } else {
        line += " at now";
    }
    line
}

pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Below this directory, and itself as `.`; with the `groups` of names that one file has.
pub fn tree(root: &Path, groups: bool) -> Tree {
    let mut tree = Tree::new();
    let mut links = groups.then(BTreeMap::new);
    let dir = calls::open(libc::AT_FDCWD, root.as_os_str().as_encoded_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0);
    match dir {
        Ok(dir) => walk(dir.as_raw_fd(), b".", &mut tree, &mut links),
        Err(e) => drop(tree.insert(b".".to_vec(), calls::errno_name(e))),
    }
    tree
}

/// The first path of each inode number.
type Links = Option<BTreeMap<u64, Vec<u8>>>;

fn walk(dir: RawFd, path: &[u8], tree: &mut Tree, links: &mut Links) {
    let line = describe(dir, path, links).unwrap_or_else(|e| format!("cannot be read: {}", calls::errno_name(e)));
    tree.insert(path.to_vec(), line);
    let names = match calls::open(dir, b".", libc::O_RDONLY | libc::O_DIRECTORY, 0).and_then(|fd| Entries::of(fd, 32 << 10).rest()) {
        Ok(entries) => entries,
        Err(e) => {
            tree.insert([path, b"/*"].concat(), format!("cannot be listed: {}", calls::errno_name(e)));
            return;
        }
    };
    let mut sorted: Vec<_> = names.into_iter().map(|e| (e.name, e.kind)).collect();
    sorted.sort();
    for (name, kind) in sorted {
        let below = if path == b"." { name.clone() } else { [path, b"/", &name].concat() };
        if tree.contains_key(&below) {
            tree.insert([&below, &b"/*"[..]].concat(), "is listed twice".into());
            continue;
        }
        let fd = match calls::open(dir, &name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
            Ok(fd) => fd,
            Err(e) => {
                tree.insert(below, format!("cannot be opened: {}", calls::errno_name(e)));
                continue;
            }
        };
        if kind == libc::DT_DIR {
            walk(fd.as_raw_fd(), &below, tree, links);
        } else {
            let line = describe(fd.as_raw_fd(), &below, links).unwrap_or_else(|e| format!("cannot be read: {}", calls::errno_name(e)));
            tree.insert(below, line);
        }
    }
}

fn describe(fd: RawFd, path: &[u8], links: &mut Links) -> Answer<String> {
    let stat = calls::fstat(fd)?;
    let mut line = attributes(&stat);
    let kind = stat.st_mode & libc::S_IFMT;
    let through = format!("/proc/self/fd/{fd}").into_bytes();
    if kind == libc::S_IFREG {
        if let Some(links) = links.as_mut().filter(|_| stat.st_nlink > 1) {
            let first = links.entry(stat.st_ino).or_insert_with(|| path.to_vec());
            let _ = write!(line, " is {}", first.escape_ascii());
        }
        if stat.st_size > 0 && stat.st_size <= LARGE {
            let file = calls::open(libc::AT_FDCWD, &through, libc::O_RDONLY, 0)?;
            let content = content(file.as_raw_fd(), stat.st_size as usize)?;
            let _ = write!(line, " holds {:016x}", hash(&content));
        }
    } else if kind == libc::S_IFLNK {
        let _ = write!(line, " to {}", calls::readlink(fd, b"")?.escape_ascii());
    }
    for name in calls::list_xattr(&through, true)? {
        let value = calls::get_xattr(&through, &name, 64 << 10, true)?;
        let _ = match value.len() {
            0..=40 => write!(line, " {name}={}", value.escape_ascii()),
            len => write!(line, " {name}={len}:{:016x}", hash(&value)),
        };
    }
    Ok(line)
}

fn content(fd: RawFd, size: usize) -> Answer<Vec<u8>> {
    let mut all = Vec::with_capacity(size);
    loop {
        let piece = calls::pread(fd, 128 << 10, all.len() as i64)?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend(piece);
    }
}

/// The first few paths where they are not the same.
pub fn differences(left: (&str, &Tree), right: (&str, &Tree)) -> Vec<String> {
    let mut paths: Vec<_> = left.1.keys().chain(right.1.keys()).collect();
    paths.sort();
    paths.dedup();
    let line = |side: &Tree, path: &Vec<u8>| side.get(path).cloned().unwrap_or_else(|| "is not there".into());
    let differ = paths.into_iter().filter(|p| left.1.get(*p) != right.1.get(*p));
    differ
        .take(5)
        .map(|p| format!("{}\n      {:8} {}\n      {:8} {}", p.escape_ascii(), left.0, line(left.1, p), right.0, line(right.1, p)))
        .collect()
}
