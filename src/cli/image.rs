//! `sandbox images`, `tag`, `untag`, `rmi`, `history`, `inspect`, `df`, `prune`, `gc`, `tree`, `load`, `save`; and `sandbox image VERB`, with
//! the verbs that `registry` and `kept` have.
//!
//! Called by `cli`. Words and columns are Docker's, so that fingers and scripts know them; what is done is `image`'s.
#![forbid(unsafe_code)]

use super::kept::{DiffArgs, ImportArgs};
use super::registry::{PullArgs, PushArgs, SearchArgs};
use super::{asked, kept, print, registry, template};
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::ident::{Digest, ImageName};
use crate::image::archive::{self, Format, Place, Wanted, familiar};
use crate::image::layout::Platform;
use crate::image::store::{Garbage, Store, Survey};
use crate::image::{Descriptor, Image};
use crate::moment::rfc3339;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The verbs on images; each is also a command of its own.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    Images(ImagesArgs),
    Tag(TagArgs),
    Untag(UntagArgs),
    Rmi(RmiArgs),
    History(HistoryArgs),
    Inspect(InspectArgs),
    Df(DfArgs),
    Prune(PruneArgs),
    Gc(GcArgs),
    Tree(TreeArgs),
    Load(LoadArgs),
    Save(SaveArgs),
    Import(ImportArgs),
    Diff(DiffArgs),
    Pull(PullArgs),
    Push(PushArgs),
    Search(SearchArgs),
}

/// Do something with images: each verb is also a command of its own
///
/// The verbs on images under one word, as Docker has them: sandbox image ls is sandbox images, and sandbox image rm is sandbox rmi.
#[derive(Debug, Args)]
#[command(mut_subcommand("images", |c| c.visible_alias("ls")), mut_subcommand("rmi", |c| c.visible_alias("rm")))]
#[command(disable_help_subcommand = true)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// List images
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Only images with this name; without a tag, of every tag
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print digests of manifests, too
    #[arg(long, conflicts_with = "quiet")]
    digests: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Only images that fit: reference=PATTERN, label=KEY[=VALUE], dangling=true|false, before=IMAGE or since=IMAGE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print `json`, one object a line, or a template such as '{{.ID}} {{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Give an image one more name
#[derive(Debug, Args)]
pub struct TagArgs {
    /// A name or an ID
    image: String,
    /// The new name; an image that has it loses it
    #[arg(value_name = "NAME[:TAG]")]
    name: ImageName,
}

/// Take names away; the images stay
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// The names
    #[arg(value_name = "NAME[:TAG]", required = true)]
    names: Vec<String>,
}

/// Remove images, or names of images that have others
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Also an image with several names, or one that is damaged; never one that a sandbox uses. One that is not there is no error
    #[arg(short, long)]
    force: bool,
}

/// Show how an image came to be, the newest step first
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A name or an ID
    image: String,
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole commands
    #[arg(long)]
    no_trunc: bool,
    /// Print `json`, one object a line, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Print all that is known of sandboxes and images, as JSON
///
/// Under a word that is both, the sandbox; the same verb of sandbox image knows images only.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Names or IDs
    #[arg(value_name = "SANDBOX|IMAGE", required = true)]
    pub words: Vec<String>,
    /// Only what is a container (or sandbox, which is the same) or an image
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub kind: Option<What>,
    /// Print `json`, one line, or a template such as '{{.Config.Env}}' or '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// What `inspect` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    Container,
    Sandbox,
    Image,
}

/// Show how much room images take, and what can be had back
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Print `json`, one object a line, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Remove images without a name, and what nothing refers to
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Every image that no sandbox uses
    #[arg(short, long)]
    all: bool,
    /// Only images that fit: until=24h or until=2026-01-31, label=KEY[=VALUE] or label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove blobs and layers that no image refers to
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Show which images share which layers
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Print whole digests
    #[arg(long)]
    no_trunc: bool,
    /// Print `json`: an array of layers, each with what lies above it
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
}

/// For all that unpacks layers.
#[derive(Debug, Args)]
pub struct Squash {
    /// Give files of ids that you do not have to root, instead of refusing the image
    ///
    /// Your ids inside are 0 to the number of your subordinate ids. A layer that was unpacked so is remembered as such: another image with
    /// it needs this flag, too. What save and push send is the layer as it came.
    #[arg(long)]
    squash_ids: bool,
}

