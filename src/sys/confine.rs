//! seccomp(2), landlock(7) and no_new_privs, raw. Called by the tape's player in the child, and by `confine` for the ABI.
//! Must never allocate: the child has no allocator.

use super::{Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF program. kernel: include/uapi/linux/filter.h struct sock_filter
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// The kernel takes no longer program. kernel: include/uapi/linux/bpf_common.h BPF_MAXINSNS
pub const MAX_INSTRUCTIONS: usize = 4096;

#[repr(C)]
struct SockFprog {
    len: libc::c_ushort,
    filter: *const SockFilter,
}

/// kernel: include/uapi/linux/landlock.h struct landlock_path_beneath_attr
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1;

/// man: prctl(2) PR_SET_NO_NEW_PRIVS
pub fn set_no_new_privs() -> Result<()> {
    let (one, zero): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call takes integers only; all five are passed as the longs that the kernel insists on.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) }.into()).map(drop)
}

/// man: seccomp(2) SECCOMP_SET_MODE_FILTER, since 3.17. Needs no_new_privs, or CAP_SYS_ADMIN in the user namespace.
pub fn seccomp_load(program: &[SockFilter]) -> Result<()> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Errno::INVAL);
    }
    let prog = SockFprog { len: program.len() as libc::c_ushort, filter: program.as_ptr() };
    let (mode, flags): (libc::c_uint, libc::c_uint) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: `prog` and the slice behind it outlive the call, which copies them; `len` is the slice's own length, and fits.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const prog) }).map(drop)
}

/// The flags of a filter whose calls somebody else answers: of those that this kernel has, None if it has none. man: seccomp_unotify(2),
/// since 5.5, with continuing; who is being answered is not to be interrupted but by its death since 5.19.
pub fn listening() -> Option<u32> {
    const WAIT_KILLABLE_RECV: u32 = 1 << 5;
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    let none: *const SockFprog = core::ptr::null();
    [listener | WAIT_KILLABLE_RECV, listener].into_iter().find(|flags| {
        // SAFETY: the program is at no address, which the kernel refuses (EFAULT) once it has looked at the flags; nothing is loaded.
        let probed = check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, *flags, none) });
        probed == Err(Errno::FAULT)
    })
}

/// The same as `seccomp_load`, with these flags of `listening`: who has the descriptor answers the calls that the program says.
pub fn seccomp_listen(program: &[SockFilter], flags: u32) -> Result<OwnedFd> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Errno::INVAL);
    }
    let prog = SockFprog { len: program.len() as libc::c_ushort, filter: program.as_ptr() };
    // SAFETY: as in `seccomp_load`.
    let fd = check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const prog) })?;
    // SAFETY: with that flag the answer is a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Have who answers woken on the processor of who asks: it waits for nothing else. man: seccomp_unotify(2), since 6.6; without it, slower.
pub fn answer_nearby(listener: BorrowedFd) {
    const SET_FLAGS: libc::c_ulong = 0x4008_2104;
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the call takes an integer, and the descriptor is borrowed, hence open.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

/// Can this kernel filter system calls at all? man: seccomp(2) SECCOMP_GET_ACTION_AVAIL, since 4.14
pub fn has_seccomp() -> bool {
    let (operation, flags, action): (libc::c_uint, libc::c_uint, u32) = (libc::SECCOMP_GET_ACTION_AVAIL, 0, libc::SECCOMP_RET_ALLOW);
    // SAFETY: the call reads a u32 from the pointer, which is to a live local.
    check(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &raw const action) }).is_ok()
}

/// Which Landlock this kernel has; 0: none. man: landlock_create_ruleset(2) LANDLOCK_CREATE_RULESET_VERSION
pub fn landlock_abi() -> u32 {
    let (none, size): (*const libc::c_void, libc::size_t) = (std::ptr::null(), 0);
    // SAFETY: with this flag the attribute must be null and its size 0, and they are; nothing is read or made.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, size, LANDLOCK_CREATE_RULESET_VERSION) };
    check(abi).map_or(0, |v| v as u32)
}

/// Allow `access` below `path`. man: landlock_add_rule(2), since 5.13. EINVAL if `path` is no directory and `access` has a right
/// that only directories have: see `confine::landlock::ON_FILE`.
pub fn landlock_add_path(ruleset: BorrowedFd, path: BorrowedFd, access: u64) -> Result<()> {
    let attr = PathBeneath { allowed_access: access, parent_fd: path.as_raw_fd() };
    let (fd, flags): (libc::c_int, libc::c_uint) = (ruleset.as_raw_fd(), 0);
    // SAFETY: `attr` has the kernel's packed layout and outlives the call; both descriptors are borrowed, hence open.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &raw const attr, flags) }).map(drop)
}

/// From here on the ruleset binds this thread and its children. man: landlock_restrict_self(2), since 5.13. Needs no_new_privs.
pub fn landlock_restrict_self(ruleset: BorrowedFd) -> Result<()> {
    let (fd, flags): (libc::c_int, libc::c_uint) = (ruleset.as_raw_fd(), 0);
    // SAFETY: the call takes integers only, and the descriptor is borrowed, hence open.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, flags) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<SockFilter>(), size_of::<libc::sock_filter>());
        assert_eq!(align_of::<SockFilter>(), align_of::<libc::sock_filter>());
        assert_eq!(size_of::<SockFprog>(), size_of::<libc::sock_fprog>());
        assert_eq!(size_of::<PathBeneath>(), 12);
    }

    #[test]
    fn an_impossible_program_never_reaches_the_kernel() {
        let nop = SockFilter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
        assert_eq!(seccomp_load(&[]), Err(Errno::INVAL));
        assert_eq!(seccomp_load(&vec![nop; MAX_INSTRUCTIONS + 1]), Err(Errno::INVAL));
    }
}
