//! How a command ends is how we end: a table of exit codes and signals, the same by every way to run a command.
//!
//! Rows that come to something else are listed together. How many there are is said in the output.

use crate::run::kill;
use crate::support::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A way to run a command, with what is common to all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    /// With a terminal.
    Tty,
    Nested,
}

/// What comes of it, in one way of running it.
type Got = Box<dyn Fn(&Place, Way) -> i32 + Send + Sync>;

/// A row: what is done, and which code is to come.
struct Row {
    what: String,
    want: i32,
    got: Got,
}

fn row(what: impl Into<String>, want: i32, got: impl Fn(&Place, Way) -> i32 + Send + Sync + 'static) -> Row {
    Row { what: what.into(), want, got: Box::new(got) }
}

/// What a signal does to who has not said what to do about it. man: signal(7)
#[derive(PartialEq, Eq)]
enum Default {
    Ends,
    Nothing,
    Stops,
}

fn default(signal: i32) -> Default {
    match signal {
        libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH => Default::Nothing,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Default::Stops,
        _ => Default::Ends,
    }
}

/// All but the two that glibc keeps for itself: who is spawned by it has them ignored, or not.
fn all() -> impl Iterator<Item = i32> {
    (1..=31).chain(34..=64)
}

/// Those that reach the command when they are sent to us. The others are faults of our own, or say something about our own terminal.
fn is_passed_on(signal: i32) -> bool {
    use libc::{SIGABRT, SIGBUS, SIGCHLD, SIGFPE, SIGILL, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGTTIN, SIGTTOU, SIGURG};
    let ours = [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGSYS, SIGPIPE, SIGCHLD, SIGURG, SIGTTIN, SIGTTOU, SIGSTOP];
    !ours.contains(&signal)
}

impl Way {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Way::Run => &[],
            Way::Tty => &["-t"],
            Way::Nested => &["--security-opt", "nested", "--init"],
        }
    }

    /// What starts `words` with these flags.
    fn command(self, place: &Place, flags: &[&str], words: &[&str]) -> Command {
        place.cli(&[&["run"], self.flags(), flags, &["--"], words].concat())
    }

    fn code(self, place: &Place, flags: &[&str], words: &[&str]) -> i32 {
        let out = finish(self.command(place, flags, words).spawn().unwrap(), b"");
        if out.code() == 125 {
            eprintln!("{words:?}: {}", out.stderr); // our own failure, with its reason
        }
        out.code()
    }

    /// It runs and waits.
    fn waiting(self, place: &Place, how: &str) -> Child {
        let mut command = self.command(place, &[], &[&place.probe(), "await", how]);
        // Who is alone in an orphaned process group is not stopped. man: setpgid(2)
        command.process_group(0);
        place.start(command, "ready")
    }
}

/// The state of a process, as in /proc: R, S, T, Z; a blank if there is none.
pub fn state(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or(' ')
}

/// What the command says with its end.
fn codes() -> Vec<Row> {
    let codes =
        (0..=255).map(|code| row(format!("exit {code}"), code, move |place, way| way.code(place, &[], &[&place.probe(), "end", &code.to_string()])));
    let suffered = all().map(|signal| {
        let want = if default(signal) == Default::Ends { 128 + signal } else { 3 };
        row(format!("the command suffers {signal}"), want, move |place, way| {
            let child = way.command(place, &[], &[&place.probe(), "end", "3", &signal.to_string()]).spawn().unwrap();
            let pid = child.id();
            // One that stopped itself goes on when we are told to.
            let over = std::sync::atomic::AtomicBool::new(default(signal) != Default::Stops);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(20));
                        let _ = sandbox::sys::process::kill(pid as i32, libc::SIGCONT);
                    }
                });
                let output = finish(child, b"");
                over.store(true, Ordering::Relaxed);
                output.code()
            })
        })
    });
    codes.chain(suffered).collect()
}

