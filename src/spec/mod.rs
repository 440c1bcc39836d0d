//! What the user asked for. A `Spec` is total: every field is decided. A `Patch` is what one source has to say.
//!
//! *What*: policy files and flags all become a `Patch`; patches are laid over each other, later over earlier, and `settle`
//! turns the result into a `Spec`. `launch` freezes a Spec into a Plan.
//!
//! *Why this way*: one shape for all sources means that a new flag cannot be known to one and unknown to another.
//! Strictness is not a property of merging but one question asked at the end, `Spec::exceeds`: does the result go beyond
//! the policy that the user named, or the ceiling that the site set? (Rejected: a merge law per field; it made every
//! policy file order-dependent in its own way.)
//!
//! *Invariants*
//! - I1 no I/O here, except in `policy`.
//! - I2 a Patch that is settled without a value for some field is a bug of `policies/default.toml`, never a silent default.
//! - I3 what `exceeds` finds is an error for the user, never a quiet correction.
#![forbid(unsafe_code)]

pub mod exceeds;
pub mod limits;
pub mod policy;
pub mod process;
pub mod restrict;
pub mod storage;

pub use limits::{Limits, LimitsPatch};
pub use process::{IdMapping, Process, Stream, Ulimit, User};
pub use restrict::{Control, Landlock, LandlockFiles, Reasoned, Restrict, Seccomp, SeccompProfile};
pub use storage::{Backend, ImageRoot, Mount, Root, RootMode, Source};

use crate::error::{Error, Kind, Result};
use crate::ident::{Bytes, Name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

/// Everything the user asked for, with nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub name: Option<Name>,
    pub root: Root,
    pub files: Files,
    pub process: Process,
    pub userns: Userns,
    pub network: Network,
    pub namespaces: Namespaces,
    pub restrict: Restrict,
    pub limits: Limits,
    /// Of all of the user's sandboxes together.
    pub budget: Limits,
    /// Where the sandbox's cgroup is to be: a slice of the user's systemd, or a cgroup's path. None: where it belongs.
    pub cgroup_parent: Option<String>,
    /// Controls whose loss is an error even where it would be tolerated.
    pub require: BTreeSet<Control>,
    /// Controls whose loss the user allowed by name.
    pub best_effort: BTreeSet<Control>,
}

/// What the tree inside looks like, beyond its root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Files {
    /// In the user's order, which is the mount order.
    pub mounts: Vec<Mount>,
    /// Emptied in the sandbox, whether there at start or made later. `~` is the caller's home, `%U` the caller's uid.
    pub hide: Vec<Reasoned>,
    /// Shown with their submounts but read-only; for trees with many submounts.
    pub read_only: Vec<Reasoned>,
    /// Replaced by a fresh tmpfs, since the kernel's overlay cannot copy up other users' sticky directories.
    pub fresh: Vec<Reasoned>,
    /// Inside a directory shared read-write with the host: names that stay read-only (git hooks, shell start files).
    pub guard: Vec<Reasoned>,
    /// The whole root is read-only.
    pub root_read_only: bool,
    pub shm_size: Bytes,
    /// How much the sandbox may write to its copy-on-write layers and temporary directories, all together; None: half of the memory.
    pub scratch_size: Option<Bytes>,
    /// How much the writable layer may hold, be it kept or not, in bytes and in inodes; None: what there is room for.
    pub disk: Option<Bytes>,
    pub inodes: Option<u64>,
    #[serde(default)]
    pub overlay_backend: Backend,
    /// Host devices to show, beyond the minimal /dev: (host path, path inside).
    pub devices: Vec<(PathBuf, PathBuf)>,
    /// The one copy-on-write directory of the host's tree whose layer stays. Not for a policy to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<storage::Kept>,
}

/// Which ids inside are which outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Userns {
    /// Host tree: `KeepId`. A root directory: `Root`.
    Auto,
    /// The caller is this uid and gid inside (None: the same as outside), the subuids around.
    KeepId { uid: Option<u32>, gid: Option<u32> },
    /// The caller is 0 inside, the subuids from 1 on.
    Root,
    /// 0 inside is the first subuid; the caller has no id inside.
    Nomap,
    /// One id only, no subuids: the caller, under the id that `Auto` would give it.
    Single,
    /// Docker's and podman's explicit extents.
    Explicit { uids: Vec<IdMapping>, gids: Vec<IdMapping> },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub mode: NetworkMode,
    /// Lines for /etc/hosts: (name, address).
    pub add_host: Vec<(String, String)>,
    /// Name servers for /etc/resolv.conf; empty: what the root has.
    pub dns: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// An own network namespace with nothing but loopback.
    None,
    /// The host's network.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    Private,
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub ipc: Share,
    pub pid: Share,
    pub uts: Share,
    pub cgroup: Share,
    /// The workload may make namespaces of its own: one user namespace level instead of two.
    pub nested: bool,
}

