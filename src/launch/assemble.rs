//! The story of a sandbox in one function: what happens in which order. Called by `plan::freeze`; read it beside `tape/step.rs`.
#![forbid(unsafe_code)]

use super::plan::{self, Frozen, Workload};
use crate::confine::landlock;
use crate::error::{Error, Result};
use crate::rootfs::{self, Tree};
use crate::spec::process::{ULIMITS, Ulimit};
use crate::spec::{LandlockFiles, NetworkMode, Share, Source};
use crate::sys::clone::NEWCGROUP;
use crate::sys::process::{Pointers, rlimit};
use crate::tape::step::Extent;
use crate::tape::{Barrier, Groups, Phase, Recorder, Slot, Step, Tape};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// What a further namespace of each kind is charged to. man: namespaces(7), "The /proc/sys/user directory"
const LIMITS: [(&str, Kind); 8] = [
    ("user", Kind::Ours),
    ("mnt", Kind::Ours),
    ("pid", Kind::Pid),
    ("net", Kind::Net),
    ("uts", Kind::Uts),
    ("ipc", Kind::Ipc),
    ("cgroup", Kind::Cgroup),
    ("time", Kind::Never),
];

enum Kind {
    Ours,
    Pid,
    Net,
    Uts,
    Ipc,
    Cgroup,
    Never,
}

pub fn assemble(f: Frozen, tree: Tree) -> Result<(Tape, Option<OwnedFd>)> {
    let mut tape = Recorder::default();
    let work = f.work;
    let (spec, namespaces) = (work.spec, &work.spec.namespaces);
    let site = rootfs::Site {
        spec,
        caller: &work.facts.caller,
        maps: work.maps,
        mounts: &work.facts.mounts,
        cwd: &work.facts.cwd,
        home: &f.home,
        own_cgroup: f.own_cgroup,
    };
    let owns_pids = namespaces.pid == Share::Private;

    // Identity. What needs no id map comes first: newuidmap is at work meanwhile.
    plan::early(spec, f.limited).into_iter().for_each(|step| tape.push(step));
    tape.push(rootfs::procfs(&site)?);
    let private_net = spec.network.mode == NetworkMode::None;
    if private_net {
        tape.push(sysctl("net/ipv4/ip_unprivileged_port_start", "0"));
    }
    if !namespaces.nested {
        // What there is now, and the inner user namespace: one of each. The next one fails with ENOSPC.
        for (name, kind) in LIMITS {
            let made = match kind {
                Kind::Ours => true,
                Kind::Pid => owns_pids,
                Kind::Net => private_net,
                Kind::Uts => namespaces.uts == Share::Private,
                Kind::Ipc => namespaces.ipc == Share::Private,
                Kind::Cgroup => namespaces.cgroup == Share::Private,
                Kind::Never => false,
            };
            let path = format!("user/max_{name}_namespaces");
            if name == "mnt" {
                // Every detached mount is a mount namespace of its own (kernel: fs/namespace.c alloc_mnt_ns()), so: after the last.
                tape.push(Step::OpenProc { path: cstring(&format!("sys/{path}"))?, slot: Slot::Limit });
            } else {
                tape.push(sysctl(&path, if made { "1" } else { "0" }));
            }
        }
    }
    tape.push(Step::Await(Barrier::Mapped));
    if f.own_cgroup {
        // Not before we are in it: its root is the cgroup of whoever unshares. kernel: kernel/cgroup/namespace.c copy_cgroup_ns()
        tape.push(Step::Unshare { namespaces: NEWCGROUP, names: "cgroup".into() });
    }
    if let Some((uid, gid)) = adopted(&work) {
        tape.push(Step::SetIds { uid, gid, groups: Groups::Keep, open: true });
    }
    // After the last change of ids, which would take it back.
    tape.push(Step::DieWithParent(Phase::Identity));
    if private_net {
        let (low, high) = ping_range(&work.maps.gids, work.who.gid);
        tape.push(sysctl("net/ipv4/ping_group_range", &format!("{low} {high}")));
    }

    // Root.
    if work.owners.is_some() {
        tape.push(Step::Introduce);
    }
    tree.record(&mut tape);

    // Process.
    if !namespaces.nested {
        tape.push(Step::WriteSlot { slot: Slot::Limit, value: c"1".into() });
    }
    if namespaces.uts == Share::Private {
        tape.push(Step::Hostname(cstring(&f.hostname)?));
    }
    process(&mut tape, &work)?;

    // Seal. The order and its reasons: `confine`.
    if !namespaces.nested || spec.process.init {
        let (uids, gids) = work.maps.inner();
        tape.push(Step::Split { uids, gids, owns_pids, lingers: f.limited });
        tape.push(Step::Await(Barrier::Inner));
    }
    if let Some(score) = work.oom_score {
        tape.push(Step::OomScore(cstring(&score.to_string())?));
    }
    seal(tape, work, !owns_pids, false)
}

