//! A further process in a living sandbox: `exec`. It is another tape, recorded by the same functions, and played by a child that joins.
//!
//! *What*: `Target::find` pins the sandbox and opens its namespaces; `freeze` decides what the command is and how it is restricted, from the very
//! Spec that the sandbox was made from; `enter` has the child born. `Target::root` gives a handle on the top of the tree, for `cp` and for
//! the root's own account files. Called by `cli::exec` and its neighbours.
//!
//! ```text
//! sandbox exec        the joiner (outside)                    the command
//!   | clone ---------> waits; its cgroup is entered
//!   | --- 'M' -------> joins outer user, undumpable,
//!   |                  cgroup ipc uts net mnt pid
//!   | <-- 'C' pidfd -- clones its sibling ----------------->  session, stdio, limits
//!   |                  x                                      joins the inner user namespace, seals, exec
//!   | <------------- end of file on the fault pipe: it runs ---- |
//! ```
//!
//! *Why this way*: whoever is inside sees the new process from the clone on, so before that everything must be done that makes it worthless to
//! see: its memory belongs to the host's user namespace and is not dumpable, so that nothing inside may trace it, or read its
//! descriptors, root or environment. The kernel makes it readable at the exec, when only the command is left. (Rejected: a re-executed
//! helper, whose program file would be in reach; joining the inner namespace first, in which one may not join the others.)
//!
//! *Invariants*
//! - E1 the sandbox is found by pid and start time, and its namespaces are opened by handles on /proc of one process; they must lead to our own
//!   user namespace by one or two parents, as recorded. Nothing from inside is believed. // cve: 2022-31214
//! - E2 not dumpable before it is visible inside, and until the exec. // L4; cve: 2016-9962, 2019-5736
//! - E3 the working directory is entered last, as the user inside, and must be reachable; every descriptor of ours closes at the exec.
//!   // L5 L6; cve: 2024-21626
//! - E4 what restricts the command is what `assemble` records for the first one. // L10
//! - E5 who is inside can stop the new process as soon as it is visible, so the wait for it ends by a signal, or by time.
#![forbid(unsafe_code)]

