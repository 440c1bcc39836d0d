//! Helpers: this same program, started again as `@word` in the caller's user namespace, confined, for one piece of work.
//!
//! *What*: `start` has a helper born and hands it a request; its bulk input and output are pipes, its directories handles; `Role::finish` gives
//! its answer. `act` is the other side: what `main` calls for a word that begins with `@`.
//!
//! *Why this way*: files of layers belong to subordinate ids, so only a process in the user namespace can make, read or delete them; and
//! what reads hostile bytes should hold nothing that is worth taking. (Rejected: the work in a cloned child, which may not allocate;
//! a thread, which shares our memory; a daemon.)
//!
//! *Invariants*
//! - I1 a helper sees no network, no process (one that lives in a sandbox's user namespace has no system calls for either), and of the file systems only the directories whose handles it was given: Landlock says so,
//!   where the kernel has it; without, `missing` tells. It cannot execute anything but itself, and gains nothing by that.
//! - I2 its descriptors are 0 (request, then bulk input), 1 (bulk output), 2 (the answer, or a panic's words), 3.. (the directories).
//! - I3 what it answers is hostile: bounded, and every path in it is resolved again by whoever uses it.
//! - I4 it dies with the thread that started it; dropping the `Role` ends it. Two are not born at once: until it executes, each would have a
//!   copy of what tells the other, by its end, that we are dead.
#![forbid(unsafe_code)]

use crate::birth::{self, Care};
use crate::confine::{landlock, seccomp};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::{Caller, subid};
use crate::spec::{Landlock, LandlockFiles, Userns};
use crate::sys::clone::{self, NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS};
use crate::sys::process::Pointers;
use crate::sys::{confine, inherit, socket};
use crate::tape::{Barrier, Groups, Phase, Recorder, Step, Tape};
use crate::userns::{self, Maps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// What a helper may hold in memory; a zstd window of 128 MiB is the largest thing that one needs.
const MEMORY: u64 = 512 << 20;
const DESCRIPTORS: u64 = 1024;
/// The longest request and the longest answer.
const WORDS: u64 = 64 << 20;
/// The most directories that one helper is given.
pub const MOST_DIRECTORIES: usize = 480;

/// What helpers do but making threads, which `seccomp::only` adds. `execve` is for the birth; Landlock lets it execute this program only.
const CALLS: &[&str] = &[
    "read",
    "write",
    "writev",
    "pwrite64",
    "pread64",
    "close",
    "lseek",
    "fstat",
    "newfstatat",
    "statx",
    "fstatfs",
    "poll",
    "ppoll",
    "fcntl",
    "openat",
    "openat2",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "readlinkat",
    "getdents64",
    "fchmod",
    "fchown",
    "fchownat",
    "utimensat",
    "ftruncate",
    "sync_file_range",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "umask",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "futex",
    "sched_yield",
    "sched_getaffinity",
    "set_robust_list",
    "rseq",
    "set_tid_address",
    "arch_prctl",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "getpid",
    "gettid",
    "tgkill",
    "exit",
    "exit_group",
    "execve",
    "getrandom",
    "prlimit64",
    "clock_gettime",
    "clock_nanosleep",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "restart_syscall",
];

/// man: capabilities(7): chown, dac_override, dac_read_search, fowner, fsetid, setfcap.
const CAPABILITIES: u64 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 31;

/// What one kind of helper needs beyond the others.
#[derive(Clone, Copy)]
pub struct Needs<'a> {
    /// Further system calls.
    pub calls: &'a [&'a str],
    /// Bytes of address space, and descriptors.
    pub memory: u64,
    pub descriptors: u64,
    /// It has the ids and groups of the caller, where they are mapped: what the caller may read on the host it may, too.
    pub as_caller: bool,
    /// Descriptors that it gets after its directories.
    pub more: &'a [OwnedFd],
    /// The user namespace that it lives in, where it must be that of a sandbox. It then has no other namespaces of its own: these have a limit.
    pub within: Option<BorrowedFd<'a>>,
}

pub const USUAL: Needs = Needs { calls: &[], memory: MEMORY, descriptors: DESCRIPTORS, as_caller: false, more: &[], within: None };

/// A directory that a helper gets, by handle.
#[derive(Debug)]
pub struct Directory {
    pub handle: OwnedFd,
    pub writable: bool,
}

impl Directory {
    /// The directory itself, not what a link in its place leads to.
    pub fn open(path: &std::path::Path, writable: bool) -> Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty()).doing("open", path.display())?;
        Ok(Directory { handle, writable })
    }
}

