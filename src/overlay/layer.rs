//! One layer: its directories by handle, what stands in them, and the marks that say what is not there.
//!
//! *What*: `Place` is a directory of a lower layer, which never changes, so that its handle can be closed and opened again from its parent's;
//! `Slot` keeps a descriptor for a while, `Descriptors` decides for how long; `Spot` is where an object is, for a call or two.
//! Every name is one component, opened without following a link. // L1

use super::xattr;
use crate::sys::{self, Errno, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, chmodat, chownat, fstat, linkat, openat, statat};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

pub const OPAQUE: &CStr = c"user.overlay.opaque";
pub const WHITEOUT: &CStr = c"user.overlay.whiteout";
pub const ORIGIN: &CStr = c"user.overlay.origin";
pub const IMPURE: &CStr = c"user.overlay.impure";
pub const NLINK: &CStr = c"user.overlay.nlink";
pub const REDIRECT: &CStr = c"user.overlay.redirect";
pub const METACOPY: &CStr = c"user.overlay.metacopy";

pub const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A lock whose holder died is still a lock: what it guards is whole between any two statements.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors may be kept only because they may be wanted again.
#[derive(Debug)]
pub struct Descriptors {
    budget: usize,
    open: AtomicUsize,
    /// In the order of opening; who was used meanwhile gets a second chance.
    queue: Mutex<VecDeque<Weak<Slot>>>,
}

impl Descriptors {
    pub fn new(budget: usize) -> Arc<Descriptors> {
        Arc::new(Descriptors { budget, open: AtomicUsize::new(0), queue: Mutex::default() })
    }

    pub fn slot(self: &Arc<Self>) -> Arc<Slot> {
        Arc::new(Slot { fd: Mutex::new(None), used: AtomicBool::new(false), owner: self.clone() })
    }

    fn opened(&self, slot: &Arc<Slot>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.push_back(Arc::downgrade(slot));
        if queue.len() > 2 * self.budget {
            queue.retain(|s| s.strong_count() > 0);
        }
        let mut patience = queue.len();
        while self.open.load(Ordering::Relaxed) > self.budget && patience > 0 {
            patience -= 1;
            let Some(oldest) = queue.pop_front() else { break };
            let Some(oldest) = oldest.upgrade() else { continue };
            if Arc::ptr_eq(&oldest, slot) || oldest.used.swap(false, Ordering::Relaxed) {
                queue.push_back(Arc::downgrade(&oldest));
                continue;
            }
            // Somebody who has it in hand keeps it.
            let closed = match oldest.fd.try_lock() {
                Ok(mut fd) => fd.take(),
                Err(_) => None,
            };
            match closed {
                Some(_) => drop(self.open.fetch_sub(1, Ordering::Relaxed)),
                None if oldest.fd.try_lock().is_err() => queue.push_back(Arc::downgrade(&oldest)),
                None => {}
            }
        }
    }
}

/// A place for a descriptor that can be had again.
#[derive(Debug)]
pub struct Slot {
    fd: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    owner: Arc<Descriptors>,
}

impl Slot {
    pub fn get(&self) -> Option<Arc<OwnedFd>> {
        self.used.store(true, Ordering::Relaxed);
        lock(&self.fd).clone()
    }

    /// What is in the slot, or what `open` makes.
    pub fn get_or(self: &Arc<Self>, open: impl FnOnce() -> Result<OwnedFd>) -> Result<Arc<OwnedFd>> {
        let mut fd = lock(&self.fd);
        if let Some(fd) = &*fd {
            self.used.store(true, Ordering::Relaxed);
            return Ok(fd.clone());
        }
        let new = Arc::new(open()?);
        *fd = Some(new.clone());
        drop(fd);
        self.owner.opened(self);
        Ok(new)
    }

    pub fn put(self: &Arc<Self>, new: Arc<OwnedFd>) {
        if lock(&self.fd).replace(new).is_none() {
            self.owner.opened(self);
        }
    }

