//! Plans, man pages and completions against the files that are kept. Run by `cargo golden`; `BLESS=1` rewrites the files.
//!
//! A Spec and made-up facts go through the real `freeze`, and the tape comes out as text. What depends on the machine (which files
//! /proc has, how high one's own limits are, which kernel libseccomp was built for) is left out or put back to what the Spec said,
//! each by a named rule below; nothing else is. Must never need a privilege, and never change anything but those files.

use sandbox::cgroup;
use sandbox::host::Caller;
use sandbox::host::mounts::MountPoint;
use sandbox::host::subid::{Range, Subids};
use sandbox::ident::Digest;
use sandbox::launch::plan::{self, Facts, Io, Plan, freeze};
use sandbox::spec::{ImageRoot, Mount, NetworkMode, Patch, Root, RootMode, SeccompProfile, Share, Spec, Userns, policy};
use sandbox::sys::confine::landlock_abi;
use sandbox::sys::process::rlimit;
use sandbox::tape::{Barrier, Phase, Slot, Step};
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const POLICIES: [&str; 6] = ["default", "strict", "nested", "agent", "hpc", "ci"];

/// The newest version of Landlock whose rules the kept files show. An older kernel cannot make the ruleset, so there its lines are
/// not compared.
const LANDLOCK: u32 = 6;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A built-in policy with what it includes, read from the tree: no file of this machine's takes part.
fn builtin(name: &str) -> Patch {
    let file = repository("policies").join(format!("{name}.toml"));
    let patch = policy::parse(&std::fs::read_to_string(&file).unwrap(), &file).unwrap();
    patch.include.clone().iter().map(|n| builtin(n)).reduce(Patch::then).unwrap_or_default().then(patch)
}

/// The plan on a machine with these subuids and mounts.
fn frozen(spec: &Spec, subids: &[(u32, u32)], mounts: Vec<MountPoint>, io: Option<Io>, cache: &Dir) -> sandbox::error::Result<Plan> {
    let ranges = || subids.iter().map(|(start, count)| Range { start: *start, count: *count }).collect();
    let facts = facts(mounts);
    let ids = plan::ids(spec, &facts.caller, &Subids { uids: ranges(), gids: ranges() })?;
    let mut spec = spec.clone();
    spec.limits.resolve(4 << 30);
    let limits = cgroup::plan(&spec, place())?;
    freeze(&spec, &facts, ids, limits, io, Some(&cache.0))
}

/// A systemd of the user, with what Debian delegates.
fn place() -> cgroup::Place {
    let controllers = ["cpu", "memory", "pids"].map(String::from).into();
    cgroup::Place::Systemd { bus: "/run/user/1000/bus".into(), slice: cgroup::SLICE.into(), controllers }
}

fn facts(mounts: Vec<MountPoint>) -> Facts {
    let home = PathBuf::from("/home/ada");
    let caller =
        Caller { uid: 1000, gid: 1000, groups: vec![1000], name: "ada".into(), home: home.clone(), account_home: home, shell: "/bin/sh".into() };
    let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/home/ada"), ("LANG", "C.UTF-8"), ("AWS_SECRET_ACCESS_KEY", "no")];
    Facts {
        caller,
        mounts,
        cwd: "/usr".into(),
        env: env.map(|(k, v)| (k.to_string(), v.into())).into(),
        mask: sandbox::sys::signal::Set::ALL,
        window: (80, 24),
        landlock_abi: landlock_abi().min(LANDLOCK),
    }
}

/// A machine with nothing mounted below /proc and /sys.
fn mounts() -> Vec<MountPoint> {
    let one = |(id, point, fstype): (u32, &str, &str)| MountPoint {
        id,
        parent: id.min(1),
        root: "/".into(),
        point: point.into(),
        options: "rw,relatime".into(),
        fstype: fstype.into(),
        source: fstype.into(),
        super_options: "rw".into(),
    };
    [(1, "/", "ext4"), (2, "/proc", "proc"), (3, "/sys", "sysfs")].map(one).into()
}

