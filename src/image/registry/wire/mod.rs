//! Requests to one registry, with everything that a hostile answer could try refused on the way.
//!
//! *What*: `Remote` is a registry and who we are to it, shared by threads; `Wire` is one thread's connections. `document` brings small
//! things whole, `blob` large ones as a reader that goes on after a lost connection, `send` is for uploads.
//!
//! Called by `pull`, `push`, `search` and `login`. Must never show a secret, nor a URL that somebody else made (they carry signatures).
//!
//! *Invariants*
//! - I1 `Authorization` goes to the origin that the user named, and to its token service; to nobody else. cve: 2020-15157
//! - I2 redirects: at most five, never from https to http, never from a public registry to an address that is not public, never to a
//!   link-local one; names are judged by what they resolve to, at the moment of connecting.
//! - I3 nothing is read beyond its limit, and nothing is waited for longer than `stall` without progress.

mod body;
mod names;

pub use body::{Blame, Blob, Outgoing};
use names::{Names, NotPublic, Unknown};

use super::auth::{self, Challenge};
use super::conf::Endpoint;
use super::credentials::{self, Secret};
use super::{Options, tls};
use crate::error::{Error, Kind, Result, printable};
use crate::ident::Digest;
use crate::image::Descriptor;
use base64::Engine;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response, StatusCode, Url};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

/// SECURITY limits on hostile bytes.
pub const MANIFEST_LIMIT: usize = 4 << 20;
const TOKEN_LIMIT: usize = 1 << 20;
const ERROR_LIMIT: usize = 1 << 20;
const HEADER_LIMIT: usize = 64 << 10;
const REDIRECTS: usize = 5;
/// After the first try.
const RETRIES: u32 = 4;
/// In one stall time; who is slower is stuck, however busy it looks.
const TRICKLE: u64 = 16 << 10;

/// A registry, and who we are to it.
pub struct Remote {
    pub endpoint: Endpoint,
    base: Url,
    secret: Option<Secret>,
    /// Authorization values by scope.
    granted: Mutex<BTreeMap<String, Zeroizing<String>>>,
    proxies: Matcher,
    own_tls: rustls::ClientConfig,
    other_tls: OnceLock<rustls::ClientConfig>,
    stall: Duration,
    home: PathBuf,
    auth_file: Option<PathBuf>,
}

impl Remote {
    /// `secret`: instead of the one that is on file.
    pub fn new(endpoint: &Endpoint, options: &Options, secret: Option<Secret>) -> Result<Arc<Remote>> {
        let host = if endpoint.host == "docker.io" { "registry-1.docker.io" } else { &endpoint.host };
        let parse = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/")).map_err(|_| Error::usage(format!("bad registry '{}': a host, and a port", endpoint.host)))
        };
        let https = parse("https")?;
        let verify = options.tls_verify.unwrap_or(!endpoint.insecure);
        let secret = match secret {
            Some(secret) => Some(secret),
            None => credentials::find(&endpoint.host, &endpoint.repository, options.auth_file.as_deref(), &options.home)?,
        };
        let mut remote = Arc::new(Remote {
            endpoint: endpoint.clone(),
            base: https.clone(),
            secret,
            granted: Mutex::default(),
            proxies: Matcher::from_env(),
            own_tls: tls::config(Some(&endpoint.host), options.cert_dir.as_deref(), &options.home, verify)?,
            other_tls: OnceLock::new(),
            stall: stall(),
            home: options.home.clone(),
            auth_file: options.auth_file.clone(),
        });
        // Plain HTTP only on this machine, or where the user said that it will do; and only if nobody speaks TLS there.
        if (auth::is_local(&https) || !verify) && !Wire::new(&remote)?.speaks_tls() {
            let base = parse("http")?;
            Arc::get_mut(&mut remote).ok_or_else(|| Error::new(Kind::Bug, "somebody holds the registry"))?.base = base;
        }
        Ok(remote)
    }

    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// `v2/NAME/...` as a URL.
    pub fn url(&self, rest: &str) -> Result<Url> {
        let path = if self.endpoint.repository.is_empty() { format!("v2/{rest}") } else { format!("v2/{}/{rest}", self.endpoint.repository) };
        self.base.join(&path).map_err(|_| self.error(format!("'{path}' is no path")))
    }

    /// An address that the registry gave us for an upload: its own, or refused. cve: 2020-15157
    pub fn own(&self, base: &Url, location: &str) -> Result<Url> {
        let url = base.join(location).map_err(|_| self.error("it sends the upload to something that is no URL"))?;
        if url.origin() != self.base.origin() || !url.username().is_empty() {
            return Err(self.error(format!("it sends the upload to another host: {}", shown(url.host_str().unwrap_or("?")))).denied());
        }
        Ok(url)
    }

    pub fn root(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|_| self.error("no such path"))
    }

    pub fn error(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Io, format!("cannot talk to {}: {why}", self.endpoint.host))
    }

    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    fn pause(&self, attempt: u32) -> Duration {
        self.stall / 30 * 2u32.pow(attempt.min(6))
    }

    fn hint_login(&self) -> String {
        format!("sandbox login {}", self.endpoint.host)
    }
}

