//! A token's text, taken apart: `m<generation>_<64 lower-case hex digits>`, or the 64 digits of an
//! unsalted SHA-256 from an older pipeline, which is generation 0 (masking contract v1, rule 4).

use crate::hmac_key::Hash;

/// The most digits of a generation.
const LONGEST_GENERATION: usize = "2147483647".len();

/// A token of any generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// 0 for an unsalted SHA-256.
    pub generation: u32,
    /// The hash of that generation.
    pub hash: Hash,
}

impl Token {
    /// Reads a token; `None` if `text` is none. Of generation 1 and later, only the form that masking
    /// writes is a token: lower-case digits, no leading zero and no white space. An unsalted SHA-256 may
    /// have upper-case digits, as some pipelines write it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::parse_older(text, u32::MAX)
    }

    /// Reads a token of a generation before `generation`; `None` for anything else. The digits of later
    /// tokens are not looked at: as a rule, all that is stored is in use.
    #[inline]
    pub fn parse_older(text: &[u8], generation: u32) -> Option<Self> {
        let (found, digits) = split(text)?;
        if found >= generation || (found > 0 && digits.iter().any(u8::is_ascii_uppercase)) {
            return None;
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Self { generation: found, hash })
    }
}

/// The generation that a text claims, and what should be 64 digits.
#[inline]
fn split(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = text.strip_prefix(b"m") else { return Some((0, text)) };
    let end = rest.iter().take(LONGEST_GENERATION + 1).position(|byte| *byte == b'_')?;
    Some((parse_generation(&rest[..end])?, &rest[end + 1..]))
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.generation > 0 {
            write!(f, "m{}_", self.generation)?;
        }
        f.write_str(&hex::encode(self.hash))
    }
}

/// 1 to 2147483647, what an SQL integer holds.
fn parse_generation(digits: &[u8]) -> Option<u32> {
    let is_plain = matches!(digits, [b'1'..=b'9', ..]) && digits.iter().all(u8::is_ascii_digit);
    let number: i32 = std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()?;
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_all_other_forms() {
        let digits = "5f".repeat(32);
        for text in [
            "",
            "m",
            "m1",
            "m1_",
            "5f",
            &format!("m0_{digits}"),
            &format!("m01_{digits}"),
            &format!("m+1_{digits}"),
            &format!("m2147483648_{digits}"),
            &format!("m99999999999999999999_{digits}"),
            &format!("M1_{digits}"),
            &format!("m1_{}", digits.to_uppercase()),
            &format!("m1_{digits}0"),
            &format!(" m1_{digits}"),
        ] {
            assert_eq!(Token::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(generation in 0..=i32::MAX as u32, hash in any::<Hash>()) {
            let token = Token { generation, hash };
            prop_assert_eq!(Token::parse(token.to_string().as_bytes()), Some(token));
            let sha256 = hex::encode_upper(hash);
            prop_assert_eq!(Token::parse(sha256.as_bytes()), Some(Token { generation: 0, hash }));
        }

        #[test]
        fn writes_what_it_reads(text in "m?[0-9]{0,12}_?[0-9a-fA-F]{0,66}") {
            if let Some(token) = Token::parse(text.as_bytes()) {
                let text = if token.generation == 0 { text.to_ascii_lowercase() } else { text };
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
