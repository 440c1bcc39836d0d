//! Mounts by descriptor: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).

use super::{Result, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree, unmount,
};
use rustix::path::DecInt;
use std::ffi::CStr;

pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;

/// A new instance of a file system, mounted nowhere yet. An option without a value is a flag.
pub fn filesystem<'a>(fstype: &CStr, options: impl Iterator<Item = (&'a CStr, Option<&'a CStr>)>, attributes: u64) -> Result<OwnedFd> {
    let fs = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(fs.as_fd(), key, value)?,
            None => fsconfig_set_flag(fs.as_fd(), key)?,
        }
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))
}

/// A FUSE file system, mounted nowhere yet, and the device by which it is served: it must be opened in the user namespace that mounts it. All who
/// are inside that namespace may look into it, as far as modes and owners let them. kernel: fs/fuse/inode.c fuse_fill_super(), fuse_allow_current_process()
pub fn fuse(attributes: u64) -> Result<(OwnedFd, OwnedFd)> {
    let device = rustix::fs::open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (uid, gid) = (DecInt::new(rustix::process::geteuid().as_raw()), DecInt::new(rustix::process::getegid().as_raw()));
    let fd = DecInt::from_fd(&device);
    let options = [
        (c"source", Some(c"sandbox")),
        (c"subtype", Some(c"sandbox")),
        (c"fd", Some(fd.as_c_str())),
        (c"rootmode", Some(c"40755")),
        (c"user_id", Some(uid.as_c_str())),
        (c"group_id", Some(gid.as_c_str())),
        (c"default_permissions", None),
        (c"allow_other", None),
    ];
    Ok((filesystem(c"fuse", options.into_iter(), attributes)?, device))
}

/// A new instance of a file system at `target`, from a list of options that may be a page long. man: mount(2)
pub fn at(fstype: &CStr, target: &CStr, options: &CStr) -> Result<()> {
    rustix::mount::mount(fstype, target, fstype, rustix::mount::MountFlags::empty(), options)
}

/// A copy of the mount tree at `path`, attached nowhere yet; with its submounts if `recursive`.
pub fn clone_tree(dir: BorrowedFd, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags)
}

/// Attach a detached mount where `target` points, or move an attached one there.
pub fn attach(mount: BorrowedFd, target: BorrowedFd) -> Result<()> {
    move_mount(mount, c"", target, c"", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(mount: BorrowedFd, path: &CStr, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and the record with its true size outlives the call; the kernel only reads both.
    check(unsafe { libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), path.as_ptr(), flags, &raw const *attr, size_of::<MountAttr>()) })
        .map(drop)
}

/// Set and clear `MOUNT_ATTR_*` on a mount, and on its submounts if `recursive`. man: mount_setattr(2)
pub fn attributes(mount: BorrowedFd, set: u64, clear: u64, recursive: bool) -> Result<()> {
    mount_setattr(mount, c"", recursive, &MountAttr { set, clear, propagation: 0, userns_fd: 0 })
}

/// Nothing that we mount is seen outside, nor the other way round. man: mount_namespaces(7)
pub fn all_private() -> Result<()> {
    mount_setattr(rustix::fs::CWD, c"/", true, &MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 })
}

/// Make the mount that `root` is the top of our `/`, and drop the old one. man: pivot_root(2), the `pivot_root(".", ".")` idiom
pub fn pivot(root: BorrowedFd) -> Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}
