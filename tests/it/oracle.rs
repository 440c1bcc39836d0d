//! The oracles that judge every end of a sandbox: *left* (nothing is left over), *lost* (nothing is lost), *canary* (nothing else changed).
//!
//! *Left* compares two pictures of all that an account has: processes and zombies, namespaces, mounts, FUSE connections, cgroups and units,
//! IPC objects, terminals, locks, sockets, keys; and every file, with mode, owner, size and hash. An end that was asked for leaves the same
//! picture at once. After SIGKILL what the kernel keeps is as before within two seconds, with nobody's help; what lies on disk is gone after
//! the next ordinary command. So sharp a judge needs an account of its own, `alone()`: in one that many tests share, nobody knows whose
//! a zombie was. Where only `place()` will do, `nothing_left` looks for what knows the test's home.
//!
//! An oracle that sees nothing would be content with everything: the tests here leave one thing of each kind and see it named.

use crate::support::*;
use sha2::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// What there is, and what is to be known of it. Keys begin with the kind.
type Things = BTreeMap<String, String>;

/// What there is before something happens. In an account of others, too, only what `nothing_left` sees is judged.
pub struct Left<'a> {
    place: &'a Place,
    before: Option<(Things, Things)>,
}

/// From the end of a command until the kernel has put away what it had.
const AT_ONCE: Duration = Duration::from_millis(100);
const AFTER_KILL: Duration = Duration::from_secs(2);

impl<'a> Left<'a> {
    pub fn before(place: &'a Place) -> Left<'a> {
        Left { place, before: place.is_alone().then(|| (kernel(place), disk(place))) }
    }

    pub fn in_kernel(&self) -> Vec<String> {
        self.before.iter().flat_map(|(before, _)| differences(before, &kernel(self.place))).collect()
    }

    fn on_disk(&self) -> Vec<String> {
        self.before.iter().flat_map(|(_, before)| differences(before, &disk(self.place))).collect()
    }

    /// What is there now and was not, or the other way round.
    pub fn differences(&self) -> Vec<String> {
        [self.in_kernel(), self.on_disk()].concat()
    }

    /// It was asked to end.
    #[track_caller]
    pub fn at_once(&self) {
        self.same(AT_ONCE, || self.differences());
    }

    /// It was killed: nobody has to do anything about what the kernel keeps.
    #[track_caller]
    pub fn after_kill(&self) {
        self.same(AFTER_KILL, || self.in_kernel());
    }

    /// It was killed, and then came an ordinary command.
    #[track_caller]
    pub fn after_kill_and(&self, next: &[&str]) -> Output {
        self.after_kill();
        let output = self.place.sandbox(next);
        output.ok();
        assert!(output.stderr.is_empty(), "there is nothing to complain about: {output:?}");
        self.same(AT_ONCE, || self.differences());
        output
    }

    #[track_caller]
    fn same(&self, limit: Duration, differences: impl Fn() -> Vec<String>) {
        if self.before.is_none() {
            return self.place.nothing_left();
        }
        let mut last = Vec::new();
        within(limit, || {
            last = differences();
            last.is_empty()
        });
        assert!(last.is_empty(), "left over, or lost: {last:#?}");
    }
}

fn differences(before: &Things, now: &Things) -> Vec<String> {
    let other = |a: &Things, b: &Things, word: &str| -> Vec<String> {
        a.iter().filter(|(k, v)| b.get(*k) != Some(v)).map(|(k, v)| format!("{word} {k}: {v}")).collect()
    };
    [other(before, now, "was"), other(now, before, "now")].concat()
}

/// An account by its numbers.
struct Whose {
    uid: u32,
    subuids: (u32, u32),
}

impl Whose {
    fn of(account: &Account) -> Whose {
        Whose { uid: account.uid, subuids: subuids(account).unwrap_or((0, 0)) }
    }

