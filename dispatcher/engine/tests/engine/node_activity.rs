//! Readers see the latest activity of nodes although reading writes nothing.

use contract::{outcome::Outcome, state::NodeState};
use store::read::Read;

use crate::{TestEngine, finished, node, plain, pool, started};

#[tokio::test]
async fn readers_learn_what_a_node_did_last_and_its_row_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    assert!(engine.handle.node_activity(vec![pool()]).await[&pool()].is_empty(), "the row shows everything");

    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(epoch, vec![started(&message, 1)]).await;
    let stored = engine.read.node(&pool(), &node(), &[]).await.unwrap().unwrap();
    let activity = engine.handle.node_activity(vec![pool(), "none".parse().unwrap()]).await.remove(&pool()).unwrap();
    assert_eq!(activity.iter().map(|active| (&active.id, active.state)).collect::<Vec<_>>(), [(&node(), NodeState::Running)]);
    assert_eq!(stored.state, NodeState::Idle, "busy nodes are written with the next flush, and no tick came");
    assert_eq!(engine.read.node(&pool(), &node(), &[]).await.unwrap().unwrap(), stored, "reading wrote nothing");

    engine.events(epoch, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    let activity = engine.handle.node_activity(vec![pool()]).await.remove(&pool()).unwrap();
    let shown = engine.read.node(&pool(), &node(), &activity).await.unwrap().unwrap();
    assert_eq!((shown.tasks_run, shown.tasks_succeeded, shown.recent.as_slice()), (1, 1, &[message.uid][..]));
    engine.close().await;
}
