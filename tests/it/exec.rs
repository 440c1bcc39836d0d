//! `exec` and `top`: a further command is bound as the first one, ends as it should, and is all that one sees.

use crate::support::*;
use std::path::Path;
use std::time::Duration;

impl Place {
    /// A sandbox that runs and stays, of the host's tree.
    #[track_caller]
    fn up(&self, name: &str, flags: &[&str], script: &str) {
        let script = format!("{script}\nexec sleep 600");
        self.sandbox(&[&["run", "-d", "--name", name], flags, &["--", "sh", "-c", &script]].concat()).ok();
    }

    #[track_caller]
    fn down(&self, name: &str) {
        self.sandbox(&["rm", "-f", name]).ok();
    }

    #[track_caller]
    fn exec(&self, words: &[&str]) -> Output {
        self.sandbox(&[&["exec"], words].concat())
    }
}

#[test]
fn exit_codes_and_streams() {
    let place = place();
    place.up("one", &[], "");
    for code in [0, 1, 7, 125, 255] {
        assert_eq!(place.exec(&["one", "sh", "-c", &format!("exit {code}")]).code(), code);
    }
    for signal in [1, 2, 6, 9, 11, 15] {
        assert_eq!(place.exec(&["one", "sh", "-c", &format!("kill -{signal} $$")]).code(), 128 + signal);
    }
    assert_eq!(place.exec(&["one", "no-such-command"]).said("no-such-command").code(), 127);
    assert_eq!(place.exec(&["one", "/etc/passwd"]).said("permission denied").hinted().code(), 126);
    let out = place.exec(&["one", "sh", "-c", "echo out; echo err >&2; cat"]);
    assert_eq!((out.ok(), out.stderr.as_str()), ("out", "err\n"));
    let piped = finish(place.cli(&["exec", "-i", "one", "cat"]).stdin(std::process::Stdio::piped()).spawn().unwrap(), b"through");
    assert_eq!(piped.ok(), "through");
    place.exec(&["--privileged", "one", "id"]).refused("may do what the sandbox may").hinted();
    place.exec(&["none", "id"]).refused("cannot find a sandbox 'none'");
    place.sandbox(&["stop", "-t", "0", "one"]).ok();
    place.exec(&["one", "id"]).refused("does not run").hinted();
    place.down("one");
    place.nothing_left();
}

/// What the kernel says of a process that is not about which one it is.
const FACTS: &str = "grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp)' /proc/self/status; cat /proc/self/limits; cat /proc/self/mountinfo
    for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done; cat /proc/self/oom_score_adj /proc/self/uid_map; umask
    trap; ls /proc/self/fd | wc -l; hostname; pwd; env | grep -v '^_=' | sort";

#[test]
fn as_the_first_command() {
    let place = place();
    let root = tiny_root(&place, "root");
    let root = root.display().to_string();
    let host = [
        &[][..],
        &["-e", "A=b", "-w", "/etc", "--umask", "027", "--ulimit", "nofile=99", "--oom-score-adj", "500", "--hostname", "h"],
        &["--policy", "strict"],
        &["--userns", "nomap"],
        &["--userns", "single"],
        &["--userns", "root"],
        &["-u", "1:1"],
        &["--network", "host", "--ipc", "host", "--uts", "host"],
        &["--cap-add", "ALL", "-u", "0"],
        &["--security-opt", "no-new-privileges=false"],
        &["--policy", "nested"],
        &["--policy", "nested", "--init"],
    ];
    for (n, flags) in host.iter().enumerate() {
        let name = format!("h{n}");
        place.up(&name, flags, &format!("({FACTS}) > /dev/shm/first 2>&1"));
        let both = || place.exec(&[&name, "sh", "-c", &format!("cat /dev/shm/first; echo ====; ({FACTS}) 2>&1")]);
        let alike = within(Duration::from_secs(10), || {
            let out = both();
            out.ok().split_once("====\n").is_some_and(|(first, now)| !first.is_empty() && first.trim() == now.trim())
        });
        assert!(alike, "{flags:?}: {:?}", both());
        place.down(&name);
    }
    // And in a directory, with its own accounts.
    place.sandbox(&["run", "-d", "--name", "d", "--rootfs", &root, "sh", "-c", "sleep 600"]).ok();
    assert_eq!(place.exec(&["d", "id", "-u"]).ok(), "0");
    place.down("d");
    place.nothing_left();
}

#[test]
fn pids_of_the_host() {
    need!(scopes(), "needs landlock scopes (Linux 6.12)");
    let place = place();
    place.up("p", &["--pid", "host"], "");
    place.exec(&["p", "true"]).ok();
    place.exec(&["-d", "p", "sleep", "600"]).refused("it would outlive the sandbox").hinted();
    // Nobody's pid namespace ends it, so we do.
    let staying = place.start(place.cli(&["exec", "p", "sh", "-c", "echo up; exec sleep 601"]), "up");
    place.down("p");
    assert_eq!(finish(staying, b"").code(), 137);
    place.nothing_left();
}

