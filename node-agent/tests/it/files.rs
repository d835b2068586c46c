//! Inputs, outputs, and files on request.

use std::os::unix::fs::PermissionsExt;

use broker_config::topology;
use bytes::Bytes;
use clients::amqp::{Outgoing, Subscription};
use contract::{
    ids::{JobUid, TaskUid},
    message::{Control, ControlKind, FileReply, FileRequest, TaskMessage, VERSION},
    outcome::Outcome,
    spec::{OutputContainer, OutputDestination, OutputFile, ResourceFile, TaskSpec, UploadCondition, UploadOptions},
};

use crate::harness::{Harness, node, pool, task, task_with};

fn output(pattern: &str, url: &str, path: Option<&str>, upload_condition: UploadCondition) -> OutputFile {
    OutputFile {
        file_pattern: pattern.into(),
        destination: OutputDestination {
            container: OutputContainer { container_url: url.into(), path: path.map(str::to_owned), upload_headers: vec![] },
        },
        upload_options: UploadOptions { upload_condition },
    }
}

/// The order to forget a deleted task, or the whole job, whose last task had this number.
fn forget(task: Option<&str>, last: u64) -> ControlKind {
    let (job, task) = ("job".parse().unwrap(), task.map(|task| task.parse().unwrap()));
    ControlKind::Forget { job, task, last: Some(TaskUid(last)), job_uid: Some(JobUid(1)) }
}

async fn with_blobs() -> Harness {
    let mut harness = Harness::new(2).await;
    harness.add_blobs().await;
    harness.start_agent();
    harness
}

#[tokio::test]
async fn inputs_come_from_urls_and_containers() {
    let mut harness = with_blobs().await;
    let blobs = harness.blobs.clone().unwrap();
    for (name, text) in [("in/a.txt", "A"), ("in/sub/b.txt", "B"), ("other.txt", "O")] {
        blobs.put("users", name, Bytes::from(text)).await.unwrap();
    }
    let signed = blobs.presign_get("users", "other.txt", std::time::Duration::from_secs(60)).await.unwrap();
    let resource_files = vec![
        ResourceFile { http_url: Some(signed), file_path: Some("deep/o.txt".into()), file_mode: Some("0640".into()), ..Default::default() },
        ResourceFile { storage_container_url: Some("s3://users/in".into()), file_path: Some("box".into()), ..Default::default() },
        ResourceFile { auto_storage_container_name: Some("users".into()), blob_prefix: Some("in/s".into()), ..Default::default() },
    ];
    let command_line = "/bin/cat deep/o.txt box/a.txt box/sub/b.txt in/sub/b.txt".into();
    harness.release(&task_with(1, TaskSpec { command_line, resource_files, ..TaskSpec::default() })).await;
    let finished = harness.finished().await;
    assert_eq!(finished.outcome, Outcome::Exit { code: 0 });
    assert_eq!(finished.stdout, contract::outcome::Stream::Inline { bytes: b"OABB".to_vec() });
    let mode = harness.root().join("workitems/job/job-1/t1/wd/deep/o.txt").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    harness.stop().await;
}

#[tokio::test]
async fn an_input_that_cannot_be_had_fails_the_task_with_its_reason() {
    let mut harness = with_blobs().await;
    let endpoint = harness.blob_settings.as_ref().unwrap().endpoint.clone();
    let web = |url: &str, path: &str| ResourceFile { http_url: Some(url.into()), file_path: Some(path.into()), ..Default::default() };
    let container = |url: &str| ResourceFile { storage_container_url: Some(url.into()), ..Default::default() };
    let cases = [
        (web(&format!("{endpoint}/users/none"), "x"), "BlobNotFound"),
        (web(&format!("{endpoint}/users/none?X-Amz-Signature=secret"), "x"), "BlobAccessDenied"),
        (web("file:///etc/passwd", "x"), "BlobDownloadMiscError"),
        (web(&format!("{endpoint}/users/none"), "../x"), "ResourceFileCreateFailed"),
        (web(&format!("{endpoint}/users/none"), "/x"), "ResourceFileCreateFailed"),
        (container("s3://no-such-bucket"), "BlobNotFound"),
        (container("s3://piecework"), "BlobDownloadMiscError"),
    ];
    for (index, (file, code)) in cases.into_iter().enumerate() {
        let spec = TaskSpec { command_line: "/bin/true".into(), resource_files: vec![file.clone()], ..TaskSpec::default() };
        harness.release(&task_with(index as u64 + 1, spec)).await;
        let Outcome::Staging(fault) = harness.finished().await.outcome else { panic!("{file:?}") };
        assert_eq!(fault.code, code, "{file:?} {fault:?}");
        assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
    }
    harness.stop().await;
}

