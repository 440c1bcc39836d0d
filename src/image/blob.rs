//! Bytes by their digest: taken in, hashed as they come, refused when they are not what they should be.
//!
//! Called by `store`. A blob gets its name only when its size and digest are right and it is on the disk. // I1
#![forbid(unsafe_code)]

use super::Descriptor;
use super::making::Making;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::Digest;
use crate::sys::disk;
use sha2::Digest as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// No blob is longer. (An unpacked layer has the same limit.)
const LONGEST: u64 = 64 << 30;
/// So many bytes at a time go to the disk early.
const FLUSH: u64 = 4 << 20;

pub fn path(store: &Path, digest: &Digest) -> PathBuf {
    store.join("blobs/sha256").join(digest.hex())
}

/// A blob on its way into a store.
pub struct Incoming {
    making: Making,
    hash: sha2::Sha256,
    size: u64,
    most: u64,
    /// So much of it is on its way to the disk.
    flushed: u64,
}

impl Incoming {
    /// The only one that brings what `expect` names: None if it is there. Without `expect` its name comes from its bytes.
    pub fn begin(store: &Path, expect: Option<&Descriptor>) -> Result<Option<Incoming>> {
        let tmp = store.join("tmp");
        let making = match expect {
            Some(d) => Making::file(&tmp, &format!("blob-{}", d.digest.hex()), &|| path(store, &d.digest).is_file())?,
            None => Some(Making::new_file(&tmp, "blob")?),
        };
        let most = expect.map_or(LONGEST, |d| d.size.min(LONGEST));
        Ok(making.map(|making| Incoming { making, hash: sha2::Sha256::new(), size: 0, most, flushed: 0 }))
    }

    /// All of it is here: checked, and put in place.
    pub fn finish(self, store: &Path, expect: Option<&Descriptor>) -> Result<(Digest, u64)> {
        let found = Digest::sha256(&self.hash.finalize().into());
        if let Some(expect) = expect
            && (&expect.digest, expect.size) != (&found, self.size)
        {
            return Err(wrong(expect, &found, self.size));
        }
        self.making.publish(&path(store, &found))?;
        Ok((found, self.size))
    }
}

fn wrong(expect: &Descriptor, found: &Digest, size: u64) -> Error {
    let why = if size != expect.size { format!("it has {size} bytes and should have {}", expect.size) } else { format!("its digest is {found}") };
    Error::new(Kind::Io, format!("cannot use {}: {why}", expect.digest)).hint("it was damaged on its way, or forged: fetch it again")
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size + bytes.len() as u64 > self.most {
            return Err(io::Error::other(format!("it is longer than the {} bytes that it should have", self.most)));
        }
        let n = self.making.file_mut().write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        if self.size - self.flushed >= FLUSH {
            // While the rest comes: then there is little left to wait for in `finish`.
            let _ = disk::start_writing(self.making.file_mut().as_fd(), self.flushed, self.size - self.flushed);
            self.flushed = self.size;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that comes, in pieces, to every one of `to`. Each byte is read once.
pub fn pour(from: &mut dyn Read, to: &mut [&mut dyn Write], what: impl std::fmt::Display) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).doing("read", what),
        };
        for out in &mut *to {
            out.write_all(&buffer[..n]).doing("take in", &what)?;
        }
    }
}

/// Reads a blob of a store, and is only at its end if it is whole: what a disk or a stranger changed is an error.
pub struct Checked {
    file: File,
    hash: sha2::Sha256,
    size: u64,
    expect: Descriptor,
}

impl Checked {
    pub fn new(file: File, expect: Descriptor) -> Checked {
        Checked { file, hash: sha2::Sha256::new(), size: 0, expect }
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.size += n as u64;
        if (n == 0 && !buffer.is_empty()) || self.size > self.expect.size {
            let found = Digest::sha256(&self.hash.clone().finalize().into());
            if (&found, self.size) != (&self.expect.digest, self.expect.size) {
                return Err(io::Error::other(wrong(&self.expect, &found, self.size).message().to_string()));
            }
        }
        Ok(n)
    }
}