impl Squash {
    /// The user's store, which unpacks so.
    pub fn open(&self, home: &Path) -> Result<Store> {
        Ok(Store::open(home)?.squash_ids(self.squash_ids))
    }
}

/// Take images out of an archive or a directory into the store
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The tar of docker save or in the OCI layout, plain or compressed; - and nothing are the standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "place")]
    input: Option<PathBuf>,
    /// oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]
    place: Option<Place>,
    /// The one to take, where there are several: os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    squash: Squash,
    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// Write images into an archive or a directory
///
/// The same images give the same bytes. An archive in Docker's format is one in the OCI layout, too.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// A file, or for oci-dir a directory; or a place: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE. Nothing is the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// docker-archive (without saying), oci-archive or oci-dir
    #[arg(long, value_name = "FORMAT", value_parser = ["docker-archive", "oci-archive", "oci-dir"])]
    format: Option<String>,
}

/// The whole command, to its exit code.
pub fn run(command: ImageCommand) -> Result<u8> {
    let home = Caller::me()?.home;
    let store = || -> Result<Store> {
        let store = Store::open(&home)?;
        // Best effort: listing works beside a damaged image, and on a disk that is full.
        let _ = store.tidy();
        Ok(store)
    };
    match command {
        ImageCommand::Images(args) => images(&store()?, &args)?,
        ImageCommand::Tag(args) => {
            let store = store()?;
            store.tag(&store.get(&args.image)?, &args.name)?;
        }
        ImageCommand::Untag(args) => {
            let store = store()?;
            for text in &args.names {
                let found = store.find(text).ok().flatten();
                let called = found.as_ref().and_then(|image| image.called(text)).cloned();
                store.untag(&called.map_or_else(|| text.parse(), Ok)?)?;
            }
        }
        ImageCommand::Rmi(args) => return rmi(&store()?, &args),
        ImageCommand::History(args) => history(&store()?, &args)?,
        ImageCommand::Inspect(args) => inspect(&store()?, &args)?,
        ImageCommand::Df(args) => df(&store()?, &args)?,
        ImageCommand::Prune(args) => prune(&store()?, &args)?,
        ImageCommand::Gc(args) => gc(&store()?, args.dry_run)?,
        ImageCommand::Tree(args) => tree(&store()?, &args)?,
        ImageCommand::Load(args) => load(&args.squash.open(&home)?, &args)?,
        ImageCommand::Save(args) => save(&store()?, &args)?,
        ImageCommand::Import(args) => kept::import(args)?,
        ImageCommand::Diff(args) => kept::diff(args)?,
        ImageCommand::Pull(args) => return registry::pull(args),
        ImageCommand::Push(args) => return registry::push(args),
        ImageCommand::Search(args) => return registry::search(args),
    }
    Ok(0)
}

// ------------------------------------------------------------------------------------------------------------- listing

/// One object a row: as a table of `columns`, as JSON, or through a template.
pub(super) fn show(rows: &[Value], columns: &[(&str, &str)], format: Option<&str>) -> Result<()> {
    let text = |row: &Value, key: &str| match row.get(key) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    match format {
        None | Some("table") => print(&table(
            &columns.iter().map(|(h, _)| *h).collect::<Vec<_>>(),
            rows.iter().map(|r| columns.iter().map(|(_, k)| text(r, k)).collect()),
        )),
        Some("json") => print(&rows.iter().map(|r| template::plain(r.to_string()) + "\n").collect::<String>()),
        Some(format) => {
            let (format, heads) = match format.strip_prefix("table ") {
                None => (format, false),
                Some(rest) => (rest, true),
            };
            let lines = rows.iter().map(|row| template::fill(format, row)).collect::<Result<Vec<_>>>()?;
            if heads {
                // The head of each column is its name in capitals, as Docker has it.
                let other = rows.first().and_then(Value::as_object).into_iter().flatten().map(|(key, _)| (key.clone(), key.to_uppercase().into()));
                let mut names: Map<String, Value> = other.collect();
                names.extend(columns.iter().map(|(head, key)| (key.to_string(), Value::from(*head))));
                let head = template::fill(format, &Value::Object(names)).unwrap_or_default();
                let cells = |line: &String| line.split('\t').map(str::to_string).collect::<Vec<_>>();
                print(&table(&cells(&head).iter().map(String::as_str).collect::<Vec<_>>(), lines.iter().map(cells)));
            } else {
                print(&lines.iter().map(|l| l.clone() + "\n").collect::<String>());
            }
        }
    }
    Ok(())
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(heads.iter().map(|h| h.to_string()).collect())
        .chain(rows)
        .map(|r: Vec<String>| r.iter().map(|c| crate::error::printable(c)).collect())
        .collect();
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(n, c)| format!("{c:0$}", if n + 1 == row.len() { 0 } else { widths.get(n).copied().unwrap_or(0) }));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// `sha256:` and all, or what people use.
fn short(digest: &Digest, whole: bool) -> String {
    if whole { digest.to_string() } else { digest.hex()[..12].to_string() }
}

