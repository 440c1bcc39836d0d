//! Whole trees as a tar: what an overlay shows, and what lies on the host. In a helper, as `diff`, whose walk it uses.
//!
//! Called by `export` and `import`; `act` is the helper's side, called by `main`. The order is that of the names' bytes, but what is no
//! directory comes first, so that no more than one directory of each layer is open at a time.
#![forbid(unsafe_code)]

use super::diff::{self, Packed, Upper, Walk, failed, join, names};
use super::ownership;
use super::pack::Packer;
use super::tar::{Entry, Form};
use super::whiteout::{self, Stack};
use crate::error::{Doing, Error, Result};
use crate::role::{self, Directory, Stage};
use crate::userns::Maps;
use rustix::fs::{AtFlags, FileType, fstat, statat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What an overlay of `upper` over `lowers` (lowest first) shows.
pub fn shown(upper: Upper, lowers: &[PathBuf], maps: &Maps, out: &mut dyn Write) -> Result<Packed> {
    let live = upper.live;
    diff::pour(role::start("@shown", maps, &live, &diff::directories(upper, lowers)?)?, out)
}

/// Where something of the host goes: its directory inside, and the one name that is wanted of what is there, or all.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Wanted {
    inside: Vec<u8>,
    name: Option<Vec<u8>>,
}

/// Files and directories of the host, each under its own path. What is mounted below one is left out, as are devices and sockets.
pub fn host(paths: &[PathBuf], maps: &Maps, out: &mut dyn Write) -> Result<()> {
    if paths.len() > role::MOST_DIRECTORIES {
        return Err(Error::usage(format!("cannot import {} paths: at most {}", paths.len(), role::MOST_DIRECTORIES)));
    }
    let (mut wanted, mut directories) = (BTreeMap::new(), Vec::new());
    for path in paths {
        let path = std::fs::canonicalize(path).doing("import", path.display())?;
        let (dir, name) = match (path.is_dir(), path.parent(), path.file_name()) {
            (false, Some(dir), Some(name)) => (dir, Some(name.as_bytes().to_vec())),
            _ => (path.as_path(), None),
        };
        let inside = dir.strip_prefix("/").unwrap_or(dir).as_os_str().as_bytes().to_vec();
        wanted.insert(Wanted { inside, name }, Directory::open(dir, false)?);
    }
    // What lies in another one comes with that.
    let all: Vec<Vec<u8>> = wanted.keys().filter(|w| w.name.is_none()).map(|w| w.inside.clone()).collect();
    let within = |w: &Wanted, top: &Vec<u8>| {
        (w.name.is_some() || w.inside != *top) && Path::new(OsStr::from_bytes(&w.inside)).starts_with(OsStr::from_bytes(top))
    };
    wanted.retain(|w, _| !all.iter().any(|top| within(w, top)));
    let request: Vec<Wanted> = wanted
        .into_iter()
        .map(|(w, dir)| {
            directories.push(dir);
            w
        })
        .collect();
    diff::pour(role::start("@host", maps, &request, &directories)?, out).map(drop)
}

// -------------------------------------------------------------------------------------------------------- in the helper

/// The helper that this word names; None: it is none of ours.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    Some(match word.as_bytes() {
        b"@shown" => role::act(|live: bool, stage: Stage| {
            let mut walk = Walk::new(Packer::new(BufWriter::new(stage.output)), Stack(stage.directories), live);
            walk.merged(b"")?;
            walk.finish()
        }),
        b"@host" => role::act(|wanted: Vec<Wanted>, stage: Stage| {
            let mut walk = Walk::new(Packer::new(BufWriter::new(stage.output)), Stack(Vec::new()), false);
            let mut parents = Vec::new();
            for (wanted, dir) in wanted.iter().zip(&stage.directories) {
                let dir = whiteout::reopen(dir.as_fd()).map_err(|e| failed(&wanted.inside, e))?;
                walk.parents(&wanted.inside, &mut parents)?;
                match &wanted.name {
                    None => walk.of_host(&dir, &wanted.inside)?,
                    Some(name) => {
                        let name = CString::new(name.as_slice()).map_err(|_| Error::usage("a NUL in a name"))?;
                        walk.one(&dir, &name, &join(&wanted.inside, &name))?;
                    }
                }
            }
            walk.finish()
        }),
        _ => return None,
    })
}

impl<W: Write> Walk<W> {
    /// The directory at `path` with all that shows in it.
    fn merged(&mut self, path: &[u8]) -> Result<()> {
        let Some(layers) = self.torn.there(path, self.below.directories(path))? else { return Ok(()) };
        let Some(first) = layers.first() else { return self.torn.changed(path) };
        self.whole(first, path)?;
        // Of several with one name, the highest.
        let mut all: BTreeMap<CString, &OwnedFd> = BTreeMap::new();
        for layer in &layers {
            for name in self.torn.there(path, names(layer))?.unwrap_or_default() {
                all.entry(name).or_insert(layer);
            }
        }
        let mut inner = Vec::new();
        for (name, layer) in all {
            let own = join(path, &name);
            let stat = statat(layer, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
            let Some(stat) = self.torn.there(&own, stat)? else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                _ if whiteout::is_whiteout(&stat) => {}
                FileType::Directory => inner.push(own),
                _ => self.one(layer, &name, &own)?,
            }
        }
        drop(layers);
        inner.iter().try_for_each(|path| self.merged(path))
    }

    /// A directory itself.
    pub(super) fn whole(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        let stat = ownership::stat(dir.as_fd()).map_err(|e| failed(path, e))?;
        let own = Entry { xattrs: diff::xattrs(dir.as_fd(), path)?, ..self.entry(path, Form::Directory, &stat) };
        self.write(&own)
    }

    /// A directory of the host, without what is mounted in it.
    fn of_host(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        self.foreign_is_root = true;
        let device = fstat(dir).map_err(|e| failed(path, e))?.st_dev;
        self.whole(dir, path)?;
        let mut inner = Vec::new();
        for name in names(dir).map_err(|e| failed(path, e))? {
            let own = join(path, &name);
            let stat = statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(&own, e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                self.one(dir, &name, &own)?;
            } else if stat.st_dev == device {
                inner.push((name, own));
            } else {
                self.empty(&own)?;
            }
        }
        for (name, own) in inner {
            let next = whiteout::open_dir(dir.as_fd(), &name).map_err(|e| failed(&own, e))?;
            self.of_host(&next, &own)?;
        }
        Ok(())
    }

    /// The directories above `path`, each once.
    fn parents(&mut self, path: &[u8], had: &mut Vec<Vec<u8>>) -> Result<()> {
        self.foreign_is_root = true;
        for (at, _) in path.iter().enumerate().filter(|(_, b)| **b == b'/') {
            let parent = path[..at].to_vec();
            if !had.contains(&parent) {
                self.empty(&parent)?;
                had.push(parent);
            }
        }
        Ok(())
    }

    fn empty(&mut self, path: &[u8]) -> Result<()> {
        let own = Entry { form: Form::Directory, mode: 0o755, ..diff::mark(path) };
        self.write(&own)
    }
}
