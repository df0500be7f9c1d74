//! Canonical form: idempotent, never longer, an address or the value without its ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::canonical::canonical;
use std::net::IpAddr;

fuzz_target!(|value: &[u8]| {
    let (mut first, mut second) = ([0; 39], [0; 39]);
    let once = canonical(value, &mut first);
    assert_eq!(canonical(once, &mut second), once);
    let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    assert!(!once.first().is_some_and(is_space) && !once.last().is_some_and(is_space));
    let trimmed = {
        let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
        let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
        &value[start..end]
    };
    let address = std::str::from_utf8(trimmed).ok().and_then(|text| text.parse::<IpAddr>().ok());
    match address {
        Some(address) => assert_eq!(once, address.to_canonical().to_string().as_bytes()),
        None => assert_eq!(once, trimmed),
    }
});
