//! PID 1 of the sandbox: after the workload has split off, it reaps, forwards signals, and reports how the workload ended.
//!
//! Called by `play` at `Step::Split`. It stays in the outer user namespace, is not dumpable, holds two descriptors (the wire and
//! our procfs), blocks every signal and takes them one by one, and never allocates.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use super::play::Text;
use super::step::{Barrier, Extent};
use crate::sys::process;
use crate::sys::signal::{self, Set};
use crate::sys::{Errno, Result, clone, socket};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

/// What init needs to know.
pub struct Stay<'a> {
    pub uids: &'a [Extent],
    pub gids: &'a [Extent],
    /// We are PID 1 of a pid namespace: our end is everybody's. Otherwise descendants must be hunted down.
    pub owns_pids: bool,
    /// Our end is the end of the cgroup: not before the parent has seen what it used.
    pub lingers: bool,
    pub wire: BorrowedFd<'a>,
    pub proc: BorrowedFd<'a>,
}

/// Clone the workload into an inner user namespace. Returns in the workload, with the end on which it must wait for
/// `Barrier::Inner`; the other process stays here for ever, as init.
pub fn split(stay: Stay) -> Result<OwnedFd> {
    signal::set_mask(Set::ALL)?;
    // Everybody inside can read how PID 1 was called: paths of the host, and what else the flags say.
    process::show_as(b"sandbox-init");
    let (ours, theirs) = socket::pair()?;
    // A clone that returns on both sides: the workload's life is the rest of the tape.
    match clone::forked(clone::NEWUSER)? {
        None => {
            // A process group without us in it, so that we can interrupt it as a terminal does.
            rustix::process::setpgid(None, None)?;
            Ok(theirs)
        }
        Some(workload) => {
            drop(theirs);
            // An error is a fault of this step: the player reports it and leaves; the workload sees end-of-file, and leaves too.
            release(&stay, workload, ours.as_fd())?;
            serve(stay, workload)
        }
    }
}

fn release(stay: &Stay, workload: i32, start: BorrowedFd) -> Result<()> {
    process::set_dumpable(false)?;
    // `serve` has nobody to complain to, so here: does the kernel have close_range(2)?
    process::close_from(u32::MAX)?;
    if !stay.owns_pids {
        process::become_subreaper()?;
        // Our end alone would leave the workload's children behind: so not SIGKILL, but a signal on which we look at the wire.
        process::die_with_parent(Signal::TERM)?;
    }
    // The maps in the order that shadow's tools use. kernel: kernel/user_namespace.c map_write()
    write_map(stay, workload, b"/uid_map", stay.uids)?;
    write_map(stay, workload, b"/gid_map", stay.gids)?;
    clone::interrupted(|| rustix::io::write(start, &[Barrier::Inner.byte()])).map(drop)
}

