//! Counts and times every request to the blob store, by S3's name of its operation.

use std::time::Instant;

use aws_sdk_s3::{config::http::HttpResponse, error::SdkError};
use broker_config::metrics::{BLOB_REQUESTS, BLOB_SECONDS};

/// Sends a request; its repeats count as one.
pub(super) async fn measured<T, E>(
    operation: &'static str,
    sending: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, SdkError<E, HttpResponse>> {
    let began = Instant::now();
    let result = sending.await;
    BLOB_SECONDS.of([operation]).record(began.elapsed());
    let word = match &result {
        Ok(_) => "ok",
        Err(error) => match error.raw_response().map_or(0, |response| response.status().as_u16()) {
            0 => "unanswered",
            404 => "not_found",
            401 | 403 => "denied",
            _ => "refused",
        },
    };
    BLOB_REQUESTS.of([operation, word]).increment(1);
    result
}
