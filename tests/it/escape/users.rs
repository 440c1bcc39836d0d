//! Other users of the same machine, and names in places that everybody can write.

use crate::support::*;
use std::os::unix::fs::MetadataExt;

fn mallory() -> Option<Account> {
    accounts().mallory.clone()
}

fn as_mallory(script: &str) -> Output {
    let m = mallory().unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", &m.uid.to_string(), "--regid", &m.gid.to_string(), "--clear-groups", "--", "sh", "-c", script]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    finish(command.spawn().unwrap(), b"")
}

#[test]
fn o01_cve_2019_12439_names_made_by_others_in_shared_places_are_not_used() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let uid = place.account.uid;
    let trap = format!("/tmp/sandbox-it-trap-{}", std::process::id());
    let script = format!(
        "mkdir -p {trap}; chmod 777 {trap}; for d in /tmp /var/tmp /dev/shm; do for n in sandbox sandbox-{uid} sandbox-{name} .sandbox; do \
         [ -e $d/$n ] || ln -s {trap} $d/$n; done; done; true",
        name = place.account.name
    );
    as_mallory(&script).ok();
    for flags in [&[][..], &["--name", "o01"], &["-t"]] {
        place.inside_with(flags, "touch /tmp/x /var/tmp/x /dev/shm/x").ok();
    }
    let used = std::fs::read_dir(&trap).unwrap().count();
    as_mallory(&format!(
        "for d in /tmp /var/tmp /dev/shm; do for n in sandbox sandbox-{uid} sandbox-{name} .sandbox; do rm -f $d/$n; done; done; rm -rf {trap}",
        name = place.account.name
    ));
    assert_eq!(used, 0);
}

#[test]
fn o01_cve_2018_6954_the_hosts_tmp_does_not_show() {
    let place = place();
    let name = format!("/tmp/sandbox-it-canary-{}", std::process::id());
    std::fs::write(&name, "CANARY").unwrap();
    let output = place.inside("cat /tmp/* 2>/dev/null; ls -A /tmp /var/tmp /dev/shm | grep -v : | grep .; echo done");
    std::fs::remove_file(&name).unwrap();
    assert_eq!(output.ok(), "done");
}

