//! Looks after the house: stairs go down only, every module has a header, generated files are fresh,
//! links in the documents lead somewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Crate, folder, and what it may use of the house.
const FLOORS: &[(&str, &str, &[&str])] = &[
    ("piecework", ".", &["autoscaler", "broker-config", "dispatcher", "embedded-blobs", "embedded-broker", "node-agent"]),
    ("dispatcher", "dispatcher", &["broker-config"]),
    ("node-agent", "node-agent", &["broker-config"]),
    ("autoscaler", "autoscaler", &["broker-config"]),
    ("broker-config", "broker-config", &[]),
    ("embedded-broker", "embedded/broker", &[]),
    ("embedded-blobs", "embedded/blobs", &[]),
];

/// Near this many lines a file is asked which second idea moved in; beyond it the answer must be given here.
const LINES_MAX: usize = 600;

/// Files that are longer, each with the reason.
const LONG: &[(&str, &str)] = &[("broker-config/src/message.rs", "every message in one place, mostly documentation")];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a folder with an extension, without what is built.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') && name != "node_modules" {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join(folder).join("src"), "rs", &mut found);
    found
}

/// The names in one table of a manifest.
fn table(manifest: &str, name: &str) -> Vec<String> {
    let header = format!("[{name}]");
    let lines = manifest.lines().skip_while(|line| line.trim() != header).skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

#[test]
fn manifests_use_only_the_floors_below() {
    let house: Vec<&str> = FLOORS.iter().map(|(name, ..)| *name).collect();
    for (name, folder, may_use) in FLOORS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        for used in table(&manifest, "dependencies").iter().filter(|used| house.contains(&used.as_str())) {
            assert!(may_use.contains(&used.as_str()), "{name} uses {used}: that stair goes the wrong way");
        }
    }
}

#[test]
fn use_lines_name_only_the_floors_below() {
    for (name, folder, may_use) in FLOORS {
        for (other, ..) in FLOORS.iter().filter(|(other, ..)| other != name && !may_use.contains(other)) {
            let path = format!("{}::", other.replace('-', "_"));
            for file in sources(folder) {
                let text = read(&file);
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let names = code.lines().any(|line| {
                    let line = line.trim_start();
                    !line.starts_with("//")
                        && line.find(&path).is_some_and(|at| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
                });
                assert!(!names, "{} names {other}: that stair goes the wrong way", file.display());
            }
        }
    }
}

#[test]
fn the_rules_of_the_dispatcher_are_pure() {
    for file in sources("dispatcher").iter().filter(|file| file.starts_with(root().join("dispatcher/src/core"))) {
        let text = read(file);
        for forbidden in ["std::fs", "std::net", "tokio::", "async fn", ".await", "Timestamp::now", "Instant::now", "SystemTime", "rand::"]
        {
            let found = text
                .split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .lines()
                .find(|line| !line.trim_start().starts_with("//") && line.contains(forbidden));
            let is_test = file.to_string_lossy().contains("simulation") || file.ends_with("tests.rs");
            assert!(is_test || found.is_none(), "{}: {forbidden} in {:?}", file.display(), found);
        }
    }
}

#[test]
fn every_module_opens_with_a_header() {
    for (_, folder, _) in FLOORS {
        for file in sources(folder) {
            let text = read(&file);
            let header = text.lines().take_while(|line| line.starts_with("//!")).count();
            assert!(header > 0, "{} has no header", file.display());
            let is_crate_root = file.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs");
            assert!(header <= if is_crate_root { 40 } else { 16 }, "{}: a header of {header} lines is a chapter", file.display());
        }
    }
}

#[test]
fn no_file_holds_a_second_idea() {
    for (_, folder, _) in FLOORS {
        for file in sources(folder) {
            let name = file.strip_prefix(root()).expect("a file of the house").to_string_lossy().into_owned();
            let lines = read(&file).lines().count();
            assert!(
                lines <= LINES_MAX || LONG.iter().any(|(long, _)| *long == name),
                "{name} has {lines} lines: which second idea moved in?"
            );
        }
    }
}

#[test]
fn no_module_is_a_drawer_for_odds_and_ends() {
    for (_, folder, _) in FLOORS {
        for file in sources(folder) {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            assert!(!["utils", "util", "common", "helpers", "misc"].contains(&stem.as_str()), "{}", file.display());
        }
    }
}

#[test]
fn nothing_unwraps_outside_tests() {
    for (_, folder, _) in FLOORS {
        for file in sources(folder) {
            let name = file.to_string_lossy().into_owned();
            if name.contains("/simulation") || name.ends_with("/tests.rs") || name.contains("/tests/") {
                continue;
            }
            let text = read(&file);
            for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.contains("#[cfg(test)]")) {
                let code = line.split("//").next().unwrap_or_default();
                for forbidden in [".unwrap()", "todo!(", "unimplemented!("] {
                    assert!(!code.contains(forbidden), "{name}:{}: {forbidden}", number + 1);
                }
            }
        }
    }
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut documents = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files(&root().join("docs"), "md", &mut documents);
    files(&root().join("examples"), "md", &mut documents);
    for document in documents {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = document.parent().expect("a folder").join(target);
            assert!(path.exists(), "{}: {target} leads nowhere", document.display());
        }
    }
}

