//! `sandbox doctor`: what this host can do for us, what each missing thing costs, and the command that mends it.
//!
//! Called by `cli`. Tries rather than believes where trying is possible, takes well under a second, and changes nothing.

use crate::cgroup;
use crate::error::{Error, Kind, Result, printable};
use crate::host::mounts::{self, MountPoint, Visible};
use crate::host::remedy::{self, Missing};
use crate::host::{self, Caller, FEATURES, FLOOR, Feature, Kernel, caller, program, subid};
use crate::sys::probe::{self, Answers, Step};
use serde::Serialize;
use std::ffi::CString;
use std::fmt::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For one child, or one program that we ask.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a finding means when it is not ok.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// `sandbox run` cannot work.
    Fatal,
    /// It works, with something less.
    Costs,
    /// Good to know.
    Note,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    ok: bool,
    severity: Severity,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    costs: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cure: Option<String>,
}

impl Finding {
    fn new(name: impl Into<String>, severity: Severity, ok: bool, found: impl Into<String>) -> Finding {
        Finding { name: name.into(), ok, severity, found: found.into(), costs: None, cure: None }
    }

    fn ok(name: impl Into<String>, found: impl Into<String>) -> Finding {
        Finding::new(name, Severity::Note, true, found)
    }

    fn missing(name: impl Into<String>, severity: Severity, found: impl Into<String>, what: Missing) -> Finding {
        let remedy = what.remedy();
        Finding::new(name, severity, false, found).costs(remedy.breaks).cure(remedy.cure)
    }

    /// A refusal that already knows its cure.
    fn refused(name: impl Into<String>, severity: Severity, costs: &str, error: &Error) -> Finding {
        let finding = Finding::new(name, severity, false, error.message()).costs(costs);
        match error.cure() {
            Some(cure) => finding.cure(cure),
            None => finding,
        }
    }

    fn costs(mut self, costs: impl Into<String>) -> Finding {
        self.costs = Some(costs.into());
        self
    }

    fn cure(mut self, cure: impl Into<String>) -> Finding {
        self.cure = Some(cure.into());
        self
    }
}

/// The table, and whether `sandbox run` can work at all.
pub fn report(json: bool) -> Result<(String, bool)> {
    let caller = Caller::me()?;
    let mut found = vec![kernel()];
    match mounts::mounts() {
        Ok(mounts) => survey(&caller, &mounts, &mut found),
        // Nearly everything below is read from it.
        Err(error) => found.push(Finding::refused("/proc", Severity::Fatal, "nothing runs", &error)),
    }
    let works = found.iter().all(|f| f.ok || f.severity != Severity::Fatal);
    let text = if json {
        serde_json::to_string_pretty(&found).map_err(|e| Error::new(Kind::Bug, format!("cannot print the report: {e}")))? + "\n"
    } else {
        render(&found, works)
    };
    Ok((text, works))
}

fn survey(caller: &Caller, mounts: &[MountPoint], found: &mut Vec<Finding>) {
    found.extend(namespaces(caller, mounts));
    found.extend(ids(caller));
    found.extend(confinement());
    found.extend(younger(host::kernel()));
    found.extend(devices());
    found.extend(session(caller, mounts));
    found.extend(surroundings(caller));
}

/// The profile to install where AppArmor restricts user namespaces.
pub fn apparmor_profile(exe: &Path) -> String {
    remedy::apparmor_profile(exe)
}

