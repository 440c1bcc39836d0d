//! The caller's session: terminal, variables, sockets, secrets. A program inside can use none of them.

use crate::support::*;
use std::collections::BTreeSet;

// The terminal. This kernel may have dev.tty.legacy_tiocsti=0; the probe's answers must be refusals all the same.

/// `probe pty -- sandbox run FLAGS -- probe tty`: refused everywhere, and nothing in the caller's input queue.
fn terminal(flags: &[&str], own: bool) {
    let place = place();
    let probe = place.probe();
    let mut command = place.command(&probe);
    command.args(["pty", "--"]).arg(program()).arg("run").args(flags).args(["--", &probe, "tty"]);
    let output = finish(command.spawn().unwrap(), b"");
    let text = output.stdout.replace('\r', "");
    let seen: std::collections::BTreeMap<_, _> = text.lines().filter_map(|l| l.split_once('=')).collect();
    assert_eq!((seen["ended"], seen["code"], seen["queued"], seen["restored"]), ("1", "0", "0", "1"), "{output:?}");
    let mut asked = 0;
    for (name, answer) in &seen {
        if name.starts_with("tioc") {
            asked += 1;
            assert!(["EPERM", "ENOTTY", "ENOSYS", "EACCES", "EIO"].contains(answer), "{name}={answer}");
        }
        if name.starts_with("isatty") && !own {
            assert_ne!(*answer, "OK", "the caller's terminal is inside: {output:?}");
        }
    }
    assert!(asked >= 21, "{output:?}");
    assert_eq!(seen["open_dev_tty"] == "OK", own, "{output:?}");
    assert!(!text.contains("open_dev_console=OK"));
}

#[test]
fn y01_cve_2017_5226_tiocsti_on_the_inherited_terminal() {
    terminal(&[], false);
}

#[test]
fn y01_cve_2016_9016_tiocsti_with_i() {
    terminal(&["-i"], false);
}

#[test]
fn y01_cve_2016_10124_tiocsti_on_an_own_terminal() {
    terminal(&["-t"], true);
}

#[test]
fn y01_tiocsti_with_it() {
    terminal(&["-i", "-t"], true);
}

#[test]
fn y01_tiocsti_without_a_filter_on_the_inherited_terminal() {
    // The session alone must be enough: no terminal is there to push into.
    let place = place();
    let probe = place.probe();
    for flags in [&["-i"][..], &[]] {
        let mut command = place.command(&probe);
        command.args(["pty", "--"]).arg(program()).arg("run").args(flags).args([
            "--security-opt",
            "seccomp=unconfined",
            "--cap-add",
            "ALL",
            "-u",
            "0",
            "--",
            &probe,
            "tty",
        ]);
        let output = finish(command.spawn().unwrap(), b"");
        assert!(output.stdout.contains("queued=0") && !output.stdout.contains("isatty_0=OK") && !output.stdout.contains("isatty_1=OK"), "{output:?}");
        assert!(!output.stdout.contains("_0=OK"), "{output:?}");
    }
}

#[test]
fn y01_tiocsti_under_strict() {
    terminal(&["--policy", "strict"], false);
    terminal(&["--policy", "strict", "-t"], true);
}

#[test]
fn y02_cve_2019_10063_cve_2019_7303_the_upper_half_of_an_ioctl_does_not_count() {
    let place = place();
    let seen = place.probed(&["-t"], &["doors"]);
    for name in ["ioctl_tiocsti", "ioctl_tiocsti_high", "ioctl_tioclinux", "ioctl_tioclinux_high"] {
        assert!(["EPERM", "ENOSYS"].contains(&seen[name].trim()), "{name}={}", seen[name]);
    }
}

#[test]
fn y03_cve_2023_28100_tioclinux_and_its_kin() {
    let place = place();
    let seen = place.probed(&[], &["doors"]);
    for name in ["ioctl_tioclinux", "ioctl_tiocsetd", "ioctl_tioccons"] {
        assert!(["EPERM", "ENOSYS"].contains(&seen[name].as_str()), "{name}={}", seen[name]);
    }
}

