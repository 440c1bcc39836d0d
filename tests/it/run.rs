//! What each flag of `sandbox run` does, as the kernel shows it from inside and the host's files show it after.

use crate::support::*;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

// Files.

#[test]
fn writes_go_nowhere() {
    let place = place();
    place.file("kept/file", "old");
    place.file("kept/sub/deep", "old");
    place.symlink("file", "kept/link");
    let before = place.snapshot("kept");
    let script = "cd kept; echo new > made; echo new >> file; mv sub moved; rm link; ln file hard; chmod 700 file; mkdir -p a/b; touch -d 2001-01-01 file; rm -r moved; mkdir sub; \
                  echo again > sub/deep; cat made file sub/deep; ls | tr '\\n' ' '";
    assert_eq!(place.inside(script).ok(), "new\noldnew\nagain\na file hard made sub ");
    before.unchanged();
}

#[test]
fn the_system_can_be_written_as_far_as_the_user_may() {
    let place = place();
    let output = place.inside("touch /etc/x /usr/x /x 2>&1 | wc -l; touch /tmp/x /var/tmp/x ~/x /dev/shm/x && echo fine");
    assert_eq!(output.ok(), "3\nfine");
    let output = place.inside_with(&["-u", "0"], "touch /etc/x /usr/bin/x /var/lib/x && rm /etc/hostname && echo fine");
    if subuids(&place.account).is_some() {
        // The host's root has no id inside, and so its directories cannot be copied up; where they can, the host is whole.
        assert!(output.code() == 0 || output.stderr.contains("Value too large") || output.stderr.contains("ermission"), "{output:?}");
    }
    assert!(std::path::Path::new("/etc/hostname").exists() && !std::path::Path::new("/etc/x").exists());
}

#[test]
fn the_caller_is_the_caller_inside() {
    let place = place();
    let output = place.inside("id -un; id -u; id -g; pwd; echo $HOME; whoami");
    let a = &place.account;
    let home = place.home.display();
    assert_eq!(output.ok(), format!("{}\n{}\n{}\n{home}\n{home}\n{}", a.name, a.uid, a.gid, a.name));
}

#[test]
fn files_of_the_caller_are_the_callers_inside() {
    let place = place();
    place.file("mine", "");
    assert_eq!(
        place.inside("stat -c %U mine; stat -c %u ~; touch new; stat -c %U new").ok(),
        format!("{0}\n{1}\n{0}", place.account.name, place.account.uid)
    );
}