/// Decimal units and three digits, as Docker has it.
pub(super) fn human(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, 0);
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1000.0, unit + 1);
    }
    let digits = if unit == 0 || size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// Unpacked, if it is; else as it is transported.
fn size_of(store: &Store, image: &Image) -> u64 {
    image.layers.iter().map(|l| store.about(&l.chain_id).ok().flatten().map_or(l.blob.size, |a| a.size)).sum()
}

fn row(store: &Store, image: &Image, name: Option<&ImageName>, whole: bool) -> Value {
    let none = || "<none>".to_string();
    let created = image.config.created().as_deref().and_then(seconds).unwrap_or(0);
    json!({
        "ID": short(&image.id, whole),
        "Repository": name.map_or_else(none, archive::repository),
        "Tag": name.and_then(|n| n.tag()).map_or_else(none, str::to_string),
        "Digest": image.manifest.digest,
        "CreatedAt": date(created),
        "CreatedSince": since(created),
        "Size": human(size_of(store, image)),
        "Shared": image.store != store.path(),
    })
}

fn images(store: &Store, args: &ImagesArgs) -> Result<()> {
    let Survey { images, damaged } = store.survey()?;
    for (digest, e) in damaged {
        let _ = writeln!(std::io::stderr(), "warning: image {digest} is damaged: {}; remove it: sandbox rmi -f {digest}", e.message());
    }
    let filters =
        args.filter.iter().map(|f| Filter::new(store, f, &["reference", "label", "dangling", "before", "since"])).collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<(Option<&ImageName>, &Image)> = Vec::new();
    for image in images.iter().filter(|i| filters.iter().all(|f| f.fits(i))) {
        let fits = |n: &&ImageName| {
            let asked = args.name.as_ref().is_none_or(|want| matches(want, n));
            asked && filters.iter().all(|f| f.fits_name(n))
        };
        let names: Vec<&ImageName> = image.names.iter().filter(fits).collect();
        if image.names.is_empty() && args.name.is_none() && !filters.iter().any(|f| matches!(f, Filter::Reference(_))) {
            rows.push((None, image));
        }
        rows.extend(names.into_iter().map(|n| (Some(n), image)));
    }
    let rows: Vec<Value> = rows.into_iter().map(|(name, image)| row(store, image, name, args.no_trunc)).collect();
    if args.quiet {
        return show(&rows, &[], Some("{{.ID}}"));
    }
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
    if args.digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    show(&rows, &columns, args.format.as_deref())
}

/// Is `name` what was asked for: the same, or the same repository and no tag was said; or does it fit a pattern?
fn matches(want: &str, name: &ImageName) -> bool {
    if want.contains(['*', '?']) {
        let texts = [name.to_string(), familiar(name)];
        return texts
            .iter()
            .any(|t| glob(want.as_bytes(), t.as_bytes()) || t.rsplit_once(':').is_some_and(|(r, _)| glob(want.as_bytes(), r.as_bytes())));
    }
    let said_tag = want.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    let same = |n: ImageName| (n.registry(), n.repository()) == (name.registry(), name.repository()) && (!said_tag || n.tag() == name.tag());
    want.parse().is_ok_and(same)
}

/// `*` any text without a slash, `?` one such letter.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit here.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == text[t] || (c == b'?' && text[t] != b'/') => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) if text[from] != b'/' => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// What is wanted of an image.
enum Filter {
    Reference(String),
    Label {
        key: String,
        value: Option<String>,
        not: bool,
    },
    Dangling(bool),
    /// Created before that second.
    Before(u64),
    Since(u64),
}

