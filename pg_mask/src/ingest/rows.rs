//! From a body to a row of the target, and rows into the target.

use super::target::Target;
use crate::arrays::ArrayBuilder;
use crate::clock::Day;
use crate::error::Error;
use crate::keys::Keys;
use crate::role_of_code::writes;
use crate::settings::InvalidOptional;
use crate::subtransaction::{Failure, Left, attempt, give_up, try_out};
use crate::text::Text;
use crate::vault::{Masked, Raw, Vault};
use crate::{memory, plan, settings, text};
use pg_mask_core::canonical;
use pg_mask_core::login::{self, Field, Refusal, app_version};
use pg_mask_core::mask::{DEFAULT_DOMAIN, Masker, NETWORK_DOMAIN};
use pg_mask_core::network::{DEFAULT_V4_BITS, DEFAULT_V6_BITS, Network};
use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;

/// A row as it is stored: nothing in it is raw that has to be masked.
pub(super) struct Row<'a> {
    user_id: Cow<'a, [u8]>,
    device_type: Option<Cow<'a, [u8]>>,
    masked_ip: Option<Vec<u8>>,
    masked_device_id: Option<Vec<u8>>,
    locale: Option<Cow<'a, [u8]>>,
    app_version: Option<Version<'a>>,
    create_date: Day,
    /// The token of the address's network, for a table that has a column for it.
    masked_ip_network: Option<Vec<u8>>,
    /// What was masked, if the vault is to have it.
    unmasked: Option<Unmasked<'a>>,
}

/// The values that a row has tokens of.
struct Unmasked<'a> {
    ip: Option<Cow<'a, str>>,
    device_id: Option<Cow<'a, str>>,
    network: Option<Network>,
}

/// A version as the table's column has it.
enum Version<'a> {
    Integer(i32),
    Text(Cow<'a, [u8]>),
}

/// What masks the values of a batch.
pub(super) struct Maskers {
    pii: Rc<Masker>,
    /// If the table has a column for tokens of networks.
    network: Option<Rc<Masker>>,
    invalid_optional: InvalidOptional,
    /// Whether rows keep what was masked, for the vault.
    keeps_values: bool,
}

impl Maskers {
    pub(super) fn new(keys: &Keys, target: &Target, vault: Option<&Vault>) -> Result<Self, Error> {
        let network = || keys.masker(Text::from_ascii(NETWORK_DOMAIN));
        Ok(Self {
            pii: keys.pii.clone(),
            network: target.columns.has_network.then(network).transpose()?,
            invalid_optional: settings::invalid_optional(),
            keeps_values: vault.is_some(),
        })
    }

    /// An optional field, or what becomes of the message where it is invalid.
    fn optional<T>(&self, field: Result<Option<T>, Refusal>) -> Result<Option<T>, Refusal> {
        match (field, self.invalid_optional) {
            (Err(_), InvalidOptional::Null) => Ok(None),
            (field, _) => field,
        }
    }
}

impl<'a> Row<'a> {
    /// Reads a body, UTF-8 JSON text.
    pub(super) fn parse(
        body: &'a [u8],
        create_date: Day,
        target: &Target,
        maskers: &Maskers,
    ) -> Result<Self, Refusal> {
        let login = login::parse(body)?;
        let stored = |field, value: Cow<'a, str>| {
            target.columns.check_length(field, &value)?;
            text::to_server(value).ok_or(Refusal::Invalid(field))
        };
        let version = |text: Cow<'a, str>| {
            if target.columns.version_is_text {
                return stored(Field::AppVersion, text).map(Version::Text);
            }
            app_version::to_integer(&text).map(Version::Integer).ok_or(Refusal::Invalid(Field::AppVersion))
        };
        let optional = |field, value: login::Optional<'a>| {
            maskers.optional(value.and_then(|value| value.map(|value| stored(field, value)).transpose()))
        };
        let token = |masker: &Masker, value: &Option<Cow<'_, str>>| masker.token(value.as_ref()?.as_bytes());
        let ip = maskers.optional(login.ip)?;
        let device_id = maskers.optional(login.device_id)?;
        let network = maskers.network.as_ref().and_then(|masker| {
            let network = canonical::network(ip.as_ref()?.as_bytes())?;
            Some((masker, network.enclosing(DEFAULT_V4_BITS, DEFAULT_V6_BITS)))
        });
        let app_version = login.app_version.and_then(|text| text.map(version).transpose());
        Ok(Self {
            user_id: stored(Field::UserId, login.user_id)?,
            device_type: optional(Field::DeviceType, login.device_type)?,
            masked_ip: token(&maskers.pii, &ip),
            masked_device_id: token(&maskers.pii, &device_id),
            locale: optional(Field::Locale, login.locale)?,
            app_version: maskers.optional(app_version)?,
            create_date,
            masked_ip_network: network.map(|(masker, network)| masker.network_token(network)),
            unmasked: maskers.keeps_values.then(|| Unmasked {
                network: network.map(|(_, network)| network),
                ip,
                device_id,
            }),
        })
    }

    /// The values that were masked, if the vault is to have them.
    pub(super) fn masked_values(&self) -> impl Iterator<Item = Masked<'_>> {
        let values = self.unmasked.as_ref().map(|unmasked| {
            [
                masked(DEFAULT_DOMAIN, &self.masked_ip, unmasked.ip.as_deref().map(text_of)),
                masked(DEFAULT_DOMAIN, &self.masked_device_id, unmasked.device_id.as_deref().map(text_of)),
                masked(
                    NETWORK_DOMAIN.as_bytes(),
                    &self.masked_ip_network,
                    unmasked.network.map(Raw::Network),
                ),
            ]
        });
        values.into_iter().flatten().flatten()
    }
}

