//! Azure's API versions: which are accepted, and what older and newer ones lack.
//!
//! One model serves all of them: every property is accepted from every client, and answers leave out what the client's
//! version lacks.

use model::refusal::{Code, Refusal};

use crate::{query::Query, schema};

/// A version, by its date as a number: 2024-02-01.19.0 is 20240201.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

/// The first version that lists images by themselves instead of by agent.
const V10: Version = Version(20_190_801);
/// The first version with the name task slots.
pub const V12: Version = Version(20_200_901);
const V2025: Version = Version(20_250_601);

/// Operations that newer versions have removed; those that older versions lacked are served to all.
#[rustfmt::skip]
pub const GIVEN_UP: &[(&str, Version)] = &[
    ("account.list_node_agent_skus", V10),
    ("compute_node.get_remote_desktop", V2025),
    ("certificate.add", V2025),
    ("certificate.list", V2025),
    ("certificate.cancel_deletion", V2025),
    ("certificate.delete", V2025),
    ("certificate.get", V2025),
];

impl Version {
    /// The version of Piecework's own operations: everything is shown.
    pub const ALL: Version = Version(u32::MAX);

    /// Reads `api-version`; every version in Azure's form is accepted.
    pub fn read(query: &Query) -> Result<Version, Refusal> {
        let Some(text) = query.text("api-version")? else {
            return Err(Refusal::new(
                Code::MissingRequiredQueryParameter,
                "A query parameter that's mandatory for this request is not specified.",
            )
            .with("QueryParameterName", "api-version")
            .hint("Add api-version=2024-02-01.19.0."));
        };
        parse(text).ok_or_else(|| {
            Refusal::new(Code::UnsupportedRequestVersion, "The specified api-version is not supported.")
                .with("api-version", text.chars().take(64).collect::<String>())
                .hint("2024-02-01.19.0, 2024-07-01.20.0 and 2025-06-01 are served.")
        })
    }

    /// Properties of a shape that the version does not have; a slash leads into an object.
    pub fn lacks(self, shape: &str) -> Vec<&'static str> {
        schema::shape(shape).lacks(self.0)
    }

    /// Refuses an operation that this version has removed.
    pub fn check(self, operation: &'static str, path: &str) -> Result<(), Refusal> {
        if GIVEN_UP.iter().all(|(name, end)| *name != operation || self < *end) {
            return Ok(());
        }
        Err(Refusal::new(Code::ResourceNotFound, "The specified resource does not exist.")
            .with("Path", path)
            .with("Operation", operation)
            .hint("This api-version does not have the operation any more."))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}

/// Parses a date since 2014; versions before the date-only ones have two numbers more: `2024-02-01.19.0`.
fn parse(text: &str) -> Option<Version> {
    let (date, minor) = text.split_once('.').map_or((text, None), |(date, minor)| (date, Some(minor)));
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<_> = date.split('-').collect();
    let is_date = parts.len() == 3 && digits(parts[0], 4) && digits(parts[1], 2) && digits(parts[2], 2) && parts[0] >= "2014";
    let is_minor = minor.is_none_or(|minor| {
        minor.split_once('.').is_some_and(|(major, minor)| [major, minor].iter().all(|part| digits(part, 1) || digits(part, 2)))
    });
    if !is_date || !is_minor {
        return None;
    }
    parts.concat().parse().ok().map(Version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ROUTES;

    #[test]
    fn versions_of_azures_shape_are_let_in() {
        for (version, wanted) in [
            ("api-version=2024-02-01.19.0", Ok(Version(20_240_201))),
            ("api-version=2025-06-01", Ok(V2025)),
            ("Api-Version=2020-03-01.11.0", Ok(Version(20_200_301))),
            ("", Err(Code::MissingRequiredQueryParameter)),
            ("api-version=", Err(Code::MissingRequiredQueryParameter)),
            ("api-version=latest", Err(Code::UnsupportedRequestVersion)),
            ("api-version=2024-02-01.x", Err(Code::UnsupportedRequestVersion)),
            ("api-version=1999-01-01.1.0", Err(Code::UnsupportedRequestVersion)),
        ] {
            assert_eq!(Version::read(&Query::parse(Some(version))).map_err(|refusal| refusal.code), wanted, "{version}");
        }
        assert_eq!(V2025.to_string(), "2025-06-01");
    }

    #[test]
    fn operations_of_the_table_are_routed() {
        for (name, _) in GIVEN_UP {
            assert!(ROUTES.iter().any(|route| route.name == *name), "{name}");
        }
    }

    #[test]
    fn our_own_operations_have_what_the_newest_version_has() {
        assert_eq!(Version::ALL.lacks("CloudJob"), V2025.lacks("CloudJob"));
    }
}
