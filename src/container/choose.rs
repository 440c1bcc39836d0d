//! Which image is meant, and what writable layer it gets. Called by `cli::run` and the monitor.
#![forbid(unsafe_code)]

use super::Below;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::Name;
use crate::image::archive::{self, Place};
use crate::image::kept::{self, Ground, Kept, Record};
use crate::image::layout::Platform;
use crate::image::registry::{self, Options, Progress};
use crate::image::store::{Held, Store};
use crate::image::{Image, config};
use crate::spec::{ImageRoot, Spec};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// When to fetch an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Pull {
    /// Even if it is there
    Always,
    /// If it is not there
    #[default]
    Missing,
    /// Not at all
    Never,
    /// If the registry has another one under that name; if it cannot be asked, the one that is there
    Newer,
}

/// What becomes of the writable layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writes {
    Discarded,
    /// Kept under this name, which must be new.
    Kept(Name),
    /// Kept under this name, which may have been used before.
    Layer(Name),
}

/// An image that nobody takes away while this lives.
pub struct Chosen {
    pub store: Store,
    pub image: Image,
    /// What the user called it.
    pub word: String,
    #[expect(dead_code, reason = "holds the locks")]
    held: Held,
    kept: Option<Kept>,
}

impl Chosen {
    /// `fetch`: it may be pulled or loaded.
    pub fn new(store: Store, home: &Path, word: &str, pull: Pull, platform: Option<&str>, fetch: bool) -> Result<Chosen> {
        let platform = platform.map(str::parse::<Platform>).transpose()?;
        let image = find(&store, home, word, pull, platform.as_ref(), fetch).map_err(|e| or_command(e, word))?;
        fits(&image, word, platform.as_ref())?;
        let held = store.hold(&image)?;
        Ok(Chosen { store, image, word: word.to_string(), held, kept: None })
    }

    /// The image that a sandbox was made with.
    pub fn again(below: &Below) -> Result<Chosen> {
        let store = Store::at(below.store.clone())?;
        let image = store.get(below.manifest.hex())?;
        let held = store.hold(&image)?;
        Ok(Chosen { store, image, word: below.word.clone(), held, kept: None })
    }

    /// Have a writable layer on disk.
    pub fn keep(&mut self, writes: &Writes, command: Vec<String>, volumes: &[PathBuf]) -> Result<()> {
        let (ground, image) = (Ground::Image(self.image.manifest.digest.clone()), self.word.clone());
        let mode = kept::mode_of(&self.store, &self.image);
        self.kept = take(&self.store, writes, ground, image, command, volumes, mode)?;
        Ok(())
    }

    /// For the record.
    pub fn below(&self) -> Below {
        let exposed = self.image.config.config().as_ref().and_then(|c| c.exposed_ports().clone()).unwrap_or_default();
        Below {
            word: self.word.clone(),
            manifest: self.image.manifest.digest.clone(),
            store: self.store.path().to_path_buf(),
            exposed: exposed.into_iter().collect(),
        }
    }

    /// Those of the image, which its sandboxes have too.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.image.config.labels_of_config().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Nothing ran: a layer that was made for it is of no use.
    pub fn forget(&mut self) {
        forget(&self.store, &mut self.kept);
    }

    pub fn root(&self, writes: &Writes) -> Result<ImageRoot> {
        let writable = match writes {
            Writes::Discarded => None,
            Writes::Kept(name) | Writes::Layer(name) => Some(kept::place(self.store.path(), name)),
        };
        let layers = self.image.directories(self.store.path());
        Ok(ImageRoot { id: self.image.id.clone(), layers, writable, volumes: config::volumes(&self.image)? })
    }

    /// Its files belong to these ids; a sandbox with others could not use them.
    pub fn check_ids(&self, maps: &crate::userns::Maps) -> Result<()> {
        if self.store.maps()? == maps {
            return Ok(());
        }
        Err(Error::new(Kind::Unsupported, format!("cannot run {} with this map of ids: its files belong to other ones", self.word))
            .hint("leave out --userns, --uidmap and --gidmap: root inside is you, and your subordinate ids are the others"))
    }
}

/// The layer over a directory of the host that stays; nobody takes it away while this lives.
pub struct Over {
    store: Store,
    kept: Option<Kept>,
}

