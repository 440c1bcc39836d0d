//! `sandbox create`, `start`, `stop`, `kill`, `rm` and `ps`: sandboxes that go on without us. Called by `cli::main` and, for `-d`, by `run`.
#![forbid(unsafe_code)]

use super::attach;
use super::image::{show, since};
use super::print;
use super::run::{Marks, RunArgs, Said, say};
use crate::container::process::Found;
use crate::container::run::note;
use crate::container::store::{self, Sandbox, Sandboxes};
use crate::container::{Config, Status, watch};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::image::kept;
use crate::image::store::Store;
use crate::spec::process;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Make a sandbox, and do not run it yet
///
/// It takes what sandbox run -d takes. sandbox start runs it.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    run: Box<RunArgs>,
}

/// Run sandboxes again that have ended, or were made and never run
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Take part in its streams, and return its exit code
    #[arg(short, long)]
    attach: bool,
    /// With -a: pass on stdin, to one that was made with -i
    #[arg(short, long, requires = "attach")]
    interactive: bool,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Ask sandboxes to end, and end them
///
/// The command gets its stop signal; who does not end in time is killed, with all that is in the sandbox.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Seconds until they are killed; without it what --stop-timeout said, or 10
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    /// The signal to ask with, instead of the sandbox's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// All that run
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required_unless_present = "all")]
    sandboxes: Vec<String>,
}

/// Send a signal to the command of sandboxes
///
/// SIGKILL ends the whole sandbox.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// All that run
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required_unless_present = "all")]
    sandboxes: Vec<String>,
}

/// Remove sandboxes that have ended, and what they wrote
///
/// Also a layer by its name, of run --keep or --layer. A layer that a sandbox writes to is not removed.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// All of them
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Names or IDs of sandboxes, names of layers
    #[arg(value_name = "SANDBOX", required_unless_present = "all")]
    sandboxes: Vec<String>,
}

/// List sandboxes
///
/// Those that run; with -a all of them.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
    /// IDs only
    #[arg(short, long)]
    quiet: bool,
    /// table, json, or a template such as '{{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// `run -d`.
pub fn detach(said: Said, marks: &Marks) -> Result<u8> {
    let config = said.config()?;
    let own = Sandboxes::open(&said.caller.home).make(&config, Status::Starting)?;
    let up = watch::start(own).inspect_err(|_| forget(&said, &config))?;
    up.notes.iter().for_each(|sentence| note(sentence));
    marks.write(&config.id, up.pid)?;
    print(config.id.as_str());
    Ok(0)
}

/// It never ran.
pub fn forget(said: &Said, config: &Config) {
    let sandboxes = Sandboxes::open(&said.caller.home);
    let _ = sandboxes.find(config.id.as_str()).and_then(|s| sandboxes.take(&s)).and_then(|own| store::remove(own, config));
}

pub fn create(mut args: CreateArgs) -> Result<()> {
    args.run.detach = true; // once it runs
    let marks = Marks::of(&args.run)?;
    let said = say(*args.run)?;
    let config = said.config()?;
    Sandboxes::open(&said.caller.home).make(&config, Status::Created)?;
    marks.write(&config.id, 0)?;
    print(config.id.as_str());
    Ok(())
}

/// Do it for each; the first that fails is the error.
fn each(words: &[String], all: bool, which: impl Fn(&Sandbox) -> bool, act: impl Fn(&Sandboxes, &Sandbox) -> Result<()>) -> Result<()> {
    let sandboxes = Sandboxes::open(&Caller::me()?.home);
    let mut failed = None;
    let chosen: Vec<(String, Result<Sandbox>)> = match all {
        true => sandboxes.list()?.into_iter().filter(which).map(|s| (s.config.name.to_string(), Ok(s))).collect(),
        false => words.iter().map(|word| (word.clone(), sandboxes.find(word))).collect(),
    };
    for (word, sandbox) in chosen {
        match sandbox.and_then(|s| act(&sandboxes, &s)) {
            Ok(()) => print(&word),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), Err)
}

