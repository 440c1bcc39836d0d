//! Descriptors by number: those that a child inherits from its parent, and dup2(2) onto the standard ones.

use super::{Result, check};
use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor that the parent opened and keeps open until the child's exec; in the tape it is a number.
pub fn inherited(fd: &RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number comes from an OwnedFd in the parent's Plan, which outlives the clone; the child's copy of the table
    // keeps it until exec. It is never -1, since an OwnedFd cannot be.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

/// A descriptor that we were started with, as our own; None: there is none of this number. Once for each number, before any
/// descriptor is opened.
pub fn started_with(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no further argument, and looks only.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }.into()).ok()?;
    // SAFETY: it is open, and nothing in this program owns it yet, as the caller promises.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Close what the parent keeps for itself, so that in the child the end of the parent is an end-of-file.
pub fn close(fd: RawFd) {
    // SAFETY: the caller is a child past clone, in which the parent's OwnedFd is never used and never dropped (it leaves by exec
    // or _exit).
    unsafe { libc::close(fd) };
}

/// dup2(2): descriptor `to` becomes a copy of `from`, without close-on-exec.
pub fn duplicate(from: RawFd, to: RawFd) -> Result<()> {
    if from == to {
        // SAFETY: F_SETFD takes an integer; clearing close-on-exec is what the caller asks for.
        return check(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: in the child, `to` is 0, 1, 2 or a preserved number, none of which is owned by an OwnedFd there.
    check(unsafe { libc::dup2(from, to) }.into()).map(drop)
}
