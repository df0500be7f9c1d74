//! The budget of guesses: how many values a role may have masked in an hour (`pgmask.guess_limit`). Without
//! one, whoever may call `mask_pii` could try every IPv4 address until a token matches. How many values it may
//! recover from the vault (`pgmask.recover_limit`) is counted in the same way.
//!
//! [`budgets`] holds what each role has used, for all sessions of the server. A session draws from it in
//! portions, so that counting a value costs next to nothing, and gives back what is left when it ends or
//! changes its role. Nothing of this is part of a transaction: a rollback brings no guess back.
//!
//! A value counts for the role that the session authenticated as, for the session's user and for the role
//! that it acts as, unless that role is exempt: so neither SET ROLE nor a SECURITY DEFINER function begins a
//! new budget. Roles are told apart by their names: a role that is dropped and made again has no new one.

mod budgets;

use crate::error::Error;
use crate::{clock, settings, unguarded};
use budgets::{Budgets, RoleName, Taken, What};
use pg_mask_core::hmac_key::Hash;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;

pub(crate) use budgets::reserve_at_start;

/// Its members mask without a limit.
const UNLIMITED: &CStr = c"pgmask_unlimited";

/// What a session draws at a time is this part of the limit,
const PART: u32 = 100;
/// and no more than so many values.
const LARGEST_PORTION: u32 = 100;

const MICROS_PER_HOUR: i64 = 3_600_000_000;

thread_local! {
    static SESSION: RefCell<Session> = const { RefCell::new(Session::NEW) };
}

/// The authenticated user, the session's user, and the current one.
type Roles = [pg_sys::Oid; 3];

/// What this session has drawn and not used.
struct Session {
    roles: Roles,
    /// Values that may be masked without asking again.
    left: u32,
    /// From which roles' budgets they were drawn; none if all are exempt.
    drawn_from: Vec<RoleName>,
    /// In which hour they were drawn.
    hour: i64,
    /// The hash of the value that was counted last: it is not counted again.
    last: Option<Hash>,
    gives_back_at_exit: bool,
}

/// Counts a value with that hash, or says that the budget is used up. It comes after the hashing, and
/// before anything of the hash is shown.
#[inline]
pub(crate) fn count(hash: &Hash) -> Result<(), Error> {
    SESSION.with_borrow_mut(|session| {
        if session.last.as_ref() == Some(hash) {
            return Ok(());
        }
        let roles = roles();
        if session.left == 0 || session.roles != roles {
            session.draw(roles)?;
        }
        session.left -= 1;
        session.last = Some(*hash);
        Ok(())
    })
}

/// Counts a value that is recovered (`pgmask.recover_limit`), or says that the budget is used up. Only
/// superusers are exempt.
pub(crate) fn count_recovery() -> Result<(), Error> {
    let Some(limit) = settings::recover_limit() else { return Ok(()) };
    // SAFETY: a catalog look-up.
    let names = limited(roles(), |role| unsafe { pg_sys::superuser_arg(role) });
    if names.is_empty() {
        return Ok(());
    }
    let hour = hour();
    match Budgets::find().take(What::Recoveries, &names, hour, limit, 1) {
        Taken::Some(_) => Ok(()),
        Taken::UsedUp(role) => {
            Err(Error::RecoverLimit { role: role.shown(), limit, again_at: next_hour(hour) })
        }
        Taken::Full => Err(Error::GuessTable { again_at: next_hour(hour) }),
    }
}

/// Whether the budget is one for all sessions of a role. Otherwise each session has its own, and a new
/// session begins a new budget.
#[pg_extern(schema = "pgmask", stable, parallel_safe)]
fn guess_limit_is_shared() -> bool {
    Budgets::find().is_shared
}

#[inline]
fn roles() -> Roles {
    // SAFETY: these return static variables.
    unsafe { [unguarded::GetAuthenticatedUserId(), unguarded::GetSessionUserId(), unguarded::GetUserId()] }
}

impl Session {
    const NEW: Self = Self {
        roles: [pg_sys::InvalidOid; 3],
        left: 0,
        drawn_from: Vec::new(),
        hour: 0,
        last: None,
        gives_back_at_exit: false,
    };

    #[cold]
    fn draw(&mut self, roles: Roles) -> Result<(), Error> {
        self.give_back();
        self.roles = roles;
        let limit = settings::guess_limit();
        let names = match limit {
            Some(_) => limited(roles, is_exempt),
            None => Vec::new(),
        };
        let (Some(limit), false) = (limit, names.is_empty()) else {
            self.left = LARGEST_PORTION; // whether it is still so is looked at again after these
            return Ok(());
        };
        let portion = (limit / PART).clamp(1, LARGEST_PORTION);
        let hour = hour();
        if !self.gives_back_at_exit {
            // SAFETY: a plain call; the callback raises no error.
            unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };
            self.gives_back_at_exit = true;
        }
        match Budgets::find().take(What::Guesses, &names, hour, limit, portion) {
            Taken::Some(values) => {
                self.left = values;
                self.drawn_from = names;
                self.hour = hour;
                Ok(())
            }
            Taken::UsedUp(role) => {
                Err(Error::GuessLimit { role: role.shown(), limit, again_at: next_hour(hour) })
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
    }
}

/// The names of those of `roles` that have a limit, each once.
fn limited(roles: Roles, is_exempt: impl Fn(pg_sys::Oid) -> bool) -> Vec<RoleName> {
    let mut names = Vec::new();
    for (at, role) in roles.into_iter().enumerate() {
        if roles[..at].contains(&role) || is_exempt(role) {
            continue;
        }
        // SAFETY: a catalog look-up; the name is copied. A role that was dropped meanwhile has none, and
        // its OID stands for it.
        let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
        names.push(match name.is_null() {
            true => RoleName::new(role.to_u32().to_string().as_bytes()),
            // SAFETY: it is a C string.
            false => RoleName::new(unsafe { CStr::from_ptr(name) }.to_bytes()),
        });
    }
    names
}

fn is_exempt(role: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe {
        let unlimited = pg_sys::get_role_oid(UNLIMITED.as_ptr(), true);
        pg_sys::superuser_arg(role)
            || (unlimited != pg_sys::InvalidOid && pg_sys::is_member_of_role(role, unlimited))
    }
}

/// Whether what `role` masks has no limit: lifting a hash without a key is a way to try guesses, too.
pub(crate) fn is_unlimited(role: pg_sys::Oid) -> bool {
    is_exempt(role)
}

/// The hour that it is now, counted from 2000-01-01 UTC.
fn hour() -> i64 {
    clock::exactly().div_euclid(MICROS_PER_HOUR)
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
