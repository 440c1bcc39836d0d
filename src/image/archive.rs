//! Images as files: a directory in the OCI layout, the same as a tar, and the tar of `docker save`.
//!
//! Called by `cli` and by whoever takes an image from a place or brings it to one. An archive is hostile: it is never unpacked, but its
//! entries are looked up by name, links are followed only inside of it, and all that is read is verified as from a registry.
//! cve: 2014-9356, 2019-14271
#![forbid(unsafe_code)]

use super::making::{self, Making};
use super::store::Store;
use super::{Descriptor, Image, Layer, blob, layout, tar};
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::{Digest, ImageName};
use crate::sys::path::{Links, open_below};
use layout::{Document, Platform};
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No archive of images has more entries: 512 layers of three entries each, for 40 images.
const MOST_ENTRIES: usize = 1 << 16;
const MOST_IMAGES: usize = 1024;
/// How often a link leads to a link.
const MOST_LINKS: usize = 8;
/// An archive that is compressed may grow so much, once it is larger than `SMALL`.
const MOST_GROWTH: u64 = 200;
const SMALL: u64 = 16 << 20;
const LARGEST_ARCHIVE: u64 = 256 << 30;

/// Where images lie that are neither in a store nor in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `oci:DIR[:TAG]`
    Directory { path: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`
    OciArchive { path: PathBuf, tag: Option<String> },
    /// `docker-archive:FILE[:TAG]`
    DockerArchive { path: PathBuf, tag: Option<String> },
}

impl Place {
    /// A place, if `text` has one of their prefixes; else it is to be read as an image's name.
    pub fn named(text: &str) -> Result<Option<Place>> {
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| ["oci", "oci-archive", "docker-archive"].contains(kind)) else {
            return Ok(None);
        };
        let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag.to_string())));
        if path.is_empty() || tag.as_ref().is_some_and(|t| t.is_empty() || t.len() > 1024 || t.contains(|c: char| c.is_control() || c == ' ')) {
            return Err(Error::usage(format!("bad place '{text}': {kind}:PATH or {kind}:PATH:TAG")));
        }
        let path = PathBuf::from(path);
        Ok(Some(match kind {
            "oci" => Place::Directory { path, tag },
            "oci-archive" => Place::OciArchive { path, tag },
            _ => Place::DockerArchive { path, tag },
        }))
    }

    pub fn path(&self) -> &Path {
        let (Place::Directory { path, .. } | Place::OciArchive { path, .. } | Place::DockerArchive { path, .. }) = self;
        path
    }

    pub fn tag(&self) -> Option<&str> {
        let (Place::Directory { tag, .. } | Place::OciArchive { tag, .. } | Place::DockerArchive { tag, .. }) = self;
        tag.as_deref()
    }
}

impl FromStr for Place {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Place::named(s)?.ok_or_else(|| Error::usage(format!("bad place '{s}': oci:DIR, oci-archive:FILE or docker-archive:FILE")))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Place::Directory { .. } => "oci",
            Place::OciArchive { .. } => "oci-archive",
            Place::DockerArchive { .. } => "docker-archive",
        };
        write!(f, "{kind}:{}", self.path().display())?;
        self.tag().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

// ------------------------------------------------------------------------------------------------------------- reading

/// Files by their names, in a directory or in a tar.
enum Files {
    Directory(File),
    Tar {
        file: File,
        entries: BTreeMap<Vec<u8>, Found>,
        /// The tar, if we had to decompress it or take it from a pipe.
        _spool: Option<Making>,
    },
}

/// What stands in a tar under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    File {
        at: u64,
        size: u64,
    },
    /// Where it leads to.
    Link(Vec<u8>),
}

/// A part of a file, by its position: several threads may read at once.
struct Part {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

fn bad(why: impl fmt::Display) -> Error {
    Error::usage(format!("cannot use this archive of images: {why}"))
}

impl Files {
    fn directory(path: &Path) -> Result<Files> {
        let dir = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty()).doing("open", path.display())?;
        Ok(Files::Directory(File::from(dir)))
    }

    /// A tar, from a file that may be a pipe, and may be compressed. Only those two are written to disk first, below `tmp`.
    fn tar(mut file: File, tmp: &Path) -> Result<Files> {
        let seeks = file.metadata().doing("look at", "the archive")?.is_file();
        let mut first = [0; 6];
        let mut have = 0;
        while have < first.len() {
            match file.read(&mut first[have..]).doing("read", "the archive")? {
                0 => break,
                n => have += n,
            }
        }
        let packed = Packed::of(&first[..have])?;
        if packed == Packed::Not && seeks {
            let entries = scan(&file)?;
            return Ok(Files::Tar { file, entries, _spool: None });
        }
        let mut spool = Making::new_file(tmp, "archive")?;
        if seeks {
            file.seek(SeekFrom::Start(0)).doing("read", "the archive")?;
            have = 0;
        }
        unpack(packed, io::Cursor::new(first[..have].to_vec()).chain(file), spool.file_mut())?;
        let file = spool.file_mut().try_clone().doing("open", "the archive")?;
        let entries = scan(&file)?;
        Ok(Files::Tar { file, entries, _spool: Some(spool) })
    }

    /// The content of the file `name`, and how long it is; None: there is no such file.
    fn find(&self, name: &str) -> Result<Option<Part>> {
        match self {
            Files::Directory(dir) => {
                let path = CString::new(name).map_err(|_| bad("a name with a NUL"))?;
                match open_below(std::os::fd::AsFd::as_fd(dir), &path, OFlags::RDONLY | OFlags::NONBLOCK, Links::Inside) {
                    Ok(fd) => {
                        let file = File::from(fd);
                        let meta = file.metadata().doing("look at", name)?;
                        if !meta.is_file() {
                            return Err(bad(format!("'{name}' is no file")));
                        }
                        Ok(Some(Part { file, at: 0, left: meta.size() }))
                    }
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(e) => Err(e).doing("open", name),
                }
            }
            Files::Tar { file, entries, .. } => {
                let mut name = tar::inside(name.as_bytes()).map_err(|e| bad(e.message()))?;
                for _ in 0..=MOST_LINKS {
                    match entries.get(&name) {
                        None => return Ok(None),
                        Some(Found::Link(to)) => name.clone_from(to),
                        Some(&Found::File { at, size }) => {
                            return Ok(Some(Part { file: file.try_clone().doing("open", "the archive")?, at, left: size }));
                        }
                    }
                }
                Err(bad(format!("'{}' is a link to too many links", tar::show(&name))))
            }
        }
    }

    fn open(&self, name: &str) -> Result<Part> {
        self.find(name)?.ok_or_else(|| bad(format!("it has no '{name}'")))
    }

    /// A document: all of it.
    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let part = self.open(name)?;
        if part.left > layout::LONGEST {
            return Err(bad(format!("its '{name}' is longer than {} MiB", layout::LONGEST >> 20)));
        }
        let mut bytes = Vec::new();
        part.take(layout::LONGEST).read_to_end(&mut bytes).doing("read", name)?;
        Ok(bytes)
    }

    fn document(&self, what: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.read(&format!("blobs/sha256/{}", what.digest.hex()))?;
        layout::verify(what, &bytes)?;
        Ok(bytes)
    }
}

/// Where everything is in a tar. Contents are passed over, not read.
fn scan(file: &File) -> Result<BTreeMap<Vec<u8>, Found>> {
    let length = file.metadata().doing("look at", "the archive")?.len();
    let mut entries = BTreeMap::new();
    let mut headers = Headers { file, at: 0, block: [0; tar::BLOCK], have: 0, used: 0 };
    let wrong = |e: Error| bad(e.message().trim_start_matches("cannot unpack the layer: "));
    loop {
        // A reader for each entry, so that the content can be passed over.
        let Some(entry) = tar::Reader::new(&mut headers).entry().map_err(wrong)? else { return Ok(entries) };
        let at = headers.at - (headers.have - headers.used) as u64;
        let end =
            at.checked_add(entry.size.next_multiple_of(tar::BLOCK as u64)).filter(|end| *end <= length).ok_or_else(|| bad("it ends too early"))?;
        headers.pass_to(end);
        let found = match entry.form {
            tar::Form::File if entry.extents.is_some() => return Err(bad(format!("'{}' is sparse", tar::show(&entry.path)))),
            tar::Form::File => Found::File { at, size: entry.size },
            tar::Form::Link => Found::Link(entry.link),
            tar::Form::Symlink => Found::Link(beside(&entry.path, &entry.link)?),
            tar::Form::Directory => continue,
            tar::Form::Fifo | tar::Form::Device => return Err(bad(format!("'{}' is no file", tar::show(&entry.path)))),
        };
        if entries.len() == MOST_ENTRIES {
            return Err(bad(format!("it has more than {MOST_ENTRIES} entries")));
        }
        let name = tar::show(&entry.path);
        if entries.insert(entry.path, found).is_some() {
            return Err(bad(format!("it has '{name}' twice"))); // readers differ on which one counts
        }
    }
}

/// A tar read block by block, which knows where it is.
struct Headers<'a> {
    file: &'a File,
    at: u64,
    block: [u8; tar::BLOCK],
    have: usize,
    used: usize,
}

impl Headers<'_> {
    fn pass_to(&mut self, at: u64) {
        (self.at, self.have, self.used) = (at, 0, 0);
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.have {
            (self.have, self.used) = (self.file.read_at(&mut self.block, self.at)?, 0);
            self.at += self.have as u64;
        }
        Ok(&self.block[self.used..self.have])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

/// A symbolic link's text, as a name in the archive. cve: 2014-9356 (it may not lead out of it)
fn beside(path: &[u8], link: &[u8]) -> Result<Vec<u8>> {
    let out = || bad(format!("'{}' is a link that leads out of it", tar::show(path)));
    if link.first() == Some(&b'/') {
        return Err(out());
    }
    let mut parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    parts.pop();
    for part in link.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or_else(out)?),
            name => parts.push(name),
        }
    }
    Ok(parts.join(&b'/'))
}

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    Zstd,
}

impl Packed {
    fn of(first: &[u8]) -> Result<Packed> {
        let other = |name: &str, program: &str| Err(bad(format!("it is compressed with {name}")).hint(format!("{program} -dc FILE | sandbox load")));
        match first {
            [0x1f, 0x8b, ..] => Ok(Packed::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Packed::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => other("xz", "xz"),
            [b'B', b'Z', b'h', ..] => other("bzip2", "bzip2"),
            [] => Err(bad("it is empty")),
            _ => Ok(Packed::Not),
        }
    }
}

/// Decompress, within limits. cve: 2017-14992
fn unpack(packed: Packed, from: impl Read, to: &mut File) -> Result<()> {
    let read = std::cell::Cell::new(0u64);
    let counted = BufReader::with_capacity(256 << 10, Tally { from, read: &read });
    let mut reader: Box<dyn Read + '_> = match packed {
        Packed::Not => Box::new(counted),
        Packed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(counted)),
        Packed::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(counted).doing("read", "the archive")?;
            decoder.window_log_max(27).doing("read", "the archive")?;
            Box::new(decoder)
        }
    };
    let mut buffer = vec![0; 256 << 10];
    let mut written = 0;
    loop {
        let n = reader.read(&mut buffer).doing("read", "the archive")?;
        if n == 0 {
            return Ok(());
        }
        written += n as u64;
        if written > LARGEST_ARCHIVE || (packed != Packed::Not && written > SMALL && written / MOST_GROWTH > read.get()) {
            return Err(bad("it grows without end when it is decompressed"));
        }
        to.write_all(&buffer[..n]).doing("keep", "the archive")?;
    }
}

struct Tally<'a, R> {
    from: R,
    read: &'a std::cell::Cell<u64>,
}

impl<R: Read> Read for Tally<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

// ------------------------------------------------------------------------------------------------------------- loading

/// An image in an archive, before anything of it is in a store.
struct Offer {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Layer>,
    /// The layers' names in the archive.
    files: Vec<String>,
    names: Vec<ImageName>,
}

/// The images at a place, into the store; with a tag, the one that it names. They get the names that the archive says.
pub fn load(store: &Store, place: &Place, platform: &Platform) -> Result<Vec<Image>> {
    let from = |e: Error| e.context(format!("read {place}"));
    let files = match place {
        Place::Directory { path, .. } => Files::directory(path)?,
        Place::OciArchive { path, .. } | Place::DockerArchive { path, .. } => {
            Files::tar(File::open(path).doing("open", path.display())?, &store.path().join("tmp")).map_err(from)?
        }
    };
    let docker = matches!(place, Place::DockerArchive { .. });
    let offers = if docker { docker_offers(&files, place.tag()) } else { oci_offers(&files, place.tag(), platform) };
    offers.and_then(|offers| take(store, &files, offers)).map_err(from)
}

/// The images of a tar that comes from `file`, of either kind.
pub fn load_from(store: &Store, file: File, platform: &Platform) -> Result<Vec<Image>> {
    let files = Files::tar(file, &store.path().join("tmp"))?;
    let offers = offers(&files, platform)?;
    take(store, &files, offers)
}

/// The names of the images in such a tar, of each image its own. `tmp` is for one that is compressed.
pub fn names_in(file: File, tmp: &Path, platform: &Platform) -> Result<Vec<Vec<ImageName>>> {
    Ok(offers(&Files::tar(file, tmp)?, platform)?.into_iter().map(|o| o.names).collect())
}

fn offers(files: &Files, platform: &Platform) -> Result<Vec<Offer>> {
    if files.find("manifest.json")?.is_some() { docker_offers(files, None) } else { oci_offers(files, None, platform) }
}

fn take(store: &Store, files: &Files, offers: Vec<Offer>) -> Result<Vec<Image>> {
    let mut images: Vec<Image> = Vec::new();
    for offer in offers {
        let config = layout::digest(&offer.config);
        let what = Descriptor { media_type: layout::OCI_CONFIG.into(), digest: config, size: offer.config.len() as u64 };
        store.put_blob(&mut &*offer.config, Some(&what))?;
        store.add_layers(&offer.layers, &|n| Ok(Box::new(files.open(&offer.files[n])?)))?;
        let mut image = store.add_image(&offer.manifest, offer.names.first())?;
        for name in offer.names.iter().skip(1) {
            store.tag(&image, name)?;
        }
        image.names = offer.names;
        images.push(image);
    }
    Ok(images)
}

/// oci: image-layout.md
fn oci_offers(files: &Files, tag: Option<&str>, platform: &Platform) -> Result<Vec<Offer>> {
    let version = layout::json(&files.read("oci-layout")?, "the file oci-layout")?;
    if version.get("imageLayoutVersion").and_then(Value::as_str) != Some("1.0.0") {
        return Err(bad("its oci-layout is not of version 1.0.0"));
    }
    let bytes = files.read("index.json")?;
    let Document::Index(index) = layout::document(&bytes, None)? else {
        return Err(bad("its index.json is no index"));
    };
    let named = |e: &&layout::Entry| e.name.is_some() || e.full_name.is_some();
    let wanted: Vec<&layout::Entry> = match tag {
        Some(tag) => index.entries.iter().filter(|e| e.name.as_deref() == Some(tag) || e.full_name.as_deref() == Some(tag)).collect(),
        None => index.entries.iter().filter(named).collect(),
    };
    let fetch = |d: &Descriptor| files.document(d);
    let mut offers: Vec<Offer> = Vec::new();
    let mut offer = |(bytes, manifest): (Vec<u8>, layout::Manifest), name: Option<ImageName>| {
        // One image under two names is one offer.
        if let Some(same) = offers.iter_mut().find(|o| o.manifest == bytes) {
            same.names.extend(name);
            return Ok(());
        }
        let config = files.document(&manifest.config)?;
        let layers = layout::layers(&manifest, &layout::config(&config)?.1)?;
        let paths = layers.iter().map(|l| format!("blobs/sha256/{}", l.blob.digest.hex())).collect();
        offers.push(Offer { manifest: bytes, config, layers, files: paths, names: name.into_iter().collect() });
        Ok::<_, Error>(())
    };
    match (tag, wanted.as_slice()) {
        (Some(tag), []) => {
            let there: Vec<&str> = index.entries.iter().filter_map(|e| e.name.as_deref()).collect();
            return Err(Error::new(Kind::NotFound, format!("cannot find '{tag}' in this archive")).hint(format!("it has: {}", there.join(", "))));
        }
        // Nobody has a name, so it is one image for several platforms.
        (None, []) => offer(layout::resolve(bytes, None, platform, fetch)?, None)?,
        _ => {
            for entry in wanted {
                let one = files.document(&entry.descriptor)?;
                offer(layout::resolve(one, Some(&entry.descriptor.media_type), platform, fetch)?, name_of(entry))?;
            }
        }
    }
    Ok(offers)
}

/// The name that an entry of an index gives its image. A bare word is a tag to some and a name to others; it never becomes one of a registry.
fn name_of(entry: &layout::Entry) -> Option<ImageName> {
    let whole = entry.full_name.as_deref().and_then(|n| n.parse().ok());
    let short = entry.name.as_deref().and_then(|n| if n.contains(['/', ':']) { n.parse() } else { format!("localhost/{n}").parse() }.ok());
    whole.or(short).filter(|n: &ImageName| n.digest().is_none())
}

/// docker: image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format"
fn docker_offers(files: &Files, tag: Option<&str>) -> Result<Vec<Offer>> {
    let what = "manifest.json of this archive";
    let value = layout::json(&files.read("manifest.json")?, what)?;
    let list = value.as_array().filter(|l| !l.is_empty()).ok_or_else(|| bad("its manifest.json is no list of images"))?;
    if list.len() > MOST_IMAGES {
        return Err(bad(format!("it has more than {MOST_IMAGES} images")));
    }
    let wanted = tag.map(|t| t.parse::<ImageName>()).transpose()?;
    let mut offers = Vec::new();
    for image in list {
        let texts = |key: &str, most: usize| -> Result<Vec<String>> {
            let list = match image.get(key) {
                None | Some(Value::Null) => return Ok(Vec::new()),
                Some(Value::Array(list)) if list.len() <= most => list,
                Some(_) => return Err(bad(format!("the {key} of an image are no list, or too long"))),
            };
            list.iter().map(|v| v.as_str().map(str::to_string).ok_or_else(|| bad(format!("one of the {key} of an image is no text")))).collect()
        };
        let names = texts("RepoTags", MOST_IMAGES)?.iter().map(|n| n.parse::<ImageName>()).collect::<Result<Vec<_>>>()?;
        if names.iter().any(|n| n.digest().is_some()) {
            return Err(bad("a name in it has a digest"));
        }
        if wanted.as_ref().is_some_and(|w| !names.contains(w)) {
            continue;
        }
        let config = files.read(image.get("Config").and_then(Value::as_str).ok_or_else(|| bad("an image has no Config"))?)?;
        let (_, diff_ids) = layout::config(&config)?;
        let paths = texts("Layers", layout::MOST_LAYERS)?;
        if paths.len() != diff_ids.len() {
            return Err(bad(format!("an image has {} layers, and {} in its configuration", paths.len(), diff_ids.len())));
        }
        // A layer that is not compressed has its diff id as its digest; of others we must look.
        let blobs = paths.iter().zip(&diff_ids).map(|(path, diff_id)| layer(files, path, diff_id)).collect::<Result<Vec<_>>>()?;
        let of = |d: &Descriptor| json!({ "mediaType": d.media_type, "digest": d.digest, "size": d.size });
        let configured = Descriptor { media_type: layout::OCI_CONFIG.into(), digest: layout::digest(&config), size: config.len() as u64 };
        let manifest = json!({ "schemaVersion": 2, "mediaType": layout::OCI_MANIFEST, "config": of(&configured), "layers": blobs.iter().map(of).collect::<Vec<_>>() });
        let manifest = manifest.to_string().into_bytes();
        let Document::Manifest(read) = layout::document(&manifest, None)? else {
            return Err(Error::new(Kind::Bug, "a manifest of ours is none"));
        };
        offers.push(Offer {
            layers: layout::layers(&read, &diff_ids)?,
            manifest,
            config,
            files: paths,
            names: wanted.clone().map_or(names, |w| vec![w]),
        });
    }
    match (&wanted, offers.is_empty()) {
        (Some(wanted), true) => Err(Error::new(Kind::NotFound, format!("cannot find '{wanted}' in this archive"))),
        _ => Ok(offers),
    }
}

fn layer(files: &Files, path: &str, diff_id: &Digest) -> Result<Descriptor> {
    let mut part = files.open(path)?;
    let size = part.left;
    let mut first = [0; 6];
    let n = part.read(&mut first).doing("read", path)?;
    let suffix = match Packed::of(&first[..n]).map_err(|_| bad(format!("its layer '{path}' is no tar")))? {
        Packed::Not => return Ok(Descriptor { media_type: layout::OCI_LAYER.into(), digest: diff_id.clone(), size }),
        Packed::Gzip => "+gzip",
        Packed::Zstd => "+zstd",
    };
    let mut hash = Hashed(sha2::Digest::new());
    blob::pour(&mut files.open(path)?, &mut [&mut hash], path)?;
    let digest = Digest::sha256(&sha2::Digest::finalize(hash.0).into());
    Ok(Descriptor { media_type: format!("{}{suffix}", layout::OCI_LAYER), digest, size })
}

struct Hashed(sha2::Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// -------------------------------------------------------------------------------------------------------------- saving

/// Images to a place. A file is whole, or not there; but what is no file, such as /dev/null, is written as it is.
pub fn save_to(store: &Store, wanted: &[Wanted], place: &Place) -> Result<()> {
    let (path, format) = match place {
        Place::Directory { path, .. } => return save_into(store, wanted, path),
        Place::OciArchive { path, .. } => (path, Format::Oci),
        Place::DockerArchive { path, .. } => (path, Format::Docker),
    };
    if path.exists() && !path.is_file() {
        let file = File::options().write(true).open(path).doing("open", path.display())?;
        return save(store, wanted, format, &mut BufWriter::with_capacity(1 << 20, file));
    }
    write_aside(path, |file| save(store, wanted, format, &mut BufWriter::with_capacity(1 << 20, file)))
}

/// A file that has its name only when it is whole and on the disk.
fn write_aside(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let aside = path.with_file_name(making::unique(".sandbox")?);
    let mut file = File::create_new(&aside).doing("make", aside.display())?;
    let written = write(&mut file)
        .and_then(|()| file.sync_all().doing("write", path.display()))
        .and_then(|()| std::fs::rename(&aside, path).doing("put in place", path.display()));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

/// How `save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Docker,
    Oci,
}

