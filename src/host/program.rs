//! Programs of the host that we run: found by absolute path in trusted places only, and run with an environment made from nothing.
//!
//! Called by `userns` (newuidmap, newgidmap), `caller` (getent), `subid` (getsubids) and `image::registry` (docker-credential-*). Never looks at PATH, and never believes a
//! file that somebody other than root could have put or changed there. // I2

use super::remedy::Missing;
use crate::error::{Doing, Error, Kind, Result};
use rustix::fs::{FileType, Mode, Stat, StatVfsMountFlags};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In this order: where distributions put them, then what the administrator added, then NixOS (set-uid wrappers first) and Guix.
const PLACES: [&str; 8] = [
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
    "/run/wrappers/bin",
    "/run/current-system/sw/bin",
    "/run/privileged/bin",
    "/run/setuid-programs",
    "/run/current-system/profile/bin",
];
/// How an id without a mapping is shown. man: user_namespaces(7)
const OVERFLOW: u32 = 65_534;
const ANSWER_LIMIT: usize = 64 << 10;

/// Why a file is not the program that we want.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Absent,
    Untrusted(PathBuf),
    /// Its owner has no id here: we are in a user namespace without the host's root.
    Unmapped,
    NotSetuid,
    Nosuid,
    NoNewPrivileges,
}

/// Where `name` (newuidmap, newgidmap, getsubids, getent) is. The first two must be able to gain privileges. What was found once is believed: only
/// root can change it.
pub fn helper(name: &str) -> Result<PathBuf> {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.get(name) {
        return Ok(path.clone());
    }
    let path = find(name)?;
    found.insert(name.to_string(), path.clone());
    Ok(path)
}

fn find(name: &str) -> Result<PathBuf> {
    let privileged = matches!(name, "newuidmap" | "newgidmap");
    let mut first = None;
    for place in PLACES {
        let path = Path::new(place).join(name);
        match examine(&path, privileged) {
            Ok(()) => return Ok(path),
            Err(Fault::Absent) => {}
            Err(fault) => {
                first.get_or_insert((path, fault));
            }
        }
    }
    let gid = name == "newgidmap";
    Err(match first {
        None | Some((_, Fault::Absent)) => match name {
            "newuidmap" => Missing::NewuidmapMissing.error("cannot run newuidmap: it is not installed"),
            "newgidmap" => Missing::NewgidmapMissing.error("cannot run newgidmap: it is not installed"),
            _ => Error::new(Kind::Unsupported, format!("cannot run {name}: it is in none of the trusted places"))
                .hint(format!("install it in {}", PLACES.first().unwrap_or(&"/usr/bin"))),
        },
        Some((path, Fault::Untrusted(part))) => {
            let (path, part) = (path.display(), part.display());
            Error::new(Kind::Unsupported, format!("cannot run {path}: {part} does not belong to root, or others may write to it"))
                .hint(format!("as root: chown root {part} && chmod go-w {part}"))
        }
        Some((path, Fault::Unmapped)) => {
            Missing::OuterUserns.error(format!("cannot use {}: its owner has no id in the user namespace that we are in", path.display()))
        }
        Some((path, Fault::NotSetuid)) => {
            let missing = if gid { Missing::NewgidmapNotSetuid } else { Missing::NewuidmapNotSetuid };
            missing.error(format!("cannot use {}: it is neither set-uid root nor has it file capabilities", path.display()))
        }
        Some((path, Fault::Nosuid)) => Missing::NosuidMount.error(format!("cannot use {}: its file system is mounted nosuid", path.display())),
        Some((path, Fault::NoNewPrivileges)) => {
            Missing::NoNewPrivsOuter.error(format!("cannot use {}: whoever started us set no_new_privs", path.display()))
        }
    })
}

fn examine(path: &Path, privileged: bool) -> Result<(), Fault> {
    let stat = trusted(path, 0)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_mode & 0o111 == 0 {
        return Err(Fault::Absent);
    }
    if !privileged || rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let setuid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SUID);
    if !setuid && rustix::fs::getxattr_query(path, "security.capability").is_err() {
        return Err(Fault::NotSetuid);
    }
    if rustix::thread::no_new_privs().unwrap_or(false) {
        return Err(Fault::NoNewPrivileges);
    }
    if rustix::fs::statvfs(path).is_ok_and(|v| v.f_flag.contains(StatVfsMountFlags::NOSUID)) {
        return Err(Fault::Nosuid);
    }
    Ok(())
}

/// Walk `path` as the kernel would, links included, and look at every step: only `owner` may have a say in what it finally is.
fn trusted(path: &Path, owner: u32) -> Result<Stat, Fault> {
    fn push(todo: &mut Vec<OsString>, path: &Path) {
        todo.extend(path.components().rev().filter(|c| !matches!(c, Component::CurDir)).map(|c| c.as_os_str().to_os_string()));
    }
    let mut todo = Vec::with_capacity(16);
    push(&mut todo, path);
    let (mut at, mut found, mut links) = (PathBuf::from("/"), None, 0);
    while let Some(part) = todo.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let stat = rustix::fs::lstat(&at).map_err(|_| Fault::Absent)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // In a sticky directory others may add names, but not take away root's. (/nix/store is one.)
        let open = kind != FileType::Symlink && stat.st_mode & 0o022 != 0 && !(kind == FileType::Directory && stat.st_mode & 0o1000 != 0);
        if stat.st_uid == OVERFLOW && owner != OVERFLOW {
            return Err(Fault::Unmapped);
        }
        if stat.st_uid != owner || open {
            return Err(Fault::Untrusted(at));
        }
        if kind == FileType::Symlink {
            links += 1;
            let target = std::fs::read_link(&at).map_err(|_| Fault::Absent)?;
            if links > 40 {
                return Err(Fault::Absent);
            }
            at.pop();
            push(&mut todo, &target);
        }
        found = Some(stat);
    }
    found.ok_or(Fault::Absent)
}

