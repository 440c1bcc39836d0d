//! Users, groups and capabilities: inside nobody is more than the caller was, and nobody can become it.

use crate::support::*;
use std::collections::BTreeMap;

fn status(place: &Place, flags: &[&str]) -> BTreeMap<String, String> {
    let output = place.inside_with(flags, "cat /proc/self/status");
    parse(output.ok())
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_string(), v.trim().to_string())).collect()
}

const NONE: &str = "0000000000000000";
/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP SYS_CHROOT SETFCAP
const TEN: &str = "00000000800401fb";

/// CapInh, CapPrm, CapEff, CapBnd, CapAmb; and that nothing is gained by exec.
fn capabilities(flags: &[&str], effective: &str, bounding: &str) {
    let place = place();
    let s = status(&place, flags);
    let seen = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|k| s[k].as_str());
    assert_eq!(seen, [NONE, effective, effective, bounding, NONE], "{flags:?}");
    assert_eq!(s["NoNewPrivs"], "1");
}

#[test]
fn u03_cve_2022_24769_cve_2022_29162_nothing_inheritable_for_the_caller() {
    capabilities(&[], NONE, TEN);
}

#[test]
fn u03_cve_2022_27649_nothing_inheritable_for_root_inside() {
    capabilities(&["-u", "0"], TEN, TEN);
}

#[test]
fn u03_cve_2025_27612_nothing_inheritable_under_strict() {
    capabilities(&["--policy", "strict"], NONE, NONE);
}

#[test]
fn u03_strict_root_inside_has_none() {
    capabilities(&["--policy", "strict", "-u", "0"], NONE, NONE);
}

#[test]
fn u03_cap_drop_all() {
    capabilities(&["-u", "0", "--cap-drop", "ALL"], NONE, NONE);
    capabilities(&["-u", "0", "--cap-drop", "ALL", "--cap-add", "CHOWN"], "0000000000000001", "0000000000000001");
}

#[test]
fn u04_cve_2018_10856_another_user_has_none() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    capabilities(&["-u", "1"], NONE, TEN);
    capabilities(&["-u", "1", "--cap-add", "ALL"], NONE, "000001ffffffffff");
}

#[test]
fn u03_in_a_root_directory() {
    let place = place();
    tiny_root(&place, "root");
    let dir = place.at("root");
    for (user, effective) in [("0", TEN), ("bob", NONE), ("1", NONE)] {
        if user != "0" && subuids(&place.account).is_none() {
            continue;
        }
        let output = place.sandbox(&["run", "--rootfs", &dir, "-u", user, "cat", "/proc/self/status"]);
        let s = parse(output.ok());
        assert_eq!(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|k| s[k].as_str()), [NONE, effective, effective, TEN, NONE]);
    }
}

#[test]
fn u03_a_file_with_capabilities_gives_nothing() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let dir = place.dir("caps");
    std::fs::copy("/bin/cat", dir.join("cat")).unwrap();
    mode(&dir.join("cat"), 0o755);
    let set = std::process::Command::new("setcap").args(["cap_net_raw,cap_sys_admin,cap_dac_override+ep"]).arg(dir.join("cat")).status();
    need!(set.is_ok_and(|s| s.success()), "needs setcap");
    let output = place.sandbox(&["run", "--", dir.join("cat").to_str().unwrap(), "/proc/self/status"]);
    assert_eq!(parse(output.ok())["CapEff"], NONE);
}

#[test]
fn u03_no_ambient_capability_can_be_raised() {
    let place = place();
    for flags in [&[][..], &["-u", "0"]] {
        let output = place.sandbox(&[&["run"], flags, &["--", &place.probe(), "securebits"]].concat());
        assert!(!output.ok().contains("ambient="), "{output:?}");
    }
}

