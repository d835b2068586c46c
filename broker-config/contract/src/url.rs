//! The part of a URL that must not be shown or put into a queue: the user and password before its host.

use std::ops::Range;

/// Where the user and password are, with the `@` behind them; nothing when there are none, or the text is no URL.
pub fn user_of(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + "://".len();
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |end| start + end);
    let at = url[start..end].rfind('@')?;
    Some(start..start + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_before_the_host_and_nowhere_else() {
        let user = |url: &'static str| user_of(url).map(|range| &url[range]);
        assert_eq!(user("http://me:hush@h/c"), Some("me:hush@"));
        assert_eq!(user("https://me:a@hush@h?x@y"), Some("me:a@hush@"));
        assert_eq!(user("s3+http://k@h"), Some("k@"));
        assert_eq!([user("http://h/x@y"), user("http://h?a=b@c"), user("me@h"), user("http://h")], [None; 4]);
    }
}
