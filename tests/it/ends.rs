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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A way to run a command and wait for its end, with what is common to all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    /// With a terminal.
    Tty,
    Nested,
    /// In a sandbox that runs.
    Exec,
    ExecTty,
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

/// The sandbox of `Way::Exec`.
const HOST: &str = "host";

impl Way {
    fn is_exec(self) -> bool {
        matches!(self, Way::Exec | Way::ExecTty)
    }

    fn has_terminal(self) -> bool {
        matches!(self, Way::Tty | Way::ExecTty)
    }

    /// What comes before the command.
    fn words(self) -> &'static [&'static str] {
        match self {
            Way::Run => &["run", "--"],
            Way::Tty => &["run", "-t", "--"],
            Way::Nested => &["run", "--security-opt", "nested", "--init", "--"],
            Way::Exec => &["exec", HOST],
            Way::ExecTty => &["exec", "-t", HOST],
        }
    }

    /// What starts `words` with these flags.
    fn command(self, place: &Place, flags: &[&str], words: &[&str]) -> Command {
        let (verb, rest) = self.words().split_first().unwrap();
        place.cli(&[&[*verb], flags, rest, words].concat())
    }

    /// The flags are of the sandbox.
    fn code(self, place: &Place, flags: &[&str], words: &[&str]) -> i32 {
        if self.is_exec() && !flags.is_empty() {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let name = format!("of-flags-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            place.sandbox(&[&["run", "-d", "--name", &name], flags, &["--", "sleep", "600"]].concat()).ok();
            let way: Vec<&str> = self.words().iter().map(|word| if *word == HOST { &name } else { *word }).collect();
            let code = place.sandbox(&[&way, words].concat()).code();
            place.sandbox(&["rm", "-f", &name]).ok();
            return code;
        }
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

/// A row that needs nobody from outside: a command, flags of its sandbox, and the code that is to come. PROBE stands for the probe.
struct Said {
    what: String,
    want: i32,
    flags: &'static [&'static str],
    words: Vec<String>,
}

impl Said {
    fn words<'a>(&'a self, probe: &'a str) -> Vec<&'a str> {
        self.words.iter().map(|word| if word == "PROBE" { probe } else { word }).collect()
    }
}

fn said() -> Vec<Said> {
    let all_flags = |what: &str, want: i32, flags: &'static [&'static str], words: &[&str]| {
        let words = words.iter().map(|word| word.to_string()).collect();
        Said { what: what.into(), want, flags, words }
    };
    let words = |what: &str, want: i32, words: &[&str]| all_flags(what, want, &[], words);
    let flags = |what: &str, want: i32, flags: &'static [&'static str], script: &str| all_flags(what, want, flags, &["sh", "-c", script]);
    let shell = |what: &str, want: i32, script: &str| flags(what, want, &[], script);
    let codes = (0..=255).map(|code| words(&format!("exit {code}"), code, &["PROBE", "end", &code.to_string()]));
    let suffered = all().filter(|signal| default(*signal) != Default::Stops).map(|signal| {
        let want = if default(signal) == Default::Ends { 128 + signal } else { 3 };
        words(&format!("the command suffers {signal}"), want, &["PROBE", "end", "3", &signal.to_string()])
    });
    codes
        .chain(suffered)
        .chain([
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
            shell("a child is left that says nothing", 5, "sleep 60 >/dev/null 2>&1 & exit 5"),
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
        ])
        .collect()
}

