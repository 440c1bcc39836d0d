//! A whole machine, as people have it or as it goes wrong: logins, several users, sysctls that forbid, a `/proc` that is masked, a reboot.
//!
//! Some cases change the machine, so all need the one of tests/vm, which runs them one at a time and after all others. A case with `rebooted`
//! in its name runs after a second boot.

use crate::run::kill;
use crate::support::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// As root, on the machine.
fn admin(script: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), b"")
}

/// Put back at the end, also of a test that fails.
struct Sysctl(&'static str, String);

impl Sysctl {
    fn set(name: &'static str, value: &str) -> Sysctl {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let before = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        std::fs::write(&path, value).unwrap();
        Sysctl(name, before)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = std::fs::write(format!("/proc/sys/{}", self.0.replace('.', "/")), &self.1);
    }
}

/// What works anywhere: a run, its exit code, its streams, files that are gone, two names at once, and nothing left.
#[track_caller]
fn works(place: &Place) {
    let name = place.account.name.clone();
    assert_eq!(place.inside("id -un; touch ~/gone /tmp/gone; echo fine").ok(), format!("{name}\nfine"));
    assert!(!place.path("gone").exists());
    assert_eq!(place.inside("exit 7").code(), 7);
    assert_eq!(place.inside("kill -9 $$").code(), 137);
    place.nothing_left();
}

#[test]
fn a_login_has_a_session_and_a_manager() {
    need!(Systemd, CgroupV2, Machine);
    let place = login();
    let output = finish(
        place.command("sh").args(["-c", "cat /proc/self/cgroup; echo $XDG_RUNTIME_DIR; ls -d $XDG_RUNTIME_DIR/bus; id -un"]).spawn().unwrap(),
        b"",
    );
    let uid = place.account.uid;
    let lines: Vec<_> = output.ok().lines().collect();
    assert!(lines[0].starts_with(&format!("0::/user.slice/user-{uid}.slice/session-")), "{output:?}");
    assert_eq!(lines[1..], [format!("/run/user/{uid}"), format!("/run/user/{uid}/bus"), place.account.name.clone()]);
    works(&place);
}

#[test]
fn a_login_at_a_terminal() {
    need!(Systemd, CgroupV2, Machine);
    let place = login();
    let script = place.script(
        "session",
        &format!("echo in $(cat /proc/self/cgroup); {} run -t -- sh -c 'tty; echo fine; exit 5'; echo code $?\n", program().display()),
    );
    let typed = format!("sh {}\nexit\n", script.display());
    let mut command = Command::new("script");
    command.args(["-qec", &format!("login -f {}", place.account.name), "/dev/null"]).env("TERM", "linux");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = finish(command.spawn().unwrap(), typed.as_bytes());
    for said in ["/session-", "/dev/pts/0", "fine", "code 5"] {
        assert!(output.stdout.contains(said), "no '{said}': {output:?}");
    }
}

#[test]
fn two_users_run_the_same_name_at_once() {
    need!(Systemd, CgroupV2, Machine);
    let places = [login(), Place::of(accounts().mallory.clone().unwrap()).login()];
    let mut children =
        places.each_ref().map(|p| p.start(p.cli(&["run", "--name", "same", "--", "sh", "-c", "id -un; echo ready; sleep 60"]), "ready"));
    for (place, child) in places.iter().zip(&mut children) {
        // His own is in his way, the other's is not.
        place.sandbox(&["run", "--name", "same", "--", "true"]).refused("same");
        kill(place.supervisor(child), 15);
        assert!(within(Duration::from_secs(3), || child.try_wait().unwrap().is_some()), "it does not stop");
        place.nothing_left();
        place.sandbox(&["run", "--name", "same", "--", "true"]).ok();
    }
}

#[test]
fn a_logged_in_user_without_subordinate_ids() {
    need!(Systemd, CgroupV2, Machine);
    let place = Place::of(accounts().plain.clone().unwrap()).login();
    works(&place);
    let output = place.inside("cat /proc/self/uid_map | wc -l");
    assert_eq!(output.ok(), "1");
    assert!(output.stderr.contains("subuid"), "{output:?}");
}

#[test]
fn a_user_without_a_session_whose_manager_lingers() {
    need!(Systemd, CgroupV2, Machine);
    let place = place();
    assert!(Path::new(&format!("/run/user/{}/bus", place.account.uid)).exists());
    works(&place);
    // As cron would: by the system's manager, with no session, and not even a home in the environment.
    let output = admin(&format!(
        "systemd-run --quiet --pipe --wait --collect --uid={} {} run -- sh -c 'id -un; exit 3'",
        place.account.name,
        program().display()
    ));
    assert_eq!((output.code(), output.stdout.trim()), (3, place.account.name.as_str()), "{output:?}");
}

#[test]
fn a_user_without_a_session_and_without_a_manager() {
    need!(Systemd, CgroupV2, Machine);
    let place = Place::of(accounts().mallory.clone().unwrap());
    let dir = format!("/run/user/{}", place.account.uid);
    assert!(within(Duration::from_secs(10), || !Path::new(&dir).exists()), "an earlier session is still there");
    works(&place);
    let output = place.inside("true");
    assert!(output.stderr.is_empty() && output.unlimited.is_some(), "{output:?}");
}

#[test]
fn a_masked_proc_is_refused_and_the_hosts_is_never_shown() {
    need!(Machine);
    let place = place();
    // What container engines do to the /proc that they give.
    let become_user = format!("setpriv --reuid {} --regid {} --clear-groups", place.account.uid, place.account.gid);
    let run = |mask: &str| {
        let script = format!(
            "{mask} && cd {home} && exec env -i HOME={home} PATH=$PATH {become_user} {program} run -- sh -c 'echo ran'",
            home = place.home.display(),
            program = program().display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap(), b"")
    };
    assert_eq!(run("true").ok(), "ran");
    for mask in [
        "mount --bind /dev/null /proc/kcore",
        "mount -t tmpfs none /proc/scsi || mount -t tmpfs none /proc/acpi",
        "mount --bind -o ro /proc/sys /proc/sys",
    ] {
        let output = run(mask);
        output.refused("cannot ").hinted();
        assert!(!output.stdout.contains("ran"), "{mask}: {output:?}");
    }
}

#[test]
fn no_user_namespaces_at_all() {
    need!(Machine);
    let place = place();
    for (name, value) in [("user.max_user_namespaces", "0"), ("kernel.unprivileged_userns_clone", "0")] {
        let before = Sysctl::set(name, value);
        let output = place.inside("echo ran");
        output.refused("cannot ").hinted();
        // The cure is the line that undoes it.
        assert!(output.stderr.contains(name) && output.stdout.is_empty(), "{output:?}");
        drop(before);
        works(&place);
    }
}

#[test]
fn too_few_user_namespaces() {
    need!(Machine);
    let place = place();
    // Enough for the first of ours, too few for the second: never a run with one wall less.
    for most in ["1", "2", "3"] {
        let before = Sysctl::set("user.max_user_namespaces", most);
        let output = place.inside("echo ran; cat /proc/self/uid_map");
        if output.code() != 0 {
            output.refused("cannot ").hinted();
            assert!(!output.stdout.contains("ran"), "{output:?}");
        }
        drop(before);
    }
    works(&place);
}

#[test]
fn a_manager_that_stops_takes_its_sandboxes_along() {
    need!(Systemd, CgroupV2, Machine);
    let place = Place::of(accounts().mallory.clone().unwrap()).login();
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", "trap '' TERM HUP; echo ready; while :; do sleep 60; done"]), "ready");
    admin(&format!("loginctl terminate-user {}", place.account.name));
    assert!(within(Duration::from_secs(15), || child.try_wait().unwrap().is_some()), "it lives on after its user's end");
    child.wait().unwrap();
    place.nothing_left();
    works(&place);
}

/// The machine's clock, so many seconds off until this is dropped.
struct Clock(std::time::Instant, std::time::SystemTime);

impl Clock {
    fn now() -> Clock {
        Clock(std::time::Instant::now(), std::time::SystemTime::now())
    }

    fn off_by(&self, seconds: i64) {
        let right = (self.1 + self.0.elapsed()).duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        admin(&format!("date -s @{}", right.checked_add_signed(seconds).unwrap())).ok();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.off_by(0);
    }
}

/// By ten years forth and back, while everything waits for something.
#[test]
fn the_clock_is_set_and_nobody_waits_for_it() {
    need!(Machine);
    const YEARS: i64 = 10 * 365 * 86400;
    let place = place();
    let clock = Clock::now();
    let run = |name: &str, flags: &[&str], script: &str| {
        place.sandbox(&[&["run", "-d", "--name", name], flags, &["--", "sh", "-c", script]].concat()).ok();
    };
    let state = |name: &str| place.sandbox(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]).ok().to_string();
    let health = |name: &str| place.sandbox(&["inspect", "--format", "{{.State.Health.Status}}", name]).ok().to_string();
    let comes = |seconds: u64, what: &str, is: &dyn Fn() -> bool| assert!(within(Duration::from_secs(seconds), is), "{what}");
    for off in [YEARS, -YEARS] {
        clock.off_by(0);
        let flag = place.file("flag", "");
        let test = format!("test -e {}", flag.display());
        let checks = ["--health-cmd", &test, "--health-interval", "300ms", "--health-retries", "2", "--ro", &place.at(".")];
        run("asked", &checks, "exec sleep 600");
        comes(20, "it is well", &|| health("asked") == "healthy");
        run("fails", &["--restart", "on-failure:5"], "exit 4");
        run("stubborn", &[], "trap '' TERM; echo said; while :; do sleep 0.05; done");
        run("limited", &["--timeout", "4"], "exec sleep 600");
        run("speaks", &[], "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.05; done");
        let follower = place.start(place.cli(&["logs", "-f", "speaks"]), "5\n");
        let asked = std::time::Instant::now();
        let stop = place.cli(&["stop", "-t", "3", "stubborn"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(500));
        clock.off_by(off);
        let set = std::time::Instant::now();

        // Nobody is killed early or late.
        finish(stop, b"").ok();
        assert!(asked.elapsed() > Duration::from_millis(2900), "{:?}", asked.elapsed());
        assert_eq!(state("stubborn"), "exited 137");
        comes(10, "its time is up", &|| state("limited") == "exited 143");
        // What is asked now and then is asked on; who tries again tries on, and gives up.
        std::fs::remove_file(&flag).unwrap();
        comes(20, "it is not well", &|| health("asked") == "unhealthy");
        comes(20, "it gives up", &|| state("fails") == "exited 4");
        assert!(set.elapsed() < Duration::from_secs(30) * patience(), "{:?}", set.elapsed());

        // The log goes on, and is found by the times that it has.
        let all = || place.sandbox(&["logs", "speaks"]).stdout;
        let count = all().lines().count();
        comes(10, "it speaks on", &|| all().lines().count() > count + 5);
        assert!(all().lines().enumerate().all(|(n, line)| line == (n + 1).to_string()), "a line is lost");
        std::thread::sleep(Duration::from_millis(1100)); // from here on is no moment from before
        clock.off_by(0);
        comes(10, "it speaks on", &|| place.sandbox(&["logs", "--since", "2s", "--until", "0s", "speaks"]).ok().lines().count() > 5);
        // And what happened.
        let this = format!("container={}", place.sandbox(&["inspect", "--format", "{{.Id}}", "speaks"]).ok());
        let words = ["events", "--since", "1h", "--until", "0s", "--filter", "event=pause", "--filter", &this];
        let told = || place.sandbox(&words).ok().lines().count();
        place.sandbox(&["pause", "speaks"]).ok();
        comes(10, "it is told", &|| told() == 1);
        // Nobody is taken for another, or for one of another start of the machine.
        place.sandbox(&["unpause", "speaks"]).ok();
        assert_eq!(state("speaks"), "running 0");
        assert_eq!(place.sandbox(&["exec", "speaks", "sh", "-c", "exit 6"]).code(), 6);
        assert!(place.sandbox(&["ps", "-a"]).ok().lines().count() == 6);
        place.sandbox(&["stop", "-t", "0", "speaks"]).ok();
        let followed = finish(follower, b"");
        assert_eq!(followed.ok(), all().trim_end().split_once("\n5\n").unwrap().1, "the follower has it all");
        place.sandbox(&["rm", "-f", "-a"]).ok();
        place.nothing_left();
    }
}

/// The last before the reboot: its name is last, and what it leaves is meant to be left.
#[test]
fn zz_something_runs_when_the_machine_goes_down() {
    need!(Systemd, CgroupV2, Machine);
    let place = login();
    let home = place.account.home.display().to_string();
    let script = place
        .script("left", &format!("cd {home}; exec {} run --name left -- sh -c 'echo ready; sleep 3600' >{home}/left 2>&1\n", program().display()));
    let copy = format!("{home}/left.sh");
    std::fs::copy(script, &copy).unwrap();
    // The program of this test goes with the test.
    std::fs::create_dir_all("/opt/sandbox").unwrap();
    std::fs::copy(program(), "/opt/sandbox/sandbox").unwrap();
    admin(&format!(
        "sed -i 's,{},/opt/sandbox/sandbox,' {copy}; systemd-run --quiet -p PAMName=login -p User={} sh {copy}",
        program().display(),
        place.account.name
    ))
    .ok();
    assert!(
        within(Duration::from_secs(10), || std::fs::read_to_string(format!("{home}/left")).is_ok_and(|s| s.contains("ready"))),
        "it did not start"
    );
}

#[test]
fn rebooted_the_state_of_before_disturbs_nobody() {
    need!(Systemd, CgroupV2, Machine);
    let place = login();
    assert!(place.account.home.join("left").exists(), "there was no boot before this one");
    // In the same home, with whatever the other boot left in it.
    let mut again = login();
    again.env.insert("HOME".into(), place.account.home.display().to_string());
    for flags in [&["--name", "left"][..], &[]] {
        assert_eq!(again.inside_with(flags, "echo fine").ok(), "fine");
    }
    for session in [place, Place::of(accounts().user.clone())] {
        works(&session);
    }
}
