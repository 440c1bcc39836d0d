//! A booted machine: Debian with systemd, cgroup v2 and a kernel of its own under qemu, in software, since KVM may be absent. The bodies of
//! `it` run in it, as they are. `cargo vm [NAME...]`; the words are those of `cargo test --test it --`, and without any, everything runs.
//!
//! The image is made once, by `mmdebstrap`, and kept in the user's cache under the hash of its recipe. What was built travels on a second
//! disk; what the tests say comes back on a third, whole, also if the machine then fails to stop.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What is in the machine: what `sandbox` needs, what drives it in the tests, and a kernel.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,linux-image-cloud-amd64,iproute2,procps,fuse3,kmod,\
     strace,tmux,python3-minimal,passwd,login,git,make";
const SUITE: &str = "bookworm";

/// Run in the new root, by the shell, with its path as $1: the users that tests/run makes, and the service that runs the tests.
const SETUP: &str = r#"
set -eu
for user in sandboxtest sandboxmallory sandboxplain; do chroot "$1" useradd --create-home --shell /bin/sh "$user"; chmod 755 "$1/home/$user"; done
for file in subuid subgid; do printf 'sandboxtest:100000:65536\nsandboxmallory:165536:65536\n' >"$1/etc/$file"; done
mkdir -p "$1/var/lib/systemd/linger" "$1/payload"
touch "$1/var/lib/systemd/linger/sandboxtest"
echo vm >"$1/etc/hostname"
printf '127.0.0.1\tlocalhost vm\n' >"$1/etc/hosts"
echo '/dev/vda / ext4 defaults 0 0' >"$1/etc/fstab"
cat >"$1/etc/systemd/system/tests.service" <<'UNIT'
[Unit]
After=multi-user.target systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /payload; sh /payload/run >/run/said 2>&1; echo $? >/run/status; tar -C /run -cf /dev/vdc said status; sync'
ExecStopPost=/bin/systemctl poweroff --force --force
UNIT
ln -s ../tests.service "$1/etc/systemd/system/multi-user.target.wants/tests.service"
"#;

/// From the start of qemu: a test run takes about ten times as long as outside.
const MOST: Duration = Duration::from_secs(45 * 60);

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    match run(&names) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(125)
        }
    }
}

fn run(names: &[String]) -> Result<u8> {
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.ext4", "e2fsprogs"), ("gcc", "gcc")] {
        let found = ["/usr/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
        if !found {
            return Err(format!("cannot boot a machine: {program} is not installed\n  hint: sudo apt-get install {package}"));
        }
    }
    let image = image()?;
    let work = Work::new()?;
    let payload = payload(&work.0, names)?;
    let results = work.0.join("results");
    File::create(&results).and_then(|f| f.set_len(64 << 20)).map_err(|e| format!("cannot make a disk: {e}"))?;
    boot(&image, &payload, &results, &work.0.join("console"))?;
    let out = work.0.join("out");
    std::fs::create_dir(&out).map_err(|e| e.to_string())?;
    done(Command::new("tar").arg("-C").arg(&out).arg("-xf").arg(&results), "unpack the results")
        .map_err(|e| format!("{e}\n{}", String::from_utf8_lossy(&std::fs::read(work.0.join("console")).unwrap_or_default())))?;
    let said = std::fs::read(out.join("said")).map_err(|e| format!("the machine said nothing: {e}"))?;
    let _ = std::io::stdout().write_all(&said);
    let status = std::fs::read_to_string(out.join("status")).unwrap_or_default();
    status.trim().parse().map_err(|_| "the machine did not say how the tests ended".to_string())
}

