//! The TLS side of a client: whom it trusts, how it proves itself, which versions it speaks.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use crate::{ClientError, ReadFile, Secret, TlsConfig, TlsVersion};

/// The bytes of everything a TLS configuration names, so that a change is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsMaterial {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl TlsMaterial {
    pub(crate) fn read(config: &TlsConfig, read_file: &ReadFile) -> Result<TlsMaterial, ClientError> {
        Ok(TlsMaterial {
            ca: read("CA certificate", config.ca.as_ref(), read_file)?,
            cert: read("client certificate", config.cert.as_ref(), read_file)?,
            key: read("client key", config.key.as_ref(), read_file)?,
        })
    }
}

fn read(
    what: &'static str,
    secret: Option<&Secret>,
    read_file: &ReadFile,
) -> Result<Option<Vec<u8>>, ClientError> {
    Ok(match secret {
        None => None,
        Some(Secret::Inline(pem)) => Some(pem.clone().into_bytes()),
        Some(Secret::File(path)) => Some(read_file(path).map_err(|source| ClientError::Read {
            what,
            path: PathBuf::from(path),
            source,
        })?),
    })
}

/// Builds rustls' configuration. The provider is always named: two in one binary would make the
/// process-wide default ambiguous.
pub(crate) fn client_config(config: &TlsConfig, material: &TlsMaterial) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(config)?)
        .map_err(|error| ClientError::Tls(error.to_string()))?;
    let builder = if config.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone { provider }))
    } else {
        builder.with_root_certificates(roots(material)?)
    };
    match (&material.cert, &material.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("client certificate", cert)?, private_key(key)?)
            .map_err(|error| ClientError::Tls(error.to_string())),
        _ => Err(ClientError::Tls(
            "exactly one of key or key_file must be configured when a client certificate is configured"
                .to_owned(),
        )),
    }
}

fn versions(config: &TlsConfig) -> Result<Vec<&'static SupportedProtocolVersion>, ClientError> {
    let spoken = [(TlsVersion::Tls12, &rustls::version::TLS12), (TlsVersion::Tls13, &rustls::version::TLS13)];
    let versions: Vec<_> = spoken
        .into_iter()
        .filter(|(version, _)| config.min_version.is_none_or(|min| *version >= min))
        .filter(|(version, _)| config.max_version.is_none_or(|max| *version <= max))
        .map(|(_, spoken)| spoken)
        .collect();
    if versions.is_empty() {
        return Err(ClientError::Tls("no version between min_version and max_version is spoken".to_owned()));
    }
    Ok(versions)
}

fn roots(material: &TlsMaterial) -> Result<Arc<RootCertStore>, ClientError> {
    let Some(pem) = &material.ca else { return Ok(system_roots()) };
    let mut store = RootCertStore::empty();
    for certificate in certificates("CA certificate", pem)? {
        store
            .add(certificate)
            .map_err(|error| ClientError::Pem { what: "CA certificate", reason: error.to_string() })?;
    }
    Ok(Arc::new(store))
}

/// The system's authorities, read once in a process: a hundred clients share them.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "some of the system's certificate authorities can not be read");
            }
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(found.certs);
            Arc::new(store)
        })
        .clone()
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(ClientError::Pem { what, reason: "there is no certificate in it".to_owned() }),
        Err(error) => Err(ClientError::Pem { what, reason: error.to_string() }),
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, ClientError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| ClientError::Pem { what: "client key", reason: error.to_string() })
}

/// `insecure_skip_verify`: takes any certificate, though the peer must still hold its key.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
