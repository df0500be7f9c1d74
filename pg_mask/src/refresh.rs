//! Filling the stored results of sql/05_dashboards.sql anew. Code of the login table's owner runs meanwhile, as the role that
//! they belong to.

use crate::error::{Error, OrRaise};
use crate::named_tables::{Meant, qualified_name};
use crate::own_roles;
use crate::plan;
use crate::role_of_code;
use pgrx::prelude::*;

/// REFRESH MATERIALIZED VIEW of one that belongs to `pgmask_refresher`.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe)]
fn refresh_stored(view: pg_sys::Oid, concurrently: bool) {
    refresh(view, concurrently).or_raise();
}

fn refresh(view: pg_sys::Oid, concurrently: bool) -> Result<(), Error> {
    // SAFETY: the relation is open while it is looked at.
    let (name, owner) = unsafe {
        let relation = pg_sys::try_relation_open(view, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return Err(Error::NoTable { oid: view.to_u32() });
        }
        let class = &*(*relation).rd_rel;
        let found = (qualified_name(class), class.relowner);
        pg_sys::relation_close(relation, pg_sys::NoLock as i32);
        found
    };
    if !own_roles::is_refresher(owner) {
        return Err(Error::NotStored(name));
    }
    let how = if concurrently { "CONCURRENTLY " } else { "" };
    let sql = format!("REFRESH MATERIALIZED VIEW {how}{name}");
    role_of_code::refresh_as(owner, || plan::write_once(Meant::only(&[]), &sql, Vec::new).map(drop))
}
