//! A batch that is tried and undone: it tells all that can be wrong with rights, keys and the target
//! table.

use super::Database;
use crate::error::{End, Error};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Somebody may have locked the table.
const PATIENCE: Duration = Duration::from_secs(20);

/// How it went.
pub(crate) enum Rehearsal {
    /// Well; the ledger knows a message for so many days.
    Good { ledger_days: Option<u64> },
    /// There is no such function.
    NoFunction(Error),
    /// The role may not call it.
    NoRight(Error),
    /// The keys can't be used, or are others.
    Keys(Error),
    /// The table that logins are written to is not there, or not as it should be.
    Table(Error),
    /// Something else.
    Failed(Error),
}

impl Database {
    /// Hands in an empty batch and undoes it: even that may write which keys were used first.
    pub(crate) async fn rehearse(&self) -> Rehearsal {
        let client = &self.connection.client;
        let tried = async {
            client.batch_execute("BEGIN").await?;
            self.call(&[]).await?;
            // Only now does the session know the setting's default.
            let setting = "SELECT pg_catalog.current_setting('pgmask.ledger_days', true)::bigint";
            let days: Option<i64> = match client.query_typed(setting, &[]).await?.first() {
                Some(row) => row.try_get(0)?,
                None => None,
            };
            Ok(days.and_then(|days| u64::try_from(days).ok()))
        };
        let Ok(tried) = tokio::time::timeout(PATIENCE, tried).await else {
            self.cancel().await;
            let what = format!("gave no answer within {PATIENCE:?}; is the table locked?");
            return Rehearsal::Failed(Error::Unavailable { end: End::Database, what });
        };
        let _ = client.batch_execute("ROLLBACK").await;
        match tried {
            Ok(ledger_days) => Rehearsal::Good { ledger_days },
            Err(error) => sort(&error),
        }
    }
}

fn sort(error: &tokio_postgres::Error) -> Rehearsal {
    let sorted = Database::refused(error);
    match error.code() {
        Some(&SqlState::UNDEFINED_FUNCTION) => Rehearsal::NoFunction(sorted),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Rehearsal::NoRight(sorted),
        Some(code) if code.code().starts_with("F0") => Rehearsal::Keys(sorted),
        // pg_mask's own table that tells the keys.
        Some(code) if code.code().starts_with("42") && sorted.to_string().contains("pgmask.key_check") => {
            Rehearsal::Keys(sorted)
        }
        Some(code) if code.code().starts_with("42") => Rehearsal::Table(sorted),
        _ => Rehearsal::Failed(sorted),
    }
}
