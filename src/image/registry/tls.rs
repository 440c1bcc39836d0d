//! Whom we believe to be a registry: the system's authorities, and what `certs.d` says of one host.
//!
//! Called by `wire`. rustls with ring; the roots are read here, since a static program has no libssl that would know them.
//! man: containers-certs.d(5); docker: docs/engine/security/certificates

use super::trust;
use crate::dirs;
use crate::error::{Error, Kind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FILE_LIMIT: u64 = 1 << 20;

/// What one host's directories hold.
#[derive(Default)]
struct Extra {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// For `host` (with its port); `named` is `--cert-dir`. Without `verify` anybody may be the registry: the user said so.
pub fn config(host: Option<&str>, named: Option<&Path>, home: &Path, verify: bool) -> Result<ClientConfig> {
    let extra = host.map(|host| extra(host, named, home)).transpose()?.unwrap_or_default();
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Bug, format!("cannot set up TLS: {e}")))?;
    let builder = if verify {
        let mut roots = RootCertStore::empty();
        // A machine without any authority is found out by the first certificate.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for authority in extra.authorities {
            roots.add(authority).map_err(|e| Error::usage(format!("cannot use a certificate of certs.d as an authority: {e}")))?;
        }
        builder.with_root_certificates(roots)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    match extra.client {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|e| Error::usage(format!("cannot use the client certificate of certs.d: {e}")))
        }
    }
}

fn extra(host: &str, named: Option<&Path>, home: &Path) -> Result<Extra> {
    let places = match named {
        Some(dir) => vec![dir.to_path_buf()],
        None => {
            let users = dirs::containers(home).join("certs.d");
            ["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into(), users].iter().map(|d: &PathBuf| d.join(host)).collect()
        }
    };
    let mut extra = Extra::default();
    for dir in places {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            if named.is_some() {
                return Err(Error::new(Kind::NotFound, format!("cannot read {}: no such directory", dir.display())));
            }
            continue;
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        files.sort();
        for path in files {
            let bad = || Error::usage(format!("cannot read {}: it is not PEM", path.display()));
            let Some(kind) = path.extension().filter(|e| *e == "crt" || *e == "cert") else { continue };
            let Some((text, _)) = trust::bytes(&path, FILE_LIMIT)? else { continue };
            let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
            if chain.is_empty() {
                return Err(bad());
            }
            if kind == "crt" {
                extra.authorities.extend(chain);
                continue;
            }
            let key = path.with_extension("key");
            let Some((text, open)) = trust::bytes(&key, FILE_LIMIT)? else {
                return Err(Error::new(Kind::NotFound, format!("cannot use {}: there is no {}", path.display(), key.display())));
            };
            let text = zeroize::Zeroizing::new(text);
            if open && key.starts_with(home) {
                return Err(Error::new(Kind::Denied, format!("cannot use {}: others can read it", key.display()))
                    .hint(format!("chmod 600 {}", key.display())));
            }
            extra.client = Some((chain, PrivateKeyDer::from_pem_slice(&text).map_err(|_| bad())?));
        }
    }
    Ok(extra)
}

/// For `--tls-verify=false`: whoever answers. The handshake itself is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
