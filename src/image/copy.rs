//! Files between trees, as `docker cp` does it: from below one handle into a tar, and from a tar below another.
//!
//! *What*: `Taking` and `Putting` do that in a helper each, for a tree that is not trusted; `take` and `put` are the work itself, which the
//! caller does with his own rights in his own tree. Called by `container::copy`; `act` is the helpers' side, called by `main`.
//!
//! *Why this way*: the tree may be that of a sandbox that runs, whose workload exchanges what it likes while we look. So nothing is a path but
//! what the user wrote, and that is resolved once, links seen from the top of the tree (openat2(2)); from there on all is one component in a
//! directory that we hold. Whatever is exchanged, the answer is from inside that tree. (Rejected: to stop the sandbox meanwhile, which
//! needs a cgroup, and does not stop who shares a volume; chroot(2), which resolves links as the caller sees them once it is left.)
//!
//! *Invariants*
//! - I1 no file is opened and none is written but below the handle, and none of what the kernel makes up. // L1; cve: 2018-15664, 2019-10152
//! - I2 no program and no library of the tree is used. // L7; cve: 2019-14271
//! - I3 modes, owners and times are set on what was made, by descriptor. // cve: 2021-41089
#![forbid(unsafe_code)]

use super::diff::{Walk, failed};
use super::pack::Packer;
use super::tar::{self, Entry, Form, Reader, show};
use super::tree::{self, Ids, Plain, Tree};
use super::whiteout;
use crate::error::{Doing, Error, Kind, Result};
use crate::role::{self, Directory, Needs, Role, Stage, USUAL};
use crate::sys::path::{Links, handle};
use crate::sys::{self, Errno};
use crate::userns::Maps;
use rustix::fs::{AtFlags, FileType, Stat, statat};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsStr};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

const PIECE: usize = 256 << 10;
/// Bits that mean something to the host, of files that are nobody's we know.
pub const SET_IDS: u32 = 0o6000;
/// man: path_resolution(7)
const MOST_LINKS: u32 = 40;

/// A path as it was typed, below the top of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Components with single slashes, without `.` and `..`; empty: the top.
    path: Vec<u8>,
    /// It ended with a slash: it is a directory.
    slash: bool,
    /// It ended with `/.`: what is in it is meant.
    content: bool,
}

impl Path {
    pub fn new(word: &OsStr) -> Result<Path> {
        let bytes = word.as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(Error::usage("bad path: it is empty, or holds a NUL"));
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()), // as docker: by name
                name => components.push(name),
            }
        }
        let content = bytes == b"." || bytes.ends_with(b"/.");
        Ok(Path { path: components.join(&b'/'), slash: bytes.ends_with(b"/"), content })
    }

    fn shown(&self) -> String {
        format!("/{}", show(&self.path))
    }

    fn name(&self) -> &[u8] {
        tree::split(&self.path).1
    }
}

/// What is to be copied out of a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Take {
    pub path: Path,
    /// A link at the end of the path stands for what it leads to.
    pub follow: bool,
    /// The tar is for somebody else: its entries have the path's last name. Otherwise a directory is the tar's top.
    pub named: bool,
}

/// How a tar is copied into a tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Put {
    pub path: Path,
    pub what: What,
    pub overwrite: bool,
    /// Whose everything is; None: as the tar says.
    pub owner: Option<(u32, u32)>,
    /// Ids that there are, first and how many.
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
    /// Bits of modes that are left out.
    pub never: u32,
}

/// What a tar is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum What {
    /// What `take` makes of a path with this last name; of a directory perhaps only its content.
    Copy { name: Vec<u8>, content: bool },
    /// Somebody's own, for a directory.
    Archive,
}

impl What {
    pub fn of(path: &Path) -> What {
        What::Copy { name: path.name().to_vec(), content: path.content || path.path.is_empty() }
    }
}

/// Sentences for the user.
pub type Notes = Vec<String>;

/// A helper that takes.
pub struct Taking(Role);

impl Taking {
    /// `within`: the user namespace that may look into the tree, if not all may.
    pub fn start(root: OwnedFd, maps: &Maps, within: Option<BorrowedFd>, take: &Take) -> Result<Taking> {
        role::start_with("@take", maps, take, &[Directory { handle: root, writable: false }], &Needs { within, ..USUAL }).map(Taking)
    }

    /// Its notes come after those of who reads.
    pub fn read_by(self, put: impl FnOnce(&mut Role) -> Result<Notes>) -> Result<Notes> {
        self.0.read_by(put).map(|(notes, more): (Notes, Notes)| [notes, more].concat())
    }

    pub fn finish(self) -> Result<Notes> {
        self.0.finish()
    }
}

/// The tar.
impl Read for Taking {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

/// A helper that puts. Write the tar to it; an error means that it takes no more, and `finish` tells why.
pub struct Putting(Role);

impl Putting {
    pub fn start(root: OwnedFd, maps: &Maps, within: Option<BorrowedFd>, put: &Put) -> Result<Putting> {
        role::start_with("@put", maps, put, &[Directory { handle: root, writable: true }], &Needs { within, ..USUAL }).map(Putting)
    }

