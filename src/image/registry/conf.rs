//! `registries.conf`, as podman and skopeo read it: which hosts stand for a name, which mirrors come first, which are blocked.
//!
//! Called by `pull`, `push` and `mod`; reads files, never the network. Version 2 of the format only: version 1 could block registries
//! too, so a file of that kind is an error and no silence. man: containers-registries.conf(5)

use super::trust;
use crate::dirs;
use crate::error::{Doing, Error, Kind, Result};
use crate::ident::ImageName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE_LIMIT: u64 = 1 << 20;

/// All that the files say, later ones over earlier ones.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Registries {
    tables: BTreeMap<String, Table>,
    aliases: BTreeMap<String, String>,
    search: Option<Vec<String>>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct File {
    #[serde(rename = "unqualified-search-registries")]
    search: Option<Vec<String>>,
    registry: Vec<Table>,
    aliases: BTreeMap<String, String>,
    /// Version 1.
    registries: Option<toml::Value>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    #[serde(rename = "mirror-by-digest-only")]
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct Mirror {
    location: String,
    insecure: bool,
    #[serde(rename = "pull-from-mirror")]
    pull_from: Option<String>,
}

/// One place where a name can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port, as the user would write it: `docker.io`.
    pub host: String,
    pub repository: String,
    /// Plain HTTP, or a certificate that nobody vouches for, will do.
    pub insecure: bool,
}

impl Registries {
    /// What is said on this machine. `$CONTAINERS_REGISTRIES_CONF` alone, or the user's file instead of the site's; then the drop-ins of
    /// the site and of the user.
    pub fn load(home: &Path) -> Result<Registries> {
        let own = dirs::containers(home);
        let mut files = Vec::new();
        match std::env::var_os("CONTAINERS_REGISTRIES_CONF") {
            Some(one) => files.push(PathBuf::from(one)),
            None => {
                let users = own.join("registries.conf");
                files.push(if users.exists() { users } else { "/etc/containers/registries.conf".into() });
                files.extend(drop_ins(Path::new("/etc/containers/registries.conf.d"))?);
                files.extend(drop_ins(&own.join("registries.conf.d"))?);
            }
        }
        let mut all = Registries::default();
        for path in files {
            let Some(text) = trust::text(&path, FILE_LIMIT)? else { continue };
            all.add(&text).map_err(|e| e.context(format!("reading {}", path.display())))?;
        }
        Ok(all)
    }

