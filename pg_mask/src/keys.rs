//! The keyring in this backend's memory: read again when the file changes, checked against the
//! database at every statement, derived keys kept ready for use.

use crate::error::Error;
use crate::{key_check, settings};
use pg_mask_core::key_file::{self, Stamp};
use pg_mask_core::keyring::{Key, Keyring};
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A backend that masks under more domains than this in turn derives keys again.
const MOST_DOMAINS_KEPT: usize = 64;

/// A keyring and what is derived from it. Wiped from memory when the last statement lets go of it.
pub(crate) struct Keys {
    path: PathBuf,
    stamp: Stamp,
    pub(crate) keyring: Keyring,
    /// Ready for the default domain.
    pub(crate) pii: Rc<Masker>,
    others: RefCell<Vec<DomainMasker>>,
    pub(crate) check_values: Vec<String>,
}

/// A domain's name and what masks its values.
pub(crate) type DomainMasker = (Box<[u8]>, Rc<Masker>);

thread_local! {
    static KEPT: RefCell<Option<Rc<Keys>>> = const { RefCell::new(None) };
}

/// The server's keys as they are now, fit for this database. Call it once at the start of every
/// statement that masks, opens or seals.
pub(crate) fn current() -> Result<Rc<Keys>, Error> {
    let keys = latest()?;
    key_check::verify(&keys.check_values)?;
    Ok(keys)
}

/// The server's keys as they are now, whether they fit this database or not.
pub(crate) fn latest() -> Result<Rc<Keys>, Error> {
    let path = settings::keyring_file();
    let kept = KEPT.with_borrow(Clone::clone);
    if let Some(keys) =
        kept.filter(|keys| keys.path == path && Stamp::read(&path).as_ref() == Some(&keys.stamp))
    {
        return Ok(keys);
    }
    KEPT.set(None); // whatever happens now, the old keys are gone
    let keys = Rc::new(load(&path)?);
    KEPT.set(Some(keys.clone()));
    Ok(keys)
}

fn load(path: &Path) -> Result<Keys, Error> {
    let (text, stamp) =
        key_file::read(path).map_err(|error| Error::KeyFile { path: path.to_owned(), error })?;
    let keyring = Keyring::parse(&text).map_err(|error| Error::Keyring { path: path.to_owned(), error })?;
    let pii = Rc::new(Masker::new(&keyring, DEFAULT_DOMAIN));
    let check_values = keyring.generations().iter().map(Key::check_value).collect();
    Ok(Keys { path: path.to_owned(), stamp, keyring, pii, others: RefCell::default(), check_values })
}

impl Keys {
    /// What masks values of `domain` (UTF-8).
    pub(crate) fn masker(&self, domain: &[u8]) -> Rc<Masker> {
        if domain == DEFAULT_DOMAIN {
            return self.pii.clone();
        }
        let mut others = self.others.borrow_mut();
        if let Some((_, masker)) = others.iter().find(|(name, _)| **name == *domain) {
            return masker.clone();
        }
        if others.len() >= MOST_DOMAINS_KEPT {
            others.clear();
        }
        let masker = Rc::new(Masker::new(&self.keyring, domain));
        others.push((domain.into(), masker.clone()));
        masker
    }
}
