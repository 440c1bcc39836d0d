//! Names with a grammar: each is parsed once, and printed the same way everywhere.
//!
//! Called by everybody; does no I/O.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a sandbox: a letter or digit, then letters, digits, `_`, `.`, `-`; at most 63 bytes, so that it is also a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let ok = (1..=63).contains(&s.len())
            && s.as_bytes()[0].is_ascii_alphanumeric()
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if ok {
            Ok(Name(s.to_string()))
        } else {
            Err(Error::usage(format!("bad name '{s}': a letter or digit, then letters, digits, '_', '.', '-', at most 63")))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(n: Name) -> String {
        n.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a sandbox is called by itself: 64 lower-case hexadecimal digits, made by chance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    pub fn new(chance: &[u8; 32]) -> Id {
        Id(chance.iter().fold(String::new(), |text, b| text + &format!("{b:02x}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Id {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        let ok = s.len() == 64 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ok { Ok(Id(s)) } else { Err(Error::usage(format!("bad ID '{s}': 64 hexadecimal digits"))) }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A size as Docker spells it: a number, then nothing or `b`, `k`, `m`, `g`, `t` (binary units, also `kb`, `kib`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad size '{s}': a whole number with an optional unit b, k, m, g or t"));
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let shift = match s[digits..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = s[..digits].parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).filter(|n| *n <= i64::MAX as u64).map(Bytes).ok_or_else(bad)
    }
}

impl TryFrom<String> for Bytes {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Bytes> for String {
    fn from(b: Bytes) -> String {
        b.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// The digest of some content, as `sha256:` and 64 lower-case hexadecimal digits. oci: descriptor.md#digests
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of a finished hash.
    pub fn sha256(hash: &[u8; 32]) -> Digest {
        Digest(hash.iter().fold("sha256:".to_string(), |text, b| text + &format!("{b:02x}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits alone: a file's name. cve: 2024-3727 (they are checked before they become one)
    pub fn hex(&self) -> &str {
        &self.0[7..]
    }
}

impl FromStr for Digest {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let hex = s.strip_prefix("sha256:").unwrap_or_default();
        let ok = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if ok { Ok(Digest(s.to_string())) } else { Err(Error::usage(format!("bad digest '{s}': sha256: and 64 lower-case hexadecimal digits"))) }
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an image: `registry/repository[:tag][@digest]`. Without a registry, docker.io, as Docker reads it.
/// docker: distribution/reference, reference.go
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageName {
    /// `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// None only beside a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a name without a registry also stands for on this machine: what was loaded or committed as `localhost/` and it.
    pub fn local(text: &str) -> Option<ImageName> {
        let name: ImageName = text.parse().ok()?;
        let whole = ["docker.io/", "index.docker.io/"].iter().any(|registry| text.starts_with(registry));
        (name.registry == "docker.io" && !whole).then(|| format!("localhost/{text}").parse().ok())?
    }
}

impl FromStr for ImageName {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = |why: &str| Error::usage(format!("bad image name '{s}': {why}"));
        let (rest, digest) = match s.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (s, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let tag_ok = |t: &str| {
            (1..=128).contains(&t.len()) && !t.starts_with(['.', '-']) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        if tag.is_some_and(|t| !tag_ok(t)) {
            return Err(bad("a tag is letters, digits, '_', '.' and '-', at most 128"));
        }
        let (registry, repository) = match path.split_once('/') {
            // The first part is a registry if it cannot be a part of a repository's name.
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) => {
                (first, rest.to_string())
            }
            Some(_) => ("docker.io", path.to_string()),
            None => ("docker.io", format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let repository = if registry == "docker.io" && !repository.contains('/') { format!("library/{repository}") } else { repository };
        let (host, port) = registry.split_once(':').map_or((registry, None), |(h, p)| (h, Some(p)));
        let host_ok = !host.is_empty()
            && host.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !label.starts_with('-') && !label.ends_with('-')
            });
        let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
        if !host_ok || !port_ok {
            return Err(bad("a registry is a host name, and a port"));
        }
        // Lower-case words, joined by one '.', one or two '_', or any number of '-'.
        let part_ok = |part: &str| {
            let words: Vec<&str> = part.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).collect();
            let ends = words.first().is_some_and(|w| !w.is_empty()) && words.last().is_some_and(|w| !w.is_empty());
            let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|s| !s.is_empty());
            ends && separators.clone().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
        };
        if !repository.split('/').all(part_ok) {
            return Err(bad("a repository is lower-case letters and digits, joined by '.', '_', '__', '-' or '/'"));
        }
        if repository.len() > 255 {
            return Err(bad("it is longer than 255"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_string()),
            (tag, _) => tag.map(str::to_string),
        };
        Ok(ImageName { registry: registry.to_string(), repository, tag, digest })
    }
}

impl TryFrom<String> for ImageName {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<ImageName> for String {
    fn from(n: ImageName) -> String {
        n.to_string()
    }
}

/// Whole, with the registry.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-1", "9.x_y"] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("64m", 64 << 20), ("1GiB", 1 << 30), ("7b", 7), ("2T", 2 << 40)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes);
        }
        for bad in ["", "m", "-1", "1.5g", "1e30", "9999999999t", "1 m", "0x10"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        assert_eq!(Bytes(64 << 20).to_string(), "64m");
    }

    #[test]
    fn image_names() {
        for (text, whole) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("a/b", "docker.io/a/b:latest"),
            ("index.docker.io/x", "docker.io/library/x:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b__c:v1.2-3", "localhost:5000/a/b__c:v1.2-3"),
            ("UPPER/x", "UPPER/x:latest"),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(name.to_string(), whole);
            assert_eq!(whole.parse::<ImageName>().unwrap(), name);
        }
        let pinned = format!("a@sha256:{}", "0".repeat(64)).parse::<ImageName>().unwrap();
        assert_eq!((pinned.tag(), pinned.digest().map(Digest::hex)), (None, Some("0".repeat(64).as_str())));
        for bad in
            ["", "A", "a//b", "/a", "a/", "a:", "a:b:c", "a b", "a___b", "a..b", "-a", "x.y:99999/a", "a@sha256:00", "../a", "a/../b", "a\n", "x:/a"]
        {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cve_2024_3727_digests_are_checked() {
        let good = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "a1".repeat(32));
        let short = format!("sha256:{}", "a".repeat(63));
        let upper = format!("sha256:{}", "A".repeat(64));
        let other = format!("sha512:{}", "a".repeat(64));
        for bad in ["", "sha256:", "sha256:../../x", &short, &upper, &other] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
