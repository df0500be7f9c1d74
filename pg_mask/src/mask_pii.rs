//! `mask_pii` and `mask_network`: from a value to its token.
//!
//! Called once a row, so whatever can be done once a statement is: [`call_site`](crate::call_site) keeps the keys, and the
//! last value with its token.

mod inet;

use crate::call_site::{CallSite, call_site, call_site_of};
use crate::error::{Error, OrRaise};
use crate::text::{NewText, Text};
use inet::Inet;
use pg_mask_core::canonical::SCRATCH;
use pg_mask_core::mask::NETWORK_DOMAIN;
use pgrx::Uuid;
use pgrx::pg_sys::FunctionCallInfo;
use pgrx::prelude::*;

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_text(value: Text<'_>, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_text(call_site(fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_inet(value: Inet<'_>, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_inet(call_site(fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_uuid(value: Uuid, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_uuid(call_site(fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_text_domain(value: Text<'_>, domain: Text<'_>, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_text(call_site_of(domain, fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_inet_domain(value: Inet<'_>, domain: Text<'_>, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_inet(call_site_of(domain, fcinfo).or_raise(), value)
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_uuid_domain(value: Uuid, domain: Text<'_>, fcinfo: FunctionCallInfo) -> Option<NewText> {
    mask_uuid(call_site_of(domain, fcinfo).or_raise(), value)
}

/// The token of the network around an address, in a domain of its own. The defaults are those of
/// `pg_mask_core::network`: a site's usual size in IPv4 and IPv6.
#[pg_extern(schema = "pgmask", stable, strict, parallel_safe)]
fn mask_network(
    value: Inet<'_>,
    v4_bits: default!(i32, 24),
    v6_bits: default!(i32, 48),
    fcinfo: FunctionCallInfo,
) -> Option<NewText> {
    let bits = |given: i32, most: u8| {
        u8::try_from(given)
            .ok()
            .filter(|bits| *bits <= most)
            .ok_or(Error::PrefixLength { given, most })
            .or_raise()
    };
    let (v4_bits, v6_bits) = (bits(v4_bits, 32), bits(v6_bits, 128));
    let network = value.to_network().enclosing(v4_bits, v6_bits);
    let site = call_site_of(Text::from_ascii(NETWORK_DOMAIN), fcinfo).or_raise();
    site.token(network.text(&mut SCRATCH.clone()), |masker| Some(masker.hash_network(network))).or_raise()
}

#[inline]
fn mask_text(site: &mut CallSite, value: Text<'_>) -> Option<NewText> {
    let converts = site.converts;
    site.token(value.as_server_bytes(), |masker| {
        masker.hash(if converts { value.to_utf8() } else { value.as_server_bytes() })
    })
    .or_raise()
}

#[inline]
fn mask_inet(site: &mut CallSite, value: Inet<'_>) -> Option<NewText> {
    site.token(value.as_bytes(), |masker| Some(masker.hash_network(value.to_network()))).or_raise()
}

/// As its text, which PostgreSQL writes in lower case.
#[inline]
fn mask_uuid(site: &mut CallSite, value: Uuid) -> Option<NewText> {
    site.token(value.as_bytes(), |masker| masker.hash(value.to_string().as_bytes())).or_raise()
}
