//! The client: settings turned into a connection pool.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
};
use broker_config::settings::BlobSettings;

use super::{
    error::{At, BlobError},
    limits::{ATTEMPT_TIMEOUT, ATTEMPTS_MAX, CHUNK_TIMEOUT, CONNECT_TIMEOUT},
    locate::{self, Location, Places},
};

const RETRY_PAUSE: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A client of one blob store; cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: BlobSettings,
}

impl Blobs {
    /// Checks the settings; nothing is sent yet.
    pub fn new(settings: BlobSettings) -> Result<Blobs, BlobError> {
        if !locate::is_endpoint(&settings.endpoint) {
            return Err(BlobError::Settings { what: "the endpoint is not of the form http(s)://host:port" });
        }
        if settings.bucket == settings.own_bucket {
            return Err(BlobError::Settings { what: "users' bucket and Piecework's own bucket are the same" });
        }
        let credentials = Credentials::new(&settings.access_key, settings.secret_key.expose(), None, None, "piecework");
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(CHUNK_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        let retries =
            RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_initial_backoff(RETRY_PAUSE).with_max_backoff(RETRY_PAUSE_MAX);
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(settings.endpoint.trim_end_matches('/'))
            .region(Region::new(settings.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .timeout_config(timeouts)
            .retry_config(retries)
            .build();
        Ok(Blobs { inner: Arc::new(Inner { client: Client::from_conf(config), settings }) })
    }

    /// The settings of this client.
    pub fn settings(&self) -> &BlobSettings {
        &self.inner.settings
    }

    /// The URLs of this store that users may name.
    pub fn places(&self) -> Places<'_> {
        Places { endpoint: &self.settings().endpoint, own_bucket: &self.settings().own_bucket }
    }

    /// Parses a container URL; anything outside this store and its users' buckets is refused.
    pub fn locate(&self, url: &str) -> Result<Location, BlobError> {
        self.places().locate(url)
    }

    pub(super) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(super) fn at<'a>(&'a self, bucket: &'a str, key: &'a str) -> At<'a> {
        At { endpoint: &self.inner.settings.endpoint, bucket, key }
    }
}
