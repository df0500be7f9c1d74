//! A small XML document in memory, with every character of its texts as the server meant it.

use crate::body::half_in_bytes;
use crate::error::Error;
use crate::limits::{DEPTH, VALUES};
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// An element, its texts and its children. Attributes and prefixes mean nothing in SQS's answers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    /// The text as bytes, if it is none: a server may write half of a surrogate pair, or a NUL. Then `text` is
    /// empty.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) children: Vec<Element>,
}

impl From<quick_xml::Error> for Error {
    fn from(_: quick_xml::Error) -> Self {
        Self::Malformed
    }
}

impl Element {
    /// Reads a whole document. Memory is bounded by the document's size: an element takes a hundred bytes
    /// beside its text, and there are not many of them.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, Error> {
        let document = std::str::from_utf8(document).map_err(|_| Error::Malformed)?;
        let mut reader = Reader::from_str(document.trim_start_matches('\u{feff}'));
        reader.config_mut().expand_empty_elements = true;
        // The first stands for the document itself.
        let mut open = vec![Self::default()];
        let mut elements = 0;
        loop {
            let inside = open.last_mut().ok_or(Error::Malformed)?;
            match reader.read_event()? {
                Event::Start(tag) => {
                    elements += 1;
                    if elements > VALUES {
                        return Err(Error::TooManyValues);
                    }
                    if open.len() > DEPTH {
                        return Err(Error::TooDeep);
                    }
                    let name = tag.local_name().as_ref().to_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::End(_) => {
                    let closed = open.pop().ok_or(Error::Malformed)?;
                    open.last_mut().ok_or(Error::Malformed)?.children.push(closed);
                }
                // Line ends stay as they are: a server that means "\r\n" may send it bare.
                Event::Text(text) => inside.push(text.as_bytes()),
                Event::CData(text) => inside.push(text.as_bytes()),
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(character)) => inside.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
                    Ok(None) => {
                        inside.push(resolve_xml_entity(&reference).ok_or(Error::Malformed)?.as_bytes());
                    }
                    // XML can't have these, and what stands for them must not keep the other messages back.
                    Err(_) => match number(&reference).ok_or(Error::Malformed)? {
                        0 => inside.push(b"\0"),
                        unit @ 0xd800..=0xdfff => inside.push(&half_in_bytes(unit)),
                        _ => return Err(Error::Malformed),
                    },
                },
                Event::Eof => break,
                Event::Decl(_) | Event::DocType(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Empty(_) => return Err(Error::Malformed), // these come as a start and an end
            }
        }
        let mut whole = open.pop().ok_or(Error::Malformed)?;
        match (whole.children.pop(), open.is_empty() && whole.text.trim().is_empty()) {
            (Some(root), true) if whole.children.is_empty() => Ok(root),
            _ => Err(Error::Malformed),
        }
    }

    fn push(&mut self, more: &[u8]) {
        match (&mut self.bytes, std::str::from_utf8(more)) {
            (None, Ok(more)) => self.text.push_str(more),
            (bytes, _) => {
                bytes
                    .get_or_insert_with(|| std::mem::take(&mut self.text).into_bytes())
                    .extend_from_slice(more);
            }
        }
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of this name, without the space around it.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }
}

