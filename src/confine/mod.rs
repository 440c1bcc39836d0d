//! How the process is confined, as values: a seccomp program, a Landlock ruleset. Called by `launch` before clone; the tape
//! carries the values into the child. Must never restrict the process that runs it.
//!
//! *What*: `seccomp` turns the policy's groups, or a profile in Docker's format (`docker`), into a BPF program; `groups` reads
//! `policies/syscalls.toml`; `landlock` makes the ruleset. Capabilities are a set of numbers in the Spec and need no preparation.
//!
//! *Why this way*: libseccomp and the landlock crate allocate, so they run in the parent and the child gets raw bytes and a
//! descriptor. (Rejected: seccompiler in the child's path; a hand-written list of BPF jumps for the policy, since the filter's
//! generator is a place where others had holes, cve: 2019-9893. We check what the generator makes with a simulator of our own.)
//!
//! *The order of sealing*, which `launch::assemble` records, and why each comes before the next:
//! 1. drop the bounding set: needs CAP_SETPCAP, which the next steps may take away;
//! 2. securebits: the same capability;
//! 3. set the ids: needs CAP_SETUID and CAP_SETGID, and changes the capability sets;
//! 4. set the capability sets: the last privileged step;
//! 5. no_new_privs: from here on exec gains nothing; Landlock and seccomp ask for it, once the capabilities are gone;
//! 6. Landlock: its path rules need open(2), its calls need not be allowed by the filter;
//! 7. seccomp: last, so that it need not allow anything that only sealing does. Only close_range and execve come after it.
//!
//! *Invariants*
//! - I1 nothing here changes this process or the machine, but for files in our own cache directory.
//! - I2 an argument is compared in at most 32 bits, as the kernel reads it. cve: 2019-10063, 2019-7303
//! - I3 a name that nobody knows is an error of the policy, never a rule that is quietly left out.
//! - I4 a cached program is used only if it is ours alone, whole, and made from the very same input; otherwise it is made anew.
//! - I5 what the kernel cannot enforce is named in `missing`; the caller decides whether that is an error.
//!
//! *Kernel*
//!
//! | call | since | why | without it |
//! |---|---|---|---|
//! | seccomp(2) SET_MODE_FILTER | 3.17 | the filter | refuse, or `--best-effort seccomp` |
//! | SECCOMP_RET_KILL_PROCESS | 4.14 | a foreign ABI ends the process, not a thread | the kernel kills the thread |
//! | landlock files | 5.13 | writing only where declared | named in `missing` |
//! | landlock refer, truncate | 5.19, 6.2 | rename across directories; truncate counts as writing | named in `missing` |
//! | landlock TCP | 6.7 | ports | named in `missing` |
//! | landlock ioctl_dev | 6.10 | ioctl on devices | named in `missing` |
//! | landlock scopes | 6.12 | signals and abstract sockets stay inside | named in `missing` |
#![forbid(unsafe_code)]

pub mod docker;
pub mod groups;
pub mod landlock;
pub mod seccomp;

#[cfg(all(test, target_arch = "x86_64"))]
mod simulator;
