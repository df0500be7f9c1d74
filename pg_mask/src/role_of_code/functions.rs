//! Which functions code of a table may not call: those that reach what belongs to the session, which is whoever's who inserts
//! or refreshes. A large object that the client has open can be read and written by its number, session locks be given up
//! or be left behind, and functions be compiled for later.

use super::compiled::compiles;
use super::watched;
use crate::error::Error;
use crate::{own_roles, unguarded};
use pg_sys::ObjectAccessType::{OAT_FUNCTION_EXECUTE, OAT_POST_CREATE, Type as Access};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int, c_void};

/// Their object ids (pg_proc.dat), in order.
const OF_THE_SESSION: [u32; 39] = [
    715, // lo_create
    764, 765, 767, // lo_import, lo_export
    952, 953, 954, 955, 956, 957, 958,
    964,  // lo_open, lo_close, loread, lowrite, lo_lseek, lo_creat, lo_tell, lo_unlink
    1004, // lo_truncate
    1599, // setseed
    2880, 2881, 2882, 2883, 2884, 2885, 2886, 2887, 2888, 2889, 2890, 2891,
    2892, // pg_advisory_…, but for …_xact_…
    2928, // cursor_to_xmlschema
    3170, 3171, 3172, // lo_lseek64, lo_tell64, lo_truncate64
    3457, 3458, 3459, 3460, // lo_from_bytea, lo_get, lo_put
    6362, 6363, 6397,
    6398, // pg_restore_relation_stats, pg_restore_attribute_stats, pg_clear_..., which last (from 18 on)
];

/// The hook of a library that was loaded before.
static mut BEFORE: pg_sys::object_access_hook_type = None;

/// Looks at each call from now on, once for a statement. For `_PG_init`.
pub(super) fn watch() {
    // SAFETY: libraries are loaded one after the other; the function has the signature asked for.
    unsafe {
        BEFORE = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(access);
    }
}

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
        let may_be_one = OF_THE_SESSION.contains(&object.to_u32()) || watched::now().is_some();
        if access == OAT_FUNCTION_EXECUTE && may_be_one {
            look_at(object);
        }
        if access == OAT_POST_CREATE && class == pg_sys::RelationRelationId {
            let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
            unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks);
            watched::made_by(role, marks as u32 & pg_sys::SECURITY_RESTRICTED_OPERATION != 0);
        }
        if let Some(before) = BEFORE {
            before(access, class, object, part, argument);
        }
    }
}

/// Refuses one of them to code of a table, whoever owns that code, and to code in a refresh.
#[pg_guard]
unsafe extern "C-unwind" fn look_at(function: pg_sys::Oid) {
    let (mut role, mut marks) = (pg_sys::InvalidOid, 0);
    // SAFETY: a plain read of the backend's own state.
    unsafe { unguarded::GetUserIdAndSecContext(&raw mut role, &raw mut marks) };
    if marks == 0 || (watched::now().is_none() && !own_roles::is_refresher(role)) {
        return;
    }
    if !OF_THE_SESSION.contains(&function.to_u32()) && !compiles(function) {
        return;
    }
    // SAFETY: a look-up; it is there, and its name is copied.
    let name = unsafe { CStr::from_ptr(pg_sys::get_func_name(function)).to_string_lossy().into_owned() };
    watched::refuse(|| Error::Function(name.clone()));
}
