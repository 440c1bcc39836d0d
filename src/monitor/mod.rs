//! Stay with a living sandbox: relay its streams, forward signals, keep its time, return its exit status.
//!
//! *What*: after clone the command line's own process stays in the foreground and does nothing but this. `stay` is called once by
//! `cli` (through `launch`) and comes back when PID 1 of the sandbox, and with it every process inside, is gone.
//!
//! *Why this way*: one thread, one poll(2) over at most nine descriptors, no runtime. Signals arrive on a descriptor, the end of
//! PID 1 on its pidfd, so there are no signal races and nothing to interrupt. Rejected: a process per stream (as `script` does),
//! which survives us; tokio, which needs threads before clone or a second loop.
//!
//! *Invariants*
//! - M1 nothing here blocks but poll (see relay.rs for the one exception), and buffers are `relay::ROOM` bytes per direction.
//! - M2 the caller's terminal is as we found it whenever we stop or return; the flags of the caller's descriptors never change.
//! - M3 no bytes are lost: what the sandbox wrote before its end is written out before we return, unless a signal or the time
//!   limit ends the waiting for a reader that does not read.
//! - M4 nothing outlives `stay`: if it fails, PID 1 is killed and reaped first. (Rejected: to leave at PID 1's last words, as
//!   bubblewrap does. It would save most of the millisecond that the kernel takes to drop the mounts, and leave a zombie for each run
//!   where whoever is the machine's PID 1 is slow to reap, or never does, as in most containers.)
//! - M5 a person can always end it: the third SIGINT or SIGTERM within the grace, a closed terminal and the time limit each lead
//!   to SIGKILL.
//!
//! *Kernel*
//! - pidfd_send_signal, 5.1: a pid may be somebody else's by now, a pidfd never. man: pidfd_send_signal(2)
//! - waitid P_PIDFD, 5.4: reap exactly this child. man: waitid(2)
//! - pidfd readable at exit, 5.3, and for PID 1 only after all others of its namespace are gone.
//!   kernel: kernel/pid_namespace.c zap_pid_ns_processes()
#![forbid(unsafe_code)]

mod relay;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;

pub use signals::Signals;

use crate::error::{Doing, Error, Kind, Result};
use crate::sys;
use crate::sys::signal::{pidfd_send, suffer};
use crate::tape::wire::FAREWELL;
use relay::{Flow, Orphan, Port, REST};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use terminal::Terminal;

/// From being asked to stop to being killed; also the span in which the third SIGINT or SIGTERM kills.
pub const GRACE: Duration = Duration::from_secs(10);

/// A command that runs for so long may run for hours.
const SETTLED: Duration = Duration::from_millis(50);

/// A sandbox that runs, as `launch` hands it over.
#[derive(Debug)]
pub struct Living {
    /// PID 1 of the sandbox (our init); readable = it exited.
    pub pidfd: OwnedFd,
    /// Seqpacket socket; the init's last words arrive here: 4 bytes native-endian, the workload's wait status as of waitpid(2).
    pub wire: OwnedFd,
    pub streams: Streams,
    pub stop_signal: i32,
    pub timeout: Option<Duration>,
    /// After its last words the init waits for us: `Event::Ended` is the time to look at the cgroup.
    pub lingers: bool,
    /// It is no init, but a command that joined a sandbox.
    pub joined: Option<Joined>,
}

/// What an init would do for a command, and we must.
#[derive(Debug)]
pub struct Joined {
    /// The command's process group; until we reap it, the number is its own.
    pub group: i32,
    /// PID 1 of the sandbox, whose end is the command's, too.
    pub sandbox: OwnedFd,
}

