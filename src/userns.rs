//! Which ids inside are which outside: the plan of a map, and the writing of it through newuidmap and newgidmap.
//!
//! *What*: `plan` turns the user's choice and the host's subuid ranges into `Maps`; `Maps::write` begins to write them for a process
//! in a new user namespace, and `Writing::finish` waits for that; `Maps::inner` gives the extents of the inner namespace.
//!
//! *Why this way*: in host-tree mode the caller keeps its own uid and gid and the subuids lie around it, so that files,
//! `id` and tools agree with the host; for a root directory the caller is 0 and the subuids follow, so that one tree on disk
//! serves every run. (Rejected: chown or idmapped mounts; an unprivileged user can have neither on ext4 or xfs.)
//!
//! *Invariants*
//! - I1 an extent of the inner map never spans two extents of the outer one. kernel: kernel/user_namespace.c map_write()
//! - I2 no map is handed to a helper that our own check would refuse: no overlap, no overflow, at most 340 extents.
//!
//! *Kernel*
//!
//! | call | since | why | without it |
//! |---|---|---|---|
//! | user namespaces | 3.8 | all of it | nothing runs |
//! | 340 extents | 4.15 | many small subuid ranges | ranges are refused |
#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result};
use crate::host::caller::Caller;
use crate::host::remedy;
use crate::host::subid::{Range, Subids};
use crate::spec::{IdMapping, Userns};
use crate::tape::step::Extent;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// man: user_namespaces(7)
const MOST_EXTENTS: usize = 340;

/// How many ids a map takes from the subuid ranges: what every distribution hands out, and all that images use.
const MOST_IDS: u32 = 1 << 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maps {
    pub uids: Vec<Extent>,
    pub gids: Vec<Extent>,
    /// newuidmap and newgidmap; None: one id, which we may write ourselves.
    helpers: Option<(PathBuf, PathBuf)>,
}

/// Where the caller's own id goes.
enum Own {
    /// To this number.
    At(u32),
    Nowhere,
}

/// `mode` is never `Auto` here: the caller has decided what that means for its root.
pub fn plan(mode: &Userns, caller: &Caller, subids: &Subids, helper: impl Fn(&str) -> Result<PathBuf>) -> Result<Maps> {
    let (uids, gids) = match mode {
        Userns::Single => one(caller, caller.uid, caller.gid),
        Userns::Auto | Userns::KeepId { .. } => {
            let (uid, gid) = match mode {
                Userns::KeepId { uid, gid } => (uid.unwrap_or(caller.uid), gid.unwrap_or(caller.gid)),
                _ => (caller.uid, caller.gid),
            };
            (around(Own::At(uid), caller.uid, &subids.uids), around(Own::At(gid), caller.gid, &subids.gids))
        }
        Userns::Root => (around(Own::At(0), caller.uid, &subids.uids), around(Own::At(0), caller.gid, &subids.gids)),
        Userns::Nomap => (around(Own::Nowhere, caller.uid, &subids.uids), around(Own::Nowhere, caller.gid, &subids.gids)),
        Userns::Explicit { uids, gids } => (explicit(uids, caller.uid, &subids.uids, "uid")?, explicit(gids, caller.gid, &subids.gids, "gid")?),
    };
    with_helpers(uids, gids, caller, helper)
}

/// The maps of a living user namespace, as the kernel shows them to us. man: user_namespaces(7)
pub fn living(uid_map: &str, gid_map: &str, caller: &Caller, helper: impl Fn(&str) -> Result<PathBuf>) -> Result<Maps> {
    let extents = |text: &str| -> Option<Vec<Extent>> {
        let numbers = |line: &str| line.split_whitespace().map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>();
        let lines = text.lines().map(|line| match numbers(line)?.as_slice() {
            [inside, outside, count] => Some(Extent { inside: *inside, outside: *outside, count: *count }),
            _ => None,
        });
        lines.collect()
    };
    let (Some(uids), Some(gids)) = (extents(uid_map), extents(gid_map)) else {
        return Err(Error::new(Kind::Bug, "cannot read the id maps of the sandbox"));
    };
    with_helpers(uids, gids, caller, helper)
}

