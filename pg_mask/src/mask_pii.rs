//! `mask_pii`: from a value to its token.
//!
//! Called once a row, so everything that can be done once a statement is: the keys are looked up
//! and checked at the first call and kept with the call site (`fn_extra`).

use crate::error::{Error, OrRaise};
use crate::keys::{self, DomainMasker, Keys};
use crate::statement;
use crate::text::{NewText, Text, server_is_utf8_or_unknown};
use pg_mask_core::mask::Masker;
use pgrx::prelude::*;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_text(value: Text<'_>, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    let site = call_site(fcinfo).or_raise();
    mask(&site.keys.pii, site.utf8(value))
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_domain(value: Text<'_>, domain: Text<'_>, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    let site = call_site(fcinfo).or_raise();
    let domain = domain.to_utf8();
    if site.last_domain.as_ref().is_none_or(|(name, _)| **name != *domain) {
        site.last_domain = Some((domain.into(), site.keys.masker(domain)));
    }
    site.last_domain.as_ref().and_then(|(_, masker)| mask(masker, site.utf8(value)))
}

#[pg_extern(schema = "pgmask", name = "mask_pii", stable, strict, parallel_safe)]
fn mask_pii_inet(value: InetArg, fcinfo: pg_sys::FunctionCallInfo) -> Option<NewText> {
    let site = call_site(fcinfo).or_raise();
    let mut text = String::with_capacity(43);
    let written = match value {
        InetArg { address, prefix: None } => write!(text, "{address}"),
        InetArg { address, prefix: Some(bits) } => write!(text, "{address}/{bits}"),
    };
    debug_assert!(written.is_ok(), "a String takes any text");
    mask(&site.keys.pii, text.as_bytes())
}

#[inline]
fn mask(masker: &Masker, value: &[u8]) -> Option<NewText> {
    let hash = masker.hash(value)?;
    Some(NewText::with(masker.token_len(), |out| masker.write_token(&hash, out)))
}

/// What one call of the function in a query keeps from row to row.
struct CallSite {
    statement: pg_sys::TimestampTz,
    keys: Rc<Keys>,
    last_domain: Option<DomainMasker>,
    /// Whether texts have to be converted to UTF-8.
    converts: bool,
}

impl CallSite {
    #[inline]
    fn utf8<'a>(&self, value: Text<'a>) -> &'a [u8] {
        if self.converts { value.to_utf8() } else { value.as_server_bytes() }
    }
}

/// This call's [`CallSite`], with keys that were looked up in the current statement: PL/pgSQL keeps
/// a call site over many.
#[inline]
fn call_site<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Result<&'a mut CallSite, Error> {
    // SAFETY: PostgreSQL gives every call a flinfo whose fn_extra is ours alone, NULL at first; what
    // is put there is dropped with the memory context it names, and no earlier. Nothing else of
    // this call holds a reference to it.
    unsafe {
        let flinfo = (*fcinfo).flinfo;
        let site: *mut CallSite = (*flinfo).fn_extra.cast();
        if let Some(site) = site.as_mut()
            && site.statement == statement::started_at()
        {
            return Ok(site);
        }
        let fresh = CallSite {
            statement: statement::started_at(),
            keys: keys::current()?,
            last_domain: None,
            converts: !server_is_utf8_or_unknown(),
        };
        if let Some(site) = site.as_mut() {
            *site = fresh;
            return Ok(site);
        }
        let kept = pgrx::PgMemoryContexts::For((*flinfo).fn_mcxt).leak_and_drop_on_delete(fresh);
        (*flinfo).fn_extra = kept.cast();
        Ok(&mut *kept)
    }
}

/// An `inet` value: an address, or the network that it names when its netmask is not full length.
struct InetArg {
    address: IpAddr,
    prefix: Option<u8>,
}

impl_sql_translatable!(InetArg, arg_only = "inet");

impl InetArg {
    fn new(v6: bool, bits: u8, bytes: [u8; 16]) -> Self {
        let full = if v6 { 128 } else { 32 };
        // Host bits are no part of a network: 192.0.2.7/24 is the network 192.0.2.0/24.
        let address = u128::from_be_bytes(bytes) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let address = if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(address))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits((address >> 96) as u32))
        };
        Self { address, prefix: (bits < full).then_some(bits) }
    }
}

impl FromDatum for InetArg {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, null: bool, _: pg_sys::Oid) -> Option<Self> {
        if null {
            return None;
        }
        // SAFETY: an inet is a varlena of a family, a netmask length and 4 or 16 bytes of address.
        unsafe {
            let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            let [_family, bits, address @ ..] = pgrx::varlena::varlena_to_byte_slice(value) else {
                return None;
            };
            let mut bytes = [0; 16];
            bytes.get_mut(..address.len())?.copy_from_slice(address);
            Some(Self::new(address.len() == 16, *bits, bytes))
        }
    }
}

// SAFETY: the SQL declaration says inet, and `from_polymorphic_datum` reads one.
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for InetArg {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above. NULL is not reached: the functions are STRICT.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or_else(|| Self::new(false, 0, [0; 16])) }
    }
}
