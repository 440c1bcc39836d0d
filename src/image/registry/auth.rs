//! What a registry wants before it answers: its challenge, read, and where the answer may be sent.
//!
//! Called by `wire`. Pure: it decides, `wire` asks. A challenge is hostile text; a password goes to the registry itself, or to a token
//! service that belongs to it, over TLS. rfc: 7235; docker: distribution/spec/auth/token

use crate::error::{Error, Kind, Result, printable};
use http_auth::parser::ChallengeParser;
use reqwest::Url;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A longer header is no challenge.
const CHALLENGE_LIMIT: usize = 16 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The first one that we can answer, of all `WWW-Authenticate` headers; a token before a password.
    pub fn parse<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Result<Challenge> {
        let bad = |why: &str| Error::new(Kind::Io, format!("cannot authenticate: {why}"));
        let (mut basic, mut broken) = (false, None);
        for header in headers {
            if header.len() > CHALLENGE_LIMIT {
                return Err(bad("the challenge is larger than 16 KiB"));
            }
            let text = std::str::from_utf8(header).map_err(|_| bad("the challenge is no text"))?;
            for one in ChallengeParser::new(text) {
                let Ok(one) = one else {
                    broken = Some(bad("the challenge cannot be read"));
                    break;
                };
                if one.scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                } else if one.scheme.eq_ignore_ascii_case("bearer") {
                    let all = |name: &str| {
                        one.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_unescaped()).collect::<Vec<_>>()
                    };
                    let only = |name: &str| match all(name).as_slice() {
                        [] => Ok(None),
                        [value] => Ok(Some(value.clone())),
                        _ => Err(bad(&format!("the challenge has more than one '{name}'"))),
                    };
                    let realm = only("realm")?.ok_or_else(|| bad("the challenge has no realm"))?;
                    return Ok(Challenge::Bearer { realm, service: only("service")?, scope: only("scope")? });
                }
            }
        }
        match broken {
            _ if basic => Ok(Challenge::Basic),
            Some(error) => Err(error),
            None => Err(bad("the registry wants neither a password nor a token")),
        }
    }
}

/// The token service of a challenge, if it may be asked at all. cve: 2019-10214, 2020-15157
pub fn realm(text: &str, registry: &Url) -> Result<Url> {
    let bad = |why: &str| {
        let shown: String = printable(text).chars().filter(|c| *c != '\n').take(100).collect();
        Error::new(Kind::Denied, format!("cannot ask {shown} for a token: {why}"))
    };
    let url = Url::parse(text).map_err(|_| bad("it is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("a realm must not carry a password"));
    }
    match url.scheme() {
        "https" => {}
        "http" if registry.scheme() == "http" => {}
        "http" => return Err(bad("it is not https, and the registry is")),
        _ => return Err(bad("it is not https")),
    }
    if is_metadata(&url) {
        return Err(bad("it is a link-local or metadata address"));
    }
    // An unencrypted service may be asked where the registry is, and nowhere else.
    if url.scheme() == "http" && url.host() != registry.host() && !is_local(&url) {
        return Err(bad("it is not https, and another host than the registry"));
    }
    Ok(url)
}

/// May the registry's own secret be sent to this token service? The same host, or one below the same domain:
/// `auth.example.com` for `registry.example.com`.
pub fn belongs(realm: &Url, registry: &Url) -> bool {
    let (Some(realm), Some(registry)) = (realm.host_str(), registry.host_str()) else { return false };
    if realm == registry {
        return true;
    }
    if realm.parse::<IpAddr>().is_ok() || registry.parse::<IpAddr>().is_ok() || realm.starts_with('[') || registry.starts_with('[') {
        return false;
    }
    // The registry's domain is what follows its first word; it must itself have two, so that `com` is nobody's.
    let below = |host: &str, domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let wide = |domain: &str| !domain.contains('.') || SHARED.contains(&domain);
    let parent = registry.split_once('.').map(|(_, domain)| domain).filter(|domain| !wide(domain)).unwrap_or(registry);
    below(realm, parent)
}

/// Second-level names below which strangers live. Not complete, and need not be: whoever stands in it would have to be named by a
/// registry that the user trusts with the password anyway.
const SHARED: [&str; 12] =
    ["co.uk", "com.au", "co.jp", "com.br", "com.cn", "co.in", "co.nz", "co.za", "org.uk", "azurecr.io", "amazonaws.com", "github.io"];

/// A registry's own host name in a URL: this machine.
pub fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The address in a URL, where it is one.
pub fn address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(ip) => Some(ip.into()),
        url::Host::Ipv6(ip) => Some(ip.into()),
        url::Host::Domain(_) => None,
    }
}

