//! A plain shell plays the sandbox, pipes and ptys play the caller, a pipe of records plays the signalfd.

use super::*;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// `grace` of all tests but those that measure it.
const SHORT: Duration = Duration::from_millis(300);

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

fn pty() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn raw(tty: &OwnedFd) -> bool {
    !tcgetattr(tty).unwrap().local_modes.contains(LocalModes::ICANON)
}

/// The remote control of a test: signals to the parent, as records.
struct Remote(File);

impl Remote {
    fn send(&mut self, signal: i32) {
        let mut record = [0u8; 128];
        record[..4].copy_from_slice(&signal.to_ne_bytes());
        self.0.write_all(&record).unwrap();
    }
}

fn signals() -> (Signals, Remote) {
    let (read, write) = pipe();
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).unwrap();
    (Signals::from_records(read), Remote(write.into()))
}

/// Start `script` with these three, its status to be told by `words`.
#[allow(clippy::zombie_processes)] // `stay` reaps it
fn living(script: &str, [stdin, stdout, stderr]: [OwnedFd; 3], streams: Streams, words: &[i32]) -> Living {
    let terminal = matches!(streams, Streams::Terminal { .. });
    // `cargo test &` in a script ignores SIGINT, and a shell cannot trap what it was born ignoring.
    let mut command = Command::new(if terminal { "setsid" } else { "env" });
    command.args(if terminal { &["--ctty", "env"][..] } else { &[] }).args(["--default-signal", "/bin/sh", "-c", script]);
    let child = command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    let (wire, init) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for word in words {
        rustix::net::send(&init, &word.to_ne_bytes(), SendFlags::empty()).unwrap();
    }
    Living { pidfd, wire, streams, stop_signal: libc::SIGTERM, timeout: None, lingers: false, joined: None, server: None, supervisor: None }
}

fn direct(script: &str, words: &[i32]) -> Living {
    living(script, [null(), null(), null()], Streams::Direct, words)
}

/// A sandbox whose stdout we relay.
fn talking(script: &str) -> Living {
    let (read, write) = pipe();
    living(script, [null(), write, null()], Streams::Pipes { stdin: None, stdout: Some(read), stderr: None }, &[])
}

/// A sandbox with a pty of its own.
fn terminal(script: &str, interactive: bool) -> Living {
    let (master, slave) = pty();
    let copy = || slave.try_clone().unwrap();
    living(script, [copy(), copy(), copy()], Streams::Terminal { master, interactive }, &[])
}

/// `stay` with this caller; the events come back too.
fn stay_with(living: Living, signals: Signals, three: [&OwnedFd; 3], stop: &mut dyn FnMut() -> sys::Result<()>) -> (Exit, Vec<Event>) {
    let [stdin, stdout, stderr] = three.map(AsFd::as_fd);
    let flags = three.map(|fd| rustix::fs::fcntl_getfl(fd).unwrap());
    let mut events = Vec::new();
    let caller = Caller { stdin, stdout, stderr, stop, grace: SHORT };
    // How long it took is nobody's to compare.
    let mut told = |event| events.extend((event != Event::Settled).then_some(event));
    let exit = stay_on(living, &signals, caller, None, &mut told).unwrap();
    // M2
    assert_eq!(flags, three.map(|fd| rustix::fs::fcntl_getfl(fd).unwrap()), "the flags of the caller's descriptors changed");
    (exit, events)
}

fn never() -> sys::Result<()> {
    panic!("nobody asked us to stop")
}

/// `stay` with a caller who has only a pipe for stdout, and `act` at its other end, in a thread.
fn watched<T: Send + 'static>(living: Living, act: impl FnOnce(File, Remote) -> T + Send + 'static) -> (Exit, Vec<Event>, T) {
    let (signals, remote) = signals();
    let (read, write) = pipe();
    let actor = thread::spawn(move || act(read.into(), remote));
    let (exit, events) = stay_with(living, signals, [&null(), &write, &null()], &mut never);
    drop(write);
    (exit, events, actor.join().unwrap())
}

