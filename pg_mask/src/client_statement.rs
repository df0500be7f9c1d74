//! What the client sent, which may hold a message or a value.

use pgrx::prelude::*;
use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr;

/// Hides it from `current_query()`, from what is logged, and from a command that compares its own text with it, as CREATE
/// FUNCTION does where a body can't be parsed, while it lives.
pub(crate) struct Hidden<'a> {
    statement: *const c_char,
    /// What the client's statement runs as, with the same text.
    portal: (pg_sys::Portal, *const c_char),
    shown: PhantomData<&'a CStr>,
}

impl<'a> Hidden<'a> {
    pub(crate) fn new() -> Self {
        Self::behind(None)
    }

    /// Shows a statement of pg_mask's own instead, where there is one: a log of commands that event triggers keep has its text.
    pub(crate) fn behind(statement: Option<&'a CStr>) -> Self {
        let shown = statement.map_or(ptr::null(), CStr::as_ptr);
        // SAFETY: a server process has one thread. The server itself runs without a query string at times
        // (postgres.c), and a portal's text is never NULL (portal.h).
        unsafe {
            let portal = pg_sys::ActivePortal;
            let text = match portal.as_mut() {
                Some(portal) => {
                    std::mem::replace(&mut portal.sourceText, statement.unwrap_or_default().as_ptr())
                }
                None => ptr::null(),
            };
            let statement = ptr::replace(&raw mut pg_sys::debug_query_string, shown);
            Self { statement, portal: (portal, text), shown: PhantomData }
        }
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // SAFETY: as above; the texts and the portal live as long as the client's statement runs, which is longer.
        unsafe {
            pg_sys::debug_query_string = self.statement;
            let (portal, text) = self.portal;
            if let Some(portal) = portal.as_mut() {
                portal.sourceText = text;
            }
        }
    }
}
