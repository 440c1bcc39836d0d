//! The reader: records from the oldest file to the newest, and on with what is written meanwhile. Called by `sandbox logs`.
//!
//! Holds a shared lock on the file that it reads, and takes the next one's before it lets go: what it still needs stays for as long as the
//! writer is patient. Reads from the place behind the last whole record each time, so nothing is taken for a record that is half written.

use super::write::PATIENCE;
use super::{LONGEST, Record, Stream, files, open, record};
use crate::error::{Doing, Result};
use crate::moment::Moment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock, inotify};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub follow: bool,
    pub since: Option<Moment>,
    pub until: Option<Moment>,
    /// So many lines, the last ones.
    pub tail: Option<u64>,
}

/// Room for several records.
const BATCH: usize = 4 * LONGEST;

/// How long to wait for something to happen before looking whether the sandbox is still there; without inotify, whether there is more.
const IDLE: Duration = Duration::from_secs(1);
const BLIND: Duration = Duration::from_millis(50);

/// Every record that is wanted, to `tell`, until the log's end, or with `follow` until `lives` says no more; None: that is all for now.
/// `reader` is who gets it all: when that is gone, so are we.
pub fn read(
    dir: BorrowedFd,
    wish: &Wish,
    reader: BorrowedFd,
    lives: &mut dyn FnMut() -> bool,
    tell: &mut dyn FnMut(Option<Record>) -> io::Result<()>,
) -> Result<()> {
    let watch = Watch::new(dir, wish.follow);
    let mut shown = |r: Option<Record>| match tell(r) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).doing("write", "the log"),
    };
    let Some((mut source, end)) = begin(dir, wish)? else {
        return Ok(()); // nothing was ever kept
    };
    let (mut over, mut damaged) = (false, false);
    loop {
        let number = source.number;
        let length = source.batch()?.len();
        let mut wanted = length;
        // Without --follow what is written meanwhile is left out, or a sandbox that never stops would never let us.
        if !wish.follow && number == end.0 {
            let left = end.1.saturating_sub(source.at - length as u64);
            wanted = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let lines = source.buffer.get(..wanted).unwrap_or_default();
        for line in lines.split_inclusive(|b| *b == b'\n') {
            let Some(r) = line.strip_suffix(b"\n").and_then(record) else {
                if !std::mem::replace(&mut damaged, true) && !shown(note("what is in the log here is damaged"))? {
                    return Ok(());
                }
                continue;
            };
            damaged = false;
            // What is later may come first: clocks are set.
            let fits = wish.since.is_none_or(|since| r.time >= since) && wish.until.is_none_or(|until| r.time <= until);
            if fits && !shown(Some(r))? {
                return Ok(());
            }
        }
        if wanted > 0 {
            continue;
        }
        if !wish.follow && number >= end.0 {
            return Ok(());
        }
        match source.go_on(dir)? {
            Onward::Here => continue,
            Onward::Behind if !shown(note(&format!("this reader was {} s behind, and what was written meanwhile is gone", PATIENCE.as_secs())))? => {
                return Ok(());
            }
            Onward::Behind => continue,
            Onward::End => {}
        }
        if over || !wish.follow || wish.until.is_some_and(|until| Moment::now() > until) {
            return Ok(());
        }
        // Looked at first and read after: what it wrote last is there then.
        over = !lives();
        if !over && (!shown(None)? || !watch.wait(reader)?) {
            return Ok(());
        }
    }
}

fn note(text: &str) -> Option<Record<'_>> {
    Some(Record { time: Moment::now(), stream: Stream::Note, ends: true, text: text.as_bytes() })
}

