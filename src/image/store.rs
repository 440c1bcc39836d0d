//! The store: a directory of blobs, unpacked layers and small records, which several processes and versions use at once.
//!
//! Called by `cli`, `archive`, `registry` and `rootfs`. Writes nowhere but below its own directory; other stores it only reads.
//!
//! ```text
//! format                 1
//! lock                   shared: somebody adds; exclusive: somebody collects what nothing refers to
//! blobs/sha256/HEX       manifests, configurations, layers as they are transported
//! layers/CHAIN/          diff/, the unpacked layer, and about.json; its lock, shared: a run uses it
//! images/MANIFEST.json   an image that is whole; its lock, shared: a run uses it
//! names/HASH.json        a name, and the manifest that it stands for
//! tmp/                   what is in the making, see `making`
//! layers-named/          writable layers of `run --layer`
//! ```
#![forbid(unsafe_code)]

use super::{Descriptor, Image, Layer, blob, kept, layout, making, unpack};
use crate::birth::die_at;
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result, why};
use crate::ident::{Digest, ImageName};
use crate::role;
use crate::tape::step::Extent;
use crate::userns::Maps;
use making::Making;
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock};

/// What lies in the directory has this form. Fields and directories may join it; a change of meaning is another number.
const FORMAT: &str = "1";

/// No record of ours is longer.
const LONGEST_RECORD: u64 = 1 << 20;

/// Layers of an image that are unpacked at the same time.
const HANDS: usize = 2;

/// A directory of images.
pub struct Store {
    path: PathBuf,
    shared: Vec<PathBuf>,
    maps: OnceLock<Maps>,
    options: unpack::Options,
    /// While we add something.
    adding: Mutex<Option<Adding>>,
}

struct Adding {
    _lock: File,
    note: PathBuf,
}

/// The layers of an image are there, and stay, as long as this lives.
#[derive(Debug)]
pub struct Held {
    _locks: Vec<File>,
}

/// `images/MANIFEST.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    media_type: String,
    digest: Digest,
    size: u64,
    /// Seconds since 1970.
    added: u64,
}

/// `names/HASH.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    name: ImageName,
    manifest: Digest,
}

/// `layers/CHAIN/about.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    pub diff_id: Digest,
    pub parent: Option<Digest>,
    /// Of the tar.
    pub size: u64,
    pub entries: u64,
    /// So many of them were given to root by --squash-ids: the directory is not quite what the layer says.
    #[serde(default)]
    pub squashed: u64,
    /// What the unpacker had to leave out, for people.
    pub notes: Vec<String>,
    /// Whose ids its files have: `inside:outside:count`.
    uids: Vec<String>,
    gids: Vec<String>,
}

/// All images, and the manifests of those that cannot be read, with the reason.
#[derive(Debug)]
pub struct Survey {
    pub images: Vec<Image>,
    pub damaged: Vec<(Digest, Error)>,
}

/// What nothing refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    pub layers: Vec<Digest>,
    pub blobs: Vec<Digest>,
    /// Of the layers' tars.
    pub layer_bytes: u64,
    pub blob_bytes: u64,
    /// Somebody is adding an image: nothing was collected.
    pub busy: bool,
}

impl Garbage {
    pub fn bytes(&self) -> u64 {
        self.layer_bytes + self.blob_bytes
    }
}

impl Store {
    /// The user's store, made if it is not there. What dead processes left in it is gone then.
    pub fn open(home: &Path) -> Result<Store> {
        Store::at(dirs::store(home))
    }

