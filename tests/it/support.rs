//! What every test stands on: the program under test as an ordinary user would start it, a home of its own for each test, and the probe.
//! What judges is in oracle.rs.
//!
//! Run by root (CI) the tests become the user `sandboxtest`, who has subordinate ids; run by anybody else they stay who they are.

pub use crate::oracle::{Left, Snapshot};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No run of a test takes longer; what does is killed and fails.
pub fn watchdog() -> Duration {
    Duration::from_secs(30) * patience()
}

/// How many times slower than a machine this one is: `SANDBOX_PATIENCE`, set by tests/vm. Limits on waiting grow with it.
pub fn patience() -> u32 {
    std::env::var("SANDBOX_PATIENCE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Skips that are no failure under `SANDBOX_STRICT=1`: what a machine may lack without a hole in the tests.
const MAY_LACK: [&str; 5] = [
    "needs root, to become another user",
    "needs a file system with idmapped or quota support",
    "needs landlock scopes (Linux 6.12)",
    "needs landlock rules on TCP (Linux 6.7)",
    "needs a machine without cgroup v2",
];

/// Go on only if `condition` holds; else say so, with a reason that `SANDBOX_STRICT=1` does not take for an answer. Or, by name, only on a
/// machine that has this (`Need`): where it is missing the case is neither passed nor skipped, since `cargo vm --needed` runs it.
macro_rules! need {
    ($($need:ident),+) => {
        if $($crate::support::Need::$need.is_missing())||+ {
            return;
        }
    };
    ($condition:expr, $reason:expr) => {
        if !$condition {
            $crate::support::skip($reason);
            return;
        }
    };
}
pub(crate) use need;

/// What the booted machine of tests/vm has, and few machines where one writes programs. tests/vm finds the cases by `need!(NAME)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A manager of units, and one for each user.
    Systemd,
    /// The unified hierarchy, with a memory controller.
    CgroupV2,
    /// A machine that is there for the tests: sysctls, units and accounts may be changed, it may boot again.
    Machine,
}

impl Need {
    fn is_here(self) -> bool {
        match self {
            // Root may log in as anybody; others have the session that they are in.
            Need::Systemd => {
                let bus = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("bus").exists());
                Path::new("/run/systemd/system").exists() && (root() || bus)
            }
            Need::CgroupV2 => {
                std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|all| all.split_whitespace().any(|c| c == "memory"))
            }
            Need::Machine => in_vm(),
        }
    }

    /// And says so. In the VM nothing is missing.
    pub fn is_missing(self) -> bool {
        let missing = !self.is_here();
        if missing {
            let name = std::thread::current().name().unwrap_or("?").to_string();
            assert!(!in_vm(), "the VM has no {self:?}");
            let _ = writeln!(std::io::stderr(), "VM {name}: needs {self:?}");
        }
        missing
    }
}

/// Set by tests/vm alone.
fn in_vm() -> bool {
    std::env::var_os("SANDBOX_VM").is_some_and(|v| v == "1")
}

pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_string();
    assert!(std::env::var_os("SANDBOX_STRICT").is_none_or(|v| v != "1") || MAY_LACK.contains(&reason), "SKIP {name}: {reason} (SANDBOX_STRICT=1)");
    // Not captured by the test harness.
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {reason}");
}

/// Landlock's scopes, Linux 6.12: without them `--pid host` is refused.
pub fn scopes() -> bool {
    landlock() >= 6
}

pub fn landlock() -> u32 {
    sandbox::sys::confine::landlock_abi()
}

pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// An account that runs the program.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl Account {
    fn named(name: &str) -> Option<Account> {
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
        let field: Vec<_> = line.split(':').collect();
        Some(Account { name: name.into(), uid: field[2].parse().unwrap(), gid: field[3].parse().unwrap(), home: field[5].into() })
    }

    fn me() -> Account {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid.to_string())).and_then(|l| l.split(':').next());
        let name = name.expect("an account of the one who runs the tests").to_string();
        Account::named(&name).expect("own account")
    }
}