fn with_helpers(uids: Vec<Extent>, gids: Vec<Extent>, caller: &Caller, helper: impl Fn(&str) -> Result<PathBuf>) -> Result<Maps> {
    for (kind, extents) in [("uid", &uids), ("gid", &gids)] {
        check(kind, extents)?;
    }
    let own = |extents: &[Extent], id: u32| extents.len() == 1 && extents.first().is_some_and(|e| e.count == 1 && e.outside == id);
    let single = own(&uids, caller.uid) && own(&gids, caller.gid);
    let helpers = if single { None } else { Some((helper("newuidmap")?, helper("newgidmap")?)) };
    Ok(Maps { uids, gids, helpers })
}

/// One id only.
pub fn single(uid_inside: u32, gid_inside: u32, caller: &Caller) -> Maps {
    let (uids, gids) = one(caller, uid_inside, gid_inside);
    Maps { uids, gids, helpers: None }
}

fn one(caller: &Caller, uid: u32, gid: u32) -> (Vec<Extent>, Vec<Extent>) {
    (vec![Extent { inside: uid, outside: caller.uid, count: 1 }], vec![Extent { inside: gid, outside: caller.gid, count: 1 }])
}

/// The subuids laid out from 0 on, with the caller's own id at its place among them.
fn around(own: Own, caller: u32, ranges: &[Range]) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut next = 0u32;
    let mut left = MOST_IDS;
    let own_at = match own {
        Own::At(id) => Some(id),
        Own::Nowhere => None,
    };
    let mut placed = own_at.is_none();
    for range in ranges {
        let (mut start, mut count) = (range.start, range.count.min(left));
        left -= count;
        while count > 0 {
            let room = match own_at {
                Some(id) if !placed && id >= next => id - next,
                _ => u32::MAX - 1 - next,
            };
            let take = room.min(count);
            if take > 0 {
                extents.push(Extent { inside: next, outside: start, count: take });
                (next, start, count) = (next + take, start + take, count - take);
            }
            if let Some(id) = own_at
                && !placed
                && next == id
            {
                extents.push(Extent { inside: id, outside: caller, count: 1 });
                placed = true;
                next += 1;
            } else if take == 0 {
                break;
            }
        }
    }
    if let Some(id) = own_at
        && !placed
    {
        extents.push(Extent { inside: id, outside: caller, count: 1 });
    }
    extents
}

/// Docker's explicit extents: each must lie in what the caller owns.
fn explicit(maps: &[IdMapping], caller: u32, ranges: &[Range], kind: &str) -> Result<Vec<Extent>> {
    let mut extents = Vec::new();
    for m in maps {
        let own = m.host == caller && m.count == 1;
        let granted = ranges.iter().any(|r| m.host >= r.start && m.host - r.start <= r.count && m.count <= r.count - (m.host - r.start));
        if !own && !granted {
            return Err(Error::new(Kind::Denied, format!("cannot map {kind}s {}-{}: they are not yours", m.host, m.host + (m.count - 1)))
                .hint(format!("your own are {caller} and what /etc/sub{kind} gives you; see 'sandbox doctor'")));
        }
        extents.push(Extent { inside: m.inside, outside: m.host, count: m.count });
    }
    if extents.is_empty() {
        return Err(Error::usage(format!("an explicit map needs at least one --{kind}map")));
    }
    Ok(extents)
}

/// I2. cve: 2018-18955, 2021-43784
fn check(kind: &str, extents: &[Extent]) -> Result<()> {
    let bad = |why: String| Err(Error::usage(format!("bad {kind} map: {why}")));
    if extents.is_empty() {
        return bad("it is empty".into());
    }
    if extents.len() > MOST_EXTENTS {
        return bad(format!("{} extents, and the kernel takes {MOST_EXTENTS}", extents.len()));
    }
    for side in [|e: &Extent| e.inside, |e: &Extent| e.outside] {
        let mut spans: Vec<(u64, u64)> = extents.iter().map(|e| (u64::from(side(e)), u64::from(side(e)) + u64::from(e.count))).collect();
        spans.sort_unstable();
        if let Some((start, _)) = spans.iter().find(|(start, end)| start == end || *end > u64::from(u32::MAX)) {
            return bad(format!("the extent at {start} is empty or too long"));
        }
        if let Some(w) = spans.windows(2).find(|w| w[0].1 > w[1].0) {
            return bad(format!("two extents hold the id {}", w[1].0));
        }
    }
    Ok(())
}

