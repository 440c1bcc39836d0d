//! One id, and a tree in which everybody owns something: what is pretended, what that costs others, and who it can hurt.
//!
//! The user is `sandboxplain`, who has no subordinate ids. What the calls answer is compared with what they answer to root outside.

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// A place of who has no subordinate ids. None: nobody can become that user.
fn plain() -> Option<Place> {
    let account = accounts().plain.clone()?;
    mode(&account.home, 0o755);
    Some(Place::of(account))
}

const NEEDS_PLAIN: &str = "needs root, to become another user";

/// A directory over which our overlay is mounted by hand, so that what is written stays on disk.
struct Mounted {
    server: Child,
    point: PathBuf,
    upper: PathBuf,
}

impl Mounted {
    fn over(place: &Place, lower: &str) -> Mounted {
        let [upper, work, point] = ["upper", "work", "point"].map(|name| place.dir(name));
        let options = format!("lowerdir={},upperdir={},workdir={},virtual", place.at(lower), upper.display(), work.display());
        let server = place.cli(&["overlay", "-o", &options, &place.at("point")]).spawn().expect("sandbox overlay");
        let device = std::fs::metadata(&place.home).unwrap().dev();
        // Nobody but its user may look at it: then that is an error here.
        let mounted = || std::fs::metadata(&point).map_or(true, |m| m.dev() != device);
        assert!(within(Duration::from_secs(10), mounted), "it is not mounted");
        Mounted { server, point, upper }
    }

    fn rootfs(&self) -> String {
        format!("{}:rw", self.point.display())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
        let _ = self.server.wait();
    }
}

fn answers(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// Of what is on disk below, that which is anybody else's, or a device.
fn foreign(place: &Place, dir: &Path) -> String {
    let (uid, gid) = (place.account.uid.to_string(), place.account.gid.to_string());
    let odd = ["!", "-uid", &uid, "-o", "!", "-gid", &gid, "-o", "-type", "b,c"];
    let out = Command::new("find").arg(dir).args(odd).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn calls_about_ids_answer_as_to_root_outside() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let dir = base().join("owners");
    std::fs::create_dir(&dir).unwrap();
    let outside = Command::new(base().join("probe")).arg("owners").current_dir(&dir).output().unwrap();
    let outside = answers(&String::from_utf8(outside.stdout).unwrap());
    let mounted = Mounted::over(&place, "root");
    let out = place.sandbox(&["run", "--rootfs", &mounted.rootfs(), "-w", "/root", "probe", "owners"]);
    out.ok();
    let inside = out.answers();
    assert!(inside.len() > 80, "{out:?}");
    let mut wanted = outside;
    for (call, answer) in [
        // File systems that keep no owners, and paths by magic links, which are the kernel's alone.
        ("elsewhere", "EINVAL"),
        ("proc", "EINVAL"),
        ("magic", "EINVAL"),
        // A device is one in name only.
        ("mknod_cannot_be_opened", "OK"),
        // He may write to the directory, so it is the device that is refused.
        ("user_mknod", "EPERM"),
    ] {
        wanted.insert(call.into(), answer.into());
    }
    let all: BTreeSet<_> = inside.keys().chain(wanted.keys()).collect();
    let differ: Vec<_> = all.into_iter().filter(|call| inside.get(*call) != wanted.get(*call)).collect();
    assert!(differ.is_empty(), "{differ:?}: {inside:#?}");
    assert_eq!(foreign(&place, &mounted.upper), "");
}

#[test]
fn a_path_that_changes_while_it_is_looked_at_leads_to_nothing_of_others() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let volume = place.dir("out");
    let file = place.file("out/f", "mine");
    give(&place.file("out/roots", "root's"), 0, 0);
    let before = std::fs::metadata(&file).unwrap();
    let mounted = Mounted::over(&place, "root");
    let bind = format!("{}:/out", volume.display());
    let out = place.sandbox(&["run", "--rootfs", &mounted.rootfs(), "-v", &bind, "-w", "/root", "probe", "owners-race", "5"]);
    out.ok();
    assert_eq!(out.answers(), answers("odd=0\nin=OK"), "{out:?}");
    let after = std::fs::metadata(&file).unwrap();
    let known = |m: &std::fs::Metadata| (m.uid(), m.gid(), m.mode(), m.ino(), m.mtime());
    assert_eq!(known(&after), known(&before));
    assert_eq!(rustix::fs::listxattr(&file, &mut [0u8; 64][..]), Ok(0));
    assert_eq!(foreign(&place, &mounted.upper), "");
}

