//! The seccomp filter as a BPF program: compiled by libseccomp in the parent, cached on disk. Called by `launch`.
//! Must never load anything: that is the child's last step but one.
#![forbid(unsafe_code)]

use super::{docker, groups};
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::spec::{Seccomp, SeccompProfile};
use crate::sys::confine::{MAX_INSTRUCTIONS, SockFilter};
use libseccomp::error::{SeccompErrno, SeccompError};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One comparison of one argument.
pub(super) type Term = ScmpArgCompare;

/// What happens to a call whose arguments fit every term.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub number: i32,
    pub action: ScmpAction,
    pub when: Vec<Term>,
}

/// A filter that the kernel can load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    filter: Box<[SockFilter]>,
}

impl Program {
    pub fn filter(&self) -> &[SockFilter] {
        &self.filter
    }

    pub fn into_filter(self) -> Box<[SockFilter]> {
        self.filter
    }

    pub fn instructions(&self) -> usize {
        self.filter.len()
    }

    /// What libseccomp was to take for [`GRANT`] is a permission.
    fn granting(mut self) -> Program {
        self.filter.iter_mut().filter(|i| (i.code, i.k) == (RETURN, libc::SECCOMP_RET_TRACE)).for_each(|i| i.k = libc::SECCOMP_RET_ALLOW);
        self
    }

    /// Puts before it: native calls with these numbers, of which there is no 0, fail with ENOSYS. libseccomp knows no ranges of numbers. runc does
    /// the same for all above the newest one (libcontainer/seccomp/patchbpf).
    pub(super) fn without(self, absent: &[RangeInclusive<u32>]) -> Result<Program> {
        const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
        const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
        const ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
        // kernel: include/uapi/linux/audit.h AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
        let arch = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
        let mut stub = vec![SockFilter { code: LOAD, jt: 0, jf: 0, k: 0 }];
        for range in absent {
            stub.push(SockFilter { code: ABOVE, jt: 0, jf: 2, k: range.start().saturating_sub(1) });
            stub.push(SockFilter { code: ABOVE, jt: 1, jf: 0, k: *range.end() });
            stub.push(SockFilter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 });
        }
        let length = u8::try_from(stub.len()).map_err(|_| Error::new(Kind::Bug, "too many ranges of system calls that are not there"))?;
        let first = [SockFilter { code: LOAD, jt: 0, jf: 0, k: 4 }, SockFilter { code: EQUAL, jt: 0, jf: length, k: arch }];
        let filter = [&first, stub.as_slice(), &self.filter].concat();
        fits(filter.len()).map(|()| Program { filter: filter.into() })
    }

    fn from_bytes(bytes: &[u8]) -> Option<Program> {
        let (words, rest) = bytes.as_chunks::<8>();
        if words.is_empty() || words.len() > MAX_INSTRUCTIONS || !rest.is_empty() {
            return None;
        }
        let filter = words.iter().map(|&[a, b, jt, jf, k @ ..]| SockFilter { code: u16::from_ne_bytes([a, b]), jt, jf, k: u32::from_ne_bytes(k) });
        Some(Program { filter: filter.collect() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.filter.len() * 8);
        for i in &self.filter {
            bytes.extend(i.code.to_ne_bytes());
            bytes.extend([i.jt, i.jf]);
            bytes.extend(i.k.to_ne_bytes());
        }
        bytes
    }
}

/// The filter that `spec` asks for; None if it asks for none. `cache` is our cache directory (`dirs::cache`), if the caller has a home.
/// A profile in Docker's format stands alone: the policy's lists say nothing about it.
pub fn compile(spec: &Seccomp, nested: bool, capabilities: &BTreeSet<u8>, cache: Option<&Path>) -> Result<Option<Program>> {
    let profile = match &spec.profile {
        SeccompProfile::Unconfined => return Ok(None),
        SeccompProfile::Groups => None,
        SeccompProfile::Docker(path) => Some((path, docker::read(path)?)),
        SeccompProfile::Pinned { path, text } => Some((path, text.clone().into_bytes())),
    };
    let kernel = rustix::system::uname();
    let key = key(spec, nested, capabilities, profile.as_ref().map(|p| (p.1.as_slice(), kernel.release().to_bytes())))?;
    if let Some(program) = cache.and_then(|dir| recall(dir, &key)) {
        return Ok(Some(program));
    }
    let program = match profile {
        Some((path, text)) => docker::compile(path, &text, capabilities, &kernel.release().to_string_lossy())?,
        None => {
            // In a namespace of one's own, a raw socket is what CAP_NET_RAW says. Two levels never have it.
            let raw = nested && capabilities.contains(&CAP_NET_RAW);
            let verdicts = groups::Tables::read()?.verdicts(spec, nested, raw)?;
            let program = export(&filter(GRANT, &[ScmpArch::native()], &verdicts.rules)?)?.granting();
            program.without(&verdicts.absent)?
        }
    };
    if let Some(dir) = cache {
        keep(dir, &key, &program);
    }
    Ok(Some(program))
}

