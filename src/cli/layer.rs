//! Layers by hand: `sandbox layer`, hidden; for tests, measurements and repairs. Called by `cli`; does what the store does, without it.
#![forbid(unsafe_code)]

use crate::error::{Doing, Result};
use crate::image::diff::{self, Upper};
use crate::image::unpack;
use crate::role;
use clap::{Args, Subcommand};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Turn a layer's tar into a directory and back
#[derive(Debug, Args)]
pub struct LayerArgs {
    #[command(subcommand)]
    command: LayerCommand,
}

#[derive(Debug, Subcommand)]
enum LayerCommand {
    /// Write the layer on stdin into a new directory, and say what it was
    Unpack {
        dir: PathBuf,
        /// Give files of ids beyond one's range to root
        #[arg(long)]
        squash_ids: bool,
        /// Directories of the layers below, lowest first: for what the layer does not name
        #[arg(long = "parent")]
        parents: Vec<PathBuf>,
    },
    /// Delete directories, whoever owns what is in them
    Remove {
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
    },
    /// Write an overlay's upper directory to stdout, as a layer
    Pack {
        upper: PathBuf,
        /// Directories of the layers below, lowest first
        lowers: Vec<PathBuf>,
    },
    /// Write a whole directory to stdout, as a tar
    Tree { root: PathBuf },
    /// List what an overlay's upper directory adds, changes and deletes
    Changes {
        upper: PathBuf,
        /// Directories of the layers below, lowest first
        lowers: Vec<PathBuf>,
    },
}

pub fn run(args: LayerArgs) -> Result<String> {
    let maps = role::maps()?;
    match args.command {
        LayerCommand::Unpack { dir, squash_ids, parents } => {
            std::fs::create_dir(&dir).doing("make", dir.display())?;
            let mut unpacking = unpack::begin(&dir, &maps, &unpack::Options { squash_ids })?;
            let mut piece = vec![0; 256 << 10];
            loop {
                let n = std::io::stdin().lock().read(&mut piece).doing("read", "stdin")?;
                // An error is told by `finish`.
                if n == 0 || unpacking.write_all(&piece[..n]).is_err() {
                    break;
                }
            }
            let done = unpacking.finish()?;
            unpack::adopt(&dir, &done.implicit, &parents, &maps)?;
            let lines = |title: &str, list: Vec<String>| list.into_iter().map(|l| format!("{title} {l}\n")).collect::<String>();
            let implicit = done.implicit.iter().map(|p| p.display().to_string()).collect();
            Ok(format!("{} {} bytes {} entries\n", done.diff_id, done.tar_size, done.entries)
                + &lines("implicit", implicit)
                + &lines("note", done.notes))
        }
        LayerCommand::Pack { upper, lowers } => {
            diff::layer(Upper::open(&upper, false)?, &lowers, &maps, &mut std::io::stdout()).map(|_| String::new())
        }
        LayerCommand::Tree { root } => diff::tree(&root, &maps, &mut std::io::stdout()).map(|_| String::new()),
        LayerCommand::Changes { upper, lowers } => {
            let (found, _) = diff::changes(Upper::open(&upper, false)?, &lowers, &maps)?;
            Ok(found.into_iter().map(|(kind, path)| format!("{kind} {}\n", path.display())).collect())
        }
        LayerCommand::Remove { dirs } => unpack::remove(&dirs, &maps).map(|()| String::new()),
    }
}
