//! The verbs, and what they leave on disk.

use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Stdio;

#[test]
fn an_image_comes_and_goes() {
    let place = place();
    place.sandbox(&["images"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
    assert_eq!(place.load(&busybox(&["bb:1", "localhost:5000/x/bb:2"])).ok(), "Loaded image: bb:1\nLoaded image: localhost:5000/x/bb:2");
    let list = place.sandbox(&["images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}"]);
    let id = list.ok().split(' ').next_back().unwrap().to_string();
    assert_eq!(list.ok(), format!("bb 1 {id}\nlocalhost:5000/x/bb 2 {id}"));
    assert_eq!(place.sandbox(&["image", "ls", "-q", "bb"]).ok(), id);
    let images = place.sandbox(&["images"]);
    assert!(images.ok().starts_with("REPOSITORY") && images.ok().lines().count() == 3, "{images:?}");
    let json: serde_json::Value = serde_json::from_str(place.sandbox(&["images", "--format", "json", "bb"]).ok()).unwrap();
    assert_eq!((&json["Repository"], &json["CreatedAt"]), (&"bb".into(), &"2026-01-02 03:04:05 +0000 UTC".into()));

    let inspected: serde_json::Value = serde_json::from_str(place.sandbox(&["inspect", &id]).ok()).unwrap();
    let image = &inspected[0];
    assert_eq!(image["Config"]["Env"][1], "A=1");
    assert_eq!(image["RepoTags"][1], "localhost:5000/x/bb:2");
    assert_eq!(
        place.sandbox(&["inspect", "-f", "{{.Config.Env}} {{index .RepoTags 0}} {{.Config.Entrypoint}}", "bb:1"]).ok(),
        "[PATH=/bin A=1] bb:1 "
    );
    assert_eq!(place.sandbox(&["history", "--format", "{{.CreatedBy}}", "bb:1"]).ok(), "layer 1\nlayer 0");
    assert!(place.sandbox(&["tree"]).ok().contains("bb:1, localhost:5000/x/bb:2"));
    assert!(place.sandbox(&["df"]).ok().contains("Layers   2       2"), "{:?}", place.sandbox(&["df"]));

    // Names.
    place.sandbox(&["tag", "bb:1", "other"]).ok();
    assert_eq!(place.sandbox(&["images", "-q", "other:latest"]).ok(), id);
    place.sandbox(&["untag", "other"]).ok();
    place.sandbox(&["untag", "other"]).refused("cannot find the name");
    place.sandbox(&["rmi", &id]).refused("several names").hinted();
    assert_eq!(place.sandbox(&["rmi", "bb:1"]).ok(), "Untagged: bb:1");
    let gone = place.sandbox(&["image", "rm", "localhost:5000/x/bb:2"]);
    assert!(gone.ok().contains(&format!("Deleted: sha256:{id}")), "{gone:?}");
    place.sandbox(&["rmi", "bb:1"]).refused("cannot find image 'bb:1'");
    place.sandbox(&["rmi", "-f", "bb:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn filters_and_prune() {
    let place = place();
    place.load(&docker_archive(&["old:1"], r#"{"Labels":{"a":"1"}}"#, &[])).ok();
    place.load(&docker_archive(&["q.io/x/new:1"], r#"{"Labels":{"b":"2"}}"#, &[layer(&[("x", 0o644, 0, b"x")])])).ok();
    place.load(&docker_archive(&[], "{}", &[])).ok();
    for (filter, names) in [
        ("reference=q.io/*/*", "q.io/x/new:1"),
        ("reference=old", "old:1"),
        ("label=a", "old:1"),
        ("label=a=1", "old:1"),
        ("label=a=2", ""),
        ("dangling=true", "<none>:<none>"),
        ("dangling=false", "old:1 q.io/x/new:1"),
        ("before=old:1", ""),
    ] {
        let mut found: Vec<String> =
            place.sandbox(&["images", "-f", filter, "--format", "{{.Repository}}:{{.Tag}}"]).ok().lines().map(str::to_string).collect();
        found.sort();
        assert_eq!(found.join(" "), names, "{filter}");
    }
    place.sandbox(&["images", "-f", "colour=red"]).refused("bad filter").hinted();
    place.sandbox(&["images", "--format", "{{.Colour}}"]).refused("no field 'Colour'").hinted();
    place.sandbox(&["prune"]).refused("no terminal").hinted();
    assert!(place.sandbox(&["prune", "--dry-run"]).ok().starts_with("Deleted: sha256:"));
    assert_eq!(place.sandbox(&["images", "-q"]).ok().lines().count(), 3);
    place.sandbox(&["prune", "-f"]).ok();
    assert_eq!(place.sandbox(&["images", "-q"]).ok().lines().count(), 2);
    place.sandbox(&["prune", "-af", "--filter", "label!=a"]).ok();
    assert_eq!(place.sandbox(&["images", "--format", "{{.Repository}}"]).ok(), "old");
    place.sandbox(&["prune", "-af", "--filter", "until=1999-01-01"]).ok();
    assert_eq!(place.sandbox(&["images", "-q"]).ok().lines().count(), 1);
    place.sandbox(&["prune", "-af"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

/// Path to mode, owner and content, of the layers laid over each other; ids as seen inside.
fn seen(dirs: &[PathBuf], inside: impl Fn(u32) -> u32) -> BTreeMap<String, String> {
    let mut tree = BTreeMap::new();
    for top in dirs {
        let mut todo = vec![top.clone()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap()) {
                let meta = entry.metadata().unwrap();
                let content = if meta.is_file() { digest(&std::fs::read(entry.path()).unwrap()) } else { String::new() };
                let name = entry.path().strip_prefix(top).unwrap().display().to_string();
                assert!(!meta.file_type().is_char_device(), "{name}");
                tree.insert(
                    name,
                    format!(
                        "{:o} {}:{} {} {content}",
                        meta.mode(),
                        inside(meta.uid()),
                        inside(meta.gid()),
                        if meta.is_dir() { 0 } else { meta.mtime() }
                    ),
                );
                if meta.is_dir() {
                    todo.push(entry.path());
                }
            }
        }
    }
    tree
}

#[test]
fn skopeo_and_umoci_see_the_same_tree() {
    need!(root(), "needs root, to become another user");
    need!(has("skopeo") && has("umoci"), "needs skopeo and umoci");
    let place = place();
    place.load(&busybox(&["bb:1"])).ok();
    place.sandbox(&["save", "-o", &place.at("d.tar"), "bb:1"]).ok();
    place.sandbox(&["save", "--format", "oci-archive", "-o", &place.at("o.tar"), "bb:1"]).ok();
    place.sandbox(&["save", "-o", &format!("oci:{}:v1", place.at("layout")), "bb:1"]).ok();
    place.sandbox(&["save", "-o", &format!("oci:{}:v2", place.at("layout")), "bb:1"]).ok();
    let ours: serde_json::Value = serde_json::from_str(place.sandbox(&["inspect", "bb:1"]).ok()).unwrap();
    let run = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        let child = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"").ok().to_string()
    };
    // It takes all three, and finds the same configuration in them.
    for source in
        [format!("docker-archive:{}", place.at("d.tar")), format!("oci-archive:{}:1", place.at("o.tar")), format!("oci:{}:v2", place.at("layout"))]
    {
        let config = run("skopeo", &["inspect", "--config", "--raw", &source]);
        assert_eq!(digest(config.as_bytes()), ours[0]["Id"], "{source}");
        let said: serde_json::Value = serde_json::from_str(&run("skopeo", &["inspect", &source])).unwrap();
        assert_eq!(said["Layers"], ours[0]["RootFS"]["Layers"], "{source}");
        if source.starts_with("oci") {
            assert_eq!(said["Digest"], ours[0]["Descriptor"]["digest"]);
        }
    }
    assert_eq!(run("umoci", &["ls", "--layout", &place.at("layout")]), "v1\nv2");
    run("umoci", &["unpack", "--image", &format!("{}:v1", place.at("layout")), &place.at("bundle")]);
    let first = subuids(&place.account).unwrap().0;
    let own = place.account.uid;
    // Where the kernel has them and what they are inside.
    let inside = |id: u32| if id == own { 0 } else { 1 + id - first };
    let layers: Vec<PathBuf> = {
        let mut dirs: Vec<PathBuf> = std::fs::read_dir(place.store().join("layers")).unwrap().map(|e| e.unwrap().path().join("diff")).collect();
        dirs.sort_by_key(|d| !d.join("bin").exists());
        dirs
    };
    assert_eq!(seen(&layers, inside), seen(&[place.path("bundle/rootfs")], |id| id));
    // And back, by skopeo's own archive, compressed in both ways.
    run("skopeo", &["copy", &format!("oci:{}:v1", place.at("layout")), &format!("docker-archive:{}:again:1", place.at("s.tar"))]);
    let again = std::fs::read(place.path("s.tar")).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zipped, &again).unwrap();
    for archive in [again.clone(), zipped.finish().unwrap(), zstd::encode_all(again.as_slice(), 1).unwrap()] {
        assert_eq!(place.load(&archive).ok(), "Loaded image: again:1");
        assert_eq!(place.sandbox(&["inspect", "-f", "{{.Id}}", "again:1"]).ok(), ours[0]["Id"]);
    }
    // Layers that are compressed: other blobs, the same image.
    run(
        "skopeo",
        &[
            "copy",
            "--dest-compress",
            "--dest-compress-format",
            "zstd",
            &format!("oci:{}:v1", place.at("layout")),
            &format!("oci:{}:z", place.at("packed")),
        ],
    );
    place.own_all("packed");
    assert_eq!(place.sandbox(&["load", &format!("oci:{}:z", place.at("packed"))]).ok(), "Loaded image: localhost/z:latest");
    assert_eq!(
        place.sandbox(&["inspect", "-f", "{{.RootFS.Layers}}", "localhost/z"]).ok(),
        place.sandbox(&["inspect", "-f", "{{.RootFS.Layers}}", "bb:1"]).ok()
    );
    place.sandbox(&["prune", "-af"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn saving_is_reproducible() {
    let (here, there) = (place(), place());
    let archive = busybox(&["bb:1", "bb:2"]);
    for format in ["docker-archive", "oci-archive"] {
        let saved = |place: &Place, name: &str| {
            place.load(&archive).ok();
            place.sandbox(&["save", "--format", format, "-o", &place.at(name), "bb:1", "bb:2"]).ok();
            std::fs::read(place.path(name)).unwrap()
        };
        let first = saved(&here, "a.tar");
        assert!(first == saved(&there, "a.tar") && first == saved(&here, "b.tar"), "{format}");
        // What it saves it loads, under the same names.
        here.sandbox(&["rmi", "-f", here.sandbox(&["images", "-q", "bb:1"]).ok()]).ok();
        assert_eq!(here.load(&first).ok(), "Loaded image: bb:1\nLoaded image: bb:2");
        assert!(saved(&here, "c.tar") == first);
    }
    for place in [&here, &there] {
        place.sandbox(&["prune", "-af"]).ok();
    }
}

#[test]
fn thirty_loads_at_once() {
    let place = place();
    let path = place.archive("bb.tar", &busybox(&["bb:1"]));
    let children: Vec<_> = (0..30).map(|_| place.cli(&["load", "-i", &path]).spawn().unwrap()).collect();
    for child in children {
        assert_eq!(finish(child, b"").ok(), "Loaded image: bb:1");
    }
    let stored = place.stored();
    assert_eq!(stored.iter().filter(|f| f.ends_with("about.json")).count(), 2, "{stored:#?}");
    assert!(!stored.iter().any(|f| f.starts_with("tmp/")), "{stored:#?}");
    // Removing and loading at once: each does what it says, and what is there is whole.
    let mut children = Vec::new();
    for n in 0..20 {
        let mut command = if n % 2 == 0 { place.cli(&["load", "-i", &path]) } else { place.cli(&["rmi", "-f", "bb:1"]) };
        children.push((n, command.spawn().unwrap()));
    }
    for (n, child) in children {
        let output = finish(child, b"");
        // A load that was overtaken by a removal is told so; a removal has nothing to complain about.
        assert!(output.code() == 0 || (n % 2 == 0 && output.stderr.contains("somebody removed it")), "{n}: {output:?}");
    }
    place.load(&busybox(&["bb:1"])).ok();
    place.sandbox(&["rmi", "bb:1"]).ok();
    place.sandbox(&["gc"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn an_image_in_use_stays() {
    let place = place();
    place.load(&busybox(&["bb:1"])).ok();
    let record = std::fs::read_dir(place.store().join("images")).unwrap().next().unwrap().unwrap().path();
    // As a run does: a shared lock on the record.
    let holder = place.start(
        {
            let mut command = place.command("/usr/bin/flock");
            command.arg("-s").arg(&record).args(["-c", "echo held; sleep 20"]);
            command
        },
        "held",
    );
    place.sandbox(&["rmi", "bb:1"]).refused("a sandbox uses it").hinted();
    place.sandbox(&["rmi", "-f", "bb:1"]).refused("a sandbox uses it");
    place.sandbox(&["prune", "-af"]).ok();
    assert_eq!(place.sandbox(&["images", "-q"]).ok().lines().count(), 1);
    assert!(place.sandbox(&["df"]).ok().lines().nth(1).unwrap().starts_with("Images   1       1 "));
    crate::run::kill(holder.id(), 9);
    let mut holder = holder;
    holder.wait().unwrap();
    for (pid, _) in place.processes() {
        crate::run::kill(pid, 9);
    }
    place.sandbox(&["rmi", "bb:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn a_layer_that_is_not_what_it_should_be() {
    let place = place();
    let good = busybox(&["bb:1"]);
    // A byte of the first layer: its digest is another one.
    let at = good.windows(5).position(|w| w == b"mine\n").unwrap();
    let mut bad = good.clone();
    bad[at] ^= 1;
    let refused = place.load(&bad);
    refused.refused("digest");
    place.sandbox(&["images"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new(), "disk returned");
    // Cut anywhere; and each says so in one line.
    for part in 1..16 {
        place.load(&good[..good.len() * part / 16]).refused("cannot");
    }
    for junk in [&b""[..], b"junk", &[0; 10240], &noise(1, 100_000), b"{}"] {
        place.load(junk).refused("cannot");
    }
    place.sandbox(&["load", "-i", "/dev/null"]).refused("cannot");
    place.sandbox(&["load", "-i", &place.at("gone")]).refused("no such file");
    place.sandbox(&["load", "oci:/"]).refused("it has no 'oci-layout'");
    place.sandbox(&["images"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn cve_2026_53488_labels_are_text() {
    let place = place();
    let labels = r#"{"Labels":{"io.podman.annotations.privileged":"TRUE","run.oci.handler":"x","--privileged":"1","a\r\nb":"@/etc/passwd","esc":"\u001b[2J\u009b\u202e"}}"#;
    let image = docker_archive(&["l:1"], labels, &[]);
    place.load(&image).ok();
    for args in [
        &["images"][..],
        &["inspect", "l:1"],
        &["inspect", "-f", "{{.Config.Labels}}", "l:1"],
        &["inspect", "-f", "json", "l:1"],
        &["history", "l:1"],
        &["tree"],
    ] {
        let shown = place.sandbox(args);
        assert!(!shown.ok().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\r']), "{args:?}: {shown:?}");
    }
    let _: serde_json::Value = serde_json::from_str(place.sandbox(&["inspect", "l:1"]).ok()).unwrap();
    place.sandbox(&["rmi", "l:1"]).ok();
}

#[test]
fn cve_2021_41091_nobody_else_sees_a_store() {
    let place = place();
    let mut command = place.command("/bin/sh");
    command.args(["-c", "umask 000; exec \"$0\" images", program().to_str().unwrap()]);
    finish(command.spawn().unwrap(), b"").ok();
    place.load(&busybox(&["bb:1"])).ok();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o7777;
    assert_eq!((mode(&place.store()), mode(place.store().parent().unwrap())), (0o700, 0o700));
    if let Some(mallory) = accounts().mallory.clone() {
        let mut find = std::process::Command::new("find");
        std::os::unix::process::CommandExt::uid(&mut find, mallory.uid);
        let found = find.arg(place.store()).stdin(Stdio::null()).output().unwrap();
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(found.lines().count() <= 1, "{found}");
    }
    place.sandbox(&["rmi", "bb:1"]).ok();
}

#[test]
fn cve_2019_12439_a_planted_store_is_refused() {
    let place = place();
    place.dir("elsewhere");
    place.dir(".local/share/sandbox");
    place.symlink(place.path("elsewhere"), ".local/share/sandbox/store");
    place.sandbox(&["images"]).refused("cannot trust").hinted();
    assert_eq!(std::fs::read_dir(place.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn stores_of_others_are_read() {
    let (owner, user) = (place(), &mut place());
    owner.load(&busybox(&["bb:1"])).ok();
    // Read-only, and nobody's of the users.
    let shared = user.at("shared");
    let copied = std::process::Command::new("cp").args(["-r", owner.store().to_str().unwrap(), &shared]).output().unwrap();
    assert!(root() || copied.status.success());
    std::fs::remove_dir_all(user.path("shared/layers")).unwrap();
    std::process::Command::new("chmod").args(["-R", "a+rX,go-w", &shared]).status().unwrap();
    let before = user.snapshot("shared");
    user.env.insert("SANDBOX_STORES".into(), format!("/nonexistent:{shared}:relative"));
    assert_eq!(user.sandbox(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Shared}}"]).ok(), "bb:1 true");
    assert_eq!(user.sandbox(&["inspect", "-f", "{{.Store}}", "bb:1"]).ok(), shared);
    user.sandbox(&["rmi", "bb:1"]).refused("a shared store").hinted();
    user.sandbox(&["prune", "-af"]).ok();
    // A name of one's own for it, which hides the shared one.
    user.sandbox(&["tag", "bb:1", "mine"]).ok();
    assert_eq!(user.sandbox(&["inspect", "-f", "{{.RepoTags}}", "mine"]).ok(), "[bb:1 mine:latest]");
    user.sandbox(&["save", "-o", &user.at("s.tar"), "mine"]).ok();
    user.sandbox(&["untag", "mine"]).ok();
    user.load(&docker_archive(&["bb:1"], "{}", &[])).ok();
    assert_eq!(user.sandbox(&["images", "--format", "{{.Repository}}:{{.Tag}} {{.Shared}}", "bb"]).ok(), "bb:1 false");
    user.sandbox(&["rmi", "bb:1"]).ok();
    assert_eq!(user.sandbox(&["images", "-q"]).ok().lines().count(), 1);
    assert_eq!(user.stored(), Vec::<String>::new());
    before.unchanged();
    // What cannot be read is not there, and in nobody's way.
    for part in ["names", "images", "blobs/sha256", "."] {
        let path = user.path("shared").join(part);
        let was = std::fs::metadata(&path).unwrap().mode();
        mode(&path, 0);
        assert_eq!(user.sandbox(&["images", "-q"]).ok(), "", "{part}");
        mode(&path, was & 0o7777);
    }
    assert_eq!(user.sandbox(&["images", "-q"]).ok().lines().count(), 1);
    // In another format it is not there.
    std::fs::write(user.path("shared/format"), "2\n").unwrap();
    assert_eq!(user.sandbox(&["images", "-q"]).ok(), "");
    owner.sandbox(&["rmi", "bb:1"]).ok();
}

/// The memory of all processes of a load: ours, and of each helper. Issue 4: below 128 MiB.
#[test]
fn a_large_image_needs_little_memory() {
    let place = place();
    let content = noise(5, 16 << 20);
    // Six layers of 20 MB and more: many small files, and large ones.
    let layers: Vec<Vec<u8>> = (0..6)
        .map(|n| {
            let names: Vec<String> = (0..2000).map(|f| format!("small{n}/{f}")).collect();
            let mut items: Vec<Item> = vec![("large", 0o644, n, &content)];
            items.extend(names.iter().enumerate().map(|(f, name)| (name.as_str(), 0o644, n, &content[f * 64..f * 64 + 2048])));
            layer(&items)
        })
        .collect();
    assert!(layers.iter().map(Vec::len).sum::<usize>() > 120 << 20);
    let archive = place.archive("large.tar", &docker_archive(&["large:1"], "{}", &layers));
    let mut child = place.cli(&["load", "-i", &archive]).spawn().unwrap();
    let parent = child.id();
    let mut peaks: BTreeMap<u32, u64> = BTreeMap::new();
    while child.try_wait().unwrap().is_none() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.trim().trim_end_matches(" kB").parse::<u64>().ok());
            // Helpers are our children, or those of the process that made their namespace.
            let related = pid == parent || field("PPid:").is_some_and(|p| peaks.contains_key(&(p as u32)));
            if related && let Some(peak) = field("VmHWM:") {
                let known = peaks.entry(pid).or_default();
                *known = peak.max(*known);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    finish(child, b"").ok();
    assert!(peaks.len() >= 3, "no helpers were seen: {peaks:?}");
    assert!(peaks.values().all(|kib| (1..128 << 10).contains(kib)), "KiB: {peaks:?}");
    assert!(peaks[&parent] < 64 << 10, "KiB: {peaks:?}");
    assert_eq!(place.sandbox(&["images", "-q"]).ok().lines().count(), 1);
    place.sandbox(&["rmi", "large:1"]).ok();
}

/// `sandbox image VERB` is the very command.
#[test]
fn verbs_of_image_are_commands() {
    let place = place();
    for verb in ["history", "import", "inspect", "load", "prune", "pull", "push", "save", "tag", "untag", "tree", "diff", "search"] {
        let (one, other) = (place.sandbox(&[verb, "--help"]), place.sandbox(&["image", verb, "--help"]));
        assert_eq!(one.ok(), other.ok().replace(&format!("sandbox image {verb}"), &format!("sandbox {verb}")), "{verb}");
    }
    let file = place.archive("tree.tar", &layer(&[("a", 0o644, 0, b"x")]));
    place.sandbox(&["image", "import", &file, "a:1"]).ok();
    assert_eq!(place.sandbox(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), "a:1");
    place.sandbox(&["image", "pull", "127.0.0.1:1/a:1"]).refused("cannot ");
    place.sandbox(&["image", "push", "127.0.0.1:1/none:1"]).refused("cannot ");
    place.sandbox(&["image", "rm", "a:1"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}
