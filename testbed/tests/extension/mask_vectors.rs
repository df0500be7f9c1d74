//! `mask_pii` gives the tokens of the masking contract's vectors, with their keys as the keyring.

use crate::common::{message, write_keyring};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testbed::cluster::Cluster;

const VECTORS: &str = include_str!("../../../pg_mask/core/tests/vectors/mask_v1.json");

fn install_keyring(cluster: &Cluster, keys: &[String]) {
    let at = "2026-11-21T00:00:00Z";
    let generations: Vec<_> =
        (1..).zip(keys).map(|(n, key)| json!({"generation": n, "key": key, "created_at": at})).collect();
    let path = cluster.data().join("pg_mask.keyring");
    let text = json!({"format": "pg_mask keyring v1", "generations": generations, "seal": []}).to_string();
    write_keyring(&path, text.as_bytes());
}

#[tokio::test]
async fn tokens_are_those_of_the_vectors() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut by_keys: BTreeMap<Vec<String>, Vec<&Value>> = BTreeMap::new();
    for vector in vectors["vectors"].as_array().unwrap() {
        let keys: Vec<String> = serde_json::from_value(vector["keys"].clone()).unwrap();
        by_keys.entry(keys).or_default().push(vector);
    }
    by_keys.remove(&Vec::new()); // generation 0 is never written
    assert_eq!(by_keys.len(), 2);

    let cluster = Cluster::start(&[]).await.unwrap();
    let (mut tried, mut networks) = (0, 0);
    for (keys, vectors) in by_keys {
        install_keyring(&cluster, &keys);
        // One keyring grows out of the other; a database that is new begins with its last generation.
        let client = cluster.connect("postgres").await.unwrap();
        client.batch_execute("DROP EXTENSION IF EXISTS pg_mask; CREATE EXTENSION pg_mask").await.unwrap();
        for vector in vectors {
            let [value, domain, expected] = ["value", "domain", "token"].map(|name| vector[name].as_str());
            tried += 1;
            if vector["function"] == "mask_network" {
                let [v4_bits, v6_bits] =
                    ["v4_bits", "v6_bits"].map(|name| vector[name].as_i64().unwrap() as i32);
                let sql = "SELECT mask_network($1::text::inet, $2, $3)";
                let row = client.query_one(sql, &[&value, &v4_bits, &v6_bits]).await.unwrap();
                assert_eq!(row.get::<_, Option<&str>>(0), expected, "{vector}");
                networks += 1;
                continue;
            }
            let row =
                client.query_one("SELECT mask_pii($1::text, $2::text)", &[&value, &domain]).await.unwrap();
            assert_eq!(row.get::<_, Option<&str>>(0), expected, "{vector}");
            if domain == Some("pii") {
                let row = client.query_one("SELECT mask_pii($1::text)", &[&value]).await.unwrap();
                assert_eq!(row.get::<_, Option<&str>>(0), expected, "{vector}");
            }
        }
        for (key, check_value) in vectors_check_values() {
            if let Some(at) = keys.iter().position(|other| *other == key) {
                let sql = "SELECT check_value FROM pgmask.key_check WHERE generation = $1";
                if let Some(row) = client.query_opt(sql, &[&(at as i32 + 1)]).await.unwrap() {
                    assert_eq!(row.get::<_, &str>(0), check_value);
                }
            }
        }
    }
    assert!(tried > 150 && networks == 20, "only {tried} vectors, {networks} networks");
}

fn vectors_check_values() -> BTreeMap<String, String> {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    serde_json::from_value(vectors["check_values"].clone()).unwrap()
}

