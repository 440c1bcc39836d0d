//! `cp`: what goes where, as docker has it; whose it is then; into what runs, and what does not.

use crate::image::build::{Layer, oci, tiny};
use crate::support::*;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

impl Place {
    #[track_caller]
    fn cp(&self, words: &[&str]) -> Output {
        self.sandbox(&[&["cp"], words].concat())
    }

    /// The names below a directory of the host's, in order.
    fn names(&self, dir: &str) -> String {
        let out = self.command("find").arg(dir).args(["-mindepth", "1", "-printf", "%P%y "]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let mut names: Vec<&str> = text.split_whitespace().collect();
        names.sort();
        names.join(" ")
    }
}

#[test]
fn what_goes_where() {
    let place = place();
    let script = "mkdir -p /tmp/d/e; echo f > /tmp/d/f; ln -s f /tmp/d/l; ln -s e /tmp/d/le; ln /tmp/d/f /tmp/d/hard; mkdir /tmp/into; echo old > /tmp/into/f; exec sleep 600";
    place.sandbox(&["run", "-d", "--name", "one", "--", "sh", "-c", script]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["exec", "one", "test", "-e", "/tmp/into/f"]).code() == 0));
    place.dir("there");
    for (n, (from, to, shown)) in [
        // A directory: into one that is there, as one that is not, its content.
        ("/tmp/d", "there", "dd d/ed d/ff d/hardf d/ll d/lel"),
        ("/tmp/d", "new", "ed ff hardf lel ll"),
        ("/tmp/d/", "new2/", "ed ff hardf lel ll"),
        ("/tmp/d/.", "there2/.", "ed ff hardf lel ll"),
        // A file: into a directory, as a file. A link is a link.
        ("/tmp/d/f", "there3/.", "ff"),
        ("/tmp/d/l", "there4/.", "ll"),
        ("tmp/d/le", "there5/", "lel"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = to.trim_end_matches(['/', '.']);
        if to.contains("there") {
            place.dir(dir);
        }
        place.cp(&[&format!("one:{from}"), to]).ok();
        assert_eq!(
            place.names(dir),
            {
                let mut all: Vec<_> = shown.split(' ').collect();
                all.sort();
                all.join(" ")
            },
            "{n}: {from} to {to}"
        );
    }
    let meta = |name: &str| std::fs::metadata(place.path(name)).unwrap();
    assert_eq!((meta("new/f").ino(), meta("new/f").uid()), (meta("new/hard").ino(), place.account.uid));
    place.cp(&["-L", "one:/tmp/d/l", "followed"]).ok();
    assert!(place.path("followed").symlink_metadata().unwrap().is_file());
    // A file over a file; what cannot be.
    place.file("over", "before");
    place.cp(&["one:/tmp/d/f", "over"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("over")).unwrap(), "f\n");
    place.cp(&["one:/tmp/d", "over"]).refused("cannot copy a directory to").hinted();
    place.cp(&["one:/tmp/d/f", "nodir/"]).refused("there is no such directory");
    place.cp(&["one:/tmp/d/f", "nodir/x"]).refused("there is no such directory");
    place.cp(&["one:/tmp/d/f/.", "x"]).refused("it is no directory");
    place.cp(&["one:/tmp/nothing", "x"]).refused("it is not there");
    place.cp(&["a", "b"]).refused("neither side is in a sandbox").hinted();
    place.dir("dirs/f");
    place.cp(&["one:/tmp/d/f", "dirs"]).refused("cannot copy");
    place.cp(&["--overwrite", "one:/tmp/d/f", "dirs"]).ok();
    assert_eq!(place.names("dirs"), "ff");

    // The other way.
    let inside = |script: &str| place.sandbox(&["exec", "one", "sh", "-c", script]);
    place.file("in/a/x", "x");
    place.file("in/.wh.y", "y");
    place.cp(&["in", "one:/tmp/into"]).ok();
    place.cp(&["in/.", "one:/tmp/content"]).ok();
    place.cp(&["in/a/x", "one:/tmp/into/f"]).ok();
    assert_eq!(inside("cd /tmp; cat into/in/a/x into/f content/a/x; ls -A content").ok(), "xxx.wh.y\na");
    place.cp(&["no-such", "one:/tmp"]).refused("it is not there");
    place.cp(&["in", "one:/tmp/into/f"]).refused("cannot copy a directory to");
    place.cp(&["in", "one:/tmp/nodir/x"]).refused("there is no such directory");
    // Within one sandbox, and through tar.
    place.cp(&["one:/tmp/d", "one:/tmp/within"]).ok();
    assert_eq!(inside("ls /tmp/within | wc -l").ok(), "5");
    let tar = place.cli(&["cp", "one:/tmp/d", "-"]).output().unwrap();
    let list = Command::new("tar").arg("t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(finish(list, &tar.stdout).ok().lines().next(), Some("d/"));
    let put = place.cli(&["cp", "-", "one:/tmp/into"]).stdin(Stdio::piped()).spawn().unwrap();
    finish(put, &tar.stdout).ok();
    assert_eq!(inside("cat /tmp/into/d/hard").ok(), "f");
    let put = place.cli(&["cp", "-", "one:/tmp/into/f"]).stdin(Stdio::piped()).spawn().unwrap();
    finish(put, &tar.stdout).refused("it is no directory");
    place.sandbox(&["rm", "-f", "one"]).ok();
    place.cp(&["one:/tmp/d", "x"]).refused("cannot find a sandbox");
    place.nothing_left();
}

#[test]
fn of_an_image_running_or_not() {
    let place = place();
    let word = oci(&place, "base", &[tiny(&place), Layer::new().file("etc/seed", "image\n").end()], serde_json::json!({ "Cmd": ["sh"] }));
    place.sandbox(&["load", &word]).ok();
    let create = |name: &str| place.sandbox(&["create", "--name", name, "localhost/base", "sh", "-c", "cat /etc/new /etc/seed; exec sleep 600"]);
    create("one").ok();
    create("two").ok();
    place.file("new", "put\n");
    mode(&place.path("new"), 0o640);
    // Never run; run; ended.
    place.cp(&["new", "one:/etc/"]).ok();
    place.cp(&["one:/etc/seed", "seed"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("seed")).unwrap(), "image\n");
    place.sandbox(&["start", "one"]).ok();
    assert_eq!(place.sandbox(&["exec", "one", "sh", "-c", "cat /etc/new; stat -c '%u:%g %a' /etc/new"]).ok(), "put\n0:0 640");
    place.cp(&["-a", "new", "one:/etc/mine"]).ok();
    let ids = format!("{}:{}", place.account.uid, place.account.gid);
    let own = place.sandbox(&["exec", "one", "stat", "-c", "%u:%g", "/etc/mine"]);
    assert_eq!(own.ok(), ids);
    place.sandbox(&["exec", "one", "sh", "-c", "echo gone > /etc/seed; echo v > /etc/v; chown 7:8 /etc/v"]).ok();
    place.sandbox(&["stop", "-t", "0", "one"]).ok();
    place.cp(&["one:/etc/seed", "seed"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("seed")).unwrap(), "gone\n");
    // From one to another, the owners too.
    place.cp(&["-a", "one:/etc/v", "two:/etc/v"]).ok();
    place.cp(&["one:/etc/v", "two:/etc/w"]).ok();
    place.sandbox(&["start", "two"]).ok();
    assert_eq!(place.sandbox(&["exec", "two", "stat", "-c", "%u:%g", "/etc/v", "/etc/w"]).ok(), "7:8\n0:0");
    place.sandbox(&["rm", "-f", "one", "two"]).ok();
    // Of the host's own tree nothing is kept.
    place.sandbox(&["run", "-d", "--name", "host", "--", "true"]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["ps", "-q"]).stdout.is_empty()));
    place.cp(&["host:/etc/passwd", "x"]).refused("keeps nothing of its tree").hinted();
    place.sandbox(&["rm", "host"]).ok();
    place.nothing_left();
}

