//! Images: a store of them on disk, how they come and go, how they become directories.
//!
//! *What*: `Store` is the directory of a user's images; `layout` the documents of the OCI image format; `blob` bytes by their
//! digest; `unpack` a layer's tar as a directory (`stream`, `tar`, `tree`, `whiteout`, `remove`), and `diff` the way back (`pack`); `archive` and `registry` where images come from and go to.
#![forbid(unsafe_code)]

pub mod diff;
#[cfg(test)]
mod hostile;
pub mod pack;
pub mod remove;
pub mod stream;
pub mod tar;
pub mod tree;
pub mod unpack;
pub mod whiteout;

use crate::ident::{Digest, ImageName};
use std::path::PathBuf;

/// A piece of content: its digest, size and media type. oci: descriptor.md
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The blob, as it is transported: compressed or not.
    pub blob: Descriptor,
    /// The digest of the tar itself. oci: config.md#layer-diffid
    pub diff_id: Digest,
    /// The digest of this and all layers below: names the unpacked directory. oci: config.md#layer-chainid
    pub chain_id: Digest,
}

/// An image that is in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Every name that it has; none: dangling.
    pub names: Vec<ImageName>,
    pub manifest: Descriptor,
    /// The digest of its configuration: what `images` shows as ID, as docker does.
    pub id: Digest,
    pub config: oci_spec::image::ImageConfiguration,
    /// Lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// The unpacked directories, lowest first, as the overlay takes them (in the on-disk form of `userxattr`).
    pub fn directories(&self, store: &std::path::Path) -> Vec<PathBuf> {
        self.layers.iter().map(|l| store.join("layers").join(l.chain_id.hex()).join("diff")).collect()
    }
}
