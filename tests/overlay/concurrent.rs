//! Many at the same time, on ours: what must hold whoever comes first.

use crate::calls::{self, Entries};
use crate::ground;
use crate::op::Dice;
use crate::sides::{Kind, Layers, Mounted};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Ours over a lower layer, and the lower layer.
fn mounted(name: &str, fill: impl FnOnce(&Path)) -> (Mounted, PathBuf, PathBuf) {
    let lower = ground::fresh(&format!("{name}/lower"));
    fill(&lower);
    let layers = Layers::new(std::slice::from_ref(&lower), &ground::fresh(&format!("{name}/layers")));
    let at = ground::fresh(&format!("{name}/merged"));
    (Mounted::new(Kind::ours(), &layers, &at), at, lower)
}

/// Says when it is over, also when a check has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn all_together<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
    })
}

/// Eight writers: each a file of its own, one line after the other in a common log, and a place of its own in a common file.
pub fn many_writers() {
    const WRITERS: usize = 8;
    const LINES: usize = 300;
    let (mount, at, _) = mounted("writers", |lower| {
        fs::write(lower.join("log"), "").unwrap();
        fs::write(lower.join("table"), vec![b'.'; 100_000]).unwrap();
    });
    all_together(WRITERS, |n| {
        let mut log = OpenOptions::new().append(true).open(at.join("log")).unwrap();
        let table = OpenOptions::new().write(true).open(at.join("table")).unwrap();
        let mut own = File::create(at.join(format!("own{n}"))).unwrap();
        for line in 0..LINES {
            log.write_all(format!("{n} {line:04}\n").as_bytes()).unwrap();
            table.write_all_at(&[b'a' + n as u8], (line * WRITERS + n) as u64).unwrap();
            own.write_all(format!("{line:06}\n").as_bytes()).unwrap();
        }
    });
    let log = fs::read_to_string(at.join("log")).unwrap();
    let mut next = [0; WRITERS];
    for line in log.lines() {
        let (n, line) = line.split_once(' ').unwrap();
        let n: usize = n.parse().unwrap();
        assert_eq!(line.parse::<usize>().unwrap(), next[n], "the lines of writer {n} are in order");
        next[n] += 1;
    }
    assert_eq!(next, [LINES; WRITERS]);
    let table = fs::read(at.join("table")).unwrap();
    let wanted: Vec<u8> = (0..LINES * WRITERS).map(|n| b'a' + (n % WRITERS) as u8).collect();
    assert!(table[..wanted.len()] == wanted[..] && table[wanted.len()..].iter().all(|b| *b == b'.') && table.len() == 100_000);
    for n in 0..WRITERS {
        assert_eq!(fs::read_to_string(at.join(format!("own{n}"))).unwrap().lines().count(), LINES);
    }
    mount.unmount();
}

/// Who has a file open that is replaced is told of that file, not of the one which stands there now.
pub fn replaced_while_open() {
    let (mount, at, _) = mounted("replaced", |lower| fs::write(lower.join("name"), vec![1; 100]).unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut file = File::open(at.join("name")).unwrap();
                    let before = file.metadata().unwrap();
                    let mut content = Vec::new();
                    file.read_to_end(&mut content).unwrap();
                    let after = file.metadata().unwrap();
                    let size = u64::from(content[0]) * 100;
                    assert!(before.len() == size && after.len() == size && content.len() as u64 == size, "{} {} {size}", before.len(), after.len());
                    assert_eq!(before.ino(), after.ino());
                }
            });
        }
        for round in 0..4000_u32 {
            let n = 1 + (round % 7) as u8;
            let (temporary, name) = (at.join("temporary"), at.join("name"));
            fs::write(&temporary, vec![n; usize::from(n) * 100]).unwrap();
            fs::rename(&temporary, &name).unwrap();
        }
    });
    mount.unmount();
}

