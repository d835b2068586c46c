//! Starts after a stop, a kill -9, or a partial write.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use embedded_broker::{Broker, Error};
use futures::{StreamExt, future::join_all};
use lapin::{BasicProperties, ExchangeKind, options::*, types::FieldTable};

use crate::servers::*;

const CHILD_DATA: &str = "PIECEWORK_TEST_BROKER_DATA";

/// The server in a process of its own, so that it can be killed.
pub struct Victim {
    process: Child,
    pub url: String,
    _stdin: ChildStdin,
}

impl Victim {
    pub fn start(folder: &Path) -> Victim {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::serves_when_asked_as_a_child", "--nocapture"])
            .env(CHILD_DATA, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.by_ref().map(Result::unwrap).find_map(|line| line.find("amqp://").map(|at| line[at..].to_owned())).unwrap();
        Victim { process, url, _stdin: stdin }
    }

    /// Resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test of its own: the main function of [`Victim`]'s process.
#[tokio::test]
async fn serves_when_asked_as_a_child() {
    let Some(folder) = std::env::var_os(CHILD_DATA) else { return };
    let broker = start(Path::new(&folder)).await;
    println!("{}", broker.url());
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    broker.stop().await;
}

#[tokio::test]
async fn topology_and_messages_survive_a_kill_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let victim = Victim::start(folder.path());
    let a = channel(&victim.url).await;
    durable_queue(&a, "work", FieldTable::default()).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    a.exchange_declare("events".into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    a.queue_bind("work".into(), "events".into(), "task.#".into(), Default::default(), FieldTable::default()).await.unwrap();
    for number in 0..20 {
        let (exchange, key) = if number % 2 == 0 { ("", "work") } else { ("events", "task.done") };
        assert!(publish(&a, exchange, key, format!("{number}").as_bytes(), 2).await.is_ack());
    }
    publish(&a, "", "work", b"transient", 1).await;
    victim.kill();

    let broker = start(folder.path()).await;
    let b = channel(&broker.url()).await;
    assert_eq!(durable_queue(&b, "work", FieldTable::default()).await, 20);
    let seen = drain(&b, "work").await;
    let expected: Vec<_> = (0..20).map(|number| (number.to_string(), false)).collect();
    assert_eq!(seen, expected);
    assert!(publish(&b, "events", "task.again", b"x", 2).await.is_ack());
    assert_eq!(drain(&b, "work").await.len(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn nothing_confirmed_is_lost_by_a_kill_under_load() {
    for round in 0..3_usize {
        let folder = tempfile::tempdir().unwrap();
        let victim = Victim::start(folder.path());
        let a = channel(&victim.url).await;
        durable_queue(&a, "work", FieldTable::default()).await;
        let mut waiting = Vec::new();
        for number in 0..400 {
            let persistent = BasicProperties::default().with_delivery_mode(2);
            let body = format!("{number:05}");
            waiting.push(a.basic_publish("".into(), "work".into(), Default::default(), body.as_bytes(), persistent).await.unwrap());
        }
        // Killed in the middle: after a hundred confirms, with other publishes outstanding.
        let mut confirmed = 0;
        let mut victim = Some(victim);
        for (number, confirm) in waiting.into_iter().enumerate() {
            if number == 100 * (round + 1) {
                victim.take().unwrap().kill();
            }
            match tokio::time::timeout(WAIT, confirm).await.expect("a confirm or an error") {
                Ok(confirm) => {
                    assert!(confirm.is_ack());
                    confirmed = number + 1;
                }
                Err(_) => break,
            }
        }
        let broker = start(folder.path()).await;
        let seen = drain(&channel(&broker.url()).await, "work").await;
        assert!(seen.len() >= confirmed, "{} of {confirmed} confirmed", seen.len());
        for (number, (body, _)) in seen.iter().enumerate() {
            assert_eq!(*body, format!("{number:05}"));
        }
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_was_out_at_a_kill_comes_back_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let victim = Victim::start(folder.path());
    let a = channel(&victim.url).await;
    durable_queue(&a, "work", FieldTable::default()).await;
    a.basic_qos(4, BasicQosOptions::default()).await.unwrap();
    let mut consumer = a.basic_consume("work".into(), "c".into(), Default::default(), FieldTable::default()).await.unwrap();
    for number in 0..400 {
        publish(&a, "", "work", format!("{number:05}").as_bytes(), 2).await;
    }
    for _ in 0..4 {
        consumer.next().await.unwrap().unwrap();
    }
    victim.kill();
    let broker = start(folder.path()).await;
    let seen = drain(&channel(&broker.url()).await, "work").await;
    assert_eq!(seen.len(), 400);
    assert!(seen[..4].iter().all(|(_, flagged)| *flagged), "all that were out are flagged");
    assert!(seen[100..].iter().all(|(_, flagged)| !flagged), "what was far behind is not");
    broker.stop().await;
}

#[tokio::test]
async fn acked_messages_stay_gone_after_a_stop_and_flags_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    durable_queue(&a, "work", FieldTable::default()).await;
    for body in [&b"acked"[..], b"held", b"waiting"] {
        publish(&a, "", "work", body, 2).await;
    }
    let get = async || a.basic_get("work".into(), BasicGetOptions { no_ack: false }).await.unwrap().unwrap();
    get().await.ack(BasicAckOptions::default()).await.unwrap();
    get().await;
    broker.stop().await;
    for _ in 0..2 {
        let broker = start(folder.path()).await;
        broker.stop().await;
    }
    let broker = start(folder.path()).await;
    let seen = drain(&channel(&broker.url()).await, "work").await;
    assert_eq!(seen, [("held".to_owned(), true), ("waiting".to_owned(), false)]);
    broker.stop().await;
}

#[tokio::test]
async fn deleted_and_exclusive_things_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let victim = Victim::start(folder.path());
    let a = channel(&victim.url).await;
    durable_queue(&a, "gone", FieldTable::default()).await;
    durable_queue(&a, "kept", FieldTable::default()).await;
    publish(&a, "", "gone", b"x", 2).await;
    a.queue_bind("kept".into(), "amq.topic".into(), "a".into(), Default::default(), FieldTable::default()).await.unwrap();
    a.queue_bind("kept".into(), "amq.topic".into(), "b".into(), Default::default(), FieldTable::default()).await.unwrap();
    a.queue_unbind("kept".into(), "amq.topic".into(), "a".into(), FieldTable::default()).await.unwrap();
    let exclusive = QueueDeclareOptions { durable: true, exclusive: true, ..Default::default() };
    a.queue_declare("mine".into(), exclusive, FieldTable::default()).await.unwrap();
    a.queue_delete("gone".into(), QueueDeleteOptions::default()).await.unwrap();
    victim.kill();
    let broker = start(folder.path()).await;
    let b = channel(&broker.url()).await;
    for key in ["a", "b"] {
        publish(&b, "amq.topic", key, key.as_bytes(), 2).await;
    }
    assert_eq!(drain(&b, "kept").await, [("b".to_owned(), false)]);
    for name in ["gone", "mine"] {
        let c = channel(&broker.url()).await;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        assert!(c.queue_declare(name.into(), passive, FieldTable::default()).await.is_err(), "{name}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn half_a_record_at_the_end_is_cut_and_damage_before_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let a = channel(&broker.url()).await;
    durable_queue(&a, "work", FieldTable::default()).await;
    publish(&a, "", "work", b"x", 2).await;
    broker.stop().await;
    let newest = |folder: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        files.sort();
        files
    };
    let last = newest(folder.path()).pop().unwrap();
    OpenOptions::new().append(true).open(&last).unwrap().write_all(&[40, 0, 0, 0, 1, 2, 3, 4, 5]).unwrap();
    let broker = start(folder.path()).await;
    assert_eq!(durable_queue(&channel(&broker.url()).await, "work", FieldTable::default()).await, 1);
    broker.stop().await;

    let first = newest(folder.path()).remove(0);
    let mut bytes = std::fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&first, bytes).unwrap();
    assert!(matches!(Broker::start(settings(folder.path())).await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn two_servers_cannot_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    assert!(matches!(Broker::start(settings(folder.path())).await, Err(Error::Locked { .. })));
    broker.stop().await;
}

#[tokio::test]
async fn the_disk_is_bounded_by_what_is_alive() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.segment_max_bytes = 64 << 10;
    let broker = Broker::start(settings.clone()).await.unwrap();
    let a = channel(&broker.url()).await;
    durable_queue(&a, "old", FieldTable::default()).await;
    durable_queue(&a, "busy", FieldTable::default()).await;
    for number in 0..5 {
        publish(&a, "", "old", format!("old-{number}").as_bytes(), 2).await;
    }
    let body = vec![7; 4_096];
    for _ in 0..40 {
        let persistent = || BasicProperties::default().with_delivery_mode(2);
        let mut waiting = Vec::new();
        for _ in 0..16 {
            waiting.push(a.basic_publish("".into(), "busy".into(), Default::default(), &body, persistent()).await.unwrap());
        }
        for confirm in join_all(waiting).await {
            assert!(confirm.unwrap().is_ack());
        }
        a.queue_purge("busy".into(), QueuePurgeOptions::default()).await.unwrap();
    }
    broker.stop().await;
    let bytes: u64 = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 10 * (64 << 10), "{bytes} bytes on disk after 2.6 MB have passed");
    let broker = Broker::start(settings).await.unwrap();
    let seen = drain(&channel(&broker.url()).await, "old").await;
    let expected: Vec<_> = (0..5).map(|number| (format!("old-{number}"), false)).collect();
    assert_eq!(seen, expected);
    broker.stop().await;
}