/// What is sent to us.
fn signals() -> Vec<Row> {
    let mut rows = Vec::new();
    for signal in all() {
        let keys = matches!(signal, libc::SIGINT | libc::SIGTERM);
        if !is_passed_on(signal) {
            if default(signal) != Default::Ends || signal == libc::SIGPIPE {
                // It is nothing to us, and the command does not hear of it.
                rows.push(row(format!("{signal} to us, and then TERM"), 143, move |place, way| {
                    let child = way.waiting(place, "");
                    kill(child.id(), signal);
                    if signal == libc::SIGSTOP {
                        assert!(within(Duration::from_secs(2), || state(child.id()) == 'T'));
                        kill(child.id(), libc::SIGCONT);
                    }
                    kill(child.id(), libc::SIGTERM);
                    finish(child, b"").code()
                }));
            } else {
                rows.push(row(format!("{signal} ends us"), 1000 + signal, move |place, way| {
                    let mut child = way.waiting(place, "");
                    kill(child.id(), signal);
                    // The first of these two is taken for an overflow of the stack, which would happen again. // std::sys::stack_overflow
                    if [libc::SIGSEGV, libc::SIGBUS].contains(&signal) && !within(Duration::from_millis(100), || child.try_wait().unwrap().is_some())
                    {
                        kill(child.id(), signal);
                    }
                    finish(child, b"").code()
                }));
            }
            continue;
        }
        match default(signal) {
            Default::Ends => {
                rows.push(row(format!("{signal} to us"), 128 + signal, move |place, way| {
                    let child = way.waiting(place, "");
                    kill(child.id(), signal);
                    finish(child, b"").code()
                }));
            }
            // Ctrl-Z stops both, and what goes on can be ended.
            Default::Stops => {
                rows.push(row(format!("{signal} to us, CONT, and then TERM"), 143, move |place, way| {
                    let child = way.waiting(place, "");
                    kill(child.id(), signal);
                    assert!(within(Duration::from_secs(2), || state(child.id()) == 'T'), "it does not stop");
                    kill(child.id(), libc::SIGCONT);
                    kill(child.id(), libc::SIGTERM);
                    finish(child, b"").code()
                }));
            }
            Default::Nothing => {
                rows.push(row(format!("{signal} to us, and then TERM"), 143, move |place, way| {
                    let child = way.waiting(place, "");
                    kill(child.id(), signal);
                    kill(child.id(), libc::SIGTERM);
                    finish(child, b"").code()
                }));
            }
        }
        if signal != libc::SIGTSTP {
            // A change of size is told by the terminal, if there is one.
            let silent = move |way| way == Way::Tty && signal == libc::SIGWINCH;
            rows.push(row(format!("{signal} to us, handled"), 7, move |place, way| {
                let mut child = way.waiting(place, "7");
                kill(child.id(), signal);
                if silent(way) && !within(Duration::from_millis(100), || child.try_wait().unwrap().is_some()) {
                    kill(child.id(), libc::SIGTERM);
                }
                finish(child, b"").code()
            }));
            if !keys {
                rows.push(row(format!("{signal} to us three times, ignored, and then KILL"), 1009, move |place, way| {
                    let mut child = way.waiting(place, "ignore");
                    (0..3).for_each(|_| kill(child.id(), signal));
                    std::thread::sleep(Duration::from_millis(20));
                    assert!(child.try_wait().unwrap().is_none(), "{signal} ended it");
                    kill(child.id(), libc::SIGKILL);
                    finish(child, b"").code()
                }));
            }
        }
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        rows.push(row(format!("{signal} to us twice, handled"), 7, move |place, way| {
            let child = way.waiting(place, "7");
            kill(child.id(), signal);
            kill(child.id(), signal);
            finish(child, b"").code()
        }));
        rows.push(row(format!("{signal} to us three times, ignored"), 137, move |place, way| {
            let child = way.waiting(place, "ignore");
            for _ in 0..3 {
                kill(child.id(), signal);
                // One that is still pending swallows the next.
                std::thread::sleep(Duration::from_millis(30));
            }
            finish(child, b"").code()
        }));
    }
    rows
}

