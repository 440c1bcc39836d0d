//! `run --keep` and `--layer` on the host's tree, and `apply`: what was written over a directory of the host is looked at, and put there.

use crate::image::has;
use crate::support::*;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

impl Place {
    #[track_caller]
    fn apply(&self, words: &[&str]) -> Output {
        self.sandbox(&[&["apply"], words].concat())
    }

    /// A directory of the host with a bit of everything.
    fn project(&self) -> String {
        for (file, content) in [("src/a", "a\n"), ("src/b", "b\n"), ("old/sub/f", "f\n"), ("old/g", "g\n"), ("doc/deep/x", "x\n"), ("keep", "k\n")] {
            self.file(&format!("proj/{file}"), content);
        }
        self.symlink("src", "proj/link");
        self.dir("proj/empty");
        self.own_all("proj");
        self.at("proj")
    }

    /// All that a directory holds, in a form to be compared.
    fn all_of(&self, dir: &str) -> String {
        let out = self.command("sh").args(["-c", SHOWN, "sh", dir]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }
}

/// Kind, mode, path, where a link leads to; names of one file; content.
const SHOWN: &str = "cd \"$1\"; find . -mindepth 1 -printf '%y %m %p %l\\n' | sort; find . -type f -printf '%p %n %T@\\n' | sort; \
                     find . -type f | sort | xargs cat";

const WORK: &str = "echo A > src/a; rm src/b; echo n > src/new; chmod 750 src/new; rm -r old; mkdir -m 700 old; mkdir old/sub; echo h > old/sub/h; \
                    rm -r doc; echo file > doc; rm link; mkdir link; echo l > link/l; rmdir empty; ln -s nowhere empty; ln src/new twice; \
                    mkdir -p deep/er; echo d > deep/er/d; mkfifo pipe; chmod 600 keep; printf 'x' | dd of=sparse bs=1 seek=100000 2>/dev/null";

#[test]
fn what_was_written_is_looked_at_and_put_there() {
    let place = place();
    let project = place.project();
    let before = place.all_of(&project);
    let script = format!("cd proj; {WORK}; cd ..; {}", SHOWN.replace("\"$1\"", "proj"));
    let inside = place.inside_with(&["--keep", "--name", "fix", "--cow", "proj"], &script);
    let inside = inside.ok();
    assert_eq!(place.all_of(&project), before);
    let listed = |words: &[&str]| {
        let out = place.sandbox(words);
        out.ok().lines().map(|l| l.replace(&format!("{project}/"), "")).collect::<Vec<_>>().join(", ")
    };
    let diff = listed(&["diff", "fix"]);
    for line in ["C src/a", "D src/b", "A src/new", "C doc", "A deep/er/d", "C keep"] {
        assert!(diff.split(", ").any(|l| l == line), "{line}: {diff}");
    }
    // What is there of a directory that was made anew is gone with it.
    let all = "A deep, A deep/er, A deep/er/d, C doc, C empty -> nowhere, C keep, C link, A link/l, C old, D old/g, D old/sub/f, A old/sub/h, A pipe, A sparse, \
               C src/a, D src/b, A src/new, A twice";
    assert_eq!(listed(&["apply", "--dry-run", "fix"]), all);
    place.apply(&["fix"]).refused("this is no terminal").hinted();
    assert_eq!(place.all_of(&project), before);
    let rows = place.apply(&["--dry-run", "fix", "--format", "json"]);
    let row: Value = serde_json::from_str(rows.ok().lines().next().unwrap()).unwrap();
    assert_eq!((row["Kind"].as_str(), row["Conflict"].as_bool()), (Some("A"), Some(false)));

    // A part of it, and then the rest; what is there already is not done again.
    assert_eq!(listed(&["apply", "--force", "fix", "proj/src/a", &format!("{project}/deep/../deep/er/d")]), "A deep/er/d, C src/a");
    assert_eq!(std::fs::read_to_string(place.path("proj/src/a")).unwrap(), "A\n");
    assert!(place.path("proj/src/b").exists() && !place.path("proj/src/new").exists() && !place.path("proj/pipe").exists());
    place.apply(&["--dry-run", "fix", "/etc"]).refused("it is not below");
    place.apply(&["--force", "fix"]).ok();
    assert_eq!(place.all_of(&project).trim(), inside);
    assert_eq!(listed(&["apply", "--dry-run", "fix"]), "");
    let meta = std::fs::metadata(place.path("proj/src/new")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (place.account.uid, place.account.gid));
    // It is a layer like others, and no image's.
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}} {{.Image}}"]).ok(), format!("fix {project}"));
    place.sandbox(&["commit", "fix"]).refused("it lies on a directory of the host").hinted();
    place.sandbox(&["export", "-o", "x.tar", "fix"]).refused("it lies on a directory of the host").hinted();
    place.sandbox(&["rm", "fix"]).ok();
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}}"]).ok(), "");
}

