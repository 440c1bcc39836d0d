//! Hostile root directories and mount targets: what is written for the sandbox lands inside it, or the run is refused.

use crate::support::*;
use std::path::{Path, PathBuf};

/// A root with nothing in it but the probe.
fn nano(place: &Place, name: &str) -> PathBuf {
    let root = place.dir(name);
    for dir in ["bin", "proc", "sys", "dev", "etc", "run", "tmp", "root", "mnt"] {
        place.dir(&format!("{name}/{dir}"));
    }
    std::fs::copy(place.path("probe"), root.join("bin/probe")).unwrap();
    mode(&root.join("bin/probe"), 0o755);
    place.file(&format!("{name}/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n");
    place.file(&format!("{name}/etc/group"), "root:x:0:\nbob:x:1000:\n");
    root
}

fn remove(path: &Path) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
}

/// What a root's maker can put where we expect a directory or a file.
const SHAPES: [&str; 9] = ["absolute", "relative", "dangling", "loop", "chain", "file", "fifo", "to-root", "magic"];

fn shape(place: &Place, root: &str, path: &str, shape: &str) {
    let name = format!("{root}/{path}");
    let full = place.path(&name);
    remove(&full);
    if let Some(parent) = Path::new(&name).parent() {
        place.dir(&parent.display().to_string());
    }
    let canary = place.at("canary");
    let up = "../".repeat(20);
    match shape {
        "absolute" => drop(place.symlink(&canary, &name)),
        "relative" => drop(place.symlink(format!("{up}{}", canary.trim_start_matches('/')), &name)),
        "dangling" => drop(place.symlink(format!("{canary}/made-by-sandbox"), &name)),
        "loop" => drop(place.symlink(full.file_name().unwrap(), &name)),
        "chain" => {
            let last = format!("{root}/hop0");
            place.symlink(&canary, &last);
            for hop in 1..40 {
                place.symlink(format!("/hop{}", hop - 1), &format!("{root}/hop{hop}"));
            }
            place.symlink("/hop39", &name);
        }
        "file" => drop(place.file(&name, "a file")),
        "fifo" => assert!(place.command("mkfifo").arg(&full).status().unwrap().success()),
        "to-root" => drop(place.symlink("/", &name)),
        "magic" => drop(place.symlink("/proc/self/root", &name)),
        _ => unreachable!(),
    }
}

/// Run in a root where `path` has each shape, copy-on-write and for real: refused, or all that we trust is really ours.
fn hostile(path: &str, flags: &[&str]) {
    let place = place();
    canary(&place);
    for kind in SHAPES {
        nano(&place, "root");
        shape(&place, "root", path, kind);
        for how in ["root", "root:rw"] {
            let before = place.snapshot("canary");
            let dir = place.at(how);
            let output = place.sandbox(&[&["run", "--rootfs", &dir], flags, &["/bin/probe", "magics"]].concat());
            before.unchanged();
            if output.code() == 0 {
                let seen = output.answers();
                let is = |key: &str, value: &str| assert_eq!(seen.get(key).map(String::as_str), Some(value), "{kind} {how}: {key} in {output:?}");
                is("/proc", "9fa0");
                is("inode_/proc", "1");
                is("/sys", "62656572");
                is("inode_/sys", "1");
                is("/dev/pts", "1cd1");
                is("/dev/shm", "1021994");
                is("null", "char 1:3");
                is("zero", "char 1:5");
                is("urandom", "char 1:9");
                assert!(!seen.contains_key("console"), "{output:?}");
            } else {
                output.refused("cannot ");
            }
            assert!(!output.stdout.contains("CANARY") && !output.stderr.contains("CANARY"), "{output:?}");
        }
        remove(&place.path("root"));
    }
}

