//! How the process is restricted: capabilities, seccomp, Landlock, masks. Called by `spec` and `confine`; no I/O.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fmt, str::FromStr};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restrict {
    /// Capability numbers that the workload's root keeps; the bounding set.
    pub capabilities: BTreeSet<u8>,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    pub landlock: Landlock,
    /// Below /proc or /sys: shown empty.
    pub mask: Vec<Reasoned>,
    /// Below /proc or /sys: shown read-only.
    pub read_only: Vec<Reasoned>,
}

/// An entry of a policy list, and why it is there. In a policy file: `{ path = "~/.ssh", why = "private keys" }`;
/// `name` may be written for `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reasoned {
    #[serde(alias = "name")]
    pub path: String,
    pub why: String,
}

impl Reasoned {
    /// The path on this host: `~` is the caller's home, `%U` the caller's uid.
    pub fn resolve(&self, home: &Path, uid: u32) -> PathBuf {
        let path = match self.path.contains('%') {
            true => Cow::Owned(self.path.replace("%U", &uid.to_string())),
            false => Cow::Borrowed(self.path.as_str()),
        };
        match path.strip_prefix('~') {
            Some("") => home.to_path_buf(),
            Some(rest) if rest.starts_with('/') => {
                let home = if home == Path::new("/") { OsStr::new("") } else { home.as_os_str() };
                let mut path = OsString::with_capacity(home.len() + rest.len());
                path.push(home);
                path.push(rest);
                path.into()
            }
            _ => PathBuf::from(path.as_ref()),
        }
    }

    /// Whether this entry of an `env-pass` list names `word`: a variable, or another entry of such a list.
    pub fn covers(&self, word: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => word.starts_with(prefix),
            None => word == self.path,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    pub profile: SeccompProfile,
    /// Groups (`@base`) and system calls.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub socket_families: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompProfile {
    /// The policy's own groups.
    Groups,
    /// A profile in Docker's JSON format.
    Docker(PathBuf),
    /// The same, with what it said when it was read. Whoever joins later is bound by that, not by what the file says by then. cve: 2019-12589
    Pinned { path: PathBuf, text: String },
    /// No filter at all.
    Unconfined,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landlock {
    pub scopes: Vec<String>,
    pub files: LandlockFiles,
    pub tcp_connect: Option<Vec<u16>>,
    pub tcp_bind: Option<Vec<u16>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LandlockFiles {
    Off,
    Declared,
}

/// Something that can be missing on a host, by the name that `--require` and `--best-effort` take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// Several ids (a subuid and a subgid range), not one.
    Subids,
    /// The seccomp filter.
    Seccomp,
    /// Landlock, with every right and scope that the policy names.
    Landlock,
    /// Resource limits (rlimits) as high as asked for.
    Ulimits,
    /// The limit on memory and swap. This and what follows: a cgroup's.
    Memory,
    /// The share of the processors.
    Cpu,
    /// Which processors and memory nodes.
    Cpuset,
    /// The limit on processes.
    Pids,
    /// The share of devices.
    Io,
}

impl Control {
    pub const ALL: [Control; 9] = [
        Control::Subids,
        Control::Seccomp,
        Control::Landlock,
        Control::Ulimits,
        Control::Memory,
        Control::Cpu,
        Control::Cpuset,
        Control::Pids,
        Control::Io,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Control::Subids => "subids",
            Control::Seccomp => "seccomp",
            Control::Landlock => "landlock",
            Control::Ulimits => "ulimits",
            // As the kernel names its controllers.
            Control::Memory => "memory",
            Control::Cpu => "cpu",
            Control::Cpuset => "cpuset",
            Control::Pids => "pids",
            Control::Io => "io",
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Control {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == s).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|c| c.as_str()).collect();
            Error::usage(format!("unknown control '{s}': one of {}", known.join(", ")))
        })
    }
}

/// Capability names by number. kernel: include/uapi/linux/capability.h
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A capability by name, with or without `CAP_`, in any case.
pub fn capability(name: &str) -> Result<u8> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CAPABILITIES
        .iter()
        .position(|c| *c == bare)
        .map(|n| n as u8)
        .ok_or_else(|| Error::usage(format!("unknown capability '{name}'")).hint("the names are those of capabilities(7), with or without CAP_"))
}

/// `keep`, then Docker's `--cap-add` and `--cap-drop`: `ALL` first, so that `--cap-drop ALL --cap-add CHOWN` keeps CHOWN.
pub fn capabilities(keep: &[Reasoned], add: &[String], drop: &[String]) -> Result<BTreeSet<u8>> {
    let all = |list: &[String]| list.iter().any(|c| c.eq_ignore_ascii_case("all"));
    let named = |list: &[String]| -> Result<BTreeSet<u8>> { list.iter().filter(|c| !c.eq_ignore_ascii_case("all")).map(|c| capability(c)).collect() };
    let mut set: BTreeSet<u8> = keep.iter().map(|c| capability(&c.path)).collect::<Result<_>>()?;
    if all(add) {
        set = (0..CAPABILITIES.len() as u8).collect();
    }
    if all(drop) {
        set.clear();
    }
    set.extend(named(add)?);
    for c in named(drop)? {
        set.remove(&c);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<u8> {
        let own = |l: &[&str]| l.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let keep = [Reasoned { path: "KILL".into(), why: String::new() }];
        capabilities(&keep, &own(add), &own(drop)).unwrap().into_iter().collect()
    }

    #[test]
    fn entries_resolve_and_cover() {
        let entry = |path: &str| Reasoned { path: path.into(), why: "test".into() };
        for (path, want) in [("~", "/home/u"), ("~/.ssh", "/home/u/.ssh"), ("~x/y", "~x/y"), ("/run/user/%U/bus", "/run/user/7/bus"), ("/a~", "/a~")]
        {
            assert_eq!(entry(path).resolve(Path::new("/home/u"), 7), Path::new(want), "{path}");
        }
        assert_eq!(entry("~/.ssh").resolve(Path::new("/"), 7).as_os_str(), "/.ssh");
        for (pattern, word, want) in
            [("LC_*", "LC_ALL", true), ("LC_*", "LC_*", true), ("LC_*", "LC", false), ("A", "A", true), ("A", "AB", false), ("A", "A*", false)]
        {
            assert_eq!(entry(pattern).covers(word), want, "{pattern} {word}");
        }
    }

    #[test]
    fn capability_arithmetic_is_dockers() {
        assert_eq!(set(&[], &[]), [5]);
        assert_eq!(set(&["cap_chown"], &[]), [0, 5]);
        assert_eq!(set(&["CHOWN"], &["ALL"]), [0]);
        assert_eq!(set(&["ALL"], &["kill"]).len(), 40);
        assert_eq!(set(&["CHOWN"], &["CHOWN"]), [5]);
        assert!(capability("CAP_NOPE").is_err());
    }
}
