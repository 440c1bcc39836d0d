//! How much there is room for: statfs(2), and the limits of the upper layer.
//!
//! What the upper layer holds is counted once at the start, then kept up to date: content in blocks of 512 bytes as the disk counts them, and
//! inodes. A whiteout costs nothing. A file that is removed counts until nobody has it open.

use super::layer::{self, DIRECTORY};
use super::{Fs, Limit};
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, FileType, Mode, RawDir, StatVfs, openat, statat};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

const BLOCK: u64 = 4096;

#[derive(Debug)]
pub struct Usage {
    limit: Limit,
    /// In blocks of 512 bytes.
    blocks: AtomicU64,
    inodes: AtomicU64,
}

impl Usage {
    pub fn of(upper: Option<&OwnedFd>, limit: Limit) -> Result<Usage> {
        let (blocks, inodes) = match upper {
            Some(dir) if limit != Limit::default() => count(dir)?,
            _ => (0, 0),
        };
        Ok(Usage { limit, blocks: AtomicU64::new(blocks), inodes: AtomicU64::new(inodes) })
    }

    pub fn counts_bytes(&self) -> bool {
        self.limit.bytes.is_some()
    }

    /// ENOSPC, if so many bytes more were too many.
    pub fn has_room(&self, bytes: u64) -> Result<()> {
        match self.limit.bytes {
            Some(limit) if bytes > 0 && self.blocks.load(Ordering::Relaxed) * 512 + bytes > limit => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }

    pub fn charge(&self, now: u64, then: u64) {
        if now >= then {
            self.blocks.fetch_add(now - then, Ordering::Relaxed);
        } else {
            self.release(then - now);
        }
    }

    fn release(&self, blocks: u64) {
        let _ = self.blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |b| Some(b.saturating_sub(blocks)));
    }

    pub fn take_inode(&self) -> Result<()> {
        let before = self.inodes.fetch_add(1, Ordering::Relaxed);
        match self.limit.inodes {
            Some(limit) if before >= limit => {
                self.give_inode(0);
                Err(Errno::NOSPC)
            }
            _ => Ok(()),
        }
    }

    /// An inode is gone, and so many blocks of content with it.
    pub fn give_inode(&self, blocks: u64) {
        let _ = self.inodes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(n.saturating_sub(1)));
        self.release(blocks);
    }
}

/// Blocks and inodes below a directory; hard links once.
fn count(top: &OwnedFd) -> Result<(u64, u64)> {
    let (mut blocks, mut inodes, mut linked) = (0, 0, HashSet::new());
    let mut todo: Vec<(OwnedFd, Vec<CString>)> = vec![names(openat(top, c".", DIRECTORY, Mode::empty())?)?];
    while let Some((dir, rest)) = todo.last_mut() {
        let Some(name) = rest.pop() else {
            todo.pop();
            continue;
        };
        let stat = statat(&*dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        if layer::is_character_whiteout(&stat) || (stat.st_nlink > 1 && !is_dir(stat.st_mode) && !linked.insert(stat.st_ino)) {
            continue;
        }
        inodes += 1;
        if is_dir(stat.st_mode) {
            let below = openat(&*dir, name.as_c_str(), DIRECTORY, Mode::empty())?;
            todo.push(names(below)?);
        } else {
            blocks += stat.st_blocks as u64;
        }
    }
    Ok((blocks, inodes))
}

fn is_dir(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

fn names(dir: OwnedFd) -> Result<(OwnedFd, Vec<CString>)> {
    let mut space = vec![MaybeUninit::uninit(); 32 << 10];
    let mut found: Vec<CString> = Vec::new();
    let mut entries = RawDir::new(&dir, &mut space);
    while let Some(entry) = entries.next() {
        let name: &CStr = entry.as_ref().map_err(|e| *e)?.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            found.push(name.to_owned());
        }
    }
    Ok((dir, found))
}

impl Fs {
    pub fn statfs(&self) -> Result<StatVfs> {
        let mut disk = match &self.upper {
            Some(upper) => rustix::fs::fstatvfs(&*upper.dir)?,
            None => {
                let root = self.table.get(super::inode::ROOT)?;
                let top = root.lowers().first().cloned().ok_or(Errno::IO)?;
                rustix::fs::fstatvfs(&*top.fd()?)?
            }
        };
        let usage = &self.usage;
        if let Some(limit) = usage.limit.bytes {
            let free_on_disk = disk.f_bavail.saturating_mul(disk.f_frsize) / BLOCK;
            disk.f_bsize = BLOCK;
            disk.f_frsize = BLOCK;
            disk.f_blocks = limit / BLOCK;
            disk.f_bfree = (limit.saturating_sub(usage.blocks.load(Ordering::Relaxed) * 512) / BLOCK).min(free_on_disk);
            disk.f_bavail = disk.f_bfree;
        }
        if let Some(limit) = usage.limit.inodes {
            let free_on_disk = if disk.f_files == 0 { u64::MAX } else { disk.f_ffree };
            disk.f_files = limit;
            disk.f_ffree = limit.saturating_sub(usage.inodes.load(Ordering::Relaxed)).min(free_on_disk);
        }
        Ok(disk)
    }
}
