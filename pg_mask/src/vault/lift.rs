//! The vault's part of `remask`: its tokens are lifted to the generation in use, and what was sealed under an
//! older seal key is sealed anew. It goes through the vault in parts, by the first digits of the tokens, so that
//! each part is a transaction and no caller learns a token.

use super::{find, open, seal};
use crate::arrays::ArrayBuilder;
use crate::clock::Micros;
use crate::database_id;
use crate::error::{Error, OrRaise};
use crate::held;
use crate::keys;
use crate::plan;
use crate::text::{OwnedBytes, OwnedText};
use pg_mask_core::seal::SealError;
use pg_mask_core::token::Token;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

/// Parts are told apart by so many hexadecimal digits at most.
const MOST_DIGITS: i32 = 3;

/// Rows of a part that have an older token or an older seal: for tokens in use, those that were sealed under
/// an older key than the one whose id the four bytes $3 are (seal.rs has the layout).
const OLDER: &str = "SELECT token, domain, sealed_value, kept_at FROM pgmask.vault
    WHERE token >= $1 AND token < $2 AND ($3 IS NULL OR substr(sealed_value, 2, 4) < $3)
    ORDER BY token FOR UPDATE";

const REMOVE: &str = "DELETE FROM pgmask.vault WHERE token = ANY ($1)";

/// In the order of the tokens, as everybody inserts. Where the lifted token is there already, a value that was
/// forgotten stays forgotten.
const PUT: &str = "INSERT INTO pgmask.vault AS v (token, domain, sealed_value, kept_at)
    SELECT unnest($1), unnest($2), unnest($3), unnest($4)
    ON CONFLICT (token) DO UPDATE SET
        sealed_value = CASE WHEN v.sealed_value IS NOT NULL THEN excluded.sealed_value END";

/// A row as it is to be.
struct Lifted {
    token: Vec<u8>,
    domain: OwnedText,
    /// `None` if the value was forgotten.
    sealed: Option<Vec<u8>>,
    kept_at: Micros,
}

/// Lifts a part of the vault: that of the tokens which begin with the number `part`, written with so many
/// hexadecimal digits. `left_alone` counts rows that don't open,
/// and those that were sealed under a newer key than the one in use.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn remask_vault(
    part: i32,
    digits: i32,
) -> TableIterator<'static, (name!(lifted, i64), name!(left_alone, i64))> {
    held::hold_to_write(c"remask()");
    TableIterator::once(lift(part, digits).or_raise())
}

fn lift(part: i32, digits: i32) -> Result<(i64, i64), Error> {
    let digits = digits.clamp(0, MOST_DIGITS);
    if !(0..1 << (4 * digits)).contains(&part) {
        return Ok((0, 0));
    }
    // No digit at all is the whole vault.
    let digits =
        if digits == 0 { String::new() } else { format!("{part:0width$x}", width = digits as usize) };
    let keys = keys::newest()?;
    let databases = database_id::all()?;
    let here = database_id::own()?;
    let (mut rows, mut older, mut left_alone) = (Vec::new(), ArrayBuilder::text(), 0);
    for generation in 1..=keys.generation() {
        let is_in_use = generation == keys.generation();
        let sealed_now = is_in_use.then(|| keys.seal_id()).transpose()?.map(|id| Vec::from(id.to_be_bytes()));
        let (first, end) = find::bounds(generation, &digits);
        let arguments = || vec![first.as_str().into(), end.as_str().into(), sealed_now.into()];
        let read = |row: &plan::Row<'_>| {
            let kept_at = row.get::<TimestampWithTimeZone>(4)?.into();
            Ok((row.get::<OwnedText>(1)?, row.get(2)?, row.get_or_null::<OwnedBytes>(3)?, kept_at))
        };
        for (token, domain, sealed, kept_at) in plan::rows(OLDER, arguments, read)? {
            let name = OwnedText::as_text(&domain).to_utf8();
            let masker = keys.masker_of(keys.generation(), name);
            let lifted = Token::parse(&token.0).and_then(|token| masker.lift(&token));
            let Some(lifted) = lifted.map(|hash| masker.token_of(&hash)) else {
                left_alone += 1;
                continue;
            };
            let sealed = match sealed.map(|sealed| open(&keys, &databases, name, &token.0, &sealed.0)) {
                None => None,
                Some(value) => match value? {
                    Ok(value) => Some(seal(&keys, here, name, &lifted, &value)?),
                    Err(SealError::Broken | SealError::NewerKey(_)) => {
                        left_alone += 1;
                        continue;
                    }
                    Err(error) => return Err(Error::VaultValue(error)),
                },
            };
            if !is_in_use {
                older.push_bytes(Some(&token.0));
            }
            rows.push(Lifted { token: lifted, domain, sealed, kept_at });
        }
    }
    let lifted = rows.len() as i64;
    if lifted > 0 {
        plan::run(REMOVE, || vec![older.finish()], |_| ());
        put(rows);
    }
    Ok((lifted, left_alone))
}

fn put(mut rows: Vec<Lifted>) {
    // Of several rows of one value, one without a value comes first, and counts.
    rows.sort_unstable_by(|a, b| (&a.token, a.sealed.is_some()).cmp(&(&b.token, b.sealed.is_some())));
    rows.dedup_by(|b, a| a.token == b.token);
    let mut tokens = ArrayBuilder::text();
    let mut domains = ArrayBuilder::text();
    let mut sealed = ArrayBuilder::bytea();
    let mut kept_at = ArrayBuilder::timestamptz();
    for row in rows {
        tokens.push_bytes(Some(&row.token));
        domains.push_bytes(Some(&row.domain.0));
        sealed.push_bytes(row.sealed.as_deref());
        kept_at.push_fixed(Some(row.kept_at.to_ne_bytes()));
    }
    let columns = [tokens, domains, sealed, kept_at];
    plan::run(PUT, || columns.into_iter().map(ArrayBuilder::finish).collect(), |_| ());
}