/// Extents of the inner map, each within one extent of the outer: written as `n n count` lines.
fn write_map(stay: &Stay, workload: i32, name: &[u8], extents: &[Extent]) -> Result<()> {
    let mut buffer = [0; 32];
    let mut path = Text { buffer: &mut buffer, used: 0 };
    path.number(u32::try_from(workload).map_err(|_| Errno::SRCH)?)?;
    path.push(name)?;
    let file = rustix::fs::openat(stay.proc, path.finish()?, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // man: user_namespaces(7): one write, less than a page.
    let mut buffer = [0; 4095];
    let mut map = Text { buffer: &mut buffer, used: 0 };
    for extent in extents {
        for n in [extent.inside, extent.outside, extent.count] {
            map.number(n)?;
            map.push(b" ")?;
        }
        map.push(b"\n")?;
    }
    rustix::io::write(&file, map.bytes()).map(drop)
}

fn serve(stay: Stay, workload: i32) -> ! {
    // L5: of all that we inherited, keep two descriptors.
    let kept = crate::sys::inherit::duplicate(stay.wire.as_raw_fd(), 0).and_then(|()| crate::sys::inherit::duplicate(stay.proc.as_raw_fd(), 1));
    if kept.is_err() || process::close_from(2).is_err() {
        clone::exit(125);
    }
    let (wire, proc) = (crate::sys::inherit::inherited(&0), crate::sys::inherit::inherited(&1));
    // A command that runs for so long may run for hours: then memory that was for starting is given back.
    let mut settles = Some(libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 });
    loop {
        let (signal, sender) = match process::wait_signal(Set::ALL, settles) {
            Ok(came) => came,
            Err(errno) => {
                if errno == Errno::AGAIN && settles.take().is_some() {
                    process::settle();
                }
                continue;
            }
        };
        // Whoever is inside can signal us where landlock has no scopes (before Linux 6.12), but that is not for us to pass on.
        let above = if stay.owns_pids { 0 } else { rustix::process::getppid().map_or(0, |p| p.as_raw_nonzero().get()) };
        match signal {
            _ if signal != libc::SIGCHLD && !stay.owns_pids && socket::is_over(wire) => {
                end_descendants(proc);
                clone::exit(125);
            }
            libc::SIGCHLD => {
                while let Ok(Some((pid, status))) = process::reap(false) {
                    if pid == workload {
                        if !stay.owns_pids {
                            end_descendants(proc);
                        }
                        let _ = rustix::io::write(wire, &status.to_ne_bytes());
                        if stay.lingers {
                            // A byte, or end-of-file from a parent that died.
                            let _ = clone::interrupted(|| rustix::io::read(wire, &mut [0]));
                        }
                        clone::exit(0);
                    }
                }
            }
            _ if sender != above => {}
            // SIGTSTP means nothing to an orphaned process group (man: setpgid(2)), so stopping is done with SIGSTOP.
            libc::SIGTSTP => everybody(&stay, workload, libc::SIGSTOP),
            libc::SIGCONT => everybody(&stay, workload, libc::SIGCONT),
            // As from a terminal: programs such as make rely on it that their children are interrupted too.
            libc::SIGINT | libc::SIGQUIT => drop(process::kill(-workload, signal)),
            _ => drop(process::kill(workload, signal)),
        }
    }
}

fn everybody(stay: &Stay, workload: i32, signal: i32) {
    // Where the pids are the host's, -1 would be all of the user's processes: take the workload's process group.
    let _ = process::kill(if stay.owns_pids { -1 } else { -workload }, signal);
}

/// Without a pid namespace nobody kills what the workload leaves behind: kill our children until there are none.
/// Orphans come to us, since we are their subreaper. man: proc_tid_children(5)
fn end_descendants(proc: BorrowedFd) {
    loop {
        let mut buffer = [0u8; 4096];
        let mut path = [0; 48];
        let mut text = Text { buffer: &mut path, used: 0 };
        let own = rustix::process::getpid().as_raw_nonzero().get() as u32;
        let named = text.number(own).and_then(|()| text.push(b"/task/")).and_then(|()| text.number(own)).and_then(|()| text.push(b"/children"));
        let Ok(path) = named.and_then(|()| text.finish()) else { return };
        let Ok(file) = rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return };
        let n = rustix::io::read(&file, &mut buffer).unwrap_or(0);
        // Each number ends with a blank; one without is cut off, and names somebody else.
        let (list, _) = match buffer.get(..n).map(|text| (text, text.iter().rposition(|b| *b == b' '))) {
            Some((text, Some(end))) => text.split_at(end),
            _ => (&[][..], &[][..]),
        };
        for word in list.split(|b| *b == b' ') {
            let pid = word.iter().try_fold(0i32, |n, b| b.is_ascii_digit().then(|| n.wrapping_mul(10).wrapping_add(i32::from(b - b'0'))));
            if let Some(pid) = pid.filter(|p| *p > 1) {
                let _ = process::kill(pid, libc::SIGKILL);
            }
        }
        if n == 0 && process::reap(false) == Err(Errno::CHILD) {
            return;
        }
        let _ = process::reap(true);
    }
}
