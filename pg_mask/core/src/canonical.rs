//! Canonical form: one text for each way to write a value, so that equal values have equal tokens.
//!
//! Masking contract v1, rule 1: white space at the ends is dropped, addresses and networks are
//! rewritten by [`Network`], and everything else stays as its sender wrote it.

use crate::network::{LONGEST_INPUT, LONGEST_TEXT, Network};

/// Room for a canonical text that differs from the value.
pub type Scratch = [u8; LONGEST_TEXT];

/// An empty [`Scratch`].
pub const SCRATCH: Scratch = [0; LONGEST_TEXT];

/// The canonical bytes of `value`: a part of it, or what was written into `scratch`. Empty bytes mean
/// that there is no value.
#[inline]
pub fn canonical<'a>(value: &'a [u8], scratch: &'a mut Scratch) -> &'a [u8] {
    let value = trim(value);
    if value.len() <= LONGEST_INPUT && may_be_rewritten(value) { rewrite(value, scratch) } else { value }
}

/// The address or network that `value` is; `None` if it is none.
pub fn network(value: &[u8]) -> Option<Network> {
    let value = trim(value);
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST_INPUT)?;
    Network::parse(text)
}

/// Whether `value` has a colon or a slash among its first or last eight bytes, as every address has
/// that is not canonical as it stands: IPv6 begins with a group of four digits at most, and a port or
/// a prefix length ends the text. A fast path: plain IPv4 addresses and most device ids have neither.
#[inline]
fn may_be_rewritten(value: &[u8]) -> bool {
    match (value.first_chunk::<8>(), value.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            first.iter().chain(last).fold(false, |found, byte| found | matches!(byte, b':' | b'/'))
        }
        _ => value.contains(&b':'), // too short for a prefix length or a port
    }
}

fn rewrite<'a>(value: &'a [u8], scratch: &'a mut Scratch) -> &'a [u8] {
    match std::str::from_utf8(value).ok().and_then(Network::parse) {
        Some(network) => network.text(scratch),
        None => value,
    }
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
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn text(value: &str) -> String {
        String::from_utf8(canonical(value.as_bytes(), &mut [0; LONGEST_TEXT]).to_vec()).unwrap()
    }

    #[test]
    fn rewrites_addresses_and_networks() {
        for (value, expected) in [
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("2001:0db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("::FFFF:C7AC:6F87", "199.172.111.135"),
            ("\t::ffff:192.0.2.1\r\n", "192.0.2.1"),
            ("::192.0.2.1", "::c000:201"),
            ("0000:0000:0000:0000:0000:ffff:255.255.255.255", "255.255.255.255"),
            // brackets
            ("[2001:DB8::1]", "2001:db8::1"),
            (" [::ffff:192.0.2.1] ", "192.0.2.1"),
            ("[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535", "255.255.255.255"),
            // ports
            ("192.0.2.1:443", "192.0.2.1"),
            ("192.0.2.1:0", "192.0.2.1"),
            ("192.0.2.1:00080", "192.0.2.1"),
            ("[2001:db8::1]:65535", "2001:db8::1"),
            // full prefixes
            ("192.0.2.1/32", "192.0.2.1"),
            ("2001:DB8::1/128", "2001:db8::1"),
            ("::ffff:192.0.2.1/128", "192.0.2.1"),
            // networks
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("255.255.255.255/1", "128.0.0.0/1"),
            ("192.0.2.7/0", "0.0.0.0/0"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.7/95", "::fffe:0:0/95"),
            ("1111:1111:1111:1111:1111:1111:1111:1111/127", "1111:1111:1111:1111:1111:1111:1111:1110/127"),
        ] {
            assert_eq!(text(value), expected, "{value:?}");
            assert_eq!(text(expected), expected, "{value:?}");
        }
    }

    #[test]
    fn leaves_everything_else_as_it_is() {
        for value in [
            "192.0.2.1",
            "010.0.0.1",
            "::ffff:010.0.0.1",
            "fe80::1%eth0",
            "[fe80::1%eth0]:80",
            "192.0.2.1, 192.0.2.2",
            "192.0.2.1:443, 192.0.2.2:443",
            // forms that do not combine
            "192.0.2.1/32:80",
            "192.0.2.1:80/32",
            "[2001:db8::1/128]",
            "[2001:db8::1]/128",
            "[192.0.2.1]",
            "[192.0.2.1]:80",
            "[[2001:db8::1]]",
            // prefixes and ports that are none
            "192.0.2.1/",
            "192.0.2.1/33",
            "192.0.2.1/08",
            "192.0.2.1/+8",
            "192.0.2.1/ 8",
            "192.0.2.1/256",
            "192.0.2.1/24/24",
            "192.0.2.1/255.255.255.0",
            "2001:db8::1/129",
            "192.0.2.1:",
            "192.0.2.1:65536",
            "192.0.2.1:000080",
            "192.0.2.1:+80",
            "192.0.2.1:80:80",
            "192.0.2:80",
            "[2001:db8::1]:",
            "[2001:db8::1]:65536",
            "[2001:db8::1] :80",
            "[2001:db8::1]80",
            "[2001:db8::1",
            "2001:db8::1]",
            "2001:db8::1:443443",
            "[]",
            "/",
            ":",
            "/24",
            ":80",
            "AA:BB:CC:DD:EE:FF",
            "http://192.0.2.1/24",
            "\u{a0}x",
        ] {
            assert_eq!(text(value), value, "{value:?}");
        }
        assert_eq!(text("\u{b}\u{c}x y "), "x y");
        assert_eq!(text(" \t\r\n"), "");
    }

    proptest! {
        #[test]
        fn is_idempotent(value in prop_oneof![any::<Vec<u8>>(), "[]:./0-9a-f\\[]{0,60}".prop_map(String::into_bytes)]) {
            let (mut first, mut second) = (SCRATCH, SCRATCH);
            let once = canonical(&value, &mut first);
            prop_assert_eq!(canonical(once, &mut second), once);
        }

        #[test]
        fn leaves_all_but_addresses_alone(value in "[^:/]*") {
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
            for form in [full, short, mixed] {
                for spelling in [form.clone(), format!("[{form}]"), format!("[{form}]:443"), format!(" {form}/128")] {
                    prop_assert_eq!(text(&spelling), expected.clone());
                }
            }
        }

        #[test]
        fn writes_mapped_addresses_as_ipv4(bits in any::<u32>(), prefix in 0..=32u8) {
            let v4 = Ipv4Addr::from_bits(bits);
            let mapped = v4.to_ipv6_mapped();
            for spelling in [v4.to_string(), format!("{v4}:1"), mapped.to_string(), format!("[{mapped}]:1")] {
                prop_assert_eq!(text(&spelling), v4.to_string());
            }
            prop_assert_eq!(text(&format!("{mapped}/{}", prefix + 96)), text(&format!("{v4}/{prefix}")));
        }
    }
}
