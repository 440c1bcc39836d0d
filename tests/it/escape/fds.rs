//! Descriptors, the working directory, our own program: nothing that we hold is a way out.

use crate::support::*;
use sha2::Digest;
use std::collections::BTreeMap;

/// What `probe fds` says, without the standard streams.
fn beyond_stdio(fds: &BTreeMap<String, String>) -> Vec<String> {
    fds.iter().filter(|(n, _)| !["0", "1", "2"].contains(&n.as_str())).map(|(n, t)| format!("{n} -> {t}")).collect()
}

fn leaked(flags: &[&str]) {
    let place = place();
    let probe = place.probe();
    let mut command = place.command(&probe);
    command.args(["leak", "200"]).arg(program()).arg("run").args(flags).args(["--", &probe, "fds"]);
    let output = finish(command.spawn().unwrap(), b"");
    output.ok();
    let answers = output.answers();
    assert_eq!(beyond_stdio(&answers), Vec::<String>::new());
    assert_eq!(answers["0"], "/dev/null");
}

#[test]
fn s03_cve_2016_8649_none_of_200_leaked_descriptors_arrives() {
    leaked(&[]);
}

#[test]
fn s03_nor_with_a_terminal() {
    let place = place();
    let probe = place.probe();
    let mut command = place.command(&probe);
    command.args(["leak", "200"]).arg(program()).args(["run", "-t", "--", &probe, "fds"]);
    let output = finish(command.spawn().unwrap(), b"");
    output.ok();
    let fds: Vec<_> = output.stdout.lines().map(|l| l.trim().to_string()).collect();
    assert_eq!(fds, ["0=/dev/pts/0", "1=/dev/pts/0", "2=/dev/pts/0"]);
}

#[test]
fn s03_nor_under_strict() {
    leaked(&["--policy", "strict"]);
}

#[test]
fn s03_nor_under_nested() {
    leaked(&["--security-opt", "nested"]);
}

#[test]
fn s03_nor_in_a_root_directory() {
    let place = place();
    tiny_root(&place, "root");
    let mut command = place.command(place.probe());
    command.args(["leak", "200"]).arg(program()).args(["run", "--rootfs", &place.at("root"), "/bin/probe", "fds"]);
    let output = finish(command.spawn().unwrap(), b"");
    output.ok();
    assert_eq!(beyond_stdio(&output.answers()), Vec::<String>::new());
}

#[test]
fn l5_a_run_holds_three_descriptors() {
    let place = place();
    assert_eq!(place.probed(&[], &["fds"]).len(), 3);
    assert_eq!(place.probed(&["-i"], &["fds"]).len(), 3);
}

#[test]
fn s03_exactly_the_preserved_descriptors_arrive() {
    let place = place();
    let probe = place.probe();
    let script = format!("exec 3</etc/passwd 4</etc/group 5</etc/hostname 6</; {} run --preserve-fds 2 -- {probe} fds", program().display());
    let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
    output.ok();
    let fds = output.answers();
    assert_eq!(fds.keys().map(String::as_str).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    assert!(fds["3"].ends_with("/etc/passwd") && fds["4"].ends_with("/etc/group"), "{fds:?}");
}

#[test]
fn s03_a_directory_is_not_preserved() {
    let place = place();
    let program = program();
    for opened in ["3</", "3</proc", "3<."] {
        let script = format!("exec {opened}; {} run --preserve-fds 1 -- true", program.display());
        finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"").refused("directory").hinted();
    }
    place.sandbox(&["run", "--preserve-fds", "1", "--", "true"]).refused("not open");
    place.sandbox(&["run", "--preserve-fds", "5000", "--", "true"]).refused("1024");
}

/// The standard streams are not opened again for what the caller did not open them for.
#[test]
fn l5_standard_streams_keep_their_access() {
    let place = place();
    let program = program().display().to_string();
    place.file("input", "given\n");
    let script = format!("{program} run -i -- sh -c 'cat; echo x >&0' <input 2>/dev/null; cat input");
    let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
    assert_eq!(output.ok(), "given\ngiven");
}

/// Closed standard streams must not be filled with something of ours.
#[test]
fn l5_closed_standard_streams_are_no_way_in() {
    let place = place();
    let (program, probe) = (program().display().to_string(), place.probe());
    for closed in ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"] {
        let script = format!("{program} run --rw {home} -- sh -c '{probe} fds > {home}/seen' {closed}", home = place.home.display());
        let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
        if output.code() == 0 {
            let seen = std::fs::read_to_string(place.path("seen")).unwrap();
            let odd: Vec<_> =
                seen.lines().filter(|l| !(l.contains("/dev/null") || l.contains("pipe:") || l.contains("seen") || l.contains("/dev/pts"))).collect();
            assert!(odd.is_empty(), "{closed}: {seen}");
        } else {
            assert_eq!(output.code(), 125, "{closed}: {output:?}");
        }
    }
}

// The working directory.

const NUMBERS: [u32; 26] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 31, 63, 100, 203, 1023];

