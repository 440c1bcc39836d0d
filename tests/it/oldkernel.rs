//! Old kernels, by a filter that answers ENOSYS: what is missing is named, with a cure, or is done without.

use crate::support::*;

/// `sandbox run ARGS` where the kernel lacks these calls.
fn without(place: &Place, calls: &str, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(base().join("probe"));
    command.env_clear().envs(&place.env).current_dir(&place.home).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    if root() {
        // The probe changes ids itself, after the filter, so that setuid helpers still work.
        command.env("BECOME_UID", place.account.uid.to_string()).env("BECOME_GID", place.account.gid.to_string());
    }
    command.arg("without").arg(calls).arg(program()).arg("run").args(args);
    finish(command.spawn().unwrap(), b"")
}

fn refused(calls: &str) {
    let place = place();
    for args in [&["--", "sh", "-c", "echo ran"][..], &["-t", "--", "sh", "-c", "echo ran"]] {
        let output = without(&place, calls, args);
        output.refused("cannot ").hinted();
        assert!(!output.stdout.contains("ran"), "{output:?}");
    }
}

#[test]
fn the_filter_itself_is_no_obstacle() {
    let place = place();
    assert_eq!(without(&place, "statx", &["--", "sh", "-c", "echo ran"]).ok(), "ran");
}

#[test]
fn without_clone3() {
    refused("clone3");
}

#[test]
fn without_openat2() {
    refused("openat2");
}

#[test]
fn without_mount_setattr() {
    refused("mount_setattr");
}

#[test]
fn without_fsopen() {
    refused("fsopen");
}

#[test]
fn without_fsmount() {
    refused("fsmount");
}

#[test]
fn without_open_tree() {
    refused("open_tree");
}

#[test]
fn without_move_mount() {
    refused("move_mount");
}

#[test]
fn without_close_range() {
    refused("close_range");
}

#[test]
fn without_seccomp() {
    refused("seccomp");
}

#[test]
fn without_pidfd_send_signal() {
    let place = place();
    let output = without(&place, "pidfd_send_signal", &["--", "sh", "-c", "echo ran"]);
    if output.code() == 0 {
        assert_eq!(output.ok(), "ran");
    } else {
        output.refused("cannot ").hinted();
    }
}

#[test]
fn without_landlock() {
    let place = place();
    for calls in ["landlock_create_ruleset", "landlock_create_ruleset,landlock_add_rule,landlock_restrict_self"] {
        assert_eq!(without(&place, calls, &["--", "sh", "-c", "echo ran"]).ok(), "ran");
        // Said where it can be read, and refused where it is required.
        let output = without(&place, calls, &["--dry-run", "--", "true"]);
        assert!(output.ok().contains("degraded  landlock"), "{output:?}");
        without(&place, calls, &["--require", "landlock", "--", "true"]).refused("cannot have landlock").hinted();
    }
    // Without the file rules strict is not what it says, but the namespaces stand.
    let output =
        without(&place, "landlock_create_ruleset", &["--policy", "strict", "--", "sh", "-c", "touch /etc/x ~/x 2>/dev/null || echo read-only"]);
    assert_eq!(output.ok(), "read-only");
}

/// With the host's processes in sight only Landlock keeps the caller's own out of reach.
#[test]
fn without_landlock_the_hosts_processes_stay_out_of_reach() {
    let place = place();
    let mut bystander = place.command("sleep").arg("30").env("SECRET", "CANARY").spawn().unwrap();
    let script = format!("cat /proc/{0}/environ; kill -9 {0}; echo done", bystander.id());
    let output = without(&place, "landlock_create_ruleset", &["--pid", "host", "--", "sh", "-c", &script]);
    let alive = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(alive && !output.stdout.contains("CANARY"), "{output:?}");
}

/// The same for abstract sockets with the host's network.
#[test]
fn without_landlock_abstract_sockets_of_the_hosts_network() {
    let place = place();
    let name = format!("sandbox-it-old-{}", std::process::id());
    let mut command = place.command(place.probe());
    command.args(["listen-abstract", &name]).stdin(std::process::Stdio::piped());
    let mut listener = place.start(command, "ready");
    let output = without(&place, "landlock_create_ruleset", &["--network", "host", "--", &place.probe(), "connect-abstract", &name]);
    drop(listener.stdin.take());
    listener.wait().unwrap();
    // The kernel cannot keep it away; so it is refused, or said aloud.
    assert!(output.code() == 125 || output.stderr.contains("landlock") || output.answers()["connect"] != "OK", "{output:?}");
}

#[test]
fn an_outer_container_that_forbids_namespaces() {
    let place = place();
    for calls in ["!clone3", "!unshare", "!fsopen", "!open_tree", "!mount_setattr"] {
        without(&place, calls, &["--", "true"]).refused("cannot ").hinted();
    }
}