#[test]
fn rw_writes_through() {
    let place = place();
    place.dir("out");
    place.file("keep", "old");
    place.inside_with(&["--rw", "out"], "echo data > out/file; echo no > keep; mkdir out/d; ln -s file out/link").ok();
    assert_eq!(std::fs::read_to_string(place.path("out/file")).unwrap(), "data\n");
    assert_eq!(std::fs::read_to_string(place.path("keep")).unwrap(), "old");
    let meta = std::fs::metadata(place.path("out/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (place.account.uid, place.account.gid, 0o644));
}

#[test]
fn rw_of_a_file() {
    let place = place();
    place.file("one", "old\n");
    place.file("two", "old\n");
    place.inside_with(&["--rw", "one"], "echo new > one; echo new > two").ok();
    assert_eq!(std::fs::read_to_string(place.path("one")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(place.path("two")).unwrap(), "old\n");
}

#[test]
fn ro_forbids_writing() {
    let place = place();
    place.file("d/file", "old");
    let output = place.inside_with(&["--ro", "d"], "cat d/file; echo x > d/file; touch d/new; rm d/file; true");
    assert!(output.stdout.starts_with("old") && output.stderr.matches("Read-only").count() == 3, "{output:?}");
    let output = place.inside_with(&["--ro", "d", "-u", "0", "--cap-add", "ALL"], "touch d/new");
    assert_ne!(output.code(), 0);
}

#[test]
fn ro_below_rw_and_rw_below_ro() {
    let place = place();
    place.file("a/ro/f", "old");
    place.file("b/rw/f", "old");
    place.inside_with(&["--rw", "a", "--ro", "a/ro"], "echo new > a/f; echo new > a/ro/f; true").ok();
    assert!(place.path("a/f").exists());
    assert_eq!(std::fs::read_to_string(place.path("a/ro/f")).unwrap(), "old");
    place.inside_with(&["--ro", "b", "--rw", "b/rw"], "echo new > b/f; echo new > b/rw/f; true").ok();
    assert!(!place.path("b/f").exists());
    assert_eq!(std::fs::read_to_string(place.path("b/rw/f")).unwrap(), "new\n");
}

#[test]
fn hide_empties() {
    let place = place();
    place.file("secret/key", "CANARY");
    place.file("plain", "CANARY");
    let output = place.inside_with(
        &["--hide", "secret", "--hide", "plain", "--hide", "not-there"],
        "cat secret/* plain 2>/dev/null; ls secret 2>/dev/null | wc -l; echo x > not-there; true",
    );
    assert_eq!(output.ok(), "0");
    let output = place.inside_with(&["--rw", ".", "--hide", "secret"], "cat secret/* 2>/dev/null; ls secret | wc -l");
    assert_eq!(output.ok(), "0");
    assert_eq!(std::fs::read_to_string(place.path("secret/key")).unwrap(), "CANARY");
}

#[test]
fn cow_layers_discard() {
    let place = place();
    place.file("d/file", "old");
    let before = place.snapshot("d");
    assert_eq!(place.inside_with(&["--cow", "d"], "echo new > d/file; cat d/file").ok(), "new");
    let bind = format!("{}:/srv/copy:O", place.at("d"));
    assert_eq!(place.inside_with(&["-v", &bind], "echo new > /srv/copy/file; touch /srv/copy/x; cat /srv/copy/file; cat d/file").ok(), "new\nold");
    let mount = format!("type=bind,source={},target=/srv/copy,cow", place.at("d"));
    assert_eq!(place.inside_with(&["--mount", &mount], "rm /srv/copy/file; ls /srv/copy | wc -l").ok(), "0");
    before.unchanged();
}

#[test]
fn volumes() {
    let place = place();
    place.file("d/file", "data");
    place.script("d/run", "#!/bin/sh\necho ran\n");
    let d = place.at("d");
    assert_eq!(place.inside_with(&["-v", &format!("{d}:/srv/x")], "cat /srv/x/file; touch /srv/x/made").ok(), "data");
    assert!(place.path("d/made").exists());
    assert_ne!(place.inside_with(&["-v", &format!("{d}:/srv/x:ro")], "touch /srv/x/made2").code(), 0);
    assert_eq!(place.inside_with(&["-v", &format!("{d}:/srv/x")], "/srv/x/run").ok(), "ran");
    assert_eq!(place.inside_with(&["-v", &format!("{d}:/srv/x:noexec")], "/srv/x/run").code(), 126);
    assert_eq!(place.inside_with(&["-v", &format!("{d}/file:/srv/f:ro")], "cat /srv/f").ok(), "data");
    assert_eq!(
        place
            .inside_with(
                &["--mount", &format!("type=bind,source={d},target=/srv/y,readonly")],
                "cat /srv/y/file; touch /srv/y/z 2>/dev/null; echo $?"
            )
            .ok(),
        "data1"
    );
    // Relative to where the caller is, and to home.
    assert_eq!(place.inside_with(&["-v", "./d:/srv/x:ro"], "cat /srv/x/file").ok(), "data");
    assert_eq!(place.inside_with(&["-v", "~/d:/srv/x:ro"], "cat /srv/x/file").ok(), "data");
}

#[test]
fn mounts_are_nosuid_and_nodev() {
    let place = place();
    place.dir("d");
    let output = place.inside_with(&["--rw", "d", "--tmpfs", "/srv/t"], "while read -r _ _ _ _ where options _; do case $options in *nosuid*) ;; *) echo suid $where;; esac; case $where in /dev/*) ;; *) case $options in *nodev*) ;; *) echo dev $where;; esac;; esac; done < /proc/self/mountinfo; echo done");
    assert_eq!(output.ok(), "done");
}

#[test]
fn tmpfs_with_size_and_mode() {
    let place = place();
    let output = place.inside_with(
        &["--tmpfs", "/srv/t:size=1m,mode=1777"],
        "stat -c %a /srv/t; stat -f -c %T /srv/t; head -c 2m /dev/zero > /srv/t/f; stat -c %s /srv/t/f",
    );
    assert_eq!(output.ok(), "1777\ntmpfs\n1048576");
    assert_ne!(place.inside_with(&["--tmpfs", "/srv/t:ro"], "touch /srv/t/x").code(), 0);
    let output = place.inside_with(
        &["--mount", "type=tmpfs,target=/srv/t,tmpfs-size=65536,tmpfs-mode=700"],
        "stat -c %a /srv/t; df -B1 --output=size /srv/t | tail -1",
    );
    assert_eq!(output.ok().split_whitespace().collect::<Vec<_>>(), ["700", "65536"]);
}

#[test]
fn read_only_root() {
    let place = place();
    let output = place.inside_with(&["--read-only"], "touch ~/x; touch /etc/x; touch x; touch /tmp/fine && echo fine");
    assert_eq!(output.ok(), "fine");
    assert_eq!(output.stderr.matches("Read-only").count() + output.stderr.matches("ermission").count(), 3, "{output:?}");
    place.dir("out");
    place.inside_with(&["--read-only", "--rw", "out"], "touch out/x").ok();
    assert!(place.path("out/x").exists());
}

#[test]
fn shm_size() {
    let place = place();
    for (flag, bytes) in [("1m", "1048576"), ("65536", "65536"), ("2M", "2097152")] {
        assert_eq!(place.inside_with(&["--shm-size", flag], "df -B1 --output=size /dev/shm | tail -1").ok().trim(), bytes);
    }
    assert_eq!(place.inside("df -B1 --output=size /dev/shm | tail -1").ok().trim(), "67108864");
    for bad in ["-1", "1e30", "9EiB", "", "x", "99999999999999999999"] {
        assert_eq!(place.sandbox(&["run", "--shm-size", bad, "--", "true"]).code(), 125, "{bad}");
    }
}

#[test]
fn devices() {
    let place = place();
    assert_eq!(
        place.inside_with(&["--device", "/dev/null:/dev/other"], "stat -c '%F %t:%T' /dev/other; echo x > /dev/other && echo fine").ok(),
        "character special file 1:3\nfine"
    );
    place.file("plain", "");
    place.sandbox(&["run", "--device", &format!("{}:/dev/plain", place.at("plain")), "--", "true"]).refused("neither a device nor a directory");
    place.sandbox(&["run", "--device", "/dev/no-such", "--", "true"]).refused("cannot show device");
}

// A root directory.

#[test]
fn rootfs_is_copy_on_write() {
    let place = place();
    tiny_root(&place, "root");
    let before = place.snapshot("root");
    for how in ["root", "root:O"] {
        let output = place.sandbox(&[
            "run",
            "--rootfs",
            &place.at(how),
            "sh",
            "-c",
            "id -u; pwd; touch /x /etc/y; rm /etc/group; mkdir /a; mv /home /b; ls -d /b /a; echo $HOME $HOSTNAME",
        ]);
        assert_eq!(output.ok(), "0\n/\n/a\n/b\n/root sandbox");
        before.unchanged();
    }
}

#[test]
fn rootfs_rw_writes_through() {
    let place = place();
    tiny_root(&place, "root");
    place.sandbox(&["run", "--rootfs", &place.at("root:rw"), "sh", "-c", "touch /made; rm /etc/group"]).ok();
    assert!(place.path("root/made").exists() && !place.path("root/etc/group").exists());
    assert_eq!(std::fs::metadata(place.path("root/made")).unwrap().uid(), place.account.uid);
    // Nothing of ours stays in the tree.
    assert!(std::fs::read_dir(place.path("root/dev")).unwrap().next().is_none());
    assert!(std::fs::read_dir(place.path("root/proc")).unwrap().next().is_none());
}

#[test]
fn rootfs_read_only() {
    let place = place();
    tiny_root(&place, "root");
    let before = place.snapshot("root");
    for how in ["root", "root:rw"] {
        let output =
            place.sandbox(&["run", "--read-only", "--rootfs", &place.at(how), "sh", "-c", "touch /x; touch /etc/x; echo > /dev/null && echo fine"]);
        assert_eq!(output.ok(), "fine", "{output:?}");
        assert_eq!(output.stderr.matches("Read-only").count(), 2, "{output:?}");
        before.unchanged();
    }
}

#[test]
fn rootfs_has_its_own_users() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    tiny_root(&place, "root");
    let dir = place.at("root");
    let run = |flags: &[&str], command: &[&str]| place.sandbox(&[&["run", "--rootfs", &dir], flags, command].concat());
    assert_eq!(run(&["-u", "bob"], &["sh", "-c", "id -u; id -g; echo $HOME"]).ok(), "1000\n1000\n/home/bob");
    assert_eq!(run(&["-u", "bob:extra"], &["id", "-g"]).ok(), "2000");
    assert_eq!(run(&["-u", "12:34"], &["sh", "-c", "id -u; id -g"]).ok(), "12\n34");
    run(&["-u", "nobody-such"], &["true"]).refused("no such user");
    run(&["-u", "bob:nogroup-such"], &["true"]).refused("no such group");
    run(&["-u", "70000"], &["true"]).refused("no mapping").hinted();
    assert_eq!(run(&[], &["sh", "-c", "touch /tmp/f; chown 1000:2000 /tmp/f; stat -c %u:%g /tmp/f"]).ok(), "1000:2000");
}

#[test]
fn rootfs_does_not_go_with_rw_and_its_kin() {
    let place = place();
    tiny_root(&place, "root");
    for flag in ["--rw", "--ro", "--hide", "--cow"] {
        place.sandbox(&["run", "--rootfs", &place.at("root"), flag, ".", "true"]).refused("with --rootfs or an image").hinted();
    }
}

// Process.

#[test]
fn variables() {
    let mut place = place();
    place.env.insert("MINE".into(), "from here".into());
    place.file("vars", "# a comment\nA=1\nB=two words\n\nMINE\nEMPTY=\nEQ=a=b\n");
    assert_eq!(place.inside_with(&["-e", "X=1", "-e", "MINE", "-e", "NOT_SET"], "echo \"$X,$MINE,${NOT_SET-unset}\"").ok(), "1,from here,unset");
    assert_eq!(place.inside_with(&["--env-file", "vars"], "echo \"$A,$B,$MINE,${EMPTY-unset},$EQ\"").ok(), "1,two words,from here,,a=b");
    assert_eq!(place.inside_with(&["--env-file", "vars", "-e", "A=2"], "echo $A").ok(), "2");
    for bad in ["=x", "", "A B=1"] {
        place.sandbox(&["run", "-e", bad, "--", "true"]).refused("bad variable");
    }
    place.sandbox(&["run", "--env-file", "missing", "--", "true"]).refused("cannot read missing");
}

#[test]
fn path_and_the_search_for_a_command() {
    let place = place();
    place.script("bin/tool", "#!/bin/sh\necho mine\n");
    place.dir("bin/dir");
    let path = format!("PATH={}:/usr/bin:/bin", place.at("bin"));
    assert_eq!(place.sandbox(&["run", "-e", &path, "--", "tool"]).ok(), "mine");
    assert_eq!(place.sandbox(&["run", "--", "./bin/tool"]).ok(), "mine");
    assert_eq!(place.sandbox(&["run", "-w", "bin", "--", "./tool"]).ok(), "mine");
    let output = place.sandbox(&["run", "--", "no-such-tool"]);
    assert_eq!(output.code(), 127);
    output.said("cannot execute 'no-such-tool'").hinted();
    place.file("bin/plain", "text");
    for (command, code) in [("./bin/plain", 126), ("./bin/dir", 126), ("./missing", 127), ("./bin/tool/x", 127)] {
        let output = place.sandbox(&["run", "--", command]);
        assert_eq!(output.code(), code, "{command}: {output:?}");
        output.said("cannot execute");
    }
    place.script("bin/noformat", "\0\0\0\0");
    assert_eq!(place.sandbox(&["run", "--", "./bin/noformat"]).code(), 126);
    place.script("bin/nointerpreter", "#!/no/such\n");
    assert_eq!(place.sandbox(&["run", "--", "./bin/nointerpreter"]).code(), 127);
}

#[test]
fn workdir() {
    let place = place();
    place.dir("sub/deep");
    assert_eq!(place.inside_with(&["-w", "sub"], "pwd").ok(), place.at("sub"));
    assert_eq!(place.inside_with(&["-w", "/usr"], "pwd").ok(), "/usr");
    assert_eq!(place.inside_with(&["-w", "sub/../sub/deep/."], "pwd").ok(), place.at("sub/deep"));
    place.sandbox(&["run", "-w", "missing", "--", "true"]).refused("cannot enter").hinted();
    place.file("file", "");
    place.sandbox(&["run", "-w", "file", "--", "true"]).refused("cannot enter");
}

#[test]
fn users_in_the_host_tree() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    assert_eq!(place.inside_with(&["-u", "0"], "id -u; id -g; echo $HOME").ok(), "0\n0\n/root");
    assert_eq!(place.inside_with(&["-u", "daemon"], "id -un").ok(), "daemon");
    assert_eq!(place.inside_with(&["-u", "7:9"], "id -u; id -g").ok(), "7\n9");
}

#[test]
fn hostname_and_name() {
    let place = place();
    let outside = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(place.inside("hostname").ok(), "sandbox");
    assert_eq!(place.inside_with(&["--hostname", "a.b-c"], "hostname").ok(), "a.b-c");
    assert_eq!(place.inside_with(&["--name", "hn-named"], "hostname").ok(), "hn-named");
    for bad in ["", "-x", ".x", "a b", "a/b", &"x".repeat(65), "a\nb"] {
        place.sandbox(&["run", &format!("--hostname={bad}"), "--", "true"]).refused("bad host name");
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), outside);
}

