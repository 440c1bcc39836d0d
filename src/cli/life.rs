//! `sandbox create`, `start`, `stop`, `restart`, `kill`, `pause`, `rename`, `update` and `rm`: what is done to sandboxes as a whole. Called by `cli::main` and, for `-d`, by `run`.
#![forbid(unsafe_code)]

use super::attach;
use super::limits::LimitArgs;
use super::ps::{self, Filter};
use super::run::{Marks, RunArgs, Said, say};
use super::{asked, print};
use crate::cgroup;
use crate::container::process::Found;
use crate::container::run::note;
use crate::container::store::{self, Sandbox, Sandboxes};
use crate::container::{Config, Restart, Status, watch};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::{self, Caller};
use crate::ident::Name;
use crate::image::kept;
use crate::image::store::Store;
use crate::spec::process;
use clap::{Args, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
    /// All that run and fit, as for sandbox ps
    #[arg(short, long, value_name = "KEY=VALUE", conflicts_with_all = ["sandboxes", "all"])]
    filter: Vec<String>,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required_unless_present_any = ["all", "filter"])]
    sandboxes: Vec<String>,
}

/// Stop sandboxes and run them again
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// Seconds until they are killed; without it what --stop-timeout said, or 10
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Have all that is in sandboxes stand still
///
/// By the freezer of their cgroup, or, where they have none, by SIGSTOP to each process.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// All that run
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required_unless_present = "all")]
    sandboxes: Vec<String>,
}

/// Let sandboxes go on that were paused
#[derive(Debug, Args)]
pub struct UnpauseArgs {
    /// All that are paused
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required_unless_present = "all")]
    sandboxes: Vec<String>,
}

/// Give a sandbox another name
///
/// Its host name stays. Not of one that runs in the foreground.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// Its name or ID
    #[arg(value_name = "SANDBOX")]
    sandbox: String,
    /// The new name
    #[arg(value_name = "NAME")]
    name: Name,
}

/// Change the limits of sandboxes, also while they run
///
/// What is said holds at once, and each time that they are started again; what is not said stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sandbox update --memory 512m --cpus 1.5 web\n  sandbox update --restart always web")]
pub struct UpdateArgs {
    #[command(flatten)]
    limits: Box<LimitArgs>,
    /// When it is run again: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<Restart>,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

/// Remove all sandboxes that have ended
#[derive(Debug, Args)]
pub struct ContainerArgs {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Remove all sandboxes that do not run, and what they wrote
    Prune {
        /// Only those that fit; until=24h, label=KEY[=VALUE], and what sandbox ps --filter knows
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        force: bool,
    },
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
    /// All of them; without --force those that do not run
    #[arg(short, long, conflicts_with = "sandboxes")]
    all: bool,
    /// All that fit, as for sandbox ps
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["sandboxes", "all"])]
    filter: Vec<String>,
    /// Names or IDs of sandboxes, names of layers
    #[arg(value_name = "SANDBOX", required_unless_present_any = ["all", "filter"])]
    sandboxes: Vec<String>,
}

/// `run -d`.
pub fn detach(said: Said, marks: &Marks) -> Result<u8> {
    let mut config = said.config()?;
    let sandboxes = Sandboxes::open(&said.caller.home);
    replace(&sandboxes, &config, said.replace)?;
    let own = sandboxes.make(&mut config, Status::Starting)?;
    let up = watch::start(own).inspect_err(|_| forget(&said, &config))?;
    up.notes.iter().for_each(|sentence| note(sentence));
    marks.write(&config.id, up.pid)?;
    print(config.id.as_str());
    Ok(0)
}

/// `--replace`: who has the name goes.
pub fn replace(sandboxes: &Sandboxes, config: &Config, wanted: bool) -> Result<()> {
    if !wanted {
        return Ok(());
    }
    match sandboxes.find(config.name.as_str()) {
        // What begins with these digits is not meant.
        Ok(other) if other.config.name == config.name => remove(sandboxes, &other, doom(sandboxes, &other, true)?),
        Err(e) if e.kind() != Kind::NotFound => Err(e),
        _ => Ok(()),
    }
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
    let mut config = said.config()?;
    let sandboxes = Sandboxes::open(&said.caller.home);
    replace(&sandboxes, &config, said.replace)?;
    sandboxes.make(&mut config, Status::Created)?;
    marks.write(&config.id, 0)?;
    print(config.id.as_str());
    Ok(())
}

