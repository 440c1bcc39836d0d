//! Images: a store of them on disk, how they come and go, how they become directories.
//!
//! *What*: `Store` is the directory of a user's images; `layout` the documents of the OCI image format; `blob` bytes by their
//! digest; `making` what is not done yet; `unpack` a layer's tar as a directory (`stream`, `tar`, `tree`, `whiteout`, `remove`), and `diff`
//! the way back (`pack`); `archive` and `registry` where images come from and go to.
//!
//! *Why this way*: the directory is the database, as git's and the OCI layout's are. Content is named by its digest, records are
//! renamed into place, and a lock is a lock on the very thing that is being made or used, so that the kernel knows who is alive.
//! (Rejected: an index in one file or in SQLite; one writer at a time, and one file whose loss loses everything.)
//!
//! *Invariants*
//! - I1 nothing has its final name before it is whole, verified and on the disk.
//! - I2 readers take no lock; what they found and then miss was removed meanwhile.
//! - I3 removing allocates nothing: records go first, by unlink, and layers aside, by rename, so it works on a full disk.
//! - I4 no text of an image becomes a path: file names are digests that we computed or checked. cve: 2024-3727
//! - I5 no byte of an image is parsed before its length and digest are.
#![forbid(unsafe_code)]

pub mod apply;
pub mod archive;
pub mod blob;
pub mod compose;
pub mod copy;
pub mod config;
pub mod diff;
pub mod gather;
#[cfg(test)]
mod hostile;
pub mod kept;
pub mod layout;
pub mod lookup;
pub mod making;
pub mod owner;
pub mod pack;
pub mod registry;
pub mod remove;
pub mod store;
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
    /// The store that has its record and its blobs: the user's own, or a shared one. `Store::hold` makes its layers usable.
    pub store: PathBuf,
    pub manifest: Descriptor,
    /// The digest of its configuration: what `images` shows as ID, as docker does.
    pub id: Digest,
    pub config: oci_spec::image::ImageConfiguration,
    /// Lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// That name of it which `text` says: the very name, or the one in `localhost/`.
    pub fn called(&self, text: &str) -> Option<&ImageName> {
        let meant: Vec<ImageName> = text.parse().ok().into_iter().chain(ImageName::local(text)).collect();
        meant.iter().find_map(|name| self.names.iter().find(|n| *n == name))
    }

    /// The unpacked directories in the user's own store, lowest first, as the overlay takes them (in the on-disk form of `userxattr`).
    pub fn directories(&self, store: &std::path::Path) -> Vec<PathBuf> {
        self.layers.iter().map(|l| store.join("layers").join(l.chain_id.hex()).join("diff")).collect()
    }
}