/// Read the profile's file, once for all that will be bound by it.
pub fn pin(profile: &mut SeccompProfile) -> Result<()> {
    if let SeccompProfile::Docker(path) = profile {
        let text = String::from_utf8(docker::read(path)?);
        let text = text.map_err(|_| Error::usage(format!("cannot read the seccomp profile {}: it is not UTF-8", path.display())))?;
        *profile = SeccompProfile::Pinned { path: std::mem::take(path), text };
    }
    Ok(())
}

const CAP_NET_RAW: u8 = 13;

const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Above are the calls of another ABI, which is not ours to judge here. kernel: arch/x86/include/uapi/asm/unistd.h __X32_SYSCALL_BIT
pub(super) const LAST: u32 = if cfg!(target_arch = "x86_64") { 0x3fff_ffff } else { 0x7fff_ffff };

/// libseccomp takes no rule with the action that is the default. So where permission is both, this stands for it, which no rule of ours means.
const GRANT: ScmpAction = ScmpAction::Trace(0);

/// A filter for a program of our own: these calls, new threads but no processes, and nothing else. Names that this architecture lacks are
/// left out; that can only forbid.
pub fn only(calls: &[&str]) -> Result<Program> {
    let mut rules: Vec<Rule> = Vec::new();
    for name in calls {
        let call = name.parse().map(ScmpSyscall::from_raw_syscall).or_else(|_| ScmpSyscall::from_name(name));
        if let Ok(call) = call
            && i32::from(call) >= 0
        {
            rules.push(Rule { number: call.into(), action: ScmpAction::Allow, when: Vec::new() });
        }
    }
    let thread = libc::CLONE_THREAD as u32;
    let clone = ScmpSyscall::from_name("clone").map_err(broken)?;
    rules.push(Rule { number: clone.into(), action: ScmpAction::Allow, when: vec![equal(0, thread, thread)] });
    export(&filter(ScmpAction::Errno(libc::ENOSYS), &[ScmpArch::native()], &rules)?)
}

/// A filter that leaves these calls to whoever listens, those with an argument only if that has one of the values under the mask; nothing
/// else, and no other architecture, is its matter. It decides with the policy's filter, whose refusals come first. man: seccomp(2)
pub fn notify<'a>(calls: impl Iterator<Item = (&'a str, Option<(u32, u32, &'a [u32])>)>) -> Result<Program> {
    let mut rules: Vec<Rule> = Vec::new();
    for (name, only) in calls {
        let Some(number) = ScmpSyscall::from_name(name).ok().map(i32::from).filter(|n| *n >= 0) else { continue };
        let mut push = |when| rules.push(Rule { number, action: ScmpAction::Notify, when });
        match only {
            None => push(Vec::new()),
            Some((argument, mask, values)) => values.iter().for_each(|value| push(vec![equal(argument, *value, mask)])),
        }
    }
    let mut filter = filter(ScmpAction::Allow, &[ScmpArch::native()], &rules)?;
    filter.set_act_badarch(ScmpAction::Allow).map_err(broken)?;
    export(&filter)
}

/// `argument & mask == value`, in 32 bits. // I2
pub(super) fn equal(argument: u32, value: u32, mask: u32) -> Term {
    Term::new(argument, ScmpCompareOp::MaskedEqual(mask.into()), value.into())
}

/// Fits every call. libseccomp drops conditional rules once the same call has an unconditional one, and evaluates higher arguments
/// first; so "otherwise" is a comparison of the lowest argument that is always true. The simulator proves that it comes out last.
pub(super) fn always() -> Term {
    Term::new(0, ScmpCompareOp::GreaterEqual, 0)
}

