//! `sandbox events`: what happened to sandboxes, and what happens. Called by `cli::main`.
#![forbid(unsafe_code)]

use super::template;
use crate::container::events::Reader;
use crate::dirs;
use crate::error::{Error, Result, printable};
use crate::host::Caller;
use crate::moment::Moment;
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// Say what happens to sandboxes, as it happens
///
/// create, start, die, oom, kill, stop, restart, pause, unpause, rename, update, exec_start, exec_die, attach, detach, health_status, commit and
/// destroy. The last megabyte or two are kept: --since shows what was before.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sandbox events --since 1h --until 0s --json\n  sandbox events --filter event=die --format '{{.Actor.Attributes.name}}'"
)]
pub struct EventsArgs {
    /// Also what happened since then: a date, seconds since 1970, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// And nothing after that; the command ends then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only those that fit: event, container, image or label, with = and a value
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, or a template such as '{{.Action}} {{.Actor.Attributes.name}}'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// How soon what happened is shown.
const GLANCE: Duration = Duration::from_millis(100);

pub fn events(args: &EventsArgs) -> Result<()> {
    let now = Moment::now();
    let time = |word: &Option<String>| word.as_deref().map(|w| Moment::said(w, now)).transpose();
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    let filters = args.filter.iter().map(|f| filter(f)).collect::<Result<Vec<_>>>()?;
    let (mut reader, mut events) = Reader::new(&dirs::sandboxes(&Caller::me()?.home));
    // Without --since, from now on.
    let from = since.map_or(now.0, |m| m.0);
    let mut out = std::io::stdout();
    loop {
        for event in &events {
            let at = event["timeNano"].as_u64().unwrap_or_default();
            // What is later may come first: clocks are set.
            if at < from || until.is_some_and(|u| at > u.0) || !fits(&filters, event) {
                continue;
            }
            let line = match args.format.as_deref() {
                _ if args.json => template::plain(event.to_string()),
                Some("json") => template::plain(event.to_string()),
                Some(format) => template::fill(format, event)?,
                None => sentence(event),
            };
            // A reader that went away (`| head`) is no error.
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
        if until.is_some_and(|u| Moment::now() >= u) {
            return Ok(());
        }
        std::thread::sleep(GLANCE);
        events = reader.more();
    }
}

/// As docker prints it.
fn sentence(event: &Value) -> String {
    let text = |v: &Value| printable(v.as_str().unwrap_or_default());
    let more = event["Actor"]["Attributes"].as_object().into_iter().flatten().map(|(k, v)| format!("{}={}", printable(k), text(v)));
    let at = Moment(event["timeNano"].as_u64().unwrap_or_default());
    format!("{at} container {} {} ({})", text(&event["Action"]), text(&event["id"]), more.collect::<Vec<_>>().join(", "))
}

fn filter(word: &str) -> Result<(String, String)> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "event" | "container" | "image" | "label" if !value.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(Error::usage(format!("bad filter '{word}': event, container, image or label, with = and a value"))),
    }
}

/// One of each key.
fn fits(filters: &[(String, String)], event: &Value) -> bool {
    let about = &event["Actor"]["Attributes"];
    let holds = |(key, value): &(String, String)| match key.as_str() {
        "event" => event["Action"] == value.as_str(),
        "container" => about["name"] == value.as_str() || event["id"].as_str().is_some_and(|id| id.starts_with(value.as_str())),
        "image" => event["from"] == value.as_str(),
        _ => {
            let (key, wanted) = value.split_once('=').map_or((value.as_str(), None), |(k, v)| (k, Some(v)));
            about[key].as_str().is_some_and(|has| wanted.is_none_or(|w| w == has))
        }
    };
    filters.iter().all(|f| filters.iter().filter(|g| g.0 == f.0).any(holds))
}
