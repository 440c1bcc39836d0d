//! Where things live on disk. The one place that builds those paths, and that says when a directory may be trusted.
//!
//! Called by `spec::policy`, `confine`, `image`, `container` and `cli`. Never touches a shared place such as /tmp. // L11
#![forbid(unsafe_code)]

use crate::error::{Doing, Error, Kind, Result};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Directories where policies are looked for, first hit wins: the user's, then the site's. Never the working directory.
pub fn policies(home: &Path) -> Vec<PathBuf> {
    vec![config(home).join("policies"), PathBuf::from("/etc/sandbox/policies")]
}

/// The site's ceiling, which users cannot loosen.
pub fn ceiling() -> PathBuf {
    PathBuf::from("/etc/sandbox/ceiling.toml")
}

/// `$XDG_CONFIG_HOME/sandbox`.
pub fn config(home: &Path) -> PathBuf {
    xdg("XDG_CONFIG_HOME", home, ".config")
}

/// `$XDG_CONFIG_HOME/containers`: what podman and skopeo read, and we with them.
pub fn containers(home: &Path) -> PathBuf {
    config(home).with_file_name("containers")
}

/// `$XDG_CACHE_HOME/sandbox`.
pub fn cache(home: &Path) -> PathBuf {
    xdg("XDG_CACHE_HOME", home, ".cache")
}

/// `$XDG_DATA_HOME/sandbox/store`: the user's images.
pub fn store(home: &Path) -> PathBuf {
    xdg("XDG_DATA_HOME", home, ".local/share").join("store")
}

/// Stores of others, which we only read: those in `$SANDBOX_STORES` (with colons between), then the site's list, one a line.
pub fn shared_stores() -> Vec<PathBuf> {
    let own = std::env::var_os("SANDBOX_STORES").unwrap_or_default();
    let site = lines(Path::new("/etc/sandbox/stores"));
    std::env::split_paths(&own).chain(site).filter(|p| p.is_absolute()).collect()
}

fn lines(file: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(PathBuf::from).collect()
}

/// `$XDG_RUNTIME_DIR/sandbox`, if the variable names a directory that is ours alone.
pub fn runtime() -> Option<PathBuf> {
    let base = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR")?);
    trusted(&base).ok()?;
    Some(base.join("sandbox"))
}

/// `$XDG_DATA_HOME/sandbox/sandboxes`: what is to be known of sandboxes that stay.
pub fn sandboxes(home: &Path) -> PathBuf {
    xdg("XDG_DATA_HOME", home, ".local/share").join("sandboxes")
}

/// Where things live that are gone with the process they belong to: the first for new ones, the others for those of other sessions.
/// Without a session (cron, a batch job) it is below the cache.
pub fn live(home: &Path) -> Vec<PathBuf> {
    let usual = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let usual = trusted(&usual).is_ok().then(|| usual.join("sandbox"));
    let session = runtime();
    let others = usual.filter(|dir| session.as_ref() != Some(dir));
    session.into_iter().chain([cache(home).join("live")]).chain(others).collect()
}

fn xdg(variable: &str, home: &Path, default: &str) -> PathBuf {
    // XDG Base Directory Specification: a relative path is to be ignored.
    let base = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    base.unwrap_or_else(|| home.join(default)).join("sandbox")
}

/// Make `dir` (0700) if it is not there, and check that it is ours.
pub fn make(dir: &Path) -> Result<()> {
    trusted(dir).or_else(|_| {
        // If it is there by now, that is not an error.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing("make", dir.display())?;
        trusted(dir)
    })
}

/// The same for a directory of ours and all that it is in, from the one called `sandbox` on: a link on the way leads to somebody else's.
pub fn make_below(dir: &Path) -> Result<()> {
    let own = dir.ancestors().position(|d| d.ends_with("sandbox")).unwrap_or(0);
    let mut all: Vec<_> = dir.ancestors().take(own + 1).collect();
    all.reverse();
    all.into_iter().try_for_each(make)
}

/// A directory is trusted if it is one (no symlink), is ours, and nobody else may write to it. cve: 2019-12439, 2020-25039
pub fn trusted(dir: &Path) -> Result<()> {
    let meta = std::fs::symlink_metadata(dir).doing("look at", dir.display())?;
    check(dir, meta.is_dir(), meta.uid(), meta.mode())
}

/// A handle on one that is trusted: what is opened by it is in that directory, whatever becomes of its name.
pub fn open(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(dir, flags, Mode::empty()).doing("open", dir.display())?;
    let stat = rustix::fs::fstat(&handle).doing("look at", dir.display())?;
    check(dir, true, stat.st_uid, stat.st_mode).map(|()| handle)
}

fn check(dir: &Path, is_dir: bool, owner: u32, mode: u32) -> Result<()> {
    if !is_dir || owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(Error::new(Kind::Denied, format!("cannot trust {}: it must be a directory of yours that nobody else may write", dir.display()))
            .hint(format!("chown and chmod it: chmod 700 {}", dir.display())));
    }
    Ok(())
}
