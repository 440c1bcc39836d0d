//! Registries: images come from them and go to them.
//!
//! *What*: `pull` and `push` are the two ways. `conf` says where a name is to be had, `credentials` who
//! we are there, `tls` whom we believe, `auth` where a password may go; `wire` makes the requests. `search` looks for names.
//!
//! *Why this way*: reqwest over one current-thread runtime for each thread that downloads, driven by blocking readers: a layer's bytes go
//! from the socket through the hash into the blob and the unpacker, once, and the store needs to know nothing of futures. (Rejected:
//! oci-client and docker_credential, on which this began. The first reads manifests, tokens and errors without a limit, follows
//! redirects by itself and to anywhere, sends the password to whatever host a challenge names, knows neither identity tokens nor client
//! certificates; the second runs helpers by PATH and does not look at a file's mode. None of that can be set.)
//!
//! *Invariants*
//! - I1 a secret goes to its registry and that registry's token service, encrypted unless the user said otherwise. // wire, auth
//! - I2 every answer has a limit in size and time, and its digest is checked before it is used. // wire, layout, store
//! - I3 never called for an image that is in the store, unless the user asks for a newer one. // cli::choose
#![forbid(unsafe_code)]

mod auth;
pub mod conf;
pub mod credentials;
pub mod progress;
mod pull;
mod push;
mod search;
mod tls;
mod trust;
mod wire;

pub use auth::Challenge;
pub use progress::Progress;
pub use pull::pull;
pub use push::push;
pub use search::{Found, search};

use super::layout;
use super::layout::Platform;
use crate::error::{Error, Kind, Result};
use crate::ident::ImageName;
use conf::{Endpoint, Registries};
use credentials::Secret;
use reqwest::{Method, StatusCode};
use std::path::{Path, PathBuf};
use wire::{Ask, Remote, Wire};
use zeroize::Zeroizing;

/// How to talk to a registry, whichever.
#[derive(Debug, Clone)]
pub struct Options {
    /// None: this machine's, or whatever is in the store.
    pub platform: Option<Platform>,
    /// None: as registries.conf says.
    pub tls_verify: Option<bool>,
    /// Instead of the usual files.
    pub auth_file: Option<PathBuf>,
    /// Instead of the usual certs.d.
    pub cert_dir: Option<PathBuf>,
    /// The caller's.
    pub home: PathBuf,
}

impl Options {
    pub fn new(home: &Path) -> Options {
        Options { platform: None, tls_verify: None, auth_file: None, cert_dir: None, home: home.to_path_buf() }
    }
}

/// What the user wrote, as a whole name: aliases and the site's rules for short names applied. Reads files only.
pub fn name(text: &str, home: &Path) -> Result<ImageName> {
    Registries::load(home)?.resolve(text)
}

/// Ask the registry whether it knows these, then keep them. Returns where they are kept.
pub fn login(host: &str, user: &str, password: &str, options: &Options) -> Result<String> {
    let endpoint = bare(host, &options.home)?;
    let secret = Secret::Password { user: user.to_string(), password: Zeroizing::new(password.to_string()) };
    if user.contains(':') || user.is_empty() || user.chars().chain(password.chars()).any(char::is_control) {
        return Err(Error::usage("cannot log in: a user is not empty and has no ':', and neither it nor the password has control characters"));
    }
    let remote = Remote::new(&endpoint, options, Some(secret))?;
    let wire = Wire::new(&remote)?;
    let answer = wire.send(&Ask::new(Method::GET, remote.root("v2/")?, ""))?;
    match answer.status() {
        StatusCode::OK => credentials::store(&endpoint.host, user, password, options.auth_file.as_deref(), &options.home),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Error::new(Kind::Denied, format!("cannot log in to {}: it does not accept the user and the password", endpoint.host)))
        }
        _ => Err(wire.refusal(&format!("{} as a registry", endpoint.host), answer)),
    }
}

/// Forget the password for one registry, or for all. Returns which.
pub fn logout(host: Option<&str>, options: &Options) -> Result<Vec<String>> {
    let host = host.map(|h| bare(h, &options.home)).transpose()?.map(|e| e.host);
    let gone = credentials::forget(host.as_deref(), options.auth_file.as_deref(), &options.home)?;
    match host {
        Some(host) if gone.is_empty() => Err(Error::new(Kind::NotFound, format!("cannot log out of {host}: no password for it is kept"))),
        _ => Ok(gone),
    }
}

/// A registry without a repository.
fn bare(host: &str, home: &Path) -> Result<Endpoint> {
    let host = host.strip_prefix("https://").unwrap_or(host).trim_end_matches('/');
    let host = if host == "index.docker.io" || host == "index.docker.io/v1" { "docker.io" } else { host };
    let fine = !host.contains('/') && format!("{host}/x").parse::<ImageName>().is_ok_and(|n| n.registry() == host);
    if !fine {
        return Err(Error::usage(format!("bad registry '{host}': HOST or HOST:PORT, such as docker.io or localhost:5000")));
    }
    let insecure = Registries::load(home)?.insecure(host);
    Ok(Endpoint { host: host.to_string(), repository: String::new(), insecure })
}

/// What a manifest may be.
fn accepted() -> String {
    [layout::OCI_MANIFEST, layout::OCI_INDEX, layout::DOCKER_MANIFEST, layout::DOCKER_INDEX].join(", ")
}
