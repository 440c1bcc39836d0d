//! `commit`, `diff` and `export` of sandboxes that run, whose writable layer has no name anywhere; and what must not be believed there.

use super::build::{Layer, oci, tiny};
use crate::support::*;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

fn image(place: &Place, name: &str, config: Value) -> String {
    let word = oci(place, name, &[tiny(place), Layer::new().file("seed", "from the image\n").end()], config);
    place.sandbox(&["load", &word]).ok();
    format!("localhost/{name}")
}

impl Place {
    /// `sandbox run --name NAME FLAGS IMAGE sh -c SCRIPT`, which says "up" and sleeps when the script is over.
    #[track_caller]
    fn running(&self, name: &str, flags: &[&str], image: &str, script: &str) -> Child {
        let script = format!("{script}\necho up; sleep 600");
        let words = [&["run", "--name", name, "--entrypoint", ""], flags, &[image, "sh", "-c", &script]].concat();
        self.start(self.cli(&words), "up")
    }

    /// The record of a sandbox that runs in the foreground: its directory.
    fn record(&self, name: &str) -> PathBuf {
        let root = self.env.get("XDG_RUNTIME_DIR").map_or_else(|| self.path(".cache/sandbox/live"), |dir| PathBuf::from(dir).join("sandbox"));
        let list = self.sandbox(&["ps", "--format", "{{.ID}} {{.Names}}"]);
        let id = list.ok().lines().find_map(|line| line.strip_suffix(name)?.strip_suffix(' ')).expect("it runs").to_string();
        let mut all = std::fs::read_dir(root.join("sandboxes")).unwrap().map(|e| e.unwrap().path());
        all.find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&id))).expect("its directory")
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn list(tar: &str) -> Vec<String> {
    let out = Command::new("tar").args(["--numeric-owner", "-tvf", tar]).output().unwrap();
    // What a run makes bears the time of that run.
    let words =
        |line: &str| line.split_whitespace().enumerate().filter(|(n, _)| !(3..=4).contains(n)).map(|(_, w)| w.to_string()).collect::<Vec<_>>();
    String::from_utf8(out.stdout).unwrap().lines().map(|l| words(l).join(" ")).collect()
}

