//! A progress bar while draining, on a terminal; nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use tracing_subscriber::fmt::MakeWriter;

const TEMPLATE: &str = "{bar:40.cyan/blue} {pos}/{len} messages  {per_sec}  {eta} left";

/// How far a drain has come.
#[derive(Clone)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(shown: bool) -> Self {
        let target = if shown && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::with_draw_target(Some(0), target).with_style(style))
    }

    /// So many messages are left, beside those that are done.
    pub(crate) fn left(&self, messages: u64) {
        self.0.set_length(self.0.position() + messages);
    }

    /// So many more are done.
    pub(crate) fn done(&self, messages: usize) {
        let position = self.0.position() + messages as u64;
        if self.0.length().is_some_and(|length| length < position) {
            self.0.set_length(position);
        }
        self.0.inc(messages as u64);
    }

    pub(crate) fn finish(&self) {
        self.0.finish();
    }

    /// Where log lines go: above the bar.
    pub(crate) fn writer(&self) -> LogWriter {
        LogWriter(self.0.clone())
    }
}

/// Writes to stderr with the bar out of the way.
#[derive(Clone)]
pub(crate) struct LogWriter(ProgressBar);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write(line))
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
