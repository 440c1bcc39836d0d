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

pub mod accounts;
pub mod assemble;
pub mod enter;
pub mod explain;
pub mod plan;

pub use crate::birth::{Begun, begin, die_at};

use crate::birth::Care;
use crate::cgroup::Held;
use crate::error::{Doing, Error, Kind, Result};
use crate::overlay::server::{self, Tree};
use crate::owners::{Place, Supervisor};
use crate::role::Role;
use crate::spec::Control;
use crate::sys::{Errno, clone, socket};
use crate::tape::{Barrier, wire};
use plan::Plan;
use rustix::net::RecvFlags;
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
    /// Who serves its overlays, if they are ours.
    pub server: Option<Role>,
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
    let mut said = Said::default();
    let explain = |fault| explain::fault(&plan.told(), fault);
    let care = Care { place, hear: &mut |wire| said.hear(wire, Some(plan)).map(drop), explain: &explain };
    let born = begun.bear(&plan.tape, plan.early, plan.namespaces, 0, care);
    // If its overlays are not served any more, that is the cause.
    let born = born.map_err(|e| said.server.take().and_then(|server| server.ended()).unwrap_or(e));
    let born = born.inspect_err(|_| cgroup.take().into_iter().for_each(Held::end))?;
    cgroup.iter().for_each(Held::started);
    let mut taken = || {
        while !said.all(plan) {
            if !said.hear(&born.wire, Some(plan))? {
                return Err(Error::new(Kind::Bug, "not all came that the child was to hand over"));
            }
        }
        match (&supervisor, said.place.take(), said.listener.take()) {
            (Some(supervisor), Some(place), Some(listener)) => supervisor.answer(&place, listener, plan.pretended.as_ref()),
            _ => Ok(()),
        }
    };
    match taken() {
        Ok(()) => {
            let Said { layer, terminal, server, .. } = said;
            let degraded = plan.degraded.clone();
            Ok(Live { pid: born.pid, pidfd: born.pidfd, wire: born.wire, layer, terminal, cgroup, degraded, supervisor, server })
        }
        Err(e) => {
            born.kill();
            Err(e)
        }
    }
}

/// What the child has said so far.
#[derive(Default)]
struct Said {
    layer: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    place: Option<Place>,
    listener: Option<OwnedFd>,
    /// Parts of overlays to be served.
    parts: Vec<(u8, OwnedFd)>,
    server: Option<Role>,
}

impl Said {
    /// All that is to be handed over is there.
    fn all(&self, plan: &Plan) -> bool {
        (self.layer.is_some() || !plan.hands_over())
            && (self.terminal.is_some() || !plan.has_terminal())
            && ((self.place.is_some() && self.listener.is_some()) || !plan.is_supervised())
    }

    /// Receive one word of it; false: there is none any more. `plan`: what is to be served.
    fn hear(&mut self, from: &OwnedFd, plan: Option<&Plan>) -> Result<bool> {
        let mut word = [0];
        let (n, fds) = match socket::receive(from.as_fd(), &mut word, RecvFlags::empty()) {
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            other => other.doing("hear from", "the child")?,
        };
        match (word, fds) {
            _ if n == 0 => return Ok(false),
            ([wire::LAYER], [Some(fd), ..]) => self.layer = Some(fd),
            ([wire::TERMINAL], [Some(fd), ..]) => self.terminal = Some(fd),
            ([wire::PLACE], [Some(user), Some(mounts), Some(proc)]) => self.place = Some(Place { user, mounts, proc }),
            ([wire::LISTENER], [Some(fd), ..]) => self.listener = Some(fd),
            ([part @ (wire::DEVICE | wire::LOWER | wire::UPPER | wire::WORK)], [Some(fd), ..]) => self.parts.push((part, fd)),
            _ => return Err(Error::new(Kind::Bug, "an unexpected word from the child")),
        }
        let Some(plan) = plan else { return Ok(true) };
        let all: usize = plan.served.iter().map(|shape| shape.lowers + 3).sum();
        if self.server.is_none() && all > 0 && self.parts.len() == all {
            self.server = Some(server::start(&plan.maps, &plan.served, self.trees()?)?);
            // The child may be dead already: then the fault pipe tells.
            let _ = rustix::net::send(from, &[Barrier::Served.byte()], rustix::net::SendFlags::NOSIGNAL);
        }
        Ok(true)
    }

    fn trees(&mut self) -> Result<Vec<Tree>> {
        let mut parts = std::mem::take(&mut self.parts).into_iter().peekable();
        let mut trees = Vec::new();
        while let Some((wire::DEVICE, device)) = parts.next() {
            let lowers = std::iter::from_fn(|| parts.next_if(|(part, _)| *part == wire::LOWER)).map(|(_, fd)| fd).collect();
            let (Some((wire::UPPER, upper)), Some((wire::WORK, work))) = (parts.next(), parts.next()) else { break };
            trees.push(Tree { device, lowers, upper, work });
        }
        Ok(trees)
    }
}
