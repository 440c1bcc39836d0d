//! Limits: what was asked for is what the kernel holds, what reaches it is told, and what goes beyond is contained.
//!
//! The values are read where the kernel keeps them, from the host's side. A case with `alone` in its name is not run beside others.

use crate::run::kill;
use crate::support::*;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A sandbox that runs, and what it says of itself.
struct Running<'a> {
    place: &'a Place,
    child: Child,
    events: PathBuf,
}

/// `sandbox run --status-fd 3 FLAGS -- COMMAND`, as soon as the command has said `ready`.
#[track_caller]
fn start<'a>(place: &'a Place, flags: &[&str], command: &[&str]) -> Running<'a> {
    let (child, events) = spawn(place, flags, command);
    Running { place, child: ready(child), events }
}

fn spawn(place: &Place, flags: &[&str], command: &[&str]) -> (Command, PathBuf) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let events = format!("events-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let script = format!(r#"exec "$@" 3>{events}"#);
    let program = program().display().to_string();
    let mut all = place.command("sh");
    all.args(["-c", &script, "sh", &program, "run", "--status-fd", "3"]).args(flags).arg("--").args(command);
    (all, place.path(&events))
}

#[track_caller]
fn ready(mut command: Command) -> Child {
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(b"ready\n") {
        if !stdout.read(&mut byte).is_ok_and(|n| n == 1) {
            panic!("it was never ready: {:?}", finish(child, b""));
        }
        seen.extend(byte);
    }
    child
}

impl Running<'_> {
    fn events(&self) -> Vec<serde_json::Value> {
        events(&self.events)
    }

    /// As the `started` event names it.
    #[track_caller]
    fn cgroup(&self) -> PathBuf {
        let find = || self.events().iter().find_map(|e| e["cgroup"].as_str().map(PathBuf::from));
        // The command may be heard before we are.
        assert!(within(Duration::from_secs(2), || find().is_some()), "no event names a cgroup: {:?}", self.events());
        find().unwrap()
    }

    fn supervisor(&self) -> u32 {
        self.place.supervisor(&self.child)
    }

    /// To the end, with what has been said since.
    #[track_caller]
    fn end(self) -> (Output, Vec<serde_json::Value>) {
        let output = finish(self.child, b"");
        let all = events(&self.events);
        (output, all)
    }

    /// SIGTERM, and the end within three seconds.
    #[track_caller]
    fn stop(mut self) -> (Output, Vec<serde_json::Value>) {
        let start = Instant::now();
        // It may be over by itself.
        if self.child.try_wait().unwrap().is_none() {
            let _ = Command::new("kill").args(["-15", &self.supervisor().to_string()]).stderr(Stdio::null()).status();
        }
        let all = self.end();
        assert!(start.elapsed() < Duration::from_secs(3) * patience(), "it took {:?} to stop: {all:?}", start.elapsed());
        all
    }
}

