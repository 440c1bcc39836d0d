//! The flags that limit, `sandbox stats`, `sandbox slice`, and what is said of a cgroup at the end of a run. Called by `cli` and `cli::run`.
#![forbid(unsafe_code)]

use crate::cgroup::{self, Usage};
use crate::container::store::Sandboxes;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::host::remedy::Missing;
use crate::monitor::Exit;
use crate::spec::limits::{Cpus, IoWeight, Limits, LimitsPatch, Memory, Pids, Set, Shares, device};
use clap::{Args, Subcommand};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Limits, as docker spells them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// The most memory, in bytes or with a unit (k, m, g), or as a share of the machine's (50%); -1: no limit
    ///
    /// Temporary files count too. A command that needs more is killed as a whole: exit status 137, and a word on stderr.
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<Memory>,
    /// The most memory and swap together; -1: any swap
    ///
    /// Without it, no swap is used.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide_short_help = true)]
    memory_swap: Option<Memory>,
    /// Memory that is not taken away while others have some to give
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    memory_reservation: Option<Memory>,
    /// How many processors' time, as in 1.5
    #[arg(long, value_name = "N")]
    cpus: Option<Cpus>,
    /// Share of the processors where others want them too; 1024 is what everybody has
    #[arg(short, long, value_name = "N", hide_short_help = true)]
    cpu_shares: Option<Shares>,
    /// Use these processors only, as in 0-3,5
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    cpuset_cpus: Option<Set>,
    /// Use the memory of these nodes only
    #[arg(long, value_name = "LIST", hide_short_help = true)]
    cpuset_mems: Option<Set>,
    /// The most processes and threads; -1: no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<Pids>,
    /// Share of the devices where others want them too, from 10 to 1000
    #[arg(long, value_name = "N", hide_short_help = true)]
    blkio_weight: Option<IoWeight>,
    /// Read at most so many bytes a second from a device
    #[arg(long, value_name = "DEVICE:RATE", hide_short_help = true)]
    device_read_bps: Vec<String>,
    /// Write at most so many bytes a second to a device
    #[arg(long, value_name = "DEVICE:RATE", hide_short_help = true)]
    device_write_bps: Vec<String>,
    /// Read at most so many times a second from a device
    #[arg(long, value_name = "DEVICE:RATE", hide_short_help = true)]
    device_read_iops: Vec<String>,
    /// Write at most so many times a second to a device
    #[arg(long, value_name = "DEVICE:RATE", hide_short_help = true)]
    device_write_iops: Vec<String>,
}

impl LimitArgs {
    pub fn into_patch(self) -> Result<LimitsPatch> {
        // Destructured without `..`: see `RunArgs::into_patch`.
        let LimitArgs {
            memory,
            memory_swap,
            memory_reservation,
            cpus,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            blkio_weight,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
        } = self;
        fn rates<T: std::str::FromStr>(words: &[String]) -> Result<BTreeMap<PathBuf, T>> {
            words.iter().map(|w| device(w)).collect()
        }
        let limits = LimitsPatch {
            memory,
            memory_swap,
            memory_reservation,
            cpus,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids: pids_limit,
            blkio_weight,
            device_read_bps: rates(&device_read_bps)?,
            device_write_bps: rates(&device_write_bps)?,
            device_read_iops: rates(&device_read_iops)?,
            device_write_iops: rates(&device_write_iops)?,
            asked: Default::default(),
        };
        Ok(limits.asked())
    }
}

/// What the user should know of a command's end that its exit status does not say.
pub fn reason(exit: &Exit, usage: &Usage) -> Option<&'static str> {
    (exit.code() == 137 && usage.oom_kills.is_some_and(|n| n > 0)).then_some("oom")
}

