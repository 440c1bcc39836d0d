//! The child's side of a terminal: a pty of our own devpts. man: pts(4), ioctl_tty(2)

use super::path::{self, Links};
use super::{Result, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::OFlags;

/// A new pty from `/dev/pts/ptmx` below `root`; its slave by TIOCGPTPEER, never by a path. cve: 2025-52565
pub fn open_pty(root: BorrowedFd, rows: u16, columns: u16) -> Result<(OwnedFd, OwnedFd)> {
    let master = path::open_below(root, c"dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY, Links::Refused)?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int from the pointer, which is valid for the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    // SAFETY: TIOCGPTPEER takes flags and answers with a new descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) }.into())?;
    // SAFETY: the descriptor was just made for us and has no other owner.
    let slave = unsafe { OwnedFd::from_raw_fd(slave as i32) };
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(slave.as_fd(), size)?;
    Ok((master, slave))
}

/// `signal` (SIGINT, SIGQUIT or SIGTSTP) to the foreground process group of the terminal with this master; false: it has none.
/// kernel: drivers/tty/pty.c pty_signal()
pub fn interrupt(master: BorrowedFd, signal: i32) -> bool {
    const TIOCSIG: libc::Ioctl = 0x4004_5436;
    // SAFETY: TIOCSIG takes the signal's number as its argument, not as a pointer.
    rustix::termios::tcgetpgrp(master).is_ok() && check(unsafe { libc::ioctl(master.as_raw_fd(), TIOCSIG, signal) }.into()).is_ok()
}

/// Make it the controlling terminal of this session. man: TIOCSCTTY(2const)
pub fn control(terminal: BorrowedFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};

    #[test]
    fn a_terminal_with_nobody_in_the_foreground_cannot_be_interrupted() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        assert!(!interrupt(master.as_fd(), libc::SIGINT));
    }
}
