//! `sandbox ps`, and the filters that other verbs share with it. Called by `cli::main` and `cli::life`.
//!
//! Names of fields and filters are docker's. What a stranger may have put into a label or an image's name is printed with control characters
//! escaped, in every form. // cve: 2023-28101
#![forbid(unsafe_code)]

use super::image::{show, since};
use super::{kept, print};
use crate::container::store::{Sandbox, Sandboxes};
use crate::container::{Status, health};
use crate::error::{Error, Result};
use crate::host::Caller;
use crate::moment::{Moment, rfc3339};
use crate::spec::{NetworkMode, Root, storage};
use clap::Args;
use serde_json::{Value, json};

/// List sandboxes
///
/// Those that run; with -a all of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sandbox ps -a --filter status=exited --filter label=team=web\n  sandbox ps --format '{{.Names}} {{.Status}}'")]
pub struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: name, id, status, exited, health, label, ancestor, volume, network, since, before or until, with = and a value
    ///
    /// A name is a part of one, with ^ and $ for its ends; of several values of one key one must fit (of label all), and of each key.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// The N that were made last, whether they run or not
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// The one that was made last
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Whole IDs and commands
    #[arg(long)]
    no_trunc: bool,
    /// IDs only
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Also how much was written to each, as a layer over its image
    #[arg(short, long)]
    size: bool,
    /// table, json, or a template such as '{{.Names}}' or 'table {{.ID}}\t{{.Status}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// One `KEY=VALUE`.
#[derive(Debug)]
pub struct Filter {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Name {
        text: String,
        start: bool,
        end: bool,
    },
    Id(String),
    Status(String),
    Exited(u8),
    Health(String),
    Label(String, Option<String>),
    Ancestor(String),
    Volume(String),
    Network(String),
    /// Seconds since 1970.
    Since(u64),
    Before(u64),
}

const STATUS: [&str; 6] = ["created", "running", "paused", "restarting", "exited", "dead"];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

pub fn filters(words: &[String]) -> Result<Vec<Filter>> {
    words.iter().map(|word| filter(word)).collect()
}

fn filter(word: &str) -> Result<Filter> {
    let bad = |why: &str| Error::usage(format!("bad filter '{word}': {why}"));
    let (key, value) = word.split_once('=').ok_or_else(|| bad("KEY=VALUE"))?;
    let one_of = |all: &[&str]| if all.contains(&value) { Ok(value.to_string()) } else { Err(bad(&format!("one of {}", all.join(", ")))) };
    let made = || Ok::<_, Error>(Sandboxes::open(&Caller::me()?.home).find(value)?.config.created);
    let test = match key {
        "name" => Test::Name {
            text: value.trim_start_matches(['^', '/']).trim_end_matches('$').to_string(),
            start: value.starts_with('^'),
            end: value.ends_with('$'),
        },
        "id" => Test::Id(value.to_string()),
        "status" => Test::Status(one_of(&STATUS)?),
        "exited" => Test::Exited(value.parse().map_err(|_| bad("an exit code"))?),
        "health" => Test::Health(one_of(&HEALTH)?),
        "label" => {
            let (key, value) = value.split_once('=').map_or((value, None), |(k, v)| (k, Some(v.to_string())));
            Test::Label(key.to_string(), value)
        }
        "ancestor" => Test::Ancestor(value.to_string()),
        "volume" => Test::Volume(value.to_string()),
        "network" => Test::Network(value.to_string()),
        "since" => Test::Since(made()?),
        "before" => Test::Before(made()?),
        "until" => Test::Before(Moment::said(value, Moment::now())?.0 / 1_000_000_000),
        _ => return Err(bad("known are name, id, status, exited, health, label, ancestor, volume, network, since, before and until")),
    };
    Ok(Filter { key: key.to_string(), test })
}

/// One of each key, and every label.
pub fn fits(filters: &[Filter], sandbox: &Sandbox) -> bool {
    let alike = |f: &Filter| filters.iter().filter(|g| g.key == f.key).any(|g| g.test.holds(sandbox));
    filters.iter().all(|f| if f.key == "label" { f.test.holds(sandbox) } else { alike(f) })
}

impl Test {
    fn holds(&self, sandbox: &Sandbox) -> bool {
        let (config, state) = (&sandbox.config, &sandbox.state);
        match self {
            Test::Name { text, start, end } => {
                let name = config.name.as_str();
                match (start, end) {
                    (true, true) => name == text,
                    (true, false) => name.starts_with(text),
                    (false, true) => name.ends_with(text),
                    (false, false) => name.contains(text.as_str()),
                }
            }
            Test::Id(id) => config.id.as_str().starts_with(id.as_str()),
            Test::Status(status) => sandbox.status() == status,
            Test::Exited(code) => matches!(state.status, Status::Exited | Status::Dead) && state.exit == Some(*code),
            Test::Health(wanted) => health(sandbox).unwrap_or("none") == wanted,
            Test::Label(key, value) => config.labels.get(key).is_some_and(|has| value.as_ref().is_none_or(|v| v == has)),
            Test::Ancestor(word) => {
                let same = |has: &str| has == word || has.rsplit_once(':').is_some_and(|(name, tag)| name == word && !tag.contains('/'));
                let hex = word.strip_prefix("sha256:").unwrap_or(word);
                config.image.as_ref().is_some_and(|i| same(&i.word) || (hex.len() >= 6 && image_id(sandbox).is_some_and(|id| id.starts_with(hex))))
            }
            Test::Volume(word) => config.spec.files.mounts.iter().any(|m| {
                let source = match &m.source {
                    storage::Source::Bind(path) | storage::Source::Cow(path) => Some(path),
                    storage::Source::Tmpfs { .. } => None,
                };
                source.is_some_and(|s| s.as_os_str() == word.as_str()) || m.target.as_os_str() == word.as_str()
            }),
            Test::Network(word) => network(sandbox) == word,
            Test::Since(second) => config.created > *second,
            Test::Before(second) => config.created < *second,
        }
    }
}