    fn has(&self, uid: u32) -> bool {
        uid == self.uid || (uid >= self.subuids.0 && uid - self.subuids.0 < self.subuids.1)
    }

    fn says(&self, word: Option<&str>) -> bool {
        word.and_then(|w| w.parse().ok()).is_some_and(|uid| self.has(uid))
    }
}

fn read(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn entries(dir: impl AsRef<Path>) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(dir).into_iter().flatten().flatten()
}

/// `user:[4026531837]`
fn is_namespace(link: &str) -> bool {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];
    link.split_once(":[").is_some_and(|(kind, _)| kinds.contains(&kind))
}

fn kernel(place: &Place) -> Things {
    let whose = Whose::of(&place.account);
    let mut things = Things::new();
    let mut pids = BTreeSet::new();
    let mut put = |kind: &str, key: String, value: String| drop(things.insert(format!("{kind} {key}"), value));

    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
    let host: BTreeSet<PathBuf> =
        entries("/proc/self/ns").map(|e| std::fs::read_link(e.path()).unwrap_or_default()).chain([own("pid"), own("time")]).collect();
    let mut seen = host.clone();
    for entry in entries("/proc") {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let status = read(entry.path().join("status"));
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim().to_string();
        if !field("Uid:").split_whitespace().any(|uid| whose.says(Some(uid))) {
            continue;
        }
        let stat = read(entry.path().join("stat"));
        let start = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or("?").to_string();
        let name = field("Name:");
        let zombie = field("State:").starts_with(['Z', 'X']);
        if zombie && field("PPid:") == "1" {
            continue; // the machine's PID 1 has its own time: seconds, on some
        }
        let links: Vec<PathBuf> = entries(entry.path().join("fd")).filter_map(|e| std::fs::read_link(e.path()).ok()).collect();
        // Of ours, also what they have: whoever stays must not have more of it than before.
        let mut value = format!("{name}{} uids {}", if zombie { " (zombie)" } else { "" }, field("Uid:").replace('\t', " "));
        if name.starts_with("sandbox") && !zombie {
            value += &format!(", {} threads, {} descriptors", field("Threads:"), links.len());
        }
        put("process", format!("{pid} of {start}"), value);
        pids.insert(pid);
        let spaces = entries(entry.path().join("ns")).filter_map(|e| std::fs::read_link(e.path()).ok());
        for space in spaces.chain(links) {
            let text = space.display().to_string();
            if is_namespace(&text) && seen.insert(space) {
                if text.starts_with("mnt:") {
                    for line in read(entry.path().join("mountinfo")).lines() {
                        put("mount", format!("in {text} {line}"), String::new());
                    }
                }
                put("namespace", text, format!("of {name}"));
            }
        }
    }

    let home = place.account.home.display().to_string();
    let theirs = [home.clone(), format!("/run/user/{}", whose.uid)];
    for line in mounts().lines() {
        let at = line.split(' ').nth(4).unwrap_or("");
        let options = line.rsplit(' ').next().unwrap_or("").split(',').filter_map(|o| o.split_once('='));
        if theirs.iter().any(|dir| at.starts_with(dir)) || options.filter(|(k, _)| ["uid", "user_id"].contains(k)).any(|(_, v)| whose.says(Some(v))) {
            put("mount", line.to_string(), String::new());
        }
    }

    for (kind, entry) in [("fuse connection", c"fusectl"), ("message queue", c"mqueue")]
        .into_iter()
        .flat_map(|(kind, fs)| own_mount(fs).into_iter().map(move |e| (kind, e)))
    {
        if entry.metadata().is_ok_and(|m| whose.has(m.uid())) {
            put(kind, entry.file_name().display().to_string(), String::new());
        }
    }
    let mut groups = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = groups.pop() {
        for entry in entries(&dir).filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            if entry.metadata().is_ok_and(|m| whose.has(m.uid())) {
                put("cgroup", entry.path().display().to_string(), String::new());
            }
            groups.push(entry.path());
        }
    }
    let bus = PathBuf::from(format!("/run/user/{}", whose.uid));
    if Path::new("/run/systemd/system").exists() && bus.join("bus").exists() {
        let mut list = place.command("systemctl");
        list.args(["--user", "list-units", "--all", "--plain", "--no-legend", "sandbox*"]).env("XDG_RUNTIME_DIR", &bus);
        for line in finish(list.spawn().expect("systemctl"), b"").stdout.lines() {
            put("unit", line.split_whitespace().collect::<Vec<_>>().join(" "), String::new());
        }
    }

    for kind in ["shm", "sem", "msg"] {
        let table = read(format!("/proc/sysvipc/{kind}"));
        let mut lines = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        let names = lines.next().unwrap_or_default();
        let column = |line: &[&str], name: &str| names.iter().position(|n| *n == name).and_then(|n| line.get(n).map(|w| w.to_string()));
        for line in lines.filter(|line| ["uid", "cuid"].iter().any(|name| whose.says(column(line, name).as_deref()))) {
            put("System V", format!("{kind} {}", column(&line, &format!("{kind}id")).unwrap_or_default()), String::new());
        }
    }
    for entry in entries("/dev/pts").filter(|e| e.metadata().is_ok_and(|m| whose.has(m.uid()))) {
        put("terminal", entry.path().display().to_string(), String::new());
    }
    for line in read("/proc/key-users").lines() {
        let mut words = line.split_whitespace();
        let (uid, keys) = (words.next().and_then(|w| w.strip_suffix(':')), words.nth(1).unwrap_or("0/0"));
        if whose.says(uid) && !keys.starts_with("0/") {
            put("keys", format!("of {}", uid.unwrap_or("")), keys.to_string());
        }
    }
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        for line in read(format!("/proc/self/net/{table}")).lines().map(|l| l.split_whitespace().collect::<Vec<_>>()) {
            if whose.says(line.get(7).copied()) {
                put("socket", format!("{table} {} {}", line[1], line[9]), String::new());
            }
        }
    }
    for line in read("/proc/self/net/unix").lines().map(|l| l.split_whitespace().collect::<Vec<_>>()) {
        // __SO_ACCEPTCON: it listens. kernel: net/unix/af_unix.c unix_seq_show()
        let Some(path) = line.get(7).filter(|_| line[3] == "00010000") else { continue };
        if theirs.iter().any(|dir| path.starts_with(dir)) || path.starts_with("@sandbox") {
            put("socket", format!("unix {path} {}", line[6]), String::new());
        }
    }
    let files = inodes(place);
    for line in locks().lines() {
        let words: Vec<_> = line.split_whitespace().filter(|w| *w != "->").collect();
        let [_, kind, _, access, pid, file, ..] = words[..] else { continue };
        // The one who took a lock may be gone, and somebody else hold it: by a descriptor that was passed on.
        let path = file.rsplit_once(':').and_then(|(_, inode)| files.get(&inode.parse().ok()?));
        if path.is_some() || pid.parse().is_ok_and(|pid| pids.contains(&pid)) {
            put("lock", format!("{kind} {access} {file} of {pid}"), path.map(|p| p.display().to_string()).unwrap_or_default());
        }
    }
    things
}

