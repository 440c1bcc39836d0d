//! What a cgroup has used, as the kernel counts it. Called by `cgroup`; reads, and never fails: what is not counted is not there.
//! kernel: Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst
#![forbid(unsafe_code)]

use crate::host::word;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds.
    pub cpu_usec: Option<u64>,
    pub throttled_usec: Option<u64>,
    pub throttled: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    pub memory_peak: Option<u64>,
    /// None: no limit.
    pub memory_max: Option<u64>,
    pub swap: Option<u64>,
    /// Processes that were killed since the memory ran out.
    pub oom_kills: Option<u64>,
    pub pids: Option<u64>,
    pub pids_peak: Option<u64>,
    pub pids_max: Option<u64>,
    /// How often a process was not made, since there were too many.
    pub pids_refused: Option<u64>,
    pub read_bytes: Option<u64>,
    pub written_bytes: Option<u64>,
    pub pressure: Pressure,
}

/// Of the last ten seconds, in hundredths of a percent, how long some task waited; and in all, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: Option<(u64, u64)>,
    pub memory: Option<(u64, u64)>,
    pub io: Option<(u64, u64)>,
}

impl Usage {
    pub fn read(dir: &Path) -> Usage {
        let text = |file: &str| word(dir.join(file));
        let number = |file: &str| text(file)?.parse().ok();
        let key = |file: &str, key: &str| text(file).and_then(|t| field(&t, key));
        let io = text("io.stat");
        let sum = |what: &str| io.as_ref().map(|t| t.split_whitespace().filter_map(|w| w.strip_prefix(what)?.parse::<u64>().ok()).sum());
        Usage {
            cpu_usec: key("cpu.stat", "usage_usec"),
            throttled_usec: key("cpu.stat", "throttled_usec"),
            throttled: key("cpu.stat", "nr_throttled"),
            memory: number("memory.current"),
            memory_peak: number("memory.peak"),
            memory_max: number("memory.max"),
            swap: number("memory.swap.current"),
            oom_kills: key("memory.events", "oom_kill"),
            pids: number("pids.current"),
            pids_peak: number("pids.peak"),
            pids_max: number("pids.max"),
            pids_refused: key("pids.events", "max"),
            read_bytes: sum("rbytes="),
            written_bytes: sum("wbytes="),
            pressure: Pressure {
                cpu: text("cpu.pressure").and_then(|t| some(&t)),
                memory: text("memory.pressure").and_then(|t| some(&t)),
                io: text("io.pressure").and_then(|t| some(&t)),
            },
        }
    }
}

/// A line `key number`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// `some avg10=1.23 avg60=0.00 avg300=0.00 total=4567`
fn some(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|l| l.strip_prefix("some "))?;
    let value = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key));
    let average = value("avg10=")?.replace('.', "").parse().ok()?;
    Some((average, value("total=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_forms() {
        assert_eq!(field("usage_usec 12\nuser_usec 3", "user_usec"), Some(3));
        assert_eq!(field("oom 1\noom_kill 2", "oom_kill"), Some(2));
        assert_eq!(field("max max", "max"), None);
        assert_eq!(some("some avg10=12.34 avg60=0.00 avg300=0.00 total=4567\nfull avg10=0.00 total=1"), Some((1234, 4567)));
        assert_eq!(some("full avg10=0.00"), None);
        assert_eq!(Usage::read(Path::new("/nonexistent")), Usage::default());
    }
}
