//! Limits on memory, processors, processes and devices, as Docker spells them. Called by `spec`; no I/O.
//! man: systemd.resource-control(5), kernel: Documentation/admin-guide/cgroup-v2.rst
#![forbid(unsafe_code)]

use super::restrict::Control;
use crate::error::{Error, Result};
use crate::ident::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::{fmt, str::FromStr};

/// What one source says. The keys of a policy's `[limits]`, and of its `[budget]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitsPatch {
    pub memory: Option<Memory>,
    /// Memory and swap together. Without it: no swap.
    pub memory_swap: Option<Memory>,
    pub memory_reservation: Option<Memory>,
    pub cpus: Option<Cpus>,
    pub cpu_shares: Option<Shares>,
    pub cpuset_cpus: Option<Set>,
    pub cpuset_mems: Option<Set>,
    pub pids: Option<Pids>,
    pub blkio_weight: Option<IoWeight>,
    pub device_read_bps: BTreeMap<PathBuf, Bytes>,
    pub device_write_bps: BTreeMap<PathBuf, Bytes>,
    pub device_read_iops: BTreeMap<PathBuf, u64>,
    pub device_write_iops: BTreeMap<PathBuf, u64>,
    /// What was asked for by the user, and is not a default: its loss is an error.
    #[serde(skip)]
    pub asked: BTreeSet<Control>,
}

/// All limits, decided: what is None has no limit.
pub type Limits = LimitsPatch;

impl LimitsPatch {
    /// Lay `later` over this.
    pub fn lay(&mut self, later: LimitsPatch) {
        // Destructured without `..`: see `Patch::then`.
        let LimitsPatch {
            memory,
            memory_swap,
            memory_reservation,
            cpus,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids,
            blkio_weight,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            asked,
        } = later;
        fn pick<T>(ours: &mut Option<T>, theirs: Option<T>) {
            if theirs.is_some() {
                *ours = theirs;
            }
        }
        pick(&mut self.memory, memory);
        pick(&mut self.memory_swap, memory_swap);
        pick(&mut self.memory_reservation, memory_reservation);
        pick(&mut self.cpus, cpus);
        pick(&mut self.cpu_shares, cpu_shares);
        pick(&mut self.cpuset_cpus, cpuset_cpus);
        pick(&mut self.cpuset_mems, cpuset_mems);
        pick(&mut self.pids, pids);
        pick(&mut self.blkio_weight, blkio_weight);
        self.device_read_bps.extend(device_read_bps);
        self.device_write_bps.extend(device_write_bps);
        self.device_read_iops.extend(device_read_iops);
        self.device_write_iops.extend(device_write_iops);
        self.asked.extend(asked);
    }

    /// How much swap there may be beside this much memory; u64::MAX: any.
    pub fn swap(&self, memory: Memory) -> u64 {
        self.memory_swap.map_or(0, |s| if s == Memory::Unlimited { u64::MAX } else { s.bytes().saturating_sub(memory.bytes()) })
    }

    /// Which controls this says something about.
    pub fn controls(&self) -> BTreeSet<Control> {
        let io = [&self.device_read_bps, &self.device_write_bps].iter().any(|m| !m.is_empty())
            || [&self.device_read_iops, &self.device_write_iops].iter().any(|m| !m.is_empty());
        let said = [
            (Control::Memory, self.memory.is_some() || self.memory_swap.is_some() || self.memory_reservation.is_some()),
            (Control::Cpu, self.cpus.is_some() || self.cpu_shares.is_some()),
            (Control::Cpuset, self.cpuset_cpus.is_some() || self.cpuset_mems.is_some()),
            (Control::Pids, self.pids.is_some()),
            (Control::Io, self.blkio_weight.is_some() || io),
        ];
        said.into_iter().filter(|(_, said)| *said).map(|(control, _)| control).collect()
    }

    /// Shares of the memory become bytes.
    pub fn resolve(&mut self, total: u64) {
        let Self { memory, memory_swap, memory_reservation, .. } = self;
        [memory, memory_swap, memory_reservation].into_iter().flatten().for_each(|m| m.resolve(total));
    }

