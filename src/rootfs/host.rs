//! The host's own tree, copy-on-write: an overlay for each directory at the top, and what is hidden in it. Called by `rootfs`.
//!
//! The kernel refuses an overlay over a directory with mounts below it (kernel: fs/namespace.c clone_private_mount(), locked
//! children), and `/` always has some. So such a directory is rebuilt as a *skeleton*: a directory of the scratch with the same
//! entries, each shown in its own way.
#![forbid(unsafe_code)]

use super::{Builder, RDONLY, cpath, writable};
use crate::error::{Doing, Result};
use crate::host::mounts::{is_below, is_within, mounted_at, submounts};
use crate::spec::Root;
use crate::tape::{Create, Step};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A skeleton with more entries than this would cost more mounts than it is worth: shown read-only instead.
const MOST_ENTRIES: usize = 256;

/// File systems that the kernel's overlay refuses as a lower layer, or that make no sense below one.
const NO_LOWER: [&str; 20] = [
    "autofs",
    "vfat",
    "msdos",
    "exfat",
    "ntfs3",
    "hfsplus",
    "cifs",
    "smb3",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "mqueue",
    "debugfs",
    "tracefs",
    "securityfs",
    "bpf",
    "nsfs",
    "binfmt_misc",
];

/// Lay the host's tree; true: the top itself is read-only.
pub fn lay(b: &mut Builder) -> Result<bool> {
    let spec = b.site.spec;
    b.mount(Step::CloneTree { path: c"r".into(), recursive: false, attributes: super::PLAIN, device: None, slot: crate::tape::Slot::Mount });
    b.mount(Step::RootAt { at: c"r".into() });
    skeleton(b, entries(Path::new("/"), usize::MAX))?;
    if !spec.files.root_read_only {
        // What the user's own mount covers need not be writable below it.
        for dir in [b.site.home, b.site.cwd].into_iter().filter(|dir| !spec.files.mounts.iter().any(|m| is_within(dir, &m.target))) {
            island(b, dir)?;
        }
    }
    // An ordinary user may not write to the host's `/` either; the host's root may.
    Ok(spec.files.root_read_only || b.site.caller.uid != 0)
}

/// The entries of a directory, if there are at most so many, else one more. A directory that we cannot list shows nothing.
fn entries(dir: &Path, most: usize) -> Vec<PathBuf> {
    std::fs::read_dir(dir).map(|list| list.take(most.saturating_add(1)).filter_map(|e| e.ok()).map(|e| e.path()).collect()).unwrap_or_default()
}

/// Has a directory no entries? With a small buffer, since reading all names of a large one takes as long as mounting it.
fn is_empty(dir: &Path) -> bool {
    let Ok(dir) = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty()) else { return true };
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut list = rustix::fs::RawDir::new(dir, &mut buffer);
    while let Some(entry) = list.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(_) => return false,
            Err(_) => return true, // it went away, and says so for ever
        }
    }
    true
}

/// Rebuild a directory, whose scratch directory stands, entry by entry.
fn skeleton(b: &mut Builder, mut entries: Vec<PathBuf>) -> Result<()> {
    entries.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    for path in entries {
        entry(b, &path)?;
    }
    Ok(())
}

fn listed(list: &[crate::spec::Reasoned], path: &Path) -> bool {
    list.iter().any(|r| r.path.as_bytes() == path.as_os_str().as_bytes())
}

