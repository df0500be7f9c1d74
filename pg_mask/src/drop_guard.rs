//! Who may drop the extension: a superuser. PostgreSQL would let the owner of the schema that CREATE EXTENSION was given drop it
//! with that schema, the database's owner most often. Then the name `pgmask` would be free, and functions of ours that are in their
//! midst, with a superuser's rights, would go on with whatever that owner puts there.
//!
//! A schema goes by a command of its own, or with an extension that it was made a member of, which in turn goes with much else. So it
//! is made a member of none. And the language plpgsql, which may be somebody's, takes our functions with it.

use crate::error::{Error, OrRaise};
use crate::plan;
use pg_sys::ObjectAccessType::{OAT_DROP, OAT_POST_ALTER, Type as Access};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int, c_void};

/// The hook of a library that was loaded before.
static mut BEFORE: pg_sys::object_access_hook_type = None;

/// Looks at what becomes of extensions from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

/// Has the library loaded before commands that this is about: an event trigger calls it.
#[pg_extern(sql = false)]
fn watch_drops() {}

/// It has no guard and keeps nothing, so that errors of other libraries' hooks may pass through it as they are.
unsafe extern "C-unwind" fn access(
    access: Access,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: as PostgreSQL itself would call it.
    unsafe {
        if class == pg_sys::ExtensionRelationId {
            match access {
                OAT_DROP => refuse_drop(object),
                OAT_POST_ALTER => refuse_membership(),
                _ => {}
            }
        }
        if let Some(before) = BEFORE {
            before(access, class, object, part, argument);
        }
    }
}

/// Refuses that, if it is this extension, to whoever is no superuser.
#[pg_guard]
unsafe extern "C-unwind" fn refuse_drop(extension: pg_sys::Oid) {
    // SAFETY: look-ups; the name is a copy, or null.
    unsafe {
        let name = pg_sys::get_extension_name(extension);
        if !name.is_null() && CStr::from_ptr(name) == c"pg_mask" && !pg_sys::superuser() {
            Err::<(), _>(Error::Dropped).or_raise();
        }
    }
}

/// Whether the schema that this extension is in is a member of any.
const IS_MEMBER: &str = "SELECT EXISTS (
        SELECT FROM pg_catalog.pg_extension AS e
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = e.extnamespace
        WHERE e.extname = 'pg_mask' AND d.deptype = 'e'
    )";

/// Refuses to whoever is no superuser that an extension has got the schema as a member.
#[pg_guard]
unsafe extern "C-unwind" fn refuse_membership() {
    // SAFETY: a look-up, and a plain call: the command has only just written what is looked for.
    unsafe {
        if pg_sys::superuser() {
            return;
        }
        pg_sys::CommandCounterIncrement();
    }
    let is_member = plan::catalog_row(IS_MEMBER, Vec::new, |row| row.get::<bool>(1));
    if is_member.or_raise() {
        Err::<(), _>(Error::TakenAlong).or_raise();
    }
}
