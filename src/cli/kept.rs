//! `sandbox kept`, `diff`, `export`, `commit` and `import`: writable layers that stayed or are written to, and what becomes of them.
//!
//! Called by `cli::main`. Nothing of a layer is ever executed, and every path in it is opened by a confined helper. // SECURITY 2.4
#![forbid(unsafe_code)]

use super::image::{Squash, show, since};
use super::print;
use crate::container::store::Sandboxes;
use crate::container::writable::{self, Writable};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::ident::{Digest, ImageName};
use crate::image::compose::{self, About};
use crate::image::diff::{self, Upper};
use crate::image::kept::{self, Ground, Kept, Record};
use crate::image::layout::Platform;
use crate::image::making::Making;
use crate::image::store::{Held, Store};
use crate::image::tar::show as show_path;
use crate::image::{Image, gather};
use crate::moment::rfc3339;
use clap::Args;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// List the writable layers that stayed
///
/// sandbox run --keep and sandbox run --layer NAME leave what was written as a layer over its image. It stays until sandbox rm removes it,
/// and its image cannot be removed before.
#[derive(Debug, Args)]
pub struct KeptArgs {
    /// table, json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Say what a kept or running sandbox changed
///
/// One line for each path: A for one that is new, C for one that was changed, D for one of the image's that is gone.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// json, or a template such as '{{.Path}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The name or ID of a sandbox, or the name of a layer
    #[arg(value_name = "NAME")]
    name: String,
}

/// Write the tree of a kept or running sandbox as a tar
///
/// The image and what was written to it, as one tree, without history. sandbox import makes an image of it again.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The name or ID of a sandbox, or the name of a layer
    #[arg(value_name = "NAME")]
    name: String,
}

/// Make an image of what a kept or running sandbox wrote
///
/// The new image is the old one with one more layer. It is to be run as the old one was; what the run was given by flags, such as variables,
/// is not part of it, and --change changes it. The id is printed.
///
/// With SOURCE_DATE_EPOCH set, the same layer and the same flags make the same image, bit for bit.
#[derive(Debug, Args)]
pub struct CommitArgs {
    #[command(flatten)]
    words: Words,
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// The name or ID of a sandbox, or the name of a layer
    #[arg(value_name = "NAME")]
    name: String,
    /// The new image's name
    #[arg(value_name = "IMAGE")]
    image: Option<ImageName>,
}

/// Make an image of a tar or of files of the host
///
/// The tar may be compressed by gzip or zstd. It becomes the only layer of the image, which says nothing of how to run it but by --change.
#[derive(Debug, Args)]
#[command(override_usage = "sandbox import [OPTIONS] FILE|- [IMAGE]\n       sandbox import [OPTIONS] --from-host PATH... [--] [IMAGE]")]
pub struct ImportArgs {
    #[command(flatten)]
    words: Words,
    /// The platform that it is for, if not this machine's: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    squash: Squash,
    /// Take files and directories of the host instead of a tar; may be said several times
    ///
    /// Each is there under its own path. They belong to root inside, if they are yours.
    #[arg(long, value_name = "PATH")]
    from_host: Vec<PathBuf>,
    /// The tar (- for standard input) and the new image's name; with --from-host the name only
    #[arg(value_name = "FILE|IMAGE", num_args = 0..=2)]
    positional: Vec<String>,
}

