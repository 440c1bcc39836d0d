//! Whoever joins a sandbox, or copies from and to it, with a hostile workload inside.

use crate::support::*;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long each racer tries; more by hand, before a release.
fn spell() -> Duration {
    Duration::from_secs(std::env::var("SANDBOX_RACE_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3))
}

/// A directory of the host's that no sandbox shows, open to everybody: `b/f` in it is a secret.
fn hidden_canary(place: &Place, name: &str) -> PathBuf {
    let dir = base().join(format!("canary-{name}-{}", place.home.file_name().unwrap().to_string_lossy()));
    std::fs::create_dir_all(dir.join("b")).unwrap();
    std::fs::write(dir.join("b/f"), "SECRET").unwrap();
    std::fs::write(dir.join("f"), "SECRET").unwrap();
    for path in [dir.clone(), dir.join("b")] {
        mode(&path, 0o777);
    }
    mode(&dir.join("b/f"), 0o666);
    mode(&dir.join("f"), 0o666);
    dir
}

/// A hostile neighbour of the same ids, with every capability that there is inside, looks into whatever appears and is not yet the command.
#[test]
fn j04_cve_2016_9962_nothing_of_the_joiner_is_seen() {
    let place = place();
    for (n, flags) in [&["-u", "0", "--cap-add", "ALL"][..], &[]].iter().enumerate() {
        let name = format!("peek{n}");
        let probe = place.probe();
        let words = [&["run", "--name", &name], *flags, &["--", &probe, "peek", "/tmp/enough"]].concat();
        let run = place.start(place.cli(&words), "up");
        let end = Instant::now() + spell();
        while Instant::now() < end {
            place.sandbox(&["exec", "-e", "TOKEN=abc", &name, "true"]).ok();
            place.sandbox(&["exec", "-u", "1", &name, "true"]).ok();
        }
        place.sandbox(&["exec", &name, "touch", "/tmp/enough"]).ok();
        let out = finish(run, b"");
        let answers = out.answers();
        assert!(answers["had"].starts_with("0"), "{flags:?}: {answers:?}");
        assert_ne!(answers["seen"], "0", "it saw none: {flags:?}");
    }
    place.nothing_left();
}

#[test]
fn s01_cve_2019_5736_the_program_is_never_written() {
    let place = place();
    // The user's own program, which root inside could write if it found it.
    let own = place.path("sandbox");
    std::fs::copy(program(), &own).unwrap();
    place.own_all("sandbox");
    mode(&own, 0o755);
    let before = (std::fs::read(&own).unwrap(), std::fs::metadata(&own).unwrap().mtime_nsec());
    let cli = |words: &[&str]| finish(place.command(&own).args(words).spawn().unwrap(), b"");
    let script = "while :; do for f in /proc/[0-9]*/exe; do (: >> $f) 2>/dev/null && echo hit; done; done > /dev/shm/hits & echo up; wait";
    let run = place.start(
        {
            let mut run = place.command(&own);
            run.args(["run", "--name", "w", "-u", "0", "--", "sh", "-c", script]);
            run
        },
        "up",
    );
    // The interpreter is the joiner's own program, if that is what this leads to.
    cli(&["exec", "-u", "0", "w", "sh", "-c", "printf '#!/proc/self/exe\\n' > /tmp/s; chmod 755 /tmp/s; ln -s /proc/self/exe /tmp/l"]).ok();
    let end = Instant::now() + spell();
    while Instant::now() < end {
        for word in ["/proc/self/exe", "/tmp/s", "/tmp/l", "true"] {
            let out = cli(&["exec", "-u", "0", "w", word]);
            assert!(!out.stdout.contains("sandbox"), "{out:?}");
        }
    }
    let _ = cli(&["rm", "-f", "w"]);
    drop(finish(run, b""));
    assert!(before == (std::fs::read(&own).unwrap(), std::fs::metadata(&own).unwrap().mtime_nsec()), "the program was written");
}

#[test]
fn s02_cve_2024_21626_no_directory_of_the_host_is_entered() {
    let place = place();
    place.sandbox(&["run", "-d", "--name", "one", "--", "sh", "-c", "ln -s /proc/self/fd/12 /tmp/l; exec sleep 600"]).ok();
    for n in 0..40 {
        for dir in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/.."), format!("/dev/fd/{n}")] {
            let out = place.sandbox(&["exec", "-w", &dir, "one", "pwd", "-P"]);
            out.refused("cannot enter");
        }
    }
    place.sandbox(&["exec", "-w", "/tmp/l", "one", "pwd"]).refused("cannot enter");
    // And what of ours, or of whoever called us, could arrive. // s03 CVE-2016-8649
    let mut leak = place.command(place.probe());
    leak.args(["leak", "200", program().to_str().unwrap(), "exec", "one", &place.probe(), "fds"]);
    let out = finish(leak.spawn().unwrap(), b"");
    let fds: Vec<_> =
        out.ok().lines().filter_map(|l| l.split_once('=')).map(|(fd, _)| fd.to_string()).filter(|fd| fd.parse::<u32>().is_ok()).collect();
    assert_eq!(fds, ["0", "1", "2"], "{out:?}");
    place.sandbox(&["rm", "-f", "one"]).ok();
}

/// The profile that binds whoever joins is the one that bound the first, whatever its file says by now.
#[test]
fn s18_cve_2019_12589_a_profile_is_not_read_again() {
    let place = place();
    let dir = place.dir("work");
    let all = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":1}]}"#;
    place.file("work/p.json", all);
    let option = format!("seccomp={}", dir.join("p.json").display());
    let dir = dir.display().to_string();
    place.sandbox(&["run", "-d", "--name", "one", "--rw", &dir, "--security-opt", &option, "--", "sleep", "600"]).ok();
    let made = |n: &str| place.sandbox(&["exec", "one", "mkdir", n]).code();
    assert_eq!(made("/tmp/a"), 1);
    place.sandbox(&["exec", "one", "sh", "-c", &format!("echo '{{\"defaultAction\":\"SCMP_ACT_ALLOW\"}}' > {dir}/p.json")]).ok();
    assert_eq!(made("/tmp/b"), 1);
    place.sandbox(&["stop", "-t", "0", "one"]).ok();
    place.sandbox(&["start", "one"]).ok();
    assert_eq!(made("/tmp/c"), 1);
    place.sandbox(&["rm", "-f", "one"]).ok();
}

/// Each component of the path is exchanged for a link to what only the host has, while files are copied out and in.
#[test]
fn p01_cve_2018_15664_a_copy_stays_inside() {
    let place = place();
    let canary = hidden_canary(&place, "race");
    let (secret, before) = (canary.display().to_string(), Snapshot::of(&canary));
    let probe = place.probe();
    let script = format!(
        "mkdir -p /tmp/r/a/b /tmp/r/d; echo inside > /tmp/r/a/b/f; ln -s {secret} /tmp/r/x; ln -s {secret}/b /tmp/r/y; ln -s {secret}/f /tmp/r/z
         ln -s ../../../../../../../../../../../..{secret} /tmp/r/u; mkdir -p /tmp/r/v/b; echo inside > /tmp/r/v/b/f; echo up
         exec {probe} swap /tmp/r/a /tmp/r/x /tmp/r/a/b /tmp/r/y /tmp/r/a/b/f /tmp/r/z /tmp/r/v /tmp/r/u"
    );
    let run = place.start(place.cli(&["run", "--name", "r", "--", "sh", "-c", &script]), "up");
    place.file("evil", "evil\n");
    place.file("tree/b/f", "evil\n");
    let (mut tried, mut done) = (0, 0);
    let end = Instant::now() + spell() * 3;
    while Instant::now() < end {
        let _ = std::fs::remove_dir_all(place.path("out"));
        place.dir("out");
        for words in [
            &["cp", "-q", "r:/tmp/r/a/b/f", "out/1"][..],
            &["cp", "-q", "-L", "r:/tmp/r/a/b/f", "out/2"],
            &["cp", "-q", "r:/tmp/r/a", "out/3"],
            &["cp", "-q", "r:/tmp/r", "out/4"],
            &["cp", "-q", "evil", "r:/tmp/r/a/b/f"],
            &["cp", "-q", "--overwrite", "evil", "r:/tmp/r/v/b"],
            &["cp", "-q", "tree/.", "r:/tmp/r/a"],
            &["cp", "-q", "-a", "r:/tmp/r/a", "r:/tmp/r/v/b"],
        ] {
            let out = place.sandbox(words);
            assert!(matches!(out.code(), 0 | 125), "{out:?}");
            (tried, done) = (tried + 1, done + i32::from(out.code() == 0));
        }
        let grep = std::process::Command::new("grep").args(["-rl", "--devices=skip", "SECRET"]).arg(place.path("out")).output().unwrap();
        // grep -r follows no links.
        assert!(grep.stdout.is_empty(), "the host's secret came out: {grep:?}");
        before.unchanged();
    }
    assert!(done > 0, "nothing was ever copied, of {tried}");
    let _ = place.sandbox(&["stop", "-t", "0", "r"]);
    drop(finish(run, b""));
    before.unchanged();
    std::fs::remove_dir_all(canary).unwrap();
}

/// Links and bits of the sandbox's are not trusted outside; nothing of its tree is run or loaded.
#[test]
fn p02_cve_2019_14271_cve_2021_41089_what_comes_out_is_only_files() {
    let place = place();
    let canary = hidden_canary(&place, "links");
    let before = Snapshot::of(&canary);
    let secret = canary.display().to_string();
    let script = format!(
        "mkdir -p /tmp/t/d; ln -s {secret} /tmp/t/d/link; echo x > /tmp/t/d/suid; chmod 6755 /tmp/t/d/suid; mkdir /tmp/u; mkdir -m 777 /tmp/u/link; echo y > /tmp/u/link/f; exec sleep 600"
    );
    place.sandbox(&["run", "-d", "--name", "one", "--", "sh", "-c", &script]).ok();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["exec", "one", "test", "-e", "/tmp/u/link/f"]).code() == 0));
    place.sandbox(&["cp", "one:/tmp/t/d", "out"]).ok();
    assert_eq!(std::fs::metadata(place.path("out/suid")).unwrap().mode() & 0o7777, 0o755);
    // The second copy would go through the first one's link.
    place.sandbox(&["cp", "one:/tmp/u/.", "out"]).refused("is there and no directory");
    place.sandbox(&["cp", "one:/tmp/u/link/f", "out/link/sub/f"]).refused("cannot copy");
    before.unchanged();
    place.sandbox(&["cp", "--overwrite", "one:/tmp/u/.", "out"]).ok();
    assert!(place.path("out/link").symlink_metadata().unwrap().is_dir());
    before.unchanged();
    for made_up in ["/proc/1/environ", "/proc", "/sys/kernel", "/proc/self/root/etc/passwd"] {
        place.sandbox(&["cp", &format!("one:{made_up}"), "made-up"]).refused("cannot copy");
        assert!(!place.path("made-up").exists());
    }
    place.sandbox(&["rm", "-f", "one"]).ok();
    std::fs::remove_dir_all(canary).unwrap();
}
