//! HMAC-SHA-256 (RFC 2104) of 32-byte messages with a key that is ready to use.
//!
//! Every step of masking hashes 32 bytes, so a message and its padding are one SHA-256 block. The
//! two blocks that depend on the key alone are hashed once, when the key is made: two blocks a
//! message remain, the least that HMAC can take.

use hkdf::Hkdf;
use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
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

    /// Derives a key from `secret` by HKDF (RFC 5869, no salt) for the purpose that `info` names.
    pub fn derive(secret: &Hash, info: &[&[u8]]) -> Self {
        Self::new(&hkdf(secret, info))
    }

    /// HMAC-SHA-256 of `message`.
    pub fn mac(&self, message: &Hash) -> Hash {
        let inner = one_block_after(self.inner, message);
        one_block_after(self.outer, &inner)
    }
}

/// HKDF-SHA-256 (RFC 5869) of `secret` with no salt and the parts of `info` joined, 32 bytes.
pub fn hkdf(secret: &Hash, info: &[&[u8]]) -> Zeroizing<Hash> {
    let mut derived = Zeroizing::new([0; 32]);
    let length_is_fine = Hkdf::<Sha256>::new(None, secret).expand_multi_info(info, derived.as_mut_slice());
    debug_assert!(length_is_fine.is_ok(), "32 bytes are one HMAC-SHA-256 output");
    derived
}

/// SHA-256 of `message`: one block, hashed at once, when the message is short.
pub fn sha256(message: &[u8]) -> Hash {
    const LONGEST_IN_ONE_BLOCK: usize = 64 - 9; // 0x80 and the length in bits follow the message
    if message.len() > LONGEST_IN_ONE_BLOCK {
        return Sha256::digest(message).into();
    }
    let mut block = [0; 64];
    block[..message.len()].copy_from_slice(message);
    block[message.len()] = 0x80;
    block[56..].copy_from_slice(&(8 * message.len() as u64).to_be_bytes());
    let mut state = INITIAL_STATE;
    compress256(&mut state, &[block]);
    to_bytes(state)
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

/// Ends a hash that has taken one block and now takes 32 bytes of `message`.
fn one_block_after(mut state: [u32; 8], message: &Hash) -> Hash {
    const BITS: u64 = 8 * (64 + 32);
    let mut block = [0; 64];
    block[..32].copy_from_slice(message);
    block[32] = 0x80;
    block[56..].copy_from_slice(&BITS.to_be_bytes());
    compress256(&mut state, &[block]);
    to_bytes(state)
}

fn to_bytes(state: [u32; 8]) -> Hash {
    let mut bytes = [0; 32];
    for (four, word) in bytes.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_hmac_crate(key in any::<Hash>(), message in any::<Hash>()) {
            let mut reference = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            reference.update(&message);
            let expected: Hash = reference.finalize().into_bytes().into();
            prop_assert_eq!(HmacKey::new(&key).mac(&message), expected);
        }

        #[test]
        fn sha256_agrees_with_the_sha2_crate(message in proptest::collection::vec(any::<u8>(), 0..130)) {
            let expected: Hash = Sha256::digest(&message).into();
            prop_assert_eq!(sha256(&message), expected);
        }
    }
}
