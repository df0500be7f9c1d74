//! The table that logins are written to: which one, whose, and how long its texts may be.

use crate::error::Error;
use crate::{plan, settings};
use pg_mask_core::login::{Field, Refusal};
use pg_mask_core::mask::Masker;
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::ffi::CStr;

/// The columns that we write, in the order of the insert's parameters.
pub(super) const COLUMNS: [&str; 7] =
    ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", "app_version", "create_date"];

/// A table that was found fit for logins. It is locked against changes of its definition until the
/// transaction ends.
pub(super) struct Target {
    /// Its name as the setting has it.
    shown: String,
    /// The statement that inserts rows.
    pub(super) insert: String,
    pub(super) owner: pg_sys::Oid,
    /// The statement that has constraints checked with the insert that may wait for the commit: at the
    /// commit nobody could tell which row it was, and code of the owner would run as somebody else.
    pub(super) check_now: Option<String>,
    /// The most characters that each column takes.
    limits: [Option<usize>; COLUMNS.len()],
}

impl Target {
    /// Finds `pgmask.login_table` and compares it with what we write.
    pub(super) fn find() -> Result<Self, Error> {
        let setting = settings::login_table();
        let shown = setting.to_string_lossy().into_owned();
        let Some(oid) = look_up_and_lock(&setting) else { return Err(Error::NoLoginTable(shown)) };
        // SAFETY: the relation is locked; it stays open while it is looked at.
        unsafe {
            let relation = pg_sys::relation_open(oid, pg_sys::NoLock as i32);
            let target = Self::examine(relation, &shown);
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            target
        }
    }

    /// # Safety
    /// `relation` is open.
    unsafe fn examine(relation: pg_sys::Relation, shown: &str) -> Result<Self, Error> {
        // SAFETY: by the caller; names are copied before anything can move them.
        unsafe {
            let class = &*(*relation).rd_rel;
            if !matches!(class.relkind as u8, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE) {
                return Err(Error::NotATable(shown.to_owned()));
            }
            let found = PgTupleDesc::from_pg_unchecked((*relation).rd_att);
            let mut limits = [None; COLUMNS.len()];
            for (name, limit) in COLUMNS.into_iter().zip(&mut limits) {
                let column = found.iter().find(|column| !column.attisdropped && column.name() == name);
                let Some(column) = column else {
                    return Err(Error::NoColumn { table: shown.to_owned(), column: name });
                };
                *limit = limit_of(column);
            }
            let schema = CStr::from_ptr(pg_sys::get_namespace_name(class.relnamespace));
            let table = CStr::from_ptr(class.relname.data.as_ptr());
            let name = CStr::from_ptr(pg_sys::quote_qualified_identifier(schema.as_ptr(), table.as_ptr()));
            let values: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("unnest(${n})")).collect();
            let (name, columns) = (name.to_string_lossy(), COLUMNS.join(", "));
            let insert = format!("INSERT INTO {name} ({columns}) SELECT {}", values.join(", "));
            let triggers = match (*relation).trigdesc.as_ref() {
                Some(all) => std::slice::from_raw_parts(all.triggers, all.numtriggers as usize),
                None => &[],
            };
            let is_partitioned = class.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
            if is_partitioned || triggers.iter().any(|trigger| !trigger.tgisinternal) {
                trust((*relation).rd_id, class.relowner, shown)?;
            }
            let may_wait = is_partitioned || triggers.iter().any(|trigger| trigger.tgdeferrable);
            let check_now = if may_wait { check_now((*relation).rd_id)? } else { None };
            Ok(Self { shown: shown.to_owned(), insert, owner: class.relowner, check_now, limits })
        }
    }

    /// Refuses a text with more characters than the column of `field` takes.
    pub(super) fn check_length(&self, field: Field, text: &str) -> Result<(), Refusal> {
        let limit = COLUMNS.iter().position(|column| *column == field.name()).and_then(|at| self.limits[at]);
        // No text has more characters than bytes.
        match limit {
            Some(limit) if text.len() > limit && text.chars().count() > limit => Err(Refusal::TooLong(field)),
            _ => Ok(()),
        }
    }

    /// Refuses a table that could not take the tokens of `masker`.
    pub(super) fn has_room_for_tokens(&self, masker: &Masker) -> Result<(), Error> {
        let needed = masker.token_len();
        for (column, limit) in COLUMNS.into_iter().zip(self.limits) {
            if column.starts_with("masked_") && limit.is_some_and(|limit| limit < needed) {
                return Err(Error::NarrowColumn { table: self.shown.clone(), column, needed });
            }
        }
        Ok(())
    }
}

