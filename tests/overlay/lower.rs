//! Lower layers from a seed: all kinds of files in merged directories, whiteouts and opaque marks in each of their forms.

use crate::calls;
use crate::op::{Dice, acl, acl_name, value};
use crate::sides::{Kind, Layers, Mounted};
use crate::tree::tree;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const NAMES: [&str; 14] = ["a", "b", "c", "d", "e", "f", "g.txt", "with space", "\u{e4}", "new\nline", ".hidden", "x", "y", "-z"];
const MODES: [u32; 10] = [0o644, 0o600, 0o755, 0o666, 0o4755, 0o2755, 0o000, 0o444, 0o640, 0o1755];
const DIR_MODES: [u32; 8] = [0o755, 0o755, 0o777, 0o1777, 0o700, 0o2775, 0o750, 0o555];
const OWNERS: [u32; 5] = [0, 0, 1000, 2000, 65534];

/// Three layers, the topmost first. `links`: some files have several names, which the kernel breaks when it copies them up.
pub fn layers(dice: &mut Dice, dir: &Path, links: bool) -> Vec<PathBuf> {
    let layers: Vec<PathBuf> = (0..3).map(|n| dir.join(format!("lower{n}"))).collect();
    for (n, layer) in layers.iter().enumerate().rev() {
        std::fs::create_dir(layer).expect("a layer");
        fill(dice, layer, 0, n == 2, links);
    }
    clear_strays(&layers, dir);
    layers
}

/// What overlays do not define is taken away. A whiteout where nothing is below it: the kernel lists its name, and then does not find it.
/// And a file of which an upper layer hides some names: they are counted all the same.
fn clear_strays(layers: &[PathBuf], dir: &Path) {
    loop {
        let at = dir.join("m0");
        let mounted = Mounted::new(Kind::Kernel, &Layers::new(layers, &dir.join("0")), &at);
        let tree = tree(&at, true);
        mounted.unmount();
        let mut names = BTreeMap::new();
        for line in tree.values() {
            *names.entry(group(line)).or_insert(0) += 1;
        }
        let stray = |line: &str| line.starts_with("cannot be opened") || group(line).is_some_and(|(count, _)| names[&group(line)] != count);
        let strays: Vec<_> = tree.iter().filter(|(_, line)| stray(line)).map(|(path, _)| PathBuf::from(OsStr::from_bytes(path))).collect();
        for path in &strays {
            layers.iter().for_each(|layer| drop(std::fs::remove_file(layer.join(path))));
        }
        for name in ["0", "m0"] {
            std::fs::remove_dir_all(dir.join(name)).expect("remove");
        }
        if strays.is_empty() {
            return;
        }
    }
}

/// How many names a file says it has, and which of them came first.
fn group(line: &str) -> Option<(u64, &str)> {
    let (before, after) = line.split_once(" is ")?;
    let count = before.split_once(" links ")?.1.split(' ').next()?.parse().ok()?;
    Some((count, after.split(" holds ").next()?))
}