/// A helper at work.
pub struct Role {
    /// Where its bulk input goes; taken: it has all.
    pub input: Option<File>,
    /// Where its bulk output comes from.
    output: Option<File>,
    /// All of that was read.
    over: bool,
    /// What of the confinement this kernel cannot do.
    pub missing: Vec<String>,
    answer: File,
    born: Option<birth::Born>,
    word: &'static str,
}

/// The maps for work on stored trees: the caller is 0, the subordinate ids follow; one id where there are none.
pub fn maps() -> Result<Maps> {
    let caller = Caller::me()?;
    let subids = subid::subids(&caller)?;
    if subids.uids.is_empty() || subids.gids.is_empty() {
        return Ok(userns::single(0, 0, &caller));
    }
    userns::plan(&Userns::Root, &caller, &subids, crate::host::helper)
}

/// Start the helper `word` with `request` and these directories.
pub fn start(word: &'static str, maps: &Maps, request: &impl Serialize, directories: &[Directory]) -> Result<Role> {
    start_with(word, maps, request, directories, &USUAL)
}

/// The same with what it needs beyond the usual.
pub fn start_with(word: &'static str, maps: &Maps, request: &impl Serialize, directories: &[Directory], needs: &Needs) -> Result<Role> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner); // I4
    let failed = |e: Error| e.context(format!("starting the helper {word}"));
    let namespaces = NEWNET | NEWUTS | NEWIPC | NEWCGROUP;
    let early = || Step::Unshare { namespaces, names: "net uts ipc cgroup".into() };
    let begun = match needs.within {
        Some(_) => None,
        None => Some(birth::begin(maps).map_err(failed)?.start(vec![early()])),
    };
    let request = postcard::to_allocvec(request).map_err(|e| Error::new(Kind::Bug, format!("cannot write a request: {e}")))?;
    // The child's own descriptors are 0 to this, so what it takes them from has higher numbers. // I2
    let floor = 3 + (directories.len() + needs.more.len()) as i32;
    let (from_us, input) = pipe()?;
    let (output, to_us) = pipe()?;
    let (answer, answering) = pipe()?;
    let mut ours = vec![birth::above(floor, from_us)?, birth::above(floor, to_us)?, birth::above(floor, answering)?];
    let mut given: Vec<RawFd> = ours.iter().map(AsRawFd::as_raw_fd).collect();
    let (ruleset, missing) = restrict(directories)?;
    let ruleset = ruleset.map(|fd| birth::above(floor, fd)).transpose()?;
    for fd in directories.iter().map(|d| &d.handle).chain(needs.more) {
        let mut number = fd.as_raw_fd();
        if number < floor {
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, floor).doing("copy", "a descriptor")?;
            number = copy.as_raw_fd();
            ours.push(copy);
        }
        given.push(number);
    }
    let tape = tape(word, maps, early(), &given, ruleset.as_ref(), needs)?;
    let explain = |fault: crate::tape::wire::Fault| {
        let why = crate::error::why(&std::io::Error::from_raw_os_error(fault.errno));
        let denied = matches!(fault.errno, libc::EPERM | libc::EACCES);
        match (denied.then(crate::host::remedy::explain_denied_inside).flatten(), tape.steps().get(fault.step as usize)) {
            (Some(e), _) => e,
            (None, Some(step)) => Error::new(Kind::Denied, format!("cannot {step}: {why}")).hint("what this machine lacks: sandbox doctor"),
            (None, None) => Error::new(Kind::Bug, format!("cannot play step {}: {why}", fault.step)),
        }
    };
    let care = Care { place: &mut |_| Ok(()), hear: &mut |_| Ok(()), explain: &explain };
    let born = match begun {
        Some(begun) => begun.bear(&tape, 1, NEWNS | NEWPID, floor, care),
        None => birth::join(&tape, floor, &explain),
    };
    let born = born.map_err(failed)?;
    let mut role = Role {
        input: Some(File::from(input)),
        output: Some(File::from(output)),
        over: false,
        missing,
        answer: File::from(answer),
        born: Some(born),
        word,
    };
    let length = (request.len() as u64).to_le_bytes();
    // If it is dead already, `finish` tells why.
    let _ = role.write(&length).and_then(|()| role.write(&request));
    Ok(role)
}

/// A pipe with room.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = socket::pipe().doing("make", "a pipe")?;
    let _ = rustix::pipe::fcntl_setpipe_size(&write, 1 << 20); // as much as the host lets us
    Ok((read, write))
}

