//! Compares the task loop (submit, work, result, ack) through this client with the same loop through bare lapin, in turn on one broker.
//!
//! `cargo run --release -p clients --example task_loop -- amqp://… [tasks] [rounds]`

use std::time::Instant;

use broker_config::{
    settings::{BrokerSettings, Secret},
    topology::{Queue, Topology},
};
use clients::amqp::{Link, Outgoing, SlotConsumer, Subscription};
use contract::body::Format;
use futures::{StreamExt, stream::FuturesUnordered};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, options::BasicAckOptions};

const SLOTS: u16 = 64;
const BODY: [u8; 400] = [b'x'; 400];
const SUBMIT_BATCH: usize = 512;

type Outcome = Result<f64, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: task_loop URL [tasks] [rounds]")?;
    let tasks = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(3), |text| text.parse())?;
    for round in 1..=rounds {
        let bare = bare_loop(&url, tasks).await?;
        let batched = own_loop(&url, tasks, true).await?;
        let single = own_loop(&url, tasks, false).await?;
        println!(
            "round {round}: bare lapin {bare:.0}/s, this client {batched:.0}/s ({:.2}), results one by one {single:.0}/s ({:.2})",
            batched / bare,
            single / bare
        );
    }
    Ok(())
}

fn topology() -> Topology {
    let queue = |name: &str| Queue { name: name.to_owned(), arguments: vec![], bindings: vec![] };
    Topology { exchanges: vec![], queues: vec![queue("loop.tasks"), queue("loop.results")] }
}

fn outgoing(queue: &str) -> Outgoing {
    Outgoing::raw("", queue, BODY.to_vec(), Format::MessagePack)
}

async fn own_loop(url: &str, tasks: usize, batches_results: bool) -> Outcome {
    let settings = |name: &str| BrokerSettings { url: Secret::new(url), name: name.to_owned() };
    let (dispatcher, agent) = (Link::open(settings("dispatcher")).await?, Link::open(settings("agent")).await?);
    dispatcher.declare(&topology()).await?;
    dispatcher.purge("loop.tasks").await?;
    dispatcher.purge("loop.results").await?;
    let plan = Subscription { slots: SlotConsumer::spread(SLOTS.into()), buffer: SLOTS.into(), ..Subscription::plain("loop.tasks", 1) };
    let mut work = agent.subscribe(plan).await?;
    let mut results = dispatcher.subscribe(Subscription::plain("loop.results", 512)).await?;
    let start = Instant::now();
    let publisher = agent.publisher();
    let working = tokio::spawn(async move {
        let (acker, mut sending) = (work.acker(), FuturesUnordered::new());
        let mut taken = 0;
        while taken < tasks || !sending.is_empty() {
            tokio::select! {
                Some(first) = work.next(), if taken < tasks => {
                    let mut tags = vec![first.tag];
                    while batches_results && let Some(more) = work.try_next() {
                        tags.push(more.tag);
                    }
                    taken += tags.len();
                    let (publisher, acker) = (publisher.clone(), acker.clone());
                    sending.push(async move {
                        let results = match tags.as_slice() {
                            [_] => vec![publisher.publish(outgoing("loop.results")).await],
                            many => publisher.publish_all(many.iter().map(|_| outgoing("loop.results")).collect()).await,
                        };
                        for (tag, result) in tags.into_iter().zip(results) {
                            match result {
                                Ok(()) => acker.ack(tag),
                                Err(error) => panic!("a result was not confirmed: {error}"),
                            }
                        }
                    });
                }
                Some(()) = sending.next(), if !sending.is_empty() => {}
            }
        }
        drop(sending);
        work
    });
    let publisher = dispatcher.publisher();
    let submitting = tokio::spawn(async move {
        for batch in 0..tasks.div_ceil(SUBMIT_BATCH) {
            let count = SUBMIT_BATCH.min(tasks - batch * SUBMIT_BATCH);
            let confirmed = publisher.publish_all((0..count).map(|_| outgoing("loop.tasks")).collect()).await;
            assert!(confirmed.iter().all(Result::is_ok), "a task was not confirmed");
        }
    });
    for number in 1..=tasks {
        let result = results.next().await.ok_or("the link closed")?;
        if number % 64 == 0 || number == tasks {
            results.acker().ack_multiple(result.tag);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    submitting.await?;
    drop(working.await?);
    agent.close().await;
    dispatcher.close().await;
    Ok(tasks as f64 / seconds)
}

async fn bare_publish(channel: &Channel, queue: &str) -> lapin::Result<lapin::PublisherConfirm> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    channel.basic_publish("".into(), queue.into(), Default::default(), &BODY, properties).await
}

async fn bare_loop(url: &str, tasks: usize) -> Outcome {
    let mut connections = vec![];
    for _ in 0..3 {
        connections.push(Connection::connect(url, ConnectionProperties::default()).await?);
    }
    let (submit, collect) = (connections[0].create_channel().await?, connections[2].create_channel().await?);
    let (work, report) = (connections[1].create_channel().await?, connections[1].create_channel().await?);
    for name in ["loop.tasks", "loop.results"] {
        let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        submit.queue_declare(name.into(), options, Default::default()).await?;
        submit.queue_purge(name.into(), Default::default()).await?;
    }
    submit.confirm_select(Default::default()).await?;
    report.confirm_select(Default::default()).await?;
    work.basic_qos(SLOTS, Default::default()).await?;
    collect.basic_qos(512, Default::default()).await?;
    let mut work = work.basic_consume("loop.tasks".into(), "w".into(), Default::default(), Default::default()).await?;
    let mut results = collect.basic_consume("loop.results".into(), "r".into(), Default::default(), Default::default()).await?;
    let start = Instant::now();
    let working = tokio::spawn(async move {
        let (mut sending, mut taken) = (FuturesUnordered::new(), 0);
        while taken < tasks || !sending.is_empty() {
            tokio::select! {
                Some(delivery) = work.next(), if taken < tasks => {
                    taken += 1;
                    let (delivery, report) = (delivery?, report.clone());
                    sending.push(async move {
                        bare_publish(&report, "loop.results").await?.await?;
                        delivery.ack(BasicAckOptions::default()).await
                    });
                }
                Some(done) = sending.next(), if !sending.is_empty() => { done?; }
            }
        }
        lapin::Result::Ok(())
    });
    let submitting = tokio::spawn(async move {
        let mut confirms = FuturesUnordered::new();
        for _ in 0..tasks {
            if confirms.len() >= SUBMIT_BATCH {
                confirms.next().await.transpose()?;
            }
            confirms.push(bare_publish(&submit, "loop.tasks").await?);
        }
        while confirms.next().await.transpose()?.is_some() {}
        lapin::Result::Ok(())
    });
    for number in 1..=tasks {
        let delivery = results.next().await.ok_or("the connection closed")??;
        if number % 64 == 0 || number == tasks {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    submitting.await??;
    working.await??;
    for connection in connections {
        connection.close(200, "goodbye".into()).await?;
    }
    Ok(tasks as f64 / seconds)
}
