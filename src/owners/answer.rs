//! What a call gets for an answer. Nothing in here decides what a program may do: the kernel has done that, or still will.
#![forbid(unsafe_code)]

use super::ids::{Four, Ids, KEEP, MOST_GROUPS, Sets};
use crate::overlay::{self, Override};
use crate::sys::task::{self, read_memory, read_path, write_stat, write_statx, write_words};
use crate::sys::{Errno, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, XattrFlags, openat, openat2};
use rustix::process::Pid;
use rustix::thread::CapabilitySet;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The calls that are answered here. // seccomp.rs `notify`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Stat,
    Lstat,
    Fstat,
    Fstatat,
    Statx,
    Chown,
    Lchown,
    Fchown,
    Fchownat,
    Mknod,
    Mknodat,
    Open,
    Creat,
    Openat,
    Openat2,
    Mkdir,
    Mkdirat,
    Symlink,
    Symlinkat,
    SetId(Whose),
    SetRe(Whose),
    SetRes(Whose),
    SetFiles(Whose),
    SetGroups,
    Real(Whose),
    Effective(Whose),
    GetRes(Whose),
    GetGroups,
    /// prctl(2), PR_SET_KEEPCAPS.
    KeepCapabilities,
    /// About RLIMIT_LOCKS, in which we keep what is ours; the argument that says where to put the old limit.
    Limit(Option<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    User,
    Group,
}

/// Their names; some machines lack some.
pub const CALLS: [(&str, Call); 39] = {
    use Call::*;
    use Whose::*;
    [
        ("stat", Stat),
        ("lstat", Lstat),
        ("fstat", Fstat),
        ("newfstatat", Fstatat),
        ("statx", Statx),
        ("chown", Chown),
        ("lchown", Lchown),
        ("fchown", Fchown),
        ("fchownat", Fchownat),
        ("mknod", Mknod),
        ("mknodat", Mknodat),
        ("open", Open),
        ("creat", Creat),
        ("openat", Openat),
        ("openat2", Openat2),
        ("mkdir", Mkdir),
        ("mkdirat", Mkdirat),
        ("symlink", Symlink),
        ("symlinkat", Symlinkat),
        ("setuid", SetId(User)),
        ("setgid", SetId(Group)),
        ("setreuid", SetRe(User)),
        ("setregid", SetRe(Group)),
        ("setresuid", SetRes(User)),
        ("setresgid", SetRes(Group)),
        ("setfsuid", SetFiles(User)),
        ("setfsgid", SetFiles(Group)),
        ("setgroups", SetGroups),
        ("getuid", Real(User)),
        ("getgid", Real(Group)),
        ("geteuid", Effective(User)),
        ("getegid", Effective(Group)),
        ("getresuid", GetRes(User)),
        ("getresgid", GetRes(Group)),
        ("getgroups", GetGroups),
        ("prctl", KeepCapabilities),
        ("setrlimit", Limit(None)),
        ("getrlimit", Limit(Some(1))),
        ("prlimit64", Limit(Some(3))),
    ]
};

/// Who calls, and with what.
pub struct Task<'a> {
    pub pid: i32,
    pub args: [u64; 6],
    /// It still waits for the answer: what was read of this pid was its own.
    pub waits: &'a dyn Fn() -> bool,
}

impl Task<'_> {
    fn id(&self, n: usize) -> u32 {
        self.args[n] as u32
    }

    fn waits(&self) -> Result<()> {
        if (self.waits)() { Ok(()) } else { Err(Errno::SRCH) }
    }

    fn path(&self, n: usize) -> Result<Vec<u8>> {
        read_path(self.pid, self.args[n])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The kernel does it: we have nothing to say to it. // I2
    Kernel,
    Value(i64),
    Error(Errno),
}

/// What an object is named by: a descriptor or a path from there, or a path from the working directory.
struct Named {
    dir: i32,
    path: Vec<u8>,
    follow: bool,
}

impl Named {
    fn at(task: &Task, n: usize, follow: bool) -> Result<Named> {
        let path = task.path(n)?;
        if path.is_empty() { Err(Errno::NOENT) } else { Ok(Named { dir: libc::AT_FDCWD, path, follow }) }
    }