#[test]
fn who_floods_the_supervisor_holds_up_nobody_else() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let mounted = Mounted::over(&place, "root");
    let rootfs = mounted.rootfs();
    let flood = place.cli(&["run", "--rootfs", &rootfs, "probe", "owners-flood", "20", "6"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let out = place.sandbox(&["run", "--rootfs", &rootfs, "sh", "-c", "touch /root/f && chown 33 /root/f && stat -c %u /root/f"]);
    assert_eq!(out.ok(), "33");
    finish(flood, b"").ok();
    let out = place.sandbox(&["run", "--rootfs", &rootfs, "probe", "owners-many"]);
    assert_eq!(out.answers(), answers("many=EAGAIN\nsome=OK\nknown=OK"), "{out:?}");
}

/// The process of that word which a process of ours has started.
fn child(of: u32, word: &str) -> Option<u32> {
    let all = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    let is = |pid: &&str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|b| *b == 0).nth(1) == Some(word.as_bytes()));
    all.split_whitespace().find(is)?.parse().ok()
}

fn field(status: &str, name: &str) -> String {
    status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_string()
}

#[test]
fn the_supervisor_is_confined_out_of_sight_and_ends_with_the_workload() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let mounted = Mounted::over(&place, "root");
    let run = place.cli(&["run", "--rootfs", &mounted.rootfs(), "sh", "-c", "cat /proc/[0-9]*/cmdline | grep -c owners; echo up; exec sleep 60"]);
    let mut run = place.start(run, "up");
    let first = place.supervisor(&run);
    let supervisor = child(first, "@owners").expect("a supervisor");
    let proc = |name: &str| format!("/proc/{supervisor}/{name}");
    let status = std::fs::read_to_string(proc("status")).unwrap();
    // dac_override, dac_read_search, fowner, sys_chroot, sys_ptrace
    let known = ["NoNewPrivs", "Seccomp", "CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "Threads"].map(|name| field(&status, name));
    let set = "00000000000c000e";
    assert_eq!(known, ["1", "2", set, set, set, "0000000000000000", "0000000000000000", "1"]);
    // Not dumpable: its files are root's. Neither the host's user namespace nor its tree, but the host's pids.
    assert_eq!(std::fs::metadata(proc("environ")).unwrap().uid(), 0);
    assert_eq!(std::fs::read(proc("environ")).unwrap(), b"");
    let ours = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap() == std::fs::read_link(proc(&format!("ns/{name}"))).unwrap();
    assert_eq!(["user", "mnt", "pid"].map(ours), [false, false, true]);
    let open: Vec<_> = std::fs::read_dir(proc("fd")).unwrap().map(|e| std::fs::read_link(e.unwrap().path()).unwrap()).collect();
    assert!(open.len() < 10, "{open:?}");
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(within(Duration::from_secs(10), || !Path::new(&proc("status")).exists()), "it is still there");
}

#[test]
fn who_has_many_ids_has_no_supervisor() {
    let place = place();
    need!(subuids(&place.account).is_some(), "needs subordinate ids");
    tiny_root(&place, "root");
    let out = place.sandbox(&["run", "--dry-run", "--rootfs", &place.at("root"), "true"]);
    assert!(!out.ok().contains("supervisor"), "{out:?}");
}

#[test]
fn a_command_that_joins_believes_the_same() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let rootfs = format!("{}:O", place.at("root"));
    place.sandbox(&["run", "-d", "--name", "ids", "--rootfs", &rootfs, "sh", "-c", "touch /root/f; chown 33:44 /root/f; exec sleep 60"]).ok();
    let seen = || place.sandbox(&["exec", "ids", "stat", "-c", "%u:%g", "/root/f"]).ok() == "33:44";
    assert!(within(Duration::from_secs(10), seen), "33:44 is not seen");
    let script = "chown 5 /root/f; stat -c %u:%g /root/f; probe owners-many | grep known";
    assert_eq!(place.sandbox(&["exec", "ids", "sh", "-c", script]).ok(), "5:44\nknown=OK");
    // One that is left behind has who answers for it, too.
    place.sandbox(&["exec", "-d", "ids", "sh", "-c", "sleep 1; chown 6:7 /root/f; touch /root/done"]).ok();
    assert!(within(Duration::from_secs(10), || place.sandbox(&["exec", "ids", "ls", "/root/done"]).code() == 0));
    assert_eq!(place.sandbox(&["exec", "ids", "stat", "-c", "%u:%g", "/root/f"]).ok(), "6:7");
    place.sandbox(&["rm", "-f", "ids"]).ok();
}

