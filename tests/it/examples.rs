//! The examples on real input: video clips made by ffmpeg, and the text files that Debian packages install.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::stack::{PIECEWORK, Stack, skip, text};

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

fn has(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn python() -> String {
    std::env::var("PIECEWORK_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn clips(folder: &Path) -> Vec<String> {
    let made = Command::new(example("transcode/make-clips.sh")).arg(folder).output().unwrap();
    assert!(made.status.success(), "{:?}", text(&made));
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names.len(), 24);
    names
}

/// The height of a playable video.
fn height(path: &Path) -> u32 {
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=height", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    let (out, err) = text(&probe);
    assert!(probe.status.success() && err.is_empty(), "{}: {err}", path.display());
    out.trim().trim_end_matches(',').parse().unwrap_or_else(|_| panic!("{}: {out:?}", path.display()))
}

fn is_broken(stem: &str) -> bool {
    stem.ends_with("-cut") || stem.ends_with("-text")
}

#[test]
fn a_folder_of_clips_is_transcoded_by_map_and_broken_ones_are_named() {
    if !has("ffmpeg", &["-version"]) {
        return skip("a_folder_of_clips_is_transcoded_by_map_and_broken_ones_are_named", "needs ffmpeg");
    }
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("clips"), folder.path().join("out"));
    let stems = clips(&input);
    let mapped = Command::new(example("transcode/map.sh"))
        .arg(&input)
        .arg(&out)
        .env("PIECEWORK", PIECEWORK)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let (_, err) = text(&mapped);
    assert_eq!(mapped.status.code(), Some(1), "two clips are broken: {err}");
    for stem in &stems {
        for (place, extension, wanted) in [("240p", "mp4", 240), ("120p", "mp4", 120)] {
            let path = out.join(place).join(format!("{stem}.{extension}"));
            assert_eq!(path.exists(), !is_broken(stem), "{}\n{err}", path.display());
            if path.exists() {
                assert_eq!(height(&path), wanted);
            }
        }
        assert_eq!(out.join("thumbs").join(format!("{stem}.jpg")).exists(), !is_broken(stem), "{stem}");
        assert_eq!(err.contains(&format!("{stem}.mp4")), is_broken(stem), "failures are listed by name: {err}");
    }
    assert!(err.contains("moov atom not found") || err.contains("Invalid data found"), "ffmpeg's own words: {err}");
}

#[test]
fn a_folder_of_clips_is_transcoded_as_a_job_with_resource_and_output_files() {
    let name = "a_folder_of_clips_is_transcoded_as_a_job_with_resource_and_output_files";
    if !has("ffmpeg", &["-version"]) || !has(&python(), &["-c", "import azure.batch"]) {
        return skip(name, "needs ffmpeg and Python with azure-batch 14.2.0");
    }
    let stack = Stack::start();
    let (input, out) = (stack.scratch().join("clips"), stack.scratch().join("out"));
    let stems = clips(&input);
    let done = Command::new(python()).arg(example("transcode/job.py")).arg(stack.ready_file()).arg(&input).arg(&out).output().unwrap();
    let (report, err) = text(&done);
    assert!(done.status.success(), "{report}\n{err}");
    let report: BTreeMap<String, serde_json::Value> = serde_json::from_str(&report).unwrap();
    for stem in &stems {
        let entry = &report[stem];
        assert_eq!(entry["result"] == "success", !is_broken(stem), "{stem}: {entry}");
        if is_broken(stem) {
            let words = entry["stderr"].as_str().unwrap();
            assert!(words.contains("moov atom not found") || words.contains("Invalid data found"), "{words}");
            assert!(entry["reason"].as_str().unwrap().contains("exit code"), "{entry}");
        } else {
            assert_eq!(height(&out.join(format!("{stem}.240p.mp4"))), 240);
            assert_eq!(height(&out.join(format!("{stem}.120p.mp4"))), 120);
            assert!(out.join(format!("{stem}.jpg")).exists());
        }
    }
    stack.stop();
}

#[test]
fn words_are_counted_with_fan_in_as_sort_and_uniq_count_them() {
    let name = "words_are_counted_with_fan_in_as_sort_and_uniq_count_them";
    if !has(&python(), &["-c", "import azure.batch"]) {
        return skip(name, "needs Python with azure-batch 14.2.0");
    }
    let mut files: Vec<PathBuf> =
        fs::read_dir("/usr/share/common-licenses").map(|folder| folder.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
    files.extend(fs::read_dir("/usr/share/doc").unwrap().map(|entry| entry.unwrap().path().join("copyright")).take(60));
    files.retain(|file| file.is_file());
    files.sort();
    assert!(files.len() > 20, "a Debian machine has texts");
    let stack = Stack::start();
    let total = stack.scratch().join("total.txt");
    let done =
        Command::new(python()).arg(example("wordcount/wordcount.py")).arg(stack.ready_file()).arg(&total).args(&files).output().unwrap();
    assert!(done.status.success(), "{:?}", text(&done));
    let script = "LC_ALL=C tr -cs A-Za-z '\\n' | LC_ALL=C tr A-Z a-z | LC_ALL=C sort | uniq -c | awk '{print $1, $2}' | LC_ALL=C sort -k2";
    let all = format!("for file in \"$@\"; do LC_ALL=C tr -cs A-Za-z '\\n' < \"$file\"; done | {script}");
    let wanted = Command::new("sh").arg("-c").arg(all).arg("sh").args(&files).output().unwrap();
    let counts = |text: &str| text.lines().filter(|line| line.contains(' ') && !line.ends_with(' ')).map(str::to_owned).collect::<Vec<_>>();
    let (found, wanted) = (counts(&fs::read_to_string(&total).unwrap()), counts(&text(&wanted).0));
    assert!(wanted.len() > 1000);
    assert_eq!(found, wanted);
    stack.stop();
}

#[test]
fn files_dropped_into_a_bucket_become_rows_though_every_second_notification_is_thrown_away() {
    let name = "files_dropped_into_a_bucket_become_rows_though_every_second_notification_is_thrown_away";
    if !has("rclone", &["version"]) || !has("python3", &["-c", "import sqlite3"]) {
        return skip(name, "needs rclone and Python with sqlite3");
    }
    let stack = Stack::start();
    let (folder, table) = (stack.scratch().join("texts"), stack.scratch().join("files.sqlite"));
    fs::create_dir(&folder).unwrap();
    let texts = fs::read_dir("/usr/share/doc").unwrap().map(|entry| entry.unwrap().path().join("copyright"));
    for (number, text) in texts.filter(|text| text.is_file()).take(200).enumerate() {
        fs::copy(text, folder.join(format!("{number} copyright.txt"))).unwrap();
    }
    let files = fs::read_dir(&folder).unwrap().count() as u64;
    assert!(files > 20, "a Debian machine has texts");
    let done = Command::new("python3")
        .arg(example("ingest/ingest.py"))
        .args([stack.ready_file(), table, folder])
        .arg("--lose")
        .envs([("PIECEWORK", PIECEWORK), ("PATIENCE", "120")])
        .output()
        .unwrap();
    let (report, err) = text(&done);
    assert!(done.status.success(), "{report}\n{err}\n{}", stack.log());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    // An invocation may run twice on a machine that is slow; that a trigger starts it once may not depend on that.
    let counts = ["files", "rows", "missing", "different", "fired"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(counts, [files, files, 0, 0, files], "{report}\n{}", stack.log());
    assert!(report["byListing"].as_u64() >= Some(files / 2), "{report}");
    stack.stop();
}