#[test]
fn a_name_is_taken_while_it_runs() {
    let place = place();
    let mut first = place.start(place.cli(&["run", "--name", "taken", "--", "sh", "-c", "echo ready; sleep 20"]), "ready");
    place.sandbox(&["run", "--name", "taken", "--", "true"]).refused("cannot use the name 'taken': the sandbox").hinted();
    place.sandbox(&["run", "--name", "other", "--", "true"]).ok();
    first.kill().unwrap();
    first.wait().unwrap();
    place.sandbox(&["run", "--name", "taken", "--", "true"]).ok();
    for bad in ["", "-x", "a/b", "..", "a b", &"x".repeat(300)] {
        assert_eq!(place.sandbox(&["run", "--name", bad, "--", "true"]).code(), 125, "{bad:?}");
    }
}

#[test]
fn ulimits() {
    let place = place();
    let limit = |flags: &[&str], name: &str| {
        let output = place.inside_with(flags, "cat /proc/self/limits");
        let line = output.ok().lines().find(|l| l.starts_with(name)).unwrap().to_string();
        line[name.len()..].split_whitespace().take(2).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(limit(&["--ulimit", "nofile=100:200"], "Max open files"), ["100", "200"]);
    assert_eq!(limit(&["--ulimit", "nofile=64"], "Max open files"), ["64", "64"]);
    assert_eq!(limit(&["--ulimit", "cpu=10"], "Max cpu time"), ["10", "10"]);
    assert_eq!(limit(&["--ulimit", "fsize=4096", "--ulimit", "data=unlimited"], "Max file size"), ["4096", "4096"]);
    assert_eq!(limit(&[], "Max core file size"), ["1", "1"]);
    assert_eq!(limit(&[], "Max open files")[0], "1024");
    // Never above the caller's own.
    assert_eq!(
        finish(
            place
                .command("sh")
                .args(["-c", &format!("ulimit -n 300; {} run --ulimit nofile=5000 -- sh -c 'ulimit -n'", program().display())])
                .spawn()
                .unwrap(),
            b""
        )
        .ok(),
        "300"
    );
    for bad in ["nofile", "nofile=", "nofile=x", "nofile=10:5", "bogus=1", "=1", "nofile=-5"] {
        assert_eq!(place.sandbox(&["run", "--ulimit", bad, "--", "true"]).code(), 125, "{bad}");
    }
}

#[test]
fn umask_and_oom_score() {
    let place = place();
    assert_eq!(place.inside("umask").ok(), "0022");
    assert_eq!(place.inside_with(&["--umask", "027"], "umask; touch f; stat -c %a f").ok(), "0027\n640");
    assert_eq!(place.sandbox(&["run", "--umask", "999", "--", "true"]).code(), 125);
    assert_eq!(place.inside_with(&["--oom-score-adj", "777"], "cat /proc/self/oom_score_adj").ok(), "777");
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(place.inside("cat /proc/self/oom_score_adj").ok(), own.max(200).to_string());
    assert_eq!(place.inside_with(&["--oom-score-adj", "-1000"], "cat /proc/self/oom_score_adj").ok(), own.to_string());
    place.sandbox(&["run", "--oom-score-adj", "2000", "--", "true"]).refused("bad --oom-score-adj");
}

#[test]
fn it_is_scheduled_as_who_starts_it() {
    let place = place();
    let (sandbox, probe) = (program().display().to_string(), place.probe());
    for before in ["", "nice -n 3", "chrt --batch 0", "chrt --idle 0"] {
        let run = |command: &str| {
            let script = format!("cd && exec {before} {command} {probe} turns");
            finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").ok().to_string()
        };
        // Outside, the first line is the host's PID 1.
        let own = run("env").lines().nth(1).map(String::from);
        let inside = run(&format!("{sandbox} run --"));
        assert!(own.is_some() && inside.lines().all(|line| Some(line) == own.as_deref()), "'{before}': {inside:?}, and outside {own:?}");
    }
}

#[test]
fn pid_1_is_init_unless_nested() {
    let place = place();
    assert_eq!(place.inside("echo $PPID").ok(), "1");
    assert_eq!(place.inside_with(&["--security-opt", "nested"], "echo $$").ok(), "1");
    assert_eq!(place.inside_with(&["--security-opt", "nested", "--init"], "echo $PPID").ok(), "1");
}

#[test]
fn init_reaps_orphans() {
    let place = place();
    let output = place.inside("for i in $(seq 50); do (sh -c 'sleep 0.1 &' &); done; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; ls -d /proc/[0-9]* | wc -l");
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[0], "0", "zombies: {output:?}");
    assert!(lines[1].parse::<u32>().unwrap() < 8, "{output:?}");
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    let place = place();
    for flags in [&[][..], &["--security-opt", "nested"], &["--pid", "host"]].into_iter().take(if scopes() { 3 } else { 2 }) {
        let output = place.inside_with(flags, "setsid sleep 60 >/dev/null 2>&1 </dev/null & (trap '' TERM INT HUP; sleep 60) >/dev/null 2>&1 & sh -c 'sleep 60 & sleep 60 &' >/dev/null 2>&1; echo fine");
        assert_eq!(output.ok(), "fine");
        place.nothing_left();
    }
}

