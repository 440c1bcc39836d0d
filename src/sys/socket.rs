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

/// Has whoever had the other end of this seqpacket socket closed it, by dying for example? Takes nothing out of it.
pub fn is_hung_up(socket: BorrowedFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(socket, &mut [0u8; 8], flags), Ok((0, _)))
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
