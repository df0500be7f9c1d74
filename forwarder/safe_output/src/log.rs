//! Log lines with control characters escaped.

use crate::hidden::Hidden;
pub use crate::hidden::Instead;
use std::borrow::Cow;
use std::io::{self, Write};
use tracing::Subscriber;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, fmt::Layer as FmtLayer};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// With colours, for a terminal.
        ansi: bool,
    },
    /// A JSON object a line.
    Json,
}

/// A layer that writes each event as one line; in place of some, a warning that says something else.
pub fn layer<S, W>(format: Format, writer: W, instead: Instead) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Text { ansi } => {
            let fields = debug_fn(write_field).delimited(" ");
            let layer =
                fmt::layer().with_target(false).with_ansi(ansi).fmt_fields(fields).with_writer(writer);
            layer.map_event_format(|format| Hidden { format, instead }).boxed()
        }
        Format::Json => {
            let layer: FmtLayer<S> = fmt::layer();
            let layer = layer.json().flatten_event(true).with_target(false);
            let layer = layer.with_writer(EscapeBeyondAscii(writer));
            layer.map_event_format(|format| Hidden { format, instead }).boxed()
        }
    }
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    let value = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", escaped(&value)),
        name => write!(writer, "{name}={}", escaped(&value)),
    }
}

/// A text with its control characters as Rust writes them: `\n`, `\u{9b}`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Escapes the control characters that writers of JSON leave as they are: those from 0x7f on.
struct EscapeBeyondAscii<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for EscapeBeyondAscii<W> {
    type Writer = EscapeBeyondAscii<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapeBeyondAscii(self.0.make_writer())
    }
}

impl<W: Write> Write for EscapeBeyondAscii<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut escaped = String::with_capacity(line.len());
        for character in text.chars() {
            match character {
                '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
                _ => escaped.push(character),
            }
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of a warning with this text, once as the message and once as a field.
    fn written(format: Format, text: &str, hidden: bool) -> String {
        let page = Page::default();
        let writer = page.clone();
        let instead = |module: &str| module.starts_with("told").then(|| format!("{module} is\nhidden"));
        let layer = layer(format, move || writer.clone(), instead);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            if hidden {
                tracing::error!(target: "told::on", said = text, "{text}");
            } else {
                tracing::warn!(said = text, "{text}");
            }
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nb\r\u{1b}[2J\u{7f}\u{9b}é";

    #[test]
    fn a_text_stays_on_its_line_and_moves_no_cursor() {
        for format in [Format::Text { ansi: false }, Format::Json] {
            let line = written(format, HOSTILE, false);
            let controls: Vec<char> = line.chars().filter(|character| character.is_control()).collect();
            assert_eq!(controls, ['\n'], "{line}");
            assert!(line.ends_with('\n') && line.contains('é'), "{line}");
        }
    }

    #[test]
    fn a_json_line_says_what_was_said() {
        let line: serde_json::Value = serde_json::from_str(&written(Format::Json, HOSTILE, false)).unwrap();
        assert_eq!((line["message"].as_str(), line["said"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
        assert_eq!(line["level"], "WARN");
    }

    #[test]
    fn a_hidden_event_is_another_line_in_its_place() {
        let line: serde_json::Value = serde_json::from_str(&written(Format::Json, "x17", true)).unwrap();
        assert_eq!(line["message"], "told::on is\nhidden");
        assert_eq!((&line["level"], &line["said"]), (&"WARN".into(), &serde_json::Value::Null));
        let line = written(Format::Text { ansi: false }, "x17", true);
        assert!(line.ends_with("WARN told::on is\\nhidden\n") && !line.contains("x17"), "{line}");
    }
}
