//! Sandboxes that stay: what each verb does, by what the kernel and the disk say of it.

use super::image::tiny_image;
use crate::support::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

impl Place {
    /// `sandbox run -d --name NAME -- sh -c SCRIPT`: its whole ID.
    #[track_caller]
    fn detached(&self, name: &str, flags: &[&str], script: &str) -> String {
        self.sandbox(&[&["run", "-d", "--name", name], flags, &["--", "sh", "-c", script]].concat()).ok().to_string()
    }

    #[track_caller]
    fn looked_at(&self, name: &str) -> Value {
        let all: Value = serde_json::from_str(self.sandbox(&["inspect", name]).ok()).unwrap();
        all[0].clone()
    }

    #[track_caller]
    fn status(&self, name: &str) -> String {
        self.sandbox(&["inspect", "--format", "{{.State.Status}}", name]).ok().to_string()
    }

    fn gone(&self) {
        self.sandbox(&["rm", "-af"]).ok();
        assert_eq!(self.sandbox(&["ps", "-aq"]).ok(), "");
    }

    fn records(&self) -> PathBuf {
        self.path(".local/share/sandbox/sandboxes")
    }
}

fn states(of: u64) -> Vec<char> {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let state = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(") ")?.1.chars().next();
    children.split_whitespace().filter_map(state).collect()
}

/// Gone, or dead and nobody's: who reaps orphans here may take its time.
fn over(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[test]
fn paused_is_what_the_kernel_says() {
    let place = place();
    place.detached("p", &[], "while :; do date +%s%N > t; sleep 0.01; done");
    let pid = place.looked_at("p")["State"]["Pid"].as_u64().unwrap();
    place.sandbox(&["pause", "p"]).ok();
    assert_eq!(place.status("p"), "paused");
    // Frozen by a cgroup, or stopped one by one.
    let frozen = place.looked_at("p")["Sandbox"]["Cgroup"].as_str().map(str::to_string);
    match frozen {
        Some(top) => assert!(std::fs::read_to_string(format!("{top}/payload/cgroup.events")).unwrap().contains("frozen 1")),
        None => assert!(states(pid).iter().all(|s| *s == 'T'), "{:?}", states(pid)),
    }
    assert!(place.sandbox(&["ps"]).ok().contains("(Paused)"));
    place.sandbox(&["pause", "p"]).refused("it is paused").hinted();
    place.sandbox(&["exec", "p", "true"]).refused("it is paused").hinted();
    place.sandbox(&["unpause", "p"]).ok();
    assert_eq!(place.status("p"), "running");
    assert!(states(pid).iter().all(|s| *s != 'T'));
    place.sandbox(&["unpause", "p"]).refused("it is not paused").hinted();
    // One that is paused can be stopped, and asked before it is killed.
    place.detached("asked", &[], "trap 'exit 7' TERM; while :; do sleep 0.01; done");
    std::thread::sleep(Duration::from_millis(100));
    place.sandbox(&["pause", "asked"]).ok();
    place.sandbox(&["stop", "asked"]).ok();
    assert_eq!(place.looked_at("asked")["State"]["ExitCode"], 7);
    place.gone();
}

/// A shell in vfork(2) stops no earlier than its child has executed something, and that is stopped before.
#[test]
fn one_that_starts_programs_all_the_time_is_paused_each_time() {
    let place = place();
    place.detached("busy", &[], "while :; do date > t; sleep 0.001; done");
    for turn in 0..60 {
        place.sandbox(&["pause", "busy"]).ok();
        assert_eq!(place.status("busy"), "paused", "{turn}");
        place.sandbox(&["unpause", "busy"]).ok();
    }
    place.gone();
}

#[test]
fn what_is_weaker_is_said_later_too() {
    let place = place();
    let run = place.sandbox(&["run", "-d", "--name", "one", "--", "sleep", "600"]);
    run.ok();
    let degraded = place.looked_at("one")["Sandbox"]["Degraded"].clone();
    let of_memory = degraded.as_array().unwrap().iter().find(|d| d["Control"] == "memory");
    assert_eq!(of_memory.is_some(), run.unlimited.is_some(), "{degraded} {run:?}");
    assert!(of_memory.is_none_or(|d| d["Why"].as_str().unwrap().starts_with("no limit on memory: ")), "{degraded}");
    place.gone();
}

#[test]
fn several_are_stopped_at_once() {
    let place = place();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| drop(place.detached(name, &[], "trap '' TERM; sleep 600; sleep 600")));
    let stopped = place.sandbox(&["stop", "-t", "4", "a", "b", "c"]);
    assert_eq!(stopped.ok(), "a\nb\nc");
    assert!(stopped.took < Duration::from_secs(3 * 4), "{stopped:?}");
    names.iter().for_each(|name| assert_eq!(place.status(name), "exited"));
    place.gone();
}

