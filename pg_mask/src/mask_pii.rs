//! `mask_pii`: from a value to its token.
//!
//! Called once a row, so whatever can be done once a statement is: [`call_site`] keeps the keys, and the
//! last value with its token.

mod call_site;
mod inet;

use crate::error::OrRaise;
use crate::text::{NewText, Text};
use call_site::{CallSite, call_site};
use inet::Inet;
use pgrx::prelude::*;

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_text(value: Text<'_>, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    mask_text(call_site(fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_domain(value: Text<'_>, domain: Text<'_>, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    let site = call_site(fcinfo).or_raise();
    site.switch_to(domain);
    mask_text(site, value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_inet(value: Inet<'_>, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    mask_inet(call_site(fcinfo).or_raise(), value)
}

#[inline]
fn mask_text(site: &mut CallSite, value: Text<'_>) -> Option<NewText> {
    let converts = site.converts;
    site.token(value.as_server_bytes(), |masker| {
        masker.hash(if converts { value.to_utf8() } else { value.as_server_bytes() })
    })
}

#[inline]
fn mask_inet(site: &mut CallSite, value: Inet<'_>) -> Option<NewText> {
    site.token(value.as_bytes(), |masker| masker.hash(value.to_text().as_bytes()))
}
