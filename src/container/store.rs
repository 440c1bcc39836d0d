//! The records: made, found, believed or not, swept and removed. Called by `cli` and by the monitor.
//!
//! ```text
//! $XDG_DATA_HOME/sandbox/sandboxes/ID/    of one that stays: detached, created, kept. Locked while somebody stays with it
//!   config.json                           what was decided
//!   state.json                            what happened; the record before it is beside it, and is the place of the next
//!   stop                                  somebody wants it down, and not to be started again
//! $XDG_RUNTIME_DIR/sandbox/sandboxes/ID/  the same of one that runs in the foreground, and is gone with it
//! ```
//!
//! A name that begins with a dot is of something half made or half removed; what nobody has locked of it is swept.
#![forbid(unsafe_code)]

use super::choose::Writes;
use super::events::{About, Happened};
use super::process::{self, Found, Process};
use super::run::note;
use super::{Config, State, Status, events, names};
use crate::birth::die_at;
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::{Id, Name};
use crate::image::store::Store;
use crate::image::{kept, making};
use rustix::fs::{CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For an init that has much to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest record. A thousand variables and mounts are in it.
const LONGEST: u64 = 4 << 20;

/// All sandboxes of a user.
pub struct Sandboxes {
    kept: PathBuf,
    /// Where those in the foreground are, and may be of another session. The first is for new ones.
    live: Vec<PathBuf>,
}

/// A directory that is no sandbox, and why.
type Damaged = (Id, Error);

/// Which are meant.
type Wanted<'a> = &'a dyn Fn(&Id, &Name) -> bool;

/// One of them, as it was when it was read.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub dir: PathBuf,
    pub config: Config,
    /// As it is, not as it says.
    pub state: State,
    /// Somebody stays with it.
    pub alive: bool,
}

impl Sandbox {
    pub fn is_running(&self) -> bool {
        self.alive && self.state.status == Status::Running
    }

    /// Whoever stays with it is not to run it again.
    pub fn unwanted(&self) -> Result<()> {
        let mark = self.dir.join("stop");
        File::create(&mark).map(drop).doing("make", mark.display())
    }

    /// Who stays with it. // I1
    pub fn stays(&self) -> Result<Found> {
        let over = || Error::new(Kind::Conflict, format!("cannot reach the sandbox '{}': it does not run", self.config.name));
        let (Some(process), Some(descriptor), true) = (self.state.stays, self.state.lock, self.alive) else { return Err(over()) };
        let dir = match open(&self.dir) {
            Ok(dir) => dir,
            Err(_) => return Err(over()), // it was removed meanwhile
        };
        let stat = rustix::fs::fstat(&dir).doing("look at", self.dir.display())?;
        let why = match process.find() {
            _ if self.state.boot != process::boot()? => "it is of another start of the machine",
            None => "the process that it names is not there",
            Some(found) if !found.is_of_our_world() => "the process that it names is not one of yours, outside of every sandbox",
            Some(found) if !found.has_locked(descriptor, &stat) => "the process that it names does not have it locked",
            Some(found) => return Ok(found),
        };
        // Or it has ended since.
        Err(if making::lock(&dir, FlockOperation::NonBlockingLockShared).is_ok() { over() } else { self.distrust(why) })
    }

    /// Its PID 1. // I1
    pub fn init(&self) -> Result<Found> {
        let stays = self.stays()?;
        let over = || Error::new(Kind::Conflict, format!("cannot reach the sandbox '{}': its command does not run", self.config.name));
        let init = self.state.init.and_then(|p| p.find()).ok_or_else(over)?;
        if init.is_child_of(&stays) { Ok(init) } else { Err(self.distrust("the process that it names as PID 1 is another one")) }
    }

    /// Where its limits are, if the kernel says that its PID 1 is there. // I1
    pub fn cgroup(&self) -> Result<Option<PathBuf>> {
        let Some(top) = &self.state.cgroup else { return Ok(None) };
        let own = self.init()?.read("cgroup").doing("look at", "the cgroup of PID 1")?;
        let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        if Path::new("/sys/fs/cgroup").join(path).starts_with(top) && top.components().count() > 4 {
            Ok(Some(top.clone()))
        } else {
            Err(self.distrust("its PID 1 is not in the cgroup that it names"))
        }
    }

