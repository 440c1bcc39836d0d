//! Limits on all that is inside, through cgroup v2: where the sandbox's cgroup can be, what it is set to, and what it has used.
//!
//! *What*: `place` finds where we may have a cgroup; `plan` settles which limits can be had there, which are lost, and whether that is
//! an error; `Piece::apply` has the cgroup made and the child put into it; `Held` is the cgroup of a living sandbox. `scope` speaks with
//! the user's systemd, `usage` reads what the kernel counts.
//!
//! ```text
//! sandbox-NAME.scope     the limits, set by systemd at birth (or a directory of ours below a delegated cgroup, set by us)
//!   payload              the same limits once more, and the root of the cgroup namespace: the command and all that it starts
//!   init                 our PID 1, so that running out of memory ends the command and not the one who tells about it
//! ```
//!
//! *Why this way*: the limits stand above the directory that is the root of the namespace, so a workload that may mount (policy
//! `nested`) still cannot reach them; they stand in `payload` too, so that programs which read them at /sys/fs/cgroup find them.
//! The scope is one of the user's systemd, since that is who may hand out cgroups on a machine that it manages. (Rejected: one
//! delegated scope for all sandboxes, whose own limits nobody could set; polling /proc for the placement instead of waiting
//! for the job, which cannot tell a refusal from slowness.)
//!
//! *Invariants*
//! - C1 we ourselves are never inside what is limited.
//! - C2 what was asked for and cannot be had is an error before anything is started; a default that cannot be had is said. // L9
//! - C3 nothing is left: systemd drops an empty scope; what we made ourselves we remove, and what a killed one of us left is removed
//!   by the next (`sweep`). A lock on the directory tells who lives.
//!
//! *Kernel*
//!
//! | file | since | why | without it |
//! |---|---|---|---|
//! | memory.max, pids.max, cpu.max | 4.5, 4.15 | the limits | refused, or said |
//! | memory.oom.group | 4.19 | the command dies as a whole | its largest process dies alone |
//! | cgroup.kill | 5.14 | end all at once | PID 1's end does it |
//! | memory.peak | 5.19 | `--summary` | not shown |
#![forbid(unsafe_code)]

mod scope;
mod usage;

pub use scope::{Unit, budget, reset_budget, set_budget};
pub use usage::{Pressure, Usage};

use crate::error::{Doing, Error, Kind, Result};
use crate::host::remedy::Missing;
use crate::host::word;
use crate::spec::limits::{Limits, Memory};
use crate::spec::process::Ulimit;
use crate::spec::{Control, Spec};
use rustix::fs::{Access, FlockOperation, Mode, OFlags, access, flock, open};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// The slice of all of a user's sandboxes.
pub const SLICE: &str = "sandbox.slice";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Where processes go that were in a delegated cgroup itself, ours among them.
const ASIDE: &str = "supervisor";
const PAYLOAD: &str = "payload";
const INIT: &str = "init";

/// Where a cgroup of ours can be.
#[derive(Debug, Clone)]
pub enum Place {
    /// A transient scope of the user's systemd, in this slice.
    Systemd { bus: PathBuf, slice: String, controllers: BTreeSet<String> },
    /// Below this directory, which was delegated to us and has no processes of its own (or we may move them aside).
    Delegated { above: PathBuf, controllers: BTreeSet<String> },
    /// No place, and why.
    Nowhere { missing: Missing, why: String },
}