#[tokio::test]
async fn outputs_are_uploaded_under_their_conditions() {
    let mut harness = with_blobs().await;
    let output_files = vec![
        output("*.out", "s3://users", Some("results"), UploadCondition::TaskSuccess),
        output("**/deep.txt", "s3://users/all", None, UploadCondition::TaskCompletion),
        output("../std*.txt", "s3://users", Some("logs"), UploadCondition::TaskCompletion),
        output("one.out", "s3://users", Some("exact/name.bin"), UploadCondition::TaskCompletion),
        output("*.out", "s3://users", Some("failed"), UploadCondition::TaskFailure),
        output("nothing.*", "s3://users", None, UploadCondition::TaskCompletion),
    ];
    let command_line = "/bin/sh -c 'mkdir -p a/b; echo 1 > one.out; echo 2 > two.out; echo d > a/b/deep.txt; echo hi'".into();
    harness.release(&task_with(1, TaskSpec { command_line, output_files, ..TaskSpec::default() })).await;
    let finished = harness.finished().await;
    assert_eq!(finished.outcome, Outcome::Exit { code: 0 });
    assert!(finished.usage.out_bytes > 0);
    let listing = harness.blobs.as_ref().unwrap().list("users", "", None, 100).await.unwrap();
    let keys: Vec<String> = listing.blobs.into_iter().map(|blob| blob.key).collect();
    assert_eq!(keys, ["all/a/b/deep.txt", "exact/name.bin", "logs/stderr.txt", "logs/stdout.txt", "results/one.out", "results/two.out"]);
    assert!(harness.root().join("workitems/job/job-1/t1/fileuploadout.txt").exists());
    harness.stop().await;
}

