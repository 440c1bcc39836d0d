//! Which subordinate ids the caller owns.
//!
//! Called by `userns` (which turns them into id maps) and `cli::doctor`. Never hands out a range that holds host root, the caller or one id
//! twice: newuidmap would allow whatever the file says. man: subuid(5), getsubids(1) cve: 2016-6252

use super::remedy::Missing;
use super::{Caller, program};
use crate::error::{Doing, Result};
use std::io;
use std::time::Duration;

pub const UID_FILE: &str = "/etc/subuid";
pub const GID_FILE: &str = "/etc/subgid";
/// 100 000 users and more.
pub const FILE_LIMIT: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// `count` ids from `start` on; never empty, never beyond 2^32-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub start: u32,
    pub count: u32,
}

impl Range {
    pub fn contains(&self, id: u32) -> bool {
        id.checked_sub(self.start).is_some_and(|offset| offset < self.count)
    }

    pub fn overlaps(&self, other: &Range) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }

    /// The last id.
    pub fn last(&self) -> u32 {
        self.start.saturating_add(self.count.saturating_sub(1))
    }
}

/// In the order of the file. Empty: none, and then one id has to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subids {
    pub uids: Vec<Range>,
    pub gids: Vec<Range>,
}

pub fn subids(caller: &Caller) -> Result<Subids> {
    let foreign = super::read("/etc/nsswitch.conf", 64 << 10).is_ok_and(|text| names_a_module(&text));
    let (uids, gids) = if foreign {
        // newuidmap then asks that module alone, so the files say nothing. // man: subuid(5)
        (asked(&[&caller.name]), asked(&["-g", &caller.name]))
    } else {
        (in_file(UID_FILE, caller)?, in_file(GID_FILE, caller)?)
    };
    let (uid_file, gid_file) = if foreign { ("getsubids", "getsubids -g") } else { (UID_FILE, GID_FILE) };
    check(&uids, caller.uid, caller, uid_file)?;
    check(&gids, caller.gid, caller, gid_file)?;
    Ok(Subids { uids: usable(uids), gids: usable(gids) })
}

/// Does `subid:` of nsswitch.conf name something other than `files`? Only the first word counts. shadow: lib/nss.c nss_init()
fn names_a_module(nsswitch: &[u8]) -> bool {
    let text = String::from_utf8_lossy(nsswitch);
    let module = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        if key.eq_ignore_ascii_case("subid") { value.split_whitespace().next() } else { None }
    });
    module.is_some_and(|module| module != "files")
}

fn in_file(path: &str, caller: &Caller) -> Result<Vec<Claim>> {
    match super::read(path, FILE_LIMIT) {
        Ok(text) => Ok(entries(&text).filter(|e| e.is_of(&caller.name, caller.uid)).map(|e| e.claim).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).doing("read", path),
    }
}

/// `0: tester 100000 65536`, a line for each range. No answer is no range.
fn asked(args: &[&str]) -> Vec<Claim> {
    program::ask("getsubids", args, PATIENCE).map(|answer| answers(&answer.stdout)).unwrap_or_default()
}

fn answers(text: &[u8]) -> Vec<Claim> {
    let text = String::from_utf8_lossy(text);
    let claim = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let (count, start) = (words.next()?, words.next()?);
        Some(Claim { start: number(start.as_bytes())?, count: number(count.as_bytes())? })
    };
    text.lines().filter_map(claim).collect()
}

/// A range as written down, which may be nonsense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub start: u64,
    pub count: u64,
}

impl Claim {
    fn range(self) -> Option<Range> {
        let end = self.start.checked_add(self.count)?;
        // 2^32-1 is no id.
        (self.count != 0 && end <= u64::from(u32::MAX)).then_some(Range { start: self.start as u32, count: self.count as u32 })
    }
}

/// One line of a subid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub owner: &'a [u8],
    pub claim: Claim,
}

impl Entry<'_> {
    fn is_of(&self, name: &str, uid: u32) -> bool {
        self.owner == name.as_bytes() || super::caller::id(self.owner) == Some(uid)
    }

    pub fn range(&self) -> Option<Range> {
        self.claim.range()
    }
}

