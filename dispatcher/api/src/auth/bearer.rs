//! Bearer tokens of an OpenID Connect issuer, verified with the issuer's published keys.
//!
//! ```text
//! token ─► key id known? ─► signature · issuer · audience · times ─► roles ─► may the route be used?
//!              └ no: fetch the issuer's keys again, at most every half minute
//! ```

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, JwkSet},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

/// Clock difference between issuer and dispatcher that is tolerated.
pub const LEEWAY: Duration = Duration::from_secs(5 * 60);
/// Keys kept at most.
const KEYS_MAX: usize = 64;
/// Bytes of the issuer's documents at most.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Time limit for fetching each of the issuer's two documents.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time between two fetches, whatever tokens arrive.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// Keys older than this are fetched again, so that revoked ones stop working.
const KEYS_LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes of a token at most.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The issuer of the tokens, and their audience.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// The issuer's URL, exactly as in its tokens.
    pub issuer: String,
    /// The audience that tokens must name.
    pub audience: String,
    /// Role for tokens without a roles claim; none by default.
    pub default_role: Option<Role>,
}

/// Roles of callers; a later one may do all that an earlier one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read everything.
    Reader,
    /// Read everything, and change jobs, tasks and schedules.
    Submitter,
    /// Read and change everything.
    Contributor,
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Role, &'static str> {
        match name.to_ascii_lowercase().as_str() {
            "reader" => Ok(Role::Reader),
            "submitter" => Ok(Role::Submitter),
            "contributor" => Ok(Role::Contributor),
            _ => Err("a role is reader, submitter or contributor"),
        }
    }
}

/// Why a token was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// The token is invalid or expired.
    Wrong(String),
    /// The issuer's keys could not be fetched.
    Issuer(String),
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    roles: Value,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<String, (Algorithm, Arc<DecodingKey>)>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// Verifies tokens of one issuer.
pub struct Oidc {
    settings: OidcSettings,
    http: reqwest::Client,
    keys: Mutex<Keys>,
}