#[test]
fn y01_the_command_leads_a_session_of_its_own() {
    let place = place();
    for flags in [&[][..], &["-t"]] {
        let output = place.inside_with(flags, "cut -d' ' -f 4,5,6,7 /proc/self/stat");
        let text = output.ok().trim().to_string();
        let n: Vec<i64> = text.split(' ').map(|w| w.parse().unwrap()).collect();
        // Parent, process group and session are processes of the sandbox; a terminal only with -t.
        assert!(n[2] == 1 && (n[3] != 0) == flags.contains(&"-t"), "{flags:?}: {text}");
    }
}

#[test]
fn y07_sigio_reaches_nobody_outside() {
    let place = place();
    let program = program().display().to_string();
    // The caller and the command share a file and a pipe; async notification set inside names pids inside.
    let script = format!("{program} run -i -- {} setown | cat; echo fine", place.probe());
    let output = finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"");
    assert!(output.ok().ends_with("fine"), "{output:?}");
}

#[test]
fn p05_cve_2023_28101_our_messages_have_no_raw_escapes() {
    let place = place();
    let output = place.sandbox(&["run", "--", "\u{1b}]0;pwned\u{7}"]);
    assert_eq!(output.code(), 127);
    assert!(!output.stderr.contains('\u{1b}') && !output.stderr.contains('\u{7}'), "{output:?}");
}

// Variables.

#[test]
fn y05_none_of_200_variables_arrives() {
    let mut place = place();
    let named = [
        "SSH_AUTH_SOCK",
        "SSH_AGENT_PID",
        "DBUS_SESSION_BUS_ADDRESS",
        "XAUTHORITY",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "XDG_RUNTIME_DIR",
        "GPG_AGENT_INFO",
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "GITLAB_TOKEN",
        "NPM_TOKEN",
        "CARGO_REGISTRY_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "KUBECONFIG",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "CONTAINER_HOST",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "HF_TOKEN",
        "VAULT_TOKEN",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "LD_DEBUG",
        "GLIBC_TUNABLES",
        "BASH_ENV",
        "ENV",
        "PROMPT_COMMAND",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYOPT",
        "RUBYLIB",
        "NODE_OPTIONS",
        "NODE_PATH",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_GLOBAL",
        "GIT_ASKPASS",
        "SSH_ASKPASS",
        "SUDO_ASKPASS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "NO_PROXY",
        "ALL_PROXY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "REDISCLI_AUTH",
        "KRB5CCNAME",
        "TMUX",
        "STY",
        "TERM_SESSION_ID",
        "SYSTEMD_EXEC_PID",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "MAIL",
        "OLDPWD",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CFLAGS",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "MALLOC_CHECK_",
        "TMPDIR",
        "SANDBOX_SECRET",
        "CI_JOB_TOKEN",
        "ACTIONS_RUNTIME_TOKEN",
        "SENTRY_DSN",
    ];
    let mut names: BTreeSet<String> = named.iter().map(|n| n.to_string()).collect();
    names.extend((0..200).map(|n| format!("CANARY_{n}")));
    for name in &names {
        // LD_PRELOAD of something that is not there must not get in the way of the tool itself: it is static.
        place.env.insert(name.clone(), "CANARY-VALUE".into());
    }
    tiny_root(&place, "root");
    let dir = place.at("root");
    for args in [
        &["run", "--", "env"][..],
        &["run", "-u", "0", "--", "env"],
        &["run", "--policy", "strict", "--", "env"],
        &["run", "--security-opt", "nested", "--", "env"],
        &["run", "--rootfs", &dir, "env"],
        &["run", "-t", "--", "env"],
    ] {
        let output = place.sandbox(args);
        let left: Vec<_> = output.ok().lines().filter(|l| l.contains("CANARY")).map(String::from).collect();
        assert_eq!(left, Vec::<String>::new(), "{args:?}");
    }
    // Nor in the memory of a process that can be looked at.
    let output = place.inside_with(
        &["-u", "0", "--cap-add", "ALL"],
        "cat /proc/*/environ /proc/1/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -a 'CANARY-VAL''UE'; echo done",
    );
    assert_eq!(output.ok(), "done");
}

