//! Times and days as PostgreSQL counts them: from 2000-01-01 UTC.

use pg_mask_core::sent_time::{DAY, UnixMicros};
use pgrx::prelude::*;

/// Days since 2000-01-01, as `date` has them.
pub(crate) type Day = i32;

/// Microseconds since 2000-01-01 UTC, as `timestamptz` has them.
pub(crate) type Micros = i64;

/// 1970-01-01 is so many microseconds before 2000-01-01.
const UNIX_TO_POSTGRES: i64 = 946_684_800_000_000;

/// Days stay within what all `date` arithmetic can take.
const FIRST_DAY: i64 = -730_119; // 0001-01-01
const LAST_DAY: i64 = 2_921_939; // 9999-12-31

/// The time now: that of the transaction, like `now()`.
pub(crate) fn now() -> Micros {
    // SAFETY: a look-up.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// The time that it is now, also in the midst of a transaction.
pub(crate) fn exactly() -> Micros {
    // SAFETY: a plain call.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The second that it is now, counted from 1970, in the midst of a transaction, too. On Linux this is the clock that
/// costs least to read: a tenth of [`exactly`], which it may follow by some milliseconds.
pub(crate) fn second() -> i64 {
    // SAFETY: a plain call that writes nothing.
    unsafe { libc::time(std::ptr::null_mut()) }
}

/// The UTC day of a time.
pub(crate) fn day_of(time: Micros) -> Day {
    time.div_euclid(DAY).clamp(FIRST_DAY, LAST_DAY) as Day
}

/// The same time, counted from 1970.
pub(crate) fn to_unix(time: Micros) -> UnixMicros {
    time.saturating_add(UNIX_TO_POSTGRES)
}

/// The same time, counted from 2000.
pub(crate) fn from_unix(time: UnixMicros) -> Micros {
    time.saturating_sub(UNIX_TO_POSTGRES)
}

/// A `timestamptz`; `None` if it has no such time.
pub(crate) fn timestamp(time: UnixMicros) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(from_unix(time)).ok()
}
