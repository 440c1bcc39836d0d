//! `run -it` that one leaves, `attach`, `wait`, `start -a`: what a person at a terminal types and sees, and what scripts get.

use crate::support::*;
use std::process::Stdio;
use std::time::Duration;

/// A person at an interactive bash, whose prompt is `host> `.
fn at_a_shell(place: &Place, steps: &[&str]) -> Output {
    let steps: Vec<String> = steps.iter().map(|s| s.replace("sandbox ", &format!("{} ", program().display()))).collect();
    let mut command = place.command(place.probe());
    command.arg("pty").args(&steps).args(["--", "bash", "--norc", "--noprofile", "-i"]).env("PS1", "host> ").env("TERM", "xterm");
    let output = finish(command.spawn().unwrap(), b"");
    assert!(output.stdout.contains(&format!("steps={0}/{0}", steps.len())) && output.stdout.contains("ended=1"), "{output:?}");
    assert!(output.stdout.contains("restored=1"), "{output:?}");
    output
}

#[test]
fn leave_and_come_back() {
    let place = place();
    need!(std::path::Path::new("/bin/bash").exists(), "needs bash");
    let run = "+sandbox run -it --name one -e 'PS1=in> ' -- bash --norc\\r";
    at_a_shell(
        &place,
        &[
            "=host> ",
            run,
            "=in> ",
            "+stty size\\r",
            "=25 77",
            "?40x100",
            "+stty size\\r",
            "=40 100",
            "+\u{10}\u{11}",
            "=one goes on",
            "=host> ",
            // The terminal is as it was, and the sandbox is there.
            "+stty -a | tr -s ' ;' '\\n' | grep -x icanon && echo co''oked\\r",
            "=cooked",
            "=host> ",
            "+sandbox attach one\\r",
            "=in> ",
            // Job control inside.
            "+cat\\r",
            "+hello\\r",
            "=hello",
            "=hello",
            "+\\z",
            "=Stopped",
            "+fg\\r",
            "=cat",
            "+again\\r",
            "=again",
            "=again",
            "+\\c",
            "=in> ",
            "+exit 7\\r",
            "=host> ",
            "+echo co''de $?\\r",
            "=code 7",
            "+exit\\r",
        ],
    );
    // A run in the foreground leaves nothing, wherever its end was seen.
    place.nothing_left();
    place.sandbox(&["logs", "one"]).refused("cannot find");
}

#[test]
fn a_program_that_fills_the_screen_is_drawn_anew() {
    let place = place();
    need!(std::path::Path::new("/usr/bin/top").exists(), "needs top");
    let keys = ["--detach-keys", "ctrl-a,d"];
    let run = format!("+sandbox run -it --name full {} {} -- top\\r", keys[0], keys[1]);
    at_a_shell(
        &place,
        &[
            "=host> ",
            &run,
            "=PID USER",
            "+\u{1}d",
            "=goes on",
            "=host> ",
            "+sandbox attach full\\r",
            "=PID USER",
            "+q",
            "=host> ",
            "+echo co''de $?\\r",
            "=code 0",
            "+exit\\r",
        ],
    );
    place.nothing_left();
}

#[test]
fn nothing_outlives_a_run_that_was_not_left() {
    let place = place();
    let mut command = place.command(place.probe());
    command.args(["pty", "=ready", "!9", "--"]).arg(program());
    command.args(["run", "-it", "--", "sh", "-c", "trap '' HUP TERM; echo ready; while :; do sleep 0.1; done"]);
    finish(command.spawn().unwrap(), b"");
    assert!(within(Duration::from_secs(5), || place.processes().is_empty()), "{:?}", place.processes());
    place.nothing_left();
}

#[test]
fn several_at_once_and_input_for_all() {
    let place = place();
    place.sandbox(&["run", "-d", "-i", "--name", "two", "--", "sh", "-c", "while read x; do echo got $x; [ $x != end ] || exit 3; done"]).ok();
    let attached: Vec<_> = (0..3).map(|_| place.start_attach("two", &["--no-stdin"])).collect();
    assert!(within(Duration::from_secs(10), || place.pipes_of_monitor() >= 6), "they are not attached");
    // Its end of input is not the sandbox's.
    for word in ["one", "end"] {
        let mut typed = place.cli(&["attach", "--sig-proxy=false", "two"]);
        let child = typed.stdin(Stdio::piped()).spawn().unwrap();
        if word == "one" {
            let mut child = child;
            use std::io::Write;
            child.stdin.take().unwrap().write_all(b"one\n").unwrap();
            assert!(within(Duration::from_secs(10), || place.sandbox(&["logs", "two"]).stdout.contains("got one")));
            let _ = terminate(child.id());
            assert_eq!(finish(child, b"").code(), 128 + 15);
        } else {
            let output = finish(child, b"end\n");
            assert_eq!((output.code(), output.stdout.as_str()), (3, "got end\n"));
        }
    }
    for child in attached {
        let output = finish(child, b"");
        assert_eq!((output.code(), output.stdout.as_str()), (3, "got one\ngot end\n"));
    }
    place.sandbox(&["rm", "two"]).ok();
}

fn terminate(pid: u32) -> bool {
    std::process::Command::new("/bin/kill").args(["-TERM", &pid.to_string()]).status().is_ok_and(|s| s.success())
}

impl Place {
    fn start_attach(&self, name: &str, flags: &[&str]) -> std::process::Child {
        self.cli(&[&["attach"], flags, &[name]].concat()).spawn().unwrap()
    }

