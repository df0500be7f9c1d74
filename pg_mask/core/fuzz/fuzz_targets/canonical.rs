//! Canonical form: idempotent, and what a second, slower reading of the rule gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::canonical::{SCRATCH, canonical};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fuzz_target!(|value: &[u8]| {
    let (mut first, mut second) = (SCRATCH, SCRATCH);
    let once = canonical(value, &mut first);
    assert_eq!(canonical(once, &mut second), once);
    let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    let trimmed = &value[start..end];
    match std::str::from_utf8(trimmed).ok().and_then(rewritten) {
        Some(text) => assert_eq!(once, text.as_bytes()),
        None => assert_eq!(once, trimmed),
    }
});

/// The text of an address or network, however it is written; `None` for what is none.
fn rewritten(text: &str) -> Option<String> {
    if let Ok(address) = text.parse() {
        return Some(written(address, None));
    }
    if let Some((address, prefix)) = text.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok().filter(|number: &u32| number.to_string() == prefix)?;
        return (prefix <= if address.is_ipv4() { 32 } else { 128 }).then(|| written(address, Some(prefix)));
    }
    if let Some(bracketed) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(written(bracketed.parse::<Ipv6Addr>().ok()?.into(), None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let is_port = (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u32>().is_ok_and(|port| port <= 65535);
    if !is_port {
        return None;
    }
    match address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bracketed) => Some(written(bracketed.parse::<Ipv6Addr>().ok()?.into(), None)),
        None => Some(written(address.parse::<Ipv4Addr>().ok()?.into(), None)),
    }
}

/// An address with the bits after the prefix zero. One that is IPv4 in IPv6 is written as IPv4.
fn written(address: IpAddr, prefix: Option<u32>) -> String {
    let (bits, length) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let prefix = prefix.unwrap_or(length);
    let kept = (0..prefix).fold(0, |kept, place| kept | bits & 1 << (127 - place));
    let is_mapped = length == 128 && prefix >= 96 && kept >> 32 == 0xffff;
    let (address, length, prefix): (IpAddr, u32, u32) = match length {
        32 => (Ipv4Addr::from_bits((kept >> 96) as u32).into(), 32, prefix),
        _ if is_mapped => (Ipv4Addr::from_bits(kept as u32).into(), 32, prefix - 96),
        _ => (Ipv6Addr::from_bits(kept).into(), 128, prefix),
    };
    if prefix == length { address.to_string() } else { format!("{address}/{prefix}") }
}
