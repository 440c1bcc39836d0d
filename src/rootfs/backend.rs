//! Whose overlay: the kernel's where it can, else our own, which is served over FUSE. Called by `rootfs`.
//!
//! *Why this way*: what the kernel's overlay cannot do is known beforehand for file systems that everybody has; others are tried, in a
//! process of a millisecond. (Rejected: to try all of them, which most runs need not; to go back after a mount that failed, as the tape is
//! played by then.)
#![forbid(unsafe_code)]

use super::{Builder, cstring};
use crate::error::{Error, Kind, Result};
use crate::host::mounts::submounts;
use crate::host::remedy::Missing;
use crate::overlay::server::Shape;
use crate::overlay::{Limit, Ownership};
use crate::spec::{Backend, Root};
use crate::sys::mount::RDONLY;
use crate::tape::{Create, Lower, Slot, Step};
use rustix::fs::{Access, Mode, OFlags};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Where the upper directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// In the scratch, which has the limits.
    Scratch,
    /// On a disk.
    Disk,
}

/// As lower and as upper directories of the kernel's overlay these are known to do. man: statfs(2) for the numbers
const KNOWN: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010]; // ext4, xfs, btrfs, tmpfs, f2fs

impl Builder<'_> {
    /// An overlay into `Slot::Mount`, for `point`: of `lower` (on the host or in the scratch, the uppermost first), and of upper and work
    /// directory, that stand or are made.
    pub fn over(&mut self, point: &Path, lower: Vec<CString>, writes: Writes, [upper, work]: [CString; 2], attributes: u64) -> Result<()> {
        if !self.is_ours(point, &lower, writes, &upper)? {
            let lower = lower.into_iter().map(Lower::At).collect();
            self.mount(Step::Overlay { lower, upper, work, attributes, slot: Slot::Mount });
            return Ok(());
        }
        let files = &self.site.spec.files;
        let limit = match writes {
            Writes::Scratch => Limit::default(),
            Writes::Disk => Limit { bytes: files.disk.map(|b| b.0), inodes: files.inodes },
        };
        let ownership = if self.is_virtual(point) { Ownership::Virtual } else { Ownership::Real };
        self.serve(Shape { lowers: lower.len(), ownership, limit, within: None }, lower, [upper, work], attributes);
        Ok(())
    }

    /// The same over what the root has at a path: of our own root its layers at that path, since who serves cannot look into what it serves.
    pub fn over_inside(&mut self, path: CString, [upper, work]: [CString; 2], attributes: u64) {
        let root = self.served.first().cloned().zip(self.serve.first());
        let Some((shape, Step::Served { lower, upper: above, .. })) = root else {
            let lower = [Lower::Inside(path)].into();
            self.mount(Step::Overlay { lower, upper, work, attributes, slot: Slot::Mount });
            return;
        };
        let lower: Vec<CString> = std::iter::once(above).chain(lower).cloned().collect();
        let within = Some(path.into_bytes());
        self.serve(Shape { lowers: lower.len(), limit: Limit::default(), within, ..shape }, lower, [upper, work], attributes);
    }

    fn serve(&mut self, shape: Shape, lower: Vec<CString>, [upper, work]: [CString; 2], attributes: u64) {
        let at = cstring(&self.fresh_name("m"));
        self.make(Step::MakeDir { path: at.clone(), mode: 0o700, owner: None });
        self.serve.push(Step::Served { lower: lower.into(), upper, work, attributes: attributes & !RDONLY, at: at.clone() });
        self.has_virtual_owners |= shape.ownership == Ownership::Virtual;
        self.served.push(shape);
        self.mount(Step::Take { at, slot: Slot::Mount });
    }

    /// One id is all there is, and the tree is not the host's: owners are kept beside the files.
    fn is_virtual(&self, point: &Path) -> bool {
        let files = &self.site.spec.files;
        let of_the_root = !files.mounts.iter().any(|m| m.target == point);
        self.site.spec.root != Root::Host && of_the_root && !self.site.maps.is_full()
    }

    fn is_ours(&mut self, point: &Path, lower: &[CString], writes: Writes, upper: &CStr) -> Result<bool> {
        let files = &self.site.spec.files;
        let limited = writes == Writes::Disk && (files.disk.is_some() || files.inodes.is_some());
        let needed = match (limited, submount(self, lower)) {
            (true, _) => Some("only our own overlay can limit a layer on disk".to_string()),
            (_, Some(below)) => Some(format!("{below} is mounted below it")),
            _ => None,
        };
        let cannot = |why: &str| Error::new(Kind::Unsupported, format!("cannot overlay {}: {why}", point.display()));
        match (files.overlay_backend, &needed) {
            (Backend::Fuse, _) => {}
            (Backend::Kernel, Some(why)) => return Err(cannot(why).hint("leave out --overlay-backend kernel")),
            (Backend::Kernel, None) => return Ok(false),
            (Backend::Auto, _) => {
                let virtual_owners = || "there is one id only, so owners are kept beside the files".to_string();
                let refused = || refused(lower, (writes == Writes::Disk).then_some(upper));
                let Some(why) = needed.clone().or_else(|| self.is_virtual(point).then(virtual_owners)).or_else(refused) else { return Ok(false) };
                if needed.is_none() && !available() {
                    return Ok(false); // what the kernel's can do is better than nothing
                }
                self.ours.entry(why).or_default().push(point.to_path_buf());
            }
        }
        if available() {
            Ok(true)
        } else {
            Err(Missing::FuseMissing.error(format!("cannot serve an overlay of our own: {} cannot be opened", DEVICE)))
        }
    }

    /// For people: which overlays are ours because the kernel's would not do.
    pub fn say_ours(&mut self) {
        for (why, points) in std::mem::take(&mut self.ours) {
            let more = points.len().saturating_sub(1);
            let first = points.first().map(|p| p.display().to_string()).unwrap_or_default();
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            self.notes.push(format!("{first}{more} has an overlay of our own: {why}"));
        }
    }

    /// Size and number of inodes of the scratch. What is ours in it is not counted against what the user may have.
    pub fn scratch(&self) -> (String, String) {
        let files = &self.site.spec.files;
        let size = match (files.scratch_size, files.disk.filter(|_| self.holds_the_layer())) {
            (None, None) => "50%".to_string(),
            (a, b) => a.into_iter().chain(b).map(|b| b.0).min().unwrap_or_default().to_string(),
        };
        let inodes = files.inodes.filter(|_| self.holds_the_layer()).map(|n| n.saturating_add(self.own_inodes()));
        (size, inodes.map_or("1m".to_string(), |n| n.to_string()))
    }

    /// Is the writable layer in the scratch?
    fn holds_the_layer(&self) -> bool {
        !matches!(&self.site.spec.root, Root::Image(image) if image.writable.is_some())
    }

    /// What we make ourselves: the scratch's top, each name, work directories, and mount points.
    fn own_inodes(&self) -> u64 {
        let made = |step: &Step| match step {
            Step::Overlay { .. } | Step::Take { .. } => 2,
            Step::Attach { create: Create::Directory | Create::File, .. } | Step::MakeInside { .. } => 1,
            _ => 0,
        };
        1 + self.make.len() as u64 + self.mount.iter().map(made).sum::<u64>()
    }
}