    /// All that is in it stands still; the kernel says so.
    pub fn is_paused(&self) -> bool {
        if !self.is_running() {
            return false;
        }
        if self.state.cgroup.as_ref().is_some_and(|top| crate::cgroup::is_frozen(top)) {
            return true;
        }
        // Without a cgroup of ours: its command does.
        let stopped = |pid: &u32| Found::open(*pid).and_then(|p| p.stat().map_err(|_| Errno::SRCH)).is_ok_and(|stat| stat.state == 'T');
        let first = self.state.init.and_then(|p| p.find()).and_then(|init| init.children().ok()?.first().copied());
        first.as_ref().is_some_and(stopped)
    }

    /// What `ps` calls it.
    pub fn status(&self) -> &'static str {
        if self.is_paused() { "paused" } else { self.state.status.as_str() }
    }

    /// Stop all that is in it, or let it go on.
    pub fn pause(&self, on: bool) -> Result<()> {
        let init = self.init()?;
        if let Some(top) = self.cgroup()? {
            return crate::cgroup::freeze(&top, on);
        }
        let name = &self.config.name;
        if self.config.spec.namespaces.nested && !self.config.spec.process.init {
            return Err(Error::new(
                Kind::Unsupported,
                format!("cannot pause the sandbox '{name}': its command is PID 1 itself, and there is no cgroup"),
            )
            .hint("run it with --init"));
        }
        // Our init stops everybody as a terminal would; what they make meanwhile, too. // tape/init.rs
        let deadline = Instant::now() + PATIENCE;
        for turn in 1.. {
            if Instant::now() >= deadline {
                break;
            }
            if on && turn % 20 == 0 {
                // A parent in vfork(2) cannot stop before its child has executed something, which is stopped: they go on, and are met elsewhere.
                init.signal(libc::SIGCONT).doing("signal", format!("the sandbox '{name}'"))?;
                std::thread::sleep(Duration::from_millis(5));
            }
            init.signal(if on { libc::SIGTSTP } else { libc::SIGCONT }).doing("signal", format!("the sandbox '{name}'"))?;
            std::thread::sleep(Duration::from_millis(5));
            if self.is_paused() == on {
                return Ok(());
            }
        }
        let what = if on { "pause" } else { "unpause" };
        Err(Error::new(Kind::Io, format!("cannot {what} the sandbox '{name}': its init does not answer")).hint("try again, or end it: sandbox stop"))
    }

    pub fn distrust(&self, why: &str) -> Error {
        distrust(&self.dir, why)
    }

    /// Somebody stays with it now.
    pub fn lives(&self) -> bool {
        open(&self.dir).is_ok_and(|lock| making::lock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Wait until nobody stays with it.
    pub fn await_end(&self) -> Result<()> {
        let lock = match open(&self.dir) {
            Ok(lock) => lock,
            Err(_) if !self.dir.exists() => return Ok(()),
            Err(e) => return Err(e),
        };
        making::lock(&lock, FlockOperation::LockShared).doing("wait for", self.dir.display())
    }
}

/// The right to change one, and to bring it to life. The lock is also somebody's who inherits it.
#[derive(Debug)]
pub struct Own {
    pub dir: PathBuf,
    pub lock: OwnedFd,
    /// It stays, so it must survive a power failure.
    kept: bool,
    /// Where those are that stay.
    root: PathBuf,
    /// What `events` says of it, where nobody can have changed that.
    about: Option<About>,
}

impl Sandboxes {
    pub fn open(home: &Path) -> Sandboxes {
        Sandboxes { kept: dirs::sandboxes(home), live: dirs::live(home).into_iter().map(|dir| dir.join("sandboxes")).collect() }
    }

    /// A new one, whose name is its own from now on; one that stays and has none is given one. `status`: created, or starting.
    pub fn make(&self, config: &mut Config, status: Status) -> Result<Own> {
        self.make_as(config, |_| Ok(State { status, ..State::default() }))
    }

    /// The same of one of which more is known already.
    pub fn make_as(&self, config: &mut Config, state: impl FnOnce(&Own) -> Result<State>) -> Result<Own> {
        let root = if config.stays() { Some(&self.kept) } else { self.live.first() };
        let root = root.ok_or_else(|| Error::new(Kind::Bug, "there is no place for a sandbox"))?;
        dirs::make_below(root)?;
        let _names = match (config.unnamed, config.stays()) {
            (false, _) => Some(self.take_name(&config.name)?),
            // Chosen while nobody else chooses.
            (true, true) => {
                let names = self.lock_names()?;
                config.name = self.made_up(config.id.as_str().as_bytes())?;
                Some(names)
            }
            (true, false) => None, // nobody waits for a better one than it has
        };
        let config = &*config;
        let own = Own::half(&root.join(format!(".{}", config.id.short())), config.stays(), &self.kept)?;
        let made = (|| {
            die_at(40);
            own.decide(config)?;
            let state = state(&own)?;
            own.put("state.json", &state)?;
            die_at(41);
            let dir = root.join(config.id.as_str());
            rustix::fs::rename(&own.dir, &dir).doing("make", dir.display())?;
            die_at(42);
            let created = std::iter::once(Happened::new("create", Vec::new()));
            events::say(&self.kept, &config.into(), &created.chain(happened(&state)).collect::<Vec<_>>());
            Ok(dir)
        })();
        match made {
            Ok(dir) => {
                if !config.stays() {
                    sweep_some(root, &dir);
                }
                Ok(Own { dir, about: (!config.stays()).then(|| config.into()), ..own })
            }
            Err(e) => {
                let _ = std::fs::remove_dir_all(&own.dir);
                Err(e)
            }
        }
    }

    /// One in the foreground that ended before anybody could have asked for it, and so has no record.
    pub fn was_brief(&self, config: &Config, started: u64, ended: &State) {
        self.live.first().iter().for_each(|root| sweep_some(root, root));
        let born = ["create", "start"].map(|action| Happened::at(action, started));
        let all: Vec<_> = born.into_iter().chain(happened(ended)).chain([Happened::new("destroy", Vec::new())]).collect();
        events::say(&self.kept, &config.into(), &all);
    }

    /// Nobody else takes a name while the answer lives.
    fn take_name(&self, name: &Name) -> Result<OwnedFd> {
        let names = self.lock_names()?;
        if let Some(other) = self.some(&|_, n| n == name)?.0.into_iter().find(|s| s.config.name == *name) {
            let e = Error::new(Kind::Conflict, format!("cannot use the name '{name}': the sandbox {} has it", other.config.id.short()));
            return Err(if other.alive {
                e.hint(format!("sandbox stop {name}, or another name"))
            } else {
                e.hint(format!("sandbox rm {name}, or --replace"))
            });
        }
        Ok(names)
    }

    /// Nobody else decides anything of what is there already while the answer lives.
    fn lock_names(&self) -> Result<OwnedFd> {
        dirs::make_below(&self.kept)?;
        let path = self.kept.join(".names");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let names = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).doing("lock", path.display())?;
        making::lock(&names, FlockOperation::LockExclusive).doing("lock", path.display())?;
        Ok(names)
    }

    /// Decide something else of one that is there, whoever stays with it.
    pub fn change(&self, sandbox: &Sandbox, what: impl FnOnce(&mut Config) -> Result<()>) -> Result<()> {
        let _names = self.lock_names()?;
        let mut config = self.look(sandbox.config.id.as_str())?.config;
        what(&mut config)?;
        put(&sandbox.dir.join("config.json"), &config, config.stays())
    }

    /// Give it another name, which nobody has.
    pub fn rename(&self, sandbox: &Sandbox, name: &Name) -> Result<()> {
        let _names = self.take_name(name)?;
        let mut config = self.look(sandbox.config.id.as_str())?.config;
        // It keeps the host name that it has; its cgroup is called by its name the next time.
        if let Some(old) = config.spec.name.replace(name.clone()) {
            config.spec.process.hostname.get_or_insert(old.to_string());
        } else {
            config.spec.process.hostname.get_or_insert_with(|| "sandbox".into());
        }
        (config.name, config.unnamed) = (name.clone(), false);
        put(&sandbox.dir.join("config.json"), &config, config.stays())?;
        events::say(&self.kept, &About::from(&config), &[Happened::new("rename", vec![("oldName", sandbox.config.name.to_string())])]);
        Ok(())
    }

    /// For `events`, of what a verb did.
    pub fn say(&self, sandbox: &Sandbox, action: &str, more: &[(&str, String)]) {
        events::say(&self.kept, &About::from(&sandbox.config), &[Happened::new(action, more.to_vec())]);
    }

    /// A made-up name that nobody has.
    fn made_up(&self, chance: &[u8]) -> Result<Name> {
        let taken = RefCell::new(BTreeSet::new());
        self.some(&|_, name| {
            taken.borrow_mut().insert(name.clone());
            false
        })?;
        names::made_up(chance, &|name| taken.borrow().contains(name))
    }

    /// All of them, the newest first. What died in the foreground is swept; what cannot be read is told.
    pub fn list(&self) -> Result<Vec<Sandbox>> {
        let (all, damaged) = self.some(&|_, _| true)?;
        damaged.iter().for_each(|(_, e)| note(e.message()));
        Ok(all)
    }

    /// Where they are, as far as it is there.
    fn roots(&self) -> impl Iterator<Item = Result<(&PathBuf, OwnedFd)>> {
        std::iter::once(&self.kept).chain(&self.live).filter_map(|root| match dirs::open(root) {
            Err(_) if std::fs::symlink_metadata(root).is_err() => None,
            handle => Some(handle.map(|handle| (root, handle))),
        })
    }

    /// Those that are wanted, and those whose records cannot be read. Of the others only the beginning is read: there may be hundreds.
    fn some(&self, wanted: Wanted) -> Result<(Vec<Sandbox>, Vec<Damaged>)> {
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        for root in self.roots() {
            let (root, handle) = root?;
            for entry in Dir::read_from(&handle).doing("read", root.display())?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let dir = root.join(&name);
                match Id::try_from(name) {
                    Ok(id) => match self.read(&handle, dir, &id, wanted) {
                        Ok(sandbox) => all.extend(sandbox),
                        Err(e) => damaged.push((id, e)),
                    },
                    Err(_) if !matches!(entry.file_name().to_bytes(), b"." | b"..") => sweep(&dir),
                    Err(_) => {}
                }
            }
        }
        all.sort_by(|a, b| (b.config.created, &b.config.id).cmp(&(a.config.created, &a.config.id)));
        Ok((all, damaged))
    }

    /// By name, ID, or the beginning of an ID that no other has.
    pub fn find(&self, word: &str) -> Result<Sandbox> {
        // The command may run a moment before its record says so, and who stays with it may end a moment after.
        for _ in 0..20 {
            match self.look(word)? {
                between if between.alive && matches!(between.state.status, Status::Created | Status::Starting | Status::Exited) => {
                    std::thread::sleep(Duration::from_millis(10))
                }
                found => return Ok(found),
            }
        }
        self.look(word)
    }

    fn look(&self, word: &str) -> Result<Sandbox> {
        let missing = || Error::new(Kind::NotFound, format!("cannot find a sandbox '{word}'")).hint("sandbox ps -a lists them");
        // No name is so long.
        if let Ok(id) = Id::try_from(word.to_string()) {
            for root in self.roots() {
                let (root, handle) = root?;
                if let Some(found) = self.read(&handle, root.join(word), &id, &|_, _| true)? {
                    return Ok(found);
                }
            }
            return Err(missing());
        }
        let begins = |id: &Id| !word.is_empty() && id.as_str().starts_with(word);
        let (mut all, damaged) = self.some(&|id, name| name.as_str() == word || begins(id))?;
        if let Some(named) = all.iter().position(|s| s.config.name.as_str() == word) {
            return Ok(all.swap_remove(named));
        }
        let mut matching = all.into_iter().filter(|s| begins(&s.config.id));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (Some(a), Some(b)) => {
                let e = Error::usage(format!("cannot tell which sandbox '{word}' is: several IDs begin so"));
                Err(e.hint(format!("{} or {}", a.config.id.short(), b.config.id.short())))
            }
            // What cannot be read may have been the one that is meant.
            (None, _) => match damaged.into_iter().max_by_key(|(id, _)| begins(id)) {
                Some((_, e)) => Err(e),
                None => Err(missing()),
            },
        }
    }

    /// The right to it, if nobody stays with it.
    pub fn take(&self, sandbox: &Sandbox) -> Result<Own> {
        let own = Own { lock: open(&sandbox.dir)?, dir: sandbox.dir.clone(), kept: sandbox.config.stays(), root: self.kept.clone(), about: None };
        for _ in 0..20 {
            if making::lock(&own.lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return match making::is_at(&own.lock, &own.dir) {
                    true => Ok(own),
                    false => Err(Error::new(Kind::NotFound, format!("cannot find the sandbox '{}': it was removed", sandbox.config.name))),
                };
            }
            // Somebody may only look.
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(Error::new(Kind::Conflict, format!("cannot change the sandbox '{}': it is in use", sandbox.config.name))
            .hint(format!("sandbox stop {}", sandbox.config.name)))
    }

    /// None: it is not wanted, is being removed, or died in the foreground and was swept. All is read by one handle. // I1
    fn read(&self, root: &OwnedFd, dir: PathBuf, id: &Id, wanted: Wanted) -> Result<Option<Sandbox>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match openat(root, id.as_str(), flags, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(distrust(&dir, &crate::error::why(&e.into()))),
        };
        let stat = rustix::fs::fstat(&handle).doing("look at", dir.display())?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(distrust(&dir, "it is no directory of yours that nobody else may write"));
        }
        let kept = dir.starts_with(&self.kept);
        let unwanted = || name(&handle, id).is_some_and(|name| !wanted(id, &name));
        if kept && unwanted() {
            return Ok(None); // and nobody else's lock was in the way
        }
        let alive = making::lock(&handle, FlockOperation::NonBlockingLockShared).is_err();
        if !alive && !kept {
            // What was written and lost is lost with who stayed.
            drop(handle);
            sweep(&dir);
            return Ok(None);
        }
        if unwanted() {
            return Ok(None);
        }
        let (Some(config), Some(mut state)) = (parse::<Config>(&handle, &dir, "config.json")?, parse::<State>(&handle, &dir, "state.json")?) else {
            return Ok(None);
        };
        if config.id != *id {
            return Err(distrust(&dir, "it is of another sandbox"));
        }
        if !alive && matches!(state.status, Status::Running | Status::Restarting) {
            let why = if state.boot == process::boot()? { "who stayed with it was killed" } else { "the machine was started again" };
            state = State { status: Status::Dead, exit: Some(137), error: Some(why.into()), ..state.over() };
        }
        let sandbox = Sandbox { dir, config, state, alive };
        if !alive && sandbox.state.status == Status::Starting {
            // Nobody was told of it.
            drop(handle);
            let _ = self.take(&sandbox).and_then(|own| remove(own, &sandbox.config));
            return Ok(None);
        }
        Ok(Some(sandbox))
    }
}

