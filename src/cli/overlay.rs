//! Our overlay by hand: `sandbox overlay`, hidden; for tests, measurements and repairs. Called by `cli`; mounts, serves, and ends at the unmount.
#![forbid(unsafe_code)]

use crate::error::{Doing, Error, Kind, Result, why};
use crate::host::program;
use crate::overlay::{self, Limit, Overlay, Ownership, Upper};
use crate::sys;
use crate::sys::Errno;
use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::FdFlags;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Mount an overlay of directories, and serve it until it is unmounted
#[derive(Debug, Args)]
pub struct OverlayArgs {
    /// lowerdir=A:B (uppermost first), upperdir=, workdir=, virtual, size=BYTES, inodes=N
    #[arg(short)]
    options: String,
    mountpoint: PathBuf,
}

pub fn run(args: OverlayArgs) -> Result<()> {
    let served = parse(&args.options)?;
    let device = match mount(&args.mountpoint, &served) {
        // Not root of its user namespace.
        Err(Errno::PERM) => fusermount(&args.mountpoint, &served)?,
        other => other.doing("mount", args.mountpoint.display())?,
    };
    overlay::serve(device, served)
}

fn parse(options: &str) -> Result<Overlay> {
    let (mut lowers, mut upper, mut work, mut ownership, mut limit) = (Vec::new(), None, None, Ownership::Real, Limit::default());
    for option in options.split(',') {
        let number = |text: &str| text.parse().map_err(|_| Error::usage(format!("cannot read '{option}': not a number")));
        match option.split_once('=') {
            Some(("lowerdir", list)) => lowers = list.split(':').map(directory).collect::<Result<_>>()?,
            Some(("upperdir", path)) => upper = Some(directory(path)?),
            Some(("workdir", path)) => work = Some(directory(path)?),
            Some(("size", n)) => limit.bytes = Some(number(n)?),
            Some(("inodes", n)) => limit.inodes = Some(number(n)?),
            None if option == "virtual" => ownership = Ownership::Virtual,
            _ => return Err(Error::usage(format!("cannot use the option '{option}': unknown"))),
        }
    }
    let upper = match (upper, work) {
        (Some(dir), Some(work)) => Some(Upper { dir, work }),
        (None, None) => None,
        _ => return Err(Error::usage("cannot mount: upperdir and workdir go together")),
    };
    Ok(Overlay { lowers, upper, ownership, limit, within: None })
}

fn directory(path: &str) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing("open", path)
}

/// By the raw descriptor, for who may mount.
fn mount(mountpoint: &Path, served: &Overlay) -> sys::Result<OwnedFd> {
    let attributes = sys::mount::NODEV | if served.upper.is_none() { sys::mount::RDONLY } else { 0 };
    let (mount, device) = sys::mount::fuse(attributes)?;
    let target = openat(CWD, mountpoint, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount::attach(mount.as_fd(), target.as_fd())?;
    Ok(device)
}

/// By the set-uid program of libfuse, which sends the descriptor over a socket.
fn fusermount(mountpoint: &Path, served: &Overlay) -> Result<OwnedFd> {
    let program = program::helper("fusermount3")?;
    let (ours, theirs) = sys::socket::pair().doing("make", "a socket")?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).doing("pass on", "a socket")?;
    let mut options = "nodev,default_permissions,fsname=sandbox,subtype=sandbox".to_string();
    if served.upper.is_none() {
        options.push_str(",ro");
    }
    let said = Command::new(&program)
        .args(["-o", &options, "--"])
        .arg(mountpoint)
        .env_clear()
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()
        .doing("run", program.display())?;
    drop(theirs);
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stderr);
        return Err(Error::new(Kind::Denied, format!("cannot mount {}: {}", mountpoint.display(), text.trim())));
    }
    match sys::socket::recv_fd(ours.as_fd()) {
        Ok((_, Some(device))) => Ok(device),
        Ok(_) => Err(Error::new(Kind::Io, "cannot mount: fusermount3 sent no descriptor")),
        Err(e) => Err(Error::new(Kind::Io, format!("cannot hear fusermount3: {}", why(&e.into())))),
    }
}
