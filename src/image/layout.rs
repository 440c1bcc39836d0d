//! The documents of an image: manifest, index, configuration, in the form of OCI and of Docker; read within limits.
//!
//! Called by `store`, `archive` and `registry` with bytes whose digest is checked already, where there is one to check. Does no I/O.
//! A document that two readers could understand in two ways is refused: twice the same key, a key in another case, bytes after
//! the end, a manifest that is also an index. cve: 2021-41190
#![forbid(unsafe_code)]

use super::{Descriptor, Layer};
use crate::error::{Error, Kind, Result};
use crate::ident::Digest;
use oci_spec::image::ImageConfiguration;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use sha2::Digest as _;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

/// No document is longer, as for containers/image (internal/iolimits).
pub const LONGEST: u64 = 4 << 20;
const DEEPEST: usize = 32;
/// Of all kinds in one document: what bounds our memory.
const MOST_VALUES: usize = 1 << 17;
pub const MOST_LAYERS: usize = 512;
const MOST_ENTRIES: usize = 1024;
const MOST_HISTORY: usize = 4096;
/// Of all labels, or annotations, of a document together.
const LONGEST_LABELS: usize = 1 << 20;
/// An index may name an index; more often than anybody needs, it may not.
const DEEPEST_INDEX: usize = 4;
/// What a number in JSON can hold in every reader. RFC 8259, section 6
const LARGEST_SIZE: u64 = 1 << 53;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYERS: [&str; 6] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// The name that a document in an index has. oci: annotations.md
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The same in full, as Docker and containerd write it.
pub const FULL_NAME: &str = "io.containerd.image.name";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub media_type: String,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    /// `REF_NAME`, where there is one.
    pub name: Option<String>,
    /// `FULL_NAME`, likewise.
    pub full_name: Option<String>,
}

/// What an image runs on: `os/arch[/variant]`, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub variant: Option<String>,
}

impl Default for Platform {
    /// Of this machine.
    fn default() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform { os: "linux".into(), arch: arch.into(), variant: None }
    }
}

impl Platform {
    /// Is `other` what was asked for? A variant that is not said fits every one; arm64 has v8 in mind if it says nothing.
    fn fits(&self, other: &Platform) -> bool {
        let variant = |p: &Platform| p.variant.clone().or_else(|| (p.arch == "arm64").then(|| "v8".to_string()));
        self.os == other.os && self.arch == other.arch && (self.variant.is_none() || variant(self) == variant(other))
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let parts: Vec<&str> = s.split('/').collect();
        let fine = |p: &&str| !p.is_empty() && p.len() <= 64 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(fine) {
            return Err(Error::usage(format!("bad platform '{s}': os/arch or os/arch/variant, such as linux/amd64")));
        }
        // As uname and Debian say it.
        let arch = match parts[1] {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            "i386" | "i686" => "386",
            "armhf" => "arm",
            other => other,
        };
        Ok(Platform { os: parts[0].into(), arch: arch.into(), variant: parts.get(2).map(|v| v.to_string()) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

// ---------------------------------------------------------------------------------------------------------------- JSON

/// JSON as a stranger wrote it: no longer, deeper or larger than the limits, no key twice, nothing after the end.
pub fn json(bytes: &[u8], what: &str) -> Result<Value> {
    if bytes.len() as u64 > LONGEST {
        return Err(bad(what, format!("it is longer than {} MiB", LONGEST >> 20)));
    }
    let left = Cell::new(MOST_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { deeper: DEEPEST, left: &left }.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    value.map_err(|e| bad(what, e.to_string()))
}

fn bad(what: &str, why: impl fmt::Display) -> Error {
    Error::usage(format!("cannot use {what}: {why}"))
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    deeper: usize,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> std::result::Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom("it has too many values"))?;
        self.left.set(left);
        reader.deserialize_any(self)
    }
}

impl Strict<'_> {
    fn inside<E: serde::de::Error>(self) -> std::result::Result<Self, E> {
        let deeper = self.deeper.checked_sub(1).ok_or_else(|| E::custom(format!("it is nested more than {DEEPEST} deep")))?;
        Ok(Strict { deeper, ..self })
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_u64<E>(self, v: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(v.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> std::result::Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number that is none"))
    }
    fn visit_str<E>(self, v: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(v.to_string()))
    }
    fn visit_string<E>(self, v: String) -> std::result::Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(inside)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inside)?;
            if object.insert(key, value).is_some() {
                // The key itself is hostile text; its position is said anyhow.
                return Err(A::Error::custom("a key is there twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// `value` as an object whose keys of ours are spelled as we spell them: Go's reader takes `LAYERS` for `layers`. cve: 2021-41190
fn object<'a>(value: &'a Value, keys: &[&str], what: &str) -> Result<&'a Map<String, Value>> {
    let object = value.as_object().ok_or_else(|| bad(what, "it is no JSON object"))?;
    let odd = object.keys().find(|k| keys.iter().any(|known| k.eq_ignore_ascii_case(known) && k != known));
    match odd {
        Some(key) => Err(bad(what, format!("its key '{key}' is spelled in another case"))),
        None => Ok(object),
    }
}

fn string<'a>(object: &'a Map<String, Value>, key: &str, what: &str) -> Result<Option<&'a str>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(bad(what, format!("its {key} is no text"))),
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str, most: usize, what: &str) -> Result<&'a [Value]> {
    let list = match object.get(key) {
        None | Some(Value::Null) => return Ok(&[]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad(what, format!("its {key} is no list"))),
    };
    if list.len() > most { Err(bad(what, format!("its {key} has more than {most} entries"))) } else { Ok(list) }
}

/// Labels or annotations: texts, and not too much of them.
fn labels(object: &Map<String, Value>, key: &str, what: &str) -> Result<()> {
    let labels = match object.get(key) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(labels)) => labels,
        Some(_) => return Err(bad(what, format!("its {key} is no object"))),
    };
    let mut length = 0;
    for (name, value) in labels {
        length += name.len() + value.as_str().ok_or_else(|| bad(what, format!("a value of its {key} is no text")))?.len();
    }
    if length > LONGEST_LABELS { Err(bad(what, format!("its {key} are longer than 1 MiB"))) } else { Ok(()) }
}