    /// How many pipes a monitor has open for others.
    fn pipes_of_monitor(&self) -> usize {
        let monitors = self.processes().into_iter().filter(|(_, command)| command.contains("@monitor"));
        let pipes = |pid: u32| {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|l| l.to_string_lossy().starts_with("pipe:"))).count()
        };
        // Three of its own: in, out and err.
        monitors.map(|(pid, _)| pipes(pid).saturating_sub(3)).max().unwrap_or_default()
    }
}

#[test]
fn how_it_ended_is_waited_for() {
    let place = place();
    for (name, script, code) in [("a", "sleep 1; exit 7", 7), ("b", "kill -9 $$", 137), ("c", "exit 0", 0), ("d", "sleep 1; kill -11 $$", 139)] {
        place.sandbox(&["run", "-d", "--name", name, "--", "sh", "-c", script]).ok();
        assert_eq!(place.sandbox(&["wait", name]).ok(), code.to_string(), "{name}");
    }
    assert_eq!(place.sandbox(&["wait", "a", "b", "c", "d"]).ok(), "7\n137\n0\n139");
    // Gone with its end, and told all the same.
    place.sandbox(&["run", "-d", "--rm", "--name", "gone", "--", "sh", "-c", "sleep 1; exit 9"]).ok();
    assert_eq!(place.sandbox(&["wait", "--condition", "removed", "gone"]).ok(), "9");
    place.sandbox(&["wait", "gone"]).refused("cannot find").hinted();
    place.sandbox(&["attach", "a"]).refused("it is exited").hinted();
    place.sandbox(&["rm", "-a"]).ok();
}

#[test]
fn start_takes_part_from_the_first_byte_on() {
    let place = place();
    place.sandbox(&["create", "-i", "--name", "s", "--", "sh", "-c", "echo first; cat; exit 4"]).ok();
    for _ in 0..2 {
        let child = place.cli(&["start", "-a", "-i", "s"]).stdin(Stdio::piped()).spawn().unwrap();
        let output = finish(child, b"hello\n");
        assert_eq!((output.code(), output.stdout.as_str()), (4, "first\nhello\n"), "{output:?}");
        place.sandbox(&["wait", "s"]).ok();
    }
    assert_eq!(place.sandbox(&["logs", "s"]).ok(), "first\nhello\nfirst\nhello");
    place.sandbox(&["rm", "s"]).ok();
}

/// A terminal whose screen can be asked for: tmux's.
struct Screen<'a> {
    place: &'a Place,
    socket: String,
}

impl<'a> Screen<'a> {
    fn new(place: &'a Place) -> Screen<'a> {
        let screen = Screen { place, socket: place.at("tmux") };
        let size = ["-x", "80", "-y", "24"];
        screen.tmux(&[&["-f", "/dev/null", "new-session", "-d"], &size[..], &["env", "PS1=host> ", "bash", "--norc", "--noprofile", "-i"]].concat());
        screen.shows("it begins", |s| s.starts_with("host>"));
        screen
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let mut command = self.place.command("tmux");
        let output = finish(command.args(["-S", &self.socket]).args(words).spawn().unwrap(), b"");
        output.ok();
        output
    }

    fn now(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).stdout
    }

    fn types(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    #[track_caller]
    fn shows(&self, what: &str, is: impl Fn(&str) -> bool) {
        assert!(within(Duration::from_secs(10), || is(&self.now())), "{what}:\n{}", self.now());
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let _ = self.place.command("tmux").args(["-S", &self.socket, "kill-server"]).status();
    }
}

/// An editor, left in the middle of its work, and come back to at another size.
#[test]
fn the_screen_is_as_it_was_before_an_editor() {
    let place = place();
    need!(["/usr/bin/tmux", "/bin/busybox", "/bin/bash"].iter().all(|p| std::path::Path::new(p).exists()), "needs tmux, busybox and bash");
    let screen = Screen::new(&place);
    let program = program().display().to_string();
    let as_before = |s: &str| s.contains("before\nhost>") && !s.contains("\n~\n");
    let lines = |s: &str| s.lines().filter(|l| *l == "~").count();
    screen.types(&["echo be''fore", "Enter"]);
    screen.shows("a prompt", as_before);
    screen.types(&[&format!("{program} run -it --name ed -- busybox vi /tmp/text"), "Enter"]);
    screen.shows("an editor", |s| lines(s) == 22);
    screen.types(&["ihello", "Escape"]);
    screen.shows("what is typed", |s| s.starts_with("hello\n"));
    screen.types(&["C-p", "C-q"]);
    screen.shows("it is left", |s| as_before(s) && s.contains("ed goes on") && s.trim_end().ends_with("host>"));
    screen.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    screen.types(&[&format!("{program} attach ed"), "Enter"]);
    screen.shows("the editor, larger", |s| s.starts_with("hello\n") && lines(s) == 28);
    screen.tmux(&["resize-window", "-x", "80", "-y", "20"]);
    screen.shows("the editor, smaller", |s| s.starts_with("hello\n") && lines(s) == 18);
    screen.types(&[":wq", "Enter"]);
    screen.shows("all is as before", |s| as_before(s) && s.trim_end().ends_with("host>"));
    screen.types(&["echo co''de $?", "Enter"]);
    screen.shows("its code", |s| s.contains("\ncode 0\n"));
    // Typed characters are seen, and a line is edited: the terminal is cooked again.
    screen.types(&["exit", "Enter"]);
    drop(screen);
    place.nothing_left();
}
