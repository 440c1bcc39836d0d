//! Who calls us, and what an account file says about a name.
//!
//! Called by `launch` (the caller's ids and home; `-u NAME` of a root directory, whose account files are hostile bytes) and by `cli`.
//! Never goes through NSS: glibc would load libraries into us, and for a hostile root even foreign ones. // L7
//! man: passwd(5), group(5)

use super::program;
use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest account file that is believed; whoever reads one for the parsers below stops there and refuses.
pub const FILE_LIMIT: usize = 1 << 20;
const LINE_LIMIT: usize = 4 << 10;
const LINES_LIMIT: usize = 10_000;
/// LDAP may be slow, and may be away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The person, or the job, that runs us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// As the kernel has them; the primary group may be among them or not.
    pub groups: Vec<u32>,
    pub name: String,
    /// `$HOME`, if it is a directory of the caller's; else what the account says.
    pub home: PathBuf,
    /// The home of the account, whatever `$HOME` says: secrets lie there too.
    pub account_home: PathBuf,
    pub shell: PathBuf,
}

impl Caller {
    pub fn me() -> Result<Caller> {
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        // We are no set-uid program: if somebody made us one, every check below would ask about the wrong person.
        if uid != rustix::process::geteuid().as_raw() || gid != rustix::process::getegid().as_raw() {
            return Err(Error::new(Kind::Denied, "cannot run with borrowed ids: the program is set-uid or set-gid")
                .hint("it needs no such bit: chmod ug-s on its file"));
        }
        let groups = rustix::process::getgroups().unwrap_or_default().into_iter().map(|g| g.as_raw()).collect();
        let account = account(uid);
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| owned_directory(home, uid));
        let (name, account_home, shell) = match account {
            Some(a) => (a.name, a.home, a.shell),
            None => (uid.to_string(), home.clone().unwrap_or_else(|| PathBuf::from("/")), PathBuf::from("/bin/sh")),
        };
        Ok(Caller { uid, gid, groups, name, home: home.unwrap_or_else(|| account_home.clone()), account_home, shell })
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// /etc/passwd, then whatever the host's name service knows, asked through `getent`.
fn account(uid: u32) -> Option<Account> {
    let usable = |a: &Account| is_plain(&a.name);
    if let Some(found) = super::read("/etc/passwd", FILE_LIMIT).ok().and_then(|text| passwd_uid(&text, uid)) {
        return Some(found).filter(usable);
    }
    let answer = program::ask("getent", &["passwd", &uid.to_string()], PATIENCE).ok()?;
    passwd_uid(&answer.stdout, uid).filter(usable)
}

/// A name that may be handed to a program as an argument and shown.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.len() <= 256 && !name.chars().any(|c| c.is_control() || c == '/' || c == ':')
}

fn owned_directory(path: &Path, uid: u32) -> bool {
    // sudo keeps the HOME of the one who called it on some systems; root must not write there.
    path.is_absolute() && std::fs::metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == uid)
}

/// One line of an account file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Absolute; `/` if the line has no such path.
    pub home: PathBuf,
    pub shell: PathBuf,
}

/// Refuse an account file that is beyond what the parsers read, so that nothing is silently missed. cve: 2026-47262
pub fn check_accounts(text: &[u8], file: impl std::fmt::Display) -> Result<()> {
    let why = if text.len() > FILE_LIMIT {
        "it is larger than 1 MiB"
    } else if text.split(|b| *b == b'\n').count() > LINES_LIMIT {
        "it has more than 10000 lines"
    } else if text.split(|b| *b == b'\n').any(|line| line.len() > LINE_LIMIT) {
        "it has a line of more than 4 KiB"
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::Denied, format!("cannot look up accounts in {file}: {why}")).hint("give ids as numbers, e.g. -u 1000:1000"))
}

/// The account of the first line for `name`. None also if that line is malformed: a later one must not take its place.
/// A name of digits only is never found, because it is an id. cve: 2016-3697
pub fn passwd_lookup(text: &[u8], name: &str) -> Option<Account> {
    passwd_line(named(text, name)?)
}

/// The first account with this uid.
pub fn passwd_uid(text: &[u8], uid: u32) -> Option<Account> {
    lines(text).filter_map(passwd_line).find(|account| account.uid == uid)
}

/// The gid of the first line for `name`; the same rules as for `passwd_lookup`.
pub fn group_lookup(text: &[u8], name: &str) -> Option<u32> {
    Some(group_line(named(text, name)?)?.0)
}

