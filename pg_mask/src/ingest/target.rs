//! The table that logins are written to: which one, whose, and how long its texts may be.

use super::columns::Columns;
use crate::error::Error;
use crate::named_tables::{Meant, look_up, was_exchanged};
use crate::own_roles::RoleOfCode;
use crate::role_of_code::commands::check_constraints;
use crate::role_of_code::{self, Powerless};
use crate::subtransaction::{Failure, attempt};
use crate::text::OwnedText;
use crate::{plan, settings};
use pg_mask_core::mask::Masker;
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// A table that was found fit for logins. It is locked against changes of its definition until the
/// transaction ends.
pub(super) struct Target {
    /// Its name as the setting has it.
    shown: String,
    pub(super) oid: pg_sys::Oid,
    /// The statement that inserts rows, in the server's encoding.
    pub(super) insert: CString,
    /// Who inserts them.
    pub(super) writer: Powerless,
    is_partitioned: bool,
    has_row_security: bool,
    /// The statement that has constraints checked with the insert that may wait for the commit: at the
    /// commit nobody could tell which row it was, and a security-restricted operation defers nothing.
    check_now: Option<String>,
    pub(super) columns: Columns,
}

impl Target {
    /// Finds `pgmask.login_table` and compares it with what we write.
    pub(super) fn find() -> Result<Self, Error> {
        let setting = settings::login_table();
        let shown = setting.to_string_lossy().into_owned();
        let Some(oid) = look_up_and_lock(&setting) else { return Err(Error::NoLoginTable(shown)) };
        // SAFETY: the relation is locked; it stays open while it is looked at.
        let target = unsafe {
            let relation = pg_sys::relation_open(oid, pg_sys::NoLock as i32);
            let target = Self::examine(relation, &shown);
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            target?
        };
        target.writer.refuse_session()?;
        target.check_parts()?;
        Ok(target)
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
            if class.relpersistence as u8 != pg_sys::RELPERSISTENCE_PERMANENT {
                return Err(Error::LosesRows { table: shown.to_owned(), part: None });
            }
            if has_rule_instead(relation) {
                return Err(Error::RuleInstead(shown.to_owned()));
            }
            let found = PgTupleDesc::from_pg_unchecked((*relation).rd_att);
            let columns = Columns::examine(&found, shown)?;
            let schema = CStr::from_ptr(pg_sys::get_namespace_name(class.relnamespace));
            let table = CStr::from_ptr(class.relname.data.as_ptr());
            let name = CStr::from_ptr(pg_sys::quote_qualified_identifier(schema.as_ptr(), table.as_ptr()));
            let insert = insert_statement(name, &columns);
            let triggers = match (*relation).trigdesc.as_ref() {
                Some(all) => std::slice::from_raw_parts(all.triggers, all.numtriggers as usize),
                None => &[],
            };
            let oid = (*relation).rd_id;
            let is_partitioned = class.relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
            let may_wait = is_partitioned || triggers.iter().any(|trigger| trigger.tgdeferrable);
            let check_now = if may_wait { check_now(oid)? } else { None };
            let writer = Powerless::find(RoleOfCode::Writer, oid)?;
            let has_row_security = class.relrowsecurity;
            let shown = shown.to_owned();
            Ok(Self { shown, oid, insert, writer, is_partitioned, has_row_security, check_now, columns })
        }
    }

    /// Refuses partitions that lose their rows at a crash, or keep them on another server: the ledger would
    /// still know their messages. Looked at after the rows were inserted, it holds: a partition that has got
    /// rows is locked until the transaction ends.
    pub(super) fn check_parts(&self) -> Result<(), Error> {
        if !self.is_partitioned {
            return Ok(());
        }
        let loses =
            plan::catalog_row(LOSES, || vec![self.oid.into()], |row| row.get_or_null::<OwnedText>(1))?;
        match loses {
            None => Ok(()),
            Some(OwnedText(part)) => Err(Error::LosesRows {
                table: self.shown.clone(),
                part: Some(String::from_utf8_lossy(&part).into_owned()),
            }),
        }
    }

    /// Has every constraint checked with the insert from now on. What of these waits already is checked now.
    pub(super) fn defer_nothing(&self) -> Result<(), Error> {
        let Some(check_now) = &self.check_now else { return Ok(()) };
        self.no_other_waits()?;
        // Of the table's owner's choice, so no plan of it is kept.
        let set = || plan::write_once(Meant::only(&[]), check_now, Vec::new).map(drop);
        attempt(|| self.writer.run(|| check_constraints(set)), |_| true)
            .map_err(|failure| self.explain(&failure))?
    }

    /// Refuses what waits under a name of the table's constraints in a table beside it: PostgreSQL knows them by their names,
    /// and up to 17 the caller's own code would run as the writer.
    fn no_other_waits(&self) -> Result<(), Error> {
        let read = |row: &plan::Row<'_>| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<OwnedText>(2)?));
        for (table, name) in plan::catalog(SAME_NAME, || vec![self.oid.into()], read)? {
            // SAFETY: a look at what the transaction has queued (trigger.h).
            if unsafe { pg_sys::AfterTriggerPendingOnRel(table) } {
                return Err(Error::SameNameWaits(String::from_utf8_lossy(&name.0).into_owned()));
            }
        }
        Ok(())
    }

    /// Why rows could not be inserted. What the server said may hold values of a row, and is dropped.
    pub(super) fn explain(&self, failure: &Failure) -> Error {
        if let Some(left) = failure.left {
            return left.into();
        }
        let table = self.shown.clone();
        if let Some(error) = role_of_code::refused(&failure.sqlstate) {
            return error;
        }
        if failure.sqlstate == *b"40001" && was_exchanged() {
            return Error::Exchanged;
        }
        if failure.sqlstate == *b"42501"
            && let Err(error) = self.has_rights()
        {
            return error;
        }
        Error::NotInserted { table, sqlstate: failure.sqlstate }
    }

    /// Refuses a table that could take no row at all: a right, a policy or a default is missing. What the table's
    /// own code makes of a row, only a row can tell.
    pub(super) fn rehearse(&self) -> Result<(), Error> {
        self.has_rights()?;
        if self.has_row_security {
            self.has_a_policy()?;
        }
        self.has_defaults()
    }

    /// Refuses a table with a column that logins have no value for, and that takes no NULL.
    fn has_defaults(&self) -> Result<(), Error> {
        match plan::catalog_row(UNFILLED, || vec![self.oid.into()], |row| row.get_or_null::<OwnedText>(1))? {
            None => Ok(()),
            Some(OwnedText(columns)) => Err(Error::Unfilled {
                table: self.shown.clone(),
                columns: String::from_utf8_lossy(&columns).into_owned(),
            }),
        }
    }

    /// Refuses a table for which the writer lacks a right.
    fn has_rights(&self) -> Result<(), Error> {
        let arguments = || vec![self.oid.into(), self.writer.role.into()];
        match plan::catalog_row(LACKS, arguments, |row| row.get_or_null::<OwnedText>(1))? {
            None => Ok(()),
            Some(OwnedText(right)) => Err(Error::WriterLacks {
                table: self.shown.clone(),
                right: String::from_utf8_lossy(&right).into_owned(),
            }),
        }
    }

    /// Refuses a table whose row level security has no policy that lets the writer insert anything.
    pub(super) fn has_a_policy(&self) -> Result<(), Error> {
        let arguments = || vec![self.oid.into(), self.writer.role.into()];
        match plan::catalog_row(HAS_POLICY, arguments, |row| row.get(1))? {
            true => Ok(()),
            false => Err(Error::NoPolicy(self.shown.clone())),
        }
    }

    /// Refuses a table that could not take the tokens of `masker`.
    pub(super) fn has_room_for_tokens(&self, masker: &Masker) -> Result<(), Error> {
        self.columns.has_room_for_tokens(masker, &self.shown)
    }
}

