//! What a host may lack, what that breaks, and the exact command that mends it. The one table behind every hint and `sandbox doctor`.
//!
//! Called by everybody who must refuse for the host's sake. Reads facts only once something has failed; never mends anything itself.

use super::subid;
use crate::error::{Error, Kind};
use std::path::{Path, PathBuf};

/// Where the AppArmor profile goes.
pub const PROFILE: &str = "/etc/apparmor.d/sandbox";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    OldKernel,
    UsernsNotBuilt,
    UsernsCloneDisabled,
    UsernsLimitZero,
    UsernsLimitReached,
    UsernsRestrictedByApparmor,
    UsernsDeniedBySelinux,
    NamespaceLimitZero,
    CallerUnmapped,
    InChroot,
    OuterSeccomp,
    OuterCapabilities,
    OuterUserns,
    ProcessLimit,
    NoNewPrivsOuter,
    NoSubuid,
    NoSubgid,
    BadSubids,
    FewSubids,
    SharedSubids,
    NewuidmapMissing,
    NewgidmapMissing,
    NewuidmapNotSetuid,
    NewgidmapNotSetuid,
    NosuidMount,
    OtherPrimaryGroup,
    NoAccount,
    ProcMissing,
    ProcReadOnly,
    ProcMasked,
    SysMasked,
    ProcHidden,
    OverlayMissing,
    TmpfsNoXattr,
    NoSeccomp,
    NoLandlock,
    LandlockNoScopes,
    FuseMissing,
    TunMissing,
    NoCgroup2,
    NoDelegation,
    NoUserBus,
    NoRuntimeDir,
    NetworkHome,
    LegacyTiocsti,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// What does not work without it.
    pub breaks: &'static str,
    pub cure: String,
}

impl Missing {
    pub fn remedy(self) -> Remedy {
        let root = rustix::process::geteuid().is_root();
        let (breaks, cure) = self.row();
        let cure = cure.replace("%FREE%", &propose(self));
        // The table is written for a person with sudo.
        Remedy { breaks, cure: if root { cure.replace("sudo ", "") } else { cure } }
    }

    /// A refusal with its cure. // I3
    pub fn error(self, message: impl Into<String>) -> Error {
        let kind = match self {
            Missing::UsernsCloneDisabled
            | Missing::UsernsLimitZero
            | Missing::UsernsLimitReached
            | Missing::UsernsRestrictedByApparmor
            | Missing::UsernsDeniedBySelinux
            | Missing::NamespaceLimitZero
            | Missing::CallerUnmapped
            | Missing::InChroot
            | Missing::OuterSeccomp
            | Missing::OuterCapabilities
            | Missing::ProcessLimit
            | Missing::BadSubids
            | Missing::OtherPrimaryGroup => Kind::Denied,
            _ => Kind::Unsupported,
        };
        Error::new(kind, message).hint(self.remedy().cure)
    }