impl Filter {
    fn new(store: &Store, text: &str, known: &[&str]) -> Result<Filter> {
        let bad = || {
            Error::usage(format!("bad filter '{text}'"))
                .hint(format!("known are {}", known.iter().map(|k| format!("{k}=")).collect::<Vec<_>>().join(", ")))
        };
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        if !known.contains(&key) {
            return Err(bad());
        }
        let created = || Ok::<_, Error>(store.get(value)?.config.created().as_deref().and_then(seconds).unwrap_or(0));
        Ok(match key {
            "reference" => Filter::Reference(value.to_string()),
            "dangling" => Filter::Dangling(value.parse().map_err(|_| bad())?),
            "before" => Filter::Before(created()?),
            "since" => Filter::Since(created()?),
            "until" => Filter::Before(until(value).ok_or_else(bad)?),
            label => {
                let (key, wanted) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v.to_string())));
                Filter::Label { key: key.to_string(), value: wanted, not: label.ends_with('!') }
            }
        })
    }

    fn fits(&self, image: &Image) -> bool {
        let created = image.config.created().as_deref().and_then(seconds).unwrap_or(0);
        match self {
            Filter::Reference(_) => true,
            Filter::Dangling(wanted) => image.names.is_empty() == *wanted,
            Filter::Before(second) => created < *second,
            Filter::Since(second) => created > *second,
            Filter::Label { key, value, not } => {
                let found = image.config.labels_of_config().and_then(|l| l.get(key));
                found.is_some_and(|f| value.as_ref().is_none_or(|v| v == f)) != *not
            }
        }
    }

    fn fits_name(&self, name: &ImageName) -> bool {
        !matches!(self, Filter::Reference(pattern) if !matches(pattern, name))
    }
}

// ---------------------------------------------------------------------------------------------------------------- time

