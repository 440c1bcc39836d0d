//! The name of a running sandbox: taken by `cli::run`, and how `commit`, `diff` and `export` come to its writable layer.
//!
//! *What*: a name is a file, locked while its sandbox lives; the kernel lets go of it however that ends. In the file stands a record of the
//! process that stays with the sandbox, and which descriptor of it the layer is: a tmpfs that has no name anywhere. // rootfs/image.rs
//!
//! *Why this way*: nothing serves, and nothing outlives the process. (Rejected: a socket to ask, as that would be a service for anybody who
//! finds it; the way through /proc/PID/root, as that is the workload's to change; pidfd_getfd(2), as Yama forbids it.)
//!
//! *Invariants*
//! - I1 the record is believed in nothing: its process must live, be as old as it says, be outside of every sandbox, and hold the lock on the
//!   very file that the record was read from; its descriptor must be the very directory. // cve: 2022-31214
//! - I2 once opened, /proc/PID is one process, also if it ends and its number is used again.
#![forbid(unsafe_code)]

use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::{Digest, Name};
use crate::image::making;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fstat, openat, statat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The longest record.
const LONGEST: u64 = 64 << 10;
/// man: statfs(2)
const TMPFS: u64 = 0x0102_1994;

/// A name that is ours while this lives.
pub struct NameLock {
    path: PathBuf,
    lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: u32,
    /// Ticks since the machine started. man: proc_pid_stat(5)
    start: u64,
    boot: String,
    /// Its descriptor of the file that this stands in.
    lock: i32,
    layer: Layer,
}

/// Where a sandbox writes to.
#[derive(Debug, Serialize, Deserialize)]
enum Layer {
    /// A layer that stays.
    Kept(Name),
    /// One that is thrown away: a descriptor, and which directory that is.
    Lost { descriptor: i32, device: u64, inode: u64, about: About },
}

/// What is to be known of a layer that is thrown away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// The manifest of the image that it lies on, and the store that has both.
    pub manifest: Digest,
    pub store: PathBuf,
    pub command: Vec<String>,
}

/// What a running sandbox writes to.
pub enum Found {
    Kept(Name),
    Lost { upper: OwnedFd, about: About, pid: u32 },
}

fn names(home: &Path) -> (PathBuf, PathBuf) {
    let base = dirs::runtime().unwrap_or_else(|| dirs::cache(home));
    let dir = base.join("names");
    (base, dir)
}

