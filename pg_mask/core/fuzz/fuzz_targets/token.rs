//! Tokens: what is read is written the same again; of a hash without a key, in lower case.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::token::Token;

fuzz_target!(|text: &[u8]| {
    if let Some(token) = Token::parse(text) {
        let expected = if token.generation == 0 { text.to_ascii_lowercase() } else { text.to_vec() };
        assert_eq!(token.to_string().as_bytes(), expected);
        assert_eq!(Token::parse_older(text, token.generation + 1), Some(token));
        assert_eq!(Token::parse_older(text, token.generation), None);
    }
});
