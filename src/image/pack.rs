//! A tar, written: the same tree gives the same bytes, whoever writes it and when.
//!
//! Called by `diff` in its helper. Headers are ustar with all that it can hold, and a PAX header before it, its keys in order, for what it
//! cannot: long and non-ASCII names, large numbers, parts of a second, extended attributes. No user names, no access times.

use super::tar::{BLOCK, Entry, Form};
use std::collections::BTreeMap;
use std::io::{Result, Write};

/// What the fields of ustar hold at most.
const LARGEST_ID: u32 = 0o7_777_777;
const LARGEST: u64 = 0o77_777_777_777;

pub struct Packer<W> {
    out: W,
}

impl<W: Write> Packer<W> {
    pub fn new(out: W) -> Self {
        Packer { out }
    }

    /// An entry without its content, which the caller writes next: `content`, then `padding`.
    pub fn entry(&mut self, entry: &Entry) -> Result<()> {
        let mut pax: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut header = ::tar::Header::new_ustar();
        let path = match (entry.form, entry.path.as_slice()) {
            (Form::Directory, b"") => b"./".to_vec(),
            (Form::Directory, path) => [path, b"/"].concat(),
            (_, path) => path.to_vec(),
        };
        let mut text = |key: &str, value: &[u8], field: &mut [u8]| {
            if value.len() > field.len() || !value.is_ascii() {
                pax.insert(key.into(), value.to_vec());
            }
            for (to, from) in field.iter_mut().zip(value.iter().filter(|b| b.is_ascii())) {
                *to = *from;
            }
        };
        let fields = header.as_old_mut();
        text("path", &path, &mut fields.name);
        text("linkpath", &entry.link, &mut fields.linkname);
        let mut number = |key: &str, value: u64, most: u64| {
            if value > most {
                pax.insert(key.into(), value.to_string().into_bytes());
                return 0;
            }
            value
        };
        header.set_uid(number("uid", entry.uid.into(), LARGEST_ID.into()));
        header.set_gid(number("gid", entry.gid.into(), LARGEST_ID.into()));
        header.set_size(number("size", entry.size, LARGEST));
        let (seconds, nanos) = entry.mtime;
        let whole = u64::try_from(seconds).ok().filter(|s| *s <= LARGEST);
        if whole.is_none() || nanos != 0 {
            pax.insert(b"mtime".to_vec(), time(seconds, nanos).into_bytes());
        }
        header.set_mtime(whole.unwrap_or(0));
        header.set_mode(entry.mode);
        header.set_entry_type(match entry.form {
            Form::File => ::tar::EntryType::Regular,
            Form::Directory => ::tar::EntryType::Directory,
            Form::Symlink => ::tar::EntryType::Symlink,
            Form::Link => ::tar::EntryType::Link,
            Form::Fifo => ::tar::EntryType::Fifo,
            Form::Device => ::tar::EntryType::Char,
        });
        for (name, value) in &entry.xattrs {
            pax.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut extension = ::tar::Header::new_ustar();
            extension.as_old_mut().name[..14].copy_from_slice(b"././@PaxHeader");
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_mode(0o644);
            extension.set_entry_type(::tar::EntryType::XHeader);
            extension.set_size(records.len() as u64);
            extension.set_cksum();
            self.out.write_all(extension.as_bytes())?;
            self.out.write_all(&records)?;
            self.padding(records.len() as u64)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    pub fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)
    }

    /// After `size` bytes of content.
    pub fn padding(&mut self, size: u64) -> Result<()> {
        let short = size.next_multiple_of(BLOCK as u64) - size;
        self.out.write_all(&[0; BLOCK][..short as usize])
    }

    /// The end mark.
    pub fn finish(mut self) -> Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

/// `length key=value\n`, the length including itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, _) => ("", seconds.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tar::Reader;
    use super::*;

    fn entry(path: &str, form: Form) -> Entry {
        Entry {
            path: path.into(),
            form,
            link: Vec::new(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (1_700_000_000, 0),
            size: 0,
            extents: None,
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_is_read_the_same() {
        let long = "d".repeat(120);
        let entries = [
            entry("", Form::Directory),
            entry("plain", Form::File),
            Entry { mtime: (-2, 500_000_000), ..entry(&long, Form::Directory) },
            Entry { mtime: (1 << 40, 1), uid: 4_000_000_000, gid: 0o10_000_000, ..entry("large", Form::File) },
            Entry { link: long.clone().into(), ..entry("link", Form::Link) },
            Entry { link: "\u{e4}".into(), mtime: (-5, 0), ..entry("\u{f6}\u{fc}", Form::Symlink) },
            Entry { xattrs: vec![(b"user.x".to_vec(), vec![0, 10, 61, 255]), (b"user.y".to_vec(), vec![])], ..entry("attributes", Form::File) },
            Entry { mode: 0o7777, ..entry("fifo", Form::Fifo) },
        ];
        let mut bytes = Vec::new();
        let mut packer = Packer::new(&mut bytes);
        for e in &entries {
            packer.entry(e).unwrap();
        }
        packer.finish().unwrap();
        let mut reader = Reader::new(bytes.as_slice());
        for e in &entries {
            assert_eq!(reader.entry().unwrap().as_ref(), Some(e));
        }
        assert_eq!(reader.entry().unwrap(), None);
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 90, 91, 92, 93, 94, 95, 96, 990, 992, 994, 996, 998] {
            let record = record(b"k", &vec![b'v'; length]);
            let space = record.iter().position(|b| *b == b' ').unwrap();
            assert_eq!(std::str::from_utf8(&record[..space]).unwrap().parse(), Ok(record.len()));
        }
    }
}
