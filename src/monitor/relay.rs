//! Bytes from one descriptor to another, through one buffer. Called by the loop of `monitor`; never blocks, never waits.
//!
//! The caller's descriptors are shared with the shell and with everyone else who has that terminal: O_NONBLOCK set on them would
//! outlive us and break the shell. So a terminal or pipe of the caller's is opened once more through /proc/self/fd, which makes
//! a file description that is ours alone. Where that is refused (after su the terminal belongs to somebody else; no /proc) the
//! loop asks poll first and moves at most PIPE_BUF bytes: a pipe then never blocks us, and a terminal only if it was stopped
//! (Ctrl-S) or filled up in between, until it flows again. Rejected: a thread per direction; writes broken off by a timer signal.
//! Also rejected: pwritev2 with RWF_NOWAIT, which ttys do not know on the kernels that we serve.

use super::keys::{Keys, Typed};
use super::screen::Screen;
use crate::error::{Doing, Result};
use crate::logs::Stream;
use crate::logs::write::Writer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    /// What was changed about a terminal of the caller's by what we wrote to it.
    screen: Screen,
}

/// Whoever changed it and did not change it back is gone, or is left.
impl Drop for Port {
    fn drop(&mut self) {
        let undo = self.screen.undo();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if !undo.is_empty() && poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], Some(&now)).is_ok_and(|n| n > 0) {
            let _ = self.write(&undo);
        }
    }
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
    fn new(fd: OwnedFd, manner: Manner, tty: bool) -> Port {
        Port { fd, manner, tty, screen: Screen::default() }
    }

    /// An end that nobody else has: our side of a pipe, or of the sandbox's pty.
    pub(super) fn ours(fd: OwnedFd) -> Result<Port> {
        let flags = rustix::fs::fcntl_getfl(&fd).doing("look at", "our end of a stream")?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).doing("change", "our end of a stream")?;
        Ok(Port::new(fd, Manner::Free, false))
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
            return Ok(Port::new(fd, Manner::Free, tty));
        }
        let manner = if kind.is_socket() { Manner::Socket } else { Manner::Careful };
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3).doing("duplicate", "a stream")?;
        Ok(Port::new(fd, manner, tty))
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

    fn write(&mut self, from: &[u8]) -> Result<usize, Errno> {
        let written = match self.manner {
            Manner::Free => rustix::io::write(&self.fd, from),
            Manner::Socket => rustix::net::send(&self.fd, from, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Manner::Careful => rustix::io::write(&self.fd, from.get(..PIPE_BUF.min(from.len())).unwrap_or_default()),
        }?;
        if self.tty {
            self.screen.sees(from.get(..written).unwrap_or_default());
        }
        Ok(written)
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

/// How long a client that takes nothing can hold up the sandbox.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Where bytes go, and how far they are there.
#[derive(Debug)]
struct Sink {
    port: Port,
    at: usize,
    writable: bool,
    /// Whose it is, if not the caller's: that one is not waited for without end.
    client: Option<Client>,
}

#[derive(Debug)]
struct Client {
    number: u64,
    /// It shows a terminal's screen: what is missing there can be drawn again.
    screen: bool,
    /// Since when the sandbox waits for it.
    blocks: Option<Instant>,
    /// Bytes that it was not given; if any, it gets no more before it has been told.
    missing: u64,
}

/// From one source to all its sinks, and to the log. Back-pressure: a full buffer is not read into, so the writer waits.
#[derive(Debug)]
pub(super) struct Flow {
    from: Option<Port>,
    readable: bool,
    to: Vec<Sink>,
    orphan: Orphan,
    /// Which stream of the log this is, and how far it is there.
    log: Option<(Stream, usize)>,
    /// What is changed about the terminals that show it, for who comes later.
    screen: Option<Screen>,
    /// What a person types to let go, if anything.
    keys: Option<Keys>,
    /// It was typed.
    left: bool,
    /// Whoever took what comes is gone.
    broken: bool,
    /// Leave `from` alone until then.
    rest: Option<Instant>,
    buffer: Box<[u8]>,
    end: usize,
    /// Bytes behind the end that may be the beginning of the keys.
    held: usize,
}

impl Flow {
    pub(super) fn new(from: Port, to: Port, orphan: Orphan) -> Flow {
        let mut flow = Flow::wide(from, orphan, None);
        flow.to.push(Sink { port: to, at: 0, writable: false, client: None });
        flow
    }

    /// To the log, and to whoever will come.
    pub(super) fn logged(from: Port, stream: Stream) -> Flow {
        Flow::wide(from, Orphan::Discard, Some((stream, 0)))
    }

    /// It is a terminal's.
    pub(super) fn shown(self) -> Flow {
        Flow { screen: Some(Screen::default()), ..self }
    }

    fn wide(from: Port, orphan: Orphan, log: Option<(Stream, usize)>) -> Flow {
        Flow {
            from: Some(from),
            readable: false,
            to: Vec::new(),
            orphan,
            log,
            screen: None,
            keys: None,
            left: false,
            broken: false,
            rest: None,
            buffer: vec![0; ROOM].into(),
            end: 0,
            held: 0,
        }
    }

    pub(super) fn until(self, keys: Keys) -> Flow {
        Flow { keys: Some(keys), ..self }
    }

    /// The keys were typed.
    pub(super) fn left(&self) -> bool {
        self.left
    }

    pub(super) fn broken(&self) -> bool {
        self.broken
    }

    /// One more, from what comes next on.
    pub(super) fn join(&mut self, number: u64, mut port: Port, screen: bool) {
        if let Some(shown) = self.screen.as_ref().filter(|_| screen) {
            let _ = port.write(&shown.again()); // there is room: nothing was written to it yet
        }
        let client = Client { number, screen, blocks: None, missing: 0 };
        self.to.push(Sink { port, at: self.end, writable: false, client: Some(client) });
    }

    pub(super) fn part(&mut self, number: u64) {
        self.to.retain(|sink| sink.client.as_ref().is_none_or(|c| c.number != number));
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.log.map(|(stream, _)| stream)
    }

    /// The descriptor to poll for input, if there is room for it.
    pub(super) fn source(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        let awake = self.rest.is_none_or(|until| until <= now);
        self.from.as_ref().filter(|_| awake && self.end + self.held < ROOM && !self.left).map(|port| port.fd.as_fd())
    }

    /// The descriptors to poll for output, each with its number: those for which there is something to write.
    pub(super) fn sinks(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let wanting = |sink: &Sink| sink.at < self.end || sink.client.as_ref().is_some_and(|c| c.missing > 0);
        self.to.iter().enumerate().filter(move |(_, sink)| wanting(sink)).map(|(n, sink)| (n, sink.port.fd.as_fd()))
    }

    /// What poll said.
    pub(super) fn is_readable(&mut self) {
        self.readable = true;
    }

    pub(super) fn is_writable(&mut self, sink: usize) {
        self.to.get_mut(sink).iter_mut().for_each(|sink| sink.writable = true);
    }

    /// When to look again although no descriptor says so.
    pub(super) fn rest(&self, log: Option<&Writer>, now: Instant) -> Option<Instant> {
        let source = self.rest.filter(|until| self.from.is_some() && *until > now); // then it is polled again
        let log = log.filter(|_| self.log.is_some_and(|(_, at)| at < self.end)).and_then(Writer::wait);
        let slow = self.to.iter().filter_map(|sink| sink.client.as_ref()?.blocks?.checked_add(PATIENCE));
        source.into_iter().chain(log).chain(slow).min()
    }

    /// Nothing will move any more.
    pub(super) fn finished(&self) -> bool {
        self.from.is_none() && self.lowest() == self.end
    }

    fn lowest(&self) -> usize {
        self.to.iter().map(|sink| sink.at).chain(self.log.map(|(_, at)| at)).min().unwrap_or(self.end)
    }

    /// The sandbox, or its end, waits for this one.
    fn waits_for(&self, sink: &Sink, last: bool) -> bool {
        sink.at < self.end && (last || self.end == ROOM)
    }

    /// Is there a reason to pump?
    pub(super) fn is_due(&self, log: Option<&Writer>, now: Instant) -> bool {
        self.readable || self.to.iter().any(|sink| sink.writable) || self.rest(log, now).is_some_and(|at| at <= now)
    }

    /// Move what can be moved. `last`: the sandbox is gone, so an empty source is at its end. Returns who was given up.
    pub(super) fn pump(&mut self, last: bool, now: Instant, mut log: Option<&mut Writer>) -> Option<u64> {
        let given_up = self.lose_patience(last, now);
        self.readable |= last;
        // A bounded number of turns, so that one busy stream cannot make us deaf to the others and to signals.
        for _ in 0..16 {
            let moved = self.fill(last, now) | self.flush() | self.write_down(log.as_deref_mut());
            if self.lowest() == self.end {
                let held = self.end..self.end + self.held;
                self.buffer.copy_within(held, 0);
                self.end = 0;
                self.to.iter_mut().for_each(|sink| sink.at = 0);
                self.log.iter_mut().for_each(|(_, at)| *at = 0);
            }
            if !moved {
                break;
            }
            // What poll said holds for one call on a description that may block.
            self.readable &= self.from.as_ref().is_some_and(|port| port.manner != Manner::Careful);
            self.to.iter_mut().for_each(|sink| sink.writable = false);
        }
        self.readable = false;
        self.to.iter_mut().for_each(|sink| sink.writable = false);
        if self.from.is_none() && self.lowest() == self.end {
            self.to.clear(); // the end of a pipe: the workload reads end-of-file
        }
        for n in 0..self.to.len() {
            let blocks = self.to.get(n).is_some_and(|sink| self.waits_for(sink, last));
            for client in self.to.get_mut(n).iter_mut().filter_map(|sink| sink.client.as_mut()) {
                client.blocks = client.blocks.filter(|_| blocks).or(Some(now).filter(|_| blocks));
            }
        }
        given_up
    }

    fn fill(&mut self, last: bool, now: Instant) -> bool {
        let Some(port) = self.from.as_ref().filter(|_| self.readable && !self.left) else { return false };
        let from = self.end + self.held;
        let Some(space) = self.buffer.get_mut(from..).filter(|space| !space.is_empty()) else { return false };
        match port.read(space) {
            Ok(n) if n > 0 => {
                self.rest = None;
                self.grow(from + n);
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) if !last => {}
            // All slaves of the pty are closed (another may be opened), or our own terminal while we are in the background.
            Err(Errno::IO) if !last => self.rest = now.checked_add(REST),
            Ok(_) | Err(_) => {
                self.from = None;
                self.grow(from);
            }
        }
        false
    }

    /// What is there reaches to here, but for what may be the keys.
    fn grow(&mut self, to: usize) {
        let before = self.end;
        let typed = self.buffer.get(before..to).unwrap_or_default();
        (self.end, self.held) = match self.keys.as_ref().filter(|_| self.from.is_some()).map(|keys| keys.find(typed)) {
            None => (to, 0),
            Some(Typed::Maybe(held)) => (to - held, held),
            Some(Typed::Here(at)) => {
                (self.from, self.left) = (None, true);
                (before + at, 0)
            }
        };
        if let Some(screen) = &mut self.screen {
            screen.sees(self.buffer.get(before..self.end).unwrap_or_default());
        }
        for sink in &mut self.to {
            if let Some(client) = sink.client.as_mut().filter(|c| c.missing > 0) {
                client.missing += (self.end - before) as u64;
                sink.at = self.end;
            }
        }
    }

    fn flush(&mut self) -> bool {
        let (end, count, mut moved) = (self.end, self.to.len(), false);
        self.to.retain_mut(|sink| {
            let ready = sink.writable || sink.port.manner != Manner::Careful;
            if let Some(client) = sink.client.as_mut().filter(|c| c.missing > 0) {
                // Not before somebody reads again: a full pipe may still have room for a few bytes.
                if !sink.writable {
                    return true;
                }
                let note = format!("\r\n[sandbox: {} bytes are missing here, as this terminal took none for {PATIENCE:?}]\r\n", client.missing);
                match sink.port.write(note.as_bytes()) {
                    Ok(_) => client.missing = 0,
                    Err(Errno::AGAIN | Errno::INTR) => return true,
                    Err(_) => return false,
                }
            }
            let Some(bytes) = self.buffer.get(sink.at..end).filter(|bytes| ready && !bytes.is_empty()) else { return true };
            match sink.port.write(bytes) {
                Ok(n) => {
                    sink.at += n;
                    moved |= n > 0;
                    sink.client.iter_mut().for_each(|c| c.blocks = None);
                    true
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                // EPIPE, or EIO from a terminal that is closed, or ENOSPC: nobody will have these bytes.
                Err(_) => false,
            }
        });
        self.broken |= self.to.is_empty() && count > 0;
        if self.to.is_empty() && count > 0 && self.orphan == Orphan::Close {
            (self.from, self.end, self.held) = (None, 0, 0);
        }
        moved || self.to.len() < count
    }

    fn write_down(&mut self, log: Option<&mut Writer>) -> bool {
        let Some((stream, at)) = &mut self.log else { return false };
        let Some(bytes) = self.buffer.get(*at..self.end).filter(|bytes| !bytes.is_empty()) else { return false };
        let taken = log.map_or(bytes.len(), |log| log.take(*stream, bytes));
        *at += taken;
        taken > 0
    }

    /// Who took nothing for so long, and is in the way: a screen is left with a gap, anybody else is given up, since a gap in a stream of
    /// bytes makes it wrong.
    fn lose_patience(&mut self, last: bool, now: Instant) -> Option<u64> {
        let end = self.end;
        let waits = |client: &Client| client.blocks.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        let slow = self.to.iter().position(|sink| sink.client.as_ref().is_some_and(waits))?;
        let (sink, client) = self.to.get_mut(slow).and_then(|sink| Some((&mut sink.at, sink.client.as_mut()?)))?;
        if client.screen && !last {
            client.missing += (end - *sink) as u64;
            (*sink, client.blocks) = (end, None);
            return None;
        }
        let number = client.number;
        self.to.remove(slow);
        Some(number)
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
        let careful = |fd| Port::new(fd, Manner::Careful, false);
        let mut flow = Flow::new(Port::ours(source).unwrap(), careful(out.try_clone().unwrap()), Orphan::Close);
        rustix::io::write(&filler, &[7; 10000]).unwrap();
        // 15 of the 16 pages of the pipe are taken: one write of PIPE_BUF fits, and poll says so once.
        rustix::io::write(&out, &[1; 15 * PIPE_BUF]).unwrap();
        let now = Instant::now();
        flow.is_readable();
        flow.is_writable(0);
        flow.pump(false, now, None);
        assert_eq!(flow.end - flow.lowest(), 10000 - PIPE_BUF);
        flow.is_readable();
        flow.pump(false, now, None);
        assert_eq!(flow.end - flow.lowest(), 10000 - PIPE_BUF);
        drop(full);
        flow.is_writable(0);
        flow.pump(false, now, None); // EPIPE (Rust ignores SIGPIPE)
        assert!(flow.finished() && flow.source(now).is_none());

        // An empty pipe, read without poll's yes, would wait for ever.
        let (empty, _writer) = pipe();
        let mut flow = Flow::new(careful(empty), Port::ours(filler).unwrap(), Orphan::Close);
        flow.is_writable(0);
        flow.pump(false, now, None);
        assert!(!flow.finished());
    }

    #[test]
    fn a_pty_master_is_not_opened_again() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        assert_eq!(Port::theirs(master.as_fd(), OFlags::WRONLY).unwrap().manner, Manner::Careful);
    }
}
