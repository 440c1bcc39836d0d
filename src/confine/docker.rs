//! Seccomp profiles in the JSON format of Docker and podman. Called by `seccomp`.
//! Must never widen: what we cannot honour is an error that names the place.
#![forbid(unsafe_code)]

use super::groups::Tables;
use super::seccomp::{self, Program, Rule, Term};
use crate::error::{Doing, Error, Result};
use crate::spec::restrict::capability;
use libseccomp::{ScmpAction, ScmpArch, ScmpCompareOp};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// Docker's own profile has 20 KiB.
const MAX_PROFILE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    /// podman's name for the same.
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Arch>>,
    syscalls: Option<Vec<Call>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    #[serde(rename = "$schema")]
    _schema: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Arch {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Call {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    errno: Option<String>,
    args: Option<Vec<Arg>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The bytes of a profile: a regular file, of bounded size.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    use rustix::fs::{Mode, OFlags};
    let object = format!("seccomp profile {}", path.display());
    let refuse = |why: &str| Err(Error::usage(format!("cannot read {object}: {why}")));
    // NONBLOCK: a fifo must not hold us.
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).doing("read", &object)?;
    let file = std::fs::File::from(fd);
    if !file.metadata().doing("read", &object)?.is_file() {
        return refuse("it is no regular file");
    }
    let mut text = Vec::new();
    file.take(MAX_PROFILE + 1).read_to_end(&mut text).doing("read", &object)?;
    if text.len() as u64 > MAX_PROFILE {
        return refuse("it has more than 1 MiB");
    }
    Ok(text)
}

/// A profile into a program, as Docker and runc do it: capabilities, architecture and kernel choose the rules, names that nobody
/// knows are left out, and numbers beyond what the profile's author can have known fail with ENOSYS.
pub(super) fn compile(path: &Path, text: &[u8], capabilities: &BTreeSet<u8>, kernel: &str) -> Result<Program> {
    let bad = |place: &str, why: &str| {
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        Error::usage(format!("cannot use seccomp profile {}: {place}{why}", path.display()))
    };
    let profile: Profile = serde_json::from_slice(text).map_err(|e| bad("", &e.to_string()))?;
    if profile.listener_path.is_some() || profile.listener_metadata.is_some() {
        return Err(bad("listenerPath", "a listener is not supported"));
    }
    if profile.flags.iter().flatten().next().is_some() {
        return Err(bad("flags", "flags are not supported"));
    }
    let errno = errno(profile.default_errno_ret, profile.default_errno.as_deref()).map_err(|e| bad("defaultErrno", &e))?;
    let default = action(&profile.default_action, errno).map_err(|e| bad("defaultAction", &e))?;
    let foreign = foreign(&profile).map_err(|e| bad("architectures", &e))?;

    let tables = Tables::read()?;
    let mut rules: Vec<Rule> = Vec::new();
    let mut newest = None;
    for (i, call) in profile.syscalls.iter().flatten().enumerate() {
        let place = format!("syscalls[{i}]");
        let bad = |why: String| bad(&place, &why);
        let names: Vec<&String> = call.name.iter().chain(call.names.iter().flatten()).collect();
        if call.name.is_some() && call.names.is_some() {
            return Err(bad("both name and names".into()));
        }
        let numbers: Vec<i32> = names.iter().filter_map(|n| tables.number(n).here()).collect();
        newest = newest.max(numbers.iter().copied().max());
        // Read before it is asked whether it applies: a profile is right or wrong on every machine.
        let action = errno_of(call).and_then(|e| action(&call.action, e)).map_err(bad)?;
        let terms = call.args.iter().flatten().map(term).collect::<Result<Vec<Term>, String>>().map_err(bad)?;
        let applies = applies(call, capabilities, kernel).map_err(bad)?;
        if !applies || action == default {
            continue;
        }
        // Several conditions on one argument are alternatives: runc does so, and libseccomp could not AND them.
        let mut indices = BTreeSet::new();
        let repeated = !call.args.iter().flatten().all(|a| indices.insert(a.index));
        for number in numbers {
            if repeated {
                rules.extend(terms.iter().map(|t| Rule { number, action, when: vec![*t] }));
            } else {
                rules.push(Rule { number, action, when: terms.clone() });
            }
        }
    }

    let refuse = |e: Error| bad("", e.message());
    let mut filter = seccomp::filter(default, &[ScmpArch::native()], &rules).map_err(refuse)?;
    if !foreign.is_empty() {
        // The library translates a number by its name, so in the foreign part only calls that it can name.
        rules.retain(|r| libseccomp::ScmpSyscall::from_raw_syscall(r.number).get_name().is_ok());
        let other = seccomp::filter(default, &foreign, &rules).map_err(refuse)?;
        filter.merge(other).map_err(|e| bad("architectures", &e.to_string()))?;
    }
    let program = seccomp::export(&filter).map_err(refuse)?;
    match (default, newest) {
        (ScmpAction::Allow | ScmpAction::Log | ScmpAction::Errno(libc::ENOSYS), _) | (_, None) => Ok(program),
        // With Docker's EPERM a program that knows a newer call would take it for forbidden and not fall back.
        (_, Some(newest)) => program.without(&[newest as u32 + 1..=seccomp::LAST]).map_err(refuse),
    }
}

