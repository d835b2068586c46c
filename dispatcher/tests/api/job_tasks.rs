//! Job preparation and release tasks: accepted and refused bodies, and their status on a fake node.

use std::time::{Duration, Instant};

use contract::{
    ids::RunId,
    job_task::JobTask,
    message::{AgentEvent, Answer, Ask, Reply, RequestKind, Start, Started, TaskMessage},
    outcome::{JobTaskEnd, Outcome},
    time::Timestamp,
};
use serde_json::{Value, json};

use crate::{fake_agent::FakeAgent, nodes::idle, signing::Got, test_dispatcher::TestDispatcher};

const PATIENCE: Duration = Duration::from_secs(30);
const STATUS: &str = "/jobs/P/jobpreparationandreleasetaskstatus";

fn code(got: Got) -> String {
    got.json()["code"].as_str().unwrap().to_owned()
}

fn job(id: &str) -> Value {
    json!({
        "id": id,
        "poolInfo": {"poolId": "Pool"},
        "commonEnvironmentSettings": [{"name": "A", "value": "common"}, {"name": "B", "value": "common"}],
        "jobPreparationTask": {"commandLine": "prepare", "environmentSettings": [{"name": "A", "value": "own"}]},
        "jobReleaseTask": {"commandLine": "tidy", "maxWallClockTime": "PT1M"},
    })
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never {what}");
    }
}

/// A task of the job `P`, taken by the node and asked about.
fn asked(dispatcher: &TestDispatcher, agent: &FakeAgent, task: &str) -> (TaskMessage, Answer) {
    asked_of(dispatcher, agent, "P", task)
}

fn asked_of(dispatcher: &TestDispatcher, agent: &FakeAgent, job: &str, task: &str) -> (TaskMessage, Answer) {
    dispatcher.send("POST", &format!("/jobs/{job}/tasks"), json!({"id": task, "commandLine": "work"}), 201);
    let message = agent.take();
    let ask = Ask { run: message.key().with(RunId(7)), node: "n1".parse().unwrap(), epoch: agent.joined.epoch, prepares: true, pool: None };
    match agent.ask("asks", RequestKind::Ask(ask)) {
        Reply::Answer(answer) => (message, answer),
        other => panic!("{other:?}"),
    }
}

fn prepare(answer: Answer) -> Box<JobTask> {
    let Answer::Run { spec: Some(spec), preparation: Some(job_task) } = answer else { panic!("{answer:?}") };
    assert_eq!(spec.preparation, Some("jobpreparation".parse().unwrap()), "the task is told where its preparation was");
    job_task
}

fn ended(agent: &FakeAgent, job_task: &JobTask, outcome: Outcome) {
    let (started_at, ended_at) = (Timestamp(1_000), Timestamp(2_000));
    agent.happen(AgentEvent::JobTask(Box::new(JobTaskEnd {
        key: job_task.key,
        started_at,
        ended_at,
        outcome,
        retries: 0,
        retried_at: None,
    })));
}

