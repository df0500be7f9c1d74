//! Versions for people: `app_version_text(2003000)` is `2.3.0`.

use pg_mask_core::login::app_version;
use pgrx::prelude::*;

#[pg_extern(schema = "pgmask", immutable, strict, parallel_safe)]
fn app_version_text(app_version: i32) -> Option<String> {
    app_version::to_text(app_version)
}