/// Hundreds are looked through for a name, and of those that are not meant only the beginning is read. // container/store.rs
#[test]
fn a_record_begins_with_what_is_looked_for() {
    let place = place();
    let id = place.detached("one", &[], "sleep 600");
    let record = std::fs::read_to_string(place.records().join(&id).join("config.json")).unwrap();
    assert!(record.starts_with(&format!("{{\"id\":\"{id}\",\"name\":\"one\",")), "{record}");
    // Another one that is damaged is in nobody's way.
    let other = place.detached("other", &[], "sleep 600");
    let damaged = place.records().join(&other).join("config.json");
    let whole = std::fs::read_to_string(&damaged).unwrap();
    std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(place.status("one"), "running");
    assert_eq!(place.status(&id[..12]), "running");
    place.sandbox(&["inspect", "none"]).refused("cannot find");
    for word in ["other", &other, &other[..12]] {
        place.sandbox(&["stop", word]).refused("cannot believe").hinted();
    }
    std::fs::write(&damaged, whole).unwrap();
    place.gone();
}

#[test]
fn names_are_given_made_up_changed_and_replaced() {
    let place = place();
    let made_up = place.sandbox(&["run", "-d", "--", "sleep", "600"]).ok().to_string();
    let name = place.sandbox(&["inspect", "--format", "{{.Name}}", &made_up]).ok().to_string();
    assert!(name.contains('-') && name.len() < 30, "{name}");
    assert_eq!(place.sandbox(&["inspect", "--format", "{{.Id}}", &made_up[..12]]).ok(), made_up);
    place.sandbox(&["rename", &name, "web"]).ok();
    place.sandbox(&["inspect", &name]).refused("cannot find a sandbox or an image").hinted();
    assert_eq!(place.looked_at("web")["Id"], made_up);
    place.sandbox(&["run", "--name", "web", "--", "true"]).refused("cannot use the name 'web'").hinted();
    let other = place.detached("other", &[], "sleep 600");
    place.sandbox(&["rename", "other", "web"]).refused("cannot use the name 'web'").hinted();
    // It goes with all that it is, and only the one of that very name.
    let new = place.detached("web", &["--replace"], "sleep 600");
    assert_eq!(place.looked_at("web")["Id"], new);
    place.sandbox(&["inspect", &made_up]).refused("cannot find").hinted();
    assert_eq!(place.status(&other), "running");
    // In the foreground a name stays.
    let child = place.start(place.cli(&["run", "--name", "front", "--", "sh", "-c", "echo up; sleep 600"]), "up");
    place.sandbox(&["rename", "front", "back"]).refused("it runs in the foreground").hinted();
    place.sandbox(&["run", "--replace", "--name", "front", "--", "true"]).ok();
    let over = finish(child, b"");
    assert_eq!(over.code(), 137, "{over:?}");
    place.gone();
}

#[test]
fn it_is_run_again_as_it_was() {
    let place = place();
    let count = place.at("count");
    place.file("count", "");
    let id = place.detached("r", &["--rw", &count], &format!("echo x >> {count}; trap 'exit 3' TERM; while :; do sleep 0.01; done"));
    let lines = || std::fs::read_to_string(&count).unwrap().lines().count();
    assert!(within(Duration::from_secs(5), || lines() == 1));
    let before = place.looked_at("r")["State"]["Pid"].clone();
    place.sandbox(&["restart", "-t", "5", "r"]).ok();
    assert!(within(Duration::from_secs(5), || lines() == 2));
    let after = place.looked_at("r");
    assert!(after["State"]["Pid"] != before && after["Id"] == id && after["State"]["Running"] == true, "{after}");
    place.sandbox(&["stop", "r"]).ok();
    assert_eq!((place.status("r").as_str(), place.looked_at("r")["State"]["ExitCode"].clone()), ("exited", json!(3)));
    place.sandbox(&["start", &id[..8]]).ok();
    assert!(within(Duration::from_secs(5), || lines() == 3));
    place.detached("gone", &["--rm"], "sleep 600");
    place.sandbox(&["restart", "gone"]).refused("it is gone when it ends").hinted();
    place.gone();
}

