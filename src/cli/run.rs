//! `sandbox run`: the flags, what they mean, and the whole story of a run from here to the exit code.
//!
//! Called by `cli::main`. `RunArgs` is what was typed; `into_patch` what it means; `run` does it.
#![forbid(unsafe_code)]

use super::attach;
use super::life;
use super::limits::{self, LimitArgs};
use crate::cgroup::{Held, Usage};
use crate::container::choose::{Chosen, Pull, Writes};
use crate::container::health::{self, OnFailure};
use crate::container::run::{Call, Guess, note, ready, running};
use crate::container::store::{Own, Sandboxes};
use crate::container::{self, Config, Options, Restart, State, now};
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::host::mounts::is_within;
use crate::host::subid;
use crate::host::{self, Caller};
use crate::ident::{Bytes, Id, Name};
use crate::image::config;
use crate::image::kept;
use crate::image::store::Store;
use crate::launch::die_at;
use crate::launch::plan::{Environment, Io, Plan};
use crate::logs::Limit;
use crate::monitor::{Event, Exit, Keys, Living, Signals, Streams, stay};
use crate::spec::{
    Backend, Control, IdMapping, ImageRoot, Mount, NetworkMode, Patch, Root, SeccompProfile, Share, Spec, Ulimit, User, Userns, policy, process,
    storage,
};
use crate::sys;
use crate::userns::Maps;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Run a command in a sandbox
///
/// Without --rootfs the command sees the host's own tree, copy-on-write: it may write where you may, and every write is
/// discarded at the end. It keeps your user name, ids and working directory. It has no network but loopback, sees no processes
/// but its own, finds /tmp, /var/tmp and /run fresh, gets few of your variables, and cannot read your keys and tokens.
///
/// With an image, or with --rootfs and a directory, that is the root, and you are root inside. An image runs what it says, or CMD.
///
/// Nothing outlives the command: when it ends, or when sandbox is killed, the kernel ends everything inside and forgets the tree.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  sandbox run -- make test\n  sandbox run --rw target -- cargo test --offline\n  sandbox run -it -- bash\n  \
    sandbox run --policy strict --ro . -- ./untrusted\n  sandbox run -it debian:12 bash\n  sandbox run --layer work debian:12 apt-get install -y ./hello.deb\n\n\
    Exit status: the command's; 125 our own error, 126 not executable, 127 not found, 128+n killed by signal n.\n\
    --help shows all options; man sandbox-run explains them.")]
#[command(
    after_long_help = "Examples:\n  sandbox run -- make test\n  sandbox run --rw target -- cargo test --offline\n  sandbox run -it -- bash\n  \
    sandbox run --policy strict --ro . -- ./untrusted\n  sandbox run -it debian:12 bash\n  sandbox run --layer work debian:12 apt-get install -y ./hello.deb\n\n\
    Exit status: the command's; 125 our own error, 126 not executable, 127 not found, 128+n killed by signal n.\n\
    man sandbox-run has diagnostics, files and variables; man sandbox-policy what is hidden, and why."
)]
#[command(
    max_term_width = 100,
    override_usage = "sandbox run [OPTIONS] -- CMD [ARG...]\n       sandbox run [OPTIONS] IMAGE [CMD [ARG...]]\n       sandbox run [OPTIONS] --rootfs DIR CMD [ARG...]"
)]
pub struct RunArgs {
    /// Keep stdin open and pass it on
    ///
    /// Without it the command reads /dev/null. A terminal is passed on as a pipe, unless -t gives the command one of its own.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal of its own
    ///
    /// Bytes are relayed, the size follows yours, and yours is as before when the command ends. Without -t the command has no
    /// terminal, and yours is out of its reach.
    #[arg(short, long)]
    tty: bool,

    /// Run it in the background, and print its ID
    ///
    /// It goes on when the terminal is closed. sandbox ps lists it, logs shows what it said, exec joins it, stop ends it, and start runs it
    /// again with what it wrote, until rm removes it.
    #[arg(short, long)]
    pub detach: bool,
    /// Remove it when it ends
    ///
    /// Without -d that is always so, but for what --keep and --layer keep.
    #[arg(long, conflicts_with = "keep")]
    rm: bool,

