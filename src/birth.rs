//! How a process of ours comes to be in a user namespace of its own: the namespace and its maps, the clone, the tape, the exec.
//!
//! *What*: `begin` makes the user namespace and starts the writing of its maps; `Begun::start` does there what can be done early; `Begun::bear` has the child cloned, and waits until it has
//! played its tape to the end, which is an exec. Called by `launch` for a sandbox, by `role` for a helper.
//!
//! *Why this way*: the two setuid helpers that write the maps take a millisecond, and a processor each. So the user namespace is made
//! with a process in it that waits (`sys::clone::Intermediate`), the helpers are started on it, and it makes the namespaces that need
//! no plan, while the caller still decides the rest; both in short turns, since with two processors the helpers have one each. (Rejected:
//! all namespaces in one clone3 after planning, where nothing hides that time; handing a tape that is made later to a child that is there
//! already, which needs a second form of it, flat, or memory that PID 1 and its parent share.)
//!
//! *Invariants*
//! - I1 the child does not allocate and takes no lock, so other threads of ours do it no harm. It dies with the thread that called.
//! - I2 on any error the child is dead and reaped.
//! - I3 in debug builds `SANDBOX_DIE_AT=N` kills the parent at its step N, for the crash matrix.
#![forbid(unsafe_code)]

use crate::error::{Doing, Error, Kind, Result};
use crate::sys::clone::{self, Hurry, Intermediate, Stillborn};
use crate::sys::{self, socket};
use crate::tape::wire::Fault;
use crate::tape::{Barrier, Step, Tape, play};
use crate::userns::{Maps, Writing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// The user namespace, while its maps are written. Dropping it undoes it.
pub struct Begun {
    // Dropped in this order.
    writing: Writing,
    intermediate: Intermediate,
    hurry: Option<Hurry>,
}

/// Make the user namespace, and begin to write its maps. That needs the maps only: the rest may be unknown yet.
pub fn begin(maps: &Maps) -> Result<Begun> {
    die_at(1);
    let intermediate = Intermediate::new().map_err(|errno| crate::host::remedy::explain_userns_failure(errno.raw_os_error()))?;
    let writing = maps.write(intermediate.pid())?;
    let hurry = intermediate.hurry();
    Ok(Begun { writing, intermediate, hurry })
}

/// A child whose tape has ended: it runs what its last step executed.
pub struct Born {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Our end. // tape/wire.rs
    pub wire: OwnedFd,
}

/// What is to be done meanwhile.
pub struct Care<'a> {
    /// Put it into its cgroup, while the maps are still being written.
    pub place: &'a mut dyn FnMut(i32) -> Result<()>,
    /// It has said something on this wire, which is to be received.
    pub hear: &'a mut dyn FnMut(&OwnedFd) -> Result<()>,
    pub explain: &'a dyn Fn(Fault) -> Error,
}

impl Begun {
    /// Do there what comes `early`. After the helpers have begun, or where there are two processors only, they would wait for one, and we for
    /// them.
    pub fn start(mut self, early: Vec<Step>) -> Begun {
        self.intermediate.start(Box::new(move || play::early(&early)));
        die_at(2);
        self
    }

    /// Have the child cloned with these further namespaces, and wait until it runs. `first` steps of the tape were played early; it uses
    /// the descriptors below `floor` as it likes.
    pub fn bear(self, tape: &Tape, first: usize, namespaces: u64, floor: RawFd, care: Care) -> Result<Born> {
        let Care { place, hear, explain } = care;
        let ((wire, child_wire), (faults, child_faults)) = channels(floor)?;
        let parents = [wire.as_raw_fd(), faults.as_raw_fd()];
        let life = || {
            let channels = play::Channels { fault: child_faults.as_fd(), wire: child_wire.as_fd(), parents };
            play::play(tape, first, channels)
        };
        let Begun { writing, intermediate, hurry: _hurry } = self;
        let child = match intermediate.bear(namespaces, &life) {
            Ok(child) => child,
            Err(stillborn) => {
                // If the maps could not be written, that is the cause.
                writing.finish()?;
                return Err(match stillborn {
                    Stillborn::First(step, errno) => explain(Fault { step, errno }),
                    Stillborn::Clone(errno) => crate::host::remedy::explain_userns_failure(errno.raw_os_error()),
                });
            }
        };
        drop((child_wire, child_faults));
        die_at(3);
        let born = Born { pid: child.pid, pidfd: child.pidfd, wire };
        let placed = place(born.pid);
        match born.prepare(intermediate, writing, placed, faults, hear, explain) {
            Ok(()) => Ok(born),
            Err(e) => {
                born.kill();
                Err(e)
            }
        }
    }
}

