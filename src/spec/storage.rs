//! The root and the mounts on it, and the grammars of `-v`, `--mount`, `--tmpfs`, `--rootfs` and `--device`. No I/O.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::ident::{Bytes, Digest};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// What `/` is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// The host's own tree, copy-on-write.
    Host,
    /// A directory.
    Dir { path: PathBuf, mode: RootMode },
    /// An image.
    Image(ImageRoot),
}

/// An image below a writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageRoot {
    pub id: Digest,
    /// The directories of its layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// The directory with `upper` and `work`, if what is written is to stay; None: it is thrown away.
    pub writable: Option<PathBuf>,
    /// Directories that the image wants outside the writable layer: thrown away in any case.
    pub volumes: Vec<PathBuf>,
}

impl ImageRoot {
    /// What holds a path, the highest first: the writable layer, if it is on disk, then the image's.
    pub fn from_the_top(&self) -> Vec<PathBuf> {
        self.writable.iter().map(|dir| dir.join("upper")).chain(self.layers.iter().rev().cloned()).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootMode {
    /// Writes go to a layer that is thrown away.
    Cow,
    /// Writes go to the directory.
    ReadWrite,
}

/// `DIR`, `DIR:O` (copy-on-write, the default) or `DIR:rw`.
pub fn rootfs(s: &str) -> Result<Root> {
    let (path, mode) = match s.rsplit_once(':') {
        Some((p, "O")) => (p, RootMode::Cow),
        Some((p, "rw")) => (p, RootMode::ReadWrite),
        _ => (s, RootMode::Cow),
    };
    if path.is_empty() {
        return Err(Error::usage("bad --rootfs: DIR, DIR:O or DIR:rw"));
    }
    Ok(Root::Dir { path: PathBuf::from(path), mode })
}

/// Whose overlay lies over the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The kernel's where it can, else ours
    #[default]
    Auto,
    /// The kernel's own
    Kernel,
    /// Ours, served over FUSE
    Fuse,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mount {
    pub source: Source,
    /// Absolute, without `.` and `..`.
    pub target: PathBuf,
    pub read_only: bool,
    pub no_exec: bool,
}

/// Where the layer over a directory is that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The same path inside and outside.
    pub at: PathBuf,
    /// `layers-named/NAME` of a store.
    pub layer: PathBuf,
}

impl Kept {
    pub fn store(&self) -> PathBuf {
        self.layer.ancestors().nth(2).unwrap_or(&self.layer).to_path_buf()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A host path, with its submounts.
    Bind(PathBuf),
    /// A host directory below a layer that is thrown away.
    Cow(PathBuf),
    Tmpfs {
        size: Option<Bytes>,
        mode: u32,
    },
}

/// A path inside: absolute, and with nothing in it that a later step would have to resolve.
pub fn inside(s: &str) -> Result<PathBuf> {
    let path = Path::new(s);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain || s.contains('\0') || s.len() > 4095 {
        return Err(Error::usage(format!("bad path '{s}': an absolute path without '..'")));
    }
    Ok(path.components().collect())
}

impl Mount {
    pub fn bind(path: PathBuf, read_only: bool) -> Mount {
        Mount { source: Source::Bind(path.clone()), target: path, read_only, no_exec: false }
    }

    /// Docker's `-v HOST:DEST[:OPTIONS]`.
    pub fn volume(s: &str) -> Result<Mount> {
        let bad = |why: &str| Error::usage(format!("bad volume '{s}': {why}")).hint("HOST:DEST[:ro|rw|O|noexec], both absolute paths");
        let mut parts = s.splitn(3, ':');
        let (host, dest) = (parts.next().unwrap_or(""), parts.next().ok_or_else(|| bad("no destination"))?);
        if !host.starts_with('/') && !host.starts_with('~') && !host.starts_with('.') {
            return Err(bad("a volume is a path of the host, which begins with '/', './' or '~'"));
        }
        let mut mount = Mount { source: Source::Bind(PathBuf::from(host)), target: inside(dest)?, read_only: false, no_exec: false };
        for option in parts.next().into_iter().flat_map(|o| o.split(',')) {
            match option {
                "ro" => mount.read_only = true,
                "rw" => mount.read_only = false,
                "O" => mount.source = Source::Cow(PathBuf::from(host)),
                "noexec" => mount.no_exec = true,
                "exec" => mount.no_exec = false,
                // Always so here.
                "nosuid" | "nodev" | "rbind" | "private" | "rprivate" => {}
                _ => return Err(bad(&format!("unknown option '{option}'"))),
            }
        }
        Ok(mount)
    }