/// The lines that newuidmap understands; it skips the others, too.
pub fn entries(text: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    text.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.trim_ascii_end().split(|b| *b == b':');
        let (owner, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        if owner.is_empty() || owner.starts_with(b"#") || fields.next().is_some() {
            return None;
        }
        Some(Entry { owner, claim: Claim { start: number(start)?, count: number(count)? } })
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // More than 20 digits: too large in any case.
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX))
}

/// Refuse what must never become a map. cve: 2016-6252, 2024-56433
fn check(claims: &[Claim], own: u32, caller: &Caller, place: &str) -> Result<()> {
    let bad = |claim: &Claim, why: &str| {
        let (start, count, name) = (claim.start, claim.count, &caller.name);
        Err(Missing::BadSubids.error(format!("cannot use the range {start}:{count} of {name} in {place}: {why}")))
    };
    for (n, claim) in claims.iter().enumerate() {
        let Some(range) = claim.range() else {
            return bad(claim, if claim.count == 0 { "it is empty" } else { "it goes beyond the largest id, 4294967294" });
        };
        if range.contains(0) {
            return bad(claim, "it holds 0, which is root of the host");
        }
        if range.contains(own) {
            return bad(claim, &format!("it holds {own}, which is the caller"));
        }
        // The same line twice (once by name, once by uid) is harmless; see usable().
        if claims.iter().take(n).filter_map(|c| c.range()).any(|r| r != range && r.overlaps(&range)) {
            return bad(claim, "it overlaps another range of the same user");
        }
    }
    Ok(())
}

