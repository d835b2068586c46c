//! Authentication tokens of tasks (`AZ_BATCH_AUTHENTICATION_TOKEN`): valid for the task's own job only, and for one
//! attempt of one task, even if later tasks have the same names.
//!
//! The engine makes them when an agent asks for the task, the API verifies them. They are signed with a secret in the
//! data folder, so they survive a restart.

use std::{io, path::Path, time::Duration};

use broker_config::private;
use contract::{
    ids::{JobId, TaskId, TaskUid},
    spec::EnvironmentSetting,
    time::Timestamp,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A token's lifetime.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The environment variable with the token.
pub const VARIABLE: &str = "AZ_BATCH_AUTHENTICATION_TOKEN";
const SECRET_BYTES: usize = 32;
const ISSUER: &str = "piecework";

/// Makes and verifies tokens.
#[derive(Clone)]
pub struct TaskTokens {
    writing: EncodingKey,
    reading: DecodingKey,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    exp: u64,
    job: String,
    task: String,
    /// Tokens of builds that included neither number are not accepted.
    uid: u64,
    attempt: u32,
}

/// The task that a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The only job that the token gives access to.
    pub job: JobId,
    pub task: TaskId,
    /// The task's number, which is never used again.
    pub uid: TaskUid,
    /// The attempt that received the token.
    pub attempt: u32,
}

/// The variable with the token. An empty token marks a spec that needs one and must not be stored in a queue.
pub fn setting(token: String) -> EnvironmentSetting {
    EnvironmentSetting { name: VARIABLE.to_owned(), value: Some(token) }
}

impl std::fmt::Debug for TaskTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TaskTokens(secret)")
    }
}

impl TaskTokens {
    pub fn new(secret: &[u8]) -> TaskTokens {
        TaskTokens { writing: EncodingKey::from_secret(secret), reading: DecodingKey::from_secret(secret) }
    }

    /// Identifies this data folder's secret without revealing it.
    pub fn fingerprint(&self) -> String {
        let claims = Claims { iss: ISSUER.to_owned(), exp: 0, job: String::new(), task: String::new(), uid: 0, attempt: 0 };
        let signed = encode(&Header::new(Algorithm::HS256), &claims, &self.writing).expect("HMAC signs every claim");
        signed.rsplit('.').next().map_or_else(String::new, str::to_owned)
    }

    /// Reads the secret from this file, or creates it.
    pub fn open(path: &Path) -> io::Result<TaskTokens> {
        match private::read(path) {
            Ok(secret) if secret.len() >= SECRET_BYTES => return Ok(TaskTokens::new(&secret)),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the token secret is too short")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let secret: [u8; SECRET_BYTES] = rand::rng().random();
        private::replace(path, &secret)?;
        Ok(TaskTokens::new(&secret))
    }

    /// Makes a token for one attempt of a task.
    pub fn make(&self, bearer: &Bearer, now: Timestamp) -> String {
        let exp = u64::try_from(now.0 / 1_000).unwrap_or(0) + LIFETIME.as_secs();
        let Bearer { job, task, uid, attempt } = bearer;
        let (job, task) = (job.as_str().to_owned(), task.as_str().to_owned());
        let claims = Claims { iss: ISSUER.to_owned(), exp, job, task, uid: uid.0, attempt: *attempt };
        encode(&Header::new(Algorithm::HS256), &claims, &self.writing).expect("HMAC signs every claim")
    }

    /// Verifies a token and returns its task, or the reason why it is not valid.
    pub fn read(&self, token: &str) -> Result<Bearer, String> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.validate_aud = false;
        validation.leeway = 0;
        let claims = decode::<Claims>(token, &self.reading, &validation).map_err(|error| error.to_string())?.claims;
        let job = claims.job.parse().map_err(|_| "it names no job".to_owned())?;
        let task = claims.task.parse().map_err(|_| "it names no task".to_owned())?;
        Ok(Bearer { job, task, uid: TaskUid(claims.uid), attempt: claims.attempt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer() -> Bearer {
        Bearer { job: "j".parse().unwrap(), task: "t".parse().unwrap(), uid: TaskUid(7), attempt: 2 }
    }

    #[test]
    fn a_token_names_its_task_until_it_expires_and_with_its_own_secret_only() {
        let tokens = TaskTokens::new(b"secret");
        let bearer = bearer();
        let now = Timestamp::now();
        let token = tokens.make(&bearer, now);
        assert_eq!(tokens.read(&token).unwrap(), bearer);
        assert!(TaskTokens::new(b"other").read(&token).is_err());
        let old = Timestamp(now.0 - LIFETIME.as_millis() as i64 - 2_000);
        assert!(tokens.read(&tokens.make(&bearer, old)).is_err());
        assert!(tokens.read("a.b.c").is_err());
        let nameless = serde_json::json!({"iss": ISSUER, "exp": now.0 / 1_000 + 60, "job": "j", "task": "t"});
        assert!(tokens.read(&encode(&Header::new(Algorithm::HS256), &nameless, &tokens.writing).unwrap()).is_err());
        let (head, _) = token.rsplit_once('.').unwrap();
        assert!(tokens.read(&format!("{head}.")).is_err());
    }

    #[test]
    fn the_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token-secret");
        let token = TaskTokens::open(&path).unwrap().make(&bearer(), Timestamp::now());
        assert!(TaskTokens::open(&path).unwrap().read(&token).is_ok());
        use std::{fs, os::unix::fs::PermissionsExt};
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
