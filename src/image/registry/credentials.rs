//! Passwords for registries: where podman, skopeo and docker keep them, and where `login` does.
//!
//! Called by `pull`, `push`, `search` (find) and `login`, `logout`. A secret is never part of an error, an argument or a variable. A
//! credential helper is a program found in trusted places, told the host on its stdin. man: containers-auth.json(5)

use super::trust;
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result, printable};
use crate::host::program;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

const FILE_LIMIT: u64 = 1 << 20;
/// A keyring may ask its user something.
const PATIENCE: Duration = Duration::from_secs(60);
/// What keyrings and password stores need of our environment.
const PASSED: [&str; 10] = [
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
];
/// The key of Docker Hub in docker's own file.
const HUB: &str = "https://index.docker.io/v1/";

/// Who we are to a registry.
#[derive(Clone)]
pub enum Secret {
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// To be changed into a token for one repository.
    IdentityToken(Zeroizing<String>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// An auth.json or config.json: what of it concerns us.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct AuthFile {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

impl AuthFile {
    pub fn parse(text: &[u8]) -> Result<AuthFile> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(AuthFile::default());
        }
        // serde's own words would quote the value that it does not like.
        serde_json::from_slice(text)
            .map_err(|e| Error::usage(format!("cannot read the credentials: bad JSON in line {}, column {}", e.line(), e.column())))
    }

    /// The helper that knows this host.
    fn helper(&self, host: &str) -> Option<&str> {
        let named = self.helpers.iter().find(|(key, _)| plain(key) == host).map(|(_, name)| name.as_str());
        named.or(self.store.as_deref()).filter(|name| !name.is_empty())
    }

    /// The secret in the file itself, the closest to the repository first.
    pub fn secret(&self, host: &str, repository: &str) -> Result<Option<Secret>> {
        let mut place = format!("{host}/{repository}");
        loop {
            let place_is_host = !place.contains('/');
            // An exact key before one that is a URL.
            let entry = self.auths.get(&place).or_else(|| self.auths.iter().find(|(key, _)| place_is_host && plain(key) == place).map(|(_, e)| e));
            if let Some(secret) = entry.map(Entry::secret).transpose()?.flatten() {
                return Ok(Some(secret));
            }
            match place.rfind('/') {
                Some(end) => place.truncate(end),
                None => return Ok(None),
            }
        }
    }
}