/// A name that is replaced again and again is never missing, and what is behind it is always whole.
pub fn rename_against_lookup() {
    let (mount, at, _) = mounted("renames", |lower| {
        fs::write(lower.join("name"), "0".repeat(5000)).unwrap();
        for dir in ["one", "two"] {
            fs::create_dir(lower.join(dir)).unwrap();
        }
        fs::write(lower.join("one/here"), "here").unwrap();
    });
    let stop = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _over = Over(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let content = fs::read(at.join("name")).unwrap_or_else(|e| panic!("a name that is replaced is missing: {e}"));
                    assert!(content.len() == 5000 && content.iter().all(|b| *b == content[0]), "half of one and half of the other");
                    let listed = fs::read_dir(&at).unwrap().filter(|e| e.as_ref().unwrap().file_name() == "name").count();
                    assert!(listed <= 1);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
            // A file that wanders between directories is in one of them, whichever is looked at twice.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let here = ["one/here", "two/here"].map(|p| fs::read_to_string(at.join(p)).ok());
                    assert!(here.iter().flatten().all(|c| c == "here"));
                }
            });
        }
        for round in 0..400_u32 {
            let byte = b'0' + (round % 10) as u8;
            fs::write(at.join("new"), vec![byte; 5000]).unwrap();
            fs::rename(at.join("new"), at.join("name")).unwrap();
            let (from, to) = if round.is_multiple_of(2) { ("one/here", "two/here") } else { ("two/here", "one/here") };
            fs::rename(at.join(from), at.join(to)).unwrap();
            // The kernel's overlay cannot, for us.
            if round.is_multiple_of(20) && Kind::ours() != Kind::Kernel {
                fs::rename(at.join("one"), at.join("three")).unwrap();
                fs::rename(at.join("three"), at.join("one")).unwrap();
            }
        }
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
    mount.unmount();
}

/// Four open one lower file for writing at once: all of them write to the same file, and nothing of the lower content is lost.
pub fn copy_up_races() {
    const FILES: usize = 150;
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (mount, at, lower) = mounted("copy-up", |lower| {
        for n in 0..FILES {
            fs::create_dir_all(lower.join(format!("d{}/e", n % 10))).unwrap();
            fs::write(lower.join(format!("d{}/e/f{n}", n % 10)), &content[..if n % 10 == 0 { 300_000 } else { 3000 }]).unwrap();
        }
    });
    let path = |n: usize| at.join(format!("d{}/e/f{n}", n % 10));
    let barrier = std::sync::Barrier::new(4);
    all_together(4, |who| {
        for n in 0..FILES {
            barrier.wait();
            match who {
                3 => {
                    let file = File::open(path(n)).unwrap();
                    let mut all = vec![0; content.len()];
                    let got = file.read_at(&mut all, 0).unwrap();
                    assert!(got >= 3000, "a reader sees a file that is not whole: {got} bytes");
                }
                _ => {
                    let file = OpenOptions::new().write(true).open(path(n)).unwrap();
                    file.write_all_at(&[b'A' + who as u8], 1000 + who as u64).unwrap();
                    drop(file);
                    let meta = fs::metadata(path(n)).unwrap();
                    assert!(meta.len() >= 3000 && meta.nlink() == 1);
                }
            }
        }
    });
    for n in 0..FILES {
        let mut wanted = content[..if n % 10 == 0 { 300_000 } else { 3000 }].to_vec();
        wanted[1000..1003].copy_from_slice(b"ABC");
        assert!(fs::read(path(n)).unwrap() == wanted, "file {n} lost a write or has wrong bytes");
        assert!(fs::read(lower.join(format!("d{}/e/f{n}", n % 10))).unwrap()[1000] != b'A', "the lower layer was written to");
    }
    mount.unmount();
}

/// Of many who make, remove or link one name, exactly one is successful each time.
pub fn one_wins() {
    let (mount, at, _) = mounted("wins", |lower| {
        for n in 0..100 {
            fs::write(lower.join(format!("lower{n}")), "x").unwrap();
        }
    });
    let barrier = std::sync::Barrier::new(4);
    let rounds = 100;
    let wins = all_together(4, |who| {
        let mut wins = [0_usize; 6];
        fs::write(at.join(format!("mine{who}")), "x").unwrap();
        for n in 0..rounds {
            let tries: [&dyn Fn() -> std::io::Result<()>; 6] = [
                &|| File::create_new(at.join(format!("file{n}"))).map(drop),
                &|| fs::create_dir(at.join(format!("dir{n}"))),
                &|| fs::hard_link(at.join(format!("mine{who}")), at.join(format!("link{n}"))),
                &|| fs::remove_file(at.join(format!("lower{n}"))),
                &|| fs::remove_dir(at.join(format!("dir{n}"))),
                &|| std::os::unix::fs::symlink("x", at.join(format!("sym{n}"))),
            ];
            for (kind, attempt) in tries.iter().enumerate() {
                barrier.wait();
                match attempt() {
                    Ok(()) => wins[kind] += 1,
                    Err(e) => assert!(matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound), "{kind}: {e}"),
                }
            }
        }
        wins
    });
    for kind in 0..6 {
        assert_eq!(wins.iter().map(|w| w[kind]).sum::<usize>(), rounds, "kind {kind}");
    }
    let left = fs::read_dir(&at).unwrap().count();
    assert_eq!(left, 4 + 3 * rounds);
    mount.unmount();
}

