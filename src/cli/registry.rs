//! `pull`, `push`, `login`, `logout`, `search`: what was typed, as a call of `image::registry`.
//!
//! What a script wants is on stdout (an ID, a list); what a person watches is on stderr. A password comes from a terminal without
//! echo or from stdin, never from an argument.
#![forbid(unsafe_code)]

use super::image::Squash;
use super::print;
use crate::error::{Doing, Error, Kind, Result, printable};
use crate::host::Caller;
use crate::image::layout::Platform;
use crate::image::registry::{self, Options, Progress};
use crate::image::store::Store;
use crate::sys::signal::{self, Set};
use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{LocalModes, OptionalActions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A password is shorter.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// How to reach a registry; the same for all commands that do.
#[derive(Debug, Args)]
pub struct Reach {
    /// Check the registry's certificate: true or false [default: as registries.conf says]
    ///
    /// With false, plain HTTP will do as well. Without, HTTP is spoken to this machine only.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    tls_verify: Option<bool>,
    /// Take passwords from this file, and no other
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Take the registry's authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
}

impl Reach {
    fn options(self, platform: Option<Platform>) -> Result<Options> {
        let mut options = Options::new(&Caller::me()?.home);
        let Reach { tls_verify, authfile, cert_dir } = self;
        options.tls_verify = tls_verify;
        options.auth_file = authfile;
        options.cert_dir = cert_dir;
        options.platform = platform;
        Ok(options)
    }
}

/// Bring images from registries into the store
///
/// A name is REGISTRY/REPOSITORY:TAG, or with @sha256:DIGEST exactly that image. Without a registry it is Docker Hub's, or what an alias
/// in registries.conf says; the whole name is shown. Prints the ID of each image. What the store has already is not fetched.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Which of an image for several platforms: OS/ARCH or OS/ARCH/VARIANT [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    squash: Squash,
    /// Print nothing but the ID
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    reach: Reach,
    /// Names of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Send an image to a registry
///
/// The image goes as it is in the store, to its own name or to another one. Blobs that the registry has are not sent. Prints the digest
/// under which the registry has it then.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Print nothing but the digest
    #[arg(long, short)]
    quiet: bool,
    /// Write the digest to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
    /// An image in the store: a name or an ID
    image: String,
    /// The name there, if it is another one
    destination: Option<String>,
}

/// Keep a user and a password for a registry
///
/// Asks the registry whether they are right, then keeps them where podman and skopeo look too: in $XDG_RUNTIME_DIR/containers/auth.json,
/// which ends with the login session, or in the credential helper that the file names.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The user; asked for if not given
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    reach: Reach,
    /// HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    registry: String,
}

/// Forget the password for a registry
///
/// It is removed from every file, and from every credential helper, where a later pull would find it.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Forget all of them
    #[arg(long, short, conflicts_with = "registry")]
    all: bool,
    /// Forget what is in this file, and in no other
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    registry: String,
}

/// Look for images by a word
///
/// WORD is looked for at Docker Hub, HOST/WORD in the catalog of that registry. Many registries have none; that is an error that says so.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Not more than so many
    #[arg(long, default_value_t = 25, value_name = "N")]
    limit: usize,
    /// A table, or JSON
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,
    #[command(flatten)]
    reach: Reach,
    /// WORD or HOST/WORD
    term: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    Json,
}

pub fn pull(args: PullArgs) -> Result<u8> {
    let PullArgs { platform, squash, quiet, reach, images } = args;
    let options = reach.options(platform)?;
    let names = images.iter().map(|text| registry::name(text, &options.home)).collect::<Result<Vec<_>>>()?;
    let store = squash.open(&options.home)?;
    let progress = Progress::new(quiet);
    for name in names {
        let image = registry::pull(&store, &name, &options, &progress)?;
        print(image.id.as_str());
    }
    Ok(0)
}

pub fn push(args: PushArgs) -> Result<u8> {
    let PushArgs { quiet, digestfile, reach, image: text, destination } = args;
    let options = reach.options(None)?;
    let store = Store::open(&options.home)?;
    let name = registry::name(&text, &options.home);
    let found = match &name {
        Ok(name) => store.find(&name.to_string())?,
        Err(_) => None,
    };
    let image = match found {
        Some(image) => image,
        None => store.get(&text)?,
    };
    let named = |e: Error| e.hint("name the place: sandbox push IMAGE REGISTRY/REPOSITORY:TAG");
    let to = match &destination {
        Some(text) => registry::name(text, &options.home)?,
        None => {
            name.ok().filter(|name| image.names.contains(name)).ok_or_else(|| named(Error::usage(format!("cannot push '{text}': it is no name"))))?
        }
    };
    let digest = registry::push(&store, &image, &to, &options, &Progress::new(quiet))?;
    if let Some(file) = digestfile {
        std::fs::write(&file, digest.as_str()).doing("write", file.display())?;
    }
    print(digest.as_str());
    Ok(0)
}

