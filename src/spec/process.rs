//! The command and what it is born with. Called by `spec`, `cli` and `launch`; no I/O.
#![forbid(unsafe_code)]

use super::Reasoned;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::{fmt, str::FromStr};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Bytes: a file's name need not be UTF-8.
    #[serde(with = "words")]
    pub argv: Vec<OsString>,
    pub env: BTreeMap<String, String>,
    pub env_pass: Vec<Reasoned>,
    /// None: the caller's in host-tree mode, `/` otherwise.
    pub cwd: Option<PathBuf>,
    pub user: Option<User>,
    pub hostname: Option<String>,
    pub interactive: bool,
    pub tty: bool,
    pub umask: u32,
    /// An init of ours as PID 1; without it the command itself is PID 1 (policy `nested` only).
    pub init: bool,
    pub stop_signal: i32,
    /// Seconds.
    pub timeout: Option<u64>,
    pub oom_score_adj: i32,
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Descriptors 3 to 3+N-1 go to the command.
    pub preserve_fds: u32,
}

impl Process {
    /// The command, for people.
    pub fn words(&self) -> Vec<String> {
        self.argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }
}

/// Text for people; bytes only for the word that is none.
mod words {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(words: &[OsString], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(words.iter().map(|w| w.to_str().map_or_else(|| Word::Bytes(w.as_bytes().to_vec()), |text| Word::Text(text.into()))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<OsString>, D::Error> {
        let word = |w| match w {
            Word::Text(text) => text.into(),
            Word::Bytes(bytes) => OsString::from_vec(bytes),
        };
        Ok(Vec::<Word>::deserialize(from)?.into_iter().map(word).collect())
    }
}

/// One of the three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    In,
    Out,
    Err,
}

/// `-u`: a name or a number, then `:` and a group. Names are looked up in the root's own passwd and group files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User {
    pub user: String,
    pub group: Option<String>,
}

impl FromStr for User {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let (user, group) = match s.split_once(':') {
            Some((u, g)) => (u, Some(g)),
            None => (s, None),
        };
        let word = |w: &str| {
            !w.is_empty()
                && w.len() <= 256
                && !w.starts_with(['-', '+'])
                && w.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != ':' && c != '/')
        };
        if !word(user) || group.is_some_and(|g| !word(g)) {
            return Err(Error::usage(format!("bad user '{s}': USER or USER:GROUP, each a name or a number")));
        }
        for part in std::iter::once(user).chain(group) {
            number(part)?;
        }
        Ok(User { user: user.to_string(), group: group.map(str::to_string) })
    }
}

/// A user or group word as a number, if it is one: decimal digits only, below 2^32 - 1, no leading zero but `0` itself.
/// cve: 2016-3697, 2024-40635 (a number taken for a name, or wrapped to 0)
pub fn number(word: &str) -> Result<Option<u32>> {
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let bad = || Error::usage(format!("bad id '{word}': a decimal number from 0 to 4294967294"));
    if word.len() > 1 && word.starts_with('0') {
        return Err(bad());
    }
    word.parse::<u32>().ok().filter(|n| *n != u32::MAX).map(Some).ok_or_else(bad)
}