fn events(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn exited(events: &[serde_json::Value]) -> &serde_json::Value {
    events.iter().find(|e| e["event"] == "exited").unwrap_or_else(|| panic!("no end in {events:?}"))
}

/// A word of a file of the kernel's.
#[track_caller]
fn value(dir: &Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", dir.display())).trim().to_string()
}

#[track_caller]
fn count(dir: &Path, file: &str, key: &str) -> u64 {
    let text = value(dir, file);
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {key} in {text}"));
    line.parse().unwrap()
}

/// The slice of all of a user's sandboxes.
fn slice(account: &Account) -> PathBuf {
    let uid = account.uid;
    PathBuf::from(format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/sandbox.slice"))
}

/// Scope, cgroup and unit are gone, with nobody's help.
#[track_caller]
fn gone(place: &Place, cgroup: &Path) {
    assert!(within(Duration::from_secs(2), || !cgroup.exists()), "{} is left", cgroup.display());
    let unit = cgroup.file_name().unwrap().to_string_lossy().into_owned();
    let units = finish(place.command("systemctl").args(["--user", "list-units", "--all", "--plain", "--no-legend", &unit]).spawn().unwrap(), b"");
    assert_eq!(units.ok(), "", "the unit is left");
    place.nothing_left();
}

// What was asked for.

#[test]
fn running_out_of_memory_is_exit_137_and_told() {
    need!(Systemd, CgroupV2);
    let place = login();
    let (mut command, log) = spawn(&place, &["-m", "64m", "--name", "oom"], &[&place.probe(), "bomb", "memory"]);
    let output = finish(command.spawn().unwrap(), b"");
    assert_eq!(output.code(), 137, "{output:?}");
    assert!(output.stderr.contains("ran out of memory") && output.stderr.contains("--memory"), "{output:?}");
    let all = events(&log);
    let end = exited(&all);
    assert_eq!((end["exit"].as_i64(), end["reason"].as_str()), (Some(137), Some("oom")), "{all:?}");
    // A killed command is not one that ran out of memory.
    let (mut command, log) = spawn(&place, &["-m", "64m"], &["sh", "-c", "kill -9 $$"]);
    assert_eq!(finish(command.spawn().unwrap(), b"").code(), 137);
    assert!(exited(&events(&log))["reason"].is_null());
    gone(&place, &slice(&place.account).join("sandbox-oom.scope"));
}

#[test]
fn python_runs_out_of_memory_too() {
    need!(Systemd, CgroupV2);
    let place = login();
    let output = place.sandbox(&["run", "-m", "64m", "--", "python3", "-c", "x=bytearray(200<<20)"]);
    assert_eq!(output.code(), 137, "{output:?}");
    // And with enough, not.
    place.sandbox(&["run", "-m", "400m", "--", "python3", "-c", "x=bytearray(200<<20)"]).ok();
}

#[test]
fn half_a_processor_is_half_a_processor_alone() {
    need!(Systemd, CgroupV2);
    let place = login();
    let run = start(&place, &["--cpus", "0.5"], &[&place.probe(), "spin", "60"]);
    let cgroup = run.cgroup();
    assert_eq!(value(&cgroup, "cpu.max"), "50000 100000");
    let look = || (Instant::now(), count(&cgroup, "cpu.stat", "usage_usec"));
    let (from, before) = look();
    std::thread::sleep(Duration::from_secs(5));
    let (to, after) = look();
    let share = (after - before) as f64 / (to - from).as_micros() as f64;
    assert!((0.45..=0.55).contains(&share), "{share}");
    assert!(count(&cgroup, "cpu.stat", "nr_throttled") > 0);
    let (_, all) = run.stop();
    assert!(exited(&all)["usage"]["throttled"].as_u64() > Some(0), "{all:?}");
}

#[test]
fn a_fork_bomb_reaches_its_limit_and_nobody_else_notices() {
    need!(Systemd, CgroupV2);
    let place = login();
    let bomb = start(&place, &["--pids-limit", "32", "--cpus", "0.5"], &[&place.probe(), "bomb", "fork"]);
    let cgroup = bomb.cgroup();
    assert!(within(Duration::from_secs(3), || count(&cgroup.join("payload"), "pids.events", "max") + count(&cgroup, "pids.events", "max") > 0));
    assert!(value(&cgroup, "pids.current").parse::<u64>().unwrap() <= 33);
    // A second sandbox, and the machine.
    let neighbour = place.inside("for i in 1 2 3 4 5; do true & done; wait; echo fine");
    assert_eq!(neighbour.ok(), "fine");
    let answer = Instant::now();
    assert!(Command::new("true").status().unwrap().success());
    assert!(answer.elapsed() < Duration::from_secs(1) * patience());
    let (output, all) = bomb.stop();
    assert_eq!(output.code(), 143, "{output:?}");
    assert!(output.stderr.contains("--pids-limit"), "{output:?}");
    assert!(exited(&all)["usage"]["pids_refused"].as_u64() > Some(0), "{all:?}");
    gone(&place, &cgroup);
}

#[test]
fn values_are_what_the_kernel_holds() {
    need!(Systemd, CgroupV2);
    let place = login();
    let flags = ["-m", "128m", "--memory-swap", "192m", "--memory-reservation", "32m", "--cpus", "1.5", "--cpu-shares", "512", "--pids-limit", "99"];
    let run = start(&place, &flags, &["sh", "-c", "cd /sys/fs/cgroup; head -v memory.max pids.max cpu.max; echo ready; sleep 60"]);
    let cgroup = run.cgroup();
    assert!(cgroup.starts_with(slice(&place.account)), "{}", cgroup.display());
    let held = |file: &str| value(&cgroup, file);
    assert_eq!(held("memory.max"), (128 * MIB).to_string());
    assert_eq!(held("memory.low"), (32 * MIB).to_string());
    assert_eq!(held("pids.max"), "99");
    assert_eq!(held("cpu.max"), "150000 100000");
    if cgroup.join("memory.swap.max").exists() {
        assert_eq!(held("memory.swap.max"), (64 * MIB).to_string());
    }
    // 512 as runc and crun translate it.
    assert_eq!(held("cpu.weight"), "20");
    let payload = cgroup.join("payload");
    assert_eq!(value(&payload, "memory.oom.group"), "1");
    // The supervisor is outside.
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", run.supervisor())).unwrap();
    assert!(!own.contains("sandbox.slice"), "{own}");
    run.stop();
    // And from inside, where programs look.
    let output = place.inside_with(
        &["-m", "128m", "--pids-limit", "99", "--cpus", "1.5"],
        "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max; cat /proc/self/cgroup",
    );
    assert_eq!(output.ok(), format!("{}\n99\n150000 100000\n0::/", 128 * MIB));
}

#[test]
fn without_a_word_there_are_defaults() {
    need!(Systemd, CgroupV2);
    let place = login();
    let total: u64 = std::fs::read_to_string("/proc/meminfo").unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let run = start(&place, &[], &["sh", "-c", "echo ready; sleep 60"]);
    let cgroup = run.cgroup();
    let memory: u64 = value(&cgroup, "memory.max").parse().unwrap();
    assert!(memory.abs_diff(total * 1024 / 4 * 3) < 2 * MIB, "{memory} of {total} KiB");
    assert_eq!(value(&cgroup, "pids.max"), "2048");
    if cgroup.join("memory.swap.max").exists() {
        assert_eq!(value(&cgroup, "memory.swap.max"), "0");
    }
    let payload = cgroup.join("payload");
    assert_eq!((value(&payload, "cgroup.max.depth").as_str(), value(&payload, "cgroup.max.descendants").as_str()), ("8", "64"));
    let (output, all) = run.stop();
    assert!(output.stderr.is_empty() && output.unlimited.is_none(), "{output:?}");
    assert!(!all.iter().any(|e| e["event"] == "degraded" && ["memory", "pids", "cpu"].map(Some).contains(&e["control"].as_str())), "{all:?}");
    // Which --dry-run says, before.
    let output = place.sandbox(&["run", "--dry-run", "--", "true"]);
    assert!(output.ok().contains("sandbox.slice") && output.stdout.contains("pids.max=2048"), "{output:?}");
}

#[test]
fn policies_have_the_same_keys() {
    need!(Systemd, CgroupV2);
    let place = login();
    let policy = place.file("small.toml", "include = ['default']\n[limits]\nmemory = '96m'\ncpus = '0.75'\npids = 77\n").display().to_string();
    let read = |flags: &[&str]| place.inside_with(flags, "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max").ok().replace('\n', " ");
    assert_eq!(read(&["--policy", &policy]), format!("{} 77 75000 100000", 96 * MIB));
    assert_eq!(read(&["--policy", &policy, "-m", "64m"]), format!("{} 77 75000 100000", 64 * MIB));
    // A policy that was named is a limit on flags.
    place.sandbox(&["run", "--policy", &policy, "-m", "1g", "--", "true"]).refused("limits.memory");
    place.sandbox(&["run", "--policy", &policy, "--pids-limit", "-1", "--", "true"]).refused("limits.pids");
}

#[test]
fn what_it_used_is_told_at_the_end() {
    need!(Systemd, CgroupV2);
    let place = login();
    let output = place.inside_with(&["--summary", "-m", "200m"], "head -c 50m /dev/zero > /tmp/x; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    output.ok();
    let line = output.stderr.lines().find(|l| l.contains("summary")).unwrap_or_else(|| panic!("{output:?}"));
    for word in ["cpu ", "memory at most ", "of 200.0MiB", "out of memory: no"] {
        assert!(line.contains(word), "no '{word}': {line}");
    }
}

#[test]
fn stats_shows_what_lives() {
    need!(Systemd, CgroupV2);
    let place = login();
    let run = start(&place, &["--name", "shown", "-m", "100m", "--cpus", "0.5"], &[&place.probe(), "spin", "100"]);
    let output = place.sandbox(&["stats", "--no-stream", "--json", "shown"]);
    let rows: serde_json::Value = serde_json::from_str(output.ok()).unwrap();
    let row = rows.as_array().unwrap().iter().find(|r| r["name"] == "shown").unwrap_or_else(|| panic!("{output:?}"));
    assert!((30.0..=60.0).contains(&row["cpu_percent"].as_f64().unwrap()), "{row}");
    assert_eq!(row["usage"]["memory_max"].as_u64(), Some(100 * MIB));
    assert!(row["usage"]["memory"].as_u64() > Some(0) && row["usage"]["pids"].as_u64() >= Some(1), "{row}");
    let text = place.sandbox(&["stats", "--no-stream"]);
    assert!(text.ok().contains("shown") && text.stdout.contains("100.0MiB"), "{text:?}");
    run.stop();
    assert_eq!(place.sandbox(&["stats", "--no-stream", "shown"]).code(), 125);
}

#[test]
fn a_budget_holds_all_together_alone() {
    need!(Systemd, CgroupV2);
    let place = login();
    place.sandbox(&["slice", "set", "--memory", "300m", "--pids-limit", "100"]).ok();
    let run = start(&place, &[], &["sh", "-c", "echo ready; sleep 60"]);
    let slice = slice(&place.account);
    assert_eq!((value(&slice, "memory.max"), value(&slice, "pids.max")), ((300 * MIB).to_string(), "100".to_string()));
    let shown = place.sandbox(&["slice", "show"]);
    assert!(shown.ok().contains(&(300 * MIB).to_string()), "{shown:?}");
    // More than the slice has for all of them.
    let output = place.sandbox(&["run", "-m", "1g", "--", &place.probe(), "bomb", "memory"]);
    assert_eq!(output.code(), 137, "{output:?}");
    place.sandbox(&["slice", "reset"]).ok();
    assert_eq!(value(&slice, "pids.max"), "max");
    run.stop();
    place.nothing_left();
}

#[test]
fn a_parent_may_be_named() {
    need!(Systemd, CgroupV2);
    let place = login();
    let run = start(&place, &["--cgroup-parent", "it-parent.slice", "--name", "child"], &["sh", "-c", "echo ready; sleep 60"]);
    let cgroup = run.cgroup();
    assert!(
        cgroup.ends_with("it-parent.slice/sandbox-child.scope") || cgroup.ends_with("it.slice/it-parent.slice/sandbox-child.scope"),
        "{}",
        cgroup.display()
    );
    run.stop();
    gone(&place, &cgroup);
    for bad in ["/", "/../x", "/system.slice", "it/x.slice", ""] {
        assert_eq!(place.sandbox(&["run", "--cgroup-parent", bad, "--", "true"]).code(), 125, "'{bad}'");
    }
}

/// What a batch system or a service does: a cgroup that is ours, and we in a subgroup of it.
fn in_a_delegated_scope(place: &Place, script: &str) -> Output {
    let script = format!(
        "set -e; own=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); mkdir $own/sub; echo $$ >$own/sub/cgroup.procs; set +e; cd {}\n{script}",
        place.home.display()
    );
    let mut command = place.command("systemd-run");
    command.args(["--user", "--quiet", "--scope", "-p", "Delegate=yes", "sh", "-c", &script]);
    finish(command.spawn().unwrap(), b"")
}

#[test]
fn where_a_cgroup_was_delegated_it_is_used() {
    need!(Systemd, CgroupV2);
    let place = login();
    let script = format!(
        "{} run --status-fd 3 --name direct -m 64m --pids-limit 50 -- sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max' 3>events; echo $own",
        program().display()
    );
    let output = in_a_delegated_scope(&place, &script);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[..2], [(64 * MIB).to_string(), "50".into()]);
    let all = events(&place.path("events"));
    let cgroup = all.iter().find_map(|e| e["cgroup"].as_str()).unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(cgroup, format!("{}/sandbox-direct", lines[2]));
    // A service that has one, but is itself in it, still gets its limits.
    let script = format!("{} run -m 64m -- cat /sys/fs/cgroup/memory.max", program().display());
    let mut command = place.command("systemd-run");
    command.args(["--user", "--quiet", "--pipe", "--wait", "--collect", "-p", "Delegate=yes", "sh", "-c", &script]);
    assert_eq!(finish(command.spawn().unwrap(), b"").ok(), (64 * MIB).to_string());
    place.nothing_left();
}

// Where it cannot be had.

#[test]
fn without_cgroup_v2_rlimits_stand_in_and_counts_are_refused() {
    need!(!Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "needs a machine without cgroup v2");
    let place = place();
    let nproc = |flags: &[&str]| {
        let limits = place.inside_with(flags, "cat /proc/self/limits");
        let row = limits.ok().lines().find(|l| l.starts_with("Max processes")).unwrap().to_string();
        row.split_whitespace().filter_map(|w| w.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    assert_eq!(nproc(&[]), [2048; 2]);
    assert_eq!(nproc(&["--pids-limit", "99", "--best-effort", "pids"]), [99; 2]);
    assert_eq!(nproc(&["--ulimit", "nproc=77"]), [77; 2], "what the user says himself goes first");
    // Without any limit there is nothing to say.
    assert_eq!(place.inside_with(&["-m", "-1", "--pids-limit", "-1"], "true").unlimited, None);
    let summary = place.inside_with(&["--summary"], "true").stderr;
    assert!(summary.contains("sandbox: summary: ") && summary.contains("no cgroup"), "{summary}");
    place.sandbox(&["stats", "--no-stream"]).refused("cannot show").hinted();
    place.sandbox(&["slice", "show"]).refused("cannot reach sandbox.slice").hinted();
}

#[test]
fn without_cgroup_v2_an_asked_limit_is_refused() {
    need!(!Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "needs a machine without cgroup v2");
    let place = place();
    for flags in [&["-m", "64m"][..], &["--cpus", "0.5"], &["--pids-limit", "32"], &["--cpuset-cpus", "0"], &["--blkio-weight", "100"]] {
        let output = place.sandbox(&[&["run"], flags, &["--", "echo", "ran"]].concat());
        output.refused("cgroup").hinted();
        assert_eq!(output.stdout, "");
    }
    let output = place.sandbox(&["run", "-m", "64m", "--best-effort", "memory", "--", "sh", "-c", "ulimit -d; echo ran"]);
    assert_eq!(output.ok(), "65536\nran");
    assert!(output.stderr.contains("cgroup") && output.stderr.contains("RLIMIT_DATA"), "{output:?}");
    // What nobody asked for is one line, and an event for each.
    let (mut command, log) = spawn(&place, &[], &["true"]);
    let output = finish(command.spawn().unwrap(), b"");
    assert!(output.code() == 0 && output.stderr.is_empty() && output.unlimited.as_ref().is_some_and(|l| l.contains("cgroup")), "{output:?}");
    let all = events(&log);
    for control in ["memory", "pids"] {
        assert!(all.iter().any(|e| e["event"] == "degraded" && e["control"] == control), "{control}: {all:?}");
    }
    place.sandbox(&["run", "--require", "memory", "--", "true"]).refused("cgroup").hinted();
}

#[test]
fn without_a_manager_an_asked_limit_is_refused_alone() {
    need!(Systemd, CgroupV2, Machine);
    let place = Place::of(accounts().mallory.clone().unwrap());
    let dir = format!("/run/user/{}", place.account.uid);
    assert!(within(Duration::from_secs(10), || !Path::new(&dir).exists()), "an earlier session is still there");
    let output = place.sandbox(&["run", "-m", "64m", "--", "echo", "ran"]);
    output.refused("systemd").hinted();
    assert_eq!(output.stdout, "");
    let (mut command, log) = spawn(&place, &[], &["true"]);
    let output = finish(command.spawn().unwrap(), b"");
    assert!(output.code() == 0 && output.stderr.is_empty() && output.unlimited.is_some(), "{output:?}");
    assert!(events(&log).iter().any(|e| e["event"] == "degraded" && e["control"] == "memory"));
    place.sandbox(&["run", "-m", "64m", "--best-effort", "memory", "--", "true"]).ok();
}

#[test]
fn a_controller_that_is_not_delegated_is_named_with_its_cure_alone() {
    need!(Systemd, CgroupV2, Machine);
    let place = login();
    let account = &place.account;
    let manager = slice(account).parent().unwrap().to_path_buf();
    let admin = |script: &str| {
        finish(Command::new("sh").args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), b"")
    };
    let asked = [("cpuset", "--cpuset-cpus", "0"), ("io", "--device-read-bps", "/dev/vda:1mb")];
    let missing: Vec<_> = asked.iter().filter(|(name, ..)| !value(&manager, "cgroup.controllers").split(' ').any(|c| c == *name)).collect();
    assert!(!missing.is_empty(), "Debian delegates all of them");
    let mut cure = String::new();
    for (name, flag, word) in missing {
        let output = place.sandbox(&["run", flag, word, "--", "echo", "ran"]);
        output.refused(name).hinted();
        assert!(output.stderr.contains("Delegate=") && output.stdout.is_empty(), "{output:?}");
        cure = output.stderr.lines().find_map(|l| l.trim_start().strip_prefix("hint: ")).unwrap().to_string();
    }
    // The very line that we print, by an administrator.
    let cure = cure.split(", then log in").next().unwrap().replace("sudo ", "");
    admin(&cure).ok();
    admin(&format!("systemctl restart user@{}.service", account.uid)).ok();
    let run = start(
        &place,
        &["--cpuset-cpus", "0", "--device-read-bps", "/dev/vda:1mb", "--device-write-iops", "/dev/vda:50"],
        &["sh", "-c", "echo ready; sleep 60"],
    );
    let cgroup = run.cgroup();
    assert_eq!(value(&cgroup, "cpuset.cpus.effective"), "0");
    let io = value(&cgroup, "io.max");
    assert!(io.contains("rbps=1048576") && io.contains("wiops=50"), "{io}");
    assert_eq!(place.inside_with(&["--cpuset-cpus", "0"], "nproc").ok(), "1");
    run.stop();
    gone(&place, &cgroup);
    admin(&format!("rm -r /etc/systemd/system/user@.service.d; systemctl daemon-reload; systemctl restart user@{}.service", account.uid)).ok();
    place.inside("true").ok();
}

// Nothing is left.

#[test]
fn scope_and_cgroup_are_gone_however_it_ends() {
    need!(Systemd, CgroupV2);
    let place = login();
    let stubborn = "trap '' HUP TERM; setsid sh -c 'trap \"\" HUP TERM; sleep 600' & (sleep 600 &) ; echo ready; while :; do sleep 600; done";
    for end in ["normal", "supervisor", "init", "all"] {
        let command = if end == "normal" { "echo ready; sleep 1" } else { stubborn };
        let run = start(&place, &["--name", end, "-m", "64m"], &["sh", "-c", command]);
        let cgroup = run.cgroup();
        assert!(cgroup.exists());
        let supervisor = run.supervisor();
        let init = init_of(supervisor);
        match end {
            "supervisor" => kill(supervisor, 9),
            "init" => kill(init, 9),
            "all" => {
                let inside: Vec<u32> =
                    std::fs::read_to_string(cgroup.join("payload/cgroup.procs")).unwrap().lines().map(|l| l.parse().unwrap()).collect();
                for pid in [supervisor, init].into_iter().chain(inside) {
                    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
                }
            }
            _ => {}
        }
        let (output, _) = run.end();
        assert_eq!(output.code(), if end == "normal" { 0 } else { 137 }, "{end}: {output:?}");
        gone(&place, &cgroup);
        // The name is free.
        place.sandbox(&["run", "--name", end, "-m", "64m", "--", "true"]).ok();
    }
}

#[test]
fn what_a_dead_supervisor_left_in_a_delegated_cgroup_is_swept() {
    need!(Systemd, CgroupV2);
    let place = login();
    // In a scope that lives on, nobody but us removes what we made.
    let script = format!(
        "{program} run --name dead -m 64m -- sh -c 'echo ready; sleep 600' >said & while ! grep -q ready said; do sleep 0.1; done; \
         kill -9 $!; wait; sleep 1; ls $own | grep sandbox-; {program} run --name next -m 64m -- true; echo code $?; ls $own | grep sandbox-; echo done",
        program = program().display()
    );
    assert_eq!(in_a_delegated_scope(&place, &script).ok(), "sandbox-dead\ncode 0\ndone");
    place.nothing_left();
}

#[test]
fn two_users_have_a_slice_each_alone() {
    need!(Systemd, CgroupV2, Machine);
    let places = [login(), Place::of(accounts().mallory.clone().unwrap()).login()];
    let runs = places.each_ref().map(|p| start(p, &["--name", "both", "-m", "64m"], &["sh", "-c", "echo ready; sleep 60"]));
    for (place, run) in places.iter().zip(&runs) {
        assert_eq!(run.cgroup(), slice(&place.account).join("sandbox-both.scope"));
        let shown: serde_json::Value = serde_json::from_str(place.sandbox(&["stats", "--no-stream", "--json"]).ok()).unwrap();
        assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
    }
    for (place, run) in places.iter().zip(runs) {
        let cgroup = run.cgroup();
        run.stop();
        gone(place, &cgroup);
    }
}

// Bombs.

const BOMBS: [&str; 8] = ["fork", "memory", "bytes", "inodes", "fds", "pipes", "log", "cgroup"];
/// What holds them, small enough to be reached soon.
const SMALL: [&str; 4] = ["-m", "96m", "--pids-limit", "48"];

/// What nobody reads, thrown away.
fn drain(child: &mut Child) -> [std::thread::JoinHandle<u64>; 2] {
    fn eat(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<u64> {
        std::thread::spawn(move || stream.map_or(0, |mut s| std::io::copy(&mut s, &mut std::io::sink()).unwrap_or(0)))
    }
    let (out, err) = (child.stdout.take(), child.stderr.take());
    [eat(out), eat(err)]
}

/// After a while of it: the supervisor lives or told the end, no limit was passed, and it stops.
#[track_caller]
fn contained(kind: &str, mut run: Running<'_>) {
    let cgroup = run.cgroup();
    let streams = drain(&mut run.child);
    // This one is ended by the kernel, as soon as it gets there.
    let most = within(Duration::from_millis(if kind == "memory" { 5000 } else { 500 }), || run.child.try_wait().unwrap().is_some());
    if !most {
        let number = |file: &str| std::fs::read_to_string(cgroup.join(file)).ok().and_then(|t| t.trim().parse::<u64>().ok());
        for (file, limit) in [("memory.current", 96 * MIB), ("memory.peak", 96 * MIB + MIB), ("pids.current", 49), ("pids.peak", 49)] {
            assert!(number(file).is_none_or(|n| n <= limit), "{kind}: {file} is {:?}", number(file));
        }
    }
    let (output, all) = run.stop();
    let end = exited(&all);
    match output.code() {
        137 => assert_eq!(end["reason"], "oom", "{kind}: {all:?}"),
        143 => {}
        _ => panic!("{kind}: {output:?}"),
    }
    match kind {
        "memory" => assert_eq!(end["reason"], "oom", "{all:?}"),
        "fork" => assert!(end["usage"]["pids_refused"].as_u64() > Some(0), "{all:?}"),
        _ => {}
    }
    for stream in streams {
        stream.join().unwrap();
    }
}

fn bomb_alone(kind: &str) {
    let place = login();
    // Without an init, a nested command is PID 1, and the kernel keeps signals from it that it does not handle.
    let nested = ["--security-opt", "nested", "--init"];
    // Where there is more to reach, and the slower machine has the time.
    for flags in [&[][..], &nested].into_iter().take(if ["fork", "cgroup"].contains(&kind) { 2 } else { 1 }) {
        let run = start(&place, &[&SMALL[..], flags].concat(), &[&place.probe(), "bomb", kind]);
        let cgroup = run.cgroup();
        assert_eq!(place.inside("echo neighbour").ok(), "neighbour");
        contained(kind, run);
        gone(&place, &cgroup);
    }
}

#[test]
fn a_fork_bomb_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("fork");
}

#[test]
fn a_memory_bomb_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("memory");
}

#[test]
fn a_bomb_of_bytes_in_memory_file_systems_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("bytes");
}

#[test]
fn a_bomb_of_inodes_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("inodes");
}