/// As with many ids: `-u`, the USER of an image, and health checks run as who they say, by name or number, and with his groups.
#[test]
fn a_command_believes_to_be_who_it_was_started_as() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    let rootfs = format!("{}:O", place.at("root"));
    let who = "echo $(id -u) $(id -g) $(id -G) $HOME; grep -E '^(Uid|CapEff|CapPrm)' /proc/self/status";
    let bob = "1000 1000 1000 2000 /home/bob\nUid:\t0\t0\t0\t0\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000";
    let out = place.sandbox(&["run", "--rootfs", &rootfs, "-u", "bob", "sh", "-c", who]);
    assert_eq!(out.ok(), bob);
    let numbers =
        place.sandbox(&["run", "--rootfs", &rootfs, "-u", "33:44", "sh", "-c", "id -u; id -g; id -G; id -ru; sh -c 'id -u'; probe owners | head -0"]);
    assert_eq!(numbers.ok(), "33\n44\n44\n33\n33");
    // Who is not root may not be somebody else, nor give away what is his.
    let refused = "touch /home/f; chown 5 /home/f 2>&1; mknod /home/d c 1 3 2>&1";
    let out = place.sandbox(&["run", "--rootfs", &rootfs, "-u", "bob", "sh", "-c", refused]);
    assert!(out.stdout.contains("Operation not permitted"), "{out:?}");
    place.sandbox(&["run", "--rootfs", &rootfs, "-u", "nobody-here", "id"]).refused("no such user");

    // Accounts are those of now, also of a tree that only the sandbox itself may look into.
    let grow = "echo 'www:x:33:44::/srv:/bin/sh' >> /etc/passwd; echo 'more:x:7:www' >> /etc/group; exec sleep 60";
    place
        .sandbox(&[
            "run",
            "-d",
            "--name",
            "ids",
            "--rootfs",
            &rootfs,
            "--health-cmd",
            "id -u > /tmp/checked",
            "--health-interval",
            "1s",
            "-u",
            "bob",
            "sh",
            "-c",
            "id -u > /tmp/first; sleep 60",
        ])
        .ok();
    place.sandbox(&["exec", "-u", "0", "-d", "ids", "sh", "-c", grow]).ok();
    let www = || place.sandbox(&["exec", "-u", "www", "ids", "sh", "-c", "echo $(id -u) $(id -g) $(id -G) $HOME"]);
    assert!(within(Duration::from_secs(10), || www().code() == 0), "{:?}", www());
    assert_eq!(www().ok(), "33 44 44 7 /srv");
    assert_eq!(place.sandbox(&["exec", "-u", "12:34", "ids", "sh", "-c", "id -u; id -g"]).ok(), "12\n34");
    assert_eq!(place.sandbox(&["exec", "ids", "id", "-u"]).ok(), "1000");
    assert_eq!(place.sandbox(&["exec", "-u", "root", "ids", "sh", "-c", "id -u; cat /tmp/first"]).ok(), "0\n1000");
    place.sandbox(&["exec", "-u", "nobody-here", "ids", "id"]).refused("no such user");
    let checked = || place.sandbox(&["exec", "ids", "cat", "/tmp/checked"]).stdout == "1000\n";
    assert!(within(Duration::from_secs(10), checked), "the check was not by bob");
    place.sandbox(&["rm", "-f", "ids"]).ok();
}

/// By whatever call, started as one or become one later, and also where nobody asks before the end.
#[test]
fn what_a_pretended_user_makes_is_his() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    let image = crate::image::tiny_image(&place, "tiny");
    let shown = "stat -c '%n %u:%g' /work/*";
    let all = "a 33:44,b 33:44,c 33:44,d 33:44,e 33:44,f 33:44,g 33:44,h 33:44,i 33:44,j 33:44,k 33:44".replace(',', "\n/work/");
    let all = format!("/work/{all}");
    // Nobody may ask about the last one.
    let script = format!("probe makes /work && {shown}; touch /work/last");
    let make = |flags: &[&str], run: &str| {
        let words = [&["run", "--layer", "kept"], flags, &[&image, "sh", "-ec", run]].concat();
        place.sandbox(&words)
    };
    make(&[], "mkdir /work; mkdir -m 2777 /shared; chown 0:7 /shared").ok();
    assert_eq!(make(&["-u", "33:44"], &script).ok(), all);
    assert_eq!(
        make(&[], "stat -c %u:%g /work/last; stat -c %u:%g /work; rm -r /work/*; touch /work/x; stat -c %u:%g /work/x").ok(),
        "33:44\n0:0\n0:0"
    );
    // What is there already stays whose it is, and a directory may say whose group it is.
    let others =
        "echo more >> /work/x; : > /work/x; ! mkdir /work/x; ! ln -s a /work/x; stat -c %u:%g /work/x; : > /shared/y; stat -c %u:%g /shared/y";
    assert_eq!(make(&["-u", "33:44"], others).ok(), "0:0\n33:7");
    assert_eq!(make(&[], &format!("rm -r /work/x; probe be 33 44 probe makes /work; {shown}")).ok(), all);
    assert_eq!(foreign(&place, &place.path(".local")), "");
}

