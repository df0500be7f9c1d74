//! The connections that writers share. A batch whose writer can't open a connection is written over one that
//! works: the database is out only when no connection works.

use super::connection::Database;
use crate::error::{End, Error, Kind};
use pg_settings::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// While other connections work, opening one that failed is tried again after so long.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The connections, and how their users fare.
pub(crate) struct Pool {
    settings: Settings,
    most: usize,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Database>,
    /// In use, and how many of these by writers that don't fail.
    leased: usize,
    trusted: usize,
    opening: usize,
    /// While other connections work, none is opened before this.
    open_at: Option<Instant>,
    /// The writers whose last attempt failed, and why it did.
    failing: BTreeMap<u64, (Kind, String)>,
    failed: u64,
}

impl State {
    /// Whether a connection works, as far as is known.
    fn works(&self) -> bool {
        self.failing.is_empty() || self.trusted > 0 || self.idle.iter().any(|idle| !idle.is_closed())
    }
}

/// A connection in use. It is closed when this is dropped, unless it is given back.
pub(crate) struct Lease {
    pub(crate) database: Database,
    place: Place,
}

/// What a connection in use counts for in the state.
struct Place {
    pool: Arc<Pool>,
    trusted: bool,
}

/// A writer whose last attempt failed, until this is dropped.
pub(crate) struct Failing {
    pool: Arc<Pool>,
    number: u64,
}

impl Pool {
    /// A pool of `most` connections, of which one is open.
    pub(crate) fn new(settings: Settings, most: usize, first: Database) -> Self {
        let state = State { idle: vec![first], ..State::default() };
        Self { settings, most, state: watch::Sender::new(state) }
    }

    /// A connection that is idle, or else a new one. If none can be opened, waits for one that works; only
    /// where there is none, the error counts. Other errors are told.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        failing: bool,
        tell: impl Fn(&Error),
    ) -> Result<Lease, Error> {
        let mut state = self.state.subscribe();
        let mut opening: Option<JoinHandle<Result<(), Error>>> = None;
        loop {
            let open_at = state.borrow_and_update().open_at.filter(|at| *at > Instant::now());
            if let Some(lease) = self.take_idle(failing) {
                return Ok(lease);
            }
            if opening.is_none() && self.may_open() {
                // By itself: it is of use to others, if this writer gets another connection meanwhile.
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
                opened = opened => opened.unwrap_or_else(|_| Err(Error::panicked())),
            };
            opening = None;
            match opened {
                Err(error) if self.state.borrow().leased == 0 => return Err(error),
                Err(error) => tell(&error),
                Ok(()) => {}
            }
        }
    }

    fn take_idle(self: &Arc<Self>, failing: bool) -> Option<Lease> {
        let mut taken = None;
        self.state.send_if_modified(|state| {
            state.idle.retain(|idle| !idle.is_closed());
            taken = state.idle.pop();
            state.leased += usize::from(taken.is_some());
            state.trusted += usize::from(taken.is_some() && !failing);
            taken.is_some()
        });
        let place = || Place { pool: self.clone(), trusted: !failing };
        taken.map(|database| Lease { database, place: place() })
    }

    /// Takes a place for one more connection, if there is one.
    fn may_open(&self) -> bool {
        self.state.send_if_modified(|state| {
            let none = state.idle.is_empty() && state.leased == 0;
            let may = state.idle.len() + state.leased + state.opening < self.most
                && (none || state.open_at.is_none_or(|at| at <= Instant::now()));
            state.opening += usize::from(may);
            may
        })
    }

    /// Opens a connection, which is idle then.
    async fn open(self: Arc<Self>) -> Result<(), Error> {
        let opened = Database::open(&self.settings).await;
        let (opened, error) = match opened {
            Ok((database, _)) => (Some(database), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.state.send_modify(|state| {
            state.opening -= 1;
            state.open_at = opened.is_none().then(|| Instant::now() + OPEN_AGAIN_AFTER);
            state.idle.extend(opened);
        });
        error
    }

    /// A writer's attempt failed; it fails until the result is dropped.
    pub(crate) fn failing(self: &Arc<Self>, error: &Error) -> Failing {
        let mut number = 0;
        self.state.send_modify(|state| {
            state.failed += 1;
            number = state.failed;
            state.failing.insert(number, (error.kind, error.to_string()));
        });
        Failing { pool: self.clone(), number }
    }

    /// Waits until a connection works.
    pub(crate) async fn works(&self) {
        // The sender is this one, so there is no error.
        let _ = self.state.subscribe().wait_for(State::works).await;
    }

    /// Whether batches are taken in: what writers found, else tried with an empty one.
    pub(crate) async fn try_out(self: &Arc<Self>, patience: Duration) -> Result<(), Error> {
        let busy = {
            let state = self.state.borrow();
            let mut failing = state.failing.values();
            let counts = |error: &&(Kind, String)| error.0 == Kind::SetUp || !state.works();
            if let Some((kind, text)) = failing.find(counts) {
                return Err(Error::new(*kind, Some(End::Database), text.clone()));
            }
            state.trusted > 0
        };
        let silent = || {
            let text = format!("the database gave no answer within {patience:?}; is its table locked?");
            Error::transient(End::Database, text)
        };
        let lease = match timeout(patience, self.lease(false, |_| ())).await {
            Ok(lease) => lease?,
            Err(_) => return if busy { Ok(()) } else { Err(silent()) },
        };
        match timeout(patience, lease.database.take_in(&[])).await {
            Ok(tried) => _ = tried?,
            Err(_) => {
                // Otherwise it would wait there for the lock, one more with every try.
                lease.database.cancel().await;
                return Err(silent());
            }
        }
        lease.give_back();
        Ok(())
    }
}

impl Lease {
    /// The connection is idle again.
    pub(crate) fn give_back(self) {
        let Self { database, place } = self;
        place.pool.state.send_modify(|state| state.idle.push(database));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.state.send_modify(|state| {
            state.leased -= 1;
            state.trusted -= usize::from(self.trusted);
        });
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.pool.state.send_modify(|state| _ = state.failing.remove(&self.number));
    }
}