#[test]
fn a_bomb_of_descriptors_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("fds");
}

#[test]
fn a_bomb_of_pipes_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("pipes");
}

#[test]
fn a_flood_of_output_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("log");
}

#[test]
fn a_storm_of_cgroups_is_contained() {
    need!(Systemd, CgroupV2);
    bomb_alone("cgroup");
}

#[test]
fn eight_bombs_together_are_contained_alone() {
    need!(Systemd, CgroupV2);
    let place = login();
    // Together less than two processors, so that there is something left for others; the emulated ones stood still under twice as much.
    let mut runs: Vec<_> =
        BOMBS.iter().map(|kind| start(&place, &[&SMALL[..], &["--cpus", "0.2"]].concat(), &[&place.probe(), "bomb", kind])).collect();
    let cgroups: Vec<_> = runs.iter().map(Running::cgroup).collect();
    let streams: Vec<_> = runs.iter_mut().flat_map(|run| drain(&mut run.child)).collect();
    // In the midst of it, somebody else's work and ours.
    assert_eq!(place.inside("echo neighbour").ok(), "neighbour");
    for (kind, run) in BOMBS.into_iter().zip(runs) {
        contained(kind, run);
    }
    streams.into_iter().for_each(|stream| drop(stream.join()));
    cgroups.iter().for_each(|cgroup| gone(&place, cgroup));
}