/// The gids of the groups that list `user` as a member, in file order, each once. The primary group is not among them unless it does, too.
pub fn groups_of(text: &[u8], user: &str) -> Vec<u32> {
    let mut gids = Vec::new();
    if !is_plain(user) || user.contains(',') {
        return gids;
    }
    for (gid, members) in lines(text).filter_map(group_line) {
        if members.split(|b| *b == b',').any(|member| member == user.as_bytes()) {
            gids.push(gid);
        }
    }
    let mut seen = std::collections::HashSet::new();
    gids.retain(|gid| seen.insert(*gid));
    gids
}

/// The names and ids of a passwd or group file.
pub fn names(text: &[u8]) -> Vec<(String, u32)> {
    let entry = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b':');
        let name = String::from_utf8_lossy(fields.next()?).into_owned();
        Some((name, id(fields.nth(1)?)?))
    };
    lines(text).filter_map(entry).collect()
}

/// The lines that may count. Comments and the `+` and `-` of NIS are no entries.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = if text.len() <= FILE_LIMIT { text } else { &[] };
    text.split(|b| *b == b'\n')
        .take(LINES_LIMIT)
        .filter(|line| line.len() <= LINE_LIMIT && !line.contains(&0) && !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':')))
}

fn named<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !is_plain(name) || name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    lines(text).find(|line| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b':')))
}

fn passwd_line(line: &[u8]) -> Option<Account> {
    let mut fields = line.split(|b| *b == b':');
    let name = std::str::from_utf8(fields.next()?).ok()?.to_string();
    let _password = fields.next()?;
    let uid = id(fields.next()?)?;
    let gid = id(fields.next()?)?;
    let _gecos = fields.next()?;
    let home = absolute(fields.next()?, "/");
    let shell = absolute(fields.next().unwrap_or_default(), "/bin/sh");
    Some(Account { name, uid, gid, home, shell })
}

fn group_line(line: &[u8]) -> Option<(u32, &[u8])> {
    let mut fields = line.split(|b| *b == b':');
    let _name = fields.next()?;
    let _password = fields.next()?;
    Some((id(fields.next()?)?, fields.next().unwrap_or_default()))
}

fn absolute(field: &[u8], otherwise: &str) -> PathBuf {
    PathBuf::from(if field.starts_with(b"/") { OsStr::from_bytes(field) } else { OsStr::new(otherwise) })
}