impl TryFrom<String> for User {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<User> for String {
    fn from(u: User) -> String {
        u.to_string()
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(g) => write!(f, "{}:{g}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

/// One extent of an id map: `INSIDE:HOST:COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdMapping {
    pub inside: u32,
    pub host: u32,
    pub count: u32,
}

impl FromStr for IdMapping {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad id map '{s}': INSIDE:HOST:COUNT, three decimal numbers"));
        let mut parts = s.split(':');
        let mut next = || number(parts.next().unwrap_or("")).ok().flatten().ok_or_else(bad);
        let (inside, host, count) = (next()?, next()?, next()?);
        let fits = |start: u32| start.checked_add(count).is_some();
        if parts.next().is_some() || count == 0 || !fits(inside) || !fits(host) {
            return Err(bad());
        }
        Ok(IdMapping { inside, host, count })
    }
}

impl TryFrom<String> for IdMapping {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<IdMapping> for String {
    fn from(m: IdMapping) -> String {
        format!("{}:{}:{}", m.inside, m.host, m.count)
    }
}

/// Soft and hard; None is unlimited. man: setrlimit(2)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ulimit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

impl FromStr for Ulimit {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad limit '{s}': SOFT or SOFT:HARD, whole numbers or 'unlimited'"));
        let one = |w: &str| match w {
            "unlimited" | "-1" => Ok(None),
            _ if !w.is_empty() && w.bytes().all(|b| b.is_ascii_digit()) => w.parse().map(Some).map_err(|_| bad()),
            _ => Err(bad()),
        };
        let (soft, hard) = match s.split_once(':') {
            Some((a, b)) => (one(a)?, one(b)?),
            None => (one(s)?, one(s)?),
        };
        if hard.is_some_and(|h| soft.is_none_or(|s| s > h)) {
            return Err(Error::usage(format!("bad limit '{s}': the soft limit is above the hard one")));
        }
        Ok(Ulimit { soft, hard })
    }
}

impl TryFrom<String> for Ulimit {
    type Error = Error;
    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Ulimit> for String {
    fn from(u: Ulimit) -> String {
        let one = |v: Option<u64>| v.map_or("unlimited".to_string(), |n| n.to_string());
        format!("{}:{}", one(u.soft), one(u.hard))
    }
}

/// The resources of setrlimit(2) by Docker's names, with their numbers on x86_64 and aarch64.
pub const ULIMITS: [(&str, u32); 16] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

/// `022` or `0022`: octal, at most 0777.
pub fn umask(s: &str) -> Result<u32> {
    let ok = (1..=4).contains(&s.len()) && s.bytes().all(|b| (b'0'..=b'7').contains(&b));
    ok.then(|| u32::from_str_radix(s, 8).unwrap_or(0o1000))
        .filter(|m| *m <= 0o777)
        .ok_or_else(|| Error::usage(format!("bad umask '{s}': octal, from 0 to 0777")))
}

/// Signal names without `SIG`, by number on x86_64 and aarch64. man: signal(7)
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT",
    "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `TERM`, `SIGTERM` or `15`; real-time signals by number.
pub fn signal(s: &str) -> Result<i32> {
    let upper = s.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(n) = SIGNALS.iter().position(|name| *name == bare) {
        return Ok(n as i32 + 1);
    }
    match number(s) {
        Ok(Some(n @ 1..=64)) => Ok(n as i32),
        _ => Err(Error::usage(format!("unknown signal '{s}': a name as in signal(7), or a number from 1 to 64"))),
    }
}

/// `TERM` for 15.
pub fn signal_name(n: i32) -> String {
    usize::try_from(n - 1).ok().and_then(|i| SIGNALS.get(i)).map_or_else(|| n.to_string(), |s| s.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2016_3697_2024_40635_2026_46680_user_words() {
        for good in ["0", "1", "1000:1000", "daemon", "daemon:0", "2147483648", "4294967294", "a.b-c_d"] {
            good.parse::<User>().unwrap();
        }
        for bad in ["", ":0", "1:", "00", "-1", "+0", " 0", "4294967295", "4294967296", "99999999999999999999", "1:2:3", "a b", "a\n", "../x"] {
            assert!(bad.parse::<User>().is_err(), "{bad:?}");
        }
        assert_eq!(number("0x0").unwrap(), None);
    }

    #[test]
    fn id_maps() {
        let m: IdMapping = "0:100000:65536".parse().unwrap();
        assert_eq!((m.inside, m.host, m.count), (0, 100000, 65536));
        for bad in ["", "0:0", "0:0:0", "0:0:1:2", "-1:0:1", "0:4294967294:2", "a:b:c", "0:0:4294967295"] {
            assert!(bad.parse::<IdMapping>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_masks_signals() {
        assert_eq!("1:2".parse::<Ulimit>().unwrap(), Ulimit { soft: Some(1), hard: Some(2) });
        assert_eq!("unlimited".parse::<Ulimit>().unwrap(), Ulimit { soft: None, hard: None });
        for bad in ["", ":", "2:1", "x", "1:2:3", "unlimited:1", "1e3"] {
            assert!(bad.parse::<Ulimit>().is_err(), "{bad:?}");
        }
        assert_eq!(umask("0022").unwrap(), 0o22);
        for bad in ["", "8", "1777", "00000", "-1"] {
            assert!(umask(bad).is_err(), "{bad:?}");
        }
        assert_eq!((signal("SIGTERM").unwrap(), signal("kill").unwrap(), signal("34").unwrap()), (15, 9, 34));
        for bad in ["", "0", "65", "SIGNOPE", "-9"] {
            assert!(signal(bad).is_err(), "{bad:?}");
        }
    }
}