// ----------------------------------------------------------------------------------------------------------- documents

/// A manifest or an index. `said` is the media type by which somebody else called it: a descriptor, a Content-Type.
pub fn document(bytes: &[u8], said: Option<&str>) -> Result<Document> {
    let value = json(bytes, "this document of an image")?;
    let what = if value.get("manifests").is_some() { "this index of images" } else { "this image manifest" };
    let keys = ["schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "manifests", "fsLayers", "signatures"];
    let top = object(&value, &keys, what)?;
    let own = string(top, "mediaType", what)?;
    let old = |t: &str| t.starts_with("application/vnd.docker.distribution.manifest.v1+");
    if top.get("schemaVersion").and_then(Value::as_u64) == Some(1) || top.contains_key("fsLayers") || own.or(said).is_some_and(old) {
        return Err(Error::new(Kind::Unsupported, "cannot use this image manifest: it is of schema 1, which cannot be verified")
            .hint("convert it where it is: skopeo copy --format oci"));
    }
    if top.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
        return Err(bad(what, "its schemaVersion is not 2"));
    }
    if let (Some(own), Some(said)) = (own, said)
        && own != said
    {
        return Err(bad(what, format!("it says that it is '{own}', and was called '{said}'")));
    }
    labels(top, "annotations", what)?;
    let (is_manifest, is_index) = (top.contains_key("config") || top.contains_key("layers"), top.contains_key("manifests"));
    if is_manifest && is_index {
        return Err(bad(what, "it is a manifest and an index at once")); // cve: 2021-41190
    }
    match own.or(said) {
        None if is_index => index(top, what).map(Document::Index),
        None => manifest(top, None, what).map(Document::Manifest),
        Some(OCI_INDEX | DOCKER_INDEX) if !is_manifest => index(top, what).map(Document::Index),
        Some(kind @ (OCI_MANIFEST | DOCKER_MANIFEST)) if !is_index => manifest(top, Some(kind), what).map(Document::Manifest),
        Some(OCI_INDEX | DOCKER_INDEX | OCI_MANIFEST | DOCKER_MANIFEST) => Err(bad(what, "its media type says that it is something else")),
        Some(kind) => Err(bad(what, format!("its media type is '{kind}'"))),
    }
}

