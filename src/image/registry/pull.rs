//! An image comes from a registry into the store.
//!
//! Called by `cli` and `ensure`. What is in the store already is not asked for; many who pull the same at once fetch each blob once,
//! since the store lets only one of them read.

use super::conf::{Endpoint, Registries};
use super::progress::Metered;
use super::wire::{Blame, MANIFEST_LIMIT, Remote, Wire, shown};
use super::{Options, Progress, accepted};
use crate::error::{Error, Kind, Result};
use crate::ident::ImageName;
use crate::image::layout::{self, Platform};
use crate::image::store::Store;
use crate::image::{Descriptor, Image};
use oci_spec::image::ImageConfiguration;
use reqwest::header::{self, HeaderMap};
use std::io::Read;
use std::sync::{Arc, PoisonError};

/// From the first place that has it: the mirrors, then the registry itself.
pub fn pull(store: &Store, name: &ImageName, options: &Options, progress: &Progress) -> Result<Image> {
    progress.note(&format!("pulling {name}"));
    let sources = Registries::load(&options.home)?.sources(name)?;
    let mut last = None;
    for (number, source) in sources.iter().enumerate() {
        match from(store, name, source, options, progress) {
            Ok(image) => return Ok(image),
            Err(e) => {
                if number + 1 < sources.len() {
                    progress.note(&format!("the mirror {} does not help: {}", source.host, e.message()));
                }
                last = Some(e);
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Kind::Bug, "a name without a source")))
}

fn from(store: &Store, name: &ImageName, source: &Endpoint, options: &Options, progress: &Progress) -> Result<Image> {
    let remote = Remote::new(source, options, None)?;
    let wire = Wire::new(&remote)?;
    let scope = format!("repository:{}:pull", source.repository);
    let fetch =
        |reference: &str| wire.document(&name.to_string(), remote.url(&format!("manifests/{reference}"))?, &accepted(), &scope, MANIFEST_LIMIT);

    let reference = name.digest().map(|d| d.as_str()).or(name.tag()).unwrap_or("latest");
    let (headers, bytes) = fetch(reference)?;
    check(&remote, name, &headers, &bytes)?;
    let said = said(&headers);
    let (bytes, manifest) = layout::resolve(bytes, said.as_deref(), &options.platform.clone().unwrap_or_default(), |entry| {
        let (_, bytes) = fetch(entry.digest.as_str())?;
        layout::verify(entry, &bytes)?;
        Ok(bytes)
    })
    .map_err(|e| e.context(format!("pulling {name} from {}", source.host)))?;

    // Nothing new.
    let digest = layout::digest(&bytes);
    if let Some(image) = store.find(&name.to_string())?
        && image.manifest.digest == digest
        && image.layers.iter().all(|l| image.store != store.path() || store.has_layer(&l.chain_id))
    {
        fits(name, &image.config, options)?;
        image.layers.iter().try_for_each(|l| store.accept(l))?;
        return Ok(image);
    }

    let blame = Blame::default();
    let blob = |what: &Descriptor| Ok::<_, Error>(Wire::new(&remote)?.blob(remote.url(&format!("blobs/{}", what.digest))?, &scope, what, &blame));
    let ours = |e: Error| blame.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(e).context(format!("pulling {name}"));
    let config = &manifest.config;
    store.put_blob(&mut blob(config)?, Some(config)).map_err(ours)?;
    let mut text = Vec::new();
    store.open_blob(&config.digest)?.take(layout::LONGEST + 1).read_to_end(&mut text).map_err(|e| remote.error(crate::error::why(&e)))?;
    layout::verify(config, &text)?;
    let (says, diff_ids) = layout::config(&text)?;
    fits(name, &says, options)?;
    let layers = layout::layers(&manifest, &diff_ids)?;
    for layer in layers.iter().filter(|l| store.has_layer(&l.chain_id)) {
        progress.note(&format!("{}: already here", &layer.blob.digest.hex()[..12]));
    }
    let source = |n: usize| {
        let what = &layers[n].blob;
        let meter = progress.begin(&what.digest.hex()[..12], what.size);
        Ok(Box::new(Metered { reader: blob(what)?, meter }) as Box<dyn Read>)
    };
    store.add_layers(&layers, &source).map_err(ours)?;
    store.add_image(&bytes, Some(name))
}

/// An image of one platform is what it is, and may be another than was asked for.
fn fits(name: &ImageName, says: &ImageConfiguration, options: &Options) -> Result<()> {
    let has = Platform::of(says);
    match &options.platform {
        Some(wanted) if !wanted.fits(&has) => {
            Err(Error::new(Kind::Unsupported, format!("cannot pull {name}: it is for {has} only, and wanted is {wanted}")))
        }
        _ => Ok(()),
    }
}

/// Is it what was asked for? cve: 2024-3727
fn check(remote: &Arc<Remote>, name: &ImageName, headers: &HeaderMap, bytes: &[u8]) -> Result<()> {
    let found = layout::digest(bytes);
    if let Some(wanted) = name.digest().filter(|d| **d != found) {
        return Err(remote.error(format!("for {wanted} it sends something with the digest {found}")));
    }
    // Another algorithm than ours is nothing that we could check.
    let claimed = headers.get("docker-content-digest").and_then(|v| v.to_str().ok()).filter(|c| c.starts_with("sha256:"));
    match claimed {
        Some(claimed) if claimed != found.as_str() => {
            Err(remote.error(format!("it says that the manifest has the digest {}, and it has {found}", shown(claimed))))
        }
        _ => Ok(()),
    }
}

/// The media type by which the registry calls a manifest; what is no more than "some JSON" says nothing.
fn said(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or(text).trim();
    (!matches!(kind, "" | "application/json" | "text/plain" | "application/octet-stream")).then(|| shown(kind))
}
