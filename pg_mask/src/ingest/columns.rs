//! The columns of the login table that are written: which of them there are, and what they can hold.

use crate::error::Error;
use pg_mask_core::login::{Field, Refusal};
use pg_mask_core::mask::Masker;
use pgrx::PgTupleDesc;
use pgrx::prelude::*;
use std::ffi::CStr;

/// The columns that every login table has, in the order of the insert's parameters.
const REQUIRED: [&str; 7] =
    ["user_id", "device_type", "masked_ip", "masked_device_id", "locale", VERSION, "create_date"];
/// The column that is an integer or a text.
const VERSION: &str = "app_version";
/// A column that gets the token of the address's network, where the table has it. It is the last parameter.
pub(crate) const NETWORK: &str = "masked_ip_network";

/// What a table's columns can hold.
pub(super) struct Columns {
    /// The most characters that each of [`REQUIRED`] takes, and [`NETWORK`] as the last.
    limits: [Option<usize>; REQUIRED.len() + 1],
    pub(super) version_is_text: bool,
    pub(super) has_network: bool,
}

impl Columns {
    /// Compares the columns of a table with what is written into them. `table` names it in errors.
    pub(super) fn examine(found: &PgTupleDesc<'_>, table: &str) -> Result<Self, Error> {
        let mut columns =
            Self { limits: [None; REQUIRED.len() + 1], version_is_text: false, has_network: false };
        for (at, name) in REQUIRED.into_iter().chain([NETWORK]).enumerate() {
            let column =
                found.iter().find(|column| !column.attisdropped && name_of(column) == name.as_bytes());
            let Some(column) = column else {
                if name == NETWORK {
                    continue;
                }
                return Err(Error::NoColumn { table: table.to_owned(), column: name });
            };
            if column.attgenerated != 0 || column.attidentity as u8 == b'a' {
                return Err(Error::ColumnNotWritable { table: table.to_owned(), column: name });
            }
            let fits = |ours| takes(column.atttypid, ours);
            let is_fit = match name {
                VERSION => {
                    columns.version_is_text = is_text(column.atttypid);
                    columns.version_is_text || fits(pg_sys::INT4OID)
                }
                "create_date" => fits(pg_sys::DATEOID),
                _ => fits(pg_sys::TEXTOID),
            };
            if !is_fit {
                return Err(Error::ColumnType {
                    table: table.to_owned(),
                    column: name,
                    found: type_name(column.atttypid, column.atttypmod),
                    wanted: wanted(name),
                });
            }
            columns.has_network |= name == NETWORK;
            // SAFETY: the column belongs to an open relation, as the descriptor does.
            columns.limits[at] = unsafe { limit_of(column) };
        }
        Ok(columns)
    }

    /// The names of the columns that are written, in the order of the insert's parameters.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        REQUIRED.into_iter().chain(self.has_network.then_some(NETWORK))
    }

    /// Refuses a text with more characters than the column of `field` takes.
    pub(super) fn check_length(&self, field: Field, text: &str) -> Result<(), Refusal> {
        let limit = REQUIRED.iter().position(|column| *column == field.name()).and_then(|at| self.limits[at]);
        // No text has more characters than bytes.
        match limit {
            Some(limit) if text.len() > limit && text.chars().count() > limit => Err(Refusal::TooLong(field)),
            _ => Ok(()),
        }
    }

    /// Refuses a table that could not take the tokens of `masker`.
    pub(super) fn has_room_for_tokens(&self, masker: &Masker, table: &str) -> Result<(), Error> {
        let needed = masker.token_len();
        for (column, limit) in REQUIRED.into_iter().chain([NETWORK]).zip(self.limits) {
            if column.starts_with("masked_") && limit.is_some_and(|limit| limit < needed) {
                return Err(Error::NarrowColumn { table: table.to_owned(), column, needed });
            }
        }
        Ok(())
    }
}

/// Whether a column of the type `column` takes values of the type `ours` in an INSERT (manual, "Value
/// Storage").
fn takes(column: pg_sys::Oid, ours: pg_sys::Oid) -> bool {
    let assignment = pg_sys::CoercionContext::COERCION_ASSIGNMENT;
    // SAFETY: catalog look-ups.
    unsafe { pg_sys::can_coerce_type(1, &ours, &column, assignment) }
}

/// Whether a column is a text, also under a domain.
fn is_text(column: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    let base = unsafe { pg_sys::getBaseType(column) };
    matches!(base, pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID)
}

fn type_name(id: pg_sys::Oid, modifier: i32) -> String {
    // SAFETY: a catalog look-up; what it returns is copied.
    unsafe { CStr::from_ptr(pg_sys::format_type_with_typemod(id, modifier)).to_string_lossy().into_owned() }
}

/// The type that sql/01_user_logins.sql gives a column.
fn wanted(column: &str) -> &'static str {
    match column {
        VERSION => "integer or text",
        "create_date" => "date",
        _ => "text",
    }
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

/// A column's name in the server's encoding, which need not be UTF-8.
pub(crate) fn name_of(column: &pg_sys::FormData_pg_attribute) -> &[u8] {
    // SAFETY: a name ends with a NUL (name.h).
    unsafe { CStr::from_ptr(column.attname.data.as_ptr()) }.to_bytes()
}