impl NameLock {
    pub fn take(name: &Name, home: &Path) -> Result<NameLock> {
        let (base, dir) = names(home);
        let elsewhere = "leave out --name, or set XDG_RUNTIME_DIR to a directory of yours with mode 700";
        dirs::make(&base).and_then(|()| dirs::make(&dir)).map_err(|e| e.hint(elsewhere))?;
        let path = dir.join(name.as_str());
        loop {
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600));
            let lock = File::from(file.doing("lock", path.display()).map_err(|e| e.hint(elsewhere))?);
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(Error::new(Kind::Conflict, format!("cannot use the name '{name}': a sandbox runs under it")));
            }
            // The one before may have removed the file between our open and our lock.
            let ours = fstat(&lock).doing("look at", path.display())?;
            if rustix::fs::stat(&path).is_ok_and(|now| now.st_ino == ours.st_ino) {
                // One that was killed leaves its record.
                lock.set_len(0).doing("empty", path.display())?;
                return Ok(NameLock { path, lock });
            }
        }
    }

    /// Say where to find what is written to the kept layer.
    pub fn kept(&mut self, layer: Name) -> Result<()> {
        self.tell(Layer::Kept(layer))
    }

    /// Say where to find what is written and thrown away; `upper` must stay open as long as the lock.
    pub fn lost(&mut self, upper: &OwnedFd, about: About) -> Result<()> {
        let stat = fstat(upper).doing("look at", "the writable layer")?;
        self.tell(Layer::Lost { descriptor: upper.as_raw_fd(), device: stat.st_dev, inode: stat.st_ino, about })
    }

    fn tell(&mut self, layer: Layer) -> Result<()> {
        let proc = Process::open(std::process::id()).doing("look at", "this process")?;
        let (pid, start) = (proc.pid, proc.start().doing("look at", "this process")?);
        let record = Record { pid, start, boot: boot()?, lock: self.lock.as_raw_fd(), layer };
        let text = serde_json::to_vec(&record).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
        self.lock.write_all(&text).doing("write", self.path.display())
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the sandbox that runs under this name writes to; None: there is none, or it is not the layer of an image.
pub fn find(name: &Name, home: &Path) -> Result<Option<Found>> {
    let (_, dir) = names(home);
    let path = dir.join(name.as_str());
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    let distrust = |why: &str| {
        let file = path.display();
        Error::new(Kind::Denied, format!("cannot believe what {file} says of the sandbox '{name}': {why}")).hint(format!("rm '{file}'"))
    };
    dirs::trusted(&dir)?;
    // O_NONBLOCK: a fifo in its place must not hang us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| distrust(&crate::error::why(&e.into())))?);
    let stat = fstat(&file).doing("look at", path.display())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(distrust("it is no file of yours"));
    }
    // The command may run a moment before its record is written; who has no layer of an image never writes one.
    let mut text = Vec::new();
    for _ in 0..20 {
        (&file).take(LONGEST).read_to_end(&mut text).doing("read", path.display())?;
        if !text.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    if text.is_empty() {
        return Ok(None);
    }
    let record: Record = serde_json::from_slice(&text).map_err(|e| distrust(&e.to_string()))?;
    let gone = || {
        Error::new(Kind::NotFound, format!("cannot find the sandbox '{name}': it has ended, and what it wrote is gone"))
            .hint("run it with --keep, and what it writes stays")
    };
    if record.boot != boot()? {
        return Err(gone());
    }
    // I2
    let process = Process::open(record.pid).map_err(|_| gone())?;
    if process.start().ok() != Some(record.start) {
        return Err(gone());
    }
    // I1
    if !process.is_of_our_world() {
        return Err(distrust("its process is not one of yours, outside of every sandbox"));
    }
    if !process.has_locked(record.lock, &stat) {
        let over = !making::is_at(&file, &path);
        return Err(if over { gone() } else { distrust("its process does not have it locked") });
    }
    let (descriptor, device, inode, about) = match record.layer {
        Layer::Kept(layer) => return Ok(Some(Found::Kept(layer))),
        Layer::Lost { descriptor, device, inode, about } => (descriptor, device, inode, about),
    };
    let upper = process.directory(descriptor).map_err(|e| match e {
        rustix::io::Errno::NOENT => gone(),
        e => distrust(&format!("its directory cannot be opened: {}", crate::error::why(&e.into()))),
    })?;
    let stat = fstat(&upper).doing("look at", "the writable layer")?;
    let tmpfs = rustix::fs::fstatfs(&upper).is_ok_and(|s| s.f_type as u64 == TMPFS);
    if (stat.st_dev, stat.st_ino) != (device, inode) || !tmpfs {
        return Err(distrust("its directory is another one"));
    }
    Ok(Some(Found::Lost { upper, about, pid: record.pid }))
}

fn boot() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(file).map(|t| t.trim().to_string()).doing("read", file)
}

/// A process, by a handle on its directory in /proc. // I2
struct Process {
    pid: u32,
    dir: OwnedFd,
}

impl Process {
    fn open(pid: u32) -> rustix::io::Result<Process> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Process { pid, dir: rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())? })
    }

    fn read(&self, name: &str) -> std::io::Result<String> {
        let file = File::from(openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map(|_| text)
    }

    /// Field 22; the second, its name, may hold anything, also blanks and brackets. man: proc_pid_stat(5)
    fn start(&self) -> std::io::Result<u64> {
        let text = self.read("stat")?;
        let field = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok());
        field.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    /// It has our user id and our user namespace, which nothing in a sandbox has.
    fn is_of_our_world(&self) -> bool {
        let id = |s: Stat| (s.st_dev, s.st_ino);
        let (ours, its) = (rustix::fs::stat("/proc/self/ns/user"), statat(&self.dir, "ns/user", AtFlags::empty()));
        let mine = fstat(&self.dir).is_ok_and(|s| s.st_uid == rustix::process::geteuid().as_raw());
        mine && matches!((ours, its), (Ok(ours), Ok(its)) if id(ours) == id(its))
    }

    /// This descriptor of it is that file, and has it locked. man: proc_pid_fdinfo(5)
    fn has_locked(&self, descriptor: i32, file: &Stat) -> bool {
        let same = statat(&self.dir, format!("fd/{descriptor}"), AtFlags::empty()).is_ok_and(|s| (s.st_dev, s.st_ino) == (file.st_dev, file.st_ino));
        let locks = |line: &str| line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE");
        same && self.read(&format!("fdinfo/{descriptor}")).is_ok_and(|text| text.lines().any(locks))
    }

    /// One of its directories.
    fn directory(&self, descriptor: i32) -> rustix::io::Result<OwnedFd> {
        openat(self.dir.as_fd(), format!("fd/{descriptor}"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }
}