fn manifest(top: &Map<String, Value>, kind: Option<&str>, what: &str) -> Result<Manifest> {
    let config = descriptor(top.get("config").ok_or_else(|| bad(what, "it has no config"))?, what)?;
    let kind = match (kind, config.media_type.as_str()) {
        (Some(kind), OCI_CONFIG | DOCKER_CONFIG) => kind,
        (None, OCI_CONFIG) => OCI_MANIFEST,
        (None, DOCKER_CONFIG) => DOCKER_MANIFEST,
        (_, other) => {
            let kind = string(top, "artifactType", what)?.unwrap_or(other);
            return Err(bad(what, format!("it is no image, but an artifact of type '{kind}'")));
        }
    };
    if config.size > LONGEST {
        return Err(bad(what, format!("its configuration is longer than {} MiB", LONGEST >> 20)));
    }
    let layers: Vec<Descriptor> = list(top, "layers", MOST_LAYERS, what)?.iter().map(|l| descriptor(l, what)).collect::<Result<_>>()?;
    for layer in &layers {
        let kind = layer.media_type.as_str();
        if kind.contains(".nondistributable.") || kind.contains(".foreign.") {
            return Err(foreign(what));
        }
        if !LAYERS.contains(&kind) {
            return Err(bad(what, format!("the media type of a layer is '{kind}'")));
        }
    }
    Ok(Manifest { media_type: kind.to_string(), config, layers })
}

/// cve: 2020-15157
fn foreign(what: &str) -> Error {
    bad(what, "it has a layer that lies elsewhere, at an address of its own choice").hint("use an image with all its layers in the registry")
}

fn index(top: &Map<String, Value>, what: &str) -> Result<Index> {
    let entries = list(top, "manifests", MOST_ENTRIES, what)?.iter().map(|value| {
        let entry = object(value, &["mediaType", "digest", "size", "urls", "platform", "annotations"], what)?;
        labels(entry, "annotations", what)?;
        let said = |key| entry.get("annotations").and_then(|a| a.get(key)).and_then(Value::as_str).map(str::to_string);
        let platform = match entry.get("platform") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let platform = object(value, &["os", "architecture", "variant"], what)?;
                let word = |key| Ok::<_, Error>(string(platform, key, what)?.filter(|s| !s.is_empty()).map(str::to_string));
                Some(Platform { os: word("os")?.unwrap_or_default(), arch: word("architecture")?.unwrap_or_default(), variant: word("variant")? })
            }
        };
        Ok(Entry { descriptor: descriptor(value, what)?, platform, name: said(REF_NAME), full_name: said(FULL_NAME) })
    });
    Ok(Index { entries: entries.collect::<Result<_>>()? })
}

fn descriptor(value: &Value, what: &str) -> Result<Descriptor> {
    let fields = object(value, &["mediaType", "digest", "size", "urls", "annotations"], what)?;
    labels(fields, "annotations", what)?;
    if !list(fields, "urls", MOST_ENTRIES, what)?.is_empty() {
        return Err(foreign(what));
    }
    let media_type =
        string(fields, "mediaType", what)?.filter(|t| (1..=255).contains(&t.len())).ok_or_else(|| bad(what, "a part has no media type"))?;
    let digest = string(fields, "digest", what)?.ok_or_else(|| bad(what, "a part has no digest"))?;
    let digest = digest.parse::<Digest>().map_err(|e| bad(what, e.message()))?;
    let size = fields.get("size").and_then(Value::as_u64).filter(|s| *s <= LARGEST_SIZE).ok_or_else(|| bad(what, "a part has no proper size"))?;
    Ok(Descriptor { media_type: media_type.to_string(), digest, size })
}

/// The one entry that fits the platform; the first, as Docker takes it. A lone entry that says nothing about its platform fits.
pub fn choose<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor> {
    let images =
        || index.entries.iter().filter(|e| matches!(e.descriptor.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_INDEX));
    let fits = images().find(|e| e.platform.as_ref().is_some_and(|p| platform.fits(p)));
    let silent = || images().find(|e| e.platform.is_none()).filter(|_| images().count() == 1);
    fits.or_else(silent).map(|e| &e.descriptor).ok_or_else(|| {
        let there: Vec<String> = images().filter_map(|e| e.platform.as_ref()).map(Platform::to_string).collect();
        let hint = if there.is_empty() { "it has no image".to_string() } else { format!("it has {}: choose with --platform", there.join(", ")) };
        Error::new(Kind::NotFound, format!("cannot find an image for {platform} in this index")).hint(hint)
    })
}

