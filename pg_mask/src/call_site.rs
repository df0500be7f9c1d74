//! What one call of a masking function in a query keeps from row to row (`fn_extra`): the keys, looked up
//! once for a snapshot, and the last value with its token, so that a value that comes again costs a
//! comparison. `WHERE masked_ip = mask_pii('…')` over a whole table hashes once.

use crate::error::Error;
use crate::guesses::{self, Caller};
use crate::keys::{self, Keys};
use crate::memory;
use crate::snapshot::{self, Identity};
use crate::text::{KeptText, NewText, Text, server_is_utf8_or_unknown};
use pg_mask_core::hmac_key::Hash;
use pg_mask_core::mask::Masker;
use pgrx::PgMemoryContexts;
use pgrx::prelude::*;
use std::rc::Rc;

/// Longer values are not remembered.
const LONGEST_REMEMBERED: usize = 256;

pub(crate) struct CallSite {
    /// Who calls: for another the last value counts anew.
    caller: Caller,
    /// What the keys were looked up for.
    snapshot: Option<Identity>,
    keys: Keys,
    /// What masks the values of the domain that was last asked for.
    masker: Rc<Masker>,
    /// That domain as it was given; `None` for the default one.
    domain: Option<Box<[u8]>>,
    /// Whether texts have to be converted to UTF-8.
    pub(crate) converts: bool,
    last_value: Value,
    last_token: KeptText,
    shared: Shared,
}

/// Whether rows get one copy of the token together. Where the arguments are constants or parameters of the query, it
/// has one token from its beginning to its end. PL/pgSQL evaluates an expression anew with other parameters, though, and
/// what it got before may still be in use: it may run code of anybody's (the CHECK of a domain) on a value before it
/// copies it. So the copy that rows have together is the first token, and is never written again.
enum Shared {
    /// Not yet, but its copy may live here.
    Possible(pg_sys::MemoryContext),
    /// The copy of the last token.
    Token(NewText),
    No,
}

/// The bytes of a value, if it is short enough.
struct Value {
    len: Option<usize>,
    bytes: [u8; LONGEST_REMEMBERED],
}

impl Value {
    const NONE: Self = Self { len: None, bytes: [0; LONGEST_REMEMBERED] };

    #[inline]
    fn is(&self, value: &[u8]) -> bool {
        self.len == Some(value.len()) && self.bytes[..value.len()] == *value
    }

    #[inline]
    fn set(&mut self, value: &[u8]) {
        self.len = (value.len() <= LONGEST_REMEMBERED).then_some(value.len());
        if self.len.is_some() {
            self.bytes[..value.len()].copy_from_slice(value);
        }
    }
}

impl CallSite {
    fn new(
        caller: Caller,
        snapshot: Option<Identity>,
        flinfo: *mut pg_sys::FmgrInfo,
        arguments: i16,
    ) -> Result<Self, Error> {
        let keys = keys::current()?;
        // SAFETY: a look at the expression that the call stands in, where that is known.
        let shared = unsafe {
            match (0..arguments).all(|n| pg_sys::get_fn_expr_arg_stable(flinfo, n.into())) {
                true => Shared::Possible((*flinfo).fn_mcxt),
                false => Shared::No,
            }
        };
        Ok(Self {
            caller,
            snapshot,
            masker: keys.pii.clone(),
            domain: None,
            keys,
            converts: !server_is_utf8_or_unknown(),
            last_value: Value::NONE,
            last_token: KeptText::EMPTY,
            shared,
        })
    }

    /// The generation in use.
    pub(crate) fn generation(&self) -> u32 {
        self.masker.generation()
    }

    /// Masks under `domain` from now on.
    #[inline]
    fn switch_to(&mut self, domain: Text<'_>) -> Result<(), Error> {
        let name = domain.as_server_bytes();
        if self.domain.as_deref() != Some(name) {
            self.masker = memory::with_room(|| self.keys.masker(domain))?;
            self.domain = Some(name.into()); // there is memory: `masker` has looked
            self.last_value = Value::NONE;
        }
        Ok(())
    }

    /// The token of the value that `bytes` identify and `hash` hashes; `None` if it has none. A value that
    /// is hashed counts as a guess.
    #[inline]
    pub(crate) fn token(
        &mut self,
        bytes: &[u8],
        hash: impl FnOnce(&Masker) -> Option<Hash>,
    ) -> Result<Option<NewText>, Error> {
        self.remembered(bytes, hash, guesses::count)
    }

