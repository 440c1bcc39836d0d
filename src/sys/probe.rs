//! Trying, in a child that is thrown away, what no file tells: whether this host lets us do what a sandbox needs.
//!
//! Called by `cli::doctor`, and by `rootfs::backend` for file systems that few have. Changes nothing that outlives the child, and never waits longer than it is told.
//! The child plays by the rules of the tape's child: system calls only, no allocation.

use super::{Errno, Result, check, errno};
use libc::{c_char, c_int, c_long, c_ulong, c_void};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// What is tried, in this order; the first failure ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Step {
    /// unshare(CLONE_NEWUSER)
    Userns,
    /// One id: our own onto 0.
    Map,
    /// The other six namespaces.
    Namespaces,
    /// Private propagation, and a tmpfs.
    Mount,
    /// From here on a failure ends nothing.
    Overlay,
    /// `user.*` attributes on a tmpfs.
    TmpfsXattr,
    /// A fresh proc in an own pid namespace.
    Proc,
    Sysfs,
}
const STEPS: usize = 8;

/// A system call with arguments that no kernel accepts, so that it says EINVAL and the like where it exists and ENOSYS where not.
struct Call {
    name: &'static str,
    number: c_long,
    args: [c_long; 5],
}

const ALL: c_long = 0x7fff_ffff;
const CALLS: [Call; 10] = [
    Call { name: "seccomp", number: libc::SYS_seccomp, args: [2, 0, 0, 0, 0] },
    Call { name: "clone3", number: libc::SYS_clone3, args: [0, 0, 0, 0, 0] },
    Call { name: "pidfd_open", number: libc::SYS_pidfd_open, args: [-1, 0, 0, 0, 0] },
    Call { name: "open_tree", number: libc::SYS_open_tree, args: [-1, 0, ALL, 0, 0] },
    Call { name: "move_mount", number: libc::SYS_move_mount, args: [-1, 0, -1, 0, ALL] },
    Call { name: "fsopen", number: libc::SYS_fsopen, args: [0, ALL, 0, 0, 0] },
    Call { name: "openat2", number: libc::SYS_openat2, args: [-1, 0, 0, 0, 0] },
    Call { name: "close_range", number: libc::SYS_close_range, args: [1, 0, 0, 0, 0] },
    Call { name: "mount_setattr", number: libc::SYS_mount_setattr, args: [-1, 0, 0, 0, 0] },
    Call { name: "landlock_create_ruleset", number: libc::SYS_landlock_create_ruleset, args: [0, 0, 1, 0, 0] },
];

/// What the child found.
#[derive(Debug, Clone)]
pub struct Answers {
    /// Results in order: the steps, then the calls; 0 is success. What was not tried is not there.
    said: Vec<i32>,
}

impl Answers {
    /// None: not tried.
    pub fn step(&self, step: Step) -> Option<Result<()>> {
        self.said.get(step as usize).map(|errno| result(*errno))
    }

    /// Does the kernel have the call `name`, and does nobody filter it? None: not tried, or no call that we know.
    pub fn has_call(&self, name: &str) -> Option<bool> {
        let at = CALLS.iter().position(|call| call.name == name)?;
        self.said.get(STEPS + at).map(|errno| !matches!(*errno, libc::ENOSYS | libc::EPERM))
    }
}

fn result(errno: i32) -> Result<()> {
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) }
}

/// Try everything. `uid_map` and `gid_map` are what to write there. If the child is not done in `patience`, it is killed and what it has
/// said until then counts.
pub fn namespaces(uid_map: &CStr, gid_map: &CStr, patience: Duration) -> Result<Answers> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child's closure makes system calls only and ends in _exit, so no lock that another thread holds is ever taken.
    let child = unsafe { Child::fork(|| attempt(uid_map, gid_map, theirs.as_raw_fd()))? };
    drop(theirs);
    let mut said = Vec::with_capacity(STEPS + CALLS.len());
    let deadline = Instant::now() + patience;
    let mut pipe = std::fs::File::from(ours);
    let mut word = [0; 4];
    while readable(&pipe, deadline) && pipe.read_exact(&mut word).is_ok() {
        said.push(i32::from_ne_bytes(word));
    }
    drop(child);
    Ok(Answers { said })
}