/// A command that stopped itself goes on when we are told to.
fn stopped() -> Vec<Row> {
    let stops = all().filter(|signal| default(*signal) == Default::Stops);
    let row = |signal: i32| {
        row(format!("the command suffers {signal}"), 3, move |place, way| {
            let child = way.command(place, &[], &[&place.probe(), "end", "3", &signal.to_string()]).spawn().unwrap();
            let (pid, over) = (child.id(), AtomicBool::new(false));
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
    };
    stops.map(row).collect()
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
                    let again = [libc::SIGSEGV, libc::SIGBUS].contains(&signal);
                    while again && !within(Duration::from_millis(100), || child.try_wait().unwrap().is_some()) {
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
            let silent = move |way: Way| way.has_terminal() && signal == libc::SIGWINCH;
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
fn others(way: Way) -> Vec<Row> {
    // What is of the sandbox itself is no matter of who joins it; and what he leaves there may go on, and speak on.
    let of_run = |said: &Said| said.want == 125 || said.flags.contains(&"--timeout") || said.what.ends_with(" is left");
    let mut rows: Vec<Row> = said()
        .into_iter()
        .filter(|said| !(way.is_exec() && of_run(said)))
        .map(|said| row(said.what.clone(), said.want, move |place, way| way.code(place, said.flags, &said.words(&place.probe()))))
        .collect();
    if way.is_exec() {
        let refused = |flags: &'static [&'static str]| {
            row(format!("exec {flags:?}"), 125, move |place, way| finish(way.command(place, flags, &["true"]).spawn().unwrap(), b"").code())
        };
        rows.extend([&["--no-such-flag"][..], &["-u", "no-such-user"], &["-w", "/no/such/directory"]].map(refused));
        rows.push(row("the sandbox's time is up", 137, |place, way| way.code(place, &["--timeout", "1"], &["sleep", "60"])));
        rows.push(row("the sandbox is not there", 125, |place, _| place.sandbox(&["exec", "no-such-sandbox", "true"]).code()));
    }
    rows.push(row("nobody reads", 141, |place, way| {
        // What is said to a terminal and nobody reads is thrown away.
        let mut child = way.command(place, &[], &[if way.has_terminal() { "true" } else { "yes" }]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(child.stdout.take());
        let code = finish(child, b"").code();
        if way.has_terminal() { code + 141 } else { code }
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
            let script = format!("{} {} sh -c 'exit 9' {closed}", program().display(), way.words().join(" "));
            finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").code()
        }));
    }
    rows.push(row("SIGCHLD is ignored where we start", 9, |place, way| {
        let script = format!("trap '' CHLD; exec {} {} sh -c 'sleep 0; exit 9'", program().display(), way.words().join(" "));
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").code()
    }));
    rows
}

/// Several at the same time: most of a row is waiting.
#[track_caller]
fn judge(place: &Place, way: Way, rows: &[Row]) {
    at_once(rows.chunks(1), &format!("{way:?}"), |rows, wrong| {
        for row in rows {
            let got = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (row.got)(place, way))).unwrap_or(-1);
            if got != row.want {
                wrong.lock().unwrap().insert(row.what.clone(), (row.want, got));
            }
        }
    });
}

type Wrong = Mutex<BTreeMap<String, (i32, i32)>>;

#[track_caller]
fn at_once<T: Sync>(pieces: std::slice::Chunks<'_, T>, way: &str, judge: impl Fn(&[T], &Wrong) + Sync) {
    let (next, wrong, rows) = (Mutex::new(pieces.clone()), Wrong::default(), pieces.map(<[T]>::len).sum::<usize>());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let piece = next.lock().unwrap().next();
                    match piece {
                        Some(piece) => judge(piece, &wrong),
                        None => break,
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    // Not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "TABLE {way}: {rows} rows, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{way}: (wanted, got) {wrong:#?}");
}

fn table(way: Way) {
    let place = alone();
    let host = |words: &[&str]| {
        if way.is_exec() {
            place.sandbox(words).ok();
        }
    };
    let (starts, ends) = (["run", "-d", "--name", HOST, "--", "sleep", "6000"], ["rm", "-f", HOST]);
    host(&starts);
    way.code(&place, &[], &["sleep", "0.2"]); // what is brief has no record, and so no place for one
    host(&ends);
    let left = Left::before(&place);
    host(&starts);
    judge(&place, way, &stopped().into_iter().chain(signals()).chain(others(way)).collect::<Vec<_>>());
    // What a further command leaves running ends with the sandbox.
    host(&ends);
    left.after_kill();
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

#[test]
fn table_of_an_exec() {
    table(Way::Exec);
}

#[test]
fn table_of_an_exec_with_a_terminal() {
    table(Way::ExecTty);
}

/// A detached one: what it says itself, or which signals `sandbox kill` sends it once it is ready.
struct Detached {
    said: Said,
    signals: Vec<i32>,
}

/// These two stop whoever it is; the others mean nothing to an orphaned process group. man: setpgid(2)
const STOPS: [i32; 2] = [libc::SIGSTOP, libc::SIGTSTP];

fn killed() -> Vec<Detached> {
    let row = |what: String, want: i32, how: &[&str], signals: Vec<i32>| {
        let words = [&["PROBE"], how].concat().iter().map(|word| word.to_string()).collect();
        Detached { said: Said { what, want, flags: &[], words }, signals }
    };
    let mut rows = Vec::new();
    for signal in all() {
        rows.push(match default(signal) {
            Default::Ends => row(format!("{signal}"), 128 + signal, &["await", ""], vec![signal]),
            Default::Nothing => row(format!("{signal}, and then TERM"), 143, &["await", ""], vec![signal, libc::SIGTERM]),
            Default::Stops => row(format!("{signal}, CONT, and then TERM"), 143, &["await", ""], vec![signal, libc::SIGCONT, libc::SIGTERM]),
        });
        // The end of a child is told by the kernel, and stopping is done by what nobody can handle.
        if ![libc::SIGKILL, libc::SIGCHLD].contains(&signal) && !STOPS.contains(&signal) {
            rows.push(row(format!("{signal}, handled"), 7, &["await", "7"], vec![signal]));
            let signals = vec![signal, signal, signal, libc::SIGKILL];
            rows.push(row(format!("{signal} three times, ignored, and then KILL"), 137, &["await", "ignore"], signals));
        }
        if default(signal) == Default::Stops {
            rows.push(row(format!("the command suffers {signal}"), 3, &["end", "3", &signal.to_string()], vec![libc::SIGCONT]));
        }
    }
    rows
}

fn detached(flags: &[&str]) {
    let place = alone();
    let probe = place.probe();
    place.warm_detached();
    let left = Left::before(&place);
    let rows: Vec<Detached> = said().into_iter().map(|said| Detached { said, signals: Vec::new() }).chain(killed()).collect();
    at_once(rows.chunks(8), &format!("-d {flags:?}"), |rows, wrong| {
        let began = |row: &Detached| {
            let out = place.sandbox(&[&["run", "-d"], flags, row.said.flags, &["--"], &row.said.words(&probe)].concat());
            if out.code() == 0 { Ok(out.ok().to_string()) } else { Err(out.code()) }
        };
        let ids: Vec<Result<String, i32>> = rows.iter().map(began).collect();
        for (row, id) in rows.iter().zip(&ids) {
            let (Ok(id), Some((last, first))) = (id, row.signals.split_last()) else { continue };
            if row.said.words[1] == "end" {
                // It stopped itself, or it did not.
                let goes_on = || {
                    if stands(&place, id) {
                        place.sandbox(&["kill", "-s", "CONT", id]);
                    }
                    place.command_of(id).is_none()
                };
                assert!(within(watchdog(), goes_on), "{} stands", row.said.what);
                continue;
            }
            assert!(within(watchdog(), || place.sandbox(&["logs", id]).stdout.starts_with("ready")), "{} is not ready", row.said.what);
            for signal in first {
                place.sandbox(&["kill", "-s", &signal.to_string(), id]).ok();
                if STOPS.contains(signal) {
                    let stands = within(Duration::from_secs(5), || stands(&place, id));
                    wrong.lock().unwrap().extend((!stands).then(|| (format!("{} stops it", row.said.what), (0, 1))));
                }
            }
            place.sandbox(&["kill", "-s", &last.to_string(), id]).ok();
        }
        let there: Vec<&str> = ids.iter().flatten().map(String::as_str).collect();
        let codes = place.sandbox(&[&["wait"], &there[..]].concat());
        let mut codes = codes.ok().lines().map(|code| code.parse::<i32>().unwrap());
        for (row, id) in rows.iter().zip(&ids) {
            let got = id.as_ref().map_or_else(|code| *code, |_| codes.next().unwrap());
            if got != row.said.want {
                wrong.lock().unwrap().insert(row.said.what.clone(), (row.said.want, got));
            }
        }
        place.sandbox(&[&["rm"], &there[..]].concat()).ok();
    });
    left.after_kill();
}

/// The command of a sandbox is stopped; the kernel says so.
fn stands(place: &Place, id: &str) -> bool {
    place.command_of(id).is_some_and(|pid| state(pid) == 'T')
}

#[test]
fn table_of_a_detached_run() {
    detached(&[]);
}

#[test]
fn table_of_a_detached_run_with_a_terminal() {
    detached(&["-t"]);
}
