//! From a body to a row of the target, and rows into the target.

use super::target::Target;
use crate::arrays::ArrayBuilder;
use crate::clock::Day;
use crate::subtransaction::{Failure, attempt};
use crate::{plan, run_as, text};
use pg_mask_core::login::{self, Field, Refusal, app_version};
use pg_mask_core::mask::Masker;
use std::borrow::Cow;

/// A row as it is stored: nothing in it is raw that has to be masked.
pub(super) struct Row<'a> {
    user_id: Cow<'a, [u8]>,
    device_type: Option<Cow<'a, [u8]>>,
    masked_ip: Option<Vec<u8>>,
    masked_device_id: Option<Vec<u8>>,
    locale: Option<Cow<'a, [u8]>>,
    app_version: Option<i32>,
    create_date: Day,
}

impl<'a> Row<'a> {
    /// Reads a body, UTF-8 JSON text.
    pub(super) fn parse(
        body: &'a [u8],
        create_date: Day,
        target: &Target,
        masker: &Masker,
    ) -> Result<Self, Refusal> {
        let login = login::parse(body)?;
        let stored = |field, value: Cow<'a, str>| {
            target.check_length(field, &value)?;
            text::to_server(value).ok_or(Refusal::Invalid(field))
        };
        let token = |value: Option<Cow<'_, str>>| masker.token(value?.as_bytes());
        let version =
            |text: Cow<'_, str>| app_version::to_integer(&text).ok_or(Refusal::Invalid(Field::AppVersion));
        Ok(Self {
            user_id: stored(Field::UserId, login.user_id)?,
            device_type: login.device_type?.map(|value| stored(Field::DeviceType, value)).transpose()?,
            masked_ip: token(login.ip?),
            masked_device_id: token(login.device_id?),
            locale: login.locale?.map(|value| stored(Field::Locale, value)).transpose()?,
            app_version: login.app_version?.map(version).transpose()?,
            create_date,
        })
    }
}

/// What became of rows, each of which belongs to an `M`.
pub(super) struct Outcome<M> {
    pub(super) inserted: i64,
    /// Those that the table itself refuses.
    pub(super) rejected: Vec<(M, Refusal)>,
}

/// Inserts rows with one statement. If the table refuses one, the halves are tried alone, and so
/// on: whatever the table takes goes in.
pub(super) fn insert<M: Copy>(target: &Target, rows: &[(Row<'_>, M)]) -> Outcome<M> {
    let mut outcome = Outcome { inserted: 0, rejected: Vec::new() };
    insert_some(target, rows, &mut outcome);
    outcome
}

fn insert_some<M: Copy>(target: &Target, rows: &[(Row<'_>, M)], outcome: &mut Outcome<M>) {
    if rows.is_empty() {
        return;
    }
    let all = || execute(target, rows.iter().map(|(row, _)| row));
    match attempt(all, is_of_the_row) {
        Ok(()) => outcome.inserted += rows.len() as i64,
        Err(sqlstate) => match rows {
            [(_, belongs_to)] => outcome.rejected.push((*belongs_to, Refusal::Rejected(sqlstate))),
            _ => {
                let (first, second) = rows.split_at(rows.len() / 2);
                insert_some(target, first, outcome);
                insert_some(target, second, outcome);
            }
        },
    }
}

/// Inserts one row; whatever the table says against it is an error.
pub(super) fn insert_one(target: &Target, row: &Row<'_>) {
    execute(target, std::iter::once(row));
}

/// Every class of SQLSTATE that PostgreSQL itself uses for what is not the row's fault, or may not be
/// (PostgreSQL manual, appendix A).
const NOT_OF_THE_ROW: &str =
    "00 01 02 03 08 0A 0B 0F 0L 0P 0Z 10 24 25 26 28 2B 2D 34 3B 3D 3F 40 42 53 54 55 57 58 72 F0 HV XX";

/// Whether the table refuses a row, or something else is wrong: the server or the set-up.
///
/// Of the row's own are data exceptions (22), integrity constraint violations (23), check options (44),
/// what a trigger raises (P0, 09, 38 or an SQLSTATE of its own) or trips over (20, 21, 2F), a value too
/// long for an index (54000), and policies.
fn is_of_the_row(failure: &Failure) -> bool {
    let class = &failure.sqlstate[..2];
    match &failure.sqlstate {
        b"54000" => true,
        // A policy that says no; a right that is missing is the set-up's.
        b"42501" => failure.raised_in.as_deref() == Some("ExecWithCheckOptions"),
        _ => !NOT_OF_THE_ROW.split(' ').any(|known| known.as_bytes() == class),
    }
}

fn execute<'r, 'a: 'r>(target: &Target, rows: impl Iterator<Item = &'r Row<'a>>) {
    let mut user_id = ArrayBuilder::text();
    let mut device_type = ArrayBuilder::text();
    let mut masked_ip = ArrayBuilder::text();
    let mut masked_device_id = ArrayBuilder::text();
    let mut locale = ArrayBuilder::text();
    let mut app_version = ArrayBuilder::integer();
    let mut create_date = ArrayBuilder::date();
    for row in rows {
        user_id.push_bytes(Some(&row.user_id));
        device_type.push_bytes(row.device_type.as_deref());
        masked_ip.push_bytes(row.masked_ip.as_deref());
        masked_device_id.push_bytes(row.masked_device_id.as_deref());
        locale.push_bytes(row.locale.as_deref());
        app_version.push_fixed(row.app_version.map(i32::to_ne_bytes));
        create_date.push_fixed(Some(row.create_date.to_ne_bytes()));
    }
    let columns = [user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date];
    if let Some(check_now) = &target.check_now {
        // Whatever of these waits already would run as that user at the commit.
        run_as::outer_user(|| plan::run(check_now, Vec::new, |_| ()));
    }
    run_as::owner(target.owner, || {
        plan::run(&target.insert, || columns.into_iter().map(ArrayBuilder::finish).collect(), |_| ());
    });
}
