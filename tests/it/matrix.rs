//! Each of command line, monitor, PID 1 and command killed at each step and at any time of each verb: nothing is lost, nothing left over.
//!
//! A neighbour runs and another one has ended; of both all is to stay as it was. What a killed verb was about is as it was before the verb
//! or as it is after it; `ps` tells which, it can be removed, and then all is as it was.

use crate::support::*;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const VICTIM: &str = "victim";

/// A place where others are that must not be hurt.
fn neighbours() -> Place {
    let place = alone();
    let probe = place.probe();
    place.sandbox(&["run", "-d", "--name", "runs", "--", "sleep", "99999"]).ok();
    place.sandbox(&["run", "-d", "--name", "ended", "--", &probe, "end", "7"]).ok();
    // What is made once, and stays.
    place.sandbox(&["run", "--name", VICTIM, "--", "true"]).ok();
    place.sandbox(&["exec", "runs", "true"]).ok();
    assert!(within(Duration::from_secs(2), || listed(&place).iter().any(|l| l.starts_with("ended exited"))), "{:?}", listed(&place));
    place
}

/// `NAME STATE CODE PID` of each.
fn listed(place: &Place) -> Vec<String> {
    let asked = Instant::now();
    let list = place.sandbox(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}} {{.Pid}}"]);
    assert!(asked.elapsed() < Duration::from_secs(1) * patience(), "ps took {:?}", asked.elapsed());
    let mut lines: Vec<String> = list.ok().lines().map(String::from).collect();
    lines.sort();
    lines
}

fn of_victim(place: &Place) -> Option<String> {
    listed(place).into_iter().find_map(|l| Some(l.strip_prefix(VICTIM)?.trim().to_string()))
}

/// Whatever became of the victim: what is said of it is true, it goes, and all is as it was.
#[track_caller]
fn judge(left: &Left, place: &Place, before: &[String], what: &str) {
    let mut last = of_victim(place);
    // Who was killed is gone a moment later.
    within(Duration::from_secs(1), || {
        last = of_victim(place);
        !last.as_ref().is_some_and(|l| l.starts_with("running")) || place.sandbox(&["exec", VICTIM, "true"]).code() == 0
    });
    match last.as_deref().map(|l| l.split(' ').next().unwrap_or("")) {
        // It runs, or was about to end.
        Some("running") => {
            let runs = || of_victim(place).is_some_and(|l| l.starts_with("running"));
            let true_now = within(Duration::from_secs(2), || place.sandbox(&["exec", VICTIM, "true"]).code() == 0 || !runs());
            assert!(true_now, "{what}: it is said to run");
        }
        Some("created" | "starting" | "exited" | "dead") => {
            // Or it was only slow, and runs by now.
            let runs = || of_victim(place).is_some_and(|l| l.starts_with("running"));
            assert!(within(Duration::from_secs(2), || left.in_kernel().is_empty() || runs()), "{what}: {:#?}", left.in_kernel());
        }
        Some("restarting") | None => {}
        other => panic!("{what}: {other:?}"),
    }
    if what.starts_with("run") && !what.contains("workload") && !what.contains("init") {
        // What was asked for was done, or never was.
        let half = within(Duration::from_secs(1), || !of_victim(place).is_some_and(|l| l.starts_with("created") || l.starts_with("starting")));
        assert!(half, "{what}: {:?}", of_victim(place));
    }
    if last.is_some() && place.sandbox(&["rm", "-f", VICTIM]).code() != 0 {
        assert_eq!(of_victim(place), None, "{what}: it cannot be removed"); // of one in the foreground nobody has to
    }
    println!("{what}: {last:?}");
    left.after_kill_and(&["ps"]);
    assert_eq!(listed(place), before, "{what}");
}

struct Verb {
    name: &'static str,
    /// The victim before: none, running, ended.
    prepare: Option<&'static [&'static str]>,
    args: &'static [&'static str],
}

