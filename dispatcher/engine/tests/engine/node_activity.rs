//! What nodes did last, as readers get it: without a write.

use contract::{outcome::Outcome, state::NodeState};
use store::read::Read;

use crate::{Rig, finished, node, plain, pool, started};

#[tokio::test]
async fn readers_learn_what_a_node_did_last_and_its_row_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(folder.path());
    rig.create(1, false, vec![]).await;
    let epoch = rig.join().await;
    assert!(rig.engine.node_activity(vec![pool()]).await[&pool()].is_empty(), "the row shows everything");

    rig.add(vec![plain("t")]).await;
    let message = rig.published.pop().unwrap();
    rig.events(epoch, vec![started(&message, 1)]).await;
    let stored = rig.read.node(&pool(), &node(), &[]).await.unwrap().unwrap();
    let activity = rig.engine.node_activity(vec![pool(), "none".parse().unwrap()]).await.remove(&pool()).unwrap();
    assert_eq!(activity.iter().map(|active| (&active.id, active.state)).collect::<Vec<_>>(), [(&node(), NodeState::Running)]);
    assert_eq!(stored.state, NodeState::Idle, "busy nodes are written with the next flush, and no tick came");
    assert_eq!(rig.read.node(&pool(), &node(), &[]).await.unwrap().unwrap(), stored, "reading wrote nothing");

    rig.events(epoch, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    let activity = rig.engine.node_activity(vec![pool()]).await.remove(&pool()).unwrap();
    let shown = rig.read.node(&pool(), &node(), &activity).await.unwrap().unwrap();
    assert_eq!((shown.tasks_run, shown.tasks_succeeded, shown.recent.as_slice()), (1, 1, &[message.uid][..]));
    rig.close().await;
}