    /// All that is said here was asked for.
    pub fn asked(mut self) -> Self {
        self.asked = self.controls();
        self
    }

    /// What contradicts itself, if something does.
    pub fn check(&self) -> Result<()> {
        // As docker: less is used up by the start of a program. docker: daemon/daemon_unix.go linuxMinMemory
        const LEAST: u64 = 6 << 20;
        match (self.memory, self.memory_swap) {
            (Some(Memory::Bytes(m)), _) if m.0 < LEAST => Err(Error::usage(format!("bad memory limit {m}: at least 6m"))),
            (None | Some(Memory::Unlimited), Some(Memory::Bytes(_) | Memory::Share(_))) => {
                Err(Error::usage("bad memory-swap: it is memory and swap together, so it needs a limit on memory"))
            }
            (Some(Memory::Bytes(m)), Some(Memory::Bytes(s))) if s < m => {
                Err(Error::usage(format!("bad memory-swap {s}: it is memory and swap together, and the memory alone is {m}")))
            }
            _ => Ok(()),
        }?;
        match (self.memory, self.memory_reservation) {
            (Some(Memory::Bytes(m)), Some(Memory::Bytes(r))) if r > m => {
                Err(Error::usage(format!("bad memory-reservation {r}: it is above the limit {m}")))
            }
            _ => Ok(()),
        }
    }

    /// Where nobody asked for anything, what the site allows is what there is.
    pub fn within(&mut self, limit: &LimitsPatch) {
        fn least<T: Copy>(ours: &mut Option<T>, limit: Option<T>, is_over: impl Fn(T, T) -> bool) -> bool {
            match (limit, *ours) {
                (Some(l), o) if o.is_none_or(|o| is_over(o, l)) => {
                    *ours = Some(l);
                    true
                }
                _ => false,
            }
        }
        let over = |a: Memory, b: Memory| a.bytes() > b.bytes();
        for (control, changed) in [
            (Control::Memory, !self.asked.contains(&Control::Memory) && least(&mut self.memory, limit.memory, over)),
            (Control::Pids, !self.asked.contains(&Control::Pids) && least(&mut self.pids, limit.pids, |a, b| a.most() > b.most())),
            (Control::Cpu, !self.asked.contains(&Control::Cpu) && least(&mut self.cpus, limit.cpus, |a, b| a > b)),
        ] {
            if changed {
                self.asked.insert(control);
            }
        }
    }