/// Find the place. Looks, changes nothing.
pub fn place(parent: Option<&str>, uid: u32) -> Result<Place> {
    let is_slice = |name: &str| name.ends_with(".slice") && !name.contains('/');
    let is_path = |path: &str| path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if let Some(parent) = parent.filter(|p| !is_slice(p) && !is_path(p)) {
        return Err(Error::usage(format!("bad --cgroup-parent '{parent}': a slice (NAME.slice), or the path of a cgroup from /")));
    }
    if !is_version_2(Path::new(ROOT)) {
        let why = if Path::new(ROOT).join("unified").exists() {
            "this machine mixes cgroup versions 1 and 2"
        } else if Path::new(ROOT).join("memory").exists() {
            "this machine has cgroup version 1"
        } else {
            "there is no cgroup file system"
        };
        return Ok(Place::Nowhere { missing: Missing::NoCgroup2, why: why.into() });
    }
    let own = word("/proc/self/cgroup").unwrap_or_default();
    let systemd = |slice: &str| {
        let bus = bus(uid)?;
        let controllers = words(&managed(&bus, &own, uid).join("cgroup.controllers"));
        Some(Place::Systemd { bus, slice: slice.into(), controllers })
    };
    let no_bus =
        || Place::Nowhere { missing: Missing::NoUserBus, why: "no systemd of yours is to be reached, and no cgroup was delegated to us".into() };
    match parent {
        Some(name) if is_slice(name) => return Ok(systemd(name).unwrap_or_else(no_bus)),
        Some(path) => {
            let above = Path::new(ROOT).join(path.trim_start_matches('/'));
            if !above.is_dir() {
                return Err(Error::new(Kind::NotFound, format!("cannot make a cgroup in {path}: it is not there")));
            }
            if !is_ours(&above) {
                let e = Error::new(Kind::Denied, format!("cannot make a cgroup in {path}: it was not delegated to you"));
                return Err(e.hint("systemd-run --user --scope -p Delegate=yes makes one that is"));
            }
            return Ok(Place::Delegated { controllers: words(&above.join("cgroup.controllers")), above });
        }
        None => {}
    }
    let delegated = delegated(Path::new(ROOT), &own, uid);
    let direct = |above: PathBuf| Place::Delegated { controllers: words(&above.join("cgroup.controllers")), above };
    // With its processes in a subgroup, a delegated cgroup is ready; moving processes of others aside is for where nobody else can help.
    Ok(match (delegated, systemd(SLICE)) {
        (Some(dir), _) if has_no_processes(&dir) => direct(dir),
        (_, Some(systemd)) => systemd,
        (Some(dir), None) => direct(dir),
        (None, None) => no_bus(),
    })
}

/// man: statfs(2), CGROUP2_SUPER_MAGIC
fn is_version_2(root: &Path) -> bool {
    rustix::fs::statfs(root).is_ok_and(|s| s.f_type == 0x6367_7270)
}

fn words(file: &Path) -> BTreeSet<String> {
    word(file).unwrap_or_default().split_whitespace().map(String::from).collect()
}

fn has_no_processes(dir: &Path) -> bool {
    std::fs::read(dir.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty())
}

/// The nearest cgroup around us that was delegated (marked so by systemd, or writable where systemd is not the one who hands them out) and
/// has no processes of its own; or else the nearest.
fn delegated(root: &Path, own: &str, uid: u32) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Where we have been moved aside, we look from where we were.
    let path = path.strip_suffix(ASIDE).map_or(path, |above| above.trim_end_matches('/'));
    let manager = format!("user@{uid}.service");
    let under_systemd = path.split('/').any(|part| part == manager);
    let below = root.join(path);
    let (mut dir, mut nearest) = (below.clone(), None);
    while dir.starts_with(root) && dir.file_name() != Some(OsStr::new(&manager)) {
        // What is writable below the user's systemd is systemd's, unless it says otherwise; to root everything is writable.
        let ours = if under_systemd || (uid == 0 && !path.is_empty()) { is_marked(&dir) || (dir != below && is_unit(&dir)) } else { true };
        if ours && is_ours(&dir) && (dir != root || path.is_empty()) {
            if has_no_processes(&dir) {
                return Some(dir);
            }
            nearest.get_or_insert_with(|| dir.clone());
        }
        if !dir.pop() {
            break;
        }
    }
    nearest
}

/// Below a unit that was not delegated nobody makes a cgroup, so to live in one says that it was: the user's systemd of Debian 12 (252) leaves no mark.
fn is_unit(dir: &Path) -> bool {
    dir.extension().is_some_and(|kind| kind == "scope" || kind == "service")
}

/// systemd: docs/CGROUP_DELEGATION.md, "Delegation"
fn is_marked(dir: &Path) -> bool {
    let mut value = [0u8; 4];
    ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|name| rustix::fs::getxattr(dir, *name, &mut value[..]).is_ok_and(|n| n == 1 && value[0] == b'1'))
}

