//! `posix.txt`, played: what each call answers, on files that come from a lower layer and on such as were made through the mount.
//! A plain directory has to answer the same: a line that is wrong about POSIX fails there.

use crate::calls::{self, Answer, Entries, Time, as_user, errno_name};
use crate::op::{acl, acl_name};
use crate::sides::{Kind, Layers, Mounted};
use crate::{ground, tree};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const TABLE: &str = include_str!("posix.txt");

struct Section {
    name: &'static str,
    before: Vec<&'static str>,
    lines: Vec<(usize, &'static str)>,
}

fn sections() -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for (number, line) in TABLE.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") || line == "#" {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            all.push(Section { name: name.trim_end_matches(']'), before: Vec::new(), lines: Vec::new() });
            continue;
        }
        let section = all.last_mut().expect("a section first");
        match line.strip_prefix("+ ") {
            Some(call) => section.before.push(call),
            None => section.lines.push((number + 1, line)),
        }
    }
    all
}

/// A directory, and what is open.
struct Place<'a> {
    root: &'a Path,
    dir: OwnedFd,
    open: BTreeMap<String, OwnedFd>,
}

/// `-empty-`, `N*C`, or the word itself.
fn word(text: &str) -> Vec<u8> {
    match text.split_once('*') {
        _ if text == "-empty-" => Vec::new(),
        Some((count, of)) if count.parse::<usize>().is_ok() => of.repeat(count.parse().expect("a count")).into_bytes(),
        _ => text.as_bytes().to_vec(),
    }
}

fn octal(text: &str) -> u32 {
    u32::from_str_radix(text, 8).unwrap_or_else(|_| panic!("not octal: {text}"))
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn id(text: &str) -> u32 {
    number(text) as u32
}

fn time(text: &str) -> Time {
    match text {
        "now" => (0, libc::UTIME_NOW),
        "omit" => (0, libc::UTIME_OMIT),
        _ => {
            let (seconds, nanoseconds) = text.split_once('.').expect("seconds.nanoseconds");
            (number(seconds), number(nanoseconds))
        }
    }
}

fn flags(text: &str) -> i32 {
    let bit = |word| match word {
        "r" => libc::O_RDONLY,
        "w" => libc::O_WRONLY,
        "rw" => libc::O_RDWR,
        "creat" => libc::O_CREAT,
        "excl" => libc::O_EXCL,
        "trunc" => libc::O_TRUNC,
        "append" => libc::O_APPEND,
        "dir" => libc::O_DIRECTORY,
        "nofollow" => libc::O_NOFOLLOW,
        "nonblock" => libc::O_NONBLOCK,
        "path" => libc::O_PATH,
        other => panic!("no such flag: {other}"),
    };
    text.split(',').map(bit).fold(0, |a, b| a | b)
}

fn shown(bytes: &[u8]) -> String {
    if bytes.is_empty() { "0".into() } else { bytes.escape_ascii().to_string() }
}

fn field(stat: &libc::stat, name: &str) -> String {
    match name {
        "size" => stat.st_size.to_string(),
        "mode" => format!("{:o}", stat.st_mode),
        "uid" => stat.st_uid.to_string(),
        "gid" => stat.st_gid.to_string(),
        "links" => stat.st_nlink.to_string(),
        "mtime" => format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec),
        "atime" => format!("{}.{:09}", stat.st_atime, stat.st_atime_nsec),
        "kind" => match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => "file",
            libc::S_IFDIR => "dir",
            libc::S_IFLNK => "link",
            libc::S_IFIFO => "fifo",
            libc::S_IFSOCK => "socket",
            _ => "other",
        }
        .into(),
        other => panic!("no such field: {other}"),
    }
}

