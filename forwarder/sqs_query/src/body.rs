//! Bodies that are no text.
//!
//! SQS refuses a body that is not Unicode text. Not every server that speaks its protocols does: one hands out
//! what it was given, be it half of a surrogate pair (`\ud800`), bytes that are no UTF-8, or a control character
//! as it is. The SDK can't read an answer with such a string in it, so one body would keep all others of the
//! queue back. Therefore such a string is read here, and the SDK is given a text that stands for it: a mark that
//! no other text begins with, and the bytes in hexadecimal. [`Body::of`] brings them back.
//!
//! Half of a surrogate pair has three bytes then, as UTF-8 would write it (WTF-8).

use crate::bounded::Bounded;
use crate::error::Error;
use std::sync::LazyLock;

/// What the texts begin with that stand for bytes. It is another one in each process.
static MARK: LazyLock<String> = LazyLock::new(|| crate::random_id() + ":");

/// A message's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As SQS has it.
    Text(String),
    /// No Unicode text, byte for byte.
    Bytes(Vec<u8>),
}

impl Body {
    /// The body of a message that the SDK gave.
    #[must_use]
    pub fn of(text: String) -> Self {
        match text.strip_prefix(MARK.as_str()).and_then(bytes) {
            Some(bytes) => Self::Bytes(bytes),
            None => Self::Text(text),
        }
    }

    /// Its bytes, whatever it is.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The text that stands for a body: itself if it is one.
pub(crate) fn stand_in(body: Vec<u8>) -> String {
    String::from_utf8(body).unwrap_or_else(|error| {
        let body = error.as_bytes();
        let mut text = String::with_capacity(MARK.len() + 2 * body.len());
        text.push_str(&MARK);
        text.extend(body.iter().flat_map(|byte| digits(*byte)).map(char::from));
        text
    })
}

/// A byte in hexadecimal.
fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)])
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(byte).collect()
}

/// An answer in JSON with strings that the SDK can read; `None` if it can read them as they are. It has the limit that
/// the answer had. Whether it is JSON at all is left to the SDK.
pub(crate) fn mend(document: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    if !is_suspicious(document) {
        return Ok(None);
    }
    let mut mended = Bounded::default();
    let (mut is_mended, mut is_key_body) = (false, false);
    let mut rest = document;
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        mended.push(&rest[..start])?;
        rest = &rest[start..];
        // The last string has no end: the SDK may say what it thinks of that.
        let Some(length) = length_of_string(&rest[1..]) else { break };
        let (string, after) = rest[1..].split_at(length);
        rest = &after[1..];
        let is_key = rest.trim_ascii_start().starts_with(b":");
        mended.push(b"\"")?;
        if is_plain(string) {
            mended.push(string)?;
        } else {
            write_mended(&mut mended, &read(string), is_key_body && !is_key)?;
            is_mended = true;
        }
        mended.push(b"\"")?;
        is_key_body = is_key && string == b"Body";
    }
    mended.push(rest)?;
    Ok(is_mended.then(|| mended.into_bytes()))
}

/// The inside of a string that means these bytes: for a body, the text that stands for them; else a name, or
/// something that people read.
fn write_mended(mended: &mut Bounded, bytes: &[u8], is_body: bool) -> Result<(), Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => mended.push_escaped(text),
        Err(_) if is_body => {
            mended.push(MARK.as_bytes())?;
            bytes.iter().try_for_each(|byte| mended.push(&digits(*byte)))
        }
        Err(_) => bytes.utf8_chunks().try_for_each(|chunk| {
            mended.push_escaped(chunk.valid())?;
            let replacement = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
            mended.push(replacement.as_bytes())
        }),
    }
}

