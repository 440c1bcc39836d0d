//! `policies/syscalls.toml`: named groups of system calls, limits on their arguments, and the rules that a policy makes of them.
//! Called by `seccomp` on a cache miss and by `sandbox policy show`. No I/O: the file is part of the program.
#![forbid(unsafe_code)]

use super::seccomp::{self, Rule, Term};
use crate::error::{Error, Kind, Result};
use crate::spec::Seccomp;
use libseccomp::{ScmpAction, ScmpSyscall};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// The file itself.
pub const TEXT: &str = include_str!("../../policies/syscalls.toml");

/// Tells the file from that of another version. FNV-1a, which can be had while we are built.
pub(super) const MARK: u64 = {
    let (mut mark, mut at) = (0xcbf2_9ce4_8422_2325u64, 0);
    while at < TEXT.len() {
        mark = (mark ^ TEXT.as_bytes()[at] as u64).wrapping_mul(0x100_0000_01b3);
        at += 1;
    }
    mark
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub why: String,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `call`, or `call:lift`.
    pub calls: Vec<String>,
    pub why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tables {
    numbers: BTreeMap<String, i32>,
    #[serde(rename = "numbers-x86_64")]
    numbers_x86_64: BTreeMap<String, i32>,
    pub(super) group: BTreeMap<String, Group>,
    pub(super) limit: BTreeMap<String, Limit>,
    pub(super) refused: Vec<Refused>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limit {
    only: Vec<Line>,
    refuse: Vec<Line>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    args: Vec<Vec<u32>>,
    lift: Option<String>,
    #[expect(dead_code, reason = "for the reader of the file; demanded so that no line is without one")]
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refused {
    pub(super) calls: Vec<String>,
    #[serde(default)]
    absent: bool,
    #[expect(dead_code, reason = "as above")]
    why: String,
}

/// What this machine makes of the name of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Here(i32),
    /// Another architecture has it.
    Elsewhere,
    Unknown,
}

/// Lifts every limit.
const ANY: &str = "any";

/// The groups by the names that a policy calls them, `@base` and so on.
pub fn groups() -> Result<BTreeMap<String, Group>> {
    Ok(Tables::read()?.group.into_iter().map(|(name, group)| (format!("@{name}"), group)).collect())
}

impl Tables {
    pub(super) fn read() -> Result<Tables> {
        toml::from_str(TEXT).map_err(|e| Error::new(Kind::Bug, format!("cannot read the built-in syscalls.toml: {e}")))
    }

    pub(super) fn number(&self, name: &str) -> Number {
        match ScmpSyscall::from_name(name).map(ScmpSyscall::as_raw_syscall) {
            Ok(n) if n >= 0 => Number::Here(n),
            Ok(_) => Number::Elsewhere,
            Err(_) => {
                let ours = self.numbers_x86_64.get(name).filter(|_| cfg!(target_arch = "x86_64"));
                match ours.or_else(|| self.numbers.get(name)) {
                    Some(n) => Number::Here(*n),
                    None if self.numbers_x86_64.contains_key(name) => Number::Elsewhere,
                    None => Number::Unknown,
                }
            }
        }
    }

    /// Every call of this architecture that the library or we know.
    pub(super) fn known(&self) -> BTreeSet<i32> {
        let named = (0..1024).filter(|n| ScmpSyscall::from_raw_syscall(*n).get_name().is_ok());
        let ours = self.numbers.values().chain(self.numbers_x86_64.values().filter(|_| cfg!(target_arch = "x86_64")));
        named.chain(ours.copied()).collect()
    }

    /// What the policy grants: call -> the forms of it, "" being the plain one.
    fn grants(&self, spec: &Seccomp, nested: bool) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let namespaces = "@namespaces".to_string();
        let mut grants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in spec.allow.iter().chain(nested.then_some(&namespaces)) {
            for (call, form) in self.expand(name)? {
                grants.entry(call.to_string()).or_default().insert(form.to_string());
            }
        }
        // The plain name in `deny` means the call in every form.
        for name in &spec.deny {
            for (call, form) in self.expand(name)? {
                if form.is_empty() {
                    grants.remove(call);
                } else if let Some(forms) = grants.get_mut(call) {
                    forms.remove(form);
                }
            }
        }
        // A filter cannot see the flags of clone3, so only a sandbox that may have namespaces may have it.
        if !nested {
            grants.remove("clone3");
        }
        grants.retain(|_, forms| forms.contains("") || forms.contains(ANY));
        Ok(grants)
    }

    /// A name of a policy list into (call, form) pairs. // I3
    fn expand<'a>(&'a self, name: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
        if let Some(group) = name.strip_prefix('@') {
            let group = self.group.get(group).ok_or_else(|| {
                let known: Vec<_> = self.group.keys().map(|g| format!("@{g}")).collect();
                Error::usage(format!("unknown group of system calls '{name}'")).hint(format!("the groups are {}", known.join(", ")))
            })?;
            return Ok(group.entries.iter().flat_map(|e| &e.calls).map(|c| split(c)).collect());
        }
        let (call, form) = split(name);
        if self.number(call) == Number::Unknown {
            return Err(Error::usage(format!("unknown system call '{call}'")).hint("the names are those of syscalls(2); groups begin with '@'"));
        }
        let lifts = self.lifts(call);
        if !form.is_empty() && form != ANY && !lifts.contains(form) {
            let known: Vec<_> = lifts.into_iter().chain([ANY]).map(|l| format!("{call}:{l}")).collect();
            return Err(Error::usage(format!("unknown form '{name}' of a system call")).hint(format!("the forms are {call}, {}", known.join(", "))));
        }
        Ok(vec![(call, form)])
    }

    pub(super) fn lifts(&self, call: &str) -> BTreeSet<&str> {
        let lines = self.limit.get(call).into_iter().flat_map(|l| l.only.iter().chain(&l.refuse));
        lines.filter_map(|l| l.lift.as_deref()).collect()
    }

    /// What becomes of each call by the policy. The few that are refused or limited make a shorter program than the many that are granted, and the
    /// kernel compiles it at every start.
    pub(super) fn verdicts(&self, spec: &Seccomp, nested: bool, raw_sockets: bool) -> Result<Verdicts> {
        let sockets = sockets(&spec.socket_families, raw_sockets)?;
        let mut rules = Vec::new();
        let mut open = BTreeSet::new();
        for (call, forms) in &self.grants(spec, nested)? {
            let call = call.as_str();
            let Number::Here(number) = self.number(call) else { continue };
            open.insert(number);
            let lines = match (forms.contains(ANY), call, self.limit.get(call)) {
                (true, ..) => vec![],
                (_, "socket" | "socketpair", _) => sockets.clone(),
                (.., Some(limit)) => limit.lines(forms)?,
                _ => vec![],
            };
            rules.extend(lines.into_iter().map(|(action, when)| Rule { number, action, when }));
        }
        let absent = self.refused.iter().filter(|r| r.absent).flat_map(|r| &r.calls);
        let absent: BTreeSet<_> = absent.filter_map(|c| self.number(c).here()).collect();
        let known = self.known();
        for number in known.difference(&open) {
            let errno = if absent.contains(number) { libc::ENOSYS } else { libc::EPERM };
            rules.push(Rule { number: *number, action: ScmpAction::Errno(errno), when: vec![] });
        }
        let last = seccomp::LAST as i32;
        let ends = known.iter().zip(known.iter().skip(1).map(|n| n - 1).chain([last]));
        let holes = ends.filter(|(a, z)| *a < z).map(|(a, z)| *a as u32 + 1..=z as u32);
        // -1 is no number of a call, and libseccomp does not look at it.
        let absent = holes.chain([u32::MAX..=u32::MAX]).collect();
        Ok(Verdicts { rules, absent })
    }
}