use super::Said;
use super::accounts::Accounts;
use super::assemble::{adopted, process, seal};
use super::explain::{self, Told};
use super::plan::{self, Facts, Io};
use crate::birth::{self, Care};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::process::{Found, Process};
use crate::host::{self, Caller};
use crate::owners::{self, Ids, Place, Supervisor};
use crate::spec::process::Ulimit;
use crate::spec::{Control, Root, Share, Spec, Userns};
use crate::sys::clone::{self, Child, NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS};
use crate::sys::{Errno, signal, socket};
use crate::tape::wire::{self, Fault};
use crate::tape::{Barrier, Groups, Phase, Recorder, Slot, Step, Tape, play};
use crate::userns::{self, Maps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is joined between the two user namespaces, in this order: the mount namespace after those whose files might be asked for.
const JOINED: [(&str, u64); 6] = [("cgroup", NEWCGROUP), ("ipc", NEWIPC), ("uts", NEWUTS), ("net", NEWNET), ("mnt", NEWNS), ("pid", NEWPID)];

/// A busy machine takes a second; one who is stopped, for ever. // E5
const PATIENCE: Duration = Duration::from_secs(30);
/// The same once the user wants it to end.
const IMPATIENCE: Duration = Duration::from_secs(1);

/// A living sandbox, pinned.
#[derive(Debug)]
pub struct Target {
    /// Its PID 1, or what stands for it.
    init: Found,
    /// A process of its workload.
    workload: Found,
    /// The user namespaces, the outer first.
    users: Vec<OwnedFd>,
    /// The others that are not ours.
    others: Vec<(&'static str, u64, OwnedFd)>,
    pub maps: Maps,
}

fn ended() -> Error {
    Error::new(Kind::NotFound, "cannot join the sandbox: it has ended")
}

fn odd(why: &str) -> Error {
    Error::new(Kind::Denied, format!("cannot join the sandbox: {why}")).hint("end it with 'sandbox rm -f', and start it again")
}

impl Target {
    /// The sandbox of this Spec whose first process that is. // E1
    pub fn find(first: Process, spec: &Spec, caller: &Caller) -> Result<Target> {
        let init = first.find().filter(|init| !init.is_over()).ok_or_else(ended)?;
        let own = rustix::fs::stat("/proc/self/ns/user").doing("look at", "our own user namespace")?.st_ino;
        // With policy `nested` the command itself is the first process, and lives in the outer namespace, or below as it likes.
        let split = !spec.namespaces.nested || spec.process.init;
        let candidates = if split { init.children().map_err(|_| ended())? } else { vec![init.pid] };
        let mut refused = None;
        for candidate in candidates {
            let Ok(process) = Found::open(candidate) else { continue };
            if split && process.stat().map_or(true, |s| s.parent != init.pid || s.state == 'Z') {
                continue;
            }
            match lineage(&process, own) {
                Ok(users) if split && users.len() != 2 => refused = Some("its processes are in other user namespaces than they were born in"),
                Ok(users) => return Target::of(init, process, users, caller),
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(_) => refused = Some("its processes run programs that may not be read, so nobody may look at them"),
            }
        }
        Err(refused.map_or_else(ended, odd))
    }

    fn of(init: Found, workload: Found, users: Vec<OwnedFd>, caller: &Caller) -> Result<Target> {
        let mut others = Vec::new();
        for (name, kind) in JOINED {
            let theirs = workload.namespace(name).map_err(|_| ended())?;
            let ours = rustix::fs::stat(format!("/proc/self/ns/{name}")).doing("look at", "our own namespaces")?.st_ino;
            if rustix::fs::fstat(&theirs).doing("look at", "a namespace")?.st_ino != ours {
                others.push((name, kind, theirs));
            }
        }
        if !others.iter().any(|(_, kind, _)| *kind == NEWNS) {
            return Err(odd("its first process sees the host's tree"));
        }
        let map = |name: &str| workload.read(name).map_err(|_| ended());
        let maps = userns::living(&map("uid_map")?, &map("gid_map")?, caller, host::helper)?;
        // All of that was of this sandbox if it still lives.
        if init.is_over() {
            return Err(ended());
        }
        Ok(Target { init, workload, users, others, maps })
    }

    /// The cgroup lines of its workload. man: proc_pid_cgroup(5)
    pub fn cgroup_words(&self) -> String {
        self.workload.read("cgroup").unwrap_or_default()
    }

    /// Its outer user namespace, if overlays of ours are in its tree.
    pub fn served(&self) -> Option<BorrowedFd<'_>> {
        let served = self.workload.read("mounts").is_ok_and(|text| text.lines().any(|l| l.split(' ').nth(2) == Some("fuse.sandbox")));
        self.users.first().filter(|_| served).map(|user| user.as_fd())
    }

    pub fn init(&self) -> &Found {
        &self.init
    }

    /// A handle on the top of its tree. What it leads to is hostile: only below it, only by openat2(2). // L1
    pub fn root(&self) -> Result<Held> {
        let mut tape = Recorder::default();
        tape.push(Step::Await(Barrier::Mapped));
        self.outer(&mut tape);
        for (name, kind, namespace) in self.others.iter().filter(|(_, kind, _)| *kind == NEWNS) {
            tape.push(Step::Join { namespace: namespace.as_raw_fd(), kind: *kind, name, phase: Phase::Root });
        }
        tape.push(Step::OpenRoot);
        tape.push(Step::HandOver { slot: Slot::Root });
        tape.push(Step::Stay);
        hold(&tape.finish()?)
    }

    /// Its account files as they are by now: what the workload may have written is read as what it is.
    fn accounts(&self) -> Result<Accounts> {
        let root = self.root()?;
        let handle = root.handle.try_clone().doing("copy", "a descriptor")?;
        Accounts::read(handle, &self.maps, self.served())
    }

    /// Its root is an overlay of ours: the kernel tells us that much of it, and no more.
    fn is_served(&self) -> Result<bool> {
        let root = self.root()?;
        let stat = rustix::fs::fstatfs(&root.handle).doing("look at", "the sandbox's root")?;
        Ok(stat.f_type as u64 == owners::FUSE)
    }

    /// Where who answers for its ids has to be.
    fn place(&self, facts: &Facts) -> Result<Place> {
        let copy = |fd: Option<&OwnedFd>| fd.ok_or_else(ended)?.try_clone().doing("copy", "a descriptor");
        let mounts = self.others.iter().find(|(_, kind, _)| *kind == NEWNS).map(|(.., fd)| fd);
        // Nobody may copy a mount but in a mount namespace of his own.
        let mut tape = Recorder::default();
        tape.push(Step::DieWithParent(Phase::Identity));
        tape.push(Step::Await(Barrier::Mapped));
        tape.push(Step::PrivatePropagation);
        tape.push(Step::Introduce);
        tape.push(Step::Stay);
        let tape = tape.finish()?;
        let explain = |fault| explain::fault(&Told { tape: &tape, command: "", path: "" }, fault);
        let begun = birth::begin(&userns::single(0, 0, &facts.caller))?.start(Vec::new());
        let mut said = Said::default();
        let care = Care { place: &mut |_| Ok(()), hear: &mut |wire| said.hear(wire, None).map(drop), explain: &explain };
        let born = begun.bear(&tape, 0, NEWNS, 0, care)?;
        if said.place.is_none() {
            said.hear(&born.wire, None).inspect_err(|_| born.kill())?;
        }
        born.kill();
        let place = said.place.ok_or_else(|| Error::new(Kind::Bug, "no procfs came"))?;
        Ok(Place { user: copy(self.users.first())?, mounts: copy(mounts)?, ..place })
    }

    /// Out of sight, and then into the namespace that owns the others. // E2
    fn outer(&self, tape: &mut Recorder) {
        tape.push(Step::NotDumpable(Phase::Identity));
        tape.push(Step::DieWithParent(Phase::Identity));
        if let Some(namespace) = self.users.first() {
            tape.push(Step::Join { namespace: namespace.as_raw_fd(), kind: NEWUSER, name: "outer user", phase: Phase::Identity });
        }
    }
}

/// Its user namespace and those around, up to ours: the outermost first.
fn lineage(process: &Found, own: u64) -> rustix::io::Result<Vec<OwnedFd>> {
    let mut users = vec![process.namespace("user")?];
    // kernel: kernel/user_namespace.c create_user_ns(): at most 32 deep
    for _ in 0..32 {
        let Some(last) = users.last() else { break };
        let parent = clone::parent(last.as_fd())?;
        if rustix::fs::fstat(&parent)?.st_ino == own {
            users.reverse();
            return Ok(users);
        }
        users.push(parent);
    }
    Err(Errno::PERM)
}

/// What a command is to be in a sandbox that lives.
pub struct Entry {
    pub tape: Tape,
    pub ruleset: Option<OwnedFd>,
    pub io: Option<Io>,
    pub degraded: Vec<(Control, String)>,
    /// Somebody has to answer for its ids, and where, and what it is to believe in.
    supervised: Option<(Place, Option<Ids>)>,
    detached: bool,
    oom_score: Option<i32>,
    command: String,
    path: String,
}

/// Decide all of it. Of `spec` the part about the command is the caller's; the rest is that of the sandbox. // E4
pub fn freeze(
    target: &Target,
    spec: &Spec,
    facts: &Facts,
    io: Option<Io>,
    detached: bool,
    stand_ins: Vec<(&'static str, Ulimit)>,
    cache: Option<&Path>,
) -> Result<Entry> {
    let owns_pids = spec.namespaces.pid == Share::Private;
    if detached && !owns_pids {
        return Err(Error::new(
            Kind::Unsupported,
            "cannot leave a command behind in a sandbox with the host's processes: it would outlive the sandbox",
        )
        .hint("stay with it (without -d), or run the sandbox without --pid host"));
    }
    let asks = spec.process.user.is_some() || (spec.root != Root::Host && matches!(spec.userns, Userns::KeepId { .. }));
    let accounts = if asks { target.accounts()? } else { Accounts::default() };
    let owners = if !target.maps.is_full() && target.is_served()? { owners::filter()? } else { None };
    let who = plan::who(spec, facts, &target.maps, owners.is_some(), &|name| accounts.file(name))?;
    let mut degraded = Vec::new();
    let mut work = plan::workload(spec, facts, &target.maps, who, io.as_ref(), stand_ins, cache, &mut degraded)?;
    let supervised = owners.is_some().then(|| target.place(facts)).transpose()?.map(|place| (place, work.who.pretended.clone()));
    work.owners = owners;
    let (command, path, oom_score) = (work.command.clone(), work.path.clone(), work.oom_score);

    let mut tape = Recorder::default();
    tape.push(Step::Await(Barrier::Mapped));
    target.outer(&mut tape);
    if let Some((uid, gid)) = adopted(&work) {
        tape.push(Step::SetIds { uid, gid, groups: Groups::Keep, open: false });
        tape.push(Step::NotDumpable(Phase::Identity)); // whatever fs.suid_dumpable says
    }
    for (name, kind, namespace) in &target.others {
        tape.push(Step::Join { namespace: namespace.as_raw_fd(), kind: *kind, name, phase: Phase::Identity });
    }
    if io.is_none() {
        tape.push(Step::OpenRoot);
    }
    tape.push(Step::Renew { orphan: false });
    if detached {
        tape.push(Step::Renew { orphan: true });
    }
    process(&mut tape, &work)?;
    for namespace in target.users.iter().skip(1) {
        tape.push(Step::Join { namespace: namespace.as_raw_fd(), kind: NEWUSER, name: "inner user", phase: Phase::Seal });
    }
    let (tape, ruleset) = seal(tape, work, !detached, true)?;
    Ok(Entry { tape, ruleset, io, degraded, supervised, detached, oom_score, command, path })
}

/// A command that runs in a sandbox.
#[derive(Debug)]
pub struct Entered {
    /// Of a detached one, of the process that has left it behind.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub wire: OwnedFd,
    pub terminal: Option<OwnedFd>,
    /// Signals that came meanwhile, for the command.
    pub calls: Vec<i32>,
    /// Who answers for its ids; of a detached one, nobody's to end.
    pub supervisor: Option<Supervisor>,
}

/// Signals that came while the command starts: how to see that there are some, and which is next.
pub struct Calls<'a> {
    pub fd: BorrowedFd<'a>,
    pub next: &'a mut dyn FnMut() -> Result<Option<i32>>,
}

/// Bring it to life. `place` puts a process into the sandbox's cgroup. On any error nothing of it is left.
pub fn enter(entry: &Entry, place: &mut dyn FnMut(i32) -> Result<()>, mut calls: Calls) -> Result<Entered> {
    let told = Told { tape: &entry.tape, command: &entry.command, path: &entry.path };
    let supervisor = entry.supervised.as_ref().map(|_| Supervisor::start()).transpose()?;
    let joiner = Joiner::new(&entry.tape)?;
    place(joiner.child.pid)?;
    if let Some(score) = entry.oom_score {
        let file = format!("/proc/{}/oom_score_adj", joiner.child.pid);
        std::fs::write(&file, score.to_string()).doing("write", file)?;
    }
    joiner.go();
    let mut coming = Coming { child: None, terminal: None, listener: None, calls: Vec::new() };
    match coming.wait(&joiner, &mut calls) {
        Ok(None) => {}
        Ok(Some(fault)) => {
            coming.end(&joiner);
            return Err(explain::fault(&told, fault));
        }
        Err(e) => {
            coming.end(&joiner);
            return Err(e);
        }
    }
    let Some(pidfd) = coming.child.take() else { return Err(Error::new(Kind::Io, "cannot join the sandbox: the joining process was killed")) };
    let wanted = entry.io.is_none();
    if wanted && coming.terminal.is_none() {
        end(&pidfd);
        return Err(Error::new(Kind::Io, "cannot join the sandbox: no terminal came, since the joining process was killed"));
    }
    let mut supervisor = supervisor;
    if let (Some(answering), Some((place, ids))) = (&supervisor, &entry.supervised) {
        let answers = match coming.listener.take() {
            Some(listener) => answering.answer(place, listener, ids.as_ref()),
            None => Err(Error::new(Kind::Io, "cannot join the sandbox: the joining process was killed")),
        };
        answers.inspect_err(|_| end(&pidfd))?;
    }
    if entry.detached {
        supervisor.take().into_iter().for_each(Supervisor::leave);
    }
    let pid = number(&pidfd)?;
    let Joiner { wire, .. } = joiner;
    Ok(Entered { pid, pidfd, wire, terminal: coming.terminal, calls: coming.calls, supervisor })
}

/// A child of ours that plays a tape which begins in our own namespaces.
struct Joiner {
    child: Reaped,
    wire: OwnedFd,
    faults: OwnedFd,
}

/// Dropping it ends it.
struct Reaped(Child);

impl std::ops::Deref for Reaped {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        end(&self.0.pidfd);
    }
}

