//! Stay with a living sandbox: relay its streams, forward signals, keep its time, return its exit status.
//!
//! *What*: after clone the command line's own process stays in the foreground and does nothing but this. `stay` is called once by
//! `cli` (through `launch`) and comes back when PID 1 of the sandbox, and with it every process inside, is gone. `stay_detached` is the
//! same for a monitor, whose sandbox speaks to a log and to whoever comes to the `door`; `attach` the same again for one who came.
//!
//! *Why this way*: one thread, one poll(2) over at most nine descriptors (and four more for each who is attached), no runtime. Signals arrive
//! on a descriptor, the end of PID 1 on its pidfd, so there are no signal races and nothing to interrupt. Rejected: a process per stream (as
//! `script` does), which survives us; tokio, which needs threads before clone or a second loop; a loop of its own for each of the three.
//!
//! *Invariants*
//! - M1 nothing here blocks but poll (see relay.rs for the one exception, and logs/write.rs: a disk), and buffers are `relay::ROOM` bytes per direction.
//! - M2 the caller's terminal is as we found it whenever we stop or return, and its screen when we return; the flags of the caller's descriptors never change.
//! - M3 no bytes are lost: what the sandbox wrote before its end is written out before we return, unless a signal or the time
//!   limit ends the waiting for a reader that does not read.
//! - M4 nothing outlives `stay`: if it fails, PID 1 is killed and reaped first. (Rejected: to leave at PID 1's last words, as
//!   bubblewrap does. It would save most of the millisecond that the kernel takes to drop the mounts, and leave a zombie for each run
//!   where whoever is the machine's PID 1 is slow to reap, or never does, as in most containers.)
//! - M5 a person can always end it: the third SIGINT or SIGTERM within the grace, a closed terminal and the time limit each lead
//!   to SIGKILL. Who is attached to a sandbox of others leaves it with them.
//! - M6 no reader holds up a detached sandbox for longer than `relay::PATIENCE`, and no client can make it end but by its signals.
//!
//! *Kernel*
//! - pidfd_send_signal, 5.1: a pid may be somebody else's by now, a pidfd never. man: pidfd_send_signal(2)
//! - waitid P_PIDFD, 5.4: reap exactly this child. man: waitid(2)
//! - pidfd readable at exit, 5.3, and for PID 1 only after all others of its namespace are gone.
//!   kernel: kernel/pid_namespace.c zap_pid_ns_processes()
#![forbid(unsafe_code)]

pub mod control;
mod door;
mod keys;
mod relay;
mod screen;
mod signals;
mod terminal;
#[cfg(test)]
mod tests;

pub use control::{Answer, Ask, Attach, Input, Link};
pub use door::Door;
pub use keys::Keys;
pub use signals::Signals;

use crate::cgroup::Usage;
use crate::error::{Doing, Error, Kind, Result};
use crate::logs::Stream;
use crate::owners::Supervisor;
use crate::role::Role;
use crate::sys;
use crate::sys::signal::{pidfd_send, suffer};
use crate::tape::wire::FAREWELL;
use door::Heard;
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

/// From here on it is no brief command.
const SETTLED: Duration = Duration::from_millis(50);

/// A sandbox that runs, as `launch` hands it over.
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
    /// Who serves its overlays: without it the sandbox is over.
    pub server: Option<Role>,
    /// Who answers for its ids.
    pub supervisor: Option<Supervisor>,
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
    /// The caller's terminal was closed, or nobody reads what the sandbox shows on its own.
    HungUp,
    /// SIGKILL went to PID 1.
    Killed,
    /// It runs for a while already: it may run for hours.
    Settled,
    /// The command has ended; its cgroup is still there.
    Ended,
}

/// Stay until PID 1 is gone, and reap it. In the thread that called `Signals::take`.
pub fn stay(living: Living, signals: Signals, on_event: &mut dyn FnMut(Event)) -> Result<Exit> {
    let (three, mut stop) = (Three::default(), suspend);
    stay_on(living, &signals, three.caller(&mut stop), None, on_event)
}

/// The same for a detached sandbox: its streams go to the log and to who comes to the door.
pub fn stay_detached(living: Living, signals: &Signals, door: &mut Door, on_event: &mut dyn FnMut(Event)) -> Result<Exit> {
    let (three, mut stop) = (Three::default(), suspend);
    stay_on(living, signals, three.caller(&mut stop), Some(door), on_event)
}

