//! The bytes of a layer as they are transported, as the tar that they are: decompressed in one thread, hashed in another, read in a third.
//!
//! Called by `unpack` in its helper. Never holds more than a few pieces, and never goes on beyond the limits on what comes out.

use super::tar::{lift, refuse};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

const PIECE: usize = 256 << 10;
const PIECES: usize = 8;
/// A zstd frame may ask for this much memory, as a power of two: 128 MiB, which is what `zstd --long` asks for, and the only way for a layer
/// to make a helper need more than 128 MiB in all. With such a frame it needs up to 192 MiB.
const WINDOW: u32 = 27;
/// No honest layer shrinks more than this, but a small one.
const RATIO: u64 = 200;
const RATIO_FROM: u64 = 16 << 20;

/// The tar, to be read.
pub struct Stream {
    pieces: Receiver<Result<Arc<Vec<u8>>>>,
    piece: Arc<Vec<u8>>,
    at: usize,
}

/// The hash of the tar, while it is made.
pub struct Hashing(JoinHandle<([u8; 32], u64)>);

impl Hashing {
    /// The digest and the length of the tar, once it is read to its end.
    pub fn finish(self) -> Result<([u8; 32], u64)> {
        self.0.join().map_err(|_| refuse("its hash could not be made"))
    }
}

/// `most` is how long the tar may be, and `why` what to say if it is longer.
pub fn open(input: impl Read + Send + 'static, most: u64, why: Error) -> Result<(Stream, Hashing)> {
    let (to_hash, from_pieces) = sync_channel::<Arc<Vec<u8>>>(PIECES);
    let (to_reader, pieces) = sync_channel(PIECES);
    let spawn = |e: std::io::Error| refuse(format!("no thread for it: {}", crate::error::why(&e)));
    let hashing = std::thread::Builder::new().spawn(move || {
        let (mut hash, mut size) = (Sha256::new(), 0);
        for piece in from_pieces {
            hash.update(piece.as_slice());
            size += piece.len() as u64;
        }
        (hash.finalize().into(), size)
    });
    let hashing = Hashing(hashing.map_err(spawn)?);
    let reading = std::thread::Builder::new().spawn(move || {
        if let Err(e) = decompress(input, most, why, &to_hash, &to_reader) {
            let _ = to_reader.send(Err(e));
        }
    });
    reading.map_err(spawn)?;
    Ok((Stream { pieces, piece: Arc::default(), at: 0 }, hashing))
}

/// Counts what goes in.
struct Counted<R>(R, Rc<Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(into)?;
        self.1.set(self.1.get() + n as u64);
        Ok(n)
    }
}

fn decompress(
    input: impl Read,
    most: u64,
    why: Error,
    to_hash: &SyncSender<Arc<Vec<u8>>>,
    to_reader: &SyncSender<Result<Arc<Vec<u8>>>>,
) -> Result<()> {
    let taken = Rc::new(Cell::new(0));
    let mut input = BufReader::with_capacity(PIECE, Counted(input, taken.clone()));
    // A pipe may bring less than a magic number at once.
    let mut start = Vec::new();
    (&mut input).take(6).read_to_end(&mut start).map_err(lift)?;
    let input = BufReader::with_capacity(PIECE, std::io::Cursor::new(start.clone()).chain(input));
    let zstd = |input| -> std::io::Result<_> {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(WINDOW)?;
        Ok(decoder)
    };
    let mut decoder: Box<dyn Read> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(zstd(input).map_err(lift)?),
        [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unknown("xz")),
        _ => Box::new(input),
    };
    let mut total = 0;
    let mut sent = VecDeque::new();
    loop {
        // What both have done with is filled again.
        let mut piece = sent.pop_front_if(|p| Arc::get_mut(p).is_some()).unwrap_or_default();
        if !fill(Arc::make_mut(&mut piece), &mut decoder)? {
            return Ok(());
        }
        total += piece.len() as u64;
        if total > most {
            return Err(why);
        }
        if total > RATIO_FROM && total / RATIO > taken.get() {
            return Err(refuse(format!("it grows to more than {RATIO} times its size")));
        }
        sent.push_back(piece.clone());
        // Whoever does not listen any more has met an error, and has said so.
        if to_hash.send(piece.clone()).is_err() || to_reader.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

/// As much as there is room for; false: there was nothing more.
fn fill(piece: &mut Vec<u8>, from: &mut dyn Read) -> Result<bool> {
    piece.resize(PIECE, 0);
    let mut filled = 0;
    while filled < PIECE {
        match from.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(lift(e)),
        }
    }
    piece.truncate(filled);
    Ok(filled > 0)
}

fn unknown(name: &str) -> Error {
    refuse(format!("it is compressed with {name}")).hint("layers are gzip, zstd or plain tar; oci: layer.md. Compress it anew, for example: zstd")
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(into.len());
        into[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Err(e)) => return Err(std::io::Error::other(e)),
                Err(_) => {}
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}