    pub fn finish(self) -> Result<Notes> {
        self.0.finish()
    }
}

impl Write for Putting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// ------------------------------------------------------------------------------------------------------------- the work

/// The helper that this word names; None: it is none of ours.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    let root = |directories: &[OwnedFd]| {
        directories.first().ok_or_else(|| Error::usage("this word is for sandbox itself"))?.try_clone().doing("copy", "a descriptor")
    };
    Some(match word.as_bytes() {
        b"@take" => role::act(|request: Take, stage: Stage| take(root(&stage.directories)?.as_fd(), &request, stage.output, true)),
        b"@put" => {
            role::act(|request: Put, stage: Stage| put(root(&stage.directories)?.as_fd(), &request, BufReader::with_capacity(PIECE, stage.input)))
        }
        _ => return None,
    })
}

/// Write what is at a path to a tar. `live`: others may change it meanwhile, and that is no failure.
pub fn take(root: BorrowedFd, request: &Take, out: impl Write, live: bool) -> Result<Notes> {
    let Take { path, follow, named } = request;
    let found = Found::look(root, path, *follow || path.slash || path.content, "copy")?;
    let Some(stat) = found.stat else { return Err(absent(path)) };
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !directory && (path.slash || path.content) {
        return Err(Error::new(Kind::Usage, format!("cannot copy '{}': it is no directory", path.shown())));
    }
    let mut walk = Walk::new(Packer::new(BufWriter::with_capacity(PIECE, out)), whiteout::Stack(Vec::new()), live);
    walk.plain = true;
    let name = if *named && (path.content || path.path.is_empty()) { &[][..] } else { path.name() };
    if directory {
        let dir = whiteout::open_dir(found.parent.as_fd(), &found.name).map_err(|e| failed(&path.path, e))?;
        if sys::path::is_made_up(dir.as_fd()) {
            return Err(own(path));
        }
        let top = if *named { name } else { &[][..] };
        walk.whole(&dir, top)?;
        walk.directory(&dir, top)?;
    } else {
        let parent = whiteout::reopen(found.parent.as_fd()).map_err(|e| failed(&path.path, e))?;
        let written = walk.written();
        walk.one(&parent, &found.name, name)?;
        if walk.written() == written {
            return Err(Error::new(Kind::Usage, format!("cannot copy '{}': it is a device or a socket, or went away", path.shown())));
        }
    }
    let left_out = walk.left_out;
    let torn = walk.finish()?;
    Ok(torn.into_iter().chain((left_out > 0).then(|| format!("devices and sockets are left out: {left_out}"))).collect())
}

/// Write what is in a tar below a path.
pub fn put(root: BorrowedFd, request: &Put, source: impl BufRead) -> Result<Notes> {
    let Put { path, what, overwrite, owner, uids, gids, never } = request;
    let mut reader = Reader::new(source);
    let found = Found::look(root, path, true, "copy to")?;
    let mut first = reader.entry().map_err(reword)?;
    let source_is_directory = first.as_ref().is_some_and(|e| e.form == Form::Directory);
    let there = found.stat.map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let shown = || path.shown();
    // Where it goes: a directory that is there, and a path in it.
    let (into, prefix) = match (what, there) {
        (What::Archive, Some(true)) => (true, Vec::new()),
        (What::Archive, _) => {
            return Err(Error::new(Kind::NotFound, format!("cannot copy to '{}': it is no directory", shown()))
                .hint("an archive is unpacked into a directory that is there"));
        }
        (What::Copy { content, .. }, Some(true)) if source_is_directory && *content => (true, Vec::new()),
        (What::Copy { name, .. }, Some(true)) => (true, name.clone()),
        (What::Copy { .. }, Some(false)) if source_is_directory && !overwrite => {
            return Err(Error::new(Kind::Conflict, format!("cannot copy a directory to '{}': it is a file", shown()))
                .hint("--overwrite puts the directory in its place"));
        }
        (What::Copy { .. }, None) if path.slash && !source_is_directory => {
            return Err(Error::new(Kind::NotFound, format!("cannot copy to '{}/': there is no such directory", shown())));
        }
        (What::Copy { .. }, Some(false)) if path.slash => {
            return Err(Error::new(Kind::Conflict, format!("cannot copy to '{}/': it is no directory", shown())));
        }
        (What::Copy { .. }, _) => (false, found.name.to_bytes().to_vec()),
    };
    let top = if into {
        whiteout::open_dir(found.parent.as_fd(), &found.name).map_err(|e| put_failed(path, e))?
    } else {
        whiteout::reopen(found.parent.as_fd()).map_err(|e| put_failed(path, e))?
    };
    if sys::path::is_made_up(top.as_fd()) {
        return Err(own(path));
    }
    let ids = Ids { uids: uids.clone(), gids: gids.clone(), squash: true, beside: false };
    let mut tree = Tree::plain(top.as_fd(), ids, Plain { overwrite: *overwrite, owner: *owner, never: *never })?;
    while let Some(mut entry) = first.take() {
        if rename(&mut entry, &prefix, matches!(what, What::Copy { .. }) && !source_is_directory) {
            tree.put(&entry, &mut reader).map_err(reword)?;
        }
        first = reader.entry().map_err(reword)?;
    }
    tree.finish().map(|grown| grown.notes).map_err(reword)
}