/// The files that a delegation hands over. kernel: cgroup-v2.rst, "Model of Delegation"
fn is_ours(dir: &Path) -> bool {
    ["", "cgroup.procs", "cgroup.subtree_control"].iter().all(|file| access(dir.join(file), Access::WRITE_OK).is_ok())
}

/// The socket of the user's bus. Without a session's variables it is where systemd puts it: for cron, and for `sudo -u`.
pub fn bus(uid: u32) -> Option<PathBuf> {
    let named = std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().and_then(|a| {
        let path = a.split(';').next()?.strip_prefix("unix:path=")?.split(',').next()?.to_string();
        Some(PathBuf::from(path))
    });
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("bus"));
    let usual = PathBuf::from(format!("/run/user/{uid}/bus"));
    // Root's own systemd is the machine's.
    let machine = (uid == 0).then(|| PathBuf::from(SYSTEM_BUS));
    let usable = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket() && m.uid() == uid);
    named.into_iter().chain(session).chain([usual]).chain(machine).find(usable)
}

/// The cgroup of the systemd behind a bus.
fn managed(bus: &Path, own: &str, uid: u32) -> PathBuf {
    if bus == Path::new(SYSTEM_BUS) { PathBuf::from(ROOT) } else { Path::new(ROOT).join(manager(own, uid)) }
}

/// The cgroup of the user's systemd below the mount point: where we are in one, or where it would be.
pub fn manager(own: &str, uid: u32) -> PathBuf {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let service = format!("user@{uid}.service");
    match path.split_once(&service) {
        Some((above, after)) if after.is_empty() || after.starts_with('/') => PathBuf::from(format!("{above}{service}")),
        _ => PathBuf::from(format!("user.slice/user-{uid}.slice/{service}")),
    }
}

/// The cgroup that a sandbox will have.
#[derive(Debug)]
pub struct Piece {
    place: Place,
    /// `sandbox-NAME`.
    name: String,
    limits: Limits,
    budget: Limits,
    /// Our own init is PID 1, and gets out of the way.
    own_init: bool,
}

/// What comes of the limits on this machine.
#[derive(Debug, Default)]
pub struct Planned {
    pub piece: Option<Piece>,
    /// Limits that cannot be had, and why.
    pub degraded: Vec<(Control, String)>,
    /// What stands in for them.
    pub ulimits: Vec<(&'static str, Ulimit)>,
}

/// The controller of the kernel that a control needs.
pub fn controller(control: Control) -> Option<&'static str> {
    matches!(control, Control::Memory | Control::Cpu | Control::Cpuset | Control::Pids | Control::Io).then(|| control.as_str())
}

pub fn plan(spec: &Spec, place: Place) -> Result<Planned> {
    let mut limits = spec.limits.clone();
    limits.memory.take_if(|m| *m == Memory::Unlimited);
    limits.pids.take_if(|p| p.most() == u64::MAX);
    let mut planned = Planned::default();
    if let (Some(parent), Place::Nowhere { missing, why }) = (&spec.cgroup_parent, &place) {
        return Err(missing.error(format!("cannot have a cgroup in {parent}: {why}")));
    }
    let (mut kept, mut lost) = (false, Vec::new());
    for control in limits.controls() {
        let have = match &place {
            Place::Systemd { controllers, .. } | Place::Delegated { controllers, .. } => {
                controllers.contains(controller(control).unwrap_or_default())
            }
            Place::Nowhere { .. } => false,
        };
        if have {
            kept = true;
            continue;
        }
        let (missing, why) = match &place {
            Place::Nowhere { missing, why } => (*missing, why.clone()),
            _ => (Missing::NoDelegation, format!("the controller {control} was not delegated to you")),
        };
        let asked = limits.asked.contains(&control);
        if spec.require.contains(&control) || (asked && !spec.best_effort.contains(&control)) {
            let e = Error::new(Kind::Unsupported, format!("cannot limit {}: {why}", object(control)));
            return Err(e.hint(format!("{}\n    or go on without: --best-effort {control}", missing.remedy().cure)));
        }
        let instead = stand_in(control, &limits, asked).map(|(name, value)| {
            planned.ulimits.push((name, Ulimit { soft: Some(value), hard: Some(value) }));
            match control {
                Control::Memory => format!("; instead each process may have {value} bytes of data (RLIMIT_DATA)"),
                _ => format!("; instead each user inside may have {value} processes (RLIMIT_NPROC)"),
            }
        });
        planned.degraded.push((control, format!("no limit on {}: {why}{}", object(control), instead.unwrap_or_default())));
        lost.push(control);
    }
    for control in lost {
        drop_control(&mut limits, control);
    }
    if kept {
        let name = match &spec.name {
            Some(name) => format!("sandbox-{name}"),
            None => format!("sandbox-{:08x}", random()?),
        };
        let own_init = !spec.namespaces.nested || spec.process.init;
        planned.piece = Some(Piece { place, name, limits, budget: spec.budget.clone(), own_init });
    }
    Ok(planned)
}

