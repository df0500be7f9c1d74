//! A table whose tokens are lifted: whose it is, which of its columns hold tokens, and what the caller may
//! do to it.

use super::{owners_code, writers};
use crate::error::Error;
use crate::guesses::{self, BudgetsOf};
use crate::ingest::columns;
use crate::keys::Keys;
use crate::named_tables::{Meant, look_up, qualified_name};
use crate::on_behalf::OnBehalf;
use crate::own_roles::RoleOfCode;
use crate::text::Text;
use crate::{plan, settings};
use pg_mask_core::mask::{Masker, NETWORK_DOMAIN};
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// No table has more columns (htup_details.h).
const MOST_COLUMNS: usize = pg_sys::MaxHeapAttributeNumber as usize;

/// Columns whose names begin so hold tokens.
const TOKEN_COLUMNS: &str = "masked_";

/// A table without partitions, or one partition. It is locked against changes of its definition until the
/// transaction ends.
pub(super) struct Part {
    /// Its name with its schema, quoted.
    pub(super) name: String,
    pub(super) on_behalf: OnBehalf,
    pub(super) columns: Vec<Column>,
    /// How many blocks it has now.
    pub(super) blocks: i64,
    /// Whether pg_mask alone writes there as pgmask_writer: the login table or a partition, and not a table that inherits from it.
    is_writers: bool,
    /// Whether the caller has the rights of its owner.
    pub(super) is_callers: bool,
    /// Whether the caller may have hashes without a key lifted.
    pub(super) lifts_generation_0: bool,
    /// The table to update where new tokens may move a row to another partition.
    pub(super) root: Option<Root>,
    pub(super) oid: pg_sys::Oid,
}

/// The root of a tree of partitions.
pub(super) struct Root {
    /// Its name with its schema, quoted.
    pub(super) name: String,
    owner: pg_sys::Oid,
    pub(super) oid: pg_sys::Oid,
}

/// A column with tokens.
pub(super) struct Column {
    pub(super) plain_name: String,
    /// Its name, quoted.
    pub(super) name: String,
    pub(super) masker: Rc<Masker>,
}

/// Whether the login table is `$1` or a table that `$1` is a partition of, or inherits from.
const IS_OF_LOGIN_TABLE: &str = "WITH RECURSIVE ancestors (id) AS (
        SELECT $1
        UNION SELECT i.inhparent FROM ancestors JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = ancestors.id
    )
    SELECT EXISTS (SELECT FROM ancestors WHERE id = $2)";

/// The root of the partitions that `$1` is one of, if one of the columns `$2` decides about partitions. (PostgreSQL notes each column of a
/// key, and of an expression in it, as a part that the table can't do without.)
const ROOT: &str = "SELECT pg_catalog.pg_partition_root($1)::pg_catalog.oid
    WHERE EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors($1) AS a
        JOIN pg_catalog.pg_attribute AS c ON c.attrelid OPERATOR(pg_catalog.=) a.relid
        JOIN pg_catalog.pg_depend AS d ON d.objid OPERATOR(pg_catalog.=) c.attrelid AND d.objsubid OPERATOR(pg_catalog.=) c.attnum
        WHERE c.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2)
          AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
          AND d.refclassid OPERATOR(pg_catalog.=) d.classid AND d.refobjid OPERATOR(pg_catalog.=) d.objid
          AND d.refobjsubid OPERATOR(pg_catalog.=) 0 AND d.deptype OPERATOR(pg_catalog.=) 'i')";

impl Part {
    /// What a statement that reads it names.
    pub(super) fn meant(&self) -> Meant {
        self.on_behalf.meant(self.oid)
    }

    /// What the statement that writes lifted tokens names.
    pub(super) fn meant_to_write(&self) -> Meant {
        match &self.root {
            Some(root) => Meant::with_rights_of(root.owner, &[root.oid]),
            None => self.meant(),
        }
    }

    /// The budgets in which hashes without a key count.
    pub(super) fn budgets(&self) -> Result<BudgetsOf, Error> {
        let columns = self.columns.iter().map(|column| column.plain_name.clone()).collect();
        Ok(BudgetsOf::roles(&writers::find(self.oid, columns, self.is_writers)?))
    }

    /// Opens and locks a table and compares it with what is asked for.
    pub(super) fn open(
        oid: pg_sys::Oid,
        columns: Option<&Array<'_, Text<'_>>>,
        domain: Option<Text<'_>>,
        keys: &Keys,
    ) -> Result<Self, Error> {
        // SAFETY: the relation is locked, and open while it is looked at; the lock is kept.
        unsafe {
            let relation = pg_sys::try_relation_open(oid, pg_sys::RowExclusiveLock as i32);
            if relation.is_null() {
                return Err(Error::NoTable { oid: oid.to_u32() });
            }
            let part = Self::examine(relation, columns, domain, keys);
            pg_sys::relation_close(relation, pg_sys::NoLock as i32);
            part
        }
    }

