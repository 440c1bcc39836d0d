//! The account files of a tree that lives: what its workload may have made of them. Read by handle, or, where the tree is an overlay of ours, by
//! the role `@accounts`, since nobody but who is in its user namespace may look into it. Called by `enter`.
#![forbid(unsafe_code)]

use super::plan::read_below;
use crate::error::{Error, Result};
use crate::role::{self, Directory, Needs, Stage, USUAL};
use crate::userns::Maps;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::ExitCode;

/// Missing or odd is empty.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Accounts {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

impl Accounts {
    /// Those below `root`. `within`: the user namespace that may look.
    pub fn read(root: OwnedFd, maps: &Maps, within: Option<BorrowedFd>) -> Result<Accounts> {
        if within.is_none() {
            return Ok(Accounts::below(&root));
        }
        let directories = [Directory { handle: root, writable: false }];
        role::start_with("@accounts", maps, &(), &directories, &Needs { within, ..USUAL })?.finish()
    }

    fn below(root: &OwnedFd) -> Accounts {
        let read = |path| read_below(root, path).unwrap_or_default();
        Accounts { passwd: read("etc/passwd"), group: read("etc/group") }
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        if name == "passwd" { self.passwd.clone() } else { self.group.clone() }
    }
}

/// Be the helper.
pub fn act(word: &OsStr) -> Option<ExitCode> {
    let not_you = || Error::usage("this word is for sandbox itself");
    (word == "@accounts").then(|| role::act(|(): (), stage: Stage| stage.directories.first().map(Accounts::below).ok_or_else(not_you)))
}
