//! Changing names: create, link, remove, rename.
//!
//! The parent is copied up first; then everything happens under the lock of its names. Where a whiteout stands, or one must come, the change is
//! one rename or one exchange, so that after a crash the tree is as before or as after.

use super::copy_up::new_file;
use super::inode::{Attributes, Found, Key, Name, Node, read, times_of, write};
use super::layer::{self, DIRECTORY, IMPURE, NLINK, OPAQUE, Spot, WHITEOUT, lock};
use super::namei::stat_at;
use super::xattr::{self, Override, links_text};
use super::{Fs, Ownership};
use crate::image::remove;
use crate::sys::{self, Errno, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags, fstat, openat, renameat, renameat_with, unlinkat};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub enum New<'a> {
    Directory,
    Link(&'a CStr),
    /// A file, a fifo, a socket, a device with its number.
    Node(FileType, u64),
}

/// For whom.
#[derive(Debug, Clone, Copy)]
pub struct Creator {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub umask: u32,
}

impl New<'_> {
    fn kind(&self) -> FileType {
        match self {
            New::Directory => FileType::Directory,
            New::Link(_) => FileType::Symlink,
            New::Node(kind, _) => *kind,
        }
    }
}

impl Fs {
    /// `told`: the kernel will hear of it.
    pub fn create(&self, parent: &Arc<Node>, name: &Arc<CStr>, new: New, mut by: Creator, told: bool) -> Result<(Arc<Node>, Attributes)> {
        if let New::Node(FileType::CharacterDevice, 0) = new {
            // It would be a whiteout.
            return Err(Errno::PERM);
        }
        self.copy_up(parent)?;
        let _names = write(&parent.names);
        if read(&parent.state).gone {
            return Err(Errno::NOENT);
        }
        let dir = self.upper_dir(parent)?;
        let above = Spot::Own(dir.clone());
        let seen = self.dressed(&above, fstat(&*dir)?)?;
        if !self.hands_down_acl(parent, &above)? {
            by.mode &= !by.umask;
        }
        if seen.stat.st_mode & 0o2000 != 0 {
            by.gid = seen.stat.st_gid;
            if let New::Directory = new {
                by.mode |= 0o2000;
            }
        }
        self.usage.take_inode()?;
        let made = self.create_in(parent, &dir, name, new, by);
        let (spot, stat) = match made {
            Ok(made) => made,
            Err(e) => {
                self.usage.give_inode(0);
                return Err(e);
            }
        };
        let seen = self.dressed(&spot, stat)?;
        let found = Found { upper: true, ..Found::default() };
        let place = Name { parent: parent.clone(), name: name.clone(), upper: true };
        let node = self.table.node(Key::of(&stat), seen.kind(), place, stat.st_nlink, found, told);
        if let Spot::Own(fd) = spot {
            node.content.get_or_init(|| self.descriptors.slot()).put(fd);
        }
        node.incapable.store(true, Ordering::Relaxed);
        node.harmless.store(seen.stat.st_mode & 0o6000 == 0, Ordering::Relaxed);
        node.charged.store(stat.st_blocks as u64, Ordering::Relaxed);
        self.list_add(parent, name, node.kind);
        let seen = self.numbered(&node, seen);
        Ok((node, seen))
    }

