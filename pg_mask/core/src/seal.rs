//! Bodies that can't be taken in, and values of the vault, are kept, but never in the clear: XChaCha20-Poly1305
//! (RFC 8439 with the 24-byte nonce of draft-irtf-cfrg-xchacha), whose nonces may be random.
//!
//! A sealed body is `1 ‖ seal key id, 4 bytes big-endian ‖ nonce, 24 bytes ‖ ciphertext ‖ tag, 16
//! bytes`. The row that it belongs to is its associated data: moved to another row, it doesn't open.

use crate::hmac_key::Hash;
use crate::keyring::{Key, Keyring};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// HKDF info of the key that seals.
const INFO: &[u8] = b"pg_mask/v1/seal";
const VERSION: u8 = 1;
const HEADER: usize = 1 + 4;
const NONCE: usize = 24;
const TAG: usize = 16;
const PADDING: u8 = 0x80;

/// Why a body is not sealed or not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The key that sealed it is gone.
    #[error("the keyring has no seal key {0}, which sealed this body")]
    UnknownKey(u32),
    /// It was sealed when a newer key was in use than now.
    #[error("the body was sealed with key {0}, and an older one is in use now")]
    NewerKey(u32),
    /// Not what was sealed, or not where it was sealed, or not with this key.
    #[error("the sealed body was changed, or belongs to another row, or was sealed under another keyring")]
    Broken,
    /// A body of a mebibyte may not fit where a small one does.
    #[error("the system gave no memory")]
    Memory,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// Seals `body` for the row that `row` identifies, with a seal key.
pub fn seal(key: &Key, row: &[u8], body: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
    let mut sealed = with_capacity(HEADER + NONCE + body.len() + TAG)?;
    sealed.push(VERSION);
    sealed.extend(key.number().to_be_bytes());
    sealed.extend(nonce);
    sealed.extend(body);
    let tag = encrypt(&key.derive(INFO), nonce, row, &mut sealed[HEADER + NONCE..])?;
    sealed.extend(tag);
    Ok(sealed)
}

/// The number of the key that something was sealed with, if it is sealed.
pub fn key_of(sealed: &[u8]) -> Option<u32> {
    match sealed.first_chunk::<HEADER>() {
        Some(&[VERSION, ref id @ ..]) => Some(u32::from_be_bytes(*id)),
        _ => None,
    }
}

/// Opens what [`seal`] made for the same row.
pub fn open(keyring: &Keyring, row: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (&[VERSION, ref id @ ..], rest) = sealed.split_first_chunk::<HEADER>().ok_or(SealError::Broken)?
    else {
        return Err(SealError::Broken);
    };
    let id = u32::from_be_bytes(*id);
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(SealError::Broken)?;
    let (ciphertext, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(SealError::Broken)?;
    let key = keyring.seal(id).ok_or(SealError::UnknownKey(id))?;
    let mut body = Zeroizing::new(with_capacity(ciphertext.len())?);
    body.extend(ciphertext);
    decrypt(&key.derive(INFO), *nonce, row, &mut body, *tag)?;
    Ok(body)
}

/// A value with what makes its length a multiple of 64: a byte 0x80 and zeros (ISO/IEC 7816-4). The length
/// of what is sealed shows, and that of an address says much about it.
pub fn pad(value: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    const MULTIPLE: usize = 64;
    let len = (value.len() + 1).next_multiple_of(MULTIPLE);
    let mut padded = Zeroizing::new(with_capacity(len)?);
    padded.extend(value);
    padded.push(PADDING);
    padded.resize(len, 0);
    Ok(padded)
}

/// The value that [`pad`] was given.
pub fn unpad(mut padded: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let end = padded.iter().rposition(|byte| *byte != 0).filter(|at| padded[*at] == PADDING);
    padded.truncate(end.ok_or(SealError::Broken)?);
    Ok(padded)
}

/// Memory, or an error that the caller can tell the database's user.
fn with_capacity(bytes: usize) -> Result<Vec<u8>, SealError> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| SealError::Memory)?;
    Ok(memory)
}

/// Encrypts in place; gives the tag.
fn encrypt(key: &Hash, nonce: [u8; NONCE], aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG], SealError> {
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let tag = cipher.encrypt_inout_detached(&XNonce::from(nonce), aad, text.into());
    tag.map(Into::into).map_err(|_| SealError::Broken)
}

/// Decrypts in place, if the tag is right.
fn decrypt(
    key: &Hash,
    nonce: [u8; NONCE],
    aad: &[u8],
    text: &mut [u8],
    tag: [u8; TAG],
) -> Result<(), SealError> {
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let opened = cipher.decrypt_inout_detached(&XNonce::from(nonce), aad, text.into(), &Tag::from(tag));
    opened.map_err(|_| SealError::Broken)
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
            let mut sealed = seal(&keyring.seals()[0], &row, &body).unwrap();
            prop_assert_eq!(&*open(&keyring, &row, &sealed).unwrap(), &body);
            prop_assert_eq!(open(&keyring, b"another row", &sealed), Err(SealError::Broken));
            let at = at % sealed.len();
            sealed[at] ^= 1u8 << bit;
            prop_assert!(open(&keyring, &row, &sealed).is_err());
            prop_assert!(open(&keyring, &row, &sealed[..at]).is_err());
        }
    }

    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn gives_the_published_ciphertext() {
        let plaintext = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let key: Hash = std::array::from_fn(|n| 0x80 + n as u8);
        let nonce: [u8; NONCE] = std::array::from_fn(|n| 0x40 + n as u8);
        let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let expected = "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb\
                        731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452\
                        2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                        21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49";
        let mut text = plaintext.to_vec();
        let tag = encrypt(&key, nonce, &aad, &mut text).unwrap();
        assert_eq!(hex::encode(&text) + &hex::encode(tag), expected);
        decrypt(&key, nonce, &aad, &mut text, tag).unwrap();
        assert_eq!(text, plaintext);
    }

    proptest! {
        #[test]
        fn padding_hides_the_length_and_goes_away(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            let padded = pad(&value).unwrap();
            prop_assert_eq!(padded.len(), (value.len() / 64 + 1) * 64);
            prop_assert_eq!(&*unpad(padded).unwrap(), &value);
        }
    }

    #[test]
    fn what_was_not_padded_is_broken() {
        for bytes in [&b""[..], &[0; 64], b"x", &[0x80, 1]] {
            assert_eq!(unpad(Zeroizing::new(bytes.to_vec())), Err(SealError::Broken), "{bytes:?}");
        }
    }

    #[test]
    fn another_keyring_does_not_open() {
        let sealed = seal(&keyring().seals()[0], b"row", b"body").unwrap();
        assert_eq!(open(&keyring(), b"row", &sealed), Err(SealError::Broken));
    }
}
