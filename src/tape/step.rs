//! Everything a child can do. The list is closed on purpose: it is the audit.
//!
//! Read by whoever asks "what can this program do to a machine?"; recorded by `launch::assemble`, played by `play`.
//! Each step is one system call or a tight pair; strings are C strings, files are descriptors or slots.

use crate::sys::process::Pointers;
use std::ffi::CString;
use std::fmt;
use std::os::fd::RawFd;

/// Declaration order is playing order. A Recorder refuses to go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Who we are: namespaces, ids, what the namespaces themselves are set to.
    Identity,
    /// The tree that the process will see.
    Root,
    /// What the process is born with.
    Process,
    /// From here on the workload is a process of its own, in the inner user namespace; PID 1 stays behind.
    Seal,
    Exec,
}

/// What the parent says to the waiting child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// The id maps are written, and the cgroup is entered.
    Mapped,
    /// The inner id maps are written; said by PID 1.
    Inner,
    /// What was handed over by `Served` is served.
    Served,
}

impl Barrier {
    pub fn byte(self) -> u8 {
        match self {
            Barrier::Mapped => b'M',
            Barrier::Inner => b'I',
            Barrier::Served => b'S',
        }
    }
}

/// A place for a descriptor that the child opens itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The top of the new tree.
    Root,
    /// Our own procfs, attached or not. // L3
    Proc,
    /// The tmpfs that holds everything that is thrown away; also the working directory during Phase::Root.
    Scratch,
    /// The host's sysfs or our own, until it is attached.
    Sys,
    /// The mount that is being made.
    Mount,
    /// The terminal's other end.
    Terminal,
    /// The limit on mount namespaces, opened before /proc/sys is read-only.
    Limit,
}

pub const SLOTS: usize = 7;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// The supplementary groups stay: they may be what denies access (0604 directories). cve: 2014-8989
    Keep,
    Set(Box<[u32]>),
}

/// What to make where a mount's target is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    Nothing,
    Directory,
    File,
    /// A missing target means that there is nothing to do.
    Absent,
}

/// An extent of an id map: ids `inside..inside+count`, as seen from the outer namespace (for the inner map the two are equal).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// A directory that shows through an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lower {
    /// By its path on the host, or in the scratch.
    At(CString),
    /// Below the new root, as it is so far. // L1
    Inside(CString),
}

/// More lower directories than fit into one option of fsconfig(2), 256 bytes, by descriptor.
pub const FEW_LOWERS: usize = 10;

/// kernel: fs/overlayfs/params.h OVL_MAX_STACK
pub const MOST_LOWERS: usize = 500;

pub enum Step {
    // -- Identity
    Await(Barrier),
    /// Namespaces beyond those of the clone. What needs no cgroup and, like `LoopbackUp`, no tree is done before the child is born. // play.rs `early`
    Unshare {
        namespaces: u64,
        names: String,
    },
    LoopbackUp,
    /// A new file system instance, detached, into `slot`.
    Filesystem {
        fstype: CString,
        options: Box<[(CString, Option<CString>)]>,
        attributes: u64,
        slot: Slot,
    },
    /// Write to a file of our own procfs. // L3
    WriteProc {
        path: CString,
        value: CString,
    },
    /// Open a file of our own procfs for a later `WriteSlot`.
    OpenProc {
        path: CString,
        slot: Slot,
    },
    SetIds {
        uid: u32,
        gid: u32,
        groups: Groups,
        /// Our /proc entries stay ours, for PID 1 that is to write maps there.
        open: bool,
    },
    /// Be in a namespace of a living sandbox.
    Join {
        namespace: RawFd,
        kind: u64,
        name: &'static str,
        phase: Phase,
    },
    /// The kernel kills us when our parent dies; a change of ids takes that back, so it may come once more.
    DieWithParent(Phase),

