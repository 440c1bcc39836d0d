//! The player: the child's whole life from clone3 to exec, as a loop over the tape.
//!
//! Called by `launch` inside the clone. Never allocates (I4), never decides (I2), never explains (I3).
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used)]

use super::step::{Create, FEW_LOWERS, Groups, Lower, MOST_LOWERS, SLOTS, Slot, Step};
use super::wire::{self, Fault};
use super::{Tape, init};
use crate::sys::path::Links;
use crate::sys::{Errno, Result, clone, confine, mount, path, process, signal, socket};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use std::ffi::CStr;

/// The child's two channels. // wire.rs
pub struct Channels<'a> {
    pub fault: BorrowedFd<'a>,
    pub wire: BorrowedFd<'a>,
    /// The parent's ends, which we have inherited and must not keep: we would never see its end.
    pub parents: [RawFd; 2],
}

/// Play the steps before the child is born, in the intermediate: the namespaces that need neither maps nor a plan. // sys/clone.rs
pub fn early(steps: &[Step]) -> std::result::Result<(), (u32, i32)> {
    for (number, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Unshare { namespaces, .. } => clone::unshare(*namespaces),
            Step::LoopbackUp => socket::loopback_up(),
            _ => Err(Errno::INVAL),
        };
        done.map_err(|errno| (number as u32, errno.raw_os_error()))?;
    }
    Ok(())
}

/// Play the tape from `first` to its end. Returns only by leaving the process.
pub fn play(tape: &Tape, first: usize, channels: Channels) -> ! {
    channels.parents.into_iter().for_each(crate::sys::inherit::close);
    let mut player = Player { channels, slots: [const { None }; SLOTS], inner: None };
    // The modes of what we make are meant in full; `Step::Umask` sets the workload's.
    rustix::process::umask(Mode::empty());
    for (number, step) in tape.steps().iter().enumerate().skip(first) {
        if let Err(errno) = player.step(step) {
            let fault = Fault { step: number as u32, errno: errno.raw_os_error() };
            let _ = rustix::io::write(player.channels.fault, &fault.to_bytes());
            clone::exit(125);
        }
    }
    clone::exit(125)
}