fn suspend() -> sys::Result<()> {
    suffer(libc::SIGTSTP)
}

/// Our own descriptors 0, 1 and 2.
struct Three(std::io::Stdin, std::io::Stdout, std::io::Stderr);

impl Default for Three {
    fn default() -> Three {
        Three(std::io::stdin(), std::io::stdout(), std::io::stderr())
    }
}

impl Three {
    fn caller<'a>(&'a self, stop: &'a mut dyn FnMut() -> sys::Result<()>) -> Caller<'a> {
        Caller { stdin: self.0.as_fd(), stdout: self.1.as_fd(), stderr: self.2.as_fd(), stop, grace: GRACE }
    }
}

/// How to be attached.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Pass on signals that we get.
    pub proxy: bool,
    /// The sandbox was started for this one, and ends with it: it is `run` for whoever looks at it.
    pub leash: bool,
    /// What is typed to let go, where stdin is a terminal.
    pub keys: Keys,
}

/// How being attached ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    Exited(Exit, Option<Box<Usage>>),
    /// The sandbox goes on.
    Detached,
    /// So does it, and we were told to end by this signal.
    Signalled(i32),
}

/// Take part in the streams of a detached sandbox, whose monitor has been asked for that over `link`, and answers.
pub fn attach(link: Link, manner: Manner, signals: &Signals, on_event: &mut dyn FnMut(Event)) -> Result<Left> {
    let (three, mut stop) = (Three::default(), suspend);
    attach_on(link, manner, signals, three.caller(&mut stop), on_event)
}

fn attach_on<'a>(link: Link, manner: Manner, signals: &'a Signals, caller: Caller<'a>, on_event: &'a mut (dyn FnMut(Event) + 'a)) -> Result<Left> {
    let (answer, mut fds) = link.answer()?.ok_or_else(monitor_died)?;
    let (input, terminal) = match answer {
        Answer::Attached { input, terminal } => (input, terminal),
        Answer::Refused { why } => return Err(Error::new(Kind::Conflict, why)),
        other => return Err(Error::new(Kind::Bug, format!("the sandbox's monitor answered {other:?}"))),
    };
    let mut fds = fds.iter_mut().filter_map(Option::take);
    let stdin = if input { fds.next() } else { None };
    let streams = Remote { stdin, stdout: fds.next(), stderr: fds.next(), terminal };
    let Manner { proxy, leash, keys } = manner;
    let mut watch = Watch::new(Sandbox::There { link, proxy, leash, left: None }, signals, caller, on_event);
    watch.open_remote(streams, keys)?;
    watch.run()?;
    let Sandbox::There { link, left, .. } = &watch.sandbox else { return Err(Error::new(Kind::Bug, "attached to nothing")) };
    if let Some(left) = left {
        let _ = link.ask(&Ask::Detach);
        return Ok(left.clone());
    }
    let used = watch.used.take();
    watch.gone.map(|exit| Left::Exited(exit, used)).ok_or_else(monitor_died)
}

fn monitor_died() -> Error {
    Error::new(Kind::Io, "cannot go on: the sandbox's monitor has ended, and the sandbox with it").hint("sandbox ps -a tells what is left")
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

/// The streams of a sandbox that somebody else stays with.
struct Remote {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: bool,
}

fn stay_on<'a>(
    living: Living,
    signals: &'a Signals,
    caller: Caller<'a>,
    door: Option<&'a mut Door>,
    on_event: &'a mut (dyn FnMut(Event) + 'a),
) -> Result<Exit> {
    let Living { pidfd, wire, streams, stop_signal, timeout, lingers, joined, server, supervisor } = living;
    let sandbox = Sandbox::Here { pidfd, wire, joined, lingers, server, words: None, master: None };
    let mut watch = Watch::new(sandbox, signals, caller, on_event);
    watch.door = door;
    watch.stop_signal = stop_signal;
    watch.deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
    watch.open(streams)?;
    watch.run()?;
    drop(supervisor); // it has yet to say whose the last files are, as long as they are served
    match watch.unserved.take() {
        Some(e) => Err(Error::new(Kind::Io, format!("cannot go on: the sandbox's tree is not served any more: {}", e.message()))
            .hint("what was written is in its layer, if that is kept; sandbox start or run goes on with it")),
        None => watch.gone.ok_or_else(|| Error::new(Kind::Bug, "the sandbox has not ended")),
    }
}

