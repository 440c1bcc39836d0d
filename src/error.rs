//! The one error of the crate: what went wrong, while doing what, how to cure it, and which exit code it means.
//!
//! Everybody returns it; only `cli` prints it. A `Kind` exists only because somebody branches on it.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure this is; each maps to one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command line, a policy or a profile says something impossible.
    Usage,
    /// A named thing is not there.
    NotFound,
    /// The thing exists already, or is in use.
    Conflict,
    /// The host forbids it.
    Denied,
    /// The host cannot do it.
    Unsupported,
    /// The command is there and cannot be executed.
    CannotExecute,
    /// The command is not there.
    NoSuchCommand,
    /// Reading or writing failed.
    Io,
    /// We are wrong.
    Bug,
}

#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    context: Vec<String>,
    hint: Option<String>,
}

impl Error {
    /// `message` is lower case, `cannot <verb> <object>: <why>`, with no full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), context: Vec::new(), hint: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// The cure: what to type, or what to ask the administrator for.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What we were doing, added once where the object is known; the innermost comes first.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context.push(context.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn cure(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::CannotExecute => 126,
            Kind::NoSuchCommand => 127,
            _ => 125,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.message))?;
        for line in &self.context {
            write!(f, "\n  while: {}", printable(line))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {}", printable(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// `err.doing("open", path)`: an I/O error becomes ours, with the object named.
pub trait Doing<T> {
    fn doing(self, verb: &str, object: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, verb: &str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|e| {
            let e: std::io::Error = e.into();
            let error = Error::new(Kind::Io, format!("cannot {verb} {object}: {}", why(&e)));
            match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => error.hint(MAKE_ROOM),
                _ => error,
            }
        })
    }
}

/// Where the disk is full.
pub const MAKE_ROOM: &str = "make room: sandbox prune removes images, sandbox container prune what has ended";

/// The kernel's words for an error, without Rust's "(os error N)".
pub fn why(e: &std::io::Error) -> String {
    let text = e.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if e.raw_os_error().is_some() => first.to_lowercase().collect::<String>() + chars.as_str(),
        _ => text.to_string(),
    }
}

/// `text` as it may be shown to a person: control and direction-changing characters become `\x..` or `\u{..}`.
/// cve: 2023-28101 (escape sequences from outside decide what the user sees)
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || bidi {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2023_28101_no_escape_reaches_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\u{9b}"), "a\\u{1b}[2Jb\\u{202e}c\\u{9b}");
    }
}
