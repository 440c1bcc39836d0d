//! Terminals: what a person at a terminal sees and types, with -t and without, to the end and beyond it.
//!
//! `probe pty` is the person: it types, waits for words, resizes, hangs up, and then looks at the terminal.

use crate::support::*;
use std::collections::BTreeMap;
use std::time::Duration;

struct Seen {
    text: String,
    facts: BTreeMap<String, String>,
}

/// Play `steps` against `sandbox run ARGS`.
fn play(place: &Place, steps: &[&str], args: &[&str]) -> Seen {
    play_verb(place, steps, "run", args)
}

fn play_verb(place: &Place, steps: &[&str], verb: &str, args: &[&str]) -> Seen {
    let mut command = place.command(place.probe());
    command.arg("pty").args(steps).arg("--").arg(program()).arg(verb).args(args);
    let output = finish(command.spawn().unwrap(), b"");
    assert_eq!(output.code(), 0, "{output:?}");
    let all = output.stdout.replace('\r', "");
    let (text, facts) = all.split_once("\n-- pty --\n").expect("the person's report");
    let facts: BTreeMap<_, _> = facts.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    Seen { text: text.into(), facts }
}

impl Seen {
    #[track_caller]
    fn is(&self, name: &str, value: &str) -> &Seen {
        assert_eq!(self.facts.get(name).map(String::as_str), Some(value), "{name} in {:?}\n{}", self.facts, self.text);
        self
    }

    /// All steps were played, it ended with this code, and the terminal is as it was.
    #[track_caller]
    fn well(&self, code: &str) -> &Seen {
        let steps = &self.facts["steps"];
        assert!(steps.split_once('/').is_some_and(|(a, b)| a == b), "{steps} steps: {:?}\n{}", self.facts, self.text);
        self.is("ended", "1").is("code", code).is("restored", "1").is("queued", "0")
    }
}

#[test]
fn a_shell_with_it() {
    let place = place();
    let seen = play(&place, &["=$ ", "+echo $((6*7))\\r", "=42", "+exit 5\\r"], &["-it", "-e", "PS1=$ ", "--", "sh"]);
    seen.well("5");
}

/// As by SIGPIPE without a terminal.
#[test]
fn it_ends_when_nobody_reads_any_more() {
    let place = place();
    place.sandbox(&["run", "-d", "--name", "one", "--", "sleep", "600"]).ok();
    for words in ["run -- yes", "run -t -- yes", "exec one yes", "exec -t one yes"] {
        let script = format!("{} {words} | head -n 1", program().display());
        let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
        assert_eq!(output.ok().trim_end(), "y", "{words}: {output:?}");
        assert!(within(Duration::from_secs(5), || place.processes().iter().all(|(_, line)| !line.contains("yes"))), "{words}");
    }
    place.sandbox(&["rm", "-f", "one"]).ok();
    place.nothing_left();
}

#[test]
fn the_size_is_passed_on() {
    let place = place();
    let seen = play(
        &place,
        &["=25 77", "?40x100", "=40 100"],
        &["-it", "--", "sh", "-c", "stty size; trap 'stty size; exit 0' WINCH; while :; do sleep 0.05; done"],
    );
    seen.well("0");
}

#[test]
fn t_alone_shows_and_does_not_read() {
    let place = place();
    let seen = play(&place, &["=tty", "+typed\\r", "=end"], &["-t", "--", "sh", "-c", "tty; sleep 0.5; echo end"]);
    seen.is("ended", "1").is("code", "0");
    assert!(seen.text.contains("/dev/pts/0"), "{}", seen.text);
}

#[test]
fn without_t_there_is_no_terminal() {
    let place = place();
    for flags in [&["-i"][..], &[]] {
        let args = [
            flags,
            &[
                "--",
                "sh",
                "-c",
                "tty; test -t 0 || echo no0; test -t 1 || echo no1; test -t 2 || echo no2; (: < /dev/tty) 2>/dev/null || echo no-tty",
            ],
        ]
        .concat();
        let seen = play(&place, &[], &args);
        seen.well("0");
        assert!(["not a tty", "no0", "no1", "no2", "no-tty"].iter().all(|w| seen.text.contains(w)), "{}", seen.text);
    }
}

#[test]
fn i_passes_what_is_typed() {
    let place = place();
    let seen = play(&place, &["=ready", "+hello\\r", "=got hello"], &["-i", "--", "sh", "-c", "echo ready; read x; echo got $x"]);
    seen.well("0");
}

