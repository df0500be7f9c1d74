//! Errors with what caused them.

/// The texts of an error and of its causes, from the top down.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// An error and its causes in one line. A cause that the text above it has already is left out.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let add = |text: String, cause: String| match text.contains(&cause) {
        true => text,
        false => format!("{text}: {cause}"),
    };
    causes(error).into_iter().reduce(add).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_is_told_once() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let refused = layer("connection refused", None);
        let connecting = layer("can't connect: connection refused", Some(refused));
        let error = layer("the server is away", Some(connecting));
        assert_eq!(causes(&error).len(), 3);
        assert_eq!(with_causes(&error), "the server is away: can't connect: connection refused");
    }
}
