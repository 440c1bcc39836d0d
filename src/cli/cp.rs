//! `sandbox cp`: files between a sandbox and the host, two sandboxes, or a tar on stdin or stdout. Called by `cli::main`.
#![forbid(unsafe_code)]

use crate::container::copy::{Opened, open};
use crate::container::run::note;
use crate::container::store::Sandboxes;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::Caller;
use crate::image::copy::{self, Notes, Path, Put, Putting, Take, What, pump};
use clap::Args;
use rustix::fs::{Mode, OFlags};
use std::ffi::{OsStr, OsString};
use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Copy files and directories between a sandbox and the host
///
/// One of the two is SANDBOX:PATH, or both are. A dash for the other one is a tar on stdin or stdout. The sandbox may run or not; of one that
/// does not run there is the tree only if it keeps what it writes, as those with an image do.
///
/// A directory is copied with all that is in it: into DEST if that is a directory, else as DEST; with /. at its end only what is in it. A file is
/// copied into a directory, or as DEST. The directory of DEST must be there.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sandbox cp web:/var/log/nginx .\n  sandbox cp site/. web:/usr/share/nginx/html\n  sandbox cp web:/etc - | tar tv"
)]
#[command(
    override_usage = "sandbox cp [OPTIONS] SANDBOX:SRC DEST|-\n       sandbox cp [OPTIONS] SRC|- SANDBOX:DEST\n       sandbox cp [OPTIONS] SANDBOX:SRC SANDBOX:DEST"
)]
pub struct CpArgs {
    /// Keep the owners, by number
    ///
    /// Otherwise what is copied in belongs to root inside (on the host's tree to you), and what is copied out to you. Owners that there are
    /// not where it is copied to are left out.
    #[arg(short, long)]
    archive: bool,
    /// If SRC is a link, copy what it leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Let a directory take the place of a file, or a file that of a directory
    #[arg(long)]
    overwrite: bool,
    /// Say nothing of what was left out
    #[arg(short, long)]
    quiet: bool,
    /// What is copied
    #[arg(value_name = "SRC")]
    from: OsString,
    /// Where to
    #[arg(value_name = "DEST")]
    to: OsString,
}

/// One side of a copy.
enum Side {
    Sandbox(Box<Opened>, Path),
    Host(Path),
    Stream,
}