fn foreign(profile: &Profile) -> Result<Vec<ScmpArch>, String> {
    let mut names: Vec<&str> = profile.architectures.iter().flatten().map(String::as_str).collect();
    let map = profile.arch_map.as_deref().unwrap_or_default();
    if !names.is_empty() && !map.is_empty() {
        return Err("both architectures and archMap".into());
    }
    let native = if cfg!(target_arch = "x86_64") { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" };
    names.extend(map.iter().filter(|a| a.architecture == native).flat_map(|a| a.sub_architectures.iter().flatten()).map(String::as_str));
    // Others cannot run here.
    let here = |name: &str| match name {
        "SCMP_ARCH_X86" if cfg!(target_arch = "x86_64") => Some(ScmpArch::X86),
        "SCMP_ARCH_X32" if cfg!(target_arch = "x86_64") => Some(ScmpArch::X32),
        "SCMP_ARCH_ARM" if cfg!(target_arch = "aarch64") => Some(ScmpArch::Arm),
        _ => None,
    };
    if let Some(bad) = names.iter().find(|n| !n.starts_with("SCMP_ARCH_")) {
        return Err(format!("unknown architecture '{bad}'"));
    }
    let mut arches: Vec<ScmpArch> = Vec::new();
    for arch in names.into_iter().filter_map(here) {
        if !arches.contains(&arch) {
            arches.push(arch);
        }
    }
    Ok(arches)
}

fn errno_of(call: &Call) -> Result<u16, String> {
    errno(call.errno_ret, call.errno.as_deref())
}

/// Docker's number or podman's name; EPERM when neither is there.
fn errno(number: Option<u16>, name: Option<&str>) -> Result<u16, String> {
    let named = match name {
        None | Some("") => None,
        Some("EPERM") => Some(libc::EPERM as u16),
        Some("EACCES") => Some(libc::EACCES as u16),
        Some("EINVAL") => Some(libc::EINVAL as u16),
        Some("ENOSYS") => Some(libc::ENOSYS as u16),
        Some("EAFNOSUPPORT") => Some(libc::EAFNOSUPPORT as u16),
        Some("EPROTONOSUPPORT") => Some(libc::EPROTONOSUPPORT as u16),
        Some(other) => return Err(format!("unknown errno '{other}'; use errnoRet")),
    };
    // kernel: include/linux/err.h MAX_ERRNO. A larger one is cut off, and would be another error than the profile says.
    named.or(number).map_or(Ok(libc::EPERM as u16), |n| if n <= 4095 { Ok(n) } else { Err(format!("errno {n} does not exist")) })
}

fn action(name: &str, errno: u16) -> Result<ScmpAction, String> {
    match name {
        "SCMP_ACT_ALLOW" => Ok(ScmpAction::Allow),
        "SCMP_ACT_LOG" => Ok(ScmpAction::Log),
        "SCMP_ACT_ERRNO" => Ok(ScmpAction::Errno(errno.into())),
        "SCMP_ACT_TRAP" => Ok(ScmpAction::Trap),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(ScmpAction::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(ScmpAction::KillProcess),
        "SCMP_ACT_NOTIFY" | "SCMP_ACT_TRACE" => Err(format!("{name} needs a supervisor and is not supported")),
        _ => Err(format!("unknown action '{name}'")),
    }
}

fn term(arg: &Arg) -> Result<Term, String> {
    if arg.index > 5 {
        return Err(format!("argument {} does not exist", arg.index));
    }
    let op = match arg.op.as_str() {
        "SCMP_CMP_NE" => ScmpCompareOp::NotEqual,
        "SCMP_CMP_LT" => ScmpCompareOp::Less,
        "SCMP_CMP_LE" => ScmpCompareOp::LessOrEqual,
        "SCMP_CMP_EQ" => ScmpCompareOp::Equal,
        "SCMP_CMP_GE" => ScmpCompareOp::GreaterEqual,
        "SCMP_CMP_GT" => ScmpCompareOp::Greater,
        "SCMP_CMP_MASKED_EQ" => return Ok(Term::new(arg.index, ScmpCompareOp::MaskedEqual(arg.value), arg.value_two)),
        other => return Err(format!("unknown comparison '{other}'")),
    };
    Ok(Term::new(arg.index, op, arg.value))
}

fn applies(call: &Call, capabilities: &BTreeSet<u8>, kernel: &str) -> Result<bool, String> {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let (default, mut applies) = (Filter::default(), true);
    for (filter, wanted) in [(call.includes.as_ref().unwrap_or(&default), true), (call.excludes.as_ref().unwrap_or(&default), false)] {
        let arches = filter.arches.as_deref().unwrap_or_default();
        if !arches.is_empty() {
            applies &= arches.iter().any(|a| a == arch) == wanted;
        }
        for name in filter.caps.iter().flatten() {
            // A capability that we do not know is one that nobody here has.
            let has = capability(name).is_ok_and(|c| capabilities.contains(&c));
            applies &= has == wanted;
        }
        if let Some(least) = filter.min_kernel.as_deref().filter(|k| !k.is_empty()) {
            let least = version(least).ok_or_else(|| format!("bad minKernel '{least}'"))?;
            let this = version(kernel).ok_or_else(|| format!("cannot read the kernel's version '{kernel}'"))?;
            applies &= (this >= least) == wanted;
        }
    }
    Ok(applies)
}

/// The first two numbers of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::simulator::{ENOSYS, EPERM, I386, Verdict, X32, X86_64, judge};
    use super::*;

    fn program(text: &str, capabilities: &[u8]) -> Result<Program> {
        compile(Path::new("/p.json"), text.as_bytes(), &capabilities.iter().copied().collect(), "6.1.0-13-amd64")
    }

    fn ask(text: &str, capabilities: &[u8], number: i64, args: [u64; 6]) -> Verdict {
        judge(program(text, capabilities).unwrap().filter(), X86_64, number as u32, args)
    }

    /// In the shape of Docker's own profile.
    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }
        ],
        "syscalls": [
            { "names": ["read", "write", "openat", "exit_group", "no_such_call", "fchmodat2", "mseal"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["process_vm_readv", "ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
            { "names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "6.2" } },
            { "names": ["vmsplice"], "action": "SCMP_ACT_ALLOW", "excludes": { "minKernel": "4.8" } },
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 40, "op": "SCMP_CMP_NE" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
            { "names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"] } },
            { "names": ["iopl"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["arm64", "s390x"] } },
            { "names": ["mount", "clone", "setns"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            {
                "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{ "index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
                "comment": "", "includes": {}, "excludes": { "caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"] }
            },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": { "caps": ["CAP_SYS_ADMIN"] } }
        ]
    }"#;
    const SYS_ADMIN: u8 = 21;

    #[test]
    fn dockers_own_shape() {
        for (number, args, expected) in [
            (libc::SYS_read, [0; 6], Verdict::Allow),
            (libc::SYS_mseal, [0; 6], Verdict::Allow),
            (libc::SYS_fchmodat2, [0; 6], Verdict::Allow),
            (libc::SYS_ptrace, [0; 6], Verdict::Allow),
            (libc::SYS_kcmp, [0; 6], EPERM),
            (libc::SYS_vmsplice, [0; 6], EPERM),
            (libc::SYS_socket, [2, 1, 0, 0, 0, 0], Verdict::Allow),
            (libc::SYS_socket, [40, 1, 0, 0, 0, 0], EPERM),
            (libc::SYS_personality, [8, 0, 0, 0, 0, 0], Verdict::Allow),
            (libc::SYS_personality, [9, 0, 0, 0, 0, 0], EPERM),
            (libc::SYS_arch_prctl, [0; 6], Verdict::Allow),
            (libc::SYS_iopl, [0; 6], EPERM),
            (libc::SYS_mount, [0; 6], EPERM),
            (libc::SYS_clone, [0x11, 0, 0, 0, 0, 0], Verdict::Allow),
            (libc::SYS_clone, [0x1000_0011, 0, 0, 0, 0, 0], EPERM),
            (libc::SYS_clone3, [0; 6], ENOSYS),
            (libc::SYS_bpf, [0; 6], EPERM),
            (462, [0; 6], Verdict::Allow),
            (463, [0; 6], ENOSYS),
            (9999, [0; 6], ENOSYS),
        ] {
            assert_eq!(ask(PROFILE, &[], number, args), expected, "{number} {args:?}");
        }
        for (number, expected) in [(libc::SYS_mount, Verdict::Allow), (libc::SYS_clone, Verdict::Allow), (libc::SYS_clone3, EPERM)] {
            assert_eq!(ask(PROFILE, &[SYS_ADMIN], number, [0x1000_0011, 0, 0, 0, 0, 0]), expected, "{number}");
        }
    }

    #[test]
    fn foreign_abis_only_if_the_profile_says_so() {
        let with = program(PROFILE, &[]).unwrap();
        assert_eq!(judge(with.filter(), I386, 3, [0; 6]), Verdict::Allow, "read on i386");
        assert_eq!(judge(with.filter(), I386, 21, [0; 6]), EPERM, "mount on i386");
        assert_eq!(judge(with.filter(), X86_64, X32, [0; 6]), Verdict::Allow, "read on x32");
        assert_eq!(judge(with.filter(), X86_64, X32 | 165, [0; 6]), EPERM, "mount on x32");
        assert_eq!(judge(with.filter(), 0xc000_00b7, 63, [0; 6]), Verdict::KillProcess, "aarch64");
        let without = program(r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"}]}"#, &[]).unwrap();
        assert_eq!(judge(without.filter(), I386, 3, [0; 6]), Verdict::KillProcess);
        assert_eq!(judge(without.filter(), X86_64, X32, [0; 6]), Verdict::KillProcess);
        assert_eq!(judge(without.filter(), X86_64, 0, [0; 6]), Verdict::Allow);
    }

    #[test]
    fn podmans_shape_and_a_deny_list() {
        let podman = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"ENOSYS","defaultErrnoRet":38,"syscalls":[
            {"names":["bdflush","bpf"],"action":"SCMP_ACT_ERRNO","args":[],"comment":"","includes":{},"excludes":{},"errnoRet":1,"errno":"EPERM"},
            {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null}]}"#;
        assert_eq!(ask(podman, &[], libc::SYS_bpf, [0; 6]), EPERM);
        assert_eq!(ask(podman, &[], libc::SYS_mount, [0; 6]), ENOSYS);
        let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_KILL_PROCESS"},
            {"names":["mkdir"],"action":"SCMP_ACT_TRAP"},{"names":["rmdir"],"action":"SCMP_ACT_LOG"},{"names":["link"],"action":"SCMP_ACT_KILL"}]}"#;
        for (number, expected) in [
            (libc::SYS_chmod, Verdict::KillProcess),
            (libc::SYS_mkdir, Verdict::Trap),
            (libc::SYS_rmdir, Verdict::Log),
            (libc::SYS_link, Verdict::KillThread),
            (libc::SYS_read, Verdict::Allow),
            (9999, Verdict::Allow),
        ] {
            assert_eq!(ask(deny, &[], number, [0; 6]), expected, "{number}");
        }
    }

    #[test]
    fn podmans_audit_rules_work_where_i386_cannot_tell_them_apart() {
        let rule = |action: &str, args: &str| format!(r#"{{"names":["socket"],"action":"{action}","errno":"EINVAL","args":[{args}]}}"#);
        let (netlink, audit) = (r#"{"index":0,"value":16,"op":"SCMP_CMP_EQ"}"#, r#"{"index":2,"value":9,"op":"SCMP_CMP_EQ"}"#);
        let rules = [
            rule("SCMP_ACT_ERRNO", &format!("{netlink},{audit}")),
            rule("SCMP_ACT_ALLOW", &audit.replace("EQ", "NE")),
            rule("SCMP_ACT_ALLOW", &netlink.replace("EQ", "NE")),
            rule("SCMP_ACT_ALLOW", &audit.replace("EQ", "NE")),
        ];
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}}],
            "syscalls":[{}]}}"#,
            rules.join(",")
        );
        for (family, protocol, expected) in
            [(16, 9, Verdict::Errno(libc::EINVAL as u16)), (16, 0, Verdict::Allow), (2, 9, Verdict::Allow), (2, 0, Verdict::Allow)]
        {
            assert_eq!(ask(&text, &[], libc::SYS_socket, [family, 3, protocol, 0, 0, 0]), expected);
        }
        // A refusal that would be lost is an error.
        let lost = text.replace("NE\"", "EQ\"").replace("SCMP_ACT_ALLOW", "SCMP_ACT_TRAP");
        let e = program(&lost, &[]).unwrap_err();
        assert!(e.message().contains("existence"), "{e}");
    }

    #[test]
    fn every_comparison() {
        for (op, fits, not) in
            [("NE", 4, 5), ("LT", 4, 5), ("LE", 5, 6), ("EQ", 5, 1 << 32 | 5), ("GE", 5, 4), ("GE", 1 << 32, 4), ("GT", 6, 5), ("GT", 1 << 32, 5)]
        {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"name":"kill","action":"SCMP_ACT_ALLOW","args":[
                {{"index":1,"value":5,"op":"SCMP_CMP_{op}"}}]}}]}}"#
            );
            assert_eq!(ask(&text, &[], libc::SYS_kill, [0, fits, 0, 0, 0, 0]), Verdict::Allow, "{op}");
            assert_eq!(ask(&text, &[], libc::SYS_kill, [0, not, 0, 0, 0, 0]), EPERM, "{op}");
        }
        let alternatives = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"name":"kill","action":"SCMP_ACT_ALLOW","args":[
            {"index":1,"value":5,"op":"SCMP_CMP_EQ"},{"index":1,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#;
        for (signal, expected) in [(5, Verdict::Allow), (7, Verdict::Allow), (6, EPERM)] {
            assert_eq!(ask(alternatives, &[], libc::SYS_kill, [0, signal, 0, 0, 0, 0]), expected);
        }
    }

    #[test]
    fn a_bad_profile_is_one_clear_line() {
        let call = |rest: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],{rest}}}]}}"#);
        for (text, place) in [
            ("", "line 1 column 0"),
            ("[]", "line 1"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","sycalls":[]}"#, "sycalls"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction":"ALLOW"}"#, "defaultAction: unknown action"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#, "errno 5000"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"]}"#, "flags"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}"#, "listenerPath"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["x86"]}"#, "unknown architecture 'x86'"),
            (&call(r#""action":"SCMP_ACT_TRACE""#), "syscalls[0]: SCMP_ACT_TRACE"),
            (&call(r#""action":"SCMP_ACT_ALLOW","name":"write""#), "both name and names"),
            (&call(r#""action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]"#), "argument 6"),
            (&call(r#""action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"=="}]"#), "unknown comparison"),
            (&call(r#""action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}]"#), "line 1"),
            (&call(r#""action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}"#), "bad minKernel"),
            (&call(r#""action":"SCMP_ACT_ALLOW","includes":{"minKernels":"4.8"}"#), "minKernels"),
        ] {
            let e = program(text, &[]).unwrap_err();
            assert!(e.message().contains("/p.json") && e.message().contains(place) && !e.message().contains('\n'), "{text}: {e}");
        }
    }

    #[test]
    fn only_a_small_regular_file_is_read() {
        let dir = std::env::temp_dir().join(format!("sandbox-docker-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (big, fifo) = (dir.join("big"), dir.join("fifo"));
        std::fs::write(&big, vec![b' '; MAX_PROFILE as usize + 1]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        for (path, why) in
            [(big.as_path(), "1 MiB"), (&fifo, "regular"), (&dir, "regular"), (Path::new("/dev/zero"), "regular"), (&dir.join("none"), "no such")]
        {
            let e = read(path).unwrap_err();
            assert!(e.message().contains(why) && e.message().contains(path.to_str().unwrap()), "{e}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
