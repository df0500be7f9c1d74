//! Putting values in. As a rule, nearly all of a batch's values are there already, and [`known`] knows that of most.
//! Of the others it is asked, with one statement, which are not there, and only these are sealed and written.

use super::{known, seal};
use crate::arrays::ArrayBuilder;
use crate::database_id;
use crate::error::Error;
use crate::keys::Keys;
use crate::named_tables::lock_own;
use crate::{memory, plan, settings};
use pg_mask_core::canonical::{SCRATCH, canonical};
use pg_mask_core::hmac_key::Hash;
use pg_mask_core::mask::Masker;
use pg_mask_core::network::Network;
use pgrx::prelude::*;
use std::borrow::Cow;

/// The places in $1 of tokens that the vault has no row of. A subquery for each: it is never made a join, which
/// would read the whole vault.
const UNKNOWN: &str = "SELECT given.place
    FROM unnest($1) WITH ORDINALITY AS given(token, place)
    WHERE (SELECT v.token FROM pgmask.vault AS v WHERE v.token = given.token) IS NULL";

/// The generations before $1 of which the vault has tokens.
const OLDER: &str = "SELECT g.generation FROM pg_catalog.generate_series(1, $1 - 1) AS g(generation)
    WHERE (SELECT v.token FROM pgmask.vault AS v
           WHERE v.token >= 'm' || g.generation || '_' AND v.token < 'm' || g.generation || '_g' LIMIT 1) IS NOT NULL";

/// In the order of the tokens, as everybody inserts: so nobody waits for each other in a circle.
const KEEP: &str = "INSERT INTO pgmask.vault (token, domain, sealed_value)
    SELECT unnest($1), unnest($2), unnest($3)
    ON CONFLICT DO NOTHING";

/// The vault, where it is on.
pub(crate) struct Vault {
    table: pg_sys::Oid,
}

/// A value that was masked, and its token.
#[derive(Clone, Copy)]
pub(crate) struct Masked<'a> {
    pub(crate) domain: &'static [u8],
    pub(crate) token: &'a [u8],
    pub(crate) value: Raw<'a>,
}

/// What was masked.
#[derive(Clone, Copy)]
pub(crate) enum Raw<'a> {
    Text(&'a [u8]),
    Network(Network),
}

impl Raw<'_> {
    fn hash(&self, masker: &Masker) -> Option<Hash> {
        match self {
            Self::Text(text) => masker.hash(text),
            Self::Network(network) => Some(masker.hash_network(*network)),
        }
    }

    /// Its length in bytes, at most.
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Network(_) => SCRATCH.len(),
        }
    }

    /// Seals it in its canonical form, which is what its token is of.
    fn seal(&self, with: impl FnOnce(&[u8]) -> Result<Vec<u8>, Error>) -> Result<Vec<u8>, Error> {
        let mut scratch = SCRATCH;
        match self {
            Self::Text(text) => with(canonical(text, &mut scratch)),
            Self::Network(network) => with(network.text(&mut scratch)),
        }
    }
}

impl Vault {
    /// `None` if it is off. It is locked as a table that is written to, before the keys are read: so `remask`
    /// can wait for whoever may still write tokens of an older generation.
    pub(crate) fn open() -> Result<Option<Self>, Error> {
        if !settings::vault() {
            return Ok(None);
        }
        // SAFETY: a plain read.
        if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED as i32 {
            return Err(Error::VaultOfBefore);
        }
        let table = lock_own(c"vault")?;
        Ok(Some(Self { table }))
    }

    /// Keeps those of `values` that are not there yet.
    pub(crate) fn keep<'a>(
        &self,
        keys: &Keys,
        values: impl Iterator<Item = Masked<'a>>,
    ) -> Result<(), Error> {
        known::begin(self.table);
        let mut given = Vec::new();
        for value in values.filter(|value| !known::has(value.token)) {
            given.try_reserve(1).map_err(|_| Error::Memory)?;
            given.push(value);
        }
        given.sort_unstable_by_key(|value| value.token);
        given.dedup_by_key(|value| value.token);
        let mut unknown = unknown(&given, |value| Some(value.token.into()))?;
        // During a rotation, until the vault was lifted.
        for generation in older_generations(keys)? {
            let older = |value: &Masked<'_>| {
                let masker = keys.masker_of(generation, value.domain);
                value.value.hash(&masker).map(|hash| masker.token_of(&hash).into())
            };
            unknown = self::unknown(&unknown, older)?;
        }
        let tokens = given.iter().map(|value| value.token);
        let mut missing = unknown.iter().map(|value| value.token).peekable();
        known::note(tokens.filter(|token| missing.next_if_eq(token).is_none()));
        if unknown.is_empty() {
            return Ok(());
        }
        let bytes = unknown.iter().map(|value| value.value.len()).sum();
        memory::for_stored(unknown.len(), bytes)?;
        known::writes();
        let database = database_id::own()?;
        let mut tokens = ArrayBuilder::text();
        let mut domains = ArrayBuilder::text();
        let mut sealed = ArrayBuilder::bytea();
        for Masked { domain, token, value } in unknown {
            tokens.push_bytes(Some(token));
            domains.push_bytes(Some(domain));
            sealed.push_bytes(Some(&value.seal(|text| seal(keys, database, domain, token, text))?));
        }
        plan::run(KEEP, || vec![tokens.finish(), domains.finish(), sealed.finish()], |_| ());
        Ok(())
    }
}

/// Those of `given` whose tokens the vault has no row of.
fn unknown<'v>(
    given: &[Masked<'v>],
    token: impl Fn(&Masked<'v>) -> Option<Cow<'v, [u8]>>,
) -> Result<Vec<Masked<'v>>, Error> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let mut tokens = ArrayBuilder::text();
    for value in given {
        tokens.push_bytes(token(value).as_deref());
    }
    let mut unknown = plan::rows(
        UNKNOWN,
        || vec![tokens.finish()],
        |row| {
            let place = usize::try_from(row.get::<i64>(1)?).ok().and_then(|place| place.checked_sub(1));
            place.and_then(|place| given.get(place)).copied().ok_or(Error::Unreadable)
        },
    )?;
    unknown.sort_unstable_by_key(|value| value.token);
    Ok(unknown)
}

fn older_generations(keys: &Keys) -> Result<Vec<u32>, Error> {
    let generation = keys.generation();
    if generation == 1 || known::has_none_before(generation) {
        return Ok(Vec::new());
    }
    let older = plan::rows(
        OLDER,
        || vec![(generation as i32).into()],
        |row| u32::try_from(row.get::<i32>(1)?).map_err(|_| Error::Unreadable),
    )?;
    if older.is_empty() {
        known::note_none_before(generation);
    }
    Ok(older)
}
