//! A directory as a tar, and what differs between a writable layer and those below it: in a helper, since not all of it is readable to us.
//!
//! *What*: `layer` writes an overlay's upper directory as a layer, `tree` a whole directory, `changes` lists what `docker diff` lists. Called by
//! `commit`, `diff`, `export`, `import`; `act` is the helper's side, called by `main`.
//!
//! The order is that of the names' bytes, a directory before what is in it, its opaque mark first. What an overlay has written for itself
//! (`user.overlay.*`) stays here; redirects and metacopies do not occur, since `userxattr` forbids them. A whiteout or an opaque mark
//! that hides nothing is left out. Sockets are no part of a tree. oci: layer.md
//!
//! A layer may be *live*: somebody hostile writes to it meanwhile. Every name is opened as one component of a handle and never through a link,
//! so what is read is always the layer's, though it may be of several times: that is a note, `Torn`, and no failure.

use super::owner::Override;
use super::pack::Packer;
use super::tar::{self, Entry, Form, show};
use super::whiteout::{self, Below, Stack};
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::Digest;
use crate::role::{self, Directory, Role, Stage};
use crate::sys::{self, Errno};
use crate::userns::Maps;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, statat};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const PIECE: usize = 256 << 10;
/// What the kernel shows for an id without a mapping. man: user_namespaces(7)
const FOREIGN: u32 = 65_534;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum What {
    Layer,
    Tree,
}

/// An overlay's upper directory.
pub struct Upper {
    pub handle: OwnedFd,
    /// Somebody writes to it.
    pub live: bool,
}

impl Upper {
    pub fn open(path: &Path, live: bool) -> Result<Upper> {
        Ok(Upper { handle: Directory::open(path, false)?.handle, live })
    }
}

/// A tar that was written.
pub struct Packed {
    pub digest: Digest,
    pub size: u64,
    /// What is not of one time in it.
    pub torn: Option<String>,
}

/// What an upper directory adds (A), changes (C) and deletes (D), as absolute paths in order; and what is not of one time in that.
pub type Changes = (Vec<(char, PathBuf)>, Option<String>);

/// The upper directory of an overlay over `lowers` (lowest first), as a layer's tar.
pub fn layer(upper: Upper, lowers: &[PathBuf], maps: &Maps, out: &mut dyn Write) -> Result<Packed> {
    packed(What::Layer, upper, lowers, maps, out)
}

/// All of a directory, as the only layer of an image would have it.
pub fn tree(root: &Path, maps: &Maps, out: &mut dyn Write) -> Result<Packed> {
    packed(What::Tree, Upper::open(root, false)?, &[], maps, out)
}

pub fn changes(upper: Upper, lowers: &[PathBuf], maps: &Maps) -> Result<Changes> {
    let live = upper.live;
    let (found, torn): (Vec<(char, Vec<u8>)>, _) = role::start("@changes", maps, &live, &directories(upper, lowers)?)?.finish()?;
    Ok((found.into_iter().map(|(kind, path)| (kind, PathBuf::from(OsString::from_vec(path)))).collect(), torn))
}

/// The handles that a helper gets: the upper directory, then those below it, the nearest first.
pub(super) fn directories(upper: Upper, lowers: &[PathBuf]) -> Result<Vec<Directory>> {
    if lowers.len() >= role::MOST_DIRECTORIES {
        return Err(Error::usage(format!("an image may have {} layers", role::MOST_DIRECTORIES - 1)));
    }
    let upper = Directory { handle: upper.handle, writable: false };
    std::iter::once(Ok(upper)).chain(lowers.iter().rev().map(|dir| Directory::open(dir, false))).collect()
}

/// The same layer, from a helper that is yet to be read; its answer is what is not of one time in it.
pub fn packing(upper: Upper, lowers: &[PathBuf], maps: &Maps) -> Result<Role> {
    packer(What::Layer, upper, lowers, maps)
}

fn packer(form: What, upper: Upper, lowers: &[PathBuf], maps: &Maps) -> Result<Role> {
    let request = (form, upper.live, !maps.is_full());
    role::start("@pack", maps, &request, &directories(upper, lowers)?)
}

fn packed(form: What, upper: Upper, lowers: &[PathBuf], maps: &Maps, out: &mut dyn Write) -> Result<Packed> {
    pour(packer(form, upper, lowers, maps)?, out)
}