/// An RFC 3339 time in seconds since 1970; None: it is none, or before that.
fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let clock = |n: usize| if text.len() > 10 { number(11 + 3 * n..13 + 3 * n) } else { Some(0) };
    let (hour, minute, second) = (clock(0)?, clock(1)?, clock(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = text.get(19..).unwrap_or("").trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let shift = match zone.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] => {
            let part = |range: std::ops::Range<usize>| zone.get(range)?.parse::<i64>().ok();
            (part(1..3)? * 3600 + part(4..6)? * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    // Days since 1970: years begin in March here, so that the odd day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 153 + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - shift).ok()
}

/// As Docker prints it, in UTC.
fn date(seconds: u64) -> String {
    rfc3339(seconds).replace('T', " ").replace('Z', " +0000 UTC")
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(super) fn since(created: u64) -> String {
    if created == 0 {
        return "N/A".into();
    }
    let ago = now().saturating_sub(created);
    let units = [
        (2 * 365 * 86_400, 365 * 86_400, "years"),
        (60 * 86_400, 30 * 86_400, "months"),
        (14 * 86_400, 7 * 86_400, "weeks"),
        (2 * 86_400, 86_400, "days"),
        (2 * 3600, 3600, "hours"),
        (120, 60, "minutes"),
    ];
    let unit = units.iter().find(|(from, ..)| ago >= *from);
    unit.map_or_else(|| format!("{ago} seconds ago"), |(_, each, name)| format!("{} {name} ago", ago / each))
}

/// `24h`, `1h30m`, `10d`: so long ago; or a date.
fn until(text: &str) -> Option<u64> {
    if text.len() >= 10 && text.as_bytes()[4] == b'-' {
        return seconds(text);
    }
    let (mut total, mut number) = (0u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let each = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut number).parse::<u64>().ok()?.checked_mul(each)?)?;
    }
    number.is_empty().then(|| now().saturating_sub(total)).filter(|_| !text.is_empty())
}

// ------------------------------------------------------------------------------------------------------------- showing

fn history(store: &Store, args: &HistoryArgs) -> Result<()> {
    let image = store.get(&args.image)?;
    let mut layers = image.layers.iter();
    let mut rows: Vec<Value> = Vec::new();
    for step in image.config.history().iter().flatten() {
        let empty = step.empty_layer().unwrap_or(false);
        let layer = if empty { None } else { layers.next() };
        let size = layer.map_or(0, |l| store.about(&l.chain_id).ok().flatten().map_or(l.blob.size, |a| a.size));
        let created = step.created().as_deref().and_then(seconds).unwrap_or(0);
        let by = step.created_by().clone().unwrap_or_default().replace('\t', " ");
        let by = if args.no_trunc || by.chars().count() <= 45 { by } else { by.chars().take(44).collect::<String>() + "…" };
        rows.push(json!({
            "ID": "<missing>",
            "CreatedAt": date(created),
            "CreatedSince": since(created),
            "CreatedBy": by,
            "Size": human(size),
            "Comment": step.comment().clone().unwrap_or_default(),
        }));
    }
    rows.reverse();
    if let Some(first) = rows.first_mut() {
        first["ID"] = short(&image.id, args.no_trunc).into();
    }
    if args.quiet {
        return show(&rows, &[], Some("{{.ID}}"));
    }
    let columns = [("IMAGE", "ID"), ("CREATED", "CreatedSince"), ("CREATED BY", "CreatedBy"), ("SIZE", "Size"), ("COMMENT", "Comment")];
    show(&rows, &columns, args.format.as_deref())
}

/// Docker's keys, so that `jq` scripts find what they look for.
pub(super) fn inspected(store: &Store, image: &Image) -> Result<Value> {
    let path = crate::image::blob::path(&image.store, &image.id);
    let size = std::fs::metadata(&path).doing("look at", path.display())?.len();
    let bytes = store.document(image, &Descriptor { media_type: String::new(), digest: image.id.clone(), size })?;
    let raw = crate::image::layout::json(&bytes, "this image configuration")?;
    let text = |key: &str| raw.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let mut config = json!({
        "User": "", "ExposedPorts": null, "Env": null, "Entrypoint": null, "Cmd": null, "Volumes": null, "WorkingDir": "", "Labels": null, "StopSignal": ""
    });
    if let (Some(all), Some(said)) = (config.as_object_mut(), raw.get("config").and_then(Value::as_object)) {
        all.extend(said.clone());
    }
    let repositories: BTreeSet<String> = image.names.iter().map(archive::repository).collect();
    Ok(json!({
        "Id": image.id,
        "RepoTags": image.names.iter().filter(|n| n.tag().is_some()).map(familiar).collect::<Vec<_>>(),
        "RepoDigests": repositories.iter().map(|r| format!("{r}@{}", image.manifest.digest)).collect::<Vec<_>>(),
        "Comment": text("comment"),
        "Created": text("created"),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": size_of(store, image),
        "Config": config,
        "RootFS": { "Type": "layers", "Layers": image.layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>() },
        "Metadata": { "LastTagTime": date(store.added(image)) },
        "Descriptor": { "mediaType": image.manifest.media_type, "digest": image.manifest.digest, "size": image.manifest.size },
        "Store": image.store,
        "Notes": image.layers.iter().filter_map(|l| store.about(&l.chain_id).ok().flatten()).flat_map(|a| a.notes).collect::<Vec<_>>(),
    }))
}

fn inspect(store: &Store, args: &InspectArgs) -> Result<()> {
    if args.kind.is_some_and(|kind| kind != What::Image) {
        return Err(Error::usage("cannot inspect anything but images by sandbox image").hint("sandbox inspect"));
    }
    show_all(args.words.iter().map(|text| inspected(store, &store.get(text)?)).collect::<Result<Vec<_>>>()?, args.format.as_deref())
}

/// An array, or each through a template.
pub(super) fn show_all(all: Vec<Value>, format: Option<&str>) -> Result<()> {
    match format {
        None => {
            let text = serde_json::to_string_pretty(&all).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
            print(&template::plain(text));
        }
        Some("json") => print(&template::plain(Value::Array(all).to_string())),
        Some(format) => {
            let lines = all.iter().map(|image| template::fill(format, image)).collect::<Result<Vec<_>>>()?;
            print(&lines.iter().map(|l| l.clone() + "\n").collect::<String>());
        }
    }
    Ok(())
}

fn df(store: &Store, args: &DfArgs) -> Result<()> {
    let images = store.images()?;
    let own = || images.iter().filter(|i| i.store == store.path());
    let idle: Vec<&Image> = own().filter(|i| !store.in_use(i)).collect();
    let all: Vec<&Image> = own().collect();
    // What would be left over without any image is what there is.
    let (there, idle_bytes, garbage) = (store.garbage(&all, false)?, store.garbage(&idle, true)?.bytes(), store.garbage(&[], true)?);
    let row = |kind: &str, total: usize, active: usize, size: u64, free: u64| {
        let percent = (free * 100).checked_div(size).map(|p| format!(" ({p}%)")).unwrap_or_default();
        json!({ "Type": kind, "TotalCount": total, "Active": active, "Size": human(size), "Reclaimable": human(free) + &percent })
    };
    let rows = [
        row("Images", all.len(), all.len() - idle.len(), there.bytes(), idle_bytes),
        row("Layers", there.layers.len(), there.layers.len() - garbage.layers.len(), there.layer_bytes, garbage.layer_bytes),
        row("Blobs", there.blobs.len(), there.blobs.len() - garbage.blobs.len(), there.blob_bytes, garbage.blob_bytes),
    ];
    let columns = [("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size"), ("RECLAIMABLE", "Reclaimable")];
    show(&rows, &columns, args.format.as_deref())
}

/// A layer, the images that end with it, and the layers above it.
struct Branch<'a> {
    chain_id: &'a Digest,
    size: u64,
    images: Vec<&'a Image>,
    above: Vec<Branch<'a>>,
}