#[tokio::test]
async fn an_output_that_cannot_be_uploaded_is_the_tasks_end() {
    let mut harness = with_blobs().await;
    for (uid, url, code) in [(1, "s3://no-such-bucket", "FileUploadContainerNotFound"), (2, "https://elsewhere/x", "FileUploadMiscError")] {
        let output_files = vec![output("o", url, None, UploadCondition::TaskCompletion)];
        let command_line = "/bin/sh -c 'echo 1 > o'".into();
        harness.release(&task_with(uid, TaskSpec { command_line, output_files, ..TaskSpec::default() })).await;
        let Outcome::Upload { code: exit, fault } = harness.finished().await.outcome else { panic!("{url}") };
        assert_eq!((exit, fault.code.as_str()), (Some(0), code), "{fault:?}");
        assert!(harness.root().join(format!("workitems/job/job-1/t{uid}/fileuploaderr.txt")).exists());
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_run_that_may_not_publish_uploads_nothing() {
    let mut harness = with_blobs().await;
    harness.change_script(|script| script.may_publish = false);
    let output_files = vec![output("o", "s3://users", None, UploadCondition::TaskCompletion)];
    let command_line = "/bin/sh -c 'echo 1 > o'".into();
    harness.release(&task_with(1, TaskSpec { command_line, output_files, ..TaskSpec::default() })).await;
    assert!(matches!(harness.finished().await.outcome, Outcome::Upload { .. }));
    assert!(harness.blobs.as_ref().unwrap().list("users", "", None, 10).await.unwrap().blobs.is_empty());
    harness.stop().await;
}

#[tokio::test]
async fn files_are_read_and_forgotten_on_request() {
    let mut harness = Harness::with_agent(1).await;
    harness.release(&task(1, "/bin/echo hello")).await;
    harness.finished().await;
    let mut answers = harness.link.subscribe(Subscription::private(vec![], 16)).await.unwrap();
    let queue = answers.queue_name().borrow().clone().unwrap();
    let request = FileRequest::Read { path: "workitems/job/job-1/t1/stdout.txt".into(), offset: 1, length: 3 };
    let control = Control { v: VERSION, what: ControlKind::File(request) };
    let outgoing = Outgoing::message(topology::CONTROL, topology::node_key(&pool(), &node()), &control).unwrap();
    harness.link.publisher().publish(outgoing.reply_to(queue).correlation("c1")).await.unwrap();
    let delivery = answers.next().await.unwrap();
    assert_eq!(delivery.correlation_id.as_deref(), Some("c1"));
    let FileReply::Chunk { entry, bytes } = delivery.format.read(&delivery.body).unwrap() else { panic!() };
    assert_eq!((entry.length, bytes.as_slice()), (6, &b"ell"[..]));
    let folder = harness.root().join("workitems/job/job-1/t1");
    harness.control(forget(Some("t1"), 1)).await;
    while folder.exists() {
        tokio::task::yield_now().await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn an_order_to_forget_that_comes_late_spares_what_has_the_name_by_now() {
    let mut harness = Harness::with_agent(1).await;
    let folder = |task: &str| harness.root().join("workitems/job/job-1").join(task);
    let (old, new) = (folder("t1"), folder("t2"));
    harness.release(&task(1, "/bin/true")).await;
    harness.finished().await;
    let command_line = "/bin/sh -c 'echo kept > made; until [ -e go ]; do sleep 0.02; done; cat made'".to_owned();
    harness.release(&TaskMessage { task: "t2".parse().unwrap(), ..task(5, &command_line) }).await;
    while !new.join("wd/made").exists() {
        tokio::task::yield_now().await;
    }
    harness.control(forget(Some("t2"), 4)).await;
    harness.control(forget(None, 4)).await;
    while old.exists() {
        tokio::task::yield_now().await;
    }
    std::fs::write(new.join("wd/go"), "").unwrap();
    let finished = harness.finished().await;
    assert_eq!(finished.outcome, Outcome::Exit { code: 0 });
    assert_eq!(finished.stdout, contract::outcome::Stream::Inline { bytes: b"kept\n".to_vec() });
    // The task has ended, and its files are kept.
    harness.release(&task(1, "/bin/true")).await;
    harness.finished().await;
    harness.control(forget(None, 4)).await;
    while old.exists() {
        tokio::task::yield_now().await;
    }
    assert!(new.join("wd/made").exists());
    harness.control(forget(None, 5)).await;
    while new.exists() {
        tokio::task::yield_now().await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_file_whose_name_no_key_can_have_fails_the_upload_and_all_others_arrive() {
    let mut harness = with_blobs().await;
    let output_files = vec![
        output("*.out", "s3://users", Some("results"), UploadCondition::TaskCompletion),
        output("*.out", "s3://users", Some("failed"), UploadCondition::TaskFailure),
    ];
    let command_line = r#"/bin/sh -c 'echo 1 > b.out; echo 2 > "$(printf "a\377.out")"'"#.into();
    harness.release(&task_with(1, TaskSpec { command_line, output_files, ..TaskSpec::default() })).await;
    let Outcome::Upload { code, fault } = harness.finished().await.outcome else { panic!("left out without a word") };
    assert_eq!((code, fault.code.as_str()), (Some(0), "FileUploadMiscError"));
    assert!(fault.message.contains("UTF-8") && fault.details[0].1.contains("wd/a\u{fffd}.out"), "{fault:?}");
    let listing = harness.blobs.as_ref().unwrap().list("users", "", None, 10).await.unwrap();
    let keys: Vec<String> = listing.blobs.into_iter().map(|blob| blob.key).collect();
    assert_eq!(keys, ["results/b.out"]);
    let log = std::fs::read_to_string(harness.root().join("workitems/job/job-1/t1/fileuploadout.txt")).unwrap();
    assert!(log.contains("*.out: 1 files left out, for their names are not UTF-8: wd/a\u{fffd}.out"), "{log}");
    harness.stop().await;
}
