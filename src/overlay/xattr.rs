//! Extended attributes: those of programs, those of an overlay, and virtual ownership.
//!
//! *What*: programs see every attribute but the overlay's own (`user.overlay.`), whose names are escaped for them as the kernel does, so that an
//! overlay inside an overlay works: inside `user.overlay.x` is `user.overlay.overlay.x` on disk. Virtual ownership is an `Override`. `Origin` is the kernel's record of what was copied up.
//!
//! A symbolic link cannot have attributes of ours: one that belongs to somebody else is kept as a file with its target as content.

pub use crate::image::owner::{OVERRIDE, Override};

use super::dir::{Creator, New};
use super::inode::{Asker, Attributes, Changes, Key, Node};
use super::layer::Spot;
use super::namei::component;
use super::{Fs, Ownership};
use crate::sys::{self, Errno, Result};
use rustix::fs::{FileType, Stat};
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The kernel's own limit for a value and for a list. man: xattr(7)
pub const MOST: usize = 64 << 10;
/// Of every object with virtual ownership, for who answers for ids that the kernel cannot show: who it belongs to, as `UID:GID`. 4294967295 is
/// the id that the kernel shows; to be set, the id as it is. // owners
pub const OWNER: &CStr = c"system.sandbox.owner";
/// Of a directory, only to be set: make a device in it, as `NAME/` and the text of an override.
pub const NODE: &CStr = c"system.sandbox.node";
/// man: capabilities(7)
pub const CAPABILITY: &CStr = c"security.capability";
const OWN: &[u8] = b"user.overlay.";
const ESCAPED: &[u8] = b"user.overlay.overlay.";
const ACL: &[u8] = b"system.posix_acl_";
const ACCESS_ACL: &CStr = c"system.posix_acl_access";
pub const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

