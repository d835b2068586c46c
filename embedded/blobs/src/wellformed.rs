//! XML 1.0 cannot contain every character that a key can. Answers are written so that every parser can read them; requests
//! are parsed as an XML parser would, where `s3s` accepts too little.

use std::borrow::Cow;

use bytes::Bytes;
use s3s::{S3Result, s3_error};

/// True when XML 1.0 cannot contain this text, not even by a reference.
pub(crate) fn is_beyond_xml(text: &str) -> bool {
    text.chars().any(is_beyond)
}

fn is_beyond(character: char) -> bool {
    matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Makes an answer readable for every parser: a carriage return becomes a reference, since parsers turn a bare one into a
/// line feed; a character that XML cannot contain becomes U+FFFD. Listings encode such names and contain none.
pub(crate) fn readable(answer: Bytes) -> Bytes {
    let Ok(text) = std::str::from_utf8(&answer) else { return answer };
    if !text.chars().any(|character| character == '\r' || is_beyond(character)) {
        return answer;
    }
    let mut written = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\r' => written.push_str("&#13;"),
            one if is_beyond(one) => written.push(char::REPLACEMENT_CHARACTER),
            one => written.push(one),
        }
    }
    written.into()
}

/// Replaces a request's character references and CDATA sections by plain text. Control characters are accepted, as
/// references too, because keys may contain them.
pub(crate) fn resolved(request: &[u8]) -> S3Result<Cow<'_, [u8]>> {
    let malformed = || s3_error!(MalformedXML, "The XML you provided was not well-formed.");
    let text = std::str::from_utf8(request).map_err(|_| malformed())?;
    const SECTION: &str = "<![CDATA[";
    if !text.contains("&#") && !text.contains(SECTION) {
        return Ok(Cow::Borrowed(request));
    }
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['&', '<']) {
        written.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(inside) = rest.strip_prefix(SECTION) {
            let (section, after) = inside.split_once("]]>").ok_or_else(malformed)?;
            section.chars().for_each(|character| push(&mut written, character));
            rest = after;
        } else if let Some(reference) = rest.strip_prefix("&#") {
            let (number, after) = reference.split_once(';').ok_or_else(malformed)?;
            push(&mut written, character(number).ok_or_else(malformed)?);
            rest = after;
        } else {
            written.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    written.push_str(rest);
    Ok(Cow::Owned(written.into_bytes()))
}

/// The character of a numeric reference.
fn character(number: &str) -> Option<char> {
    let code = match number.strip_prefix('x') {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    char::from_u32(code.ok()?).filter(|character| *character != '\0')
}

fn push(written: &mut String, character: char) {
    match character {
        '&' => written.push_str("&amp;"),
        '<' => written.push_str("&lt;"),
        '>' => written.push_str("&gt;"),
        other => written.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_what_xml_can_hold_and_lose_nothing_else() {
        let readable = |text: &'static str| String::from_utf8(readable(Bytes::from_static(text.as_bytes())).to_vec()).unwrap();
        assert_eq!(readable("<Key>a\tb\nc\u{85}\u{2028}🦀</Key>"), "<Key>a\tb\nc\u{85}\u{2028}🦀</Key>");
        assert_eq!(readable("<Key>a\rb\u{1}c\u{ffff}</Key>"), "<Key>a&#13;b\u{fffd}c\u{fffd}</Key>");
        assert!(is_beyond_xml("a\u{1f}") && is_beyond_xml("\u{fffe}") && !is_beyond_xml("\r\n\t\u{7f}\u{fffd}"));
    }

    #[test]
    fn references_and_sections_are_text() {
        let resolved = |text: &'static str| resolved(text.as_bytes()).map(|bytes| String::from_utf8(bytes.into_owned()).unwrap());
        assert_eq!(resolved("<K>a&#13;&#xA;&#x1F980;&#1;&amp;</K>").unwrap(), "<K>a\r\n🦀\u{1}&amp;</K>");
        assert_eq!(resolved("<K>&#60;&#x26;</K>").unwrap(), "<K>&lt;&amp;</K>");
        assert_eq!(resolved("<K><![CDATA[a<b>&c]]></K>").unwrap(), "<K>a&lt;b&gt;&amp;c</K>");
        for bad in ["<K>&#0;</K>", "<K>&#xD800;</K>", "<K>&#;</K>", "<K>&#12", "<K><![CDATA[a</K>"] {
            assert!(resolved(bad).is_err(), "{bad}");
        }
    }
}
