//! Names with a grammar: each is parsed once, and printed the same way everywhere.
//!
//! Called by everybody; does no I/O.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a sandbox: a letter or digit, then letters, digits, `_`, `.`, `-`; at most 63 bytes, so that it is also a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let ok = (1..=63).contains(&s.len())
            && s.as_bytes()[0].is_ascii_alphanumeric()
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if ok {
            Ok(Name(s.to_string()))
        } else {
            Err(Error::usage(format!("bad name '{s}': a letter or digit, then letters, digits, '_', '.', '-', at most 63")))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(n: Name) -> String {
        n.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A size as Docker spells it: a number, then nothing or `b`, `k`, `m`, `g`, `t` (binary units, also `kb`, `kib`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad size '{s}': a whole number with an optional unit b, k, m, g or t"));
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let shift = match s[digits..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = s[..digits].parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).filter(|n| *n <= i64::MAX as u64).map(Bytes).ok_or_else(bad)
    }
}

impl TryFrom<String> for Bytes {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Bytes> for String {
    fn from(b: Bytes) -> String {
        b.to_string()
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "web-1", "9.x_y"] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("64m", 64 << 20), ("1GiB", 1 << 30), ("7b", 7), ("2T", 2 << 40)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes);
        }
        for bad in ["", "m", "-1", "1.5g", "1e30", "9999999999t", "1 m", "0x10"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        assert_eq!(Bytes(64 << 20).to_string(), "64m");
    }
}
