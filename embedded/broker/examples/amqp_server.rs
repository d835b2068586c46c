//! Runs the server alone, for benchmarks and crash tests: `amqp_server DATA [ADDRESS]`. Prints its URL, ends when stdin ends.

use std::{error::Error, io::Read, net::SocketAddr};

use embedded_broker::{Broker, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("usage: amqp_server DATA [ADDRESS]")?;
    let listen: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let broker = Broker::start(Settings::new(listen, data, "guest", "guest")).await?;
    println!("{}", broker.url());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    broker.stop().await;
    Ok(())
}