/// Show one entry of a skeleton.
fn entry(b: &mut Builder, path: &Path) -> Result<()> {
    // An entry that vanished meanwhile is not there.
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let files = &b.site.spec.files;
    let place = Path::new("r").join(path.strip_prefix("/").unwrap_or(path));
    if meta.is_symlink() {
        let target = std::fs::read_link(path).doing("read", path.display())?;
        b.make(Step::Symlink { target: cpath(&target)?, path: cpath(&place)? });
        return Ok(());
    }
    if !meta.is_dir() {
        if meta.file_type().is_block_device() || meta.file_type().is_char_device() || !readable(path, false) {
            return Ok(());
        }
        b.make(Step::MakeFile { path: cpath(&place)?, content: Box::default(), mode: 0o444 });
        return b.bind(path, path, RDONLY, Create::Nothing, false);
    }
    let (owner, mode) = b.likeness(path, &meta);
    b.make(Step::MakeDir { path: cpath(&place)?, mode, owner });
    b.note_made(path);
    if matches!(path.to_str(), Some("/proc" | "/sys" | "/dev")) {
        return Ok(());
    }
    if listed(&files.fresh, path) {
        b.empty(path, mode, owner, Create::Nothing)?;
        for inner in &files.fresh {
            fresh_below(b, path, Path::new(&inner.path))?;
        }
        return shown_read_only(b, path);
    }
    if !readable(path, true) {
        return Ok(());
    }
    let mounted = submounts(b.site.mounts, path).next().is_some();
    let fstype = mounted_at(b.site.mounts, path).map(|m| m.fstype.as_str());
    if listed(&files.read_only, path) || files.root_read_only || fstype.is_some_and(|t| NO_LOWER.contains(&t)) {
        return b.bind(path, path, RDONLY, Create::Nothing, false).and_then(|()| fresh_within(b, path));
    }
    if !mounted {
        return match is_empty(path) && !writable(path) {
            true => Ok(()), // the empty directory itself is all there is
            false => b.overlay_like(path, path, (owner, mode), 0, Create::Nothing).and_then(|()| fresh_within(b, path)),
        };
    }
    let entries = entries(path, MOST_ENTRIES);
    if entries.len() > MOST_ENTRIES {
        b.notes.push(format!("{} has mounts below it and many entries: it is read-only here (--rw or --cow names a part of it)", path.display()));
        return b.bind(path, path, RDONLY, Create::Nothing, false).and_then(|()| fresh_within(b, path));
    }
    skeleton(b, entries)
}

/// Fresh directories that lie deeper in the layer at `path`, such as /var/tmp in /var.
fn fresh_within(b: &mut Builder, path: &Path) -> Result<()> {
    let files = &b.site.spec.files;
    for dir in files.fresh.iter().map(|r| Path::new(&r.path)).filter(|d| is_below(d, path)) {
        if let Ok(meta) = std::fs::symlink_metadata(dir)
            && meta.is_dir()
        {
            let (owner, mode) = b.likeness(dir, &meta);
            b.empty(dir, mode, owner, Create::Nothing)?;
        }
    }
    shown_read_only(b, path)
}

/// A fresh directory within a fresh directory (/run/lock in /run) is just a directory.
fn fresh_below(b: &mut Builder, path: &Path, dir: &Path) -> Result<()> {
    if !is_below(dir, path) {
        return Ok(());
    }
    let Ok(meta) = std::fs::symlink_metadata(dir) else { return Ok(()) };
    let Some(parent) = dir.parent() else { return Ok(()) };
    if meta.is_dir() && b.stand(parent)? && !b.is_made(dir) {
        b.note_made(dir);
        let Some(layer) = b.layer(dir) else { return Ok(()) };
        let place = Path::new(&layer.upper).join(dir.strip_prefix(&layer.point).unwrap_or(dir));
        b.make(Step::MakeDir { path: cpath(&place)?, mode: meta.mode() & 0o7777, owner: b.root_owner() });
    }
    Ok(())
}

/// Host paths strictly below `path` that the policy shows read-only there.
fn shown_read_only(b: &mut Builder, path: &Path) -> Result<()> {
    let files = &b.site.spec.files;
    for shown in files.read_only.iter().map(|r| Path::new(&r.path)).filter(|p| is_below(p, path)) {
        let Ok(meta) = std::fs::metadata(shown) else { continue };
        if let Some(parent) = shown.parent() {
            b.stand(parent)?;
        }
        let create = if meta.is_dir() { Create::Directory } else { Create::File };
        b.bind(shown, shown, RDONLY, create, false)?;
    }
    Ok(())
}

