//! The tar of a layer, read strictly: one entry after the other, and whatever two readers could understand differently is refused.
//!
//! Called by `unpack` in its helper. Never touches a file; allocates no more than the limits below for what a header announces.
//!
//! It knows ustar, PAX, GNU's long names and GNU's two current sparse forms. What it refuses is what has been used to smuggle entries past
//! one reader or another: sizes that disagree, keys that come twice, numbers that overflow, names that leave the tree, bytes after the end.
//! cve: 2025-62518, 2026-33055; man: tar(5); oci: layer.md

use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::io::BufRead;

/// The limits on hostile bytes.
pub const MOST_ENTRIES: u64 = 2_000_000;
pub const LONGEST_PATH: usize = 4096;
pub const LONGEST_COMPONENT: usize = 255;
pub const DEEPEST: usize = 256;
const LONGEST_PAX: u64 = 1 << 20;
const LARGEST_XATTR: usize = 64 << 10;
const MOST_XATTRS: usize = 64;
const LARGEST_FILE: u64 = 64 << 30;
const MOST_EXTENTS: usize = 1 << 16;

pub const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    File,
    Directory,
    Symlink,
    /// A hard link.
    Link,
    Fifo,
    /// A device node, which nobody here may make.
    Device,
}

/// One thing of the tree, with everything that headers said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Components with single slashes; empty: the top itself.
    pub path: Vec<u8>,
    pub form: Form,
    /// A symlink's text; a hard link's target, like `path`.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// The file's size when it is unpacked.
    pub size: u64,
    /// Where a sparse file has content: offset and length. None: everywhere.
    pub extents: Option<Vec<(u64, u64)>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A refusal: what is wrong with the archive.
pub fn refuse(why: impl Into<String>) -> Error {
    Error::new(Kind::Io, format!("cannot unpack the layer: {}", why.into()))
}

/// An error of the source: our own if it carries one.
pub fn lift(e: std::io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(own) => own,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => refuse("it ends too early"),
        Err(e) => refuse(crate::error::why(&e)),
    }
}

/// A path as a person may see it.
pub fn show(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(300).collect();
    crate::error::printable(&text).replace('\n', "\\n")
}

