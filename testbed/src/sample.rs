//! Three hundred messages to show what the system does: shared addresses and devices, one address in
//! many spellings, nulls, nested events, an envelope, and three that are no logins. The same each
//! time; all addresses are of the documentation ranges (RFC 5737, RFC 3849).

use serde_json::{Value, json};

/// Many people of one office, and whatever logs their address writes it differently.
const OFFICE: [&str; 4] = ["203.0.113.7", "::ffff:203.0.113.7", " 203.0.113.7", "::FFFF:CB00:7107"];
/// A family.
const HOME: [&str; 3] = ["2001:db8::1", "2001:DB8:0:0:0:0:0:1", "2001:0db8::0001"];
const LOCALES: [Option<&str>; 7] = [Some("DE"), Some("FR"), None, Some("BR"), Some("JP"), Some("US"), None];
const VERSIONS: [&str; 6] = ["2.3.0", "2.10.1", "0.96", "3.0.0-beta.2", "2.3", "11.0.4"];

/// How many messages there are.
pub const MESSAGES: usize = 300;
/// How many of them are no logins.
pub const BAD: usize = 3;

/// The message bodies.
pub fn bodies() -> Vec<String> {
    let mut bodies: Vec<String> = (0..MESSAGES - BAD - 1).map(|n| login(n).to_string()).collect();
    let envelope = json!({
        "Type": "Notification",
        "MessageId": "7b0d5dc2-8d0a-5e5c-9a6b-0d1f7a3c1e11",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:logins",
        "Message": login(MESSAGES).to_string(),
    });
    bodies.insert(150, envelope.to_string());
    bodies.insert(40, r#"{"foo": "oops_wrong_msg_type", "bar": "123"}"#.to_owned());
    bodies.insert(120, r#"{"user_id": "cut-sho"#.to_owned());
    bodies.insert(220, json!({"user_id": "user-0007", "app_version": "nightly"}).to_string());
    bodies
}

/// Login number `n`.
fn login(n: usize) -> Value {
    let person = n * 37 % 97;
    let user = format!("user-{person:04}");
    // Of 97 users most have a device of their own; a few devices go from one to the next.
    let (device_id, type_of) = match n % 23 {
        5 => (format!("shared-{}", n % 4), n % 4),
        _ => (format!("device-{person:04}"), person),
    };
    let device_type = if type_of.is_multiple_of(3) { "ios" } else { "android" };
    let ip = match n % 10 {
        0 | 1 => OFFICE[n / 10 % OFFICE.len()].to_owned(),
        2 if person < 30 => HOME[n / 10 % HOME.len()].to_owned(),
        _ => format!("198.51.100.{person}"),
    };
    let (locale, version) = (LOCALES[n % LOCALES.len()], VERSIONS[n % VERSIONS.len()]);
    if n % 11 == 3 {
        return json!({
            "user": {"id": user},
            "device": {"id": device_id, "type": device_type},
            "app": {"version": version, "channel": "store"},
            "ip": ip,
            "locale": locale,
        });
    }
    json!({
        "user_id": user, "app_version": version, "device_type": device_type,
        "ip": ip, "locale": locale, "device_id": device_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_as_many_as_they_say_and_the_same_each_time() {
        assert_eq!(bodies().len(), MESSAGES);
        assert_eq!(bodies(), bodies());
    }
}