/// Read until `what` has appeared; returns all of it.
fn until(from: &mut impl Read, what: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(what) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "end before {what:?}, after {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn rest(mut from: File) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn exit_codes() {
    let garbage = 0x137f; // a stopped process: no end
    for (script, words, code) in [
        ("exit 0", &[][..], 0),
        ("exit 1", &[], 1),
        ("exit 125", &[], 125),
        ("exit 255", &[], 255),
        ("kill -TERM $$", &[], 143),
        ("kill -KILL $$", &[], 137),
        ("exit 0", &[3 << 8], 3),
        ("exit 0", &[255 << 8], 255),
        ("exit 0", &[libc::SIGSEGV], 139),
        ("exit 0", &[libc::SIGSEGV | 0x80], 139), // with core
        ("exit 0", &[libc::SIGRTMAX()], 192),
        ("kill -KILL $$", &[0], 0),
        ("exit 4", &[garbage], 4),
        ("exit 0", &[7 << 8, garbage], 7),
    ] {
        let (signals, _remote) = signals();
        let (exit, events) = stay_with(direct(script, words), signals, [&null(), &null(), &null()], &mut never);
        assert_eq!((exit.code(), exit.timed_out), (code, false), "{script} {words:?}");
        assert_eq!(events, []);
    }
}

#[test]
fn signals_are_forwarded() {
    for signal in [1, 2, 3, 10, 12, 14, 15, 28, 34, 64] {
        let script = format!("trap 'exit {}' {signal}; echo ready; while :; do sleep 0.02; done", 100 + signal);
        // The trap of a shell has no real-time signals on every system: those end it by default.
        let code = if signal < 32 { 100 + signal } else { 128 + signal };
        let script = if signal < 32 { script } else { script.replacen("trap", ": trap", 1) };
        let (exit, events, ()) = watched(talking(&script), move |mut out, mut remote| {
            until(&mut out, "ready");
            remote.send(signal);
            rest(out);
        });
        assert_eq!(i32::from(exit.code()), code);
        assert_eq!(events, [Event::SignalForwarded(signal)]);
    }
}

#[test]
fn the_third_interrupt_kills() {
    let script = "trap 'echo got' INT TERM; echo ready; while :; do sleep 0.02; done";
    let (exit, events, ()) = watched(talking(script), |mut out, mut remote| {
        until(&mut out, "ready");
        for signal in [libc::SIGINT, libc::SIGTERM] {
            remote.send(signal);
            until(&mut out, "got");
        }
        remote.send(libc::SIGINT);
        rest(out);
    });
    assert_eq!(exit.code(), 137);
    assert_eq!(events, [Event::SignalForwarded(2), Event::SignalForwarded(15), Event::Killed]);
}

#[test]
fn interrupts_far_apart_do_not_kill() {
    let script = "n=0; trap 'n=$((n+1)); echo got $n' INT; echo ready; while [ $n -lt 5 ]; do sleep 0.02; done";
    let (exit, events, ()) = watched(talking(script), |mut out, mut remote| {
        until(&mut out, "ready");
        for n in 1..=5 {
            remote.send(libc::SIGINT);
            until(&mut out, &format!("got {n}"));
            thread::sleep(SHORT);
        }
        rest(out);
    });
    assert_eq!(exit.code(), 0);
    assert!(!events.contains(&Event::Killed));
}

#[test]
fn the_time_limit() {
    let limit = Duration::from_millis(100);
    for (script, stop_signal, code, killed) in [
        ("exec sleep 60", libc::SIGTERM, 143, false),
        ("trap 'exit 9' USR1; while :; do sleep 0.02; done", libc::SIGUSR1, 9, false),
        ("trap '' TERM; while :; do sleep 0.02; done", libc::SIGTERM, 137, true),
        ("kill -STOP $$", libc::SIGTERM, 143, false),
    ] {
        let (signals, _remote) = signals();
        let began = Instant::now();
        let living = Living { stop_signal, timeout: Some(limit), ..direct(script, &[]) };
        let (exit, events) = stay_with(living, signals, [&null(), &null(), &null()], &mut never);
        assert_eq!((exit.code(), exit.timed_out), (code, true), "{script}");
        assert_eq!(events.contains(&Event::Killed), killed, "{script}");
        assert!(began.elapsed() >= if killed { limit + SHORT } else { limit });
    }
    let (signals, _remote) = signals();
    let living = Living { timeout: Some(Duration::MAX), ..direct("exit 5", &[]) };
    let (exit, _) = stay_with(living, signals, [&null(), &null(), &null()], &mut never);
    assert_eq!((exit.code(), exit.timed_out), (5, false));
}