macro_rules! hostile {
    ($($name:ident: $path:literal $flags:expr;)*) => { $(#[test] fn $name() { hostile($path, &$flags); })* };
}

hostile! {
    s08_cve_2019_19921_cve_2025_54867_proc_is_no_directory: "proc" [];
    s08_cve_2023_27561_sys_is_no_directory: "sys" [];
    s12_cve_2026_41579_cve_2026_47766_dev_is_no_directory: "dev" [];
    s12_dev_pts_is_no_directory: "dev/pts" ["-t"];
    s12_dev_shm_is_no_directory: "dev/shm" [];
    s12_dev_mqueue_is_no_directory: "dev/mqueue" [];
    s09_cve_2025_31133_cve_2025_62161_dev_null_is_something_else: "dev/null" [];
    s10_cve_2025_52565_dev_console_is_something_else: "dev/console" ["-t"];
    s10_dev_ptmx_is_something_else: "dev/ptmx" ["-t"];
    s10_dev_tty_is_something_else: "dev/tty" ["-t"];
    s07_cve_2015_3629_etc_is_no_directory: "etc" ["--add-host", "a:10.0.0.1"];
    s07_run_is_no_directory: "run" [];
    s07_tmp_is_no_directory: "tmp" ["--tmpfs", "/tmp"];
    s14_cve_2024_9341_etc_hosts_leads_away: "etc/hosts" ["--add-host", "a:10.0.0.1"];
    s14_cve_2024_5154_etc_resolv_conf_leads_away: "etc/resolv.conf" ["--dns", "10.0.0.2"];
    s14_etc_hostname_leads_away: "etc/hostname" ["--hostname", "other"];
    s14_etc_mtab_leads_away: "etc/mtab" [];
    s05_cve_2021_30465_a_mount_target_leads_away: "mnt" ["--tmpfs", "/mnt"];
    s06_cve_2024_45310_a_deep_mount_target_leads_away: "mnt" ["--tmpfs", "/mnt/a/b/c"];
    s13_cve_2026_55686_the_working_directory_leads_away: "work" ["-w", "/work"];
    s13_a_parent_of_the_working_directory_leads_away: "work" ["-w", "/work/sub"];
    s15_cve_2024_9676_passwd_leads_away: "etc/passwd" ["-u", "bob"];
    s15_cve_2024_9676_group_leads_away: "etc/group" ["-u", "bob"];
    s07_home_leads_away: "root" [];
}

/// The host's devpts must stay as it was, whatever the root says.
#[test]
fn s11_cve_2025_52881_settings_of_the_host_stay_as_they_are() {
    let paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/user/max_user_namespaces",
        "/proc/sys/net/ipv4/ping_group_range",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/kernel/hostname",
    ];
    let read = || paths.map(|p| std::fs::read_to_string(p).unwrap_or_default());
    let before = read();
    let place = place();
    nano(&place, "root");
    for target in ["proc/sys", "proc/self", "proc"] {
        shape(&place, "root", target, "absolute");
        place.sandbox(&["run", "--rootfs", &place.at("root:rw"), "/bin/probe", "magics"]);
        remove(&place.path("root/proc"));
        place.dir("root/proc");
    }
    place.inside("true").ok();
    assert_eq!(before, read());
}

#[test]
fn s05_cve_2021_30465_a_bind_target_below_a_link() {
    let place = place();
    canary(&place);
    place.file("data/file", "data");
    for kind in SHAPES {
        nano(&place, "root");
        shape(&place, "root", "mnt", kind);
        for (target, how) in [("/mnt", "root"), ("/mnt/deep/er", "root"), ("/mnt/deep/er", "root:rw")] {
            let before = place.snapshot("canary");
            let bind = format!("{}:{target}", place.at("data"));
            let output = place.sandbox(&["run", "--rootfs", &place.at(how), "-v", &bind, "/bin/probe", "magics"]);
            before.unchanged();
            assert_eq!(place.snapshot("data").len(), 2, "something was made in the source: {output:?}");
            assert!(output.code() == 0 || output.code() == 125, "{kind} {target}: {output:?}");
        }
        remove(&place.path("root"));
    }
}

#[test]
fn s08_cve_2019_16884_no_mount_hides_proc_or_sys() {
    let place = place();
    place.dir("fake");
    for target in ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/proc/../proc", "//proc"] {
        for flag in [["-v", &format!("{}:{target}", place.at("fake"))], ["--tmpfs", target], ["--mount", &format!("type=tmpfs,target={target}")]] {
            let output = place.sandbox(&["run", flag[0], flag[1], "--", &place.probe(), "magics"]);
            if output.code() == 0 {
                let seen = output.answers();
                assert_eq!((seen["/proc"].as_str(), seen["/sys"].as_str()), ("9fa0", "62656572"), "{target} {flag:?}: {output:?}");
                panic!("a mount at {target} was let through: {output:?}");
            }
            output.refused("");
        }
    }
}

#[test]
fn s08_the_root_itself_cannot_be_a_mount_target() {
    let place = place();
    place.dir("fake");
    for flag in [["-v", &format!("{}:/", place.at("fake"))], ["--tmpfs", "/"]] {
        place.sandbox(&["run", flag[0], flag[1], "--", "true"]).refused("");
    }
}

