//! The monitor of a detached sandbox: the role `@monitor`, one process for each, which brings it to life and stays with it to its end.
//!
//! Started by `start`, for `cli::life`; it has the sandbox's lock from there, so nobody comes between. What it does and why it could not goes
//! to whoever started it, over a pipe, until the command runs; later to the record.
//!
//! *Invariants*
//! - I1 it has no terminal, no descriptor and no directory of whoever started it.
//! - I2 it dies with nobody, and its sandbox dies with it.
#![forbid(unsafe_code)]

use super::choose::{Chosen, Writes};
use super::health::Asking;
use super::run::{Call, ready, running};
use super::store::Own;
use super::{Config, State, Status, now};
use crate::birth::die_at;
use crate::cgroup::{Held, Usage};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::launch::plan::Io;
use crate::logs::write::Writer;
use crate::monitor::{Attach, Door, Event, Exit, Link, Living, Signals, Streams, control, stay_detached};
use crate::role::Answer;
use crate::sys;
use crate::sys::signal::Set;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long it waits before it runs again: at first, and at most; docker's numbers.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// What ran for so long is no failing start.
const LASTED: Duration = Duration::from_secs(10);
/// How soon it sees meanwhile that it is not wanted any more.
const GLANCE: Duration = Duration::from_millis(100);

/// What the monitor tells whoever started it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Up {
    /// PID 1 of the sandbox.
    pub pid: i32,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// The longest that it tells.
const WORDS: u64 = 1 << 20;

/// The name of its control socket, in its directory: that is there as long as it is, wherever the session went.
const CONTROL: &str = "control";

/// Have a monitor bring it to life; returns when the command runs.
pub fn start(own: Own) -> Result<Up> {
    begin(own, None).map(|(up, _)| up)
}

/// The same, and take part in its streams from its first byte on. The monitor is our child, to be waited for.
pub fn start_attached(own: Own, attach: Attach) -> Result<(Up, Link, Child)> {
    let (ours, theirs) = sys::socket::pair().doing("make", "a socket pair")?;
    let (up, child) = begin(own, Some((theirs, attach)))?;
    Ok((up, Link::of(ours), child))
}

/// The way to who stays with it. None: it is alone.
pub fn link(dir: &Path) -> Result<Option<Link>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        dir_or => Link::connect(dir_or.doing("open", dir.display())?.as_fd(), CONTROL),
    }
}

fn begin(own: Own, attach: Option<(OwnedFd, Attach)>) -> Result<(Up, Child)> {
    let (hear, say) = sys::socket::pipe().doing("make", "a pipe")?;
    let program = std::env::current_exe().doing("find", "this program")?;
    let mut monitor = Command::new(program);
    monitor.arg("@monitor").arg(&own.dir).stdin(Stdio::from(own.lock)).stdout(Stdio::from(say)).stderr(Stdio::null());
    if let Some((socket, attach)) = attach {
        let how = serde_json::to_string(&attach).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
        monitor.arg(how).stderr(Stdio::from(socket));
    }
    let mut child = monitor.spawn().doing("start", "the monitor")?;
    drop(monitor); // our copy of its end of the pipe
    die_at(43);
    let mut words = Vec::new();
    File::from(hear).take(WORDS).read_to_end(&mut words).doing("hear from", "the monitor")?;
    if words.is_empty() {
        let status = child.wait().doing("wait for", "the monitor")?;
        return Err(Error::new(Kind::Io, format!("cannot start the sandbox: its monitor ended with {status}")));
    }
    let answer: Answer<Up> = postcard::from_bytes(&words).map_err(|e| Error::new(Kind::Bug, format!("the monitor said nonsense: {e}")))?;
    match answer.result() {
        Ok(up) => Ok((up, child)),
        Err(e) => {
            let _ = child.wait(); // the record is as it left it
            Err(e)
        }
    }
}

/// Be the monitor.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    (word == "@monitor").then(|| match watch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(125), // told already
    })
}