    /// One sentence for each field that is looser than `limit` says.
    pub fn exceeds(&self, limit: &LimitsPatch) -> Vec<(&'static str, String, String)> {
        let LimitsPatch {
            memory,
            memory_swap,
            memory_reservation,
            cpus,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids,
            blkio_weight,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            asked: _,
        } = limit;
        let mut over = Vec::new();
        fn say<T: fmt::Display>(
            over: &mut Vec<(&'static str, String, String)>,
            key: &'static str,
            ours: Option<&T>,
            limit: Option<&T>,
            looser: impl Fn(&T, &T) -> bool,
            unset_is_looser: bool,
        ) {
            let Some(limit) = limit else { return };
            if ours.map_or(unset_is_looser, |o| looser(o, limit)) {
                over.push((key, ours.map_or("none".into(), |o| o.to_string()), limit.to_string()));
            }
        }
        let more = |a: &Memory, b: &Memory| a.bytes() > b.bytes();
        let outside = |a: &Set, b: &Set| !a.is_within(b);
        say(&mut over, "limits.memory", self.memory.as_ref(), memory.as_ref(), more, true);
        say(&mut over, "limits.memory-swap", self.memory_swap.as_ref(), memory_swap.as_ref(), more, false);
        say(&mut over, "limits.memory-reservation", self.memory_reservation.as_ref(), memory_reservation.as_ref(), more, false);
        say(&mut over, "limits.cpus", self.cpus.as_ref(), cpus.as_ref(), |a, b| a > b, true);
        say(&mut over, "limits.cpu-shares", self.cpu_shares.as_ref(), cpu_shares.as_ref(), |a, b| a > b, true);
        say(&mut over, "limits.cpuset-cpus", self.cpuset_cpus.as_ref(), cpuset_cpus.as_ref(), outside, true);
        say(&mut over, "limits.cpuset-mems", self.cpuset_mems.as_ref(), cpuset_mems.as_ref(), outside, true);
        say(&mut over, "limits.pids", self.pids.as_ref(), pids.as_ref(), |a, b| a.most() > b.most(), true);
        say(&mut over, "limits.blkio-weight", self.blkio_weight.as_ref(), blkio_weight.as_ref(), |a, b| a > b, true);
        for (key, ours, limits) in [
            ("limits.device-read-bps", &self.device_read_bps, device_read_bps),
            ("limits.device-write-bps", &self.device_write_bps, device_write_bps),
        ] {
            limits.iter().for_each(|(device, limit)| say(&mut over, key, ours.get(device), Some(limit), |a, b| a > b, true));
        }
        for (key, ours, limits) in [
            ("limits.device-read-iops", &self.device_read_iops, device_read_iops),
            ("limits.device-write-iops", &self.device_write_iops, device_write_iops),
        ] {
            limits.iter().for_each(|(device, limit)| say(&mut over, key, ours.get(device), Some(limit), |a, b| a > b, true));
        }
        over
    }
}

/// An amount of memory: bytes, a share of the machine's (`75%`), or no limit (`-1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Memory {
    Bytes(Bytes),
    Share(u8),
    Unlimited,
}

impl Memory {
    /// u64::MAX: no limit. A share that nobody resolved is more than any number of bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Memory::Bytes(b) => b.0,
            Memory::Share(percent) => u64::MAX / 128 * u64::from(percent),
            Memory::Unlimited => u64::MAX,
        }
    }

    fn resolve(&mut self, total: u64) {
        if let Memory::Share(percent) = *self {
            *self = Memory::Bytes(Bytes(total / 100 * u64::from(percent)));
        }
    }
}

impl FromStr for Memory {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s.strip_suffix('%') {
            _ if s == "-1" || s == "unlimited" => Ok(Memory::Unlimited),
            Some(n) => match n.parse() {
                Ok(n @ 1..=100) => Ok(Memory::Share(n)),
                _ => Err(Error::usage(format!("bad share of the memory '{s}': from 1% to 100%"))),
            },
            None => match s.parse::<Bytes>()? {
                // Docker's word for no limit.
                Bytes(0) => Ok(Memory::Unlimited),
                bytes => Ok(Memory::Bytes(bytes)),
            },
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Bytes(b) => b.fmt(f),
            Memory::Share(n) => write!(f, "{n}%"),
            Memory::Unlimited => f.write_str("-1"),
        }
    }
}

/// How many processors' time, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cpus(pub u32);

