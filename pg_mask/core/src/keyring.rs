//! The keyring: the keys of every mask generation and of the quarantine's seal, as a JSON text.
//!
//! ```json
//! {"format":"pg_mask keyring v1",
//!  "generations":[{"generation":1,"key":"<64 hex digits>","created_at":"<RFC 3339>"}],
//!  "seal":[{"id":1,"key":"<64 hex digits>","created_at":"<RFC 3339>"}]}
//! ```
//! Generations are 1 to n without gaps; the last of each list is the current one. No error here
//! ever holds a part of the text: it could be a key.

use crate::hmac_key::{Hash, HmacKey, hkdf};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

/// What `format` has to say.
pub const FORMAT: &str = "pg_mask keyring v1";

/// HKDF info of the key that makes check values.
const CHECK_INFO: &[u8] = b"pg_mask/v1/check";

/// The keys of one server.
#[derive(Debug)]
pub struct Keyring {
    generations: Vec<Key>,
    seal: Vec<Key>,
}

/// One key: of a mask generation, or of the seal.
pub struct Key {
    number: u32,
    secret: Zeroizing<Hash>,
    created_at: OffsetDateTime,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why a text is no keyring that can be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyringError {
    /// Not JSON, or JSON of another shape.
    #[error("it is not JSON of the expected shape (line {line}, column {column})")]
    Json {
        /// Where reading ended, from 1.
        line: usize,
        /// Where reading ended, from 1.
        column: usize,
    },
    /// `format` says something else.
    #[error("its format is not \"{FORMAT}\"")]
    Format,
    /// There is no key to mask with.
    #[error("it has no generation")]
    NoGenerations,
    /// Generations must be 1, 2, 3 …
    #[error("it has generation {found} where generation {expected} should stand")]
    Order {
        /// The number that should be there.
        expected: u32,
        /// The number that is there.
        found: u32,
    },
    /// Two seal keys with one id, or ids that do not grow.
    #[error("its seal key ids do not grow: {found} follows {before}")]
    SealOrder {
        /// The id before.
        before: u32,
        /// The id that should be larger.
        found: u32,
    },
    /// A key that is not 64 hex digits.
    #[error("the key of {0} is not 64 hex digits")]
    NotHex(Which),
    /// A key that can't be random.
    #[error("the key of {0} is weak: it repeats a single byte")]
    Weak(Which),
    /// A time that is not RFC 3339.
    #[error("created_at of {0} is not an RFC 3339 time")]
    CreatedAt(Which),
    /// The system's clock is before the year 0 or after 9999.
    #[error("the system's clock shows a time that RFC 3339 can't write")]
    Clock,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Masking values: a generation.
    Mask,
    /// Sealing what must be opened again.
    Seal,
}

/// Which key of a keyring. Mask keys come before seal keys, the oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The key of a mask generation.
    Generation(u32),
    /// The seal key with an id.
    Seal(u32),
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generation(number) => write!(f, "generation {number}"),
            Self::Seal(id) => write!(f, "seal key {id}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    generations: Vec<FileGeneration<'a>>,
    #[serde(borrow, default)]
    seal: Vec<FileSeal<'a>>,
}

// Keys are borrowed from the text, which its owner wipes; nothing here is a copy of one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileGeneration<'a> {
    generation: u32,
    key: &'a str,
    created_at: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSeal<'a> {
    id: u32,
    key: &'a str,
    created_at: &'a str,
}

impl File<'_> {
    /// As JSON text. It had `len` bytes before a key was added.
    fn to_text(&self, len: usize) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        // Large enough from the start: a vector that grows leaves copies of keys behind. A text that
        // people have written may be shorter than ours by the escapes in its times.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * len + 1024));
        serde_json::to_writer(&mut *text, self).map_err(|error| KeyringError::json(&error))?;
        text.push(b'\n');
        Ok(text)
    }
}

impl KeyringError {
    fn json(error: &serde_json::Error) -> Self {
        Self::Json { line: error.line(), column: error.column() }
    }
}

impl Keyring {
    /// Reads a keyring from its JSON text.
    pub fn parse(text: &[u8]) -> Result<Self, KeyringError> {
        let file: File<'_> = serde_json::from_slice(text).map_err(|error| KeyringError::json(&error))?;
        if file.format != FORMAT {
            return Err(KeyringError::Format);
        }
        if file.generations.is_empty() {
            return Err(KeyringError::NoGenerations);
        }
        let mut generations = Vec::with_capacity(file.generations.len());
        for (expected, entry) in (1..).zip(&file.generations) {
            if entry.generation != expected {
                return Err(KeyringError::Order { expected, found: entry.generation });
            }
            generations.push(Key::read(Which::Generation(expected), expected, entry.key, entry.created_at)?);
        }
        let mut seal: Vec<Key> = Vec::with_capacity(file.seal.len());
        for entry in &file.seal {
            let before = seal.last().map_or(0, |key| key.number);
            if entry.id <= before {
                return Err(KeyringError::SealOrder { before, found: entry.id });
            }
            seal.push(Key::read(Which::Seal(entry.id), entry.id, entry.key, entry.created_at)?);
        }
        Ok(Self { generations, seal })
    }