/// The accounts, made where root may make them.
pub struct Accounts {
    /// With subordinate ids.
    pub user: Account,
    /// Without.
    pub plain: Option<Account>,
    /// The other user on the machine.
    pub mallory: Option<Account>,
}

pub fn accounts() -> &'static Accounts {
    static ACCOUNTS: OnceLock<Accounts> = OnceLock::new();
    ACCOUNTS.get_or_init(|| {
        if !root() {
            return Accounts { user: Account::me(), plain: None, mallory: None };
        }
        let _making = making();
        let (user, plain, mallory) = (account("sandboxtest", &[]), account("sandboxplain", &["-r"]), account("sandboxmallory", &["-r"]));
        own_ids(&user);
        for file in IDS.map(|(file, _)| file) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            assert!(!text.lines().any(|l| l.starts_with("sandboxplain:")), "sandboxplain must have no line in {file}");
        }
        Accounts { user, plain: Some(plain), mallory: Some(mallory) }
    })
}

/// Who makes an account, or ids for one, is alone with it: other tests run at the same time.
fn making() -> File {
    let lock = File::create("/run/sandbox-it-accounts").expect("a lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("flock");
    lock
}

fn account(name: &str, flags: &[&str]) -> Account {
    Account::named(name).unwrap_or_else(|| {
        let made = Command::new("useradd").args(flags).args(["-m", "-s", "/bin/sh", name]).output().expect("useradd");
        Account::named(name).unwrap_or_else(|| panic!("cannot make the account {name}: {}", String::from_utf8_lossy(&made.stderr)))
    })
}

const IDS: [(&str, &str); 2] = [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")];

fn own_ids(account: &Account) {
    for (file, flag) in IDS {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if !text.lines().any(|l| l.split(':').next() == Some(&account.name)) {
            // Above every range that is there.
            let ends = text.lines().filter_map(|l| {
                let mut f = l.split(':').skip(1).map(|n| n.parse::<u64>().ok());
                Some(f.next()?? + f.next()??)
            });
            let start = ends.max().unwrap_or(0).max(100_000);
            let range = format!("{start}-{}", start + 65535);
            assert!(Command::new("usermod").args([flag, &range, &account.name]).status().expect("usermod").success());
        }
    }
}

/// An account, with subordinate ids, that is nobody else's as long as the file is open.
fn lend() -> (Account, File) {
    loop {
        for n in 1..=4 {
            let name = format!("sandboxalone{n}");
            let lent = File::create(format!("/run/sandbox-it-{name}")).expect("a lock");
            if rustix::fs::flock(&lent, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _making = making();
                let account = account(&name, &[]);
                own_ids(&account);
                mode(&account.home, 0o755);
                return (account, lent);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The first subordinate uid and how many there are.
pub fn subuids(account: &Account) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/subuid").ok()?;
    let line = text.lines().find(|l| l.split(':').next() == Some(&account.name))?;
    let mut numbers = line.split(':').skip(1).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// A directory that everybody may read, with the program and the probe; gone when this process ends.
pub fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        crate::oracle::host_mounts();
        let base = PathBuf::from(format!("/var/tmp/sandbox-it-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir(&base).expect("a directory for the program");
        mode(&base, 0o755);
        // Nobody tells us when the last test is over; the end of a pipe tells this shell.
        let mut sweeper = Command::new("sh");
        sweeper.args(["-c", "trap '' INT HUP TERM; read -r _; rm -rf \"$1\"", "sweeper"]).arg(&base);
        #[expect(clippy::zombie_processes, reason = "it outlives us on purpose: it cleans up when we are gone")]
        let sweeper = sweeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().expect("sh");
        std::mem::forget(sweeper.stdin);
        // In a booted machine there is no compiler. // tests/vm
        let built = std::env::var_os("SANDBOX_BUILT").map(PathBuf::from);
        let program = built.as_ref().map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sandbox")), |dir| dir.join("sandbox"));
        std::fs::copy(program, base.join("sandbox")).expect("copy the program");
        mode(&base.join("sandbox"), 0o755);
        if let Some(dir) = &built {
            std::fs::copy(dir.join("probe"), base.join("probe")).expect("copy the probe");
        } else {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/probe.c");
            let gcc = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(base.join("probe")).arg(source).output().expect("gcc");
            assert!(gcc.status.success(), "{}", String::from_utf8_lossy(&gcc.stderr));
        }
        mode(&base.join("probe"), 0o755);
        base
    })
}

pub fn program() -> PathBuf {
    base().join("sandbox")
}

pub fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(bits)).expect("chmod");
}

/// How a run ended, and what it said.
#[derive(Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    /// Without the next.
    pub stderr: String,
    /// The word on default limits that this machine cannot set: it is about the machine, and comes with every run.
    pub unlimited: Option<String>,
    pub took: Duration,
}

impl Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} after {:?}\n--- stdout\n{}\n--- stderr\n{}\n---", self.status, self.took, self.stdout, self.stderr)
    }
}