// Namespaces.

fn link(place: &Place, flags: &[&str], kind: &str) -> String {
    place.inside_with(flags, &format!("readlink /proc/self/ns/{kind}")).ok().to_string()
}

#[test]
fn every_namespace_is_new() {
    let place = place();
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(link(&place, &[], kind), outside.display().to_string(), "{kind}");
    }
}

#[test]
fn namespaces_can_be_shared() {
    need!(scopes(), "needs landlock scopes (Linux 6.12)");
    let place = place();
    for (flag, kind) in [("--ipc", "ipc"), ("--pid", "pid"), ("--uts", "uts"), ("--cgroupns", "cgroup"), ("--network", "net"), ("--net", "net")] {
        let outside = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        assert_eq!(link(&place, &[flag, "host"], kind), outside, "{flag}");
        for other in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].into_iter().filter(|o| *o != kind) {
            let outside = std::fs::read_link(format!("/proc/self/ns/{other}")).unwrap().display().to_string();
            assert_ne!(link(&place, &[flag, "host"], other), outside, "{flag}: {other}");
        }
    }
    for flag in ["--ipc", "--pid", "--uts", "--cgroupns", "--network", "--userns"] {
        assert_eq!(place.sandbox(&["run", flag, "bogus", "--", "true"]).code(), 125);
    }
}

