//! Errands: work outside the store stays a row until it is done, across failures and restarts.

use std::time::{Duration, Instant};

use contract::ids::{JobUid, TaskUid};
use model::task::StreamName;
use store::errands::Place;

use super::*;

/// How long a thing that is tried again after a second may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl TestEngine {
    async fn tell(&mut self, place: Place, id: u64, is_done: bool) {
        self.put(Input::Errands(vec![(place, id, is_done)])).await;
    }

    async fn tick_once(&mut self) {
        self.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    }

    fn errands(&mut self) -> Vec<(u64, Errand)> {
        self.drain();
        std::mem::take(&mut self.errands)
    }

    /// Ends a task whose streams lie in the bucket.
    async fn end_in_bucket(&mut self, epoch: Epoch, message: &TaskMessage) {
        let AgentEvent::Finished(end) = finished(message, u128::from(message.uid.0), Outcome::Exit { code: 1 }) else { unreachable!() };
        let kept = |name: &str| Stream::Blob { key: format!("logs/{}/1/x/{name}", message.uid.0), bytes: 9 };
        let end = Finished { stdout: kept("stdout"), stderr: kept("stderr"), ..*end };
        self.events(epoch, vec![AgentEvent::Finished(Box::new(end))]).await;
    }
}

#[tokio::test]
async fn the_queues_of_a_deleted_pool_go_though_the_broker_is_away_and_the_dispatcher_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 1).await;
    engine.call(Command::DeletePool(pool(), Condition::default())).await.unwrap();
    engine.tick_once().await;
    let gone = Errand::Undeclare { pool: pool() };
    let out = engine.errands();
    assert_eq!(out, [(out[0].0, gone.clone())]);
    engine.tell(Place::Broker, out[0].0, false).await;
    let began = Instant::now();
    let again = loop {
        assert!(began.elapsed() < PATIENCE);
        engine.tick_once().await;
        let again = engine.errands();
        if !again.is_empty() {
            break again;
        }
    };
    assert_eq!(again, out);
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    engine.tick_once().await;
    assert_eq!(engine.errands(), out, "nobody said that it was done");
    engine.tell(Place::Broker, out[0].0, true).await;
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    engine.tick_once().await;
    assert_eq!(engine.errands(), []);
    engine.close().await;
}

#[tokio::test]
async fn a_pool_that_comes_back_gets_fresh_queues_and_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create_pool("pool", 1).await;
    engine.call(Command::DeletePool(pool(), Condition::default())).await.unwrap();
    engine.tick_once().await;
    let out = engine.errands();
    engine.tell(Place::Broker, out[0].0, false).await;
    engine.create_pool("pool", 1).await;
    assert_eq!(engine.errands(), out, "the old queues go before the new ones come");
    engine.tell(Place::Broker, out[0].0, false).await;
    engine.close().await;
    let mut engine = TestEngine::open(folder.path());
    engine.tick_once().await;
    assert_eq!(engine.errands(), [], "the queues are those of the new pool");
    engine.close().await;
}

#[tokio::test]
async fn blobs_go_with_the_streams_tasks_and_jobs_they_belong_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(4, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((1..=4).map(|n| plain(&format!("t{n}"))).collect()).await;
    for message in std::mem::take(&mut engine.published) {
        engine.end_in_bucket(epoch, &message).await;
    }
    assert_eq!(engine.errands(), []);
    let discarded = |out: Vec<(u64, Errand)>| -> Vec<String> {
        out.into_iter().flat_map(|(_, errand)| if let Errand::Discard { keys } = errand { keys } else { vec![] }).collect()
    };
    let id = |id: &str| id.parse::<TaskId>().unwrap();
    engine.call(Command::ForgetStream(job(), id("t1"), StreamName::Stderr)).await.unwrap();
    assert_eq!(discarded(engine.errands()), ["logs/1/1/x/stderr"]);
    engine.call(Command::DeleteTask(job(), id("t1"), Condition::default())).await.unwrap();
    let out = engine.errands();
    let forgotten = |task, last| Errand::Forget { pool: pool(), job: job(), task, last: Some(TaskUid(last)), job_uid: Some(JobUid(1)) };
    let forget = forgotten(Some(id("t1")), 1);
    assert!(out.iter().any(|(_, errand)| *errand == forget), "{out:?}");
    assert_eq!(discarded(out), ["logs/1/1/x/stdout"]);
    engine.call(Command::ReactivateTask(job(), id("t2"), Condition::default())).await.unwrap();
    assert_eq!(discarded(engine.errands()), ["logs/2/1/x/stdout", "logs/2/1/x/stderr"]);
    engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
    engine.tick_once().await;
    let out = engine.errands();
    assert!(out.iter().any(|(_, errand)| *errand == forgotten(None, 4)), "{out:?}");
    assert_eq!(discarded(out), [3, 4].map(|n| [format!("logs/{n}/1/x/stdout"), format!("logs/{n}/1/x/stderr")]).concat());
    engine.close().await;
}

