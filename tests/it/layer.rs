//! Layers: a tar becomes a directory and the other way round, in the helper, as the kernel's overlay and other tools see it.

use crate::support::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tar::{Builder, EntryType, Header};

/// A tar of entries: path, type, content or link, uid.
fn layer(entries: &[(&str, EntryType, &str, u64)]) -> Vec<u8> {
    let mut b = Builder::new(Vec::new());
    for (path, kind, content, uid) in entries {
        let mut h = Header::new_ustar();
        h.set_entry_type(*kind);
        h.set_mode(if *kind == EntryType::Directory { 0o755 } else { 0o644 });
        h.set_uid(*uid);
        h.set_gid(*uid);
        h.set_mtime(1_700_000_000);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            h.set_size(0);
            b.append_link(&mut h, path, content).unwrap();
        } else {
            h.set_size(content.len() as u64);
            b.append_data(&mut h, path, content.as_bytes()).unwrap();
        }
    }
    b.into_inner().unwrap()
}

fn file<'a>(path: &'a str, content: &'a str) -> (&'a str, EntryType, &'a str, u64) {
    (path, EntryType::Regular, content, 0)
}

#[track_caller]
fn unpack(place: &Place, name: &str, bytes: &[u8], flags: &[&str]) -> Output {
    let dir = place.at(name);
    let mut command = place.cli(&[&["layer", "unpack", dir.as_str()], flags].concat());
    finish(command.stdin(Stdio::piped()).spawn().expect("start"), bytes)
}

fn remove(place: &Place, names: &[&str]) {
    let dirs: Vec<String> = names.iter().map(|n| place.at(n)).collect();
    let words: Vec<&str> = ["layer", "remove"].into_iter().chain(dirs.iter().map(|d| d.as_str())).collect();
    place.sandbox(&words).ok();
    for dir in dirs {
        assert!(!Path::new(&dir).exists(), "{dir} is still there");
    }
}

/// A script as root of a user namespace with the same ids as the helper's, and its own mounts.
#[track_caller]
fn in_namespace(place: &Place, script: &str) -> String {
    let mut command = place.command("unshare");
    command.args(["--user", "--map-root-user", "--map-auto", "--mount", "--", "/bin/sh", "-euc", script]);
    finish(command.spawn().expect("unshare"), b"").ok().to_string()
}

fn overlay(layers: &[&str]) -> String {
    let (upper, lowers) = layers.split_last().unwrap();
    let lowers: Vec<&str> = lowers.iter().rev().copied().collect();
    format!("mkdir -p work merged; mount -t overlay -o userxattr,lowerdir={},upperdir={upper},workdir=work overlay merged", lowers.join(":"))
}

const LIST: &str = "cd merged; find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec sha256sum {} + | sort -k 2";