/// What becomes of each call: what nothing is said of is granted.
pub(super) struct Verdicts {
    pub rules: Vec<Rule>,
    /// The numbers that nobody knows.
    pub absent: Vec<RangeInclusive<u32>>,
}

impl Number {
    pub(super) fn here(self) -> Option<i32> {
        match self {
            Number::Here(n) => Some(n),
            _ => None,
        }
    }
}

/// `call:form`; the plain form is "".
pub(super) fn split(name: &str) -> (&str, &str) {
    name.split_once(':').unwrap_or((name, ""))
}

type Lines = Vec<(ScmpAction, Vec<Term>)>;

impl Limit {
    /// The lines in force after `forms` lifted theirs, then what holds when none fits; empty: nothing is limited.
    fn lines(&self, forms: &BTreeSet<String>) -> Result<Lines> {
        let lifted = |l: &&Line| l.lift.as_deref().is_some_and(|lift| forms.contains(lift));
        let (lines, hit, rest): (Vec<_>, _, _) = if self.only.is_empty() {
            (self.refuse.iter().filter(|l| !lifted(l)).collect(), ScmpAction::Errno(libc::EPERM), ScmpAction::Allow)
        } else {
            let lines = self.only.iter().filter(|l| l.lift.is_none() || lifted(l));
            (lines.collect(), ScmpAction::Allow, ScmpAction::Errno(libc::EPERM))
        };
        if lines.is_empty() || lines.iter().any(|l| l.args.is_empty()) {
            return Ok(vec![]);
        }
        let terms = lines.iter().map(|l| l.args.iter().map(|a| term(a)).collect::<Result<Vec<_>>>());
        let mut lines: Lines = terms.map(|t| Ok((hit, t?))).collect::<Result<_>>()?;
        lines.push((rest, vec![seccomp::always()]));
        Ok(lines)
    }
}

