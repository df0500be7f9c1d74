//! Showing a value to whoever may see it and says why: the two steps of the procedure `pgmask.recover_pii`.

use super::{find, given, open};
use crate::audit::{Action, Entry, written};
use crate::error::{Error, OrRaise};
use crate::held;
use crate::text::{NewText, Text};
use crate::{database_id, guesses, keys};
use pg_mask_core::token::Token;
use pgrx::prelude::*;

/// Writes down who asks for which value, and why. It counts, whether there is such a value or not: that alone
/// is an answer.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_recover(token: Option<Text<'_>>, reason: Option<Text<'_>>) {
    held::hold_to_write(c"recover_pii()");
    let done = given(token, true).and_then(|token| {
        let entry = Entry::new(Action::RecoverPii { token }, reason)?;
        guesses::count_recovery()?;
        entry.write(|| Ok(()))
    });
    done.or_raise();
}

/// The value, if that is written down.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn recovered(token: Option<Text<'_>>) -> NewText {
    let value =
        given(token, true).and_then(|token| written(Action::RecoverPii { token }, || recover(&token)));
    value.or_raise()
}

fn recover(token: &Token) -> Result<NewText, Error> {
    let keys = keys::current()?;
    let rows = find::rows_of(&keys, token)?;
    let kept = rows.iter().find_map(|row| Some((row, row.sealed.as_ref()?)));
    let (row, sealed) = kept.ok_or(Error::NotInVault)?;
    let domain = row.domain.as_text().to_utf8();
    let value = open(&keys, &database_id::all()?, domain, &row.token.0, &sealed.0)?;
    Ok(NewText::of_utf8_or_bytea(&value.map_err(Error::VaultValue)?))
}
