//! What the kernel knows by number: nodes, the table that finds them, and their attributes.
//!
//! A node is a file of the merged tree for as long as the kernel holds it, whatever happens to its name or layer. Its number is what programs see as
//! the inode number: of the layer's own inode where nobody else has that number, and it stays over a copy-up.
//!
//! *Order of locks*: `copying` of a node, then `names` of a directory (of two only by `rename`, which there is one of at a time), then a listing,
//! a state, the table; a state is held for no system call and with no other state.

use super::layer::{Place, Slot, Spot};
use super::xattr::{self, Override};
use super::{Fs, Ownership};
use crate::sys::{Errno, Result};
use rustix::fs::{FileType, Stat, Timespec, Timestamps};
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

/// The number of the top in requests, whatever it shows to programs.
pub const ROOT: u64 = 1;
/// Numbers of a second device begin here: few file systems have inodes above.
const DEVICE_SHIFT: u32 = 54;
/// Numbers for what has no number of its own.
const SPARE: u64 = 1 << 62;
/// Said by nobody else: a directory on the way is being renamed.
const MOVED: Errno = Errno::AGAIN;

pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// An inode of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub device: u64,
    pub inode: u64,
}

impl Key {
    pub fn of(stat: &Stat) -> Key {
        Key { device: stat.st_dev, inode: stat.st_ino }
    }
}

#[derive(Debug)]
pub struct Node {
    pub id: u64,
    /// S_IFMT of what programs see; never changes.
    pub kind: FileType,
    /// The names in this directory: read to look, written to change.
    pub names: RwLock<()>,
    /// One copies it up, others wait.
    pub copying: Mutex<()>,
    pub state: RwLock<State>,
    /// A descriptor of the content (or of the directory in the upper layer).
    pub content: OnceLock<Arc<Slot>>,
    pub listing: Mutex<Option<super::readdir::Listing>>,
    /// Does this directory hand down an ACL? 0 unknown, 1 no, 2 yes.
    pub default_acl: AtomicU8,
    /// It was made here, and never had file capabilities: the kernel asks for them at the first write and at each change of owner.
    pub incapable: AtomicBool,
    /// It has no set-id bits to be lost by a write.
    pub harmless: AtomicBool,
    /// What the limit was charged for its content, in blocks of 512 bytes, if known.
    pub charged: AtomicU64,
    /// How often the kernel was told of it and has not forgotten it; changed under the table's lock.
    lookups: AtomicU64,
    /// How often a name of it went away, twice; odd while one does.
    moves: AtomicU64,
}

/// While this lives, a name of the node goes away, on disk and then in its state: who looks by name waits, or looks again.
pub struct Moving<'a>(&'a Node);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.moves.fetch_add(1, Ordering::Release);
    }
}

#[derive(Debug, Default)]
pub struct State {
    /// It is in the upper layer.
    pub upper: bool,
    /// Directories of lower layers that are merged here, uppermost first.
    pub lowers: Vec<Arc<Place>>,
    /// Where the file is in a lower layer, if it is not a directory.
    pub lower: Option<(Arc<Place>, Arc<CStr>)>,
    /// Where it is known to be. A directory has one name until it is removed.
    pub names: Vec<Name>,
    /// A handle of what has no name any more.
    pub pinned: Option<Arc<OwnedFd>>,
    /// Its name in the index of hard links.
    pub index: Option<Arc<CStr>>,
    /// What is to be added to the link count of the upper inode, if it is in the index.
    pub links: i64,
    /// No name is left.
    pub gone: bool,
    pub keys: Vec<Key>,
}

#[derive(Debug, Clone)]
pub struct Name {
    pub parent: Arc<Node>,
    pub name: Arc<CStr>,
    /// It stands in the upper layer under this name.
    pub upper: bool,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn has_upper(&self) -> bool {
        read(&self.state).upper
    }

    pub fn lowers(&self) -> Vec<Arc<Place>> {
        read(&self.state).lowers.clone()
    }