impl Maps {
    /// Several ids, through the setuid helpers?
    pub fn is_full(&self) -> bool {
        self.helpers.is_some()
    }

    /// The id inside for a host uid, if it has one.
    pub fn uid_inside(&self, outside: u32) -> Option<u32> {
        inside(&self.uids, outside)
    }

    pub fn gid_inside(&self, outside: u32) -> Option<u32> {
        inside(&self.gids, outside)
    }

    pub fn has_uid(&self, inside: u32) -> bool {
        self.uids.iter().any(|e| inside >= e.inside && inside - e.inside < e.count)
    }

    pub fn has_gid(&self, inside: u32) -> bool {
        self.gids.iter().any(|e| inside >= e.inside && inside - e.inside < e.count)
    }

    /// The maps of the inner namespace: the same ids, extent by extent. // I1
    pub fn inner(&self) -> (Box<[Extent]>, Box<[Extent]>) {
        let same = |extents: &[Extent]| extents.iter().map(|e| Extent { outside: e.inside, ..*e }).collect();
        (same(&self.uids), same(&self.gids))
    }

    /// Begin to write the maps of the user namespace that the process `pid` is in.
    pub fn write(&self, pid: i32) -> Result<Writing> {
        let Some((newuidmap, newgidmap)) = &self.helpers else { return self.write_own(pid).map(|()| Writing(None)) };
        // At the same time: each is a setuid exec of about a millisecond.
        let uid = start(newuidmap, pid, &self.uids)?;
        Ok(Writing(Some((uid, start(newgidmap, pid, &self.gids)))))
    }

    /// man: user_namespaces(7): one id of our own needs no privilege, but setgroups(2) must be given up first.
    fn write_own(&self, pid: i32) -> Result<()> {
        let line = |extents: &[Extent]| extents.iter().map(|e| format!("{} {} {}\n", e.inside, e.outside, e.count)).collect::<String>();
        for (file, text) in [("setgroups", "deny".to_string()), ("uid_map", line(&self.uids)), ("gid_map", line(&self.gids))] {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, text).map_err(|e| remedy::explain_idmap_failure(file, &crate::error::why(&e)))?;
        }
        Ok(())
    }
}

/// newuidmap and newgidmap, at work; None: the maps are written.
pub struct Writing(Option<(Child, Result<Child>)>);

impl Writing {
    pub fn finish(mut self) -> Result<()> {
        let Some((uid, gid)) = self.0.take() else { return Ok(()) };
        let uid = finish(uid, "newuidmap");
        let gid = gid.and_then(|g| finish(g, "newgidmap"));
        uid.and(gid)
    }
}

/// They name a process by its pid, so it must not be gone before them.
impl Drop for Writing {
    fn drop(&mut self) {
        if let Some((mut uid, gid)) = self.0.take() {
            let _ = uid.wait();
            let _ = gid.map(|mut gid| gid.wait());
        }
    }
}

fn inside(extents: &[Extent], outside: u32) -> Option<u32> {
    extents.iter().find(|e| outside >= e.outside && outside - e.outside < e.count).map(|e| e.inside + (outside - e.outside))
}

/// L12: numbers only, a constructed environment, an absolute path that was checked.
fn start(helper: &PathBuf, pid: i32, extents: &[Extent]) -> Result<Child> {
    let numbers = extents.iter().flat_map(|e| [e.inside, e.outside, e.count]).map(|n| n.to_string());
    Command::new(helper)
        .arg(pid.to_string())
        .args(numbers)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.raw_os_error() {
            Some(libc::EAGAIN) => remedy::explain_userns_failure(libc::EAGAIN), // the limit on processes
            _ => Error::new(Kind::Denied, format!("cannot run {}: {}", helper.display(), crate::error::why(&e)))
                .hint("do with one id, --userns single, unless an outer container's seccomp filter is in the way: see 'sandbox doctor'"),
        })
}