const AWAIT: [&str; 3] = ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"];
const RUNNING: &[&str] = &["run", "-d", "--name", VICTIM, "--", AWAIT[0], AWAIT[1], AWAIT[2]];

const VERBS: [Verb; 8] = [
    Verb { name: "run", prepare: None, args: &["run", "--name", VICTIM, "--", AWAIT[0], AWAIT[1], AWAIT[2]] },
    Verb { name: "run -d", prepare: None, args: RUNNING },
    Verb { name: "run -d --rm", prepare: None, args: &["run", "-d", "--rm", "--name", VICTIM, "--", AWAIT[0], AWAIT[1], AWAIT[2]] },
    Verb { name: "create", prepare: None, args: &["create", "--name", VICTIM, "--", AWAIT[0], AWAIT[1], AWAIT[2]] },
    Verb { name: "start", prepare: Some(&["create", "--name", VICTIM, "--", AWAIT[0], AWAIT[1], AWAIT[2]]), args: &["start", VICTIM] },
    Verb { name: "exec", prepare: Some(RUNNING), args: &["exec", VICTIM, "sleep", "0.2"] },
    Verb { name: "stop", prepare: Some(RUNNING), args: &["stop", VICTIM] },
    Verb { name: "rm -f", prepare: Some(RUNNING), args: &["rm", "-f", VICTIM] },
];

fn counted(times: usize, what: &str) {
    // Not captured by the test harness.
    let _ = std::io::stderr().write_all(format!("KILLED {what}: {times} times\n").as_bytes());
}

#[test]
fn killed_at_each_step() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    let left = Left::before(&place);
    let before = listed(&place);
    let mut died = Vec::new();
    for step in (0..=6).chain(40..=50) {
        for verb in &VERBS {
            // A step of the monitor is told to the one that will be the monitor.
            let dies = |args: &[&str]| {
                let mut command = place.cli(args);
                command.env("SANDBOX_DIE_AT", step.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().unwrap()
            };
            if let Some(prepare) = verb.prepare {
                if (48..50).contains(&step) {
                    assert!(dies(prepare).wait().unwrap().success());
                } else {
                    place.sandbox(prepare).ok();
                }
            }
            let mut child = dies(verb.args);
            if !within(Duration::from_secs(if verb.name == "run" { 1 } else { 15 }), || child.try_wait().unwrap().is_some()) {
                assert_eq!(verb.name, "run", "{} does not end at step {step}", verb.name);
                child.kill().unwrap();
            }
            use std::os::unix::process::ExitStatusExt;
            if child.wait().unwrap().signal() == Some(9) && verb.name != "run" || (44..50).contains(&step) {
                died.push((step, verb.name));
            }
            judge(&left, &place, &before, &format!("{} at step {step}", verb.name));
        }
    }
    counted(died.len(), "at each step of life");
    for (step, verb) in [(40, "run -d"), (41, "create"), (42, "run -d"), (43, "start"), (50, "rm -f"), (0, "run -d --rm")] {
        assert!(step == 0 || died.contains(&(step, verb)), "{verb} does not die at step {step}: {died:?}");
    }
    place.sandbox(&["rm", "-f", "-a"]).ok();
}

/// Who belongs to the victim.
fn whom(place: &Place, child: &Child, who: &str) -> Option<u32> {
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse::<u32>().ok())
    };
    let init = || place.init_of(VICTIM);
    match who {
        "command line" => Some(child.id()),
        "monitor" => parent(init()?).filter(|pid| *pid > 1),
        "init" => init(),
        _ => std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", init()?)).ok()?.split_whitespace().next()?.parse().ok(),
    }
}

impl Place {
    /// PID 1 of a sandbox, as its record says; without any command of ours.
    fn init_of(&self, name: &str) -> Option<u32> {
        let home = self.path(".local/share/sandbox/sandboxes");
        std::fs::read_dir(home).ok()?.flatten().find_map(|e| {
            let read = |file: &str| serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(e.path().join(file)).ok()?).ok();
            let pid = (read("config.json")?["name"] == name).then(|| read("state.json"))??["init"]["pid"].as_u64()?;
            u32::try_from(pid).ok()
        })
    }
}