    /// Makes a keyring with a fresh random key of each kind, and its JSON text. [`now`] tells the time.
    ///
    /// `created_at` is the time now as RFC 3339 text.
    pub fn generate(created_at: &str) -> Result<(Self, Zeroizing<Vec<u8>>), KeyringError> {
        let mask = random_key_digits()?;
        let seal = random_key_digits()?;
        let file = File {
            format: FORMAT.into(),
            generations: vec![FileGeneration { generation: 1, key: &mask, created_at }],
            seal: vec![FileSeal { id: 1, key: &seal, created_at }],
        };
        let text = file.to_text(0)?;
        Ok((Self::parse(&text)?, text))
    }

    /// The text of a keyring with one more fresh random key, of that kind; and which key it is.
    ///
    /// `created_at` is the time now as RFC 3339 text, from [`now`].
    pub fn with_new_key(
        text: &[u8],
        kind: Kind,
        created_at: &str,
    ) -> Result<(Which, Zeroizing<Vec<u8>>), KeyringError> {
        let grown = Self::parse(text)?; // so that a keyring that is wrong is never written again
        let mut file: File<'_> = serde_json::from_slice(text).map_err(|error| KeyringError::json(&error))?;
        let digits = random_key_digits()?;
        let which = match kind {
            Kind::Mask => {
                let generation = grown.generations.last().map_or(0, |key| key.number) + 1;
                file.generations.push(FileGeneration { generation, key: &digits, created_at });
                Which::Generation(generation)
            }
            Kind::Seal => {
                let id = grown.seal.last().map_or(0, |key| key.number) + 1;
                file.seal.push(FileSeal { id, key: &digits, created_at });
                Which::Seal(id)
            }
        };
        Ok((which, file.to_text(text.len())?))
    }

    /// The keys to mask with, generation 1 first. Never empty.
    pub fn generations(&self) -> &[Key] {
        &self.generations
    }

    /// The seal key with that id.
    pub fn seal(&self, id: u32) -> Option<&Key> {
        self.seal.iter().find(|key| key.number == id)
    }

    /// All seal keys, the oldest first.
    pub fn seals(&self) -> &[Key] {
        &self.seal
    }

    /// All keys, in the order of [`Which`].
    pub fn keys(&self) -> impl Iterator<Item = (Which, &Key)> {
        let generations = self.generations.iter().map(|key| (Which::Generation(key.number), key));
        generations.chain(self.seal.iter().map(|key| (Which::Seal(key.number), key)))
    }
}

impl Key {
    fn read(which: Which, number: u32, digits: &str, created_at: &str) -> Result<Self, KeyringError> {
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, secret.as_mut_slice()).map_err(|_| KeyringError::NotHex(which))?;
        if secret.iter().all(|byte| *byte == secret[0]) {
            return Err(KeyringError::Weak(which));
        }
        let created_at =
            OffsetDateTime::parse(created_at, &Rfc3339).map_err(|_| KeyringError::CreatedAt(which))?;
        Ok(Self { number, secret, created_at })
    }

    /// The generation, or the id of a seal key.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The key itself: only to derive others from.
    pub(crate) fn secret(&self) -> &Hash {
        &self.secret
    }

    /// When the key was made, in microseconds since 1970-01-01 UTC.
    pub fn created_at_unix_micros(&self) -> i64 {
        // RFC 3339 has years 0 to 9999: their microseconds fit.
        self.created_at.unix_timestamp() * 1_000_000 + i64::from(self.created_at.microsecond())
    }

    /// 16 hex digits that tell keys apart and tell nothing of them: the first 8 bytes of
    /// `HMAC-SHA-256(HKDF(key, info "pg_mask/v1/check"), "pg_mask")`.
    pub fn check_value(&self) -> String {
        let key = HmacKey::new(&hkdf(&*self.secret, &[CHECK_INFO]));
        hex::encode(&key.mac(b"pg_mask")[..8])
    }

    /// A key for another purpose, derived from this one.
    pub fn derive(&self, info: &[u8]) -> Zeroizing<Hash> {
        hkdf(&*self.secret, &[info])
    }
}

/// The time now, as a keyring has it.
pub fn now() -> Result<String, KeyringError> {
    OffsetDateTime::now_utc().truncate_to_second().format(&Rfc3339).map_err(|_| KeyringError::Clock)
}