    fn open(fd: u64) -> Result<Named> {
        let dir = fd as i32;
        if dir < 0 { Err(Errno::BADF) } else { Ok(Named { dir, path: Vec::new(), follow: true }) }
    }

    /// `dir` is the argument 0, and the path argument 1. `others`: flags that mean nothing to us.
    fn below(task: &Task, flags: u64, others: i32) -> Result<Named> {
        let flags = flags as i32;
        if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | others) != 0 {
            return Err(Errno::INVAL);
        }
        let empty = flags & libc::AT_EMPTY_PATH != 0;
        let path = if empty && task.args[1] == 0 { Vec::new() } else { task.path(1)? };
        if path.is_empty() && !empty {
            return Err(Errno::NOENT);
        }
        Ok(Named { dir: task.args[0] as i32, path, follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0 })
    }
}

const RLIMIT_LOCKS: u32 = libc::RLIMIT_LOCKS;
/// kernel: include/uapi/linux/magic.h FUSE_SUPER_MAGIC
pub const FUSE: u64 = 0x6573_5546;

/// Who answers.
pub struct Desk {
    /// The host's procfs and nothing beside it: our working directory, so that `self/fd/N` is a path for what has no other.
    proc: OwnedFd,
    /// Device, inode and mount of our root: that of the task whose path was resolved last.
    root: Option<(u64, u64, u64)>,
    sets: Sets,
    /// Who makes a file for the kernel, and for the server: the one id.
    own: (u32, u32),
    /// File systems by their device: do they keep owners by attribute?
    served: HashMap<u64, bool>,
    made: u64,
    coming: Vec<Coming>,
    /// Tasks that keep their capabilities when they stop being root, and what they run: an exec ends it.
    keep: VecDeque<(i32, (u64, u64))>,
}

/// What the kernel is about to make for somebody whom it does not know.
struct Coming {
    dir: OwnedFd,
    name: Vec<u8>,
    owner: (u32, u32),
    by: i32,
    since: Instant,
}

const MOST_KEEP: usize = 64;
/// So many are waited for, so long.
const MOST_COMING: usize = 16;
const COMES: Duration = Duration::from_secs(3);

impl Desk {
    pub fn new(proc: OwnedFd, sets: Sets, own: (u32, u32)) -> Desk {
        Desk { proc, root: None, sets, own, served: HashMap::new(), made: 0, coming: Vec::new(), keep: VecDeque::new() }
    }

    /// Something may have come to be that nobody has asked about.
    pub fn waits(&self) -> bool {
        !self.coming.is_empty()
    }