#[test]
fn end_of_file_is_typed() {
    let place = place();
    play(&place, &["=ready", "+one\\r", "+\\d", "=end"], &["-i", "--", "sh", "-c", "echo ready; cat; echo end"]).well("0");
    play(&place, &["=ready", "+one\\r", "+\\d", "=end"], &["-it", "--", "sh", "-c", "echo ready; cat; echo end"]).well("0");
}

#[test]
fn ctrl_c() {
    let place = place();
    let trap = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    for flags in [&["-it"][..], &["-i"], &[]] {
        let seen = play(&place, &["=ready", "+\\c", "=caught"], &[flags, &["--", "sh", "-c", trap]].concat());
        seen.well("7");
        let seen = play(&place, &["=ready", "+\\c"], &[flags, &["--", "sh", "-c", "echo ready; exec sleep 20"]].concat());
        seen.well("130");
    }
}

#[test]
fn a_job_control_shell_stops_and_continues_it() {
    let place = place();
    need!(std::path::Path::new("/bin/bash").exists(), "needs bash");
    let mut command = place.command(place.probe());
    let run = format!("{} run -- sh -c 'echo rea\"\"dy; sleep 1; echo e\"\"nd'\\r", program().display());
    command.args([
        "pty",
        "=$ ",
        &format!("+{run}"),
        "=ready",
        "+\\z",
        "=Stopped",
        "+fg\\r",
        "=end",
        "+exit\\r",
        "--",
        "bash",
        "--norc",
        "--noprofile",
        "-i",
    ]);
    command.env("PS1", "$ ");
    let output = finish(command.spawn().unwrap(), b"");
    assert!(output.stdout.contains("steps=8/8") && output.stdout.contains("ended=1"), "{output:?}");
}

#[test]
fn the_terminal_is_restored_after_kill_9_of_the_command() {
    let place = place();
    let seen = play(&place, &["=ready"], &["-it", "--", "sh", "-c", "stty raw -echo; echo ready; kill -9 $$"]);
    seen.well("137");
}

#[test]
fn hanging_up_ends_it() {
    let place = place();
    for flags in [&["-it"][..], &["-i"], &["-t"], &[]] {
        let seen = play(&place, &["=ready", "~"], &[flags, &["--", "sh", "-c", "echo ready; while :; do sleep 0.1; done"]].concat());
        seen.is("ended", "1").is("code", "129");
        place.nothing_left();
    }
}

#[test]
fn t_without_a_terminal() {
    let place = place();
    assert_eq!(place.inside_with(&["-t"], "tty; stty size").ok().replace('\r', ""), "/dev/pts/0\n24 80");
    place.sandbox(&["run", "-it", "--", "true"]).refused("stdin is no terminal").hinted();
}

#[test]
fn much_output_through_a_terminal() {
    let place = place();
    let seen = play(&place, &["=last"], &["-t", "--", "sh", "-c", "seq 20000; echo last"]);
    seen.well("0");
    assert!(seen.text.contains("\n19999\n20000\nlast"));
}

#[test]
fn a_background_process_keeps_no_terminal_open() {
    let place = place();
    let seen = play(&place, &["=fine"], &["-it", "--", "sh", "-c", "sleep 60 & (setsid sleep 60 &); echo fine"]);
    seen.well("0");
}

#[test]
fn exec_with_it() {
    let place = place();
    let shell = ["-it", "-e", "PS1=$ ", "one", "sh"];
    place.sandbox(&["run", "-d", "--name", "one", "--", "sleep", "600"]).ok();
    play_verb(&place, &["=$ ", "+echo $((6*7))\\r", "=42", "+exit 5\\r"], "exec", &shell).well("5");
    // The size, also later; and job control: what is in the foreground is interrupted, and the shell goes on.
    let script = "stty size; trap 'stty size; exit 0' WINCH; while :; do sleep 0.05; done";
    play_verb(&place, &["=25 77", "?40x100", "=40 100"], "exec", &["-it", "one", "sh", "-c", script]).well("0");
    let jobs = ["=$ ", "+sleep 300\\r", "@1", "+\\x03", "=$ ", "+echo a$((1+1))\\r", "=a2", "+exit\\r"];
    play_verb(&place, &jobs, "exec", &shell);
    place.sandbox(&["rm", "-f", "one"]).ok();
}