/// A filter for exactly these architectures; every other one, x32 among them, ends the process: SECURITY.md 3.4 row 6.
pub(super) fn filter(default: ScmpAction, arches: &[ScmpArch], rules: &[Rule]) -> Result<ScmpFilterContext> {
    let mut filter = ScmpFilterContext::new(default).map_err(broken)?;
    filter.set_act_badarch(ScmpAction::KillProcess).map_err(broken)?;
    if rules.len() > 8 {
        filter.set_ctl_optimize(2).map_err(broken)?; // a binary tree over the numbers
    }
    for arch in arches {
        filter.add_arch(*arch).map_err(broken)?;
    }
    if !arches.contains(&ScmpArch::native()) {
        filter.remove_arch(ScmpArch::native()).map_err(broken)?;
    }
    for Rule { number, action, when } in rules.iter().filter(|r| r.action != default || !r.when.is_empty()) {
        let call = ScmpSyscall::from_raw_syscall(*number);
        let added = match when.as_slice() {
            [] => filter.add_rule(*action, call),
            when => filter.add_rule_conditional(*action, call, when),
        };
        match added {
            // An earlier rule for the same arguments has decided: so it is for i386, whose socketcall(2) hides them. Losing a
            // permission is safe; losing a refusal is not.
            Err(e) if e.errno() == Some(SeccompErrno::EEXIST) && *action == ScmpAction::Allow => {}
            added => drop(added.map_err(broken)?),
        }
    }
    Ok(filter)
}

fn broken(e: SeccompError) -> Error {
    // libseccomp asks the kernel first, and has one answer for all that it does not like.
    Error::new(Kind::Unsupported, format!("cannot build the seccomp filter: {e}")).hint("see 'sandbox doctor': seccomp(2) may be missing or filtered")
}

/// Out of libseccomp into memory; the function without a file came with 2.6.
pub(super) fn export(filter: &ScmpFilterContext) -> Result<Program> {
    let mut file: File = rustix::fs::memfd_create(c"seccomp", MemfdFlags::CLOEXEC).doing("make", "a memory file")?.into();
    filter.export_bpf(&file).map_err(broken)?;
    file.rewind().doing("read", "the seccomp filter")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).doing("read", "the seccomp filter")?;
    fits(bytes.len() / 8)?;
    Program::from_bytes(&bytes).ok_or_else(|| Error::new(Kind::Bug, "libseccomp made no seccomp filter"))
}

fn fits(size: usize) -> Result<()> {
    if size > MAX_INSTRUCTIONS {
        return Err(Error::usage(format!("cannot use the seccomp filter: {size} instructions, and the kernel takes {MAX_INSTRUCTIONS}")));
    }
    Ok(())
}

