//! Tasks of several slots: slots reserved by the agent, slots kept by the dispatcher, deliveries returned.

use std::path::Path;

use contract::{
    message::{Answer, ControlKind, Start, TaskMessage, Verdict},
    outcome::Outcome,
};

use crate::harness::{Harness, key, task};

/// Runs until the file `go-UID` is there.
fn waiting(uid: u64) -> TaskMessage {
    task(uid, &format!("/bin/sh -c 'until [ -e $AZ_BATCH_NODE_SHARED_DIR/go-{uid} ]; do sleep 0.02; done'"))
}

fn let_end(root: &Path, uid: u64) {
    std::fs::write(root.join(format!("shared/go-{uid}")), "").unwrap();
}

fn question(uid: u64, command_line: &str, slots: u32) -> TaskMessage {
    TaskMessage { start: Start::Ask, slots, ..task(uid, command_line) }
}

fn run() -> Answer {
    Answer::Run { spec: None, preparation: None }
}

#[tokio::test]
async fn a_wide_task_gets_its_slots_and_gives_them_back() {
    let mut harness = Harness::with_agent(3).await;
    harness.release(&waiting(1)).await;
    harness.started().await;
    harness.change_script(|script| script.answers.push_back(run()));
    harness.release(&question(2, "/bin/sleep 600", 3)).await;
    let_end(&harness.root(), 1);
    assert_eq!(harness.asked().await.run.key(), key(2));
    harness.heartbeat(|heartbeat| heartbeat.free_slots == 0 && heartbeat.live.len() == 1).await;
    harness.release(&task(3, "/bin/true")).await;
    let run = harness.heartbeat(|heartbeat| heartbeat.free_slots == 0).await.live[0].run;
    harness.control(ControlKind::Stop { run, verdict: Verdict::Stop }).await;
    let ends = [harness.finished().await, harness.finished().await, harness.finished().await].map(|end| (end.uid.0, end.outcome));
    assert_eq!(ends, [(1, Outcome::Exit { code: 0 }), (2, Outcome::Stopped), (3, Outcome::Exit { code: 0 })]);
    harness.stop().await;
}

#[tokio::test]
async fn a_kept_node_starts_nothing_else_until_the_task_it_is_kept_for_runs_without_a_delivery() {
    let mut harness = Harness::with_agent(2).await;
    for uid in [1, 2] {
        harness.release(&waiting(uid)).await;
        harness.started().await;
    }
    harness.change_script(|script| {
        script.keep = Some(Box::new(TaskMessage { start: Start::Ask, slots: 2, ..waiting(9) }));
        script.answers.push_back(run());
    });
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 2).await;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 2).await;
    harness.release(&task(3, "/bin/true")).await;
    let_end(&harness.root(), 1);
    assert_eq!(harness.finished().await.uid.0, 1);
    harness.heartbeat(|heartbeat| heartbeat.free_slots == 1).await;
    assert!(harness.asked.is_empty() && !harness.queue_is_empty().await, "one free slot is not enough, and nobody else gets it");
    let_end(&harness.root(), 2);
    assert_eq!(harness.finished().await.uid.0, 2);
    let asked = harness.asked().await;
    assert_eq!(asked.run.key(), key(9));
    harness.change_script(|script| script.keep = None);
    for _ in 0..2 {
        harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    }
    // A delivery that came while a slot was being closed was returned, and becomes a question when it comes again.
    harness.change_script(|script| script.answers.push_back(run()));
    let_end(&harness.root(), 9);
    let ends = [harness.finished().await, harness.finished().await].map(|end| (end.uid.0, end.outcome));
    assert_eq!(ends, [9, 3].map(|uid| (uid, Outcome::Exit { code: 0 })), "the slots are free for others only after it");
    harness.stop().await;
}

#[tokio::test]
async fn a_node_that_is_kept_no_longer_takes_tasks_again() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&waiting(1)).await;
    harness.started().await;
    harness.change_script(|script| script.keep = Some(Box::new(question(9, "/bin/true", 2))));
    for _ in 0..2 {
        harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    }
    harness.release(&task(2, "/bin/true")).await;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    assert!(!harness.queue_is_empty().await);
    harness.change_script(|script| script.keep = None);
    assert_eq!(harness.finished().await.uid.0, 2);
    // A task that is revoked is not kept for either, whatever an old answer says.
    harness.control(ControlKind::Revoke { key: key(9) }).await;
    harness.change_script(|script| script.keep = Some(Box::new(question(9, "/bin/true", 2))));
    harness.release(&task(3, "/bin/true")).await;
    assert_eq!(harness.finished().await.uid.0, 3);
    let_end(&harness.root(), 1);
    assert_eq!(harness.finished().await.uid.0, 1);
    assert!(harness.asked.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn a_task_that_comes_by_the_queue_to_the_node_kept_for_it_runs_once_and_its_delivery_is_settled() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&waiting(1)).await;
    harness.started().await;
    let wide = question(9, "/bin/true", 2);
    harness.release(&wide).await;
    harness.change_script(|script| {
        script.keep = Some(Box::new(wide.clone()));
        script.answers.push_back(run());
    });
    for _ in 0..2 {
        harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    }
    let_end(&harness.root(), 1);
    assert_eq!(harness.asked().await.run.key(), key(9));
    harness.change_script(|script| script.keep = None);
    let ends = [harness.finished().await, harness.finished().await].map(|end| end.uid.0);
    assert_eq!(ends, [1, 9]);
    harness.heartbeat(|heartbeat| heartbeat.kept.is_empty() && heartbeat.live.is_empty()).await;
    harness.end_agent(node_agent::Ending::Drain).await.unwrap();
    let wide_queue = broker_config::topology::wide_queue(&crate::harness::pool());
    assert_eq!(harness.link.depth(&wide_queue).await.unwrap().unwrap().ready, 0);
    harness.stop().await;
}

#[tokio::test]
async fn slots_that_are_set_aside_in_vain_are_free_with_the_next_heartbeat() {
    let mut harness = Harness::with_agent(2).await;
    harness.release(&waiting(1)).await;
    harness.started().await;
    harness.release(&question(9, "/bin/true", 2)).await;
    harness.heartbeat(|heartbeat| heartbeat.sets_aside == Some(key(9))).await;
    harness.release(&task(2, "/bin/true")).await;
    harness.heartbeat(|heartbeat| heartbeat.live.len() == 1).await;
    harness.change_script(|script| script.unwanted = Some(key(9)));
    assert_eq!(harness.finished().await.uid.0, 2);
    harness.heartbeat(|heartbeat| heartbeat.sets_aside.is_none()).await;
    let_end(&harness.root(), 1);
    assert_eq!(harness.finished().await.uid.0, 1);
    assert!(harness.asked.is_empty(), "its delivery was dropped");
    harness.stop().await;
}
