//! Layers that somebody made on purpose: each is refused, or becomes exactly what the image format says, and nothing beside it changes.
//!
//! The cases drive `stream`, `tar` and `tree` as the helper does, but in this process, without a namespace or Landlock to hide behind.

use super::tar::Reader;
use super::tree::Ids;
use super::{remove, stream, unpack, whiteout};
use crate::error::Error;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

// -------------------------------------------------------------------------------------------------------------- builder

/// A tar under construction: whatever is asked for, right or wrong.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

fn header(name: &[u8], kind: u8, size: u64) -> [u8; 512] {
    let mut h = [0; 512];
    let n = name.len().min(100);
    h[..n].copy_from_slice(&name[..n]);
    h[100..108].copy_from_slice(if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    h[108..116].copy_from_slice(b"0000000\0");
    h[116..124].copy_from_slice(b"0000000\0");
    h[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    h[136..148].copy_from_slice(b"14524764340\0");
    h[156] = kind;
    h[257..265].copy_from_slice(b"ustar\x0000");
    h
}

fn seal(h: &mut [u8; 512]) {
    h[148..156].fill(b' ');
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn tar() -> Tar {
    Tar::default()
}

impl Tar {
    fn raw(mut self, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    fn content(self, content: &[u8]) -> Tar {
        let padding = content.len().next_multiple_of(512) - content.len();
        self.raw(content).raw(&vec![0; padding])
    }

    /// An entry whose header is changed before its checksum is made.
    fn edited(self, name: &str, kind: u8, content: &[u8], edit: impl Fn(&mut [u8; 512])) -> Tar {
        let mut h = header(name.as_bytes(), kind, content.len() as u64);
        edit(&mut h);
        seal(&mut h);
        self.raw(&h).content(content)
    }

    fn file(self, name: &str, content: &str) -> Tar {
        self.edited(name, b'0', content.as_bytes(), |_| {})
    }

    fn dir(self, name: &str) -> Tar {
        self.edited(name, b'5', b"", |_| {})
    }

    fn kind(self, name: &str, kind: u8) -> Tar {
        self.edited(name, kind, b"", |_| {})
    }

    fn to(self, kind: u8, name: &str, target: &str) -> Tar {
        self.edited(name, kind, b"", |h| h[157..157 + target.len().min(100)].copy_from_slice(&target.as_bytes()[..target.len().min(100)]))
    }

    fn symlink(self, name: &str, target: &str) -> Tar {
        self.to(b'2', name, target)
    }

    fn link(self, name: &str, target: &str) -> Tar {
        self.to(b'1', name, target)
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut content = Vec::new();
        for (key, value) in records {
            content.extend(pax_record(key, value));
        }
        self.edited("pax", b'x', &content, |_| {})
    }

    fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..9).map(|digits| rest + digits).find(|l| l.to_string().len() + rest == *l).unwrap();
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn gnu(h: &mut [u8; 512]) {
    h[257..265].copy_from_slice(b"ustar  \0");
}

fn octal(h: &mut [u8; 512], at: usize, length: usize, value: u64) {
    h[at..at + length].copy_from_slice(format!("{value:0width$o}\0", width = length - 1).as_bytes());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    e.write_all(bytes).unwrap();
    e.finish().unwrap()
}

// --------------------------------------------------------------------------------------------------------------- runner

enum Expect {
    /// Refused, with these words.
    No(&'static str),
    /// These paths are this, and there is nothing else.
    Yes(Vec<(&'static str, &'static str)>),
}
use Expect::No;

fn yes(paths: &[(&'static str, &'static str)]) -> Expect {
    Expect::Yes(paths.to_vec())
}

type Case = (&'static str, Vec<u8>, Expect);

struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let name = format!("sandbox-hostile-{}-{:?}", std::process::id(), std::thread::current().id());
        let dir = std::env::temp_dir().join(name.replace(['(', ')'], "-"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("canary/dir")).unwrap();
        std::fs::write(dir.join("canary/secret"), "CANARY").unwrap();
        std::fs::set_permissions(dir.join("canary/secret"), std::fs::Permissions::from_mode(0o640)).unwrap();
        Place(dir)
    }

    fn canary(&self) -> String {
        let mut text = String::new();
        for path in [".", "canary", "canary/dir", "canary/secret"] {
            let m = std::fs::symlink_metadata(self.0.join(path)).unwrap();
            let mtime = if path == "." { 0 } else { m.mtime_nsec() };
            writeln!(text, "{path} {} {:o} {} {} {mtime} {}", m.ino(), m.mode(), m.uid(), m.gid(), if m.is_dir() { 0 } else { m.nlink() }).unwrap();
        }
        text + &std::fs::read_to_string(self.0.join("canary/secret")).unwrap()
            + &names(&self.0.join("canary")).join(" ")
            + &names(&self.0).into_iter().filter(|n| n != "layer").collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every path below `dir`, and what it is.
fn listing(dir: &Path) -> BTreeMap<String, String> {
    fn walk(top: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                let opaque = whiteout::is_opaque(std::fs::File::open(&path).unwrap().as_fd()).unwrap();
                walk(top, &path, found);
                if opaque { "opaque".to_string() } else { "dir".to_string() }
            } else if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_fifo() {
                "fifo".to_string()
            } else if kind.is_char_device() {
                assert_eq!(meta.rdev(), 0, "{path:?}");
                "gone".to_string()
            } else {
                format!("={}", String::from_utf8_lossy(&std::fs::read(&path).unwrap()).chars().take(40).collect::<String>())
            };
            found.insert(path.strip_prefix(top).unwrap().display().to_string(), what);
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

fn all_ids() -> Ids {
    Ids { uids: vec![(0, 65536)], gids: vec![(0, 65536)], squash: false, beside: false }
}

fn into(dir: &Path, bytes: &[u8], most: u64, ids: Ids) -> Result<(u64, super::tree::Grown), Error> {
    std::fs::create_dir(dir).unwrap();
    let root = std::fs::File::open(dir).unwrap();
    let (stream, hashing) = stream::open(std::io::Cursor::new(bytes.to_vec()), most, super::tar::refuse("too long"))?;
    let grown = unpack::plant(stream, root.as_fd(), ids)?;
    hashing.finish()?;
    Ok(grown)
}

const MOST: u64 = 64 << 20;

fn gone(dir: &Path) {
    remove::empty(std::fs::File::open(dir).unwrap().as_fd()).unwrap();
    std::fs::remove_dir(dir).unwrap();
}

#[track_caller]
fn check(cases: Vec<Case>, place: &Place) {
    let before = place.canary();
    for (name, bytes, expect) in cases {
        let dir = place.0.join("layer");
        let start = Instant::now();
        let result = into(&dir, &bytes, MOST, all_ids());
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        match (&expect, result) {
            (Expect::No(words), Err(e)) => {
                let line = e.to_string();
                assert!(line.contains(words), "{name}: {line}");
                assert!(e.message().lines().count() == 1, "{name}: {line}");
            }
            (Expect::No(_), Ok(_)) => panic!("{name}: accepted as {:?}", listing(&dir)),
            (Expect::Yes(_), Err(e)) => panic!("{name}: {e}"),
            (Expect::Yes(paths), Ok(_)) => {
                let wanted: BTreeMap<String, String> = paths.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
                assert_eq!(listing(&dir), wanted, "{name}");
            }
        }
        gone(&dir);
        assert_eq!(place.canary(), before, "{name}");
    }
}

// ---------------------------------------------------------------------------------------------------------------- cases

/// I01: names that lead elsewhere.
fn names_of_entries(place: &Place) -> Vec<Case> {
    let out = place.0.join("canary").display().to_string();
    let secret = format!("{out}/secret");
    let long = "x".repeat(256);
    let deep = vec!["d"; 257].join("/");
    vec![
        ("dot dot", tar().file("../x", "1").end(), No("climbs")),
        ("dot dot within", tar().file("a/../x", "1").end(), No("climbs")),
        ("dot dot at the end", tar().dir("a/..").end(), No("climbs")),
        ("dot dot alone", tar().dir("..").end(), No("climbs")),
        ("dot dot behind an absolute", tar().file("/../x", "1").end(), No("climbs")),
        ("absolute", tar().file("/x", "1").end(), yes(&[("x", "=1")])),
        ("absolute to the canary", tar().file(&secret, "1").end(), Expect::Yes(vec![])).replaced_by_a_tree(&secret),
        ("double slashes", tar().file("a//b///c", "1").end(), yes(&[("a", "dir"), ("a/b", "dir"), ("a/b/c", "=1")])),
        ("dots", tar().file("./a/./b", "1").end(), yes(&[("a", "dir"), ("a/b", "=1")])),
        ("empty", tar().file("", "1").end(), No("empty name")),
        ("top as a directory", tar().dir("./").dir(".").dir("/").dir("//").dir("./.").end(), yes(&[])),
        ("top as a file", tar().file(".", "1").end(), No("top is no directory")),
        ("slash as a symlink", tar().symlink("/", "/etc").end(), No("top is no directory")),
        ("dot as a symlink", tar().symlink("./.", "/etc").end(), No("top is no directory")),
        ("double slash as a link", tar().link("//", "etc").end(), No("top is no directory")),
        ("top as a fifo", tar().kind(".", b'6').end(), No("top is no directory")),
        ("long component", tar().pax(&[("path", long.as_bytes())]).file("x", "1").end(), No("too long a component")),
        ("long path", tar().pax(&[("path", vec!["abc"; 1100].join("/").as_bytes())]).file("x", "1").end(), No("too long a name")),
        ("deep path", tar().pax(&[("path", deep.as_bytes())]).file("x", "1").end(), No("too deep")),
        ("NUL in a PAX path", tar().pax(&[("path", b"a\0b")]).file("x", "1").end(), No("PAX")),
        ("newline and escape in a name", tar().file("a\n\x1b[2J", "1").end(), yes(&[("a\n\x1b[2J", "=1")])),
        ("file with a slash at its end", tar().file("x/", "").end(), No("directory's name")),
        ("old directory", tar().kind("x/", 0).end(), yes(&[("x", "dir")])),
        ("directory with content", tar().edited("x", b'5', b"1", |_| {}).end(), No("no file")),
        ("directory without its slash", tar().dir("x").end(), yes(&[("x", "dir")])),
        ("no UTF-8", tar().edited("", b'0', b"1", |h| h[..2].copy_from_slice(&[0xff, 0xfe])).end(), yes(&[("\u{fffd}\u{fffd}", "=1")])),
    ]
}

trait Replaced {
    fn replaced_by_a_tree(self, path: &str) -> Case;
}

impl Replaced for Case {
    /// The expectation is the absolute path, all of it, inside.
    fn replaced_by_a_tree(self, path: &str) -> Case {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut list: Vec<(&'static str, &'static str)> = Vec::new();
        for n in 1..=parts.len() {
            let path: &'static str = Box::leak(parts[..n].join("/").into_boxed_str());
            list.push((path, if n == parts.len() { "=1" } else { "dir" }));
        }
        (self.0, self.1, Expect::Yes(list))
    }
}

/// I01: links on the way, in the way, and to elsewhere.
fn links(place: &Place) -> Vec<Case> {
    let out = place.0.join("canary").display().to_string();
    let secret = format!("{out}/secret");
    let up = "../".repeat(30) + &out;
    vec![
        ("write through an absolute link", tar().symlink("l", &out).file("l/secret", "1").end(), No("no directory")),
        ("write through a relative link", tar().symlink("l", &up).file("l/secret", "1").end(), No("no directory")),
        (
            "write through a link into the tree",
            tar().dir("d").symlink("l", "/d").file("l/f", "1").end(),
            yes(&[("d", "dir"), ("d/f", "=1"), ("l", "-> /d")]),
        ),
        (
            "a link that climbs stays inside",
            tar().dir("d").symlink("l", "../../d").file("l/f", "1").end(),
            yes(&[("d", "dir"), ("d/f", "=1"), ("l", "-> ../../d")]),
        ),
        ("a link to the top", tar().symlink("l", "/").file("l/f", "1").end(), yes(&[("f", "=1"), ("l", "-> /")])),
        ("file over a link", tar().symlink("l", &secret).file("l", "1").end(), yes(&[("l", "=1")])),
        ("directory over a link", tar().symlink("l", &out).dir("l").file("l/f", "1").end(), yes(&[("l", "dir"), ("l/f", "=1")])),
        (
            "link over a directory",
            tar().dir("d").file("d/f", "1").symlink("d", &out).end(),
            Expect::Yes(vec![("d", Box::leak(format!("-> {out}").into_boxed_str()))]),
        ),
        ("directory, then link, then through it", tar().dir("d").file("d/f", "1").symlink("d", &out).file("d/secret", "2").end(), No("no directory")),
        ("loop", tar().symlink("a", "b").symlink("b", "a").file("a/x", "1").end(), No("loop")),
        ("link to itself", tar().symlink("a", "a").file("a/x", "1").end(), No("loop")),
        ("dangling", tar().symlink("a", "nowhere").file("a/x", "1").end(), No("no directory")),
        ("procfs magic", tar().symlink("a", "/proc/self/root").file("a/x", "1").end(), No("no directory")),
        ("empty symlink", tar().symlink("a", "").end(), No("no possible name")),
        ("hard link to outside", tar().link("h", &secret).end(), No("not in this layer")),
        ("hard link that climbs", tar().link("h", "../canary/secret").end(), No("climbs")),
        ("hard link through a link", tar().symlink("l", &out).link("h", "l/secret").end(), No("not in this layer")),
        ("hard link to a link", tar().symlink("l", "x").link("h", "l").end(), yes(&[("h", "-> x"), ("l", "-> x")])),
        (
            "hard link to a link, written",
            tar().symlink("l", &secret).link("h", "l").file("h", "1").end(),
            Expect::Yes(vec![("h", "=1"), ("l", Box::leak(format!("-> {secret}").into_boxed_str()))]),
        ),
        ("hard link to a missing file", tar().link("h", "x").end(), No("not in this layer")),
        ("hard link to a later file", tar().link("h", "x").file("x", "1").end(), No("not in this layer")),
        ("hard link to a whiteout", tar().file(".wh.x", "").link("h", "x").end(), No("not in this layer")),
        ("hard link to a mark", tar().file(".wh.x", "").link("h", ".wh.x").end(), No("not in this layer")),
        ("hard link to a directory", tar().dir("d").link("h", "d").end(), No("to a directory")),
        ("hard link to the top", tar().link("h", "./").end(), No("no possible name")),
        ("hard link to itself", tar().file("f", "1").link("f", "f").end(), yes(&[("f", "=1")])),
        ("hard link", tar().file("f", "1").link("d/h", "/f").end(), yes(&[("d", "dir"), ("d/h", "=1"), ("f", "=1")])),
        ("hard link over its own directory", tar().file("d/f", "1").link("d", "d/f").end(), No("cannot unpack 'd'")),
        ("hard link with content", tar().file("f", "1").edited("h", b'1', b"2", |h| h[157] = b'f').end(), No("no file")),
        ("symlink with content", tar().edited("l", b'2', b"2", |h| h[157] = b'f').end(), No("no file")),
        ("fifo as a parent", tar().kind("p", b'6').file("p/x", "1").end(), No("no directory")),
        ("file as a parent", tar().file("p", "1").file("p/x", "1").end(), No("no directory")),
        ("device as a parent", tar().kind("p", b'3').file("p/x", "1").end(), yes(&[("p", "dir"), ("p/x", "=1")])),
        ("fifo", tar().kind("p", b'6').end(), yes(&[("p", "fifo")])),
        ("device over a file", tar().file("p", "1").kind("p", b'4').end(), yes(&[("p", "=1")])),
        ("file over a full directory", tar().file("d/a/b", "1").file("d", "2").end(), yes(&[("d", "=2")])),
        ("later wins", tar().file("f", "1").file("f", "2").file("./f", "3").end(), yes(&[("f", "=3")])),
        ("directory keeps its content", tar().file("d/f", "1").dir("d").end(), yes(&[("d", "dir"), ("d/f", "=1")])),
        (
            "a link changed on the way",
            tar().dir("a").dir("b").symlink("l", "a").file("l/1", "1").symlink("l", "b").file("l/2", "2").end(),
            yes(&[("a", "dir"), ("a/1", "=1"), ("b", "dir"), ("b/2", "=2"), ("l", "-> b")]),
        ),
    ]
}

/// I03
fn whiteouts(_: &Place) -> Vec<Case> {
    let opaque = b"y";
    vec![
        ("whiteout", tar().file(".wh.a", "").file("d/.wh.b", "").end(), yes(&[("a", "gone"), ("d", "dir"), ("d/b", "gone")])),
        ("opaque", tar().file("d/.wh..wh..opq", "").file("d/f", "1").end(), yes(&[("d", "opaque"), ("d/f", "=1")])),
        ("opaque after its content", tar().file("d/f", "1").file("d/.wh..wh..opq", "").end(), yes(&[("d", "opaque"), ("d/f", "=1")])),
        ("opaque, then its directory", tar().file("d/.wh..wh..opq", "").dir("d").end(), yes(&[("d", "opaque")])),
        ("opaque top", tar().file(".wh..wh..opq", "").end(), No("at the top")),
        ("whiteout of nothing", tar().file("d/.wh.", "").end(), No("whiteout of nothing")),
        ("whiteout of dot", tar().file("d/.wh..", "").end(), No("whiteout of nothing")),
        ("whiteout of dot dot", tar().file("d/.wh...", "").end(), No("whiteout of nothing")),
        ("whiteout with a slash", tar().file(".wh./etc", "").end(), No("in a whiteout")),
        ("whiteout with content", tar().file(".wh.a", "1").end(), No("with content")),
        ("whiteout as a directory", tar().dir(".wh.a").end(), No("with content")),
        ("whiteout as a link", tar().symlink(".wh.a", "x").end(), No("with content")),
        ("whiteout as a fifo", tar().kind(".wh.a", b'6').end(), No("with content")),
        ("below a whiteout", tar().file(".wh.a/b", "1").end(), No("in a whiteout")),
        ("whiteout before its name", tar().file(".wh.a", "").file("a", "1").end(), yes(&[("a", "=1")])),
        ("whiteout after its name", tar().file("a", "1").file(".wh.a", "").end(), yes(&[("a", "=1")])),
        ("whiteout before its directory", tar().file(".wh.d", "").dir("d").end(), yes(&[("d", "opaque")])),
        ("whiteout after its directory", tar().file("d/f", "1").file(".wh.d", "").end(), yes(&[("d", "opaque"), ("d/f", "=1")])),
        ("whiteout of a parent to come", tar().file(".wh.d", "").file("d/e/f", "1").end(), yes(&[("d", "opaque"), ("d/e", "dir"), ("d/e/f", "=1")])),
        ("whiteout twice", tar().file(".wh.a", "").file(".wh.a", "").end(), yes(&[("a", "gone")])),
        ("whiteout in a whiteout", tar().file(".wh.d", "").file("d/.wh.f", "").end(), yes(&[("d", "opaque"), ("d/f", "gone")])),
        ("whiteout through a link", tar().dir("d").symlink("l", "d").file("l/.wh.f", "").end(), yes(&[("d", "dir"), ("d/f", "gone"), ("l", "-> d")])),
        ("whiteout through a link to outside", tar().symlink("l", "/etc").file("l/.wh.f", "").end(), No("no directory")),
        ("whiteout of a link", tar().symlink("l", "/etc").file(".wh.l", "").end(), yes(&[("l", "-> /etc")])),
        ("AUFS", tar().file(".wh..wh.aufs", "").dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file("d/.wh..wh.x", "").end(), yes(&[])),
        ("device 0:0 in the tar", tar().kind("a", b'3').end(), yes(&[])),
        ("opaque by an attribute", tar().pax(&[("SCHILY.xattr.user.overlay.opaque", opaque)]).dir("d").end(), yes(&[("d", "dir")])),
        ("opaque by root's attribute", tar().pax(&[("SCHILY.xattr.trusted.overlay.opaque", opaque)]).dir("d").end(), yes(&[("d", "dir")])),
    ]
}

/// I04: two readers, two archives.
fn disagreements(_: &Place) -> Vec<Case> {
    let inner = tar().file("smuggled", "1").0;
    let sizes = |said: usize, pax: &str| tar().pax(&[("size", pax.as_bytes())]).edited("f", b'0', &inner[..said], |_| {}).raw(&inner).end();
    let sparse10 = |records: &[(&str, &[u8])], map: &str, content: &str| {
        let mut body = map.as_bytes().to_vec();
        body.resize(body.len().next_multiple_of(512), 0);
        body.extend(content.as_bytes());
        tar().pax(records).edited("GNUSparseFile.0/f", b'0', &body, |_| {}).end()
    };
    let one = |realsize: &'static str| -> Vec<(&'static str, &'static [u8])> {
        vec![("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"f"), ("GNU.sparse.realsize", realsize.as_bytes())]
    };
    let old = |extents: &[(u64, u64)], real: u64, content: &[u8]| {
        tar().edited("f", b'S', content, |h| {
            gnu(h);
            for (n, (offset, length)) in extents.iter().enumerate() {
                octal(h, 386 + n * 24, 12, *offset);
                octal(h, 398 + n * 24, 12, *length);
            }
            octal(h, 483, 12, real);
        })
    };
    vec![
        ("PAX size larger", sizes(0, "1024"), No("two sizes")),
        ("PAX size smaller", sizes(1024, "0"), No("two sizes")),
        ("PAX size with a sign", sizes(0, "+0"), No("bad size")),
        ("PAX size negative", sizes(0, "-1"), No("bad size")),
        ("PAX size of junk", sizes(0, "1x"), No("bad size")),
        ("PAX size too large to be", tar().pax(&[("size", b"99999999999999999999")]).file("f", "").end(), No("bad size")),
        ("PAX size huge", tar().pax(&[("size", b"9223372036854775807")]).file("f", "").end(), No("too large")),
        ("the same size twice", tar().pax(&[("size", b"1")]).file("f", "1").end(), yes(&[("f", "=1")])),
        ("duplicate PAX size", tar().pax(&[("size", b"1"), ("size", b"1")]).file("f", "1").end(), No("twice")),
        ("duplicate PAX path", tar().pax(&[("path", b"a"), ("path", b"b")]).file("f", "1").end(), No("twice")),
        ("two PAX headers", tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "1").end(), No("two PAX headers")),
        ("PAX and GNU names", tar().pax(&[("path", b"a")]).edited("l", b'L', b"b\0", gnu).file("f", "1").end(), No("both PAX and GNU")),
        ("two long names", tar().edited("l", b'L', b"a\0", gnu).edited("l", b'L', b"b\0", gnu).file("f", "1").end(), No("two long names")),
        ("long name with a NUL", tar().edited("l", b'L', b"a\0b", gnu).file("f", "1").end(), No("NUL")),
        ("long name", tar().edited("l", b'L', b"a/b\0", gnu).edited("f", b'0', b"1", gnu).end(), yes(&[("a", "dir"), ("a/b", "=1")])),
        ("empty PAX path", tar().pax(&[("path", b"")]).file("f", "1").end(), No("PAX")),
        ("global header", tar().edited("g", b'g', &pax_record("comment", b"git"), |_| {}).file("f", "1").end(), yes(&[("f", "=1")])),
        ("global path", tar().edited("g", b'g', &pax_record("path", b"x"), |_| {}).file("f", "1").end(), No("global")),
        ("PAX at the end", tar().pax(&[("path", b"a")]).end(), No("after an extension")),
        ("PAX length too long", tar().edited("p", b'x', b"99 path=a\n", |_| {}).file("f", "1").end(), No("PAX")),
        ("PAX length too short", tar().edited("p", b'x', b"3 path=a\n", |_| {}).file("f", "1").end(), No("PAX")),
        ("PAX length with a zero", tar().edited("p", b'x', b"010 path=a\n", |_| {}).file("f", "1").end(), No("PAX")),
        ("PAX without an equals sign", tar().edited("p", b'x', b"7 path\n", |_| {}).file("f", "1").end(), No("PAX")),
        ("PAX without a key", tar().edited("p", b'x', b"5 =a\n", |_| {}).file("f", "1").end(), No("PAX")),
        ("PAX of 1 MiB and a byte", tar().pax(&[("comment", &vec![b'x'; 1 << 20])]).file("f", "1").end(), No("1 MiB")),
        ("PAX that announces a GiB", tar().edited("p", b'x', b"", |h| octal(h, 124, 12, 1 << 30)).end(), No("1 MiB")),
        (
            "wrong checksum",
            {
                let mut t = tar().file("f", "1").end();
                t[0] ^= 1;
                t
            },
            No("checksum"),
        ),
        (
            "no checksum",
            {
                let mut t = tar().file("f", "1").end();
                t[148..156].fill(0);
                t
            },
            No("checksum"),
        ),
        ("size with a sign", tar().edited("f", b'0', b"1", |h| h[124..136].copy_from_slice(b"-0000000001\0")).end(), No("bad number")),
        ("size with an 8", tar().edited("f", b'0', b"1", |h| h[124..136].copy_from_slice(b"00000000008\0")).end(), No("bad number")),
        ("size with a word behind it", tar().edited("f", b'0', b"1", |h| h[124..136].copy_from_slice(b"1 2        \0")).end(), No("bad number")),
        ("size blank", tar().edited("f", b'0', b"", |h| h[124..136].fill(b' ')).end(), yes(&[("f", "=")])),
        (
            "size in base 256",
            tar()
                .edited("f", b'0', b"1", |h| {
                    h[124..136].fill(0);
                    h[124] = 0x80;
                    h[135] = 1;
                })
                .end(),
            yes(&[("f", "=1")]),
        ),
        (
            "size in base 256, too long",
            tar()
                .edited("f", b'0', b"1", |h| {
                    h[124..136].fill(0);
                    h[124] = 0x80;
                    h[126] = 1;
                    h[135] = 1;
                })
                .end(),
            No("out of range"),
        ),
        ("size in base 256, negative", tar().edited("f", b'0', b"1", |h| h[124..136].fill(0xff)).end(), No("out of range")),
        (
            "size in base 256, odd first byte",
            tar()
                .edited("f", b'0', b"1", |h| {
                    h[124..136].fill(0);
                    h[124] = 0xc0;
                    h[135] = 1;
                })
                .end(),
            No("out of range"),
        ),
        (
            "uid of -1",
            tar()
                .edited("f", b'0', b"1", |h| {
                    h[108..116].fill(0);
                    h[108] = 0x80;
                    h[112..116].fill(0xff);
                })
                .end(),
            No("impossible id"),
        ),
        ("uid beyond 32 bits", tar().pax(&[("uid", b"4294967296")]).file("f", "1").end(), No("impossible id")),
        ("time before 1970", tar().edited("f", b'0', b"1", |h| h[136..148].fill(0xff)).end(), yes(&[("f", "=1")])),
        ("time of junk", tar().pax(&[("mtime", b"1e9")]).file("f", "1").end(), No("bad time")),
        ("unknown magic", tar().edited("f", b'0', b"1", |h| h[257..265].copy_from_slice(b"ustar\x0001")).end(), No("unknown format")),
        ("star's times behind the prefix", tar().edited("f", b'0', b"1", |h| h[508..512].copy_from_slice(b"tar\0")).end(), No("unknown format")),
        (
            "GNU with a prefix",
            tar()
                .edited("f", b'0', b"1", |h| {
                    gnu(h);
                    h[345..400].fill(b'a');
                })
                .end(),
            No("header"),
        ),
        ("v7", tar().edited("f", 0, b"1", |h| h[257..265].fill(0)).end(), yes(&[("f", "=1")])),
        (
            "v7 with a prefix",
            tar()
                .edited("f", 0, b"1", |h| {
                    h[257..265].fill(0);
                    h[345] = b'a';
                })
                .end(),
            No("unknown format"),
        ),
        ("prefix", tar().edited("f", b'0', b"1", |h| h[345] = b'a').end(), yes(&[("a", "dir"), ("a/f", "=1")])),
        ("unknown type", tar().kind("f", b'Z').end(), No("unknown type")),
        ("contiguous file", tar().kind("f", b'7').end(), No("unknown type")),
        ("multi-volume", tar().kind("f", b'M').end(), No("unknown type")),
        ("Solaris' PAX", tar().kind("f", b'X').end(), No("unknown type")),
        (
            "sparse",
            old(&[(0, 1), (4096, 2)], 5000, b"abc").end(),
            Expect::Yes(vec![("f", Box::leak(format!("=a{}", "\0".repeat(39)).into_boxed_str()))]),
        ),
        (
            "sparse with PAX size",
            {
                let t = old(&[(0, 1)], 1, b"a");
                tar().pax(&[("size", b"1")]).raw(&t.0).end()
            },
            No("two ways"),
        ),
        (
            "sparse twice",
            {
                let t = old(&[(0, 1)], 1, b"a");
                tar().pax(&one("1")).raw(&t.0).end()
            },
            No("two ways"),
        ),
        ("sparse and not GNU", tar().edited("f", b'S', b"", |_| {}).end(), No("has none")),
        ("sparse out of order", old(&[(4096, 1), (0, 1)], 5000, b"ab").end(), No("out of order")),
        ("sparse that overlaps", old(&[(0, 2), (1, 1)], 5000, b"abc").end(), No("out of order")),
        ("sparse beyond its size", old(&[(0, 3)], 2, b"abc").end(), No("out of order")),
        ("sparse with too little content", old(&[(0, 3)], 3, b"ab").end(), No("disagree")),
        ("sparse that overflows", old(&[(0o77777777777, 0o77777777777)], 3, b"ab").end(), No("out of order")),
        (
            "sparse of 1 EiB",
            old(&[(0, 1)], 0, b"a").0.into_iter().collect::<Vec<u8>>().tap(|t| {
                let mut h: [u8; 512] = t[..512].try_into().unwrap();
                h[483..495].fill(0);
                h[483] = 0x80;
                h[487] = 0x10;
                seal(&mut h);
                t[..512].copy_from_slice(&h);
            }),
            No("disagree"),
        ),
        (
            "PAX sparse",
            sparse10(&one("5000"), "2\n0\n1\n4096\n2\n", "abc"),
            Expect::Yes(vec![("f", Box::leak(format!("=a{}", "\0".repeat(39)).into_boxed_str()))]),
        ),
        ("PAX sparse without an end", sparse10(&one("5000"), &"9".repeat(512), ""), No("bad number")),
        ("PAX sparse, endless map", sparse10(&one("5000"), "60000\n", ""), No("sparse map")),
        ("PAX sparse, map too long", sparse10(&one("5000"), "99999999\n", ""), No("too long")),
        ("PAX sparse 0.1", sparse10(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"1")], "a", ""), No("other than 1.0")),
        ("PAX sparse, more keys", sparse10(&[one("1").as_slice(), &[("GNU.sparse.size", b"1")]].concat(), "1\n0\n1\n", "a"), No("other than 1.0")),
        (
            "PAX sparse out of the tree",
            sparse10(
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"../f"), ("GNU.sparse.realsize", b"1")],
                "1\n0\n1\n",
                "a",
            ),
            No("climbs"),
        ),
        ("something after the end", tar().file("f", "1").raw(&[0; 1024]).file("g", "1").end(), No("after its end")),
        ("one zero block, then more", tar().file("f", "1").raw(&[0; 512]).file("g", "1").end(), No("after its end")),
        ("zeroes after the end", tar().file("f", "1").raw(&[0; 20480]).0, yes(&[("f", "=1")])),
        ("one zero block", tar().file("f", "1").raw(&[0; 512]).0, yes(&[("f", "=1")])),
        // As `umoci insert` leaves it. Every other cut is refused.
        ("no end mark", tar().file("f", "1").0, yes(&[("f", "=1")])),
        ("no end mark behind a directory", tar().file("f", "1").dir("d").0, yes(&[("f", "=1"), ("d", "dir")])),
        ("no end mark, and no padding", tar().file("f", "1").0[..513].to_vec(), yes(&[("f", "=1")])),
        ("no end mark, and half the padding", tar().file("f", "1").0[..514].to_vec(), No("too early")),
        ("no end mark, and no content", tar().file("f", "1").0[..512].to_vec(), No("too early")),
        ("no end mark behind half a header", tar().file("f", "1").file("g", "2").0[..1024 + 511].to_vec(), No("too early")),
        ("no end mark behind a long name", tar().file("f", "1").edited("././@LongLink", b'L', b"long\0", gnu).0, No("after an extension header")),
        ("no end mark behind a PAX header", tar().file("f", "1").pax(&[("path", b"long")]).0, No("after an extension header")),
        ("half a block at the end", tar().file("f", "1").raw(&[0; 100]).0, No("too early")),
    ]
}

trait Tap {
    fn tap(self, edit: impl Fn(&mut Vec<u8>)) -> Self;
}

impl Tap for Vec<u8> {
    fn tap(mut self, edit: impl Fn(&mut Vec<u8>)) -> Self {
        edit(&mut self);
        self.extend([0; 1024]);
        self
    }
}

/// I07: no archive, or half of one.
fn junk(_: &Place) -> Vec<Case> {
    let text = "this is no archive at all, but a text that goes on for a while. ".repeat(20);
    let good = gzip(&tar().file("f", "1").end());
    let mut two = gzip(&tar().file("f", "1").0);
    two.extend(gzip(&tar().file("g", "2").end()));
    let mut flipped = good.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    let zstd = zstd::encode_all(tar().file("f", "1").end().as_slice(), 3).unwrap();
    vec![
        ("nothing", Vec::new(), No("is empty")),
        ("a byte", vec![b'x'], No("too early")),
        ("text", text.clone().into_bytes(), No("checksum")),
        ("text in gzip", gzip(text.as_bytes()), No("checksum")),
        ("gzip in gzip", gzip(&good), No("too early")),
        ("gzip", good.clone(), yes(&[("f", "=1")])),
        ("two gzip members", two, yes(&[("f", "=1"), ("g", "=2")])),
        ("gzip with a wrong checksum", flipped, No("cannot unpack")),
        ("gzip and junk", [good.as_slice(), b"junk"].concat(), No("cannot unpack")),
        ("gzip, the header only", good[..5].to_vec(), No("too early")),
        ("zstd", zstd.clone(), yes(&[("f", "=1")])),
        ("zstd after a skippable frame", [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], zstd.as_slice()].concat(), yes(&[("f", "=1")])),
        ("zstd, cut", zstd[..zstd.len() - 9].to_vec(), No("cannot unpack")),
        ("zstd and junk", [zstd.as_slice(), b"junk"].concat(), No("cannot unpack")),
        ("bzip2", b"BZh91AY&SY".to_vec(), No("bzip2")),
        ("xz", b"\xfd7zXZ\0\0\x04".to_vec(), No("xz")),
        ("zip", b"PK\x03\x04".to_vec(), No("too early")),
        ("one zero block only", vec![0; 512], yes(&[])),
        ("an empty layer", vec![0; 1024], yes(&[])),
    ]
}

/// I06: small here, large there.
fn bombs(_: &Place) -> Vec<Case> {
    let zeroes = vec![0u8; 48 << 20];
    let big = tar().edited("f", b'0', &zeroes, |_| {}).end();
    let mut zstd_window = Vec::new();
    {
        let mut e = zstd::stream::write::Encoder::new(&mut zstd_window, 1).unwrap();
        e.window_log(28).unwrap();
        e.include_contentsize(false).unwrap();
        e.write_all(&tar().file("f", "1").end()).unwrap();
        e.finish().unwrap();
    }
    // A frame that says: a window of 2 GiB. RFC 8878, 3.1.1.1.2
    let window = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3], &[1u8, 0, 0][..]].concat();
    let many: Vec<(String, Vec<u8>)> = (0..65).map(|n| (format!("SCHILY.xattr.user.{n}"), vec![b'x'])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
    let large = vec![b'x'; (64 << 10) + 1];
    vec![
        ("gzip of 1:1000", gzip(&big), No("200 times")),
        ("zstd of 1:10000", zstd::encode_all(big.as_slice(), 3).unwrap(), No("200 times")),
        ("more than there is room for", tar().edited("f", b'0', &vec![1; 65 << 20], |_| {}).end(), No("too long")),
        ("zstd with a window of 256 MiB", zstd_window, No("cannot unpack")),
        ("zstd with a window of 2 GiB", window, No("cannot unpack")),
        (
            "a file of 1 TiB",
            tar()
                .edited("f", b'0', b"", |h| {
                    h[124..136].fill(0);
                    h[124] = 0x80;
                    h[130] = 1;
                })
                .end(),
            No("too large"),
        ),
        ("65 attributes", tar().pax(&many).file("f", "1").end(), No("extended attributes")),
        ("an attribute of 64 KiB and a byte", tar().pax(&[("SCHILY.xattr.user.x", &large)]).file("f", "1").end(), No("extended attributes")),
    ]
}

const GROUPS: [fn(&Place) -> Vec<Case>; 6] = [names_of_entries, links, whiteouts, disagreements, junk, bombs];

#[test]
fn cve_2014_9357_cve_2007_4559_names_stay_inside() {
    let place = Place::new();
    check(names_of_entries(&place), &place);
}

#[test]
fn cve_2014_6407_cve_2014_9356_cve_2021_29136_cve_2020_15229_links_stay_inside() {
    let place = Place::new();
    check(links(&place), &place);
}

#[test]
fn i03_whiteouts_are_where_they_belong() {
    let place = Place::new();
    check(whiteouts(&place), &place);
}

#[test]
fn cve_2025_62518_cve_2026_33055_no_two_readers_disagree() {
    let place = Place::new();
    check(disagreements(&place), &place);
}

#[test]
fn cve_2021_20291_junk_is_refused_and_never_hangs() {
    let place = Place::new();
    check(junk(&place), &place);
}

#[test]
fn cve_2017_14992_bombs_are_refused() {
    let place = Place::new();
    check(bombs(&place), &place);
}

#[test]
fn there_are_more_than_150_cases() {
    let place = Place::new();
    let count: usize = GROUPS.iter().map(|group| group(&place).len()).sum();
    assert!(count >= 150, "{count}");
}

/// I07: cut anywhere, or with one bit wrong: an error or a whole tree, at once.
#[test]
fn cve_2021_21285_cut_and_flipped_layers_end_well() {
    let place = Place::new();
    // Where an entry ends, an archive may end.
    let mut ends = Vec::new();
    let mut end = |t: Tar| {
        ends.push(t.0.len());
        t
    };
    let t = end(tar().dir("d"));
    let t = end(t.pax(&[("path", b"d/long"), ("mtime", b"1.5")]).file("x", &"content ".repeat(200)));
    let content_ends = t.0.len() - 2048 + 1600;
    let t = end(t.symlink("l", "d"));
    let t = end(t.link("h", "d/long"));
    let whole = end(t.file(".wh.gone", "")).end();
    let before = place.canary();
    let dir = place.0.join("layer");
    // Every block, and around it.
    for at in (0..whole.len()).filter(|at| [0, 1, 63, 64, 65, 256, 511].contains(&(at % 512))) {
        let result = into(&dir, &whole[..at], MOST, all_ids());
        // One block of zeroes is mark enough; what follows it are zeroes, too.
        let fine = ends.contains(&at) || at == content_ends || at >= whole.len() - 512;
        assert_eq!(result.is_ok(), fine, "{at} of {} bytes; entries end at {ends:?}", whole.len());
        gone(&dir);
    }
    for packed in [whole.clone(), gzip(&whole), zstd::encode_all(whole.as_slice(), 3).unwrap()] {
        for part in 0..64 {
            let cut = &packed[..packed.len() * part / 64];
            let result = into(&dir, cut, MOST, all_ids());
            let plain = packed == whole;
            assert!(
                result.is_err() || (plain && (ends.contains(&cut.len()) || cut.len() > whole.len() - 1024)),
                "{part} of 64 of {} bytes",
                packed.len()
            );
            gone(&dir);
            let mut flipped = packed.clone();
            let at = packed.len() * part / 64;
            flipped[at] ^= 1 << (part % 8);
            let _ = into(&dir, &flipped, MOST, all_ids());
            gone(&dir);
            assert_eq!(place.canary(), before);
        }
    }
}

/// I02: a directory entry over a link must not describe what the link leads to.
#[test]
fn cve_2026_33056_cve_2021_32760_metadata_follows_no_link() {
    let place = Place::new();
    let out = place.0.join("canary").display().to_string();
    let before = place.canary();
    let open = |h: &mut [u8; 512]| h[100..108].copy_from_slice(b"0000777\0");
    let bytes = tar()
        .symlink("d", &out)
        .pax(&[("SCHILY.xattr.user.x", b"1")])
        .edited("d", b'5', b"", open)
        .symlink("f", &format!("{out}/secret"))
        .edited("f", b'0', b"1", open)
        .symlink("last", &format!("{out}/dir"))
        .end();
    let dir = place.0.join("layer");
    into(&dir, &bytes, MOST, all_ids()).unwrap();
    assert_eq!(place.canary(), before);
    assert_eq!(std::fs::symlink_metadata(dir.join("d")).unwrap().mode() & 0o7777, 0o777);
    gone(&dir);
    // The other way round: the link comes last, and the directory's attributes are due at the end.
    let bytes = tar().edited("d", b'5', b"", open).symlink("d", &out).end();
    into(&dir, &bytes, MOST, all_ids()).unwrap();
    assert_eq!(place.canary(), before);
    gone(&dir);
}

#[test]
fn cve_2025_47290_a_racer_on_the_directory_gains_nothing() {
    let place = Place::new();
    let out = place.0.join("canary");
    let before = place.canary();
    let mut t = tar();
    for n in 0..300 {
        t = t.dir("a").file(&format!("a/{n}"), "1").dir("a/b").file(&format!("a/b/{n}"), "2");
    }
    let bytes = t.end();
    let dir = place.0.join("layer");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut swaps = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["a", "a/b"] {
                    let (at, aside) = (dir.join(name), place.0.join("layer/aside"));
                    if std::fs::rename(&at, &aside).is_ok() {
                        swaps += u32::from(std::os::unix::fs::symlink(&out, &at).is_ok());
                        let _ = std::fs::remove_file(&at);
                        let _ = std::fs::rename(&aside, &at);
                    }
                }
            }
            swaps
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let _ = into(&dir, &bytes, MOST, all_ids());
            while remove::empty(std::fs::File::open(&dir).unwrap().as_fd()).is_err() {}
            while std::fs::remove_dir(&dir).is_err() {
                let _ = remove::empty(std::fs::File::open(&dir).unwrap().as_fd());
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        racer.join().unwrap()
    });
    assert!(swaps > 100, "{swaps}");
    let _ = std::fs::remove_dir_all(&dir);
    assert_eq!(place.canary(), before);
}

