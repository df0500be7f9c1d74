//! Erasing a value for good: the steps of the procedure `pgmask.forget`. It is written down first who asks for it,
//! since whether there was something to erase is an answer, too.

use super::{find, given};
use crate::arrays::ArrayBuilder;
use crate::audit::{Action, Entry, commit_durably, written};
use crate::error::{Error, OrRaise};
use crate::held;
use crate::keys::Keys;
use crate::text::Text;
use crate::{guesses, keys, plan, standbys};
use pg_mask_core::token::Token;
use pgrx::prelude::*;

const ERASE: &str =
    "UPDATE pgmask.vault SET sealed_value = NULL WHERE token = ANY ($1) AND sealed_value IS NOT NULL";

/// The row that keeps ingestion from putting the value in again, under its token in use.
const MARK: &str = "INSERT INTO pgmask.vault (token, domain, sealed_value)
    SELECT unnest($1), unnest($2), NULL
    ON CONFLICT (token) DO UPDATE SET sealed_value = NULL";

/// Writes down who has the value forgotten, and why.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn audit_forget(token: Option<Text<'_>>, reason: Option<Text<'_>>) {
    held::hold_to_write(c"forget()");
    let done = token_to_forget(token)
        .and_then(|token| Entry::new(Action::Forget { token }, reason)?.write(|| Ok(())));
    done.or_raise();
}

/// Erases the value, if that was written down and committed.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn forgotten(token: Option<Text<'_>>) {
    let done = token_to_forget(token).and_then(|token| written(Action::Forget { token }, || erase(&token)));
    done.or_raise();
    // The end of the procedure commits it, and tells nobody before the standbys have it.
    commit_durably();
    standbys::wait_at_commit();
}

/// A hash without a key is a guess, and whether there was something to forget would be an answer to it, which
/// nobody counts.
fn token_to_forget(token: Option<Text<'_>>) -> Result<Token, Error> {
    // SAFETY: a look-up.
    let takes_hashes = guesses::is_unlimited(unsafe { pg_sys::GetUserId() });
    given(token, takes_hashes)
}

/// Whoever has begun to write may put the value in, or lift it, under keys of before a rotation, where it is not seen yet.
const WAIT: &str = "SELECT pgmask.wait_for_writers('pgmask.vault')";

/// Takes the value out of its rows, which stay: ingestion does not put it in again.
fn erase(token: &Token) -> Result<(), Error> {
    let mut is_any = false;
    loop {
        let keys = keys::newest()?;
        plan::run(WAIT, Vec::new, |_| ());
        is_any |= erase_under(&keys, token)?;
        if keys::newest()?.generation() == keys.generation() {
            return if is_any { Ok(()) } else { Err(Error::NotInVault) };
        }
    }
}

/// Says whether there was something.
fn erase_under(keys: &Keys, token: &Token) -> Result<bool, Error> {
    let mut is_any = false;
    // Again, until there is nothing left: a row may have been lifted to another generation meanwhile.
    loop {
        let rows = find::rows_of(keys, token)?;
        let (mut kept, mut in_use) = (ArrayBuilder::text(), Vec::new());
        for row in rows.iter().filter(|row| row.sealed.is_some()) {
            kept.push_bytes(Some(&row.token.0));
            let masker = keys.masker(row.domain.as_text())?;
            in_use.extend(masker.lift(token).map(|hash| (masker.token_of(&hash), &row.domain.0)));
        }
        if kept.is_empty() {
            return Ok(is_any);
        }
        is_any = true;
        plan::run(ERASE, || vec![kept.finish()], |_| ());
        in_use.sort();
        in_use.dedup_by(|b, a| a.0 == b.0);
        let (mut tokens, mut domains) = (ArrayBuilder::text(), ArrayBuilder::text());
        for (token, domain) in in_use {
            tokens.push_bytes(Some(&token));
            domains.push_bytes(Some(domain));
        }
        plan::run(MARK, || vec![tokens.finish(), domains.finish()], |_| ());
    }
}
