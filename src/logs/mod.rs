//! What a detached sandbox said: written by its monitor, read by `sandbox logs`, while it runs and after.
//!
//! *What*: one record a line, in files `log.1`, `log.2`, .. of the sandbox's directory: `2026-11-24T21:00:00.123456789Z stdout F text`. The
//! second word is `stdout` or `stderr`, or `note` for a sentence of ours. The third is `F` where the text ended with a newline, `P` where
//! it goes on in the next record of that word; so the text is exactly the bytes that came, of whatever kind, without the newline. This is the
//! form of Kubernetes (CRI), which log shippers and `grep` know. `write` has the writer, `read` the reader.
//!
//! *Why this way*: what came is in the file before the next byte is read, whole lines or not, so a prompt is there to be seen and nothing is
//! lost with the monitor. Files are numbered and never renamed: a file is complete when the next one is there, so a reader follows without
//! guessing which one it has. (Rejected: JSON a line, as Docker has it, which is no binary-safe form, and six times as slow to write;
//! renaming `log` to `log.1`, where readers lose or double what is between, as podman#26206.)
//!
//! *Invariants*
//! - I1 never larger than the limit, nor is the memory for it: a line that is longer than `LONGEST` is several records.
//! - I2 the file ends with a whole record whenever its writer is at rest.
//! - I3 a reader that keeps up gets every record once, across files; who is passed by is told. It may hold up the writer for so long.
//! - I4 a full disk stops nobody: what could not be written is counted, and told in the log when there is room again.
//! - I5 files are opened in the directory's handle, and never through a link.
#![forbid(unsafe_code)]

pub mod read;
pub mod write;

use crate::error::{Doing, Error, Result};
use crate::ident::Bytes;
use crate::moment::{self, Moment};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::{fmt, str::FromStr};

/// Bytes of text in one record, at most.
pub const LONGEST: usize = 16 << 10;

/// Which record's text this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// A sentence of ours about the log itself.
    Note,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Note => "note",
        }
    }
}

/// What was read of one line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub time: Moment,
    pub stream: Stream,
    /// The line ends here.
    pub ends: bool,
    pub text: &'a [u8],
}

/// A line without its newline. None: it is none of ours.
pub fn record(line: &[u8]) -> Option<Record<'_>> {
    let mut words = line.splitn(4, |b| *b == b' ');
    let time = moment::written(std::str::from_utf8(words.next()?).ok()?)?;
    let stream = match words.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        b"note" => Stream::Note,
        _ => return None,
    };
    let ends = match words.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Record { time, stream, ends, text: words.next()? })
}

/// How much is kept: files of so many bytes, so many of them. `10m:2`, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    pub size: Bytes,
    /// 0: nothing is kept.
    pub files: u32,
}

impl Limit {
    const NONE: Limit = Limit { size: Bytes(0), files: 0 };
    /// A file has room for what is written at once.
    const SMALLEST: Bytes = Bytes(64 << 10);
}

impl Default for Limit {
    fn default() -> Limit {
        Limit { size: Bytes(10 << 20), files: 2 }
    }
}

impl FromStr for Limit {
    type Err = Error;
    fn from_str(s: &str) -> Result<Limit> {
        if s == "none" {
            return Ok(Limit::NONE);
        }
        let (size, files) = s.split_once(':').map_or((s, None), |(size, files)| (size, Some(files)));
        let size: Bytes = size.parse()?;
        let files = files.map_or(Some(Limit::default().files), |n| n.parse().ok().filter(|n| (1..=1000).contains(n)));
        match files {
            Some(files) if size >= Limit::SMALLEST => Ok(Limit { size, files }),
            _ => Err(Error::usage(format!("bad log size '{s}': SIZE[:FILES], at least {} and 1 to 1000 files, or none", Limit::SMALLEST))),
        }
    }
}

impl TryFrom<String> for Limit {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.to_string()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.files == 0 { f.write_str("none") } else { write!(f, "{}:{}", self.size, self.files) }
    }
}

fn name(number: u64) -> String {
    format!("log.{number}")
}

/// The numbers of the files that are there, in order.
pub fn files(dir: BorrowedFd) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).doing("read", "the sandbox's directory")? {
        let entry = entry.doing("read", "the sandbox's directory")?;
        let digits = entry.file_name().to_bytes().strip_prefix(b"log.").and_then(|d| std::str::from_utf8(d).ok());
        numbers.extend(digits.filter(|d| !d.starts_with(['0', '+'])).and_then(|d| d.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// I5. None: it is not there.
fn open(dir: BorrowedFd, number: u64, flags: OFlags) -> Result<Option<File>> {
    let name = name(number);
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, &name, flags, Mode::from_raw_mode(0o600)) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => File::from(other.doing("open", &name)?),
    };
    let stat = rustix::fs::fstat(&file).doing("look at", &name)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Error::new(crate::error::Kind::Denied, format!("cannot use {name}: it is no file of yours")).hint(format!("rm {name}")));
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (said, printed) in [("10m", "10m:2"), ("10m:3", "10m:3"), ("65536:1", "64k:1"), ("1g:1000", "1g:1000"), ("none", "none")] {
            let limit: Limit = said.parse().unwrap();
            assert_eq!(limit.to_string(), printed);
            assert_eq!(printed.parse::<Limit>().ok(), Some(limit));
        }
        assert_eq!(Limit::default().to_string(), "10m:2");
        for said in ["", "1k", "0", "10m:0", "10m:1001", "10m:", "10m:-1", ":2", "None", "10m:2:2"] {
            assert!(said.parse::<Limit>().is_err(), "{said}");
        }
    }

    #[test]
    fn records() {
        let read = record(b"2024-02-29T12:34:56.000000789Z stderr P  two  blanks\xff\x00").unwrap();
        let time = Moment(1_709_210_096_000_000_789);
        assert_eq!(read, Record { time, stream: Stream::Stderr, ends: false, text: b" two  blanks\xff\0" });
        let empty = record(b"2024-02-29T12:34:56.000000789Z stdout F ").unwrap();
        assert!(empty.ends && empty.text.is_empty());
        for line in
            [&b""[..], b"x", b"2024-02-29T12:34:56Z stdout F", b"2024-02-29T12:34:56Z stdin F x", b"2024-02-29T12:34:56Z stdout Q x", b"x stdout F x"]
        {
            assert!(record(line).is_none());
        }
    }
}
