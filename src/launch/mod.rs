//! The line: a Spec is frozen into a Plan, and the Plan is brought to life.
//!
//! *What*: `plan` freezes (looks at the host, decides, changes nothing), `assemble` records the tape, `begin` makes the user
//! namespace, `launch` has the child cloned and waits until the command runs; `explain` turns a fault into a sentence.
//!
//! *Why this way*: as soon as the ids can be guessed, `begin` has the user namespace made and its maps written (`birth`); the image and the
//! policies are read, and the tree, the filter and the tape are planned, meanwhile. A guess that was wrong is dropped, and costs its time.
//!
//! *Invariants*
//! - I1 one thread at the clone; checked, so that nothing of a sandbox's birth depends on what another thread does.
//! - I2 no effect outlives PID 1 but the name's lock, so the kernel undoes everything, whatever kills us: the mount
//!   namespace holds the scratch, PID 1 dies with its parent, and with it everything in its pid namespace.
#![forbid(unsafe_code)]

pub mod assemble;
pub mod enter;
pub mod explain;
pub mod plan;

pub use crate::birth::{Begun, begin, die_at};

use crate::cgroup::Held;
use crate::error::{Doing, Error, Kind, Result};
use crate::owners::{Place, Supervisor};
use crate::spec::Control;
use crate::sys::{clone, socket};
use crate::tape::wire;
use plan::Plan;
use std::os::fd::{AsFd, OwnedFd};

/// The command runs.
pub struct Live {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// PID 1's last words come from here. // tape/wire.rs
    pub wire: OwnedFd,
    /// What is written and then lost, to be read, if it can be asked for.
    pub layer: Option<OwnedFd>,
    /// Our side of the sandbox's terminal.
    pub terminal: Option<OwnedFd>,
    /// What holds its limits.
    pub cgroup: Option<Held>,
    /// For the record.
    pub degraded: Vec<(Control, String)>,
    /// Who answers for its ids.
    pub supervisor: Option<Supervisor>,
}

/// Bring a plan to life. On any error the child is dead and reaped when this returns, and its cgroup's name free.
pub fn launch(begun: Begun, plan: &Plan) -> Result<Live> {
    if clone::threads().is_some_and(|n| n != 1) {
        return Err(Error::new(Kind::Bug, "cannot clone: there is more than one thread")); // I1
    }
    // It gets ready while the rest is made.
    let supervisor = plan.is_supervised().then(Supervisor::start).transpose()?;
    let mut cgroup = None;
    let place = &mut |pid| {
        cgroup = plan.cgroup.as_ref().map(|piece| piece.apply(pid)).transpose()?;
        Ok(())
    };
    let born = begun.bear(&plan.tape, plan.early, plan.namespaces, 0, place, &|fault| explain::fault(&plan.told(), fault));
    let born = born.inspect_err(|_| cgroup.take().into_iter().for_each(Held::end))?;
    cgroup.iter().for_each(Held::started);
    let taken = || {
        let place = supervisor.is_some().then(|| take_place(&born.wire)).transpose()?;
        let layer = plan.hands_over().then(|| take(&born.wire, wire::LAYER, "the writable layer")).transpose()?;
        let terminal = plan.has_terminal().then(|| take(&born.wire, wire::TERMINAL, "the terminal")).transpose()?;
        if let (Some(supervisor), Some(place)) = (&supervisor, &place) {
            supervisor.answer(place, take(&born.wire, wire::LISTENER, "the listener")?)?;
        }
        Ok((layer, terminal))
    };
    match taken() {
        Ok((layer, terminal)) => {
            let degraded = plan.degraded.clone();
            Ok(Live { pid: born.pid, pidfd: born.pidfd, wire: born.wire, layer, terminal, cgroup, degraded, supervisor })
        }
        Err(e) => {
            born.kill();
            Err(e)
        }
    }
}

fn take(from: &OwnedFd, expected: u8, what: &str) -> Result<OwnedFd> {
    match socket::recv_fd(from.as_fd()).doing("take", what)? {
        (byte, Some(fd)) if byte == expected => Ok(fd),
        _ => Err(Error::new(Kind::Bug, format!("{what} did not come"))),
    }
}

fn take_place(from: &OwnedFd) -> Result<Place> {
    match socket::receive(from.as_fd(), &mut [0], rustix::net::RecvFlags::empty()).doing("take", "the sandbox's namespaces")? {
        (1, [Some(user), Some(mounts), Some(proc)]) => Ok(Place { user, mounts, proc }),
        _ => Err(Error::new(Kind::Bug, "the sandbox's namespaces did not come")),
    }
}
