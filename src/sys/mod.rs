//! The kernel's words: the only unsafe code of the crate.
//!
//! *What*: safe functions named like the system call, one family of man pages per file. `rustix` wherever it has the call;
//! raw `libc` only for what it lacks.
//!
//! *Invariants*
//! - S1 functions take `BorrowedFd` and `&CStr` and return `Result<_, Errno>`: thin, no policy, no message.
//! - S2 nothing that the child may call after `clone3` allocates (debug builds check it: `clone::Tripwire`).
//! - S3 a SAFETY comment names the precondition and why it holds at this very place.
#![allow(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod clone;
pub mod confine;
pub mod disk;
pub mod inherit;
pub mod mount;
pub mod path;
pub mod probe;
pub mod process;
pub mod pty;
pub mod signal;
pub mod socket;
pub mod task;
pub mod xattr;

pub use rustix::io::Errno;
pub type Result<T> = std::result::Result<T, Errno>;

/// A raw system call's answer as a Result.
fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret < 0 { Err(Errno::from_raw_os_error(errno())) } else { Ok(ret) }
}

fn errno() -> i32 {
    // SAFETY: __errno_location always returns a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() }
}
