//! The credentials that the environment gives. The SDK puts them into a header as they are, and panics where they have a
//! character that no header has, such as the line end of a file that a secret was read from.

use crate::Error;

const VARIABLES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Whether these variables can be credentials. The SDK takes one that is blank for one that is not set.
pub(crate) fn check() -> Result<(), Error> {
    for name in VARIABLES {
        let value = std::env::var_os(name).unwrap_or_default();
        let value = value.to_string_lossy();
        if !value.trim().is_empty() && !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            let wrong =
                "has a character that no credentials have: a line end or a space, perhaps. Take it out.";
            return Err(Error::Value { name, wrong });
        }
    }
    Ok(())
}
