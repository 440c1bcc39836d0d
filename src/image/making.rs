//! Things in the making: each lies in the store's `tmp/`, locked by whoever makes it, until it is renamed into its place.
//!
//! Called by `store` and `blob`. The lock is flock(2) on the thing itself, so the kernel lets go of it when its maker dies; what
//! nobody has locked is a dead maker's, and the next command sweeps it. Never touches what somebody has locked.
#![forbid(unsafe_code)]

use crate::birth::die_at;
use crate::error::{Doing, Error, Kind, Result};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The name of a note that somebody adds, or wanted to; not a thing that `sweep` takes.
pub const NOTE: &str = "adding";

/// One thing in the making, and the only right to make it.
#[derive(Debug)]
pub struct Making {
    path: PathBuf,
    lock: File,
    /// It has its final name, or somebody else sees to its end.
    over: bool,
}

impl Making {
    /// The right to make the file `name`, waited for; None: `there` holds, somebody else has made it meanwhile.
    pub fn file(tmp: &Path, name: &str, there: &dyn Fn() -> bool) -> Result<Option<Making>> {
        let path = tmp.join(name);
        claim(&path, there, || open(&path, OFlags::CREATE | OFlags::RDWR))?.map(|lock| begun(path, lock)).transpose()
    }

    /// The same for a directory, which is empty.
    pub fn directory(tmp: &Path, name: &str, there: &dyn Fn() -> bool) -> Result<Option<Making>> {
        let path = tmp.join(name);
        let make = || match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => open(&path, OFlags::DIRECTORY),
            Err(e) => Err(e),
        };
        loop {
            let Some(lock) = claim(&path, there, make)? else { return Ok(None) };
            if std::fs::read_dir(&path).doing("read", path.display())?.next().is_none() {
                return Ok(Some(Making { path, lock, over: false }));
            }
            // A dead maker's. Its name is free once it is put aside; the next sweep removes it.
            put_aside(tmp, &path)?;
        }
    }

    /// A new file under a name that nobody else has.
    pub fn new_file(tmp: &Path, kind: &str) -> Result<Making> {
        Making::file(tmp, &unique(kind)?, &|| false)?.ok_or_else(|| Error::new(Kind::Bug, "a new file is there already"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file_mut(&mut self) -> &mut File {
        &mut self.lock
    }

    /// It is whole: onto the disk, then to its name. // I1
    pub fn publish(mut self, to: &Path) -> Result<()> {
        self.lock.sync_all().doing("write", to.display())?;
        die_at(20);
        rustix::fs::rename(&self.path, to).doing("put in place", to.display())?;
        self.over = true;
        die_at(21);
        to.parent().map_or(Ok(()), sync)
    }

    /// It will not be made. A file is gone; of a directory, the name: the path where it waits for its removal, and its lock.
    pub fn abandon(mut self, tmp: &Path) -> Result<(PathBuf, File)> {
        self.over = true;
        let aside = put_aside(tmp, &self.path)?;
        Ok((aside, self.lock.try_clone().doing("keep", "a lock")?))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.over {
            // A file; a directory that is not empty stays for the sweep.
            let _ = std::fs::remove_file(&self.path).or_else(|_| std::fs::remove_dir(&self.path));
        }
    }
}

fn begun(path: PathBuf, lock: File) -> Result<Making> {
    // A dead maker may have left a part.
    lock.set_len(0).doing("empty", path.display())?;
    Ok(Making { path, lock, over: false })
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::from_raw_mode(0o600))
}

/// Make or open, lock, and look whether it still is what its name stands for: while we waited it may have been finished or swept.
fn claim(path: &Path, there: &dyn Fn() -> bool, make: impl Fn() -> rustix::io::Result<OwnedFd>) -> Result<Option<File>> {
    loop {
        if there() {
            return Ok(None);
        }
        let file = match make() {
            Ok(fd) => File::from(fd),
            // Put aside between making and opening.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e).doing("make", path.display()),
        };
        lock(&file, FlockOperation::LockExclusive).doing("lock", path.display())?;
        if !is_at(&file, path) {
            continue;
        }
        if there() {
            let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
            return Ok(None);
        }
        return Ok(Some(file));
    }
}

/// flock(2), once more after a signal.
pub fn lock(file: impl AsFd, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Is `file` what `path` names now?
pub fn is_at(file: impl AsFd, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (rustix::fs::fstat(file), rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW)) else { return false };
    (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
}

/// To a name that nobody makes anything under.
pub fn put_aside(tmp: &Path, path: &Path) -> Result<PathBuf> {
    let aside = tmp.join(unique("dead")?);
    rustix::fs::rename(path, &aside).doing("move", path.display())?;
    Ok(aside)
}

/// `kind`, and 64 bits that nobody guesses.
pub fn unique(kind: &str) -> Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).doing("read", "random bytes")?;
    Ok(format!("{kind}-{:016x}", u64::from_ne_bytes(bytes)))
}

/// The names in a directory are on the disk.
pub fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).doing("write", dir.display())
}

/// What dead makers left: files are removed, directories put aside. They come with their locks, to be kept until they are gone.
pub fn sweep(tmp: &Path) -> Result<Vec<(PathBuf, File)>> {
    let mut dead = Vec::new();
    for entry in std::fs::read_dir(tmp).doing("read", tmp.display())? {
        let path = entry.doing("read", tmp.display())?.path();
        if path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(NOTE.as_bytes())) {
            continue;
        }
        let Ok(fd) = open(&path, OFlags::RDONLY) else { continue };
        if lock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() || !is_at(&fd, &path) {
            continue;
        }
        let directory = rustix::fs::fstat(&fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        if !directory {
            let _ = std::fs::remove_file(&path);
        } else if let Ok(aside) = put_aside(tmp, &path) {
            dead.push((aside, File::from(fd)));
        }
    }
    Ok(dead)
}