/// Where to begin, and where the log ends now.
fn begin(dir: BorrowedFd, wish: &Wish) -> Result<Option<(Source, (u64, u64))>> {
    let mut there: VecDeque<(u64, Source)> = VecDeque::new();
    for number in files(dir)? {
        // One that goes meanwhile is gone.
        let Some(source) = Source::open(dir, number)? else { continue };
        there.push_back((source.file.metadata().doing("look at", super::name(number))?.len(), source));
    }
    let Some(end) = there.back().map(|(size, source)| (source.number, *size)) else { return Ok(None) };
    if let Some(lines) = wish.tail {
        return Ok(tail(there, lines)?.map(|source| (source, end)));
    }
    if let Some(since) = wish.since {
        let old = |file: &File| {
            let last = file.metadata().ok().and_then(|m| m.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok());
            last.is_some_and(|last| last.as_nanos() < u128::from(since.0))
        };
        while there.len() > 1 && there.front().is_some_and(|(_, source)| old(&source.file)) {
            there.pop_front();
        }
    }
    Ok(there.pop_front().map(|(_, source)| (source, end)))
}

/// Before the last `lines` lines. The files are read from the newest to the oldest, and no more of them than needed.
fn tail(mut there: VecDeque<(u64, Source)>, lines: u64) -> Result<Option<Source>> {
    let (mut wanted, mut newest) = (lines, true);
    let mut first = None;
    while let Some((size, mut source)) = there.pop_back() {
        // Behind each line's end, and the first byte.
        let mut ends = vec![0u64];
        let mut whole = true;
        loop {
            let from = source.at;
            let lines = source.batch()?;
            if lines.is_empty() || from >= size {
                break;
            }
            let mut at = from;
            for line in lines.split_inclusive(|b| *b == b'\n') {
                at += line.len() as u64;
                if let Some(r) = line.strip_suffix(b"\n").and_then(record).filter(|r| r.stream != Stream::Note) {
                    whole = r.ends;
                    if r.ends {
                        ends.push(at);
                    }
                }
            }
        }
        // The last line may not have ended yet.
        if std::mem::take(&mut newest) && !whole {
            wanted = wanted.saturating_sub(1);
        }
        let has = ends.len() as u64 - 1;
        if has > wanted || there.is_empty() {
            let skipped = usize::try_from(has.saturating_sub(wanted)).unwrap_or(usize::MAX);
            source.at = ends.get(skipped).copied().unwrap_or(size);
            return Ok(Some(source));
        }
        wanted -= has;
        first = Some(source);
    }
    Ok(first)
}

/// One of the files, and how far it is read.
struct Source {
    file: File,
    number: u64,
    /// The next byte.
    at: u64,
    /// The next file, once it is there: then this one is complete.
    next: Option<Box<Source>>,
    buffer: Vec<u8>,
}

enum Onward {
    /// There may be more.
    Here,
    /// The writer has passed us by.
    Behind,
    End,
}

impl Source {
    fn open(dir: BorrowedFd, number: u64) -> Result<Option<Source>> {
        let Some(file) = open(dir, number, OFlags::RDONLY)? else { return Ok(None) };
        // Whoever has it exclusively is looking whether we have it shared, and is done at once. Without locks we read, too.
        let _ = flock(&file, FlockOperation::LockShared);
        Ok(Some(Source { file, number, at: 0, next: None, buffer: Vec::new() }))
    }

    /// The next whole records, also as `buffer`; none: there are none yet.
    fn batch(&mut self) -> Result<&[u8]> {
        self.buffer.resize(BATCH, 0);
        let read = loop {
            match self.file.read_at(&mut self.buffer, self.at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.doing("read", super::name(self.number))?,
            }
        };
        let whole = self.buffer.get(..read).and_then(|b| b.iter().rposition(|b| *b == b'\n')).map(|at| at + 1);
        // No record is so long: it is damage, to be skipped.
        let length = whole.unwrap_or(if read == BATCH { read } else { 0 });
        self.buffer.truncate(length);
        self.at += length as u64;
        Ok(&self.buffer)
    }