fn term(arg: &[u32]) -> Result<Term> {
    match *arg {
        [arg, value] => Ok(seccomp::equal(arg, value, u32::MAX)),
        [arg, value, mask] => Ok(seccomp::equal(arg, value, mask)),
        _ => Err(Error::new(Kind::Bug, "syscalls.toml: an argument is [argument, value] or [argument, value, mask]")),
    }
}

/// Names for `seccomp.socket-families`, with family and, for netlink, protocol.
const FAMILIES: [(&str, i32, Option<i32>); 9] = [
    ("unix", libc::AF_UNIX, None),
    ("inet", libc::AF_INET, None),
    ("inet6", libc::AF_INET6, None),
    ("netlink-route", libc::AF_NETLINK, Some(libc::NETLINK_ROUTE)),
    ("netlink-diag", libc::AF_NETLINK, Some(libc::NETLINK_SOCK_DIAG)),
    ("netlink-netfilter", libc::AF_NETLINK, Some(libc::NETLINK_NETFILTER)),
    ("netlink-uevent", libc::AF_NETLINK, Some(libc::NETLINK_KOBJECT_UEVENT)),
    ("netlink-generic", libc::AF_NETLINK, Some(libc::NETLINK_GENERIC)),
    ("packet", libc::AF_PACKET, None),
];