#[test]
fn whiteouts_mean_to_the_kernel_what_the_tar_says() {
    let place = place();
    let lower = layer(&[
        file("etc/keep", "1"),
        file("etc/gone", "1"),
        file("both/old", "1"),
        file("opaque/old", "1"),
        file("opaque/sub/old", "1"),
        file("again/old", "1"),
        file("whole/a/b", "1"),
    ]);
    let upper = layer(&[
        file("etc/.wh.gone", ""),
        file("both/new", "2"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/new", "2"),
        file(".wh.again", ""),
        file("again/new", "2"),
        file(".wh.whole", ""),
    ]);
    unpack(&place, "lower", &lower, &[]).ok();
    unpack(&place, "upper", &upper, &["--parent", &place.at("lower")]).ok();
    let list = in_namespace(&place, &format!("{}; cd merged; find . -type f | sort", overlay(&["lower", "upper"])));
    assert_eq!(list, "./again/new\n./both/new\n./both/old\n./etc/keep\n./opaque/new");
    remove(&place, &["lower", "upper"]);
}

#[test]
fn what_an_overlay_changed_becomes_the_same_tree_again() {
    let place = place();
    let lower = layer(&[
        file("etc/passwd", "root"),
        file("etc/shadow", "x"),
        ("home/u", EntryType::Directory, "", 1000),
        ("home/u/f", EntryType::Regular, "f", 1000),
        file("old/a", "1"),
        file("old/b", "1"),
        file("swap", "1"),
    ]);
    unpack(&place, "lower", &lower, &[]).ok();
    in_namespace(&place, "mkdir upper");
    let script = "cd merged; rm etc/shadow; echo more >> etc/passwd; rm -r old; mkdir old; echo 3 > old/b; ln old/b old/c; rm swap; mkdir -p swap/deep; \
        chown 33:44 swap; chmod 2750 swap; ln -s ../etc swap/deep/l; mkfifo swap/p; truncate -s 100000 swap/hole; touch -d '2001-02-03 04:05:06.789012345' swap/hole; \
        mkdir new; touch new/.hidden; rm -r home/u; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"new/s\")' || true; rm -f new/s; \
        n=$(printf %0150d 7); mkdir $n; echo long > $n/$n; touch 'ümlaut'; ln -s $n$n longlink; cd ..;";
    let merged = in_namespace(&place, &format!("{}; {script} {LIST}", overlay(&["lower", "upper"])));
    let (lower_at, upper_at) = (place.at("lower"), place.at("upper"));
    let changes = place.sandbox(&["layer", "changes", &upper_at, &lower_at]);
    let long = format!("{:0150}", 7);
    let wanted = [
        format!("A /{long}"),
        format!("A /{long}/{long}"),
        "C /etc".into(),
        "C /etc/passwd".into(),
        "D /etc/shadow".into(),
        "C /home".into(),
        "D /home/u".into(),
        "A /longlink".into(),
        "A /new".into(),
        "A /new/.hidden".into(),
        "C /old".into(),
        "D /old/a".into(),
        "C /old/b".into(),
        "A /old/c".into(),
        "C /swap".into(),
        "A /swap/deep".into(),
        "A /swap/deep/l".into(),
        "A /swap/hole".into(),
        "A /swap/p".into(),
        "A /ümlaut".into(),
    ];
    assert_eq!(changes.ok().lines().collect::<Vec<_>>(), wanted);
    // Twice the same bytes, which GNU tar reads too.
    let pack = |to: &str| {
        let file = std::fs::File::create(base().join(to)).unwrap();
        let mut command = place.cli(&["layer", "pack", &upper_at, &lower_at]);
        finish(command.stdout(file).spawn().expect("start"), b"").ok();
        std::fs::read(base().join(to)).unwrap()
    };
    let names = (format!("{}-1.tar", place.home.file_name().unwrap().display()), format!("{}-2.tar", place.home.file_name().unwrap().display()));
    let packed = pack(&names.0);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(packed, pack(&names.1));
    let listed = Command::new("tar").arg("-tf").arg(base().join(&names.0)).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().any(|l| l == "etc/.wh.shadow") && listed.lines().any(|l| l == "old/.wh..wh..opq"), "{listed}");
    // New directories have no mark: there is nothing below that it could hide.
    assert_eq!(listed.lines().filter(|l| l.ends_with(".wh..wh..opq")).count(), 1, "{listed}");
    assert!(!String::from_utf8_lossy(&packed).contains("user.overlay"));
    unpack(&place, "again", &packed, &["--parent", &lower_at]).ok();
    let again = in_namespace(&place, &format!("{}; {LIST}", overlay(&["lower", "again"])));
    assert_eq!(again, merged);
    assert_eq!(in_namespace(&place, "stat -c %y again/swap/hole"), "2001-02-03 04:05:06.789012345 +0000");
    remove(&place, &["lower", "upper", "again", "work"]);
}

#[test]
fn owners_are_the_subordinate_ids_and_others_are_refused() {
    let place = place();
    let Some((start, count)) = subuids(&place.account) else { return skip("needs subordinate ids") };
    let bytes = layer(&[
        ("a", EntryType::Regular, "1", 0),
        ("b", EntryType::Regular, "1", 1),
        ("c", EntryType::Regular, "1", 1000),
        ("l", EntryType::Symlink, "a", 1000),
    ]);
    unpack(&place, "d", &bytes, &[]).ok();
    let uid = |name: &str| place.path("d").join(name).symlink_metadata().unwrap().uid();
    assert_eq!([uid("a"), uid("b"), uid("c"), uid("l")], [place.account.uid, start, start + 999, start + 999]);
    let beyond = u64::from(count) + 1;
    let bytes = layer(&[("f", EntryType::Regular, "1", beyond)]);
    unpack(&place, "e", &bytes, &[]).refused(&format!("the uid {beyond}")).hinted();
    unpack(&place, "g", &bytes, &["--squash-ids"]).ok();
    assert_eq!(place.path("g/f").metadata().unwrap().uid(), place.account.uid);
    remove(&place, &["d", "e", "g"]);
    place.nothing_left();
}