    /// One more file: its tables replace those of the same prefix.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let file: File = toml::from_str(text).map_err(|e| {
            let line = e.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
            Error::usage(format!("cannot read registries.conf: {} in line {line}", e.message().replace('\n', " ")))
        })?;
        if file.registries.is_some() {
            return Err(
                Error::usage("cannot read registries.conf: it is of version 1").hint("write [[registry]] tables; see containers-registries.conf(5)")
            );
        }
        for table in file.registry {
            let prefix = table.prefix.clone().or_else(|| table.location.clone()).unwrap_or_default();
            let location = table.location.as_deref().unwrap_or(&prefix);
            if !is_place(prefix.strip_prefix("*.").unwrap_or(&prefix))
                || !(is_place(location) || prefix.starts_with("*.") && table.location.is_none())
            {
                return Err(Error::usage(format!("bad registry '{prefix}': HOST[:PORT][/REPOSITORY], or *.DOMAIN as a prefix")));
            }
            if let Some(bad) = table.mirror.iter().find(|m| !is_place(&m.location)) {
                return Err(Error::usage(format!("bad mirror '{}': HOST[:PORT][/REPOSITORY]", bad.location)));
            }
            for mirror in &table.mirror {
                if let Some(word) = &mirror.pull_from
                    && !["all", "digest-only", "tag-only"].contains(&word.as_str())
                {
                    return Err(Error::usage(format!("bad pull-from-mirror '{word}': all, digest-only or tag-only")));
                }
            }
            self.tables.insert(prefix, table);
        }
        for (short, whole) in file.aliases {
            // An empty one takes an alias back.
            if !whole.is_empty() {
                whole.parse::<ImageName>()?;
            }
            self.aliases.insert(short, whole);
        }
        if file.search.is_some() {
            self.search = file.search;
        }
        Ok(())
    }

    /// What the user wrote, as a whole name. A short one is an alias, or Docker Hub's, unless the site says that it searches elsewhere.
    /// cve: 2021-32635
    pub fn resolve(&self, text: &str) -> Result<ImageName> {
        let name: ImageName = text.parse()?;
        if !is_short(text) {
            return Ok(name);
        }
        let end = text.split('@').next().unwrap_or(text);
        let short = end.rsplit_once(':').map_or(end, |(path, _)| path);
        if let Some(whole) = self.aliases.get(short).filter(|w| !w.is_empty()) {
            return format!("{whole}{}", &text[short.len()..]).parse();
        }
        match &self.search {
            Some(hosts) if !hosts.is_empty() && !hosts.iter().any(|h| h == "docker.io") => {
                let candidates: Vec<_> = hosts.iter().map(|h| format!("{h}/{text}")).collect();
                Err(Error::usage(format!("cannot tell which registry '{text}' is from: docker.io is none of unqualified-search-registries"))
                    .hint(format!("write the whole name, such as {}", candidates.join(" or "))))
            }
            _ => Ok(name),
        }
    }

    /// Where to pull from, in this order: the mirrors, then the place itself.
    pub fn sources(&self, name: &ImageName) -> Result<Vec<Endpoint>> {
        let (table, place) = self.place(name)?;
        let Some((prefix, table)) = table else { return Ok(vec![place]) };
        let pinned = name.digest().is_some();
        let usable = |m: &&Mirror| match m.pull_from.as_deref() {
            Some("digest-only") => pinned,
            Some("tag-only") => !pinned,
            _ => pinned || !table.mirror_by_digest_only,
        };
        let mirrors = table.mirror.iter().filter(usable).map(|m| moved(name, prefix, &m.location, m.insecure));
        Ok(mirrors.chain([place]).collect())
    }

    /// Where to push to: no mirror.
    pub fn target(&self, name: &ImageName) -> Result<Endpoint> {
        Ok(self.place(name)?.1)
    }

    fn place<'a>(&'a self, name: &ImageName) -> Result<(Option<(&'a str, &'a Table)>, Endpoint)> {
        let whole = format!("{}/{}", name.registry(), name.repository());
        let fits = |prefix: &str| match prefix.strip_prefix('*') {
            Some(domain) => name.registry().ends_with(domain),
            None => {
                let rest = whole.strip_prefix(prefix);
                rest.is_some_and(|r| r.is_empty() || r.starts_with('/'))
                    || name.to_string().strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('@'))
            }
        };
        let found = self.tables.iter().filter(|(prefix, _)| fits(prefix)).max_by_key(|(prefix, _)| prefix.len());
        let Some((prefix, table)) = found else { return Ok((None, moved(name, name.registry(), name.registry(), false))) };
        if table.blocked {
            return Err(Error::new(Kind::Denied, format!("cannot use {whole}: registries.conf blocks {prefix}"))
                .hint("name another registry, or ask the administrator of this machine"));
        }
        let place = match &table.location {
            Some(location) if !prefix.starts_with('*') => moved(name, prefix, location, table.insecure),
            Some(location) => moved(name, name.registry(), location, table.insecure),
            None => moved(name, name.registry(), name.registry(), table.insecure),
        };
        Ok((Some((prefix, table)), place))
    }

    /// Of a bare host, for login and search.
    pub fn insecure(&self, host: &str) -> bool {
        self.tables.get(host).is_some_and(|t| t.insecure)
    }
}

/// The prefix of a name, replaced by a location. A tag in the prefix stays where it is: it is asked for apart.
fn moved(name: &ImageName, prefix: &str, location: &str, insecure: bool) -> Endpoint {
    let whole = format!("{}/{}", name.registry(), name.repository());
    let rest = match prefix.strip_prefix("*.") {
        Some(_) => whole.strip_prefix(name.registry()),
        None => whole.strip_prefix(prefix),
    };
    let all = format!("{location}{}", rest.unwrap_or_default());
    let (host, repository) = all.split_once('/').unwrap_or((&all, ""));
    Endpoint { host: host.to_string(), repository: repository.to_string(), insecure }
}