pub fn run(args: CpArgs) -> Result<()> {
    let CpArgs { archive, follow_link, overwrite, quiet, from, to } = args;
    let caller = Caller::me()?;
    let sandboxes = Sandboxes::open(&caller.home);
    let (inside_from, inside_to) = (split(&from), split(&to));
    match (&inside_from, &inside_to) {
        (None, None) => {
            return Err(
                Error::usage("cannot copy: neither side is in a sandbox").hint("SANDBOX:PATH names what is in one; for the host there is cp(1)")
            );
        }
        (Some((a, _)), Some((b, _))) if a == b && !sandboxes.find(a)?.is_running() => {
            return Err(Error::new(Kind::Conflict, format!("cannot copy within '{a}': it does not run"))
                .hint(format!("sandbox start {a}, or copy by way of the host")));
        }
        _ => {}
    }
    let side = |word: &OsStr, inside: Option<(&str, &OsStr)>| match inside {
        Some((name, path)) => Ok(Side::Sandbox(Box::new(open(&sandboxes, &sandboxes.find(name)?, &caller)?), Path::new(path)?)),
        None if word == "-" => Ok(Side::Stream),
        None => host_path(word).map(Side::Host),
    };
    let (from, to) = (side(&from, inside_from)?, side(&to, inside_to)?);
    let what = match &from {
        Side::Sandbox(_, path) | Side::Host(path) => What::of(path),
        Side::Stream => What::Archive,
    };
    let take = |path: &Path, named| Take { path: path.clone(), follow: follow_link, named };
    // As for each side; `Opened::put` knows the ids inside.
    let put = |path: &Path, owner: (u32, u32), never| Put {
        path: path.clone(),
        what: what.clone(),
        overwrite,
        owner: (!archive).then_some(owner),
        uids: vec![(caller.uid, 1)],
        gids: vec![(caller.gid, 1)],
        never,
    };
    let notes: Notes = match (&from, &to) {
        (Side::Sandbox(opened, path), Side::Stream) => {
            if rustix::termios::isatty(std::io::stdout()) {
                return Err(Error::usage("cannot write a tar to a terminal").hint("sandbox cp SANDBOX:PATH - | tar tv"));
            }
            let mut taking = opened.take(&take(path, true))?;
            pump(&mut taking, &mut std::io::stdout().lock())?;
            taking.finish()?
        }
        (Side::Sandbox(opened, path), Side::Host(dest)) => {
            // An owner of 0 leaves it to us, and no set-uid bit that a stranger set is ours.
            let put = put(dest, (0, 0), copy::SET_IDS);
            opened.take(&take(path, false))?.read_by(|source| copy::put(top()?.as_fd(), &put, BufReader::new(source)))?
        }
        (Side::Sandbox(opened, path), Side::Sandbox(other, dest)) => {
            let mut taking = opened.take(&take(path, false))?;
            let mut putting = other.put(put(dest, other.owner, 0))?;
            pump(&mut taking, &mut putting)?;
            both(taking.finish(), putting)?
        }
        (Side::Host(path), Side::Sandbox(other, dest)) => {
            let mut putting = other.put(put(dest, other.owner, 0))?;
            both(copy::take(top()?.as_fd(), &take(path, false), &mut putting, false), putting)?
        }
        (Side::Stream, Side::Sandbox(other, dest)) => {
            let mut putting = other.put(put(dest, other.owner, 0))?;
            pump(&mut std::io::stdin().lock(), &mut putting)?;
            putting.finish()?
        }
        _ => return Err(Error::new(Kind::Bug, "neither side is in a sandbox")),
    };
    if !quiet {
        notes.iter().for_each(|sentence| note(sentence));
    }
    Ok(())
}

/// What both sides have to say. A side that broke off is the other's fault, if that knows one.
fn both(taken: Result<Notes>, putting: Putting) -> Result<Notes> {
    if taken.as_ref().is_err_and(|e| e.kind() != Kind::Io) {
        return taken;
    }
    let mut notes = putting.finish()?;
    notes.extend(taken?);
    Ok(notes)
}

/// `SANDBOX:PATH`; what begins with a dot or a slash is the host's, whatever it has in it. man: docker-cp(1)
fn split(word: &OsStr) -> Option<(&str, &OsStr)> {
    let bytes = word.as_bytes();
    if bytes.starts_with(b"/") || bytes.starts_with(b".") {
        return None;
    }
    let at = bytes.iter().position(|b| *b == b':')?;
    let name = std::str::from_utf8(&bytes[..at]).ok()?;
    Some((name, OsStr::from_bytes(&bytes[at + 1..])))
}

fn host_path(word: &OsStr) -> Result<Path> {
    let cwd = std::env::current_dir().doing("find", "the working directory")?;
    // Joined as text: what the path ends with means something.
    let whole = if word.as_bytes().starts_with(b"/") { word.to_os_string() } else { [cwd.as_os_str(), OsStr::new("/"), word].into_iter().collect() };
    Path::new(&whole)
}

/// The host's own tree, for our own rights.
fn top() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing("open", "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        let inside = |word: &str| split(OsStr::new(word)).map(|(name, path)| (name.to_string(), path.to_os_string()));
        assert_eq!(inside("web:/a:b"), Some(("web".into(), "/a:b".into())));
        assert_eq!(inside("web:rel"), Some(("web".into(), "rel".into())));
        for host in ["./a:b", "/a:b", "-", "a", "../x:y"] {
            assert_eq!(inside(host), None, "{host}");
        }
    }
}