#[test]
fn without_subordinate_ids_there_is_one_id() {
    let Some(plain) = accounts().plain.clone() else { return skip("needs root, to become another user") };
    let place = Place::of(plain);
    let bytes = layer(&[("d/a", EntryType::Regular, "1", 0), file("d/.wh.x", "")]);
    unpack(&place, "d", &bytes, &[]).ok();
    assert_eq!(place.path("d/d/a").metadata().unwrap().uid(), place.account.uid);
    // Whose it is meant to be is beside it.
    unpack(&place, "e", &layer(&[("a", EntryType::Regular, "1", 1)]), &[]).ok();
    let file = place.path("e/a");
    assert_eq!(file.metadata().unwrap().uid(), place.account.uid);
    let mut owner = [0u8; 64];
    let length = rustix::fs::lgetxattr(&file, "user.containers.override_stat", &mut owner).unwrap();
    assert!(owner[..length].starts_with(b"1:"), "{}", String::from_utf8_lossy(&owner[..length]));
    remove(&place, &["d", "e"]);
}

#[test]
fn what_the_layer_does_not_name_is_as_below() {
    let place = place();
    let mut b = Builder::new(Vec::new());
    let mut dir = |path: &str, mode: u32, uid: u64| {
        let mut h = Header::new_ustar();
        h.set_entry_type(EntryType::Directory);
        h.set_mode(mode);
        h.set_uid(uid);
        h.set_gid(7);
        h.set_size(0);
        h.set_mtime(1_600_000_000);
        b.append_data(&mut h, path, &b""[..]).unwrap();
    };
    dir("./", 0o711, 0);
    dir("tmp/", 0o1777, 5);
    dir("hidden/", 0o700, 5);
    dir("hidden/sub/", 0o700, 5);
    let lower = b.into_inner().unwrap();
    let hide = layer(&[file(".wh.hidden", "")]);
    let upper = layer(&[file("tmp/f", "1"), file("hidden/sub/f", "1"), file("fresh/f", "1")]);
    let (one, two) = (place.at("one"), place.at("two"));
    unpack(&place, "one", &lower, &[]).ok();
    unpack(&place, "two", &hide, &["--parent", &one]).ok();
    let said = unpack(&place, "three", &upper, &["--parent", &one, "--parent", &two]);
    assert_eq!(said.ok().lines().filter(|l| l.starts_with("implicit")).count(), 5, "{said:?}");
    let list = in_namespace(&place, "cd three; stat -c '%n %a %u:%g %Y' . tmp hidden hidden/sub fresh");
    let wanted = ". 711 0:7 1600000000\ntmp 1777 5:7 1600000000\nhidden 755 0:0 0\nhidden/sub 755 0:0 0\nfresh 755 0:0 0";
    assert_eq!(list, wanted);
    remove(&place, &["one", "two", "three"]);
}

#[test]
fn everything_can_be_removed() {
    let place = place();
    in_namespace(
        &place,
        "mkdir -p d/closed/in d/a; echo 1 > d/closed/in/f; chmod 0 d/closed/in/f d/closed/in d/closed; chown -R 1000:1000 d/closed; chmod 1777 d/a; \
         ln -s /etc d/etc; mknod d/w c 0 0; mkfifo d/p; chown -h 5 d/etc d; cd d/a; \
         perl -e 'for (1..600) { mkdir \"deepdeepdeep\"; chdir \"deepdeepdeep\" or die }'",
    );
    place.dir("empty");
    let mut many = Vec::new();
    for n in 0..5000 {
        many.push(format!("many/{n}/x"));
    }
    let entries: Vec<_> = many.iter().map(|p| file(p, "")).collect();
    unpack(&place, "many", &layer(&entries), &[]).ok();
    let etc = Snapshot::of(Path::new("/etc/default"));
    remove(&place, &["d", "empty", "many", "never-was"]);
    etc.unchanged();
    place.nothing_left();
}