fn grow<'a>(store: &Store, branches: &mut Vec<Branch<'a>>, image: &'a Image, at: usize) {
    let Some(layer) = image.layers.get(at) else { return };
    let number = branches.iter().position(|b| *b.chain_id == layer.chain_id).unwrap_or_else(|| {
        let size = store.about(&layer.chain_id).ok().flatten().map_or(layer.blob.size, |a| a.size);
        branches.push(Branch { chain_id: &layer.chain_id, size, images: Vec::new(), above: Vec::new() });
        branches.len() - 1
    });
    let branch = &mut branches[number];
    if at + 1 == image.layers.len() {
        branch.images.push(image);
    }
    grow(store, &mut branch.above, image, at + 1);
}

fn names_of(image: &Image) -> String {
    let names: Vec<String> = image.names.iter().map(familiar).collect();
    if names.is_empty() { "<none>".into() } else { names.join(", ") }
}

fn tree(store: &Store, args: &TreeArgs) -> Result<()> {
    let images = store.images()?;
    let mut roots = Vec::new();
    images.iter().for_each(|image| grow(store, &mut roots, image, 0));
    fn object(b: &Branch) -> Value {
        let images: Vec<Value> = b.images.iter().map(|i| json!({ "ID": i.id, "Names": i.names.iter().map(familiar).collect::<Vec<_>>() })).collect();
        json!({ "ChainID": b.chain_id, "Size": b.size, "Images": images, "Above": b.above.iter().map(object).collect::<Vec<_>>() })
    }
    if args.format.is_some() {
        print(&Value::Array(roots.iter().map(object).collect()).to_string());
        return Ok(());
    }
    fn lines(branches: &[Branch], before: &str, whole: bool, out: &mut String) {
        for (number, b) in branches.iter().enumerate() {
            let last = number + 1 == branches.len();
            let names: Vec<String> = b.images.iter().map(|i| format!("  {} {}", short(&i.id, false), names_of(i))).collect();
            *out += &format!("{before}{} {} {}{}\n", if last { "└─" } else { "├─" }, short(b.chain_id, whole), human(b.size), names.concat());
            lines(&b.above, &format!("{before}{}", if last { "   " } else { "│  " }), whole, out);
        }
    }
    let mut out = String::new();
    lines(&roots, "", args.no_trunc, &mut out);
    for image in images.iter().filter(|i| i.layers.is_empty()) {
        out += &format!("(no layer)  {} {}\n", short(&image.id, false), names_of(image));
    }
    print(&out);
    Ok(())
}

// ------------------------------------------------------------------------------------------------------------ removing

fn rmi(store: &Store, args: &RmiArgs) -> Result<u8> {
    let mut failed = None;
    for text in &args.images {
        let done = match remove(store, text, args.force) {
            Err(e) if e.kind() == Kind::NotFound && args.force => Ok(()),
            other => other,
        };
        // As Docker: the others go all the same.
        if let Err(e) = done {
            match failed {
                None => failed = Some(e),
                Some(_) => drop(writeln!(std::io::stderr(), "error: {e}")),
            }
        }
    }
    let collected = store.collect(true).map(|garbage| left(&garbage));
    match failed {
        Some(e) => Err(e),
        None => collected.map(|()| 0),
    }
}