#[derive(Debug, Args)]
struct Words {
    /// Change how the image is to be run, by an instruction of a Dockerfile; may be said several times
    ///
    /// CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR, with its words: --change 'CMD ["sh"]'.
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What to say in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

pub fn list(args: KeptArgs) -> Result<()> {
    let row = |Kept { record: r, busy, .. }: &Kept| {
        json!({
            "Name": r.name, "Image": r.image, "Manifest": manifest(r), "CreatedAt": rfc3339(r.created), "Created": since(r.created),
            "InUse": busy, "Command": r.command.join(" "), "Volumes": r.volumes,
        })
    };
    let rows: Vec<Value> = kept::list(&open()?)?.iter().map(row).collect();
    let columns = [("NAME", "Name"), ("IMAGE", "Image"), ("CREATED", "Created"), ("IN USE", "InUse"), ("COMMAND", "Command")];
    show(&rows, &columns, args.format.as_deref())
}

fn manifest(record: &Record) -> Option<&Digest> {
    match &record.ground {
        Ground::Image(manifest) => Some(manifest),
        Ground::Directory(_) => None,
    }
}

fn open() -> Result<Store> {
    Store::open(&Caller::me()?.home)
}

/// A writable layer, with what it lies on; an image cannot be taken away meanwhile.
pub(super) struct Pile {
    pub store: Store,
    pub upper: Upper,
    command: String,
    base: Base,
    _source: Source,
}

enum Base {
    Image(Box<Image>, #[expect(dead_code, reason = "holds the locks")] Held),
    Directory(HostDirectory),
}

/// A directory of the host below a layer.
pub(super) struct HostDirectory {
    pub directory: PathBuf,
    /// When the layer was made, in seconds and nanoseconds.
    pub since: (i64, i64),
}

/// What must stay as long as the handle on it.
enum Source {
    Kept(#[expect(dead_code, reason = "holds the lock")] Kept),
    Blank(#[expect(dead_code, reason = "is removed with it")] Making),
    Nameless,
}

impl Pile {
    /// By the name of a kept layer, or else of a sandbox.
    pub fn new(name: &str) -> Result<Pile> {
        let home = Caller::me()?.home;
        let store = Store::open(&home)?;
        // A whole ID is too long for a name.
        let missing = match name.parse().map(|name| kept::read(&store, &name)) {
            Ok(Err(e)) if e.kind() == Kind::NotFound => Some(e),
            Ok(kept) => return Pile::kept(store, kept?),
            Err(_) => None,
        };
        let found = Sandboxes::open(&home).find(name);
        let sandbox = found.map_err(|other| missing.filter(|_| other.kind() == Kind::NotFound).unwrap_or(other))?;
        let Some(place) = sandbox.config.store() else {
            return Err(Error::usage(format!("cannot look into '{name}': it runs no image, and what it writes is in no layer"))
                .hint("sandbox run IMAGE, and what is written is a layer over it; on the host's tree: --keep"));
        };
        if place != store.path() {
            let e = Error::usage(format!("cannot look into '{name}': its layer is in another store, {}", place.display()));
            return Err(e.hint("set XDG_DATA_HOME as it was when it was started"));
        }
        let Some(below) = &sandbox.config.image else {
            return match writable::find(&sandbox)? {
                Writable::Kept(layer) => kept::read(&store, &layer).and_then(|kept| Pile::kept(store, kept)),
                Writable::Lost(_) => Err(Error::new(Kind::Bug, "a layer over the host's tree is kept")),
            };
        };
        let image = store.get(below.manifest.hex())?;
        let written = writable::find(&sandbox).and_then(|written| match written {
            Writable::Kept(layer) => kept::read(&store, &layer).and_then(|kept| Ok((Upper::open(&kept.upper(), kept.busy)?, Source::Kept(kept)))),
            Writable::Lost(handle) => Ok((Upper { handle, live: true }, Source::Nameless)),
        });
        let (upper, source) = match written {
            Err(e) if e.kind() == Kind::NotFound && sandbox.state.started.is_none() => {
                let blank = kept::blank(&store, &image)?;
                (Upper::open(blank.path(), false)?, Source::Blank(blank))
            }
            written => written?,
        };
        Pile::on(store, image, upper, &sandbox.config.command(), source)
    }

    fn kept(store: Store, kept: Kept) -> Result<Pile> {
        let (upper, command) = (Upper::open(&kept.upper(), kept.busy)?, kept.record.command.clone());
        match kept.record.ground.clone() {
            Ground::Image(manifest) => {
                let image = store.get(manifest.hex())?;
                Pile::on(store, image, upper, &command, Source::Kept(kept))
            }
            Ground::Directory(directory) => {
                let base = Base::Directory(HostDirectory { directory, since: kept.since()? });
                Ok(Pile { store, upper, command: command.join(" "), base, _source: Source::Kept(kept) })
            }
        }
    }

    fn on(store: Store, image: Image, upper: Upper, command: &[String], source: Source) -> Result<Pile> {
        // The run that wrote to it took the layers below as they are, and nothing is unpacked now.
        let there = image.layers.iter().all(|l| store.has_layer(&l.chain_id));
        // For those alone: what is to be committed keeps its owners.
        let squashed = image.layers.iter().any(|l| store.accept(l).is_err());
        let store = store.squash_ids(there && squashed);
        let held = store.hold(&image)?;
        Ok(Pile { store, upper, command: command.join(" "), base: Base::Image(Box::new(image), held), _source: source })
    }

    /// To read it for somebody who should know that it is being written.
    pub fn told(name: &str) -> Result<Pile> {
        let pile = Pile::new(name)?;
        if pile.upper.live {
            note(&format!("{name} is running; what it writes at this moment may be half there"));
        }
        Ok(pile)
    }

    /// Lowest first.
    pub fn lowers(&self) -> Vec<PathBuf> {
        match &self.base {
            Base::Image(image, _) => image.directories(self.store.path()),
            Base::Directory(over) => vec![over.directory.clone()],
        }
    }

    fn image(&self, verb: &str) -> Result<&Image> {
        match &self.base {
            Base::Image(image, _) => Ok(image),
            Base::Directory(over) => {
                Err(Error::usage(format!("cannot {verb} this: it lies on a directory of the host, {}", over.directory.display()))
                    .hint("sandbox apply NAME puts what was written there into that directory"))
            }
        }
    }

    pub fn over(&self) -> Option<&HostDirectory> {
        match &self.base {
            Base::Image(..) => None,
            Base::Directory(over) => Some(over),
        }
    }
}

fn note(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox: note: {}", crate::error::printable(sentence));
}

/// How long the layer is that `commit` would make of it; None: it has none, or cannot be read now.
pub fn size(name: &str) -> Option<u64> {
    struct Count(u64);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (pile, mut count) = (Pile::new(name).ok()?, Count(0));
    let lowers = pile.lowers();
    diff::layer(pile.upper, &lowers, pile.store.maps().ok()?, &mut count).ok().map(|_| count.0)
}

pub fn diff(args: DiffArgs) -> Result<()> {
    let pile = Pile::told(&args.name)?;
    let (lowers, top) = (pile.lowers(), pile.over().map_or(PathBuf::from("/"), |over| over.directory.clone()));
    let absolute = |path: &Path| top.join(path.strip_prefix("/").unwrap_or(path)).display().to_string();
    let (changes, torn) = diff::changes(pile.upper, &lowers, pile.store.maps()?)?;
    torn.iter().for_each(|t| note(t));
    if args.format.is_none() {
        let line = |(kind, path): &(char, PathBuf)| format!("{kind} {}\n", show_path(absolute(path).as_bytes()));
        print(&changes.iter().map(line).collect::<String>());
        return Ok(());
    }
    let rows: Vec<Value> = changes.iter().map(|(kind, path)| json!({ "Kind": kind, "Path": absolute(path) })).collect();
    show(&rows, &[("KIND", "Kind"), ("PATH", "Path")], args.format.as_deref())
}

pub fn export(args: ExportArgs) -> Result<()> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Error::usage("cannot write a tar to a terminal").hint("-o FILE, or a pipe"));
    }
    let pile = Pile::told(&args.name)?;
    pile.image("export")?;
    let (lowers, maps) = (pile.lowers(), pile.store.maps()?);
    let packed = match &args.output {
        None => gather::shown(pile.upper, &lowers, maps, &mut std::io::stdout().lock())?,
        Some(path) => {
            let mut file = File::create(path).doing("make", path.display())?;
            gather::shown(pile.upper, &lowers, maps, &mut file).inspect_err(|_| drop(std::fs::remove_file(path)))?
        }
    };
    packed.torn.iter().for_each(|t| note(t));
    Ok(())
}

pub fn commit(args: CommitArgs) -> Result<()> {
    check_name(args.image.as_ref())?;
    let pile = Pile::told(&args.name)?;
    let (lowers, base) = (pile.lowers(), pile.image("commit")?.clone());
    let about =
        About { author: args.author, message: args.words.message, changes: args.words.change, made_by: pile.command, platform: Platform::default() };
    let (mut torn, maps) = (None, pile.store.maps()?);
    let write = |to: &mut dyn Write| diff::layer(pile.upper, &lowers, maps, to).map(|packed| torn = packed.torn);
    let layer = compose::layer(&pile.store, Some(&base), write)?;
    torn.iter().for_each(|t| note(t));
    let image = compose::image(&pile.store, Some(&base), &layer, &about, args.image.as_ref())?;
    let sandboxes = Sandboxes::open(&Caller::me()?.home);
    if let Ok(sandbox) = sandboxes.find(&args.name) {
        sandboxes.say(&sandbox, "commit", &[("imageID", image.id.to_string())]);
    }
    print(image.id.as_str());
    Ok(())
}

/// A digest is what an image has, not what it is given.
fn check_name(name: Option<&ImageName>) -> Result<()> {
    match name.filter(|n| n.digest().is_some()) {
        Some(name) => Err(Error::usage(format!("cannot name an image '{name}': a name that one gives has no digest"))),
        None => Ok(()),
    }
}

pub fn import(args: ImportArgs) -> Result<()> {
    let ImportArgs { words, platform, squash, from_host, positional } = args;
    let usage = || Error::usage("cannot import: say what").hint("sandbox import FILE|- [IMAGE], or sandbox import --from-host PATH [IMAGE]");
    let mut positional = positional.into_iter();
    let file = if from_host.is_empty() { Some(positional.next().ok_or_else(usage)?) } else { None };
    let name = positional.next().map(|n| n.parse::<ImageName>()).transpose()?;
    if positional.next().is_some() {
        return Err(usage());
    }
    check_name(name.as_ref())?;
    let store = squash.open(&Caller::me()?.home)?;
    let made_by = match &file {
        Some(_) => "imported from a tar".to_string(),
        None => format!("imported from {}", from_host.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")),
    };
    let about = About { author: None, message: words.message, changes: words.change, made_by, platform: platform.unwrap_or_default() };
    let layer = match file.as_deref() {
        Some("-") => compose::from_tar(&store, &mut std::io::stdin().lock())?,
        Some(path) => compose::from_tar(&store, &mut File::open(path).doing("open", path)?)?,
        None => compose::layer(&store, None, |to| gather::host(&from_host, store.maps()?, to))?,
    };
    compose::image(&store, None, &layer, &about, name.as_ref()).map(|image| print(image.id.as_str()))
}