    fn row(self) -> (&'static str, String) {
        use Missing::*;
        let nothing = "nothing can be sandboxed";
        let one_id = "one id only: root or yourself inside, every other owner is shown as nobody; su, useradd and most package managers fail";
        let outer = "run it outside the outer container, or start that one with";
        let (breaks, cure): (&str, String) = match self {
            OldKernel => (nothing, format!("install a kernel of at least Linux {}", super::FLOOR)),
            UsernsNotBuilt => (nothing, "install a kernel built with CONFIG_USER_NS=y; on RHEL 7 boot with user_namespace.enable=1".into()),
            UsernsCloneDisabled => (nothing, keep("kernel.unprivileged_userns_clone", "1")),
            UsernsLimitZero => (nothing, keep("user.max_user_namespaces", "15000")),
            UsernsLimitReached => (
                "no further sandbox can start",
                format!("end some sandboxes, nest them less deep, or raise the limit: {}", keep("user.max_user_namespaces", "60000")),
            ),
            UsernsRestrictedByApparmor => (
                nothing,
                format!(
                    "sandbox doctor --print-apparmor-profile | sudo tee {PROFILE} && sudo apparmor_parser -r {PROFILE}  \
                     (or, for every program on this machine: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0)"
                ),
            ),
            UsernsDeniedBySelinux => {
                (nothing, "see what was denied with: sudo ausearch -m avc -c sandbox | audit2allow -M sandbox && sudo semodule -i sandbox.pp".into())
            }
            NamespaceLimitZero => (
                nothing,
                "sudo sysctl -w user.max_mnt_namespaces=15000 user.max_pid_namespaces=15000 user.max_net_namespaces=15000 \
                 user.max_ipc_namespaces=15000 user.max_uts_namespaces=15000 user.max_cgroup_namespaces=15000"
                    .into(),
            ),
            CallerUnmapped => (nothing, "run it as an id that the outer container maps (see /proc/self/uid_map)".into()),
            InChroot => (nothing, "run it outside of the chroot, or enter the tree with `sandbox run --rootfs DIR` instead of chroot".into()),
            OuterSeccomp => (nothing, format!("{outer}: --security-opt seccomp=unconfined --security-opt systempaths=unconfined")),
            OuterCapabilities => (one_id, format!("{outer}: --cap-add SETUID --cap-add SETGID, or --privileged")),
            OuterUserns => (one_id, "run it outside the outer user namespace or container, which has no id for the host's root".into()),
            ProcessLimit => ("no further sandbox can start", "see `ulimit -u` and the pids limit of the login session, and raise or free them".into()),
            NoNewPrivsOuter => {
                (one_id, "start it without no_new_privs (systemd: NoNewPrivileges=no; docker: without --security-opt no-new-privileges)".into())
            }
            NoSubuid | NoSubgid => (one_id, "sudo usermod --add-subuids %FREE% --add-subgids %FREE% \"$(id -un)\"  (an account that is not in \
                 /etc/passwd: a line UID:START:65536 in both /etc/subuid and /etc/subgid)".into()),
            BadSubids => (one_id, "take the range away (sudo usermod --del-subuids FIRST-LAST --del-subgids FIRST-LAST \"$(id -un)\") and give a \
                 free one: sudo usermod --add-subuids %FREE% --add-subgids %FREE% \"$(id -un)\"".into()),
            FewSubids => ("images whose files have higher ids cannot be used in full, e.g. nobody is 65534",
                 "sudo usermod --add-subuids %FREE% --add-subgids %FREE% \"$(id -un)\"".into()),
            SharedSubids => ("what runs inside can reach files and processes of those other people",
                 "take the range away (sudo usermod --del-subuids FIRST-LAST --del-subgids FIRST-LAST \"$(id -un)\") and give a \
                 free one: sudo usermod --add-subuids %FREE% --add-subgids %FREE% \"$(id -un)\"".into()),
            NewuidmapMissing | NewgidmapMissing => {
                (one_id, "sudo apt-get install uidmap  (Fedora, RHEL, SUSE: shadow-utils; Arch: shadow; Alpine: shadow-uidmap)".into())
            }
            NewuidmapNotSetuid => (one_id, "sudo chmod u+s /usr/bin/newuidmap  (or: sudo setcap cap_setuid=ep /usr/bin/newuidmap)".into()),
            NewgidmapNotSetuid => (one_id, "sudo chmod u+s /usr/bin/newgidmap  (or: sudo setcap cap_setgid=ep /usr/bin/newgidmap)".into()),
            NosuidMount => (one_id, "mount the file system of /usr/bin without nosuid: sudo mount -o remount,suid /usr".into()),
            OtherPrimaryGroup => (one_id, "start it with your primary group (not below newgrp or sg), or: \
                 echo 'GRANT_AUX_GROUP_SUBIDS yes' | sudo tee -a /etc/login.defs".into()),
            NoAccount => (one_id, "give the uid an account: a line in /etc/passwd, or a working name service (test: getent passwd \"$(id -u)\")".into()),
            ProcMissing => (nothing, "sudo mount -t proc proc /proc".into()),
            ProcReadOnly => (nothing, "sudo mount -o remount,bind,rw /proc  (an outer container: docker --security-opt systempaths=unconfined)".into()),
            ProcMasked => ("the sandbox cannot have a /proc of its own",
                 format!("{outer}: --security-opt systempaths=unconfined (docker), --security-opt unmask=ALL (podman), procMount: Unmasked (Kubernetes)")),
            SysMasked => ("no fresh /sys inside, the host's is shown read-only",
                 format!("{outer}: --security-opt systempaths=unconfined (docker), --security-opt unmask=ALL (podman)")),
            ProcHidden => (one_id, "mount /proc with hidepid=invisible only together with gid= of a group that you are in: \
                 sudo mount -o remount,hidepid=0 /proc".into()),
            OverlayMissing => ("no copy-on-write trees: neither the host's own tree nor --rootfs DIR:O",
                 "sudo modprobe overlay  (and a line `overlay` in /etc/modules-load.d/overlay.conf to keep it)".into()),
            TmpfsNoXattr => ("removing a directory of the host and making it again fails inside",
                 "install a kernel of at least Linux 6.6, built with CONFIG_TMPFS_XATTR=y".into()),
            NoSeccomp => (nothing, "install a kernel built with CONFIG_SECCOMP_FILTER=y".into()),
            NoLandlock => ("no landlock: file and TCP rules of `strict` are off, namespaces and seccomp stay",
                 "boot a kernel of at least Linux 5.13 with landlock in its list, e.g. lsm=landlock,lockdown,yama,integrity,apparmor".into()),
            LandlockNoScopes => ("abstract sockets are kept apart by the network namespace alone (--network host shares them)",
                 "install a kernel of at least Linux 6.12".into()),
            FuseMissing => ("no overlay of our own where the kernel's cannot be had, and owners of files are root's where you have one id",
                 "sudo modprobe fuse && sudo chmod 666 /dev/fuse  (docker: --device /dev/fuse)".into()),
            TunMissing => ("no network of the sandbox's own that reaches outside",
                 "sudo modprobe tun && sudo chmod 666 /dev/net/tun  (docker: --device /dev/net/tun)".into()),
            NoCgroup2 => ("no limits on memory, processors and processes as a group",
                 "boot with systemd.unified_cgroup_hierarchy=1 (systemd 247 and later do so by themselves)".into()),
            NoDelegation => ("limits whose controllers are missing",
                 "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo install -D -m 644 /dev/stdin \
                 /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload, then log in anew".into()),
            NoUserBus => ("no limits through the user's systemd", "sudo apt-get install dbus-user-session && sudo loginctl enable-linger \"$(id -un)\", \
                 then log in anew (not by su)".into()),
            NoRuntimeDir => ("state that should end with the login session has no place of its own",
                 "log in through PAM (ssh, console, `machinectl shell`), not by su; or: export XDG_RUNTIME_DIR=DIR, a directory of yours with mode 700".into()),
            NetworkHome => ("ids other than your own cannot be stored there",
                 "keep such directories on a local disk, e.g. XDG_DATA_HOME=/var/tmp/$(id -un)".into()),
            LegacyTiocsti => ("a program without our seccomp filter may type into its terminal; ours denies it", keep("dev.tty.legacy_tiocsti", "0")),
        };
        (breaks, cure)
    }
}