/// The sandbox, as the loop reaches it.
enum Sandbox {
    /// Our own child.
    Here {
        pidfd: OwnedFd,
        wire: OwnedFd,
        joined: Option<Joined>,
        /// The init is going to wait for us.
        lingers: bool,
        server: Option<Role>,
        /// How the command ended, once we have been told.
        words: Option<ExitStatus>,
        /// Our side of its pty.
        master: Option<OwnedFd>,
    },
    /// Through its monitor.
    There { link: Link, proxy: bool, leash: bool, left: Option<Left> },
}

/// For how long a terminal has another size, so that what is shown on it is drawn anew.
const REDRAW: Duration = Duration::from_millis(50);

/// The state of the loop.
struct Watch<'a> {
    sandbox: Sandbox,
    /// When to give back the memory that was for starting: if we stay, but not for a command that is done by then.
    settle_at: Option<Instant>,
    signals: &'a Signals,
    caller: Caller<'a>,
    /// Of a detached sandbox: who may come.
    door: Option<&'a mut Door>,
    terminal: Option<Terminal<'a>>,
    /// The size that the sandbox's terminal gets back then.
    redraw: Option<(Instant, u16, u16)>,
    /// To the sandbox; true: its end is that of the sandbox's stdin. They end with the sandbox.
    inward: Vec<(Flow, bool)>,
    /// From the sandbox.
    outward: Vec<Flow>,
    stop_signal: i32,
    deadline: Option<Instant>,
    timed_out: bool,
    /// When to send SIGKILL.
    kill_at: Option<Instant>,
    /// When the last two SIGINT or SIGTERM came.
    pressed: [Option<Instant>; 2],
    /// How it ended, once it has.
    gone: Option<Exit>,
    /// What it used, as its monitor says.
    used: Option<Box<Usage>>,
    /// Gone, and nobody waits for the rest of the output.
    give_up: bool,
    /// Why its tree could not be served any more.
    unserved: Option<Error>,
    on_event: &'a mut (dyn FnMut(Event) + 'a),
}

/// What a descriptor that poll looks at is for.
#[derive(Clone, Copy)]
enum Mark {
    Signals,
    Over,
    Told,
    Orphaned,
    Unserved,
    Link,
    Door(Option<u64>),
    Source { inward: bool, flow: usize },
    Sink { inward: bool, flow: usize, sink: usize },
}