/// Sentences about limits that were reached.
pub fn reached(exit: &Exit, usage: &Usage, limits: &Limits) -> Vec<String> {
    let mut said = Vec::new();
    let memory = limits.memory.map_or("its limit".to_string(), |m| format!("its limit of {m}"));
    match (reason(exit, usage), usage.oom_kills) {
        (Some(_), _) => said.push(format!("the command was killed: it ran out of memory ({memory}, --memory)")),
        (None, Some(n)) if n > 0 => said.push(format!("{n} processes were killed: they ran out of memory ({memory}, --memory)")),
        _ => {}
    }
    if let Some(n) = usage.pids_refused.filter(|n| *n > 0) {
        let most = limits.pids.map_or(String::new(), |p| format!(" of {p}"));
        said.push(format!("{n} times no process could be made: the limit{most} was reached (--pids-limit)"));
    }
    said
}

/// `--summary`: one line. Without a cgroup, what the kernel counts for our children.
pub fn summary(start: Instant, usage: Option<&Usage>) -> String {
    let mut text = format!("{:.2} s", start.elapsed().as_secs_f64());
    let Some(u) = usage else {
        if let Ok(children) = getrusage(UsageWho::RUSAGE_CHILDREN) {
            let cpu = children.user_time() + children.system_time();
            let largest = u64::try_from(children.max_rss()).unwrap_or(0) << 10;
            let _ =
                write!(text, ", cpu {:.2} s, largest process {} (no cgroup: no more is counted)", cpu.num_milliseconds() as f64 / 1e3, size(largest));
        }
        return text;
    };
    if let Some(cpu) = u.cpu_usec {
        let _ = write!(text, ", cpu {}", seconds(cpu));
    }
    if let Some(usec) = u.throttled_usec.filter(|t| *t > 0) {
        let _ = write!(text, " (held back {} times, for {})", u.throttled.unwrap_or(0), seconds(usec));
    }
    if let Some(peak) = u.memory_peak {
        let _ = write!(text, ", memory at most {}", size(peak));
    }
    if let Some(max) = u.memory_max {
        let _ = write!(text, " of {}", size(max));
    }
    if let Some(peak) = u.pids_peak {
        let _ = write!(text, ", processes at most {peak}");
    }
    for (what, pressure) in [("cpu", u.pressure.cpu), ("memory", u.pressure.memory), ("io", u.pressure.io)] {
        if let Some((_, total)) = pressure.filter(|(_, total)| *total > 0) {
            let _ = write!(text, ", waited for {what} {}", seconds(total));
        }
    }
    let _ = write!(
        text,
        ", out of memory: {}",
        u.oom_kills.map_or("not counted".into(), |n| if n == 0 { "no".to_string() } else { format!("{n} killed") })
    );
    text
}

fn seconds(usec: u64) -> String {
    format!("{:.2} s", usec as f64 / 1e6)
}