#[test]
fn filters_and_formats_are_dockers() {
    let place = place();
    let one = place.detached("one", &["-l", "team=web", "-l", "x"], "exit 4");
    place.detached("two", &["-l", "team=db"], "sleep 600");
    place.sandbox(&["create", "--name", "three", "--", "true"]).ok();
    assert!(within(Duration::from_secs(5), || place.status("one") == "exited"));
    let names = |filters: &[&str]| {
        let mut words = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|f| words.extend(["-f", f]));
        let mut all: Vec<String> = place.sandbox(&words).ok().lines().map(str::to_string).collect();
        all.sort();
        all.join(" ")
    };
    for (filters, found) in [
        (&["name=o"] as &[&str], "one two"),
        (&["name=^one$"], "one"),
        (&["name=one", "name=two"], "one two"),
        (&["name=one", "status=running"], ""),
        (&["status=created"], "three"),
        (&["status=exited", "status=created"], "one three"),
        (&["exited=4"], "one"),
        (&["label=team"], "one two"),
        (&["label=team=db"], "two"),
        (&["label=team", "label=x"], "one"),
        (&["health=none", "network=none"], "one three two"),
        (&[&format!("id={}", &one[..7])], "one"),
        (&["since=three"], ""),
        (&["until=24h"], ""),
        (&["ancestor=debian"], ""),
    ] {
        assert_eq!(names(filters), found, "{filters:?}");
    }
    assert_eq!(place.sandbox(&["ps", "-q", "--no-trunc", "-f", "exited=4"]).ok(), one);
    assert_eq!(place.sandbox(&["ps", "-n", "2", "-q"]).ok().lines().count(), 2);
    place.sandbox(&["ps", "-f", "colour=red"]).refused("bad filter 'colour=red'");
    let row: Value = serde_json::from_str(place.sandbox(&["ps", "-a", "-f", "name=one", "--format", "json"]).ok()).unwrap();
    for field in ["ID", "Names", "Image", "Command", "CreatedAt", "RunningFor", "Status", "State", "Ports", "Size", "Labels", "Mounts", "Networks"] {
        assert!(row.get(field).is_some(), "{field}");
    }
    assert_eq!((&row["State"], &row["Labels"], &row["ExitCode"]), (&json!("exited"), &json!("team=web,x="), &json!(4)));
    assert!(place.sandbox(&["ps", "-a", "--format", "table {{.Names}}\\t{{.State}}"]).ok().starts_with("NAMES"));
    // By filters, and all at once.
    place.sandbox(&["stop", "-t", "0", "--filter", "label=team=db"]).ok();
    assert_eq!(place.status("two"), "exited");
    place.sandbox(&["container", "prune"]).refused("this is no terminal").hinted();
    place.sandbox(&["container", "prune", "-f", "--filter", "label=x"]).ok();
    assert_eq!(names(&[]), "three two");
    place.sandbox(&["rm", "--filter", "status=created"]).ok();
    assert_eq!(names(&[]), "two");
    place.gone();
}

