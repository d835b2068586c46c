//! A store, a client, and unique buckets for each test.

use broker_config::settings::{BlobSettings, Secret};
use clients::blobs::Blobs;
use embedded_blobs::Settings;
use tempfile::TempDir;

pub struct TestStore {
    pub blobs: Blobs,
    pub bucket: String,
    pub folder: TempDir,
    server: Option<embedded_blobs::Blobs>,
}

impl TestStore {
    pub async fn start() -> TestStore {
        let folder = TempDir::new().unwrap();
        let (endpoint, server) = match std::env::var("PIECEWORK_TEST_S3_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let settings = Settings::new(([127, 0, 0, 1], 0).into(), folder.path().join("store"), "tester", "tester-secret");
                let server = embedded_blobs::Blobs::start(settings).await.unwrap();
                (server.endpoint(), Some(server))
            }
        };
        let blobs = Blobs::new(settings(&endpoint)).unwrap();
        blobs.check().await.unwrap();
        let bucket = blobs.settings().bucket.clone();
        TestStore { blobs, bucket, folder, server }
    }

    pub async fn stop(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

/// Settings with buckets that no other test uses.
pub fn settings(endpoint: &str) -> BlobSettings {
    let unique = format!("{:016x}", rand::random::<u64>());
    BlobSettings {
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "tester".to_owned(),
        secret_key: Secret::new("tester-secret"),
        bucket: format!("files-{unique}"),
        own_bucket: format!("own-{unique}"),
    }
}

/// Bytes without repetition, so that a part in the wrong place is noticed.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length.div_ceil(8) as u64).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(length).collect()
}
