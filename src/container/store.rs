//! The records: made, found, believed or not, swept and removed. Called by `cli` and by the monitor.
//!
//! ```text
//! $XDG_DATA_HOME/sandbox/sandboxes/ID/    of one that stays: detached, created, kept. Locked while somebody stays with it
//!   config.json                           what was decided
//!   state.json                            what happened
//!   stop                                  somebody wants it down, and not to be started again
//! $XDG_RUNTIME_DIR/sandbox/sandboxes/ID/  the same of one that runs in the foreground, and is gone with it
//! ```
//!
//! A name that begins with a dot is of something half made or half removed; what nobody has locked of it is swept.
#![forbid(unsafe_code)]

use super::choose::Writes;
use super::process::{self, Process};
use super::{Config, State, Status};
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::{Id, Name};
use crate::image::store::Store;
use crate::image::{kept, making};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest record.
const LONGEST: usize = 4 << 20;

/// All sandboxes of a user.
pub struct Sandboxes {
    kept: PathBuf,
    /// Where those in the foreground are, and may be of another session. The first is for new ones.
    live: Vec<PathBuf>,
}

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
    /// It must survive a power failure.
    kept: bool,
}

impl Sandboxes {
    pub fn open(home: &Path) -> Sandboxes {
        Sandboxes { kept: dirs::sandboxes(home), live: dirs::live(home).into_iter().map(|dir| dir.join("sandboxes")).collect() }
    }

    /// A new one, whose name is its own from now on.
    pub fn make(&self, config: &Config) -> Result<Own> {
        let root = if config.options.detached { Some(&self.kept) } else { self.live.first() };
        let root = root.ok_or_else(|| Error::new(Kind::Bug, "there is no place for a sandbox"))?;
        dirs::make(root)?;
        let _names = (!config.unnamed || config.options.detached).then(|| self.take_name(&config.name)).transpose()?;
        let half = root.join(format!(".{}", config.id.short()));
        rustix::fs::mkdir(&half, Mode::from_raw_mode(0o700)).doing("make", half.display())?;
        let own = Own { lock: open(&half)?, dir: half, kept: config.options.detached };
        let made = (|| {
            making::lock(&own.lock, FlockOperation::NonBlockingLockExclusive).doing("lock", own.dir.display())?;
            own.decide(config)?;
            own.tell(&State::default())?;
            let dir = root.join(config.id.as_str());
            rustix::fs::rename(&own.dir, &dir).doing("make", dir.display())?;
            Ok(dir)
        })();
        match made {
            Ok(dir) => Ok(Own { dir, ..own }),
            Err(e) => {
                let _ = std::fs::remove_dir_all(&own.dir);
                Err(e)
            }
        }
    }

    /// Nobody else takes a name while the answer lives.
    fn take_name(&self, name: &Name) -> Result<OwnedFd> {
        dirs::make(&self.kept)?;
        let path = self.kept.join(".names");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let names = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).doing("lock", path.display())?;
        making::lock(&names, FlockOperation::LockExclusive).doing("lock", path.display())?;
        if let Some(other) = self.list()?.into_iter().find(|s| s.config.name == *name) {
            let e = Error::new(Kind::Conflict, format!("cannot use the name '{name}': the sandbox {} has it", other.config.id.short()));
            return Err(if other.alive {
                e.hint(format!("sandbox stop {name}, or another name"))
            } else {
                e.hint(format!("sandbox rm {name}, or --replace"))
            });
        }
        Ok(names)
    }

    /// All of them, the newest first. What died in the foreground is swept.
    pub fn list(&self) -> Result<Vec<Sandbox>> {
        let mut all = Vec::new();
        for root in std::iter::once(&self.kept).chain(&self.live) {
            let entries = match std::fs::read_dir(root) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.doing("read", root.display())?,
            };
            dirs::trusted(root)?;
            for entry in entries.flatten() {
                let name = entry.file_name().into_string().unwrap_or_default();
                if let Ok(id) = Id::try_from(name) {
                    all.extend(self.read(&entry.path(), &id)?.filter(|s| s.alive || *root == self.kept));
                } else {
                    sweep(&entry.path());
                }
            }
        }
        all.sort_by(|a, b| (b.config.created, &b.config.id).cmp(&(a.config.created, &a.config.id)));
        Ok(all)
    }

    /// By name, ID, or the beginning of an ID that no other has.
    pub fn find(&self, word: &str) -> Result<Sandbox> {
        // The command may run a moment before its record says so.
        for _ in 0..20 {
            match self.look(word)? {
                starting if starting.alive && starting.state.status == Status::Created => std::thread::sleep(Duration::from_millis(10)),
                found => return Ok(found),
            }
        }
        self.look(word)
    }

    fn look(&self, word: &str) -> Result<Sandbox> {
        let mut all = self.list()?;
        if let Some(named) = all.iter().position(|s| s.config.name.as_str() == word) {
            return Ok(all.swap_remove(named));
        }
        let mut matching = all.into_iter().filter(|s| !word.is_empty() && s.config.id.as_str().starts_with(word));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(found),
            (Some(_), Some(_)) => Err(Error::usage(format!("cannot tell which sandbox '{word}' is: several IDs begin so"))),
            (None, _) => Err(Error::new(Kind::NotFound, format!("cannot find a sandbox '{word}'")).hint("sandbox ps -a lists them")),
        }
    }

    /// The right to it, if nobody stays with it.
    pub fn take(&self, sandbox: &Sandbox) -> Result<Own> {
        let own = Own { lock: open(&sandbox.dir)?, dir: sandbox.dir.clone(), kept: sandbox.config.options.detached };
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

    /// None: it is being removed, or died in the foreground and was swept.
    fn read(&self, dir: &Path, id: &Id) -> Result<Option<Sandbox>> {
        let Ok(lock) = open(dir) else { return Ok(None) };
        let alive = making::lock(&lock, FlockOperation::NonBlockingLockShared).is_err();
        let foreground = !dir.starts_with(&self.kept);
        if !alive && foreground {
            // What was written and lost is lost with who stayed.
            drop(lock);
            sweep(dir);
            return Ok(None);
        }
        let (Some(config), Some(mut state)) = (parse::<Config>(&dir.join("config.json"))?, parse::<State>(&dir.join("state.json"))?) else {
            return Ok(None);
        };
        if config.id != *id {
            return Err(Error::new(Kind::Denied, format!("cannot believe {}: it is of another sandbox", dir.display())));
        }
        if !alive && matches!(state.status, Status::Running | Status::Restarting) {
            let why = if state.boot == process::boot()? { "who stayed with it was killed" } else { "the machine was started again" };
            state =
                State { status: Status::Dead, exit: Some(137), error: Some(why.into()), stays: None, init: None, cgroup: None, lost: None, ..state };
        }
        Ok(Some(Sandbox { dir: dir.to_path_buf(), config, state, alive }))
    }
}

