//! Names of images: Docker Hub's index, or the catalog of another registry, where it has one.
//!
//! Called by `cli`. What comes back is a stranger's text: bounded, and escaped where it is shown.

use super::conf::Endpoint;
use super::wire::{Ask, MANIFEST_LIMIT, Remote, Wire};
use super::{Options, bare};
use crate::error::{Error, Kind, Result};
use reqwest::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};

/// Of a catalog: what has more is asked with a longer word.
const PAGES: usize = 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// With its registry.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub stars: u64,
    #[serde(default)]
    pub official: bool,
}

/// `WORD` at Docker Hub, `HOST/WORD` elsewhere; at most `limit`.
pub fn search(term: &str, limit: usize, options: &Options) -> Result<Vec<Found>> {
    let (host, word) = match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", term),
    };
    let endpoint = bare(host, &options.home)?;
    if endpoint.host == "docker.io" { hub(&endpoint, word, limit, options) } else { catalog(&endpoint, word, limit, options) }
}

/// docker: the index's v1 search, which docker search asks too
fn hub(endpoint: &Endpoint, word: &str, limit: usize, options: &Options) -> Result<Vec<Found>> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        name: String,
        description: Option<String>,
        star_count: Option<u64>,
        is_official: Option<bool>,
    }
    // The index is another host than the registry, and is asked without a password.
    let index = Endpoint { host: "index.docker.io".into(), ..endpoint.clone() };
    let remote = Remote::new(&index, options, None)?;
    let mut url = remote.root("v1/search")?;
    url.query_pairs_mut().append_pair("q", word).append_pair("n", &limit.clamp(1, 100).to_string());
    let (_, bytes) = Wire::new(&remote)?.document("the search", url, "application/json", "", MANIFEST_LIMIT)?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| remote.error("it does not answer a search as agreed"))?;
    let found = answer.results.into_iter().take(limit).map(|one| Found {
        name: format!("docker.io/{}{}", if one.name.contains('/') { "" } else { "library/" }, one.name),
        description: one.description.unwrap_or_default(),
        stars: one.star_count.unwrap_or(0),
        official: one.is_official.unwrap_or(false),
    });
    Ok(found.collect())
}

/// oci: distribution-spec leaves it out; docker: distribution/spec/api, catalog
fn catalog(endpoint: &Endpoint, word: &str, limit: usize, options: &Options) -> Result<Vec<Found>> {
    #[derive(Deserialize)]
    struct Page {
        repositories: Option<Vec<String>>,
    }
    let remote = Remote::new(endpoint, options, None)?;
    let wire = Wire::new(&remote)?;
    let none = || {
        Error::new(Kind::Unsupported, format!("cannot search {}: it does not list what it has", endpoint.host))
            .hint("name the image whole, or look at the registry's own pages")
    };
    let (mut found, mut last) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let mut url = remote.root("v2/_catalog")?;
        url.query_pairs_mut().append_pair("n", "1000");
        if !last.is_empty() {
            url.query_pairs_mut().append_pair("last", &last);
        }
        let probe = wire.send(&Ask::new(Method::HEAD, url.clone(), ""))?;
        if !matches!(probe.status(), StatusCode::OK | StatusCode::METHOD_NOT_ALLOWED) {
            return Err(if matches!(probe.status().as_u16(), 401 | 403) {
                wire.refusal(&format!("the list of {}", endpoint.host), probe)
            } else {
                none()
            });
        }
        let (headers, bytes) = wire.document("the catalog", url, "application/json", "", MANIFEST_LIMIT)?;
        let page: Page = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let names = page.repositories.unwrap_or_default();
        found.extend(names.iter().filter(|n| n.contains(word)).map(|name| Found {
            name: format!("{}/{name}", endpoint.host),
            description: String::new(),
            stars: 0,
            official: false,
        }));
        found.truncate(limit);
        match names.last() {
            Some(name) if found.len() < limit && headers.contains_key(header::LINK) => last = name.clone(),
            _ => break,
        }
    }
    Ok(found)
}