/// Take it away, with what it wrote.
pub fn remove(own: Own, config: &Config) -> Result<()> {
    if let (Writes::Kept(layer), Some(store)) = (&config.writes, config.store()) {
        let store = Store::at(store)?;
        match kept::remove(&store, layer) {
            Err(e) if e.kind() != Kind::NotFound => return Err(e),
            _ => {}
        }
    }
    own.remove()
}

/// What those left that died in the foreground, and what was half made or half removed: not all at once, since a run has better things to do.
fn sweep_some(root: &Path, own: &Path) {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.take(8).map(|entry| entry.path()).filter(|path| path != own).for_each(|path| sweep(&path));
}

/// What nobody has locked, of a name that is no sandbox's, or of one that died in the foreground.
fn sweep(path: &Path) {
    let directory = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    if let Some(lock) = open(path).ok().filter(|_| directory)
        && making::lock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        && making::is_at(&lock, path)
    {
        let _ = std::fs::remove_dir_all(path);
    }
}

fn open(dir: &Path) -> Result<OwnedFd> {
    rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).doing("open", dir.display())
}

fn distrust(dir: &Path, why: &str) -> Error {
    Error::new(Kind::Denied, format!("cannot believe {}: {why}", dir.display())).hint(format!("if no sandbox needs it: rm -r '{}'", dir.display()))
}