/// A plain decimal id: no sign, no blank, no leading zero, never 2^32-1 (which means "no change" to the kernel). cve: 2024-40635
pub fn id(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) || (digits.first() == Some(&b'0') && digits.len() > 1) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# comment\nroot:x:0:0:root:/root:/bin/bash\nalice:x:1000:1001:A:/home/alice:/bin/sh\nalice:x:0:0::/evil:/bin/sh\n\
        1000:x:0:0::/:/bin/sh\nbad:x:-1:0::/:/bin/sh\nbad:x:7:7::/:/bin/sh\nlate:x:5:6::relative\n+nis::0:0:::\nmax:x:4294967295:0::/:\n\
        wrap:x:4294967296:0::/:\nplus:x:+0:0::/:\noct:x:010:0::/:\nspace:x: 0:0::/:\nhex:x:0x0:0::/:\nempty:x::0::/:\nnul:x:0\0:0::/:\n\
        :x:0:0::/:/bin/sh\nshort:x:1\nbytes\xff:x:9:9::/b\xff:/bin/sh\nzoe";

    #[test]
    fn accounts_by_name() {
        let found = |name: &str| passwd_lookup(PASSWD, name).map(|a| (a.uid, a.gid, a.home));
        assert_eq!(found("root"), Some((0, 0, "/root".into())));
        assert_eq!(found("alice"), Some((1000, 1001, "/home/alice".into())), "the first line counts");
        assert_eq!(found("late"), Some((5, 6, "/".into())), "a relative home is no home");
        for none in ["", "al", "alice:x", "ALICE", "zoe", "short", "# comment", "root:x:0", "a\nb", "-x"] {
            assert_eq!(passwd_lookup(PASSWD, none), None, "{none:?}");
        }
        let alice = passwd_uid(PASSWD, 1000).unwrap();
        assert_eq!((alice.name.as_str(), alice.shell), ("alice", "/bin/sh".into()));
        assert_eq!(passwd_uid(PASSWD, 4242), None);
    }

    #[test]
    fn cve_2024_40635_no_id_wraps_to_root() {
        for name in ["bad", "max", "wrap", "plus", "oct", "space", "hex", "empty", "nul"] {
            assert_eq!(passwd_lookup(PASSWD, name), None, "{name}");
        }
        for (digits, expected) in [("0", Some(0)), ("2147483648", Some(1 << 31)), ("4294967294", Some(u32::MAX - 1))] {
            assert_eq!(id(digits.as_bytes()), expected);
        }
        for bad in ["", "00", "4294967295", "4294967296", "-1", "+0", " 0", "0 ", "0x0", "1e3", "99999999999999999999"] {
            assert_eq!(id(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn cve_2016_3697_a_number_is_never_a_name() {
        assert_eq!(passwd_lookup(PASSWD, "1000"), None);
        assert_eq!(group_lookup(b"1000:x:0:\n", "1000"), None);
        assert_eq!(passwd_lookup(PASSWD, "+nis"), None);
    }

    #[test]
    fn cve_2024_9676_account_files_are_bounded() {
        let entry = b"alice:x:1:1::/:/bin/sh\n";
        let huge = [entry.as_slice(), &vec![b'x'; FILE_LIMIT]].concat();
        assert_eq!(passwd_lookup(&huge, "alice"), None);
        assert!(check_accounts(&huge, "f").is_err());
        let many = [b"\n".repeat(LINES_LIMIT), entry.to_vec()].concat();
        assert_eq!(passwd_lookup(&many, "alice"), None);
        assert!(check_accounts(&many, "f").is_err());
        let long = [b"alice:x:1:1:".as_slice(), &vec![b'g'; LINE_LIMIT], b":/:/bin/sh\n"].concat();
        assert_eq!(passwd_lookup(&long, "alice"), None);
        assert!(check_accounts(&long, "f").is_err());
        check_accounts(PASSWD, "f").unwrap();
    }

    #[test]
    fn everybody() {
        let all = names(PASSWD);
        assert_eq!(all.first(), Some(&("root".to_string(), 0)));
        assert!(all.contains(&("late".to_string(), 5)) && all.iter().all(|(name, _)| name != "max"));
        assert_eq!(names(b"wheel:x:10:alice\nbad:x:y\n"), [("wheel".to_string(), 10)]);
    }

    #[test]
    fn groups() {
        let text =
            b"root:x:0:\nwheel:x:10:alice,bob\nwheel2:x:10:alice\nx:y\ndocker:x:11:malice,alice2\nusers:x:100:bob,alice\nbad:x:-5:alice\nbare:x:12\n";
        assert_eq!(group_lookup(text, "wheel"), Some(10));
        assert_eq!(group_lookup(text, "bare"), Some(12));
        assert_eq!(group_lookup(text, "bad"), None);
        assert_eq!(groups_of(text, "alice"), [10, 100]);
        for nobody in ["", "carol", "alice,bob", "alice2,"] {
            assert!(groups_of(text, nobody).is_empty(), "{nobody:?}");
        }
    }

    /// RUSTSEC-2025-0040: the `users` crate gave everybody the group root.
    #[test]
    fn cve_2025_5791_root_is_in_nobodys_groups() {
        assert!(!groups_of(b"root:x:0:\nroot2:x:0:,\nusers:x:100:alice\n", "alice").contains(&0));
        assert!(groups_of(b"root:x:0:\n", "").is_empty());
    }

    #[test]
    fn cve_2026_47262_many_groups_cost_little() {
        let text: Vec<u8> = (1..40_000).flat_map(|n| format!("g{n}:x:{n}:alice\n").into_bytes()).collect();
        let started = std::time::Instant::now();
        assert!(groups_of(&text, "alice").len() <= LINES_LIMIT);
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(check_accounts(&text, "f").is_err());
    }

    #[test]
    fn no_bytes_panic() {
        // A small generator instead of a crate: reproducible, and these parsers are small.
        const ALPHABET: &[u8] = b":::\n,0129ax\0\xff+-#/";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..(state % 64) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                text.push(ALPHABET[state as usize % ALPHABET.len()]);
            }
            state = state.wrapping_add(1);
            for (uid, account) in [0, 1, 12].into_iter().filter_map(|uid| Some((uid, passwd_uid(&text, uid)?))) {
                assert!(account.uid == uid && account.home.is_absolute() && account.shell.is_absolute());
            }
            let _ = (passwd_lookup(&text, "a"), group_lookup(&text, "a"), groups_of(&text, "a"), check_accounts(&text, "f"));
        }
    }

    #[test]
    fn me() {
        let me = Caller::me().unwrap();
        assert_eq!(me.uid, rustix::process::getuid().as_raw());
        assert!(me.home.is_absolute() && me.account_home.is_absolute() && me.shell.is_absolute() && is_plain(&me.name));
        assert!(!owned_directory(Path::new("relative"), me.uid));
        assert!(!owned_directory(Path::new("/"), 4242), "somebody else's directory is no home");
    }
}
