//! The script's text: SQL that was written by hand as it stands, functions without the generator's
//! remarks about Rust.

use crate::{Result, VERSION, order};
use pgrx_sql_entity_graph::{PgrxSql, SqlGraphEntity, ToSql};

/// The whole script.
pub(crate) fn script(sql: &PgrxSql<'_>) -> Result<String> {
    let mut script = format!(
        "-- What CREATE EXTENSION pg_mask VERSION '{VERSION}' makes. Generated from pg_mask/src: make install-script\n\
         \\echo Use \"CREATE EXTENSION pg_mask\" to load this file. \\quit\n"
    );
    let mut file = "";
    for object in order::ordered(sql)? {
        let text = match object {
            SqlGraphEntity::CustomSql(by_hand) => {
                file = "";
                by_hand.sql.trim().to_owned()
            }
            SqlGraphEntity::Function(_) => {
                let text = function(&object.to_sql(sql)?);
                if text.is_empty() {
                    continue; // declared by hand
                }
                if file != order::file(object) {
                    file = order::file(object);
                    script.push_str(&format!("\n-- {file}"));
                }
                text
            }
            // The schema is made by hand, and without IF NOT EXISTS; the others have no SQL.
            SqlGraphEntity::Schema(_) | SqlGraphEntity::BuiltinType(_) | SqlGraphEntity::ExtensionRoot(_) => {
                continue;
            }
            other => return Err(format!("there is no rule yet for writing {other:?}").into()),
        };
        script.push('\n');
        script.push_str(&text);
        script.push('\n');
    }
    Ok(script)
}

/// A declaration without comments, blank lines and white space at the ends of lines.
fn function(generated: &str) -> String {
    let mut text = generated.replace("CREATE  FUNCTION", "CREATE FUNCTION");
    while let Some(start) = text.find("/*") {
        let end = text[start..].find("*/").map_or(text.len(), |length| start + length + 2);
        text.replace_range(start..end, "");
    }
    let lines = text.lines().filter(|line| !line.starts_with("--")).map(str::trim_end);
    let lines = lines.filter(|line| !line.is_empty()).map(|line| line.replace('\t', "    "));
    lines.collect::<Vec<_>>().join("\n")
}