    /// Docker's `--mount type=bind|tmpfs,source=..,target=..,readonly`.
    pub fn keys(s: &str) -> Result<Mount> {
        let bad = |why: String| Error::usage(format!("bad mount '{s}': {why}"));
        let (mut kind, mut source, mut target, mut read_only, mut no_exec) = ("bind", None, None, false, false);
        let (mut size, mut mode, mut cow) = (None, 0o1777, false);
        let flag = |v: Option<&str>| match v {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(v) => Err(bad(format!("'{v}' is neither true nor false"))),
        };
        for field in s.split(',') {
            let (key, value) = match field.split_once('=') {
                Some((k, v)) => (k, Some(v)),
                None => (field, None),
            };
            let need = || value.filter(|v| !v.is_empty()).ok_or_else(|| bad(format!("'{key}' needs a value")));
            match key {
                "type" => kind = need()?,
                "source" | "src" => source = Some(PathBuf::from(need()?)),
                "target" | "destination" | "dst" => target = Some(inside(need()?)?),
                "readonly" | "ro" => read_only = flag(value)?,
                "rw" => read_only = !flag(value)?,
                "noexec" => no_exec = flag(value)?,
                "cow" | "O" => cow = flag(value)?,
                "tmpfs-size" => size = Some(need()?.parse()?),
                "tmpfs-mode" => mode = file_mode(need()?)?,
                "bind-propagation" if matches!(value, Some("private" | "rprivate")) => {}
                "bind-propagation" => return Err(bad("only private propagation is possible".into())),
                _ => return Err(bad(format!("unknown key '{key}'"))),
            }
        }
        let target = target.ok_or_else(|| bad("no target".into()))?;
        let source = match (kind, source) {
            ("bind", Some(s)) if cow => Source::Cow(s),
            ("bind", Some(s)) if size.is_none() => Source::Bind(s),
            ("bind", None) => return Err(bad("no source".into())),
            ("tmpfs", None) if !cow => Source::Tmpfs { size, mode },
            ("bind" | "tmpfs", _) => return Err(bad(format!("a key does not go with type={kind}"))),
            _ => return Err(bad(format!("unknown type '{kind}': bind or tmpfs"))),
        };
        Ok(Mount { source, target, read_only, no_exec })
    }

    /// Docker's `--tmpfs DEST[:size=SIZE,mode=MODE,ro,noexec]`.
    pub fn tmpfs(s: &str) -> Result<Mount> {
        let (dest, options) = s.split_once(':').unwrap_or((s, ""));
        let (mut size, mut mode, mut read_only, mut no_exec) = (None, 0o1777, false, false);
        for option in options.split(',').filter(|o| !o.is_empty()) {
            match option.split_once('=') {
                Some(("size", v)) => size = Some(v.parse()?),
                Some(("mode", v)) => mode = file_mode(v)?,
                None if option == "ro" => read_only = true,
                None if option == "noexec" => no_exec = true,
                None if matches!(option, "rw" | "nosuid" | "nodev" | "exec") => {}
                _ => return Err(Error::usage(format!("bad tmpfs '{s}': unknown option '{option}'"))),
            }
        }
        Ok(Mount { source: Source::Tmpfs { size, mode }, target: inside(dest)?, read_only, no_exec })
    }
}

fn file_mode(s: &str) -> Result<u32> {
    u32::from_str_radix(s, 8)
        .ok()
        .filter(|m| *m <= 0o1777 && s.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| Error::usage(format!("bad mode '{s}': octal, from 0 to 1777")))
}

/// Docker's `--device HOST[:DEST][:rwm]`. Fewer letters are refused: there is no device cgroup that would enforce them.
pub fn device(s: &str) -> Result<(PathBuf, PathBuf)> {
    let bad = |why: &str| Error::usage(format!("bad device '{s}': {why}")).hint("HOST[:DEST[:rwm]], DEST below /dev");
    let mut parts = s.split(':');
    let host = inside(parts.next().unwrap_or(""))?;
    let (mut dest, mut letters) = (None, None);
    for part in parts {
        match part {
            _ if part.starts_with('/') && dest.is_none() && letters.is_none() => dest = Some(inside(part)?),
            _ if !part.is_empty() && part.bytes().all(|b| b"rwm".contains(&b)) && letters.is_none() => letters = Some(part),
            _ => return Err(bad("what stands after the host's path is neither a path nor rwm")),
        }
    }
    if letters.is_some_and(|l| !l.contains('r') || !l.contains('w')) {
        return Err(bad("an ordinary user can give a device with rw only; its own mode says who may do what"));
    }
    let dest = dest.unwrap_or_else(|| host.clone());
    if dest.starts_with("/dev") { Ok((host, dest)) } else { Err(bad("its place inside is not below /dev")) }
}

impl FromStr for Mount {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Mount::volume(s)
    }
}

impl TryFrom<String> for Mount {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        if s.starts_with("type=") { Mount::keys(&s) } else { Mount::volume(&s) }
    }
}

