//! AWS Signature Version 4, checked from its text: IAM user guide, "Create a signed AWS API request".
//! The secret key is `test`.

use hmac::{Hmac, KeyInit, Mac};
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};

/// Whether the request is what was signed.
pub(super) fn check(head: &Parts, body: &[u8]) -> Result<(), &'static str> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization").ok_or("no Authorization")?;
    let parts = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let part = |name: &str| {
        parts
            .split(", ")
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            .ok_or("a part is missing")
    };
    let (_key_id, scope) = part("Credential")?.split_once('/').ok_or("no scope")?;
    let signed_headers = part("SignedHeaders")?;
    let mut canonical =
        format!("{}\n{}\n{}\n", head.method, head.uri.path(), head.uri.query().unwrap_or_default());
    for name in signed_headers.split(';') {
        let value = header(name).ok_or("a signed header is missing")?;
        canonical.push_str(&format!("{name}:{}\n", value.trim()));
    }
    for needed in ["host", "x-amz-date", "content-type"] {
        if !signed_headers.split(';').any(|name| name == needed) {
            return Err("a header that has to be signed is not");
        }
    }
    canonical.push_str(&format!("\n{signed_headers}\n{}", hex::encode(Sha256::digest(body))));

    let date = header("x-amz-date").ok_or("no date")?;
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())));
    let key = scope.split('/').fold(b"AWS4test".to_vec(), |key, part| hmac(&key, part));
    if hex::encode(hmac(&key, &to_sign)) == part("Signature")? {
        Ok(())
    } else {
        Err("the signature does not match")
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(text).finalize().into_bytes().to_vec(),
        Err(_) => Vec::new(), // HMAC takes keys of any length
    }
}
