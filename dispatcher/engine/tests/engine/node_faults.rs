//! A node that cannot run tasks by its own fault: the task runs again, and the node is paused and says why.

use std::collections::HashMap;

use contract::{
    outcome::{Fault, Outcome},
    state::{NodeState, TaskState},
};
use engine::Input;
use store::{read::Read, rows::NodeRow};

use crate::{Rig, finished, node, plain, pool};

/// The code of the node's fault while it is paused.
const PAUSED: &str = "NodePausedAfterFaults";

async fn row(rig: &Rig) -> NodeRow {
    rig.read.node(&pool(), &node(), &[]).await.unwrap().unwrap()
}

async fn paused(rig: &Rig) -> Vec<String> {
    row(rig).await.faults.into_iter().filter(|fault| fault.code == PAUSED).map(|fault| fault.message).collect()
}

fn read_only() -> Outcome {
    let details = vec![("Reason".to_owned(), "Read-only file system (os error 30)".to_owned())];
    Outcome::Node(Fault { code: "NodeError".to_owned(), message: "the task's folder cannot be made".to_owned(), details })
}

#[tokio::test]
async fn a_nodes_fault_costs_its_task_nothing_and_is_shown_on_the_node_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    rig.add(vec![plain("t")]).await;
    let message = rig.published.pop().unwrap();
    rig.events(epoch, vec![finished(&message, 1, read_only())]).await;
    let task = rig.task("t").await.unwrap();
    assert_eq!((task.state, task.retry_count, task.requeue_count), (TaskState::Active, 0, 0));
    assert!(rig.published.is_empty(), "the only node is paused");
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let shown = paused(&rig).await;
    assert!(shown.len() == 1 && shown[0].contains("1 times in a row") && shown[0].contains("folder cannot be made"), "{shown:?}");
    rig.close().await;

    let mut rig = Rig::open(folder.path());
    rig.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert_ne!(row(&rig).await.state, NodeState::Unusable);
    assert_eq!(paused(&rig).await, [""; 0]);
    assert_eq!(rig.published.pop().expect("the pause is forgotten with the restart").attempt, 2);
    rig.close().await;
}
