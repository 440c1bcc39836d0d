//! A layer's tar becomes a directory, a directory goes away: in a helper, since its files belong to subordinate ids and its bytes to anybody.
//!
//! *What*: `begin` gives an `Unpacking` to write the layer to, as it is transported; `finish` says what it was. `adopt` gives directories that
//! no layer named the attributes of those below. `remove` deletes. Called by `store`; `act` is the helpers' side, called by `main`.
//!
//! What was refused leaves a directory that `remove` takes away. The limits are in `tar`, `stream` and `tree`.

use super::owner::{OVERRIDE, Override};
use super::remove as removal;
use super::stream;
use super::tar::{self, Reader, refuse};
use super::tree::{Ids, Tree};
use super::whiteout::{self, Below, Stack};
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::Digest;
use crate::role::{self, Directory, Role, Stage};
use crate::userns::Maps;
use rustix::fs::{Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// No tar is longer.
const LARGEST: u64 = 64 << 30;
/// What stays free on the disk.
const RESERVE: u64 = 16 << 20;

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Give files of ids that we do not have to root, instead of refusing them.
    pub squash_ids: bool,
}

/// A layer on its way into a directory.
pub struct Unpacking(Role);

#[derive(Debug)]
pub struct Unpacked {
    pub diff_id: Digest,
    /// Of the tar itself.
    pub tar_size: u64,
    pub entries: u64,
    /// Directories that the tar did not name, and that something of it is in; `.` is the top.
    pub implicit: Vec<PathBuf>,
    /// So many entries are root's now, since we do not have their ids.
    pub squashed: u64,
    /// What was left out, a line for each kind.
    pub notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Layer {
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
    squash: bool,
    beside: bool,
}

#[derive(Serialize, Deserialize)]
struct Done {
    digest: [u8; 32],
    size: u64,
    entries: u64,
    implicit: Vec<Vec<u8>>,
    squashed: u64,
    notes: Vec<String>,
}

/// `dir` is a new empty directory of ours. Write the layer to what this returns, compressed or not.
pub fn begin(dir: &Path, maps: &Maps, options: &Options) -> Result<Unpacking> {
    let extents = |list: &[crate::tape::step::Extent]| list.iter().map(|e| (e.inside, e.count)).collect();
    let layer = Layer { uids: extents(&maps.uids), gids: extents(&maps.gids), squash: options.squash_ids, beside: !maps.is_full() };
    Ok(Unpacking(role::start("@unpack", maps, &layer, &[Directory::open(dir, true)?])?))
}

impl Write for Unpacking {
    /// An error means that the layer is refused: `finish` tells why.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Unpacking {
    /// All is written. It goes on by itself, and `finish` waits for it.
    pub fn end(&mut self) {
        self.0.input = None;
    }

    /// All is written: what it was.
    pub fn finish(self) -> Result<Unpacked> {
        let missing = self.0.missing.clone();
        let mut done: Done = self.0.finish()?;
        for path in &done.implicit {
            if !path.is_empty() && tar::inside(path)? != *path {
                return Err(Error::new(Kind::Bug, "the helper @unpack answered nonsense"));
            }
        }
        done.notes.extend(missing.into_iter().map(|m| format!("the helper is less confined: {m}")));
        let path = |bytes: Vec<u8>| if bytes.is_empty() { ".".into() } else { PathBuf::from(std::ffi::OsString::from_vec(bytes)) };
        Ok(Unpacked {
            diff_id: Digest::sha256(&done.digest),
            tar_size: done.size,
            entries: done.entries,
            implicit: done.implicit.into_iter().map(path).collect(),
            squashed: done.squashed,
            notes: done.notes,
        })
    }
}

/// Give each of the `implicit` directories in `dir` the owner, mode, extended attributes and time that it has in the layers below, if it is
/// there. `parents` are their directories, lowest first.
pub fn adopt(dir: &Path, implicit: &[PathBuf], parents: &[PathBuf], maps: &Maps) -> Result<()> {
    if implicit.is_empty() || parents.is_empty() {
        return Ok(());
    }
    if parents.len() >= role::MOST_DIRECTORIES {
        return Err(Error::usage(format!("an image may have {} layers", role::MOST_DIRECTORIES - 1)));
    }
    let mut directories = vec![Directory::open(dir, true)?];
    for parent in parents.iter().rev() {
        directories.push(Directory::open(parent, false)?);
    }
    let paths: Vec<&[u8]> = implicit.iter().map(|p| p.as_os_str().as_bytes()).collect();
    role::start("@adopt", maps, &paths, &directories)?.finish()
}

/// Delete these trees, whoever owns what is in them. One that is not there is no error.
pub fn remove(dirs: &[PathBuf], maps: &Maps) -> Result<()> {
    let there = |dir: &&PathBuf| dir.symlink_metadata().is_ok();
    let dirs: Vec<&PathBuf> = dirs.iter().filter(there).collect();
    for batch in dirs.chunks(role::MOST_DIRECTORIES) {
        let directories = batch.iter().map(|dir| Directory::open(dir, true)).collect::<Result<Vec<_>>>()?;
        let failures: Vec<(u32, String)> = role::start("@remove", maps, &(), &directories)?.finish()?;
        if let Some((which, why)) = failures.first() {
            let dir = batch.get(*which as usize).map_or(Path::new("?"), |d| d.as_path());
            return Err(Error::new(Kind::Io, format!("cannot remove {}: {why}", dir.display()))
                .hint("if your subordinate ids have changed, its files are nobody's now: the administrator can remove it"));
        }
        for dir in batch {
            // The helper has no right to the directory that this one is in.
            std::fs::remove_dir(dir).doing("remove", dir.display())?;
        }
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------------- in the helpers

/// The helper that this word names; None: it is none of ours.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    Some(match word.as_bytes() {
        b"@unpack" => role::act(|layer: Layer, stage| grow(layer, stage)),
        b"@adopt" => role::act(|paths: Vec<Vec<u8>>, stage| inherit(&paths, stage)),
        b"@remove" => role::act(|(), stage: Stage| Ok(empty(&stage.directories))),
        _ => return None,
    })
}

