//! The server is killed at any moment, `OVERLAY_KILLS` times (50): clients get errors and do not hang, and the upper layer is intact, as the
//! kernel's overlay reads it: each file is of before or of after, what was acknowledged is there, and lower files are whole or copied whole.

use crate::calls;
use crate::ground::{self, has, knob};
use crate::op::Dice;
use crate::sides::{Kind, Layers, Mounted};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILES: usize = 40;

/// What a file holds in its version: its length tells, and all bytes are of it.
fn version(file: usize, number: u64) -> Vec<u8> {
    format!("{file}.{number};").repeat(1 + (number as usize * 37 + file) % 900).into_bytes()
}

fn number_of(content: &[u8]) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(content).ok()?;
    let (file, number) = text.split_once(';')?.0.split_once('.')?;
    let (file, number) = (file.parse().ok()?, number.parse().ok()?);
    (version(file, number) == content).then_some((file, number))
}

/// What one client did before the end: the last version that was acknowledged of each file, and the one that was being written.
#[derive(Default)]
struct Record {
    done: BTreeMap<usize, u64>,
    begun: BTreeMap<usize, u64>,
}

/// Replace files by rename until something fails.
fn replace(at: &Path, client: usize, first: u64, dice: &mut Dice) -> Record {
    let mut record = Record::default();
    let mut number = first;
    loop {
        number += 1;
        let file = dice.roll(FILES / 2) * 2 + client;
        record.begun.insert(file, number);
        let temporary = at.join(format!("replace/.new{client}"));
        let path = at.join(format!("replace/{file}"));
        let written = fs::write(&temporary, version(file, number)).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            return record;
        }
        record.done.insert(file, number);
    }
}

/// Append to lower files, make and remove directories, link and unlink, until something fails.
fn disturb(at: &Path, dice: &mut Dice) {
    loop {
        let n = dice.roll(FILES);
        let result = match dice.roll(6) {
            0 => OpenOptions::new().append(true).open(at.join(format!("append/{n}"))).and_then(|mut f| f.write_all(b"+")),
            1 => fs::create_dir_all(at.join(format!("dirs/{n}/sub"))),
            2 => fs::remove_dir_all(at.join(format!("dirs/{n}"))).or_else(not_found),
            3 => fs::hard_link(at.join(format!("append/{n}")), at.join(format!("dirs/link{n}"))).or_else(already_there),
            4 => fs::remove_file(at.join(format!("dirs/link{n}"))).or_else(not_found),
            _ => fs::rename(at.join(format!("dirs/{n}")), at.join(format!("dirs/{}", n + 1))).or_else(|_| fs::metadata(at).map(drop)),
        };
        if result.is_err() {
            return;
        }
    }
}