trait Denied {
    fn denied(self) -> Error;
}

impl Denied for Error {
    fn denied(self) -> Error {
        let error = Error::new(Kind::Denied, self.message());
        if let Some(cure) = self.cure() { error.hint(cure) } else { error }
    }
}

/// How long nothing may happen: 30 s; less in tests.
fn stall() -> Duration {
    let wanted = std::env::var("SANDBOX_STALL").ok().and_then(|v| v.parse::<f64>().ok()).filter(|v| v.is_finite());
    Duration::from_secs_f64(wanted.unwrap_or(30.0).clamp(0.1, 30.0))
}

/// Text of the other side, in one line, short, and without control over our terminal.
pub fn shown(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(200).collect();
    printable(&short)
}

/// What an exchange asks for.
pub struct Ask<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, String)>,
    /// Made anew for every try.
    pub body: &'a dyn Fn() -> Result<Option<Outgoing>>,
    /// `repository:NAME:pull`; empty: whatever the registry says.
    pub scope: &'a str,
}

impl Ask<'_> {
    pub fn new(method: Method, url: Url, scope: &str) -> Ask<'_> {
        Ask { method, url, headers: Vec::new(), body: &|| Ok(None), scope }
    }

    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Why one try failed.
enum Failure {
    /// Trying again may help, after so long.
    Passing(Error, Option<Duration>),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

/// One thread's connections to a registry.
pub struct Wire {
    pub remote: Arc<Remote>,
    runtime: tokio::runtime::Runtime,
    /// By (the registry itself, only public addresses, through the proxy).
    clients: RefCell<BTreeMap<(bool, bool, bool), Client>>,
}

impl Wire {
    pub fn new(remote: &Arc<Remote>) -> Result<Wire> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| remote.error(crate::error::why(&e)))?;
        Ok(Wire { remote: remote.clone(), runtime, clients: RefCell::default() })
    }

    fn client(&self, own: bool, guarded: bool, proxied: bool) -> Result<Client> {
        let key = (own, guarded, proxied);
        if let Some(client) = self.clients.borrow().get(&key) {
            return Ok(client.clone());
        }
        let remote = &*self.remote;
        let tls = match (own, remote.other_tls.get()) {
            (true, _) => remote.own_tls.clone(),
            (false, Some(tls)) => tls.clone(),
            // What certs.d and --tls-verify say is about the registry, not about where it sends us.
            (false, None) => {
                let tls = tls::config(None, None, &remote.home, true)?;
                remote.other_tls.get_or_init(|| tls).clone()
            }
        };
        let builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(remote.stall)
            .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Names { guarded, resolver: OnceLock::new() }));
        let builder = if proxied { builder } else { builder.no_proxy() };
        let client = builder.build().map_err(|e| remote.error(cause(&e)))?;
        self.clients.borrow_mut().insert(key, client.clone());
        Ok(client)
    }

    /// Does anybody answer a TLS greeting there? Asked without any credentials.
    fn speaks_tls(&self) -> bool {
        let proxied = self.is_proxied(&self.remote.base);
        let Ok(client) = self.client(true, false, proxied) else { return true };
        let patience = self.remote.stall.min(Duration::from_secs(3));
        let tried = self.runtime.block_on(async { tokio::time::timeout(patience, client.head(self.remote.base.clone()).send()).await });
        match tried {
            Ok(Ok(_)) => true,
            // A certificate that is not believed is a certificate.
            Ok(Err(e)) => {
                let tls = sources(&e).find_map(|s| s.downcast_ref::<rustls::Error>());
                tls.is_some_and(|e| matches!(e, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)))
            }
            Err(_) => false,
        }
    }

    /// Through a proxy, as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; this machine never.
    fn is_proxied(&self, url: &Url) -> bool {
        !auth::is_local(url) && url.as_str().parse().is_ok_and(|uri| self.remote.proxies.intercept(&uri).is_some())
    }

    /// The answer to one request, redirects followed and challenges met; any status that trying again does not change.
    pub fn send(&self, ask: &Ask) -> Result<Response> {
        self.again(|wire| wire.runtime.block_on(wire.exchange(ask)))
    }

    /// Try, and try again with growing pauses.
    fn again<T>(&self, mut attempt: impl FnMut(&Self) -> Result<T, Failure>) -> Result<T> {
        for number in 0.. {
            match attempt(self) {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error, _)) if number >= RETRIES => return Err(error),
                Err(Failure::Passing(error, wished)) => {
                    // At the usual pace of a second: a minute. What wants more is an error that says so.
                    if wished.is_some_and(|w| w > self.remote.stall * 2) {
                        return Err(error);
                    }
                    std::thread::sleep(wished.unwrap_or(Duration::ZERO).max(self.remote.pause(number)));
                }
            }
        }
        Err(Error::new(Kind::Bug, "cannot count the tries"))
    }

    async fn exchange(&self, ask: &Ask<'_>) -> Result<Response, Failure> {
        let remote = &*self.remote;
        let (mut url, mut redirects, mut guarded, mut authorized) = (ask.url.clone(), 0, false, false);
        loop {
            let own = remote.is_own(&url);
            let proxied = self.is_proxied(&url);
            let client = self.client(own, guarded && !proxied, proxied)?;
            let mut request = Request::new(ask.method.clone(), url.clone());
            let headers = request.headers_mut();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            for (name, value) in &ask.headers {
                headers.insert(name, HeaderValue::from_str(value).map_err(|_| remote.error("bad header"))?);
            }
            // I1
            if own && let Some(value) = remote.granted.lock().unwrap_or_else(PoisonError::into_inner).get(ask.scope) {
                headers.insert(header::AUTHORIZATION, secret_value(value).ok_or_else(|| remote.error("its token has odd characters"))?);
            }
            let mut sent = None;
            if let Some(body) = (ask.body)()? {
                sent = Some(body.sent.clone());
                *request.body_mut() = Some(Body::wrap(body));
            }
            let response = self.execute(&client, request, sent.as_deref()).await?;
            let status = response.status();
            // A public registry does not send us into somebody's own network. I2
            guarded = guarded || self.is_public(&response, proxied);
            if status == StatusCode::UNAUTHORIZED && own && !authorized {
                authorized = true;
                self.authorize(&response, ask.scope, guarded).await?;
                continue;
            }
            let location = response.headers().get(header::LOCATION).filter(|_| matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308));
            if let Some(location) = location {
                redirects += 1;
                if ask.method != Method::GET && ask.method != Method::HEAD {
                    return Err(Failure::Final(remote.error("it sends the upload somewhere else").denied()));
                }
                if redirects > REDIRECTS {
                    return Err(Failure::Final(remote.error(format!("more than {REDIRECTS} redirects"))));
                }
                url = self.redirect(&url, location, guarded)?;
                continue;
            }
            return match status.as_u16() {
                408 | 429 | 500 | 502..=504 => {
                    let wished =
                        response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
                    let patience = wished.map(|w| format!(", and asks to wait {} s", w.as_secs())).unwrap_or_default();
                    Err(Failure::Passing(remote.error(format!("it answers {}{patience}", self.complaint(response).await)), wished))
                }
                _ => Ok(response),
            };
        }
    }

    /// Where a redirect leads, if it may be followed.
    fn redirect(&self, from: &Url, location: &HeaderValue, guarded: bool) -> Result<Url> {
        let refuse = |why: &str| self.remote.error(format!("cannot follow its redirect: {why}")).denied();
        let text = location.to_str().map_err(|_| refuse("it is no text"))?;
        let url = from.join(text).map_err(|_| refuse("it is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it is neither http nor https, or carries a password"));
        }
        if from.scheme() == "https" && url.scheme() == "http" {
            return Err(refuse("it leads from https to http"));
        }
        if self.remote.is_own(&url) {
            return Ok(url);
        }
        if auth::address(&url).is_some_and(auth::is_link_local) {
            return Err(refuse("it leads to a link-local address"));
        }
        if guarded && (auth::is_local(&url) || auth::address(&url).is_some_and(|ip| !auth::is_public(ip))) {
            return Err(refuse("it leads from a public registry to a private address"));
        }
        Ok(url)
    }

    /// Whether who answered is on the open internet.
    fn is_public(&self, response: &Response, proxied: bool) -> bool {
        match response.remote_addr() {
            Some(address) if !proxied => auth::is_public(address.ip()),
            _ => !auth::is_local(response.url()) && auth::address(response.url()).is_none_or(auth::is_public),
        }
    }

    async fn execute(&self, client: &Client, request: Request, sent: Option<&AtomicU64>) -> Result<Response, Failure> {
        let remote = &*self.remote;
        let own = remote.is_own(request.url());
        let mut pending = Box::pin(client.execute(request));
        let mut before = 0;
        let answer = loop {
            match tokio::time::timeout(remote.stall, &mut pending).await {
                Ok(answer) => break answer,
                // An upload that moves on is not stuck. I3
                Err(_) => match sent.map(|s| s.load(Ordering::Relaxed)) {
                    Some(now) if now > before => before = now,
                    _ => return Err(Failure::Passing(remote.error(format!("no answer in {} s", remote.stall.as_secs_f32())), None)),
                },
            }
        };
        let response = answer.map_err(|e| self.lost(&e, own))?;
        let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > HEADER_LIMIT {
            return Err(Failure::Final(remote.error("the header of its answer is larger than 64 KiB")));
        }
        Ok(response)
    }

    /// A connection that failed or broke.
    fn lost(&self, e: &reqwest::Error, own: bool) -> Failure {
        let why = cause(e);
        let place = if own { String::new() } else { "the host that it sends us to: ".to_string() };
        let error = self.remote.error(format!("{place}{}", shown(&why)));
        let refused = sources(e).any(|s| s.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused));
        let tls = sources(e).any(|s| s.is::<rustls::Error>());
        let dns = sources(e).any(|s| s.is::<Unknown>() || s.is::<NotPublic>());
        if why.contains("UnknownIssuer") {
            let host = self.remote.host();
            return Failure::Final(error.hint(format!(
                "put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt, or name the directory: --cert-dir DIR"
            )));
        }
        let error = match e.url().is_some_and(|url| self.is_proxied(url)) {
            true => error.hint("it is reached through a proxy: HTTPS_PROXY, HTTP_PROXY and NO_PROXY say which, and for what"),
            false => error,
        };
        // A message that cannot be parsed (a header without an end, say) will not get better.
        let parse = why.contains("invalid HTTP") || why.contains("message head is too large") || why.contains("header");
        if refused || tls || dns || parse { Failure::Final(error) } else { Failure::Passing(error, None) }
    }

    /// Meet a challenge: afterwards `granted` has what the next try shows.
    async fn authorize(&self, response: &Response, scope: &str, guarded: bool) -> Result<(), Failure> {
        let remote = &*self.remote;
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = Challenge::parse(headers.iter().map(HeaderValue::as_bytes))
            .map_err(|e| Error::new(e.kind(), format!("cannot talk to {}: {}", remote.host(), e.message())))?;
        let value = match challenge {
            Challenge::Basic => match &remote.secret {
                Some(Secret::Password { user, password }) => basic(user, password),
                _ => {
                    let error = Error::new(Kind::Denied, format!("cannot talk to {}: it wants a user and a password", remote.host()));
                    return Err(Failure::Final(error.hint(remote.hint_login())));
                }
            },
            Challenge::Bearer { realm, service, scope: wished } => {
                let realm = auth::realm(&realm, &remote.base)?;
                if guarded && (auth::is_local(&realm) || auth::address(&realm).is_some_and(|ip| !auth::is_public(ip))) {
                    return Err(Failure::Final(remote.error("it sends us to a private address for a token").denied()));
                }
                let secret = self.secret_for(&realm)?;
                let scope = if scope.is_empty() { wished.unwrap_or_default() } else { scope.to_string() };
                self.token(realm, service, &scope, secret, guarded).await?
            }
        };
        remote.granted.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.to_string(), value);
        Ok(())
    }

    /// What a token service may know: the registry's secret if it belongs to the registry, else one of its own.
    fn secret_for(&self, realm: &Url) -> Result<Option<Secret>> {
        let remote = &*self.remote;
        if remote.secret.is_none() || auth::belongs(realm, &remote.base) {
            return Ok(remote.secret.clone());
        }
        let host = realm.host_str().unwrap_or_default();
        let host = realm.port().map_or(host.to_string(), |port| format!("{host}:{port}"));
        match credentials::find(&host, "", remote.auth_file.as_deref(), &remote.home)? {
            Some(secret) => Ok(Some(secret)),
            None => Err(Error::new(
                Kind::Denied,
                format!("cannot log in to {}: it wants its password sent to another domain, {}", remote.host(), shown(&host)),
            )
            .hint(format!(
                "if that is right, add an entry for {} to your auth.json; else: sandbox logout {}",
                shown(&host),
                remote.host()
            ))),
        }
    }

    async fn token(
        &self,
        realm: Url,
        service: Option<String>,
        scope: &str,
        secret: Option<Secret>,
        guarded: bool,
    ) -> Result<Zeroizing<String>, Failure> {
        let remote = &*self.remote;
        let host = realm.host_str().unwrap_or("?").to_string();
        let proxied = self.is_proxied(&realm);
        // certs.d is about the registry's own token service, too. cve: 2019-10214
        let client = self.client(auth::belongs(&realm, &remote.base), guarded && !proxied, proxied)?;
        let mut fields: Vec<(&str, String)> = service.map(|s| ("service", s)).into_iter().collect();
        fields.extend(scope.split(' ').filter(|s| !s.is_empty()).map(|s| ("scope", s.to_string())));
        let mut url = realm;
        let mut request = match secret {
            Some(Secret::IdentityToken(token)) => {
                // rfc: 6749 section 6
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "sandbox")
                    .append_pair("refresh_token", &token)
                    .extend_pairs(&fields)
                    .finish();
                let mut request = Request::new(Method::POST, url);
                request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                *request.body_mut() = Some(form.into());
                request
            }
            secret => {
                url.query_pairs_mut().extend_pairs(&fields);
                let mut request = Request::new(Method::GET, url);
                if let Some(Secret::Password { user, password }) = secret {
                    let value = secret_value(&basic(&user, &password)).ok_or_else(|| remote.error("odd characters in the password"))?;
                    request.headers_mut().insert(header::AUTHORIZATION, value);
                }
                request
            }
        };
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = self.execute(&client, request, None).await?;
        let host = shown(&host);
        match response.status().as_u16() {
            200 => {}
            401 | 403 | 400 | 404 if remote.secret.is_some() => {
                let error = Error::new(Kind::Denied, format!("cannot log in to {}: {host} does not accept the user and the password", remote.host()));
                return Err(Failure::Final(error.hint(remote.hint_login())));
            }
            401 | 403 => {
                let error = Error::new(Kind::Denied, format!("cannot talk to {}: {host} gives no token without a password", remote.host()));
                return Err(Failure::Final(error.hint(remote.hint_login())));
            }
            429 | 500 | 502..=504 => {
                return Err(Failure::Passing(remote.error(format!("{host} gives no token: {}", self.complaint(response).await)), None));
            }
            _ => return Err(Failure::Final(remote.error(format!("{host} gives no token: {}", self.complaint(response).await)))),
        }
        let text = Zeroizing::new(self.whole(response, TOKEN_LIMIT).await?);
        #[derive(serde::Deserialize)]
        struct Granted {
            token: Option<Zeroizing<String>>,
            access_token: Option<Zeroizing<String>>,
        }
        let granted: Granted = serde_json::from_slice(&text).map_err(|_| remote.error(format!("{host} answers something that is no token")))?;
        let token = granted.token.or(granted.access_token).filter(|t| !t.is_empty());
        let token = token.ok_or_else(|| remote.error(format!("{host} answers without a token")))?;
        if token.len() > HEADER_LIMIT || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::Final(remote.error(format!("{host} answers with a token that is none"))));
        }
        Ok(Zeroizing::new(format!("Bearer {}", *token)))
    }

    /// A body of at most `limit` bytes; all of it in a few times the stall time.
    async fn whole(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
        let remote = &*self.remote;
        let own = remote.is_own(response.url());
        plain_coding(response.headers()).map_err(|why| remote.error(why))?;
        let large = || Failure::Final(remote.error(format!("its answer is larger than {} KiB", limit >> 10)));
        if response.content_length().is_some_and(|n| n > limit as u64) {
            return Err(large());
        }
        let reading = async {
            let mut all = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(&e, own))? {
                if all.len() + chunk.len() > limit {
                    return Err(large());
                }
                all.extend_from_slice(&chunk);
            }
            Ok(all)
        };
        match tokio::time::timeout(remote.stall * 4, reading).await {
            Ok(all) => all,
            Err(_) => Err(Failure::Passing(remote.error("its answer does not come to an end"), None)),
        }
    }

    /// What an error's body says: the registry's own words, or the status.
    async fn complaint(&self, response: Response) -> String {
        let status = response.status();
        let text = tokio::time::timeout(self.remote.stall, self.whole(response, ERROR_LIMIT)).await;
        let text = text.ok().and_then(|t| t.ok()).unwrap_or_default();
        format!("{status}{}", words(&text).map(|w| format!(" ({w})")).unwrap_or_default())
    }

    /// An answer that is not what we hoped for, as an error; `object` is what it was about.
    pub fn refusal(&self, object: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        let host = self.remote.host();
        let words = self.runtime.block_on(self.complaint(response));
        match status {
            401 | 403 => {
                let error = Error::new(Kind::Denied, format!("cannot use {object}: {host} does not allow it: {words}"));
                error.hint(if self.remote.secret.is_some() {
                    "is it the right user, and the right name?".to_string()
                } else {
                    self.remote.hint_login()
                })
            }
            404 => Error::new(Kind::NotFound, format!("cannot find {object}: {host} answers {words}")),
            _ => Error::new(Kind::Io, format!("cannot use {object}: {host} answers {words}")),
        }
    }

    /// A small thing, whole: its headers and its bytes.
    pub fn document(&self, object: &str, url: Url, accept: &str, scope: &str, limit: usize) -> Result<(HeaderMap, Vec<u8>)> {
        let ask = Ask::new(Method::GET, url, scope).header(header::ACCEPT, accept);
        let got = self.again(|wire| {
            wire.runtime.block_on(async {
                let response = wire.exchange(&ask).await?;
                if response.status() != StatusCode::OK {
                    return Ok(Err(response));
                }
                let headers = response.headers().clone();
                Ok(Ok((headers, wire.whole(response, limit).await?)))
            })
        })?;
        got.map_err(|response| self.refusal(object, response))
    }

    /// A large thing. Nothing is asked for before the first read.
    pub fn blob(self, url: Url, scope: &str, what: &Descriptor, blame: &Blame) -> Blob {
        Blob::new(self, url, scope, what, blame)
    }

    /// Bring a blob there: begun, filled and closed anew for every try. False: the registry found it elsewhere and took it from there.
    pub fn upload(&self, begin: &Url, digest: &Digest, body: &dyn Fn() -> Result<Option<Outgoing>>, scope: &str) -> Result<bool> {
        let object = &short(digest);
        let length = header::CONTENT_LENGTH;
        self.again(|wire| {
            let step = |ask: &Ask, wanted: &[u16]| -> Result<Result<(u16, Url), Error>, Failure> {
                let response = wire.runtime.block_on(wire.exchange(ask))?;
                let status = response.status().as_u16();
                if !wanted.contains(&status) {
                    return Ok(Err(wire.refusal(object, response)));
                }
                match response.headers().get(header::LOCATION).map(|v| v.to_str().unwrap_or("http://")) {
                    Some(location) if status == 202 => Ok(Ok((status, wire.remote.own(&ask.url, location)?))),
                    None if status == 202 => Ok(Err(wire.remote.error("it does not say where the upload goes on"))),
                    _ => Ok(Ok((status, ask.url.clone()))),
                }
            };
            let (status, place) = step(&Ask::new(Method::POST, begin.clone(), scope).header(length.clone(), "0"), &[201, 202])??;
            if status == 201 {
                return Ok(false);
            }
            let mut fill = Ask::new(Method::PATCH, place, scope).header(header::CONTENT_TYPE, "application/octet-stream");
            fill.body = body;
            let (_, mut place) = step(&fill, &[202])??;
            place.query_pairs_mut().append_pair("digest", digest.as_str());
            step(&Ask::new(Method::PUT, place, scope).header(length.clone(), "0"), &[201, 204])??;
            Ok(true)
        })
    }
}

