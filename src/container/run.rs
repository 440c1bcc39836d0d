//! A sandbox is brought to life: what was said is frozen, and played. Called by `cli::run` and by the monitor.
#![forbid(unsafe_code)]

use super::choose::{Chosen, Over, Writes};
use super::process::Process;
use super::{Lost, State, Status, now};
use crate::cgroup;
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::mounts::Table;
use crate::host::subid::{self, Subids};
use crate::host::{self, Caller};
use crate::launch::plan::{self, Environment, Facts, Io, Plan, freeze};
use crate::launch::{Begun, Live, begin, launch};
use crate::monitor::Streams;
use crate::role::Role;
use crate::spec::{Control, Root, Spec, Userns, storage};
use crate::sys;
use crate::sys::signal::Set;
use crate::userns::{self, Maps};
use rustix::fs::{Mode, OFlags};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

/// Who runs it, and from where.
pub struct Call {
    pub caller: Caller,
    /// Resolved.
    pub cwd: PathBuf,
    pub env: Environment,
    /// The signal mask that the command is to start with.
    pub mask: Set,
    /// Columns and rows of the caller's terminal.
    pub window: (u16, u16),
    pub guessed: Option<Guess>,
}

/// A user namespace that was begun before it was known for sure which one is wanted.
pub struct Guess {
    pub caller: Caller,
    mode: Userns,
    subids: Subids,
    maps: Maps,
    begun: Begun,
}

impl Guess {
    /// None: it cannot be; why, who needs it for sure will say.
    pub fn new(mode: Userns, caller: Caller, subids: Subids) -> Option<Guess> {
        let maps = userns::plan(&mode, &caller, &subids, host::helper).ok()?;
        let begun = begin(&maps).ok()?;
        Some(Guess { caller, mode, subids, maps, begun })
    }

    /// Those of the files in a store, if they are these.
    pub fn store_maps(&self) -> Option<&Maps> {
        Some(&self.maps).filter(|_| self.mode == Userns::Root)
    }
}

/// Frozen, and its user namespace is there.
pub struct Ready {
    begun: Option<Begun>,
    pub plan: Plan,
    /// None: it gets a terminal.
    streams: Option<Streams>,
    /// What it was planned from.
    facts: Facts,
    table: Table,
}

/// So often it is planned anew.
const TRIES: u32 = 10;

/// Freeze it. First the ids: their maps are written while the rest is planned. `dry`: nothing is begun.
pub fn ready(spec: &Spec, call: Call, chosen: Option<&Chosen>, io: impl FnOnce() -> Result<Option<(Io, Streams)>>, dry: bool) -> Result<Ready> {
    host::kernel_floor()?;
    let Call { caller, cwd, env, mask, window, guessed } = call;
    let ids = match &guessed {
        _ if spec.userns == Userns::Single => plan::ids(spec, &caller, &Subids::default())?,
        Some(guess) => plan::ids(spec, &caller, &guess.subids)?,
        None => plan::ids(spec, &caller, &subid::subids(&caller)?)?,
    };
    let bounds = cgroup::plan(spec, cgroup::place(spec.cgroup_parent.as_deref(), caller.uid)?)?;
    if let Some(chosen) = chosen {
        chosen.check_ids(&ids.maps)?;
    }
    let begun = match guessed.filter(|guess| guess.maps == ids.maps) {
        _ if dry => None,
        Some(guess) => Some(guess.begun),
        None => Some(begin(&ids.maps)?),
    };
    let begun = begun.map(|begun| begun.start(plan::early(spec, bounds.piece.is_some())));
    let (io, streams) = io()?.unzip();
    let table = Table::open()?;
    let facts = Facts { mounts: table.read()?, cwd, env, mask, window, landlock_abi: sys::confine::landlock_abi(), caller };
    let cache = seccomp_cache(&facts.caller);
    if !dry && spec.files.mounts.iter().any(|m| !m.read_only && matches!(&m.source, storage::Source::Bind(p) if facts.caller.home.starts_with(p))) {
        // What decides about the next sandbox is hidden from this one, and only what is there can be hidden in a shared directory.
        let config = dirs::config(&facts.caller.home);
        if std::fs::symlink_metadata(&config).is_err() {
            dirs::make(&config)?;
        }
    }
    let plan = freeze(spec, &facts, ids, bounds, io, cache.as_deref())?;
    Ok(Ready { begun, plan, streams, facts, table })
}

/// Where compiled filters are kept: a directory that is never writable from inside, made if need be. No cache is no error.
pub(super) fn seccomp_cache(caller: &Caller) -> Option<PathBuf> {
    let dir = dirs::cache(&caller.home);
    dirs::make(&dir).is_ok().then_some(dir)
}

impl Ready {
    /// What the user should know, a sentence each.
    pub fn notes(&self, spec: &Spec) -> Vec<String> {
        let subids = self.plan.degraded.iter().filter(|(c, _)| *c == Control::Subids).map(|(_, why)| why.clone());
        self.plan.notes.iter().cloned().chain(subids).chain(lost_limits(&self.plan, spec)).collect()
    }

