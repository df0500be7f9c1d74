//! Three hundred messages to show what the system does: shared addresses and devices, one address in
//! many spellings, nulls, nested events, an envelope, and three that are no logins. All addresses are
//! of the documentation ranges (RFC 5737, RFC 3849). `docker compose up` sends the same ones.

/// How many messages there are.
pub const MESSAGES: usize = 300;
/// How many of them are no logins.
pub const BAD: usize = 3;

/// The message bodies.
pub fn bodies() -> Vec<String> {
    include_str!("../data/sample-logins.jsonl").lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_as_many_as_they_say() {
        assert_eq!(bodies().len(), MESSAGES);
    }
}
