//! A progress bar, while draining on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{IsTerminal, Write};
use tracing_subscriber::fmt::MakeWriter;

const TEMPLATE: &str = "{bar:40.cyan/blue} {pos}/{len} messages  {rate}  {eta} left";

/// How far a drain has come.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Shown while draining, if stderr is a terminal.
    #[must_use]
    pub fn new(draining: bool) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        });
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(style);
        Self { bar, shown: draining && std::io::stderr().is_terminal() }
    }

    /// So many messages are left. The bar appears with the first of them.
    pub fn left(&self, messages: u64) {
        if self.shown && self.bar.is_hidden() && messages > 0 {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(self.bar.position() + messages);
    }

    /// So many more are done.
    pub fn done(&self, messages: usize) {
        let position = self.bar.position() + messages as u64;
        if self.bar.length().is_some_and(|length| length < position) {
            self.bar.set_length(position);
        }
        self.bar.inc(messages as u64);
    }

    /// The bar stays as it is.
    pub fn finish(&self) {
        let drawn = !self.bar.is_hidden();
        self.bar.finish();
        if drawn {
            eprintln!();
        }
    }

    /// Where log lines go: above the bar.
    pub fn writer(&self) -> impl for<'w> MakeWriter<'w> + Send + Sync + 'static {
        let bar = self.bar.clone();
        move || LogWriter(bar.clone())
    }
}

/// Writes to stderr with the bar out of the way.
struct LogWriter(ProgressBar);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write(line))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