    /// # Safety
    /// `relation` is open.
    unsafe fn examine(
        relation: pg_sys::Relation,
        wanted: Option<&Array<'_, Text<'_>>>,
        domain: Option<Text<'_>>,
        keys: &Keys,
    ) -> Result<Self, Error> {
        // SAFETY: by the caller; names are copied before anything can move them.
        unsafe {
            let class = &*(*relation).rd_rel;
            let oid = (*relation).rd_id;
            let name = qualified_name(class);
            if class.relkind as u8 != pg_sys::RELKIND_RELATION {
                return Err(Error::NotATable(name));
            }
            let caller = pg_sys::GetUserId();
            let owns = pg_sys::has_privs_of_role(caller, class.relowner);
            let is_login_table = is_of_login_table(oid)?;
            if !owns && !is_login_table {
                return Err(Error::NotOwner(name));
            }
            // The login table's tokens are a contract; a stranger to it may not say otherwise.
            if !owns && (domain.is_some() || wanted.is_some()) {
                return Err(Error::ColumnsOfLoginTable(name));
            }
            // The names are compared with each other in one go, which nothing can interrupt.
            if let Some(given) = wanted.map(Array::len).filter(|given| *given > MOST_COLUMNS) {
                return Err(Error::TooManyColumns { given, most: MOST_COLUMNS });
            }
            let mut columns = Vec::new();
            let mut plain_names = Vec::new();
            for column in PgTupleDesc::from_pg_unchecked((*relation).rd_att).iter() {
                // One that is no UTF-8 is not ours.
                let Ok(plain) = std::str::from_utf8(columns::name_of(column)) else { continue };
                let is_wanted = match wanted {
                    Some(wanted) => {
                        wanted.iter().flatten().any(|name| name.as_server_bytes() == plain.as_bytes())
                    }
                    None => plain.starts_with(TOKEN_COLUMNS) && column.attgenerated == 0,
                };
                if column.attisdropped || !is_wanted {
                    continue;
                }
                let masker = match domain {
                    Some(domain) => keys.masker(domain)?,
                    None if plain == columns::NETWORK => keys.masker(Text::from_ascii(NETWORK_DOMAIN))?,
                    None => keys.pii.clone(),
                };
                has_room(column, &name, masker.token_len())?;
                columns.push(Column { plain_name: plain.to_owned(), name: quoted(plain), masker });
                plain_names.push(plain.to_owned());
            }
            let is_found =
                |name: &Text<'_>| plain_names.iter().any(|found| found.as_bytes() == name.as_server_bytes());
            let missing = wanted.and_then(|wanted| wanted.iter().flatten().find(|name| !is_found(name)));
            if let Some(missing) = missing {
                // No name is longer.
                let is_short = missing.as_server_bytes().len() < pg_sys::NAMEDATALEN as usize;
                let column =
                    if is_short { missing.to_utf8_if_it_can() } else { Cow::Borrowed(&b"\xE2\x80\xA6"[..]) };
                let column = String::from_utf8_lossy(&column).into_owned();
                return Err(Error::NoSuchColumn { table: name, column });
            }
            if columns.is_empty() {
                return Err(Error::NoTokenColumns(name));
            }
            let root = if class.relispartition { root(oid, &plain_names)? } else { None };
            if let Some(root) =
                root.as_ref().filter(|root| !is_login_table && !pg_sys::has_privs_of_role(caller, root.owner))
            {
                return Err(Error::NotOwner(root.name.clone()));
            }
            let blocks = pg_sys::RelationGetNumberOfBlocksInFork(relation, pg_sys::ForkNumber::MAIN_FORKNUM);
            // Partitions that rows move to are not locked, so others may add code there at any moment.
            let can_be_owners = owns && root.is_none();
            Ok(Self {
                name,
                on_behalf: on_behalf(oid, class.relowner, can_be_owners, is_login_table)?,
                columns,
                blocks: blocks.into(),
                is_writers: is_login_table
                    && (class.relispartition || look_up(&settings::login_table()) == Some(oid)),
                is_callers: owns,
                lifts_generation_0: is_login_table || guesses::is_unlimited(caller),
                root,
                oid,
            })
        }
    }
}

