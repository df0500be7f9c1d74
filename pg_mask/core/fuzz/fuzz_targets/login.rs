//! Bodies: any bytes are a login or refused, and what a login stores PostgreSQL can hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_mask_core::login::{self, Refusal, app_version};

fuzz_target!(|body: &[u8]| {
    match login::parse(body) {
        Ok(login) => {
            assert!(!login.user_id.is_empty() && !login.user_id.contains('\0'));
            for stored in [&login.device_type, &login.locale, &login.app_version] {
                assert!(!matches!(stored, Ok(Some(text)) if text.contains('\0')));
            }
            for field in [&login.device_type, &login.ip, &login.device_id, &login.locale, &login.app_version] {
                match field {
                    Ok(Some(text)) => assert!(text.len() <= body.len().max(150_000)),
                    Ok(None) => {}
                    Err(reason) => assert!(matches!(reason, Refusal::Invalid(_) | Refusal::TooLong(_))),
                }
            }
            if let Ok(Some(version)) = &login.app_version {
                assert!(!version.trim().is_empty());
                assert!(app_version::to_integer(version).is_none_or(|version| version >= 0));
            }
        }
        Err(reason) => assert!(reason.to_string().is_ascii()),
    }
});
