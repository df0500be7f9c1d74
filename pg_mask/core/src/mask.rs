//! From a value to its token (masking contract v1, rules 2 to 4).

use crate::canonical::{SCRATCH, canonical};
use crate::hmac_key::{Hash, HmacKey, hkdf, sha256};
use crate::keyring::Keyring;
use crate::network::Network;
use crate::token::Token;

/// The domain of a value when none is given.
pub const DEFAULT_DOMAIN: &[u8] = b"pii";

/// The domain of the networks that `mask_network` masks.
pub const NETWORK_DOMAIN: &str = "network";

/// HKDF info, before the domain.
const INFO: &[u8] = b"pg_mask/v1/mask/";

/// A byte in hexadecimal. Without a table the compiler does sixteen at once.
#[inline]
fn hex_digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| digit + if digit < 10 { b'0' } else { b'a' - 10 })
}

/// Masks the values of one domain under one generation of a keyring.
pub struct Masker {
    /// `m<generation>_`
    prefix: String,
    /// The keys of generations 1 to n, in order: each generation hashes the one before.
    generations: Vec<HmacKey>,
}

impl Masker {
    /// Derives the keys of `domain`, a UTF-8 text, from generations 1 to `generation` of `keyring`.
    ///
    /// # Panics
    /// If `keyring` has no such generation.
    pub fn new(keyring: &Keyring, generation: u32, domain: &[u8]) -> Self {
        let keys = &keyring.generations()[..generation as usize];
        Self {
            prefix: format!("m{generation}_"),
            generations: keys.iter().map(|key| HmacKey::new(&hkdf(key.secret(), &[INFO, domain]))).collect(),
        }
    }

    /// The length of every token in bytes.
    pub fn token_len(&self) -> usize {
        self.prefix.len() + 2 * size_of::<Hash>()
    }

    /// The hash of `value`; `None` if it is empty or all white space.
    pub fn hash(&self, value: &[u8]) -> Option<Hash> {
        let mut scratch = SCRATCH;
        let canonical = canonical(value, &mut scratch);
        (!canonical.is_empty()).then(|| self.hash_canonical(canonical))
    }

    /// The hash of an address or network.
    pub fn hash_network(&self, network: Network) -> Hash {
        self.hash_canonical(network.text(&mut SCRATCH.clone()))
    }

    /// The hash of this masker's generation for the value that `token` is of: as if it had been masked
    /// now. `None` if the token's generation is later.
    pub fn lift(&self, token: &Token) -> Option<Hash> {
        let newer = self.generations.get(token.generation as usize..)?;
        Some(newer.iter().fold(token.hash, |hash, key| key.mac(&hash)))
    }

    /// The generation that this masks under.
    pub fn generation(&self) -> u32 {
        self.generations.len() as u32
    }

    #[inline]
    fn hash_canonical(&self, canonical: &[u8]) -> Hash {
        self.generations.iter().fold(sha256(canonical), |hash, key| key.mac(&hash))
    }

    /// Writes the token of `hash` over `out`, which is [`Masker::token_len`] bytes long.
    ///
    /// # Panics
    /// If `out` has another length.
    #[inline]
    pub fn write_token(&self, hash: &Hash, out: &mut [u8]) {
        let (prefix, digits) = out.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(self.prefix.as_bytes());
        let (pairs, rest) = digits.as_chunks_mut::<2>();
        assert!(pairs.len() == hash.len() && rest.is_empty(), "a token's hash has 64 digits");
        for (pair, byte) in pairs.iter_mut().zip(hash) {
            *pair = hex_digits(*byte);
        }
    }

    /// The token of `value`; `None` if it is empty or all white space.
    pub fn token(&self, value: &[u8]) -> Option<Vec<u8>> {
        Some(self.token_of(&self.hash(value)?))
    }

    /// The token of an address or network.
    pub fn network_token(&self, network: Network) -> Vec<u8> {
        self.token_of(&self.hash_network(network))
    }

    /// The token of `hash`.
    pub fn token_of(&self, hash: &Hash) -> Vec<u8> {
        let mut token = vec![0; self.token_len()];
        self.write_token(hash, &mut token);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Kind;
    use proptest::prelude::*;

    fn keyring() -> Keyring {
        Keyring::generate("2026-11-21T00:00:00Z").unwrap().0
    }

    #[test]
    fn domains_are_unlinkable() {
        let keyring = keyring();
        let [pii, email] =
            [DEFAULT_DOMAIN, b"email"].map(|domain| Masker::new(&keyring, 1, domain).token(b"x"));
        assert!(pii.is_some());
        assert_ne!(pii, email);
    }

    proptest! {
        #[test]
        fn a_lifted_token_is_that_of_its_value(value in ".*[a-z].*", older in 1u32..=3) {
            let (_, text) = Keyring::generate("2026-11-21T00:00:00Z").unwrap();
            let grow = |text: &[u8]| Keyring::with_new_key(text, Kind::Mask, "2026-11-21T00:00:00Z").unwrap().1;
            let keyring = Keyring::parse(&grow(&grow(&text))).unwrap();
            let newest = Masker::new(&keyring, 3, DEFAULT_DOMAIN);
            let expected = newest.hash(value.as_bytes());
            let stored = Masker::new(&keyring, older, DEFAULT_DOMAIN).token(value.as_bytes()).unwrap();
            prop_assert_eq!(newest.lift(&Token::parse(&stored).unwrap()), expected);
            let plain = sha256(canonical(value.as_bytes(), &mut SCRATCH.clone()));
            prop_assert_eq!(newest.lift(&Token { generation: 0, hash: plain }), expected);
            let later = Token { generation: 4, hash: plain };
            prop_assert_eq!(newest.lift(&later), None);
        }

        #[test]
        fn both_ways_to_write_a_token_agree(value in ".+") {
            let masker = Masker::new(&keyring(), 1, DEFAULT_DOMAIN);
            if let Some(hash) = masker.hash(value.as_bytes()) {
                let mut out = vec![0; masker.token_len()];
                masker.write_token(&hash, &mut out);
                prop_assert_eq!(Some(out), masker.token(value.as_bytes()));
            }
        }
    }
}
