//! One's own process: execve(2), credentials(7), capabilities(7), prctl(2), setrlimit(2), close_range(2), signals.

use super::signal::Set;
use super::{Errno, Result, check};
use core::sync::atomic::{AtomicUsize, Ordering};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::CStr;

/// execve(2); returns only if it failed. `argv` and `envp` end with a null pointer.
pub fn exec(path: &CStr, argv: &Pointers, envp: &Pointers) -> Errno {
    // SAFETY: `Pointers` is a null-terminated array of pointers to C strings that it owns.
    unsafe { libc::execve(path.as_ptr(), argv.0.as_ptr(), envp.0.as_ptr()) };
    Errno::from_raw_os_error(super::errno())
}

/// C strings and the null-terminated array that execve(2) wants, made before the clone.
#[derive(Debug)]
pub struct Pointers(Box<[*const libc::c_char]>, Box<[std::ffi::CString]>);

impl Pointers {
    pub fn new(strings: Vec<std::ffi::CString>) -> Pointers {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([core::ptr::null()]).collect();
        Pointers(pointers, strings.into_boxed_slice())
    }

    pub fn strings(&self) -> &[std::ffi::CString] {
        &self.1
    }
}

/// Large pieces of memory are always mappings of their own, zero until they are used, and given back when they are freed: by itself, malloc takes
/// them from a heap once one of that size was freed, and clears them in full. man: mallopt(3), M_MMAP_THRESHOLD
pub fn map_large_memory() {
    // SAFETY: mallopt takes integers, and changes nothing that was allocated before.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
}

/// setgroups(2), setresgid(2), setresuid(2), in this order; `groups` None: the supplementary groups stay as they are.
pub fn set_ids(uid: u32, gid: u32, groups: Option<&[u32]>) -> Result<()> {
    if let Some(groups) = groups {
        // SAFETY: the pointer and the length are of one slice of gid_t, which is u32.
        check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    }
    // SAFETY: both calls take integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Take every capability out of the bounding set that is not in `keep` (bit n is capability n).
pub fn drop_bounding(keep: u64) -> Result<()> {
    for capability in 0..64u64 {
        if keep & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes integers only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
            Ok(_) => {}
            Err(Errno::INVAL) => return Ok(()), // beyond the last capability that this kernel knows
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Permitted and effective are `set`; inheritable and ambient are empty. cve: 2022-24769
pub fn set_capabilities(set: u64) -> Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let set = CapabilitySet::from_bits_retain(set);
    rustix::thread::set_capabilities(None, CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() })
}

/// Keep these capabilities over an exec as somebody other than root. They must be permitted. man: capabilities(7), "Ambient"
pub fn set_ambient(set: u64) -> Result<()> {
    let had = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::from_bits_retain(set), ..had })?;
    for one in (0..64).map(|n| 1u64 << n).filter(|bit| set & bit != 0) {
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(one), true)?;
    }
    Ok(())
}

/// Keep the permitted set over the coming change of ids. man: capabilities(7) SECBIT_KEEP_CAPS
pub fn keep_capabilities() -> Result<()> {
    rustix::thread::set_keep_capabilities(true)
}

/// PR_SET_DUMPABLE: may a process of the same uid trace us and read our /proc entries? // L4
pub fn set_dumpable(yes: bool) -> Result<()> {
    use rustix::process::DumpableBehavior;
    rustix::process::set_dumpable_behavior(if yes { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable })
}

/// man: PR_SET_PDEATHSIG(2const): a change of ids takes it back.
pub fn die_with_parent(signal: Signal) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(signal))
}

/// Orphans of our descendants become our children. man: PR_SET_CHILD_SUBREAPER(2const)
pub fn become_subreaper() -> Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// man: setrlimit(2); by number, since `nice` and `rtprio` limits have no portable names. `u64::MAX` is no limit.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is only read, and the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, core::ptr::null_mut::<libc::rlimit64>()) }).map(drop)
}

pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: only the old limit is asked for, into a record that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, core::ptr::null::<libc::rlimit64>(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Mark every descriptor from `first` on to be closed at exec. // L5
pub fn close_on_exec_from(first: u32) -> Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

pub fn close_from(first: u32) -> Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: u32) -> Result<()> {
    // SAFETY: the callers are children past clone that own no `OwnedFd` they would use again (they leave by exec or _exit).
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Every signal's default action, for a program that is to start fresh. (Rust ignores SIGPIPE in us.)
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no handler that could run; SIGKILL, SIGSTOP and libc's own signals fail, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Wait for any signal of `set` (which must be blocked) and take it: its number, and the pid of who sent it as seen from here, 0 if that
/// is in a pid namespace above ours. Err(AGAIN): none came within `limit`. kernel: kernel/signal.c send_signal_locked()
pub fn wait_signal(set: Set, limit: Option<libc::timespec>) -> Result<(i32, i32)> {
    let mut info = core::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let limit = limit.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the set is 8 bytes as said, the siginfo and the limit, if there is one, are live ones of this frame.
    let got = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, info.as_mut_ptr(), limit, 8) };
    let signal = check(got)? as i32;
    // SAFETY: zeroed is a valid siginfo, and the call has filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: plain numbers, of which any bits are valid; for signals without a sender the field is something else, or 0.
    Ok((signal, unsafe { info.si_pid() }))
}

/// kill(2); `pid` as there (-1: everything that we may signal).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes integers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// A dead child, if there is one: its pid and wait status. Err(CHILD): there is none at all.
pub fn reap(block: bool) -> Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the status is written to a local that outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, if block { 0 } else { libc::WNOHANG }) }.into())?;
    Ok((pid != 0).then_some((pid as i32, status)))
}

/// Where the kernel finds what /proc/PID/cmdline shows: first byte and length, noted before `main`.
static ARGUMENTS: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

// SAFETY: glibc calls what is in this section with argc, argv and envp before `main`; the function has that signature.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn(libc::c_int, *const *const libc::c_char) = {
    extern "C" fn note(count: libc::c_int, arguments: *const *const libc::c_char) {
        let Some(last) = usize::try_from(count).ok().and_then(|n| n.checked_sub(1)) else { return };
        // SAFETY: argv has `count` pointers to C strings, which the kernel laid out one behind the other. man: execve(2)
        let (start, end) =
            unsafe { ((*arguments).expose_provenance(), (*arguments.add(last)).addr() + CStr::from_ptr(*arguments.add(last)).count_bytes()) };
        ARGUMENTS.0.store(start, Ordering::Relaxed);
        ARGUMENTS.1.store(end.saturating_sub(start), Ordering::Relaxed);
    }
    note
};

/// Be listed under this name, without the words that we were called with. In a child only: in the parent Rust reads them.
pub fn show_as(name: &[u8]) {
    let (start, length) = (ARGUMENTS.0.load(Ordering::Relaxed), ARGUMENTS.1.load(Ordering::Relaxed));
    for at in 0..length {
        let byte = name.get(at).copied().unwrap_or(0);
        // SAFETY: within the bytes that `note` measured: part of the stack, writable, and read by nobody in a child.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(start + at).write_volatile(byte) };
    }
}

/// Give back the memory that was for starting: free memory, and our mappings of the program's own text, of which what is still needed
/// comes back from the page cache. man: malloc_trim(3), madvise(2) MADV_DONTNEED
pub fn settle() {
    // SAFETY: no pointers; the one lock that it takes is free in a child, too, as there was one thread at the clone.
    unsafe { libc::malloc_trim(0) };
    unsafe extern "C" {
        // Both are made by the linker. man: end(3)
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    let (start, end) = ((&raw const __executable_start).addr(), (&raw const etext).addr());
    let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if start < end {
        // SAFETY: between the two symbols lie read-only, file-backed pages of the program, never written, since it is linked
        // without relocations in text; dropping them changes no byte that can be read afterwards.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

pub fn set_hostname(name: &[u8]) -> Result<()> {
    rustix::system::sethostname(name)
}