impl FromStr for Cpus {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad number of processors '{s}': from 0.01 to 8192, with at most three places"));
        let (whole, part) = s.split_once('.').unwrap_or((s, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 || (whole.is_empty() && part.is_empty()) {
            return Err(bad());
        }
        let number = |t: &str| if t.is_empty() { Ok(0) } else { t.parse::<u32>() };
        let thousandths = number(&format!("{part:0<3}")).map_err(|_| bad())?;
        let all = number(whole).ok().and_then(|n| n.checked_mul(1000)?.checked_add(thousandths)).ok_or_else(bad)?;
        if (10..=8_192_000).contains(&all) { Ok(Cpus(all)) } else { Err(bad()) }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Docker's share of the processors, where others want them too; 1024 is what everybody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Shares(u64);

impl Shares {
    /// As runc and crun turn it into `cpu.weight`. opencontainers/cgroups: ConvertCPUSharesToCgroupV2Value()
    pub fn weight(self) -> u64 {
        1 + (self.0 - 2) * 9999 / 262_142
    }
}

impl TryFrom<u64> for Shares {
    type Error = Error;
    fn try_from(n: u64) -> Result<Self> {
        if (2..=262_144).contains(&n) { Ok(Shares(n)) } else { Err(Error::usage(format!("bad cpu-shares {n}: from 2 to 262144"))) }
    }
}

impl From<Shares> for u64 {
    fn from(s: Shares) -> u64 {
        s.0
    }
}

/// Docker's share of the devices, 10 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct IoWeight(u64);

impl IoWeight {
    /// As crun turns it into `io.weight`, where 100 is what everybody has.
    pub fn weight(self) -> u64 {
        1 + (self.0 - 10) * 9999 / 990
    }
}

impl TryFrom<u64> for IoWeight {
    type Error = Error;
    fn try_from(n: u64) -> Result<Self> {
        if (10..=1000).contains(&n) { Ok(IoWeight(n)) } else { Err(Error::usage(format!("bad blkio-weight {n}: from 10 to 1000"))) }
    }
}

impl From<IoWeight> for u64 {
    fn from(w: IoWeight) -> u64 {
        w.0
    }
}

/// How many processes and threads; -1 and 0: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Pids(i64);

impl Pids {
    /// u64::MAX: no limit.
    pub fn most(self) -> u64 {
        u64::try_from(self.0).ok().filter(|n| *n > 0).unwrap_or(u64::MAX)
    }
}

impl TryFrom<i64> for Pids {
    type Error = Error;
    fn try_from(n: i64) -> Result<Self> {
        // kernel: kernel/cgroup/pids.c PIDS_MAX
        if (-1..=4_194_304).contains(&n) { Ok(Pids(n)) } else { Err(Error::usage(format!("bad number of processes {n}: from 1 to 4194304, or -1"))) }
    }
}

impl From<Pids> for i64 {
    fn from(p: Pids) -> i64 {
        p.0
    }
}

macro_rules! numbers {
    ($($name:ident, $number:ty;)*) => {$(
        impl FromStr for $name {
            type Err = Error;
            fn from_str(s: &str) -> Result<Self> {
                s.parse::<$number>().map_err(|_| Error::usage(format!("bad number '{s}'")))?.try_into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
numbers!(Shares, u64; IoWeight, u64; Pids, i64;);

macro_rules! texts {
    ($($name:ident;)*) => {$(
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(s: String) -> Result<Self> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )*};
}
texts!(Memory; Cpus; Set;);

/// Processors or memory nodes by number: `0-3,5`. man: cpuset(7), "List format"
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Set(BTreeSet<u16>);

impl Set {
    /// cve: 2018-20699: a range is checked before it is expanded. kernel: NR_CPUS is 8192 at most.
    const MOST: u16 = 8192;

    fn is_within(&self, other: &Set) -> bool {
        self.0.is_subset(&other.0)
    }

    /// As systemd takes it: a bit for each, lowest first.
    pub fn bits(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.last().map_or(0, |n| usize::from(*n) / 8 + 1)];
        for n in &self.0 {
            if let Some(byte) = bytes.get_mut(usize::from(*n) / 8) {
                *byte |= 1 << (n % 8);
            }
        }
        bytes
    }
}

impl FromStr for Set {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let bad = || Error::usage(format!("bad list '{s}': numbers below {} and ranges of them, as in 0-3,5", Set::MOST));
        let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n < Set::MOST && t.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad);
        let mut all = BTreeSet::new();
        for part in s.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad());
            }
            all.extend(first..=last);
        }
        Ok(Set(all))
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for n in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *n => *last = *n,
                _ => runs.push((*n, *n)),
            }
        }
        let text: Vec<_> = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
        f.write_str(&text.join(","))
    }
}