fn watch() -> Result<()> {
    let not_you = || Error::usage("this word is for sandbox itself");
    let [Some(lock), Some(say)] = [0, 1].map(sys::inherit::started_with) else { return Err(not_you()) };
    let (lock, say) = (above(lock)?, above(say)?);
    // Whoever started it takes part in it.
    let attach: Option<Attach> = std::env::args_os().nth(3).and_then(|how| serde_json::from_slice(how.as_encoded_bytes()).ok());
    let socket = attach.and_then(|_| sys::inherit::started_with(2)).map(above).transpose()?;
    let dir = PathBuf::from(std::env::args_os().nth(2).ok_or_else(not_you)?);
    let own = Own::inherited(dir, lock)?;
    die_at(44);
    let mut waiting = Some(File::from(say));
    let stayed = leave().and_then(|()| stay_up(&own, &mut waiting, socket.zip(attach)));
    let stayed = match own.config() {
        Ok(config) if config.options.auto_remove => super::store::remove(own, &config).and(stayed),
        _ => stayed,
    };
    match (stayed, waiting) {
        (Err(e), Some(say)) => {
            tell(say, Err(e));
            Err(not_you())
        }
        (stayed, _) => stayed,
    }
}

fn tell(mut to: File, what: Result<Up>) {
    let _ = postcard::to_allocvec(&Answer::of(what)).map(|words| to.write_all(&words));
}

fn above(fd: OwnedFd) -> Result<OwnedFd> {
    crate::birth::above(3, rustix::io::fcntl_dupfd_cloexec(fd, 3).doing("keep", "a descriptor")?)
}

/// I1
fn leave() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing("open", "/dev/null")?;
    let null = crate::birth::above(3, null)?; // it may have got the number of one of them, and is closed again
    for standard in 0..3 {
        sys::inherit::duplicate(null.as_raw_fd(), standard).doing("leave", "the terminal")?;
    }
    rustix::process::setsid().doing("leave", "the session")?;
    std::env::set_current_dir("/").doing("enter", "/")
}

/// Bring it to life, as often as it is wanted.
fn stay_up(own: &Own, waiting: &mut Option<File>, attached: Option<(OwnedFd, Attach)>) -> Result<()> {
    let (mut restarts, mut pause, mut mask) = (0, SHORTEST, None);
    let window = attached.as_ref().and_then(|(_, attach)| attach.window).map_or((80, 24), |(rows, columns)| (columns, rows));
    let dir = own.lock.try_clone().doing("keep", "the sandbox's directory")?;
    let mut door = Door::new(control::listen_at(own.lock.as_fd(), CONTROL)?, Writer::open(dir, own.config()?.options.log)?);
    if let Some((socket, attach)) = attached {
        door.adopt(socket, attach);
    }
    loop {
        let began = Instant::now();
        let config = own.config()?;
        let mut life = Life { own, config: &config, window, door: &mut door, mask: &mut mask };
        let ended = life.live(waiting, restarts);
        let first = waiting.is_some(); // nobody has been told that it runs
        let failed = |e: &Error| {
            let state = State { finished: Some(now()), exit: Some(e.exit_code()), error: Some(e.message().into()), restarts, ..State::default() };
            own.stays(state)
        };
        let state = match &ended {
            Ok((state, ..)) => state.clone(),
            Err(e) => failed(e)?,
        };
        // The policy may have been changed meanwhile.
        let again = own.config()?.options.restart.wants(state.exit.unwrap_or_default(), restarts) || own.take_mark("restart");
        let last = first || !again || !own.is_wanted();
        if last {
            die_at(48);
        }
        own.tell(&match last {
            true => State { status: Status::Exited, ..state.over() },
            false => State { status: Status::Restarting, ..state },
        })?;
        if last {
            die_at(49);
        }
        // The record says it, so others may hear of it.
        let ended = ended.map(|(_, exit, used)| door.ended(&exit, used));
        if last {
            return ended;
        }
        pause = if began.elapsed() > LASTED { SHORTEST } else { pause };
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(GLANCE));
            if !own.is_wanted() {
                own.tell(&State { status: Status::Exited, ..own.state()?.over() })?;
                return Ok(());
            }
        }
        pause = (pause * 2).min(LONGEST);
        restarts += 1;
    }
}

