//! A progress bar, while draining on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use tracing_subscriber::fmt::MakeWriter;

const TEMPLATE: &str = "{bar:40.cyan/blue} {pos}/{len} messages  {rate}  {eta} left";

/// How far a drain has come.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(draining: bool) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        });
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(style);
        Self { bar, shown: draining && std::io::stderr().is_terminal() }
    }

    /// So many messages are left. The bar appears with the first of them.
    pub(crate) fn left(&self, messages: u64) {
        if self.shown && self.bar.is_hidden() && messages > 0 {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(self.bar.position() + messages);
    }

    /// So many more are done.
    pub(crate) fn done(&self, messages: usize) {
        let position = self.bar.position() + messages as u64;
        if self.bar.length().is_some_and(|length| length < position) {
            self.bar.set_length(position);
        }
        self.bar.inc(messages as u64);
    }

    pub(crate) fn finish(&self) {
        let drawn = !self.bar.is_hidden();
        self.bar.finish();
        if drawn {
            eprintln!();
        }
    }

    /// Where log lines go: above the bar.
    pub(crate) fn writer(&self, json: bool) -> LogWriter {
        LogWriter { bar: self.bar.clone(), json }
    }
}

/// Writes to stderr with the bar out of the way.
#[derive(Clone)]
pub(crate) struct LogWriter {
    bar: ProgressBar,
    json: bool,
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if !self.json {
            return self.bar.suspend(|| std::io::stderr().write(line));
        }
        // JSON writers escape the control characters below 0x20 alone.
        let text = String::from_utf8_lossy(line);
        let mut escaped = String::with_capacity(line.len());
        for character in text.chars() {
            match character {
                '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
                _ => escaped.push(character),
            }
        }
        self.bar.suspend(|| std::io::stderr().write_all(escaped.as_bytes()))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