/// Binary units, as docker's `stats` shows them.
fn size(bytes: u64) -> String {
    let (mut n, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if n < 1024.0 {
            break;
        }
        (n, unit) = (n / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes}B") } else { format!("{n:.1}{unit}") }
}

/// Show what living sandboxes use, again and again
///
/// Those of your sandboxes that have a cgroup: on a machine with cgroup version 2, unless a policy takes all limits away.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sandbox stats\n  sandbox stats --no-stream --json")]
pub struct StatsArgs {
    /// Names or IDs of sandboxes; without any, all
    #[arg(value_name = "SANDBOX")]
    names: Vec<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Print one JSON array each time, on one line
    #[arg(long)]
    json: bool,
}

/// Between two looks: processor time is a difference.
const INTERVAL: Duration = Duration::from_secs(1);

pub fn stats(args: &StatsArgs) -> Result<u8> {
    let caller = Caller::me()?;
    if let cgroup::Place::Nowhere { missing: missing @ Missing::NoCgroup2, why } = cgroup::place(None, caller.uid)? {
        return Err(missing.error(format!("cannot show what sandboxes use: {why}")));
    }
    let sandboxes = Sandboxes::open(&caller.home);
    // By names, not by what their cgroups are called.
    let wanted = args.names.iter().map(|word| sandboxes.find(word)).collect::<Result<Vec<_>>>()?;
    if let Some(sandbox) = wanted.iter().find(|s| s.state.cgroup.is_none()) {
        let name = &sandbox.config.name;
        let why = if sandbox.alive { "it has no cgroup" } else { "it does not run" };
        return Err(Error::new(Kind::Conflict, format!("cannot show what '{name}' uses: {why}")).hint("sandbox ps says how it is"));
    }
    let look = || -> Vec<(String, Usage)> {
        let known = match wanted.is_empty() {
            true => sandboxes.list().unwrap_or_default(),
            false => wanted.clone(),
        };
        let called = |dir: &std::path::Path| {
            known.iter().find(|s| s.state.cgroup.as_deref().is_some_and(|top| cgroup::payload(top) == dir)).map(|s| s.config.name.to_string())
        };
        let all = cgroup::living(caller.uid).into_iter().filter_map(|(name, dir)| match called(&dir) {
            None if !wanted.is_empty() => None,
            shown => Some((shown.unwrap_or(name), Usage::read(&dir))),
        });
        all.collect()
    };
    let mut out = std::io::stdout();
    let repaint = out.is_terminal() && !args.no_stream && !args.json;
    let (mut before, mut at) = (look(), Instant::now());
    loop {
        std::thread::sleep(INTERVAL);
        let (now, took) = (look(), at.elapsed());
        at = Instant::now();
        let rows: Vec<_> = now
            .iter()
            .map(|(name, usage)| {
                let earlier = before.iter().find(|(n, _)| n == name).and_then(|(_, u)| u.cpu_usec);
                let percent = usage.cpu_usec.zip(earlier).map(|(n, e)| n.saturating_sub(e) as f64 / took.as_micros() as f64 * 100.0);
                (name, percent, usage)
            })
            .collect();
        let text = if args.json {
            let rows: Vec<_> =
                rows.iter().map(|(name, cpu, usage)| serde_json::json!({ "name": name, "cpu_percent": cpu, "usage": usage })).collect();
            format!("{}\n", serde_json::Value::from(rows))
        } else {
            table(&rows)
        };
        // man: console_codes(4)
        let clear = if repaint { "\x1b[H\x1b[J" } else { "" };
        // A reader that went away (`| head`) is no error.
        if write!(out, "{clear}{text}").and_then(|()| out.flush()).is_err() || args.no_stream {
            return Ok(0);
        }
        before = now;
    }
}

fn table(rows: &[(&String, Option<f64>, &Usage)]) -> String {
    let dash = || "-".to_string();
    let mut lines = vec![["NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS", "BLOCK I/O", "WAITED (cpu mem io)"].map(String::from)];
    for (name, cpu, u) in rows {
        let share = u.memory.zip(u.memory_max).map(|(m, max)| format!("{:.1}%", m as f64 / max.max(1) as f64 * 100.0));
        let percent = |p: Option<(u64, u64)>| p.map_or(dash(), |(hundredths, _)| format!("{}.{:02}%", hundredths / 100, hundredths % 100));
        lines.push([
            crate::error::printable(name),
            cpu.map_or(dash(), |p| format!("{p:.1}%")),
            format!("{} / {}", u.memory.map_or(dash(), size), u.memory_max.map_or("no limit".into(), size)),
            share.unwrap_or_else(dash),
            u.pids.map_or(dash(), |n| n.to_string()),
            format!("{} / {}", u.read_bytes.map_or(dash(), size), u.written_bytes.map_or(dash(), size)),
            format!("{} {} {}", percent(u.pressure.cpu), percent(u.pressure.memory), percent(u.pressure.io)),
        ]);
    }
    let mut widths = [0; 7];
    lines.iter().for_each(|line| widths.iter_mut().zip(line).for_each(|(w, cell)| *w = (*w).max(cell.chars().count())));
    let row = |line: &[String; 7]| {
        line.iter().zip(widths).map(|(cell, w)| format!("{cell:w$}")).collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    lines.iter().map(row).collect()
}

/// Show or set what all of your sandboxes may use together
///
/// They are in one slice of your systemd, sandbox.slice. A budget stays over a reboot, and holds for sandboxes that run already.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sandbox slice set --memory 4g --cpus 2 --pids-limit 4096\n  sandbox slice show\n  sandbox slice reset")]
pub struct SliceArgs {
    #[command(subcommand)]
    command: SliceCommand,
}

#[derive(Debug, Subcommand)]
enum SliceCommand {
    /// Print the budget
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Set parts of the budget
    Set(Box<LimitArgs>),
    /// Take every limit off
    Reset,
}

pub fn slice(args: SliceArgs) -> Result<u8> {
    let caller = Caller::me()?;
    let bus = bus(caller.uid)?;
    match args.command {
        SliceCommand::Show { json } => {
            let unit = cgroup::budget(&bus)?;
            let shown = |n: u64| (n != u64::MAX).then_some(n);
            let text = if json {
                let object: serde_json::Map<_, _> = unit.iter().map(|(k, v)| (k.to_string(), serde_json::json!(shown(*v)))).collect();
                format!("{}\n", serde_json::Value::from(object))
            } else {
                unit.iter().map(|(k, v)| format!("{k}={}\n", shown(*v).map_or("infinity".into(), |n| n.to_string()))).collect()
            };
            std::io::stdout().write_all(text.as_bytes()).doing("write", "the budget")?;
        }
        SliceCommand::Set(limits) => {
            let mut limits = limits.into_patch()?;
            if limits.controls().is_empty() {
                return Err(Error::usage("cannot set nothing: say a limit").hint("sandbox slice set --memory 4g --pids-limit 4096"));
            }
            limits.resolve(crate::host::memory_total());
            limits.check()?;
            cgroup::set_budget(&bus, &limits, true)?;
        }
        SliceCommand::Reset => cgroup::reset_budget(&bus)?,
    }
    Ok(0)
}

fn bus(uid: u32) -> Result<PathBuf> {
    match cgroup::place(Some(cgroup::SLICE), uid)? {
        cgroup::Place::Systemd { bus, .. } => Ok(bus),
        cgroup::Place::Nowhere { missing, why } => Err(missing.error(format!("cannot reach {}: {why}", cgroup::SLICE))),
        cgroup::Place::Delegated { .. } => Err(Error::new(Kind::Bug, "a slice is no delegated cgroup")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn running_out_of_memory_is_told() {
        let exit = |raw| Exit { status: std::process::ExitStatus::from_raw(raw), timed_out: false };
        let usage = Usage { oom_kills: Some(1), ..Usage::default() };
        assert_eq!(reason(&exit(9), &usage), Some("oom"));
        assert_eq!(reason(&exit(9), &Usage::default()), None);
        assert_eq!(reason(&exit(0), &usage), None, "a child was killed, and the command went on");
        assert_eq!(reached(&exit(0), &Usage { pids_refused: Some(3), ..usage }, &Limits::default()).len(), 2);
    }

    #[test]
    fn what_a_person_reads() {
        assert_eq!((size(12), size(64 << 20), size(1536)), ("12B".into(), "64.0MiB".into(), "1.5KiB".into()));
        let usage = Usage { memory: Some(1 << 20), memory_max: Some(4 << 20), pids: Some(2), ..Usage::default() };
        let text = table(&[(&"web".to_string(), Some(12.34), &usage)]);
        assert!(text.contains("web   12.3%  1.0MiB / 4.0MiB    25.0%  2"), "{text}");
        assert!(summary(Instant::now(), Some(&usage)).contains("of 4.0MiB"));
    }
}
