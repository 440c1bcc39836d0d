//! The tree that the process will see: planned here as steps for the child's tape.
//!
//! *What*: `plan` looks at the host (mounts, owners, what exists) and lays out scratch directories, overlays, binds, masks and
//! pseudo file systems; `backend` decides whose overlays they are; `host` does the host's own tree, `dir` a root directory, `image` an image, `pseudo` /proc, /sys and /dev.
//!
//! *Why this way*: everything that is written lands in one tmpfs, the *scratch*, which belongs to our mount namespace alone and
//! so vanishes with it, whatever kills us. What must be hidden below a copy-on-write layer is hidden by a whiteout in its upper
//! directory: one mknod instead of a mount, and it also hides a name that the host makes later. (Rejected: an upper directory
//! on disk, as it has to be removed after a crash; a bind mount for each secret, as it costs ten times as much and misses
//! names that do not exist yet.)
//!
//! *Invariants*
//! - I1 the child opens every target below the new root by openat2(RESOLVE_IN_ROOT); our own mount points refuse links. // L1
//! - I2 mounts are attached by descriptor, never by path. // L2
//! - I3 every mount is nosuid and nodev, but the device nodes of /dev, which are single nodes that were checked, and a root
//!   directory where the user gave up no_new_privs: there su(1) must work, and can lead to mapped ids only.
//! - I4 nothing is ever created on the host, except mount points in a root directory that the user gave as `:rw`.
//!
//! *Kernel*
//!
//! | call | since | why | without it |
//! |---|---|---|---|
//! | fsopen, open_tree, move_mount | 5.2 | mounts by descriptor | refused |
//! | openat2 | 5.6 | paths that stay inside | refused |
//! | overlayfs in a user namespace | 5.11 | copy-on-write | refused |
//! | mount_setattr | 5.12 | read-only trees in one call | refused |
//! | tmpfs with user xattrs | 6.6 | opaque directories | removing a directory of the host and making it again fails inside |
#![forbid(unsafe_code)]

mod backend;
mod dir;
mod host;
mod image;
mod pseudo;

pub use pseudo::procfs;

use crate::error::{Doing, Error, Result};
use crate::host::caller::Caller;
use crate::host::mounts::{MountPoint, is_within};
use crate::image::lookup;
use crate::overlay::server::Shape;
use crate::spec::{Root, RootMode, Source, Spec};
use crate::sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY};
use crate::tape::{Barrier, Create, Recorder, Slot, Step};
use crate::userns::Maps;
use backend::Writes;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the plan is made from.
pub struct Site<'a> {
    pub spec: &'a Spec,
    pub caller: &'a Caller,
    pub maps: &'a Maps,
    pub mounts: &'a [MountPoint],
    /// The caller's working directory, resolved.
    pub cwd: &'a Path,
    /// The caller's home, resolved.
    pub home: &'a Path,
    /// The sandbox has a cgroup of its own, and shows it.
    pub own_cgroup: bool,
}

/// The planned tree.
pub struct Tree {
    steps: Vec<Step>,
    /// Overlays that we serve, in the order of their steps.
    pub served: Vec<Shape>,
    /// Sentences for the user: what cannot be had here.
    pub notes: Vec<String>,
    /// Owners are kept by attribute, and the kernel knows one id.
    pub has_virtual_owners: bool,
}

pub fn plan(site: &Site) -> Result<Tree> {
    let mut b = Builder::new(site);
    b.make(Step::MakeDir { path: c"r".into(), mode: 0o755, owner: b.root_owner() });
    b.make(Step::MakeDir { path: c"empty".into(), mode: 0o555, owner: b.root_owner() });
    b.make(Step::MakeFile { path: c"blank".into(), content: Box::default(), mode: 0o444 });
    b.make(Step::MakeWhiteout);
    let read_only = match &site.spec.root {
        Root::Host => host::lay(&mut b)?,
        Root::Dir { path, mode } => dir::lay(&mut b, path, *mode)?,
        Root::Image(image) => image::lay(&mut b, image)?,
    };
    pseudo::lay(&mut b)?;
    if let Root::Image(image) = &site.spec.root {
        image::volumes(&mut b, image, read_only)?;
    }
    let shown = b.user_mounts()?;
    if let (Root::Image(_), Some(cwd)) = (&site.spec.root, &site.spec.process.cwd) {
        b.mount(Step::MakeInside { path: cpath(cwd.strip_prefix("/").unwrap_or(cwd))? }); // cve: 2026-55686
    }
    host::hide(&mut b, &shown)?;
    b.own_files()?;
    Ok(b.finish(read_only))
}