/// A name from an archive as a path below the top: absolute ones count from there, and nothing climbs.
/// cve: 2014-9357, 2021-29136
pub fn inside(name: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: &str| Err(refuse(format!("'{}' {why}", show(name))));
    if name.is_empty() {
        return bad("is an empty name");
    }
    if name.len() > LONGEST_PATH {
        return bad("is too long a name");
    }
    if name.contains(&0) {
        return bad("has a NUL in its name");
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for component in name.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".") {
        if component == b".." {
            return bad("climbs out of its directory");
        }
        if component.len() > LONGEST_COMPONENT {
            return bad("has too long a component");
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
        depth += 1;
    }
    if depth > DEEPEST {
        return bad("is too deep");
    }
    Ok(path)
}

/// What extension headers say about the entry that follows.
#[derive(Default)]
struct Extension {
    pax: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extension {
    fn text(&self, key: &str) -> Option<&[u8]> {
        self.pax.as_ref()?.get(key.as_bytes()).map(Vec::as_slice)
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        self.text(key).map(|text| decimal(text).ok_or_else(|| refuse(format!("bad {key} '{}'", show(text))))).transpose()
    }
}

pub struct Reader<R> {
    source: R,
    /// What of the current entry's content is still to come, and the padding behind it.
    content: u64,
    padding: u64,
    entries: u64,
}

impl<R: BufRead> Reader<R> {
    pub fn new(source: R) -> Self {
        Reader { source, content: 0, padding: 0, entries: 0 }
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry; None: the archive has ended, as it should. What was not read of the last one is skipped.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        self.content(&mut |_| Ok(()))?;
        let mut extension = Extension::default();
        loop {
            let Some(block) = self.header()? else {
                if extension.pax.is_some() || extension.name.is_some() || extension.link.is_some() {
                    return Err(refuse("it ends after an extension header"));
                }
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(refuse(format!("it has more than {MOST_ENTRIES} entries")));
            }
            let header = Header::new(&block)?;
            match header.form() {
                b'x' => {
                    let taken = extension.pax.replace(records(&self.whole(header.size()?)?)?);
                    if taken.is_some() {
                        return Err(refuse("two PAX headers for one entry"));
                    }
                }
                b'g' => {
                    // Some readers apply it to all that follows, others to nothing.
                    let global = records(&self.whole(header.size()?)?)?;
                    if let Some(key) = global.keys().find(|k| *k != b"comment") {
                        return Err(refuse(format!("a global PAX header with '{}'", show(key))));
                    }
                }
                kind @ (b'L' | b'K') => {
                    let text = self.whole(header.size()?)?;
                    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
                    if text.len() > end + 1 {
                        return Err(refuse("a long name with a NUL in it"));
                    }
                    let place = if kind == b'L' { &mut extension.name } else { &mut extension.link };
                    if place.replace(text[..end].to_vec()).is_some() {
                        return Err(refuse("two long names for one entry"));
                    }
                }
                _ => return self.describe(&header, &extension).map(Some),
            }
        }
    }

    /// The content of the current entry, piece by piece.
    pub fn content(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.content > 0 {
            let piece = self.source.fill_buf().map_err(lift)?;
            if piece.is_empty() {
                return Err(refuse("it ends too early"));
            }
            let piece = &piece[..piece.len().min(usize::try_from(self.content).unwrap_or(usize::MAX))];
            let n = piece.len();
            sink(piece)?;
            self.source.consume(n);
            self.content -= n as u64;
        }
        // The last entry of an archive without an end mark may lack it. See `header`.
        if self.padding > 0 && self.source.fill_buf().map_err(lift)?.is_empty() {
            self.padding = 0;
        }
        let mut padding = [0; BLOCK];
        let padding = &mut padding[..std::mem::take(&mut self.padding) as usize];
        self.source.read_exact(padding).map_err(lift)
    }

    fn describe(&mut self, header: &Header, ext: &Extension) -> Result<Entry> {
        let mixed = |what: &str| Err(refuse(format!("'{}' has {what}", show(&header.name()))));
        let sparse = ext.pax.as_ref().is_some_and(|p| p.keys().any(|k| k.starts_with(b"GNU.sparse.")));
        if ext.pax.is_some() && (ext.name.is_some() || ext.link.is_some()) {
            return mixed("both PAX and GNU extensions");
        }
        let name = match (&ext.name, ext.text("path"), ext.text("GNU.sparse.name")) {
            (Some(long), ..) => long.clone(),
            (None, _, Some(name)) => name.to_vec(),
            (None, Some(path), None) => path.to_vec(),
            (None, None, None) => header.name(),
        };
        let path = inside(&name)?;
        let bad = |why: &str| Err(refuse(format!("'{}' {why}", show(&name))));

        let typeflag = header.form();
        let slash = name.last() == Some(&b'/');
        let form = match typeflag {
            b'\0' if slash => Form::Directory,
            b'0' | b'S' if slash => return bad("is a file with a directory's name"),
            b'\0' | b'0' | b'S' => Form::File,
            b'1' => Form::Link,
            b'2' => Form::Symlink,
            b'3' | b'4' => Form::Device,
            b'5' => Form::Directory,
            b'6' => Form::Fifo,
            other => return bad(&format!("has the unknown type '{}'", show(&[other]))),
        };

        let said = header.size()?;
        let stored = match ext.number("size")? {
            None => said,
            // The field cannot hold it, and then writers leave it empty.
            Some(size) if said == size || (said == 0 && size > 0o77_777_777_777) => size,
            Some(_) => return bad("has two sizes"),
        };
        if form != Form::File && stored != 0 {
            return bad("has content, and is no file");
        }
        if stored > LARGEST_FILE {
            return bad("is too large a file");
        }
        self.content = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;

        let mut entry = Entry {
            path,
            form,
            link: Vec::new(),
            mode: (header.number(100, 8)? & 0o7777) as u32,
            uid: id(ext.number("uid")?.map_or_else(|| header.number(108, 8), Ok)?, &name)?,
            gid: id(ext.number("gid")?.map_or_else(|| header.number(116, 8), Ok)?, &name)?,
            mtime: match ext.text("mtime") {
                Some(text) => time(text)?,
                None => (header.signed(136, 12)?, 0),
            },
            size: stored,
            extents: None,
            xattrs: Vec::new(),
        };
        if matches!(form, Form::Link | Form::Symlink) {
            let text = match (&ext.link, ext.text("linkpath")) {
                (Some(long), _) => long.clone(),
                (None, Some(path)) => path.to_vec(),
                (None, None) => header.text(157, 100),
            };
            entry.link = if form == Form::Link { inside(&text)? } else { text };
            if entry.link.is_empty() || entry.link.len() >= LONGEST_PATH || entry.link.contains(&0) {
                return bad("is a link to no possible name");
            }
        }
        for (key, value) in ext.pax.iter().flatten() {
            let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
            if value.len() > LARGEST_XATTR || name.len() > LONGEST_COMPONENT || name.is_empty() || entry.xattrs.len() == MOST_XATTRS {
                return bad("has too many or too large extended attributes");
            }
            entry.xattrs.push((name.to_vec(), value.clone()));
        }
        match (typeflag == b'S', sparse) {
            (false, false) => {}
            (true, false) if ext.text("size").is_none() => self.old_sparse(header, &mut entry)?,
            (false, true) if form == Form::File => self.new_sparse(ext, &mut entry)?,
            _ => return bad("is sparse in two ways"),
        }
        Ok(entry)
    }

    /// GNU's sparse files of type S: the map is in the header and in blocks behind it.
    fn old_sparse(&mut self, header: &Header, entry: &mut Entry) -> Result<()> {
        if !header.is_gnu() {
            return Err(refuse("a sparse file in a format that has none"));
        }
        let mut extents = Vec::new();
        let mut ended = false;
        let mut slots = |block: &[u8; BLOCK], at: usize, count: usize| -> Result<()> {
            for slot in block[at..at + count * 24].chunks_exact(24) {
                if slot.iter().all(|b| *b == 0) {
                    ended = true;
                } else if ended || extents.len() == MOST_EXTENTS {
                    return Err(refuse("a sparse map with a gap, or too long"));
                } else {
                    extents.push((number(&slot[..12])?, number(&slot[12..])?));
                }
            }
            Ok(())
        };
        slots(header.0, 386, 4)?;
        let mut more = header.0[482];
        while more != 0 {
            let mut block = [0; BLOCK];
            self.source.read_exact(&mut block).map_err(lift)?;
            slots(&block, 0, 21)?;
            more = block[504];
        }
        entry.size = header.number(483, 12)?;
        entry.extents = Some(check_extents(extents, entry.size, self.content)?);
        Ok(())
    }

    /// PAX sparse files, version 1.0: the map is at the beginning of the content.
    fn new_sparse(&mut self, ext: &Extension, entry: &mut Entry) -> Result<()> {
        let version = (ext.number("GNU.sparse.major")?, ext.number("GNU.sparse.minor")?);
        let known = ["major", "minor", "name", "realsize"];
        let all = ext.pax.iter().flatten().filter_map(|(k, _)| k.strip_prefix(b"GNU.sparse.")).all(|k| known.iter().any(|n| n.as_bytes() == k));
        let (Some(size), Some(_), true) = (ext.number("GNU.sparse.realsize")?, ext.text("GNU.sparse.name"), all && version == (Some(1), Some(0)))
        else {
            return Err(refuse(format!("'{}' is sparse in a form other than 1.0", show(&entry.path))));
        };
        let mut block = [0; BLOCK];
        let mut at = BLOCK;
        let mut take = |this: &mut Self| -> Result<u64> {
            let mut digits = Vec::new();
            loop {
                if at == BLOCK {
                    if this.content < BLOCK as u64 {
                        return Err(refuse("a sparse map that does not end"));
                    }
                    this.source.read_exact(&mut block).map_err(lift)?;
                    this.content -= BLOCK as u64;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' => return decimal(&digits).ok_or_else(|| refuse("a bad number in a sparse map")),
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                    _ => return Err(refuse("a bad number in a sparse map")),
                }
            }
        };
        let count = take(self)?;
        if count > MOST_EXTENTS as u64 {
            return Err(refuse("a sparse map that is too long"));
        }
        let mut extents = Vec::new();
        for _ in 0..count {
            extents.push((take(self)?, take(self)?));
        }
        entry.size = size;
        entry.extents = Some(check_extents(extents, size, self.content)?);
        Ok(())
    }

    /// The content of an extension header.
    fn whole(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST_PAX {
            return Err(refuse("an extension header of more than 1 MiB"));
        }
        let mut bytes = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
        self.source.read_exact(&mut bytes).map_err(lift)?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    /// The next header block; None: the end mark, and nothing but zeroes behind it. An archive may also end without the mark, where
    /// the content of its last entry ends, as `umoci insert` and other writers in Go leave it: what a mark could tell, the digests of blob
    /// and tar tell better.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if self.source.fill_buf().map_err(lift)?.is_empty() {
            return if self.entries > 0 { Ok(None) } else { Err(refuse("it is empty")) };
        }
        self.source.read_exact(&mut block).map_err(lift)?;
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        loop {
            let piece = self.source.fill_buf().map_err(lift)?;
            if piece.is_empty() {
                return Ok(None);
            }
            if piece.iter().any(|b| *b != 0) {
                return Err(refuse("there is something after its end"));
            }
            let n = piece.len();
            self.source.consume(n);
        }
    }
}

fn check_extents(mut extents: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Vec<(u64, u64)>> {
    let mut end = 0;
    let mut sum = 0u64;
    for (offset, length) in &extents {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.ok_or_else(|| refuse("a sparse map that is out of order"))?;
        sum += length;
    }
    if sum != stored || size > LARGEST_FILE {
        return Err(refuse("a sparse file whose sizes disagree"));
    }
    extents.retain(|(_, length)| *length > 0);
    Ok(extents)
}

/// A header block whose checksum and format are right.
struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    fn new(block: &'a [u8; BLOCK]) -> Result<Self> {
        let header = Header(block);
        let sum: u64 = block.iter().enumerate().map(|(n, b)| if (148..156).contains(&n) { 32 } else { u64::from(*b) }).sum();
        if octal(&block[148..156]).ok() != Some(sum) {
            return Err(refuse("a header with a wrong checksum"));
        }
        let zero = |from: usize, to: usize| block[from..to].iter().all(|b| *b == 0);
        let sparse = header.form() == b'S';
        match &block[257..265] {
            // star writes times behind the name's prefix.
            b"ustar\x0000" if zero(500, 512) => {}
            // GNU keeps two times there, for incremental archives, and sparse maps.
            b"ustar  \0" if sparse || zero(369, 512) => {
                number(&block[345..357])?;
                number(&block[357..369])?;
            }
            // The oldest has no extensions, and some readers then know none.
            magic if magic.iter().all(|b| *b == 0) && zero(345, 500) && !b"xgLKS".contains(&header.form()) => {}
            _ => return Err(refuse("a header of an unknown format")),
        }
        // Also those that nobody needs here: some readers stop at a bad one.
        let device = if zero(257, 265) { &[][..] } else { &[(329, 8), (337, 8)] };
        for (at, length) in [(100, 8), (108, 8), (116, 8), (124, 12)].iter().chain(device) {
            header.number(*at, *length)?;
        }
        header.signed(136, 12)?;
        Ok(header)
    }

    fn form(&self) -> u8 {
        self.0[156]
    }

    fn is_gnu(&self) -> bool {
        self.0[257..265] == *b"ustar  \0"
    }

    fn text(&self, at: usize, length: usize) -> Vec<u8> {
        let field = &self.0[at..at + length];
        field[..field.iter().position(|b| *b == 0).unwrap_or(length)].to_vec()
    }

    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = if self.0[257..265] == *b"ustar\x0000" { self.text(345, 155) } else { Vec::new() };
        if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() }
    }

    fn size(&self) -> Result<u64> {
        self.number(124, 12)
    }

    fn number(&self, at: usize, length: usize) -> Result<u64> {
        number(&self.0[at..at + length])
    }

    /// A time, which may lie before 1970.
    fn signed(&self, at: usize, length: usize) -> Result<i64> {
        let field = &self.0[at..at + length];
        let (high, low) = field.split_at(length - 8);
        let value = i64::from_be_bytes(low.try_into().unwrap_or_default());
        if field[0] == 0xff && high.iter().all(|b| *b == 0xff) && value < 0 {
            return Ok(value);
        }
        i64::try_from(number(field)?).map_err(|_| refuse("a time that is too far away"))
    }
}

