//! A process by a handle on its directory in /proc: once opened it is one process, also if that ends and its number is used again.
//!
//! Called by whoever looks at processes of sandboxes from outside. Never signals, never trusts a name. man: proc(5)
#![forbid(unsafe_code)]

use crate::sys::Errno;
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// The longest file of /proc that is read.
const LONGEST: u64 = 64 << 10;

#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    dir: OwnedFd,
}

/// What `stat` says, as far as we need it. man: proc_pid_stat(5)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub state: char,
    pub parent: i32,
    pub terminal: i32,
    /// In ticks.
    pub time: u64,
    /// Ticks since the machine started.
    pub start: u64,
}

impl Process {
    pub fn open(pid: i32) -> rustix::io::Result<Process> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Process { pid, dir: rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())? })
    }

    pub fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let file = File::from(openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map(|_| bytes)
    }

    pub fn stat(&self) -> std::io::Result<Stat> {
        let bytes = self.read("stat")?;
        parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }

    /// A namespace of it, to be joined. The kernel asks whether we might trace it.
    pub fn namespace(&self, kind: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.dir, format!("ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// Which namespace that is: two with one number are one.
    pub fn namespace_number(&self, kind: &str) -> rustix::io::Result<u64> {
        Ok(statat(self.dir.as_fd(), format!("ns/{kind}"), AtFlags::empty())?.st_ino)
    }

    /// Its children, by pid. man: proc_tid_children(5)
    pub fn children(&self) -> std::io::Result<Vec<i32>> {
        let bytes = self.read(&format!("task/{}/children", self.pid))?;
        Ok(String::from_utf8_lossy(&bytes).split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// It is gone, or dead and waited for.
    pub fn is_over(&self) -> bool {
        match self.stat() {
            Ok(stat) => matches!(stat.state, 'Z' | 'X'),
            Err(e) => e.raw_os_error() != Some(Errno::ACCESS.raw_os_error()),
        }
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
        let me = Process::open(std::process::id() as i32).unwrap();
        assert_eq!(me.stat().unwrap().parent, std::os::unix::process::parent_id() as i32);
        assert!(!me.is_over());
        assert_eq!(me.namespace_number("user").unwrap(), rustix::fs::stat("/proc/self/ns/user").unwrap().st_ino);
    }
}
