//! HMAC-SHA-256 (RFC 2104) with a key that is ready to use.
//!
//! The two SHA-256 blocks that depend on the key alone are hashed once, when the key is made. Every
//! step of masking hashes 32 bytes, which with their padding are one block: two blocks a message
//! remain, the least that HMAC can take.

use hkdf::Hkdf;
use sha2::Sha256;
use sha2::block_api::compress256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A SHA-256 hash value, also the length of every key.
pub type Hash = [u8; 32];

/// FIPS 180-4, section 5.3.3.
const INITIAL_STATE: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// An HMAC-SHA-256 key with both its pads already hashed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct HmacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl HmacKey {
    /// Makes `key` ready.
    pub fn new(key: &Hash) -> Self {
        Self { inner: padded_key_state(key, 0x36), outer: padded_key_state(key, 0x5c) }
    }

    /// HMAC-SHA-256 of `message`.
    #[inline]
    pub fn mac(&self, message: &[u8]) -> Hash {
        let inner = finish(self.inner, 64, message);
        finish(self.outer, 64, &inner)
    }
}

/// HKDF-SHA-256 (RFC 5869) of `secret` with no salt and the parts of `info` joined, 32 bytes.
pub fn hkdf(secret: &[u8], info: &[&[u8]]) -> Zeroizing<Hash> {
    let mut derived = Zeroizing::new([0; 32]);
    let length_is_fine = Hkdf::<Sha256>::new(None, secret).expand_multi_info(info, derived.as_mut_slice());
    debug_assert!(length_is_fine.is_ok(), "32 bytes are one HMAC-SHA-256 output");
    derived
}

/// SHA-256 (FIPS 180-4) of `message`.
#[inline]
pub fn sha256(message: &[u8]) -> Hash {
    finish(INITIAL_STATE, 0, message)
}

/// The state after the block that holds the key, XORed with a pad (RFC 2104, section 2).
fn padded_key_state(key: &Hash, pad: u8) -> [u32; 8] {
    let mut block = Zeroizing::new([pad; 64]);
    for (byte, key_byte) in block.iter_mut().zip(key) {
        *byte ^= key_byte;
    }
    let mut state = INITIAL_STATE;
    compress256(&mut state, std::slice::from_ref(&*block));
    state
}

/// Ends a SHA-256 that is at `state` after `before` bytes, whole blocks, and now takes `message`.
#[inline]
fn finish(mut state: [u32; 8], before: usize, message: &[u8]) -> Hash {
    const LENGTH_AT: usize = 64 - 8;
    let (blocks, rest) = message.as_chunks::<64>();
    if !blocks.is_empty() {
        compress256(&mut state, blocks);
    }
    let mut block = [0; 64];
    block[..rest.len()].copy_from_slice(rest);
    block[rest.len()] = 0x80;
    if rest.len() >= LENGTH_AT {
        compress256(&mut state, &[block]);
        block = [0; 64];
    }
    let bits = 8 * (before + message.len()) as u64;
    block[LENGTH_AT..].copy_from_slice(&bits.to_be_bytes());
    compress256(&mut state, &[block]);

    let mut hash = [0; 32];
    for (four, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *four = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Digest;

    proptest! {
        #[test]
        fn agrees_with_the_hmac_crate(key in any::<Hash>(), message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reference = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            reference.update(&message);
            let expected: Hash = reference.finalize().into_bytes().into();
            prop_assert_eq!(HmacKey::new(&key).mac(&message), expected);
        }

        #[test]
        fn sha256_agrees_with_the_sha2_crate(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let expected: Hash = Sha256::digest(&message).into();
            prop_assert_eq!(sha256(&message), expected);
        }
    }
}
