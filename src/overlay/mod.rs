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
//! - to SEEK_DATA and SEEK_HOLE everything is data: the kernel's cache has writes that the server does not know yet. Copying up keeps holes.
//! - reading does not change access times.
//! - a copied-up file is not synced: as after a write, only fsync(2) makes it durable.
//! - a directory from below can be renamed, by copying up all of it: the kernel's overlay with `userxattr` neither writes nor follows redirects.
//! - a file with several names stays one file over a copy-up, as with the kernel's `index=on`; and over link(2), after which the kernel's, in a
//!   user namespace, checks permissions by the old name against the mode of before.
//! - what was removed while it was open for reading has no link, and can be changed by its descriptor: the kernel's counts one, and says EEXIST.
//! - what was opened for reading before it was copied up is mapped as it is now: the kernel's maps what is below.
//! - removing an ACL that is not there changes nothing: the kernel's takes set-group-ID then, if one is not in the group.
//! - a change by who is of a file's group by a supplementary group alone takes set-group-ID: no request tells of those.
//! - with virtual ownership there are no ACLs, and devices are kept but cannot be opened.
//!
//! *When the server dies*, of whatever, the kernel ends the connection: every request gets an error (ENOTCONN; ECONNABORTED if it was on the way),
//! nothing can be changed or synced, and what is not in the kernel's cache cannot be read (SIGBUS in a mapping). What is in the cache can be, by
//! known names, open files and mappings: no request is made that could be refused. It is what was acknowledged last, never other bytes, since no
//! write waits in the cache; only what was stored by a shared mapping and not synced is lost. Who mounts watches the server (its pidfd) and ends
//! those who use the mount. The upper layer is as O4 says, and the next server goes on with it.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod copy_up;
mod dir;
mod file;
mod fuse;
mod inode;
mod layer;
mod namei;
mod readdir;
pub mod server;
mod statfs;
mod xattr;

pub use xattr::{NODE, OWNER, Override, parse_links};

use crate::error::{Doing, Result};
use crate::image::remove;
use crate::sys::{self, Errno};
use inode::{State, Table};
use layer::{DIRECTORY, Descriptors, Place};
use readdir::Listings;
use rustix::fs::{FileType, Mode, fstat, mkdirat, openat};
use serde::{Deserialize, Serialize};
use statfs::Usage;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

/// What to serve.
#[derive(Debug)]
pub struct Overlay {
    /// Directories that are only read, uppermost first.
    pub lowers: Vec<OwnedFd>,
    /// None: nothing can be written.
    pub upper: Option<Upper>,
    pub ownership: Ownership,
    pub limit: Limit,
    /// What is below is not the whole of the lower directories, but this path in them, merged.
    pub within: Option<Vec<u8>>,
}

/// The layer that is written to.
#[derive(Debug)]
pub struct Upper {
    pub dir: OwnedFd,
    /// On the same file system: where things are made before they are renamed into `dir`.
    pub work: OwnedFd,
}

/// Whose files are they?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// As the disk says: the server may chown to any id that there is inside.
    Real,
    /// As an extended attribute says: on disk, and for the kernel, everything belongs to the one user. Who asks by `OWNER` hears the truth.
    Virtual,
}

/// How much the upper layer may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub bytes: Option<u64>,
    pub inodes: Option<u64>,
}

/// Answer what is asked through `device`, an opened /dev/fuse that is mounted (or will be: this waits for the first request).
/// Comes back when it is unmounted.
pub fn serve(device: OwnedFd, overlay: Overlay) -> Result<()> {
    open(overlay, 1)?.serve(device, threads())
}

/// So many threads are of use, for one overlay.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8)
}

/// An overlay whose layers are there.
#[derive(Debug)]
struct Opened(Fs);

/// Look at the layers. `of`: so many overlays share this process.
fn open(overlay: Overlay, of: usize) -> Result<Opened> {
    // What is made has the mode that its maker wants.
    rustix::process::umask(Mode::empty());
    let (soft, hard) = sys::process::rlimit(libc::RLIMIT_NOFILE).doing("read", "the limit of descriptors")?;
    let _ = sys::process::set_rlimit(libc::RLIMIT_NOFILE, hard, hard);
    let most = if hard > soft { hard } else { soft };
    let share = (most / 2).min(8192) as usize / of.max(1);
    Fs::new(overlay, share).map(Opened).map_err(std::io::Error::from).doing("open", "the layers of the overlay")
}

impl Opened {
    fn serve(self, device: OwnedFd, threads: usize) -> Result<()> {
        fuse::serve(device, self.0, threads).doing("serve", "the overlay")
    }
}

/// The file system: layers, and what the kernel knows of them.
#[derive(Debug)]
struct Fs {
    upper: Option<Writable>,
    ownership: Ownership,
    /// The ids of this process, to which all on disk belongs where ownership is virtual.
    own: (u32, u32),
    table: Table,
    listings: Listings,
    descriptors: Arc<Descriptors>,
    usage: Usage,
    /// Names in the work directory: so many were used.
    made: AtomicU64,
    renaming: Mutex<()>,
    /// Files of the lower layers may share their blocks with copies in the upper one.
    clones: AtomicBool,
    /// A whiteout can be a device here.
    plain_whiteouts: AtomicBool,
    /// Of the file system of the uppermost lower layer.
    uuid: Option<[u8; 16]>,
    origin_device: Option<u64>,
}

#[derive(Debug)]
struct Writable {
    dir: Arc<OwnedFd>,
    /// What is above the next two: the work directory that was given to us.
    base: OwnedFd,
    work: OwnedFd,
    index: OnceLock<Arc<OwnedFd>>,
}

