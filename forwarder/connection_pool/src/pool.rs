//! The pool, its connections, and how their users fare.

use crate::Manager;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

/// While other connections work, opening one that failed is tried again after so long.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The connections, and how their users fare.
pub struct Pool<M: Manager> {
    manager: M,
    most: usize,
    state: watch::Sender<State<M>>,
}

struct State<M: Manager> {
    idle: Vec<M::Connection>,
    in_use: usize,
    /// How many of those in use are so by users that don't fail.
    trusted: usize,
    opening: usize,
    /// While other connections work, none is opened before this.
    open_at: Option<Instant>,
    /// The users whose last attempt failed, and why it did.
    failing: BTreeMap<u64, M::Reason>,
    last_failure: u64,
}

impl<M: Manager> State<M> {
    /// Whether a connection works, as far as is known.
    fn works(&self) -> bool {
        self.failing.is_empty() || self.trusted > 0 || self.idle.iter().any(|idle| !M::is_closed(idle))
    }
}

/// A connection in use. It is closed when this is dropped, unless it is given back.
pub struct InUse<M: Manager> {
    /// The connection.
    pub connection: M::Connection,
    place: Place<M>,
}

/// What a connection in use counts for in the state, until this is dropped.
struct Place<M: Manager> {
    pool: Arc<Pool<M>>,
    trusted: bool,
}

/// A user whose last attempt failed, until this is dropped.
#[must_use]
pub struct Failing<M: Manager> {
    pool: Arc<Pool<M>>,
    number: u64,
}

/// How the users of a pool fare at one moment.
#[derive(Debug)]
pub struct Snapshot<R> {
    /// Whether a connection works, as far as is known.
    pub works: bool,
    /// Whether a user that does not fail has a connection.
    pub in_good_use: bool,
    /// Why users fail that do.
    pub failing: Vec<R>,
}

impl<M: Manager> Pool<M> {
    /// A pool of `most` connections, of which one is open.
    pub fn new(manager: M, most: usize, first: M::Connection) -> Self {
        let state = State {
            idle: vec![first],
            in_use: 0,
            trusted: 0,
            opening: 0,
            open_at: None,
            failing: BTreeMap::new(),
            last_failure: 0,
        };
        Self { manager, most, state: watch::Sender::new(state) }
    }

    /// What opens its connections.
    pub fn manager(&self) -> &M {
        &self.manager
    }

    /// A connection that is idle, or else a new one. If none can be opened, waits for one that works; only
    /// where none is in use, the error is returned. Other errors are told. `failing` says whether this user's
    /// last attempt failed.
    pub async fn take(
        self: &Arc<Self>,
        failing: bool,
        tell: impl Fn(&M::Error),
    ) -> Result<InUse<M>, M::Error> {
        let mut state = self.state.subscribe();
        let mut opening: Option<JoinHandle<Result<(), M::Error>>> = None;
        loop {
            let open_at = state.borrow_and_update().open_at.filter(|at| *at > Instant::now());
            if let Some(in_use) = self.take_idle(failing) {
                return Ok(in_use);
            }
            if opening.is_none() && self.may_open() {
                // By itself: it is of use to others, if this user gets another connection meanwhile.
                opening = Some(tokio::spawn(self.clone().open()));
            }
            let opened = async {
                match &mut opening {
                    Some(opening) => opening.await,
                    None => std::future::pending().await,
                }
            };
            let opened = tokio::select! {
                _ = state.changed() => continue,
                () = sleep_until(open_at.unwrap_or_else(Instant::now)), if open_at.is_some() => continue,
                opened = opened => opened,
            };
            opening = None;
            match opened.map_err(JoinError::try_into_panic) {
                Ok(Err(error)) if self.state.borrow().in_use == 0 => return Err(error),
                Ok(Err(error)) => tell(&error),
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // It was opened; or the runtime ends, and this task with it.
                Ok(Ok(())) | Err(Err(_)) => {}
            }
        }
    }

    fn take_idle(self: &Arc<Self>, failing: bool) -> Option<InUse<M>> {
        let mut taken = None;
        self.state.send_if_modified(|state| {
            state.idle.retain(|idle| !M::is_closed(idle));
            taken = state.idle.pop();
            state.in_use += usize::from(taken.is_some());
            state.trusted += usize::from(taken.is_some() && !failing);
            taken.is_some()
        });
        let place = || Place { pool: self.clone(), trusted: !failing };
        taken.map(|connection| InUse { connection, place: place() })
    }

    /// Takes a place for one more connection, if there is one.
    fn may_open(&self) -> bool {
        self.state.send_if_modified(|state| {
            let none = state.idle.is_empty() && state.in_use == 0;
            let may = state.idle.len() + state.in_use + state.opening < self.most
                && (none || state.open_at.is_none_or(|at| at <= Instant::now()));
            state.opening += usize::from(may);
            may
        })
    }