/// The ids to take first where the caller has none inside: whatever we made would belong to nobody (EOVERFLOW).
pub(super) fn adopted(work: &Workload) -> Option<(u32, u32)> {
    let born = (work.maps.uid_inside(work.facts.caller.uid), work.maps.gid_inside(work.facts.caller.gid));
    let first = |list: &[Extent]| list.first().map_or(0, |e| e.inside);
    let missing = born.0.is_none() || born.1.is_none();
    missing.then(|| (born.0.unwrap_or_else(|| first(&work.maps.uids)), born.1.unwrap_or_else(|| first(&work.maps.gids))))
}

/// What the command is born with.
pub(super) fn process(tape: &mut Recorder, work: &Workload) -> Result<()> {
    tape.push(Step::NewSession);
    match work.io {
        None => {
            let (columns, rows) = work.facts.window;
            let owner = work.who.change.is_some().then_some((work.who.uid, work.who.gid));
            tape.push(Step::Terminal { rows, columns, owner });
        }
        Some(io) => {
            for (from, to) in [(&io.stdin, 0), (&io.stdout, 1), (&io.stderr, 2)] {
                tape.push(Step::Stdio { from: from.as_raw_fd(), to });
            }
        }
    }
    for (name, limit) in &work.spec.process.ulimits {
        tape.push(ulimit(name, limit)?);
    }
    // In the place of limits that cannot be had, unless the user has set them himself.
    for (name, limit) in work.stand_ins.iter().filter(|(name, _)| !work.spec.process.ulimits.contains_key(*name)) {
        tape.push(ulimit(name, limit)?);
    }
    tape.push(Step::Umask(work.spec.process.umask));
    Ok(())
}

/// From here to the command: what it is not to have goes, in the order that `confine` explains. `dies`: with who started it. `joined`: others
/// are there already, who must not see into it, whatever fs.suid_dumpable says.
pub(super) fn seal(mut tape: Recorder, work: Workload, dies: bool, joined: bool) -> Result<(Tape, Option<OwnedFd>)> {
    let (spec, process) = (work.spec, &work.spec.process);
    tape.push(Step::NotDumpable(Phase::Seal));
    let keep = spec.restrict.capabilities.iter().fold(0u64, |set, n| set | 1 << n);
    tape.push(Step::DropBounding { keep });
    if let Some(groups) = work.who.change.clone() {
        tape.push(Step::BecomeUser { uid: work.who.uid, gid: work.who.gid, groups });
        if joined {
            tape.push(Step::NotDumpable(Phase::Seal));
        }
    }
    if dies {
        tape.push(Step::DieWithParent(Phase::Seal));
    }
    let mut sealed = Vec::new();
    if let Some(ruleset) = &work.landlock.ruleset {
        if spec.restrict.landlock.files == LandlockFiles::Declared {
            landlock_paths(&work, ruleset.as_raw_fd(), &mut sealed)?;
        }
        sealed.push(Step::LandlockEnforce { ruleset: ruleset.as_raw_fd() });
    }
    sealed.push(Step::CloseOnExecFrom(3 + process.preserve_fds));
    sealed.push(Step::DefaultSignals { mask: work.facts.mask });
    if let Some((program, flags)) = work.owners {
        sealed.push(Step::Listen { program: program.into_filter(), flags });
    }
    if let Some(filter) = work.filter {
        sealed.push(Step::Seccomp(filter.into_filter()));
    }
    let capabilities = Step::SetCapabilities(if work.who.uid == 0 { keep } else { 0 });
    let chdir = Step::Chdir(CString::new(work.cwd.as_os_str().as_encoded_bytes()).map_err(|_| Error::usage("a NUL in the working directory"))?);
    if spec.restrict.no_new_privileges {
        tape.push(capabilities);
        // As the user that the command runs as, so that it goes where that user may go. // L6
        tape.push(chdir);
        tape.push(Step::NoNewPrivileges);
        sealed.into_iter().for_each(|s| tape.push(s));
    } else {
        // Without no_new_privs, seccomp(2) and landlock(7) want CAP_SYS_ADMIN, so the capabilities go last.
        let exec_needs = [chdir].into_iter().chain(sealed).chain([capabilities]);
        exec_needs.for_each(|s| tape.push(s));
    }

    tape.push(Step::Exec { paths: work.paths, argv: Pointers::new(work.argv), envp: Pointers::new(work.env) });
    Ok((tape.finish()?, work.landlock.ruleset))
}

