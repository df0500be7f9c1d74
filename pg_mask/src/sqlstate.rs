//! SQLSTATEs, as PostgreSQL packs them and as their five characters.

use pgrx::prelude::*;

/// The five characters of an SQLSTATE, which PostgreSQL packs six bits each (`MAKE_SQLSTATE`).
pub(crate) fn unpacked(packed: i32) -> [u8; 5] {
    [0, 6, 12, 18, 24].map(|shift| ((packed >> shift) & 0x3f) as u8 + b'0')
}

/// The error code of an SQLSTATE. One that PostgreSQL has no name for becomes that of a trigger's exception.
pub(crate) fn error_code(sqlstate: &[u8; 5]) -> PgSqlErrorCode {
    let packed = sqlstate
        .iter()
        .rev()
        .fold(0, |packed, letter| packed << 6 | (i32::from(*letter) - i32::from(b'0')) & 0x3f);
    match PgSqlErrorCode::from(packed) {
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR if sqlstate != b"XX000" => {
            PgSqlErrorCode::ERRCODE_RAISE_EXCEPTION
        }
        code => code,
    }
}