#[test]
fn a_jobs_preparation_and_release_are_shown_with_their_defaults() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    dispatcher.send("POST", "/jobs", job("P"), 201);
    let shown = dispatcher.get("/jobs/P");
    let preparation = &shown["jobPreparationTask"];
    assert_eq!((&preparation["id"], &preparation["waitForSuccess"]), (&json!("jobpreparation"), &json!(true)));
    assert_eq!(preparation["rerunOnNodeRebootAfterSuccess"], true);
    assert_eq!(preparation["constraints"]["retentionTime"], "P7D");
    let release = &shown["jobReleaseTask"];
    assert_eq!(
        (&release["id"], &release["maxWallClockTime"], &release["retentionTime"]),
        (&json!("jobrelease"), &json!("PT1M"), &json!("P7D"))
    );
    let selected = dispatcher.get("/jobs/P?$select=jobReleaseTask");
    assert_eq!(selected["jobReleaseTask"], *release);
    assert!(selected.get("jobPreparationTask").is_none());
    for (id, expected) in [("JobPreparation", "TaskIdSameAsJobPreparationTask"), ("jobrelease", "TaskIdSameAsJobReleaseTask")] {
        assert_eq!(code(dispatcher.send("POST", "/jobs/P/tasks", json!({"id": id, "commandLine": "x"}), 409)), expected);
    }
    let many = json!({"value": [{"id": "jobrelease", "commandLine": "x"}, {"id": "t", "commandLine": "x"}]});
    let got = dispatcher.send("POST", "/jobs/P/addtaskcollection", many, 200).json();
    assert_eq!((&got["value"][0]["error"]["code"], &got["value"][1]["status"]), (&json!("TaskIdSameAsJobReleaseTask"), &json!("success")));
    assert_eq!(dispatcher.get(STATUS)["value"], json!([]), "no node has had a task of it");
    assert_eq!(
        code(dispatcher.send("GET", "/jobs/Job/jobpreparationandreleasetaskstatus", Value::Null, 409)),
        "JobPreparationTaskNotSpecified"
    );
}

#[test]
fn a_schedule_hands_preparation_and_release_to_its_jobs() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let mut specification = job("x");
    specification.as_object_mut().unwrap().remove("id");
    dispatcher.send("POST", "/jobschedules", json!({"id": "S", "schedule": {}, "jobSpecification": specification}), 201);
    let shown = dispatcher.get("/jobschedules/S")["jobSpecification"].clone();
    assert_eq!((&shown["jobPreparationTask"]["id"], &shown["jobReleaseTask"]["id"]), (&json!("jobpreparation"), &json!("jobrelease")));
    let job = dispatcher.get("/jobs/S%3Ajob-1");
    assert_eq!((&job["jobPreparationTask"], &job["jobReleaseTask"]), (&shown["jobPreparationTask"], &shown["jobReleaseTask"]));
    specification["jobPreparationTask"] = Value::Null;
    let got = dispatcher.send("PATCH", "/jobschedules/S", json!({"jobSpecification": specification}), 400).json();
    assert_eq!(got["values"][0]["value"], "jobSpecification.jobReleaseTask", "{got}");
}

