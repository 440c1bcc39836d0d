//! `sandbox top`: the processes of a sandbox, as the host sees them. Called by `cli::main`.
//!
//! Looks at our own /proc and at the cgroup only. It joins nothing, and runs and reads nothing of the sandbox's. // cve: 2022-1227
#![forbid(unsafe_code)]

use super::image::show;
use crate::cgroup;
use crate::container::exec::{first, spec};
use crate::container::now;
use crate::container::process::{Found, Stat};
use crate::container::store::Sandboxes;
use crate::error::{Error, Kind, Result, printable};
use crate::host::{self, Caller};
use crate::moment::rfc3339;
use crate::spec::Share;
use crate::userns;
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// List the processes of a sandbox
///
/// UID is the user inside, PID and PPID are the host's numbers; the times are UTC. As JSON there is also the number that a process has inside.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// table, json, or a template such as '{{.PID}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Name or ID
    sandbox: String,
}

/// In a second; the same on every machine that we run on. man: proc_pid_stat(5), sysconf(3)
const TICKS: u64 = 100;
const DAY: u64 = 86_400;

pub fn run(args: TopArgs) -> Result<()> {
    let caller = Caller::me()?;
    let sandbox = Sandboxes::open(&caller.home).find(&args.sandbox)?;
    let gone = || Error::new(Kind::Conflict, format!("cannot list the processes of '{}': it has ended", sandbox.config.name));
    let init = first(&sandbox, "list the processes of")?.find().ok_or_else(gone)?;
    let workload = init.children().unwrap_or_default().into_iter().find_map(|pid| Found::open(pid).ok());

    // Whoever is in its pid namespace; of those that nobody may look at, whoever descends from its first process.
    let namespace = |process: &Found| Some(rustix::fs::fstat(process.namespace("pid").ok()?).ok()?.st_ino);
    let private = spec(&sandbox).namespaces.pid == Share::Private;
    let theirs = if private { workload.as_ref().or(Some(&init)).and_then(namespace) } else { None };
    let mut members = BTreeSet::from([init.pid]);
    let mut all: BTreeMap<u32, Stat> = BTreeMap::new();
    for pid in numbers() {
        let Some((process, stat)) = Found::open(pid).ok().and_then(|p| p.stat().ok().map(|stat| (p, stat))) else { continue };
        if theirs.is_some() && namespace(&process) == theirs {
            members.insert(pid);
        }
        all.insert(pid, stat);
    }
    let joined = sandbox.state.cgroup.as_ref().zip(workload.as_ref()).and_then(|(top, w)| cgroup::Joined::of(top, &w.read("cgroup").ok()?));
    members.extend(joined.iter().flat_map(|cgroup| cgroup.processes()).filter_map(|pid| u32::try_from(pid).ok()));
    loop {
        let more: Vec<u32> = all.iter().filter(|(pid, stat)| !members.contains(pid) && members.contains(&stat.parent)).map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            break;
        }
        members.extend(more);
    }

    let maps = workload.as_ref().and_then(|w| userns::living(&w.read("uid_map").ok()?, &w.read("gid_map").ok()?, &caller, host::helper).ok());
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec as u64;
    let booted = (now() / 1_000_000_000).saturating_sub(uptime);
    let rows: Vec<Value> = members
        .iter()
        .filter_map(|pid| {
            let (process, stat) = (Found::open(*pid).ok()?, all.get(pid)?);
            // Still the same.
            (process.stat().ok()?.start == stat.start).then_some((process, stat))
        })
        .map(|(process, stat)| {
            let status = process.read("status").unwrap_or_default();
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().split_whitespace();
            let outside = field("Uid:").next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(u32::MAX);
            let began = booted + stat.start / TICKS;
            let lived = (booted + uptime).saturating_sub(began).max(1);
            let spent = stat.time / TICKS;
            let when = rfc3339(began);
            json!({
                "UID": maps.as_ref().and_then(|m| m.uid_inside(outside)).unwrap_or(outside),
                "PID": process.pid, "PPID": stat.parent, "InsidePID": field("NSpid:").next_back().and_then(|n| n.parse::<u32>().ok()),
                "C": (spent * 100 / lived).min(99),
                "STIME": if lived < DAY { when.get(11..16) } else { when.get(5..10) },
                "TTY": terminal(stat.terminal),
                "TIME": format!("{:02}:{:02}:{:02}", spent / 3600, spent / 60 % 60, spent % 60),
                "CMD": command(&process),
            })
        })
        .collect();
    let columns = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(|name| (name, name));
    show(&rows, &columns, args.format.as_deref())
}

/// Of all processes that our own /proc shows.
fn numbers() -> Vec<u32> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// man: proc_pid_stat(5); kernel: Documentation/admin-guide/devices.txt
fn terminal(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".into(),
    }
}

/// What a process is called is its own to say, so nothing of it is more than text.
fn command(process: &Found) -> String {
    let line = process.read("cmdline").unwrap_or_default();
    let line = line.trim_end_matches('\0').replace('\0', " ");
    let shown = if line.is_empty() { format!("[{}]", process.read("comm").unwrap_or_default().trim_end()) } else { line };
    printable(&shown).replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals() {
        assert_eq!(terminal(34816), "pts/0");
        assert_eq!(terminal(34819), "pts/3");
        assert_eq!(terminal(0), "?");
    }
}