/// Who copies is killed at any time: nothing stays but what was copied.
#[test]
fn killed_while_it_copies() {
    let place = place();
    place
        .sandbox(&[
            "run",
            "-d",
            "--name",
            "one",
            "--",
            "sh",
            "-c",
            "mkdir /tmp/many; cd /tmp/many; i=0; while [ $i -lt 3000 ]; do echo $i > $i; i=$((i+1)); done; touch /tmp/made; exec sleep 600",
        ])
        .ok();
    assert!(within(Duration::from_secs(20), || place.sandbox(&["exec", "one", "test", "-e", "/tmp/made"]).code() == 0));
    for (n, delay) in [5, 20, 40, 80, 120].into_iter().enumerate() {
        let mut copy = place.cli(&["cp", "one:/tmp/many", &format!("out{n}")]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let _ = copy.kill();
        copy.wait().unwrap();
    }
    assert!(within(Duration::from_secs(5), || place.processes().iter().all(|(_, line)| !line.contains("@take"))));
    place.cp(&["one:/tmp/many", "whole"]).ok();
    assert_eq!(std::fs::read_dir(place.path("whole")).unwrap().count(), 3000);
    place.sandbox(&["rm", "-f", "one"]).ok();
    place.nothing_left();
}

/// Whoever takes no more of what is copied is not waited for.
#[test]
fn the_end_of_who_takes_is_the_end() {
    let place = place();
    let script = "head -c 3000000 /dev/zero > /tmp/big; mkdir /tmp/there; chmod 500 /tmp/there; exec sleep 600";
    place.sandbox(&["run", "-d", "--name", "one", "--", "sh", "-c", script]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["exec", "one", "test", "-d", "/tmp/there"]).code() == 0));
    place.cp(&["one:/tmp/big", "/"]).refused("permission denied");
    let mut child = place.cli(&["cp", "one:/tmp/big", "-"]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(within(Duration::from_secs(5), || child.try_wait().unwrap().is_some()));
    finish(child, b"").refused("broken pipe");
    place.sandbox(&["run", "-d", "--name", "two", "--read-only", "--", "sleep", "600"]).ok();
    place.cp(&["one:/tmp/big", "two:/usr/"]).refused("cannot ");
    place.sandbox(&["rm", "-f", "-a"]).ok();
}
