//! A disk that is full, to the last byte and to the last name: what is there is shown, stopped and removed; what is new is refused, and
//! leaves nothing.

use super::image::build::{oci, tiny};
use crate::support::*;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A small disk that has the sandboxes and images of a place. Where no sandbox has an overlay: a mount that comes and goes below one is in
/// the way of whoever starts at that moment.
struct Disk<'a> {
    place: &'a Place,
    at: PathBuf,
}

impl<'a> Disk<'a> {
    /// None: nobody may mount here.
    fn new(place: &'a Place, options: &str) -> Option<Disk<'a>> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let at = PathBuf::from(format!("/run/sandbox-it-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("{options},uid={0},gid={0},mode=700", place.account.uid);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).status();
        mounted.is_ok_and(|s| s.success()).then_some(Disk { place, at })
    }

    fn sandbox(&self, words: &[&str]) -> Output {
        finish(self.place.cli(words).env("XDG_DATA_HOME", &self.at).spawn().unwrap(), b"")
    }

    /// To the last byte, and if so wanted to the last name. Who frees something has it taken again.
    fn fill(&self, names: bool) {
        let mut file = std::fs::File::options().create(true).append(true).open(self.at.join("ballast")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write(&vec![0; size]).is_ok_and(|n| n > 0) {}
        }
        if names {
            let more =
                (0..).find(|n| std::fs::File::create_new(self.at.join(format!("name-{n}"))).is_err_and(|e| e.raw_os_error() == Some(libc::ENOSPC)));
            assert!(more.is_some());
        }
    }

    fn empty(&self) {
        let ours = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with("name-") || e.file_name() == "ballast";
        std::fs::read_dir(&self.at).unwrap().flatten().filter(ours).for_each(|e| std::fs::remove_file(e.path()).unwrap());
    }

    /// Every name that there is, but for the note that somebody wanted to add something: whoever changes the store next looks after that.
    fn names(&self) -> BTreeSet<String> {
        let out = Command::new("find")
            .arg(&self.at)
            .args(["-not", "-name", ".events*", "-not", "-name", "name-*", "-not", "-name", "adding-*"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).lines().map(String::from).collect()
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        self.empty();
        self.sandbox(&["rm", "-f", "-a"]);
        let _ = Command::new("umount").args(["-l"]).arg(&self.at).status();
        let _ = std::fs::remove_dir(&self.at);
    }
}

#[test]
fn a_log_on_a_full_disk_stops_nobody_and_is_told() {
    need!(root(), "needs root, to mount a small disk");
    let place = place();
    let disk = Disk::new(&place, "size=600k");
    need!(disk.is_some(), "cannot mount");
    let disk = disk.unwrap();
    let script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; seq 1 200000; sleep 2; touch /tmp/done; while [ ! -e /tmp/on ]; do sleep 0.05; done; echo more; sleep 600";
    disk.sandbox(&["run", "-d", "--name", "full", "--log-max", "10m", "--", "sh", "-c", script]).ok();
    std::fs::write(disk.at.join("ballast"), vec![0; 200 << 10]).unwrap();
    disk.sandbox(&["exec", "full", "touch", "/tmp/go"]).ok();
    assert!(within(Duration::from_secs(20), || disk.sandbox(&["exec", "full", "test", "-e", "/tmp/done"]).code() == 0));
    disk.empty();
    disk.sandbox(&["exec", "full", "touch", "/tmp/on"]).ok();
    assert!(within(Duration::from_secs(10), || disk.sandbox(&["logs", "-n", "1", "full"]).stdout == "more\n"));
    let all = disk.sandbox(&["logs", "full"]);
    let lost: Option<u64> = all.stderr.lines().find_map(|l| l.strip_prefix("sandbox: note: ")?.split(' ').next()?.parse().ok());
    assert!(all.stderr.contains("no space left"), "{all:?}");
    assert!(all.stdout.starts_with("1\n2\n3\n") && lost.is_some_and(|n| n > 500_000), "{lost:?}");
}

/// Also who runs, and with him his monitor.
fn verbs(names: bool) {
    let place = place();
    let disk = Disk::new(&place, "size=64m,nr_inodes=4000");
    need!(disk.is_some(), "cannot mount");
    let disk = disk.unwrap();
    disk.sandbox(&["load", &oci(&place, "base", &[tiny(&place)], serde_json::json!({ "Cmd": ["sh"] }))]).ok();
    let image = "localhost/base";
    let waits = "trap 'exit 3' TERM; echo said; echo kept > /kept; while :; do sleep 0.05; done";
    let runs = |name: &str, script: &str| assert!(!disk.sandbox(&["run", "-d", "--name", name, image, "sh", "-c", script]).ok().is_empty());
    runs("ended", "echo said; echo kept > /kept; exit 7");
    runs("runs", waits);
    runs("quick", "while [ ! -e /go ]; do sleep 0.05; done; exit 5");
    runs("again", waits);
    runs("loud", "while :; do seq 100; sleep 0.05; done");
    for name in ["ended", "runs", "again"] {
        assert!(within(Duration::from_secs(5), || disk.sandbox(&["logs", name]).stdout == "said\n"), "{name}");
    }
    let state = |name: &str| {
        let all = disk.sandbox(&["ps", "-a", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"]);
        all.ok().lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("gone").to_string()
    };
    assert!(within(Duration::from_secs(5), || state("ended") == "exited 7"), "{}", state("ended"));
    disk.fill(names);

    // What is there is shown.
    for name in ["ended", "runs"] {
        assert_eq!(disk.sandbox(&["logs", name]).ok(), "said");
        assert!(disk.sandbox(&["inspect", name]).ok().contains(name));
    }
    assert_eq!(disk.sandbox(&["exec", "runs", "sh", "-c", "cat /kept; exit 0"]).ok(), "kept");
    assert!(disk.sandbox(&["cp", "runs:/kept", "-"]).stdout.contains("kept\n"));
    // What is new is refused, and leaves nothing.
    let there = disk.names();
    for words in [
        &["run", "-d", "--name", "new", "--", "true"][..],
        &["run", "-d", "--name", "new", image, "true"],
        &["create", "--name", "new", image, "true"],
        &["run", "--keep", "--name", "new", image, "true"],
        &["commit", "ended", "localhost/new"],
    ] {
        disk.fill(names);
        disk.sandbox(words).refused("no space left").hinted();
        disk.sandbox(&["ps"]).ok();
        let now = disk.names();
        assert!(now == there, "{words:?}: {:?}", now.symmetric_difference(&there));
    }
    // What keeps nothing needs no room.
    assert_eq!(disk.sandbox(&["run", "--", "echo", "hi"]).ok(), "hi");
    assert_eq!(disk.sandbox(&["run", image, "sh", "-c", "echo hi"]).ok(), "hi");
    disk.fill(names);
    // How something ends is kept, even here.
    assert_eq!(state("loud").split(' ').next(), Some("running"));
    disk.sandbox(&["stop", "runs"]).ok();
    assert_eq!(state("runs"), "exited 3");
    disk.sandbox(&["kill", "loud"]).ok();
    assert!(within(Duration::from_secs(2), || state("loud") == "exited 137"), "{}", state("loud"));
    disk.fill(names);
    let restarted = disk.sandbox(&["restart", "-t", "5", "again"]);
    if names && !on_fuse() {
        restarted.refused("no space left").hinted(); // the kernel's overlay makes a directory
    } else {
        restarted.ok();
        assert_eq!(state("again").split(' ').next(), Some("running"));
    }
    // And all of it goes.
    disk.sandbox(&["rm", "ended"]).ok();
    disk.fill(names);
    disk.sandbox(&["rm", "-f", "again"]).ok();
    disk.fill(names);
    disk.sandbox(&["container", "prune", "-f"]).ok();
    assert_eq!((state("runs"), state("loud")), ("gone".into(), "gone".into()));
    disk.fill(names);
    disk.sandbox(&["rm", "-f", "-a"]).ok();
    disk.sandbox(&["prune", "-a", "-f"]).ok();
    assert_eq!(disk.sandbox(&["images", "-q"]).ok(), "");
    disk.empty();
    disk.sandbox(&["run", "-d", "--name", "new", "--", "true"]).ok();
}

#[test]
fn verbs_on_a_disk_without_a_free_byte() {
    need!(root(), "needs root, to mount a small disk");
    verbs(false);
}

#[test]
fn verbs_on_a_disk_without_a_free_name() {
    need!(root(), "needs root, to mount a small disk");
    verbs(true);
}