fn io() -> Io {
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    Io { stdin: null(), stdout: null(), stderr: null() }
}

/// A directory for the time of a test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("sandbox-golden-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(std::fs::canonicalize(dir).unwrap())
    }

    fn mode(&self, mode: u32) {
        std::fs::set_permissions(&self.0, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A root directory with two accounts.
fn tree(name: &str) -> Dir {
    let dir = Dir::new(name);
    dir.mode(0o755);
    dir.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n");
    dir.file("etc/group", "root:x:0:\nweb:x:33:\nlog:x:44:web\n");
    dir
}

fn compared(name: &str, text: &str) -> Result<(), String> {
    let path = repository("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return Ok(());
    }
    let kept = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let old_kernel = landlock_abi() < LANDLOCK;
    let lines = |t: &str| t.lines().filter(|l| !old_kernel || !l.contains("landlock")).map(str::to_string).collect::<Vec<_>>();
    let (kept, text) = (lines(&kept), lines(text));
    match kept.iter().zip(&text).position(|(a, b)| a != b).or((kept.len() != text.len()).then_some(kept.len().min(text.len()))) {
        None => Ok(()),
        Some(n) => {
            let at = |l: &[String]| l.get(n).cloned().unwrap_or_else(|| "(the end)".into());
            Err(format!("{}:{}: kept\n    {}\n  now\n    {}", path.display(), n + 1, at(&kept), at(&text)))
        }
    }
}

fn verdict(failures: Vec<String>) {
    assert!(failures.is_empty(), "\n{}\n\nIf that is as it should be: BLESS=1 cargo golden, and read the diff.\n", failures.join("\n"));
}

/// The plan without what is this machine's.
fn portrait(spec: &Spec, plan: &Plan, root: &Path) -> String {
    let text = plan.to_string();
    let steps = plan.tape.steps();
    // Up to the steps: what is cloned, the maps, what is degraded.
    let mut out = String::new();
    let head = text.lines().count() - steps.len();
    text.lines().take(head).for_each(|l| writeln!(out, "{l}").unwrap());
    let kernels = |target: &std::ffi::CStr| [&b"proc/"[..], b"sys/"].iter().any(|p| target.to_bytes().starts_with(p));
    let mut hosts_tree = false;
    for (n, step) in steps.iter().enumerate() {
        let phase = format!("{:?}", step.phase()).to_lowercase();
        let line = match step {
            // How the host's own tree is laid depends on all that is in it.
            step if spec.root == Root::Host && step.phase() == Phase::Root => {
                if std::mem::replace(&mut hosts_tree, true) {
                    continue;
                }
                "(the host's tree)".to_string()
            }
            // Which of the policy's files this machine's /proc and /sys have.
            Step::Remount { target, .. } if kernels(target) => continue,
            Step::Attach { target, .. } if kernels(target) => continue,
            Step::CloneTree { .. } if matches!(steps.get(n + 1), Some(Step::Attach { target, .. }) if kernels(target)) => continue,
            // Clamped to the limits of whoever runs the test: back to what the policy says, once the clamp is seen to be right.
            Step::Rlimit { name, resource, soft, hard } => {
                let said = spec.process.ulimits[*name];
                let (_, ceiling) = rlimit(*resource).unwrap();
                let clamped = |v: Option<u64>| v.unwrap_or(u64::MAX).min(ceiling);
                assert_eq!((*soft, *hard), (clamped(said.soft), clamped(said.hard)), "{name}");
                format!("rlimit {name} {}", String::from(said))
            }
            // Raised only, so it depends on the test's own.
            Step::OomScore(_) => continue,
            // As long as this libseccomp makes it.
            Step::Seccomp(_) => "seccomp".to_string(),
            Step::Stdio { to, .. } => format!("descriptor {to} from the caller's"),
            step => step.to_string(),
        };
        writeln!(out, "{phase:9} {}", line.replace(root.to_str().unwrap(), "ROOT")).unwrap();
    }
    out
}

fn dir_root(dir: &Dir, mode: RootMode) -> Option<Root> {
    Some(Root::Dir { path: dir.0.clone(), mode })
}

const FULL: &[(u32, u32)] = &[(100_000, 65_536)];

#[test]
fn policies() {
    let (dir, cache) = (tree("policies"), Dir::new("policies-cache"));
    cache.mode(0o700);
    let mut failures = Vec::new();
    for name in POLICIES {
        // A root directory; the host's tree with the caller's own id; one id, as for a user without subuids.
        for (kind, root, subids) in
            [("root", dir_root(&dir, RootMode::Cow), FULL), ("keep-id", Some(Root::Host), FULL), ("single", Some(Root::Host), &[])]
        {
            let mut patch = builtin(name);
            patch.root = root;
            patch.process.argv = vec!["sh".into(), "-c".into(), "true".into()];
            if kind == "root" {
                patch.userns = Some(Userns::Root);
                // Else the machine's own resolv.conf is copied where the network is the host's.
                patch.network.dns = vec!["192.0.2.1".into()];
            }
            let spec = patch.settle().unwrap();
            let plan = frozen(&spec, subids, mounts(), Some(io()), &cache).unwrap();
            failures.extend(compared(&format!("{name}-{kind}.tape"), &portrait(&spec, &plan, &dir.0)).err());
        }
    }
    verdict(failures);
}

#[test]
fn flags() {
    let (dir, cache) = (tree("flags"), Dir::new("flags-cache"));
    cache.mode(0o700);
    dir.file("shared/file", "");
    let shared = dir.0.join("shared");
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o755)).unwrap();
    type Case<'a> = (&'a str, &'a [(u32, u32)], Option<Io>, &'a dyn Fn(&mut Patch));
    let (low, high) = (dir.0.join("low"), dir.0.join("high"));
    for layer in [&low, &high] {
        std::fs::create_dir_all(layer).unwrap();
        std::fs::set_permissions(layer, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let image = |layers: &[&PathBuf], writable: Option<PathBuf>| {
        let layers = layers.iter().map(|l| l.to_path_buf()).collect();
        Some(Root::Image(ImageRoot { id: Digest::sha256(&[7; 32]), layers, writable, volumes: vec!["/var/volume".into()] }))
    };
    let cases: [Case; 15] = [
        ("terminal", FULL, None, &|p| p.process.tty = Some(true)),
        ("read-only", FULL, Some(io()), &|p| p.files.root_read_only = Some(true)),
        ("write-through", FULL, Some(io()), &|p| p.root = dir_root(&dir, RootMode::ReadWrite)),
        ("user", FULL, Some(io()), &|p| p.process.user = Some("web".parse().unwrap())),
        ("several-ranges", &[(100_000, 10), (300_000, 65_536)], Some(io()), &|p| p.userns = Some(Userns::KeepId { uid: Some(5), gid: None })),
        ("nomap", FULL, Some(io()), &|p| p.userns = Some(Userns::Nomap)),
        ("explicit", FULL, Some(io()), &|p| {
            let ids = || vec!["0:1000:1".parse().unwrap(), "1:100000:100".parse().unwrap()];
            p.userns = Some(Userns::Explicit { uids: ids(), gids: ids() });
        }),
        ("nested-init", FULL, Some(io()), &|p| {
            *p = std::mem::take(p).then(builtin("nested"));
            p.process.init = Some(true);
        }),
        ("shared-namespaces", FULL, Some(io()), &|p| {
            let n = &mut p.namespaces;
            (n.ipc, n.uts, n.cgroup) = (Some(Share::Host), Some(Share::Host), Some(Share::Host));
            p.network.mode = Some(NetworkMode::Host);
            p.network.dns = vec!["192.0.2.1".into()];
        }),
        ("new-privileges", FULL, Some(io()), &|p| {
            p.process.no_new_privileges = Some(false);
            p.seccomp.profile = Some(SeccompProfile::Unconfined);
        }),
        ("image", FULL, Some(io()), &|p| {
            p.root = image(&[&low, &high], None);
            p.process.cwd = Some("/srv/www".into());
        }),
        ("image-kept", FULL, Some(io()), &|p| p.root = image(&[&low], Some(dir.0.join("kept")))),
        ("image-named", FULL, Some(io()), &|p| {
            p.root = image(&[&low], None);
            p.name = Some("web".parse().unwrap());
        }),
        ("image-many", FULL, Some(io()), &|p| p.root = image(&[&low; 12], None)),
        ("mounts", FULL, Some(io()), &|p| {
            let at = |dest: &str| format!("{}:{dest}", shared.display());
            let volumes = [at("/mnt/a:ro"), at("/mnt/b:noexec"), at("/mnt/c:O"), format!("{}/file:/mnt/d", shared.display())];
            p.files.mounts = volumes.iter().map(|v| Mount::volume(v).unwrap()).collect();
            p.files.mounts.push(Mount::tmpfs("/mnt/e:size=1m,mode=700").unwrap());
            p.network.add_host = vec![("db".into(), "192.0.2.7".into())];
        }),
    ];
    let mut failures = Vec::new();
    for (name, subids, io, change) in cases {
        let mut patch = builtin("default");
        patch.root = dir_root(&dir, RootMode::Cow);
        patch.process.argv = vec!["/bin/sh".into()];
        change(&mut patch);
        let spec = patch.settle().unwrap();
        let plan = frozen(&spec, subids, mounts(), io, &cache).unwrap_or_else(|e| panic!("{name}: {e}"));
        failures.extend(compared(&format!("{name}.tape"), &portrait(&spec, &plan, &dir.0)).err());
    }
    verdict(failures);
}

#[test]
fn man_pages_and_completions() {
    let bless = std::env::var_os("BLESS").is_some();
    let files = sandbox::cli::docs::files().unwrap();
    assert!(files.len() > 4);
    let mut failures = Vec::new();
    for (path, text) in &files {
        let kept = repository(path.to_str().unwrap());
        if bless {
            std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
            std::fs::write(&kept, text).unwrap();
        } else if std::fs::read(&kept).ok().as_ref() != Some(text) {
            failures.push(format!("{} is not what the flags say now", path.display()));
        }
    }
    for folder in ["man", "completions"] {
        for entry in std::fs::read_dir(repository(folder)).into_iter().flatten() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            // Section 5 is about files, and written by hand.
            if path.extension().is_none_or(|e| e != "5") && !files.iter().any(|(made, _)| *made == path) {
                failures.push(format!("{} is of no command", path.display()));
            }
        }
    }
    verdict(failures);
}