/// The kernel hands this list out in pieces, and what is unlocked between two of them hides another: it counts once it is read twice alike.
fn locks() -> String {
    let mut last = read("/proc/locks");
    for _ in 0..20 {
        let now = read("/proc/locks");
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// What is in a file system of the kernel's that is the same wherever it is mounted; here it is mounted nowhere.
fn own_mount(kind: &'static std::ffi::CStr) -> Vec<std::fs::DirEntry> {
    static MOUNTS: OnceLock<BTreeMap<&std::ffi::CStr, Option<OwnedFd>>> = OnceLock::new();
    let all = MOUNTS.get_or_init(|| [c"fusectl", c"mqueue"].map(|kind| (kind, sandbox::sys::mount::filesystem(kind, [].into_iter(), 0).ok())).into());
    all[kind].iter().flat_map(|mount| entries(format!("/proc/self/fd/{}", mount.as_raw_fd()))).collect()
}

/// Where an account may have files.
fn roots(place: &Place) -> Vec<PathBuf> {
    let whose = Whose::of(&place.account);
    let shared = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/run/user"];
    let own = shared.iter().flat_map(entries).filter(|e| e.metadata().is_ok_and(|m| whose.has(m.uid()))).map(|e| e.path());
    let elsewhere = place.env.iter().filter(|(name, _)| name.starts_with("XDG_")).map(|(_, dir)| PathBuf::from(dir));
    let mut roots: Vec<PathBuf> =
        own.chain([place.account.home.clone()]).chain(elsewhere.filter(|dir| !dir.starts_with(&place.account.home))).collect();
    roots.sort();
    roots.dedup();
    roots
}

fn disk(place: &Place) -> Things {
    let mut things = Things::new();
    for root in roots(place) {
        walk(&root, &mut |path, meta| {
            // A filter that is compiled stays for the next run with the same.
            let filter = path.parent().is_some_and(|p| p.ends_with(".cache/sandbox")) && path.extension().is_some_and(|e| e == "bpf");
            // What happened was written down, within bounds.
            let events = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".events"));
            if filter || events {
                return false;
            }
            things.insert(format!("file {}", path.display()), format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), content(path, meta)));
            true
        });
    }
    things
}

