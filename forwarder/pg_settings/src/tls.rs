//! TLS to the database: what libpq's `sslmode` and its files ask for, by rustls (PostgreSQL manual,
//! "SSL Support" in the chapter on libpq).

use crate::certificate::{Trust, Verifier};
use crate::error::Error;
use crate::file;
use crate::parameters::Parameters;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, SupportedProtocolVersion};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_postgres_rustls::MakeRustlsConnect;

/// The manual's table of sslmodes, weakest first. `allow` is not supported: it protects from nothing, and
/// `prefer` connects wherever it would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, SslMode); 5] = [
    ("disable", SslMode::Disable),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// One way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Tls,
}

/// How TLS begins (`sslnegotiation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Negotiation {
    /// The server is asked whether it has TLS.
    Postgres,
    /// The TLS handshake comes first.
    Direct,
}

/// Whether a certificate is shown to the server (`sslcertmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CertificateMode {
    Disable,
    Allow,
    Require,
}

/// What a connection that was made is safe from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: it is not encrypted.
    None,
    /// Listeners: it is encrypted, but the server's certificate was not verified.
    Encrypted,
    /// Also servers whose certificate is not signed by a trusted authority.
    Vouched,
    /// Also servers of another name.
    Named,
}

/// What the settings say on TLS. Files are read for each connection: they may be renewed meanwhile.
#[derive(Debug)]
pub(crate) struct Tls {
    mode: SslMode,
    pub(crate) negotiation: Negotiation,
    /// The file of `sslrootcert`, or `system`.
    roots: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    certificate_mode: CertificateMode,
    /// Whether the handshake tells the server's name, for proxies.
    tells_name: bool,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// libpq's folder for what no setting names.
    folder: Option<PathBuf>,
}

/// What makes TLS connections.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) tls: MakeRustlsConnect,
    pub(crate) protection: Protection,
    /// `sslcertmode=require`: whether the server has been shown a certificate.
    pub(crate) has_to_show: Option<Arc<AtomicBool>>,
}

/// What `sslrootcert` says for the machine's own.
const SYSTEM: &str = "system";

impl Tls {
    pub(crate) fn read(given: &mut Parameters, home: Option<&Path>) -> Result<Self, Error> {
        let folder = home.map(|home| home.join(".postgresql"));
        let roots = given.take_path("sslrootcert");
        let system = roots.as_deref() == Some(Path::new(SYSTEM));
        let default = if system { SslMode::VerifyFull } else { SslMode::Prefer };
        let mode = given.take_one_of("sslmode", &MODES)?.unwrap_or(default);
        if system && mode != SslMode::VerifyFull {
            return set_up(
                "sslrootcert=system trusts too many to be told apart by less than their names. Use it with sslmode=verify-full.",
            );
        }
        let roots = roots.or_else(|| Some(folder.as_ref()?.join("root.crt"))).unwrap_or_default();
        let ways = [("postgres", Negotiation::Postgres), ("direct", Negotiation::Direct)];
        let negotiation = given.take_one_of("sslnegotiation", &ways)?.unwrap_or(Negotiation::Postgres);
        if negotiation == Negotiation::Direct && mode < SslMode::Require {
            return set_up("sslnegotiation=direct needs sslmode=require or a stronger one.");
        }
        let modes = [
            ("disable", CertificateMode::Disable),
            ("allow", CertificateMode::Allow),
            ("require", CertificateMode::Require),
        ];
        Ok(Self {
            mode,
            negotiation,
            roots,
            certificate: given.take_path("sslcert"),
            key: given.take_path("sslkey"),
            certificate_mode: given.take_one_of("sslcertmode", &modes)?.unwrap_or(CertificateMode::Allow),
            tells_name: given.take_one_of("sslsni", &[("1", true), ("0", false)])?.unwrap_or(true),
            versions: versions(given)?,
            folder,
        })
    }