fn not_found(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

fn already_there(e: std::io::Error) -> std::io::Result<()> {
    if matches!(e.kind(), std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound) { Ok(()) } else { Err(e) }
}

fn lower_content(n: usize) -> Vec<u8> {
    vec![b'a' + (n % 26) as u8; 100 + n * 4001]
}

/// All that must hold of a tree, as it is read at `at`.
fn check(at: &Path, acknowledged: &BTreeMap<usize, u64>, begun: &BTreeMap<usize, u64>) {
    for file in 0..FILES {
        let content = fs::read(at.join(format!("replace/{file}"))).unwrap_or_else(|e| panic!("replace/{file}: {e}"));
        let Some((of, number)) = number_of(&content) else {
            panic!("replace/{file} is of no version: {} bytes, {:?}", content.len(), content[..content.len().min(40)].escape_ascii().to_string())
        };
        let least = acknowledged.get(&file).copied().unwrap_or(0);
        let most = begun.get(&file).copied().unwrap_or(0).max(least);
        assert!(of == file && (number == least || number == most), "replace/{file} is of version {number}, not {least} or {most}");
    }
    for n in 0..FILES {
        let content = fs::read(at.join(format!("append/{n}"))).unwrap_or_else(|e| panic!("append/{n}: {e}"));
        let lower = lower_content(n);
        let more = content.strip_prefix(&lower[..]).unwrap_or_else(|| panic!("append/{n} lost what was in the lower layer"));
        assert!(more.iter().all(|b| *b == b'+'), "append/{n} has wrong bytes");
    }
    let tree = crate::tree::tree(at, false);
    let broken: Vec<_> = tree.iter().filter(|(_, line)| line.contains("cannot be") || line.contains("twice")).collect();
    assert!(broken.is_empty(), "{broken:?}");
}

pub fn killed_server() {
    if Kind::ours() == Kind::Kernel || Kind::ours() == Kind::Plain {
        return println!("  (there is no server to kill)");
    }
    let lower = ground::fresh("crash/lower");
    for dir in ["replace", "append", "dirs"] {
        fs::create_dir(lower.join(dir)).unwrap();
    }
    for n in 0..FILES {
        fs::write(lower.join(format!("replace/{n}")), version(n, 0)).unwrap();
        fs::write(lower.join(format!("append/{n}")), lower_content(n)).unwrap();
        fs::create_dir_all(lower.join(format!("dirs/{n}/below"))).unwrap();
    }
    let at = ground::fresh("crash/merged");
    let mut dice = Dice::new(knob("OVERLAY_SEED", 1));
    let kills = knob("OVERLAY_KILLS", 50);
    let mut layers = Layers::new(std::slice::from_ref(&lower), &ground::fresh("crash/layers"));
    let (mut acknowledged, mut slowest) = (BTreeMap::new(), Duration::ZERO);
    for round in 0..kills {
        // Uppers grow old, but not for ever.
        if round % 25 == 0 {
            layers = Layers::new(std::slice::from_ref(&lower), &ground::fresh("crash/layers"));
            acknowledged = BTreeMap::new();
        }
        let mut mount = Mounted::new(Kind::ours(), &layers, &at);
        let wait = Duration::from_micros(500 + dice.number() % if round % 3 == 0 { 3_000 } else { 60_000 });
        let seeds: Vec<u64> = (0..3).map(|_| dice.number()).collect();
        let ended = AtomicBool::new(false);
        let mut begun = BTreeMap::new();
        let (records, took) = std::thread::scope(|scope| {
            let replacers: Vec<_> = (0..2)
                .map(|client| {
                    let (at, seed) = (&at, seeds[client]);
                    scope.spawn(move || replace(at, client, round * 100_000, &mut Dice::new(seed)))
                })
                .collect();
            let disturber = scope.spawn(|| disturb(&at, &mut Dice::new(seeds[2])));
            std::thread::sleep(wait);
            mount.kill();
            let start = Instant::now();
            let ended = &ended;
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    if start.elapsed() > Duration::from_secs(20) {
                        println!("clients hang after the server was killed, round {round}");
                        std::process::exit(1);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let records: Vec<Record> = replacers.into_iter().map(|t| t.join().expect("a client")).collect();
            disturber.join().expect("a client");
            ended.store(true, Ordering::Relaxed);
            (records, start.elapsed())
        });
        slowest = slowest.max(took);
        // What is cached may still be read. Nothing can be changed.
        assert!(fs::write(at.join("replace/later"), "x").is_err(), "a mount without a server takes a file");
        drop(mount);
        for record in records {
            acknowledged.extend(record.done);
            begun.extend(record.begun);
        }
        // Redirects of directories are not for the kernel without rights; they are looked at by ours.
        let theirs = Mounted::new(Kind::Kernel, &layers, &at);
        let readable = |dir: &str| crate::tree::tree(&at.join(dir), false).values().all(|l| !l.contains("cannot"));
        if readable("dirs") {
            check(&at, &acknowledged, &begun);
        }
        theirs.unmount();
        let ours = Mounted::new(Kind::ours(), &layers, &at);
        check(&at, &acknowledged, &begun);
        // What was begun and is there counts as done from now on.
        for file in 0..FILES {
            if let Some((_, number)) = number_of(&fs::read(at.join(format!("replace/{file}"))).unwrap()) {
                acknowledged.insert(file, number);
            }
        }
        ours.unmount();
        let rest: Vec<_> = fs::read_dir(layers.work.join("work")).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        assert!(rest.is_empty(), "what a killed server was making is still in the work directory after the next mount: {rest:?}");
    }
    println!("  {kills} times; clients had their errors after at most {:.0} ms", slowest.as_secs_f64() * 1000.0);
}

/// What a server leaves that was killed, for those who have files open: what the kernel has cached is what was written last; the rest cannot be
/// read, nothing can be changed, and nobody is told that something is safe which is not.
pub fn dead_server() {
    if Kind::ours() == Kind::Kernel || Kind::ours() == Kind::Plain {
        return println!("  (there is no server to kill)");
    }
    let lower = ground::fresh("dead/lower");
    for name in ["known", "far", "mapped", "shared"] {
        fs::write(lower.join(name), lower_content(20)).unwrap();
    }
    fs::create_dir_all(lower.join("dir/below")).unwrap();
    let at = ground::fresh("dead/merged");
    let mut mount = Mounted::new(Kind::ours(), &Layers::new(&[lower], &ground::fresh("dead/layers")), &at);
    let path = |name: &str| at.join(name).into_os_string().into_encoded_bytes();
    let open = |name: &str, flags: i32| calls::open(libc::AT_FDCWD, &path(name), flags, 0).unwrap();
    let (known, far, shared, dir) =
        (open("known", libc::O_RDWR), open("far", libc::O_RDONLY), open("shared", libc::O_RDWR), open("dir", libc::O_RDONLY));
    let wanted = [b"changed", &lower_content(20)[7..]].concat();
    calls::pwrite(known.as_raw_fd(), b"changed", 0).unwrap();
    assert_eq!(calls::pread(known.as_raw_fd(), wanted.len(), 0).unwrap(), wanted);
    let mut mapping = has("python3").then(|| {
        let script = "import mmap, sys; f = open('mapped'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print('m', end='', flush=True); sys.stdin.read(1); m[50000]";
        let mut child = Command::new("python3").args(["-c", script]).current_dir(&at).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        child.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("it is mapped");
        child
    });
    let start = calls::mapped(shared.as_raw_fd(), 0, 4096, true, true, |page| {
        page[0] = b'!';
        mount.kill();
        Instant::now()
    });
    assert!(calls::pread(known.as_raw_fd(), wanted.len(), 0).is_ok_and(|read| read == wanted), "what is cached stays readable, and the same");
    let dirfd = dir.as_raw_fd();
    for (what, answer) in [
        ("pread of what is not cached", calls::pread(far.as_raw_fd(), 100, 0).map(|b| b.len() as i64)),
        ("stat of a name that is not known", calls::stat(dirfd, b"below", 0).map(|_| 0)),
        ("open of one below it", calls::open(libc::AT_FDCWD, &path("dir/below/none"), libc::O_RDONLY, 0).map(|_| 0)),
        ("a listing", calls::Entries::of(dir, 4096).rest().map(|e| e.len() as i64)),
        ("pwrite", calls::pwrite(known.as_raw_fd(), b"x", 0)),
        ("ftruncate", calls::ftruncate(known.as_raw_fd(), 5)),
        ("fsync", calls::fsync(known.as_raw_fd())),
        ("fsync of what was stored by a mapping", calls::fsync(shared.as_raw_fd())),
        ("chmod", calls::chmod(libc::AT_FDCWD, &path("known"), 0o600)),
        ("setxattr", calls::set_xattr(&path("known"), "user.a", b"x", 0, true)),
        ("mkdir", calls::mkdir(libc::AT_FDCWD, &path("new"), 0o755)),
        ("rename", calls::rename(libc::AT_FDCWD, &path("known"), &path("other"), 0)),
        ("unlink", calls::unlink(libc::AT_FDCWD, &path("known"), 0)),
    ] {
        assert_eq!(answer, Err(libc::ENOTCONN), "{what}");
    }
    if let Some(child) = &mut mapping {
        child.stdin.take().expect("a pipe").write_all(b"m").expect("tell it");
        assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGBUS), "a page of a mapping that is not there");
    }
    assert!(start.unwrap().elapsed() < Duration::from_secs(5), "an error took {:.1} s", start.unwrap().elapsed().as_secs_f64());
}
