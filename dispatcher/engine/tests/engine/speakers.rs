//! Only the node and the agent start that own a run may report on it, by events or by heartbeats.

use contract::{
    ids::Epoch,
    message::{Heartbeat, StartTaskEnd},
    outcome::Fault,
    state::DeallocationOption,
};

use super::*;

impl TestEngine {
    /// A heartbeat of the node.
    pub(super) async fn heartbeat(&mut self, epoch: Epoch, live: &[(&TaskMessage, u128)], report: Option<NodeReport>) {
        let live = live.iter().map(|(message, run)| message.key().with(RunId(*run))).collect();
        let (pool, node) = (pool(), node());
        let heartbeat = Heartbeat {
            v: VERSION,
            pool,
            node,
            epoch,
            live,
            kept: vec![],
            free_slots: 0,
            is_consuming: true,
            job_tasks: vec![],
            report,
            sets_aside: None,
            invocations: 0,
        };
        self.put(Input::Heartbeat(Box::new(heartbeat), None)).await;
    }

    /// An event as somebody claims to send it.
    async fn claim(&mut self, node: &str, epoch: Epoch, event: AgentEvent) {
        self.delivery += 1;
        let batch = EventBatch { v: VERSION, pool: pool(), node: node.parse().unwrap(), epoch, events: vec![event] };
        self.put(Input::Events { batch, tag: Tag { generation: 1, number: self.delivery } }).await;
    }

    async fn may_publish(&mut self, message: &TaskMessage, node: &str, epoch: Epoch) -> bool {
        let run = message.key().with(RunId(1));
        match self.request(RequestKind::MayPublish { run, node: node.parse().unwrap(), epoch, pool: None }).await {
            Reply::MayPublish { allowed } => allowed,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_but_a_runs_own_node_and_start_speaks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    let other = match engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await {
        Reply::Nodes { nodes } => nodes[0].node.clone(),
        other => panic!("{other:?}"),
    };
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    let success = finished(&message, 1, Outcome::Exit { code: 0 });
    // Nobody owns the task yet.
    for (node, epoch) in [("no-such-node", Epoch(1)), (other.as_str(), Epoch(1)), ("node-0001", Epoch(epoch.0 + 1))] {
        engine.claim(node, epoch, started(&message, 1)).await;
        engine.claim(node, epoch, success.clone()).await;
        assert!(!engine.may_publish(&message, node, epoch).await);
        assert_eq!(engine.task("t").await.unwrap().state, TaskState::Active, "{node}");
    }
    engine.events(epoch, vec![started(&message, 1)]).await;
    for (node, epoch) in [("no-such-node", Epoch(1)), (other.as_str(), epoch), ("node-0001", Epoch(epoch.0 + 1))] {
        engine.claim(node, epoch, success.clone()).await;
        assert!(!engine.may_publish(&message, node, epoch).await);
        let ask = Ask { run: message.key().with(RunId(1)), node: node.parse().unwrap(), epoch, prepares: true, pool: None };
        assert!(!matches!(engine.request(RequestKind::Ask(ask)).await, Reply::Answer(Answer::Run { .. })), "{node} gets the spec");
        assert_eq!(engine.task("t").await.unwrap().state, TaskState::Running, "{node}");
    }
    assert!(engine.may_publish(&message, "node-0001", epoch).await);
    // Names of nodes are unique within a pool only.
    let run = message.key().with(RunId(1));
    for (pool, expected) in [("other", false), ("POOL", true)] {
        let what = RequestKind::MayPublish { run, node: node(), epoch, pool: Some(pool.parse().unwrap()) };
        assert_eq!(engine.request(what).await, Reply::MayPublish { allowed: expected }, "{pool}");
        let ask = Ask { run, node: node(), epoch, prepares: true, pool: Some(pool.parse().unwrap()) };
        let answer = engine.request(RequestKind::Ask(ask)).await;
        assert_eq!(!matches!(answer, Reply::Answer(Answer::Drop)), expected, "{pool}: {answer:?}");
    }
    engine.events(epoch, vec![success]).await;
    assert_eq!(engine.task("t").await.unwrap().has_succeeded, Some(true));
    engine.close().await;
}

#[tokio::test]
async fn a_run_whose_start_was_lost_is_known_by_its_heartbeats() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.heartbeat(Epoch(epoch.0 + 1), &[(&message, 1)], None).await;
    assert_eq!(engine.task("t").await.unwrap().state, TaskState::Active, "of another start");
    engine.heartbeat(epoch, &[(&message, 1)], None).await;
    assert_eq!(engine.task("t").await.unwrap().state, TaskState::Running);
    let ask = Ask { run: message.key().with(RunId(2)), node: "node-0002".parse().unwrap(), epoch: Epoch(1), prepares: true, pool: None };
    let answer = engine.request(RequestKind::Ask(ask)).await;
    assert!(!matches!(answer, Reply::Answer(Answer::Run { .. })), "nobody else gets it: {answer:?}");
    // The start was only late: it tells when the run began.
    let AgentEvent::Started(mut late) = started(&message, 1) else { panic!() };
    late.at = Timestamp(1_000);
    engine.events(epoch, vec![AgentEvent::Started(late)]).await;
    assert_eq!(engine.task("t").await.unwrap().started_at, Some(Timestamp(1_000)));
    engine.close().await;
}

#[tokio::test]
async fn what_a_node_reports_is_known_by_its_heartbeats_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    let report = |number, state| NodeReport { state, start_task: None, fault: None, is_drained: false, at: Timestamp::now(), number };
    let fault = Fault { code: "DiskFull".into(), message: "full".into(), details: vec![] };
    let at = Timestamp::now();
    let end = StartTaskEnd { started_at: at, ended_at: at, outcome: Outcome::Exit { code: 3 }, retries: 0, retried_at: None };
    let failed = NodeReport { start_task: Some(end.clone()), ..report(2, NodeState::StartTaskFailed) };
    engine.heartbeat(epoch, &[], Some(failed)).await;
    let row = engine.read.node(&pool(), &node(), &[]).await.unwrap().unwrap();
    assert_eq!((row.state, row.start_task), (NodeState::StartTaskFailed, Some(end)));
    engine.heartbeat(epoch, &[], Some(NodeReport { fault: Some(fault.clone()), ..report(3, NodeState::Unusable) })).await;
    engine.heartbeat(epoch, &[], Some(report(2, NodeState::Idle))).await;
    let row = engine.read.node(&pool(), &node(), &[]).await.unwrap().unwrap();
    assert_eq!((row.state, row.faults), (NodeState::Unusable, vec![fault]), "an older report changes nothing");
    engine.close().await;
}

#[tokio::test]
async fn a_drain_whose_end_was_lost_ends_with_the_next_heartbeat_but_never_before_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&message, 1)]).await;
    let option = DeallocationOption::TaskCompletion;
    engine.request(RequestKind::DrainNode { pool: pool(), node: node(), option }).await;
    let report = NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: true, at: Timestamp::now(), number: 2 };
    // The heartbeat overtakes the end of the last run.
    engine.heartbeat(epoch, &[], Some(report.clone())).await;
    assert_eq!(engine.task("t").await.unwrap().state, TaskState::Running);
    engine.events(epoch, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.task("t").await.unwrap().has_succeeded, Some(true));
    engine.heartbeat(epoch, &[], Some(report)).await;
    let Reply::Snapshot { pools, .. } = engine.request(RequestKind::Snapshot).await else { panic!() };
    assert!(pools[0].nodes[0].is_drained);
    engine.close().await;
}
