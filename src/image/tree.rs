//! The directory that a layer becomes: entries of a tar written below one handle.
//!
//! Called by `unpack` and `copy` in their helpers. Never uses a path but to open a directory below the top, links seen from there (openat2(2)); everything
//! else is one component in such a directory, made exclusively, and described by its own descriptor. So whatever an archive says, or
//! somebody does to the directory meanwhile, nothing outside is touched. // L1; cve: 2014-9356, 2021-32760, 2025-47290, 2026-33056
//!
//! What docker does where the order of entries matters is done here: what comes later wins, a directory over a directory keeps its content,
//! a link on the way to a name is followed inside the tree. Attributes of directories are set at the end, when nothing changes their times.

use super::owner::{OVERRIDE, Override};
use super::remove;
use super::tar::{BLOCK, Entry, Form, Reader, refuse, show};
use super::whiteout::{self, Mark, mark, open_dir, open_path};
use crate::error::{Error, Kind, Result};
use crate::sys::path::Links;
use crate::sys::{self, Errno};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fstat, statat};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// How many directories are kept open.
const OPEN: usize = 256;
/// What is remembered of directories until the end, in bytes.
const REMEMBERED: usize = 64 << 20;
/// A piece of this size that is all zero is left out: a hole.
const HOLE: usize = 4096;
/// A file of this size begins its way to the disk at once; smaller ones are too many, and together hold little.
const FLUSH: u64 = 64 << 10;

/// Which ids there are in the user namespace: first and how many.
#[derive(Debug, Clone)]
pub struct Ids {
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
    /// Others become 0; or they are refused.
    pub squash: bool,
    /// Others are kept beside the file. // owner.rs
    pub beside: bool,
}

#[derive(Clone)]
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: (i64, u32),
    xattrs: Vec<(CString, Vec<u8>)>,
}

struct Dir {
    fd: OwnedFd,
    inode: Inode,
}

/// Device and number.
type Inode = (u64, u64);

/// For a copy into a directory that is in use, and no layer: names mean themselves, a link on the way is refused, and directories that were
/// there and are not named stay as they are.
#[derive(Debug, Clone)]
pub struct Plain {
    /// A directory may take the place of something else, and something else that of a directory.
    pub overwrite: bool,
    /// Whose everything is, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// These bits are left out.
    pub never: u32,
}

/// A directory that we made, for the end.
struct Made {
    path: Vec<u8>,
    /// None: nothing named it, something was in it.
    attributes: Option<Attributes>,
}

pub struct Tree {
    root: Rc<Dir>,
    ids: Ids,
    plain: Option<Plain>,
    open: HashMap<Vec<u8>, Rc<Dir>>,
    made: HashMap<Inode, Made>,
    remembered: usize,
    squashed: u64,
    /// What was left out: how often, and where first.
    notes: BTreeMap<&'static str, (u64, String)>,
}

/// What came of it.
pub struct Grown {
    /// Directories that nothing named.
    pub implicit: Vec<Vec<u8>>,
    /// Entries that were given to root, since their ids are not ours.
    pub squashed: u64,
    pub notes: Vec<String>,
}

impl Tree {
    /// `root` is a new empty directory.
    pub fn new(root: BorrowedFd, ids: Ids) -> Result<Tree> {
        let fd = whiteout::reopen(root).map_err(|e| failed(b".", e))?;
        let inode = inode(&fd, b".")?;
        let made = HashMap::from([(inode, Made { path: Vec::new(), attributes: None })]);
        let root = Rc::new(Dir { fd, inode });
        Ok(Tree { root, ids, plain: None, open: HashMap::new(), made, remembered: 0, squashed: 0, notes: BTreeMap::new() })
    }

    /// `root` is in use, also by others.
    pub fn plain(root: BorrowedFd, ids: Ids, plain: Plain) -> Result<Tree> {
        Ok(Tree { plain: Some(plain), made: HashMap::new(), ..Tree::new(root, ids)? })
    }

    fn note(&mut self, what: &'static str, path: &[u8]) {
        self.notes.entry(what).or_insert_with(|| (0, show(path))).0 += 1;
    }

