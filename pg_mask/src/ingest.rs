//! From message bodies to rows.
//!
//! A batch goes through these files in order: [`batch`] reads what the forwarder gives, [`ledger`]
//! sorts out what was taken in before, [`rows`] masks and inserts, into what [`target`] found and as the role that
//! [`role_of_code`](crate::role_of_code) is about, and [`quarantine`] keeps the rest; what was masked is put into the
//! [`vault`](crate::vault), where that is on. [`replay`] takes in from the quarantine what now passes,
//! [`unseal`] shows one message to who has the right and a reason.

mod batch;
pub(crate) mod columns;
mod ledger;
mod quarantine;
mod replay;
mod reseal;
mod rows;
pub(crate) mod target;
mod unseal;

use crate::clock::{self, Day};
use crate::error::{Error, OrRaise};
use crate::held;
use crate::keys;
use crate::memory;
use crate::named_tables::lock_own;
use crate::subtransaction::ErrorText;
use crate::text::{self, Text};
use crate::vault::Vault;
use batch::{Batch, Body};
use pg_mask_core::login::Refusal;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use rows::{Maskers, NonePasses, Outcome, Row};
use std::cell::RefCell;
use target::Target;

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn ingest_login_batch(
    message_ids: Option<Array<'_, Text<'_>>>,
    bodies: Option<Array<'_, Text<'_>>>,
    sent_at: Option<Array<'_, TimestampWithTimeZone>>,
    receive_counts: Option<Array<'_, i32>>,
) -> TableIterator<'static, (name!(inserted, i64), name!(duplicate, i64), name!(quarantined, i64))> {
    must_write(c"ingest_login_batch()");
    let (Some(message_ids), Some(bodies), Some(sent_at), Some(receive_counts)) =
        (&message_ids, &bodies, &sent_at, &receive_counts)
    else {
        Err(Error::BatchShape("an argument of ingest_login_batch is NULL")).or_raise()
    };
    let batch = Batch::read(message_ids, bodies, sent_at, receive_counts).or_raise();
    TableIterator::once(take_in(batch).or_raise())
}

/// The same for bodies that no text of PostgreSQL's can be: those with a raw NUL in them, say. They go to the
/// quarantine, byte for byte.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn ingest_login_batch_bytes(
    message_ids: Option<Array<'_, Text<'_>>>,
    bodies: Option<Array<'_, &[u8]>>,
    sent_at: Option<Array<'_, TimestampWithTimeZone>>,
    receive_counts: Option<Array<'_, i32>>,
) -> TableIterator<'static, (name!(inserted, i64), name!(duplicate, i64), name!(quarantined, i64))> {
    must_write(c"ingest_login_batch_bytes()");
    let (Some(message_ids), Some(bodies), Some(sent_at), Some(receive_counts)) =
        (&message_ids, &bodies, &sent_at, &receive_counts)
    else {
        Err(Error::BatchShape("an argument of ingest_login_batch_bytes is NULL")).or_raise()
    };
    let batch = Batch::read(message_ids, bodies, sent_at, receive_counts).or_raise();
    TableIterator::once(take_in(batch).or_raise())
}

/// On a standby, or in a transaction that was told to only read, the error that says so. The extension
/// stays until the transaction ends, which can't be prepared from now on.
fn must_write(function: &'static std::ffi::CStr) {
    held::hold_to_write(function);
}

thread_local! {
    static LAST_QUARANTINED: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
}

/// Of the session's last batch, the places (from 1) of messages that went to the quarantine, of the first 100 at most.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
fn last_quarantined() -> Vec<i32> {
    LAST_QUARANTINED.with_borrow(Clone::clone)
}

