//! Runs the S3 server alone: `s3_server DATA [LISTEN]`. Prints its endpoint, and stops when its standard input ends.

use std::io::{Read, Write};

use embedded_blobs::{Blobs, Settings};

const USAGE: &str = "usage: s3_server DATA [LISTEN]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let data = args.next().ok_or(USAGE)?;
    let listen = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let settings = Settings::new(listen, data, variable("S3_ACCESS_KEY", "piecework"), variable("S3_SECRET_KEY", "piecework"));
    let server = Blobs::start(settings).await?;
    println!("{}", server.endpoint());
    std::io::stdout().flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    server.stop().await;
    Ok(())
}