    // -- Root: relative paths start at the scratch tmpfs
    PrivatePropagation,
    /// Give the parent our user and mount namespaces, and a copy of the host's procfs with nothing around it. // owners
    Introduce,
    /// Attach the mount in `Slot::Mount` at a host path of our own mount namespace, and work there.
    EnterScratch {
        at: CString,
    },
    MakeDir {
        path: CString,
        mode: u32,
        owner: Option<(u32, u32)>,
    },
    MakeFile {
        path: CString,
        content: Box<[u8]>,
        mode: u32,
    },
    Symlink {
        target: CString,
        path: CString,
    },
    /// Hide a name of the layers below: an overlay whiteout in an upper directory, a hard link to the one that `MakeWhiteout` made.
    MakeWhiteout,
    Whiteout {
        path: CString,
    },
    /// Copy the mount tree at `path` into `slot`, detached, with these attributes added. `device`: it must be this device.
    CloneTree {
        path: CString,
        recursive: bool,
        attributes: u64,
        device: Option<(u32, u32)>,
        slot: Slot,
    },
    /// The kernel's overlay into `slot`; of the directories `lower` the first is on top. Attached in the scratch if they are many.
    Overlay {
        lower: Box<[Lower]>,
        upper: CString,
        work: CString,
        attributes: u64,
        slot: Slot,
    },
    /// An overlay of our own at the scratch directory `at`: a FUSE mount, whose device and layers go to the parent, which has it served.
    /// It is not to be looked into before `Await(Barrier::Served)`.
    Served {
        lower: Box<[CString]>,
        upper: CString,
        work: CString,
        attributes: u64,
        at: CString,
    },
    /// Take the mount at the scratch directory `at` into `slot`.
    Take {
        at: CString,
        slot: Slot,
    },
    /// Make sure that there is a directory `path` below the root. // L1
    MakeInside {
        path: CString,
    },
    /// Give the scratch directory `path` the owner and the mode of `like` below the root.
    Resemble {
        path: CString,
        like: CString,
    },
    /// Make the mount in `Slot::Mount` the top of the new tree: attach it at `at`, and keep it in `Slot::Root`.
    RootAt {
        at: CString,
    },
    /// Attach the mount in `slot` below the root. // L1 L2
    Attach {
        slot: Slot,
        target: CString,
        create: Create,
        follow: bool,
    },
    /// Add attributes to what is mounted at `target` below the root, or to a fresh copy of what is there.
    Remount {
        target: CString,
        attributes: u64,
        recursive: bool,
        absent_is_fine: bool,
    },
    /// Give the parent the mount in `slot`, and keep nothing of it.
    HandOver {
        slot: Slot,
    },
    /// Keep the top of the tree that we have joined in `Slot::Root`.
    OpenRoot,
    /// Go on as a new process: a joined pid namespace is for one's children. It is the parent's child, or, as an orphan, PID 1's there.
    Renew {
        orphan: bool,
    },
    /// `Slot::Root` is `/` from now on; nothing of the old tree is left.
    Pivot {
        attributes: u64,
    },

    // -- Process
    WriteSlot {
        slot: Slot,
        value: CString,
    },
    Hostname(CString),
    NewSession,
    /// A pty of our own devpts: its master to the parent, its slave as stdin, stdout, stderr and controlling terminal.
    Terminal {
        rows: u16,
        columns: u16,
        owner: Option<(u32, u32)>,
    },
    Stdio {
        from: RawFd,
        to: RawFd,
    },
    Rlimit {
        name: &'static str,
        resource: u32,
        soft: u64,
        hard: u64,
    },
    Umask(u32),

