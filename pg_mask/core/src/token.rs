//! A token's text, taken apart: `m<generation>_<64 lower-case hex digits>`, or the 64 digits of an
//! unsalted SHA-256 from an older pipeline, which is generation 0 (masking contract v1, rule 4).

use crate::hmac_key::Hash;

/// A token of any generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// 0 for an unsalted SHA-256.
    pub generation: u32,
    /// The hash of that generation.
    pub hash: Hash,
}

impl Token {
    /// Reads a token; `None` if `text` is none. Only the form that masking writes is a token:
    /// lower-case digits, no leading zero and no white space.
    pub fn parse(text: &str) -> Option<Self> {
        let (generation, digits) = match text.strip_prefix('m') {
            Some(rest) => {
                let (number, digits) = rest.split_once('_')?;
                (parse_generation(number)?, digits)
            }
            None => (0, text),
        };
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Self { generation, hash })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.generation > 0 {
            write!(f, "m{}_", self.generation)?;
        }
        f.write_str(&hex::encode(self.hash))
    }
}

fn parse_generation(digits: &str) -> Option<u32> {
    let plain =
        digits.starts_with(|c: char| ('1'..='9').contains(&c)) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
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
            &format!("m4294967296_{digits}"),
            &format!("M1_{digits}"),
            &format!("m1_{}", digits.to_uppercase()),
            &format!("m1_{digits}0"),
            &format!(" m1_{digits}"),
        ] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(generation in any::<u32>(), hash in any::<Hash>()) {
            let token = Token { generation, hash };
            prop_assert_eq!(Token::parse(&token.to_string()), Some(token));
        }

        #[test]
        fn writes_what_it_reads(text in "m?[0-9]{0,12}_?[0-9a-fA-F]{0,66}") {
            if let Some(token) = Token::parse(&text) {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
