//! The store under test: an embedded server for each test, or a real one named in the environment.
//! Every test gets a fresh bucket, which is emptied and removed from a real store at the end.

use std::future::Future;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use embedded_blobs::{Blobs, Settings};
use tempfile::TempDir;

/// The store and bucket of a test.
pub struct Store {
    pub client: Client,
    pub endpoint: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
}

/// Runs one test.
pub async fn with_store<F, Fut>(case: F)
where
    F: FnOnce(std::sync::Arc<Store>) -> Fut,
    Fut: Future<Output = ()>,
{
    let bucket = format!("case-{:016x}", rand::random::<u64>());
    if let Ok(endpoint) = std::env::var("PIECEWORK_TEST_S3_ENDPOINT") {
        let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let store = Store::connect(
            endpoint,
            bucket,
            var("PIECEWORK_TEST_S3_ACCESS_KEY"),
            var("PIECEWORK_TEST_S3_SECRET_KEY"),
            std::env::var("PIECEWORK_TEST_S3_REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
        );
        let store = std::sync::Arc::new(store);
        store.client.create_bucket().bucket(&store.bucket).send().await.unwrap();
        case(store.clone()).await;
        store.clear().await;
        return;
    }
    let folder = TempDir::new().unwrap();
    let settings = Settings::new("127.0.0.1:0".parse().unwrap(), folder.path(), "tester", "a-secret-of-the-test");
    let server = Blobs::start(settings).await.unwrap();
    let store = Store::connect(server.endpoint(), bucket, "tester".to_owned(), "a-secret-of-the-test".to_owned(), "us-east-1".to_owned());
    let store = std::sync::Arc::new(store);
    store.client.create_bucket().bucket(&store.bucket).send().await.unwrap();
    case(store).await;
    server.stop().await;
}

/// Makes a client for a server.
pub fn client(endpoint: &str, access_key: &str, secret_key: &str, region: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(region.to_owned()))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

impl Store {
    fn connect(endpoint: String, bucket: String, access_key: String, secret_key: String, region: String) -> Self {
        let client = client(&endpoint, &access_key, &secret_key, &region);
        Self { client, endpoint, bucket, access_key, secret_key, region }
    }

    /// Puts one object.
    pub async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> PutObjectOutput {
        let body = ByteStream::from(body.into());
        self.client.put_object().bucket(&self.bucket).key(key).body(body).send().await.unwrap()
    }

    /// Reads one object.
    pub async fn get(&self, key: &str) -> Vec<u8> {
        let output = self.client.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
        output.body.collect().await.unwrap().to_vec()
    }

    /// All keys of the bucket.
    pub async fn keys(&self) -> Vec<String> {
        let output = self.client.list_objects_v2().bucket(&self.bucket).send().await.unwrap();
        output.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    }

    async fn clear(&self) {
        loop {
            let keys = self.keys().await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.client.delete_object().bucket(&self.bucket).key(key).send().await.unwrap();
            }
        }
        // A test may have removed the bucket itself.
        let _ = self.client.delete_bucket().bucket(&self.bucket).send().await;
    }
}

/// The S3 code and HTTP status of a refusal.
pub fn refusal<T: std::fmt::Debug, E>(outcome: Result<T, SdkError<E>>) -> (String, u16)
where
    E: ProvideErrorMetadata + std::fmt::Debug,
{
    let error = outcome.expect_err("the store must refuse this");
    let status = error.raw_response().expect("the store must answer").status().as_u16();
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned();
    (code, status)
}

/// Bytes that do not repeat within a short distance.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
