//! Each sslmode does what libpq's does (PostgreSQL manual, "SSL Support"), and says what is wrong.

use super::secured::{NAME, check, secured};
use crate::common::cluster;
use testbed::forwarder::Ended;

/// What `forwarder check` says of the database.
pub(crate) fn said(ended: &Ended) -> (&str, &str) {
    let checks = ended.summary["checks"].as_array().unwrap_or_else(|| panic!("{}", ended.log));
    let database = checks.iter().find(|finding| finding["check"] == "database").unwrap();
    (database["result"].as_str().unwrap(), database["text"].as_str().unwrap())
}

#[track_caller]
pub(crate) fn connects(ended: &Ended, saying: &str) {
    let (result, text) = said(ended);
    assert!(
        result == "passed" && text.contains(saying) && ended.code == Some(0),
        "expected {saying:?}: {text}"
    );
}

#[track_caller]
pub(crate) fn refuses(ended: &Ended, saying: &str) {
    let (result, text) = said(ended);
    assert!(
        result == "failed" && text.contains(saying) && ended.code == Some(78),
        "expected {saying:?}: {text}"
    );
}

const PLAIN: &str = "on this machine";
const UNCHECKED: &str = "over TLS, but the server's certificate was not verified";
const VOUCHED: &str = "over TLS, its certificate is good";
const NAMED: &str = "over TLS, its certificate and name are good";

#[tokio::test]
async fn each_sslmode_with_a_server_that_has_tls() {
    let server = secured().await;
    let file = |name: &str| server.file(name);
    let (right, wrong, missing) = (file("root.crt"), file("wrong-root.crt"), file("no-such-file"));
    let with = async |role, host, mode, root: &str| {
        server.check(role, host, &[("PGSSLMODE", mode), ("PGSSLROOTCERT", root)]).await
    };
    let (other, ip) = ("other.example", "127.0.0.1");

    connects(&with("anyhow", NAME, "disable", &right).await, PLAIN);
    refuses(&with("tls_only", NAME, "disable", &right).await, "it may take this role with TLS alone");

    // Dropped: `prefer` connects wherever it would.
    refuses(
        &with("anyhow", NAME, "allow", "").await,
        "sslmode (PGSSLMODE) has a value that is not supported",
    );

    connects(&with("anyhow", other, "prefer", "").await, UNCHECKED);
    connects(&with("anyhow", other, "prefer", &right).await, VOUCHED);
    connects(&with("anyhow", other, "prefer", &wrong).await, PLAIN); // as libpq has it
    connects(&with("plain_only", other, "prefer", "").await, PLAIN);
    refuses(&with("tls_only", other, "prefer", &wrong).await, "sslmode");

    connects(&with("anyhow", other, "require", &missing).await, UNCHECKED);
    connects(&with("anyhow", other, "require", &right).await, VOUCHED); // a file makes it verify-ca
    refuses(&with("anyhow", NAME, "require", &wrong).await, "PGSSLROOTCERT");
    refuses(&with("plain_only", NAME, "require", "").await, "pg_hba.conf");

    connects(&with("anyhow", other, "verify-ca", &right).await, VOUCHED);
    refuses(&with("anyhow", NAME, "verify-ca", &wrong).await, "UnknownIssuer");
    refuses(&with("anyhow", NAME, "verify-ca", &missing).await, "no-such-file is not there");
    refuses(&with("anyhow", NAME, "verify-ca", "").await, "sslrootcert=system");

    connects(&with("anyhow", NAME, "verify-full", &right).await, NAMED);
    connects(&with("anyhow", ip, "verify-full", &right).await, NAMED);
    refuses(&with("anyhow", other, "verify-full", &right).await, "Connect by a name that is in it");
    refuses(&with("anyhow", NAME, "verify-full", &wrong).await, "UnknownIssuer");

    refuses(&with("anyhow", NAME, "verify-most", &right).await, "It may be disable, prefer, require");
}

#[tokio::test]
async fn each_sslmode_with_a_server_that_has_none() {
    let server = secured().await;
    let root = server.file("root.crt");
    cluster().await.database("no_tls").await.unwrap();
    for (mode, has_to_have_it) in
        [("disable", false), ("prefer", false), ("require", true), ("verify-ca", true), ("verify-full", true)]
    {
        let url = format!(
            "{}?sslmode={mode}&sslrootcert={root}",
            cluster().await.url("pgmask_forwarder", "no_tls")
        );
        let ended = check(&url, &[]).await;
        if has_to_have_it {
            refuses(&ended, "has no TLS, which sslmode asks for");
        } else {
            connects(&ended, PLAIN);
        }
    }
}

#[tokio::test]
async fn the_certificates_that_the_machine_trusts() {
    let server = secured().await;
    let system = ("PGSSLROOTCERT", "system");
    let (right, wrong) = (server.file("root.crt"), server.file("wrong-root.crt"));
    // The machine's own, as whoever runs OpenSSL or rustls may name them.
    connects(&server.check("anyhow", NAME, &[system, ("SSL_CERT_FILE", &right)]).await, NAMED);
    let ended = server.check("anyhow", "other.example", &[system, ("SSL_CERT_FILE", &right)]).await;
    refuses(&ended, "Connect by a name");
    refuses(&server.check("anyhow", NAME, &[system, ("SSL_CERT_FILE", &wrong)]).await, "UnknownIssuer");
    refuses(&server.check("anyhow", NAME, &[system, ("PGSSLMODE", "require")]).await, "sslmode=verify-full");
}

#[tokio::test]
async fn certificates_of_the_forwarder() {
    let server = secured().await;
    let with = async |certificate: &str, key: &str| {
        let (certificate, key) = (server.file(certificate), server.file(key));
        let variables = [("PGSSLMODE", "require"), ("PGSSLCERT", &certificate), ("PGSSLKEY", &key)];
        server.check("certificate_only", NAME, &variables).await
    };
    connects(&with("forwarder.crt", "forwarder.key").await, UNCHECKED);
    refuses(&with("wrong.crt", "wrong.key").await, "Check sslcert and sslkey");
    refuses(&with("forwarder.crt", "wrong.key").await, "Do they belong together?");
    refuses(&with("forwarder.crt", "forwarder.open.key").await, "chmod 600");
    refuses(&with("forwarder.crt", "no-such-file").await, "PGSSLKEY");
    refuses(&with("no-such-file", "forwarder.key").await, "sslcert");
    let ended = server.check("certificate_only", NAME, &[("PGSSLMODE", "require")]).await;
    refuses(&ended, "or with a certificate");
    // libpq's own places.
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".postgresql");
    std::fs::create_dir(&folder).unwrap();
    for (from, to) in
        [("forwarder.crt", "postgresql.crt"), ("forwarder.key", "postgresql.key"), ("root.crt", "root.crt")]
    {
        std::fs::copy(server.file(from), folder.join(to)).unwrap();
    }
    let home = home.path().to_str().unwrap();
    let variables = [("PGSSLMODE", "verify-full"), ("HOME", home)];
    connects(&server.check("certificate_only", NAME, &variables).await, NAMED);
}

#[tokio::test]
async fn plain_text_on_a_network_is_warned_of() {
    // An address that is this machine's, and that nobody can tell to be.
    let url = format!("postgresql://anyhow@0.0.0.0:{}/secured?sslmode=disable", secured().await.port());
    let ended = check(&url, &[]).await;
    let (result, text) = said(&ended);
    assert!(result == "warning" && text.contains("not encrypted"), "{text}");
    assert_eq!(ended.code, Some(0));
}
