//! The rules for bucket names. `s3s` applies the same rules, but does not report which one was broken.

use std::net::IpAddr;

/// The first rule that a bucket's name breaks; nothing for a valid name.
pub(crate) fn fault(name: &str) -> Option<&'static str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let rules = [
        (!(3..=63).contains(&bytes.len()), "it must be 3 to 63 characters long"),
        (bytes.iter().any(u8::is_ascii_uppercase), "it must not hold upper-case letters"),
        (bytes.contains(&b'_'), "it must not hold underscores"),
        (
            bytes.iter().any(|byte| !is_plain(*byte) && !matches!(byte, b'.' | b'-')),
            "it may hold lower-case letters, digits, dots and hyphens only",
        ),
        (
            !bytes.first().is_some_and(|byte| is_plain(*byte)) || !bytes.last().is_some_and(|byte| is_plain(*byte)),
            "it must begin and end with a lower-case letter or a digit",
        ),
        (name.contains(".."), "it must not hold two dots in a row"),
        (name.parse::<IpAddr>().is_ok(), "it must not look like an IP address"),
        (name.starts_with("xn--"), "it must not begin with xn--"),
    ];
    rules.into_iter().find(|(is_broken, _)| *is_broken).map(|(_, rule)| rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_s3s_and_each_has_its_sentence() {
        let mut sentences = std::collections::BTreeSet::new();
        for bad in
            ["ab", "Bucket", "a_bucket", "a bucket", "-bucket", "bucket-", ".bucket", "a..b", "10.0.0.1", "xn--bucket", "b\u{fc}cket"]
        {
            assert!(!s3s::path::check_bucket_name(bad), "{bad}");
            sentences.insert(fault(bad).unwrap_or_else(|| panic!("{bad} is refused without a reason")));
        }
        assert_eq!(sentences.len(), 8);
        let longest = "a".repeat(63);
        for good in ["abc", "my-bucket.2", "0-0", longest.as_str()] {
            assert!(s3s::path::check_bucket_name(good), "{good}");
            assert_eq!(fault(good), None, "{good}");
        }
    }
}
