//! Sealing what lies in the quarantine anew, under the seal key in use: after a rotation, an older key is
//! needed no more once this is through.

use super::quarantine::Sealed;
use crate::arrays::ArrayBuilder;
use crate::error::{Error, OrRaise};
use crate::{database_id, keys, plan};
use pgrx::prelude::*;

/// Rows that are read at a time: each may have a body of a mebibyte.
const AT_A_TIME: i64 = 16;

/// Waits for batches that began under an older key and are not committed yet, and for replays, which keep what is refused as
/// it was.
const WAIT: &str = "SELECT pgmask.wait_for_writers('pgmask.quarantine')";

/// Rows that were sealed under an older key than the one whose id the four bytes $2 are (seal.rs has the
/// layout). Who takes a rotation back, by deleting its row of
/// key_check, gets nothing sealed under the older key.
const OLDER: &str = "SELECT id, message_id, sent_at, quarantined_at, sealed_body FROM pgmask.quarantine
    WHERE id > $1 AND pg_catalog.substr(sealed_body, 2, 4) < $2
    ORDER BY id LIMIT $3
    FOR UPDATE";

const REPLACE: &str = "UPDATE pgmask.quarantine AS kept SET sealed_body = made.sealed_body
    FROM pg_catalog.unnest($1) WITH ORDINALITY AS ids(id, place)
    JOIN pg_catalog.unnest($2) WITH ORDINALITY AS made(sealed_body, place) USING (place)
    WHERE kept.id = ids.id";

/// Seals up to `most` bodies anew that were sealed under an older key, and says how many. 0 means that none
/// is left.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn reseal_quarantine(most: default!(i32, 1000)) -> i32 {
    super::must_write(c"reseal_quarantine()");
    reseal(most.into()).or_raise() as i32
}

fn reseal(most: i64) -> Result<i64, Error> {
    // SAFETY: a plain read.
    if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED as i32 {
        return Err(Error::SeesNothingNew("reseal_quarantine()"));
    }
    plan::run(WAIT, Vec::new, |_| ());
    let keys = keys::newest()?;
    let seal_id = keys.seal_id()?.to_be_bytes();
    let databases = database_id::all()?;
    let (mut done, mut last) = (0, i64::MIN);
    while done < most {
        let arguments = || vec![last.into(), Vec::from(seal_id).into(), AT_A_TIME.min(most - done).into()];
        let found = plan::rows(OLDER, arguments, Sealed::read)?;
        let Some(newest) = found.last() else { break };
        last = newest.id;
        let (mut ids, mut bodies) = (ArrayBuilder::bigint(), ArrayBuilder::bytea());
        for sealed in &found {
            ids.push_fixed(Some(sealed.id.to_ne_bytes()));
            bodies.push_bytes(Some(&sealed.anew(&keys, &databases)?));
        }
        plan::run(REPLACE, || vec![ids.finish(), bodies.finish()], |_| ());
        done += found.len() as i64;
    }
    Ok(done)
}