/// The names of the constraints of a table and its partitions that may be deferred and that an INSERT is checked for. (A key
/// that refers to it from a table of another schema is none.) A partition's own copy follows the one that it is of.
const DEFERRABLE: &str = "WITH tree AS MATERIALIZED (
        SELECT $1 AS id UNION SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1)
    ), found AS MATERIALIZED (
        SELECT DISTINCT c.oid, c.conname, c.connamespace, c.conparentid
        FROM tree
        JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) tree.id AND t.tgdeferrable
            AND t.tgtype & 4 OPERATOR(pg_catalog.<>) 0
        JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) t.tgconstraint
    )
    SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, f.conname), ', ')
    FROM found AS f JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.connamespace
    WHERE f.conparentid NOT IN (SELECT oid FROM found)";

/// Other tables with a constraint that may be deferred, named like one of those, and their partitions.
const SAME_NAME: &str = "WITH RECURSIVE tree AS MATERIALIZED (
        SELECT $1 AS id UNION SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1)
    ), found (id, conrelid) AS (
        SELECT o.oid, o.conrelid
        FROM tree
        JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) tree.id AND t.tgdeferrable
        JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) t.tgconstraint
        JOIN pg_catalog.pg_constraint o ON o.conname OPERATOR(pg_catalog.=) c.conname
            AND o.connamespace OPERATOR(pg_catalog.=) c.connamespace AND o.condeferrable
        UNION -- those of partitions, whatever their names
        SELECT p.oid, p.conrelid FROM found JOIN pg_catalog.pg_constraint p ON p.conparentid OPERATOR(pg_catalog.=) found.id
    )
    SELECT DISTINCT o.conrelid, o.conrelid::pg_catalog.regclass::pg_catalog.text
    FROM found AS o
    WHERE o.conrelid OPERATOR(pg_catalog.<>) 0 AND o.conrelid NOT IN (SELECT id FROM tree)";