/// socket(2) and socketpair(2): the families of the policy, and of the internet ones no raw sockets. A family that is left out
/// does not exist, EAFNOSUPPORT, rather than being forbidden: shadow's tools and PAM give up when NETLINK_AUDIT says EPERM.
/// cve: 2026-31431 (AF_ALG), 2021-22555 and kin
fn sockets(families: &[String], raw: bool) -> Result<Lines> {
    const TYPE: u32 = 0xf;
    const SOCK_PACKET: i32 = 10; // an inet socket of this type is a packet socket: net/socket.c __sock_create()
    let mut lines = Lines::new();
    for name in families {
        let Some((_, family, protocol)) = FAMILIES.iter().find(|f| f.0 == name) else {
            let known: Vec<_> = FAMILIES.iter().map(|f| f.0).collect();
            return Err(Error::usage(format!("unknown socket family '{name}'")).hint(format!("the families are {}", known.join(", "))));
        };
        let family = || seccomp::equal(0, *family as u32, u32::MAX);
        match (protocol, name.as_str()) {
            (Some(protocol), _) => lines.push((ScmpAction::Allow, vec![family(), seccomp::equal(2, *protocol as u32, u32::MAX)])),
            (None, "inet" | "inet6") if !raw => {
                for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
                    lines.push((ScmpAction::Allow, vec![family(), seccomp::equal(1, kind as u32, TYPE)]));
                }
                // What the kernel says to one who lacks CAP_NET_RAW; ping(8) and others then try SOCK_DGRAM.
                for kind in [libc::SOCK_RAW, SOCK_PACKET] {
                    lines.push((ScmpAction::Errno(libc::EPERM), vec![family(), seccomp::equal(1, kind as u32, TYPE)]));
                }
            }
            (None, _) => lines.push((ScmpAction::Allow, vec![family()])),
        }
    }
    lines.push((ScmpAction::Errno(libc::EAFNOSUPPORT), vec![seccomp::always()]));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_exactly_one_fate() {
        let tables = Tables::read().unwrap();
        let grouped: Vec<&str> = tables.group.values().flat_map(|g| &g.entries).flat_map(|e| &e.calls).map(String::as_str).collect();
        let refused: Vec<&str> = tables.refused.iter().flat_map(|r| &r.calls).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        for call in grouped.iter().chain(&refused) {
            let twice = !seen.insert(*call);
            let may = refused.contains(call) && ["clone3", "openat2"].contains(call);
            assert!(!twice || may, "{call} is named twice");
        }
        let homes: BTreeSet<i32> = seen.iter().filter_map(|c| tables.number(split(c).0).here()).collect();
        // What nested alone grants is named there.
        let homeless: Vec<_> =
            tables.known().difference(&homes).map(|n| ScmpSyscall::from_raw_syscall(*n).get_name().unwrap_or(n.to_string())).collect();
        assert!(homeless.is_empty(), "{homeless:?}");
    }

    #[test]
    fn every_name_is_known_and_every_lift_lifts() {
        use libseccomp::ScmpArch;
        let tables = Tables::read().unwrap();
        let number_there = |call: &str, arch| ScmpSyscall::from_name_by_arch(call, arch).is_ok_and(|n| n.as_raw_syscall() >= 0);
        let ours = |call: &str| tables.numbers.contains_key(call) || tables.numbers_x86_64.contains_key(call);
        let calls = tables.group.values().flat_map(|g| &g.entries).flat_map(|e| &e.calls).chain(tables.refused.iter().flat_map(|r| &r.calls));
        for name in calls.chain(tables.limit.keys()) {
            let (call, form) = split(name);
            assert_ne!(tables.number(call), Number::Unknown, "{name}");
            let somewhere = [ScmpArch::X8664, ScmpArch::Aarch64].iter().any(|a| number_there(call, *a)) || ours(call);
            assert!(somewhere, "{name} is a call of other machines");
            assert!(form.is_empty() || form == ANY || tables.lifts(call).contains(form), "{name}");
        }
        for (call, limit) in &tables.limit {
            assert!(limit.only.is_empty() != limit.refuse.is_empty(), "{call}: only or refuse, not both");
            assert_ne!(tables.lifts(call).first(), Some(&ANY));
        }
    }

    #[test]
    fn reasons_are_given() {
        for (name, group) in groups().unwrap() {
            assert!(name.starts_with('@') && group.why.len() > 10, "{name}");
            for entry in group.entries {
                assert!(entry.why.len() > 3 && !entry.calls.is_empty(), "{name}: {:?}", entry.calls);
            }
        }
    }

    #[test]
    fn numbers_agree_with_the_library_and_with_libc() {
        let tables = Tables::read().unwrap();
        for (name, number) in &tables.numbers {
            if let Ok(theirs) = ScmpSyscall::from_name(name) {
                assert_eq!(theirs.as_raw_syscall(), *number, "{name}");
            }
        }
        assert_eq!(i64::from(tables.numbers["mseal"]), libc::SYS_mseal);
        assert_eq!(i64::from(tables.numbers["fchmodat2"]), libc::SYS_fchmodat2);
    }
}
