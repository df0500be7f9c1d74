//! A dry run: an empty batch in a transaction that is rolled back. It tells everything that can be wrong
//! with rights, keys and the login table.

use crate::database::{At, Database, lacks_right, sqlstate};
use crate::error::Error;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// The table may be locked.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands in an empty batch and rolls back, so that nothing is left whatever the function does; after an error,
/// the end of the connection rolls back. Returns for how many days the ledger knows a message.
pub(super) async fn dry_run(database: &Database) -> Result<Option<u64>, Error> {
    let (client, server) = (database.client(), database.server());
    let tried = async {
        client.batch_execute("BEGIN").await.at(server)?;
        database.ingest(&[]).await?;
        // Only now does the session know the setting's default.
        let setting = "SELECT pg_catalog.current_setting('pgmask.ledger_days', true)::pg_catalog.int8";
        let days: Option<i64> = match client.query_typed(setting, &[]).await.at(server)?.first() {
            Some(row) => row.try_get(0).at(server)?,
            None => None,
        };
        client.batch_execute("ROLLBACK").await.at(server)?;
        Ok(days.and_then(|days| u64::try_from(days).ok()))
    };
    database.within(PATIENCE, tried).await
}

/// Which check a dry run that ended with this error fails; `None` for errors that tell nothing about the
/// checks before the table.
pub(super) fn failed_check(error: &Error) -> Option<&'static str> {
    match sqlstate(error)?.code() {
        code if code == SqlState::UNDEFINED_FUNCTION.code() => Some("extension"),
        _ if lacks_right(error) => Some("role"),
        code if code.starts_with("F0") => Some("keys"),
        code if code.starts_with("42") => Some("table"),
        _ => None,
    }
}