/// Whether there may be a string that the SDK can't read. Each answer is looked at, so the loops have no exit:
/// the compiler makes them compare many bytes at once.
fn is_suspicious(document: &[u8]) -> bool {
    let control = document.iter().fold(false, |found, byte| found | (*byte < b' '));
    let [second, third] = [1, 2].map(|start| document.get(start..).unwrap_or_default());
    let surrogate = document.iter().zip(second).zip(third).fold(false, |found, ((first, second), third)| {
        found | ((*first == b'\\') & (*second == b'u') & third.eq_ignore_ascii_case(&b'd'))
    });
    control | surrogate || std::str::from_utf8(document).is_err()
}

/// How far it is to the quotation mark that ends a string.
fn length_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether the SDK can read the inside of a string.
fn is_plain(string: &[u8]) -> bool {
    if std::str::from_utf8(string).is_err() {
        return false;
    }
    let mut at = 0;
    while let Some(byte) = string.get(at) {
        at += match byte {
            0..b' ' => return false,
            b'\\' => match escape(&string[at..]) {
                Some((Escaped::Character(_), length)) => length,
                _ => return false,
            },
            _ => 1,
        };
    }
    true
}

/// The bytes that the inside of a string means.
fn read(string: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(string.len());
    let mut at = 0;
    while let Some(byte) = string.get(at) {
        let escaped = if *byte == b'\\' { escape(&string[at..]) } else { None };
        at += match escaped {
            Some((Escaped::Character(character), length)) => {
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                length
            }
            Some((Escaped::Half(unit), length)) => {
                bytes.extend_from_slice(&half_in_bytes(unit));
                length
            }
            // Itself; so is an escape that JSON does not know.
            None => {
                bytes.push(*byte);
                1
            }
        };
    }
    bytes
}

/// What an escape means.
enum Escaped {
    Character(char),
    /// Half of a surrogate pair, alone.
    Half(u16),
}

/// The escape that `text` begins with, and how long it is; `None` if JSON knows none such (RFC 8259, section 7).
fn escape(text: &[u8]) -> Option<(Escaped, usize)> {
    let character = match text.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text)?;
            let second = text.get(6..).and_then(unit);
            let units = [Some(first), second];
            return match char::decode_utf16(units.into_iter().flatten()).next()? {
                Ok(character) => Some((Escaped::Character(character), 6 * character.len_utf16())),
                Err(half) => Some((Escaped::Half(half.unpaired_surrogate()), 6)),
            };
        }
        _ => return None,
    };
    Some((Escaped::Character(character), 2))
}

/// The four digits after `\u`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

