//! Sockets and pipes between parent and child: socketpair(2), unix(7) descriptor passing.

use super::{Errno, Result};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Two ends that keep message borders, and tell by end-of-file that the other side is gone.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
}

/// So many descriptors come with one message, at most.
pub const MOST_FDS: usize = 3;

/// Send a message, and descriptors with it.
pub fn send(socket: BorrowedFd, bytes: &[u8], fds: &[BorrowedFd], flags: SendFlags) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    super::clone::interrupted(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags | SendFlags::NOSIGNAL)).map(drop)
}

/// Receive a message, and the descriptors that came with it. 0 bytes: the other side is gone.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8], flags: RecvFlags) -> Result<(usize, [Option<OwnedFd>; MOST_FDS])> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = super::clone::interrupted(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC))?;
    if got.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let mut fds = [const { None }; MOST_FDS];
    let all = ancillary.drain().filter_map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None });
    fds.iter_mut().zip(all.flatten()).for_each(|(place, fd)| *place = Some(fd));
    Ok((got.bytes, fds))
}

/// Send one byte, and a descriptor with it.
pub fn send_fd(socket: BorrowedFd, byte: u8, fd: BorrowedFd) -> Result<()> {
    send(socket, &[byte], &[fd], SendFlags::empty())
}

/// Receive one byte, and the descriptor that came with it.
pub fn recv_fd(socket: BorrowedFd) -> Result<(u8, Option<OwnedFd>)> {
    let mut byte = [0u8];
    let (n, [fd, ..]) = receive(socket, &mut byte, RecvFlags::empty())?;
    if n == 0 { Err(Errno::PIPE) } else { Ok((byte[0], fd)) }
}

/// The other side is gone, and what it said is read.
pub fn is_over(socket: BorrowedFd) -> bool {
    let mut byte = [0u8];
    matches!(rustix::net::recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
}

/// Bring `lo` up in this network namespace. man: netdevice(7)
pub fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is a plain record for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    use rustix::fd::AsRawFd;
    // SAFETY: SIOCSIFFLAGS reads an ifreq from the pointer, which is valid for the whole call.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;

    #[test]
    fn a_socket_is_over_when_the_other_end_is_gone_and_read() {
        let (ours, theirs) = pair().unwrap();
        assert!(!is_over(ours.as_fd()));
        rustix::net::send(&theirs, b"x", SendFlags::empty()).unwrap();
        drop(theirs);
        assert!(!is_over(ours.as_fd()));
        rustix::io::read(&ours, &mut [0u8; 1]).unwrap();
        assert!(is_over(ours.as_fd()));
    }
}