#[test]
fn a_task_is_preparing_until_its_run_begins_and_the_job_ends_after_its_release() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    dispatcher.send("POST", "/jobs", job("P"), 201);
    let (message, answer) = asked(&dispatcher, &agent, "t");
    assert_eq!((message.start, &message.spec), (Start::Ask, &None), "a task that needs a preparation is a question");
    let job_task = prepare(answer);
    let variables: Vec<_> =
        job_task.spec.environment_settings.iter().map(|one| (one.name.as_str(), one.value.as_deref().unwrap())).collect();
    assert_eq!((job_task.spec.command_line.as_str(), variables), ("prepare", vec![("B", "common"), ("A", "own")]));
    assert_eq!(dispatcher.get("/jobs/P/tasks/t")["state"], "preparing");
    assert_eq!(dispatcher.get("/jobs/P/taskcounts")["taskCounts"]["running"], 1);
    assert_eq!(dispatcher.get("/pools/Pool/nodes/n1")["runningTasksCount"], 1);
    let running = dispatcher.get(STATUS)["value"][0].clone();
    assert_eq!((&running["poolId"], &running["nodeId"]), (&json!("Pool"), &json!("n1")));
    assert!(running["nodeUrl"].as_str().unwrap().ends_with("/pools/Pool/nodes/n1"), "{running}");
    let info = &running["jobPreparationTaskExecutionInfo"];
    assert_eq!(
        (&info["state"], &info["retryCount"], &info["taskRootDirectory"]),
        (&json!("running"), &json!(0), &json!("workitems/P/job-1/jobpreparation"))
    );
    assert!(info["taskRootDirectoryUrl"].as_str().unwrap().ends_with("/nodes/n1/files/workitems/P/job-1/jobpreparation"));
    assert!(info.get("endTime").is_none() && info.get("result").is_none() && running.get("jobReleaseTaskExecutionInfo").is_none());

    ended(&agent, &job_task, Outcome::Exit { code: 0 });
    let started = Started { uid: message.uid, attempt: message.attempt, fence: message.fence, run: RunId(7), at: Timestamp(3_000) };
    agent.happen(AgentEvent::Started(started));
    until("running", || dispatcher.get("/jobs/P/tasks/t")["state"] == "running");
    assert_eq!(dispatcher.get("/jobs/P/tasks/t")["previousState"], "preparing");
    let info = dispatcher.get(STATUS)["value"][0]["jobPreparationTaskExecutionInfo"].clone();
    assert_eq!((&info["state"], &info["exitCode"], &info["result"]), (&json!("completed"), &json!(0), &json!("success")));
    assert_eq!((&info["startTime"], &info["endTime"]), (&json!("1970-01-01T00:00:01.000Z"), &json!("1970-01-01T00:00:02.000Z")));

    dispatcher.send("POST", "/jobs/P/terminate", Value::Null, 202);
    assert_eq!(dispatcher.get("/jobs/P/tasks/t")["state"], "completed");
    let reply = agent.heartbeat(vec![job_task.key]);
    assert_eq!((reply.over, reply.releases.len()), (vec![job_task.key], 1));
    let release = &reply.releases[0];
    assert_eq!((release.spec.command_line.as_str(), release.task.as_str()), ("tidy", "jobrelease"));
    assert_eq!(release.spec.preparation, Some("jobpreparation".parse().unwrap()));
    assert_eq!(dispatcher.get("/jobs/P")["state"], "terminating", "until the release has ended");
    assert_eq!(code(dispatcher.send("POST", "/jobs/P/tasks", json!({"id": "u", "commandLine": "x"}), 409)), "JobBeingTerminated");
    ended(&agent, release, Outcome::Exit { code: 5 });
    until("completed", || dispatcher.get("/jobs/P")["state"] == "completed");
    let info = dispatcher.get(STATUS)["value"][0]["jobReleaseTaskExecutionInfo"].clone();
    assert_eq!(
        (&info["exitCode"], &info["result"], &info["failureInfo"]["code"]),
        (&json!(5), &json!("failure"), &json!("FailureExitCode"))
    );
    assert_eq!(info["taskRootDirectory"], "workitems/P/job-1/jobrelease");
    assert!(info.get("retryCount").is_none(), "a release is not tried again");

    dispatcher.send("DELETE", "/jobs/P", Value::Null, 202);
    until("gone", || dispatcher.ask("GET", "/jobs/P", &[], &Value::Null).status == 404);
    assert!(agent.heartbeat(vec![]).releases.is_empty(), "a job that was released is not released again");
}

#[test]
fn a_deleted_job_is_gone_after_its_release() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    dispatcher.send("POST", "/jobs", job("P"), 201);
    let (_, answer) = asked(&dispatcher, &agent, "t");
    ended(&agent, &prepare(answer), Outcome::Exit { code: 0 });
    until("prepared", || dispatcher.get(STATUS)["value"][0]["jobPreparationTaskExecutionInfo"]["state"] == "completed");
    dispatcher.send("DELETE", "/jobs/P", Value::Null, 202);
    let releases = agent.heartbeat(vec![]).releases;
    assert_eq!(dispatcher.get("/jobs/P")["state"], "deleting");
    ended(&agent, &releases[0], Outcome::Exit { code: 0 });
    until("gone", || dispatcher.ask("GET", "/jobs/P", &[], &Value::Null).status == 404);
}