/// The hexadecimal digits.
pub fn image_id(sandbox: &Sandbox) -> Option<&str> {
    match &sandbox.config.spec.root {
        Root::Image(image) => Some(image.id.hex()),
        _ => None,
    }
}

pub fn network(sandbox: &Sandbox) -> &'static str {
    match sandbox.config.spec.network.mode {
        NetworkMode::Host => "host",
        _ => "none",
    }
}

/// Only of one that runs and is asked.
pub fn health(sandbox: &Sandbox) -> Option<&'static str> {
    sandbox.config.options.health.as_ref().filter(|_| sandbox.is_running())?;
    Some(health::report(&sandbox.dir).unwrap_or_default().status.as_str())
}

/// What it runs on, for people.
pub fn ground(sandbox: &Sandbox) -> String {
    match (&sandbox.config.image, &sandbox.config.spec.root) {
        (Some(image), _) => image.word.clone(),
        (None, Root::Host) => "(host)".to_string(),
        (None, Root::Dir { path, .. }) => path.display().to_string(),
        (None, Root::Image(image)) => image.id.to_string(),
    }
}

pub fn ps(args: PsArgs) -> Result<()> {
    let filters = filters(&args.filter)?;
    let last = if args.latest { Some(1) } else { args.last };
    // Who asks for those that have ended means them.
    let all = args.all || last.is_some() || filters.iter().any(|f| matches!(f.test, Test::Status(_) | Test::Exited(_)));
    let list = Sandboxes::open(&Caller::me()?.home).list()?;
    let shown = list.iter().filter(|s| (all || s.alive) && fits(&filters, s)).take(last.unwrap_or(usize::MAX));
    if args.quiet {
        shown.for_each(|s| print(if args.no_trunc { s.config.id.as_str() } else { s.config.id.short() }));
        return Ok(());
    }
    let rows: Vec<Value> = shown.map(|s| row(s, args.no_trunc, args.size)).collect();
    let mut columns =
        vec![("SANDBOX ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("CREATED", "RunningFor"), ("STATUS", "Status"), ("NAMES", "Names")];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    show(&rows, &columns, args.format.as_deref())
}

fn row(sandbox: &Sandbox, whole: bool, size: bool) -> Value {
    let (config, state) = (&sandbox.config, &sandbox.state);
    let command = config.command().join(" ");
    let command = match whole || command.chars().count() <= 20 {
        true => command,
        false => command.chars().take(19).collect::<String>() + "…",
    };
    let mounts: Vec<String> = config.spec.files.mounts.iter().map(|m| m.target.display().to_string()).collect();
    let labels: Vec<String> = config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let ports: Vec<&str> = config.image.iter().flat_map(|image| &image.exposed).map(String::as_str).collect();
    let size = if size { kept::size(config.id.as_str()).map_or("-".into(), super::image::human) } else { String::new() };
    json!({
        "ID": if whole { config.id.as_str() } else { config.id.short() }, "Names": config.name, "Image": ground(sandbox),
        "Command": format!("\"{command}\""), "CreatedAt": rfc3339(config.created), "RunningFor": since(config.created),
        "State": sandbox.status(), "Status": status(sandbox), "Ports": ports.join(", "), "Size": size, "Labels": labels.join(","),
        "Mounts": mounts.join(","), "LocalVolumes": "0", "Networks": network(sandbox), "Health": health(sandbox).unwrap_or_default(),
        "ExitCode": state.exit, "Pid": state.init.map_or(0, |p| p.pid),
    })
}

/// In docker's words.
fn status(sandbox: &Sandbox) -> String {
    let state = &sandbox.state;
    let ago = |at: Option<u64>| at.map(|ns| since(ns / 1_000_000_000)).unwrap_or_default();
    match state.status {
        Status::Running => {
            let paused = if sandbox.is_paused() { " (Paused)" } else { "" };
            let health = health(sandbox).map(|h| format!(" ({})", if h == "starting" { "health: starting" } else { h })).unwrap_or_default();
            format!("Up {}{health}{paused}", ago(state.started).trim_end_matches(" ago"))
        }
        Status::Exited => format!("Exited ({}) {}", state.exit.unwrap_or_default(), ago(state.finished)),
        Status::Dead => "Dead".to_string(),
        Status::Created => "Created".to_string(),
        Status::Starting => "Starting".to_string(),
        Status::Restarting => format!("Restarting ({}) {}", state.exit.unwrap_or_default(), ago(state.finished)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_known_or_refused() {
        for good in ["name=^web$", "id=ab", "status=paused", "exited=137", "health=none", "label=a", "label=a=b", "ancestor=debian:12", "until=24h"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "name", "status=up", "exited=x", "exited=300", "health=well", "size=1", "until=soon"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
