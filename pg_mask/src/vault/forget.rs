//! Erasing a value for good: the steps of the procedure `pgmask.forget`. It is erased and written down with one
//! commit; afterwards the log says so.

use super::{find, given, must_write};
use crate::arrays::ArrayBuilder;
use crate::audit::{Action, Entry, written};
use crate::error::{Error, OrRaise};
use crate::text::Text;
use crate::{guesses, keys, plan};
use pg_mask_core::token::Token;
use pgrx::prelude::*;

const ERASE: &str =
    "UPDATE pgmask.vault SET sealed_value = NULL WHERE token = ANY ($1) AND sealed_value IS NOT NULL";

/// Erases the value, and writes down who did it and why.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_forget(token: Option<Text<'_>>, reason: Option<Text<'_>>) {
    must_write(c"forget()");
    let done = token_to_forget(token)
        .and_then(|token| Entry::new(Action::Forget { token }, reason)?.write(|| erase(&token)));
    done.or_raise();
}

/// Writes the log line, if the value is erased and that is written down.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn forgotten(token: Option<Text<'_>>) {
    let done = token_to_forget(token).and_then(|token| written(Action::Forget { token }, || Ok(())));
    done.or_raise();
}

/// A hash without a key is a guess, and whether there was something to forget would be an answer to it, which
/// nobody counts.
fn token_to_forget(token: Option<Text<'_>>) -> Result<Token, Error> {
    // SAFETY: a look-up.
    let takes_hashes = guesses::is_unlimited(unsafe { pg_sys::GetUserId() });
    given(token, takes_hashes)
}

/// Takes the value out of its rows, which stay: ingestion does not put it in again.
fn erase(token: &Token) -> Result<(), Error> {
    let keys = keys::current()?;
    let mut is_any = false;
    // Again, until there is nothing left: a row may have been lifted to another generation meanwhile.
    loop {
        let mut tokens = ArrayBuilder::text();
        for row in find::rows_of(&keys, token)?.iter().filter(|row| row.sealed.is_some()) {
            tokens.push_bytes(Some(&row.token.0));
        }
        if tokens.is_empty() {
            return if is_any { Ok(()) } else { Err(Error::NotInVault) };
        }
        is_any = true;
        plan::run(ERASE, || vec![tokens.finish()], |_| ());
    }
}
