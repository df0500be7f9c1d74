//! Canonical form: however an address is written, it becomes one text, so that it gets one token.
//!
//! Masking contract v1, rule 1. Anything that is no address only loses the white space at its ends.

use std::io::Write;
use std::net::Ipv6Addr;

/// Room for the longest address text of RFC 5952: eight groups of four digits and seven colons.
pub type Scratch = [u8; 39];

/// The longest IPv6 text of RFC 4291: six groups, then an embedded IPv4 address.
const LONGEST_IPV6_TEXT: usize = "0000:0000:0000:0000:0000:ffff:255.255.255.255".len();

/// The canonical bytes of `value`, empty if there is no value.
///
/// IPv6 text (RFC 4291; no zone, brackets, port or prefix length) is rewritten into `scratch` as
/// RFC 5952 has it, an IPv4-mapped address (`::ffff:0:0/96`) as its IPv4 address. IPv4 text without
/// leading zeros has one spelling only and is canonical as it stands.
pub fn canonical<'a>(value: &'a [u8], scratch: &'a mut Scratch) -> &'a [u8] {
    let value = trim(value);
    if value.len() > LONGEST_IPV6_TEXT || !value.contains(&b':') {
        return value;
    }
    let Some(address) = std::str::from_utf8(value).ok().and_then(|text| text.parse::<Ipv6Addr>().ok()) else {
        return value;
    };
    let mut rest = &mut scratch[..];
    let written = match address.to_ipv4_mapped() {
        Some(v4) => write!(rest, "{v4}"),
        None => write!(rest, "{address}"),
    };
    if written.is_err() {
        return value; // can't happen: `Scratch` holds the longest text
    }
    let left = rest.len();
    &scratch[..scratch.len() - left]
}

/// `value` without ASCII white space (0x09–0x0D, 0x20) at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b'\t'..=b'\r' | b' ', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b'\t'..=b'\r' | b' '] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> String {
        String::from_utf8(canonical(value.as_bytes(), &mut [0; 39]).to_vec()).unwrap()
    }

    #[test]
    fn rewrites_addresses_only() {
        for (value, expected) in [
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("2001:0db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("::FFFF:C7AC:6F87", "199.172.111.135"),
            ("\t::ffff:192.0.2.1\r\n", "192.0.2.1"),
            ("::192.0.2.1", "::c000:201"),
            ("\u{b}\u{c}x y ", "x y"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("2001:DB8::1/128", "2001:DB8::1/128"),
            ("::ffff:010.0.0.1", "::ffff:010.0.0.1"),
            ("010.0.0.1", "010.0.0.1"),
            ("\u{a0}x", "\u{a0}x"), // not ASCII white space
            ("AA:BB", "AA:BB"),
            (" \t\r\n", ""),
        ] {
            assert_eq!(text(value), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn is_idempotent(value in any::<Vec<u8>>()) {
            let (mut first, mut second) = ([0; 39], [0; 39]);
            let once = canonical(&value, &mut first);
            prop_assert_eq!(canonical(once, &mut second), once);
        }

        #[test]
        fn leaves_all_but_addresses_alone(value in "[^:]*") {
            prop_assert_eq!(text(&value), value.trim_matches(|c| matches!(c, '\t'..='\r' | ' ')));
        }

        #[test]
        fn gives_one_text_however_an_address_is_written(bits in any::<u128>(), zeros in any::<u128>()) {
            let address = Ipv6Addr::from_bits(bits & zeros);
            let groups = address.segments();
            let full = groups.map(|g| format!("{g:04X}")).join(":");
            let short = groups.map(|g| format!("{g:x}")).join(":");
            let (head, [high, low]) = (&groups[..6], [groups[6], groups[7]]);
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            let mixed = format!("{}:{a}.{b}.{c}.{d}", head.iter().map(|g| format!("{g:x}")).collect::<Vec<_>>().join(":"));
            let expected = text(&address.to_string());
            prop_assert_eq!(text(&full), expected.clone());
            prop_assert_eq!(text(&short), expected.clone());
            prop_assert_eq!(text(&mixed), expected);
        }

        #[test]
        fn writes_mapped_addresses_as_ipv4(bits in any::<u32>()) {
            let v4 = std::net::Ipv4Addr::from_bits(bits);
            prop_assert_eq!(text(&v4.to_string()), v4.to_string());
            prop_assert_eq!(text(&v4.to_ipv6_mapped().to_string()), v4.to_string());
        }
    }
}