/// For a try.
const PATIENCE: Duration = Duration::from_millis(500);

const DEVICE: &str = "/dev/fuse";

fn available() -> bool {
    rustix::fs::access(DEVICE, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// What is mounted below one of these.
fn submount(b: &Builder, lower: &[CString]) -> Option<String> {
    let lower = lower.iter().map(|dir| Path::new(OsStr::from_bytes(dir.to_bytes()))).filter(|dir| dir.is_absolute());
    lower.flat_map(|dir| submounts(b.site.mounts, dir)).next().map(|m| m.point.display().to_string())
}

/// Why the kernel's overlay does not take these, if it does not.
fn refused(lower: &[CString], upper: Option<&CStr>) -> Option<String> {
    // An upper directory may be made later.
    let kind = |dir: &CStr| Path::new(OsStr::from_bytes(dir.to_bytes())).ancestors().find_map(|dir| rustix::fs::statfs(dir).ok());
    let known = |dir: &CStr| kind(dir).is_some_and(|fs| KNOWN.contains(&(fs.f_type as u64)));
    let shown = |dir: &CStr| dir.to_string_lossy().into_owned();
    if let Some(upper) = upper.filter(|dir| !known(dir)) {
        return Some(format!("the kernel's may not be able to write to {}", shown(upper)));
    }
    // What is in the scratch is on a tmpfs. All layers of an image are in one place.
    let host = lower.iter().map(CString::as_c_str).find(|dir| dir.to_bytes().starts_with(b"/") && !known(dir))?;
    let dir = rustix::fs::open(host, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let e = crate::sys::probe::overlay(dir.as_fd(), PATIENCE).err()?;
    Some(format!("the kernel's does not take {} ({})", shown(host), crate::error::why(&e.into())))
}