/// How many were inserted, were duplicates, were quarantined.
fn take_in(batch: Batch<'_>) -> Result<(i64, i64, i64), Error> {
    const MOST_TOLD: usize = 100;
    LAST_QUARANTINED.take();
    // What is wrong with the set-up is an error for an empty batch, too: the forwarder asks so.
    let target = Target::find()?;
    lock_own(c"quarantine")?;
    let vault = Vault::open()?;
    let keys = keys::newest()?;
    target.has_room_for_tokens(&keys.pii)?;
    if batch.messages.is_empty() {
        target.rehearse()?;
    }

    let maskers = Maskers::new(&keys, &target, vault.as_ref())?;

    let (fresh, duplicate) = ledger::claim(batch.messages)?;
    let bodies: Vec<_> = fresh.iter().map(|message| message.body.map(Body::to_utf8)).collect();
    let mut rows = memory::list(fresh.len())?;
    let mut refused = Vec::new();
    for (message, body) in fresh.iter().zip(&bodies) {
        let row = match body {
            Some(body) => Row::parse(body, message.create_date, &target, &maskers),
            None => Err(Refusal::InvalidJson),
        };
        match row {
            Ok(row) => rows.push((row, message)),
            Err(reason) => refused.push((message, reason)),
        }
    }
    let Outcome { inserted, passed, rejected } = rows::insert(&target, &rows, NonePasses::Fails)?;
    if let Some(vault) = vault {
        vault.keep(&keys, passed.into_iter().flat_map(Row::masked_values))?;
    }
    refused.extend(rejected);
    refused.sort_unstable_by_key(|(message, _)| message.place);
    let quarantined = refused.len() as i64;
    let places = refused.iter().take(MOST_TOLD).map(|(message, _)| message.place as i32 + 1).collect();
    quarantine::keep(&keys, refused)?;
    LAST_QUARANTINED.set(places);
    Ok((inserted, duplicate, quarantined))
}

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn ingest_login(payload: JsonbText<'_>, create_date: default!(Option<Date>, "NULL")) {
    must_write(c"ingest_login()");
    let day = create_date.map_or_else(|| clock::day_of(clock::now()), |date| date.to_pg_epoch_days());
    take_in_one(payload.0, day).or_raise();
}

fn take_in_one(body: &[u8], day: Day) -> Result<(), Error> {
    memory::for_messages(1, body.len())?;
    let target = Target::find()?;
    let vault = Vault::open()?;
    let keys = keys::newest()?;
    target.has_room_for_tokens(&keys.pii)?;
    let maskers = Maskers::new(&keys, &target, vault.as_ref())?;
    let row = Row::parse(body, day, &target, &maskers).map_err(Error::Refused)?;
    rows::insert_one(&target, &row)?;
    vault.map_or(Ok(()), |vault| vault.keep(&keys, row.masked_values()))
}

/// Whether the login table takes a login, and what the server says if it does not. It is taken back in any case.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // pgrx reads the columns of a row here
fn try_login(
    payload: JsonbText<'_>,
) -> TableIterator<
    'static,
    (
        name!(sqlstate, String),
        name!(message, String),
        name!(detail, Option<String>),
        name!(hint, Option<String>),
        name!(context, Option<String>),
    ),
> {
    must_write(c"try_login()");
    let (sqlstate, message, detail, hint, context) = try_one(payload.0).or_raise();
    // In another encoding than UTF-8, what the server says is known letter by letter only as far as it is ASCII.
    let shown = |text: String| match text::server_is_utf8_or_unknown() {
        true => text,
        false => text.replace(|letter: char| !letter.is_ascii(), "?"),
    };
    TableIterator::once((sqlstate, shown(message), detail.map(shown), hint.map(shown), context.map(shown)))
}

type Said = (String, String, Option<String>, Option<String>, Option<String>);

fn try_one(body: &[u8]) -> Result<Said, Error> {
    memory::for_messages(1, body.len())?;
    let target = Target::find()?;
    let keys = keys::newest()?;
    target.has_room_for_tokens(&keys.pii)?;
    let maskers = Maskers::new(&keys, &target, None)?;
    let today = clock::day_of(clock::now());
    let row = Row::parse(body, today, &target, &maskers).map_err(Error::Refused)?;
    let Err(failure) = rows::try_one(&target, &row)? else {
        return Ok(("00000".to_owned(), "the table takes this login".to_owned(), None, None, None));
    };
    let sqlstate = String::from_utf8_lossy(&failure.sqlstate).into_owned();
    match failure.text {
        Some(text) => {
            let ErrorText { message, detail, hint, context } = *text;
            Ok((sqlstate, message, detail, hint, context))
        }
        None => Err(target.explain(&failure)),
    }
}

/// A `jsonb` argument as JSON text in UTF-8.
struct JsonbText<'a>(&'a [u8]);

impl_sql_translatable!(JsonbText<'_>, arg_only = "jsonb");

impl FromDatum for JsonbText<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, null: bool, _: pg_sys::Oid) -> Option<Self> {
        if null {
            return None;
        }
        // SAFETY: a jsonb is a varlena with a JsonbContainer as its data; the text is a C string in
        // the memory context of the call.
        unsafe {
            let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
            let size = pgrx::varlena::varsize_any_exhdr(jsonb.cast());
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*jsonb).root, size as i32);
            let text = std::ffi::CStr::from_ptr(text).to_bytes();
            Some(Self(text::bytes_to_utf8(text)))
        }
    }
}

// SAFETY: the SQL declaration says jsonb, and `from_polymorphic_datum` reads one.
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for JsonbText<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or(Self(b"null")) }
    }
}