#[test]
fn y05_a_variable_is_passed_by_its_exact_name_only() {
    let mut place = place();
    place.env.insert("MY_TOKEN".into(), "one".into());
    place.env.insert("MY_TOKEN_TOO".into(), "two".into());
    assert_eq!(place.sandbox(&["run", "-e", "MY_TOKEN", "--", "sh", "-c", "echo $MY_TOKEN,$MY_TOKEN_TOO"]).ok(), "one,");
    assert_eq!(place.sandbox(&["run", "-e", "MY_*", "--", "sh", "-c", "echo $MY_TOKEN,$MY_TOKEN_TOO"]).stdout.trim(), ",");
}

#[test]
fn d06_cve_2021_3602_init_does_not_show_the_callers_arguments() {
    let place = place();
    let output = place.sandbox(&[
        "run",
        "-e",
        "PASSWORD=CANARY",
        "-v",
        &format!("{}:/srv/x", place.home.display()),
        "--",
        "sh",
        "-c",
        "cat /proc/1/environ 2>/dev/null; ls -l /proc/1/exe /proc/1/cwd /proc/1/root 2>/dev/null; true",
    ]);
    assert!(!output.stdout.contains("CANARY") && !output.stdout.contains("->"), "{output:?}");
}

// Secrets.

/// What the policy hides in the home, relative to it.
fn hidden_names(place: &Place) -> Vec<String> {
    let shown = place.sandbox(&["policy", "show", "default", "--json"]);
    let policy: serde_json::Value = serde_json::from_str(shown.ok()).expect("JSON");
    let list = policy["files"]["hide"].as_array().expect("files.hide");
    list.iter().filter_map(|e| e["path"].as_str()?.strip_prefix("~/").map(String::from)).collect()
}

/// A place whose home is what the account's own entry says too is not needed: $HOME counts.
fn readable(place: &Place, names: &[String], flags: &[&str]) -> Vec<String> {
    let script = "for p; do cat \"$HOME/$p\" \"$HOME/$p/secret\" 2>/dev/null | grep -qa CANARY && echo \"$p\"; done; ls -laR \"$HOME\" 2>/dev/null | grep -a CANARY-NAME; echo done";
    let mut args = vec!["run"];
    args.extend(flags);
    args.extend(["--", "sh", "-c", script, "sh"]);
    args.extend(names.iter().map(String::as_str));
    let output = place.sandbox(&args);
    output.ok().lines().filter(|l| *l != "done").map(String::from).collect()
}

#[test]
fn a2_secrets_that_are_directories_are_hidden() {
    let place = place();
    let names = hidden_names(&place);
    assert!(names.len() > 150);
    for name in &names {
        place.file(&format!("{name}/secret"), "CANARY");
        place.file(&format!("{name}/CANARY-NAME"), "CANARY");
    }
    for flags in [
        &[][..],
        &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"],
        &["--read-only"],
        &["--policy", "strict"],
        &["--userns", "single"],
        &["--network", "host"],
    ] {
        assert_eq!(readable(&place, &names, flags), Vec::<String>::new(), "{flags:?}");
    }
}

#[test]
fn a2_secrets_that_are_files_are_hidden() {
    let place = place();
    let names = hidden_names(&place);
    for name in &names {
        let above = names.iter().any(|other| name.starts_with(&format!("{other}/")) || other.starts_with(&format!("{name}/")));
        if !above {
            place.file(name, "CANARY");
        }
    }
    for flags in [
        &[][..],
        &["-u", "0", "--cap-add", "ALL"],
        &["--read-only"],
        &["--rw", &place.home.display().to_string()],
        &["--ro", &place.home.display().to_string()],
        &["--cow", &place.home.display().to_string()],
    ] {
        assert_eq!(readable(&place, &names, flags), Vec::<String>::new(), "{flags:?}");
    }
}

