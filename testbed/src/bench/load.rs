//! Messages to measure with: made up, like real logins in size, and the same each time.

use std::time::{Duration, SystemTime};

/// A message as a receiver would have it.
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: String,
}

/// Number `n` of a run; ids are random ones as SQS makes them, of `run` and `n`.
pub(super) fn message(run: u64, n: u64) -> Message {
    let (high, low) = (mix(run << 32 | n), mix(!(run << 32 | n)));
    let id = format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        0x8000 | low >> 48 & 0x3fff,
        low & 0xffff_ffff_ffff
    );
    Message { id, body: body(n) }
}

/// A login of about 230 bytes, as the original data has them.
pub(super) fn body(n: u64) -> String {
    let x = mix(n);
    format!(
        r#"{{"user_id": "{:08x}-ebb2-4b52-8e5b-{:012x}", "app_version": "{}.{}.{}", "device_type": "{}", "ip": "{}.{}.{}.{}", "locale": "{}", "device_id": "{:03}-{:02}-{:04}"}}"#,
        x >> 32,
        x & 0xffff_ffff_ffff,
        x % 5,
        x % 12,
        x % 30,
        ["android", "ios"][n as usize % 2],
        x & 0xff,
        x >> 8 & 0xff,
        x >> 16 & 0xff,
        x >> 24 & 0xff,
        ["RU", "PH", "DE", "FR", "JP"][n as usize % 5],
        x % 1000,
        x >> 10 & 63,
        x >> 20 & 8191,
    )
}

/// All of one time.
pub(super) fn sent_at() -> SystemTime {
    SystemTime::now() - Duration::from_secs(1)
}

/// SplitMix64's finaliser.
fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