/// A record of the sandbox that has this directory.
pub(super) fn record<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>> {
    parse(&open(dir)?, dir, name)
}

/// Its name, from the beginning of its record, as `put` writes it. None: the whole of it says more.
fn name(handle: &OwnedFd, id: &Id) -> Option<Name> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut text = [0; 160];
    let read = rustix::io::read(openat(handle, "config.json", flags, Mode::empty()).ok()?, &mut text).ok()?;
    let text = str::from_utf8(text.get(..read)?).ok()?;
    let (name, _) = text.strip_prefix(&format!("{{\"id\":\"{}\",\"name\":\"", id.as_str()))?.split_once('"')?;
    name.parse().ok()
}

fn parse<T: DeserializeOwned>(handle: &OwnedFd, dir: &Path, name: &str) -> Result<Option<T>> {
    // O_NONBLOCK: a fifo in its place must not hang us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(handle, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(distrust(dir, &format!("{name} cannot be opened: {}", crate::error::why(&e.into())))),
    };
    let stat = rustix::fs::fstat(&file).doing("look at", dir.display())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(distrust(dir, &format!("{name} is no file of yours")));
    }
    let mut text = Vec::with_capacity(u64::try_from(stat.st_size).unwrap_or(0).min(LONGEST) as usize + 1);
    file.take(LONGEST + 1).read_to_end(&mut text).doing("read", dir.join(name).display())?;
    if text.len() as u64 > LONGEST {
        return Err(distrust(dir, &format!("{name} is too long")));
    }
    serde_json::from_slice(&text).map(Some).map_err(|e| distrust(dir, &format!("{name}: {e}")))
}

