//! Names to addresses: by resolv.conf and /etc/hosts, and judged where they are used.
//!
//! Called by the HTTP client, when it connects. A static program has no getaddrinfo; without a configuration it fails, and asks nobody else.

use super::shown;
use crate::image::registry::auth;
use hickory_resolver::TokioResolver;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::OnceLock;

/// Names to addresses, by the servers of resolv.conf and /etc/hosts: a static program has no getaddrinfo. Without a configuration it fails.
pub struct Names {
    /// Only addresses of the open internet.
    pub guarded: bool,
    pub resolver: OnceLock<TokioResolver>,
}

/// The resolver's own words are for those who wrote it.
#[derive(Debug)]
pub struct Unknown(String);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no address is known for {}", shown(&self.0))
    }
}

impl std::error::Error for Unknown {}

#[derive(Debug)]
pub struct NotPublic;

impl std::fmt::Display for NotPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it leads to an address where it has no business")
    }
}

impl std::error::Error for NotPublic {}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let made = match self.resolver.get() {
            Some(resolver) => Ok(resolver.clone()),
            None => TokioResolver::builder_tokio().and_then(|b| b.build()).inspect(|r| drop(self.resolver.set(r.clone()))),
        };
        let guarded = self.guarded;
        // Nobody's registry is where the metadata services of clouds are. // I2
        let fine = move |ip| !auth::is_link_local(ip) && (!guarded || auth::is_public(ip));
        Box::pin(async move {
            let found = made?.lookup_ip(name.as_str()).await.map_err(|_| Unknown(name.as_str().to_string()))?;
            let addresses: Vec<SocketAddr> = found.iter().filter(|ip| fine(*ip)).map(|ip| SocketAddr::new(ip, 0)).collect();
            if addresses.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
