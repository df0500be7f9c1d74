//! The masking contract's vectors, made by an independent implementation.
#![allow(missing_docs, clippy::unwrap_used)]

use pg_mask_core::canonical::canonical;
use pg_mask_core::hmac_key::sha256;
use pg_mask_core::keyring::Keyring;
use pg_mask_core::mask::Masker;
use serde_json::{Value, json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/mask_v1.json")).unwrap()
}

fn keyring(keys: &[Value]) -> Keyring {
    let at = "2026-11-21T00:00:00Z";
    let entries: Vec<_> =
        (1..).zip(keys).map(|(n, key)| json!({"generation": n, "key": key, "created_at": at})).collect();
    let text = json!({"format": "pg_mask keyring v1", "generations": entries}).to_string();
    Keyring::parse(text.as_bytes()).unwrap()
}

#[test]
fn tokens() {
    let vectors = vectors();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert!(vectors.len() > 80);
    for vector in vectors {
        let value = vector["value"].as_str().unwrap();
        let mut scratch = [0; 39];
        let text = canonical(value.as_bytes(), &mut scratch);
        assert_eq!(text, vector["canonical"].as_str().unwrap_or_default().as_bytes(), "{vector}");
        let keys = vector["keys"].as_array().unwrap();
        let token = if keys.is_empty() {
            (!text.is_empty()).then(|| hex::encode(sha256(text)).into_bytes())
        } else {
            Masker::new(&keyring(keys), vector["domain"].as_str().unwrap().as_bytes()).token(value.as_bytes())
        };
        assert_eq!(token.as_deref(), vector["token"].as_str().map(str::as_bytes), "{vector}");
    }
}

#[test]
fn check_values() {
    for (key, expected) in vectors()["check_values"].as_object().unwrap() {
        let keyring = keyring(&[json!(key)]);
        assert_eq!(keyring.generations()[0].check_value(), expected.as_str().unwrap());
    }
}