#[test]
fn a2_secrets_behind_links_are_hidden() {
    let place = place();
    place.file("elsewhere/id_rsa", "CANARY");
    place.symlink(place.path("elsewhere"), ".ssh");
    place.symlink(place.path("elsewhere/id_rsa"), ".netrc");
    let output = place.inside("cat ~/.ssh/id_rsa ~/.netrc 2>/dev/null; ls -la ~ | grep -c -e '\\.ssh' -e netrc");
    assert!(!output.stdout.contains("CANARY"), "{output:?}");
}

#[test]
fn x01_cve_2026_25725_a_secret_made_later_is_hidden_too() {
    let place = place();
    let names = [
        "netrc",
        "ssh/id_rsa",
        "aws/credentials",
        "kube/config",
        "config/gh/hosts.yml",
        "cargo/credentials.toml",
        "docker/config.json",
        "git-credentials",
    ];
    let script = "echo ready; i=0; while [ ! -e \"$HOME/go\" ] && [ $i -lt 100 ]; do sleep 0.05; i=$((i+1)); done; cd; for p in .netrc .ssh/id_rsa .aws/credentials .kube/config .config/gh/hosts.yml .cargo/credentials.toml .docker/config.json .git-credentials; do cat $p 2>/dev/null; done; ls -A; echo done";
    let mut child = place.start(place.cli(&["run", "--", "sh", "-c", script]), "ready");
    for name in names {
        place.file(&format!(".{name}"), "CANARY");
    }
    place.file("go", "");
    let mut rest = String::new();
    use std::io::Read;
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(rest.contains("done") && !rest.contains("CANARY"), "{rest}");
}

#[test]
fn a2_a_hidden_name_cannot_be_brought_back() {
    let place = place();
    place.file(".ssh/id_rsa", "CANARY");
    place.file(".netrc", "CANARY");
    place.file(".config/gh/hosts.yml", "CANARY");
    let before = place.snapshot(".ssh");
    let script = "mkdir ~/.ssh 2>/dev/null; ln ~/.ssh/id_rsa ~/x 2>/dev/null; mv ~/.ssh ~/y 2>/dev/null; mv ~ ~2 2>/dev/null; rm -rf ~/.ssh ~/.netrc 2>/dev/null; \
                  find / -xdev -name id_rsa -o -name hosts.yml 2>/dev/null; cat ~/.ssh/* ~/.netrc ~/.config/gh/* ~/x ~/y/* /proc/self/root$HOME/.ssh/* ~/../$(basename ~)/.netrc 2>/dev/null; echo done";
    for flags in [&[][..], &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"]] {
        let output = place.inside_with(flags, script);
        assert!(!output.stdout.contains("CANARY"), "{output:?}");
    }
    before.unchanged();
    assert!(place.path(".netrc").exists());
}

#[test]
fn a2_a_secret_that_is_asked_for_is_shown() {
    let place = place();
    place.file(".ssh/config", "ASKED-FOR");
    place.file(".netrc", "HIDDEN");
    assert_eq!(place.inside_with(&["--ro", &place.at(".ssh")], "cat ~/.ssh/config; cat ~/.netrc 2>/dev/null; true").ok(), "ASKED-FOR");
}

#[test]
fn a2_the_hosts_password_hashes_are_hidden_from_everybody() {
    let place = place();
    for flags in [&[][..], &["-u", "0", "--cap-add", "ALL"]] {
        let output = place.inside_with(flags, "cat /etc/shadow /etc/gshadow /etc/shadow- 2>/dev/null; echo done");
        assert_eq!(output.ok(), "done");
    }
}

