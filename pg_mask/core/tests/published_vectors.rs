//! Published vectors, run against the code that masks.
#![allow(missing_docs)]

use pg_mask_core::hmac_key::{HmacKey, hkdf, sha256};

/// HMAC fills a key up with zeros, and hashes one that is longer than a block (RFC 2104, section 2).
fn key(bytes: &[u8]) -> HmacKey {
    let mut key = [0; 32];
    if bytes.len() > 64 {
        key = sha256(bytes);
    } else {
        key[..bytes.len()].copy_from_slice(bytes);
    }
    HmacKey::new(&key)
}

#[test]
fn sha256_of_fips_180_4() {
    for (message, expected) in [
        (&b""[..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (&[b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ] {
        assert_eq!(hex::encode(sha256(message)), expected);
    }
}

#[test]
fn hmac_sha256_of_rfc_4231() {
    let case_4_key: Vec<u8> = (1..=25).collect();
    for (key_bytes, message, expected) in [
        (
            &[0x0b; 20][..],
            &b"Hi There"[..],
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&case_4_key, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            &[0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. \
              The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        assert_eq!(hex::encode(key(key_bytes).mac(message)), expected);
    }
    // Case 5 publishes the first 128 bits.
    let case_5 = key(&[0x0c; 20]).mac(b"Test With Truncation");
    assert_eq!(hex::encode(&case_5[..16]), "a3b6167473100ee06e0c796c2955552b");
}

/// Case 3 has no salt, as pg_mask has none. 32 bytes are its first block.
#[test]
fn hkdf_sha256_of_rfc_5869() {
    let derived = hkdf(&[0x0b; 22], &[]);
    assert_eq!(hex::encode(*derived), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
}