fn finish(helper: Child, name: &str) -> Result<()> {
    let out = helper.wait_with_output().map_err(|e| Error::new(Kind::Io, format!("cannot wait for {name}: {}", crate::error::why(&e))))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    Err(remedy::explain_idmap_failure(name, text.lines().next().unwrap_or("it said nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32) -> Caller {
        Caller { uid, gid: uid, groups: vec![], name: "u".into(), home: "/".into(), account_home: "/".into(), shell: "/bin/sh".into() }
    }

    fn ranges(list: &[(u32, u32)]) -> Vec<Range> {
        list.iter().map(|(start, count)| Range { start: *start, count: *count }).collect()
    }

    fn map(mode: Userns, uid: u32, list: &[(u32, u32)]) -> Result<Vec<(u32, u32, u32)>> {
        let subids = Subids { uids: ranges(list), gids: ranges(list) };
        let maps = plan(&mode, &caller(uid), &subids, |h| Ok(PathBuf::from(h)))?;
        Ok(maps.uids.iter().map(|e| (e.inside, e.outside, e.count)).collect())
    }

    const KEEP: Userns = Userns::KeepId { uid: None, gid: None };

    #[test]
    fn the_caller_keeps_its_id_and_the_subuids_lie_around_it() {
        assert_eq!(map(KEEP, 1000, &[(100000, 65536)]).unwrap(), [(0, 100000, 1000), (1000, 1000, 1), (1001, 101000, 64536)]);
        assert_eq!(map(KEEP, 0, &[(100000, 10)]).unwrap(), [(0, 0, 1), (1, 100000, 10)]);
        // An LDAP uid far above the ranges.
        assert_eq!(map(KEEP, 172761424, &[(100000, 10)]).unwrap(), [(0, 100000, 10), (172761424, 172761424, 1)]);
        // Two ranges, the caller's id at their border and within the second.
        assert_eq!(map(KEEP, 5, &[(100, 5), (200, 5)]).unwrap(), [(0, 100, 5), (5, 5, 1), (6, 200, 5)]);
        assert_eq!(map(KEEP, 7, &[(100, 5), (200, 5)]).unwrap(), [(0, 100, 5), (5, 200, 2), (7, 7, 1), (8, 202, 3)]);
        assert_eq!(map(KEEP, 1000, &[]).unwrap(), [(1000, 1000, 1)]);
    }

    #[test]
    fn root_and_nomap() {
        assert_eq!(map(Userns::Root, 1000, &[(100000, 65536)]).unwrap(), [(0, 1000, 1), (1, 100000, 65536)]);
        assert_eq!(map(Userns::Nomap, 1000, &[(100000, 65536)]).unwrap(), [(0, 100000, 65536)]);
        assert!(map(Userns::Nomap, 1000, &[]).is_err());
    }

    #[test]
    fn cve_2018_18955_maps_are_checked_before_any_helper_runs() {
        let explicit = |list: &[&str]| {
            let m: Vec<IdMapping> = list.iter().map(|s| s.parse().unwrap()).collect();
            map(Userns::Explicit { uids: m.clone(), gids: m }, 1000, &[(100000, 65536)])
        };
        assert!(explicit(&["0:1000:1", "1:100000:65536"]).is_ok());
        for bad in
            [&["0:0:1"][..], &["0:1000:2"], &["0:100000:65537"], &["0:165535:2"], &["0:100000:2", "1:100010:2"], &["0:100000:2", "5:100001:2"], &[]]
        {
            assert!(explicit(bad).is_err(), "{bad:?}");
        }
        let many: Vec<(u32, u32)> = (0..341).map(|n| (100000 + n * 10, 1)).collect();
        assert!(map(KEEP, 1000, &many).is_err());
    }

    #[test]
    fn cve_2018_18955_no_inner_extent_spans_two_outer_ones() {
        let subids = Subids { uids: ranges(&[(100000, 700), (300000, 65536)]), gids: ranges(&[(100000, 65536)]) };
        let maps = plan(&KEEP, &caller(1000), &subids, |h| Ok(PathBuf::from(h))).unwrap();
        let (uids, gids) = maps.inner();
        for (inner, outer) in [(&uids, &maps.uids), (&gids, &maps.gids)] {
            assert_eq!(inner.len(), outer.len());
            assert!(inner.iter().zip(outer).all(|(i, o)| i.inside == o.inside && i.outside == o.inside && i.count == o.count));
        }
        assert_eq!((maps.uid_inside(1000), maps.uid_inside(100001), maps.uid_inside(0)), (Some(1000), Some(1), None));
        assert!(maps.has_uid(65535) && !maps.has_uid(70000));
    }
}