impl Tree {
    pub fn record(self, tape: &mut Recorder) {
        for step in self.steps {
            tape.push(step);
        }
    }
}

/// A layer of the tree that is thrown away: where it is mounted, and the scratch directory that holds what is written.
struct Layer {
    point: PathBuf,
    upper: String,
    /// The host directory that shows through, if any.
    lower: Option<PathBuf>,
}

/// Owner (None: ourselves) and mode.
type Likeness = (Option<(u32, u32)>, u32);

struct Builder<'a> {
    site: &'a Site<'a>,
    /// Steps that prepare the scratch, before anything is mounted.
    make: Vec<Step>,
    /// Steps that have overlays of ours mounted, to be served before anything else is.
    serve: Vec<Step>,
    served: Vec<Shape>,
    /// Why they are ours: for each reason, where.
    ours: BTreeMap<String, Vec<PathBuf>>,
    /// Steps that mount.
    mount: Vec<Step>,
    layers: Vec<Layer>,
    /// Paths inside that already stand in the scratch.
    made: BTreeSet<OsString>,
    count: u32,
    notes: Vec<String>,
    has_virtual_owners: bool,
}

const MOST_HOSTS: u64 = 1 << 20;

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";

/// Attributes of every mount. // I3
const PLAIN: u64 = NOSUID | NODEV;

