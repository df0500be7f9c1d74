//! Showing one quarantined message to whoever may see it and says why. Both are kept.

use super::quarantine;
use crate::error::{Error, OrRaise};
use crate::keys;
use crate::plan;
use crate::text::{self, NewText, OwnedText, Text};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::borrow::Cow;

const FIND: &str = "SELECT message_id, sealed_body FROM pgmask.quarantine WHERE id = $1";

const AUDIT: &str = "INSERT INTO pgmask.audit (login_role, acting_role, action, quarantine_id, reason)
    VALUES (session_user, $1, 'unseal_quarantine', $2, $3)
    RETURNING login_role::pg_catalog.text";

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn unseal_quarantine(id: Option<i64>, reason: Option<Text<'_>>) -> NewText {
    super::must_write(c"unseal_quarantine()");
    unseal(id, reason).or_raise()
}

fn unseal(id: Option<i64>, reason: Option<Text<'_>>) -> Result<NewText, Error> {
    let readable = reason.map_or(Cow::Borrowed(&[][..]), Text::to_utf8_if_it_can);
    let readable = String::from_utf8_lossy(&readable);
    let (Some(reason), false) = (reason, readable.trim().is_empty()) else { return Err(Error::NoReason) };
    let id = id.ok_or(Error::NotInQuarantine(None))?;
    let keys = keys::current()?;
    let read = |row: &plan::Row<'_>| Ok((row.get::<OwnedText>(1)?, row.get::<Vec<u8>>(2)?));
    let found = plan::rows(FIND, || vec![id.into()], read)?.pop();
    let (message_id, sealed_body) = found.ok_or(Error::NotInQuarantine(Some(id)))?;
    let body = quarantine::open(&keys, id, message_id.as_text(), &sealed_body)?;
    // In a database of another encoding than the one that it was sealed in.
    let body = text::bytes_to_server(&body).ok_or(Error::NotInThisEncoding { id })?;
    audit(id, reason, &readable)?;
    Ok(NewText::with(body.len(), |text| text.copy_from_slice(&body)))
}

/// Before anything is shown. The table forgets what a transaction rolls back, the server's log does not.
fn audit(id: i64, reason: Text<'_>, readable: &str) -> Result<(), Error> {
    // SAFETY: look-ups of the role that called, outside of this SECURITY DEFINER function.
    let acting_role =
        unsafe { std::ffi::CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetOuterUserId(), false)) };
    let acting_role = acting_role.to_bytes().to_vec();
    let shown_role = String::from_utf8_lossy(&acting_role).into_owned();
    let arguments = || {
        let reason = OwnedText(reason.as_server_bytes().to_vec());
        vec![OwnedText(acting_role).into(), id.into(), reason.into()]
    };
    let login_role = plan::one_row(AUDIT, arguments, |row| row.get::<OwnedText>(1))?.0;
    // One line, whatever the reason holds.
    let readable: String = match text::server_is_utf8_or_unknown() {
        true => readable.escape_debug().collect(),
        false => readable.escape_default().collect(),
    };
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        format!(
            "pg_mask: role \"{}\" (logged in as \"{}\") opens message {id} of the quarantine; reason: {readable}",
            shown_role.escape_debug(), String::from_utf8_lossy(&login_role).escape_debug()
        ),
        "",
    )
    .report(PgLogLevel::LOG);
    Ok(())
}
