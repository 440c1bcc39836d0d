//! clone3(2), unshare(2): how a child is born. The only caller of clone3.
//!
//! The child of a raw clone3 has a copy of our memory as it stood: were another thread inside malloc, its lock would be
//! held for ever. So the parent must have one thread, and the child must not allocate. In debug builds an allocator with a
//! tripwire checks the latter, so that any integration test would catch it.
//!
//! A child in a user namespace that is not ours yet is born in two steps. First an `Intermediate` process in
//! the new user namespace, which shares our memory and descriptors, so that its id maps can be written, and slow namespaces made, while
//! we still decide what the child will do. Then it clones the child, which becomes ours (CLONE_PARENT).

use super::{Errno, Result, check};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::thread::futex;

pub const NEWTIME: u64 = libc::CLONE_NEWTIME as u64;
pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;

#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// What the intermediate process does first, all of it without allocating: system calls only. The error is (which of them, errno).
pub type First = Box<dyn Fn() -> core::result::Result<(), (u32, i32)>>;

/// Why no child was born.
#[derive(Debug)]
pub enum Stillborn {
    /// What came first failed: (which, errno).
    First(u32, i32),
    Clone(Errno),
}

/// What we and the intermediate process both see.
struct Shared {
    parent: i32,
    /// What the child is to have.
    turns: Option<Turns>,
    /// Set before the start, read after it.
    first: UnsafeCell<Option<First>>,
    /// `WAIT`, `STARTED`, `ORDERED`, `DONE`, in this order: a futex.
    state: AtomicU32,
    namespaces: AtomicU64,
    /// Set before the order, read after it.
    life: UnsafeCell<Option<*const dyn Fn()>>,
    /// The child; 0: there is none.
    pid: AtomicI32,
    pidfd: UnsafeCell<libc::c_int>,
    /// (which, errno); -1: the clone.
    failed: [AtomicI32; 2],
}

const WAIT: u32 = 0;
const STARTED: u32 = 1;
const ORDERED: u32 = 2;
const DONE: u32 = 3;

/// See the module's header. It stays until this is dropped, since the helpers that write the maps look for it.
pub struct Intermediate {
    pid: Pid,
    shared: Box<Shared>,
    #[expect(dead_code, reason = "unmapped after the process is reaped")]
    stack: Stack,
}

impl Intermediate {
    /// Make a user namespace with a process in it that waits. No signal but SIGKILL reaches it, nor the child, until that sets a mask of its own.
    pub fn new() -> Result<Intermediate> {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let shared = Box::new(Shared {
            parent,
            turns: Turns::usual(),
            first: UnsafeCell::new(None),
            state: AtomicU32::new(WAIT),
            namespaces: AtomicU64::new(0),
            life: UnsafeCell::new(None),
            pid: AtomicI32::new(0),
            pidfd: UnsafeCell::new(-1),
            failed: [const { AtomicI32::new(0) }; 2],
        });
        let stack = Stack::new()?;
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD;
        // SAFETY: the stack is mapped, writable, and belongs to the new process alone; it and `shared` are dropped only after that
        // is reaped (`Drop`). With CLONE_VM there are two flows of control in one memory: `attend` touches nothing but its
        // stack and `shared`, does not allocate, and makes system calls that set no errno unless they fail.
        let pid = check(unsafe { libc::clone(attend, stack.top(), flags, (&raw const *shared).cast_mut().cast()) }.into())?;
        shared.turns.iter().for_each(|usual| usual.short().give(pid as i32));
        let pid = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
        Ok(Intermediate { pid, shared, stack })
    }

    /// Whose /proc entries lead to the new user namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// From now on we hurry, as it does.
    pub fn hurry(&self) -> Option<Hurry> {
        let usual = self.shared.turns?;
        usual.short().give(0);
        Some(Hurry(usual))
    }