/// What the parent has to carry between the caller's descriptors 0, 1, 2 and the sandbox.
#[derive(Debug)]
pub enum Streams {
    /// Nothing: the sandbox has the caller's own files and pipes.
    Direct,
    /// Pipes for those of the three that are terminals (our ends; None = that stream is direct). stdin: our write end.
    Pipes { stdin: Option<OwnedFd>, stdout: Option<OwnedFd>, stderr: Option<OwnedFd> },
    /// Our side of the sandbox's pty. Without `interactive` the caller's stdin is not read.
    Terminal { master: OwnedFd, interactive: bool },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: ExitStatus,
    /// The time limit was reached first.
    pub timed_out: bool,
}

impl Exit {
    /// The command's own, or 128 and the signal that ended it.
    pub fn code(&self) -> u8 {
        let code = self.status.code().or_else(|| self.status.signal().map(|n| n + 128));
        code.and_then(|n| u8::try_from(n).ok()).unwrap_or(u8::MAX)
    }
}

/// What happened meanwhile, for the status descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This signal went to PID 1.
    SignalForwarded(i32),
    /// Ctrl-Z: the sandbox and we stop now.
    Stopped,
    Continued,
    /// The time limit is reached; the stop signal went to PID 1.
    TimedOut,
    /// The caller's terminal was closed.
    HungUp,
    /// SIGKILL went to PID 1.
    Killed,
    /// The command has ended; its cgroup is still there.
    Ended,
}

/// Stay until PID 1 is gone, and reap it. In the thread that called `Signals::take`.
pub fn stay(living: Living, signals: Signals, on_event: &mut dyn FnMut(Event)) -> Result<Exit> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut stop = || suffer(libc::SIGTSTP);
    let caller = Caller { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd(), stop: &mut stop, grace: GRACE };
    stay_on(living, signals, caller, on_event)
}

/// Our side of the world; tests bring their own.
struct Caller<'a> {
    stdin: BorrowedFd<'a>,
    stdout: BorrowedFd<'a>,
    stderr: BorrowedFd<'a>,
    /// Stop this process; returns when it is continued.
    stop: &'a mut dyn FnMut() -> sys::Result<()>,
    grace: Duration,
}

fn stay_on<'a>(living: Living, signals: Signals, caller: Caller<'a>, on_event: &'a mut (dyn FnMut(Event) + 'a)) -> Result<Exit> {
    let Living { pidfd, wire, streams, stop_signal, timeout, lingers, joined } = living;
    let mut watch = Watch {
        pidfd,
        wire,
        joined,
        lingers,
        words: None,
        settle_at: Instant::now().checked_add(SETTLED),
        signals,
        caller,
        terminal: None,
        inward: None,
        outward: Vec::new(),
        stop_signal,
        deadline: timeout.and_then(|limit| Instant::now().checked_add(limit)),
        timed_out: false,
        kill_at: None,
        pressed: [None; 2],
        gone: None,
        give_up: false,
        on_event,
    };
    watch.open(streams)?;
    let own = watch.run()?;
    let words = watch.words.or_else(|| last_words(watch.wire.as_fd()));
    Ok(Exit { status: words.unwrap_or(own), timed_out: watch.timed_out })
}

/// The state of the loop.
struct Watch<'a> {
    pidfd: OwnedFd,
    wire: OwnedFd,
    joined: Option<Joined>,
    /// The init is going to wait for us.
    lingers: bool,
    /// How the command ended, once we have been told.
    words: Option<ExitStatus>,
    /// When to give back the memory that was for starting: if we stay, but not for a command that is done by then.
    settle_at: Option<Instant>,
    signals: Signals,
    caller: Caller<'a>,
    terminal: Option<Terminal<'a>>,
    /// Caller to sandbox. Ends with the sandbox.
    inward: Option<Flow>,
    /// Sandbox to caller.
    outward: Vec<Flow>,
    stop_signal: i32,
    deadline: Option<Instant>,
    timed_out: bool,
    /// When to send SIGKILL.
    kill_at: Option<Instant>,
    /// When the last two SIGINT or SIGTERM came.
    pressed: [Option<Instant>; 2],
    /// PID 1's own status, once it is gone.
    gone: Option<ExitStatus>,
    /// Gone, and nobody waits for the rest of the output.
    give_up: bool,
    on_event: &'a mut dyn FnMut(Event),
}