#[test]
fn no_byte_is_lost() {
    // More than all buffers together, then an end at once, to a reader that is late.
    let ((out, to_out), (err, to_err)) = (pipe(), pipe());
    let script = "head -c 10485760 /dev/zero | tr '\\0' x; printf END; printf problem >&2";
    let streams = Streams::Pipes { stdin: None, stdout: Some(out), stderr: Some(err) };
    let living = living(script, [null(), to_out, to_err], streams, &[]);
    let (signals, _remote) = signals();
    let ((out, to_out), (err, to_err)) = (pipe(), pipe());
    let reader = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        rest(out.into())
    });
    let (exit, _) = stay_with(living, signals, [&null(), &to_out, &to_err], &mut never);
    drop((to_out, to_err));
    let text = reader.join().unwrap();
    assert_eq!((exit.code(), text.len()), (0, 10485760 + 3));
    assert!(text.ends_with("xEND"));
    assert_eq!(rest(err.into()), "problem");
}

#[test]
fn what_one_turn_cannot_carry_after_the_end_does_not_wait() {
    const MIB: usize = 1 << 20; // 16 times the buffer
    let ((read, write), (out, to_out)) = (pipe(), pipe());
    for end in [&write, &to_out] {
        rustix::pipe::fcntl_setpipe_size(end, MIB).unwrap();
    }
    File::from(write.try_clone().unwrap()).write_all(&vec![b'x'; MIB]).unwrap();
    let streams = Streams::Pipes { stdin: None, stdout: Some(read), stderr: None };
    let limit = Duration::from_secs(5);
    let living = Living { timeout: Some(limit), ..living("exit 0", [null(), write, null()], streams, &[]) };
    poll(&mut [PollFd::new(&living.pidfd, PollFlags::IN)], None).unwrap();
    let (signals, _remote) = signals();
    let began = Instant::now();
    stay_with(living, signals, [&null(), &to_out, &null()], &mut never);
    assert!(began.elapsed() < limit);
    drop(to_out);
    assert_eq!(rest(out.into()).len(), MIB);
}

#[test]
fn no_line_of_a_terminal_is_lost() {
    let (exit, _, text) = watched(terminal("seq 1 200000", false), |out, _| {
        thread::sleep(Duration::from_millis(300));
        rest(out)
    });
    assert_eq!(exit.code(), 0);
    let expected: String = (1..=200000).map(|n| format!("{n}\r\n")).collect();
    assert!(text == expected, "{} bytes of {}, ending in {:?}", text.len(), expected.len(), &text[text.len().saturating_sub(20)..]);
}

#[test]
fn a_closed_reader_is_a_sigpipe() {
    let (exit, _, ()) = watched(talking("yes"), |mut out, _| drop(until(&mut out, "y\ny\n")));
    assert_eq!(exit.code(), 128 + 13);
}

#[test]
fn a_closed_reader_of_a_terminal_hangs_it_up() {
    let (exit, _, ()) = watched(terminal("echo on; sleep 0.2; seq 1 50000; exit 6", false), |mut out, _| drop(until(&mut out, "on")));
    assert_eq!(exit.code(), 128 + libc::SIGHUP as u8);
}

#[test]
fn a_reader_that_does_not_read_makes_nobody_deaf() {
    let stuck_pipe = pipe();
    let stuck_socket = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let stuck_tty = pty(); // a terminal that was stopped with Ctrl-S looks the same: no room
    for (out, name) in [(&stuck_pipe.1, "pipe"), (&stuck_socket.1, "socket"), (&stuck_tty.1, "tty")] {
        let (signals, _remote) = signals();
        let began = Instant::now();
        let living = Living { timeout: Some(Duration::from_millis(200)), ..talking("trap '' TERM; yes; :") };
        let (exit, events) = stay_with(living, signals, [&null(), out, &null()], &mut never);
        assert!(exit.timed_out && events.contains(&Event::TimedOut), "{name}");
        assert!(began.elapsed() < Duration::from_secs(5), "{name}");
    }
}