/// What ends it otherwise, or does not begin.
fn others() -> Vec<Row> {
    let shell =
        |what: &str, want: i32, script: &'static str| row(what, want, move |place: &Place, way: Way| way.code(place, &[], &["sh", "-c", script]));
    let words = |what: &str, want: i32, words: &'static [&'static str]| row(what, want, move |place: &Place, way: Way| way.code(place, &[], words));
    let flags = |what: &str, want: i32, flags: &'static [&'static str], script: &'static str| {
        row(what, want, move |place: &Place, way: Way| way.code(place, flags, &["sh", "-c", script]))
    };
    let mut rows = vec![
        words("not found", 127, &["no-such-command"]),
        words("not found, by a path", 127, &["/no/such/command"]),
        words("not found, below a file", 127, &["/etc/passwd/x"]),
        words("not executable", 126, &["/etc/passwd"]),
        words("a directory", 126, &["/etc"]),
        words("an empty name", 127, &[""]),
        shell("not found by the shell", 127, "no-such-command"),
        shell("not executable for the shell", 126, "/etc/passwd"),
        shell("a child is killed", 137, "sh -c 'kill -9 $$'"),
        shell("a child is left", 5, "sleep 60 & exit 5"),
        shell("a daemon is left", 5, "(setsid sleep 60 &); exit 5"),
        flags("a flag that there is not", 125, &["--no-such-flag"], "exit 0"),
        flags("a policy that there is not", 125, &["--policy", "no-such-policy"], "exit 0"),
        flags("a user that there is not", 125, &["-u", "no-such-user"], "exit 0"),
        flags("a directory that there is not", 125, &["-w", "/no/such/directory"], "exit 0"),
        flags("a volume that there is not", 125, &["-v", "/no/such/volume:/x"], "exit 0"),
        flags("time is up", 143, &["--timeout", "1"], "exec sleep 60"),
        flags("time is up, with another signal", 130, &["--timeout", "1", "--stop-signal", "INT"], "exec sleep 60"),
        flags("time is up, handled", 4, &["--timeout", "1"], "trap 'exit 4' TERM; sleep 60 & wait"),
        flags("too much time of the processor", 152, &["--ulimit", "cpu=1:5"], "while :; do :; done"),
        flags("a file too large", 153, &["--ulimit", "fsize=1000"], "exec head -c 5000 /dev/zero > /tmp/x"),
        flags("no core", 139, &["--ulimit", "core=unlimited"], "kill -SEGV $$"),
    ];
    rows.push(row("nobody reads", 141, |place, way| {
        // What is said to a terminal and nobody reads is thrown away.
        let mut child = way.command(place, &[], &[if way == Way::Tty { "true" } else { "yes" }]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(child.stdout.take());
        let code = finish(child, b"").code();
        if way == Way::Tty { code + 141 } else { code }
    }));
    rows.push(row("the filter kills it", 128 + libc::SIGSYS, |place, way| {
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sched_yield"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        let file = place.file(&format!("kill-{way:?}.json"), profile);
        way.code(place, &["--security-opt", &format!("seccomp={}", file.display())], &[&place.probe(), "yield"])
    }));
    rows.push(row("an empty file", 0, |place, way| {
        let file = place.script(&format!("empty-{way:?}"), "");
        // What execve(2) does not know a shell would take for a script; we are none.
        if way.code(place, &[], &[&file.display().to_string()]) == 126 { 0 } else { 1 }
    }));
    rows.push(row("an interpreter that there is not", 127, |place, way| {
        let file = place.script(&format!("script-{way:?}"), "#!/no/such/interpreter\n");
        way.code(place, &[], &[&file.display().to_string()])
    }));
    for closed in ["<&-", ">&-", "2>&-"] {
        rows.push(row(format!("started with {closed}"), 9, move |place, way| {
            let flags = way.flags().join(" ");
            let script = format!("{} run {flags} -- sh -c 'exit 9' {closed}", program().display());
            finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").code()
        }));
    }
    rows.push(row("SIGCHLD is ignored where we start", 9, |place, way| {
        let flags = way.flags().join(" ");
        let script = format!("trap '' CHLD; exec {} run {flags} -- sh -c 'sleep 0; exit 9'", program().display());
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").code()
    }));
    rows
}

/// Several at the same time: most of a row is waiting.
#[track_caller]
fn judge(place: &Place, way: Way, rows: Vec<Row>) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let left = Left::before(place);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (row.got)(place, way))).unwrap_or(-1);
                    if got != row.want {
                        wrong.lock().unwrap().insert(row.what.clone(), (row.want, got));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    // Not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "TABLE {way:?}: {} rows, {} wrong", rows.len(), wrong.len());
    assert!(wrong.is_empty(), "{way:?}: (wanted, got) {wrong:#?}");
    left.after_kill();
}

fn table(way: Way) {
    let place = alone();
    way.code(&place, &[], &["true"]);
    judge(&place, way, codes().into_iter().chain(signals()).chain(others()).collect());
}

#[test]
fn table_of_a_run() {
    table(Way::Run);
}

#[test]
fn table_of_a_run_with_a_terminal() {
    table(Way::Tty);
}

#[test]
fn table_of_a_nested_run() {
    table(Way::Nested);
}
