//! How answers are written.

pub(super) fn attribute(name: &str, value: &str) -> String {
    format!("<Attribute><Name>{name}</Name><Value>{value}</Value></Attribute>")
}

pub(super) fn document(root: &str, content: &str) -> String {
    let namespace = "http://queue.amazonaws.com/doc/2012-11-05/";
    format!("<?xml version=\"1.0\"?>\n<{root} xmlns=\"{namespace}\">{content}</{root}>\n")
}

pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#xD;"),
            other => escaped.push(other),
        }
    }
    escaped
}
