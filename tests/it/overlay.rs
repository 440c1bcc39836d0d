//! Whose overlay it is, and our own one under a sandbox: who serves it, how it is confined, its limits, and its end.
//! What it does as a file system is the subject of tests/overlay; `SANDBOX_TEST_BACKEND=fuse` has all other cases here run on it.

use crate::image::{busybox, tiny_image};
use crate::support::*;
use std::process::Command;
use std::time::Duration;

const FUSE: [&str; 2] = ["--overlay-backend", "fuse"];

/// The type of what is mounted at a path.
fn kind(path: &str) -> String {
    format!("while read -r _ at type _; do [ \"$at\" = {path} ] && t=$type; done < /proc/self/mounts; echo \"$t\"")
}

/// The processes that serve overlays for this account.
fn servers(place: &Place) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let uids = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let own = uids.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(1) == Some(&place.account.uid.to_string()));
        if own && words == b"sandbox\0@overlay\0" {
            found.push(pid);
        }
    }
    found
}

#[track_caller]
fn one_server(place: &Place) -> u32 {
    assert!(within(Duration::from_secs(5), || servers(place).len() == 1), "{:?}", servers(place));
    servers(place)[0]
}

#[test]
fn the_overlay_is_the_one_that_was_said() {
    let place = place();
    let root = tiny_root(&place, "root").display().to_string();
    for (backend, expected) in [("kernel", "overlay"), ("fuse", "fuse.sandbox"), ("auto", "overlay")] {
        let output = place.sandbox(&["run", "--overlay-backend", backend, "--", "sh", "-c", &kind("/usr")]);
        assert_eq!((output.ok(), output.stderr.as_str()), (expected, ""), "{backend}");
        let output = place.sandbox(&["run", "--overlay-backend", backend, "--rootfs", &root, "sh", "-c", &kind("/")]);
        assert_eq!((output.ok(), output.stderr.as_str()), (expected, ""), "{backend}");
    }
}

#[test]
fn a_served_root_is_written_to_and_its_directory_is_not() {
    let place = place();
    let root = tiny_root(&place, "root");
    let text = root.display().to_string();
    let script = "set -e; echo new > etc/new; mv etc/group etc/moved; rm etc/passwd; mkdir -p a/b; ln etc/new a/b/link; chown 33:33 a; \
        mv home etc/home; stat -c '%u:%g %h' a etc/new; cat a/b/link; ls etc";
    let output = place.sandbox(&[&["run"], &FUSE[..], &["--rootfs", &text, "sh", "-c", script]].concat());
    assert_eq!(output.ok(), "33:33 3\n0:0 2\nnew\nhome\nhosts\nmoved\nnew");
    assert!(root.join("etc/passwd").exists() && root.join("etc/group").exists() && !root.join("a").exists());
}

#[test]
fn with_one_id_the_overlay_of_a_root_is_ours_and_that_is_said() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let root = tiny_root(&place, "root").display().to_string();
    let output = place.sandbox(&["run", "--rootfs", &root, "sh", "-c", &format!("{}; echo x > /etc/new; cat /etc/new", kind("/"))]);
    assert_eq!(output.ok(), "fuse.sandbox\nx");
    assert!(output.stderr.contains("/ has an overlay of our own: there is one id only"), "{output:?}");
    let plan = place.sandbox(&["run", "--dry-run", "--rootfs", &root, "true"]);
    assert!(plan.ok().contains("note      / has an overlay of our own") && plan.stdout.contains("mount an overlay of our own"), "{plan:?}");
}

#[test]
fn a_directory_with_mounts_below_it_gets_an_overlay_of_our_own() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let dir = place.dir("tree/inner");
    place.file("tree/file", "below");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&dir).status().expect("mount");
    need!(mounted.success(), "needs root, to become another user");
    std::fs::write(dir.join("deep"), "deeper").unwrap();
    place.own_all("tree");
    let tree = place.at("tree");
    let script = format!("cat {tree}/file {tree}/inner/deep; echo changed > {tree}/inner/deep; cat {tree}/inner/deep");
    let kernel = place.inside_with(&["--overlay-backend", "kernel", "--cow", &tree], "true");
    let served = place.inside_with(&["--cow", &tree], &script);
    let left = std::fs::read_to_string(dir.join("deep")).unwrap();
    assert!(Command::new("umount").arg(&dir).status().unwrap().success());
    kernel.refused("is mounted below it").hinted();
    assert_eq!(served.ok(), "belowdeeperchanged");
    assert_eq!(left, "deeper");
    assert!(served.stderr.contains("has an overlay of our own"), "{served:?}");
}