    /// Use a directory as the root: :O, the default, is copy-on-write; :rw writes through
    ///
    /// The directory needs no preparation and is not trusted: links in it are followed inside it only. You are root inside; your
    /// subordinate ids are the other users. With :rw, missing mount points are made in it and stay.
    #[arg(long, value_name = "DIR[:O|:rw]", help_heading = "Files")]
    rootfs: Option<String>,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "Image", hide_short_help = true)]
    pull: Option<Pull>,
    /// Take the image for this platform: os/arch[/variant]
    ///
    /// Without it the one for this machine.
    #[arg(long, value_name = "PLATFORM", help_heading = "Image", hide_short_help = true)]
    platform: Option<String>,
    /// Give files of ids that you do not have to root, where the image is unpacked now
    ///
    /// Without it such an image is refused. It concerns layers that are not unpacked yet: of an image that is pulled, or is in a shared
    /// store, or whose directories were lost.
    #[arg(long, help_heading = "Image", hide_short_help = true)]
    squash_ids: bool,
    /// Run this program instead of the image's entry point
    ///
    /// The image's own command is left out then, too. A JSON array is a program and its first arguments. An empty word means that CMD
    /// is the whole command.
    #[arg(long, value_name = "CMD", help_heading = "Image")]
    entrypoint: Option<String>,
    /// Keep what was written when the command ends
    ///
    /// Under the name that --name gives, or one that is made up and told. sandbox diff, commit and export read it, --layer goes on
    /// with it, and sandbox rm removes it. The image's volumes are not kept.
    ///
    /// On the host's tree it is what was written below the directory of --cow, or else below the working directory. sandbox diff shows
    /// that, and sandbox apply puts it into the directory.
    #[arg(long, conflicts_with = "layer", help_heading = "Files")]
    keep: bool,
    /// Write to a layer of this name that stays, and is used again by the next run
    ///
    /// It is made if it is not there, and belongs to the image that it was made on, or the directory, as for --keep. One sandbox at a time
    /// writes to it.
    #[arg(long, value_name = "NAME", help_heading = "Files")]
    layer: Option<Name>,

    /// Let writes below PATH through to the host
    ///
    /// PATH is the same inside and outside. What the policy hides below it stays hidden.
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    rw: Vec<PathBuf>,
    /// Show PATH read-only
    ///
    /// It can also show a path that the policy hides: naming it is asking for it.
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    ro: Vec<PathBuf>,
    /// Show nothing at PATH, now or later
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    hide: Vec<PathBuf>,
    /// Show PATH with a layer of its own on top; writes are discarded, unless --keep or --layer is said
    ///
    /// For a directory that the host's tree shows read-only, or to show with a layer a directory that the policy hides. Nothing may
    /// be mounted below it.
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    cow: Vec<PathBuf>,
    /// Show a host path at another place; options ro, rw, O (copy-on-write), noexec
    ///
    /// HOST begins with /, ./ or ~; DEST is absolute. Options are joined by commas. Every mount is nosuid and nodev, and nothing
    /// that is mounted later crosses it in either direction.
    #[arg(short, long, value_name = "HOST:DEST[:OPTIONS]", help_heading = "Files")]
    volume: Vec<String>,
    /// The same in keys: type=bind,source=PATH,target=PATH,...
    ///
    /// The keys: type=bind or type=tmpfs; source (src), target (dst, destination), readonly (ro), rw, noexec, cow (O); for a tmpfs
    /// tmpfs-size and tmpfs-mode.
    #[arg(long, value_name = "KEY=VALUE,..", help_heading = "Files", hide_short_help = true)]
    mount: Vec<String>,
    /// Mount an empty tmpfs; options size=, mode=, ro, noexec
    #[arg(long, value_name = "DEST[:OPTIONS]", help_heading = "Files")]
    tmpfs: Vec<String>,
    /// Make the whole root read-only
    ///
    /// /tmp, /dev/shm and what --rw, -v or --tmpfs say stay writable.
    #[arg(long, help_heading = "Files")]
    read_only: bool,
    /// Size of /dev/shm, in bytes or with a unit (k, m, g)
    #[arg(long, value_name = "SIZE", help_heading = "Files", hide_short_help = true)]
    shm_size: Option<Bytes>,
    /// How much the writable layer may hold, in bytes or with a unit (k, m, g)
    ///
    /// Beyond it writing fails as on a full disk, and df inside shows it. A layer that is thrown away is in memory, as /tmp is, and this is for
    /// all of that together; of one that is kept it counts what was kept before.
    #[arg(long, value_name = "SIZE", help_heading = "Files")]
    disk: Option<Bytes>,
    /// How many files and directories the writable layer may have
    #[arg(long, value_name = "N", help_heading = "Files", hide_short_help = true)]
    inodes: Option<u64>,
    /// Whose overlay lies over the layers: auto, kernel or fuse
    ///
    /// kernel is the kernel's own. fuse is ours, which is slower, needs /dev/fuse only, and does what the kernel's cannot: directories with
    /// mounts below them, file systems that it refuses, limits on a layer that is kept, and owners of files where you have one id only. auto
    /// takes the kernel's where it can.
    #[arg(long, value_name = "BACKEND", value_enum, hide_possible_values = true, help_heading = "Files", hide_short_help = true)]
    overlay_backend: Option<Backend>,
    /// Show a host device, with the access that you have to it
    ///
    /// DEST is below /dev. A directory shows all that is in it.
    #[arg(long, value_name = "HOST[:DEST]", help_heading = "Files", hide_short_help = true)]
    device: Vec<String>,

    /// Set a variable; NAME alone copies yours
    ///
    /// Otherwise only PATH and the variables of the policy's env-pass list are yours, and with --rootfs none.
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Process")]
    env: Vec<String>,
    /// Read variables from a file, one NAME[=VALUE] a line
    ///
    /// Empty lines and lines that begin with # are skipped.
    #[arg(long, value_name = "FILE", help_heading = "Process", hide_short_help = true)]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    workdir: Option<PathBuf>,
    /// Run as this user inside: a name from the root's own files, or a number
    ///
    /// Ids without a mapping cannot be used; see --userns.
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    user: Option<User>,
    /// Host name inside
    ///
    /// Without it the name of --name, or "sandbox".
    #[arg(long, value_name = "NAME", help_heading = "Process", hide_short_help = true)]
    hostname: Option<String>,
    /// A name for the sandbox; no two run under the same
    ///
    /// sandbox commit, diff and export know it by that while it runs, if it runs an image.
    #[arg(long, value_name = "NAME", help_heading = "Process", hide_short_help = true)]
    name: Option<Name>,
    /// Remove the sandbox that has the name, if there is one
    #[arg(long, requires = "name", help_heading = "Process", hide_short_help = true)]
    replace: bool,
    /// Put a word on it, which ps finds it by; may be said several times
    #[arg(short, long, value_name = "KEY[=VALUE]", help_heading = "Process", hide_short_help = true)]
    label: Vec<String>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Process", hide_short_help = true)]
    label_file: Vec<PathBuf>,
    /// Write the ID to this new file
    #[arg(long, value_name = "FILE", help_heading = "Process", hide_short_help = true)]
    cidfile: Option<PathBuf>,
    /// Write the process ID of its PID 1, as the host knows it, to this file
    #[arg(long, value_name = "FILE", help_heading = "Process", hide_short_help = true)]
    pidfile: Option<PathBuf>,
    /// Limit a resource as setrlimit(2) does
    ///
    /// NAME is as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending or stack.
    /// A limit above your own hard limit is lowered to it.
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Process", hide_short_help = true)]
    ulimit: Vec<String>,
    /// Permission bits that new files lack, in octal
    #[arg(long, value_name = "OCTAL", help_heading = "Process", hide_short_help = true)]
    umask: Option<String>,
    /// How much sooner than others to be killed when memory runs out
    ///
    /// From -1000 to 1000. It only ever raises the value that you have.
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Process", hide_short_help = true)]
    oom_score_adj: Option<i32>,
    /// Pass descriptors 3 to 2+N to the command
    ///
    /// They must be open, and no directories: one would be a way out.
    #[arg(long, value_name = "N", help_heading = "Process", hide_short_help = true)]
    preserve_fds: Option<u32>,
    /// Always refused: nothing in a sandbox has the host's rights
    #[arg(long, hide = true)]
    privileged: bool,
    /// Always refused: a sandbox has no network of its own
    #[arg(short, long, hide = true, value_name = "PORTS")]
    publish: Vec<String>,
    /// The same
    #[arg(short = 'P', long, hide = true)]
    publish_all: bool,
    /// Have our init as PID 1 also where the policy makes the command PID 1
    #[arg(long, help_heading = "Process", hide_short_help = true)]
    init: bool,
    /// The signal that asks the command to end
    ///
    /// A name as in signal(7), or a number. --timeout sends it.
    #[arg(long, value_name = "SIGNAL", help_heading = "Process", hide_short_help = true)]
    stop_signal: Option<String>,
    /// Seconds from the stop signal to SIGKILL
    ///
    /// For sandbox stop and restart; 10 without it.
    #[arg(long, value_name = "SECONDS", help_heading = "Process", hide_short_help = true)]
    stop_timeout: Option<u64>,
    /// Run it again when it ends: no, on-failure[:N], always or unless-stopped
    ///
    /// Of a detached sandbox. After 100 ms at first, twice that the next time, and at most a minute; from the start again once it ran for
    /// ten seconds. What sandbox stop or kill ended stays down. Nothing starts them with the machine but sandbox start.
    #[arg(long, value_name = "POLICY", conflicts_with = "rm", help_heading = "Process", hide_short_help = true)]
    restart: Option<Restart>,
    /// Ask by this command how it is: 0 is healthy
    ///
    /// A line for /bin/sh, or a JSON array of words; none: not at all. Without it what the image says. It runs as sandbox exec would
    /// run it, and sandbox ps and inspect tell what came of it.
    #[arg(long, value_name = "COMMAND", help_heading = "Health", hide_short_help = true)]
    health_cmd: Option<String>,
    /// How often, such as 1m30s; 30s without it
    #[arg(long, value_name = "TIME", help_heading = "Health", hide_short_help = true)]
    health_interval: Option<String>,
    /// How long a check may take; 30s without it
    #[arg(long, value_name = "TIME", help_heading = "Health", hide_short_help = true)]
    health_timeout: Option<String>,
    /// So many failures one after the other make it unhealthy; 3 without it
    #[arg(long, value_name = "N", help_heading = "Health", hide_short_help = true)]
    health_retries: Option<u32>,
    /// Failures do not count until so long after the start
    #[arg(long, value_name = "TIME", help_heading = "Health", hide_short_help = true)]
    health_start_period: Option<String>,
    /// How often until then; 5s without it
    #[arg(long, value_name = "TIME", help_heading = "Health", hide_short_help = true)]
    health_start_interval: Option<String>,
    /// What becomes of one that is unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION", help_heading = "Health", hide_short_help = true)]
    health_on_failure: Option<OnFailure>,
    /// Do not do the checks that the image says
    #[arg(long, help_heading = "Health", hide_short_help = true)]
    no_healthcheck: bool,
    /// Keep so much of what a detached sandbox says: files of SIZE, FILES of them, or none
    ///
    /// 10m:2 without it. The oldest file goes when a new one begins. See sandbox logs.
    #[arg(long, value_name = "SIZE[:FILES]", help_heading = "Output", hide_short_help = true)]
    log_max: Option<Limit>,
    /// What to type at its terminal to leave a sandbox, which goes on
    ///
    /// Keys with commas between: a character, or ctrl- and one of a-z @ [ \\ ] ^ _. Without it ctrl-p,ctrl-q; empty: no keys, and the
    /// sandbox ends with this command whatever is typed.
    #[arg(long, value_name = "KEYS", help_heading = "Process", hide_short_help = true)]
    detach_keys: Option<Keys>,
    /// Seconds after which the command is asked to end; 10 s later everything is killed
    #[arg(long, value_name = "SECONDS", help_heading = "Process")]
    timeout: Option<u64>,

    /// none: loopback only. host: the host's network
    ///
    /// With host the command reaches what you reach: the local network, services on 127.0.0.1, and whatever asks no password there.
    /// --net is the same.
    #[arg(long, alias = "net", value_name = "none|host", value_parser = network, help_heading = "Network")]
    network: Option<NetworkMode>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network", hide_short_help = true)]
    add_host: Vec<String>,
    /// Use this name server
    #[arg(long, value_name = "ADDRESS", help_heading = "Network", hide_short_help = true)]
    dns: Vec<std::net::IpAddr>,

    /// Which ids inside are which outside: auto, keep-id, root, nomap or single
    ///
    /// auto: keep-id on the host's tree, root on a directory. keep-id[:uid=N,gid=N]: you keep your ids, or have N, and your
    /// subordinate ids lie around. root: you are 0. nomap: you have no id inside, 0 is your first subordinate id. single: one id,
    /// no subordinate ids and no set-uid helpers.
    #[arg(long, value_name = "MODE", value_parser = userns, help_heading = "Isolation")]
    userns: Option<Userns>,
    /// Map user ids explicitly
    #[arg(long, value_name = "INSIDE:HOST:COUNT", conflicts_with = "userns", help_heading = "Isolation", hide_short_help = true)]
    uidmap: Vec<IdMapping>,
    /// Map group ids explicitly; without it, as --uidmap
    #[arg(long, value_name = "INSIDE:HOST:COUNT", requires = "uidmap", help_heading = "Isolation", hide_short_help = true)]
    gidmap: Vec<IdMapping>,
    /// host: share the host's System V and POSIX IPC, and its /dev/shm
    #[arg(long, value_name = "private|host", value_parser = share, help_heading = "Isolation", hide_short_help = true)]
    ipc: Option<Share>,
    /// host: see the host's processes
    #[arg(long, value_name = "private|host", value_parser = share, help_heading = "Isolation", hide_short_help = true)]
    pid: Option<Share>,
    /// host: have the host's name
    #[arg(long, value_name = "private|host", value_parser = share, help_heading = "Isolation", hide_short_help = true)]
    uts: Option<Share>,
    /// host: see the host's cgroup paths
    #[arg(long, value_name = "private|host", value_parser = share, help_heading = "Isolation", hide_short_help = true)]
    cgroupns: Option<Share>,
    /// Keep a capability that the policy drops (ALL: every one)
    ///
    /// It holds inside only, over what belongs to the sandbox, and only for root inside.
    #[arg(long, value_name = "CAP", help_heading = "Isolation", hide_short_help = true)]
    cap_add: Vec<String>,
    /// Drop a capability (ALL: every one)
    #[arg(long, value_name = "CAP", help_heading = "Isolation", hide_short_help = true)]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges[=false], nested
    ///
    /// seccomp=FILE: a filter in Docker's JSON format instead of the policy's groups. seccomp=unconfined: none.
    /// no-new-privileges=false: leave that flag unset; set-uid programs still do nothing, since every mount is nosuid.
    /// nested: as --policy nested, so that the command may make sandboxes of its own.
    #[arg(long, value_name = "OPTION", help_heading = "Isolation")]
    security_opt: Vec<String>,

    /// The rules to start from: a name (sandbox policy list), or a file with a slash
    ///
    /// A policy that you name is a limit: other flags may make the sandbox tighter than it says, not looser. Without --policy the
    /// rules are those of default, and flags may go beyond them.
    #[arg(long, value_name = "NAME|FILE", help_heading = "Policy")]
    policy: Option<String>,
    /// Fail where one of these cannot be had in full
    ///
    /// Of subids, seccomp, landlock, ulimits, memory, cpu, cpuset, pids, io; joined by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Policy")]
    require: Vec<Control>,
    /// Go on where one of these cannot be had
    ///
    /// The same names as for --require. sandbox-policy(5) says what each means where it is missing.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Policy", hide_short_help = true)]
    best_effort: Vec<Control>,

    #[command(flatten)]
    limits: LimitArgs,
    /// Where its cgroup is: a slice of your systemd (NAME.slice), or the path of a cgroup that was delegated to you
    #[arg(long, value_name = "PARENT", help_heading = "Limits", hide_short_help = true)]
    cgroup_parent: Option<String>,

    /// Print what would be done, step by step, and do nothing
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// Say at the end how much memory, time and processes it took
    #[arg(long, help_heading = "Output")]
    summary: bool,
    /// Errors, and --dry-run, as JSON
    #[arg(long, help_heading = "Output", hide_short_help = true)]
    pub json: bool,
    /// Write one JSON object a line to this descriptor for what happens
    ///
    /// Each has an "event": degraded, started, signal, stopped, continued, timeout, hangup, killed, exited.
    #[arg(long, value_name = "FD", help_heading = "Output", hide_short_help = true)]
    status_fd: Option<u32>,

    /// The image, unless -- or --rootfs was said, and the command with its arguments
    ///
    /// An image is a name such as debian:12, an ID or the beginning of one, a digest, or oci:DIR, oci-archive:FILE or docker-archive:FILE.
    #[arg(trailing_var_arg = true, value_name = "IMAGE|CMD", hide_short_help = true)]
    command: Vec<OsString>,
}