fn sysctl(name: &str, value: &str) -> Step {
    Step::WriteProc { path: CString::new(format!("sys/{name}")).unwrap_or_default(), value: CString::new(value).unwrap_or_default() }
}

/// The groups that may ping. The kernel compares ids as the host knows them, so the ends are the lowest and the highest there;
/// but it wants them in order here too. kernel: net/ipv4/sysctl_net_ipv4.c ipv4_ping_group_range()
fn ping_range(gids: &[Extent], own: u32) -> (u32, u32) {
    let low = gids.iter().min_by_key(|e| e.outside).map(|e| e.inside);
    let high = gids.iter().max_by_key(|e| e.outside).map(|e| e.inside + (e.count - 1));
    match (low, high) {
        (Some(low), Some(high)) if low <= high => (low, high),
        _ => (own, own),
    }
}

fn cstring(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::usage(format!("'{text}' holds a NUL")))
}

/// A limit by its name: its number, and the caller's own hard limit, beyond which none of ours can go. man: setrlimit(2)
fn resource(name: &str) -> Result<(&'static str, u32, u64)> {
    let Some((name, resource)) = ULIMITS.into_iter().find(|(n, _)| *n == name) else {
        let known: Vec<_> = ULIMITS.iter().map(|(n, _)| *n).collect();
        return Err(Error::usage(format!("unknown limit '{name}': one of {}", known.join(", "))));
    };
    Ok((name, resource, rlimit(resource).map_or(u64::MAX, |(_, hard)| hard)))
}

fn ulimit(name: &str, limit: &Ulimit) -> Result<Step> {
    let (name, resource, ceiling) = resource(name)?;
    let at_most = |v: Option<u64>| v.unwrap_or(u64::MAX).min(ceiling);
    Ok(Step::Rlimit { name, resource, soft: at_most(limit.soft), hard: at_most(limit.hard) })
}

/// Why this limit cannot be as high as asked for, if it cannot.
pub(super) fn lowered(name: &str, limit: &Ulimit) -> Result<Option<String>> {
    let (name, _, ceiling) = resource(name)?;
    let wanted = limit.hard.unwrap_or(u64::MAX);
    Ok((wanted > ceiling).then(|| format!("{name} is {ceiling}, your own hard limit, and not higher")))
}

/// The whole tree may be read and executed; written is what was declared as writable, and the temporary directories.
fn landlock_paths(f: &Workload, ruleset: i32, steps: &mut Vec<Step>) -> Result<()> {
    let files = &f.spec.files;
    let mut push = |path: PathBuf, access: u64| -> Result<()> {
        let path = CString::new(path.into_os_string().into_encoded_bytes()).map_err(|_| Error::usage("a NUL in a path"))?;
        steps.push(Step::LandlockPath { ruleset, path, access, absent_is_fine: true });
        Ok(())
    };
    push("/".into(), f.landlock.read)?;
    for dir in files.fresh.iter().map(|r| PathBuf::from(&r.path)) {
        push(dir, f.landlock.read | f.landlock.write)?;
    }
    push("/dev".into(), f.landlock.read | f.landlock.write | f.landlock.device)?;
    for m in files.mounts.iter().filter(|m| !m.read_only) {
        let file = matches!(&m.source, Source::Bind(path) if path.is_file());
        push(m.target.clone(), if file { (f.landlock.read | f.landlock.write) & landlock::ON_FILE } else { f.landlock.read | f.landlock.write })?;
    }
    Ok(())
}
