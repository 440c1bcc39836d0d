//! The line: a Spec is frozen into a Plan, and the Plan is brought to life.
//!
//! *What*: `plan` freezes (looks at the host, decides, changes nothing), `assemble` records the tape, `begin` makes the user
//! namespace, `launch` has the child cloned and waits until the command runs; `explain` turns a fault into a sentence.
//!
//! *Why this way*: the two setuid helpers that write the maps take a millisecond, and a processor each. So as soon as the ids are
//! known, `begin` makes the user namespace with a process in it that waits (`sys::clone::Intermediate`), starts the helpers on it, and
//! has it make the namespaces that need no plan; the tree, the filter and the tape are planned meanwhile. (Rejected: all namespaces
//! in one clone3 after planning, where nothing hides that time; handing a tape that is made later to a child that is there already,
//! which needs a second form of it, flat, or memory that PID 1 and its parent share.)
//!
//! *Invariants*
//! - I1 one thread at the clone; checked, since the child of a clone with threads may hang for ever.
//! - I2 no effect outlives PID 1 but the name's lock, so the kernel undoes everything, whatever kills us: the mount
//!   namespace holds the scratch, PID 1 dies with its parent, and with it everything in its pid namespace.
//! - I3 in debug builds `SANDBOX_DIE_AT=N` kills the parent at its step N, for the crash matrix.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod explain;
pub mod plan;

use crate::cgroup::Held;
use crate::error::{Doing, Error, Kind, Result};
use crate::sys::clone::{self, Intermediate, Stillborn};
use crate::sys::socket;
use crate::tape::wire::Fault;
use crate::tape::{Barrier, Step, play};
use crate::userns::{Maps, Writing};
use plan::Plan;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The command runs.
pub struct Live {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// PID 1's last words come from here. // tape/wire.rs
    pub wire: OwnedFd,
    /// Our side of the sandbox's terminal.
    pub terminal: Option<OwnedFd>,
    /// What holds its limits.
    pub cgroup: Option<Held>,
}

/// The outer user namespace, while its maps are written. Dropping it undoes it.
pub struct Begun {
    // Dropped in this order.
    writing: Writing,
    intermediate: Intermediate,
}

/// Make the user namespace, begin to write its maps, and do there what comes `early`.
pub fn begin(maps: &Maps, early: Vec<Step>) -> Result<Begun> {
    if clone::threads().is_some_and(|n| n != 1) {
        return Err(Error::new(Kind::Bug, "cannot clone: there is more than one thread")); // I1
    }
    die_at(1);
    let intermediate = Intermediate::new(Box::new(move || play::early(&early)))
        .map_err(|errno| crate::host::remedy::explain_userns_failure(errno.raw_os_error()))?;
    let writing = maps.write(intermediate.pid())?;
    intermediate.start(); // not before, or where there are two processors only, the helpers would wait for one, and we for them
    die_at(2);
    Ok(Begun { writing, intermediate })
}

/// Bring a plan to life. On any error the child is dead and reaped when this returns.
pub fn launch(begun: Begun, plan: &Plan) -> Result<Live> {
    let (wire, child_wire) = socket::pair().doing("make", "a socket pair")?;
    let (faults, child_faults) = socket::pipe().doing("make", "a pipe")?;
    let parents = [wire.as_raw_fd(), faults.as_raw_fd()];
    let life = || {
        let channels = play::Channels { fault: child_faults.as_fd(), wire: child_wire.as_fd(), parents };
        play::play(&plan.tape, plan.early, channels)
    };
    let Begun { writing, intermediate } = begun;
    let child = intermediate.bear(plan.namespaces, &life);
    let child = match child {
        Ok(child) => child,
        Err(stillborn) => {
            // If the maps could not be written, that is the cause.
            writing.finish()?;
            return Err(match stillborn {
                Stillborn::First(step, errno) => explain::fault(plan, Fault { step, errno }),
                Stillborn::Clone(errno) => crate::host::remedy::explain_userns_failure(errno.raw_os_error()),
            });
        }
    };
    drop((child_wire, child_faults));
    die_at(3);
    let born = Born { pid: child.pid, pidfd: child.pidfd };
    match born.prepare(plan, intermediate, writing, &wire, faults) {
        Ok((terminal, cgroup)) => Ok(Live { pid: born.pid, pidfd: born.pidfd, wire, terminal, cgroup }),
        Err(e) => {
            born.kill();
            Err(e)
        }
    }
}

struct Born {
    pid: i32,
    pidfd: OwnedFd,
}

impl Born {
    fn prepare(
        &self,
        plan: &Plan,
        intermediate: Intermediate,
        writing: Writing,
        wire: &OwnedFd,
        faults: OwnedFd,
    ) -> Result<(Option<OwnedFd>, Option<Held>)> {
        // While the maps are written.
        let cgroup = plan.cgroup.as_ref().map(|piece| piece.apply(self.pid)).transpose();
        let mapped = writing.finish();
        let cgroup = cgroup?;
        die_at(4);
        if let Err(e) = mapped {
            // If the child failed meanwhile, that is the cause.
            return Err(pending(&faults).map_or(e, |fault| explain::fault(plan, fault)));
        }
        // The child may be dead already: then the fault pipe tells.
        let _ = rustix::net::send(wire, &[Barrier::Mapped.byte()], rustix::net::SendFlags::NOSIGNAL);
        drop(intermediate);
        die_at(5);
        let mut bytes = [0; 8];
        match clone::interrupted(|| rustix::io::read(&faults, &mut bytes)).doing("hear from", "the child")? {
            0 => {}
            8 => return Err(explain::fault(plan, Fault::from_bytes(bytes))),
            _ => return Err(Error::new(Kind::Bug, "half a fault")),
        }
        die_at(6);
        cgroup.iter().for_each(Held::started);
        if !plan.has_terminal() {
            return Ok((None, cgroup));
        }
        let (byte, terminal) = socket::recv_fd(wire.as_fd()).doing("take", "the terminal")?;
        if byte != crate::tape::wire::TERMINAL {
            return Err(Error::new(Kind::Bug, "no terminal came"));
        }
        Ok((terminal, cgroup))
    }

    fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(self.pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
    }
}

/// A fault that is there already.
fn pending(faults: &OwnedFd) -> Option<Fault> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