#[test]
fn a_bomb_that_resists_ends_with_its_supervisor() {
    need!(Systemd, CgroupV2);
    let place = login();
    let mut run = start(&place, &SMALL, &[&place.probe(), "stubborn", "fork"]);
    let cgroup = run.cgroup();
    let streams = drain(&mut run.child);
    kill(run.supervisor(), 9);
    run.end();
    streams.into_iter().for_each(|stream| drop(stream.join()));
    gone(&place, &cgroup);
}

// Rows of the catalogue.

#[test]
fn g01_cve_2023_25809_nothing_of_the_cgroup_tree_can_be_written() {
    need!(Systemd, CgroupV2);
    let place = login();
    for flags in [&[][..], &["-u", "0"], &["-u", "0", "--cap-add", "ALL"], &["--policy", "strict"]] {
        let answers = place.probed(&[&["-m", "64m", "--pids-limit", "32"], flags].concat(), &["cgroup"]);
        let opened: Vec<_> = answers.iter().filter(|(_, answer)| *answer == "OK").collect();
        assert!(opened.is_empty(), "{flags:?}: {opened:?}");
    }
}

#[test]
fn g01_cve_2023_6476_a_nested_one_lifts_no_limit_and_leaves_no_cgroup() {
    need!(Systemd, CgroupV2);
    let place = login();
    let script = format!("{} cgroup; echo ready; sleep 60", place.probe());
    for user in [&[][..], &["-u", "0"]] {
        let run = start(
            &place,
            &[&["-m", "64m", "--pids-limit", "32", "--cpus", "0.5", "--security-opt", "nested", "--init"], user].concat(),
            &["sh", "-c", &script],
        );
        let cgroup = run.cgroup();
        assert_eq!(
            (value(&cgroup, "memory.max"), value(&cgroup, "pids.max"), value(&cgroup, "cpu.max")),
            ((64 * MIB).to_string(), "32".into(), "50000 100000".into())
        );
        // Whoever is inside is still below it.
        let supervisor = run.supervisor();
        for pid in children(init_of(supervisor)) {
            let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert!(own.contains(cgroup.file_name().unwrap().to_str().unwrap()), "{own}");
        }
        run.stop();
        gone(&place, &cgroup);
    }
    let output = place.sandbox(&[
        "run",
        "-m",
        "64m",
        "--security-opt",
        "nested",
        "-u",
        "0",
        "--",
        "sh",
        "-c",
        "mkdir /tmp/c; mount -t cgroup2 none /tmp/c && echo max >/tmp/c/memory.max; exec \"$0\" bomb memory",
        &place.probe(),
    ]);
    assert_eq!(output.code(), 137, "{output:?}");
}