fn remove(store: &Store, text: &str, force: bool) -> Result<()> {
    let image = match store.find(text) {
        Ok(Some(image)) => image,
        Ok(None) => match text.parse::<Digest>() {
            Ok(digest) if force && store.has_record(&digest) => return store.remove_manifest(&digest),
            _ => return Err(store.missing(text)),
        },
        // Its documents cannot be read; its name can.
        Err(e) if force => return text.parse::<ImageName>().map_err(|_| e).and_then(|name| store.remove_named(&name)),
        Err(e) => return Err(e),
    };
    match image.called(text) {
        Some(name) if image.names.len() > 1 => {
            store.untag(name)?;
            print(&format!("Untagged: {}", familiar(name)));
        }
        None if image.names.len() > 1 && !force => {
            return Err(Error::new(Kind::Conflict, format!("cannot remove image {text}: it has several names: {}", names_of(&image)))
                .hint("remove one name at a time, or all of them: --force"));
        }
        _ => {
            store.remove(&image)?;
            image.names.iter().for_each(|n| print(&format!("Untagged: {}", familiar(n))));
            print(&format!("Deleted: {}", image.id));
        }
    }
    Ok(())
}

/// Removing is done; what it was for has to wait.
fn left(garbage: &Garbage) {
    if garbage.busy {
        let _ = writeln!(std::io::stderr(), "note: somebody is adding an image, so its room is not free yet; later: sandbox gc");
    }
}

fn prune(store: &Store, args: &PruneArgs) -> Result<()> {
    let filters = args.filter.iter().map(|f| Filter::new(store, f, &["until", "label", "label!"])).collect::<Result<Vec<_>>>()?;
    let images = store.images()?;
    let wanted: Vec<&Image> =
        images.iter().filter(|i| i.store == store.path() && (args.all || i.names.is_empty()) && filters.iter().all(|f| f.fits(i))).collect();
    if !args.dry_run && !args.force {
        let what = if args.all { "all images that no sandbox uses" } else { "all images without a name" };
        if !asked(&format!("remove {what}"), "--dry-run", &format!("Remove {what} ({})?", wanted.len()))? {
            return Ok(());
        }
    }
    let mut removed: Vec<&Image> = Vec::new();
    for image in wanted {
        if args.dry_run {
            if !store.in_use(image) {
                removed.push(image);
            }
            continue;
        }
        match store.remove(image) {
            Ok(()) => removed.push(image),
            // A sandbox uses it, or somebody else removed it.
            Err(e) if matches!(e.kind(), Kind::Conflict | Kind::NotFound) => {}
            Err(e) => return Err(e),
        }
    }
    for image in &removed {
        image.names.iter().for_each(|n| print(&format!("Untagged: {}", familiar(n))));
        print(&format!("Deleted: {}", image.id));
    }
    let garbage = if args.dry_run { store.garbage(&removed, !args.all)? } else { store.collect(!args.all)? };
    left(&garbage);
    print(&format!("{}: {}", if args.dry_run { "Would be reclaimed" } else { "Total reclaimed space" }, human(garbage.bytes())));
    Ok(())
}

fn gc(store: &Store, dry_run: bool) -> Result<()> {
    let garbage = if dry_run { store.garbage(&[], true)? } else { store.collect(true)? };
    if garbage.busy {
        return Err(Error::new(Kind::Conflict, "cannot collect garbage: somebody is adding an image").hint("try again when that is done"));
    }
    let verb = if dry_run { "would be removed" } else { "removed" };
    garbage.layers.iter().for_each(|d| print(&format!("layer {} {verb}", d)));
    garbage.blobs.iter().for_each(|d| print(&format!("blob {} {verb}", d)));
    print(&format!("{}: {}", if dry_run { "Would be reclaimed" } else { "Total reclaimed space" }, human(garbage.bytes())));
    Ok(())
}

// -------------------------------------------------------------------------------------------------- loading and saving

fn load(store: &Store, args: &LoadArgs) -> Result<()> {
    let platform = args.platform.clone().unwrap_or_default();
    let images = match (&args.place, &args.input) {
        (Some(place), _) => archive::load(store, place, &platform)?,
        (None, Some(path)) if path != Path::new("-") => {
            let file = File::open(path).doing("open", path.display())?;
            archive::load_from(store, file, &platform).map_err(|e| e.context(format!("read {}", path.display())))?
        }
        _ => {
            if std::io::stdin().is_terminal() {
                return Err(Error::usage("cannot load an image from a terminal").hint("sandbox load -i FILE, or sandbox load < FILE"));
            }
            let input = std::io::stdin().as_fd().try_clone_to_owned().doing("read", "the standard input")?;
            archive::load_from(store, File::from(input), &platform)?
        }
    };
    for image in images.iter().filter(|_| !args.quiet) {
        image.names.iter().for_each(|n| print(&format!("Loaded image: {}", familiar(n))));
        if image.names.is_empty() {
            print(&format!("Loaded image ID: {}", image.id));
        }
    }
    Ok(())
}

