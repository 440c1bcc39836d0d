//! seccomp(2) and landlock(7), raw.
use super::*;
use rustix::fd::BorrowedFd;
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter { pub code: u16, pub jt: u8, pub jf: u8, pub k: u32 }
pub fn seccomp_load(_: &[SockFilter]) -> Result<()> { Ok(()) }
pub fn landlock_restrict_self(_: BorrowedFd) -> Result<()> { Ok(()) }
pub fn landlock_add_path(_: BorrowedFd, _: BorrowedFd, _: u64) -> Result<()> { Ok(()) }
pub fn set_no_new_privs() -> Result<()> { rustix::thread::set_no_new_privs(true) }
