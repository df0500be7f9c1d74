//! The roles that code of tables (triggers, defaults, policies) runs as. They must have no right that is worth taking:
//! each batch makes sure of that. [`commands`] says what else such code may run, [`functions`] what it may not call, [`writes`] into
//! which tables it may not write, and [`rights`] what it may do to others.

mod at_once;
mod called;
pub(crate) mod commands;
mod compiled;
mod filled;
mod functions;
mod partitions;
mod rights;
mod temporary;
mod watched;
pub(crate) mod writes;

use crate::client_statement::Hidden;
use crate::cursors::OutOfReach;
use crate::error::Error;
use crate::own_roles::RoleOfCode;
use crate::quiet::Silent;
use crate::session_caches::{self, Refreshed};
use crate::text::OwnedText;
use crate::{catalog_scan, own_names, plan, run_as};
use partitions::root_of;
use pg_sys::SysCacheIdentifier as Cache;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::CStr;
use std::thread::LocalKey;
use std::time::{Duration, Instant};
use watched::Watched;

/// Looks from now on at what such code does, and has stored results refreshed in that way. For `_PG_init`.
pub(crate) fn watch(refresh: commands::Refresh) {
    commands::watch(refresh);
    compiled::watch();
    filled::watch();
    functions::watch();
    at_once::watch();
    rights::watch();
    writes::watch();
    watched::begin_late();
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    called::prepare();
    compiled::prepare();
    watched::prepare();
}

/// Why code failed that ran last, where pg_mask refused it something: of an error that it fails with, that is all that may be
/// told.
pub(crate) fn refused(sqlstate: &[u8; 5]) -> Option<Error> {
    watched::refused(sqlstate)
}

/// A role, found fit for what it is there for.
#[derive(Clone, Copy)]
pub(crate) struct Powerless {
    which: RoleOfCode,
    pub(crate) role: pg_sys::Oid,
    /// The table whose code it is, or the root of its partitions.
    table: pg_sys::Oid,
    /// Whether there can be any.
    can_run_code: bool,
}

/// Attributes that are worth taking, by their columns of pg_authid.
const ATTRIBUTES: [(u32, &str); 6] = [
    (pg_sys::Anum_pg_authid_rolsuper, "SUPERUSER"),
    (pg_sys::Anum_pg_authid_rolcreaterole, "CREATEROLE"),
    (pg_sys::Anum_pg_authid_rolcreatedb, "CREATEDB"),
    (pg_sys::Anum_pg_authid_rolreplication, "REPLICATION"),
    (pg_sys::Anum_pg_authid_rolbypassrls, "BYPASSRLS"),
    (pg_sys::Anum_pg_authid_rolcanlogin, LOGIN),
];

/// Citus reaches its workers as the role that a statement runs as, so there that role has to have it.
const LOGIN: &str = "LOGIN";

/// A role that $1 is a member of, over however many steps, and that has rights worth taking: a superuser, a
/// role of PostgreSQL's own, or one of ours.
const MIGHTY: &str = "WITH RECURSIVE reached(role) AS (
        SELECT roleid FROM pg_catalog.pg_auth_members WHERE member = $1
        UNION SELECT m.roleid FROM reached JOIN pg_catalog.pg_auth_members AS m ON m.member = reached.role
    )
    SELECT pg_catalog.min(r.rolname::pg_catalog.text)
    FROM reached JOIN pg_catalog.pg_roles AS r ON r.oid = reached.role
    WHERE r.rolsuper OR r.oid < 16384 OR r.rolname = ANY (ARRAY['pgmask_analyst', 'pgmask_ingester',
        'pgmask_operator', 'pgmask_recoverer', 'pgmask_forwarder', 'pgmask_unlimited'])";

impl Powerless {
    /// For code of that table.
    pub(crate) fn find(which: RoleOfCode, table: pg_sys::Oid) -> Result<Self, Error> {
        watched::refuse_code()?;
        let (role, attribute) = look_up(which)?;
        let refuse = |could: String| Err(Error::MightyRole(which, could));
        if let Some(attribute) = attribute {
            return refuse(format!("has the attribute {attribute}"));
        }
        if owns_something(role)? {
            return refuse("owns something".to_owned());
        }
        if is_a_member(role)
            && let Some(OwnedText(name)) = mighty(role)?
        {
            return refuse(format!("is a member of {}", String::from_utf8_lossy(&name)));
        }
        Ok(Self { which, role, table: root_of(table), can_run_code: session_caches::can_run_code(table) })
    }

