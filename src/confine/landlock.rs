//! The Landlock ruleset: made in the parent, filled with paths and enforced in the child. Called by `launch`.
//! Must never enforce anything here, and never pass off as enforced what this kernel lacks: that goes into `missing`. // I5
#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result};
use crate::spec::{Landlock, LandlockFiles};
use ::landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope};
use std::os::fd::OwnedFd;

/// What the tape needs for `sys::confine::landlock_add_path` and `landlock_restrict_self`.
#[derive(Debug)]
pub struct Piece {
    /// None: nothing to enforce. Close-on-exec.
    pub ruleset: Option<OwnedFd>,
    /// Rights of a path that may be read and executed; 0 if files are not restricted.
    pub read: u64,
    /// Rights to add where it may also be written.
    pub write: u64,
    /// Right to add where devices may be configured by ioctl(2): /dev/pts and devices that the user asked for.
    pub device: u64,
    /// What the Spec asks for and this kernel cannot do.
    pub missing: Vec<String>,
}

pub const EXECUTE: u64 = AccessFs::Execute as u64;

/// The rights that a rule on anything but a directory may have; the kernel refuses others with EINVAL.
/// kernel: security/landlock/fs.c ACCESS_FILE
pub const ON_FILE: u64 = EXECUTE
    | AccessFs::WriteFile as u64
    | AccessFs::ReadFile as u64
    | AccessFs::Truncate as u64
    | AccessFs::IoctlDev as u64
    | AccessFs::ResolveUnix as u64;

/// What this kernel, of Landlock version `abi`, makes of `spec`.
pub fn plan(spec: &Landlock, abi: u32) -> Result<Piece> {
    let scopes = scopes(&spec.scopes)?;
    let files = spec.files == LandlockFiles::Declared;
    let tcp = spec.tcp_connect.is_some() || spec.tcp_bind.is_some();
    let mut missing = Vec::new();
    let mut need = |wanted: bool, least: u32, what: &str, kernel: &str| {
        if wanted && abi < least {
            missing.push(format!("landlock {what} need{} Linux {kernel}", if what.ends_with('s') { "" } else { "s" }));
        }
        wanted && abi >= least
    };
    let files = need(files, 1, "file rules", "5.13");
    need(files, 3, "truncate right", "6.2");
    need(files, 5, "device ioctl right", "6.10");
    let tcp = need(tcp, 4, "TCP rules", "6.7");
    let scoped = need(!scopes.is_empty(), 6, "scopes", "6.12");

    let abi = ABI::from(i32::try_from(abi).unwrap_or(i32::MAX));
    let all = if files { AccessFs::from_all(abi) } else { BitFlags::EMPTY };
    let read = all & AccessFs::from_read(abi);
    let device = all & AccessFs::IoctlDev;
    // Neither grants ResolveUnix: sockets of the sandbox's own are always reachable, others by no path.
    let write = all & !(read | AccessFs::IoctlDev | AccessFs::ResolveUnix);
    let mut ports: Vec<NetPort> = Vec::new();
    let mut handled: BitFlags<AccessNet> = BitFlags::EMPTY;
    for (list, access) in [(&spec.tcp_connect, AccessNet::ConnectTcp), (&spec.tcp_bind, AccessNet::BindTcp)] {
        if let Some(list) = list.as_ref().filter(|_| tcp) {
            handled |= access;
            ports.extend(list.iter().map(|p| NetPort::new(*p, access)));
        }
    }

    let ruleset = if files || scoped || !handled.is_empty() {
        // We have sorted out by ourselves what this kernel lacks; whatever is left is an error.
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if files {
            ruleset = ruleset.handle_access(all).map_err(failed)?;
        }
        if !handled.is_empty() {
            ruleset = ruleset.handle_access(handled).map_err(failed)?;
        }
        if scoped {
            ruleset = ruleset.scope(scopes).map_err(failed)?;
        }
        let mut ruleset = ruleset.create().map_err(failed)?;
        for port in ports {
            ruleset = ruleset.add_rule(port).map_err(failed)?;
        }
        let fd: Option<OwnedFd> = ruleset.into();
        Some(fd.ok_or_else(|| failed("the kernel has no Landlock"))?)
    } else {
        None
    };
    Ok(Piece { ruleset, read: read.bits(), write: write.bits(), device: device.bits(), missing })
}