impl Output {
    /// The exit code, or 1000 and the signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 1000 + self.status.signal().unwrap_or(0))
    }

    /// It worked; what it printed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code(), 0, "{self:?}");
        self.stdout.trim_end_matches('\n')
    }

    /// One clear line and a cure: what every refusal of ours looks like.
    #[track_caller]
    pub fn refused(&self, says: &str) -> &Output {
        assert_eq!(self.code(), 125, "{self:?}");
        self.said(says)
    }

    /// The same without a word on the exit code.
    #[track_caller]
    pub fn said(&self, says: &str) -> &Output {
        let errors = self.stderr.lines().filter(|l| l.starts_with("error: ")).count();
        assert_eq!(errors, 1, "not exactly one error line: {self:?}");
        let hints = self.stderr.lines().filter(|l| l.trim_start().starts_with("hint: ")).count();
        assert!(hints <= 1, "more than one hint: {self:?}");
        assert!(self.stderr.contains(says), "no '{says}' in {self:?}");
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("RUST_BACKTRACE"), "{self:?}");
        self
    }

    #[track_caller]
    pub fn hinted(&self) -> &Output {
        assert!(self.stderr.contains("hint: "), "no hint: {self:?}");
        self
    }

    /// `name=value` lines of the probe.
    pub fn answers(&self) -> BTreeMap<String, String> {
        self.stdout.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Of the children of who stays with a sandbox its PID 1; who serves its files is another.
#[track_caller]
pub fn init_of(stays: u32) -> u32 {
    let is_init = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"sandbox-init\0"));
    children(stays).into_iter().find(is_init).expect("a PID 1")
}

/// Run to the end, or to the watchdog.
#[track_caller]
pub fn finish(mut child: Child, stdin: &[u8]) -> Output {
    let start = Instant::now();
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut readers = 0;
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>), child.stderr.take().map(|s| Box::new(s) as _)];
    for (index, stream) in streams.into_iter().enumerate() {
        if let Some(mut stream) = stream {
            readers += 1;
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes);
                let _ = sender.send((index, String::from_utf8_lossy(&bytes).into_owned()));
            });
        }
    }
    if let Some(mut pipe) = child.stdin.take() {
        let bytes = stdin.to_vec();
        std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    }
    let (status, in_time) = wait(&mut child);
    let mut texts = [String::new(), String::new()];
    let mut open = false;
    for _ in 0..readers {
        match receiver.recv_timeout(Duration::from_secs(5) * patience()) {
            Ok((index, text)) => texts[index] = text,
            Err(_) => open = true,
        }
    }
    let [stdout, mut stderr] = texts;
    let unlimited = stderr.find("sandbox: note: no limits on ").map(|at| {
        let end = stderr[at..].find('\n').map_or(stderr.len(), |n| at + n + 1);
        stderr.drain(at..end).collect()
    });
    let output = Output { status, stdout, stderr, unlimited, took: start.elapsed() };
    assert!(in_time, "the watchdog had to kill it: {output:?}");
    assert!(!open, "somebody still holds the output of a run that ended: {output:?}");
    output
}

