//! The role `@overlay`: all overlays of one sandbox are served by one helper, until the last of them is unmounted.
//!
//! *What*: `start` has the helper serve `Tree`s; called by `launch`, with what the sandbox's first process handed over. `act` is the helper's
//! side, called by `main`.
//!
//! *Why this way*: the mounts are made inside the sandbox's user namespace, so no set-uid program is needed; they are served from another one
//! with the same ids, so that nothing inside can see, signal or trace who serves. (Rejected: a process for each overlay, of which the host's tree
//! has twenty; threads of the process that stays with the sandbox, whose rights are the user's and which must not have threads at a clone.)
//!
//! *Invariants*
//! - V1 it is confined as every helper before the first request is read: of the file systems it reaches its layers only. // role.rs I1
//! - V2 it never looks into what it serves: a request of its own that nobody answers would keep it from dying.
//! - V3 it ends when the last mount is gone, which the kernel sees to when PID 1 ends; with an error if it cannot serve one of them any more.
#![forbid(unsafe_code)]

use super::{Limit, Overlay, Ownership, Upper, open, threads};
use crate::error::{Doing, Error, Kind, Result};
use crate::role::{self, Directory, Needs, Role, Stage};
use crate::sys::process::rlimit;
use crate::userns::Maps;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::mpsc;

/// What an overlay's server does beyond other helpers. By number: what libseccomp has no names for, setxattrat(2) and its family.
const CALLS: &[&str] = &[
    "renameat",
    "renameat2",
    "fallocate",
    "copy_file_range",
    "ioctl",
    "fsync",
    "fdatasync",
    "fchmodat",
    "fchmodat2",
    "fremovexattr",
    "lsetxattr",
    "lgetxattr",
    "llistxattr",
    "lremovexattr",
    "name_to_handle_at",
    "463",
    "464",
    "465",
    "466",
];

/// Address space: a node for each file that the kernel holds is a small part of what the kernel holds for it.
const MEMORY: u64 = 8 << 30;
/// More overlays than this have two threads each.
const FEW: usize = 4;

/// What is to be known of an overlay, besides its directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// So many lower directories.
    pub lowers: usize,
    pub ownership: Ownership,
    pub limit: Limit,
    /// As in `Overlay`.
    pub within: Option<Vec<u8>>,
}

/// An overlay to be served: handles of its directories, and the device that it is mounted with.
#[derive(Debug)]
pub struct Tree {
    pub device: OwnedFd,
    pub lowers: Vec<OwnedFd>,
    pub upper: OwnedFd,
    pub work: OwnedFd,
}

/// Serve these; they are served when this returns.
pub fn start(maps: &Maps, shapes: &[Shape], trees: Vec<Tree>) -> Result<Role> {
    let (mut directories, mut devices) = (Vec::new(), Vec::new());
    for Tree { device, lowers, upper, work } in trees {
        directories.extend(lowers.into_iter().map(|handle| Directory { handle, writable: false }));
        directories.extend([upper, work].map(|handle| Directory { handle, writable: true }));
        devices.push(device);
    }
    let (_, descriptors) = rlimit(libc::RLIMIT_NOFILE).doing("read", "the limit of descriptors")?;
    let needs = Needs { calls: CALLS, memory: MEMORY, descriptors: descriptors.min(1 << 20), as_caller: true, more: &devices, within: None };
    let mut role = role::start_with("@overlay", maps, &shapes, &directories, &needs)?;
    match role.read(&mut [0]) {
        Ok(1) => Ok(role),
        _ => Err(role.finish::<()>().err().unwrap_or_else(|| Error::new(Kind::Io, "cannot serve the overlays: the helper has ended"))),
    }
}

/// Be the helper.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    (word == "@overlay").then(|| {
        // Each thread of the crate has 16 MiB for requests of a size that never comes.
        crate::sys::process::map_large_memory();
        role::act(serve)
    })
}

fn serve(shapes: Vec<Shape>, stage: Stage) -> Result<()> {
    let Stage { mut output, directories, .. } = stage;
    let mut handles = directories.into_iter();
    let not_you = || Error::usage("this word is for sandbox itself");
    let mut opened = Vec::new();
    let of = shapes.len();
    for Shape { lowers, ownership, limit, within } in shapes {
        let lowers = handles.by_ref().take(lowers).collect();
        let (dir, work) = handles.next().zip(handles.next()).ok_or_else(not_you)?;
        opened.push(open(Overlay { lowers, upper: Some(Upper { dir, work }), ownership, limit, within }, of)?);
    }
    if handles.len() != of {
        return Err(not_you());
    }
    let each = if of > FEW { 2 } else { threads() };
    let (tell, ended) = mpsc::channel();
    for (overlay, device) in opened.into_iter().zip(handles) {
        let tell = tell.clone();
        std::thread::Builder::new()
            .spawn(move || {
                let _ = tell.send(overlay.serve(device, each));
            })
            .doing("start", "a thread")?;
    }
    drop(tell);
    output.write_all(b"+").doing("answer", "whoever started us")?;
    drop(output);
    ended.iter().collect()
}
