//! `inet` arguments, read in place.

use pgrx::prelude::*;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A value's bytes as PostgreSQL has them: family, length of the netmask, 4 or 16 bytes of address.
#[derive(Clone, Copy)]
pub(super) struct Inet<'a>(&'a [u8]);

impl_sql_translatable!(Inet<'_>, arg_only = "inet");

impl<'a> Inet<'a> {
    /// The bytes as they are: equal for equal values.
    pub(super) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The address, or the network that the value names when its netmask is not full length.
    pub(super) fn to_text(self) -> String {
        let (address, prefix) = self.parts();
        let mut text = String::with_capacity(43);
        let written = match prefix {
            None => write!(text, "{address}"),
            Some(bits) => write!(text, "{address}/{bits}"),
        };
        debug_assert!(written.is_ok(), "a String takes any text");
        text
    }

    fn parts(self) -> (IpAddr, Option<u8>) {
        // Host bits are no part of a network: 192.0.2.7/24 is the network 192.0.2.0/24.
        if let [_, bits, a, b, c, d] = *self.0 {
            let host = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            let address = Ipv4Addr::from_bits(u32::from_be_bytes([a, b, c, d]) & !host);
            return (IpAddr::V4(address), (bits < 32).then_some(bits));
        }
        let [_, bits, address @ ..] = self.0 else { unreachable!("an inet has a netmask") };
        let Some(address) = address.first_chunk() else { unreachable!("an address has 4 or 16 bytes") };
        let host = u128::MAX.checked_shr((*bits).into()).unwrap_or(0);
        let address = Ipv6Addr::from_bits(u128::from_be_bytes(*address) & !host);
        (IpAddr::V6(address), (*bits < 128).then_some(*bits))
    }
}

impl FromDatum for Inet<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, null: bool, _: pg_sys::Oid) -> Option<Self> {
        // SAFETY: an inet is a varlena; what is not read in place is in the memory context of the call.
        (!null).then(|| unsafe {
            let value = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Self(pgrx::varlena::varlena_to_byte_slice(value))
        })
    }
}

// SAFETY: the SQL declaration says inet, and `from_polymorphic_datum` reads one.
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for Inet<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above. NULL is not reached: the functions are STRICT.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or(Self(&[])) }
    }
}
