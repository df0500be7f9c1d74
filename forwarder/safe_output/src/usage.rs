//! Errors of the command line and of variables. They never show what was given: a secret may have been put
//! in the wrong place, and logs keep what processes print.

use bytesize::ByteSize;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};
use std::error::Error as _;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a value should have been.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Expected(pub String);

/// The error of a command without what was given.
pub fn without_values(error: Error, command: &mut Command) -> Error {
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

/// A parser of whole numbers within a range.
pub fn number(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, Expected> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| Expected(format!("{} to {}", range.start(), range.end())))
    }
}

/// A parser of sizes in bytes, as in `8 MiB`. A size out of the range is not what is expected.
pub fn size(
    range: RangeInclusive<usize>,
    expected: &'static str,
) -> impl Fn(&str) -> Result<usize, Expected> + Clone {
    move |text| {
        let size = text.parse::<ByteSize>();
        let size = size.map_err(|_| Expected("a size, as in 8MiB or 500kB".to_owned()))?;
        let size = usize::try_from(size.as_u64()).ok().filter(|size| range.contains(size));
        size.ok_or_else(|| Expected(expected.to_owned()))
    }
}

/// A parser of times, as in `500ms`. A time out of the range is not what is expected.
pub fn time(
    range: RangeInclusive<Duration>,
    expected: &'static str,
) -> impl Fn(&str) -> Result<Duration, Expected> + Clone {
    move |text| {
        let time = humantime::parse_duration(text);
        let time = time.map_err(|_| Expected("a time, as in 500ms, 30s or 2h".to_owned()))?;
        range.contains(&time).then_some(time).ok_or_else(|| Expected(expected.to_owned()))
    }
}

/// A parser of times of any length.
pub fn any_time() -> impl Fn(&str) -> Result<Duration, Expected> + Clone {
    time(Duration::ZERO..=Duration::MAX, "a time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    /// What is said where a flag is given this value.
    fn said(arg: Arg, given: &str) -> String {
        let mut command = Command::new("program").arg(arg.long("flag").id("flag"));
        let given = command.try_get_matches_from_mut(["program", &format!("--flag={given}")]);
        given.map_or_else(|error| without_values(error, &mut command).to_string(), |_| "good".to_owned())
    }

    #[test]
    fn parsers_take_what_is_in_range_and_say_what_they_expect() {
        let number = || Arg::new("").value_parser(number(1..=100));
        let size = || Arg::new("").value_parser(size(1..=1 << 20, "1 B to 1 MiB"));
        let time = || Arg::new("").value_parser(time(Duration::ZERO..=Duration::from_secs(60), "a minute"));
        for (arg, given) in [(number(), "100"), (size(), "1 MiB"), (size(), "7"), (time(), "60s")] {
            assert_eq!(said(arg, given), "good", "{given}");
        }
        for (arg, given, expected) in [
            (number(), "0", "1 to 100"),
            (number(), "x17", "1 to 100"),
            (size(), "2MiB", "1 B to 1 MiB"),
            (size(), "x17", "a size, as in"),
            (time(), "61s", "a minute"),
            (time(), "x17", "a time, as in"),
        ] {
            let said = said(arg, given);
            assert!(
                said.contains(&format!("--flag <flag> can't be used: it has to be {expected}")),
                "{said}"
            );
            assert!(!said.contains("x17"), "{said}");
        }
    }

    #[test]
    fn what_was_given_is_not_shown_and_what_is_similar_is() {
        let mut command = Command::new("program").arg(Arg::new("flag").long("database-url"));
        for given in ["hunter2", "--hunter2", "--databse-url=hunter2"] {
            let error = command.try_get_matches_from_mut(["program", given]).unwrap_err();
            let said = without_values(error, &mut command).to_string();
            assert!(said.contains("an argument is not known") && !said.contains("hunter2"), "{said}");
        }
    }
}
