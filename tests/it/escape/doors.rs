//! The kernel's doors: system calls by ABI and policy, socket families, namespaces, and what root with every capability can do.

use crate::support::*;
use std::collections::BTreeMap;

const SHUT: [&str; 3] = ["EPERM", "ENOSYS", "ENOSPC"];

/// Shut in every policy but `nested`.
const ALWAYS: &str = "fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr open_tree_attr mount umount2 pivot_root unshare_user unshare_ns unshare_net \
    unshare_pid unshare_ipc unshare_uts unshare_cgroup unshare_time setns clone3 bpf perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd \
    vmsplice add_key request_key keyctl kexec_load kexec_file_load init_module finit_module delete_module quotactl fanotify_init lookup_dcookie open_by_handle_at \
    modify_ldt ioperm iopl uselib ustat sysfs acct swapon swapoff reboot settimeofday clock_settime vhangup syslog nfsservctl lsm_set_self_attr sethostname \
    setdomainname migrate_pages move_pages personality_read_implies_exec ioctl_tiocsti ioctl_tiocsti_high ioctl_tioclinux ioctl_tioclinux_high \
    ioctl_tiocsetd ioctl_tioccons clone_newuser clone_newns clone_newnet clone_newuser_high kcmp";
/// Shut under `strict` too.
const STRICT: &str = "ptrace process_vm_readv process_vm_writev pidfd_getfd process_madvise name_to_handle_at mbind";
/// What everybody needs.
const OPEN: &str = "getpid openat chown futex epoll_create1 memfd_create landlock_create_ruleset rseq statx";

fn doors(flags: &[&str], shut: &[&str], open: &[&str]) {
    let place = place();
    let seen = place.probed(flags, &["doors"]);
    for name in shut.iter().flat_map(|l| l.split_whitespace()) {
        let answer = seen.get(name).unwrap_or_else(|| panic!("no answer for {name}"));
        assert!(SHUT.contains(&answer.as_str()), "{flags:?}: {name}={answer}");
    }
    for name in open.iter().flat_map(|l| l.split_whitespace()) {
        let answer = &seen[name];
        assert!(answer != "EPERM" && !answer.starts_with("SIG") && (answer != "ENOSYS" || name == "futex"), "{flags:?}: {name}={answer}");
    }
}

#[test]
fn k12_cve_2021_41133_doors_of_default() {
    doors(&[], &[ALWAYS], &[OPEN, "ptrace process_vm_readv pidfd_getfd openat2"]);
}

#[test]
fn k12_doors_of_default_for_root_inside() {
    doors(&["-u", "0"], &[ALWAYS], &[OPEN]);
}

#[test]
fn k12_doors_with_every_capability() {
    doors(&["-u", "0", "--cap-add", "ALL"], &[ALWAYS], &[OPEN]);
}

#[test]
fn k12_doors_of_strict() {
    doors(&["--policy", "strict"], &[ALWAYS, STRICT], &[OPEN]);
}

#[test]
fn k12_doors_of_agent() {
    doors(&["--policy", "agent"], &[ALWAYS], &[OPEN]);
}

#[test]
fn k12_doors_of_ci_and_hpc() {
    doors(&["--policy", "ci"], &[ALWAYS], &[OPEN]);
    let hpc: String = ALWAYS.split_whitespace().filter(|n| !["migrate_pages", "move_pages"].contains(n)).collect::<Vec<_>>().join(" ");
    doors(&["--policy", "hpc"], &[&hpc], &[OPEN]);
}

#[test]
fn k12_doors_of_nested_that_stay_shut() {
    doors(
        &["--security-opt", "nested"],
        &[
            "bpf perf_event_open io_uring_setup userfaultfd vmsplice add_key request_key keyctl kexec_load init_module finit_module open_by_handle_at swapon reboot settimeofday syslog \
           ioctl_tiocsti ioctl_tiocsti_high ioctl_tioclinux iopl modify_ldt acct",
        ],
        &[OPEN],
    );
}

/// Numbers that no kernel knew when the filter was written.
fn unknown(flags: &[&str]) {
    let place = place();
    for range in [["475", "511"], ["548", "640"], ["1000", "1023"]] {
        let seen = place.probed(flags, &["sweep", range[0], range[1]]);
        for (number, answer) in &seen {
            assert_eq!(answer, "ENOSYS", "{flags:?}: {number}");
        }
        assert!(seen.len() > 20);
    }
}

#[test]
fn k12_unknown_numbers_answer_enosys() {
    unknown(&[]);
}

#[test]
fn k12_unknown_numbers_answer_enosys_under_strict() {
    unknown(&["--policy", "strict"]);
}

/// The numbers of x32 alone, called without its bit: not for us.
#[test]
fn k12_numbers_of_x32_are_no_way_in() {
    let place = place();
    for (number, answer) in place.probed(&[], &["sweep", "512", "547"]) {
        assert!(["ENOSYS", "EPERM", "SIGSYS"].contains(&answer.as_str()), "{number}={answer}");
    }
}

