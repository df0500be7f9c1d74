//! The budget of guesses: how many values a role may have masked in an hour (`pgmask.guess_limit`). Without
//! one, whoever may call `mask_pii` could try every IPv4 address until a token matches. How many values it may
//! recover from the vault (`pgmask.recover_limit`) is counted in the same way.
//!
//! [`budgets`] holds what each role has used, for all sessions of the server. A session draws from it in
//! portions, so that counting a value costs next to nothing, and gives back what is left when it ends or
//! changes its role, and when the hour ends. Nothing of this is part of a transaction: a rollback brings no guess back.
//!
//! A value counts for the role that the session authenticated as, for the session's user, for the role of SET ROLE and
//! for the one that it acts as, unless that role is exempt: so neither SET ROLE nor a SECURITY DEFINER function begins a
//! new budget. Where nobody's budget would be used for it, nothing is masked. Roles are told apart by their names: a role that is dropped and made again has no new one.
//! [`roles`] finds them, and [`limits`] the limit that each has of its own.

mod budgets;
mod limits;
mod roles;

use crate::clock::{self, Micros};
use crate::error::Error;
use crate::memory;
use budgets::{Budget, Budgets, MOST_ROLES, Taken, What};
use pg_mask_core::hmac_key::Hash;
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use roles::Counted;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;

pub(crate) use budgets::map_at_start;
pub(crate) use roles::{Caller, is_unlimited};

/// What a session draws at a time is this part of the limit,
const PART: u32 = 100;
/// and no more than so many values.
const LARGEST_PORTION: u32 = 100;

const SECONDS_PER_HOUR: i64 = 3600;

/// No transaction began then.
const NO_TRANSACTION: Micros = Micros::MIN;

