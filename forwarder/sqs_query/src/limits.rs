//! How large an answer may be, and how long it may take. No SQS comes near these limits; they are for
//! servers that are broken or hostile.

use crate::error::Error;
use std::time::Duration;

/// The most bytes of an answer: ten messages of 1 MiB (SQS developer guide, "Amazon SQS message quotas"),
/// with each character written in the longest way that JSON and XML have, six bytes.
pub(crate) const BYTES: usize = 64 << 20;
/// An answer that does not say its length, as SQS's all do, is read beside others up to this; what is
/// larger is read one at a time.
pub(crate) const UNANNOUNCED_BYTES: usize = 1 << 20;
/// How long an answer may take from its first byte to its last.
pub(crate) const TIME: Duration = Duration::from_secs(30);
/// The most values or elements of an answer. A message of SQS has less than a hundred, with all attributes,
/// and an answer has ten messages. Values take much more memory than the bytes that they are written in.
pub(crate) const VALUES: usize = 4096;
/// How deep an answer may be nested. SQS's are five deep.
pub(crate) const DEPTH: usize = 16;

/// Counts a JSON document's values and depth before it is read into memory. Whether it is JSON at all is
/// left to what reads it.
pub(crate) fn check_json(document: &[u8]) -> Result<(), Error> {
    let (mut values, mut depth) = (1, 0_usize);
    let mut bytes = document.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b',' => values += 1,
            b'{' | b'[' => {
                values += 1;
                depth += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > VALUES {
            return Err(Error::TooManyValues);
        }
        if depth > DEPTH {
            return Err(Error::TooDeep);
        }
    }
    Ok(())
}

/// Moves behind the quotation mark that ends a string.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_depth_of_json_are_counted() {
        let list = |length: usize| format!("{{\"Messages\":[{}]}}", vec!["{}"; length].join(","));
        assert_eq!(check_json(list(VALUES / 2 - 2).as_bytes()), Ok(()));
        assert_eq!(check_json(list(VALUES).as_bytes()), Err(Error::TooManyValues));
        // What is in a string is no value.
        let text = format!("{{\"Body\":\"{}\\\"{}\"}}", "[,{".repeat(VALUES), "]".repeat(VALUES));
        assert_eq!(check_json(text.as_bytes()), Ok(()));
        assert_eq!(check_json("[".repeat(DEPTH).as_bytes()), Ok(()));
        assert_eq!(check_json("[".repeat(DEPTH + 1).as_bytes()), Err(Error::TooDeep));
        for odd in [&b""[..], b"]]]]", b"\"", b"\"\\", b"\xff\xff", b"{}{}"] {
            assert_eq!(check_json(odd), Ok(()));
        }
    }
}