    // -- Seal
    /// PID 1 clones the workload into the inner user namespace, writes its maps, and stays behind as init.
    Split {
        uids: Box<[Extent]>,
        gids: Box<[Extent]>,
        owns_pids: bool,
        /// After the last words, init waits until the parent has read what the cgroup used.
        lingers: bool,
    },
    OomScore(CString),
    NotDumpable(Phase),
    DropBounding {
        keep: u64,
    },
    /// Keep the permitted capabilities over the following SetIds.
    BecomeUser {
        uid: u32,
        gid: u32,
        groups: Groups,
    },
    SetCapabilities(u64),
    /// Have these over the exec, too: only root keeps its own.
    AmbientCapabilities(u64),
    Chdir(CString),
    NoNewPrivileges,
    /// Add `path` to the Landlock ruleset, with these rights.
    LandlockPath {
        ruleset: RawFd,
        path: CString,
        access: u64,
        absent_is_fine: bool,
    },
    LandlockEnforce {
        ruleset: RawFd,
    },
    CloseOnExecFrom(u32),
    DefaultSignals {
        mask: crate::sys::signal::Set,
    },
    /// Leave calls of this program to whoever has the listener, which goes to the parent. // owners
    Listen {
        program: Box<[crate::sys::confine::SockFilter]>,
        flags: u32,
    },
    Seccomp(Box<[crate::sys::confine::SockFilter]>),

    // -- Exec
    /// Stay until the parent lets go, with all that the steps have made; then end.
    Stay,
    /// Execute the first of `paths` that is there.
    Exec {
        paths: Box<[CString]>,
        argv: Pointers,
        envp: Pointers,
    },
}

impl Step {
    pub fn phase(&self) -> Phase {
        use Step::*;
        match self {
            Await(Barrier::Mapped)
            | Unshare { .. }
            | LoopbackUp
            | Filesystem { slot: Slot::Proc, .. }
            | CloneTree { slot: Slot::Proc, .. }
            | WriteProc { .. }
            | OpenProc { .. }
            | SetIds { .. } => Phase::Identity,
            DieWithParent(phase) | NotDumpable(phase) | Join { phase, .. } => *phase,
            PrivatePropagation
            | Introduce
            | Filesystem { .. }
            | EnterScratch { .. }
            | MakeDir { .. }
            | MakeFile { .. }
            | Symlink { .. }
            | MakeWhiteout
            | Whiteout { .. }
            | CloneTree { .. }
            | Overlay { .. }
            | Served { .. }
            | Await(Barrier::Served)
            | Take { .. }
            | MakeInside { .. }
            | Resemble { .. }
            | RootAt { .. }
            | Attach { .. }
            | Remount { .. }
            | HandOver { .. }
            | OpenRoot
            | Renew { .. }
            | Pivot { .. } => Phase::Root,
            WriteSlot { .. } | Hostname(_) | NewSession | Terminal { .. } | Stdio { .. } | Rlimit { .. } | Umask(_) => Phase::Process,
            Await(Barrier::Inner)
            | Split { .. }
            | OomScore(_)
            | DropBounding { .. }
            | BecomeUser { .. }
            | SetCapabilities(_)
            | AmbientCapabilities(_)
            | Chdir(_)
            | NoNewPrivileges
            | LandlockPath { .. }
            | LandlockEnforce { .. }
            | CloseOnExecFrom(_)
            | DefaultSignals { .. }
            | Listen { .. }
            | Seccomp(_) => Phase::Seal,
            Stay | Exec { .. } => Phase::Exec,
        }
    }
}