fn random_key_digits() -> Result<Zeroizing<String>, KeyringError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice()).map_err(|_| KeyringError::Random)?;
    Ok(Zeroizing::new(hex::encode(*secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const AT: &str = "2026-11-21T08:00:00Z";

    fn generations(entries: &[(u32, &str, &str)]) -> String {
        let entries: Vec<_> = entries
            .iter()
            .map(|(n, key, at)| format!(r#"{{"generation":{n},"key":"{key}","created_at":"{at}"}}"#))
            .collect();
        format!(r#"{{"format":"{FORMAT}","generations":[{}],"seal":[]}}"#, entries.join(","))
    }

    #[test]
    fn reads_what_it_generates() {
        let (made, text) = Keyring::generate(AT).unwrap();
        let read = Keyring::parse(&text).unwrap();
        assert_eq!(read.generations().len(), 1);
        assert_eq!(read.generations()[0].check_value(), made.generations()[0].check_value());
        assert_eq!(read.seals()[0].number(), 1);
        assert_eq!(read.generations()[0].created_at_unix_micros(), 1_795_248_000_000_000);
    }

    #[test]
    fn generates_other_keys_each_time() {
        let [one, two] = [(); 2].map(|()| Keyring::generate(AT).unwrap().0);
        assert_ne!(one.generations()[0].check_value(), two.generations()[0].check_value());
        assert_ne!(one.generations()[0].check_value(), one.seals()[0].check_value());
    }

    #[test]
    fn says_what_is_wrong_and_no_key() {
        let all_zeros = "00".repeat(32);
        let first = Which::Generation(1);
        for (text, expected) in [
            (String::new(), KeyringError::Json { line: 1, column: 0 }),
            (generations(&[]), KeyringError::NoGenerations),
            (generations(&[(2, KEY, AT)]), KeyringError::Order { expected: 1, found: 2 }),
            (generations(&[(1, KEY, AT), (1, KEY, AT)]), KeyringError::Order { expected: 2, found: 1 }),
            (generations(&[(1, KEY, AT), (3, KEY, AT)]), KeyringError::Order { expected: 2, found: 3 }),
            (generations(&[(1, &KEY[2..], AT)]), KeyringError::NotHex(first)),
            (generations(&[(1, &all_zeros, AT)]), KeyringError::Weak(first)),
            (generations(&[(1, KEY, "yesterday")]), KeyringError::CreatedAt(first)),
            (generations(&[(1, KEY, AT)]).replace("v1", "v2"), KeyringError::Format),
            (
                generations(&[(1, KEY, AT)])
                    .replace("[]", &format!(r#"[{{"id":0,"key":"{KEY}","created_at":"{AT}"}}]"#)),
                KeyringError::SealOrder { before: 0, found: 0 },
            ),
        ] {
            let error = Keyring::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains(&KEY[..8]), "{error}");
        }
        let wrong_type = generations(&[(1, KEY, AT)]).replace(r#""seal":[]"#, &format!(r#""seal":"{KEY}""#));
        let error = Keyring::parse(wrong_type.as_bytes()).unwrap_err();
        assert!(
            matches!(error, KeyringError::Json { .. }) && !error.to_string().contains(&KEY[..8]),
            "{error}"
        );
    }

    #[test]
    fn grows_by_one_key_and_keeps_the_others() {
        let (first, mut text) = Keyring::generate(AT).unwrap();
        for (kind, expected) in [
            (Kind::Mask, Which::Generation(2)),
            (Kind::Seal, Which::Seal(2)),
            (Kind::Mask, Which::Generation(3)),
        ] {
            let before = Keyring::parse(&text).unwrap();
            let (which, grown) = Keyring::with_new_key(&text, kind, AT).unwrap();
            assert_eq!(which, expected);
            let after = Keyring::parse(&grown).unwrap();
            let values = |ring: &Keyring| -> Vec<_> {
                ring.keys().map(|(which, key)| (which, key.check_value())).collect()
            };
            let added: Vec<_> =
                values(&after).into_iter().filter(|entry| !values(&before).contains(entry)).collect();
            assert_eq!(added.iter().map(|(which, _)| *which).collect::<Vec<_>>(), [expected]);
            assert_eq!(values(&after).len(), values(&before).len() + 1);
            text = grown;
        }
        assert_eq!(
            Keyring::parse(&text).unwrap().generations()[0].check_value(),
            first.generations()[0].check_value()
        );
        assert!(Keyring::with_new_key(b"{}", Kind::Mask, AT).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<Vec<u8>>()) {
            let _ = Keyring::parse(&text);
        }

        #[test]
        fn cut_short_is_an_error(cut in 0usize..300) {
            let (_, text) = Keyring::generate(AT).unwrap();
            prop_assert!(Keyring::parse(&text[..cut.min(text.len() - 2)]).is_err());
        }
    }
}
