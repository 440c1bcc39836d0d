//! New images from what is there: another layer on an image, or a first layer. Called by `cli` for commit and import.
//!
//! The same tree and the same words give the same bytes, but for the time, and that is `SOURCE_DATE_EPOCH` where it is set.
//! https://reproducible-builds.org/docs/source-date-epoch/
#![forbid(unsafe_code)]

use super::layout::{self, Document};
use super::store::Store;
use super::{Image, Layer, config};
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::ImageName;
use crate::moment::rfc3339;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::io::{self, Read, Write};

/// What is said about a new image.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub author: Option<String>,
    pub message: Option<String>,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// What made the layer, for its history.
    pub made_by: String,
    pub platform: layout::Platform,
}

/// A layer on `base`, written as a tar by `write`, becomes one of the store's. Compressed as every tool reads it.
pub fn layer(store: &Store, base: Option<&Image>, write: impl FnOnce(&mut dyn Write) -> Result<()> + Send) -> Result<Layer> {
    store.maps()?;
    let (mut reader, writer) = io::pipe().doing("make", "a pipe")?;
    let parent = base.and_then(|b| b.layers.last()).map(|l| &l.chain_id);
    std::thread::scope(|scope| {
        let written = scope.spawn(move || {
            let mut gzip = Members { piece: Vec::new(), to: writer };
            write(&mut gzip)?;
            gzip.finish().doing("compress", "the layer")
        });
        let layer = store.add_new_layer(layout::OCI_LAYER_GZIP, parent, &mut reader);
        drop(reader);
        match written.join() {
            // If we stopped reading, our own reason is the one.
            Ok(Err(e)) => Err(layer.err().filter(|_| e.message().contains("roken pipe")).unwrap_or(e)),
            Ok(Ok(())) => layer,
            Err(_) => Err(Error::new(Kind::Bug, "the layer's writer panicked")),
        }
    })
}

/// A gzip file of several members, each of one piece of what is written (RFC 1952, 2.2). A piece that shrinks too well is stored as it is:
/// who unpacks takes what grows to hundreds of times its size for a bomb, as we do ourselves.
struct Members<W: Write> {
    piece: Vec<u8>,
    to: W,
}

impl<W: Write> Members<W> {
    const PIECE: usize = 4 << 20;
    const SHRINKS: usize = 100;

    fn member(&mut self) -> io::Result<()> {
        let compressed = |level| {
            let mut gzip = GzEncoder::new(Vec::new(), level);
            gzip.write_all(&self.piece).and_then(|()| gzip.finish())
        };
        let mut member = compressed(Compression::default())?;
        if member.len() < self.piece.len() / Self::SHRINKS {
            member = compressed(Compression::none())?;
        }
        self.piece.clear();
        self.to.write_all(&member)
    }

    fn finish(mut self) -> io::Result<()> {
        self.member()
    }
}

impl<W: Write> Write for Members<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(Self::PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == Self::PIECE {
            self.member()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar as somebody else wrote it, kept as it is.
pub fn from_tar(store: &Store, reader: &mut dyn Read) -> Result<Layer> {
    let mut magic = [0u8; 4];
    let mut had = 0;
    while had < magic.len() {
        match reader.read(&mut magic[had..]).doing("read", "the tar")? {
            0 => break,
            n => had += n,
        }
    }
    let media_type = match magic {
        [0x1f, 0x8b, ..] => layout::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => layout::OCI_LAYER_ZSTD,
        _ => layout::OCI_LAYER,
    };
    store.add_new_layer(media_type, None, &mut magic[..had].chain(reader))
}

/// `base` with one more layer, or a new image of it alone, and with other words.
pub fn image(store: &Store, base: Option<&Image>, layer: &Layer, about: &About, name: Option<&ImageName>) -> Result<Image> {
    let (mut config, mut layers) = match base {
        Some(base) => {
            let Document::Manifest(manifest) = layout::document(&store.document(base, &base.manifest)?, Some(&base.manifest.media_type))? else {
                return Err(Error::new(Kind::Bug, "the manifest of an image is an index"));
            };
            // As it stands, so that what we do not know stays.
            let Value::Object(config) = layout::json(&store.document(base, &manifest.config)?, "the image's configuration")? else {
                return Err(Error::new(Kind::Bug, "a configuration that is no object"));
            };
            (config, manifest.layers)
        }
        None => {
            let mut config = Map::new();
            let layout::Platform { os, arch, variant } = about.platform.clone();
            config.extend([("os".to_string(), json!(os)), ("architecture".to_string(), json!(arch))]);
            config.extend(variant.map(|v| ("variant".to_string(), json!(v))));
            (config, Vec::new())
        }
    };
    let created = rfc3339(now()?);
    // Of the container that Docker made the image below from.
    ["container", "container_config", "id", "parent"].iter().for_each(|field| drop(config.remove(*field)));
    config.insert("created".into(), json!(created));
    if let Some(author) = &about.author {
        config.insert("author".into(), json!(author));
    }
    let run = config.entry("config").or_insert_with(|| json!({}));
    if !run.is_object() {
        *run = json!({});
    }
    if let Some(run) = run.as_object_mut() {
        about.changes.iter().try_for_each(|instruction| config::change(run, instruction))?;
    }

    let mut diff_ids: Vec<Value> = base.map_or(Vec::new(), |b| b.layers.iter().map(|l| json!(l.diff_id)).collect());
    diff_ids.push(json!(layer.diff_id));
    config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let mut entry = json!({ "created": created, "created_by": about.made_by });
    if let Some(fields) = entry.as_object_mut() {
        about.author.as_ref().map(|a| fields.insert("author".into(), json!(a)));
        about.message.as_ref().map(|m| fields.insert("comment".into(), json!(m)));
    }
    match config.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) => history.push(entry),
        None => drop(config.insert("history".into(), json!([entry]))),
    }

    let config = Value::Object(config).to_string().into_bytes();
    layout::config(&config)?; // within our own limits
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": layout::digest(bytes), "size": bytes.len() });
    layers.push(layer.blob.clone());
    let layers: Vec<Value> =
        layers.iter().map(|l| json!({ "mediaType": layout::oci_layer(&l.media_type), "digest": l.digest, "size": l.size })).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": layout::OCI_MANIFEST, "config": descriptor(layout::OCI_CONFIG, &config), "layers": layers,
    });
    store.put_blob(&mut config.as_slice(), None)?;
    // What a shared store has below it, ours must have, too.
    if let Some(base) = base.filter(|b| b.store != store.path()) {
        for layer in &base.layers {
            store.put_blob(&mut store.read_blob(base, &layer.blob)?, Some(&layer.blob))?;
        }
    }
    store.add_image(manifest.to_string().as_bytes(), name)
}

/// Seconds since 1970.
pub fn now() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| Error::usage(format!("bad SOURCE_DATE_EPOCH '{text}': seconds since 1970"))),
        Err(_) => Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_no_bomb_and_reads_as_written() {
        let noise: Vec<u8> = (0..9u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for data in [vec![0; 40 << 20], noise, b"short".to_vec(), Vec::new()] {
            let mut file = Vec::new();
            let mut members = Members { piece: Vec::new(), to: &mut file };
            members.write_all(&data).unwrap();
            members.finish().unwrap();
            assert!(data.len() / file.len() <= Members::<Vec<u8>>::SHRINKS, "{} to {}", data.len(), file.len());
            let mut again = Vec::new();
            io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&file[..]), &mut again).unwrap();
            assert!(again == data);
        }
    }
}
