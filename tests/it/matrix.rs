//! Each of command line, monitor, PID 1 and command killed at each step and at any time of each verb: nothing is lost, nothing left over.
//!
//! A neighbour runs and another one has ended; of both all is to stay as it was. What a killed verb was about is as it was before the verb
//! or as it is after it; `ps` tells which, it can be removed, and then all is as it was.

use crate::support::*;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const VICTIM: &str = "victim";
const IMAGE: &str = "localhost/base";

/// A place where others are that must not be hurt.
fn neighbours() -> Place {
    let place = alone();
    let probe = place.probe();
    assert_eq!(super::image::tiny_image(&place, "base"), IMAGE);
    (0..100).for_each(|n| drop(place.file(&format!("in/{n}"), "in\n")));
    place.sandbox(&["run", "-d", "--name", "runs", "--", "sleep", "99999"]).ok();
    place.sandbox(&["run", "-d", "--name", "ended", "--", &probe, "end", "7"]).ok();
    // What is made once, and stays.
    place.sandbox(&["run", "--name", VICTIM, "--", "true"]).ok();
    place.sandbox(RUNNING).ok();
    place.sandbox(&["rm", "-f", VICTIM]).ok();
    place.sandbox(&["exec", "runs", "true"]).ok();
    // And of the two that ended nobody is there any more: a monitor writes the exit code down before it goes.
    let settled = || entries_of(&place).len() == 2 && listed(&place).iter().any(|l| l.starts_with("ended exited"));
    assert!(within(Duration::from_secs(2), settled), "{:?}", listed(&place));
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

struct Verb {
    name: &'static str,
    /// The victim before: none, made, running.
    prepare: Option<&'static [&'static str]>,
    args: &'static [&'static str],
    /// The same once more, whatever became of it.
    again: &'static [&'static str],
    /// The steps at which somebody of it dies. // SANDBOX_DIE_AT
    steps: &'static [std::ops::RangeInclusive<u32>],
}

/// It says something and writes something before anything happens to it.
const SCRIPT: &str = "echo said; echo kept >> /kept; trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
const RUNNING: &[&str] = &["run", "-d", "--name", VICTIM, IMAGE, "sh", "-c", SCRIPT];
const MADE: &[&str] = &["create", "--name", VICTIM, IMAGE, "sh", "-c", SCRIPT];
const FRONT: &[&str] = &["run", "--name", VICTIM, "--", "sh", "-c", "echo ready; while :; do sleep 0.1; done"];
const GOING: &[&str] = &["run", "-d", "--rm", "--name", VICTIM, "--", "sh", "-c", "while :; do sleep 0.1; done"];

const VERBS: [Verb; 11] = [
    Verb { name: "run", prepare: None, args: FRONT, again: &["run", "--replace", "--name", VICTIM, "--", "true"], steps: &[0..=6, 40..=42] },
    Verb {
        name: "run -d",
        prepare: None,
        args: RUNNING,
        again: &["run", "-d", "--replace", "--name", VICTIM, IMAGE, "sh", "-c", SCRIPT],
        steps: &[0..=6, 40..=47],
    },
    Verb {
        name: "run -d --rm",
        prepare: None,
        args: GOING,
        again: &["run", "-d", "--rm", "--replace", "--name", VICTIM, "--", "true"],
        steps: &[0..=6, 40..=47],
    },
    Verb {
        name: "create",
        prepare: None,
        args: MADE,
        again: &["create", "--replace", "--name", VICTIM, IMAGE, "sh", "-c", SCRIPT],
        steps: &[40..=42],
    },
    Verb { name: "start", prepare: Some(MADE), args: &["start", VICTIM], again: &["start", VICTIM], steps: &[1..=6, 43..=47] },
    Verb { name: "exec", prepare: Some(RUNNING), args: &["exec", VICTIM, "sleep", "0.2"], again: &["exec", VICTIM, "true"], steps: &[] },
    Verb { name: "stop", prepare: Some(RUNNING), args: &["stop", VICTIM], again: &["stop", VICTIM], steps: &[48..=49] },
    Verb { name: "restart", prepare: Some(RUNNING), args: &["restart", VICTIM], again: &["restart", VICTIM], steps: &[1..=6, 43..=49] },
    Verb { name: "rm -f", prepare: Some(RUNNING), args: &["rm", "-f", VICTIM], again: &["rm", "-f", VICTIM], steps: &[48..=50] },
    Verb { name: "cp in", prepare: Some(RUNNING), args: &["cp", "in", IN], again: &["cp", "in/.", IN], steps: &[1..=6] },
    Verb { name: "cp out", prepare: Some(RUNNING), args: &["cp", OUT, "out"], again: &["cp", OUT, "again"], steps: &[1..=6] },
];