#[test]
fn dependencies_are_declared_once_in_the_workspace() {
    for (name, folder, _) in FLOORS {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let mut section = String::new();
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.trim().to_owned();
            } else if matches!(section.as_str(), "[dependencies]" | "[dev-dependencies]")
                && !line.trim().is_empty()
                && !line.starts_with('#')
            {
                assert!(line.contains("workspace = true"), "{name}: {line:?} names a version of its own");
            }
        }
    }
}

#[test]
fn generated_files_are_fresh() {
    let generated: BTreeMap<&str, String> = BTreeMap::from([
        ("docs/topology.md", topology()),
        ("docs/openapi.json", dispatcher::http::openapi()),
        ("docs/azure-batch-compatibility.md", dispatcher::http::compatibility()),
    ]);
    for (name, wanted) in generated {
        let path = root().join(name);
        if std::env::var_os("PIECEWORK_REGENERATE").is_some() {
            fs::write(&path, &wanted).expect("a writable document");
        }
        assert_eq!(read(&path), wanted, "{name} is stale: run PIECEWORK_REGENERATE=1 cargo test --test tidy");
    }
}

/// The road as a document, written from the data that declares it.
fn topology() -> String {
    use broker_config::topology::{Argument, QueueKind, base, pool};
    let mut text = String::from(
        "# Exchanges and queues\n\nWritten from `broker-config/src/topology.rs`; a test compares.\n\n| Exchange | Kind |\n| --- | --- |\n",
    );
    let base = base();
    for exchange in &base.exchanges {
        text += &format!("| `{}` | {:?} |\n", exchange.name, exchange.kind);
    }
    text += "\n| Queue | Bound to | Arguments |\n| --- | --- | --- |\n";
    let pool = pool(&"POOL".parse().expect("an id"), QueueKind::Classic);
    for queue in base.queues.iter().chain(&pool.queues) {
        let bindings: Vec<String> = queue.bindings.iter().map(|(exchange, key)| format!("`{exchange}` by `{key}`")).collect();
        let arguments: Vec<String> = queue
            .arguments
            .iter()
            .map(|(name, value)| match value {
                Argument::Number(number) => format!("`{name}` = {number}"),
                Argument::Text(text) => format!("`{name}` = `{text}`"),
            })
            .collect();
        text += &format!("| `{}` | {} | {} |\n", queue.name.replace("pool.pool", "pool.POOL"), bindings.join(", "), arguments.join(", "));
    }
    text
}