fn network(s: &str) -> std::result::Result<NetworkMode, String> {
    match s {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        _ => Err("none or host".to_string()),
    }
}

fn share(s: &str) -> std::result::Result<Share, String> {
    match s {
        "private" => Ok(Share::Private),
        "host" => Ok(Share::Host),
        _ => Err("private or host".to_string()),
    }
}

fn userns(s: &str) -> std::result::Result<Userns, String> {
    let id = |v: &str| process::number(v).ok().flatten().ok_or_else(|| format!("'{v}' is no id"));
    match s.split_once(':').unwrap_or((s, "")) {
        ("auto", "") => Ok(Userns::Auto),
        ("root", "") => Ok(Userns::Root),
        ("nomap", "") => Ok(Userns::Nomap),
        ("single", "") => Ok(Userns::Single),
        ("keep-id", options) => {
            let (mut uid, mut gid) = (None, None);
            for option in options.split(',').filter(|o| !o.is_empty()) {
                match option.split_once('=') {
                    Some(("uid", v)) => uid = Some(id(v)?),
                    Some(("gid", v)) => gid = Some(id(v)?),
                    _ => return Err(format!("unknown option '{option}'")),
                }
            }
            Ok(Userns::KeepId { uid, gid })
        }
        ("host", "") => Err("an ordinary user cannot work in the host's user namespace; 'root' and 'keep-id' come closest".to_string()),
        _ => Err("auto, keep-id[:uid=N,gid=N], root, nomap or single".to_string()),
    }
}

