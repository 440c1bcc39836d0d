//! What is too large to hold at once: a blob on its way in, which goes on after a lost connection, and a body on its way out.
//!
//! Called by `wire` and, as readers, by the store. Never reads beyond the size that was agreed.

use super::{Ask, Failure, RETRIES, TRICKLE, Wire, plain_coding, short};
use crate::error::{Error, Result};
use crate::ident::Digest;
use crate::image::Descriptor;
use bytes::Bytes;
use reqwest::{Method, Response, Url, header};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A body on its way out: a reader of known length.
pub struct Outgoing {
    pub reader: Box<dyn Read + Send + Sync>,
    pub left: u64,
    pub sent: Arc<AtomicU64>,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::io::Result<http_body::Frame<Bytes>>>> {
        if self.left == 0 {
            return std::task::Poll::Ready(None);
        }
        // A file of ours: reading it does not wait for anybody.
        let mut buffer = vec![0; self.left.min(128 << 10) as usize];
        let read = self.reader.read(&mut buffer).and_then(|n| if n == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(n) });
        std::task::Poll::Ready(Some(read.map(|n| {
            buffer.truncate(n);
            self.left -= n as u64;
            self.sent.fetch_add(n as u64, Ordering::Relaxed);
            http_body::Frame::data(buffer.into())
        })))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

/// What went wrong on the wire, in our words: who reads has only an I/O error.
pub type Blame = Arc<Mutex<Option<Error>>>;

/// A blob as a reader: exactly its size, and a lost connection is taken up where it broke. Its digest is checked by who keeps it.
pub struct Blob {
    wire: Wire,
    url: Url,
    scope: String,
    digest: Digest,
    size: u64,
    /// Read so far.
    at: u64,
    rest: Bytes,
    response: Option<Response>,
    /// In a row, without much in between.
    tries: u32,
    /// Where the connection was lost last.
    broke: u64,
    /// Time spent waiting since the last look at the speed, and the bytes that came.
    waited: Duration,
    came: u64,
    blame: Blame,
}

impl Blob {
    pub fn new(wire: Wire, url: Url, scope: &str, what: &Descriptor, blame: &Blame) -> Blob {
        Blob {
            wire,
            url,
            scope: scope.to_string(),
            digest: what.digest.clone(),
            size: what.size,
            at: 0,
            rest: Bytes::new(),
            response: None,
            tries: 0,
            broke: 0,
            waited: Duration::ZERO,
            came: 0,
            blame: blame.clone(),
        }
    }

    fn short(&self) -> String {
        short(&self.digest)
    }

    fn open(&mut self) -> Result<(), Failure> {
        let remote = self.wire.remote.clone();
        let mut ask = Ask::new(Method::GET, self.url.clone(), &self.scope);
        if self.at > 0 {
            ask = ask.header(header::RANGE, format!("bytes={}-", self.at));
        }
        let response = self.wire.runtime.block_on(self.wire.exchange(&ask))?;
        plain_coding(response.headers()).map_err(|why| remote.error(format!("{}: {why}", self.short())))?;
        let length = response.content_length();
        let lie = |n: u64, wanted: u64| remote.error(format!("it sends {n} bytes of {}, which has {wanted}", self.short()));
        match response.status().as_u16() {
            200 => {
                if let Some(n) = length.filter(|n| *n != self.size) {
                    return Err(Failure::Final(lie(n, self.size)));
                }
                self.response = Some(response);
                // The range was ignored: what we have is skipped, and must still be there.
                let mut skip = self.at;
                while skip > 0 {
                    let Some(mut chunk) = self.chunk()? else {
                        return Err(Failure::Passing(remote.error(format!("{} breaks off", self.short())), None));
                    };
                    let part = chunk.split_to(chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX)));
                    skip -= part.len() as u64;
                    self.rest = chunk;
                }
            }
            206 if self.at > 0 => {
                let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
                if range != format!("bytes {}-{}/{}", self.at, self.size - 1, self.size) && range != format!("bytes {}-{}/*", self.at, self.size - 1)
                {
                    return Err(Failure::Final(remote.error(format!("it answers with another part of {} than asked for", self.short()))));
                }
                if let Some(n) = length.filter(|n| *n != self.size - self.at) {
                    return Err(Failure::Final(lie(n, self.size - self.at)));
                }
                self.response = Some(response);
            }
            _ => return Err(Failure::Final(self.wire.refusal(&self.short(), response))),
        }
        Ok(())
    }

    /// The next bytes of the open response, or its end. I3
    fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let wire = &self.wire;
        let remote = &*wire.remote;
        let Some(response) = &mut self.response else { return Ok(None) };
        let own = remote.is_own(response.url());
        let slow = || Failure::Passing(remote.error(format!("nothing comes for {} s", remote.stall.as_secs_f32())), None);
        let since = Instant::now();
        let next = wire.runtime.block_on(async { tokio::time::timeout(remote.stall, response.chunk()).await }).map_err(|_| slow())?;
        let next = next.map_err(|e| wire.lost(&e, own))?;
        // Only waiting counts: while we write to the disk, nothing can come.
        self.waited += since.elapsed();
        self.came += next.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.waited > remote.stall {
            if self.came < TRICKLE {
                return Err(Failure::Final(remote.error(format!("it sends less than {} bytes in {} s", TRICKLE, remote.stall.as_secs_f32()))));
            }
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
        Ok(next)
    }

    fn next(&mut self) -> Result<Bytes, Failure> {
        if self.response.is_none() {
            self.open()?;
        }
        if !self.rest.is_empty() {
            return Ok(std::mem::take(&mut self.rest));
        }
        let remote = self.wire.remote.clone();
        match self.chunk()? {
            Some(chunk) => Ok(chunk),
            None if self.at < self.size => {
                Err(Failure::Passing(remote.error(format!("{} breaks off at {} of {}", self.short(), self.at, self.size)), None))
            }
            None => Ok(Bytes::new()),
        }
    }

    fn advance(&mut self) -> Result<Bytes> {
        loop {
            let (error, wished) = match self.next() {
                Ok(chunk) => return Ok(chunk),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, wished)) => (error, wished),
            };
            self.response = None;
            self.rest = Bytes::new();
            // A byte between two breaks is no progress.
            if self.at - self.broke >= TRICKLE {
                self.tries = 0;
            }
            if self.tries >= RETRIES || wished.is_some_and(|w| w > self.wire.remote.stall * 2) {
                return Err(error);
            }
            std::thread::sleep(wished.unwrap_or(Duration::ZERO).max(self.wire.remote.pause(self.tries)));
            self.tries += 1;
            self.broke = self.at;
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut chunk = self.advance()?;
        let remote = &*self.wire.remote;
        if self.at + chunk.len() as u64 > self.size {
            return Err(remote.error(format!("it sends more of {} than its {} bytes", self.short(), self.size)));
        }
        let part = chunk.split_to(chunk.len().min(buffer.len()));
        buffer[..part.len()].copy_from_slice(&part);
        self.at += part.len() as u64;
        self.rest = chunk;
        Ok(part.len())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill(buffer).map_err(|error| {
            let text = error.message().to_string();
            *self.blame.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            std::io::Error::other(text)
        })
    }
}
