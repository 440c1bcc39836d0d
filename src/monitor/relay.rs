//! Bytes from one descriptor to another, through one buffer. Called by the loop of `monitor`; never blocks, never waits.
//!
//! The caller's descriptors are shared with the shell and with everyone else who has that terminal: O_NONBLOCK set on them would
//! outlive us and break the shell. So a terminal or pipe of the caller's is opened once more through /proc/self/fd, which makes
//! a file description that is ours alone. Where that is refused (after su the terminal belongs to somebody else; no /proc) the
//! loop asks poll first and moves at most PIPE_BUF bytes: a pipe then never blocks us, and a terminal only if it was stopped
//! (Ctrl-S) or filled up in between, until it flows again. Rejected: a thread per direction; writes broken off by a timer signal.
//! Also rejected: pwritev2 with RWF_NOWAIT, which ttys do not know on the kernels that we serve.

use crate::error::{Doing, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes between the two ends of a flow, at most.
pub(super) const ROOM: usize = 64 * 1024;

/// What poll(2) promises for a pipe: so many bytes go in without waiting. man: pipe(7)
const PIPE_BUF: usize = 4096;

/// How long a terminal that cannot be read now is left alone: nothing announces that we are in the foreground again, or that
/// the sandbox has opened its terminal anew.
pub(super) const REST: Duration = Duration::from_millis(250);

/// One end of a flow.
#[derive(Debug)]
pub(super) struct Port {
    fd: OwnedFd,
    manner: Manner,
    tty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Our own file description, with O_NONBLOCK.
    Free,
    /// A socket: MSG_DONTWAIT in every call.
    Socket,
    /// Somebody else's file description: only after poll, and little.
    Careful,
}

impl Port {
    /// An end that nobody else has: our side of a pipe, or of the sandbox's pty.
    pub(super) fn ours(fd: OwnedFd) -> Result<Port> {
        let flags = rustix::fs::fcntl_getfl(&fd).doing("look at", "our end of a stream")?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).doing("change", "our end of a stream")?;
        Ok(Port { fd, manner: Manner::Free, tty: false })
    }

    /// One of the caller's three, for reading (`OFlags::RDONLY`) or writing (`OFlags::WRONLY`).
    pub(super) fn theirs(fd: BorrowedFd<'_>, way: OFlags) -> Result<Port> {
        let kind = rustix::fs::fstat(fd).map(|s| rustix::fs::FileType::from_raw_mode(s.st_mode)).doing("look at", "a stream")?;
        let tty = rustix::termios::isatty(fd);
        // A pty's master would be opened as a new pty.
        let master = tty && rustix::pty::ptsname(fd, Vec::new()).is_ok();
        let again = || {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::open(path, way | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok()
        };
        if let Some(fd) = (tty && !master || kind.is_fifo()).then(again).flatten() {
            return Ok(Port { fd, manner: Manner::Free, tty });
        }
        let manner = if kind.is_socket() { Manner::Socket } else { Manner::Careful };
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3).doing("duplicate", "a stream")?;
        Ok(Port { fd, manner, tty })
    }

    /// EAGAIN: nothing now. EIO: a terminal that we must leave alone for a while.
    fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        if self.tty && !foreground(self.fd.as_fd()) {
            return Err(Errno::IO);
        }
        match self.manner {
            Manner::Free => rustix::io::read(&self.fd, into),
            Manner::Socket => rustix::net::recv(&self.fd, into, RecvFlags::DONTWAIT).map(|(n, _)| n),
            Manner::Careful => rustix::io::read(&self.fd, into.get_mut(..PIPE_BUF.min(into.len())).unwrap_or_default()),
        }
    }

    fn write(&self, from: &[u8]) -> Result<usize, Errno> {
        match self.manner {
            Manner::Free => rustix::io::write(&self.fd, from),
            Manner::Socket => rustix::net::send(&self.fd, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Manner::Careful => rustix::io::write(&self.fd, from.get(..PIPE_BUF.min(from.len())).unwrap_or_default()),
        }
    }
}

/// May we read this terminal, and set its modes? Also true for one that is not our controlling terminal: no job control there.
pub(super) fn foreground(tty: BorrowedFd<'_>) -> bool {
    rustix::termios::tcgetpgrp(tty).map_or(true, |group| group == rustix::process::getpgrp())
}

/// What becomes of the source when the sink is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Orphan {
    /// Close it: the writer at its other side gets SIGPIPE, as without us.
    Close,
    /// Go on reading and throw away: closing a pty would hang up the session.
    Discard,
}