fn object(control: Control) -> &'static str {
    match control {
        Control::Memory => "memory",
        Control::Cpu => "processor time",
        Control::Cpuset => "which processors are used",
        Control::Pids => "the number of processes",
        _ => "the use of devices",
    }
}

/// The rlimit that comes closest. man: getrlimit(2)
fn stand_in(control: Control, limits: &Limits, asked: bool) -> Option<(&'static str, u64)> {
    match control {
        // A share of the whole memory for each process is no limit, so only what was asked for.
        Control::Memory if asked => limits.memory.map(|m| ("data", m.bytes())),
        // Before 5.14 the processes of the user outside were counted too.
        Control::Pids if crate::host::kernel() >= crate::host::Kernel { major: 5, minor: 14 } => limits.pids.map(|p| ("nproc", p.most())),
        _ => None,
    }
}

fn drop_control(limits: &mut Limits, control: Control) {
    match control {
        Control::Memory => (limits.memory, limits.memory_swap, limits.memory_reservation) = (None, None, None),
        Control::Cpu => (limits.cpus, limits.cpu_shares) = (None, None),
        Control::Cpuset => (limits.cpuset_cpus, limits.cpuset_mems) = (None, None),
        Control::Pids => limits.pids = None,
        _ => {
            limits.blkio_weight = None;
            [&mut limits.device_read_bps, &mut limits.device_write_bps].into_iter().for_each(|m| m.clear());
            [&mut limits.device_read_iops, &mut limits.device_write_iops].into_iter().for_each(|m| m.clear());
        }
    }
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).doing("get", "random bytes")?;
    Ok(u32::from_ne_bytes(bytes))
}

/// What `--dry-run` says.
impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Systemd { slice, .. } => write!(f, "{}.scope in {slice}, by the user's systemd:", self.shown_name())?,
            Place::Delegated { above, .. } => write!(f, "{} below {}, which was delegated:", self.shown_name(), above.display())?,
            Place::Nowhere { .. } => {}
        }
        settings(&self.limits).iter().try_for_each(|(file, value)| write!(f, " {file}={value}"))
    }
}

impl Piece {
    /// The name is by chance where none was given, and a plan is to be the same each time.
    fn shown_name(&self) -> &str {
        self.name.strip_prefix("sandbox-").filter(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_hexdigit())).map_or(&self.name, |_| "sandbox-ID")
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn own_init(&self) -> bool {
        self.own_init
    }

