//! The rows of a value, found by its token of any generation.
//!
//! A value has one row, as a rule. While the vault is lifted after a rotation, its row may have a token of
//! another generation than the one that is asked for: an older token is lifted until it fits; for a newer one,
//! all older tokens of the vault are lifted, and compared.

use super::DOMAINS;
use crate::arrays::ArrayBuilder;
use crate::error::Error;
use crate::keys::Keys;
use crate::plan;
use crate::text::{OwnedBytes, OwnedText};
use pg_mask_core::token::Token;

/// Rows that are read at a time where all are looked at.
const AT_A_TIME: i64 = 10_000;

const ROWS: &str =
    "SELECT token, domain, sealed_value FROM pgmask.vault WHERE token = ANY ($1) ORDER BY token";

const OF_GENERATION: &str = "SELECT token, domain FROM pgmask.vault
    WHERE token > $1 AND token < $2 ORDER BY token LIMIT $3";

/// A row of the vault.
pub(super) struct Row {
    pub(super) token: OwnedText,
    pub(super) domain: OwnedText,
    /// `None` if the value was forgotten.
    pub(super) sealed: Option<OwnedBytes>,
}

impl Row {
    /// Reads the columns token, domain, sealed_value.
    pub(super) fn read(row: &plan::Row<'_>) -> Result<Self, Error> {
        Ok(Self { token: row.get(1)?, domain: row.get(2)?, sealed: row.get_or_null(3)? })
    }
}

/// All rows of the value that `token`, of generation 1 or later, is of; those that were forgotten, too.
pub(super) fn rows_of(keys: &Keys, token: &Token) -> Result<Vec<Row>, Error> {
    if token.generation > keys.generation() {
        return Ok(Vec::new());
    }
    let mut tokens = ArrayBuilder::text();
    for generation in token.generation..=keys.generation() {
        for domain in DOMAINS {
            let masker = keys.masker_of(generation, domain);
            let lifted = masker.lift(token).map(|hash| masker.token_of(&hash));
            tokens.push_bytes(lifted.as_deref());
        }
    }
    for generation in 1..token.generation {
        older_of(keys, token, generation, |older| tokens.push_bytes(Some(older)))?;
    }
    plan::rows(ROWS, || vec![tokens.finish()], Row::read)
}

/// Finds the vault's tokens of `generation`, an older one, that are lifted to `token`.
fn older_of(keys: &Keys, token: &Token, generation: u32, mut found: impl FnMut(&[u8])) -> Result<(), Error> {
    let (mut last, end) = bounds(generation, "");
    loop {
        pgrx::check_for_interrupts!();
        let arguments = || vec![last.as_str().into(), end.as_str().into(), AT_A_TIME.into()];
        let read = |row: &plan::Row<'_>| Ok((row.get::<OwnedText>(1)?, row.get::<OwnedText>(2)?));
        let rows = plan::rows(OF_GENERATION, arguments, read)?;
        let Some((newest, _)) = rows.last() else { return Ok(()) };
        last = String::from_utf8(newest.0.clone()).map_err(|_| Error::Unreadable)?;
        for (older, domain) in &rows {
            let masker = keys.masker_of(token.generation, domain.as_text().to_utf8());
            let lifted = Token::parse(&older.0).and_then(|older| masker.lift(&older));
            if lifted == Some(token.hash) {
                found(&older.0);
            }
        }
    }
}

/// What stands before and after all tokens of a generation whose digits begin with `digits`, in the order of
/// the vault.
pub(super) fn bounds(generation: u32, digits: &str) -> (String, String) {
    const AFTER_THE_LAST_DIGIT: char = 'g';
    let first = format!("m{generation}_{digits}");
    let end = format!("{first}{AFTER_THE_LAST_DIGIT}");
    (first, end)
}
