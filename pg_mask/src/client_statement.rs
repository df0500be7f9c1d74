//! What the client sent, which may hold a message or a value.

use pgrx::prelude::*;

/// Hides it from `current_query()`, and from what is logged, while it lives.
pub(crate) struct Hidden(*const std::ffi::c_char);

impl Hidden {
    pub(crate) fn new() -> Self {
        // SAFETY: a server process has one thread. The server itself runs without a query string at times
        // (postgres.c).
        Self(unsafe { std::ptr::replace(&raw mut pg_sys::debug_query_string, std::ptr::null()) })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // SAFETY: as above; the text lives as long as the client's statement runs, which is longer.
        unsafe { pg_sys::debug_query_string = self.0 };
    }
}