    /// Let it do what comes first. Once.
    pub fn start(&mut self, first: First) {
        if self.shared.state.load(Ordering::Relaxed) != WAIT {
            return;
        }
        // SAFETY: the other process reads this only after the start, which is not given yet.
        unsafe { *self.shared.first.get() = Some(first) };
        self.shared.state.store(STARTED, Ordering::Release);
        let _ = futex::wake(&self.shared.state, futex::Flags::PRIVATE, 1);
    }

    /// Have the child cloned: it runs `life` and never returns.
    pub fn bear(&self, namespaces: u64, life: &dyn Fn()) -> core::result::Result<Child, Stillborn> {
        let shared = &self.shared;
        // SAFETY: the other process reads this only after the order, which is not given yet. The lifetime is forgotten: it calls `life` only
        // in the child, which has a copy of our memory as it is while we wait here, and nobody takes anything from that.
        unsafe { *shared.life.get() = Some(core::mem::transmute::<*const dyn Fn(), *const (dyn Fn() + 'static)>(life)) };
        shared.namespaces.store(namespaces, Ordering::Relaxed);
        shared.state.store(ORDERED, Ordering::Release);
        let _ = futex::wake(&shared.state, futex::Flags::PRIVATE, 1);
        // A look now and then: somebody may have killed it.
        let moment = futex::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        while shared.state.load(Ordering::Acquire) != DONE && self.lives() {
            let _ = futex::wait(&shared.state, futex::Flags::PRIVATE, ORDERED, Some(&moment));
        }
        match shared.pid.load(Ordering::Acquire) {
            0 => {
                let [which, errno] = &shared.failed;
                Err(match (which.load(Ordering::Relaxed), errno.load(Ordering::Relaxed)) {
                    (-1, errno) => Stillborn::Clone(Errno::from_raw_os_error(errno)),
                    (_, 0) => Stillborn::Clone(Errno::SRCH), // somebody killed it
                    (which, errno) => Stillborn::First(which as u32, errno),
                })
            }
            pid => {
                // SAFETY: the kernel stored there a new descriptor of the table that the other process shares with us; nobody writes there
                // any more, and nobody else owns it.
                let pidfd = unsafe { OwnedFd::from_raw_fd(*shared.pidfd.get()) };
                Ok(Child { pid, pidfd })
            }
        }
    }

    fn lives(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid), look), Ok(None))
    }
}

impl Drop for Intermediate {
    fn drop(&mut self) {
        // Nobody else reaps our children, so the pid is still its own.
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        let _ = interrupted(|| waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED));
    }
}

/// How a process shares the processor. Who waits for programs that it has started itself is to run soon after waking, and not when they have used up
/// their turns: so it takes short ones for that time. A hint: before Linux 6.12 it says nothing. man: sched_setattr(2), sched_runtime
#[derive(Clone, Copy)]
struct Turns(libc::sched_attr);

impl Turns {
    const SHORT: u64 = 100_000; // ns, the least that there is

    /// Ours. None: they are of another kind, or we may not ask.
    fn usual() -> Option<Turns> {
        // SAFETY: a plain record of integers, for which all zeroes is a valid value.
        let mut attr: libc::sched_attr = unsafe { core::mem::zeroed() };
        // SAFETY: the kernel writes no more than the size that it is told, into our own record.
        check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size_of::<libc::sched_attr>(), 0) }).ok()?;
        (attr.sched_policy == libc::SCHED_OTHER as u32).then_some(Turns(attr))
    }

    fn short(&self) -> Turns {
        Turns(libc::sched_attr { sched_runtime: Turns::SHORT, ..self.0 })
    }

    /// 0 are we.
    fn give(&self, pid: libc::pid_t) {
        // SAFETY: the kernel reads a record of the size that it says.
        unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const self.0, 0) };
    }
}

/// We take short turns until this is dropped.
pub struct Hurry(Turns);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.give(0);
    }
}