    /// The kernel does this with the inode locked, so there is only one at a time.
    pub fn moving(&self) -> Moving<'_> {
        self.moves.fetch_add(1, Ordering::AcqRel);
        Moving(self)
    }

    /// Look by name, again if it moved meanwhile: another file may stand there now.
    pub fn steadily<T>(&self, mut look: impl FnMut() -> T) -> T {
        loop {
            let before = self.moves.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = look();
                if self.moves.load(Ordering::Acquire) == before {
                    return seen;
                }
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not by recursion: a tree can be deeper than a stack.
        let names = |node: &mut Node| std::mem::take(&mut node.state.get_mut().unwrap_or_else(PoisonError::into_inner).names);
        let mut rest = names(self);
        while let Some(name) = rest.pop() {
            if let Some(mut parent) = Arc::into_inner(name.parent) {
                rest.extend(names(&mut parent));
            }
        }
    }
}

/// What a lookup found on disk, before there is a node for it.
#[derive(Debug, Default)]
pub struct Found {
    pub upper: bool,
    pub lowers: Vec<Arc<Place>>,
    pub lower: Option<(Arc<Place>, Arc<CStr>)>,
    pub index: Option<Arc<CStr>>,
    pub links: i64,
    /// The number that it had before it was copied up.
    pub origin: Option<Key>,
}

#[derive(Debug, Default)]
pub struct Table {
    maps: RwLock<Maps>,
    spare: AtomicU64,
    devices: RwLock<Vec<u64>>,
}

#[derive(Debug, Default)]
struct Maps {
    /// What the kernel knows.
    ids: HashMap<u64, Arc<Node>>,
    /// That, and what it has forgotten and others still need: a directory in which a file with several names has one.
    keys: HashMap<Key, Weak<Node>>,
}

impl Maps {
    fn find(&self, key: Key) -> Option<Arc<Node>> {
        self.keys.get(&key)?.upgrade()
    }

    fn has(&self, key: Key, node: &Node) -> bool {
        self.keys.get(&key).is_some_and(|known| std::ptr::eq(known.as_ptr(), node))
    }

    /// Its keys are no longer its own.
    fn take_keys(&mut self, node: &Node, state: &mut State) {
        for key in std::mem::take(&mut state.keys) {
            if self.has(key, node) {
                self.keys.remove(&key);
            }
        }
    }
}

impl Table {
    pub fn get(&self, id: u64) -> Result<Arc<Node>> {
        read(&self.maps).ids.get(&id).cloned().ok_or(Errno::STALE)
    }

    /// The number that an inode has by itself; 0 if it cannot have it.
    pub fn number(&self, key: Key) -> u64 {
        let place = read(&self.devices).iter().position(|d| *d == key.device);
        let place = place.unwrap_or_else(|| {
            let mut devices = write(&self.devices);
            devices.push(key.device);
            devices.len() - 1
        });
        let place = (place as u64).min(1 << (62 - DEVICE_SHIFT));
        if key.inode >> DEVICE_SHIFT != 0 || place >> (62 - DEVICE_SHIFT) != 0 { 0 } else { place << DEVICE_SHIFT | key.inode }
    }

    /// The number of a key that may have a node already.
    pub fn shown(&self, key: Key) -> u64 {
        match read(&self.maps).find(key) {
            Some(node) if node.id != ROOT => node.id,
            _ => self.number(key),
        }
    }