    /// Nothing more is here now: is this one's end reached?
    fn go_on(&mut self, dir: BorrowedFd) -> Result<Onward> {
        // Seen before we read to the end, so that was the end.
        if let Some(next) = self.next.take() {
            *self = *next;
            return Ok(Onward::Here);
        }
        self.next = Source::open(dir, self.number + 1)?.map(Box::new);
        if self.next.is_some() {
            return Ok(Onward::Here);
        }
        let further = files(dir)?.into_iter().find(|number| *number > self.number);
        match further {
            None => Ok(Onward::End),
            Some(number) if number == self.number + 1 => Ok(Onward::Here), // just made
            Some(number) => match Source::open(dir, number)? {
                Some(source) => {
                    *self = source;
                    Ok(Onward::Behind)
                }
                None => Ok(Onward::Here), // gone again: look once more
            },
        }
    }
}

/// What tells that there is more to read.
struct Watch(Option<OwnedFd>);

impl Watch {
    fn new(dir: BorrowedFd, follow: bool) -> Watch {
        let watch = || {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, format!("/proc/self/fd/{}", dir.as_raw_fd()), what).map(|_| fd)
        };
        Watch(follow.then(|| watch().ok()).flatten())
    }

    /// Until something may have changed. False: nobody reads us any more.
    fn wait(&self, reader: BorrowedFd) -> Result<bool> {
        let limit = if self.0.is_some() { IDLE } else { BLIND };
        let mut fds = vec![PollFd::from_borrowed_fd(reader, PollFlags::empty())];
        fds.extend(self.0.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, Timespec::try_from(limit).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).doing("wait for", "the log"),
        }
        let gone = fds.first().is_some_and(|fd| fd.revents().intersects(PollFlags::ERR | PollFlags::NVAL));
        if let Some(fd) = &self.0 {
            while rustix::io::read(fd, &mut [0; 4096]).is_ok_and(|n| n > 0) {}
        }
        Ok(!gone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limit;
    use super::super::write::Writer;
    use super::*;
    use std::os::fd::AsFd;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    struct Place(PathBuf, OwnedFd);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("sandbox-logs-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            let dir = File::open(&path).unwrap().into();
            Place(path, dir)
        }

        fn writer(&self, limit: &str) -> Writer {
            Writer::open(self.1.try_clone().unwrap(), limit.parse().unwrap()).unwrap()
        }

        fn read(&self, wish: &Wish) -> Vec<(Stream, bool, Vec<u8>)> {
            let mut all = Vec::new();
            let null = File::open("/dev/null").unwrap();
            read(self.1.as_fd(), wish, null.as_fd(), &mut || false, &mut |r| {
                let Some(r) = r else { return Ok(()) };
                all.push((r.stream, r.ends, r.text.to_vec()));
                Ok(())
            })
            .unwrap();
            all
        }

        /// What was written to one stream, byte for byte.
        fn bytes(&self, stream: Stream) -> Vec<u8> {
            let records = self.read(&Wish::default());
            let of = records.into_iter().filter(|(s, ..)| *s == stream);
            of.fold(Vec::new(), |mut all, (_, ends, text)| {
                all.extend(text);
                all.extend(ends.then_some(b'\n'));
                all
            })
        }

        fn lines(&self, wish: &Wish) -> String {
            let text: Vec<_> =
                self.read(wish).into_iter().map(|(_, ends, t)| String::from_utf8_lossy(&t).into_owned() + if ends { "|" } else { "" }).collect();
            text.concat()
        }

        fn size(&self) -> u64 {
            std::fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn all(writer: &mut Writer, stream: Stream, bytes: &[u8]) {
        assert_eq!(writer.take(stream, bytes), bytes.len());
    }

    #[test]
    fn any_byte_comes_back() {
        let place = Place::new("bytes");
        let mut writer = place.writer("64k:1000");
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(300_000)
        .collect();
        let long = vec![b'x'; 3 * LONGEST + 5];
        for piece in [&b"one\ntwo"[..], b" more\n\n\n", &noise, b"\n", &long, b"\n", &[0; 10], b"end"] {
            all(&mut writer, Stream::Stdout, piece);
            all(&mut writer, Stream::Stderr, b"e\n");
        }
        let expected = [&b"one\ntwo more\n\n\n"[..], &noise, b"\n", &long, b"\n", &[0; 10], b"end"].concat();
        assert!(place.bytes(Stream::Stdout) == expected);
        assert_eq!(place.bytes(Stream::Stderr), b"e\n".repeat(8));
        let longest = place.read(&Wish::default()).iter().map(|(.., text)| text.len()).max();
        assert_eq!(longest, Some(LONGEST));
        // As it stands in the file.
        let text = std::fs::read(place.0.join("log.1")).unwrap();
        let first = text.split(|b| *b == b'\n').next().unwrap();
        assert!(first.ends_with(b"Z stdout F one"), "{}", String::from_utf8_lossy(first));
    }

    #[test]
    fn bounded_and_in_order() {
        let place = Place::new("bounded");
        let mut writer = place.writer("64k:3");
        for n in 0..20_000 {
            all(&mut writer, Stream::Stdout, format!("line {n}\n").as_bytes());
            assert!(n % 1000 != 0 || place.size() <= 3 << 16);
        }
        all(&mut writer, Stream::Stdout, &[b'\n'; 1 << 20]);
        assert!((3 << 15..=3 << 16).contains(&place.size()), "{}", place.size());
        for n in 0..3000 {
            all(&mut writer, Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let lines = place.bytes(Stream::Stdout);
        assert!(lines.ends_with(b"line 2998\nline 2999\n") && lines.windows(10).any(|w| w == b"\nline 1999"));
        // Smaller limits hold from the next start on.
        drop(writer);
        all(&mut place.writer("64k:1"), Stream::Stdout, b"again\n");
        assert!(place.size() <= 1 << 16 && place.bytes(Stream::Stdout).ends_with(b"line 2999\nagain\n"));
    }

    #[test]
    fn what_a_killed_writer_left_half_is_cut() {
        let place = Place::new("torn");
        all(&mut place.writer("64k:2"), Stream::Stdout, b"one\ntwo\n");
        let file = place.0.join("log.1");
        let text = std::fs::read(&file).unwrap();
        std::fs::write(&file, &text[..text.len() - 3]).unwrap();
        assert_eq!(place.lines(&Wish::default()), "one|");
        all(&mut place.writer("64k:2"), Stream::Stdout, b"three\n");
        assert_eq!(place.lines(&Wish::default()), "one|three|");
    }

    #[test]
    fn tails() {
        let place = Place::new("tails");
        let mut writer = place.writer("64k:9");
        for n in 0..4000 {
            all(&mut writer, Stream::Stdout, format!("{n:040}").as_bytes());
            all(&mut writer, Stream::Stdout, b".\n");
        }
        let tail = |lines| place.lines(&Wish { tail: Some(lines), ..Wish::default() });
        assert_eq!(tail(0), "");
        assert_eq!(tail(2), format!("{:040}.|{:040}.|", 3998, 3999));
        for lines in [700, 701, 1500, 3999, 4000] {
            let text = tail(lines);
            assert!(text.matches('|').count() as u64 == lines && text.starts_with(&format!("{:040}.|", 4000 - lines)), "{lines}");
        }
        assert_eq!(tail(5000).matches('|').count(), 4000);
        all(&mut writer, Stream::Stdout, b"not ended");
        assert_eq!(tail(1), "not ended");
        assert_eq!(tail(2), format!("{:040}.|not ended", 3999));
    }

    #[test]
    fn since_and_until() {
        let place = Place::new("since");
        let mut writer = place.writer("64k:9");
        let mut times = Vec::new();
        for n in 0..5 {
            std::thread::sleep(Duration::from_millis(2));
            times.push(Moment::now());
            std::thread::sleep(Duration::from_millis(2));
            all(&mut writer, Stream::Stdout, format!("{n}\n").as_bytes());
        }
        assert_eq!(place.lines(&Wish { since: Some(times[3]), ..Wish::default() }), "3|4|");
        assert_eq!(place.lines(&Wish { until: Some(times[3]), ..Wish::default() }), "0|1|2|");
        assert_eq!(place.lines(&Wish { since: Some(times[1]), until: Some(times[2]), ..Wish::default() }), "1|");
        assert_eq!(place.lines(&Wish { since: Some(times[1]), tail: Some(2), ..Wish::default() }), "3|4|");
    }

    /// The writer is as fast as it can, the files as small as they may be.
    #[test]
    fn a_follower_loses_nothing() {
        let place = Place::new("follow");
        let mut writer = place.writer("64k:2");
        all(&mut writer, Stream::Stdout, b"line 0\n");
        let lives = AtomicBool::new(true);
        let null = File::open("/dev/null").unwrap();
        std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let (mut expected, mut part) = (0, String::new());
                let wish = Wish { follow: true, ..Wish::default() };
                read(place.1.as_fd(), &wish, null.as_fd(), &mut || lives.load(Ordering::SeqCst), &mut |r| {
                    let Some(r) = r else { return Ok(()) };
                    assert_ne!(r.stream, Stream::Note, "{}", String::from_utf8_lossy(r.text));
                    part.push_str(std::str::from_utf8(r.text).unwrap());
                    if r.ends {
                        assert_eq!(part, format!("line {expected}"));
                        (expected, part) = (expected + 1, String::new());
                    }
                    Ok(())
                })
                .unwrap();
                expected
            });
            std::thread::sleep(Duration::from_millis(100));
            let text: String = (1..100_000).map(|n| format!("line {n}\n")).collect();
            for mut piece in text.as_bytes().chunks(5003) {
                while !piece.is_empty() {
                    let taken = writer.take(Stream::Stdout, piece);
                    piece = &piece[taken..];
                    if !piece.is_empty() {
                        assert!(writer.wait().is_some());
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            lives.store(false, Ordering::SeqCst);
            assert_eq!(follower.join().unwrap(), 100_000);
        });
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_the_writer_once() {
        let place = Place::new("stuck");
        let mut writer = place.writer("64k:1");
        all(&mut writer, Stream::Stdout, b"one\n");
        let mut stuck = Source::open(place.1.as_fd(), 1).unwrap().unwrap();
        let much = vec![b'x'; 120 << 10];
        let begin = Instant::now();
        let mut rest = &much[..];
        while !rest.is_empty() {
            let taken = writer.take(Stream::Stdout, rest);
            rest = &rest[taken..];
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!((PATIENCE..PATIENCE * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        let begin = Instant::now();
        for _ in 0..5 {
            all(&mut writer, Stream::Stdout, &much);
        }
        assert!(begin.elapsed() < PATIENCE);
        while !stuck.batch().unwrap().is_empty() {}
        assert!(matches!(stuck.go_on(place.1.as_fd()).unwrap(), Onward::Behind));
    }

    #[test]
    fn links_and_others_files_are_refused() {
        let place = Place::new("links");
        std::os::unix::fs::symlink("/etc/passwd", place.0.join("log.1")).unwrap();
        assert!(Writer::open(place.1.try_clone().unwrap(), Limit::default()).is_err());
        assert!(Source::open(place.1.as_fd(), 1).is_err());
        std::fs::remove_file(place.0.join("log.1")).unwrap();
        rustix::fs::mknodat(&place.1, "log.1", rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(Source::open(place.1.as_fd(), 1).is_err());
    }

    #[test]
    fn damage_is_told_and_passed() {
        let place = Place::new("damage");
        all(&mut place.writer("64k:2"), Stream::Stdout, b"one\n");
        let file = place.0.join("log.1");
        let mut text = std::fs::read(&file).unwrap();
        text.extend(vec![b'x'; 2 * BATCH]);
        text.extend(b"\n");
        text.extend_from_slice(&std::fs::read(&file).unwrap());
        std::fs::write(&file, &text).unwrap();
        let lines = place.lines(&Wish::default());
        assert!(lines.starts_with("one|") && lines.ends_with("one|") && lines.contains("damaged"), "{lines}");
    }
}
