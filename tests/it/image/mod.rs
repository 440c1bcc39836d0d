//! Images: the commands on them, with images that the tests make, and other tools as referees.
//!
//! What makes images is here; the files are named after what they ask.

pub mod build;
mod crash;
pub mod run;
mod hostile;
mod registry;
mod running;
mod served;
mod squash;
mod store;

use crate::support::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// `sha256:` and the digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_string(), |text, b| text + &format!("{b:02x}"))
}

/// An image of a shell and the usual tools, loaded: its name.
pub fn tiny_image(place: &Place, name: &str) -> String {
    let word = build::oci(place, name, &[build::tiny(place)], serde_json::json!({ "Cmd": ["sh"] }));
    place.sandbox(&["load", &word]).ok();
    format!("localhost/{name}")
}

/// What is in a layer: path, mode, owner, content. A path with a slash at its end is a directory.
pub type Item<'a> = (&'a str, u32, u64, &'a [u8]);

pub fn layer(items: &[Item]) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for (path, mode, owner, content) in items {
        let mut header = Header::new_ustar();
        header.set_entry_type(if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        out.append_data(&mut header, path, *content).unwrap();
    }
    out.into_inner().unwrap()
}

/// Numbers that look random: content that does not compress, the same in every run.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// An image, as `docker save` writes it.
pub fn docker_archive(names: &[&str], settings: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let quoted = |list: Vec<String>| format!("[{}]", list.iter().map(|t| format!("\"{t}\"")).collect::<Vec<_>>().join(","));
    let history: Vec<String> = (0..layers.len()).map(|n| format!(r#"{{"created":"2026-01-02T03:04:05Z","created_by":"layer {n}"}}"#)).collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","created":"2026-01-02T03:04:05Z","config":{settings},"rootfs":{{"type":"layers","diff_ids":{}}},"history":[{}]}}"#,
        quoted(layers.iter().map(|l| digest(l)).collect()),
        history.join(",")
    );
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let tags = quoted(names.iter().map(|n| n.to_string()).collect());
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":{tags},"Layers":{}}}]"#, quoted(paths.clone()));
    let mut items: Vec<Item> = paths.iter().zip(layers).map(|(p, l)| (p.as_str(), 0o644, 0, l.as_slice())).collect();
    items.push(("config.json", 0o644, 0, config.as_bytes()));
    items.push(("manifest.json", 0o644, 0, manifest.as_bytes()));
    layer(&items)
}

/// A small image with busybox in it, two layers, files of several owners.
pub fn busybox(names: &[&str]) -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").expect("busybox-static");
    let below = layer(&[
        ("bin/", 0o755, 0, b""),
        ("bin/busybox", 0o755, 0, &program),
        ("bin/sh", 0o755, 0, &program),
        ("etc/", 0o755, 0, b""),
        ("etc/passwd", 0o644, 0, b"root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/shadow", 0o640, 42, b"root:*:1::::::\n"),
        ("home/", 0o755, 0, b""),
        ("home/user/", 0o700, 1000, b""),
        ("home/user/file", 0o600, 1000, b"mine\n"),
        ("shut/", 0, 7, b""),
    ]);
    let above = layer(&[("etc/motd", 0o644, 0, b"hello\n"), ("tmp/", 0o1777, 0, b"")]);
    docker_archive(names, r#"{"Env":["PATH=/bin","A=1"],"Cmd":["/bin/sh"],"Labels":{"k":"v"}}"#, &[below, above])
}

impl Place {
    pub fn store(&self) -> PathBuf {
        self.env.get("XDG_DATA_HOME").map_or_else(|| self.path(".local/share"), PathBuf::from).join("sandbox/store")
    }

    /// A file with these bytes, and its path as text.
    pub fn archive(&self, name: &str, bytes: &[u8]) -> String {
        self.file(name, "");
        std::fs::write(self.path(name), bytes).unwrap();
        self.at(name)
    }

    /// `sandbox load` with the archive on its standard input.
    #[track_caller]
    pub fn load(&self, bytes: &[u8]) -> Output {
        let mut command = self.cli(&["load"]);
        command.stdin(std::process::Stdio::piped());
        finish(command.spawn().expect("start"), bytes)
    }

    /// Every file of the store that is not there in an empty one.
    pub fn stored(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.store()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    todo.push(entry.path());
                }
                found.push(entry.path().strip_prefix(self.store()).unwrap().display().to_string());
            }
        }
        let usual = ["format", "lock", "blobs", "blobs/sha256", "layers", "images", "names", "tmp", "layers-named"];
        found.retain(|f| !usual.contains(&f.as_str()));
        found.sort();
        found
    }
}

/// Is a program there that a test takes for its referee?
pub fn has(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"].iter().any(|dir| Path::new(dir).join(program).exists())
}