/// Docker's `DEVICE:RATE`.
pub fn device<T: FromStr>(word: &str) -> Result<(PathBuf, T)> {
    let bad = || Error::usage(format!("bad device limit '{word}': DEVICE:RATE, as in /dev/sda:1m"));
    let (path, rate) = word.rsplit_once(':').ok_or_else(bad)?;
    if !path.starts_with("/dev/") {
        return Err(bad());
    }
    Ok((path.into(), rate.parse().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> LimitsPatch {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn cve_2018_20699_numbers_are_bounded() {
        let start = std::time::Instant::now();
        for bad in ["0-4294967295", "0-99999999999999999999", "8192", "3-1", "", ",", "0,", "-", "a", "+1", "0--1"] {
            assert!(bad.parse::<Set>().is_err(), "{bad}");
        }
        for bad in ["-1", "0", "0.001", "1e3", "99999999", "1.2345", ".", "", "nan", "1.-5"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
        for bad in ["1e30", "9EiB", "-2", "0%", "101%", "%", "1.5g", ""] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
        for bad in ["-2", "4194305", "x", ""] {
            assert!(bad.parse::<Pids>().is_err(), "{bad}");
        }
        assert!("1".parse::<Shares>().is_err() && "262145".parse::<Shares>().is_err());
        assert!("9".parse::<IoWeight>().is_err() && "1001".parse::<IoWeight>().is_err());
        assert!(device::<Bytes>("sda:1m").is_err() && device::<Bytes>("/dev/sda").is_err() && device::<u64>("/dev/sda:x").is_err());
        assert!(start.elapsed() < std::time::Duration::from_millis(10));
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["0.5", "2", "1.25", "0.01"] {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), text);
        }
        for (text, same) in [("0-3,5", "0-3,5"), ("5,1,0", "0-1,5"), ("7", "7")] {
            assert_eq!(text.parse::<Set>().unwrap().to_string(), same);
        }
        assert_eq!("0,9".parse::<Set>().unwrap().bits(), [1, 2]);
        assert_eq!(("1024".parse::<Shares>().unwrap().weight(), "262144".parse::<Shares>().unwrap().weight()), (39, 10000));
        assert_eq!(("10".parse::<IoWeight>().unwrap().weight(), "1000".parse::<IoWeight>().unwrap().weight()), (1, 10000));
        let mut share = limits("memory = '75%'");
        share.resolve(1000);
        assert_eq!(share.memory, Some(Memory::Bytes(Bytes(750))));
        assert_eq!("-1".parse::<Pids>().unwrap().most(), u64::MAX);
    }

    #[test]
    fn contradictions() {
        for (text, fine) in [
            ("memory = '64m'\nmemory-swap = '64m'", true),
            ("memory = '64m'\nmemory-swap = '-1'", true),
            ("memory = '1m'", false),
            ("memory = '64m'\nmemory-swap = '32m'", false),
            ("memory-swap = '32m'", false),
            ("memory = '64m'\nmemory-reservation = '65m'", false),
        ] {
            assert_eq!(limits(text).check().is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn looser_is_told_and_a_default_yields() {
        let limit = limits("memory = '1g'\npids = 100\ncpus = '2'\ncpuset-cpus = '0-1'\n[device-read-bps]\n'/dev/sda' = '1m'");
        let resolved = |text: &str| {
            let mut patch = limits(text);
            patch.resolve(4 << 30);
            patch
        };
        let keys = |text: &str| resolved(text).exceeds(&limit).into_iter().map(|(key, ..)| key).collect::<Vec<_>>();
        assert_eq!(keys("").len(), 5);
        assert!(keys("memory = '25%'\npids = 100\ncpus = '0.5'\ncpuset-cpus = '1'\n[device-read-bps]\n'/dev/sda' = '1k'").is_empty());
        assert_eq!(keys("memory = '-1'\npids = 0\ncpus = '2.001'\ncpuset-cpus = '1-2'\n[device-read-bps]\n'/dev/sda' = '2m'").len(), 5);
        let mut ours = resolved("memory = '75%'\npids = 50");
        ours.within(&limit);
        assert_eq!((ours.memory, ours.pids.map(Pids::most)), (limit.memory, Some(50)));
        assert!(ours.asked.contains(&Control::Memory) && !ours.asked.contains(&Control::Pids));
    }
}
