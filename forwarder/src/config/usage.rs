//! Errors of the command line and of variables. They never show what was given: a secret may have been put
//! in the wrong place, and logs keep what processes print.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};
use std::error::Error as _;

/// What a value should have been.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Expected(pub(crate) &'static str);

/// The error without what was given.
pub(crate) fn without_values(error: Error, command: &mut Command) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    // Of these only the first two have in `InvalidArg` what was given, and not the name of a flag.
    let what = match error.kind() {
        ErrorKind::UnknownArgument => "an argument is not known".to_owned(),
        ErrorKind::InvalidSubcommand => "a subcommand is not known".to_owned(),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::TooManyValues => {
            format!("the value of {} can't be used", text(ContextKind::InvalidArg).unwrap_or_default())
        }
        // Help, versions, and what is said of flags alone.
        _ => return error,
    };
    let expected = match error.source().and_then(|source| source.downcast_ref::<Expected>()) {
        Some(expected) => Some(expected.to_string()),
        None => text(ContextKind::ValidValue).map(|values| format!("one of {values}")),
    };
    let hint = match (expected, text(ContextKind::SuggestedArg).or(text(ContextKind::SuggestedSubcommand))) {
        (Some(expected), _) => format!(": it has to be {expected}"),
        (None, Some(similar)) => format!("; a similar one is {similar}"),
        (None, None) => String::new(),
    };
    command.error(error.kind(), format!("{what}{hint}"))
}
