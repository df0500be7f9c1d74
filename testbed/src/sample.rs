//! Logins to show what the system does: shared addresses and devices, one address in many spellings, nulls, nested
//! events, an envelope, and three messages that are no logins. All addresses are of the documentation ranges
//! (RFC 5737, RFC 3849). `docker compose up` sends the same three hundred messages.

use crate::Result;
use serde_json::json;
use time::{Date, Duration, Weekday};
use tokio_postgres::Client;

/// How many messages there are.
pub const MESSAGES: usize = 300;
/// How many of them are no logins.
pub const BAD: usize = 3;

/// The message bodies.
pub fn bodies() -> Vec<String> {
    include_str!("../data/sample-logins.jsonl").lines().map(str::to_owned).collect()
}

/// A login of a day.
#[derive(Debug, Clone)]
pub struct Login {
    /// When it was sent.
    pub day: Date,
    /// The message's body.
    pub body: String,
}

/// Two weeks of logins that end on a day: the same each time, but for the days.
///
/// Three hundred users come on some days, fewer at weekends. Some share an office's address, a family's, or a tablet;
/// a device is sold; twenty-five accounts are made from one network in a day; a user is in two countries at once; a
/// version of the app sends its logins three times.
pub fn fortnight(last: Date) -> Vec<Login> {
    let mut logins = Vec::new();
    for ago in (0..14_u16).rev() {
        let day = last - Duration::days(ago.into());
        let is_weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        for user in 0..300_u16 {
            let roll = roll(u64::from(ago) * 1000 + u64::from(user));
            let comes = if is_weekend { 30 } else { 55 } + u64::from(13 - ago);
            if roll % 100 < comes && !(user % 25 == 24 && ago < 7) {
                let ways = if ago == 6 && user % 10 == 3 { 3 } else { 1 };
                let body = regular(user, ago, is_weekend, roll >> 32);
                logins.extend(std::iter::repeat_n(Login { day, body }, ways));
            }
        }
        logins.extend(remarkable(ago).into_iter().map(|body| Login { day, body }));
    }
    logins
}

/// A number that looks like any other, the same for each seed on every machine: one step of SplitMix64.
fn roll(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A login of a user on an ordinary day.
fn regular(user: u16, ago: u16, is_weekend: bool, roll: u64) -> String {
    let at_the_office = user.is_multiple_of(5) && !is_weekend;
    let ip = match user {
        ..100 if at_the_office => {
            ["203.0.113.7", "::ffff:203.0.113.7", "203.0.113.7:443"][usize::from(user / 5 % 3)].to_owned()
        }
        ..100 => format!("198.51.100.{user}"),
        100..200 => format!("198.51.100.{}", 100 + (user - 100) / 3),
        _ => format!("2001:db8:{user:x}::{:x}", ago / 3 + 1),
    };
    let device = match user {
        100..106 if roll.is_multiple_of(3) => format!("tablet-{}", (user - 100) / 3),
        // Sold: the one has a new device from then on.
        160 if ago < 9 => "device-0160-new".to_owned(),
        260 if ago < 8 => "device-0160".to_owned(),
        _ if user % 12 == 7 && ago <= user % 13 => format!("device-{user:04}-new"),
        _ => format!("device-{user:04}"),
    };
    // Users change to a new version as they come across it.
    let version = match (13 - ago, user) {
        (day @ 9.., _) if user % 14 + 9 <= day && kind(user) == "ios" => "3.0.0",
        (day, _) if user % 14 <= day => "2.10.1",
        _ => "2.3",
    };
    let locale = ["DE", "FR", "BR", "JP", "US"].get(usize::from(user % 6));
    login(&format!("user-{user:04}"), kind(user), &ip, &device, locale.copied(), version)
}

fn kind(user: u16) -> &'static str {
    if user.is_multiple_of(3) { "ios" } else { "android" }
}

/// What is remarkable on a day.
fn remarkable(ago: u16) -> Vec<String> {
    match ago {
        // Accounts from one network, on three devices.
        4 => (0..25_u16)
            .map(|n| {
                let (user, ip) = (format!("new-{n:02}"), format!("192.0.2.{}", 10 + n));
                login(&user, "android", &ip, &format!("emulator-{}", n % 3), Some("US"), "2.10.1")
            })
            .collect(),
        // One address tries many accounts.
        3 => (0..30_u16)
            .map(|n| {
                login(&format!("user-{:04}", n * 7), kind(n * 7), "192.0.2.99", "emulator-0", None, "2.3")
            })
            .collect(),
        2 => [("DE", "198.51.100.18"), ("BR", "192.0.2.200")]
            .map(|(locale, ip)| login("user-0018", "ios", ip, "device-0018", Some(locale), "2.10.1"))
            .into(),
        _ => Vec::new(),
    }
}

fn login(user: &str, kind: &str, ip: &str, device: &str, locale: Option<&str>, version: &str) -> String {
    json!({"user_id": user, "device_type": kind, "ip": ip, "device_id": device, "locale": locale, "app_version": version})
        .to_string()
}

/// Takes logins in as the forwarder does, each as a message of noon of its day.
pub async fn take_in(database: &Client, logins: &[Login]) -> Result<i64> {
    let bodies: Vec<&str> = logins.iter().map(|login| login.body.as_str()).collect();
    let days: Vec<String> = logins.iter().map(|login| login.day.to_string()).collect();
    let sql = "SELECT inserted FROM pgmask.ingest_login_batch(
        (SELECT array_agg(gen_random_uuid()::text) FROM unnest($1::text[])), $1,
        (SELECT array_agg((day || ' 12:00+00')::timestamptz ORDER BY n) FROM unnest($2::text[]) WITH ORDINALITY AS d(day, n)),
        (SELECT array_agg(1) FROM unnest($1::text[])))";
    Ok(database.query_one(sql, &[&bodies, &days]).await?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_as_many_as_they_say() {
        assert_eq!(bodies().len(), MESSAGES);
    }

    #[test]
    fn a_fortnight_has_fourteen_days_and_is_the_same_each_time() {
        let last = time::macros::date!(2026 - 11 - 20);
        let logins = fortnight(last);
        let mut days: Vec<Date> = logins.iter().map(|login| login.day).collect();
        days.dedup();
        assert_eq!(days.len(), 14);
        assert_eq!(days.last(), Some(&last));
        let again = fortnight(last + Duration::days(7));
        let bodies = |logins: &[Login]| logins.iter().map(|login| login.body.clone()).collect::<Vec<_>>();
        assert_eq!(bodies(&logins), bodies(&again));
    }
}