/// Take it away, with what it wrote.
pub fn remove(own: Own, config: &Config) -> Result<()> {
    if let (Writes::Kept(layer), Some(below)) = (&config.writes, &config.image) {
        let store = Store::at(below.store.clone())?;
        match kept::remove(&store, layer) {
            Err(e) if e.kind() != Kind::NotFound => return Err(e),
            _ => {}
        }
    }
    own.remove()
}

/// What nobody has locked, of a name that is no sandbox's.
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

fn parse<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match crate::host::read(file, LONGEST) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.doing("read", file.display())?;
            serde_json::from_slice(&text).map(Some).map_err(|e| {
                let dir = file.parent().unwrap_or(file).display().to_string();
                Error::new(Kind::Io, format!("cannot read {}: {e}", file.display())).hint(format!("if no sandbox needs it: rm -r '{dir}'"))
            })
        }
    }
}

impl Own {
    /// The lock that somebody else took, and we inherited.
    pub fn inherited(dir: PathBuf, lock: OwnedFd) -> Result<Own> {
        if !making::is_at(&lock, &dir) {
            return Err(Error::usage("this word is for sandbox itself"));
        }
        making::lock(&lock, FlockOperation::NonBlockingLockExclusive).doing("lock", dir.display())?;
        Ok(Own { dir, lock, kept: true })
    }

    pub fn config(&self) -> Result<Config> {
        let gone = || Error::new(Kind::NotFound, format!("cannot find {}", self.dir.display()));
        parse(&self.dir.join("config.json"))?.ok_or_else(gone)
    }

    /// It may run, whatever was wanted before.
    pub fn wanted(&self) -> Result<()> {
        let mark = self.dir.join("stop");
        std::fs::remove_file(&mark)
            .or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .doing("remove", mark.display())
    }

    pub fn is_wanted(&self) -> bool {
        !self.dir.join("stop").exists()
    }

    pub fn decide(&self, config: &Config) -> Result<()> {
        self.put("config.json", config)
    }

    pub fn tell(&self, state: &State) -> Result<()> {
        self.put("state.json", state)
    }

    /// What comes before it in the state: who we are, and since when the machine runs.
    pub fn stays(&self) -> Result<State> {
        Ok(State { stays: Some(Process::me()?), boot: process::boot()?, ..State::default() })
    }

    fn put(&self, name: &str, what: &impl Serialize) -> Result<()> {
        let path = self.dir.join(name);
        let half = self.dir.join(format!(".{name}"));
        let text = serde_json::to_vec(what).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
        let written = (|| {
            let mut file = File::create(&half)?;
            file.write_all(&text)?;
            if self.kept { file.sync_all() } else { Ok(()) }
        })();
        written.doing("write", path.display())?;
        rustix::fs::rename(&half, &path).doing("write", path.display()) // I2
    }

    /// All of it is gone, and its name is free; not what it wrote.
    pub fn remove(self) -> Result<()> {
        let half = self.dir.with_file_name(format!(".{}", self.dir.file_name().unwrap_or_default().to_string_lossy()));
        rustix::fs::rename(&self.dir, &half).doing("remove", self.dir.display())?;
        std::fs::remove_dir_all(&half).doing("remove", half.display())
    }
}
