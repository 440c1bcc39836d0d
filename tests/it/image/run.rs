//! `sandbox run IMAGE`, and what becomes of the writable layer: kept, named, diff, commit, export, import.

use super::build::{Layer, document, oci, tiny};
use crate::support::*;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An image of the tiny tree, in the store under a name.
fn image(place: &Place, name: &str, config: Value) -> String {
    let word = oci(place, name, &[tiny(place)], config);
    place.sandbox(&["load", &word]).ok();
    format!("localhost/{name}")
}

impl Place {
    /// `sandbox run FLAGS IMAGE WORDS`.
    #[track_caller]
    fn run(&self, flags: &[&str], image: &str, words: &[&str]) -> Output {
        self.sandbox(&[&["run"], flags, &[image], words].concat())
    }

    #[track_caller]
    fn shell(&self, flags: &[&str], image: &str, script: &str) -> Output {
        self.run(&[&["--entrypoint", ""], flags].concat(), image, &["sh", "-c", script])
    }
}

#[test]
fn what_the_image_says_and_what_the_flags_say() {
    let place = place();
    let layer = tiny(&place);
    let two = json!({ "Entrypoint": ["/none"], "Cmd": ["c"] });
    let entry = json!({ "Entrypoint": ["/bin/sh", "-c", "echo \"$0 $*\"", "e"], "Cmd": ["c", "d"] });
    let env = json!({ "Env": ["PATH=/bin", "A=image", "B=image"], "Cmd": ["sh", "-c", "echo $A $B $HOME"] });
    let user = json!({ "User": "bob", "Cmd": ["sh", "-c", "echo $(id -u):$(id -g) $(id -G) $HOME"] });
    let dir = json!({ "WorkingDir": "/srv/deep/down", "Cmd": ["sh", "-c", "pwd; stat -c %u:%a ."] });
    type Case<'a> = (&'a str, Value, &'a [&'a str], &'a [&'a str], &'a str);
    let cases: [Case; 15] = [
        ("entry", entry.clone(), &[], &[], "e c d"),
        ("entry", entry.clone(), &[], &["x"], "e x"),
        ("entry", entry.clone(), &["--entrypoint", "/bin/cat"], &["/etc/group"], "root:x:0:\nbob:x:1000:\nextra:x:2000:bob"),
        ("entry", entry.clone(), &["--entrypoint", ""], &["sh", "-c", "echo bare"], "bare"),
        ("entry", entry, &["--entrypoint", "[\"sh\",\"-c\",\"echo list\"]"], &[], "list"),
        ("env", env.clone(), &[], &[], "image image /root"),
        ("env", env.clone(), &["-e", "B=flag"], &[], "image flag /root"),
        ("env", env, &["-e", "HOME=/x", "-e", "A="], &[], "image /x"),
        ("user", user.clone(), &[], &[], "1000:1000 1000 2000 /home/bob"),
        ("user", user.clone(), &["-u", "0"], &[], "0:0 0 /root"),
        ("user", user, &["-u", "7:bob"], &[], "7:1000 1000 /"),
        ("dir", dir.clone(), &[], &[], "/srv/deep/down\n0:755"),
        ("dir", dir, &["-w", "/other/place"], &[], "/other/place\n0:755"),
        ("both", two.clone(), &["--entrypoint", "id"], &["-u"], "0"),
        ("host", two, &["--entrypoint", "sh"], &["-c", "cat /etc/hosts | head -1; echo $HOSTNAME"], "127.0.0.1\tlocalhost\nsandbox"),
    ];
    let mut had = std::collections::BTreeSet::new();
    for (name, config, flags, words, expected) in cases {
        let word = format!("localhost/{name}");
        if had.insert(name) {
            let from = oci(&place, name, std::slice::from_ref(&layer), config);
            place.sandbox(&["load", &from]).ok();
        }
        let out = place.run(flags, &word, words);
        assert_eq!(out.ok().split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>(), "{name} {flags:?} {words:?}");
    }
    // Nothing to run, and what is no image's.
    place.run(&["--entrypoint", ""], "localhost/env", &[]).refused("names no command").hinted();
    for flag in [&["--entrypoint", "x"][..], &["--pull", "never"], &["--platform", "linux/amd64"]] {
        place.inside_with(flag, "true").refused("without an image").hinted();
    }
    for flag in [&["--privileged"][..], &["-p", "8080:80"], &["-P"]] {
        place.run(flag, "localhost/env", &[]).refused("cannot ").hinted();
    }
    place.run(&["--rw", "/tmp"], "localhost/env", &[]).refused("with --rootfs or an image").hinted();
}

#[test]
fn what_the_image_says_is_said_of_its_sandboxes() {
    let place = place();
    let script = "trap 'exit 7' USR1; trap 'exit 8' TERM; echo ready; while :; do sleep 0.05; done";
    let says = json!({
        "Cmd": ["sh", "-c", script], "StopSignal": "SIGUSR1", "Labels": { "a": "image", "b": "image", "evil": "\u{1b}[2J" },
        "ExposedPorts": { "8080/tcp": {}, "53/udp": {} }, "Volumes": { "/data": {} },
    });
    let name = image(&place, "says", says);
    for (flags, code) in [(&[][..], "7"), (&["--stop-signal", "TERM"], "8")] {
        place.sandbox(&[&["run", "-d", "--name", "one", "--label", "b=flag"], flags, &[name.as_str()]].concat()).ok();
        assert!(within(Duration::from_secs(5), || place.sandbox(&["logs", "one"]).ok() == "ready"));
        for label in ["a=image", "b=flag", "evil"] {
            assert_eq!(place.sandbox(&["ps", "--format", "{{.Names}}", "--filter", &format!("label={label}")]).ok(), "one", "{label}");
        }
        assert!(!place.sandbox(&["ps", "--format", "{{.Labels}}"]).ok().contains('\u{1b}'));
        assert_eq!(place.sandbox(&["ps", "--format", "{{.Ports}}"]).ok(), "53/udp, 8080/tcp");
        let told: Value = serde_json::from_str(place.sandbox(&["inspect", "one", "--format", "{{json .Config}}"]).ok()).unwrap();
        assert_eq!(told["ExposedPorts"], json!({ "8080/tcp": {}, "53/udp": {} }));
        assert_eq!(told["Volumes"], json!({ "/data": {} }));
        place.sandbox(&["stop", "one"]).ok();
        assert_eq!(place.sandbox(&["wait", "one"]).ok(), code);
        place.sandbox(&["rm", "one"]).ok();
    }
}