#[test]
fn a_running_sandbox_is_as_a_kept_one() {
    let place = place();
    let name = image(&place, "base", json!({ "Cmd": ["sh"], "Volumes": { "/vol": {}, "/var/seed": {} } }));
    let script = "echo hi > /new; rm /bin/wc; chown bob /tmp; rm -r /home; mkdir /home; echo z > /home/z; echo v > /vol/v
        chown bob:extra /home/z; ln /new /hard; ln -s /seed /soft; echo > /etc/hosts";
    let kept = place.running("kept", &["--keep"], &name, script);
    let lost = place.running("lost", &[], &name, script);
    let layer = place.running("other", &["--layer", "mine"], &name, script);
    let diff = place.sandbox(&["diff", "kept"]);
    assert!(diff.ok().contains("A /home/z\n") && diff.ok().contains("D /bin/wc\n") && !diff.ok().contains("/vol/v"), "{diff:?}");
    for running in ["lost", "other"] {
        assert_eq!(place.sandbox(&["diff", running]).ok(), diff.ok());
    }
    assert!(place.sandbox(&["diff", "lost"]).stderr.contains("lost is running"));

    let trees = ["kept", "lost", "other"].map(|sandbox| {
        let tar = place.at(sandbox);
        place.sandbox(&["export", "-o", &tar, sandbox]).ok();
        list(&tar)
    });
    assert!(trees[0].iter().any(|l| l.contains("1000/2000") && l.ends_with(" home/z")), "{:?}", trees[0]);
    assert!(!trees[0].iter().any(|l| l.contains("vol/v") || l.contains(".wh.") || l.ends_with(" bin/wc")), "{:?}", trees[0]);
    assert_eq!(trees[0], trees[1]);
    assert_eq!(trees[0], trees[2]);

    place.sandbox(&["commit", "-m", "why", "-c", "ENV B=2", "lost", "localhost/two"]).ok();
    place.sandbox(&["commit", "kept", "localhost/three"]).ok();
    let seen = "stat -c '%h %u:%g %a %n' /new /home/z /tmp; ls -a /home /vol; cat /soft /new; ls /bin/wc; echo $B";
    let two = place.sandbox(&["run", "--entrypoint", "", "localhost/two", "sh", "-c", seen]);
    assert!(two.stdout.contains("2 0:0 644 /new\n1 1000:2000 644 /home/z\n") && two.stdout.ends_with("from the image\nhi\n2\n"), "{two:?}");
    let three = place.sandbox(&["run", "-e", "B=2", "--entrypoint", "", "localhost/three", "sh", "-c", seen]);
    assert_eq!(two.stdout, three.stdout);
    assert!(place.sandbox(&["history", "localhost/two"]).ok().contains("why"));

    // It goes on undisturbed, and goes with what it wrote.
    place.sandbox(&["rm", "lost"]).refused("cannot remove 'lost': it runs").hinted();
    place.sandbox(&["rm", "other"]).refused("cannot remove 'other': it runs").hinted();
    [kept, lost, layer].into_iter().for_each(end);
    assert!(within(Duration::from_secs(5), || place.sandbox(&["rm", "kept", "mine"]).code() == 0));
    for verb in ["commit", "diff", "export", "rm"] {
        place.sandbox(&[verb, "lost"]).refused("lost").hinted();
    }
    place.sandbox(&["run", "--name", "lost", "--", "true"]).ok();
    place.sandbox(&["diff", "lost"]).refused("cannot find").hinted();
    place.sandbox(&["rmi", &name, "localhost/two", "localhost/three"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
    place.nothing_left();
}

/// As docker's users take an image apart: `docker export $(docker create IMAGE)`.
#[test]
fn one_that_never_ran_is_its_image() {
    let place = place();
    let name = image(&place, "untouched", json!({ "Cmd": ["sh"] }));
    let (whole, tar) = (place.at("whole.tar"), place.at("never.tar"));
    place.sandbox(&["run", "--keep", "--name", "ran", &name, "true"]).ok();
    place.sandbox(&["export", "-o", &whole, "ran"]).ok();
    for flags in [&[][..], &["--rm"]] {
        place.sandbox(&[&["create", "--name", "never"], flags, &[&name]].concat()).ok();
        assert_eq!(place.sandbox(&["diff", "never"]).ok(), "");
        place.sandbox(&["export", "-o", &tar, "never"]).ok();
        let below_the_top = |tar: &str| list(tar).into_iter().filter(|line| !line.ends_with(" ./")).collect::<Vec<_>>();
        assert_eq!(below_the_top(&tar), below_the_top(&whole));
        place.sandbox(&["commit", "-c", "ENV A=1", "never", "localhost/again"]).ok();
        assert_eq!(place.sandbox(&["run", "localhost/again", "sh", "-c", "echo $A"]).ok(), "1");
        place.sandbox(&["rm", "never"]).ok();
        place.sandbox(&["rmi", "localhost/again"]).ok();
    }
    // What was copied to it is all that it has.
    place.sandbox(&["create", "--name", "never", &name]).ok();
    place.file("in", "in");
    place.sandbox(&["cp", &place.at("in"), "never:/in"]).ok();
    assert_eq!(place.sandbox(&["diff", "never"]).ok(), "A /in");
    place.sandbox(&["rm", "never", "ran"]).ok();
    place.sandbox(&["rmi", &name]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
    place.nothing_left();
}

#[test]
fn what_has_no_layer_of_an_image() {
    let place = place();
    let name = image(&place, "ro", json!({ "Cmd": ["sh"], "Volumes": { "/vol": {} } }));
    let host = place.start(place.cli(&["run", "--name", "host", "--", "sh", "-c", "echo up; sleep 600"]), "up");
    place.sandbox(&["commit", "host"]).refused("cannot look into 'host': it runs no image").hinted();
    // A root that nobody can write to has an empty one; with a terminal, two descriptors come over the wire.
    let fixed = place.running("fixed", &["--read-only", "-t"], &name, "echo v > /vol/v; ! echo x 2>/dev/null > /x");
    let diff = place.sandbox(&["diff", "fixed"]);
    assert!(!diff.ok().contains("/x") && !diff.ok().contains("/vol/v"), "{diff:?}");
    // In another store there is no image for it.
    let mut elsewhere = place.cli(&["commit", "fixed"]);
    elsewhere.env("XDG_DATA_HOME", place.at("elsewhere"));
    finish(elsewhere.spawn().unwrap(), b"").refused("its layer is in another store").hinted();
    end(host);
    end(fixed);
}

#[test]
fn one_id_and_a_runtime_directory_will_do() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let mut place = Place::of(plain);
    let runtime = place.dir("runtime");
    mode(&runtime, 0o700);
    place.env.insert("XDG_RUNTIME_DIR".into(), runtime.display().to_string());
    let name = image(&place, "single", json!({ "Cmd": ["sh"] }));
    let child = place.running("one", &[], &name, "echo x > /x; rm /bin/wc");
    assert_eq!(place.sandbox(&["diff", "one"]).ok(), "C /bin\nD /bin/wc\nA /x");
    place.sandbox(&["commit", "one", "localhost/more"]).ok();
    assert_eq!(place.sandbox(&["run", "localhost/more", "cat", "/x"]).ok(), "x");
    // Where the name's file is, only its owner comes; and another user's sandbox is not found by its name.
    place.env.remove("XDG_RUNTIME_DIR");
    place.sandbox(&["diff", "one"]).refused("cannot find").hinted();
    end(child);
}

/// What is written meanwhile, and by whom, leads nowhere else: files, directories and links that change places all the time.
#[test]
fn cve_2018_15664_cve_2019_18466_cve_2023_0778_a_race_shows_nothing_of_the_host() {
    let place = place();
    let name = image(&place, "race", json!({ "Cmd": ["sh"] }));
    let secret = canary(&place);
    let (file, dir) = (secret.join("secret").display().to_string(), secret.display().to_string());
    let script = format!(
        "cd /; mkdir -p a/sub b c; echo inside > a/secret; echo inside > a/sub/file; cat bin/* > big
        ln -s {dir} toward; ln -s {file} to
        (while :; do mv a x; ln -s {dir} a; rm a; mkdir a; rm -r a; mv x a; done) 2>/dev/null &
        (while :; do ln -sfn {file} b/n; rm b/n; echo inside > b/n; rm b/n; mkdir b/n; rm -r b/n; done) 2>/dev/null &
        (while :; do echo 1 > big; cat bin/cat > big; ln big c/hard; rm c/hard; done) 2>/dev/null &
        (while :; do mkdir -p d/e/f/g; echo x > d/e/f/g/h; rm -r d; done) 2>/dev/null &"
    );
    let child = place.running("racer", &[], &name, &script);
    let mut torn = 0;
    for n in 0..20 {
        let commit = place.sandbox(&["commit", "racer", "localhost/racer"]);
        commit.ok();
        torn += u32::from(commit.stderr.contains("this changed meanwhile"));
        place.sandbox(&["diff", "racer"]).ok();
        let tar = place.at("tree.tar");
        if n % 4 == 0 {
            place.sandbox(&["export", "-o", &tar, "racer"]).ok();
            let bytes = std::fs::read(&tar).unwrap();
            assert!(!bytes.windows(9).any(|w| w == b"CANARY-47"), "the export of round {n} holds the secret");
        }
        let found = Command::new("grep").args(["-rl", "CANARY-47"]).arg(place.store().join("layers")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "round {n}");
        place.sandbox(&["rmi", "localhost/racer"]).ok();
    }
    eprintln!("{torn} of 20 commits were torn");
    end(child);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "CANARY-4711");
}

/// Whoever can write the record can say what he likes: only what is true of a living process of ours is believed.
#[test]
fn cve_2022_31214_cve_2019_12589_a_forged_record_is_not_believed() {
    let place = place();
    let name = image(&place, "true", json!({ "Cmd": ["sh"] }));
    let child = place.running("web", &[], &name, "echo x > /x");
    let other = place.running("other", &[], &name, "echo y > /y");
    let inside = place.start(place.cli(&["run", "--", "sh", "-c", "echo up; sleep 600"]), "up");
    let dir = place.record("web");
    let file = dir.join("state.json");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let theirs: Value = serde_json::from_str(&std::fs::read_to_string(place.record("other").join("state.json")).unwrap()).unwrap();
    let start = |pid: u32| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
    };
    let workload = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", inside.id())).unwrap();
    let workload: u32 = workload.split_whitespace().next().unwrap().parse().unwrap();
    let with = |changes: &[(&str, Value)]| {
        let mut forged = record.clone();
        changes.iter().for_each(|(path, value)| *forged.pointer_mut(path).unwrap() = value.clone());
        forged.to_string()
    };
    let process = |pid: u32| json!({ "pid": pid, "start": start(pid) });
    let shm = std::fs::metadata("/dev/shm").unwrap();
    let own = std::process::id();
    // Of who stays, and of what it writes.
    let cases = [
        ("a dead process", with(&[("/stays/pid", json!(4_194_303))]), "is not there"),
        ("a number that is used again", with(&[("/stays/start", json!(record["stays"]["start"].as_u64().unwrap() + 1))]), "is not there"),
        ("another machine's life", with(&[("/boot", json!("x"))]), "another start of the machine"),
        ("another process", with(&[("/stays", process(own))]), if root() { "not one of yours" } else { "locked" }),
        ("PID 1", with(&[("/stays", process(1))]), "not one of yours"),
        ("one inside a sandbox", with(&[("/stays", process(workload))]), "not one of yours"),
        ("another sandbox", theirs.to_string(), "does not have it locked"),
        ("another descriptor as the lock", with(&[("/lock", json!(0))]), "does not have it locked"),
        ("no directory", with(&[("/lost/descriptor", json!(0))]), "cannot be opened"),
        ("no descriptor", with(&[("/lost/descriptor", json!(9999))]), "it has ended"),
        ("another directory", with(&[("/lost/inode", json!(1))]), "is another one"),
        ("a directory of ours", with(&[("/lost/device", json!(shm.dev())), ("/lost/inode", json!(shm.ino()))]), "is another one"),
        ("no JSON", "{".into(), "cannot believe"),
        ("too much", format!("{}{}", " ".repeat(5_000_000), record), "cannot believe"),
        ("a way out", with(&[("/status", json!("../../x"))]), "cannot believe"),
    ];
    let of_the_layer = 8..12;
    for (number, (what, forged, says)) in cases.into_iter().enumerate() {
        std::fs::write(&file, forged).unwrap();
        for verb in ["commit", "diff", "export"] {
            let out = place.sandbox(&[verb, "web"]);
            assert!(out.code() != 0 && out.stderr.contains(says), "{what}: {out:?}");
        }
        if !of_the_layer.contains(&number) {
            for verb in ["kill", "stop"] {
                let out = place.sandbox(&[verb, "web"]);
                assert!(out.code() != 0 && out.stderr.contains(says), "{what}: {verb}: {out:?}");
            }
        }
        // One that cannot be believed hides no other.
        assert!(place.sandbox(&["ps"]).ok().contains("other"), "{what}");
    }
    // A process of ours, which is not to be signalled: it is PID 1 of another sandbox.
    for verb in ["kill", "stop"] {
        std::fs::write(&file, with(&[("/init", theirs["init"].clone())])).unwrap();
        place.sandbox(&[verb, "web"]).refused("the process that it names as PID 1 is another one").hinted();
        std::fs::write(&file, with(&[("/init", process(place.supervisor(&other)))])).unwrap();
        place.sandbox(&[verb, "web"]).refused("the process that it names as PID 1 is another one").hinted();
    }
    std::fs::write(&file, record.to_string()).unwrap();
    assert!(place.sandbox(&["diff", "web"]).ok().contains("A /x"), "as it was, it is believed");
    assert!(place.sandbox(&["diff", "other"]).ok().contains("A /y"), "nobody signalled it");

    // What was decided leads nowhere else.
    let decided = dir.join("config.json");
    let config = std::fs::read_to_string(&decided).unwrap();
    for (what, path, value) in [
        ("another sandbox's", "/id", json!("0".repeat(64))),
        ("a way out", "/image/manifest", json!("sha256:../../x")),
        ("a way out", "/name", json!("../x")),
        ("what a terminal acts on", "/name", json!("\u{1b}[2J")),
    ] {
        let mut forged: Value = serde_json::from_str(&config).unwrap();
        *forged.pointer_mut(path).unwrap() = value;
        std::fs::write(&decided, forged.to_string()).unwrap();
        for verb in ["diff", "kill", "rm"] {
            let out = place.sandbox(&[verb, "web"]);
            out.refused("cannot believe").hinted();
            assert!(!out.stderr.contains('\u{1b}'), "{what}: {out:?}");
        }
    }
    std::fs::write(&decided, config).unwrap();

    // A link, a pipe, a directory, a file of somebody else's, a directory that others may write to.
    let aside = place.path("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &file).unwrap();
    place.sandbox(&["diff", "web"]).refused("cannot believe").hinted();
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    place.sandbox(&["diff", "web"]).refused("no file of yours").hinted();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    place.sandbox(&["diff", "web"]).refused("no file of yours").hinted();
    std::fs::remove_dir(&file).unwrap();
    std::fs::copy(&aside, &file).unwrap();
    give(&file, 0, 0);
    mode(&file, 0o644);
    if root() {
        place.sandbox(&["diff", "web"]).refused("no file of yours").hinted();
    }
    std::fs::rename(&aside, &file).unwrap();
    mode(&dir, 0o777);
    place.sandbox(&["diff", "web"]).refused("no directory of yours").hinted();
    mode(&dir, 0o700);
    // A copy of all of it is nobody's: who stays has the other one locked.
    let copy = dir.with_file_name("0".repeat(64));
    assert!(Command::new("cp").arg("-a").arg(&dir).arg(&copy).status().unwrap().success());
    place.sandbox(&["diff", &"0".repeat(64)]).refused("cannot find").hinted();
    assert!(!copy.exists(), "what nobody stays with in the foreground is swept");
    let root = dir.parent().unwrap();
    mode(root, 0o777);
    place.sandbox(&["diff", "web"]).refused("cannot trust").hinted();
    mode(root, 0o700);
    assert!(place.sandbox(&["diff", "web"]).ok().contains("A /x"));

    // Killed, it leaves its record, which is then nobody's, and is swept; and the next one has its own.
    end(child);
    assert!(file.exists());
    place.sandbox(&["diff", "web"]).refused("cannot find").hinted();
    assert!(!dir.exists());
    let again = place.running("web", &[], &name, "echo z > /z");
    let diff = place.sandbox(&["diff", "web"]);
    assert!(diff.ok().contains("A /z") && !diff.ok().contains("/x"), "{diff:?}");
    [again, other, inside].into_iter().for_each(end);
}
