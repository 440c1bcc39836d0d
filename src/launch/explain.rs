//! A fault is a step's number and an errno; the parent owns the tape, so it can make a sentence of it. Called by `launch`.
#![forbid(unsafe_code)]

use crate::error::{Error, Kind};
use crate::host::remedy::{self, Missing};
use crate::sys::Errno;
use crate::tape::wire::Fault;
use crate::tape::{Lower, Phase, Step, Tape};

/// What a tape is about.
pub struct Told<'a> {
    pub tape: &'a Tape,
    pub command: &'a str,
    pub path: &'a str,
}

pub fn fault(plan: &Told, fault: Fault) -> Error {
    let errno = Errno::from_raw_os_error(fault.errno);
    let why = crate::error::why(&errno.into());
    let Some(step) = plan.tape.steps().get(fault.step as usize) else {
        return Error::new(Kind::Bug, format!("cannot play step {}: {why}", fault.step));
    };
    let kind = match (step, errno) {
        (Step::Exec { .. }, Errno::NOENT) => Kind::NoSuchCommand,
        (Step::Exec { .. }, _) => Kind::CannotExecute,
        (Step::Overlay { .. } | Step::Served { .. } | Step::CloneTree { .. }, Errno::NOENT) => Kind::NotFound, // since it was planned
        (_, Errno::PERM | Errno::ACCESS | Errno::NOSPC) => Kind::Denied,
        (_, Errno::NOSYS | Errno::NODEV | Errno::OPNOTSUPP) => Kind::Unsupported,
        _ => Kind::Io,
    };
    let e = match step {
        Step::Exec { .. } => Error::new(kind, format!("cannot execute '{}': {why}", plan.command)),
        Step::Chdir(path) => Error::new(kind, format!("cannot enter '{}': {why}", path.to_string_lossy())),
        step => Error::new(kind, format!("cannot {step}: {why} (step {})", fault.step)),
    };
    // Where user namespaces are made but useless, the first step that needs a capability is the one to fail.
    if step.phase() <= Phase::Root
        && matches!(errno, Errno::PERM | Errno::ACCESS)
        && let Some(e) = remedy::explain_denied_inside()
    {
        return e;
    }
    match cure(plan, step, errno) {
        Some(hint) => e.hint(hint),
        None if matches!(kind, Kind::Denied | Kind::Unsupported) => e.hint("what this machine lacks: sandbox doctor; all steps: --dry-run"),
        None => e,
    }
}

fn cure(plan: &Told, step: &Step, errno: Errno) -> Option<String> {
    let text = match (step, errno) {
        (Step::Exec { .. }, Errno::NOENT) if plan.command.contains('/') => "the file, or the interpreter that it names, is not there inside".into(),
        (Step::Exec { .. }, Errno::NOENT) => format!("looked in PATH={}", plan.path),
        (Step::Exec { .. }, Errno::ACCESS) => {
            "it is not executable, or mounted noexec, or a directory on its way is closed to the user inside".into()
        }
        (Step::Exec { .. }, Errno::NOEXEC) => "it is no program for this machine; a script needs a first line such as #!/bin/sh".into(),
        (Step::Exec { .. }, Errno::TOOBIG) => "arguments and environment are too long: man execve(2)".into(),
        (Step::Chdir(_), Errno::XDEV) => "that directory lies outside the root".into(),
        (Step::Chdir(_), _) => "-w names a directory that the user inside may enter".into(),
        (Step::Overlay { lower, .. }, Errno::INVAL) => {
            let lower = lower.first().map(Lower::to_string).unwrap_or_default();
            format!(
                "the kernel's overlay does not take {lower}, or it lies on two overlays already: --overlay-backend fuse, or share it with --ro {lower} or --rw {lower}"
            )
        }
        (Step::Overlay { .. }, Errno::NOSPC | Errno::DQUOT) => crate::error::MAKE_ROOM.into(),
        (Step::Overlay { .. }, Errno::NODEV | Errno::PERM) => {
            "the kernel has no overlay file system for users: --overlay-backend fuse; see 'sandbox doctor'".into()
        }
        (Step::Served { .. }, _) => Missing::FuseMissing.remedy().cure,
        (Step::Listen { .. }, Errno::BUSY) => "an outer container answers calls itself, and only one can: no other ids can be pretended in it".into(),
        (Step::WriteProc { .. } | Step::OpenProc { .. }, Errno::ROFS) => Missing::ProcReadOnly.remedy().cure,
        (Step::Filesystem { .. }, Errno::PERM) => "an outer container masks this file system: see 'sandbox doctor'".into(),
        (Step::MakeDir { .. } | Step::MakeFile { .. }, Errno::NOSPC) => "the scratch is too small: files.scratch-size in the policy".into(),
        (Step::Attach { target, .. }, Errno::LOOP) => {
            format!("'{}' is a symbolic link inside, and mounts do not follow it", target.to_string_lossy())
        }
        (Step::Attach { target, .. }, Errno::OVERFLOW) => {
            format!("the kernel's overlay cannot make '{}' in a directory of an unmapped owner: mount it elsewhere", target.to_string_lossy())
        }
        (Step::Attach { target, .. }, Errno::ACCESS) => {
            format!("'{}' cannot be made: its directory is closed to us, or belongs to an id with no mapping here", target.to_string_lossy())
        }
        (Step::Attach { .. }, Errno::ROFS) => "the root is read-only, so the mount point must be there already".into(),
        (Step::CloneTree { device: Some(_), .. }, Errno::NODEV) => "that is not the device which this name stands for".into(),
        (Step::Unshare { .. } | Step::Split { .. }, Errno::NOSPC) => {
            format!("a limit on namespaces is reached, or 0 (sysctl -a --pattern ^user.max): {}", Missing::NamespaceLimitZero.remedy().cure)
        }
        (_, Errno::NOSYS) => "this kernel is too old, or an outer container's seccomp filter is in the way: see 'sandbox doctor'".into(),
        _ => return None,
    };
    Some(text)
}