/// What `save` writes for an image: itself, and the names that it was asked for by.
pub struct Wanted {
    pub image: Image,
    pub names: Vec<ImageName>,
    /// The name in an index, if not made from the others.
    pub tag: Option<String>,
}

/// The documents of an archive but the blobs: path and content. The same images give the same bytes.
fn documents(wanted: &[Wanted], format: Format) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let tags: BTreeSet<_> = wanted.iter().flat_map(|w| &w.names).map(|n| n.tag()).collect();
    let short = tags.len() == wanted.iter().map(|w| w.names.len()).sum::<usize>();
    let mut entries = Vec::new();
    for Wanted { image, names, tag } in wanted {
        let entry = |annotations: Option<Value>| {
            let d = &image.manifest;
            let mut entry = json!({ "mediaType": d.media_type, "digest": d.digest, "size": d.size });
            entry.as_object_mut().into_iter().for_each(|e| drop(annotations.clone().map(|a| e.insert("annotations".into(), a))));
            entry
        };
        if let Some(tag) = tag {
            entries.push(entry(Some(json!({ layout::REF_NAME: tag }))));
        } else if names.is_empty() {
            entries.push(entry(None));
        }
        for name in names.iter().filter(|_| tag.is_none()) {
            // A tag alone, as Docker writes it, is what other tools ask for; it must not be there twice.
            let tag = name.tag().filter(|_| short).map_or_else(|| name.to_string(), str::to_string);
            entries.push(entry(Some(json!({ layout::FULL_NAME: name, layout::REF_NAME: tag }))));
        }
    }
    let index = json!({ "schemaVersion": 2, "mediaType": layout::OCI_INDEX, "manifests": entries });
    let mut documents = vec![("index.json", index.to_string().into_bytes()), ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    if format == Format::Docker {
        let path = |d: &Digest| format!("blobs/sha256/{}", d.hex());
        let list: Vec<Value> = wanted
            .iter()
            .map(|w| {
                let layers: Vec<String> = w.image.layers.iter().map(|l| path(&l.blob.digest)).collect();
                json!({ "Config": path(&w.image.id), "RepoTags": w.names.iter().map(familiar).collect::<Vec<_>>(), "Layers": layers })
            })
            .collect();
        documents.push(("manifest.json", Value::Array(list).to_string().into_bytes()));
    }
    documents.sort();
    Ok(documents)
}