/// Whoever names things may want to write to the terminal of whoever lists them. // P05
#[test]
fn cve_2023_28101_nothing_writes_to_the_terminal() {
    let place = place();
    let evil = "\u{1b}[2J\u{9b}31m\r\u{202e}x";
    place
        .sandbox(&[
            "run",
            "-d",
            "--name",
            "evil",
            "-l",
            &format!("{evil}={evil}"),
            "-e",
            &format!("E={evil}"),
            "--",
            "sh",
            "-c",
            &format!(": '{evil}'"),
        ])
        .ok();
    assert!(within(Duration::from_secs(5), || place.status("evil") == "exited"));
    for words in [
        &["ps", "-a"] as &[&str],
        &["ps", "-a", "--no-trunc", "--format", "{{.Labels}} {{.Command}}"],
        &["ps", "-a", "--format", "json"],
        &["ps", "-a", "--format", "{{json .}}"],
        &["inspect", "evil"],
        &["inspect", "--format", "{{.Config.Env}} {{.Config.Labels}}", "evil"],
        &["inspect", "--format", "{{json .}}", "evil"],
        &["events", "--since", "1h", "--until", "0s"],
        &["events", "--since", "1h", "--until", "0s", "--json"],
        &["events", "--since", "1h", "--until", "0s", "--format", "{{.Actor.Attributes}}"],
        &["inspect", evil],
        &["ps", "--filter", evil],
    ] {
        let out = place.sandbox(words);
        let odd = |c: &char| (c.is_control() && *c != '\n') || *c == '\u{202e}';
        assert!(!out.stdout.chars().any(|c| odd(&c)) && !out.stderr.chars().any(|c| odd(&c)), "{words:?}: {out:?}");
        assert!(!out.stdout.is_empty() || out.code() != 0, "{words:?}: {out:?}");
    }
    place.gone();
}

/// One in the foreground has a record as soon as somebody could ask for it: what is brief has none, and is told of like any other.
#[test]
fn a_brief_run_is_told_of_and_a_longer_one_listed() {
    let place = place();
    place.detached("stays", &[], "true");
    assert_eq!(place.sandbox(&["run", "-l", "which=brief", "--", "sh", "-c", "exit 3"]).code(), 3);
    let mut longer = place.start(place.cli(&["run", "-l", "which=longer", "--", "sh", "-c", "echo up; exec sleep 60"]), "up");
    let listed = || place.sandbox(&["ps", "-q", "--filter", "label=which=longer"]).ok().lines().count() == 1;
    assert!(within(Duration::from_secs(1), listed), "not listed within a second");
    let inited = place.sandbox(&["inspect", "--format", "{{.State.Pid}}", place.sandbox(&["ps", "-q", "--filter", "label=which=longer"]).ok()]);
    assert!(std::path::Path::new(&format!("/proc/{}", inited.ok())).exists(), "{inited:?}");
    longer.kill().unwrap();
    longer.wait().unwrap();
    let told = |which: &str| {
        let out = place.sandbox(&["events", "--since", "1h", "--until", "0s", "--json", "--filter", which]);
        let events = out.ok().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).collect::<Vec<_>>();
        let exit = |e: &Value| e["Actor"]["Attributes"]["exitCode"].as_str().unwrap_or_default().to_string();
        events.iter().map(|e| format!("{}{}", e["Action"].as_str().unwrap(), exit(e))).collect::<Vec<_>>()
    };
    assert_eq!(told("label=which=brief"), ["create", "start", "die3", "destroy"]);
    assert_eq!(told("label=which=longer"), ["create", "start"]);
    place.sandbox(&["rm", "-f", "stays"]).ok();
    place.gone();
}