/// Below the prefix, or, for the one file that there is, at it; false: it is the directory that it all goes into, which stays as it is.
fn rename(entry: &mut Entry, prefix: &[u8], single: bool) -> bool {
    let below = |path: &[u8]| match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path.to_vec(),
        (false, true) => prefix.to_vec(),
        (false, false) => [prefix, b"/", path].concat(),
    };
    if single {
        entry.path = prefix.to_vec();
    } else {
        entry.path = below(&entry.path);
        if entry.form == Form::Link {
            entry.link = below(&entry.link);
        }
    }
    !entry.path.is_empty()
}

/// What a path leads to: its last component in a directory that we hold.
struct Found {
    parent: OwnedFd,
    /// `.` for the top.
    name: CString,
    /// None: there is nothing of that name.
    stat: Option<Stat>,
}

impl Found {
    /// Links on the way are seen from the top; one at the end is followed if `follow`. // I1
    fn look(root: BorrowedFd, path: &Path, follow: bool, verb: &str) -> Result<Found> {
        let fail = |e: Errno| match e {
            Errno::NOENT | Errno::NOTDIR => Error::new(Kind::NotFound, format!("cannot {verb} '{}': there is no such directory", path.shown())),
            e => Error::new(Kind::Io, format!("cannot {verb} '{}': {}", path.shown(), crate::error::why(&e.into()))),
        };
        let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::usage("a NUL in a path"));
        let mut at = path.path.clone();
        for _ in 0..MOST_LINKS {
            while at.ends_with(b"/") {
                at.pop();
            }
            let (above, name) = tree::split(&at);
            // A link's text may end with `..`, which is no name in a directory.
            let (above, name) = if matches!(name, b"" | b"." | b"..") { (at.as_slice(), &b"."[..]) } else { (above, name) };
            let parent = handle(root, &c(if above.is_empty() { b"." } else { above })?, Links::Inside).map_err(fail)?;
            if sys::path::is_made_up(parent.as_fd()) {
                return Err(own(path));
            }
            let name = c(name)?;
            let stat = match statat(&parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(e) => return Err(fail(e)),
            };
            if !follow || stat.is_none_or(|s| FileType::from_raw_mode(s.st_mode) != FileType::Symlink) {
                return Ok(Found { parent, name, stat });
            }
            let text = rustix::fs::readlinkat(&parent, name.as_c_str(), Vec::new()).map_err(fail)?.into_bytes();
            at = if text.starts_with(b"/") || above.is_empty() { text } else { [above, b"/", &text].concat() };
            if at.len() > tar::LONGEST_PATH {
                return Err(fail(Errno::NAMETOOLONG));
            }
        }
        Err(fail(Errno::LOOP))
    }
}

fn absent(path: &Path) -> Error {
    Error::new(Kind::NotFound, format!("cannot copy '{}': it is not there", path.shown()))
}

fn own(path: &Path) -> Error {
    Error::new(Kind::Usage, format!("cannot copy '{}': it is the kernel's own, and no file of the sandbox", path.shown()))
}

fn put_failed(path: &Path, e: Errno) -> Error {
    Error::new(Kind::Io, format!("cannot copy to '{}': {}", path.shown(), crate::error::why(&e.into())))
}

fn reword(e: Error) -> Error {
    reworded(e, "cannot copy")
}

/// What is said of layers elsewhere.
pub(super) fn reworded(e: Error, cannot: &str) -> Error {
    let said = e.message().replacen("cannot unpack the layer", cannot, 1).replacen("cannot unpack", cannot, 1);
    let reworded = Error::new(e.kind(), said);
    match e.cure() {
        Some(cure) => reworded.hint(cure.to_string()),
        None => reworded,
    }
}

/// All that one gives to the other, until one of them has no more.
pub fn pump(from: &mut dyn Read, to: &mut dyn Write) -> Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let n = match from.read(&mut piece) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            n => n.doing("read", "what is copied")?,
        };
        // Whoever takes no more says why himself.
        if n == 0 || to.write_all(&piece[..n]).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_docker_reads_them() {
        for (word, path, slash, content) in [
            ("/a/b", "a/b", false, false),
            ("a//b/", "a/b", true, false),
            ("/a/./b/.", "a/b", false, true),
            ("/", "", true, false),
            (".", "", false, true),
            ("/../../x/..", "", false, false),
            ("/a/../b", "b", false, false),
        ] {
            let read = Path::new(OsStr::new(word)).unwrap();
            assert_eq!((read.path.as_slice(), read.slash, read.content), (path.as_bytes(), slash, content), "{word}");
        }
        assert!(Path::new(OsStr::new("")).is_err());
    }
}
