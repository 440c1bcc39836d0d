//! The caller's terminal while the sandbox has its own: raw mode, and the window's size. Called by the loop of `monitor`.
//!
//! Never leaves the terminal raw: whoever drops this restores it, on errors too. Only SIGKILL of ourselves does (nobody can act
//! then; `reset` or `stty sane` mends it). Never changes the modes of a terminal in whose background we are.

use super::relay::foreground;
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use std::os::fd::BorrowedFd;

#[derive(Debug)]
pub(super) struct Terminal<'a> {
    /// A terminal of the caller's, for its size.
    window: Option<BorrowedFd<'a>>,
    /// The terminal that we read, if we do.
    keyboard: Option<BorrowedFd<'a>>,
    /// Its modes before we made it raw; None while it is not raw.
    saved: Option<Termios>,
}

impl<'a> Terminal<'a> {
    pub(super) fn new(window: Option<BorrowedFd<'a>>, keyboard: Option<BorrowedFd<'a>>) -> Terminal<'a> {
        Terminal { window, keyboard, saved: None }
    }

    /// Raw mode, if we are in the foreground and it is not raw already. A terminal that refuses is used as it is.
    pub(super) fn enter(&mut self) {
        let Some(tty) = self.keyboard.filter(|tty| self.saved.is_none() && foreground(*tty)) else { return };
        let Ok(saved) = tcgetattr(tty) else { return };
        let mut raw = saved.clone();
        raw.make_raw();
        if tcsetattr(tty, OptionalActions::Now, &raw).is_ok() {
            self.saved = Some(saved);
        }
    }

    /// As it was. TCSANOW: the other ways wait for the output to drain, for ever on a stopped terminal.
    pub(super) fn leave(&mut self) {
        if let (Some(tty), Some(saved)) = (self.keyboard, self.saved.take()) {
            let _ = tcsetattr(tty, OptionalActions::Now, &saved);
        }
    }

    /// We were continued. If the shell had the terminal meanwhile, it has set its own modes: what we saved is out of date.
    pub(super) fn resume(&mut self) {
        // Stopped from outside and continued in the foreground: perhaps still raw, perhaps not. What we saved first stays.
        let first = self.saved.take().filter(|_| self.keyboard.is_some_and(foreground));
        self.enter();
        self.saved = first.or(self.saved.take());
    }

    /// Raw mode is wanted and could not be had yet: we are in the background, and nothing will tell us when that ends.
    pub(super) fn waits(&self) -> bool {
        self.keyboard.is_some() && self.saved.is_none()
    }

    /// The window's size, for the sandbox.
    pub(super) fn size(&self) -> Option<Winsize> {
        self.window.and_then(|tty| tcgetwinsize(tty).ok())
    }

    /// The caller's terminal is gone for good.
    pub(super) fn close(&mut self) {
        self.keyboard = None;
        self.saved = None;
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