#[test]
fn what_happens_is_told() {
    let place = place();
    let id = place.detached("e", &["-l", "k=v"], "sleep 600");
    place.sandbox(&["pause", "e"]).ok();
    place.sandbox(&["unpause", "e"]).ok();
    assert_eq!(place.sandbox(&["exec", "e", "sh", "-c", "exit 6"]).code(), 6);
    place.sandbox(&["rename", "e", "f"]).ok();
    place.sandbox(&["stop", "-t", "0", "f"]).ok();
    place.sandbox(&["rm", "f"]).ok();
    let told =
        place.sandbox(&["events", "--since", "1h", "--until", "0s", "--json", "--filter", "container=f", "--filter", &format!("container={id}")]);
    let events: Vec<Value> = told.ok().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let actions: Vec<&str> = events.iter().map(|e| e["Action"].as_str().unwrap()).collect();
    let mut sorted = actions.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["create", "destroy", "die", "exec_die", "exec_start", "pause", "rename", "start", "stop", "unpause"], "{actions:?}");
    assert_eq!((actions[0], *actions.last().unwrap()), ("create", "destroy"));
    let die = events.iter().find(|e| e["Action"] == "die").unwrap();
    let about = &die["Actor"]["Attributes"];
    assert!(die["id"] == *id && (about["exitCode"] == "137" || about["exitCode"] == "143") && about["name"] == "f" && about["k"] == "v", "{die}");
    place.sandbox(&["events", "--filter", "colour=red"]).refused("bad filter");
    // Followed, as it happens.
    let follower = place.start(place.cli(&["events", "--since", "1h", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}"]), "e\n");
    place.detached("later", &[], "true");
    let mut follower = follower;
    let mut seen = String::new();
    let stdout = follower.stdout.as_mut().unwrap();
    let mut byte = [0];
    while !seen.contains("later\n") {
        assert_eq!(std::io::Read::read(stdout, &mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    place.gone();
    // Bounded: what is older than two files is not there.
    let file = place.records().join(".events");
    std::fs::write(&file, "x".repeat((1 << 20) - 10) + "\n").unwrap();
    place.sandbox(&["create", "--name", "more", "--", "true"]).ok();
    assert!(std::fs::metadata(&file).unwrap().len() < 1 << 16 && std::fs::metadata(place.records().join(".events.1")).unwrap().len() > 1 << 19);
    place.gone();
}

/// Whatever dies, the next command says so; and it can be run again, and removed.
#[test]
fn the_truth_after_any_death() {
    let mut place = place();
    let name = tiny_image(&place, "base");
    let run = |place: &Place, name_: &str| {
        place.sandbox(&["run", "-d", "--name", name_, "--entrypoint", "", &name, "sh", "-c", "echo x >> /kept; sleep 600"]).ok().to_string()
    };
    run(&place, "m");
    let monitor = place.looked_at("m")["Sandbox"]["Monitor"].as_i64().unwrap() as i32;
    let init = place.looked_at("m")["State"]["Pid"].as_u64().unwrap();
    let kill = |pid: i32| rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    kill(monitor);
    assert!(within(Duration::from_secs(1), || place.status("m") == "dead"), "{}", place.status("m"));
    assert!(within(Duration::from_secs(1), || over(init)), "its sandbox goes with it");
    place.sandbox(&["kill", "m"]).refused("it does not run");
    place.sandbox(&["start", "m"]).ok();
    assert_eq!(place.status("m"), "running");
    assert!(place.sandbox(&["diff", "m"]).ok().contains("A /kept"));
    // PID 1 dies: that is an end as any other.
    kill(place.looked_at("m")["State"]["Pid"].as_i64().unwrap() as i32);
    assert!(within(Duration::from_secs(2), || place.status("m") == "exited"));
    assert_eq!(place.looked_at("m")["State"]["ExitCode"], 137);
    // What ended has its layer: it is looked into, made an image, and a tar.
    assert!(place.sandbox(&["diff", "m"]).ok().contains("A /kept"));
    place.sandbox(&["commit", "m", "localhost/of-it"]).ok();
    assert_eq!(place.sandbox(&["run", "--entrypoint", "", "localhost/of-it", "cat", "/kept"]).ok(), "x\nx");
    place.sandbox(&["export", "-o", &place.at("m.tar"), "m"]).ok();
    assert!(place.sandbox(&["ps", "-as"]).ok().contains("kB"));
    // The machine was started again: other boot, other pids, no runtime directory.
    run(&place, "b");
    kill(place.looked_at("b")["Sandbox"]["Monitor"].as_i64().unwrap() as i32);
    let _ = std::fs::remove_dir_all(place.path(".cache/sandbox/live"));
    place.env.insert("SANDBOX_BOOT".into(), "another".into());
    assert!(within(Duration::from_secs(1), || place.status("b") == "dead"));
    assert!(place.looked_at("b")["State"]["Error"].as_str().unwrap().contains("the machine was started again"));
    place.sandbox(&["start", "b"]).ok();
    assert_eq!(place.status("b"), "running");
    place.gone();
}

#[test]
fn what_runs_in_the_foreground_is_one_of_them() {
    let place = place();
    let name = tiny_image(&place, "base");
    let child = place.start(place.cli(&["run", "--name", "front", "--", "sh", "-c", "echo up; sleep 600"]), "up");
    assert!(place.sandbox(&["ps"]).ok().contains("front"));
    assert_eq!((place.status("front"), place.looked_at("front")["Sandbox"]["Detached"].clone()), ("running".into(), json!(false)));
    place.sandbox(&["stop", "-t", "0", "front"]).ok();
    assert!([137, 143].contains(&finish(child, b"").code()));
    place.sandbox(&["inspect", "front"]).refused("cannot find");
    // What it kept stays, with its name; started again it is not in the foreground.
    let words = ["run", "--keep", "--name", "work", "--entrypoint", "", &name, "sh", "-c", "echo x >> /kept; exit 5"];
    assert_eq!(place.sandbox(&words).code(), 5);
    assert_eq!((place.status("work"), place.looked_at("work")["State"]["ExitCode"].clone()), ("exited".into(), json!(5)));
    place.sandbox(&words).refused("cannot use the name 'work'").hinted();
    place.sandbox(&["start", "work"]).ok();
    assert!(within(Duration::from_secs(5), || place.status("work") == "exited"));
    place.sandbox(&["commit", "work", "localhost/work"]).ok();
    assert_eq!(place.sandbox(&["run", "--entrypoint", "", "localhost/work", "cat", "/kept"]).ok(), "x\nx");
    place.sandbox(&["rm", "work"]).ok();
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}}"]).ok(), "", "its layer goes with it");
    place.gone();
}

/// What cannot be written is not listed, and runs.
#[test]
fn a_home_that_cannot_be_written_keeps_nothing_from_running() {
    let place = place();
    mode(&place.home, 0o555);
    let out = place.sandbox(&["run", "--", "echo", "hi"]);
    assert_eq!(out.ok(), "hi");
    place.sandbox(&["run", "-d", "--", "true"]).refused("cannot make");
    assert_eq!(place.sandbox(&["ps", "-aq"]).ok(), "");
    mode(&place.home, 0o755);
}

/// Alone: the sandboxes of a session are those of all cases in it, and this one removes them all.
#[test]
fn limits_of_a_living_sandbox_are_the_kernels_alone() {
    need!(Systemd, CgroupV2);
    let place = login();
    place.detached("u", &["--memory", "64m"], "sleep 600");
    let top = place.looked_at("u")["Sandbox"]["Cgroup"].as_str().unwrap().to_string();
    let read = |file: &str| std::fs::read_to_string(format!("{top}/{file}")).unwrap().trim().to_string();
    place.sandbox(&["update", "--memory", "96m", "--pids-limit", "77", "--cpus", "0.5", "u"]).ok();
    for below in ["", "payload/"] {
        assert_eq!(read(&format!("{below}memory.max")), (96 << 20).to_string());
        assert_eq!(read(&format!("{below}pids.max")), "77");
        assert_eq!(read(&format!("{below}cpu.max")), "50000 100000");
    }
    assert!(place.sandbox(&["stats", "--no-stream", "u"]).ok().contains("96.0MiB"));
    place.sandbox(&["restart", "-t", "0", "u"]).ok();
    let again = place.looked_at("u")["Sandbox"]["Cgroup"].as_str().unwrap().to_string();
    assert_eq!(std::fs::read_to_string(format!("{again}/memory.max")).unwrap().trim(), (96 << 20).to_string(), "and the next time");
    place.gone();
}

#[test]
fn what_is_decided_later_holds_the_next_time() {
    let place = place();
    place.sandbox(&["create", "--name", "c", "--", "true"]).ok();
    place.sandbox(&["update", "c"]).refused("cannot update nothing").hinted();
    place.sandbox(&["update", "--memory", "1k", "c"]).refused("memory");
    place.sandbox(&["update", "--restart", "on-failure:3", "--pids-limit", "99", "c"]).ok();
    let host = place.looked_at("c")["HostConfig"].clone();
    assert_eq!(
        (&host["RestartPolicy"]["Name"], &host["RestartPolicy"]["MaximumRetryCount"], &host["PidsLimit"]),
        (&json!("on-failure"), &json!(3), &json!(99))
    );
    let mark = place.at("id");
    place.sandbox(&["create", "--cidfile", &mark, "--", "true"]).ok();
    assert_eq!(std::fs::read_to_string(&mark).unwrap().len(), 64);
    place.sandbox(&["run", "--cidfile", &mark, "--", "true"]).refused("cannot make").hinted();
    place.sandbox(&["run", "-d", "--preserve-fds", "1", "--", "true"]).refused("descriptor");
    place.gone();
}