#[test]
fn anybody_killed_at_any_time() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    let left = Left::before(&place);
    let before = listed(&place);
    let (rounds, mut times) = (rounds(4), 0);
    for verb in &VERBS {
        for who in ["command line", "monitor", "init", "workload"] {
            // Of what runs in the foreground, and of what was not there before, only the first is known so early.
            for round in 0..rounds {
                if let Some(prepare) = verb.prepare {
                    place.sandbox(prepare).ok();
                }
                let mut command = place.cli(verb.args);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let mut child = command.spawn().unwrap();
                std::thread::sleep(Duration::from_micros(u64::from(round) * 60_000 / u64::from(rounds)));
                if let Some(pid) = whom(&place, &child, who) {
                    let _ = sandbox::sys::process::kill(pid as i32, libc::SIGKILL);
                    times += 1;
                }
                if !within(Duration::from_secs(if verb.name == "run" { 0 } else { 15 }), || child.try_wait().unwrap().is_some()) {
                    child.kill().unwrap();
                }
                child.wait().unwrap();
                judge(&left, &place, &before, &format!("{}: {who} in round {round}", verb.name));
            }
        }
    }
    counted(times, "at any time of life");
    place.sandbox(&["rm", "-f", "-a"]).ok();
}

/// How often, for a test that is longer by `SANDBOX_SOAK=SECONDS`.
pub fn rounds(usual: u32) -> u32 {
    if soak().is_some() { usual * 16 } else { usual }
}

pub fn soak() -> Option<Duration> {
    std::env::var("SANDBOX_SOAK").ok().and_then(|n| n.parse().ok()).map(Duration::from_secs)
}

/// All at once, as by the machine's own hand.
#[test]
fn everybody_killed_at_once() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    place.end_all();
    assert!(within(Duration::from_secs(1), || listed(&place).iter().all(|l| !l.contains(" running "))), "{:?}", listed(&place));
    let all = listed(&place);
    assert!(all.iter().any(|l| l.starts_with("ended exited 7")), "{all:?}");
    // And it can run again.
    place.sandbox(&["start", "runs"]).ok();
    assert_eq!(place.sandbox(&["exec", "runs", "sh", "-c", "exit 4"]).code(), 4);
    place.sandbox(&["rm", "-f", "-a"]).ok();
    assert!(listed(&place).is_empty());
}

#[test]
fn after_a_reboot_nobody_is_a_stranger() {
    need!(root(), "needs root, to become another user");
    let mut place = neighbours();
    let old = place.init_of("runs").expect("init");
    // The machine stops: nobody lives, and the next start has another number.
    place.end_all();
    place.env.insert("SANDBOX_BOOT".into(), "another-boot".into());
    let all = listed(&place);
    assert!(all.iter().any(|l| l.starts_with("runs ")) && !all.iter().any(|l| l.contains(" running ")), "{all:?}");
    // The number is somebody else's now, and even the lock is: a stranger must not be signalled.
    let stranger = place.command("sleep").arg("60").spawn().unwrap();
    let dir = std::fs::read_dir(place.path(".local/share/sandbox/sandboxes"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|d| std::fs::read_to_string(d.join("config.json")).is_ok_and(|t| t.contains("\"runs\"")))
        .unwrap();
    for boot in ["another-boot", "an-older-boot"] {
        let mut state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(dir.join("state.json")).unwrap()).unwrap();
        state["status"] = "running".into();
        state["boot"] = boot.into();
        for who in ["init", "stays"] {
            state[who] = serde_json::json!({ "pid": stranger.id(), "start": 12345 });
        }
        std::fs::write(dir.join("state.json"), state.to_string()).unwrap();
        for args in [&["kill", "runs"][..], &["stop", "-t", "0", "runs"], &["exec", "runs", "true"], &["kill", "-a"], &["stop", "-a", "-t", "0"]] {
            place.sandbox(args);
            // Also while somebody has the directory locked.
            let lock = std::fs::File::open(&dir).unwrap();
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
            if args[0] != "stop" {
                place.sandbox(args);
            }
        }
        assert!(std::path::Path::new(&format!("/proc/{}", stranger.id())).exists());
        assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", stranger.id())).unwrap().trim(), "sleep", "{old}");
    }
    let mut stranger = stranger;
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    place.sandbox(&["start", "runs"]).ok();
    place.sandbox(&["exec", "runs", "true"]).ok();
    place.sandbox(&["rm", "-f", "-a"]).ok();
}

