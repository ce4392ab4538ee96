//! TLS as the web configuration asks for it, on rustls with ring.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, NamedGroup, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::names::AllowedNames;
use crate::web_config::TlsServerConfig;

/// Builds the server's side; an error is in Prometheus' words where it has the error too.
pub(crate) fn server_config(config: &TlsServerConfig, http2: bool) -> Result<Arc<ServerConfig>, String> {
    let cert = pem_source(&config.cert_file, &config.cert, "cert")?;
    let key = pem_source(&config.key_file, &config.key, "key")?;
    let provider = Arc::new(provider(config)?);
    let chain = CertificateDer::pem_slice_iter(&cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("failed to load X509KeyPair: certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| format!("failed to load X509KeyPair: key: {error}"))?;
    let verifier = client_verifier(config, &provider)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(config)?)
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| format!("failed to load X509KeyPair: {error}"))?;
    server.ignore_client_order = config.prefer_server_cipher_suites.unwrap_or(true);
    server.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(server))
}

/// The content of a file, or the text that stands inline.
fn pem_source(file: &Path, inline: &str, name: &str) -> Result<Vec<u8>, String> {
    match (file.as_os_str().is_empty(), inline) {
        (true, "") => Err(format!("missing one of {name} or {name}_file")),
        (true, text) => Ok(text.as_bytes().to_vec()),
        (false, _) => fs::read(file)
            .map_err(|error| format!("failed to read {name}_file ({}): {error}", file.display())),
    }
}

/// ring's provider with the cipher suites and curves that are asked for. A name that exists
/// elsewhere but not in rustls is refused rather than left out: all that rustls lacks is weak.
fn provider(config: &TlsServerConfig) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if !config.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        for name in &config.cipher_suites {
            // rustls says TLS13_AES_… where Go says TLS_AES_….
            let wanted = |suite: &str| suite == name || suite.replacen("TLS13_", "TLS_", 1) == *name;
            let suite = all.iter().find(|suite| suite.suite().as_str().is_some_and(wanted));
            provider.cipher_suites.push(*suite.ok_or_else(|| format!("unknown cipher: {name}"))?);
        }
    }
    if !config.curve_preferences.is_empty() {
        let all = std::mem::take(&mut provider.kx_groups);
        for name in &config.curve_preferences {
            let wanted = match name.as_str() {
                "X25519" => NamedGroup::X25519,
                "CurveP256" => NamedGroup::secp256r1,
                "CurveP384" => NamedGroup::secp384r1,
                _ => return Err(format!("unknown curve: {name}")),
            };
            let group = all.iter().find(|group| group.name() == wanted);
            provider.kx_groups.push(*group.ok_or_else(|| format!("unknown curve: {name}"))?);
        }
    }
    Ok(provider)
}

/// TLS 1.0 and 1.1 as a lower bound mean 1.2 here, which is stricter.
fn versions(config: &TlsServerConfig) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let number = |name: &str, default| match name {
        "" => Ok(default),
        "TLS10" => Ok(0),
        "TLS11" => Ok(1),
        "TLS12" => Ok(2),
        "TLS13" => Ok(3),
        other => Err(format!("unknown TLS version: {other}")),
    };
    let (least, most) = (number(&config.min_version, 2)?, number(&config.max_version, 3)?);
    let known = [(3, &rustls::version::TLS13), (2, &rustls::version::TLS12)];
    let versions: Vec<_> =
        known.into_iter().filter(|(n, _)| (least..=most).contains(n)).map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err("min_version and max_version leave no version that is served: TLS12 or TLS13".to_owned());
    }
    Ok(versions)
}

