//! The child's whole vocabulary: what it can do, in which order it may do it, and the loop that does it.
//!
//! *What*: a `Tape` is a list of `Step`s that the parent records and the child plays. `play` runs it after clone3; `init` is
//! what PID 1 does after the workload has split off; `wire` is all that the two sides can say to each other.
//!
//! *Why this way*: what happens in which order is the security argument of a sandbox, so it is data: printed by `--dry-run`,
//! compared by the golden tests, named by number when a step fails. (Rejected: a straight-line child function, as in
//! bubblewrap and runc; it cannot be printed, and it allocates.)
//!
//! *Invariants*
//! - I1 steps are recorded in the order of their `Phase`; the `Recorder` refuses to go back.
//! - I2 the child never decides: if the kernel offers two ways, the parent looks at the host and records one.
//! - I3 the child never explains: it reports (step, errno), and the parent, who owns the tape, makes the sentence.
//! - I4 the child never allocates.
#![forbid(unsafe_code)]

pub mod init;
pub mod play;
pub mod step;
pub mod wire;

pub use step::{Barrier, Create, Groups, Lower, Phase, Slot, Step};

use crate::error::{Error, Kind, Result};

#[derive(Debug, Default)]
pub struct Tape(Vec<Step>);

impl Tape {
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The same without a command: it hands over the tree that it makes, and stays until the parent lets go. // container/copy.rs
    pub fn only_tree(self) -> Tape {
        let tree = self.0.into_iter().take_while(|s| s.phase() <= Phase::Root).filter(|s| !matches!(s, Step::HandOver { .. } | Step::Introduce));
        Tape(tree.chain([Step::HandOver { slot: Slot::Root }, Step::Stay]).collect())
    }
}

/// Collects steps; refuses those that come too late. // I1
#[derive(Debug, Default)]
pub struct Recorder {
    steps: Vec<Step>,
    misplaced: Option<String>,
}

impl Recorder {
    pub fn push(&mut self, step: Step) {
        if self.steps.last().is_some_and(|last| last.phase() > step.phase()) && self.misplaced.is_none() {
            self.misplaced = Some(format!("step '{step}' comes after its phase"));
        }
        self.steps.push(step);
    }

    pub fn finish(self) -> Result<Tape> {
        let ends = matches!(self.steps.last(), Some(Step::Exec { .. } | Step::Stay));
        match self.misplaced {
            Some(what) => Err(Error::new(Kind::Bug, what)),
            None if !ends => Err(Error::new(Kind::Bug, "a tape that does not end")),
            None => Ok(Tape(self.steps)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorder_refuses_to_go_back() {
        let mut r = Recorder::default();
        r.push(Step::NoNewPrivileges);
        r.push(Step::PrivatePropagation);
        assert!(r.finish().unwrap_err().message().contains("after its phase"));
        let mut r = Recorder::default();
        r.push(Step::NoNewPrivileges);
        assert!(r.finish().is_err());
    }
}
