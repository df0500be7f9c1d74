//! Which trace a message belongs to, as the one who sent it says in `AWSTraceHeader`.

/// A trace header of AWS X-Ray as it is; `None` for what is none, which a sender may have put there.
///
/// It is pairs such as `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`, in letters, digits
/// and a few signs, the first of them the id of the trace: see "Tracing header" in the X-Ray developer guide.
pub fn trace_header(text: &str) -> Option<&str> {
    const LONGEST: usize = 256;
    let is_value = |byte: u8| byte.is_ascii_alphanumeric() || b"-:|.".contains(&byte);
    let is_pair = |pair: &str| {
        let pair = pair.trim_matches(' ').split_once('=');
        pair.is_some_and(|(name, value)| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphabetic())
                && value.bytes().all(is_value)
        })
    };
    let is_root = |id: &str| {
        let parts: Vec<&str> = id.split('-').collect();
        let is_hex = |part: &str, len| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        matches!(parts[..], ["1", time, unique] if is_hex(time, 8) && is_hex(unique, 24))
    };
    let pairs = || text.split(';').filter(|pair| !pair.is_empty());
    let has_root = pairs().any(|pair| pair.trim_matches(' ').strip_prefix("Root=").is_some_and(is_root));
    (text.len() <= LONGEST && has_root && pairs().all(is_pair)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sender_puts_there_instead_is_not_taken() {
        let whole = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        for header in [
            whole,
            "Root=1-5759e988-bd862e3fe1be46a994272793",
            "Self=1-5759e988-bd862e3fe1be46a994272793;Root=1-5759E988-bd862e3fe1be46a994272793;Lineage=a87bd80c:1|68fd508a:5",
        ] {
            assert_eq!(trace_header(header), Some(header));
        }
        let long = format!("{whole};{}", "a=b;".repeat(60));
        for text in [
            "",
            "Root=",
            "Root=203.0.113.7",
            "203.0.113.7",
            "Root=1-5759e988-bd862e3fe1be46a99427279",
            &format!("{whole}\n"),
            &format!("{whole};user=a@b"),
            &long,
        ] {
            assert_eq!(trace_header(text), None, "{text:?}");
        }
    }
}