impl Joiner {
    fn new(tape: &Tape) -> Result<Joiner> {
        if clone::threads().is_some_and(|n| n != 1) {
            return Err(Error::new(Kind::Bug, "cannot clone: there is more than one thread"));
        }
        let (wire, child_wire) = socket::pair().doing("make", "a socket pair")?;
        let (faults, child_faults) = socket::pipe().doing("make", "a pipe")?;
        let parents = [wire.as_raw_fd(), faults.as_raw_fd()];
        let life = || {
            let channels = play::Channels { fault: child_faults.as_fd(), wire: child_wire.as_fd(), parents };
            play::play(tape, 0, channels)
        };
        let child = clone::born(&life).doing("clone", "a process that joins")?;
        Ok(Joiner { child: Reaped(child), wire, faults })
    }

    fn go(&self) {
        // It may be dead already: then the fault pipe tells.
        let _ = rustix::net::send(&self.wire, &[Barrier::Mapped.byte()], rustix::net::SendFlags::NOSIGNAL);
    }
}

/// What comes from the joiner and its child.
struct Coming {
    child: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    calls: Vec<i32>,
}

impl Coming {
    /// Until both channels are at their end: the command runs, or has failed. // E5
    fn wait(&mut self, joiner: &Joiner, calls: &mut Calls) -> Result<Option<Fault>> {
        let (mut wire_open, mut faults_open, mut fault) = (true, true, None);
        let mut deadline = Instant::now() + PATIENCE;
        while wire_open || faults_open {
            let (mut called, mut told, mut failed) = (false, false, false);
            {
                let channels =
                    [(calls.fd, true, &mut called), (joiner.wire.as_fd(), wire_open, &mut told), (joiner.faults.as_fd(), faults_open, &mut failed)];
                let (mut set, mut marks) = (Vec::with_capacity(3), Vec::with_capacity(3));
                for (fd, _, mark) in channels.into_iter().filter(|(_, open, _)| *open) {
                    set.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                    marks.push(mark);
                }
                let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
                match poll(&mut set, left.as_ref()) {
                    Ok(0) => {
                        return Err(
                            Error::new(Kind::Io, "cannot start the command: something inside holds it up").hint("end the sandbox, or try again")
                        );
                    }
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e).doing("wait for", "the command"),
                }
                set.iter().zip(marks).for_each(|(fd, mark)| *mark = !fd.revents().is_empty());
            }
            while let Some(number) = if called { (calls.next)()? } else { None } {
                self.calls.push(number);
                if matches!(number, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM) {
                    deadline = deadline.min(Instant::now() + IMPATIENCE);
                }
            }
            if failed {
                faults_open = false;
                let mut bytes = [0; 8];
                match clone::interrupted(|| rustix::io::read(&joiner.faults, &mut bytes)).doing("hear from", "the command")? {
                    0 => {}
                    8 => fault = Some(Fault::from_bytes(bytes)),
                    _ => return Err(Error::new(Kind::Bug, "half a fault")),
                }
            }
            if told {
                wire_open = self.hear(joiner)?;
            }
        }
        Ok(fault)
    }

    /// One word; false: there is none any more.
    fn hear(&mut self, joiner: &Joiner) -> Result<bool> {
        match socket::recv_fd(joiner.wire.as_fd()) {
            Ok((wire::CHILD, Some(fd))) => self.child = Some(fd),
            Ok((wire::TERMINAL, Some(fd))) => self.terminal = Some(fd),
            Ok((wire::LISTENER, Some(fd))) => self.listener = Some(fd),
            Ok(_) => return Err(Error::new(Kind::Bug, "an unexpected word from the joining process")),
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(e) => return Err(e).doing("hear from", "the joining process"),
        }
        Ok(true)
    }

    /// Nothing is left. The joiner tells of its child as soon as that is born.
    fn end(&mut self, joiner: &Joiner) {
        let moment = Timespec { tv_sec: 1, tv_nsec: 0 };
        while self.child.is_none()
            && poll(&mut [PollFd::new(&joiner.wire, PollFlags::IN)], Some(&moment)).is_ok_and(|n| n > 0)
            && self.hear(joiner).unwrap_or(false)
        {}
        end(&joiner.child.pidfd);
        self.child.take().iter().for_each(end);
    }
}