#[derive(Debug)]
pub struct Answer {
    pub success: bool,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Run `name` and return what it says, or an error after `patience`. Nothing of our environment, directory or descriptors goes along.
pub fn ask(name: &str, args: &[&str], patience: Duration) -> Result<Answer> {
    run(&helper(name)?, args, &[], b"", patience)
}

/// The same for a program that is told something on its stdin, at most 4 KiB, and that finds these variables of ours.
pub fn tell(name: &str, args: &[&str], pass: &[&str], stdin: &[u8], patience: Duration) -> Result<Answer> {
    run(&helper(name)?, args, pass, stdin, patience)
}

fn run(path: &Path, args: &[&str], pass: &[&str], stdin: &[u8], patience: Duration) -> Result<Answer> {
    let deadline = Instant::now() + patience;
    let mut command = Command::new(path);
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
    command.envs(pass.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
    let input = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().doing("run", path.display())?;
    if let Some(mut pipe) = child.stdin.take() {
        // It fits into the pipe; one who does not read it is no error.
        let _ = pipe.write_all(stdin.get(..4096).unwrap_or(stdin));
    }
    let stdout = child.stdout.take().map(|mut pipe| drain(&mut pipe, deadline)).unwrap_or_default();
    let stderr = child.stderr.take().map(|mut pipe| drain(&mut pipe, deadline)).unwrap_or_default();
    loop {
        if let Some(status) = child.try_wait().doing("wait for", path.display())? {
            return Ok(Answer { success: status.success(), stdout, stderr });
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Error::new(Kind::Io, format!("cannot wait longer for {}: no answer in {} s", path.display(), patience.as_secs_f32())))
}

/// What comes until the end, the deadline or the limit.
fn drain(pipe: &mut (impl Read + std::os::fd::AsFd), deadline: Instant) -> Vec<u8> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < ANSWER_LIMIT {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut poll = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut poll, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) | Ok(0) => break,
            Ok(_) => {}
        }
        match pipe.read(&mut buffer) {
            Ok(n) if n > 0 => text.extend(buffer.iter().take(n)),
            _ => break,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn system_programs_are_trusted_and_others_are_not() {
        assert!(trusted(Path::new("/bin/sh"), 0).is_ok());
        assert_eq!(examine(Path::new("/usr/bin/no-such-program"), false), Err(Fault::Absent));
        assert_eq!(examine(Path::new("/usr/bin"), false), Err(Fault::Absent));
        let error = helper("no-such-program").unwrap_err();
        assert!(error.kind() == Kind::Unsupported && error.cure().is_some());
    }

    #[test]
    fn a_step_that_others_may_change_spoils_the_path() {
        let dir = std::env::temp_dir().join(format!("sandbox-program-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let me = rustix::process::geteuid().as_raw();
        let file = dir.join("file");
        std::fs::write(&file, "").unwrap();
        mode(&dir, 0o755);
        mode(&file, 0o755);
        // Only as root is every directory above ours as well.
        if me == 0 {
            assert!(trusted(&file, 0).is_ok());
            symlink("file", dir.join("link")).unwrap();
            assert!(trusted(&dir.join("link"), 0).is_ok());
            symlink("loop", dir.join("loop")).unwrap();
            assert_eq!(trusted(&dir.join("loop"), 0).err(), Some(Fault::Absent));
            mode(&file, 0o775);
            assert_eq!(trusted(&file, 0).err(), Some(Fault::Untrusted(file.clone())));
            mode(&file, 0o755);
            mode(&dir, 0o777);
            assert_eq!(trusted(&dir.join("link"), 0).err(), Some(Fault::Untrusted(dir.clone())));
            mode(&dir, 0o1777);
            assert!(trusted(&file, 0).is_ok());
        }
        assert!(matches!(trusted(&file, 4242), Err(Fault::Untrusted(_) | Fault::Unmapped)));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn answers_are_bounded_in_time_and_size_and_see_no_environment() {
        let sh = |script: &str, patience| run(Path::new("/bin/sh"), &["-c", script], &[], b"", Duration::from_millis(patience));
        let answer = sh("echo \"$HOME$PWD\"; echo no >&2; exit 3", 5000).unwrap();
        assert_eq!((answer.success, answer.stdout.as_slice(), answer.stderr.as_slice()), (false, b"/\n".as_slice(), b"no\n".as_slice()));
        let started = Instant::now();
        assert!(sh("exec sleep 30", 50).is_err());
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(sh("exec cat /dev/zero", 200).is_ok_and(|a| a.stdout.len() <= ANSWER_LIMIT + 4096) || sh("exec cat /dev/zero", 200).is_err());
    }
}