fn wait(child: &mut Child) -> (ExitStatus, bool) {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return (status, true);
        }
        if start.elapsed() > watchdog() {
            let _ = child.kill();
            return (child.wait().expect("wait"), false);
        }
        std::thread::sleep(Duration::from_millis(if start.elapsed().as_millis() < 100 { 2 } else { 10 }));
    }
}

/// Ask until it holds, at most so long.
pub fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > limit * patience() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One test's place: a home of its own, with the probe in it, and nothing left over when it ends.
pub struct Place {
    pub account: Account,
    pub home: PathBuf,
    /// What each command starts with; a test may change it.
    pub env: BTreeMap<String, String>,
    session: bool,
    /// Its account is ours alone.
    pub(crate) lent: Option<File>,
}

pub fn place() -> Place {
    Place::of(accounts().user.clone())
}

/// A place in an account of its own, for *left* to judge. Only root can lend one; anybody else gets a `place()`.
pub fn alone() -> Place {
    if !root() {
        return place();
    }
    let (account, lent) = lend();
    let mut place = Place::of(account);
    place.lent = Some(lent);
    place.end_all(); // what a test that failed has left
    place
}

/// Cases whose subject is the kernel's own overlay, and why: they run on it, whatever `SANDBOX_TEST_BACKEND` says.
const THE_KERNELS: [(&str, &str); 1] = [("image::run::one_id_is_enough_for_an_image_of_one", "it names a backend itself")];

/// Flags for the overlay that `SANDBOX_TEST_BACKEND` names.
fn backend() -> Vec<String> {
    let case = std::thread::current().name().unwrap_or_default().to_string();
    let named = std::env::var("SANDBOX_TEST_BACKEND").ok().filter(|_| !case.starts_with("overlay::"));
    let named = named.filter(|_| !THE_KERNELS.iter().any(|(name, _)| *name == case));
    named.map(|backend| vec!["--overlay-backend".to_string(), backend]).unwrap_or_default()
}

/// Is that our own?
pub fn on_fuse() -> bool {
    backend().iter().any(|word| word == "fuse")
}

/// A place whose commands are run by a user who is logged in.
pub fn login() -> Place {
    place().login()
}

impl Place {
    pub fn of(account: Account) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Of one length, so that none is the beginning of another: `processes` looks for it.
        let name = format!("sandbox-it-{}-{:04}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let home = std::fs::canonicalize(&account.home).expect("the account's home").join(name);
        std::fs::create_dir(&home).expect("a home for the test");
        mode(&home, 0o755);
        // By another process: a descriptor of ours would be in programs that other tests are starting. man: execve(2), ETXTBSY
        assert!(Command::new("cp").arg(base().join("probe")).arg(&home).status().expect("cp").success(), "copy the probe");
        mode(&home.join("probe"), 0o755);
        let text = |p: &Path| p.display().to_string();
        let env = BTreeMap::from([
            ("PATH".to_string(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string()),
            ("HOME".to_string(), text(&home)),
            ("USER".to_string(), account.name.clone()),
            ("LOGNAME".to_string(), account.name.clone()),
            ("LANG".to_string(), "C.UTF-8".to_string()),
        ]);
        let place = Place { account, home, env, session: false, lent: None };
        place.own(&place.home);
        place.own(&place.home.join("probe"));
        place
    }

    /// From now on each command is a login of its own: a session by PAM and logind, with a runtime directory and a manager of the user's.
    pub fn login(mut self) -> Place {
        self.session = true;
        if !root() {
            // We are in the one there is.
            for name in ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"] {
                self.env.extend(std::env::var(name).ok().map(|value| (name.to_string(), value)));
            }
        }
        self
    }

    fn own(&self, path: &Path) {
        if root() {
            std::os::unix::fs::lchown(path, Some(self.account.uid), Some(self.account.gid)).expect("chown");
        }
    }

