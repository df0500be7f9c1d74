//! Whatever comes as a body is a row or in the quarantine, alone in its fate. The categories are those of
//! the public JSON test suite ("Parsing JSON is a Minefield"); the cases are our own.

use crate::common::{cluster, count, ingest, texts};
use std::collections::BTreeSet;
use std::fmt::Write;

/// JSON values, all of them: a login may carry them in a field that nobody reads.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1E1",
    "1e+2",
    "1e-2",
    "0e1",
    "1.5e400",
    "-1e-400",
    "123456789012345678901234567890",
    "0.123456789012345678901234567890",
    "[]",
    "[[]]",
    "[ ]",
    "[null , 1]",
    "{}",
    r#"{"":0}"#,
    r#"{"a":{"b":[{"c":[]}]}}"#,
    r#"{"a":1,"a":2}"#,
    r#"{"a":1,"a":1}"#,
    r#""""#,
    r#"" ""#,
    r#""\"\\\/\b\f\n\r\t""#,
    r#""\u0000""#,
    r#""\u001F\uFFFF\uffff""#,
    r#""\uD834\uDD1E""#,
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    r#""\ud800\ud800""#,
    r#""\uD800a""#,
    "\"\u{7f}\u{80}\u{2028}\u{2029}\u{feff}\"",
    "\"😀\"",
    "\"\u{10ffff}\u{fdd0}\u{fffe}\"",
    r#""</script>--'; DROP TABLE user_logins; $1 %s {0}""#,
    "\t\n\r 1 \r\n\t",
];

/// What is no JSON value.
const NO_VALUES: &[&str] = &[
    "",
    "nul",
    "nulll",
    "TRUE",
    "True",
    "undefined",
    "NaN",
    "Infinity",
    "-Infinity",
    "-",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "-.5",
    "1e",
    "1e+",
    "1.e1",
    "0x10",
    "1_000",
    "1 2",
    "١",
    "[",
    "]",
    "[1",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[,]",
    "[1,,2]",
    "[1}",
    "{",
    "}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a" 1}"#,
    r#"{"a":1,}"#,
    r#"{,"a":1}"#,
    r#"{"a":1 "b":2}"#,
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "{null:1}",
    r#"{"a":1]"#,
    "'a'",
    "\"",
    "\"a",
    r#""\""#,
    r#""\x41""#,
    r#""\a""#,
    r#""\u""#,
    r#""\u12""#,
    r#""\u12g4""#,
    r#""\U0041""#,
    "\"\n\"",
    "\"\t\"",
    "\"\u{1}\"",
    "\"\u{1f}\"",
    "/**/1",
    "1//",
    "1/**/",
    "#1",
    "<a>",
    "\u{b}1",
    "\u{c}1",
    "\u{a0}1",
    "\u{2060}1",
    "\u{200b}1",
    "\u{feff}1",
];