#[test]
fn removing_works_on_a_full_disk_and_unpacking_says_why_not() {
    need!(root(), "needs root, to become another user");
    let place = place();
    let disk = place.dir("disk");
    let mount = |args: &[&str]| assert!(Command::new("mount").args(args).arg(&disk).status().unwrap().success());
    mount(&["-t", "tmpfs", "-o", "size=16m,mode=1777", "tmpfs"]);
    let small = layer(&[file("d/a", "1"), ("d/b", EntryType::Regular, "1", 1000)]);
    let fits = unpack(&place, "disk/small", &small, &[]);
    let big = "x".repeat(20 << 20);
    let large = unpack(&place, "disk/large", &layer(&[file("a", &big)]), &[]);
    let filled = finish(place.command("sh").args(["-c", "dd if=/dev/zero of=disk/fill bs=64k 2>/dev/null; true"]).spawn().unwrap(), b"");
    let full = unpack(&place, "disk/full", &small, &[]);
    let removed = place.sandbox(&["layer", "remove", &place.at("disk/small"), &place.at("disk/large")]);
    let left = disk.join("small").exists() || disk.join("large").exists();
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    fits.ok();
    filled.ok();
    large.refused("no room").hinted();
    assert_ne!(full.code(), 0);
    removed.ok();
    assert!(!left);
}

#[test]
fn cve_2017_14992_a_bomb_is_refused_in_bounded_memory() {
    let place = place();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut h = Header::new_ustar();
    h.set_path("zeroes").unwrap();
    h.set_size(8 << 30);
    h.set_mode(0o644);
    h.set_cksum();
    gz.write_all(h.as_bytes()).unwrap();
    let zeroes = vec![0; 1 << 20];
    for _ in 0..256 {
        gz.write_all(&zeroes).unwrap();
    }
    let (said, peak) = watched(&place, "d", &gz.finish().unwrap());
    said.refused("200 times");
    assert!(peak < 128 << 10, "{peak} KiB");
    // Long names, so that few are enough.
    let deep = vec!["x".repeat(200); 18].join("/");
    let dirs: Vec<(String, EntryType, &str, u64)> = (0..20_000).map(|n| (format!("{deep}/{n}"), EntryType::Directory, "", 0)).collect();
    let dirs: Vec<_> = dirs.iter().map(|(p, k, c, u)| (p.as_str(), *k, *c, *u)).collect();
    let (said, peak) = watched(&place, "e", &layer(&dirs));
    said.refused("too many directories");
    assert!((1..128 << 10).contains(&peak), "{peak} KiB");
    // The largest window of zstd, all of it used.
    let noise: Vec<u8> = crate::image::noise(3, 2 << 20);
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(27).unwrap();
    zstd.include_contentsize(false).unwrap();
    h.set_size(160 << 20);
    h.set_cksum();
    zstd.write_all(h.as_bytes()).unwrap();
    (0..80).for_each(|_| zstd.write_all(&noise).unwrap());
    zstd.write_all(&[0; 1024]).unwrap();
    let (said, peak) = watched(&place, "f", &zstd.finish().unwrap());
    said.ok();
    assert!((128 << 10..192 << 10).contains(&peak), "{peak} KiB");
    remove(&place, &["d", "e", "f"]);
    place.nothing_left();
}

/// Unpack, and say what the helper's memory was at most, in KiB.
fn watched(place: &Place, name: &str, bytes: &[u8]) -> (Output, u64) {
    let mut command = place.cli(&["layer", "unpack", &place.at(name)]);
    let child = command.stdin(Stdio::piped()).spawn().expect("start");
    let parent = child.id();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let status = helper(parent).and_then(|h| std::fs::read_to_string(h.join("status")).ok()).unwrap_or_default();
                let now = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
                peak = peak.max(now.unwrap_or(0));
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        let said = finish(child, bytes);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        (said, watcher.join().unwrap())
    })
}

/// The unpacking helper of this process.
fn helper(parent: u32) -> Option<std::path::PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    processes.into_iter().find(|path| {
        std::fs::read_to_string(path.join("status")).is_ok_and(|s| s.contains(&format!("\nPPid:\t{parent}\n")))
            && std::fs::read(path.join("cmdline")).is_ok_and(|c| c == b"sandbox\0@unpack\0")
    })
}

