//! `inet` arguments, read in place.

use pg_mask_core::network::Network;
use pgrx::prelude::*;
use std::net::IpAddr;

/// A value's bytes as PostgreSQL has them: family, length of the netmask, 4 or 16 bytes of address.
#[derive(Clone, Copy)]
pub(super) struct Inet<'a>(&'a [u8]);

impl_sql_translatable!(Inet<'_>, arg_only = "inet");

impl<'a> Inet<'a> {
    /// The bytes as they are: equal for equal values.
    pub(super) fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The network that the value names: of full length where it is an address.
    pub(super) fn to_network(self) -> Network {
        let (bits, address) = match *self.0 {
            [_, bits, a, b, c, d] => (bits, IpAddr::from([a, b, c, d])),
            [_, bits, ref address @ ..] => match <[u8; 16]>::try_from(address) {
                Ok(address) => (bits, IpAddr::from(address)),
                Err(_) => unreachable!("an address has 4 or 16 bytes"),
            },
            _ => unreachable!("an inet has a netmask"),
        };
        let Some(network) = Network::new(address, bits) else {
            unreachable!("PostgreSQL stores no prefix length above 32 for IPv4 or 128 for IPv6")
        };
        network
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