#[test]
fn id_maps() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let (uid, gid) = (place.account.uid, place.account.gid);
    let me = |flags: &[&str]| place.inside_with(flags, "id -u; id -g; cat /proc/self/uid_map | wc -l").ok().replace('\n', " ");
    assert!(me(&[]).starts_with(&format!("{uid} {gid} ")));
    assert!(me(&["--userns", "auto"]).starts_with(&format!("{uid} {gid} ")));
    assert!(me(&["--userns", "keep-id"]).starts_with(&format!("{uid} {gid} ")));
    assert!(me(&["--userns", "keep-id:uid=5,gid=6"]).starts_with("5 6 "));
    assert!(me(&["--userns", "root"]).starts_with("0 0 "));
    assert_eq!(me(&["--userns", "single"]), format!("{uid} {gid} 1"));
    assert!(me(&["--userns", "nomap"]).starts_with("0 0 "), "{}", me(&["--userns", "nomap"]));
    for bad in ["bogus", "keep-id:x=1", "keep-id:uid=x", "host"] {
        assert_eq!(place.sandbox(&["run", "--userns", bad, "--", "true"]).code(), 125, "{bad}");
    }
}

#[test]
fn nomap_files_belong_to_a_subordinate_id() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let (start, count) = subuids(&place.account).unwrap();
    let out = place.dir("out");
    mode(&out, 0o777);
    place.inside_with(&["--userns", "nomap", "--rw", &place.at("out")], &format!("touch {}/made", place.at("out"))).ok();
    let owner = std::fs::metadata(place.path("out/made")).unwrap().uid();
    assert!((start..start + count).contains(&owner), "{owner}");
    if root() {
        std::fs::remove_file(place.path("out/made")).unwrap();
    }
}

#[test]
fn explicit_maps() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let (start, _) = subuids(&place.account).unwrap();
    let (uid, gid) = (place.account.uid, place.account.gid);
    let args = [
        "--uidmap",
        &format!("0:{start}:100"),
        "--uidmap",
        &format!("{uid}:{uid}:1"),
        "--gidmap",
        &format!("0:{start}:100"),
        "--gidmap",
        &format!("{gid}:{gid}:1"),
    ];
    let output = place.inside_with(&args, "id -u; cat /proc/self/uid_map");
    let lines: Vec<_> = output.ok().lines().map(|l| l.split_whitespace().map(String::from).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], uid.to_string());
    assert!(lines.contains(&"0 0 100".to_string()) && lines.contains(&format!("{uid} {uid} 1")), "{lines:?}");
    place.sandbox(&["run", "--gidmap", "0:1:1", "--", "true"]).stderr.contains("uidmap");
}

#[test]
fn network_files() {
    let place = place();
    let output = place.inside_with(&["--add-host", "db.test:10.1.2.3", "--dns", "10.9.9.9"], "cat /etc/hosts /etc/resolv.conf");
    assert!(output.ok().contains("10.1.2.3\tdb.test") && output.stdout.contains("nameserver 10.9.9.9"), "{output:?}");
    assert!(output.stdout.contains("localhost"));
    for bad in ["x", "x:", "x:notip", ":10.0.0.1", "a b:10.0.0.1"] {
        assert_eq!(place.sandbox(&["run", "--add-host", bad, "--", "true"]).code(), 125, "{bad}");
    }
    assert_eq!(place.sandbox(&["run", "--dns", "example.org", "--", "true"]).code(), 125);
    assert!(!std::fs::read_to_string("/etc/hosts").unwrap().contains("db.test"));
}

#[test]
fn loopback_is_up() {
    let place = place();
    let output =
        place.inside(&format!("{0} listen-tcp 7777 >/dev/null; cat /sys/class/net/lo/operstate; cat /sys/class/net/lo/flags", place.probe()));
    assert!(output.ok().ends_with("0x9"), "{output:?}");
}

// Controls.