#[tokio::test]
async fn a_task_that_comes_back_under_its_name_keeps_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    engine.add(vec![plain("t1"), plain("t2")]).await;
    for task in ["t1", "t2"] {
        engine.call(Command::DeleteTask(job(), task.parse().unwrap(), Condition::default())).await.unwrap();
    }
    let out = engine.errands();
    assert_eq!(out.len(), 2, "{out:?}");
    for (id, _) in &out {
        engine.tell(Place::Broker, *id, false).await;
    }
    engine.add(vec![plain("t1")]).await;
    engine.close().await;
    let mut engine = TestEngine::open(folder.path());
    engine.tick_once().await;
    assert_eq!(engine.errands(), out[1..], "the broker was away for so long that the first is another task's name now");
    engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
    engine.tick_once().await;
    let gone = engine.errands().pop().unwrap();
    assert!(matches!(&gone.1, Errand::Forget { task: None, last: Some(TaskUid(3..)), .. }), "{gone:?}");
    engine.tell(Place::Broker, gone.0, false).await;
    engine.call(Command::CreateJob(Box::new(TestEngine::new_job(false, vec![])))).await.unwrap();
    engine.close().await;
    let mut engine = TestEngine::open(folder.path());
    engine.tick_once().await;
    assert_eq!(engine.errands().iter().filter(|(id, _)| *id == gone.0).count(), 0, "and the job is another one");
    engine.close().await;
}

/// The end of a run whose streams lie in the bucket under keys of its own.
fn shipped(message: &TaskMessage, run: u128, outcome: Outcome) -> (AgentEvent, Vec<String>) {
    let AgentEvent::Finished(end) = finished(message, run, outcome) else { unreachable!() };
    let key = |name: &str| format!("logs/{}/{}/{}/{name}", end.uid.0, end.attempt, end.run);
    let keys = ["stdout.txt", "stderr.txt"].map(key);
    let [stdout, stderr] = keys.clone().map(|key| Stream::Blob { key, bytes: 9 });
    (AgentEvent::Finished(Box::new(Finished { stdout, stderr, ..*end })), keys.to_vec())
}

impl TestEngine {
    fn discarded(&mut self) -> Vec<String> {
        let errands = self.errands().into_iter();
        errands.flat_map(|(_, errand)| if let Errand::Discard { keys } = errand { keys } else { vec![] }).collect()
    }
}

#[tokio::test]
async fn what_earlier_attempts_wrote_goes_once_a_later_one_has_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(2, false, vec![]).await;
    let epoch = engine.join().await;
    let mut task = plain("t1");
    task.spec.constraints.max_task_retry_count = Some(1);
    engine.add(vec![task, plain("t2")]).await;
    let mut first = std::mem::take(&mut engine.published).into_iter();
    let (one, other) = (first.next().unwrap(), first.next().unwrap());
    let (end, keys) = shipped(&one, 11, Outcome::Exit { code: 1 });
    engine.events(epoch, vec![end.clone()]).await;
    assert_eq!(engine.discarded(), [""; 0], "they are the last that the task wrote");
    let second = std::mem::take(&mut engine.published).pop().unwrap();
    assert_eq!((second.uid, second.attempt), (one.uid, 2));
    let (again, kept) = shipped(&second, 12, Outcome::Exit { code: 0 });
    engine.events(epoch, vec![again.clone()]).await;
    assert_eq!(engine.discarded(), keys);
    engine.events(epoch, vec![again]).await;
    assert_eq!(engine.discarded(), [""; 0], "an end that is told twice takes nothing away");
    engine.events(epoch, vec![end]).await;
    assert_eq!(engine.discarded(), keys, "one that is of no use any more is discarded once more");
    engine.call(Command::DeleteTask(job(), "t2".parse().unwrap(), Condition::default())).await.unwrap();
    let (late, lost) = shipped(&other, 13, Outcome::Exit { code: 0 });
    engine.events(epoch, vec![late]).await;
    assert_eq!(engine.discarded(), lost, "its task is gone");
    engine.call(Command::ExpireStreams(vec![(one.uid, 1)])).await.unwrap();
    assert_eq!(engine.discarded(), [""; 0], "the task has changed since");
    let row = engine.task("t1").await.unwrap();
    engine.call(Command::ExpireStreams(vec![(one.uid, row.version)])).await.unwrap();
    assert_eq!(engine.discarded(), kept);
    assert_eq!(engine.task("t1").await.unwrap().stdout, Stream::Node { bytes: 0 }, "only the node may still have it");
    engine.close().await;
}