fn keep(key: &str, value: &str) -> String {
    format!("sudo sysctl -w {key}={value}  (to keep it: echo '{key}={value}' | sudo tee /etc/sysctl.d/60-sandbox.conf)")
}

/// A range that nobody has, as `usermod` wants it. Only the rows about subordinate ids ask.
fn propose(missing: Missing) -> String {
    if !matches!(missing, Missing::NoSubuid | Missing::NoSubgid | Missing::BadSubids | Missing::FewSubids | Missing::SharedSubids) {
        return String::new();
    }
    let files = [subid::UID_FILE, subid::GID_FILE].map(|path| super::read(path, subid::FILE_LIMIT).unwrap_or_default());
    let start = subid::free_start(&files.each_ref().map(Vec::as_slice));
    format!("{start}-{}", start.saturating_add(65_535))
}

/// What decides why a user namespace was refused.
#[derive(Debug, Clone, Default)]
struct Facts {
    max_user_namespaces: Option<String>,
    /// One of the other kinds is switched off.
    other_limit_zero: bool,
    unprivileged_userns_clone: Option<String>,
    apparmor_restricts: Option<String>,
    apparmor_profile: Option<String>,
    selinux_enforces: bool,
    userns_built: bool,
    seccomp: bool,
    chroot: bool,
    unmapped: bool,
    root: bool,
    old: bool,
}