    /// Make it in place if nothing stands there, else whole in the work directory and over the whiteout.
    fn create_in(&self, parent: &Node, dir: &Arc<OwnedFd>, name: &Arc<CStr>, new: New, by: Creator) -> Result<(Spot, Stat)> {
        let at = |dir: &Arc<OwnedFd>, name: &Arc<CStr>| -> Result<(Spot, Stat)> {
            let spot = match self.make(dir.as_fd(), name, new, by)? {
                Some(file) => Spot::Own(Arc::new(file)),
                None => Spot::Name(dir.clone(), name.clone()),
            };
            match self.own(&spot, new, by) {
                Ok(stat) => Ok((spot, stat)),
                Err(e) => {
                    let _ = remove::remove(dir.as_fd(), name);
                    Err(e)
                }
            }
        };
        match at(dir, name) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        let stat = stat_at(dir.as_fd(), name)?.ok_or(Errno::EXIST)?;
        if !layer::is_whiteout(dir.as_fd(), name, &stat, || layer::marks(dir.as_fd()))? {
            return Err(Errno::EXIST);
        }
        let work = Arc::new(rustix::io::fcntl_dupfd_cloexec(self.work()?, 0)?);
        // An access list is handed down by a directory that has it: then that is one in the work directory, too.
        let nest = self.made();
        let work = match self.default_acl(dir)? {
            None => work,
            Some(list) => {
                rustix::fs::mkdirat(&*work, &nest.name, Mode::RWXU)?;
                let inner = openat(&*work, &nest.name, DIRECTORY, Mode::empty())?;
                rustix::fs::fsetxattr(&inner, xattr::DEFAULT_ACL, &list, XattrFlags::empty())?;
                Arc::new(inner)
            }
        };
        let made = self.made();
        if parent.default_acl.load(Ordering::Relaxed) == 2 {
            // Only what is made in its place gets the ACL: the whiteout steps aside.
            renameat(&**dir, name.as_ref(), self.work()?, made.name.as_c_str())?;
            let done = at(dir, name).and_then(|done| {
                if matches!(new, New::Directory) && !parent.lowers().is_empty() {
                    done.0.set_xattr(OPAQUE, b"y", 0)?;
                }
                Ok(done)
            });
            if done.is_err() {
                renameat(self.work()?, made.name.as_c_str(), &**dir, name.as_ref())?;
                made.placed();
            }
            return done;
        }
        let temporary: Arc<CStr> = made.name.clone().into();
        let (spot, stat) = at(&work, &temporary)?;
        if let New::Directory = new {
            if !parent.lowers().is_empty() {
                spot.set_xattr(OPAQUE, b"y", 0)?;
            }
            renameat_with(&*work, made.name.as_c_str(), &**dir, name.as_ref(), RenameFlags::EXCHANGE)?;
            // What is in the work directory now is the whiteout, which goes with `made`, or with `nest`.
        } else {
            renameat(&*work, made.name.as_c_str(), &**dir, name.as_ref())?;
            made.placed();
        }
        let spot = match spot {
            Spot::Name(..) => Spot::Name(dir.clone(), name.clone()),
            own => own,
        };
        Ok((spot, stat))
    }

