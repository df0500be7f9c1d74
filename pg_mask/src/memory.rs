//! Memory whose size others choose.
//!
//! Where there is no memory, Rust's ordinary allocation ends the process, and PostgreSQL then ends every
//! session of the server. Parsers and the like allocate in that way out of our sight. So a function that is
//! given something of any size bounds it, and makes sure that there is memory for all of its work before it
//! begins; and what is large is allocated in a way that can fail. (`.clippy.toml` finds what is not.) Work on
//! small things, too, begins only where there is memory for it ([`for_a_call`]); if that is gone in the midst
//! of it, the [`allocator`] has a reserve.

use crate::allocator;
use crate::error::{self, Error};
use pgrx::prelude::*;
use std::cell::Cell;

/// The most messages in a batch.
pub(crate) const MOST_MESSAGES: usize = 100_000;
/// The most bytes of message ids and bodies in a batch, or of one event.
pub(crate) const MOST_BYTES: usize = 64 << 20;

/// The work on a message takes so much, whatever is in it: entries of lists, tokens.
const PER_MESSAGE: usize = 2 << 10;
/// Each byte of a message is in so many places at most: as it is parsed, as text without escapes, as sealed
/// body, and in an array for a statement, which grows by copying itself and is copied once more.
const COPIES: usize = 10;
/// So much is enough for what a call does once a statement: reading the keyring, deriving a key, an error message.
const PER_CALL: usize = 64 << 10;

/// Refuses what is too large, or is more than there is memory for now.
pub(crate) fn for_messages(messages: usize, bytes: usize) -> Result<(), Error> {
    if messages > MOST_MESSAGES {
        return Err(Error::TooManyMessages { most: MOST_MESSAGES });
    }
    if bytes > MOST_BYTES {
        return Err(Error::TooManyBytes { most: MOST_BYTES });
    }
    for_stored(messages, bytes)
}

/// Refuses stored messages that there is no memory for now.
pub(crate) fn for_stored(messages: usize, bytes: usize) -> Result<(), Error> {
    available(messages.saturating_mul(PER_MESSAGE).saturating_add(bytes.saturating_mul(COPIES)))
}

/// Refuses to begin anything while there is no memory. Not for what is done for each row.
#[cold]
pub(crate) fn for_a_call() -> Result<(), Error> {
    available(PER_CALL)
}

thread_local! {
    static LET_GO: Cell<fn()> = const { Cell::new(|| ()) };
}

/// Has `forget` called when the reserve is low: it frees what can be made anew. For `_PG_init`.
pub(crate) fn when_low(forget: fn()) {
    LET_GO.set(forget);
}

/// Asks the system for so many bytes, and gives them back to be allocated for what they are needed for.
pub(crate) fn available(bytes: usize) -> Result<(), Error> {
    if allocator::is_low() {
        LET_GO.get()(); // of what is kept in the reserve
    }
    match allocator::system_has(bytes) && !allocator::is_low() {
        true => Ok(()),
        false => Err(Error::Memory),
    }
}

thread_local! {
    static ROOM: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
}

/// Makes the context of [`with_room`]. For `_PG_init`.
pub(crate) fn make_room() {
    /// More than the settings of the roles that a value counts for, which anybody may make long; longer ones have
    /// blocks of their own.
    const SIZE: usize = 128 << 10;
    // SAFETY: a plain call; the name is static. The first block is kept as long as the process lives.
    ROOM.set(unsafe {
        pg_sys::AllocSetContextCreateInternal(pg_sys::TopMemoryContext, c"pg_mask".as_ptr(), 0, SIZE, SIZE)
    });
}

/// Does what may raise an error of PostgreSQL's own in a memory context that has room for it. What it allocates there
/// is freed at the end.
///
/// pgrx copies such an error into the context at hand. Where that is full, copying fails in the same way, again and again,
/// until PostgreSQL ends the server with a PANIC; and an analyst can fill the context of a query to the brim. The text of the
/// functions that led here, which may be long, is added when the error leaves us.
pub(crate) fn with_room<R>(work: impl FnOnce() -> R) -> R {
    struct Before(pg_sys::MemoryContext, *mut pg_sys::ErrorContextCallback);
    impl Drop for Before {
        fn drop(&mut self) {
            // SAFETY: plain writes of the backend's own state.
            unsafe {
                pg_sys::error_context_stack = self.1;
                pg_sys::CurrentMemoryContext = self.0;
            }
            if std::thread::panicking() {
                error::leave_room(); // for what pgrx makes of the error
            }
        }
    }
    let room = ROOM.get();
    // SAFETY: as above. Whoever is inside already resets nothing.
    let before = unsafe {
        if pg_sys::CurrentMemoryContext == room {
            return work();
        }
        pg_sys::MemoryContextReset(room); // an error may have left something
        Before(
            std::ptr::replace(&raw mut pg_sys::CurrentMemoryContext, room),
            std::ptr::replace(&raw mut pg_sys::error_context_stack, std::ptr::null_mut()),
        )
    };
    let done = work();
    drop(before);
    // SAFETY: nobody has anything of it.
    unsafe { pg_sys::MemoryContextReset(room) };
    done
}

/// An empty list with room for `count` elements.
pub(crate) fn list<T>(count: usize) -> Result<Vec<T>, Error> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| Error::Memory)?;
    Ok(list)
}

/// A copy.
pub(crate) fn copy(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut copy = list(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Raises the error that there is no memory.
#[cold]
pub(crate) fn out() -> ! {
    error::leave_room();
    ereport!(ERROR, PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "pg_mask has no memory for this");
}
