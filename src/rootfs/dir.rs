//! A directory as the root: below a layer that is thrown away, or itself. Called by `rootfs`. The directory is not trusted.
#![forbid(unsafe_code)]

use super::{Builder, RDONLY, cpath};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::mounts::submounts;
use crate::overlay;
use crate::spec::RootMode;
use crate::tape::{Lower, Slot, Step};
use std::path::{Path, PathBuf};

/// Lay the root; true: it is read-only.
pub fn lay(b: &mut Builder, path: &Path, mode: RootMode) -> Result<bool> {
    let path = std::fs::canonicalize(b.site.cwd.join(path)).doing("use", format_args!("{} as root", path.display()))?;
    if !path.is_dir() {
        return Err(Error::new(Kind::NotFound, format!("cannot use {} as root: not a directory", path.display())));
    }
    let read_only = b.site.spec.files.root_read_only;
    let plain = b.plain_root();
    let attributes = plain | if read_only { RDONLY } else { 0 };
    match mode {
        RootMode::ReadWrite => {
            b.has_virtual_owners = !b.site.maps.is_full() && rustix::fs::getxattr(&path, overlay::OWNER, &mut [0u8; 0][..]).is_ok();
            b.mount(Step::CloneTree { path: cpath(&path)?, recursive: true, attributes, device: None, slot: Slot::Mount });
        }
        RootMode::Cow => {
            if let Some(m) = submounts(b.site.mounts, &path).next() {
                return Err(Error::new(Kind::Unsupported, format!("cannot overlay {}: {} is mounted below it", path.display(), m.point.display()))
                    .hint("unmount it, or write through with --rootfs DIR:rw"));
            }
            let meta = std::fs::metadata(&path).doing("look at", path.display())?;
            let (owner, mode) = b.likeness(&path, &meta);
            b.make(Step::MakeDir { path: c"u0".into(), mode, owner });
            b.make(Step::MakeDir { path: c"w0".into(), mode: 0o700, owner: None });
            // Writable until our mount points are made; Pivot makes it read-only.
            b.mount(Step::Overlay {
                lower: [Lower::At(cpath(&path)?)].into(),
                upper: c"u0".into(),
                work: c"w0".into(),
                attributes: plain,
                slot: Slot::Mount,
            });
            b.layers.push(super::Layer { point: PathBuf::from("/"), upper: "u0".into(), lower: Some(path) });
        }
    }
    b.mount(Step::RootAt { at: c"r".into() });
    Ok(read_only)
}