#[test]
fn who_where_and_with_what() {
    let place = place();
    place.up("one", &["-e", "A=run", "-e", "B=run", "-w", "/usr"], "");
    place.file("vars", "# comment\nC=file\nB=file\n");
    let out = place.exec(&["-e", "A=exec", "--env-file", "vars", "one", "sh", "-c", "echo $A $B $C; pwd"]);
    assert_eq!(out.ok(), "exec file file\n/usr");
    assert_eq!(place.exec(&["-w", "bin", "one", "pwd"]).ok(), "/usr/bin");
    assert_eq!(place.exec(&["-w", "/etc", "one", "pwd"]).ok(), "/etc");
    assert_eq!(place.exec(&["-w", "/nowhere", "one", "pwd"]).said("cannot enter '/nowhere'").code(), 125);
    assert_eq!(place.exec(&["-u", "root", "one", "sh", "-c", "id -u; id -g; id -G; echo $HOME"]).ok(), "0\n0\n0\n/root");
    assert_eq!(place.exec(&["-u", "1:2", "one", "sh", "-c", "id -u; id -g; grep CapEff /proc/self/status"]).ok(), "1\n2\nCapEff:\t0000000000000000");
    place.exec(&["-u", "no-such", "one", "id"]).refused("no such user");
    place.exec(&["-u", "4294967295", "one", "id"]).said("4294967295");
    place.down("one");
}

#[test]
fn left_behind() {
    let place = place();
    place.up("one", &[], "");
    place.exec(&["-d", "one", "sh", "-c", "echo $PPID > /tmp/parent; sleep 0.2; exec sleep 602"]).ok();
    assert!(within(Duration::from_secs(5), || place.exec(&["one", "cat", "/tmp/parent"]).code() == 0));
    assert!(within(Duration::from_secs(5), || place.exec(&["one", "sh", "-c", "ps -eo ppid,args | grep -q '^ *1 sleep 602'"]).code() == 0));
    // What fails at its exec is told even so.
    assert_eq!(place.exec(&["-d", "one", "no-such"]).said("no-such").code(), 127);
    place.exec(&["-dit", "one", "sh"]).said("cannot be used with");
    place.exec(&["--detach-keys", "ctrl-x", "one", "sh"]).refused("--detach-keys").hinted();
    // 50 that end leave no zombie.
    for _ in 0..50 {
        place.exec(&["-d", "one", "true"]).ok();
    }
    assert!(within(Duration::from_secs(5), || place.exec(&["one", "sh", "-c", "ps -eo stat | grep -c '^Z'"]).stdout == "0\n"));
    place.down("one");
    place.nothing_left();
}

#[test]
fn it_ends_with_us_and_with_the_sandbox() {
    let place = place();
    place.up("one", &[], "");
    let runs = |word: &str| place.processes().iter().any(|(_, line)| line.contains(word));
    let mut killed = place.start(place.cli(&["exec", "one", "sh", "-c", "echo up; exec sleep 603"]), "up");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(within(Duration::from_secs(5), || !runs("sleep 603")));
    // A signal is the command's; what it started in the foreground gets SIGINT, too.
    let asked =
        place.start(place.cli(&["exec", "one", "sh", "-c", "trap 'echo term; exit 3' TERM; echo up; sleep 604 >/dev/null 2>&1 & wait"]), "up");
    rustix::process::kill_process(rustix::process::Pid::from_child(&asked), rustix::process::Signal::TERM).unwrap();
    let out = finish(asked, b"");
    assert_eq!((out.code(), out.stdout.contains("term")), (3, true), "{out:?}");
    // By find, since a shell may lose it: dash takes one that comes while it starts a program for nobody's.
    let waits = ["exec", "one", "find", "/", "-maxdepth", "0", "-exec", "sh", "-c", "echo up; exec sleep 605", ";"];
    let interrupted = place.start(place.cli(&waits), "up");
    rustix::process::kill_process(rustix::process::Pid::from_child(&interrupted), rustix::process::Signal::INT).unwrap();
    assert_eq!(finish(interrupted, b"").code(), 130);
    assert!(!runs("sleep 605"));
    let staying = place.start(place.cli(&["exec", "one", "sh", "-c", "echo up; exec sleep 606"]), "up");
    place.down("one");
    assert_eq!(finish(staying, b"").code(), 137);
    place.nothing_left();
}

#[test]
fn one_in_the_foreground() {
    let place = place();
    let run = place.start(place.cli(&["run", "--name", "fg", "--", "sh", "-c", "echo x > /tmp/x; echo up; sleep 600"]), "up");
    assert_eq!(place.exec(&["fg", "cat", "/tmp/x"]).ok(), "x");
    place.exec(&["fg", "sh", "-c", "kill -9 2"]);
    assert_eq!(finish(run, b"").code(), 137);
    place.exec(&["fg", "true"]).refused("cannot find a sandbox");
}

#[test]
fn top_shows_what_runs() {
    let place = place();
    place.up("one", &[], "");
    place.exec(&["-d", "one", "sh", "-c", "sleep 607; :", "a\u{1b}[2Jb"]).ok();
    let top = place.sandbox(&["top", "one"]);
    let lines: Vec<&str> = top.ok().lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(lines.iter().any(|l| l.ends_with("sleep 600")) && lines.iter().any(|l| l.ends_with("sleep 607")), "{top:?}");
    assert!(lines.iter().any(|l| l.ends_with("a\\u{1b}[2Jb")), "{top:?}");
    assert!(!top.stdout.contains('\u{1b}'));
    // The numbers are the host's.
    let pid = lines.iter().find(|l| l.ends_with("sleep 600")).and_then(|l| l.split_whitespace().nth(1)).unwrap();
    assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("600"));
    let json = place.sandbox(&["top", "--format", "json", "one"]);
    assert!(json.ok().lines().any(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["InsidePID"] == 1), "{json:?}");
    place.down("one");
    place.sandbox(&["top", "one"]).refused("cannot find");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