    /// The store in this directory.
    pub fn at(path: PathBuf) -> Result<Store> {
        if let Some(parent) = path.parent() {
            dirs::make(parent)?;
        }
        dirs::make(&path)?;
        local(&path)?;
        for dir in ["blobs/sha256", "layers", "images", "names", "tmp", "layers-named"] {
            dirs::make(&path.join(dir))?;
        }
        let store = Store { path, shared: shared(), maps: OnceLock::new(), options: unpack::Options::default(), adding: Mutex::new(None) };
        store.check_format()?;
        // What cannot be removed now, the next command tries again; no reason to do nothing at all.
        let _ = making::sweep(&store.tmp()).and_then(|dead| store.remove_trees(dead));
        Ok(store)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// With `squash`, layers that are unpacked from now on may have files of ids that the user has not: they become root's.
    pub fn squash_ids(mut self, squash: bool) -> Store {
        self.options.squash_ids = squash;
        self
    }

    /// With its ids, where they are known already: to ask for them costs four files, or programs.
    pub fn knowing(mut self, maps: Option<&Maps>) -> Store {
        self.maps = maps.cloned().map(OnceLock::from).unwrap_or_default();
        self
    }

    /// The ids that the files of its layers have: the user is root, and the subordinate ids follow.
    pub fn maps(&self) -> Result<&Maps> {
        if let Some(maps) = self.maps.get() {
            return Ok(maps);
        }
        let maps = role::maps()?;
        Ok(self.maps.get_or_init(|| maps))
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    fn check_format(&self) -> Result<()> {
        let file = self.path.join("format");
        let there = || file.exists();
        if let Some(mut made) = Making::file(&self.tmp(), "format", &there)? {
            writeln!(made.file_mut(), "{FORMAT}").doing("write", file.display())?;
            made.publish(&file)?;
        }
        let found = String::from_utf8(read(&file, 64)?).unwrap_or_default();
        if found.trim() != FORMAT {
            let found = found.trim();
            return Err(Error::new(
                Kind::Unsupported,
                format!("cannot use {}: its format is '{found}', and this sandbox knows {FORMAT}", self.path.display()),
            )
            .hint("use the sandbox that made it, or another store: XDG_DATA_HOME"));
        }
        if !self.path.join("lock").exists() {
            File::options().create(true).append(true).open(self.path.join("lock")).doing("make", self.path.join("lock").display())?;
        }
        Ok(())
    }

    // ---------------------------------------------------------------------------------------------------------- reading

    /// An image by its name, its ID or the beginning of it, or the digest of its manifest.
    pub fn find(&self, text: &str) -> Result<Option<Image>> {
        let names = self.names()?;
        // The very name first.
        for name in text.parse().ok().into_iter().chain(ImageName::local(text)) {
            for (dir, named) in &names {
                let pinned = || {
                    (named.name.registry(), named.name.repository()) == (name.registry(), name.repository()) && name.digest() == Some(&named.manifest)
                };
                if (named.name == name || pinned())
                    && let Some(image) = self.image(dir, &named.manifest, &names)?
                {
                    return Ok(Some(image));
                }
            }
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() < 2 || hex.len() > 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(None);
        }
        let mut found: Vec<Image> = self.images()?.into_iter().filter(|i| i.id.hex().starts_with(hex) || i.manifest.digest.hex() == hex).collect();
        if found.iter().any(|i| i.id != found[0].id) {
            return Err(Error::usage(format!("cannot tell which image is meant: {} begin with '{text}'", found.len())).hint("use more of the ID"));
        }
        Ok(found.drain(..).next())
    }

    /// What `find` finds, for a run, which is not to pay for every name that there is: of the image's own names it has that one only.
    pub fn find_to_run(&self, text: &str) -> Result<Option<Image>> {
        if let Ok(name) = text.parse::<ImageName>()
            && let Some(named) = parsed::<Named>(&self.name(&name))?
            && let Some(image) = self.image(&self.path, &named.manifest.clone(), &[(self.path.clone(), named)])?
        {
            return Ok(Some(image));
        }
        self.find(text)
    }

    /// `find`, or the error that says so.
    pub fn get(&self, text: &str) -> Result<Image> {
        self.find(text)?.ok_or_else(|| self.missing(text))
    }

    pub fn missing(&self, text: &str) -> Error {
        Error::new(Kind::NotFound, format!("cannot find image '{text}'")).hint(format!("sandbox pull {text}"))
    }

    /// All images, the newest first; what is damaged is left out.
    pub fn images(&self) -> Result<Vec<Image>> {
        Ok(self.survey()?.images)
    }

    /// All images, and the manifests of those that cannot be read, with the reason.
    pub fn survey(&self) -> Result<Survey> {
        let names = self.names()?;
        let (mut images, mut damaged, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for dir in self.stores() {
            for digest in entries(&dir.join("images"), ".json")? {
                if !seen.insert(digest.hex().to_string()) {
                    continue;
                }
                match self.image(dir, &digest, &names) {
                    Ok(Some(image)) => images.push(image),
                    Ok(None) => {}
                    Err(e) => damaged.push((digest, e)),
                }
            }
        }
        images.sort_by(|a, b| b.config.created().cmp(a.config.created()).then_with(|| a.manifest.digest.hex().cmp(b.manifest.digest.hex())));
        Ok(Survey { images, damaged })
    }

    /// Our own first.
    fn stores(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.path.as_path()).chain(self.shared.iter().map(PathBuf::as_path))
    }

    /// Every name, with the store that has it; a name that we have hides the same one in a shared store.
    fn names(&self) -> Result<Vec<(PathBuf, Named)>> {
        let mut names: Vec<(PathBuf, Named)> = Vec::new();
        for dir in self.stores() {
            for entry in std::fs::read_dir(dir.join("names")).doing("read", dir.join("names").display())? {
                let path = entry.doing("read", dir.display())?.path();
                // Gone since: I2.
                let Some(named) = parsed::<Named>(&path)? else { continue };
                if !names.iter().any(|(_, n)| n.name == named.name) {
                    names.push((dir.to_path_buf(), named));
                }
            }
        }
        names.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        Ok(names)
    }

    /// The image of a manifest, from the store `from` or, if it is a name of ours for a shared one, from where it is.
    fn image(&self, from: &Path, manifest: &Digest, names: &[(PathBuf, Named)]) -> Result<Option<Image>> {
        for dir in std::iter::once(from).chain(self.stores().filter(|d| *d != from)) {
            let Some(record) = parsed::<Record>(&dir.join("images").join(format!("{}.json", manifest.hex())))? else { continue };
            let doing = |e: Error| e.context(format!("read image {} in {}", manifest, dir.display()));
            let descriptor = Descriptor { media_type: record.media_type, digest: record.digest, size: record.size };
            let layout::Document::Manifest(read) =
                layout::document(&document(dir, &descriptor).map_err(doing)?, Some(&descriptor.media_type)).map_err(doing)?
            else {
                return Err(Error::new(Kind::Bug, format!("the record of {manifest} is of an index")));
            };
            let (config, diff_ids) = layout::config(&document(dir, &read.config).map_err(doing)?).map_err(doing)?;
            let layers = layout::layers(&read, &diff_ids).map_err(doing)?;
            let names = names.iter().filter(|(_, n)| n.manifest == *manifest).map(|(_, n)| n.name.clone()).collect();
            return Ok(Some(Image { names, store: dir.to_path_buf(), manifest: descriptor, id: read.config.digest, config, layers }));
        }
        Ok(None)
    }

    /// A manifest or configuration of an image, verified.
    pub fn document(&self, image: &Image, what: &Descriptor) -> Result<Vec<u8>> {
        document(&image.store, what)
    }

    /// A blob of an image that may be in a shared store, verified as it is read.
    pub fn read_blob(&self, image: &Image, what: &Descriptor) -> Result<blob::Checked> {
        let path = blob::path(&image.store, &what.digest);
        Ok(blob::Checked::new(open(&path)?.0, what.clone()))
    }

    /// When it was added, in seconds since 1970.
    pub fn added(&self, image: &Image) -> u64 {
        let record = parsed::<Record>(&image.store.join("images").join(format!("{}.json", image.manifest.digest.hex())));
        record.ok().flatten().map_or(0, |r| r.added)
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        blob::path(&self.path, digest).is_file()
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = blob::path(&self.path, digest);
        File::open(&path).doing("open", path.display())
    }

    pub fn has_layer(&self, chain_id: &Digest) -> bool {
        self.layer(chain_id).join("about.json").is_file()
    }

    /// What is known of an unpacked layer.
    pub fn about(&self, chain_id: &Digest) -> Result<Option<About>> {
        parsed(&self.layer(chain_id).join("about.json"))
    }

    fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.path.join("layers").join(chain_id.hex())
    }

    // ----------------------------------------------------------------------------------------------------------- adding

    /// From now on nobody collects, until what was added has its record. Every function that adds begins with it. If it never gets
    /// one, the note stays, and says that there is garbage.
    pub fn begin_adding(&self) -> Result<()> {
        let mut adding = self.adding.lock().unwrap_or_else(|e| e.into_inner());
        if adding.is_none() {
            let path = self.path.join("lock");
            let lock = File::open(&path).doing("open", path.display())?;
            making::lock(&lock, FlockOperation::LockShared).doing("lock", path.display())?;
            let note = self.tmp().join(making::unique(making::NOTE)?);
            File::create_new(&note).doing("make", note.display())?;
            *adding = Some(Adding { _lock: lock, note });
            die_at(22);
        }
        Ok(())
    }

    /// What was added belongs to an image: collect who may.
    fn end_adding(&self) {
        if let Some(adding) = self.adding.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = std::fs::remove_file(&adding.note);
        }
    }

    /// Keep what `reader` gives. With `expect`, it must be that, and is not read if it is there already.
    pub fn put_blob(&self, reader: &mut dyn Read, expect: Option<&Descriptor>) -> Result<Descriptor> {
        self.begin_adding()?;
        let Some(mut incoming) = blob::Incoming::begin(&self.path, expect)? else {
            return expect.cloned().ok_or_else(|| Error::new(Kind::Bug, "a blob without a name is there already"));
        };
        blob::pour(reader, &mut [&mut incoming], expect.map_or("a blob", |d| d.digest.as_str()))?;
        let (digest, size) = incoming.finish(&self.path, expect)?;
        let media_type = expect.map_or("application/octet-stream", |d| &d.media_type).to_string();
        Ok(Descriptor { media_type, digest, size })
    }

