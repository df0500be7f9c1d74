//! Taking in what lies in the quarantine, once the cause is gone.

use super::batch::create_date;
use super::quarantine::Sealed;
use super::rows::{self, Maskers, NonePasses, Outcome, Row};
use super::target::Target;
use crate::arrays::ArrayBuilder;
use crate::clock::Micros;
use crate::database_id::{self, DatabaseId};
use crate::error::{Error, OrRaise};
use crate::keys::Keys;
use crate::text::{OwnedText, Text};
use crate::vault::Vault;
use crate::{keys, memory, plan};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use zeroize::Zeroizing;

/// So many messages are looked at a time,
const AT_A_TIME: i64 = 100;
/// and so many bytes of bodies opened; but always one.
const BYTES: i64 = 8 << 20;

/// Whoever replays at the same time takes other messages.
const NEXT: &str =
    "SELECT id, (pg_catalog.octet_length(message_id) + pg_catalog.octet_length(sealed_body))::bigint
    FROM pgmask.quarantine
    WHERE id > $1 AND ($2 IS NULL OR reason = $2)
    ORDER BY id LIMIT $3
    FOR UPDATE SKIP LOCKED";

const READ: &str = "SELECT id, message_id, sent_at, quarantined_at, sealed_body, reason
    FROM pgmask.quarantine WHERE id = ANY ($1) ORDER BY id";

const REMOVE: &str = "DELETE FROM pgmask.quarantine WHERE id = ANY ($1)";

const KEEP: &str = "UPDATE pgmask.quarantine AS kept SET reason = found.reason
    FROM unnest($1, $2) AS found(id, reason) WHERE kept.id = found.id";

/// A quarantined message, opened.
struct Quarantined {
    id: i64,
    sent_at: Option<Micros>,
    quarantined_at: Micros,
    reason: OwnedText,
    body: Zeroizing<Vec<u8>>,
}

#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn replay_quarantine(
    reason: default!(Option<Text<'_>>, "NULL"),
) -> TableIterator<'static, (name!(inserted, i64), name!(kept, i64))> {
    super::must_write(c"replay_quarantine()");
    TableIterator::once(replay(reason).or_raise())
}

/// How many were inserted, and how many are kept.
fn replay(reason: Option<Text<'_>>) -> Result<(i64, i64), Error> {
    let target = Target::find()?;
    let vault = Vault::open()?;
    let keys = keys::newest()?;
    target.has_room_for_tokens(&keys.pii)?;
    let maskers = Maskers::new(&keys, &target, vault.as_ref())?;
    let (mut inserted, mut kept) = (0, 0);
    let mut last = i64::MIN;
    loop {
        let messages = next(&keys, last, reason)?;
        let Some(message) = messages.last() else { return Ok((inserted, kept)) };
        last = message.id;
        let refused = replay_some(&keys, &maskers, vault.as_ref(), &target, &messages)?;
        inserted += (messages.len() - refused) as i64;
        kept += refused as i64;
    }
}

/// Inserts what passes and removes it from the quarantine; returns how many are kept.
fn replay_some(
    keys: &Keys,
    maskers: &Maskers,
    vault: Option<&Vault>,
    target: &Target,
    messages: &[Quarantined],
) -> Result<usize, Error> {
    let mut rows = memory::list(messages.len())?;
    let mut refused = Vec::new();
    for message in messages {
        let create_date = create_date(message.sent_at, message.quarantined_at);
        match Row::parse(&message.body, create_date, target, maskers) {
            Ok(row) => rows.push((row, message)),
            Err(reason) => refused.push((message, reason)),
        }
    }
    let Outcome { passed, rejected, .. } = rows::insert(target, &rows, NonePasses::Rejects)?;
    if let Some(vault) = vault {
        vault.keep(keys, passed.into_iter().flat_map(Row::masked_values))?;
    }
    refused.extend(rejected);

    let mut gone = ArrayBuilder::bigint();
    let (mut changed, mut reasons) = (ArrayBuilder::bigint(), ArrayBuilder::text());
    for message in messages {
        let id = Some(message.id.to_ne_bytes());
        match refused.iter().find(|(refused, _)| refused.id == message.id) {
            None => gone.push_fixed(id),
            Some((_, reason)) if reason.to_string().as_bytes() != message.reason.0 => {
                changed.push_fixed(id);
                reasons.push_bytes(Some(reason.to_string().as_bytes()));
            }
            Some(_) => {}
        }
    }
    plan::run(REMOVE, || vec![gone.finish()], |_| ());
    plan::run(KEEP, || vec![changed.finish(), reasons.finish()], |_| ());
    Ok(refused.len())
}

/// The next messages after `last`, locked.
fn next(keys: &Keys, last: i64, reason: Option<Text<'_>>) -> Result<Vec<Quarantined>, Error> {
    let reason = reason.map(|reason| memory::copy(reason.as_server_bytes()).map(OwnedText)).transpose()?;
    let found = plan::rows(
        NEXT,
        || vec![last.into(), reason.into(), AT_A_TIME.into()],
        |row| Ok((row.get::<i64>(1)?, row.get::<i64>(2)?)),
    )?;
    let mut ids = ArrayBuilder::bigint();
    let mut room = BYTES;
    for (id, size) in found {
        if room < BYTES && room < size {
            break;
        }
        room -= size;
        ids.push_fixed(Some(id.to_ne_bytes()));
    }
    let bytes = usize::try_from(BYTES - room).map_err(|_| Error::Unreadable)?;
    memory::for_stored(AT_A_TIME as usize, bytes)?;
    let databases = database_id::all()?;
    plan::rows(READ, || vec![ids.finish()], |row| open(keys, &databases, row))
}

fn open(keys: &Keys, databases: &[DatabaseId], row: &plan::Row<'_>) -> Result<Quarantined, Error> {
    let sealed = Sealed::read(row)?;
    Ok(Quarantined {
        id: sealed.id,
        sent_at: sealed.sent_at,
        quarantined_at: sealed.quarantined_at,
        reason: row.get(6)?,
        body: sealed.open(keys, databases)?,
    })
}