/// The number of a character that a reference names.
fn number(reference: &str) -> Option<u16> {
    let digits = reference.strip_prefix('#')?;
    let (digits, radix) = digits.strip_prefix(['x', 'X']).map_or((digits, 10), |digits| (digits, 16));
    u16::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(document: &str) -> Result<String, Error> {
        Element::parse(document.as_bytes()).map(|root| root.text)
    }

    #[test]
    fn every_way_to_write_a_character() {
        assert_eq!(text("<a>&lt;&gt;&amp;&quot;&apos;</a>").unwrap(), "<>&\"'");
        assert_eq!(text("<a>&#65;&#x42;&#x1F600;\u{1F600}&#xD;&#10;\t</a>").unwrap(), "AB😀😀\r\n\t");
        assert_eq!(text("<a>x<![CDATA[<&amp;>]]>y<!-- z --></a>").unwrap(), "x<&amp;>y");
        assert_eq!(text("<a>]]]]><![CDATA[>]]></a>").unwrap(), "]]]]>>");
        assert_eq!(text("<a>  kept \r\n </a>").unwrap(), "  kept \r\n ");
        assert_eq!(text("<a/>").unwrap(), "");
        assert_eq!(text("\u{feff}<?xml version='1.0'?>\n<s:a xmlns:s='urn:x'>t</s:a>\n").unwrap(), "t");
    }

    #[test]
    fn what_no_text_of_xml_has_comes_as_bytes() {
        let root = Element::parse(b"<a>x&#0;y&#xD800;<![CDATA[z]]>&#57343;&lt;</a>").unwrap();
        assert_eq!(root.text, "");
        assert_eq!(root.bytes.unwrap(), b"x\0y\xed\xa0\x80z\xed\xbf\xbf<");
    }

    #[test]
    fn what_is_no_whole_document_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;'>]><a>&c;</a>";
        for document in [
            "",
            " ",
            "text",
            "{}",
            "<a>",
            "<a><b></a>",
            "<a></b>",
            "</a>",
            "<a>&nbsp;</a>",
            "<a>&#x110000;</a>",
            "<a>&#x;</a>",
            "<a>&#-1;</a>",
            "<a>& b</a>",
            "<a>&am",
            "<a/><b/>",
            "<a/>tail",
            "<a",
            "<a><![CDATA[x</a>",
            "<!doctype html><html><body><br></body></html>",
            bomb,
        ] {
            assert_eq!(text(document), Err(Error::Malformed), "{}", &document[..document.len().min(60)]);
        }
        let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
        assert_eq!(text(&deep), Err(Error::TooDeep));
        let many = format!("<a>{}</a>", "<b/>".repeat(200_000));
        assert_eq!(text(&many), Err(Error::TooManyValues));
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(Error::Malformed));
    }

    /// How many elements a tree has, and how many bytes its names and texts.
    fn weight(element: &Element) -> (usize, usize) {
        element.children.iter().map(weight).fold(
            (1, element.name.len() + element.text.len()),
            |(elements, bytes), (more_elements, more_bytes)| (elements + more_elements, bytes + more_bytes),
        )
    }

    /// Pieces that answers are made of, some of them broken.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: [&[u8]; 31] = [
            b"<ReceiveMessageResponse>",
            b"</ReceiveMessageResponse>",
            b"<ReceiveMessageResult>",
            b"</ReceiveMessageResult>",
            b"<s:Message a='1' b=\"2\">",
            b"</s:Message>",
            b"<Body>",
            b"</Body>",
            b"<Attribute><Name>a</Name><Value>b</Value></Attribute>",
            b"<ErrorResponse><Error><Code>c</Code></Error></ErrorResponse>",
            b"<a/>",
            b"<a><a><a><a><a><a><a><a>",
            b"&lt;&#65;&#x1F600;",
            b"&#0;",
            b"&#xFFFFFFFFFF;",
            b"&nbsp;",
            b"&",
            b"<![CDATA[<&]]>",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"-->",
            b"<?xml version='1.0'?>",
            b"<?",
            b"<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'>]>",
            b"\xef\xbb\xbf",
            b"\xff",
            b"<",
            b">",
            b"\"",
            b" text\r\n",
        ];
        let piece = prop::sample::select(&PIECES[..]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// A document of a megabyte can't take a gigabyte.
        #[test]
        fn a_tree_is_no_larger_than_its_document(document in pieces(), times in 1_usize..200) {
            for document in [document.clone(), [b"<a>", &document.repeat(times)[..], b"</a>"].concat()] {
                let Ok(root) = Element::parse(&document) else { continue };
                let (elements, bytes) = weight(&root);
                prop_assert!(elements <= VALUES && bytes <= document.len());
                let _ = crate::answer::read(&document);
            }
        }
    }
}
