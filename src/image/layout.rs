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
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const LAYERS: [&str; 6] = [
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What a layer is called in an OCI manifest, whoever made it: the bytes are the same.
pub fn oci_layer(media_type: &str) -> &str {
    match LAYERS.iter().position(|known| *known == media_type) {
        Some(at) => LAYERS[at % 3],
        None => media_type,
    }
}

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
    /// What an image says that it runs on.
    pub fn of(config: &ImageConfiguration) -> Platform {
        Platform { os: config.os().to_string(), arch: config.architecture().to_string(), variant: config.variant().clone() }
    }

    /// Is `other` what was asked for? A variant that is not said fits every one; arm64 has v8 in mind if it says nothing.
    pub fn fits(&self, other: &Platform) -> bool {
        let variant = |p: &Platform| p.variant.clone().or_else(|| (p.arch == "arm64").then(|| "v8".to_string()));
        self.os == other.os && self.arch == other.arch && (self.variant.is_none() || variant(self) == variant(other))
    }
}

impl FromStr for Platform {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let parts: Vec<&str> = s.split('/').collect();
        let fine = |p: &&str| {
            p.starts_with(|c: char| c.is_ascii_alphanumeric()) && p.len() <= 64 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hex(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn part(kind: &str) -> Value {
        json!({ "mediaType": kind, "digest": hex('a'), "size": 7 })
    }

    fn good() -> Value {
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": part(OCI_CONFIG), "layers": [part(OCI_LAYER)] })
    }

    fn good_index() -> Value {
        let entry =
            |arch: &str| json!({ "mediaType": OCI_MANIFEST, "digest": hex('b'), "size": 7, "platform": { "os": "linux", "architecture": arch } });
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry("arm64"), entry("amd64")] })
    }

    fn good_config() -> Value {
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [hex('c')] }, "config": { "Env": ["A=1"], "Labels": { "k": "v" } } })
    }

    /// `value` with what is at a path replaced, or taken away.
    fn with(mut value: Value, path: &str, new: Option<Value>) -> Value {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let at = value.pointer_mut(parent).unwrap();
        match (at, new) {
            (Value::Object(o), Some(new)) => drop(o.insert(key.to_string(), new)),
            (Value::Object(o), None) => drop(o.remove(key)),
            (Value::Array(a), Some(new)) => a[key.parse::<usize>().unwrap()] = new,
            _ => panic!("{path}"),
        }
        value
    }

    #[track_caller]
    fn refused(bytes: &[u8], says: &str) {
        let e = document(bytes, None).expect_err(says);
        assert!(e.to_string().contains(says), "wanted '{says}', got '{e}'");
    }

    #[track_caller]
    fn all(value: impl Fn() -> Value, cases: Vec<(&str, Option<Value>, &str)>) {
        for (path, new, says) in cases {
            refused(with(value(), path, new).to_string().as_bytes(), says);
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        for kind in [OCI_CONFIG, DOCKER_CONFIG] {
            let text = with(with(good(), "/mediaType", None), "/config/mediaType", Some(kind.into())).to_string();
            let Document::Manifest(read) = document(text.as_bytes(), None).unwrap() else { panic!() };
            assert_eq!(read.media_type, if kind == OCI_CONFIG { OCI_MANIFEST } else { DOCKER_MANIFEST });
        }
        assert!(matches!(document(good_index().to_string().as_bytes(), Some(OCI_INDEX)).unwrap(), Document::Index(i) if i.entries.len() == 2));
        assert_eq!(config(good_config().to_string().as_bytes()).unwrap().1.len(), 1);
        // As Docker writes them.
        let nulls = with(with(good_config(), "/config/Labels", Some(Value::Null)), "/rootfs/diff_ids", Some(Value::Null));
        assert!(config(nulls.to_string().as_bytes()).unwrap().1.is_empty());
    }

    #[test]
    fn cve_2021_41190_no_document_is_two_things() {
        let both = |mut a: Value, b: Value| {
            a.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
            a
        };
        refused(both(good(), good_index()).to_string().as_bytes(), "at once");
        refused(with(both(good(), good_index()), "/mediaType", None).to_string().as_bytes(), "at once");
        all(
            good,
            vec![
                ("/manifests", Some(json!([])), "at once"),
                ("/mediaType", Some(OCI_INDEX.into()), "something else"),
                ("/mediaType", Some(DOCKER_INDEX.into()), "something else"),
                ("/mediaType", Some("text/html".into()), "text/html"),
                ("/mediaType", Some(7.into()), "no text"),
                ("/Layers", Some(json!([])), "another case"),
                ("/MANIFESTS", Some(json!([])), "another case"),
                ("/config/DIGEST", Some(hex('d').into()), "another case"),
            ],
        );
        all(
            good_index,
            vec![
                ("/layers", Some(json!([])), "at once"),
                ("/config", Some(json!({})), "at once"),
                ("/mediaType", Some(OCI_MANIFEST.into()), "something else"),
                ("/manifests/0/Size", Some(9.into()), "another case"),
                ("/manifests/0/platform/OS", Some("windows".into()), "another case"),
            ],
        );
        let text = good().to_string();
        assert!(document(text.as_bytes(), Some(DOCKER_MANIFEST)).unwrap_err().to_string().contains("was called"));
        for (twice, says) in [
            (text.replacen('{', r#"{"layers":[],"#, 1), "twice"),
            (text.replacen(r#""size":7"#, r#""size":7,"size":8"#, 1), "twice"),
            (format!("{text} x"), "trailing"),
            (format!("{text}{text}"), "trailing"),
            (format!("\u{feff}{text}"), "expected value"),
            (text.replacen('7', "NaN", 1), "expected"),
            (text.replacen('7', "7,", 1), "trailing comma"),
        ] {
            refused(twice.as_bytes(), says);
        }
    }

    #[test]
    fn cve_2024_3727_digests_before_anything_else() {
        let short = hex('a')[..70].to_string();
        for digest in
            ["", "sha256:", "sha256:../../../etc/passwd", &short, &hex('A'), &hex('g'), &format!("sha512:{}", "a".repeat(64)), "md5:00", "sha256:ä"]
        {
            let new = || Some(Value::from(digest));
            all(good, vec![("/config/digest", new(), "bad digest"), ("/layers/0/digest", new(), "bad digest")]);
            all(good_index, vec![("/manifests/1/digest", new(), "bad digest")]);
            let text = with(good_config(), "/rootfs/diff_ids/0", new()).to_string();
            assert!(config(text.as_bytes()).unwrap_err().to_string().contains("bad digest"));
        }
    }

    #[test]
    fn cve_2020_15157_no_foreign_layer() {
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        all(
            good,
            vec![
                ("/layers/0/urls", Some(json!(["https://elsewhere/"])), "lies elsewhere"),
                ("/config/urls", Some(json!(["https://elsewhere/"])), "lies elsewhere"),
                ("/layers/0/mediaType", Some(foreign.into()), "lies elsewhere"),
                ("/layers/0/mediaType", Some("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into()), "lies elsewhere"),
            ],
        );
    }

    #[test]
    fn cve_2021_21285_malformed_documents() {
        for (bytes, says) in [
            (&b""[..], "EOF"),
            (b"null", "no JSON object"),
            (b"[]", "no JSON object"),
            (b"7", "no JSON object"),
            (b"{", "EOF"),
            (b"{}", "schemaVersion"),
            (b"\xff\xfe{\0}\0", "expected"),
            (b"{\"a\":\"\xff\"}", "invalid"),
            (b"{\"a\":\"\\ud800\"}", "hex escape"),
            (b"{\"a\":1e999}", "out of range"),
            (b"<html>", "expected"),
        ] {
            refused(bytes, says);
        }
        all(
            good,
            vec![
                ("/schemaVersion", None, "schemaVersion"),
                ("/schemaVersion", Some("2".into()), "schemaVersion"),
                ("/schemaVersion", Some(3.into()), "schemaVersion"),
                ("/schemaVersion", Some(1.into()), "schema 1"),
                ("/fsLayers", Some(json!([])), "schema 1"),
                ("/mediaType", Some("application/vnd.docker.distribution.manifest.v1+prettyjws".into()), "schema 1"),
                ("/config", None, "no config"),
                ("/config", Some(json!([])), "no JSON object"),
                ("/config/mediaType", None, "media type"),
                ("/config/mediaType", Some("".into()), "media type"),
                ("/config/mediaType", Some("application/vnd.cncf.helm.config.v1+json".into()), "artifact"),
                ("/config/digest", None, "no digest"),
                ("/config/size", None, "size"),
                ("/config/size", Some((-1).into()), "size"),
                ("/config/size", Some(1.5.into()), "size"),
                ("/config/size", Some("7".into()), "size"),
                ("/config/size", Some(((1u64 << 53) + 1).into()), "size"),
                ("/config/size", Some((LONGEST + 1).into()), "longer than 4 MiB"),
                ("/layers", Some(json!({})), "no list"),
                ("/layers/0", Some(json!([])), "no JSON object"),
                ("/layers/0/mediaType", Some("application/zip".into()), "application/zip"),
                ("/annotations", Some(json!([])), "no object"),
                ("/annotations", Some(json!({ "a": 1 })), "no text"),
            ],
        );
        all(
            good_index,
            vec![
                ("/manifests", Some(json!({})), "no list"),
                ("/manifests/0", Some(json!(1)), "no JSON object"),
                ("/manifests/0/platform", Some(json!("linux")), "no JSON object"),
            ],
        );
        // Cut at every byte: refused, and no panic.
        let text = good_index().to_string();
        (0..text.len()).for_each(|n| drop(document(&text.as_bytes()[..n], None).unwrap_err()));
    }

    #[test]
    fn configurations_that_are_none() {
        for (path, new, says) in [
            ("/os", None, "os"),
            ("/architecture", None, "architecture"),
            ("/rootfs", None, "no rootfs"),
            ("/rootfs/type", Some("tar".into()), "not made of layers"),
            ("/rootfs/diff_ids", Some(json!("x")), "no list"),
            ("/rootfs/diff_ids/0", Some(json!(1)), "no text"),
            ("/RootFS", Some(json!({})), "another case"),
            ("/config/env", Some(json!([])), "another case"),
            ("/config/Env", Some(json!("A=1")), "invalid type"),
            ("/config/Labels", Some(json!({ "a": ["b"] })), "no text"),
            ("/history", Some(json!({})), "no list"),
        ] {
            let e = config(with(good_config(), path, new).to_string().as_bytes()).expect_err(path);
            assert!(e.to_string().contains(says), "{path}: {e}");
        }
        let layers = layers(
            &Manifest {
                media_type: OCI_MANIFEST.into(),
                config: Descriptor { media_type: OCI_CONFIG.into(), digest: hex('a').parse().unwrap(), size: 1 },
                layers: vec![],
            },
            &[hex('a').parse().unwrap()],
        );
        assert!(layers.unwrap_err().message().contains("0 layers and its configuration 1"));
    }

    #[test]
    fn cve_2017_14992_limits_on_documents() {
        refused(&vec![b' '; LONGEST as usize + 1], "longer than 4 MiB");
        refused(&b"[".repeat(1_000_000), "nested");
        refused(&br#"{"a":"#.repeat(500_000), "nested");
        refused(format!("[{}0]", "0,".repeat(200_000)).as_bytes(), "too many values");
        let many = |n: usize, part: Value| Some(Value::Array(vec![part; n]));
        all(
            good,
            vec![
                ("/layers", many(MOST_LAYERS + 1, part(OCI_LAYER)), "more than 512"),
                ("/annotations", Some(json!({ "a": "x".repeat(LONGEST_LABELS) })), "longer than 1 MiB"),
                ("/layers/0/annotations", Some(json!({ "a": "x".repeat(LONGEST_LABELS) })), "longer than 1 MiB"),
            ],
        );
        all(good_index, vec![("/manifests", many(MOST_ENTRIES + 1, part(OCI_MANIFEST)), "more than 1024")]);
        for (path, new, says) in [
            ("/rootfs/diff_ids", many(MOST_LAYERS + 1, hex('a').into()), "more than 512"),
            ("/history", many(MOST_HISTORY + 1, json!({})), "more than 4096"),
            ("/config/Labels", Some(json!({ "a": "x".repeat(LONGEST_LABELS) })), "longer than 1 MiB"),
        ] {
            assert!(config(with(good_config(), path, new).to_string().as_bytes()).unwrap_err().message().contains(says), "{path}");
        }
    }

    #[test]
    fn cve_2023_2253_an_index_that_does_not_end() {
        // A digest cannot name itself; a server that answers everything with the next one can.
        let mut asked = 0;
        let index = |of: &[u8]| {
            json!({ "schemaVersion": 2, "manifests": [{ "mediaType": OCI_INDEX, "digest": digest(of), "size": of.len() }] }).to_string().into_bytes()
        };
        let mut chain = vec![good().to_string().into_bytes()];
        for _ in 0..40 {
            chain.push(index(chain.last().unwrap()));
        }
        let fetch = |chain: &[Vec<u8>], d: &Descriptor| chain.iter().find(|c| digest(c) == d.digest).cloned().unwrap();
        let e = resolve(chain[40].clone(), None, &Platform::default(), |d| {
            asked += 1;
            Ok(fetch(&chain, d))
        });
        assert!(e.unwrap_err().message().contains("nested more than 4 deep") && asked <= 5);
        assert!(resolve(chain[1].clone(), None, &Platform::default(), |d| Ok(fetch(&chain, d))).unwrap_err().message().contains("was called"));
        // What comes is not what was named.
        let lie = resolve(index(b"x"), None, &Platform::default(), |_| Ok(b"y".to_vec()));
        assert!(lie.unwrap_err().message().contains("its digest is"));
        let long = resolve(index(b"x"), None, &Platform::default(), |_| Ok(b"xx".to_vec()));
        assert!(long.unwrap_err().message().contains("2 bytes and should have 1"));
    }

    #[test]
    fn platforms() {
        let Document::Index(index) = document(good_index().to_string().as_bytes(), None).unwrap() else { panic!() };
        let at = |text: &str| choose(&index, &text.parse().unwrap()).map(|d| d as *const _).ok();
        assert_eq!(at("linux/amd64"), Some(&index.entries[1].descriptor as *const _));
        for same in ["linux/arm64", "linux/aarch64", "linux/arm64/v8"] {
            assert_eq!(at(same), Some(&index.entries[0].descriptor as *const _), "{same}");
        }
        for none in ["linux/arm64/v7", "linux/386", "windows/amd64"] {
            assert!(at(none).is_none(), "{none}");
        }
        assert!(choose(&index, &"linux/s390x".parse().unwrap()).unwrap_err().cure().unwrap().contains("linux/arm64, linux/amd64"));
        for bad in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "li nux/amd64", "linux/../x", "linux/\n"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
        assert_eq!("linux/arm/v7".parse::<Platform>().unwrap().to_string(), "linux/arm/v7");
    }

    #[test]
    fn chain_ids_as_the_specification_has_them() {
        // oci: config.md#layer-chainid
        let (a, b) = (hex('a').parse().unwrap(), hex('b').parse().unwrap());
        assert_eq!(chain(None, &a), a);
        assert_eq!(chain(Some(&a), &b), digest(format!("{a} {b}").as_bytes()));
    }
}
