//! The engine on its real store, with agents played by the tests: published messages, stored rows, restarts.

#[path = "engine/auto_pools.rs"]
mod auto_pools;
#[path = "engine/clock.rs"]
mod clock;
#[path = "engine/damage.rs"]
mod damage;
#[path = "engine/errands.rs"]
mod errands;
#[path = "engine/faulty.rs"]
mod faulty;
#[path = "engine/half_done.rs"]
mod half_done;
#[path = "engine/jobs.rs"]
mod jobs;
#[path = "engine/node_activity.rs"]
mod node_activity;
#[path = "engine/node_faults.rs"]
mod node_faults;
#[path = "engine/refusals.rs"]
mod refusals;
#[path = "engine/retries.rs"]
mod retries;
#[path = "engine/sizes.rs"]
mod sizes;
#[path = "engine/slices.rs"]
mod slices;
#[path = "engine/speakers.rs"]
mod speakers;
#[path = "engine/sums.rs"]
mod sums;
#[path = "engine/wide.rs"]
mod wide;

use std::{collections::HashMap, path::Path};

use clients::amqp::Tag;
use contract::{
    clock::Clock,
    ids::{Epoch, JobId, NodeId, PoolId, RunId, TaskId},
    message::{
        AgentEvent, Answer, Ask, EventBatch, Finished, HeartbeatReply, Join, NodeReport, Reply, RequestKind, Start, Started, TaskMessage,
        VERSION,
    },
    outcome::{Outcome, Stream, Usage},
    spec::{EnvironmentSetting, FillType, TaskSpec},
    state::{JobState, NodeState, TaskState},
    time::Timestamp,
};
use engine::{
    Engine, Identity, Input, Outlets, Output, ReplyTo, Settled,
    command::{Command, Done},
};
use model::{
    condition::Condition,
    job::{Counts, NewJob},
    pool::NewPool,
    refusal::Code,
    task::NewTask,
};
use scheduler::Timers;
use store::{
    Store,
    errands::Errand,
    read::{Page, Read},
    rows::TaskRow,
    sqlite::{SqliteReader, SqliteStore},
};

struct TestEngine {
    handle: Engine,
    outlets: Outlets,
    thread: std::thread::JoinHandle<()>,
    read: SqliteReader,
    published: Vec<TaskMessage>,
    replies: Vec<Reply>,
    errands: Vec<(u64, Errand)>,
    heartbeat_answered: Vec<HeartbeatReply>,
    delivery: u64,
}

fn pool() -> PoolId {
    "pool".parse().unwrap()
}

fn job() -> JobId {
    "job".parse().unwrap()
}

fn node() -> NodeId {
    "node-0001".parse().unwrap()
}

fn back() -> ReplyTo {
    ReplyTo { reply_to: "me".into(), correlation_id: None }
}

fn task(id: &str, spec: TaskSpec, depends_on: &[&str]) -> NewTask {
    let document = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
    NewTask {
        id: id.parse().unwrap(),
        document,
        spec,
        depends_on: depends_on.iter().map(|&id| id.to_owned()).collect(),
        exit_conditions: None,
    }
}

fn plain(id: &str) -> NewTask {
    task(id, TaskSpec { command_line: "/bin/true".into(), ..Default::default() }, &[])
}

impl TestEngine {
    fn open(folder: &Path) -> TestEngine {
        TestEngine::open_by(folder, Clock::system())
    }

    fn open_by(folder: &Path, clock: Clock) -> TestEngine {
        TestEngine::open_with(folder, clock, Timers::default())
    }

    fn open_with(folder: &Path, clock: Clock, timers: Timers) -> TestEngine {
        let path = folder.join("store.sqlite");
        TestEngine::timed(Box::new(SqliteStore::open(&path).unwrap()), &path, clock, timers)
    }

    fn on(store: Box<dyn Store>, path: &Path, clock: Clock) -> TestEngine {
        TestEngine::timed(store, path, clock, Timers::default())
    }

    fn timed(store: Box<dyn Store>, path: &Path, clock: Clock, timers: Timers) -> TestEngine {
        let read = SqliteReader::open(path, 2).unwrap();
        let identity = Identity {
            account: "a".into(),
            account_url: "http://x".into(),
            join_secret: None,
            heartbeat_ms: 5000,
            tokens: engine::task_token::TaskTokens::new(b"t"),
        };
        let (handle, outlets, thread) = Engine::start(store, identity, timers, clock).unwrap();
        TestEngine {
            handle,
            outlets,
            thread,
            read,
            published: vec![],
            replies: vec![],
            errands: vec![],
            heartbeat_answered: vec![],
            delivery: 0,
        }
    }

