//! Values that the vault was seen to have, in this process's memory: asking the table costs a few microseconds a
//! value, which is more than masking and storing it.
//!
//! It holds what other transactions see, so no rollback takes that back; and a value that is forgotten leaves its
//! row. Rows that somebody deletes by hand are another matter: therefore it is emptied every few minutes.

use crate::clock::{self, Micros};
use crate::memory;
use pgrx::prelude::*;
use std::cell::RefCell;

/// As many values at most, in eight bytes each.
const SLOTS: usize = 1 << 20;
/// A value has its place in one of so many neighbouring slots, which are one line of the processor's cache.
const WAYS: usize = 8;

/// After this time it begins anew.
const KEPT_FOR: Micros = 10 * 60 * 1_000_000;

const HASH_DIGITS: usize = 64;

thread_local! {
    static KNOWN: RefCell<Known> = const {
        RefCell::new(Known {
            table: pg_sys::InvalidOid,
            since: 0,
            written_by: pg_sys::InvalidTransactionId,
            first_generation: 0,
            slots: Vec::new(),
        })
    };
}

/// For `_PG_init`: see `prepare_thread_locals` there.
pub(crate) fn prepare() {
    KNOWN.with(|_| ());
}

struct Known {
    /// The vault that it is of.
    table: pg_sys::Oid,
    since: Micros,
    /// The last transaction of this session that put values in.
    written_by: pg_sys::TransactionId,
    /// No token of a generation before this one was there.
    first_generation: u32,
    /// Parts of values' hashes, in groups that another part of the hash says; 0 is none.
    slots: Vec<[u64; WAYS]>,
}

/// Forgets what may no longer be so. For every batch.
pub(super) fn begin(table: pg_sys::Oid) {
    KNOWN.with_borrow_mut(|known| {
        let now = clock::exactly();
        if known.slots.is_empty() {
            // Without memory for it, the table is asked.
            let Ok(slots) = memory::list(SLOTS / WAYS) else { return };
            known.slots = slots;
        } else if known.table == table && (0..KEPT_FOR).contains(&(now - known.since)) {
            return;
        }
        known.slots.clear();
        known.slots.resize(SLOTS / WAYS, [0; WAYS]);
        known.table = table;
        known.since = now;
        known.first_generation = 0;
    });
}

/// Whether the vault was seen to have the value of that token.
pub(super) fn has(token: &[u8]) -> bool {
    KNOWN.with_borrow(|known| {
        place_and_mark(token)
            .is_some_and(|(place, mark)| known.slots.get(place).is_some_and(|slots| slots.contains(&mark)))
    })
}

/// The vault was seen to have them. Rows of this transaction's own don't count: it may be rolled back.
pub(super) fn note<'a>(tokens: impl Iterator<Item = &'a [u8]>) {
    KNOWN.with_borrow_mut(|known| {
        if known.written_by == transaction() {
            return;
        }
        for (place, mark) in tokens.filter_map(place_and_mark) {
            if let Some(slots) = known.slots.get_mut(place) {
                // Where all are taken, one makes way that the hash picks.
                let free = slots.iter().position(|slot| *slot == 0);
                slots[free.unwrap_or(mark as usize % WAYS)] = mark;
            }
        }
    });
}

/// Whether the vault was seen to have no token of a generation before that one. (There may be a few later on, of
/// transactions that began before a rotation. `remask` waits for these, and makes one row of two.)
pub(super) fn has_none_before(generation: u32) -> bool {
    KNOWN.with_borrow(|known| known.first_generation == generation)
}

/// The vault was seen to have none.
pub(super) fn note_none_before(generation: u32) {
    KNOWN.with_borrow_mut(|known| known.first_generation = generation);
}

/// This transaction puts values in.
pub(super) fn writes() {
    KNOWN.with_borrow_mut(|known| known.written_by = transaction());
}

/// The transaction that takes messages in; it has entered them into the ledger, so it has an id.
fn transaction() -> pg_sys::TransactionId {
    // SAFETY: a plain call.
    unsafe { pg_sys::GetTopTransactionId() }
}

/// Of the hash of a token, a place and 64 other bits.
fn place_and_mark(token: &[u8]) -> Option<(usize, u64)> {
    let digits = token.len().checked_sub(HASH_DIGITS).and_then(|start| token.get(start..))?;
    let number = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let mark = number(&digits[..16])?;
    let place = number(&digits[16..24])? as usize % (SLOTS / WAYS);
    (mark != 0).then_some((place, mark))
}