#[test]
fn an_interrupt_ends_the_wait_for_a_reader_of_the_rest() {
    let (signals, mut remote) = signals();
    let (_unread, out) = pipe();
    let sender = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        remote.send(libc::SIGINT);
    });
    // 64 KiB fill the caller's pipe, the rest stays with us.
    let (exit, _) = stay_with(talking("head -c 100000 /dev/zero; exit 3"), signals, [&null(), &out, &null()], &mut never);
    sender.join().unwrap();
    assert_eq!(exit.code(), 3);
}

#[test]
fn input_through_a_pipe_ends_with_control_d() {
    let ((to_in, stdin), (out, to_out)) = (pipe(), pipe());
    let streams = Streams::Pipes { stdin: Some(stdin), stdout: Some(out), stderr: None };
    let living = living("cat; echo end", [to_in, to_out, null()], streams, &[]);
    let (signals, _remote) = signals();
    let ((keys, tty), (out, to_out)) = (pty(), pipe());
    File::from(keys.try_clone().unwrap()).write_all(b"hello\n\x04").unwrap();
    let (exit, _) = stay_with(living, signals, [&tty, &to_out, &null()], &mut never);
    drop(to_out);
    assert_eq!((exit.code(), rest(out.into()).as_str()), (0, "hello\nend\n"));
    assert!(!raw(&tty));
}

#[test]
fn a_terminal_echoes_resizes_and_is_restored() {
    let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let (keys, tty) = pty();
    tcsetwinsize(&tty, size(33, 99)).unwrap();
    let (signals, mut remote) = signals();
    let (mut screen, other) = (File::from(keys.try_clone().unwrap()), tty.try_clone().unwrap());
    let person = thread::spawn(move || {
        until(&mut screen, "33 99");
        assert!(raw(&other), "the terminal is not raw");
        tcsetwinsize(&other, size(44, 111)).unwrap();
        remote.send(libc::SIGWINCH);
        until(&mut screen, "44 111");
        screen.write_all(b"hello\r").unwrap();
        until(&mut screen, "hello\r\ngot hello");
        screen.write_all(b"\x03").unwrap(); // Ctrl-C is a byte, and the sandbox's own terminal makes the signal of it
        until(&mut screen, "interrupted");
    });
    let script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 8' INT; stty size; \
        while [ \"$(stty size)\" = '33 99' ]; do sleep 0.02; done; read line; echo got $line; while :; do sleep 0.02; done";
    let before = format!("{:?}", tcgetattr(&tty).unwrap());
    let (exit, events) = stay_with(terminal(script, true), signals, [&tty, &tty, &tty], &mut never);
    person.join().unwrap();
    assert_eq!((exit.code(), events), (8, vec![]));
    assert_eq!(before, format!("{:?}", tcgetattr(&tty).unwrap()));
}

#[test]
fn a_terminal_is_restored_after_kill_9() {
    let (keys, tty) = pty();
    let (signals, _remote) = signals();
    let (mut screen, other) = (File::from(keys.try_clone().unwrap()), tty.try_clone().unwrap());
    let living = terminal("stty raw -echo; echo ready; exec sleep 60", true);
    let pidfd = living.pidfd.try_clone().unwrap();
    let killer = thread::spawn(move || {
        until(&mut screen, "ready");
        assert!(raw(&other));
        pidfd_send(pidfd.as_fd(), libc::SIGKILL).unwrap();
    });
    let before = format!("{:?}", tcgetattr(&tty).unwrap());
    let (exit, _) = stay_with(living, signals, [&tty, &tty, &tty], &mut never);
    killer.join().unwrap();
    assert_eq!(exit.code(), 137);
    assert_eq!(before, format!("{:?}", tcgetattr(&tty).unwrap()));
}

#[test]
fn a_terminal_without_interactive_is_only_written() {
    let (keys, tty) = pty();
    File::from(keys.try_clone().unwrap()).write_all(b"for the shell\n").unwrap();
    let (signals, _remote) = signals();
    let script = "read -t 1 line 2>/dev/null || sleep 0.3; echo done $line";
    let (exit, _) = stay_with(terminal(script, false), signals, [&tty, &tty, &tty], &mut never);
    assert_eq!(exit.code(), 0);
    assert!(!raw(&tty));
    let mut line = [0; 64];
    let n = rustix::io::read(&tty, &mut line).unwrap();
    assert_eq!(&line[..n], b"for the shell\n", "what was typed for the shell was taken");
}