fn readable(path: &Path, directory: bool) -> bool {
    let wanted = if directory { rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK } else { rustix::fs::Access::READ_OK };
    rustix::fs::access(path, wanted).is_ok() || (directory && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// The caller's home and working directory must be writable inside. The kernel's overlay cannot copy up a directory whose owner
/// has no mapping (EOVERFLOW), so where one lies on the way, a further overlay starts below it. In a fresh directory nothing of
/// the host shows at all, so there it starts as high as the caller's own directories reach.
fn island(b: &mut Builder, dir: &Path) -> Result<()> {
    let Some(layer) = b.layer(dir) else { return Ok(()) };
    let (point, fresh) = (layer.point.clone(), layer.lower.is_none());
    let maps = b.site.maps;
    let mut chain: Vec<&Path> = dir.ancestors().take_while(|a| *a != point).collect();
    chain.reverse();
    let mapped = |path: &Path| std::fs::metadata(path).is_ok_and(|m| maps.uid_inside(m.uid()).is_some() && maps.gid_inside(m.gid()).is_some());
    let start = if fresh {
        chain.iter().position(|p| mapped(p)).unwrap_or(chain.len().saturating_sub(1))
    } else {
        match chain.iter().rposition(|p| !mapped(p)) {
            None => return Ok(()),
            Some(last) => (last + 1).min(chain.len() - 1),
        }
    };
    let Some(place) = chain.get(start).copied() else { return Ok(()) };
    if !place.is_dir() || (!fresh && !writable(place)) {
        return Ok(());
    }
    if let Some(m) = submounts(b.site.mounts, place).next() {
        b.notes.push(format!(
            "{} cannot be written here, since {} is mounted below it: --rw or --cow names a part of it",
            place.display(),
            m.point.display()
        ));
        return if fresh { b.bind(place, place, RDONLY, Create::Directory, false) } else { Ok(()) };
    }
    if !mapped(place) && writable(place) {
        b.notes.push(format!(
            "{} belongs to an id with no mapping here: what others own in it cannot be changed (EOVERFLOW); --rw {0} writes through to the host",
            place.display()
        ));
    }
    if fresh && let Some(parent) = place.parent() {
        b.stand(parent)?;
    }
    let create = if fresh { Create::Directory } else { Create::Nothing };
    b.overlay(place, place, 0, create)
}

/// Hide what the policy hides, and what the user did not name himself: by whiteout in a layer, by a mask elsewhere. A whiteout
/// needs no look at the name itself, so only directories are looked at, each once.
pub fn hide(b: &mut Builder, shown: &[PathBuf]) -> Result<()> {
    if b.site.spec.root != Root::Host {
        return Ok(());
    }
    let mut groups: BTreeMap<OsString, Vec<OsString>> = BTreeMap::new();
    for path in hidden(b) {
        group(&mut groups, &path, shown);
    }
    let (mut known, mut white) = (BTreeMap::new(), BTreeSet::new());
    // From the last: what lies in a directory comes before the directory.
    while let Some((parent, names)) = groups.pop_last() {
        let parent = PathBuf::from(parent);
        match place(b, &parent, &mut known, &mut white)? {
            Place::Layer { scratch } => {
                // Reading a directory of hundreds of names takes longer than asking for a few.
                let links = (names.len() > 16).then(|| links(&parent));
                for name in names {
                    let path = parent.join(&name);
                    if links.as_ref().map_or_else(|| path.is_symlink(), |links| links.contains(&name)) {
                        // What it leads to must not be read there either.
                        std::fs::canonicalize(&path).ok().filter(|p| *p != path).iter().for_each(|p| group(&mut groups, p, shown));
                    }
                    if b.is_made(&path) {
                        if !white.contains(path.as_os_str()) {
                            mask(b, &path)?;
                        }
                        continue;
                    }
                    let whiteout = [scratch.as_bytes(), b"/", name.as_bytes()].concat();
                    b.make(Step::Whiteout { path: CString::new(whiteout).unwrap_or_default() });
                    b.note_made(&path);
                    white.insert(path.into_os_string());
                }
            }
            Place::Elsewhere => names.iter().try_for_each(|name| mask(b, &parent.join(name)))?,
            Place::Link(real) => names.iter().for_each(|name| group(&mut groups, &real.join(name), shown)),
            Place::Nowhere => {}
        }
    }
    Ok(())
}

/// Add a path that is to be hidden to those of its directory, unless the user wants to see something in it.
fn group(groups: &mut BTreeMap<OsString, Vec<OsString>>, path: &Path, shown: &[PathBuf]) {
    if let Some((parent, name)) = split(path).filter(|_| !shown.iter().any(|s| is_within(s, path))) {
        match groups.get_mut(parent.as_os_str()) {
            Some(names) => names.push(name.into()),
            None => drop(groups.insert(parent.into(), vec![name.into()])),
        }
    }
}

/// The names in a directory that are symbolic links.
fn links(dir: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_symlink())).map(|e| e.file_name()).collect()
}

