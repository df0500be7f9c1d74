//! pg_mask without PostgreSQL: what is masked, parsed and sealed, and with which keys.
//!
//! - [`canonical`]: one text for equal values ([`network`]: for addresses and networks)
//! - [`mask`]: from a value to its token ([`hmac_key`] is the keyed hash under it)
//! - [`token`]: a token's text, taken apart
//! - [`keyring`]: the keys, their format and their rules ([`key_file`]: on disk)
//! - [`login`]: from a message body to the fields of a login, or the reason why not
//! - [`sent_time`]: which time to believe a message was sent
//! - [`seal`]: bodies that can't be taken in, encrypted
//! - [`chain`]: records of which none can be changed or taken out unseen
#![forbid(unsafe_code)]

pub mod canonical;
pub mod chain;
pub mod hmac_key;
pub mod key_file;
pub mod keyring;
pub mod login;
pub mod mask;
pub mod network;
pub mod seal;
pub mod sent_time;
pub mod token;
