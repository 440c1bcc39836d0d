//! Signals by number: sets, thread masks, dispositions, signalfd(2), pidfd_send_signal(2).
//!
//! Called by `monitor` in the parent, and by whoever gives the child its mask back after clone (nothing here allocates).
//! Never installs a handler. Raw libc because `rustix` has no masks and, like `nix`, no number for a real-time signal.
//! man: signal(7), signalfd(2), rt_sigprocmask(2), pidfd_send_signal(2)

use super::{Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// A set of signals as the kernel has it: bit n-1 is signal n. kernel: include/uapi/asm-generic/signal.h _NSIG 64
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Set(u64);

impl Set {
    pub const EMPTY: Set = Set(0);
    pub const ALL: Set = Set(!0);

    /// Numbers outside 1 to 64 are no signals and change nothing.
    pub const fn with(self, signal: i32) -> Set {
        if signal >= 1 && signal <= 64 { Set(self.0 | 1 << (signal - 1)) } else { self }
    }

    pub const fn has(self, signal: i32) -> bool {
        signal >= 1 && signal <= 64 && self.0 & 1 << (signal - 1) != 0
    }
}

/// Block these too in this thread; returns the mask as it was.
pub fn block(set: Set) -> Result<Set> {
    change(libc::SIG_BLOCK, set)
}

/// Make this the mask of this thread; returns the mask as it was.
pub fn set_mask(set: Set) -> Result<Set> {
    change(libc::SIG_SETMASK, set)
}

fn change(how: libc::c_int, set: Set) -> Result<Set> {
    let mut old = Set::EMPTY;
    // SAFETY: both pointers are to live 8-byte sets of this frame (Set is a u64), and 8 is the size that we state.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut old, size_of::<Set>()) })?;
    Ok(old)
}

/// The signals of `set` as records on a descriptor (non-blocking, close-on-exec); they must be blocked to arrive there.
pub fn signalfd(set: Set) -> Result<OwnedFd> {
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the pointer is to a live 8-byte set of this frame, and 8 is the size that we state.
    let fd = check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, size_of::<Set>(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it; descriptors fit in an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Does this process ignore `signal` (inherited from nohup(1), or from a shell without job control that used `&`)?
pub fn ignored(signal: i32) -> Result<bool> {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: with a null new action sigaction only writes the old one, to a live struct of this frame.
    check(unsafe { libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) }.into())?;
    // SAFETY: zeroed is a valid sigaction, and the call above has filled it.
    Ok(unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// Give `signal` its default action.
pub fn reset(signal: i32) -> Result<()> {
    // SAFETY: signal(2) with SIG_DFL installs no code of ours.
    if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR { Err(Errno::from_raw_os_error(super::errno())) } else { Ok(()) }
}

/// Any signal number, real-time ones too.
pub fn pidfd_send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed (the kernel then fills in kill(2)'s), and the descriptor is borrowed for the call.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// Let `signal`, which this thread blocks and nobody handles, have its default action on us now; for SIGTSTP that is a stop,
/// from which we return when somebody continues us. Better than SIGSTOP: the kernel does not stop an orphaned process group,
/// which nobody would continue. kernel: kernel/signal.c get_signal()
pub fn suffer(signal: i32) -> Result<()> {
    raise(signal)?;
    let old = change(libc::SIG_UNBLOCK, Set::EMPTY.with(signal))?;
    set_mask(old).map(drop)
}

/// `signal` to this very thread.
pub fn raise(signal: i32) -> Result<()> {
    // SAFETY: tgkill takes only integers, and these name the thread that calls.
    check(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let set = Set::EMPTY.with(1).with(64).with(0).with(65).with(-1);
        assert!(set.has(1) && set.has(64) && !set.has(2) && !set.has(0) && !set.has(65) && !set.has(-1));
        assert_eq!(set, Set(1 | 1 << 63));
    }

    #[test]
    fn masks_are_the_threads_own() {
        let old = block(Set::EMPTY.with(libc::SIGUSR1).with(40)).unwrap();
        let now = set_mask(old).unwrap();
        assert!(now.has(libc::SIGUSR1) && now.has(40) && !old.has(libc::SIGUSR1));
    }

    #[test]
    fn dispositions() {
        // Rust's runtime ignores SIGPIPE; nobody touches SIGURG.
        assert!(ignored(libc::SIGPIPE).unwrap());
        assert!(!ignored(libc::SIGURG).unwrap());
        assert!(ignored(65).is_err());
    }
}