/// A user namespace with the ids that a run of these words most likely has: unless they or a policy say otherwise. Nothing is understood
/// yet: to parse the words takes as long as to write the maps, and a wrong guess costs its time only. None: who knows; whatever was in the
/// way is told later.
pub fn guess(words: &[OsString]) -> Option<Guess> {
    // Those that say other ids, that another process plays, or that mean our descriptors, of which there are none of ours yet.
    const OTHERWISE: [&str; 9] = ["userns", "uidmap", "gidmap", "detach", "tty", "dry-run", "help", "preserve-fds", "status-fd"];
    let dashes = words.iter().position(|word| word == "--");
    let flags = words.iter().take(dashes.unwrap_or(words.len())).filter_map(|word| word.to_str());
    let otherwise = |word: &str| match word.strip_prefix("--") {
        Some(long) => OTHERWISE.iter().any(|name| long.starts_with(name)),
        None => word.strip_prefix('-').is_some_and(|short| short.chars().all(|c| "dith".contains(c)) && short != "i"),
    };
    if words.is_empty() || flags.clone().any(otherwise) {
        return None;
    }
    let host = dashes.is_some() && !flags.clone().any(|word| word.starts_with("--rootfs"));
    let caller = Caller::me().ok()?;
    let subids = subid::subids(&caller).ok().filter(|s| !s.uids.is_empty() && !s.gids.is_empty())?;
    Guess::new(if host { Userns::KeepId { uid: None, gid: None } } else { Userns::Root }, caller, subids)
}

/// What was typed, settled: what is to run, on what, and for whom.
pub struct Said {
    pub id: Id,
    /// Never dropped: freeing a thousand strings one by one only delays the end of a process.
    pub spec: ManuallyDrop<Spec>,
    pub chosen: Option<Chosen>,
    pub writes: Writes,
    pub caller: Caller,
    pub cwd: PathBuf,
    pub env: Environment,
    pub options: Options,
    pub labels: BTreeMap<String, String>,
    /// Who has its name goes.
    pub replace: bool,
}

/// Say it.
pub fn say(args: RunArgs) -> Result<Said> {
    say_as(Caller::me()?, None, args)
}

fn say_as(caller: Caller, maps: Option<&Maps>, mut args: RunArgs) -> Result<Said> {
    let named = args.policy.clone();
    let env: Environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))).collect();
    let cwd = match std::env::current_dir() {
        Err(_) if args.workdir.as_ref().is_some_and(|dir| dir.is_absolute()) => PathBuf::from("/"),
        other => other.doing("find", "the working directory").map_err(|e| e.hint("cd to a directory that is there, or name one with -w"))?,
    };
    let dashes = after_dashes(&std::env::args_os().collect::<Vec<_>>(), args.command.len());
    let (id, own, replace) = (Id::new(&chance()?), args.labels()?, args.replace);
    let chosen = if args.rootfs.is_none() && !dashes { Some(args.choose(&caller, maps)?) } else { None };
    let mut labels = chosen.as_ref().map(Chosen::labels).unwrap_or_default();
    labels.extend(own);
    let options = args.options(chosen.as_ref())?;
    // On the host's tree, what is written below one directory can stay.
    let at = if chosen.is_none() && args.rootfs.is_none() { args.kept(&cwd, &dirs::store(&caller.home))? } else { None };
    let writes = if chosen.is_some() || at.is_some() { args.writes(&id)? } else { Writes::Discarded };
    let (mut under, named_limit) = policy::choose(named.as_deref(), &caller.home)?;
    let image_root = match &chosen {
        Some(chosen) => {
            let says = config::patch(&chosen.image, args.entrypoint.as_deref(), std::mem::take(&mut args.command))?;
            under = under.then(says).then(policy::over_an_image(named_limit.as_ref()));
            Some(chosen.root(&writes)?)
        }
        None => None,
    };
    let flags = args.into_patch(&env, &cwd, &caller.home, image_root)?;
    let mut spec = ManuallyDrop::new(under.then(flags).settle()?);
    if let (Some(at), Writes::Kept(name) | Writes::Layer(name)) = (at, &writes) {
        spec.files.kept = Some(storage::Kept { at, layer: kept::place(&dirs::store(&caller.home), name) });
    }
    let total = host::memory_total();
    spec.limits.resolve(total);
    spec.budget.resolve(total);
    spec.limits.check()?;
    let word = named.unwrap_or_default();
    let mut ceilings = [
        (named_limit, format!("policy {word}"), "name another policy to loosen; flags only tighten a named one"),
        (policy::ceiling()?, dirs::ceiling().display().to_string(), "the site's ceiling holds for everybody"),
    ];
    for limit in ceilings.iter_mut().filter_map(|(l, ..)| l.as_mut()) {
        limit.limits.resolve(total);
        spec.limits.within(&limit.limits);
    }
    for (limit, source, hint) in ceilings.iter().filter_map(|(l, s, h)| l.as_ref().map(|l| (l, s, h))) {
        if let Some(first) = spec.exceeds(limit, &caller.home, caller.uid).first() {
            return Err(Error::new(Kind::Denied, format!("cannot go beyond {source}: {first}")).hint(*hint));
        }
    }
    crate::confine::seccomp::pin(&mut spec.restrict.seccomp.profile)?;
    Ok(Said { id, spec, chosen, writes, caller, cwd, env, options, labels, replace })
}

fn chance() -> Result<[u8; 32]> {
    let mut chance = [0u8; 32];
    rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::empty()).doing("get", "random bytes")?;
    Ok(chance)
}

impl Said {
    /// For the record.
    pub fn config(&self) -> Result<Config> {
        let name = match &self.spec.name {
            Some(name) => name.clone(),
            None => self.id.short().parse()?,
        };
        Ok(Config {
            id: self.id.clone(),
            name,
            unnamed: self.spec.name.is_none(),
            created: now() / 1_000_000_000,
            image: self.chosen.as_ref().map(Chosen::below),
            writes: self.writes.clone(),
            asked: self.spec.limits.asked.clone(),
            spec: (*self.spec).clone(),
            cwd: self.cwd.clone(),
            labels: self.labels.clone(),
            options: self.options.clone(),
        })
    }
}

