//! Tokens of tasks and nodes: their readers, their permissions, and their expiry.

use std::time::{Duration, Instant};

use contract::{
    ids::RunId,
    message::{AgentEvent, Answer, Ask, Join, Reply, RequestKind, Started},
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{fake_agent::FakeAgent, nodes::idle, test_dispatcher::TestDispatcher};

const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the next attempt from the queue, starts it as this run, and gives the token it got.
fn start(agent: &FakeAgent, run: u128) -> (u32, String) {
    let message = agent.take();
    assert!(!format!("{message:?}").contains("eyJ"), "no token lies in a queue");
    let ask =
        Ask { run: message.key().with(RunId(run)), node: "n1".parse().unwrap(), epoch: agent.joined.epoch, prepares: true, pool: None };
    let Reply::Answer(Answer::Run { spec: Some(spec), .. }) = agent.ask("asks", RequestKind::Ask(ask)) else { panic!("a run") };
    let token = spec.environment_settings.iter().find(|setting| setting.name == "AZ_BATCH_AUTHENTICATION_TOKEN").unwrap();
    let started = Started { uid: message.uid, attempt: message.attempt, fence: message.fence, run: RunId(run), at: Timestamp::now() };
    agent.happen(AgentEvent::Started(started));
    (message.attempt, token.value.clone().unwrap())
}

fn opens(dispatcher: &TestDispatcher, token: &str) -> u16 {
    dispatcher.ask_as(token, "GET", "/jobs/Job", &Value::Null).status
}

fn becomes(dispatcher: &TestDispatcher, state: &str) {
    let deadline = Instant::now() + PATIENCE;
    while dispatcher.get("/jobs/Job/tasks/t")["state"] != state {
        assert!(Instant::now() < deadline, "the task is never {state}: {}", dispatcher.get("/jobs/Job/tasks/t"));
    }
}

#[test]
fn a_tasks_token_opens_neither_a_later_attempt_nor_a_later_task_of_the_same_names() {
    let dispatcher = TestDispatcher::start();
    let mut agent = idle(&dispatcher);
    let task = json!({"id": "t", "commandLine": "x", "authenticationTokenSettings": {"access": ["job"]}});
    dispatcher.send("POST", "/jobs/Job/tasks", task.clone(), 201);
    let (first, old) = start(&agent, 1);
    becomes(&dispatcher, "running");
    assert_eq!(opens(&dispatcher, &old), 200);
    // The node starts anew: its run is lost, and the task is tried again.
    agent.restart();
    agent.happen(AgentEvent::Node(contract::message::NodeReport {
        state: contract::state::NodeState::Idle,
        start_task: None,
        fault: None,
        is_drained: false,
        at: Timestamp::now(),
        number: 0,
    }));
    let (second, newer) = start(&agent, 2);
    assert_eq!((first, second), (1, 2));
    becomes(&dispatcher, "running");
    assert_eq!((opens(&dispatcher, &old), opens(&dispatcher, &newer)), (401, 200), "the first attempt has ended");
    dispatcher.send("DELETE", "/jobs/Job/tasks/t", Value::Null, 200);
    assert_eq!(opens(&dispatcher, &newer), 401);
    dispatcher.send("POST", "/jobs/Job/tasks", task, 201);
    let (_, other) = start(&agent, 3);
    becomes(&dispatcher, "running");
    assert_eq!(
        [opens(&dispatcher, &old), opens(&dispatcher, &newer), opens(&dispatcher, &other)],
        [401, 401, 200],
        "the names are those of another task"
    );
}

#[test]
fn a_join_token_is_told_to_who_created_the_node_and_to_nobody_else() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    let pool: contract::ids::PoolId = "Pool".parse().unwrap();
    let Reply::Nodes { nodes } = agent.ask("scale", RequestKind::CreateNodes { pool: pool.clone(), count: 1 }) else { panic!("a node") };
    let snapshot = agent.ask("scale", RequestKind::Snapshot);
    let shown = serde_json::to_string(&contract::message::ReplyMessage { v: contract::message::VERSION, what: snapshot }).unwrap();
    assert!(shown.contains(nodes[0].node.as_str()), "{shown}");
    assert!(!shown.contains(&nodes[0].token), "the snapshot tells the token: {shown}");
    let join = |token: &str| {
        let (address, version) = ("10.1.2.4".into(), "test".into());
        let join = Join { pool: pool.clone(), node: nodes[0].node.clone(), token: token.into(), epoch: None, address, cores: 1, version };
        agent.ask("asks", RequestKind::Join(join))
    };
    let Reply::Joined(by_secret) = join("join") else { panic!("the pool's secret lets nodes in") };
    assert_ne!(by_secret.credential, nodes[0].token, "who knows the secret alone does not learn the token");
    let Reply::Joined(by_token) = join(&nodes[0].token) else { panic!("its own token lets the node in") };
    assert_eq!(by_token.credential, nodes[0].token);
    assert!(matches!(join("wrong"), Reply::Refused(_)));
}
