//! Fills one queue with a million persistent messages of 1 KiB, drains it, and prints rates and this process's memory.
//! `million_messages DATA [COUNT]`; server and client share the process, so the memory holds both.

use std::{error::Error, time::Instant};

use embedded_broker::{Broker, Settings};
use futures::{StreamExt, future::try_join_all};
use lapin::{BasicProperties, Connection, ConnectionProperties, options::*, types::FieldTable};

const BODY_BYTES: usize = 1 << 10;
/// Unconfirmed publishes, and deliveries without an ack, at most.
const WINDOW: usize = 1_000;
const QUEUE: &str = "million";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("usage: million_messages DATA [COUNT]")?;
    let count: usize = arguments.next().as_deref().unwrap_or("1000000").parse()?;
    let broker = Broker::start(Settings::new("127.0.0.1:0".parse()?, data, "guest", "guest")).await?;
    let connection = Connection::connect(&broker.url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(QUEUE.into(), durable, FieldTable::default()).await?;
    println!("start: {}", memory()?);

    let body = vec![b'x'; BODY_BYTES];
    let begun = Instant::now();
    for start in (0..count).step_by(WINDOW) {
        let mut waiting = Vec::with_capacity(WINDOW);
        for _ in start..(start + WINDOW).min(count) {
            let properties = BasicProperties::default().with_delivery_mode(2);
            waiting.push(channel.basic_publish("".into(), QUEUE.into(), Default::default(), &body, properties).await?);
        }
        if try_join_all(waiting).await?.iter().any(|confirm| !confirm.is_ack()) {
            return Err("a publish was refused".into());
        }
    }
    println!("filled: {}, {:.0} messages a second", memory()?, count as f64 / begun.elapsed().as_secs_f64());

    channel.basic_qos(WINDOW as u16, BasicQosOptions::default()).await?;
    let mut consumer = channel.basic_consume(QUEUE.into(), QUEUE.into(), Default::default(), FieldTable::default()).await?;
    let begun = Instant::now();
    for number in 1..=count {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        if number % (WINDOW / 4) == 0 || number == count {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    println!("drained: {}, {:.0} messages a second", memory()?, count as f64 / begun.elapsed().as_secs_f64());
    broker.stop().await;
    Ok(())
}

/// Resident memory of this process, current and peak.
fn memory() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let of =
        |field: &str| -> Option<u64> { status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok() };
    let (now, most) = (of("VmRSS:").ok_or("no VmRSS")?, of("VmHWM:").ok_or("no VmHWM")?);
    Ok(format!("{} MiB resident, {} MiB at most", now >> 10, most >> 10))
}