impl<'a> Watch<'a> {
    fn open(&mut self, streams: Streams) -> Result<()> {
        let caller = &self.caller;
        match streams {
            Streams::Direct => {}
            Streams::Pipes { stdin, stdout, stderr } => {
                if let Some(pipe) = stdin {
                    self.inward = Some(Flow::new(Port::theirs(caller.stdin, OFlags::RDONLY)?, Port::ours(pipe)?, Orphan::Close));
                }
                for (pipe, to) in [(stdout, caller.stdout), (stderr, caller.stderr)] {
                    if let Some(pipe) = pipe {
                        self.outward.push(Flow::new(Port::ours(pipe)?, Port::theirs(to, OFlags::WRONLY)?, Orphan::Close));
                    }
                }
            }
            Streams::Terminal { master, interactive } => {
                let copy = || rustix::io::fcntl_dupfd_cloexec(&master, 3).doing("duplicate", "the terminal");
                if interactive {
                    self.inward = Some(Flow::new(Port::theirs(caller.stdin, OFlags::RDONLY)?, Port::ours(copy()?)?, Orphan::Close));
                }
                self.outward.push(Flow::new(Port::ours(copy()?)?, Port::theirs(caller.stdout, OFlags::WRONLY)?, Orphan::Discard));
                let tty = |fd: &BorrowedFd<'a>| rustix::termios::isatty(*fd);
                let window = [caller.stdin, caller.stdout, caller.stderr].into_iter().find(tty);
                let keyboard = Some(caller.stdin).filter(|fd| interactive && tty(fd));
                let mut theirs = Terminal::new(master, window, keyboard);
                theirs.resize();
                theirs.enter();
                self.terminal = Some(theirs);
            }
        }
        Ok(())
    }

    /// Returns PID 1's own status when it is gone and its output is written.
    fn run(&mut self) -> Result<ExitStatus> {
        loop {
            self.turn()?;
            if let Some(status) = self.gone.filter(|_| self.give_up || self.outward.is_empty()) {
                return Ok(status);
            }
        }
    }