// ----------------------------------------------------------------------------------------------------------- the walls

/// A small generator of numbers, the same on every run. Knuth, MMIX.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }

    /// One time in four a value.
    fn maybe<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (self.roll(4) == 0).then(|| self.pick(from))
    }
}

/// Any Spec: a policy, and any flags on it.
fn any(dice: &mut Dice, dir: &Dir, policies: &[Patch]) -> Patch {
    let mut p = dice.pick(policies);
    if dice.roll(6) == 0 {
        p = p.then(dice.pick(policies));
    }
    let image = |writable| ImageRoot { id: Digest::sha256(&[7; 32]), layers: vec![dir.0.clone()], writable, volumes: vec!["/srv/v".into()] };
    p.root = match dice.roll(4) {
        0 => Some(Root::Host),
        1 => Some(Root::Image(image(dice.pick(&[None, Some(dir.0.clone())])))),
        _ => dir_root(dir, dice.pick(&[RootMode::Cow, RootMode::ReadWrite])),
    };
    p.process.argv = vec![dice.pick(&["sh", "/bin/sh", "./x y"]).into()];
    let share = [Share::Private, Share::Host];
    let n = &mut p.namespaces;
    for field in [&mut n.ipc, &mut n.pid, &mut n.uts, &mut n.cgroup] {
        *field = dice.maybe(&share).or(*field);
    }
    n.nested = dice.maybe(&[true, false]).or(n.nested);
    p.network.mode = dice.maybe(&[NetworkMode::None, NetworkMode::Host]).or(p.network.mode);
    let ids = |list: &[&str]| list.iter().map(|s| s.parse().unwrap()).collect::<Vec<_>>();
    let explicit = Userns::Explicit { uids: ids(&["0:1000:1"]), gids: ids(&["0:1000:1", "5:100000:9"]) };
    let modes = [Userns::Auto, Userns::Root, Userns::Nomap, Userns::Single, Userns::KeepId { uid: Some(7), gid: Some(0) }, explicit];
    p.userns = dice.maybe(&modes).or(p.userns);
    p.process.tty = Some(dice.coin());
    p.process.init = dice.maybe(&[true, false]).or(p.process.init);
    p.process.no_new_privileges = dice.maybe(&[true, false]).or(p.process.no_new_privileges);
    p.process.preserve_fds = dice.maybe(&[0, 1, 20]);
    p.process.user = dice.maybe(&["0", "web", "1000:1000", "33:44"]).map(|u| u.parse().unwrap());
    p.process.hostname = dice.maybe(&["h".to_string(), "a.b".to_string()]);
    p.files.root_read_only = dice.maybe(&[true, false]).or(p.files.root_read_only);
    for _ in 0..dice.roll(3) {
        let word = dice.pick(&["/:/mnt/a:ro", "/etc:/etc:rw", "/usr/share:/opt/x:O", "/dev/null:/x", "/tmp:/mnt/b/c:noexec"]);
        p.files.mounts.push(Mount::volume(word).unwrap());
    }
    if dice.coin() {
        p.files.mounts.push(Mount::tmpfs("/scratch:size=1m").unwrap());
    }
    for list in [&mut p.capabilities.add, &mut p.capabilities.drop] {
        list.extend(dice.maybe(&["ALL", "NET_RAW", "CHOWN", "SYS_ADMIN"]).map(str::to_string));
    }
    p.seccomp.profile = dice.maybe(&[SeccompProfile::Groups, SeccompProfile::Unconfined]);
    p
}