/// The intermediate process, until it is killed. // S2
extern "C" fn attend(shared: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `new` passes a pointer to a `Shared` that outlives this process.
    let shared = unsafe { &*shared.cast::<Shared>() };
    let ours = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_ok();
    // It may have died before we asked.
    if !ours || rustix::process::getppid().map(|p| p.as_raw_nonzero().get()) != Some(shared.parent) {
        return 125;
    }
    // It may be there before its parent has decided what signals mean.
    if super::signal::set_mask(super::signal::Set::ALL).is_err() {
        return 125;
    }
    let wait = |while_it_is: u32| {
        while shared.state.load(Ordering::Acquire) == while_it_is {
            let _ = futex::wait(&shared.state, futex::Flags::PRIVATE, while_it_is, None);
        }
    };
    wait(WAIT);
    // SAFETY: the start was given, so nobody writes there any more.
    let done = unsafe { &*shared.first.get() }.as_ref().map_or(Ok(()), |first| first());
    wait(STARTED);
    let (which, errno) = match done.map(|()| clone_child(shared)) {
        Ok(Ok(pid)) => {
            shared.pid.store(pid, Ordering::Relaxed);
            (0, 0)
        }
        Ok(Err(errno)) => (-1, errno.raw_os_error()),
        Err((which, errno)) => (which as i32, errno),
    };
    let [a, b] = &shared.failed;
    a.store(which, Ordering::Relaxed);
    b.store(errno, Ordering::Relaxed);
    shared.state.store(DONE, Ordering::Release);
    let _ = futex::wake(&shared.state, futex::Flags::PRIVATE, 1);
    wait(DONE);
    0
}

fn clone_child(shared: &Shared) -> Result<i32> {
    let namespaces = shared.namespaces.load(Ordering::Relaxed) | libc::CLONE_PARENT as u64;
    let pid = clone3(namespaces, Some(shared.pidfd.get()))?;
    if pid == 0 {
        #[cfg(debug_assertions)]
        tripwire::arm();
        shared.turns.iter().for_each(|usual| usual.give(0));
        // SAFETY: the order was given, so `life` is set, and what it points to is in our copy of the parent's memory.
        if let Some(life) = unsafe { *shared.life.get() } {
            // SAFETY: as above.
            unsafe { (*life)() };
        }
        exit(125);
    }
    Ok(pid)
}

/// A stack with a guard page below it. The child keeps using its copy, so it is as large as that of a thread of Rust's.
struct Stack(*mut libc::c_void);

impl Stack {
    const SIZE: usize = 2 << 20;
    const GUARD: usize = 4096;