/// A directory that is gone at the end.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Work> {
        let dir = std::env::temp_dir().join(format!("sandbox-vm-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(Work(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn done(command: &mut Command, what: &str) -> Result<()> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot {what}: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(format!("cannot {what}: {}", String::from_utf8_lossy(&out.stderr).trim())) }
}

/// The directory with `disk`, `vmlinuz` and `initrd`, made if it is not there.
fn image() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).ok_or("no HOME")?;
    let digest = Sha256::new().chain_update(PACKAGES).chain_update(SUITE).chain_update(SETUP).finalize();
    let key: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let dir = cache.join("sandbox-vm").join(key);
    if dir.exists() {
        return Ok(dir);
    }
    eprintln!("making the machine's image, once, in {}", dir.display());
    let new = dir.with_extension(format!("new-{}", std::process::id()));
    std::fs::create_dir_all(&new).map_err(|e| format!("cannot make {}: {e}", new.display()))?;
    // Without root, mmdebstrap works in a user namespace where we are somebody else.
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o777)).map_err(|e| e.to_string())?;
    let setup = new.join("setup");
    let finish = format!(
        "{SETUP}\ncp \"$1\"/boot/vmlinuz-* '{0}/vmlinuz'\ncp \"$1\"/boot/initrd.img-* '{0}/initrd'\nrm -rf \"$1\"/boot/*\n\
         mkdir '{0}/root'\nmount --bind \"$1\" '{0}/root' # without what is mounted in it\n\
         truncate -s 3G '{0}/disk'\nmkfs.ext4 -q -F -d '{0}/root' '{0}/disk'\numount '{0}/root'\nrmdir '{0}/root'\nchmod 644 '{0}'/*\n",
        new.display()
    );
    std::fs::write(&setup, finish).map_err(|e| e.to_string())?;
    let hook = format!("--customize-hook=sh '{}' \"$1\"", setup.display());
    let mut debian = Command::new("mmdebstrap");
    debian.args(["--variant=minbase", "--format=null", &format!("--include={PACKAGES}"), &hook, SUITE, "/dev/null"]);
    let made = done(&mut debian, "make the image").and_then(|()| std::fs::rename(&new, &dir).map_err(|e| format!("cannot keep the image: {e}")));
    if let Err(why) = made {
        let _ = std::fs::remove_dir_all(&new);
        // Somebody else may have been first.
        return if dir.exists() { Ok(dir) } else { Err(why) };
    }
    Ok(dir)
}

/// The disk with what was built, and what to do with it.
fn payload(work: &Path, names: &[String]) -> Result<PathBuf> {
    let dir = work.join("payload");
    std::fs::create_dir(&dir).map_err(|e| e.to_string())?;
    let copy = |from: &Path, name: &str| std::fs::copy(from, dir.join(name)).map(drop).map_err(|e| format!("cannot copy {}: {e}", from.display()));
    copy(Path::new(env!("CARGO_BIN_EXE_sandbox")), "sandbox")?;
    copy(&it()?, "it")?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/probe.c");
    done(Command::new("gcc").args(["-static", "-O1", "-o"]).arg(dir.join("probe")).arg(source), "compile the probe")?;
    let quoted: Vec<String> = names.iter().map(|n| format!("'{}'", n.replace('\'', "'\\''"))).collect();
    let script = format!(
        "chmod 666 /dev/fuse /dev/net/tun 2>/dev/null\nuname -sr\nexport SANDBOX_BUILT=/payload SANDBOX_PATIENCE=10 SANDBOX_STRICT={}\ncd /root\n\
         /payload/it --test-threads 2 {}\n",
        if std::env::var("SANDBOX_STRICT").is_ok_and(|v| v == "1") { 1 } else { 0 },
        quoted.join(" ")
    );
    std::fs::write(dir.join("run"), script).map_err(|e| e.to_string())?;
    let disk = work.join("payload.ext4");
    File::create(&disk).and_then(|f| f.set_len(400 << 20)).map_err(|e| e.to_string())?;
    done(Command::new("/sbin/mkfs.ext4").args(["-q", "-F", "-d"]).arg(&dir).arg(&disk), "make a disk")?;
    Ok(disk)
}

/// The built tests, as cargo says where they are.
fn it() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--test", "it", "--no-run", "--message-format=json"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo: {e}"))?;
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let messages = lines.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let executable = messages.filter(|m| m["target"]["name"] == "it").filter_map(|m| m["executable"].as_str().map(PathBuf::from)).last();
    executable.ok_or_else(|| "cargo built no tests".to_string())
}

fn boot(image: &Path, payload: &Path, results: &Path, console: &Path) -> Result<()> {
    let log = File::create(console).map_err(|e| e.to_string())?;
    let disk = |file: &Path, more: &str| format!("file={},format=raw,if=virtio,cache=unsafe{more}", file.display());
    let file = |name: &str| image.join(name).display().to_string();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072", "-nographic", "-no-reboot"]);
    qemu.args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd")]);
    qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.log_level=warning"]);
    // Nothing that one run writes is there in the next.
    for drive in [disk(&image.join("disk"), ",snapshot=on"), disk(payload, ",readonly=on"), disk(results, "")] {
        qemu.args(["-drive", &drive]);
    }
    let both = log.try_clone().map_err(|e| e.to_string())?;
    let mut machine = qemu.stdin(Stdio::null()).stdout(log).stderr(both).spawn().map_err(|e| format!("cannot start qemu-system-x86_64: {e}"))?;
    let start = Instant::now();
    while machine.try_wait().map_err(|e| e.to_string())?.is_none() {
        if start.elapsed() > MOST {
            let _ = machine.kill();
            let _ = machine.wait();
            let said = std::fs::read(console).unwrap_or_default();
            return Err(format!("the machine ran for more than {} minutes\n{}", MOST.as_secs() / 60, String::from_utf8_lossy(&said)));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
