//! Freeze a Spec into a Plan: everything resolved against this host, nothing changed yet. Called by `cli::run`.
#![forbid(unsafe_code)]

use super::assemble;
use super::explain::Told;
use crate::cgroup::{self, Planned};
use crate::confine::{landlock, seccomp};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::caller::{self, Caller};
use crate::host::mounts::MountPoint;
use crate::host::remedy::Missing;
use crate::host::subid::Subids;
use crate::image::lookup;
use crate::overlay::server::Shape;
use crate::owners;
use crate::rootfs;
use crate::spec::{Control, NetworkMode, Root, SeccompProfile, Share, Spec, Userns, process};
use crate::sys;
use crate::sys::clone::{NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUTS};
use crate::sys::path::{Links, open_below};
use crate::sys::signal::Set;
use crate::tape::{Groups, Step, Tape};
use crate::userns::{self, Maps};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Variables, whose values are bytes.
pub type Environment = BTreeMap<String, OsString>;

/// What a plan is made from, besides the Spec: the facts of this host and of this call.
pub struct Facts {
    pub caller: Caller,
    pub mounts: Vec<MountPoint>,
    /// The caller's working directory, resolved.
    pub cwd: PathBuf,
    pub env: Environment,
    /// The signal mask that the command is to start with.
    pub mask: Set,
    /// Columns and rows of the caller's terminal.
    pub window: (u16, u16),
    pub landlock_abi: u32,
}

/// Where the command's standard streams come from: descriptors of this process, by number.
pub struct Io {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Which ids there will be: the first thing to know, since writing the maps takes longest.
pub struct Ids {
    pub maps: Maps,
    degraded: Vec<(Control, String)>,
}

pub struct Plan {
    pub maps: Maps,
    /// The namespaces of the child itself.
    pub namespaces: u64,
    pub tape: Tape,
    /// So many of its steps are played before the child is born: `early`.
    pub early: usize,
    /// What the command believes to be, if it is not.
    pub pretended: Option<owners::Ids>,
    /// Overlays that we serve: what its `Served` steps hand over.
    pub served: Vec<Shape>,
    /// The cgroup that the child is put into.
    pub cgroup: Option<cgroup::Piece>,
    /// The ruleset that the tape names by number lives as long as the plan.
    pub ruleset: Option<OwnedFd>,
    pub io: Option<Io>,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
    /// Controls that are weaker than asked for, with the reason.
    pub degraded: Vec<(Control, String)>,
    pub command: String,
    pub path: String,
}

impl Plan {
    /// The child gives us its writable layer to read.
    pub fn hands_over(&self) -> bool {
        self.tape.steps().iter().any(|s| matches!(s, Step::HandOver { .. }))
    }

    /// Somebody has to answer for its ids.
    pub fn is_supervised(&self) -> bool {
        self.tape.steps().iter().any(|s| matches!(s, Step::Listen { .. }))
    }

    /// The command gets a terminal of its own.
    pub fn has_terminal(&self) -> bool {
        self.io.is_none()
    }

    /// No command, and nothing to limit: the tree alone.
    pub fn only_tree(self) -> Plan {
        Plan { tape: self.tape.only_tree(), cgroup: None, ..self }
    }

    pub fn told(&self) -> Told<'_> {
        Told { tape: &self.tape, command: &self.command, path: &self.path }
    }
}

/// Who the command runs as, in ids of the sandbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    pub uid: u32,
    pub gid: u32,
    /// None: as born, with the caller's own groups.
    pub change: Option<Groups>,
    /// What the command is to believe in, born as it is.
    pub pretended: Option<owners::Ids>,
    pub home: PathBuf,
}

/// All that assemble needs, decided.
pub struct Frozen<'a> {
    pub work: Workload<'a>,
    pub home: PathBuf,
    pub hostname: String,
    /// There is a cgroup for it.
    pub limited: bool,
    /// And it is all that is seen of cgroups inside.
    pub own_cgroup: bool,
}

/// What is decided of the command itself: the same for the one that a sandbox is made for, and for one that joins it. // enter.rs
pub struct Workload<'a> {
    pub spec: &'a Spec,
    pub facts: &'a Facts,
    pub maps: &'a Maps,
    pub who: Who,
    pub cwd: PathBuf,
    pub env: Vec<CString>,
    pub paths: Box<[CString]>,
    pub argv: Vec<CString>,
    pub oom_score: Option<i32>,
    pub filter: Option<seccomp::Program>,
    /// A filter that leaves calls about ids to a supervisor, with its flags.
    pub owners: Option<(seccomp::Program, u32)>,
    pub landlock: landlock::Piece,
    pub io: Option<&'a Io>,
    /// rlimits in the place of limits that cannot be had.
    pub stand_ins: Vec<(&'static str, process::Ulimit)>,
    /// For people.
    pub command: String,
    pub path: String,
}

