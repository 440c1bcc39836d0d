//! A directory as the root: below a layer that is thrown away, or itself. Called by `rootfs`. The directory is not trusted.
#![forbid(unsafe_code)]

use super::backend::Writes;
use super::{Builder, RDONLY, cpath};
use crate::error::{Doing, Error, Kind, Result};
use crate::overlay;
use crate::spec::RootMode;
use crate::tape::{Slot, Step};
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
            let files = &b.site.spec.files;
            if files.disk.is_some() || files.inodes.is_some() {
                let e = Error::usage("cannot limit what is written: with --rootfs DIR:rw it goes to the directory itself, and there is no layer");
                return Err(e.hint("--rootfs DIR:O, or leave out --disk and --inodes"));
            }
            b.mount(Step::CloneTree { path: cpath(&path)?, recursive: true, attributes, device: None, slot: Slot::Mount });
        }
        RootMode::Cow => {
            let meta = std::fs::metadata(&path).doing("look at", path.display())?;
            let (owner, mode) = b.likeness(&path, &meta);
            b.make(Step::MakeDir { path: c"u0".into(), mode, owner });
            b.make(Step::MakeDir { path: c"w0".into(), mode: 0o700, owner: None });
            // Writable until our mount points are made; Pivot makes it read-only.
            b.over(Path::new("/"), vec![cpath(&path)?], Writes::Scratch, [c"u0".into(), c"w0".into()], plain)?;
            b.layers.push(super::Layer { point: PathBuf::from("/"), upper: "u0".into(), lower: Some(path) });
        }
    }
    b.mount(Step::RootAt { at: c"r".into() });
    Ok(read_only)
}
