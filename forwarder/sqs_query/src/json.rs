//! AWS JSON: how large the SDK will find a document, which reads it all into memory.

use crate::error::Error;
use crate::limits::{DEPTH, VALUES};

/// Counts a JSON document's values and depth before it is read into memory. Whether it is JSON at all is
/// left to what reads it.
pub(crate) fn check(document: &[u8]) -> Result<(), Error> {
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
        assert_eq!(check(list(VALUES / 2 - 2).as_bytes()), Ok(()));
        assert_eq!(check(list(VALUES).as_bytes()), Err(Error::TooManyValues));
        // What is in a string is no value.
        let text = format!("{{\"Body\":\"{}\\\"{}\"}}", "[,{".repeat(VALUES), "]".repeat(VALUES));
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert_eq!(check("[".repeat(DEPTH).as_bytes()), Ok(()));
        assert_eq!(check("[".repeat(DEPTH + 1).as_bytes()), Err(Error::TooDeep));
        for odd in [&b""[..], b"]]]]", b"\"", b"\"\\", b"\xff\xff", b"{}{}"] {
            assert_eq!(check(odd), Ok(()));
        }
    }
}
