//! A further command in a sandbox that runs, bound as its first one is. Called by `cli::exec`, and by whatever else is to run inside.
#![forbid(unsafe_code)]

use super::process::Process;
use super::run::{Call, seccomp_cache};
use super::store::Sandbox;
use crate::cgroup::{self, Place};
use crate::error::{Error, Kind, Result};
use crate::host::remedy::Missing;
use crate::launch::enter::{self, Calls, Entered, Target};
use crate::launch::plan::{Facts, Io};
use crate::spec::{NetworkMode, Share, Spec, User};
use crate::sys;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

/// What was said of the command. All else is the sandbox's.
#[derive(Debug, Default)]
pub struct Wish {
    pub argv: Vec<OsString>,
    /// On top of the sandbox's own.
    pub env: BTreeMap<String, String>,
    /// Relative to the sandbox's own.
    pub cwd: Option<PathBuf>,
    pub user: Option<User>,
    pub interactive: bool,
    pub tty: bool,
    /// It goes on without us.
    pub detached: bool,
    pub preserve_fds: u32,
}

/// The first process of a sandbox that runs.
pub fn first(sandbox: &Sandbox, verb: &str) -> Result<Process> {
    let name = &sandbox.config.name;
    sandbox.state.init.filter(|_| sandbox.is_running()).ok_or_else(|| {
        Error::new(Kind::Conflict, format!("cannot {verb} the sandbox '{name}': it does not run")).hint(format!("sandbox start {name}"))
    })
}

/// The Spec that it was made from.
pub fn spec(sandbox: &Sandbox) -> ManuallyDrop<Spec> {
    let mut spec = ManuallyDrop::new(sandbox.config.spec.clone());
    spec.limits.asked = sandbox.config.asked.clone();
    spec
}

/// Run it; it runs when this returns. `io`: None is a terminal of its own.
pub fn run(sandbox: &Sandbox, wish: Wish, call: Call, io: Option<Io>, calls: Calls) -> Result<Entered> {
    let first = first(sandbox, "run a command in")?;
    let mut spec = spec(sandbox);
    let Wish { argv, env, cwd, user, interactive, tty, detached, preserve_fds } = wish;
    let p = &mut spec.process;
    p.argv = argv;
    p.env.extend(env);
    p.cwd = cwd.map(|dir| p.cwd.as_deref().unwrap_or(Path::new("/")).join(dir)).or_else(|| p.cwd.take());
    p.user = user.or_else(|| p.user.take());
    (p.interactive, p.tty, p.preserve_fds) = (interactive, tty, preserve_fds);
    // A Landlock domain cannot be joined, and in one of its own the command could not signal its neighbours, nor speak with them. What the
    // namespaces keep apart needs no scope. man: landlock(7)
    let (own_pids, own_net) = (spec.namespaces.pid == Share::Private, spec.network.mode == NetworkMode::None);
    let needless = |scope: &String| (own_pids && scope == "signal") || (own_net && scope == "abstract-unix-socket");
    spec.restrict.landlock.scopes.retain(|scope| !needless(scope));

    let Call { caller, cwd: _, env, mask, window, guessed: _ } = call;
    let target = Target::find(first, &spec, &caller)?;
    let name = &sandbox.config.name;
    let joined = match &sandbox.state.cgroup {
        None => None,
        Some(top) => Some(cgroup::Joined::of(top, &target.cgroup_words()).ok_or_else(|| {
            Error::new(Kind::Denied, format!("cannot join the sandbox '{name}': it is not in its cgroup")).hint("sandbox rm -f, and run it again")
        })?),
    };
    if joined.as_ref().map_or_else(|| sandbox.is_paused(), cgroup::Joined::is_frozen) {
        return Err(Error::new(Kind::Conflict, format!("cannot run a command in '{name}': it is paused")).hint(format!("sandbox unpause {name}")));
    }
    // Where there is no cgroup, what stands in for it holds here, too.
    let stand_ins = match joined {
        Some(_) => Vec::new(),
        None => cgroup::plan(&spec, Place::Nowhere { missing: Missing::NoCgroup2, why: "the sandbox has no cgroup".into() })?.ulimits,
    };
    let uid = caller.uid;
    let facts = Facts { mounts: Vec::new(), cwd: sandbox.config.cwd.clone(), env, mask, window, landlock_abi: sys::confine::landlock_abi(), caller };
    let cache = seccomp_cache(&facts.caller);
    let entry = enter::freeze(&target, &spec, &facts, io, detached, stand_ins, cache.as_deref())?;
    enter::enter(&entry, &mut |pid| joined.as_ref().map_or(Ok(()), |cgroup| cgroup.put(pid, uid)), calls)
}
