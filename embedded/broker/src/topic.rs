//! Matching of topic keys: words between dots, `*` for one word, `#` for any number of words.

/// Whether `key` matches `pattern`; the work is bounded by the product of their words.
pub(crate) fn matches(pattern: &str, key: &str) -> bool {
    let words: Vec<&str> = key.split('.').collect();
    // reached[i]: the pattern so far can match the first i words.
    let mut reached = vec![false; words.len() + 1];
    reached[0] = true;
    for part in pattern.split('.') {
        if part == "#" {
            let first = reached.iter().position(|yes| *yes).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            for index in (0..words.len()).rev() {
                reached[index + 1] = reached[index] && (part == "*" || part == words[index]);
            }
            reached[0] = false;
        }
    }
    reached[words.len()]
}

/// True when a pattern can match more than the key it spells.
pub(crate) fn is_pattern(pattern: &str) -> bool {
    pattern.split('.').any(|part| part == "#" || part == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stars_and_hashes() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#", "", true),
            ("#", "x.y", true),
            ("#.b", "b", true),
            ("#.b", "a.a.b", true),
            ("#.b", "a.b.c", false),
            ("*.#.c", "a.c", true),
            ("*.#.c", "c", false),
            ("#.#.#.a", "a", true),
            ("", "", true),
            ("*", "", true),
            ("a.#.b.#.c", "a.x.b.y.z.c", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} on {key}");
        }
    }

    #[test]
    fn many_hashes_stay_cheap() {
        let pattern = vec!["#"; 120].join(".") + ".x";
        let key = vec!["a"; 120].join(".");
        assert!(!matches(&pattern, &key));
    }
}
