//! Does the server's keyring hold the keys that this database was masked and sealed with, and which of
//! them are in use?
//!
//! key_check.sql explains the two tables that say so. They are read directly rather than by a query:
//! the role that masks needs no right to them, it works in parallel workers and on standbys, and it costs
//! a microsecond or two.

use crate::error::Error;
use crate::snapshot::Snapshot;
use crate::{clock, plan};
use pg_mask_core::keyring::{Key, Keyring, Which};
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::ffi::CStr;

/// What a dump brought; these rows count as soon as there are any.
const RESTORED: &CStr = c"key_check_restored";
/// What CREATE EXTENSION wrote, and what was rotated since.
const OWN: &CStr = c"key_check_own";

/// With ONLY it would leave the inheriting table out.
const LOCK: &str = "LOCK TABLE pgmask.key_check_restored IN SHARE ROW EXCLUSIVE MODE";

/// The columns of both tables that are read.
const GENERATION: i32 = 1;
const CHECK_VALUE: i32 = 2;
const SEAL_ID: i32 = 4;

/// More rows than a database ever gets, which a backend reads for the keys that it masks with.
const MOST_ROWS: usize = 10_000;

/// The keys that this database uses, by their check values.
pub(crate) struct KeyCheck {
    /// Mask keys by generation, seal keys by id; the oldest first.
    rows: Vec<(Which, String)>,
    /// The table that they stand in.
    table: &'static CStr,
}

/// What a key of the keyring is to this database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ok,
    /// The keyring has it and this database does not use it yet.
    Waiting,
    Differs,
    Missing,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Differs => "differs",
            Self::Missing => "missing",
        }
    }
}

impl KeyCheck {
    /// Reads the rows that count as they are now, and keeps every other rotation in this database away
    /// until the transaction ends. Statements that mask go on.
    pub(crate) fn lock_and_read() -> Result<Self, Error> {
        plan::run(LOCK, Vec::new, |_| ());
        Self::read(Snapshot::Newest)
    }

    /// Reads the rows that count.
    pub(crate) fn read(snapshot: Snapshot) -> Result<Self, Error> {
        let mut found = Self { rows: read(RESTORED, snapshot)?, table: RESTORED };
        if found.rows.is_empty() {
            found = Self { rows: read(OWN, snapshot)?, table: OWN };
        }
        found.rows.sort();
        Ok(found)
    }

    /// The generation in use.
    pub(crate) fn generation(&self) -> Result<u32, Error> {
        let mut expected = 0;
        for (which, _) in &self.rows {
            match which {
                Which::Generation(n) if *n == expected => {} // restored twice
                Which::Generation(n) if *n == expected + 1 => expected += 1,
                Which::Generation(_) => return Err(Error::KeyCheckGap { generation: expected + 1 }),
                Which::Seal(_) => {}
            }
        }
        if expected == 0 { Err(Error::KeyCheckEmpty) } else { Ok(expected) }
    }

    /// The seal key in use, if there is one.
    pub(crate) fn seal_id(&self) -> Option<u32> {
        self.rows.iter().rev().find_map(|(which, _)| match which {
            Which::Seal(id) => Some(*id),
            Which::Generation(_) => None,
        })
    }

    /// Whether new values are masked, or new bodies sealed, with that key.
    pub(crate) fn is_in_use(&self, which: Which) -> bool {
        match which {
            Which::Generation(n) => self.generation().is_ok_and(|generation| generation == n),
            Which::Seal(id) => self.seal_id() == Some(id),
        }
    }

