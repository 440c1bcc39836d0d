//! Policy files: where they are found, when they are trusted, and how includes lie under each other.
//!
//! Called by `cli`. The only part of `spec` that reads files (I1). Never looks for a policy in the working directory: who can
//! write there is who the sandbox is for (SECURITY X04). Only a file that the user names with a `/` is read from anywhere.
//!
//! *Why this way*: the built-in policies are TOML for people and postcard (a compact serde format) for the program, because reading
//! `default.toml` as TOML takes a millisecond, a large part of a whole start, and as JSON a quarter of one. The compiled form is made
//! from the TOML by a test (`BLESS=1`), which fails when the two differ. (Rejected: a build script, which would hide what is compiled
//! in; a cache on disk, which would have to be trusted.)
#![forbid(unsafe_code)]

use super::*;
use crate::dirs;
use crate::error::{Doing, why};
use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fmt, fs, io};

/// (name, the patch that `policies/NAME.toml` says, compiled)
const BUILT_IN: [(&str, &[u8]); 6] = [
    ("agent", include_bytes!("../../policies/compiled/agent")),
    ("ci", include_bytes!("../../policies/compiled/ci")),
    ("default", include_bytes!("../../policies/compiled/default")),
    ("hpc", include_bytes!("../../policies/compiled/hpc")),
    ("nested", include_bytes!("../../policies/compiled/nested")),
    ("strict", include_bytes!("../../policies/compiled/strict")),
];

/// A policy file of a megabyte is no policy file.
const MAX_SIZE: u64 = 1 << 20;
/// How many files one policy may be made of, each time it is included.
const MAX_FILES: usize = 32;

/// The policy under all others: what `run` means when nothing is said.
pub fn base(home: &Path) -> Result<Patch> {
    Search::everywhere(home).load("default")
}

/// A policy by name, or from a file if `word` has a `/`, on top of what it includes. `default` is not under it unless it says so.
pub fn load(word: &str, home: &Path) -> Result<Patch> {
    Search::everywhere(home).load(word)
}

/// What the flags are laid on, and what they may not loosen: a policy is a limit if the user named it, a default is not.
pub fn choose(word: Option<&str>, home: &Path) -> Result<(Patch, Option<Patch>)> {
    let Some(word) = word else { return Ok((base(home)?, None)) };
    let mut search = Search::everywhere(home);
    let named = search.load(word)?;
    // Most policies include `default`; it is not read twice.
    let under = Search::everywhere(home).find("default")?;
    let patch = if search.done.contains(&under.place()) { named.clone() } else { base(home)?.then(named.clone()) };
    Ok((patch, Some(named)))
}

/// The site's ceiling, if there is one. What it includes is looked for in the site's directory and among the built-in policies only.
pub fn ceiling() -> Result<Option<Patch>> {
    ceiling_at(&dirs::ceiling())
}

fn ceiling_at(file: &Path) -> Result<Option<Patch>> {
    let mut search = Search { dirs: vec![file.with_file_name("policies")], trust: Trust::Roots, reading: Vec::new(), done: Vec::new() };
    match read(file, Trust::Roots)? {
        Some(text) => search.lay(Found::File(file.to_path_buf(), text)).map(Some),
        None => Ok(None),
    }
}

/// One line of `sandbox policy list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    /// `built-in`, or the file.
    pub origin: String,
    pub description: String,
}

/// Every policy that can be named, in the order of names; of several with one name, the one that is meant.
pub fn list(home: &Path) -> Vec<Listed> {
    let search = Search::everywhere(home);
    let mut names: BTreeSet<String> = builtin_names().map(String::from).collect();
    for entry in search.dirs.iter().filter_map(|d| fs::read_dir(d).ok()).flatten().flatten() {
        let file = entry.file_name();
        names.extend(file.to_str().and_then(|f| f.strip_suffix(".toml")).filter(|n| is_name(n)).map(String::from));
    }
    names
        .into_iter()
        .map(|name| match search.find(&name).and_then(|f| Ok((f.patch()?, f.place()))) {
            Ok((patch, place)) => Listed { name, origin: place.to_string(), description: patch.description.unwrap_or_default() },
            Err(e) => Listed { name, origin: "unreadable".into(), description: e.message().to_string() },
        })
        .collect()
}

pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// What the built-in policy of this name says, without what it includes and whatever shadows it: for the manual.
pub fn built_in(name: &str) -> Result<Patch> {
    let found = BUILT_IN.iter().find(|(n, _)| *n == name);
    let (name, compiled) = found.ok_or_else(|| Error::new(Kind::NotFound, format!("cannot find policy '{name}': it is not built in")))?;
    decode(name, compiled)
}

/// What a patch says, without what it is silent about.
pub fn said(patch: &Patch) -> serde_json::Value {
    fn prune(value: &mut serde_json::Value, silent: Option<&serde_json::Value>) {
        let Some(map) = value.as_object_mut() else { return };
        map.retain(|key, value| {
            let quiet = silent.and_then(|s| s.get(key));
            prune(value, quiet);
            let emptied = quiet.is_some_and(|q| q.is_object()) && value.as_object().is_some_and(|m| m.is_empty());
            !(value.is_null() || emptied || quiet == Some(value))
        });
    }
    let mut value = serde_json::to_value(patch).unwrap_or_default();
    prune(&mut value, serde_json::to_value(Patch::default()).ok().as_ref());
    value
}

/// Where a policy was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    BuiltIn(&'static str),
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::BuiltIn(_) => f.write_str("built-in"),
            Place::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A policy that was found.
enum Found {
    /// Its path and its text.
    File(PathBuf, String),
    BuiltIn(&'static str, &'static [u8]),
}

impl Found {
    fn place(&self) -> Place {
        match self {
            Found::File(path, _) => Place::File(path.clone()),
            Found::BuiltIn(name, _) => Place::BuiltIn(name),
        }
    }

    /// What this one says, without what it includes.
    fn patch(&self) -> Result<Patch> {
        match self {
            // What somebody wrote down is asked for; what is built in is a default.
            Found::File(path, text) => parse(text, path).map(|patch| Patch { limits: patch.limits.asked(), ..patch }),
            Found::BuiltIn(name, compiled) => decode(name, compiled),
        }
    }
}

fn decode(name: &str, compiled: &[u8]) -> Result<Patch> {
    postcard::from_bytes(compiled).map_err(|e| Error::new(Kind::Bug, format!("cannot read built-in policy '{name}': {e}")))
}

/// Who must own a file, and be the only one who may write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The user named it: his word is enough.
    Named,
    /// Found by name: root or the caller.
    Ours,
    /// The site's word against the user's: root.
    Roots,
}

struct Search {
    dirs: Vec<PathBuf>,
    trust: Trust,
    /// The chain of includes above the file being read.
    reading: Vec<Place>,
    /// Everything read so far.
    done: Vec<Place>,
}

impl Search {
    fn everywhere(home: &Path) -> Search {
        Search { dirs: dirs::policies(home), trust: Trust::Ours, reading: Vec::new(), done: Vec::new() }
    }

    fn load(&mut self, word: &str) -> Result<Patch> {
        let found = if word.contains('/') { self.open(word)? } else { self.find(word)? };
        self.lay(found)
    }

    /// The file with this path: as the user typed it; or, in an include, seen from the file that says it, and trusted as if found
    /// by name, since nobody typed it.
    fn open(&self, word: &str) -> Result<Found> {
        let (path, trust) = match self.reading.last() {
            Some(Place::File(from)) => (from.with_file_name(word), self.trust),
            _ => (PathBuf::from(word), Trust::Named),
        };
        if self.reading.contains(&Place::File(path.clone())) {
            return Err(Error::usage(format!("cannot include policy {word}: it includes itself")));
        }
        let text = read(&path, trust)?.ok_or_else(|| Error::new(Kind::NotFound, format!("cannot read policy {}: no such file", path.display())))?;
        Ok(Found::File(path, text))
    }