impl<'a> Place<'a> {
    fn new(root: &'a Path) -> Place<'a> {
        let path = root.as_os_str().as_encoded_bytes();
        let dir = calls::open(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("the section's directory");
        Place { root, dir, open: BTreeMap::new() }
    }

    fn fd(&self, name: &str) -> RawFd {
        self.open.get(name).unwrap_or_else(|| panic!("{name} is not open")).as_raw_fd()
    }

    fn whole(&self, path: &str) -> Vec<u8> {
        let path = word(path);
        if path.is_empty() { path } else { [self.root.as_os_str().as_encoded_bytes(), b"/", &path].concat() }
    }

    /// The answer as text.
    fn call(&mut self, line: &str) -> String {
        let (who, line) = match line.split_once(": ") {
            Some((who, rest)) if who.parse::<u32>().is_ok() => (who.parse().expect("an id"), rest),
            _ => (0, line),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        as_user(who, || self.play(&words)).unwrap_or_else(errno_name)
    }

    #[expect(clippy::too_many_lines, reason = "a line or two for each call")]
    fn play(&mut self, words: &[&str]) -> Answer<String> {
        let at = self.dir.as_raw_fd();
        let n = |answer: Answer| answer.map(|n| n.to_string());
        Ok(match *words {
            ["file", path, mode] => {
                calls::open(at, &word(path), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o600)?;
                n(calls::chmod(at, &word(path), octal(mode)))?
            }
            ["file", path, mode, text] => {
                let file = calls::open(at, &word(path), libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, 0o600)?;
                calls::write(file.as_raw_fd(), text.as_bytes())?;
                n(calls::fchmod(file.as_raw_fd(), octal(mode)))?
            }
            ["open", path, how] => n(calls::open(at, &word(path), flags(how), 0).map(|_| 0))?,
            ["open", path, how, mode] => n(calls::open(at, &word(path), flags(how), octal(mode)).map(|_| 0))?,
            ["open", path, how, ">", name] | ["open", path, how, _, ">", name] => {
                let mode = if words.len() == 6 { octal(words[3]) } else { 0 };
                self.open.remove(name);
                let fd = calls::open(at, &word(path), flags(how), mode)?;
                self.open.insert(name.to_string(), fd);
                "0".into()
            }
            ["close", name] => self.open.remove(name).map_or("1".into(), |_| "0".into()),
            ["read", name, len] => shown(&calls::read(self.fd(name), number(len) as usize)?),
            ["pread", name, len, from] => shown(&calls::pread(self.fd(name), number(len) as usize, number(from))?),
            ["write", name, text] => n(calls::write(self.fd(name), &word(text)))?,
            ["pwrite", name, text, to] => n(calls::pwrite(self.fd(name), &word(text), number(to)))?,
            ["cat", path] => {
                let file = calls::open(at, &word(path), libc::O_RDONLY, 0)?;
                shown(&calls::read(file.as_raw_fd(), 1000)?)
            }
            ["truncate", path, len] => n(calls::truncate(&self.whole(path), number(len)))?,
            ["ftruncate", name, len] => n(calls::ftruncate(self.fd(name), number(len)))?,
            ["fallocate", name, how, from, len] => {
                let bit = |word| match word {
                    "none" => 0,
                    "keep" => libc::FALLOC_FL_KEEP_SIZE,
                    "punch" => libc::FALLOC_FL_PUNCH_HOLE,
                    other => panic!("no such mode: {other}"),
                };
                let mode = how.split(',').map(bit).fold(0, |a, b| a | b);
                n(calls::fallocate(self.fd(name), mode, number(from), number(len)))?
            }
            ["seek", name, whence, to] => n(calls::lseek(self.fd(name), number(to), whence_of(whence)))?,
            // At least so far.
            ["seek", name, whence, to, ">", least] => {
                let found = calls::lseek(self.fd(name), number(to), whence_of(whence))?;
                if found >= number(least) { "0".into() } else { found.to_string() }
            }
            ["fsync", name] => n(calls::fsync(self.fd(name)))?,
            ["fdatasync", name] => n(calls::fdatasync(self.fd(name)))?,
            ["syncfs", name] => n(calls::syncfs(self.fd(name)))?,
            ["chmod", path, mode] => n(calls::chmod(at, &word(path), octal(mode)))?,
            ["fchmod", name, mode] => n(calls::fchmod(self.fd(name), octal(mode)))?,
            ["chown", path, uid, gid] => n(calls::chown(at, &word(path), id(uid), id(gid), 0))?,
            ["lchown", path, uid, gid] => n(calls::chown(at, &word(path), id(uid), id(gid), libc::AT_SYMLINK_NOFOLLOW))?,
            ["fchown", name, uid, gid] => n(calls::fchown(self.fd(name), id(uid), id(gid)))?,
            ["utimens", path, atime, mtime] => n(calls::utimens(at, &word(path), time(atime), time(mtime), 0))?,
            ["lutimens", path, atime, mtime] => n(calls::utimens(at, &word(path), time(atime), time(mtime), libc::AT_SYMLINK_NOFOLLOW))?,
            ["mkdir", path, mode] => n(calls::mkdir(at, &word(path), octal(mode)))?,
            ["mkdirat", name, path, mode] => n(calls::mkdir(self.fd(name), &word(path), octal(mode)))?,
            ["rmdir", path] => n(calls::unlink(at, &word(path), libc::AT_REMOVEDIR))?,
            ["unlink", path] => n(calls::unlink(at, &word(path), 0))?,
            ["mknod", path, kind, mode] => {
                let (kind, device) = match kind {
                    "fifo" => (libc::S_IFIFO, 0),
                    "socket" => (libc::S_IFSOCK, 0),
                    "file" => (libc::S_IFREG, 0),
                    "whiteout" => (libc::S_IFCHR, 0),
                    "device" => (libc::S_IFCHR, libc::makedev(1, 3)),
                    other => panic!("no such kind: {other}"),
                };
                n(calls::mknod(at, &word(path), kind | octal(mode), device))?
            }
            ["symlink", target, path] => n(calls::symlink(&word(target), at, &word(path)))?,
            ["readlink", path] => shown(&calls::readlink(at, &word(path))?),
            ["link", from, to] => n(calls::link(at, &word(from), &word(to), 0))?,
            ["rename", from, to] => n(calls::rename(at, &word(from), &word(to), 0))?,
            ["rename", from, to, how] => {
                let how = match how {
                    "noreplace" => libc::RENAME_NOREPLACE,
                    "exchange" => libc::RENAME_EXCHANGE,
                    "whiteout" => libc::RENAME_WHITEOUT,
                    other => panic!("no such flag: {other}"),
                };
                n(calls::rename(at, &word(from), &word(to), how))?
            }
            ["list", path] => {
                let fd = calls::open(at, &word(path), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                let mut names: Vec<_> = Entries::of(fd, 4096).rest()?.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect();
                names.sort();
                if names.is_empty() { "-empty-".into() } else { names.join(",") }
            }
            ["stat", path, name] => field(&calls::stat(at, &word(path), 0)?, name),
            ["lstat", path, name] => field(&calls::stat(at, &word(path), libc::AT_SYMLINK_NOFOLLOW)?, name),
            ["fstat", file, name] => field(&calls::fstat(self.fd(file))?, name),
            ["same", a, b] => {
                let (a, b) = (calls::stat(at, &word(a), 0)?, calls::stat(at, &word(b), 0)?);
                i32::from((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)).to_string()
            }
            ["access", path, how] => {
                let mode = match how {
                    "f" => libc::F_OK,
                    "r" => libc::R_OK,
                    "w" => libc::W_OK,
                    "x" => libc::X_OK,
                    other => panic!("no such access: {other}"),
                };
                n(calls::access(at, &word(path), mode))?
            }
            ["setx", path, name, value] => n(calls::set_xattr(&self.whole(path), name, &word(value), 0, true))?,
            ["lsetx", path, name, value] => n(calls::set_xattr(&self.whole(path), name, &word(value), 0, false))?,
            ["setx", path, name, value, how] => {
                let how = if how == "create" { libc::XATTR_CREATE } else { libc::XATTR_REPLACE };
                n(calls::set_xattr(&self.whole(path), name, &word(value), how, true))?
            }
            ["getx", path, name] => shown(&calls::get_xattr(&self.whole(path), name, 1000, true)?),
            ["lgetx", path, name] => shown(&calls::get_xattr(&self.whole(path), name, 1000, false)?),
            ["getx", path, name, room] => shown(&calls::get_xattr(&self.whole(path), name, number(room) as usize, true)?),
            ["listx", path] => calls::list_xattr(&self.whole(path), true)?.join(","),
            ["delx", path, name] => n(calls::remove_xattr(&self.whole(path), name, true))?,
            ["acl", path, which, perm, who] => {
                let name = acl_name(which == "default");
                n(calls::set_xattr(&self.whole(path), name, &acl(octal(perm) as u16, id(who)), 0, true))?
            }
            ["statfs", path, "namelen"] => calls::statfs(&self.whole(path))?.f_namelen.to_string(),
            ["flock", name, how] => {
                let how = match how {
                    "sh" => libc::LOCK_SH,
                    "ex" => libc::LOCK_EX,
                    _ => libc::LOCK_UN,
                };
                n(calls::flock(self.fd(name), how))?
            }
            ["ofd", name, kind, start, len] => n(calls::ofd_lock(self.fd(name), false, lock_kind(kind), number(start), number(len)))?,
            ["ask", name, kind, start, len] => {
                let found = calls::ofd_lock(self.fd(name), true, lock_kind(kind), number(start), number(len))?;
                ["read", "write", "none"].into_iter().find(|k| i64::from(lock_kind(k)) == found).expect("a kind").into()
            }
            ["copy", from, from_at, to, to_at, len] => {
                n(calls::copy_range(self.fd(from), number(from_at), self.fd(to), number(to_at), number(len) as usize))?
            }
            ["mmap", name, how, byte] => {
                let len = calls::fstat(self.fd(name))?.st_size as usize;
                let change = |b: &mut [u8]| (b[0], b[len / 2]) = (byte.as_bytes()[0], byte.as_bytes()[0]);
                calls::mapped(self.fd(name), 0, len, how == "shared", true, change)?;
                len.to_string()
            }
            ["exec", path] => {
                let mut command = Command::new(self.root.join(path));
                let status = command.arg0("x").status().map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
                status.code().unwrap_or(-1).to_string()
            }
            _ => panic!("no such call: {words:?}"),
        })
    }
}

fn whence_of(word: &str) -> i32 {
    match word {
        "set" => libc::SEEK_SET,
        "cur" => libc::SEEK_CUR,
        "end" => libc::SEEK_END,
        "data" => libc::SEEK_DATA,
        "hole" => libc::SEEK_HOLE,
        other => panic!("no such place: {other}"),
    }
}

fn lock_kind(word: &str) -> i32 {
    match word {
        "read" => libc::F_RDLCK,
        "write" => libc::F_WRLCK,
        "none" => libc::F_UNLCK,
        other => panic!("no such lock: {other}"),
    }
}

/// What overlays answer otherwise than a plain directory, and rightly: nobody makes whiteouts in them.
const NOT_PLAIN: [&str; 2] = ["mknod white whiteout 644", "rename h white whiteout"];

fn set_up(all: &[Section], root: &Path) {
    for section in all {
        let dir = root.join(section.name);
        std::fs::create_dir(&dir).expect("a directory");
        calls::chmod(libc::AT_FDCWD, dir.as_os_str().as_encoded_bytes(), 0o755).expect("chmod");
        let mut place = Place::new(&dir);
        for call in &section.before {
            assert_eq!(place.call(call).parse::<u32>().ok().map(|_| ()), Some(()), "[{}] + {call}", section.name);
        }
    }
}

/// All lines below a directory; how many there were.
fn rows(all: &[Section], side: &str, kind: Kind, root: &Path, wrong: &mut Vec<String>) -> usize {
    let mut count = 0;
    for section in all {
        let dir = root.join(section.name);
        let mut place = Place::new(&dir);
        for (number, line) in &section.lines {
            let (call, expected) = line.rsplit_once(" = ").unwrap_or_else(|| panic!("posix.txt:{number}: no answer"));
            if kind == Kind::Plain && NOT_PLAIN.contains(&call) {
                continue;
            }
            let answer = place.call(call);
            count += 1;
            if !expected.split('|').any(|e| e == answer) {
                wrong.push(format!("posix.txt:{number}: [{}] {line}, but {side} answers {answer}", section.name));
            }
        }
    }
    count
}

pub fn posix() {
    let all = sections();
    let mut wrong = Vec::new();
    let plain = ground::fresh("posix/plain");
    set_up(&all, &plain);
    let count = rows(&all, "a plain directory", Kind::Plain, &plain, &mut wrong);

    let (lower, empty) = (ground::fresh("posix/lower"), ground::fresh("posix/empty"));
    set_up(&all, &lower);
    for (name, below, from) in [("lower", lower, "of a lower layer"), ("upper", empty, "made through the mount")] {
        let before = tree::tree(&below, true);
        let layers = Layers::new(std::slice::from_ref(&below), &ground::fresh(&format!("posix/{name}.layers")));
        let at = ground::fresh(&format!("posix/{name}.merged"));
        let mounted = Mounted::new(Kind::ours(), &layers, &at);
        if name == "upper" {
            set_up(&all, &at);
        }
        rows(&all, &format!("what is {from}"), Kind::ours(), &at, &mut wrong);
        mounted.unmount();
        assert!(before == tree::tree(&below, true), "a lower layer was changed");
    }
    println!("  {count} rows, three times");
    assert!(count >= 150);
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
