//! clone3(2), unshare(2): how a child is born. The only caller of clone3.
//!
//! The child of a raw clone3 has a copy of our memory as it stood: were another thread inside malloc, its lock would be
//! held for ever. So the parent must have one thread, and the child must not allocate. In debug builds an allocator with a
//! tripwire checks the latter, so that any integration test would catch it.

use super::{Errno, Result, check};
use rustix::fd::{FromRawFd, OwnedFd};

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

/// Clone this process into new namespaces; the child runs `life` and never returns. man: clone(2)
pub fn born(namespaces: u64, life: impl FnOnce()) -> Result<Child> {
    let mut pidfd: libc::c_int = -1;
    let pid = clone3(namespaces, Some(&mut pidfd))?;
    if pid == 0 {
        #[cfg(debug_assertions)]
        tripwire::arm();
        life();
        exit(125);
    }
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// The same from within a child that is already born, returning on both sides: Some(pid) in the parent.
pub fn forked(namespaces: u64) -> Result<Option<i32>> {
    clone3(namespaces, None).map(|pid| (pid != 0).then_some(pid))
}

fn clone3(namespaces: u64, pidfd: Option<&mut libc::c_int>) -> Result<i32> {
    // SAFETY: clone_args is a plain record of integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { core::mem::zeroed() };
    args.flags = namespaces;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(place) = pidfd {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = (&raw mut *place) as u64;
    }
    // SAFETY: without CLONE_VM the child gets a copy of our memory and stack, so everything borrowed stays valid on both
    // sides; the caller has one thread (checked in launch), and the child does not allocate (tripwire).
    check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) }).map(|pid| pid as i32)
}

/// man: unshare(2)
pub fn unshare(namespaces: u64) -> Result<()> {
    // SAFETY: unshare takes an integer. None of the flags that callers pass (namespaces) affects memory or descriptors.
    check(unsafe { libc::unshare(namespaces as libc::c_int) }.into()).map(drop)
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
        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(ptr, layout) }
        }
    }
}