/// Parent and name of an absolute path. As bytes: `Path` takes its time, and there are many.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|b| *b == b'/')?;
    let (parent, name) = (bytes.get(..at.max(1))?, bytes.get(at + 1..)?);
    (!name.is_empty()).then_some((Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name)))
}

/// What can be done about names in a directory that are to be hidden.
enum Place {
    /// White them out in this directory of the scratch.
    Layer { scratch: OsString },
    /// Mask what is there.
    Elsewhere,
    /// The directory is reached by a symbolic link, and really is this.
    Link(PathBuf),
    /// The directory is not there, and will not be; or shows nothing of the host.
    Nowhere,
}

/// What stands at a host path.
#[derive(Clone, Copy)]
enum Found {
    Directory,
    Link,
    Other,
    Nothing,
}

fn found(path: &Path) -> Found {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => Found::Directory,
        Ok(meta) if meta.is_symlink() => Found::Link,
        Ok(_) => Found::Other,
        Err(_) => Found::Nothing,
    }
}

/// `known`: what stands on the way, so that each directory is looked at once. `white`: what is whited out already.
fn place(b: &mut Builder, dir: &Path, known: &mut BTreeMap<OsString, Found>, white: &mut BTreeSet<OsString>) -> Result<Place> {
    let Some(layer) = b.layer(dir) else { return Ok(Place::Elsewhere) };
    let Some(lower) = layer.lower.clone() else { return Ok(Place::Nowhere) };
    let (point, upper) = (layer.point.clone(), layer.upper.clone());
    let below = dir.strip_prefix(&point).unwrap_or(dir);
    // The first name that is missing on the way is what to white out, so that it stays missing.
    let mut name = PathBuf::new();
    for component in below.components() {
        name.push(component);
        let host = lower.join(&name).into_os_string();
        let there = *known.entry(host).or_insert_with_key(|host| found(Path::new(host)));
        let target = point.join(&name);
        if white.contains(target.as_os_str()) {
            return Ok(Place::Nowhere);
        }
        match there {
            Found::Directory => continue,
            Found::Link => {
                return Ok(std::fs::canonicalize(dir).ok().filter(|real| real != dir).map_or(Place::Nowhere, Place::Link));
            }
            Found::Other => return Ok(Place::Nowhere),
            Found::Nothing => {}
        }
        let parent = target.parent().unwrap_or(&point).to_path_buf();
        if !b.is_made(&target) && b.stand(&parent)? {
            b.note_made(&target);
            b.make(Step::Whiteout { path: cpath(&Path::new(&upper).join(&name))? });
            white.insert(target.into_os_string());
        }
        return Ok(Place::Nowhere);
    }
    if !b.stand(dir)? {
        return Ok(Place::Elsewhere);
    }
    Ok(Place::Layer { scratch: Path::new(&upper).join(below).into_os_string() })
}