impl<'a> Builder<'a> {
    fn new(site: &'a Site<'a>) -> Builder<'a> {
        Builder {
            site,
            make: Vec::new(),
            serve: Vec::new(),
            served: Vec::new(),
            ours: BTreeMap::new(),
            mount: Vec::new(),
            layers: Vec::new(),
            made: BTreeSet::new(),
            count: 0,
            notes: Vec::new(),
            has_virtual_owners: false,
        }
    }

    fn make(&mut self, step: Step) {
        self.make.push(step);
    }

    fn mount(&mut self, step: Step) {
        self.mount.push(step);
    }

    fn finish(mut self, read_only: bool) -> Tree {
        self.say_ours();
        let (size, inodes) = self.scratch();
        let options = [("size", size.as_str()), ("nr_inodes", inodes.as_str()), ("mode", "755")];
        let options = options.iter().map(|(k, v)| (cstring(k), Some(cstring(v)))).collect();
        let root = self.plain_root() | if read_only { RDONLY } else { 0 };
        let mut steps = vec![Step::PrivatePropagation];
        steps.extend(pseudo::before(self.site));
        steps.push(Step::Filesystem { fstype: c"tmpfs".into(), options, attributes: PLAIN, slot: Slot::Mount });
        // Over /sys, since that is never the source of a mount after this.
        steps.push(Step::EnterScratch { at: c"/sys".into() });
        steps.extend(self.make);
        if !self.serve.is_empty() {
            steps.extend(self.serve);
            steps.push(Step::Await(Barrier::Served));
        }
        steps.extend(self.mount);
        steps.push(Step::Pivot { attributes: root });
        Tree { steps, served: self.served, notes: self.notes, has_virtual_owners: self.has_virtual_owners }
    }

    /// Attributes of the root itself. // I3
    fn plain_root(&self) -> u64 {
        let set_ids = !self.site.spec.restrict.no_new_privileges && self.site.spec.root != Root::Host;
        if set_ids { PLAIN & !NOSUID } else { PLAIN }
    }

    /// The ids that stand for the host's root: 0 where it has a mapping.
    fn root_owner(&self) -> Option<(u32, u32)> {
        let maps = self.site.maps;
        (maps.has_uid(0) && maps.has_gid(0)).then_some((0, 0))
    }

    /// Owner (None: ourselves, as files are born) and mode of a directory in the scratch that stands for a host directory.
    fn likeness(&self, path: &Path, meta: &Metadata) -> Likeness {
        let (maps, mode) = (self.site.maps, meta.mode() & 0o7777);
        match (maps.uid_inside(meta.uid()), maps.gid_inside(meta.gid())) {
            (Some(_), Some(_)) if meta.uid() == self.site.caller.uid && meta.gid() == self.site.caller.gid => (None, mode),
            (Some(uid), Some(gid)) => (Some((uid, gid)), mode),
            // Someone else's that we may write: inside it must be ours, or writing would be denied there.
            _ if meta.uid() == self.site.caller.uid || (writable(path) && mode & 0o002 == 0) => (None, mode | 0o700),
            _ => match self.root_owner() {
                Some(root) => (Some(root), mode),
                None if mode & 0o002 != 0 => (None, mode),
                None => (None, mode & !0o222),
            },
        }
    }

    /// A new scratch directory with this name stem.
    fn fresh_name(&mut self, stem: &str) -> String {
        self.count += 1;
        format!("{stem}{}", self.count)
    }

    /// A copy-on-write layer over the host directory `lower` at `point`, whose mount point must be there.
    fn overlay(&mut self, lower: &Path, point: &Path, attributes: u64, create: Create) -> Result<()> {
        let meta = std::fs::metadata(lower).doing("look at", lower.display())?;
        self.overlay_like(lower, point, self.likeness(lower, &meta), attributes, create)
    }

    fn overlay_like(&mut self, lower: &Path, point: &Path, (owner, mode): Likeness, attributes: u64, create: Create) -> Result<()> {
        let upper = self.fresh_name("u");
        let work = format!("w{}", self.count);
        self.make(Step::MakeDir { path: cstring(&upper), mode, owner });
        self.make(Step::MakeDir { path: cstring(&work), mode: 0o700, owner: None });
        self.over(point, vec![cpath(lower)?], Writes::Scratch, [cstring(&upper), cstring(&work)], attributes | PLAIN)?;
        self.attach(Slot::Mount, point, create, false)?;
        self.layers.push(Layer { point: point.to_path_buf(), upper, lower: Some(lower.to_path_buf()) });
        Ok(())
    }

    /// An empty directory of the scratch, mounted at `point`; with the likeness of the host's directory there.
    fn empty(&mut self, point: &Path, mode: u32, owner: Option<(u32, u32)>, create: Create) -> Result<()> {
        let upper = self.fresh_name("t");
        self.make(Step::MakeDir { path: cstring(&upper), mode, owner });
        self.mount(Step::CloneTree { path: cstring(&upper), recursive: false, attributes: 0, device: None, slot: Slot::Mount });
        self.attach(Slot::Mount, point, create, false)?;
        self.layers.push(Layer { point: point.to_path_buf(), upper, lower: None });
        Ok(())
    }

    /// A host tree, with its submounts.
    fn bind(&mut self, source: &Path, point: &Path, attributes: u64, create: Create, follow: bool) -> Result<()> {
        self.mount(Step::CloneTree { path: cpath(source)?, recursive: true, attributes: attributes | PLAIN, device: None, slot: Slot::Mount });
        self.attach(Slot::Mount, point, create, follow)
    }

    /// Attach the mount in `slot` at a path inside.
    fn attach(&mut self, slot: Slot, point: &Path, create: Create, follow: bool) -> Result<()> {
        let target = cpath(point.strip_prefix("/").unwrap_or(point))?;
        self.mount(Step::Attach { slot, target, create, follow });
        Ok(())
    }

    /// Empty what is at `point`, if something is there.
    fn mask(&mut self, point: &Path, directory: bool) -> Result<()> {
        let path = if directory { c"empty" } else { c"blank" };
        self.mount(Step::CloneTree { path: path.into(), recursive: false, attributes: PLAIN | RDONLY | NOEXEC, device: None, slot: Slot::Mount });
        self.attach(Slot::Mount, point, Create::Absent, false)
    }

    fn is_made(&self, path: &Path) -> bool {
        self.made.contains(path.as_os_str())
    }

    fn note_made(&mut self, path: &Path) {
        self.made.insert(path.into());
    }

    /// The deepest layer that `path` lies in or at; of two at one place, the later.
    fn layer(&self, path: &Path) -> Option<&Layer> {
        self.layers.iter().filter(|l| is_within(path, &l.point)).max_by_key(|l| l.point.as_os_str().len())
    }

    /// Make sure that the directory `path` stands in the scratch part of its layer, with the likeness of what shows through.
    /// False: it cannot, since an owner on the way has no mapping.
    fn stand(&mut self, path: &Path) -> Result<bool> {
        let Some(layer) = self.layer(path) else { return Ok(false) };
        let (point, upper, lower) = (layer.point.clone(), layer.upper.clone(), layer.lower.clone());
        let Ok(below) = path.strip_prefix(&point) else { return Ok(false) };
        let mut inside = point;
        let mut scratch = PathBuf::from(upper);
        let mut host = lower;
        for name in below.components() {
            inside.push(name);
            scratch.push(name);
            host = host.map(|h| h.join(name));
            if self.is_made(&inside) {
                continue;
            }
            let (owner, mode) = match host.as_ref().and_then(|h| std::fs::symlink_metadata(h).ok().map(|m| (h.clone(), m))) {
                Some((h, meta)) => {
                    let mapped = self.site.maps.uid_inside(meta.uid()).is_some() && self.site.maps.gid_inside(meta.gid()).is_some();
                    if !meta.is_dir() || !mapped {
                        return Ok(false);
                    }
                    self.likeness(&h, &meta)
                }
                None => (self.root_owner(), 0o755),
            };
            self.make(Step::MakeDir { path: cpath(&scratch)?, mode, owner });
            self.note_made(&inside);
        }
        Ok(true)
    }

    /// The user's mounts, in the user's order. Returns their targets, which the user named and wants to see.
    fn user_mounts(&mut self) -> Result<Vec<PathBuf>> {
        let spec = self.site.spec;
        let mut shown = Vec::new();
        // What lies deeper comes later, or it would be covered: `--rw . --ro keys`. Of two at one place the later one wins.
        let mut mounts: Vec<_> = spec.files.mounts.iter().collect();
        mounts.sort_by_key(|m| m.target.components().count());
        for m in mounts {
            // cve: 2019-16884: who fakes /proc fakes what security software reads there.
            if m.target == Path::new("/") || m.target.starts_with("/proc") || m.target.starts_with("/sys") {
                let e = Error::usage(format!("cannot mount at {}: /, /proc and /sys are always our own", m.target.display()));
                return Err(e.hint("choose another place inside"));
            }
            let attributes = if m.read_only { RDONLY } else { 0 } | if m.no_exec { NOEXEC } else { 0 };
            let missing_in_host_tree = spec.root == Root::Host && std::fs::symlink_metadata(&m.target).is_err();
            if missing_in_host_tree && let Some(parent) = m.target.parent() {
                // A new mount point: made in the layer, since the kernel's overlay might not be able to copy its parent up.
                self.stand(parent)?;
            }
            match &m.source {
                Source::Bind(path) => {
                    let path = self.source(path)?;
                    let create = if path.is_dir() { Create::Directory } else { Create::File };
                    self.bind(&path, &m.target, attributes, create, true)?;
                    host::cover(self, &path, &m.target, &shown)?;
                }
                Source::Cow(path) => {
                    let path = self.source(path)?;
                    if !path.is_dir() {
                        return Err(Error::usage(format!("cannot overlay {}: not a directory", path.display())));
                    }
                    match spec.files.kept.as_ref().filter(|kept| kept.at == m.target) {
                        None => self.overlay(&path, &m.target, attributes, Create::Directory)?,
                        Some(kept) => {
                            let layer = [cpath(&kept.layer.join("upper"))?, cpath(&kept.layer.join("work"))?];
                            self.over(&m.target, vec![cpath(&path)?], Writes::Disk, layer, attributes | PLAIN)?;
                            self.attach(Slot::Mount, &m.target, Create::Directory, false)?;
                        }
                    }
                }
                Source::Tmpfs { size, mode } => {
                    let size = size.map_or("50%".to_string(), |s| s.0.to_string());
                    let options = [("size", size.as_str()), ("nr_inodes", "1m"), ("mode", &format!("{mode:o}"))];
                    let options = options.iter().map(|(k, v)| (cstring(k), Some(cstring(v)))).collect();
                    self.mount(Step::Filesystem { fstype: c"tmpfs".into(), options, attributes: attributes | PLAIN, slot: Slot::Mount });
                    self.attach(Slot::Mount, &m.target, Create::Directory, true)?;
                    self.layers.push(Layer { point: m.target.clone(), upper: String::new(), lower: None });
                }
            }
            shown.push(m.target.clone());
        }
        Ok(shown)
    }

    /// A host path that the user gave, resolved.
    fn source(&self, path: &Path) -> Result<PathBuf> {
        let path = match path.strip_prefix("~") {
            Ok(rest) => self.site.home.join(rest),
            Err(_) => self.site.cwd.join(path),
        };
        std::fs::canonicalize(&path).doing("mount", path.display())
    }

    /// Generated files: /etc/hosts and /etc/resolv.conf, where they were asked for or the root cannot have right ones.
    fn own_files(&mut self) -> Result<()> {
        let n = &self.site.spec.network;
        let in_dir = self.site.spec.root != Root::Host;
        let etc = |name: &str| std::fs::read_to_string(Path::new("/etc").join(name)).unwrap_or_default();
        if !n.add_host.is_empty() {
            let mut text = if in_dir { LOCALHOST.to_string() } else { etc("hosts") };
            if !text.ends_with('\n') && !text.is_empty() {
                text.push('\n');
            }
            text.extend(n.add_host.iter().map(|(name, address)| format!("{address}\t{name}\n")));
            self.file("/etc/hosts", text)?;
        } else if let Root::Dir { path, mode: RootMode::Cow } = &self.site.spec.root
            && std::fs::symlink_metadata(self.site.cwd.join(path).join("etc/hosts")).is_err()
        {
            // A bare debootstrap has none.
            if self.stand(Path::new("/etc"))? {
                self.make(Step::MakeFile { path: c"u0/etc/hosts".into(), content: LOCALHOST.as_bytes().into(), mode: 0o644 });
            }
        }
        if let Root::Image(image) = &self.site.spec.root
            && n.add_host.is_empty()
            && lookup::read(&image.from_the_top(), "etc/hosts", MOST_HOSTS).is_ok_and(|text| text.is_empty())
        {
            // Docker leaves an empty one in its images, where it mounts its own. A missing one is in the base. // image.rs
            self.file("/etc/hosts", LOCALHOST.to_string())?;
        }
        if !n.dns.is_empty() {
            self.file("/etc/resolv.conf", n.dns.iter().map(|a| format!("nameserver {a}\n")).collect())?;
        } else if in_dir && n.mode == crate::spec::NetworkMode::Host {
            self.file("/etc/resolv.conf", etc("resolv.conf"))?;
        }
        Ok(())
    }

    fn file(&mut self, point: &str, text: String) -> Result<()> {
        let name = self.fresh_name("f");
        self.make(Step::MakeFile { path: cstring(&name), content: text.into_bytes().into(), mode: 0o644 });
        self.mount(Step::CloneTree { path: cstring(&name), recursive: false, attributes: NOEXEC, device: None, slot: Slot::Mount });
        self.attach(Slot::Mount, Path::new(point), Create::File, true)
    }
}

/// May the caller write here, by the host's own judgement?
fn writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn cpath(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::usage(format!("bad path '{}': it holds a NUL", path.display())))
}

/// A text of our own making, which holds no NUL.
fn cstring(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
