//! Keyrings: any text is read or refused; what is read is in order and has no weak key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::keyring::Keyring;
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker};

fuzz_target!(|text: &[u8]| {
    match Keyring::parse(text) {
        Ok(keyring) => {
            let numbers: Vec<u32> = keyring.generations().iter().map(|key| key.number()).collect();
            assert!(!numbers.is_empty() && numbers.iter().copied().eq(1..=numbers.len() as u32));
            assert!(keyring.seals().is_sorted_by(|a, b| a.number() < b.number()));
            assert!(Masker::new(&keyring, 1, DEFAULT_DOMAIN).token(b"x").is_some());
        }
        Err(error) => assert!(error.to_string().len() < 200),
    }
});