    pub fn probe(&self) -> String {
        self.home.join("probe").display().to_string()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The path as text.
    pub fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A file of the user's, with its directories.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = Path::new(name).parent().filter(|p| !p.as_os_str().is_empty()) {
            self.dir(&parent.display().to_string());
        }
        std::fs::write(&path, content).expect("write");
        mode(&path, 0o644);
        self.own(&path);
        path
    }

    /// What root made becomes the user's.
    pub fn own_all(&self, name: &str) {
        if root() {
            let owner = format!("{}:{}", self.account.uid, self.account.gid);
            assert!(Command::new("chown").args(["-hR", &owner]).arg(self.path(name)).status().expect("chown").success());
        }
    }

    pub fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.file(name, content);
        mode(&path, 0o755);
        path
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        let mut path = self.home.clone();
        for part in Path::new(name).components() {
            path.push(part);
            if std::fs::create_dir(&path).is_ok() {
                mode(&path, 0o755);
                self.own(&path);
            }
        }
        path
    }

    pub fn symlink(&self, target: impl AsRef<Path>, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).expect("symlink");
        self.own(&path);
        path
    }

    /// Any program as this user, in this home. After a login, variables are those of `env` alone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if self.session && root() {
            let mut su = Command::new("su");
            su.env_clear().args(["-l", "-c", r#"cd "$0" && exec env "$@""#, "--", &self.account.name]).arg(&self.home);
            su.args(self.env.iter().map(|(name, value)| format!("{name}={value}"))).arg(program);
            su
        } else {
            let mut command = Command::new(program);
            command.env_clear().envs(&self.env);
            if root() && self.account.uid != 0 {
                command.uid(self.account.uid).gid(self.account.gid);
            }
            command
        };
        command.current_dir(&self.home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The process of ours behind a child that was started here: after a login, `su` is between.
    #[track_caller]
    pub fn supervisor(&self, child: &Child) -> u32 {
        if !(self.session && root()) {
            return child.id();
        }
        let su = child.id();
        let read = || std::fs::read_to_string(format!("/proc/{su}/task/{su}/children")).unwrap_or_default();
        assert!(within(Duration::from_secs(5), || !read().trim().is_empty()), "su has no child");
        read().split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a child of su")
    }

    /// `sandbox ARGS`.
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.command(program());
        let mut args = args.iter().map(AsRef::as_ref);
        let verb = args.next();
        command.args(verb);
        if matches!(verb.and_then(OsStr::to_str), Some("run" | "create")) {
            command.args(backend());
        }
        command.args(args);
        command
    }

    #[track_caller]
    pub fn sandbox<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        finish(self.cli(args).spawn().expect("start"), b"")
    }

    /// PID 1 of a sandbox, by its name or ID, as its record says; without any command of ours.
    pub fn init_of(&self, word: &str) -> Option<u32> {
        let homes = [".local/share/sandbox", ".cache/sandbox/live"].map(|dir| self.path(dir).join("sandboxes"));
        homes.iter().flat_map(std::fs::read_dir).flatten().flatten().find_map(|e| {
            let read = |file: &str| serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(e.path().join(file)).ok()?).ok();
            let config = read("config.json")?;
            let pid = (config["name"] == word || config["id"] == word).then(|| read("state.json"))??["init"]["pid"].as_u64()?;
            u32::try_from(pid).ok()
        })
    }

    /// The command of a sandbox.
    pub fn command_of(&self, word: &str) -> Option<u32> {
        children(self.init_of(word)?).first().copied()
    }

    /// `sandbox run FLAGS -- sh -c SCRIPT`.
    #[track_caller]
    pub fn inside_with(&self, flags: &[&str], script: &str) -> Output {
        self.sandbox(&[&["run"], flags, &["--", "sh", "-c", script]].concat())
    }

    #[track_caller]
    pub fn inside(&self, script: &str) -> Output {
        self.inside_with(&[], script)
    }

    /// `sandbox run FLAGS -- probe CHECK`: its answers.
    #[track_caller]
    pub fn probed(&self, flags: &[&str], check: &[&str]) -> BTreeMap<String, String> {
        let probe = self.probe();
        let output = self.sandbox(&[&["run"], flags, &["--", &probe], check].concat());
        output.ok();
        output.answers()
    }

    /// Start, and wait until `word` is on its stdout; the rest of stdout stays to be read.
    #[track_caller]
    pub fn start(&self, mut command: Command, word: &str) -> Child {
        let mut child = command.spawn().expect("start");
        let mut seen = Vec::new();
        let stdout = child.stdout.as_mut().expect("stdout");
        let start = Instant::now();
        let mut byte = [0];
        while !String::from_utf8_lossy(&seen).contains(word) {
            assert!(start.elapsed() < watchdog(), "no '{word}' came");
            match stdout.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                _ => {
                    let mut why = String::new();
                    let _ = child.stderr.take().map(|mut s| s.read_to_string(&mut why));
                    let _ = child.kill();
                    panic!("no '{word}' came, only {:?}; {:?}; {why}", String::from_utf8_lossy(&seen), child.wait());
                }
            }
        }
        child
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nothing_left();
        }
        self.end_all();
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.home).stderr(Stdio::null()).status();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A secret that must never be readable inside.
pub fn canary(place: &Place) -> PathBuf {
    let dir = place.dir("canary");
    place.file("canary/secret", "CANARY-4711");
    place.file("canary/sub/file", "CANARY-4712");
    dir
}