/// Who first stops being root, and then sets his groups, has kept what that takes: setpriv(1), as in images that start a server by it.
#[test]
fn capabilities_are_kept_by_who_says_so_until_he_runs_something_else() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    tiny_root(&place, "root");
    for (from, to) in [("/usr/bin/setpriv", "bin/setpriv"), ("/lib/x86_64-linux-gnu/libcap-ng.so.0", "lib/x86_64-linux-gnu/libcap-ng.so.0")] {
        std::fs::copy(from, place.path(&format!("root/{to}"))).unwrap();
    }
    let rootfs = format!("{}:O", place.at("root"));
    let script = "setpriv --reuid=33 --regid=44 --clear-groups sh -c 'id -u; id -g; id -G; probe be 0 0 true; echo $?; : > /f; stat -c %u:%g /f'";
    assert_eq!(place.sandbox(&["run", "--rootfs", &rootfs, "sh", "-c", script]).ok(), "33\n44\n44\n96\n33:44");
}

#[test]
fn a_layer_is_committed_with_the_owners_that_are_pretended() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    let image = crate::image::tiny_image(&place, "tiny");
    std::fs::copy("/bin/chmod", place.path("chmod")).unwrap();
    let bind = format!("{}:/bin/chmod:ro", place.at("chmod"));
    let script = "mkdir -p d/inner; touch d/f d/shut; ln -s f d/l; chown -h 33:44 d d/f d/l; chmod 4711 d/f; chmod 0 d/shut";
    place.sandbox(&["run", "--layer", "kept", "-v", &bind, "-w", "/root", &image, "sh", "-ec", script]).ok();
    let stat = "cd /root; stat -c '%n %A %u:%g' d d/*; readlink d/l";
    let wanted = "d drwxr-xr-x 33:44\nd/f -rws--x--x 33:44\nd/inner drwxr-xr-x 0:0\nd/l lrwxrwxrwx 33:44\nd/shut ---------- 0:0\nf";
    assert_eq!(place.sandbox(&["run", "--layer", "kept", &image, "sh", "-c", stat]).ok(), wanted);
    place.sandbox(&["commit", "kept", "localhost/new"]).ok();
    // A link of others is root's once it is unpacked, with a note. // image/tree.rs
    let wanted = wanted.replace("d/l lrwxrwxrwx 33:44", "d/l lrwxrwxrwx 0:0");
    assert_eq!(place.sandbox(&["run", "localhost/new", "sh", "-c", stat]).ok(), wanted);
    assert_eq!(foreign(&place, &place.path(".local")), "");
}

/// What the issue asks for: a package with a user of its own, on a host where nobody has subordinate ids.
#[test]
fn debian_installs_a_package_that_makes_a_user() {
    let Some(place) = plain() else { return skip(NEEDS_PLAIN) };
    let Some(tar) = crate::image::run::debian() else { return skip("needs mmdebstrap and a Debian mirror") };
    let root = place.dir("debian");
    let unpacked = place.command("tar").args(["--no-same-owner", "--exclude=./dev/*", "-xpf"]).arg(tar).arg("-C").arg(root).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    place.file(
        "deb.sh",
        concat!(
            "set -e; mkdir -p /p/DEBIAN /p/opt/svc; echo hi > /p/opt/svc/f\n",
            "printf 'Package: own-user\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' > /p/DEBIAN/control\n",
            "printf '#!/bin/sh\\nset -e\\nuseradd -r -u 555 -U -m -d /var/lib/svc svc\\nchown -R svc:svc /opt/svc\\n' > /p/DEBIAN/postinst\n",
            "chmod 755 /p/DEBIAN/postinst; dpkg-deb -b /p /own.deb >/dev/null; apt-get install -y /own.deb >/dev/null 2>&1\n",
            "cd /root; touch f; chown 33:33 f; mknod d c 1 3; stat -c '%F %u:%g %t,%T' f d /opt/svc/f /var/lib/svc\n",
            "su svc -s /bin/sh -c 'id; cd; pwd'; dpkg -s own-user | grep Status\n",
        ),
    );
    std::fs::rename(place.path("deb.sh"), place.path("debian/deb.sh")).unwrap();
    let out = place.sandbox(&["run", "--rootfs", &format!("{}:O", place.at("debian")), "sh", "/deb.sh"]);
    let wanted = "regular empty file 33:33 0,0\ncharacter special file 0:0 1,3\nregular file 555:555 0,0\ndirectory 555:555 0,0\n\
                  uid=555(svc) gid=555(svc) groups=555(svc)\n/var/lib/svc\nStatus: install ok installed";
    assert_eq!(out.ok(), wanted, "{out:?}");
    assert_eq!(foreign(&place, &place.path("debian")), "");
}
