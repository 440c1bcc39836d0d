//! Man pages and completions: `sandbox docs DIR` rewrites them, a test compares. Called by `cli`; changes nothing but DIR.
//!
//! What the flags are comes from their definitions; what the program does with them, from the texts in `manual/`, where a line
//! `@WORD@` stands for something that is listed elsewhere in the program: hidden paths, kernel features, controls.
#![forbid(unsafe_code)]

use super::Cli;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::FEATURES;
use crate::spec::{Patch, Reasoned, policy};
use clap::{Arg, Args, Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Write man/ and completions/ below a directory, from the definitions of the flags
#[derive(Debug, Args)]
pub struct DocsArgs {
    /// The directory that holds man/ and completions/
    dir: PathBuf,
}

/// The day on which the manual last changed in substance.
const DATE: &str = "2026-11-24";

/// The part of each page that no flag's definition has: name of the page, text.
const REST: &[(&str, &str)] = &[
    ("sandbox", include_str!("manual/sandbox.roff")),
    ("sandbox-run", include_str!("manual/run.roff")),
    ("sandbox-stats", include_str!("manual/stats.roff")),
    ("sandbox-slice", include_str!("manual/slice.roff")),
    ("sandbox-doctor", include_str!("manual/doctor.roff")),
    ("sandbox-image", include_str!("manual/image.roff")),
    ("sandbox-policy", include_str!("manual/policy.roff")),
    ("sandbox-pull", REGISTRIES),
    ("sandbox-push", REGISTRIES),
    ("sandbox-login", REGISTRIES),
    ("sandbox-logout", REGISTRIES),
    ("sandbox-search", REGISTRIES),
    ("sandbox-apply", KEPT),
    ("sandbox-commit", KEPT),
    ("sandbox-diff", KEPT),
    ("sandbox-export", KEPT),
    ("sandbox-import", KEPT),
    ("sandbox-kept", KEPT),
    ("sandbox-create", LIFE),
    ("sandbox-start", LIFE),
    ("sandbox-stop", LIFE),
    ("sandbox-restart", LIFE),
    ("sandbox-kill", LIFE),
    ("sandbox-pause", LIFE),
    ("sandbox-unpause", LIFE),
    ("sandbox-rename", LIFE),
    ("sandbox-update", LIFE),
    ("sandbox-events", LIFE),
    ("sandbox-container", LIFE),
    ("sandbox-rm", LIFE),
    ("sandbox-ps", LIFE),
    ("sandbox-exec", INSIDE),
    ("sandbox-top", INSIDE),
    ("sandbox-cp", INSIDE),
    ("sandbox-logs", include_str!("manual/logs.roff")),
    ("sandbox-attach", ATTACH),
    ("sandbox-wait", ATTACH),
    ("sandbox-pause", LIFE),
    ("sandbox-unpause", LIFE),
    ("sandbox-restart", LIFE),
    ("sandbox-rename", LIFE),
    ("sandbox-update", LIFE),
    ("sandbox-inspect", LIFE),
    ("sandbox-events", LIFE),
    ("sandbox-exec", INSIDE),
    ("sandbox-top", INSIDE),
    ("sandbox-cp", INSIDE),
];

/// Whoever reads about one command on registries needs the same files and examples.
const REGISTRIES: &str = include_str!("manual/registry.roff");

/// The same for what becomes of a writable layer.
const KEPT: &str = include_str!("manual/kept.roff");

/// For what is done in a sandbox that is there.
const INSIDE: &str = include_str!("manual/inside.roff");

/// For who takes part in one.
const ATTACH: &str = include_str!("manual/attach.roff");

/// And for the life of a sandbox.
const LIFE: &str = include_str!("manual/life.roff");

pub fn write(args: &DocsArgs) -> Result<()> {
    for (path, content) in files()? {
        let path = args.dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).doing("make", parent.display())?;
        }
        std::fs::write(&path, content).doing("write", path.display())?;
    }
    Ok(())
}