/// Each line is one address or network. Its first text is written as `inet` takes it, too.
const SPELLINGS: &[&[&str]] = &[
    &[
        "192.0.2.7",
        "192.0.2.7/32",
        "192.0.2.7:443",
        "::ffff:192.0.2.7",
        "::FFFF:C000:207/128",
        "[::ffff:c000:207]:1",
    ],
    &["192.0.2.7/24", "192.0.2.0/24", "::ffff:192.0.2.7/120"],
    &["0.0.0.0/0", "255.255.255.255/0", "::ffff:0.0.0.0/96"],
    &["255.255.255.255/1", "128.0.0.0/1"],
    &[
        "2001:DB8::0:1",
        "2001:db8::1",
        "2001:db8:0:0:0:0:0.0.0.1",
        "[2001:db8::1]",
        "[2001:DB8::1]:65535",
        " 2001:db8::1/128\t",
    ],
    &["::192.0.2.7", "::c000:207"],
    &["2001:db8::1/64", "2001:db8::/64", "2001:db8:0:0:ffff::/64"],
    &["::ffff:192.0.2.7/95", "::fffe:0:0/95"],
    &["::/0", "ffff::/0"],
    &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/127", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"],
];

#[tokio::test]
async fn inet_and_text_agree() {
    let client = crate::common::cluster().await.database("inet_and_text").await.unwrap();
    for spellings in SPELLINGS {
        let sql = "SELECT mask_pii($1::text::inet), mask_pii($1::text::inet::text), mask_pii(host($1::text::inet)::inet)";
        let row = client.query_one(sql, &[&spellings[0]]).await.unwrap();
        let token: &str = row.get(0);
        assert_eq!(row.get::<_, &str>(1), token, "{}", spellings[0]);
        for spelling in *spellings {
            let row = client.query_one("SELECT mask_pii($1::text)", &[spelling]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), token, "{spelling}");
        }
    }
    let all = SPELLINGS.iter().map(|spellings| spellings[0]).collect::<Vec<_>>();
    let sql = "SELECT count(DISTINCT mask_pii(v)) FROM unnest($1::text[]) v";
    assert_eq!(client.query_one(sql, &[&all]).await.unwrap().get::<_, i64>(0), all.len() as i64);
}

#[tokio::test]
async fn equal_addresses_agree_whatever_their_type() {
    let client = crate::common::cluster().await.database("address_types").await.unwrap();
    // Random addresses with many zeros, and every prefix length. A third is IPv4-mapped.
    client
        .batch_execute(
            "CREATE TABLE addresses AS
             SELECT set_masklen(a, CASE WHEN random() < 0.5 THEN -1 ELSE bits END) AS a
             FROM (SELECT n / 3 % CASE n % 3 WHEN 0 THEN 33 ELSE 129 END AS bits,
                          CASE n % 3 WHEN 0 THEN '0.0.0.0'::inet + low WHEN 1 THEN '::ffff:0.0.0.0'::inet + low
                          ELSE ('::'::inet + low) | ('ffff:0:ff:0:f::'::inet & ('8000::'::inet + high)) END AS a
                   FROM generate_series(1, 3000) n,
                        LATERAL (SELECT n, (random() * 4294967295)::bigint, (random() * 1e18)::bigint) AS r(n2, low, high)
                  ) made",
        )
        .await
        .unwrap();
    let sql = "SELECT count(*) FROM addresses WHERE mask_pii(a) = ALL (ARRAY[
        mask_pii(a::text), mask_pii(network(a)::text), mask_pii(network(a)::inet),
        CASE WHEN masklen(a) = CASE family(a) WHEN 4 THEN 32 ELSE 128 END THEN mask_pii(host(a)) ELSE mask_pii(a) END,
        CASE WHEN masklen(a) = 128 THEN mask_pii('[' || upper(host(a)) || ']:443') ELSE mask_pii(a) END])";
    assert_eq!(crate::common::count(&client, sql).await, 3000);
    let sql = "SELECT count(*) FROM addresses
        WHERE mask_pii(a, 'vpn') = mask_pii(a::text, 'vpn') AND mask_pii(a, 'vpn') <> mask_pii(a)
          AND mask_pii(a, 'pii') = mask_pii(a) AND mask_network(a, 32, 128) = mask_pii(a, 'network')";
    assert_eq!(crate::common::count(&client, sql).await, 3000);
    // As PostgreSQL's own functions make the network, IPv4-mapped addresses apart.
    let sql = "SELECT count(*) FROM addresses WHERE a <<= '::ffff:0:0/96'
        OR mask_network(a) = mask_pii(network(set_masklen(a, least(masklen(a), CASE family(a) WHEN 4 THEN 24 ELSE 48 END)))::text, 'network')";
    assert_eq!(crate::common::count(&client, sql).await, 3000);
}