#[test]
fn a_writable_layer_has_an_end() {
    let place = place();
    let full = "dd if=/dev/zero of=$D/big bs=1024k count=8 2>&1 | grep -o 'No space left on device'; df -k $D | tail -n 1 | { read -r _ size _; echo $size; }";
    for backend in ["kernel", "fuse"] {
        let script = format!("D={}; {full}", place.at(""));
        let output = place.inside_with(&["--overlay-backend", backend, "--disk", "4m"], &script);
        assert_eq!(output.ok(), "No space left on device\n4096", "{backend}");
        let script = format!(
            "cd {}; i=0; while [ $i -lt 200 ] && echo > n$i; do i=$((i+1)); done 2>/dev/null; [ $i -ge 90 ] && [ $i -le 140 ]; echo $? $i",
            place.at("")
        );
        let output = place.inside_with(&["--overlay-backend", backend, "--inodes", "100"], &script);
        assert!(output.ok().starts_with('0'), "{backend} {output:?}");
    }
}

#[test]
fn a_kept_layer_has_an_end_over_all_its_runs() {
    let place = place();
    let image = tiny_image(&place, "limited");
    let write = |name: &str| format!("head -c 3000000 /dev/zero > /{name}; wc -c < /{name}");
    let run = |script: &str| place.sandbox(&["run", "--disk", "4m", "--inodes", "50", "--layer", "work", &image, "sh", "-c", script]);
    let first = run(&write("a"));
    assert_eq!(first.ok(), "3000000");
    assert!(first.stderr.contains("only our own overlay can limit a layer on disk"), "{first:?}");
    let second = run(&write("b"));
    assert!(second.stdout.trim().parse::<u64>().unwrap() < 1_400_000 && second.stderr.contains("No space left"), "{second:?}");
    let many = run("rm /a /b; i=0; while echo > /n$i; do i=$((i+1)); done 2>/dev/null; echo $i").ok().parse::<u32>().unwrap();
    assert!((30..=50).contains(&many), "{many}");
    place.sandbox(&["run", "--overlay-backend", "kernel", "--disk", "4m", "--layer", "work", &image]).refused("only our own overlay").hinted();
    place.sandbox(&["run", "--rootfs", &format!("{}:rw", place.at("")), "--disk", "4m", "true"]).refused("there is no layer").hinted();
}

#[test]
fn who_serves_is_confined_and_ends_with_the_sandbox() {
    let place = alone();
    let run = place.start(place.cli(&[&["run"], &FUSE[..], &["--", "sh", "-c", "echo up; sleep 60"]].concat()), "up");
    let server = one_server(&place);
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_string()).unwrap();
    assert_eq!((field("Seccomp:").as_str(), field("NoNewPrivs:").as_str()), ("2", "1"));
    // It has a thread or more for each overlay of the host's tree, but no memory for what was never asked.
    let anonymous: u64 = field("RssAnon:").trim_end_matches(" kB").parse().unwrap();
    assert!(anonymous < 16 << 10, "{anonymous} KiB");
    // chown, dac_override, dac_read_search, fowner, fsetid, setfcap: over what is mapped in a user namespace of its own.
    assert_eq!(u64::from_str_radix(&field("CapBnd:"), 16).unwrap(), 0x8000_001f);
    let namespace = |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let init = place.supervisor(&run);
    for kind in ["user", "net", "pid", "ipc", "mnt"] {
        assert_ne!(namespace(server, kind), namespace(std::process::id(), kind), "{kind}");
        assert_ne!(namespace(server, kind), namespace(init, kind), "{kind}");
    }
    // Layers, devices, and what tells that it is there; no sockets, and no directory but those.
    for fd in std::fs::read_dir(format!("/proc/{server}/fd")).unwrap().flatten() {
        let target = std::fs::read_link(fd.path()).unwrap().display().to_string();
        assert!(target.starts_with('/') || target.starts_with("pipe:"), "{target}");
    }
    assert!(Command::new("kill").args(["-TERM", &init.to_string()]).status().unwrap().success());
    let _ = finish(run, b"");
    assert!(within(Duration::from_secs(5), || servers(&place).is_empty()));
}

