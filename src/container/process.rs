//! A process that somebody wrote down: its number, and when it began, since the number will be somebody else's. Called by all that looks
//! for what a record names.
#![forbid(unsafe_code)]

use crate::error::{Doing, Result};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, statat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest file of /proc that is read.
const LONGEST: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Ticks since the machine started. man: proc_pid_stat(5)
    pub start: u64,
}

impl Process {
    pub fn new(pid: u32) -> Result<Process> {
        let found = Found::open(pid).doing("look at", format!("the process {pid}"))?;
        Ok(Process { pid, start: found.start().doing("look at", format!("the process {pid}"))? })
    }

    pub fn me() -> Result<Process> {
        Process::new(std::process::id())
    }

    /// It, if it still is there. The two handles are of one process: the number was its own before and after the second was opened.
    pub fn find(self) -> Option<Found> {
        let found = Found::open(self.pid).ok()?;
        (found.start().ok()? == self.start).then_some(found)
    }
}

/// This start of the machine.
pub fn boot() -> Result<String> {
    #[cfg(debug_assertions)]
    if let Ok(boot) = std::env::var("SANDBOX_BOOT") {
        return Ok(boot); // for tests: nobody reboots a machine for one
    }
    let file = "/proc/sys/kernel/random/boot_id";
    std::fs::read_to_string(file).map(|t| t.trim().to_string()).doing("read", file)
}

/// A process by handles: on itself, and on its directory in /proc, which is one process, also if that ends and its number is used again.
pub struct Found {
    pub pid: u32,
    pub pidfd: OwnedFd,
    dir: OwnedFd,
}

impl Found {
    fn open(pid: u32) -> rustix::io::Result<Found> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())?;
        let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
        let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?;
        Ok(Found { pid, pidfd, dir })
    }

    /// Its directory in /proc.
    pub fn proc(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub fn read(&self, name: &str) -> std::io::Result<String> {
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
    pub fn is_of_our_world(&self) -> bool {
        let id = |s: Stat| (s.st_dev, s.st_ino);
        let (ours, its) = (rustix::fs::stat("/proc/self/ns/user"), statat(&self.dir, "ns/user", AtFlags::empty()));
        let mine = fstat(&self.dir).is_ok_and(|s| s.st_uid == rustix::process::geteuid().as_raw());
        mine && matches!((ours, its), (Ok(ours), Ok(its)) if id(ours) == id(its))
    }

    /// One of its directories.
    pub fn directory(&self, descriptor: i32) -> rustix::io::Result<OwnedFd> {
        openat(self.dir.as_fd(), format!("fd/{descriptor}"), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    pub fn signal(&self, signal: i32) -> crate::sys::Result<()> {
        crate::sys::signal::pidfd_send(self.pidfd.as_fd(), signal)
    }
}