    /// Wait for one thing to happen, and deal with all that has.
    fn turn(&mut self) -> Result<()> {
        let now = Instant::now();
        let (mut signalled, mut over, mut told, mut left, mut inward, mut outward) = (false, false, false, false, [false; 2], [[false; 2]; 2]);
        {
            // The end of PID 1 and signals first, then the flows; `marks` says where each answer goes.
            let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(9);
            let mut marks: Vec<&mut bool> = Vec::with_capacity(9);
            fds.push(PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN));
            marks.push(&mut signalled);
            if self.gone.is_none() {
                fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
                marks.push(&mut over);
                if let Some(joined) = &self.joined {
                    fds.push(PollFd::new(&joined.sandbox, PollFlags::IN));
                    marks.push(&mut left);
                }
                if self.lingers {
                    fds.push(PollFd::new(&self.wire, PollFlags::IN));
                    marks.push(&mut told);
                }
            }
            for (flow, [readable, writable]) in self.inward.iter().zip([&mut inward]).chain(self.outward.iter().zip(&mut outward)) {
                // Once PID 1 is gone the sources are read without asking: they are full, or at their end.
                if let Some(fd) = flow.source(now).filter(|_| self.gone.is_none()) {
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                    marks.push(readable);
                }
                if let Some(fd) = flow.sink() {
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
                    marks.push(writable);
                }
            }
            let wait = self.next_alarm(now).map(|at| at.saturating_duration_since(now)).map(rustix::time::Timespec::try_from);
            let wait = wait.transpose().unwrap_or(None);
            match poll(&mut fds, wait.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(()),
                Err(e) => return Err(e).doing("wait for", "the sandbox"),
            }
            for (fd, mark) in fds.iter().zip(marks) {
                *mark = !fd.revents().is_empty();
            }
        }
        while let Some(signal) = if signalled { self.signals.next()? } else { None } {
            self.signal(signal)?;
        }
        let now = Instant::now();
        self.clock(now)?;
        if left {
            // The kernel does it, but where the pids are the host's.
            self.kill()?;
            self.joined = None;
        }
        if told {
            self.lingers = false;
            self.words = last_words(self.wire.as_fd());
            (self.on_event)(Event::Ended);
            let _ = rustix::net::send(&self.wire, &[FAREWELL], rustix::net::SendFlags::NOSIGNAL);
        }
        if over {
            self.gone = Some(reap(self.pidfd.as_fd())?);
            (self.inward, self.terminal) = (None, None); // restored now: Ctrl-C must end a wait for the reader of the rest
            // The limit was for the workload. It also ends the wait for a reader that does not read, a grace later at the latest.
            self.deadline = self.deadline.map(|at| if self.timed_out { now + self.caller.grace } else { at });
            self.kill_at = None;
        }
        let last = self.gone.is_some();
        for (flow, [readable, writable]) in self.inward.iter_mut().zip([inward]).chain(self.outward.iter_mut().zip(outward)) {
            if readable || writable || last {
                flow.pump(readable, writable, last, now);
            }
        }
        self.inward.take_if(|flow| flow.finished());
        self.outward.retain(|flow| !flow.finished());
        Ok(())
    }

    fn next_alarm(&self, now: Instant) -> Option<Instant> {
        let deadline = self.deadline.filter(|_| !self.timed_out || self.gone.is_some());
        let raw = self.terminal.as_ref().filter(|t| t.waits()).and_then(|_| now.checked_add(REST));
        let flows = self.inward.iter().chain(&self.outward).filter_map(Flow::rest);
        // More to read of a sandbox that is gone, and room for it: at once.
        let rest = self.outward.iter().filter(|flow| self.gone.is_some() && flow.source(now).is_some()).map(|_| now);
        flows.chain(rest).chain(deadline).chain(self.kill_at).chain(raw).chain(self.settle_at).min()
    }

    fn clock(&mut self, now: Instant) -> Result<()> {
        if let Some(terminal) = self.terminal.as_mut().filter(|t| t.waits()) {
            terminal.enter();
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.settle_at) {
            self.settle_at = None;
            sys::process::forget_text();
        }
        if self.gone.is_some() {
            self.give_up |= due(self.deadline);
            return Ok(());
        }
        if due(self.deadline) && !self.timed_out {
            self.timed_out = true;
            (self.on_event)(Event::TimedOut);
            self.send(self.stop_signal)?;
            self.send(libc::SIGCONT)?; // a stopped workload could not act on it
            self.kill_after_grace(now);
        }
        if due(self.kill_at) {
            self.kill()?;
        }
        Ok(())
    }

    fn signal(&mut self, signal: i32) -> Result<()> {
        let now = Instant::now();
        match signal {
            libc::SIGTSTP => return self.stop(),
            libc::SIGCONT => return self.resume(),
            libc::SIGWINCH if self.terminal.is_some() => {
                self.terminal.iter().for_each(Terminal::resize);
                return Ok(());
            }
            libc::SIGHUP if self.hung_up() => {
                (self.on_event)(Event::HungUp);
                // Dropping our side hangs up the session inside; what it still wants to say, nobody could read.
                if let Some(mut terminal) = self.terminal.take() {
                    terminal.close();
                    (self.inward, self.outward) = (None, Vec::new());
                }
                self.kill_after_grace(now);
            }
            libc::SIGINT | libc::SIGTERM => {
                let [earlier, previous] = self.pressed;
                if earlier.is_some_and(|at| now.saturating_duration_since(at) <= self.caller.grace) {
                    return self.kill();
                }
                self.pressed = [previous, Some(now)];
            }
            _ => {}
        }
        // Whoever wants us to end after the sandbox has: the reader of its last output is not worth waiting for.
        self.give_up |= self.gone.is_some() && matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM);
        let key = matches!(signal, libc::SIGINT | libc::SIGQUIT);
        if self.terminal.as_ref().is_some_and(|t| key && t.interrupt(signal)) || self.send(signal)? {
            (self.on_event)(Event::SignalForwarded(signal));
        }
        Ok(())
    }

    /// Ctrl-Z: the sandbox first, then we.
    fn stop(&mut self) -> Result<()> {
        self.send(libc::SIGTSTP)?;
        if let Some(terminal) = &mut self.terminal {
            terminal.leave();
        }
        (self.on_event)(Event::Stopped);
        (self.caller.stop)().doing("stop", "myself")?;
        // Not left to the SIGCONT that waits on the signalfd: the kernel refuses to stop an orphaned process group.
        self.resume()?;
        (self.on_event)(Event::Continued);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        if let Some(terminal) = &mut self.terminal {
            terminal.resume();
        }
        self.send(libc::SIGCONT).map(drop)
    }

    /// Is one of the caller's three a terminal that was closed? Then SIGHUP is no mere "read your configuration again".
    /// kernel: drivers/tty/tty_io.c hung_up_tty_ioctl()
    fn hung_up(&self) -> bool {
        let closed = |fd: BorrowedFd<'_>| matches!(rustix::termios::tcgetattr(fd), Err(Errno::IO));
        closed(self.caller.stdin) || closed(self.caller.stdout) || closed(self.caller.stderr)
    }

    fn kill_after_grace(&mut self, now: Instant) {
        let at = now.checked_add(self.caller.grace);
        self.kill_at = self.kill_at.into_iter().chain(at).min();
    }

    fn kill(&mut self) -> Result<()> {
        self.kill_at = None;
        self.give_up |= self.gone.is_some();
        if self.send(libc::SIGKILL)? {
            (self.on_event)(Event::Killed);
        }
        Ok(())
    }

    /// False if PID 1 is gone already.
    fn send(&self, signal: i32) -> Result<bool> {
        let sent = match &self.joined {
            // As from a terminal. SIGTSTP means nothing to an orphaned process group. // tape/init.rs
            Some(joined) if self.gone.is_none() && matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGCONT) => {
                sys::process::kill(-joined.group, if signal == libc::SIGTSTP { libc::SIGSTOP } else { signal })
            }
            _ => pidfd_send(self.pidfd.as_fd(), signal),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(e) => Err(e).doing("signal", "the sandbox"),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.gone.is_none() {
            let _ = pidfd_send(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = reap(self.pidfd.as_fd());
        }
    }
}

/// PID 1's own status. `__WALL`: whatever signal its end was to send us.
fn reap(pidfd: BorrowedFd<'_>) -> Result<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    let status = loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Err(Errno::INTR) => {}
            other => break other.doing("wait for", "the sandbox")?,
        }
    };
    let raw = status.and_then(|s| s.exit_status().map(|code| code << 8).or_else(|| s.terminating_signal()));
    raw.map(ExitStatus::from_raw).ok_or_else(|| Error::new(Kind::Bug, "cannot tell how the sandbox ended"))
}

/// The workload's status, if the init lived to tell it.
fn last_words(wire: BorrowedFd<'_>) -> Option<ExitStatus> {
    let mut words = None;
    loop {
        let mut message = [0u8; 8];
        match rustix::net::recv(wire, &mut message, rustix::net::RecvFlags::DONTWAIT) {
            Ok((0, _)) => return words,
            Ok((4, _)) => {
                let [a, b, c, d, ..] = message;
                let status = ExitStatus::from_raw(i32::from_ne_bytes([a, b, c, d]));
                words = Some(status).filter(|s| s.code().is_some() || s.signal().is_some()).or(words);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return words,
        }
    }
}