#[test]
fn o02_cve_2020_25039_what_we_keep_is_ours_alone() {
    for umask in ["000", "022", "077"] {
        let place = place();
        let script = format!("umask {umask}; {} run --name o02-{umask} -- true", program().display());
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").ok();
        let mut todo = vec![place.path(".cache/sandbox")];
        assert!(todo[0].is_dir());
        while let Some(path) = todo.pop() {
            let meta = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(meta.mode() & 0o077, 0, "umask {umask}: {} is {:o}", path.display(), meta.mode());
            if meta.is_dir() {
                todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
    }
}

#[test]
fn o01_a_state_directory_that_is_a_link_or_someone_elses_is_not_used() {
    let place = place();
    canary(&place);
    let before = place.snapshot("canary");
    for (kind, name) in [("link", "o01-a"), ("writable", "o01-b"), ("file", "o01-c"), ("dangling", "o01-d"), ("loop", "o01-e")] {
        let _ = std::fs::remove_dir_all(place.path(".cache"));
        place.dir(".cache");
        match kind {
            "link" => drop(place.symlink(place.path("canary"), ".cache/sandbox")),
            "writable" => mode(&place.dir(".cache/sandbox"), 0o777),
            "file" => drop(place.file(".cache/sandbox", "")),
            "dangling" => drop(place.symlink(place.path("canary/made"), ".cache/sandbox")),
            _ => drop(place.symlink("sandbox", ".cache/sandbox")),
        }
        // The filter cache is only a cache.
        place.inside("true").ok();
        before.unchanged();
        // A name needs its lock.
        let output = place.sandbox(&["run", "--name", name, "--", "true"]);
        assert_eq!(output.code(), 125, "{kind}: {output:?}");
        output.said("cannot ");
        before.unchanged();
    }
}

#[test]
fn o01_a_runtime_directory_that_is_not_ours_is_not_used() {
    let mut place = place();
    canary(&place);
    let before = place.snapshot("canary");
    let open = place.dir("open");
    mode(&open, 0o777);
    let link = place.symlink(place.path("canary"), "link");
    for dir in [open.clone(), link, "/".into(), "/tmp".into(), "relative".into(), "/proc/self".into(), place.path("missing")] {
        place.env.insert("XDG_RUNTIME_DIR".into(), dir.display().to_string());
        place.sandbox(&["run", "--name", "o01-x", "--", "true"]).ok();
        assert_eq!(std::fs::read_dir(&open).unwrap().count(), 0);
        before.unchanged();
    }
    let own = place.dir("run");
    mode(&own, 0o700);
    place.env.insert("XDG_RUNTIME_DIR".into(), own.display().to_string());
    place.sandbox(&["run", "--name", "o01-y", "--", "true"]).ok();
    assert!(own.join("sandbox").is_dir());
}

#[test]
fn o01_a_poisoned_filter_cache_is_not_loaded() {
    let place = place();
    place.inside("true").ok();
    let dir = place.path(".cache/sandbox");
    let filters: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    assert!(!filters.is_empty());
    let allow_all: &[u8] = &[6, 0, 0, 0, 0, 0, 0xff, 0x7f];
    for filter in &filters {
        let good = std::fs::read(filter).unwrap();
        for bad in
            [allow_all.to_vec(), [&good[..good.len() / 2]].concat(), vec![], good.iter().map(|b| b ^ 0x40).collect(), [&good[..], allow_all].concat()]
        {
            std::fs::write(filter, &bad).unwrap();
            let seen = place.probed(&[], &["doors"]);
            assert_eq!((seen["bpf"].as_str(), seen["io_uring_setup"].as_str()), ("EPERM", "ENOSYS"));
        }
        // Writable by others: not ours to trust, whatever is in it.
        std::fs::write(filter, &good).unwrap();
        mode(filter, 0o666);
        assert_eq!(place.probed(&[], &["doors"])["bpf"], "EPERM");
        // A link to somewhere else.
        std::fs::remove_file(filter).unwrap();
        std::os::unix::fs::symlink("/dev/zero", filter).unwrap();
        assert_eq!(place.probed(&[], &["doors"])["bpf"], "EPERM");
        let _ = std::fs::remove_file(filter);
        place.command("mkfifo").arg(filter).status().unwrap();
        assert_eq!(place.probed(&[], &["doors"])["bpf"], "EPERM");
        let _ = std::fs::remove_file(filter);
    }
}

#[test]
fn o03_a_refusal_does_not_tell_what_the_caller_may_not_see() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let secret = std::path::PathBuf::from(format!("/var/tmp/sandbox-it-secret-{}", std::process::id()));
    std::fs::create_dir(&secret).unwrap();
    mode(&secret, 0o700);
    std::fs::write(secret.join("there"), "").unwrap();
    let ask = |name: &str| {
        let path = secret.join(name).display().to_string();
        ["--ro", "--rw", "--cow", "--rootfs", "--env-file", "--device"].map(|flag| {
            let output = place.sandbox(&["run", flag, &path, "--", "true"]);
            (output.code(), output.stderr.replace(name, "X"))
        })
    };
    let (a, b) = (ask("there"), ask("gone"));
    std::fs::remove_dir_all(&secret).unwrap();
    assert_eq!(a, b);
}

#[test]
fn o05_a_lock_that_another_user_holds_stops_nobody() {
    need!(root(), "needs root, to become another user");
    let place = place();
    // Mallory may open whatever is open to him, and lock it.
    place.inside_with(&["--name", "o05"], "true").ok();
    let script =
        format!("for f in $(find {} -type f -o -type d 2>/dev/null); do flock -n $f true && echo \"locked $f\"; done; echo done", place.at(".cache"));
    let output = as_mallory(&script);
    let ours: Vec<_> = output.stdout.lines().filter(|l| l.contains(".cache/sandbox/")).collect();
    assert!(ours.is_empty(), "{output:?}");
}

#[test]
fn o02_mallory_cannot_look_into_a_running_sandbox() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", "echo CANARY > /tmp/x; echo ready; sleep 20"]), "ready");
    let init = init_of(child.id());
    let workload = children(init);
    for pid in [child.id(), init].into_iter().chain(workload) {
        let output = as_mallory(&format!(
            "cat /proc/{pid}/root/tmp/x /proc/{pid}/environ /proc/{pid}/fd/* /proc/{pid}/maps 2>/dev/null; ls /proc/{pid}/fd /proc/{pid}/root /proc/{pid}/cwd/ 2>/dev/null; kill {pid} 2>/dev/null && echo killed; echo done"
        ));
        assert_eq!(output.ok(), "done", "{pid}");
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn o07_a_user_without_subordinate_ids_gets_one_id_and_is_told() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let output = place.inside("id -u; cat /proc/self/uid_map | wc -l; touch ~/x /tmp/y; echo fine");
    assert_eq!(output.ok(), format!("{}\n1\nfine", place.account.uid));
    assert!(output.stderr.contains("subuid") && output.stderr.lines().count() == 1, "{output:?}");
    place.sandbox(&["run", "--require", "subids", "--", "true"]).refused("subids").hinted();
}

#[test]
fn o07_a_home_that_cannot_be_written_is_no_obstacle() {
    let place = place();
    mode(&place.home, 0o555);
    place.inside("id -u").ok();
    mode(&place.home, 0o755);
    assert!(!place.path(".cache").exists());
}

#[test]
fn o07_a_home_that_is_not_there_is_no_obstacle() {
    let mut place = place();
    place.env.insert("HOME".into(), "/nonexistent".into());
    place.inside("id -u").ok();
    place.env.remove("HOME");
    place.inside("id -u").ok();
}