    /// What has come to be belongs to its maker. `again`: this task's last call is over, so that what has not come will not.
    pub fn settle(&mut self, again: Option<i32>) {
        self.coming.retain(|it| match openat(&it.dir, it.name.as_slice(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(object) => {
                let _ = give(object.as_fd(), it.owner);
                false
            }
            Err(_) => again != Some(it.by) && it.since.elapsed() < COMES,
        });
    }

    pub fn answer(&mut self, call: Call, task: &Task) -> Reply {
        use Call::*;
        self.settle(Some(task.pid));
        let args = task.args;
        let looked = match call {
            Stat => Named::at(task, 0, true).and_then(|named| self.stat(task, &named, args[1])),
            Lstat => Named::at(task, 0, false).and_then(|named| self.stat(task, &named, args[1])),
            Fstat => Named::open(args[0]).and_then(|named| self.stat(task, &named, args[1])),
            Fstatat => Named::below(task, args[3], libc::AT_NO_AUTOMOUNT).and_then(|named| self.stat(task, &named, args[2])),
            Statx => Named::below(task, args[2], libc::AT_NO_AUTOMOUNT | libc::AT_STATX_SYNC_TYPE).and_then(|named| self.statx(task, &named)),
            Chown => Named::at(task, 0, true).and_then(|named| self.chown(task, &named, task.id(1), task.id(2))),
            Lchown => Named::at(task, 0, false).and_then(|named| self.chown(task, &named, task.id(1), task.id(2))),
            Fchown => Named::open(args[0]).and_then(|named| {
                self.is_open(task, named.dir)?;
                self.chown(task, &named, task.id(1), task.id(2))
            }),
            Fchownat => Named::below(task, args[4], 0).and_then(|named| self.chown(task, &named, task.id(2), task.id(3))),
            Mknod => Named::at(task, 0, true).and_then(|named| self.mknod(task, named, task.id(1), args[2])),
            Mknodat => {
                task.path(1).map(|path| Named { dir: args[0] as i32, path, follow: true }).and_then(|n| self.mknod(task, n, task.id(2), args[3]))
            }
            Open | Creat | Mkdir => Named::at(task, 0, true).and_then(|named| self.makes(task, named)),
            Openat | Mkdirat => task.path(1).and_then(|path| self.makes(task, Named { dir: args[0] as i32, path, follow: true })),
            Openat2 => self.makes_as_said(task),
            Symlink => Named::at(task, 1, false).and_then(|named| self.makes(task, named)),
            Symlinkat => task.path(2).and_then(|path| self.makes(task, Named { dir: args[1] as i32, path, follow: false })),
            KeepCapabilities => self.keeps(task, args[1] != 0),
            // The rest is about nothing but what we keep ourselves.
            _ => return self.credentials(call, task).unwrap_or_else(Reply::Error),
        };
        // What we do not find, the kernel will not find either, and knows why.
        looked.unwrap_or(Reply::Kernel)
    }

    /// The object itself, as the task would find it: from its root and its directories, by handles. // I1
    fn find(&mut self, task: &Task, named: &Named) -> Result<OwnedFd> {
        let absolute = named.path.starts_with(b"/");
        let base = match named.dir {
            _ if absolute => None,
            libc::AT_FDCWD => Some(self.of(task, "cwd")?),
            fd => Some(self.of(task, &format!("fd/{fd}"))?),
        };
        if named.path.is_empty() {
            task.waits()?;
            return base.ok_or(Errno::NOENT);
        }
        self.stand_at_its_root(task)?;
        task.waits()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC | if named.follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let from = base.as_ref().map_or(CWD, |fd| fd.as_fd());
        openat2(from, named.path.as_slice(), flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
    }

    /// What its /proc entry leads to.
    fn of(&self, task: &Task, entry: &str) -> Result<OwnedFd> {
        openat(&self.proc, format!("{}/{entry}", task.pid), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// `/`, and what `..` cannot leave, are for us what they are for the task.
    fn stand_at_its_root(&mut self, task: &Task) -> Result<()> {
        let root = self.of(task, "root")?;
        let stat = task::statx(root.as_fd(), 0, libc::STATX_INO | libc::STATX_MNT_ID)?;
        let place = (rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino, stat.stx_mnt_id);
        if self.root != Some(place) {
            self.root = None;
            rustix::process::fchdir(&root)?;
            let moved = rustix::process::chroot(c".");
            rustix::process::fchdir(&self.proc)?;
            moved?;
            self.root = Some(place);
        }
        Ok(())
    }

    /// Not merely a name for something: fchown(2) of that is EBADF. man: open(2), O_PATH
    fn is_open(&self, task: &Task, fd: i32) -> Result<()> {
        let text = self.text(task, &format!("fdinfo/{fd}"))?;
        let flags = field(&text, "flags:").ok_or(Errno::INVAL)?;
        if flags & OFlags::PATH.bits() == 0 { Ok(()) } else { Err(Errno::BADF) }
    }

    /// The beginning of one of its /proc files.
    fn text(&self, task: &Task, entry: &str) -> Result<String> {
        let file = openat(&self.proc, format!("{}/{entry}", task.pid), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = [0u8; 1024];
        let n = rustix::io::read(&file, &mut text)?;
        Ok(String::from_utf8_lossy(text.get(..n).unwrap_or_default()).into_owned())
    }

    /// Its owner, where that is kept by attribute.
    fn owner(&mut self, object: BorrowedFd, stat: &task::Stat) -> Result<(u32, u32)> {
        let known = self.served.get(&stat.st_dev).copied();
        if known == Some(false) || (known.is_none() && rustix::fs::fstatfs(object)?.f_type as u64 != FUSE) {
            self.served.insert(stat.st_dev, false);
            return Err(Errno::OPNOTSUPP);
        }
        let mut text = [0u8; 32];
        let answer = rustix::fs::getxattr(path_of(object), overlay::OWNER, &mut text[..]);
        // What went wrong otherwise may go well the next time.
        if matches!(answer, Ok(_) | Err(Errno::OPNOTSUPP | Errno::NODATA)) {
            self.served.insert(stat.st_dev, answer.is_ok());
        }
        let text = text.get(..answer?).and_then(|t| std::str::from_utf8(t).ok()).and_then(|t| t.split_once(':'));
        let number = |word: &str, shown: u32| word.parse().map(|id| if id == KEEP { shown } else { id }).map_err(|_| Errno::INVAL);
        text.ok_or(Errno::INVAL).and_then(|(uid, gid)| Ok((number(uid, stat.st_uid)?, number(gid, stat.st_gid)?)))
    }

    fn stat(&mut self, task: &Task, named: &Named, to: u64) -> Result<Reply> {
        let object = self.find(task, named)?;
        let mut stat = task::stat(object.as_fd())?;
        let owner = self.owner(object.as_fd(), &stat)?;
        if owner == (stat.st_uid, stat.st_gid) {
            return Ok(Reply::Kernel);
        }
        (stat.st_uid, stat.st_gid) = owner;
        task.waits()?;
        write_stat(task.pid, to, &stat)?;
        Ok(Reply::Value(0))
    }

    fn statx(&mut self, task: &Task, named: &Named) -> Result<Reply> {
        let object = self.find(task, named)?;
        let owner = self.owner(object.as_fd(), &task::stat(object.as_fd())?)?;
        let mut stat = task::statx(object.as_fd(), task.id(2) & libc::AT_STATX_SYNC_TYPE as u32, task.id(3))?;
        if owner == (stat.stx_uid, stat.stx_gid) {
            return Ok(Reply::Kernel);
        }
        (stat.stx_uid, stat.stx_gid) = owner;
        task.waits()?;
        write_statx(task.pid, task.args[4], &stat)?;
        Ok(Reply::Value(0))
    }

    /// man: chown(2)
    fn chown(&mut self, task: &Task, named: &Named, uid: u32, gid: u32) -> Result<Reply> {
        let object = self.find(task, named)?;
        let stat = task::stat(object.as_fd())?;
        let owner = self.owner(object.as_fd(), &stat)?;
        let keeps = |id: u32, old: u32| id == KEEP || id == old;
        if owner == (stat.st_uid, stat.st_gid) && keeps(uid, stat.st_uid) && keeps(gid, stat.st_gid) {
            return Ok(Reply::Kernel);
        }
        let ids = self.ids(task)?;
        let own = ids.user.files == owner.0 && keeps(uid, owner.0) && (keeps(gid, owner.1) || ids.is_in(gid));
        if !own && !self.can(task, ids, CapabilitySet::CHOWN) {
            return Ok(Reply::Error(Errno::PERM));
        }
        task.waits()?;
        Ok(done(give(object.as_fd(), (uid, gid))))
    }

    /// A name that may not be there yet, and the directory that it is in, which keeps owners by attribute; and the group that this gives, if it
    /// does.
    fn place(&mut self, task: &Task, mut named: Named) -> Result<(OwnedFd, Vec<u8>, Option<u32>)> {
        let end = named.path.iter().rposition(|b| *b != b'/').map_or(0, |at| at + 1);
        named.path.truncate(end);
        let cut = named.path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        let name = named.path.split_off(cut);
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Errno::INVAL);
        }
        if named.path.is_empty() {
            named.path = b".".to_vec();
        }
        let dir = self.find(task, &named)?;
        let stat = task::stat(dir.as_fd())?;
        let (_, group) = self.owner(dir.as_fd(), &stat)?;
        Ok((dir, name, (stat.st_mode & libc::S_ISGID != 0).then_some(group)))
    }

    /// The kernel makes it, if it may be made, and believes that it is root's. // settle
    fn makes(&mut self, task: &Task, named: Named) -> Result<Reply> {
        let ids = self.ids(task)?;
        let (uid, gid) = (ids.user.files, ids.group.files);
        if (uid, gid) == self.own || self.coming.len() >= MOST_COMING || self.find(task, &named).is_ok() {
            return Ok(Reply::Kernel);
        }
        let (dir, name, group) = self.place(task, named)?;
        task.waits()?;
        self.coming.push(Coming { dir, name, owner: (uid, group.unwrap_or(gid)), by: task.pid, since: Instant::now() });
        Ok(Reply::Kernel)
    }

    /// man: openat2(2)
    fn makes_as_said(&mut self, task: &Task) -> Result<Reply> {
        let mut how = [0u8; 24];
        if read_memory(task.pid, task.args[2], &mut how)? != how.len() {
            return Err(Errno::FAULT);
        }
        let long = |at: usize| how.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
        if long(0) & libc::O_CREAT as u64 == 0 || long(16) & ResolveFlags::IN_ROOT.bits() != 0 {
            return Ok(Reply::Kernel);
        }
        let named = Named { dir: task.args[0] as i32, path: task.path(1)?, follow: true };
        self.makes(task, named)
    }

    /// man: mknod(2), of a device. The server makes it under a name that nobody has asked for, and renamed it is where it belongs: the kernel would
    /// not believe in one that came into being at a name of which it knows that nothing is there.
    fn mknod(&mut self, task: &Task, named: Named, mode: u32, device: u64) -> Result<Reply> {
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return self.makes(task, named);
        }
        if named.path.ends_with(b"/") {
            return Ok(Reply::Kernel);
        }
        let (dir, name, _) = self.place(task, named)?;
        let umask = field(&self.text(task, "status")?, "Umask:").ok_or(Errno::INVAL)?;
        let ids = self.ids(task)?;
        // No capability is asked for: what cannot be opened gives no right.
        if ids.user.effective != 0 {
            return Ok(Reply::Error(Errno::PERM));
        }
        let (uid, gid) = (ids.user.files, ids.group.files);
        // The kernel's encoding in a register is that of the C library. kernel: include/linux/kdev_t.h new_decode_dev()
        let device = device as u32;
        let device = rustix::fs::makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00));
        let node = Override { uid, gid, mode: mode & 0o7777 & !umask, kind: Some((kind, device)) };
        task.waits()?;
        self.made += 1;
        let made = format!(".sandbox-{:x}-{:x}", rustix::process::getpid().as_raw_nonzero(), self.made);
        let value = format!("{made}/{}", node.text());
        let done = rustix::fs::setxattr(path_of(dir.as_fd()), overlay::NODE, value.as_bytes(), XattrFlags::empty()).and_then(|()| {
            rustix::fs::renameat_with(&dir, made.as_str(), &dir, name.as_slice(), RenameFlags::NOREPLACE)
                .inspect_err(|_| rustix::fs::unlinkat(&dir, made.as_str(), AtFlags::empty()).unwrap_or_default())
        });
        Ok(self::done(done))
    }