fn grow(layer: Layer, stage: Stage) -> Result<Done> {
    let root = first(&stage.directories)?;
    let (most, why) = room(root)?;
    let (stream, hashing) = stream::open(stage.input, most, why)?;
    let ids = Ids { uids: layer.uids, gids: layer.gids, squash: layer.squash, beside: layer.beside && !layer.squash };
    let (entries, grown) = plant(stream, root, ids)?;
    let (digest, size) = hashing.finish()?;
    Ok(Done { digest, size, entries, implicit: grown.implicit, squashed: grown.squashed, notes: grown.notes })
}

/// Every entry of a tar, written below `root`; how many there were.
pub fn plant(source: impl std::io::BufRead, root: BorrowedFd, ids: Ids) -> Result<(u64, super::tree::Grown)> {
    let mut reader = Reader::new(source);
    let mut tree = Tree::new(root, ids)?;
    while let Some(entry) = reader.entry()? {
        tree.put(&entry, &mut reader)?;
    }
    Ok((reader.entries(), tree.finish()?))
}

fn first(directories: &[OwnedFd]) -> Result<BorrowedFd<'_>> {
    directories.first().map(|d| d.as_fd()).ok_or_else(|| Error::usage("this word is for sandbox itself"))
}

/// How long a tar may be here, and what to say of a longer one.
fn room(dir: BorrowedFd) -> Result<(u64, Error)> {
    let fs = rustix::fs::fstatfs(dir).doing("look at", "the file system")?;
    let size = u64::try_from(fs.f_bsize).unwrap_or(4096);
    let reserve = RESERVE.min(fs.f_blocks.saturating_mul(size) / 16);
    let free = fs.f_bavail.saturating_mul(size).saturating_sub(reserve);
    if free < LARGEST {
        let why = Error::new(Kind::Io, "cannot unpack the layer: there is no room for it on the disk").hint("make room: sandbox prune");
        return Ok((free, why));
    }
    Ok((LARGEST, refuse("it is larger than 64 GiB")))
}

fn inherit(paths: &[Vec<u8>], stage: Stage) -> Result<()> {
    let mut directories = stage.directories.into_iter();
    let own = directories.next().ok_or_else(|| Error::usage("this word is for sandbox itself"))?;
    let below = Stack(directories.collect());
    for path in paths {
        let path = tar::inside(path)?;
        let copied = match below.look(&path) {
            Ok(Below::Directory(from)) => {
                let name = CString::new(if path.is_empty() { b".".to_vec() } else { path.clone() }).unwrap_or_default();
                whiteout::open_path(own.as_fd(), &name, crate::sys::path::Links::Refused).and_then(|to| copy_attributes(from.as_fd(), to.as_fd()))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e),
        };
        copied.map_err(std::io::Error::from).doing("describe", tar::show(&path))?;
    }
    Ok(())
}

fn copy_attributes(from: BorrowedFd, to: BorrowedFd) -> crate::sys::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let owner = Override::on(from).map(|owner| (OVERRIDE.to_owned(), owner.text().into_bytes()));
    for (name, value) in whiteout::xattrs(from)?.into_iter().chain(owner) {
        rustix::fs::fsetxattr(to, name.as_c_str(), &value, XattrFlags::empty())?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    rustix::fs::futimens(to, &times)
}

/// Those that could not be emptied, and why.
fn empty(directories: &[OwnedFd]) -> Vec<(u32, String)> {
    let emptied = directories.iter().map(|dir| removal::empty(dir.as_fd()));
    (0..).zip(emptied).filter_map(|(n, done)| done.err().map(|e| (n, crate::error::why(&e.into())))).collect()
}
