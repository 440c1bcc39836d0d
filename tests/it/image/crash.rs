//! However it ends: kill -9 at any time, or a disk that is full. The next command works, nothing stays behind, no image is lost.

use super::served::{Asked, Server, made};
use super::*;
use crate::run::kill;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

/// A command that is killed again and again.
struct Killed<'a> {
    times: u64,
    args: &'a [&'a str],
    /// The name that it gives, or takes.
    victim: &'a str,
    /// What removes all but whole images, or those that have not got their name yet, too.
    clean: &'a [&'a str],
}

impl Killed<'_> {
    /// At times spread over what it takes. `place` may have an image already, which stays.
    fn in_place(&self, place: &Place, prepare: impl Fn(&Place)) {
        let empty = place.stored();
        let kept = keeper(place);
        let (baseline, room) = (place.stored(), used(place));
        prepare(place);
        let whole_run = place.sandbox(self.args);
        whole_run.ok();
        let times = self.times;
        for n in 0..times {
            prepare(place);
            let left = Left::before(place);
            let mut child = place.cli(self.args).spawn().unwrap();
            std::thread::sleep(whole_run.took.mul_f64((n * 37 % times) as f64 / times as f64));
            kill(child.id(), 9);
            child.wait().unwrap();
            // The next ordinary command works, whatever it is, and has nothing to complain about.
            let next = place.sandbox(&["images", "--format", "{{.Repository}}"]);
            assert!(next.ok().contains("keeper") && next.stderr.is_empty(), "{n}: {next:?}");
            left.after_kill();
            if n % 8 == 7 {
                place.sandbox(&["rmi", "-f", self.victim]).ok();
                place.sandbox(self.clean).ok();
                assert_eq!(place.stored(), baseline, "{n}");
                assert_eq!(used(place), room, "{n}");
                assert_eq!(whole(place), kept, "{n}");
            }
        }
        place.sandbox(&["rmi", "-f", self.victim, "keeper:1"]).ok();
        assert_eq!(place.stored(), empty);
        counted(times, self.args[0]);
    }
}

/// For the test's output: so often was a command killed.
fn counted(times: u64, what: &str) {
    static ALL: AtomicU64 = AtomicU64::new(0);
    let all = ALL.fetch_add(times, Ordering::Relaxed) + times;
    // Not captured by the test harness.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("KILLED {what}: {times} times, {all} in all\n").as_bytes());
}