impl Facts {
    fn read() -> Facts {
        let status = super::word("/proc/self/status").unwrap_or_default();
        let ids = |map: &str, id: u32| super::word(map).is_some_and(|text| !maps(&text, id));
        Facts {
            max_user_namespaces: super::word("/proc/sys/user/max_user_namespaces"),
            other_limit_zero: ["mnt", "pid"].iter().any(|kind| super::word(format!("/proc/sys/user/max_{kind}_namespaces")).as_deref() == Some("0")),
            unprivileged_userns_clone: super::word("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: super::word("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            apparmor_profile: super::word("/proc/self/attr/apparmor/current").or_else(|| super::word("/proc/self/attr/current")),
            selinux_enforces: super::word("/sys/fs/selinux/enforce").as_deref() == Some("1"),
            userns_built: Path::new("/proc/self/ns/user").exists() || !Path::new("/proc/self/ns").exists(),
            seccomp: filtered(&status),
            chroot: super::mounts::mounts().is_ok_and(|mounts| !mounts.iter().any(|m| m.point == Path::new("/"))),
            unmapped: ids("/proc/self/uid_map", rustix::process::geteuid().as_raw())
                || ids("/proc/self/gid_map", rustix::process::getegid().as_raw()),
            root: rustix::process::geteuid().is_root(),
            old: super::kernel() < super::FLOOR,
        }
    }
}

/// Are we in somebody else's sandbox, where a setuid helper cannot work, and nobody inside can mend that?
pub fn is_inside_another() -> bool {
    let status = super::word("/proc/self/status").unwrap_or_default();
    let bound = status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|v| v.trim() == "1"));
    bound || super::word("/proc/self/uid_map").is_some_and(|map| !maps(&map, u32::MAX - 1))
}

/// Does /proc/PID/status say that a seccomp filter is in force?
pub fn filtered(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Is `id` inside one of the extents of a uid_map?
fn maps(text: &str, id: u32) -> bool {
    text.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().ok());
        match (numbers.next().flatten(), numbers.next(), numbers.next().flatten()) {
            (Some(first), Some(_), Some(count)) => (first..first.saturating_add(count)).contains(&u64::from(id)),
            _ => false,
        }
    })
}

/// Why clone3(CLONE_NEWUSER | ...) failed, and the cure. man: clone(2), user_namespaces(7)
pub fn explain_userns_failure(errno: i32) -> Error {
    explain_userns(errno, &Facts::read())
}

fn explain_userns(errno: i32, facts: &Facts) -> Error {
    let off = |value: &Option<String>| value.as_deref() == Some("0");
    let kernel = std::io::Error::from_raw_os_error(errno);
    let refused = |missing: Missing, why: &str| missing.error(format!("cannot make a user namespace: {why}"));
    match errno {
        _ if facts.old => refused(Missing::OldKernel, "the kernel is too old"),
        libc::ENOSPC | libc::EUSERS if off(&facts.max_user_namespaces) => {
            refused(Missing::UsernsLimitZero, "they are switched off (user.max_user_namespaces is 0)")
        }
        libc::ENOSPC | libc::EUSERS if facts.other_limit_zero => {
            refused(Missing::NamespaceLimitZero, "mount or pid namespaces are switched off (user.max_*_namespaces is 0)")
        }
        libc::ENOSPC | libc::EUSERS => {
            refused(Missing::UsernsLimitReached, "a limit is reached (user.max_*_namespaces here or in an outer container, or 32 levels)")
        }
        libc::EINVAL if !facts.userns_built => refused(Missing::UsernsNotBuilt, "this kernel has none"),
        libc::ENOSYS => refused(Missing::OuterSeccomp, "clone3 is filtered by an outer container"),
        libc::EAGAIN => refused(Missing::ProcessLimit, "too many processes"),
        libc::EPERM | libc::EACCES if !facts.root && off(&facts.unprivileged_userns_clone) => {
            refused(Missing::UsernsCloneDisabled, "they are switched off (kernel.unprivileged_userns_clone is 0)")
        }
        libc::EPERM | libc::EACCES if facts.chroot => refused(Missing::InChroot, "we are in a chroot"),
        libc::EPERM | libc::EACCES if facts.unmapped => refused(Missing::CallerUnmapped, "our own id has no mapping in the outer container"),
        libc::EPERM | libc::EACCES if is_restricted(facts) => {
            refused(Missing::UsernsRestrictedByApparmor, "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)")
        }
        libc::EPERM | libc::EACCES if facts.seccomp => refused(Missing::OuterSeccomp, "a seccomp filter of an outer container forbids it"),
        libc::EPERM | libc::EACCES if facts.selinux_enforces => refused(Missing::UsernsDeniedBySelinux, "SELinux denies it"),
        libc::EPERM | libc::EACCES => Error::new(Kind::Denied, format!("cannot make a user namespace: {}", crate::error::why(&kernel)))
            .hint("a chroot, a security module or an outer container forbids it; see: sandbox doctor"),
        _ => Error::new(Kind::Unsupported, format!("cannot make a user namespace: {}", crate::error::why(&kernel))).hint("see: sandbox doctor"),
    }
}