    /// Refuses a session that would decide on what code of the table does, where that can run. To be asked before [`Powerless::run`], when
    /// nothing of ours has the table open.
    pub(crate) fn refuse_session(self) -> Result<(), Error> {
        if self.can_run_code { refuse_session(self.which) } else { Ok(()) }
    }

    /// Runs `work` as this role, in a security-restricted operation.
    ///
    /// Nor does code of the table see what the client sent, which may be a message, or reach its cursors, or run commands
    /// that would outlast the statement. If it has made something all the same, such as a view, that is an error: the role
    /// would own it. What such code says short of an error is not for the client, who need not be allowed to see the rows.
    pub(crate) fn run<R>(self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        let watched = Watched { role: Some(self.role), table: Some(self.table) };
        let done = run_watched(watched, Hidden::new(), self.can_run_code, || run_as::bound(self.role, work))?;
        if owns_something(self.role)? { Err(Error::LeftBehind(self.which)) } else { Ok(done) }
    }

    /// [`Powerless::run`] for work on rows that are there, as PostgreSQL's own maintenance would do it.
    pub(crate) fn maintain<R>(self, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        self.refuse_session()?;
        // Only what a batch has locked keeps others from adding code meanwhile.
        Self { can_run_code: true, ..self }.run(|| {
            own_names::pin();
            work()
        })
    }
}

/// Runs `work`, the REFRESH `statement`, by which PostgreSQL runs code of tables as `role`, if there is any.
pub(crate) fn refresh_as<R>(
    role: pg_sys::Oid,
    statement: &CStr,
    may_run_code: bool,
    work: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    watched::refuse_code()?;
    if may_run_code {
        refuse_session(RoleOfCode::Writer)?;
    }
    called::refuse_maintenance()?;
    let watched = Watched { role: Some(role), table: None };
    run_watched(watched, Hidden::behind(Some(statement)), true, || commands::refresh(work))
}

/// Refuses a session that would decide on what code of a table does. Who owns a table other than the login table may do to it what such
/// code does.
fn refuse_session(which: RoleOfCode) -> Result<(), Error> {
    if matches!(which, RoleOfCode::Writer) {
        called::refuse()?;
    }
    temporary::refuse()?;
    session_caches::refuse_open_ones()
}

/// Runs `work` on a table as its owner, in a security-restricted operation, as PostgreSQL's own maintenance does (VACUUM, CREATE
/// INDEX). Code of the table is the owner's, and reaches nothing of the session, which may be another's.
pub(crate) fn as_owner<R>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    watched::refuse_code()?;
    refuse_session(RoleOfCode::Nobody)?;
    run_watched(Watched { role: None, table: None }, Hidden::new(), true, || {
        run_as::bound(owner, || {
            own_names::pin();
            work()
        })
    })
}

/// Runs `work`, which neither is shown the client's statement nor reaches cursors or leaves some.
fn run_watched<R>(
    watched: Watched,
    hidden: Hidden<'_>,
    can_run_code: bool,
    work: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    // A cursor that is left has tables and indexes open until what was done is rolled back.
    guarded(watched, hidden, can_run_code, work).inspect_err(|_| session_caches::refresh_later())
}

fn guarded<R>(
    watched: Watched,
    _hidden: Hidden<'_>,
    can_run_code: bool,
    work: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    let cursors = OutOfReach::new()?;
    let _silent = Silent::new();
    let _refreshed = can_run_code.then(Refreshed::begin);
    let _apart = compiled::Apart::begin(watched);
    let _watching = watched.begin();
    let done = own_names::with_plain_statements(work)?;
    cursors.none_was_left()?;
    Ok(done)
}

/// The role and the first of its attributes that it must not have.
fn look_up(which: RoleOfCode) -> Result<(pg_sys::Oid, Option<&'static str>), Error> {
    // SAFETY: a look-up in PostgreSQL's cache; the tuple is released when it was read. The columns are never
    // NULL and of the types that they are read as (pg_authid.h).
    unsafe {
        let tuple =
            pg_sys::SearchSysCache1(Cache::AUTHNAME as i32, pg_sys::Datum::from(which.name().as_ptr()));
        if tuple.is_null() {
            return Err(Error::NoRole(which));
        }
        let read = |column: u32| {
            let mut is_null = false;
            pg_sys::SysCacheGetAttr(Cache::AUTHNAME as i32, tuple, column as i16, &mut is_null)
        };
        let role = pg_sys::Oid::from(read(pg_sys::Anum_pg_authid_oid).value() as u32);
        let has = |(column, _): &&(u32, &str)| read(*column).value() & 0xff != 0;
        let attribute = ATTRIBUTES
            .iter()
            .filter(|(_, name)| *name != LOGIN || !is_for_citus())
            .find(has)
            .map(|(_, name)| *name);
        pg_sys::ReleaseSysCache(tuple);
        Ok((role, attribute))
    }
}

