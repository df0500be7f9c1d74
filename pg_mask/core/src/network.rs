//! IP addresses and networks: each of the ways to write one is read, and one text is written.
//!
//! Masking contract v1, rule 1, for what is an address. [`canonical`](crate::canonical) adds what is
//! none. An SQL `inet` and its text come through here alike, so both have one token.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest canonical text in bytes: the longest IPv6 address of RFC 5952 and a prefix length.
pub const LONGEST_TEXT: usize = "1111:1111:1111:1111:1111:1111:1111:1111/127".len();

/// The longest text that is read, in bytes: an IPv6 address with an embedded IPv4 address (RFC 4291)
/// in brackets, with a port.
pub(crate) const LONGEST_INPUT: usize = "[0000:0000:0000:0000:0000:ffff:255.255.255.255]:65535".len();

/// How many bits of an IPv4 address name its network where nothing else is asked for.
pub const DEFAULT_V4_BITS: u8 = 24;

/// How many bits of an IPv6 address name its network where nothing else is asked for.
pub const DEFAULT_V6_BITS: u8 = 48;

/// The first bits of an IPv4-mapped IPv6 address (`::ffff:0:0/96`), which are no part of its IPv4 address.
const MAPPED_BITS: u8 = 96;

/// A network with host bits zero; a single address is a network of full length.
///
/// An IPv4-mapped IPv6 network of 96 bits or more is held as its IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address` with a prefix of that many bits; `None` if the prefix is longer than
    /// the address (32 bits in IPv4, 128 in IPv6).
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > address_bits(address) {
            return None;
        }
        let (address, prefix) = match (address.to_canonical(), prefix.checked_sub(MAPPED_BITS)) {
            (IpAddr::V4(v4), Some(v4_prefix)) => (IpAddr::V4(v4), v4_prefix),
            _ => (address, prefix),
        };
        let host_bits = u32::from(address_bits(address) - prefix);
        let address = match address {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
            }
        };
        Some(Self { address, prefix })
    }

    /// Reads an address or a network; `None` if `text` is none. White space is not taken.
    ///
    /// Forms: an address; an address with a prefix length (`192.0.2.0/24`); an IPv4 address with a port
    /// (`192.0.2.1:443`); an IPv6 address in brackets (`[2001:db8::1]`), and with a port after them.
    /// IPv4 is four decimal octets without leading zeros, IPv6 is the text of RFC 4291 without a zone.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let (address, after) = bracketed.split_once(']')?;
            let is_whole = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
            let address: Ipv6Addr = address.parse().ok().filter(|_| is_whole)?;
            return Some(Self::of_address(address.into()));
        }
        if let Some((address, prefix)) = text.split_once('/') {
            return Self::new(address.parse().ok()?, parse_prefix(prefix)?);
        }
        if let Some((address, port)) = text.split_once(':')
            && let Ok(address) = address.parse::<Ipv4Addr>()
        {
            return is_port(port).then(|| Self::of_address(address.into()));
        }
        text.parse().ok().map(Self::of_address)
    }

    fn of_address(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: address_bits(address) }
    }

    /// The network around this one that has `v4_bits` or `v6_bits` bits, as its address goes; the
    /// network itself where that has no more bits.
    #[must_use]
    pub fn enclosing(self, v4_bits: u8, v6_bits: u8) -> Self {
        let bits = if self.address.is_ipv4() { v4_bits } else { v6_bits };
        Self::new(self.address, self.prefix.min(bits)).unwrap_or(self)
    }

    /// The canonical text, written into `scratch`: the address as RFC 5952 has it, and `/` and the
    /// prefix length unless it is full.
    pub fn text(self, scratch: &mut [u8; LONGEST_TEXT]) -> &[u8] {
        let len = match (self.address, self.prefix) {
            (IpAddr::V4(v4), 32) => write_v4(v4, scratch),
            _ => self.write(scratch),
        };
        &scratch[..len]
    }

    /// Writes the text of any network; returns its length.
    fn write(self, scratch: &mut [u8; LONGEST_TEXT]) -> usize {
        let mut rest = &mut scratch[..];
        let written = match self {
            Self { address, prefix } if prefix == address_bits(address) => write!(rest, "{address}"),
            Self { address, prefix } => write!(rest, "{address}/{prefix}"),
        };
        debug_assert!(written.is_ok(), "the scratch has room for the longest text");
        LONGEST_TEXT - rest.len()
    }
}

