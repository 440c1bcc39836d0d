//! The writer: what came on a stream becomes records, in files of bounded size. Called by the monitor's loop for every piece that it reads.
//!
//! Never fails but at its opening: a disk that is full must not stop the sandbox. Writes to files of ours only, so it waits for a disk at most.

use super::{LONGEST, Limit, Stream, files, name, open};
use crate::error::Result;
use crate::moment::Moment;
use rustix::fs::{AtFlags, FlockOperation, OFlags, flock, ftruncate, unlinkat};
use rustix::io::{Errno, pwrite};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// So many bytes are gathered before they are written, and one more record at most.
const GATHERED: usize = 32 << 10;

/// How long a reader of the file that is to go can hold up the writer, and the sandbox with it. // I3
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether that reader is done.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Writer {
    dir: OwnedFd,
    limit: Limit,
    /// The file that is written to.
    number: u64,
    file: Option<File>,
    size: u64,
    /// Bytes of the sandbox that are not in the log, since there was no room, and why.
    lost: Option<(u64, Errno)>,
    gathered: Vec<u8>,
    /// Since when we wait for a reader, if we do.
    waits: Option<Instant>,
    /// When to look again whether it is done.
    look: Option<Instant>,
    /// A reader that did not move is not waited for again, until it is gone.
    impatient: bool,
}

impl Writer {
    /// Go on behind what is there.
    pub fn open(dir: OwnedFd, limit: Limit) -> Result<Writer> {
        let there = files(dir.as_fd())?;
        let number = there.last().copied().unwrap_or(1);
        let mut writer =
            Writer { dir, limit, number, file: None, size: 0, lost: None, gathered: Vec::new(), waits: None, look: None, impatient: false };
        if limit.files > 0 {
            writer.file = open(writer.dir.as_fd(), number, OFlags::RDWR | OFlags::CREATE)?;
            writer.size = writer.file.as_ref().map_or(0, whole);
            writer.cut();
        }
        writer.forget(&there);
        Ok(writer)
    }