/// What a person reads in `--dry-run`, and in errors after the word "cannot": so each begins with a verb.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Step::*;
        let s = |c: &CString| crate::error::printable(&c.to_string_lossy());
        match self {
            Await(Barrier::Mapped) => f.write_str("wait for the id maps"),
            Await(Barrier::Inner) => f.write_str("wait for the inner id maps"),
            Await(Barrier::Served) => f.write_str("wait until our overlays are served"),
            Unshare { names, .. } => write!(f, "unshare {names}"),
            LoopbackUp => f.write_str("bring lo up"),
            Filesystem { fstype, options, attributes, slot } => {
                write!(f, "mount a new {}", s(fstype))?;
                for (key, value) in options {
                    match value {
                        Some(v) => write!(f, " {}={}", s(key), s(v))?,
                        None => write!(f, " {}", s(key))?,
                    }
                }
                write!(f, "{} as {slot:?}", Attributes(*attributes))
            }
            WriteProc { path, value } => write!(f, "write '{}' to /proc/{}", s(value), s(path)),
            OpenProc { path, slot } => write!(f, "open /proc/{} as {slot:?}", s(path)),
            WriteSlot { slot, value } => write!(f, "write '{}' to {slot:?}", s(value)),
            SetIds { uid, gid, groups, .. } => write!(f, "set the ids to {uid}:{gid}, {groups}"),
            Join { name, .. } => write!(f, "join the sandbox's {name} namespace"),
            NotDumpable(_) => f.write_str("become undumpable"),
            DieWithParent(_) => f.write_str("ask to die with the parent"),
            PrivatePropagation => f.write_str("make all mounts private"),
            Introduce => f.write_str("hand our namespaces and the host's procfs over to the parent"),
            EnterScratch { at } => write!(f, "attach the scratch at {}", s(at)),
            MakeDir { path, mode, owner } => {
                write!(f, "make the directory {} {mode:04o}", s(path))?;
                owner.map_or(Ok(()), |(u, g)| write!(f, " {u}:{g}"))
            }
            MakeFile { path, content, mode } => write!(f, "make the file {} {mode:04o} ({} bytes)", s(path), content.len()),
            Symlink { target, path } => write!(f, "make the link {} -> {}", s(path), s(target)),
            MakeWhiteout => f.write_str("make a whiteout"),
            Whiteout { path } => write!(f, "white out {}", s(path)),
            CloneTree { path, recursive, attributes, device, slot } => {
                let how = if *recursive { "mounts" } else { "mount" };
                write!(f, "copy the {how} at {}{}", s(path), Attributes(*attributes))?;
                if let Some((major, minor)) = device {
                    write!(f, ", a device {major}:{minor}")?;
                }
                write!(f, " as {slot:?}")
            }
            Overlay { lower, upper, work, attributes, slot } => {
                let lower: Vec<_> = lower.iter().map(Lower::to_string).collect();
                write!(f, "overlay {} (upper {}, work {}, userxattr){} as {slot:?}", lower.join(", "), s(upper), s(work), Attributes(*attributes))
            }
            Served { lower, upper, work, attributes, at } => {
                let lower: Vec<_> = lower.iter().map(&s).collect();
                let attributes = Attributes(*attributes);
                write!(f, "mount an overlay of our own of {} (upper {}, work {}){attributes} at {}", lower.join(", "), s(upper), s(work), s(at))
            }
            Take { at, slot } => write!(f, "take the mount at {} as {slot:?}", s(at)),
            MakeInside { path } => write!(f, "make the directory {} inside, if missing", s(path)),
            Resemble { path, like } => write!(f, "give {} the owner and mode of {} inside", s(path), s(like)),
            RootAt { at } => write!(f, "attach the new root at {}", s(at)),
            Attach { slot, target, create, .. } => {
                let made = match create {
                    Create::Nothing => "",
                    Create::Directory => ", made if missing",
                    Create::File => ", a file made if missing",
                    Create::Absent => ", if there",
                };
                write!(f, "attach {slot:?} at {}{made}", s(target))
            }
            Remount { target, attributes, recursive, absent_is_fine } => {
                let tree = if *recursive { " and what is below" } else { "" };
                let absent = if *absent_is_fine { ", if there" } else { "" };
                write!(f, "remount {}{tree}{}{absent}", s(target), Attributes(*attributes))
            }
            OpenRoot => f.write_str("open the top of the tree as Root"),
            Renew { orphan: false } => f.write_str("go on as a new process, in the pid namespace"),
            Renew { orphan: true } => f.write_str("go on as a child of PID 1"),
            HandOver { slot } => write!(f, "hand {slot:?} over to the parent"),
            Pivot { attributes } => write!(f, "pivot to the new root{}, and drop the old", Attributes(*attributes)),
            Hostname(name) => write!(f, "set the host name to {}", s(name)),
            NewSession => f.write_str("start a session"),
            Terminal { rows, columns, .. } => write!(f, "open a terminal of our own, {columns}x{rows}, its master to the parent"),
            Stdio { from, to } => write!(f, "make descriptor {to} of {from}"),
            Rlimit { name, soft, hard, .. } => {
                let n = |v: &u64| if *v == u64::MAX { "unlimited".to_string() } else { v.to_string() };
                write!(f, "limit {name} to {}:{}", n(soft), n(hard))
            }
            Umask(mask) => write!(f, "set the umask to {mask:04o}"),
            Split { uids, gids, owns_pids, lingers: _ } => {
                let end = if *owns_pids { "" } else { " as subreaper" };
                write!(f, "split: init stays{end}, the workload goes to an inner user namespace (uid{}; gid{})", Map(uids), Map(gids))
            }
            OomScore(value) => write!(f, "set the oom score to {}", s(value)),
            DropBounding { keep } => write!(f, "drop the bounding set to {}", Capabilities(*keep)),
            BecomeUser { uid, gid, groups } => write!(f, "become {uid}:{gid}, {groups}"),
            SetCapabilities(set) => write!(f, "set the capabilities to {}", Capabilities(*set)),
            AmbientCapabilities(set) => write!(f, "keep the capabilities {} over the exec", Capabilities(*set)),
            Chdir(path) => write!(f, "enter {}", s(path)),
            NoNewPrivileges => f.write_str("give up new privileges"),
            LandlockPath { path, access, absent_is_fine, .. } => {
                let absent = if *absent_is_fine { ", if there" } else { "" };
                write!(f, "let landlock allow {access:#x} below {}{absent}", s(path))
            }
            LandlockEnforce { .. } => f.write_str("enforce landlock"),
            Listen { program, .. } => write!(f, "leave calls about ids to the supervisor ({} instructions)", program.len()),
            Seccomp(program) => write!(f, "load the seccomp filter ({} instructions)", program.len()),
            CloseOnExecFrom(first) => write!(f, "close descriptors from {first} on at exec"),
            DefaultSignals { .. } => f.write_str("reset signal actions, and the mask to the caller's"),
            Stay => f.write_str("stay until the parent lets go"),
            Exec { paths, argv, .. } => {
                let first = paths.first().map(&s).unwrap_or_default();
                write!(f, "execute {first}")?;
                if paths.len() > 1 {
                    write!(f, " (or in {} more places)", paths.len() - 1)?;
                }
                write!(f, ", {} arguments", argv.strings().len().saturating_sub(1))
            }
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Groups::Keep => f.write_str("groups as they are"),
            Groups::Set(g) => write!(f, "groups {g:?}"),
        }
    }
}

impl fmt::Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |c: &CString| crate::error::printable(&c.to_string_lossy());
        match self {
            Lower::At(path) => f.write_str(&s(path)),
            Lower::Inside(path) => write!(f, "{} inside", s(path)),
        }
    }
}

struct Attributes(u64);

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::sys::mount::*;
        let mut sep = ", ";
        for (bit, name) in
            [(RDONLY, "ro"), (NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec"), (NOATIME, "noatime"), (NODIRATIME, "nodiratime")]
        {
            if self.0 & bit != 0 {
                write!(f, "{sep}{name}")?;
                sep = " ";
            }
        }
        Ok(())
    }
}

struct Map<'a>(&'a [Extent]);

impl fmt::Display for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|e| write!(f, " {} -> {} ({})", e.inside, e.outside, e.count))
    }
}

struct Capabilities(u64);

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        for n in (0..64).filter(|n| self.0 & (1 << n) != 0) {
            write!(f, "{sep}{n}")?;
            sep = ",";
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}
