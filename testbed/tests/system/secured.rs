//! What `tls` and `passwords` try to get into: a server with a certificate, and roles that it takes in
//! different ways.

use crate::common::localstack;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::cluster::Cluster;
use testbed::forwarder::{self, Ended};
use testbed::queue::Queue;
use tokio::sync::OnceCell;

/// The server's certificate is for these, and for `127.0.0.1`.
pub(crate) const NAME: &str = "db.example";
pub(crate) const QUEUE: &str = "secured";
pub(crate) const PASSWORD: &str = r"canary:pass\word";

/// The roles: those that end in `_only` come in that way alone.
const ROLES: &str = r"
    CREATE ROLE anyhow LOGIN IN ROLE pgmask_ingester;
    CREATE ROLE tls_only LOGIN IN ROLE pgmask_ingester;
    CREATE ROLE plain_only LOGIN IN ROLE pgmask_ingester;
    CREATE ROLE certificate_only LOGIN IN ROLE pgmask_ingester;
    CREATE ROLE password_only LOGIN IN ROLE pgmask_ingester PASSWORD 'canary:pass\word';";
const HBA: &str = "
    hostssl   all  tls_only          127.0.0.1/32  trust
    hostnossl all  plain_only        127.0.0.1/32  trust
    hostssl   all  certificate_only  127.0.0.1/32  trust clientcert=verify-ca
    host      all  password_only     127.0.0.1/32  scram-sha-256
    host      all  postgres,anyhow   127.0.0.1/32  trust
";

/// The server, and the files that belong to it.
pub(crate) struct Secured {
    cluster: Cluster,
    folder: PathBuf,
}

/// The one that tests share.
pub(crate) async fn secured() -> &'static Secured {
    static SHARED: OnceCell<Secured> = OnceCell::const_new();
    SHARED.get_or_init(Secured::start).await
}

impl Secured {
    async fn start() -> Self {
        // In the folder of the installation, which is taken away with it.
        let folder = testbed::installation::shared().unwrap().path().join("secured");
        std::fs::create_dir(&folder).unwrap();
        let authority = Authority::new("the right authority");
        authority.certify_server(&folder, &[NAME, "127.0.0.1"]);
        write(&folder, "hba", HBA, 0o644);
        let (certificate, key) = authority.sign("forwarder", &[]);
        write(&folder, "forwarder.crt", &certificate, 0o644);
        write(&folder, "forwarder.key", &key, 0o600);
        write(&folder, "forwarder.open.key", &key, 0o644);
        let wrong = Authority::new("another authority");
        let (certificate, key) = wrong.sign("forwarder", &[]);
        write(&folder, "wrong-root.crt", &wrong.certificate.pem(), 0o644);
        write(&folder, "wrong.crt", &certificate, 0o644);
        write(&folder, "wrong.key", &key, 0o600);
        let set = |name: &str, file: &str| format!("{name} = '{}'", folder.join(file).display());
        let settings = [
            "ssl = on".to_owned(),
            set("ssl_cert_file", "server.crt"),
            set("ssl_key_file", "server.key"),
            set("ssl_ca_file", "root.crt"),
            set("hba_file", "hba"),
        ];
        let cluster = Cluster::start(&settings.each_ref().map(String::as_str)).await.unwrap();
        cluster.database("secured").await.unwrap().batch_execute(ROLES).await.unwrap();
        Queue::create(localstack().await, QUEUE).await.unwrap();
        Self { cluster, folder }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// `forwarder check` as a role, with a host's name and variables.
    pub(crate) async fn check(&self, role: &str, host: &str, variables: &[(&str, &str)]) -> Ended {
        let url = format!("postgresql://{role}@{host}:{}/secured?hostaddr=127.0.0.1", self.cluster.port());
        check(&url, variables).await
    }
}

/// `forwarder check` with a database and variables.
pub(crate) async fn check(url: &str, variables: &[(&str, &str)]) -> Ended {
    forwarder::run(command(url, variables).await).await.unwrap()
}

pub(crate) async fn command(url: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = forwarder::command(localstack().await, QUEUE, url).unwrap();
    command.args(["check", "--output=json", "--log-level=trace"]).envs(variables.iter().copied());
    command
}

fn write(folder: &Path, name: &str, text: &str, mode: u32) {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Makes a server's certificate for these names, its key, and the root's certificate: `server.crt`, `server.key`,
/// `root.crt`.
pub(crate) fn certify_server(folder: &Path, names: &[&str]) {
    Authority::new("an authority").certify_server(folder, names);
}

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut about = CertificateParams::default();
        about.distinguished_name.push(DnType::CommonName, name);
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = about.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(about, key) }
    }

    fn certify_server(&self, folder: &Path, names: &[&str]) {
        let (certificate, key) = self.sign("server", names);
        write(folder, "root.crt", &self.certificate.pem(), 0o644);
        write(folder, "server.crt", &certificate, 0o644);
        write(folder, "server.key", &key, 0o600);
        if let Some(user) = testbed::installation::shared().unwrap().user {
            chown(folder.join("server.key"), Some(user.uid), Some(user.gid)).unwrap();
        }
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, common_name: &str, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut about = CertificateParams::new(names).unwrap();
        about.distinguished_name.push(DnType::CommonName, common_name);
        (about.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}