/// Does the kernel's overlay take this directory as a lower one, in a user namespace?
pub fn overlay(lower: BorrowedFd, patience: Duration) -> Result<()> {
    let map = |id: u32| CString::new(format!("0 {id} 1")).map_err(|_| Errno::INVAL);
    let (uid, gid) = (map(rustix::process::geteuid().as_raw())?, map(rustix::process::getegid().as_raw())?);
    let options = CString::new(format!("lowerdir=/proc/self/fd/{},upperdir=u,workdir=w,userxattr", lower.as_raw_fd())).map_err(|_| Errno::INVAL)?;
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let out = theirs.as_raw_fd();
    // SAFETY: as in `namespaces`: system calls only, then _exit.
    let child = unsafe {
        Child::fork(|| {
            let done: [&dyn Fn() -> c_int; 7] = [
                &|| unshare(libc::CLONE_NEWUSER),
                &|| put(c"/proc/self/setgroups", c"deny"),
                &|| put(c"/proc/self/uid_map", &uid),
                &|| put(c"/proc/self/gid_map", &gid),
                &|| unshare(libc::CLONE_NEWNS),
                &scratch,
                &|| mount(c"overlay", c"m", c"overlay", 0, Some(&options)),
            ];
            let code = done.iter().map(|step| step()).find(|code| *code != 0).unwrap_or(0);
            libc::write(out, (&raw const code).cast(), 4);
        })?
    };
    drop(theirs);
    let mut pipe = std::fs::File::from(ours);
    let mut word = [0; 4];
    let answered = readable(&pipe, Instant::now() + patience) && pipe.read_exact(&mut word).is_ok();
    drop(child);
    if answered { result(i32::from_ne_bytes(word)) } else { Err(Errno::TIMEDOUT) }
}

fn attempt(uid_map: &CStr, gid_map: &CStr, out: RawFd) {
    let others = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    let say = |code: i32| {
        // SAFETY: the four bytes of `code` live on this stack until write returns.
        unsafe { libc::write(out, (&raw const code).cast(), 4) };
        code == 0
    };
    let done = say(unshare(libc::CLONE_NEWUSER))
        && say(put(c"/proc/self/setgroups", c"deny").max(put(c"/proc/self/uid_map", uid_map)).max(put(c"/proc/self/gid_map", gid_map)))
        && say(unshare(others))
        && say(scratch());
    if !done {
        return;
    }
    say(mount(c"overlay", c"m", c"overlay", 0, Some(c"lowerdir=l,upperdir=u,workdir=w,userxattr")));
    say(set_attribute(c"l"));
    let (mut proc, mut sysfs) = (libc::EIO, libc::EIO);
    // SAFETY: no pointers; the child below makes system calls only and ends in _exit.
    let inner = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if inner == 0 {
        // SAFETY: no pointers. Whoever kills the child by its deadline means this one, too.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let hardened = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        // The kernel may allow only one that is as read-only, and has the access times, of the one that is here.
        let times = [0, libc::MS_NOATIME, libc::MS_STRICTATIME].into_iter().flat_map(|time| [time, time | libc::MS_NODIRATIME]);
        let options = move || {
            [0, libc::MS_RDONLY].into_iter().flat_map({
                let times = times.clone();
                move |ro| times.clone().map(move |time| ro | time)
            })
        };
        let fresh = |fs: &CStr| options().any(|option| mount(fs, c"l", fs, hardened | option, None) == 0);
        let code = c_int::from(fresh(c"proc")) | (c_int::from(fresh(c"sysfs")) << 1);
        // SAFETY: ends this process and touches nothing of it.
        unsafe { libc::_exit(code) };
    }
    let mut status: c_int = 0;
    // SAFETY: `status` is a live int of ours.
    if inner > 0 && unsafe { libc::waitpid(inner as c_int, &mut status, 0) } == inner as c_int && libc::WIFEXITED(status) {
        let code = libc::WEXITSTATUS(status);
        proc = if code & 1 != 0 { 0 } else { libc::EPERM };
        sysfs = if code & 2 != 0 { 0 } else { libc::EPERM };
    }
    say(proc);
    say(sysfs);
    for call in &CALLS {
        let [a, b, c, d, e] = call.args;
        // SAFETY: every pointer among the arguments is null, every descriptor -1, every flag word or size invalid: the kernel refuses
        // before it does anything. (seccomp(2) asks for a property, landlock(7) for its version.)
        let ret = unsafe { libc::syscall(call.number, a, b, c, d, e) };
        say(if ret < 0 { errno() } else { 0 });
    }
}

/// A small tmpfs as the working directory, with what the steps after it use.
fn scratch() -> c_int {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let private = mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE, None);
    if private != 0 {
        return private;
    }
    let mut last = libc::ENOENT;
    for place in [c"/tmp", c"/run", c"/dev", c"/mnt"] {
        last = mount(c"tmpfs", place, c"tmpfs", flags, Some(c"size=64k,nr_inodes=32,mode=700"));
        if last == 0 {
            // SAFETY: `place` is a C string.
            let entered = unsafe { libc::chdir(place.as_ptr()) };
            // SAFETY: C strings all.
            let made = [c"l", c"u", c"w", c"m"].iter().all(|dir| unsafe { libc::mkdir(dir.as_ptr(), 0o700) } == 0);
            return if entered == 0 && made { 0 } else { errno() };
        }
    }
    last
}

fn unshare(flags: c_int) -> c_int {
    // SAFETY: no pointers; this process has one thread and shares nothing with the parent but descriptors.
    if unsafe { libc::unshare(flags) } == 0 { 0 } else { errno() }
}

