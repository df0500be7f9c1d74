//! Reports of what is wrong while it lasts: the same text once a minute at most.

use crate::error::Error;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Which texts were logged when.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<HashMap<String, Instant>>);

impl Reports {
    /// Logs an error that is waited out, unless the same was logged within the last minute.
    pub(crate) fn waiting_out(&self, error: &Error) {
        let text = error.to_string();
        if !self.is_news(&text) {
            return;
        }
        if error.kind.may_pass() {
            tracing::warn!("{text}; trying again");
        } else {
            tracing::error!("{text} (trying again; this needs somebody to set it right)");
        }
    }

    /// Logs a warning, unless the same was logged within the last minute.
    pub(crate) fn once_in_a_while(&self, text: &str) {
        if self.is_news(text) {
            tracing::warn!("{text}");
        }
    }

    fn is_news(&self, text: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        said.retain(|_, at| at.elapsed() < AGAIN_AFTER);
        !said.contains_key(text) && said.insert(text.to_owned(), Instant::now()).is_none()
    }
}
