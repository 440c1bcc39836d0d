//! An image as the root: its layers below a writable one. Called by `rootfs`. Nothing in the layers is trusted.
//!
//! Below the image lies a *base* of ours with the directories that our own mounts need. It shows only what the image lacks, so that a
//! writable layer that stays holds what the command wrote, and not what we had to make for it.
#![forbid(unsafe_code)]

use super::backend::Writes;
use super::{Builder, LOCALHOST, PLAIN, cpath, cstring};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::mounts::is_within;
use crate::spec::ImageRoot;
use crate::sys::mount::{NOEXEC, RDONLY};
use crate::tape::step::{FEW_LOWERS, MOST_LOWERS};
use crate::tape::{Create, Slot, Step};
use std::ffi::CString;
use std::path::Path;

/// Lay the root; true: it is read-only.
pub fn lay(b: &mut Builder, image: &ImageRoot) -> Result<bool> {
    if image.layers.len() >= MOST_LOWERS {
        let what = format!("cannot lay {} layers over each other: the kernel takes {MOST_LOWERS}", image.layers.len() + 1);
        return Err(Error::new(Kind::Unsupported, what).hint("make one layer of them: sandbox export, then sandbox import"));
    }
    for dir in ["base", "base/proc", "base/sys", "base/dev", "base/etc"] {
        b.make(Step::MakeDir { path: cstring(dir), mode: 0o755, owner: b.root_owner() });
    }
    for (file, content) in [("base/etc/hosts", LOCALHOST), ("base/etc/resolv.conf", "")] {
        b.make(Step::MakeFile { path: cstring(file), content: content.as_bytes().into(), mode: 0o644 });
    }
    let lower = lowers(image)?;
    if lower.len() > FEW_LOWERS {
        b.make(Step::MakeDir { path: c"many".into(), mode: 0o700, owner: None });
    }
    let (upper, work) = match &image.writable {
        Some(dir) => (cpath(&dir.join("upper"))?, cpath(&dir.join("work"))?),
        None => {
            // The top of the writable layer is what `/` looks like.
            let (owner, mode) = match image.layers.last() {
                Some(top) => b.likeness(top, &std::fs::metadata(top).doing("look at", top.display())?),
                None => (b.root_owner(), 0o755),
            };
            b.make(Step::MakeDir { path: c"u0".into(), mode, owner });
            b.make(Step::MakeDir { path: c"w0".into(), mode: 0o700, owner: None });
            (c"u0".into(), c"w0".into())
        }
    };
    let writes = if image.writable.is_some() { Writes::Disk } else { Writes::Scratch };
    // Writable until our mount points are made; Pivot makes it read-only.
    b.over(Path::new("/"), lower, writes, [upper, work], b.plain_root())?;
    b.mount(Step::RootAt { at: c"r".into() });
    if is_seen(b, image) {
        // A mount of its own: nothing is written through it, and its `..` is itself.
        let attributes = PLAIN | RDONLY | NOEXEC;
        b.mount(Step::CloneTree { path: c"u0".into(), recursive: false, attributes, device: None, slot: Slot::Mount });
        b.mount(Step::HandOver { slot: Slot::Mount });
    }
    Ok(b.site.spec.files.root_read_only)
}

/// What lies below the writable layer, the uppermost first.
fn lowers(image: &ImageRoot) -> Result<Vec<CString>> {
    let layers = image.layers.iter().rev().map(|dir| cpath(dir));
    layers.chain([Ok(c"base".into())]).collect()
}

/// While it runs, what is written and then lost can be asked for: it has a name. // cli/running.rs
fn is_seen(b: &Builder, image: &ImageRoot) -> bool {
    image.writable.is_none() && b.site.spec.name.is_some()
}

/// The image's volumes: each a layer of its own over what the image has there, so that its content shows and is not written to. Where
/// the root's own layer is writable, and thrown away unseen, that is one already.
pub fn volumes(b: &mut Builder, image: &ImageRoot, read_only: bool) -> Result<()> {
    let mut volumes: Vec<_> = image.volumes.iter().collect();
    volumes.sort_by_key(|v| v.components().count());
    for volume in volumes {
        if *volume == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|own| volume.starts_with(own)) {
            return Err(Error::usage(format!("cannot make the image's volume {}: /, /proc, /sys and /dev are always our own", volume.display())));
        }
        // Where the user mounts something, the volume is that; below it, it would be made on the host.
        let covered = b.site.spec.files.mounts.iter().any(|m| is_within(volume, &m.target));
        if covered {
            continue;
        }
        let path = cpath(volume.strip_prefix("/").unwrap_or(volume))?;
        if image.writable.is_none() && !read_only && !is_seen(b, image) {
            b.mount(Step::MakeInside { path });
            continue;
        }
        let upper = cstring(&b.fresh_name("u"));
        let work = cstring(&format!("w{}", b.count));
        b.make(Step::MakeDir { path: upper.clone(), mode: 0o755, owner: None });
        b.make(Step::MakeDir { path: work.clone(), mode: 0o700, owner: None });
        b.mount(Step::MakeInside { path: path.clone() });
        b.mount(Step::Resemble { path: upper.clone(), like: path.clone() });
        b.over_inside(path, [upper, work], PLAIN);
        b.attach(Slot::Mount, volume, Create::Nothing, true)?;
    }
    Ok(())
}
