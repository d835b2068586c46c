//! Keeps the repository in order: dependencies point down only, every module has a header, generated files are fresh,
//! links in the documents lead somewhere.

#[path = "tidy/imports.rs"]
mod imports;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Crate, folder, and the crates of ours that it may use.
const CRATES: &[(&str, &str, &[&str])] = &[
    (
        "piecework",
        ".",
        &[
            "api",
            "autoscaler",
            "broker-config",
            "clients",
            "contract",
            "dispatcher",
            "embedded-blobs",
            "embedded-broker",
            "engine",
            "model",
            "node-agent",
            "providers",
        ],
    ),
    ("dispatcher", "dispatcher", &["api", "broker-config", "clients", "contract", "engine", "model", "scheduler", "store"]),
    ("api", "dispatcher/api", &["broker-config", "clients", "contract", "engine", "model", "scaling", "store"]),
    ("engine", "dispatcher/engine", &["broker-config", "clients", "contract", "model", "scaling", "scheduler", "store"]),
    ("store", "dispatcher/store", &["broker-config", "contract", "model"]),
    ("scheduler", "dispatcher/scheduler", &["contract", "model"]),
    ("model", "dispatcher/model", &["contract"]),
    ("autoscaler", "autoscaler", &["broker-config", "clients", "contract", "providers"]),
    ("providers", "autoscaler/providers", &["broker-config", "contract"]),
    ("scaling", "autoscaler/scaling", &["contract"]),
    ("node-agent", "node-agent", &["broker-config", "clients", "contract"]),
    ("clients", "broker-config/clients", &["broker-config", "contract"]),
    ("broker-config", "broker-config", &["contract"]),
    ("contract", "broker-config/contract", &[]),
    ("embedded-broker", "embedded/broker", &[]),
    ("embedded-blobs", "embedded/blobs", &[]),
];

/// Near this many lines a file is asked which second idea moved in; beyond it the answer must be given here.
const LINES_MAX: usize = 600;

/// Files that are longer, each with the reason.
const LONG: &[(&str, &str)] = &[];

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
fn manifests_use_only_the_layers_below() {
    let ours: Vec<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    for (name, folder, may_use) in CRATES {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        for used in table(&manifest, "dependencies").iter().filter(|used| ours.contains(&used.as_str())) {
            assert!(may_use.contains(&used.as_str()), "{name} uses {used}: dependencies point down only");
        }
    }
}