/// Landlock's version with scopes, Linux 6.12. man: landlock(7)
const SCOPES_SINCE: u32 = 6;

/// Namespaces that are made with the child.
fn at_clone(spec: &Spec) -> u64 {
    NEWNS | if spec.namespaces.pid == Share::Private { NEWPID } else { 0 }
}

/// What is done in the new user namespace before the child is born, while the id maps are written and the rest is planned. The
/// network namespace alone takes half a millisecond. `limited`: a cgroup namespace waits until the child is in its cgroup.
pub fn early(spec: &Spec, limited: bool) -> Vec<Step> {
    let n = &spec.namespaces;
    let private_net = spec.network.mode == NetworkMode::None;
    let all = [
        (private_net, NEWNET, "net"),
        (n.uts == Share::Private, NEWUTS, "uts"),
        (n.ipc == Share::Private, NEWIPC, "ipc"),
        (n.cgroup == Share::Private && !limited, NEWCGROUP, "cgroup"),
    ];
    let made = all.iter().filter(|(private, ..)| *private);
    let namespaces = made.clone().fold(0, |set, (_, flag, _)| set | flag);
    let names = made.map(|(.., name)| *name).collect::<Vec<_>>().join(" ");
    let unshare = (namespaces != 0).then_some(Step::Unshare { namespaces, names });
    unshare.into_iter().chain(private_net.then_some(Step::LoopbackUp)).collect()
}

/// No effects, but reading. Same Spec and same Facts give the same Plan.
pub fn freeze(spec: &Spec, facts: &Facts, ids: Ids, limits: Planned, io: Option<Io>, cache: Option<&Path>) -> Result<Plan> {
    let Ids { maps, mut degraded } = ids;
    let Planned { piece, degraded: unlimited, ulimits: stand_ins } = limits;
    degraded.extend(unlimited);
    let limited = piece.is_some();
    let own_cgroup = limited && spec.namespaces.cgroup == Share::Private;
    let home = std::fs::canonicalize(&facts.caller.home).unwrap_or_else(|_| facts.caller.home.clone());
    let site = rootfs::Site { spec, caller: &facts.caller, maps: &maps, mounts: &facts.mounts, cwd: &facts.cwd, home: &home, own_cgroup };
    let tree = rootfs::plan(&site)?;
    let owners = if tree.has_virtual_owners { owners::filter()? } else { None };
    let who = who(spec, facts, &maps, owners.is_some(), &|name| root_file(spec, facts, name))?;
    let mut work = workload(spec, facts, &maps, who, io.as_ref(), stand_ins, cache, &mut degraded)?;
    let (mut notes, served) = (tree.notes.clone(), tree.served.clone());
    work.owners = owners;
    if tree.has_virtual_owners && work.owners.is_none() {
        notes.push("files belong to one user inside, and chown is refused: pretending others needs Linux 5.5".into());
    }
    if facts.landlock_abi < SCOPES_SINCE && spec.network.mode == NetworkMode::Host {
        notes.push("the command can reach the host's abstract sockets: landlock scopes need Linux 6.12".into());
    }
    let (command, path, pretended) = (work.command.clone(), work.path.clone(), work.who.pretended.clone());
    let (tape, ruleset) = assemble::assemble(Frozen { work, home, hostname: hostname(spec), limited, own_cgroup }, tree)?;
    let early = early(spec, limited).len();
    Ok(Plan { namespaces: at_clone(spec), maps, tape, early, pretended, served, cgroup: piece, ruleset, io, notes, degraded, command, path })
}

