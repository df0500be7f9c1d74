//! Which protocol is spoken, and what a server's answers say about it.

use crate::{Choice, Protocol};
use std::sync::{Mutex, PoisonError};

/// The protocol that is spoken with one server, for all calls alike.
#[derive(Debug)]
pub struct Negotiation {
    choice: Choice,
    now: Mutex<Now>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Now {
    protocol: Protocol,
    /// The server has answered in it.
    understood: bool,
}

/// What an answer tells about the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sign {
    /// It answers in this protocol.
    Speaks(Protocol),
    /// HTTP 500 and nothing said: so old LocalStack answers what it doesn't understand, but others may
    /// have their own reasons.
    Baffled,
    /// Nothing: a gateway's error page, for example.
    None,
}

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// Hand it on.
    HandOn,
    /// Ask again at once, in the other protocol.
    AskAgain,
    /// Not the protocol that was chosen.
    WrongChoice,
}

impl Negotiation {
    /// Nothing has been heard yet.
    pub fn new(choice: Choice) -> Self {
        let protocol = if choice == Choice::Query { Protocol::Query } else { Protocol::Json };
        Self { choice, now: Mutex::new(Now { protocol, understood: false }) }
    }

    /// Whether the server decides.
    pub(crate) fn is_automatic(&self) -> bool {
        self.choice == Choice::Auto
    }

    /// What to speak.
    pub fn protocol(&self) -> Protocol {
        self.now().protocol
    }

    /// Whether the server has answered in this protocol, and it is spoken still.
    pub(crate) fn is_understood(&self, protocol: Protocol) -> bool {
        *self.now() == Now { protocol, understood: true }
    }

    /// Takes in what the answer to a request in `asked` tells.
    ///
    /// A clear sign counts always: servers are replaced. Being baffled counts as long as nothing has been
    /// understood, and a trial of the other protocol that isn't understood either is over at once, so that
    /// a server that is just starting is not misjudged.
    pub(crate) fn hear(&self, asked: Protocol, sign: Sign) -> Verdict {
        let mut now = self.now();
        let understood = now.understood && now.protocol == asked;
        let fixed = !self.is_automatic();
        match sign {
            Sign::Speaks(protocol) if fixed && protocol != asked => Verdict::WrongChoice,
            Sign::Baffled if fixed && !understood => Verdict::WrongChoice,
            Sign::Speaks(protocol) => {
                let fresh = Now { protocol, understood: true };
                if *now != fresh && !fixed && protocol == Protocol::Query {
                    tracing::info!(
                        "the server doesn't speak AWS JSON: speaking SQS's Query protocol with it"
                    );
                }
                *now = fresh;
                if protocol == asked { Verdict::HandOn } else { Verdict::AskAgain }
            }
            // Another call has found out meanwhile.
            _ if now.protocol != asked => Verdict::AskAgain,
            Sign::Baffled if !understood && asked == Protocol::Json => {
                now.protocol = Protocol::Query;
                Verdict::AskAgain
            }
            _ => {
                if !understood && !fixed {
                    now.protocol = Protocol::Json;
                }
                Verdict::HandOn
            }
        }
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol::{Json, Query};
    use super::Sign::{Baffled, Speaks};
    use super::Verdict::{AskAgain, HandOn, WrongChoice};
    use super::*;

    /// What each sign leads to, one after the other, each the answer to what is spoken then.
    fn course(choice: Choice, signs: &[Sign]) -> Vec<(Protocol, Verdict)> {
        let negotiation = Negotiation::new(choice);
        let hear = |sign: &Sign| {
            let asked = negotiation.protocol();
            (asked, negotiation.hear(asked, *sign))
        };
        signs.iter().map(hear).collect()
    }

    #[test]
    fn a_query_only_server_is_found_out_at_once_and_for_good() {
        let signs = [Baffled, Speaks(Query), Sign::None, Baffled, Speaks(Query)];
        let expected = [(Json, AskAgain), (Query, HandOn), (Query, HandOn), (Query, HandOn), (Query, HandOn)];
        assert_eq!(course(Choice::Auto, &signs), expected);
        assert_eq!(course(Choice::Auto, &[Speaks(Query), Baffled])[..], [(Json, AskAgain), (Query, HandOn)]);
    }

    #[test]
    fn a_json_server_with_a_bad_moment_is_not_misjudged() {
        // At the start: one trial of the other protocol, and back.
        for other in [Baffled, Sign::None] {
            let signs = [Baffled, other, Speaks(Json), Baffled];
            let expected = [(Json, AskAgain), (Query, HandOn), (Json, HandOn), (Json, HandOn)];
            assert_eq!(course(Choice::Auto, &signs), expected);
        }
        // It says that it doesn't understand Query.
        let expected = [(Json, AskAgain), (Query, AskAgain), (Json, HandOn)];
        assert_eq!(course(Choice::Auto, &[Baffled, Speaks(Json), Baffled]), expected);
        // Later on.
        let expected = [(Json, HandOn), (Json, HandOn), (Json, HandOn)];
        assert_eq!(course(Choice::Auto, &[Speaks(Json), Baffled, Sign::None]), expected);
    }

    #[test]
    fn a_server_that_is_replaced_by_another_kind_is_followed() {
        let signs = [Speaks(Json), Speaks(Query), Speaks(Query), Speaks(Json), Speaks(Json)];
        let expected = [(Json, HandOn), (Json, AskAgain), (Query, HandOn), (Query, AskAgain), (Json, HandOn)];
        assert_eq!(course(Choice::Auto, &signs), expected);
    }

    #[test]
    fn calls_that_are_under_way_when_the_protocol_changes_ask_again() {
        let negotiation = Negotiation::new(Choice::Auto);
        assert_eq!(negotiation.hear(Json, Baffled), AskAgain);
        assert_eq!(negotiation.hear(Json, Baffled), AskAgain);
        assert_eq!(negotiation.hear(Query, Speaks(Query)), HandOn);
        assert_eq!(negotiation.hear(Json, Baffled), AskAgain);
        assert_eq!(negotiation.protocol(), Query);
    }

    #[test]
    fn what_was_chosen_stays() {
        assert_eq!(course(Choice::Json, &[Baffled, Speaks(Query)]), [(Json, WrongChoice); 2]);
        assert_eq!(course(Choice::Json, &[Speaks(Json), Baffled]), [(Json, HandOn); 2]);
        assert_eq!(course(Choice::Query, &[Baffled, Speaks(Json)]), [(Query, WrongChoice); 2]);
        assert_eq!(course(Choice::Query, &[Sign::None, Speaks(Query), Baffled]), [(Query, HandOn); 3]);
    }
}
