//! The password from a file that `PGPASSWORD_FILE` names, as containers are given secrets: nothing else
//! is in it. Such files are often open to every user of the container, so their mode is nobody's fault.

use crate::error::Error;
use crate::file;
use std::path::Path;

/// The password in a file; a line's end after it is none of it.
pub(crate) fn password(file: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |why: &str| {
        Error::Setting(format!(
            "the password file {} (PGPASSWORD_FILE) {why}. Put the password there.",
            file.display()
        ))
    };
    // For each connection anew, so a pipe would not do: it gives its content once.
    let text = file::read(file).map_err(|error| wrong(&error.to_string()))?;
    let end = text.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    if end == 0 {
        return Err(wrong("is empty"));
    }
    Ok(text[..end].to_vec())
}
