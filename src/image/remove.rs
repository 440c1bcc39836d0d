//! Deleting a tree: one directory open at a time, by handles, never through a link, however deep it is.
//!
//! Called in helpers. Needs no space on the disk. The way up is `..`, and must be the directory that we came from.

use super::whiteout::{open_dir, reopen};
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, FileType, RawDir, fstat, statat, unlinkat};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// So many names of directories are kept at a time.
const BATCH: usize = 4096;

struct Level {
    device: u64,
    inode: u64,
    name: CString,
    rest: Vec<CString>,
}

/// Remove `name` from `dir`, whatever it is.
pub fn remove(dir: BorrowedFd, name: &CStr) -> Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    empty(open_dir(dir, name)?.as_fd())?;
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Remove all that is in `top`.
pub fn empty(top: BorrowedFd) -> Result<()> {
    let mut at = reopen(top)?;
    let mut above: Vec<Level> = Vec::new();
    let mut rest = sweep(&at)?;
    loop {
        if let Some(name) = rest.pop() {
            let here = fstat(&at)?;
            let below = open_dir(at.as_fd(), &name)?;
            above.push(Level { device: here.st_dev, inode: here.st_ino, name, rest });
            at = below;
            rest = sweep(&at)?;
            continue;
        }
        rest = sweep(&at)?; // there may have been more than a batch
        if !rest.is_empty() {
            continue;
        }
        let Some(level) = above.pop() else { return Ok(()) };
        let up = open_dir(at.as_fd(), c"..")?;
        let stat = fstat(&up)?;
        if (stat.st_dev, stat.st_ino) != (level.device, level.inode) {
            return Err(Errno::STALE); // somebody has moved it meanwhile
        }
        unlinkat(&up, level.name.as_c_str(), AtFlags::REMOVEDIR)?;
        (at, rest) = (up, level.rest);
    }
}

/// Remove what is no directory, and empty directories; the names of the others.
fn sweep(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut full = Vec::new();
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            known => known,
        };
        if kind != FileType::Directory {
            unlinkat(dir, name, AtFlags::empty())?;
            continue;
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => full.push(name.to_owned()),
            other => other?,
        }
        if full.len() == BATCH {
            break;
        }
    }
    Ok(full)
}