    /// The first policy with this name that is not being read already: a policy that includes its own name gets the one it shadows.
    fn find(&self, name: &str) -> Result<Found> {
        if !is_name(name) {
            return Err(Error::usage(format!("bad policy '{name}': a name of a-z, 0-9 and '-', or a file with a '/' in it"))
                .hint("sandbox policy list; a file in this directory is ./FILE"));
        }
        let mut shadowed = false;
        for dir in &self.dirs {
            let path = dir.join(format!("{name}.toml"));
            if self.reading.contains(&Place::File(path.clone())) {
                shadowed = true;
            } else if let Some(text) = read(&path, self.trust)? {
                return Ok(Found::File(path, text));
            }
        }
        if let Some((name, compiled)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
            if !self.reading.contains(&Place::BuiltIn(name)) {
                return Ok(Found::BuiltIn(name, compiled));
            }
            shadowed = true;
        }
        if shadowed {
            return Err(Error::usage(format!("cannot include policy '{name}': it includes itself")));
        }
        Err(Error::new(Kind::NotFound, format!("cannot find policy '{name}': no such policy"))
            .hint("sandbox policy list shows the names; a file in this directory is ./FILE"))
    }

    /// A policy on top of what it includes.
    fn lay(&mut self, found: Found) -> Result<Patch> {
        let mut patch = found.patch()?;
        let place = found.place();
        if self.done.len() >= MAX_FILES {
            return Err(Error::usage(format!("cannot include policy {place}: more than {MAX_FILES} files")));
        }
        self.done.push(place.clone());
        self.reading.push(place.clone());
        let mut under = Patch::default();
        for word in std::mem::take(&mut patch.include) {
            let part = self.load(&word).map_err(|e| e.context(format!("include '{word}' of {place}")))?;
            under = under.then(part);
        }
        self.reading.pop();
        Ok(under.then(patch))
    }
}

/// The grammar of a policy's name. `default` and friends; nothing that could be a path.
fn is_name(word: &str) -> bool {
    (1..=63).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') && !word.starts_with('-')
}

/// The text of a policy file; None if there is none.
fn read(path: &Path, trust: Trust) -> Result<Option<String>> {
    let name = path.display();
    // NONBLOCK: opening a FIFO would wait for a writer.
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()) {
        Ok(fd) => fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(Error::new(Kind::Io, format!("cannot read policy {name}: {}", why(&e.into())))),
    };
    let meta = file.metadata().doing("look at", name)?;
    let name = path.display();
    if !meta.is_file() {
        return Err(Error::usage(format!("cannot read policy {name}: not a regular file")));
    }
    if trust != Trust::Named {
        vouch(path, &meta, trust)?;
        // Who can write the directory can put another file there.
        let dir = path.parent().unwrap_or(Path::new("/"));
        vouch(dir, &fs::metadata(dir).doing("look at", dir.display())?, trust)?;
    }
    let mut text = String::new();
    match file.take(MAX_SIZE + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > MAX_SIZE => Err(Error::usage(format!("cannot read policy {name}: larger than 1 MiB"))),
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Error::usage(format!("cannot read policy {name}: not UTF-8 text"))),
        Err(e) => Err(Error::new(Kind::Io, format!("cannot read policy {name}: {}", why(&e)))),
    }
}

/// cve: 2019-12439, 2020-25039 (a file that others can replace decides what is allowed)
fn vouch(path: &Path, meta: &fs::Metadata, trust: Trust) -> Result<()> {
    let ours = trust == Trust::Ours && meta.uid() == rustix::process::geteuid().as_raw();
    let who = if trust == Trust::Roots { "root" } else { "root or you" };
    if !ours && !is_root(meta.uid()) {
        return Err(Error::new(Kind::Denied, format!("cannot trust policy {}: owned by uid {}, not by {who}", path.display(), meta.uid()))
            .hint(format!("sudo chown {} {}", if trust == Trust::Roots { "root" } else { "\"$USER\"" }, path.display())));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Error::new(Kind::Denied, format!("cannot trust policy {}: others may write it", path.display()))
            .hint(format!("chmod go-w {}", path.display())));
    }
    Ok(())
}