    /// Ends the engine; what is not committed is lost.
    async fn close(self) {
        self.handle.put(Input::Stop).await.unwrap();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }

    async fn call(&mut self, command: Command) -> Result<Done, model::refusal::Refusal> {
        let handle = self.handle.clone();
        let answer = tokio::spawn(async move { handle.call(command).await });
        // Creating a pool is answered by the broker, after the queues are declared.
        while !answer.is_finished() {
            self.drain();
            tokio::task::yield_now().await;
        }
        self.drain();
        answer.await.unwrap()
    }

    fn drain(&mut self) {
        while let Ok(outputs) = self.outlets.outputs.try_recv() {
            for output in outputs {
                match output {
                    Output::Publish(releases) => self.published.extend(releases.into_iter().map(|release| release.message)),
                    Output::Errands(errands) => self.errands.extend(errands),
                    Output::Reply(_, reply) => self.replies.push(reply.what),
                    Output::HeartbeatAnswered(_, reply) => self.heartbeat_answered.push(*reply),
                    Output::Declare(_, Some((reply, done))) => {
                        let _ = reply.send(Ok(done));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Hands something in and waits until it is committed.
    async fn put(&mut self, input: Input) {
        self.handle.put(input).await.unwrap();
        // Inputs are taken in order: when this one is answered the others are done.
        let missing = "no-such-job".parse().unwrap();
        let _ = self.call(Command::TerminateJob(missing, None, Condition::default())).await;
    }

    async fn events(&mut self, epoch: Epoch, events: Vec<AgentEvent>) {
        self.delivery += 1;
        let batch = EventBatch { v: VERSION, pool: pool(), node: node(), epoch, events };
        self.put(Input::Events { batch, tag: Tag { generation: 1, number: self.delivery } }).await;
    }

    /// Asks again, as agents do, when the question was lost with a transaction that was undone.
    async fn request(&mut self, what: RequestKind) -> Reply {
        for _ in 0..100 {
            self.put(Input::Request(what.clone(), back())).await;
            if let Some(reply) = self.replies.pop() {
                return reply;
            }
        }
        panic!("no answer to {what:?}")
    }

    async fn create(&mut self, slots: u32, uses_dependencies: bool, environment: Vec<EnvironmentSetting>) {
        self.create_pool("pool", slots).await;
        self.call(Command::CreateJob(Box::new(TestEngine::new_job(uses_dependencies, environment)))).await.unwrap();
    }

    async fn create_pool(&mut self, name: &str, slots: u32) {
        self.call(Command::CreatePool(Box::new(TestEngine::new_pool(name, slots)))).await.unwrap();
    }

    fn new_pool(name: &str, slots: u32) -> NewPool {
        NewPool {
            id: name.parse().unwrap(),
            document: "{}".into(),
            slots_per_node: slots,
            fill: FillType::Spread,
            job_order: Default::default(),
            target_dedicated: 1,
            target_low_priority: 0,
            settings: Default::default(),
            start_task: None,
            packages: vec![],
            policy: None,
            scaling: None,
        }
    }

    fn new_job(uses_dependencies: bool, environment: Vec<EnvironmentSetting>) -> NewJob {
        NewJob {
            id: job(),
            document: "{}".into(),
            pool: pool().into(),
            priority: 0,
            max_parallel: -1,
            environment,
            max_task_retry_count: 0,
            max_wall_clock: None,
            terminate_when_complete: false,
            performs_exit_options: false,
            uses_dependencies,
            manager: None,
            job_tasks: None,
        }
    }

    async fn join(&mut self) -> Epoch {
        let token = match self.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await {
            Reply::Nodes { nodes } => nodes[0].token.clone(),
            other => panic!("{other:?}"),
        };
        self.rejoin(&token).await
    }

    async fn rejoin(&mut self, token: &str) -> Epoch {
        let join = Join {
            pool: pool(),
            node: node(),
            token: token.to_owned(),
            epoch: None,
            address: "127.0.0.1".into(),
            cores: 2,
            version: "t".into(),
        };
        let epoch = match self.request(RequestKind::Join(join)).await {
            Reply::Joined(joined) => joined.epoch,
            other => panic!("{other:?}"),
        };
        let report =
            NodeReport { state: NodeState::Idle, start_task: None, fault: None, is_drained: false, at: Timestamp::now(), number: 0 };
        self.events(epoch, vec![AgentEvent::Node(report)]).await;
        epoch
    }

    async fn add(&mut self, tasks: Vec<NewTask>) -> Vec<Result<(u64, Timestamp), model::refusal::Refusal>> {
        match self.call(Command::CreateTasks(job(), tasks)).await.unwrap() {
            Done::Tasks(results) => results,
            other => panic!("{other:?}"),
        }
    }

    async fn task(&self, id: &str) -> Option<TaskRow> {
        self.read.task(&job(), &id.parse::<TaskId>().unwrap()).await.unwrap()
    }

    async fn counts(&self) -> Counts {
        self.read.job(&job()).await.unwrap().unwrap().tasks
    }
}

fn started(message: &TaskMessage, run: u128) -> AgentEvent {
    AgentEvent::Started(Started { uid: message.uid, attempt: message.attempt, fence: message.fence, run: RunId(run), at: Timestamp::now() })
}

fn finished(message: &TaskMessage, run: u128, outcome: Outcome) -> AgentEvent {
    AgentEvent::Finished(Box::new(Finished {
        uid: message.uid,
        attempt: message.attempt,
        fence: message.fence,
        run: RunId(run),
        started_at: Timestamp::now(),
        ended_at: Timestamp::now(),
        outcome,
        stdout: Stream::Inline { bytes: b"hi".to_vec() },
        stderr: Stream::Empty,
        usage: Usage::default(),
    }))
}

#[tokio::test]
async fn a_task_goes_the_whole_way_and_its_events_are_acknowledged_after_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(2, false, vec![]).await;
    assert!(engine.add(vec![plain("early")]).await[0].is_ok());
    assert!(engine.published.is_empty(), "no node, no release");
    let epoch = engine.join().await;
    assert!(engine.add(vec![plain("late")]).await[0].is_ok());
    let messages = std::mem::take(&mut engine.published);
    assert_eq!(
        messages.iter().map(|message| (message.task.as_str(), message.start, message.attempt)).collect::<Vec<_>>(),
        [("early", Start::Now, 1), ("late", Start::Now, 1)]
    );
    assert_eq!(messages[0].spec.as_ref().unwrap().command_line, "/bin/true");
    engine.events(epoch, vec![started(&messages[0], 1)]).await;
    assert_eq!(engine.task("early").await.unwrap().state, TaskState::Running);
    assert_eq!(engine.counts().await, Counts { active: 1, running: 1, succeeded: 0, failed: 0 });
    engine
        .events(
            epoch,
            vec![
                finished(&messages[0], 1, Outcome::Exit { code: 0 }),
                started(&messages[1], 2),
                finished(&messages[1], 2, Outcome::Exit { code: 9 }),
            ],
        )
        .await;
    let early = engine.task("early").await.unwrap();
    assert_eq!((early.state, early.exit_code, early.has_succeeded), (TaskState::Completed, Some(0), Some(true)));
    assert_eq!(early.stdout, Stream::Inline { bytes: b"hi".to_vec() });
    assert_eq!(engine.task("late").await.unwrap().failure.unwrap().fault.code, "FailureExitCode");
    assert_eq!(engine.counts().await, Counts { active: 0, running: 0, succeeded: 1, failed: 1 });
    let mut acked = Vec::new();
    while let Ok(settled) = engine.outlets.settled.try_recv() {
        acked.extend(settled);
    }
    assert_eq!(acked, [1, 2, 3].map(|number| Settled::Done(Tag { generation: 1, number })));
    engine.close().await;
}

#[tokio::test]
async fn a_restart_asks_about_what_was_out_and_keeps_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let epoch = engine.join().await;
    engine.add((0..5).map(|n| plain(&format!("t{n}"))).collect()).await;
    let messages = std::mem::take(&mut engine.published);
    assert_eq!(messages.len(), 2, "one slot and one of lookahead");
    engine.events(epoch, vec![started(&messages[0], 1)]).await;
    engine.close().await;

    let mut engine = TestEngine::open(folder.path());
    assert_eq!(engine.counts().await, Counts { active: 4, running: 1, succeeded: 0, failed: 0 });
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    let again: Vec<_> = engine.published.iter().map(|message| (message.task.as_str().to_owned(), message.start, message.fence)).collect();
    assert_eq!(again, [("t1".to_owned(), Start::Ask, messages[1].fence)], "its publish was never confirmed");
    let run = messages[1].key().with(RunId(5));
    let answer = engine.request(RequestKind::Ask(Ask { run, node: node(), epoch, prepares: true, pool: None })).await;
    match answer {
        Reply::Answer(Answer::Run { spec: Some(spec), .. }) => assert_eq!(spec.command_line, "/bin/true"),
        other => panic!("{other:?}"),
    }
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.task("t0").await.unwrap().state, TaskState::Completed);
    engine.close().await;
}

#[tokio::test]
async fn secrets_do_not_travel_and_the_answer_brings_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![EnvironmentSetting { name: "TOKEN".into(), value: Some("secret".into()) }]).await;
    let epoch = engine.join().await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    assert_eq!((message.start, &message.spec), (Start::Ask, &None));
    match engine.request(RequestKind::Ask(Ask { run: message.key().with(RunId(1)), node: node(), epoch, prepares: true, pool: None })).await
    {
        Reply::Answer(Answer::Run { spec: Some(spec), .. }) => assert_eq!(spec.environment_settings[0].value.as_deref(), Some("secret")),
        other => panic!("{other:?}"),
    }
    engine.close().await;
}

