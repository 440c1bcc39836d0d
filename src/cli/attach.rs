//! `sandbox attach`, `sandbox wait`, and `run -it` at a terminal: taking part in a sandbox that a monitor stays with. Called by `cli`.
#![forbid(unsafe_code)]

use super::life::forget;
use super::print;
use super::run::{Marks, Said};
use crate::cgroup::Usage;
use crate::container::run::note;
use crate::container::store::{Own, Sandbox, Sandboxes};
use crate::container::{Config, Options, Status, watch};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::monitor::{Answer, Ask, Attach, Exit, Input, Keys, Left, Manner, Signals, attach};
use clap::{Args, ValueEnum};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Take part in a detached sandbox: see what it says, type what it reads
///
/// Any number may, at once or one after the other; the size of its terminal is that of whoever came or changed last. Who takes
/// nothing for ten seconds while the sandbox has more to say is passed by: a terminal misses what was said meanwhile, anything else is let
/// go with an error, and sandbox logs has all.
///
/// It ends with the sandbox, whose exit code it returns; with the keys of --detach-keys, or the third SIGINT or SIGTERM in ten seconds, and
/// the sandbox goes on.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Leave its stdin alone
    #[arg(long)]
    no_stdin: bool,
    /// false: signals to this command are not passed on, and end it
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// What to type to leave it; without it what run or create said, or ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<Keys>,
    /// Its name or ID
    #[arg(value_name = "SANDBOX")]
    sandbox: String,
}

/// Wait for sandboxes, and print their exit codes
///
/// One that has ended already is not waited for.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What to wait for
    #[arg(long, value_name = "CONDITION", value_enum, default_value = "stopped")]
    condition: Condition,
    /// Names or IDs
    #[arg(value_name = "SANDBOX", required = true)]
    sandboxes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Condition {
    /// It does not run
    Stopped,
    /// The same
    Exited,
    /// It runs; no code is printed
    Running,
    /// It is gone
    Removed,
}

/// How often to look where nothing tells.
const GLANCE: Duration = Duration::from_millis(100);

/// Rows and columns of our terminal, if we have one.
fn window() -> Option<(u16, u16)> {
    let size = |fd: &i32| rustix::termios::tcgetwinsize(crate::sys::inherit::inherited(fd)).ok();
    [0, 1, 2].iter().find_map(size).map(|w| (w.ws_row, w.ws_col))
}

pub fn attach_to(args: AttachArgs) -> Result<u8> {
    let sandboxes = Sandboxes::open(&Caller::me()?.home);
    let sandbox = sandboxes.find(&args.sandbox)?;
    let name = &sandbox.config.name;
    if !sandbox.is_running() {
        let e = Error::new(Kind::Conflict, format!("cannot attach to '{name}': it is {}", sandbox.state.status.as_str()));
        return Err(e.hint(format!("sandbox start {name}; sandbox logs {name} has what it said")));
    }
    let alone = || Error::new(Kind::Conflict, format!("cannot attach to '{name}': it runs in the foreground of somebody else")).hint("run -d");
    let link = watch::link(&sandbox.dir)?.ok_or_else(alone)?;
    let input = if args.no_stdin || !sandbox.config.spec.process.interactive { Input::None } else { Input::Shared };
    let signals = Signals::take()?;
    link.ask(&Ask::Attach(Attach { input, leash: false, window: window() }))?;
    let keys = args.detach_keys.unwrap_or_else(|| sandbox.config.options.detach_keys.clone());
    sandboxes.say(&sandbox, "attach", &[]);
    let left = attach(link, Manner { proxy: args.sig_proxy, leash: false, keys }, &signals, &mut |_| {})?;
    if matches!(left, Left::Detached) {
        sandboxes.say(&sandbox, "detach", &[]);
    }
    Ok(code(&left))
}

fn code(left: &Left) -> u8 {
    match left {
        Left::Exited(exit, _) => exit.code(),
        Left::Detached => 0,
        Left::Signalled(signal) => 128 + u8::try_from(*signal).unwrap_or_default(),
    }
}