    /// What is made in this directory gets it.
    fn default_acl(&self, dir: &Arc<OwnedFd>) -> Result<Option<Vec<u8>>> {
        if self.ownership == Ownership::Virtual {
            return Ok(None);
        }
        let mut list = vec![0; xattr::MOST];
        match rustix::fs::fgetxattr(&**dir, xattr::DEFAULT_ACL, &mut list) {
            Ok(len) => {
                list.truncate(len);
                Ok(Some(list))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn make(&self, dir: BorrowedFd, name: &CStr, new: New, by: Creator) -> Result<Option<OwnedFd>> {
        let mode = match self.ownership {
            Ownership::Real => Mode::from_raw_mode(by.mode & 0o7777),
            // The server has to get in, whatever the owner may.
            Ownership::Virtual => Mode::from_raw_mode(by.mode & 0o1777 | if matches!(new, New::Directory) { 0o700 } else { 0o600 }),
        };
        match new {
            New::Directory => rustix::fs::mkdirat(dir, name, mode)?,
            New::Link(target) => rustix::fs::symlinkat(target, dir, name)?,
            New::Node(kind, device) if kind != FileType::RegularFile && self.ownership == Ownership::Real => {
                rustix::fs::mknodat(dir, name, kind, mode, device)?;
            }
            New::Node(..) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return openat(dir, name, flags, mode).map(Some);
            }
        }
        Ok(None)
    }

    /// Give what was made to whom it belongs.
    fn own(&self, spot: &Spot, new: New, by: Creator) -> Result<Stat> {
        let stat = spot.stat()?;
        match self.ownership {
            Ownership::Real => {
                let chown = (stat.st_uid, stat.st_gid) != (by.uid, by.gid);
                if chown {
                    spot.chown(Some(by.uid), Some(by.gid))?;
                }
                // Lost by the chown; or never given, where the directory that hands it down is not the one where it was made.
                let special = by.mode & 0o6000;
                if !matches!(new, New::Link(_)) && special != 0 && (chown || stat.st_mode & 0o6000 != special) {
                    spot.chmod(stat.st_mode & 0o1777 | special)?;
                } else if !chown {
                    return Ok(stat);
                }
            }
            Ownership::Virtual => {
                let mut wanted = stat;
                let (kind, device) = match new {
                    New::Node(kind, device) => (kind, device),
                    _ => (new.kind(), 0),
                };
                (wanted.st_uid, wanted.st_gid, wanted.st_rdev) = (by.uid, by.gid, device);
                wanted.st_mode = kind.as_raw_mode() | by.mode & 0o7777;
                match new {
                    // See `replace_link` for the links of others.
                    New::Link(_) => return self.own_link(spot, stat, &wanted),
                    _ => xattr::describe(spot, &wanted, (stat.st_uid, stat.st_gid, stat.st_mode), false)?,
                }
            }
        }
        spot.stat()
    }

    fn own_link(&self, spot: &Spot, stat: Stat, wanted: &Stat) -> Result<Stat> {
        if (stat.st_uid, stat.st_gid) == (wanted.st_uid, wanted.st_gid) {
            return Ok(stat);
        }
        let Spot::Name(dir, name) = spot else { return Err(Errno::PERM) };
        let target = spot.read_link()?;
        let made = self.made();
        let file = new_file(self.work()?, &made.name)?;
        if rustix::io::write(&file, &target)? != target.len() {
            return Err(Errno::IO);
        }
        let over = Override { mode: 0o777, ..Override::of(wanted) };
        rustix::fs::fsetxattr(&file, xattr::OVERRIDE, over.text().as_bytes(), XattrFlags::empty())?;
        renameat(self.work()?, made.name.as_c_str(), &**dir, name.as_ref())?;
        made.placed();
        fstat(&file)
    }

    pub fn link(&self, node: &Arc<Node>, parent: &Arc<Node>, name: &Arc<CStr>) -> Result<Attributes> {
        self.copy_up(node)?;
        self.copy_up(parent)?;
        let _names = write(&parent.names);
        if read(&parent.state).gone {
            return Err(Errno::NOENT);
        }
        let file = self.spot(node)?;
        let dir = self.upper_dir(parent)?;
        match file.link(dir.as_fd(), name) {
            Err(Errno::EXIST) => {
                let stat = stat_at(dir.as_fd(), name)?.ok_or(Errno::EXIST)?;
                if !layer::is_whiteout(dir.as_fd(), name, &stat, || layer::marks(dir.as_fd()))? {
                    return Err(Errno::EXIST);
                }
                let made = self.made();
                file.link(self.work()?, &made.name)?;
                renameat(self.work()?, made.name.as_c_str(), &*dir, name.as_ref())?;
                made.placed();
            }
            other => other?,
        }
        self.purify(node, &dir);
        write(&node.state).names.push(Name { parent: parent.clone(), name: name.clone(), upper: true });
        self.list_add(parent, name, node.kind);
        self.attributes(node)
    }

    /// A directory that gets something with a number from below says so.
    fn purify(&self, node: &Node, dir: &OwnedFd) {
        if matches!(node.kind, FileType::RegularFile | FileType::Directory) && !self.is_impure(dir.as_fd()) {
            let _ = rustix::fs::fsetxattr(dir, IMPURE, b"y", XattrFlags::empty());
        }
    }

    pub fn unlink(&self, parent: &Arc<Node>, name: &Arc<CStr>) -> Result<()> {
        let (node, seen) = self.find(parent, name, 0, false)?.ok_or(Errno::NOENT)?;
        if node.is_dir() {
            return Err(Errno::ISDIR);
        }
        self.count_links(&node, &seen)?;
        self.copy_up(parent)?;
        let _names = write(&parent.names);
        let dir = self.upper_dir(parent)?;
        let stands = self.stands(&node, parent, name);
        let covered = self.is_covered(parent, name)?;
        if node.has_upper() {
            self.pin(&node, &seen);
        }
        let _moving = node.moving();
        match (stands, covered) {
            (true, false) => unlinkat(&*dir, name.as_ref(), AtFlags::empty())?,
            (true, true) => {
                let made = self.made();
                self.whiteout(self.work()?, &made.name, dir.as_fd())?;
                renameat(self.work()?, made.name.as_c_str(), &*dir, name.as_ref())?;
                made.placed();
            }
            (false, _) => self.whiteout(dir.as_fd(), name, dir.as_fd())?,
        }
        self.list_remove(parent, name);
        self.lost(&node, parent, name, &seen, stands)
    }

    /// A lower file with more names is copied up before it loses one, so that there is a place to count.
    fn count_links(&self, node: &Arc<Node>, seen: &Attributes) -> Result<()> {
        if node.kind == FileType::RegularFile && seen.stat.st_nlink > 1 && !node.has_upper() { self.copy_up(node) } else { Ok(()) }
    }

    /// Does the file stand in the upper layer under this name?
    fn stands(&self, node: &Node, parent: &Arc<Node>, name: &CStr) -> bool {
        let state = read(&node.state);
        state.upper && state.names.iter().any(|n| n.upper && Arc::ptr_eq(&n.parent, parent) && n.name.as_ref() == name)
    }

    /// Keep hold of what is about to lose the name by which it is found: somebody may have it open.
    fn pin(&self, node: &Arc<Node>, seen: &Attributes) {
        let state = read(&node.state);
        let others = state.names.iter().filter(|n| n.upper).count() > 1 || (state.index.is_some() && seen.stat.st_nlink > 1);
        if others || state.pinned.is_some() {
            return;
        }
        drop(state);
        let Ok(spot) = self.spot(node) else { return };
        let fd = match node.kind {
            FileType::RegularFile => match node.content.get().and_then(|slot| slot.get()) {
                Some(fd) => Ok(fd),
                None => spot.open(OFlags::RDWR).or_else(|_| spot.open(OFlags::PATH)),
            },
            _ => spot.open(OFlags::PATH),
        };
        // Without one it is ESTALE for who has it open.
        if let Ok(fd) = fd {
            write(&node.state).pinned = Some(fd);
        }
    }

    /// A name is gone on disk: what remains?
    fn lost(&self, node: &Arc<Node>, parent: &Arc<Node>, name: &CStr, seen: &Attributes, stood: bool) -> Result<()> {
        let last = node.is_dir() || seen.stat.st_nlink <= 1;
        let (index, links) = {
            let mut state = write(&node.state);
            state.names.retain(|n| !(Arc::ptr_eq(&n.parent, parent) && n.name.as_ref() == name));
            if !stood {
                state.links -= 1;
            }
            state.gone = last;
            (state.index.clone(), state.links)
        };
        if let Some(entry) = index {
            if last {
                unlinkat(&*self.index_dir()?, entry.as_ref(), AtFlags::empty())?;
            } else if !stood {
                self.spot(node)?.set_xattr(NLINK, links_text(links).as_bytes(), 0)?;
            }
        }
        if last {
            // It may never have been opened here.
            let _ = node.charged.compare_exchange(u64::MAX, seen.stat.st_blocks as u64, Ordering::Relaxed, Ordering::Relaxed);
            self.table.detach(node);
            if node.has_upper() && self.table.get(node.id).is_err() {
                self.freed(node);
            }
        }
        Ok(())
    }

    /// An inode of the upper layer is no more.
    pub fn freed(&self, node: &Node) {
        let charged = node.charged.load(Ordering::Relaxed);
        self.usage.give_inode(if charged == u64::MAX { 0 } else { charged });
    }

    pub fn rmdir(&self, parent: &Arc<Node>, name: &Arc<CStr>) -> Result<()> {
        let (node, seen) = self.find(parent, name, 0, false)?.ok_or(Errno::NOENT)?;
        if !node.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if !self.is_empty(&node)? {
            return Err(Errno::NOTEMPTY);
        }
        self.copy_up(parent)?;
        let _names = write(&parent.names);
        let dir = self.upper_dir(parent)?;
        let covered = self.is_covered(parent, name)?;
        let stands = node.has_upper();
        if stands {
            let fd = self.upper_dir(&node)?;
            write(&node.state).pinned = Some(fd);
        }
        let _moving = node.moving();
        match (stands, covered) {
            (true, false) => match unlinkat(&*dir, name.as_ref(), AtFlags::REMOVEDIR) {
                // Whiteouts are left in it.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let made = self.made();
                    renameat(&*dir, name.as_ref(), self.work()?, made.name.as_c_str())?;
                }
                other => other?,
            },
            (true, true) => self.whiteout_over(dir.as_fd(), name)?,
            (false, _) => self.whiteout(dir.as_fd(), name, dir.as_fd())?,
        }
        self.list_remove(parent, name);
        self.lost(&node, parent, name, &seen, stands)
    }

    /// Exchange what stands there, and may be a directory, for a whiteout.
    fn whiteout_over(&self, dir: BorrowedFd, name: &CStr) -> Result<()> {
        let made = self.made();
        self.whiteout(self.work()?, &made.name, dir)?;
        renameat_with(self.work()?, made.name.as_c_str(), dir, name, RenameFlags::EXCHANGE)
        // The old directory goes with `made`.
    }

    /// A new whiteout called `name`, where nothing stands; `for_dir` is where it will be. All whiteouts are links of one inode.
    fn whiteout(&self, dir: BorrowedFd, name: &CStr, for_dir: BorrowedFd) -> Result<()> {
        let work = self.work()?;
        if !self.plain_whiteouts.load(Ordering::Relaxed) {
            return self.empty_whiteout(dir, name, for_dir);
        }
        match rustix::fs::linkat(work, c"whiteout", dir, name, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::MLINK) => {
                let _ = unlinkat(work, c"whiteout", AtFlags::empty());
                match sys::path::whiteout(work, c"whiteout") {
                    Ok(()) | Err(Errno::EXIST) => rustix::fs::linkat(work, c"whiteout", dir, name, AtFlags::empty()),
                    Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {
                        self.plain_whiteouts.store(false, Ordering::Relaxed);
                        self.empty_whiteout(dir, name, for_dir)
                    }
                    Err(e) => Err(e),
                }
            }
            // A file system without hard links.
            Err(Errno::PERM | Errno::OPNOTSUPP) => sys::path::whiteout(dir, name),
            other => other,
        }
    }

