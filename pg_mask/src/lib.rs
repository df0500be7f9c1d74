//! pg_mask: masks personal data inside PostgreSQL, next to the data and the key.
//!
//! One file an idea; what needs no PostgreSQL is in `pg_mask_core`.
//!
//! - [`mask_pii`]: the functions that analysts call; [`current_mask`]: from an older generation's token to
//!   the one in use; [`call_site`]: what a call keeps from row to row; [`guesses`]: how many values a role
//!   may have masked in an hour
//! - [`ingest`]: from message bodies to rows, ledger and quarantine; [`role_of_code`]: what code of tables runs as, and may do; [`refresh`]: stored results of the views, filled anew
//! - [`keys`]: the keyring in this backend's memory, up to date for every statement;
//!   [`key_check`]: does it fit this database; [`key_functions`]: making it, asking about it;
//!   [`rotation`]: new keys; [`remask`]: stored tokens, lifted to the generation in use
//! - [`vault`]: the values, sealed, where they are to be recovered
//! - [`audit`]: writing down who asked before anything is shown, so that it shows if that is changed
//! - [`database_id`]: which database something belongs to; [`maintain`]: keeping the ledger small
//! - [`health`]: what `pgmask.health` looks at in the login table
//! - [`on_behalf`]: reading and updating somebody's table, with none of the owner's rights for its code;
//!   [`named_tables`]: which table a statement names, and whose rights to it count
//! - [`membership`]: who may act as whom; [`settings`]: what a DBA can set
//! - [`error`]: what a person reads when something is wrong
//! - [`drop_guard`]: who may drop the extension, and [`held`], how long it stays; [`no_prepare`]: which transactions can't be prepared; [`standbys`]: whether a commit has reached them; [`cursors`]: the session's, out of reach of others' code
//! - [`memory`]: bounds, and allocation that can fail; [`allocator`]: a reserve for the small ones that can't
//! - [`arrays`], [`clock`], [`text`], [`plan`], [`own_names`], [`run_as`], [`snapshot`], [`subtransaction`]: PostgreSQL's
//!   ways, made safe to use; [`short_errors`]: calls that run code of others; [`unguarded`]: its functions, made cheap to call

// SQL functions take their arguments by value: that is how pgrx hands them over.
#![allow(clippy::needless_pass_by_value)]

mod allocator;
mod app_version;
mod arrays;
mod audit;
mod call_site;
mod catalog_scan;
mod client_statement;
mod clock;
mod current_mask;
mod cursors;
mod database_id;
mod drop_guard;
mod error;
mod guesses;
mod health;
mod held;
mod ingest;
mod key_check;
mod key_functions;
mod keys;
mod maintain;
mod mask_pii;
mod membership;
mod memory;
mod named_tables;
mod no_prepare;
mod older_tokens;
mod on_behalf;
mod own_names;
mod own_roles;
mod plan;
mod quiet;
mod refresh;
mod remask;
mod role_of_code;
mod rotation;
mod run_as;
mod session_caches;
mod settings;
mod short_errors;
mod snapshot;
mod sqlstate;
mod standbys;
mod subtransaction;
mod text;
mod unguarded;
mod vault;

use error::OrRaise;
use pgrx::prelude::*;

::pgrx::pg_module_magic!(name, version);

/// Everything but the functions for users is in the schema `pgmask`, which schema.sql makes.
#[pg_schema]
mod pgmask {}

// SQL that can't be generated: tables, what keeps them in shape, and at the end rights and comments.
extension_sql_file!("sql/schema.sql", name = "schema", bootstrap);
extension_sql_file!("sql/key_check.sql", name = "key_check", requires = [pgmask]);
extension_sql_file!("sql/tables.sql", name = "tables", requires = [pgmask]);
extension_sql_file!("sql/unseal.sql", name = "unseal", requires = [pgmask]);
extension_sql_file!("sql/vault.sql", name = "vault", requires = [pgmask]);
extension_sql_file!("sql/ledger.sql", name = "ledger", requires = ["tables"]);
extension_sql_file!("sql/remask.sql", name = "remask", requires = ["vault"]);
extension_sql_file!("sql/health.sql", name = "health", requires = ["tables", "ledger", "vault"]);
extension_sql_file!("sql/drop_guard.sql", name = "drop_guard", requires = [pgmask]);
extension_sql_file!("sql/dashboards.sql", name = "dashboards", requires = ["tables"]);
extension_sql_file!("sql/finish.sql", name = "finish", finalize);

/// Runs once in every backend that uses pg_mask, or once at the server's start.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    error::never_show_backtraces(); // first, as what follows may fail
    memory::for_a_call().or_raise();
    memory::make_room();
    settings::refuse_while_they_would_be_lost().or_raise();
    guesses::map_at_start(); // the settings' values go there
    // SAFETY: the functions store a number.
    unsafe { settings::define(Some(guesses::note_guess_limit), Some(guesses::note_recover_limit)) };
    snapshot::watch();
    drop_guard::watch();
    held::watch();
    no_prepare::watch();
    standbys::watch();
    named_tables::watch();
    role_of_code::watch(refresh::refresh_if_stored);
    memory::when_low(keys::forget);
    prepare_thread_locals();
}

/// Uses each thread-local value that has a destructor, for the first time: the C library notes the destructor then, and
/// ends the process if it has no memory for that.
fn prepare_thread_locals() {
    audit::prepare();
    error::prepare();
    guesses::prepare();
    keys::forget();
    named_tables::prepare();
    plan::prepare();
    role_of_code::prepare();
    short_errors::prepare();
    vault::prepare();
}