fn inodes(place: &Place) -> BTreeMap<u64, PathBuf> {
    let mut inodes = BTreeMap::new();
    for root in roots(place) {
        walk(&root, &mut |path, meta| {
            inodes.insert(meta.ino(), path.to_path_buf());
            true
        });
    }
    inodes
}

/// Everything at and below a path; what is shown false is not gone into.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path, &std::fs::Metadata) -> bool) {
    // It may vanish as we look.
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if visit(path, &meta) && meta.is_dir() {
        entries(path).for_each(|entry| walk(&entry.path(), visit));
    }
}

fn content(path: &Path, meta: &std::fs::Metadata) -> String {
    if meta.is_symlink() {
        return format!("{:?}", std::fs::read_link(path).ok());
    }
    if !meta.is_file() {
        return String::new();
    }
    format!("{} bytes {:x?}", meta.len(), sha2::Sha256::digest(std::fs::read(path).unwrap_or_default()).as_slice())
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo")
}

/// The host's mounts before the first run.
pub fn host_mounts() -> &'static str {
    static MOUNTS: OnceLock<String> = OnceLock::new();
    MOUNTS.get_or_init(mounts)
}

impl Place {
    /// Processes of this test: those that know its home, by an argument or a variable. And every PID 1 without its parent, whose
    /// variables only root may read, and which says no arguments.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let token = self.home.as_os_str().as_encoded_bytes();
        let mut list = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (cmdline, environ) = (read("cmdline"), read("environ"));
            let has = |bytes: &[u8]| bytes.windows(token.len()).any(|w| w == token);
            let status = || std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let orphan = || {
                let parent = status().lines().find_map(|l| l.strip_prefix("PPid:")).unwrap_or("0").trim().to_string();
                !std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default().starts_with("sandbox")
            };
            if has(&cmdline) || has(&environ) || (cmdline.starts_with(b"sandbox-init\0") && orphan()) {
                let stat = status();
                let state = stat.lines().find(|l| l.starts_with("State")).unwrap_or("").to_string();
                list.push((pid, format!("{} ({state})", String::from_utf8_lossy(&cmdline).replace('\0', " "))));
            }
        }
        list
    }

    /// Does nobody else use this account?
    pub fn is_alone(&self) -> bool {
        self.lent.is_some()
    }

    /// All processes of an account of its own.
    pub fn pids(&self) -> Vec<u32> {
        let whose = Whose::of(&self.account);
        let theirs = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = read(entry.path().join("status"));
            status.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_whitespace().any(|uid| whose.says(Some(uid))).then_some(pid)
        };
        if self.is_alone() { entries("/proc").filter_map(theirs).collect() } else { Vec::new() }
    }

    /// What the first detached sandbox makes, and stays, is there; and nobody of it is any more.
    pub fn warm_detached(&self) {
        self.sandbox(&["run", "-d", "--rm", "--", "true"]).ok();
        assert!(within(Duration::from_secs(5), || self.pids().is_empty() && self.sandbox(&["ps", "-aq"]).ok().is_empty()));
    }

    /// Kill what is this test's; in an account of its own all.
    pub fn end_all(&self) {
        for pid in self.processes().into_iter().map(|(pid, _)| pid).chain(self.pids()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// *left*, as well as it can be seen in an account that many tests share: no process, no mount, no file of ours in shared places.
    #[track_caller]
    pub fn nothing_left(&self) {
        let mut last = Vec::new();
        let gone = within(AFTER_KILL, || {
            last = self.processes();
            last.is_empty()
        });
        assert!(gone, "processes are left: {last:#?}");
        let token = self.home.display().to_string();
        let mounts = mounts();
        let ours: Vec<_> = mounts
            .lines()
            .filter(|l| !host_mounts().contains(l) && (l.contains(&token) || (l.contains("/sandbox") && !l.contains("/sandbox-it-"))))
            .collect();
        assert!(ours.is_empty(), "mounts are left: {ours:#?}");
        for entry in ["/tmp", "/var/tmp", "/dev/shm", "/run"].into_iter().flat_map(entries) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = name.starts_with("sandbox-it-");
            // What the host's root has there may be anybody's.
            let ours = self.account.uid != 0 && name.contains("sandbox") && entry.metadata().is_ok_and(|m| m.uid() == self.account.uid);
            assert!(known || !ours, "{} is left", entry.path().display());
        }
    }

    /// *canary*: everything below a directory, as it is.
    pub fn snapshot(&self, name: &str) -> Snapshot {
        Snapshot::of(&self.path(name))
    }
}