/// A name as Docker shows it: without the registry, if it is docker.io.
pub fn familiar(name: &ImageName) -> String {
    let tag = name.tag().map(|t| format!(":{t}")).unwrap_or_default();
    let digest = name.digest().map(|d| format!("@{d}")).unwrap_or_default();
    repository(name) + &tag + &digest
}

/// The same without tag and digest.
pub fn repository(name: &ImageName) -> String {
    let short = name.repository();
    match name.registry() {
        "docker.io" => short.strip_prefix("library/").unwrap_or(short).to_string(),
        registry => format!("{registry}/{short}"),
    }
}

/// Every blob of the images once, by digest.
fn blobs(wanted: &[Wanted]) -> Result<BTreeMap<String, (&Image, Descriptor)>> {
    let mut blobs = BTreeMap::new();
    for Wanted { image, .. } in wanted {
        let layers = image.layers.iter().map(|l| l.blob.clone());
        for blob in layers.chain([image.manifest.clone(), config_of(image)?]) {
            blobs.insert(blob.digest.hex().to_string(), (image, blob));
        }
    }
    Ok(blobs)
}

/// Its descriptor, which the manifest has.
fn config_of(image: &Image) -> Result<Descriptor> {
    let path = blob::path(&image.store, &image.id);
    let size = std::fs::metadata(&path).doing("look at", path.display())?.len();
    Ok(Descriptor { media_type: layout::OCI_CONFIG.into(), digest: image.id.clone(), size })
}

