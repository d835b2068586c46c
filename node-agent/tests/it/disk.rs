//! Tasks that fill the node's disk.

use contract::{
    message::DISK_FULL,
    outcome::{Outcome, Stream},
};
use node_agent::DiskLimits;

use crate::stage::{Stage, task};

#[tokio::test]
async fn one_run_is_ended_for_want_of_room_and_its_working_directory_goes() {
    let mut stage = Stage::set(3).await;
    // No disk has that much free space.
    stage.disk_limits = DiskLimits { free_bytes_min: u64::MAX, ..DiskLimits::default() };
    stage.start_agent();
    stage.report().await;
    for uid in [1, 2] {
        stage.release(&task(uid, "/bin/sh -c 'echo said; head -c 40000000 /dev/zero > large; exec sleep 600'")).await;
    }
    let ended = stage.finished().await;
    let Outcome::Launch(fault) = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(fault.code, DISK_FULL, "{fault:?}");
    assert_eq!(ended.stdout, Stream::Inline { bytes: b"said\n".to_vec() });
    let folder = |uid: u64| stage.root().join(format!("workitems/job/job-1/t{uid}"));
    let (gone, other) = (folder(ended.uid.0), 3 - ended.uid.0);
    stage.heartbeat(|heartbeat| heartbeat.live.iter().map(|run| run.uid.0).eq([other])).await;
    assert!(!gone.join("wd").exists(), "what it wrote takes room");
    assert_eq!(std::fs::read_to_string(gone.join("stdout.txt")).unwrap(), "said\n");
    while std::fs::read_dir(stage.root().join("volatile/trash")).unwrap().next().is_some() {
        tokio::task::yield_now().await;
    }
    stage.release(&task(3, "/bin/true")).await;
    assert_eq!(stage.finished().await.outcome, Outcome::Exit { code: 0 }, "who takes little is not to blame");
    stage.strike().await;
}

#[tokio::test]
async fn a_deleted_file_that_a_task_holds_open_counts_for_its_folder() {
    let mut stage = Stage::set(1).await;
    stage.disk_limits = DiskLimits { folder_bytes_max: Some(16 << 20), ..DiskLimits::default() };
    stage.start_agent();
    stage.report().await;
    stage.release(&task(1, "/bin/sh -c 'exec 3>f; rm f; head -c 40000000 /dev/zero >&3; exec sleep 600'")).await;
    let ended = stage.finished().await;
    let Outcome::Launch(fault) = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(fault.code, DISK_FULL, "{fault:?}");
    stage.strike().await;
}