fn render(found: &[Finding], works: bool) -> String {
    let width = found.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for f in found {
        let mark = match (f.ok, f.severity) {
            (true, _) => "ok",
            (_, Severity::Fatal) => "FATAL",
            (_, Severity::Costs) => "missing",
            (_, Severity::Note) => "note",
        };
        let _ = writeln!(text, "{mark:<8}{:<width$}  {}", printable(&f.name), printable(&f.found).replace('\n', " "));
        for (key, line) in [("costs", &f.costs), ("cure", &f.cure)] {
            if let Some(line) = line {
                let _ = writeln!(text, "{:<8}  {key:<6}{}", "", printable(line).replace('\n', " "));
            }
        }
    }
    let less = found.iter().filter(|f| !f.ok && f.severity == Severity::Costs).count();
    let verdict = match (works, less) {
        (false, _) => "sandbox run cannot work here until what is marked FATAL is mended".to_string(),
        (true, 0) => "sandbox run works here, with everything that it needs".to_string(),
        (true, n) => format!("sandbox run works here, without what is marked missing ({n})"),
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

fn kernel() -> Finding {
    match host::kernel_floor() {
        Ok(()) => Finding::ok("kernel", format!("Linux {}, at least {FLOOR} is needed", host::kernel())),
        Err(error) => Finding::refused("kernel", Severity::Fatal, "nothing runs", &error),
    }
}

/// User namespaces and all that is only possible inside of one, really tried.
fn namespaces(caller: &Caller, mounts: &[MountPoint]) -> Vec<Finding> {
    let map = |id: u32| CString::new(format!("0 {id} 1")).unwrap_or_default();
    let answers = match probe::namespaces(&map(caller.uid), &map(caller.gid), PATIENCE) {
        Ok(answers) => answers,
        Err(errno) => {
            let error = remedy::explain_userns_failure(errno.raw_os_error());
            return vec![Finding::refused("user namespaces", Severity::Fatal, "nothing runs", &error)];
        }
    };
    let mut found = foundation(&answers);
    if answers.step(Step::Mount) != Some(Ok(())) {
        return found;
    }
    found.extend(calls(&answers));
    found.push(match answers.step(Step::Overlay) {
        Some(Ok(())) => Finding::ok("overlay", "mounted in a user namespace"),
        answer => {
            let found = tried("cannot be mounted in a user namespace", answer);
            match opens("/dev/fuse") {
                Ok(true) => {
                    Finding::missing("overlay", Severity::Costs, found, Missing::OverlayMissing).costs("our own overlay instead, which is slower")
                }
                _ => Finding::missing("overlay", Severity::Fatal, found, Missing::OverlayMissing),
            }
        }
    });
    found.push(match answers.step(Step::TmpfsXattr) {
        Some(Ok(())) => Finding::ok("attributes on tmpfs", "user.* can be set"),
        answer => Finding::missing("attributes on tmpfs", Severity::Costs, tried("user.* cannot be set", answer), Missing::TmpfsNoXattr),
    });
    found.push(fresh("proc", answers.step(Step::Proc), mounts, Severity::Fatal, Missing::ProcMasked));
    found.push(fresh("sysfs", answers.step(Step::Sysfs), mounts, Severity::Costs, Missing::SysMasked));
    found
}

fn foundation(answers: &Answers) -> Vec<Finding> {
    let steps = [(Step::Userns, "user namespaces"), (Step::Map, "id map"), (Step::Namespaces, "other namespaces"), (Step::Mount, "mounts")];
    let mut found = Vec::new();
    for (step, name) in steps {
        let error = match (answers.step(step), step) {
            (Some(Ok(())), _) => {
                found.push(Finding::ok(name, "tried, works"));
                continue;
            }
            (Some(Err(errno)), Step::Userns) => remedy::explain_userns_failure(errno.raw_os_error()),
            (Some(Err(errno)), _) => remedy::explain_denied_inside().unwrap_or_else(|| match (step, errno.raw_os_error()) {
                (Step::Namespaces, libc::ENOSPC) => {
                    Missing::NamespaceLimitZero.error("cannot make the other namespaces: one of user.max_*_namespaces is 0 or reached")
                }
                (Step::Map, libc::EROFS) => Missing::ProcReadOnly.error("cannot write the id map: /proc is read-only"),
                (_, code) => {
                    Missing::OuterSeccomp.error(format!("cannot set up {name}: {}", crate::error::why(&std::io::Error::from_raw_os_error(code))))
                }
            }),
            (None, _) => Error::new(Kind::Io, format!("cannot try {name}: no answer in {} ms", PATIENCE.as_millis())),
        };
        found.push(Finding::refused(name, Severity::Fatal, "nothing runs", &error));
        break;
    }
    found
}

/// One line for all system calls that are there, one for each that is not.
fn calls(answers: &Answers) -> Vec<Finding> {
    let (there, gone): (Vec<_>, Vec<_>) = FEATURES
        .iter()
        .filter_map(|f| Some((f, f.call?)))
        .filter(|(_, call)| answers.has_call(call).is_some())
        .partition(|(_, call)| answers.has_call(call) == Some(true));
    let mut found = Vec::new();
    if !there.is_empty() {
        found.push(Finding::ok("system calls", there.iter().map(|(_, call)| *call).collect::<Vec<_>>().join(" ")));
    }
    for (feature, call) in gone {
        let (major, minor) = feature.since;
        let here = host::kernel();
        let old = (here.major, here.minor) < feature.since;
        let (why, cure) = if old { ("not in this kernel", Missing::OldKernel) } else { ("filtered by an outer container", Missing::OuterSeccomp) };
        let cure = if old { format!("install a kernel of at least Linux {major}.{minor}") } else { cure.remedy().cure };
        let severity = if feature.is_needed() { Severity::Fatal } else { Severity::Costs };
        found.push(Finding::new(call, severity, false, format!("{why} (Linux {major}.{minor}: {})", feature.why)).costs(feature.without).cure(cure));
    }
    found
}

/// Features that are no system call and are tried in ways of their own.
const TRIED: [&str; 4] = ["overlay without root", "attributes on tmpfs", "landlock", "landlock scopes"];

/// What only the kernel's age tells.
fn younger(kernel: Kernel) -> Vec<Finding> {
    let here = (kernel.major, kernel.minor);
    let lacks = |f: &&Feature| f.call.is_none() && f.since > here && !TRIED.contains(&f.name);
    let line = |f: &Feature| {
        let (major, minor) = f.since;
        Finding::new(f.name, Severity::Note, false, format!("not in this kernel ({})", f.why))
            .costs(f.without)
            .cure(format!("install a kernel of at least Linux {major}.{minor}"))
    };
    FEATURES.iter().filter(lacks).map(line).collect()
}

fn tried(what: &str, answer: Option<crate::sys::Result<()>>) -> String {
    match answer {
        Some(Err(errno)) => format!("{what}: {}", crate::error::why(&errno.into())),
        _ => format!("{what}: no answer"),
    }
}

/// A fresh proc or sysfs: what happened, and by the mount table why.
fn fresh(fstype: &str, answer: Option<crate::sys::Result<()>>, mounts: &[MountPoint], severity: Severity, missing: Missing) -> Finding {
    let name = format!("fresh {fstype}");
    match (answer, mounts::fully_visible(mounts, fstype)) {
        (Some(Ok(())), Visible::Yes { read_only: true }) => Finding::ok(name, "tried, works read-only"),
        (Some(Ok(())), _) => Finding::ok(name, "tried, works"),
        (_, Visible::No { by }) => {
            Finding::missing(name, severity, format!("refused by the kernel: {} is covered or missing", by.display()), missing)
        }
        (answer, _) => Finding::missing(name, severity, tried("refused", answer), missing),
    }
}

fn ids(caller: &Caller) -> Vec<Finding> {
    let mut found = Vec::new();
    let subids = match subid::subids(caller) {
        Ok(subids) => subids,
        Err(error) => {
            found.push(Finding::refused("subordinate ids", Severity::Fatal, "nothing runs with --userns other than single", &error));
            return found;
        }
    };
    let kinds = [("subuid", &subids.uids, subid::UID_FILE, Missing::NoSubuid), ("subgid", &subids.gids, subid::GID_FILE, Missing::NoSubgid)];
    if subids.uids.is_empty() && subids.gids.is_empty() {
        let nothing = format!("{} has no range in {} and {}", caller.name, subid::UID_FILE, subid::GID_FILE);
        found.push(Finding::missing("subuid, subgid", Severity::Costs, nothing, Missing::NoSubuid));
        found.extend(mappers(caller, &subids));
        return found;
    }
    for (name, ranges, file, missing) in kinds {
        let total: u64 = ranges.iter().map(|r| u64::from(r.count)).sum();
        let shown = ranges.iter().map(|r| format!("{}-{}", r.start, r.last())).collect::<Vec<_>>().join(" ");
        found.push(match total {
            0 => Finding::missing(name, Severity::Costs, format!("{} has no range", caller.name), missing),
            1..65_536 => Finding::missing(name, Severity::Note, format!("{shown}, {total} ids are fewer than 65536"), Missing::FewSubids),
            _ => Finding::ok(name, format!("{shown} for {}", caller.name)),
        });
        let text = host::read(file, subid::FILE_LIMIT).unwrap_or_default();
        for collision in subid::collisions(&text, &caller.name, caller.uid, &accounts(name)) {
            found.push(Finding::missing(format!("{name} shared"), Severity::Costs, collision, Missing::SharedSubids));
        }
    }
    found.extend(mappers(caller, &subids));
    found
}

/// Names and ids of the people, or groups, that the host's files know.
fn accounts(kind: &str) -> Vec<(String, u32)> {
    let file = if kind == "subuid" { "/etc/passwd" } else { "/etc/group" };
    caller::names(&host::read(file, caller::FILE_LIMIT).unwrap_or_default())
}

/// newuidmap and newgidmap: found, and really run on a process of ours.
fn mappers(caller: &Caller, subids: &subid::Subids) -> Vec<Finding> {
    let one_id = Missing::NoSubuid.remedy().breaks;
    let mut found = Vec::new();
    for (name, own, ranges) in [("newuidmap", caller.uid, &subids.uids), ("newgidmap", caller.gid, &subids.gids)] {
        let path = match host::helper(name) {
            Ok(path) => path,
            Err(error) => {
                found.push(Finding::refused(name, Severity::Costs, one_id, &error));
                continue;
            }
        };
        let Some(range) = ranges.first() else {
            found.push(Finding::ok(name, format!("{}, not tried: no ids to map", path.display())));
            continue;
        };
        // Without a user namespace there is nothing to try it on, and that has been said.
        let Ok(held) = probe::Unmapped::hold(PATIENCE) else {
            found.push(Finding::ok(name, format!("{}, not tried", path.display())));
            continue;
        };
        let args = [held.pid(), 0].map(|n| n.to_string()).into_iter();
        let args: Vec<String> = args.chain([own, 1, 1, range.start, range.count].map(|n| n.to_string())).collect();
        found.push(match program::ask(name, &args.iter().map(String::as_str).collect::<Vec<_>>(), PATIENCE) {
            Ok(answer) if answer.success => Finding::ok(name, format!("{}, tried, works", path.display())),
            Ok(answer) => {
                let error = remedy::explain_idmap_failure(name, &String::from_utf8_lossy(&answer.stderr));
                Finding::refused(name, Severity::Costs, one_id, &error)
            }
            Err(error) => Finding::refused(name, Severity::Costs, one_id, &error),
        });
    }
    found
}

fn confinement() -> Vec<Finding> {
    let actions = host::word("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let seccomp = if ["allow", "errno", "kill_process"].iter().all(|needed| actions.split(' ').any(|a| a == *needed)) {
        Finding::ok("seccomp", actions)
    } else {
        Finding::missing("seccomp", Severity::Fatal, "filters are not available", Missing::NoSeccomp)
    };
    let landlock = match probe::landlock_abi() {
        Ok(abi) if abi >= 6 => Finding::ok("landlock", format!("ABI {abi}, with scopes")),
        Ok(abi) => Finding::missing("landlock", Severity::Costs, format!("ABI {abi}, without scopes (6 has them)"), Missing::LandlockNoScopes),
        Err(errno) => Finding::missing("landlock", Severity::Costs, crate::error::why(&errno.into()), Missing::NoLandlock),
    };
    vec![seccomp, landlock]
}

/// Can it be opened, and is it a device?
fn opens(path: &str) -> std::io::Result<bool> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    Ok(file.metadata()?.file_type().is_char_device())
}

fn devices() -> Vec<Finding> {
    [("/dev/fuse", Missing::FuseMissing), ("/dev/net/tun", Missing::TunMissing)]
        .map(|(path, missing)| match opens(path) {
            Ok(true) => Finding::ok(path, "can be opened"),
            Ok(false) => Finding::missing(path, Severity::Note, "is no device", missing),
            Err(e) => Finding::missing(path, Severity::Note, format!("cannot be opened: {}", crate::error::why(&e)), missing),
        })
        .into()
}

/// The controllers that limits need.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// cgroups, the user's systemd, and the directories of a login session.
fn session(caller: &Caller, mounts: &[MountPoint]) -> Vec<Finding> {
    let root = mounts::mounted_at(mounts, Path::new("/sys/fs/cgroup"));
    let mut found = Vec::new();
    if root.is_some_and(|m| m.fstype == "cgroup2") {
        let own = host::word("/proc/self/cgroup").unwrap_or_default();
        let manager = cgroup::manager(&own, caller.uid);
        let controllers = host::word(Path::new("/sys/fs/cgroup").join(&manager).join("cgroup.controllers"));
        found.push(Finding::ok("cgroup", "version 2"));
        found.push(delegation(controllers.as_deref(), &manager));
    } else {
        found.push(Finding::missing("cgroup", Severity::Note, "version 2 is not mounted on /sys/fs/cgroup", Missing::NoCgroup2));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    found.push(match &runtime {
        None => Finding::missing("XDG_RUNTIME_DIR", Severity::Note, "is not set", Missing::NoRuntimeDir),
        Some(dir) => match crate::dirs::trusted(dir) {
            Ok(()) => Finding::ok("XDG_RUNTIME_DIR", dir.display().to_string()),
            Err(error) => Finding::missing("XDG_RUNTIME_DIR", Severity::Note, error.message(), Missing::NoRuntimeDir),
        },
    });
    let bus = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", caller.uid))).join("bus");
    let usable = std::fs::symlink_metadata(&bus).is_ok_and(|m| m.file_type().is_socket() && m.uid() == caller.uid);
    found.push(if usable {
        Finding::ok("user bus", bus.display().to_string())
    } else {
        Finding::missing("user bus", Severity::Note, format!("{} is no socket of yours", bus.display()), Missing::NoUserBus)
    });
    found
}

fn delegation(controllers: Option<&str>, manager: &Path) -> Finding {
    let name = "delegation";
    let Some(controllers) = controllers else {
        return Finding::missing(name, Severity::Note, format!("no systemd of the user ({})", manager.display()), Missing::NoUserBus);
    };
    let gone: Vec<_> = CONTROLLERS.into_iter().filter(|c| !controllers.split_whitespace().any(|have| have == *c)).collect();
    if gone.is_empty() {
        Finding::ok(name, controllers)
    } else {
        Finding::missing(name, Severity::Note, format!("not delegated: {}", gone.join(" ")), Missing::NoDelegation)
    }
}

/// What lies around us: outer containers, switches of the administrator, the file system of the home.
fn surroundings(caller: &Caller) -> Vec<Finding> {
    let mut found = Vec::new();
    let status = host::word("/proc/self/status").unwrap_or_default();
    let mut signs: Vec<&str> = Vec::new();
    for (path, sign) in
        [("/.dockerenv", "/.dockerenv"), ("/run/.containerenv", "/run/.containerenv"), ("/run/host/container-manager", "systemd-nspawn")]
    {
        if Path::new(path).exists() {
            signs.push(sign);
        }
    }
    let filtered = remedy::filtered(&status);
    if filtered {
        signs.push("a seccomp filter");
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        signs.push("no_new_privs");
    }
    found.push(if signs.is_empty() {
        Finding::ok("outer container", "no sign of one")
    } else {
        Finding::new("outer container", Severity::Note, false, signs.join(", ")).costs("what it forbids is forbidden inside, too")
    });
    for (path, name) in SWITCHES {
        if let Some(value) = host::word(Path::new("/proc/sys").join(path)) {
            found.push(switch(name, path, &value, caller));
        }
    }
    found.push(home(&caller.home));
    found
}

/// Shown where they exist; whether they hurt has been tried above.
const SWITCHES: [(&str, &str); 4] = [
    ("user/max_user_namespaces", "user.max_user_namespaces"),
    ("kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone"),
    ("kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns"),
    ("dev/tty/legacy_tiocsti", "dev.tty.legacy_tiocsti"),
];

fn switch(name: &str, path: &str, value: &str, caller: &Caller) -> Finding {
    let bad = match path {
        "user/max_user_namespaces" if value == "0" => Some((Severity::Fatal, Missing::UsernsLimitZero)),
        "kernel/unprivileged_userns_clone" if value == "0" && !caller.is_root() => Some((Severity::Fatal, Missing::UsernsCloneDisabled)),
        // A profile may exempt us, and the trial above knows; root is exempt.
        "kernel/apparmor_restrict_unprivileged_userns" if value != "0" && !caller.is_root() && remedy::explain_denied_inside().is_some() => {
            Some((Severity::Note, Missing::UsernsRestrictedByApparmor))
        }
        "dev/tty/legacy_tiocsti" if value == "1" => Some((Severity::Note, Missing::LegacyTiocsti)),
        _ => None,
    };
    match bad {
        Some((severity, missing)) => Finding::missing(name, severity, value, missing),
        None => Finding::ok(name, value),
    }
}

/// File systems that know no ids but the caller's, or whose server checks them. kernel: include/uapi/linux/magic.h
const NETWORK: [(u32, &str); 9] = [
    (0x6969, "NFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0xff53_4d42, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x1983_0326, "BeeGFS"),
    (0x0102_1997, "9p"),
];

fn home(home: &Path) -> Finding {
    match rustix::fs::statfs(home) {
        Err(errno) => Finding::new("home", Severity::Note, false, format!("{}: {}", home.display(), crate::error::why(&errno.into())))
            .costs("policies and caches of the user are not found"),
        Ok(fs) => match NETWORK.iter().find(|(magic, _)| u64::from(*magic) == (fs.f_type as u64 & 0xffff_ffff)) {
            Some((_, name)) => Finding::missing("home", Severity::Note, format!("{} is on {name}", home.display()), Missing::NetworkHome),
            None => Finding::ok("home", format!("{}, on a local file system", home.display())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_aligned_and_harmless() {
        let found = [
            Finding::ok("a", "fine"),
            Finding::missing("long name", Severity::Costs, "gone\n\u{1b}[2J", Missing::TmpfsNoXattr),
            Finding::new("n", Severity::Note, false, "x"),
        ];
        let text = render(&found, true);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "ok      a          fine");
        assert_eq!(lines[1], "missing long name  gone \\u{1b}[2J");
        assert!(lines[2].starts_with("          costs ") && lines[3].starts_with("          cure  "), "{text}");
        assert_eq!(lines[4], "note    n          x");
        assert!(text.ends_with("without what is marked missing (1)\n"));
        assert!(render(&[Finding::new("k", Severity::Fatal, false, "x")], false).contains("FATAL   k"));
        assert!(render(&[], true).ends_with("with everything that it needs\n"));
    }

    #[test]
    fn what_is_not_delegated_is_named() {
        let manager = Path::new("m");
        assert!(delegation(Some("cpuset cpu io memory hugetlb pids"), manager).ok);
        let less = delegation(Some("memory pids"), manager);
        assert!(!less.ok && less.found == "not delegated: cpu cpuset io" && less.cure.is_some_and(|c| c.contains("Delegate=")));
        assert!(!delegation(None, manager).ok);
    }

    #[test]
    fn an_old_kernel_lacks_what_came_later() {
        let names = |major, minor| younger(Kernel { major, minor }).into_iter().map(|f| f.name).collect::<Vec<_>>();
        assert_eq!(names(6, 2), ["landlock TCP rules", "overlay by descriptor"]);
        assert_eq!(names(6, 13), [""; 0]);
        assert!(TRIED.iter().all(|name| FEATURES.iter().any(|f| f.name == *name)));
    }

    #[test]
    fn switches_hurt_only_whom_they_bind() {
        let person =
            |uid| Caller { uid, gid: uid, groups: vec![], name: "x".into(), home: "/".into(), account_home: "/".into(), shell: "/bin/sh".into() };
        for (path, value, uid, ok) in [
            ("user/max_user_namespaces", "0", 0, false),
            ("user/max_user_namespaces", "5", 1, true),
            ("kernel/unprivileged_userns_clone", "0", 1, false),
            ("kernel/unprivileged_userns_clone", "0", 0, true),
            ("kernel/apparmor_restrict_unprivileged_userns", "1", 0, true),
            ("dev/tty/legacy_tiocsti", "1", 1, false),
            ("dev/tty/legacy_tiocsti", "0", 1, true),
        ] {
            assert_eq!(switch("s", path, value, &person(uid)).ok, ok, "{path} {value} {uid}");
        }
    }

    #[test]
    fn a_report_is_quick_and_every_fault_in_it_has_a_price() {
        let started = std::time::Instant::now();
        let (json, works) = report(true).unwrap();
        assert!(started.elapsed() < Duration::from_secs(4));
        let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert!(rows.len() > 10);
        for row in &rows {
            assert!(row["name"].is_string() && row["found"].is_string() && row["ok"].is_boolean());
            assert!(row["ok"] == true || row["costs"].is_string(), "{row}");
        }
        assert_eq!(works, !rows.iter().any(|row| row["ok"] == false && row["severity"] == "fatal"));
    }
}
