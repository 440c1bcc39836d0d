//! `sandbox apply`: what a kept run wrote over a directory of the host, into that directory. Called by `cli::main`.
//!
//! A helper reads the layer; what it says is looked at twice, first to list it and to see what the host has changed since, then to do it.
#![forbid(unsafe_code)]

use super::image::show;
use super::kept::{HostDirectory, Pile};
use super::run::absolute;
use super::{asked, print};
use crate::container::run::note;
use crate::error::{Doing, Error, Kind, Result, printable};
use crate::host::Caller;
use crate::image::apply::{self, Change, Meant, Planned};
use crate::image::diff::{self, Upper};
use crate::image::tar;
use crate::role::Role;
use crate::spec::policy;
use clap::Args;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{BufReader, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Put what a kept run wrote over a directory of the host into that directory
///
/// What would happen is listed first, as sandbox diff does it, and you are asked. Files that were changed on the host since the layer was
/// made are a conflict: nothing is done. Names that git, shells or editors trust are left out unless they are named.
///
/// The layer stays until sandbox rm removes it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sandbox run --keep --name fix -- make format\n  sandbox apply --patch fix\n  sandbox apply fix src\n  sandbox rm fix"
)]
pub struct ApplyArgs {
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Show what would happen as a patch, in git's form, and do nothing
    #[arg(long, conflicts_with_all = ["format", "force"])]
    patch: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Also what was changed on the host since
    #[arg(long)]
    overwrite: bool,
    /// With --dry-run: json, or a template such as '{{.Path}}'
    #[arg(long, value_name = "FORMAT", requires = "dry_run")]
    format: Option<String>,
    /// The name or ID of a sandbox, or the name of a layer
    #[arg(value_name = "NAME")]
    name: String,
    /// Only these files and directories
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub fn run(args: ApplyArgs) -> Result<()> {
    let ApplyArgs { dry_run, patch, force, overwrite, format, name, paths } = args;
    let caller = Caller::me()?;
    let pile = Pile::new(&name)?;
    let Some(HostDirectory { directory, since }) = pile.over() else {
        return Err(Error::usage(format!("cannot apply '{name}': it lies on an image, and no directory of the host"))
            .hint(format!("sandbox commit {name} makes an image of it, sandbox cp takes files out of it")));
    };
    if pile.upper.live {
        return Err(
            Error::new(Kind::Conflict, format!("cannot apply '{name}': it is running")).hint(format!("sandbox stop {name}, or wait for its end"))
        );
    }
    let paths = paths.iter().map(|path| below(directory, path)).collect::<Result<Vec<_>>>()?;
    let guarded: Vec<(PathBuf, String)> =
        policy::choose(Some("agent"), &caller.home)?.0.files.guard.into_iter().map(|g| (PathBuf::from(g.path), g.why)).collect();
    let guard = |path: &Path| guarded.iter().find(|(name, _)| path.starts_with(name) && !paths.iter().any(|p| p.starts_with(name)));
    let meant = |path: &[u8]| {
        let path = Path::new(OsStr::from_bytes(path));
        if paths.is_empty() || paths.iter().any(|p| path.starts_with(p)) {
            Meant::Yes
        } else if paths.iter().any(|p| p.starts_with(path)) {
            Meant::Below
        } else {
            Meant::No
        }
    };
    let root = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .doing("open", directory.display())?;

    let planned = read(&pile, |tar| apply::look(root.as_fd(), tar, &meant, *since))?;
    let (withheld, planned): (Vec<Planned>, Vec<Planned>) = planned.into_iter().partition(|p| guard(named(p)).is_some());
    for (name, why) in guarded.iter().filter(|(name, _)| withheld.iter().any(|one| named(one).starts_with(name))) {
        note(&format!("{} is left out ({why}): look at it, and name it to have it", directory.join(name).display()));
    }
    if patch {
        return read(&pile, |tar| apply::patch(root.as_fd(), tar, &planned, &mut Shown(std::io::stdout().lock())));
    }
    list(directory, &planned, format.as_deref())?;
    let conflicts = planned.iter().filter(|p| p.conflict).count();
    if dry_run || planned.is_empty() {
        return Ok(());
    }
    if conflicts > 0 && !overwrite {
        return Err(Error::new(Kind::Conflict, format!("cannot apply '{name}': {conflicts} of these were changed on the host since"))
            .hint("name the others, or --overwrite"));
    }
    if !force && !asked("apply this", "--dry-run", &format!("Apply this to {}?", directory.display()))? {
        return Ok(());
    }
    let wanted = |path: &[u8]| guard(Path::new(OsStr::from_bytes(path))).map_or_else(|| meant(path), |_| Meant::No);
    read(&pile, |tar| apply::apply(root.as_fd(), tar, &wanted, (caller.uid, caller.gid)))?.iter().for_each(|sentence| note(sentence));
    Ok(())
}

fn named(planned: &Planned) -> &Path {
    Path::new(OsStr::from_bytes(&planned.path))
}

/// A path as it was typed, below the directory.
fn below(directory: &Path, path: &Path) -> Result<PathBuf> {
    let cwd = std::env::current_dir().doing("find", "the working directory")?;
    let whole = absolute(path, &cwd);
    let inside = whole.strip_prefix(directory).map(Path::to_path_buf);
    inside.map_err(|_| Error::usage(format!("cannot apply {}: it is not below {}", path.display(), directory.display())))
}

fn list(directory: &Path, planned: &[Planned], format: Option<&str>) -> Result<()> {
    let row = |p: &Planned| {
        let kind = match p.change {
            Change::Added => "A",
            Change::Changed => "C",
            Change::Deleted => "D",
        };
        let link = p.link.as_deref().map(String::from_utf8_lossy);
        json!({ "Kind": kind, "Path": directory.join(named(p)).display().to_string(), "Conflict": p.conflict, "Link": link })
    };
    let rows: Vec<Value> = planned.iter().map(row).collect();
    if format.is_some() {
        return show(&rows, &[("KIND", "Kind"), ("PATH", "Path"), ("CONFLICT", "Conflict")], format);
    }
    let text = |value: &Value| tar::show(value.as_str().unwrap_or_default().as_bytes());
    let line = |row: &Value| {
        let conflict = if row["Conflict"] == true { "  (changed on the host since)" } else { "" };
        let link = if row["Link"].is_null() { String::new() } else { format!(" -> {}", text(&row["Link"])) };
        format!("{} {}{link}{conflict}\n", text(&row["Kind"]), text(&row["Path"]))
    };
    print(&rows.iter().map(line).collect::<String>());
    Ok(())
}

/// What somebody hostile wrote, for a terminal or a file. // P05
struct Shown(std::io::StdoutLock<'static>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.is_terminal() {
            let text = String::from_utf8_lossy(bytes);
            self.0.write_all(text.split('\t').map(printable).collect::<Vec<_>>().join("\t").as_bytes())?;
        } else {
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Have somebody read the layer as a tar.
fn read<T>(pile: &Pile, work: impl FnOnce(BufReader<&mut Role>) -> Result<T>) -> Result<T> {
    let handle = pile.upper.handle.try_clone().doing("copy", "a descriptor")?;
    let packing = diff::packing(Upper { handle, live: false }, &pile.lowers(), pile.store.maps()?)?;
    packing.read_by(|tar| work(BufReader::new(tar))).map(|(done, _): (T, Option<String>)| done)
}
