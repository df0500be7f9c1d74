//! Who may drop the extension: a superuser. PostgreSQL would let the owner of the schema that CREATE EXTENSION was given drop it
//! with that schema, the database's owner most often. Then the name `pgmask` would be free, and functions of ours that are in their
//! midst, with a superuser's rights, would go on with whatever that owner puts there.

use crate::error::{Error, OrRaise};
use pg_sys::ObjectAccessType::{OAT_DROP, Type as Access};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int, c_void};

/// The hook of a library that was loaded before.
static mut BEFORE: pg_sys::object_access_hook_type = None;

/// Looks at each thing that is dropped from now on. For `_PG_init`.
pub(crate) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

/// Has the library loaded before anything is dropped that the extension could go with: the event trigger calls it.
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
        if access == OAT_DROP && class == pg_sys::ExtensionRelationId {
            refuse(object);
        }
        if let Some(before) = BEFORE {
            before(access, class, object, part, argument);
        }
    }
}

/// Refuses that, if it is this extension, to whoever is no superuser.
#[pg_guard]
unsafe extern "C-unwind" fn refuse(extension: pg_sys::Oid) {
    // SAFETY: look-ups; the name is a copy, or null.
    unsafe {
        let name = pg_sys::get_extension_name(extension);
        if !name.is_null() && CStr::from_ptr(name) == c"pg_mask" && !pg_sys::superuser() {
            Err::<(), _>(Error::Dropped).or_raise();
        }
    }
}