#[test]
fn the_helper_is_confined_and_dies_with_its_parent() {
    let place = place();
    let mut command = place.cli(&["layer", "unpack", &place.at("d")]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("start");
    let mut seen = None;
    assert!(within(Duration::from_secs(10), || {
        seen = helper(child.id());
        seen.is_some()
    }));
    let helper = seen.unwrap();
    assert!(within(Duration::from_secs(5), || std::fs::read_to_string(helper.join("status")).is_ok_and(|s| s.contains("Threads:\t3"))));
    let status = std::fs::read_to_string(helper.join("status")).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_string();
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    assert_eq!((field("CapEff:"), field("CapBnd:")), ("000000008000001f".into(), "000000008000001f".into()));
    if root() {
        let mut fds: Vec<u32> =
            std::fs::read_dir(helper.join("fd")).unwrap().map(|e| e.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        fds.sort_unstable();
        assert!(fds.iter().all(|n| *n < 8), "{fds:?}");
        let target = |n: u32| std::fs::read_link(helper.join(format!("fd/{n}"))).unwrap().display().to_string();
        assert!((0..3).all(|n| target(n).starts_with("pipe:")), "{:?}", [target(0), target(1), target(2)]);
        for n in fds.into_iter().filter(|n| *n > 2) {
            assert!(target(n).starts_with(&place.at("d")), "{n} is {}", target(n));
        }
        for ns in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let of = |process: &Path| std::fs::read_link(process.join("ns").join(ns)).unwrap();
            assert_ne!(of(&helper), of(Path::new("/proc/self")), "{ns}");
        }
        assert_eq!(std::fs::read(helper.join("environ")).unwrap(), b"");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(within(Duration::from_secs(5), || !helper.exists()));
    remove(&place, &["d"]);
    place.nothing_left();
}

/// More than the numbers that our own descriptors have, which the helper's must not overwrite.
#[test]
fn a_helper_can_have_hundreds_of_directories() {
    let place = place();
    let mut words = vec!["layer".to_string(), "changes".into(), place.dir("upper").display().to_string()];
    place.file("upper/d/f", "");
    place.file("upper/e/f", "");
    for n in 0..470 {
        place.dir(&format!("{n}/d"));
        words.push(place.at(&n.to_string()));
    }
    assert_eq!(place.sandbox(&words).ok(), "C /d\nA /d/f\nA /e\nA /e/f");
    words.extend(words[3..].to_vec());
    place.sandbox(&words).refused("layers");
}

#[test]
fn a_helpers_word_typed_by_hand_does_nothing() {
    let place = place();
    for word in ["@unpack", "@remove", "@pack", "@adopt", "@changes"] {
        assert_ne!(place.sandbox(&[word]).code(), 0);
    }
}

#[test]
fn capabilities_and_attributes_come_along_and_go_back() {
    let place = place();
    let capability = [1u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]; // cap_net_bind_service=ep; man: capabilities(7)
    let mut b = Builder::new(Vec::new());
    let attributes: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.mine", b"1"),
    ];
    b.append_pax_extensions(attributes).unwrap();
    let mut h = Header::new_ustar();
    h.set_mode(0o755);
    h.set_size(1);
    b.append_data(&mut h, "f", &b"x"[..]).unwrap();
    unpack(&place, "d", &b.into_inner().unwrap(), &[]).ok();
    let show = "import os; print([(n, os.getxattr('f', n).hex()) for n in sorted(os.listxattr('f'))])";
    let wanted = "[('security.capability', '0100000200040000000000000000000000000000'), ('user.mine', '31')]";
    assert_eq!(in_namespace(&place, &format!("cd d; python3 -c \"{show}\"")), wanted);
    let packed = place.cli(&["layer", "tree", &place.at("d")]).output().unwrap();
    unpack(&place, "e", &packed.stdout, &[]).ok();
    assert_eq!(in_namespace(&place, &format!("cd e; python3 -c \"{show}\"")), wanted);
    remove(&place, &["d", "e"]);
}

/// Path, and what another unpacker must agree on.
fn fingerprint(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mut what = format!("{:o} {} {}.{}", meta.mode(), meta.nlink() * u64::from(!meta.is_dir()), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_symlink() {
            what += &format!(" -> {:?}", std::fs::read_link(&path).unwrap());
        } else if meta.is_file() {
            use sha2::Digest;
            what += &format!(" {} {:x?}", meta.len(), sha2::Sha256::digest(std::fs::read(&path).unwrap()).as_slice());
        }
        found.insert(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned(), what);
    }
    found
}

fn odd_tree(place: &Place) -> std::path::PathBuf {
    let dir = place.dir("odd");
    let script = "cd odd; mkdir -p a/b/c 'with space' $(printf %0200d 1)/$(printf %0200d 2); echo 1 > a/f; ln a/f a/b/g; ln -s ../f a/b/l; ln -s /nowhere dangling; \
        chmod 4755 a/f; chmod 1777 a; mkdir closed; chmod 0700 closed; mkfifo p; echo > 'new\nline'; echo > 'ümlaut'; : > empty; \
        printf x > sparse; truncate -s 3M sparse; printf y >> sparse; truncate -s 9M sparse; ln -s $(printf %0180d 3) longlink; echo l > $(printf %0200d 1)/file; \
        ln $(printf %0200d 1)/file longhard; touch -d '1950-01-01 00:00:00.5' before; touch -d '2001-01-01 01:01:01.123456789' a/b/c a/b";
    finish(place.command("sh").args(["-euc", script]).spawn().unwrap(), b"").ok();
    dir
}

#[test]
fn the_same_tree_as_gnu_tar_makes() {
    need!(root(), "needs root, to become another user");
    let place = place();
    odd_tree(&place);
    for (n, format) in
        [("--format=gnu"), ("--format=posix"), ("--format=gnu --sparse"), ("--format=posix --sparse"), ("--format=posix --sort=name -z")]
            .iter()
            .enumerate()
    {
        let mut words: Vec<&str> = format.split(' ').collect();
        words.extend(["--owner=0", "--group=0", "-cf", "-", "-C", "odd", "."]);
        let out = place.command("tar").args(words).output().unwrap();
        assert!(out.status.success());
        let name = format!("ours{n}");
        unpack(&place, &name, &out.stdout, &[]).ok();
        let theirs = place.dir(&format!("theirs{n}"));
        let z = if format.ends_with("-z") { "-xzpf" } else { "-xpf" };
        let mut tar = place.command("tar");
        tar.args([z, "-", "-C"]).arg(&theirs).stdin(Stdio::piped());
        finish(tar.spawn().unwrap(), &out.stdout).ok();
        let (ours, theirs) = (fingerprint(&place.path(&name)), fingerprint(&theirs));
        for (path, what) in &theirs {
            // GNU's own format has whole seconds; all others agree on everything.
            assert_eq!(ours.get(path), Some(what), "{format}: '{path}'");
        }
        assert_eq!(ours.len(), theirs.len(), "{format}");
        remove(&place, &[&name]);
    }
}

#[test]
fn the_same_tree_as_umoci_makes() {
    need!(root(), "needs root, to become another user");
    need!(Path::new("/usr/bin/umoci").exists(), "needs umoci");
    let place = place();
    odd_tree(&place);
    let tar = |name: &str, args: &[&str]| {
        let out = place.command("tar").args(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        std::fs::write(place.path(name), &out.stdout).unwrap();
        out.stdout
    };
    let first = tar("first.tar", &["--format=posix", "--owner=0", "--group=0", "-cf", "-", "-C", "odd", "."]);
    let second =
        layer(&[file("a/.wh.f", ""), file("a/b/.wh..wh..opq", ""), file("a/b/new", "2"), file(".wh.dangling", ""), file("empty", "no more")]);
    std::fs::write(place.path("second.tar"), &second).unwrap();
    let script = "umoci init --layout l; umoci new --image l:t; umoci raw add-layer --image l:t first.tar; umoci raw add-layer --image l:t second.tar; \
        umoci unpack --rootless --image l:t bundle";
    let said = finish(place.command("sh").args(["-euc", script]).spawn().unwrap(), b"");
    said.ok();
    unpack(&place, "first", &first, &[]).ok();
    unpack(&place, "second", &second, &["--parent", &place.at("first")]).ok();
    in_namespace(&place, &format!("{}; cp -a merged ours", overlay(&["first", "second"])));
    let (ours, theirs) = (fingerprint(&place.path("ours")), fingerprint(&place.path("bundle/rootfs")));
    let paths = |tree: &BTreeMap<String, String>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&ours), paths(&theirs));
    for (path, what) in &theirs {
        // A deletion gives its directory the time of the unpacking there.
        let changed = ["", "a", "a/b"].contains(&path.as_str());
        let of = |text: &str| if changed { text.split(' ').next().unwrap().to_string() } else { text.to_string() };
        assert_eq!(ours.get(path).map(|t| of(t)), Some(of(what)), "'{path}'");
    }
    remove(&place, &["first", "second", "ours"]);
}

