//! Queues of the broker at the API: counts, peeks, purges and refusals.

use broker_config::topology;
use clients::amqp::{Link, Outgoing};
use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

const POOL_QUEUE: &str = "/piecework/queues/piecework.pool.pool";
const DEAD: &str = "/piecework/queues/piecework.dead";

/// Publishes to the dead queue as a broken program would.
fn bury(dispatcher: &TestDispatcher, bodies: &[&[u8]]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let link = Link::open(dispatcher.broker.clone()).await.unwrap();
        for body in bodies {
            let message = Outgoing { body: body.to_vec(), ..Outgoing::message(topology::DEAD, "key", &()).unwrap() };
            for result in link.publisher().publish_all(vec![message]).await {
                result.unwrap();
            }
        }
        link.close().await;
    });
}

fn code(dispatcher: &TestDispatcher, method: &str, target: &str, status: u16) -> String {
    dispatcher.send(method, target, Value::Null, status).json()["code"].as_str().unwrap().to_owned()
}

#[test]
fn queues_are_listed_with_the_pools_they_serve() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let all = dispatcher.get("/piecework/queues")["value"].as_array().unwrap().clone();
    let named = |name: &str| all.iter().find(|queue| queue["name"] == name).unwrap_or_else(|| panic!("{name} is missing")).clone();
    let tasks = named("piecework.pool.pool");
    assert_eq!((&tasks["role"], &tasks["poolId"], &tasks["messages"]), (&json!("tasks"), &json!("Pool"), &json!(0)));
    assert_eq!(named("piecework.pool.pool.wide")["role"], "wideTasks");
    let events = named("piecework.events.0");
    assert_eq!((&events["role"], &events["exists"], &events["consumers"]), (&json!("internal"), &json!(true), &json!(1)));
    assert_eq!(dispatcher.get(POOL_QUEUE)["poolId"], "Pool");
}

#[test]
fn pages_of_queues_hold_whole_pools() {
    let dispatcher = TestDispatcher::start();
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    for n in 0..102 {
        let pool = json!({"id": format!("p{n:03}"), "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine});
        dispatcher.send("POST", "/pools", pool, 201);
    }
    let first = dispatcher.get("/piecework/queues");
    assert_eq!(first["value"].as_array().unwrap().len(), 6 + 200);
    let link = first["odata.nextLink"].as_str().unwrap().strip_prefix(&dispatcher.account.url).unwrap().to_owned();
    let second = dispatcher.get(&link);
    let names: Vec<_> = second["value"].as_array().unwrap().iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(
        names,
        ["piecework.pool.p100", "piecework.pool.p100.wide", "piecework.pool.p101", "piecework.pool.p101.wide"].map(Value::from)
    );
    assert_eq!(second.get("odata.nextLink"), None);
}

#[test]
fn looking_takes_nothing_and_keeps_the_order() {
    let dispatcher = TestDispatcher::start();
    bury(&dispatcher, &[b"\x81\xa1n\x01", b"\xff", b"text that is no MessagePack"]);
    for is_again in [false, true] {
        let seen = dispatcher.get(&format!("{DEAD}/messages"))["value"].as_array().unwrap().clone();
        assert_eq!(seen.len(), 3);
        assert_eq!(
            (&seen[0]["body"], &seen[0]["exchange"], &seen[0]["routingKey"]),
            (&json!({"n": 1}), &json!("piecework.dead"), &json!("key"))
        );
        assert_eq!((&seen[1]["bodyBase64"], &seen[1]["bytes"]), (&json!("/w=="), &json!(1)));
        assert_eq!(seen[0]["redelivered"], is_again);
    }
    assert_eq!(dispatcher.get(&format!("{DEAD}/messages?count=1"))["value"].as_array().unwrap().len(), 1);
    assert_eq!(dispatcher.get(DEAD)["messages"], 3);
    assert_eq!(dispatcher.send("POST", &format!("{DEAD}/purge"), Value::Null, 200).json(), json!({"purged": 3}));
    assert_eq!(dispatcher.get(DEAD)["messages"], 0);
    assert_eq!(dispatcher.get(&format!("{DEAD}/messages"))["value"], json!([]));
}

#[test]
fn the_dispatchers_own_queues_and_unknown_ones_are_refused() {
    let dispatcher = TestDispatcher::start();
    let events = "/piecework/queues/piecework.events.0";
    assert_eq!(code(&dispatcher, "POST", &format!("{events}/purge"), 409), "OperationInvalidForCurrentState");
    assert_eq!(code(&dispatcher, "GET", &format!("{events}/messages"), 409), "OperationInvalidForCurrentState");
    for target in
        ["/piecework/queues/none", POOL_QUEUE, "/piecework/queues/piecework.pool.%2e%2e", "/piecework/queues/piecework.pool.none/messages"]
    {
        assert_eq!(code(&dispatcher, "GET", target, 404), "ResourceNotFound", "{target}");
    }
    assert_eq!(code(&dispatcher, "POST", "/piecework/queues/none/purge", 404), "ResourceNotFound");
    for count in ["0", "101", "-1"] {
        assert_eq!(code(&dispatcher, "GET", &format!("{DEAD}/messages?count={count}"), 400), "OutOfRangeQueryParameterValue", "{count}");
    }
}
