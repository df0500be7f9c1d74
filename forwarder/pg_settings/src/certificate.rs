//! Whether a server's certificate is good, as libpq decides it, which differs from what browsers do.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;

/// Certificates that are trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    authorities: RootCertStore,
    as_they_are: Vec<CertificateDer<'static>>,
}

impl Trust {
    pub(crate) fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(certificates.iter().cloned());
        Self { authorities, as_they_are: certificates }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.authorities.is_empty()
    }
}

/// Checks a server's certificate as far as it is asked to.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
    /// `None`: every certificate will do.
    pub(crate) trust: Option<Trust>,
    pub(crate) check_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(server)?;
        if trust.as_they_are.contains(server) {
            // A server whose certificate is its own authority: what `openssl req -x509` makes, and what
            // rules for the web refuse.
            is_current(server, now)?;
        } else {
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &trust.authorities, intermediates, now, all)?;
        }
        if self.check_name {
            verify_server_name(&parsed, name).or_else(|error| match common_name_is(server, name) {
                true => Ok(()),
                false => Err(error),
            })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // The server has to own its certificate, trusted or not: channel binding leans on it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn is_current(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parse(certificate)?.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// libpq takes the common name for a host's where a certificate has no subjectAltName. A `*` stands for
/// the whole of the first label.
fn common_name_is(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    let Ok(Certificate { tbs_certificate: certificate, .. }) = parse(certificate) else { return false };
    if !matches!(certificate.get::<SubjectAltName>(), Ok(None)) {
        return false;
    }
    let name = name.to_str();
    let mut attributes = certificate.subject.0.iter().flat_map(|names| names.0.iter());
    attributes.any(|attribute| {
        attribute.oid == COMMON_NAME
            && std::str::from_utf8(attribute.value.value()).is_ok_and(|pattern| fits(pattern, &name))
    })
}

fn fits(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(domain), Some((_, rest))) => domain.eq_ignore_ascii_case(rest),
        _ => pattern.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

    /// A certificate that is its own authority, as `openssl req -x509` makes it.
    fn self_signed(common_name: &str, names: &[&str], last_year: i32) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut about = CertificateParams::new(names).unwrap();
        about.distinguished_name.push(DnType::CommonName, common_name);
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (about.not_before, about.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 12, 31));
        about.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(
        server: &CertificateDer<'_>,
        trusted: &CertificateDer<'static>,
        name: &'static str,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let trust = Some(Trust::new(vec![trusted.clone()]));
        let name = ServerName::try_from(name).unwrap();
        let verifier = Verifier { algorithms, trust, check_name: true };
        verifier.verify_server_cert(server, &[], &name, &[], UnixTime::now())
    }

    #[test]
    fn a_certificate_that_is_trusted_itself_is_good_while_it_lasts() {
        let server = self_signed("x", &["db.example"], 2099);
        assert!(verify(&server, &server, "db.example").is_ok());
        assert!(verify(&server, &server, "other.example").is_err());
        assert!(verify(&server, &self_signed("x", &["db.example"], 2099), "db.example").is_err());
        let expired = self_signed("x", &["db.example"], 2021);
        let error = verify(&expired, &expired, "db.example").unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::Expired));
    }

    #[test]
    fn a_common_name_counts_where_there_is_no_other() {
        let bare = self_signed("db.example", &[], 2099);
        assert!(verify(&bare, &bare, "DB.example").is_ok());
        assert!(verify(&bare, &bare, "other.example").is_err());
        let named = self_signed("db.example", &["other.example"], 2099);
        assert!(verify(&named, &named, "db.example").is_err());
        assert!(verify(&named, &named, "other.example").is_ok());
    }

    #[test]
    fn common_names_fit_as_libpq_has_it() {
        assert!(fits("db.example", "DB.example") && fits("*.example", "db.example"));
        assert!(!fits("*.example", "a.db.example") && !fits("*.example", "example") && !fits("*", "db"));
    }
}