/// Operations of all kinds by many in one small tree: nothing hangs, and in the end the tree is one that the kernel reads the same.
pub fn storm() {
    let (mount, at, lower) = mounted("storm", |lower| {
        for dir in 0..4 {
            fs::create_dir(lower.join(format!("{dir}"))).unwrap();
            for file in 0..4 {
                fs::write(lower.join(format!("{dir}/{file}")), format!("{dir}{file}")).unwrap();
            }
        }
    });
    all_together(6, |who| {
        let mut dice = Dice::new(who as u64);
        for _ in 0..1500 {
            let path = |dice: &mut Dice| at.join(format!("{}/{}", dice.roll(4), dice.roll(4)));
            let (one, other) = (path(&mut dice), path(&mut dice));
            let _ = match dice.roll(10) {
                0 => fs::remove_file(&one),
                1 => fs::write(&one, "new"),
                2 => fs::rename(&one, &other),
                3 => fs::hard_link(&one, &other),
                4 => fs::remove_dir(&one),
                5 => fs::create_dir(&one),
                6 => fs::read_dir(one.parent().unwrap()).map(|d| assert!(d.count() < 1000)),
                7 => fs::metadata(&one).map(drop),
                8 => OpenOptions::new().append(true).open(&one).and_then(|mut f| f.write_all(b"+")),
                _ => calls::rename(libc::AT_FDCWD, one.as_os_str().as_encoded_bytes(), other.as_os_str().as_encoded_bytes(), libc::RENAME_EXCHANGE)
                    .map(drop)
                    .map_err(std::io::Error::from_raw_os_error),
            };
        }
    });
    let before = crate::tree::tree(&at, false);
    assert!(before.values().all(|line| !line.contains("cannot") && !line.contains("twice")), "{before:#?}");
    mount.unmount();
    let layers = Layers::new(&[lower], &ground::base().join("tmp/storm/layers"));
    let again = Mounted::new(Kind::ours(), &layers, &at);
    let after = crate::tree::tree(&at, false);
    again.unmount();
    let differ = crate::tree::differences(("before", &before), ("again", &after));
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A directory of 200,000 names, read while others come and go: each that stays is there, once, and the server does not swell.
pub fn large_directory() {
    const NAMES: usize = 200_000;
    let (mount, at, _) = mounted("large", |lower| {
        let dir = calls::open(libc::AT_FDCWD, lower.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0).unwrap();
        for n in 0..NAMES {
            calls::mknod(dir.as_raw_fd(), format!("stays{n}").as_bytes(), libc::S_IFREG | 0o644, 0).unwrap();
        }
    });
    let stop = AtomicBool::new(false);
    let changes = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let _over = Over(&stop);
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = at.join(format!("passes{}", n % 500));
                if fs::remove_file(&name).is_err() {
                    fs::write(&name, "").unwrap();
                }
                n += 7;
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..2 {
            let dir = calls::open(libc::AT_FDCWD, at.as_os_str().as_encoded_bytes(), libc::O_RDONLY, 0).unwrap();
            let mut seen = HashMap::with_capacity(NAMES);
            for entry in Entries::of(dir, 32 << 10).rest().unwrap() {
                *seen.entry(entry.name).or_insert(0) += 1;
            }
            let stays = seen.iter().filter(|(name, _)| name.starts_with(b"stays"));
            let (mut count, mut twice) = (0, 0);
            stays.for_each(|(_, times)| (count, twice) = (count + 1, twice + usize::from(*times > 1)));
            assert_eq!((count, twice), (NAMES, 0), "names that stay, and those listed more than once");
        }
    });
    println!(
        "  two listings in {:.1} s, during {} changes; the server has {:?} KiB",
        start.elapsed().as_secs_f64(),
        changes.load(Ordering::Relaxed),
        mount.memory()
    );
    assert!(changes.load(Ordering::Relaxed) > 0);
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(mount.memory().is_none_or(|kib| kib < 300 << 10), "{:?} KiB", mount.memory());
    mount.unmount();
}
