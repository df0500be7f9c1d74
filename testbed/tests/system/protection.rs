//! Protection that is asked for is there, or the forwarder does not connect: `gssencmode=require` once
//! connected in the clear, and `PGREQUIREAUTH` was passed over where the parameter was refused.

use super::secured::{NAME, PASSWORD, check, secured};
use super::tls::{connects, refuses};

#[tokio::test]
async fn what_can_not_be_had_is_refused_as_parameter_and_as_variable() {
    let server = secured().await;
    for (parameter, variable, value) in [
        ("gssencmode", "PGGSSENCMODE", "require"),
        ("sslcrl", "PGSSLCRL", "revoked.crl"),
        ("requirepeer", "PGREQUIREPEER", "postgres"),
        ("min_protocol_version", "PGMINPROTOCOLVERSION", "3.2"),
        ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", "TLSv1.1"),
        ("require_auth", "PGREQUIREAUTH", "kerberos"),
        ("sslcertmode", "PGSSLCERTMODE", "require"),
    ] {
        // PGSSLMODE makes TLS certain, so that what TLS lacks comes to light.
        let tls = ("PGSSLMODE", "require");
        refuses(&server.check("anyhow", NAME, &[tls, (variable, value)]).await, parameter);
        let url = format!(
            "postgresql://anyhow@{NAME}:{}/secured?hostaddr=127.0.0.1&{parameter}={value}",
            server.port()
        );
        refuses(&check(&url, &[tls]).await, parameter);
    }
    connects(&server.check("anyhow", NAME, &[("PGGSSENCMODE", "prefer")]).await, "over TLS");
}

#[tokio::test]
async fn require_auth_ends_a_connection_before_a_password_is_sent() {
    let server = secured().await;
    let with = async |role, list| {
        server.check(role, NAME, &[("PGPASSWORD", PASSWORD), ("PGREQUIREAUTH", list)]).await
    };
    connects(&with("password_only", "scram-sha-256").await, "over TLS");
    connects(&with("password_only", "!password,!md5").await, "over TLS");
    connects(&with("anyhow", "none,scram-sha-256").await, "over TLS");
    refuses(&with("anyhow", "scram-sha-256").await, "asks for no authentication, which require_auth");
    refuses(
        &with("password_only", "password,md5").await,
        "authentication by scram-sha-256, which require_auth",
    );
    refuses(&with("password_only", "none").await, "PGREQUIREAUTH");
}

#[tokio::test]
async fn a_certificate_is_shown_as_sslcertmode_says() {
    let server = secured().await;
    let (certificate, key) = (server.file("forwarder.crt"), server.file("forwarder.key"));
    let with = async |role, mode| {
        let variables = [
            ("PGSSLMODE", "require"),
            ("PGSSLCERT", certificate.as_str()),
            ("PGSSLKEY", key.as_str()),
            ("PGSSLCERTMODE", mode),
        ];
        server.check(role, NAME, &variables).await
    };
    connects(&with("certificate_only", "require").await, "over TLS");
    connects(&with("certificate_only", "allow").await, "over TLS");
    refuses(&with("certificate_only", "disable").await, "or with a certificate");
}

#[tokio::test]
async fn tls_versions_keep_to_their_bounds() {
    let server = secured().await;
    for versions in [("PGSSLMINPROTOCOLVERSION", "TLSv1.3"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.2")] {
        connects(&server.check("anyhow", NAME, &[("PGSSLMODE", "require"), versions]).await, "over TLS");
    }
}

#[tokio::test]
async fn what_has_no_effect_is_named_in_check() {
    let variables = [("PGTZ", "UTC"), ("PGGSSENCMODE", "prefer"), ("PGKRBSRVNAME", "postgres")];
    let ended = secured().await.check("anyhow", NAME, &variables).await;
    connects(&ended, "over TLS");
    let checks = ended.summary["checks"].as_array().unwrap();
    let settings = checks.iter().find(|finding| finding["check"] == "settings").unwrap();
    assert_eq!(settings["result"], "passed");
    let text = settings["text"].as_str().unwrap();
    assert!(text.contains("PGTZ has no effect") && text.contains("krbsrvname (PGKRBSRVNAME)"), "{text}");
}
