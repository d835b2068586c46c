//! The compatibility page, kept as `docs/azure-batch-compatibility.md`.

use std::fmt::Write;

use crate::{
    document::{
        effects::paths,
        operations::{Extent, Operation},
    },
    routes::{ROUTES, Route, Served},
    schema::{self, Effect, Shape},
    version::{GIVEN_UP, Version},
};

const INTRODUCTION: &str = "\
# Azure Batch compatibility

<!-- Written by the table that routes requests; `PIECEWORK_REGENERATE=1 cargo test --test tidy` writes it again. -->

The API serves the data plane of Azure Batch to unmodified clients: azure-batch 14 and 15 (Python), `az batch`, `@azure/batch` (Node), Airflow's AzureBatchOperator.
API versions 2020-03-01.11.0, 2022-10-01.16.0, 2024-02-01.19.0, 2024-07-01.20.0 and 2025-06-01 are accepted, and others of the same form; one model serves them all, and answers leave out what a version lacks (see the end).
Azure's management plane (accounts, quotas, ARM templates) is not part of it.
";

/// Writes the page.
pub fn compatibility() -> String {
    let mut page = INTRODUCTION.to_owned();
    let azures: Vec<&Route> = ROUTES.iter().filter(|route| !route.is_ours()).collect();
    let (mut whole, mut partly) = (0, 0);
    for route in &azures {
        match level(route).0 {
            "yes" => whole += 1,
            "partly" => partly += 1,
            _ => {}
        }
    }
    let total = azures.len();
    writeln!(page, "\n{total} operations: {whole} yes, {partly} partly, {} no.", total - whole - partly).expect("a text grows");
    table(&mut page, "Azure Batch's operations", &azures);
    let ours: Vec<&Route> = ROUTES.iter().filter(|route| route.is_ours()).collect();
    table(&mut page, "Piecework's own operations", &ours);
    effects(&mut page);
    extensions(&mut page);
    versions(&mut page);
    page
}

fn extensions(page: &mut String) {
    page.push_str("\n## Piecework's own properties\n\nIn bodies and answers below `piecework`, as in `\"piecework\": {\"freshDirectory\": true}`; clients that do not know them leave them alone.\n\n");
    page.push_str("| Of | Property | Effect |\n|---|---|---|\n");
    for (_, name, effect) in entries(|shape, name| match shape.property(name)?.effect {
        Effect::Ours(effect) => Some(effect.to_owned()),
        _ => None,
    }) {
        writeln!(page, "| tasks, job manager tasks | {name} | {effect} |").expect("a text grows");
    }
}

fn table(page: &mut String, title: &str, routes: &[&Route]) {
    write!(
        page,
        "\n## {title}\n\n| Operation | Request | Served | Taken without effect | What is missing, or why not |\n|---|---|---|---|---|\n"
    )
    .expect("a text grows");
    for route in routes {
        let (level, note) = level(route);
        let idle = idle(route);
        writeln!(page, "| {} | `{} {}` | {level} | {idle} | {note} |", route.name, route.method, route.path.replace('*', ""))
            .expect("a text grows");
    }
}

/// Properties and parameters of an operation that have no effect.
fn idle(route: &Route) -> String {
    match (route.served, Operation::of(route.name)) {
        (Served::Yes(_), Some(Operation { takes: Some(shape), extent, .. })) if !matches!(extent, Extent::Refuses(_)) => {
            paths(shape.trim_end_matches('!')).join(", ")
        }
        _ => String::new(),
    }
}

/// Every property without effect, and why.
fn effects(page: &mut String) {
    page.push_str("\n## Fields without effect\n\nThese are checked, kept and shown, and change nothing else; what would promise something that nobody keeps is refused.\n");
    page.push_str("`displayName` and `metadata` are there to be shown, and are not listed.\n\n| Of | Field | Why |\n|---|---|---|\n");
    for (of, field, why) in entries(|shape, name| match shape.property(name)?.effect {
        Effect::Ignored(why) if shape.beside.is_empty() => Some(why.to_owned()),
        _ => None,
    }) {
        writeln!(page, "| {of} | {field} | {why} |").expect("a text grows");
    }
    page.push_str("\n## Fields that nobody knows\n\nA property that the operation does not have, a misspelt one, is not read.\n");
    page.push_str("The answer names such properties in its header `piecework-ignored`: their paths, divided by commas, percent-encoded where a header needs it, sixteen at most and how many more there are; a refusal has them among its `values`, as `IgnoredProperties`.\n");
    page.push_str("A request with the header `piecework-strict: true` is refused instead, with 400 `UnsupportedProperty`, and changes nothing; a collection with one such task is refused as a whole.\n");
    page.push_str("\n## Rows that cannot be read\n\nA list leaves out rows that the store cannot read any more, and names them in the header `piecework-unreadable`: table, key and column, sixteen at most and how many more there are; `piecework doctor` says what to do about each.\n");
}

/// Differences between API versions.
fn versions(page: &mut String) {
    page.push_str("\n## Versions\n\nEvery field is taken from every client, and newer operations are served to older versions, too; answers to versions outside these bounds leave the field out, and what a newer version gave up is not found.\n");
    page.push_str("`GET /jobs/{job}/taskcounts` answers the counts of tasks alone, without an object around them, before 2020-09-01.\n");
    page.push_str("Pools that jobs and job schedules bring along (`autoPoolSpecification`) have the fields of CloudPool.\n\n");
    page.push_str("| Of | Field or operation | In versions |\n|---|---|---|\n");
    for (of, name, bounds) in entries(in_versions) {
        writeln!(page, "| {of} | {name} | {bounds} |").expect("a text grows");
    }
    for (name, end) in GIVEN_UP {
        writeln!(page, "| operations | {name} | before {end} |").expect("a text grows");
    }
}

fn in_versions(shape: &Shape, name: &str) -> Option<String> {
    let property = shape.property(name).or_else(|| shape.beside.iter().find(|property| property.name == name))?;
    match (property.since.map(Version), property.until.map(Version)) {
        (None, None) => None,
        (Some(first), None) => Some(format!("{first} and later")),
        (None, Some(end)) => Some(format!("before {end}")),
        (Some(first), Some(end)) => Some(format!("{first} and later, before {end}")),
    }
}

/// What `say` returns for each entry, with the shapes that contain it.
fn entries(say: impl Fn(&Shape, &str) -> Option<String>) -> Vec<(String, &'static str, String)> {
    let mut found: Vec<(Vec<&str>, &str, String)> = Vec::new();
    for shape in schema::shapes() {
        for property in shape.properties.iter().chain(&shape.beside) {
            let Some(said) = say(shape, property.name) else { continue };
            match found.iter_mut().find(|(_, name, known)| *name == property.name && *known == said) {
                Some((shapes, ..)) => shapes.push(shape.name),
                None => found.push((vec![shape.name], property.name, said)),
            }
        }
    }
    found.into_iter().map(|(shapes, name, said)| (shapes.join(", "), name, said)).collect()
}

fn level(route: &Route) -> (&'static str, &'static str) {
    match (route.served, Operation::of(route.name).map(|row| row.extent)) {
        (Served::NotYet(hint), _) => ("no", hint),
        (_, Some(Extent::But(missing))) => ("partly", missing),
        (_, Some(Extent::Refuses(why))) => ("no", why),
        _ => ("yes", ""),
    }
}
