//! Tokens: what is read is written the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::token::Token;

fuzz_target!(|text: &str| {
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.to_string(), text);
    }
});
