//! Images made by hand, as OCI layouts on disk: any layer, any configuration, good or bad.

use crate::support::{Place, tiny_root};
use serde_json::{Value, json};
use sha2::Digest;
use std::path::Path;
use std::process::Command;

/// A layer in the making.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Layer {
        Layer(tar::Builder::new(Vec::new()))
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, (uid, gid): (u64, u64), content: &[u8], link: &str) -> Layer {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        // As they stand: the crate refuses names that we want to see refused elsewhere.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &str) -> Layer {
        self.entry(path, tar::EntryType::Regular, 0o644, (0, 0), content.as_bytes(), "")
    }

    pub fn dir(self, path: &str, mode: u32, owner: (u64, u64)) -> Layer {
        self.entry(path, tar::EntryType::Directory, mode, owner, b"", "")
    }

    pub fn link(self, path: &str, target: &str) -> Layer {
        self.entry(path, tar::EntryType::Symlink, 0o777, (0, 0), b"", target)
    }

    pub fn fifo(self, path: &str) -> Layer {
        self.entry(path, tar::EntryType::Fifo, 0o644, (0, 0), b"", "")
    }

    pub fn whiteout(self, path: &str) -> Layer {
        self.file(path, "")
    }

    pub fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// The tree of `tiny_root` as a layer.
pub fn tiny(place: &Place) -> Vec<u8> {
    let dir = tiny_root(place, "tiny-tree");
    let tar = Command::new("tar").args(["-c", "--owner=0", "--group=0", "--sort=name", "-C"]).arg(&dir).arg(".").output().expect("tar");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    std::fs::remove_dir_all(dir).unwrap();
    tar.stdout
}

/// An OCI layout: the word for `sandbox run`.
pub fn oci(place: &Place, name: &str, layers: &[Vec<u8>], config: Value) -> String {
    let history: Vec<Value> = layers.iter().map(|_| json!({ "created_by": "test" })).collect();
    document(
        place,
        name,
        layers,
        json!({ "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux", "config": config, "history": history }),
    )
}

/// The same with all of the configuration document but `rootfs`.
pub fn document(place: &Place, name: &str, layers: &[Vec<u8>], mut config: Value) -> String {
    let dir = place.dir(&format!("{name}/blobs/sha256"));
    let blob = |kind: &str, bytes: &[u8]| {
        let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(dir.join(&hex), bytes).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hex}"), "size": bytes.len() })
    };
    let layers: Vec<Value> = layers.iter().map(|l| blob("layer.v1.tar", l)).collect();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": layers.iter().map(|l| l["digest"].clone()).collect::<Vec<_>>() });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("localhost/{name}:latest") });
    let top = Path::new(&place.at(name)).to_path_buf();
    std::fs::write(top.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(top.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
    format!("oci:{}", place.at(name))
}