const IN: &str = "victim:/copied";
const OUT: &str = "victim:/lib";

impl Verb {
    fn goes_away(&self) -> bool {
        self.prepare.is_none() || self.name.starts_with("rm")
    }
}

/// Whatever became of the victim: what is said of it is true, what it had is there, the verb works the next time, it goes, and all is as it was.
#[track_caller]
fn judge(left: &Left, place: &Place, before: &[String], verb: &Verb, who: &str) {
    let what = format!("{}: {who}", verb.name);
    let runs = || of_victim(place).is_some_and(|l| l.starts_with("running"));
    let mut last = of_victim(place);
    // Who was killed is gone a moment later.
    within(Duration::from_secs(1), || {
        last = of_victim(place);
        !last.as_ref().is_some_and(|l| l.starts_with("running")) || place.sandbox(&["exec", VICTIM, "true"]).code() == 0
    });
    match last.as_deref().map(|l| l.split(' ').next().unwrap_or("")) {
        // It runs, or was about to end.
        Some("running") => {
            let true_now = within(Duration::from_secs(2), || place.sandbox(&["exec", VICTIM, "true"]).code() == 0 || !runs());
            assert!(true_now, "{what}: it is said to run");
        }
        Some("created" | "starting" | "exited" | "dead") => {
            // Or it was only slow, and runs by now.
            assert!(within(Duration::from_secs(2), || left.in_kernel().is_empty() || runs()), "{what}: {:#?}", left.in_kernel());
        }
        Some("restarting") => {}
        None => assert!(verb.goes_away(), "{what}: it is gone"),
        other => panic!("{what}: {other:?}"),
    }
    if verb.name.starts_with("run") && ["command line", "monitor", "step"].iter().any(|w| who.contains(w)) {
        // What was asked for was done, or never was.
        let half = within(Duration::from_secs(1), || !of_victim(place).is_some_and(|l| l.starts_with("created") || l.starts_with("starting")));
        assert!(half, "{what}: {:?}", of_victim(place));
    }
    println!("{what}: {last:?}");
    if verb.prepare == Some(RUNNING) && !verb.goes_away() {
        let said = place.sandbox(&["logs", VICTIM]);
        assert!(said.ok().starts_with("said\nready"), "{what}: {said:?}");
        let kept = || place.sandbox(&["cp", "victim:/kept", "-"]);
        assert!(within(Duration::from_secs(2), || kept().stdout.contains("kept\n")), "{what}: {:?}", kept());
    }
    let is_there = of_victim(place).is_some();
    if verb.name == "exec" {
        place.sandbox(&["start", VICTIM]).ok();
    }
    let again = place.sandbox(verb.again);
    assert!(again.code() == 0 || verb.name.starts_with("rm") && !is_there, "{what}, and then again: {again:?}");
    match verb.name {
        "cp in" => {
            place.sandbox(&["start", VICTIM]).ok();
            assert_eq!(place.sandbox(&["exec", VICTIM, "sh", "-c", "cat /copied/* | wc -l"]).ok(), "100", "{what}");
        }
        "cp out" => {
            let names = |dir: &str| std::fs::read_dir(place.path(dir)).unwrap().count();
            assert!(names("again") > 0, "{what}");
            // What it had copied so far is the host's.
            ["out", "again"].iter().for_each(|dir| drop(std::fs::remove_dir_all(place.path(dir))));
        }
        _ => {}
    }
    if of_victim(place).is_some() && place.sandbox(&["rm", "-f", VICTIM]).code() != 0 {
        assert_eq!(of_victim(place), None, "{what}: it cannot be removed"); // of one in the foreground nobody has to
    }
    left.after_kill_and(&["ps"]);
    assert_eq!(listed(place), before, "{what}");
}