#[test]
fn profiles_in_dockers_format() {
    let place = place();
    place.file("deny.json", r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#);
    let output = place.inside_with(&["--security-opt", "seccomp=deny.json"], "mkdir x");
    assert!(output.code() != 0 && output.stderr.contains("ermission denied"), "{output:?}");
    place.file("broken.json", "{");
    place.sandbox(&["run", "--security-opt", "seccomp=broken.json", "--", "true"]).refused("broken.json");
    place.sandbox(&["run", "--security-opt", "seccomp=missing.json", "--", "true"]).refused("missing.json");
    assert_eq!(place.inside_with(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status | cut -f 2").ok(), "0");
    for bad in ["bogus", "seccomp=", "no-new-privileges=maybe", "apparmor=x", "label=disable"] {
        place.sandbox(&["run", "--security-opt", bad, "--", "true"]).refused("bad --security-opt");
    }
}

#[test]
fn capabilities_by_name() {
    let place = place();
    let bounding = |flags: &[&str]| u64::from_str_radix(place.inside_with(flags, "grep CapBnd /proc/self/status | cut -f 2").ok(), 16).unwrap();
    let default = bounding(&[]);
    assert_eq!(bounding(&["--cap-add", "NET_RAW"]), default | 1 << 13);
    assert_eq!(bounding(&["--cap-add", "CAP_NET_RAW"]), default | 1 << 13);
    assert_eq!(bounding(&["--cap-add", "net_raw"]), default | 1 << 13);
    assert_eq!(bounding(&["--cap-drop", "CHOWN"]), default & !1);
    assert_eq!(bounding(&["--cap-drop", "ALL"]), 0);
    for flag in ["--cap-add", "--cap-drop"] {
        place.sandbox(&["run", flag, "BOGUS", "--", "true"]).refused("BOGUS");
    }
}

#[test]
fn no_new_privileges_can_be_lifted() {
    let place = place();
    assert_eq!(place.inside("grep NoNewPrivs /proc/self/status | cut -f 2").ok(), "1");
    let output = place.inside_with(
        &["--security-opt", "no-new-privileges=false"],
        "grep NoNewPrivs /proc/self/status | cut -f 2; grep Seccomp: /proc/self/status | cut -f 2",
    );
    assert_eq!(output.ok(), "0\n2");
}

#[test]
fn nested_makes_sandboxes() {
    let place = place();
    let output = place.inside_with(&["--security-opt", "nested"], "unshare -Ur sh -c 'id -u' && unshare -Urmp --fork --mount-proc sh -c 'echo $$'");
    assert_eq!(output.ok(), "0\n1");
    assert_ne!(place.inside("unshare -Ur true").code(), 0);
}

#[test]
fn a_sandbox_in_a_sandbox() {
    let place = place();
    std::fs::copy(program(), place.path("own")).unwrap();
    mode(&place.path("own"), 0o755);
    let output = place.inside_with(&["--security-opt", "nested"], "./own run --userns single -- sh -c 'echo inner; hostname'");
    assert_eq!(output.ok(), "inner\nsandbox", "{output:?}");
}

#[test]
fn requirements() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    place.sandbox(&["run", "--require", "subids,seccomp", "--", "true"]).ok();
    assert_eq!(place.sandbox(&["run", "--require", "bogus", "--", "true"]).code(), 125);
    place.sandbox(&["run", "--best-effort", "subids", "--userns", "single", "--", "true"]).ok();
}

// Output.

#[test]
fn dry_run_changes_nothing_and_says_all() {
    let place = place();
    let before = place.snapshot("");
    let output = place.sandbox(&["run", "--dry-run", "--rw", ".", "--", "touch", "made"]);
    for word in ["clone ", "uids ", "gids ", "pivot", "seccomp", "privileges", "exec "] {
        assert!(output.ok().contains(word), "no '{word}' in {output:?}");
    }
    assert!(!place.path("made").exists());
    let output = place.sandbox(&["run", "--dry-run", "--json", "--", "true"]);
    let value: serde_json::Value = serde_json::from_str(output.ok()).expect("JSON");
    let steps = value["steps"].as_array().unwrap();
    assert!(steps.len() > 40 && steps.last().unwrap()["phase"] == "exec");
    assert_eq!(value["spec"]["process"]["argv"][0], "true");
    drop(before);
}

#[test]
fn errors_as_json() {
    let place = place();
    for (args, code) in [
        (&["run", "--json", "-w", "/missing", "--", "true"][..], 125),
        (&["run", "--json", "--", "/missing"], 127),
        (&["run", "--json", "--", "/etc/hostname"], 126),
    ] {
        let output = place.sandbox(args);
        assert_eq!(output.code(), code);
        let value: serde_json::Value = serde_json::from_str(output.stderr.trim()).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert!(value["error"].as_str().unwrap().starts_with("cannot "), "{value}");
        assert_eq!(value["exit"], code);
    }
}

#[test]
fn events() {
    let place = place();
    let events = |flags: &str, command: &str| {
        let script = format!("{} run --status-fd 3 {flags} -- {command} 3>events 4>&- 1>&2; echo $? >&2", program().display());
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
        let text = std::fs::read_to_string(place.path("events")).unwrap();
        let all = text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}")));
        // The caller's own hard limits may be below the policy's, and this kernel older than landlock's scopes.
        // And cgroups may not be had.
        let ours =
            |e: &serde_json::Value| !["ulimits", "memory", "pids"].iter().any(|c| e["control"] == *c) && (scopes() || e["control"] != "landlock");
        all.filter(ours).collect::<Vec<serde_json::Value>>()
    };
    let list = events("", "sh -c 'exit 7'");
    assert_eq!(list.iter().map(|e| e["event"].as_str().unwrap()).collect::<Vec<_>>(), ["started", "exited"]);
    assert!(list[0]["pid"].as_i64().unwrap() > 1);
    assert_eq!((list[1]["exit"].as_i64(), list[1]["signal"].is_null()), (Some(7), true));
    let list = events("", "sh -c 'kill -9 $$'");
    assert_eq!((list[1]["exit"].as_i64(), list[1]["signal"].as_str()), (Some(137), Some("KILL")));
    let list = events("--timeout 1", "sleep 20");
    assert_eq!(list.iter().map(|e| e["event"].as_str().unwrap()).collect::<Vec<_>>(), ["started", "timeout", "exited"]);
    assert_eq!(list[2]["timed_out"], true);
    // The descriptor is ours, not the command's.
    let script = format!("{} run --status-fd 3 -- {} fds 3>events", program().display(), place.probe());
    assert_eq!(finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").answers().len(), 3);
    place.sandbox(&["run", "--status-fd", "77", "--", "true"]).refused("not open");
}

#[test]
fn exit_codes() {
    let place = place();
    for code in [0, 1, 2, 7, 42, 100, 124, 125, 126, 127, 128, 129, 137, 200, 254, 255] {
        assert_eq!(place.inside(&format!("exit {code}")).code(), code);
    }
    for signal in [1, 2, 3, 6, 8, 9, 11, 13, 14, 15, 31, 34, 64] {
        assert_eq!(place.inside(&format!("kill -{signal} $$")).code(), 128 + signal, "signal {signal}");
    }
    assert_eq!(place.inside_with(&["--security-opt", "nested"], "exit 9").code(), 9);
    if scopes() {
        assert_eq!(place.inside_with(&["--pid", "host"], "exit 9").code(), 9);
        assert_eq!(place.inside_with(&["--pid", "host"], "kill -9 $$").code(), 137);
    }
}

#[test]
fn signals_are_forwarded() {
    let place = place();
    let script = "for s in 1 2 3 10 12 15 18 21 22 23 28 29 30; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.02; done";
    let mut command = place.cli(&["run", "--", "sh", "-c", script]);
    command.stderr(Stdio::null());
    let mut child = place.start(command, "ready\n");
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    // INT and TERM only twice: the third one within the grace kills.
    for signal in [1, 2, 3, 10, 12, 15, 28] {
        kill(child.id(), signal);
        let want = format!("got {signal}\n");
        let start = Instant::now();
        let mut buffer = [0; 64];
        while !seen.contains(&want) {
            assert!(start.elapsed() < watchdog(), "no {want} in {seen}");
            let n = stdout.read(&mut buffer).unwrap();
            assert!(n > 0, "{signal}: ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn kill(pid: u32, signal: i32) {
    // Whatever the number: rustix has no real-time signals.
    sandbox::sys::process::kill(pid as i32, signal).unwrap();
}

#[test]
fn stop_signal_and_timeout() {
    let place = place();
    let output = place.inside_with(&["--timeout", "1", "--stop-signal", "INT"], "trap 'echo interrupted; exit 3' INT; while :; do sleep 0.05; done");
    assert_eq!((output.code(), output.stdout.trim()), (3, "interrupted"), "{output:?}");
    let output = place.inside_with(&["--timeout", "1"], "sleep 20");
    assert_eq!(output.code(), 143, "{output:?}");
    assert!(output.took < Duration::from_secs(5) * patience());
    for bad in [["--stop-signal", "BOGUS"], ["--timeout", "-1"], ["--timeout", "x"]] {
        assert_eq!(place.sandbox(&["run", bad[0], bad[1], "--", "true"]).code(), 125);
    }
}

#[test]
fn a_command_that_ignores_the_end_is_killed_after_the_grace() {
    let place = place();
    let output = place.inside_with(&["--timeout", "1"], "trap '' TERM; while :; do sleep 0.1; done");
    assert_eq!(output.code(), 137, "{output:?}");
    assert!(output.took > Duration::from_secs(10) && output.took < Duration::from_secs(10) + Duration::from_secs(4) * patience(), "{output:?}");
}

// Streams.

#[test]
fn stdin_only_with_i() {
    let place = place();
    let run = |args: &[&str]| {
        let mut command = place.cli(args);
        command.stdin(Stdio::piped());
        finish(command.spawn().unwrap(), b"given\n")
    };
    assert_eq!(run(&["run", "-i", "--", "cat"]).ok(), "given");
    assert_eq!(run(&["run", "--", "cat"]).ok(), "");
    assert_eq!(run(&["run", "-i", "--", "sh", "-c", "read x; echo \"[$x]\"; cat | wc -c"]).ok(), "[given]\n0");
}

#[test]
fn large_streams() {
    let place = place();
    let mut command = place.cli(&["run", "-i", "--", "sh", "-c", "cat > /tmp/x; cat /tmp/x >&2; head -c 30000000 /dev/zero"]);
    command.stdin(Stdio::piped());
    let input = vec![b'x'; 1_000_000];
    let output = finish(command.spawn().unwrap(), &input);
    assert_eq!((output.code(), output.stdout.len()), (0, 30_000_000));
    assert_eq!(output.stderr.bytes().filter(|b| *b == b'x').count(), 1_000_000);
}

#[test]
fn a_reader_that_goes_away() {
    let place = place();
    let script = format!("{} run -- sh -c 'while echo y; do :; done' | head -1", program().display());
    let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
    assert_eq!(output.ok(), "y");
}

#[test]
fn both_streams_stay_apart() {
    let place = place();
    let output = place.inside("echo out; echo err >&2");
    assert_eq!((output.ok(), output.stderr.as_str()), ("out", "err\n"));
}

// Who runs it.

#[test]
fn as_the_hosts_root() {
    need!(root(), "needs root, to become another user");
    let mut account = accounts().user.clone();
    (account.uid, account.gid) = (0, 0);
    account.name = "root".into();
    let place = Place::of(account);
    let probe = place.probe();
    let output = place.sandbox(&[
        "run",
        "--",
        "sh",
        "-c",
        &format!(
            "id -u; touch /etc/made /root/made ~/made; hostname; grep CapEff /proc/self/status; {probe} fds | wc -l; unshare -m true 2>&1 | wc -l"
        ),
    ]);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!((lines[0], lines[1], lines[3].trim()), ("0", "sandbox", "3"), "{output:?}");
    assert!(!std::path::Path::new("/etc/made").exists() && !place.path("made").exists());
    let pid1 = place.probed(&[], &["pid1"]);
    assert!(pid1["mem"] == "EACCES" || pid1["mem"] == "EPERM", "{pid1:?}");
    for (name, answer) in place.probed(&["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &["owner"]) {
        assert!(answer != "OK" || name == "chroot", "root of the host: {name}={answer}");
    }
    assert!(!place.inside("cat /etc/shadow").stdout.contains("root:"));
}

#[test]
fn with_one_id_only() {
    let place = match &accounts().plain {
        Some(plain) => Place::of(plain.clone()),
        None => place(),
    };
    let flags = ["--userns", "single"];
    place.file("f", "old");
    let output = place.inside_with(&flags, "id -u; echo new > f; cat f; touch /tmp/x ~/x; stat -c %u f");
    assert_eq!(output.ok(), format!("{0}\nnew\n{0}", place.account.uid));
    assert_eq!(std::fs::read_to_string(place.path("f")).unwrap(), "old");
    tiny_root(&place, "root");
    let output = place.sandbox(&["run", "--userns", "single", "--rootfs", &place.at("root"), "sh", "-c", "id -u; touch /x; stat -c %u /x"]);
    assert_eq!(output.ok(), "0\n0");
    place.sandbox(&["run", "--userns", "single", "-u", "5", "--", "true"]).refused("no mapping").hinted();
}

#[test]
fn forty_at_once() {
    let place = place();
    let start = Instant::now();
    let children: Vec<_> =
        (0..40).map(|n| (n, place.cli(&["run", "--", "sh", "-c", &format!("echo token-{n}; touch /tmp/x ~/x")]).spawn().unwrap())).collect();
    for (n, child) in children {
        assert_eq!(finish(child, b"").ok(), format!("token-{n}"));
    }
    assert!(start.elapsed() < Duration::from_secs(25));
    place.nothing_left();
}

// Refusals: one line, and a cure.

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let place = place();
    place.file("bad.toml", "nonsense = [");
    place.file("unknown.toml", "description = \"x\"\nbogus-key = 1\n");
    place.file("file", "");
    let long = "x".repeat(5000);
    for (args, says) in [
        (&["run"][..], "cannot run nothing"),
        (&["run", "--"], "cannot run nothing"),
        (&["run", "--rw", "missing", "--", "true"], "missing"),
        (&["run", "--ro", "missing", "--", "true"], "missing"),
        (&["run", "--cow", "missing", "--", "true"], "missing"),
        (&["run", "--cow", "file", "--", "true"], "not a directory"),
        (&["run", "--rw", "/", "--", "true"], "as a whole"),
        (&["run", "-v", "missing:/x", "--", "true"], "missing"),
        (&["run", "--rootfs", "missing", "true"], "missing"),
        (&["run", "--rootfs", "", "true"], "bad --rootfs"),
        (&["run", "--policy", "no-such", "--", "true"], "no-such"),
        (&["run", "--policy", "./bad.toml", "--", "true"], "bad.toml"),
        (&["run", "--policy", "./unknown.toml", "--", "true"], "bogus-key"),
        (&["run", "--policy", "./missing.toml", "--", "true"], "missing.toml"),
        (&["run", "--policy", "../etc/passwd", "--", "true"], "passwd"),
        (&["run", "-u", "no-such-user", "--", "true"], "no-such-user"),
        (&["run", "-w", &long, "--", "true"], "cannot enter"),
        (&["run", "--env-file", "/", "--", "true"], "cannot read"),
    ] {
        let output = place.sandbox(args);
        output.refused(says);
        let lines = output.stderr.lines().filter(|l| !l.starts_with("sandbox: note")).count();
        assert!(
            lines <= 2 || output.stderr.contains("sandbox run IMAGE") || output.stderr.contains("-->") || output.stderr.contains('|'),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn unknown_flags_are_not_ignored() {
    let place = place();
    for flag in ["--privileged", "--memory=1g", "--publish=80:80", "--gpus=all", "--bogus", "-Z"] {
        let output = place.sandbox(&["run", flag, "--", "true"]);
        assert_eq!(output.code(), 125, "{flag}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn words_that_are_not_utf_8_arrive_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let place = place();
    let odd = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::write(place.home.join(odd), "latin").unwrap();
    let mut command = place.cli(&["run", "--", "cat"]);
    command.arg(odd);
    assert_eq!(finish(command.spawn().unwrap(), b"").ok(), "latin");
    let mut command = place.cli(&["run", "--", "printenv", "LC_OTHER"]);
    command.env("LC_OTHER", odd);
    let out = command.output().unwrap();
    assert_eq!(out.stdout, b"caf\xe9\n", "{out:?}");
    let mut command = place.cli(&["run", "-e", "LC_ODD", "--", "true"]);
    command.env("LC_ODD", odd);
    finish(command.spawn().unwrap(), b"").refused("cannot pass on the variable LC_ODD");
}

#[test]
fn too_few_descriptors_are_named_as_what_they_are() {
    let place = place();
    for few in [8, 12, 16] {
        let script = format!("ulimit -n {few}; exec {} run -- true", program().display());
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").refused("too many open files");
    }
}

#[test]
fn pid_1_does_not_say_how_it_was_called() {
    let place = place();
    let out = place.inside_with(&["-e", "TOKEN=in-a-flag"], "tr '\\0' ' ' </proc/1/cmdline");
    assert_eq!(out.ok().trim(), "sandbox-init");
}

#[test]
fn arguments_of_the_command_are_its_own() {
    let place = place();
    assert_eq!(place.sandbox(&["run", "--", "echo", "--rw", "-v", "--", "x"]).ok(), "--rw -v -- x");
    // Without the dashes it would be an image's name, as for docker.
    for word in ["echo", "./build.sh", "/bin/echo"] {
        let output = place.sandbox(&["run", "--pull", "never", word, "--rw", "-it"]);
        assert!(output.refused(word).hinted().stderr.contains(&format!("sandbox run -- {word}")), "{output:?}");
    }
    assert_eq!(place.sandbox(&["run", "--", "printf", "%s|", "a b", "", "\u{e9}", "*", "$HOME"]).ok(), "a b||\u{e9}|*|$HOME|");
}

#[test]
fn a_long_command_line() {
    let place = place();
    let long = "x".repeat(100_000);
    let output = place.sandbox(&["run", "--", "sh", "-c", "printf %s \"$1\" | wc -c", "sh", &long]);
    assert_eq!(output.ok().trim(), "100000");
    let many: Vec<String> =
        ["run", "--", "sh", "-c", "echo $#", "sh"].iter().map(|s| s.to_string()).chain((0..20_000).map(|n| n.to_string())).collect();
    assert_eq!(place.sandbox(&many).ok(), "20000");
}

#[test]
fn the_working_directory_may_vanish() {
    let place = place();
    place.dir("gone");
    let script = format!("cd gone && rmdir ../gone && {} run -- true", program().display());
    finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").refused("working directory");
}

#[test]
fn names_that_are_no_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let place = place();
    let odd = place.home.join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    std::fs::create_dir(&odd).unwrap();
    give_if_root(&place, &odd);
    let mut command = place.cli(&["run", "--", "sh", "-c", "touch x; ls"]);
    command.current_dir(&odd);
    let output = finish(command.spawn().unwrap(), b"");
    assert!(output.code() == 0 && output.stdout.trim() == "x" || output.code() == 125, "{output:?}");
}

fn give_if_root(place: &Place, path: &std::path::Path) {
    if root() {
        give(path, place.account.uid, place.account.gid);
    }
}

/// What is planned is of a moment. // container/run.rs
#[test]
fn mounts_and_directories_come_and_go_below_a_home_while_it_starts() {
    need!(root(), "needs root, to mount");
    let place = alone();
    place.inside("sleep 0.2").ok(); // long enough for a record: what is made once, and stays
    let point = place.dir("busy/point");
    let left = Left::before(&place);
    // The machine's other sandboxes see nothing of it.
    let mounts = r#"while :; do mount -t tmpfs none "$1"; sleep 0.02; umount "$1"; sleep 0.02; done"#;
    // What stands beside a mount is laid one by one.
    let directories = r#"mount -t tmpfs none "$1"; new=$(seq -f "$1.%g" 9); while :; do mkdir -m 777 $new; rmdir $new; done"#;
    let script = r#"
        (eval "$5") &
        for n in $(seq 100); do
            setpriv --reuid "$2" --regid "$3" --clear-groups "$4" run -- sh -c 'echo /proc/self/fd/*' || echo "$n failed"
        done
        kill $!"#;
    for disturbance in [mounts, directories] {
        let mut busy = Command::new("unshare");
        busy.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&point);
        busy.args([place.account.uid.to_string(), place.account.gid.to_string()]).arg(program()).arg(disturbance);
        busy.env_clear().envs(&place.env).current_dir(&place.home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = busy.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let failed: Vec<_> = said.lines().filter(|l| *l != "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3").collect();
        assert!(failed.is_empty() && said.lines().count() == 100, "{failed:?}: {}", String::from_utf8_lossy(&output.stderr));
        (1..=9).for_each(|n| drop(std::fs::remove_dir(point.with_extension(n.to_string()))));
    }
    left.at_once();
}