#[test]
fn attributes_are_as_the_tar_says() {
    let place = Place::new();
    let dir = place.0.join("layer");
    let mode = |text: &'static [u8]| move |h: &mut [u8; 512]| h[100..108].copy_from_slice(text);
    let bytes = tar()
        .edited("suid", b'0', b"x", mode(b"0004755\0"))
        .edited("none", b'0', b"x", mode(b"0000000\0"))
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("SCHILY.xattr.user.x", b"a\0b"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ])
        .edited("closed", b'5', b"", mode(b"0001700\0"))
        .pax(&[("mtime", b"-1.25")])
        .file("closed/old", "1")
        .file("implicit/a/f", &("x".repeat(5000) + &"\0".repeat(100_000) + "y"))
        .kind("console", b'3')
        .end();
    let (entries, grown) = into(&dir, &bytes, MOST, all_ids()).unwrap();
    assert_eq!(entries, 8);
    let meta = |name: &str| std::fs::symlink_metadata(dir.join(name)).unwrap();
    assert_eq!(meta("suid").mode() & 0o7777, 0o4755);
    assert_eq!(meta("none").mode() & 0o7777, 0);
    assert_eq!((meta("closed").mode() & 0o7777, meta("closed").mtime(), meta("closed").mtime_nsec()), (0o1700, 1234567890, 123456789));
    assert_eq!((meta("closed/old").mtime(), meta("closed/old").mtime_nsec()), (-2, 750_000_000));
    let closed = std::fs::File::open(dir.join("closed")).unwrap();
    let found = whiteout::xattrs(closed.as_fd()).unwrap();
    assert!(found.is_empty() || found == [(c"user.x".to_owned(), b"a\0b".to_vec())], "{found:?}");
    let mut value = [0u8; 16];
    assert!(rustix::fs::fgetxattr(&closed, c"user.overlay.redirect", &mut value).is_err());
    assert_eq!(grown.implicit, [&b""[..], b"implicit", b"implicit/a"]);
    assert_eq!((meta("implicit").mode() & 0o7777, meta("implicit").mtime()), (0o755, 0));
    let file = meta("implicit/a/f");
    assert_eq!(file.len(), 105_001);
    assert!(file.blocks() * 512 < 50_000, "{} blocks", file.blocks());
    assert_eq!(std::fs::read(dir.join("implicit/a/f")).unwrap().iter().filter(|b| **b == 0).count(), 100_000);
    assert!(grown.notes.iter().any(|n| n.contains("device nodes") && n.contains("console")), "{:?}", grown.notes);
    gone(&dir);
}