/// Kind, mode, owner, times and content of every file below a directory. Our own cache is not counted.
#[derive(PartialEq, Eq)]
pub struct Snapshot(PathBuf, Things);

impl Snapshot {
    pub fn len(&self) -> usize {
        self.1.len()
    }

    pub fn of(dir: &Path) -> Snapshot {
        let mut files = Things::new();
        walk(dir, &mut |path, meta| {
            if path.ends_with(".cache") {
                return false;
            }
            // The home itself gets ~/.cache, so its own time says nothing.
            let time = if path == dir { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
            let line = format!("{:o} {}:{} ino {} at {time:?} {}", meta.mode(), meta.uid(), meta.gid(), meta.ino(), content(path, meta));
            files.insert(path.display().to_string(), line);
            true
        });
        Snapshot(dir.to_path_buf(), files)
    }

    #[track_caller]
    pub fn unchanged(&self) {
        let changes = differences(&self.1, &Snapshot::of(&self.0).1);
        assert!(changes.is_empty(), "the host changed: {changes:#?}");
    }
}

/// Leave something, and see it named; take it away, and see that all is as before.
#[track_caller]
fn planted<T>(left: &Left, kind: &str, names: &str, plant: impl FnOnce() -> T, clear: impl FnOnce(T)) {
    left.at_once();
    let thing = plant();
    let mut found = Vec::new();
    let is_named = |l: &String| l.starts_with(&format!("now {kind} ")) && l.contains(names);
    let named = within(Duration::from_secs(2), || {
        found = left.differences();
        found.iter().any(is_named)
    });
    assert!(named, "no {kind} '{names}' in {found:#?}");
    clear(thing);
    left.after_kill();
    left.at_once();
}

/// The same with a program that runs until it is killed.
#[track_caller]
fn planted_by(left: &Left, kind: &str, names: &str, script: &str) {
    let place = left.place;
    let mut command = place.command("sh");
    command.args(["-c", script]);
    let end = |mut child: Child| {
        place.end_all();
        child.wait().unwrap();
    };
    planted(left, kind, names, || place.start(command, "ready"), end);
}

#[test]
fn processes_are_seen() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    place.file("held", "");
    let left = Left::before(&place);
    planted_by(&left, "process", "sleep", "echo ready; exec sleep 60");
    planted_by(&left, "process", "(zombie)", "sleep 0.1 & (sleep 0.3; echo ready) & exec sleep 60");
    planted_by(&left, "terminal", "/dev/pts/", "exec ./probe pty @30 -- sh -c 'exec sleep 60' & sleep 0.2; echo ready; wait");
    planted_by(&left, "lock", "held", "exec 9< held; flock 9; echo ready; exec sleep 60");
    // Nobody's but a subordinate id's.
    let (first, _) = subuids(&place.account).expect("subordinate ids");
    let uid = first + 7;
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let sleep = || Command::new("sleep").arg("60").uid(uid).stdin(Stdio::null()).spawn().unwrap();
    planted(&left, "process", &format!("uids {uid} {uid}"), sleep, kill);
    // One that was there before, and ends.
    let child = place.command("sleep").arg("60").spawn().unwrap();
    let left = Left::before(&place);
    kill(child);
    assert!(left.differences().iter().any(|l| l.starts_with("was process ")), "{:?}", left.differences());
}

