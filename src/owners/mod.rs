//! Ids for a workload that has one: where no subordinate ids are mapped, somebody answers for the kernel what it cannot say.
//!
//! *What*: in a user namespace with one id chown(2) to any other is refused before a file system hears of it, every file of somebody else
//! is nobody's, and nobody becomes anybody. So where the tree is served by our own overlay, which keeps owners by attribute, the workload gets
//! a second seccomp filter that leaves the calls of `CALLS` to a *supervisor*: the role `@owners`, one process for each filter. `ids` has the
//! rules of credentials(7), `answer` the answers. Started by `launch`.
//!
//! *Pretended* are the owners of files of served trees, to stat(2) and its family and in chown(2), with its rules on who may, and who something
//! belongs to that a pretended user makes; devices made by
//! mknod(2), which nobody can open; and a process's own ids and groups, set and asked for, handed on to children and over exec(2): with `run` and
//! `exec -u` from the start. *Not
//! pretended* is what follows from ids: the kernel checks permissions with the one true id, so a pretended user may do what root may; his
//! sockets are root's; /proc, access(2), signals and sockets show that id. Other file systems (/tmp, volumes) keep no owners: there
//! chown(2) to others is EINVAL, as without us.
//!
//! *Why this way*: only the kernel can stop a call and show who makes it; a library in the workload (fakeroot) is not in static programs, and
//! ptrace(2) stops at each call. Owners are in the tree, not in our memory, so that they are there for whoever reads the layer. (Rejected: to
//! have the server show the kernel the pretended owner: what belongs to an unmapped id is EACCES to write to and EOVERFLOW to remove.)
//!
//! *Invariants*
//! - I1 what is read of a task (its root, directories, descriptors, memory) counts only if it waits for its answer still, and from there on only
//!   handles are used. Paths are resolved once, from the task's own root and without magic links, and what is done is done to the handle.
//! - I2 nothing here allows anything. What is changed are attributes that our own server keeps, of file systems that answer to `OWNER`. "Let the
//!   kernel do it" (SECCOMP_USER_NOTIF_FLAG_CONTINUE) is the answer for everything else: who swaps his path or his memory after that gets from the
//!   kernel what he may have, as without us. man: seccomp_unotify(2)
//! - I3 the supervisor is out of the workload's sight and reach: it is in the sandbox's outer user namespace and sees its tree, but it is in no pid
//!   namespace of it, is not dumpable, and of the host it has a procfs in which the kernel lets it look at the sandbox only.
//! - I4 it answers one call after the other, for one sandbox; what it remembers is bounded. It ends when nobody is left who has the filter, and if it
//!   dies before, the calls are ENOSYS.
//!
//! *Kernel*
//!
//! | call | since | why | without it |
//! |---|---|---|---|
//! | SECCOMP_RET_USER_NOTIF, to continue | 5.5 | all of it | chown(2) is refused inside, and a note says so |
//! | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | 5.19 | no signal makes a call happen twice | mknod(2) may be EEXIST |
//! | SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP | 6.6 | both sides on one processor | slower |
#![forbid(unsafe_code)]

mod answer;
mod ids;

pub use answer::FUSE;
pub use ids::Ids;

use crate::confine::seccomp::{self, Program};
use crate::error::{Doing, Error, Kind, Result};
use crate::sys::clone::{self, NEWNS, NEWUSER};
use crate::sys::{Errno, confine, inherit, process, socket};
use answer::{CALLS, Call, Desk, Reply, Task};
use ids::Sets;
use libseccomp::error::SeccompErrno;
use libseccomp::{ScmpArch, ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, ScmpSyscall, notify_id_valid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};

/// The filter of a workload for which is answered, and its flags; None: this kernel leaves no calls to others.
pub fn filter() -> Result<Option<(Program, u32)>> {
    let Some(flags) = confine::listening() else { return Ok(None) };
    const LOCKS: &[u32] = &[libc::RLIMIT_LOCKS];
    const CREATE: u32 = libc::O_CREAT as u32;
    const KEEP: &[u32] = &[libc::PR_SET_KEEPCAPS as u32];
    let calls = CALLS.iter().map(|(name, call)| match call {
        Call::Open => (*name, Some((1, CREATE, &[CREATE][..]))),
        Call::Openat => (*name, Some((2, CREATE, &[CREATE][..]))),
        Call::KeepCapabilities => (*name, Some((0, u32::MAX, KEEP))),
        Call::Limit(Some(3)) => (*name, Some((1, u32::MAX, LOCKS))),
        Call::Limit(_) => (*name, Some((0, u32::MAX, LOCKS))),
        _ => (*name, None),
    });
    Ok(Some((seccomp::notify(calls)?, flags)))
}