/// The whole story of a run.
pub fn run(args: RunArgs, guessed: Option<Guess>) -> Result<u8> {
    die_at(0);
    let (dry_run, json, status_fd, tty, interactive) = (args.dry_run, args.json, args.status_fd, args.tty, args.interactive);
    let (summary, start) = (args.summary, Instant::now());
    check_descriptors(args.preserve_fds.unwrap_or(0), status_fd)?;
    // What is ours alone cannot be handed to a monitor.
    let stays = dry_run || status_fd.is_some() || args.preserve_fds.is_some();
    let marks = Marks::of(&args)?;

    // Say it.
    let caller = guessed.as_ref().map_or_else(Caller::me, |guess| Ok(guess.caller.clone()))?;
    let said = say_as(caller, guessed.as_ref().and_then(Guess::store_maps), args)?;
    if said.options.detached && !dry_run {
        return life::detach(said, &marks);
    }
    let mut config = ManuallyDrop::new(said.config()?); // as its Spec
    let sandboxes = Sandboxes::open(&said.caller.home);
    life::replace(&sandboxes, &config, said.replace && !dry_run)?;
    let person = tty && interactive && rustix::termios::isatty(std::io::stdin());
    if person && !stays && !said.options.detach_keys.is_empty() {
        let mut config = attach::at_terminal(&config);
        match sandboxes.make(&mut config, container::Status::Starting) {
            Ok(own) => return at_terminal(own, &said, &config, &marks, json, summary.then_some(start)),
            Err(e) if !config.unnamed => return Err(e),
            Err(_) => {} // where nothing can be written, it is not listed, and cannot be left
        }
    }
    let Said { spec, mut chosen, writes, caller, cwd, env, .. } = said;

    // Freeze it.
    let signals = Signals::take()?;
    if tty && interactive && !rustix::termios::isatty(std::io::stdin()) && !dry_run {
        return Err(Error::usage("cannot use -i with -t: stdin is no terminal").hint("leave out -t to pass a pipe or a file"));
    }
    let call = Call { caller, cwd, env, mask: signals.old_mask(), window: window(), guessed };
    let io = || if tty { Ok(None) } else { streams(interactive).map(Some) };
    let ready = ready(&spec, call, chosen.as_ref(), io, dry_run)?;
    if dry_run {
        return dry(&spec, &ready.plan, json).map(|()| 0);
    }
    // With --json, stderr is for one error as JSON; what is weaker is told to --status-fd.
    let note = |sentence: &str| {
        if !json {
            note(sentence)
        }
    };
    ready.notes(&spec).iter().for_each(|sentence| note(sentence));
    // A name must be its own before anything runs under it. Nobody waits for the record of one that has none and is nowhere named, and one that is
    // over at once has none.
    let at_once = !config.unnamed || config.stays() || marks.cidfile.is_some() || status_fd.is_some();
    let mut own = if at_once { Some(sandboxes.make(&mut config, container::Status::Starting)?) } else { None };
    let mut status = Status::new(status_fd);
    status.degraded(&ready.plan);
    let absent = absent_guarded(&spec);

    // Play it.
    let (live, streams, _over) =
        ready.play(&spec, &mut chosen, &writes).inspect_err(|_| own.take().into_iter().for_each(|own| drop(own.remove())))?;
    let lives = running(&live);
    let started = lives.as_ref().ok().and_then(|lives| lives.started).unwrap_or_else(now);
    // Of one that nobody has named it is told later, if at all.
    let (told, mut lives) = match &own {
        Some(own) => (lives.and_then(|lives| own.tell(&own.stays(lives)?)), None),
        None => (Ok(()), lives.ok()),
    };
    told.unwrap_or_else(|e| note(&format!("what is written cannot be asked for: {}", e.message())));
    marks.write(&config.id, live.pid)?;
    status.started(live.pid, live.cgroup.as_ref());
    let held = live.cgroup;
    let timeout = spec.process.timeout.map(Duration::from_secs);
    let lingers = held.is_some();
    let (stop_signal, server, supervisor) = (spec.process.stop_signal, live.server, live.supervisor);
    let living = Living { pidfd: live.pidfd, wire: live.wire, streams, stop_signal, timeout, lingers, joined: None, server, supervisor };
    let (mut used, mut gone) = (None, None);
    let exit = stay(living, signals, &mut |event| match event {
        Event::Settled if !at_once => {
            // Where nothing can be written, it is not listed, and runs.
            own = lives.take().and_then(|lives| sandboxes.make_as(&mut config, |own| own.stays(lives)).ok());
        }
        Event::Ended => {
            used = held.as_ref().map(Held::usage);
            held.iter().for_each(Held::let_go);
            // While the kernel takes it apart. A name is its own until that is done.
            if !at_once {
                gone = own.take().and_then(|own| own.vanish().ok());
            }
        }
        event => {
            if event == Event::Killed {
                held.iter().for_each(Held::let_go);
            }
            status.event(event);
        }
    });
    let exit = match exit {
        Ok(exit) => exit,
        Err(e) => {
            gone.iter().for_each(|gone| gone.say(None));
            own.map_or(Ok(()), |own| failed(own, &config, &e))?;
            return Err(e);
        }
    };
    // If PID 1 could not tell us in time, perhaps the cgroup still can.
    let used = used.or_else(|| held.as_ref().map(Held::usage));
    drop(held);
    let ended = ended(&exit, used.as_ref());
    match (own, gone) {
        (Some(own), _) => over(own, &config, ended)?,
        (None, Some(gone)) => gone.say(Some(&ended)),
        (None, None) => sandboxes.was_brief(&config, started, &ended),
    }
    afterwards(&spec, &writes, &absent, json, &exit, used.as_ref(), summary.then_some(start));
    status.exited(&exit, used.as_ref());
    Ok(exit.code())
}

/// What is to be said when it has ended.
fn afterwards(spec: &Spec, writes: &Writes, absent: &Absent, json: bool, exit: &Exit, used: Option<&Usage>, summary: Option<Instant>) {
    for (path, why) in absent.iter().filter(|(path, _)| std::fs::symlink_metadata(path).is_ok()) {
        let _ = writeln!(std::io::stderr(), "sandbox: warning: {} was made inside ({why}): look at it before you go on", path.display());
    }
    if let Writes::Kept(name) = writes
        && spec.name.is_none()
    {
        let _ = writeln!(std::io::stderr(), "sandbox: note: what was written is kept as {name}");
    }
    used.iter().flat_map(|usage| limits::reached(exit, usage, &spec.limits)).filter(|_| !json).for_each(|sentence| note(&sentence));
    if let Some(start) = summary {
        let _ = writeln!(std::io::stderr(), "sandbox: summary: {}", limits::summary(start, used));
    }
}

/// With -it at a terminal: through a monitor, so that the person can leave.
fn at_terminal(own: Own, said: &Said, config: &Config, marks: &Marks, json: bool, summary: Option<Instant>) -> Result<u8> {
    let absent = absent_guarded(&said.spec);
    match attach::run_it(own, said, config, marks, json)? {
        Some((exit, used)) => {
            afterwards(&said.spec, &said.writes, &absent, json, &exit, used.as_deref(), summary);
            Ok(exit.code())
        }
        None => {
            let _ = writeln!(std::io::stderr()); // what was last on the screen is no whole line
            note(&format!("{} goes on: sandbox attach {}", config.name, config.name));
            Ok(0)
        }
    }
}

fn ended(exit: &Exit, used: Option<&Usage>) -> State {
    let reason = if exit.timed_out { Some("timeout") } else { used.and_then(|u| limits::reason(exit, u)) };
    State {
        status: container::Status::Exited,
        finished: Some(now()),
        exit: Some(exit.code()),
        signal: exit.status.signal(),
        reason: reason.map(String::from),
        ..State::default()
    }
}

/// It ended. What stays can be started again, which is then not in the foreground.
fn over(own: Own, config: &Config, ended: State) -> Result<()> {
    if config.stays() {
        let before = own.state()?;
        return own.tell(&State { boot: before.boot, started: before.started, ..ended });
    }
    own.vanish().map(|gone| gone.say(Some(&ended)))
}

/// It was ended, since something of ours failed.
fn failed(own: Own, config: &Config, e: &Error) -> Result<()> {
    if !config.stays() {
        return own.remove();
    }
    let ended = State { status: container::Status::Exited, finished: Some(now()), exit: Some(e.exit_code()), ..State::default() };
    own.tell(&own.stays(State { error: Some(e.message().into()), ..ended })?)
}

/// Files that say which sandbox it is.
pub struct Marks {
    cidfile: Option<std::fs::File>,
    pidfile: Option<PathBuf>,
}

impl Marks {
    /// The one must be new, since two sandboxes that think they own it are a mistake. man: docker-run(1)
    pub fn of(args: &RunArgs) -> Result<Marks> {
        let new = |path: &PathBuf| {
            let made = std::fs::File::create_new(path).doing("make", path.display());
            made.map_err(|e| if path.exists() { e.hint("another sandbox may have written it; if it is over: rm FILE") } else { e })
        };
        let cidfile = args.cidfile.as_ref().filter(|_| !args.dry_run).map(new).transpose()?;
        Ok(Marks { cidfile, pidfile: args.pidfile.clone() })
    }

    pub fn write(&self, id: &Id, pid: i32) -> Result<()> {
        if let Some(mut file) = self.cidfile.as_ref() {
            file.write_all(id.as_str().as_bytes()).doing("write", "the --cidfile")?;
        }
        self.pidfile.as_ref().map_or(Ok(()), |path| std::fs::write(path, format!("{pid}\n")).doing("write", path.display()))
    }
}

impl RunArgs {
    /// What the parser makes of `IMAGE [CMD...]` and of `-- CMD...`. None: there may be flags, or a mistake.
    pub fn without_flags(words: &[OsString]) -> Option<RunArgs> {
        let (dashes, command) = match words {
            [dashes, command @ ..] if dashes == "--" => (true, command),
            all => (false, all),
        };
        let plain = command.first().is_some_and(|first| dashes || !first.as_encoded_bytes().starts_with(b"-"));
        (plain && !command.iter().any(|word| word == "--")).then(|| RunArgs { command: command.to_vec(), ..RunArgs::default() })
    }

