//! A sandbox as a thing that has a name: its record on disk, who stays with it, and the verbs on it.
//!
//! *What*: `store` has the records and says which of them live, `run` brings one to life (for `cli::run` and for the monitor), `watch` is
//! the monitor of a detached one, `health` asks it how it is, `choose` finds its image and its writable layer, `process` tells a process from a later one of its number.
//!
//! *Why this way*: the directory of a sandbox is all that there is of it, and flock(2) on it says whether anybody stays with it; so the truth
//! survives whatever dies. What is decided is in one file, which the verbs write, what happens in another, which only who stays with the
//! sandbox writes. (Rejected: a daemon that knows; one file for both, as then two would have to agree on who writes it; a state that
//! says "running", since whoever would have to take it back may be dead.)
//!
//! *Invariants*
//! - I1 a record is believed in nothing that the kernel can be asked: it lives if its directory is locked; who stays with it is the process
//!   that has it locked, as old as the record says, and outside of every sandbox; its PID 1 is a child of that one. // cve: 2022-31214
//! - I2 a record is renamed into place, whole or not there.
//! - I3 nothing of a sandbox is signalled but by a pidfd whose process was checked after it was opened.
#![forbid(unsafe_code)]

pub mod choose;
pub mod copy;
pub mod events;
pub mod exec;
pub mod health;
pub mod names;
pub mod run;
pub mod store;
pub mod watch;
pub mod writable;

pub use crate::host::process;

use crate::error::{Error, Result};
use crate::ident::{Digest, Id, Name};
use crate::logs::Limit;
use crate::monitor::Keys;
use crate::spec::storage::Kept;
use crate::spec::{Control, Spec};
use choose::Writes;
use health::Health;
use process::Process;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

/// What was decided: `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub id: Id,
    pub name: Name,
    /// The name was made up.
    pub unnamed: bool,
    /// Seconds since 1970.
    pub created: u64,
    /// None: the host's tree, or a directory.
    pub image: Option<Below>,
    pub writes: Writes,
    pub spec: Spec,
    /// Limits that were asked for, whose loss is an error. // spec/limits.rs
    pub asked: BTreeSet<Control>,
    /// The caller's working directory, resolved.
    pub cwd: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub options: Options,
}

impl Config {
    /// Its record outlives it: it can be started again, and what it wrote is there.
    pub fn stays(&self) -> bool {
        self.options.detached || matches!(self.writes, Writes::Kept(_))
    }

    /// The store that has what it writes, if that stays.
    pub fn store(&self) -> Option<PathBuf> {
        let over = || self.spec.files.kept.as_ref().map(Kept::store);
        self.image.as_ref().map(|image| image.store.clone()).or_else(over)
    }

    /// The command, for people.
    pub fn command(&self) -> Vec<String> {
        self.spec.process.words()
    }
}

/// The image that a sandbox runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// What the user called it.
    pub word: String,
    pub manifest: Digest,
    /// The store that has it.
    pub store: PathBuf,
    /// The ports that it says it listens at: `8080/tcp`.
    #[serde(default)] // not in records of before
    pub exposed: BTreeSet<String>,
}

/// How it is stayed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// A monitor stays with it, and not who started it.
    pub detached: bool,
    /// It is removed at its end.
    pub auto_remove: bool,
    /// Seconds from the stop signal to SIGKILL.
    pub stop_timeout: u64,
    pub restart: Restart,
    pub health: Option<Health>,
    /// How much of what it says is kept.
    pub log: Limit,
    /// What is typed to leave it at a terminal.
    pub detach_keys: Keys,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            detached: false,
            auto_remove: false,
            stop_timeout: 10,
            restart: Restart::No,
            health: None,
            log: Limit::default(),
            detach_keys: Keys::default(),
        }
    }
}

/// When it runs again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Restart {
    #[default]
    No,
    /// After an exit code that is not 0; at most so often.
    OnFailure(Option<u32>),
    Always,
    /// The same, but `start --all` after the machine was started leaves alone what somebody had stopped.
    UnlessStopped,
}

impl Restart {
    /// It ended with this exit code, and has been run again so often.
    pub fn wants(self, exit: u8, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => exit != 0 && most.is_none_or(|most| restarts < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }
}

impl FromStr for Restart {
    type Err = Error;
    fn from_str(s: &str) -> Result<Restart> {
        let bad = || Error::usage(format!("bad restart policy '{s}': no, on-failure[:N], always or unless-stopped"));
        match s.split_once(':').map_or((s, None), |(policy, n)| (policy, Some(n))) {
            ("no", None) => Ok(Restart::No),
            ("always", None) => Ok(Restart::Always),
            ("unless-stopped", None) => Ok(Restart::UnlessStopped),
            ("on-failure", most) => most.map(|n| n.parse().map_err(|_| bad())).transpose().map(Restart::OnFailure),
            _ => Err(bad()),
        }
    }
}

impl TryFrom<String> for Restart {
    type Error = Error;
    fn try_from(s: String) -> Result<Restart> {
        s.parse()
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> String {
        match restart {
            Restart::No => "no".into(),
            Restart::OnFailure(None) => "on-failure".into(),
            Restart::OnFailure(Some(most)) => format!("on-failure:{most}"),
            Restart::Always => "always".into(),
            Restart::UnlessStopped => "unless-stopped".into(),
        }
    }
}

/// What happened last: `state.json`. Whether it is still so, `store` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// Of the machine's start that the numbers of processes belong to. man: proc_sys_kernel(5), random/boot_id
    pub boot: String,
    /// Who stays with it: the monitor, or who ran it in the foreground.
    pub stays: Option<Process>,
    /// Its descriptor of the sandbox's directory, which it has locked.
    pub lock: Option<i32>,
    /// PID 1 of the sandbox.
    pub init: Option<Process>,
    /// Where its limits are.
    pub cgroup: Option<PathBuf>,
    /// What is written and then lost.
    pub lost: Option<Lost>,
    /// What is weaker than it was to be, and why.
    #[serde(default)]
    pub degraded: Vec<(Control, String)>,
    /// Nanoseconds since 1970.
    pub started: Option<u64>,
    pub finished: Option<u64>,
    pub exit: Option<u8>,
    pub signal: Option<i32>,
    /// Why, if the kernel or a limit ended it: `oom`, `timeout`.
    pub reason: Option<String>,
    /// Why it could not run.
    pub error: Option<String>,
    pub restarts: u32,
}

impl State {
    /// Nobody is there any more.
    pub fn over(self) -> State {
        State { stays: None, lock: None, init: None, cgroup: None, lost: None, ..self }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    #[default]
    Created,
    /// It has not run yet, and is to; if who starts it is gone, it never was.
    Starting,
    Running,
    /// It will run again.
    Restarting,
    Exited,
    /// Whoever stayed with it died with it, and could not say how it ended.
    Dead,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// A writable layer that has no name: a directory that who stays with the sandbox has open. // rootfs/image.rs
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub descriptor: i32,
    pub device: u64,
    pub inode: u64,
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