/// What a helper writes, to its end.
pub(super) fn pour(mut role: Role, out: &mut dyn Write) -> Result<Packed> {
    let (mut hash, mut size, mut piece) = (sha2::Sha256::new(), 0, vec![0; PIECE]);
    loop {
        match role.read(&mut piece).doing("read", "the layer")? {
            0 => break,
            n => {
                hash.update(&piece[..n]);
                out.write_all(&piece[..n]).doing("write", "the layer")?;
                size += n as u64;
            }
        }
    }
    let torn = role.finish()?;
    Ok(Packed { digest: Digest::sha256(&hash.finalize().into()), size, torn })
}

// -------------------------------------------------------------------------------------------------------- in the helper

/// The helper that this word names; None: it is none of ours.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    Some(match word.as_bytes() {
        b"@pack" => role::act(|(form, live, beside): (What, bool, bool), stage| pack(form, live, beside, stage)),
        b"@changes" => role::act(|live: bool, stage: Stage| {
            let (upper, below) = split(stage.directories)?;
            let mut comparison = Comparison { below, found: Vec::new(), torn: Torn::new(live) };
            comparison.directory(&upper, b"")?;
            Ok((comparison.found, comparison.torn.told()))
        }),
        _ => return None,
    })
}

fn split(mut directories: Vec<OwnedFd>) -> Result<(OwnedFd, Stack)> {
    if directories.is_empty() {
        return Err(Error::usage("this word is for sandbox itself"));
    }
    let upper = whiteout::reopen(directories.remove(0).as_fd()).map_err(|e| failed(b"", e))?;
    Ok((upper, Stack(directories)))
}

fn pack(form: What, live: bool, beside: bool, stage: Stage) -> Result<Option<String>> {
    let (upper, below) = split(stage.directories)?;
    let mut walk = Walk::new(Packer::new(BufWriter::with_capacity(PIECE, stage.output)), below, live);
    walk.beside = beside;
    walk.top(form, &upper)?;
    walk.directory(&upper, b"")?;
    walk.finish()
}

/// man: path_resolution(7)
const LONGEST_LINK: u64 = libc::PATH_MAX as u64;

/// What changed between our looks at it.
pub(super) struct Torn {
    live: bool,
    count: u64,
    first: Vec<u8>,
}

impl Torn {
    pub(super) fn new(live: bool) -> Torn {
        Torn { live, count: 0, first: Vec::new() }
    }

    /// What is at `path` is not as it was a moment ago. Where nobody should write, that is an error.
    pub(super) fn changed(&mut self, path: &[u8]) -> Result<()> {
        if !self.live {
            return Err(Error::new(Kind::Io, format!("cannot pack '{}': it changes while it is read", show(path))));
        }
        if self.count == 0 {
            self.first = path.to_vec();
        }
        self.count += 1;
        Ok(())
    }

    /// What there is of an answer about `path`; None: it went away, or is something else by now.
    pub(super) fn there<T>(&mut self, path: &[u8], answer: sys::Result<T>) -> Result<Option<T>> {
        match answer {
            Ok(t) => Ok(Some(t)),
            // LOOP and NOTDIR: a link, or something else, is where a directory was. INVAL: no link is where one was. ACCESS: not in the
            // layer any more, but in the overlay's own work directory, which Landlock keeps us from.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NXIO | Errno::ACCESS | Errno::STALE) if self.live => {
                self.changed(path).map(|()| None)
            }
            Err(e) => Err(failed(path, e)),
        }
    }

    pub(super) fn told(self) -> Option<String> {
        (self.count > 0).then(|| format!("of what was read, this changed meanwhile: {} times, first '{}'", self.count, show(&self.first)))
    }
}

pub(super) struct Walk<W> {
    pub(super) packer: Packer<W>,
    pub(super) below: Stack,
    /// Files with several names: the first of them.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// What belongs to an id without a mapping is root's.
    pub(super) foreign_is_root: bool,
    /// Who owns what is kept beside the files. // owner.rs
    pub(super) beside: bool,
    pub(super) torn: Torn,
    /// It is no layer that is walked, but a tree in use: names mean themselves, and what the kernel makes up is left out.
    pub(super) plain: bool,
    /// Of devices and sockets.
    pub(super) left_out: u64,
    /// Entries.
    written: u64,
}

impl<W: Write> Walk<W> {
    pub(super) fn new(packer: Packer<W>, below: Stack, live: bool) -> Self {
        Walk {
            packer,
            below,
            linked: HashMap::new(),
            foreign_is_root: false,
            beside: false,
            torn: Torn::new(live),
            plain: false,
            left_out: 0,
            written: 0,
        }
    }

    /// The end of the tar, and what is to be said of it.
    pub(super) fn finish(self) -> Result<Option<String>> {
        self.packer.finish().doing("write", "the tar")?;
        Ok(self.torn.told())
    }