/// Writes an IPv4 address; returns the length of its text. A fast path: `write!` takes as long as a hash.
fn write_v4(address: Ipv4Addr, scratch: &mut [u8; LONGEST_TEXT]) -> usize {
    let mut len = 0;
    let mut push = |byte| {
        scratch[len] = byte;
        len += 1;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            push(b'.');
        }
        for unit in [100, 10] {
            if octet >= unit {
                push(b'0' + octet / unit % 10);
            }
        }
        push(b'0' + octet % 10);
    }
    len
}

fn address_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Reads a prefix length: decimal digits without leading zeros.
fn parse_prefix(digits: &str) -> Option<u8> {
    let is_plain = digits == "0" || digits.starts_with(|digit: char| matches!(digit, '1'..='9'));
    is_plain.then(|| digits.parse().ok()).flatten()
}

/// Whether `digits` are a port: one to five decimal digits, 65535 at most.
fn is_port(digits: &str) -> bool {
    matches!(digits.len(), 1..=5)
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(network: Network) -> String {
        String::from_utf8(network.text(&mut [0; LONGEST_TEXT]).to_vec()).unwrap()
    }

    fn any_address() -> impl Strategy<Value = IpAddr> {
        // `&` of random numbers: addresses with many zeros, and so with every kind of `::`.
        let v6 = (any::<u128>(), any::<u128>()).prop_map(|(bits, zeros)| Ipv6Addr::from_bits(bits & zeros));
        let v4 = || any::<u32>().prop_map(Ipv4Addr::from_bits);
        prop_oneof![
            v4().prop_map(IpAddr::V4),
            v6.prop_map(IpAddr::V6),
            v4().prop_map(|v4| v4.to_ipv6_mapped().into())
        ]
    }

    #[test]
    fn encloses() {
        for (address, expected) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("192.0.2.77/30", "192.0.2.0/24"),
            ("192.0.2.77/23", "192.0.2.0/23"), // no smaller network is known
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
            ("::ffff:192.0.2.77/95", "::/48"),
        ] {
            let network = Network::parse(address).unwrap();
            assert_eq!(text(network.enclosing(DEFAULT_V4_BITS, DEFAULT_V6_BITS)), expected, "{address}");
            assert_eq!(network.enclosing(32, 128), network);
            assert!(matches!(text(network.enclosing(0, 0)).as_str(), "0.0.0.0/0" | "::/0"));
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(address in any_address(), prefix in 0..=128u8) {
            match Network::new(address, prefix) {
                Some(network) => prop_assert_eq!(Network::parse(&text(network)), Some(network)),
                None => prop_assert!(address.is_ipv4() && prefix > 32),
            }
        }

        #[test]
        fn all_forms_of_an_address_are_one(address in any_address(), port in any::<u16>()) {
            let network = Network::of_address(address);
            let full = address_bits(address);
            prop_assert_eq!(Network::new(address, full), Some(network));
            prop_assert_eq!(text(network), address.to_canonical().to_string());
            let mut forms = vec![address.to_string(), format!("{address}/{full}")];
            match address {
                IpAddr::V4(_) => forms.push(format!("{address}:{port:05}")),
                IpAddr::V6(v6) => {
                    let written_out = v6.segments().map(|group| format!("{group:04X}")).join(":");
                    for v6 in [address.to_string(), written_out.clone()] {
                        forms.extend([format!("[{v6}]"), format!("[{v6}]:{port}"), format!("{v6}/128")]);
                    }
                    forms.push(written_out);
                }
            }
            for form in forms {
                prop_assert_eq!(Network::parse(&form), Some(network), "{}", form);
            }
        }

        #[test]
        fn addresses_of_a_network_have_it_in_common(address in any_address(), other in any_address(), prefix in 0..=128u8) {
            let Some(network) = Network::new(address, prefix) else { return Ok(()) };
            // The host bits of another address, after the bits of this network.
            let elsewhere = match (address, other) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    let network_bits = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                    Ipv4Addr::from_bits(a.to_bits() & network_bits | b.to_bits() & !network_bits).into()
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    let network_bits = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                    Ipv6Addr::from_bits(a.to_bits() & network_bits | b.to_bits() & !network_bits).into()
                }
                _ => return Ok(()),
            };
            prop_assert_eq!(Network::new(elsewhere, prefix), Some(network));
        }
    }
}