#[tokio::test]
async fn equal_device_ids_agree_whatever_their_type() {
    let client = crate::common::cluster().await.database("device_types").await.unwrap();
    let sql = "SELECT count(*) FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 1000)) made
        WHERE mask_pii(id) = mask_pii(id::text) AND mask_pii(id, 'device') = mask_pii(id::text, 'device')
          AND mask_pii(id, 'device') <> mask_pii(id) AND mask_pii(id) <> mask_pii(upper(id::text))";
    assert_eq!(crate::common::count(&client, sql).await, 1000);
    // A literal is a text, whatever it looks like.
    let sql = "SELECT mask_pii('6F9619FF-8B86-D011-B42D-00CF4FC964FF') = mask_pii('6f9619ff-8b86-d011-b42d-00cf4fc964ff')";
    assert!(!client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn arguments_out_of_bounds_are_refused() {
    let client = crate::common::cluster().await.database("mask_bounds").await.unwrap();
    for (sql, expected) in [
        ("SELECT mask_pii('x', repeat('d', 1025))", "54000 a domain of 1025 bytes"),
        ("SELECT mask_pii('::1'::inet, repeat('d', 100000000))", "54000 a domain of 100000000 bytes"),
        ("SELECT mask_network('192.0.2.1', 33)", "22023 a prefix of 33 bits"),
        ("SELECT mask_network('192.0.2.1', -1)", "22023 a prefix of -1 bits"),
        ("SELECT mask_network('192.0.2.1', 24, 129)", "22023 a prefix of 129 bits"),
    ] {
        let text = message(&client.query(sql, &[]).await.unwrap_err());
        assert!(text.starts_with(expected), "{sql}: {text}");
    }
    let sql = "SELECT count(DISTINCT mask_pii('x', repeat('d', n))) FROM generate_series(1, 1024) n";
    assert_eq!(crate::common::count(&client, sql).await, 1024);
}

#[tokio::test]
async fn null_and_nothing_have_no_token() {
    let client = crate::common::cluster().await.database("no_token").await.unwrap();
    for sql in [
        "NULL::text",
        "NULL::inet",
        "NULL::uuid",
        "NULL::uuid, 'x'",
        "''",
        "E' \\t\\r\\n\\x0b\\f'",
        "'x', NULL",
        "NULL, 'pii'",
    ] {
        let row = client.query_one(&format!("SELECT mask_pii({sql})"), &[]).await.unwrap();
        assert_eq!(row.get::<_, Option<&str>>(0), None, "{sql}");
    }
}

#[tokio::test]
async fn long_and_stored_values_are_masked_whole() {
    let client = crate::common::cluster().await.database("long_values").await.unwrap();
    // Plain, compressed and out of line: a value has one token wherever it lies.
    client
        .batch_execute(
            "CREATE TABLE stored(id int, value text);
             ALTER TABLE stored ALTER value SET STORAGE EXTERNAL;
             INSERT INTO stored SELECT n, repeat('x', n) FROM unnest(ARRAY[1, 55, 56, 64, 126, 127, 3000, 100000]) n;
             CREATE TABLE packed AS SELECT * FROM stored;",
        )
        .await
        .unwrap();
    let sql = "SELECT count(*) FROM stored JOIN packed USING (id)
               WHERE mask_pii(stored.value) = mask_pii(packed.value) AND mask_pii(stored.value) = mask_pii(repeat('x', id))";
    assert_eq!(crate::common::count(&client, sql).await, 8);
    let distinct = "SELECT count(DISTINCT mask_pii(value)) FROM stored";
    assert_eq!(crate::common::count(&client, distinct).await, 8);
}

#[tokio::test]
async fn nobody_may_mask_unless_granted() {
    let cluster = crate::common::cluster().await;
    let client = cluster.database("not_granted").await.unwrap();
    client.batch_execute("SET ROLE pgmask_ingester").await.unwrap();
    let error = client.query_one("SELECT mask_pii('x')", &[]).await.unwrap_err();
    assert!(message(&error).contains("42501 permission denied for function mask_pii"), "{error:?}");
}