    /// What a file's status says of it.
    pub(super) fn entry(&self, path: &[u8], form: Form, stat: &Stat) -> Entry {
        let own = entry(path, form, stat);
        let id = |id: u32| if self.foreign_is_root && id == FOREIGN { 0 } else { id };
        Entry { uid: id(own.uid), gid: id(own.gid), ..own }
    }

    /// The status of an open file, as it is meant.
    pub(super) fn meant(&self, file: impl AsFd, path: &[u8]) -> Result<Stat> {
        let mut stat = fstat(&file).map_err(|e| failed(path, e))?;
        if let Some(owner) = Override::on(file).filter(|_| self.beside) {
            owner.apply(&mut stat);
        }
        Ok(stat)
    }

    /// The top is an entry where nothing below says the same.
    fn top(&mut self, form: What, upper: &OwnedFd) -> Result<()> {
        let fail = |e| failed(b"", e);
        let own = Entry { xattrs: xattrs(upper.as_fd(), b"")?, ..entry(b"", Form::Directory, &self.meant(upper, b"")?) };
        if form == What::Layer
            && let Below::Directory(below) = self.below.look(b"").map_err(fail)?
        {
            let stat = self.meant(&below, b"")?;
            let same = (own.mode, own.uid, own.gid) == (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid);
            if same && own.xattrs == xattrs(below.as_fd(), b"")? {
                return Ok(());
            }
        }
        self.packer.entry(&own).doing("write", "the layer")
    }

    pub(super) fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        // One that was removed since has not even nothing in it.
        let Some(names) = self.torn.there(path, names(dir))? else { return Ok(()) };
        names.iter().try_for_each(|name| self.one(dir, name, &join(path, name)))
    }

    pub(super) fn one(&mut self, dir: &OwnedFd, name: &CStr, path: &[u8]) -> Result<()> {
        let fail = |e| failed(path, e);
        let Some(stat) = self.torn.there(path, statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))? else { return Ok(()) };
        tar::inside(path)?;
        if !self.plain && name.to_bytes().starts_with(whiteout::PREFIX) {
            return Err(Error::new(Kind::Io, format!("cannot pack '{}': in a layer its name means a deletion", show(path))).hint("rename it"));
        }
        let form = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Form::File,
            FileType::Directory => Form::Directory,
            FileType::Symlink => Form::Symlink,
            FileType::Fifo => Form::Fifo,
            FileType::CharacterDevice if !self.plain && whiteout::is_whiteout(&stat) => return self.gone(path, name),
            _ => {
                self.left_out += 1;
                return Ok(());
            }
        };
        let mut own = self.entry(path, form, &stat);
        if form == Form::Directory {
            let Some(inner) = self.torn.there(path, whiteout::open_dir(dir.as_fd(), name))? else { return Ok(()) };
            // Of the one that is open, as for files below.
            own = Entry { xattrs: xattrs(inner.as_fd(), path)?, ..self.entry(path, form, &self.meant(&inner, path)?) };
            self.write(&own)?;
            if self.plain {
                return if sys::path::is_made_up(inner.as_fd()) { Ok(()) } else { self.directory(&inner, path) };
            }
            if whiteout::is_opaque(inner.as_fd()).map_err(fail)? && matches!(self.below.look(path).map_err(fail)?, Below::Directory(_)) {
                self.write(&mark(&[path, b"/", whiteout::OPAQUE].concat()))?;
            }
            return self.directory(&inner, path);
        }
        if let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)).filter(|_| stat.st_nlink > 1) {
            own = Entry { form: Form::Link, link: first.clone(), ..own };
            return self.write(&own);
        }
        match form {
            Form::Symlink => {
                let Some(link) = self.torn.there(path, rustix::fs::readlinkat(dir, name, Vec::new()))? else { return Ok(()) };
                own.link = link.into_bytes();
            }
            Form::File => return self.file(dir, name, path),
            _ => {}
        }
        self.linked(&stat, path);
        self.write(&own)
    }

    /// A later name of it is a link to this one.
    fn linked(&mut self, stat: &Stat, path: &[u8]) {
        if stat.st_nlink > 1 {
            self.linked.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
    }

    pub(super) fn file(&mut self, dir: &OwnedFd, name: &CStr, path: &[u8]) -> Result<()> {
        // Something else may have its name by now; that must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(file) = self.torn.there(path, rustix::fs::openat(dir, name, flags, Mode::empty()))? else { return Ok(()) };
        let stat = fstat(&file).map_err(|e| failed(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.torn.changed(path);
        }
        // Of the file that is open, all of it: the content of one must not come with the mode of another.
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let stat = self.meant(&file, path)?;
        let form = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Form::File,
            FileType::Symlink => Form::Symlink,
            FileType::Fifo => Form::Fifo,
            _ => {
                self.left_out += 1;
                return Ok(());
            }
        };
        if form != Form::File {
            let mut link = Vec::new();
            File::from(file).take(LONGEST_LINK).read_to_end(&mut link).doing("read", format!("'{}'", show(path)))?;
            self.linked(&stat, path);
            return self.write(&Entry { link, ..self.entry(path, form, &stat) });
        }
        let own = Entry { size, xattrs: xattrs(file.as_fd(), path)?, ..self.entry(path, Form::File, &stat) };
        self.linked(&stat, path);
        self.write(&own)?;
        let (mut file, mut left, mut piece) = (File::from(file), own.size, vec![0; PIECE.min(own.size as usize)]);
        let mut ended = false;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut n = if ended { most } else { file.read(&mut piece[..most]).doing("read", format!("'{}'", show(path)))? };
            if n == 0 {
                // Shorter than it was: its length is said already, so the rest is zeros.
                self.torn.changed(path)?;
                piece.fill(0);
                (n, ended) = (most, true);
            }
            self.packer.content(&piece[..n]).doing("write", "the layer")?;
            left -= n as u64;
        }
        self.packer.padding(own.size).doing("write", "the layer")
    }

    fn gone(&mut self, path: &[u8], name: &CStr) -> Result<()> {
        if matches!(self.below.look(path).map_err(|e| failed(path, e))?, Below::Absent) {
            return Ok(());
        }
        let parent = &path[..path.len() - name.count_bytes()];
        self.write(&mark(&[parent, whiteout::PREFIX, name.to_bytes()].concat()))
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn write(&mut self, entry: &Entry) -> Result<()> {
        self.written += 1;
        self.packer.entry(entry).doing("write", "the layer")
    }
}

