//! Showing one quarantined message to whoever may see it and says why: the two steps of the procedure
//! `pgmask.unseal_quarantine` (unseal.sql).

use super::quarantine;
use crate::audit::{self, Action};
use crate::error::{Error, OrRaise};
use crate::keys;
use crate::text::{self, NewText, Text};
use pgrx::prelude::*;

/// Writes down who opens which message, and why.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_unseal(id: Option<i64>, reason: Option<Text<'_>>) {
    super::must_write(c"unseal_quarantine()");
    let written = id.ok_or(Error::NotInQuarantine(None)).and_then(|id| {
        audit::write(Action::UnsealQuarantine, id, reason, || quarantine::find(id).map(|_| ()))
    });
    written.or_raise();
}

/// The body, if that is written down.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn unsealed(id: i64) -> NewText {
    audit::written(Action::UnsealQuarantine, id, || unseal(id)).or_raise()
}

fn unseal(id: i64) -> Result<NewText, Error> {
    let body = quarantine::find(id)?.open(&keys::current()?, &quarantine::database_ids()?)?;
    // In a database of another encoding than the one that it was sealed in.
    let body = text::bytes_to_server(&body).ok_or(Error::NotInThisEncoding { id })?;
    Ok(NewText::with(body.len(), |text| text.copy_from_slice(&body)))
}