/// Images as a tar: sorted, with fixed headers, so that the same images are the same bytes.
pub fn save(store: &Store, wanted: &[Wanted], format: Format, to: &mut dyn Write) -> Result<()> {
    let mut out = ::tar::Builder::new(to);
    let header = |size: u64, directory: bool| {
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(if directory { ::tar::EntryType::Directory } else { ::tar::EntryType::Regular });
        header.set_mode(if directory { 0o755 } else { 0o644 });
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    };
    for dir in ["blobs/", "blobs/sha256/"] {
        out.append_data(&mut header(0, true), dir, io::empty()).doing("write", "the archive")?;
    }
    for (hex, (image, blob)) in blobs(wanted)? {
        let reader = store.read_blob(image, &blob)?;
        out.append_data(&mut header(blob.size, false), format!("blobs/sha256/{hex}"), reader).doing("write", &blob.digest)?;
    }
    for (path, content) in documents(wanted, format)? {
        out.append_data(&mut header(content.len() as u64, false), path, content.as_slice()).doing("write", path)?;
    }
    let out = out.into_inner().doing("write", "the archive")?;
    out.flush().doing("write", "the archive")
}

/// Images into a directory in the OCI layout: a new one, or one that has others already, which stay.
fn save_into(store: &Store, wanted: &[Wanted], dir: &Path) -> Result<()> {
    let blobs_dir = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs_dir).doing("make", blobs_dir.display())?;
    let put = |path: &Path, content: &mut dyn Read| write_aside(path, |file| blob::pour(content, &mut [file], path.display()));
    for (hex, (image, blob)) in blobs(wanted)? {
        let path = blobs_dir.join(hex);
        if !path.exists() {
            put(&path, &mut store.read_blob(image, &blob)?)?;
        }
    }
    let documents = documents(wanted, Format::Oci)?;
    let content = |name: &str| documents.iter().find(|(n, _)| *n == name).map(|(_, c)| c.clone()).unwrap_or_default();
    let mut index: Value = serde_json::from_slice(&content("index.json")).map_err(|e| Error::new(Kind::Bug, e.to_string()))?;
    let files = Files::directory(dir)?;
    if files.find("index.json")?.is_some() {
        let there = files.read("index.json")?;
        layout::document(&there, None)?;
        let there = layout::json(&there, "index.json of this directory")?;
        let name = |e: &Value| e.get("annotations").and_then(|a| a.get(layout::REF_NAME)).cloned();
        let ours = index["manifests"].as_array().cloned().unwrap_or_default();
        let stays = |e: &&Value| !ours.iter().any(|o| o == *e || (name(o).is_some() && name(o) == name(e)));
        let mut all: Vec<Value> = there.get("manifests").and_then(Value::as_array).into_iter().flatten().filter(stays).cloned().collect();
        all.extend(ours);
        index["manifests"] = Value::Array(all);
    }
    put(&dir.join("oci-layout"), &mut content("oci-layout").as_slice())?;
    put(&dir.join("index.json"), &mut index.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error;
    use ::tar::{Builder, EntryType, Header};

    fn file(bytes: &[u8]) -> File {
        let mut file = File::from(rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all(bytes).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    /// Entries as they are, whatever a writer would say to them.
    fn packed(entries: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut out = Builder::new(Vec::new());
        for (name, kind, link, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(content.len() as u64);
            header.set_cksum();
            out.append(&header, *content).unwrap();
        }
        out.into_inner().unwrap()
    }

    fn plain<'a>(name: &'a str, content: &'a [u8]) -> (&'a str, EntryType, &'a str, &'a [u8]) {
        (name, EntryType::Regular, "", content)
    }

    fn opened(bytes: &[u8]) -> Result<Files> {
        Files::tar(file(bytes), Path::new("/nonexistent"))
    }

    #[track_caller]
    fn refused<T>(result: Result<T>, says: &str) {
        let e = result.err().unwrap_or_else(|| panic!("taken; wanted '{says}'"));
        assert!(e.to_string().contains(says), "wanted '{says}', got '{e}'");
    }

    const CONFIG: &str = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;

    #[test]
    fn places() {
        for (text, kind, path, tag) in [
            ("oci:dir", "oci", "dir", None),
            ("oci:/a/b:v1", "oci", "/a/b", Some("v1")),
            ("oci-archive:f.tar:quay.io/x/y:1", "oci-archive", "f.tar", Some("quay.io/x/y:1")),
            ("docker-archive:f.tar", "docker-archive", "f.tar", None),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.path(), place.tag()), (Path::new(path), tag));
            assert!(place.to_string() == text && text.starts_with(&format!("{kind}:")));
        }
        for name in ["debian", "debian:12", "localhost:5000/x", "quay.io/oci/x:oci"] {
            assert_eq!(Place::named(name).unwrap(), None, "{name}");
        }
        for bad in ["oci:", "oci::x", "oci:d:", "oci-archive:", "oci:d:a b", "oci:d:\u{1b}", "docker-archive::"] {
            assert!(Place::named(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cve_2014_9356_nothing_leads_out_of_an_archive() {
        let (sym, hard) = (EntryType::Symlink, EntryType::Link);
        for (name, kind, link) in [
            ("a", sym, "/etc/passwd"),
            ("a", sym, "../etc/passwd"),
            ("a", sym, ".."),
            ("d/a", sym, "../../etc/passwd"),
            ("d/a", sym, "x/../../../y"),
            ("../a", EntryType::Regular, ""),
            ("d/../../a", EntryType::Regular, ""),
            ("a", hard, "../x"),
        ] {
            assert!(opened(&packed(&[(name, kind, link, b"")])).is_err(), "{name} -> {link}");
        }
        // Inside they are followed, but not without end.
        let files = opened(&packed(&[
            plain("a/layer.tar", b"x"),
            ("b/layer.tar", sym, "../a/layer.tar", b""),
            ("c", hard, "b/layer.tar", b""),
            ("loop", sym, "pool", b""),
            ("pool", sym, "./loop", b""),
            ("self", sym, "self", b""),
            ("nowhere", sym, "gone", b""),
        ]))
        .unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "c", "./c", "a//layer.tar"] {
            assert_eq!(files.read(name).unwrap(), b"x", "{name}");
        }
        refused(files.read("loop"), "too many links");
        refused(files.read("self"), "too many links");
        refused(files.read("nowhere"), "it has no 'nowhere'");
        refused(files.read("../c"), "cannot use this archive");
        refused(files.read("/etc/passwd"), "it has no");
    }

    #[test]
    fn cve_2021_20291_what_is_no_archive() {
        for (bytes, says) in [
            (&b""[..], "it is empty"),
            (b"x", "early"),
            (b"\xfd7zXZ\0", "xz -dc"),
            (b"BZh91AY", "bzip2 -dc"),
            (&[b'x'; 4096], "cannot use this archive"),
            (&[0xff; 512], "cannot use this archive"),
        ] {
            refused(opened(bytes), says);
        }
        for (kind, says) in
            [(EntryType::Char, "no file"), (EntryType::Block, "no file"), (EntryType::Fifo, "no file"), (EntryType::new(b'Z'), "unknown type")]
        {
            refused(opened(&packed(&[("a", kind, "", b"")])), says);
        }
        refused(opened(&packed(&[plain("a", b"1"), plain("a", b"2")])), "twice");
        refused(opened(&packed(&[plain("a", b"1"), plain("./a", b"2")])), "twice");
        refused(opened(&packed(&[plain("a", b"1"), ("a", EntryType::Symlink, "b", b"")])), "twice");
        let whole = packed(&[plain("manifest.json", &[b' '; 2000]), plain("b", b"x"), ("c", EntryType::Symlink, "b", b"")]);
        assert!(opened(&whole).is_ok());
        for n in (0..whole.len() - 1024).filter(|n| n % 512 != 0 || (512..2560).contains(n)).step_by(8) {
            assert!(opened(&whole[..n]).is_err(), "cut at {n}");
        }
        // A flipped bit is refused or makes another archive, and never a panic.
        for at in 0..whole.len().min(1024) {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                let _ = opened(&bytes).and_then(|f| f.read("b"));
            }
        }
    }

    #[test]
    fn cve_2025_62518_sizes_that_disagree() {
        let mut out = Builder::new(Vec::new());
        let pax = b"13 size=4096\n";
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(pax.len() as u64);
        header.set_cksum();
        out.append(&header, &pax[..]).unwrap();
        let mut header = Header::new_ustar();
        header.set_path("manifest.json").unwrap();
        header.set_size(512);
        header.set_cksum();
        out.append(&header, &[0; 512][..]).unwrap();
        refused(opened(&out.into_inner().unwrap()), "two sizes");
        let mut lies = packed(&[plain("a", b"x")]);
        lies[124..136].copy_from_slice(b"77777777777\0");
        lies[148..156].copy_from_slice(b"        ");
        let sum: u32 = lies[..512].iter().map(|b| u32::from(*b)).sum();
        lies[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        refused(opened(&lies), "early");
    }

    #[test]
    fn cve_2017_14992_an_archive_that_grows() {
        let dir = std::env::temp_dir().join(making::unique("sandbox-archive").unwrap());
        std::fs::create_dir(&dir).unwrap();
        let zeros = vec![0u8; 8 << 20];
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        for _ in 0..8 {
            zipped.write_all(&zeros).unwrap();
            zstd.write_all(&zeros).unwrap();
        }
        for bomb in [zipped.finish().unwrap(), zstd.finish().unwrap()] {
            refused(Files::tar(file(&bomb), &dir), "grows without end");
            refused(Files::tar(file(&bomb[..bomb.len() / 2]), &dir), "cannot");
        }
        // A window of 2 GiB.
        refused(Files::tar(file(&[0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0]), &dir), "cannot read the archive");
        refused(Files::tar(file(&[0x1f, 0x8b, 8, 0]), &dir), "cannot read the archive");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
    }

    fn docker(manifest: &str, more: &[(&str, EntryType, &str, &[u8])]) -> Result<Vec<Offer>> {
        let mut entries = vec![plain("manifest.json", manifest.as_bytes()), plain("c.json", CONFIG.as_bytes())];
        entries.extend_from_slice(more);
        docker_offers(&opened(&packed(&entries))?, None)
    }

    #[test]
    fn cve_2019_14271_names_in_a_manifest_lead_nowhere() {
        assert_eq!(docker(r#"[{"Config":"c.json","RepoTags":["a:1","q.io/b"],"Layers":[]}]"#, &[]).unwrap()[0].names.len(), 2);
        assert_eq!(docker(r#"[{"Config":"c.json","RepoTags":null,"Layers":null}]"#, &[]).unwrap()[0].names.len(), 0);
        for (manifest, says) in [
            ("", "EOF"),
            ("{}", "no list"),
            ("[]", "no list"),
            ("[7]", "no Config"),
            ("[{}]", "no Config"),
            (r#"[{"Config":7}]"#, "no Config"),
            (r#"[{"Config":"gone.json"}]"#, "it has no 'gone.json'"),
            (r#"[{"Config":"../../../etc/hostname"}]"#, "cannot use this archive"),
            (r#"[{"Config":"/etc/hostname"}]"#, "it has no '/etc/hostname'"),
            (r#"[{"Config":"c.json\u0000x"}]"#, "cannot use this archive"),
            (r#"[{"Config":""}]"#, "cannot use this archive"),
            (r#"[{"Config":"manifest.json"}]"#, "no JSON object"),
            (r#"[{"Config":"c.json","Config":"c.json"}]"#, "twice"),
            (r#"[{"Config":"c.json","Layers":"x"}]"#, "no list"),
            (r#"[{"Config":"c.json","Layers":[7]}]"#, "no text"),
            (r#"[{"Config":"c.json","Layers":["../../etc/passwd"]}]"#, "1 layers, and 0"),
            (r#"[{"Config":"c.json","RepoTags":["../../x"]}]"#, "bad image name"),
            (r#"[{"Config":"c.json","RepoTags":["A B"]}]"#, "bad image name"),
            (r#"[{"Config":"c.json","RepoTags":[""]}]"#, "bad image name"),
            (r#"[{"Config":"c.json","RepoTags":["a\n"]}]"#, "bad image name"),
            (r#"[{"Config":"c.json","RepoTags":{"a":1}}]"#, "no list"),
            (r#"[{"Config":"c.json"}] x"#, "trailing"),
        ] {
            refused(docker(manifest, &[]), says);
        }
        let digest = format!(r#"[{{"Config":"c.json","RepoTags":["a@sha256:{}"]}}]"#, "0".repeat(64));
        refused(docker(&digest, &[]), "digest");
        let many = format!("[{}]", vec![r#"{"Config":"c.json"}"#; MOST_IMAGES + 1].join(","));
        refused(docker(&many, &[]), "more than 1024");
        refused(docker(r#"[{"Config":"l.json"}]"#, &[("l.json", EntryType::Symlink, "../../etc/passwd", b"")]), "leads out");
        let long = vec![b' '; layout::LONGEST as usize + 1];
        refused(docker(r#"[{"Config":"long"}]"#, &[plain("long", &long)]), "longer than 4 MiB");
        let one = CONFIG.replace("[]", &format!("[\"sha256:{}\"]", "a".repeat(64)));
        let with = |layer: &[u8]| docker(r#"[{"Config":"one","Layers":["l"]}]"#, &[plain("one", one.as_bytes()), plain("l", layer)]);
        refused(with(b""), "no tar");
        refused(with(b"\xfd7zXZ\0"), "no tar");
        refused(docker(r#"[{"Config":"one","Layers":["gone"]}]"#, &[plain("one", one.as_bytes())]), "it has no 'gone'");
        // A layer that is not compressed is its own diff id, which is verified when it is kept.
        assert_eq!(with(b"junk").unwrap()[0].layers[0].blob.digest.hex(), "a".repeat(64));
        assert_eq!(with(b"\x1f\x8bjunk").unwrap()[0].layers[0].blob.digest, layout::digest(b"\x1f\x8bjunk"));
    }

    #[test]
    fn cve_2025_62725_a_name_in_a_layout_is_no_path() {
        let entry = |name: Option<&str>, full: Option<&str>| layout::Entry {
            descriptor: Descriptor { media_type: layout::OCI_MANIFEST.into(), digest: layout::digest(b""), size: 0 },
            platform: None,
            name: name.map(str::to_string),
            full_name: full.map(str::to_string),
        };
        for bad in ["../../x", "/etc/passwd", "a/../b", "a:b:c", "", "A", "a b", "--rm", "a\nb", "x@sha256:00", "@file", "..", "."] {
            assert_eq!(name_of(&entry(Some(bad), Some(bad))), None, "{bad:?}");
        }
        let good = name_of(&entry(Some("v1"), Some("q.io/x:v1"))).unwrap();
        assert_eq!((good.to_string().as_str(), name_of(&entry(None, None))), ("q.io/x:v1", None));
    }

    #[test]
    fn cve_2014_9358_an_id_is_what_it_is_computed_to_be() {
        // Old archives name a configuration by its digest, and have ids in `repositories`: neither is believed.
        let lie = format!("{}.json", "0".repeat(64));
        let entries = [(lie.as_str(), EntryType::Regular, "", CONFIG.as_bytes()), plain("repositories", br#"{"a":{"1":"../../x"}}"#)];
        let offers = docker(&format!(r#"[{{"Config":"{lie}"}}]"#), &entries).unwrap();
        let Document::Manifest(manifest) = layout::document(&offers[0].manifest, None).unwrap() else { panic!() };
        assert_eq!(manifest.config.digest, layout::digest(CONFIG.as_bytes()));
    }

    #[test]
    fn a_layout_that_is_none() {
        const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"{}","size":{}}},"layers":[]}}"#,
            layout::OCI_CONFIG,
            layout::digest(CONFIG.as_bytes()),
            CONFIG.len()
        );
        let entry = |digest: &Digest, size: usize, name: &str| {
            format!(
                r#"{{"mediaType":"{}","digest":"{digest}","size":{size},"annotations":{{"{}":"{name}"}}}}"#,
                layout::OCI_MANIFEST,
                layout::REF_NAME
            )
        };
        let index = |entries: &[String]| format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        let right = layout::digest(manifest.as_bytes());
        let blob = |bytes: &str| format!("blobs/sha256/{}", layout::digest(bytes.as_bytes()).hex());
        let offers = |version: &[u8], index: &str, content: &str, tag: Option<&str>| {
            let (m, c) = (blob(&manifest), blob(CONFIG));
            let entries =
                [plain("oci-layout", version), plain("index.json", index.as_bytes()), plain(&m, content.as_bytes()), plain(&c, CONFIG.as_bytes())];
            oci_offers(&opened(&packed(&entries))?, tag, &Platform::default())
        };
        let two = index(&[entry(&right, manifest.len(), "v1"), entry(&right, manifest.len(), "q.io/x:2")]);
        let good = offers(LAYOUT, &two, &manifest, None).unwrap();
        let names: Vec<String> = good[0].names.iter().map(ImageName::to_string).collect();
        assert_eq!((good.len(), names), (1, vec!["localhost/v1:latest".to_string(), "q.io/x:2".to_string()]));
        assert_eq!(offers(LAYOUT, &two, &manifest, Some("v1")).unwrap().len(), 1);
        refused(offers(LAYOUT, &two, &manifest, Some("v3")), "it has: v1, q.io/x:2");
        refused(offers(b"{}", &two, &manifest, None), "version 1.0.0");
        refused(offers(br#"{"imageLayoutVersion":"2.0.0"}"#, &two, &manifest, None), "version 1.0.0");
        refused(offers(LAYOUT, &manifest, &manifest, None), "no index");
        refused(offers(LAYOUT, "[]", &manifest, None), "no JSON object");
        refused(offers(LAYOUT, &index(&[]), &manifest, None), "cannot find an image");
        // What a name stands for is verified. cve: 2026-48769
        refused(offers(LAYOUT, &two, &manifest.replace("2,", "2 ,"), None), "should have");
        refused(offers(LAYOUT, &two, &manifest.replace('2', "3"), None), "its digest is");
        refused(offers(LAYOUT, &index(&[entry(&right, 3, "v1")]), &manifest, None), "should have 3");
        let other = layout::digest(b"x");
        refused(offers(LAYOUT, &index(&[entry(&other, 1, "v1")]), &manifest, None), "it has no 'blobs/sha256/");
        // An odd name is no name; and shown without its escapes.
        let odd = index(&[entry(&right, manifest.len(), "a\\u001b[2J")]);
        assert!(offers(LAYOUT, &odd, &manifest, None).unwrap()[0].names.is_empty());
        let e = offers(LAYOUT, &odd, &manifest, Some("v3")).err().unwrap();
        assert!(!e.to_string().contains('\u{1b}') && error::printable(&e.to_string()) == e.to_string());
    }
}
