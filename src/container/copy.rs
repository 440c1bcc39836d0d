//! The tree of a sandbox for `cp`: of one that runs, as it sees it; of one that does not, put together as for a run, without a command.
//! Called by `cli::cp`.
#![forbid(unsafe_code)]

use super::choose::{Chosen, Writes};
use super::exec::{self, first};
use super::run::{Call, Holding, ready};
use super::store::{Own, Sandbox, Sandboxes};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::image::copy::{Put, Putting, Take, Taking};
use crate::launch::enter::{Held, Target};
use crate::launch::plan::Io;
use crate::monitor::Streams;
use crate::spec::{Root, Spec};
use crate::sys::signal::Set;
use crate::userns::Maps;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A tree while we look at it.
pub struct Opened {
    top: OwnedFd,
    maps: Maps,
    /// Whose files are that nobody owns in particular: root inside, or on the host's tree the caller.
    pub owner: (u32, u32),
    held: Holder,
}

enum Holder {
    /// If overlays of ours are in it, with its user namespace.
    Running(#[expect(dead_code, reason = "holds the tree")] Held, Option<OwnedFd>),
    Ended(Box<Ended>),
}

/// In this order: the tree goes before its layer and its image, and those before the sandbox is anybody's again.
struct Ended {
    holding: Holding,
    _chosen: Chosen,
    _own: Own,
}

pub fn open(sandboxes: &Sandboxes, sandbox: &Sandbox, caller: &Caller) -> Result<Opened> {
    let mut spec = exec::spec(sandbox);
    if sandbox.is_running() {
        let target = Target::find(first(sandbox, "copy from or to")?, &spec, caller)?;
        let held = target.root()?;
        let within = target.served().map(|user| user.try_clone_to_owned()).transpose().doing("copy", "a descriptor")?;
        let top = held.handle.try_clone().doing("copy", "a descriptor")?;
        return Ok(Opened { top, owner: owner(&spec, &target.maps, caller), maps: target.maps, held: Holder::Running(held, within) });
    }
    let name = &sandbox.config.name;
    let (Some(below), Writes::Kept(layer) | Writes::Layer(layer)) = (&sandbox.config.image, &sandbox.config.writes) else {
        return Err(Error::new(
            Kind::Conflict,
            format!("cannot copy from or to the sandbox '{name}': it does not run, and keeps nothing of its tree"),
        )
        .hint(format!("sandbox start {name}; what runs an image keeps what it writes, until sandbox rm")));
    };
    let own = sandboxes.take(sandbox)?;
    let mut chosen = Chosen::again(below)?;
    // There is no command to give a terminal to.
    spec.process.tty = false;
    let call =
        Call { caller: caller.clone(), cwd: sandbox.config.cwd.clone(), env: Default::default(), mask: Set::EMPTY, window: (80, 24), guessed: None };
    let ready = ready(&spec, call, Some(&chosen), || nothing().map(|io| Some((io, Streams::Direct))), false)?;
    let (top, maps, holding) = ready.tree(&spec, &mut chosen, &Writes::Layer(layer.clone()))?;
    Ok(Opened { top, owner: owner(&spec, &maps, caller), maps, held: Holder::Ended(Box::new(Ended { holding, _chosen: chosen, _own: own })) })
}

fn owner(spec: &Spec, maps: &Maps, caller: &Caller) -> (u32, u32) {
    let first = |extents: &[crate::tape::step::Extent]| extents.first().map_or(0, |e| e.inside);
    match spec.root {
        Root::Host => {
            (maps.uid_inside(caller.uid).unwrap_or_else(|| first(&maps.uids)), maps.gid_inside(caller.gid).unwrap_or_else(|| first(&maps.gids)))
        }
        _ => (if maps.has_uid(0) { 0 } else { first(&maps.uids) }, if maps.has_gid(0) { 0 } else { first(&maps.gids) }),
    }
}

fn nothing() -> Result<Io> {
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).doing("open", "/dev/null");
    Ok(Io { stdin: null()?, stdout: null()?, stderr: null()? })
}

impl Opened {
    /// Of an overlay of ours the kernel shows nothing to who is elsewhere. kernel: fs/fuse/dir.c fuse_allow_current_process()
    fn within(&self) -> Option<BorrowedFd<'_>> {
        match &self.held {
            Holder::Running(_, within) => within.as_ref().map(|user| user.as_fd()),
            Holder::Ended(ended) => ended.holding.user.as_ref().map(|user| user.as_fd()),
        }
    }

    fn handle(&self) -> Result<OwnedFd> {
        self.top.try_clone().doing("copy", "a descriptor")
    }

    pub fn take(&self, take: &Take) -> Result<Taking> {
        Taking::start(self.handle()?, &self.maps, self.within(), take)
    }

    /// The ids are those of the sandbox.
    pub fn put(&self, put: Put) -> Result<Putting> {
        let extents = |list: &[crate::tape::step::Extent]| list.iter().map(|e| (e.inside, e.count)).collect();
        let put = Put { uids: extents(&self.maps.uids), gids: extents(&self.maps.gids), ..put };
        Putting::start(self.handle()?, &self.maps, self.within(), &put)
    }
}