struct Player<'a> {
    channels: Channels<'a>,
    slots: [Option<OwnedFd>; SLOTS],
    /// After the split, in the workload: where PID 1 says that the inner maps are written.
    inner: Option<OwnedFd>,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Await(barrier) => {
                let from = match &self.inner {
                    Some(inner) => inner.as_fd(),
                    None => self.channels.wire,
                };
                let mut byte = [0];
                let n = clone::interrupted(|| rustix::io::read(from, &mut byte))?;
                // End-of-file: whoever we wait for is dead, and nobody is left to hear a fault.
                if n == 1 && byte == [barrier.byte()] { Ok(()) } else { clone::exit(125) }
            }
            Step::Unshare { namespaces, .. } => clone::unshare(*namespaces),
            Step::LoopbackUp => Err(Errno::INVAL), // `early`
            Step::Filesystem { fstype, options, attributes, slot } => {
                let options = options.iter().map(|(key, value)| (key.as_c_str(), value.as_deref()));
                self.fill(*slot, mount::filesystem(fstype, options, *attributes)?)
            }
            Step::WriteProc { path, value } => self.write_proc(path, value),
            Step::OpenProc { path, slot } => {
                let file = rustix::fs::openat(self.get(Slot::Proc)?, path.as_c_str(), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                self.fill(*slot, file)
            }
            Step::WriteSlot { slot, value } => write_all(self.take(*slot)?.as_fd(), value.to_bytes()),
            Step::OomScore(value) => self.write_proc(c"self/oom_score_adj", value),
            Step::SetIds { uid, gid, groups, open } => {
                set_ids(*uid, *gid, groups)?;
                if !open {
                    return Ok(());
                }
                // The change has made us undumpable, and then our /proc files, and those of our children, are the host's root's: init
                // could not write the inner maps. kernel: fs/proc/base.c task_dump_owner()
                process::set_dumpable(true)
            }
            Step::BecomeUser { uid, gid, groups } => {
                process::keep_capabilities()?;
                set_ids(*uid, *gid, groups)
            }
            Step::Join { namespace, kind, .. } => clone::join(crate::sys::inherit::inherited(namespace), *kind),
            Step::NotDumpable(_) => process::set_dumpable(false),
            Step::DieWithParent(_) => {
                process::die_with_parent(Signal::KILL)?;
                // It may have died before we asked.
                if socket::is_over(self.channels.wire) { clone::exit(125) } else { Ok(()) }
            }

            Step::PrivatePropagation => mount::all_private(),
            Step::Introduce => {
                let open = |path: &CStr| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                let (user, mounts) = (open(c"/proc/self/ns/user")?, open(c"/proc/self/ns/mnt")?);
                let proc = mount::clone_tree(rustix::fs::CWD, c"/proc", true)?;
                mount::attributes(proc.as_fd(), mount::RDONLY | mount::NOSUID | mount::NODEV | mount::NOEXEC, 0, true)?;
                let all = [user.as_fd(), mounts.as_fd(), proc.as_fd()];
                socket::send(self.channels.wire, &[wire::PLACE], &all, rustix::net::SendFlags::empty())
            }
            Step::EnterScratch { at } => {
                let target = rustix::fs::open(at.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                let scratch = self.take(Slot::Mount)?;
                mount::attach(scratch.as_fd(), target.as_fd())?;
                rustix::process::fchdir(&scratch)?;
                self.fill(Slot::Scratch, scratch)
            }
            Step::MakeDir { path, mode, owner } => {
                rustix::fs::mkdir(path.as_c_str(), Mode::from_raw_mode(*mode))?;
                // mkdir(2) takes neither setuid nor setgid.
                if *mode & 0o6000 != 0 {
                    rustix::fs::chmod(path.as_c_str(), Mode::from_raw_mode(*mode))?;
                }
                match owner {
                    Some((uid, gid)) => path::chown(rustix::fs::CWD, path, *uid, *gid),
                    None => Ok(()),
                }
            }
            Step::MakeFile { path, content, mode } => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                let file = rustix::fs::open(path.as_c_str(), flags, Mode::from_raw_mode(*mode))?;
                write_all(file.as_fd(), content)
            }
            Step::Symlink { target, path } => rustix::fs::symlink(target.as_c_str(), path.as_c_str()),
            Step::MakeWhiteout => path::whiteout(rustix::fs::CWD, c"whiteout"),
            Step::Whiteout { path } => rustix::fs::link(c"whiteout", path.as_c_str()),
            Step::CloneTree { path, recursive, attributes, device, slot } => {
                let tree = mount::clone_tree(rustix::fs::CWD, path, *recursive)?;
                if let Some((major, minor)) = device
                    && !path::is_device(tree.as_fd(), *major, *minor)?
                {
                    return Err(Errno::NODEV);
                }
                if *attributes != 0 {
                    mount::attributes(tree.as_fd(), *attributes, 0, *recursive)?;
                }
                self.fill(*slot, tree)
            }
            Step::Overlay { lower, upper, work, attributes, slot } => {
                let overlay = self.overlay(lower, upper, work, *attributes)?;
                self.fill(*slot, overlay)
            }
            Step::MakeInside { path } => path::make(self.get(Slot::Root)?, path, false, Links::Inside).map(drop),
            Step::Resemble { path, like } => {
                let like = rustix::fs::fstat(path::handle(self.get(Slot::Root)?, like, Links::Inside)?)?;
                path::chown(rustix::fs::CWD, path, like.st_uid, like.st_gid)?;
                rustix::fs::chmod(path.as_c_str(), Mode::from_raw_mode(like.st_mode & 0o7777))
            }
            Step::RootAt { at } => {
                let root = self.take(Slot::Mount)?;
                let target = path::handle(rustix::fs::CWD, at, Links::Refused)?;
                mount::attach(root.as_fd(), target.as_fd())?;
                self.fill(Slot::Root, root)
            }
            Step::Attach { slot, target, create, follow } => self.attach(*slot, target, *create, *follow),
            Step::Remount { target, attributes, recursive, absent_is_fine } => {
                let root = self.get(Slot::Root)?;
                let here = match path::handle(root, target, Links::Refused) {
                    Err(Errno::NOENT) if *absent_is_fine => return Ok(()),
                    other => other?,
                };
                let copy = mount::clone_tree(here.as_fd(), c"", *recursive)?;
                if *attributes != 0 {
                    mount::attributes(copy.as_fd(), *attributes, 0, *recursive)?;
                }
                mount::attach(copy.as_fd(), here.as_fd())
            }
            Step::OpenRoot => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                self.fill(Slot::Root, rustix::fs::open(c"/", flags, Mode::empty())?)
            }
            Step::Renew { orphan } => self.renew(*orphan),
            Step::HandOver { slot } => socket::send_fd(self.channels.wire, wire::LAYER, self.take(*slot)?.as_fd()),
            Step::Pivot { attributes } => {
                let root = self.get(Slot::Root)?;
                if *attributes != 0 {
                    mount::attributes(root, *attributes, 0, false)?;
                }
                mount::pivot(root)
            }

            Step::Hostname(name) => process::set_hostname(name.to_bytes()),
            Step::NewSession => rustix::process::setsid().map(drop),
            Step::Terminal { rows, columns, owner } => self.terminal(*rows, *columns, *owner),
            Step::Stdio { from, to } => crate::sys::inherit::duplicate(*from, *to),
            Step::Rlimit { resource, soft, hard, .. } => process::set_rlimit(*resource, *soft, *hard),
            Step::Umask(mask) => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(())
            }

            Step::Split { uids, gids, owns_pids, lingers } => {
                let proc = self.take(Slot::Proc)?;
                let stay = init::Stay { uids, gids, owns_pids: *owns_pids, lingers: *lingers, wire: self.channels.wire, proc: proc.as_fd() };
                self.inner = Some(init::split(stay)?);
                // We lead a process group now: where there is a terminal, the one in the foreground.
                if let Ok(terminal) = self.get(Slot::Terminal) {
                    rustix::termios::tcsetpgrp(terminal, rustix::process::getpid())?;
                }
                self.fill(Slot::Proc, proc)
            }
            Step::DropBounding { keep } => process::drop_bounding(*keep),
            Step::SetCapabilities(set) => process::set_capabilities(*set),
            Step::Chdir(path) => {
                rustix::process::chdir(path.as_c_str())?;
                // L6: a working directory outside the root ends here.
                if path::cwd_is_reachable()? { Ok(()) } else { Err(Errno::XDEV) }
            }
            Step::NoNewPrivileges => confine::set_no_new_privs(),
            Step::LandlockPath { ruleset, path, access, absent_is_fine } => {
                let here = match rustix::fs::open(path.as_c_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                    Err(Errno::NOENT) if *absent_is_fine => return Ok(()),
                    other => other?,
                };
                confine::landlock_add_path(crate::sys::inherit::inherited(ruleset), here.as_fd(), *access)
            }
            Step::LandlockEnforce { ruleset } => confine::landlock_restrict_self(crate::sys::inherit::inherited(ruleset)),
            Step::Listen { program, flags } => {
                let listener = confine::seccomp_listen(program, *flags)?;
                socket::send_fd(self.channels.wire, wire::LISTENER, listener.as_fd())
            }
            Step::Seccomp(program) => confine::seccomp_load(program),

            Step::CloseOnExecFrom(first) => process::close_on_exec_from(*first),
            Step::DefaultSignals { mask } => {
                process::default_signals();
                signal::set_mask(*mask).map(drop)
            }
            Step::Stay => {
                // End-of-file tells the parent that all went well; its own end ends us.
                crate::sys::inherit::close(self.channels.fault.as_raw_fd());
                let _ = clone::interrupted(|| rustix::io::read(self.channels.wire, &mut [0]));
                clone::exit(0)
            }
            Step::Exec { paths, argv, envp } => {
                let mut answer = Errno::NOENT;
                for candidate in paths {
                    match process::exec(candidate, argv, envp) {
                        Errno::NOENT | Errno::NOTDIR => {}
                        // Like execvp(3): a file that denies is remembered, and the search goes on; a directory that is closed
                        // to us, as those of other users in a PATH often are, is no place to find anything.
                        Errno::ACCESS => {
                            if paths.len() == 1 || rustix::fs::lstat(candidate.as_c_str()).err() != Some(Errno::ACCESS) {
                                answer = Errno::ACCESS;
                            }
                        }
                        other => return Err(other),
                    }
                }
                Err(answer)
            }
        }
    }

    /// Every directory by handle: no path is resolved twice, and none needs quoting for the option string.
    fn overlay(&self, lower: &[Lower], upper: &CStr, work: &CStr, attributes: u64) -> Result<OwnedFd> {
        const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
        let open = |path: &CStr| rustix::fs::open(path, DIRECTORY, Mode::empty());
        let mut handles: [Option<OwnedFd>; MOST_LOWERS] = [const { None }; MOST_LOWERS];
        for (handle, lower) in handles.iter_mut().zip(lower) {
            *handle = Some(match lower {
                Lower::At(path) => open(path)?,
                Lower::Inside(path) => path::handle(self.get(Slot::Root)?, path, Links::Inside)?,
            });
        }
        let handles = || handles.iter().flatten();
        let (upper, work) = (open(upper)?, open(work)?);
        if lower.len() <= FEW_LOWERS {
            let mut buffer = [0; 256];
            let mut list = Text { buffer: &mut buffer, used: 0 };
            handles().try_for_each(|fd| list.descriptor(if list.used == 0 { b"/proc/self/fd/" } else { b":/proc/self/fd/" }, fd))?;
            let (mut first, mut second) = ([0; 32], [0; 32]);
            let (upper, work) = (descriptor_path(&upper, &mut first)?, descriptor_path(&work, &mut second)?);
            let options = [(c"lowerdir", Some(list.finish()?)), (c"upperdir", Some(upper)), (c"workdir", Some(work)), (c"userxattr", None)];
            return mount::filesystem(c"overlay", options.into_iter(), attributes);
        }
        // mount(2) takes a page of options, and names relative to the working directory are short. Then it is attached already.
        let mut buffer = [0; 4096];
        let mut list = Text { buffer: &mut buffer, used: 0 };
        list.push(b"userxattr")?;
        list.descriptor(b",upperdir=", &upper)?;
        list.descriptor(b",workdir=", &work)?;
        let first = list.used;
        handles().try_for_each(|fd| list.descriptor(if list.used == first { b",lowerdir=" } else { b":" }, fd))?;
        let scratch = self.get(Slot::Scratch)?;
        let mut buffer = [0; 32];
        let mut target = Text { buffer: &mut buffer, used: 0 };
        target.number(u32::try_from(scratch.as_raw_fd()).map_err(|_| Errno::BADF)?)?;
        target.push(b"/many")?;
        rustix::process::chdir(c"/proc/self/fd")?;
        let made = mount::at(c"overlay", target.finish()?, list.finish()?);
        rustix::process::fchdir(scratch)?;
        made?;
        let overlay = open(c"many")?;
        mount::attributes(overlay.as_fd(), attributes, 0, false)?;
        Ok(overlay)
    }

    fn attach(&mut self, slot: Slot, target: &CStr, create: Create, follow: bool) -> Result<()> {
        let links = if follow { Links::Inside } else { Links::Refused };
        let root = self.get(Slot::Root)?;
        let here = match create {
            Create::Nothing => path::handle(root, target, links)?,
            Create::Directory => path::make(root, target, false, links)?,
            Create::File => path::make(root, target, true, links)?,
            Create::Absent => match path::handle(root, target, links) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => return Ok(()),
                other => other?,
            },
        };
        mount::attach(self.get(slot)?, here.as_fd())
    }

    fn terminal(&mut self, rows: u16, columns: u16, owner: Option<(u32, u32)>) -> Result<()> {
        let (master, slave) = crate::sys::pty::open_pty(self.get(Slot::Root)?, rows, columns)?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)))?;
        }
        socket::send_fd(self.channels.wire, wire::TERMINAL, master.as_fd())?;
        crate::sys::pty::control(slave.as_fd())?;
        for to in 0..3 {
            crate::sys::inherit::duplicate(slave.as_raw_fd(), to)?;
        }
        self.fill(Slot::Terminal, slave)
    }

    /// Returns in the new process only.
    fn renew(&self, orphan: bool) -> Result<()> {
        if orphan {
            return match clone::forked(0)? {
                None => Ok(()),
                Some(_) => clone::exit(0),
            };
        }
        // What we were called with is nobody's inside, and can be read there from the clone on.
        process::show_as(b"sandbox-exec");
        let Some(pidfd) = clone::sibling()? else { return Ok(()) };
        if socket::send_fd(self.channels.wire, wire::CHILD, pidfd.as_fd()).is_err() {
            // The parent is gone, and does not know of it.
            let _ = signal::pidfd_send(pidfd.as_fd(), libc::SIGKILL);
            clone::exit(125)
        }
        clone::exit(0)
    }

    fn write_proc(&self, path: &CStr, value: &CStr) -> Result<()> {
        let file = rustix::fs::openat(self.get(Slot::Proc)?, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        write_all(file.as_fd(), value.to_bytes())
    }

    fn fill(&mut self, slot: Slot, fd: OwnedFd) -> Result<()> {
        let place = self.slots.get_mut(slot as usize).ok_or(Errno::BADF)?;
        *place = Some(fd);
        Ok(())
    }

    fn get(&self, slot: Slot) -> Result<BorrowedFd<'_>> {
        self.slots.get(slot as usize).and_then(|s| s.as_ref()).map(|fd| fd.as_fd()).ok_or(Errno::BADF)
    }

    fn take(&mut self, slot: Slot) -> Result<OwnedFd> {
        self.slots.get_mut(slot as usize).and_then(Option::take).ok_or(Errno::BADF)
    }
}