#[test]
fn an_image_is_found_by_many_names() {
    let place = place();
    let name = image(&place, "named", json!({ "Cmd": ["sh", "-c", "echo here"] }));
    let id = place.sandbox(&["images", "-q", "--no-trunc"]).ok().to_string();
    let hex = id.trim_start_matches("sha256:");
    let archive = place.at("named.tar");
    place.sandbox(&["save", "--format", "oci-archive", "-o", &archive, &name]).ok();
    let docker = place.at("docker.tar");
    place.sandbox(&["save", "--format", "docker-archive", "-o", &docker, &name]).ok();
    for word in [&name, &format!("{name}:latest"), "named", "named:latest", &id, hex, &hex[..6]] {
        assert_eq!(place.run(&["--pull", "never"], word, &[]).ok(), "here", "{word}");
    }
    for word in [format!("oci:{}", place.at("named")), format!("oci-archive:{archive}"), format!("docker-archive:{docker}")] {
        assert_eq!(place.run(&[], &word, &[]).ok(), "here", "{word}");
        place.run(&["--dry-run"], &word, &[]).refused("would load it").hinted();
    }
    place.run(&["--pull", "never"], "docker.io/named", &[]).refused("cannot find image").hinted();
    // The very name comes before the one of this machine; and a name of this machine is not asked for elsewhere.
    let other = image(&place, "other", json!({ "Cmd": ["sh", "-c", "echo other"] }));
    for (tagged, said) in [("docker.io/library/named", "other"), ("untag", "here")] {
        match tagged {
            "untag" => place.sandbox(&["untag", "docker.io/library/named"]).ok().to_string(),
            name => place.sandbox(&["tag", &other, name]).ok().to_string(),
        };
        assert_eq!(place.run(&[], "named", &[]).ok(), said);
    }
    place.run(&["--pull", "always"], "named", &[]).refused("localhost");
    assert_eq!(place.run(&["--pull", "newer"], "named", &[]).ok(), "here");
    place.sandbox(&["untag", "docker.io/library/other"]).refused("cannot find the name");
    place.sandbox(&["untag", "other"]).ok();
    place.run(&["--pull", "never"], &other, &[]).refused("cannot find image");
    place.run(&["--pull", "never"], "localhost/none", &[]).refused("cannot find image").hinted();
    place.run(&["--platform", "linux/s390x", "--pull", "never"], &name, &[]).refused("cannot find image");
    let foreign = document(&place, "foreign", &[tiny(&place)], json!({ "architecture": "s390x", "os": "linux", "config": { "Cmd": ["true"] } }));
    place.run(&[], &foreign, &[]).refused("s390x").hinted();
    for ids in [&["--userns", "keep-id"][..], &["--userns", "nomap"], &["--uidmap", "0:1:1"]] {
        assert_eq!(place.run(ids, &name, &[]).code(), 125, "{ids:?}");
    }
}