#[test]
fn a_terminal_that_the_sandbox_closed_may_come_back() {
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; exec >/dev/tty; echo back";
    let (exit, _, text) = watched(terminal(script, false), |out, _| rest(out));
    assert_eq!((exit.code(), text.as_str()), (0, "back\r\n"));
}

#[test]
fn control_z_stops_the_sandbox_then_us() {
    let (keys, tty) = pty();
    let (signals, mut remote) = signals();
    let mut screen = File::from(keys.try_clone().unwrap());
    let (stopped, told) = mpsc::channel();
    let person = thread::spawn(move || {
        until(&mut screen, "ready");
        remote.send(libc::SIGTSTP);
        told.recv().unwrap();
        let text = until(&mut screen, "cont");
        assert!(text.contains("tstp"), "{text}");
    });
    let script = "trap 'echo tstp' TSTP; trap 'echo cont; exit 0' CONT; echo ready; while :; do sleep 0.02; done";
    let mut stop = || {
        assert!(!raw(&tty), "the shell gets a raw terminal");
        thread::sleep(Duration::from_millis(200));
        stopped.send(()).unwrap();
        Ok(())
    };
    let (exit, events) = stay_with(terminal(script, true), signals, [&tty, &tty, &tty], &mut stop);
    person.join().unwrap();
    assert_eq!((exit.code(), events), (0, vec![Event::Stopped, Event::Continued]));
    assert!(!raw(&tty));
}

#[test]
fn a_closed_terminal_ends_the_sandbox_and_a_mere_hup_does_not() {
    let cases = [(false, true), (true, true), (false, false), (true, false)];
    let runs = cases.map(|(own, closed)| thread::spawn(move || hang_up(own, closed)));
    for (run, (own, closed)) in runs.into_iter().zip(cases) {
        let (exit, events) = run.join().unwrap();
        assert_eq!(exit.code(), if closed { 137 } else { 7 }, "own terminal: {own}, closed: {closed}");
        assert_eq!(events.contains(&Event::HungUp), closed);
        assert!(events.contains(&Event::SignalForwarded(libc::SIGHUP)));
    }
}

/// A sandbox that ignores SIGHUP, with a pty of its `own` or not, at a terminal that is `closed` or not.
fn hang_up(own: bool, closed: bool) -> (Exit, Vec<Event>) {
    let script = "trap '' HUP PIPE; echo ready; sleep 1; exit 7";
    let living = if own { terminal(script, true) } else { talking(script) };
    let (keys, tty) = pty();
    let (signals, mut remote) = signals();
    let (mut screen, other) = (File::from(keys), tty.try_clone().unwrap());
    let person = thread::spawn(move || {
        until(&mut screen, "ready");
        let keep = (!closed).then_some(screen);
        // A child that another test forks right now has a copy of our side until its exec.
        while closed && tcgetattr(&other).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        remote.send(libc::SIGHUP);
        thread::sleep(Duration::from_millis(1500));
        drop(keep);
    });
    let ended = stay_with(living, signals, [&tty, &tty, &tty], &mut never);
    person.join().unwrap();
    ended
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let path_only = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap();
    let streams = Streams::Pipes { stdin: None, stdout: Some(path_only), stderr: None };
    let living = living("exec sleep 60", [null(), null(), null()], streams, &[]);
    let pidfd = living.pidfd.try_clone().unwrap();
    let (signals, _remote) = signals();
    let nothing = null();
    let [stdin, stdout, stderr] = [nothing.as_fd(); 3];
    let caller = Caller { stdin, stdout, stderr, stop: &mut never, grace: SHORT };
    stay_on(living, &signals, caller, None, &mut |_| {}).unwrap_err();
    assert_eq!(pidfd_send(pidfd.as_fd(), libc::SIGCONT), Err(Errno::SRCH));
}