    /// Write one entry, with its content from `reader`.
    pub fn put<R: BufRead>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let attributes = self.attributes(entry)?;
        if entry.path.is_empty() {
            if entry.form != Form::Directory {
                return Err(refuse("its top is no directory"));
            }
            return self.remember(self.root.inode, Vec::new(), Some(attributes));
        }
        let (parent, name) = split(&entry.path);
        if self.plain.is_none() && self.is_mark(entry, parent, name)? {
            return Ok(());
        }
        if entry.form == Form::Device {
            self.note("device nodes are left out", &entry.path);
            return Ok(());
        }
        let dir = self.dir(parent)?;
        let name = c_name(name)?;
        let fail = |e| failed(&entry.path, e);
        match entry.form {
            Form::Directory => self.directory(&dir, &name, &entry.path, Some(attributes)).map(drop),
            Form::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = self
                    .instead(&dir, &name, |dir, name| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(attributes.mode)))
                    .map_err(fail)?;
                write(&file, entry, reader)?;
                if entry.size >= FLUSH {
                    // Where it cannot be, the disk has more to do at the end.
                    let _ = sys::disk::start_writing(file.as_fd(), 0, 0);
                }
                self.describe(file.as_fd(), &attributes, &entry.path, false)
            }
            Form::Symlink => {
                let text = c_name(&entry.link)?;
                self.instead(&dir, &name, |dir, name| rustix::fs::symlinkat(text.as_c_str(), dir, name)).map_err(fail)?;
                if !attributes.xattrs.is_empty() {
                    self.note("extended attributes of links are left out", &entry.path);
                }
                named(&dir, &name, &attributes).map_err(fail)
            }
            Form::Fifo => {
                let mode = Mode::from_raw_mode(attributes.mode);
                self.instead(&dir, &name, |dir, name| rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0)).map_err(fail)?;
                named(&dir, &name, &attributes).map_err(fail)
            }
            Form::Link => self.link(&dir, &name, entry),
            Form::Device => Ok(()),
        }
    }

    /// It is no entry, but says something about the layers below; done.
    fn is_mark(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<bool> {
        let mut above = parent.split(|b| *b == b'/');
        if parent.starts_with(whiteout::AUFS) {
            return Ok(true);
        }
        if above.any(|c| c.starts_with(whiteout::PREFIX)) {
            return Err(refuse(format!("'{}' is in a whiteout", show(&entry.path))));
        }
        match mark(name)? {
            Mark::None => {}
            Mark::Aufs => return Ok(true),
            marked => {
                if !matches!(entry.form, Form::File | Form::Link) || entry.size != 0 {
                    return Err(refuse(format!("'{}' is a whiteout with content", show(&entry.path))));
                }
                self.white_out(entry, parent, marked)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A hard link, to what is in this layer. Its target has been described already, where it came first.
    fn link(&mut self, dir: &Dir, name: &CStr, entry: &Entry) -> Result<()> {
        let fail = |e| failed(&entry.path, e);
        let nowhere = || {
            refuse(format!("'{}' is a hard link to '{}', which is not in this layer", show(&entry.path), show(&entry.link)))
                .hint("whoever made the layer has to put both names into it")
        };
        let (parent, target) = split(&entry.link);
        let (from, target) = (self.dir_of(parent)?.ok_or_else(nowhere)?, c_name(target)?);
        let there = match statat(&from.fd, target.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if whiteout::is_whiteout(&stat) => return Err(nowhere()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(refuse(format!("'{}' is a hard link to a directory", show(&entry.path))));
            }
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(nowhere()),
            Err(e) => return Err(fail(e)),
        };
        // A name that is linked to itself stays.
        if let Ok(here) = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            && (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        // The directory of the target may be what is in the way; then the target goes with it.
        self.instead(dir, name, |dir, name| rustix::fs::linkat(&from.fd, target.as_c_str(), dir, name, AtFlags::empty())).map_err(fail)
    }

    fn white_out(&mut self, entry: &Entry, parent: &[u8], marked: Mark) -> Result<()> {
        let fail = |e| failed(&entry.path, e);
        let dir = self.dir(parent)?;
        let Mark::Gone(name) = marked else {
            if dir.inode == self.root.inode {
                return Err(refuse("it hides all layers below, which an overlay cannot do at the top"));
            }
            return whiteout::hide_below(dir.fd.as_fd()).map_err(fail);
        };
        let name = c_name(name)?;
        match statat(&dir.fd, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => whiteout::cover(dir.fd.as_fd(), &name).map_err(fail),
            Err(e) => Err(fail(e)),
            // Of this layer: a mark is about those below. oci: layer.md#whiteouts
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                open_dir(dir.fd.as_fd(), &name).and_then(|d| whiteout::hide_below(d.as_fd())).map_err(fail)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Make something by name; what has the name already goes.
    fn instead<T>(&mut self, dir: &Dir, name: &CStr, make: impl Fn(BorrowedFd, &CStr) -> sys::Result<T>) -> sys::Result<T> {
        for _ in 0..16 {
            match make(dir.fd.as_fd(), name) {
                Err(Errno::EXIST) => {
                    // Whoever may not take a directory's place unlinks, which no directory suffers.
                    let gone = match &self.plain {
                        Some(plain) if !plain.overwrite => rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()),
                        _ => remove::remove(dir.fd.as_fd(), name),
                    };
                    match gone {
                        Err(Errno::NOENT) => {}
                        other => other?,
                    }
                    self.open.clear(); // a name may lead elsewhere now
                }
                other => return other,
            }
        }
        Err(Errno::EXIST) // somebody works against us
    }

    /// A directory by name in `dir`: it is there, or made.
    fn directory(&mut self, dir: &Dir, name: &CStr, path: &[u8], attributes: Option<Attributes>) -> Result<Rc<Dir>> {
        let fail = |e| failed(path, e);
        // Open to us alone until the end.
        let make = |dir: BorrowedFd, name: &CStr| rustix::fs::mkdirat(dir, name, Mode::RWXU);
        let covered = match make(dir.fd.as_fd(), name) {
            Ok(()) => false,
            Err(Errno::EXIST) => {
                let stat = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => false,
                    _ if self.plain.as_ref().is_some_and(|p| !p.overwrite) => {
                        return Err(refuse(format!("'{}' is there and no directory", show(path))).hint("--overwrite puts the directory in its place"));
                    }
                    _ if attributes.is_none() && !whiteout::is_whiteout(&stat) => {
                        return Err(refuse(format!("'{}' is no directory, and something is to be in it", show(path))));
                    }
                    _ => {
                        self.instead(dir, name, make).map_err(fail)?;
                        self.plain.is_none() && whiteout::is_whiteout(&stat)
                    }
                }
            }
            Err(e) => return Err(fail(e)),
        };
        let fd = open_dir(dir.fd.as_fd(), name).map_err(fail)?;
        if covered {
            // Gone below, and new here.
            whiteout::hide_below(fd.as_fd()).map_err(fail)?;
        }
        let inode = inode(&fd, path)?;
        // The way may have led through a link; the end needs the real name.
        let above = self.made.get(&dir.inode).map_or(&[][..], |m| &m.path);
        let real = if self.plain.is_some() {
            path.to_vec()
        } else if above.is_empty() {
            name.to_bytes().to_vec()
        } else {
            [above, b"/", name.to_bytes()].concat()
        };
        if attributes.is_some() || self.made.get(&inode).is_none_or(|m| m.path != real) {
            self.remember(inode, real, attributes)?;
        }
        let made = Rc::new(Dir { fd, inode });
        self.keep_open(path, &made);
        Ok(made)
    }

    fn keep_open(&mut self, path: &[u8], dir: &Rc<Dir>) {
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), dir.clone());
    }

    fn remember(&mut self, inode: Inode, path: Vec<u8>, attributes: Option<Attributes>) -> Result<()> {
        let xattrs: usize = attributes.iter().flat_map(|a| &a.xattrs).map(|(name, value)| name.count_bytes() + value.len()).sum();
        self.remembered += path.len() + xattrs + 128;
        if self.remembered > REMEMBERED {
            return Err(refuse("it has too many directories"));
        }
        self.made.insert(inode, Made { path, attributes });
        Ok(())
    }

    /// The directory that a path leads to, links seen from the top; what is missing is made.
    fn dir(&mut self, path: &[u8]) -> Result<Rc<Dir>> {
        if let Some(dir) = self.dir_of(path)? {
            return Ok(dir);
        }
        let (parent, name) = split(path);
        let above = self.dir(parent)?;
        self.directory(&above, &c_name(name)?, path, None)
    }

    /// The same, if all of it is there.
    fn dir_of(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some(dir) = self.open.get(path) {
            return Ok(Some(dir.clone()));
        }
        let fail = |e| failed(path, e);
        let links = if self.plain.is_some() { Links::Refused } else { Links::Inside };
        let fd = match open_path(self.root.fd.as_fd(), &c_name(path)?, links) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::LOOP) if self.plain.is_some() => return Err(refuse(format!("a link is on the way to '{}'", show(path)))),
            Err(Errno::LOOP) => return Err(refuse(format!("'{}' is a loop of links", show(path)))),
            Err(e) => return Err(fail(e)),
        };
        if self.plain.is_some() && sys::path::is_made_up(fd.as_fd()) {
            return Err(refuse(format!("'{}' is the kernel's own", show(path))));
        }
        let dir = Rc::new(Dir { inode: inode(&fd, path)?, fd });
        self.keep_open(path, &dir);
        Ok(Some(dir))
    }

    fn attributes(&mut self, entry: &Entry) -> Result<Attributes> {
        let mut xattrs = Vec::new();
        for (name, value) in &entry.xattrs {
            if whiteout::keep(name) {
                xattrs.push((c_name(name)?, value.clone()));
            } else {
                self.note("extended attributes that are not the tree's own are left out", &entry.path);
            }
        }
        if let Some(Plain { owner: Some((uid, gid)), never, .. }) = self.plain {
            return Ok(Attributes { uid, gid, mode: entry.mode & !never, mtime: entry.mtime, xattrs });
        }
        if self.ids.beside && !(has(entry.uid, &self.ids.uids) && has(entry.gid, &self.ids.gids)) {
            if !matches!(entry.form, Form::File | Form::Directory) {
                self.note("links and pipes of ids that you do not have became root's", &entry.path);
            }
            let theirs = Override { uid: entry.uid, gid: entry.gid, mode: entry.mode & 0o7777, kind: None };
            xattrs.push((OVERRIDE.to_owned(), theirs.text().into_bytes()));
            // On disk it is ours: we must get at it, and it must not run as us.
            let mode = entry.mode & 0o777 | if entry.form == Form::Directory { 0o700 } else { 0o600 };
            return Ok(Attributes { uid: 0, gid: 0, mode, mtime: entry.mtime, xattrs });
        }
        let uid = id(entry.uid, &self.ids.uids, self.ids.squash, "uid", &entry.path)?;
        let gid = id(entry.gid, &self.ids.gids, self.ids.squash, "gid", &entry.path)?;
        if (uid, gid) != (entry.uid, entry.gid) {
            self.squashed += 1;
            self.note("ids that you do not have became root's", &entry.path);
        }
        let mode = entry.mode & !self.plain.as_ref().map_or(0, |p| p.never);
        Ok(Attributes { uid, gid, mode, mtime: entry.mtime, xattrs })
    }

    /// Owner, mode, extended attributes and time, in this order: the first takes from the others.
    fn describe(&mut self, fd: BorrowedFd, a: &Attributes, path: &[u8], mode: bool) -> Result<()> {
        let fail = |e| failed(path, e);
        if (a.uid, a.gid) != (0, 0) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(a.uid)), Some(Gid::from_raw(a.gid))).map_err(fail)?;
        }
        if mode || a.mode & 0o6000 != 0 {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(a.mode)).map_err(fail)?;
        }
        for (name, value) in &a.xattrs {
            match rustix::fs::fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL) => {
                    self.note("extended attributes that the file system or the kernel refuses are left out", path);
                }
                Err(e) => return Err(fail(e)),
            }
        }
        rustix::fs::futimens(fd, &times(a)).map_err(fail)
    }

    /// Nothing more comes: the attributes of the directories.
    pub fn finish(mut self) -> Result<Grown> {
        let mut made: Vec<(Inode, Made)> = std::mem::take(&mut self.made).into_iter().collect();
        made.sort_by(|(_, a), (_, b)| a.path.cmp(&b.path));
        let mut implicit = Vec::new();
        let owner = self.plain.as_ref().and_then(|p| p.owner).unwrap_or((0, 0));
        for (known, Made { path, attributes }) in made {
            let fd = if path.is_empty() {
                whiteout::reopen(self.root.fd.as_fd())
            } else {
                open_path(self.root.fd.as_fd(), &c_name(&path)?, Links::Refused)
            };
            let fd = match fd {
                Ok(fd) => fd,
                // It was replaced.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(failed(&path, e)),
            };
            if inode(&fd, &path)? != known {
                continue;
            }
            let attributes = attributes.unwrap_or_else(|| {
                implicit.push(path.clone());
                let mtime = if self.plain.is_some() { (0, UTIME_OMIT as u32) } else { (0, 0) };
                Attributes { uid: owner.0, gid: owner.1, mode: 0o755, mtime, xattrs: Vec::new() }
            });
            self.describe(fd.as_fd(), &attributes, &path, true)?;
        }
        let notes = self.notes.into_iter().map(|(what, (count, first))| format!("{what}: {count}, the first at '{first}'")).collect();
        Ok(Grown { implicit, squashed: self.squashed, notes })
    }
}