const INDEX: &CStr = c"index";
const WORK: &CStr = c"work";

fn directory(at: BorrowedFd, name: &CStr) -> sys::Result<OwnedFd> {
    openat(at, name, DIRECTORY, Mode::empty())
}

impl Fs {
    fn new(overlay: Overlay, budget: usize) -> sys::Result<Fs> {
        let descriptors = Descriptors::new(budget.max(64));
        let mut lowers = Vec::new();
        for fd in &overlay.lowers {
            let fd = match directory(fd.as_fd(), c".") {
                // One that may not be listed may still be gone through.
                Err(Errno::ACCESS) => rustix::io::fcntl_dupfd_cloexec(fd, 3)?,
                other => other?,
            };
            let device = fstat(&fd)?.st_dev;
            lowers.push(Place::top(fd, device, &descriptors));
        }
        let upper = match &overlay.upper {
            None => None,
            Some(upper) => {
                let base = directory(upper.work.as_fd(), c".")?;
                match mkdirat(&base, WORK, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e),
                }
                let work = directory(base.as_fd(), WORK)?;
                // What a server that died has left.
                remove::empty(work.as_fd())?;
                let index = OnceLock::new();
                match directory(base.as_fd(), INDEX) {
                    Ok(fd) => drop(index.set(Arc::new(fd))),
                    Err(Errno::NOENT) => {}
                    Err(e) => return Err(e),
                }
                Some(Writable { dir: Arc::new(directory(upper.dir.as_fd(), c".")?), base, work, index })
            }
        };
        if let Some(path) = &overlay.within {
            lowers = within(lowers, path, overlay.ownership, &descriptors)?;
        }
        if lowers.is_empty() && upper.is_none() {
            return Err(Errno::INVAL);
        }
        let top = overlay.lowers.first().or(overlay.upper.as_ref().map(|u| &u.dir));
        let uuid = top.and_then(|fd| directory(fd.as_fd(), c".").ok()).and_then(|fd| sys::xattr::filesystem_uuid(fd.as_fd()));
        let usage = Usage::of(upper.as_ref().map(|u| &*u.dir), overlay.limit)?;
        // The first device has numbers as they are.
        let first = upper.as_ref().map(|upper| fstat(&*upper.dir)).transpose()?;
        let fs = Fs { uuid, ..Fs::of(upper, overlay.ownership, lowers, descriptors, usage) };
        if let Some(stat) = &first {
            fs.table.number(inode::Key::of(stat));
        }
        Ok(fs)
    }

    fn of(upper: Option<Writable>, ownership: Ownership, lowers: Vec<Arc<Place>>, descriptors: Arc<Descriptors>, usage: Usage) -> Fs {
        let origin_device = lowers.first().map(|place| place.device);
        let table = Table::default();
        table.root(State { upper: upper.is_some(), lowers, ..State::default() });
        Fs {
            upper,
            ownership,
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            table,
            listings: Listings::default(),
            descriptors,
            usage,
            made: AtomicU64::new(0),
            renaming: Mutex::new(()),
            clones: AtomicBool::new(true),
            plain_whiteouts: AtomicBool::new(true),
            uuid: None,
            origin_device,
        }
    }

    /// The index of hard links, if there is one.
    fn index(&self) -> Option<&Arc<OwnedFd>> {
        self.upper.as_ref()?.index.get()
    }

    fn index_dir(&self) -> sys::Result<Arc<OwnedFd>> {
        self.index().cloned().ok_or(Errno::STALE)
    }

    fn index_made(&self) -> sys::Result<()> {
        let upper = self.upper.as_ref().ok_or(Errno::ROFS)?;
        if upper.index.get().is_none() {
            match mkdirat(&upper.base, INDEX, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            let _ = upper.index.set(Arc::new(directory(upper.base.as_fd(), INDEX)?));
        }
        Ok(())
    }

    fn forget(&self, id: u64, times: u64) {
        if let Some(node) = self.table.forget(id, times)
            && node.has_upper()
            && inode::read(&node.state).gone
        {
            self.freed(&node);
        }
    }
}

/// So many links may be on the way.
const MOST_LINKS: u32 = 40;

/// The directories that are merged at `path` of an overlay of these; none, if nothing or no directory is there. Links are followed, within it.
fn within(lowers: Vec<Arc<Place>>, path: &[u8], ownership: Ownership, descriptors: &Arc<Descriptors>) -> sys::Result<Vec<Arc<Place>>> {
    let fs = Fs::of(None, ownership, lowers, descriptors.clone(), Usage::of(None, Limit::default())?);
    let mut way = vec![fs.table.get(inode::ROOT)?];
    let mut rest: Vec<Vec<u8>> = path.rsplit(|b| *b == b'/').map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let Some(dir) = way.last() else { return Err(Errno::NOENT) };
        match &*name {
            b"" | b"." => continue,
            b".." => {
                way.truncate(way.len().saturating_sub(1).max(1));
                continue;
            }
            _ => {}
        }
        let Some((node, _)) = fs.find(dir, &namei::component(&name)?, 0, false)? else { return Ok(Vec::new()) };
        match node.kind {
            FileType::Directory => way.push(node),
            FileType::Symlink if links < MOST_LINKS => {
                links += 1;
                let target = fs.read_link(&node)?;
                if target.first() == Some(&b'/') {
                    way.truncate(1);
                }
                rest.extend(target.rsplit(|b| *b == b'/').map(<[u8]>::to_vec));
            }
            _ => return Ok(Vec::new()),
        }
    }
    Ok(way.last().map(|dir| dir.lowers().to_vec()).unwrap_or_default())
}
