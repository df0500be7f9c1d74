//! Between the network and tokio-postgres: listens to what the server says, as far as that has to be
//! known before tokio-postgres acts on it.
//!
//! tokio-postgres answers whatever authentication a server asks for, and keeps a message in memory until
//! it is whole; it keeps each setting that a server reports, and asks for each type that it does not know. Here a way of
//! authentication that is not allowed ends the connection before anything is answered (`require_auth`), and so does an answer
//! that is too large, or that no server of ours gives. Messages: PostgreSQL manual, "Message Formats". Each has a byte for its
//! type and four for its length.

use crate::require_auth::{Method, RequireAuth};
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_postgres::types::Type;

/// Why a connection is given up.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Objection {
    #[error("asks for authentication by {0}, which require_auth does not allow")]
    Method(Method),
    #[error("asks for no authentication, which require_auth does not allow")]
    NoAuthentication,
    #[error("asks for a password")]
    NoPassword,
    #[error("sent an answer of more than {} MiB, and the connection was closed", .0 >> 20)]
    TooLong(usize),
    #[error("sent an answer of more than {MOST_MESSAGES} messages, and the connection was closed")]
    TooMany,
    #[error("reports more settings than a PostgreSQL server has, and the connection was closed")]
    TooManySettings,
    #[error(
        "answers with a type that is not PostgreSQL's own (object id {0}), and the connection was closed"
    )]
    UnknownType(u32),
    #[error("does not speak PostgreSQL's protocol")]
    NotPostgres,
}

/// Messages from one ReadyForQuery to the next: statements here give few rows.
const MOST_MESSAGES: usize = 10_000;
/// Settings that a server reports: PostgreSQL 18 has fifteen, and a pooler may add some.
const MOST_SETTINGS: usize = 100;
/// Bytes of a message that describes a result, or reports a setting.
const MOST_DESCRIBED: usize = 64 << 10;

/// What is asked of the server.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) require_auth: RequireAuth,
    pub(crate) has_password: bool,
    /// The most bytes of a message, and of all messages from one ReadyForQuery to the next.
    pub(crate) answer_limit: usize,
}

/// A connection that is listened to.
pub(crate) struct Wire<S> {
    inner: S,
    listener: Listener,
}

