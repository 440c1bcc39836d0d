//! /proc, /sys and /dev as seen from inside: what is masked stays masked, what is read-only stays so, PID 1 is out of reach.

use crate::support::*;

/// Files below /proc that a process may write by design, as itself. PSI triggers are rate-limited by the kernel.
const OWN: [&str; 20] = [
    "sched",
    "autogroup",
    "timens_offsets",
    "comm",
    "mem",
    "clear_refs",
    "oom_adj",
    "oom_score_adj",
    "loginuid",
    "coredump_filter",
    "uid_map",
    "gid_map",
    "projid_map",
    "setgroups",
    "timerslack_ns",
    "make-it-fail",
    "fail-nth",
    "patch_state",
    "arch_status",
    "latency",
];

fn writable(place: &Place, flags: &[&str]) -> Vec<String> {
    let mut odd = Vec::new();
    for top in ["/proc", "/sys"] {
        let output = place.sandbox(&[&["run"], flags, &["--", &place.probe(), "walk", top]].concat());
        let fine = |line: &str| match line.strip_prefix("/proc/PID/") {
            Some(name) => OWN.contains(&name) || name.starts_with("attr/"),
            None => line.starts_with("/proc/pressure/"),
        };
        odd.extend(output.ok().lines().filter(|l| !l.is_empty() && !fine(l)).map(String::from));
    }
    odd
}

#[test]
fn s21_cve_2015_3630_nothing_below_proc_and_sys_is_writable() {
    assert_eq!(writable(&place(), &[]), Vec::<String>::new());
}

#[test]
fn s21_nor_for_root_inside() {
    assert_eq!(writable(&place(), &["-u", "0"]), Vec::<String>::new());
}

#[test]
fn s21_nor_for_root_with_every_capability_and_no_filter() {
    assert_eq!(writable(&place(), &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]), Vec::<String>::new());
}

#[test]
fn s21_nor_under_strict() {
    assert_eq!(writable(&place(), &["--policy", "strict"]), Vec::<String>::new());
}

#[test]
fn s21_nor_with_the_hosts_network() {
    assert_eq!(writable(&place(), &["--network", "host", "-u", "0"]), Vec::<String>::new());
}

/// Every path that the policy masks: not there, empty, or closed.
fn masked(flags: &[&str], policy: &str) {
    let place = place();
    let shown = place.sandbox(&["policy", "show", policy, "--json"]);
    let policy: serde_json::Value = serde_json::from_str(shown.ok()).expect("JSON");
    let paths: Vec<String> = policy["proc"]["mask"].as_array().expect("proc.mask").iter().map(|e| e["path"].as_str().unwrap().to_string()).collect();
    assert!(paths.len() > 30);
    let script = "for p; do if [ -d \"$p\" ]; then ls -A \"$p\" 2>/dev/null | head -1 | grep -q . && echo \"open $p\"; \
                  else head -c 1 \"$p\" 2>/dev/null | grep -qa . && echo \"open $p\"; fi; done; echo done";
    let mut args = vec!["run"];
    args.extend(flags);
    args.extend(["--", "sh", "-c", script, "sh"]);
    args.extend(paths.iter().map(String::as_str));
    let output = place.sandbox(&args);
    assert_eq!(output.ok(), "done", "{output:?}");
}

#[test]
fn s21_ghsa_jq35_85cj_fj4p_masked_paths_are_empty() {
    masked(&[], "default");
}

#[test]
fn s21_ghsa_6fw5_f8r9_fgfm_masked_paths_are_empty_for_root_inside() {
    masked(&["-u", "0", "--cap-add", "ALL"], "default");
}

#[test]
fn s21_masked_paths_are_empty_under_strict() {
    masked(&["--policy", "strict"], "strict");
}

#[test]
fn s09_masks_are_our_own_empty_files_not_the_roots() {
    let place = place();
    tiny_root(&place, "root");
    let script =
        "for p in /proc/keys /proc/kallsyms /proc/key-users; do stat -c '%s %F' $p; done; stat -c %a /sys/firmware; ls -A /sys/firmware | wc -l";
    let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "sh", "-c", script]);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines, ["0 regular empty file", "0 regular empty file", "0 regular empty file", "555", "0"]);
}

#[test]
fn s08_proc_is_a_fresh_one_of_our_own_pids() {
    let place = place();
    let output = place.inside("ls -d /proc/[0-9]* | wc -l; stat -f -c %T /proc; stat -c %i /proc; readlink /proc/self; echo $$");
    let lines: Vec<_> = output.ok().lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() <= 6, "{output:?}");
    assert_eq!(&lines[1..3], ["proc", "1"]);
    assert!(lines[4].parse::<u32>().unwrap() <= 3, "{output:?}");
}

#[test]
fn s21_sysctls_cannot_be_set() {
    let place = place();
    for name in [
        "kernel/core_pattern",
        "kernel/hostname",
        "vm/overcommit_memory",
        "net/ipv4/ip_forward",
        "user/max_user_namespaces",
        "kernel/modprobe",
        "fs/binfmt_misc/register",
        "kernel/ns_last_pid",
        "kernel/sysrq",
        "net/ipv4/ping_group_range",
    ] {
        for flags in [&["-u", "0"][..], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
            let output = place.inside_with(flags, &format!("echo 1 > /proc/sys/{name}"));
            assert_ne!(output.code(), 0, "{name}: {output:?}");
        }
    }
    assert_ne!(place.inside_with(&["-u", "0"], "echo b > /proc/sysrq-trigger").code(), 0);
}