    /// The directory of the host whose layer stays, which is the working directory unless another one is said.
    fn kept(&mut self, cwd: &Path, store: &Path) -> Result<Option<PathBuf>> {
        if !self.keep && self.layer.is_none() {
            return Ok(None);
        }
        if self.cow.is_empty() {
            self.cow.push(cwd.to_path_buf());
        }
        let [one] = self.cow.as_slice() else {
            return Err(Error::usage("cannot keep what is written to several directories").hint("one --cow, or one run for each"));
        };
        let (at, store) = (existing(one, cwd)?, std::fs::canonicalize(store).unwrap_or_else(|_| store.to_path_buf()));
        if is_within(&store, &at) || is_within(&at, &store) {
            return Err(Error::usage(format!("cannot keep what is written to {}: it would be kept in {}", at.display(), store.display()))
                .hint("name a directory in it: --cow DIR"));
        }
        Ok(Some(at))
    }

    /// What becomes of the writable layer.
    fn writes(&self, id: &Id) -> Result<Writes> {
        // A detached one can be run again, with what it wrote, until it is removed.
        let stays = self.keep || (self.detach && !self.rm);
        Ok(match (&self.layer, &self.name) {
            (Some(name), _) => Writes::Layer(name.clone()),
            (None, Some(name)) if self.keep => Writes::Kept(name.clone()),
            (None, _) if stays => Writes::Kept(id.short().parse()?),
            (None, _) => Writes::Discarded,
        })
    }

    /// How it is stayed with.
    fn options(&self, chosen: Option<&Chosen>) -> Result<Options> {
        let usual = Options::default();
        let asked = health::Asked {
            command: self.health_cmd.clone(),
            interval: self.health_interval.clone(),
            timeout: self.health_timeout.clone(),
            start_period: self.health_start_period.clone(),
            start_interval: self.health_start_interval.clone(),
            retries: self.health_retries,
            on_failure: self.health_on_failure,
            none: self.no_healthcheck,
        };
        // In the foreground somebody looks at it.
        let says = chosen.filter(|_| self.detach).map(|c| config::healthcheck_of(&c.store, &c.image)).transpose()?.flatten();
        let health = asked.over(says.as_ref())?;
        for (set, flag) in [(health.is_some(), "--health-cmd"), (self.restart.is_some_and(|r| r != Restart::No), "--restart")] {
            if set && !self.detach {
                return Err(Error::usage(format!("cannot use {flag} in the foreground: nobody stays with it")).hint("add -d"));
            }
        }
        for (set, flag) in [(self.log_max.is_some(), "--log-max"), (self.detach_keys.is_some(), "--detach-keys")] {
            if set && !self.detach && !(self.tty && self.interactive) {
                return Err(Error::usage(format!("cannot use {flag} here: nothing is kept, and nobody can leave")).hint("add -d, or -it"));
            }
        }
        Ok(Options {
            detached: self.detach,
            auto_remove: self.rm,
            stop_timeout: self.stop_timeout.unwrap_or(usual.stop_timeout),
            restart: self.restart.unwrap_or_default(),
            health,
            log: self.log_max.unwrap_or_default(),
            detach_keys: self.detach_keys.clone().unwrap_or_default(),
        })
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        let mut add = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if key.is_empty() {
                return Err(Error::usage(format!("bad label '{word}': KEY or KEY=VALUE")));
            }
            labels.insert(key.to_string(), value.to_string());
            Ok(())
        };
        for file in &self.label_file {
            let text = std::fs::read_to_string(file).doing("read", file.display())?;
            text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).try_for_each(&mut add)?;
        }
        self.label.iter().try_for_each(|word| add(word))?;
        Ok(labels)
    }

    /// Take the image's name out of the words.
    fn choose(&mut self, caller: &Caller, maps: Option<&Maps>) -> Result<Chosen> {
        if self.command.is_empty() {
            return Err(three_forms());
        }
        let word = self.command.remove(0);
        let word = word.to_str().ok_or_else(|| Error::usage("bad image name: it is not UTF-8"))?;
        let store = Store::open(&caller.home)?.squash_ids(self.squash_ids).knowing(maps);
        Chosen::new(store, &caller.home, word, self.pull.unwrap_or_default(), self.platform.as_deref(), !self.dry_run)
    }

    /// What was typed, as a patch. Destructured without `..`, so that a new flag must get a meaning here.
    fn into_patch(self, env: &Environment, cwd: &Path, home: &Path, image: Option<ImageRoot>) -> Result<Patch> {
        let RunArgs {
            interactive,
            tty,
            detach,
            rm: _,
            rootfs,
            pull,
            platform,
            squash_ids,
            entrypoint,
            keep,
            layer,
            rw,
            ro,
            hide,
            cow,
            volume,
            mount,
            tmpfs,
            read_only,
            shm_size,
            disk,
            inodes,
            overlay_backend,
            device,
            env: variables,
            env_file,
            workdir,
            user,
            hostname,
            name,
            replace: _,
            label: _,
            label_file: _,
            cidfile: _,
            pidfile: _,
            ulimit,
            umask,
            oom_score_adj,
            preserve_fds,
            privileged,
            publish,
            publish_all,
            init,
            stop_signal,
            stop_timeout: _,
            restart: _,
            health_cmd: _,
            health_interval: _,
            health_timeout: _,
            health_retries: _,
            health_start_period: _,
            health_start_interval: _,
            health_on_failure: _,
            no_healthcheck: _,
            log_max: _,
            detach_keys: _,
            timeout,
            network,
            add_host,
            dns,
            userns,
            uidmap,
            gidmap,
            ipc,
            pid,
            uts,
            cgroupns,
            cap_add,
            cap_drop,
            security_opt,
            policy: _,
            require,
            best_effort,
            limits,
            cgroup_parent,
            dry_run: _,
            summary: _,
            json: _,
            status_fd,
            command,
        } = self;
        let root = match (rootfs, image) {
            (Some(dir), _) => storage::rootfs(&dir)?,
            (None, Some(image)) => Root::Image(image),
            (None, None) => Root::Host,
        };
        // What a docker user tries first.
        if privileged {
            return Err(Error::new(Kind::Denied, "cannot use --privileged: nothing in a sandbox has the host's rights")
                .hint("name what it needs: --cap-add, -v, --device, --security-opt, or another --policy"));
        }
        if publish_all || !publish.is_empty() {
            return Err(Error::new(Kind::Unsupported, "cannot publish ports: a sandbox has no network of its own")
                .hint("--network host: it listens where the host does"));
        }
        let of_an_image = matches!(root, Root::Image(_));
        let mut patch = Patch { name, root: Some(root), ..Patch::default() };
        if command.is_empty() && !of_an_image {
            return Err(three_forms());
        }
        for (set, flag) in
            [(pull.is_some(), "--pull"), (platform.is_some(), "--platform"), (squash_ids, "--squash-ids"), (entrypoint.is_some(), "--entrypoint")]
        {
            if set && !of_an_image {
                return Err(Error::usage(format!("cannot use {flag} without an image")).hint("sandbox run [OPTIONS] IMAGE [CMD...], without --"));
            }
        }
        if matches!(patch.root, Some(Root::Dir { .. })) && (keep || layer.is_some()) {
            return Err(Error::usage("cannot use --keep or --layer with --rootfs: that directory's layer is thrown away")
                .hint("sandbox import makes an image of it, whose layer can stay"));
        }
        // Docker has no --rw and its kin; with a root directory, -v says where the path goes.
        if patch.root != Some(Root::Host)
            && let Some(path) = rw.iter().chain(&ro).chain(&hide).chain(&cow).next()
        {
            return Err(Error::usage(format!("cannot use --rw, --ro, --hide or --cow for {} with --rootfs or an image", path.display()))
                .hint("-v HOST:DEST[:ro|O]"));
        }
        // What would be ignored is refused.
        for (set, why) in [(detach && preserve_fds.is_some(), "--preserve-fds"), (detach && status_fd.is_some(), "--status-fd")] {
            if set {
                return Err(Error::usage(format!("cannot use {why} with -d: nobody's descriptors are there later")).hint("sandbox events"));
            }
        }
        for (set, why) in [
            (hostname.is_some() && uts == Some(Share::Host), "--hostname with --uts host"),
            (shm_size.is_some() && ipc == Some(Share::Host), "--shm-size with --ipc host"),
        ] {
            if set {
                return Err(Error::usage(format!("cannot use {why}: what is the host's is not changed")));
            }
        }

        let p = &mut patch.process;
        p.argv = command;
        (p.interactive, p.tty) = (Some(interactive), Some(tty));
        p.env = set_variables(&env_file, &variables, env)?;
        p.cwd = workdir.map(|dir| absolute(&dir, cwd));
        p.user = user;
        p.hostname = hostname.map(host_name).transpose()?;
        p.umask = umask;
        p.oom_score_adj = oom_score_adj
            .map(|n| if (-1000..=1000).contains(&n) { Ok(n) } else { Err(Error::usage("bad --oom-score-adj: from -1000 to 1000")) })
            .transpose()?;
        p.preserve_fds = preserve_fds;
        p.init = init.then_some(true);
        p.stop_signal = stop_signal;
        p.timeout = timeout;
        for word in &ulimit {
            let (name, limit) = word.split_once('=').ok_or_else(|| Error::usage(format!("bad --ulimit '{word}': NAME=SOFT[:HARD]")))?;
            p.ulimits.insert(name.to_string(), limit.parse::<Ulimit>()?);
        }

        let f = &mut patch.files;
        for (paths, read_only) in [(ro, true), (rw, false)] {
            for path in paths {
                f.mounts.push(Mount::bind(existing(&path, cwd)?, read_only));
            }
        }
        for path in cow {
            let path = existing(&path, cwd)?;
            f.mounts.push(Mount { source: storage::Source::Cow(path.clone()), ..Mount::bind(path, false) });
        }
        for path in hide {
            let path = absolute(&path, cwd).display().to_string();
            f.hide.push(crate::spec::Reasoned { path, why: "--hide".into() });
        }
        for mut m in volume.iter().map(|w| Mount::volume(w)).chain(mount.iter().map(|w| Mount::keys(w))).collect::<Result<Vec<_>>>()? {
            if let storage::Source::Bind(path) | storage::Source::Cow(path) = &mut m.source {
                let from = path.strip_prefix("~").map_or_else(|_| cwd.join(&*path), |rest| home.join(rest));
                *path = existing(&from, cwd)?;
            }
            f.mounts.push(m);
        }
        for word in &tmpfs {
            f.mounts.push(Mount::tmpfs(word)?);
        }
        f.root_read_only = read_only.then_some(true);
        f.shm_size = shm_size;
        (f.disk, f.inodes, f.overlay_backend) = (disk, inodes, overlay_backend);
        for word in &device {
            f.devices.push(storage::device(word)?);
        }

        patch.network.mode = network;
        for word in &add_host {
            let (name, address) = word.split_once(':').ok_or_else(|| Error::usage(format!("bad --add-host '{word}': NAME:ADDRESS")))?;
            address.parse::<std::net::IpAddr>().map_err(|_| Error::usage(format!("bad --add-host '{word}': '{address}' is no address")))?;
            patch.network.add_host.push((host_name(name.to_string())?, address.to_string()));
        }
        patch.network.dns = dns.iter().map(|a| a.to_string()).collect();

        // Unlike every other choice, `auto` needs no policy to say so.
        let gids = if gidmap.is_empty() { uidmap.clone() } else { gidmap };
        patch.userns = if uidmap.is_empty() { userns } else { Some(Userns::Explicit { uids: uidmap, gids }) };
        let n = &mut patch.namespaces;
        (n.ipc, n.pid, n.uts, n.cgroup) = (ipc, pid, uts, cgroupns);
        patch.capabilities.add = cap_add;
        patch.capabilities.drop = cap_drop;
        for word in &security_opt {
            let (key, value) = word.split_once(['=', ':']).unwrap_or((word, ""));
            match (key, value) {
                ("seccomp", "unconfined") => patch.seccomp.profile = Some(SeccompProfile::Unconfined),
                ("seccomp", file) if !file.is_empty() => patch.seccomp.profile = Some(SeccompProfile::Docker(absolute(Path::new(file), cwd))),
                ("no-new-privileges", "" | "true") => patch.process.no_new_privileges = Some(true),
                ("no-new-privileges", "false") => patch.process.no_new_privileges = Some(false),
                ("nested", "") => {
                    let nested = policy::load("nested", home)?;
                    patch = nested.then(patch);
                }
                _ => return Err(Error::usage(format!("bad --security-opt '{word}': seccomp=FILE|unconfined, no-new-privileges[=false] or nested"))),
            }
        }
        patch.limits = limits.into_patch()?;
        patch.cgroup_parent = cgroup_parent;
        patch.require = require.into_iter().collect();
        patch.best_effort = best_effort.into_iter().collect::<BTreeSet<_>>();
        Ok(patch)
    }
}