/// Every generated file: its path and content.
pub fn files() -> Result<Vec<(PathBuf, Vec<u8>)>> {
    // The built-in policy, not one that shadows it on this machine.
    let default = policy::built_in("default")?;
    let mut command = Cli::command().disable_version_flag(true);
    command.build();
    let mut files = vec![(PathBuf::from("man/sandbox.1"), page(&mut command, "sandbox", &default)?.into_bytes())];
    let verbs = verbs(&command);
    // Most verbs of `image` are commands, too, and have its page.
    for sub in command.get_subcommands_mut().filter(|c| !c.is_hide_set() && !verbs.contains(c.get_name())) {
        let name = format!("sandbox-{}", sub.get_name());
        files.push((format!("man/{name}.1").into(), page(sub, &name, &default)?.into_bytes()));
    }
    files.push(("man/sandbox-policy.5".into(), filled(include_str!("manual/language.roff"), &default)?.into_bytes()));
    use clap_complete::{Shell, generate};
    for (shell, name) in [(Shell::Bash, "sandbox.bash"), (Shell::Zsh, "_sandbox"), (Shell::Fish, "sandbox.fish")] {
        let mut text = Vec::new();
        generate(shell, &mut visible(Cli::command()), "sandbox", &mut text);
        files.push((Path::new("completions").join(name), text));
    }
    Ok(files)
}

/// The verbs of `image` that have no page of their own.
fn verbs(command: &Command) -> BTreeSet<String> {
    let all = command.find_subcommand("image").into_iter().flat_map(Command::get_subcommands).map(|c| c.get_name().to_string());
    all.filter(|verb| !has_page(&format!("sandbox-{verb}"))).collect()
}

fn has_page(name: &str) -> bool {
    REST.iter().any(|(page, _)| *page == name)
}

/// clap's generators complete hidden commands too.
fn visible(command: Command) -> Command {
    let shown: Vec<Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
    let top = clap::Command::new("sandbox")
        .about("A rootless sandbox: no daemon, nothing set-uid of its own")
        .disable_help_subcommand(true)
        .version(env!("CARGO_PKG_VERSION"));
    top.subcommands(shown)
}

fn page(command: &mut Command, name: &str, default: &Patch) -> Result<String> {
    let (_, rest) = REST.iter().find(|(page, _)| *page == name).ok_or_else(|| Error::new(Kind::Bug, format!("no text for man page {name}")))?;
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    let about = command.get_about().map(|a| a.to_string()).unwrap_or_default();
    roff.text([roman(format!("{name} - {}", lower(&about)))]);
    roff.control("SH", ["SYNOPSIS"]);
    synopsis(&mut roff, command);
    roff.control("SH", ["DESCRIPTION"]);
    let long = command.get_long_about().or(command.get_about()).map(|a| a.to_string()).unwrap_or_default();
    // The first paragraph is NAME's.
    let said = long.split_once("\n\n").map_or(long.as_str(), |(_, rest)| rest);
    paragraphs(&mut roff, said, "PP");
    if command.get_name() == "image" {
        roff.control("SH", ["COMMANDS"]);
        for sub in command.get_subcommands_mut().filter(|c| c.get_name() != "help") {
            roff.control("SS", [sub.get_name().to_string().as_str()]);
            let page = format!("sandbox-{}", sub.get_name());
            if has_page(&page) {
                paragraphs(&mut roff, &sub.get_about().map(|a| a.to_string()).unwrap_or_default(), "PP");
                roff.text([roman("See "), bold(page), roman("(1).")]);
                continue;
            }
            synopsis(&mut roff, &mut sub.clone().bin_name(format!("sandbox {}", sub.get_name())));
            roff.control("PP", []);
            let long = sub.get_long_about().or(sub.get_about()).map(|a| a.to_string()).unwrap_or_default();
            paragraphs(&mut roff, &long, "PP");
            arguments(&mut roff, sub);
            options(&mut roff, sub);
        }
    } else if command.has_subcommands() {
        roff.control("SH", ["COMMANDS"]);
        commands(&mut roff, command, name);
    } else {
        roff.control("SH", ["OPTIONS"]);
        options(&mut roff, command);
    }
    let title = format!(".TH {} 1 {DATE} \"sandbox {}\" \"User Commands\"\n", name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    Ok(title + &roff.to_roff() + &filled(rest, default)?)
}

/// NAME lines begin with a small letter, but for words that always have a large one.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().collect::<String>() + chars.as_str())
}