impl Oidc {
    /// Fetches nothing until the first token.
    pub fn new(settings: OidcSettings) -> Result<Oidc, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(FETCH_TIMEOUT).connect_timeout(FETCH_TIMEOUT).build()?;
        Ok(Oidc { settings, http, keys: Mutex::new(Keys::default()) })
    }

    /// Verifies a token and returns its owner's role.
    pub async fn check(&self, token: &str) -> Result<Role, TokenFault> {
        let wrong = |error: jsonwebtoken::errors::Error| TokenFault::Wrong(error.to_string());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Wrong(format!("it is longer than {TOKEN_BYTES_MAX} bytes")));
        }
        let header = decode_header(token).map_err(wrong)?;
        let id = header.kid.unwrap_or_default();
        let (algorithm, key) = self.key(&id).await?;
        // The key determines the family of algorithms, never the token alone.
        let family = family_of(algorithm);
        if family_of(header.alg) != family || family == AlgorithmFamily::Hmac {
            return Err(TokenFault::Wrong("its algorithm is not that of its key".to_owned()));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims = decode::<Claims>(token, &key, &validation).map_err(wrong)?.claims;
        role(&claims.roles, self.settings.default_role)
    }

    /// The key with this id. Fetches the issuer's keys when the id is unknown or the keys are old.
    async fn key(&self, id: &str) -> Result<(Algorithm, Arc<DecodingKey>), TokenFault> {
        let mut keys = self.keys.lock().await;
        let is_fresh = keys.fetched.is_some_and(|at| at.elapsed() < KEYS_LIFETIME);
        if !is_fresh || !keys.by_id.contains_key(id) {
            if keys.tried.is_none_or(|at| at.elapsed() >= FETCH_PAUSE) {
                keys.tried = Some(Instant::now());
                match self.fetch().await {
                    Ok(found) => (keys.by_id, keys.fetched) = (found, Some(Instant::now())),
                    Err(error) => {
                        tracing::warn!(
                            issuer = self.settings.issuer,
                            error,
                            "the keys of the token issuer cannot be fetched; the keys known so far are used until a later try succeeds"
                        );
                        if keys.fetched.is_none() {
                            return Err(TokenFault::Issuer(error));
                        }
                    }
                }
            } else if keys.fetched.is_none() {
                return Err(TokenFault::Issuer("the issuer's keys could not be fetched a moment ago".to_owned()));
            }
        }
        keys.by_id.get(id).cloned().ok_or_else(|| TokenFault::Wrong(format!("the issuer has no key {id:?}")))
    }

    async fn fetch(&self) -> Result<HashMap<String, (Algorithm, Arc<DecodingKey>)>, String> {
        let place = format!("{}/.well-known/openid-configuration", self.settings.issuer.trim_end_matches('/'));
        let discovery: Discovery = self.document(&place).await?;
        if discovery.issuer.trim_end_matches('/') != self.settings.issuer.trim_end_matches('/') {
            return Err(format!("{place} is about another issuer, {}", discovery.issuer));
        }
        let set: JwkSet = self.document(&discovery.jwks_uri).await?;
        let usable = set.keys.iter().filter_map(|jwk| {
            let algorithm = algorithm_of(&jwk.algorithm)?;
            let key = DecodingKey::from_jwk(jwk)
                .map_err(|error| tracing::warn!(%error, "a key of the token issuer cannot be used; tokens signed with it are refused"))
                .ok()?;
            Some((jwk.common.key_id.clone().unwrap_or_default(), (algorithm, Arc::new(key))))
        });
        Ok(usable.take(KEYS_MAX).collect())
    }

    async fn document<T: for<'de> Deserialize<'de>>(&self, url: &str) -> Result<T, String> {
        let get = async {
            let mut response = self.http.get(url).send().await?.error_for_status()?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > DOCUMENT_BYTES_MAX {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(body)
        };
        let body = tokio::time::timeout(FETCH_TIMEOUT, get)
            .await
            .map_err(|_| format!("{url} does not answer in time"))?
            .map_err(|error| format!("{url}: {error}"))?;
        if body.len() > DOCUMENT_BYTES_MAX {
            return Err(format!("{url} is longer than {DOCUMENT_BYTES_MAX} bytes"));
        }
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

fn family_of(algorithm: Algorithm) -> AlgorithmFamily {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => AlgorithmFamily::Rsa,
    }
}

/// An algorithm of the key's family. Symmetric keys are not accepted, because a published secret proves nothing.
fn algorithm_of(parameters: &AlgorithmParameters) -> Option<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(_) => Some(Algorithm::ES256),
        AlgorithmParameters::OctetKeyPair(_) => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// The strongest of the roles; the default applies only to a token without the claim.
fn role(roles: &Value, default: Option<Role>) -> Result<Role, TokenFault> {
    let names: Vec<&str> = match roles {
        Value::Null => {
            return default.ok_or_else(|| TokenFault::Wrong("it has no roles".to_owned()));
        }
        Value::String(name) => name.split(' ').collect(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let known = names.iter().filter_map(|name| name.parse().ok());
    known.max().ok_or_else(|| TokenFault::Wrong("its roles are none of reader, submitter and contributor".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_strongest_role_counts_and_unknown_ones_open_nothing() {
        assert_eq!(role(&json!(["reader", "Submitter"]), None), Ok(Role::Submitter));
        assert_eq!(role(&json!("contributor"), None), Ok(Role::Contributor));
        assert_eq!(role(&Value::Null, Some(Role::Reader)), Ok(Role::Reader));
        assert!(role(&Value::Null, None).is_err());
        assert!(role(&json!(["admin"]), Some(Role::Reader)).is_err());
        assert!(role(&json!(["admin"]), None).is_err());
        assert!(role(&json!([]), None).is_err());
        assert!(role(&json!(5), None).is_err());
    }
}