    /// The other form, for where nobody may make devices: an empty file in a directory that says that there are such.
    fn empty_whiteout(&self, dir: BorrowedFd, name: &CStr, for_dir: BorrowedFd) -> Result<()> {
        if !layer::marks(for_dir)?.opaque {
            let for_dir = openat(for_dir, c".", DIRECTORY, Mode::empty())?;
            rustix::fs::fsetxattr(&for_dir, OPAQUE, b"x", XattrFlags::empty())?;
        }
        let file = new_file(dir, name)?;
        rustix::fs::fsetxattr(&file, WHITEOUT, b"y", XattrFlags::empty())
    }

    pub fn rename(&self, from: (&Arc<Node>, &Arc<CStr>), to: (&Arc<Node>, &Arc<CStr>), flags: RenameFlags) -> Result<()> {
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let _one = lock(&self.renaming);
        let (source, seen) = self.find(from.0, from.1, 0, false)?.ok_or(Errno::NOENT)?;
        let target = self.find(to.0, to.1, 0, false)?;
        match &target {
            None if exchange => return Err(Errno::NOENT),
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            Some((target, _)) if Arc::ptr_eq(target, &source) => return Ok(()),
            Some((target, _)) if !exchange => match (source.is_dir(), target.is_dir()) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.is_empty(target)? => return Err(Errno::NOTEMPTY),
                _ => {}
            },
            _ => {}
        }
        self.raise_whole(&source)?;
        self.copy_up(from.0)?;
        self.copy_up(to.0)?;
        if let Some((target, seen)) = &target {
            if exchange {
                self.raise_whole(target)?;
                self.stand_up(target, to)?;
            } else if !target.is_dir() {
                self.count_links(target, seen)?;
            }
        }
        self.stand_up(&source, from)?;
        // Nobody else holds two.
        let _names = write(&from.0.names);
        let _other = if Arc::ptr_eq(from.0, to.0) { None } else { Some(write(&to.0.names)) };
        let (old, new) = (self.upper_dir(from.0)?, self.upper_dir(to.0)?);
        let (was_covered, is_covered) = (self.is_covered(from.0, from.1)?, self.is_covered(to.0, to.1)?);
        self.open_ground(&source, is_covered)?;
        self.purify(&source, &new);
        if let Some((target, _)) = &target
            && exchange
        {
            self.open_ground(target, was_covered)?;
            self.purify(target, &old);
            let _moving = (source.moving(), target.moving());
            renameat_with(&*old, from.1.as_ref(), &*new, to.1.as_ref(), RenameFlags::EXCHANGE)?;
            self.moved(&source, from, to);
            self.moved(target, to, from);
            self.list_add(from.0, from.1, target.kind);
            self.list_add(to.0, to.1, source.kind);
            return Ok(());
        }
        let stands = target.as_ref().is_some_and(|(target, _)| if target.is_dir() { target.has_upper() } else { self.stands(target, to.0, to.1) });
        if let Some((target, seen)) = &target
            && target.has_upper()
        {
            match target.is_dir() {
                true => {
                    let fd = self.upper_dir(target)?;
                    write(&target.state).pinned = Some(fd);
                }
                false => self.pin(target, seen),
            }
        }
        let there = stat_at(new.as_fd(), to.1)?;
        let _moving = (source.moving(), target.as_ref().map(|(target, _)| target.moving()));
        if source.is_dir() && there.is_some() {
            // An empty directory, perhaps with whiteouts in it, or a whiteout: a directory cannot be renamed over either.
            renameat_with(&*old, from.1.as_ref(), &*new, to.1.as_ref(), RenameFlags::EXCHANGE)?;
            let is_whiteout = there.as_ref().is_some_and(|s| FileType::from_raw_mode(s.st_mode) != FileType::Directory);
            match (was_covered, is_whiteout) {
                (true, true) => {}
                (true, false) => self.whiteout_over(old.as_fd(), from.1)?,
                (false, _) => {
                    let made = self.made();
                    renameat(&*old, from.1.as_ref(), self.work()?, made.name.as_c_str())?;
                }
            }
        } else if was_covered {
            match renameat_with(&*old, from.1.as_ref(), &*new, to.1.as_ref(), RenameFlags::WHITEOUT) {
                Err(Errno::INVAL | Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    renameat(&*old, from.1.as_ref(), &*new, to.1.as_ref())?;
                    self.whiteout(old.as_fd(), from.1, old.as_fd())?;
                }
                other => other?,
            }
        } else {
            renameat(&*old, from.1.as_ref(), &*new, to.1.as_ref())?;
        }
        let _ = seen;
        self.moved(&source, from, to);
        self.list_remove(from.0, from.1);
        self.list_add(to.0, to.1, source.kind);
        match &target {
            Some((target, seen)) => self.lost(target, to.0, to.1, seen, stands),
            None => Ok(()),
        }
    }

    /// A file whose copy stands under another name gets this one, too, so that it can be moved.
    pub fn stand_up(&self, node: &Arc<Node>, at: (&Arc<Node>, &Arc<CStr>)) -> Result<()> {
        if node.is_dir() || self.stands(node, at.0, at.1) {
            return Ok(());
        }
        let file = self.spot(node)?;
        let _names = write(&at.0.names);
        let dir = self.upper_dir(at.0)?;
        let times = times_of(&fstat(&*dir)?);
        file.link(dir.as_fd(), at.1)?;
        // Nothing has changed for those who look.
        let _ = rustix::fs::futimens(&*dir, &times);
        let links = {
            let mut state = write(&node.state);
            state.links -= 1;
            state.names.retain(|n| !(Arc::ptr_eq(&n.parent, at.0) && n.name == *at.1));
            state.names.push(Name { parent: at.0.clone(), name: at.1.clone(), upper: true });
            state.links
        };
        self.list_add(at.0, at.1, node.kind);
        self.spot(node)?.set_xattr(NLINK, links_text(links).as_bytes(), 0)
    }

    /// A directory that comes to where lower layers have one of that name must hide it.
    fn open_ground(&self, node: &Arc<Node>, covered: bool) -> Result<()> {
        if !node.is_dir() || !covered {
            return Ok(());
        }
        let dir = self.upper_dir(node)?;
        if layer::marks(dir.as_fd())?.opaque {
            return Ok(());
        }
        rustix::fs::fsetxattr(&*dir, OPAQUE, b"y", XattrFlags::empty())
    }

    fn moved(&self, node: &Node, from: (&Arc<Node>, &Arc<CStr>), to: (&Arc<Node>, &Arc<CStr>)) {
        let mut state = write(&node.state);
        state.names.retain(|n| !(Arc::ptr_eq(&n.parent, from.0) && n.name == *from.1));
        state.names.push(Name { parent: to.0.clone(), name: to.1.clone(), upper: true });
    }
}