/// Whether the server has Citus loaded, as `sql/00_roles.sql` asks it, too.
fn is_for_citus() -> bool {
    // SAFETY: the value of a setting, a C string that stays as it is once the server has started.
    unsafe {
        let loaded = pg_sys::shared_preload_libraries_string;
        !loaded.is_null() && CStr::from_ptr(loaded).to_bytes().windows(5).any(|part| part == b"citus")
    }
}

/// Whether `role` was granted any other.
fn is_a_member(role: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::from(0);
    // SAFETY: a look-up in PostgreSQL's cache; the list is released.
    unsafe {
        let list = pg_sys::SearchSysCacheList(Cache::AUTHMEMMEMROLE as i32, 1, role.into(), none, none);
        let memberships = (*list).n_members;
        pg_sys::ReleaseCatCacheList(list);
        memberships > 0
    }
}

/// A look at a role that found nothing against it, and took long: whoever may connect can grant the role as many large objects as it
/// likes, and whoever makes roles as many of these, each of which is one more to look at. So it is good for a while.
struct Looked {
    role: pg_sys::Oid,
    at: Instant,
    good_for: Duration,
}

thread_local! {
    static OWNED: Cell<Option<Looked>> = const { Cell::new(None) };
    static REACHED: Cell<Option<Looked>> = const { Cell::new(None) };
}

/// What `look` finds against a role, or nothing if the last one was long and is still good.
fn found_by<R>(
    last: &'static LocalKey<Cell<Option<Looked>>>,
    role: pg_sys::Oid,
    look: impl FnOnce() -> Result<Option<R>, Error>,
) -> Result<Option<R>, Error> {
    const LONG: Duration = Duration::from_millis(5);
    const TIMES: u32 = 20;
    const LONGEST: Duration = Duration::from_secs(10);
    let at = Instant::now();
    let kept = last.take().filter(|looked| looked.role == role && looked.at.elapsed() < looked.good_for);
    if kept.is_some() {
        last.set(kept);
        return Ok(None);
    }
    let found = look()?;
    let took = at.elapsed();
    if found.is_none() && took > LONG {
        last.set(Some(Looked { role, at: Instant::now(), good_for: (took * TIMES).min(LONGEST) }));
    }
    Ok(found)
}

fn owns_something(role: pg_sys::Oid) -> Result<bool, Error> {
    Ok(found_by(&OWNED, role, || Ok(owns(role).then_some(())))?.is_some())
}

/// A role worth taking that `role` is a member of.
fn mighty(role: pg_sys::Oid) -> Result<Option<OwnedText>, Error> {
    found_by(&REACHED, role, || {
        plan::catalog_row(MIGHTY, || vec![role.into()], |row| row.get_or_null::<OwnedText>(1))
    })
}

/// Whether anything in any database is owned by `role`, or it has default privileges. User mappings don't count:
/// PostgreSQL notes them as owned by the role that they are for, who owns a foreign server makes them for any role,
/// and they give no right to use that server.
fn owns(role: pg_sys::Oid) -> bool {
    // pg_shdepend.h
    const SHARED_DEPENDENCIES: pg_sys::Oid = pg_sys::Oid::from_u32(1214);
    const BY_REFERENCE: pg_sys::Oid = pg_sys::Oid::from_u32(1233);
    const USER_MAPPINGS: pg_sys::Oid = pg_sys::Oid::from_u32(1418);
    const CLASS: i32 = 2;
    const REFERENCED_CLASS: i16 = 5;
    const REFERENCED_OBJECT: i16 = 6;
    const KIND: i32 = 7;
    let of_role = [(REFERENCED_CLASS, pg_sys::AuthIdRelationId), (REFERENCED_OBJECT, role)];
    let owns = catalog_scan::find(SHARED_DEPENDENCIES, BY_REFERENCE, of_role, |row| {
        // A "char" and an oid (pg_shdepend.h).
        let is_owner =
            row.column(KIND)?.value() as u8 == pg_sys::SharedDependencyType::SHARED_DEPENDENCY_OWNER as u8;
        let class = pg_sys::Oid::from(row.column(CLASS)?.value() as u32);
        (is_owner && class != USER_MAPPINGS).then_some(())
    });
    owns.is_some()
}