/// I2
pub(super) fn put(path: &Path, what: &impl Serialize, sync: bool) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = path.with_file_name(format!(".{name}"));
    let text = serde_json::to_vec(what).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
    let written = (|| {
        // Not emptied first: where the disk is full, its place is all that there is.
        let mut file = File::options().write(true).create(true).truncate(false).open(&half)?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        if sync { file.sync_all() } else { Ok(()) }
    })();
    written.doing("write", path.display())?;
    // The one before stays, under the other name, and keeps the place for the next.
    renameat_with(CWD, &half, CWD, path, RenameFlags::EXCHANGE).or_else(|_| rustix::fs::rename(&half, path)).doing("write", path.display())
}

impl Own {
    /// A directory in the making. Who sweeps may have it before it is locked; then there is another one.
    fn half(dir: &Path, kept: bool, root: &Path) -> Result<Own> {
        for _ in 0..100 {
            rustix::fs::mkdir(dir, Mode::from_raw_mode(0o700)).doing("make", dir.display())?;
            let Ok(lock) = open(dir) else { continue };
            making::lock(&lock, FlockOperation::LockExclusive).doing("lock", dir.display())?;
            if making::is_at(&lock, dir) {
                return Ok(Own { dir: dir.to_path_buf(), lock, kept, root: root.to_path_buf(), about: None });
            }
        }
        Err(Error::new(Kind::Conflict, format!("cannot make {}: somebody removes it each time", dir.display())))
    }