    fn new() -> Result<Stack> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let at = unsafe { libc::mmap(core::ptr::null_mut(), Stack::SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::from_raw_os_error(super::errno()));
        }
        // SAFETY: the first page of our own new mapping.
        check(unsafe { libc::mprotect(at, Stack::GUARD, libc::PROT_NONE) }.into())?;
        Ok(Stack(at))
    }

    fn top(&self) -> *mut libc::c_void {
        // SAFETY: one past the end of the mapping, which is page-aligned and so aligned as the ABI wants a stack.
        unsafe { self.0.byte_add(Stack::SIZE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever ran on it is reaped.
        unsafe { libc::munmap(self.0, Stack::SIZE) };
    }
}

/// A child of ours in our own namespaces: it lives `life`, with a copy of our memory.
pub fn born(life: &dyn Fn()) -> Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let pid = clone3(0, Some(&raw mut pidfd))?;
    if pid == 0 {
        #[cfg(debug_assertions)]
        tripwire::arm();
        life();
        exit(125);
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else owns it.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Within a child that is already born: clone a sibling, which is our parent's child as we are. Some(its pidfd) in us.
pub fn sibling() -> Result<Option<OwnedFd>> {
    let mut pidfd: libc::c_int = -1;
    let pid = clone3(libc::CLONE_PARENT as u64, Some(&raw mut pidfd))?;
    // SAFETY: as in `born`; in the sibling, where the pid is 0, it is not touched.
    Ok((pid != 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Clone within a child that is already born, returning on both sides: Some(pid) in the parent.
pub fn forked(namespaces: u64) -> Result<Option<i32>> {
    clone3(namespaces, None).map(|pid| (pid != 0).then_some(pid))
}

fn clone3(namespaces: u64, pidfd: Option<*mut libc::c_int>) -> Result<i32> {
    // SAFETY: clone_args is a plain record of integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { core::mem::zeroed() };
    args.flags = namespaces;
    // A sibling tells our parent with the signal that we would. man: clone(2), CLONE_PARENT
    args.exit_signal = if namespaces & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(place) = pidfd {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = place as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of our memory and stack, so everything borrowed stays valid on both
    // sides; the caller has one thread (checked in launch; while the intermediate process clones, we wait), and the child does not allocate (tripwire).
    check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) }).map(|pid| pid as i32)
}

/// man: unshare(2)
pub fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: unshare takes an integer. None of the flags that callers pass (namespaces) affects memory or descriptors.
    check(unsafe { libc::unshare(namespaces as libc::c_int) }.into()).map(drop)
}

/// Be in this namespace from now on, of that kind; a pid namespace is for the children. man: setns(2)
pub fn join(namespace: BorrowedFd, kind: u64) -> Result<()> {
    // SAFETY: setns takes integers; it affects no memory, and the descriptor is borrowed, hence open.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind as libc::c_int) }.into()).map(drop)
}

/// The user namespace in which this one was made. man: NS_GET_PARENT(2const), since 4.9
pub fn parent(namespace: BorrowedFd) -> Result<OwnedFd> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: the call takes no argument, and answers with a new descriptor, close-on-exec.
    let fd = check(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) }.into())?;
    // SAFETY: it was just made for us; descriptors fit in an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How many threads this process has: the link count of /proc/self/task, less `.` and `..`; None without /proc.
pub fn threads() -> Option<u64> {
    rustix::fs::stat(c"/proc/self/task").ok().map(|s| s.st_nlink.saturating_sub(2))
}

/// Leave at once, with nothing flushed and nothing dropped. man: _exit(2)
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

pub fn interrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(debug_assertions)]
mod tripwire {
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::alloc::{GlobalAlloc, Layout, System};

    static ARMED: AtomicBool = AtomicBool::new(false);

    pub fn arm() {
        ARMED.store(true, Ordering::Relaxed);
    }

    struct Tripwire;

    #[global_allocator]
    static ALLOCATOR: Tripwire = Tripwire;

    fn step_on_it() {
        if ARMED.load(Ordering::Relaxed) {
            let _ = rustix::io::write(rustix::stdio::stderr(), b"sandbox: BUG: the child allocated memory\n");
            super::exit(99);
        }
    }

    // SAFETY: every call is passed on unchanged to the system allocator, which upholds the contract.
    unsafe impl GlobalAlloc for Tripwire {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            step_on_it();
            // SAFETY: the caller's promises are those of `System.alloc`.
            unsafe { System.alloc(layout) }
        }
        // Without this one all of it would be written to.
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            step_on_it();
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(ptr, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn the_child_of_an_intermediate_process_is_ours() {
        let mut between = Intermediate::new().unwrap();
        between.start(Box::new(|| Ok(())));
        let child = between.bear(NEWNS, &|| exit(7)).unwrap();
        drop(between);
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        assert_eq!(status.and_then(|s| s.exit_status()), Some(7));
    }

    #[test]
    fn what_fails_before_the_child_is_told() {
        let mut between = Intermediate::new().unwrap();
        between.start(Box::new(|| Err((3, libc::EXDEV))));
        assert!(matches!(between.bear(NEWNS, &|| exit(7)), Err(Stillborn::First(3, libc::EXDEV))));
    }

    #[test]
    fn an_intermediate_process_that_was_killed_is_not_waited_for() {
        let mut between = Intermediate::new().unwrap();
        between.start(Box::new(|| Ok(())));
        rustix::process::kill_process(between.pid, rustix::process::Signal::KILL).unwrap();
        assert!(matches!(between.bear(NEWNS, &|| exit(7)), Err(Stillborn::Clone(Errno::SRCH))));
    }
}
