//! The file systems that are compared, each behind one mount point: a plain directory, the kernel's overlay, fuse-overlayfs, and ours.
//!
//! `OVERLAY_OURS=kernel|fuse-overlayfs|plain` puts another one in our place, which shows what the tests themselves are worth.

use crate::{calls, ground};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No overlay: what a file system does.
    Plain,
    Kernel,
    FuseOverlayfs,
    Ours,
}

impl Kind {
    /// What stands in our place.
    pub fn ours() -> Kind {
        match std::env::var("OVERLAY_OURS").as_deref() {
            Ok("kernel") => Kind::Kernel,
            Ok("fuse-overlayfs") => Kind::FuseOverlayfs,
            Ok("plain") => Kind::Plain,
            Ok(other) => panic!("OVERLAY_OURS: no such side: {other}"),
            Err(_) => Kind::Ours,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Kernel => "kernel",
            Kind::FuseOverlayfs => "fuse-overlayfs",
            Kind::Ours => "ours",
        }
    }
}

/// The topmost first.
#[derive(Debug, Clone)]
pub struct Layers {
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Layers {
    /// With an empty upper below a directory.
    pub fn new(lower: &[PathBuf], dir: &Path) -> Layers {
        let layers = Layers { lower: lower.to_vec(), upper: dir.join("upper"), work: dir.join("work") };
        std::fs::create_dir_all(&layers.upper).expect("upper");
        std::fs::create_dir_all(&layers.work).expect("work");
        layers
    }

    fn options(&self) -> String {
        let lower: Vec<_> = self.lower.iter().map(|l| l.display().to_string()).collect();
        format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), self.upper.display(), self.work.display())
    }
}

pub struct Mounted {
    pub kind: Kind,
    pub at: PathBuf,
    server: Option<Child>,
    mounted: bool,
}

impl Mounted {
    /// Of these layers at a directory. A plain directory is `at` itself, with whatever is in it.
    pub fn new(kind: Kind, layers: &Layers, at: &Path) -> Mounted {
        Mounted::with(kind, layers, at, "")
    }

    /// `more` options, each after a comma.
    pub fn with(kind: Kind, layers: &Layers, at: &Path, more: &str) -> Mounted {
        let _ = std::fs::create_dir(at);
        let target = at.display().to_string();
        let options = layers.options() + more;
        let server = match kind {
            // It is a mount like the others to a path that leads out of it.
            Kind::Plain => {
                calls::mount(&target, &target, "", libc::MS_BIND, "").expect("a bind mount");
                None
            }
            Kind::Kernel => {
                let options = format!("userxattr,{options}");
                if let Err(e) = calls::mount("overlay", &target, "overlay", 0, &options) {
                    panic!("the kernel mounts no overlay {options}: {}", calls::errno_name(e));
                }
                None
            }
            Kind::FuseOverlayfs => Some(serve(Command::new("fuse-overlayfs").args(["-f", "-o", &options]), at)),
            Kind::Ours => {
                let options = options + &std::env::var("OVERLAY_OPTIONS").map_or(String::new(), |o| format!(",{o}"));
                Some(serve(Command::new(ground::base().join("sandbox")).args(["overlay", "-o", &options]), at))
            }
        };
        Mounted { kind, at: at.to_path_buf(), server, mounted: true }
    }

    pub fn server(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Resident memory of the server in KiB.
    pub fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.server()?)).ok()?;
        text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
    }

    /// In order: it must not be busy, and the server ends by itself.
    pub fn unmount(mut self) {
        if !self.mounted {
            return;
        }
        // A program that another thread starts has our descriptors for a moment.
        let start = Instant::now();
        while let Err(e) = calls::umount(&self.at.display().to_string(), 0) {
            assert!(e == libc::EBUSY && start.elapsed() < Duration::from_secs(5), "cannot unmount {}: {}", self.kind.name(), calls::errno_name(e));
            std::thread::sleep(Duration::from_millis(1));
        }
        self.mounted = false;
        if let Some(mut server) = self.server.take() {
            let start = Instant::now();
            loop {
                if let Some(status) = server.try_wait().expect("wait") {
                    assert!(status.success(), "the server of {} ended with {status}", self.kind.name());
                    return;
                }
                if start.elapsed() > Duration::from_secs(10) {
                    let _ = server.kill();
                    let _ = server.wait();
                    panic!("the server of {} outlives its mount", self.kind.name());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// The server dies now; the mount stays, and answers nobody.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            self.kill();
            let _ = calls::umount(&self.at.display().to_string(), libc::MNT_DETACH);
        }
    }
}

/// Start a server in the foreground, and wait until its mount is there.
fn serve(command: &mut Command, at: &Path) -> Child {
    let before = std::fs::metadata(at).expect("the mount point").dev();
    let log = if std::env::var_os("OVERLAY_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
    let mut server = command.arg(at).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start a server");
    let start = Instant::now();
    loop {
        if std::fs::metadata(at).is_ok_and(|m| m.dev() != before) {
            return server;
        }
        if let Some(status) = server.try_wait().expect("wait") {
            panic!("{command:?} ended with {status} (OVERLAY_LOG=1 shows what it says)");
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{command:?} does not mount");
        std::thread::sleep(Duration::from_millis(1));
    }
}