#[test]
fn nothing_outside_is_touched_by_the_helper() {
    let place = place();
    let out = canary(&place);
    let before = place.snapshot("canary");
    let up = format!("{}{}", "../".repeat(30), out.display());
    let hostile: [&[(&str, EntryType, &str, u64)]; 6] = [
        &[("l", EntryType::Symlink, out.to_str().unwrap(), 0), file("l/secret", "1")],
        &[("l", EntryType::Symlink, &up, 0), file("l/secret", "1")],
        &[("l", EntryType::Symlink, out.to_str().unwrap(), 0), file("l/.wh.secret", "")],
        &[("l", EntryType::Symlink, out.to_str().unwrap(), 0), ("l/d", EntryType::Directory, "", 0)],
        &[("l", EntryType::Symlink, out.to_str().unwrap(), 0), ("h", EntryType::Link, "l/secret", 0)],
        &[("h", EntryType::Link, "canary/secret", 0)],
    ];
    for (n, entries) in hostile.iter().enumerate() {
        let name = format!("d{n}");
        unpack(&place, &name, &layer(entries), &[]).refused("cannot unpack");
        remove(&place, &[&name]);
    }
    before.unchanged();
    assert_eq!(std::fs::metadata(out.join("secret")).unwrap().permissions().mode() & 0o7777, 0o644);
}

