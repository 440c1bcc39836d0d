//! Our own overlay file system, served over FUSE, for where the kernel's overlayfs cannot be had.
//!
//! *What*: `Overlay` says which directories are laid over each other; `serve` answers the kernel until the mount is gone. Files are named after
//! the kernel's `fs/overlayfs`: `namei` looks up, `dir` changes names, `copy_up` brings a file into the upper layer, and so on; `fuse` is only
//! the face: it decodes, calls, replies. Called by the role that serves a sandbox, and by `cli::overlay`.
//!
//! *On disk* a layer has the form of the kernel's overlay mounted with `userxattr`, so that either reads what the other wrote: a character device
//! 0:0 (or an empty file with `user.overlay.whiteout`) hides a name, `user.overlay.opaque` a directory's lower content; `user.overlay.origin`
//! keeps inode numbers, `index/` in the work directory hard links. man: Documentation/filesystems/overlayfs.rst
//!
//! *Invariants*
//! - O1 nothing here panics: a server that dies takes the sandbox's root with it.
//! - O2 every access is one component in a directory handle, and no link is followed: nothing outside the layers is reached. // L1
//! - O3 lowers are never written to.
//! - O4 whatever appears in the upper layer was made whole in the work directory, then renamed; or is new and empty.
//! - O5 what is remembered is bounded by what the kernel holds, descriptors by a share of RLIMIT_NOFILE.
//!
//! *Deliberate differences from the kernel's overlayfs*
//! - `O_TMPFILE` is EOPNOTSUPP: the crate lacks the request. Programs fall back to a named file.
//! - reading does not change access times.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuse;

use crate::error::{Doing, Result};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What to serve.
#[derive(Debug)]
pub struct Overlay {
    /// Directories that are only read, uppermost first.
    pub lowers: Vec<OwnedFd>,
    /// None: nothing can be written.
    pub upper: Option<Upper>,
    pub ownership: Ownership,
    pub limit: Limit,
}

/// The layer that is written to.
#[derive(Debug)]
pub struct Upper {
    pub dir: OwnedFd,
    /// On the same file system: where things are made before they are renamed into `dir`.
    pub work: OwnedFd,
}

/// Whose files are they?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// As the disk says: the server may chown to any id that there is inside.
    Real,
    /// As an extended attribute says: on disk everything belongs to the one user.
    Virtual,
}

/// How much the upper layer may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
}

/// What a mount of `fuse` needs, for fsconfig(2), with the ids of the mounter's own user namespace. An overlay without upper is to be mounted
/// read-only, and every one `nodev`: inside a user namespace a device would not work anyway.
pub fn mount_options(device: BorrowedFd, uid: u32, gid: u32) -> Vec<(CString, Option<CString>)> {
    let pair = |key: &str, value: String| (CString::new(key).unwrap_or_default(), CString::new(value).ok());
    let flag = |key: &str| (CString::new(key).unwrap_or_default(), None);
    vec![
        pair("source", "sandbox".into()),
        pair("subtype", "sandbox".into()),
        pair("fd", device.as_raw_fd().to_string()),
        pair("rootmode", "40755".into()),
        pair("user_id", uid.to_string()),
        pair("group_id", gid.to_string()),
        flag("default_permissions"),
        flag("allow_other"),
    ]
}

/// Answer what is asked through `device`, an opened /dev/fuse that is mounted (or will be: this waits for the first request).
/// Comes back when it is unmounted.
pub fn serve(device: OwnedFd, overlay: Overlay) -> Result<()> {
    fuse::serve(device, overlay).doing("serve", "the overlay")
}
