//! Deliveries: run at once, asked about, resumed, dropped, revoked, moved to the dead letters, returned.

use broker_config::topology;
use clients::amqp::Outgoing;
use contract::{
    body::Format,
    message::{Answer, ControlKind, NodeOrder, Start},
    outcome::{Outcome, Stream},
    state::DeallocationOption,
};
use node_agent::{AgentError, Ending};

use crate::harness::{Harness, key, pool, task};

#[tokio::test]
async fn noop_tasks_end_without_a_process_and_are_acknowledged() {
    let mut harness = Harness::with_agent(4).await;
    for uid in 1..=300 {
        harness.release(&task(uid, ":")).await;
    }
    let mut uids = Vec::new();
    while uids.len() < 300 {
        let finished = harness.finished().await;
        assert_eq!(finished.outcome, Outcome::Exit { code: 0 });
        uids.push(finished.uid.0);
    }
    uids.sort_unstable();
    assert_eq!(uids, (1..=300).collect::<Vec<_>>());
    harness.heartbeat(|heartbeat| heartbeat.kept.is_empty() && heartbeat.live.is_empty()).await;
    assert!(!harness.root().join("workitems/job").exists());
    harness.end_agent(Ending::Drain).await.unwrap();
    assert!(harness.queue_is_empty().await);
    harness.stop().await;
}

#[tokio::test]
async fn a_question_is_answered_by_run_drop_or_wait() {
    // One slot: a delivery comes when the one before it is acknowledged.
    let mut harness = Harness::with_agent(1).await;
    let spec = task(1, "/bin/sh -c 'exit 4'").spec.unwrap();
    harness.change_script(|script| {
        script.answers.extend([Answer::Wait { ms: 1 }, Answer::Run { spec: Some(Box::new(spec)), preparation: None }])
    });
    let mut question = task(1, "/bin/sh -c 'exit 4'");
    (question.start, question.spec) = (Start::Ask, None);
    harness.release(&question).await;
    let (first, second) = (harness.asked().await, harness.asked().await);
    assert_eq!(first.run, second.run, "the same run asks again");
    let finished = harness.finished().await;
    assert_eq!((finished.run, finished.outcome), (first.run.run, Outcome::Exit { code: 4 }));
    let mut dropped = task(2, ":");
    dropped.start = Start::Ask;
    harness.release(&dropped).await;
    assert_eq!(harness.asked().await.run.key(), key(2));
    harness.release(&task(3, ":")).await;
    assert_eq!(harness.finished().await.uid.0, 3, "the dropped one never ran");
    harness.end_agent(Ending::Drain).await.unwrap();
    assert!(harness.queue_is_empty().await);
    harness.stop().await;
}

#[tokio::test]
async fn revoked_attempts_do_not_start() {
    let mut harness = Harness::with_agent(1).await;
    harness.control(ControlKind::Revoke { key: key(1) }).await;
    // The control queue is read in order: once the end of this stop-free marker is known, the revocation is.
    harness.control(ControlKind::Order(NodeOrder::Hold)).await;
    harness.change_script(|script| script.order = NodeOrder::Hold);
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming).await;
    harness.release(&task(1, ":")).await;
    harness.release(&task(2, ":")).await;
    harness.change_script(|script| script.order = NodeOrder::Work);
    assert_eq!(harness.finished().await.uid.0, 2);
    harness.stop().await;
}

#[tokio::test]
async fn what_is_no_task_goes_to_the_dead() {
    let mut harness = Harness::with_agent(2).await;
    let mut dead = harness.link.subscribe(clients::amqp::Subscription::plain(topology::DEAD_QUEUE, 10)).await.unwrap();
    let publisher = harness.link.publisher();
    let forged = Outgoing::message(topology::INVOKE, topology::pool_key(&pool()), &task(1, ":")).unwrap();
    publisher.publish(forged).await.unwrap();
    let garbage = Outgoing::raw(topology::TASKS, topology::pool_key(&pool()), vec![0xc1, 0, 1], Format::MessagePack);
    publisher.publish(garbage).await.unwrap();
    let mut newer = task(3, ":");
    newer.v = 99;
    harness.release(&newer).await;
    for _ in 0..3 {
        let delivery = dead.next().await.unwrap();
        dead.acker().ack(delivery.tag);
    }
    harness.release(&task(4, ":")).await;
    assert_eq!(harness.finished().await.uid.0, 4);
    harness.stop().await;
}