// Sockets.

fn connects(place: &Place, flags: &[&str], check: &[&str]) -> bool {
    place.probed(flags, check)["connect"] == "OK"
}

#[test]
fn y04_cve_2020_15257_abstract_sockets_are_out_of_reach() {
    let place = place();
    let name = format!("sandbox-it-abstract-{}", std::process::id());
    let mut command = place.command(place.probe());
    command.args(["listen-abstract", &name]).stdin(std::process::Stdio::piped());
    let mut listener = place.start(command, "ready");
    let outside = finish(place.command(place.probe()).args(["connect-abstract", &name]).spawn().unwrap(), b"");
    assert_eq!(outside.answers()["connect"], "OK", "the test itself is broken");
    for flags in [
        &[][..],
        &["--network", "host"],
        &["--network", "host", "-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"],
        &["--policy", "hpc"],
        &["--policy", "ci"],
    ] {
        let abi = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let new = abi.split('.').take(2).map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>() >= vec![6, 12];
        if flags.is_empty() || new {
            assert!(!connects(&place, flags, &["connect-abstract", &name]), "{flags:?}");
        }
    }
    drop(listener.stdin.take());
    listener.wait().unwrap();
}

#[test]
fn y04_sockets_of_the_session_are_out_of_reach() {
    let place = place();
    // Where agents put theirs: the runtime directory and /tmp.
    let tmp = std::path::PathBuf::from(format!("/tmp/sandbox-it-ssh-{}", std::process::id()));
    std::fs::create_dir(&tmp).unwrap();
    mode(&tmp, 0o777);
    place.dir(".gnupg");
    let paths = [tmp.join("agent.1").display().to_string(), place.at(".gnupg/S.gpg-agent")];
    for path in &paths {
        let mut command = place.command(place.probe());
        command.args(["listen-unix", path]).stdin(std::process::Stdio::piped());
        let mut listener = place.start(command, "ready");
        let outside = finish(place.command(place.probe()).args(["connect-unix", path]).spawn().unwrap(), b"");
        assert_eq!(outside.answers()["connect"], "OK", "the test itself is broken");
        for flags in [
            &[][..],
            &["--network", "host", "-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"],
            &["--ipc", "host"],
            &["--policy", "ci"],
        ] {
            assert!(!connects(&place, flags, &["connect-unix", path]), "{path} {flags:?}");
        }
        drop(listener.stdin.take());
        listener.wait().unwrap();
    }
    std::fs::remove_dir_all(&tmp).unwrap();
}

#[test]
fn y04_engines_and_buses_are_not_there() {
    let place = place();
    let output = place.inside_with(&["-u", "0"], "for p in /run/docker.sock /var/run/docker.sock /run/user /run/dbus /run/systemd/private /run/podman /run/containerd /run/snapd.socket /tmp/.X11-unix; do [ -e $p ] && echo $p; done; find /run /tmp /var/tmp -type s 2>/dev/null; echo done");
    assert_eq!(output.ok(), "done");
}