    /// The node of an inode that was found under a name: the one that there is, or a new one. `told`: the kernel will hear of it, and count.
    pub fn node(&self, key: Key, kind: FileType, name: Name, nlink: u64, found: Found, told: bool) -> Arc<Node> {
        let wish = match found.origin.map_or(0, |o| self.number(o)) {
            0 => self.number(key),
            n => n,
        };
        let mut maps = write(&self.maps);
        // Of what was forgotten, the number may have gone to another one.
        let free = |maps: &Maps, node: &Node| maps.ids.get(&node.id).is_none_or(|n| std::ptr::eq(&**n, node));
        let known = maps.find(key).filter(|node| node.kind == kind && free(&maps, node));
        if let Some(node) = known {
            let mut state = write(&node.state);
            let (is_upper, is_indexed) = (state.upper, state.index.is_some());
            let same = state.names.iter_mut().find(|n| Arc::ptr_eq(&n.parent, &name.parent) && n.name == name.name);
            let ours = match same {
                Some(known) => {
                    known.upper |= name.upper && is_upper;
                    true
                }
                // The same directory or file mounted twice in a lower layer is two.
                None if node.is_dir() || (nlink < 2 && !is_indexed) => false,
                None => {
                    let upper = name.upper && is_upper;
                    if state.names.len() < MOST_NAMES || upper {
                        state.names.push(Name { upper, ..name.clone() });
                    }
                    true
                }
            };
            drop(state);
            if ours {
                if told && node.lookups.fetch_add(1, Ordering::Relaxed) == 0 {
                    maps.ids.insert(node.id, node.clone());
                }
                return node;
            }
        }
        let free = |id: u64| id > ROOT && !maps.ids.contains_key(&id);
        let id = if free(wish) { wish } else { SPARE | self.spare.fetch_add(1, Ordering::Relaxed) };
        let keys = if maps.find(key).is_some() { Vec::new() } else { vec![key] };
        let state = State {
            upper: found.upper,
            lowers: found.lowers,
            lower: found.lower,
            names: vec![name],
            index: found.index,
            links: found.links,
            keys: keys.clone(),
            ..State::default()
        };
        let node = Arc::new(Node::new(id, kind, state, u64::from(told)));
        if told {
            maps.ids.insert(id, node.clone());
            keys.into_iter().for_each(|key| drop(maps.keys.insert(key, Arc::downgrade(&node))));
        }
        node
    }

    pub fn root(&self, state: State) -> Arc<Node> {
        let node = Arc::new(Node::new(ROOT, FileType::Directory, state, 1));
        write(&self.maps).ids.insert(ROOT, node.clone());
        node
    }

    /// The inode is also this one from now on: it was copied up.
    pub fn also(&self, node: &Arc<Node>, key: Key, keep_old: bool) {
        let mut maps = write(&self.maps);
        let mut state = write(&node.state);
        // Not what is there for one request only.
        let known = maps.ids.get(&node.id).is_some_and(|known| Arc::ptr_eq(known, node)) || state.keys.iter().any(|key| maps.has(*key, node));
        if !keep_old {
            maps.take_keys(node, &mut state);
        }
        if known {
            state.keys.push(key);
            maps.keys.insert(key, Arc::downgrade(node));
        }
    }

    /// Nobody can find it by a name any more.
    pub fn detach(&self, node: &Node) {
        let mut maps = write(&self.maps);
        maps.take_keys(node, &mut write(&node.state));
    }

    /// The kernel hears of a node that it knows once more.
    pub fn told(&self, node: &Node) {
        let _maps = write(&self.maps);
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// The kernel forgets; gives back a node that nobody knows now.
    pub fn forget(&self, id: u64, times: u64) -> Option<Arc<Node>> {
        if id == ROOT {
            return None;
        }
        let mut maps = write(&self.maps);
        let node = maps.ids.get(&id)?;
        let left = node.lookups.load(Ordering::Relaxed).saturating_sub(times);
        node.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        let node = maps.ids.remove(&id)?;
        if maps.keys.len() > 4 * maps.ids.len() + 1024 {
            maps.keys.retain(|_, node| node.strong_count() > 0);
        }
        Some(node)
    }
}

/// As many names of a hard link are remembered.
const MOST_NAMES: usize = 64;

impl Node {
    fn new(id: u64, kind: FileType, state: State, lookups: u64) -> Node {
        Node {
            id,
            kind,
            names: RwLock::default(),
            copying: Mutex::default(),
            state: RwLock::new(state),
            content: OnceLock::new(),
            listing: Mutex::default(),
            default_acl: AtomicU8::new(0),
            incapable: AtomicBool::new(false),
            harmless: AtomicBool::new(false),
            charged: AtomicU64::new(u64::MAX),
            lookups: AtomicU64::new(lookups),
            moves: AtomicU64::new(0),
        }
    }
}

/// Attributes as programs see them.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    pub stat: Stat,
    /// What the disk says about owner and mode, where an attribute says otherwise.
    pub disk: (u32, u32, u32),
    pub overridden: bool,
}

impl Attributes {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Who asks. Root may keep what gives privileges.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asker {
    pub uid: u32,
    pub gid: u32,
}

/// What is to change.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub times: Option<Timestamps>,
    /// Who may not keep privileges on what it changes.
    pub by: Asker,
}