/// Ubuntu's rule holds for whoever has no profile with `userns`. Root of the host is exempt.
fn is_restricted(facts: &Facts) -> bool {
    let profile = facts.apparmor_profile.as_deref().unwrap_or("unconfined");
    let bound = profile == "unconfined" || profile.starts_with("unprivileged_userns");
    !facts.root && bound && facts.apparmor_restricts.as_deref().is_some_and(|value| value != "0")
}

/// Since 24.04 the namespace is made, but every capability in it is denied: when the first step inside fails with EPERM or EACCES, ask
/// this for the reason.
pub fn explain_denied_inside() -> Option<Error> {
    is_restricted(&Facts::read()).then(|| {
        Missing::UsernsRestrictedByApparmor
            .error("cannot use the user namespace: AppArmor denies its capabilities (kernel.apparmor_restrict_unprivileged_userns is 1)")
    })
}

/// Why `program` (newuidmap or newgidmap) failed, from what it said. shadow: src/newuidmap.c, lib/idmapping.c
pub fn explain_idmap_failure(program: &str, said: &str) -> Error {
    let said = said.trim();
    let gid = program.ends_with("newgidmap");
    let has = |part: &str| said.contains(part);
    if program.ends_with("uid_map") && rustix::process::geteuid().is_root() && said.to_lowercase().contains("not permitted") {
        // kernel: kernel/user_namespace.c verify_root_map() since 5.12
        return Error::new(Kind::Denied, "cannot map ids: root without the capability SETFCAP cannot map itself")
            .hint("start the outer container with it (bwrap --cap-add CAP_SETFCAP, docker --cap-add SETFCAP), or run as another user");
    }
    if super::word("/proc/self/status").is_some_and(|s| s.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|v| v.trim() != "0"))) {
        return Error::new(Kind::Denied, "cannot map ids: a tracer holds us, and what it traces gets no privilege from set-uid programs")
            .hint("trace as root: sudo strace -u \"$(id -un)\" -f ...; or do with one id: --userns single");
    }
    let missing = if has("read-only file system") {
        Missing::ProcReadOnly
    } else if has("not allowed") || has("range") && has("allow") {
        if gid { Missing::NoSubgid } else { Missing::NoSubuid }
    } else if has("owned by a different user") {
        Missing::OtherPrimaryGroup
    } else if has("Cannot determine your user name") || has("user name") {
        Missing::NoAccount
    } else if has("open proc directory") || has("stat proc directory") || has("open of") {
        Missing::ProcHidden
    } else if has("Operation not permitted") || has("Could not set caps") || has("Could not prctl") || has("Could not seteuid") {
        let status = super::word("/proc/self/status").unwrap_or_default();
        match super::helper(if gid { "newgidmap" } else { "newuidmap" }) {
            Err(error) => return error,
            Ok(_) if filtered(&status) => Missing::OuterSeccomp,
            Ok(_) => Missing::OuterCapabilities,
        }
    } else {
        let said = if said.is_empty() { "it said nothing" } else { said };
        return Error::new(Kind::Denied, format!("cannot map ids: {program} failed: {said}")).hint("see: sandbox doctor");
    };
    let line = said.lines().next().unwrap_or_default();
    missing.error(format!("cannot map ids: {}", if line.starts_with(program) { line.to_string() } else { format!("{program}: {line}") }))
}