    pub fn clear(&self) {
        if lock(&self.fd).take().is_some() {
            self.owner.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What the marks of a directory say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Nothing of the layers below shows through.
    pub opaque: bool,
    /// Empty files in it may be whiteouts.
    pub whiteouts: bool,
}

pub fn marks(dir: BorrowedFd) -> Result<Marks> {
    let mut value = [0u8; 8];
    let value = match rustix::fs::fgetxattr(dir, OPAQUE, &mut value) {
        Ok(n) => value.get(..n).unwrap_or_default(),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => &[],
        Err(e) => return Err(e),
    };
    Ok(Marks { opaque: value == b"y", whiteouts: value == b"x" })
}

/// A directory of a lower layer.
#[derive(Debug)]
pub struct Place {
    slot: Arc<Slot>,
    /// The top of a layer is always open.
    top: Option<Arc<OwnedFd>>,
    /// Others are a name in a directory of the same layer.
    parent: Option<(Arc<Place>, Arc<CStr>)>,
    pub device: u64,
    marks: OnceLock<Marks>,
}

impl Place {
    pub fn top(fd: OwnedFd, device: u64, descriptors: &Arc<Descriptors>) -> Arc<Place> {
        Arc::new(Place { slot: descriptors.slot(), top: Some(Arc::new(fd)), parent: None, device, marks: OnceLock::new() })
    }

    pub fn below(self: &Arc<Self>, name: &Arc<CStr>, device: u64) -> Arc<Place> {
        let slot = self.slot.owner.slot();
        Arc::new(Place { slot, top: None, parent: Some((self.clone(), name.clone())), device, marks: OnceLock::new() })
    }

    pub fn fd(&self) -> Result<Arc<OwnedFd>> {
        // Not by recursion: a tree can be deeper than a stack.
        let (mut way, mut place) = (Vec::new(), self);
        let mut fd = loop {
            if let Some(fd) = place.top.clone().or_else(|| place.slot.get()) {
                break fd;
            }
            let (parent, name) = place.parent.as_ref().ok_or(Errno::STALE)?;
            way.push((place, name));
            place = parent;
        };
        while let Some((place, name)) = way.pop() {
            fd = place.slot.get_or(|| openat(&fd, name.as_ref(), DIRECTORY, Mode::empty()))?;
        }
        Ok(fd)
    }

    pub fn marks(&self) -> Result<Marks> {
        if let Some(marks) = self.marks.get() {
            return Ok(*marks);
        }
        let found = marks(self.fd()?.as_fd())?;
        Ok(*self.marks.get_or_init(|| found))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Not by recursion, either.
        let mut next = self.parent.take();
        while let Some((place, _)) = next {
            next = Arc::into_inner(place).and_then(|mut place| place.parent.take());
        }
    }
}

pub fn is_character_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Is this a mark for "not there"? The second form only counts where the directory says so.
pub fn is_whiteout(dir: BorrowedFd, name: &CStr, stat: &Stat, marks: impl FnOnce() -> Result<Marks>) -> Result<bool> {
    if is_character_whiteout(stat) {
        return Ok(true);
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size != 0 || !marks()?.whiteouts {
        return Ok(false);
    }
    match sys::xattr::get(dir, name, WHITEOUT, &mut []) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Where an object is, for a call or two: a name in a directory, or a descriptor of the object itself.
#[derive(Debug, Clone)]
pub enum Spot {
    Name(Arc<OwnedFd>, Arc<CStr>),
    Own(Arc<OwnedFd>),
}

impl Spot {
    pub fn stat(&self) -> Result<Stat> {
        match self {
            Spot::Name(dir, name) => statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW),
            Spot::Own(fd) => fstat(fd),
        }
    }

    pub fn open(&self, flags: OFlags) -> Result<Arc<OwnedFd>> {
        match self {
            Spot::Name(dir, name) => {
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                // Only the owner may say so. man: open(2)
                match openat(dir, name.as_ref(), flags | OFlags::NOATIME, Mode::empty()) {
                    Err(Errno::PERM) => openat(dir, name.as_ref(), flags, Mode::empty()),
                    other => other,
                }
                .map(Arc::new)
            }
            Spot::Own(fd) => Ok(fd.clone()),
        }
    }

    pub fn get_xattr(&self, key: &CStr, value: &mut [u8]) -> Result<usize> {
        match self {
            Spot::Name(dir, name) => sys::xattr::get(dir.as_fd(), name, key, value),
            // The other functions say 0 where the size is asked for.
            Spot::Own(fd) if value.is_empty() => match rustix::fs::fgetxattr_query(fd, key) {
                Err(Errno::BADF) => rustix::fs::getxattr_query(path_of(fd), key),
                other => other,
            },
            Spot::Own(fd) => match rustix::fs::fgetxattr(fd, key, &mut *value) {
                Err(Errno::BADF) => rustix::fs::getxattr(path_of(fd), key, value),
                other => other,
            },
        }
    }

    /// All of a value whose size nobody knows.
    pub fn read_xattr(&self, key: &CStr) -> Result<Vec<u8>> {
        whole(|buffer| self.get_xattr(key, buffer))
    }

    /// The names, each with its NUL.
    pub fn list_xattrs(&self) -> Result<Vec<u8>> {
        whole(|buffer| match self {
            Spot::Name(dir, name) => sys::xattr::list(dir.as_fd(), name, buffer),
            Spot::Own(fd) => match rustix::fs::flistxattr(fd, &mut *buffer) {
                Err(Errno::BADF) => rustix::fs::listxattr(path_of(fd), buffer),
                other => other,
            },
        })
    }

    pub fn set_xattr(&self, key: &CStr, value: &[u8], flags: u32) -> Result<()> {
        let with = rustix::fs::XattrFlags::from_bits_retain(flags);
        match self {
            Spot::Name(dir, name) => sys::xattr::set(dir.as_fd(), name, key, value, flags),
            Spot::Own(fd) => by_path(fd, rustix::fs::fsetxattr(fd, key, value, with), |path| rustix::fs::setxattr(path, key, value, with)),
        }
    }

    pub fn remove_xattr(&self, key: &CStr) -> Result<()> {
        match self {
            Spot::Name(dir, name) => sys::xattr::remove(dir.as_fd(), name, key),
            Spot::Own(fd) => by_path(fd, rustix::fs::fremovexattr(fd, key), |path| rustix::fs::removexattr(path, key)),
        }
    }

    pub fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Spot::Name(dir, name) => chownat(dir, name.as_ref(), uid, gid, AtFlags::SYMLINK_NOFOLLOW),
            Spot::Own(fd) => chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    /// Not for symbolic links, which have no mode of their own.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        match self {
            Spot::Name(dir, name) => chmodat(dir, name.as_ref(), mode, AtFlags::empty()),
            Spot::Own(fd) => by_path(fd, rustix::fs::fchmod(fd, mode), |path| chmodat(CWD, path, mode, AtFlags::empty())),
        }
    }

    pub fn set_times(&self, times: &Timestamps) -> Result<()> {
        match self {
            Spot::Name(dir, name) => rustix::fs::utimensat(dir, name.as_ref(), times, AtFlags::SYMLINK_NOFOLLOW),
            Spot::Own(fd) => by_path(fd, rustix::fs::futimens(fd, times), |path| rustix::fs::utimensat(CWD, path, times, AtFlags::empty())),
        }
    }

    /// Give it one more name.
    pub fn link(&self, dir: BorrowedFd, name: &CStr) -> Result<()> {
        match self {
            Spot::Name(from, old) => linkat(from, old.as_ref(), dir, name, AtFlags::empty()),
            Spot::Own(fd) => match linkat(fd, c"", dir, name, AtFlags::EMPTY_PATH) {
                // Before Linux 6.10 only a capability opens this way.
                Err(Errno::NOENT) => linkat(CWD, path_of(fd), dir, name, AtFlags::SYMLINK_FOLLOW),
                other => other,
            },
        }
    }

    pub fn read_link(&self) -> Result<Vec<u8>> {
        match self {
            Spot::Name(dir, name) => Ok(rustix::fs::readlinkat(dir, name.as_ref(), Vec::new())?.into_bytes()),
            Spot::Own(fd) => Ok(rustix::fs::readlinkat(fd, c"", Vec::new())?.into_bytes()),
        }
    }

    /// Does it have this mark of an overlay?
    pub fn is_marked(&self, key: &CStr) -> Result<bool> {
        match self.get_xattr(key, &mut []) {
            Ok(_) => Ok(true),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// For what a descriptor of a socket or a device cannot do, since it does not open them.
fn by_path(fd: &OwnedFd, done: Result<()>, again: impl FnOnce(String) -> Result<()>) -> Result<()> {
    if done == Err(Errno::BADF) { again(path_of(fd)) } else { done }
}

fn path_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What `read` gives, in a buffer that is large enough for it.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; 512];
    loop {
        match read(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {
                let size = read(&mut [])?.max(buffer.len());
                if size > xattr::MOST {
                    return Err(Errno::TOOBIG);
                }
                buffer.resize(size + 256, 0);
            }
            Err(e) => return Err(e),
        }
    }
}
