//! What was written over a directory of the host goes into that directory: a layer's tar, entry by entry, with the caller's own rights.
//!
//! Called by `cli::apply`, which has a helper read the layer. `look` tells what would happen, `apply` does it; between them nothing of the
//! layer can change, since no sandbox writes to it, and what the host's side does meanwhile hits one name at most.
//!
//! *Invariants*
//! - I1 nothing is written, removed or looked at but below the handle, and by no link. // L1
//! - I2 a deletion removes one name, or what is in one directory, never through a link.
#![forbid(unsafe_code)]

use super::copy::{self, Notes};
use super::diff::{join, names};
use super::remove;
use super::tar::{Entry, Form, Reader, show};
use super::tree::{Ids, Plain, Tree, split};
use super::whiteout::{self, Mark, mark};
use crate::error::{Error, Kind, Result};
use crate::sys::path::{Links, handle};
use crate::sys::{self, Errno};
use rustix::fs::{AtFlags, FileType, Stat, statat};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bits that mean something to the host, of files that a sandbox made.
const SET_IDS: u32 = 0o6000;

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Changed,
    Deleted,
}

/// One thing that would happen, below the directory.
#[derive(Debug)]
pub struct Planned {
    pub change: Change,
    pub path: Vec<u8>,
    /// It was changed on the host since the layer was made.
    pub conflict: bool,
}

/// Is a path of the layer meant?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    Yes,
    /// Something below it is.
    Below,
    No,
}

pub type Wanted<'a> = &'a dyn Fn(&[u8]) -> Meant;

/// What would happen, by path. `since`: when the layer was made, in seconds and nanoseconds.
pub fn look(root: BorrowedFd, source: impl BufRead, wanted: Wanted, since: (i64, i64)) -> Result<Vec<Planned>> {
    let (mut reader, mut plan) = (Reader::new(source), Looking { root, since, planned: BTreeMap::new() });
    while let Some(entry) = reader.entry().map_err(reword)? {
        match step(&entry, wanted)? {
            Some(Step::Put(path)) => plan.put(&entry, path)?,
            Some(Step::Delete(path)) => plan.delete(path)?,
            Some(Step::Empty(path)) => plan.empty(&path)?,
            Some(Step::Pass(_)) | None => {}
        }
    }
    Ok(plan.planned.into_values().collect())
}

struct Looking<'a> {
    root: BorrowedFd<'a>,
    since: (i64, i64),
    planned: BTreeMap<Vec<u8>, Planned>,
}

impl Looking<'_> {
    fn put(&mut self, entry: &Entry, path: Vec<u8>) -> Result<()> {
        let there = there(self.root, &path)?;
        let both = entry.form == Form::Directory && there.is_some_and(|stat| is_directory(&stat));
        // What was taken away comes again: a directory without what is in it.
        if self.planned.remove(&path).is_some() && both {
            self.empty(&path)?;
        }
        match there {
            None => self.plan(Change::Added, path, false),
            Some(stat) if is_same(self.root, entry, &stat)? => {}
            // Other names in it may have come and gone.
            Some(_) if both => self.plan(Change::Changed, path, false),
            Some(_) => {
                let conflict = changed_since(self.root, &path, self.since)?;
                self.plan(Change::Changed, path, conflict);
            }
        }
        Ok(())
    }

    fn delete(&mut self, path: Vec<u8>) -> Result<()> {
        if there(self.root, &path)?.is_some() {
            let conflict = changed_since(self.root, &path, self.since)?;
            self.plan(Change::Deleted, path, conflict);
        }
        Ok(())
    }

    /// What is put there again comes later, and says so.
    fn empty(&mut self, path: &[u8]) -> Result<()> {
        let Some(dir) = directory(self.root, path)? else { return Ok(()) };
        names(&dir).map_err(|e| failed(path, e))?.iter().try_for_each(|name| self.delete(join(path, name)))
    }

    fn plan(&mut self, change: Change, path: Vec<u8>, conflict: bool) {
        self.planned.insert(path.clone(), Planned { change, path, conflict });
    }
}

