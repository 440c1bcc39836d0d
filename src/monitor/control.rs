//! What is said to the monitor of a detached sandbox, and what it answers: the socket, and the words on it.
//!
//! *What*: a seqpacket socket of our own user; each packet is one JSON document of at most `LONGEST` bytes: an `Ask` to the monitor, an
//! `Answer` back. Streams are no packets: who attaches gets pipes of the sandbox, by SCM_RIGHTS, and carries their bytes as `run` does.
//! `door` has the monitor's side; `Link` is the other one, of `sandbox attach`, `run -it` and `wait`.
//!
//! *Why this way*: sandboxes outlive the program that started them, and the next version has to speak with them, so words have names, and
//! unknown fields are passed over. (Rejected: frames of data on the socket, as Docker and conmon have them: another copy of every byte, and
//! borders of frames to get wrong; postcard, whose enums are numbers.)
//!
//! *Invariants*
//! - I1 only processes of our user, in our user namespace, are heard: the same user inside of a sandbox is somebody else.
//! - I2 a packet that is longer, or no `Ask`, ends the conversation.
#![forbid(unsafe_code)]

use crate::cgroup::Usage;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::process::Found;
use crate::sys::socket;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes of a packet, at most.
pub const LONGEST: usize = 4096;

/// What becomes of the sandbox's stdin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Not for this one.
    #[default]
    None,
    /// What comes is passed on; at its end others may go on.
    Shared,
    /// Its end is the end of the sandbox's stdin.
    Only,
}

/// How somebody takes part in the streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attach {
    #[serde(default)]
    pub input: Input,
    /// The sandbox ends when this connection ends without `Detach`.
    #[serde(default)]
    pub leash: bool,
    /// Rows and columns of the terminal at the other end.
    #[serde(default)]
    pub window: Option<(u16, u16)>,
}

/// Said to the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    Attach(Attach),
    /// No leash from now on.
    Detach,
    /// Rows and columns.
    Resize(u16, u16),
    Signal(i32),
    /// The terminal at the other end was closed.
    HangUp,
    /// Answered when it has ended.
    Wait,
}

/// Said by the monitor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing more comes of it.
    Done,
    /// In the form of all our errors.
    Refused { why: String },
    /// With it come: where the sandbox's stdin is written to, if that was asked for and can be had; where its stdout is read, and, where it
    /// has no terminal, its stderr.
    Attached { input: bool, terminal: bool },
    /// How it ended: a wait status as of waitpid(2).
    Exited {
        status: i32,
        #[serde(default)]
        timed_out: bool,
        #[serde(default)]
        used: Option<Box<Usage>>,
    },
    /// This one did not read, and has no place any more.
    Dropped,
}

/// A place for the path that /proc has for a name in this directory; a socket's own may be too long. man: unix(7)
fn address(dir: BorrowedFd, name: &str) -> Result<SocketAddrUnix> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())).doing("name", "the control socket")
}

fn seqpacket(flags: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None).doing("make", "the control socket")
}

/// The socket of a sandbox whose lock we hold, in a directory that only we can enter. One that is there is of a monitor that died.
pub fn listen_at(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let _ = unlinkat(dir, name, AtFlags::empty());
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    bind(&socket, &address(dir, name)?).doing("bind", "the control socket")?;
    listen(&socket, 64).doing("listen at", "the control socket")?;
    Ok(socket)
}

/// Who is at the other end may be heard. // I1
pub(super) fn is_ours(socket: BorrowedFd) -> bool {
    let Ok(peer) = sockopt::socket_peercred(socket) else { return false };
    let process = u32::try_from(peer.pid.as_raw_nonzero().get()).ok().and_then(|pid| Found::open(pid).ok());
    peer.uid == rustix::process::geteuid() && process.is_some_and(|p| p.is_of_our_world())
}

pub(super) fn packet(said: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(said).unwrap_or_default()
}

/// I2
pub fn asked(packet: &[u8]) -> Option<Ask> {
    serde_json::from_slice(packet).ok()
}

/// An answer, and the descriptors that came with it.
type Said = (Answer, [Option<OwnedFd>; socket::MOST_FDS]);

/// The way to a monitor.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// None: nobody is there.
    pub fn connect(dir: BorrowedFd, name: &str) -> Result<Option<Link>> {
        let socket = seqpacket(SocketFlags::empty())?;
        match rustix::net::connect(&socket, &address(dir, name)?) {
            Ok(()) if is_ours(socket.as_fd()) => Ok(Some(Link(socket))),
            Ok(()) => Err(Error::new(Kind::Denied, "cannot believe the control socket: somebody else listens there").hint(format!("rm {name}"))),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(e) => Err(e).doing("connect to", "the control socket"),
        }
    }

    /// The other end of a pair whose first one the monitor gets when it is started.
    pub fn of(socket: OwnedFd) -> Link {
        Link(socket)
    }

    /// An error: it is gone.
    pub fn ask(&self, ask: &Ask) -> Result<()> {
        socket::send(self.0.as_fd(), &packet(ask), &[], SendFlags::empty()).doing("speak with", "the sandbox's monitor")
    }

    /// Wait for what it says next, and what comes with that. None: it is gone.
    pub fn answer(&self) -> Result<Option<Said>> {
        match self.said(RecvFlags::empty()) {
            Err(Errno::BADMSG) => {
                Err(Error::new(Kind::Io, "cannot understand the sandbox's monitor").hint("another version of sandbox may have started it"))
            }
            other => other.doing("hear from", "the sandbox's monitor"),
        }
    }

    /// Err(AGAIN): it has not said anything.
    pub(super) fn said(&self, flags: RecvFlags) -> Result<Option<Said>, Errno> {
        let mut bytes = [0; LONGEST];
        // It went with words of ours unread: that is told once, and before its last words.
        let got = match socket::receive(self.0.as_fd(), &mut bytes, flags) {
            Err(Errno::CONNRESET) => socket::receive(self.0.as_fd(), &mut bytes, flags),
            other => other,
        };
        match got {
            Ok((0, _)) | Err(Errno::CONNRESET) => Ok(None),
            Ok((n, fds)) => {
                let answer = serde_json::from_slice(bytes.get(..n).unwrap_or_default());
                answer.map(|answer| Some((answer, fds))).map_err(|_| Errno::BADMSG)
            }
            Err(e) => Err(e),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