/// I1
fn restrict(directories: &[Directory]) -> Result<(Option<OwnedFd>, Vec<String>)> {
    // Before version 2 it forbids all links across directories.
    let abi = Some(confine::landlock_abi()).filter(|v| *v >= 2).unwrap_or(0);
    let scopes = if abi >= 6 { vec!["signal".to_string(), "abstract-unix-socket".to_string()] } else { Vec::new() };
    let tcp = (abi >= 4).then(Vec::new); // without it, there is still no network, and the filter knows no sockets
    let piece = landlock::plan(&Landlock { scopes, files: LandlockFiles::Declared, tcp_connect: tcp.clone(), tcp_bind: tcp }, abi)?;
    let Some(ruleset) = &piece.ruleset else { return Ok((None, piece.missing)) };
    let program = rustix::fs::open(c"/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing("open", "this program")?;
    let allow = |fd: BorrowedFd, access: u64| confine::landlock_add_path(ruleset.as_fd(), fd, access).doing("allow", "a directory");
    allow(program.as_fd(), piece.read & landlock::ON_FILE)?;
    for d in directories {
        let read = piece.read & !landlock::EXECUTE;
        allow(d.handle.as_fd(), if d.writable { read | piece.write } else { read })?;
    }
    Ok((piece.ruleset, Vec::new()))
}

fn tape(word: &str, maps: &Maps, early: Step, given: &[RawFd], ruleset: Option<&OwnedFd>, needs: &Needs) -> Result<Tape> {
    let text = |s: &str| std::ffi::CString::new(s).map_err(|_| Error::new(Kind::Bug, "a NUL in a helper's name"));
    let mut r = Recorder::default();
    match needs.within {
        None => {
            r.push(early);
            r.push(Step::DieWithParent(Phase::Identity));
            r.push(Step::Await(Barrier::Mapped));
        }
        Some(user) => {
            r.push(Step::DieWithParent(Phase::Identity));
            r.push(Step::Join { namespace: user.as_raw_fd(), kind: NEWUSER, name: "user", phase: Phase::Identity });
        }
    }
    // With one id setgroups(2) had to be given up. man: user_namespaces(7)
    let first = |extents: &[crate::tape::step::Extent]| extents.first().map_or(0, |e| e.inside);
    let own = if needs.as_caller { (maps.uid_inside(geteuid().as_raw()), maps.gid_inside(getegid().as_raw())) } else { (None, None) };
    let uid = own.0.unwrap_or(if maps.has_uid(0) { 0 } else { first(&maps.uids) });
    let gid = own.1.unwrap_or(if maps.has_gid(0) { 0 } else { first(&maps.gids) });
    let groups = if maps.is_full() && !needs.as_caller { Groups::Set(Box::new([])) } else { Groups::Keep };
    r.push(Step::SetIds { uid, gid, groups, open: true });
    r.push(Step::DieWithParent(Phase::Root));
    if needs.within.is_none() {
        r.push(Step::PrivatePropagation);
    }
    for (to, from) in given.iter().enumerate() {
        r.push(Step::Stdio { from: *from, to: to as i32 });
    }
    for (name, resource, most) in
        [("memory", libc::RLIMIT_AS, needs.memory), ("descriptors", libc::RLIMIT_NOFILE, needs.descriptors), ("core", libc::RLIMIT_CORE, 0)]
    {
        r.push(Step::Rlimit { name, resource, soft: most, hard: most });
    }
    r.push(Step::Umask(0));
    r.push(Step::DropBounding { keep: CAPABILITIES });
    r.push(Step::SetCapabilities(CAPABILITIES));
    if uid != 0 {
        r.push(Step::AmbientCapabilities(CAPABILITIES)); // which nobody but root keeps over the exec otherwise
    }
    r.push(Step::NoNewPrivileges);
    if let Some(ruleset) = ruleset {
        r.push(Step::LandlockEnforce { ruleset: ruleset.as_raw_fd() });
    }
    r.push(Step::CloseOnExecFrom(given.len() as u32));
    r.push(Step::DefaultSignals { mask: crate::sys::signal::Set::default() });
    r.push(Step::Seccomp(seccomp::only(&[CALLS, needs.calls].concat())?.into_filter()));
    r.push(Step::Exec {
        paths: Box::new([text("/proc/self/exe")?]),
        argv: Pointers::new(vec![text("sandbox")?, text(word)?]),
        envp: Pointers::new(vec![]),
    });
    r.finish()
}

impl Role {
    /// Who it is, for poll(2) and cgroups.
    pub fn process(&self) -> Option<(i32, BorrowedFd<'_>)> {
        self.born.as_ref().map(|born| (born.pid, born.pidfd.as_fd()))
    }

    /// If it has ended, why it could not go on.
    pub fn ended(self) -> Option<Error> {
        let over = self.born.as_ref().is_some_and(|born| {
            let mut set = [PollFd::new(&born.pidfd, PollFlags::IN)];
            poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
        });
        if over { self.finish::<()>().err() } else { None }
    }

    /// More input. An error: it takes no more, and `finish` tells why.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.input {
            Some(input) => input.write_all(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Have its output read, and hear its answer. Who stops before the end has his own reason; else the helper knows why there was no more.
    pub fn read_by<T, A: DeserializeOwned>(mut self, work: impl FnOnce(&mut Role) -> Result<T>) -> Result<(T, A)> {
        match work(&mut self) {
            Ok(done) => {
                // Behind what was of use there may be padding.
                std::io::copy(&mut self, &mut std::io::sink()).doing("hear from", format!("the helper {}", self.word))?;
                self.finish().map(|answer| (done, answer))
            }
            Err(e) if self.over => Err(self.finish::<A>().err().unwrap_or(e)),
            Err(e) => Err(e),
        }
    }

    /// There is no more input, and nobody reads more output: its answer.
    pub fn finish<A: DeserializeOwned>(mut self) -> Result<A> {
        (self.input, self.output) = (None, None);
        let mut bytes = Vec::new();
        (&self.answer).take(WORDS).read_to_end(&mut bytes).doing("hear from", format!("the helper {}", self.word))?;
        let status = match self.born.take() {
            Some(born) => {
                let wait = || rustix::process::waitid(rustix::process::WaitId::PidFd(born.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
                clone::interrupted(wait).doing("wait for", format!("the helper {}", self.word))?
            }
            None => None,
        };
        match bytes.split_first() {
            Some((&ANSWER, rest)) => {
                let answer: Answer<A> =
                    postcard::from_bytes(rest).map_err(|e| Error::new(Kind::Bug, format!("the helper {} answered nonsense: {e}", self.word)))?;
                answer.result()
            }
            _ => {
                let words = String::from_utf8_lossy(&bytes);
                let how = match status.as_ref().and_then(|s| s.terminating_signal()) {
                    Some(signal) => format!("signal {signal}"),
                    None => format!("status {}", status.as_ref().and_then(|s| s.exit_status()).unwrap_or(-1)),
                };
                Err(Error::new(Kind::Io, format!("the helper {} ended with {how}: {}", self.word, words.lines().next().unwrap_or("it said nothing")))
                    .hint("it may use 512 MiB of memory; input that needs more is refused"))
            }
        }
    }
}

/// The output.
impl Read for Role {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.output.as_mut().map_or(Ok(0), |output| output.read(into))?;
        self.over |= n == 0 && !into.is_empty();
        Ok(n)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Some(born) = self.born.take() {
            born.kill(); // I4
        }
    }
}

// ------------------------------------------------------------------------------------------------------- the other side

/// The first byte of an answer; a panic's words begin otherwise.
const ANSWER: u8 = 0;

/// What becomes of a request, in words that another process of ours understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer<A> {
    Done(A),
    Failed { kind: Kind, message: String, hint: String },
}

impl<A> Answer<A> {
    pub fn of(result: Result<A>) -> Answer<A> {
        match result {
            Ok(a) => Answer::Done(a),
            Err(e) => Answer::Failed { kind: e.kind(), message: e.message().to_string(), hint: e.cure().unwrap_or_default().to_string() },
        }
    }

    pub fn result(self) -> Result<A> {
        match self {
            Answer::Done(a) => Ok(a),
            Answer::Failed { kind, message, hint } => {
                let e = Error::new(kind, message);
                Err(if hint.is_empty() { e } else { e.hint(hint) })
            }
        }
    }
}

/// What a helper was given. // I2
pub struct Stage {
    pub input: File,
    pub output: File,
    pub directories: Vec<OwnedFd>,
}

/// Be a helper: read the request, work, answer.
pub fn act<Q: DeserializeOwned, A: Serialize>(work: impl FnOnce(Q, Stage) -> Result<A>) -> ExitCode {
    let [Some(input), Some(output), Some(answer)] = [0, 1, 2].map(inherit::started_with) else { return ExitCode::from(125) };
    let directories = (3..).map_while(inherit::started_with).collect();
    let stage = Stage { input: File::from(input), output: File::from(output), directories };
    let done = Answer::of(request(&stage.input).and_then(|q| work(q, stage)));
    let mut answer = File::from(answer);
    let told = postcard::to_extend(&done, vec![ANSWER]).is_ok_and(|bytes| answer.write_all(&bytes).is_ok());
    ExitCode::from(if told && matches!(done, Answer::Done(_)) { 0 } else { 125 })
}

fn request<Q: DeserializeOwned>(mut input: &File) -> Result<Q> {
    let mut length = [0; 8];
    input.read_exact(&mut length).doing("read", "the request")?;
    let length = u64::from_le_bytes(length);
    if length > WORDS {
        return Err(Error::usage("this word is for sandbox itself"));
    }
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes).doing("read", "the request")?;
    postcard::from_bytes(&bytes).map_err(|_| Error::usage("this word is for sandbox itself"))
}
