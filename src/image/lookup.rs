//! One file of an image, found in its layers as the overlay would show it: the highest layer counts, whiteouts hide, links are followed
//! inside only. Called by `launch` and `rootfs` for account files before anything is mounted. Every byte is hostile. // L1 L7
#![forbid(unsafe_code)]

use super::whiteout::{is_opaque, is_whiteout, open_dir};
use crate::error::{Doing, Error, Kind, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// man: path_resolution(7)
const MOST_LINKS: u32 = 40;
const MOST_PARTS: usize = 4096;

/// The content of a regular file of at most `limit` bytes; `layers` are directories, the highest first.
pub fn read(layers: &[PathBuf], path: &str, limit: u64) -> Result<Vec<u8>> {
    let file = open(layers, path).doing("open", format_args!("{path} of the image"))?;
    let meta = file.metadata().doing("look at", path)?;
    if !meta.is_file() || meta.len() > limit {
        return Err(Error::new(Kind::Denied, format!("cannot read {path} of the image: not a regular file of at most {limit} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).doing("read", path)?;
    Ok(bytes)
}

/// The same directory in the layers that show there, the highest first.
type Merged = Vec<OwnedFd>;

fn open(layers: &[PathBuf], path: &str) -> Result<std::fs::File, Errno> {
    // A writable layer that is yet to be made holds nothing.
    let there = layers
        .iter()
        .map(|dir| openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))
        .filter(|dir| dir.as_ref().err() != Some(&Errno::NOENT));
    let mut way: Vec<Merged> = vec![there.collect::<Result<_, _>>()?];
    let mut parts: VecDeque<OsString> = names(Path::new(path)).collect();
    let mut links = 0;
    while let Some(name) = parts.pop_front() {
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let here = way.last().map(Vec::as_slice).unwrap_or_default();
        let (mut merged, mut followed) = (Merged::new(), false);
        for dir in here {
            let stat = match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    let next = open_dir(dir.as_fd(), &cstring(&name)?)?;
                    let opaque = is_opaque(next.as_fd())?;
                    merged.push(next);
                    if opaque {
                        break;
                    }
                }
                _ if !merged.is_empty() => break, // hidden by a directory above
                _ if is_whiteout(&stat) => return Err(Errno::NOENT),
                FileType::Symlink => {
                    links += 1;
                    let target = PathBuf::from(OsString::from_vec(readlinkat(dir, &name, Vec::new())?.into_bytes()));
                    if links > MOST_LINKS || parts.len() > MOST_PARTS {
                        return Err(Errno::LOOP);
                    }
                    if target.is_absolute() {
                        way.truncate(1);
                    }
                    let rest = std::mem::take(&mut parts);
                    parts = names(&target).chain(rest).collect();
                    followed = true;
                    break;
                }
                _ if !parts.is_empty() => return Err(Errno::NOTDIR),
                kind if kind != FileType::RegularFile => return Err(Errno::INVAL),
                _ => {
                    // Not blocking: a fifo in its place must not hold us.
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    return openat(dir, &name, flags, Mode::empty()).map(std::fs::File::from);
                }
            }
        }
        if !merged.is_empty() {
            way.push(merged);
        } else if !followed {
            return Err(Errno::NOENT);
        }
    }
    Err(Errno::ISDIR)
}

fn cstring(name: &OsString) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let part = |part: Component| match part {
        Component::ParentDir => Some(OsString::from("..")),
        Component::Normal(name) => Some(name.to_os_string()),
        _ => None,
    };
    path.components().filter_map(part).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Layers(PathBuf);

    impl Layers {
        fn new(name: &str) -> Layers {
            let dir = std::env::temp_dir().join(format!("sandbox-lookup-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir(&dir).unwrap();
            Layers(dir)
        }

        fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
            let dir = self.0.join(name);
            fs::create_dir(&dir).unwrap();
            for (path, content) in files {
                let path = dir.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match content.strip_prefix("-> ") {
                    Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                    None => fs::write(path, content).unwrap(),
                }
            }
            dir
        }
    }

    impl Drop for Layers {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(layers: &[PathBuf], path: &str) -> Option<String> {
        read(layers, path, 1 << 20).ok().map(|b| String::from_utf8(b).unwrap())
    }

    #[test]
    fn the_highest_layer_counts_and_links_stay_inside() {
        let l = Layers::new("order");
        let low = l.layer(
            "low",
            &[("etc/passwd", "low"), ("etc/group", "low"), ("usr/lib/x", "x"), ("etc/a", "-> /etc/b"), ("etc/b", "-> ../../../usr/./lib/x")],
        );
        let high = l.layer(
            "high",
            &[("etc/passwd", "high"), ("lib", "-> usr/lib"), ("loop", "-> loop"), ("host", "-> /etc/hostname"), ("up", "-> ../../../../etc/shadow")],
        );
        let both = [high.clone(), low];
        for (path, expected) in [
            ("etc/passwd", Some("high")),
            ("etc/group", Some("low")),
            ("etc/a", Some("x")),
            ("lib/x", Some("x")),
            ("lib/../etc/group", None), // in usr/lib: `..` is usr
            ("lib/../lib/x", Some("x")),
            ("loop", None),
            ("host", None),
            ("up", None),
            ("etc", None),
            ("etc/passwd/x", None),
            ("none", None),
        ] {
            assert_eq!(text(&both, path).as_deref(), expected, "{path}");
        }
        assert_eq!(text(&[high], "etc/group"), None);
    }

    #[test]
    fn cve_2024_9676_what_is_odd_is_refused_at_once() {
        let l = Layers::new("odd");
        let dir = l.layer("one", &[("etc/zero", "-> /dev/zero"), ("etc/real", "12345")]);
        rustix::fs::mknodat(CWD, dir.join("etc/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::File::create(dir.join("etc/huge")).unwrap().set_len(8 << 30).unwrap();
        let deep = (0..60).fold("etc/real".to_string(), |to, n| {
            std::os::unix::fs::symlink(format!("../{to}"), dir.join(format!("etc/l{n}"))).unwrap();
            format!("etc/l{n}")
        });
        for path in ["etc/zero", "etc/fifo", "etc/huge", "etc", &deep] {
            assert_eq!(text(std::slice::from_ref(&dir), path), None, "{path}");
        }
        assert_eq!(text(std::slice::from_ref(&dir), "etc/l20").as_deref(), Some("12345"));
        assert!(read(&[dir], "etc/real", 4).is_err());
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide() {
        let l = Layers::new("white");
        let low = l.layer("low", &[("etc/passwd", "low"), ("etc/group", "low"), ("d/x", "low"), ("f/x", "low")]);
        let high = l.layer("high", &[("d/y", "high"), ("f", "a file")]);
        fs::create_dir(high.join("etc")).unwrap();
        if rustix::fs::mknodat(CWD, high.join("etc/passwd"), FileType::CharacterDevice, Mode::empty(), 0).is_err()
            || rustix::fs::setxattr(high.join("d"), "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).is_err()
        {
            return; // an old kernel, or a file system without attributes
        }
        let both = [high, low];
        for (path, expected) in
            [("etc/passwd", None), ("etc/group", Some("low")), ("d/x", None), ("d/y", Some("high")), ("f/x", None), ("f", Some("a file"))]
        {
            assert_eq!(text(&both, path).as_deref(), expected, "{path}");
        }
    }
}