/// The name of the cached program: a hash over everything that it is made from. // I4
fn key(spec: &Seccomp, nested: bool, capabilities: &BTreeSet<u8>, profile: Option<(&[u8], &[u8])>) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |field: &[u8]| {
        hash.update(field.len().to_le_bytes());
        hash.update(field);
    };
    let version = ScmpVersion::current().map_err(broken)?;
    add(b"2");
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(format!("{version} {}", std::env::consts::ARCH).as_bytes());
    add(&[nested.into()]);
    add(&capabilities.iter().copied().collect::<Vec<_>>());
    match profile {
        Some((text, kernel)) => {
            add(text);
            add(kernel);
        }
        None => {
            add(&groups::MARK.to_le_bytes());
            for list in [&spec.allow, &spec.deny, &spec.socket_families] {
                add(list.join("\0").as_bytes());
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut s, b| {
        for digit in [b >> 4, b & 15] {
            s.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
        s
    })
}

const TRAILER: usize = 32;

/// A program from the cache, if it is whole and nobody else could have written it. // I4, L11
fn recall(dir: &Path, key: &str) -> Option<Program> {
    dirs::trusted(dir).ok()?;
    let path = dir.join(format!("{key}.bpf"));
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file: File = rustix::fs::open(path, flags, Mode::empty()).ok()?.into();
    let meta = file.metadata().ok()?;
    let ours = meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o077 == 0;
    let size = usize::try_from(meta.len()).ok()?;
    if !ours || size > MAX_INSTRUCTIONS * 8 + TRAILER {
        return None;
    }
    let mut bytes = vec![0; size];
    file.read_exact(&mut bytes).ok()?;
    let (program, trailer) = bytes.split_at_checked(size.checked_sub(TRAILER)?)?;
    (Sha256::digest(program).as_slice() == trailer).then(|| Program::from_bytes(program))?
}

/// Keep a program for the next run. A cache that cannot be written costs a millisecond then, and is no error.
/// Two writers at once may leave a torn file; its trailer does not fit, so the next run makes it anew.
fn keep(dir: &Path, key: &str, program: &Program) {
    if dirs::make(dir).is_err() {
        return;
    }
    let (new, name) = (dir.join(format!("{key}.new")), dir.join(format!("{key}.bpf")));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(fd) = rustix::fs::open(&new, flags, Mode::RUSR | Mode::WUSR) else { return };
    let mut bytes = program.to_bytes();
    let trailer = Sha256::digest(&bytes);
    bytes.extend_from_slice(&trailer);
    match File::from(fd).write_all(&bytes) {
        Ok(()) => drop(std::fs::rename(&new, &name)),
        Err(_) => drop(std::fs::remove_file(&new)),
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::simulator::{ENOSYS, EPERM, I386, Verdict, X32, X86_64, judge};
    use super::*;
    use std::collections::BTreeMap;

    const STRICT: &str = "@base @memory @files @events @process @signals-time @network @ipc @sandboxing";
    const DEFAULT: &str = "@base @memory @files @events @aio @process @signals-time @network @ipc @privileges @sandboxing @numa @debug \
                           @introspection @legacy @attributes";
    const FAMILIES: &str = "unix inet inet6 netlink-route";
    const AFNOSUPPORT: Verdict = Verdict::Errno(libc::EAFNOSUPPORT as u16);

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    fn spec(allow: &str, deny: &str, families: &str) -> Seccomp {
        Seccomp { profile: SeccompProfile::Groups, allow: words(allow), deny: words(deny), socket_families: words(families) }
    }

    fn program(spec: &Seccomp, nested: bool) -> Program {
        compile(spec, nested, &BTreeSet::new(), None).unwrap().unwrap()
    }

    fn default_like() -> Program {
        program(&spec(DEFAULT, "", "unix inet inet6 netlink-route netlink-diag"), false)
    }

    fn strict_like() -> Program {
        program(&spec(STRICT, "", FAMILIES), false)
    }

    fn ask(p: &Program, call: &str, args: &[u64]) -> Verdict {
        let number = groups::Tables::read().unwrap().number(call).here().unwrap();
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        judge(p.filter(), X86_64, number as u32, six)
    }

    /// xorshift64*: reproducible, and good enough to hit every branch.
    struct Dice(u64);
    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }
    }

    /// The names that the lists grant in full or with limits, straight from the file.
    fn granted(list: &str) -> BTreeMap<i32, String> {
        let (tables, groups) = (groups::Tables::read().unwrap(), groups::groups().unwrap());
        let calls = list.split_whitespace().flat_map(|g| &groups[g].entries).flat_map(|e| &e.calls);
        calls.filter(|c| !c.contains(':') && *c != "clone3").filter_map(|c| Some((tables.number(c).here()?, c.clone()))).collect()
    }

    #[test]
    fn cve_2021_41133_every_number_on_every_abi_has_the_verdict_of_the_groups() {
        let tables = groups::Tables::read().unwrap();
        for (list, program) in [(DEFAULT, default_like()), (STRICT, strict_like())] {
            let (granted, known) = (granted(list), tables.known());
            for number in 0..=1023u32 {
                let n = number as i32;
                let name = granted.get(&n).map(String::as_str);
                let absent = ["clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register", "_sysctl", "create_module"]
                    .iter()
                    .chain(&["get_kernel_syms", "query_module", "nfsservctl", "getpmsg", "putpmsg", "afs_syscall", "tuxcall", "security"])
                    .chain(&["epoll_ctl_old", "epoll_wait_old", "vserver"])
                    .any(|c| tables.number(c).here() == Some(n));
                let expected = match name {
                    Some("socket" | "socketpair") => AFNOSUPPORT,
                    Some(_) => Verdict::Allow,
                    None if absent || !known.contains(&n) => ENOSYS,
                    None => EPERM,
                };
                assert_eq!(judge(program.filter(), X86_64, number, [0; 6]), expected, "{number} {name:?}");
                assert_eq!(judge(program.filter(), X86_64, number | X32, [0; 6]), Verdict::KillProcess, "x32 {number}");
                assert_eq!(judge(program.filter(), I386, number, [0; 6]), Verdict::KillProcess, "i386 {number}");
                assert_eq!(judge(program.filter(), 0xc000_00b7, number, [0; 6]), Verdict::KillProcess, "aarch64 {number}");
            }
            for number in [0x3fff_ffff, u32::MAX] {
                assert_eq!(judge(program.filter(), X86_64, number, [0; 6]), ENOSYS, "{number:#x}");
            }
        }
    }

    #[test]
    fn strict_is_a_subset_of_default() {
        let (strict, default) = (strict_like(), default_like());
        let mut dice = Dice(7);
        let small = [0, 1, 2, 3, 6, 8, 16, 22, 31, 35, 50, 0o100, 0o4755, 0x4200, 0x5412, 0x4b33, 1 << 21, 0x7e02_0000];
        for _ in 0..200_000 {
            let number = dice.roll() as u32 % 480;
            let args = [(); 6].map(|()| if dice.roll().is_multiple_of(4) { dice.roll() } else { small[dice.roll() as usize % small.len()] });
            let allowed = |p: &Program| judge(p.filter(), X86_64, number, args) == Verdict::Allow;
            assert!(!allowed(&strict) || allowed(&default), "{number} {args:x?}");
        }
    }

    #[test]
    fn what_security_refuses_by_default_is_refused() {
        let p = default_like();
        let refused = "unshare setns mount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr \
            open_by_handle_at userfaultfd bpf perf_event_open kexec_load kexec_file_load init_module finit_module delete_module quotactl \
            quotactl_fd fanotify_init lookup_dcookie vmsplice kcmp modify_ldt ioperm iopl uselib ustat sysfs acct swapon swapoff reboot \
            settimeofday clock_settime vhangup syslog migrate_pages move_pages lsm_set_self_attr add_key request_key keyctl";
        for call in words(refused) {
            assert_eq!(ask(&p, &call, &[]), EPERM, "{call}");
        }
        for call in words("clone3 io_uring_setup io_uring_enter io_uring_register nfsservctl") {
            assert_eq!(ask(&p, &call, &[]), ENOSYS, "{call}");
        }
        let only_default = "statmount listmount listns name_to_handle_at pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace \
            remap_file_pages memfd_secret get_mempolicy set_mempolicy mbind";
        for call in words(only_default) {
            assert_eq!(ask(&p, &call, &[]), Verdict::Allow, "{call}");
            assert_eq!(ask(&strict_like(), &call, &[]), EPERM, "{call}");
        }
        let modern = "statx rseq faccessat2 openat2 close_range epoll_pwait2 futex_waitv futex_wake futex_wait futex_requeue memfd_create \
            cachestat fchmodat2 map_shadow_stack mseal landlock_create_ruleset landlock_add_rule landlock_restrict_self pidfd_open \
            pidfd_send_signal process_mrelease setxattrat getxattrat listxattrat removexattrat lsm_get_self_attr copy_file_range mincore \
            membarrier io_setup io_submit io_getevents io_pgetevents seccomp set_mempolicy_home_node uretprobe file_getattr renameat2";
        for call in words(modern) {
            assert_eq!(ask(&p, &call, &[]), Verdict::Allow, "{call}");
        }
    }

    #[test]
    fn cve_2026_31431_only_listed_socket_families_open() {
        let p = default_like();
        for call in ["socket", "socketpair"] {
            for family in 0..=45u64 {
                for kind in 0..=15u64 {
                    for flags in [0, 0o2000000, 0o4000, 0o2004000] {
                        for protocol in [0, 1, 4, 9, 12, 15, 16] {
                            let expected = match (family, kind) {
                                (1, _) => Verdict::Allow,
                                (2 | 10, 1 | 2 | 5) => Verdict::Allow,
                                (2 | 10, 3 | 10) => EPERM,
                                (16, _) if protocol == 0 || protocol == 4 => Verdict::Allow,
                                _ => AFNOSUPPORT,
                            };
                            // cve: 2019-10063: the upper halves are not looked at by the kernel either.
                            for upper in [0, 0xdead_beef << 32] {
                                let args = [family | upper, kind | flags | upper, protocol | upper];
                                assert_eq!(ask_fast(&p, call, args), expected, "{call} {args:x?}");
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(ask(&strict_like(), "socket", &[16, 3, 4]), AFNOSUPPORT, "netlink-diag is not for strict");
        assert_eq!(ask(&program(&spec(DEFAULT, "", ""), false), "socket", &[1, 1, 0]), AFNOSUPPORT, "an empty list is nothing");
    }

    fn ask_fast(p: &Program, call: &str, [a, b, c]: [u64; 3]) -> Verdict {
        let number = if call == "socket" { libc::SYS_socket } else { libc::SYS_socketpair };
        judge(p.filter(), X86_64, number as u32, [a, b, c, 0, 0, 0])
    }

    #[test]
    fn cve_2017_5226_cve_2019_10063_cve_2019_7303_no_ioctl_types_into_the_terminal() {
        let forbidden = [0x5412, 0x541c, 0x541d, 0x541f, 0x5423, 0x5437, 0x4b46, 0x4b72, 0x5603, 0x560a, 0x4c00, 0x4c82, 0x125d, 0x8008_1272];
        let fine = [0x5401, 0x5402, 0x5413, 0x5414, 0x541b, 0x5421, 0x5450, 0x8004_5430, 0x4004_667f, 0x8933, 0x4020_940d, 0x8008_6601, 0];
        let setters = [0x4080_6685, 0x800c_6613, 0xc050_6617];
        for p in [default_like(), strict_like()] {
            for upper in [0, 0xdead_beef_0000_0000, 0xffff_ffff_0000_0000] {
                for request in forbidden {
                    assert_eq!(ask(&p, "ioctl", &[0, request | upper, 0]), EPERM, "{request:#x}");
                    assert_eq!(ask(&p, "ioctl", &[u64::MAX, request | upper, u64::MAX]), EPERM, "{request:#x}");
                }
                for request in fine {
                    assert_eq!(ask(&p, "ioctl", &[0, request | upper, 0]), Verdict::Allow, "{request:#x}");
                }
            }
        }
        for request in setters {
            assert_eq!(ask(&default_like(), "ioctl", &[0, request, 0]), Verdict::Allow);
            assert_eq!(ask(&strict_like(), "ioctl", &[0, request, 0]), EPERM);
        }
    }

    #[test]
    fn clone_makes_no_namespace() {
        const NEW: [u64; 7] = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
        let (thread, fork) = (0x003d_0f00, 0x0120_0011);
        let nested = program(&spec(DEFAULT, "", FAMILIES), true);
        for p in [default_like(), strict_like()] {
            for upper in [0, 0xffff_ffff_0000_0000] {
                for usual in [0, thread, fork, 0x4111, 0x8000_0000, 0xff] {
                    assert_eq!(ask(&p, "clone", &[usual | upper]), Verdict::Allow);
                    // Every set of namespaces but the empty one.
                    for set in 1..1u64 << NEW.len() {
                        let flags = NEW.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).fold(usual, |f, (_, n)| f | n);
                        assert_eq!(ask_number(&p, libc::SYS_clone, [flags | upper, 0, 0, 0, 0, 0]), EPERM, "{flags:#x}");
                    }
                }
            }
        }
        for call in ["clone", "clone3", "unshare", "setns", "mount", "fsopen", "pivot_root"] {
            assert_eq!(ask(&nested, call, &[0x1000_0000]), Verdict::Allow, "{call}");
        }
        let named = program(&spec("@base clone3", "", ""), false);
        assert_eq!(ask(&named, "clone3", &[]), ENOSYS, "not even by name");
    }

    fn ask_number(p: &Program, number: i64, args: [u64; 6]) -> Verdict {
        judge(p.filter(), X86_64, number as u32, args)
    }

    #[test]
    fn arguments_with_a_short_list() {
        let (default, strict) = (default_like(), strict_like());
        let upper = 0xffff_ffff_0000_0000;
        for p in [&default, &strict] {
            for value in (0..0x100).chain([0x2_0000, 0x2_0008, 0x2_0001, 0x4_0000, 0x40_0000, 0xffff_ffff, 0xffff_fffe]) {
                let expected = if [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].contains(&value) { Verdict::Allow } else { EPERM };
                assert_eq!(ask_number(p, libc::SYS_personality, [value, 9, 9, 9, 9, 9]), expected, "{value:#x}");
                assert_eq!(ask_number(p, libc::SYS_personality, [value | upper, 0, 0, 0, 0, 0]), expected, "{value:#x}");
            }
            for (policy, expected) in [(0, true), (1, false), (2, false), (3, true), (5, true), (6, false), (7, false)] {
                for reset in [0, 0x4000_0000, upper] {
                    assert_eq!(ask(p, "sched_setscheduler", &[1, policy | reset, 1]) == Verdict::Allow, expected, "{policy}");
                }
            }
            assert_eq!(ask(p, "prctl", &[35, 1]), EPERM, "PR_SET_MM");
            assert_eq!(ask(p, "prctl", &[upper | 35, 1]), EPERM, "PR_SET_MM");
            assert_eq!(ask(p, "prctl", &[22, 1]), EPERM, "PR_SET_SECCOMP, strict mode");
            assert_eq!(ask(p, "prctl", &[22, 2]), Verdict::Allow, "PR_SET_SECCOMP, filter");
            for option in [1, 4, 15, 23, 24, 36, 38, 47, 0x5961_6d61] {
                assert_eq!(ask(p, "prctl", &[option, 1]), Verdict::Allow, "{option}");
            }
            assert_eq!(ask(p, "fcntl", &[1, 1026, 0]), EPERM, "F_NOTIFY");
            assert_eq!(ask(p, "fcntl", &[1, 1030, 0]), Verdict::Allow, "F_DUPFD_CLOEXEC");
        }
        for (call, args) in [("seccomp", &[1, 8][..]), ("seccomp", &[1, 9]), ("setsockopt", &[3, 1, 50]), ("setsockopt", &[3, 6, 31])] {
            assert_eq!(ask(&default, call, args), Verdict::Allow, "{call} {args:?}");
            assert_eq!(ask(&strict, call, args), EPERM, "{call} {args:?}");
        }
        for (call, args) in [("seccomp", &[1, 1][..]), ("setsockopt", &[3, 41, 50]), ("setsockopt", &[3, 1, 9]), ("setsockopt", &[3, 6, 1])] {
            assert_eq!(ask(&strict, call, args), Verdict::Allow, "{call} {args:?}");
        }
        let without = program(&spec("@base", "", ""), false);
        assert_eq!(ask(&without, "prctl", &[22, 2]), EPERM, "without the lift");
    }

    #[test]
    fn cve_2019_13272_ptrace_cannot_suspend_the_filter() {
        let p = default_like();
        for (request, options, expected) in [
            (0x4200, 1 << 21, EPERM),
            (0x4206, 1 << 21 | 1, EPERM),
            (0x4206, 1, Verdict::Allow),
            (0x4200, 0xff, Verdict::Allow),
            (16, 1 << 21, Verdict::Allow),
        ] {
            assert_eq!(ask(&p, "ptrace", &[request, 1, 0, options]), expected, "{request:#x} {options:#x}");
        }
        assert_eq!(ask(&strict_like(), "ptrace", &[16]), EPERM);
    }

    #[test]
    fn cve_2024_38531_strict_makes_no_setuid_file() {
        let (default, strict) = (default_like(), strict_like());
        let (creat, tmpfile) = (0o101, 0o20200002);
        for mode in [0o4755, 0o2755, 0o6755, 0o4000] {
            for (call, args) in [
                ("chmod", &[1, mode][..]),
                ("fchmod", &[1, mode]),
                ("fchmodat", &[1, 1, mode]),
                ("fchmodat2", &[1, 1, mode]),
                ("creat", &[1, mode]),
                ("open", &[1, creat, mode]),
                ("open", &[1, tmpfile, mode]),
                ("openat", &[1, 1, creat, mode]),
                ("openat", &[1, 1, tmpfile, mode]),
            ] {
                assert_eq!(ask(&default, call, args), Verdict::Allow, "{call} {mode:o}");
                assert_eq!(ask(&strict, call, args), EPERM, "{call} {mode:o}");
            }
            assert_eq!(ask(&strict, "openat", &[1, 1, 0, mode]), Verdict::Allow, "without O_CREAT the mode is garbage");
        }
        for (call, args) in
            [("chmod", &[1, 0o1777][..]), ("fchmodat", &[1, 1, 0o755]), ("open", &[1, creat, 0o644]), ("openat", &[1, 1, creat, 0o1644])]
        {
            assert_eq!(ask(&strict, call, args), Verdict::Allow, "{call}");
        }
        assert_eq!(ask(&strict, "openat2", &[]), ENOSYS);
    }

    #[test]
    fn nothing_random_is_allowed_outside_the_list() {
        for (list, p) in [(DEFAULT, default_like()), (STRICT, strict_like())] {
            let (granted, mut dice) = (granted(list), Dice(42));
            for _ in 0..1 << 16 {
                let arch = if dice.roll().is_multiple_of(4) { dice.roll() as u32 } else { X86_64 };
                let number = if dice.roll().is_multiple_of(4) { dice.roll() as u32 } else { dice.roll() as u32 % 600 };
                let args = [(); 6].map(|()| dice.roll());
                if judge(p.filter(), arch, number, args) == Verdict::Allow {
                    assert!(arch == X86_64 && granted.contains_key(&(number as i32)), "{arch:#x} {number}");
                }
            }
        }
    }

    #[test]
    fn deny_takes_away() {
        let p = program(&spec(DEFAULT, "ptrace @network ioctl:setters", FAMILIES), false);
        for call in ["ptrace", "socket", "connect"] {
            assert_eq!(ask(&p, call, &[1, 1]), EPERM, "{call}");
        }
        assert_eq!(ask(&p, "ioctl", &[0, 0x4080_6685]), EPERM);
        assert_eq!(ask(&p, "ioctl", &[0, 0x5401]), Verdict::Allow);
    }

    #[test]
    fn bad_policies_are_named() {
        for (allow, deny, families, what) in [
            ("@bsae", "", "", "@bsae"),
            ("@base raed", "", "", "raed"),
            ("@base", "@nope", "", "@nope"),
            ("@base", "nope", "", "nope"),
            ("@base chmod:setuid", "", "", "chmod:setuid"),
            ("@base", "", "alg", "alg"),
        ] {
            let e = compile(&spec(allow, deny, families), false, &BTreeSet::new(), None).unwrap_err();
            assert_eq!(e.kind(), Kind::Usage);
            assert!(e.message().contains(&format!("'{what}'")) && e.cure().is_some(), "{e}");
        }
    }

    #[test]
    fn raw_sockets_only_in_ones_own_namespaces_and_with_the_capability() {
        let spec = spec(DEFAULT, "", FAMILIES);
        for (nested, capability, expected) in [(true, true, Verdict::Allow), (true, false, EPERM), (false, true, EPERM)] {
            let capabilities = capability.then_some(CAP_NET_RAW).into_iter().collect();
            let p = compile(&spec, nested, &capabilities, None).unwrap().unwrap();
            assert_eq!(ask(&p, "socket", &[2, 3, 1]), expected);
        }
    }

    #[test]
    fn the_library_is_new_enough() {
        // cve: 2019-9893: before 2.4, 64-bit comparisons came out wrong; 2.5.4 is the version that we read.
        assert!(libseccomp::check_version(ScmpVersion { major: 2, minor: 5, micro: 4 }).unwrap());
        // The kernel compiles them at every start: a tenth of a millisecond for 300.
        let sizes = [default_like(), strict_like()].map(|p| p.instructions());
        assert!(sizes[0] < 300 && sizes[1] < 450, "{sizes:?}");
    }

    #[test]
    fn cve_2019_12589_the_cache_believes_nobody_else() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = std::env::temp_dir().join(format!("sandbox-seccomp-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        let spec = spec("@base", "", "");
        let make = || compile(&spec, false, &BTreeSet::new(), Some(&dir)).unwrap().unwrap();
        let fresh = make();
        let entries = || std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        let [file] = entries().try_into().unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let key = file.file_stem().unwrap().to_str().unwrap().to_string();
        assert_eq!(recall(&dir, &key), Some(fresh.clone()));
        let good = std::fs::read(&file).unwrap();

        let mut turned = good.clone();
        turned[4] ^= 1;
        for bad in [&turned[..], &good[..good.len() - 1], &good[..32], &good[..8], &[], &vec![0; 1 << 20]] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(recall(&dir, &key), None);
            assert_eq!(make(), fresh, "made anew");
            assert_eq!(std::fs::read(&file).unwrap(), good, "and kept again");
        }
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(recall(&dir, &key), None, "others may read");
        let elsewhere = dir.join("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert_eq!(recall(&dir, &key), None, "a symlink");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!((recall(&dir, &key), make()), (None, fresh.clone()), "a directory in the way is no error");
        std::fs::remove_dir(&file).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!((recall(&dir, &key), make()), (None, fresh), "a directory that others may write");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_key_covers_every_input() {
        let base = || spec("@base", "", "unix");
        let none = BTreeSet::new();
        let keys: BTreeSet<String> = [
            key(&base(), false, &none, None),
            key(&base(), true, &none, None),
            key(&base(), false, &[13].into(), None),
            key(&spec("@base read", "", "unix"), false, &none, None),
            key(&spec("@base", "read", "unix"), false, &none, None),
            key(&spec("@base", "", "unix inet"), false, &none, None),
            key(&spec("@base", "unix", ""), false, &none, None),
            key(&base(), false, &none, Some((b"{}", b"6.1"))),
            key(&base(), false, &none, Some((b"{}", b"6.2"))),
            key(&base(), false, &none, Some((b"{ }", b"6.1"))),
        ]
        .into_iter()
        .collect::<Result<_>>()
        .unwrap();
        assert_eq!(keys.len(), 10);
    }
}