/// What every tape must have, whatever was asked for. The number of the first step that a complaint is about is in it.
fn breaches(spec: &Spec, steps: &[&Step]) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |ok: bool, what: String| {
        if !ok {
            found.push(what);
        }
    };
    let all = |test: &dyn Fn(&Step) -> bool| steps.iter().enumerate().filter(|(_, s)| test(s)).map(|(n, _)| n).collect::<Vec<_>>();
    let once = |what: &str, test: &dyn Fn(&Step) -> bool, must: &mut dyn FnMut(bool, String)| {
        let at = all(test);
        must(at.len() == 1, format!("{} times {what}", at.len()));
        at.first().copied().unwrap_or(usize::MAX)
    };
    must(steps.windows(2).all(|w| w[0].phase() <= w[1].phase()), "the phases are out of order".into());

    let exec = once("exec", &|s| matches!(s, Step::Exec { .. }), &mut must);
    must(exec.wrapping_add(1) == steps.len(), "exec is not the end".into());
    let pivot = once("pivot", &|s| matches!(s, Step::Pivot { .. }), &mut must);
    must(all(&|s| s.phase() == Phase::Root).last() == Some(&pivot), "something of the root comes after pivot".into());
    let split = all(&|s| matches!(s, Step::Split { .. }));
    if spec.namespaces.nested && !spec.process.init {
        must(split.is_empty(), "nested, and yet split".into());
    } else {
        must(split.len() == 1 && split[0] < exec, "no split before exec".into());
        let inner = split.first().and_then(|n| steps.get(n + 1));
        must(matches!(inner, Some(Step::Await(Barrier::Inner))), "nobody waits for the inner maps".into());
    }
    // A change of ids takes it back.
    let ids = all(&|s| matches!(s, Step::Await(Barrier::Mapped) | Step::SetIds { .. }));
    let dies = all(&|s| matches!(s, Step::DieWithParent(_)));
    must(!ids.is_empty() && dies.first() > ids.last(), "outlives its parent".into());
    once("new session", &|s| matches!(s, Step::NewSession), &mut must);
    let dumpable = once("not dumpable", &|s| matches!(s, Step::NotDumpable(_)), &mut must);
    must(split.iter().all(|s| *s < dumpable), "dumpable after split".into());
    let closed = once("close", &|s| matches!(s, Step::CloseOnExecFrom(n) if *n == 3 + spec.process.preserve_fds), &mut must);
    once("default signals", &|s| matches!(s, Step::DefaultSignals { .. }), &mut must);

    // A limit on every kind of namespace, and the one on mounts set only after the last.
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"] {
        let name = format!("sys/user/max_{kind}_namespaces");
        let written = all(&|s| matches!(s, Step::WriteProc { path, .. } | Step::OpenProc { path, .. } if path.to_bytes() == name.as_bytes()));
        must(written.len() == usize::from(!spec.namespaces.nested), format!("{} limits on {kind}", written.len()));
    }
    let mounts = all(&|s| matches!(s, Step::WriteSlot { slot: Slot::Limit, .. }));
    must(mounts.len() == usize::from(!spec.namespaces.nested) && mounts.iter().all(|n| *n > pivot), "no limit on mounts after the last".into());

    // Capabilities: never one that the Spec has not.
    let allowed = spec.restrict.capabilities.iter().fold(0u64, |set, n| set | 1 << n);
    let bounding = once("bounding set", &|s| matches!(s, Step::DropBounding { keep } if keep & !allowed == 0), &mut must);
    let capabilities = once("capabilities", &|s| matches!(s, Step::SetCapabilities(set) if set & !allowed == 0), &mut must);
    must(bounding < capabilities, "the bounding set comes last".into());

    // Sealing.
    let privileges = all(&|s| matches!(s, Step::NoNewPrivileges));
    must(privileges.len() == usize::from(spec.restrict.no_new_privileges), "no_new_privs is not as asked for".into());
    let seccomp = all(&|s| matches!(s, Step::Seccomp(program) if !program.is_empty()));
    must(seccomp.len() == usize::from(spec.restrict.seccomp.profile != SeccompProfile::Unconfined), "seccomp is not as asked for".into());
    let landlock = all(&|s| matches!(s, Step::LandlockEnforce { .. }));
    for wall in seccomp.iter().chain(&landlock) {
        must(privileges.iter().all(|p| p < wall), "a wall before no_new_privs".into());
    }
    for filter in &seccomp {
        must(closed < *filter && landlock.iter().all(|l| l < filter), "seccomp is not the last wall".into());
        let rest = steps.get(filter + 1..).unwrap_or_default();
        let fine = |s: &Step| matches!(s, Step::Exec { .. }) || (!spec.restrict.no_new_privileges && matches!(s, Step::SetCapabilities(_)));
        must(rest.iter().all(|s| fine(s)), "something comes after seccomp".into());
    }

    // Nothing set-uid comes in by a mount, but in a root directory where the user gave up no_new_privs.
    let su_works = !spec.restrict.no_new_privileges && spec.root != Root::Host;
    let nosuid = sandbox::sys::mount::NOSUID;
    for (n, step) in steps.iter().enumerate() {
        let suid = match step {
            Step::Filesystem { attributes, .. } | Step::Overlay { attributes, .. } => attributes & nosuid == 0,
            Step::CloneTree { path, attributes, .. } => path.to_bytes().starts_with(b"/") && attributes & nosuid == 0,
            _ => false,
        };
        must(!suid || su_works, format!("step {n} takes set-uid files in: {step}"));
    }
    found
}