/// One direction. Back-pressure: a full buffer is not read into, so the writer waits.
#[derive(Debug)]
pub(super) struct Flow {
    from: Option<Port>,
    to: Option<Port>,
    orphan: Orphan,
    /// Leave `from` alone until then.
    rest: Option<Instant>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Flow {
    pub(super) fn new(from: Port, to: Port, orphan: Orphan) -> Flow {
        Flow { from: Some(from), to: Some(to), orphan, rest: None, buffer: vec![0; ROOM].into(), start: 0, end: 0 }
    }

    /// The descriptor to poll for input, if there is room for it.
    pub(super) fn source(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        let awake = self.rest.is_none_or(|until| until <= now);
        self.from.as_ref().filter(|_| awake && self.end < ROOM).map(|port| port.fd.as_fd())
    }

    /// The descriptor to poll for output, if there is something to write.
    pub(super) fn sink(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_ref().filter(|_| self.start < self.end).map(|port| port.fd.as_fd())
    }

    /// When to look again although no descriptor says so.
    pub(super) fn rest(&self) -> Option<Instant> {
        self.rest.filter(|_| self.from.is_some())
    }

    /// Nothing will move any more.
    pub(super) fn finished(&self) -> bool {
        self.from.is_none() && self.start == self.end
    }

    /// Move what can be moved. `readable`, `writable`: what poll said. `last`: the sandbox is gone, so an empty source is at its end.
    pub(super) fn pump(&mut self, readable: bool, writable: bool, last: bool, now: Instant) {
        let (mut readable, mut writable) = (readable || last, writable);
        // A bounded number of turns, so that one busy stream cannot make us deaf to the others and to signals.
        for _ in 0..16 {
            let moved = self.fill(readable, last, now) | self.flush(writable);
            if !moved {
                break;
            }
            // What poll said holds for one call on a description that may block.
            readable &= self.from.as_ref().is_some_and(|port| port.manner != Manner::Careful);
            writable = false;
        }
        if self.from.is_none() && self.start == self.end {
            self.to = None; // the end of a pipe: the workload reads end-of-file
        }
    }

    fn fill(&mut self, readable: bool, last: bool, now: Instant) -> bool {
        let Some(port) = self.from.as_ref().filter(|_| readable) else { return false };
        let Some(space) = self.buffer.get_mut(self.end..).filter(|space| !space.is_empty()) else { return false };
        match port.read(space) {
            Ok(n) if n > 0 => {
                self.end += n;
                self.rest = None;
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) if !last => {}
            // All slaves of the pty are closed (another may be opened), or our own terminal while we are in the background.
            Err(Errno::IO) if !last => self.rest = now.checked_add(REST),
            Ok(_) | Err(_) => self.from = None,
        }
        false
    }

    fn flush(&mut self, writable: bool) -> bool {
        let Some(bytes) = self.buffer.get(self.start..self.end).filter(|bytes| !bytes.is_empty()) else { return false };
        let result = match &self.to {
            Some(port) if writable || port.manner != Manner::Careful => port.write(bytes),
            Some(_) => return false,
            None => Ok(bytes.len()),
        };
        match result {
            Ok(n) => self.start += n,
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(_) => {
                // EPIPE, or EIO from a terminal that is closed, or ENOSPC: nobody will have these bytes.
                self.start = self.end;
                self.to = None;
                if self.orphan == Orphan::Close {
                    self.from = None;
                }
            }
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file description that may block (the caller's, where it cannot be opened again) is touched only after poll's yes.
    #[test]
    fn a_description_that_blocks_is_asked_first() {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let ((source, filler), (full, out)) = (pipe(), pipe());
        let careful = |fd| Port { fd, manner: Manner::Careful, tty: false };
        let mut flow = Flow::new(Port::ours(source).unwrap(), careful(out.try_clone().unwrap()), Orphan::Close);
        rustix::io::write(&filler, &[7; 10000]).unwrap();
        // 15 of the 16 pages of the pipe are taken: one write of PIPE_BUF fits, and poll says so once.
        rustix::io::write(&out, &[1; 15 * PIPE_BUF]).unwrap();
        let now = Instant::now();
        flow.pump(true, true, false, now);
        assert_eq!(flow.end - flow.start, 10000 - PIPE_BUF);
        flow.pump(true, false, false, now);
        assert_eq!(flow.end - flow.start, 10000 - PIPE_BUF);
        drop(full);
        flow.pump(false, true, false, now); // EPIPE (Rust ignores SIGPIPE)
        assert!(flow.finished() && flow.source(now).is_none());

        // An empty pipe, read without poll's yes, would wait for ever.
        let (empty, _writer) = pipe();
        let mut flow = Flow::new(careful(empty), Port::ours(filler).unwrap(), Orphan::Close);
        flow.pump(false, true, false, now);
        assert!(!flow.finished());
    }

    #[test]
    fn a_pty_master_is_not_opened_again() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        assert_eq!(Port::theirs(master.as_fd(), OFlags::WRONLY).unwrap().manner, Manner::Careful);
    }
}