/// Half of a surrogate pair, as UTF-8 would write a character of that number.
pub(crate) fn half_in_bytes(unit: u16) -> [u8; 3] {
    let low = |shift: u16| 0x80 | (unit >> shift & 0x3f) as u8;
    [0xe0 | (unit >> 12) as u8, low(6), low(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bodies of a mended answer.
    fn bodies(answer: &[u8]) -> Vec<Body> {
        let mended = mend(answer).unwrap().unwrap_or_else(|| answer.to_owned());
        let answer: serde_json::Value = serde_json::from_slice(&mended).unwrap();
        let messages = answer["Messages"].as_array().unwrap();
        messages.iter().map(|message| Body::of(message["Body"].as_str().unwrap().to_owned())).collect()
    }

    fn in_answer(body: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 3] = [
            b"{\"Messages\":[{\"Body\" : \"before\"},{\"MessageId\":\"1\",\"Body\" :\n \"",
            body,
            b"\",\"ReceiptHandle\":\"h\"},{\"Body\":\"after\"}]}",
        ];
        parts.concat()
    }

    #[test]
    fn what_is_no_text_comes_as_bytes_and_its_neighbours_as_they_are() {
        let text = |text: &str| Body::Text(text.to_owned());
        let cases: [(&[u8], Body); 14] = [
            (br"a\ud800b", Body::Bytes(b"a\xed\xa0\x80b".to_vec())),
            (br"\udfff", Body::Bytes(b"\xed\xbf\xbf".to_vec())),
            (br"\uD83D\uD83D\uDE00\n", Body::Bytes([b"\xed\xa0\xbd", "😀\n".as_bytes()].concat())),
            (br"\uDE00\uD83D", Body::Bytes(b"\xed\xb8\x80\xed\xa0\xbd".to_vec())),
            (b"\xff\\\"\xc3", Body::Bytes(b"\xff\"\xc3".to_vec())),
            (b"\xed\xa0\x80", Body::Bytes(b"\xed\xa0\x80".to_vec())),
            (b"a\nb\0c", text("a\nb\0c")),
            (br"\ud83d\ude00", text("😀")),
            (br"{\u0022x\u0022:\u0022\\ud800\u0022}", text(r#"{"x":"\ud800"}"#)),
            (br#"\"Body\":\"\\ud800\""#, text(r#""Body":"\ud800""#)),
            (b"\\x\\ud80\x01", text("\\x\\ud80\u{1}")),
            (br"\ud8000", Body::Bytes(b"\xed\xa0\x800".to_vec())),
            (b"", text("")),
            ("ä\\u00e4".as_bytes(), text("ää")),
        ];
        for (body, expected) in cases {
            let expected = [text("before"), expected, text("after")];
            assert_eq!(bodies(&in_answer(body)), expected, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_the_sdk_can_read_is_left_alone() {
        for answer in [
            r#"{"Messages":[]}"#,
            "{\n\t\"Messages\" : [ ]\r\n}",
            r#"{"Body":"\ud83d\ude00 \\ud800"}"#,
            "",
            "\"",
            "\"\\",
            "\"\\u",
            "<html>\n",
        ] {
            assert_eq!(mend(answer.as_bytes()), Ok(None), "{answer}");
        }
        assert_eq!(
            mend(b"{\"Message\":\"\xff\",\"x\xff\":1}").unwrap().unwrap(),
            "{\"Message\":\"\u{fffd}\",\"x\u{fffd}\":1}".as_bytes()
        );
        // The last string has no end: the SDK says what it thinks of it.
        assert_eq!(
            mend(b"{\"a\":\"\\ud800\",\"b").unwrap().unwrap(),
            "{\"a\":\"\u{fffd}\u{fffd}\u{fffd}\",\"b".as_bytes()
        );
    }

    #[test]
    fn only_its_own_mark_makes_bytes_of_a_text() {
        let mark = MARK.as_str();
        assert_eq!(Body::of(stand_in(b"\xff\x00".to_vec())), Body::Bytes(b"\xff\x00".to_vec()));
        for text in [
            "",
            "ff",
            &mark[1..],
            &format!("{mark}f"),
            &format!("{mark}+f"),
            &format!("{mark}xx"),
            &format!(" {mark}ff"),
        ] {
            assert_eq!(Body::of(text.to_owned()), Body::Text(text.to_owned()), "{text}");
        }
    }

    const PIECES: [&[u8]; 13] = [
        b"a",
        b"\\",
        b"\\u",
        b"d800",
        b"\\ud800",
        b"\\udc00",
        b"\\n",
        b"\xff",
        b"\xc3\xa4",
        b"\0",
        b"\\\"",
        b"\\\\",
        b"+",
    ];

    proptest! {
        #[test]
        fn whatever_the_string_its_neighbours_are_read(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12)) {
            let body = pieces.concat();
            // A backslash at the end would escape the quotation mark behind.
            if length_of_string(&[&body[..], b"\""].concat()) == Some(body.len()) {
                let found = bodies(&in_answer(&body));
                prop_assert_eq!(&found[0], &Body::Text("before".to_owned()));
                prop_assert_eq!(&found[2], &Body::Text("after".to_owned()));
                let bytes = match &found[1] { Body::Text(text) => text.as_bytes(), Body::Bytes(bytes) => bytes };
                prop_assert_eq!(bytes, read(&body));
            }
        }
    }
}