#[test]
fn use_lines_name_only_the_layers_below() {
    for (name, folder, may_use) in CRATES {
        for (other, ..) in CRATES.iter().filter(|(other, ..)| other != name && !may_use.contains(other)) {
            let path = format!("{}::", other.replace('-', "_"));
            // The modules of the simulation are named after the parts that they play.
            for file in sources(folder).into_iter().filter(|file| !file.to_string_lossy().contains("/simulation/")) {
                let text = read(&file);
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let names = code.lines().any(|line| {
                    let line = line.trim_start();
                    !line.starts_with("//")
                        && line.find(&path).is_some_and(|at| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'))
                });
                assert!(!names, "{} names {other}: dependencies point down only", file.display());
            }
        }
    }
}

#[test]
fn rules_and_formulas_are_pure() {
    for file in sources("dispatcher/scheduler").iter().chain(&sources("dispatcher/model")).chain(&sources("autoscaler/scaling")) {
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
    for (_, folder, _) in CRATES {
        for file in sources(folder) {
            let text = read(&file);
            let header = text.lines().take_while(|line| line.starts_with("//!")).count();
            assert!(header > 0, "{} has no header", file.display());
            let is_crate_root = file.file_name().is_some_and(|name| name == "lib.rs" || name == "main.rs");
            assert!(header <= if is_crate_root { 40 } else { 16 }, "{}: a header of {header} lines is a chapter", file.display());
        }
    }
}

/// Lines of public items without a sentence. Fields, variants and methods say by their names what they are, or have one.
fn undocumented(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let is_item = |line: &str| {
        let Some(words) = line.strip_prefix("pub ") else { return false };
        let mut words = words.split_ascii_whitespace().filter(|word| !matches!(*word, "async" | "unsafe" | "const"));
        line.starts_with("pub const ") || matches!(words.next(), Some("struct" | "enum" | "trait" | "fn" | "static" | "type"))
    };
    let is_documented = |at: usize| {
        let mut above =
            lines[..at].iter().rev().skip_while(|line| line.starts_with("#[") && !line.starts_with("#[doc") || line.ends_with(")]"));
        above.next().is_some_and(|line| line.starts_with("///") || line.starts_with("#[doc"))
    };
    let end = lines.iter().position(|line| *line == "mod tests {").unwrap_or(lines.len());
    (0..end).filter(|at| is_item(lines[*at]) && !is_documented(*at)).map(|at| at + 1).collect()
}

#[test]
fn public_items_are_documented() {
    let mut bare = Vec::new();
    for (_, folder, _) in CRATES {
        for file in sources(folder) {
            let found = undocumented(&read(&file));
            bare.extend(found.into_iter().map(|line| format!("{}:{line}", file.display())));
        }
    }
    assert!(bare.is_empty(), "public items without a sentence: {bare:#?}");
}

#[test]
fn a_public_item_without_a_sentence_is_noticed_and_a_field_is_not() {
    let text =
        "/// A pool.\n#[derive(Debug)]\npub struct Pool {\n    pub id: u32,\n}\n\npub async fn bare() {}\npub const BARE: u32 = 1;\n";
    assert_eq!(undocumented(text), [7, 8]);
}

#[test]
fn no_file_holds_a_second_idea() {
    for (_, folder, _) in CRATES {
        for file in sources(folder) {
            let name = file.strip_prefix(root()).expect("a file of the repository").to_string_lossy().into_owned();
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
    for (_, folder, _) in CRATES {
        for file in sources(folder) {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            assert!(!["utils", "util", "common", "helpers", "misc"].contains(&stem.as_str()), "{}", file.display());
        }
    }
}

#[test]
fn nothing_unwraps_outside_tests() {
    for (_, folder, _) in CRATES {
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

/// The rows of the README's map: what each is called, and where its link leads.
fn map_of(readme: &str) -> Vec<(&str, &str)> {
    let rows = readme.lines().skip_while(|line| *line != "## Find your way").filter_map(|line| line.strip_prefix("| [`"));
    rows.filter_map(|row| row.split_once("`](")).filter_map(|(name, rest)| Some((name, rest.split_once(')')?.0))).collect()
}

/// Crates that the map leaves out, and rows that lead nowhere. A folder that is no crate stands for the crates in it.
fn map_faults(rows: &[(&str, &str)], crates: &[&str], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let stands_for = |row: &str, folder: &str| match folder {
        "." => row == "src",
        folder => row == folder || !crates.contains(&row) && Path::new(folder).parent() == Some(Path::new(row)),
    };
    let missing = crates.iter().filter(|folder| !rows.iter().any(|(row, _)| stands_for(row, folder)));
    let missing = missing.map(|folder| format!("{folder} has no row"));
    let source = |row: &str| format!("{row}/src");
    let wrong = rows.iter().filter(|(row, link)| !exists(link) || *link != *row && *link != source(row));
    missing.chain(wrong.map(|(row, link)| format!("the row {row} leads to {link}"))).collect()
}

#[test]
fn the_map_in_the_readme_is_the_folders() {
    let readme = read(&root().join("README.md"));
    let crates: Vec<&str> = CRATES.iter().map(|(_, folder, _)| *folder).collect();
    let faults = map_faults(&map_of(&readme), &crates, |link| root().join(link).is_dir());
    assert!(faults.is_empty(), "the map in README.md: {}", faults.join(", "));
}

#[test]
fn a_map_that_leaves_out_a_crate_or_leads_nowhere_is_noticed() {
    let rows = map_of("| [`x`](x) | before |\n## Find your way\n\n| [`src`](src) | a |\n| [`a`](a/src) | b |\n| [`e`](e) | c |\n");
    assert_eq!(rows, [("src", "src"), ("a", "a/src"), ("e", "e")]);
    assert!(map_faults(&rows, &[".", "a", "e/b"], |_| true).is_empty());
    assert_eq!(map_faults(&rows, &[".", "a", "a/b", "e/b"], |_| true), ["a/b has no row"]);
    assert_eq!(map_faults(&rows, &[".", "a", "e/b"], |link| link != "a/src"), ["the row a leads to a/src"]);
}

#[test]
fn dependencies_are_declared_once_in_the_workspace() {
    for (name, folder, _) in CRATES {
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
fn metrics_are_recorded_through_the_table_that_describes_them() {
    for (name, folder, _) in CRATES.iter().filter(|(name, ..)| *name != "broker-config") {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let uses = table(&manifest, "dependencies").iter().any(|used| used.starts_with("metrics"));
        assert!(!uses, "{name} uses the crate metrics itself: broker_config::metrics has every metric, described once");
    }
}

#[test]
fn generated_files_are_fresh() {
    let generated: BTreeMap<&str, String> = BTreeMap::from([
        ("docs/topology.md", topology()),
        ("docs/metrics.md", broker_config::metrics::document()),
        ("docs/openapi.json", api::openapi()),
        ("docs/azure-batch-compatibility.md", api::compatibility()),
    ]);
    for (name, wanted) in generated {
        let path = root().join(name);
        if std::env::var_os("PIECEWORK_REGENERATE").is_some() {
            fs::write(&path, &wanted).expect("a writable document");
        }
        assert_eq!(read(&path), wanted, "{name} is stale: run PIECEWORK_REGENERATE=1 cargo test --test tidy");
    }
}

/// The broker as a document, written from the data that declares it.
fn topology() -> String {
    use broker_config::topology::{Argument, QueueKind, base, pool};
    let mut text = String::from(
        "# Exchanges and queues\n\nWritten from `broker-config/src/topology.rs`; a test compares.\n\n| Exchange | Kind |\n| --- | --- |\n",
    );
    let base = base();
    for exchange in &base.exchanges {
        let alternate = exchange.alternate.map(|other| format!(", the rest to `{other}`")).unwrap_or_default();
        text += &format!("| `{}` | {:?}{alternate} |\n", exchange.name, exchange.kind);
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
