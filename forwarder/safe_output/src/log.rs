//! Log lines with control characters escaped.

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

/// A layer that writes each event as one line.
pub fn layer<S, W>(format: Format, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    match format {
        Format::Text { ansi } => {
            let fields = debug_fn(write_field).delimited(" ");
            fmt::layer().with_target(false).with_ansi(ansi).fmt_fields(fields).with_writer(writer).boxed()
        }
        Format::Json => {
            let layer: FmtLayer<S> = fmt::layer();
            layer.json().flatten_event(true).with_target(false).with_writer(EscapeBeyondAscii(writer)).boxed()
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
    fn written(format: Format, text: &str) -> String {
        let page = Page::default();
        let writer = page.clone();
        let layer = layer(format, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(said = text, "{text}");
        });
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nb\r\u{1b}[2J\u{7f}\u{9b}é";

    #[test]
    fn a_text_stays_on_its_line_and_moves_no_cursor() {
        for format in [Format::Text { ansi: false }, Format::Json] {
            let line = written(format, HOSTILE);
            let controls: Vec<char> = line.chars().filter(|character| character.is_control()).collect();
            assert_eq!(controls, ['\n'], "{line}");
            assert!(line.ends_with('\n') && line.contains('é'), "{line}");
        }
    }

    #[test]
    fn a_json_line_says_what_was_said() {
        let line: serde_json::Value = serde_json::from_str(&written(Format::Json, HOSTILE)).unwrap();
        assert_eq!((line["message"].as_str(), line["said"].as_str()), (Some(HOSTILE), Some(HOSTILE)));
        assert_eq!(line["level"], "WARN");
    }
}