fn usable(claims: Vec<Claim>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(claims.len());
    for range in claims.into_iter().filter_map(Claim::range) {
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    ranges
}

/// Where 65536 ids begin that no line of these files claims; what a cure may propose. cve: 2024-56433
pub fn free_start(files: &[&[u8]]) -> u32 {
    let ends = files.iter().flat_map(|text| entries(text)).filter_map(|e| e.range()).map(|r| r.last().saturating_add(1));
    let start = ends.fold(100_000, u32::max);
    if start > u32::MAX - 65_536 { 100_000 } else { start }
}

/// What `doctor` warns of in a file, for one user: ranges that collide with other people. cve: 2024-56433
pub fn collisions(text: &[u8], name: &str, uid: u32, accounts: &[(String, u32)]) -> Vec<String> {
    let (mine, others): (Vec<_>, Vec<_>) = entries(text).partition(|e| e.is_of(name, uid));
    let mut said = Vec::new();
    for range in mine.iter().filter_map(Entry::range) {
        let shown = format!("{}-{}", range.start, range.last());
        if let Some(other) = others.iter().find(|o| o.range().is_some_and(|r| r.overlaps(&range))) {
            said.push(format!("{shown} is also given to {}", String::from_utf8_lossy(other.owner)));
        }
        if let Some((other, id)) = accounts.iter().find(|(_, id)| range.contains(*id)) {
            said.push(format!("{shown} holds {id}, which is {other}"));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, uid: u32) -> Caller {
        Caller { uid, gid: uid, groups: vec![], name: name.into(), home: "/".into(), account_home: "/".into(), shell: "/bin/sh".into() }
    }

    fn ranges(text: &str, name: &str, uid: u32) -> Result<Vec<(u32, u32)>> {
        let caller = caller(name, uid);
        let claims: Vec<_> = entries(text.as_bytes()).filter(|e| e.is_of(name, uid)).map(|e| e.claim).collect();
        check(&claims, uid, &caller, UID_FILE)?;
        Ok(usable(claims).iter().map(|r| (r.start, r.count)).collect())
    }

    #[test]
    fn ranges_by_name_and_by_uid_in_file_order() {
        for (text, expected) in [
            ("", vec![]),
            ("tester:100000:65536\n", vec![(100_000, 65_536)]),
            ("tester:100000:65536", vec![(100_000, 65_536)]),
            ("1000:100000:65536\n", vec![(100_000, 65_536)]),
            ("bob:1:2\ntester:900000:10\ntester:200000:20\n1000:300000:30\n", vec![(900_000, 10), (200_000, 20), (300_000, 30)]),
            ("# tester:1:2\n#tester:1:2\n\nte:1:2\ntester2:1:2\n10000:1:2\n", vec![]),
            ("tester\ntester:1\ntester:1:2:3\ntester::5\ntester:5:\ntester:-5:5\ntester:0x10:5\ntester: 10:5\n", vec![]),
            ("tester:100000:65536\n1000:100000:65536\n", vec![(100_000, 65_536)]),
            ("tester:4294967290:5\r\n", vec![(4_294_967_290, 5)]),
            // podman's own image has such a file: low ids, around the caller.
            ("tester:1:999\ntester:1001:64535\n", vec![(1, 999), (1001, 64_535)]),
        ] {
            assert_eq!(ranges(text, "tester", 1000).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn cve_2016_6252_no_range_wraps() {
        for (text, why) in [
            ("tester:100000:0", "empty"),
            ("tester:4294967295:1", "largest"),
            ("tester:4294967290:6", "largest"),
            ("tester:1001:4294967295", "largest"),
            ("tester:18446744073709551615:1", "largest"),
            ("tester:99999999999999999999999:1", "largest"),
            ("tester:5000000000:65536", "largest"),
            ("tester:100000:10\ntester:100009:10", "overlaps"),
            ("tester:100005:1\n1000:100000:10", "overlaps"),
        ] {
            let error = ranges(text, "tester", 1000).unwrap_err();
            assert!(error.message().contains(why) && error.cure().is_some(), "{text:?}: {error}");
        }
    }

    #[test]
    fn cve_2024_56433_ranges_of_others_are_refused_or_named() {
        assert!(ranges("tester:0:65536", "tester", 1000).unwrap_err().message().contains("root of the host"));
        assert!(ranges("tester:1:65536", "tester", 1000).unwrap_err().message().contains("the caller"));
        assert!(ranges("root:0:65536", "root", 0).unwrap_err().message().contains("root of the host"));
        assert!(ranges("root:1:65536", "root", 0).is_ok());
        let text = b"bob:100000:65536\ntester:165535:10\ntester:500000:65536\n";
        let accounts = [("network".to_string(), 500_001), ("tester".to_string(), 1000)];
        let said = collisions(text, "tester", 1000, &accounts);
        assert_eq!(said, ["165535-165544 is also given to bob", "500000-565535 holds 500001, which is network"]);
        assert!(collisions(b"tester:100000:65536\nbob:165536:65536\n", "tester", 1000, &accounts).is_empty());
    }

    #[test]
    fn a_proposed_range_is_free() {
        assert_eq!(free_start(&[b"", b""]), 100_000);
        assert_eq!(free_start(&[b"a:100000:65536\nb:165536:65536\n", b"a:300000:1\n"]), 300_001);
        assert_eq!(free_start(&[b"a:4294900000:60000\n"]), 100_000);
    }

    #[test]
    fn name_service_modules() {
        for (text, module) in [
            ("passwd: files sss\n", false),
            ("subid: files\n", false),
            ("subid: sss\n", true),
            ("passwd: files\nsubid:\tsss files\n", true),
            ("SUBID: sss", true),
            ("subid:\nsubid: sss\n", true),
            ("#subid: sss\n", false),
            ("subid:", false),
        ] {
            assert_eq!(names_a_module(text.as_bytes()), module, "{text:?}");
        }
    }

    #[test]
    fn getsubids_answers() {
        let claims = answers(b"0: tester 100000 65536\n1: DOMAIN\\some one 300000 10\nError fetching ranges\n");
        assert_eq!(claims, [Claim { start: 100_000, count: 65_536 }, Claim { start: 300_000, count: 10 }]);
        assert!(answers(b"\n\n0:\n").is_empty());
    }

    #[test]
    fn ranges_meet_or_do_not() {
        let range = |start, count| Range { start, count };
        for (a, b, meet) in [
            (range(1, 1), range(2, 1), false),
            (range(1, 2), range(2, 1), true),
            (range(5, 1), range(0, 10), true),
            (range(9, 1), range(0, 9), false),
        ] {
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (meet, meet), "{a:?} {b:?}");
        }
        assert!(range(u32::MAX - 1, 1).contains(u32::MAX - 1) && !range(1, 5).contains(0));
    }
}
