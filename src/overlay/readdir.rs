//! Listings: the names of a directory, each once, whatever layer it is in.
//!
//! A position in a listing is a hash of the name there, so it means the same whatever is made and removed meanwhile, and after the server has
//! thrown its listing away: a program that reads on gets every name that stays exactly once. The key of the hash is new for each mount.

use super::Fs;
use super::inode::{Attributes, Key, Node, read};
use super::layer::{self, DIRECTORY, Marks, lock};
use crate::overlay::Ownership;
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, FileType, Mode, RawDir, openat, statat};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// So many names are remembered in all.
const MOST: usize = 400_000;
/// Names that are taken out of a listing at a time.
const BATCH: usize = 64;
/// Positions of `.` and `..`; names come after them.
const FIRST: u64 = 2;

#[derive(Debug, Clone)]
pub struct Entry {
    name: Arc<CStr>,
    kind: FileType,
    /// What the layer says, if that is what programs shall see.
    number: Option<Key>,
    /// So many layers, the upper one first, do not have it.
    from: usize,
}

#[derive(Debug)]
pub struct Listing {
    entries: BTreeMap<u64, Entry>,
    counted: Arc<AtomicUsize>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.counted.fetch_sub(self.entries.len(), Ordering::Relaxed);
    }
}

/// How many names are remembered, and of which directories.
#[derive(Debug, Default)]
pub struct Listings {
    hash: RandomState,
    counted: Arc<AtomicUsize>,
    queue: Mutex<VecDeque<Weak<Node>>>,
}

impl Listings {
    fn position(&self, name: &CStr) -> u64 {
        (self.hash.hash_one(name.to_bytes()) >> 2).max(FIRST + 1)
    }
}

impl Listing {
    fn put(&mut self, mut position: u64, entry: Entry) -> bool {
        // Two names with one hash: the next position.
        while let Some(known) = self.entries.get(&position) {
            if known.name == entry.name {
                return false;
            }
            position += 1;
        }
        self.entries.insert(position, entry);
        self.counted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn find(&self, mut position: u64, name: &CStr) -> Option<u64> {
        while let Some(known) = self.entries.get(&position) {
            if known.name.as_ref() == name {
                return Some(position);
            }
            position += 1;
        }
        None
    }
}

impl Fs {
    /// Run `look` on the listing of a directory, made first if need be.
    fn listed<T>(&self, node: &Arc<Node>, look: impl FnOnce(&Listing) -> T) -> Result<T> {
        let mut kept = lock(&node.listing);
        if kept.is_none() {
            *kept = Some(self.list(node)?);
            let mut queue = lock(&self.listings.queue);
            queue.push_back(Arc::downgrade(node));
            let mut patience = queue.len();
            while self.listings.counted.load(Ordering::Relaxed) > MOST && patience > 0 {
                patience -= 1;
                let Some(oldest) = queue.pop_front().and_then(|n| n.upgrade()) else { continue };
                match oldest.listing.try_lock() {
                    Ok(mut old) => drop(old.take()),
                    Err(_) => queue.push_back(Arc::downgrade(&oldest)),
                }
            }
            if queue.len() > 4096 {
                queue.retain(|n| n.upgrade().is_some_and(|n| n.listing.try_lock().is_ok_and(|l| l.is_some()) || Arc::ptr_eq(&n, node)));
            }
        }
        kept.as_ref().map(look).ok_or(Errno::IO)
    }

    fn list(&self, node: &Arc<Node>) -> Result<Listing> {
        let mut listing = Listing { entries: BTreeMap::new(), counted: self.listings.counted.clone() };
        let (upper, lowers, gone) = {
            let state = read(&node.state);
            (state.upper, state.lowers.clone(), state.gone)
        };
        if gone {
            return Ok(listing);
        }
        let mut hidden = HashSet::new();
        let last = usize::from(upper) + lowers.len();
        if upper {
            let dir = self.upper_dir(node)?;
            let marks = layer::marks(dir.as_fd())?;
            // Numbers of what was copied up are not those of the upper layer.
            let exact = !self.is_impure(dir.as_fd());
            self.gather(&mut listing, &mut hidden, &dir, 0, last > 1, marks, exact)?;
        }
        for (n, place) in lowers.iter().enumerate() {
            let from = n + usize::from(upper);
            self.gather(&mut listing, &mut hidden, &*place.fd()?, from, from + 1 < last, place.marks()?, true)?;
        }
        Ok(listing)
    }