    /// How much of it was taken. Less than all: a reader is waited for, so come again at the time that `wait` says.
    pub fn take(&mut self, stream: Stream, bytes: &[u8]) -> usize {
        if self.limit.files == 0 {
            return bytes.len();
        }
        let mut taken = 0;
        let head = format!("{} {} ", Moment::now(), stream.as_str());
        while taken < bytes.len() {
            let begin = taken;
            self.gathered.clear();
            while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty() && self.gathered.len() < GATHERED) {
                let window = rest.get(..LONGEST + 1).unwrap_or(rest);
                let (text, ends) = match window.iter().position(|b| *b == b'\n') {
                    Some(at) => (window.get(..at).unwrap_or_default(), true),
                    None => (window.get(..LONGEST).unwrap_or(window), false),
                };
                put(&mut self.gathered, &head, text, ends);
                taken += text.len() + usize::from(ends);
            }
            if !self.make_room(self.gathered.len()) {
                return begin;
            }
            self.write();
        }
        taken
    }

    /// When to come again with what was not taken.
    pub fn wait(&self) -> Option<Instant> {
        self.look
    }

    /// Begin the next file if this one is full. False: a reader of what would go is waited for.
    fn make_room(&mut self, length: usize) -> bool {
        if self.size == 0 || self.size + length as u64 <= self.limit.size.0 {
            return true;
        }
        let next = self.number + 1;
        let oldest = next.saturating_sub(u64::from(self.limit.files));
        if self.is_read(oldest) {
            let since = *self.waits.get_or_insert_with(Instant::now);
            if !self.impatient && since.elapsed() < PATIENCE {
                self.look = Instant::now().checked_add(LOOK);
                return false;
            }
            self.impatient = true;
        } else {
            self.impatient = false;
        }
        (self.waits, self.look) = (None, None);
        // The old one goes first: what it frees may be the room for the next. A reader has it open.
        if oldest < self.number {
            self.remove(oldest);
        }
        match open(self.dir.as_fd(), next, OFlags::RDWR | OFlags::CREATE) {
            Ok(Some(file)) => {
                if oldest == self.number {
                    self.remove(oldest); // the only one: not before the next is there, or a reader could not go on
                }
                (self.file, self.number, self.size) = (Some(file), next, 0);
            }
            // No room for a name either: the file that we have goes on when there is some.
            Ok(None) | Err(_) => {
                let lost = payload(&self.gathered);
                self.lose(lost, Errno::NOSPC);
                self.gathered.clear();
            }
        }
        true
    }

    fn is_read(&self, number: u64) -> bool {
        let file = open(self.dir.as_fd(), number, OFlags::RDONLY).ok().flatten();
        file.is_some_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
    }

    fn remove(&self, number: u64) {
        let _ = unlinkat(&self.dir, name(number), AtFlags::empty());
    }

    /// What a smaller limit than before does not keep.
    fn forget(&self, there: &[u64]) {
        let kept = usize::try_from(self.limit.files).unwrap_or(usize::MAX);
        there.iter().rev().skip(kept).for_each(|number| self.remove(*number));
    }

    /// What was gathered, to the file; what does not fit is lost. // I2, I4
    fn write(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let note = self.lost.map(|(bytes, why)| {
            let mut note = Vec::new();
            let why = crate::error::why(&why.into());
            let text = format!("{bytes} bytes of output are missing here: {why}");
            put(&mut note, &format!("{} {} ", Moment::now(), Stream::Note.as_str()), text.as_bytes(), true);
            note
        });
        if let Some(note) = &note {
            self.gathered.splice(..0, note.iter().copied());
        }
        let (mut written, mut failed) = (0, None);
        while let Some(rest) = self.gathered.get(written..).filter(|rest| !rest.is_empty()) {
            let Some(file) = &self.file else {
                failed = Some(Errno::NOENT);
                break;
            };
            match pwrite(file, rest, self.size + written as u64) {
                Ok(0) => failed = Some(Errno::NOSPC),
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(e) => failed = Some(e),
            }
            if failed.is_some() {
                break;
            }
        }
        let told = note.as_ref().is_some_and(|note| written >= note.len());
        let Some(why) = failed else {
            self.size += written as u64;
            self.lost = None;
            return;
        };
        let end = self.gathered.get(..written).and_then(|w| w.iter().rposition(|b| *b == b'\n')).map_or(0, |at| at + 1);
        self.size += end as u64;
        self.cut();
        if told {
            self.lost = None;
        }
        let skipped = if told { end } else { end.max(note.map_or(0, |n| n.len())) };
        let lost = payload(self.gathered.get(skipped..).unwrap_or_default());
        self.lose(lost, why);
    }

    fn lose(&mut self, bytes: u64, why: Errno) {
        if bytes > 0 {
            self.lost = Some((self.lost.map_or(0, |(before, _)| before) + bytes, why));
        }
    }

    fn cut(&self) {
        let _ = self.file.as_ref().map(|file| ftruncate(file, self.size));
    }
}

fn put(into: &mut Vec<u8>, head: &str, text: &[u8], ends: bool) {
    into.extend_from_slice(head.as_bytes());
    into.extend_from_slice(if ends { b"F " } else { b"P " });
    into.extend_from_slice(text);
    into.push(b'\n');
}

/// How many bytes of the sandbox are in these records.
fn payload(records: &[u8]) -> u64 {
    let lines = records.split_inclusive(|b| *b == b'\n').filter_map(|line| super::record(line.strip_suffix(b"\n")?));
    lines.map(|r| r.text.len() as u64 + u64::from(r.ends)).sum()
}

/// Up to the end of the last whole record: whoever wrote before us may have been killed at it.
fn whole(file: &File) -> u64 {
    let size = file.metadata().map_or(0, |m| m.len());
    let mut tail = vec![0; LONGEST + 256];
    let from = size.saturating_sub(tail.len() as u64);
    let read = file.read_at(&mut tail, from).unwrap_or(0);
    let end = tail.get(..read).and_then(|t| t.iter().rposition(|b| *b == b'\n'));
    end.map_or(0, |at| from + at as u64 + 1)
}