fn scopes(names: &[String]) -> Result<BitFlags<Scope>> {
    names.iter().try_fold(BitFlags::EMPTY, |set, name| match name.as_str() {
        "signal" => Ok(set | Scope::Signal),
        "abstract-unix-socket" => Ok(set | Scope::AbstractUnixSocket),
        _ => Err(Error::usage(format!("unknown landlock scope '{name}'")).hint("the scopes are signal, abstract-unix-socket")),
    })
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unsupported, format!("cannot make a landlock ruleset: {e}")).hint("try without it: --best-effort landlock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(scopes: &[&str], files: LandlockFiles, connect: Option<Vec<u16>>) -> Landlock {
        Landlock { scopes: scopes.iter().map(|s| s.to_string()).collect(), files, tcp_connect: connect, tcp_bind: None }
    }

    fn strict() -> Landlock {
        spec(&["signal", "abstract-unix-socket"], LandlockFiles::Declared, Some(vec![443]))
    }

    #[test]
    fn a_kernel_without_landlock_lacks_all_of_it_and_says_so() {
        let piece = plan(&strict(), 0).unwrap();
        assert!(piece.ruleset.is_none());
        assert_eq!((piece.read, piece.write, piece.device), (0, 0, 0));
        // Each once: without file rules nobody asks which of them.
        let all = ["file rules need Linux 5.13", "TCP rules need Linux 6.7", "scopes need Linux 6.12"];
        assert_eq!(piece.missing, all.map(|m| format!("landlock {m}")));
    }

    #[test]
    fn every_version_lacks_what_came_later() {
        let here = crate::sys::confine::landlock_abi();
        for (abi, lacks) in [(1, 4), (2, 4), (3, 3), (4, 2), (5, 1), (6, 0), (7, 0)] {
            if abi > here {
                continue; // making the ruleset needs the kernel
            }
            let piece = plan(&strict(), abi).unwrap();
            assert_eq!(piece.missing.len(), lacks, "{abi}: {:?}", piece.missing);
            assert!(piece.ruleset.is_some());
            assert_eq!(piece.read, 0b1101, "execute, read_file, read_dir");
            assert_eq!(piece.write & (piece.read | piece.device), 0);
            let later = [(2, AccessFs::Refer), (3, AccessFs::Truncate)];
            assert!(later.iter().all(|(since, right)| (abi >= *since) == (piece.write & *right as u64 != 0)), "{abi}");
            assert_eq!(piece.device, if abi >= 5 { AccessFs::IoctlDev as u64 } else { 0 });
        }
    }

    #[test]
    fn asking_for_nothing_makes_nothing() {
        let piece = plan(&spec(&[], LandlockFiles::Off, None), 7).unwrap();
        assert!(piece.ruleset.is_none() && piece.missing.is_empty());
        assert_eq!((piece.read, piece.write), (0, 0));
    }

    #[test]
    fn scopes_alone_leave_files_alone() {
        let here = crate::sys::confine::landlock_abi();
        let piece = plan(&spec(&["signal"], LandlockFiles::Off, None), here).unwrap();
        assert_eq!((piece.read, piece.write, piece.device), (0, 0, 0));
        assert_eq!(piece.ruleset.is_some(), here >= 6);
        if let Some(fd) = piece.ruleset {
            assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn cve_2025_66479_an_empty_list_of_ports_allows_none() {
        if crate::sys::confine::landlock_abi() >= 4 {
            let piece = plan(&spec(&[], LandlockFiles::Off, Some(vec![])), 4).unwrap();
            assert!(piece.ruleset.is_some() && piece.missing.is_empty());
        }
    }

    #[test]
    fn an_unknown_scope_is_named() {
        let e = plan(&spec(&["signals"], LandlockFiles::Off, None), 7).unwrap_err();
        assert!(e.message().contains("'signals'") && e.kind() == Kind::Usage);
    }
}