    /// The lock that somebody else took, and we inherited.
    pub fn inherited(dir: PathBuf, lock: OwnedFd) -> Result<Own> {
        if !making::is_at(&lock, &dir) {
            return Err(Error::usage("this word is for sandbox itself"));
        }
        making::lock(&lock, FlockOperation::NonBlockingLockExclusive).doing("lock", dir.display())?;
        let root = dir.parent().unwrap_or(&dir).to_path_buf();
        Ok(Own { dir, lock, kept: true, root, about: None })
    }

    pub fn config(&self) -> Result<Config> {
        let gone = || Error::new(Kind::NotFound, format!("cannot find {}", self.dir.display()));
        parse(&self.lock, &self.dir, "config.json")?.ok_or_else(gone)
    }

    /// It may run, whatever was wanted before.
    pub fn wanted(&self) {
        for mark in ["stop", "restart"] {
            self.take_mark(mark);
        }
    }

    /// There was a mark of this name.
    pub fn take_mark(&self, name: &str) -> bool {
        std::fs::remove_file(self.dir.join(name)).is_ok()
    }

    pub fn state(&self) -> Result<State> {
        Ok(parse(&self.lock, &self.dir, "state.json")?.unwrap_or_default())
    }

    pub fn is_wanted(&self) -> bool {
        !self.dir.join("stop").exists()
    }

