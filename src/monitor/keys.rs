//! The keys that let go of a sandbox's terminal. Called by `relay`, for what a person types.
//!
//! What may be their beginning is kept back until the next key says whether it is: as Docker does, so that ctrl-p alone, with the default,
//! arrives together with the key after it.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// As Docker writes them: characters, or `ctrl-` and one of a-z @ [ \ ] ^ _ ., with commas between. None: no key lets go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keys(Vec<u8>);

impl Default for Keys {
    fn default() -> Keys {
        Keys(vec![0x10, 0x11]) // ctrl-p,ctrl-q
    }
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where they begin in what was typed; or how many bytes at its end may be their beginning.
    pub(super) fn find(&self, typed: &[u8]) -> Typed {
        if self.0.is_empty() {
            return Typed::Maybe(0);
        }
        if let Some(at) = typed.windows(self.0.len()).position(|w| w == self.0) {
            return Typed::Here(at);
        }
        let begins = |n: &usize| self.0.get(..*n).is_some_and(|first| typed.ends_with(first));
        Typed::Maybe((1..self.0.len()).rev().find(begins).unwrap_or(0))
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Here(usize),
    Maybe(usize),
}

fn key(word: &str) -> Option<u8> {
    let byte = |text: &str| <[u8; 1]>::try_from(text.as_bytes()).ok().map(|[b]| b);
    match word.strip_prefix("ctrl-") {
        // docker: pkg/term/ascii.go; its ctrl-. is no control character, and is not known by it either.
        Some(letter) => byte(letter).filter(|b| b"abcdefghijklmnopqrstuvwxyz@[\\]^_".contains(b)).map(|b| b & 0x1f),
        None => byte(word).filter(u8::is_ascii_graphic),
    }
}

impl FromStr for Keys {
    type Err = Error;
    fn from_str(s: &str) -> Result<Keys> {
        if s.is_empty() {
            return Ok(Keys(Vec::new()));
        }
        let keys: Option<Vec<u8>> = s.split(',').map(key).collect();
        let bad = || Error::usage(format!("bad keys '{s}': characters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between, at most 16"));
        keys.filter(|keys| keys.len() <= 16).map(Keys).ok_or_else(bad)
    }
}

impl TryFrom<String> for Keys {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Keys> for String {
    fn from(keys: Keys) -> String {
        keys.to_string()
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match byte {
                0 => write!(f, "{comma}ctrl-@")?,
                1..=26 => write!(f, "{comma}ctrl-{}", char::from(byte | 0x60))?,
                27..=31 => write!(f, "{comma}ctrl-{}", char::from(byte | 0x40))?,
                _ => write!(f, "{comma}{}", char::from(*byte))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_as_docker_says_them() {
        for (said, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("ctrl-@", &[0]),
            ("a", b"a"),
            ("a,b,ctrl-[", &[97, 98, 27]),
            ("ctrl-\\,ctrl-],ctrl-^,ctrl-_", &[28, 29, 30, 31]),
            ("~,.", b"~."),
            ("", b""),
        ] {
            let keys: Keys = said.parse().unwrap();
            assert_eq!((keys.0.as_slice(), keys.to_string().as_str()), (bytes, said));
        }
        assert_eq!(Keys::default().to_string(), "ctrl-p,ctrl-q");
        for said in [",", "ab", "ctrl-", "ctrl-P", "ctrl-1", "a,,b", "ä", "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", "shift-a"] {
            assert!(said.parse::<Keys>().is_err(), "{said}");
        }
    }

    #[test]
    fn found_in_what_is_typed() {
        let keys: Keys = "a,a,b".parse().unwrap();
        assert_eq!(keys.find(b"xaab"), Typed::Here(1));
        assert_eq!(keys.find(b"aaab"), Typed::Here(1));
        assert_eq!(keys.find(b"xa"), Typed::Maybe(1));
        assert_eq!(keys.find(b"xaaa"), Typed::Maybe(2));
        assert_eq!(keys.find(b"abab"), Typed::Maybe(0));
        assert_eq!(keys.find(b""), Typed::Maybe(0));
        assert_eq!("".parse::<Keys>().unwrap().find(b"abc"), Typed::Maybe(0));
    }
}