/// Is what is at a path, or anything below it, of a later time? A directory itself is so by each name that comes or goes in it.
fn changed_since(root: BorrowedFd, path: &[u8], since: (i64, i64)) -> Result<bool> {
    let Some(stat) = there(root, path)? else { return Ok(false) };
    if !is_directory(&stat) {
        return Ok((stat.st_ctime, stat.st_ctime_nsec as i64) > since);
    }
    let Some(dir) = directory(root, path)? else { return Ok(false) };
    for name in names(&dir).map_err(|e| failed(path, e))? {
        if changed_since(root, &join(path, &name), since)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Do it.
pub fn apply(root: BorrowedFd, source: impl BufRead, wanted: Wanted, (uid, gid): (u32, u32)) -> Result<Notes> {
    let mut reader = Reader::new(source);
    let ids = Ids { uids: vec![(uid, 1)], gids: vec![(gid, 1)], squash: true, beside: false };
    let mut tree = Tree::plain(root, ids, Plain { overwrite: true, owner: Some((0, 0)), never: SET_IDS })?;
    while let Some(entry) = reader.entry().map_err(reword)? {
        let Some(step) = step(&entry, wanted)? else { continue };
        match step {
            Step::Delete(path) => {
                let (parent, name) = split(&path);
                if let Some(dir) = directory(root, parent)? {
                    match remove::remove(dir.as_fd(), &c(name)?) {
                        Err(Errno::NOENT) => {}
                        other => other.map_err(|e| failed(&path, e))?,
                    }
                }
            }
            Step::Empty(path) => {
                if let Some(dir) = directory(root, &path)? {
                    remove::empty(dir.as_fd()).map_err(|e| failed(&path, e))?;
                }
            }
            // What lies on the way to what is meant stays as it is.
            Step::Pass(path) if there(root, &path)?.is_some_and(|stat| is_directory(&stat)) => {}
            Step::Put(path) if there(root, &path)?.map(|stat| is_same(root, &entry, &stat)).transpose()? == Some(true) => {}
            Step::Pass(_) | Step::Put(_) => tree.put(&entry, &mut reader).map_err(reword)?,
        }
    }
    tree.finish().map(|grown| grown.notes).map_err(reword)
}

enum Step {
    /// Write the entry.
    Put(Vec<u8>),
    /// A directory on the way to something.
    Pass(Vec<u8>),
    Delete(Vec<u8>),
    /// A directory that hides what is below it.
    Empty(Vec<u8>),
}

/// What an entry of a layer says; None: it is not meant.
fn step(entry: &Entry, wanted: Wanted) -> Result<Option<Step>> {
    let (parent, name) = split(&entry.path);
    let step = match mark(name)? {
        Mark::Opaque => Step::Empty(parent.to_vec()),
        Mark::Aufs => return Ok(None),
        Mark::Gone(name) => Step::Delete(join(parent, &c(name)?)),
        _ if entry.path.is_empty() => return Ok(None), // the directory itself stays as it is
        _ => Step::Put(entry.path.clone()),
    };
    Ok(match step {
        Step::Put(path) => match wanted(&path) {
            Meant::Yes => Some(Step::Put(path)),
            Meant::Below if entry.form == Form::Directory => Some(Step::Pass(path)),
            _ => None,
        },
        Step::Delete(ref path) | Step::Empty(ref path) if wanted(path) != Meant::Yes => None,
        step => Some(step),
    })
}

/// The same as one that was applied before is; of a directory what it says of itself.
fn is_same(root: BorrowedFd, entry: &Entry, stat: &Stat) -> Result<bool> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = entry.mode & !SET_IDS == stat.st_mode & 0o7777;
    Ok(match entry.form {
        Form::Directory => kind == FileType::Directory && mode,
        Form::Fifo => kind == FileType::Fifo && mode,
        Form::File => {
            let times = (stat.st_mtime, stat.st_mtime_nsec as u32) == entry.mtime;
            kind == FileType::RegularFile && mode && times && stat.st_size as u64 == entry.size
        }
        Form::Symlink if kind == FileType::Symlink => {
            let (parent, name) = split(&entry.path);
            let Some(dir) = directory(root, parent)? else { return Ok(false) };
            rustix::fs::readlinkat(&dir, c(name)?, Vec::new()).is_ok_and(|text| text.as_bytes() == entry.link)
        }
        Form::Link => there(root, &entry.link)?.is_some_and(|first| (first.st_dev, first.st_ino) == (stat.st_dev, stat.st_ino)),
        Form::Symlink | Form::Device => false,
    })
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn failed(path: &[u8], e: Errno) -> Error {
    Error::new(Kind::Io, format!("cannot apply '{}': {}", show(path), crate::error::why(&e.into())))
}

/// What is said of layers elsewhere.
fn reword(e: Error) -> Error {
    copy::reworded(e, "cannot apply")
}

fn c(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Error::usage("a NUL in a name"))
}

/// The directory at a path; None: there is none.
fn directory(root: BorrowedFd, path: &[u8]) -> Result<Option<OwnedFd>> {
    let at = if path.is_empty() { c(b".")? } else { c(path)? };
    match handle(root, &at, Links::Refused).and_then(|dir| whiteout::reopen(dir.as_fd())) {
        Ok(dir) if sys::path::is_made_up(dir.as_fd()) => Err(Error::new(Kind::Denied, "cannot apply to the kernel's own files")),
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(failed(path, e)),
    }
}

/// What is at a path, itself.
fn there(root: BorrowedFd, path: &[u8]) -> Result<Option<Stat>> {
    let (parent, name) = split(path);
    let Some(dir) = directory(root, parent)? else { return Ok(None) };
    let name = if name.is_empty() { c(b".")? } else { c(name)? };
    match statat(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(failed(path, e)),
    }
}