/// A logout takes the runtime directory away; an upgrade puts another program into the place of ours.
#[test]
fn logout_and_upgrade_while_it_runs() {
    need!(root(), "needs root, to become another user");
    let mut place = alone();
    let runtime = place.dir("runtime");
    mode(&runtime, 0o700);
    place.env.insert("XDG_RUNTIME_DIR".into(), runtime.display().to_string());
    let own = place.path("sandbox");
    std::fs::copy(program(), &own).unwrap();
    let run = |args: &[&str]| finish(place.command(&own).args(args).spawn().unwrap(), b"");
    run(&["run", "-d", "--name", "runs", "--", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"]).ok();
    std::fs::remove_dir_all(&runtime).unwrap();
    // As a packager does: a new file is renamed into place.
    std::fs::copy(program(), place.path("sandbox.new")).unwrap();
    std::fs::rename(place.path("sandbox.new"), &own).unwrap();
    assert_eq!(run(&["exec", "runs", "sh", "-c", "exit 4"]).code(), 4);
    assert!(run(&["ps"]).ok().contains("runs"));
    run(&["stop", "runs"]).ok();
    let list = run(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"]);
    assert_eq!(list.ok(), "runs exited 3");
    run(&["start", "runs"]).ok();
    run(&["rm", "-f", "runs"]).ok();
    assert!(place.processes().is_empty());
}

/// Numbers, not opinions: what a hundred take.
#[test]
fn a_hundred_at_once() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    place.sandbox(&["run", "-d", "--rm", "--", "true"]).ok();
    within(Duration::from_secs(2), || listed(&place).is_empty());
    let left = Left::before(&place);
    let timed = |what: &str, act: &dyn Fn()| {
        let start = Instant::now();
        act();
        let _ = writeln!(std::io::stderr(), "HUNDRED {what}: {:?}", start.elapsed());
    };
    let probe = place.probe();
    timed("run -d", &|| {
        let all: Vec<Child> =
            (0..100).map(|n| place.cli(&["run", "-d", "--name", &format!("n{n}"), "--", &probe, "await"]).spawn().unwrap()).collect();
        all.into_iter().for_each(|child| assert!(!finish(child, b"").ok().is_empty()));
    });
    timed("ps", &|| assert_eq!(place.sandbox(&["ps", "-q"]).ok().lines().count(), 100));
    let memory: u64 = entries_of(&place).iter().map(|pid| pss(*pid)).sum();
    let _ = writeln!(std::io::stderr(), "HUNDRED memory: {} KiB for each, monitor and init", memory / 100);
    assert!(memory / 100 <= 1536, "{} KiB", memory / 100);
    timed("stop --all", &|| assert!(!place.sandbox(&["stop", "--all"]).ok().is_empty()));
    timed("rm --all", &|| assert!(!place.sandbox(&["rm", "--all"]).ok().is_empty()));
    left.after_kill_and(&["ps"]);
}

/// Of each sandbox what is ours: its PID 1, and the monitor.
fn entries_of(place: &Place) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
        status.starts_with("Name:\tsandbox") && uid == Some(place.account.uid)
    })
    .collect()
}

fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// The same over and over; nothing grows. Half a minute, or `SANDBOX_SOAK` seconds.
#[test]
fn soaked_nothing_grows() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    let init = place.init_of("runs").unwrap();
    let monitor = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
    let monitor: u32 = monitor.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    let left = Left::before(&place);
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{monitor}/status")).unwrap();
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()).unwrap()
    };
    let (start, mut seen, mut turns) = (Instant::now(), Vec::new(), 0);
    while start.elapsed() < soak().unwrap_or(Duration::from_secs(30)) {
        place.sandbox(&["run", "-d", "--name", "round", "--", AWAIT[0], AWAIT[1], AWAIT[2]]).ok();
        place.sandbox(&["exec", "round", "true"]).ok();
        place.sandbox(&["exec", "runs", "true"]).ok();
        place.sandbox(&["ps", "-a"]).ok();
        place.sandbox(&["stop", "round"]).ok();
        place.sandbox(&["start", "round"]).ok();
        place.sandbox(&["rm", "-f", "round"]).ok();
        place.inside("echo x > /tmp/x").ok();
        // Processes and their descriptors, mounts, namespaces, locks, and every file.
        left.after_kill_and(&["ps"]);
        seen.push((start.elapsed().as_secs_f64(), rss()));
        turns += 1;
    }
    // Of the second half, by least squares: the first has what is made once.
    let half = &seen[seen.len() / 2..];
    let n = half.len() as f64;
    let (mx, my) = (half.iter().map(|p| p.0).sum::<f64>() / n, half.iter().map(|p| p.1).sum::<f64>() / n);
    let slope = half.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / half.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>().max(1e-9);
    let _ = writeln!(std::io::stderr(), "SOAK {turns} turns in {:?}: {slope:.3} KiB/s of the monitor's memory", start.elapsed());
    assert!(slope * n < 64.0, "the monitor grows by {slope} KiB/s: {seen:?}");
    place.sandbox(&["rm", "-f", "-a"]).ok();
}

/// Orphans, many a second: each is reaped before anybody sees it, and that costs next to nothing.
#[test]
fn a_hundred_thousand_orphans() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    let count = if soak().is_some() { 100_000 } else { 10_000 };
    let child = place.start(place.cli(&["run", "--", &place.probe(), "orphans", &count.to_string(), "2000"]), "ready");
    let init: u32 =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
        stat.rsplit(')').next().map_or(0, |rest| rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum())
    };
    let (start, mut cpu, mut oldest) = (Instant::now(), 0, std::collections::BTreeMap::<u32, Instant>::new());
    let mut worst = Duration::ZERO;
    let mut child = child;
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < watchdog() * 4, "it does not end");
        let list = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
        let dead: Vec<u32> = list.split_whitespace().filter_map(|p| p.parse().ok()).filter(|pid| crate::ends::state(*pid) == 'Z').collect();
        oldest.retain(|pid, _| dead.contains(pid));
        for pid in dead {
            worst = worst.max(oldest.entry(pid).or_insert_with(Instant::now).elapsed());
        }
        cpu = cpu.max(ticks());
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    finish(child, b"").ok();
    let share = cpu as f64 / 100.0 / took.as_secs_f64();
    let _ =
        writeln!(std::io::stderr(), "ORPHANS {count} in {took:?}: no zombie older than {worst:?}, init had {:.1} % of a processor", share * 100.0);
    assert!(worst < Duration::from_millis(100) * patience(), "a zombie of {worst:?}");
    assert!(share < 0.1, "init took {share}");
}

/// What only its tracer may reap waits for that; then it is init's, and nobody hangs.
#[test]
fn zombies_with_a_tracer_and_daemons() {
    let place = place();
    assert_eq!(place.sandbox(&["run", "--", &place.probe(), "traced"]).code(), 5);
    place.nothing_left();
    for script in ["(setsid sh -c 'sleep 60 & sleep 60' &) ; exit 6", "trap '' CHLD; (sleep 0.01 &); sleep 0.1; exit 6"] {
        let output = place.inside(script);
        assert_eq!(output.code(), 6, "{output:?}");
        place.nothing_left();
    }
}
