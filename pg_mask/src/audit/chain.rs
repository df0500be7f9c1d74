//! The rows of `pgmask.audit` as a chain: each holds a MAC over itself and the MAC of the row before it, under
//! a key of the keyring. `pgmask.audit_end` notes where the chain ends, with a MAC of its own under the key of the
//! generation in use: who has an older keyring can make rows, but no end that they lead to.

use crate::clock::Micros;
use crate::database_id;
use crate::error::Error;
use crate::keys::{self, ServerKeys};
use crate::text::{OwnedBytes, OwnedText};
use crate::{own_names, plan};
use pg_mask_core::chain::ChainKey;
use pg_mask_core::hmac_key::Hash;
use std::ffi::CStr;

/// One session writes at a time: this row is locked from here to the commit, which follows at once.
const LOCK_END: &str = "INSERT INTO pgmask.audit_end AS e (id, generation, mac, proof) VALUES (0, 0, '', '')
    ON CONFLICT (only_row) DO UPDATE SET id = e.id RETURNING id, generation, mac, proof";

/// For how long another session may be at it: a commit may wait for a standby.
const LONGEST_WAIT: &CStr = c"10s";

const IS_BEYOND: &str = "SELECT EXISTS (SELECT FROM pgmask.audit WHERE id > $1)";

const WRITE: &str = "INSERT INTO pgmask.audit
    (id, done_at, login_role, acting_role, action, quarantine_id, token, reason, generation, mac)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

const MOVE_END: &str = "UPDATE pgmask.audit_end SET id = $1, generation = $2, mac = $3, proof = $4";

const IS_WRITTEN: &str = "SELECT EXISTS (SELECT FROM pgmask.audit WHERE id = $1 AND mac = $2)";

/// What a row says, beside its place in the chain. Texts are in the server's encoding.
pub(super) struct Record {
    pub(super) done_at: Micros,
    pub(super) login_role: OwnedText,
    pub(super) acting_role: OwnedText,
    pub(super) action: OwnedText,
    pub(super) quarantine_id: Option<i64>,
    pub(super) token: Option<OwnedText>,
    pub(super) reason: OwnedText,
}

/// A row's place in the chain.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) id: i64,
    pub(super) mac: Hash,
}

impl Record {
    /// The MAC of this as row `id` after one with the MAC `before`.
    pub(super) fn mac(&self, key: &ChainKey, id: i64, before: &Hash) -> Hash {
        let texts = [&self.login_role, &self.acting_role, &self.action, &self.reason]
            .map(|text| text.as_text().to_utf8_if_it_can());
        let [login_role, acting_role, action, reason] = texts.each_ref().map(|text| Some(&**text));
        let (id, done_at) = (id.to_be_bytes(), self.done_at.to_be_bytes());
        let quarantine_id = self.quarantine_id.map(i64::to_be_bytes);
        let quarantine_id = quarantine_id.as_ref().map(|id| &id[..]);
        let token = self.token.as_ref().map(|token| token.0.as_slice());
        let fields =
            [Some(&id[..]), Some(&done_at), login_role, acting_role, action, quarantine_id, token, reason];
        key.next(before, &fields)
    }
}

/// Adds a row to the chain, which other sessions can't do from now on until the transaction ends. It acts as
/// the owner of the tables.
pub(super) fn append(record: Record) -> Result<Link, Error> {
    let end = lock_end()?;
    let keys = keys::newest()?; // a rotation proves the end anew
    let generation = keys.generation();
    let key = keys.server.chain_key(generation).ok_or(Error::AuditChanged)?;
    let before = match end.id {
        0 => key.beginning(&database_id::own()?),
        _ => end.proven(&keys.server, generation).ok_or(Error::AuditChanged)?.mac,
    };
    if plan::one_row(IS_BEYOND, || vec![end.id.into()], |row| row.get(1))? {
        return Err(Error::AuditChanged);
    }
    let id = end.id.checked_add(1).ok_or(Error::AuditChanged)?;
    let mac = record.mac(&key, id, &before);
    let row = || {
        vec![
            id.into(),
            plan::timestamptz(record.done_at),
            record.login_role.into(),
            record.acting_role.into(),
            record.action.into(),
            record.quarantine_id.into(),
            record.token.into(),
            record.reason.into(),
            (generation as i32).into(),
            Vec::from(mac).into(),
        ]
    };
    plan::run(WRITE, row, |_| ());
    let end = Link { id, mac };
    note_end(end, &key, generation);
    Ok(end)
}

/// Has the end proven by the key of `generation`, which is put to use in place of `before`. An end that is not as pg_mask
/// left it stays so, for [`verify`](super::verify) to find.
pub(crate) fn prove_end_anew(keys: &ServerKeys, before: u32, generation: u32) -> Result<(), Error> {
    let end = lock_end()?.proven(keys, before);
    if let (Some(end), Some(key)) = (end, keys.chain_key(generation)) {
        note_end(end, &key, generation);
    }
    Ok(())
}

fn lock_end() -> Result<End, Error> {
    own_names::set(c"lock_timeout", LONGEST_WAIT);
    plan::one_row(LOCK_END, Vec::new, End::read)
}

fn note_end(end: Link, key: &ChainKey, generation: u32) {
    let proof = key.end(end.id, &end.mac);
    let row = || {
        vec![end.id.into(), (generation as i32).into(), Vec::from(end.mac).into(), Vec::from(proof).into()]
    };
    plan::run(MOVE_END, row, |_| ());
}

/// Whether the chain holds that row.
pub(super) fn holds(link: Link) -> Result<bool, Error> {
    plan::one_row(IS_WRITTEN, || vec![link.id.into(), Vec::from(link.mac).into()], |row| row.get(1))
}

/// Where the chain ends, as it was noted.
pub(super) struct End {
    pub(super) id: i64,
    generation: i32,
    mac: OwnedBytes,
    proof: OwnedBytes,
}

impl End {
    /// Reads the columns id, generation, mac, proof.
    pub(super) fn read(row: &plan::Row<'_>) -> Result<Self, Error> {
        Ok(Self { id: row.get(1)?, generation: row.get(2)?, mac: row.get(3)?, proof: row.get(4)? })
    }

    /// The last row, if the note of it is as it was made under `generation`.
    pub(super) fn proven(&self, keys: &ServerKeys, generation: u32) -> Option<Link> {
        let key = keys.chain_key(generation)?;
        let mac: Hash = self.mac.0.as_slice().try_into().ok()?;
        let is_proven =
            u32::try_from(self.generation) == Ok(generation) && key.end(self.id, &mac) == *self.proof.0;
        is_proven.then_some(Link { id: self.id, mac })
    }
}
