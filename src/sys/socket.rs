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

/// Send one byte, and a descriptor with it.
pub fn send_fd(socket: BorrowedFd, byte: u8, fd: BorrowedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    super::clone::interrupted(|| sendmsg(socket, &[IoSlice::new(&[byte])], &mut ancillary, SendFlags::NOSIGNAL)).map(drop)
}

/// Receive one byte, and the descriptor that came with it.
pub fn recv_fd(socket: BorrowedFd) -> Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let got = super::clone::interrupted(|| recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    if got.bytes == 0 || got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::PIPE);
    }
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.last().or(fd);
        }
    }
    Ok((byte[0], fd))
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