fn synopsis(roff: &mut Roff, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let forms = usage.trim_start_matches("Usage:").lines().map(str::trim).filter(|l| !l.is_empty());
    for (number, form) in forms.enumerate() {
        if number > 0 {
            roff.control("br", []);
        }
        roff.text([bold(form.to_string())]);
    }
}

/// Each command; with its own options, where it has no page of its own.
fn commands(roff: &mut Roff, command: &Command, name: &str) {
    let verbs = verbs(command);
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        if verbs.contains(sub.get_name()) {
            roff.control("TP", []);
            roff.text([bold(sub.get_name().to_string()), roman(", in "), bold("sandbox-image"), roman("(1)")]);
            paragraphs(roff, &sub.get_about().map(|a| a.to_string()).unwrap_or_default(), "IP");
            continue;
        }
        let page = format!("{name}-{}", sub.get_name());
        let own = has_page(&page);
        roff.control("TP", []);
        let mut head = vec![bold(sub.get_name().to_string())];
        for word in sub.get_positionals() {
            head.extend([roman(" "), italic(values(word))]);
        }
        for option in sub.get_opts().chain(sub.get_arguments().filter(|a| a.get_long() == Some("json"))).take(1) {
            head.extend([roman(" ["), bold(format!("--{}", option.get_long().unwrap_or_default())), roman("]")]);
        }
        roff.text(if own { vec![bold(page), roman("(1)")] } else { head });
        paragraphs(roff, &sub.get_about().map(|a| a.to_string()).unwrap_or_default(), "IP");
    }
}

/// What stands without a name, where it says something about itself.
fn arguments(roff: &mut Roff, command: &Command) {
    for arg in command.get_positionals() {
        roff.control("TP", []);
        roff.text([italic(values(arg))]);
        paragraphs(roff, &arg.get_help().map(|h| h.to_string()).unwrap_or_default(), "IP");
    }
}

/// The options, in the order and under the headings of their definition.
fn options(roff: &mut Roff, command: &Command) {
    let mut heading = None;
    for arg in command.get_arguments().filter(|a| !a.is_hide_set() && !a.is_positional() && a.get_id() != "help") {
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            if let Some(heading) = heading {
                roff.control("SS", [heading]);
            }
        }
        roff.control("TP", []);
        let mut head: Vec<Inline> = Vec::new();
        if let Some(short) = arg.get_short() {
            head.extend([bold(format!("-{short}")), roman(", ")]);
        }
        head.push(bold(format!("--{}", arg.get_long().unwrap_or_default())));
        if arg.get_action().takes_values() {
            head.extend([roman(" "), italic(values(arg))]);
        }
        roff.text(head);
        let help = arg.get_long_help().or(arg.get_help()).map(|h| h.to_string()).unwrap_or_default();
        paragraphs(roff, &help, "IP");
    }
}

fn values(arg: &Arg) -> String {
    arg.get_value_names().unwrap_or_default().iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}

/// Text with empty lines between paragraphs; each is a sentence with its full stop.
fn paragraphs(roff: &mut Roff, text: &str, between: &str) {
    for (number, paragraph) in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()).enumerate() {
        if number > 0 {
            roff.control(between, []);
        }
        let stop = if paragraph.ends_with(['.', ':', '?']) { "" } else { "." };
        roff.text([roman(format!("{}{stop}", paragraph.replace('\n', " ")))]);
    }
}

