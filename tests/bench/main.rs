//! Start-up, idle cost, and how fast images come, beside what a user would take instead. Run by `cargo bench`; prints a table of ratios and their targets.
//!
//! Absolute times move from run to run and from machine to machine, ratios taken side by side in one run do not: so each two are
//! run in turns, and medians compared. As root the programs run as the user `sandboxtest` (made by tests/run). Never fails for being
//! slow, only if a program does not do its work.

mod images;
mod stay;

use sandbox::host::{Caller, caller};
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs of each program, after the warm-up.
const RUNS: usize = 200;
const WARM_UP: usize = 10;
const AT_ONCE: usize = 200;

/// The physical floor: one clone3 with every namespace, and exec. With arguments (the words of newuidmap after its first, `--`, those
/// of newgidmap) also the two helpers, at the same time: what a sandbox with several ids can at best cost on this machine.
const FLOOR: &str = r#"
#define _GNU_SOURCE
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t helper(const char *program, char *pid, char **words, int n)
{
    char *argv[64] = { (char *)program, pid }, *envp[] = { 0 };
    pid_t child;
    memcpy(argv + 2, words, n * sizeof *words);
    return posix_spawnp(&child, program, 0, 0, argv, envp) ? -1 : child;
}

int main(int argc, char **argv)
{
    struct clone_args args = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    int status, go[2], dashes = 1, bad = 0;
    char byte, word[16];
    pipe(go);
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        if (argc > 1)
            read(go[0], &byte, 1);
        execl("/bin/true", "true", (char *)0);
        _exit(127);
    }
    if (pid > 0 && argc > 1) {
        snprintf(word, sizeof word, "%d", pid);
        while (strcmp(argv[dashes], "--"))
            dashes++;
        pid_t uid = helper("newuidmap", word, argv + 1, dashes - 1);
        pid_t gid = helper("newgidmap", word, argv + dashes + 1, argc - dashes - 1);
        bad |= waitpid(uid, &status, 0) != uid || status != 0;
        bad |= waitpid(gid, &status, 0) != gid || status != 0;
        write(go[1], "x", 1);
    }
    return bad || pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
}
"#;

/// Who the programs run as.
struct User {
    uid: u32,
    gid: u32,
    home: PathBuf,
    /// We are root and step down.
    change: bool,
}

fn user() -> User {
    let me = Caller::me().expect("the caller");
    if me.uid != 0 {
        return User { uid: me.uid, gid: me.gid, home: me.home, change: false };
    }
    let passwd = std::fs::read("/etc/passwd").expect("/etc/passwd");
    match caller::passwd_lookup(&passwd, "sandboxtest") {
        Some(a) => User {
            uid: a.uid,
            gid: caller::group_lookup(&std::fs::read("/etc/group").unwrap_or_default(), "sandboxtest").unwrap_or(a.uid),
            home: a.home,
            change: true,
        },
        None => {
            println!("note: there is no user sandboxtest (tests/run makes it), so all of this runs as root\n");
            User { uid: 0, gid: 0, home: me.home, change: false }
        }
    }
}

/// A directory that the user owns, gone at the end.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Bench {
    user: User,
    place: Place,
}

/// A program with its arguments.
type Words = Vec<String>;

fn words(line: &str) -> Words {
    line.split_whitespace().map(str::to_string).collect()
}

fn has(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
}

impl Bench {
    fn new() -> Bench {
        let user = user();
        let place = Place(std::env::temp_dir().join(format!("sandbox-bench-{}", std::process::id())));
        std::fs::create_dir(&place.0).expect("a temporary directory");
        // The build's own directory may be closed to the user.
        std::fs::copy(env!("CARGO_BIN_EXE_sandbox"), place.0.join("sandbox")).expect("the program");
        let bench = Bench { user, place };
        bench.give(Path::new(""), 0o755);
        bench.give(Path::new("sandbox"), 0o755);
        bench
    }

    /// Make a path of our place the user's.
    fn give(&self, path: &Path, mode: u32) {
        let path = self.place.0.join(path);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        if self.user.change {
            chown(&path, Some(self.user.uid), Some(self.user.gid)).expect("chown");
        }
    }

    /// An empty directory of the user's.
    fn make(&self, name: &str) {
        std::fs::create_dir(self.path(name)).expect("a directory");
        self.give(Path::new(name), 0o755);
    }

