//! Tasks that fill the node's disk.

use contract::{
    message::DISK_FULL,
    outcome::{Outcome, Stream},
};
use node_agent::DiskLimits;

use crate::harness::{Harness, task};

#[tokio::test]
async fn one_run_is_ended_for_want_of_room_and_its_working_directory_goes() {
    let mut harness = Harness::new(3).await;
    // No disk has that much free space.
    harness.disk_limits = DiskLimits { free_bytes_min: u64::MAX, ..DiskLimits::default() };
    harness.start_agent();
    harness.report().await;
    for uid in [1, 2] {
        harness.release(&task(uid, "/bin/sh -c 'echo said; head -c 40000000 /dev/zero > large; exec sleep 600'")).await;
    }
    let ended = harness.finished().await;
    let Outcome::Launch(fault) = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(fault.code, DISK_FULL, "{fault:?}");
    assert_eq!(ended.stdout, Stream::Inline { bytes: b"said\n".to_vec() });
    let folder = |uid: u64| harness.root().join(format!("workitems/job/job-1/t{uid}"));
    let (gone, other) = (folder(ended.uid.0), 3 - ended.uid.0);
    harness.heartbeat(|heartbeat| heartbeat.live.iter().map(|run| run.uid.0).eq([other])).await;
    assert!(!gone.join("wd").exists(), "what it wrote takes room");
    assert_eq!(std::fs::read_to_string(gone.join("stdout.txt")).unwrap(), "said\n");
    while std::fs::read_dir(harness.root().join("volatile/trash")).unwrap().next().is_some() {
        tokio::task::yield_now().await;
    }
    harness.release(&task(3, "/bin/true")).await;
    assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 }, "who takes little is not to blame");
    harness.stop().await;
}

#[tokio::test]
async fn a_deleted_file_that_a_task_holds_open_counts_for_its_folder() {
    let mut harness = Harness::new(1).await;
    harness.disk_limits = DiskLimits { folder_bytes_max: Some(16 << 20), ..DiskLimits::default() };
    harness.start_agent();
    harness.report().await;
    harness.release(&task(1, "/bin/sh -c 'exec 3>f; rm f; head -c 40000000 /dev/zero >&3; exec sleep 600'")).await;
    let ended = harness.finished().await;
    let Outcome::Launch(fault) = &ended.outcome else { panic!("{ended:?}") };
    assert_eq!(fault.code, DISK_FULL, "{fault:?}");
    harness.stop().await;
}
