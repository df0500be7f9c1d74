//! A database that is not UTF-8 takes in what it can hold, and keeps the rest.

use crate::common::{Way, cluster, count, counts};
use testbed::forwarder;

#[tokio::test]
async fn a_latin1_and_an_sql_ascii_database() {
    for (name, encoding, foreign_is_bad) in [("in_latin1", "LATIN1", 1), ("in_sql_ascii", "SQL_ASCII", 0)] {
        let way = Way::new(name).await;
        let other = format!("{name}_db");
        let make = format!("CREATE DATABASE {other} ENCODING {encoding} TEMPLATE template0 LOCALE 'C'");
        cluster().await.connect("postgres").await.unwrap().batch_execute(&make).await.unwrap();
        cluster().await.apply_sql(&other).unwrap();
        let bodies = [
            r#"{"user_id":"plain","ip":"192.0.2.1"}"#,
            r#"{"user_id":"Zürich","ip":"192.0.2.1","device_id":"装置"}"#,
            r#"{"user_id":"装置 😀","ip":"192.0.2.1"}"#,
            "no json: 装置",
        ];
        way.queue.send(&bodies.map(str::to_owned)).await.unwrap();
        let mut command = way.drain().await;
        command.env("DATABASE_URL", cluster().await.url("pgmask_forwarder", &other));
        let ended = forwarder::run(command).await.unwrap();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert_eq!(counts(&ended.summary), [4, 3 - foreign_is_bad, 0, 1 + foreign_is_bad, 4]);
        let client = cluster().await.connect(&other).await.unwrap();
        // A value has the same token in every encoding.
        let device: String = client
            .query_one("SELECT masked_device_id FROM user_logins WHERE masked_device_id IS NOT NULL", &[])
            .await
            .unwrap()
            .get(0);
        let expected: String = way.database.query_one("SELECT mask_pii('装置')", &[]).await.unwrap().get(0);
        assert_eq!(device, expected);
        assert_eq!(count(&client, "SELECT count(DISTINCT masked_ip) FROM user_logins").await, 1);
        if encoding == "LATIN1" {
            assert_eq!(count(&client, "SELECT count(*) FROM user_logins WHERE user_id = 'Zürich'").await, 1);
            let reasons =
                "SELECT count(*) FROM pgmask.quarantine WHERE reason IN ('invalid:user_id', 'invalid_json')";
            assert_eq!(count(&client, reasons).await, 2);
        }
    }
}