impl Entry {
    fn secret(&self) -> Result<Option<Secret>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|t| !t.is_empty()) {
            return Ok(Some(Secret::IdentityToken(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|a| !a.is_empty()) {
            let bad = || Error::usage("cannot read the credentials: 'auth' is not the base64 of USER:PASSWORD").hint("sandbox login");
            let bytes = Zeroizing::new(STANDARD.decode(auth.trim_end_matches('\0')).map_err(|_| bad())?);
            let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            return Ok(Some(password_of(user, password.trim_end_matches('\0'))));
        }
        Ok(match (&self.username, &self.password) {
            (Some(user), Some(password)) => Some(password_of(user, password)),
            _ => None,
        })
    }
}

fn password_of(user: &str, password: &str) -> Secret {
    Secret::Password { user: user.to_string(), password: Zeroizing::new(password.to_string()) }
}

/// A key of a file as a host: docker writes URLs, and Docker Hub has several names.
fn plain(key: &str) -> &str {
    let url = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match url.and_then(|rest| rest.split('/').next()).unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Where secrets are looked for. Named files, by `--authfile` or `$REGISTRY_AUTH_FILE`, stand alone.
fn places(named: Option<&Path>, home: &Path) -> Vec<PathBuf> {
    if let Some(one) = named.map(Path::to_path_buf).or_else(|| std::env::var_os("REGISTRY_AUTH_FILE").filter(|v| !v.is_empty()).map(PathBuf::from)) {
        return vec![one];
    }
    let session = dirs::runtime().map(|dir| dir.with_file_name("containers").join("auth.json"));
    let docker = std::env::var_os("DOCKER_CONFIG").filter(|v| !v.is_empty()).map_or_else(|| home.join(".docker"), PathBuf::from);
    session.into_iter().chain([dirs::containers(home).join("auth.json"), docker.join("config.json")]).collect()
}

/// Who we are for this repository, or None: anonymous.
pub fn find(host: &str, repository: &str, named: Option<&Path>, home: &Path) -> Result<Option<Secret>> {
    for path in places(named, home) {
        let reading = |e: Error| e.context(format!("reading {}", path.display()));
        let Some((bytes, open)) = trust::bytes(&path, FILE_LIMIT)? else {
            if named.is_some() {
                return Err(Error::new(Kind::NotFound, format!("cannot read {}: no such file", path.display())));
            }
            continue;
        };
        let file = AuthFile::parse(&Zeroizing::new(bytes)).map_err(reading)?;
        if let Some(secret) = file.secret(host, repository).map_err(reading)? {
            if open {
                return Err(Error::new(Kind::Denied, format!("cannot use the passwords in {}: others can read them", path.display()))
                    .hint(format!("chmod 600 {}, and change the passwords", path.display())));
            }
            return Ok(Some(secret));
        }
        if let Some(helper) = file.helper(host)
            && let Some(secret) = get(helper, host)?
        {
            return Ok(Some(secret));
        }
    }
    Ok(None)
}

/// docker: docker-credential-helpers, credentials/credentials.go
#[derive(Deserialize)]
struct Given {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: Zeroizing<String>,
}

fn get(helper: &str, host: &str) -> Result<Option<Secret>> {
    let answer = call(helper, "get", server(host).as_bytes())?;
    let out = Zeroizing::new(answer.stdout);
    if !answer.success {
        let text = String::from_utf8_lossy(&out);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(helper, &text, &answer.stderr));
    }
    let given: Given = serde_json::from_slice(&out)
        .map_err(|_| Error::new(Kind::Io, format!("cannot use docker-credential-{helper}: it did not answer with a user and a secret")))?;
    Ok(Some(match given.user.as_str() {
        "<token>" => Secret::IdentityToken(given.secret),
        user => Secret::Password { user: user.to_string(), password: given.secret },
    }))
}

fn call(helper: &str, verb: &str, stdin: &[u8]) -> Result<program::Answer> {
    let fine = !helper.starts_with(['-', '.']) && helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !fine || helper.len() > 64 {
        return Err(Error::usage(format!("bad credential helper '{helper}': letters, digits, '-', '_' and '.'")));
    }
    program::tell(&format!("docker-credential-{helper}"), &[verb], &PASSED, stdin, PATIENCE)
}

fn failed(helper: &str, out: &str, err: &[u8]) -> Error {
    let said = if out.trim().is_empty() { String::from_utf8_lossy(err).into_owned() } else { out.to_string() };
    let said = printable(said.lines().next().unwrap_or("it says nothing").trim());
    Error::new(Kind::Io, format!("cannot use docker-credential-{helper}: {}", said.chars().take(200).collect::<String>()))
}

/// A host as helpers know it.
fn server(host: &str) -> &str {
    if host == "docker.io" { HUB } else { host }
}

/// Where `login` writes.
fn target(named: Option<&Path>, home: &Path) -> PathBuf {
    places(named, home).swap_remove(0)
}

/// Keep a password: in the helper that the file names for this host, else in the file. Returns where it now is.
pub fn store(host: &str, user: &str, password: &str, named: Option<&Path>, home: &Path) -> Result<String> {
    let path = target(named, home);
    let mut helper = None;
    change(&path, |file, known| {
        helper = known.helper(host).map(str::to_string);
        if helper.is_some() {
            return Ok(false);
        }
        let auth = Zeroizing::new(format!("{user}:{password}"));
        let auths = file.entry("auths").or_insert_with(|| json!({}));
        let auths = auths.as_object_mut().ok_or_else(|| Error::usage("cannot change the credentials: 'auths' is no object"))?;
        auths.retain(|key, _| plain(key) != host);
        auths.insert(host.to_string(), json!({ "auth": STANDARD.encode(auth.as_bytes()) }));
        Ok(true)
    })?;
    let Some(helper) = helper else { return Ok(path.display().to_string()) };
    let said = Zeroizing::new(json!({ "ServerURL": server(host), "Username": user, "Secret": password }).to_string());
    if said.len() > 4096 {
        return Err(Error::usage("cannot store the password: it is too long"));
    }
    let answer = call(&helper, "store", said.as_bytes())?;
    if !answer.success {
        return Err(failed(&helper, &String::from_utf8_lossy(&answer.stdout), &answer.stderr));
    }
    Ok(format!("docker-credential-{helper}"))
}

/// Forget one host, or all, in every file of podman's kind. Returns the hosts that were forgotten.
pub fn forget(host: Option<&str>, named: Option<&Path>, home: &Path) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    let hit = |key: &str| host.is_none_or(|host| plain(key) == host || key == host);
    for path in places(named, home).iter().filter(|p| p.exists()) {
        let mut helpers = Vec::new();
        change(path, |file, known| {
            if let Some(host) = host {
                helpers.extend(known.helper(host).map(|h| (h.to_string(), host.to_string())));
            } else {
                helpers.extend(known.helpers.iter().map(|(host, h)| (h.clone(), plain(host).to_string())));
                // What a store keeps for docker has an empty entry in the file.
                helpers.extend(known.store.iter().flat_map(|s| known.auths.keys().map(|key| (s.clone(), plain(key).to_string()))));
            }
            let Some(auths) = file.get_mut("auths").and_then(Value::as_object_mut) else { return Ok(false) };
            let before = auths.len();
            auths.retain(|key, _| {
                if hit(key) {
                    gone.push(plain(key).to_string());
                }
                !hit(key)
            });
            Ok(auths.len() != before)
        })?;
        for (helper, host) in helpers {
            let answer = call(&helper, "erase", server(&host).as_bytes())?;
            if answer.success {
                gone.push(host);
            } else if !String::from_utf8_lossy(&answer.stdout).contains("credentials not found") {
                return Err(failed(&helper, &String::from_utf8_lossy(&answer.stdout), &answer.stderr));
            }
        }
    }
    gone.sort();
    gone.dedup();
    Ok(gone)
}