pub fn start(args: StartArgs) -> Result<u8> {
    if args.attach {
        let [word] = args.sandboxes.as_slice() else { return Err(Error::usage("cannot attach to several at once")) };
        let sandboxes = Sandboxes::open(&Caller::me()?.home);
        let sandbox = sandboxes.find(word)?;
        if sandbox.alive {
            let name = &sandbox.config.name;
            return Err(Error::new(Kind::Conflict, format!("cannot start '{name}': it runs")).hint(format!("sandbox attach {name}")));
        }
        let own = sandboxes.take(&sandbox)?;
        own.wanted();
        return attach::start(own, &sandbox.config, args.interactive);
    }
    each(
        &args.sandboxes,
        false,
        |_| true,
        |sandboxes, sandbox| {
            if sandbox.alive {
                return Ok(()); // as docker
            }
            let own = sandboxes.take(sandbox)?;
            own.wanted();
            watch::start(own)?.notes.iter().for_each(|sentence| note(sentence));
            Ok(())
        },
    )
    .map(|()| 0)
}

pub fn stop(args: StopArgs) -> Result<()> {
    let signal = args.signal.as_deref().map(process::signal).transpose()?;
    each(&args.sandboxes, args.all, |s| s.alive, |sandboxes, sandbox| end(sandboxes, sandbox, signal, args.time))
}

/// How long who stays with a sandbox may take to see that it ended, and one that begins to say so.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ask, wait, kill; returns when it is over.
fn end(sandboxes: &Sandboxes, sandbox: &Sandbox, signal: Option<i32>, seconds: Option<u64>) -> Result<()> {
    if !sandbox.alive {
        return Ok(());
    }
    sandbox.unwanted()?;
    let grace = Duration::from_secs(seconds.unwrap_or(sandbox.config.options.stop_timeout));
    let Some((stays, init)) = reach(sandboxes, sandbox)? else { return Ok(()) };
    let _ = init.signal(signal.unwrap_or(sandbox.config.spec.process.stop_signal));
    let _ = init.signal(libc::SIGCONT); // a stopped one could not act on it
    if !is_over(init.pidfd.as_fd(), grace)? {
        let _ = init.signal(libc::SIGKILL);
    }
    if is_over(stays.pidfd.as_fd(), PATIENCE)? {
        return sandbox.await_end();
    }
    if sandbox.config.options.detached {
        let _ = stays.signal(libc::SIGKILL);
        return sandbox.await_end();
    }
    Ok(()) // it waits for whoever reads what it has to say
}

/// Who stays with it, and its PID 1; waits for one that begins. None: it is over.
fn reach(sandboxes: &Sandboxes, sandbox: &Sandbox) -> Result<Option<(Found, Found)>> {
    let (mut now, start) = (sandbox.clone(), Instant::now());
    loop {
        match now.stays().and_then(|stays| Ok((stays, now.init()?))) {
            Ok(both) => return Ok(Some(both)),
            Err(e) if e.kind() != Kind::Conflict || start.elapsed() > PATIENCE => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        match sandboxes.find(now.config.id.as_str()) {
            Ok(later) if later.alive => now = later,
            Err(e) if e.kind() != Kind::NotFound => return Err(e),
            _ => return Ok(None),
        }
    }
}

/// A process ended within this time.
fn is_over(pidfd: std::os::fd::BorrowedFd<'_>, within: Duration) -> Result<bool> {
    let wait = Timespec::try_from(within).ok();
    crate::sys::clone::interrupted(|| poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], wait.as_ref()))
        .map(|n| n > 0)
        .doing("wait for", "the sandbox")
}

