//! Virtual ownership: who a file belongs to and what it is, in an extended attribute, where all on disk belongs to one user.
//!
//! Written where a layer is unpacked by a user with one id, read where such a layer is packed, and by our own overlay, which shows it.
//! The form is that of containers/storage, which podman and fuse-overlayfs know: `UID:GID:MODE[:TYPE]`.
#![forbid(unsafe_code)]

use rustix::fs::{FileType, Stat};
use std::ffi::CStr;
use std::fmt::Write;
use std::os::fd::AsFd;

pub const OVERRIDE: &CStr = c"user.containers.override_stat";

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

    /// Of an open file; None: the disk's word stands, as where it cannot be read.
    pub fn on(file: impl AsFd) -> Option<Override> {
        let mut value = [0u8; 128];
        let n = rustix::fs::fgetxattr(file, OVERRIDE, &mut value).ok()?;
        value.get(..n).and_then(Override::parse)
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