fn foreign(flags: &[&str], prefix: &str) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let place = place();
    let seen = place.probed(flags, &["abi"]);
    let mut asked = 0;
    for (name, answer) in seen.iter().filter(|(n, _)| n.starts_with(prefix)) {
        asked += 1;
        // A kernel without the ABI answers itself.
        assert!(["SIGSYS", "ENOSYS", "SIGSEGV"].contains(&answer.as_str()), "{flags:?}: {name}={answer}");
    }
    assert!(asked >= 8);
}

#[test]
fn k06_the_32_bit_abi_is_refused() {
    foreign(&[], "i386_");
}

#[test]
fn k06_the_32_bit_abi_is_refused_under_strict() {
    foreign(&["--policy", "strict"], "i386_");
}

#[test]
fn k06_the_32_bit_abi_is_refused_to_root_with_every_capability() {
    foreign(&["-u", "0", "--cap-add", "ALL"], "i386_");
}

#[test]
fn k06_the_x32_abi_is_refused() {
    foreign(&[], "x32_");
    foreign(&["--policy", "strict"], "x32_");
}

#[test]
fn k06_the_foreign_abis_are_refused_under_nested() {
    foreign(&["--security-opt", "nested"], "i386_");
    foreign(&["--security-opt", "nested"], "x32_");
}

fn families(flags: &[&str], netlink: &[&str]) {
    let place = place();
    let seen = place.probed(flags, &["families"]);
    let open: Vec<&str> = seen.iter().filter(|(_, answer)| *answer == "OK").map(|(name, _)| name.as_str()).collect();
    let mut expected = vec!["socket_1", "socketpair_1", "socket_2", "socket_10", "socket_16", "tcp", "tcp6", "udp", "unix", "netlink_0"];
    expected.extend(netlink);
    expected.push("icmp");
    for name in &open {
        assert!(expected.contains(name), "{flags:?}: {name} is open");
    }
    for name in expected {
        let v6 = name == "socket_10" || name == "tcp6";
        let single = name == "icmp" && !seen.contains_key("icmp");
        assert!(
            open.contains(&name) || single || (v6 && seen[name] == "EAFNOSUPPORT" && !std::path::Path::new("/proc/net/if_inet6").exists()),
            "{flags:?}: {name}={:?}",
            seen.get(name)
        );
    }
}

#[test]
fn k06_cve_2026_31431_cve_2025_21756_socket_families_are_listed() {
    families(&[], &["netlink_4"]);
}

#[test]
fn k06_socket_families_with_every_capability() {
    families(&["-u", "0", "--cap-add", "ALL"], &["netlink_4"]);
}

#[test]
fn k06_cve_2022_0435_socket_families_of_strict() {
    families(&["--policy", "strict"], &[]);
}

#[test]
fn k05_cve_2020_14386_cve_2016_8655_no_raw_or_packet_socket() {
    let place = place();
    for flags in [&[][..], &["-u", "0"], &["-u", "0", "--cap-add", "ALL"], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
        let seen = place.probed(flags, &["families"]);
        for name in ["raw_inet", "raw_inet6", "raw_ip", "packet", "packet_dgram"] {
            assert!(
                ["EPERM", "EAFNOSUPPORT", "EACCES", "ENOSYS", "EPROTONOSUPPORT"].contains(&seen[name].as_str()),
                "{flags:?}: {name}={}",
                seen[name]
            );
        }
    }
}

#[test]
fn k05_ping_works_through_its_own_socket() {
    let place = place();
    for flags in [&[][..], &["-u", "0"], &["--userns", "single"], &["--policy", "strict"]] {
        assert_eq!(place.probed(flags, &["families"])["icmp"], "OK", "{flags:?}");
    }
}