    /// Write a record: whole, or not at all.
    fn put_record(&self, record: &impl Serialize, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
        let mut made = Making::new_file(&self.tmp(), "record")?;
        made.file_mut().write_all(&text).doing("write", path.display())?;
        made.publish(path)
    }

    /// An image whose blobs and layers are all there gets its record, and its name.
    pub fn add_image(&self, manifest_bytes: &[u8], name: Option<&ImageName>) -> Result<Image> {
        self.begin_adding()?;
        let layout::Document::Manifest(manifest) = layout::document(manifest_bytes, None)? else {
            return Err(Error::usage("cannot add an image: this is an index of images, not a manifest"));
        };
        let missing = |what: &str, digest: &Digest| Error::new(Kind::NotFound, format!("cannot add an image: its {what} {digest} is not there"));
        if !self.has_blob(&manifest.config.digest) {
            return Err(missing("configuration", &manifest.config.digest));
        }
        let (_, diff_ids) = layout::config(&document(&self.path, &manifest.config)?)?;
        for layer in layout::layers(&manifest, &diff_ids)? {
            if !self.has_blob(&layer.blob.digest) || !self.has_layer(&layer.chain_id) {
                return Err(missing("layer", &layer.blob.digest));
            }
        }
        die_at(23);
        let digest = layout::digest(manifest_bytes);
        let descriptor = Descriptor { media_type: manifest.media_type, digest: digest.clone(), size: manifest_bytes.len() as u64 };
        self.put_blob(&mut &*manifest_bytes, Some(&descriptor))?;
        let path = self.record(&digest);
        if !path.exists() {
            let Descriptor { media_type, digest, size } = descriptor;
            self.put_record(&Record { media_type, digest, size, added: now() }, &path)?;
        }
        die_at(24); // a record without its name
        if let Some(name) = name {
            self.put_record(&Named { name: name.clone(), manifest: digest.clone() }, &self.name(name))?;
        }
        die_at(25);
        self.end_adding();
        let names = self.names()?;
        let lost = || name.is_some_and(|name| !names.iter().any(|(_, n)| n.name == *name));
        let image = self.image(&self.path, &digest, &names)?.filter(|_| !lost());
        image.ok_or_else(|| Error::new(Kind::Conflict, "cannot add an image: somebody removed it at once"))
    }

    fn record(&self, manifest: &Digest) -> PathBuf {
        self.path.join("images").join(format!("{}.json", manifest.hex()))
    }

    /// A name may be longer than a file's, so it is a hash; what it is stands in the file. // I4
    fn name(&self, name: &ImageName) -> PathBuf {
        self.path.join("names").join(format!("{}.json", layout::digest(name.to_string().as_bytes()).hex()))
    }

    /// Give an image one more name; another image loses it.
    pub fn tag(&self, image: &Image, name: &ImageName) -> Result<()> {
        if name.digest().is_some() {
            return Err(Error::usage(format!("cannot name an image '{name}': a name that one gives has no digest")));
        }
        self.begin_adding()?;
        let _held = self.hold_record(image)?;
        self.put_record(&Named { name: name.clone(), manifest: image.manifest.digest.clone() }, &self.name(name))?;
        self.end_adding();
        Ok(())
    }

    /// Take a name away. The image stays.
    pub fn untag(&self, name: &ImageName) -> Result<()> {
        match std::fs::remove_file(self.name(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let error = Error::new(Kind::NotFound, format!("cannot find the name '{name}' in your store"));
                let shared = self.names()?.into_iter().find(|(_, named)| named.name == *name);
                Err(match shared {
                    Some((dir, _)) => error.hint(format!("it is in {}, a shared store: only its owner can", dir.display())),
                    None => error,
                })
            }
            other => other.doing("remove", name),
        }
    }

    /// Keep one layer, and unpack it over its parent. `reader` gives the blob, and is not read if it is there already.
    pub fn add_layer(&self, blob: &Descriptor, diff_id: &Digest, parent_chain: Option<&Digest>, reader: &mut dyn Read) -> Result<Layer> {
        let chain_id = layout::chain(parent_chain, diff_id);
        let layer = Layer { blob: blob.clone(), diff_id: diff_id.clone(), chain_id };
        self.begin_adding()?;
        if let Some(unpacked) = self.make_layer(&layer, reader, true)? {
            self.settle(unpacked, &layer, parent_chain)?;
        }
        Ok(layer)
    }

    /// Keep a layer of which nothing is known yet, and unpack it over its parent.
    pub fn add_new_layer(&self, media_type: &str, parent_chain: Option<&Digest>, reader: &mut dyn Read) -> Result<Layer> {
        self.begin_adding()?;
        let making =
            Making::directory(&self.tmp(), &making::unique("layer")?, &|| false)?.ok_or_else(|| Error::new(Kind::Bug, "no new directory"))?;
        let made = (|| {
            let dir = making.path().join("diff");
            std::fs::create_dir(&dir).doing("make", dir.display())?;
            let mut unpacking = unpack::begin(&dir, self.maps()?, &self.options)?;
            let Some(mut incoming) = blob::Incoming::begin(&self.path, None)? else { return Err(Error::new(Kind::Bug, "no new blob")) };
            let poured = blob::pour(reader, &mut [&mut incoming, &mut unpacking], "a layer");
            let unpacked = unpacking.finish();
            if let Err(e) = poured {
                return Err(unpacked.err().filter(|_| e.message().contains("roken pipe")).unwrap_or(e));
            }
            let unpacked = unpacked?;
            let (digest, size) = incoming.finish(&self.path, None)?;
            let blob = Descriptor { media_type: media_type.to_string(), digest, size };
            let (diff_id, chain_id) = (unpacked.diff_id.clone(), layout::chain(parent_chain, &unpacked.diff_id));
            Ok((unpacked, Layer { blob, diff_id, chain_id }))
        })();
        match made {
            Ok((_, layer)) if self.has_layer(&layer.chain_id) => self.discard(making).map(|()| layer),
            Ok((unpacked, layer)) => self.settle(Unpacked { making, unpacked }, &layer, parent_chain).map(|()| layer),
            Err(e) => {
                let _ = self.discard(making);
                Err(e)
            }
        }
    }

    /// Keep all layers of an image, lowest first, several at a time. `source` opens the blob of the layer of that number, on any thread.
    pub fn add_layers(&self, layers: &[Layer], source: &(dyn Fn(usize) -> Result<Box<dyn Read>> + Sync)) -> Result<()> {
        self.begin_adding()?;
        self.make_layers(layers, source, true)
    }

