//! sql/04_networks.sql: shared networks, to analysts who see no address.

use crate::common::{cluster, count, ingest, message, texts, token_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use testbed::cluster::Cluster;

/// The network around an address, as text, from the standard library's own addresses.
fn network_of(address: &str, v4_bits: u32, v6_bits: u32) -> String {
    match address.parse::<IpAddr>().unwrap().to_canonical() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - v4_bits).unwrap_or(0);
            let network = Ipv4Addr::from(u32::from(v4) & mask);
            if v4_bits == 32 { network.to_string() } else { format!("{network}/{v4_bits}") }
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - v6_bits).unwrap_or(0);
            let network = Ipv6Addr::from(u128::from(v6) & mask);
            if v6_bits == 128 { network.to_string() } else { format!("{network}/{v6_bits}") }
        }
    }
}

#[tokio::test]
async fn tokens_are_those_of_a_second_implementation() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("networks").await.unwrap();
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    let keyring = std::fs::read(cluster.data().join("pg_mask.keyring")).unwrap();
    let keyring: serde_json::Value = serde_json::from_slice(&keyring).unwrap();
    let mut tried = 0;
    for address in [
        "0.0.0.0",
        "192.0.2.7",
        "192.0.2.255",
        "255.255.255.255",
        "::ffff:192.0.2.7",
        "::ffff:c000:207",
        "::192.0.2.7",
        "::fffe:192.0.2.7",
        "::",
        "::1",
        "2001:db8::1",
        "2001:DB8:0:ffff::1",
        "2001:db8:1:0:1::",
        "64:ff9b::192.0.2.7",
        "fe80::1:2:3:4",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        for (v4_bits, v6_bits) in
            [(24, 48), (0, 0), (1, 1), (8, 32), (25, 47), (31, 95), (32, 96), (24, 127), (32, 128)]
        {
            let row = client
                .query_one(
                    "SELECT mask_network($1::text::inet, $2, $3)",
                    &[&address, &(v4_bits as i32), &(v6_bits as i32)],
                )
                .await
                .unwrap();
            let expected = token_of(&keyring, "network", &network_of(address, v4_bits, v6_bits));
            assert_eq!(row.get::<_, &str>(0), expected, "{address} {v4_bits} {v6_bits}");
            tried += 1;
        }
        let row = client.query_one("SELECT mask_network($1::text::inet)", &[&address]).await.unwrap();
        assert_eq!(
            row.get::<_, &str>(0),
            token_of(&keyring, "network", &network_of(address, 24, 48)),
            "{address}"
        );
    }
    assert_eq!(tried, 16 * 9);
}

#[tokio::test]
async fn shared_networks_are_shown_from_then_on() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let client = cluster.database("shared_networks").await.unwrap();
    let login =
        |n: usize, user: &str, ip: &str| (n.to_string(), format!(r#"{{"user_id":"{user}","ip":"{ip}"}}"#));
    ingest(&client, &[login(0, "before", "192.0.2.1")]).await;
    for _ in 0..2 {
        cluster.apply_file("shared_networks", "04_networks.sql").unwrap();
    }
    ingest(
        &client,
        &[
            login(1, "a", "192.0.2.1"),
            login(2, "b", " 192.0.2.77:443"),
            login(3, "b", "::ffff:192.0.2.99"),
            login(4, "c", "2001:db8::1"),
            login(5, "c", "2001:db8:0:7::1"), // one user's
            login(6, "d", "2001:db8:1::1"),
            login(7, "e", "192.0.2.1, 10.0.0.1"), // no address
            login(8, "f", "192.0.2.1, 10.0.0.1"),
            login(9, "g", ""),
        ],
    )
    .await;
    client.batch_execute("SELECT pgmask.rotate_key()").await.unwrap();
    ingest(&client, &[login(10, "h", "2001:db8:1:9::1"), login(11, "i", "192.0.2.200")]).await;
    let shown = "SELECT concat_ws(' ', CASE masked_ip_network WHEN mask_network('192.0.2.0') THEN 'v4' WHEN mask_network('2001:db8:1::') THEN 'v6' END,
        users, logins, first_seen, last_seen) FROM logins.shared_networks ORDER BY 1";
    let expected = ["v4 3 4 2026-11-20 2026-11-20", "v6 2 2 2026-11-20 2026-11-20"];
    assert_eq!(texts(&client, shown).await, expected);
    client.batch_execute("CREATE ROLE sees_networks LOGIN IN ROLE pgmask_analyst").await.unwrap();
    let analyst = cluster.connect_as("sees_networks", "shared_networks").await.unwrap();
    assert_eq!(texts(&analyst, shown).await, expected);
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE masked_ip_network IS NULL").await, 4);
}

#[tokio::test]
async fn what_is_in_the_way_is_refused_by_name() {
    let cluster = cluster().await;
    let client = cluster.database("networks_refused").await.unwrap();
    client.batch_execute("DROP ROLE IF EXISTS networker; CREATE ROLE networker").await.unwrap();
    let refused = |saying: &str| {
        let error = cluster.apply_file("networks_refused", "04_networks.sql").unwrap_err().to_string();
        assert!(error.contains(saying), "{saying}: {error}");
    };
    for (in_the_way, saying, undo) in [
        (
            "ALTER TABLE user_logins OWNER TO networker",
            "public.user_logins is there already and belongs to networker",
            "ALTER TABLE user_logins OWNER TO postgres",
        ),
        (
            "ALTER SCHEMA logins OWNER TO networker",
            "schema logins is there already and belongs to networker",
            "ALTER SCHEMA logins OWNER TO postgres",
        ),
        (
            "GRANT CREATE ON SCHEMA logins TO networker; SET ROLE networker; CREATE VIEW logins.shared_networks AS SELECT 1 AS trap; RESET ROLE",
            "logins.shared_networks is there already and belongs to networker",
            "DROP VIEW logins.shared_networks",
        ),
        (
            "ALTER TABLE user_logins ADD masked_ip_network varchar(66)",
            "column masked_ip_network of public.user_logins is a character varying(66)",
            "ALTER TABLE user_logins DROP masked_ip_network",
        ),
        (
            "ALTER TABLE user_logins ADD masked_ip_network cidr",
            "column masked_ip_network of public.user_logins is a cidr",
            "ALTER TABLE user_logins DROP masked_ip_network",
        ),
        (
            "ALTER SCHEMA logins RENAME TO elsewhere",
            "no schema logins",
            "ALTER SCHEMA elsewhere RENAME TO logins",
        ),
    ] {
        client.batch_execute(in_the_way).await.unwrap();
        refused(saying);
        client.batch_execute(undo).await.unwrap();
    }
    client.batch_execute("ALTER TABLE user_logins ADD masked_ip_network varchar(67)").await.unwrap();
    cluster.apply_file("networks_refused", "04_networks.sql").unwrap();
    client.batch_execute("DROP OWNED BY networker; DROP ROLE networker").await.unwrap();
    // Somebody reads for long: the file gives up and can be applied again.
    let error =
        client.batch_execute("SET ROLE pgmask_ingester; TABLE logins.shared_networks").await.unwrap_err();
    assert!(message(&error).starts_with("42501 "), "{error:?}");
}
