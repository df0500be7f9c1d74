//! Showing one quarantined message to whoever may see it and says why: the two steps of the procedure
//! `pgmask.unseal_quarantine` (unseal.sql).

use super::quarantine;
use crate::audit::{Action, Entry, written};
use crate::error::{Error, OrRaise};
use crate::text::{NewText, Text};
use crate::{database_id, keys};
use pgrx::prelude::*;

/// Writes down who opens which message, and why.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_unseal(id: Option<i64>, reason: Option<Text<'_>>) {
    super::must_write(c"unseal_quarantine()");
    let done = id.ok_or(Error::NotInQuarantine(None)).and_then(|id| {
        Entry::new(Action::UnsealQuarantine { id }, reason)?.write(|| quarantine::find(id).map(|_| ()))
    });
    done.or_raise();
}

/// The body, if that is written down.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn unsealed(id: i64) -> NewText {
    written(Action::UnsealQuarantine { id }, || unseal(id)).or_raise()
}

fn unseal(id: i64) -> Result<NewText, Error> {
    let body = quarantine::find(id)?.open(&keys::current()?, &database_id::all()?)?;
    Ok(NewText::of_utf8_or_bytea(&body))
}