fn client_verifier(
    config: &TlsServerConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let has_ca = !config.client_ca.is_empty() || !config.client_ca_file.as_os_str().is_empty();
    let any = |mandatory| {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(AnyCertificate { mandatory, algorithms }) as Arc<dyn ClientCertVerifier>
    };
    let verified = |mandatory| -> Result<Arc<dyn ClientCertVerifier>, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(roots(config)?.into(), provider.clone());
        let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| format!("client_ca: {error}"))
    };
    let kind = config.client_auth_type.as_str();
    let verifier = match kind {
        "" | "NoClientCert" if has_ca => {
            return Err("client CA's have been configured without a Client Auth Policy".to_owned());
        }
        "" | "NoClientCert" => WebPkiClientVerifier::no_client_auth(),
        "RequestClientCert" => any(false),
        "RequireAnyClientCert" | "RequireClientCert" => any(true),
        "VerifyClientCertIfGiven" => verified(false)?,
        "RequireAndVerifyClientCert" => verified(true)?,
        other => return Err(format!("invalid ClientAuth: {other}")),
    };
    let Some(names) = config.client_allowed_sans.clone() else { return Ok(verifier) };
    // Who need not show a certificate would come in past the names.
    if !verifier.client_auth_mandatory() {
        return Err("client_allowed_sans requires client_auth_type to be one of RequireAnyClientCert or RequireAndVerifyClientCert".to_owned());
    }
    Ok(Arc::new(AllowedNames { inner: verifier, names }))
}

fn roots(config: &TlsServerConfig) -> Result<RootCertStore, String> {
    let pem = pem_source(&config.client_ca_file, &config.client_ca, "client_ca")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("client_ca: {error}"))?;
        roots.add(certificate).map_err(|error| format!("client_ca: {error}"))?;
    }
    Ok(roots)
}

/// Asks for a certificate and takes any whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TlsServerConfig {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        TlsServerConfig { cert: made.cert.pem(), key: made.signing_key.serialize_pem(), ..Default::default() }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut TlsServerConfig), expected: &str) {
        let mut config = config();
        change(&mut config);
        match server_config(&config, true) {
            Ok(_) => assert_eq!(expected, ""),
            Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
        }
    }

    #[test]
    fn configurations_build_and_mistakes_are_named() {
        check(|_| {}, "");
        check(|c| c.min_version = "TLS13".to_owned(), "");
        check(|c| c.min_version = "TLS10".to_owned(), "");
        check(|c| c.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".to_owned()], "");
        check(|c| c.curve_preferences = vec!["CurveP256".to_owned()], "");
        check(|c| c.client_auth_type = "RequireAnyClientCert".to_owned(), "");
        check(|c| c.cert.clear(), "missing one of cert or cert_file");
        check(|c| c.key.clear(), "missing one of key or key_file");
        check(|c| c.key = "none".to_owned(), "failed to load X509KeyPair");
        check(|c| c.cert_file = "/no/such.crt".into(), "failed to read cert_file (/no/such.crt)");
        check(|c| c.max_version = "TLS11".to_owned(), "leave no version");
        check(|c| c.min_version = "SSL3".to_owned(), "unknown TLS version: SSL3");
        check(|c| c.cipher_suites = vec!["TLS_FOO".to_owned()], "unknown cipher: TLS_FOO");
        check(|c| c.curve_preferences = vec!["CurveP0".to_owned()], "unknown curve: CurveP0");
        check(|c| c.client_auth_type = "Maybe".to_owned(), "invalid ClientAuth: Maybe");
        check(
            |c| c.client_ca = c.cert.clone(),
            "client CA's have been configured without a Client Auth Policy",
        );
        check(
            |c| c.client_auth_type = "RequireAndVerifyClientCert".to_owned(),
            "missing one of client_ca or client_ca_file",
        );
        check(
            |c| c.client_allowed_sans = Some(vec!["x".to_owned()]),
            "client_allowed_sans requires client_auth_type to be one of",
        );
        check(
            |c| {
                c.client_auth_type = "RequireAnyClientCert".to_owned();
                c.client_allowed_sans = Some(vec!["x".to_owned()]);
            },
            "",
        );
    }
}