fn text_of(text: &str) -> Raw<'_> {
    Raw::Text(text.as_bytes())
}

fn masked<'a>(
    domain: &'static [u8],
    token: &'a Option<Vec<u8>>,
    value: Option<Raw<'a>>,
) -> Option<Masked<'a>> {
    Some(Masked { domain, token: token.as_deref()?, value: value? })
}

/// What became of rows, each of which belongs to an `M`.
pub(super) struct Outcome<'r, 'a, M> {
    pub(super) inserted: i64,
    /// The rows that were inserted.
    pub(super) passed: Vec<&'r Row<'a>>,
    /// Those that the table itself refuses.
    pub(super) rejected: Vec<(M, Refusal)>,
}

/// What it means that no row passes and the error may be the server's or the set-up's as well.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NonePasses {
    /// The batch fails, and comes again.
    Fails,
    /// The rows stay where they are.
    Rejects,
}

/// Inserts rows with one statement. If that fails, the halves are tried alone, and so on: whatever the table
/// takes goes in.
///
/// Whether it is the row or the server that is to blame, the error does not always say: a trigger that looks
/// for a table named after a value fails as one does whose table was dropped. So it is decided by experiment.
/// Where other rows pass under the same conditions, those that fail twice are to blame.
pub(super) fn insert<'r, 'a, M: Copy>(
    target: &Target,
    rows: &'r [(Row<'a>, M)],
    none_passes: NonePasses,
) -> Result<Outcome<'r, 'a, M>, Error> {
    target.defer_nothing()?;
    let (mut inserted, mut failed) = (0, Vec::new());
    insert_some(target, rows, &mut inserted, &mut failed)?;

    let (of_the_row, doubtful): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|(_, failure)| is_of_the_row(failure));
    if inserted == 0 {
        if let (Some((_, failure)), NonePasses::Fails) = (doubtful.first(), none_passes) {
            return Err(target.explain(failure));
        }
        if of_the_row.iter().any(|(_, failure)| failure.is_of_a_policy()) {
            target.has_a_policy()?;
        }
    }
    let mut rejected = of_the_row;
    for (row, mut failure) in doubtful {
        if inserted > 0 {
            match attempt_all(target, std::iter::once(&row.0))? {
                Ok(()) => {
                    inserted += 1;
                    continue;
                }
                Err(again) => failure = again,
            }
        }
        rejected.push((row, failure));
    }
    target.check_parts()?;
    let refused: HashSet<*const (Row<'_>, M)> =
        rejected.iter().map(|(row, _)| std::ptr::from_ref(*row)).collect();
    let mut passed = memory::list(rows.len())?;
    passed.extend(rows.iter().filter(|row| !refused.contains(&std::ptr::from_ref(*row))).map(|(row, _)| row));
    let reason = |((_, belongs_to), failure): (&(Row<'_>, M), Failure)| {
        (*belongs_to, Refusal::Rejected(failure.sqlstate))
    };
    Ok(Outcome { inserted, passed, rejected: rejected.into_iter().map(reason).collect() })
}

/// Inserts what it can of `rows`, and gives those that fail.
fn insert_some<'r, 'a, M>(
    target: &Target,
    rows: &'r [(Row<'a>, M)],
    inserted: &mut i64,
    failed: &mut Vec<(&'r (Row<'a>, M), Failure)>,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let Err(failure) = attempt_all(target, rows.iter().map(|(row, _)| row))? else {
        *inserted += rows.len() as i64;
        return Ok(());
    };
    if let [row] = rows {
        failed.push((row, failure));
        return Ok(());
    }
    // An error that comes without any row, too, is not worth looking for the row.
    if *inserted == 0
        && failed.is_empty()
        && !is_of_the_row(&failure)
        && let Err(failure) = attempt_all(target, std::iter::empty())?
    {
        return Err(target.explain(&failure));
    }
    let (first, second) = rows.split_at(rows.len() / 2);
    insert_some(target, first, inserted, failed)?;
    insert_some(target, second, inserted, failed)
}

