//! /proc, /sys and /dev: fresh instances, masked and read-only where the policy says so. Called by `rootfs`.
#![forbid(unsafe_code)]

use super::{Builder, NODEV, NOEXEC, NOSUID, PLAIN, RDONLY, Site, cpath, cstring};
use crate::error::{Doing, Error, Result};
use crate::host::mounts::{MountPoint, visible_instance};
use crate::host::remedy::Missing;
use crate::spec::{NetworkMode, Reasoned, Share};
use crate::tape::{Create, Slot, Step};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const SEALED: u64 = NOSUID | NODEV | NOEXEC;

/// Device nodes of a minimal /dev: name and number. kernel: Documentation/admin-guide/devices.txt
const NODES: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Our own procfs, mounted nowhere yet; or the host's, where the host's pids are wanted. Recorded before the root. // L3
pub fn procfs(site: &Site) -> Result<Step> {
    if site.spec.namespaces.pid == Share::Host {
        return Ok(Step::CloneTree { path: c"/proc".into(), recursive: true, attributes: SEALED, device: None, slot: Slot::Proc });
    }
    match visible_instance(site.mounts, "proc") {
        Ok(host) => {
            let attributes = SEALED | like(host) | if host.is_read_only() { RDONLY } else { 0 };
            Ok(Step::Filesystem { fstype: c"proc".into(), options: Box::default(), attributes, slot: Slot::Proc })
        }
        Err(by) => Err(Missing::ProcMasked.error(match by.to_str() {
            Some("/proc") => "cannot mount a new /proc: no whole one is to be seen here".to_string(),
            _ => format!("cannot mount a new /proc: {} covers part of the host's", by.display()),
        })),
    }
}

/// What must be taken before the scratch covers the host's /sys.
pub(super) fn before(site: &Site) -> Option<Step> {
    let host = visible_instance(site.mounts, "sysfs").ok().filter(|_| site.spec.network.mode == NetworkMode::None);
    Some(match host {
        Some(host) => {
            Step::Filesystem { fstype: c"sysfs".into(), options: Box::default(), attributes: SEALED | RDONLY | like(host), slot: Slot::Sys }
        }
        None => Step::CloneTree { path: c"/sys".into(), recursive: true, attributes: SEALED | RDONLY, device: None, slot: Slot::Sys },
    })
}

/// The access times of the host's instance: the kernel insists on them. kernel: fs/namespace.c mnt_already_visible()
fn like(host: &MountPoint) -> u64 {
    u64::from(host.access_time().bits())
}

pub(super) fn lay(b: &mut Builder) -> Result<()> {
    b.attach(Slot::Proc, Path::new("/proc"), Create::Directory, false)?;
    b.attach(Slot::Sys, Path::new("/sys"), Create::Directory, false)?;
    if b.site.own_cgroup {
        // Its root is the root of our cgroup namespace. Not there without /sys/fs/cgroup, where the host has none either.
        b.mount(Step::Filesystem { fstype: c"cgroup2".into(), options: Box::default(), attributes: SEALED | RDONLY, slot: Slot::Mount });
        b.attach(Slot::Mount, Path::new("/sys/fs/cgroup"), Create::Absent, false)?;
    }
    dev(b)?;
    let restrict = &b.site.spec.restrict;
    for path in &restrict.read_only {
        read_only(b, path)?;
    }
    restrict.mask.iter().try_for_each(|path| mask(b, path))
}

/// A path below /proc or /sys as the policy gives it.
fn kernel_path(entry: &Reasoned) -> Result<&Path> {
    let path = Path::new(&entry.path);
    let plain = path.components().all(|c| !matches!(c, std::path::Component::ParentDir | std::path::Component::CurDir));
    if plain && (path.starts_with("/proc") || path.starts_with("/sys")) {
        Ok(path)
    } else {
        Err(Error::usage(format!("bad policy: '{}' is not a path below /proc or /sys", entry.path)))
    }
}

/// Nothing to mask: it is not there, or nobody but the host's root may open it, and nobody inside is that.
fn closed_anyway(b: &Builder, meta: &std::io::Result<std::fs::Metadata>) -> bool {
    match meta {
        Err(_) => true,
        Ok(m) => m.uid() == 0 && m.mode() & 0o077 == 0 && b.site.caller.uid != 0,
    }
}

fn mask(b: &mut Builder, entry: &Reasoned) -> Result<()> {
    let path = kernel_path(entry)?;
    let meta = std::fs::symlink_metadata(path);
    if closed_anyway(b, &meta) {
        return Ok(());
    }
    let directory = meta.is_ok_and(|m| m.is_dir());
    b.mask(path, directory)
}