#[test]
fn g01_cve_2025_47291_no_process_leaves_its_cgroup() {
    need!(Systemd, CgroupV2);
    let place = login();
    // With the cgroup tree of the host bound in, and root inside: the host's own rights say no.
    let output = place.inside_with(
        &["-u", "0", "-m", "64m", "-v", "/sys/fs/cgroup:/mnt"],
        "for d in $(find /mnt -maxdepth 6 -type d 2>/dev/null); do echo 0 2>/dev/null >$d/cgroup.procs && echo moved to $d; done; cat /proc/self/cgroup",
    );
    if output.code() != 125 {
        assert_eq!(output.stdout.trim(), "0::/", "{output:?}");
    }
}

#[test]
fn g02_cve_2024_3056_shared_memory_does_not_outlive_its_sandbox() {
    let place = place();
    let ipc = || ["shm", "msg", "sem"].map(|kind| std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default().lines().count());
    let shared = || std::fs::read_dir("/dev/shm").unwrap().flatten().map(|e| e.file_name()).collect::<Vec<_>>();
    let before = (ipc(), shared());
    let key = 0x5b02;
    let mut child = place.start(
        place.cli(&["run", "--", "sh", "-c", &format!("{} ipc {key}; echo x >/dev/shm/outlives; echo ready; sleep 60", place.probe())]),
        "ready",
    );
    assert_eq!((ipc(), shared()), before, "it is the host's");
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_left();
    assert_eq!((ipc(), shared()), before);
    // And the next does not find it.
    assert_eq!(place.inside("ls -A /dev/shm; tail -n +2 /proc/sysvipc/shm; echo done").ok(), "done");
}