fn short(digest: &Digest) -> String {
    format!("blob {}", &digest.as_str()[..19])
}

/// What a registry says in its errors, if it says it as agreed.
fn words(text: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        code: Option<String>,
        message: Option<String>,
    }
    let errors: Errors = serde_json::from_slice(text).ok()?;
    let first = errors.errors.into_iter().next()?;
    Some(shown(&first.message.or(first.code)?))
}

/// Nobody asked for a compressed answer; one would be a bomb, or a mistake.
fn plain_coding(headers: &HeaderMap) -> Result<(), String> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => Err("its answer is encoded, which nobody asked for".to_string()),
        _ => Ok(()),
    }
}

fn basic(user: &str, password: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    Zeroizing::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.as_bytes())))
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// An error and what is behind it. An I/O error's source skips the error that it is made of.
fn sources(e: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(e as &(dyn std::error::Error + 'static)), |e| match e.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
        Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
        None => e.source(),
    })
}

/// The innermost reason, which names no URL.
fn cause(e: &reqwest::Error) -> String {
    let last = sources(e).last().filter(|s| !s.is::<reqwest::Error>());
    match last {
        Some(reason) => match reason.downcast_ref::<std::io::Error>() {
            Some(io) => crate::error::why(io),
            None => reason.to_string(),
        },
        None if e.is_timeout() => "no answer in time".to_string(),
        None => "the connection failed".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::dns::Resolve;

    fn public() -> Wire {
        let home = std::env::temp_dir().join("sandbox-no-home");
        let endpoint = Endpoint { host: "registry.example.com".into(), repository: "x".into(), insecure: false };
        let secret = Secret::Password { user: "u".into(), password: Zeroizing::new("p".into()) };
        let remote = Remote::new(&endpoint, &Options { auth_file: None, ..Options::new(&home) }, Some(secret)).unwrap();
        Wire::new(&remote).unwrap()
    }

    #[test]
    fn cve_2020_15157_a_public_registry_leads_to_no_private_place() {
        let wire = public();
        let from = wire.remote.url("blobs/a").unwrap();
        let lead = |to: &'static str, guarded| wire.redirect(&from, &HeaderValue::from_static(to), guarded);
        for to in [
            "https://127.0.0.1/x",
            "https://localhost/x",
            "https://a.localhost:5000/x",
            "https://10.0.0.1/x",
            "https://192.168.1.1/x",
            "https://[::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[fd00::1]/x",
            "https://0x7f000001/x",
            "https://2130706433/x",
            "https://100.64.0.1/x",
        ] {
            assert_eq!(lead(to, true).unwrap_err().kind(), Kind::Denied, "{to}");
            assert!(lead(to, false).is_ok(), "{to}");
        }
        for to in ["http://registry.example.com/x", "http://8.8.8.8/x", "https://169.254.169.254/x", "https://[fe80::1]/x"] {
            assert_eq!(lead(to, false).unwrap_err().kind(), Kind::Denied, "{to}");
        }
        assert_eq!(lead("/v2/y", true).unwrap().as_str(), "https://registry.example.com/v2/y");
        assert!(lead("https://cdn.example.net/y?signature=1", true).is_ok());
    }

    #[test]
    fn cve_2020_15157_a_name_is_judged_by_its_address() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |guarded| {
            let names = Names { guarded, resolver: OnceLock::new() };
            runtime.block_on(async { names.resolve("localhost".parse().unwrap()).await.map(|found| found.count()) })
        };
        assert!(ask(false).is_ok_and(|n| n > 0));
        assert!(ask(true).unwrap_err().is::<NotPublic>());
    }

    #[test]
    fn cve_2020_15157_an_upload_stays_where_it_began() {
        let wire = public();
        let base = wire.remote.url("blobs/uploads/").unwrap();
        let place = |location: &str| wire.remote.own(&base, location).map(|u| u.to_string()).map_err(|e| e.kind());
        assert_eq!(place("/v2/x/blobs/uploads/1?s=2").unwrap(), "https://registry.example.com/v2/x/blobs/uploads/1?s=2");
        assert_eq!(place("1").unwrap(), "https://registry.example.com/v2/x/blobs/uploads/1");
        for elsewhere in [
            "https://evil.example/1",
            "http://registry.example.com/1",
            "//evil.example/1",
            "https://registry.example.com:444/1",
            "https://u@registry.example.com/1",
        ] {
            assert_eq!(place(elsewhere).unwrap_err(), Kind::Denied, "{elsewhere}");
        }
    }

    #[test]
    fn words_of_others_are_short_and_plain() {
        assert_eq!(shown("a\u{1b}[2J\nb\tc"), "a\\u{1b}[2J b c");
        assert_eq!(shown(&"x".repeat(5000)).len(), 200);
        assert_eq!(words(br#"{"errors":[{"code":"DENIED"}]}"#).unwrap(), "DENIED");
        assert_eq!(words(b"<html>"), None);
    }
}