/// The directory is inside, or the run is refused: by a caller with 200 descriptors open, dirfds on / among them.
fn cwd(pattern: &str) {
    let place = place();
    let probe = place.probe();
    for n in NUMBERS {
        let dir = pattern.replace('N', &n.to_string());
        let mut command = place.command(&probe);
        command.args(["leak", "200"]).arg(program()).args(["run", "-w", &dir, "--", &probe, "magics"]);
        let output = finish(command.spawn().unwrap(), b"");
        if output.code() == 0 {
            let cwd = &output.answers()["cwd"];
            assert!(cwd.starts_with('/'), "{dir}: {output:?}");
        } else {
            output.refused("cannot enter");
        }
    }
}

#[test]
fn s02_cve_2024_21626_workdir_proc_self_fd() {
    cwd("/proc/self/fd/N");
}

#[test]
fn s02_cve_2024_21626_workdir_proc_thread_self_fd() {
    cwd("/proc/thread-self/fd/N");
}

#[test]
fn s02_cve_2024_21626_workdir_proc_1_fd() {
    cwd("/proc/1/fd/N");
}

#[test]
fn s02_cve_2024_21626_workdir_dev_fd() {
    cwd("/dev/fd/N");
}

#[test]
fn s02_cve_2024_21626_workdir_is_a_link_in_the_root() {
    let place = place();
    tiny_root(&place, "root");
    for n in NUMBERS {
        place.symlink(format!("/proc/self/fd/{n}"), "root/work");
        let mut command = place.command(place.probe());
        command.args(["leak", "200"]).arg(program()).args(["run", "--rootfs", &place.at("root"), "-w", "/work", "/bin/probe", "magics"]);
        let output = finish(command.spawn().unwrap(), b"");
        if output.code() == 0 {
            assert!(output.answers()["cwd"].starts_with('/'), "{n}: {output:?}");
        } else {
            output.refused("cannot enter");
        }
    }
}

#[test]
fn s02_workdir_through_root_links_of_proc() {
    let place = place();
    for dir in ["/proc/self/root", "/proc/1/root", "/proc/1/cwd", "/proc/self/cwd", "/proc/self/root/../..", "/proc/self/fdinfo"] {
        let output = place.sandbox(&["run", "-w", dir, "--", &place.probe(), "magics"]);
        if output.code() == 0 {
            assert!(output.answers()["cwd"].starts_with('/'), "{dir}: {output:?}");
        } else {
            output.refused("cannot enter");
        }
    }
}

/// L6: entered as the user that the command runs as.
#[test]
fn l6_workdir_that_only_root_inside_may_enter() {
    let place = place();
    tiny_root(&place, "root");
    place.dir("root/secret");
    mode(&place.path("root/secret"), 0o700);
    place.sandbox(&["run", "--rootfs", &place.at("root"), "-w", "/secret", "-u", "bob", "true"]).refused("cannot enter '/secret'").hinted();
    place.sandbox(&["run", "--rootfs", &place.at("root"), "-w", "/secret", "true"]).ok();
}

#[test]
fn x02_cve_2025_59532_the_working_directory_gives_no_right_to_write() {
    let place = place();
    canary(&place);
    let before = place.snapshot("canary");
    for flags in [&["-w", "canary"][..], &["-w", &place.at("canary")], &["-w", "canary", "--policy", "agent"]] {
        place.inside_with(flags, "echo owned > secret; rm -rf sub; touch new; true").ok();
        before.unchanged();
    }
    place.inside_with(&["--rw", &place.at("canary/sub"), "-w", &place.at("canary")], "echo owned > secret; touch new; true").ok();
    before.unchanged();
}

#[test]
fn x02_cve_2025_54794_a_shared_prefix_is_no_shared_directory() {
    let place = place();
    place.dir("work");
    place.file("work2/file", "kept");
    let before = place.snapshot("work2");
    place
        .inside_with(
            &["--rw", &place.at("work")],
            "echo owned > ../$(basename $PWD)/work2/file; echo owned > $HOME/work2/file; touch $HOME/work2/new; true",
        )
        .ok();
    before.unchanged();
}

// Our own program.

/// The program where users put it: in a directory of their own, writable by themselves.
fn installed(place: &Place) -> (std::path::PathBuf, String) {
    place.dir("bin");
    let own = place.path("bin/sandbox");
    std::fs::copy(program(), &own).unwrap();
    mode(&own, 0o755);
    if root() {
        give(&own, place.account.uid, place.account.gid);
    }
    let hash = format!("{:x?}", sha2::Sha256::digest(std::fs::read(&own).unwrap()).as_slice());
    (own, hash)
}

fn unharmed(own: &std::path::Path, hash: &str) {
    assert_eq!(format!("{:x?}", sha2::Sha256::digest(std::fs::read(own).unwrap()).as_slice()), hash, "our program was changed");
}