/// One of its lives.
struct Life<'a> {
    own: &'a Own,
    config: &'a Config,
    /// Columns and rows.
    window: (u16, u16),
    door: &'a mut Door,
    /// The signal mask from before the first one.
    mask: &'a mut Option<Set>,
}

impl Life<'_> {
    /// From the record to the end.
    fn live(&mut self, waiting: &mut Option<File>, restarts: u32) -> Result<(State, Exit, Option<Usage>)> {
        let Life { own, config, window, .. } = *self;
        let caller = Caller::me()?;
        let mut spec = ManuallyDrop::new(config.spec.clone());
        spec.limits.asked = config.asked.clone();
        spec.process.preserve_fds = 0; // of whoever ran it in the foreground
        let mut chosen = config.image.as_ref().map(Chosen::again).transpose()?;
        // It may have run before.
        let writes = match &config.writes {
            Writes::Kept(name) => Writes::Layer(name.clone()),
            other => other.clone(),
        };
        let signals = Signals::take()?;
        let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))).collect();
        let mask = *self.mask.get_or_insert(signals.old_mask());
        let call = Call { caller, cwd: config.cwd.clone(), env, mask, window, guessed: None };
        let io = || if spec.process.tty { Ok(None) } else { streams(spec.process.interactive).map(Some) };
        let ready = ready(&spec, call, chosen.as_ref(), io, false)?;
        let notes = ready.notes(&spec);
        let (alive, streams, _over) = ready.play(&spec, &mut chosen, &writes)?;
        die_at(45);
        let running = State { restarts, ..own.stays(running(&alive)?)? };
        own.tell(&running)?;
        die_at(46);
        if !own.is_wanted() {
            // Somebody wanted it down between two runs.
            let _ = sys::signal::pidfd_send(alive.pidfd.as_fd(), libc::SIGKILL);
        }
        let _asks = config.options.health.as_ref().map(|_| Asking::start(own)).transpose()?;
        waiting.take().into_iter().for_each(|say| tell(say, Ok(Up { pid: alive.pid, notes: notes.clone() })));
        die_at(47);
        let held = alive.cgroup;
        let timeout = spec.process.timeout.map(Duration::from_secs);
        let living = Living {
            pidfd: alive.pidfd,
            wire: alive.wire,
            streams,
            stop_signal: spec.process.stop_signal,
            timeout,
            lingers: held.is_some(),
            joined: None,
            server: alive.server,
            supervisor: alive.supervisor,
        };
        let mut used = None;
        let exit = stay_detached(living, &signals, self.door, &mut |event| match event {
            Event::Ended => {
                used = held.as_ref().map(Held::usage);
                held.iter().for_each(Held::let_go);
            }
            Event::Killed => held.iter().for_each(Held::let_go),
            _ => {}
        })?;
        let oom = used.as_ref().and_then(|u| u.oom_kills).is_some_and(|n| n > 0) && exit.status.signal() == Some(libc::SIGKILL);
        let reason = if exit.timed_out { Some("timeout") } else { oom.then_some("oom") };
        let (stays, lock) = (running.stays, running.lock); // it may run again
        let ended = State { finished: Some(now()), exit: Some(exit.code()), signal: exit.status.signal(), ..running.over() };
        Ok((State { stays, lock, reason: reason.map(String::from), ..ended }, exit, used))
    }
}

/// Pipes for all that the command says.
fn streams(interactive: bool) -> Result<(Io, Streams)> {
    let pipe = || sys::socket::pipe().doing("make", "a pipe");
    let (stdin, in_end) = match interactive {
        true => pipe().map(|(read, write)| (read, Some(write)))?,
        false => (OwnedFd::from(File::open("/dev/null").doing("open", "/dev/null")?), None),
    };
    let ((out_end, stdout), (err_end, stderr)) = (pipe()?, pipe()?);
    Ok((Io { stdin, stdout, stderr }, Streams::Pipes { stdin: in_end, stdout: Some(out_end), stderr: Some(err_end) }))
}