    /// The kernel takes capabilities away when the effective user stops being root, or leaves them, and then until an exec; here it does not
    /// know. man: capabilities(7), PR_SET_KEEPCAPS(2const)
    fn can(&self, task: &Task, ids: &Ids, what: CapabilitySet) -> bool {
        let keeps = || self.keep.iter().any(|(pid, program)| *pid == task.pid && self.program(task) == Ok(*program));
        let has = || rustix::thread::capabilities(Pid::from_raw(task.pid)).is_ok_and(|sets| sets.effective.contains(what));
        (ids.user.effective == 0 || keeps()) && has()
    }

    fn program(&self, task: &Task) -> Result<(u64, u64)> {
        let stat = task::stat(self.of(task, "exe")?.as_fd())?;
        Ok((stat.st_dev, stat.st_ino))
    }

    fn keeps(&mut self, task: &Task, yes: bool) -> Result<Reply> {
        self.keep.retain(|(pid, _)| *pid != task.pid);
        if yes {
            self.keep.truncate(MOST_KEEP - 1);
            self.keep.push_front((task.pid, self.program(task)?));
        }
        Ok(Reply::Kernel)
    }

    fn ids(&self, task: &Task) -> Result<&Ids> {
        let (limit, _) = task::limit(task.pid, RLIMIT_LOCKS)?;
        Ok(self.sets.get(limit).unwrap_or(self.sets.born()))
    }

