//! A node kept for a task of several slots learns so from the replies to its heartbeats until the task runs.

use std::collections::HashMap;

use contract::{
    clock::Clock,
    ids::{Epoch, RunId},
    message::{Answer, Ask, Heartbeat, HeartbeatReply, Reply, RequestKind, Start, VERSION},
    spec::TaskSpec,
};
use engine::Input;
use scheduler::Timers;

use crate::{TestEngine, back, node, pool, task};

async fn heartbeat(engine: &mut TestEngine, epoch: Epoch) -> HeartbeatReply {
    let heartbeat = Heartbeat {
        v: VERSION,
        pool: pool(),
        node: node(),
        epoch,
        live: vec![],
        kept: vec![],
        free_slots: 1,
        is_consuming: true,
        job_tasks: vec![],
        report: None,
        sets_aside: None,
        invocations: 0,
    };
    engine.put(Input::Heartbeat(Box::new(heartbeat), Some(back()))).await;
    engine.heartbeat_answered.pop().expect("an answer")
}

#[tokio::test]
async fn a_kept_node_is_told_which_task_it_is_kept_for_until_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open_with(folder.path(), Clock::system(), Timers { aged_ms: 0, ..Timers::default() });
    engine.create(2, false, vec![]).await;
    let epoch = engine.join().await;
    engine
        .add(vec![task("wide", TaskSpec { command_line: "/bin/true".into(), required_slots: Some(2), ..TaskSpec::default() }, &[])])
        .await;
    assert_eq!(heartbeat(&mut engine, epoch).await.keep, None);
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let kept = heartbeat(&mut engine, epoch).await.keep.expect("the task is old enough");
    assert_eq!((kept.task.as_str(), kept.slots, kept.start, &kept.spec), ("wide", 2, Start::Ask, &None));
    let ask = Ask { run: kept.key().with(RunId(1)), node: node(), epoch, prepares: true, pool: None };
    assert!(matches!(engine.request(RequestKind::Ask(ask)).await, Reply::Answer(Answer::Run { .. })));
    assert_eq!(heartbeat(&mut engine, epoch).await.keep, None);
    engine.close().await;
}

#[tokio::test]
async fn a_kept_task_that_cannot_be_read_ends_and_the_heartbeat_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open_with(folder.path(), Clock::system(), Timers { aged_ms: 0, ..Timers::default() });
    engine.create(2, false, vec![]).await;
    let epoch = engine.join().await;
    engine
        .add(vec![task("wide", TaskSpec { command_line: "/bin/true".into(), required_slots: Some(2), ..TaskSpec::default() }, &[])])
        .await;
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    crate::damage::vandalise(folder.path(), "UPDATE tasks SET retries = 'x' WHERE uid = 1");
    assert_eq!(heartbeat(&mut engine, epoch).await.keep, None);
    assert_eq!(engine.task("wide").await.unwrap().failure.unwrap().fault.code, "TaskUnreadable");
    assert_eq!(engine.handle.refusal(), None);
    engine.close().await;
}
