//! Writes or checks the extension's install script, `pg_mask/sql/pg_mask--<version>.sql`.
//!
//! pgrx leaves a description of every SQL object in a section of the library. Its generator, the same
//! library that cargo-pgrx uses, makes SQL of it, in an order that is not stable. [`order`] puts that in
//! the order of the sources, so that the script can be read, committed and compared.
#![forbid(unsafe_code)]

mod order;
mod render;

use clap::{Parser, ValueEnum};
use object::{Object, ObjectSection};
use pgrx_sql_entity_graph::section::{decode_entities, is_schema_section_name};
use pgrx_sql_entity_graph::{ControlFile, PgrxSql, SqlGraphEntity};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes or checks pg_mask's install script.
#[derive(Parser)]
struct Args {
    what: What,
    /// The extension's library, as `cargo build -p pg_mask` makes it.
    library: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Write it where it belongs.
    Write,
    /// Fail if the committed script is not what would be written.
    Check,
    /// Print what pgrx's generator makes, as it is.
    Raw,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args.what, &args.library) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("install_script: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What, library: &Path) -> Result<()> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pg_mask");
    let bytes = std::fs::read(library).map_err(|error| format!("{}: {error}", library.display()))?;
    let sql = graph(&crate_folder, schema_section(&bytes)?)?;
    let script = crate_folder.join(format!("sql/pg_mask--{VERSION}.sql"));
    match what {
        What::Write => std::fs::write(&script, render::script(&sql)?)?,
        What::Check => {
            if std::fs::read_to_string(&script).unwrap_or_default() != render::script(&sql)? {
                return Err(format!(
                    "pg_mask/sql/pg_mask--{VERSION}.sql is not what pg_mask/src makes; run: make install-script"
                )
                .into());
            }
        }
        What::Raw => print!("{}", sql.to_sql()?),
    }
    Ok(())
}

/// What the macros of pgrx left in the library.
fn schema_section(library: &[u8]) -> Result<&[u8]> {
    let file = object::File::parse(library)?;
    let section = file.sections().find(|section| section.name().is_ok_and(is_schema_section_name));
    Ok(section.ok_or("the library has no section that describes its SQL objects")?.data()?)
}

fn graph<'a>(crate_folder: &Path, section: &'a [u8]) -> Result<PgrxSql<'a>> {
    let control = ControlFile::from_path_with_cargo_version(crate_folder.join("pg_mask.control"), VERSION)?;
    let entities = std::iter::once(SqlGraphEntity::ExtensionRoot(control)).chain(decode_entities(section)?);
    Ok(PgrxSql::build(entities, "pg_mask".to_owned(), false)?)
}