#[test]
fn namespaces_and_mounts_are_seen() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    let left = Left::before(&place);
    for (kind, flag) in [("net", "n"), ("ipc", "i"), ("uts", "u"), ("user", ""), ("cgroup", "C"), ("pid", "pf"), ("mnt", "m")] {
        planted_by(&left, "namespace", &format!("{kind}:["), &format!("exec unshare -rU{flag} sh -c 'echo ready; exec sleep 60'"));
    }
    // Only by a descriptor.
    planted_by(
        &left,
        "namespace",
        "net:[",
        "mkfifo f; unshare -rUn sh -c 'echo x > f; exec sleep 60' & read x < f; exec 9< /proc/$!/ns/net; kill -9 $!; rm f; echo ready; exec sleep 60",
    );
    planted_by(&left, "mount", "/mnt", "exec unshare -rUm sh -c 'mount -t tmpfs planted /mnt && echo ready; exec sleep 60'");
    let at = place.dir("at");
    let umount = |()| assert!(Command::new("umount").arg(&at).status().unwrap().success());
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).arg(&at).status().unwrap().success());
    planted(&Left::before(&place), "mount", "planted", || mount(&["-t", "tmpfs", "planted"]), umount);
    // A connection whose server is gone, and then one whose mount is, too.
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    need!(device.is_ok(), "needs /dev/fuse");
    let device = device.unwrap();
    let options = format!("fd={},rootmode=40000,user_id={},group_id={}", device.as_raw_fd(), place.account.uid, place.account.gid);
    let options = std::ffi::CString::new(options).unwrap();
    let target = std::ffi::CString::new(at.display().to_string()).unwrap();
    planted(
        &Left::before(&place),
        "fuse connection",
        "",
        || rustix::mount::mount(c"planted", &target, c"fuse", rustix::mount::MountFlags::empty(), options.as_c_str()).unwrap(),
        umount,
    );
}

