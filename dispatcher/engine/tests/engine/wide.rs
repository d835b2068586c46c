//! A node that is kept for a task of several slots: told with the answers to its heartbeats, until the task runs.

use std::collections::HashMap;

use contract::{
    clock::Clock,
    ids::{Epoch, RunId},
    message::{Answer, Ask, Heartbeat, HeartbeatReply, Reply, RequestKind, Start, VERSION},
    spec::TaskSpec,
};
use engine::Input;
use scheduler::Timers;

use crate::{Rig, back, node, pool, task};

async fn heartbeat(rig: &mut Rig, epoch: Epoch) -> HeartbeatReply {
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
    rig.put(Input::Heartbeat(Box::new(heartbeat), Some(back()))).await;
    rig.heartbeat_answered.pop().expect("an answer")
}

#[tokio::test]
async fn a_kept_node_is_told_which_task_it_is_kept_for_until_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with(folder.path(), Clock::system(), Timers { aged_ms: 0, ..Timers::default() });
    rig.create(2, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![task("wide", TaskSpec { command_line: "/bin/true".into(), required_slots: Some(2), ..TaskSpec::default() }, &[])]).await;
    assert_eq!(heartbeat(&mut rig, epoch).await.keep, None);
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let kept = heartbeat(&mut rig, epoch).await.keep.expect("the task is old enough");
    assert_eq!((kept.task.as_str(), kept.slots, kept.start, &kept.spec), ("wide", 2, Start::Ask, &None));
    let ask = Ask { run: kept.key().with(RunId(1)), node: node(), epoch, prepares: true, pool: None };
    assert!(matches!(rig.request(RequestKind::Ask(ask)).await, Reply::Answer(Answer::Run { .. })));
    assert_eq!(heartbeat(&mut rig, epoch).await.keep, None);
    rig.close().await;
}

#[tokio::test]
async fn a_kept_task_that_cannot_be_read_ends_and_the_heartbeat_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open_with(folder.path(), Clock::system(), Timers { aged_ms: 0, ..Timers::default() });
    rig.create(2, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![task("wide", TaskSpec { command_line: "/bin/true".into(), required_slots: Some(2), ..TaskSpec::default() }, &[])]).await;
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    crate::damage::vandalise(folder.path(), "UPDATE tasks SET retries = 'x' WHERE uid = 1");
    assert_eq!(heartbeat(&mut rig, epoch).await.keep, None);
    assert_eq!(rig.task("wide").await.unwrap().failure.unwrap().fault.code, "TaskUnreadable");
    assert_eq!(rig.engine.refusal(), None);
    rig.close().await;
}