/// How the command is restricted, and what it is given.
#[expect(clippy::too_many_arguments, reason = "called twice, and each is a fact of its own")]
pub fn workload<'a>(
    spec: &'a Spec,
    facts: &'a Facts,
    maps: &'a Maps,
    who: Who,
    io: Option<&'a Io>,
    stand_ins: Vec<(&'static str, process::Ulimit)>,
    cache: Option<&Path>,
    degraded: &mut Vec<(Control, String)>,
) -> Result<Workload<'a>> {
    let filter = if sys::confine::has_seccomp() {
        seccomp::compile(&spec.restrict.seccomp, spec.namespaces.nested, &spec.restrict.capabilities, cache)?
    } else if spec.best_effort.contains(&Control::Seccomp) || spec.restrict.seccomp.profile == SeccompProfile::Unconfined {
        degraded.push((Control::Seccomp, "this kernel has no filters".to_string()));
        None
    } else {
        return Err(Error::new(Kind::Unsupported, "cannot filter system calls: this kernel, or an outer container, does not let us")
            .hint("--best-effort seccomp goes on without; see 'sandbox doctor'"));
    };
    for (name, limit) in &spec.process.ulimits {
        if let Some(why) = assemble::lowered(name, limit)? {
            degraded.push((Control::Ulimits, why));
        }
    }
    let landlock = landlock::plan(&spec.restrict.landlock, facts.landlock_abi)?;
    if !landlock.missing.is_empty() {
        degraded.push((Control::Landlock, landlock.missing.join("; ")));
    }
    let scopes_missing = facts.landlock_abi < SCOPES_SINCE;
    if scopes_missing && spec.namespaces.pid == Share::Host && !spec.best_effort.contains(&Control::Landlock) {
        // Nothing else keeps the caller's other processes from being killed and, before 5.13, traced: they have the same ids.
        return Err(Missing::LandlockNoScopes.error("cannot show the host's processes: without Landlock's scopes the command could kill them"));
    }
    for (control, why) in degraded.iter() {
        if spec.require.contains(control) {
            return Err(Error::new(Kind::Unsupported, format!("cannot have {control} as required: {why}")).hint("see 'sandbox doctor'"));
        }
    }

    let env = environment(spec, facts, &who);
    let path = env.get("PATH").cloned().unwrap_or_default();
    let command = spec.process.argv.first().cloned().unwrap_or_default();
    let cstr = |s: &[u8]| CString::new(s).map_err(|_| Error::usage("an argument or a variable holds a NUL"));
    let paths = search(command.as_bytes(), path.as_bytes()).iter().map(|p| cstr(p)).collect::<Result<_>>()?;
    let default_cwd = if spec.root == Root::Host { facts.cwd.clone() } else { PathBuf::from("/") };
    let text = |s: OsString| s.to_string_lossy().into_owned();
    Ok(Workload {
        spec,
        facts,
        maps,
        cwd: spec.process.cwd.clone().unwrap_or(default_cwd),
        env: env.iter().map(|(k, v)| cstr(&[k.as_bytes(), b"=", v.as_bytes()].concat())).collect::<Result<_>>()?,
        paths,
        argv: spec.process.argv.iter().map(|a| cstr(a.as_bytes())).collect::<Result<_>>()?,
        oom_score: oom_score(spec),
        filter,
        owners: None,
        landlock,
        io,
        who,
        stand_ins,
        command: text(command),
        path: text(path),
    })
}

fn hostname(spec: &Spec) -> String {
    let named = spec.process.hostname.clone().or_else(|| spec.name.as_ref().map(|n| n.to_string()));
    named.unwrap_or_else(|| "sandbox".to_string())
}

/// Raised only: lowering it needs a privilege, and would be no restriction.
fn oom_score(spec: &Spec) -> Option<i32> {
    let now: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()?;
    Some(spec.process.oom_score_adj).filter(|wanted| *wanted > now)
}

/// Which ids there can be here.
pub fn ids(spec: &Spec, caller: &Caller, subids: &Subids) -> Result<Ids> {
    let mut degraded = Vec::new();
    id_maps(spec, caller, subids, &mut degraded).map(|maps| Ids { maps, degraded })
}

/// The maps, and what is lost if they hold one id only.
fn id_maps(spec: &Spec, caller: &Caller, subids: &Subids, degraded: &mut Vec<(Control, String)>) -> Result<Maps> {
    let mode = match &spec.userns {
        Userns::Auto if spec.root == Root::Host => Userns::KeepId { uid: None, gid: None },
        Userns::Auto => Userns::Root,
        named => named.clone(),
    };
    let at = |mode: &Userns| match mode {
        Userns::Root => (0, 0),
        Userns::KeepId { uid, gid } => (uid.unwrap_or(caller.uid), gid.unwrap_or(caller.gid)),
        _ if spec.root == Root::Host => (caller.uid, caller.gid),
        _ => (0, 0),
    };
    let (uid, gid) = at(&mode);
    if mode == Userns::Single {
        return Ok(userns::single(uid, gid, caller));
    }
    let lacks = subids.uids.is_empty() || subids.gids.is_empty();
    if lacks && !matches!(mode, Userns::Explicit { .. } | Userns::Nomap) {
        let which = if subids.uids.is_empty() { "subuid" } else { "subgid" };
        degraded.push((Control::Subids, format!("{} has no {which} range, so there is one id inside (the cure: sandbox doctor)", caller.name)));
        return Ok(userns::single(uid, gid, caller));
    }
    match userns::plan(&mode, caller, subids, crate::host::helper) {
        // In an outer container nobody can mend it, so one id is all there is.
        Err(e)
            if e.kind() == Kind::Unsupported
                && !spec.require.contains(&Control::Subids)
                && (spec.best_effort.contains(&Control::Subids) || crate::host::remedy::is_inside_another()) =>
        {
            degraded.push((Control::Subids, e.message().to_string()));
            Ok(userns::single(uid, gid, caller))
        }
        Err(e) if e.kind() == Kind::Unsupported && !spec.require.contains(&Control::Subids) => {
            let cure = format!("{}\n    or go on with one id: --best-effort subids", e.cure().unwrap_or_default());
            Err(e.hint(cure))
        }
        other => other,
    }
}

