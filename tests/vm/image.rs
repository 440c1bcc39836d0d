//! The machine's disk, made once by `mmdebstrap` and kept in the user's cache under the hash of its recipe.

use crate::{Result, done};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::Command;

/// What is in the machine besides its kernel: what `sandbox` needs, and what drives it in the tests.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,iproute2,procps,fuse3,kmod,strace,tmux,python3-minimal,\
     passwd,login,git,make,libcap2-bin";
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's own, Linux 6.1.
    Stable,
    /// The newest that Debian 12 is offered.
    Backports,
}

impl Kernel {
    fn package(self) -> &'static str {
        match self {
            Kernel::Stable => "linux-image-cloud-amd64",
            Kernel::Backports => "linux-image-cloud-amd64/bookworm-backports",
        }
    }

    /// As qemu is to emulate it. What Debian 12's qemu (7.2) emulates badly, kernels did not use before.
    pub fn processor(self) -> &'static str {
        match self {
            Kernel::Stable => "max",
            Kernel::Backports => "max,-cx16,-la57",
        }
    }
}

/// Run in the new root, by the shell, with its path as $1: the users that tests/run makes, of whom one lingers, and the service that runs
/// the tests. No timer of the system's may take the processor from them.
const SETUP: &str = r#"
set -eu
for user in sandboxtest sandboxmallory sandboxplain; do chroot "$1" useradd --create-home --shell /bin/sh "$user"; chmod 755 "$1/home/$user"; done
for file in subuid subgid; do printf 'sandboxtest:100000:65536\nsandboxmallory:165536:65536\n' >"$1/etc/$file"; done
mkdir -p "$1/var/lib/systemd/linger" "$1/payload"
touch "$1/var/lib/systemd/linger/sandboxtest"
echo vm >"$1/etc/hostname"
printf '127.0.0.1\tlocalhost vm\n' >"$1/etc/hosts"
echo '/dev/vda / ext4 defaults 0 0' >"$1/etc/fstab"
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim man-db; do ln -s /dev/null "$1/etc/systemd/system/$timer.timer"; done
cat >"$1/etc/systemd/system/tests.service" <<'UNIT'
[Unit]
After=multi-user.target systemd-user-sessions.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mount -o ro /dev/vdb /payload; exec /payload/vm --inside'
ExecStopPost=/bin/sh -c '[ -e /run/tests-go-on ] || exec systemctl poweroff --force --force'
StandardOutput=journal+console
UNIT
ln -s ../tests.service "$1/etc/systemd/system/multi-user.target.wants/tests.service"
"#;

/// The directory with `disk`, `vmlinuz` and `initrd`, made if it is not there.
pub fn image(kernel: Kernel) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).ok_or("no HOME")?;
    let digest = Sha256::new().chain_update(PACKAGES).chain_update(kernel.package()).chain_update(SUITE).chain_update(SETUP).finalize();
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
    debian.args(["--variant=minbase", "--format=null", &format!("--include={PACKAGES},{}", kernel.package()), &hook, SUITE, "/dev/null"]);
    if kernel == Kernel::Backports {
        debian.args([format!("deb {MIRROR} {SUITE} main"), format!("deb {MIRROR} {SUITE}-backports main")]);
    }
    let made = done(&mut debian, "make the image").and_then(|()| std::fs::rename(&new, &dir).map_err(|e| format!("cannot keep the image: {e}")));
    if let Err(why) = made {
        let _ = std::fs::remove_dir_all(&new);
        // Somebody else may have been first.
        return if dir.exists() { Ok(dir) } else { Err(why) };
    }
    Ok(dir)
}
