//! Policies as they act: what each built-in one does to a run, where files are looked for, and what a limit forbids.

use crate::support::*;

const BUILT_IN: [&str; 6] = ["default", "strict", "nested", "agent", "hpc", "ci"];

#[test]
fn every_built_in_policy_runs() {
    let place = place();
    for name in BUILT_IN {
        assert_eq!(place.inside_with(&["--policy", name], "echo ran").ok(), "ran", "{name}");
        place.sandbox(&["policy", "show", name]).ok();
    }
    let list = place.sandbox(&["policy", "list"]);
    assert!(BUILT_IN.iter().all(|n| list.ok().contains(n)));
}

#[test]
fn strict() {
    let place = place();
    place.dir("out");
    let flags = ["--policy", "strict", "--rw", &place.at("out")];
    let script = "umask; touch /etc/x ~/x x 2>/dev/null || echo read-only; touch out/fine /tmp/fine && echo written; ls /sys/class 2>/dev/null | wc -l; cat /proc/cmdline | wc -c; nproc > /dev/null && echo counts";
    assert_eq!(place.inside_with(&flags, script).ok(), "0077\nread-only\nwritten\n0\n0\ncounts");
    assert!(place.path("out/fine").exists());
}

#[test]
fn strict_keeps_tcp_out() {
    need!(landlock() >= 4, "needs landlock rules on TCP (Linux 6.7)");
    let place = place();
    assert_ne!(place.probed(&["--policy", "strict"], &["listen-tcp", "7000"])["bind"], "OK");
    assert_ne!(place.probed(&["--policy", "strict"], &["connect-tcp", "7000"])["connect"], "OK");
    assert_eq!(place.probed(&[], &["listen-tcp", "7000"])["bind"], "OK");
}

#[test]
fn ci_and_hpc_share_the_network() {
    let place = place();
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for name in ["ci", "hpc"] {
        assert_eq!(place.inside_with(&["--policy", name], "readlink /proc/self/ns/net").ok(), outside);
    }
    for name in ["default", "strict", "agent", "nested"] {
        assert_ne!(place.inside_with(&["--policy", name], "readlink /proc/self/ns/net").ok(), outside);
    }
}

#[test]
fn a_named_policy_is_a_limit() {
    let place = place();
    for loosened in [
        &["--network", "host"][..],
        &["--cap-add", "NET_ADMIN"],
        &["--security-opt", "seccomp=unconfined"],
        &["--security-opt", "no-new-privileges=false"],
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--best-effort", "seccomp"],
        &["--timeout", "0"],
        &["--timeout", "9999999"],
        &["--umask", "000"],
        &["--ulimit", "nofile=60000"],
    ] {
        let output = place.sandbox(&[&["run", "--policy", "strict"], loosened, &["--", "true"]].concat());
        output.refused("cannot go beyond policy strict").hinted();
    }
    for tightened in [&["--timeout", "10"][..], &["--hide", "x"], &["--read-only"], &["--ulimit", "nofile=64"], &["--cap-drop", "ALL"]] {
        place.sandbox(&[&["run", "--policy", "strict"], tightened, &["--", "true"]].concat()).ok();
    }
}

#[test]
fn policies_of_the_user() {
    let place = place();
    place
        .file(".config/sandbox/policies/mine.toml", "description = \"mine\"\n[process]\nhostname = \"from-policy\"\nenv = { SET = \"by policy\" }\n");
    assert_eq!(place.inside_with(&["--policy", "mine"], "hostname; echo $SET").ok(), "from-policy\nby policy");
    // The user's own default counts without being named.
    place.file(".config/sandbox/policies/default.toml", "description = \"d\"\ninclude = [\"default\"]\n[process]\nhostname = \"my-default\"\n");
    assert_eq!(place.inside("hostname").ok(), "my-default");
    place.sandbox(&["policy", "check", &place.at(".config/sandbox/policies/mine.toml")]).ok();
    assert!(place.sandbox(&["policy", "list"]).ok().contains("mine"));
}

#[test]
fn a_policy_that_others_can_write_is_not_trusted() {
    let place = place();
    let file = place.file(".config/sandbox/policies/mine.toml", "description = \"mine\"\n");
    mode(&file, 0o666);
    place.sandbox(&["run", "--policy", "mine", "--", "true"]).refused("mine").hinted();
    mode(&file, 0o644);
    mode(&place.path(".config/sandbox/policies"), 0o777);
    place.sandbox(&["run", "--policy", "mine", "--", "true"]).refused("cannot").hinted();
    mode(&place.path(".config/sandbox/policies"), 0o755);
    place.sandbox(&["run", "--policy", "mine", "--", "true"]).ok();
    if root() {
        give(&file, accounts().mallory.as_ref().unwrap().uid, 0);
        place.sandbox(&["run", "--policy", "mine", "--", "true"]).refused("mine");
    }
}

