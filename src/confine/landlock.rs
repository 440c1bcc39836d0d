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

/// The rights that a rule on anything but a directory may have; the kernel refuses others with EINVAL.
/// kernel: security/landlock/fs.c ACCESS_FILE
pub const ON_FILE: u64 = AccessFs::Execute as u64
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