/// git reads it, and makes of the directory of before what the sandbox made of it.
#[test]
fn the_patch_is_one_of_gits() {
    need!(has("git"), "needs git");
    let place = place();
    let project = place.project();
    place.file("proj/src/long", &(0..100).map(|n| format!("line {n}\n")).collect::<String>());
    place.own_all("proj");
    let work = "cd proj; sed -i 's/line 50/LINE/; s/line 90/LINE\\t90/' src/long; rm src/b; rm -r old; mkdir old; printf 'no newline' > old/new; chmod +x src/a; \
                ln -s src/a l; rm link; printf 'a\\nb\\n' > link; \
                rm keep; mkdir keep; echo k > keep/k; rm -r doc; echo file > doc";
    place.inside_with(&["--keep", "--name", "fix", "--cow", "proj"], work).ok();
    let patch = place.apply(&["--patch", "fix"]);
    assert!(patch.ok().contains("@@ -48,7 +48,7 @@") && patch.stdout.contains("old mode 100644\nnew mode 100755"), "{patch:?}");
    place.command("cp").args(["-a", "proj", "copy"]).status().unwrap();
    let copy = place.path("copy");
    let mut git = place.command("git");
    git.args(["apply", "-"]).current_dir(&copy).stdin(std::process::Stdio::piped());
    finish(git.spawn().unwrap(), patch.stdout.as_bytes()).ok();
    place.apply(&["--force", "fix"]).ok();
    let files = |dir: &str| {
        let script = "cd \"$1\"; find . -type l -printf '%p %l\\n' -o -type f -printf '%p %m\\n' | sort; find . -type f | sort | xargs tail -n +1";
        String::from_utf8(place.command("sh").args(["-c", script, "sh", dir]).output().unwrap().stdout).unwrap()
    };
    assert_eq!(files("copy"), files(&project));
    place.sandbox(&["rm", "fix"]).ok();
    // What is no text is not shown, and nothing speaks to the terminal of who looks.
    let odd = "cd proj; head -c 3000 /dev/zero > bin; printf '\\033[2Jx\\n' > evil; ln -s 'a\u{1b}b' lnk; ln evil twin";
    place.inside_with(&["--keep", "--name", "odd", "--cow", "proj"], odd).ok();
    assert!(place.apply(&["--patch", "odd"]).ok().contains("Binary files /dev/null and b/bin differ"));
    assert!(place.apply(&["--patch", "odd"]).ok().contains("b/twin differ"));
    let listed = place.apply(&["--dry-run", "odd"]);
    assert!(listed.ok().contains(&format!("A {project}/lnk -> a\\u{{1b}}b")), "{listed:?}");
    place.sandbox(&["rm", "odd"]).ok();
}

#[test]
fn what_changed_on_the_host_is_not_lost() {
    let place = place();
    let project = place.project();
    place.inside_with(&["--keep", "--name", "fix", "--cow", &project], "cd proj; echo A > src/a; echo B > src/b; rm -r old; rm keep").ok();
    std::thread::sleep(Duration::from_millis(20));
    for (file, content) in [("proj/src/a", "mine\n"), ("proj/old/sub/f", "mine\n")] {
        std::fs::write(place.path(file), content).unwrap();
    }
    let before = place.all_of(&project);
    let out = place.apply(&["--force", "fix"]);
    out.refused("2 of these were changed on the host since").hinted();
    for line in ["C PROJ/src/a  (changed", "D PROJ/old  (changed", "C PROJ/src/b\n", "D PROJ/keep\n"] {
        assert!(out.stdout.contains(&line.replace("PROJ", &project)), "{line}: {out:?}");
    }
    assert_eq!(place.all_of(&project), before);
    place.apply(&["--force", "fix", "proj/src/b", "proj/keep"]).ok();
    assert!(!place.path("proj/keep").exists() && place.path("proj/old/sub/f").exists());
    assert_eq!(std::fs::read_to_string(place.path("proj/src/a")).unwrap(), "mine\n");
    place.apply(&["--force", "--overwrite", "fix"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("proj/src/a")).unwrap(), "A\n");
    assert!(!place.path("proj/old").exists());
    place.sandbox(&["rm", "fix"]).ok();
}