fn inode(fd: &OwnedFd, path: &[u8]) -> Result<Inode> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|e| failed(path, e))
}

pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

pub(super) fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| refuse("a name with a NUL"))
}

fn times(a: &Attributes) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: a.mtime.0, tv_nsec: a.mtime.1.into() },
    }
}

/// Owner and time of what has no descriptor of its own.
fn named(dir: &Dir, name: &CStr, a: &Attributes) -> sys::Result<()> {
    if (a.uid, a.gid) != (0, 0) {
        sys::path::chown(dir.fd.as_fd(), name, a.uid, a.gid)?;
    }
    rustix::fs::utimensat(&dir.fd, name, &times(a), AtFlags::SYMLINK_NOFOLLOW)
}

fn has(id: u32, ranges: &[(u32, u32)]) -> bool {
    ranges.iter().any(|(first, count)| id >= *first && id - *first < *count)
}

fn id(id: u32, ranges: &[(u32, u32)], squash: bool, kind: &str, path: &[u8]) -> Result<u32> {
    if has(id, ranges) {
        return Ok(id);
    }
    if squash {
        return Ok(0);
    }
    let have: u64 = ranges.iter().map(|(_, count)| u64::from(*count)).sum();
    let ids = if have == 1 { "id" } else { "ids" };
    Err(Error::new(Kind::Denied, format!("cannot unpack the layer: '{}' belongs to the {kind} {id}, and you have {have} {ids}", show(path)))
        .hint(format!("give all such files to root: --squash-ids; or have more ids: 'sandbox doctor' tells how to add them to /etc/sub{kind}")))
}

