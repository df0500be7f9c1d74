//! Exemptions and limits that are taken back hold in open sessions, too.

use super::{PRELOADED, is_stopped, masked_one_by_one, masking, server};
use crate::common::{count, message};
use tokio_postgres::Client;

/// A session masked up to a hundred values more when its role had lost the exemption.
#[tokio::test]
async fn who_is_exempt_no_longer_has_a_budget_at_once() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 10"]).await;
    admin.batch_execute("CREATE ROLE chief LOGIN SUPERUSER; GRANT pgmask_analyst TO chief").await.unwrap();
    for (role, revoke) in
        [("bulk", "REVOKE pgmask_unlimited FROM bulk"), ("chief", "ALTER ROLE chief NOSUPERUSER")]
    {
        let client = cluster.connect_as(role, "guesses").await.unwrap();
        assert_eq!(masked_one_by_one(&client, 0, 50).await, 50);
        admin.batch_execute(revoke).await.unwrap();
        assert_eq!(masked_one_by_one(&client, 100, 50).await, 10, "{revoke}");
    }
}

/// What a DBA takes back holds in open sessions, too: with RESET, in a transaction that goes on, and for a cursor that is open,
/// whose FETCH takes no lock and so is told of nothing.
#[tokio::test]
async fn a_limit_that_is_taken_back_holds_in_open_sessions() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 50"]).await;
    let fetched = async |client: &Client| -> i64 {
        let mut values = 0;
        loop {
            match client.query("FETCH 50 FROM c", &[]).await {
                Ok(rows) => values += rows.len() as i64,
                Err(error) => {
                    is_limit(&error);
                    return values;
                }
            }
            assert!(values < 50_000_000, "it went on");
        }
    };
    for (n, (give, take)) in [
        ("ALTER ROLE $role SET pgmask.guess_limit = -1", "ALTER ROLE $role RESET pgmask.guess_limit"),
        ("ALTER ROLE $role SET pgmask.guess_limit = -1", "ALTER ROLE $role SET pgmask.guess_limit = 50"),
        ("GRANT pgmask_unlimited TO $role", "REVOKE pgmask_unlimited FROM $role"),
    ]
    .into_iter()
    .enumerate()
    {
        let role = format!("taken_back_{n}");
        let [give, take] = [give, take].map(|sql| sql.replace("$role", &role));
        admin
            .batch_execute(&format!("CREATE ROLE {role} LOGIN IN ROLE pgmask_analyst; {give}"))
            .await
            .unwrap();
        let next_transaction = cluster.connect_as(&role, "guesses").await.unwrap();
        let cursor = cluster.connect_as(&role, "guesses").await.unwrap();
        assert_eq!(count(&next_transaction, &masking(0, 1_000)).await, 1_000);
        cursor
            .batch_execute("BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT mask_pii(generate_series(1, 2000000000)::text); FETCH 10 FROM c")
            .await
            .unwrap();
        admin.batch_execute(&take).await.unwrap();
        is_stopped(&next_transaction, &masking(5_000, 200)).await;
        fetched(&cursor).await;
    }
}

fn is_limit(error: &tokio_postgres::Error) {
    let text = message(error);
    assert!(text.starts_with("53400 "), "{text}");
}

/// PostgreSQL 16 and later know members that have nothing of a role: a DBA who takes SET and INHERIT away means it.
#[tokio::test]
async fn members_in_name_alone_are_not_exempt() {
    let (cluster, admin) = server(&[PRELOADED, "pgmask.guess_limit = 10"]).await;
    if cluster.major() < 16 {
        return;
    }
    let client = cluster.connect_as("bulk", "guesses").await.unwrap();
    for (options, masked) in
        [("INHERIT FALSE, SET TRUE", 50), ("INHERIT TRUE, SET FALSE", 50), ("INHERIT FALSE, SET FALSE", 10)]
    {
        admin.batch_execute(&format!("GRANT pgmask_unlimited TO bulk WITH {options}")).await.unwrap();
        assert_eq!(masked_one_by_one(&client, 0, 50).await, masked, "{options}");
    }
}