/// Where a command without a slash is looked for, as in execvp(3).
fn search(command: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if command.contains(&b'/') || command.is_empty() {
        return vec![command.to_vec()];
    }
    path.split(|b| *b == b':').map(|dir| [if dir.is_empty() { b"." } else { dir }, b"/", command].concat()).collect()
}

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A fixed list, what the policy passes on, what the user set: nothing else. // SECURITY 3.4 row 22
fn environment(spec: &Spec, facts: &Facts, who: &Who) -> Environment {
    let mut env = BTreeMap::from([("PATH".to_string(), DEFAULT_PATH.into()), ("HOME".to_string(), who.home.clone().into_os_string())]);
    if spec.root == Root::Host {
        let listed = |name: &str| spec.process.env_pass.iter().any(|p| p.covers(name));
        // A shared directory is a file system of its own, where git would stop looking for the repository around it. man: git(1)
        env.insert("GIT_DISCOVERY_ACROSS_FILESYSTEM".to_string(), "1".into());
        env.extend(facts.env.iter().filter(|(name, _)| *name == "PATH" || listed(name)).map(|(k, v)| (k.clone(), v.clone())));
        if who.change.is_some() {
            for name in ["USER", "LOGNAME", "SHELL"] {
                env.remove(name);
            }
        }
    } else {
        env.insert("HOSTNAME".to_string(), hostname(spec).into());
        if spec.process.tty {
            let term = facts.env.get("TERM").cloned().unwrap_or_else(|| "xterm".into());
            env.insert("TERM".to_string(), term);
        }
    }
    env.extend(spec.process.env.iter().map(|(k, v)| (k.clone(), v.into())));
    env
}

/// Who runs, looked up in the root's own files (`etc`) and checked against the maps. `pretends`: somebody answers for ids that are not mapped. // L7
pub fn who(spec: &Spec, facts: &Facts, maps: &Maps, pretends: bool, etc: &dyn Fn(&str) -> Vec<u8>) -> Result<Who> {
    let caller = &facts.caller;
    let host = spec.root == Root::Host;
    let born = (maps.uid_inside(caller.uid), maps.gid_inside(caller.gid));
    let Some(user) = &spec.process.user else {
        return Ok(match born {
            (Some(uid), Some(gid)) if host || uid == 0 => {
                let home = if host { caller.home.clone() } else { PathBuf::from("/root") };
                Who { uid, gid, change: None, pretended: None, home }
            }
            // As with podman, whoever keeps his id works under it.
            (Some(uid), Some(gid)) if matches!(spec.userns, Userns::KeepId { .. }) => {
                let entry = caller::passwd_uid(&etc("passwd"), uid);
                Who { uid, gid, change: None, pretended: None, home: entry.map_or_else(|| PathBuf::from("/"), |e| e.home) }
            }
            // No own id inside, or a root directory whose 0 is another id.
            _ if maps.has_uid(0) && maps.has_gid(0) => Who { uid: 0, gid: 0, change: Some(Groups::Keep), pretended: None, home: "/root".into() },
            (Some(uid), Some(gid)) => Who { uid, gid, change: None, pretended: None, home: "/".into() },
            _ => return Err(Error::usage("the id map has neither 0 nor the caller in it: say -u")),
        });
    };
    let passwd = etc("passwd");
    let (uid, entry) = match process::number(&user.user)? {
        Some(uid) => (uid, caller::passwd_uid(&passwd, uid)),
        None => {
            let entry = caller::passwd_lookup(&passwd, &user.user);
            let uid = entry.as_ref().map(|e| e.uid).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("cannot run as '{}': there is no such user in the root's /etc/passwd", user.user))
            })?;
            (uid, entry)
        }
    };
    let group_file = etc("group");
    let gid = match &user.group {
        None => entry.as_ref().map_or(0, |e| e.gid),
        Some(word) => match process::number(word)? {
            Some(gid) => gid,
            None => caller::group_lookup(&group_file, word).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("cannot run as group '{word}': there is no such group in the root's /etc/group"))
            })?,
        },
    };
    let home = entry.map_or_else(|| PathBuf::from("/"), |e| e.home);
    if born == (Some(uid), Some(gid)) {
        return Ok(Who { uid, gid, change: None, pretended: None, home: if host { caller.home.clone() } else { home } });
    }
    // cve: 2022-2989: the primary group is always among them.
    let groups = || {
        let mut list = caller::groups_of(&group_file, &user.user);
        list.retain(|g| *g != gid && (pretends || maps.has_gid(*g)));
        list.insert(0, gid);
        list
    };
    if pretends {
        return Ok(Who { uid, gid, change: None, pretended: Some(owners::Ids::of(uid, gid, groups())), home });
    }
    for (ok, kind, id) in [(maps.has_uid(uid), "uid", uid), (maps.has_gid(gid), "gid", gid)] {
        if !ok {
            let e = Error::new(Kind::Denied, format!("cannot run as {kind} {id}: it has no mapping here"));
            return Err(e.hint(if maps.is_full() {
                "ids outside the subuid range cannot be used; see --userns and 'sandbox doctor'".to_string()
            } else {
                crate::host::remedy::Missing::NoSubuid.remedy().cure
            }));
        }
    }
    let groups = if maps.is_full() { Groups::Set(groups().into()) } else { Groups::Keep };
    Ok(Who { uid, gid, change: Some(groups), pretended: None, home })
}