fn read_only(b: &mut Builder, entry: &Reasoned) -> Result<()> {
    let path = kernel_path(entry)?;
    if path.starts_with("/sys") || closed_anyway(b, &std::fs::symlink_metadata(path)) {
        return Ok(()); // all of /sys is read-only
    }
    let target = cpath(path.strip_prefix("/").unwrap_or(path))?;
    b.mount(Step::Remount { target, attributes: SEALED | RDONLY, recursive: true, absent_is_fine: true });
    Ok(())
}

/// A /dev of our own: a directory of the scratch with single device nodes of the host bound into it, checked by number. // L2
fn dev(b: &mut Builder) -> Result<()> {
    let spec = b.site.spec;
    b.make(Step::MakeDir { path: c"dev".into(), mode: 0o755, owner: b.root_owner() });
    for dir in ["pts", "shm", "mqueue"] {
        b.make(Step::MakeDir { path: cstring(&format!("dev/{dir}")), mode: 0o755, owner: b.root_owner() });
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")] {
        b.make(Step::Symlink { target: cstring(target), path: cstring(&format!("dev/{name}")) });
    }
    // /dev/tty is the controlling terminal of whoever opens it; without -t there is none, and so no node.
    let nodes: Vec<_> = NODES.iter().filter(|(name, ..)| *name != "tty" || spec.process.tty).collect();
    for (name, ..) in &nodes {
        b.make(Step::MakeFile { path: cstring(&format!("dev/{name}")), content: Box::default(), mode: 0o666 });
    }
    let extra = devices(b)?;
    b.mount(Step::CloneTree { path: c"dev".into(), recursive: false, attributes: NOSUID | NOEXEC, device: None, slot: Slot::Mount });
    b.attach(Slot::Mount, Path::new("/dev"), Create::Directory, false)?;
    for (name, major, minor) in nodes {
        let device = Some((*major, *minor));
        b.mount(Step::CloneTree { path: cstring(&format!("/dev/{name}")), recursive: false, attributes: NOSUID | NOEXEC, device, slot: Slot::Mount });
        b.attach(Slot::Mount, &Path::new("/dev").join(name), Create::Nothing, false)?;
    }
    for (host, inside, device) in extra {
        b.mount(Step::CloneTree { path: cpath(&host)?, recursive: true, attributes: NOSUID | NOEXEC, device, slot: Slot::Mount });
        b.attach(Slot::Mount, &inside, if device.is_some() { Create::File } else { Create::Directory }, false)?;
    }
    filesystem(
        b,
        "devpts",
        &[("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("max", Some("64"))],
        "/dev/pts",
        NOSUID | NOEXEC,
    )?;
    if spec.namespaces.ipc == Share::Host {
        b.bind(Path::new("/dev/shm"), Path::new("/dev/shm"), NOEXEC, Create::Nothing, false)
    } else {
        let size = spec.files.shm_size.0.to_string();
        filesystem(b, "tmpfs", &[("size", Some(&size)), ("nr_inodes", Some("64k")), ("mode", Some("1777"))], "/dev/shm", PLAIN)?;
        filesystem(b, "mqueue", &[], "/dev/mqueue", SEALED)
    }
}

fn filesystem(b: &mut Builder, fstype: &str, options: &[(&str, Option<&str>)], point: &str, attributes: u64) -> Result<()> {
    let options = options.iter().map(|(k, v)| (cstring(k), v.map(cstring))).collect();
    b.mount(Step::Filesystem { fstype: cstring(fstype), options, attributes, slot: Slot::Mount });
    b.attach(Slot::Mount, Path::new(point), Create::Nothing, false)
}

type Device = (std::path::PathBuf, std::path::PathBuf, Option<(u32, u32)>);

/// `--device`: a node, by its number, or a directory of nodes.
fn devices(b: &Builder) -> Result<Vec<Device>> {
    let mut list = Vec::new();
    for (host, inside) in &b.site.spec.files.devices {
        let meta = std::fs::metadata(host).doing("show device", host.display())?;
        let number = if meta.is_dir() {
            None
        } else if meta.file_type().is_char_device() || meta.file_type().is_block_device() {
            Some((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
        } else {
            return Err(Error::usage(format!("cannot show device {}: it is neither a device nor a directory", host.display())));
        };
        list.push((host.clone(), inside.clone(), number));
    }
    Ok(list)
}