    fn make_layers(&self, layers: &[Layer], source: &(dyn Fn(usize) -> Result<Box<dyn Read>> + Sync), keep: bool) -> Result<()> {
        self.maps()?;
        // Whoever is free takes the next one; they are put in place in order, since each leans on the one below.
        let turn = Mutex::new(Turn { next: 0, settled: 0, failed: None });
        let changed = Condvar::new();
        let entry = || turn.lock().unwrap_or_else(|e| e.into_inner());
        let work = || {
            loop {
                let number = {
                    let mut turn = entry();
                    if turn.failed.is_some() || turn.next == layers.len() {
                        return;
                    }
                    turn.next += 1;
                    turn.next - 1
                };
                let layer = &layers[number];
                let parent = number.checked_sub(1).map(|n| &layers[n].chain_id);
                let mut late = Late { open: &|| source(number), reader: None };
                let made = self.make_layer(layer, &mut late, keep);
                let mut turn = entry();
                while turn.failed.is_none() && turn.settled < number {
                    turn = changed.wait(turn).unwrap_or_else(|e| e.into_inner());
                }
                let failed = turn.failed.is_some();
                drop(turn);
                let done = match made {
                    Ok(None) => Ok(()),
                    Ok(Some(unpacked)) if failed => self.discard(unpacked.making),
                    Ok(Some(unpacked)) => self.settle(unpacked, layer, parent),
                    Err(e) => Err(e),
                };
                let mut turn = entry();
                match done {
                    Ok(()) => turn.settled = turn.settled.max(number + 1),
                    Err(e) => turn.failed = turn.failed.take().or(Some(e)),
                }
                changed.notify_all();
            }
        };
        let before = crate::sys::clone::threads();
        std::thread::scope(|scope| {
            for _ in 1..HANDS.min(layers.len()) {
                scope.spawn(work);
            }
            work();
        });
        // They have done their work; whoever clones next needs them gone, and the kernel takes a moment more.
        for _ in 0..1000 {
            if crate::sys::clone::threads() <= before {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        turn.into_inner().unwrap_or_else(|e| e.into_inner()).failed.map_or(Ok(()), Err)
    }

    /// A layer that is there with other owners than it says will do for whoever said so. For others, it would not be there at all: with the
    /// same ids it cannot be unpacked as it is.
    pub fn accept(&self, layer: &Layer) -> Result<()> {
        match self.about(&layer.chain_id)?.map_or(0, |about| about.squashed) {
            0 => Ok(()),
            _ if self.options.squash_ids => Ok(()),
            n => Err(Error::new(
                Kind::Denied,
                format!("cannot use layer {}: {n} of its files have ids that you do not have, and were given to root", layer.blob.digest),
            )
            .hint("if that will do for this image, too: --squash-ids")),
        }
    }

    /// Unpack a layer into `tmp/`; None: it is there, or somebody else made it while we waited. With `keep` its blob is there, too.
    fn make_layer(&self, layer: &Layer, reader: &mut dyn Read, keep: bool) -> Result<Option<Unpacked>> {
        let there = || self.has_layer(&layer.chain_id);
        let name = format!("layer-{}", layer.chain_id.hex());
        let Some(making) = Making::directory(&self.tmp(), &name, &there)? else {
            self.accept(layer)?;
            if keep {
                self.put_blob(reader, Some(&layer.blob))?;
            }
            return Ok(None);
        };
        match self.unpack_into(&making, layer, reader, keep) {
            Ok(unpacked) => Ok(Some(Unpacked { making, unpacked })),
            // The first error counts; what cannot be removed now is swept later.
            Err(e) => {
                let _ = self.discard(making);
                Err(e.context(format!("unpack layer {}", layer.blob.digest)))
            }
        }
    }

    fn unpack_into(&self, making: &Making, layer: &Layer, reader: &mut dyn Read, keep: bool) -> Result<unpack::Unpacked> {
        let dir = making.path().join("diff");
        std::fs::create_dir(&dir).doing("make", dir.display())?;
        die_at(26);
        let mut unpacking = Refusing { to: unpack::begin(&dir, self.maps()?, &self.options)?, refused: false };
        let incoming = if keep { blob::Incoming::begin(&self.path, Some(&layer.blob))? } else { None };
        let what = &layer.blob.digest;
        let poured = match incoming {
            Some(mut incoming) => {
                let all = blob::pour(reader, &mut [&mut incoming, &mut unpacking], what);
                unpacking.to.end();
                all.and_then(|()| incoming.finish(&self.path, Some(&layer.blob)).map(drop))
            }
            None if keep => {
                let mut kept = blob::Checked::new(self.open_blob(what)?, layer.blob.clone());
                blob::pour(&mut kept, &mut [&mut unpacking], what)
            }
            None => blob::pour(reader, &mut [&mut unpacking], what),
        };
        let unpacked = match (poured, unpacking.refused) {
            (Ok(()), _) => unpacking.to.finish()?,
            // It hung up; it says why.
            (Err(e), true) => return Err(unpacking.to.finish().err().unwrap_or(e)),
            (Err(e), false) => return Err(e),
        };
        die_at(27); // the blob is there, the layer not yet
        if unpacked.diff_id != layer.diff_id {
            return Err(Error::new(
                Kind::Io,
                format!("cannot use layer {}: its tar is {}, and should be {}", layer.blob.digest, unpacked.diff_id, layer.diff_id),
            ));
        }
        Ok(unpacked)
    }

    /// A layer over its parent, which is in place or about to be: directories that it did not name become as they are below.
    fn settle(&self, unpacked: Unpacked, layer: &Layer, parent: Option<&Digest>) -> Result<()> {
        let Unpacked { making, unpacked } = unpacked;
        let prepared = (|| {
            let mut below = Vec::new();
            let mut next = parent.cloned();
            while let Some(chain_id) = next {
                self.await_layer(&chain_id)?;
                let missing = || Error::new(Kind::NotFound, format!("cannot add a layer: the one below, {chain_id}, is not there"));
                next = self.about(&chain_id)?.ok_or_else(missing)?.parent;
                below.insert(0, self.layer(&chain_id).join("diff"));
            }
            let maps = self.maps()?;
            unpack::adopt(&making.path().join("diff"), &unpacked.implicit, &below, maps)?;
            let about = About {
                diff_id: layer.diff_id.clone(),
                parent: parent.cloned(),
                size: unpacked.tar_size,
                entries: unpacked.entries,
                squashed: unpacked.squashed,
                notes: unpacked.notes,
                uids: spelled(&maps.uids),
                gids: spelled(&maps.gids),
            };
            let text = serde_json::to_vec(&about).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
            let path = making.path().join("about.json");
            std::fs::write(&path, text).doing("write", path.display())?;
            // All files of the layer, before its name says that they are there. // I1
            let dir = File::open(making.path()).doing("open", making.path().display())?;
            rustix::fs::syncfs(&dir).doing("write", making.path().display())
        })();
        match prepared {
            Ok(()) => making.publish(&self.layer(&layer.chain_id)),
            Err(e) => {
                let _ = self.discard(making);
                Err(e)
            }
        }
    }

    /// If somebody is making it, wait.
    fn await_layer(&self, chain_id: &Digest) -> Result<()> {
        let path = self.tmp().join(format!("layer-{}", chain_id.hex()));
        while !self.has_layer(chain_id) {
            let Ok(making) = File::open(&path) else { return Ok(()) };
            making::lock(&making, FlockOperation::LockShared).doing("wait for", path.display())?;
            if making::is_at(&making, &path) {
                return Ok(()); // its maker died
            }
        }
        Ok(())
    }

    fn discard(&self, making: Making) -> Result<()> {
        let aside = making.abandon(&self.tmp())?;
        self.remove_trees(vec![aside])
    }

    /// Remove directories that are put aside, whoever owns what is in them. Their locks are kept until they are gone.
    pub(super) fn remove_trees(&self, dead: Vec<(PathBuf, File)>) -> Result<()> {
        let left: Vec<PathBuf> = dead.iter().map(|(path, _)| path.clone()).filter(|path| std::fs::remove_dir_all(path).is_err()).collect();
        if left.is_empty() { Ok(()) } else { unpack::remove(&left, self.maps()?) }
    }

    // ------------------------------------------------------------------------------------------------------------ using

    /// Keep an image and its layers where they are until the answer is dropped. A layer that is not unpacked here, since the image
    /// is in a shared store or the directory was lost, is unpacked now.
    pub fn hold(&self, image: &Image) -> Result<Held> {
        let mut locks = vec![self.hold_record(image)?];
        if image.layers.iter().any(|l| !self.has_layer(&l.chain_id)) {
            self.begin_adding()?;
            let source = |n: usize| Ok(Box::new(self.read_blob(image, &image.layers[n].blob)?) as Box<dyn Read>);
            self.make_layers(&image.layers, &source, false)?;
            self.end_adding();
        }
        for layer in &image.layers {
            // One of our own images got its record with the user's word for it; of shared ones there is none.
            if image.store != self.path {
                self.accept(layer)?;
            }
            let gone = || Error::new(Kind::Conflict, format!("cannot use layer {}: somebody removed it at once", layer.chain_id));
            let path = self.layer(&layer.chain_id).join("about.json");
            let lock = File::open(&path).doing("open", path.display())?;
            making::lock(&lock, FlockOperation::LockShared).doing("lock", path.display())?;
            let about = self.about(&layer.chain_id)?.filter(|_| making::is_at(&lock, &path)).ok_or_else(gone)?;
            let maps = self.maps()?;
            if (about.uids, about.gids) != (spelled(&maps.uids), spelled(&maps.gids)) {
                return Err(Error::new(Kind::Conflict, "cannot use this image: it was unpacked with other subordinate ids than you have now")
                    .hint("sandbox rmi -f the image and pull it again, or restore /etc/subuid and /etc/subgid"));
            }
            locks.push(lock);
        }
        Ok(Held { _locks: locks })
    }

    fn hold_record(&self, image: &Image) -> Result<File> {
        let path = image.store.join("images").join(format!("{}.json", image.manifest.digest.hex()));
        let gone = || Error::new(Kind::NotFound, format!("cannot use image {}: somebody removed it", image.id));
        let (lock, _) = open(&path).map_err(|_| gone())?;
        making::lock(&lock, FlockOperation::LockShared).doing("lock", path.display())?;
        if making::is_at(&lock, &path) { Ok(lock) } else { Err(gone()) }
    }

    // --------------------------------------------------------------------------------------------------------- removing

    /// Remove an image and its names, unless it is in use. What only it had is garbage then: `collect`.
    pub fn remove(&self, image: &Image) -> Result<()> {
        if image.store != self.path {
            return Err(Error::new(Kind::Denied, format!("cannot remove image {}: it is in {}, a shared store", image.id, image.store.display()))
                .hint("only its owner can"));
        }
        self.remove_manifest(&image.manifest.digest)
    }

    /// The same by the digest of the manifest: for images that cannot be read any more.
    pub fn remove_manifest(&self, manifest: &Digest) -> Result<()> {
        let path = self.record(manifest);
        let gone = || Error::new(Kind::NotFound, format!("cannot remove image {manifest}: somebody removed it at once"));
        let lock = File::open(&path).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound { gone() } else { Error::new(Kind::Io, format!("cannot open {}: {}", path.display(), why(&e))) }
        })?;
        // Whoever removes or names it has it for a moment; a sandbox, for longer.
        let mut tries = 100;
        while making::lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            tries -= 1;
            if tries == 0 {
                return Err(Error::new(Kind::Conflict, format!("cannot remove image {manifest}: a sandbox uses it")).hint("stop the sandbox first"));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        if !making::is_at(&lock, &path) {
            return Err(gone());
        }
        if let Some(layer) = kept::on(self, manifest)?.first() {
            return Err(Error::new(Kind::Conflict, format!("cannot remove image {manifest}: the kept layer '{layer}' lies on it"))
                .hint(format!("sandbox rm {layer}")));
        }
        // The record first: whoever is killed here leaves names that stand for nothing, which nobody sees and the next `collect` removes.
        // The other way round he would leave an image that can no longer be removed by its name.
        std::fs::remove_file(&path).doing("remove", path.display())?;
        die_at(28); // names of nothing
        for (dir, named) in self.names()? {
            // Unless somebody has just added the same image again.
            if dir == self.path && named.manifest == *manifest && !path.exists() {
                self.untag(&named.name).or_else(|e| if e.kind() == Kind::NotFound { Ok(()) } else { Err(e) })?;
            }
        }
        die_at(29);
        Ok(())
    }

    /// Take a name of ours away, and what it stands for, though that cannot be read, unless it has other names.
    pub fn remove_named(&self, name: &ImageName) -> Result<()> {
        let missing = || Error::new(Kind::NotFound, format!("cannot find the name '{name}' in your store"));
        let named = parsed::<Named>(&self.name(name))?.ok_or_else(missing)?;
        if self.names()?.iter().filter(|(_, n)| n.manifest == named.manifest).count() > 1 || !self.has_record(&named.manifest) {
            return self.untag(name);
        }
        self.remove_manifest(&named.manifest)
    }

    pub fn has_record(&self, manifest: &Digest) -> bool {
        self.record(manifest).exists()
    }

    /// Does a sandbox use it at this moment?
    pub fn in_use(&self, image: &Image) -> bool {
        let record = File::open(self.record(&image.manifest.digest));
        record.is_ok_and(|f| making::lock(&f, FlockOperation::NonBlockingLockExclusive).is_err())
            || kept::on(self, &image.manifest.digest).is_ok_and(|layers| !layers.is_empty())
    }

    /// What an add that did not end well left is collected; every command that adds nothing begins with it.
    pub fn tidy(&self) -> Result<()> {
        let noted = std::fs::read_dir(self.tmp()).doing("read", self.tmp().display())?.flatten().any(|e| is_note(&e.path()));
        if noted { self.collect(true).map(drop) } else { Ok(()) }
    }

    /// What would be garbage if the images `without` were not there. `shared`: layers that we unpacked for images of shared stores
    /// are no garbage.
    pub fn garbage(&self, without: &[&Image], shared: bool) -> Result<Garbage> {
        let Survey { images, damaged } = self.survey()?;
        if let Some((digest, e)) = damaged.into_iter().find(|(digest, _)| self.has_record(digest)) {
            // What it needs is not known.
            return Err(Error::new(e.kind(), format!("cannot collect garbage, since an image is damaged: {}", e.message()))
                .hint(format!("sandbox rmi -f {digest}")));
        }
        let stays = || images.iter().filter(|i| !without.iter().any(|w| w.manifest == i.manifest));
        let own = || stays().filter(|i| i.store == self.path);
        let layers: BTreeSet<&str> = stays().filter(|i| shared || i.store == self.path).flat_map(|i| &i.layers).map(|l| l.chain_id.hex()).collect();
        let blobs: BTreeSet<&str> =
            own().flat_map(|i| i.layers.iter().map(|l| l.blob.digest.hex()).chain([i.manifest.digest.hex(), i.id.hex()])).collect();
        let mut garbage = Garbage {
            layers: entries(&self.path.join("layers"), "")?.into_iter().filter(|d| !layers.contains(d.hex())).collect(),
            blobs: entries(&self.path.join("blobs/sha256"), "")?.into_iter().filter(|d| !blobs.contains(d.hex())).collect(),
            ..Garbage::default()
        };
        garbage.layer_bytes = garbage.layers.iter().filter_map(|d| self.about(d).ok().flatten()).map(|a| a.size).sum();
        garbage.blob_bytes = garbage.blobs.iter().filter_map(|d| std::fs::metadata(blob::path(&self.path, d)).ok()).map(|m| m.len()).sum();
        Ok(garbage)
    }

    /// Remove what is garbage, but layers that somebody uses.
    pub fn collect(&self, shared: bool) -> Result<Garbage> {
        let path = self.path.join("lock");
        let lock = File::open(&path).doing("open", path.display())?;
        if making::lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(Garbage { busy: true, ..Garbage::default() });
        }
        let mut garbage = self.garbage(&[], shared)?;
        let mut dead = Vec::new();
        let mut used = Vec::new();
        for chain_id in &garbage.layers {
            let path = self.layer(chain_id);
            let about = File::open(path.join("about.json"));
            if about.is_ok_and(|f| making::lock(f, FlockOperation::NonBlockingLockExclusive).is_err()) {
                used.push(chain_id.clone());
                continue;
            }
            // Locked before it is in tmp/, so that no sweep takes it for a dead maker's while we remove it.
            let dir = File::open(&path).doing("open", path.display())?;
            making::lock(&dir, FlockOperation::LockExclusive).doing("lock", path.display())?;
            dead.push((making::put_aside(&self.tmp(), &path)?, dir));
        }
        die_at(30); // layers are aside
        for digest in &garbage.blobs {
            let path = blob::path(&self.path, digest);
            std::fs::remove_file(&path).doing("remove", path.display())?;
        }
        for (dir, named) in self.names()? {
            if dir == self.path && !self.stores().any(|d| d.join("images").join(format!("{}.json", named.manifest.hex())).exists()) {
                let _ = self.untag(&named.name);
            }
        }
        for entry in std::fs::read_dir(self.tmp()).doing("read", self.tmp().display())?.flatten().filter(|e| is_note(&e.path())) {
            let _ = std::fs::remove_file(entry.path());
        }
        // The slow part; whoever wants to add something need not wait for it.
        drop(lock);
        die_at(31);
        self.remove_trees(dead)?;
        garbage.layer_bytes -= used.iter().filter_map(|d| self.about(d).ok().flatten()).map(|a| a.size).sum::<u64>();
        garbage.layers.retain(|d| !used.contains(d));
        Ok(garbage)
    }
}

