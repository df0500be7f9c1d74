//! A small XML document in memory, with every character of its texts as the server meant it.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// SQS's answers are five elements deep; what is much deeper is none.
const DEEPEST: usize = 16;

/// An element, its texts and its children. Attributes and prefixes mean nothing in SQS's answers.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// Says no more, for the document may hold a message's body.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("the answer is no XML, or cut short")]
pub(crate) struct Malformed;

impl From<quick_xml::Error> for Malformed {
    fn from(_: quick_xml::Error) -> Self {
        Self
    }
}

impl Element {
    /// Reads a whole document.
    pub(crate) fn parse(document: &[u8]) -> Result<Self, Malformed> {
        let document = std::str::from_utf8(document).map_err(|_| Malformed)?;
        let mut reader = Reader::from_str(document.trim_start_matches('\u{feff}'));
        reader.config_mut().expand_empty_elements = true;
        // The first stands for the document itself.
        let mut open = vec![Self::default()];
        loop {
            let inside = open.last_mut().ok_or(Malformed)?;
            match reader.read_event()? {
                Event::Start(tag) => {
                    let name = tag.local_name().as_ref().to_owned();
                    open.push(Self { name, ..Self::default() });
                    if open.len() > DEEPEST {
                        return Err(Malformed);
                    }
                }
                Event::End(_) => {
                    let closed = open.pop().ok_or(Malformed)?;
                    open.last_mut().ok_or(Malformed)?.children.push(closed);
                }
                // Line ends stay as they are: a server that means "\r\n" may send it bare.
                Event::Text(text) => inside.text.push_str(&text),
                Event::CData(text) => inside.text.push_str(&text),
                Event::GeneralRef(reference) => match reference.resolve_char_ref()? {
                    Some(character) => inside.text.push(character),
                    None => inside.text.push_str(resolve_xml_entity(&reference).ok_or(Malformed)?),
                },
                Event::Eof => break,
                Event::Decl(_) | Event::DocType(_) | Event::PI(_) | Event::Comment(_) => {}
                Event::Empty(_) => return Err(Malformed), // these come as a start and an end
            }
        }
        let mut whole = open.pop().ok_or(Malformed)?;
        match (whole.children.pop(), open.is_empty() && whole.text.trim().is_empty()) {
            (Some(root), true) if whole.children.is_empty() => Ok(root),
            _ => Err(Malformed),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: &str) -> Result<String, Malformed> {
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
    fn what_is_no_whole_document_is_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;'>]><a>&c;</a>";
        let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
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
            "<a>&#0;</a>",
            "<a>&#xD800;</a>",
            "<a>&#x110000;</a>",
            "<a>& b</a>",
            "<a>&am",
            "<a/><b/>",
            "<a/>tail",
            "<a",
            "<a><![CDATA[x</a>",
            "<!doctype html><html><body><br></body></html>",
            bomb,
            &deep,
        ] {
            assert_eq!(text(document), Err(Malformed), "{}", &document[..document.len().min(60)]);
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(Malformed));
    }
}
