//! Writable layers that outlive their sandbox: those of `run --keep` and of `run --layer NAME`, over an image or a directory of the host.
//! Called by `cli` and `container`.
//!
//! ```text
//! layers-named/NAME/     its lock, exclusive: a sandbox writes to it; shared: somebody reads it
//!   about.json           the record
//!   upper/ work/         the overlay's; their files have the ids of the store's layers
//! ```
//!
//! The image below cannot be removed before the layer is: without it the layer means nothing. // store.rs, `remove_manifest`
#![forbid(unsafe_code)]

use super::Image;
use super::making::{self, Making};
use super::store::Store;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::{Digest, Name};
use rustix::fs::{FlockOperation, Mode};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// `about.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub name: Name,
    #[serde(flatten)]
    pub ground: Ground,
    /// What the user called that.
    pub image: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The first command that ran in it, for people.
    pub command: Vec<String>,
    /// Paths that were volumes, which the layer does not hold.
    pub volumes: Vec<PathBuf>,
}

/// What a layer lies on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// The image of this manifest.
    #[serde(rename = "manifest")]
    Image(Digest),
    /// A directory of the host, resolved.
    #[serde(rename = "directory")]
    Directory(PathBuf),
}

/// A layer that nobody takes away while this lives.
#[derive(Debug)]
pub struct Kept {
    pub record: Record,
    pub dir: PathBuf,
    /// A sandbox writes to it now.
    pub busy: bool,
    /// It was made just now.
    pub new: bool,
    #[expect(dead_code, reason = "holds the lock")]
    lock: File,
}

impl Kept {
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// When it was made, in seconds and nanoseconds.
    pub fn since(&self) -> Result<(i64, i64)> {
        let file = self.dir.join("about.json");
        let stat = rustix::fs::stat(&file).doing("look at", file.display())?;
        Ok((stat.st_mtime, stat.st_mtime_nsec as i64))
    }
}

/// Where the layer of a name is, in the store at `store`.
pub fn place(store: &Path, name: &Name) -> PathBuf {
    store.join("layers-named").join(name.as_str())
}

fn record(dir: &Path) -> Result<Record> {
    let file = dir.join("about.json");
    let text = crate::host::read(&file, 1 << 20).doing("read", file.display())?;
    serde_json::from_slice(&text).map_err(|e| Error::new(Kind::Io, format!("cannot read {}: {e}", file.display())))
}

/// All of them, by name.
pub fn list(store: &Store) -> Result<Vec<Kept>> {
    let dir = store.path().join("layers-named");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).doing("read", dir.display())? {
        names.extend(entry.doing("read", dir.display())?.file_name().to_str().and_then(|n| n.parse::<Name>().ok()));
    }
    names.sort();
    Ok(names.iter().filter_map(|name| read(store, name).ok()).collect())
}

/// To read it. If a sandbox writes to it, what is read may be half of what it writes.
pub fn read(store: &Store, name: &Name) -> Result<Kept> {
    let dir = place(store.path(), name);
    let lock = File::open(&dir).map_err(|_| none(name))?;
    let busy = making::lock(&lock, FlockOperation::NonBlockingLockShared).is_err();
    if !making::is_at(&lock, &dir) {
        return Err(none(name));
    }
    Ok(Kept { record: record(&dir)?, dir, busy, new: false, lock })
}

fn none(name: &Name) -> Error {
    Error::new(Kind::NotFound, format!("cannot find a kept layer '{name}'"))
        .hint("sandbox kept lists them; run with --keep or --layer NAME to have one, or ask while it runs, by its --name")
}

/// To write to it: made if it is not there, with a top of this mode. `new`: it must not be there.
pub fn take(store: &Store, wanted: &Record, mode: u32, new: bool) -> Result<Kept> {
    let (name, dir) = (&wanted.name, place(store.path(), &wanted.name));
    let mut made = false;
    loop {
        if let Some(making) = Making::directory(&store.tmp(), &format!("named-{name}"), &|| dir.exists())? {
            for part in ["upper", "work"].map(|part| making.path().join(part)) {
                std::fs::DirBuilder::new().mode(0o700).create(&part).doing("make", part.display())?;
            }
            dress(&making.path().join("upper"), mode)?;
            let text = serde_json::to_vec(wanted).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
            let file = making.path().join("about.json");
            std::fs::write(&file, text).doing("write", file.display())?;
            making.publish(&dir)?;
            made = true;
        } else if new && !made {
            return Err(Error::new(Kind::Conflict, format!("cannot keep a layer as '{name}': there is one already"))
                .hint(format!("sandbox rm {name}, or go on with it: --layer {name}")));
        }
        let Ok(lock) = File::open(&dir) else { continue }; // removed since
        if making::lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::new(Kind::Conflict, format!("cannot write to the layer '{name}': it is in use"))
                .hint("two sandboxes cannot write to one layer: wait, or take another name"));
        }
        if !making::is_at(&lock, &dir) {
            continue;
        }
        let record = record(&dir)?;
        let e = match (&record.ground, &wanted.ground) {
            (was, is) if was == is => return Ok(Kept { record, dir, busy: true, new: made, lock }),
            (Ground::Image(manifest), _) => Error::new(
                Kind::Conflict,
                format!("cannot use the layer '{name}' on this {}: it was made on {} ({manifest})", wanted.ground.kind(), record.image),
            )
            .hint(format!("run that image, or sandbox rm {name}")),
            (Ground::Directory(path), _) => Error::new(
                Kind::Conflict,
                format!("cannot use the layer '{name}' on this {}: it was made on {}", wanted.ground.kind(), path.display()),
            )
            .hint(format!("sandbox run --layer {name} --cow {}, or sandbox rm {name}", path.display())),
        };
        return Err(e);
    }
}

impl Ground {
    fn kind(&self) -> &'static str {
        match self {
            Ground::Image(_) => "image",
            Ground::Directory(_) => "directory",
        }
    }
}

/// The top of the writable layer is what `/` looks like.
pub fn mode_of(store: &Store, image: &Image) -> u32 {
    image.directories(store.path()).last().and_then(|top| rustix::fs::stat(top).ok()).map_or(0o755, |s| s.st_mode & 0o7777)
}

fn dress(upper: &Path, mode: u32) -> Result<()> {
    rustix::fs::chmod(upper, Mode::from_raw_mode(mode)).doing("make", upper.display())
}

/// The upper directory of a layer that nobody wrote to; it is there as long as this.
pub fn blank(store: &Store, image: &Image) -> Result<Making> {
    let none = || Error::new(Kind::Bug, "a new directory is there already");
    let upper = Making::directory(&store.tmp(), &making::unique("blank")?, &|| false)?.ok_or_else(none)?;
    dress(upper.path(), mode_of(store, image))?;
    Ok(upper)
}

/// Remove a layer with all that was written to it.
pub fn remove(store: &Store, name: &Name) -> Result<()> {
    let dir = place(store.path(), name);
    let lock = File::open(&dir).map_err(|_| none(name))?;
    if making::lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(Error::new(Kind::Conflict, format!("cannot remove the layer '{name}': it is in use")).hint("wait until its sandbox has ended"));
    }
    let aside = making::put_aside(&store.tmp(), &dir)?;
    store.remove_trees(vec![(aside, lock)])
}

/// The layers that lie on the image of this manifest.
pub fn on(store: &Store, manifest: &Digest) -> Result<Vec<Name>> {
    Ok(list(store)?.into_iter().map(|k| k.record).filter(|r| r.ground == Ground::Image(manifest.clone())).map(|r| r.name).collect())
}