impl Born {
    fn prepare(
        &self,
        intermediate: Intermediate,
        writing: Writing,
        placed: Result<()>,
        faults: OwnedFd,
        hear: &mut dyn FnMut(&OwnedFd) -> Result<()>,
        explain: &dyn Fn(Fault) -> Error,
    ) -> Result<()> {
        let mapped = writing.finish();
        placed?;
        die_at(4);
        if let Err(e) = mapped {
            // If the child failed meanwhile, that is the cause.
            return Err(pending(&faults).map_or(e, explain));
        }
        // The child may be dead already: then the fault pipe tells.
        let _ = rustix::net::send(&self.wire, &[Barrier::Mapped.byte()], rustix::net::SendFlags::NOSIGNAL);
        drop(intermediate);
        die_at(5);
        while !self.is_decided(&faults).doing("wait for", "the child")? {
            // If it cannot be heard, the child may have said why.
            hear(&self.wire).map_err(|e| pending(&faults).map_or(e, explain))?;
        }
        runs(&faults, explain)?;
        die_at(6);
        Ok(())
    }

    /// Wait until it runs or has failed (true), or says something.
    fn is_decided(&self, faults: &OwnedFd) -> sys::Result<bool> {
        let mut set = [PollFd::new(faults, PollFlags::IN), PollFd::new(&self.wire, PollFlags::IN)];
        clone::interrupted(|| poll(&mut set, None))?;
        Ok(!set[0].revents().is_empty())
    }

    /// End it, and wait until it is gone.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(self.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
    }
}

/// Have a child play a tape that begins in our own namespaces, and wait until it runs.
pub fn join(tape: &Tape, floor: RawFd, explain: &dyn Fn(Fault) -> Error) -> Result<Born> {
    let ((wire, child_wire), (faults, child_faults)) = channels(floor)?;
    let parents = [wire.as_raw_fd(), faults.as_raw_fd()];
    let life = || play::play(tape, 0, play::Channels { fault: child_faults.as_fd(), wire: child_wire.as_fd(), parents });
    let child = clone::born(&life).doing("clone", "a process that joins")?;
    drop((child_wire, child_faults));
    let born = Born { pid: child.pid, pidfd: child.pidfd, wire };
    match runs(&faults, explain) {
        Ok(()) => Ok(born),
        Err(e) => {
            born.kill();
            Err(e)
        }
    }
}

/// Our end and the child's.
type Ends = (OwnedFd, OwnedFd);

/// The wire, and the fault pipe; the child's ends from `floor` on.
fn channels(floor: RawFd) -> Result<(Ends, Ends)> {
    let (wire, child_wire) = socket::pair().doing("make", "a socket pair")?;
    let (faults, child_faults) = socket::pipe().doing("make", "a pipe")?;
    Ok(((wire, above(floor, child_wire)?), (faults, above(floor, child_faults)?)))
}

/// Wait until it runs.
fn runs(faults: &OwnedFd, explain: &dyn Fn(Fault) -> Error) -> Result<()> {
    let mut bytes = [0; 8];
    match clone::interrupted(|| rustix::io::read(faults, &mut bytes)).doing("hear from", "the child")? {
        0 => Ok(()),
        8 => Err(explain(Fault::from_bytes(bytes))),
        _ => Err(Error::new(Kind::Bug, "half a fault")),
    }
}

/// The same descriptor, with a number from `floor` on.
pub fn above(floor: RawFd, fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= floor {
        return Ok(fd);
    }
    rustix::io::fcntl_dupfd_cloexec(&fd, floor).doing("copy", "a descriptor")
}

/// A fault that is there already.
fn pending(faults: &OwnedFd) -> Option<Fault> {
    let mut bytes = [0; 8];
    let mut set = [PollFd::new(faults, PollFlags::IN)];
    let there = poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0);
    (there && rustix::io::read(faults, &mut bytes) == Ok(8)).then(|| Fault::from_bytes(bytes))
}

/// I3
#[cfg(debug_assertions)]
pub fn die_at(step: u32) {
    if std::env::var("SANDBOX_DIE_AT").is_ok_and(|n| n == step.to_string()) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
pub fn die_at(_: u32) {}