/// Whole bodies and the reason why they are refused, if they are.
const BODIES: &[(&str, Option<&str>)] = &[
    (" \t\r\n{\"user_id\":\"u\"} \t\r\n", None),
    ("\u{feff}{\"user_id\":\"u\"}", None),
    ("\u{feff}\u{feff}{\"user_id\":\"u\"}", Some("invalid_json")),
    ("{\"user_id\":\"u\"}\u{feff}", Some("invalid_json")),
    ("{\"user_id\":\"u\"}{\"user_id\":\"v\"}", Some("invalid_json")),
    ("{\"user_id\":\"u\"}\n{\"user_id\":\"v\"}", Some("invalid_json")),
    ("{\"user_id\":\"u\"},", Some("invalid_json")),
    ("{\"user_id\":\"u\"} x", Some("invalid_json")),
    ("({\"user_id\":\"u\"})", Some("invalid_json")),
    ("callback({\"user_id\":\"u\"})", Some("invalid_json")),
    ("\u{c}{\"user_id\":\"u\"}", Some("invalid_json")),
    ("\\", Some("invalid_json")),
    ("\\000", Some("invalid_json")),
    ("{}", Some("missing:user_id")),
    ("[]", Some("not_an_object")),
    ("1", Some("not_an_object")),
    ("\"{\\\"user_id\\\":\\\"u\\\"}\"", None),
    ("\"u\"", Some("not_an_object")),
    ("[{\"user_id\":\"u\"}]", Some("not_an_object")),
    (r#"{"user_id":"\ud800"}"#, Some("invalid:user_id")),
    (r#"{"user_id":"\udc00\ud800"}"#, Some("invalid:user_id")),
    (r#"{"user_id":"u","ip":"\ud800"}"#, Some("invalid:ip")),
    (r#"{"user_id":"\u0000"}"#, Some("invalid:user_id")),
    (r#"{"user_id":"u","user_id":{}}"#, Some("missing:user_id")),
    (r#"{"user_id":"u","\ud800":1}"#, Some("invalid_json")),
    (r#"{"user_id":"u","":1," ":2,"\u0000":3}"#, None),
    (r#"{"user_id":"u","__proto__":{"user_id":"v"},"constructor":1}"#, None),
    (r#"{"user_id":"'); DROP TABLE user_logins; --"}"#, None),
    (r#"{"user_id":1e999999999}"#, None),
    (r#"{"user_id":-0}"#, None),
];

#[tokio::test]
async fn each_case_is_alone_in_its_fate() {
    let client = cluster().await.database("hostile_json").await.unwrap();
    let mut cases: Vec<(String, Option<&str>)> = Vec::new();
    for value in VALUES {
        cases.push((format!(r#"{{"x":{value},"user_id":"u"}}"#), None));
        cases.push((format!(r#"{{"user_id":"u","device":{{"x":[{value}]}},"y":{value}}}"#), None));
    }
    for value in NO_VALUES {
        cases.push((format!(r#"{{"x":{value},"user_id":"u"}}"#), Some("invalid_json")));
        cases.push((format!(r#"{{"user_id":"u","device":{{"x":[0,{value}]}}}}"#), Some("invalid_json")));
    }
    cases.extend(BODIES.iter().map(|(body, reason)| ((*body).to_owned(), *reason)));
    // Cut off anywhere, and one character too many anywhere.
    let whole = r#"{"user_id":"u","device":{"id":"\u00e4","type":null},"ip":-1.5e+3,"x":[true,{}]}"#;
    for at in 0..whole.len() {
        cases.push((whole[..at].to_owned(), Some("invalid_json")));
        cases.push((format!("{}}}{}", &whole[..at], &whole[at..]), None)); // judged below
    }
    let judged = cases.len() - 2 * whole.len();

    let messages: Vec<(String, &str)> =
        cases.iter().enumerate().map(|(at, (body, _))| (format!("case {at}"), body.as_str())).collect();
    let [inserted, duplicate, quarantined] = ingest(&client, &messages).await;
    assert_eq!((inserted + quarantined, duplicate), (cases.len() as i64, 0));
    assert_eq!(count(&client, "SELECT count(*) FROM user_logins").await, inserted);
    let kept = texts(&client, "SELECT message_id || ' ' || reason FROM pgmask.quarantine").await;
    assert_eq!(kept.len() as i64, quarantined);
    let kept: BTreeSet<String> = kept.into_iter().collect();
    for (at, (body, reason)) in cases.iter().enumerate() {
        let cut_off = at < judged || (at - judged).is_multiple_of(2);
        match reason {
            Some(reason) => {
                assert!(kept.contains(&format!("case {at} {reason}")), "{body:?} is not {reason}");
            }
            None if cut_off => {
                assert!(
                    !kept.iter().any(|kept| kept.starts_with(&format!("case {at} "))),
                    "{body:?} is refused"
                );
            }
            None => {}
        }
    }
    // Alone, each has the same fate as among others.
    client.batch_execute("TRUNCATE pgmask.ledger, pgmask.quarantine, user_logins").await.unwrap();
    for (id, body) in &messages {
        let refused = kept.iter().any(|kept| kept.starts_with(&format!("{id} ")));
        assert_eq!(
            ingest(&client, &[(id, body)]).await,
            [i64::from(!refused), 0, i64::from(refused)],
            "{body:?}"
        );
    }
}

/// SQS takes bodies of up to 1 MiB. A hundred of the worst take no longer than a hundred of the best.
#[tokio::test]
async fn the_largest_bodies_are_read_in_linear_time() {
    const MIB: usize = 1 << 20;
    let client = cluster().await.database("linear_time").await.unwrap();
    let fill = |start: &str, unit: &str, end: &str| {
        let room = (MIB - start.len() - end.len()) / unit.len();
        format!("{start}{}{end}", unit.repeat(room))
    };
    let mut keys = r#"{"user_id":"u""#.to_owned();
    for n in 0..40_000 {
        let _ = write!(keys, r#","key number {n:06}":{n}"#);
    }
    keys.push('}');
    let nested = (MIB - 40) / 7;
    let bodies = [
        (fill(r#"{"user_id":"u","x":""#, "x", r#""}"#), "row"),
        (fill(r#"{"user_id":"u","x":""#, "\\u0061", r#""}"#), "row"),
        (fill(r#"{"user_id":"u","device_id":""#, "\\n", r#""}"#), "row"),
        (fill(r#"{"user_id":"u","x":"#, "9", "}"), "row"),
        (fill(r#"{"user_id":"u","x":["#, "0,", "0]}"), "row"),
        (keys, "row"),
        (format!(r#"{{"user_id":"u","x":{}0{}}}"#, r#"{"a":"#.repeat(nested), "}".repeat(nested)), "row"),
        (format!(r#"{{"user_id":"u","x":{}{}}}"#, "[".repeat(MIB / 2 - 20), "]".repeat(MIB / 2 - 20)), "row"),
        (fill(r#"{"user_id":"u""#, r#","user_id":"u""#, "}"), "row"),
        (fill(r#"{"user_id":"u""#, r#","device":{"id":1}"#, "}"), "row"),
        (fill(r#"{"user_id":""#, "ü", r#""}"#), "too_long:user_id"),
        (fill(r#"{"user_id":"#, "1", "}"), "too_long:user_id"),
        (fill(r#"{"user_id":"u","app_version":"1."#, "0", r#""}"#), "row"),
        (fill(r#"{"user_id":"u","app_version":"#, "9", "}"), "invalid:app_version"),
        (fill("", "[", ""), "invalid_json"),
        (fill("", r#"{"a":"#, ""), "invalid_json"),
        (fill("", r#"{"Type":"Notification","Message":"#, ""), "invalid_json"),
        (fill("", " ", ""), "invalid_json"),
        (fill(r#"{"user_id":"u","device_id":1"#, "0", "e-9}"), "row"),
        (fill(r#"{"detail-type":"x","detail":"#, r#"{"detail-type":"x","detail":"#, ""), "invalid_json"),
        (fill("\"", "\\\"", "\""), "not_an_object"),
        (fill("", "\"", ""), "invalid_json"),
        (fill("\"", "\\", ""), "invalid_json"),
    ];
    // Memory is bounded, too: a body may be read, not copied about.
    client.batch_execute("SET statement_timeout = '60s'").await.unwrap();
    for (at, (body, fate)) in bodies.iter().enumerate() {
        let messages: Vec<(String, &str)> = (0..5).map(|n| (format!("{at}.{n}"), body.as_str())).collect();
        let expected = if *fate == "row" { [5, 0, 0] } else { [0, 0, 5] };
        assert_eq!(ingest(&client, &messages).await, expected, "{} … is no {fate}", &body[..30]);
        let reasons = texts(&client, "DELETE FROM pgmask.quarantine RETURNING reason").await;
        assert!(reasons.iter().all(|reason| reason == fate), "{} … is {reasons:?}", &body[..30]);
    }
}