    fn credentials(&mut self, call: Call, task: &Task) -> Result<Reply> {
        use Call::*;
        if let Limit(old) = call {
            // pam_limits(8) sets all that there are, to what PID 1 has.
            if let Some(to) = old.map(|n| task.args[n]).filter(|to| *to != 0) {
                write_words(task.pid, to, &[u32::MAX; 4])?;
            }
            return Ok(Reply::Value(0));
        }
        let (limit, hard) = task::limit(task.pid, RLIMIT_LOCKS)?;
        let ids = match self.sets.get(limit) {
            // It has never asked for others.
            None if matches!(call, Real(_) | Effective(_) | GetRes(_) | GetGroups) => return Ok(Reply::Kernel),
            known => known.unwrap_or(self.sets.born()).clone(),
        };
        let (uid, gid) = (self.can(task, &ids, CapabilitySet::SETUID), self.can(task, &ids, CapabilitySet::SETGID));
        let three = [task.id(0), task.id(1), task.id(2)];
        let changed = |whose: Whose, change: &dyn Fn(Four, bool) -> Result<Four>| -> Result<Ids> {
            Ok(match whose {
                Whose::User => Ids { user: change(ids.user, uid)?, ..ids.clone() },
                Whose::Group => Ids { group: change(ids.group, gid)?, ..ids.clone() },
            })
        };
        let four = |whose: Whose| if whose == Whose::User { ids.user } else { ids.group };
        let mut value = 0;
        let new = match call {
            Real(whose) => return Ok(Reply::Value(four(whose).real.into())),
            Effective(whose) => return Ok(Reply::Value(four(whose).effective.into())),
            GetRes(whose) => {
                let four = four(whose);
                for (to, id) in task.args.iter().zip([four.real, four.effective, four.saved]) {
                    write_words(task.pid, *to, &[id])?;
                }
                return Ok(Reply::Value(0));
            }
            GetGroups => {
                let Some(groups) = &ids.groups else { return Ok(Reply::Kernel) };
                let room = task.id(0) as i32;
                if room != 0 {
                    if usize::try_from(room).map_or(true, |room| room < groups.len()) {
                        return Err(Errno::INVAL);
                    }
                    write_words(task.pid, task.args[1], groups)?;
                }
                return Ok(Reply::Value(groups.len() as i64));
            }
            SetId(whose) => changed(whose, &|four, privileged| four.set(three[0], privileged))?,
            SetRe(whose) => changed(whose, &|four, privileged| four.set_re(three[0], three[1], privileged))?,
            SetRes(whose) => changed(whose, &|four, privileged| four.set_res(three, privileged))?,
            SetFiles(whose) => {
                value = four(whose).files.into();
                changed(whose, &|four, privileged| Ok(four.set_files(three[0], privileged)))?
            }
            SetGroups => {
                let many = usize::try_from(task.id(0)).ok().filter(|n| *n <= MOST_GROUPS).ok_or(Errno::INVAL)?;
                if !gid {
                    return Err(Errno::PERM);
                }
                let mut bytes = vec![0u8; 4 * many];
                if many > 0 && read_memory(task.pid, task.args[1], &mut bytes)? != bytes.len() {
                    return Err(Errno::FAULT);
                }
                let (words, _) = bytes.as_chunks::<4>();
                Ids { groups: Some(words.iter().map(|w| u32::from_ne_bytes(*w)).collect()), ..ids.clone() }
            }
            _ => return Ok(Reply::Kernel),
        };
        if new != ids {
            let limit = self.sets.limit(new)?;
            if limit > hard {
                return Err(Errno::AGAIN);
            }
            task.waits()?;
            task::set_limit(task.pid, RLIMIT_LOCKS, limit, hard)?;
        }
        Ok(Reply::Value(value))
    }
}

fn give(object: BorrowedFd, (uid, gid): (u32, u32)) -> Result<()> {
    rustix::fs::setxattr(path_of(object), overlay::OWNER, format!("{uid}:{gid}").as_bytes(), XattrFlags::empty())
}

fn done(result: Result<()>) -> Reply {
    result.map_or_else(Reply::Error, |()| Reply::Value(0))
}

/// An octal number of a /proc file.
fn field(text: &str, name: &str) -> Option<u32> {
    let word = text.lines().find_map(|line| line.strip_prefix(name))?;
    u32::from_str_radix(word.trim(), 8).ok()
}

/// A path that leads to the object of a descriptor, from our working directory.
fn path_of(object: BorrowedFd) -> String {
    format!("self/fd/{}", object.as_raw_fd())
}