#[tokio::test]
async fn names_are_taken_once_and_dependants_follow_in_the_same_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(4, true, vec![]).await;
    let epoch = engine.join().await;
    let merge = task("merge", TaskSpec::default(), &["a", "2"]);
    let results = engine.add(vec![merge, plain("a"), plain("002"), plain("A")]).await;
    assert_eq!(results[3].as_ref().unwrap_err().code, Code::TaskExists);
    let messages = std::mem::take(&mut engine.published);
    assert_eq!(messages.iter().map(|message| message.task.as_str()).collect::<Vec<_>>(), ["a", "002"]);
    engine.events(epoch, vec![finished(&messages[0], 1, Outcome::Exit { code: 0 })]).await;
    assert!(engine.published.is_empty());
    engine.events(epoch, vec![finished(&messages[1], 2, Outcome::Exit { code: 0 })]).await;
    assert_eq!(engine.published.iter().map(|message| message.task.as_str()).collect::<Vec<_>>(), ["merge"]);
    engine.close().await;
}

#[tokio::test]
async fn a_deleted_job_goes_piece_by_piece_and_its_name_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    engine.add((0..50).map(|n| plain(&format!("t{n}"))).collect()).await;
    engine.call(Command::DeleteJob(job(), Condition::default())).await.unwrap();
    assert_eq!(engine.read.job(&job()).await.unwrap().unwrap().state, JobState::Deleting);
    assert_eq!(engine.call(Command::CreateTasks(job(), vec![plain("x")])).await.unwrap_err().code, Code::JobBeingDeleted);
    engine.put(Input::Tick { events_behind: false, depths: HashMap::new() }).await;
    assert!(engine.read.job(&job()).await.unwrap().is_none());
    assert!(engine.read.task_names(&job(), Page { rows_max: 10, ..Page::default() }).await.unwrap().is_none());
    engine.close().await;
}

#[tokio::test]
async fn an_agent_that_starts_anew_gives_its_old_runs_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = TestEngine::open(folder.path());
    engine.create(1, false, vec![]).await;
    let token = match engine.request(RequestKind::CreateNodes { pool: pool(), count: 1 }).await {
        Reply::Nodes { nodes } => nodes[0].token.clone(),
        other => panic!("{other:?}"),
    };
    let first = engine.rejoin(&token).await;
    engine.add(vec![plain("t")]).await;
    let message = engine.published.pop().unwrap();
    engine.events(first, vec![started(&message, 1)]).await;
    let second = engine.rejoin(&token).await;
    assert!(second > first);
    let again = engine.published.pop().expect("released again");
    assert_eq!((again.attempt, again.start), (2, Start::Now));
    assert!(again.fence > message.fence);
    engine.events(first, vec![finished(&message, 1, Outcome::Exit { code: 0 })]).await;
    assert_ne!(engine.task("t").await.unwrap().state, TaskState::Completed, "the old run's end is void");
    engine.events(second, vec![finished(&again, 2, Outcome::Exit { code: 0 })]).await;
    let task = engine.task("t").await.unwrap();
    assert_eq!((task.state, task.retry_count), (TaskState::Completed, 0));
    engine.close().await;
}
