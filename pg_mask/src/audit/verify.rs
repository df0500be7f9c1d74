//! `pgmask.verify_audit()`: whether `pgmask.audit` holds what was written to it.

use super::chain::{End, Record};
use crate::database_id::{self, DatabaseId};
use crate::error::{Error, OrRaise};
use crate::held;
use crate::keys::{self, ServerKeys};
use crate::plan;
use crate::text::{OwnedBytes, Text};
use pg_mask_core::chain::ChainKey;
use pg_mask_core::hmac_key::Hash;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::rc::Rc;

/// Rows that are read at a time.
const AT_A_TIME: i64 = 200;

/// Where more is wrong than this, it is enough to know that.
const MOST_FINDINGS: usize = 100;

const ROWS: &str =
    "SELECT id, done_at, login_role, acting_role, action, quarantine_id, token, reason, generation, mac
    FROM pgmask.audit WHERE id > $1 ORDER BY id LIMIT $2";

const END: &str = "SELECT id, generation, mac, proof FROM pgmask.audit_end";

const MAC_OF: &str = "SELECT pg_catalog.encode(mac, 'hex') FROM pgmask.audit WHERE id = $1";

/// A row, or the end of the chain, is not what was written.
const CHANGED: &str = "changed";
/// Rows before others are missing, from this one on.
const CUT: &str = "cut";
/// The last rows are missing, from this one on.
const MISSING_END: &str = "missing_end";

/// What is wrong with the audit: nothing, if no row is returned. With a number and a MAC from the server's
/// log, whether the row that the log speaks of is there as well.
#[pg_extern(schema = "pgmask", volatile, parallel_unsafe, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn verify_audit(
    logged_id: default!(Option<i64>, "NULL"),
    logged_mac: default!(Option<Text<'_>>, "NULL"),
) -> TableIterator<'static, (name!(id, i64), name!(problem, &'static str))> {
    held::hold();
    TableIterator::new(verify(logged_id, logged_mac).or_raise())
}

fn verify(logged_id: Option<i64>, logged_mac: Option<Text<'_>>) -> Result<Vec<(i64, &'static str)>, Error> {
    let mut verifier = Verifier::new()?;
    loop {
        while verifier.read_some()? {}
        // Read after the rows: what was written meanwhile is a reason to read on.
        let Some(end) = plan::rows(END, Vec::new, End::read)?.pop() else {
            if verifier.last > 0 {
                verifier.found(verifier.next(), MISSING_END);
            }
            break;
        };
        if end.id <= verifier.last || !verifier.read_some()? {
            verifier.compare_end(&end)?;
            break;
        }
    }
    if let Some(id) = logged_id {
        let mac = plan::rows(MAC_OF, || vec![id.into()], |row| row.get::<String>(1))?.pop();
        match (mac, logged_mac) {
            (None, _) if id > verifier.last => verifier.found(id, MISSING_END),
            (None, _) => verifier.found(id, CUT),
            (Some(mac), Some(logged)) if !logged.as_server_bytes().eq_ignore_ascii_case(mac.as_bytes()) => {
                verifier.found(id, CHANGED);
            }
            _ => {}
        }
    }
    Ok(verifier.findings)
}

/// What the next row has to follow.
enum Before {
    Beginning,
    Mac(Hash),
    /// The row before is missing, or its MAC is none.
    Unknown,
}

struct Verifier {
    keys: Rc<ServerKeys>,
    /// The generation that was in use as this began.
    generation: u32,
    /// The key of the rows that were read last, and its generation.
    key: Option<(i32, ChainKey)>,
    databases: Vec<DatabaseId>,
    last: i64,
    before: Before,
    findings: Vec<(i64, &'static str)>,
}

impl Verifier {
    fn new() -> Result<Self, Error> {
        let keys = keys::current()?;
        Ok(Self {
            generation: keys.generation(),
            keys: keys.server,
            key: None,
            databases: database_id::all()?,
            last: 0,
            before: Before::Beginning,
            findings: Vec::new(),
        })
    }

    fn found(&mut self, id: i64, problem: &'static str) {
        if self.findings.len() < MOST_FINDINGS && !self.findings.contains(&(id, problem)) {
            self.findings.push((id, problem));
        }
    }

    /// The id that the next row has to have. Who may write to the table may have given one the largest of all.
    fn next(&self) -> i64 {
        self.last.saturating_add(1)
    }

    /// Reads and checks the next rows; says whether there were any.
    fn read_some(&mut self) -> Result<bool, Error> {
        let read = |row: &plan::Row<'_>| {
            let record = Record {
                done_at: row.get::<TimestampWithTimeZone>(2)?.into(),
                login_role: row.get(3)?,
                acting_role: row.get(4)?,
                action: row.get(5)?,
                quarantine_id: row.get_or_null(6)?,
                token: row.get_or_null(7)?,
                reason: row.get(8)?,
            };
            Ok((row.get::<i64>(1)?, record, row.get::<i32>(9)?, row.get::<OwnedBytes>(10)?))
        };
        let rows = plan::rows(ROWS, || vec![self.last.into(), AT_A_TIME.into()], read)?;
        let is_any = !rows.is_empty();
        for (id, record, generation, mac) in rows {
            pgrx::check_for_interrupts!();
            if id != self.next() {
                self.found(self.next(), CUT);
                self.before = Before::Unknown;
            }
            if !self.is_as_written(id, &record, generation, &mac.0)? {
                self.found(id, CHANGED);
            }
            self.before = mac.0.as_slice().try_into().map_or(Before::Unknown, Before::Mac);
            self.last = id;
        }
        Ok(is_any)
    }

    /// The key of the rows of a generation, which may have been added meanwhile.
    fn chain_key(&mut self, generation: i32) -> Result<Option<ChainKey>, Error> {
        let Ok(generation) = u32::try_from(generation) else { return Ok(None) };
        if self.keys.chain_key(generation).is_none() {
            self.keys = keys::server()?;
        }
        Ok(self.keys.chain_key(generation))
    }

    fn is_as_written(
        &mut self,
        id: i64,
        record: &Record,
        generation: i32,
        mac: &[u8],
    ) -> Result<bool, Error> {
        if self.key.as_ref().is_none_or(|(of, _)| *of != generation) {
            self.key = self.chain_key(generation)?.map(|key| (generation, key));
        }
        let Some((_, key)) = &self.key else { return Ok(false) };
        let follows = |before: &Hash| record.mac(key, id, before) == *mac;
        Ok(match &self.before {
            Before::Beginning => self.databases.iter().any(|database| follows(&key.beginning(database))),
            Before::Mac(before) => follows(before),
            Before::Unknown => mac.len() == size_of::<Hash>(),
        })
    }

    /// Compares the note of the end with the last row. It has to be of the generation in use: who has an older keyring could
    /// note any other.
    fn compare_end(&mut self, end: &End) -> Result<(), Error> {
        // Whether another was put to use as the end was read, or after it.
        let newest = keys::newest()?;
        let generations = self.generation..=newest.generation();
        let Some(link) = generations.rev().find_map(|generation| end.proven(&newest.server, generation))
        else {
            let is_empty = end.id == 0 && self.last == 0;
            if !is_empty {
                self.found(end.id, CHANGED);
            }
            return Ok(());
        };
        if link.id > self.last {
            self.found(self.next(), MISSING_END);
        } else if link.id < self.last {
            self.found(link.id.saturating_add(1), CHANGED);
        } else if !matches!(self.before, Before::Mac(mac) if mac == link.mac) {
            self.found(link.id, CHANGED);
        }
        Ok(())
    }
}