impl Override {
    pub fn read(spot: &Spot) -> Result<Option<Override>> {
        let mut value = [0u8; 128];
        match spot.get_xattr(OVERRIDE, &mut value) {
            // What cannot be read is no statement about the owner: the disk's word stands.
            Ok(n) => Ok(value.get(..n).and_then(Override::parse)),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Owner and mode of a file in the upper layer, by attribute. What the disk can say by itself it says.
pub fn set_override(
    fs: &Fs,
    node: &Arc<Node>,
    spot: &Spot,
    before: &Attributes,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
) -> Result<()> {
    if uid.is_none() && gid.is_none() && mode.is_none() {
        return Ok(());
    }
    let mut wanted = before.stat;
    wanted.st_uid = uid.unwrap_or(wanted.st_uid);
    wanted.st_gid = gid.unwrap_or(wanted.st_gid);
    wanted.st_mode = wanted.st_mode & libc::S_IFMT | mode.unwrap_or(wanted.st_mode) & 0o7777;
    if FileType::from_raw_mode(before.disk.2) == FileType::Symlink {
        if (wanted.st_uid, wanted.st_gid) == (before.disk.0, before.disk.1) {
            return Ok(());
        }
        return fs.replace_link(node, &Override::of(&wanted));
    }
    describe(spot, &wanted, before.disk, before.overridden)
}

/// Make the file at `spot` look like `wanted`; `disk` is owner and mode there.
pub fn describe(spot: &Spot, wanted: &Stat, disk: (u32, u32, u32), overridden: bool) -> Result<()> {
    let owner = if FileType::from_raw_mode(disk.2) == FileType::Directory { 0o700 } else { 0o600 };
    let plain = wanted.st_mode & libc::S_IFMT == disk.2 & libc::S_IFMT
        && (wanted.st_uid, wanted.st_gid) == (disk.0, disk.1)
        && wanted.st_mode & 0o6000 == 0
        && wanted.st_mode & owner == owner;
    let on_disk = if plain { wanted.st_mode } else { disk.2 | owner };
    if !plain {
        spot.set_xattr(OVERRIDE, Override::of(wanted).text().as_bytes(), 0)?;
    }
    if on_disk & 0o7777 != disk.2 & 0o7777 {
        spot.chmod(on_disk)?;
    }
    if plain && overridden {
        spot.remove_xattr(OVERRIDE)?;
    }
    Ok(())
}

/// What a file was copied up from: the kernel's `struct ovl_fb`, a file handle with the identity of its file system.
/// kernel: fs/overlayfs/overlayfs.h describes the bytes: version 0, magic 0xfb, length, flags, handle type, uuid, handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub Vec<u8>);

const HEADER: usize = 21;
const MAGIC: u8 = 0xfb;
/// In place of a handle, where the file system has none: an inode number.
const NUMBERED: u8 = 0xfe;

impl Origin {
    pub fn of(dir: BorrowedFd, name: &CStr, uuid: Option<[u8; 16]>, inode: u64) -> Origin {
        let (kind, handle) = match sys::xattr::file_handle(dir, name) {
            Ok((kind, bytes)) if (1..0xfe).contains(&kind) => (kind as u8, bytes),
            _ => (NUMBERED, inode.to_ne_bytes().to_vec()),
        };
        let mut bytes = vec![0, MAGIC, (HEADER + handle.len()) as u8, u8::from(cfg!(target_endian = "big")), kind];
        bytes.extend_from_slice(&uuid.unwrap_or_default());
        bytes.extend_from_slice(&handle);
        Origin(bytes)
    }

    /// The inode number that is in the handle, of the file systems that we know.
    pub fn inode(&self) -> Option<u64> {
        let handle = self.0.get(HEADER..)?;
        let word = |n: usize| handle.get(4 * n..4 * n + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes).map(u64::from);
        match (*self.0.get(1)?, *self.0.get(4)?, handle.len()) {
            // FILEID_INO32_GEN; tmpfs has the same type, with the generation first.
            (MAGIC, 1, 8) => word(0),
            (MAGIC, 1, 12) => Some(word(1)? | word(2)? << 32),
            // xfs with 64 bits, btrfs, and our own.
            (MAGIC, 0x81 | 0x4d | NUMBERED, _) => Some(word(0)? | word(1)? << 32),
            _ => None,
        }
    }

    pub fn read(spot: &Spot) -> Result<Option<Origin>> {
        let mut value = [0u8; 256];
        match spot.get_xattr(super::layer::ORIGIN, &mut value) {
            Ok(n) => Ok(value.get(..n).filter(|v| v.len() > HEADER).map(|v| Origin(v.to_vec()))),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Its name in the index.
    pub fn name(&self) -> Arc<CStr> {
        let hex: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
        CString::new(hex).unwrap_or_default().into()
    }
}

/// The link count that programs see of a file in the index, as `U+N`: what to add to that of the upper inode.
pub fn links_text(links: i64) -> String {
    format!("U{links:+}")
}

pub fn parse_links(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.strip_prefix('U')?.parse().ok()
}

impl Fs {
    /// The name on disk of an attribute that a program names.
    fn on_disk(&self, name: &CStr) -> Result<CString> {
        let bytes = name.to_bytes();
        if let Some(rest) = bytes.strip_prefix(OWN) {
            let escaped = [ESCAPED, rest].concat();
            return if escaped.len() > 255 { Err(Errno::OPNOTSUPP) } else { CString::new(escaped).map_err(|_| Errno::INVAL) };
        }
        if self.ownership == Ownership::Virtual {
            if name == OVERRIDE {
                return Err(Errno::NODATA);
            }
            if bytes.starts_with(ACL) {
                return Err(Errno::OPNOTSUPP);
            }
        }
        Ok(name.to_owned())
    }

    /// The name that programs see, if they see it.
    fn inside<'a>(&self, name: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        if let Some(rest) = name.strip_prefix(ESCAPED) {
            return Some([OWN, rest].concat().into());
        }
        let hidden = name.starts_with(OWN) || (self.ownership == Ownership::Virtual && (name == OVERRIDE.to_bytes() || name.starts_with(ACL)));
        (!hidden).then_some(name.into())
    }

    pub fn get_xattr(&self, node: &Arc<Node>, name: &CStr, value: &mut [u8]) -> Result<usize> {
        if name == OWNER && self.ownership == Ownership::Virtual {
            let spot = self.spot(node)?;
            let seen = self.dressed(&spot, spot.stat()?)?;
            let id = |id: u32, own: u32| if id == own { u32::MAX } else { id };
            let text = format!("{}:{}", id(seen.stat.st_uid, self.own.0), id(seen.stat.st_gid, self.own.1));
            if let Some(place) = value.get_mut(..text.len()) {
                place.copy_from_slice(text.as_bytes());
            }
            return Ok(text.len());
        }
        if name == CAPABILITY && node.incapable.load(Ordering::Relaxed) {
            return Err(Errno::NODATA);
        }
        let name = self.on_disk(name)?;
        self.ask(node, |spot| spot.get_xattr(&name, value))
    }

    pub fn list_xattrs(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        let names = match self.ask(node, Spot::list_xattrs) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            other => other?,
        };
        let seen = names.split(|b| *b == 0).filter(|n| !n.is_empty()).filter_map(|n| self.inside(n));
        Ok(seen.flat_map(|n| [&n, &b"\0"[..]].concat()).collect())
    }

    pub fn set_xattr(&self, node: &Arc<Node>, name: &CStr, value: &[u8], flags: u32, by: Asker) -> Result<()> {
        if self.ownership == Ownership::Virtual && (name == OWNER || name == NODE) {
            let text = std::str::from_utf8(value).map_err(|_| Errno::INVAL)?;
            return if name == OWNER { self.set_owner(node, text) } else { self.make_node(node, text) };
        }
        let disk = self.on_disk(name).map_err(|e| if e == Errno::NODATA { Errno::PERM } else { e })?;
        self.copy_up(node)?;
        if name == CAPABILITY {
            node.incapable.store(false, Ordering::Relaxed);
        }
        let spot = self.spot(node)?;
        spot.set_xattr(&disk, value, flags)?;
        acl_changed(node, &spot, name, by)
    }

    fn set_owner(&self, node: &Arc<Node>, text: &str) -> Result<()> {
        let id = |word: &str| word.parse::<u32>().map(|id| Some(id).filter(|id| *id != u32::MAX)).map_err(|_| Errno::INVAL);
        let (uid, gid) = text.split_once(':').ok_or(Errno::INVAL)?;
        let changes = Changes { uid: id(uid)?, gid: id(gid)?, ..Changes::default() };
        self.set_attributes(node, &changes).map(drop)
    }

    fn make_node(&self, dir: &Arc<Node>, text: &str) -> Result<()> {
        let (name, over) = text.split_once('/').ok_or(Errno::INVAL)?;
        let Override { uid, gid, mode, kind } = Override::parse(over.as_bytes()).ok_or(Errno::INVAL)?;
        let (kind, device) = kind.filter(|(kind, _)| matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)).ok_or(Errno::INVAL)?;
        let by = Creator { uid, gid, mode, umask: 0 };
        self.create(dir, &component(name.as_bytes())?, New::Node(kind, device), by, false).map(drop)
    }

    pub fn remove_xattr(&self, node: &Arc<Node>, name: &CStr, by: Asker) -> Result<()> {
        let disk = self.on_disk(name)?;
        if !node.has_upper() {
            // What is not there needs no copy.
            self.spot(node)?.get_xattr(&disk, &mut [])?;
            self.copy_up(node)?;
        }
        let spot = self.spot(node)?;
        spot.remove_xattr(&disk)?;
        acl_changed(node, &spot, name, by)
    }

    /// Do files made in this directory get an ACL from it?
    pub fn hands_down_acl(&self, dir: &Arc<Node>, spot: &Spot) -> Result<bool> {
        if self.ownership == Ownership::Virtual {
            return Ok(false);
        }
        Ok(match dir.default_acl.load(Ordering::Relaxed) {
            0 => {
                let has = spot.is_marked(DEFAULT_ACL)?;
                dir.default_acl.store(1 + u8::from(has), Ordering::Relaxed);
                has
            }
            known => known == 2,
        })
    }

    /// The key of what was copied up, for its number.
    pub fn origin_key(&self, origin: &Origin) -> Option<Key> {
        Some(Key { device: self.origin_device?, inode: origin.inode()? })
    }
}

/// As after chmod(2), who is not of the group has not given its rights away. The kernel leaves this to us.
fn acl_changed(node: &Node, spot: &Spot, name: &CStr, by: Asker) -> Result<()> {
    if name == ACCESS_ACL {
        let stat = spot.stat()?;
        if stat.st_mode & 0o2000 != 0 && by.outside(&stat) {
            spot.chmod(stat.st_mode & !0o2000)?;
        }
    }
    if name == DEFAULT_ACL {
        node.default_acl.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// An attribute that goes along when a file is copied up.
pub fn goes_along(name: &[u8]) -> bool {
    !name.is_empty() && (!name.starts_with(OWN) || name.starts_with(ESCAPED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_counts() {
        for links in [-2, 0, 5] {
            assert_eq!(parse_links(links_text(links).as_bytes()), Some(links));
        }
        assert_eq!(links_text(3), "U+3");
        assert_eq!(parse_links(b"L+3"), None);
    }

    #[test]
    fn an_origin_has_the_kernels_form() {
        let dir = std::fs::File::open("/").unwrap();
        use std::os::fd::AsFd;
        let origin = Origin::of(dir.as_fd(), c"", None, 77);
        assert_eq!(origin.0.get(..2), Some(&[0, 0xfb][..]));
        assert_eq!(origin.0.get(2).copied(), Some(origin.0.len() as u8));
        assert_eq!(origin.name().to_bytes().len(), 2 * origin.0.len());
        let mut numbered = vec![0, MAGIC, 29, 0, NUMBERED];
        numbered.extend_from_slice(&[0; 16]);
        numbered.extend_from_slice(&77u64.to_ne_bytes());
        assert_eq!(Origin(numbered).inode(), Some(77));
    }
}