    /// Add what one layer has. `more`: layers follow.
    #[allow(clippy::too_many_arguments)]
    fn gather(
        &self,
        listing: &mut Listing,
        hidden: &mut HashSet<Arc<CStr>>,
        dir: &OwnedFd,
        from: usize,
        more: bool,
        marks: Marks,
        exact: bool,
    ) -> Result<()> {
        let device = rustix::fs::fstat(dir)?.st_dev;
        let own = openat(dir, c".", DIRECTORY, Mode::empty())?;
        let mut space = vec![MaybeUninit::uninit(); 64 << 10];
        let mut entries = RawDir::new(&own, &mut space);
        let merged = from > 0 || more;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut kind = entry.file_type();
            let suspect = match kind {
                FileType::CharacterDevice | FileType::Unknown => true,
                FileType::RegularFile => marks.whiteouts,
                _ => false,
            };
            let name: Arc<CStr> = name.into();
            if suspect {
                let stat = match statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                kind = FileType::from_raw_mode(stat.st_mode);
                if layer::is_whiteout(dir.as_fd(), &name, &stat, || Ok(marks))? {
                    if more {
                        hidden.insert(name);
                    }
                    continue;
                }
            }
            if from > 0 && hidden.contains(&name) {
                continue;
            }
            // A directory may go on below, and then has a number from there; what a file is may be said by an attribute.
            let settled = exact
                && !(kind == FileType::Directory && merged)
                && !(kind == FileType::RegularFile && self.ownership == Ownership::Virtual)
                && !(from == 0 && self.index().is_some());
            let number = settled.then_some(Key { device, inode: entry.ino() });
            let position = self.listings.position(&name);
            listing.put(position, Entry { name, kind, number, from });
        }
        Ok(())
    }

    /// The listing learns of a name that was made, or that moved into the upper layer.
    pub fn list_add(&self, dir: &Node, name: &Arc<CStr>, kind: FileType) {
        let mut listing = lock(&dir.listing);
        let Some(listing) = listing.as_mut() else { return };
        let position = self.listings.position(name);
        match listing.find(position, name).and_then(|p| listing.entries.get_mut(&p)) {
            Some(known) => (known.kind, known.number, known.from) = (kind, None, 0),
            None => drop(listing.put(position, Entry { name: name.clone(), kind, number: None, from: 0 })),
        }
    }

    pub fn list_remove(&self, dir: &Node, name: &CStr) {
        let mut listing = lock(&dir.listing);
        let Some(listing) = listing.as_mut() else { return };
        if let Some(position) = listing.find(self.listings.position(name), name) {
            listing.entries.remove(&position);
            listing.counted.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn list_forget(&self, dir: &Node) {
        drop(lock(&dir.listing).take());
    }

    pub fn is_empty(&self, node: &Arc<Node>) -> Result<bool> {
        self.listed(node, |listing| listing.entries.is_empty())
    }

    /// All names, for a walk.
    pub fn names(&self, node: &Arc<Node>) -> Result<Vec<(Arc<CStr>, usize)>> {
        self.listed(node, |listing| listing.entries.values().map(|e| (e.name.clone(), e.from)).collect())
    }

    fn batch(&self, node: &Arc<Node>, after: u64) -> Result<Vec<(u64, Entry)>> {
        self.listed(node, |listing| {
            let rest = listing.entries.range((Bound::Excluded(after.max(FIRST)), Bound::Unbounded));
            rest.take(BATCH).map(|(position, entry)| (*position, entry.clone())).collect()
        })
    }

    /// Names after a position, until `put` (number, position, kind, name) has no room for more.
    pub fn read_dir(&self, node: &Arc<Node>, after: u64, mut put: impl FnMut(u64, u64, FileType, &[u8]) -> bool) -> Result<()> {
        self.walk(node, after, |position, at| {
            let (number, kind, name) = match &at {
                At::Dot(dir, name) => (dir.id, FileType::Directory, *name),
                At::Name(entry) => match entry.number.map_or(0, |key| self.table.shown(key)) {
                    0 => match self.find(node, &entry.name, entry.from, false)? {
                        Some((child, _)) => (child.id, child.kind, entry.name.to_bytes()),
                        None => return Ok(false),
                    },
                    number => (number, entry.kind, entry.name.to_bytes()),
                },
            };
            Ok(put(number, position, kind, name))
        })
    }

    /// The same with what each name is; the kernel hears of every node that was put.
    pub fn read_dir_plus(&self, node: &Arc<Node>, after: u64, mut put: impl FnMut(Option<&Attributes>, u64, u64, &[u8]) -> bool) -> Result<()> {
        self.walk(node, after, |position, at| match &at {
            At::Dot(dir, name) => Ok(put(None, dir.id, position, name)),
            At::Name(entry) => {
                let Some((child, seen)) = self.find(node, &entry.name, entry.from, true)? else { return Ok(false) };
                let full = put(Some(&seen), child.id, position, entry.name.to_bytes());
                if full {
                    self.forget(child.id, 1);
                }
                Ok(full)
            }
        })
    }

    /// Give `put` what comes after a position, until it says that it is full.
    fn walk(&self, node: &Arc<Node>, mut after: u64, mut put: impl FnMut(u64, At) -> Result<bool>) -> Result<()> {
        let above = read(&node.state).names.first().map_or_else(|| node.clone(), |n| n.parent.clone());
        for (position, name, dir) in [(1, &b"."[..], node), (FIRST, b"..", &above)] {
            if after < position && put(position, At::Dot(dir, name))? {
                return Ok(());
            }
        }
        loop {
            let batch = self.batch(node, after)?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            after = *last;
            for (position, entry) in batch {
                if put(position, At::Name(entry))? {
                    return Ok(());
                }
            }
        }
    }
}

/// What stands at a position of a listing.
enum At<'a> {
    Dot(&'a Node, &'static [u8]),
    Name(Entry),
}