/// Inserts rows, all or none. An interrupt is nothing to experiment with: it ends the batch.
fn attempt_all<'r, 'a: 'r>(
    target: &Target,
    rows: impl Iterator<Item = &'r Row<'a>>,
) -> Result<Result<(), Failure>, Error> {
    match attempt(|| execute_clean(target, rows), |_| true) {
        Ok(done) => done.map(Ok),
        Err(failure) if failure.is_interrupt() => Err(target.explain(&failure)),
        Err(failure) => Ok(Err(failure)),
    }
}

/// Inserts rows. What code of the table leaves is undone, and may be one row's, too.
fn execute_clean<'r, 'a: 'r>(target: &Target, rows: impl Iterator<Item = &'r Row<'a>>) -> Result<(), Error> {
    match execute(target, rows) {
        Err(Error::LeftBehind(role)) => give_up(Left::Behind(role)),
        Err(Error::CursorLeft) => give_up(Left::Open),
        done => done,
    }
}

/// Whether the table takes a row, which is not left there; and what the server says if it does not.
pub(super) fn try_one(target: &Target, row: &Row<'_>) -> Result<Result<(), Failure>, Error> {
    target.defer_nothing()?;
    match try_out(|| execute_clean(target, std::iter::once(row))) {
        Ok(done) => done.map(Ok),
        Err(failure) => Ok(Err(failure)),
    }
}

/// Inserts one row; whatever the table says against it is an error.
pub(super) fn insert_one(target: &Target, row: &Row<'_>) -> Result<(), Error> {
    target.defer_nothing()?;
    attempt_all(target, std::iter::once(row))?.map_err(|failure| target.explain(&failure))?;
    target.check_parts()
}

/// Every class of SQLSTATE that PostgreSQL itself uses for what is not the row's fault, or may not be
/// (PostgreSQL manual, appendix A).
const NOT_OF_THE_ROW: &str =
    "00 01 02 03 08 0A 0B 0F 0L 0P 0Z 10 24 25 26 28 2B 2D 34 3B 3D 3F 40 42 53 54 55 57 58 72 F0 HV XX";

/// Whether the error alone says that the table refuses a row, and that it is not the server's or the set-up's.
///
/// Of the row's own are data exceptions (22), integrity constraint violations (23), check options (44),
/// what a trigger raises (P0, 09, 38 or an SQLSTATE of its own) or trips over (20, 21, 2F), a value too
/// long for an index (54000), and policies.
fn is_of_the_row(failure: &Failure) -> bool {
    let class = &failure.sqlstate[..2];
    match &failure.sqlstate {
        b"54000" => true,
        // A policy that says no; a right that is missing is the set-up's.
        b"42501" => failure.is_of_a_policy(),
        _ => !NOT_OF_THE_ROW.split(' ').any(|known| known.as_bytes() == class),
    }
}

fn execute<'r, 'a: 'r>(target: &Target, rows: impl Iterator<Item = &'r Row<'a>>) -> Result<(), Error> {
    let mut user_id = ArrayBuilder::text();
    let mut device_type = ArrayBuilder::text();
    let mut masked_ip = ArrayBuilder::text();
    let mut masked_device_id = ArrayBuilder::text();
    let mut locale = ArrayBuilder::text();
    let version_is_text = target.columns.version_is_text;
    let mut app_version = if version_is_text { ArrayBuilder::text() } else { ArrayBuilder::integer() };
    let mut create_date = ArrayBuilder::date();
    let mut masked_ip_network = ArrayBuilder::text();
    for row in rows {
        user_id.push_bytes(Some(&row.user_id));
        device_type.push_bytes(row.device_type.as_deref());
        masked_ip.push_bytes(row.masked_ip.as_deref());
        masked_device_id.push_bytes(row.masked_device_id.as_deref());
        locale.push_bytes(row.locale.as_deref());
        match &row.app_version {
            Some(Version::Integer(version)) => app_version.push_fixed(Some(version.to_ne_bytes())),
            Some(Version::Text(version)) => app_version.push_bytes(Some(version)),
            None => app_version.push_bytes(None),
        }
        create_date.push_fixed(Some(row.create_date.to_ne_bytes()));
        masked_ip_network.push_bytes(row.masked_ip_network.as_deref());
    }
    let columns = [user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date];
    let columns = columns.into_iter().chain(target.columns.has_network.then_some(masked_ip_network));
    let arguments = || columns.map(ArrayBuilder::finish).collect();
    let insert = || plan::insert_into(target.oid, &target.insert, arguments);
    target.writer.run(|| writes::own(insert))
}