/// A file of the root's /etc: regular, bounded, through a handle. Missing or odd is empty. cve: 2024-9676
fn root_file(spec: &Spec, facts: &Facts, name: &str) -> Vec<u8> {
    let path = format!("etc/{name}");
    match &spec.root {
        Root::Host => read_bounded(Path::new("/"), &path),
        Root::Dir { path: root, .. } => read_bounded(&facts.cwd.join(root), &path),
        Root::Image(image) => lookup::read(&image.from_the_top(), &path, MOST_BYTES),
    }
    .unwrap_or_default()
}

const MOST_BYTES: u64 = 1 << 20;

fn read_bounded(root: &Path, path: &str) -> Result<Vec<u8>> {
    let dir = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty()).doing("open", root.display())?;
    read_below(&dir, path)
}

/// A file of a tree that nobody vouches for. What the kernel makes up is no file of the root, wherever a link leads. // L1 L7
pub fn read_below(dir: &OwnedFd, path: &str) -> Result<Vec<u8>> {
    let path = CString::new(path).map_err(|_| Error::usage("a NUL in a path"))?;
    // Not blocking: a fifo in its place must not hold us.
    let file =
        open_below(dir.as_fd(), &path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Links::Inside).doing("open", "a file of the root")?;
    let file = std::fs::File::from(file);
    let meta = file.metadata().doing("look at", "a file of the root")?;
    if !meta.is_file() || meta.len() > MOST_BYTES || sys::path::is_made_up(file.as_fd()) {
        return Err(Error::new(Kind::Denied, "not a regular file of at most 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).doing("read", "a file of the root")?;
    Ok(bytes)
}

/// What `--dry-run` prints, and what tests/golden keeps.
impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pid = if self.namespaces & NEWPID != 0 { " pid" } else { "" };
        write!(f, "clone     user{pid} mnt")?;
        for (name, extents) in [("uids", &self.maps.uids), ("gids", &self.maps.gids)] {
            let list: Vec<_> = extents.iter().map(|e| format!("{} -> {} ({})", e.inside, e.outside, e.count)).collect();
            write!(f, "\n{name:9} {}", list.join(", "))?;
        }
        if let Some(cgroup) = &self.cgroup {
            write!(f, "\ncgroup    {cgroup}")?;
        }
        for (control, why) in &self.degraded {
            write!(f, "\ndegraded  {control}: {why}")?;
        }
        for note in &self.notes {
            write!(f, "\nnote      {note}")?;
        }
        for (number, step) in self.tape.steps().iter().enumerate() {
            let phase = format!("{:?}", step.phase()).to_lowercase();
            write!(f, "\n{number:3} {phase:9} {step}")?;
        }
        writeln!(f)
    }
}