/// Which sandboxes are meant.
enum Which<'a> {
    Named(&'a [String]),
    /// Of all those for which it holds.
    All(&'a [Filter], fn(&Sandbox) -> bool),
}

/// Do it for each; the first that fails is the error.
fn each(sandboxes: &Sandboxes, which: Which, act: impl Fn(&Sandbox) -> Result<()>) -> Result<()> {
    together(sandboxes, which, |_| Ok(()), |sandbox, ()| act(sandbox))
}

/// The same of what takes its time: all begin, and then each comes to its end.
fn together<T>(sandboxes: &Sandboxes, which: Which, begin: impl Fn(&Sandbox) -> Result<T>, end: impl Fn(&Sandbox, T) -> Result<()>) -> Result<()> {
    let chosen: Vec<(String, Result<Sandbox>)> = match which {
        Which::Named(words) => words.iter().map(|word| (word.clone(), sandboxes.find(word))).collect(),
        Which::All(filters, holds) => {
            let all = sandboxes.list()?.into_iter().filter(|s| holds(s) && ps::fits(filters, s));
            all.map(|s| (s.config.name.to_string(), Ok(s))).collect()
        }
    };
    let begun = chosen.into_iter().map(|(word, sandbox)| (word, sandbox.and_then(|s| begin(&s).map(|begun| (s, begun)))));
    let mut failed = None;
    for (word, sandbox) in begun.collect::<Vec<_>>() {
        match sandbox.and_then(|(s, begun)| end(&s, begun)) {
            Ok(()) => print(&word),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn which<'a>(words: &'a [String], filters: &'a [Filter], holds: fn(&Sandbox) -> bool) -> Which<'a> {
    if words.is_empty() { Which::All(filters, holds) } else { Which::Named(words) }
}

fn mine() -> Result<Sandboxes> {
    Ok(Sandboxes::open(&Caller::me()?.home))
}

pub fn start(args: StartArgs) -> Result<u8> {
    let sandboxes = mine()?;
    if args.attach {
        let [word] = args.sandboxes.as_slice() else { return Err(Error::usage("cannot attach to several at once")) };
        let sandbox = sandboxes.find(word)?;
        if sandbox.alive {
            let name = &sandbox.config.name;
            return Err(Error::new(Kind::Conflict, format!("cannot start '{name}': it runs")).hint(format!("sandbox attach {name}")));
        }
        let own = sandboxes.take(&sandbox)?;
        own.wanted();
        return attach::start(own, &sandbox.config, args.interactive);
    }
    each(&sandboxes, Which::Named(&args.sandboxes), |sandbox| again(&sandboxes, sandbox)).map(|()| 0)
}

/// Run it, if it does not run.
fn again(sandboxes: &Sandboxes, sandbox: &Sandbox) -> Result<()> {
    if sandbox.alive {
        return Ok(()); // as docker
    }
    let own = sandboxes.take(sandbox)?;
    own.wanted();
    watch::start(own)?.notes.iter().for_each(|sentence| note(sentence));
    Ok(())
}

pub fn stop(args: StopArgs) -> Result<()> {
    let (sandboxes, filters) = (mine()?, ps::filters(&args.filter)?);
    let signal = args.signal.as_deref().map(process::signal).transpose()?;
    let which = which(&args.sandboxes, &filters, |s| s.alive);
    together(&sandboxes, which, |sandbox| ask(&sandboxes, sandbox, signal, args.time), |sandbox, asked| end(&sandboxes, sandbox, asked))
}

pub fn restart(args: RestartArgs) -> Result<()> {
    let sandboxes = mine()?;
    each(&sandboxes, Which::Named(&args.sandboxes), |sandbox| {
        let (name, options) = (&sandbox.config.name, &sandbox.config.options);
        if sandbox.alive && (options.auto_remove || !sandbox.config.stays()) {
            return Err(Error::new(Kind::Conflict, format!("cannot restart the sandbox '{name}': it is gone when it ends"))
                .hint(format!("sandbox stop {name}, and run it anew; with -d and without --rm it stays")));
        }
        end(&sandboxes, sandbox, ask(&sandboxes, sandbox, None, args.time)?)?;
        again(&sandboxes, &sandboxes.find(sandbox.config.id.as_str())?)?;
        sandboxes.say(sandbox, "restart", &[]);
        Ok(())
    })
}

pub fn pause(args: PauseArgs) -> Result<()> {
    let sandboxes = mine()?;
    each(&sandboxes, which(&args.sandboxes, &[], |s| s.is_running() && !s.is_paused()), |sandbox| {
        if sandbox.is_paused() {
            return Err(Error::new(Kind::Conflict, format!("cannot pause the sandbox '{}': it is paused", sandbox.config.name))
                .hint(format!("sandbox unpause {}", sandbox.config.name)));
        }
        sandbox.pause(true)?;
        sandboxes.say(sandbox, "pause", &[]);
        Ok(())
    })
}

pub fn unpause(args: UnpauseArgs) -> Result<()> {
    let sandboxes = mine()?;
    each(&sandboxes, which(&args.sandboxes, &[], Sandbox::is_paused), |sandbox| {
        if !sandbox.is_paused() {
            return Err(Error::new(Kind::Conflict, format!("cannot unpause the sandbox '{}': it is not paused", sandbox.config.name))
                .hint("sandbox ps says how it is"));
        }
        sandbox.pause(false)?;
        sandboxes.say(sandbox, "unpause", &[]);
        Ok(())
    })
}

pub fn rename(args: RenameArgs) -> Result<()> {
    let sandboxes = mine()?;
    let sandbox = sandboxes.find(&args.sandbox)?;
    if sandbox.alive && !sandbox.config.options.detached {
        return Err(Error::new(Kind::Conflict, format!("cannot rename the sandbox '{}': it runs in the foreground", sandbox.config.name))
            .hint("whoever ran it gave the name: sandbox run --name NAME"));
    }
    sandboxes.rename(&sandbox, &args.name)
}

pub fn update(args: UpdateArgs) -> Result<()> {
    let (sandboxes, uid) = (mine()?, Caller::me()?.uid);
    let mut limits = args.limits.into_patch()?;
    if limits.controls().is_empty() && args.restart.is_none() {
        return Err(Error::usage("cannot update nothing: say a limit or --restart").hint("sandbox update --memory 512m NAME"));
    }
    limits.resolve(host::memory_total());
    each(&sandboxes, Which::Named(&args.sandboxes), |sandbox| {
        let name = &sandbox.config.name;
        if args.restart.is_some_and(|r| r != Restart::No) && (sandbox.config.options.auto_remove || !sandbox.config.options.detached) {
            let e = Error::new(Kind::Conflict, format!("cannot have '{name}' run again: it is gone when it ends, or nobody stays with it"));
            return Err(e.hint("run it with -d and without --rm"));
        }
        let mut whole = sandbox.config.spec.limits.clone();
        whole.asked.clone_from(&sandbox.config.asked);
        whole.lay(limits.clone());
        whole.check()?;
        if sandbox.is_running() && !limits.controls().is_empty() {
            let Some(top) = sandbox.cgroup()? else {
                let e = Error::new(Kind::Unsupported, format!("cannot change the limits of '{name}': it runs without a cgroup"));
                return Err(e.hint("sandbox doctor says what this machine lacks; of one that has ended they can be changed"));
            };
            // What depends on another limit is worked out from all of them.
            let mut now = limits.clone();
            if now.memory.is_some() || now.memory_swap.is_some() {
                (now.memory, now.memory_swap) = (whole.memory, whole.memory_swap);
            }
            cgroup::update(&top, uid, &now)?;
        }
        sandboxes.change(sandbox, |config| {
            config.asked.clone_from(&whole.asked);
            config.spec.limits = whole.clone();
            config.options.restart = args.restart.unwrap_or(config.options.restart);
            Ok(())
        })?;
        sandboxes.say(sandbox, "update", &[]);
        Ok(())
    })
}

pub fn container(args: ContainerArgs) -> Result<()> {
    let ContainerCommand::Prune { filter, force } = args.command;
    let (sandboxes, filters) = (mine()?, ps::filters(&filter)?);
    let ended: Vec<Sandbox> = sandboxes.list()?.into_iter().filter(|s| !s.alive && ps::fits(&filters, s)).collect();
    let question = || format!("Remove {} sandboxes that do not run, and what they wrote?", ended.len());
    if !force && !asked("remove sandboxes", "sandbox ps -a", &question())? {
        return Ok(());
    }
    let mut failed = None;
    for sandbox in &ended {
        match doom(&sandboxes, sandbox, false).and_then(|asked| remove(&sandboxes, sandbox, asked)) {
            Ok(()) => print(sandbox.config.id.as_str()),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// How long who stays with a sandbox may take to see that it ended, and one that begins to say so.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that one may take to end, in seconds: a hundred years.
const LONGEST: u64 = 100 * 365 * 24 * 3600;

/// One that was asked to end.
struct Asked {
    stays: Found,
    init: Found,
    /// Then it is killed.
    until: Instant,
}

/// Ask it to end. None: it is over.
fn ask(sandboxes: &Sandboxes, sandbox: &Sandbox, signal: Option<i32>, seconds: Option<u64>) -> Result<Option<Asked>> {
    if !sandbox.alive {
        return Ok(None);
    }
    let _ = sandbox.unwanted(); // a full disk keeps nobody from ending it
    let grace = Duration::from_secs(seconds.unwrap_or(sandbox.config.options.stop_timeout).min(LONGEST));
    let Some((stays, init)) = reach(sandboxes, sandbox)? else { return Ok(None) };
    let _ = init.signal(signal.unwrap_or(sandbox.config.spec.process.stop_signal));
    // A stopped one could not act on it.
    let _ = if sandbox.is_paused() { sandbox.pause(false) } else { Ok(()) };
    let _ = init.signal(libc::SIGCONT);
    Ok(Some(Asked { stays, init, until: Instant::now() + grace }))
}

/// Wait for it, and kill it; returns when it is over.
fn end(sandboxes: &Sandboxes, sandbox: &Sandbox, asked: Option<Asked>) -> Result<()> {
    let Some(Asked { stays, init, until }) = asked else { return Ok(()) };
    if !is_over(init.pidfd.as_fd(), until.saturating_duration_since(Instant::now()))? {
        let _ = init.signal(libc::SIGKILL);
    }
    sandboxes.say(sandbox, "stop", &[]);
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
    let (sandboxes, signal) = (mine()?, process::signal(&args.signal)?);
    each(&sandboxes, which(&args.sandboxes, &[], |s| s.alive), |sandbox| {
        let init = sandbox.init()?;
        if signal == libc::SIGKILL {
            let _ = sandbox.unwanted();
        }
        // An init of ours would stop itself, and pass nothing on any more; this way it stops everybody. // tape/init.rs
        let told = if signal == libc::SIGSTOP && sandbox.config.spec.process.init { libc::SIGTSTP } else { signal };
        init.signal(told).doing("signal", format!("the sandbox '{}'", sandbox.config.name))?;
        sandboxes.say(sandbox, "kill", &[("signal", signal.to_string())]);
        Ok(())
    })
}

pub fn rm(args: RmArgs) -> Result<()> {
    let home = Caller::me()?.home;
    let (sandboxes, filters) = (Sandboxes::open(&home), ps::filters(&args.filter)?);
    let words: Vec<String> = match args.sandboxes.is_empty() {
        true => {
            let fits = |s: &Sandbox| (args.force || !s.alive) && ps::fits(&filters, s);
            sandboxes.list()?.into_iter().filter(fits).map(|s| s.config.id.to_string()).collect()
        }
        false => args.sandboxes,
    };
    let found = words.iter().map(|word| (word, sandboxes.find(word).and_then(|s| doom(&sandboxes, &s, args.force).map(|asked| (s, asked)))));
    let mut failed = None;
    for (word, sandbox) in found.collect::<Vec<_>>() {
        let removed = match sandbox {
            Ok((sandbox, asked)) => remove(&sandboxes, &sandbox, asked),
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

/// Before it is removed: it does not run, or is killed.
fn doom(sandboxes: &Sandboxes, sandbox: &Sandbox, force: bool) -> Result<Option<Asked>> {
    let name = &sandbox.config.name;
    if sandbox.alive && !force {
        let e = Error::new(Kind::Conflict, format!("cannot remove '{name}': it runs"));
        return Err(e.hint(format!("sandbox stop {name}, or sandbox rm -f {name}")));
    }
    ask(sandboxes, sandbox, Some(libc::SIGKILL), None)
}

fn remove(sandboxes: &Sandboxes, sandbox: &Sandbox, asked: Option<Asked>) -> Result<()> {
    end(sandboxes, sandbox, asked)?;
    if sandbox.alive && !sandbox.dir.exists() {
        return Ok(()); // it went with its end
    }
    store::remove(sandboxes.take(sandbox)?, &sandbox.config)
}