fn set_ids(uid: u32, gid: u32, groups: &Groups) -> Result<()> {
    let groups = match groups {
        Groups::Keep => None,
        Groups::Set(list) => Some(&**list),
    };
    process::set_ids(uid, gid, groups)
}

fn write_all(fd: BorrowedFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let n = clone::interrupted(|| rustix::io::write(fd, bytes))?;
        bytes = bytes.get(n..).ok_or(Errno::IO)?;
    }
    Ok(())
}

/// `/proc/self/fd/N` without allocating.
fn descriptor_path<'a>(fd: &OwnedFd, buffer: &'a mut [u8; 32]) -> Result<&'a CStr> {
    let mut text = Text { buffer, used: 0 };
    text.descriptor(b"/proc/self/fd/", fd)?;
    text.finish()
}

/// A bounded text that is put together without allocating.
pub(super) struct Text<'a, const N: usize> {
    pub buffer: &'a mut [u8; N],
    pub used: usize,
}

impl<'a, const N: usize> Text<'a, N> {
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.used + bytes.len();
        self.buffer.get_mut(self.used..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    pub fn number(&mut self, mut n: u32) -> Result<()> {
        let mut digits = [0u8; 10];
        let mut from = digits.len();
        loop {
            from -= 1;
            *digits.get_mut(from).ok_or(Errno::INVAL)? = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.push(digits.get(from..).unwrap_or(&[]))
    }

    /// A prefix, and the number of a descriptor.
    fn descriptor(&mut self, prefix: &[u8], fd: &OwnedFd) -> Result<()> {
        self.push(prefix)?;
        self.number(u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::BADF)?)
    }

    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or(&[])
    }

    pub fn finish(mut self) -> Result<&'a CStr> {
        self.push(&[0])?;
        CStr::from_bytes_until_nul(self.buffer).map_err(|_| Errno::INVAL)
    }
}
