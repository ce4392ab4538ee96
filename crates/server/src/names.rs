//! The alternative names of a certificate, and clients that may come in by them
//! (`client_allowed_sans`).
//!
//! Certificates come from clients and are hostile: the reader takes one element after another,
//! each within the bounds of the one around it, and gives up at the first contradiction.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

/// Asks `inner` first; then the certificate must have one of the names.
#[derive(Debug)]
pub(crate) struct AllowedNames {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) names: Vec<String>,
}

impl ClientCertVerifier for AllowedNames {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        let found = alternative_names(certificate).unwrap_or_default();
        if found.iter().any(|name| self.names.contains(name)) {
            return Ok(verified);
        }
        Err(rustls::Error::General(format!("could not find allowed SANs in client cert, found: {found:?}")))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const OCTETS: u8 = 0x04;
/// `[3]` of a certificate's body: its extensions.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17, `subjectAltName`.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// DNS names, mail addresses, addresses and URIs; `None` where the bytes are no certificate.
pub fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    let certificate = Elements(certificate).expect(SEQUENCE)?;
    let body = Elements(certificate).expect(SEQUENCE)?;
    let Some((_, extensions)) = Elements(body).find(|(tag, _)| *tag == EXTENSIONS) else {
        return Some(Vec::new());
    };
    for (_, extension) in Elements(Elements(extensions).expect(SEQUENCE)?) {
        let mut parts = Elements(extension);
        if parts.next()? == (OBJECT_ID, ALTERNATIVE_NAMES) {
            let (_, value) = parts.find(|(tag, _)| *tag == OCTETS)?;
            return Some(Elements(Elements(value).expect(SEQUENCE)?).filter_map(general_name).collect());
        }
    }
    Some(Vec::new())
}

fn general_name((tag, value): (u8, &[u8])) -> Option<String> {
    match tag {
        0x81 | 0x82 | 0x86 => String::from_utf8(value.to_vec()).ok(),
        0x87 => match value.len() {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).to_string()),
            16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Consecutive DER elements: tag and content.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn expect(mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (bytes, rest) =
                rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 4)?;
            (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::DnsName("agent.example".try_into().expect("a name")),
            SanType::Rfc822Name("ops@example".try_into().expect("an address")),
            SanType::URI("spiffe://example/agent".try_into().expect("a URI")),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn every_kind_of_name_is_found() {
        let names = alternative_names(&certificate()).expect("a certificate");
        assert_eq!(names, ["agent.example", "ops@example", "spiffe://example/agent", "10.0.0.1"]);
    }

    #[test]
    fn no_cut_or_changed_certificate_panics() {
        let whole = certificate();
        for end in 0..whole.len() {
            assert_eq!(alternative_names(&whole[..end]), None, "the outer element is cut");
        }
        for index in 0..whole.len() {
            let mut changed = whole.clone();
            for value in [0, 0x7f, 0x84, 0xff] {
                changed[index] = value;
                let _ = alternative_names(&changed);
            }
        }
    }
}