#[test]
fn where_it_is_not_served_any_more_the_sandbox_is_over() {
    let place = alone();
    let run = place.start(place.cli(&[&["run"], &FUSE[..], &["--", "sh", "-c", "echo up; sleep 60"]].concat()), "up");
    let server = one_server(&place);
    assert!(Command::new("kill").args(["-KILL", &server.to_string()]).status().unwrap().success());
    finish(run, b"").refused("not served any more").said("signal 9");
    // The same of a detached one, whose record tells.
    place.sandbox(&[&["run", "-d", "--name", "away"], &FUSE[..], &["--", "sleep", "60"]].concat()).ok();
    let server = one_server(&place);
    assert!(Command::new("kill").args(["-KILL", &server.to_string()]).status().unwrap().success());
    let told = || place.sandbox(&["inspect", "away"]).stdout;
    assert!(within(Duration::from_secs(5), || told().contains("not served any more")), "{}", told());
    place.sandbox(&["rm", "away"]).ok();
}

#[test]
fn one_that_is_left_alone_is_served_and_joined() {
    let place = alone();
    let root = tiny_root(&place, "root").display().to_string();
    place.sandbox(&[&["run", "-d", "--name", "web"], &FUSE[..], &["--rootfs", &root, "sleep", "60"]].concat()).ok();
    assert_eq!(place.sandbox(&["exec", "web", "sh", "-c", "echo by exec > /etc/new; cat /etc/new"]).ok(), "by exec");
    assert_eq!(place.sandbox(&["exec", "web", "cat", "/etc/new"]).ok(), "by exec");
    // Accounts are in a tree that only who is inside may look into.
    assert_eq!(place.sandbox(&["exec", "-u", "bob", "web", "sh", "-c", "id -u; id -G; echo $HOME"]).ok(), "1000\n1000 2000\n/home/bob");
    place.sandbox(&["stop", "-t", "1", "web"]).ok();
    assert!(within(Duration::from_secs(5), || servers(&place).is_empty()));
    place.sandbox(&["start", "web"]).ok();
    place.sandbox(&["exec", "web", "true"]).ok();
    place.sandbox(&["rm", "-f", "web"]).ok();
    assert!(within(Duration::from_secs(5), || servers(&place).is_empty()));
}

/// A workload that asks for more than can be answered, or sits on its requests, has its own server to wait for.
#[test]
fn a_flood_in_one_sandbox_is_no_drought_in_another() {
    let place = alone();
    let flood = "for n in 1 2 3 4 5 6 7 8; do (while :; do ls -lR /usr > /dev/null 2>&1; echo > $HOME/f$n; rm $HOME/f$n; done) & done; echo up; wait";
    let mut hostile = place.start(place.cli(&[&["run"], &FUSE[..], &["--", "sh", "-c", flood]].concat()), "up");
    let start = std::time::Instant::now();
    let output = place.inside_with(&FUSE, "i=0; while [ $i -lt 200 ]; do echo $i > $HOME/n$i; i=$((i+1)); done; cat $HOME/n*[05] | wc -l");
    assert_eq!(output.ok(), "40");
    assert!(start.elapsed() < Duration::from_secs(20) * patience(), "{:?}", start.elapsed());
    hostile.kill().unwrap();
    hostile.wait().unwrap();
    assert!(within(Duration::from_secs(10), || servers(&place).is_empty()));
}

/// The kernel's overlay had it that a set-uid file of a FUSE mount was copied up as such. In ours nothing is mounted but nosuid, and the layer
/// lies where only its owner comes.
#[test]
fn cve_2023_0386_a_copied_up_set_uid_file_is_nothing_outside() {
    let place = place();
    place.load(&busybox(&["localhost/box"])).ok();
    let script =
        "b='busybox'; $b cp /bin/busybox /id && $b chmod 4755 /id && $b stat -c %a /id && $b grep ' / ' /proc/self/mounts | $b grep -c nosuid";
    let output = place.sandbox(&[&["run"], &FUSE[..], &["--layer", "work", "localhost/box", "sh", "-c", script]].concat());
    assert_eq!(output.ok(), "4755\n1");
    let mut above = place.store();
    let shut =
        above.ancestors().any(|dir| std::fs::metadata(dir).is_ok_and(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o077 == 0));
    assert!(shut, "the layer can be reached by others");
    above.push("layers-named/work/upper/id");
    assert!(above.exists());
}

/// Nothing inside may mount a FUSE file system of its own over the device that served its tree.
#[test]
fn k02_the_device_is_not_inside() {
    let place = place();
    let script = "ls /dev/fuse 2>&1; mount -t fuse x /tmp -o fd=3,rootmode=40000,user_id=0,group_id=0 3</dev/null 2>&1; \
        for f in /proc/self/fd/*; do readlink $f; done | grep -c fuse; true";
    let output = place.inside_with(&FUSE, script);
    assert!(output.stdout.contains("No such file") && output.stdout.trim_end().ends_with('0'), "{output:?}");
}
