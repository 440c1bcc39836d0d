//! Bringing a file into the upper layer: made whole in the work directory, then renamed into its place.
//!
//! The directories above come first, each in the same way. What others see changes at one moment: the rename on disk, the state in memory,
//! under the lock of the names of its directory. A file with several names gets an entry in the index, by which its other names find the copy.
//!
//! The copy is not synced: as after a plain write, only fsync(2) makes it durable.

use super::inode::{Attributes, Key, Node, read, times_of, write};
use super::layer::{IMPURE, NLINK, OPAQUE, ORIGIN, Spot, lock};
use super::xattr::{self, Origin, Override, goes_along, links_text};
use super::{Fs, Ownership};
use crate::image::remove;
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom, Stat, fstat, openat, renameat_with, statat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What has been made in the work directory, and is removed again if it does not get a place.
pub struct Made<'a> {
    fs: &'a Fs,
    pub name: CString,
    placed: bool,
}

impl Made<'_> {
    pub fn placed(mut self) {
        self.placed = true;
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if !self.placed
            && let Ok(work) = self.fs.work()
        {
            // What stays is removed at the next start.
            let _ = remove::remove(work, &self.name);
        }
    }
}

impl Fs {
    pub fn work(&self) -> Result<BorrowedFd<'_>> {
        self.upper.as_ref().map(|u| u.work.as_fd()).ok_or(Errno::ROFS)
    }

    /// A new name in the work directory.
    pub fn made(&self) -> Made<'_> {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        Made { fs: self, name: CString::new(format!("#{n:x}")).unwrap_or_default(), placed: false }
    }

    pub fn copy_up(&self, node: &Arc<Node>) -> Result<()> {
        self.copy_up_for(node, None)
    }

    /// Only the first `size` bytes are wanted.
    pub fn copy_up_for(&self, node: &Arc<Node>, size: Option<u64>) -> Result<()> {
        if node.has_upper() {
            return Ok(());
        }
        if self.upper.is_none() {
            return Err(Errno::ROFS);
        }
        let mut way = vec![node.clone()];
        while let Some(parent) = way.last().and_then(|n| read(&n.state).names.first().map(|n| n.parent.clone())) {
            if parent.has_upper() {
                break;
            }
            way.push(parent);
        }
        while let Some(next) = way.pop() {
            self.raise(&next, if way.is_empty() { size } else { None })?;
        }
        Ok(())
    }

    fn raise(&self, node: &Arc<Node>, size: Option<u64>) -> Result<()> {
        let _one = lock(&node.copying);
        if node.has_upper() {
            return Ok(());
        }
        let mut spot = self.spot(node)?;
        if node.kind == FileType::RegularFile {
            // All that is asked of it, without looking for it each time.
            spot = Spot::Own(spot.open(OFlags::RDONLY)?);
        }
        let seen = self.dressed(&spot, spot.stat()?)?;
        self.usage.has_room(if node.kind == FileType::RegularFile { seen.stat.st_blocks as u64 * 512 } else { 0 })?;
        self.usage.take_inode()?;
        let done = self.raise_from(node, &spot, &seen, size);
        if done.is_err() {
            self.usage.give_inode(0);
        }
        done
    }

    fn raise_from(&self, node: &Arc<Node>, spot: &Spot, seen: &Attributes, size: Option<u64>) -> Result<()> {
        let made = self.made();
        let origin = match spot {
            Spot::Name(dir, name) => Origin::of(dir.as_fd(), name, self.uuid, seen.stat.st_ino),
            Spot::Own(dir) => Origin::of(dir.as_fd(), c"", self.uuid, seen.stat.st_ino),
        };
        let (copy, stat) = self.copy(spot, seen, &made.name, size, &origin)?;
        let seen = &seen.stat;
        let linked = node.kind == FileType::RegularFile && seen.st_nlink > 1;
        // The index has a link of its own, and the copy one: all other names are in lower layers.
        let links = seen.st_nlink as i64 - 2;
        let entry = match linked && self.index_made().is_ok() {
            true => {
                copy.set_xattr(NLINK, links_text(links).as_bytes(), 0)?;
                let entry = origin.name();
                rustix::fs::linkat(self.work()?, made.name.as_c_str(), &*self.index_dir()?, entry.as_ref(), AtFlags::empty())?;
                Some(entry)
            }
            false => None,
        };
        loop {
            let name = read(&node.state).names.first().cloned();
            let Some(name) = name else {
                // Removed while somebody has it: the copy needs no name, either.
                let fd = Spot::Name(Arc::new(rustix::io::fcntl_dupfd_cloexec(self.work()?, 0)?), made.name.clone().into()).open(OFlags::RDWR)?;
                let mut state = write(&node.state);
                (state.pinned, state.upper) = (Some(fd), true);
                drop(state);
                self.emptied(node);
                return Ok(());
            };
            let parent = self.upper_dir(&name.parent)?;
            let _names = write(&name.parent.names);
            let still = |n: &super::inode::Name| Arc::ptr_eq(&n.parent, &name.parent) && n.name == name.name;
            if !read(&node.state).names.iter().any(still) {
                continue;
            }
            let times = times_of(&fstat(&*parent)?);
            place(self.work()?, &made.name, parent.as_fd(), &name.name)?;
            made.placed();
            if !self.is_impure(parent.as_fd()) {
                // Only a hint: numbers are looked up where it is set.
                let _ = rustix::fs::fsetxattr(&*parent, IMPURE, b"y", rustix::fs::XattrFlags::empty());
            }
            let _ = rustix::fs::futimens(&*parent, &times);
            let mut state = write(&node.state);
            state.upper = true;
            state.lower = None;
            (state.index, state.links) = (entry, links);
            state.names.iter_mut().filter(|n| still(n)).for_each(|n| n.upper = true);
            drop(state);
            self.emptied(node);
            node.charged.store(stat.st_blocks as u64, Ordering::Relaxed);
            self.usage.charge(stat.st_blocks as u64, 0);
            self.table.also(node, Key::of(&stat), linked);
            self.list_add(&name.parent, &name.name, node.kind);
            return Ok(());
        }
    }

    /// Descriptors of the layer that it was in are of no use any more.
    fn emptied(&self, node: &Node) {
        if let Some(slot) = node.content.get() {
            slot.clear();
        }
    }

    /// A copy in the work directory, with all that belongs to it; and what it was before it got its owner, mode and times.
    fn copy(&self, from: &Spot, seen: &Attributes, name: &CStr, size: Option<u64>, origin: &Origin) -> Result<(Spot, Stat)> {
        let work = self.work()?;
        let by_name = || Ok(Spot::Name(Arc::new(rustix::io::fcntl_dupfd_cloexec(work, 0)?), name.into()));
        let disk = FileType::from_raw_mode(seen.disk.2);
        let seen = &seen.stat;
        let to = match disk {
            FileType::Directory => {
                rustix::fs::mkdirat(work, name, Mode::from_raw_mode(0o700))?;
                Spot::Own(Arc::new(openat(work, name, super::layer::DIRECTORY, Mode::empty())?))
            }
            FileType::RegularFile => {
                let to = new_file(work, name)?;
                self.copy_content(&*from.open(OFlags::RDONLY)?, &to, seen, size.unwrap_or(u64::MAX))?;
                Spot::Own(Arc::new(to))
            }
            FileType::Symlink => {
                let target = CString::new(from.read_link()?).map_err(|_| Errno::INVAL)?;
                rustix::fs::symlinkat(target.as_c_str(), work, name)?;
                by_name()?
            }
            // Nobody but root makes devices; as an attribute says, everybody does.
            _ if self.ownership == Ownership::Virtual => {
                let to = new_file(work, name)?;
                let to = Spot::Own(Arc::new(to));
                to.set_xattr(xattr::OVERRIDE, Override::of(seen).text().as_bytes(), 0)?;
                to
            }
            kind => {
                rustix::fs::mknodat(work, name, kind, Mode::from_raw_mode(0o600), seen.st_rdev)?;
                by_name()?
            }
        };
        let new = to.stat()?;
        if self.ownership == Ownership::Real && (new.st_uid, new.st_gid) != (seen.st_uid, seen.st_gid) {
            to.chown(Some(seen.st_uid), Some(seen.st_gid))?;
        }
        if matches!(disk, FileType::Directory | FileType::RegularFile | FileType::Symlink) {
            self.copy_xattrs(from, &to)?;
        }
        if matches!(disk, FileType::Directory | FileType::RegularFile) {
            match to.set_xattr(ORIGIN, &origin.0, 0) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        match self.ownership {
            Ownership::Real if disk != FileType::Symlink => to.chmod(seen.st_mode)?,
            Ownership::Virtual if disk != FileType::Symlink => {
                let now = to.stat()?;
                xattr::describe(&to, seen, (now.st_uid, now.st_gid, now.st_mode), true)
                    .or_else(|e| if e == Errno::NODATA { Ok(()) } else { Err(e) })?;
            }
            _ => {}
        }
        to.set_times(&times_of(seen))?;
        Ok((to, new))
    }

    /// The first `size` bytes of a file that has `seen`; holes as holes.
    fn copy_content(&self, from: &OwnedFd, to: &OwnedFd, seen: &Stat, size: u64) -> Result<()> {
        let size = size.min(seen.st_size as u64);
        if size == 0 {
            return Ok(());
        }
        if size == seen.st_size as u64 && self.clones.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOTTY) => self.clones.store(false, Ordering::Relaxed),
                Err(_) => {}
            }
        }
        if seen.st_blocks as u64 * 512 >= seen.st_size as u64 {
            return copy_extent(from, to, 0, size);
        }
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                Err(e) => return Err(e),
            };
            let end = match rustix::fs::seek(from, SeekFrom::Hole(start)) {
                Ok(end) if end > start => end.min(size),
                Ok(_) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => size,
                Err(e) => return Err(e),
            };
            copy_extent(from, to, start, end)?;
            at = end;
        }
        rustix::fs::ftruncate(to, size)
    }

    fn copy_xattrs(&self, from: &Spot, to: &Spot) -> Result<()> {
        let names = match from.list_xattrs() {
            Err(Errno::OPNOTSUPP | Errno::BADF) => return Ok(()),
            other => other?,
        };
        for name in names.split(|b| *b == 0).filter(|n| goes_along(n)) {
            let key = CString::new(name).map_err(|_| Errno::INVAL)?;
            let value = match from.read_xattr(&key) {
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => continue,
                other => other?,
            };
            match to.set_xattr(&key, &value, 0) {
                Ok(()) => {}
                // What the file system or the host keeps for itself.
                Err(Errno::OPNOTSUPP | Errno::PERM) if !name.starts_with(b"user.") && key.as_c_str() != xattr::CAPABILITY => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Copy up a directory and all in it, so that it can be moved: afterwards nothing of it comes from below.
    pub fn raise_whole(&self, node: &Arc<Node>) -> Result<()> {
        self.copy_up(node)?;
        if !node.is_dir() {
            return Ok(());
        }
        let (mut todo, mut dirs) = (vec![node.clone()], Vec::new());
        while let Some(dir) = todo.pop() {
            if dir.lowers().is_empty() {
                continue;
            }
            for (name, from) in self.names(&dir)? {
                let Some((child, _)) = self.find(&dir, &name, from, false)? else { continue };
                self.copy_up(&child)?;
                // Another name of it may be where the copy stands.
                self.stand_up(&child, (&dir, &name))?;
                if child.is_dir() {
                    todo.push(child);
                }
            }
            dirs.push(dir);
        }
        for dir in dirs.into_iter().rev() {
            let _names = write(&dir.names);
            rustix::fs::fsetxattr(&*self.upper_dir(&dir)?, OPAQUE, b"y", rustix::fs::XattrFlags::empty())?;
            write(&dir.state).lowers.clear();
            self.list_forget(&dir);
        }
        Ok(())
    }

    /// A link of another owner, by attribute: a file with the target as content takes its place.
    pub fn replace_link(&self, node: &Arc<Node>, over: &Override) -> Result<()> {
        let target = self.read_link(node)?;
        let made = self.made();
        let file = new_file(self.work()?, &made.name)?;
        if rustix::io::write(&file, &target)? != target.len() {
            return Err(Errno::IO);
        }
        let to = Spot::Own(Arc::new(file));
        to.set_xattr(xattr::OVERRIDE, over.text().as_bytes(), 0)?;
        to.set_times(&times_of(&self.spot(node)?.stat()?))?;
        let stat = to.stat()?;
        let names: Vec<_> = read(&node.state).names.iter().filter(|n| n.upper).cloned().collect();
        if names.is_empty() {
            return Err(Errno::PERM);
        }
        for name in names {
            let parent = self.upper_dir(&name.parent)?;
            let _names = write(&name.parent.names);
            let link = self.made();
            rustix::fs::linkat(self.work()?, made.name.as_c_str(), self.work()?, link.name.as_c_str(), AtFlags::empty())?;
            rustix::fs::renameat(self.work()?, link.name.as_c_str(), &*parent, name.name.as_ref())?;
            link.placed();
            self.list_forget(&name.parent);
        }
        self.table.also(node, Key::of(&stat), false);
        Ok(())
    }
}

pub fn new_file(dir: BorrowedFd, name: &CStr) -> Result<OwnedFd> {
    openat(dir, name, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
}

/// Rename where nothing stands.
fn place(from: BorrowedFd, name: &CStr, to: BorrowedFd, target: &CStr) -> Result<()> {
    match renameat_with(from, name, to, target, RenameFlags::NOREPLACE) {
        // A file system without the flag.
        Err(Errno::INVAL) => match statat(to, target, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::renameat(from, name, to, target),
            Ok(_) => Err(Errno::EXIST),
            Err(e) => Err(e),
        },
        other => other,
    }
}

fn copy_extent(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let mut at = start;
    while at < end {
        let (mut a, mut b) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut a), to, Some(&mut b), (end - at).min(1 << 30) as usize) {
            // It is shorter than it said.
            Ok(0) => return Err(Errno::IO),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Err(e) => return Err(e),
        }
    }
    let mut piece = if at < end { vec![0u8; 256 << 10] } else { Vec::new() };
    while at < end {
        let most = ((end - at) as usize).min(piece.len());
        let piece = piece.get_mut(..most).ok_or(Errno::IO)?;
        let n = rustix::io::pread(from, &mut *piece, at)?;
        if n == 0 {
            return Err(Errno::IO);
        }
        let mut rest = piece.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            let n = rustix::io::pwrite(to, rest, at)?;
            at += n as u64;
            rest = rest.get(n..).unwrap_or_default();
        }
    }
    Ok(())
}
