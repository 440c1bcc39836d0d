//! However it ends, nothing is left: no process, no mount, no file, within two seconds and with nobody's help.

use crate::run::kill;
use crate::support::*;
use std::process::Stdio;
use std::time::Duration;

/// A workload that resists: ignores signals, leaves its session, holds a tree of children.
const STUBBORN: &str = "trap '' HUP INT TERM QUIT PIPE TSTP; setsid sh -c 'trap \"\" HUP TERM; sleep 60' & (sleep 60 & sleep 60) & echo ready; while :; do sleep 60; done";

/// What is made once and stays is there: directories, and filters that were compiled.
fn warm() -> Place {
    let place = alone();
    place.sandbox(&["run", "--name", "crash", "--", "true"]).ok();
    place
}

#[test]
fn the_parent_dies_at_each_step() {
    let place = warm();
    let left = Left::before(&place);
    let token = format!("TOKEN={}", place.home.display());
    for step in 0..=7 {
        let all = [&[][..], &["-t"], &["--name", "crash"], &["--security-opt", "nested"], &["--pid", "host"]];
        for flags in all.into_iter().take(if scopes() { 5 } else { 4 }) {
            let mut command = place.cli(&[&["run", "-e", &token], flags, &["--", "sh", "-c", STUBBORN]].concat());
            command.env("SANDBOX_DIE_AT", step.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let died = within(Duration::from_secs(if step == 7 { 1 } else { 5 }), || child.try_wait().unwrap().is_some());
            if died {
                use std::os::unix::process::ExitStatusExt;
                assert_eq!(child.wait().unwrap().signal(), Some(9), "step {step} {flags:?}");
            } else {
                assert_eq!(step, 7, "nobody dies at step {step}");
                child.kill().unwrap();
                child.wait().unwrap();
            }
            println!("step {step} {flags:?}");
            // The next ordinary run works, the name is free.
            left.after_kill_and(&["run", "--name", "crash", "--", "true"]);
        }
    }
}

fn killed(flags: &[&str], signal: i32) {
    let place = warm();
    let left = Left::before(&place);
    // Another user inside has another HOME; by this we know all that belongs to the run.
    let token = format!("TOKEN={}", place.home.display());
    let mut child = place.start(place.cli(&[&["run", "-e", &token], flags, &["--", "sh", "-c", STUBBORN]].concat()), "ready");
    assert!(place.processes().len() >= 4);
    kill(child.id(), signal);
    child.wait().unwrap();
    left.after_kill_and(&["run", "--", "true"]);
}

#[test]
fn kill_9_of_the_parent() {
    killed(&[], 9);
}

#[test]
fn kill_9_of_the_parent_with_the_hosts_pids() {
    need!(scopes(), "needs landlock scopes (Linux 6.12)");
    killed(&["--pid", "host"], 9);
}

#[test]
fn kill_9_of_the_parent_with_one_id() {
    killed(&["--userns", "single"], 9);
}

#[test]
fn kill_9_of_the_parent_with_another_user_inside() {
    killed(&["-u", "0"], 9);
    if subuids(&accounts().user).is_some() {
        killed(&["-u", "5"], 9);
        killed(&["--userns", "nomap"], 9);
    }
}

#[test]
fn kill_9_of_the_parent_of_a_nested_one() {
    killed(&["--security-opt", "nested"], 9);
}

#[test]
fn kill_9_of_the_parent_with_a_terminal() {
    killed(&["-t"], 9);
}

#[test]
fn kill_9_of_the_parent_of_a_user_without_subordinate_ids() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", STUBBORN]), "ready");
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_left();
}

#[test]
fn kill_9_of_init() {
    let place = warm();
    let left = Left::before(&place);
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", STUBBORN]), "ready");
    kill(init_of(child.id()), 9);
    assert!(within(Duration::from_secs(3), || child.try_wait().unwrap().is_some()));
    assert_eq!(finish(child, b"").code(), 137);
    left.at_once();
}

#[test]
fn kill_9_at_random_times() {
    let place = warm();
    let left = Left::before(&place);
    // Not random, but spread over all of a start.
    for n in 0..60u64 {
        let mut command = place.cli(&["run", "--name", "spread", "--", "sh", "-c", "touch ~/x /tmp/x; sleep 30"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(n * 900));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    left.after_kill_and(&["run", "--name", "spread", "--", "true"]);
}

#[test]
fn signals_at_any_time() {
    for signal in [1, 2, 15] {
        let place = place();
        for n in 0..12u64 {
            let mut command = place.cli(&["run", "--", "sleep", "30"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_micros(n * 4000));
            kill(child.id(), signal);
            assert!(within(Duration::from_secs(5), || child.try_wait().unwrap().is_some()), "signal {signal} after {} ms", n * 4);
            child.wait().unwrap();
        }
        place.nothing_left();
    }
}

#[test]
fn stop_and_continue() {
    let place = place();
    let mut command = place.cli(&["run", "--", "sh", "-c", "echo ready; sleep 20"]);
    // The kernel stops nobody in an orphaned process group, and ours may be one: a group of its own has us as its keeper.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = place.start(command, "ready");
    let state =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().rsplit(')').next().unwrap_or("").trim().chars().next();
    let processes: Vec<u32> = place
        .processes()
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() == "sleep")
        .collect();
    kill(child.id(), 20);
    assert!(within(Duration::from_secs(3), || state(child.id()) == Some('T')), "the parent did not stop");
    assert!(processes.iter().all(|p| within(Duration::from_secs(3), || state(*p) == Some('T'))), "the workload did not stop");
    kill(child.id(), 18);
    assert!(within(Duration::from_secs(3), || state(child.id()) != Some('T')));
    assert!(processes.iter().all(|p| within(Duration::from_secs(3), || state(*p) != Some('T'))), "the workload did not go on");
    // And stopped for good, then killed.
    kill(child.id(), 20);
    assert!(within(Duration::from_secs(3), || state(child.id()) == Some('T')));
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_left();
}

#[test]
fn a_full_scratch_is_an_error_of_the_command_alone() {
    let place = place();
    let output = place
        .inside_with(&["--policy", "strict"], "head -c 700m /dev/zero > /tmp/big; echo $?; rm -f /tmp/big; echo fine > /tmp/small && cat /tmp/small");
    assert!(output.ok().ends_with("fine"), "{output:?}");
    assert!(output.stderr.contains("No space left"), "{output:?}");
}

#[test]
fn a_fork_bomb_of_bounded_size_ends_with_the_sandbox() {
    let place = place();
    let mut child = place.start(
        place.cli(&["run", "--", "sh", "-c", "for i in $(seq 300); do (trap '' HUP TERM INT; sleep 60) & done >/dev/null 2>&1; echo ready; wait"]),
        "ready",
    );
    assert!(place.processes().len() > 250);
    child.kill().unwrap();
    child.wait().unwrap();
    place.nothing_left();
}
