//! An image goes from the store to a registry: its blobs, then its manifest, so that nobody sees half of it.
//!
//! Called by `cli`. A blob that the registry has is not sent; one that it has under another name of ours is taken from there.

use super::conf::Registries;
use super::wire::{Ask, Outgoing, Remote, Wire};
use super::{Options, Progress};
use crate::error::{Error, Kind, Result};
use crate::ident::{Digest, ImageName};
use crate::image::store::Store;
use crate::image::{Descriptor, Image};
use reqwest::{Method, StatusCode, header};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Returns the digest of what is there now.
pub fn push(store: &Store, image: &Image, to: &ImageName, options: &Options, progress: &Progress) -> Result<Digest> {
    let Some(tag) = to.tag() else {
        return Err(Error::usage(format!("cannot push to '{to}': a digest is no place to push to")).hint("give it a tag"));
    };
    progress.note(&format!("pushing {to}"));
    let conf = Registries::load(&options.home)?;
    let target = conf.target(to)?;
    let remote = Remote::new(&target, options, None)?;
    let wire = Wire::new(&remote)?;
    let manifest = store.document(image, &image.manifest)?;
    let crate::image::layout::Document::Manifest(parts) = crate::image::layout::document(&manifest, Some(&image.manifest.media_type))? else {
        return Err(Error::new(Kind::Bug, "the manifest of an image is an index"));
    };
    // What another repository of the same registry has, as far as we know, need not be sent: it is mounted from there.
    let others = store.images()?;
    let origin = |what: &Descriptor| {
        let have = std::iter::once(image).chain(&others).filter(|i| i.id == what.digest || i.layers.iter().any(|l| l.blob.digest == what.digest));
        let mut places = have.flat_map(|i| &i.names).filter_map(|name| conf.target(name).ok());
        places.find(|place| place.host == target.host && place.repository != target.repository).map(|place| place.repository)
    };
    let mut blobs: Vec<(&Descriptor, Option<String>)> = Vec::new();
    for what in parts.layers.iter().chain([&parts.config]) {
        if !blobs.iter().any(|(had, _)| had.digest == what.digest) {
            blobs.push((what, origin(what)));
        }
    }
    let mut scope = format!("repository:{}:pull,push", target.repository);
    for other in blobs.iter().filter_map(|(_, origin)| origin.as_deref()).collect::<BTreeSet<_>>() {
        scope += &format!(" repository:{other}:pull");
    }
    for (what, origin) in &blobs {
        send(store, image, what, &wire, origin.as_deref(), &scope, progress).map_err(|e| e.context(format!("pushing {to}")))?;
    }

    let (body, length) = (|| Ok(Some(whole(&manifest))), manifest.len());
    let mut ask = Ask::new(Method::PUT, remote.url(&format!("manifests/{tag}"))?, &scope).header(header::CONTENT_TYPE, &image.manifest.media_type);
    ask.body = &body;
    let answer = wire.send(&ask)?;
    if !answer.status().is_success() {
        return Err(wire.refusal(&to.to_string(), answer));
    }
    let claimed = answer.headers().get("docker-content-digest").and_then(|v| v.to_str().ok()).filter(|c| c.starts_with("sha256:"));
    if claimed.is_some_and(|c| c != image.manifest.digest.as_str()) {
        return Err(remote.error(format!("of the {length} bytes of the manifest it made another digest than {}", image.manifest.digest)));
    }
    Ok(image.manifest.digest.clone())
}

fn whole(bytes: &[u8]) -> Outgoing {
    Outgoing { left: bytes.len() as u64, reader: Box::new(std::io::Cursor::new(bytes.to_vec())), sent: Arc::default() }
}

fn send(store: &Store, image: &Image, what: &Descriptor, wire: &Wire, origin: Option<&str>, scope: &str, progress: &Progress) -> Result<()> {
    let short = &what.digest.hex()[..12];
    let there = wire.send(&Ask::new(Method::HEAD, wire.remote.url(&format!("blobs/{}", what.digest))?, scope))?;
    match there.status() {
        // A blob of another size is another one, whatever its name.
        StatusCode::OK if there.headers().get(header::CONTENT_LENGTH).is_none_or(|n| n.as_bytes() == what.size.to_string().as_bytes()) => {
            progress.note(&format!("{short}: already there"));
            return Ok(());
        }
        StatusCode::OK | StatusCode::NOT_FOUND | StatusCode::ACCEPTED => {}
        _ => return Err(wire.refusal(&format!("blob {short}"), there)),
    }
    let mut begin = wire.remote.url("blobs/uploads/")?;
    if let Some(other) = origin {
        begin.query_pairs_mut().append_pair("mount", what.digest.as_str()).append_pair("from", other);
    }
    let mut meter = progress.begin(short, what.size);
    let body = || Ok(Some(Outgoing { reader: Box::new(meter.watch(store.read_blob(image, what)?)), left: what.size, sent: Arc::default() }));
    let sent = wire.upload(&begin, &what.digest, &body, scope)?;
    if sent {
        meter.done();
    } else {
        progress.note(&format!("{short}: taken from another repository"));
    }
    Ok(())
}
