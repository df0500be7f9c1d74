//! What of a statement of ours reaches the client, and whether it is compiled.

use pgrx::prelude::*;

/// While it lives, nothing of a statement is shown to the client, nor is anything compiled; and no message below a NOTICE.
pub(crate) struct Quiet(Settings);

impl Quiet {
    pub(crate) fn new() -> Self {
        let before = Settings::now();
        let client_min_messages = before.client_min_messages.max(PgLogLevel::NOTICE as i32);
        Settings { debug_print: [false; 3], jit: false, client_min_messages }.put_in_force();
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.put_in_force();
    }
}

/// While it lives, nothing at all is sent to the client, whatever its level: not what code says (RAISE INFO comes through at any
/// setting), nor plans (`auto_explain`). An error is, once this is over, as it is raised anew on its way through pgrx.
pub(crate) struct Silent(pg_sys::CommandDest::Type);

impl Silent {
    pub(crate) fn new() -> Self {
        // SAFETY: a plain write of the backend's own state, as PostgreSQL does where the client is gone (postgres.c).
        unsafe { Self(std::ptr::replace(&raw mut pg_sys::whereToSendOutput, pg_sys::CommandDest::DestNone)) }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::whereToSendOutput = self.0 };
    }
}

/// Plain settings of the backend that have statements shown to the client, or compiled.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Of the tree as parsed and as rewritten, and of the plan.
    debug_print: [bool; 3],
    jit: bool,
    client_min_messages: i32,
}

impl Settings {
    pub(crate) fn now() -> Self {
        // SAFETY: reads of the backend's own state (guc.h, jit.h).
        unsafe {
            Self {
                debug_print: [
                    pg_sys::Debug_print_parse,
                    pg_sys::Debug_print_rewritten,
                    pg_sys::Debug_print_plan,
                ],
                jit: pg_sys::jit_enabled,
                client_min_messages: pg_sys::client_min_messages,
            }
        }
    }

    pub(crate) fn put_in_force(self) {
        // SAFETY: writes of the same.
        unsafe {
            [pg_sys::Debug_print_parse, pg_sys::Debug_print_rewritten, pg_sys::Debug_print_plan] =
                self.debug_print;
            pg_sys::jit_enabled = self.jit;
            pg_sys::client_min_messages = self.client_min_messages;
        }
    }
}
