//! Files of a stack are readable by its user alone, and its log has no secret.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::stack::{PIECEWORK, Stack, text};

/// Everything below a folder that others have any permission for; below `workitems`, and in the trash where they go from
/// there, the files are the tasks' own.
fn open_to_others(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        assert!(!folder.exists(), "{} cannot be read", folder.display());
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        // What goes away meanwhile is nobody's to read.
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if !metadata.is_symlink() && mode & 0o077 != 0 {
            found.push(format!("{} {mode:o}", entry.path().display()));
        }
        if metadata.is_dir() && entry.file_name() != "workitems" && entry.file_name() != "trash" {
            open_to_others(&entry.path(), found);
        }
    }
}

#[test]
fn the_data_folder_is_for_its_owner_only_and_the_key_is_told_nowhere() {
    let stack = Stack::start();
    let out = stack.command().args(["run", "--", "sh", "-c", "umask; cat /proc/self/status | grep Umask"]).output().unwrap();
    let (stdout, stderr) = text(&out);
    assert!(out.status.success(), "{stderr}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("Umask")).unwrap();
    assert!(stdout.contains(own), "tasks have the umask that the stack was started with, {own}: {stdout}");

    let mut found = Vec::new();
    open_to_others(stack.data().parent().unwrap(), &mut found);
    found.retain(|path| path.starts_with(&*stack.data().to_string_lossy()));
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(fs::metadata(stack.ready_file()).unwrap().permissions().mode() & 0o777, 0o600);

    let log = stack.log();
    let secrets = fs::read_to_string(stack.data().join("secrets.json")).unwrap();
    let secrets: serde_json::Value = serde_json::from_str(&secrets).unwrap();
    assert!(log.contains(&*stack.data().join("secrets.json").to_string_lossy()), "where the key stands: {log}");
    for name in ["key", "broker_password", "s3_access_key", "s3_secret_key"] {
        assert!(!log.contains(secrets[name].as_str().unwrap()), "{name} stands in the log");
    }
    stack.stop();
}

#[test]
fn a_part_may_be_on_another_disk_by_a_link_whose_target_is_closed_to_others() {
    let disk = tempfile::tempdir().unwrap();
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let stack = Stack::start_after(|data| {
        fs::create_dir_all(data).unwrap();
        std::os::unix::fs::symlink(disk.path(), data.join("blobs")).unwrap();
    });
    assert!(disk.path().join("catalog.sqlite").exists());
    assert_eq!(fs::metadata(disk.path()).unwrap().permissions().mode() & 0o777, 0o700);
    stack.stop();
}

#[test]
fn a_link_that_leads_nowhere_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(folder.path().join("unmounted"), data.join("dispatcher")).unwrap();
    let out = Command::new(PIECEWORK).args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data).output().unwrap();
    let (_, reason) = text(&out);
    assert!(!out.status.success() && reason.contains("unmounted") && reason.contains("make a folder there"), "{reason}");
}