/// `start -a`: from its first byte on.
pub fn start(own: Own, config: &Config, interactive: bool) -> Result<u8> {
    let input = if interactive && config.spec.process.interactive { Input::Only } else { Input::None };
    let (up, link, _) = watch::start_attached(own, Attach { input, leash: false, window: window() })?;
    up.notes.iter().for_each(|sentence| note(sentence));
    let signals = Signals::take()?;
    let keys = config.options.detach_keys.clone();
    attach(link, Manner { proxy: true, leash: false, keys }, &signals, &mut |_| {}).map(|left| code(&left))
}

/// `run -it` at a terminal: a monitor of its own, on a leash, so that it can be let go.
pub fn at_terminal(config: &Config) -> Config {
    let kept = matches!(config.writes, crate::container::choose::Writes::Kept(_));
    Config { options: Options { detached: true, auto_remove: !kept, ..config.options.clone() }, ..config.clone() }
}

/// It has a record already. Returns how it ended, if it has.
pub fn run_it(own: Own, said: &Said, config: &Config, marks: &Marks, quiet: bool) -> Result<Option<(Exit, Option<Box<Usage>>)>> {
    let how = Attach { input: Input::Shared, leash: true, window: window() };
    let (up, link, mut monitor) = watch::start_attached(own, how).inspect_err(|_| forget(said, config))?;
    up.notes.iter().filter(|_| !quiet).for_each(|sentence| note(sentence));
    marks.write(&said.id, up.pid)?;
    let signals = Signals::take()?;
    let keys = said.options.detach_keys.clone();
    match attach(link, Manner { proxy: true, leash: true, keys }, &signals, &mut |_| {})? {
        Left::Exited(exit, used) => {
            monitor.wait().doing("wait for", "the monitor")?; // and nothing is left
            Ok(Some((exit, used)))
        }
        Left::Detached | Left::Signalled(_) => Ok(None),
    }
}

pub fn wait(args: WaitArgs) -> Result<()> {
    let sandboxes = Sandboxes::open(&Caller::me()?.home);
    let mut failed = None;
    for word in &args.sandboxes {
        match sandboxes.find(word).and_then(|sandbox| wait_for(&sandboxes, &sandbox, args.condition)) {
            Ok(code) => code.iter().for_each(|code| print(&code.to_string())),
            Err(e) => failed = failed.or(Some(e)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn wait_for(sandboxes: &Sandboxes, sandbox: &Sandbox, condition: Condition) -> Result<Option<u8>> {
    let id = sandbox.config.id.as_str();
    if condition == Condition::Running {
        while !sandboxes.find(id)?.is_running() {
            std::thread::sleep(GLANCE);
        }
        return Ok(None);
    }
    let code = ended(sandboxes, sandbox)?;
    while condition == Condition::Removed && sandboxes.find(id).is_ok() {
        std::thread::sleep(GLANCE);
    }
    Ok(Some(code))
}

/// Its exit code, once it does not run.
fn ended(sandboxes: &Sandboxes, sandbox: &Sandbox) -> Result<u8> {
    let gone = || Error::new(Kind::NotFound, format!("cannot tell how '{}' ended: it is gone", sandbox.config.name));
    if sandbox.alive
        && sandbox.state.status != Status::Created
        && let Some(link) = watch::link(&sandbox.dir)?
        && link.ask(&Ask::Wait).is_ok()
    {
        while let Some((answer, _)) = link.answer()? {
            if let Answer::Exited { status, timed_out, .. } = answer {
                return Ok(Exit { status: ExitStatus::from_raw(status), timed_out }.code());
            }
        }
    }
    // It is over, or nobody answers: then the end of who stays with it is its own.
    sandbox.await_end()?;
    match sandboxes.find(sandbox.config.id.as_str()) {
        Ok(over) => Ok(over.state.exit.unwrap_or_default()),
        Err(e) if e.kind() == Kind::NotFound => Err(gone()),
        Err(e) => Err(e),
    }
}
