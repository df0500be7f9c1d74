//! The library `pg_settings` by itself, with real servers: which server it connects to, how, and what it can
//! do with the connection then.

use super::secured::{NAME, secured};
use crate::common::cluster;
use pg_settings::{Connection, Error, Kind, Protection, Settings};
use std::collections::BTreeSet;
use testbed::cluster::Cluster;
use testbed::guardian::RefusedPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn connect(url: &str) -> Result<Connection, Error> {
    Settings::read(Some(url), &[], |_| None)?.connect().await
}

async fn text(connection: &Connection, sql: &str) -> String {
    connection.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn sessions_are_those_that_target_session_attrs_asks_for() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let standby = cluster.standby().await.unwrap();
    let refused = RefusedPort::new().unwrap();
    let (primary, standby, gone) = (cluster.port(), standby.port(), refused.number());
    let reached = async |target: &str, ports: [u16; 2]| {
        let [first, second] = ports;
        let url = format!(
            "postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs={target}"
        );
        connect(&url).await.map(|connection| connection.server.rsplit(':').next().unwrap().parse().unwrap())
    };
    for (target, ports, expected) in [
        ("any", [standby, primary], Some(standby)),
        ("any", [gone, primary], Some(primary)),
        ("read-write", [standby, primary], Some(primary)),
        ("primary", [standby, primary], Some(primary)),
        ("read-only", [primary, standby], Some(standby)),
        ("standby", [primary, standby], Some(standby)),
        ("standby", [primary, gone], None),
        ("primary", [standby, gone], None),
        ("prefer-standby", [primary, standby], Some(standby)),
        ("prefer-standby", [primary, gone], Some(primary)),
    ] {
        let found = reached(target, ports).await;
        match (found, expected) {
            (Ok(port), expected) => assert_eq!(Some(port), expected, "{target} {ports:?}"),
            (Err(error), expected) => {
                assert_eq!((error.kind(), expected), (Kind::Transient, None), "{target} {ports:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn hosts_are_mixed_where_load_balance_hosts_is_random() {
    let port = cluster().await.port();
    let url = format!("postgresql://postgres@127.0.0.1:{port},localhost:{port}/postgres?load_balance_hosts=");
    let mut servers = BTreeSet::new();
    for _ in 0..40 {
        servers.insert(connect(&format!("{url}random")).await.unwrap().server);
        assert!(connect(&format!("{url}disable")).await.unwrap().server.starts_with("127.0.0.1:"));
    }
    assert_eq!(servers.len(), 2, "{servers:?}");
}

#[tokio::test]
async fn a_directory_is_where_a_server_s_socket_is() {
    let folder = cluster().await.data().display().to_string().replace('/', "%2F");
    let url = format!("postgresql://postgres@{folder}:{}/postgres?sslmode=require", cluster().await.port());
    let connection = connect(&url).await.unwrap();
    assert!(connection.local && connection.protection == Protection::None);
    let address = connection.client.query_one("SELECT inet_client_addr() IS NULL", &[]).await.unwrap();
    assert!(address.get::<_, bool>(0));
}

#[tokio::test]
async fn what_a_session_is_told() {
    let port = cluster().await.port();
    let url = format!("postgresql://postgres@127.0.0.1:{port}/postgres?options=-c%20work_mem%3D7MB");
    let named = |url: String| async move {
        let settings = Settings::read(Some(&url), &[("fallback_application_name", "a program")], |_| None);
        let connection = settings.unwrap().connect().await.unwrap();
        assert_eq!(text(&connection, "SHOW work_mem").await, "7MB");
        text(&connection, "SHOW application_name").await
    };
    assert_eq!(named(url.clone()).await, "a program");
    assert_eq!(named(format!("{url}&application_name=mine")).await, "mine");
}

/// Over TLS and without alike: the request takes a connection of its own, made in the same way.
#[tokio::test]
async fn a_statement_can_be_cancelled() {
    let server = secured().await;
    let url = format!("postgresql://anyhow@{NAME}:{}/secured?hostaddr=127.0.0.1", server.port());
    let root = server.file("root.crt");
    for mode in ["disable", "require", "verify-full"] {
        let connection = connect(&format!("{url}&sslmode={mode}&sslrootcert={root}")).await.unwrap();
        let (sleeps, asked) = tokio::join!(connection.client.batch_execute("SELECT pg_sleep(600)"), async {
            // Until the statement is under way there, there is nothing to cancel.
            let watch = connect(&url).await.unwrap();
            let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
            while text(&watch, sql).await == "0" {}
            connection.cancel().await
        });
        asked.unwrap();
        assert_eq!(sleeps.unwrap_err().code().unwrap().code(), "57014", "{mode}");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_ends_the_connection_and_says_so() {
    let url = cluster().await.url("postgres", "postgres");
    let settings = Settings::read(Some(&url), &[], |_| None).unwrap().limit_answers(1 << 20);
    let connection = settings.connect().await.unwrap();
    for _ in 0..3 {
        assert_eq!(text(&connection, "SELECT repeat('x', 1000000)").await.len(), 1_000_000);
    }
    assert!(connection.given_up().is_none());
    connection
        .client
        .query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)", &[])
        .await
        .unwrap_err();
    let reason = connection.given_up().unwrap();
    assert!(reason.to_string().contains("sent an answer of more than 1 MiB"), "{reason}");
    assert!(connection.client.is_closed());
}

#[tokio::test]
async fn kinds_tell_what_to_do_about_an_error() {
    let server = secured().await;
    let at = |role: &str, rest: &str| format!("postgresql://{role}@127.0.0.1:{}/{rest}", server.port());
    let refused = RefusedPort::new().unwrap();
    let gone = format!("postgresql://u@127.0.0.1:{}", refused.number());
    for (url, kind) in [
        (gone, Kind::Transient),
        ("postgresql://no.such.host.invalid".to_owned(), Kind::Transient),
        (at("no_such_role", "secured"), Kind::Credentials),
        (at("password_only:wrong", "secured"), Kind::Credentials),
        (at("password_only", "secured"), Kind::SetUp),
        (at("anyhow", "no_such_database"), Kind::SetUp),
        (at("anyhow", "secured?sslmode=verify-full"), Kind::SetUp),
        (at("anyhow", "secured?sslmode=sometimes"), Kind::SetUp),
    ] {
        let error = connect(&url).await.err().unwrap_or_else(|| panic!("{url}"));
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}

/// What a client says first, to a server that has TLS.
async fn hello(parameters: &str) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgresql://u@{NAME}:{port}/d?hostaddr=127.0.0.1&sslmode=require&{parameters}");
    let hears = async {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut said = vec![0; 8];
        client.read_exact(&mut said).await.unwrap();
        if said == [0, 0, 0, 8, 4, 210, 22, 47] {
            client.write_all(b"S").await.unwrap();
        }
        let mut more = vec![0; 1 << 14];
        let size = client.read(&mut more).await.unwrap();
        said.extend_from_slice(&more[..size]);
        said
    };
    let (said, refused) = tokio::join!(hears, connect(&url));
    assert!(refused.is_err());
    said
}

fn has(said: &[u8], text: &str) -> bool {
    said.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn tls_begins_as_sslnegotiation_and_sslsni_say() {
    const HANDSHAKE: u8 = 22; // RFC 8446, section 5.1
    let asked = hello("").await;
    assert!(asked.starts_with(&[0, 0, 0, 8]) && asked[8] == HANDSHAKE, "{asked:?}");
    assert!(has(&asked, NAME));
    let direct = hello("sslnegotiation=direct").await;
    // The protocol's name has to be in it (PostgreSQL manual, "SSL Session Encryption").
    assert!(direct[0] == HANDSHAKE && has(&direct, "postgresql"), "{direct:?}");
    assert!(!has(&hello("sslsni=0").await, NAME));
}