/// The directories of layers are lost, as a careful user or a broken disk loses them: they are made again of the blobs, by threads that
/// are gone when the sandbox begins.
#[test]
fn lost_layers_are_made_again() {
    let place = place();
    let layers = [tiny(&place), Layer::new().dir("d", 0o750, (7, 8)).end(), Layer::new().file("d/f", "x").end(), Layer::new().file("e", "y").end()];
    let word = oci(&place, "lost", &layers, json!({ "Cmd": ["sh", "-c", "stat -c %u:%g:%a /d; cat /d/f /e"] }));
    place.sandbox(&["load", &word]).ok();
    let stored = place.stored();
    let dirs = || std::fs::read_dir(place.store().join("layers")).unwrap().map(|e| e.unwrap().path().display().to_string()).collect::<Vec<_>>();
    for n in 0..20 {
        // All of them, or each one alone.
        let all = dirs();
        let lost: Vec<&str> = all.iter().enumerate().filter(|(at, _)| n % 5 == 4 || at % 4 == n % 5).map(|(_, d)| d.as_str()).collect();
        place.sandbox(&[&["layer", "remove"], lost.as_slice()].concat()).ok();
        assert_eq!(dirs().len(), 4 - lost.len());
        let out = place.sandbox(&["run", "localhost/lost"]);
        assert_eq!(out.ok(), "7:8:750\nxy", "{n}: {out:?}");
        assert!(out.stderr.is_empty(), "{n}: {out:?}");
        assert_eq!(place.stored(), stored, "{n}");
    }
    // Without the blob there is no way back, and that is said.
    let blobs = std::fs::read_dir(place.store().join("blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    std::fs::remove_file(blobs.max_by_key(|b| b.metadata().unwrap().len()).unwrap()).unwrap();
    place.sandbox(&["run", "localhost/lost"]).ok();
    place.sandbox(&[&["layer", "remove"], dirs().iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat()).ok();
    place.sandbox(&["run", "localhost/lost"]).refused("cannot ");
}

#[test]
fn writes_are_discarded() {
    let place = place();
    let name = image(&place, "lost", json!({ "Cmd": ["sh"], "Volumes": { "/var/seed": {} } }));
    // A volume that the image has nothing for is there all the same.
    place.shell(&[], &name, "test -d /var/seed && test ! -e /var/seed/y").ok();
    place.shell(&[], &name, "echo x > /new; rm /bin/wc; mkdir /var/seed; echo y > /var/seed/y; test -e /new").ok();
    assert_eq!(place.shell(&[], &name, "ls -d /new /bin/wc /var/seed/y 2>/dev/null; true").ok(), "/bin/wc");
    // A read-only root with a volume that is not.
    place.shell(&["--read-only"], &name, "! touch /new 2>/dev/null && touch /var/seed/z && test -e /var/seed/z").ok();
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}}"]).ok(), "");
}

#[test]
fn kept_layers_are_compared_committed_exported_and_removed() {
    let place = place();
    let name = image(&place, "base", json!({ "Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "Volumes": { "/vol": {} }, "Labels": { "l": "1" } }));
    let script = "echo hi > /new; rm /bin/wc; chown bob /tmp; rm -r /home; mkdir /home; echo z > /home/z; echo v > /vol/v; chown bob:extra /home/z; ln /new /hard";
    place.shell(&["--keep", "--name", "work", "-e", "SECRET=4711"], &name, script).ok();
    place.shell(&["--keep", "--name", "work"], &name, "true").refused("cannot use the name 'work'").hinted();
    assert_eq!(
        place.sandbox(&["diff", "work"]).ok(),
        "C /bin\nD /bin/wc\nA /hard\nC /home\nA /home/z\nA /new\nC /tmp\nA /vol",
        "mount points of our own, and what is in a volume, are no change"
    );
    let json: Vec<Value> = place.sandbox(&["diff", "--format", "json", "work"]).ok().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(json[1], json!({ "Kind": "D", "Path": "/bin/wc" }));
    let kept = place.sandbox(&["kept", "--format", "{{.Name}} {{.Image}} {{.InUse}}"]);
    assert_eq!(kept.ok(), format!("work {name} false"));
    place.sandbox(&["rmi", &name]).refused("the kept layer 'work' lies on it").hinted();

    // The same bytes each time, and the same image.
    place.sandbox(&["commit", "work"]).ok();
    let mut commit = place.cli(&["commit", "-a", "me", "-m", "why", "-c", "CMD [\"cat\", \"/new\"]", "-c", "ENV B=2", "work", "localhost/two"]);
    commit.env("SOURCE_DATE_EPOCH", "1000000000");
    let id = finish(commit.spawn().unwrap(), b"").ok().to_string();
    let mut again = place.cli(&["commit", "-a", "me", "-m", "why", "-c", "CMD [\"cat\", \"/new\"]", "-c", "ENV B=2", "work"]);
    again.env("SOURCE_DATE_EPOCH", "1000000000");
    assert_eq!(finish(again.spawn().unwrap(), b"").ok(), id);
    assert_eq!(place.run(&[], "localhost/two", &[]).ok(), "hi");
    let seen = "stat -c '%h %u:%g %a %n' /new /home/z /tmp; ls /home /vol; ls /bin/wc 2>&1; echo $A $B ${SECRET-none}";
    let expected = "2 0:0 644 /new\n1 1000:2000 644 /home/z\n1 1000:0 755 /tmp\n";
    let out = place.run(&[], "localhost/two", &["sh", "-c", seen]);
    let text = out.stdout.clone();
    let links = |t: &str| t.lines().take(2).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(links(&text), links(expected), "{out:?}");
    assert!(text.contains("1000:0 755 /tmp") && text.contains("1 2 none") && text.contains("No such file"), "{out:?}");
    let inspected: Value = serde_json::from_str(place.sandbox(&["inspect", "localhost/two"]).ok()).unwrap();
    let text = inspected.to_string();
    assert!(text.contains("2001-09-09T01:46:40Z") && text.contains("\"me\"") && text.contains("\"l\":\"1\"") && !text.contains("4711"), "{text}");
    assert!(place.sandbox(&["history", "localhost/two"]).ok().contains("why"));

    // The tree as a tar, without what is gone, and back again.
    let tar = place.at("tree.tar");
    place.sandbox(&["export", "-o", &tar, "work"]).ok();
    let list = String::from_utf8(Command::new("tar").args(["-tvf", &tar]).output().unwrap().stdout).unwrap();
    let has = |word: &str| list.lines().any(|l| l.contains(word));
    assert!(
        has("1000/2000") && has(" home/z") && has(" bin/sh") && has(" vol/") && !has("bin/wc") && !has(".wh.") && !has("vol/v") && !has("home/bob"),
        "{list}"
    );
    place.sandbox(&["import", "-c", "CMD cat /new", &tar, "localhost/three"]).ok();
    assert_eq!(place.run(&[], "localhost/three", &[]).ok(), "hi");
    let skopeo = Command::new("skopeo").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if skopeo.is_ok() {
        let saved = place.at("saved");
        place.sandbox(&["save", "--format", "oci-dir", "-o", &saved, "localhost/two"]).ok();
        let skopeo = place.command("skopeo").args(["inspect", "--config", &format!("oci:{saved}")]).output().unwrap();
        let config = String::from_utf8(skopeo.stdout).unwrap();
        assert!(config.contains("2001-09-09T01:46:40Z") && config.contains("B=2"), "{config}{}", String::from_utf8_lossy(&skopeo.stderr));
    }

    place.sandbox(&["rm", "work", "nothing"]).refused("cannot find a sandbox or a kept layer 'nothing'").hinted();
    place.sandbox(&["commit", "work"]).refused("cannot find a kept layer");
    place.sandbox(&["rmi", &name, "localhost/two", "localhost/three"]).ok();
    // A name that is made up is told.
    let name = image(&place, "again", json!({ "Cmd": ["sh"] }));
    let out = place.shell(&["--keep"], &name, "true");
    let made_up = out.stderr.split("kept as ").nth(1).unwrap_or_else(|| panic!("{out:?}")).trim().to_string();
    place.sandbox(&["rm", &made_up]).ok();
    // What did not run leaves nothing.
    assert_eq!(place.run(&["--keep", "--name", "no", "--entrypoint", "/none"], &name, &[]).code(), 127);
    assert_eq!(place.sandbox(&["kept", "--format", "{{.Name}}"]).ok(), "");
}

#[test]
fn a_named_layer_stays_and_is_written_by_one() {
    let place = place();
    let (name, other) = (image(&place, "one", json!({ "Cmd": ["sh"] })), image(&place, "other", json!({ "Cmd": ["sh"], "Env": ["X=1"] })));
    place.shell(&["--layer", "mine"], &name, "echo first > /file; rm /bin/wc; rm -r /home").ok();
    place.shell(&["--layer", "mine"], &name, "cat /file; echo second >> /file; ! test -e /bin/wc && ! test -e /home && mkdir /home").ok();
    assert_eq!(place.shell(&["--layer", "mine"], &name, "cat /file; ls /home").ok(), "first\nsecond");
    assert_eq!(place.shell(&[], &name, "ls /file 2>/dev/null; ls /home; true").ok(), "", "the image itself is untouched");
    place.shell(&["--layer", "mine"], &other, "true").refused("it was made on localhost/one").hinted();
    // Two at once, the image of a running one, and the layer of a running one.
    let mut child = place.start(place.cli(&["run", "-i", "--layer", "mine", "--entrypoint", "", &name, "sh", "-c", "echo up; cat; sleep 60"]), "up");
    place.shell(&["--layer", "mine"], &name, "true").refused("it is in use").hinted();
    place.sandbox(&["rm", "mine"]).refused("it is in use").hinted();
    place.sandbox(&["rmi", "-f", &name]).refused("cannot remove image");
    assert_eq!(place.sandbox(&["kept", "--format", "{{.InUse}}"]).ok(), "true");
    let diff = place.sandbox(&["diff", "mine"]);
    assert!(diff.ok().contains("A /file") && diff.stderr.contains("is running"), "{diff:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    // kill -9 of us ends it, and the layer is free again.
    assert!(within(Duration::from_secs(5), || place.shell(&["--layer", "mine"], &name, "cat /file").code() == 0));
    place.sandbox(&["rm", "mine"]).ok();
    assert_eq!(place.shell(&["--layer", "mine"], &name, "ls /file 2>/dev/null; true").ok(), "");
    place.sandbox(&["rm", "mine"]).ok();
    place.sandbox(&["rmi", &name, &other]).ok();
    let store = place.path(".local/share/sandbox/store");
    let left = |dir: &str| std::fs::read_dir(store.join(dir)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    for dir in ["layers", "layers-named", "images", "names", "blobs/sha256", "tmp"] {
        assert!(left(dir).is_empty(), "{dir}: {:?}", left(dir));
    }
}

#[test]
fn the_image_of_a_running_sandbox_stays() {
    let place = place();
    let name = image(&place, "used", json!({ "Cmd": ["sh"] }));
    let mut child = place.start(place.cli(&["run", "--entrypoint", "", &name, "sh", "-c", "echo up; sleep 60"]), "up");
    place.sandbox(&["rmi", "-f", &name]).refused("a sandbox uses it").hinted();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(within(Duration::from_secs(5), || place.sandbox(&["rmi", &name]).code() == 0));
}

/// I12: what an image says about itself is never read as a setting of ours.
#[test]
fn cve_2026_53488_cve_2026_53492_cve_2024_3154_labels_mean_nothing() {
    let place = place();
    let layer = tiny(&place);
    let mut flags: Vec<String> =
        vec!["policy", "network", "rw", "volume", "privileged", "cap-add", "security-opt", "userns", "pid", "device", "mount"]
            .into_iter()
            .flat_map(|f| [format!("--{f}"), format!("io.podman.{f}"), format!("run.oci.{f}"), format!("sandbox.{f}"), f.to_string()])
            .collect();
    flags.extend(
        ["org.systemd.property.ExecStart", "cdi.k8s.io/x", "io.podman.annotations.privileged", "@file", "a\r\nb", "io.kubernetes.cri-o.x"]
            .map(String::from),
    );
    let labels: serde_json::Map<String, Value> = flags.iter().map(|f| (f.clone(), json!("host\r\n/:/host:rw --network host @/etc/passwd"))).collect();
    let dry = |name: &str, config: Value| {
        let word = document(&place, name, std::slice::from_ref(&layer), config);
        place.sandbox(&["load", &word]).ok();
        let out = place.run(&["--dry-run", "--json"], &format!("localhost/{name}"), &[]);
        let mut value: Value = serde_json::from_str(out.ok()).unwrap();
        assert!(value["spec"]["root"]["image"]["id"].take().is_string());
        value
    };
    let platform = json!({ "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux" });
    let with = |config: Value, top: &Value| {
        let mut document = platform.clone();
        document["config"] = config;
        document.as_object_mut().unwrap().extend(top.as_object().unwrap().clone());
        document
    };
    let plain = dry("plain", with(json!({ "Cmd": ["true"] }), &json!({})));
    let loud = json!({
        "Cmd": ["true"], "Labels": labels, "ExposedPorts": { "80/tcp": {} }, "ArgsEscaped": true, "Healthcheck": { "Test": ["CMD", "x"] },
        "OnBuild": ["RUN x"], "Shell": ["/bin/evil"], "Memory": 1, "NetworkDisabled": false, "Privileged": true, "Binds": ["/:/host"],
    });
    let host = json!({ "host_config": { "Privileged": true, "Binds": ["/:/host"] }, "annotations": labels, "author": "--network host" });
    assert_eq!(plain, dry("loud", with(loud, &host)));
}

/// I13.
#[test]
fn cve_2024_40635_cve_2016_3697_the_user_of_an_image() {
    let place = place();
    let accounts =
        "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n0:x:7:7::/:/bin/sh\nbob:x:5:6::/:/bin/sh\nbig:x:4294967296:0::/:\nfar:x:4000000:0::/:\n";
    let (tiny, top) = (tiny(&place), Layer::new().file("etc/passwd", accounts).end());
    for (number, (user, expected)) in [
        ("0", Some("0:0")),
        ("1", Some("1:0")),
        ("1000", Some("1000:0")),
        ("bob", Some("5:6")),
        ("bob:root", Some("5:0")),
        ("65000:65001", Some("65000:65001")),
        ("2147483648", None),
        ("far", None),
        ("big", None),
        ("nobody-here", None),
        ("4294967295", None),
        ("4294967296", None),
        ("00", None),
        ("-1", None),
        ("1:", None),
        (":0", None),
        ("+0", None),
        (" 0", None),
        ("0x0", None),
        ("1000:1000:1", None),
    ]
    .into_iter()
    .enumerate()
    {
        let word = oci(
            &place,
            &format!("user{number}"),
            &[tiny.clone(), top.clone()],
            json!({ "User": user, "Cmd": ["sh", "-c", "echo $(id -u):$(id -g)"] }),
        );
        let out = place.run(&[], &word, &[]);
        match expected {
            Some(ids) => assert_eq!(out.ok(), ids, "{user:?}"),
            None => drop(out.refused("cannot ")),
        }
    }
}

/// S13, S14: what we make or mount in an image follows links inside only.
#[test]
fn cve_2026_55686_cve_2024_9341_cve_2022_23648_links_in_an_image_stay_inside() {
    let place = place();
    let dir = canary(&place);
    let before = place.snapshot("canary");
    let out = dir.display().to_string();
    let (tiny, secret) = (tiny(&place), format!("{out}/secret"));
    let up = format!("../../../../../..{out}");
    for (number, target) in [out.as_str(), &up, "loop", "/proc/self/root", "/proc/1/cwd", "/etc/../../..//"].into_iter().enumerate() {
        let layer = Layer::new()
            .link("loop", "loop")
            .link("work", target)
            .link("etc/hosts", &secret)
            .link("etc/resolv.conf", &secret)
            .link("vol", target)
            .end();
        let config = json!({ "WorkingDir": "/work/made", "Cmd": ["sh", "-c", "cat /etc/hosts /etc/resolv.conf; ls -a . /vol; true"], "Volumes": { "/vol": {} } });
        let word = oci(&place, &format!("links{number}"), &[tiny.clone(), layer], config);
        for flags in [
            &[][..],
            &["--add-host", "a:192.0.2.1", "--dns", "192.0.2.1"],
            &["--network", "host"],
            &["--read-only"],
            &["--layer", "l"],
            &["-w", "/vol/x/y"],
        ] {
            let run = place.run(flags, &word, &[]);
            // The host's directory has `sub` in it. A `secret` of our own is made inside, where a link wants a file that is not there.
            let shown = run.stdout.contains("CANARY") || run.stdout.lines().any(|name| name == "sub");
            assert!(!shown, "{target} {flags:?} {run:?}");
            place.sandbox(&["rm", "l"]);
            before.unchanged();
        }
    }
    // /dev, /proc, /sys and /etc themselves as links. cve: 2026-41579, 2025-54867
    let layer = ["dev", "proc", "sys", "etc"].iter().fold(Layer::new(), |l, name| l.link(name, &out)).end();
    let word = oci(&place, "tops", &[tiny, layer], json!({ "Cmd": ["sh", "-c", "cat /etc/secret /dev/secret; true"] }));
    let run = place.run(&["--dns", "192.0.2.1"], &word, &[]);
    assert!(!run.stdout.contains("CANARY"), "{run:?}");
    before.unchanged();
}

/// Images of distributions with systemd have it so, and nothing of that runs inside.
#[test]
fn a_resolv_conf_that_leads_nowhere_leads_to_ours() {
    let place = place();
    for (number, target) in ["../run/systemd/resolve/stub-resolv.conf", "/run/resolvconf/resolv.conf"].into_iter().enumerate() {
        let layer = Layer::new().link("etc/resolv.conf", target).end();
        let word = oci(&place, &format!("nowhere{number}"), &[tiny(&place), layer], json!({ "Cmd": ["cat", "/etc/resolv.conf"] }));
        let run = place.run(&["--dns", "192.0.2.1"], &word, &[]);
        assert_eq!((run.code(), run.stdout.as_str()), (0, "nameserver 192.0.2.1\n"), "{run:?}");
        let run = place.run(&["--network", "host"], &word, &[]);
        assert_eq!((run.code(), run.stdout.clone()), (0, std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()), "{run:?}");
    }
}

/// Ends a racer, also when the test fails: its scope waits for it.
struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// S13, S14 with a racer: what the layers have at the paths that we make, mount and read becomes a link out of them and back, while runs
/// start. (Only their owner could do that; it stands for whatever else might.)
#[test]
fn cve_2026_55686_cve_2024_9341_a_racer_on_the_layers_gains_nothing() {
    need!(root(), "needs root, to move files of subordinate ids");
    let place = place();
    let dir = canary(&place);
    for (name, text) in [("passwd", "bob:x:66:66::/:/bin/sh\n"), ("group", "bob:x:66:\n"), ("hosts", "CANARY-1\n"), ("resolv.conf", "CANARY-2\n")] {
        place.file(&format!("canary/{name}"), text);
    }
    place.dir("canary/made");
    let before = place.snapshot("canary");
    let layer = Layer::new().dir("work", 0o755, (0, 0)).dir("vol", 0o755, (0, 0)).dir("dev", 0o755, (0, 0)).file("vol/seed", "seed\n").end();
    let config = json!({ "WorkingDir": "/work/made", "Cmd": ["sh", "-c", "cat /etc/* /work/* /vol/* /dev/secret; ls -a . /vol /etc /work; id -u; true"], "Volumes": { "/vol": {} } });
    let word = oci(&place, "raced", &[tiny(&place), layer], config);
    place.sandbox(&["load", &word]).ok();
    place.run(&["--layer", "l"], "localhost/raced", &[]).ok();
    let mut spots = Vec::new();
    let tops = std::fs::read_dir(place.store().join("layers")).unwrap().map(|e| e.unwrap().path().join("diff"));
    for top in tops.chain([place.store().join("layers-named/l/upper")]) {
        spots.extend(["etc", "work", "vol", "dev", "etc/hosts", "etc/passwd"].iter().map(|name| top.join(name)).filter(|p| p.exists()));
    }
    assert!(spots.len() >= 6, "{spots:?}");
    let over = std::sync::atomic::AtomicBool::new(false);
    let (swaps, runs, worked) = std::thread::scope(|scope| {
        let racer = scope.spawn(|| {
            let mut swaps = 0u32;
            for spot in spots.iter().cycle() {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let aside = spot.with_file_name("aside");
                let target = if spot.is_dir() { dir.clone() } else { dir.join(spot.file_name().unwrap()) };
                if std::fs::rename(spot, &aside).is_ok() {
                    swaps += u32::from(std::os::unix::fs::symlink(&target, spot).is_ok());
                    std::thread::sleep(Duration::from_micros(u64::from(swaps % 7) * 300));
                    // A run may have made something there meanwhile, and be at it.
                    while std::fs::rename(&aside, spot).is_err() {
                        let _ = std::fs::remove_file(spot).or_else(|_| std::fs::remove_dir_all(spot));
                    }
                }
            }
            swaps
        });
        let end = End(&over);
        let (start, mut runs, mut worked) = (std::time::Instant::now(), 0, 0);
        let flags: [&[&str]; 6] =
            [&[], &["--add-host", "a:192.0.2.1", "--dns", "192.0.2.1"], &["--read-only"], &["--layer", "l"], &["-w", "/vol/x/y"], &["-u", "bob"]];
        while start.elapsed() < Duration::from_secs(5) {
            let out = place.run(flags[runs % flags.len()], "localhost/raced", &[]);
            assert!(!out.stdout.contains("CANARY") && !out.stdout.contains("secret") && !out.stdout.lines().any(|l| l == "66"), "{out:?}");
            assert!(!out.stderr.contains("panicked"), "{out:?}");
            (runs, worked) = (runs + 1, worked + u32::from(out.code() == 0));
        }
        drop(end);
        (racer.join().unwrap(), runs, worked)
    });
    before.unchanged();
    assert!(swaps > 100 && runs >= 12 && worked > 0, "{swaps} swaps, {runs} runs, {worked} worked");
    place.run(&[], "localhost/raced", &[]).ok();
    place.sandbox(&["rm", "l"]).ok();
}

/// S15: 8 GiB that take no room, and pipes; an answer in 2 seconds, with 64 MiB of memory in all.
#[test]
fn cve_2024_9676_account_files_that_are_huge_or_never_end() {
    let place = place();
    let tiny = tiny(&place);
    place.dir("tree/etc");
    for name in ["passwd", "group"] {
        std::fs::File::create(place.path("tree/etc").join(name)).unwrap().set_len(8 << 30).unwrap();
    }
    let sparse = |name: &str| {
        let out = Command::new("tar").args(["--sparse", "--format=gnu", "-C", &place.at("tree"), "-c", name]).output().unwrap();
        assert!(out.status.success() && out.stdout.len() < 1 << 20, "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    for (name, layer, user) in [
        ("sparse-passwd", sparse("etc/passwd"), "bob"),
        ("sparse-group", sparse("etc/group"), "0:extra"),
        ("fifo-passwd", Layer::new().fifo("etc/passwd").end(), "bob"),
        ("fifo-group", Layer::new().fifo("etc/group").end(), "0:extra"),
    ] {
        let word = oci(&place, name, &[tiny.clone(), layer], json!({ "User": user, "Cmd": ["id"] }));
        place.sandbox(&["load", &word]).ok();
        let limited = |image: &str| {
            let script = format!("ulimit -v 65536; exec {} run {image}", program().display());
            finish(place.command("sh").args(["-c", &script]).spawn().unwrap(), b"")
        };
        let out = limited(&format!("localhost/{name}"));
        out.refused("there is no such");
        assert!(out.took < Duration::from_secs(2) * patience(), "{out:?}");
    }
    // The limit is not what refuses.
    let word = oci(&place, "fine", &[tiny], json!({ "User": "bob", "Cmd": ["id", "-u"] }));
    place.sandbox(&["load", &word]).ok();
    let out =
        finish(place.command("sh").args(["-c", &format!("ulimit -v 65536; exec {} run localhost/fine", program().display())]).spawn().unwrap(), b"");
    assert_eq!(out.ok(), "1000");
}

/// S15.
#[test]
fn cve_2024_9676_account_files_of_an_image() {
    let place = place();
    place.file("passwd", "bob:x:0:0::/:/bin/sh\n");
    let tiny = tiny(&place);
    let big = "x".repeat(2 << 20);
    let gone = Layer::new().whiteout("etc/.wh.passwd");
    let host = place.at("passwd");
    for (name, layer) in [
        ("fifo", Layer::new().fifo("etc/passwd")),
        ("zero", Layer::new().link("etc/passwd", "/dev/zero")),
        ("host", Layer::new().link("etc/passwd", &host)),
        ("loop", Layer::new().link("etc/passwd", "passwd")),
        ("big", Layer::new().file("etc/passwd", &big)),
        ("dir", Layer::new().dir("etc/passwd", 0o755, (0, 0))),
        ("gone", gone),
        ("opaque", Layer::new().whiteout("etc/.wh..wh..opq")),
    ] {
        let word = oci(&place, name, &[tiny.clone(), layer.end()], json!({ "User": "bob", "Cmd": ["id"] }));
        let out = place.run(&[], &word, &[]);
        out.refused("there is no such user");
        assert!(out.took < Duration::from_secs(10) * patience(), "{out:?}");
    }
    // The same file, one layer up, and through a link inside.
    let moved = Layer::new().file("usr/etc/passwd", "bob:x:11:12::/:/bin/sh\n").link("etc/passwd", "../usr/etc/passwd").end();
    let word = oci(&place, "moved", &[tiny, moved], json!({ "User": "bob", "Cmd": ["id", "-u"] }));
    assert_eq!(place.run(&[], &word, &[]).ok(), "11");
}

#[test]
fn whiteouts_opaque_directories_and_many_layers() {
    let place = place();
    let tiny = tiny(&place);
    let one = Layer::new().dir("d", 0o755, (0, 0)).file("d/low", "low").file("gone", "x").dir("o", 0o750, (1000, 2000)).file("o/low", "x").end();
    let two = Layer::new().file("d/high", "high").whiteout(".wh.gone").whiteout("o/.wh..wh..opq").file("o/high", "y").end();
    let word = oci(&place, "white", &[tiny.clone(), one, two], json!({ "Cmd": ["sh", "-c", "ls /d /o; ls /gone 2>/dev/null; stat -c %u:%g:%a /o"] }));
    assert_eq!(place.run(&[], &word, &[]).ok(), "/d:\nhigh\nlow\n\n/o:\nhigh\n1000:2000:750");

    // More than a list of short names, more than mount(2) takes by path.
    for count in [9, 10, 11, 130] {
        let mut layers = vec![tiny.clone()];
        layers.extend((1..count).map(|n| Layer::new().file(&format!("n/{n}"), "").file("last", &n.to_string()).end()));
        let word = oci(&place, &format!("many{count}"), &layers, json!({ "Cmd": ["sh", "-c", "ls /n | wc -l; cat /last; echo x > /n/1; cat /n/1"] }));
        let last = count - 1;
        assert_eq!(place.run(&[], &word, &[]).ok(), format!("{last}\n{last}x"), "{count}");
        if count == 130 {
            place.shell(&["--layer", "deep"], &word, "rm /n/5; test ! -e /n/5").ok();
            assert_eq!(place.sandbox(&["diff", "deep"]).ok(), "C /n\nD /n/5");
            place.sandbox(&["rm", "deep"]).ok();
        }
    }
}

#[test]
fn import_takes_tars_and_files_of_the_host() {
    let place = place();
    let tar = tiny(&place);
    std::fs::write(place.path("plain.tar"), &tar).unwrap();
    for (program, file) in [("gzip", "t.tar.gz"), ("zstd", "t.tar.zst")] {
        let Ok(mut child) = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else { continue };
        let (mut stdin, bytes) = (child.stdin.take().unwrap(), tar.clone());
        std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes).unwrap());
        std::fs::write(place.path(file), child.wait_with_output().unwrap().stdout).unwrap();
    }
    let wanted: Vec<String> = ["plain.tar", "t.tar.gz", "t.tar.zst"].iter().filter(|f| place.path(f).exists()).map(|f| place.at(f)).collect();
    for file in &wanted {
        place.sandbox(&["import", "-m", "from a tar", "-c", "ENTRYPOINT [\"id\"]", file, "localhost/tar"]).ok();
        assert_eq!(place.run(&[], "localhost/tar", &["-u"]).ok(), "0", "{file}");
    }
    let id = finish(place.cli(&["import", "-"]).stdin(Stdio::piped()).spawn().unwrap(), &tar).ok().to_string();
    assert_eq!(place.run(&[], &id, &["id", "-u"]).ok(), "0");
    let store = place.path(".local/share/sandbox/store");
    let images = || std::fs::read_dir(store.join("images")).unwrap().count();
    let had = images();
    std::fs::write(place.path("junk"), "x".repeat(5000)).unwrap();
    place.sandbox(&["import", &place.at("junk"), "localhost/junk"]).said("cannot ");
    place.sandbox(&["import", &place.at("none")]).refused("cannot open");
    place.sandbox(&["import"]).refused("say what").hinted();
    place.sandbox(&["import", "-c", "RUN x", &place.at("plain.tar")]).refused("bad --change");
    assert_eq!(images(), had);

    // Files of the host, at their own paths: of root inside, whoever's they are; links as links; nothing else.
    let tree = place.dir("tree/sub");
    place.file("tree/sub/file", "content");
    place.file("beside", "no");
    place.symlink("sub/file", "tree/link");
    let probe = place.probe();
    let top = tree.parent().unwrap().display().to_string();
    place.sandbox(&["import", "--from-host", &top, "--from-host", &probe, "-c", &format!("ENTRYPOINT [{probe:?}]"), "--", "localhost/host"]).ok();
    place.run(&["--keep", "--name", "seen", "--entrypoint", &probe], "localhost/host", &["true"]);
    let listed = place.sandbox(&["export", "-o", &place.at("host.tar"), "seen"]);
    if listed.code() == 0 {
        let list = String::from_utf8(Command::new("tar").args(["-tvf", &place.at("host.tar")]).output().unwrap().stdout).unwrap();
        let below = top.trim_start_matches('/');
        assert!(list.lines().any(|l| l.contains(&format!("{below}/sub/file")) && l.contains("0/0")), "{list}");
        assert!(list.contains(&format!("{below}/link -> sub/file")) && !list.contains("beside"), "{list}");
        place.sandbox(&["rm", "seen"]).ok();
    }
}

/// Without subordinate ids there is one id inside: images are unpacked for it, and all verbs work.
#[test]
fn one_id_is_enough_for_an_image_of_one() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let name = image(&place, "single", json!({ "Cmd": ["sh", "-c", "id -u"] }));
    let out = place.run(&[], &name, &[]);
    assert_eq!(out.ok(), "0");
    assert!(out.stderr.contains("no subuid range"), "{out:?}");
    place.run(&["--require", "subids"], &name, &[]).refused("subids");
    // Whose owners are nowhere kept is nobody else.
    place.run(&["-u", "1000", "--overlay-backend", "kernel"], &name, &[]).refused("cannot run as uid 1000").hinted();
    assert_eq!(place.run(&["-u", "1000"], &name, &[]).ok(), "1000");
    place.shell(&["--layer", "l"], &name, "echo x > /x; rm /bin/wc").ok();
    assert_eq!(place.sandbox(&["diff", "l"]).ok(), "C /bin\nD /bin/wc\nA /x");
    place.sandbox(&["commit", "l", "localhost/more"]).ok();
    assert_eq!(place.run(&[], "localhost/more", &["cat", "/x"]).ok(), "x");
    // Owners of files of other ids are kept beside them, and nobody is shut out.
    let layer = Layer::new().dir("srv", 0o700, (1000, 1000)).file("srv/f", "theirs").end();
    let word = oci(&place, "several", &[tiny(&place), layer], json!({ "Cmd": ["sh", "-c", "cat /srv/f; echo mine > /srv/g"] }));
    assert_eq!(place.run(&[], &word, &[]).ok(), "theirs");
}

/// A real distribution: packages, users, su; and what a set-uid program says.
#[test]
fn debian_as_its_root() {
    need!(root(), "needs root, to become another user");
    let Some(tar) = debian() else { return skip("needs mmdebstrap and a Debian mirror") };
    let place = place();
    place.sandbox(&["import", "-c", "CMD [\"bash\"]", &tar.display().to_string(), "localhost/debian"]).ok();
    let deb = "mkdir -p /p/DEBIAN /p/opt && echo hello > /p/opt/hello && printf 'Package: hello-sandbox\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' \
        > /p/DEBIAN/control && dpkg-deb -b /p /hello.deb >/dev/null";
    let script = format!(
        "set -e; {deb}; apt-get install -y /hello.deb >/dev/null 2>&1; cat /opt/hello; useradd -m ada; su ada -c 'id -un; cd; pwd'; chown -R ada:ada /opt/hello; stat -c %U /opt/hello"
    );
    let out = place.run(&["--layer", "deb"], "localhost/debian", &["bash", "-c", &script]);
    assert_eq!(out.ok(), "hello\nada\n/home/ada\nada");
    // The layer has it, and the new image too.
    place.sandbox(&["commit", "deb", "localhost/hello"]).ok();
    let out = place.run(
        &["-u", "ada"],
        "localhost/hello",
        &["bash", "-c", "cat /opt/hello; id -un; dpkg -s hello-sandbox | grep ^Status; touch /home/ada/x"],
    );
    assert_eq!(out.ok(), "hello\nada\nStatus: install ok installed");
    // No privilege is to be had by a set-uid bit, and the program says so itself.
    let out = place.run(&["-u", "ada"], "localhost/hello", &["sudo", "id"]);
    assert!(out.code() != 0 && out.stderr.contains("no new privileges"), "{out:?}");
    place.sandbox(&["rm", "deb"]).ok();
    place.sandbox(&["rmi", "localhost/hello", "localhost/debian"]).ok();
}

/// A minimal Debian, made once and kept in the user's cache.
pub fn debian() -> Option<std::path::PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache.or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let kept = cache.join("sandbox-it").join("debian-sudo.tar");
    if !kept.exists() {
        std::fs::create_dir_all(kept.parent()?).ok()?;
        let new = kept.with_extension(format!("{}.tar", std::process::id()));
        let made = Command::new("mmdebstrap").args(["--variant=apt", "--include=sudo,passwd", "bookworm"]).arg(&new).output().ok()?;
        if !made.status.success() {
            let _ = std::fs::remove_file(&new);
            return None;
        }
        std::fs::rename(new, &kept).ok()?;
    }
    // The user who runs the program cannot look into our cache.
    let shared = base().join("debian.tar");
    std::fs::copy(&kept, &shared).ok()?;
    mode(&shared, 0o644);
    Some(shared)
}
