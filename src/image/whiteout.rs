//! What is not there: the marks of a layer's tar (`.wh.NAME`), and the form that the kernel's overlay wants on disk.
//!
//! *What*: `Mark` reads a name of the tar; `cover` and `hide_below` write the on-disk form, `is_whiteout` and `is_opaque` read it; `keep` says which
//! extended attributes belong to the tree and not to an overlay; `Stack` looks a path up in layers, as the overlay would.
//! Called by `unpack` and `diff` in their helpers. Every name is one component, every directory a handle.
//!
//! On disk a whiteout is a character device 0:0, and a directory that hides those below has `user.overlay.opaque`: the form of an overlay
//! mounted with `userxattr`. oci: layer.md#whiteouts; kernel: Documentation/filesystems/overlayfs.rst

use super::tar::refuse;
use crate::error::Result;
use crate::sys::path::{Links, open_below};
use crate::sys::{self, Errno};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, openat, statat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub const PREFIX: &[u8] = b".wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS keeps for itself at the top of a tree.
pub const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &CStr = c"user.overlay.opaque";

/// What the last component of a name says.
#[derive(Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// It is a name.
    None,
    /// This name of lower layers is gone.
    Gone(&'a [u8]),
    /// All of this directory in lower layers is gone.
    Opaque,
    /// AUFS's own bookkeeping, of no meaning here.
    Aufs,
}

/// cve: 2014-9356 (a mark that names its directory, or the one above)
pub fn mark(name: &[u8]) -> Result<Mark<'_>> {
    Ok(match name.strip_prefix(PREFIX) {
        None => Mark::None,
        Some(_) if name == OPAQUE => Mark::Opaque,
        Some(rest) if rest.starts_with(PREFIX) => Mark::Aufs,
        Some(b"" | b"." | b"..") => return Err(refuse("a whiteout of nothing")),
        Some(rest) => Mark::Gone(rest),
    })
}

pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub fn is_opaque(dir: BorrowedFd) -> sys::Result<bool> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Hide `name` of the layers below.
pub fn cover(dir: BorrowedFd, name: &CStr) -> sys::Result<()> {
    crate::sys::path::whiteout(dir, name)
}

/// Hide all of this directory in the layers below.
pub fn hide_below(dir: BorrowedFd) -> sys::Result<()> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

/// An attribute that is part of the tree. What an overlay reads must not come from outside, nor leave: a redirect, an origin or a
/// metacopy mark that somebody else wrote would show files of other layers. Of the kernel's own only file capabilities are ours to give.
pub fn keep(name: &[u8]) -> bool {
    let own = [&b"user.overlay."[..], b"user.fuseoverlayfs.", b"user.containers."];
    (name.starts_with(b"user.") && name.len() > 5 && !own.iter().any(|p| name.starts_with(p))) || name == b"security.capability"
}

/// What a path is in a stack of layers.
pub enum Below {
    Absent,
    Directory(OwnedFd),
    /// Anything else.
    Other,
}

/// What one layer says about a path.
enum Said {
    /// Nothing; the next may.
    Nothing,
    /// It is not there, whatever is below.
    Gone,
    Other,
    /// A directory; and does it, or one that it is in, hide what is below?
    Directory(OwnedFd, bool),
}

/// Layers, the nearest first.
pub struct Stack(pub Vec<OwnedFd>);

impl Stack {
    /// What an overlay of these layers shows at `path` (components with single slashes).
    pub fn look(&self, path: &[u8]) -> sys::Result<Below> {
        for layer in &self.0 {
            return Ok(match said(layer.as_fd(), path)? {
                Said::Nothing => continue,
                Said::Gone => Below::Absent,
                Said::Other => Below::Other,
                Said::Directory(fd, _) => Below::Directory(fd),
            });
        }
        Ok(Below::Absent)
    }

    /// The directories that an overlay merges at `path`.
    pub fn directories(&self, path: &[u8]) -> sys::Result<Vec<OwnedFd>> {
        let mut found = Vec::new();
        for layer in &self.0 {
            match said(layer.as_fd(), path)? {
                Said::Nothing => {}
                Said::Directory(fd, false) => found.push(fd),
                Said::Directory(fd, true) => {
                    found.push(fd);
                    break;
                }
                Said::Gone | Said::Other => break,
            }
        }
        Ok(found)
    }
}

fn said(layer: BorrowedFd, path: &[u8]) -> sys::Result<Said> {
    let mut at = reopen(layer)?;
    let mut hides = false;
    let mut rest = path.split(|b| *b == b'/').filter(|c| !c.is_empty()).peekable();
    while let Some(name) = rest.next() {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match statat(&at, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            Ok(stat) if !is_whiteout(&stat) && rest.peek().is_none() => return Ok(Said::Other),
            Ok(_) => return Ok(Said::Gone),
            Err(Errno::NOENT) if hides => return Ok(Said::Gone),
            Err(Errno::NOENT) => return Ok(Said::Nothing),
            Err(e) => return Err(e),
        }
        at = open_dir(at.as_fd(), &name)?;
        hides |= is_opaque(at.as_fd())?;
    }
    Ok(Said::Directory(at, hides))
}

/// A handle that can be read, of a directory that is given as a bare one.
pub fn reopen(dir: BorrowedFd) -> sys::Result<OwnedFd> {
    open_dir(dir, c".")
}

/// A directory by one component, never through a link.
pub fn open_dir(dir: BorrowedFd, name: &CStr) -> sys::Result<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A directory by its path below `root`, links seen from there.
pub fn open_path(root: BorrowedFd, path: &CStr, links: Links) -> sys::Result<OwnedFd> {
    open_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY, links)
}

/// The extended attributes of a file that are part of the tree, in order.
pub fn xattrs(fd: BorrowedFd) -> sys::Result<Vec<(CString, Vec<u8>)>> {
    let mut list = vec![0u8; 64 << 10]; // kernel: XATTR_LIST_MAX
    let length = match rustix::fs::flistxattr(fd, &mut list) {
        Ok(n) => n,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|b| *b == 0).filter(|n| keep(n)) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let mut value = vec![0u8; 64 << 10]; // kernel: XATTR_SIZE_MAX
        match rustix::fs::fgetxattr(fd, name.as_c_str(), &mut value) {
            Ok(n) => value.truncate(n),
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e),
        }
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}