/// From the bytes of a manifest, or of an index that leads to one, to the manifest for `platform`: its bytes and what they say.
/// `fetch` gives the bytes of a document that an index names.
pub fn resolve(
    bytes: Vec<u8>,
    said: Option<&str>,
    platform: &Platform,
    mut fetch: impl FnMut(&Descriptor) -> Result<Vec<u8>>,
) -> Result<(Vec<u8>, Manifest)> {
    let (mut bytes, mut said) = (bytes, said.map(str::to_string));
    for _ in 0..=DEEPEST_INDEX {
        match document(&bytes, said.as_deref())? {
            Document::Manifest(manifest) => return Ok((bytes, manifest)),
            Document::Index(index) => {
                let entry = choose(&index, platform)?;
                if entry.size > LONGEST {
                    return Err(bad("this index of images", format!("it names a document longer than {} MiB", LONGEST >> 20)));
                }
                bytes = fetch(entry)?;
                verify(entry, &bytes)?;
                said = Some(entry.media_type.clone());
            }
        }
    }
    Err(bad("this index of images", format!("it is nested more than {DEEPEST_INDEX} deep")))
}

/// The bytes are those that the descriptor means.
pub fn verify(expect: &Descriptor, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 != expect.size {
        return Err(bad(expect.digest.as_str(), format!("it has {} bytes and should have {}", bytes.len(), expect.size)));
    }
    let found = digest(bytes);
    if found != expect.digest { Err(bad(expect.digest.as_str(), format!("its digest is {found}"))) } else { Ok(()) }
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(&sha2::Sha256::digest(bytes).into())
}

// ------------------------------------------------------------------------------------------------------- configuration

/// An image's configuration, and the digests of its layers' tars.
pub fn config(bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let what = "this image configuration";
    let mut value = json(bytes, what)?;
    without_nulls(&mut value);
    let top = object(&value, &["architecture", "os", "rootfs", "config", "history", "variant", "created", "author"], what)?;
    let rootfs = object(top.get("rootfs").ok_or_else(|| bad(what, "it has no rootfs"))?, &["type", "diff_ids"], what)?;
    if string(rootfs, "type", what)? != Some("layers") {
        return Err(bad(what, "its rootfs is not made of layers"));
    }
    let diff_ids = list(rootfs, "diff_ids", MOST_LAYERS, what)?.iter().map(|id| {
        let text = id.as_str().ok_or_else(|| bad(what, "a diff id is no text"))?;
        text.parse::<Digest>().map_err(|e| bad(what, e.message()))
    });
    let diff_ids = diff_ids.collect::<Result<Vec<_>>>()?;
    list(top, "history", MOST_HISTORY, what)?;
    if let Some(settings) = top.get("config") {
        let keys = ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"];
        labels(object(settings, &keys, what)?, "Labels", what)?;
    }
    // Docker writes null, or nothing, for no layers.
    value["rootfs"].as_object_mut().map(|r| r.entry("diff_ids").or_insert_with(|| Value::Array(Vec::new())));
    let config = serde_json::from_value(value).map_err(|e| bad(what, e))?;
    Ok((config, diff_ids))
}

/// To Go, null is nothing.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The digest of a layer and all below. oci: config.md#layer-chainid
pub fn chain(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    parent.map_or_else(|| diff_id.clone(), |parent| digest(format!("{parent} {diff_id}").as_bytes()))
}

/// A manifest's layers, and what the configuration says about them, put together.
pub fn layers(manifest: &Manifest, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    if manifest.layers.len() != diff_ids.len() {
        let (blobs, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(bad("this image", format!("its manifest has {blobs} layers and its configuration {ids}")));
    }
    let mut below: Option<Digest> = None;
    let layers = manifest.layers.iter().zip(diff_ids).map(|(blob, diff_id)| {
        let chain_id = chain(below.as_ref(), diff_id);
        below = Some(chain_id.clone());
        Layer { blob: blob.clone(), diff_id: diff_id.clone(), chain_id }
    });
    Ok(layers.collect())
}