#[test]
fn every_tape_has_its_walls() {
    let (dir, cache) = (tree("walls"), Dir::new("walls-cache"));
    cache.mode(0o700);
    let policies = POLICIES.map(builtin);
    let here = sandbox::host::mounts::mounts().unwrap();
    let (mut dice, mut had, rounds) = (Dice(7), 0, 400);
    for round in 0..rounds {
        let spec = any(&mut dice, &dir, &policies).settle().unwrap();
        let subids = dice.pick(&[FULL, FULL, &[(100_000, 10), (300_000, 65_536)], &[]]);
        let mounts = if spec.root == Root::Host { here.clone() } else { mounts() };
        let again = || frozen(&spec, subids, mounts.clone(), if spec.process.tty { None } else { Some(io()) }, &cache);
        // Not every Spec can be had; one that cannot says why, and one that can is the same twice.
        match again() {
            Ok(plan) => {
                had += 1;
                let found = breaches(&spec, &plan.tape.steps().iter().collect::<Vec<_>>());
                assert!(found.is_empty(), "round {round}: {found:?}\n{plan}\n{spec:#?}");
                let second = again().unwrap();
                let stable = |p: &Plan| portrait(&spec, p, &dir.0);
                assert_eq!(stable(&plan), stable(&second), "round {round}");
            }
            Err(e) => assert!(e.message().starts_with("cannot ") || e.message().starts_with("bad "), "round {round}: {e}"),
        }
    }
    assert!(had > rounds / 2, "only {had} of {rounds} could be frozen");
}