/// A text of `manual/`, with its `@WORD@` lines filled.
fn filled(text: &str, default: &Patch) -> Result<String> {
    let mut out = String::new();
    for line in text.lines() {
        match line.strip_prefix('@').and_then(|l| l.strip_suffix('@')) {
            None => out += &format!("{line}\n"),
            Some("TITLE") => out += &format!(".TH SANDBOX-POLICY 5 {DATE} \"sandbox {}\" \"File Formats\"\n", env!("CARGO_PKG_VERSION")),
            Some("HIDE") => out += &entries(&default.files.hide),
            Some("FRESH") => out += &entries(&default.files.fresh),
            Some("READ-ONLY") => out += &entries(&default.files.read_only),
            Some("MASK") => out += &entries(&default.proc.mask),
            Some("ENV-PASS") => out += &entries(&default.process.env_pass),
            Some("KEEP") => out += &entries(default.capabilities.keep.as_deref().unwrap_or_default()),
            Some("POLICIES") => {
                for name in policy::builtin_names() {
                    out += &tagged(name, &policy::built_in(name)?.description.unwrap_or_default());
                }
            }
            Some("FEATURES") => {
                for f in FEATURES {
                    let call = f.call.map(|c| format!(" ({c})")).unwrap_or_default();
                    let (major, minor) = f.since;
                    out += &tagged(&format!("{}{call}, Linux {major}.{minor}", f.name), &format!("{}. Without it: {}.", f.why, f.without));
                }
            }
            Some(word) => return Err(Error::new(Kind::Bug, format!("nothing to fill @{word}@ with"))),
        }
    }
    Ok(out)
}

/// One reason for each run of entries that share it.
fn entries(list: &[Reasoned]) -> String {
    let mut out = String::new();
    for run in list.chunk_by(|a, b| a.why == b.why) {
        let names: Vec<_> = run.iter().map(|r| r.path.as_str()).collect();
        out += &tagged(&names.join(", "), &run.first().map(|r| r.why.clone()).unwrap_or_default());
    }
    out
}

fn tagged(tag: &str, text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TP", []);
    roff.text([bold(tag)]);
    roff.text([roman(text)]);
    roff.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_what_the_definitions_say() {
        for (path, content) in files().unwrap() {
            let committed = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap_or_default();
            assert!(committed == content, "{} is out of date: sandbox docs .", path.display());
        }
    }

    #[test]
    fn every_page_has_its_sections() {
        for (path, content) in files().unwrap().iter().filter(|(p, _)| p.starts_with("man")) {
            let text = String::from_utf8(content.clone()).unwrap();
            for section in ["NAME", "DESCRIPTION", "EXAMPLES", "FILES", "SEE ALSO"] {
                assert!(text.contains(&format!("\n.SH {section}\n")) || text.contains(&format!("\n.SH \"{section}\"\n")), "{path:?} lacks {section}");
            }
            if path.extension().is_some_and(|e| e == "1") {
                assert!(
                    text.contains(".SH \"EXIT STATUS\"\n") && text.contains(".SH DIAGNOSTICS\n") && text.contains(".SH ENVIRONMENT\n"),
                    "{path:?}"
                );
            }
        }
    }

    #[test]
    fn every_flag_of_run_and_every_hidden_path_is_in_the_manual() {
        let files = files().unwrap();
        let text = |name: &str| String::from_utf8(files.iter().find(|(p, _)| p == Path::new(name)).unwrap().1.clone()).unwrap().replace('\\', "");
        let run = Cli::command().find_subcommand("run").unwrap().clone();
        for arg in run.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()) {
            assert!(text("man/sandbox-run.1").contains(&format!("--{arg}")), "{arg}");
        }
        let language = text("man/sandbox-policy.5");
        for entry in policy::built_in("default").unwrap().files.hide {
            assert!(language.contains(&entry.path) && language.contains(&entry.why), "{entry:?}");
        }
        for control in crate::spec::Control::ALL {
            assert!(language.contains(&format!(".B {control}\n")), "{control}");
        }
    }
}
