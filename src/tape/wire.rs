//! What parent and child can say to each other. Two channels, each a descriptor inherited over the clone:
//!
//! - the *fault pipe*, child to parent: one `Fault` of 8 bytes, or end-of-file, which means that exec happened.
//! - the *wire*, a seqpacket socket: one byte per `Barrier` from the parent; from the child one byte `b'L'` with the descriptor
//!   of the writable layer, one byte `b'T'` with the terminal's, one byte `b'P'` with what `Step::Introduce` says and one byte `b'S'` with the
//!   listener of a filter, one byte `b'C'` with that of the child that goes on in a sandbox that was
//!   joined, and at the end the workload's wait status (4 bytes, native order) from PID 1, which then waits for `FAREWELL` if there
//!   is a cgroup to look at. End-of-file means that the other side is dead; a child that waits then leaves.

/// All that the child can ever say about failure. The parent owns the tape, so it can explain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub step: u32,
    pub errno: i32,
}

impl Fault {
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.step.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    pub fn from_bytes(bytes: [u8; 8]) -> Fault {
        let [a, b, c, d, e, f, g, h] = bytes;
        Fault { step: u32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) }
    }
}

/// The parent has read what the cgroup used.
pub const FAREWELL: u8 = b'F';

/// The byte that comes with the writable layer.
pub const LAYER: u8 = b'L';

/// The byte that comes with the pidfd of the child that goes on.
pub const CHILD: u8 = b'C';

/// The byte that comes with the user namespace, the mount namespace and a procfs.
pub const PLACE: u8 = b'P';

/// The byte that comes with a filter's listener.
pub const LISTENER: u8 = b'S';

/// The byte that comes with the terminal.
pub const TERMINAL: u8 = b'T';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_pipe() {
        let fault = Fault { step: 7, errno: -13 };
        assert_eq!(Fault::from_bytes(fault.to_bytes()), fault);
    }
}