fn counted(times: usize, what: &str) {
    // Not captured by the test harness.
    let _ = std::io::stderr().write_all(format!("KILLED {what}: {times} times\n").as_bytes());
}

/// The victim as the verb finds it. What dies at a step of the monitor's later life has to be told to that monitor.
fn prepare(place: &Place, verb: &Verb, step: Option<u32>) {
    let Some(words) = verb.prepare else { return };
    let mut command = place.cli(words);
    command.envs(step.map(|n| ("SANDBOX_DIE_AT", n.to_string())));
    finish(command.spawn().unwrap(), b"").ok();
    if words == RUNNING {
        assert!(within(Duration::from_secs(5), || place.sandbox(&["logs", VICTIM]).stdout.contains("ready")), "it is not ready");
    }
}

#[test]
fn killed_at_each_step() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    let left = Left::before(&place);
    let before = listed(&place);
    let (mut times, mut alive) = (0, Vec::new());
    for verb in &VERBS {
        for step in verb.steps.iter().cloned().flatten() {
            prepare(&place, verb, Some(step).filter(|n| (48..50).contains(n)));
            let mut command = place.cli(verb.args);
            command.env("SANDBOX_DIE_AT", step.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let ended = within(Duration::from_secs(15), || child.try_wait().unwrap().is_some());
            assert!(ended, "{} does not end at step {step}", verb.name);
            // The monitor's death is what it fails of, but at its end.
            // A helper that joins those who serve is born in one step.
            let joins = verb.name.starts_with("cp") && on_fuse();
            if child.wait().unwrap().success() && !(47..50).contains(&step) && !joins {
                alive.push((verb.name, step));
            }
            times += 1;
            judge(&left, &place, &before, verb, &format!("step {step}"));
        }
    }
    counted(times, "at each step of life");
    assert!(alive.is_empty(), "nobody dies: {alive:?}");
    place.sandbox(&["rm", "-f", "-a"]).ok();
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Who belongs to the victim, or is to.
fn whom(place: &Place, child: &Child, who: &str) -> Option<u32> {
    let helper = || children(child.id()).last().copied();
    match who {
        "command line" => Some(child.id()),
        "monitor" => place.init_of(VICTIM).map_or_else(helper, |init| parent(init).filter(|pid| *pid > 1 && *pid != child.id())),
        "init" => place.init_of(VICTIM).or_else(|| children(helper()?).last().copied()),
        "workload" => place.command_of(VICTIM),
        _ => helper(),
    }
}

#[test]
fn anybody_killed_at_any_time() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    let left = Left::before(&place);
    let before = listed(&place);
    let (rounds, mut times) = (rounds(3), 0);
    for verb in &VERBS {
        let begin = || {
            prepare(&place, verb, None);
            let mut command = place.cli(verb.args);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            (command.spawn().unwrap(), Instant::now())
        };
        // How long it takes, if nobody dies.
        let ends = |child: &mut Child| within(Duration::from_secs(15), || child.try_wait().unwrap().is_some());
        let (mut child, start) = begin();
        if verb.name == "run" {
            assert!(within(Duration::from_secs(5), || place.command_of(VICTIM).is_some()));
            child.kill().unwrap();
        }
        assert!(ends(&mut child), "{} does not end", verb.name);
        let took = start.elapsed();
        if verb.name == "stop" {
            assert!(of_victim(&place).is_some_and(|l| l.starts_with("exited 3")), "{:?}", of_victim(&place));
        }
        judge(&left, &place, &before, verb, "nobody");
        let all = ["command line", "monitor", "init", "workload", "helper"];
        // Where nothing runs there is nobody else, and who runs it himself has no monitor.
        let there = all.into_iter().filter(|who| *who == "command line" || verb.name != "create" && !(verb.name == "run" && *who == "monitor"));
        for who in there {
            for round in 0..rounds {
                let (mut child, _) = begin();
                std::thread::sleep(took * round / (rounds - 1));
                if let Some(pid) = whom(&place, &child, who) {
                    let _ = sandbox::sys::process::kill(pid as i32, libc::SIGKILL);
                    times += 1;
                }
                if verb.name == "run" && !within(Duration::from_millis(500), || child.try_wait().unwrap().is_some()) {
                    child.kill().unwrap();
                }
                assert!(ends(&mut child), "{}: {who} in round {round}: it does not end", verb.name);
                judge(&left, &place, &before, verb, &format!("{who} in round {round}"));
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
    let run = |args: &[&str]| {
        // A process that another test is starting may still have what was written here. man: execve(2), ETXTBSY
        let mut started = None;
        assert!(within(Duration::from_secs(5), || {
            started = place.command(&own).args(args).spawn().ok();
            started.is_some()
        }));
        finish(started.unwrap(), b"")
    };
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
    place.warm_detached();
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
    let is_ours = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sandbox"));
    place.pids().into_iter().filter(is_ours).collect()
}

fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// A number over time, and how fast it grows: of the second half, by least squares, since the first has what is made once.
struct Slope {
    what: &'static str,
    /// How much more at the end than in the middle is noise.
    noise: f64,
    seen: Vec<(f64, f64)>,
}

impl Slope {
    fn of(what: &'static str, noise: f64) -> Slope {
        Slope { what, noise, seen: Vec::new() }
    }

    fn judge(&self) {
        let half = &self.seen[self.seen.len() / 2..];
        let n = half.len() as f64;
        let (mx, my) = (half.iter().map(|p| p.0).sum::<f64>() / n, half.iter().map(|p| p.1).sum::<f64>() / n);
        let slope = half.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / half.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>().max(1e-9);
        let grown = slope * (half[half.len() - 1].0 - half[0].0);
        let _ = writeln!(std::io::stderr(), "SOAK {}: {my:.0}, {slope:+.4} a second, {grown:+.1} in all", self.what);
        assert!(grown <= self.noise, "{} grows by {grown}: {:?}", self.what, self.seen);
    }
}

/// The same over and over; nothing grows. Two minutes, or `SANDBOX_SOAK` seconds.
#[test]
fn soaked_nothing_grows() {
    need!(root(), "needs root, to become another user");
    let place = neighbours();
    // In another account, since what is kept of it is never the same: one whose log turns over, and that is looked at all the time.
    let other = crate::support::place();
    let speaks = "while :; do seq 200; sleep 0.1; done";
    other.sandbox(&["run", "-d", "--name", "speaks", "--log-max", "64k:2", "--", "sh", "-c", speaks]).ok();
    let stays = |place: &Place, name: &str| parent(place.init_of(name).unwrap()).unwrap();
    let (quiet, loud) = (stays(&place, "runs"), stays(&other, "speaks"));
    let rss = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // Without the pages of the program, which come as they are first run, and 64 KiB at a time. man: proc_pid_status(5)
        status.lines().find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()).unwrap()
    };
    let count = |path: String| std::fs::read_dir(path).unwrap().count() as f64;
    let blocks = |place: &Place| {
        let du = std::process::Command::new("du").args(["-sk", "--exclude=.events*"]).arg(&place.home).output().unwrap();
        String::from_utf8_lossy(&du.stdout).split_whitespace().next().unwrap().parse::<f64>().unwrap()
    };
    let left = Left::before(&place);
    let mut slopes = [
        Slope::of("KiB of a quiet one's monitor", 64.0),
        Slope::of("KiB of a loud one's monitor", 64.0),
        Slope::of("KiB of a loud one's init", 64.0),
        Slope::of("descriptors of a loud one's monitor", 0.9),
        Slope::of("mounts that a loud one's monitor sees", 20.0), // with those of other tests
        Slope::of("KiB on disk, and the log of a loud one", 140.0), // which is so long
    ];
    let (start, mut turns) = (Instant::now(), 0);
    while start.elapsed() < soak().unwrap_or(Duration::from_secs(120)) {
        let all = |steps: &[&[&str]]| steps.iter().for_each(|words| assert_eq!(place.sandbox(words).code(), 0, "{words:?}"));
        all(&[
            &["run", "-d", "--name", "round", IMAGE, "sh", "-c", SCRIPT],
            &["exec", "round", "true"],
            &["exec", "runs", "true"],
            &["cp", "in", "round:/in"],
            &["cp", "round:/in", "out"],
            &["pause", "round"],
            &["ps", "-a"],
            &["unpause", "round"],
            &["stop", "round"],
            &["cp", "round:/in", "again"],
            &["start", "round"],
            &["logs", "round"],
            &["rm", "-f", "round"],
            &["run", "--keep", "--name", "kept", IMAGE, "sh", "-c", "echo x > /x"],
            &["commit", "kept", "localhost/of-it"],
            &["rm", "kept"],
            &["run", "localhost/of-it", "cat", "/x"],
            &["rmi", "localhost/of-it"],
            &["run", "--", "sh", "-c", "echo x > /tmp/x"],
        ]);
        ["out", "again"].iter().for_each(|dir| std::fs::remove_dir_all(place.path(dir)).unwrap());
        // Readers come and go.
        for words in [&["logs", "-f", "-n", "5", "speaks"][..], &["attach", "speaks"]] {
            let mut reader = other.start(other.cli(words), "200\n");
            reader.kill().unwrap();
            reader.wait().unwrap();
        }
        for words in [&["logs", "-n", "5", "speaks"][..], &["pause", "speaks"], &["unpause", "speaks"], &["exec", "speaks", "true"]] {
            other.sandbox(words).ok();
        }
        // Processes and their descriptors, mounts, namespaces, locks, and every file.
        left.after_kill_and(&["ps"]);
        let init = other.init_of("speaks").unwrap();
        let now = start.elapsed().as_secs_f64();
        // Who left a moment ago is seen to.
        within(Duration::from_secs(2), || count(format!("/proc/{loud}/fd")) <= slopes[3].seen.first().map_or(0.0, |p| p.1));
        let mounts = std::fs::read_to_string(format!("/proc/{loud}/mountinfo")).unwrap().lines().count() as f64;
        let seen = [rss(quiet), rss(loud), rss(init), count(format!("/proc/{loud}/fd")), mounts, blocks(&place) + blocks(&other)];
        slopes.iter_mut().zip(seen).for_each(|(slope, n)| slope.seen.push((now, n)));
        turns += 1;
    }
    let _ = writeln!(std::io::stderr(), "SOAK {turns} turns in {:?}", start.elapsed());
    slopes.iter().for_each(Slope::judge);
    place.sandbox(&["rm", "-f", "-a"]).ok();
    other.sandbox(&["rm", "-f", "speaks"]).ok();
}

/// Orphans, many a second: each is reaped before anybody sees it, and that costs next to nothing.
#[test]
fn a_hundred_thousand_orphans() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    let count = if soak().is_some() { 100_000 } else { 10_000 };
    let child = place.start(place.cli(&["run", "--", &place.probe(), "orphans", &count.to_string(), "2000"]), "ready");
    let init = init_of(child.id());
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
        stat.rsplit(')').next().map_or(0, |rest| rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum())
    };
    let (start, mut cpu, mut oldest) = (Instant::now(), 0, std::collections::BTreeMap::<u32, Instant>::new());
    let mut worst = Duration::ZERO;
    let mut child = child;
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < watchdog() * 4, "it does not end");
        let dead: Vec<u32> = children(init).into_iter().filter(|pid| crate::ends::state(*pid) == 'Z').collect();
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