/// What the files of the store take, as `du` counts.
fn used(place: &Place) -> u64 {
    let size =
        |f: &String| std::fs::symlink_metadata(place.store().join(f)).map_or(0, |m| if m.is_file() { m.len().next_multiple_of(4096) } else { 0 });
    place.stored().iter().map(size).sum()
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

const PRUNE: &[&str] = &["prune", "-f"];

#[test]
fn load_killed_at_any_time() {
    let place = alone();
    let path = place.archive("victim.tar", &victim());
    let killed = Killed { times: 64, args: &["load", "-i", &path], victim: "victim:1", clean: PRUNE };
    killed.in_place(&place, |place| drop(place.sandbox(&["rmi", "-f", "victim:1"])));
}

/// Whatever was left of it, its name is enough to remove the rest.
#[test]
fn rmi_killed_at_any_time() {
    let archive = victim();
    let killed = Killed { times: 48, args: &["rmi", "victim:1"], victim: "victim:1", clean: &["images"] };
    killed.in_place(&alone(), |place| {
        place.load(&archive).ok();
    });
}

#[test]
fn prune_killed_at_any_time() {
    let archive = victim();
    let killed = Killed { times: 48, args: PRUNE, victim: "victim:1", clean: PRUNE };
    killed.in_place(&alone(), |place| {
        place.load(&archive).ok();
        place.sandbox(&["untag", "victim:1"]).ok();
    });
}

/// A registry with an image under any name.
fn registry() -> (Server, String) {
    let server = Server::start("127.0.0.1", Some(made(300_000)), std::sync::Arc::new(|_: &Asked, _: &mut TcpStream| false));
    let name = format!("{}/victim:1", server.address);
    (server, name)
}

#[test]
fn pull_killed_at_any_time() {
    let (_server, name) = registry();
    let killed = Killed { times: 48, args: &["pull", &name], victim: &name, clean: PRUNE };
    killed.in_place(&alone(), |place| drop(place.sandbox(&["rmi", "-f", &name])));
}

/// An image, and a layer over it that can be committed.
fn work(place: &Place) {
    place.load(&busybox(&["base:1"])).ok();
    place.sandbox(&["run", "--layer", "work", "base:1", "sh", "-c", "echo x > /new; rm -r /home; mkdir -m 0 /shut2"]).ok();
}

#[test]
fn commit_killed_at_any_time() {
    let place = alone();
    work(&place);
    let killed = Killed { times: 32, args: &["commit", "work", "victim:1"], victim: "victim:1", clean: PRUNE };
    killed.in_place(&place, |place| drop(place.sandbox(&["rmi", "-f", "victim:1"])));
    place.sandbox(&["rm", "work"]).ok();
    place.sandbox(&["rmi", "base:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

/// Two are born for one command. A copy of the descriptors of both in each would hide from the other that whoever it waits for is dead.
#[test]
fn killed_while_its_helpers_are_born() {
    let place = alone();
    work(&place);
    let left = Left::before(&place);
    for n in 0..240 {
        let mut command = place.cli(&["commit", "work", "victim:1"]);
        command.env("SANDBOX_DIE_AT", (3 + n % 3).to_string());
        assert_eq!(finish(command.spawn().unwrap(), b"").code(), 1009);
    }
    left.after_kill_and(PRUNE);
    counted(240, "at a birth");
    place.sandbox(&["rm", "work"]).ok();
    place.sandbox(&["rmi", "base:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn import_killed_at_any_time() {
    let place = alone();
    let content = noise(7, 200_000);
    let tar = place.archive("tree.tar", &layer(&[("a", 0o600, 9, &content), ("shut/", 0, 7, b"")]));
    let killed = Killed { times: 32, args: &["import", &tar, "victim:1"], victim: "victim:1", clean: PRUNE };
    killed.in_place(&place, |place| drop(place.sandbox(&["rmi", "-f", "victim:1"])));
}

#[test]
fn killed_at_each_step() {
    let place = place();
    work(&place);
    let kept = keeper(&place);
    let baseline = place.stored();
    let archive = place.archive("victim.tar", &victim());
    let tar = place.archive("tree.tar", &layer(&[("a", 0o600, 9, b"x"), ("shut/", 0, 7, b"")]));
    let (_server, pulled) = registry();
    let mut died = Vec::new();
    for step in 20..=31 {
        for args in [
            &["load", "-i", &archive][..],
            &["pull", &pulled],
            &["commit", "work", "victim:1"],
            &["import", &tar, "victim:1"],
            &["tag", "victim:1", "other:1"],
            &["rmi", "-f", "victim:1", "other:1"],
            &["prune", "-af"],
        ] {
            if ["tag", "rmi", "prune"].contains(&args[0]) {
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
            place.sandbox(&["rmi", "-f", "victim:1", "other:1", &pulled]).ok();
            place.sandbox(&["prune", "-f"]).ok();
            assert_eq!(place.stored(), baseline, "{step} {args:?}");
            assert_eq!(whole(&place), kept, "{step} {args:?}");
        }
    }
    for step in 20..=31 {
        assert!(died.iter().any(|(s, _)| *s == step), "nobody dies at step {step}: {died:?}");
    }
    for command in ["load", "pull", "commit", "import"] {
        for step in 20..=25 {
            assert!(died.contains(&(step, command)), "{command} does not die at step {step}: {died:?}");
        }
    }
    counted(died.len() as u64, "at each step");
    place.sandbox(&["rm", "work"]).ok();
    place.sandbox(&["rmi", "keeper:1", "base:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
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

/// The verbs that make images of other things than archives, and those that write elsewhere: with any room they work, or say why in one
/// line, and what they took is given back.
#[test]
fn a_full_disk_at_the_other_verbs() {
    need!(root(), "needs root, to become another user");
    let mut place = place();
    // A shared store with an image that is unpacked when it is run.
    let program = std::fs::read("/bin/busybox").expect("busybox-static");
    let other = layer(&[("bin/", 0o755, 0, b""), ("bin/sh", 0o755, 7, &program), ("shut/", 0, 7, b"")]);
    place.load(&docker_archive(&["shared:1"], r#"{"Env":["PATH=/bin"]}"#, &[other])).ok();
    let shared = place.at("shared-store");
    assert!(Command::new("cp").arg("-r").arg(place.store()).arg(&shared).status().unwrap().success());
    assert!(Command::new("chmod").args(["-R", "a+rX,go-w", &shared]).status().unwrap().success());
    place.sandbox(&["rmi", "shared:1"]).ok();
    let disk = Disk::new(&mut place, "48m");
    work(&place);
    let kept = keeper(&place);
    let content = noise(7, 700_000);
    let tar = place.archive("tree.tar", &layer(&[("a", 0o600, 9, &content), ("shut/", 0, 7, b"")]));
    let (_server, pulled) = registry();
    let out = disk.0.join("out.tar").display().to_string();
    place.sandbox(&["run", "--layer", "work", "base:1", "sh", "-c", "head -c 700000 /dev/urandom > /more"]).ok();
    place.env.insert("SANDBOX_STORES".into(), shared);
    let layers = |place: &Place| -> BTreeSet<String> {
        std::fs::read_dir(place.store().join("layers")).unwrap().map(|e| e.unwrap().path().display().to_string()).collect()
    };
    let own = layers(&place);
    let sh = "echo works";
    let verbs: [(&[&str], u32); 7] = [
        (&["pull", &pulled], 2),
        (&["commit", "work", "victim:1"], 2),
        (&["import", &tar, "victim:1"], 2),
        (&["save", "-o", &out, "base:1"], 2),
        (&["run", "shared:1", "sh", "-c", sh], 2),
        (&["run", "--layer", "new", "base:1", "sh", "-c", sh], 0),
        (&["tag", "base:1", "other:1"], 0),
    ];
    let undo = |place: &Place| {
        let _ = std::fs::remove_file(&out);
        place.sandbox(&["rm", "new"]);
        place.sandbox(&["rmi", "-f", "victim:1", "other:1", &pulled]).ok();
        place.sandbox(&["prune", "-f"]).ok();
        // What a run unpacked for an image of a shared store is no garbage.
        for layer in layers(place).difference(&own) {
            place.sandbox(&["layer", "remove", layer]).ok();
        }
    };
    for (args, _) in verbs {
        place.sandbox(args).ok();
        undo(&place);
    }
    let baseline = place.stored();
    for (args, least) in verbs {
        let mut failures = 0;
        for left in [0, 4 << 10, 64 << 10, 512 << 10, 1 << 20, 3 << 20, 12 << 20] {
            disk.fill(&place, left);
            let free = disk.free();
            let output = place.sandbox(args);
            if output.code() != 0 {
                failures += 1;
                full(&output);
                assert!(!std::path::Path::new(&out).exists(), "{args:?}: half an archive is left");
                assert!(!output.stdout.contains("works"), "{output:?}");
            }
            // What there is can be looked at, and removed.
            place.sandbox(&["images"]).ok();
            undo(&place);
            assert_eq!(place.stored(), baseline, "{left}: {output:?}");
            assert!(disk.free() >= free, "{left}: {} of {free}: {output:?}", disk.free());
            disk.empty();
        }
        assert!((least..7).contains(&failures), "{args:?}: {failures}");
    }
    // Nothing half, and all goes on a full disk.
    assert_eq!(whole(&place), kept);
    disk.fill(&place, 0);
    place.sandbox(&["rm", "work"]).ok();
    place.sandbox(&["rmi", "keeper:1"]).ok();
    place.sandbox(&["untag", "base:1"]).ok();
    place.sandbox(&["prune", "-f"]).ok();
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
