//! From a token of an older generation to the one in use, without the value.

use crate::call_site::call_site_of;
use crate::error::OrRaise;
use crate::text::{NewText, Text};
use pg_mask_core::token::Token;
use pgrx::pg_sys::FunctionCallInfo;
use pgrx::prelude::*;

/// The token of the generation in use for the value that `token` is of. `token` may also be 64 hex digits,
/// an unsalted SHA-256. Anything else comes back as it is.
#[pg_extern(schema = "pgmask", stable, strict, parallel_safe)]
fn current_mask(token: Text<'_>, domain: default!(Text<'_>, "'pii'"), fcinfo: FunctionCallInfo) -> NewText {
    let site = call_site_of(domain, fcinfo).or_raise();
    let given = token.as_server_bytes();
    let lifted = match Token::parse_older(given, site.generation()) {
        // Whoever has a value has its SHA-256: lifting that is a guess.
        Some(older) if older.generation == 0 => site.token(given, |masker| masker.lift(&older)).or_raise(),
        Some(older) => site.lifted(given, |masker| masker.lift(&older)).or_raise(),
        None => None,
    };
    // SAFETY: the function is STRICT and its first argument a text.
    lifted.unwrap_or_else(|| unsafe { NewText::first_argument(fcinfo) })
}

/// The generation of a token, 0 for an unsalted SHA-256, NULL for what is neither.
#[pg_extern(schema = "pgmask", stable, strict, parallel_safe)]
fn mask_generation(token: Text<'_>) -> Option<i32> {
    Token::parse(token.as_server_bytes()).map(|token| token.generation as i32)
}