fn failed(path: &[u8], e: Errno) -> Error {
    let error = Error::new(Kind::Io, format!("cannot unpack '{}': {}", show(path), crate::error::why(&e.into())));
    match e {
        Errno::NOSPC | Errno::DQUOT => error.hint(crate::error::MAKE_ROOM),
        Errno::OPNOTSUPP => error.hint("layers need a file system with user.* attributes: ext4, xfs, btrfs, or tmpfs since Linux 6.6"),
        _ => error,
    }
}

/// The content of a file, with holes where it is zero.
fn write<R: BufRead>(file: &OwnedFd, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
    let whole = [(0, entry.size)];
    let mut extents = entry.extents.as_deref().unwrap_or(&whole).iter().copied();
    let (mut offset, mut left) = (0, 0);
    let mut end = 0;
    reader.content(&mut |mut piece| {
        while !piece.is_empty() {
            while left == 0 {
                (offset, left) = extents.next().ok_or_else(|| refuse("a sparse file with too much content"))?;
            }
            let (now, later) = piece.split_at(piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            write_at(file, now, offset, &mut end).map_err(|e| failed(&entry.path, e))?;
            offset += now.len() as u64;
            left -= now.len() as u64;
            piece = later;
        }
        Ok(())
    })?;
    if end != entry.size {
        rustix::fs::ftruncate(file, entry.size).map_err(|e| failed(&entry.path, e))?;
    }
    Ok(())
}

/// Write what is not zero; `end` is where the file ends then.
fn write_at(file: &OwnedFd, bytes: &[u8], offset: u64, end: &mut u64) -> sys::Result<()> {
    let mut put = |from: usize, to: usize| -> sys::Result<()> {
        let mut at = from;
        while at < to {
            match rustix::io::pwrite(file, &bytes[at..to], offset + at as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(n) => at += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        *end = offset + to as u64;
        Ok(())
    };
    // From one multiple of HOLE to the next.
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        let to = bytes.len().min(at + HOLE - ((offset + at as u64) % HOLE as u64) as usize);
        if to - at == HOLE && bytes[at..to].iter().all(|b| *b == 0) {
            if from < at {
                put(from, at)?;
            }
            from = to;
        }
        at = to;
    }
    if from < at { put(from, at) } else { Ok(()) }
}

const _: () = assert!(HOLE.is_multiple_of(BLOCK));