/// Read, change and write back one file, alone: other programs' keys stay, the new file has mode 0600 and is whole at any time.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>, &AuthFile) -> Result<bool>) -> Result<()> {
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        dirs::make(dir)?;
    }
    let lock = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing("open", dir.display())?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).doing("lock", dir.display())?;
    let bytes = Zeroizing::new(trust::bytes(path, FILE_LIMIT)?.map(|(bytes, _)| bytes).unwrap_or_default());
    let reading = |e: Error| e.context(format!("reading {}", path.display()));
    let known = AuthFile::parse(&bytes).map_err(reading)?;
    let mut file: Map<String, Value> =
        if bytes.iter().all(u8::is_ascii_whitespace) { Map::new() } else { serde_json::from_slice(&bytes).unwrap_or_default() };
    if !edit(&mut file, &known).map_err(reading)? {
        return Ok(());
    }
    let text = Zeroizing::new(serde_json::to_string_pretty(&file).unwrap_or_default() + "\n");
    // A link stays a link; what it leads to is replaced.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = real.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let new = real.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut out = File::from(rustix::fs::open(&new, flags, Mode::RUSR | Mode::WUSR).doing("make", new.display())?);
    let written = out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&new, &real));
    written.inspect_err(|_| drop(std::fs::remove_file(&new))).doing("write", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn user(file: &str, host: &str, repository: &str) -> Option<String> {
        match AuthFile::parse(file.as_bytes()).unwrap().secret(host, repository).unwrap()? {
            Secret::Password { user, password } => Some(format!("{user} {}", *password)),
            Secret::IdentityToken(token) => Some(format!("token {}", *token)),
        }
    }

    #[test]
    fn the_closest_entry_wins() {
        let file = r#"{"auths": {"r.example": {"auth": "YTox"}, "r.example/team": {"auth": "Yjoy"}, "r.example/team/app": {"identitytoken": "t"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p:q"}, "empty.example": {}, "https://u.example:444/v2/": {"auth": "YTpiOmM="}}, "x": 1}"#;
        assert_eq!(user(file, "r.example", "other/x").unwrap(), "a 1");
        assert_eq!(user(file, "r.example", "team/x").unwrap(), "b 2");
        assert_eq!(user(file, "r.example", "team/app").unwrap(), "token t");
        assert_eq!(user(file, "r.example", "teams").unwrap(), "a 1");
        assert_eq!(user(file, "docker.io", "library/x").unwrap(), "hub p:q");
        assert_eq!(user(file, "u.example:444", "x").unwrap(), "a b:c");
        for none in ["empty.example", "r.example.evil", "example", "u.example"] {
            assert_eq!(user(file, none, "x"), None, "{none}");
        }
    }

    #[test]
    fn errors_quote_no_secret() {
        for bad in [
            r#"{"auths": {"h": {"auth": ["topsecret"]}}}"#,
            r#"{"auths": {"h": "topsecret"}}"#,
            r#"topsecret"#,
            r#"{"auths": {"h": {"auth": "dG9wc2VjcmV0"}}}"#,
        ] {
            let error = AuthFile::parse(bad.as_bytes()).and_then(|f| f.secret("h", "x")).unwrap_err().to_string();
            assert!(!error.contains("topsecret") && !error.contains("dG9w"), "{error}");
        }
        assert_eq!(format!("{:?}", password_of("u", "topsecret")), "Secret");
    }

    #[test]
    fn kept_and_forgotten() {
        let dir = std::env::temp_dir().join(format!("sandbox-auth-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
        let file = dir.join("auth.json");
        std::fs::write(&file, r#"{"auths": {"other.example": {"auth": "YTox"}}, "psFormat": "table"}"#).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        store("r.example", "u", "p", Some(&file), &dir).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("psFormat") && text.contains("other.example"), "{text}");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(find("r.example", "x", Some(&file), &dir).unwrap(), Some(Secret::Password { .. })));
        assert_eq!(forget(Some("r.example"), Some(&file), &dir).unwrap(), ["r.example"]);
        assert!(find("r.example", "x", Some(&file), &dir).unwrap().is_none());
        assert_eq!(forget(None, Some(&file), &dir).unwrap(), ["other.example"]);
        // Passwords that others can read are not used; a file that others can write is not even read.
        store("r.example", "u", "p", Some(&file), &dir).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(find("r.example", "x", Some(&file), &dir).unwrap_err().cure().unwrap().contains("chmod 600"));
        assert!(find("elsewhere.example", "x", Some(&file), &dir).unwrap().is_none());
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o620)).unwrap();
        assert_eq!(find("elsewhere.example", "x", Some(&file), &dir).unwrap_err().kind(), Kind::Denied);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_helper_is_a_plain_name() {
        for bad in ["../x", "a/b", "-x", "", "a b", "a\n"] {
            let refused = call(bad, "get", b"x");
            assert!(refused.is_err(), "{bad}");
        }
    }
}