/// Was `--` said before the command, which is the last `words` of all? Without it, the first word is an image's name.
fn after_dashes(all: &[OsString], words: usize) -> bool {
    all.len().checked_sub(words + 1).and_then(|at| all.get(at)).is_some_and(|word| word == "--")
}

fn three_forms() -> Error {
    Error::usage("cannot run nothing: say what to run, and in what").hint(
        "one of\n    sandbox run -- CMD [ARG...]               the host's own tree, copy-on-write\n    \
         sandbox run --rootfs DIR CMD [ARG...]     a directory as the root\n    \
         sandbox run IMAGE [CMD...]                an image",
    )
}

/// What --env-file and -e say, the latter last.
pub fn set_variables(files: &[PathBuf], words: &[String], env: &Environment) -> Result<BTreeMap<String, String>> {
    let mut set = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(file).doing("read", file.display())?;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            variable(line, env, &mut set)?;
        }
    }
    words.iter().try_for_each(|word| variable(word, env, &mut set))?;
    Ok(set)
}

/// `NAME=VALUE`, or `NAME` for the caller's own value. man: environ(7)
fn variable(word: &str, env: &Environment, into: &mut BTreeMap<String, String>) -> Result<()> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => {
            let value = env.get(word).cloned().map(OsString::into_string).transpose();
            (word, value.map_err(|_| Error::usage(format!("cannot pass on the variable {word}: its value is not UTF-8")))?)
        }
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Error::usage(format!("bad variable '{word}': NAME or NAME=VALUE")));
    }
    if let Some(value) = value {
        into.insert(name.to_string(), value);
    }
    Ok(())
}

/// man: hostname(7)
fn host_name(name: String) -> Result<String> {
    let ok =
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) && !name.starts_with(['-', '.']);
    if ok { Ok(name) } else { Err(Error::usage(format!("bad host name '{name}': letters, digits, '-' and '.', at most 64"))) }
}

/// Absolute, with `.` and `..` taken out by name: what the path inside will be.
pub fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// A host path for --rw and its kin, resolved: the same inside and outside.
fn existing(path: &Path, cwd: &Path) -> Result<PathBuf> {
    let path = match std::fs::canonicalize(cwd.join(path)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            // Not made here: nothing of the host changes unasked, and nobody knows whether a file or a directory is meant.
            let e = Error::new(Kind::NotFound, format!("cannot share {}: it is not there", path.display()));
            return Err(e.hint(format!("make it first, e.g. mkdir -p '{}'", path.display())));
        }
        other => other.doing("share", path.display())?,
    };
    if path == Path::new("/") {
        return Err(Error::usage("cannot share / as a whole: the host's tree is there already, so name what is to be written"));
    }
    Ok(path)
}

