//! Dead letters through the API: found by filter, shown, replayed where they came from, discarded; the others stay in order.

use std::time::{Duration, Instant};

use broker_config::topology;
use clients::amqp::{Link, Outgoing};
use contract::body::Format;
use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

/// Fails a test that waits forever; nothing in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const DEAD: &str = "/piecework/dead";

/// Publishes these messages.
fn publish(dispatcher: &TestDispatcher, messages: Vec<Outgoing>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let link = Link::open(dispatcher.broker.clone()).await.unwrap();
        for result in link.publisher().publish_all(messages).await {
            result.unwrap();
        }
        link.close().await;
    });
}

fn submission(pool: &str, id: &str) -> Outgoing {
    let body = format!(r#"{{"id": "{id}", "commandLine": "x"}}"#);
    Outgoing::raw(topology::SUBMIT, pool, body.into_bytes(), Format::Json).id(id).header("mine", "kept")
}

fn letters(dispatcher: &TestDispatcher, query: &str) -> Vec<Value> {
    dispatcher.get(&format!("{DEAD}{query}"))["value"].as_array().unwrap().clone()
}

/// The letters once there are this many.
fn dead(dispatcher: &TestDispatcher, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let found = letters(dispatcher, "");
        if found.len() == count {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{} of {count} letters: {found:?}", found.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ids(letters: &[Value]) -> Vec<&str> {
    letters.iter().map(|letter| letter["messageId"].as_str().unwrap_or_default()).collect()
}

#[test]
fn refused_submissions_are_found_shown_replayed_and_discarded() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for id in ["a", "b", "c", "d"] {
        publish(&dispatcher, vec![submission(if id == "c" { "other" } else { "late" }, id)]);
        dead(&dispatcher, usize::from(id.as_bytes()[0] - b'a') + 1);
    }
    let all = dead(&dispatcher, 4);
    assert_eq!(ids(&all), ["a", "b", "c", "d"], "the oldest first");
    assert_eq!((&all[0]["kind"], &all[0]["reason"], &all[0]["poolId"]), (&json!("submission"), &json!("PoolNotFound"), &json!("late")));
    assert_eq!((&all[0]["exchange"], &all[0]["routingKey"], all[0].get("body")), (&json!("piecework.submit"), &json!("late"), None));
    let id = |index: usize| all[index]["id"].as_str().unwrap().to_owned();
    let shown = dispatcher.get(&format!("{DEAD}/{}", id(1)));
    assert_eq!((&shown["body"]["id"], &shown["headers"]), (&json!("b"), &json!({"mine": "kept"})));

    for (query, found) in [
        ("?pool=OTHER", vec!["c"]),
        ("?pool=late&reason=poolnotfound", vec!["a", "b", "d"]),
        ("?kind=function", vec![]),
        ("?kind=submission&count=2", vec!["a", "b"]),
        ("?function=f", vec![]),
        ("?newerthan=PT1H", vec!["a", "b", "c", "d"]),
        ("?olderthan=PT1H", vec![]),
    ] {
        assert_eq!(ids(&letters(&dispatcher, query)), found, "{query}");
    }
    for query in ["?poool=late", "?kind=letter", "?olderthan=long", "?count=0", "?$filter=x"] {
        dispatcher.send("GET", &format!("{DEAD}{query}"), Value::Null, 400);
    }
    for target in ["replay", "discard", "replay?all=false", "replay?all=true&pool=late", "discard?poool=late"] {
        dispatcher.send("POST", &format!("{DEAD}/{target}"), Value::Null, 400);
    }
    let missing = dispatcher.send("DELETE", &format!("{DEAD}/0000"), Value::Null, 404).json();
    assert_eq!(missing["code"], "ResourceNotFound");

    // One is discarded, and the others keep their order.
    dispatcher.send("DELETE", &format!("{DEAD}/{}", id(1)), Value::Null, 204);
    assert_eq!(ids(&letters(&dispatcher, "")), ["a", "c", "d"]);

    // Replayed while the pool is still missing they come back, once, and at the end.
    let again = dispatcher.send("POST", &format!("{DEAD}/{}/replay", id(0)), Value::Null, 200).json();
    assert_eq!((&again["replayed"], &again["unreplayedCount"]), (&json!(1), &json!(0)));
    assert_eq!(ids(&dead(&dispatcher, 3)), ["c", "d", "a"]);
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let pool = json!({"id": "late", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine});
    dispatcher.send("POST", "/pools", pool, 201);
    let replayed = dispatcher.send("POST", &format!("{DEAD}/replay?pool=late"), Value::Null, 200).json();
    assert_eq!((&replayed["replayed"], &replayed["looked"], &replayed["left"]), (&json!(2), &json!(3), &json!(0)));
    assert_eq!(ids(&dead(&dispatcher, 1)), ["c"]);
    let began = Instant::now();
    for id in ["a", "d"] {
        while dispatcher.ask("GET", &format!("/jobs/queue-late/tasks/{id}"), &[], &Value::Null).status != 200 {
            assert!(began.elapsed() < PATIENCE, "the task of {id} is added");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let discarded = dispatcher.send("POST", &format!("{DEAD}/discard?all=true"), Value::Null, 200).json();
    assert_eq!((&discarded["discarded"], letters(&dispatcher, "").len()), (&json!(1), 0));
}

#[test]
fn what_the_broker_moved_goes_back_and_what_came_from_elsewhere_stays() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    // No node takes it before its time is over.
    let mut late = Outgoing::raw(topology::INVOKE, "pool", b"\xff\xfe".to_vec(), Format::Json).of_kind("f").id("late");
    late.expiration_ms = Some(1);
    let foreign = Outgoing::raw(topology::DEAD, "key", b"text".to_vec(), Format::Json).id("foreign");
    publish(&dispatcher, vec![foreign]);
    publish(&dispatcher, vec![late]);
    let found = dead(&dispatcher, 2);
    assert_eq!(ids(&found), ["foreign", "late"]);
    assert_eq!((&found[0]["kind"], &found[1]["kind"], &found[1]["reason"]), (&json!("other"), &json!("function"), &json!("expired")));
    assert_eq!((&found[1]["function"], &found[1]["poolId"]), (&json!("f"), &json!("pool")));
    let shown = dispatcher.get(&format!("{DEAD}/{}", found[1]["id"].as_str().unwrap()));
    assert_eq!((&shown["bodyBase64"], shown.get("body")), (&json!("//4="), None));
    let replayed = dispatcher.send("POST", &format!("{DEAD}/replay?all=true"), Value::Null, 200).json();
    assert_eq!((&replayed["replayed"], &replayed["unreplayed"][0]["id"]), (&json!(1), &found[0]["id"]));
    assert_eq!(ids(&letters(&dispatcher, "")), ["foreign"]);
    let waiting = dispatcher.get("/piecework/queues/piecework.pool.pool/messages")["value"].clone();
    assert_eq!((&waiting[0]["messageId"], waiting[0].get("expiration")), (&json!("late"), None), "its time begins anew without an end");
}