impl Fs {
    /// The handle of a directory in the upper layer.
    pub fn upper_dir(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        loop {
            match self.upper_dir_now(node) {
                Err(MOVED) => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    fn upper_dir_now(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        // Not by recursion: a tree can be deeper than a stack.
        let (mut way, mut at) = (Vec::new(), node.clone());
        let mut fd = loop {
            if at.id == ROOT {
                break self.upper.as_ref().ok_or(Errno::ROFS)?.dir.clone();
            }
            if let Some(fd) = at.content.get().and_then(|slot| slot.get()) {
                break fd;
            }
            let before = at.moves.load(Ordering::Acquire);
            let (pinned, name) = {
                let state = read(&at.state);
                (state.pinned.clone(), state.names.iter().find(|n| n.upper).cloned())
            };
            if let Some(fd) = pinned {
                break fd;
            }
            let name = name.ok_or(Errno::STALE)?;
            way.push((at, name.name, before));
            at = name.parent;
        };
        while let Some((node, name, before)) = way.pop() {
            let slot = node.content.get_or_init(|| self.descriptors.slot());
            fd = slot.get_or(|| {
                let fd = rustix::fs::openat(&fd, name.as_ref(), super::layer::DIRECTORY, rustix::fs::Mode::empty());
                if before % 2 == 0 && node.moves.load(Ordering::Acquire) == before { fd } else { Err(MOVED) }
            })?;
        }
        Ok(fd)
    }

    /// Where the object is that has the attributes of this node.
    pub fn spot(&self, node: &Arc<Node>) -> Result<Spot> {
        if node.is_dir() {
            if node.has_upper() {
                return self.upper_dir(node).map(Spot::Own);
            }
            let top = read(&node.state).lowers.first().cloned().ok_or(Errno::STALE)?;
            return top.fd().map(Spot::Own);
        }
        let (name, index, lower) = {
            let state = read(&node.state);
            if let Some(fd) = &state.pinned {
                return Ok(Spot::Own(fd.clone()));
            }
            match state.upper {
                true => (state.names.iter().find(|n| n.upper).cloned(), state.index.clone(), None),
                false => (None, None, state.lower.clone()),
            }
        };
        match (name, index, lower) {
            (Some(name), ..) => Ok(Spot::Name(self.upper_dir(&name.parent)?, name.name)),
            (None, Some(index), _) => Ok(Spot::Name(self.index_dir()?, index)),
            (None, None, Some((place, name))) => Ok(Spot::Name(place.fd()?, name)),
            _ => Err(Errno::STALE),
        }
    }

    /// Ask about it where it is.
    pub fn ask<T>(&self, node: &Arc<Node>, mut ask: impl FnMut(&Spot) -> Result<T>) -> Result<T> {
        node.steadily(|| self.spot(node).and_then(|spot| ask(&spot)))
    }

    /// `stat`, with what is kept beside it.
    pub fn dressed(&self, spot: &Spot, stat: Stat) -> Result<Attributes> {
        let mut seen = Attributes { stat, disk: (stat.st_uid, stat.st_gid, stat.st_mode), overridden: false };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.ownership == Ownership::Virtual {
            // What nothing is said of is ours, whoever has it on the host.
            (seen.stat.st_uid, seen.stat.st_gid) = self.own;
            if matches!(kind, FileType::RegularFile | FileType::Directory)
                && let Some(over) = Override::read(spot)?
            {
                over.apply(&mut seen.stat);
                seen.overridden = true;
            }
        }
        Ok(seen)
    }

    pub fn attributes(&self, node: &Arc<Node>) -> Result<Attributes> {
        let seen = self.ask(node, |spot| self.dressed(spot, spot.stat()?))?;
        Ok(self.numbered(node, seen))
    }

    /// With the number and link count that programs see; and with virtual ownership as ours, since the kernel knows no other id, and lets nobody
    /// write to what belongs to none. // xattr.rs `OWNER`
    pub fn numbered(&self, node: &Node, mut seen: Attributes) -> Attributes {
        if self.ownership == Ownership::Virtual {
            (seen.stat.st_uid, seen.stat.st_gid) = self.own;
        }
        if node.id != ROOT {
            seen.stat.st_ino = node.id;
        }
        let state = read(&node.state);
        if node.is_dir() {
            // As the kernel's: subdirectories of several layers are not counted.
            if state.lowers.len() + usize::from(state.upper) > 1 && !state.gone {
                seen.stat.st_nlink = 1;
            }
        } else if state.index.is_some() && state.upper {
            seen.stat.st_nlink = (seen.stat.st_nlink as i64 + state.links).max(0) as u64;
        }
        if state.gone {
            seen.stat.st_nlink = 0;
        }
        seen
    }

    /// man: chmod(2), chown(2), truncate(2), utimensat(2)
    pub fn set_attributes(&self, node: &Arc<Node>, changes: &Changes) -> Result<Attributes> {
        self.copy_up_for(node, changes.size)?;
        if let Some(size) = changes.size {
            self.truncate(node, size)?;
        }
        let spot = self.spot(node)?;
        let mut mode = changes.mode;
        if mode.is_some() {
            node.harmless.store(false, Ordering::Relaxed);
        }
        let chown = changes.uid.is_some() || changes.gid.is_some();
        // man: chown(2), truncate(2): what gives privileges to others does not survive a change by them.
        let unprivileged = changes.by.uid != 0;
        // Directories keep it, and links have none.
        let can_lose = !matches!(node.kind, FileType::Directory | FileType::Symlink);
        let loses = mode.is_none() && can_lose && (chown || (changes.size.is_some() && unprivileged));
        match self.ownership {
            Ownership::Virtual if chown || mode.is_some() || loses => {
                let before = self.dressed(&spot, spot.stat()?)?;
                if loses {
                    mode = without_privileges(&before.stat, changes.by);
                }
                xattr::set_override(self, node, &spot, &before, changes.uid, changes.gid, mode)?;
            }
            Ownership::Virtual => {}
            Ownership::Real => {
                // What root's chown takes away the disk takes away, too.
                if loses && unprivileged {
                    mode = without_privileges(&spot.stat()?, changes.by);
                }
                if chown {
                    spot.chown(changes.uid, changes.gid)?;
                }
                if let Some(mode) = mode
                    && node.kind != FileType::Symlink
                {
                    spot.chmod(mode)?;
                }
            }
        }
        // A link whose owner changed may be another object now.
        let spot = self.spot(node)?;
        if let Some(times) = &changes.times {
            spot.set_times(times)?;
        }
        Ok(self.numbered(node, self.dressed(&spot, spot.stat()?)?))
    }
}

impl Asker {
    /// May not give away what the group may do. As of its other groups no request tells, they do not count.
    pub fn outside(self, stat: &Stat) -> bool {
        self.uid != 0 && self.gid != stat.st_gid
    }
}

/// The mode without set-user-ID, and without set-group-ID where the group may execute or `by` is not in it; None if there is nothing to take.
/// kernel: fs/attr.c setattr_should_drop_suidgid
pub fn without_privileges(stat: &Stat, by: Asker) -> Option<u32> {
    let mode = stat.st_mode & 0o7777;
    let taken = if mode & 0o010 != 0 || by.outside(stat) { 0o6000 } else { 0o4000 };
    (mode & taken != 0).then_some(mode & !taken)
}

/// Both times of access and of change of content, as another file has them.
pub fn times_of(stat: &Stat) -> Timestamps {
    let time = |s: i64, n: u64| Timespec { tv_sec: s, tv_nsec: n as _ };
    Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_by_others_takes_away() {
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_gid = 7;
        let mut left = |mode, uid, gid| {
            stat.st_mode = libc::S_IFREG | mode;
            without_privileges(&stat, Asker { uid, gid })
        };
        assert_eq!(left(0o4755, 5, 7), Some(0o755));
        assert_eq!(left(0o6755, 5, 7), Some(0o755));
        assert_eq!(left(0o2745, 5, 7), None);
        assert_eq!(left(0o2745, 0, 0), None);
        assert_eq!(left(0o2745, 5, 8), Some(0o745));
        assert_eq!(left(0o0755, 5, 8), None);
    }

    #[test]
    fn numbers_of_several_devices_differ() {
        let table = Table::default();
        let (a, b) = (table.number(Key { device: 7, inode: 5 }), table.number(Key { device: 9, inode: 5 }));
        assert_eq!(a, 5);
        assert_ne!(a, b);
        assert_eq!(table.number(Key { device: 7, inode: 1 << 60 }), 0);
    }
}