/// Whose turn it is, of the threads that make an image's layers.
struct Turn {
    next: usize,
    settled: usize,
    failed: Option<Error>,
}

/// The unpacker, and whether it was the one who would not take any more.
struct Refusing {
    to: unpack::Unpacking,
    refused: bool,
}

impl Write for Refusing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes);
        self.refused |= written.is_err();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A layer in `tmp/` that is whole but for what it takes from below.
struct Unpacked {
    making: Making,
    unpacked: unpack::Unpacked,
}

/// A reader that is opened when it is read for the first time: never, if what it has is there.
struct Late<'a> {
    open: &'a dyn Fn() -> Result<Box<dyn Read>>,
    reader: Option<Box<dyn Read>>,
}

impl Read for Late<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert((self.open)().map_err(|e| io::Error::other(e.message().to_string()))?),
        };
        reader.read(buffer)
    }
}

fn is_note(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(making::NOTE.as_bytes()))
}

fn spelled(extents: &[Extent]) -> Vec<String> {
    extents.iter().map(|e| format!("{}:{}:{}", e.inside, e.outside, e.count)).collect()
}

// ------------------------------------------------------------------------------------------------------------- reading

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// A plain file, for reading, and its size: a shared store is somebody else's, who may have put a pipe there.
fn open(path: &Path) -> Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).doing("open", path.display())?);
    let meta = file.metadata().doing("look at", path.display())?;
    if meta.is_file() {
        return Ok((file, meta.len()));
    }
    Err(Error::new(Kind::Io, format!("cannot open {}: it is no file", path.display())))
}