/// What one source has to say. Empty fields say nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Patch {
    pub description: Option<String>,
    /// Policies to lay under this one, first to last.
    pub include: Vec<String>,
    #[serde(skip)]
    pub name: Option<Name>,
    #[serde(skip)]
    pub root: Option<Root>,
    pub userns: Option<Userns>,
    pub process: ProcessPatch,
    pub files: FilesPatch,
    pub network: NetworkPatch,
    pub namespaces: NamespacesPatch,
    pub capabilities: CapabilitiesPatch,
    pub seccomp: SeccompPatch,
    pub landlock: LandlockPatch,
    pub proc: ProcPatch,
    pub limits: LimitsPatch,
    pub budget: LimitsPatch,
    pub cgroup_parent: Option<String>,
    pub require: BTreeSet<Control>,
    pub best_effort: BTreeSet<Control>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcessPatch {
    #[serde(skip)]
    pub argv: Vec<OsString>,
    /// Variables to set.
    pub env: BTreeMap<String, String>,
    /// Variables of the caller to pass on, each with the reason; a name may end in `*`.
    pub env_pass: Vec<Reasoned>,
    pub cwd: Option<PathBuf>,
    pub user: Option<User>,
    pub hostname: Option<String>,
    #[serde(skip)]
    pub interactive: Option<bool>,
    #[serde(skip)]
    pub tty: Option<bool>,
    /// Octal, as in `"022"`.
    pub umask: Option<String>,
    pub init: Option<bool>,
    pub no_new_privileges: Option<bool>,
    pub stop_signal: Option<String>,
    /// Seconds of wall-clock time after which everything is killed; 0: none.
    pub timeout: Option<u64>,
    pub oom_score_adj: Option<i32>,
    /// `nofile = "1024:65536"`: soft and hard, or one number for both, or `unlimited`.
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(skip)]
    pub preserve_fds: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilesPatch {
    /// As for `-v`: `HOST:DEST[:ro|rw|O]`.
    pub mounts: Vec<Mount>,
    pub hide: Vec<Reasoned>,
    pub read_only: Vec<Reasoned>,
    pub fresh: Vec<Reasoned>,
    pub guard: Vec<Reasoned>,
    pub root_read_only: Option<bool>,
    pub shm_size: Option<Bytes>,
    pub scratch_size: Option<Bytes>,
    pub disk: Option<Bytes>,
    pub inodes: Option<u64>,
    pub overlay_backend: Option<Backend>,
    #[serde(skip)]
    pub devices: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkPatch {
    pub mode: Option<NetworkMode>,
    #[serde(skip)]
    pub add_host: Vec<(String, String)>,
    pub dns: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NamespacesPatch {
    pub ipc: Option<Share>,
    pub pid: Option<Share>,
    pub uts: Option<Share>,
    pub cgroup: Option<Share>,
    pub nested: Option<bool>,
}

/// `keep` replaces, then `add` and `drop` change it. Names without `CAP_`; `ALL` is every capability.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CapabilitiesPatch {
    pub keep: Option<Vec<Reasoned>>,
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SeccompPatch {
    /// Groups (`@base`) and system calls; replaces.
    pub allow: Option<Vec<String>>,
    /// Taken out of what `allow` names.
    pub deny: Vec<String>,
    /// Socket families that may be opened: `unix`, `inet`, `inet6`, `netlink-route`, `netlink-diag`; replaces.
    pub socket_families: Option<Vec<String>>,
    /// Set by `--security-opt seccomp=...`.
    #[serde(skip)]
    pub profile: Option<SeccompProfile>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LandlockPatch {
    /// `signal` and `abstract-unix-socket`; replaces.
    pub scopes: Option<Vec<String>>,
    /// `off`: no rules on files. `declared`: writing only below the mounts that say so, and the temporary directories.
    pub files: Option<LandlockFiles>,
    /// None: no rule on TCP. Some: only these ports.
    pub tcp_connect: Option<Vec<u16>>,
    pub tcp_bind: Option<Vec<u16>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcPatch {
    /// Off: `mask` and `read-only` do nothing. The kernel lets a nested sandbox mount a /proc of its own only where nothing
    /// of ours is hidden. kernel: fs/namespace.c mount_too_revealing()
    pub masks: Option<bool>,
    /// Below /proc or /sys: shown empty.
    pub mask: Vec<Reasoned>,
    /// Below /proc or /sys: shown read-only.
    pub read_only: Vec<Reasoned>,
}

impl Patch {
    /// Lay `later` over this patch: its choices win, its lists come after ours.
    pub fn then(mut self, later: Patch) -> Patch {
        fn pick<T>(ours: &mut Option<T>, theirs: Option<T>) {
            if theirs.is_some() {
                *ours = theirs;
            }
        }
        // What both say is said once, in the later place: a patch laid over itself is itself.
        fn lay<T: PartialEq>(ours: &mut Vec<T>, theirs: Vec<T>) {
            ours.retain(|o| !theirs.contains(o));
            ours.extend(theirs);
        }
        fn lay_reasoned(ours: &mut Vec<Reasoned>, theirs: Vec<Reasoned>) {
            ours.retain(|o| !theirs.iter().any(|t| t.path == o.path));
            ours.extend(theirs);
        }
        // Destructured without `..`: a new field does not compile until someone has said how it combines.
        let Patch {
            description,
            include: _,
            name,
            root,
            userns,
            process,
            files,
            network,
            namespaces,
            capabilities,
            seccomp,
            landlock,
            proc,
            limits,
            budget,
            cgroup_parent,
            require,
            best_effort,
        } = later;
        pick(&mut self.description, description);
        pick(&mut self.name, name);
        pick(&mut self.root, root);
        pick(&mut self.userns, userns);

        let ProcessPatch {
            argv,
            env,
            env_pass,
            cwd,
            user,
            hostname,
            interactive,
            tty,
            umask,
            init,
            no_new_privileges,
            stop_signal,
            timeout,
            oom_score_adj,
            ulimits,
            preserve_fds,
        } = process;
        let ours = &mut self.process;
        if !argv.is_empty() {
            ours.argv = argv;
        }
        ours.env.extend(env);
        lay_reasoned(&mut ours.env_pass, env_pass);
        pick(&mut ours.cwd, cwd);
        pick(&mut ours.user, user);
        pick(&mut ours.hostname, hostname);
        pick(&mut ours.interactive, interactive);
        pick(&mut ours.tty, tty);
        pick(&mut ours.umask, umask);
        pick(&mut ours.init, init);
        pick(&mut ours.no_new_privileges, no_new_privileges);
        pick(&mut ours.stop_signal, stop_signal);
        pick(&mut ours.timeout, timeout);
        pick(&mut ours.oom_score_adj, oom_score_adj);
        ours.ulimits.extend(ulimits);
        pick(&mut ours.preserve_fds, preserve_fds);

        let FilesPatch { mounts, hide, read_only, fresh, guard, root_read_only, shm_size, scratch_size, disk, inodes, overlay_backend, devices } =
            files;
        let ours = &mut self.files;
        lay(&mut ours.mounts, mounts);
        lay_reasoned(&mut ours.hide, hide);
        lay_reasoned(&mut ours.read_only, read_only);
        lay_reasoned(&mut ours.fresh, fresh);
        lay_reasoned(&mut ours.guard, guard);
        pick(&mut ours.root_read_only, root_read_only);
        pick(&mut ours.shm_size, shm_size);
        pick(&mut ours.scratch_size, scratch_size);
        pick(&mut ours.disk, disk);
        pick(&mut ours.inodes, inodes);
        pick(&mut ours.overlay_backend, overlay_backend);
        lay(&mut ours.devices, devices);

        let NetworkPatch { mode, add_host, dns } = network;
        pick(&mut self.network.mode, mode);
        lay(&mut self.network.add_host, add_host);
        lay(&mut self.network.dns, dns);

        let NamespacesPatch { ipc, pid, uts, cgroup, nested } = namespaces;
        let ours = &mut self.namespaces;
        pick(&mut ours.ipc, ipc);
        pick(&mut ours.pid, pid);
        pick(&mut ours.uts, uts);
        pick(&mut ours.cgroup, cgroup);
        pick(&mut ours.nested, nested);

        let CapabilitiesPatch { keep, add, drop } = capabilities;
        let ours = &mut self.capabilities;
        if keep.is_some() {
            *ours = CapabilitiesPatch { keep, ..Default::default() };
        }
        lay(&mut ours.add, add);
        lay(&mut ours.drop, drop);

        let SeccompPatch { allow, deny, socket_families, profile } = seccomp;
        let ours = &mut self.seccomp;
        if allow.is_some() {
            ours.allow = allow;
            ours.deny.clear();
        }
        lay(&mut ours.deny, deny);
        pick(&mut ours.socket_families, socket_families);
        pick(&mut ours.profile, profile);

        let LandlockPatch { scopes, files, tcp_connect, tcp_bind } = landlock;
        let ours = &mut self.landlock;
        pick(&mut ours.scopes, scopes);
        pick(&mut ours.files, files);
        pick(&mut ours.tcp_connect, tcp_connect);
        pick(&mut ours.tcp_bind, tcp_bind);

        let ProcPatch { masks, mask, read_only } = proc;
        pick(&mut self.proc.masks, masks);
        lay_reasoned(&mut self.proc.mask, mask);
        lay_reasoned(&mut self.proc.read_only, read_only);

        self.limits.lay(limits);
        self.budget.lay(budget);
        pick(&mut self.cgroup_parent, cgroup_parent);

        self.require.extend(require);
        self.best_effort.extend(best_effort);
        self
    }

    /// Close the patch into a Spec. A gap is a bug of the built-in default policy (I2).
    pub fn settle(self) -> Result<Spec> {
        fn must<T>(value: Option<T>, what: &str) -> Result<T> {
            value.ok_or_else(|| Error::new(Kind::Bug, format!("no policy says '{what}'")))
        }
        let Patch { process: p, files: f, network: n, namespaces: s, capabilities: c, seccomp, landlock: l, proc, .. } = self;
        let proc = if must(proc.masks, "proc.masks")? { proc } else { ProcPatch::default() };
        let restrict = Restrict {
            capabilities: restrict::capabilities(&must(c.keep, "capabilities.keep")?, &c.add, &c.drop)?,
            no_new_privileges: must(p.no_new_privileges, "process.no-new-privileges")?,
            seccomp: Seccomp {
                profile: seccomp.profile.unwrap_or(SeccompProfile::Groups),
                allow: must(seccomp.allow, "seccomp.allow")?,
                deny: seccomp.deny,
                socket_families: must(seccomp.socket_families, "seccomp.socket-families")?,
            },
            landlock: Landlock {
                scopes: must(l.scopes, "landlock.scopes")?,
                files: must(l.files, "landlock.files")?,
                tcp_connect: l.tcp_connect,
                tcp_bind: l.tcp_bind,
            },
            mask: proc.mask,
            read_only: proc.read_only,
        };
        self.limits.check()?;
        self.budget.check()?;
        Ok(Spec {
            limits: self.limits,
            budget: self.budget,
            cgroup_parent: self.cgroup_parent,
            name: self.name,
            root: must(self.root, "root")?,
            files: Files {
                mounts: f.mounts,
                hide: f.hide,
                read_only: f.read_only,
                fresh: f.fresh,
                guard: f.guard,
                root_read_only: must(f.root_read_only, "files.root-read-only")?,
                shm_size: must(f.shm_size, "files.shm-size")?,
                scratch_size: f.scratch_size,
                disk: f.disk,
                inodes: f.inodes,
                overlay_backend: must(f.overlay_backend, "files.overlay-backend")?,
                kept: None,
                devices: f.devices,
            },
            process: Process {
                argv: p.argv,
                env: p.env,
                env_pass: p.env_pass,
                cwd: p.cwd,
                user: p.user,
                hostname: p.hostname,
                interactive: p.interactive.unwrap_or(false),
                tty: p.tty.unwrap_or(false),
                umask: process::umask(&must(p.umask, "process.umask")?)?,
                init: must(p.init, "process.init")?,
                stop_signal: process::signal(&must(p.stop_signal, "process.stop-signal")?)?,
                timeout: p.timeout.filter(|t| *t != 0),
                oom_score_adj: must(p.oom_score_adj, "process.oom-score-adj")?,
                ulimits: p.ulimits,
                preserve_fds: p.preserve_fds.unwrap_or(0),
            },
            userns: self.userns.unwrap_or(Userns::Auto),
            network: Network { mode: must(n.mode, "network.mode")?, add_host: n.add_host, dns: n.dns },
            namespaces: Namespaces {
                ipc: must(s.ipc, "namespaces.ipc")?,
                pid: must(s.pid, "namespaces.pid")?,
                uts: must(s.uts, "namespaces.uts")?,
                cgroup: must(s.cgroup, "namespaces.cgroup")?,
                nested: must(s.nested, "namespaces.nested")?,
            },
            restrict,
            require: self.require,
            best_effort: self.best_effort,
        })
    }
}
