//! A process that somebody wrote down: its number, and when it began, since the number will be somebody else's; and one by handles. Called by
//! all that looks for what a record names, or at processes of sandboxes from outside. man: proc(5)
#![forbid(unsafe_code)]

use crate::error::{Doing, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};
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

/// What `stat` says, as far as we need it. man: proc_pid_stat(5)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub state: char,
    pub parent: u32,
    /// The device number of its terminal; 0: it has none.
    pub terminal: u32,
    /// Of processors, in ticks.
    pub time: u64,
    /// Ticks since the machine started.
    pub start: u64,
}

/// A process by handles: on itself, and on its directory in /proc, which is one process, also if that ends and its number is used again.
#[derive(Debug)]
pub struct Found {
    pub pid: u32,
    pub pidfd: OwnedFd,
    dir: OwnedFd,
}

impl Found {
    pub fn open(pid: u32) -> rustix::io::Result<Found> {
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

    /// A file of it, as far as it is text.
    pub fn read(&self, name: &str) -> std::io::Result<String> {
        let file = File::from(openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn stat(&self) -> std::io::Result<Stat> {
        parse(&self.read("stat")?).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    fn start(&self) -> std::io::Result<u64> {
        self.stat().map(|stat| stat.start)
    }

    /// It is dead; it may not be waited for yet.
    pub fn is_over(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Its children, by pid. man: proc_tid_children(5)
    pub fn children(&self) -> std::io::Result<Vec<u32>> {
        let text = self.read(&format!("task/{}/children", self.pid))?;
        Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// A namespace of it, to be joined. The kernel asks whether we might trace it.
    pub fn namespace(&self, kind: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.dir, format!("ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    pub fn is_child_of(&self, other: &Found) -> bool {
        self.stat().is_ok_and(|stat| stat.parent == other.pid)
    }

    /// This descriptor of it is that file, and has it locked. man: proc_pid_fdinfo(5)
    pub fn has_locked(&self, descriptor: i32, file: &rustix::fs::Stat) -> bool {
        let same = statat(&self.dir, format!("fd/{descriptor}"), AtFlags::empty()).is_ok_and(|s| (s.st_dev, s.st_ino) == (file.st_dev, file.st_ino));
        let locks = |line: &str| line.starts_with("lock:") && line.contains("FLOCK") && line.contains("WRITE");
        same && self.read(&format!("fdinfo/{descriptor}")).is_ok_and(|text| text.lines().any(locks))
    }

    /// It has our user id and our user namespace, which nothing in a sandbox has.
    pub fn is_of_our_world(&self) -> bool {
        let id = |s: rustix::fs::Stat| (s.st_dev, s.st_ino);
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

/// The second field is a name, and may hold anything, also blanks and brackets.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).copied();
    let number = |n: usize| field(n)?.parse::<u64>().ok();
    Some(Stat {
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        terminal: field(7)?.parse().ok()?,
        time: number(14)? + number(15)?,
        start: number(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_brackets_deceives_nobody() {
        let text = "7 (a) R 1 2) S 1 7 7 34816 7 4194304 1 2 3 4 5 6 7 8 20 0 1 0 991 1 1 1";
        let stat = parse(text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.terminal, stat.time, stat.start), ('S', 1, 34816, 11, 991));
        assert_eq!(parse("7 (a"), None);
        assert_eq!(parse("7 (a) S 1"), None);
    }

    #[test]
    fn we_are_a_process() {
        let me = Process::me().unwrap().find().unwrap();
        assert_eq!(me.stat().unwrap().parent, std::os::unix::process::parent_id());
        assert!(!me.is_over() && me.is_of_our_world());
    }
}