impl<S> Wire<S> {
    /// Listens to a server from its first message on. The objection, if there will be one, is kept where
    /// others can see it: tokio-postgres reports a connection that is lost with a statement under way as
    /// closed and says no more.
    pub(crate) fn new(inner: S, terms: Terms, objection: Arc<OnceLock<Objection>>) -> Self {
        Self { inner, listener: Listener::new(terms, objection) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let heard = self.listener.hear(&buffer.filled()[before..]);
        Poll::Ready(
            heard.map_err(|objection| std::io::Error::new(std::io::ErrorKind::InvalidData, objection)),
        )
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Wire<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

const HEADER: usize = 5;
/// The code of an authentication message, the first four bytes of its content.
const CODE: usize = 4;

#[derive(Debug)]
struct Listener {
    terms: Terms,
    objection: Arc<OnceLock<Objection>>,
    phase: Phase,
    /// The header of the message under way and as much of its content as matters, as far as they have come.
    start: Vec<u8>,
    /// So many bytes of its content matter.
    matters: usize,
    /// So much of the message under way is still to come after its header.
    left: usize,
    /// So many bytes came since the last ReadyForQuery, and so many messages.
    since_ready: usize,
    messages: usize,
    /// The names of settings that the server has reported.
    settings: HashSet<Vec<u8>>,
}

#[derive(Debug, PartialEq)]
enum Phase {
    /// The server has not let us in, and asked for this so far.
    Authentication(Method),
    /// It lets us in, but has not said yet that it is ready.
    Starting,
    Ready,
}

impl Listener {
    fn new(terms: Terms, objection: Arc<OnceLock<Objection>>) -> Self {
        Self {
            terms,
            objection,
            phase: Phase::Authentication(Method::None),
            start: Vec::with_capacity(HEADER + CODE),
            matters: 0,
            left: 0,
            since_ready: 0,
            messages: 0,
            settings: HashSet::new(),
        }
    }

    /// Takes in the next bytes that came.
    fn hear(&mut self, mut bytes: &[u8]) -> Result<(), Objection> {
        while let Some((first, rest)) = bytes.split_first() {
            let is_header = self.start.len() < HEADER;
            if is_header || (self.start.len() < HEADER + self.matters && self.left > 0) {
                self.start.push(*first);
                bytes = rest;
                if !is_header {
                    self.left -= 1;
                } else if self.start.len() == HEADER {
                    self.begin().map_err(|objection| self.object(objection))?;
                }
            } else {
                let size = self.left.min(bytes.len());
                self.left -= size;
                bytes = &bytes[size..];
            }
            if self.start.len() >= HEADER && self.left == 0 {
                self.end().map_err(|objection| self.object(objection))?;
                self.start.clear();
            }
        }
        Ok(())
    }

    fn object(&self, objection: Objection) -> Objection {
        self.objection.get_or_init(|| objection).clone()
    }

    /// A message's header is here.
    fn begin(&mut self) -> Result<(), Objection> {
        let [tag, length @ ..] = &self.start[..] else { return Ok(()) };
        let length = length.iter().fold(0, |length: usize, byte| length << 8 | usize::from(*byte));
        // What a server of another protocol says first has no type of a message that begins a connection.
        if matches!(self.phase, Phase::Authentication(_)) && !b"RENv".contains(tag) {
            return Err(Objection::NotPostgres);
        }
        self.left = length.checked_sub(4).ok_or(Objection::NotPostgres)?;
        self.matters = match tag {
            b'R' => CODE,
            b'S' | b'T' | b't' if self.left > MOST_DESCRIBED => {
                return Err(Objection::TooLong(self.terms.answer_limit));
            }
            b'S' | b'T' | b't' => self.left,
            _ => 0,
        };
        // These come at any time and are not kept, once the connection is ready.
        let passes = self.phase == Phase::Ready && b"NSA".contains(tag);
        let size = length + 1;
        let all = if passes { size } else { self.since_ready.saturating_add(size) };
        if all > self.terms.answer_limit {
            return Err(Objection::TooLong(self.terms.answer_limit));
        }
        if !passes {
            self.since_ready = all;
            self.messages += 1;
        }
        if self.messages > MOST_MESSAGES { Err(Objection::TooMany) } else { Ok(()) }
    }

    /// A message is whole.
    fn end(&mut self) -> Result<(), Objection> {
        let content = &self.start[HEADER..];
        match (self.start[0], &self.phase) {
            (b'R', Phase::Authentication(asked)) => self.phase = self.authentication(*asked)?,
            (b'Z', Phase::Starting | Phase::Ready) => {
                self.phase = Phase::Ready;
                self.since_ready = 0;
                self.messages = 0;
            }
            (b'S', _) => {
                let name = content.split(|byte| *byte == 0).next().unwrap_or_default();
                self.settings.insert(name.to_owned());
                if self.settings.len() > MOST_SETTINGS {
                    return Err(Objection::TooManySettings);
                }
            }
            (b'T', _) => are_known(result_types(content))?,
            (b't', _) => are_known(parameter_types(content))?,
            _ => {}
        }
        Ok(())
    }

    fn authentication(&self, asked: Method) -> Result<Phase, Objection> {
        let code = self.start[HEADER..].iter().fold(0, |code: u32, byte| code << 8 | u32::from(*byte));
        let asks = match code {
            0 if self.terms.require_auth.allows(asked) => return Ok(Phase::Starting),
            0 => return Err(Objection::NoAuthentication),
            // Steps of what is under way.
            8 | 11 | 12 => return Ok(Phase::Authentication(asked)),
            3 => Method::Password,
            5 => Method::Md5,
            7 => Method::Gss,
            9 => Method::Sspi,
            10 => Method::Scram,
            _ => Method::Other,
        };
        if !self.terms.require_auth.allows(asks) {
            return Err(Objection::Method(asks));
        }
        let wants_password = matches!(asks, Method::Password | Method::Md5 | Method::Scram);
        if wants_password && !self.terms.has_password {
            return Err(Objection::NoPassword);
        }
        Ok(Phase::Authentication(asks))
    }
}

/// Of a RowDescription: each column has a name that ends with a zero, and then 18 bytes with the type's object id after six.
fn result_types(content: &[u8]) -> Option<Vec<u32>> {
    let (columns, mut rest) = content.split_first_chunk()?;
    let mut types = Vec::new();
    for _ in 0..u16::from_be_bytes(*columns) {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (column, after) = rest[end + 1..].split_first_chunk::<18>()?;
        types.push(u32::from_be_bytes(*column[6..].first_chunk()?));
        rest = after;
    }
    Some(types)
}

/// Of a ParameterDescription.
fn parameter_types(content: &[u8]) -> Option<Vec<u32>> {
    let (_, types) = content.split_first_chunk::<2>()?;
    Some(types.as_chunks().0.iter().map(|id| u32::from_be_bytes(*id)).collect())
}

/// tokio-postgres asks the server for others, and for those that these consist of, without an end.
fn are_known(types: Option<Vec<u32>>) -> Result<(), Objection> {
    match types.ok_or(Objection::NotPostgres)?.into_iter().find(|id| Type::from_oid(*id).is_none()) {
        Some(unknown) => Err(Objection::UnknownType(unknown)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
        [&[tag][..], &length, content].concat()
    }

    fn asks(code: u32) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat())
    }

    fn let_in() -> Vec<u8> {
        [message(b'R', &[0; 4]), message(b'S', b"a\0b\0"), message(b'Z', b"I")].concat()
    }

    /// What becomes of a server that says this, byte by byte and in one go alike.
    fn heard(require_auth: &str, has_password: bool, said: &[u8]) -> Result<Phase, Objection> {
        let require_auth = match require_auth {
            "" => RequireAuth::Any,
            list => RequireAuth::read(list).unwrap(),
        };
        let terms = Terms { require_auth, has_password, answer_limit: LIMIT };
        let listen = |pieces: &[&[u8]]| {
            let mut listener = Listener::new(terms.clone(), Arc::default());
            pieces.iter().try_for_each(|piece| listener.hear(piece)).map(|()| listener.phase)
        };
        let pieces: Vec<&[u8]> = said.chunks(1).collect();
        let (whole, in_pieces) = (listen(&[said]), listen(&pieces));
        assert_eq!(whole, in_pieces);
        whole
    }

    #[test]
    fn authentication_is_as_require_auth_says() {
        let in_by = |code| [asks(code), asks(11), asks(12), let_in()].concat();
        let (scram, password, nothing) = (in_by(10), in_by(3), let_in());
        for (list, said, expected) in [
            ("", &nothing, Ok(Phase::Ready)),
            ("", &password, Ok(Phase::Ready)),
            ("scram-sha-256", &scram, Ok(Phase::Ready)),
            ("scram-sha-256", &password, Err(Objection::Method(Method::Password))),
            ("scram-sha-256", &nothing, Err(Objection::NoAuthentication)),
            ("none", &nothing, Ok(Phase::Ready)),
            ("none", &scram, Err(Objection::Method(Method::Scram))),
            ("!password", &password, Err(Objection::Method(Method::Password))),
            ("!password", &scram, Ok(Phase::Ready)),
            ("!none", &nothing, Err(Objection::NoAuthentication)),
        ] {
            assert_eq!(heard(list, true, said), expected, "{list}");
        }
        assert_eq!(heard("", false, &scram), Err(Objection::NoPassword));
        assert_eq!(heard("", false, &nothing), Ok(Phase::Ready));
    }

    /// A server that never ended a message filled the memory.
    #[test]
    fn answers_have_a_largest_size() {
        let row = message(b'D', &vec![0; LIMIT / 4]);
        let fits = [let_in(), row.repeat(3), message(b'Z', b"I"), row.repeat(3)].concat();
        assert_eq!(heard("", true, &fits), Ok(Phase::Ready));
        let over = [let_in(), row.repeat(4)].concat();
        assert_eq!(heard("", true, &over), Err(Objection::TooLong(LIMIT)));
        let endless = [let_in(), vec![b'D', 0x7f, 0xff, 0xff, 0xff]].concat();
        assert_eq!(heard("", true, &endless), Err(Objection::TooLong(LIMIT)));
        // Before the connection is ready, notices are kept.
        let notices = message(b'N', &vec![0; LIMIT / 4]).repeat(5);
        assert_eq!(heard("", true, &notices), Err(Objection::TooLong(LIMIT)));
        assert_eq!(heard("", true, &[let_in(), notices].concat()), Ok(Phase::Ready));
    }

    /// Many small messages, each of which is kept in a multiple of its size.
    #[test]
    fn answers_have_a_largest_number_of_messages() {
        let row = message(b'D', b"\0\0");
        let fits = [let_in(), row.repeat(MOST_MESSAGES - 1), message(b'Z', b"I"), row.repeat(9)].concat();
        assert_eq!(heard("", true, &fits), Ok(Phase::Ready));
        let over = [let_in(), row.repeat(MOST_MESSAGES + 1)].concat();
        assert_eq!(heard("", true, &over), Err(Objection::TooMany));
    }

    /// Each is kept by its name as long as the connection lives.
    #[test]
    fn a_server_reports_so_many_settings() {
        let reported = |n: usize| message(b'S', format!("setting{n}\0on\0").as_bytes());
        let again = [let_in(), (0..2 * MOST_SETTINGS).flat_map(|n| reported(n % 50)).collect()].concat();
        assert_eq!(heard("", true, &again), Ok(Phase::Ready));
        let over = [let_in(), (0..2 * MOST_SETTINGS).flat_map(reported).collect()].concat();
        assert_eq!(heard("", true, &over), Err(Objection::TooManySettings));
        let large = [let_in(), message(b'S', &vec![b'x'; MOST_DESCRIBED + 1])].concat();
        assert_eq!(heard("", true, &large), Err(Objection::TooLong(LIMIT)));
    }

    /// Of other types tokio-postgres asks what they are made of, and of these again.
    #[test]
    fn results_have_types_of_postgresql() {
        let column =
            |id: u32| [&b"name\0"[..], &[0; 6], &id.to_be_bytes(), &[0, 4], &[255; 4], &[0, 1]].concat();
        let result =
            |ids: [u32; 2]| message(b'T', &[&2_u16.to_be_bytes()[..], &ids.map(column).concat()].concat());
        let parameters = |ids: [u32; 2]| {
            message(b't', &[&2_u16.to_be_bytes()[..], &ids.map(u32::to_be_bytes).concat()].concat())
        };
        for describe in [&result as &dyn Fn([u32; 2]) -> Vec<u8>, &parameters] {
            let own = [let_in(), describe([Type::INT8.oid(), Type::TEXT_ARRAY.oid()])].concat();
            assert_eq!(heard("", true, &own), Ok(Phase::Ready));
            let others = [let_in(), describe([Type::INT8.oid(), 16_384])].concat();
            assert_eq!(heard("", true, &others), Err(Objection::UnknownType(16_384)));
        }
        let cut = [let_in(), message(b'T', &[0, 1, b'n'])].concat();
        assert_eq!(heard("", true, &cut), Err(Objection::NotPostgres));
    }

    #[test]
    fn other_protocols_are_found_out() {
        for said in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"SSH-2.0-OpenSSH\r\n", b"R\0\0\0\x03"] {
            assert_eq!(heard("", true, said), Err(Objection::NotPostgres));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(said in any::<Vec<u8>>(), ready in any::<bool>()) {
            let said = if ready { [let_in(), said].concat() } else { said };
            let _ = heard("", true, &said);
        }
    }
}