/// A whiteout or an opaque mark: an empty file of no time.
pub(super) fn mark(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        form: Form::File,
        link: Vec::new(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size: 0,
        extents: None,
        xattrs: Vec::new(),
    }
}

fn entry(path: &[u8], form: Form, stat: &Stat) -> Entry {
    let mtime = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    Entry { form, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, ..mark(path) }
}

pub(super) fn xattrs(fd: BorrowedFd, path: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let found = whiteout::xattrs(fd).map_err(|e| failed(path, e))?;
    Ok(found.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect())
}

/// What is in a directory, in the order of its bytes.
pub(super) fn names(dir: &OwnedFd) -> crate::sys::Result<Vec<CString>> {
    let mut found = Vec::new();
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push(name.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn join(path: &[u8], name: &CStr) -> Vec<u8> {
    if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() }
}

/// What an upper directory does to those below it.
struct Comparison {
    below: Stack,
    found: Vec<(char, Vec<u8>)>,
    torn: Torn,
}

impl Comparison {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        let fail = |e| failed(path, e);
        let Some(own) = self.torn.there(path, names(dir))? else { return Ok(()) };
        let mut all: BTreeSet<CString> = own.into_iter().collect();
        // What an opaque directory hides is deleted, though no mark of its own says so.
        if !path.is_empty() && whiteout::is_opaque(dir.as_fd()).map_err(fail)? {
            for layer in self.below.directories(path).map_err(fail)? {
                all.extend(names(&layer).map_err(fail)?);
            }
        }
        for name in all {
            let path = join(path, &name);
            let fail = |e| failed(&path, e);
            tar::inside(&path)?;
            let before = !matches!(self.below.look(&path).map_err(fail)?, Below::Absent);
            let stat = match statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !whiteout::is_whiteout(&stat) => Some(stat),
                Ok(_) | Err(Errno::NOENT) => None,
                Err(e) => {
                    self.torn.there::<()>(&path, Err(e))?;
                    continue;
                }
            };
            let shown = [b"/", path.as_slice()].concat();
            match (before, &stat) {
                (true, None) => self.found.push(('D', shown)),
                (false, None) => {}
                (true, Some(_)) => self.found.push(('C', shown)),
                (false, Some(_)) => self.found.push(('A', shown)),
            }
            if stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
                && let Some(inner) = self.torn.there(&path, whiteout::open_dir(dir.as_fd(), &name))?
            {
                self.directory(&inner, &path)?;
            }
        }
        Ok(())
    }
}

pub(super) fn failed(path: &[u8], e: Errno) -> Error {
    Error::new(Kind::Io, format!("cannot pack '{}': {}", show(path), crate::error::why(&e.into())))
}