thread_local! {
    static SESSION: RefCell<Session> = const { RefCell::new(Session::NEW) };
    /// Whether roles or memberships have changed since a portion was drawn.
    static ROLES_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the server's limit for all of its processes, where this is the one that starts them.
pub(crate) unsafe extern "C-unwind" fn note_guess_limit(value: i32, _: *mut c_void) {
    budgets::note_of_server(What::Guesses, value);
}

/// The same for `pgmask.recover_limit`.
pub(crate) unsafe extern "C-unwind" fn note_recover_limit(value: i32, _: *mut c_void) {
    budgets::note_of_server(What::Recoveries, value);
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    SESSION.with(|_| ());
}

/// What this session has drawn and not used.
struct Session {
    /// For whom.
    caller: Caller,
    /// Which of its roles are counted, and the limits that they have of their own, as it was found in the transaction that began
    /// then. It is looked at again in the next one, when roles change, and in a transaction that lasts each second.
    counted: Vec<Counted>,
    transaction: Micros,
    /// In which second that was.
    looked_at: i64,
    /// Values that may be masked without asking again.
    left: u32,
    /// From which budgets they were drawn; none if no role has one.
    drawn_from: Vec<Budget>,
    /// In which hour they were drawn.
    hour: i64,
    /// The second at which that hour ends, and the portion with it; `None` if no role has a budget.
    until: Option<i64>,
    /// The hash of the value that was counted last, for that caller: it is not counted again.
    last: Option<Hash>,
    /// Whether the session's end and changes of roles are waited for.
    is_watching: bool,
}

/// Counts a value with that hash, or says that the budget is used up. It comes after the hashing, and
/// before anything of the hash is shown.
#[inline]
pub(crate) fn count(hash: &Hash) -> Result<(), Error> {
    SESSION.with_borrow_mut(|session| {
        let caller = Caller::now();
        if session.last.as_ref() == Some(hash) && session.caller == caller {
            return Ok(());
        }
        // If this one fails, the next one is no free try.
        session.last = None;
        if session.left == 0 || session.caller != caller || session.is_over() || ROLES_CHANGED.get() {
            memory::with_room(|| session.draw(caller))?;
        }
        session.left -= 1;
        session.last = Some(*hash);
        Ok(())
    })
}

/// Who is calling, whatever runs on whose behalf now: the authenticated user, the session's user and the role of SET ROLE.
pub(crate) fn callers() -> [pg_sys::Oid; 3] {
    let [authenticated, session, outer, _] = Caller::now().roles;
    [authenticated, session, outer]
}

/// Counts a value that is recovered (`pgmask.recover_limit`), or says that the budget is used up. Only
/// superusers are exempt.
pub(crate) fn count_recovery() -> Result<(), Error> {
    memory::for_a_call()?;
    let caller = Caller::now();
    let counted = roles::counted(What::Recoveries, Some(caller.authenticated()), &caller.roles);
    let budgets = roles::budgets(What::Recoveries, &counted);
    if budgets.is_empty() {
        return Ok(());
    }
    let hour = hour();
    match Budgets::find().take(What::Recoveries, &budgets, hour, 1) {
        Taken::Some(_) => Ok(()),
        Taken::UsedUp(at) => {
            let Budget { name, limit, .. } = budgets[at];
            Err(Error::RecoverLimit { role: name.shown(), limit, again_at: next_hour(hour) })
        }
        Taken::Full => Err(Error::GuessTable { again_at: next_hour(hour) }),
    }
}

/// The budgets of several roles, whoever the session's is: what is masked counts in each of them.
pub(crate) struct BudgetsOf(Vec<Budget>);

impl BudgetsOf {
    pub(crate) fn roles(roles: &[pg_sys::Oid]) -> Self {
        Self(roles::budgets(What::Guesses, &roles::counted(What::Guesses, None, roles)))
    }

    /// Whether no role has one.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a value, or gives a role that can't have one more.
    pub(crate) fn count(&self) -> Result<(), pg_sys::Oid> {
        self.take(1)
    }

    /// Gives a role that can't have one more value, if there is any.
    pub(crate) fn have_more(&self) -> Result<(), pg_sys::Oid> {
        self.take(0)
    }

    fn take(&self, values: u32) -> Result<(), pg_sys::Oid> {
        let Self(budgets) = self;
        let Some(first) = budgets.first() else { return Ok(()) };
        if budgets.len() > MOST_ROLES {
            return Err(first.role);
        }
        match Budgets::find().take(What::Guesses, budgets, hour(), values) {
            Taken::Some(_) => Ok(()),
            Taken::UsedUp(at) => Err(budgets[at].role),
            Taken::Full => Err(first.role),
        }
    }
}

/// Whether the budget is one for all sessions of a role. Otherwise each session has its own, and a new
/// session begins a new budget.
#[pg_extern(schema = "pgmask", stable, parallel_safe)]
fn guess_limit_is_shared() -> bool {
    Budgets::find().is_shared
}

impl Session {
    const NEW: Self = Self {
        caller: Caller::NONE,
        counted: Vec::new(),
        transaction: NO_TRANSACTION,
        looked_at: 0,
        left: 0,
        drawn_from: Vec::new(),
        hour: 0,
        until: None,
        last: None,
        is_watching: false,
    };

    /// Whether the hour has ended in which the portion was drawn. A value counts in the hour in which it is
    /// masked.
    #[inline]
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| clock::second() >= until)
    }

    #[cold]
    fn draw(&mut self, caller: Caller) -> Result<(), Error> {
        memory::for_a_call()?;
        self.give_back();
        self.watch();
        // A statement that takes no lock (FETCH) is told of no change by itself.
        // SAFETY: a plain call, as each lock that is taken makes it.
        unsafe { pg_sys::AcceptInvalidationMessages() };
        let (transaction, second) = (clock::now(), clock::second());
        if ROLES_CHANGED.replace(false)
            || self.caller != caller
            || self.transaction != transaction
            || self.looked_at != second
        {
            self.transaction = NO_TRANSACTION; // in case of an error on the way
            self.counted = roles::counted(What::Guesses, Some(caller.authenticated()), &caller.roles);
            self.caller = caller;
            self.transaction = transaction;
            self.looked_at = second;
        }
        let budgets = roles::budgets(What::Guesses, &self.counted);
        roles::refuse_for_nobody(&caller, &budgets)?;
        let Some(limit) = budgets.iter().map(|budget| budget.limit).min() else {
            self.left = LARGEST_PORTION; // whether it is still so is looked at again after these
            return Ok(());
        };
        let portion = (limit / PART).clamp(1, LARGEST_PORTION);
        let hour = hour();
        match Budgets::find().take(What::Guesses, &budgets, hour, portion) {
            Taken::Some(values) => {
                self.left = values;
                self.drawn_from = budgets;
                self.hour = hour;
                self.until = Some((hour + 1) * SECONDS_PER_HOUR);
                Ok(())
            }
            Taken::UsedUp(at) => {
                let Budget { name, limit, .. } = budgets[at];
                Err(Error::GuessLimit { role: name.shown(), limit, again_at: next_hour(hour) })
            }
            Taken::Full => Err(Error::GuessTable { again_at: next_hour(hour) }),
        }
    }

    /// Gives what was not used back to the budgets.
    fn give_back(&mut self) {
        if self.left > 0 && !self.drawn_from.is_empty() {
            Budgets::find().give_back(What::Guesses, &self.drawn_from, self.hour, self.left);
        }
        self.left = 0;
        self.drawn_from.clear();
        self.until = None;
    }

    /// Has unused values given back when the session ends, and exemptions looked at anew when roles change.
    fn watch(&mut self) {
        if self.is_watching {
            return;
        }
        // SAFETY: plain calls; neither callback raises an error.
        unsafe {
            pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
            for cache in [Cache::AUTHOID, Cache::AUTHMEMROLEMEM] {
                pg_sys::CacheRegisterSyscacheCallback(
                    cache as i32,
                    Some(roles_changed),
                    pg_sys::Datum::from(0),
                );
            }
        }
        self.is_watching = true;
    }
}

unsafe extern "C-unwind" fn roles_changed(_: pg_sys::Datum, _: std::ffi::c_int, _: u32) {
    ROLES_CHANGED.set(true);
}

/// The hour that it is now, counted from 1970-01-01 UTC.
fn hour() -> i64 {
    clock::second().div_euclid(SECONDS_PER_HOUR)
}

/// When the hour after `hour` begins, as `15:00 UTC`.
fn next_hour(hour: i64) -> String {
    format!("{:02}:00 UTC", (hour + 1).rem_euclid(24))
}

unsafe extern "C-unwind" fn at_exit(_: std::ffi::c_int, _: pg_sys::Datum) {
    SESSION.with(|session| {
        // Borrowed while the session ends in the midst of counting: then its portion is gone.
        if let Ok(mut session) = session.try_borrow_mut() {
            session.give_back();
        }
    });
}