impl From<Mount> for String {
    fn from(m: Mount) -> String {
        let source = match &m.source {
            Source::Bind(p) | Source::Cow(p) => p.display(),
            Source::Tmpfs { size, mode } => {
                let size = size.map(|s| format!(",tmpfs-size={s}")).unwrap_or_default();
                let [ro, noexec] = [(m.read_only, ",readonly"), (m.no_exec, ",noexec")].map(|(is, word)| if is { word } else { "" });
                return format!("type=tmpfs,target={}{size},tmpfs-mode={mode:o}{ro}{noexec}", m.target.display());
            }
        };
        let cow = if matches!(m.source, Source::Cow(_)) { ",O" } else { "" };
        let noexec = if m.no_exec { ",noexec" } else { "" };
        format!("{source}:{}:{}{cow}{noexec}", m.target.display(), if m.read_only { "ro" } else { "rw" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let v = Mount::volume("/a:/b:ro,noexec").unwrap();
        assert_eq!(v, Mount { source: Source::Bind("/a".into()), target: "/b".into(), read_only: true, no_exec: true });
        assert_eq!(Mount::volume("/a:/b:O").unwrap().source, Source::Cow("/a".into()));
        assert_eq!(String::from(v), "/a:/b:ro,noexec");
        for bad in ["", "/a", "a:/b", "/a:b", "/a:/b:zz", "/a:/../b", "/a:/b:ro:rw", ":/b"] {
            assert!(Mount::volume(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cve_2024_9407_mount_options_are_enumerated() {
        let m = Mount::keys("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap();
        assert_eq!(m.source, Source::Tmpfs { size: Some(Bytes(1 << 20)), mode: 0o700 });
        for bad in [
            "",
            "type=bind",
            "type=bind,src=/a",
            "type=nfs,src=/a,dst=/b",
            "type=bind,src=/a,dst=/b,bind-propagation=shared",
            "type=bind,src=/a,dst=/b,suid",
            "type=tmpfs,src=/a,dst=/b",
            "type=bind,src=/a,dst=/b,ro=maybe",
            "type=bind,src=/a,dst=b",
        ] {
            assert!(Mount::keys(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn devices_and_roots() {
        assert_eq!(device("/dev/kvm").unwrap().1, Path::new("/dev/kvm"));
        assert_eq!(device("/dev/kvm:/dev/x:rw").unwrap().1, Path::new("/dev/x"));
        for bad in ["", "dev/kvm", "/dev/kvm:/etc/x", "/dev/kvm:/dev/x:z", "/dev/kvm:r", "/dev/../etc/shadow"] {
            assert!(device(bad).is_err(), "{bad:?}");
        }
        assert_eq!(rootfs("/a:rw").unwrap(), Root::Dir { path: "/a".into(), mode: RootMode::ReadWrite });
        assert_eq!(rootfs("/a:b").unwrap(), Root::Dir { path: "/a:b".into(), mode: RootMode::Cow });
    }
}