/// The names of the constraints of a table and its partitions that may be deferred.
const DEFERRABLE: &str =
    "SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, c.conname), ', ')
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) t.tgconstraint
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace
    WHERE t.tgdeferrable AND (t.tgrelid OPERATOR(pg_catalog.=) $1 OR t.tgrelid OPERATOR(pg_catalog.=) ANY (
        SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1)))";

fn check_now(table: pg_sys::Oid) -> Result<Option<String>, Error> {
    let names = plan::one_row(DEFERRABLE, || vec![table.into()], |row| row.get_or_null::<String>(1))?;
    Ok(names.map(|names| format!("SET CONSTRAINTS {names} IMMEDIATE")))
}

/// Partitions and triggers of a table that are somebody else's than its owner's or a superuser's.
const FOREIGN: &str = "SELECT pg_catalog.min(found.name)
    FROM (
        SELECT pg_catalog.format('partition %s', c.oid::pg_catalog.regclass), c.relowner
        FROM pg_catalog.pg_partition_tree($1) AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.relid
        UNION ALL
        SELECT pg_catalog.format('trigger %I', t.tgname), f.proowner
        FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
        WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
          AND (t.tgrelid = $1 OR t.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1)))
    ) AS found (name, owner)
    WHERE found.owner <> $2 AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE oid = found.owner)";

/// Code of the table runs with its owner's rights, so it has to be the owner's, and must not be led
/// astray: what it calls by a bare name, a temporary table of the caller's could answer to.
fn trust(table: pg_sys::Oid, owner: pg_sys::Oid, shown: &str) -> Result<(), Error> {
    let foreign =
        plan::one_row(FOREIGN, || vec![table.into(), owner.into()], |row| row.get_or_null::<String>(1))?;
    if let Some(what) = foreign {
        return Err(Error::ForeignCode { table: shown.to_owned(), what });
    }
    // SAFETY: look-ups of the backend's own state.
    let may_be_misled = unsafe {
        let (mut temporary, mut toast) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::GetTempNamespaceState(&mut temporary, &mut toast);
        temporary != pg_sys::InvalidOid && !pg_sys::has_privs_of_role(pg_sys::GetOuterUserId(), owner)
    };
    if may_be_misled {
        return Err(Error::TemporaryTables { table: shown.to_owned() });
    }
    Ok(())
}

/// The table of that qualified name, locked. While the lock is waited for, the name may come to mean
/// another table.
fn look_up_and_lock(name: &CStr) -> Option<pg_sys::Oid> {
    loop {
        let oid = look_up(name)?;
        // SAFETY: plain locking calls; waiting takes in what others have committed meanwhile.
        unsafe { pg_sys::LockRelationOid(oid, pg_sys::RowExclusiveLock as i32) };
        if look_up(name) == Some(oid) {
            return Some(oid);
        }
        // SAFETY: as above.
        unsafe { pg_sys::UnlockRelationOid(oid, pg_sys::RowExclusiveLock as i32) };
    }
}

/// The table of that qualified name.
pub(crate) fn look_up(name: &CStr) -> Option<pg_sys::Oid> {
    let name = name.to_str().ok()?;
    // SAFETY: to_regclass takes a text and gives a regclass or NULL.
    unsafe { pgrx::direct_function_call(pg_sys::to_regclass, &[name.into_datum()]) }
}

/// The n of `varchar(n)` and `char(n)`, also under a domain.
///
/// # Safety
/// `column` belongs to an open relation.
pub(crate) unsafe fn limit_of(column: &pg_sys::FormData_pg_attribute) -> Option<usize> {
    let mut modifier = column.atttypmod;
    // SAFETY: a catalog look-up.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(column.atttypid, &mut modifier) };
    let has_length = matches!(base, pg_sys::VARCHAROID | pg_sys::BPCHAROID);
    has_length.then(|| usize::try_from(modifier - pg_sys::VARHDRSZ as i32).ok()).flatten()
}