#[test]
fn k03_cve_2022_0492_no_cgroup_can_be_written() {
    let place = place();
    let script = "find /sys/fs/cgroup -type f -writable 2>/dev/null | head; for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs 2>/dev/null | head -50); do (echo $$ > $f) 2>/dev/null && echo \"wrote $f\"; done; echo done";
    for flags in [&[][..], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
        assert_eq!(place.inside_with(flags, script).ok(), "done");
    }
}

#[test]
fn g01_cve_2023_25809_sys_fs_cgroup_is_read_only() {
    let place = place();
    let output = place.inside_with(&["-u", "0"], "mkdir /sys/fs/cgroup/x 2>&1; mkdir /sys/x 2>&1; echo done");
    assert!(
        output.stdout.matches("Read-only").count() + output.stdout.matches("ermission").count() + output.stdout.matches("No such file").count() >= 2,
        "{output:?}"
    );
}

#[test]
fn g04_ghsa_g54h_m393_cpwq_the_devices_are_the_listed_ones() {
    let place = place();
    let output = place.inside("find /dev -mindepth 1 | sort | tr '\\n' ' '");
    let expected = "/dev/fd /dev/full /dev/mqueue /dev/null /dev/ptmx /dev/pts /dev/pts/ptmx /dev/random /dev/shm /dev/stderr /dev/stdin /dev/stdout /dev/urandom /dev/zero";
    assert_eq!(output.ok().trim(), expected);
    let output = place.inside_with(&["-t"], "find /dev -mindepth 1 | sort | tr '\\n' ' '");
    assert_eq!(output.ok().trim(), expected.replace("/dev/urandom", "/dev/tty /dev/urandom").replace("/dev/pts/ptmx", "/dev/pts/0 /dev/pts/ptmx"));
}

#[test]
fn g04_no_device_can_be_made() {
    let place = place();
    for (name, node) in [("null", "c 1 3"), ("mem", "c 1 1"), ("sda", "b 8 0"), ("kvm", "c 10 232"), ("fuse", "c 10 229")] {
        let output =
            place.inside_with(&["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &format!("mknod /tmp/{name} {node}"));
        assert_ne!(output.code(), 0, "{name}: {output:?}");
    }
}

#[test]
fn g04_a_device_of_the_root_directory_is_dead() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let root = tiny_root(&place, "root");
    let made = std::process::Command::new("mknod").arg(root.join("mem")).args(["c", "1", "5"]).output().unwrap();
    assert!(made.status.success());
    mode(&root.join("mem"), 0o666);
    for how in ["root", "root:rw"] {
        let output = place.sandbox(&["run", "--rootfs", &place.at(how), "head", "-c", "1", "/mem"]);
        assert_ne!(output.code(), 0, "{output:?}");
    }
    std::fs::remove_file(root.join("mem")).unwrap();
}

fn pid1(flags: &[&str]) {
    let place = place();
    let seen = place.probed(flags, &["pid1"]);
    assert_eq!(seen["alive"], "OK");
    assert_eq!(seen["fds_seen"], "0");
    for (name, answer) in &seen {
        if name == "alive" || name == "fds_seen" || name.starts_with("kill_") {
            continue;
        }
        assert!(["EACCES", "EPERM", "ENOSYS"].contains(&answer.as_str()), "PID 1: {name}={answer}");
    }
}

#[test]
fn s04_cve_2016_9962_cve_2016_8659_pid_1_is_out_of_reach() {
    pid1(&[]);
}

#[test]
fn s04_pid_1_is_out_of_reach_of_root_inside() {
    pid1(&["-u", "0"]);
}

#[test]
fn s04_pid_1_is_out_of_reach_of_every_capability() {
    pid1(&["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]);
}

#[test]
fn s04_pid_1_survives_what_is_sent_to_it() {
    let place = place();
    for flags in [&[][..], &["-u", "0", "--cap-add", "ALL"]] {
        let output = place.inside_with(
            flags,
            "for s in 1 2 3 4 6 7 8 9 10 11 12 13 14 15 19 20 24 25 26 31 34 64; do kill -$s 1 2>/dev/null; done; sleep 0.2; echo alive",
        );
        assert_eq!(output.ok(), "alive");
    }
}

#[test]
fn l5_pid_1_holds_two_descriptors() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", "echo ready; sleep 20"]), "ready");
    assert_eq!(children(child.id()).len(), 1 + usize::from(on_fuse()));
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", init_of(child.id())))
        .unwrap()
        .map(|e| std::fs::read_link(e.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert_eq!(fds.len(), 2, "{fds:?}");
    assert!(fds.iter().any(|f| f.starts_with("socket:")) && fds.iter().all(|f| f.starts_with("socket:") || !f.contains("home")), "{fds:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn s21_kernel_addresses_and_messages_are_not_told() {
    let place = place();
    let output = place.inside_with(
        &["-u", "0", "--cap-add", "ALL"],
        "head -c 100 /proc/kallsyms /proc/kcore /proc/kmsg /proc/iomem /dev/kmsg /dev/mem /dev/port 2>/dev/null | grep -av '^==>' | tr -d '\\n'",
    );
    assert_eq!(output.stdout, "", "{output:?}");
}

#[test]
fn s21_proc_paths_cannot_be_uncovered() {
    let place = place();
    let flags = ["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];
    let output = place.inside_with(&flags, "umount /proc/keys 2>/dev/null && echo gone; umount -l /proc 2>/dev/null && echo gone; mount -t proc proc /tmp 2>/dev/null && echo mounted; mount --bind /proc /tmp 2>/dev/null && echo bound; echo done");
    assert_eq!(output.ok(), "done");
}