#[test]
fn n02_cve_2020_8558_no_network_reaches_the_hosts_loopback() {
    let place = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let outside = finish(place.command(place.probe()).args(["connect-tcp", &port]).spawn().unwrap(), b"");
    assert_eq!(outside.answers()["connect"], "OK", "the test itself is broken");
    assert!(!connects(&place, &[], &["connect-tcp", &port]));
    assert!(!connects(&place, &["-u", "0", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined"], &["connect-tcp", &port]));
    assert!(connects(&place, &["--network", "host"], &["connect-tcp", &port]));
}

#[test]
fn n06_cve_2024_29018_no_network_is_loopback_and_nothing_else() {
    let place = place();
    let output =
        place.inside("cut -d: -f1 -s /proc/net/dev; cat /proc/net/route; cat /proc/net/ipv6_route | grep -v ' lo$'; cat /proc/net/unix | wc -l");
    let text: Vec<_> = output.ok().split_whitespace().map(String::from).collect();
    assert!(text.iter().filter(|w| *w == "lo").count() == 1 && !text.iter().any(|w| w.starts_with("eth") || w.starts_with("en")), "{output:?}");
}

// What a sandbox leaves behind in the kernel.

#[test]
fn g02_cve_2024_3056_ipc_objects_do_not_outlive_the_sandbox() {
    let place = place();
    let key = 0x5a00_0000 + std::process::id() as i32;
    let seen = place.probed(&[], &["ipc", &key.to_string()]);
    for name in ["shmget", "semget", "msgget", "mq_open", "shm_open"] {
        assert_eq!(seen[name], "OK", "{name}");
    }
    let hex = format!("{key:#010x}");
    for file in ["shm", "sem", "msg"] {
        let text = std::fs::read_to_string(format!("/proc/sysvipc/{file}")).unwrap();
        assert!(!text.contains(&key.to_string()) && !text.contains(&hex), "{text}");
    }
    assert!(!std::path::Path::new(&format!("/dev/shm/probe-{key}")).exists());
}

#[test]
fn g02_ipc_objects_of_the_host_do_not_show() {
    let place = place();
    let output = place
        .inside("cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg | wc -l; ls /dev/shm /dev/mqueue | wc -l; cat /proc/sysvipc/shm | wc -l");
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!((lines[0].trim(), lines[2].trim()), ("3", "1"), "{output:?}");
}

#[test]
fn k14_cve_2022_4415_cve_2025_4598_a_crash_leaves_no_core() {
    let place = place();
    place.dir("dump");
    for (how, code) in [("abort", 134), ("segv", 139), ("6", 134), ("11", 139), ("8", 136), ("4", 132), ("sys", 159)] {
        for flags in [&[][..], &["--ulimit", "core=0"], &["--ulimit", "core=unlimited"]] {
            if flags.contains(&"core=unlimited") {
                continue; // the user's own wish
            }
            let dump = place.at("dump");
            let output = place.sandbox(&[&["run", "--rw", &dump, "-w", &dump], flags, &["--", &place.probe(), "crash", how]].concat());
            assert_eq!(output.code(), code, "{how}: {output:?}");
            assert_eq!(place.snapshot("dump").len(), 1, "a core file: {how} {flags:?}");
        }
    }
}

// Configuration in the workspace.

#[test]
fn x04_no_policy_is_read_from_the_working_directory() {
    let place = place();
    let open = "[network]\nmode = \"host\"\n[capabilities]\nadd = [\"ALL\"]\n";
    for name in [
        "sandbox.toml",
        ".sandbox.toml",
        "policy.toml",
        "default.toml",
        "policies/default.toml",
        ".sandbox/policies/default.toml",
        "sandbox/policies/default.toml",
        ".config/policies/default.toml",
        "strict.toml",
        "ceiling.toml",
        ".env",
        "sandbox.json",
        "sandbox",
        "default",
        "strict",
    ] {
        if !place.path(&format!("ws/{name}")).exists() {
            place.file(&format!("ws/{name}"), open);
        }
    }
    let with = place.sandbox(&["run", "-w", &place.home.display().to_string(), "--dry-run", "--", "true"]);
    let mut command = place.cli(&["run", "-w", &place.home.display().to_string(), "--dry-run", "--", "true"]);
    command.current_dir(place.path("ws"));
    let from = finish(command.spawn().unwrap(), b"");
    let key = |o: &Output| {
        o.ok().lines().filter(|l| !l.contains("copy") && !l.contains("chdir")).map(|l| l.get(4..).unwrap_or("").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(key(&with), key(&from));
    let mut command = place.cli(&["run", "--policy", "strict", "--", "sh", "-c", "grep CapBnd /proc/self/status; ls /sys/class/net"]);
    command.current_dir(place.path("ws"));
    assert!(finish(command.spawn().unwrap(), b"").stdout.contains("0000000000000000"));
}

#[test]
fn x04_policies_and_our_cache_cannot_be_written_from_inside() {
    let mut place = place();
    // What is told of sandboxes that run is elsewhere then.
    let runtime = place.dir("runtime");
    mode(&runtime, 0o700);
    place.env.insert("XDG_RUNTIME_DIR".into(), runtime.display().to_string());
    place.file(".config/sandbox/policies/mine.toml", "description = \"mine\"\n");
    place.inside("true").ok(); // makes the cache
    let before = [place.snapshot(".config"), Snapshot::of(&place.path(".cache/sandbox"))];
    let script = "echo x > ~/.config/sandbox/policies/mine.toml; mkdir -p ~/.config/sandbox/policies ~/.cache/sandbox; echo x > ~/.config/sandbox/policies/default.toml; rm -rf ~/.cache/sandbox; echo x > ~/.cache/sandbox/f; for f in ~/.cache/sandbox/*; do echo x > $f; done; true";
    for flags in [&[][..], &["--rw", &place.home.display().to_string()]] {
        place.inside_with(flags, script);
        for snapshot in &before {
            snapshot.unchanged();
        }
    }
}

#[test]
fn x01_a_guarded_name_cannot_be_changed_by_an_agent() {
    let place = place();
    place.file("ws/.git/config", "kept");
    place.file("ws/.git/hooks/pre-commit", "kept");
    place.file("ws/.envrc", "kept");
    place.file("ws/.vscode/tasks.json", "kept");
    let before = [place.snapshot("ws/.git/config"), place.snapshot("ws/.git/hooks"), place.snapshot("ws/.envrc"), place.snapshot("ws/.vscode")];
    let ws = place.at("ws");
    let script = "echo x > .git/config; echo x > .git/hooks/pre-commit; echo x > .git/hooks/post-commit; rm -rf .git/hooks .envrc .vscode; mv .git/hooks .git/h2; mv .envrc e; ln -s /x .envrc; echo x >> .envrc; mv .git g2; echo new > ok; true";
    place.inside_with(&["--policy", "agent", "--rw", &ws, "-w", &ws], script).ok();
    for snapshot in &before {
        snapshot.unchanged();
    }
    assert_eq!(std::fs::read_to_string(place.path("ws/ok")).unwrap(), "new\n");
}

#[test]
fn x01_cve_2026_25725_a_guarded_name_that_an_agent_makes_is_told_or_discarded() {
    let place = place();
    place.file("ws/src/main.c", "");
    let ws = place.at("ws");
    let script = "mkdir -p .git/hooks .vscode .husky .claude; echo x > .git/hooks/pre-commit; echo x > .envrc; echo x > .vscode/tasks.json; echo x > .mcp.json; echo x > t; mv t .gitmodules; ln -s /x .npmrc; echo new > ok; true";
    // On a directory of the host nothing can keep a name from being made, so it is told; below a layer it stays there.
    let told = place.inside_with(&["--policy", "agent", "--rw", &ws, "-w", &ws], script);
    told.ok();
    for name in [".git/hooks", ".envrc", ".vscode", ".husky", ".claude", ".mcp.json", ".gitmodules", ".npmrc"] {
        assert!(told.stderr.contains(&format!("/ws/{name} was made inside")), "{name}: {told:?}");
    }
    std::fs::remove_dir_all(&ws).unwrap();
    place.file("ws/src/main.c", "");
    place.inside_with(&["--policy", "agent", "--cow", &ws, "-w", &ws], script).ok();
    let left: Vec<_> = [".git/hooks", ".envrc", ".vscode", ".husky", ".claude", ".mcp.json", ".gitmodules", ".npmrc"]
        .into_iter()
        .filter(|n| std::fs::symlink_metadata(place.path("ws").join(n)).is_ok())
        .collect();
    assert_eq!(left, Vec::<&str>::new(), "guarded names on the host after the run");
}
