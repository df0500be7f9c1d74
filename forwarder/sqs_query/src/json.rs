//! AWS JSON: how large the SDK will find a document, which reads it all into memory.

use crate::error::Error;
use crate::limits::{DEPTH, UNCOUNTED_BYTES, VALUES};

/// Counts a JSON document's values and depth before it is read into memory. Whether it is JSON at all is
/// left to what reads it.
pub(crate) fn check(document: &[u8]) -> Result<(), Error> {
    if document.len() <= UNCOUNTED_BYTES {
        return Ok(());
    }
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

    /// As it is counted where it is long.
    fn long(document: &str) -> Result<(), Error> {
        check(format!("{document}{}", " ".repeat(UNCOUNTED_BYTES)).as_bytes())
    }

    #[test]
    fn values_and_depth_of_long_documents_are_counted() {
        let list = |length: usize| format!("{{\"Messages\":[{}]}}", vec!["{}"; length].join(","));
        assert_eq!(long(&list(VALUES / 2 - 2)), Ok(()));
        assert_eq!(long(&list(VALUES)), Err(Error::TooManyValues));
        // What is in a string is no value.
        let text = format!("{{\"Body\":\"{}\\\"{}\"}}", "[,{".repeat(VALUES), "]".repeat(VALUES));
        assert_eq!(long(&text), Ok(()));
        assert_eq!(long(&"[".repeat(DEPTH)), Ok(()));
        assert_eq!(long(&"[".repeat(DEPTH + 1)), Err(Error::TooDeep));
        for odd in ["", "]]]]", "\"", "\"\\", "{}{}"] {
            assert_eq!(long(odd), Ok(()));
        }
    }
}