fn fill(dice: &mut Dice, dir: &Path, depth: usize, bottom: bool, links: bool) {
    let at = calls::open(libc::AT_FDCWD, dir.as_os_str().as_encoded_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("a layer");
    let fd = at.as_raw_fd();
    for name in NAMES {
        if !dice.once_in(if bottom { 2 } else { 4 }) {
            continue;
        }
        let path = dir.join(name);
        let bytes = path.as_os_str().as_encoded_bytes();
        match dice.roll(24) {
            0..8 if depth < 3 => {
                calls::mkdir(fd, name.as_bytes(), 0o755).expect("mkdir");
                fill(dice, &path, depth + 1, bottom, links);
                if !bottom && dice.once_in(6) {
                    calls::set_xattr(bytes, "user.overlay.opaque", b"y", 0, true).expect("opaque");
                }
                let mode = dice.one(&DIR_MODES);
                attributes(dice, &path, mode, true);
            }
            8..10 => {
                let target = ["a", "../b", "missing", "d", ".", "x/y"];
                calls::symlink(dice.one(&target).as_bytes(), fd, name.as_bytes()).expect("symlink");
                calls::utimens(fd, name.as_bytes(), (1, 1), (1_111_111_111, 5), libc::AT_SYMLINK_NOFOLLOW).expect("times");
            }
            10 => {
                let kind = dice.one(&[libc::S_IFIFO, libc::S_IFSOCK]);
                calls::mknod(fd, name.as_bytes(), kind | 0o644, 0).expect("mknod");
                attributes(dice, &path, 0o640, false);
            }
            11..13 if !bottom => {
                calls::mknod(fd, name.as_bytes(), libc::S_IFCHR, 0).expect("whiteout");
            }
            13 if !bottom && depth < 3 => {
                // The newer form: of this mark, and only in a directory that says that there are some.
                std::fs::write(&path, b"").expect("write");
                calls::set_xattr(bytes, "user.overlay.whiteout", b"y", 0, true).expect("whiteout");
                let _ = calls::set_xattr(dir.as_os_str().as_encoded_bytes(), "user.overlay.opaque", b"x", libc::XATTR_CREATE, true);
            }
            _ => {
                let size = dice.one(&[0, 1, 100, 5000, 4096, 70_000]);
                let mut content: Vec<u8> = (0..size).map(|n| (n / 7) as u8 ^ (size % 251) as u8).collect();
                if dice.once_in(6) && size > 0 {
                    // With holes.
                    let file = calls::open(fd, name.as_bytes(), libc::O_CREAT | libc::O_WRONLY, 0o644).expect("create");
                    calls::pwrite(file.as_raw_fd(), &content, 100_000).expect("write");
                    calls::ftruncate(file.as_raw_fd(), 200_000).expect("truncate");
                } else {
                    content.rotate_left(size / 3);
                    std::fs::write(&path, &content).expect("write");
                }
                if links && dice.once_in(3) {
                    let other = format!("{name}.link");
                    let _ = calls::link(fd, name.as_bytes(), other.as_bytes(), 0);
                }
                let mode = dice.one(&MODES);
                attributes(dice, &path, mode, false);
            }
        }
    }
    if bottom && depth == 0 {
        let odd = PathBuf::from(std::ffi::OsString::from_vec(b"\xff\xfe not utf-8".to_vec()));
        std::fs::write(dir.join(odd), b"odd").expect("write");
        std::fs::create_dir(dir.join("many")).expect("mkdir");
        for n in 0..150 {
            std::fs::write(dir.join(format!("many/file{n:03}")), b"").expect("write");
        }
    }
}

fn attributes(dice: &mut Dice, path: &Path, mode: u32, dir: bool) {
    let bytes = path.as_os_str().as_encoded_bytes();
    calls::chown(libc::AT_FDCWD, bytes, dice.one(&OWNERS), dice.one(&OWNERS), 0).expect("chown");
    calls::chmod(libc::AT_FDCWD, bytes, mode).expect("chmod");
    let regular = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file() || m.is_dir());
    if regular && dice.once_in(2) {
        calls::set_xattr(bytes, "user.a", &value(dice.roll(40)), 0, true).expect("xattr");
    }
    if regular && dice.once_in(10) {
        calls::set_xattr(bytes, "user.long", &value(1000), 0, true).expect("xattr");
    }
    if regular && dice.once_in(8) {
        let _ = calls::set_xattr(bytes, acl_name(false), &acl(dice.roll(8) as u16, 1000), 0, true);
    }
    if dir && dice.once_in(6) {
        let _ = calls::set_xattr(bytes, acl_name(true), &acl(dice.roll(8) as u16, 2000), 0, true);
    }
    calls::utimens(libc::AT_FDCWD, bytes, (1, 1), (1_000_000_000 + dice.roll(1_000_000) as i64, dice.roll(1_000_000_000) as i64), 0).expect("times");
}