#[test]
fn s01_cve_2019_5736_nobody_opens_our_program_through_proc() {
    let place = place();
    let (own, hash) = installed(&place);
    let probe = place.probe();
    for flags in [&[][..], &["-u", "0"], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
        let script = format!("for i in 1 2 3 4 5; do {probe} exewrite; done");
        let output = finish(place.command(&own).arg("run").args(flags).args(["--", "sh", "-c", &script]).spawn().unwrap(), b"");
        output.ok();
        assert!(output.stdout.lines().filter(|l| l.starts_with("written=")).all(|l| l == "written=0"), "{output:?}");
        unharmed(&own, &hash);
    }
}

/// An entry that leads to our program, in a root whose tools would overwrite it if our program started them.
#[test]
fn s01_cve_2019_5736_the_entry_leads_to_our_program() {
    let place = place();
    let (own, hash) = installed(&place);
    let root = tiny_root(&place, "root");
    place.symlink("/proc/self/exe", "root/bin/link");
    place.script("root/bin/script", "#!/proc/self/exe\n");
    let evil = "#!/bin/sh\nfor p in /proc/[0-9]*/exe; do exec 9<$p && echo owned > /proc/self/fd/9; echo owned > $p; done 2>/dev/null\n";
    for tool in ["newuidmap", "newgidmap", "getsubids"] {
        place.dir("root/usr/bin");
        place.script(&format!("root/usr/bin/{tool}"), evil);
        place.script(&format!("root/bin/{tool}"), evil);
    }
    for entry in ["/bin/link", "/bin/script", "/proc/self/exe", "/proc/1/exe"] {
        for rest in [&[][..], &["run", "--", "true"], &["run", "--rootfs", "/", "true"], &["doctor"]] {
            let output = finish(place.command(&own).args(["run", "--rootfs"]).arg(&root).arg(entry).args(rest).spawn().unwrap(), b"");
            assert_ne!(output.code(), 0, "{entry} {rest:?}: {output:?}");
            unharmed(&own, &hash);
        }
    }
}

#[test]
fn s01_our_program_shown_inside_is_not_the_hosts_file() {
    let place = place();
    let (own, hash) = installed(&place);
    let script = format!("echo owned > {0}; rm -f {0}; mv /bin/true {0}; true", own.display());
    finish(place.command(&own).args(["run", "--", "sh", "-c", &script]).spawn().unwrap(), b"").ok();
    unharmed(&own, &hash);
}

#[test]
fn o04_cve_2021_44730_the_program_is_what_runs_not_what_its_name_says() {
    let place = place();
    let (own, _) = installed(&place);
    let link = place.path("hard");
    std::fs::hard_link(&own, &link).unwrap();
    finish(place.command(&link).args(["run", "--", "true"]).spawn().unwrap(), b"").ok();
    place.symlink(&own, "soft");
    finish(place.command(place.path("soft")).args(["run", "--", "true"]).spawn().unwrap(), b"").ok();
}

/// Nothing of ours runs from, or loads from, the root directory. L7
#[test]
fn l7_cve_2019_14271_nothing_of_the_root_runs_outside() {
    let place = place();
    tiny_root(&place, "root");
    canary(&place);
    let before = place.snapshot("canary");
    let evil = format!("#!/bin/sh\necho owned > {}\n", place.at("canary/owned"));
    for tool in ["newuidmap", "newgidmap", "getsubids", "getent", "ldconfig", "mount"] {
        place.dir("root/usr/bin");
        place.dir("root/sbin");
        place.script(&format!("root/usr/bin/{tool}"), &evil);
        place.script(&format!("root/bin/{tool}"), &evil);
        place.script(&format!("root/sbin/{tool}"), &evil);
    }
    place.file("root/etc/ld.so.preload", "/evil.so\n");
    place.file("root/etc/nsswitch.conf", "passwd: evil\n");
    place.sandbox(&["run", "--rootfs", &place.at("root"), "-u", "bob", "/bin/true"]);
    place.sandbox(&["run", "--rootfs", &place.at("root:rw"), "/bin/true"]);
    before.unchanged();
}

/// Nor from PATH or the working directory.
#[test]
fn y06_cve_2019_3842_helpers_are_called_by_absolute_path_with_an_own_environment() {
    let mut place = place();
    canary(&place);
    let before = place.snapshot("canary");
    let evil = format!("#!/bin/sh\necho owned > {}\nexit 1\n", place.at("canary/owned"));
    for tool in ["newuidmap", "newgidmap", "getsubids", "id", "getent"] {
        place.script(tool, &evil);
    }
    place.env.insert("PATH".into(), format!(".:{}:/usr/bin:/bin", place.home.display()));
    for (name, value) in [
        ("LD_PRELOAD", "/evil.so"),
        ("LD_LIBRARY_PATH", "/evil"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
        ("BASH_ENV", "/evil"),
        ("ENV", "/evil"),
        ("IFS", "/"),
    ] {
        place.env.insert(name.into(), value.into());
    }
    let output = place.sandbox(&["run", "--", "/bin/true"]);
    output.ok();
    before.unchanged();
}