pub fn login(args: LoginArgs) -> Result<u8> {
    let LoginArgs { username, password_stdin, reach, registry } = args;
    let options = reach.options(None)?;
    if password_stdin && username.is_none() {
        return Err(Error::usage("cannot log in: --password-stdin leaves no place to ask for the user").hint("--username NAME"));
    }
    if !password_stdin && !std::io::stdin().is_terminal() {
        return Err(Error::usage("cannot ask for a password: stdin is no terminal").hint("--username NAME --password-stdin < FILE"));
    }
    let user = match username {
        Some(user) => user,
        None => ask("Username: ", true)?.to_string(),
    };
    let password = if password_stdin {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(PASSWORD_LIMIT).read_to_string(&mut text).doing("read", "the password from stdin")?;
        Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_string())
    } else {
        ask("Password: ", false)?
    };
    if password.is_empty() {
        return Err(Error::usage("cannot log in: the password is empty"));
    }
    let place = registry::login(&registry, &user, &password, &options)?;
    print(&format!("logged in; the password is in {place}"));
    Ok(0)
}

/// One line from the terminal; what is typed is shown or not, and the terminal is as before afterwards, also if Ctrl-C ends us.
fn ask(prompt: &str, echo: bool) -> Result<Zeroizing<String>> {
    let input = std::io::stdin();
    let _ = write!(std::io::stderr(), "{prompt}");
    let before = rustix::termios::tcgetattr(&input).doing("look at", "the terminal")?;
    let ends = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT].into_iter().fold(Set::EMPTY, Set::with);
    let mask = signal::block(ends).doing("block", "signals")?;
    let ended = signal::signalfd(ends).doing("watch", "signals")?;
    if !echo {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL | LocalModes::ICANON);
        rustix::termios::tcsetattr(&input, OptionalActions::Flush, &silent).doing("silence", "the terminal")?;
    }
    let mut line = Zeroizing::new(String::new());
    let mut wait = [PollFd::new(&input, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
    let waited = rustix::event::poll(&mut wait, None);
    let read = if wait[1].revents().is_empty() { input.lock().take(PASSWORD_LIMIT).read_line(&mut line) } else { Ok(0) };
    rustix::termios::tcsetattr(&input, OptionalActions::Now, &before).doing("restore", "the terminal")?;
    // A signal that waits takes its effect here.
    signal::set_mask(mask).doing("unblock", "signals")?;
    waited.doing("wait for", "the terminal")?;
    read.doing("read", "the terminal")?;
    if line.is_empty() {
        return Err(Error::new(Kind::Io, "cannot log in: the terminal ended"));
    }
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_string()))
}

pub fn logout(args: LogoutArgs) -> Result<u8> {
    let LogoutArgs { all, authfile, registry } = args;
    let mut options = Options::new(&Caller::me()?.home);
    options.auth_file = authfile;
    for host in registry::logout((!all).then_some(registry.as_str()), &options)? {
        print(&format!("logged out of {}", printable(&host)));
    }
    Ok(0)
}

pub fn search(args: SearchArgs) -> Result<u8> {
    let SearchArgs { limit, format, reach, term } = args;
    let found = registry::search(&term, limit, &reach.options(None)?)?;
    if format == Form::Json {
        print(&serde_json::to_string_pretty(&found).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?);
        return Ok(0);
    }
    let one_line = |text: &str| printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    let width = found.iter().map(|f| one_line(&f.name).len()).max().unwrap_or(0).max(4);
    let mut table = format!("{:width$}  {:>6}  {:8}  DESCRIPTION\n", "NAME", "STARS", "OFFICIAL");
    for f in &found {
        let description: String = one_line(&f.description).chars().take(80).collect();
        let row = format!("{:width$}  {:>6}  {:8}  {description}", one_line(&f.name), f.stars, if f.official { "yes" } else { "" });
        table += &format!("{}\n", row.trim_end());
    }
    print(&table);
    Ok(0)
}