    /// Compares every row with the keyring, generation 1 first.
    pub(crate) fn verify(&self, keyring: &CheckValues) -> Result<(), Error> {
        for (which, recorded) in &self.rows {
            match keyring.get(*which) {
                None => return Err(Error::KeyMissing(*which)),
                Some(value) if value != recorded => return Err(Error::KeyDiffers(*which)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What `which` is to this database, where the keyring's check value of it is `value`.
    pub(crate) fn state(&self, which: Which, value: Option<&str>) -> State {
        let mut state = State::Waiting;
        for (_, recorded) in self.rows.iter().filter(|(row, _)| *row == which) {
            match value {
                None => return State::Missing,
                Some(value) if value != recorded => return State::Differs,
                Some(_) => state = State::Ok,
            }
        }
        state
    }

    /// The rows of keys that `keyring` does not have.
    pub(crate) fn missing(&self, keyring: &CheckValues) -> impl Iterator<Item = &(Which, String)> {
        self.rows.iter().filter(|(which, _)| keyring.get(*which).is_none())
    }

    /// Puts a key to use: enters it beside the rows that count.
    pub(crate) fn record(&self, which: Which, key: &Key) {
        record(self.table, which, key);
    }
}

/// The check values of a keyring's keys.
pub(crate) struct CheckValues(Vec<(Which, String)>);

impl CheckValues {
    pub(crate) fn of(keyring: &Keyring) -> Self {
        Self(keyring.keys().map(|(which, key)| (which, key.check_value())).collect())
    }

    pub(crate) fn get(&self, which: Which) -> Option<&String> {
        self.0.iter().find(|(other, _)| *other == which).map(|(_, value)| value)
    }
}

/// Enters every key of `keyring`, as those that this database begins with. For `CREATE EXTENSION`.
pub(crate) fn begin_with(keyring: &Keyring) {
    for (which, key) in keyring.keys() {
        record(OWN, which, key);
    }
}

fn record(table: &CStr, which: Which, key: &Key) {
    let table = table.to_string_lossy();
    let sql = format!(
        "INSERT INTO pgmask.{table} (generation, check_value, created_at, seal_id)
         VALUES ($1, $2, $3, $4)"
    );
    let (generation, seal_id) = match which {
        Which::Generation(n) => (Some(n as i32), None),
        Which::Seal(n) => (None, Some(n as i32)),
    };
    let row = || {
        vec![
            generation.into(),
            key.check_value().into(),
            clock::timestamp(key.created_at_unix_micros()).into(),
            seal_id.into(),
        ]
    };
    plan::run(&sql, row, |_| ());
}

/// Every row of one of the tables.
fn read(table: &CStr, snapshot: Snapshot) -> Result<Vec<(Which, String)>, Error> {
    // SAFETY: catalog look-ups, then PostgreSQL's own way to read a small table: open, scan, close.
    // An error on the way closes all of it, as for any C code. The tuple descriptor is compared
    // with what is read before anything is.
    snapshot.with(|snapshot| unsafe {
        let schema = pg_sys::get_namespace_oid(c"pgmask".as_ptr(), true);
        let table = pg_sys::get_relname_relid(table.as_ptr(), schema);
        if table == pg_sys::InvalidOid {
            return Err(Error::KeyCheckTable);
        }
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let rows = if is_as_made(relation) { scan(relation, snapshot) } else { Err(Error::KeyCheckTable) };
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        rows
    })
}

/// # Safety
/// `relation` is open.
unsafe fn is_as_made(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller.
    let (columns, kind) =
        unsafe { (PgTupleDesc::from_pg_unchecked((*relation).rd_att), (*(*relation).rd_rel).relkind) };
    let has = |number: i32, oid| {
        columns.get(number as usize - 1).is_some_and(|column| !column.attisdropped && column.atttypid == oid)
    };
    kind as u8 == pg_sys::RELKIND_RELATION
        && has(GENERATION, pg_sys::INT4OID)
        && has(CHECK_VALUE, pg_sys::TEXTOID)
        && has(SEAL_ID, pg_sys::INT4OID)
}

/// # Safety
/// `relation` is open and [`is_as_made`], `snapshot` is registered.
unsafe fn scan(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
) -> Result<Vec<(Which, String)>, Error> {
    let mut rows = Vec::new();
    // SAFETY: by the caller.
    unsafe {
        let no_keys = std::ptr::null_mut();
        let scan = pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, snapshot, 0, no_keys);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            if rows.len() == MOST_ROWS {
                return Err(Error::KeyCheckTable);
            }
            let column = |number| {
                let mut is_null = false;
                let value = pg_sys::heap_getattr(tuple, number, (*relation).rd_att, &mut is_null);
                (value, is_null)
            };
            let number = |(value, is_null)| {
                i32::from_datum(value, is_null).and_then(|number| u32::try_from(number).ok())
            };
            let which = match (number(column(GENERATION)), number(column(SEAL_ID))) {
                (Some(generation), None) => Some(Which::Generation(generation)),
                (None, Some(id)) => Some(Which::Seal(id)),
                _ => None,
            };
            let (value, is_null) = column(CHECK_VALUE);
            rows.push(which.zip(String::from_datum(value, is_null)));
        }
        pg_sys::systable_endscan(scan);
    }
    rows.into_iter().collect::<Option<_>>().ok_or(Error::KeyCheckTable)
}