/// Octal, or base 256 if the first bit is set and the number fits.
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let value = field[1..].iter().try_fold(0u64, |n, b| (n >> 55 == 0).then_some(n << 8 | u64::from(*b)));
    value.filter(|_| field[0] == 0x80).ok_or_else(|| refuse("a header with a number out of range"))
}

fn octal(field: &[u8]) -> Result<u64> {
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(digits.len());
    if digits[end..].iter().any(|b| !matches!(b, 0 | b' ')) {
        return Err(refuse("a header with a bad number"));
    }
    Ok(digits[..end].iter().fold(0, |n, b| n << 3 | u64::from(b - b'0')))
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn id(number: u64, name: &[u8]) -> Result<u32> {
    u32::try_from(number).ok().filter(|n| *n != u32::MAX).ok_or_else(|| refuse(format!("'{}' belongs to the impossible id {number}", show(name))))
}

/// `[-]seconds[.fraction]`. pax(1)
fn time(text: &[u8]) -> Result<(i64, u32)> {
    let bad = || refuse(format!("bad time '{}'", show(text)));
    let (negative, rest) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let dot = rest.iter().position(|b| *b == b'.').unwrap_or(rest.len());
    let (seconds, fraction) = (decimal(&rest[..dot]).ok_or_else(bad)?, rest.get(dot + 1..).unwrap_or(&[]));
    if seconds > 1 << 55 || !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let nanos = (0..9).fold(0u32, |n, at| n * 10 + fraction.get(at).map_or(0, |b| u32::from(b - b'0')));
    let seconds = seconds as i64;
    Ok(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

/// PAX records, `length key=value\n` each; no key twice.
fn records(bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let bad = || refuse("a broken PAX header");
    let mut found = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().take(8).position(|b| *b == b' ').ok_or_else(bad)?;
        let length = decimal(&rest[..space]).filter(|_| rest[0] != b'0').ok_or_else(bad)? as usize;
        let record = rest.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let wanted = matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime") || key.starts_with(b"GNU.sparse.");
        // An empty value takes back what a global header said; there is none.
        if key.contains(&0) || (wanted && (value.is_empty() || value.contains(&0))) {
            return Err(bad());
        }
        if key == b"SCHILY.realsize" || key.starts_with(b"GNU.volume.") || key == b"GNU.dumpdir" {
            return Err(refuse(format!("a PAX header with '{}'", show(key))));
        }
        if matches!(key, b"atime" | b"ctime") {
            time(value)?; // of no use here; but others refuse a bad one
        }
        if found.insert(key.to_vec(), value.to_vec()).is_some() {
            return Err(refuse(format!("a PAX header with '{}' twice", show(key))));
        }
        rest = &rest[length..];
    }
    Ok(found)
}
