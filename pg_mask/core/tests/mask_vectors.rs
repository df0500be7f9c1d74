//! The masking contract's vectors, made by an independent implementation.
#![allow(missing_docs, clippy::unwrap_used)]

use pg_mask_core::canonical::{SCRATCH, canonical};
use pg_mask_core::hmac_key::sha256;
use pg_mask_core::keyring::Keyring;
use pg_mask_core::mask::Masker;
use pg_mask_core::network::Network;
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
    let mut networks = 0;
    for vector in vectors {
        let value = vector["value"].as_str().unwrap();
        let (mut scratch, mut network_scratch) = (SCRATCH, SCRATCH);
        let value = match vector["function"].as_str() {
            None => value.as_bytes(),
            Some("mask_network") => {
                networks += 1;
                let bits = |name| u8::try_from(vector[name].as_u64().unwrap()).unwrap();
                let network = Network::parse(value).unwrap().enclosing(bits("v4_bits"), bits("v6_bits"));
                network.text(&mut network_scratch)
            }
            Some(other) => panic!("{other} is not known"),
        };
        let text = canonical(value, &mut scratch);
        assert_eq!(text, vector["canonical"].as_str().unwrap_or_default().as_bytes(), "{vector}");
        let keys = vector["keys"].as_array().unwrap();
        let token = if keys.is_empty() {
            (!text.is_empty()).then(|| hex::encode(sha256(text)).into_bytes())
        } else {
            let domain = vector["domain"].as_str().unwrap().as_bytes();
            Masker::new(&keyring(keys), keys.len() as u32, domain).token(value)
        };
        assert_eq!(token.as_deref(), vector["token"].as_str().map(str::as_bytes), "{vector}");
    }
    assert!(vectors.len() > 200 && networks == 20, "{} vectors, {networks} networks", vectors.len());
}

#[test]
fn every_section_is_tested() {
    let vectors = vectors();
    let sections: Vec<_> = vectors.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(sections, ["check_values", "contract", "vectors"]);
    assert_eq!(vectors["contract"], "mask v1");
}

#[test]
fn check_values() {
    for (key, expected) in vectors()["check_values"].as_object().unwrap() {
        let keyring = keyring(&[json!(key)]);
        assert_eq!(keyring.generations()[0].check_value(), expected.as_str().unwrap());
    }
}