/// After a bind of `source` at `target`: what the policy hides lies below it, so cover it there.
pub fn cover(b: &mut Builder, source: &Path, target: &Path, shown: &[PathBuf]) -> Result<()> {
    let named = |path: &Path| b.site.spec.files.mounts.iter().any(|m| is_within(&m.target, path)) || shown.iter().any(|s| is_within(s, path));
    let below: Vec<PathBuf> = hidden(b).into_iter().filter(|p| is_below(p, source)).collect();
    for path in below {
        let inside = target.join(path.strip_prefix(source).unwrap_or(&path));
        if named(&inside) {
            continue;
        }
        if let Ok(meta) = std::fs::symlink_metadata(&path)
            && !meta.is_symlink()
        {
            b.mask(&inside, meta.is_dir())?;
        }
    }
    guard(b, source, target)?;
    // Our own program must not be changed from inside, for it runs outside next time. cve: 2019-5736
    match std::fs::read_link("/proc/self/exe") {
        Ok(exe) if exe.starts_with(source) => remount(b, &target.join(exe.strip_prefix(source).unwrap_or(&exe)), RDONLY),
        _ => Ok(()),
    }
}

fn remount(b: &mut Builder, inside: &Path, attributes: u64) -> Result<()> {
    let target = cpath(inside.strip_prefix("/").unwrap_or(inside))?;
    b.mount(Step::Remount { target, attributes, recursive: true, absent_is_fine: true });
    Ok(())
}

/// Names below a shared directory that stay read-only. A directory on the way to one is mounted on itself, since only a mount
/// point cannot be renamed (EBUSY): else `mv .git x` and a new `.git/hooks` would go around it.
fn guard(b: &mut Builder, source: &Path, target: &Path) -> Result<()> {
    let mut pinned = BTreeSet::new();
    'names: for name in b.site.spec.files.guard.iter().map(|r| PathBuf::from(&r.path)) {
        let way = way(&name);
        for (n, place) in way.iter().enumerate() {
            let last = n + 1 == way.len();
            let Ok(meta) = std::fs::symlink_metadata(source.join(place)) else { continue 'names };
            if meta.is_symlink() {
                let note = format!("{} is a symbolic link, so what it leads to is not guarded", source.join(place).display());
                if !b.notes.contains(&note) {
                    b.notes.push(note);
                }
                continue 'names;
            }
            if !last && !pinned.insert(place.clone()) {
                continue;
            }
            remount(b, &target.join(place), if last { RDONLY } else { 0 })?;
        }
    }
    Ok(())
}

/// A relative path and all directories on the way to it, outermost first.
fn way(name: &Path) -> Vec<PathBuf> {
    let mut way: Vec<PathBuf> = name.ancestors().filter(|p| !p.as_os_str().is_empty()).map(PathBuf::from).collect();
    way.reverse();
    way
}

fn mask(b: &mut Builder, path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.is_symlink() => b.mask(path, meta.is_dir()),
        _ => Ok(()),
    }
}

/// The policy's hidden paths, below the home that $HOME says and below the one of the account.
fn hidden(b: &Builder) -> Vec<PathBuf> {
    let site = b.site;
    let other = Some(&*site.caller.account_home).filter(|h| *h != site.home && *h != site.caller.home);
    let homes = [Some(site.home), other];
    let mut paths = Vec::new();
    for entry in &site.spec.files.hide {
        let own = entry.path.starts_with('~');
        paths.extend(homes.iter().flatten().take(if own { 2 } else { 1 }).map(|home| entry.resolve(home, site.caller.uid)));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_guarded_name() {
        assert_eq!(way(Path::new(".git/info/attributes")), [".git", ".git/info", ".git/info/attributes"].map(PathBuf::from));
        assert_eq!(way(Path::new(".envrc")), [PathBuf::from(".envrc")]);
        assert!(way(Path::new("")).is_empty());
    }
}
