//! Who speaks with the monitor of a detached sandbox: connections, and who of them waits or takes part. Called by the loop, which does what
//! they ask; opened once by the monitor, for all lives of the sandbox.
//!
//! Never waits for any of them: who does not take an answer is gone.

use super::Exit;
use super::control::{Answer, Ask, Attach, Input, LONGEST, asked, is_ours, packet};
use super::relay::{Flow, Orphan, Port};
use crate::cgroup::Usage;
use crate::error::{Doing, Result};
use crate::logs::Stream;
use crate::logs::write::Writer;
use crate::sys::socket;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

/// Connections at once; also the streams into the sandbox, which outlive theirs until they are read.
const MOST: usize = 64;

/// The place where a sandbox is spoken with, and its log.
#[derive(Debug)]
pub struct Door {
    listener: OwnedFd,
    pub(super) log: Writer,
    clients: Vec<Client>,
    /// Connections that were ours before, to be let in when the sandbox lives.
    early: Vec<(OwnedFd, Attach)>,
    numbers: u64,
    /// Of the sandbox that lives now.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) terminal: bool,
}

#[derive(Debug)]
struct Client {
    number: u64,
    socket: OwnedFd,
    attached: bool,
    /// To be told how the sandbox ended.
    waits: bool,
    leash: bool,
}

/// What came of a connection.
pub(super) enum Heard {
    Ask(Ask),
    /// It ended; true: and it had the sandbox on a leash.
    Gone(bool),
}

impl Door {
    pub fn new(listener: OwnedFd, log: Writer) -> Door {
        Door { listener, log, clients: Vec::new(), early: Vec::new(), numbers: 0, stdin: None, terminal: false }
    }

    /// A connection that is there before the sandbox is: the first byte that the sandbox writes is for it, too.
    pub fn adopt(&mut self, socket: OwnedFd, attach: Attach) {
        self.early.push((socket, attach));
    }

    /// Those of `adopt`, as new connections that have asked already.
    pub(super) fn early(&mut self) -> Vec<(u64, Ask)> {
        let early = std::mem::take(&mut self.early);
        // Nothing is on their screens yet that would have to be drawn anew.
        early.into_iter().map(|(socket, attach)| (self.admit(socket), Ask::Attach(Attach { window: None, ..attach }))).collect()
    }

    fn admit(&mut self, socket: OwnedFd) -> u64 {
        self.numbers += 1;
        self.clients.push(Client { number: self.numbers, socket, attached: false, waits: false, leash: false });
        self.numbers
    }

    /// What to poll for input: connections to come, and those that are there.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (Option<u64>, BorrowedFd<'_>)> {
        let clients = self.clients.iter().map(|c| (Some(c.number), c.socket.as_fd()));
        std::iter::once((None, self.listener.as_fd())).chain(clients)
    }

    /// Let in who is waiting outside.
    pub(super) fn accept(&mut self) {
        while let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) {
            if !is_ours(socket.as_fd()) {
                continue;
            }
            let number = self.admit(socket);
            if self.clients.len() > MOST {
                self.answer(number, &refused(format!("cannot hear one more: {MOST} are connected to this sandbox")), &[]);
                self.part(number);
            }
        }
    }

    /// The next thing that this one said, if it said more.
    pub(super) fn hear(&mut self, number: u64) -> Option<Heard> {
        let client = self.client(number)?;
        let mut bytes = [0; LONGEST];
        match socket::receive(client.socket.as_fd(), &mut bytes, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => None,
            Ok((n, _)) if n > 0 => match asked(bytes.get(..n).unwrap_or_default()) {
                Some(ask) => Some(Heard::Ask(ask)),
                None => {
                    let answer = refused("cannot understand what is asked: it may be another version of sandbox".to_string());
                    self.answer(number, &answer, &[]);
                    self.part(number).map(Heard::Gone)
                }
            },
            Ok(_) | Err(_) => self.part(number).map(Heard::Gone),
        }
    }

    /// It is not heard any more. Had it the sandbox on a leash?
    pub(super) fn part(&mut self, number: u64) -> Option<bool> {
        let at = self.clients.iter().position(|c| c.number == number)?;
        Some(self.clients.remove(at).leash)
    }

    fn client(&mut self, number: u64) -> Option<&mut Client> {
        self.clients.iter_mut().find(|c| c.number == number)
    }

    /// Who cannot be told is found to be gone at its socket.
    pub(super) fn answer(&mut self, number: u64, answer: &Answer, fds: &[BorrowedFd]) {
        let Some(client) = self.client(number) else { return };
        if socket::send(client.socket.as_fd(), &packet(answer), fds, SendFlags::DONTWAIT).is_err() {
            let _ = rustix::net::shutdown(&client.socket, rustix::net::Shutdown::Both);
        }
    }

    pub(super) fn let_loose(&mut self, number: u64) {
        self.client(number).into_iter().for_each(|c| c.leash = false);
    }

    pub(super) fn await_end(&mut self, number: u64) {
        self.client(number).into_iter().for_each(|c| c.waits = true);
    }

    /// Give it pipes, and return what carries its input.
    pub(super) fn attach(&mut self, number: u64, attach: Attach, outward: &mut [Flow], inward: usize) -> Result<Option<Flow>> {
        if self.client(number).is_none_or(|c| c.attached) {
            self.answer(number, &refused("cannot attach twice".to_string()), &[]);
            return Ok(None);
        }
        let pipe = || socket::pipe().doing("make", "a pipe");
        let mut theirs = Vec::new();
        let mut flow = None;
        if let Some(stdin) = self.stdin.as_ref().filter(|_| attach.input != Input::None && inward < MOST) {
            let (read, write) = pipe()?;
            let copy = rustix::io::fcntl_dupfd_cloexec(stdin, 3).doing("duplicate", "the sandbox's stdin")?;
            flow = Some(Flow::new(Port::ours(read)?, Port::ours(copy)?, Orphan::Close));
            theirs.push(write);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if stream == Stream::Stderr && self.terminal {
                continue;
            }
            let (read, write) = pipe()?;
            if let Some(of) = outward.iter_mut().find(|flow| flow.stream() == Some(stream)) {
                of.join(number, Port::ours(write)?, self.terminal);
            } // else the sandbox has closed it, and the pipe is at its end
            theirs.push(read);
        }
        let answer = Answer::Attached { input: flow.is_some(), terminal: self.terminal };
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        if let Some(client) = self.client(number) {
            (client.attached, client.waits, client.leash) = (true, true, attach.leash);
        }
        self.answer(number, &answer, &fds);
        Ok(flow)
    }

    /// This life of it is over, and who is attached has all that was written: tell everybody who waits for that.
    pub fn ended(&mut self, exit: &Exit, used: Option<Usage>) {
        self.stdin = None;
        let answer = Answer::Exited { status: exit.status.into_raw(), timed_out: exit.timed_out, used: used.map(Box::new) };
        let (tell, stay) = std::mem::take(&mut self.clients).into_iter().partition(|c| c.waits);
        self.clients = stay;
        let tell: Vec<Client> = tell;
        for client in tell {
            let _ = socket::send(client.socket.as_fd(), &packet(&answer), &[], SendFlags::DONTWAIT);
        }
    }
}

pub(super) fn refused(why: String) -> Answer {
    Answer::Refused { why }
}