/// Root of the host. In a sandbox that does not map it, root is seen as the overflow uid, as are all strangers; there, the files of
/// /etc could not have been written by anyone that the outer sandbox did not trust.
fn is_root(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    uid == 0 || (uid == OVERFLOW && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"])))
}

/// TOML to a checked patch, without what it includes; the error names file, line and column.
pub fn parse(text: &str, file: &Path) -> Result<Patch> {
    let patch: Patch = toml::from_str(text).map_err(|e| {
        let place = e.span().and_then(|s| text.get(..s.start)).map_or(String::new(), |before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            format!("line {line}, column {column}: ")
        });
        let message = e.message().split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(", ");
        Error::usage(format!("cannot read policy {}: {place}{message}", file.display()))
    })?;
    match flaws(&patch).into_iter().next() {
        None => Ok(patch),
        Some(flaw) => Err(Error::usage(format!("cannot read policy {}: {flaw}", file.display()))),
    }
}

/// What no type of `Patch` can rule out. System calls and their groups are checked where they are known, in `confine`.
pub fn flaws(patch: &Patch) -> Vec<String> {
    let Patch { process, files, network, capabilities, seccomp, landlock, proc, .. } = patch;
    let mut found = Vec::new();
    let mut check = |ok: bool, key: &str, value: &str, what: &str| {
        if !ok {
            found.push(format!("bad {key} '{value}': {what}"));
        }
    };

    // Spelled in the one way that is compared as text: no '//', no '/' at the end.
    let absolute = |p: &str| p.len() > 1 && storage::inside(p).is_ok_and(|path| path.as_os_str() == p);
    for (key, list) in [("files.hide", &files.hide), ("files.read-only", &files.read_only), ("files.fresh", &files.fresh)] {
        for e in list {
            let ok = absolute(&e.path) || e.path == "~" || e.path.strip_prefix('~').is_some_and(absolute);
            check(ok, key, &e.path, "an absolute path, or one that begins with '~/', without '..', '//' and a '/' at the end");
        }
    }
    for e in &files.guard {
        check(!e.path.starts_with('/') && absolute(&format!("/{}", e.path)), "files.guard", &e.path, "a relative path without '..'");
    }
    for (key, list) in [("proc.mask", &proc.mask), ("proc.read-only", &proc.read_only)] {
        for e in list {
            check(absolute(&e.path) && (e.path.starts_with("/proc/") || e.path.starts_with("/sys/")), key, &e.path, "a path below /proc or /sys");
        }
    }

    let variable = |v: &str| {
        let mut bytes = v.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    for e in &process.env_pass {
        check(variable(e.path.strip_suffix('*').unwrap_or(&e.path)), "process.env-pass", &e.path, "the name of a variable, '*' only at its end");
    }
    for (name, value) in &process.env {
        check(variable(name) && !value.contains('\0'), "process.env", name, "the name of a variable and a text without NUL");
    }
    for name in process.ulimits.keys() {
        check(process::ULIMITS.iter().any(|(n, _)| n == name), "process.ulimits", name, "no such limit; setrlimit(2) has them, in lower case");
    }
    if let Some(score) = process.oom_score_adj {
        check((-1000..=1000).contains(&score), "process.oom-score-adj", &score.to_string(), "from -1000 to 1000");
    }
    if let Some(cwd) = &process.cwd {
        let text = cwd.to_string_lossy();
        check(storage::inside(&text).is_ok(), "process.cwd", &text, "an absolute path without '..'");
    }
    if let Some(name) = &process.hostname {
        check(name.parse::<Name>().is_ok(), "process.hostname", name, "letters, digits, '_', '.', '-', at most 63");
    }
    if let Some(mask) = &process.umask {
        check(process::umask(mask).is_ok(), "process.umask", mask, "octal, from 0 to 0777");
    }
    if let Some(signal) = &process.stop_signal {
        check(process::signal(signal).is_ok(), "process.stop-signal", signal, "a signal as in signal(7)");
    }
    for address in &network.dns {
        check(address.parse::<std::net::IpAddr>().is_ok(), "network.dns", address, "an IP address");
    }

    for e in capabilities.keep.iter().flatten() {
        check(restrict::capability(&e.path).is_ok(), "capabilities.keep", &e.path, "a capability as in capabilities(7)");
    }
    for (key, list) in [("capabilities.add", &capabilities.add), ("capabilities.drop", &capabilities.drop)] {
        for c in list {
            check(c.eq_ignore_ascii_case("all") || restrict::capability(c).is_ok(), key, c, "a capability as in capabilities(7), or ALL");
        }
    }
    for f in seccomp.socket_families.iter().flatten() {
        let known = ["unix", "inet", "inet6", "netlink-route", "netlink-diag"];
        check(known.contains(&f.as_str()), "seccomp.socket-families", f, "unix, inet, inet6, netlink-route or netlink-diag");
    }
    for s in landlock.scopes.iter().flatten() {
        check(["signal", "abstract-unix-socket"].contains(&s.as_str()), "landlock.scopes", s, "signal or abstract-unix-socket");
    }

    let reasons = [&files.hide, &files.read_only, &files.fresh, &files.guard, &proc.mask, &proc.read_only, &process.env_pass];
    for e in reasons.into_iter().flatten().chain(capabilities.keep.iter().flatten()) {
        check(!e.why.trim().is_empty(), "entry", &e.path, "'why' is empty");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A home directory that is removed in the end.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Home {
            let dir = std::env::temp_dir().join(format!("sandbox-policy-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(dir.join("policies")).unwrap();
            Home(dir)
        }

        fn write(&self, file: &str, text: &str) -> PathBuf {
            let path = self.0.join(file);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path
        }

        /// As `Search::everywhere`, with the directories `policies` and `site` of this home.
        fn search(&self) -> Search {
            Search { dirs: vec![self.0.join("policies"), self.0.join("site")], trust: Trust::Ours, reading: vec![], done: vec![] }
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn message(result: Result<Patch>) -> String {
        result.unwrap_err().message().to_string()
    }

    #[test]
    fn compiled_policies_are_what_the_toml_says() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
        for (name, compiled) in BUILT_IN {
            let text = fs::read_to_string(dir.join(format!("{name}.toml"))).unwrap();
            let patch = parse(&text, Path::new(name)).unwrap();
            let fresh = postcard::to_allocvec(&patch).unwrap();
            if std::env::var_os("BLESS").is_some() {
                fs::write(dir.join("compiled").join(name), &fresh).unwrap();
            } else {
                assert!(fresh == compiled, "policies/compiled/{name} is out of date: BLESS=1 cargo test --lib compiled_policies");
                assert_eq!(decode(name, compiled).unwrap(), patch, "{name}");
            }
            assert!(patch.description.is_some_and(|d| !d.contains('\n')), "{name}");
        }
    }

    #[test]
    fn the_readme_names_every_key_and_its_examples_are_policies() {
        fn keys(value: &serde_json::Value, out: &mut Vec<String>) {
            for (key, value) in value.as_object().into_iter().flatten() {
                out.push(key.clone());
                keys(value, out);
            }
        }
        let readme = include_str!("../../policies/README.md");
        let mut all = Vec::new();
        keys(&serde_json::to_value(Patch::default()).unwrap(), &mut all);
        assert!(all.len() > 40);
        for key in all {
            assert!(readme.contains(&format!("`{key}`")) || readme.contains(&format!("[{key}]")), "{key}");
        }
        let examples: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert_eq!(examples.len(), 2);
        for text in examples {
            parse(text, Path::new("README")).unwrap();
        }
    }

    #[test]
    fn default_leaves_nothing_open() {
        let mut patch = base(Path::new("/nonexistent")).unwrap();
        (patch.root, patch.userns) = (Some(Root::Host), Some(Userns::Auto));
        patch.settle().unwrap();
    }

    #[test]
    fn built_in_policies_say_each_thing_once() {
        for (name, compiled) in BUILT_IN {
            let patch = decode(name, compiled).unwrap();
            let Patch { process, files, proc, capabilities, .. } = &patch;
            let lists = [&files.hide, &files.read_only, &files.fresh, &files.guard, &proc.mask, &proc.read_only, &process.env_pass];
            for list in lists.into_iter().chain(capabilities.keep.as_ref()) {
                let paths: BTreeSet<_> = list.iter().map(|e| &e.path).collect();
                assert_eq!(paths.len(), list.len(), "{name}: {list:?}");
            }
        }
    }

    #[test]
    fn no_policy_passes_secrets_or_loaders() {
        let secrets = [
            "LD_PRELOAD",
            "LD_AUDIT",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_TOKEN",
            "CI_JOB_TOKEN",
            "CI_REGISTRY_PASSWORD",
            "SLURM_JWT",
            "SSH_AUTH_SOCK",
            "SSH_AGENT_PID",
            "GPG_AGENT_INFO",
            "DBUS_SESSION_BUS_ADDRESS",
            "XDG_RUNTIME_DIR",
            "BASH_ENV",
            "ENV",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "PERL5LIB",
            "RUBYOPT",
            "JAVA_TOOL_OPTIONS",
            "http_proxy",
            "HTTPS_PROXY",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "XAUTHORITY",
            "KUBECONFIG",
            "DOCKER_HOST",
            "VAULT_TOKEN",
            "NPM_TOKEN",
            "CARGO_REGISTRY_TOKEN",
            "OPENAI_API_KEY",
            "ANTHROPIC_API_KEY",
            "GIT_SSH_COMMAND",
            "GIT_ASKPASS",
            "PROMPT_COMMAND",
            "IFS",
            "GCONV_PATH",
            "TERMINFO",
            "TMUX",
            "STY",
            "ACTIONS_RUNTIME_TOKEN",
            "GOPROXY",
        ];
        for (name, compiled) in BUILT_IN {
            let patch = decode(name, compiled).unwrap();
            for secret in secrets {
                assert!(!patch.process.env_pass.iter().any(|e| e.covers(secret)), "{name} passes {secret}");
            }
        }
    }

    #[test]
    fn strict_is_within_default_and_agent_and_ci_within_themselves() {
        let home = Path::new("/nonexistent");
        let settle = |name: &str| {
            let mut patch = choose(Some(name), home).unwrap().0;
            (patch.root, patch.userns) = (Some(Root::Host), Some(patch.userns.unwrap_or(Userns::Auto)));
            patch.settle().unwrap()
        };
        for (name, limit) in [
            ("strict", "default"),
            ("agent", "default"),
            ("strict", "strict"),
            ("agent", "agent"),
            ("ci", "ci"),
            ("hpc", "hpc"),
            ("nested", "nested"),
        ] {
            assert_eq!(settle(name).exceeds(&load(limit, home).unwrap(), home, 1000), Vec::<String>::new(), "{name} beyond {limit}");
        }
        for (name, key) in
            [("hpc", "network.mode"), ("ci", "network.mode"), ("nested", "namespaces.nested"), ("nested", "proc.mask"), ("hpc", "namespaces.ipc")]
        {
            let found = settle(name).exceeds(&load("default", home).unwrap(), home, 1000);
            assert!(found.iter().any(|f| f.starts_with(key)), "{name} {key} {found:?}");
        }
    }

    #[test]
    fn names_are_searched_in_order_and_a_policy_reaches_what_it_shadows() {
        let home = Home::new("order");
        fs::create_dir(home.0.join("site")).unwrap();
        home.write("site/default.toml", "include = ['default']\nprocess.umask = '027'\nprocess.timeout = 5");
        home.write("policies/default.toml", "include = ['strict']\nprocess.umask = '077'");
        home.write("policies/mine.toml", "include = ['default', './part.toml']\ndescription = 'mine'");
        home.write("policies/part.toml", "process.hostname = 'part'");
        // user's default -> built-in strict -> site's default -> built-in default
        let patch = home.search().load("mine").unwrap();
        assert_eq!(patch.process.umask.as_deref(), Some("077"));
        assert_eq!(patch.process.timeout, Some(3600));
        assert_eq!(patch.process.hostname.as_deref(), Some("part"));
        assert_eq!(patch.network.mode, Some(NetworkMode::None));
        assert_eq!(patch.description.as_deref(), Some("mine"));
        assert_eq!(patch.include, Vec::<String>::new());
    }

    #[test]
    fn includes_end() {
        let home = Home::new("cycle");
        home.write("policies/a.toml", "include = ['b']");
        home.write("policies/b.toml", "include = ['a']");
        home.write("policies/c.toml", "include = ['./c.toml']");
        home.write("policies/many.toml", &format!("include = [{}]", "'one',".repeat(64)));
        home.write("policies/one.toml", "");
        home.write("policies/link.toml", "include = ['./x/../link.toml']");
        fs::create_dir(home.0.join("policies/x")).unwrap();
        for (name, why) in [("a", "includes itself"), ("c", "includes itself"), ("many", "more than 32"), ("link", "more than 32")] {
            assert!(message(home.search().load(name)).contains(why), "{name}");
        }
    }

    #[test]
    fn x04_nothing_is_read_from_the_working_directory() {
        for bad in ["", "..", "Default", "a.toml", "-x", "a b", "a\n", &"x".repeat(64)] {
            assert!(message(load(bad, Path::new("/nonexistent"))).starts_with("bad policy"), "{bad:?}");
        }
        // This crate's directory holds a `policies`; were it searched, `syscalls` would be found.
        assert_eq!(load("syscalls", Path::new("/nonexistent")).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(load("./no-such.toml", Path::new("/nonexistent")).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn cve_2019_12439_files_that_others_may_write_are_refused() {
        let home = Home::new("trust");
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let file = home.write("policies/a.toml", "");
        home.search().load("a").unwrap();
        for mode in [0o602, 0o620, 0o666] {
            chmod(&file, mode);
            assert!(message(home.search().load("a")).contains("others may write"), "{mode:o}");
            // The user's own word is enough.
            home.search().load(file.to_str().unwrap()).unwrap();
        }
        chmod(&file, 0o600);
        chmod(&home.0.join("policies"), 0o777);
        assert!(message(home.search().load("a")).contains("others may write"));
        chmod(&home.0.join("policies"), 0o700);

        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
            let error = home.search().load("a").unwrap_err();
            assert!(error.message().contains("owned by uid 12345") && error.cure().is_some());
        }
        // Hostile kinds of file: neither wait nor read.
        let word = |p: &Path| home.search().load(p.to_str().unwrap());
        assert!(message(word(Path::new("/dev/zero"))).contains("not a regular file"));
        assert!(message(word(Path::new("/tmp/"))).contains("not a regular file"));
        let fifo = home.0.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(message(word(&fifo)).contains("not a regular file"));
        assert!(message(word(&home.write("big", &"#".repeat(1 << 20 | 1)))).contains("larger than"));
        fs::write(home.0.join("latin1"), b"# \xe4").unwrap();
        assert!(message(word(&home.0.join("latin1"))).contains("not UTF-8"));
    }

    #[test]
    fn errors_name_line_and_column_in_one_line() {
        for (text, line, word) in [
            ("umask = '022'", "line 1, column 1: ", "umask"),
            ("[process]\numask = 22", "line 2, column 9: ", "string"),
            ("[process]\n\n  colour = 1", "line 3, column 3: ", "colour"),
            ("[files]\nhide = [\n { path = '/a' }]", "line 3, column 2: ", "why"),
            ("[files]\nhide = [{ path = '/a', why = 'b', what = 1 }]", "line 2, ", "what"),
            ("[process]\ntimeout = -1", "line 2, ", "-1"),
            ("[network]\nmode = 'bridge'", "line 2, column 8: ", "bridge"),
            ("x = [", "line 1, ", ""),
            ("[process.ulimits]\nnofile = '2:1'", "line 2, ", "soft"),
        ] {
            let message = message(parse(text, Path::new("/p.toml")));
            assert!(message.starts_with(&format!("cannot read policy /p.toml: {line}")) && message.contains(word), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn flaws_that_no_type_rules_out() {
        for bad in [
            "[files]\nhide = [{ path = 'x', why = 'y' }]",
            "[files]\nhide = [{ path = '~root/x', why = 'y' }]",
            "[files]\nhide = [{ path = '/', why = 'y' }]",
            "[files]\nhide = [{ path = '~/../x', why = 'y' }]",
            "[files]\nhide = [{ path = '/x/', why = 'y' }]",
            "[files]\nhide = [{ path = '~//x', why = 'y' }]",
            "[files]\nhide = [{ path = '/x', why = ' ' }]",
            "[files]\nguard = [{ path = '/x', why = 'y' }]",
            "[files]\nguard = [{ path = '../x', why = 'y' }]",
            "[files]\nguard = [{ path = '', why = 'y' }]",
            "[proc]\nmask = [{ path = '/proc', why = 'y' }]",
            "[proc]\nmask = [{ path = '/etc/x', why = 'y' }]",
            "[process]\nenv-pass = [{ name = '*', why = 'y' }]",
            "[process]\nenv-pass = [{ name = 'A*B', why = 'y' }]",
            "[process.env]\n'A=B' = 'x'",
            "[process.ulimits]\nnofiles = '1'",
            "[process]\numask = '9'",
            "[process]\nstop-signal = 'NO'",
            "[process]\noom-score-adj = 1001",
            "[process]\ncwd = 'x'",
            "[network]\ndns = ['example']",
            "[capabilities]\nkeep = [{ name = 'NO', why = 'y' }]",
            "[capabilities]\ndrop = ['NO']",
            "[seccomp]\nsocket-families = ['alg']",
            "[landlock]\nscopes = ['signals']",
        ] {
            assert!(message(parse(bad, Path::new("p"))).contains("bad "), "{bad}");
        }
        let good = "[files]\nhide = [{ path = '~', why = 'y' }]\n[process]\nenv-pass = [{ name = '_A*', why = 'y' }]";
        assert_eq!(flaws(&parse(good, Path::new("p")).unwrap()), Vec::<String>::new());
    }

    #[test]
    fn the_ceiling_is_roots_alone() {
        let home = Home::new("ceiling");
        let file = home.0.join("ceiling.toml");
        assert_eq!(ceiling_at(&file).unwrap(), None);
        home.write("policies/base.toml", "namespaces.nested = false");
        home.write("ceiling.toml", "include = ['base']\nnetwork.mode = 'none'");
        let made = ceiling_at(&file);
        if rustix::process::geteuid().is_root() {
            let patch = made.unwrap().unwrap();
            assert_eq!((patch.network.mode, patch.namespaces.nested), (Some(NetworkMode::None), Some(false)));
            std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        }
        let error = ceiling_at(&file).unwrap_err();
        assert!(error.kind() == Kind::Denied && error.message().contains("not by root"), "{error}");
    }

    #[test]
    fn list_shows_what_a_name_means() {
        let home = Home::new("list");
        fs::create_dir_all(home.0.join(".config/sandbox/policies")).unwrap();
        let mine = home.write(".config/sandbox/policies/ci.toml", "description = 'ours'");
        home.write(".config/sandbox/policies/broken.toml", "x");
        home.write(".config/sandbox/policies/Not A Name.toml", "");
        if std::env::var_os("XDG_CONFIG_HOME").is_some() {
            return;
        }
        let listed = list(&home.0);
        let find = |name: &str| listed.iter().find(|l| l.name == name).unwrap();
        assert_eq!((find("ci").origin.as_str(), find("ci").description.as_str()), (mine.to_str().unwrap(), "ours"));
        assert_eq!(find("default").origin, "built-in");
        assert_eq!(find("broken").origin, "unreadable");
        assert_eq!(listed.len(), BUILT_IN.len() + 1);
    }
}