/// Kill a child of ours, and wait until it is gone.
fn end(pidfd: &OwnedFd) {
    let _ = signal::pidfd_send(pidfd.as_fd(), libc::SIGKILL);
    let _ = clone::interrupted(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
}

/// Which process a pidfd is of: of a child of ours that is not waited for yet, the number is its own. man: pidfd_open(2)
fn number(pidfd: &OwnedFd) -> Result<i32> {
    let file = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&file).doing("read", &file)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    pid.filter(|n| *n > 0).ok_or_else(|| Error::new(Kind::Io, "cannot join the sandbox: the joining process was killed"))
}

/// A tree that is held for us, by a process that ends when this is dropped.
pub struct Held {
    /// Its top.
    pub handle: OwnedFd,
    #[expect(dead_code, reason = "holds the tree")]
    joiner: Joiner,
}

/// Have a tape played that hands over a tree and stays.
fn hold(tape: &Tape) -> Result<Held> {
    let joiner = Joiner::new(tape)?;
    joiner.go();
    let mut bytes = [0; 8];
    if let Ok(8) = clone::interrupted(|| rustix::io::read(&joiner.faults, &mut bytes)) {
        return Err(explain::fault(&Told { tape, command: "", path: "" }, Fault::from_bytes(bytes)));
    }
    match socket::recv_fd(joiner.wire.as_fd()) {
        Ok((wire::LAYER, Some(handle))) => Ok(Held { handle, joiner }),
        _ => Err(Error::new(Kind::Io, "cannot join the sandbox: the joining process was killed")),
    }
}