#[test]
fn a_policy_file_by_path() {
    let place = place();
    place.file("p.toml", "description = \"by path\"\ninclude = [\"strict\"]\n[process]\nhostname = \"by-path\"\n");
    assert_eq!(place.inside_with(&["--policy", "./p.toml"], "hostname; grep CapBnd /proc/self/status | cut -f 2").ok(), "by-path\n0000000000000000");
    place.sandbox(&["run", "--policy", "p.toml", "--", "true"]).refused("p.toml");
}

#[test]
fn broken_policies_are_refused_with_a_place() {
    let place = place();
    for (text, says) in [
        ("include = [\"self\"]\n", "self"),
        ("[network]\nmode = \"bogus\"\n", "bogus"),
        ("[capabilities]\nadd = [\"BOGUS\"]\n", "BOGUS"),
        ("[seccomp]\nallow = [\"@bogus\"]\n", "@bogus"),
        ("[seccomp]\nallow = [\"no_such_call\"]\n", "no_such_call"),
        ("[proc]\nmask = [{ path = \"/etc/passwd\", why = \"x\" }]\n", "/etc/passwd"),
        ("[proc]\nmask = [{ path = \"/proc/../etc\", why = \"x\" }]\n", "/proc/../etc"),
        ("x = \"\\u0000\"\n", "x"),
        ("[files]\nhide = [{ path = \"~/x\" }]\n", "why"),
        ("[process]\numask = \"999\"\n", "umask"),
    ] {
        let text = format!("description = \"d\"\n{text}");
        place.file(".config/sandbox/policies/self.toml", &text);
        let output = place.sandbox(&["run", "--policy", "self", "--", "true"]);
        if says != "self" {
            output.refused(says);
        }
        place.file("p.toml", &text);
        if says != "self" {
            place.sandbox(&["run", "--policy", "./p.toml", "--", "true"]).refused(says);
        }
    }
}

#[test]
fn empty_lists_mean_nothing_is_allowed() {
    let place = place();
    // cve: 2025-66479: an empty list is no open door.
    place.file("p.toml", "description = \"d\"\ninclude = [\"default\"]\n[seccomp]\nsocket-families = []\n[network]\nmode = \"host\"\n[landlock]\ntcp-connect = []\ntcp-bind = []\n");
    let seen = place.probed(&["--policy", "./p.toml"], &["families"]);
    let open: Vec<_> = seen.iter().filter(|(_, a)| *a == "OK").collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn hidden_by_a_policy_of_the_users() {
    let place = place();
    place.file("customers/list", "CANARY");
    place.file("p.toml", "description = \"d\"\ninclude = [\"default\"]\n[files]\nhide = [{ path = \"~/customers\", why = \"personal data\" }, { path = \"~/later\", why = \"not there yet\" }]\n");
    let output = place.inside_with(&["--policy", "./p.toml"], "cat ~/customers/list 2>/dev/null; ls -A ~ | grep -c customers; true");
    assert!(!output.stdout.contains("CANARY"), "{output:?}");
}

#[test]
fn fresh_directories_are_empty_and_writable() {
    let place = place();
    let output = place.inside("for d in /tmp /var/tmp; do ls -A $d | wc -l; stat -c %a $d; touch $d/x || exit 1; done; ls /run");
    assert!(output.ok().starts_with("0\n1777\n0\n1777"), "{output:?}");
}

#[test]
fn a_home_below_a_fresh_directory() {
    let place = place();
    let home = std::path::PathBuf::from(format!("/tmp/sandbox-it-home-{}", std::process::id()));
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("file"), "old").unwrap();
    if root() {
        give(&home, place.account.uid, place.account.gid);
        give(&home.join("file"), place.account.uid, place.account.gid);
    }
    let mut command = place.cli(&["run", "--", "sh", "-c", "cat file; echo new > file; touch made; ls -A /tmp | wc -l"]);
    command.env("HOME", &home).current_dir(&home);
    let output = finish(command.spawn().unwrap(), b"");
    let after = (std::fs::read_to_string(home.join("file")).unwrap(), home.join("made").exists());
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(output.ok(), "old1");
    assert_eq!(after, ("old".to_string(), false));
}
