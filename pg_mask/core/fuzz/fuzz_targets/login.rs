//! Bodies: any bytes are a login or refused, and what a login stores PostgreSQL can hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::login;

fuzz_target!(|body: &[u8]| {
    match login::parse(body) {
        Ok(login) => {
            assert!(!login.user_id.is_empty());
            assert!(login.app_version.is_none_or(|version| version >= 0));
            assert!(login.stored_texts().iter().all(|(_, text)| !text.is_some_and(|text| text.contains('\0'))));
        }
        Err(reason) => assert!(reason.to_string().is_ascii()),
    }
});