/// As whom code of a table runs. Where there are no roles (sql/00_roles.sql), it has to be known to be the owner's.
fn on_behalf(
    table: pg_sys::Oid,
    owner: pg_sys::Oid,
    can_be_owners: bool,
    is_login_table: bool,
) -> Result<OnBehalf, Error> {
    let is_owners = || -> Result<bool, Error> { Ok(can_be_owners && owners_code::is_all(table, owner)?) };
    if !is_login_table {
        return match is_owners()? {
            true => Ok(OnBehalf::with_owners_code(owner)),
            false => OnBehalf::with_code_as(RoleOfCode::Nobody, owner, table),
        };
    }
    let with_writer = OnBehalf::with_code_as(RoleOfCode::Writer, owner, table);
    match with_writer {
        Err(Error::NoRole(_)) if is_owners()? => Ok(OnBehalf::with_owners_code(owner)),
        found => found,
    }
}

fn is_of_login_table(oid: pg_sys::Oid) -> Result<bool, Error> {
    let Some(login_table) = look_up(&settings::login_table()) else { return Ok(false) };
    plan::catalog_row(IS_OF_LOGIN_TABLE, || vec![oid.into(), login_table.into()], |row| row.get(1))
}

/// The relations of a tree of partitions, and whether each has partitions, or is on another server. One that is about to be
/// detached is among them, as it is for an older snapshot.
const TREE: &str = "WITH RECURSIVE tree (id) AS (
        SELECT $1 UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits AS i ON i.inhparent = tree.id
    )
    SELECT c.oid, c.relkind = 'p', c.relkind = 'f', c.oid::pg_catalog.regclass::pg_catalog.text
    FROM tree JOIN pg_catalog.pg_class AS c ON c.oid = tree.id";

/// Has no partition added to a tree until the transaction ends, and refuses one on another server, which would be asked as
/// the owner of the root, with that role's rights: whoever owns a part of the tree may add one.
fn hold_partitions(root: pg_sys::Oid) -> Result<(), Error> {
    let mut held = HashSet::new();
    loop {
        let read = |row: &plan::Row<'_>| {
            Ok((row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?, row.get::<bool>(3)?, row.get::<String>(4)?))
        };
        let tree = plan::catalog(TREE, || vec![root.into()], read)?;
        if let Some((.., name)) = tree.iter().find(|(_, _, is_foreign, _)| *is_foreign) {
            return Err(Error::ForeignPartition(name.clone()));
        }
        let before = held.len();
        for (table, ..) in tree.iter().filter(|(_, has_partitions, ..)| *has_partitions) {
            if held.insert(*table) {
                // SAFETY: a plain call. This lock is what adding a partition waits for; rows may be written meanwhile.
                unsafe { pg_sys::LockRelationOid(*table, pg_sys::ShareUpdateExclusiveLock as i32) };
            }
        }
        if held.len() == before {
            return Ok(());
        }
    }
}

fn root(oid: pg_sys::Oid, columns: &[String]) -> Result<Option<Root>, Error> {
    let columns = Vec::from(columns);
    let root = plan::catalog(ROOT, || vec![oid.into(), columns.into()], |row| row.get::<pg_sys::Oid>(1))?;
    let [root] = root[..] else { return Ok(None) };
    hold_partitions(root)?;
    // SAFETY: the relation is locked, and open while it is looked at; the lock is kept.
    unsafe {
        let relation = pg_sys::relation_open(root, pg_sys::RowExclusiveLock as i32);
        let class = &*(*relation).rd_rel;
        let (name, owner) = (qualified_name(class), class.relowner);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        Ok(Some(Root { name, owner, oid: root }))
    }
}

/// Refuses a column that can't hold tokens of `needed` bytes.
///
/// # Safety
/// `column` belongs to an open relation.
unsafe fn has_room(column: &pg_sys::FormData_pg_attribute, table: &str, needed: usize) -> Result<(), Error> {
    let name = || column.name().to_owned();
    if column.attgenerated != 0 {
        return Err(Error::GeneratedColumn { table: table.to_owned(), column: name() });
    }
    let mut modifier = column.atttypmod;
    // SAFETY: a catalog look-up.
    let base = unsafe { pg_sys::getBaseTypeAndTypmod(column.atttypid, &mut modifier) };
    if !matches!(base, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID) {
        return Err(Error::NotAText { table: table.to_owned(), column: name() });
    }
    // SAFETY: by the caller.
    match unsafe { columns::limit_of(column) } {
        Some(limit) if limit < needed => {
            Err(Error::NarrowTokenColumn { table: table.to_owned(), column: name(), needed })
        }
        _ => Ok(()),
    }
}

fn quoted(name: &str) -> String {
    let Ok(name) = CString::new(name) else { unreachable!("a name holds no NUL") };
    // SAFETY: a plain call; what is returned is a copy.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())).to_string_lossy().into_owned() }
}
