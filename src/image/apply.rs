//! What was written over a directory of the host goes into that directory: a layer's tar, entry by entry, with the caller's own rights.
//!
//! Called by `cli::apply`, which has a helper read the layer. `look` tells what would happen, `patch` shows it, `apply` does it; between them
//! nothing of the layer can change, since no sandbox writes to it, and what the host's side does meanwhile hits one name at most.
//!
//! *Invariants*
//! - I1 nothing is written, removed or looked at but below the handle, and by no link. // L1
//! - I2 a deletion removes what is at one name, never through a link, and nothing that is not meant.
#![forbid(unsafe_code)]

use super::copy::{self, Notes, SET_IDS};
use super::diff::{join, names};
use super::remove;
use super::tar::{Entry, Form, Reader, show};
use super::tree::{Ids, Plain, Tree, c_name as c, split};
use super::whiteout::{self, Mark, mark};
use crate::error::{Doing, Error, Kind, Result};
use crate::sys::path::{Links, handle};
use crate::sys::{self, Errno};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, statat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

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
    /// Where a new symbolic link leads to.
    pub link: Option<Vec<u8>>,
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
            None => self.plan(Change::Added, path.clone(), false),
            Some(stat) if is_same(self.root, entry, &stat)? => {}
            // Other names in it may have come and gone.
            Some(_) if both => self.plan(Change::Changed, path.clone(), false),
            Some(_) => {
                let conflict = changed_since(self.root, &path, self.since)?;
                self.plan(Change::Changed, path.clone(), conflict);
            }
        }
        if let Some(planned) = self.planned.get_mut(&path).filter(|_| entry.form == Form::Symlink) {
            planned.link = Some(entry.link.clone());
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
        self.planned.insert(path.clone(), Planned { change, path, conflict, link: None });
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

/// More of a file is not compared.
const MOST_TEXT: u64 = 1 << 20;
/// Nor for longer: what is left then is one change.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is planned as a patch in git's form. man: git-diff(1), "Generating patch text"
pub fn patch(root: BorrowedFd, source: impl BufRead, planned: &[Planned], out: &mut dyn Write) -> Result<()> {
    for gone in planned.iter().filter(|p| p.change == Change::Deleted) {
        deleted(root, &gone.path, out)?;
    }
    let changed: BTreeSet<&[u8]> = planned.iter().filter(|p| p.change != Change::Deleted).map(|p| p.path.as_slice()).collect();
    let mut reader = Reader::new(source);
    while let Some(entry) = reader.entry().map_err(reword)? {
        if !changed.contains(entry.path.as_slice()) || mark(split(&entry.path).1)? != Mark::None {
            continue;
        }
        // What takes the place of a directory, or the other way round, comes after what goes.
        let there = there(root, &entry.path)?;
        if there.is_some_and(|stat| is_directory(&stat) != (entry.form == Form::Directory)) {
            deleted(root, &entry.path, out)?;
        }
        let new = match entry.form {
            // A further name of another file is not shown again.
            Form::Link => Side { mode: Some(git_mode(entry.mode)), text: None },
            Form::File if entry.extents.is_some() || entry.size > MOST_TEXT => Side { mode: Some(git_mode(entry.mode)), text: None },
            Form::File => {
                let mut text = Vec::new();
                reader.content(&mut |piece| {
                    text.extend_from_slice(piece);
                    Ok(())
                })?;
                Side { mode: Some(git_mode(entry.mode)), text: Some(text) }
            }
            Form::Symlink => Side { mode: Some(LINK), text: Some(entry.link.clone()) },
            _ => continue,
        };
        compared(&entry.path, &Side::of(root, &entry.path)?, &new, out)?;
    }
    Ok(())
}

/// A file, and all files of a directory.
fn deleted(root: BorrowedFd, path: &[u8], out: &mut dyn Write) -> Result<()> {
    match there(root, path)? {
        Some(stat) if is_directory(&stat) => {
            let Some(dir) = directory(root, path)? else { return Ok(()) };
            names(&dir).map_err(|e| failed(path, e))?.iter().try_for_each(|name| deleted(root, &join(path, name), out))
        }
        _ => compared(path, &Side::of(root, path)?, &Side::absent(), out),
    }
}

/// One side of a comparison.
struct Side {
    /// In git's words; None: it is not there.
    mode: Option<&'static str>,
    /// None: it is no text that is compared.
    text: Option<Vec<u8>>,
}

const LINK: &str = "120000";

fn git_mode(mode: u32) -> &'static str {
    if mode & 0o111 == 0 { "100644" } else { "100755" }
}

impl Side {
    fn absent() -> Side {
        Side { mode: None, text: Some(Vec::new()) }
    }

    /// What the host has.
    fn of(root: BorrowedFd, path: &[u8]) -> Result<Side> {
        let (Some(stat), (parent, name)) = (there(root, path)?, split(path)) else { return Ok(Side::absent()) };
        let Some(dir) = directory(root, parent)? else { return Ok(Side::absent()) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(&dir, c(name)?, Vec::new()).map_err(|e| failed(path, e))?;
                Ok(Side { mode: Some(LINK), text: Some(text.into_bytes()) })
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&dir, c(name)?, flags, Mode::empty()).map_err(|e| failed(path, e))?;
                let mut text = Vec::new();
                File::from(file).take(MOST_TEXT + 1).read_to_end(&mut text).doing("read", show(path))?;
                Ok(Side { mode: Some(git_mode(stat.st_mode)), text: (text.len() as u64 <= MOST_TEXT).then_some(text) })
            }
            _ => Ok(Side::absent()),
        }
    }

    fn text(&self) -> Option<&str> {
        self.text.as_deref().filter(|text| !text.contains(&0)).and_then(|text| std::str::from_utf8(text).ok())
    }
}

fn compared(path: &[u8], old: &Side, new: &Side, out: &mut dyn Write) -> Result<()> {
    let (name, mut said) = (show(path), String::new());
    match (old.mode, new.mode) {
        (None, None) => return Ok(()),
        // A link that becomes a file is one that goes, and one that comes.
        (Some(was), Some(is)) if was != is && [was, is].contains(&LINK) => {
            return compared(path, old, &Side::absent(), out).and_then(|()| compared(path, &Side::absent(), new, out));
        }
        (None, Some(mode)) => said += &format!("new file mode {mode}\n"),
        (Some(mode), None) => said += &format!("deleted file mode {mode}\n"),
        (Some(was), Some(is)) if was != is => said += &format!("old mode {was}\nnew mode {is}\n"),
        _ => {}
    }
    let side = |mode: Option<&str>, letter| mode.map_or("/dev/null".to_string(), |_| format!("{letter}/{name}"));
    let (from, to) = (side(old.mode, "a"), side(new.mode, "b"));
    match (old.text(), new.text()) {
        (Some(was), Some(is)) => {
            let diff = similar::TextDiff::configure().timeout(PATIENCE).diff_lines(was, is);
            said += &diff.unified_diff().header(&from, &to).to_string();
        }
        _ if old.text.is_some() && old.text == new.text => {}
        _ => said += &format!("Binary files {from} and {to} differ\n"),
    }
    if said.is_empty() {
        return Ok(()); // owner or times
    }
    write!(out, "diff --git a/{name} b/{name}\n{said}").doing("write", "the patch")
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
                let Some(dir) = directory(root, &path)? else { continue };
                for name in names(&dir).map_err(|e| failed(&path, e))? {
                    let own = join(&path, &name);
                    if wanted(&own) == Meant::Yes {
                        remove::remove(dir.as_fd(), &name).map_err(|e| failed(&own, e))?;
                    }
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
