//! How `commit`, `diff` and `export` come to what a sandbox writes: a layer on disk, or, while it runs, a directory without a name.
//!
//! *Why this way*: nothing serves, and nothing outlives the process: the record says which descriptor of who stays with the sandbox the
//! layer is. (Rejected: a socket to ask, as that would be a service for anybody who finds it; the way through /proc/PID/root, as that is the
//! workload's to change; pidfd_getfd(2), as Yama forbids it.)
//!
//! *Invariants*
//! - I1 the descriptor of who stays with it must be the very directory that the record names, on a tmpfs. // cve: 2022-31214
#![forbid(unsafe_code)]

use super::choose::Writes;
use super::store::Sandbox;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::Name;
use std::os::fd::OwnedFd;

/// man: statfs(2)
const TMPFS: u64 = 0x0102_1994;

/// What a sandbox writes to.
pub enum Writable {
    Kept(Name),
    Lost(OwnedFd),
}

/// Of a sandbox that runs an image.
pub fn find(sandbox: &Sandbox) -> Result<Writable> {
    let name = &sandbox.config.name;
    if let Writes::Kept(layer) | Writes::Layer(layer) = &sandbox.config.writes {
        return Ok(Writable::Kept(layer.clone()));
    }
    let gone = || {
        Error::new(Kind::NotFound, format!("cannot find what the sandbox '{name}' wrote: it has ended, and that is gone"))
            .hint("run it with --keep, and what it writes stays")
    };
    if !sandbox.alive {
        return Err(gone());
    }
    let process = sandbox.stays()?;
    let lost = sandbox.state.lost.as_ref().ok_or_else(gone)?;
    let upper = process.directory(lost.descriptor).map_err(|e| match e {
        rustix::io::Errno::NOENT => gone(),
        e => sandbox.distrust(&format!("the directory that it writes to cannot be opened: {}", crate::error::why(&e.into()))),
    })?;
    let stat = rustix::fs::fstat(&upper).doing("look at", "the writable layer")?;
    let tmpfs = rustix::fs::fstatfs(&upper).is_ok_and(|s| s.f_type as u64 == TMPFS);
    if (stat.st_dev, stat.st_ino) != (lost.device, lost.inode) || !tmpfs {
        return Err(sandbox.distrust("the directory that it writes to is another one"));
    }
    Ok(Writable::Lost(upper))
}