    fn path(&self, name: &str) -> String {
        self.place.0.join(name).display().to_string()
    }

    fn command(&self, words: &Words) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.user.home).env_clear();
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", &self.user.home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if self.user.change {
            command.uid(self.user.uid).gid(self.user.gid);
        }
        command
    }

    fn spawn(&self, words: &Words) -> Child {
        self.command(words).spawn().unwrap_or_else(|e| panic!("cannot run {}: {e}", words[0]))
    }

    fn once(&self, words: &Words) -> Duration {
        let start = Instant::now();
        let out = self.spawn(words).wait_with_output().expect("wait");
        let took = start.elapsed();
        assert!(out.status.success(), "{} failed: {}", words.join(" "), String::from_utf8_lossy(&out.stderr));
        took
    }

    /// Medians of programs that run in turns.
    fn paired(&self, programs: &[&Words]) -> Vec<f64> {
        let mut times = vec![Vec::new(); programs.len()];
        for run in 0..WARM_UP + RUNS {
            for (program, times) in programs.iter().zip(&mut times) {
                let took = self.once(program);
                if run >= WARM_UP {
                    times.push(took);
                }
            }
        }
        times.into_iter().map(median).collect()
    }

    /// The time for many at the same time; all must do their work.
    fn at_once(&self, words: &Words) -> Duration {
        let start = Instant::now();
        let children: Vec<Child> = (0..AT_ONCE).map(|_| self.spawn(words)).collect();
        let failed: Vec<String> = children
            .into_iter()
            .map(|c| c.wait_with_output().expect("wait"))
            .filter(|out| !out.status.success())
            .map(|out| String::from_utf8_lossy(&out.stderr).into_owned())
            .collect();
        assert!(failed.is_empty(), "{} of {AT_ONCE} failed: {}", failed.len(), failed[0]);
        start.elapsed()
    }

    /// The user's processes, but for bubblewrap's own, which it leaves to the machine's init to reap.
    fn processes(&self) -> BTreeSet<u32> {
        let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(|e| e.ok());
        let of_user = |e: &std::fs::DirEntry| e.metadata().is_ok_and(|m| m.uid() == self.user.uid);
        let not_theirs = |e: &std::fs::DirEntry| std::fs::read_to_string(e.path().join("comm")).is_ok_and(|name| name != "bwrap\n");
        entries.filter(of_user).filter(not_theirs).filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    fn compile(&self, name: &str, source: &str) -> Option<String> {
        let (file, program) = (self.path(&format!("{name}.c")), self.path(name));
        std::fs::write(&file, source).expect("write");
        let done = Command::new("gcc").args(["-O2", "-static", "-o", &program, &file]).status();
        done.is_ok_and(|s| s.success()).then_some(program)
    }

    /// The id maps of a run, as words for `FLOOR`; None where there is one id only.
    fn maps(&self) -> Option<Words> {
        let dry = words(&format!("{} run --dry-run --json -- true", self.path("sandbox")));
        let out = self.command(&dry).stdout(Stdio::piped()).output().ok()?;
        let plan: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        let map = |key: &str| -> Words {
            plan[key].as_array().into_iter().flatten().flat_map(|e| e.as_array().cloned().unwrap_or_default()).map(|n| n.to_string()).collect()
        };
        let (uids, gids) = (map("uids"), map("gids"));
        (uids.len() > 3).then(|| [uids, words("--"), gids].concat())
    }

    /// A root directory of one program, as a bundle too.
    fn bundle(&self) -> Option<()> {
        ["bundle", "bundle/rootfs", "bundle/rootfs/bin", "run"].into_iter().for_each(|dir| self.make(dir));
        self.give(Path::new("run"), 0o700);
        let program = self.compile("true", "int main(void) { return 0; }")?;
        std::fs::copy(program, self.path("bundle/rootfs/bin/true")).ok()?;
        self.give(Path::new("bundle/rootfs/bin/true"), 0o755);
        Some(())
    }

    fn crun(&self) -> Option<Words> {
        if !has("crun") || self.user.uid == 0 {
            return None;
        }
        let made = self.command(&words("crun spec --rootless")).current_dir(self.path("bundle")).status().ok()?;
        let config = self.path("bundle/config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).ok().filter(|_| made.success())?).ok()?;
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["terminal"] = false.into();
        std::fs::write(&config, spec.to_string()).ok()?;
        let words = words(&format!("crun --cgroup-manager=disabled --root {} run -b {} bench", self.path("run"), self.path("bundle")));
        let works = self.command(&words).output().ok()?;
        if !works.status.success() {
            println!("note: crun does not run here: {}", String::from_utf8_lossy(&works.stderr).trim());
            return None;
        }
        Some(words)
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn ms(what: &str, ms: f64) {
    println!("  {what:<58} {ms:8.2} ms");
}

fn ratio(what: &str, value: f64, target: f64) {
    let mark = if value <= target { "" } else { "   MISSED" };
    println!("  {what:<58} {value:8.2}      at most {target}{mark}");
}

const FLOOR_MAPPED: &str = "C: the same, with newuidmap and newgidmap";
const BWRAP: &str = "bubblewrap, every namespace, host root read-only";
const SEALED: &str = "sandbox run --userns single --read-only --";

fn start_up(bench: &Bench, ours: &Words, bwrap: Option<&Words>) {
    println!("Start to exit of /bin/true, medians of {RUNS} runs in turns");
    let floor = bench.compile("floor", FLOOR).map(|p| vec![p]);
    let mapped = floor.as_ref().zip(bench.maps()).map(|(floor, maps)| [floor.clone(), maps].concat());
    let single = words(&format!("{} run --userns single -- /bin/true", ours[0]));
    let sealed = words(&format!("{} run --userns single --read-only -- /bin/true", ours[0]));
    let all: Vec<(&str, Words)> = [
        ("/bin/true alone", Some(words("/bin/true"))),
        ("C: one clone3 with every namespace, exec", floor),
        (FLOOR_MAPPED, mapped),
        (BWRAP, bwrap.cloned()),
        (SEALED, Some(sealed)),
        ("sandbox run --userns single --", Some(single)),
        ("sandbox run --", Some(ours.clone())),
    ]
    .into_iter()
    .filter_map(|(name, words)| Some((name, words?)))
    .collect();
    let times = bench.paired(&all.iter().map(|(_, w)| w).collect::<Vec<_>>());
    all.iter().zip(&times).for_each(|((name, _), time)| ms(name, *time));
    let time = |what: &str| all.iter().zip(&times).find(|((name, _), _)| *name == what).map(|(_, time)| *time);
    let Some(bwrap) = time(BWRAP) else { return };
    for (name, of) in [("C floor, with newuidmap and newgidmap", FLOOR_MAPPED), ("sandbox, one id, read-only", SEALED)] {
        if let Some(own) = time(of) {
            println!("  {:<58} {:8.2}", format!("{name} : bubblewrap"), own / bwrap);
        }
    }
    if let Some(own) = time("sandbox run --") {
        ratio("sandbox : bubblewrap", own / bwrap, 1.0);
    }
}

fn root_directory(bench: &Bench) {
    println!("\nThe same with a root directory of one program");
    if bench.bundle().is_none() {
        return println!("  (gcc makes no static program here)");
    }
    let ours = words(&format!("{} run --rootfs {} /bin/true", bench.path("sandbox"), bench.path("bundle/rootfs")));
    let crun = bench.crun();
    match &crun {
        Some(crun) => {
            let times = bench.paired(&[crun, &ours]);
            ms("crun run, rootless, no cgroup", times[0]);
            ms("sandbox run --rootfs", times[1]);
            ratio("sandbox : crun", times[1] / times[0], 0.6);
        }
        None => {
            ms("sandbox run --rootfs", bench.paired(&[&ours])[0]);
            println!("  (no crun to compare with)");
        }
    }
    image(bench, crun.as_ref());
    stay::stay(bench, crun.as_ref());
}

/// The same tree as an image.
fn image(bench: &Bench, crun: Option<&Words>) {
    println!("\nThe same tree as an image");
    let (sandbox, tar) = (bench.path("sandbox"), bench.path("bundle.tar"));
    let made = Command::new("tar").args(["-cf", &tar, "-C", &bench.path("bundle/rootfs"), "."]).status().is_ok_and(|s| s.success());
    bench.give(Path::new("bundle.tar"), 0o644);
    let bench_image = "localhost/sandbox-bench";
    let imported = bench.command(&words(&format!("{sandbox} import {tar} {bench_image}"))).status().is_ok_and(|s| s.success());
    if !made || !imported {
        return println!("  (the image could not be made)");
    }
    let ours = words(&format!("{sandbox} run {bench_image} /bin/true"));
    match crun {
        Some(crun) => {
            let times = bench.paired(&[crun, &ours]);
            ms("crun run, rootless, no cgroup", times[0]);
            ms("sandbox run IMAGE", times[1]);
            ratio("sandbox : crun", times[1] / times[0], 0.6);
        }
        None => {
            ms("sandbox run IMAGE", bench.paired(&[&ours])[0]);
            println!("  (no crun to compare with)");
        }
    }
    let _ = bench.command(&words(&format!("{sandbox} rmi -f {bench_image}"))).status();
}

fn many(bench: &Bench, ours: &Words, bwrap: Option<&Words>) {
    println!("\n{AT_ONCE} at once, medians of 5 rounds in turns");
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().count();
    let (processes, mounts_before) = (bench.processes(), mounts());
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        theirs.extend(bwrap.map(|w| bench.at_once(w)));
        own.push(bench.at_once(ours));
    }
    let own = median(own);
    ms("sandbox", own);
    if bwrap.is_some() {
        let theirs = median(theirs);
        ms("bubblewrap", theirs);
        ratio("sandbox : bubblewrap", own / theirs, 1.5);
    }
    std::thread::sleep(Duration::from_millis(200));
    let left = bench.processes().difference(&processes).count();
    ratio("processes and mounts left over", (left + mounts().saturating_sub(mounts_before)) as f64, 0.0);
}

/// Proportional set size in KiB. None: not ours to read, as that of an init which is not dumpable.
fn pss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|l| l.strip_prefix("Pss:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = children.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    children.into_iter().flat_map(|c| [vec![c], descendants(c)].concat()).collect()
}

fn memory(bench: &Bench) {
    println!("\nMemory of what stays beside an idle sandbox (proportional set size)");
    let idle: Words = [bench.path("sandbox").as_str(), "run", "--", "sleep", "60"].map(str::to_string).into();
    let mut child = bench.spawn(&idle);
    let command = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !descendants(child.id()).iter().any(|pid| command(pid) == "sleep\n") && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    let ours: Vec<u32> = [vec![child.id()], descendants(child.id())].concat().into_iter().filter(|pid| command(pid) != "sleep\n").collect();
    let sizes: Vec<Option<u64>> = ours.iter().map(|pid| pss(*pid)).collect();
    child.kill().expect("kill");
    child.wait().expect("wait");
    let known: u64 = sizes.iter().flatten().sum();
    println!("  {:<58} {:8}", "processes of ours", ours.len());
    ratio("MiB", known as f64 / 1024.0, 1.5);
    if sizes.contains(&None) {
        println!("  (without PID 1, which is not dumpable: only root may look)");
    }
}

/// crun 1.8 does not run where both versions of cgroups are mounted; it needs none here, so as root they are put out of sight.
fn without_hybrid_cgroups() {
    if Path::new("/sys/fs/cgroup/unified").exists() && Caller::me().is_ok_and(|c| c.uid == 0) && has("crun") {
        let script = "umount -R /sys/fs/cgroup && mount -t tmpfs none /sys/fs/cgroup; exec \"$0\"";
        let this = std::env::current_exe().expect("this program");
        let failed = Command::new("unshare").args(["--mount", "sh", "-c", script]).arg(this).exec();
        println!("note: cannot unshare: {failed}");
    }
}

fn main() {
    without_hybrid_cgroups();
    let bench = Bench::new();
    let ours: Words = [bench.path("sandbox").as_str(), "run", "--", "/bin/true"].map(str::to_string).into();
    let bwrap = has("bwrap").then(|| words("bwrap --unshare-all --ro-bind / / --dev /dev --proc /proc /bin/true"));
    if bwrap.is_none() {
        println!("note: no bubblewrap to compare with (apt-get install bubblewrap)\n");
    }
    start_up(&bench, &ours, bwrap.as_ref());
    root_directory(&bench);
    many(&bench, &ours, bwrap.as_ref());
    memory(&bench);
    images::load_and_pull(&bench);
}
