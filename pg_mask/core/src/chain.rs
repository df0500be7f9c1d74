//! A chain of records that shows tampering: each has a MAC over itself and the MAC of the record before it.
//! Who has no key can't change a record, take one out of the midst or add one without its being seen. That
//! the last records are missing shows only beside what is known of the end ([`ChainKey::end`] makes a note of
//! that, for whoever keeps it).
//!
//! What is hashed has a fixed length for each field, so records with different fields never hash the same.

use crate::hmac_key::{Hash, HmacKey, sha256};
use crate::keyring::Key;

/// HKDF info of the key that a chain's MACs are made with.
const INFO: &[u8] = b"pg_mask/v1/audit";

/// What makes and checks the MACs of a chain: derived from a key of the keyring.
pub struct ChainKey(HmacKey);

impl ChainKey {
    /// Derives it.
    pub fn new(key: &Key) -> Self {
        Self(HmacKey::new(&key.derive(INFO)))
    }

    /// What stands before the first record of the chain with that name.
    pub fn beginning(&self, name: &[u8]) -> Hash {
        self.mac(b'b', &sha256(name), &[])
    }

    /// The MAC of a record: its fields in order, of which some may be absent.
    pub fn next(&self, before: &Hash, fields: &[Option<&[u8]>]) -> Hash {
        self.mac(b'r', before, fields)
    }

    /// The MAC that says that the chain ends with record `number`, whose MAC is `last`.
    pub fn end(&self, number: i64, last: &Hash) -> Hash {
        self.mac(b'e', last, &[Some(&number.to_be_bytes())])
    }

    fn mac(&self, kind: u8, before: &Hash, fields: &[Option<&[u8]>]) -> Hash {
        let mut message = Vec::with_capacity((1 + size_of::<Hash>()) * (1 + fields.len()));
        message.push(kind);
        message.extend(before);
        for field in fields {
            message.push(field.is_some().into());
            message.extend(sha256(field.unwrap_or_default()));
        }
        self.0.mac(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::Keyring;
    use proptest::prelude::*;

    type Record = Vec<Option<Vec<u8>>>;

    fn key() -> ChainKey {
        ChainKey::new(&Keyring::generate("2026-11-21T00:00:00Z").unwrap().0.generations()[0])
    }

    fn next(key: &ChainKey, before: &Hash, record: &Record) -> Hash {
        let fields: Vec<_> = record.iter().map(Option::as_deref).collect();
        key.next(before, &fields)
    }

    /// The layout, once more and by hand: it must never change for records that are stored.
    #[test]
    fn a_record_is_hashed_as_it_was_when_the_first_was_stored() {
        let text = br#"{"format":"pg_mask keyring v1","generations":[{"generation":1,"key":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","created_at":"2026-11-21T08:00:00Z"}],"seal":[]}"#;
        let keyring = Keyring::parse(text).unwrap();
        let key = ChainKey::new(&keyring.generations()[0]);
        let derived = HmacKey::new(&keyring.generations()[0].derive(b"pg_mask/v1/audit"));
        let beginning = derived.mac(&[b"b".as_slice(), &sha256(b"name")].concat());
        assert_eq!(key.beginning(b"name"), beginning);
        let record = [b"r".as_slice(), &beginning, &[1], &sha256(b"x"), &[0], &sha256(b"")].concat();
        assert_eq!(key.next(&beginning, &[Some(b"x"), None]), derived.mac(&record));
        let end = [b"e".as_slice(), &beginning, &[1], &sha256(&[0, 0, 0, 0, 0, 0, 0, 7])].concat();
        assert_eq!(key.end(7, &beginning), derived.mac(&end));
    }

    proptest! {
        #[test]
        fn other_records_have_other_macs(one: Record, other: Record, name: Vec<u8>) {
            let key = key();
            let before = key.beginning(&name);
            prop_assert_eq!(next(&key, &before, &one), next(&key, &before, &one));
            if one != other {
                prop_assert_ne!(next(&key, &before, &one), next(&key, &before, &other));
            }
            prop_assert_ne!(next(&key, &before, &one), next(&key, &key.beginning(b"other chain"), &one));
            prop_assert_ne!(key.end(1, &before), key.end(2, &before));
            prop_assert_ne!(next(&super::tests::key(), &before, &one), next(&key, &before, &one));
        }
    }
}