/// The second wall: root with every capability and no filter owns none of the namespaces it lives in.
fn owner(flags: &[&str]) -> BTreeMap<String, String> {
    let place = place();
    place.probed(&[&["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], flags].concat(), &["owner"])
}

fn all_refused(seen: &BTreeMap<String, String>, prefix: &[&str], least: usize, answers: &[&str]) {
    let asked: Vec<_> = seen.iter().filter(|(n, _)| prefix.iter().any(|p| n.starts_with(p))).collect();
    assert!(asked.len() >= least, "{seen:?}");
    for (name, answer) in asked {
        assert!(answers.contains(&answer.as_str()), "{name}={answer}");
    }
}

#[test]
fn k01_cve_2022_0185_root_with_everything_cannot_mount() {
    all_refused(&owner(&[]), &["mount_", "fsopen_", "open_tree_", "pivot"], 15, &["EPERM", "ENOSYS", "EACCES"]);
}

#[test]
fn k02_cve_2021_3493_cve_2023_2640_root_with_everything_cannot_overlay() {
    all_refused(&owner(&[]), &["mount_overlay", "mount_fuse"], 2, &["EPERM"]);
}

#[test]
fn s21_root_with_everything_cannot_uncover_what_is_masked() {
    all_refused(&owner(&[]), &["umount_", "remount_"], 20, &["EPERM"]);
}

#[test]
fn k04_cve_2024_1086_cve_2022_27666_root_with_everything_has_no_power_over_the_network() {
    all_refused(&owner(&[]), &["link_add", "raw", "packet", "netfilter"], 4, &["EPERM"]);
    all_refused(&owner(&["--network", "host"]), &["link_add", "raw", "packet"], 3, &["EPERM"]);
}

#[test]
fn u05_root_with_everything_cannot_make_a_namespace() {
    all_refused(&owner(&[]), &["unshare_", "clone_", "user_"], 20, &["ENOSPC", "EPERM", "EINVAL"]);
    let seen = owner(&[]);
    assert_eq!((seen["unshare_user"].as_str(), seen["user_net"].as_str()), ("ENOSPC", "ENOSPC"));
}

#[test]
fn s04_root_with_everything_cannot_join_the_outer_namespaces() {
    all_refused(&owner(&[]), &["setns_"], 7, &["EPERM", "EACCES"]);
}

#[test]
fn k08_root_with_everything_has_no_power_over_the_machine() {
    all_refused(
        &owner(&[]),
        &["sethostname", "setdomainname", "swapon", "settime", "kexec", "module", "syslog", "iopl", "acct", "mknod_"],
        12,
        &["EPERM", "ENOSYS", "EACCES"],
    );
}

#[test]
fn a1_the_second_wall_stands_with_shared_namespaces() {
    need!(scopes(), "needs landlock scopes (Linux 6.12)");
    for flags in [&["--uts", "host"][..], &["--ipc", "host"], &["--cgroupns", "host"], &["--pid", "host"], &["--network", "host"]] {
        let seen = owner(flags);
        all_refused(&seen, &["mount_", "umount_", "sethostname", "raw", "link_add", "setns_"], 30, &["EPERM", "EACCES", "ENOSYS"]);
    }
}

#[test]
fn a1_what_package_managers_need_works() {
    let seen = owner(&[]);
    assert_eq!(seen["chroot"], "OK");
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    let script = "cd /tmp; touch f; chown 5:7 f; stat -c %u:%g f; chmod 000 f; cat f; chown 1000 f; rm f; setpriv --reuid 33 --regid 33 --clear-groups id -u; chroot / id -u";
    assert_eq!(place.inside_with(&["-u", "0"], script).ok(), "5:7\n33\n0");
    // And a port below 1024, as anybody.
    let output = place.sandbox(&["run", "--", &place.probe(), "listen-tcp", "80"]);
    assert_eq!(output.answers()["bind"], "OK", "{output:?}");
}

#[test]
fn k11_cve_2019_13272_cve_2022_30594_the_filter_cannot_be_suspended_or_loosened() {
    let place = place();
    let seen = place.probed(&[], &["filters"]);
    assert_eq!(seen["add_filter"], "OK");
    assert!(SHUT.contains(&seen["unshare_after_filter"].as_str()), "{seen:?}");
    assert_eq!(seen["socket_alg_after_filter"], "EAFNOSUPPORT");
    assert!(SHUT.contains(&seen["suspend_seccomp"].as_str()), "{seen:?}");
    assert_eq!(seen["trace_own_child"], "OK");
    assert!(SHUT.contains(&place.probed(&["--policy", "strict"], &["filters"])["trace_own_child"].as_str()));
    assert!(
        SHUT.contains(
            &place.probed(&["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &["filters"])["suspend_seccomp"].as_str()
        )
    );
}

#[test]
fn k11_tracing_ends_at_the_sandbox() {
    need!(scopes(), "needs landlock scopes (Linux 6.12)");
    let place = place();
    let mut bystander = place.command("sleep").arg("30").spawn().unwrap();
    let script = format!(
        "cat /proc/{0}/environ /proc/{0}/maps 2>/dev/null; head -c1 /proc/{0}/mem 2>/dev/null; cat /proc/{0}/fd/* 2>/dev/null; readlink /proc/{0}/fd/0 /proc/{0}/exe; ls /proc/{0}/root/ 2>/dev/null; echo done",
        bystander.id()
    );
    for flags in [&["--pid", "host"][..], &["--pid", "host", "-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &[]] {
        assert_eq!(place.inside_with(flags, &script).ok(), "done", "{flags:?}");
    }
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn k09_cve_2016_0728_no_keyring_is_made_and_none_is_reached() {
    let place = place();
    let users = || {
        let text = std::fs::read_to_string("/proc/key-users").unwrap_or_default();
        text.lines()
            .find(|l| l.trim_start().starts_with(&format!("{}:", place.account.uid)))
            .and_then(|l| l.split_whitespace().nth(3).map(String::from))
    };
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", "echo ready; sleep 10"]), "ready");
    let during = users();
    child.kill().unwrap();
    child.wait().unwrap();
    place.inside("true").ok();
    assert!(during.is_none() || during == users(), "{during:?} keys while it ran");
}

#[test]
fn k13_fork_and_threads_still_work_under_the_filter() {
    let place = place();
    for flags in [&[][..], &["--policy", "strict"]] {
        assert_eq!(
            place.inside_with(flags, "for i in 1 2 3 4 5 6 7 8; do (echo $i) & done; wait; seq 1000 | sort | wc -l").ok().lines().last(),
            Some("1000")
        );
    }
}
