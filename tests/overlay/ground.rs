//! Where these tests stand: a process of the user `sandboxtest` that is root in a user namespace with all of its subordinate ids, PID 1
//! of a PID namespace, with mounts of its own. So it may mount, own files of many ids, and leaves nothing behind when it dies.
//! The program is executed again for each step there; also used by tests/bench/overlay.rs.

use crate::calls;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STAGE: &str = "OVERLAY_STAGE";
const BASE: &str = "OVERLAY_BASE";

/// Variables that go through all the steps.
const KEPT: [&str; 14] = [
    "OVERLAY_LIMIT",
    "OVERLAY_OURS",
    "OVERLAY_OPTIONS",
    "OVERLAY_OPS",
    "OVERLAY_SEED",
    "OVERLAY_KILLS",
    "OVERLAY_SECONDS",
    "OVERLAY_FILES",
    "OVERLAY_DISK",
    "OVERLAY_RUNS",
    "SANDBOX_STRICT",
    "RUST_BACKTRACE",
    "OVERLAY_LOG",
    "OVERLAY_MEGABYTES",
];

/// The number that a variable says.
pub fn knob(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |n| n.replace('_', "").parse().unwrap_or_else(|_| panic!("{name}: not a number: {n}")))
}

/// Where everything is: the program under test, and `tmp`, a tmpfs of ours.
pub fn base() -> PathBuf {
    PathBuf::from(std::env::var_os(BASE).expect("set by the first step"))
}

/// An empty directory on the tmpfs.
pub fn fresh(name: &str) -> PathBuf {
    let path = base().join("tmp").join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("remove");
    }
    std::fs::create_dir_all(&path).expect("a directory");
    path
}

/// Do it there; the exit code.
pub fn enter(inside: fn() -> i32) -> i32 {
    match std::env::var(STAGE).as_deref() {
        Err(_) => begin(),
        Ok("mapped") => mapped(),
        Ok("inside") => {
            prepare();
            inside()
        }
        Ok(other) => panic!("no step {other}"),
    }
}

fn again(stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(STAGE, stage);
    command
}

fn field(file: &str, name: &str, at: usize) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find(|l| l.split(':').next() == Some(name))?.split(':').nth(at)?.parse().ok()
}

/// Why it cannot be done here; under `SANDBOX_STRICT=1` that is a failure.
fn skip(reason: &str) -> i32 {
    println!("SKIP overlay: {reason}");
    i32::from(std::env::var_os("SANDBOX_STRICT").is_some_and(|v| v == "1"))
}