fn is_metadata(url: &Url) -> bool {
    url.host_str().is_some_and(|h| h.eq_ignore_ascii_case("metadata.google.internal") || h.eq_ignore_ascii_case("metadata"))
        || address(url).is_some_and(is_link_local)
}

/// Where the metadata services of clouds are.
pub fn is_link_local(ip: IpAddr) -> bool {
    match plain(ip) {
        IpAddr::V4(ip) => ip.is_link_local() || ip == Ipv4Addr::new(100, 100, 100, 200) || ip == Ipv4Addr::new(192, 0, 0, 192),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    }
}

/// An address of the open internet. A registry there has no reason to send us elsewhere.
pub fn is_public(ip: IpAddr) -> bool {
    match plain(ip) {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_broadcast() || ip.is_documentation())
                && !(a == 0 || a >= 224 || shared || benchmark || (a, b) == (192, 0))
        }
        IpAddr::V6(ip) => (ip.segments()[0] & 0xe000) == 0x2000 && !(ip.segments()[0] == 0x2001 && ip.segments()[1] == 0xdb8),
    }
}

/// IPv4 in its IPv6 clothes: mapped, 6to4 and NAT64.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let embedded = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        _ if v6.to_ipv4_mapped().is_some() => embedded(s[6], s[7]),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(headers: &[&str]) -> Result<Challenge> {
        Challenge::parse(headers.iter().map(|h| h.as_bytes()))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer { realm: realm.into(), service: service.map(Into::into), scope: None };
        for (headers, wanted) in [
            (vec!["Basic realm=\"x\""], Challenge::Basic),
            (vec!["basic realm=x"], Challenge::Basic),
            (vec!["Bearer realm=\"https://a/t\",service=\"s\""], bearer("https://a/t", Some("s"))),
            (vec!["Basic realm=\"x\", Bearer realm=\"https://a/t\""], bearer("https://a/t", None)),
            (vec!["Negotiate", "BEARER Realm=\"https://a/\\\"t\""], bearer("https://a/\"t", None)),
        ] {
            assert_eq!(parse(&headers).unwrap(), wanted, "{headers:?}");
        }
        let huge = format!("Bearer realm=\"https://{}\"", "a".repeat(CHALLENGE_LIMIT));
        for bad in
            [vec![], vec![""], vec!["Negotiate"], vec!["Bearer service=\"s\""], vec!["Bearer realm=\"a\",realm=\"b\""], vec!["\u{1}"], vec![&huge]]
        {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn cve_2019_10214_a_token_service_is_asked_over_tls_only() {
        let tls = url("https://registry.example.com");
        for good in ["https://auth.example.com/t", "https://other.org/t", "https://registry.example.com:8443/t"] {
            assert!(realm(good, &tls).is_ok(), "{good}");
        }
        for bad in [
            "http://registry.example.com/t",
            "http://localhost/t",
            "ftp://a/t",
            "file:///etc/passwd",
            "/t",
            "https://u:p@a/t",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/t",
            "https://[::ffff:169.254.169.254]/t",
            "https://metadata.google.internal/t",
            "https://0xa9fea9fe/t",
        ] {
            assert_eq!(realm(bad, &tls).unwrap_err().kind(), Kind::Denied, "{bad}");
        }
        let plain = url("http://127.0.0.1:5000");
        assert!(realm("http://127.0.0.1:5001/t", &plain).is_ok());
        assert!(realm("http://example.com/t", &plain).is_err());
    }

    #[test]
    fn cve_2020_15157_a_password_goes_to_its_own_domain() {
        for (token, registry, wanted) in [
            ("https://auth.docker.io/token", "https://registry-1.docker.io", true),
            ("https://ghcr.io/token", "https://ghcr.io", true),
            ("https://gitlab.example.com/jwt", "https://registry.example.com", true),
            ("https://example.com/jwt", "https://registry.example.com", true),
            ("https://evil.com/jwt", "https://registry.example.com", false),
            ("https://evilexample.com/jwt", "https://registry.example.com", false),
            ("https://evil.io/t", "https://ghcr.io", false),
            ("https://evil.co.uk/t", "https://shop.co.uk", false),
            ("https://mine.azurecr.io/t", "https://yours.azurecr.io", false),
            ("http://127.0.0.1:1/t", "http://127.0.0.1:2", true),
            ("http://127.0.0.2:1/t", "http://127.0.0.1:1", false),
        ] {
            assert_eq!(belongs(&url(token), &url(registry)), wanted, "{token} {registry}");
        }
    }

    #[test]
    fn public_addresses() {
        for (ip, public) in [
            ("8.8.8.8", true),
            ("10.1.2.3", false),
            ("172.31.0.1", false),
            ("192.168.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("2606:4700::1", true),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }
}