    /// The ways to try, in order.
    pub(crate) fn ways(&self) -> &'static [Way] {
        match self.mode {
            SslMode::Disable => &[Way::Plain],
            SslMode::Prefer => &[Way::Tls, Way::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Way::Tls],
        }
    }

    /// What makes TLS connections.
    pub(crate) fn connector(&self) -> Result<Connector, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = self.trust()?;
        let check_name = self.mode == SslMode::VerifyFull;
        let protection = match (&trust, check_name) {
            (None, _) => Protection::Encrypted,
            (Some(_), false) => Protection::Vouched,
            (Some(_), true) => Protection::Named,
        };
        let own = match self.certificate_mode {
            CertificateMode::Disable => None,
            CertificateMode::Allow | CertificateMode::Require => self.own_certificate()?,
        };
        let own = own.map(|(chain, key)| CertifiedKey::from_der(chain, key, &provider)).transpose();
        let own = own.map_err(|error| {
            Error::Setting(format!("sslcert and sslkey can't be used: {error}. Do they belong together?"))
        })?;
        if own.is_none() && self.certificate_mode == CertificateMode::Require {
            return set_up("sslcertmode=require needs a certificate. Name it in sslcert (PGSSLCERT).");
        }
        let shown = Arc::new(AtomicBool::new(false));
        let verifier = Verifier { algorithms: provider.signature_verification_algorithms, trust, check_name };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(|error| Error::Setting(format!("TLS can't be used: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = builder.with_client_cert_resolver(Arc::new(Own {
            certificate: own.map(Arc::new),
            shown: shown.clone(),
        }));
        config.enable_sni = self.tells_name;
        config.alpn_protocols = vec![b"postgresql".to_vec()]; // sslnegotiation=direct needs it
        let has_to_show = (self.certificate_mode == CertificateMode::Require).then_some(shown);
        Ok(Connector { tls: MakeRustlsConnect::new(config), protection, has_to_show })
    }

    /// Whom to trust. As libpq does, with whichever sslmode, if there is a file of such; without one,
    /// anybody, where the sslmode allows it.
    fn trust(&self) -> Result<Option<Trust>, Error> {
        if self.roots == Path::new(SYSTEM) {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                return set_up(
                    "this machine has no certificates that it trusts (sslrootcert=system). Install them (Debian: ca-certificates), or name a file in sslrootcert.",
                );
            }
            return Ok(Some(Trust::new(found.certs)));
        }
        let shown = self.roots.display();
        if !self.roots.exists() {
            if self.mode < SslMode::VerifyCa {
                return Ok(None);
            }
            let missing = if self.roots.as_os_str().is_empty() {
                "it has none".to_owned()
            } else {
                format!("{shown} is not there")
            };
            return set_up(&format!(
                "sslmode verify-ca and verify-full need a file of the certificates to trust, and {missing}. Name it in sslrootcert (PGSSLROOTCERT), or say sslrootcert=system."
            ));
        }
        // Where libpq finds this list, it looks every certificate up in it.
        let revoked = self.folder.as_ref().map(|folder| folder.join("root.crl"));
        if let Some(revoked) = revoked.filter(|revoked| revoked.exists()) {
            return set_up(&format!(
                "certificate revocation lists are not supported, and {} is one. Move it away to connect without.",
                revoked.display()
            ));
        }
        let certificates = certificates(&self.roots, "sslrootcert")?;
        let trust = Trust::new(certificates);
        if trust.is_empty() {
            return set_up(&format!(
                "sslrootcert: {shown} holds no certificate that can be trusted. It has to be PEM."
            ));
        }
        Ok(Some(trust))
    }

    /// The certificate that the forwarder shows, and its key.
    fn own_certificate(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, Error> {
        let or_default = |given: &Option<PathBuf>, name| {
            given.clone().or_else(|| self.folder.as_ref().map(|folder| folder.join(name)))
        };
        let Some(certificate) = or_default(&self.certificate, "postgresql.crt") else { return Ok(None) };
        if self.certificate.is_none() && !certificate.exists() {
            return Ok(None);
        }
        let chain = certificates(&certificate, "sslcert")?;
        let Some(key) = or_default(&self.key, "postgresql.key") else {
            return set_up("there is an sslcert and no sslkey. Name its key's file in sslkey (PGSSLKEY).");
        };
        let shown = key.display();
        let about = std::fs::metadata(&key).map_err(|error| {
            Error::Setting(format!(
                "sslkey: {shown} can't be read: {error}. Name the key's file in sslkey (PGSSLKEY)."
            ))
        })?;
        // The manual: 0600, or 0640 where root owns it.
        let too_many = if about.uid() == 0 { 0o037 } else { 0o077 };
        if about.permissions().mode() & too_many != 0 {
            return set_up(&format!(
                "sslkey: others than its owner have rights to {shown}. Run: chmod 600 {shown}"
            ));
        }
        let text = file::read(&key).map_err(|error| Error::Setting(format!("sslkey: {shown} {error}")))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            Error::Setting(format!(
                "sslkey: {shown} holds no key that can be read. It has to be PEM, without a passphrase."
            ))
        })?;
        Ok(Some((chain, key)))
    }
}

