//! Tasks that fill the node's disk.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use contract::{
    message::DISK_FULL,
    outcome::{Outcome, Stream},
    spec::{ResourceFile, TaskSpec},
};
use node_agent::DiskLimits;

use crate::{
    harness::{Harness, task, task_with},
    packages::{package, put, zip},
};

/// A disk in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one; nothing without the right to.
    fn mount(path: &Path, megabytes: u32) -> Option<Disk> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "piecework-test"]).arg(path).output().ok()?;
        mounted.status.success().then(|| Disk(path.to_owned()))
    }

    /// Writes until no more than about this many bytes fit.
    fn fill_but(&self, left: u64) {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        let room = (space.f_bavail * space.f_frsize).saturating_sub(left);
        File::create(self.0.join("filling")).unwrap().write_all(&vec![0; room as usize]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).output().unwrap();
    }
}

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

#[tokio::test]
async fn inputs_and_packages_for_which_others_left_no_room_are_the_nodes_fault_and_come_with_room() {
    let mount = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(mount.path(), 64) else {
        eprintln!("this test may not mount a disk, and was not run");
        return;
    };
    let mut harness = Harness::new(1).await;
    harness.other_root = Some(mount.path().join("node"));
    harness.add_blobs().await;
    // Eight megabytes that hardly can be packed, and as many that nearly vanish.
    let mut state = 1u32;
    let mut digit = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from_digit(state >> 28, 16).unwrap()
    };
    let dense: String = (0..8 << 20).map(|_| digit()).collect();
    let (large, wide) = (package("1", false, "large"), package("2", false, "wide"));
    put(&harness, &large, zip(&[("data", &dense)])).await;
    put(&harness, &wide, zip(&[("data", &"x".repeat(8 << 20))])).await;
    harness.blobs.as_ref().unwrap().put("users", "inputs/data", dense.into_bytes().into()).await.unwrap();
    harness.start_agent();
    harness.report().await;
    let input = ResourceFile { storage_container_url: Some("s3://users/inputs".into()), ..ResourceFile::default() };
    let of = |packages, resource_files| TaskSpec { command_line: "/bin/true".into(), packages, resource_files, ..TaskSpec::default() };
    let specs = [of(vec![large], vec![]), of(vec![wide], vec![]), of(vec![], vec![input])];
    disk.fill_but(2 << 20);
    for (uid, spec) in (1..).zip(&specs) {
        harness.release(&task_with(uid, spec.clone())).await;
        let ended = harness.finished().await;
        let Outcome::Node(fault) = &ended.outcome else { panic!("{uid}: {ended:?}") };
        assert_eq!(fault.code, DISK_FULL, "{uid}: {fault:?}");
    }
    fs::remove_file(mount.path().join("filling")).unwrap();
    for (uid, spec) in (4..).zip(specs) {
        harness.release(&task_with(uid, spec)).await;
        assert_eq!(harness.finished().await.outcome, Outcome::Exit { code: 0 }, "{uid}");
    }
    harness.stop().await;
}