    /// Have its tree made, for as long as the answer lives, and run nothing. // copy.rs
    pub fn tree(self, spec: &Spec, chosen: &mut Chosen, writes: &Writes) -> Result<(OwnedFd, Maps, Holding)> {
        if let Root::Image(image) = &spec.root {
            chosen.keep(writes, Vec::new(), &image.volumes)?;
        }
        let (live, ready) = self.launch(spec, Some(chosen), Plan::only_tree)?;
        let namespace = || rustix::fs::open(format!("/proc/{}/ns/user", live.pid), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let user = live.server.as_ref().map(|_| namespace()).transpose().doing("open", "its user namespace")?;
        let holding = Holding { pidfd: live.pidfd, user, server: live.server };
        let top = live.layer.ok_or_else(|| Error::new(Kind::Bug, "no tree came"))?;
        Ok((top, ready.plan.maps, holding))
    }

    /// Play it: the command runs when this returns. `interactive` is for a terminal.
    pub fn play(self, spec: &Spec, chosen: &mut Option<Chosen>, writes: &Writes) -> Result<(Live, Streams, Option<Over>)> {
        if let (Some(chosen), Root::Image(image)) = (chosen.as_mut(), &spec.root) {
            chosen.keep(writes, spec.process.words(), &image.volumes)?;
        }
        let mut over = Over::take(spec, writes)?;
        let launched = self.launch(spec, chosen.as_ref(), |plan| plan);
        let (mut live, ready) = launched.inspect_err(|_| {
            chosen.iter_mut().for_each(Chosen::forget);
            over.iter_mut().for_each(Over::forget);
        })?;
        let streams = match (ready.streams, live.terminal.take()) {
            (Some(streams), _) => streams,
            (None, Some(master)) => Streams::Terminal { master, interactive: spec.process.interactive },
            (None, None) => return Err(Error::new(Kind::Bug, "no terminal came")),
        };
        Ok((live, streams, over)) // with the plan go our copies of the command's ends of the pipes
    }

    /// A mount that comes or goes between the plan and the clone, or a directory that goes, makes the plan one of another host: then there is a
    /// new one.
    fn launch(mut self, spec: &Spec, chosen: Option<&Chosen>, part: impl Fn(Plan) -> Plan) -> Result<(Live, Ready)> {
        let mut tries = 0;
        loop {
            let begun = self.begun.take().ok_or_else(|| Error::new(Kind::Bug, "cannot play what was not begun"))?;
            self.plan = part(self.plan);
            match launch(begun, &self.plan) {
                Err(e) if tries < TRIES && (e.kind() == Kind::NotFound || self.table.has_changed()) => {}
                ended => return ended.map(|live| (live, self)),
            }
            let Ready { plan, streams, facts: Facts { caller, cwd, env, mask, window, .. }, .. } = self;
            let call = Call { caller, cwd, env, mask, window, guessed: None };
            self = ready(spec, call, chosen, || Ok(plan.io.zip(streams)), false)?;
            tries += 1;
        }
    }
}

/// A process that holds a tree. Dropping it ends it.
pub struct Holding {
    pidfd: OwnedFd,
    /// The only one that may look into it, if it is served.
    pub user: Option<OwnedFd>,
    #[expect(dead_code, reason = "serves the tree")]
    server: Option<Role>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = sys::signal::pidfd_send(self.pidfd.as_fd(), libc::SIGKILL);
        let wait = || rustix::process::waitid(rustix::process::WaitId::PidFd(self.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
        let _ = sys::clone::interrupted(wait);
    }
}

/// What to say of limits that cannot be had: one line for all that were not asked for, since nothing is refused.
fn lost_limits(plan: &Plan, spec: &Spec) -> Vec<String> {
    let lost = plan.degraded.iter().filter(|(c, _)| cgroup::controller(*c).is_some());
    let (asked, defaults): (Vec<_>, Vec<_>) = lost.partition(|(c, _)| spec.limits.asked.contains(c));
    let mut said: Vec<_> = asked.into_iter().map(|(_, why)| why.clone()).collect();
    if let Some((_, why)) = defaults.first() {
        let names: Vec<_> = defaults.iter().map(|(c, _)| c.as_str()).collect();
        let why = why.split_once(": ").map_or(why.as_str(), |(_, why)| why).split(';').next().unwrap_or_default();
        said.push(format!("no limits on {}: {why} (the cure: sandbox doctor)", names.join(" and ")));
    }
    said
}

/// For the record: which directory the layer is that will be lost.
fn lost(upper: &OwnedFd) -> Result<Lost> {
    let stat = rustix::fs::fstat(upper).doing("look at", "the writable layer")?;
    Ok(Lost { descriptor: upper.as_raw_fd(), device: stat.st_dev, inode: stat.st_ino })
}

/// To the user, on stderr.
pub fn note(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox: note: {sentence}");
}

/// What is to be known of one that runs.
pub fn running(live: &Live) -> Result<State> {
    let pid = u32::try_from(live.pid).map_err(|_| Error::new(Kind::Bug, "a process without a number"))?;
    Ok(State {
        status: Status::Running,
        init: Some(Process::new(pid)?),
        cgroup: live.cgroup.as_ref().map(|held| held.path().to_path_buf()),
        lost: live.layer.as_ref().map(lost).transpose()?,
        degraded: live.degraded.clone(),
        started: Some(now()),
        ..State::default()
    })
}
