//! A dry run: an empty batch in a transaction that is rolled back. It tells everything that can be wrong
//! with rights, keys and the login table.

use crate::database::{Database, sqlstate};
use crate::error::{End, Error};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// The table may be locked.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it went.
pub(super) enum DryRun {
    /// Well; the ledger knows a message for so many days.
    Good { ledger_days: Option<u64> },
    /// There is no such function.
    NoFunction(Error),
    /// The role may not call it.
    NoRight(Error),
    /// The keys can't be used, or are not those that the database was masked with.
    Keys(Error),
    /// The login table is missing, or an insert does not fit it.
    Table(Error),
    /// Something else.
    Failed(Error),
}

/// Hands in an empty batch and rolls back: even an empty batch may record which keys were used first.
pub(super) async fn dry_run(database: &Database) -> DryRun {
    let tried = async {
        database.client().batch_execute("BEGIN").await?;
        database.call(&[]).await?;
        // Only now does the session know the setting's default.
        let setting = "SELECT pg_catalog.current_setting('pgmask.ledger_days', true)::bigint";
        let days: Option<i64> = match database.client().query_typed(setting, &[]).await?.first() {
            Some(row) => row.try_get(0)?,
            None => None,
        };
        Ok(days.and_then(|days| u64::try_from(days).ok()))
    };
    let Ok(tried) = tokio::time::timeout(PATIENCE, tried).await else {
        database.cancel().await;
        let text = format!("the database gave no answer within {PATIENCE:?}; is the table locked?");
        return DryRun::Failed(Error::transient(End::Database, text));
    };
    // If this fails, the end of the connection rolls back.
    let _ = database.client().batch_execute("ROLLBACK").await;
    match tried {
        Ok(ledger_days) => DryRun::Good { ledger_days },
        Err(error) => sort(error),
    }
}

fn sort(error: Error) -> DryRun {
    match sqlstate(&error).cloned() {
        Some(SqlState::UNDEFINED_FUNCTION) => DryRun::NoFunction(error),
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => DryRun::NoRight(error),
        Some(code) if code.code().starts_with("F0") => DryRun::Keys(error),
        Some(code) if code.code().starts_with("42") => DryRun::Table(error),
        _ => DryRun::Failed(error),
    }
}