fn save(store: &Store, args: &SaveArgs) -> Result<()> {
    let output = args.output.as_deref().filter(|o| *o != "-");
    let mut place = output.map(Place::named).transpose()?.flatten();
    if place.is_some() && args.format.is_some() {
        return Err(Error::usage("cannot save: --output names a place, which says the format; --format does, too"));
    }
    let format = args.format.as_deref().unwrap_or("docker-archive");
    if let (None, Some(path)) = (&place, output) {
        let (path, tag) = (PathBuf::from(path), None);
        place = Some(match format {
            "oci-dir" => Place::Directory { path, tag },
            "oci-archive" => Place::OciArchive { path, tag },
            _ => Place::DockerArchive { path, tag },
        });
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for text in &args.images {
        let image = store.get(text)?;
        // An ID brings no name with it, as for Docker.
        let name = image.called(text).cloned();
        match wanted.iter_mut().find(|w| w.image.manifest == image.manifest) {
            Some(same) => same.names.extend(name.filter(|n| !same.names.contains(n))),
            None => wanted.push(Wanted { image, names: name.into_iter().collect(), tag: None }),
        }
    }
    match (place.as_ref().and_then(Place::tag), wanted.as_mut_slice()) {
        (None, _) => {}
        (Some(tag), [one]) if matches!(place, Some(Place::DockerArchive { .. })) => one.names = vec![tag.parse()?],
        (Some(tag), [one]) => one.tag = Some(tag.to_string()),
        _ => return Err(Error::usage("cannot save several images under one tag")),
    }
    match place {
        Some(place) => archive::save_to(store, &wanted, &place),
        None if format == "oci-dir" => Err(Error::usage("cannot save a directory to the standard output").hint("-o DIR")),
        None if std::io::stdout().is_terminal() => {
            Err(Error::usage("cannot save an image to a terminal").hint("sandbox save -o FILE, or sandbox save > FILE"))
        }
        None => {
            let format = if format == "oci-archive" { Format::Oci } else { Format::Docker };
            archive::save(store, &wanted, format, &mut BufWriter::with_capacity(1 << 20, std::io::stdout().lock()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, second) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T12:30:01.123456789Z", Some(1_709_209_801)),
            ("2024-02-29T12:30:01+02:00", Some(1_709_202_601)),
            ("2026-01-31", Some(1_769_817_600)),
            ("0001-01-01T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("now", None),
            ("", None),
            ("2024-02-29T12:30:01ä", None),
        ] {
            assert_eq!(seconds(text), second, "{text}");
        }
        assert_eq!(date(1_709_209_801), "2024-02-29 12:30:01 +0000 UTC");
        assert_eq!(date(0), "1970-01-01 00:00:00 +0000 UTC");
        for n in (0..4_000_000_000u64).step_by(86_399 * 37) {
            let text = date(n);
            assert_eq!(seconds(&format!("{}T{}Z", &text[..10], &text[11..19])), Some(n));
        }
        assert!(until("1h30m").is_some_and(|t| now() - t >= 5400 && now() - t < 5410));
        assert!(until("").is_none() && until("5").is_none() && until("x").is_none() && until("99999999999999999999d").is_none());
    }

    #[test]
    fn sizes_as_docker_has_them() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_234_567, "1.23MB"), (12_345_678, "12.3MB"), (123_456_789_012, "123GB")] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn patterns() {
        let name: ImageName = "quay.io/a/busybox:1.36".parse().unwrap();
        for (want, fits) in [
            ("quay.io/a/busybox", true),
            ("quay.io/a/busybox:1.36", true),
            ("quay.io/a/busybox:1", false),
            ("quay.io/*/busy*", true),
            ("quay.io/*", false),
            ("*/*/*:1.3?", true),
            ("busybox", false),
            ("*", false),
        ] {
            assert_eq!(matches(want, &name), fits, "{want}");
        }
        assert!(matches("busy*", &"busybox".parse().unwrap()));
        assert!(!glob(&b"*a".repeat(40), &b"a".repeat(39)));
    }
}