#[test]
fn k13_cve_2021_4034_a_setuid_program_gains_nothing() {
    let place = place();
    let output = place.inside("for p in /usr/bin/su /usr/bin/passwd /usr/bin/mount /usr/bin/newgrp; do [ -u $p ] && echo $p; done");
    let programs: Vec<_> = output.ok().lines().map(String::from).collect();
    need!(!programs.is_empty(), "needs a setuid program on the host");
    // A copy of `id` with the set-user-id bit, owned by the host's root: the mount is nosuid, and no_new_privs is set.
    if root() {
        let id = place.path("id");
        std::fs::copy("/usr/bin/id", &id).unwrap();
        give(&id, 0, 0);
        mode(&id, 0o6755);
        let output = place.sandbox(&["run", "--", id.to_str().unwrap(), "-u"]);
        assert_eq!(output.ok(), place.account.uid.to_string());
        std::fs::remove_file(&id).unwrap();
    }
}

#[test]
fn k02_cve_2023_0386_a_setuid_file_made_inside_is_not_one_outside() {
    let place = place();
    place.dir("shared");
    let output = place.inside_with(
        &["-u", "0", "--rw", &place.at("shared")],
        &format!("cp /usr/bin/id {0}/id && chmod 6755 {0}/id; ls -l {0}/id", place.at("shared")),
    );
    output.ok();
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(place.path("shared/id")).unwrap();
    assert_ne!(meta.uid(), 0, "a file of the host's root was made");
    if root() {
        std::fs::remove_file(place.path("shared/id")).unwrap();
    } else {
        place.inside_with(&["-u", "0", "--rw", &place.at("shared")], &format!("rm {}/id", place.at("shared"))).ok();
    }
}

#[test]
fn k13_no_new_privs_false_still_gives_nothing_of_the_host() {
    let place = place();
    let output =
        place.inside_with(&["--security-opt", "no-new-privileges=false"], "su -c id root < /dev/null 2>&1; cat /proc/self/status | grep CapInh");
    assert!(!output.stdout.contains("uid=0(root) gid=0"), "{output:?}");
}

/// A file that is open to all but the members of a group.
fn blocked(flags: &[&str]) {
    let place = place();
    let (gid, plain) = (64_123, place.file("blocked", "CANARY"));
    give(&plain, 0, gid);
    mode(&plain, 0o604);
    let outside = |groups: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.env_clear().envs(&place.env).current_dir(&place.home).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.args(["--reuid", &place.account.uid.to_string(), "--regid", &place.account.gid.to_string(), "--groups", groups, "--"]);
        command
    };
    let member = format!("{},{gid}", place.account.gid);
    let read = format!("cat {}; grep Groups /proc/self/status", plain.display());
    // Outside: the group is what blocks.
    assert!(finish(outside(&place.account.gid.to_string()).args(["sh", "-c", &read]).spawn().unwrap(), b"").stdout.contains("CANARY"));
    assert!(!finish(outside(&member).args(["sh", "-c", &read]).spawn().unwrap(), b"").stdout.contains("CANARY"));
    let output = finish(outside(&member).arg(program()).arg("run").args(flags).args(["--", "sh", "-c", &read]).spawn().unwrap(), b"");
    output.ok();
    assert!(!output.stdout.contains("CANARY"), "{output:?}");
    assert!(output.stdout.contains("65534"), "the group was dropped: {output:?}");
}

#[test]
fn u01_cve_2014_8989_a_blocked_group_stays_blocked() {
    need!(root(), "needs root, to become another user");
    blocked(&[]);
}

#[test]
fn u01_cve_2018_7169_a_blocked_group_stays_blocked_with_one_id() {
    need!(root(), "needs root, to become another user");
    blocked(&["--userns", "single"]);
}

#[test]
fn u01_a_blocked_group_stays_blocked_under_strict() {
    need!(root(), "needs root, to become another user");
    blocked(&["--policy", "strict"]);
}