/// As root or an ordinary user, on the host: a place for the programs, the namespace and its maps, and all of it gone at the end.
fn begin() -> i32 {
    let me = rustix::process::geteuid().as_raw();
    let name = if me == 0 {
        "sandboxtest".to_string()
    } else {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let own = passwd.lines().find(|l| l.split(':').nth(2) == Some(&me.to_string()));
        own.and_then(|l| l.split(':').next()).unwrap_or_default().to_string()
    };
    let (Some(uid), Some(gid)) = (field("/etc/passwd", &name, 2), field("/etc/passwd", &name, 3)) else {
        return skip("needs the user sandboxtest (tests/run makes it)");
    };
    let ranges = ["/etc/subuid", "/etc/subgid"].map(|file| Some((field(file, &name, 1)?, field(file, &name, 2)?)));
    let [Some(uids), Some(gids)] = ranges else { return skip("needs subordinate ids") };

    let base = PathBuf::from(format!("/var/tmp/sandbox-overlay-{}", std::process::id()));
    std::fs::create_dir(&base).expect("a directory for the programs");
    let sweep = Sweep(base.clone());
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("chmod");
    for (from, to) in [(PathBuf::from(env!("CARGO_BIN_EXE_sandbox")), "sandbox"), (std::env::current_exe().expect("our own path"), "overlay")] {
        std::fs::copy(from, base.join(to)).expect("copy a program");
        std::fs::set_permissions(base.join(to), PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    for dir in ["tmp", "disk", "rust"] {
        std::fs::create_dir(base.join(dir)).expect("a directory");
        if me == 0 {
            chown(base.join(dir), Some(uid), Some(gid)).expect("chown");
        }
    }
    if me == 0 {
        // Only our children see it: the compiler, which root may have in its own home.
        calls::unshare(libc::CLONE_NEWNS).expect("unshare");
        calls::mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").expect("private mounts");
        if let Some(sysroot) = printed("rustc", &["--print", "sysroot"]) {
            let _ = calls::mount(&sysroot, &base.join("rust").display().to_string(), "", libc::MS_BIND, "");
        }
    }

    let mut command = again("mapped");
    command.env_clear().env(STAGE, "mapped").env(BASE, &base).env("HOME", base.join("tmp")).env("LANG", "C.UTF-8");
    command.env("PATH", format!("{}/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", base.display()));
    command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.current_dir(&base).stdin(Stdio::piped()).stdout(Stdio::piped());
    let become_user = |command: &mut Command| {
        if me == 0 {
            command.uid(uid).gid(gid);
        }
    };
    let program = base.join("overlay");
    let mut mapped = Command::new(program);
    mapped.args(command.get_args()).env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(&base);
    mapped.stdin(Stdio::piped()).stdout(Stdio::piped());
    become_user(&mut mapped);
    let mut child = mapped.spawn().expect("start the second step");
    let mut said = child.stdout.take().expect("a pipe");
    let mut byte = [0];
    if said.read(&mut byte).unwrap_or(0) == 0 {
        let _ = child.wait();
        return skip("needs user namespaces");
    }
    for (helper, own, (start, count)) in [("newuidmap", uid, uids), ("newgidmap", gid, gids)] {
        let numbers = [child.id(), 0, own, 1, 1, start, count.min(65535)].map(|n| n.to_string());
        let mut command = Command::new(helper);
        become_user(command.args(numbers));
        if !command.status().is_ok_and(|s| s.success()) {
            let _ = child.kill();
            let _ = child.wait();
            return skip("needs newuidmap and newgidmap (package uidmap)");
        }
    }
    child.stdin.take().expect("a pipe").write_all(b"m").expect("tell it");
    let mut out = std::io::stdout();
    let _ = std::io::copy(&mut said, &mut out);
    let status = child.wait().expect("wait");
    drop(sweep);
    status.code().unwrap_or(1)
}

struct Sweep(PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        let rust = self.0.join("rust").display().to_string();
        let _ = calls::umount(&rust, libc::MNT_DETACH);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn printed(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).stderr(Stdio::null()).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// In the new user namespace, until its maps are written; then its root, and the parent of the last step.
fn mapped() -> i32 {
    if calls::unshare(libc::CLONE_NEWUSER).is_err() {
        return 1;
    }
    let mut out = std::io::stdout();
    out.write_all(b"u").and_then(|()| out.flush()).expect("tell the parent");
    let mut byte = [0];
    if std::io::stdin().read(&mut byte).unwrap_or(0) == 0 {
        return 1;
    }
    calls::set_ids(0, 0).expect("become root");
    calls::die_with_parent();
    calls::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID).expect("unshare");
    let status = again("inside").stdin(Stdio::null()).status().expect("start the last step");
    status.code().unwrap_or(1)
}

/// PID 1: mounts of its own.
fn prepare() {
    calls::die_with_parent();
    calls::umask(0);
    calls::mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").expect("private mounts");
    calls::mount("proc", "/proc", "proc", libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC, "").expect("procfs");
    let tmp = base().join("tmp");
    if std::env::var_os("OVERLAY_DISK").is_none() {
        calls::mount("tmpfs", &tmp.display().to_string(), "tmpfs", 0, "mode=755,size=8g,nr_inodes=0").expect("tmpfs");
    }
    assert_eq!(std::fs::metadata(&tmp).expect("tmp").uid(), 0);
}

/// A program is there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).exists())
}