/// Descriptors that the user numbers must be open, and no directories. cve: 2016-8649
pub fn check_descriptors(preserved: u32, status: Option<u32>) -> Result<()> {
    if preserved > 1024 {
        return Err(Error::usage("bad --preserve-fds: at most 1024"));
    }
    for fd in (3..3 + preserved).chain(status) {
        let link = format!("/proc/self/fd/{fd}");
        let meta = std::fs::metadata(&link).map_err(|_| Error::usage(format!("cannot use descriptor {fd}: it is not open")))?;
        if meta.is_dir() {
            return Err(directory(fd));
        }
    }
    Ok(())
}

fn directory(fd: u32) -> Error {
    Error::new(Kind::Denied, format!("cannot pass descriptor {fd}: it is a directory, and so a way out")).hint("share it with --ro or --rw")
}

pub fn window() -> (u16, u16) {
    let size = [0, 1, 2].iter().find_map(|fd| rustix::termios::tcgetwinsize(sys::inherit::inherited(fd)).ok());
    size.map_or((80, 24), |w| (w.ws_col, w.ws_row))
}

/// The command's standard streams without -t: the caller's own files and pipes, but never the caller's terminal. cve: 2017-5226
pub fn streams(interactive: bool) -> Result<(Io, Streams)> {
    let terminal = |fd: i32| rustix::termios::isatty(sys::inherit::inherited(&fd));
    let own = |fd: i32| {
        let copy = rustix::io::fcntl_dupfd_cloexec(sys::inherit::inherited(&fd), 3).doing("copy", "a standard stream")?;
        if rustix::fs::fstat(&copy).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir()) {
            return Err(directory(fd as u32));
        }
        Ok(copy)
    };
    let pipe = || sys::socket::pipe().doing("make", "a pipe");
    let (mut in_end, mut out_end, mut err_end) = (None, None, None);
    let stdin = if !interactive {
        OwnedFd::from(std::fs::File::open("/dev/null").doing("open", "/dev/null")?)
    } else if terminal(0) {
        let (read, write) = pipe()?;
        in_end = Some(write);
        read
    } else {
        own(0)?
    };
    let stdout = if terminal(1) {
        let (read, write) = pipe()?;
        out_end = Some(read);
        write
    } else {
        own(1)?
    };
    let stderr = if terminal(2) {
        if out_end.is_some() {
            // One pipe for both keeps the order of what is shown on one terminal.
            stdout.try_clone().doing("copy", "a pipe")?
        } else {
            let (read, write) = pipe()?;
            err_end = Some(read);
            write
        }
    } else {
        own(2)?
    };
    let streams = if in_end.is_none() && out_end.is_none() && err_end.is_none() {
        Streams::Direct
    } else {
        Streams::Pipes { stdin: in_end, stdout: out_end, stderr: err_end }
    };
    Ok((Io { stdin, stdout, stderr }, streams))
}

/// Paths, each with why it is guarded.
type Absent = Vec<(PathBuf, String)>;

/// Guarded names that are not there yet. In a directory shared read-write nothing can keep them from being made, and making
/// placeholders would litter the host; so what was made is told at the end. cve: 2026-25725
fn absent_guarded(spec: &Spec) -> Absent {
    let shared = spec.files.mounts.iter().filter(|m| !m.read_only).filter_map(|m| match &m.source {
        storage::Source::Bind(path) => Some(path),
        _ => None,
    });
    let names = shared.flat_map(|dir| spec.files.guard.iter().map(move |g| (dir.join(&g.path), g.why.clone())));
    names.filter(|(path, _)| std::fs::symlink_metadata(path).is_err()).collect()
}

/// JSON events, one object a line.
struct Status(Option<std::fs::File>);

impl Status {
    fn new(fd: Option<u32>) -> Status {
        Status(fd.and_then(|fd| {
            let fd = sys::inherit::inherited(&(fd as i32));
            let own = rustix::io::fcntl_dupfd_cloexec(fd, 3).ok()?;
            Some(std::fs::File::from(own))
        }))
    }

    fn say(&mut self, value: serde_json::Value) {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(format!("{value}\n").as_bytes());
        }
    }

    fn degraded(&mut self, plan: &Plan) {
        for (control, why) in &plan.degraded {
            self.say(serde_json::json!({ "event": "degraded", "control": control.as_str(), "why": why }));
        }
    }

    fn started(&mut self, pid: i32, cgroup: Option<&Held>) {
        self.say(serde_json::json!({ "event": "started", "pid": pid, "cgroup": cgroup.map(Held::path) }));
    }

    fn event(&mut self, event: Event) {
        self.say(match event {
            Event::SignalForwarded(n) => serde_json::json!({ "event": "signal", "signal": process::signal_name(n) }),
            Event::Stopped => serde_json::json!({ "event": "stopped" }),
            Event::Continued => serde_json::json!({ "event": "continued" }),
            Event::TimedOut => serde_json::json!({ "event": "timeout" }),
            Event::HungUp => serde_json::json!({ "event": "hangup" }),
            Event::Killed => serde_json::json!({ "event": "killed" }),
            Event::Settled | Event::Ended => return, // `exited` will say it all
        });
    }

    fn exited(&mut self, exit: &Exit, usage: Option<&Usage>) {
        let signal = exit.status.signal().map(process::signal_name);
        let reason = usage.and_then(|u| limits::reason(exit, u));
        self.say(serde_json::json!({
            "event": "exited", "exit": exit.code(), "signal": signal, "timed_out": exit.timed_out, "reason": reason, "usage": usage,
        }));
    }
}

/// What would be done.
fn dry(spec: &Spec, plan: &Plan, json: bool) -> Result<()> {
    let steps = plan.tape.steps();
    let text = if json {
        let steps: Vec<_> =
            steps.iter().map(|s| serde_json::json!({ "phase": format!("{:?}", s.phase()).to_lowercase(), "step": s.to_string() })).collect();
        let map = |list: &[crate::tape::step::Extent]| list.iter().map(|e| [e.inside, e.outside, e.count]).collect::<Vec<_>>();
        let degraded: Vec<_> = plan.degraded.iter().map(|(c, why)| serde_json::json!({ "control": c.as_str(), "why": why })).collect();
        let value = serde_json::json!({
            "spec": spec, "cgroup": plan.cgroup.as_ref().map(|c| c.to_string()), "uids": map(&plan.maps.uids), "gids": map(&plan.maps.gids), "steps": steps, "notes": plan.notes, "degraded": degraded,
        });
        format!("{value:#}\n")
    } else {
        plan.to_string()
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_flags_are_what_the_parser_says() {
        let parser = || RunArgs::augment_args(clap::Command::new("run"));
        let words = ["debian", "ls", "-l", "--rm", "--", "-", "", "a=b", "--layer=x", "-it"].map(OsString::from);
        let mut met = 0;
        for n in 0..words.len().pow(3) {
            let line: Vec<_> = [n / 100 % 10, n / 10 % 10, n % 10].iter().take(1 + n % 3).filter_map(|n| words.get(*n)).cloned().collect();
            let Some(ours) = RunArgs::without_flags(&line) else { continue };
            let argv = std::iter::once("run".into()).chain(line.iter().cloned());
            let theirs = parser().try_get_matches_from(argv).and_then(|m| <RunArgs as clap::FromArgMatches>::from_arg_matches(&m));
            assert_eq!(format!("{:?}", theirs.unwrap()), format!("{ours:?}"), "{line:?}");
            met += 1;
        }
        assert!(met > 100, "only {met} lines have no flags");
    }

    #[test]
    fn the_host_tree_wants_dashes() {
        for (line, words, said) in [
            ("sandbox run -- ls -l", 2, true),
            ("sandbox run -e A=b -- ls", 1, true),
            ("sandbox run ls", 1, false),
            ("sandbox run ls -- x", 3, false),
            ("sandbox run -- -- ls", 2, true),
            ("sandbox run", 0, false),
            ("", 5, false),
        ] {
            let all: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(after_dashes(&all, words), said, "{line}");
        }
    }
}
