//! The thin face: a request is decoded, given to the file that a reader of the kernel's overlayfs would open, and answered. No logic.
//!
//! What keeps requests away is agreed on here: nobody else changes the layers, so names, absent names and attributes stay valid until the kernel
//! itself changes them; files and directories need no opening.

use super::dir::{Creator, New};
use super::inode::{Asker, Attributes, Changes, read};
use super::namei::component;
use super::{Fs, Ownership};
use crate::sys::{Errno, Result};
use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As good as for ever: the kernel counts in ticks.
const VALID: Duration = Duration::from_secs(365 * 86_400);
/// Of content, in one request: what is written is copied twice here, and the second time from the processor's own cache, if it fits there with room
/// to spare. That is worth more than fewer requests.
const MOST: u32 = 1 << 17;
const GENERATION: Generation = Generation(0);

struct Face {
    fs: Fs,
}

pub fn serve(device: OwnedFd, fs: Fs, threads: usize) -> std::io::Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    // A queue for each thread, where this device can be opened again.
    let again = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|_| Errno::NOENT);
    let number = |fd: BorrowedFd| rustix::fs::fstat(fd).map(|s| s.st_rdev);
    config.clone_fd = again.and_then(|again| Ok(number(again.as_fd())? == number(device.as_fd())?)).unwrap_or(false);
    config.acl = SessionACL::All;
    Session::from_fd(Face { fs }, device, SessionACL::All, config)?.run()
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this thread.
fn with_buffer<T>(size: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with(|buffer| match buffer.try_borrow_mut() {
        Ok(mut buffer) => {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            work(buffer.get_mut(..size).unwrap_or_default())
        }
        Err(_) => work(&mut vec![0; size]),
    })
}

fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}

fn asker(req: &Request) -> Asker {
    Asker { uid: req.uid(), gid: req.gid() }
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Disk;
    match kind {
        Disk::Directory => FileType::Directory,
        Disk::Symlink => FileType::Symlink,
        Disk::Fifo => FileType::NamedPipe,
        Disk::Socket => FileType::Socket,
        Disk::CharacterDevice => FileType::CharDevice,
        Disk::BlockDevice => FileType::BlockDevice,
        Disk::RegularFile | Disk::Unknown => FileType::RegularFile,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    whole.and_then(|t| t.checked_add(Duration::from_nanos(nanoseconds))).unwrap_or(UNIX_EPOCH)
}

/// The crate turns a time before 1970 into that many seconds and nanoseconds before 1970: undone here.
fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        None => (0, UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, UTIME_NOW),
        Some(TimeOrNow::SpecificTime(at)) => match at.duration_since(UNIX_EPOCH) {
            Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos().into()),
            Err(before) => (0i64.saturating_sub_unsigned(before.duration().as_secs()), before.duration().subsec_nanos().into()),
        },
    };
    Timespec { tv_sec, tv_nsec }
}

/// The kernel's encoding of a device number in a request and in attributes. kernel: include/linux/kdev_t.h new_encode_dev()
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn decode_device(device: u32) -> u64 {
    rustix::fs::makedev((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00))
}

