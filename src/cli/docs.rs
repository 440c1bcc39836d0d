//! Man pages and completions from the clap definitions: `sandbox docs DIR` rewrites them, a test compares. Called by `cli`.
#![forbid(unsafe_code)]

use super::Cli;
use crate::error::{Doing, Result};
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};

/// Write man/ and completions/ below a directory, from the definitions of the flags
#[derive(Debug, Args)]
pub struct DocsArgs {
    /// The directory that holds man/ and completions/
    dir: PathBuf,
}

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
    let mut files = Vec::new();
    let mut command = Cli::command();
    command.build();
    page(&command, "sandbox", &mut files)?;
    use clap_complete::{Shell, generate};
    for (shell, name) in [(Shell::Bash, "sandbox.bash"), (Shell::Zsh, "_sandbox"), (Shell::Fish, "sandbox.fish")] {
        let mut text = Vec::new();
        generate(shell, &mut Cli::command(), "sandbox", &mut text);
        files.push((Path::new("completions").join(name), text));
    }
    Ok(files)
}

fn page(command: &clap::Command, name: &str, files: &mut Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    let man = clap_mangen::Man::new(command.clone().name(name.to_string()).display_name(name)).manual("sandbox").source("sandbox");
    let mut text = Vec::new();
    man.render(&mut text).doing("render", name)?;
    files.push((Path::new("man").join(format!("{name}.1")), text));
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        page(sub, &format!("{name}-{}", sub.get_name()), files)?;
    }
    Ok(())
}