pub fn kill(args: KillArgs) -> Result<()> {
    let signal = process::signal(&args.signal)?;
    each(
        &args.sandboxes,
        args.all,
        |s| s.alive,
        |_, sandbox| {
            let init = sandbox.init()?;
            if signal == libc::SIGKILL {
                sandbox.unwanted()?;
            }
            init.signal(signal).doing("signal", format!("the sandbox '{}'", sandbox.config.name))
        },
    )
}

pub fn rm(args: RmArgs) -> Result<()> {
    let home = Caller::me()?.home;
    let sandboxes = Sandboxes::open(&home);
    let words: Vec<String> = match args.all {
        true => sandboxes.list()?.into_iter().map(|s| s.config.id.to_string()).collect(),
        false => args.sandboxes,
    };
    let mut failed = None;
    for word in &words {
        let removed = match sandboxes.find(word) {
            Ok(sandbox) => remove(&sandboxes, &sandbox, args.force),
            Err(e) if e.kind() == Kind::NotFound => {
                let neither = || {
                    Error::new(Kind::NotFound, format!("cannot find a sandbox or a kept layer '{word}'"))
                        .hint("sandbox ps -a lists the ones, sandbox kept the others")
                };
                let layer = word.parse().map_err(|_| e).and_then(|name| kept::remove(&Store::open(&home)?, &name));
                layer.map_err(|other| if other.kind() == Kind::NotFound { neither() } else { other })
            }
            Err(e) => Err(e),
        };
        match removed {
            Ok(()) => print(word),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn remove(sandboxes: &Sandboxes, sandbox: &Sandbox, force: bool) -> Result<()> {
    let name = &sandbox.config.name;
    if sandbox.alive && !force {
        let e = Error::new(Kind::Conflict, format!("cannot remove '{name}': it runs"));
        return Err(e.hint(format!("sandbox stop {name}, or sandbox rm -f {name}")));
    }
    if sandbox.alive {
        end(sandboxes, sandbox, Some(libc::SIGKILL), None)?;
        if !sandbox.dir.exists() {
            return Ok(()); // it went with its end
        }
    }
    store::remove(sandboxes.take(sandbox)?, &sandbox.config)
}

pub fn ps(args: PsArgs) -> Result<()> {
    let all = Sandboxes::open(&Caller::me()?.home).list()?;
    let shown: Vec<_> = all.iter().filter(|s| args.all || s.alive).collect();
    if args.quiet {
        shown.iter().for_each(|s| print(s.config.id.short()));
        return Ok(());
    }
    let rows: Vec<Value> = shown.iter().map(|s| row(s)).collect();
    let columns =
        [("SANDBOX ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("CREATED", "CreatedSince"), ("STATUS", "Status"), ("NAMES", "Names")];
    show(&rows, &columns, args.format.as_deref())
}

fn row(sandbox: &Sandbox) -> Value {
    let (config, state) = (&sandbox.config, &sandbox.state);
    let ago = |at: Option<u64>| at.map(|ns| since(ns / 1_000_000_000)).unwrap_or_default();
    let status = match state.status {
        Status::Running => format!("Up {}", ago(state.started).trim_end_matches(" ago")),
        Status::Exited | Status::Dead => format!("Exited ({}) {}", state.exit.unwrap_or_default(), ago(state.finished)),
        Status::Created => "Created".to_string(),
        Status::Starting => "Starting".to_string(),
        Status::Restarting => format!("Restarting ({}) {}", state.exit.unwrap_or_default(), ago(state.finished)),
    };
    json!({
        "ID": config.id.short(), "Names": config.name, "Image": config.image.as_ref().map(|i| i.word.as_str()).unwrap_or_default(),
        "Command": config.command().join(" "), "CreatedAt": crate::moment::rfc3339(config.created), "CreatedSince": since(config.created),
        "State": state.status.as_str(), "Status": status, "ExitCode": state.exit, "Labels": config.labels,
        "Pid": state.init.map_or(0, |p| p.pid),
    })
}
