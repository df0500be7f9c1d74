//! A database that is not UTF-8 takes in what it can hold, keeps the rest, and gives it back as it came.

use crate::common::{cluster, count, texts, unseal, unseal_all};
use tokio_postgres::Client;

async fn database(name: &str, encoding: &str) -> Client {
    let cluster = cluster().await;
    let make = format!("CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0 LOCALE 'C'");
    cluster.connect("postgres").await.unwrap().batch_execute(&make).await.unwrap();
    cluster.apply_sql(name).unwrap();
    cluster.connect(name).await.unwrap()
}

/// Takes in bodies that are SQL expressions of the server's.
async fn take_in(client: &Client, bodies: &str) -> [i64; 3] {
    let sql = format!(
        "WITH given AS (SELECT ARRAY[{bodies}] AS bodies)
         SELECT t.* FROM given, pgmask.ingest_login_batch(
             (SELECT array_agg(n::text) FROM generate_subscripts(bodies, 1) n), bodies,
             array_fill('2026-11-20 12:00+00'::timestamptz, ARRAY[cardinality(bodies)]),
             array_fill(1, ARRAY[cardinality(bodies)])) AS t"
    );
    let row = client.query_one(&sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}"));
    [0, 1, 2].map(|at| row.get(at))
}

#[tokio::test]
async fn latin1() {
    let client = database("enc_latin1", "LATIN1").await;
    client.batch_execute("LOAD 'pg_mask'; SET pgmask.vault = on").await.unwrap();
    // A column of the owner's own.
    client.batch_execute("ALTER TABLE user_logins ADD \"größe\" int").await.unwrap();
    client.batch_execute("CALL pgmask.remask('user_logins')").await.unwrap();
    let bodies = r#"'{"user_id":"Zürich","device_id":"\u88c5\u7f6e"}', '{"user_id":"\u88c5"}', 'no jsön', '{"user_id":"é","locale":"ÿÿ","ip":"só"}'"#;
    assert_eq!(take_in(&client, bodies).await, [2, 0, 2]);
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE user_id IN ('Zürich', 'é')").await, 2);
    // A value has the same token in every encoding.
    let utf8 = cluster().await.database("enc_utf8").await.unwrap();
    let expected = texts(&utf8, "SELECT mask_pii('装置')").await;
    assert_eq!(
        texts(&client, "SELECT masked_device_id FROM user_logins WHERE user_id = 'Zürich'").await,
        expected
    );
    assert_eq!(texts(&client, "SELECT mask_pii('é')").await, texts(&utf8, "SELECT mask_pii('é')").await);

    let reasons = texts(&client, "SELECT reason FROM pgmask.quarantine ORDER BY id").await;
    assert_eq!(reasons, ["invalid:user_id", "invalid_json"]);
    for (id, body) in [(1, r#"{"user_id":"\u88c5"}"#), (2, "no jsön")] {
        assert_eq!(unseal(&client, Some(id), Some("só")).await.unwrap(), body.as_bytes());
    }
    assert_eq!(texts(&client, "SELECT DISTINCT reason FROM pgmask.audit").await, ["só"]);
    // A value that this encoding can't hold comes back as bytes.
    for (column, user, value) in [("masked_ip", "é", "só"), ("masked_device_id", "Zürich", "\\xe8a385e7bdae")]
    {
        let token =
            &texts(&client, &format!("SELECT {column} FROM user_logins WHERE user_id = '{user}'")).await[0];
        let row = client.query_one("CALL pgmask.recover_pii($1, 'só')", &[token]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
    assert_eq!(count(&client, "SELECT count(*) FROM pgmask.verify_audit()").await, 0);
    let replayed = "SELECT inserted || ' ' || kept FROM pgmask.replay_quarantine('invalid_json')";
    assert_eq!(texts(&client, replayed).await, ["0 1"]);
}

#[tokio::test]
async fn sql_ascii() {
    let client = database("enc_sql_ascii", "SQL_ASCII").await;
    // Bytes that are no UTF-8 in what is read, in what is ignored, and in what is no JSON.
    let bodies =
        r#"'{"user_id":"装"}', E'{"user_id":"\xff"}', E'{"user_id":"u","x":"\xff"}', E'no json \xfe\xff'"#;
    assert_eq!(take_in(&client, bodies).await, [1, 0, 3]);
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE user_id = '装'").await, 1);
    assert_eq!(texts(&client, "SELECT DISTINCT reason FROM pgmask.quarantine").await, ["invalid_json"]);
    let bodies: [&[u8]; 3] =
        [b"{\"user_id\":\"\xff\"}", b"{\"user_id\":\"u\",\"x\":\"\xff\"}", b"no json \xfe\xff"];
    client.batch_execute("SET client_encoding = 'SQL_ASCII'").await.unwrap();
    assert_eq!(unseal_all(&client).await, bodies);
}

/// Bytes that the server's encoding has and Unicode has not.
#[tokio::test]
async fn what_has_no_unicode_character_is_kept_as_it_is() {
    let client = database("enc_euc_jp", "EUC_JP").await;
    client.batch_execute("SET client_encoding = 'SQL_ASCII'").await.unwrap();
    let bodies = r#"E'{"user_id":"\xa9\xa1"}', '{"user_id":"plain"}', E'{"user_id":"\xc6\xfc"}'"#;
    assert_eq!(take_in(&client, bodies).await, [2, 0, 1]);
    assert_eq!(texts(&client, "SELECT reason FROM pgmask.quarantine").await, ["invalid_json"]);
    assert_eq!(unseal_all(&client).await, [b"{\"user_id\":\"\xa9\xa1\"}"]);
}

/// A client that has no letter of an error's text gets another error in its place; nor does a database have it in a comment.
#[test]
fn every_text_is_ascii() {
    let mut files = Vec::new();
    for folder in ["pg_mask/src", "pg_mask/src/sql", "sql"] {
        let entries = std::fs::read_dir(testbed::root().join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    assert!(files.iter().any(|path| path.ends_with("error.rs")));
    for path in files {
        let comment = if path.extension().is_some_and(|kind| kind == "sql") { "--" } else { "//" };
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let code = line.split(comment).next().unwrap_or_default();
            assert!(code.is_ascii(), "{}: {line}", path.display());
        }
    }
}
