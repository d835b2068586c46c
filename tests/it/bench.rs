//! `bench` removes all that it created on servers and brokers of other people.

use std::{collections::BTreeSet, process::Command, time::Duration};

use broker_config::{
    settings::{BrokerSettings, Secret},
    topology::{self, Queue, Topology},
};
use clients::amqp::{Link, Subscription};
use contract::ids::PoolId;
use embedded_broker::{Broker, Settings};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stack::{PIECEWORK, Stack, text, wait_for};

const WAIT_MAX: Duration = Duration::from_secs(60);

#[test]
fn an_interrupted_bench_takes_what_it_made_with_it() {
    let stack = Stack::start();
    let list = |what: &str| -> Vec<Value> {
        let out = stack.command().args(["--json", what, "list"]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", text(&out)))
    };
    let mut bench = stack.command().args(["bench", "--tasks", "20000"]).spawn().unwrap();
    wait_for(WAIT_MAX, || (list("job").len() == 1).then_some(())).expect("a job of the bench");
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    assert_eq!(bench.wait().unwrap().code(), Some(130));
    assert_eq!((list("job"), list("pool"), list("queue").iter().filter(|queue| queue["poolId"].is_string()).count()), (vec![], vec![], 0));
    stack.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_on_somebody_elses_broker_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(Settings::new(([127, 0, 0, 1], 0).into(), folder.path(), "guest", "guest")).await.unwrap();
    let settings = BrokerSettings { url: Secret::new(broker.url()), name: "test".to_owned() };
    let bench = async || {
        let mut command = Command::new(PIECEWORK);
        command.args(["bench", "--tasks", "20", "--singles", "2", "--broker", &broker.url()]).env_remove("PIECEWORK_SERVER");
        let out = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(out.status.success(), "{:?}", text(&out));
    };

    bench().await;
    let link = Link::open(settings).await.unwrap();
    assert_eq!(link.depth(topology::EVENT_QUEUE).await.unwrap(), None, "what was made for the bench is gone");

    // What was there stays, and only the pools' own queues go.
    link.declare(&topology::base()).await.unwrap();
    let spy = Queue { name: "spy".to_owned(), arguments: vec![], bindings: vec![(topology::EVENTS, "node.#".to_owned())] };
    link.declare(&Topology { exchanges: vec![], queues: vec![spy] }).await.unwrap();
    bench().await;
    let mut told = link.subscribe(Subscription::plain("spy", 1_000)).await.unwrap();
    let mut pools = BTreeSet::new();
    for _ in 0..link.depth("spy").await.unwrap().map_or(0, |depth| depth.ready).max(1) {
        let delivery = tokio::time::timeout(WAIT_MAX, told.next()).await.expect("an event").expect("a consumer");
        pools.extend(delivery.routing_key.split('.').nth(1).map(str::to_owned));
    }
    assert!(!pools.is_empty());
    for pool in pools {
        let pool: PoolId = pool.parse().unwrap();
        for queue in [topology::pool_queue(&pool), topology::wide_queue(&pool)] {
            assert_eq!(link.depth(&queue).await.unwrap(), None, "{queue}");
        }
    }
    assert!(link.depth(topology::EVENT_QUEUE).await.unwrap().is_some());
    link.close().await;
    broker.stop().await;
}

#[test]
fn a_bench_on_the_broker_of_a_running_stack_is_refused_and_disturbs_nothing() {
    let stack = Stack::start();
    let gate = stack.scratch().join("gate");
    let waits = format!("while [ ! -e {} ]; do sleep 0.1; done", gate.display());
    let mut run = stack.command().args(["run", "--", "/bin/sh", "-c", &waits]).spawn().unwrap();
    let tasks = || -> Vec<Value> {
        let out = stack.command().args(["--json", "job", "list"]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    };
    wait_for(WAIT_MAX, || (!tasks().is_empty()).then_some(())).expect("a job");
    let mut bench = Command::new(PIECEWORK);
    bench.args(["bench", "--tasks", "20", "--singles", "2", "--broker", &stack.ready.broker]).env_remove("PIECEWORK_SERVER");
    let out = bench.output().unwrap();
    assert!(out.status.code() == Some(8) && text(&out).1.contains("another dispatcher serves from this broker"), "{:?}", text(&out));
    std::fs::write(&gate, "").unwrap();
    assert!(run.wait().unwrap().success());
    stack.stop();
}
