//! Virtual ownership: owner, mode, type and device number of a file as an extended attribute, where all on disk belongs to one user. In the
//! form of containers/storage (`UID:GID:MODE[:TYPE]`), which podman and fuse-overlayfs write, too. Our overlay writes it; read by it, and by
//! whoever packs a layer.

use crate::sys::{Errno, Result};
use rustix::fs::{FileType, Stat};
use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::BorrowedFd;

pub const OVERRIDE: &CStr = c"user.containers.override_stat";
/// Longer is none.
const MOST: usize = 128;

/// fstat(2), with what the attribute says instead.
pub fn stat(fd: BorrowedFd) -> Result<Stat> {
    let mut stat = rustix::fs::fstat(fd)?;
    if let Some(over) = Override::read(fd)? {
        over.apply(&mut stat);
    }
    Ok(stat)
}

/// Who a file belongs to and what it is, where the disk cannot say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    pub uid: u32,
    pub gid: u32,
    /// Permissions only.
    pub mode: u32,
    /// What kind of file, with a device's number; None: what the disk says.
    pub kind: Option<(FileType, u64)>,
}

impl Override {
    pub fn parse(text: &[u8]) -> Option<Override> {
        let mut parts = std::str::from_utf8(text).ok()?.trim_end_matches('\0').split(':');
        let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let mode = u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777;
        let kind = match parts.next() {
            None => None,
            Some(word) => {
                let mut words = word.split('-');
                let kind = match words.next()? {
                    "file" => FileType::RegularFile,
                    "dir" => FileType::Directory,
                    "symlink" => FileType::Symlink,
                    "pipe" => FileType::Fifo,
                    "socket" => FileType::Socket,
                    "block" => FileType::BlockDevice,
                    "char" => FileType::CharacterDevice,
                    _ => return None,
                };
                let device = match kind {
                    FileType::BlockDevice | FileType::CharacterDevice => {
                        rustix::fs::makedev(words.next()?.parse().ok()?, words.next()?.parse().ok()?)
                    }
                    _ => 0,
                };
                words.next().is_none().then_some(())?;
                Some((kind, device))
            }
        };
        parts.next().is_none().then_some(Override { uid, gid, mode, kind })
    }

    pub fn text(&self) -> String {
        let Override { uid, gid, mode, kind } = self;
        let mut text = format!("{uid}:{gid}:{mode:04o}");
        if let Some((kind, device)) = kind {
            text.push_str(match kind {
                FileType::Directory => ":dir",
                FileType::Symlink => ":symlink",
                FileType::Fifo => ":pipe",
                FileType::Socket => ":socket",
                FileType::BlockDevice => ":block",
                FileType::CharacterDevice => ":char",
                _ => ":file",
            });
            if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
                let _ = write!(text, "-{}-{}", rustix::fs::major(*device), rustix::fs::minor(*device));
            }
        }
        text
    }

    pub fn of(stat: &Stat) -> Override {
        let kind = FileType::from_raw_mode(stat.st_mode);
        Override { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, kind: Some((kind, stat.st_rdev)) }
    }

    /// What the attribute of an open file says.
    fn read(fd: BorrowedFd) -> Result<Option<Override>> {
        let mut value = [0u8; MOST];
        match rustix::fs::fgetxattr(fd, OVERRIDE, &mut value[..]) {
            Ok(n) => Ok(value.get(..n).and_then(Override::parse)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn apply(&self, stat: &mut Stat) {
        (stat.st_uid, stat.st_gid) = (self.uid, self.gid);
        let mut format = stat.st_mode & libc::S_IFMT;
        if let Some((kind, device)) = self.kind
            && FileType::from_raw_mode(format) == FileType::RegularFile
            && kind != FileType::Directory
        {
            format = kind.as_raw_mode();
            stat.st_rdev = device;
            if !matches!(kind, FileType::RegularFile | FileType::Symlink) {
                stat.st_size = 0;
            }
        }
        stat.st_mode = format | self.mode;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_podman_is_read_and_written() {
        let device = Some((FileType::CharacterDevice, rustix::fs::makedev(1, 3)));
        for (text, uid, gid, mode, kind) in [
            ("0:0:0755", 0, 0, 0o755, None),
            ("33:44:4755:file", 33, 44, 0o4755, Some((FileType::RegularFile, 0))),
            ("1:2:1777:dir", 1, 2, 0o1777, Some((FileType::Directory, 0))),
            ("1:2:0777:symlink", 1, 2, 0o777, Some((FileType::Symlink, 0))),
            ("0:5:0620:char-1-3", 0, 5, 0o620, device),
        ] {
            let over = Override { uid, gid, mode, kind };
            assert_eq!(Override::parse(text.as_bytes()), Some(over), "{text}");
            assert_eq!(over.text(), text);
        }
        for bad in ["", "0:0", "0:0:9", "a:0:755", "0:0:755:door", "0:0:755:char-1", "0:0:755:char-1-2-3", "0:0:755:file:x", "-1:0:755"] {
            assert_eq!(Override::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_type_only_changes_what_is_a_file_on_disk() {
        let mut stat = rustix::fs::stat("/").unwrap();
        Override::parse(b"7:8:0600:char-1-3").unwrap().apply(&mut stat);
        assert_eq!(FileType::from_raw_mode(stat.st_mode), FileType::Directory);
        assert_eq!((stat.st_uid, stat.st_gid, stat.st_mode & 0o7777), (7, 8, 0o600));
    }
}
