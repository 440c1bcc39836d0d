//! `sandbox logs`: what a detached sandbox said. Called by `cli::main`; the records are `logs`'.
#![forbid(unsafe_code)]

use crate::container::store::Sandboxes;
use crate::error::{Doing, Error, Kind, Result, printable};
use crate::host::Caller;
use crate::logs::read::{Wish, read};
use crate::logs::{Record, Stream};
use crate::moment::Moment;
use clap::Args;
use rustix::fs::{Mode, OFlags};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

/// Show what a detached sandbox said
///
/// Its stdout on stdout and its stderr on stderr, also after its end. What is kept is bounded, by --log-max of run and create. Where
/// stdout is a terminal, control characters are shown as \x1b and the like, so that what is shown cannot be forged; not for a sandbox with
/// a terminal of its own, whose output is meant for one.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on with what it says, until its end
    #[arg(short, long)]
    follow: bool,
    /// Only what was said from then on: a time as 2026-11-24T21:00:00Z, seconds since 1970, or how long ago, as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was said until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only the last N lines; all: every line
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = lines)]
    tail: Lines,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Leave control characters as they are
    #[arg(long)]
    raw: bool,
    /// Its name or ID
    #[arg(value_name = "SANDBOX")]
    sandbox: String,
}

#[derive(Debug, Clone, Copy)]
struct Lines(Option<u64>);

fn lines(word: &str) -> std::result::Result<Lines, String> {
    match word {
        "all" | "-1" => Ok(Lines(None)),
        n => n.parse().map(|n| Lines(Some(n))).map_err(|_| "a number, or all".to_string()),
    }
}

pub fn logs(args: LogsArgs) -> Result<()> {
    let sandboxes = Sandboxes::open(&Caller::me()?.home);
    let sandbox = sandboxes.find(&args.sandbox)?;
    let name = &sandbox.config.name;
    if !sandbox.config.options.detached {
        let e = Error::new(Kind::NotFound, format!("cannot show what '{name}' says: it runs in the foreground, where it is seen"));
        return Err(e.hint("run -d keeps what is said"));
    }
    if sandbox.config.options.log.files == 0 {
        return Err(Error::new(Kind::NotFound, format!("cannot show what '{name}' said: it was made with --log-max none")));
    }
    let now = Moment::now();
    let time = |word: &Option<String>| word.as_deref().map(|word| Moment::said(word, now)).transpose();
    let wish = Wish { follow: args.follow, since: time(&args.since)?, until: time(&args.until)?, tail: args.tail.0 };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&sandbox.dir, flags, Mode::empty()).doing("open", sandbox.dir.display())?;
    let raw = args.raw || sandbox.config.spec.process.tty;
    let (out, err) = (io::stdout(), io::stderr());
    let mut printer = Printer {
        times: args.timestamps,
        out: Shown::new(io::BufWriter::new(out.lock()), !raw && out.is_terminal()),
        err: Shown::new(io::BufWriter::new(err.lock()), !raw && err.is_terminal()),
    };
    read(dir.as_fd(), &wish, out.as_fd(), &mut || sandbox.lives(), &mut |record| printer.tell(record))?;
    printer.tell(None).or_else(|e| if e.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(e) }).doing("write", "the log")
}

struct Printer<O: Write, E: Write> {
    times: bool,
    out: Shown<O>,
    err: Shown<E>,
}

impl<O: Write, E: Write> Printer<O, E> {
    /// Each stream is flushed before the other goes on: they may be one terminal.
    fn tell(&mut self, record: Option<Record>) -> io::Result<()> {
        match record {
            Some(r) if r.stream == Stream::Stdout => {
                self.err.to.flush()?;
                self.out.show(&r, self.times)
            }
            Some(r) => {
                self.out.to.flush()?;
                if r.stream == Stream::Note {
                    return writeln!(self.err.to, "sandbox: note: {}", printable(&String::from_utf8_lossy(r.text)));
                }
                self.err.show(&r, self.times)
            }
            None => {
                self.out.to.flush()?;
                self.err.to.flush()
            }
        }
    }
}

/// One stream, as it is shown.
struct Shown<W: Write> {
    to: W,
    /// Control characters are told, not made. cve: 2023-28101
    escapes: bool,
    /// In the middle of a line.
    within: bool,
    /// The beginning of a character whose end is in the next record.
    carry: Vec<u8>,
}

impl<W: Write> Shown<W> {
    fn new(to: W, escapes: bool) -> Shown<W> {
        Shown { to, escapes, within: false, carry: Vec::new() }
    }

    fn show(&mut self, r: &Record, times: bool) -> io::Result<()> {
        if times && !self.within {
            write!(self.to, "{} ", r.time)?;
        }
        self.within = !r.ends;
        if self.escapes {
            let text = self.visible(r);
            self.to.write_all(text.as_bytes())?;
        } else {
            self.to.write_all(r.text)?;
        }
        if r.ends { self.to.write_all(b"\n") } else { Ok(()) }
    }

    fn visible(&mut self, r: &Record) -> String {
        let all = [std::mem::take(&mut self.carry).as_slice(), r.text].concat();
        let mut text = String::new();
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text += &chunk.valid().split('\t').map(|part| printable(&part.replace('\n', "\\n"))).collect::<Vec<_>>().join("\t");
            let cut = chunk.invalid().first().is_some_and(|b| {
                chunk.invalid().len()
                    < if *b >= 0xf0 {
                        4
                    } else if *b >= 0xe0 {
                        3
                    } else {
                        2
                    }
            });
            if chunks.peek().is_none() && cut && !r.ends && chunk.invalid().first().is_some_and(|b| (0xc2..0xf5).contains(b)) {
                self.carry = chunk.invalid().to_vec();
            } else {
                chunk.invalid().iter().for_each(|b| text += &format!("\\x{b:02x}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(escapes: bool, times: bool, records: &[(&[u8], bool)]) -> String {
        let mut to = Shown::new(Vec::new(), escapes);
        for (text, ends) in records {
            to.show(&Record { time: Moment(1_709_210_096_000_000_789), stream: Stream::Stdout, ends: *ends, text }, times).unwrap();
        }
        String::from_utf8_lossy(&to.to).into_owned()
    }

    #[test]
    fn cve_2023_28101_a_log_cannot_move_the_cursor() {
        let text = "a\tb\u{1b}[2J\u{9b}1m\r\u{202e}\u{7}\0ä".as_bytes();
        assert_eq!(shown(true, false, &[(text, true)]), "a\tb\\u{1b}[2J\\u{9b}1m\\r\\u{202e}\\u{7}\\u{0}ä\n");
        assert_eq!(shown(true, false, &[(b"\x9b2J\xff\xc3", true)]), "\\x9b2J\\xff\\xc3\n");
        // As it is, for who wants it so.
        assert_eq!(shown(false, false, &[(text, true)]).as_bytes(), [text, b"\n"].concat());
    }

    #[test]
    fn a_character_in_two_records_is_one() {
        assert_eq!(shown(true, false, &[(b"a\xc3", false), (b"\xa4\xe2\x82", false), (b"\xac", true)]), "aä€\n");
        assert_eq!(shown(true, false, &[(b"a\xe2\x82", false), (b"b", true)]), "a\\xe2\\x82b\n");
    }

    #[test]
    fn a_line_has_one_time() {
        let time = "2024-02-29T12:34:56.000000789Z ";
        assert_eq!(shown(false, true, &[(b"a", false), (b"b", true), (b"", true), (b"c", false)]), format!("{time}ab\n{time}\n{time}c"));
    }
}