#[test]
fn real_signals_arrive_and_the_mask_is_remembered() {
    let signals = Signals::take().unwrap();
    for signal in [libc::SIGUSR1, libc::SIGTERM, 40] {
        assert!(!signals.old_mask().has(signal));
        crate::sys::signal::raise(signal).unwrap();
        assert_eq!(signals.next().unwrap(), Some(signal));
    }
    assert_eq!(signals.next().unwrap(), None);
    let ours = crate::sys::signal::set_mask(signals.old_mask()).unwrap();
    assert!([libc::SIGTTIN, libc::SIGTTOU, libc::SIGHUP, 64].iter().all(|n| ours.has(*n)));
    assert!([libc::SIGSEGV, libc::SIGCHLD, libc::SIGPIPE, 32].iter().all(|n| !ours.has(*n)));
}

/// The monitor of a detached sandbox, in a thread; its log and its socket are in a directory of its own.
struct Detached {
    path: std::path::PathBuf,
    dir: OwnedFd,
    stays: thread::JoinHandle<Exit>,
    remote: Remote,
}

impl Detached {
    fn new(name: &str, living: Living, early: Option<OwnedFd>) -> Detached {
        let path = std::env::temp_dir().join(format!("sandbox-door-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        let dir: OwnedFd = File::open(&path).unwrap().into();
        let log = crate::logs::write::Writer::open(dir.try_clone().unwrap(), "64k:2".parse().unwrap()).unwrap();
        let mut door = Door::new(control::listen_at(dir.as_fd(), "control").unwrap(), log);
        if let Some(socket) = early {
            door.adopt(socket, Attach { leash: true, ..Attach::default() });
        }
        let (signals, remote) = signals();
        let stays = thread::spawn(move || {
            let nothing = null();
            let [stdin, stdout, stderr] = [nothing.as_fd(); 3];
            let caller = Caller { stdin, stdout, stderr, stop: &mut never, grace: SHORT };
            let exit = stay_on(living, &signals, caller, Some(&mut door), &mut |_| {}).unwrap();
            door.ended(&exit, None);
            exit
        });
        Detached { path, dir, stays, remote }
    }

    fn link(&self) -> Link {
        Link::connect(self.dir.as_fd(), "control").unwrap().unwrap()
    }

    fn attach(&self, input: Input) -> (Link, Vec<File>) {
        let link = self.link();
        link.ask(&Ask::Attach(Attach { input, ..Attach::default() })).unwrap();
        let (answer, fds) = link.answer().unwrap().unwrap();
        assert!(matches!(answer, Answer::Attached { .. }), "{answer:?}");
        (link, fds.into_iter().flatten().map(File::from).collect())
    }

    fn log(&self) -> String {
        let numbers = crate::logs::files(self.dir.as_fd()).unwrap();
        numbers.iter().map(|n| std::fs::read_to_string(self.path.join(format!("log.{n}"))).unwrap()).collect()
    }

    fn end(self) -> u8 {
        let code = self.stays.join().unwrap().code();
        std::fs::remove_dir_all(&self.path).unwrap();
        code
    }
}

/// A sandbox as the monitor makes it.
fn piped(script: &str) -> Living {
    let ((to_in, stdin), (stdout, to_out), (stderr, to_err)) = (pipe(), pipe(), pipe());
    living(script, [to_in, to_out, to_err], Streams::Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) }, &[])
}

fn exited(link: &Link) -> i32 {
    loop {
        match link.answer().unwrap() {
            Some((Answer::Exited { status, .. }, _)) => return status,
            Some(_) => {}
            None => panic!("it went without a word"),
        }
    }
}

#[test]
fn all_who_are_attached_see_all_and_anyone_may_type() {
    let up = Detached::new("all", piped("while read x; do echo got $x; echo err $x >&2; [ $x != end ] || exit 5; done"), None);
    let mut first = up.attach(Input::Shared);
    let mut second = up.attach(Input::Shared);
    first.1[0].write_all(b"one\n").unwrap();
    for (_, files) in [&mut first, &mut second] {
        until(&mut files[1], "got one\n");
        until(&mut files[2], "err one\n");
    }
    // Its end is not that of the sandbox's stdin.
    drop(first);
    second.1[0].write_all(b"two\n").unwrap();
    until(&mut second.1[1], "got two\n");
    let waits = up.link();
    waits.ask(&Ask::Wait).unwrap();
    let (link, mut files) = up.attach(Input::Shared);
    files[0].write_all(b"end\n").unwrap();
    assert_eq!(rest(files.remove(1)), "got end\n");
    assert_eq!(exited(&link), 5 << 8);
    assert_eq!(exited(&waits), 5 << 8);
    assert_eq!(rest(second.1.remove(1)), "got end\n");
    let log = up.log();
    assert!(log.contains(" stdout F got one\n") && log.contains(" stderr F err end\n"), "{log}");
    assert_eq!(up.end(), 5);
}