    /// The same for a token that is lifted: it tells nothing of a value that was not known before.
    #[inline]
    pub(crate) fn lifted(
        &mut self,
        bytes: &[u8],
        hash: impl FnOnce(&Masker) -> Option<Hash>,
    ) -> Result<Option<NewText>, Error> {
        self.remembered(bytes, hash, |_| Ok(()))
    }

    #[inline]
    fn remembered(
        &mut self,
        bytes: &[u8],
        hash: impl FnOnce(&Masker) -> Option<Hash>,
        count: impl FnOnce(&Hash) -> Result<(), Error>,
    ) -> Result<Option<NewText>, Error> {
        if !self.last_value.is(bytes) {
            self.last_value.len = None;
            let Some(hash) = hash(&self.masker) else { return Ok(None) };
            count(&hash)?;
            self.last_token.write(self.masker.token_len(), |token| self.masker.write_token(&hash, token));
            self.last_value.set(bytes);
            if let Shared::Token(_) = self.shared {
                self.shared = Shared::No;
            }
        }
        Ok(Some(self.result()))
    }

    /// The last token as a result: a copy for each row, or one for all.
    #[inline]
    fn result(&mut self) -> NewText {
        match self.shared {
            Shared::No => self.last_token.copy(),
            Shared::Token(token) => token,
            Shared::Possible(memory) => {
                // SAFETY: the context that the call site itself lives in, as long as the query runs.
                let token = unsafe { PgMemoryContexts::For(memory).switch_to(|_| self.last_token.copy()) };
                self.shared = Shared::Token(token);
                token
            }
        }
    }
}

/// This call's [`CallSite`], with keys that were looked up for the snapshot that the query reads with, by a role that may
/// call: PL/pgSQL keeps a call site over many statements, and a procedure over many transactions, whoever calls these.
#[inline]
pub(crate) fn call_site<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Result<&'a mut CallSite, Error> {
    let snapshot = snapshot::active();
    let caller = Caller::now();
    // SAFETY: PostgreSQL gives every call a flinfo whose fn_extra is ours alone, NULL at first; what
    // is put there is dropped with the memory context it names, and no earlier. Nothing else of
    // this call holds a reference to it.
    unsafe {
        let flinfo = (*fcinfo).flinfo;
        let site: *mut CallSite = (*flinfo).fn_extra.cast();
        if let Some(site) = site.as_mut()
            && snapshot.is_some()
            && site.snapshot == snapshot
            && site.caller == caller
        {
            return Ok(site);
        }
        memory::with_room(|| {
            may_call((*flinfo).fn_oid, caller.current());
            let mut fresh = CallSite::new(caller, snapshot, flinfo, (*fcinfo).nargs)?;
            if let Some(site) = site.as_mut() {
                fresh.shared = Shared::No; // or there would be a copy for each snapshot
                *site = fresh;
                return Ok(site);
            }
            let kept = PgMemoryContexts::For((*flinfo).fn_mcxt).leak_and_drop_on_delete(fresh);
            (*flinfo).fn_extra = kept.cast();
            Ok(&mut *kept)
        })
    }
}

/// This call's site, with what masks values of `domain`.
pub(crate) fn call_site_of<'a>(
    domain: Text<'_>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<&'a mut CallSite, Error> {
    let site = call_site(fcinfo)?;
    site.switch_to(domain)?;
    Ok(site)
}

/// Raises PostgreSQL's own error where `caller` may not call the function. PostgreSQL looks at that as well, but only when an
/// expression is made ready, which PL/pgSQL does once in a transaction.
fn may_call(function: pg_sys::Oid, caller: pg_sys::Oid) {
    if function == pg_sys::InvalidOid {
        return; // called by a name in C, not by a statement
    }
    let right = pg_sys::ACL_EXECUTE as pg_sys::AclMode;
    // SAFETY: look-ups, of what is so now, and the error that PostgreSQL raises in its own check (execExpr.c).
    unsafe {
        pg_sys::AcceptInvalidationMessages();
        #[cfg(feature = "pg15")]
        let found = pg_sys::pg_proc_aclcheck(function, caller, right);
        #[cfg(not(feature = "pg15"))]
        let found = pg_sys::object_aclcheck(pg_sys::ProcedureRelationId, function, caller, right);
        if found != pg_sys::AclResult::ACLCHECK_OK {
            let name = pg_sys::get_func_name(function);
            pg_sys::aclcheck_error(found, pg_sys::ObjectType::OBJECT_FUNCTION, name);
        }
    }
}