#[test]
fn ipc_keys_sockets_and_cgroups_are_seen() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    let left = Left::before(&place);
    let as_user = |program: &str, args: &[&str]| drop(place.command(program).args(args).output().unwrap());
    let probe = place.probe();
    let key = std::process::id() as i32;
    let name = format!("probe-{key}");
    for (kind, names) in
        [("System V", "shm"), ("System V", "sem"), ("System V", "msg"), ("file", "/dev/shm/probe-"), ("message queue", name.as_str())]
    {
        planted(
            &left,
            kind,
            names,
            || as_user(&probe, &["ipc", &key.to_string()]),
            |()| {
                as_user("ipcrm", &["-M", &key.to_string(), "-S", &key.to_string(), "-Q", &key.to_string()]);
                std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
                for queue in own_mount(c"mqueue").into_iter().filter(|e| e.file_name() == *name) {
                    std::fs::remove_file(queue.path()).unwrap();
                }
            },
        );
    }
    planted_by(&left, "socket", "tcp ", "sleep 60 | ./probe listen-tcp 0");
    planted_by(
        &left,
        "socket",
        "/planted.sock",
        "sleep 60 | ./probe listen-unix $PWD/planted.sock >&2 & sleep 0.3; rm planted.sock; echo ready; wait",
    );
    // The keyring of a user stays, once there was a key in it; the key goes a moment later.
    as_user(&probe, &["key", "clear"]);
    std::thread::sleep(Duration::from_millis(300));
    let key_left = Left::before(&place);
    planted(&key_left, "keys", "of ", || as_user(&probe, &["key"]), |()| as_user(&probe, &["key", "clear"]));
    let group = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(|d| Path::new(d).join(format!("planted-{key}")))
        .into_iter()
        .find(|d| std::fs::create_dir(d).is_ok());
    need!(group.is_some(), "needs a writable cgroup hierarchy");
    let group = group.unwrap();
    planted(&Left::before(&place), "cgroup", "/planted", || give(&group, place.account.uid, 0), |()| std::fs::remove_dir(&group).unwrap());
}

#[test]
fn files_are_seen() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    let file = place.file("file", "one");
    let left = Left::before(&place);
    let changed = |plant: &dyn Fn(), clear: &dyn Fn()| planted(&left, "file", "/file: ", plant, |()| clear());
    changed(&|| std::fs::write(&file, "two").unwrap(), &|| std::fs::write(&file, "one").unwrap());
    changed(&|| mode(&file, 0o600), &|| mode(&file, 0o644));
    changed(&|| give(&file, place.account.uid, 0), &|| give(&file, place.account.uid, place.account.gid));
    changed(&|| drop(place.symlink("x", "file")), &|| {
        std::fs::remove_file(&file).unwrap();
        place.file("file", "one");
    });
    for at in [place.path(".local/share/sandbox"), "/tmp/planted-dir".into(), "/var/tmp/planted-dir".into(), "/dev/shm/planted-dir".into()] {
        let made = at.display().to_string();
        planted(
            &left,
            "file",
            &format!("{made}/x"),
            || {
                std::fs::create_dir_all(&at).unwrap();
                give(&at, place.account.uid, 0);
                std::fs::write(at.join("x"), "x").unwrap();
            },
            |()| {
                std::fs::remove_dir_all(&at).unwrap();
                let _ = std::fs::remove_dir_all(place.path(".local"));
            },
        );
    }
}

/// The judge finds no fault with an ordinary run.
#[test]
fn an_ordinary_run_leaves_nothing() {
    need!(root(), "needs root, to become another user");
    let place = alone();
    // What is made once, and stays: directories.
    place.sandbox(&["run", "--name", "warm", "--", "true"]).ok();
    let left = Left::before(&place);
    for flags in [&[][..], &["-t"], &["--name", "x"], &["-u", "0"], &["--userns", "nomap"], &["--security-opt", "nested"], &["--network", "host"]] {
        place.inside_with(flags, "touch /tmp/x ~/x 2>/dev/null; sleep 60 & (setsid sleep 60 &); exit 0").ok();
        left.at_once();
    }
}