#[test]
fn an_end_of_input_that_is_the_only_one() {
    let up = Detached::new("only", piped("cat; echo over"), None);
    let (_link, mut files) = up.attach(Input::Only);
    files[0].write_all(b"text\n").unwrap();
    drop(files.remove(0));
    assert_eq!(rest(files.remove(0)), "text\nover\n");
    assert_eq!(up.end(), 0);
}

#[test]
fn who_does_not_read_is_let_go_and_the_sandbox_goes_on() {
    let up = Detached::new("slow", piped("read x; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo done >&2; read x; exit 4"), None);
    let (link, files) = up.attach(Input::Shared);
    let (_other, mut reads) = up.attach(Input::Shared);
    let reader = thread::spawn({
        let out = reads.remove(1);
        move || rest(out).len()
    });
    let began = Instant::now();
    reads[0].write_all(b"\n").unwrap();
    until(&mut reads[1], "done\n");
    assert!((relay::PATIENCE..relay::PATIENCE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(matches!(link.answer().unwrap(), Some((Answer::Dropped, _))));
    assert!(link.answer().unwrap().is_none());
    drop(files);
    reads[0].write_all(b"\n").unwrap();
    assert_eq!(reader.join().unwrap(), 1_000_001);
    assert!(up.log().ends_with("stderr F done\n") || up.log().contains("x\n"));
    assert_eq!(up.end(), 4);
}

#[test]
fn a_screen_that_was_stopped_is_told_what_it_misses() {
    let up = Detached::new("screen", terminal("stty -echo raw; read x; seq 1 100000; echo after; read x; echo last", true), None);
    let (_link, mut files) = up.attach(Input::Shared);
    let began = Instant::now();
    thread::sleep(SHORT);
    files[0].write_all(b"\n").unwrap();
    while !up.log().contains("after") {
        thread::sleep(Duration::from_millis(50));
        assert!(began.elapsed() < relay::PATIENCE * 2);
    }
    assert!(began.elapsed() >= relay::PATIENCE);
    let seen = until(&mut files[1], "missing here");
    assert!(seen.starts_with("1\n2\n3\n"), "{}", &seen[..20]);
    files[0].write_all(b"\n").unwrap();
    until(&mut files[1], "last");
    assert_eq!(up.end(), 0);
}

#[test]
fn the_leash() {
    for loose in [false, true] {
        let (ours, theirs) = crate::sys::socket::pair().unwrap();
        let up = Detached::new(&format!("leash-{loose}"), piped("sleep 0.5; exit 6"), Some(theirs));
        let link = Link::of(ours);
        assert!(matches!(link.answer().unwrap(), Some((Answer::Attached { input: false, terminal: false }, _))));
        if loose {
            link.ask(&Ask::Detach).unwrap();
        }
        drop(link);
        assert_eq!(up.end(), if loose { 6 } else { 137 });
    }
}

#[test]
fn cve_2022_31030_what_is_asked_costs_nothing_that_stays() {
    let up = Detached::new("often", terminal("read x; exit 3", true), None);
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (link, mut files) = up.attach(Input::Shared);
    let before = fds();
    for n in 0..100_000u32 {
        link.ask(&Ask::Resize(n as u16 % 100 + 1, n as u16 % 200 + 1)).unwrap();
    }
    for n in 0..10_000 {
        drop(up.attach(if n % 2 == 0 { Input::Shared } else { Input::None }));
    }
    // Too much at once, too long, and nonsense: refused, each alone.
    let many: Vec<Link> = (0..80).map(|_| up.link()).collect();
    let refused = many.iter().filter(|l| l.ask(&Ask::Signal(0)).is_ok()).filter_map(|l| l.answer().ok().flatten()).count();
    assert!(refused <= 80);
    drop(many);
    for packet in [&[b'x'; 2 * control::LONGEST][..], b"{", b"\"no-such-word\"", b"{\"signal\":\"x\"}"] {
        let link = up.link();
        rustix::net::send(&link, packet, SendFlags::empty()).unwrap();
        while let Ok(Some((answer, _))) = link.answer() {
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
        }
    }
    assert!(within(|| fds() <= before + 20), "{before} descriptors became {}", fds()); // other tests have theirs
    files[0].write_all(b"\n").unwrap();
    assert_eq!(exited(&link), 3 << 8);
    assert_eq!(up.end(), 3);
}

fn within(mut holds: impl FnMut() -> bool) -> bool {
    (0..100).any(|_| {
        holds() || {
            thread::sleep(Duration::from_millis(50));
            false
        }
    })
}

#[test]
fn keys_let_go_of_a_sandbox_that_goes_on() {
    let up = Detached::new("keys", terminal("stty -echo; while read x; do echo got $x; [ $x != end ] || exit 9; done", true), None);
    let before;
    {
        let (keyboard, tty) = pty();
        before = format!("{:?}", tcgetattr(&tty).unwrap());
        let link = up.link();
        link.ask(&Ask::Attach(Attach { input: Input::Shared, ..Attach::default() })).unwrap();
        let (signals, _remote) = signals();
        let mut screen = File::from(keyboard);
        let person = thread::spawn(move || {
            thread::sleep(SHORT);
            screen.write_all(b"one\r").unwrap();
            until(&mut screen, "got one");
            screen.write_all(b"\x10two\r").unwrap(); // only the first of them
            until(&mut screen, "two");
            screen.write_all(b"\x10\x11").unwrap();
            screen
        });
        let caller = Caller { stdin: tty.as_fd(), stdout: tty.as_fd(), stderr: tty.as_fd(), stop: &mut never, grace: SHORT };
        let manner = Manner { proxy: true, leash: false, keys: Keys::default() };
        let left = attach_on(link, manner, &signals, caller, &mut |_| {}).unwrap();
        let _screen = person.join().unwrap();
        assert_eq!(left, Left::Detached);
        assert_eq!(before, format!("{:?}", tcgetattr(&tty).unwrap()));
    }
    let (link, mut files) = up.attach(Input::Shared);
    files[0].write_all(b"end\n").unwrap();
    assert_eq!(exited(&link), 9 << 8);
    assert_eq!(up.end(), 9);
}

#[test]
fn signals_go_through_or_end_the_one_who_is_attached() {
    let mut up = Detached::new("proxy", piped("trap 'echo usr' USR1; trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done"), None);
    for (proxy, signal) in [(true, libc::SIGUSR1), (false, libc::SIGTERM)] {
        let link = up.link();
        link.ask(&Ask::Attach(Attach::default())).unwrap();
        let (signals, mut remote) = signals();
        let (out, to_out) = pipe();
        let nothing = null();
        let caller = Caller { stdin: nothing.as_fd(), stdout: to_out.as_fd(), stderr: nothing.as_fd(), stop: &mut never, grace: SHORT };
        let person = thread::spawn(move || {
            thread::sleep(SHORT);
            remote.send(signal);
            let mut out = File::from(out);
            if proxy {
                until(&mut out, "usr"); // and with the reader goes who is attached
            }
            (out, remote)
        });
        let manner = Manner { proxy, leash: false, keys: Keys::default() };
        let left = if proxy {
            // Broken by its reader when the sandbox speaks again.
            let speak = up.link();
            thread::spawn(move || {
                thread::sleep(SHORT * 4);
                let _ = speak.ask(&Ask::Signal(libc::SIGUSR1));
                thread::sleep(SHORT);
                let _ = speak.ask(&Ask::Signal(libc::SIGUSR1));
            });
            let closer = thread::spawn(move || drop(person.join().unwrap()));
            let left = attach_on(link, manner, &signals, caller, &mut |_| {}).unwrap();
            closer.join().unwrap();
            left
        } else {
            let left = attach_on(link, manner, &signals, caller, &mut |_| {}).unwrap();
            drop(person.join().unwrap());
            left
        };
        assert_eq!(left, if proxy { Left::Detached } else { Left::Signalled(signal) });
    }
    up.remote.send(libc::SIGTERM);
    assert_eq!(up.end(), 8);
}
