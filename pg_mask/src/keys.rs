//! The keyring in this backend's memory: read again when the file changes, checked against the
//! database for every statement, derived keys kept ready for use.

use crate::error::Error;
use crate::key_check::{CheckValues, KeyCheck};
use crate::memory;
use crate::settings;
use crate::snapshot::Snapshot;
use crate::text::Text;
use pg_mask_core::chain::ChainKey;
use pg_mask_core::key_file::{self, Stamp};
use pg_mask_core::keyring::{Key, Keyring};
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker};
use pg_mask_core::seal::{self, SealError};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zeroize::Zeroizing;

/// The longest name of a domain, in bytes of the server's encoding.
const LONGEST_DOMAIN: usize = 1024;

/// A backend that masks under more domains and generations than this in turn derives keys again.
const MOST_MASKERS_KEPT: usize = 64;

/// The server's keyring, and what is derived from it. Wiped from memory when the last statement lets go
/// of it.
pub(crate) struct ServerKeys {
    path: PathBuf,
    stamp: Stamp,
    pub(crate) keyring: Keyring,
    pub(crate) check_values: CheckValues,
    maskers: RefCell<Vec<KeptMasker>>,
}

struct KeptMasker {
    generation: u32,
    domain: Box<[u8]>,
    masker: Rc<Masker>,
}

/// The keys that a statement uses: those of the server, fit for this database, and of them the ones
/// that are in use here.
pub(crate) struct Keys {
    pub(crate) server: Rc<ServerKeys>,
    generation: u32,
    seal_id: Option<u32>,
    /// Masks under the default domain.
    pub(crate) pii: Rc<Masker>,
}

thread_local! {
    static KEPT: RefCell<Option<Rc<ServerKeys>>> = const { RefCell::new(None) };
}

/// The keys for a statement that masks or opens, as its snapshot sees the database: a statement has
/// one generation from its beginning to its end, in its parallel workers, too.
pub(crate) fn current() -> Result<Keys, Error> {
    in_use(Snapshot::Statement)
}

/// The keys for a statement that writes, as the database is now. It has locked before what it writes to: so whoever
/// looks for rows of older generations after a rotation, in the login table or at the end of the audit, can wait for that
/// lock, and finds all of them.
pub(crate) fn newest() -> Result<Keys, Error> {
    in_use(Snapshot::Newest)
}

fn in_use(snapshot: Snapshot) -> Result<Keys, Error> {
    // The database first: a rotation adds the key to the server's file before it puts it to use.
    let check = KeyCheck::read(snapshot)?;
    let server = server()?;
    let generation = check.generation()?;
    check.verify(&server.check_values)?;
    let pii = server.masker(generation, DEFAULT_DOMAIN);
    Ok(Keys { seal_id: check.seal_id(), server, generation, pii })
}

/// Lets go of the keys that are kept from statement to statement.
pub(crate) fn forget() {
    KEPT.set(None);
}

/// The server's keys as they are now, whether they fit this database or not.
pub(crate) fn server() -> Result<Rc<ServerKeys>, Error> {
    memory::for_a_call()?;
    let path = settings::keyring_file();
    let kept = KEPT.with_borrow(Clone::clone);
    if let Some(keys) =
        kept.filter(|keys| keys.path == path && Stamp::read(&path).as_ref() == Some(&keys.stamp))
    {
        return Ok(keys);
    }
    forget(); // whatever happens now, the old keys are gone
    let keys = Rc::new(load(&path)?);
    KEPT.set(Some(keys.clone()));
    Ok(keys)
}

fn load(path: &Path) -> Result<ServerKeys, Error> {
    let (text, stamp) =
        key_file::read(path).map_err(|error| Error::KeyFile { path: path.to_owned(), error })?;
    let keyring = Keyring::parse(&text).map_err(|error| Error::Keyring { path: path.to_owned(), error })?;
    let check_values = CheckValues::of(&keyring);
    Ok(ServerKeys { path: path.to_owned(), stamp, keyring, check_values, maskers: RefCell::default() })
}

impl ServerKeys {
    /// What makes the MACs of the audit, from the key of a generation; `None` if there is no such key.
    pub(crate) fn chain_key(&self, generation: u32) -> Option<ChainKey> {
        let at = usize::try_from(generation).ok()?.checked_sub(1)?;
        self.keyring.generations().get(at).map(ChainKey::new)
    }

    fn masker(&self, generation: u32, domain: &[u8]) -> Rc<Masker> {
        let mut kept = self.maskers.borrow_mut();
        if let Some(found) = kept.iter().find(|kept| kept.generation == generation && *kept.domain == *domain)
        {
            return found.masker.clone();
        }
        if kept.len() >= MOST_MASKERS_KEPT {
            kept.clear();
        }
        let masker = Rc::new(Masker::new(&self.keyring, generation, domain));
        kept.push(KeptMasker { generation, domain: domain.into(), masker: masker.clone() });
        masker
    }
}

impl Keys {
    /// What masks values of `domain`.
    pub(crate) fn masker(&self, domain: Text<'_>) -> Result<Rc<Masker>, Error> {
        let bytes = domain.as_server_bytes().len();
        if bytes > LONGEST_DOMAIN {
            return Err(Error::LongDomain { bytes, most: LONGEST_DOMAIN });
        }
        memory::for_a_call()?;
        Ok(self.server.masker(self.generation, domain.to_utf8()))
    }

    /// What masked values of `domain` (UTF-8) under a generation up to the one in use.
    pub(crate) fn masker_of(&self, generation: u32, domain: &[u8]) -> Rc<Masker> {
        self.server.masker(generation, domain)
    }

    /// The generation in use.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The id of the seal key in use.
    pub(crate) fn seal_id(&self) -> Result<u32, Error> {
        self.seal_id.ok_or(Error::NoSealKey)
    }

    /// Seals `body` for the row that `row` identifies.
    pub(crate) fn seal(&self, row: &[u8], body: &[u8]) -> Result<Vec<u8>, Error> {
        seal::seal(self.seal_key().ok_or(Error::NoSealKey)?, row, body).map_err(Error::Seal)
    }

    /// Opens what was sealed for the row that `row` identifies, also under an older seal key. But not under a newer one than
    /// that in use: somebody took a rotation back, and what is opened may be sealed anew.
    pub(crate) fn open(&self, row: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let is_newer = |id: &u32| Some(*id) > self.seal_id && self.server.keyring.seal(*id).is_some();
        if let Some(newer) = seal::key_of(sealed).filter(is_newer) {
            return Err(SealError::NewerKey(newer));
        }
        seal::open(&self.server.keyring, row, sealed)
    }

    fn seal_key(&self) -> Option<&Key> {
        self.server.keyring.seal(self.seal_id?)
    }
}