fn mount(source: &CStr, target: &CStr, fs: &CStr, flags: c_ulong, data: Option<&CStr>) -> c_int {
    let data: *const c_char = data.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: C strings all, or null for no data.
    if unsafe { libc::mount(source.as_ptr(), target.as_ptr(), fs.as_ptr(), flags, data.cast::<c_void>()) } == 0 { 0 } else { errno() }
}

fn put(path: &CStr, text: &CStr) -> c_int {
    // SAFETY: `path` is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return errno();
    }
    // SAFETY: the bytes of `text` are alive, and as many as count_bytes says.
    let wrote = unsafe { libc::write(fd, text.as_ptr().cast(), text.count_bytes()) };
    let code = if wrote < 0 { errno() } else { 0 };
    // SAFETY: opened just above, closed nowhere else.
    unsafe { libc::close(fd) };
    code
}

fn set_attribute(path: &CStr) -> c_int {
    // SAFETY: C strings, and one byte of value.
    if unsafe { libc::setxattr(path.as_ptr(), c"user.sandbox".as_ptr(), c"1".as_ptr().cast(), 1, 0) } == 0 { 0 } else { errno() }
}

/// The landlock version of the kernel. man: landlock_create_ruleset(2)
pub fn landlock_abi() -> Result<u32> {
    // SAFETY: a null attribute of size 0 with LANDLOCK_CREATE_RULESET_VERSION (1) only asks for the version.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<c_void>(), 0_usize, 1_u32) }).map(|abi| abi as u32)
}

/// A process in a fresh user namespace without maps, waiting until it is dropped.
pub struct Unmapped {
    child: Child,
    _release: OwnedFd,
}

impl Unmapped {
    pub fn pid(&self) -> i32 {
        self.child.0
    }

    pub fn hold(patience: Duration) -> Result<Unmapped> {
        let (ours, said) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (wait, release) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (out, wait, hold) = (said.as_raw_fd(), wait, release.as_raw_fd());
        // SAFETY: as in `namespaces`: system calls only, then _exit.
        let child = unsafe {
            Child::fork(|| {
                let code = unshare(libc::CLONE_NEWUSER);
                libc::write(out, (&raw const code).cast(), 4);
                // Our copy of the other end would keep the pipe open for ever.
                libc::close(hold);
                let mut byte = 0_u8;
                libc::read(wait.as_raw_fd(), (&raw mut byte).cast(), 1);
            })?
        };
        drop(said);
        let mut pipe = std::fs::File::from(ours);
        let mut word = [0; 4];
        if !readable(&pipe, Instant::now() + patience) || pipe.read_exact(&mut word).is_err() {
            return Err(Errno::TIMEDOUT);
        }
        result(i32::from_ne_bytes(word))?;
        Ok(Unmapped { child, _release: release })
    }
}

/// A forked child; killed and awaited when dropped.
struct Child(i32);

impl Child {
    /// # Safety
    /// `run` makes system calls only: other threads of the parent may hold any lock.
    unsafe fn fork(run: impl FnOnce()) -> Result<Child> {
        // SAFETY: the caller promises that `run` is fit for a forked child; all arguments but the signal are null.
        let pid = check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
        if pid == 0 {
            // SAFETY: no pointers. With the parent gone nobody would read what we say.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            run();
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) };
        }
        Ok(Child(pid as i32))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: no pointers; the child is ours and not yet awaited, so the number is still its own.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: a null status is allowed.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

fn readable(fd: &std::fs::File, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            Err(_) | Ok(0) => return false,
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_answers_in_order_and_leaves_nothing() {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let map = |id: u32| std::ffi::CString::new(format!("0 {id} 1")).unwrap();
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let answers = namespaces(&map(uid), &map(gid), Duration::from_secs(5)).unwrap();
        assert_eq!(before, std::fs::read_to_string("/proc/self/mountinfo").unwrap());
        assert!(answers.step(Step::Userns).is_some());
        if answers.step(Step::Mount) == Some(Ok(())) {
            assert_eq!(answers.said.len(), STEPS + CALLS.len());
            assert_eq!(answers.has_call("clone3"), Some(true), "{answers:?}");
        } else {
            assert_eq!(answers.has_call("clone3"), None);
        }
        assert_eq!(answers.has_call("no_such_call"), None);
    }

    #[test]
    fn a_bad_map_ends_the_probe() {
        let answers = namespaces(c"nonsense", c"0 0 1", Duration::from_secs(5)).unwrap();
        assert!(matches!(answers.step(Step::Map), Some(Err(_)) | None), "{answers:?}");
        assert_eq!(answers.step(Step::Namespaces), None);
    }

    #[test]
    fn a_held_process_is_gone_when_dropped() {
        let Ok(held) = Unmapped::hold(Duration::from_secs(5)) else { return };
        let path = format!("/proc/{}", held.pid());
        let map = std::fs::read_to_string(format!("{path}/uid_map")).unwrap();
        assert_eq!(map, "");
        drop(held);
        assert!(!std::path::Path::new(&path).exists());
    }
}