    /// Opens a connection, which is idle then.
    async fn open(self: Arc<Self>) -> Result<(), M::Error> {
        let _opening = Opening(&self);
        let opened = self.manager.open().await;
        let (opened, result) = match opened {
            Ok(connection) => (Some(connection), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.state.send_modify(|state| {
            state.open_at = opened.is_none().then(|| Instant::now() + OPEN_AGAIN_AFTER);
            state.idle.extend(opened);
        });
        result
    }

    /// A user's attempt failed; it fails until the result is dropped.
    pub fn failing(self: &Arc<Self>, reason: M::Reason) -> Failing<M> {
        let mut number = 0;
        self.state.send_modify(|state| {
            state.last_failure += 1;
            number = state.last_failure;
            state.failing.insert(number, reason);
        });
        Failing { pool: self.clone(), number }
    }

    /// Waits until a connection works, as far as is known.
    pub async fn works(&self) {
        // The sender is this pool's, so there is no error.
        let _ = self.state.subscribe().wait_for(State::works).await;
    }

    /// How the users fare now.
    pub fn snapshot(&self) -> Snapshot<M::Reason> {
        let state = self.state.borrow();
        let failing = state.failing.values().cloned().collect();
        Snapshot { works: state.works(), in_good_use: state.trusted > 0, failing }
    }
}

/// A connection that is being opened, until this is dropped.
struct Opening<'a, M: Manager>(&'a Pool<M>);

impl<M: Manager> Drop for Opening<'_, M> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.opening -= 1);
    }
}

impl<M: Manager> InUse<M> {
    /// The connection is idle again.
    pub fn give_back(self) {
        let Self { connection, place } = self;
        place.pool.state.send_modify(|state| state.idle.push(connection));
    }
}

impl<M: Manager> Drop for Place<M> {
    fn drop(&mut self) {
        self.pool.state.send_modify(|state| {
            state.in_use -= 1;
            state.trusted -= usize::from(self.trusted);
        });
    }
}

impl<M: Manager> Drop for Failing<M> {
    fn drop(&mut self) {
        self.pool.state.send_modify(|state| _ = state.failing.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Mutex;
    use tokio::time::{sleep, timeout};

    struct Server(SocketAddr);

    impl Manager for Server {
        type Connection = TcpStream;
        type Error = Error;
        type Reason = &'static str;

        async fn open(&self) -> Result<TcpStream, Error> {
            let connection = TcpStream::connect(self.0)?;
            connection.set_nonblocking(true)?;
            Ok(connection)
        }

        fn is_closed(connection: &TcpStream) -> bool {
            !matches!(connection.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        }
    }

    /// A server, its end of the first connection, and a pool.
    async fn start(most: usize) -> (TcpListener, TcpStream, Arc<Pool<Server>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server(listener.local_addr().unwrap());
        let first = server.open().await.unwrap();
        let (accepted, _) = listener.accept().unwrap();
        (listener, accepted, Arc::new(Pool::new(server, most, first)))
    }

    /// Whether nothing comes of it, as far as can be seen in a moment.
    async fn hangs(future: impl Future) -> bool {
        timeout(Duration::from_millis(50), future).await.is_err()
    }

    /// Waits until the only idle connection has seen its end.
    async fn is_seen_closed(pool: &Pool<Server>) {
        while !Server::is_closed(&pool.state.borrow().idle[0]) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn no_more_connections_are_open_than_are_allowed_and_one_that_is_not_given_back_is_closed() {
        let (listener, _first, pool) = start(2).await;
        let a = pool.take(false, |_| ()).await.unwrap();
        let b = pool.take(false, |_| ()).await.unwrap();
        let (second, _) = listener.accept().unwrap();
        assert!(hangs(pool.take(false, |_| ())).await);
        let port = a.connection.local_addr().unwrap();
        a.give_back();
        let a = pool.take(false, |_| ()).await.unwrap();
        assert_eq!(a.connection.local_addr().unwrap(), port);
        drop(b);
        assert_eq!(second.peek(&mut [0]).unwrap(), 0);
        let _b = pool.take(false, |_| ()).await.unwrap();
        listener.accept().unwrap();
    }

    #[tokio::test]
    async fn a_user_that_can_not_connect_gets_the_connection_of_another() {
        let (listener, _first, pool) = start(2).await;
        let a = pool.take(false, |_| ()).await.unwrap();
        drop(listener);
        let told = Mutex::new(Vec::new());
        let taken = pool.take(true, |error| told.lock().unwrap().push(error.kind()));
        tokio::pin!(taken);
        assert!(hangs(&mut taken).await);
        a.give_back();
        assert!(taken.await.is_ok());
        assert_eq!(*told.lock().unwrap(), [ErrorKind::ConnectionRefused]);
    }

    #[tokio::test]
    async fn where_none_is_in_use_the_error_of_opening_is_returned() {
        let (listener, first, pool) = start(2).await;
        drop((listener, first));
        is_seen_closed(&pool).await;
        let error = pool.take(false, |_| ()).await.err();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn a_server_works_while_a_user_that_does_not_fail_has_a_connection() {
        let (_listener, _first, pool) = start(2).await;
        let a = pool.take(false, |_| ()).await.unwrap();
        let failing = pool.failing("no room");
        pool.works().await;
        drop(a);
        assert!(hangs(pool.works()).await);
        let snapshot = pool.snapshot();
        assert!(!snapshot.works && !snapshot.in_good_use);
        assert_eq!(snapshot.failing, ["no room"]);
        drop(failing);
        pool.works().await;
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_is_not_handed_out() {
        let (listener, first, pool) = start(1).await;
        drop(first);
        is_seen_closed(&pool).await;
        let in_use = pool.take(false, |_| ()).await.unwrap();
        let (_second, _) = listener.accept().unwrap();
        assert!(!Server::is_closed(&in_use.connection));
    }
}