/// The profile that lets `exe` make user namespaces where AppArmor forbids them to programs without one.
pub fn apparmor_profile(exe: &Path) -> String {
    format!(
        "# Lets sandbox make user namespaces (kernel.apparmor_restrict_unprivileged_userns=1).\n\
         # Whoever can write to the program below gains that, too: name one that belongs to root.\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         \n\
         profile sandbox \"{}\" flags=(unconfined) {{\n  userns,\n\n  include if exists <local/sandbox>\n}}\n",
        quoted(exe)
    )
}

/// Bytes that mean something in a profile's path are escaped. man: apparmor.d(5)
fn quoted(path: &Path) -> String {
    let mut out = String::new();
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' | '*' | '?' | '[' | ']' | '{' | '}' | '^' | '@' => out.extend(['\\', c]),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// The program that runs now, for the profile.
pub fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/local/bin/sandbox"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(value: &str) -> Option<String> {
        Some(value.to_string())
    }

    #[test]
    fn user_namespace_failures_name_their_cause() {
        let plain = Facts { max_user_namespaces: some("1000"), userns_built: true, ..Facts::default() };
        let apparmor = Facts { apparmor_restricts: some("1"), apparmor_profile: some("unconfined"), ..plain.clone() };
        for (errno, facts, words, cure) in [
            (
                libc::ENOSPC,
                Facts { max_user_namespaces: some("0"), ..plain.clone() },
                "max_user_namespaces is 0",
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (libc::ENOSPC, plain.clone(), "a limit is reached", "user.max_user_namespaces=60000"),
            (libc::EUSERS, plain.clone(), "32 levels", "nest"),
            (libc::ENOSPC, Facts { other_limit_zero: true, ..plain.clone() }, "switched off", "user.max_mnt_namespaces=15000"),
            (
                libc::EPERM,
                Facts { unprivileged_userns_clone: some("0"), ..plain.clone() },
                "unprivileged_userns_clone is 0",
                "unprivileged_userns_clone=1",
            ),
            (libc::EPERM, apparmor.clone(), "AppArmor", "apparmor_parser -r /etc/apparmor.d/sandbox"),
            (libc::EACCES, apparmor.clone(), "AppArmor", "apparmor_restrict_unprivileged_userns=0"),
            (libc::EPERM, Facts { seccomp: true, ..plain.clone() }, "seccomp", "seccomp=unconfined"),
            // AppArmor is not to blame for a program that has a profile.
            (
                libc::EPERM,
                Facts { apparmor_profile: some("sandbox (unconfined)"), seccomp: true, ..apparmor.clone() },
                "seccomp",
                "seccomp=unconfined",
            ),
            (libc::EPERM, Facts { chroot: true, ..apparmor.clone() }, "chroot", "--rootfs"),
            (libc::EPERM, Facts { unmapped: true, ..plain.clone() }, "no mapping", "uid_map"),
            (libc::EPERM, Facts { selinux_enforces: true, ..plain.clone() }, "SELinux", "ausearch"),
            (libc::EPERM, plain.clone(), "not permitted", "sandbox doctor"),
            (libc::EINVAL, Facts { userns_built: false, ..plain.clone() }, "this kernel has none", "CONFIG_USER_NS"),
            (libc::EINVAL, plain.clone(), "invalid argument", "sandbox doctor"),
            (libc::ENOSYS, plain.clone(), "clone3 is filtered", "seccomp=unconfined"),
            (libc::ENOSYS, Facts { old: true, ..plain.clone() }, "too old", "5.12"),
            (libc::EAGAIN, plain.clone(), "too many processes", "ulimit"),
        ] {
            let error = explain_userns(errno, &facts);
            assert!(error.message().contains(words), "{errno} {facts:?}: {error}");
            assert!(error.cure().is_some_and(|c| c.contains(cure)), "{errno} {facts:?}: {error}");
            assert!(!error.message().contains('\n'));
        }
    }

    #[test]
    fn newuidmap_refusals_name_their_cause() {
        for (program, said, words, cure) in [
            ("newuidmap", "newuidmap: uid range [0-1) -> [1000-1001) not allowed", "[1000-1001) not allowed", "--add-subuids"),
            ("newgidmap", "newgidmap: gid range [1-65537) -> [1-65537) not allowed", "not allowed", "--add-subgids"),
            (
                "newuidmap",
                "newuidmap: Target process 7 is owned by a different user: uid:1 pw_uid:1 st_uid:1, gid:4 pw_gid:1 st_gid:4",
                "different user",
                "GRANT_AUX_GROUP_SUBIDS",
            ),
            ("newuidmap", "newuidmap: Cannot determine your user name.", "user name", "getent passwd"),
            ("newuidmap", "newuidmap: Could not open proc directory for target 4", "proc directory", "hidepid"),
            ("newuidmap", "", "it said nothing", "doctor"),
            ("newuidmap", "newuidmap: write to uid_map failed: Invalid argument", "Invalid argument", "doctor"),
        ] {
            let error = explain_idmap_failure(program, said);
            assert!(error.message().contains(words) && error.message().starts_with("cannot map ids: "), "{error}");
            assert!(error.cure().is_some_and(|c| c.contains(cure)), "{error}");
            assert_eq!(
                error.message().matches("newuidmap:").count() + error.message().matches("newgidmap:").count(),
                usize::from(!said.is_empty()),
                "{error}"
            );
        }
    }

    #[test]
    fn proc_status_and_maps() {
        assert!(filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!filtered("Seccomp:\t0\nSeccomp_filters:\t2\n"));
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(maps(map, 0) && maps(map, 1) && maps(map, 65_536) && !maps(map, 65_537));
        assert!(maps("0 0 4294967295", u32::MAX - 1) && !maps("", 0) && !maps("x y z", 0));
    }

    #[test]
    fn every_cure_is_one_line_with_no_hole() {
        for missing in [
            Missing::OldKernel,
            Missing::UsernsNotBuilt,
            Missing::UsernsCloneDisabled,
            Missing::UsernsLimitZero,
            Missing::UsernsLimitReached,
            Missing::UsernsRestrictedByApparmor,
            Missing::UsernsDeniedBySelinux,
            Missing::NamespaceLimitZero,
            Missing::CallerUnmapped,
            Missing::InChroot,
            Missing::OuterSeccomp,
            Missing::OuterCapabilities,
            Missing::OuterUserns,
            Missing::ProcessLimit,
            Missing::NoNewPrivsOuter,
            Missing::NoSubuid,
            Missing::NoSubgid,
            Missing::BadSubids,
            Missing::FewSubids,
            Missing::SharedSubids,
            Missing::NewuidmapMissing,
            Missing::NewgidmapMissing,
            Missing::NewuidmapNotSetuid,
            Missing::NewgidmapNotSetuid,
            Missing::NosuidMount,
            Missing::OtherPrimaryGroup,
            Missing::NoAccount,
            Missing::ProcMissing,
            Missing::ProcReadOnly,
            Missing::ProcMasked,
            Missing::SysMasked,
            Missing::ProcHidden,
            Missing::OverlayMissing,
            Missing::TmpfsNoXattr,
            Missing::NoSeccomp,
            Missing::NoLandlock,
            Missing::LandlockNoScopes,
            Missing::FuseMissing,
            Missing::TunMissing,
            Missing::NoCgroup2,
            Missing::NoDelegation,
            Missing::NoUserBus,
            Missing::NoRuntimeDir,
            Missing::NetworkHome,
            Missing::LegacyTiocsti,
        ] {
            let Remedy { breaks, cure } = missing.remedy();
            assert!(
                !breaks.is_empty() && !cure.is_empty() && !cure.contains('\n') && !cure.contains('%') && !cure.contains("   "),
                "{missing:?}: {cure}"
            );
            assert!(missing.error("x").cure().is_some());
        }
    }

    #[test]
    fn the_profile_names_exactly_our_program() {
        let text = apparmor_profile(Path::new("/opt/my apps/sand\"box{1}*"));
        assert!(text.contains("profile sandbox \"/opt/my apps/sand\\\"box\\{1\\}\\*\" flags=(unconfined) {\n  userns,"), "{text}");
        assert_eq!(text.matches('{').count() - text.matches("\\{").count(), 1);
    }
}