/// Who answers, as who started it sees it. Dropping it ends it: by itself, if nobody is left who asks.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    socket: OwnedFd,
}

/// For its last answers.
const LAST: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// The namespaces of a sandbox, and the host's procfs. // step.rs `Introduce`
pub struct Place {
    pub user: OwnedFd,
    pub mounts: OwnedFd,
    pub proc: OwnedFd,
}

/// The byte that comes with the place, and the one with the listener.
const PLACE: u8 = b'P';
const LISTENER: u8 = b'L';
/// The supervisor's answer, if all is well; else it is a sentence.
const READY: &[u8] = b"\0";

impl Supervisor {
    /// Have it started: what it is for may come later.
    pub fn start() -> Result<Supervisor> {
        let (socket, theirs) = socket::pair().doing("make", "a socket pair")?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("@owners").env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().doing("start", "the supervisor of ids")?;
        Ok(Supervisor { child, socket })
    }

    /// Have it answer for the workload of that filter, which believes in those ids from the start, if not in its own.
    pub fn answer(&self, place: &Place, listener: OwnedFd, ids: Option<&Ids>) -> Result<()> {
        let Place { user, mounts, proc } = place;
        let none = rustix::net::SendFlags::empty();
        let ids = postcard::to_extend(&ids, vec![LISTENER]).map_err(|e| Error::new(Kind::Bug, format!("cannot write ids: {e}")))?;
        socket::send(self.socket.as_fd(), &[PLACE], &[user.as_fd(), mounts.as_fd(), proc.as_fd()], none).doing("tell", "the supervisor of ids")?;
        socket::send(self.socket.as_fd(), &ids, &[listener.as_fd()], none).doing("tell", "the supervisor of ids")?;
        // As long as we had it, the kernel would believe that somebody answers.
        drop(listener);
        let mut words = [0u8; 1024];
        let (n, _) = socket::receive(self.socket.as_fd(), &mut words, RecvFlags::empty()).doing("hear from", "the supervisor of ids")?;
        match words.get(..n).unwrap_or_default() {
            READY => Ok(()),
            words => {
                let why = String::from_utf8_lossy(words);
                let why = if why.is_empty() { "it has ended" } else { &*why };
                Err(Error::new(Kind::Denied, format!("cannot pretend other ids: {why}")).hint("what this machine lacks: sandbox doctor"))
            }
        }
    }

    /// Nobody waits for it: it ends with the workload.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // If it was never told whom to answer for, that ends it.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let pidfd = Pid::from_raw(self.child.id() as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(pidfd)) = pidfd {
            let _ = clone::interrupted(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LAST)));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ------------------------------------------------------------------------------------------------------- the other side

/// man: capabilities(7): dac_override, dac_read_search, fowner, sys_chroot, sys_ptrace; all of them in the sandbox only.
const CAPABILITIES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 18 | 1 << 19;

const MEMORY: u64 = 256 << 20;
const DESCRIPTORS: u64 = 64;

/// What it does once it serves.
const OWN_CALLS: &[&str] = &[
    // For the sizes of its records; it could only take away more.
    "seccomp",
    "ioctl",
    "poll",
    "ppoll",
    "openat",
    "openat2",
    "close",
    "fcntl",
    "read",
    "write",
    "sendto",
    "sendmsg",
    "newfstatat",
    "fstat",
    "statx",
    "fstatfs",
    "getxattr",
    "setxattr",
    "renameat2",
    "unlinkat",
    "chroot",
    "fchdir",
    "process_vm_readv",
    "process_vm_writev",
    "prlimit64",
    "capget",
    "getpid",
    "gettid",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "getrandom",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "clock_gettime",
    "restart_syscall",
    "exit",
    "exit_group",
];

/// Be the supervisor.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    (word == "@owners").then(|| {
        let Some(socket) = inherit::started_with(0) else { return ExitCode::from(125) };
        match prepare(&socket) {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some((desk, listener))) => {
                let told = socket::send(socket.as_fd(), READY, &[], rustix::net::SendFlags::empty());
                ExitCode::from(if told.is_ok() && serve(desk, &listener).is_ok() { 0 } else { 125 })
            }
            Err(e) => {
                let _ = socket::send(socket.as_fd(), e.message().as_bytes(), &[], rustix::net::SendFlags::empty());
                ExitCode::from(125)
            }
        }
    })
}