#[tokio::test]
async fn ends_are_told_again_to_a_new_dispatcher_until_recorded() {
    let mut harness = Harness::with_agent(1).await;
    harness.change_script(|script| script.records = false);
    harness.release(&task(1, ":")).await;
    let first = harness.finished().await;
    harness.heartbeat(|heartbeat| heartbeat.kept.len() == 1).await;
    harness.change_script(|script| script.boot = 2);
    assert_eq!(harness.finished().await, first);
    harness.control(ControlKind::Recorded { runs: vec![first.run] }).await;
    harness.heartbeat(|heartbeat| heartbeat.kept.is_empty()).await;
    harness.stop().await;
}

#[tokio::test]
async fn a_drain_with_requeue_stops_runs_and_says_so_last() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&task(1, "/bin/sleep 600")).await;
    harness.started().await;
    harness.change_script(|script| script.order = NodeOrder::Drain { option: DeallocationOption::Requeue });
    assert_eq!(harness.finished().await.outcome, Outcome::Stopped);
    assert!(harness.report().await.is_drained);
    // The report may be lost; heartbeats repeat it until the dispatcher has it.
    for _ in 0..2 {
        harness.heartbeat(|heartbeat| heartbeat.report.as_ref().is_some_and(|report| report.is_drained && report.number > 0)).await;
    }
    harness.release(&task(2, ":")).await;
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming).await;
    assert!(!harness.queue_is_empty().await);
    harness.change_script(|script| script.order = NodeOrder::Work);
    assert_eq!(harness.finished().await.uid.0, 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_restart_lets_runs_end_by_its_option_and_then_ends_the_agent() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&task(1, "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done; exit 7'")).await;
    harness.started().await;
    harness.change_script(|script| script.order = NodeOrder::Restart { option: DeallocationOption::TaskCompletion });
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming && heartbeat.live.len() == 1).await;
    std::fs::write(harness.root().join("shared/go"), "").unwrap();
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 7 });
    assert!(matches!(harness.agent_ends().await, Err(AgentError::Restarts)));
    harness.stop().await;
}

#[tokio::test]
async fn a_drain_on_completion_lets_runs_end() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&task(1, "/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go ]; do sleep 0.02; done; exit 7'")).await;
    harness.started().await;
    harness.change_script(|script| script.order = NodeOrder::Drain { option: DeallocationOption::TaskCompletion });
    harness.heartbeat(|heartbeat| !heartbeat.is_consuming && heartbeat.live.len() == 1).await;
    std::fs::write(harness.root().join("shared/go"), "").unwrap();
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 7 });
    assert!(harness.report().await.is_drained);
    harness.stop().await;
}

#[tokio::test]
async fn a_fenced_run_is_ended_and_tells_what_it_wrote() {
    let mut harness = Harness::with_agent(1).await;
    harness.release(&task(1, "/bin/sh -c 'echo wrote; touch $AZ_BATCH_NODE_SHARED_DIR/there; exec sleep 600'")).await;
    let run = harness.started().await.run;
    while !harness.root().join("shared/there").exists() {
        tokio::task::yield_now().await;
    }
    harness.change_script(|script| script.fenced = vec![run]);
    let finished = harness.finished().await;
    assert_eq!((finished.run, &finished.outcome), (run, &Outcome::Stopped));
    assert_eq!(finished.stdout, Stream::Inline { bytes: b"wrote\n".to_vec() });
    harness.heartbeat(|heartbeat| heartbeat.live.is_empty() && heartbeat.kept.is_empty()).await;
    harness.release(&task(2, ":")).await;
    assert_eq!(harness.finished().await.uid.0, 2);
    harness.end_agent(Ending::Drain).await.unwrap();
    assert!(harness.queue_is_empty().await);
    harness.stop().await;
}