#[test]
fn u01_one_id_denies_setgroups() {
    let place = place();
    let output = place.inside_with(&["--userns", "single"], "cat /proc/self/setgroups; cat /proc/self/uid_map");
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[0], "deny");
    let seen = place.probed(&["--userns", "single"], &["ids"]);
    assert_eq!((seen["setgroups_none"].as_str(), seen["setgroups_0"].as_str()), ("EPERM", "EPERM"));
}

#[test]
fn u02_cve_2022_2989_cve_2022_36109_the_primary_group_is_among_the_groups() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    tiny_root(&place, "root");
    let dir = place.at("root");
    for (user, uid, gid, groups) in [
        ("bob", "1000", "1000", "1000 2000"),
        ("1000", "1000", "1000", "1000"),
        ("bob:extra", "1000", "2000", "2000"),
        ("5:7", "5", "7", "7"),
        ("0", "0", "0", "0"),
    ] {
        let output = place.sandbox(&["run", "--rootfs", &dir, "-u", user, "/bin/probe", "ids"]);
        output.ok();
        let seen = output.answers();
        assert_eq!(seen["uids"], format!("{uid} {uid} {uid}"), "{user}");
        assert_eq!(seen["gids"], format!("{gid} {gid} {gid}"), "{user}");
        let list: Vec<_> = seen["groups"].split(' ').filter(|g| *g != "65534").collect();
        if user == "0" {
            assert!(list.contains(&"0") || seen["groups"].is_empty() || list.is_empty(), "{user}: {seen:?}");
        } else {
            assert!(list.contains(&gid), "{user}: {seen:?}");
            assert!(list.iter().all(|g| groups.split(' ').any(|x| x == *g)), "{user}: {seen:?}");
        }
    }
}

#[test]
fn i13_cve_2024_40635_cve_2016_3697_numbers_are_read_once() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    tiny_root(&place, "root");
    place.file("root/etc/passwd", "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n");
    let dir = place.at("root");
    let uid = |user: &str| {
        let output = place.sandbox(&["run", "--rootfs", &dir, "-u", user, "id", "-u"]);
        if output.code() == 0 { output.ok().to_string() } else { format!("{}", output.code()) }
    };
    assert_eq!(uid("1000"), "1000", "a name of digits must not win");
    for refused in [
        "00",
        "01000",
        "2147483648",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "+0",
        " 0",
        "0x0",
        "1000:1000:1",
        "",
        ":0",
        "1000:-1",
        "0\n",
        "nobody-such",
        "65537",
    ] {
        assert_eq!(uid(refused), "125", "{refused:?}");
    }
}