impl<'a> Watch<'a> {
    fn new(sandbox: Sandbox, signals: &'a Signals, caller: Caller<'a>, on_event: &'a mut (dyn FnMut(Event) + 'a)) -> Watch<'a> {
        Watch {
            sandbox,
            settle_at: Instant::now().checked_add(SETTLED),
            signals,
            caller,
            door: None,
            terminal: None,
            redraw: None,
            inward: Vec::new(),
            outward: Vec::new(),
            stop_signal: libc::SIGTERM,
            deadline: None,
            timed_out: false,
            kill_at: None,
            pressed: [None; 2],
            gone: None,
            used: None,
            give_up: false,
            unserved: None,
            on_event,
        }
    }

    fn open(&mut self, streams: Streams) -> Result<()> {
        if self.door.is_some() {
            return self.open_door(streams);
        }
        let caller = &self.caller;
        match streams {
            Streams::Direct => {}
            Streams::Pipes { stdin, stdout, stderr } => {
                if let Some(pipe) = stdin {
                    self.inward.push((Flow::new(Port::theirs(caller.stdin, OFlags::RDONLY)?, Port::ours(pipe)?, Orphan::Close), true));
                }
                for (pipe, to) in [(stdout, caller.stdout), (stderr, caller.stderr)] {
                    if let Some(pipe) = pipe {
                        self.outward.push(Flow::new(Port::ours(pipe)?, Port::theirs(to, OFlags::WRONLY)?, Orphan::Close));
                    }
                }
            }
            Streams::Terminal { master, interactive } => {
                if interactive {
                    let to = Port::ours(duplicate(&master)?)?;
                    self.inward.push((Flow::new(Port::theirs(caller.stdin, OFlags::RDONLY)?, to, Orphan::Close), true));
                }
                let from = Port::ours(duplicate(&master)?)?;
                self.outward.push(Flow::new(from, Port::theirs(caller.stdout, OFlags::WRONLY)?, Orphan::Discard));
                self.has_terminal(master);
                self.look_at(interactive);
            }
        }
        Ok(())
    }

    fn has_terminal(&mut self, pty: OwnedFd) {
        if let Sandbox::Here { master, .. } = &mut self.sandbox {
            *master = Some(pty);
        }
    }

    /// The caller's terminal from now on shows the sandbox's.
    fn look_at(&mut self, interactive: bool) {
        let caller = &self.caller;
        let tty = |fd: &BorrowedFd<'a>| rustix::termios::isatty(*fd);
        let window = [caller.stdin, caller.stdout, caller.stderr].into_iter().find(tty);
        let keyboard = Some(caller.stdin).filter(|fd| interactive && tty(fd));
        self.terminal = Some(Terminal::new(window, keyboard));
        self.resize();
        self.terminal.iter_mut().for_each(Terminal::enter);
    }

    /// The streams of a detached sandbox.
    fn open_door(&mut self, streams: Streams) -> Result<()> {
        let (stdin, terminal) = match streams {
            Streams::Direct => (None, false),
            Streams::Pipes { stdin, stdout, stderr } => {
                for (pipe, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
                    if let Some(pipe) = pipe {
                        self.outward.push(Flow::logged(Port::ours(pipe)?, stream));
                    }
                }
                (stdin, false)
            }
            Streams::Terminal { master, interactive } => {
                let stdin = if interactive { Some(duplicate(&master)?) } else { None };
                self.outward.push(Flow::logged(Port::ours(duplicate(&master)?)?, Stream::Stdout).shown());
                self.has_terminal(master);
                (stdin, true)
            }
        };
        let mut early = Vec::new();
        if let Some(door) = &mut self.door {
            (door.stdin, door.terminal) = (stdin, terminal);
            early = door.early();
        }
        early.into_iter().try_for_each(|(number, ask)| self.asked(number, ask))
    }

    /// The streams of one that we attach to.
    fn open_remote(&mut self, streams: Remote, keys: Keys) -> Result<()> {
        let caller = &self.caller;
        let Remote { stdin, stdout, stderr, terminal } = streams;
        let interactive = stdin.is_some();
        if let Some(pipe) = stdin {
            let flow = Flow::new(Port::theirs(caller.stdin, OFlags::RDONLY)?, Port::ours(pipe)?, Orphan::Close);
            self.inward.push((if rustix::termios::isatty(caller.stdin) { flow.until(keys) } else { flow }, true));
        }
        let orphan = if terminal { Orphan::Discard } else { Orphan::Close };
        for (pipe, to) in [(stdout, caller.stdout), (stderr, caller.stderr)] {
            if let Some(pipe) = pipe {
                self.outward.push(Flow::new(Port::ours(pipe)?, Port::theirs(to, OFlags::WRONLY)?, orphan));
            }
        }
        if terminal {
            self.look_at(interactive);
        }
        Ok(())
    }

    /// Returns when it is gone and its output is written, or when we have left.
    fn run(&mut self) -> Result<()> {
        loop {
            self.turn()?;
            let left = matches!(self.sandbox, Sandbox::There { left: Some(_), .. });
            if left || self.gone.is_some() && (self.give_up || self.outward.is_empty()) {
                return Ok(());
            }
        }
    }

    /// Wait for something to happen; what can be dealt with now. The flows are told themselves.
    fn wait(&mut self) -> Result<Vec<Mark>> {
        let now = Instant::now();
        let gone = self.gone.is_some();
        // The end of PID 1 and signals first, then the flows; `marks` says what each is for.
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(9);
        let mut marks: Vec<Mark> = Vec::with_capacity(9);
        let mut look = |mark, fd, flags| {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            marks.push(mark);
        };
        look(Mark::Signals, self.signals.as_fd(), PollFlags::IN);
        match &self.sandbox {
            _ if gone => {}
            Sandbox::Here { pidfd, wire, joined, lingers, server, .. } => {
                look(Mark::Over, pidfd.as_fd(), PollFlags::IN);
                if let Some((_, server)) = server.as_ref().and_then(Role::process) {
                    look(Mark::Unserved, server, PollFlags::IN);
                }
                if let Some(joined) = joined {
                    look(Mark::Orphaned, joined.sandbox.as_fd(), PollFlags::IN);
                }
                if *lingers {
                    look(Mark::Told, wire.as_fd(), PollFlags::IN);
                }
            }
            Sandbox::There { link, .. } => look(Mark::Link, link.as_fd(), PollFlags::IN),
        }
        for (number, fd) in self.door.iter().flat_map(|door| door.descriptors()) {
            look(Mark::Door(number), fd, PollFlags::IN);
        }
        for (flow, (inward, n)) in self.flows() {
            // Once PID 1 is gone the sources are read without asking: they are full, or at their end.
            if let Some(fd) = flow.source(now).filter(|_| !gone) {
                look(Mark::Source { inward, flow: n }, fd, PollFlags::IN);
            }
            for (sink, fd) in flow.sinks() {
                look(Mark::Sink { inward, flow: n, sink }, fd, PollFlags::OUT);
            }
        }
        let wait = self.next_alarm(now).map(|at| at.saturating_duration_since(now)).map(rustix::time::Timespec::try_from);
        let wait = wait.transpose().unwrap_or(None);
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(e) => return Err(e).doing("wait for", "the sandbox"),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        marks.retain(|_| ready.next().unwrap_or(false));
        for mark in &marks {
            match mark {
                Mark::Source { inward, flow } => self.flow(*inward, *flow).into_iter().for_each(Flow::is_readable),
                Mark::Sink { inward, flow, sink } => self.flow(*inward, *flow).into_iter().for_each(|f| f.is_writable(*sink)),
                _ => {}
            }
        }
        Ok(marks)
    }

    fn flows(&self) -> impl Iterator<Item = (&Flow, (bool, usize))> {
        let inward = self.inward.iter().enumerate().map(|(n, (flow, _))| (flow, (true, n)));
        inward.chain(self.outward.iter().enumerate().map(|(n, flow)| (flow, (false, n))))
    }

    fn flow(&mut self, inward: bool, n: usize) -> Option<&mut Flow> {
        if inward { self.inward.get_mut(n).map(|(flow, _)| flow) } else { self.outward.get_mut(n) }
    }

    /// Wait for one thing to happen, and deal with all that has.
    fn turn(&mut self) -> Result<()> {
        let ready = self.wait()?;
        let has = |wanted: fn(&Mark) -> bool| ready.iter().any(wanted);
        let signalled = has(|m| matches!(m, Mark::Signals));
        while let Some(signal) = if signalled { self.signals.next()? } else { None } {
            self.signal(signal)?;
        }
        let now = Instant::now();
        self.clock(now)?;
        for mark in &ready {
            if let Mark::Door(number) = mark {
                self.hear(*number)?;
            }
        }
        if has(|m| matches!(m, Mark::Orphaned)) {
            self.is_orphaned()?;
        }
        if has(|m| matches!(m, Mark::Unserved)) {
            self.is_unserved()?;
        }
        if has(|m| matches!(m, Mark::Told)) {
            self.is_told();
        }
        if has(|m| matches!(m, Mark::Over)) {
            self.is_over(now)?;
        }
        if has(|m| matches!(m, Mark::Link)) {
            self.monitor_says(now)?;
        }
        self.pump(now)
    }

    fn pump(&mut self, now: Instant) -> Result<()> {
        let last = self.gone.is_some();
        for (flow, _) in self.inward.iter_mut().filter(|(flow, _)| flow.is_due(None, now)) {
            flow.pump(false, now, None);
        }
        let mut given_up = Vec::new();
        for flow in &mut self.outward {
            let log = self.door.as_mut().map(|door| &mut door.log);
            if last || flow.is_due(log.as_deref(), now) {
                given_up.extend(flow.pump(last, now, log));
            }
        }
        for number in given_up {
            self.outward.iter_mut().for_each(|flow| flow.part(number));
            if let Some(door) = &mut self.door {
                door.answer(number, &Answer::Dropped, &[]);
                door.part(number);
            }
        }
        if self.inward.iter().any(|(flow, _)| flow.left()) {
            self.leave(Left::Detached);
        }
        if self.outward.iter().any(Flow::broken) {
            match self.sandbox {
                Sandbox::There { leash: false, .. } => self.leave(Left::Detached),
                // Who writes to a pipe gets SIGPIPE; a terminal that shows nothing any more is one that was closed.
                _ if self.terminal.is_some() => {
                    (self.on_event)(Event::HungUp);
                    self.hang_up(now)?;
                    self.forward(libc::SIGHUP)?;
                }
                _ => {}
            }
        }
        let ended = self.inward.extract_if(.., |(flow, _)| flow.finished()).any(|(_, only)| only);
        if let Some(door) = self.door.as_mut().filter(|_| ended) {
            door.stdin = None;
        }
        self.outward.retain(|flow| !flow.finished());
        Ok(())
    }

    /// Let go of a sandbox that goes on without us.
    fn leave(&mut self, how: Left) {
        if let Sandbox::There { left, .. } = &mut self.sandbox {
            left.get_or_insert(how);
        }
    }

    /// PID 1 of the sandbox that the command joined is gone.
    fn is_orphaned(&mut self) -> Result<()> {
        // The kernel does it, but where the pids are the host's.
        self.kill()?;
        if let Sandbox::Here { joined, .. } = &mut self.sandbox {
            *joined = None;
        }
        Ok(())
    }

    /// Who served its overlays has ended: as it should, when the last of them was unmounted, or too soon.
    fn is_unserved(&mut self) -> Result<()> {
        let Sandbox::Here { server, .. } = &mut self.sandbox else { return Ok(()) };
        self.unserved = server.take().and_then(|server| server.finish::<()>().err());
        if self.unserved.is_some() { self.kill() } else { Ok(()) }
    }

    /// The init's last words.
    fn is_told(&mut self) {
        if let Sandbox::Here { wire, lingers, words, .. } = &mut self.sandbox {
            *lingers = false;
            *words = last_words(wire.as_fd()).or(*words);
            (self.on_event)(Event::Ended);
            let _ = rustix::net::send(&*wire, &[FAREWELL], rustix::net::SendFlags::NOSIGNAL);
        }
    }

    /// PID 1 is gone.
    fn is_over(&mut self, now: Instant) -> Result<()> {
        let Sandbox::Here { pidfd, wire, words, .. } = &self.sandbox else { return Ok(()) };
        let own = reap(pidfd.as_fd())?;
        let words = words.or_else(|| last_words(wire.as_fd()));
        self.has_gone(Exit { status: words.unwrap_or(own), timed_out: self.timed_out }, now);
        Ok(())
    }

    fn has_gone(&mut self, exit: Exit, now: Instant) {
        self.gone = Some(exit);
        self.terminal = None; // restored now: Ctrl-C must end a wait for the reader of the rest
        self.inward.clear();
        if let Sandbox::Here { master, .. } = &mut self.sandbox {
            *master = None;
        }
        // The limit was for the workload. It also ends the wait for a reader that does not read, a grace later at the latest.
        self.deadline = self.deadline.map(|at| if self.timed_out { now + self.caller.grace } else { at });
        self.kill_at = None;
    }

    /// We are attached, and hear from the monitor.
    fn monitor_says(&mut self, now: Instant) -> Result<()> {
        loop {
            let Sandbox::There { link, .. } = &self.sandbox else { return Ok(()) };
            match link.said(rustix::net::RecvFlags::DONTWAIT) {
                Ok(Some((Answer::Exited { status, timed_out, used }, _))) => {
                    self.used = used;
                    self.has_gone(Exit { status: ExitStatus::from_raw(status), timed_out }, now);
                    return Ok(());
                }
                Ok(Some((Answer::Dropped, _))) => {
                    let e = Error::new(Kind::Io, format!("cannot go on: nothing was read here for {} s", relay::PATIENCE.as_secs()));
                    return Err(e.hint("sandbox logs has what is missing, and sandbox attach goes on"));
                }
                Ok(Some((Answer::Done | Answer::Refused { .. } | Answer::Attached { .. }, _))) => {}
                Ok(None) => return Err(monitor_died()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e).doing("hear from", "the sandbox's monitor"),
            }
        }
    }

    /// Somebody is at the door (None), or one who is connected has said something.
    fn hear(&mut self, number: Option<u64>) -> Result<()> {
        let Some(number) = number else {
            self.door.iter_mut().for_each(|door| door.accept());
            return Ok(());
        };
        // Not all that it has to say at once: it may say more than we can do.
        for _ in 0..16 {
            match self.door.as_mut().and_then(|door| door.hear(number)) {
                None => break,
                Some(Heard::Ask(ask)) => self.asked(number, ask)?,
                Some(Heard::Gone(leash)) => {
                    self.outward.iter_mut().for_each(|flow| flow.part(number));
                    if leash {
                        self.kill()?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn asked(&mut self, number: u64, ask: Ask) -> Result<()> {
        let now = Instant::now();
        let answer = match ask {
            Ask::Attach(attach) => return self.attach(number, attach),
            Ask::Detach => {
                self.door.iter_mut().for_each(|door| door.let_loose(number));
                return Ok(());
            }
            Ask::Resize(rows, columns) => {
                match &mut self.redraw {
                    Some((_, r, c)) => (*r, *c) = (rows, columns),
                    None => self.set_size(rows, columns),
                }
                return Ok(());
            }
            Ask::Wait => {
                self.door.iter_mut().for_each(|door| door.await_end(number));
                return Ok(());
            }
            Ask::HangUp => {
                self.hang_up(now)?;
                self.forward(libc::SIGHUP)?;
                return Ok(());
            }
            Ask::Signal(libc::SIGKILL) => {
                self.kill()?;
                Answer::Done
            }
            Ask::Signal(signal) if (1..=64).contains(&signal) => {
                self.forward(signal)?;
                Answer::Done
            }
            Ask::Signal(signal) => door::refused(format!("cannot send signal {signal}: from 1 to 64")),
        };
        self.door.iter_mut().for_each(|door| door.answer(number, &answer, &[]));
        Ok(())
    }

    fn attach(&mut self, number: u64, attach: control::Attach) -> Result<()> {
        let Some(door) = &mut self.door else { return Ok(()) };
        match door.attach(number, attach, &mut self.outward, self.inward.len()) {
            // A terminal has no end: that is a key.
            Ok(Some(flow)) => self.inward.push((flow, attach.input == Input::Only && !door.terminal)),
            Ok(None) => {}
            Err(e) => {
                // Out of descriptors, as it may be: that is no reason to end.
                door.answer(number, &door::refused(e.message().to_string()), &[]);
                door.part(number);
                return Ok(());
            }
        }
        if let Some((rows, columns)) = attach.window {
            // A program that fills the screen draws it anew when the size changes, and only then; so it does, for a moment.
            let same = matches!(&self.sandbox, Sandbox::Here { master: Some(master), .. }
                if rustix::termios::tcgetwinsize(master).is_ok_and(|w| (w.ws_row, w.ws_col) == (rows, columns)));
            self.set_size(if same { rows.saturating_add(1) } else { rows }, columns);
            self.redraw = Instant::now().checked_add(REDRAW).filter(|_| same).map(|at| (at, rows, columns));
        }
        Ok(())
    }

    fn next_alarm(&self, now: Instant) -> Option<Instant> {
        let gone = self.gone.is_some();
        let deadline = self.deadline.filter(|_| !self.timed_out || gone);
        let raw = self.terminal.as_ref().filter(|t| t.waits()).and_then(|_| now.checked_add(REST));
        let log = self.door.as_ref().map(|door| &door.log);
        let flows = self.flows().filter_map(|(flow, _)| flow.rest(log, now));
        // More to read of a sandbox that is gone, and room for it: at once.
        let rest = self.outward.iter().filter(|flow| gone && flow.source(now).is_some()).map(|_| now);
        flows.chain(rest).chain(deadline).chain(self.kill_at).chain(raw).chain(self.settle_at).chain(self.redraw.map(|(at, ..)| at)).min()
    }

    fn clock(&mut self, now: Instant) -> Result<()> {
        if let Some(terminal) = self.terminal.as_mut().filter(|t| t.waits()) {
            terminal.enter();
        }
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.settle_at) {
            self.settle_at = None;
            (self.on_event)(Event::Settled);
            sys::process::settle();
        }
        if let Some((_, rows, columns)) = self.redraw.take_if(|(at, ..)| *at <= now) {
            self.set_size(rows, columns);
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
        let (ours, proxy) = match &self.sandbox {
            Sandbox::Here { .. } => (true, true),
            Sandbox::There { proxy, leash, .. } => (*leash, *proxy),
        };
        match signal {
            libc::SIGTSTP => return self.stop(),
            libc::SIGCONT => return self.resume(),
            libc::SIGWINCH if self.terminal.is_some() => {
                self.resize();
                return Ok(());
            }
            libc::SIGHUP if self.hung_up() => {
                if !ours {
                    self.leave(Left::Signalled(signal));
                    return Ok(());
                }
                (self.on_event)(Event::HungUp);
                self.hang_up(now)?;
            }
            libc::SIGINT | libc::SIGTERM => {
                let [earlier, previous] = self.pressed;
                if earlier.is_some_and(|at| now.saturating_duration_since(at) <= self.caller.grace) {
                    if !ours {
                        self.leave(Left::Signalled(signal));
                        return Ok(());
                    }
                    return self.kill();
                }
                self.pressed = [previous, Some(now)];
            }
            _ => {}
        }
        let ends = matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM);
        // Whoever wants us to end after the sandbox has: the reader of its last output is not worth waiting for.
        self.give_up |= self.gone.is_some() && ends;
        if !proxy {
            if ends {
                self.leave(Left::Signalled(signal));
            }
            return Ok(());
        }
        if self.forward(signal)? {
            (self.on_event)(Event::SignalForwarded(signal));
        }
        Ok(())
    }

    /// As a terminal does it where the sandbox has one, or else to PID 1. False: it is gone.
    fn forward(&mut self, signal: i32) -> Result<bool> {
        if let Sandbox::Here { master: Some(master), .. } = &self.sandbox
            && matches!(signal, libc::SIGINT | libc::SIGQUIT)
            && sys::pty::interrupt(master.as_fd(), signal)
        {
            return Ok(true);
        }
        self.send(signal)
    }

    /// Nobody is at the terminal any more: the same holds inside, and who does not mind is killed later.
    fn hang_up(&mut self, now: Instant) -> Result<()> {
        match &mut self.sandbox {
            Sandbox::Here { master, .. } => {
                // Dropping our side hangs up the session inside; what it still wants to say, nobody could read.
                if master.take().is_some() {
                    self.inward.clear();
                    self.outward.clear();
                    if let Some(door) = &mut self.door {
                        door.stdin = None;
                    }
                }
                self.kill_after_grace(now);
            }
            Sandbox::There { link, .. } => {
                let _ = link.ask(&Ask::HangUp);
                self.inward.clear();
                self.outward.clear();
            }
        }
        if let Some(mut terminal) = self.terminal.take() {
            terminal.close();
        }
        Ok(())
    }

    /// Ctrl-Z: the sandbox first, then we; not one that others work with.
    fn stop(&mut self) -> Result<()> {
        if !matches!(self.sandbox, Sandbox::There { leash: false, .. }) {
            self.send(libc::SIGTSTP)?;
        }
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
        self.resize();
        if !matches!(self.sandbox, Sandbox::There { leash: false, .. }) {
            self.send(libc::SIGCONT)?;
        }
        Ok(())
    }

    /// The window's size to the sandbox, whose kernel side sends SIGWINCH there.
    fn resize(&mut self) {
        if let Some(size) = self.terminal.as_ref().and_then(Terminal::size) {
            self.set_size(size.ws_row, size.ws_col);
        }
    }

    fn set_size(&self, rows: u16, columns: u16) {
        match &self.sandbox {
            Sandbox::Here { master: Some(master), .. } => {
                let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                let _ = rustix::termios::tcsetwinsize(master, size);
            }
            Sandbox::Here { master: None, .. } => {}
            Sandbox::There { link, .. } => drop(link.ask(&Ask::Resize(rows, columns))),
        }
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
        let sent = match &self.sandbox {
            _ if self.gone.is_some() => return Ok(false),
            // As from a terminal. SIGTSTP means nothing to an orphaned process group. // tape/init.rs
            Sandbox::Here { joined: Some(joined), .. } if matches!(signal, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGCONT) => {
                sys::process::kill(-joined.group, if signal == libc::SIGTSTP { libc::SIGSTOP } else { signal })
            }
            Sandbox::Here { pidfd, .. } => pidfd_send(pidfd.as_fd(), signal),
            Sandbox::There { link, .. } => return Ok(link.ask(&Ask::Signal(signal)).is_ok()), // or its end is about to be told
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
        if let (None, Sandbox::Here { pidfd, .. }) = (self.gone, &self.sandbox) {
            let _ = pidfd_send(pidfd.as_fd(), libc::SIGKILL);
            let _ = reap(pidfd.as_fd());
        }
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).doing("duplicate", "the terminal")
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