/// What somebody on the host has put in the way since leads nowhere; and what was written inside has no more rights outside.
#[test]
fn cve_2018_15664_nothing_is_written_by_way_of_a_link() {
    let place = place();
    let project = place.project();
    let outside = &place.dir("outside");
    let canary = place.file("outside/canary", "canary\n");
    let script = "cd proj; echo A > src/a; echo new > src/canary; rm old/g; echo evil > doc/deep/y; rm doc/deep/x; cp /bin/true su; chmod 6755 su";
    place.inside_with(&["--keep", "--name", "fix", "--cow", &project], script).ok();
    let seen = (std::fs::read(&canary).unwrap(), std::fs::read_dir(outside).unwrap().count());
    for dir in ["proj/src", "proj/old", "proj/doc/deep"] {
        std::fs::remove_dir_all(place.path(dir)).unwrap();
        place.symlink(outside, dir);
    }
    let out = place.apply(&["--force", "--overwrite", "fix"]);
    assert_eq!((std::fs::read(&canary).unwrap(), std::fs::read_dir(outside).unwrap().count()), seen, "{out:?}");
    // By its own entry in the layer, a directory takes the place of the link.
    assert!(out.code() != 0 || !place.path("proj/src").is_symlink(), "{out:?}");
    assert!(std::fs::symlink_metadata(place.path("proj/su")).is_ok_and(|m| m.mode() & 0o7777 == 0o755), "{out:?}");
    place.sandbox(&["rm", "fix"]).ok();
}

#[test]
fn names_that_others_trust_are_left_out_unless_named() {
    let place = place();
    let project = place.project();
    place
        .inside_with(&["--keep", "--name", "fix", "--cow", &project], "cd proj; mkdir -p .git/hooks; echo x > .git/hooks/post-commit; echo y > z")
        .ok();
    let out = place.apply(&["--force", "fix"]);
    assert!(out.stderr.contains("proj/.git/hooks is left out (run by git"), "{out:?}");
    assert!(place.path("proj/z").exists() && !place.path("proj/.git/hooks/post-commit").exists(), "{out:?}");
    place.apply(&["--force", "fix", "proj/.git/hooks/post-commit"]).ok();
    assert!(place.path("proj/.git/hooks/post-commit").exists());
    place.sandbox(&["rm", "fix"]).ok();
    // Nor are they taken away with the directory that they are in, where that is made anew.
    let script = "cd proj; touch .git/gone; rm -r .git; mkdir -p .git/hooks; echo evil > .git/hooks/pre-push; echo new > .git/new";
    place.file("proj/.git/gone", "");
    place.own_all("proj");
    place.inside_with(&["--keep", "--name", "anew", "--cow", &project], script).ok();
    place.apply(&["--force", "anew"]).ok();
    let names = place.command("sh").args(["-c", "cd proj/.git; echo *; ls hooks"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8(names).unwrap(), "hooks new\npost-commit\n");
    place.sandbox(&["rm", "anew"]).ok();
}

#[test]
fn a_layer_over_a_directory_is_gone_on_with() {
    let place = place();
    let project = place.project();
    let run = |script: &str| {
        // The working directory, where none is said.
        let mut command = place.cli(&["run", "--layer", "work", "--", "sh", "-c", script]);
        finish(command.current_dir(&project).spawn().unwrap(), b"")
    };
    run("echo 1 >> log; echo lost > ../lost").ok();
    assert_eq!(run("echo 2 >> log; cat log").ok(), "1\n2");
    assert!(!Path::new(&project).join("log").exists() && !place.path("lost").exists());
    place.dir("other");
    place.inside_with(&["--layer", "work", "--cow", "other"], "true").refused("it was made on").hinted();
    // A detached one: nothing is applied while it runs; it is there again when it is started again.
    place.sandbox(&["run", "-d", "--keep", "--name", "long", "--cow", "proj", "--", "sh", "-c", "echo x >> proj/x; exec sleep 600"]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["exec", "long", "test", "-e", "proj/x"]).code() == 0));
    assert!(place.sandbox(&["diff", "long"]).ok().contains(&format!("A {project}/x")));
    place.apply(&["--force", "long"]).refused("it is running").hinted();
    place.sandbox(&["stop", "-t", "0", "long"]).ok();
    place.sandbox(&["start", "long"]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["exec", "long", "cat", "proj/x"]).stdout.lines().count() == 2));
    place.sandbox(&["stop", "-t", "0", "long"]).ok();
    place.apply(&["--force", "long"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("proj/x")).unwrap(), "x\nx\n");
    place.sandbox(&["rm", "long"]).ok();
    place.sandbox(&["rm", "work"]).ok();
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}}"]).ok(), "");
    // What cannot be.
    place.inside_with(&["--keep"], "true").refused("it would be kept in").hinted();
    place.inside_with(&["--keep", "--cow", "proj", "--cow", "other"], "true").refused("several directories").hinted();
    place.sandbox(&["run", "--keep", "--rootfs", "other", "true"]).refused("with --rootfs").hinted();
    place.apply(&["none"]).refused("cannot find");
}

#[test]
fn one_id_is_enough_to_apply() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let project = place.project();
    let script = format!("cd proj; {WORK}; cd ..; {}", SHOWN.replace("\"$1\"", "proj"));
    let inside = place.inside_with(&["--keep", "--name", "fix", "--cow", "proj"], &script);
    place.apply(&["--force", "fix"]).ok();
    assert_eq!(place.all_of(&project).trim(), inside.ok());
    place.sandbox(&["rm", "fix"]).ok();
}