/// A root directory to run in: a shell, the usual tools, and the libraries they need.
pub fn tiny_root(place: &Place, name: &str) -> PathBuf {
    static MASTER: OnceLock<PathBuf> = OnceLock::new();
    let master = MASTER.get_or_init(|| {
        let master = base().join("tiny");
        for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "home", "run", "var", "lib", "lib64", "usr"] {
            std::fs::create_dir_all(master.join(dir)).unwrap();
        }
        std::fs::write(master.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/sh\n").unwrap();
        std::fs::write(master.join("etc/group"), "root:x:0:\nbob:x:1000:\nextra:x:2000:bob\n").unwrap();
        let mut wanted: Vec<PathBuf> = [
            "sh", "cat", "ls", "id", "touch", "mkdir", "rm", "stat", "readlink", "chown", "env", "sleep", "true", "false", "mv", "grep", "ln",
            "head", "wc",
        ]
        .iter()
        .map(|tool| {
            let found = ["/bin", "/usr/bin"].iter().map(|d| Path::new(d).join(tool)).find(|p| p.exists());
            found.unwrap_or_else(|| panic!("no {tool} on this machine"))
        })
        .collect();
        let mut done = std::collections::BTreeSet::new();
        while let Some(file) = wanted.pop() {
            if !done.insert(file.clone()) {
                continue;
            }
            let ldd = Command::new("ldd").arg(&file).output().expect("ldd");
            let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
            let libraries = text.split_whitespace().filter(|w| w.starts_with('/')).map(|w| PathBuf::from(w.trim_end_matches(':')));
            wanted.extend(libraries.filter(|l| *l != file));
            let place = match file.parent().and_then(|p| p.file_name()).and_then(|n| n.to_str()) {
                Some("bin") => master.join("bin").join(file.file_name().unwrap()),
                _ => master.join(file.strip_prefix("/").unwrap()),
            };
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(&file, &place).unwrap();
        }
        std::fs::copy(base().join("probe"), master.join("bin/probe")).unwrap();
        master
    });
    let dir = place.path(name);
    assert!(Command::new("cp").args(["-r", "--no-preserve=ownership"]).arg(master).arg(&dir).status().unwrap().success());
    if root() {
        assert!(Command::new("chown").args(["-Rh", &format!("{}:{}", place.account.uid, place.account.gid)]).arg(&dir).status().unwrap().success());
    }
    dir
}

/// Give a file to another id of the host; root's right.
pub fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).expect("chown");
}
