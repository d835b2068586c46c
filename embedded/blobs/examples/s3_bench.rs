//! Measures any S3 server: small objects by 16 clients, and one large object in parts.
//! `s3_bench ENDPOINT ACCESS_KEY SECRET_KEY [SMALL_COUNT] [LARGE_MIB]`; run it several times, on the servers to compare in turn.

use std::{error::Error, time::Instant};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation},
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use futures::{StreamExt, TryStreamExt, stream};

const CLIENTS: usize = 16;
const SMALL_BYTES: usize = 4 << 10;
const PART_BYTES: usize = 16 << 20;
/// Parts of the large object sent concurrently.
const PARTS: usize = 4;
const BUCKET: &str = "bench";

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, access, secret, rest @ ..] = &arguments[..] else {
        return Err("usage: s3_bench ENDPOINT ACCESS_KEY SECRET_KEY [SMALL_COUNT] [LARGE_MIB]".into());
    };
    let small: usize = rest.first().map_or(Ok(4_000), |text| text.parse())?;
    let parts = rest.get(1).map_or(Ok(512), |text| text.parse::<usize>())?.div_ceil(PART_BYTES >> 20);
    let client = client(endpoint, access, secret);
    // The bucket may exist from an earlier run.
    let made = client.create_bucket().bucket(BUCKET).send().await;
    if let Err(error) = made
        && client.head_bucket().bucket(BUCKET).send().await.is_err()
    {
        return Err(error.into());
    }
    let rate = |what: &str, amount: f64, unit: &str, begun: Instant| {
        println!("{what}\t{:.1}\t{unit} a second", amount / begun.elapsed().as_secs_f64());
    };

    let begun = Instant::now();
    let put = |n: usize| client.put_object().bucket(BUCKET).key(format!("small/{n}")).body(vec![n as u8; SMALL_BYTES].into()).send();
    stream::iter((0..small).map(put)).buffer_unordered(CLIENTS).try_for_each(async |_| Ok(())).await?;
    rate("put 4 KiB, 16 clients", small as f64, "objects", begun);

    let begun = Instant::now();
    let get = async |n: usize| -> Result<(), Failure> {
        let body = client.get_object().bucket(BUCKET).key(format!("small/{n}")).send().await?.body.collect().await?;
        if body.into_bytes().len() == SMALL_BYTES { Ok(()) } else { Err("a small object came back short".into()) }
    };
    stream::iter((0..small).map(get)).buffer_unordered(CLIENTS).try_for_each(async |()| Ok(())).await?;
    rate("get 4 KiB, 16 clients", small as f64, "objects", begun);

    let begun = Instant::now();
    put_large(&client, parts).await?;
    let mib = (parts * (PART_BYTES >> 20)) as f64;
    rate("put in parts of 16 MiB", mib, "MiB", begun);

    let begun = Instant::now();
    let mut body = client.get_object().bucket(BUCKET).key("large").send().await?.body;
    let mut length = 0;
    while let Some(bytes) = body.try_next().await? {
        length += bytes.len();
    }
    if length != parts * PART_BYTES {
        return Err("the large object came back short".into());
    }
    rate("get in one stream", mib, "MiB", begun);
    Ok(())
}

fn client(endpoint: &str, access: &str, secret: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access, secret, None, None, "bench"))
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

async fn put_large(client: &Client, parts: usize) -> Result<(), Failure> {
    let upload = client.create_multipart_upload().bucket(BUCKET).key("large").send().await?;
    let id = upload.upload_id().ok_or("an upload without id")?;
    let part = async |number: i32| -> Result<CompletedPart, Failure> {
        let body = ByteStream::from(vec![number as u8; PART_BYTES]);
        let done = client.upload_part().bucket(BUCKET).key("large").upload_id(id).part_number(number).body(body).send().await?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(done.e_tag).build())
    };
    let done: Vec<CompletedPart> = stream::iter((1..=parts as i32).map(part)).buffered(PARTS).try_collect().await?;
    let whole = CompletedMultipartUpload::builder().set_parts(Some(done)).build();
    client.complete_multipart_upload().bucket(BUCKET).key("large").upload_id(id).multipart_upload(whole).send().await?;
    Ok(())
}