/// `HOST[:PORT][/REPOSITORY]`; the rules of a name are the judge.
fn is_place(text: &str) -> bool {
    let (host, rest) = text.split_once('/').unwrap_or((text, "x"));
    // A bare word is a host here, where a name would take it for a repository.
    let host = if host.contains(['.', ':']) || host == "localhost" { host.to_string() } else { format!("{host}.x") };
    format!("{host}/{rest}").parse::<ImageName>().is_ok()
}

/// Without a registry in front. docker: distribution/reference
fn is_short(text: &str) -> bool {
    match text.split_once('/') {
        Some((first, _)) => !(first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())),
        None => true,
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).doing("read", dir.display()),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.doing("read", dir.display())?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Registries {
        let mut all = Registries::default();
        all.add(text).unwrap();
        all
    }

    fn shown(places: &[Endpoint]) -> Vec<String> {
        places.iter().map(|p| format!("{}/{}{}", p.host, p.repository, if p.insecure { " insecure" } else { "" })).collect()
    }

    #[test]
    fn prefixes_locations_and_mirrors() {
        let conf = read(
            r#"
            [[registry]]
            prefix = "docker.io"
            location = "hub.example.net"
            [[registry.mirror]]
            location = "localhost:5000/cache"
            insecure = true
            [[registry.mirror]]
            location = "m.example.net"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/library/debian"
            location = "deb.example.net/os/debian"
            [[registry]]
            prefix = "*.bad.example"
            blocked = true
            [[registry]]
            location = "plain.example.net:5000"
            insecure = true
        "#,
        );
        let places = |name: &str| conf.sources(&name.parse().unwrap()).map(|p| shown(&p)).map_err(|e| e.to_string());
        assert_eq!(places("a/b").unwrap(), ["localhost:5000/cache/a/b insecure", "hub.example.net/a/b"]);
        let pinned = format!("a/b@sha256:{}", "0".repeat(64));
        assert_eq!(places(&pinned).unwrap(), ["localhost:5000/cache/a/b insecure", "m.example.net/a/b", "hub.example.net/a/b"]);
        assert_eq!(places("debian:12").unwrap(), ["deb.example.net/os/debian"]);
        assert_eq!(places("debian-slim").unwrap_or_default().last().unwrap(), "hub.example.net/library/debian-slim");
        assert_eq!(places("plain.example.net:5000/x").unwrap(), ["plain.example.net:5000/x insecure"]);
        assert_eq!(places("plain.example.net/x").unwrap(), ["plain.example.net/x"]);
        assert!(places("a.bad.example/x").unwrap_err().contains("blocks"));
        assert!(places("bad.example/x").is_ok());
        assert_eq!(shown(&[conf.target(&"a/b".parse().unwrap()).unwrap()]), ["hub.example.net/a/b"]);
    }

    #[test]
    fn cve_2021_32635_a_short_name_is_not_searched_for() {
        let conf = read("[aliases]\n\"debian\" = \"deb.example.net/os/debian\"\n");
        assert_eq!(conf.resolve("debian:12").unwrap().to_string(), "deb.example.net/os/debian:12");
        assert_eq!(conf.resolve("other").unwrap().to_string(), "docker.io/library/other:latest");
        let elsewhere = read("unqualified-search-registries = [\"r.example.net\"]\n");
        let error = elsewhere.resolve("debian").unwrap_err();
        assert!(error.cure().unwrap().contains("r.example.net/debian"));
        assert!(elsewhere.resolve("docker.io/library/debian").is_ok());
        assert!(read("unqualified-search-registries = [\"r.example.net\", \"docker.io\"]\n").resolve("debian").is_ok());
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "[registries.block]\nregistries = [\"x\"]\n",
            "[[registry]]\nlocation = \"https://x\"\n",
            "[[registry]]\nprefix = \"a b\"\n",
            "[[registry]]\nblocked = true\n",
            "[[registry]]\nlocation = \"x.y\"\n[[registry.mirror]]\nlocation = \"../z\"\n",
            "[[registry]]\nlocation = \"x.y\"\n[[registry.mirror]]\nlocation = \"z\"\npull-from-mirror = \"never\"\n",
            "[aliases]\na = \"B C\"\n",
            "[[registry]\n",
        ] {
            assert!(Registries::default().add(bad).is_err(), "{bad}");
        }
    }
}