/// A file, no longer than `most`.
fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (file, size) = open(path)?;
    let mut bytes = Vec::with_capacity(size.min(most) as usize + 1);
    file.take(most + 1).read_to_end(&mut bytes).doing("read", path.display())?;
    if bytes.len() as u64 > most {
        return Err(Error::new(Kind::Io, format!("cannot read {}: it is longer than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// A record; None: it is not there. // I2
fn parsed<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match read(path, LONGEST_RECORD) {
        Err(_) if !path.exists() => return Ok(None),
        other => other?,
    };
    let damaged =
        |e| Error::new(Kind::Io, format!("cannot read {}: it is damaged: {e}", path.display())).hint("remove it, and pull or load the image again");
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn document(store: &Path, what: &Descriptor) -> Result<Vec<u8>> {
    let bytes = read(&blob::path(store, &what.digest), layout::LONGEST)?;
    layout::verify(what, &bytes)?;
    Ok(bytes)
}

/// The digests that the names in a directory are.
fn entries(dir: &Path, suffix: &str) -> Result<Vec<Digest>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).doing("read", dir.display())? {
        let name = entry.doing("read", dir.display())?.file_name();
        if let Some(digest) = name.to_str().and_then(|n| n.strip_suffix(suffix)).and_then(|hex| format!("sha256:{hex}").parse().ok()) {
            found.push(digest);
        }
    }
    Ok(found)
}

/// Shared stores that are there and that we may read, in our format, and that not everybody may write.
fn shared() -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let fine = |p: &PathBuf| {
        let safe = std::fs::metadata(p).is_ok_and(|m| m.is_dir() && m.mode() & 0o002 == 0);
        let open = ["names", "images", "blobs/sha256"].iter().all(|dir| std::fs::read_dir(p.join(dir)).is_ok());
        safe && open && read(&p.join("format"), 64).is_ok_and(|f| f.trim_ascii() == FORMAT.as_bytes())
    };
    dirs::shared_stores().into_iter().filter(fine).collect()
}

/// Layers have files of other ids, extended attributes and locks: what a network file system cannot do for an ordinary user.
fn local(path: &Path) -> Result<()> {
    let Some(kind) = network(rustix::fs::statfs(path).doing("look at", path.display())?.f_type as u32) else { return Ok(()) };
    Err(Error::new(Kind::Unsupported, format!("cannot keep images in {}: it is on {kind}, a network file system", path.display()))
        .hint("set XDG_DATA_HOME to a directory of yours on a local disk"))
}

/// The network file system of that number. man: statfs(2); the file systems' own sources
fn network(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x00c3_6400 => "Ceph",
        0x7375_7245 => "Coda",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A store that is gone when the test ends.
    struct Trial(PathBuf);

    impl Trial {
        fn new() -> (Trial, Store) {
            let dir = std::env::temp_dir().join(making::unique("sandbox-store").unwrap());
            let trial = Trial(dir);
            let store = trial.open();
            (trial, store)
        }

        fn open(&self) -> Store {
            Store::at(self.0.join("sandbox/store")).unwrap()
        }

        /// Every file and directory in it, but what every store has.
        fn files(&self) -> Vec<String> {
            fn walk(dir: &Path, top: &Path, into: &mut Vec<String>) {
                for entry in std::fs::read_dir(dir).unwrap().flatten() {
                    into.push(entry.path().strip_prefix(top).unwrap().display().to_string());
                    if entry.path().is_dir() {
                        walk(&entry.path(), top, into);
                    }
                }
            }
            let mut found = Vec::new();
            walk(&self.0.join("sandbox/store"), &self.0.join("sandbox/store"), &mut found);
            found.retain(|f| !["format", "lock", "blobs", "blobs/sha256", "layers", "images", "names", "tmp", "layers-named"].contains(&f.as_str()));
            found.sort();
            found
        }
    }

    impl Drop for Trial {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn described(bytes: &[u8], media_type: &str) -> Descriptor {
        Descriptor { media_type: media_type.into(), digest: layout::digest(bytes), size: bytes.len() as u64 }
    }

    /// An image without layers, which needs no helper.
    fn image(store: &Store, label: &str, name: Option<&str>) -> Image {
        let config =
            format!(r#"{{"os":"linux","architecture":"amd64","config":{{"Labels":{{"n":"{label}"}}}},"rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
        let what = store.put_blob(&mut config.as_bytes(), Some(&described(config.as_bytes(), layout::OCI_CONFIG))).unwrap();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[]}}"#,
            what.media_type, what.digest, what.size
        );
        store.add_image(manifest.as_bytes(), name.map(|n| n.parse().unwrap()).as_ref()).unwrap()
    }

    #[test]
    fn a_blob_is_what_it_should_be_or_is_not_there() {
        let (trial, store) = Trial::new();
        let right = described(b"content", "x/y");
        let wrong = |digest: &[u8], size| Descriptor { digest: layout::digest(digest), size, ..right.clone() };
        for (expect, says) in [
            (wrong(b"content", 6), "longer"),
            (wrong(b"content", 8), "should have 8"),
            (wrong(b"other", 7), "its digest is"),
            (wrong(b"content", 0), "longer"),
        ] {
            let e = store.put_blob(&mut &b"content"[..], Some(&expect)).unwrap_err();
            assert!(e.to_string().contains(says), "{e}");
            assert_eq!(trial.files().iter().filter(|f| !f.contains("adding")).count(), 0, "{:?}", trial.files());
        }
        assert_eq!(store.put_blob(&mut &b"content"[..], Some(&right)).unwrap(), right);
        assert!(store.has_blob(&right.digest));
        // Not read again.
        struct Never;
        impl Read for Never {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("read")
            }
        }
        assert_eq!(store.put_blob(&mut Never, Some(&right)).unwrap(), right);
        assert_eq!(store.put_blob(&mut &b"content"[..], None).unwrap().digest, right.digest);
        // A disk that lies is noticed.
        std::fs::write(blob::path(&store.path, &right.digest), b"c0ntent").unwrap();
        let mut read = blob::Checked::new(store.open_blob(&right.digest).unwrap(), right);
        assert!(read.read_to_end(&mut Vec::new()).unwrap_err().to_string().contains("its digest is"));
    }

    #[test]
    fn thirty_at_once_bring_a_blob_once() {
        let (_trial, store) = Trial::new();
        let bytes = vec![7u8; 1 << 20];
        let what = described(&bytes, "x/y");
        let began = AtomicUsize::new(0);
        struct Slow<'a>(&'a [u8], &'a AtomicUsize);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.len() == 1 << 20 {
                    self.1.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                self.0.read(buffer)
            }
        }
        std::thread::scope(|scope| {
            for _ in 0..30 {
                scope.spawn(|| Store::at(store.path.clone()).unwrap().put_blob(&mut Slow(&bytes, &began), Some(&what)).unwrap());
            }
        });
        assert_eq!(began.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn names_come_and_go() {
        let (trial, store) = Trial::new();
        let (a, b) = (image(&store, "a", Some("a:1")), image(&store, "b", None));
        assert_eq!(store.images().unwrap().len(), 2);
        for text in [
            "a:1",
            "docker.io/library/a:1",
            a.id.as_str(),
            a.id.hex(),
            &a.id.hex()[..12],
            a.manifest.digest.as_str(),
            &format!("a@{}", a.manifest.digest),
        ] {
            assert_eq!(store.get(text).unwrap().id, a.id, "{text}");
        }
        for text in ["a", "a:2", "b", "", "..", "../a:1", &format!("a@{}", b.manifest.digest), "sha256:", "0", &"0".repeat(64)] {
            assert!(store.find(text).unwrap_or(None).is_none(), "{text}");
        }
        // A name without a registry is also one of this machine's, unless the very name is there.
        store.tag(&b, &"localhost/own".parse().unwrap()).unwrap();
        store.tag(&b, &"localhost/a:1".parse().unwrap()).unwrap();
        for (text, called) in [("own", "localhost/own:latest"), ("own:latest", "localhost/own:latest"), ("localhost/a:1", "localhost/a:1")] {
            let found = store.find_to_run(text).unwrap().unwrap();
            assert_eq!((found.id.clone(), found.called(text).unwrap().to_string()), (b.id.clone(), called.into()), "{text}");
        }
        assert_eq!(store.get("a:1").unwrap().id, a.id);
        for text in ["docker.io/own", "index.docker.io/own", "own:1", "x.org/own"] {
            assert!(store.find(text).unwrap_or(None).is_none(), "{text}");
        }
        for name in ["localhost/own", "localhost/a:1"] {
            store.untag(&name.parse().unwrap()).unwrap();
        }
        store.tag(&b, &"a:1".parse().unwrap()).unwrap();
        assert_eq!(store.get("a:1").unwrap().id, b.id);
        assert!(store.get(a.id.as_str()).unwrap().names.is_empty());
        assert_eq!(store.untag(&"a:2".parse().unwrap()).unwrap_err().kind(), Kind::NotFound);
        store.untag(&"a:1".parse().unwrap()).unwrap();
        assert!(store.tag(&b, &format!("x@{}", b.manifest.digest).parse().unwrap()).is_err());
        // A name that is longer than a file's.
        let long = format!("{}/{}:{}", "h".repeat(60) + ".example.org", "p/".repeat(100) + "q", "t".repeat(128));
        store.tag(&b, &long.parse().unwrap()).unwrap();
        assert_eq!(store.get(&long).unwrap().id, b.id);
        for image in [&a, &b] {
            store.remove(image).unwrap();
        }
        assert!(!store.collect(true).unwrap().busy);
        assert_eq!(trial.files(), Vec::<String>::new());
    }

    #[test]
    fn what_is_held_is_not_removed() {
        let (_trial, store) = Trial::new();
        let a = image(&store, "a", Some("a"));
        let held = store.hold(&a).unwrap();
        assert!(store.in_use(&a));
        let e = store.remove(&a).unwrap_err();
        assert!(e.kind() == Kind::Conflict && store.get("a").is_ok(), "{e}");
        drop(held);
        store.remove(&a).unwrap();
        assert!(store.hold(&a).is_err() && store.find("a").unwrap().is_none());
    }

    #[test]
    fn nobody_collects_while_somebody_adds() {
        let (trial, store) = Trial::new();
        let adding = trial.open();
        adding.put_blob(&mut &b"x"[..], None).unwrap();
        assert!(store.collect(true).unwrap().busy);
        drop(adding);
        // It did not come to an image: the next command notices.
        assert!(trial.files().iter().any(|f| f.contains("adding")));
        store.tidy().unwrap();
        assert_eq!(trial.files(), Vec::<String>::new());
    }

    #[test]
    fn the_dead_are_swept_and_the_living_left_alone() {
        let (trial, store) = Trial::new();
        let tmp = store.tmp();
        let alive = Making::new_file(&tmp, "blob").unwrap();
        let kept = Making::directory(&tmp, "layer-1", &|| false).unwrap().unwrap();
        std::fs::create_dir(kept.path().join("diff")).unwrap();
        std::fs::write(tmp.join("blob-dead"), "x").unwrap();
        std::fs::create_dir_all(tmp.join("layer-dead/diff/a")).unwrap();
        // cve: 2026-34079, 2025-46415: a link is removed, not what it leads to.
        let canary = trial.0.join("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&canary, tmp.join("link")).unwrap();
        std::os::unix::fs::symlink(&canary, tmp.join("layer-dead/diff/link")).unwrap();
        trial.open();
        assert!(alive.path().exists() && kept.path().join("diff").exists() && canary.join("file").exists());
        let left: Vec<String> = std::fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|n| n.starts_with("blob-") && n != "blob-dead" || n == "layer-1" || n == "link"), "{left:?}");
    }

    #[test]
    fn another_format_is_refused() {
        let (trial, store) = Trial::new();
        std::fs::write(store.path.join("format"), "2\n").unwrap();
        let e = Store::at(store.path.clone()).err().unwrap();
        assert!(e.kind() == Kind::Unsupported && e.message().contains("format is '2'") && e.cure().is_some(), "{e}");
        std::fs::write(store.path.join("format"), "1\n").unwrap();
        trial.open();
    }

    #[test]
    fn cve_2019_12439_a_store_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (trial, store) = Trial::new();
        for dir in ["", "..", "tmp", "images"] {
            let dir = store.path.join(dir);
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
            assert!(Store::at(store.path.clone()).is_err(), "{dir:?}");
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
        }
        std::fs::rename(store.path.join("names"), trial.0.join("names")).unwrap();
        std::os::unix::fs::symlink(trial.0.join("names"), store.path.join("names")).unwrap();
        assert!(Store::at(store.path.clone()).is_err());
    }

    #[test]
    fn a_damaged_image_harms_no_other() {
        let (trial, store) = Trial::new();
        let (a, b) = (image(&store, "a", Some("a")), image(&store, "b", Some("b")));
        std::fs::write(blob::path(&store.path, &a.id), "{}").unwrap();
        let Survey { images, damaged } = store.survey().unwrap();
        assert!(images.len() == 1 && images[0].id == b.id && damaged.len() == 1 && damaged[0].0 == a.manifest.digest);
        assert!(store.find("a").is_err() && store.get("b").is_ok());
        // What it needs is not known, so nothing is taken for garbage.
        assert!(store.collect(true).unwrap_err().cure().unwrap().contains("rmi -f"));
        store.remove_named(&"a".parse().unwrap()).unwrap();
        store.collect(true).unwrap();
        assert_eq!(trial.files().len(), 4, "{:?}", trial.files());
    }

    #[test]
    fn network_file_systems_are_known() {
        for (magic, kind) in [(0x6969, Some("NFS")), (0xff53_4d42, Some("SMB")), (0x0bd0_0bd0, Some("Lustre")), (0xef53, None), (0x0102_1994, None)] {
            assert_eq!(network(magic), kind);
        }
        assert!(local(&std::env::temp_dir()).is_ok());
    }

    #[test]
    fn a_shared_store_cannot_make_us_wait() {
        let (trial, store) = Trial::new();
        let a = image(&store, "a", Some("a"));
        for path in [store.record(&a.manifest.digest), blob::path(&store.path, &a.id), store.name(&"a".parse().unwrap())] {
            let aside = trial.0.join("aside");
            std::fs::rename(&path, &aside).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
            assert!(store.find("a").is_err(), "{path:?}");
            std::fs::remove_file(&path).unwrap();
            // Nor lead us elsewhere.
            std::os::unix::fs::symlink(&aside, &path).unwrap();
            assert!(store.find("a").is_err(), "{path:?}");
            std::fs::rename(&aside, &path).unwrap();
        }
        assert!(store.find("a").unwrap().is_some());
    }

    #[test]
    fn an_image_needs_all_its_parts() {
        let (_trial, store) = Trial::new();
        let part = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":2}}"#, "a".repeat(64));
        let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, part(layout::OCI_CONFIG), part(layout::OCI_LAYER));
        assert_eq!(store.add_image(manifest.as_bytes(), None).unwrap_err().kind(), Kind::NotFound);
        assert!(store.images().unwrap().is_empty());
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(store.add_image(index.as_bytes(), None).unwrap_err().message().contains("index"));
    }
}