fn attr(seen: &Attributes, id: u64) -> FileAttr {
    let stat = &seen.stat;
    FileAttr {
        ino: INodeNo(id),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(seen.kind()),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_device(stat.st_rdev),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

/// Attributes of nothing: of an absent name, or of what a listing names without describing it.
fn no_attr(id: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(id),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn answer_entry(reply: ReplyEntry, entry: Result<(u64, Attributes)>) {
    match entry {
        Ok((id, seen)) => reply.entry(&VALID, &attr(&seen, id), GENERATION),
        Err(e) => reply.error(errno(e)),
    }
}

fn answer(reply: ReplyEmpty, done: Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

/// `value` holds as many bytes as `length` says, if it has room for them.
fn answer_xattr(reply: ReplyXattr, size: u32, length: Result<usize>, value: &[u8]) {
    match length.map(|n| (n, value.get(..n))) {
        Ok((n, _)) if size == 0 => reply.size(n as u32),
        Ok((n, Some(value))) if n <= size as usize => reply.data(value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(e) => reply.error(errno(e)),
    }
}

impl Face {
    fn create_node(&self, parent: INodeNo, name: &OsStr, new: New, by: Creator) -> Result<(u64, Attributes)> {
        let (node, seen) = self.fs.create(&self.fs.table.get(parent.0)?, &component(name.as_bytes())?, new, by, true)?;
        Ok((node.id, seen))
    }
}

#[allow(clippy::too_many_arguments)]
impl Filesystem for Face {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = vec![
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        // No writeback cache: the kernel does not write it out before it asks for holes, so a copy of a new file would be all zeroes; and a
        // write that finds no room would be told too late.
        if self.fs.ownership == Ownership::Real {
            wanted.extend([InitFlags::FUSE_POSIX_ACL, InitFlags::FUSE_DONT_MASK]);
        }
        for flag in wanted {
            // What this kernel does not have.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(MOST);
        let _ = config.set_max_readahead(MOST).or_else(|most| config.set_max_readahead(most));
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = || {
            let (parent, name) = (self.fs.table.get(parent.0)?, component(name.as_bytes())?);
            let _names = read(&parent.names);
            self.fs.find(&parent, &name, 0, true)
        };
        match found() {
            Ok(Some((node, seen))) => reply.entry(&VALID, &attr(&seen, node.id), GENERATION),
            Ok(None) => reply.entry(&VALID, &no_attr(0, FileType::RegularFile), GENERATION),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.fs.forget(ino.0, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.fs.table.get(ino.0).and_then(|node| self.fs.attributes(&node)) {
            Ok(seen) => reply.attr(&VALID, &attr(&seen, seen.stat.st_ino)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.is_some() || mtime.is_some()).then(|| Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) });
        let changes = Changes { mode, uid, gid, size, times, by: asker(req) };
        match self.fs.table.get(ino.0).and_then(|node| self.fs.set_attributes(&node, &changes)) {
            Ok(seen) => reply.attr(&VALID, &attr(&seen, seen.stat.st_ino)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.table.get(ino.0).and_then(|node| self.fs.read_link(&node)) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let new = New::Node(rustix::fs::FileType::from_raw_mode(mode), decode_device(rdev));
        answer_entry(reply, self.create_node(parent, name, new, Creator { uid: req.uid(), gid: req.gid(), mode, umask }));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let by = Creator { uid: req.uid(), gid: req.gid(), mode, umask };
        answer_entry(reply, self.create_node(parent, name, New::Directory, by));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let by = Creator { uid: req.uid(), gid: req.gid(), mode: 0o777, umask: 0 };
        let made = CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
        answer_entry(reply, made.and_then(|target| self.create_node(parent, name, New::Link(&target), by)));
    }

    /// The kernel then makes a file by `mknod`, and nothing needs to be released.
    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = || self.fs.unlink(&self.fs.table.get(parent.0)?, &component(name.as_bytes())?);
        answer(reply, done());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = || self.fs.rmdir(&self.fs.table.get(parent.0)?, &component(name.as_bytes())?);
        answer(reply, done());
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, to: INodeNo, new_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        let done = || {
            let (parent, to) = (self.fs.table.get(parent.0)?, self.fs.table.get(to.0)?);
            let (name, new_name) = (component(name.as_bytes())?, component(new_name.as_bytes())?);
            self.fs.rename((&parent, &name), (&to, &new_name), rustix::fs::RenameFlags::from_bits_retain(flags.bits()))
        };
        answer(reply, done());
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = || {
            let (node, parent) = (self.fs.table.get(ino.0)?, self.fs.table.get(parent.0)?);
            let seen = self.fs.link(&node, &parent, &component(name.as_bytes())?)?;
            self.fs.table.told(&node);
            Ok((node.id, seen))
        };
        answer_entry(reply, made());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn read(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        let node = match self.fs.table.get(ino.0) {
            Ok(node) => node,
            Err(e) => return reply.error(errno(e)),
        };
        with_buffer(size.min(MOST) as usize, |buffer| match self.fs.read(&node, offset, buffer) {
            Ok(n) => reply.data(buffer.get(..n).unwrap_or_default()),
            Err(e) => reply.error(errno(e)),
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let unprivileged = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID).then(|| asker(req));
        match self.fs.table.get(ino.0).and_then(|node| self.fs.write(&node, offset, bytes, unprivileged)) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, content_only: bool, reply: ReplyEmpty) {
        answer(reply, self.fs.table.get(ino.0).and_then(|node| self.fs.sync(&node, content_only)));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, content_only: bool, reply: ReplyEmpty) {
        answer(reply, self.fs.table.get(ino.0).and_then(|node| self.fs.sync(&node, content_only)));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let done = self.fs.table.get(ino.0).and_then(|node| {
            let _names = read(&node.names);
            self.fs.read_dir(&node, offset, |number, position, what, name| reply.add(INodeNo(number), position, kind(what), OsStr::from_bytes(name)))
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let done = self.fs.table.get(ino.0).and_then(|node| {
            let _names = read(&node.names);
            self.fs.read_dir_plus(&node, offset, |seen, id, position, name| {
                let attr = seen.map_or_else(|| no_attr(id, FileType::Directory), |seen| attr(seen, id));
                reply.add(INodeNo(id), position, OsStr::from_bytes(name), &VALID, &attr, GENERATION)
            })
        });
        match done {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs() {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                u32::try_from(s.f_bsize).unwrap_or(4096),
                u32::try_from(s.f_namemax).unwrap_or(255),
                u32::try_from(s.f_frsize).unwrap_or(4096),
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _: u32, reply: ReplyEmpty) {
        let done = || {
            let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
            self.fs.set_xattr(&self.fs.table.get(ino.0)?, &name, value, flags as u32, asker(req))
        };
        answer(reply, done());
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // No more room than is asked for: the kernel clears as much memory, each time.
        with_buffer(super::xattr::MOST.min(size as usize), |buffer| {
            let mut value = || {
                let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
                self.fs.get_xattr(&self.fs.table.get(ino.0)?, &name, buffer)
            };
            let length = value();
            answer_xattr(reply, size, length, buffer);
        });
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.fs.table.get(ino.0).and_then(|node| self.fs.list_xattrs(&node));
        answer_xattr(reply, size, names.as_ref().map(Vec::len).map_err(|e| *e), names.as_deref().unwrap_or_default());
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = || {
            let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
            self.fs.remove_xattr(&self.fs.table.get(ino.0)?, &name, asker(req))
        };
        answer(reply, done());
    }

    fn fallocate(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        answer(reply, self.fs.table.get(ino.0).and_then(|node| self.fs.allocate(&node, mode as u32, offset, length)));
    }

    /// The kernel answers by itself from now on, that all is data: in its cache are writes that we have not been told of, and what we called
    /// a hole, programs would leave out when they copy.
    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        ino_in: INodeNo,
        _: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let done = || {
            let (from, to) = (self.fs.table.get(ino_in.0)?, self.fs.table.get(ino_out.0)?);
            self.fs.copy_range((&from, offset_in), (&to, offset_out), len)
        };
        match done() {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(errno(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_crate() {
        // As the crate makes it of (-2, 500_000_000).
        let made = UNIX_EPOCH - Duration::new(2, 500_000_000);
        let spec = timespec(Some(TimeOrNow::SpecificTime(made)));
        assert_eq!((spec.tv_sec, spec.tv_nsec), (-2, 500_000_000));
        // And as it reads what we give it.
        let given = time(-2, 500_000_000);
        assert_eq!(UNIX_EPOCH.duration_since(given).unwrap(), Duration::from_millis(1500));
    }

    #[test]
    fn device_numbers_survive_the_request() {
        for (major, minor) in [(1, 3), (8, 300), (259, 70_000)] {
            let device = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(encode_device(device)), device);
        }
    }
}
