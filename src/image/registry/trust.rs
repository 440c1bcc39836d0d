//! Files that say where to go and who we are: read only if nobody else could have written, or may read, what they say.
//!
//! Called by `conf`, `credentials` and `tls`.

use crate::error::{Doing, Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A whole file, and whether others can read it; None where there is none. A file that somebody else could change is no instruction.
pub fn bytes(path: &Path, limit: u64) -> Result<Option<(Vec<u8>, bool)>> {
    // A fifo would make us wait.
    let file: File = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e).doing("open", path.display()),
    };
    let meta = file.metadata().doing("look at", path.display())?;
    if !meta.is_file() {
        return Err(Error::new(Kind::Denied, format!("cannot read {}: it is no regular file", path.display())));
    }
    let me = rustix::process::geteuid().as_raw();
    if (meta.uid() != me && meta.uid() != 0) || meta.mode() & 0o022 != 0 {
        return Err(Error::new(Kind::Denied, format!("cannot trust {}: somebody else can change it", path.display()))
            .hint(format!("chown it to you or root, and: chmod go-w {}", path.display())));
    }
    let mut all = Vec::new();
    file.take(limit + 1).read_to_end(&mut all).doing("read", path.display())?;
    if all.len() as u64 > limit {
        return Err(Error::new(Kind::Io, format!("cannot read {}: it is larger than {limit} bytes", path.display())));
    }
    Ok(Some((all, meta.mode() & 0o077 != 0)))
}

pub fn text(path: &Path, limit: u64) -> Result<Option<String>> {
    let Some((all, _)) = bytes(path, limit)? else { return Ok(None) };
    String::from_utf8(all).map(Some).map_err(|_| Error::new(Kind::Io, format!("cannot read {}: it is no text", path.display())))
}
