//! What happened to sandboxes, one JSON object a line, as docker's `events` has it. Written by the verbs and by who stays; read by `cli::events`.
//!
//! Two files beside the sandboxes, `.events` and the older `.events.1`, each bounded; nothing waits for them and nothing fails with them, so a
//! full disk loses events and nothing else. They are made where sandboxes stay, and not for one that runs in the foreground in a home
//! without any.
//!
//! *Why this way*: whoever follows reads a file, and there is nobody who would have to serve it. (Rejected: a socket, with a service behind it;
//! inotify on the records, which shows states and not what happened between.)
#![forbid(unsafe_code)]

use super::{Config, now};
use crate::error::{Doing, Result};
use crate::ident::{Id, Name};
use crate::image::making;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So long a file may get before the next one begins.
const LONGEST: u64 = 1 << 20;
const NAME: &str = ".events";
const OLDER: &str = ".events.1";

/// What is told of a sandbox.
#[derive(Debug, Clone)]
pub struct About {
    id: Id,
    image: String,
    name: Name,
    labels: BTreeMap<String, String>,
}

impl From<&Config> for About {
    fn from(config: &Config) -> About {
        let image = config.image.as_ref().map(|i| i.word.clone()).unwrap_or_default();
        About { id: config.id.clone(), image, name: config.name.clone(), labels: config.labels.clone() }
    }
}

/// What happened, when, and more about it.
#[derive(Debug)]
pub struct Happened<'a> {
    action: &'a str,
    at: u64,
    more: Vec<(&'a str, String)>,
}

impl<'a> Happened<'a> {
    /// Just now.
    pub fn new(action: &'a str, more: Vec<(&'a str, String)>) -> Happened<'a> {
        Happened { action, at: now(), more }
    }

    pub fn at(action: &'a str, at: u64) -> Happened<'a> {
        Happened { action, at, more: Vec::new() }
    }
}

/// Write it down, below the directory of those that stay.
pub fn say(root: &Path, what: &About, happened: &[Happened]) {
    let lines: String = happened.iter().map(|event| line(what, event)).collect();
    let _ = write(root, &lines);
}

fn line(what: &About, Happened { action, at, more }: &Happened) -> String {
    let image = what.image.as_str();
    let mut about = serde_json::Map::new();
    about.extend(what.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
    about.extend([("image".into(), Value::from(image)), ("name".into(), Value::from(what.name.as_str()))]);
    about.extend(more.iter().map(|(k, v)| (k.to_string(), Value::from(v.as_str()))));
    let event = json!({
        "status": action, "id": what.id, "from": image, "Type": "container", "Action": action, "scope": "local",
        "Actor": { "ID": what.id, "Attributes": about }, "time": at / 1_000_000_000, "timeNano": at,
    });
    format!("{event}\n")
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<File> {
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags | safe, Mode::from_raw_mode(0o600)).map(File::from)
}

fn write(root: &Path, lines: &str) -> Result<()> {
    let path = root.join(NAME);
    loop {
        let mut file = open(&path, OFlags::APPEND | OFlags::WRONLY | OFlags::CREATE).doing("open", path.display())?;
        making::lock(&file, FlockOperation::LockExclusive).doing("lock", path.display())?;
        if !making::is_at(&file, &path) {
            continue; // somebody began another one
        }
        let length = file.metadata().doing("look at", path.display())?.len();
        if length > 0 && length + lines.len() as u64 > LONGEST {
            rustix::fs::rename(&path, root.join(OLDER)).doing("move", path.display())?;
            continue;
        }
        return file.write_all(lines.as_bytes()).doing("write", path.display());
    }
}

/// Reads what is there, and then what comes.
pub struct Reader {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line.
    half: Vec<u8>,
}

impl Reader {
    /// From the oldest that is there.
    pub fn new(root: &Path) -> (Reader, Vec<Value>) {
        let mut reader = Reader { path: root.join(NAME), file: open(&root.join(OLDER), OFlags::RDONLY).ok(), half: Vec::new() };
        let mut all = reader.rest();
        reader.file = None;
        all.extend(reader.more());
        (reader, all)
    }

    /// What came since.
    pub fn more(&mut self) -> Vec<Value> {
        let mut all = self.rest();
        let there = std::fs::symlink_metadata(&self.path).map(|m| (m.dev(), m.ino())).ok();
        let have = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| (m.dev(), m.ino()));
        if there.is_some() && there != have {
            all.extend(self.rest()); // what was written before it was moved
            self.file = open(&self.path, OFlags::RDONLY).ok();
            self.half.clear();
            all.extend(self.rest());
        }
        all
    }

    fn rest(&mut self) -> Vec<Value> {
        let Some(file) = &mut self.file else { return Vec::new() };
        let _ = file.take(2 * LONGEST).read_to_end(&mut self.half);
        let end = self.half.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.half.drain(..end).collect();
        lines.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}