/// I04: what we accept has the same entries for Python's reader and for GNU tar.
#[test]
fn cve_2025_62518_cve_2026_32766_other_readers_find_the_same_entries() {
    let place = place();
    let whole: [&[u8]; 4] = [
        include_bytes!("../fuzz/corpus/layer/gnu"),
        include_bytes!("../fuzz/corpus/layer/pax"),
        include_bytes!("../fuzz/corpus/layer/ustar"),
        include_bytes!("../fuzz/corpus/layer/v7"),
    ];
    let mut dice = 1u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); // Knuth, MMIX
        (dice >> 33) as usize % sides
    };
    let (mut wanted, mut refused) = (String::new(), 0);
    for n in 0..3000 {
        let mut bytes = whole[n % whole.len()].to_vec();
        for _ in 0..=roll(3) {
            let at = roll(bytes.len() / 512) * 512 + [roll(100), 100 + roll(57), 156, 257 + roll(90), roll(512)][roll(5)];
            bytes[at] = [0, b' ', b'/', b'0' + roll(8) as u8, roll(256) as u8][roll(5)];
        }
        for block in bytes.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut reader = sandbox::image::tar::Reader::new(bytes.as_slice());
        let mut names = Vec::new();
        let end = loop {
            match reader.entry() {
                Ok(Some(e)) => names.push(e.path.iter().map(|b| format!("{b:02x}")).collect::<String>()),
                other => break other,
            }
        };
        if end.is_err() {
            refused += 1;
            continue;
        }
        std::fs::write(place.path(&format!("{n}.tar")), &bytes).unwrap();
        wanted += &format!("{n} {}\n", names.join(" "));
    }
    assert!(refused > 500 && wanted.lines().count() > 500, "{refused} refused, {} accepted", wanted.lines().count());
    let script = place.file(
        "readers.py",
        "import sys, tarfile, subprocess\n\
         def clean(p): return b'/'.join(c for c in p.split(b'/') if c not in (b'', b'.')).hex()\n\
         for n in sys.stdin.read().split():\n\
         \x20   with tarfile.open(n + '.tar', encoding='utf-8', errors='surrogateescape') as t:\n\
         \x20       python = [clean(m.name.encode('utf-8', 'surrogateescape')) for m in t.getmembers()]\n\
         \x20   r = subprocess.run(['tar', '-tf', n + '.tar', '--quoting-style=literal'], capture_output=True)\n\
         \x20   gnu = r.stdout.split(b'\\n')[:-1]\n\
         \x20   if not any('0a' in name for name in python) and ([clean(p) for p in gnu] != python or r.returncode):\n\
         \x20       python = ['GNU', str(gnu), str(r.stderr)]\n\
         \x20   print(n, *python)\n",
    );
    let numbers: String = wanted.lines().map(|l| l.split(' ').next().unwrap().to_string() + " ").collect();
    let child = place.command("python3").arg(script).stdin(Stdio::piped()).spawn().expect("python3");
    let theirs = finish(child, numbers.as_bytes());
    for (ours, theirs) in wanted.lines().zip(theirs.ok().lines()) {
        assert_eq!(ours.trim_end(), theirs.trim_end());
    }
    assert_eq!(wanted.lines().count(), theirs.stdout.lines().count());
}