#[test]
fn walls_can_be_missed() {
    let (dir, cache) = (tree("missed"), Dir::new("missed-cache"));
    cache.mode(0o700);
    let mut patch = builtin("default");
    patch.root = dir_root(&dir, RootMode::Cow);
    patch.process.argv = vec!["sh".into()];
    let spec = patch.settle().unwrap();
    let plan = frozen(&spec, FULL, mounts(), Some(io()), &cache).unwrap();
    let whole: Vec<&Step> = plan.tape.steps().iter().collect();
    assert!(breaches(&spec, &whole).is_empty());
    let is_wall = |s: &Step| {
        matches!(
            s,
            Step::Split { .. }
                | Step::Await(Barrier::Inner)
                | Step::NoNewPrivileges
                | Step::Seccomp(_)
                | Step::CloseOnExecFrom(_)
                | Step::NotDumpable(_)
                | Step::DropBounding { .. }
                | Step::SetCapabilities(_)
                | Step::DefaultSignals { .. }
                | Step::NewSession
                | Step::DieWithParent(_)
                | Step::Pivot { .. }
                | Step::WriteSlot { .. }
                | Step::OpenProc { .. }
                | Step::Exec { .. }
        ) || matches!(s, Step::WriteProc { path, .. } if path.to_bytes().starts_with(b"sys/user/"))
    };
    let walls: Vec<usize> = whole.iter().enumerate().filter(|(_, s)| is_wall(s)).map(|(n, _)| n).collect();
    assert!(walls.len() > 18);
    for n in walls {
        // Taken out, and moved to the front.
        let mut steps = whole.clone();
        let wall = steps.remove(n);
        assert!(!breaches(&spec, &steps).is_empty(), "nobody misses '{wall}'");
        steps.insert(0, wall);
        // Within the first phase the limits may stand anywhere.
        assert!(wall.phase() == Phase::Identity || !breaches(&spec, &steps).is_empty(), "nobody minds '{wall}' at the front");
    }
}