#[test]
fn g03_cve_2018_20699_numbers_are_bounded_before_they_are_expanded() {
    let place = place();
    let wrong: &[(&str, &[&str])] = &[
        ("--cpuset-cpus", &["0-4294967295", "0-18446744073709551616", "9999999", "5-1", "-1", "0-", "a", "0,,1", "0;1", ""]),
        ("--cpuset-mems", &["0-4294967295", "1-0", "x", ""]),
        ("--cpus", &["1e30", "-1", "0", "NaN", "inf", "0x1", "1.2.3", "99999999999999999999", ""]),
        ("--memory", &["1e30", "-2", "9EiB", "99999999999999999999", "12x", "1k", "200%", ""]),
        ("--memory-swap", &["1e30", "-2", "64m", ""]),
        ("--memory-reservation", &["1e30", "-1x", ""]),
        ("--pids-limit", &["-2", "1e3", "4294967296", "99999999999999999999", "x", ""]),
        ("--cpu-shares", &["0", "1", "-5", "262145", "1e3", ""]),
        ("--blkio-weight", &["9", "1001", "-1", ""]),
        ("--device-read-bps", &["/dev/null", "/dev/null:", "/dev/null:1e30", ":1m", "null:1m", "/etc/passwd:1m", "/dev/null:-1", ""]),
        ("--cgroup-parent", &["../x", "/../../etc", "x", "a/b.slice", ""]),
        ("--device-write-iops", &["/dev/null:x", "/dev/null:99999999999999999999", ""]),
    ];
    for (flag, words) in wrong {
        for word in *words {
            let start = Instant::now();
            let output = place.sandbox(&["run", &format!("{flag}={word}"), "--", "echo", "ran"]);
            assert!(start.elapsed() < Duration::from_millis(500) * patience(), "{flag}={word} took {:?}", start.elapsed());
            assert!(output.code() == 125 && output.stdout.is_empty(), "{flag}={word}: {output:?}");
        }
    }
    // The same from a policy.
    for line in
        ["cpuset-cpus = '0-4294967295'", "cpus = '1e30'", "memory = '9EiB'", "memory = '-5'", "pids = -7", "cpu-shares = 1", "blkio-weight = 5000"]
    {
        let policy = place.file("bad.toml", &format!("include = ['default']\n[limits]\n{line}\n")).display().to_string();
        let output = place.sandbox(&["run", "--policy", &policy, "--", "echo", "ran"]);
        assert!(output.code() == 125 && output.stdout.is_empty(), "{line}: {output:?}");
    }
}

/// A further command is under the very limits, also where only systemd may move it there.
#[test]
fn exec_is_in_the_cgroup() {
    need!(Systemd, CgroupV2);
    let place = login();
    place.sandbox(&["run", "-d", "--name", "one", "--memory", "64m", "--pids-limit", "20", "--", "sleep", "600"]).ok();
    let own =
        place.sandbox(&["exec", "one", "sh", "-c", "cat /proc/self/cgroup /proc/2/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"]);
    assert_eq!(own.ok(), "0::/\n0::/\n67108864\n20");
    // From outside: the payload of its scope.
    let staying = place.start(place.cli(&["exec", "one", "sh", "-c", "echo up; exec sleep 608"]), "up");
    let (pid, _) = place.processes().into_iter().find(|(_, line)| line.starts_with("sleep 608")).expect("it runs");
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.trim_end().ends_with("sandbox-one.scope/payload"), "{cgroup}");
    // What it takes counts, and too much ends it.
    let too_much = place.sandbox(&["exec", "one", "sh", "-c", "head -c 100m /dev/zero | tail"]);
    assert_ne!(too_much.code(), 0);
    drop(place.sandbox(&["rm", "-f", "one"]));
    drop(finish(staying, b""));
    place.nothing_left();
}
