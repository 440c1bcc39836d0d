//! `logs`: what a detached sandbox said, as long as it is there, and no more of it than was asked for.

use crate::support::*;
use std::process::Command;
use std::time::Duration;

impl Place {
    fn logs(&self, words: &[&str]) -> Output {
        self.sandbox(&[&["logs"], words].concat())
    }

    fn speaks(&self, name: &str, flags: &[&str], script: &str) {
        self.sandbox(&[&["run", "-d", "--name", name], flags, &["--", "sh", "-c", script]].concat()).ok();
    }

    fn monitor_peak(&self) -> u64 {
        let peaks = self.processes().into_iter().filter(|(_, command)| command.contains("@monitor")).filter_map(|(pid, _)| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<u64>().ok())
        });
        peaks.max().unwrap_or_default()
    }
}

#[test]
fn while_it_runs_and_after() {
    let place = place();
    place.speaks("one", &[], "echo out; echo err >&2; printf 'no end'; sleep 2; echo; echo last; exit 1");
    assert!(within(Duration::from_secs(5), || place.logs(&["one"]).stdout.contains("no end")), "a line is there before its end");
    let now = place.logs(&["one"]);
    assert_eq!((now.stdout.as_str(), now.stderr.as_str()), ("out\nno end", "err\n"));
    let all = place.logs(&["-f", "one"]);
    assert_eq!((all.stdout.as_str(), all.stderr.as_str(), all.code()), ("out\nno end\nlast\n", "err\n", 0));
    assert_eq!(place.logs(&["-f", "one"]).stdout, all.stdout, "after its end it does not wait");
    assert_eq!(place.logs(&["-n", "1", "one"]).ok(), "last");
    assert_eq!(place.logs(&["--tail", "0", "one"]).ok(), "");
    assert_eq!(place.logs(&["--since", "1h", "--until", "2030-01-01", "one"]).stdout, all.stdout);
    assert_eq!(place.logs(&["--until", "1h", "one"]).ok(), "");
    assert_eq!(place.logs(&["--since", "2030-01-01T00:00:00Z", "one"]).ok(), "");
    let timed = place.logs(&["-t", "one"]);
    let times: Vec<_> = timed.stdout.lines().map(|l| l.split_once(' ').unwrap()).collect();
    assert!(times.iter().all(|(t, _)| t.len() == 30 && t.ends_with('Z')) && times.iter().map(|(_, l)| *l).eq(["out", "no end", "last"]), "{timed:?}");
    place.logs(&["--since", "yesterday", "one"]).refused("bad time").said("1h30m");
    place.logs(&["none"]).refused("cannot find").hinted();
    place.speaks("mute", &["--log-max", "none"], "echo x");
    place.sandbox(&["wait", "mute"]).ok();
    place.logs(&["mute"]).refused("--log-max none");
    place.sandbox(&["run", "-d", "--log-max", "1k", "--", "true"]).refused("bad log size");
    place.sandbox(&["run", "--log-max", "1m", "--", "true"]).refused("cannot use --log-max here").hinted();
    place.sandbox(&["rm", "-a"]).ok();
}

#[test]
fn a_follower_gets_every_line_of_a_log_that_turns_over() {
    let place = place();
    place.speaks("turns", &["--log-max", "64k:2"], "sleep 1; seq 1 100000");
    let all = place.logs(&["-f", "turns"]);
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(all.stdout == expected && all.stderr.is_empty(), "{} bytes, {}", all.stdout.len(), all.stderr);
    let kept = place.logs(&["turns"]);
    assert!(kept.stdout.len() < 100_000 && kept.stdout.ends_with("\n99999\n100000\n"), "{}", kept.stdout.len());
    place.sandbox(&["rm", "turns"]).ok();
}

#[test]
fn cve_2022_1708_much_output_takes_no_memory_and_little_disk() {
    let place = place();
    let script = "head -c 60000000 /dev/zero | tr '\\0' x; yes | head -c 16000000; echo END; sleep 600";
    place.speaks("flood", &[], script);
    assert!(within(Duration::from_secs(120), || place.logs(&["-n", "1", "flood"]).stdout == "END\n"));
    let peak = place.monitor_peak();
    assert!((1..=32 << 10).contains(&peak), "{peak} KiB");
    let kept = Command::new("du").args(["-sk", &place.at(".local/share/sandbox/sandboxes")]).output().unwrap();
    let kept: u64 = String::from_utf8_lossy(&kept.stdout).split_whitespace().next().unwrap().parse().unwrap();
    assert!(kept <= 21 << 10, "{kept} KiB");
    place.sandbox(&["rm", "-f", "flood"]).ok();
}

#[test]
fn a_person_sees_no_control_characters() {
    let place = place();
    place.speaks("esc", &[], "printf 'a\\033[2Jb\\233c\\n'");
    place.speaks("tty", &["-t"], "printf 'a\\033[2Jb\\n'");
    place.sandbox(&["wait", "esc", "tty"]).ok();
    let shown = |words: &[&str]| {
        let mut command = place.command(place.probe());
        command.arg("pty").arg("--").arg(program()).arg("logs").args(words);
        finish(command.spawn().unwrap(), b"").stdout
    };
    assert!(shown(&["esc"]).starts_with("a\\u{1b}[2Jb\\x9bc\r\n"));
    assert!(shown(&["--raw", "esc"]).starts_with("a\u{1b}[2Jb"));
    assert!(shown(&["tty"]).starts_with("a\u{1b}[2Jb"));
    assert!(place.logs(&["esc"]).stdout.starts_with("a\u{1b}[2Jb"));
    place.sandbox(&["rm", "-a"]).ok();
}
