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
    // A text of this database may not have all of it: a NUL, or characters that its encoding lacks.
    Ok(match text::bytes_to_server(&body) {
        Some(body) => NewText::with(body.len(), |text| text.copy_from_slice(&body)),
        None => as_bytea(&body),
    })
}

/// Bytes as PostgreSQL writes a `bytea`: `\x` and hexadecimal digits.
fn as_bytea(bytes: &[u8]) -> NewText {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    NewText::with(2 + 2 * bytes.len(), |text| {
        text[..2].copy_from_slice(b"\\x");
        for (pair, byte) in text[2..].chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    })
}