    /// Have the cgroup made, and put the process `pid` into it.
    pub fn apply(&self, pid: i32) -> Result<Held> {
        let (top, lock, ours) = match &self.place {
            Place::Systemd { bus, slice, .. } => {
                if !self.budget.controls().is_empty() {
                    set_budget(bus, &self.budget, false)?;
                }
                let unit = format!("{}.scope", self.name);
                scope::start(bus, &unit, slice, pid, &self.limits)?;
                let own = word(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
                if !path.ends_with(&unit) {
                    return Err(
                        Error::new(Kind::Denied, format!("cannot limit the sandbox: systemd did not put it into {unit}")).hint("sandbox doctor")
                    );
                }
                (Path::new(ROOT).join(path), None, false)
            }
            Place::Delegated { above, .. } => {
                if !self.budget.controls().is_empty() {
                    return Err(Error::new(Kind::Unsupported, "cannot set a budget: no systemd of yours has the sandboxes in a slice here")
                        .hint(Missing::NoUserBus.remedy().cure));
                }
                sweep(above);
                enable(above, &self.limits)?;
                let top = above.join(&self.name);
                std::fs::create_dir(&top).doing("make", top.display())?;
                let lock = open(&top, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing("open", top.display())?;
                let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
                (top, Some(lock), true)
            }
            Place::Nowhere { .. } => return Err(Error::new(Kind::Bug, "no place for a cgroup")),
        };
        let mut held = Held { payload: top.join(PAYLOAD), top, ours, lock, pid, moved: false };
        if ours {
            write_settings(&held.top, &self.limits)?;
        }
        std::fs::create_dir(&held.payload).doing("make", held.payload.display())?;
        // Before the controllers: a cgroup with processes of its own cannot hand any down. kernel: cgroup-v2.rst, "No Internal Process Constraint"
        put(&held.payload, "cgroup.procs", &pid.to_string())?;
        enable(&held.top, &self.limits)?;
        write_settings(&held.payload, &self.limits)?;
        for (file, value) in [("memory.oom.group", "1"), ("cgroup.max.depth", "8"), ("cgroup.max.descendants", "64")] {
            // Not there without the memory controller, or before 4.19.
            let _ = put(&held.payload, file, value);
        }
        if self.own_init {
            held.moved = std::fs::create_dir(held.top.join(INIT)).is_ok();
        }
        Ok(held)
    }
}

/// A living sandbox's cgroup (`Held::path`), for a further process of it.
#[derive(Debug)]
pub struct Joined {
    top: PathBuf,
    /// Where its workload is: in the payload, or further down if it has cgroups of its own.
    at: PathBuf,
}

impl Joined {
    /// The cgroup `top`, if the process with these words in its /proc/PID/cgroup is in its payload.
    pub fn of(top: &Path, words: &str) -> Option<Joined> {
        let at = Path::new(ROOT).join(words.lines().find_map(|line| line.strip_prefix("0::/"))?);
        at.starts_with(top.join(PAYLOAD)).then(|| Joined { top: top.to_path_buf(), at })
    }

    /// Nothing in it gets on.
    pub fn is_frozen(&self) -> bool {
        [&self.top, &self.at].iter().any(|dir| word(dir.join("cgroup.events")).is_some_and(|text| text.lines().any(|l| l == "frozen 1")))
    }

    /// The processes of the payload, also those in cgroups of its own.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut dirs = vec![self.top.join(PAYLOAD)];
        while let Some(dir) = dirs.pop() {
            found.extend(word(dir.join("cgroup.procs")).unwrap_or_default().lines().filter_map(|pid| pid.parse::<i32>().ok()));
            let inner = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            dirs.extend(inner.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
        found
    }

    /// Put a process of ours into it: ourselves where we may, through systemd where the way leads through cgroups that are its. // L10
    pub fn put(&self, pid: i32, uid: u32) -> Result<()> {
        let denied = match std::fs::write(self.at.join("cgroup.procs"), pid.to_string()) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        let unit = self.top.file_name().and_then(OsStr::to_str).filter(|name| name.ends_with(".scope"));
        if let (Some(unit), Some(bus), Ok(below)) = (unit, bus(uid), self.at.strip_prefix(&self.top)) {
            scope::attach(&bus, unit, &format!("/{}", below.display()), pid)?;
        }
        let own = word(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if Joined::of(&self.top, &own).is_none() {
            let why = crate::error::why(&denied);
            return Err(Error::new(Kind::Denied, format!("cannot put a process into the sandbox's cgroup {}: {why}", self.at.display()))
                .hint("run it from where the sandbox was started, or where your systemd can be reached; see 'sandbox doctor'"));
        }
        Ok(())
    }
}

/// Hand the controllers that the limits need, and those whose counts we show, down to the children of `dir`.
fn enable(dir: &Path, limits: &Limits) -> Result<()> {
    let (have, on) = (words(&dir.join("cgroup.controllers")), words(&dir.join("cgroup.subtree_control")));
    let needed: Vec<_> = limits.controls().into_iter().filter_map(controller).collect();
    for name in ["memory", "pids", "cpu", "cpuset", "io"] {
        if on.contains(name) || !have.contains(name) {
            continue;
        }
        let mut done = put(dir, "cgroup.subtree_control", &format!("+{name}"));
        if done.is_err() && needed.contains(&name) {
            aside(dir);
            done = put(dir, "cgroup.subtree_control", &format!("+{name}"));
        }
        if needed.contains(&name) {
            done.map_err(|e| e.hint("give the program that starts sandboxes a subgroup of its own: DelegateSubgroup= in its unit"))?;
        }
    }
    Ok(())
}

/// Processes that live in a delegated cgroup itself go into a child of it: the rule of cgroup v2 leaves no other way.
fn aside(dir: &Path) {
    let beside = dir.join(ASIDE);
    let _ = std::fs::create_dir(&beside);
    for _ in 0..10 {
        let procs = word(dir.join("cgroup.procs")).unwrap_or_default();
        if procs.is_empty() {
            return;
        }
        procs.lines().for_each(|pid| drop(put(&beside, "cgroup.procs", pid)));
    }
}

fn put(dir: &Path, file: &str, value: &str) -> Result<()> {
    std::fs::write(dir.join(file), value).doing("set", format_args!("{} to {value} in {}", file, dir.display()))
}

/// What the kernel's files are to hold.
fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let number = |n: u64| if n == u64::MAX { "max".to_string() } else { n.to_string() };
    let mut all = Vec::new();
    if let Some(memory) = limits.memory {
        all.push(("memory.max", number(memory.bytes())));
        all.push(("memory.swap.max", number(limits.swap(memory))));
    }
    all.extend(limits.memory_reservation.map(|m| ("memory.low", number(m.bytes()))));
    all.extend(limits.cpus.map(|c| ("cpu.max", format!("{} 100000", u64::from(c.0) * 100))));
    all.extend(limits.cpu_shares.map(|s| ("cpu.weight", s.weight().to_string())));
    all.extend(limits.cpuset_cpus.as_ref().map(|s| ("cpuset.cpus", s.to_string())));
    all.extend(limits.cpuset_mems.as_ref().map(|s| ("cpuset.mems", s.to_string())));
    all.extend(limits.pids.map(|p| ("pids.max", number(p.most()))));
    all.extend(limits.blkio_weight.map(|w| ("io.weight", w.weight().to_string())));
    for (rates, key) in [(&limits.device_read_bps, "rbps"), (&limits.device_write_bps, "wbps")] {
        all.extend(rates.iter().map(|(device, rate)| ("io.max", format!("{}:{key}={}", device.display(), rate.0))));
    }
    for (rates, key) in [(&limits.device_read_iops, "riops"), (&limits.device_write_iops, "wiops")] {
        all.extend(rates.iter().map(|(device, rate)| ("io.max", format!("{}:{key}={rate}", device.display()))));
    }
    all
}

fn write_settings(dir: &Path, limits: &Limits) -> Result<()> {
    for (file, value) in settings(limits) {
        let value = match value.strip_prefix('/').and_then(|v| v.split_once(':')) {
            Some((path, rate)) => {
                let device = Path::new("/").join(path);
                let number = std::fs::metadata(&device).doing("limit", device.display())?.rdev();
                format!("{}:{} {rate}", rustix::fs::major(number), rustix::fs::minor(number))
            }
            None => value,
        };
        match put(dir, file, &value) {
            // A kernel without swap accounting has no swap to give either.
            Err(_) if file == "memory.swap.max" && !dir.join(file).exists() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Remove what a killed one of us left in a delegated cgroup. // C3
pub fn sweep(above: &Path) {
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
        let dir = entry.path();
        if !entry.file_name().to_string_lossy().starts_with("sandbox-") {
            continue;
        }
        let Ok(lock) = open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            clear(&dir);
        }
    }
}

fn clear(dir: &Path) {
    let _ = std::fs::write(dir.join("cgroup.kill"), "1");
    for _ in 0..50 {
        remove(dir);
        if !dir.exists() {
            return;
        }
        // The kernel is still at it.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn remove(dir: &Path) {
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove(&child.path());
    }
    let _ = std::fs::remove_dir(dir);
}

/// The cgroup of a sandbox that lives. Dropping it removes it, and kills whatever is still inside.
#[derive(Debug)]
pub struct Held {
    top: PathBuf,
    payload: PathBuf,
    /// We made it, so we remove it.
    ours: bool,
    #[expect(dead_code, reason = "holds the lock")]
    lock: Option<OwnedFd>,
    pid: i32,
    /// PID 1 is to leave the payload.
    moved: bool,
}

impl Held {
    /// From the root of the cgroup file system.
    pub fn path(&self) -> &Path {
        &self.top
    }

    /// The command runs, so PID 1 is only our init: out of the payload, where running out of memory would end it too.
    pub fn started(&self) {
        if self.moved {
            let _ = put(&self.top.join(INIT), "cgroup.procs", &self.pid.to_string());
        }
    }

    /// It is going to end: not as slowly as it was made to live.
    pub fn let_go(&self) {
        for dir in [&self.payload, &self.top] {
            let _ = put(dir, "cpu.max", "max");
        }
    }

    pub fn usage(&self) -> Usage {
        Usage::read(&self.payload)
    }

    /// All in it are dead: wait until its name is free, which systemd takes a moment for.
    pub fn end(self) {
        let top = self.top.clone();
        drop(self);
        let start = std::time::Instant::now();
        while top.exists() && start.elapsed() < ENDING {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.ours {
            clear(&self.top);
        } else {
            // Nothing that was inside may outlive us, also where the pids are the host's; systemd removes the rest.
            let _ = std::fs::write(self.top.join("cgroup.kill"), "1");
        }
    }
}

/// How long systemd may take to see that nobody is in a cgroup any more.
const ENDING: std::time::Duration = std::time::Duration::from_secs(1);
/// How long the kernel may take to stop them all.
const FREEZING: std::time::Duration = std::time::Duration::from_secs(2);

/// Stop all that is in the payload of this sandbox's cgroup, or let it go on. kernel: cgroup-v2.rst, cgroup.freeze
pub fn freeze(top: &Path, on: bool) -> Result<()> {
    let payload = top.join(PAYLOAD);
    put(&payload, "cgroup.freeze", if on { "1" } else { "0" })?;
    let start = std::time::Instant::now();
    while is_frozen(top) != on {
        if start.elapsed() > FREEZING {
            let _ = put(&payload, "cgroup.freeze", "0");
            return Err(Error::new(Kind::Io, "cannot stop all processes of the sandbox: the kernel does not come to an end with it"));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

pub fn is_frozen(top: &Path) -> bool {
    word(top.join(PAYLOAD).join("cgroup.events")).is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
}

pub fn payload(top: &Path) -> PathBuf {
    top.join(PAYLOAD)
}

/// Other limits for a sandbox that lives: what `limits` says, and nothing of the rest.
pub fn update(top: &Path, uid: u32, limits: &Limits) -> Result<()> {
    let unit = top.file_name().and_then(OsStr::to_str).filter(|name| name.ends_with(".scope"));
    match (unit, bus(uid)) {
        (Some(unit), Some(bus)) => scope::set(&bus, unit, limits)?,
        (Some(unit), None) => {
            return Err(Missing::NoUserBus.error(format!("cannot change the limits of {unit}: no systemd of yours is to be reached")));
        }
        (None, _) => write_settings(top, limits)?,
    }
    enable(top, limits)?;
    write_settings(&top.join(PAYLOAD), limits)
}

/// The user's living sandboxes that have a cgroup: (name, usage).
pub fn living(uid: u32) -> Vec<(String, PathBuf)> {
    let own = word("/proc/self/cgroup").unwrap_or_default();
    let mut above: Vec<_> = bus(uid).map(|bus| managed(&bus, &own, uid).join(SLICE)).into_iter().collect();
    above.extend(delegated(Path::new(ROOT), &own, uid));
    let entries = above.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let mut all: Vec<_> = entries
        .filter_map(|e| {
            let file = e.file_name().into_string().ok()?;
            let name = file.strip_prefix("sandbox-")?;
            let name = name.strip_suffix(".scope").unwrap_or(name).to_string();
            let payload = e.path().join(PAYLOAD);
            let lives = word(payload.join("cgroup.events")).is_some_and(|text| text.lines().any(|l| l == "populated 1"));
            lives.then_some((name, payload))
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Patch, Root, policy};

    fn spec(flags: &str) -> Spec {
        let base = policy::base(Path::new("/nonexistent")).unwrap();
        let flags: Patch = toml::from_str(flags).unwrap();
        let asked = Patch { limits: flags.limits.clone().asked(), ..flags };
        base.then(Patch { root: Some(Root::Host), ..asked }).settle().unwrap()
    }

    fn nowhere() -> Place {
        Place::Nowhere { missing: Missing::NoCgroup2, why: "no".into() }
    }

    fn systemd(controllers: &str) -> Place {
        Place::Systemd { bus: "/b".into(), slice: SLICE.into(), controllers: controllers.split(' ').map(String::from).collect() }
    }

    #[test]
    fn what_was_asked_for_is_an_error_and_a_default_is_said() {
        let planned = plan(&spec(""), nowhere()).unwrap();
        assert!(planned.piece.is_none());
        assert_eq!(planned.degraded.iter().map(|(c, _)| *c).collect::<Vec<_>>(), [Control::Memory, Control::Pids]);
        assert_eq!(planned.ulimits.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["nproc"]);

        let e = plan(&spec("limits.memory = '64m'"), nowhere()).unwrap_err();
        assert!(e.message().contains("cannot limit memory: no") && e.cure().unwrap().contains("--best-effort memory"));
        let planned = plan(&spec("best-effort = ['memory']\nlimits.memory = '64m'"), nowhere()).unwrap();
        assert!(planned.ulimits.iter().any(|(name, limit)| *name == "data" && limit.hard == Some(64 << 20)));
        assert!(plan(&spec("require = ['pids']"), nowhere()).is_err());

        let e = plan(&spec("limits.cpuset-cpus = '0'"), systemd("memory pids cpu")).unwrap_err();
        assert!(e.cure().unwrap().contains("Delegate="), "{:?}", e.cure());
        assert!(plan(&spec("limits.cpuset-cpus = '0'"), systemd("memory pids cpu cpuset")).unwrap().piece.is_some());
        let none = plan(&spec("limits.memory = '-1'\nlimits.pids = -1"), nowhere()).unwrap();
        assert!(none.piece.is_none() && none.degraded.is_empty());
    }

    #[test]
    fn the_kernels_files() {
        let text = |flags: &str| plan(&spec(flags), systemd("memory pids cpu cpuset io")).unwrap().piece.unwrap().to_string();
        for (flags, want) in [
            ("limits.memory = '64m'", "memory.max=67108864 memory.swap.max=0 pids.max=2048"),
            ("limits.memory = '64m'\nlimits.memory-swap = '96m'", "memory.swap.max=33554432"),
            ("limits.memory = '64m'\nlimits.memory-swap = '-1'", "memory.swap.max=max"),
            ("limits.cpus = '0.5'", "cpu.max=50000 100000"),
            ("limits.cpu-shares = 1024", "cpu.weight=39"),
            ("limits.cpuset-cpus = '0,1'", "cpuset.cpus=0-1"),
            ("limits.blkio-weight = 1000", "io.weight=10000"),
            ("[limits.device-read-bps]\n'/dev/sda' = '1m'", "io.max=/dev/sda:rbps=1048576"),
        ] {
            assert!(text(flags).contains(want), "{flags}: {}", text(flags));
        }
        assert!(text("").starts_with("sandbox-ID.scope in sandbox.slice, by the user's systemd:"));
    }

    #[test]
    fn cgroups_of_the_user() {
        for (own, expected) in [
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", "user.slice/user-1000.slice/user@1000.service"),
            ("0::/user.slice/user-1000.slice/session-3.scope", "user.slice/user-1000.slice/user@1000.service"),
            ("1:name=systemd:/x\n0::/a/user@1000.service", "a/user@1000.service"),
            ("0::/user@1000.service2", "user.slice/user-1000.slice/user@1000.service"),
            ("", "user.slice/user-1000.slice/user@1000.service"),
        ] {
            assert_eq!(manager(own, 1000), Path::new(expected), "{own}");
        }
    }
}
