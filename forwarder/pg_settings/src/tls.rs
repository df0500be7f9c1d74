//! TLS to the database: what libpq's `sslmode` and its files ask for, by rustls (PostgreSQL manual,
//! "SSL Support" in the chapter on libpq).

use crate::certificate::{Trust, Verifier};
use crate::error::Error;
use crate::parameters::{Parameters, not_a};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_postgres_rustls::MakeRustlsConnect;

/// The manual's table of sslmodes, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// One way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Tls,
}

/// What a connection that was made is safe from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// Listeners.
    Encrypted,
    /// And servers that nobody vouches for.
    Vouched,
    /// And servers of another name.
    Named,
}

/// What the settings say on TLS. Files are read for each connection: they may be renewed meanwhile.
#[derive(Debug)]
pub(crate) struct Tls {
    mode: SslMode,
    /// The file of `sslrootcert`, or `system`.
    roots: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    /// libpq's folder for what no setting names.
    folder: Option<PathBuf>,
}

/// What `sslrootcert` says for the machine's own.
const SYSTEM: &str = "system";

impl Tls {
    pub(crate) fn read(given: &mut Parameters, home: Option<&Path>) -> Result<Self, Error> {
        let folder = home.map(|home| home.join(".postgresql"));
        let roots = given.take("sslrootcert").map(PathBuf::from);
        let system = roots.as_deref() == Some(Path::new(SYSTEM));
        let mode = match given.take("sslmode").as_deref() {
            None if system => SslMode::VerifyFull,
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(_) => return not_a("sslmode"),
        };
        if system && mode != SslMode::VerifyFull {
            return set_up(
                "sslrootcert=system trusts too many to be told apart by less than their names. Use it with sslmode=verify-full.",
            );
        }
        let roots = roots.or_else(|| Some(folder.as_ref()?.join("root.crt"))).unwrap_or_default();
        let [certificate, key] = ["sslcert", "sslkey"].map(|name| given.take(name).map(PathBuf::from));
        Ok(Self { mode, roots, certificate, key, folder })
    }

    /// The ways to try, in order.
    pub(crate) fn ways(&self) -> &'static [Way] {
        match self.mode {
            SslMode::Disable => &[Way::Plain],
            SslMode::Allow => &[Way::Plain, Way::Tls],
            SslMode::Prefer => &[Way::Tls, Way::Plain],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Way::Tls],
        }
    }

    /// What makes TLS connections, and what these are safe from.
    pub(crate) fn connector(&self) -> Result<(MakeRustlsConnect, Protection), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = self.trust()?;
        let check_name = self.mode == SslMode::VerifyFull;
        let protection = match (&trust, check_name) {
            (None, _) => Protection::Encrypted,
            (Some(_), false) => Protection::Vouched,
            (Some(_), true) => Protection::Named,
        };
        let verifier = Verifier { algorithms: provider.signature_verification_algorithms, trust, check_name };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Setting(format!("TLS can't be used: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.own_certificate()? {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => {
                builder.with_client_auth_cert(certificates, key).map_err(|error| {
                    Error::Setting(format!(
                        "sslcert and sslkey can't be used: {error}. Do they belong together?"
                    ))
                })?
            }
        };
        config.alpn_protocols = vec![b"postgresql".to_vec()]; // sslnegotiation=direct needs it
        Ok((MakeRustlsConnect::new(config), protection))
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
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|_| {
            Error::Setting(format!(
                "sslkey: {shown} holds no key that can be read. It has to be PEM, without a passphrase."
            ))
        })?;
        Ok(Some((chain, key)))
    }
}

/// The certificates of a PEM file.
fn certificates(file: &Path, setting: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| {
        Error::Setting(format!(
            "{setting}: {} can't be read: {error}. It has to be a file of certificates in PEM.",
            file.display()
        ))
    })?;
    if found.is_empty() {
        return set_up(&format!("{setting}: {} holds no certificate in PEM.", file.display()));
    }
    Ok(found)
}

fn set_up<T>(what: &str) -> Result<T, Error> {
    Err(Error::Setting(what.to_owned()))
}