#[test]
fn a_forced_end_waits_for_no_release() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    for (id, method, target) in [("A", "POST", "/jobs/A/terminate"), ("B", "DELETE", "/jobs/B")] {
        dispatcher.send("POST", "/jobs", job(id), 201);
        let (_, answer) = asked_of(&dispatcher, &agent, id, "t");
        ended(&agent, &prepare(answer), Outcome::Exit { code: 0 });
        let status = format!("/jobs/{id}/jobpreparationandreleasetaskstatus");
        until("prepared", || dispatcher.get(&status)["value"][0]["jobPreparationTaskExecutionInfo"]["state"] == "completed");
        // The node is told to release the job, and never does.
        dispatcher.send(method, target, Value::Null, 202);
        assert_eq!(agent.heartbeat(vec![]).releases.len(), 1);
        assert!(["terminating", "deleting"].contains(&dispatcher.get(&format!("/jobs/{id}"))["state"].as_str().unwrap()));
        let got = dispatcher.ask(method, &format!("{target}?force=true"), &[], &Value::Null);
        assert_eq!(got.status, 409, "the end is under way already: {}", String::from_utf8_lossy(&got.body));
        until("over", || match dispatcher.ask("GET", &format!("/jobs/{id}"), &[], &Value::Null) {
            got if id == "A" => got.json()["state"] == "completed",
            got => got.status == 404,
        });
        assert!(agent.heartbeat(vec![]).releases.is_empty(), "{id} is not released any more");
    }
    dispatcher.send("POST", "/jobs", job("C"), 201);
    let (_, answer) = asked_of(&dispatcher, &agent, "C", "t");
    ended(&agent, &prepare(answer), Outcome::Exit { code: 0 });
    dispatcher.send("POST", "/jobs/C/terminate?force=true", Value::Null, 202);
    until("over", || dispatcher.get("/jobs/C")["state"] == "completed");
}

#[test]
fn the_status_is_filtered_selected_and_paged() {
    let dispatcher = TestDispatcher::start();
    let agent = idle(&dispatcher);
    dispatcher.send("POST", "/jobs", job("P"), 201);
    let (_, answer) = asked(&dispatcher, &agent, "t");
    ended(&agent, &prepare(answer), Outcome::Exit { code: 3 });
    until("prepared", || dispatcher.get(STATUS)["value"][0]["jobPreparationTaskExecutionInfo"]["state"] == "completed");
    let count =
        |filter: &str| dispatcher.get(&format!("{STATUS}?$filter={}", filter.replace(' ', "%20")))["value"].as_array().unwrap().len();
    for (filter, rows) in [
        ("poolId eq 'pool'", 1),
        ("nodeId ne 'n1'", 0),
        ("jobPreparationTaskExecutionInfo/state eq 'completed'", 1),
        ("jobPreparationTaskExecutionInfo/exitCode gt 2 and jobPreparationTaskExecutionInfo/result eq 'failure'", 1),
        ("jobPreparationTaskExecutionInfo/startTime lt DateTime'1970-01-01T00:00:02Z'", 1),
        ("jobPreparationTaskExecutionInfo/endTime gt DateTime'1970-01-01T00:00:02Z'", 0),
        ("jobReleaseTaskExecutionInfo/state eq 'running'", 0),
        ("jobReleaseTaskExecutionInfo/result ne 'success'", 1),
    ] {
        assert_eq!(count(filter), rows, "{filter}");
    }
    let row = dispatcher.get(&format!("{STATUS}?$select=nodeId&maxresults=1"));
    assert_eq!((&row["value"], row.get("odata.nextLink")), (&json!([{"nodeId": "n1"}]), None));
    assert_eq!(
        code(dispatcher.send("GET", &format!("{STATUS}?$filter=state%20eq%20'running'"), Value::Null, 400)),
        "InvalidQueryParameterValue"
    );
    assert_eq!(code(dispatcher.send("GET", &format!("{STATUS}?$select=state"), Value::Null, 400)), "InvalidQueryParameterValue");
    assert_eq!(code(dispatcher.send("GET", &format!("{STATUS}?maxresults=0"), Value::Null, 400)), "OutOfRangeQueryParameterValue");
}