/// The certificate that the client has, and whether it was shown.
#[derive(Debug)]
struct Own {
    certificate: Option<Arc<CertifiedKey>>,
    shown: Arc<AtomicBool>,
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown.store(self.certificate.is_some(), Ordering::Relaxed);
        self.certificate.clone()
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

/// The versions between `ssl_min_protocol_version` and `ssl_max_protocol_version`. Those before 1.2 are
/// insecure (RFC 8996), and rustls has none of them.
fn versions(given: &mut Parameters) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    const KNOWN: [(&str, u8); 4] = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let least = given.take_one_of("ssl_min_protocol_version", &KNOWN)?.unwrap_or(2);
    let most = given.take_one_of("ssl_max_protocol_version", &KNOWN)?.unwrap_or(3);
    let all = [(2, &rustls::version::TLS12), (3, &rustls::version::TLS13)];
    let allowed = all.into_iter().filter(|(number, _)| (least..=most).contains(number));
    let versions: Vec<_> = allowed.map(|(_, version)| version).collect();
    if versions.is_empty() {
        return set_up(
            "ssl_min_protocol_version and ssl_max_protocol_version leave no version of TLS. TLSv1.2 and TLSv1.3 are supported.",
        );
    }
    Ok(versions)
}

/// The certificates of a PEM file.
fn certificates(file: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let shown = file.display();
    let text = file::read(file).map_err(|error| Error::Setting(format!("{setting}: {shown} {error}")))?;
    let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = read.map_err(|error| {
        Error::Setting(format!(
            "{setting}: {shown} can't be read: {error}. It has to be a file of certificates in PEM."
        ))
    })?;
    if found.is_empty() {
        return set_up(&format!("{setting}: {shown} holds no certificate in PEM."));
    }
    Ok(found)
}

fn set_up<T>(what: &str) -> Result<T, Error> {
    Err(Error::Setting(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Tls, Error> {
        Tls::read(&mut Parameters::read(Some(url), &[], |_| None)?, None)
    }

    #[test]
    fn tls_versions_are_within_the_bounds() {
        let versions = |query: &str| {
            read(&format!("postgresql://?{query}"))
                .map(|tls| tls.versions.iter().map(|version| version.version).collect::<Vec<_>>())
        };
        use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
        assert_eq!(versions("").unwrap(), [TLSv1_2, TLSv1_3]);
        assert_eq!(versions("ssl_min_protocol_version=TLSv1.3").unwrap(), [TLSv1_3]);
        assert_eq!(versions("ssl_min_protocol_version=TLSv1").unwrap(), [TLSv1_2, TLSv1_3]);
        assert_eq!(versions("ssl_max_protocol_version=TLSv1.2").unwrap(), [TLSv1_2]);
        for wrong in [
            "ssl_max_protocol_version=TLSv1.1",
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version=1.2",
        ] {
            assert!(versions(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_protects_less_than_it_seems_is_refused() {
        for (query, saying) in [
            ("sslmode=allow", "It may be disable, prefer"),
            ("sslmode=require&sslrootcert=system", "verify-full"),
            ("sslnegotiation=direct", "sslmode=require"),
            ("sslnegotiation=direct&sslmode=prefer", "sslmode=require"),
            ("sslcertmode=never", "It may be disable, allow, require"),
            ("sslsni=yes", "It may be 1, 0"),
        ] {
            let error = read(&format!("postgresql://?{query}")).unwrap_err().to_string();
            assert!(error.contains(saying), "{error}");
        }
        let needs_one = read("postgresql://?sslmode=require&sslcertmode=require").unwrap().connector();
        assert!(needs_one.err().unwrap().to_string().contains("needs a certificate"));
    }
}