/// A racer outside swaps a directory of the root with a link to the canary while sandboxes start.
#[test]
fn s06_cve_2024_45310_a_racer_swaps_a_mount_target() {
    race("mnt/a", |place| {
        vec![vec!["run".into(), "--rootfs".into(), place.at("root:rw"), "--tmpfs".into(), "/mnt/a/b".into(), "/bin/probe".into(), "fds".into()]]
    });
}

#[test]
fn s12_a_racer_swaps_dev() {
    race("dev", |place| vec![vec!["run".into(), "--rootfs".into(), place.at("root:rw"), "-t".into(), "/bin/probe".into(), "fds".into()]]);
}

#[test]
fn s11_a_racer_swaps_proc() {
    race("proc", |place| vec![vec!["run".into(), "--rootfs".into(), place.at("root"), "/bin/probe".into(), "fds".into()]]);
}

#[test]
fn s13_a_racer_swaps_the_working_directory() {
    race("work", |place| {
        vec![vec!["run".into(), "--rootfs".into(), place.at("root:rw"), "-w".into(), "/work".into(), "/bin/probe".into(), "magics".into()]]
    });
}

fn race(path: &str, commands: impl Fn(&Place) -> Vec<Vec<String>>) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = place();
    canary(&place);
    nano(&place, "root");
    place.dir(&format!("root/{path}"));
    // Both names in the root: a directory that somebody outside moves out of it is his doing.
    let swapped = place.symlink(place.path("canary"), "root/swapped");
    let before = place.snapshot("canary");
    let target = place.path("root").join(path);
    let going = Arc::new(AtomicBool::new(true));
    let racer = std::thread::spawn({
        let going = Arc::downgrade(&going);
        // Ends with the test, however that ends.
        move || {
            while going.upgrade().is_some_and(|g| g.load(Ordering::Relaxed)) {
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &target, rustix::fs::CWD, &swapped, rustix::fs::RenameFlags::EXCHANGE);
            }
        }
    });
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_secs(3) {
        for command in commands(&place) {
            let output = place.sandbox(&command);
            assert!(output.code() == 0 || output.code() == 125, "{output:?}");
            assert!(!output.stdout.contains("unreachable"), "{output:?}");
        }
    }
    going.store(false, Ordering::Relaxed);
    racer.join().unwrap();
    before.unchanged();
}

#[test]
fn s15_cve_2024_9676_a_huge_passwd_is_no_trouble() {
    let place = place();
    let root = nano(&place, "root");
    for name in ["passwd", "group"] {
        let file = std::fs::File::options().write(true).open(root.join("etc").join(name)).unwrap();
        file.set_len(8 << 30).unwrap();
        let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "-u", "bob", "/bin/probe", "ids"]);
        assert!(output.code() == 125 || output.code() == 0, "{output:?}");
        assert!(output.took < std::time::Duration::from_secs(2) * patience(), "{output:?}");
        place.file(&format!("root/etc/{name}"), "");
    }
}

#[test]
fn s15_i14_cve_2026_47262_a_group_file_with_many_lines() {
    let place = place();
    nano(&place, "root");
    let many: String = (0..200_000).map(|n| format!("g{n}:x:{n}:bob\n")).collect();
    place.file("root/etc/group", &many);
    let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "-u", "bob", "/bin/probe", "ids"]);
    assert!(output.code() == 125 || output.code() == 0, "{output:?}");
    assert!(output.took < std::time::Duration::from_secs(2) * patience(), "{output:?}");
}

#[test]
fn s15_passwd_leading_to_the_hosts_is_not_read() {
    let place = place();
    nano(&place, "root");
    place.file("canary/passwd", "evil:x:0:0::/:/bin/sh\n");
    place.symlink(place.path("canary/passwd"), "root/etc/passwd");
    place.sandbox(&["run", "--rootfs", &place.at("root"), "-u", "evil", "/bin/probe", "ids"]).refused("no such user");
}

#[test]
fn s07_cve_2015_3627_a_rootfs_that_is_a_link_or_no_directory() {
    let place = place();
    nano(&place, "root");
    place.symlink(place.path("root"), "link");
    place.file("file", "");
    place.sandbox(&["run", "--rootfs", &place.at("link"), "/bin/probe", "magics"]).ok();
    place.sandbox(&["run", "--rootfs", &place.at("file"), "/bin/probe", "magics"]).refused("not a directory");
    place.sandbox(&["run", "--rootfs", &place.at("missing"), "/bin/probe", "magics"]).refused("as root");
}

