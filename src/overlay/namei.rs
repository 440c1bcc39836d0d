//! Looking a name up: in the upper layer, then in each lower one, until something hides the rest.

use super::Fs;
use super::inode::{Attributes, Found, Key, Name, Node, read};
use super::layer::{self, IMPURE, METACOPY, NLINK, OPAQUE, REDIRECT, Spot};
use super::xattr::{self, Origin};
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, FileType, Stat, statat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A name as a request has it: one component, or refused.
pub fn component(name: &[u8]) -> Result<Arc<CStr>> {
    if name.len() > 255 {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    CString::new(name).map(Arc::from).map_err(|_| Errno::INVAL)
}

pub fn stat_at(dir: BorrowedFd, name: &CStr) -> Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl Fs {
    /// What is called `name` in `parent`. `from`: how many of the layers (the upper one first) are known not to have it. `told`: the kernel
    /// will hear of the node.
    pub fn find(&self, parent: &Arc<Node>, name: &Arc<CStr>, from: usize, told: bool) -> Result<Option<(Arc<Node>, Attributes)>> {
        let (upper, lowers) = {
            let state = read(&parent.state);
            if state.gone {
                return Ok(None);
            }
            (state.upper, state.lowers.clone())
        };
        let mut found = Found::default();
        let mut top: Option<(Spot, Stat)> = None;
        if upper && from == 0 {
            let dir = self.upper_dir(parent)?;
            if let Some(stat) = stat_at(dir.as_fd(), name)? {
                if layer::is_whiteout(dir.as_fd(), name, &stat, || layer::marks(dir.as_fd()))? {
                    return Ok(None);
                }
                found.upper = true;
                let spot = Spot::Name(dir, name.clone());
                let origin = Origin::read(&spot)?;
                found.origin = origin.as_ref().and_then(|o| self.origin_key(o));
                if !is_dir(&stat) {
                    refuse_metacopy(&spot, &stat)?;
                    if stat.st_nlink > 1
                        && let Some(origin) = origin
                    {
                        self.read_links(&spot, &origin, &mut found)?;
                    }
                    return self.settle(parent, name, found, spot, stat, told).map(Some);
                }
                top = Some((spot, stat));
            }
        }
        // Is the next directory hidden by what was found above it?
        let mut opaque = match &top {
            Some((spot, _)) => hides_below(spot)?,
            None => false,
        };
        let skip = from.saturating_sub(usize::from(upper));
        for (n, place) in lowers.iter().enumerate().skip(skip) {
            if opaque {
                break;
            }
            let dir = place.fd()?;
            let Some(stat) = stat_at(dir.as_fd(), name)? else { continue };
            if layer::is_whiteout(dir.as_fd(), name, &stat, || place.marks())? {
                break;
            }
            let spot = Spot::Name(dir, name.clone());
            if !is_dir(&stat) {
                if top.is_some() {
                    break;
                }
                refuse_metacopy(&spot, &stat)?;
                if stat.st_nlink > 1
                    && let Some(indexed) = self.indexed(&spot, &stat)?
                {
                    return self.settle_indexed(parent, name, indexed, told).map(Some);
                }
                found.lower = Some((place.clone(), name.clone()));
                return self.settle(parent, name, found, spot, stat, told).map(Some);
            }
            if found.upper && found.lowers.is_empty() {
                // As the kernel does: a merged directory has the number of its uppermost lower.
                found.origin = Some(Key::of(&stat));
            }
            let below = place.below(name, stat.st_dev);
            found.lowers.push(below.clone());
            if n + 1 < lowers.len() {
                if spot.is_marked(REDIRECT)? {
                    return Err(Errno::PERM);
                }
                opaque = below.marks()?.opaque;
            }
            top.get_or_insert((spot, stat));
        }
        match top {
            Some((spot, stat)) => self.settle(parent, name, found, spot, stat, told).map(Some),
            None => Ok(None),
        }
    }

    /// Give what was found its node.
    fn settle(&self, parent: &Arc<Node>, name: &Arc<CStr>, found: Found, spot: Spot, stat: Stat, told: bool) -> Result<(Arc<Node>, Attributes)> {
        let seen = self.dressed(&spot, stat)?;
        let name = Name { parent: parent.clone(), name: name.clone(), upper: found.upper };
        let node = self.table.node(Key::of(&stat), seen.kind(), name, stat.st_nlink, found, told);
        let seen = self.numbered(&node, seen);
        Ok((node, seen))
    }

    /// The copy of a lower file that was made under another of its names.
    fn indexed(&self, spot: &Spot, stat: &Stat) -> Result<Option<(Arc<CStr>, Stat)>> {
        let Some(index) = self.index() else { return Ok(None) };
        let Spot::Name(dir, name) = spot else { return Ok(None) };
        let entry = Origin::of(dir.as_fd(), name, self.uuid, stat.st_ino).name();
        Ok(stat_at(index.as_fd(), &entry)?.map(|stat| (entry, stat)))
    }

    fn settle_indexed(&self, parent: &Arc<Node>, name: &Arc<CStr>, indexed: (Arc<CStr>, Stat), told: bool) -> Result<(Arc<Node>, Attributes)> {
        let (entry, stat) = indexed;
        let spot = Spot::Name(self.index_dir()?, entry);
        let mut found = Found { upper: true, ..Found::default() };
        if let Some(origin) = Origin::read(&spot)? {
            found.origin = self.origin_key(&origin);
            self.read_links(&spot, &origin, &mut found)?;
        }
        let seen = self.dressed(&spot, stat)?;
        let name = Name { parent: parent.clone(), name: name.clone(), upper: false };
        let node = self.table.node(Key::of(&stat), seen.kind(), name, stat.st_nlink, found, told);
        let seen = self.numbered(&node, seen);
        Ok((node, seen))
    }

    fn read_links(&self, spot: &Spot, origin: &Origin, found: &mut Found) -> Result<()> {
        let mut value = [0u8; 32];
        match spot.get_xattr(NLINK, &mut value) {
            Ok(n) => {
                // The kernel may have counted from the lower inode, which we may not have: then all but the index is a name.
                found.links = value.get(..n).and_then(xattr::parse_links).unwrap_or(-1);
                found.index = Some(origin.name());
                Ok(())
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Does a lower layer show something under this name in `parent`? Then it takes a whiteout to remove it.
    pub fn is_covered(&self, parent: &Node, name: &CStr) -> Result<bool> {
        for place in parent.lowers() {
            let dir = place.fd()?;
            if let Some(stat) = stat_at(dir.as_fd(), name)? {
                return layer::is_whiteout(dir.as_fd(), name, &stat, || place.marks()).map(|w| !w);
            }
        }
        Ok(false)
    }

    /// Does the directory say that it has files which were copied up?
    pub fn is_impure(&self, dir: BorrowedFd) -> bool {
        rustix::fs::fgetxattr(dir, IMPURE, &mut [0u8; 8]).is_ok()
    }
}

/// Does this directory of a layer hide all below it? A redirect is refused, as by the kernel's overlay with `userxattr`.
fn hides_below(spot: &Spot) -> Result<bool> {
    if spot.is_marked(REDIRECT)? {
        return Err(Errno::PERM);
    }
    let mut value = [0u8; 8];
    match spot.get_xattr(OPAQUE, &mut value) {
        Ok(n) => Ok(value.get(..n) == Some(b"y")),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A file whose content is in another layer is refused, as by the kernel's overlay with `userxattr`.
fn refuse_metacopy(spot: &Spot, stat: &Stat) -> Result<()> {
    let hollow = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size > 0 && stat.st_blocks == 0;
    if hollow && spot.is_marked(METACOPY)? { Err(Errno::PERM) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(component(bad).is_err(), "{bad:?}");
        }
        assert!(component(&[b'n'; 255]).is_ok());
        assert_eq!(component(&[b'n'; 256]).err(), Some(Errno::NAMETOOLONG));
        assert_eq!(component(b"...").unwrap().to_bytes(), b"...");
    }
}
