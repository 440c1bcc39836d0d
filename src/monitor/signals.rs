//! The signals that the parent takes over, from before clone until the end. Called by `launch` (take) and by the loop (next).
//!
//! Never installs a handler: blocked signals are read from a descriptor, so that nothing interrupts the loop and none is lost
//! between clone and the loop.

use crate::error::{Doing, Result};
use crate::sys::signal::{self, Set};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Forwarded, or acted upon (TSTP, CONT, WINCH). Left out: KILL and STOP (cannot), CHLD (we have a pidfd), PIPE (ignored by
/// Rust), URG, and those that a fault of our own raises (ILL TRAP ABRT BUS FPE SEGV SYS).
const TAKEN: [i32; 17] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGTERM,
    libc::SIGSTKFLT,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Real-time signals; glibc keeps 32 and 33 for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Blocked and not read. Blocked, they turn "stop the whole job" into EIO for a read, and into permission for a write or a
/// tcsetattr: a sandbox in the background lives on. kernel: drivers/tty/tty_jobctrl.c __tty_check_change()
const HELD: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

/// Owns the signalfd. The mask stays as it is when this is dropped: a signal that came after the end must not change the exit
/// status that we are about to return.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    old: Set,
}

impl Signals {
    /// Before clone, in the thread that will stay. What the caller ignores (nohup, `&` of a shell without job control) is not
    /// taken: it stays ignored.
    pub fn take() -> Result<Signals> {
        // An ignored SIGCHLD makes the kernel reap PID 1 itself, and its status is lost. man: waitpid(2) NOTES
        if signal::ignored(libc::SIGCHLD).doing("look at", "SIGCHLD")? {
            signal::reset(libc::SIGCHLD).doing("reset", "SIGCHLD")?;
        }
        let mut wanted = Set::EMPTY;
        for number in TAKEN.into_iter().chain(REAL_TIME) {
            if !signal::ignored(number).doing("look at", format_args!("signal {number}"))? {
                wanted = wanted.with(number);
            }
        }
        let fd = signal::signalfd(wanted).doing("open", "a signalfd")?;
        let blocked = HELD.into_iter().fold(wanted, Set::with);
        let old = signal::block(blocked).doing("block", "signals")?;
        Ok(Signals { fd, old })
    }

    /// The mask from before, for the child to take back (`sys::signal::set_mask`).
    pub fn old_mask(&self) -> Set {
        self.old
    }

    /// The next signal that has come, if any.
    pub fn next(&self) -> Result<Option<i32>> {
        // struct signalfd_siginfo: 128 bytes, of which the first four are ssi_signo. man: signalfd(2)
        let mut record = [0u8; 128];
        match rustix::io::read(&self.fd, &mut record) {
            Ok(128) => {
                let [a, b, c, d, ..] = record;
                Ok(Some(i32::from_ne_bytes([a, b, c, d])))
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(e) => Err(e).doing("read", "the signalfd"),
        }
    }

    /// Records from a descriptor of the test's: masks are per thread, and so would be real signals.
    #[cfg(test)]
    pub(super) fn from_records(fd: OwnedFd) -> Signals {
        Signals { fd, old: Set::EMPTY }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