    pub fn decide(&self, config: &Config) -> Result<()> {
        self.put("config.json", config)
    }

    pub fn tell(&self, state: &State) -> Result<()> {
        self.put("state.json", state)?;
        self.say(state);
        Ok(())
    }

    /// For `events`.
    fn say(&self, state: &State) {
        let happened = happened(state);
        if let Some(about) = (!happened.is_empty()).then(|| self.about()).flatten() {
            events::say(&self.root, &about, &happened);
        }
    }

    fn about(&self) -> Option<About> {
        self.about.clone().or_else(|| self.config().ok().as_ref().map(About::from))
    }

    /// A state with what we know of it: who we are, and since when the machine runs.
    pub fn stays(&self, state: State) -> Result<State> {
        Ok(State { stays: Some(Process::me()?), lock: Some(self.lock.as_raw_fd()), boot: process::boot()?, ..state })
    }

    fn put(&self, name: &str, what: &impl Serialize) -> Result<()> {
        put(&self.dir.join(name), what, self.kept)
    }

    /// All of it is gone, and its name is free; not what it wrote.
    pub fn remove(self) -> Result<()> {
        self.vanish().map(|gone| gone.say(None))
    }

    /// It is not to be found any more. With its last handle a directory is freed, which takes as long as all else where each block is discarded.
    pub fn vanish(self) -> Result<Gone> {
        let gone = Gone { about: self.about(), root: self.root.clone() };
        let half = self.dir.with_file_name(format!(".{}", self.dir.file_name().unwrap_or_default().to_string_lossy()));
        match rustix::fs::rename(&self.dir, &half) {
            Err(Errno::NOENT) => return Ok(gone), // it had vanished
            other => other.doing("remove", self.dir.display())?,
        }
        die_at(50);
        std::fs::remove_dir_all(&half).doing("remove", half.display()).map(|()| gone)
    }
}

/// What there is to be said of one that is not there any more.
pub struct Gone {
    about: Option<About>,
    root: PathBuf,
}

impl Gone {
    /// `state`: how it ended.
    pub fn say(&self, state: Option<&State>) {
        let ended = state.map(happened).unwrap_or_default();
        let all: Vec<_> = ended.into_iter().chain([Happened::new("destroy", Vec::new())]).collect();
        self.about.iter().for_each(|about| events::say(&self.root, about, &all));
    }
}

/// It runs, or how it ended.
fn happened(state: &State) -> Vec<Happened<'static>> {
    match (state.status, state.exit) {
        (Status::Running, _) => vec![Happened::new("start", Vec::new())],
        (Status::Exited | Status::Restarting, Some(exit)) => {
            let oom = (state.reason.as_deref() == Some("oom")).then(|| Happened::new("oom", Vec::new()));
            oom.into_iter().chain([Happened::new("die", vec![("exitCode", exit.to_string())])]).collect()
        }
        _ => Vec::new(),
    }
}
