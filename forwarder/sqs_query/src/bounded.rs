//! A text that is written anew for the SDK, within the limit that the answer itself had. A control character takes six
//! bytes in JSON and one in a server's answer, which may have been one of nothing else.

use crate::error::Error;
use crate::limits;
use std::io;

/// Bytes up to [`limits::BYTES`], in no more memory than that.
#[derive(Debug, Default)]
pub(crate) struct Bounded(Vec<u8>);

impl Bounded {
    /// Appends these, if there is room for them.
    pub(crate) fn push(&mut self, more: &[u8]) -> Result<(), Error> {
        let size = self.0.len() + more.len();
        if size > limits::BYTES {
            return Err(Error::TooLarge(limits::BYTES));
        }
        if size > self.0.capacity() {
            let capacity = (2 * self.0.capacity()).clamp(size, limits::BYTES);
            self.0.reserve_exact(capacity - self.0.len());
        }
        self.0.extend_from_slice(more);
        Ok(())
    }

    /// Appends a text as the inside of a string in JSON (RFC 8259, section 7).
    pub(crate) fn push_escaped(&mut self, text: &str) -> Result<(), Error> {
        let mut rest = text.as_bytes();
        while let Some(plain) = rest.iter().position(|byte| matches!(byte, 0..b' ' | b'"' | b'\\')) {
            self.push(&rest[..plain])?;
            match rest[plain] {
                byte @ (b'"' | b'\\') => self.push(&[b'\\', byte])?,
                byte => self.push(format!("\\u{byte:04x}").as_bytes())?,
            }
            rest = &rest[plain + 1..];
        }
        self.push(rest)
    }

    /// What was written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        self.push(more).map_err(io::Error::other)?;
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json_and_has_a_limit() {
        let text: String = ('\0'..'\u{100}').chain("😀\u{2028}".chars()).collect();
        let mut bounded = Bounded::default();
        bounded.push_escaped(&text).unwrap();
        let inside = String::from_utf8(bounded.into_bytes()).unwrap();
        assert_eq!(serde_json::from_str::<String>(&format!("\"{inside}\"")).unwrap(), text);

        let mut bounded = Bounded::default();
        bounded.push(&vec![b' '; limits::BYTES - 6]).unwrap();
        bounded.push_escaped("\u{1}").unwrap();
        assert_eq!(bounded.push(b" "), Err(Error::TooLarge(limits::BYTES)));
        let bytes = bounded.into_bytes();
        assert_eq!((bytes.len(), bytes.capacity()), (limits::BYTES, limits::BYTES));
    }
}