#[test]
fn i13_the_callers_ids_are_the_only_ones_of_the_host() {
    let place = place();
    let output = place.inside("cat /proc/self/uid_map /proc/self/gid_map");
    let (start, count) = subuids(&place.account).unwrap_or((0, 0));
    let outer = place.inside_with(&["-u", "0"], "true");
    assert!(outer.code() == 0 || count == 0);
    // Seen from inside the two levels the inner map is the identity; from outside, host ids.
    output.ok();
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", "echo ready; sleep 20"]), "ready");
    let init = init_of(child.id());
    for (file, own) in [("uid_map", place.account.uid), ("gid_map", place.account.gid)] {
        let map = std::fs::read_to_string(format!("/proc/{init}/{file}")).unwrap();
        for line in map.lines() {
            let n: Vec<u32> = line.split_whitespace().map(|w| w.parse().unwrap()).collect();
            let of_own = n[2] == 1 && n[1] == own;
            let of_sub = n[1] >= start && n[1] + n[2] <= start + count;
            assert!(of_own || of_sub, "{file}: {line} is neither own nor subordinate");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn u05_cve_2018_18955_odd_maps_are_refused_before_anybody_is_asked() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let (start, _) = subuids(&place.account).unwrap();
    for map in [
        "0:0:1".to_string(),
        "0:0:65536".into(),
        format!("0:{}:1", start - 1),
        format!("0:{start}:70000"),
        format!("0:{start}:0"),
        "0:4294967295:1".into(),
        "0:4294967294:5".into(),
        "4294967295:1:1".into(),
        "a:b:c".into(),
        "0:1".into(),
        "0:1:2:3".into(),
        "-1:0:1".into(),
        format!("0:{start}:99999999999"),
    ] {
        let output = place.sandbox(&["run", "--uidmap", &map, "--", "true"]);
        assert_eq!(output.code(), 125, "{map}: {output:?}");
    }
    let overlapping = [format!("0:{start}:10"), format!("5:{}:10", start + 100)];
    place.sandbox(&["run", "--uidmap", &overlapping[0], "--uidmap", &overlapping[1], "--", "true"]).refused("");
    let twice = [format!("0:{start}:10"), format!("50:{}:10", start + 5)];
    place.sandbox(&["run", "--uidmap", &twice[0], "--uidmap", &twice[1], "--", "true"]).refused("");
    let mut many = vec!["run".to_string()];
    for n in 0..341 {
        many.extend(["--uidmap".into(), format!("{}:{}:1", n * 2, start + n * 2)]);
    }
    many.extend(["--".into(), "true".into()]);
    place.sandbox(&many).refused("");
}

#[test]
fn u05_many_extents_work() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let (start, _) = subuids(&place.account).unwrap();
    let mut args = vec!["run".to_string()];
    for n in 0..300 {
        args.extend(["--uidmap".into(), format!("{}:{}:1", n * 2, start + n * 3)]);
    }
    tiny_root(&place, "root");
    args.extend(["--rootfs".into(), place.at("root"), "sh".into(), "-c".into(), "wc -l < /proc/self/uid_map".into()]);
    let output = place.sandbox(&args);
    if output.code() == 0 {
        assert_eq!(output.ok().trim(), "300");
    } else {
        output.refused("");
    }
}

#[test]
fn u05_cve_2013_1959_the_maps_cannot_be_written_again() {
    let place = place();
    for flags in [&["-u", "0"][..], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &["--userns", "single", "-u", "0"]] {
        let output = place.inside_with(flags, "echo '0 0 4294967295' > /proc/self/uid_map; echo '0 0 4294967295' > /proc/self/gid_map; echo '0 0 1' > /proc/1/uid_map; echo allow > /proc/self/setgroups; cat /proc/self/uid_map; true");
        if output.code() == 125 {
            continue; // -u 0 where there is one id only
        }
        assert!(!output.ok().contains("4294967295"), "{output:?}");
    }
}

#[test]
fn u07_cve_2021_21284_the_caller_is_out_of_reach_without_a_map() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    tiny_root(&place, "root");
    let secret = place.file("private", "CANARY");
    mode(&secret, 0o600);
    let bind = format!("{}:/mnt", place.home.display());
    let output = place.sandbox(&[
        "run",
        "--userns",
        "nomap",
        "--rootfs",
        &place.at("root"),
        "-v",
        &bind,
        "sh",
        "-c",
        "cat /mnt/private; id -u; touch /mnt/new",
    ]);
    assert!(!output.stdout.contains("CANARY"), "{output:?}");
    assert!(!place.path("new").exists());
}

#[test]
fn u03_the_user_inside_cannot_kill_the_hosts_processes() {
    let place = place();
    let mut bystander = place.command("sleep").arg("30").spawn().unwrap();
    // Not -1: were the door open, that would be all processes of whoever runs the tests.
    let script = format!("kill -9 {0}; kill -9 -{0}; true", bystander.id());
    for flags in [&["-u", "0", "--cap-add", "ALL"][..], &["--pid", "host"], &["--pid", "host", "-u", "0", "--cap-add", "ALL"]] {
        place.inside_with(flags, &script);
        assert!(bystander.try_wait().unwrap().is_none(), "{flags:?}: a process of the host was killed");
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn s20_cve_2020_5291_nothing_of_ours_is_setuid() {
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(env!("CARGO_BIN_EXE_sandbox")).unwrap().mode() & 0o6000, 0);
}