#[test]
fn an_id_beyond_the_range_is_named_with_the_cure_or_squashed() {
    let place = Place::new();
    let dir = place.0.join("layer");
    let bytes = tar().pax(&[("uid", b"70000")]).file("f", "1").end();
    let Err(e) = into(&dir, &bytes, MOST, all_ids()) else { panic!("accepted") };
    assert!(e.message().contains("uid 70000") && e.message().contains("65536 ids") && e.cure().unwrap().contains("--squash-ids"), "{e}");
    gone(&dir);
    into(&dir, &bytes, MOST, Ids { squash: true, ..all_ids() }).unwrap();
    assert_eq!(std::fs::symlink_metadata(dir.join("f")).unwrap().uid(), rustix::process::geteuid().as_raw());
    gone(&dir);
}

#[test]
fn the_same_entries_as_another_reader() {
    let bytes = tar().dir("d").file("d/f", "1").symlink("l", "d").pax(&[("path", b"a/b"), ("mtime", b"5.5")]).file("x", "22").end();
    let mut ours = Vec::new();
    let mut reader = Reader::new(bytes.as_slice());
    while let Some(e) = reader.entry().unwrap() {
        ours.push((String::from_utf8(e.path).unwrap(), e.size));
    }
    let mut theirs = Vec::new();
    for e in ::tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let e = e.unwrap();
        theirs.push((e.path().unwrap().display().to_string().trim_end_matches('/').to_string(), e.size()));
    }
    assert_eq!(ours, theirs);
}