/// Go to the place, and give up all that is not needed. None: nobody wants us any more. // I3
fn prepare(socket: &OwnedFd) -> Result<Option<(Desk, OwnedFd)>> {
    // What a terminal interrupts are not we.
    let _ = rustix::process::setsid();
    process::set_dumpable(false).doing("become", "undumpable")?;
    let (mut place, mut words) = ([0; 1], [0; 4096]);
    let (Some((&PLACE, _)), [Some(user), Some(mounts), Some(proc)]) = hear(socket, &mut place)? else { return Ok(None) };
    let (Some((&LISTENER, ids)), [Some(listener), ..]) = hear(socket, &mut words)? else { return Ok(None) };
    let pretended: Option<Ids> = postcard::from_bytes(ids).map_err(|e| Error::new(Kind::Bug, format!("cannot read ids: {e}")))?;
    for (namespace, kind, name) in [(&user, NEWUSER, "user"), (&mounts, NEWNS, "mount")] {
        clone::join(namespace.as_fd(), kind).doing("join", format_args!("the sandbox's {name} namespace"))?;
    }
    rustix::process::fchdir(&proc).doing("enter", "/proc")?;
    let none = || std::io::Error::from(std::io::ErrorKind::Unsupported);
    if !libseccomp::check_api(5, libseccomp::ScmpVersion::from((2, 5, 0))).unwrap_or(false) {
        return Err(none()).doing("listen to", "seccomp notifications");
    }
    confine::answer_nearby(listener.as_fd());
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let sets = pretended.map_or_else(|| Sets::new(Ids::born(own.0, own.1)), Sets::pretended);
    let confined = || {
        for (resource, most) in [(libc::RLIMIT_AS, MEMORY), (libc::RLIMIT_NOFILE, DESCRIPTORS), (libc::RLIMIT_CORE, 0)] {
            process::set_rlimit(resource, most, most)?;
        }
        process::drop_bounding(CAPABILITIES)?;
        process::set_capabilities(CAPABILITIES)?;
        process::set_dumpable(false)?;
        confine::set_no_new_privs()
    };
    confined().doing("confine", "the supervisor of ids")?;
    let program = seccomp::only(OWN_CALLS)?;
    confine::seccomp_load(program.filter()).doing("confine", "the supervisor of ids")?;
    Ok(Some((Desk::new(proc, sets, own), listener)))
}

/// The first byte and the rest; none: nobody is there.
type Heard<'a> = (Option<(&'a u8, &'a [u8])>, [Option<OwnedFd>; socket::MOST_FDS]);

fn hear<'a>(socket: &OwnedFd, words: &'a mut [u8]) -> Result<Heard<'a>> {
    let (n, fds) = socket::receive(socket.as_fd(), words, RecvFlags::empty()).doing("hear from", "who started this")?;
    Ok((words.get(..n).unwrap_or_default().split_first(), fds))
}

/// A call of which we are not told the end has ended, as a rule.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Answer until nobody is left who could ask. // I4
fn serve(mut desk: Desk, listener: &OwnedFd) -> std::result::Result<(), Errno> {
    let calls: HashMap<i32, Call> = CALLS.iter().filter_map(|(name, call)| Some((ScmpSyscall::from_name(name).ok()?.into(), *call))).collect();
    loop {
        let mut set = [PollFd::new(listener, PollFlags::IN)];
        let soon = desk.waits().then_some(&SOON);
        let told = clone::interrupted(|| poll(&mut set, soon))? > 0;
        if set[0].revents().contains(PollFlags::IN) {
            take(&mut desk, listener.as_fd(), &calls)?;
            continue;
        }
        desk.settle(None);
        if told {
            return Ok(());
        }
    }
}

fn take(desk: &mut Desk, listener: BorrowedFd, calls: &HashMap<i32, Call>) -> std::result::Result<(), Errno> {
    let fd = listener.as_raw_fd();
    let request = match ScmpNotifReq::receive(fd) {
        Ok(request) => request,
        // It has gone before it was heard.
        Err(e) if e.errno() == Some(SeccompErrno::ENOENT) => return Ok(()),
        Err(_) => return Err(Errno::IO),
    };
    let id = request.id;
    let call = (request.data.arch == ScmpArch::native()).then(|| calls.get(&i32::from(request.data.syscall)).copied()).flatten();
    let reply = match (call, i32::try_from(request.pid)) {
        (Some(call), Ok(pid)) => desk.answer(call, &Task { pid, args: request.data.args, waits: &|| notify_id_valid(fd, id).is_ok() }),
        _ => Reply::Kernel,
    };
    let none = ScmpNotifRespFlags::empty();
    let response = match reply {
        Reply::Kernel => ScmpNotifResp::new_continue(id, none),
        Reply::Value(value) => ScmpNotifResp::new_val(id, value, none),
        Reply::Error(errno) => ScmpNotifResp::new_error(id, -errno.raw_os_error(), none),
    };
    // If that cannot be said, there is nobody who waits for it.
    let _ = response.respond(fd);
    Ok(())
}