#[test]
fn s07_nothing_of_the_host_shows_in_a_root_directory() {
    let place = place();
    canary(&place);
    let root = tiny_root(&place, "root");
    let script = "ls -a /; cat /proc/self/mountinfo; cat /home/*/* 2>&1; ls / /home";
    let output = place.sandbox(&["run", "--rootfs", root.to_str().unwrap(), "sh", "-c", script]);
    let home = place.home.display().to_string();
    let account = place.account.home.display().to_string();
    let shown: Vec<_> = output.ok().lines().filter(|l| l.contains(&home) && !l.contains("upperdir")).collect();
    assert!(shown.is_empty(), "{shown:?}");
    assert!(!output.stdout.contains("CANARY") && !output.stdout.contains(&format!("{account}/canary")), "{output:?}");
}

#[test]
fn s03_dotdot_from_the_root_stays_in_the_root() {
    let place = place();
    tiny_root(&place, "root");
    let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "sh", "-c", "cd /; cd ../../../..; stat -c %i . /; ls /bin/probe"]);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[0], lines[1]);
}

/// Classic chroot escape: needs a descriptor above the root, of which there is none.
#[test]
fn s03_chroot_and_climbing_out() {
    let place = place();
    let before = {
        canary(&place);
        place.snapshot("canary")
    };
    tiny_root(&place, "root");
    let script = "mkdir -p /tmp/x; chroot /tmp/x /bin/true; cd /; for i in 1 2 3 4 5 6 7 8; do cd ..; done; ls; ls work 2>&1";
    let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "sh", "-c", script]);
    assert!(!output.stdout.contains("canary"), "{output:?}");
    before.unchanged();
}

#[test]
fn s17_cve_2017_1002101_a_bind_source_is_resolved_once_and_shown_as_it_is() {
    let place = place();
    canary(&place);
    place.dir("volume");
    place.symlink(place.path("canary"), "volume/link");
    // A link inside the volume leads nowhere new: in a root directory there is no such path.
    tiny_root(&place, "root");
    let bind = format!("{}:/mnt", place.at("volume"));
    let output = place.sandbox(&["run", "--rootfs", &place.at("root"), "-v", &bind, "cat", "/mnt/link/secret"]);
    assert_ne!(output.code(), 0, "{output:?}");
    assert!(!output.stdout.contains("CANARY"));
}

#[test]
fn l12_odd_mount_arguments_are_refused() {
    let place = place();
    place.dir("d");
    let d = place.at("d");
    for bad in [
        format!("{d}:relative"),
        format!("{d}:/a/../b"),
        format!("{d}:/a:bogus"),
        format!("{d}:/a:rw,ro,zz"),
        format!("{d}:"),
        ":/a".into(),
        format!("{d}:/a:rshared"),
        format!("{d}:/a\n/b:zz"),
        format!("{d}:/a:dev"),
        format!("{d}:/a:suid"),
        format!("{d}:/a:lowerdir=/"),
        "".into(),
    ] {
        place.sandbox(&["run", "-v", &bad, "--", "true"]).refused("");
    }
    for bad in [
        "type=bind,source=/,target=/x,bogus=1",
        "type=proc,target=/x",
        "type=overlay,target=/x",
        "type=devpts,target=/x",
        "source=/tmp,target=/x,type=",
        "type=bind,target=/x",
        "type=tmpfs",
        "type=bind,source=/tmp,target=/x,bind-propagation=shared",
    ] {
        place.sandbox(&["run", "--mount", bad, "--", "true"]).refused("");
    }
}

#[test]
fn l12_names_with_control_characters_are_shown_escaped() {
    let place = place();
    for bad in ["/no/such\u{1b}[2J", "/no/\u{9b}31m", "/no/\u{202e}txt", "/no/\rerror: fine"] {
        let output = place.sandbox(&["run", "--ro", bad, "--", "true"]);
        assert_eq!(output.code(), 125);
        assert!(
            !output.stderr.contains('\u{1b}')
                && !output.stderr.contains('\u{9b}')
                && !output.stderr.contains('\u{202e}')
                && !output.stderr.contains('\r'),
            "{output:?}"
        );
        let output = place.sandbox(&["run", "--", bad]);
        assert_eq!(output.code(), 127, "{output:?}");
        assert!(!output.stderr.contains('\u{1b}') && !output.stderr.contains('\u{202e}'), "{output:?}");
    }
}
