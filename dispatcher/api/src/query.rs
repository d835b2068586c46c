//! The query string: decoded once, read by name without regard to case, and checked against what an operation accepts.
//!
//! Values stay bytes until they are read as text, because the signature covers the bytes.

use std::borrow::Cow;

use model::refusal::{Code, Refusal};
use percent_encoding::percent_decode;

/// Parameters of one request at most.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a request, in the order they were sent.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

fn decode(raw: &str) -> Vec<u8> {
    let spaced = raw.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect::<Vec<_>>();
    Cow::from(percent_decode(&spaced)).into_owned()
}

impl Query {
    /// Parses the text after `?`.
    pub fn parse(raw: Option<&str>) -> Query {
        let pairs = raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).take(PARAMETERS_MAX);
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// Decoded names and values; of repeated names the first one only.
    pub fn firsts(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let pairs = &self.0;
        pairs
            .iter()
            .enumerate()
            .filter(|(index, (name, _))| !pairs[..*index].iter().any(|(earlier, _)| earlier == name))
            .map(|(_, (name, value))| (name.as_slice(), value.as_slice()))
    }

    /// A parameter's text; an empty one counts as absent.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let found = self.0.iter().find(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()));
        match found.map(|(_, value)| std::str::from_utf8(value)) {
            None | Some(Ok("")) => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(wrong(name, "(not UTF-8)", "The value is not UTF-8.")),
        }
    }

    /// A number between the bounds.
    pub fn number(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let number: i64 = text.parse().map_err(|_| wrong(name, text, "The value is not a whole number."))?;
        if (least..=most).contains(&number) {
            return Ok(Some(number));
        }
        Err(Refusal::new(
            Code::OutOfRangeQueryParameterValue,
            "A query parameter specified in the request URI is outside the permissible range.",
        )
        .with("QueryParameterName", name)
        .with("QueryParameterValue", text)
        .with("MinimumAllowed", least)
        .with("MaximumAllowed", most))
    }

    /// `true` or `false` in any letter case; false when absent.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name)? {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(wrong(name, text, "The value is neither true nor false.")),
        }
    }

    /// Refuses OData options, paging and `recursive` where the operation does not accept them.
    pub fn only(&self, taken: &[&str]) -> Result<(), Refusal> {
        const KNOWN: [&str; 7] = ["$filter", "$select", "$expand", "$skiptoken", "maxresults", "recursive", "force"];
        for (name, _) in self.firsts() {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            let is_ours = name.starts_with('$') || KNOWN.contains(&name.as_str());
            if is_ours && !taken.contains(&name.as_str()) {
                return Err(Refusal::new(
                    Code::UnsupportedQueryParameter,
                    "A query parameter specified in the request URI is not supported.",
                )
                .with("QueryParameterName", &name)
                .hint(&match taken {
                    [] => "This operation takes api-version and timeout only.".to_owned(),
                    _ => format!("This operation takes {}.", taken.join(", ")),
                }));
            }
        }
        Ok(())
    }

    /// The parameters without `$skiptoken`, encoded for a link.
    pub fn for_next_link(&self) -> String {
        use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
        const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');
        let pairs = self.firsts().filter(|(name, _)| !name.eq_ignore_ascii_case(b"$skiptoken"));
        pairs.map(|(name, value)| format!("{}={}&", percent_encode(name, KEPT), percent_encode(value, KEPT))).collect()
    }
}

/// Refusal of a parameter's value.
pub fn wrong(name: &str, value: &str, reason: &str) -> Refusal {
    Refusal::new(Code::InvalidQueryParameterValue, "The value specified for one of the query parameters in the request URI is invalid.")
        .with("QueryParameterName", name)
        .with("QueryParameterValue", value.chars().take(256).collect::<String>())
        .with("Reason", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_values_are_decoded() {
        let query = Query::parse(Some("api-version=1&%24Filter=state%20eq+%27a%27&timeOut=30&timeOut=40"));
        assert_eq!(query.text("$filter").unwrap(), Some("state eq 'a'"));
        assert_eq!(query.number("timeout", 1, 90).unwrap(), Some(30));
        assert_eq!(query.text("absent").unwrap(), None);
    }

    #[test]
    fn numbers_outside_their_bounds_and_unknown_options_are_refused() {
        let query = Query::parse(Some("maxresults=1001&$orderby=id"));
        assert_eq!(query.number("maxresults", 1, 1000).unwrap_err().code, Code::OutOfRangeQueryParameterValue);
        assert_eq!(query.only(&["maxresults"]).unwrap_err().code, Code::UnsupportedQueryParameter);
        assert_eq!(Query::parse(Some("maxresults=x")).number("maxresults", 1, 9).unwrap_err().code, Code::InvalidQueryParameterValue);
    }

    #[test]
    fn a_link_holds_everything_but_the_old_token() {
        let query = Query::parse(Some("$filter=id%20eq%20'a'&$skiptoken=xyz&maxresults=2"));
        assert_eq!(query.for_next_link(), "$filter=id%20eq%20%27a%27&maxresults=2&");
    }
}