fn check_now(table: pg_sys::Oid) -> Result<Option<String>, Error> {
    let names = plan::catalog_row(DEFERRABLE, || vec![table.into()], |row| row.get_or_null::<String>(1))?;
    Ok(names.map(|names| format!("SET CONSTRAINTS {names} IMMEDIATE")))
}

/// A partition that is foreign, temporary or unlogged. One that is about to be detached is among them, as it is for an older
/// snapshot.
const LOSES: &str = "WITH RECURSIVE tree (id) AS (
        SELECT $1 UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.id
    )
    SELECT pg_catalog.min(c.oid::pg_catalog.regclass::text)
    FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.id
    WHERE c.relkind = 'f' OR c.relpersistence <> 'p'";

/// A right that inserting into table $1 needs and that role $2 lacks: on the schema, the columns, or a
/// sequence that the default of another column takes numbers from.
const LACKS: &str = "SELECT CASE
        WHEN NOT pg_catalog.has_schema_privilege($2, c.relnamespace, 'USAGE')
            THEN pg_catalog.format('USAGE ON SCHEMA %s', c.relnamespace::pg_catalog.regnamespace)
        WHEN NOT (SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege($2, $1, a.attnum, 'INSERT'))
                FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = $1 AND a.attname IN ('user_id', 'device_type', 'masked_ip', 'masked_device_id',
                    'locale', 'app_version', 'create_date', 'masked_ip_network'))
            THEN pg_catalog.format('INSERT ON TABLE %s', c.oid::pg_catalog.regclass)
        ELSE (SELECT pg_catalog.min(pg_catalog.format('USAGE ON SEQUENCE %s', s.oid::pg_catalog.regclass))
            FROM pg_catalog.pg_attrdef AS f
            JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
            WHERE f.adrelid = $1 AND a.attname NOT IN ('user_id', 'device_type', 'masked_ip', 'masked_device_id',
                    'locale', 'app_version', 'create_date', 'masked_ip_network')
              AND CASE WHEN s.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege($2, s.oid, 'USAGE, UPDATE') END)
    END
    FROM pg_catalog.pg_class AS c WHERE c.oid = $1";

/// Whether table $1 has a permissive policy for INSERT that holds for role $2 or for everybody.
const HAS_POLICY: &str = "SELECT EXISTS (
        SELECT FROM pg_catalog.pg_policy
        WHERE polrelid = $1 AND polpermissive AND polcmd IN ('a', '*') AND polroles && ARRAY[$2, 0::pg_catalog.oid]
    )";

/// The columns of table $1 that would be NULL in each row and must not be, by themselves or by their domain. A
/// trigger that runs before the insert may fill them: then only a row can tell.
const UNFILLED: &str =
    "SELECT pg_catalog.string_agg(pg_catalog.format('\"%s\"', a.attname), ', ' ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attname NOT IN ('user_id', 'device_type', 'masked_ip', 'masked_device_id', 'locale', 'app_version',
          'create_date', 'masked_ip_network')
      AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AND t.typdefault IS NULL
      AND (a.attnotnull OR (
          WITH RECURSIVE domains (base, takes_no_null) AS (
              SELECT t.typbasetype, t.typnotnull
              UNION ALL
              SELECT b.typbasetype, b.typnotnull
              FROM domains AS d JOIN pg_catalog.pg_type AS b ON b.oid = d.base
          )
          SELECT pg_catalog.bool_or(takes_no_null) FROM domains))
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_trigger AS g
          WHERE g.tgtype & 7 = 7 AND g.tgenabled <> 'D' AND (g.tgrelid = $1 OR g.tgrelid IN (
              SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1) AS p)))"; // FOR EACH ROW BEFORE INSERT

/// The statement that inserts, for a name that is quoted.
fn insert_statement(name: &CStr, columns: &Columns) -> CString {
    let names: Vec<&str> = columns.names().collect();
    let mut sql = Vec::from(*b"INSERT INTO ");
    sql.extend(name.to_bytes());
    sql.extend(format!(" ({}) SELECT ", names.join(", ")).bytes());
    let values: Vec<String> = (1..=names.len()).map(|n| format!("pg_catalog.unnest(${n})")).collect();
    sql.extend(values.join(", ").bytes());
    CString::new(sql).unwrap_or_default() // a name has no 0 in it
}

/// Whether a rule has something else done instead of inserting.
///
/// # Safety
/// `relation` is open.
unsafe fn has_rule_instead(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller; the rules are those of the relation.
    unsafe {
        let Some(rules) = (*relation).rd_rules.as_ref() else { return false };
        let rules = std::slice::from_raw_parts(rules.rules, rules.numLocks as usize);
        rules.iter().any(|rule| (**rule).event == pg_sys::CmdType::CMD_INSERT && (**rule).isInstead)
    }
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
