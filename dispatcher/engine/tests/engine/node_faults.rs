//! A node that cannot run tasks by its own fault: the task runs again, and the node is paused and says why.

use std::collections::HashMap;

use contract::{
    outcome::{Fault, Outcome},
    state::{NodeState, TaskState},
};
use engine::Input;
use store::{read::Read, rows::NodeRow};

use crate::{TestEngine, finished, node, plain, pool};

/// The code of the node's fault while it is paused.
const PAUSED: &str = "NodePausedAfterFaults";

async fn row(engine: &TestEngine) -> NodeRow {
    engine.read.node(&pool(), &node(), &[]).await.unwrap().unwrap()
}

async fn paused(engine: &TestEngine) -> Vec<String> {
    row(engine).await.faults.into_iter().filter(|fault| fault.code == PAUSED).map(|fault| fault.message).collect()
}

fn read_only() -> Outcome {
    let details = vec![("Reason".to_owned(), "Read-only file system (os error 30)".to_owned())];
    Outcome::Node(Fault { code: "NodeError".to_owned(), message: "the task's folder cannot be made".to_owned(), details })
}

#[tokio::test]
async fn a_nodes_fault_costs_its_task_nothing_and_is_shown_on_the_node_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![finished(&message, 1, read_only())]).await;
    let task = engine.task("t").await.unwrap();
    assert_eq!((task.state, task.retry_count, task.requeue_count), (TaskState::Active, 0, 0));
    assert!(engine.published.is_empty(), "the only node is paused");
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let shown = paused(&engine).await;
    assert!(shown.len() == 1 && shown[0].contains("1 times in a row") && shown[0].contains("folder cannot be made"), "{shown:?}");
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert_ne!(row(&engine).await.state, NodeState::Unusable);
    assert_eq!(paused(&engine).await, [""; 0]);
    assert_eq!(engine.published.pop().expect("the pause is forgotten with the restart").attempt, 2);
    engine.close().await;
}
