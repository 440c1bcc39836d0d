//! What a person sees while bytes travel: bars on a terminal, lines elsewhere, nothing if they want quiet. Always on stderr.
//!
//! Called by `pull`, `push` and `cli`.

use crate::error::printable;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Read, Write};

pub struct Progress(How);

enum How {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        Progress(match quiet {
            true => How::Quiet,
            false if std::io::stderr().is_terminal() => How::Bars(MultiProgress::new()),
            false => How::Lines,
        })
    }

    /// A line to read.
    pub fn note(&self, text: &str) {
        let text = printable(text);
        match &self.0 {
            How::Quiet => {}
            How::Bars(bars) => bars.suspend(|| drop(writeln!(std::io::stderr(), "{text}"))),
            How::Lines => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }

    /// One thing begins to move.
    pub fn begin(&self, name: &str, size: u64) -> Meter {
        let bar = match &self.0 {
            How::Bars(bars) => {
                let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}");
                let bar = bars.add(ProgressBar::new(size).with_prefix(name.to_string()));
                Some(style.map(|s| bar.clone().with_style(s)).unwrap_or(bar))
            }
            _ => None,
        };
        let line = (!matches!(self.0, How::Quiet)).then(|| format!("{name}: {}", bytes(size)));
        Meter { bar, line, is_copy: false }
    }
}

/// The way of one thing.
pub struct Meter {
    bar: Option<ProgressBar>,
    line: Option<String>,
    is_copy: bool,
}

impl Meter {
    /// A reader that moves this meter, from the beginning.
    pub fn watch<R>(&self, reader: R) -> Metered<R> {
        if let Some(bar) = &self.bar {
            bar.set_position(0);
        }
        Metered { reader, meter: Meter { bar: self.bar.clone(), line: None, is_copy: true } }
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(n);
        }
    }

    /// The bar becomes a line.
    pub fn done(&mut self) {
        let Some(line) = self.line.take() else { return };
        let say = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

impl Drop for Meter {
    /// Whatever is said next begins on a line of its own.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take().filter(|_| !self.is_copy) {
            bar.finish_and_clear();
        }
    }
}

/// A reader that moves a meter.
pub struct Metered<R> {
    pub reader: R,
    pub meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if n == 0 && !buffer.is_empty() {
            self.meter.done();
        }
        self.meter.advance(n as u64);
        Ok(n)
    }
}

/// A size for people.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}
