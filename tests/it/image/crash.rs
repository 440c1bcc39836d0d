//! However it ends: kill -9 at any time, or a disk that is full. The next command works, nothing stays behind, no image is lost.

use super::*;
use crate::run::kill;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A store with an image that must not be lost, and how to see that it is not.
fn keeper(place: &Place) -> String {
    place.load(&docker_archive(&["keeper:1"], "{}", &[layer(&[("a", 0o644, 5, &noise(1, 100_000)), ("shut/", 0, 7, b"")])])).ok();
    whole(place)
}

/// Everything of the keeper: the archive that it makes, and its unpacked files.
fn whole(place: &Place) -> String {
    place.sandbox(&["save", "-o", &place.at("keeper.tar"), "keeper:1"]).ok();
    let saved = digest(&std::fs::read(place.path("keeper.tar")).unwrap());
    let layers = place.stored().into_iter().filter(|f| f.starts_with("layers/") && !f.ends_with("about.json")).collect::<Vec<_>>();
    format!("{saved} {layers:?}")
}

/// Commands die at times spread over what they take.
fn killed(times: u64, prepare: impl Fn(&Place), args: &[&str], stdin: Option<&[u8]>) {
    let place = place();
    let kept = keeper(&place);
    let baseline = place.stored();
    let path = place.archive("victim.tar", stdin.unwrap_or_default());
    let args: Vec<&str> = args.iter().map(|a| if *a == "VICTIM" { path.as_str() } else { *a }).collect();
    prepare(&place);
    let span = place.sandbox(&args).took;
    for n in 0..times {
        prepare(&place);
        let mut child = place.cli(&args).spawn().unwrap();
        std::thread::sleep(span.mul_f64((n * 37 % times) as f64 / times as f64));
        kill(child.id(), 9);
        child.wait().unwrap();
        // The next ordinary command works, whatever it is, and has nothing to complain about.
        let next = place.sandbox(&["images", "--format", "{{.Repository}}"]);
        assert!(next.ok().contains("keeper") && next.stderr.is_empty(), "{n}: {next:?}");
        assert!(within(Duration::from_secs(2), || place.processes().is_empty()), "{n}: {:?}", place.processes());
        if n % 8 == 7 {
            place.sandbox(&["rmi", "-f", "victim:1"]).ok();
            place.sandbox(&["gc"]).ok();
            assert_eq!(place.stored(), baseline, "{n}");
            assert_eq!(whole(&place), kept, "{n}");
        }
    }
    place.sandbox(&["rmi", "-f", "victim:1", "keeper:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

fn victim() -> Vec<u8> {
    let layers: Vec<Vec<u8>> = (2..5)
        .map(|n| {
            let names: Vec<String> = (0..40).map(|f| format!("d{n}/{f}")).collect();
            let content = noise(n, 20_000);
            let mut items: Vec<Item> = vec![("shut/", 0, 7, b"")];
            items.extend(names.iter().map(|name| (name.as_str(), 0o600, 9, content.as_slice())));
            layer(&items)
        })
        .collect();
    docker_archive(&["victim:1"], "{}", &layers)
}

#[test]
fn load_killed_at_any_time() {
    killed(64, |place| drop(place.sandbox(&["rmi", "-f", "victim:1"])), &["load", "-i", "VICTIM"], Some(&victim()));
}

#[test]
fn rmi_killed_at_any_time() {
    let archive = victim();
    let prepare = |place: &Place| {
        place.load(&archive).ok();
    };
    killed(48, prepare, &["rmi", "victim:1"], None);
}

#[test]
fn prune_killed_at_any_time() {
    let archive = victim();
    let prepare = |place: &Place| {
        place.load(&archive).ok();
        place.sandbox(&["untag", "victim:1"]).ok();
    };
    killed(48, prepare, &["prune", "-f"], None);
}

#[test]
fn killed_at_each_step() {
    let place = place();
    let kept = keeper(&place);
    let baseline = place.stored();
    let archive = place.archive("victim.tar", &victim());
    let mut died = Vec::new();
    for step in 20..=31 {
        for args in [&["load", "-i", &archive][..], &["tag", "victim:1", "other:1"], &["rmi", "-f", "victim:1", "other:1"], &["prune", "-af"]] {
            if args[0] != "load" {
                place.sandbox(&["load", "-i", &archive]).ok();
            }
            // What `prune -a` must not take.
            let hold = std::fs::File::open(record(&place, "keeper:1")).unwrap();
            rustix::fs::flock(&hold, rustix::fs::FlockOperation::LockShared).unwrap();
            let mut command = place.cli(args);
            command.env("SANDBOX_DIE_AT", step.to_string());
            let output = finish(command.spawn().unwrap(), b"");
            if output.code() == 1009 {
                died.push((step, args[0]));
            } else {
                output.ok();
            }
            assert!(within(Duration::from_secs(2), || place.processes().is_empty()), "{step} {args:?}: {:?}", place.processes());
            let next = place.sandbox(&["images", "--format", "{{.Repository}}"]);
            assert!(next.ok().contains("keeper") && next.stderr.is_empty(), "{step} {args:?}: {next:?}");
            // One command on, and nothing of an interrupted work is left, but images that are whole.
            let left = place.stored();
            assert!(!left.iter().any(|f| f.starts_with("tmp/")), "{step} {args:?}: {left:?}");
            place.sandbox(&["rmi", "-f", "victim:1", "other:1"]).ok();
            place.sandbox(&["prune", "-f"]).ok();
            assert_eq!(place.stored(), baseline, "{step} {args:?}");
            assert_eq!(whole(&place), kept, "{step} {args:?}");
        }
    }
    for step in 20..=31 {
        assert!(died.iter().any(|(s, _)| *s == step), "nobody dies at step {step}: {died:?}");
    }
    place.sandbox(&["rmi", "keeper:1"]).ok();
}

/// The record of an image.
fn record(place: &Place, name: &str) -> PathBuf {
    let digest = place.sandbox(&["inspect", "-f", "{{.Descriptor.digest}}", name]);
    place.store().join("images").join(format!("{}.json", digest.ok().trim_start_matches("sha256:")))
}

/// A small file system of the user's, for a store.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &mut Place, size: &str) -> Disk {
        // Not in the home: the other tests look there for mounts that are left.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = PathBuf::from(format!("/var/tmp/full-disk-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size},mode=700,uid={},gid={}", place.account.uid, place.account.gid);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        place.env.insert("XDG_DATA_HOME".into(), path.display().to_string());
        Disk(path)
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Leave so many bytes.
    fn fill(&self, place: &Place, left: u64) {
        let mut filler = std::fs::File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        std::os::unix::fs::chown(self.0.join("filler"), Some(place.account.uid), None).unwrap();
        while self.free() > left {
            let n = (self.free() - left).min(1 << 20) as usize;
            std::io::Write::write_all(&mut filler, &vec![1; n]).unwrap();
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// It failed, and named the cause.
#[track_caller]
fn full(output: &Output) {
    output.refused("cannot");
    assert!(output.stderr.contains("no space left on device") || output.stderr.contains("no room"), "{output:?}");
}

#[test]
fn a_full_disk_at_each_verb() {
    need!(root(), "needs root, to become another user");
    let mut place = place();
    let disk = Disk::new(&mut place, "16m");
    let kept = keeper(&place);
    let archive = place.archive("victim.tar", &victim());
    place.sandbox(&["load", "-i", &archive]).ok();
    let victims = place.stored();
    place.sandbox(&["rmi", "victim:1"]).ok();
    let baseline = place.stored();

    // Adding: at every amount of room it works, or says why in one line and gives all back.
    let mut failures = 0;
    for left in [0, 4 << 10, 64 << 10, 512 << 10, 1 << 20, 2 << 20, 3 << 20, 5 << 20, 8 << 20] {
        disk.fill(&place, left);
        let free = disk.free();
        let load = place.sandbox(&["load", "-i", &archive]);
        if load.code() != 0 {
            failures += 1;
            full(&load);
        }
        place.sandbox(&["images"]).ok();
        place.sandbox(&["rmi", "-f", "victim:1"]).ok();
        assert_eq!(place.stored(), baseline, "{left}: {load:?}");
        assert_eq!(disk.free(), free, "{left}");
        disk.empty();
    }
    assert!((5..9).contains(&failures), "{failures}");

    // The others, with nothing left at all.
    place.sandbox(&["load", "-i", &archive]).ok();
    assert_eq!(place.stored().len(), victims.len());
    disk.fill(&place, 0);
    assert_eq!(disk.free(), 0);
    for args in [
        &["images"][..],
        &["history", "victim:1"],
        &["inspect", "victim:1"],
        &["df"],
        &["tree"],
        &["gc", "--dry-run"],
        &["prune", "-a", "--dry-run"],
        &["save", "-o", "/dev/null", "victim:1"],
    ] {
        place.sandbox(args).ok();
    }
    for args in [&["tag", "victim:1", "other"][..], &["load", "-i", &archive]] {
        let output = place.sandbox(args);
        if output.code() != 0 {
            full(&output);
        }
    }
    full(&place.sandbox(&["save", "-o", &format!("{}/x.tar", disk.0.display()), "victim:1"]));
    assert!(!disk.0.join("x.tar").exists());
    place.sandbox(&["rmi", "-f", "other"]).ok();
    place.sandbox(&["rmi", "victim:1"]).ok();
    assert_eq!(place.stored(), baseline);
    assert!(disk.free() > 4 << 20);
    // Again, by prune.
    disk.empty();
    place.sandbox(&["load", "-i", &archive]).ok();
    place.sandbox(&["untag", "victim:1"]).ok();
    disk.fill(&place, 0);
    place.sandbox(&["prune", "-f"]).ok();
    assert_eq!(place.stored(), baseline);
    assert_eq!(whole(&place), kept);
    place.sandbox(&["rmi", "keeper:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn a_full_disk_before_there_is_a_store() {
    need!(root(), "needs root, to become another user");
    let mut place = place();
    let disk = Disk::new(&mut place, "1m");
    disk.fill(&place, 0);
    let output = place.sandbox(&["images"]);
    if output.code() != 0 {
        full(&output);
    }
    disk.empty();
    place.sandbox(&["images"]).ok();
}