impl Over {
    pub fn take(spec: &Spec, writes: &Writes) -> Result<Option<Over>> {
        let Some(over) = &spec.files.kept else { return Ok(None) };
        let (at, store) = (&over.at, Store::at(over.store())?);
        let mode = rustix::fs::stat(at).doing("look at", at.display())?.st_mode & 0o7777;
        let kept = take(&store, writes, Ground::Directory(at.clone()), at.display().to_string(), spec.process.words(), &[], mode)?;
        Ok(Some(Over { store, kept }))
    }

    pub fn forget(&mut self) {
        forget(&self.store, &mut self.kept);
    }
}

fn take(store: &Store, writes: &Writes, ground: Ground, image: String, command: Vec<String>, volumes: &[PathBuf], mode: u32) -> Result<Option<Kept>> {
    let (name, new) = match writes {
        Writes::Discarded => return Ok(None),
        Writes::Kept(name) => (name.clone(), true),
        Writes::Layer(name) => (name.clone(), false),
    };
    let wanted = Record { name, ground, image, created: super::now() / 1_000_000_000, command, volumes: volumes.to_vec() };
    kept::take(store, &wanted, mode, new).map(Some)
}

fn forget(store: &Store, kept: &mut Option<Kept>) {
    if let Some(kept) = kept.take_if(|k| k.new) {
        let name = kept.record.name.clone();
        drop(kept);
        let _ = kept::remove(store, &name);
    }
}

fn find(store: &Store, home: &Path, word: &str, pull: Pull, platform: Option<&Platform>, fetch: bool) -> Result<Image> {
    if let Some(place) = Place::named(word)? {
        if !fetch {
            return Err(Error::usage(format!("cannot look into {word} for --dry-run: that would load it")).hint(format!("sandbox load {word}")));
        }
        let mut images = archive::load(store, &place, &platform.cloned().unwrap_or_default())?;
        return match (images.pop(), images.len()) {
            (Some(image), 0) => Ok(image),
            (_, more) => Err(Error::usage(format!("cannot tell which image of {word} is meant: it has {}", more + 1)).hint(format!("{word}:TAG"))),
        };
    }
    // A short name may stand for one in another registry; an ID is no name.
    // What is in the store under that very word needs none of the registries' settings read.
    let name = || registry::name(word, home);
    let found = match store.find_to_run(word)? {
        None => name().ok().map_or(Ok(None), |name| store.find_to_run(&name.to_string()))?,
        found => found,
    };
    let there = found.filter(|image| platform.is_none_or(|p| p.fits(&Platform::of(&image.config))));
    // What is of this machine only is not asked for at Docker's.
    let pull_it = |there: Option<&Image>| {
        let called = there.and_then(|image| image.called(word)).cloned();
        let options = Options { platform: platform.cloned(), ..Options::new(home) };
        registry::pull(store, &called.map_or_else(name, Ok)?, &options, &Progress::new(false))
    };
    match (pull, there) {
        (Pull::Missing | Pull::Never, Some(image)) => Ok(image),
        (_, Some(image)) if !fetch => Ok(image),
        (Pull::Never, None) => Err(store.missing(word)),
        (_, None) if !fetch => Err(store.missing(word)),
        (Pull::Missing | Pull::Always, there) | (Pull::Newer, there @ None) => pull_it(there.as_ref()),
        (Pull::Newer, Some(image)) => pull_it(Some(&image)).or_else(|e| match e.kind() {
            // That the registry cannot be reached is no reason not to run; that it serves something wrong is.
            Kind::Io => {
                let _ = writeln!(std::io::stderr(), "sandbox: note: the image that is there is used: {}", e.message());
                Ok(image)
            }
            _ => Err(e),
        }),
    }
}

/// Who forgets the dashes means a command of the host.
fn or_command(e: Error, word: &str) -> Error {
    let is_path = word.starts_with(['.', '/']) || Path::new(word).exists();
    if word.contains(['/', ':', '@', '.']) && !is_path {
        return e;
    }
    let cure = e.cure().map(|cure| format!("{cure}\n    or, ")).unwrap_or_default();
    e.hint(format!("{cure}for the host's own command: sandbox run -- {word}"))
}

/// What is for another kind of machine fails with a riddle otherwise.
fn fits(image: &Image, word: &str, platform: Option<&Platform>) -> Result<()> {
    let wanted = platform.cloned().unwrap_or_default();
    let has = Platform::of(&image.config);
    if wanted.fits(&has) {
        return Ok(());
    }
    let e = Error::new(Kind::Unsupported, format!("cannot run {word}: it is for {has}, and wanted is {wanted}"));
    Err(e.hint(format!("--platform {has}, if this machine can run that")))
}
