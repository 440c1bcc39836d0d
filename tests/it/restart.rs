//! Restart policies and health checks: what a monitor does by itself.

use crate::support::*;
use serde_json::Value;
use std::time::{Duration, Instant};

impl Place {
    /// `state.json`, or another record, of the only sandbox.
    fn told(&self, record: &str) -> Value {
        let dir = std::fs::read_dir(self.path(".local/share/sandbox/sandboxes")).unwrap();
        let dir = dir.flatten().map(|e| e.path()).find(|p| p.is_dir()).expect("there is a sandbox");
        std::fs::read(dir.join(record)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn comes(&self, seconds: u64, what: &str, is: impl Fn(&Value) -> bool) {
        let there = within(Duration::from_secs(seconds), || is(&self.told("state.json")));
        assert!(there, "{what}: {}", self.told("state.json"));
    }
}

#[test]
fn a_failure_is_tried_again_as_often_as_was_said() {
    let place = place();
    let log = place.at("log");
    let script = format!("echo x >> {log}; exit 3");
    place.sandbox(&["run", "-d", "--restart", "on-failure:2", "--rw", &place.at("."), "--", "sh", "-c", &script]).ok();
    place.comes(10, "it gives up", |s| s["status"] == "exited");
    let state = place.told("state.json");
    assert_eq!((state["restarts"].as_u64(), state["exit"].as_u64()), (Some(2), Some(3)), "{state}");
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "x\nx\nx\n");
    place.sandbox(&["rm", "-a"]).ok();
    // What ends well is not tried again, and what somebody stops stays down.
    place.sandbox(&["run", "-d", "--restart", "on-failure", "--", "true"]).ok();
    place.comes(5, "it is over", |s| s["status"] == "exited" && s["restarts"] == 0);
    place.sandbox(&["rm", "-a"]).ok();
    for policy in ["always", "unless-stopped"] {
        place.sandbox(&["run", "-d", "--name", "up", "--restart", policy, "--", "sh", "-c", "sleep 0.1; exit 0"]).ok();
        place.comes(10, "it runs again", |s| s["restarts"].as_u64() >= Some(2));
        let began = Instant::now();
        place.sandbox(&["stop", "up"]).ok();
        assert!(began.elapsed() < Duration::from_secs(2), "a stop waits for no pause");
        assert_eq!(place.told("state.json")["status"], "exited");
        place.sandbox(&["rm", "up"]).ok();
    }
    place.nothing_left();
}

#[test]
fn the_pause_between_two_runs_doubles() {
    let place = place();
    let log = place.at("log");
    let script = format!("date +%s%N >> {log}; exit 1");
    place.sandbox(&["run", "-d", "--restart", "on-failure:4", "--rw", &place.at("."), "--", "sh", "-c", &script]).ok();
    place.comes(20, "it gives up", |s| s["status"] == "exited" && s["restarts"] == 4);
    let times: Vec<u64> = std::fs::read_to_string(&log).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    for (pair, least) in times.windows(2).zip([100, 200, 400, 800]) {
        assert!(pair[1] - pair[0] >= least * 1_000_000, "{times:?}");
    }
    place.sandbox(&["rm", "-a"]).ok();
}

#[test]
fn how_it_is_is_asked() {
    let place = place();
    let there = place.at("there");
    std::fs::write(&there, "").unwrap();
    let check = format!("echo asked; test -e {there}");
    let flags = ["run", "-d", "--name", "asked", "--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "5s"];
    let words = ["--ro", &place.at("."), "--health-cmd", &check, "--", "sleep", "600"];
    place.sandbox(&[&flags[..], &words].concat()).ok();
    let is = |status: &str| within(Duration::from_secs(20), || place.told("health.json")["status"] == status);
    assert!(is("healthy"), "{}", place.told("health.json"));
    std::fs::remove_file(&there).unwrap();
    assert!(is("unhealthy"), "{}", place.told("health.json"));
    let report = place.told("health.json");
    assert!(report["log"].as_array().unwrap().len() <= 5 && report["log"][0]["output"] == "asked\n", "{report}");
    assert_eq!(place.told("state.json")["status"], "running", "nothing was to be done about it");
    std::fs::write(&there, "").unwrap();
    assert!(is("healthy"), "{}", place.told("health.json"));
    place.sandbox(&["rm", "-f", "asked"]).ok();

    // A check that hangs is a failure, and leaves nobody behind.
    let flags = ["run", "-d", "--name", "hangs", "--health-interval", "100ms", "--health-retries", "1", "--health-timeout", "300ms"];
    place.sandbox(&[&flags[..], &["--health-cmd", "sleep 4711", "--", "sleep", "600"]].concat()).ok();
    assert!(is("unhealthy"), "{}", place.told("health.json"));
    assert!(place.told("health.json")["log"][0]["exit"].is_null());
    place.sandbox(&["rm", "-f", "hangs"]).ok();
    place.nothing_left();
}

#[test]
fn who_is_not_well_is_killed_run_again_or_stopped() {
    let place = place();
    let ask = |action: &str, policy: &str| {
        let flags = ["run", "-d", "--name", "ill", "--health-interval", "100ms", "--health-retries", "1", "--health-cmd", "false"];
        place.sandbox(&[&flags[..], &["--health-on-failure", action, "--restart", policy, "--", "sleep", "600"]].concat()).ok();
    };
    ask("kill", "no");
    place.comes(20, "killed", |s| s["status"] == "exited" && s["exit"] == 137);
    place.sandbox(&["rm", "ill"]).ok();
    ask("restart", "no");
    place.comes(20, "run again", |s| s["restarts"].as_u64() >= Some(1));
    place.sandbox(&["rm", "-f", "ill"]).ok();
    ask("stop", "always");
    place.comes(20, "stopped", |s| s["status"] == "exited" && s["restarts"] == 0);
    place.sandbox(&["rm", "ill"]).ok();
    for (flags, says) in [
        (&["--restart", "sometimes"][..], "bad restart policy"),
        (&["--health-retries", "2"], "nothing says how"),
        (&["--health-cmd", "true", "--health-interval", "soon"], "bad --health-interval"),
        (&["--health-on-failure", "panic"], "bad --health-on-failure"),
    ] {
        let output = place.sandbox(&[&["run", "-d"], flags, &["--", "true"]].concat());
        assert!(output.code() == 125 && output.stderr.contains(says), "{flags:?}: {output:?}");
    }
    place.sandbox(&["run", "--restart", "always", "--", "true"]).refused("in the foreground").hinted();
    place.nothing_left();
}
