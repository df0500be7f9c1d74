//! Bodies that can't be taken in are kept, but never in the clear: XChaCha20-Poly1305
//! (RFC 8439 with the 24-byte nonce of draft-irtf-cfrg-xchacha), whose nonces may be random.
//!
//! A sealed body is `1 ‖ seal key id, 4 bytes big-endian ‖ nonce, 24 bytes ‖ ciphertext ‖ tag, 16
//! bytes`. The row that it belongs to is its associated data: moved to another row, it doesn't open.

use crate::keyring::{Key, Keyring};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// HKDF info of the key that seals.
const INFO: &[u8] = b"pg_mask/v1/seal";
const VERSION: u8 = 1;
const HEADER: usize = 1 + 4;
const NONCE: usize = 24;

/// Why a body is not sealed or not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// There is no key to seal with.
    #[error("the keyring has no seal key")]
    NoSealKey,
    /// The key that sealed it is gone.
    #[error("the keyring has no seal key {0}, which sealed this body")]
    UnknownKey(u32),
    /// Not what was sealed, or not where it was sealed, or not with this key.
    #[error("the sealed body was changed, or belongs to another row, or was sealed under another keyring")]
    Broken,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Seals `body` for the row that `row` identifies, with the current seal key.
pub fn seal(keyring: &Keyring, row: &[u8], body: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = keyring.current_seal().ok_or(SealError::NoSealKey)?;
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
    let nonce = XNonce::from(nonce);
    let ciphertext =
        cipher(key).encrypt(&nonce, Payload { msg: body, aad: row }).map_err(|_| SealError::Broken)?;
    let mut sealed = Vec::with_capacity(HEADER + NONCE + ciphertext.len());
    sealed.push(VERSION);
    sealed.extend(key.number().to_be_bytes());
    sealed.extend(nonce);
    sealed.extend(ciphertext);
    Ok(sealed)
}

/// Opens what [`seal`] made for the same row.
pub fn open(keyring: &Keyring, row: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (&[VERSION, ref id @ ..], rest) = sealed.split_first_chunk::<HEADER>().ok_or(SealError::Broken)?
    else {
        return Err(SealError::Broken);
    };
    let id = u32::from_be_bytes(*id);
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Broken)?;
    let key = keyring.seal(id).ok_or(SealError::UnknownKey(id))?;
    cipher(key)
        .decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad: row })
        .map(Zeroizing::new)
        .map_err(|_| SealError::Broken)
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key.derive(INFO)).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keyring() -> Keyring {
        Keyring::generate("2026-11-21T00:00:00Z").unwrap().0
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed_and_nothing_else(body in any::<Vec<u8>>(), row in any::<[u8; 8]>(), at in any::<usize>(), bit in 0..8u8) {
            let keyring = keyring();
            let mut sealed = seal(&keyring, &row, &body).unwrap();
            prop_assert_eq!(&*open(&keyring, &row, &sealed).unwrap(), &body);
            prop_assert_eq!(open(&keyring, b"another row", &sealed), Err(SealError::Broken));
            let at = at % sealed.len();
            sealed[at] ^= 1u8 << bit;
            prop_assert!(open(&keyring, &row, &sealed).is_err());
            prop_assert!(open(&keyring, &row, &sealed[..at]).is_err());
        }
    }

    #[test]
    fn another_keyring_does_not_open() {
        let sealed = seal(&keyring(), b"row", b"body").unwrap();
        assert_eq!(open(&keyring(), b"row", &sealed), Err(SealError::Broken));
    }
}
