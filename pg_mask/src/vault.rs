//! The vault: each value that ingestion masks, once, sealed. It is off unless `pgmask.vault` is on. Who may ask
//! for a value gets it by its token, on the record, and can have it erased for good.
//!
//! - [`keep`]: ingestion puts values in that are not there yet; [`known`] remembers what is there
//! - [`find`]: the rows of a value, by its token of any generation
//! - [`recover`], [`forget`]: the steps of the procedures `recover_pii` and `forget` (vault.sql)
//! - [`lift`]: the vault's part of `remask`
//!
//! A value that was forgotten leaves a row without a value, so that ingestion does not put it in again.

mod find;
mod forget;
mod keep;
mod known;
mod lift;
mod recover;

pub(crate) use keep::{Masked, Raw, Vault};
pub(crate) use known::prepare;

use crate::database_id::DatabaseId;
use crate::error::Error;
use crate::keys::{self, Keys};
use crate::memory;
use crate::text::Text;
use pg_mask_core::mask::{DEFAULT_DOMAIN, NETWORK_DOMAIN};
use pg_mask_core::seal::{self, SealError};
use pg_mask_core::token::Token;
use zeroize::Zeroizing;

/// The domains that ingestion masks under.
const DOMAINS: [&[u8]; 2] = [DEFAULT_DOMAIN, NETWORK_DOMAIN.as_bytes()];

/// Seals a value for the row of its token. All values of usual length are sealed to one length.
fn seal(
    keys: &Keys,
    database: DatabaseId,
    domain: &[u8],
    token: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, Error> {
    let padded = seal::pad(value).map_err(Error::Seal)?;
    keys.seal(&identity(database, domain, token)?, &padded)
}

/// Opens what [`seal`] made, for a row of a database that has one of the ids.
fn open(
    keys: &Keys,
    databases: &[DatabaseId],
    domain: &[u8],
    token: &[u8],
    sealed: &[u8],
) -> Result<Result<Zeroizing<Vec<u8>>, SealError>, Error> {
    let mut opened = Err(SealError::Broken);
    for database in databases {
        opened = keys.open(&identity(*database, domain, token)?, sealed).and_then(seal::unpad);
        if !matches!(opened, Err(SealError::Broken)) {
            break;
        }
    }
    Ok(opened)
}

/// What binds a sealed value to its place: the database, the domain and the token.
fn identity(database: DatabaseId, domain: &[u8], token: &[u8]) -> Result<Vec<u8>, Error> {
    const NAME: &[u8] = b"pgmask.vault";
    let mut identity =
        memory::list(NAME.len() + database.len() + size_of::<u64>() + domain.len() + token.len())?;
    identity.extend(NAME);
    identity.extend(database);
    identity.extend((domain.len() as u64).to_be_bytes());
    identity.extend(domain);
    identity.extend(token);
    Ok(identity)
}

/// The token that a procedure was given. A hash without a key, if that is taken, is lifted at once: it must not be
/// written down anywhere, since it gives away an address.
fn given(token: Option<Text<'_>>, takes_hashes: bool) -> Result<Token, Error> {
    let token = token.and_then(|token| Token::parse(token.as_server_bytes())).ok_or(Error::NotAToken)?;
    if token.generation > 0 {
        return Ok(token);
    }
    if !takes_hashes {
        return Err(Error::NotAToken);
    }
    let keys = keys::current()?;
    let hash = keys.pii.lift(&token).ok_or(Error::NotAToken)?;
    Ok(Token { generation: keys.generation(), hash })
}
