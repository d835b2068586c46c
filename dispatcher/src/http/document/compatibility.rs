//! The page of compatibility, kept as `docs/azure-batch-compatibility.md`.

use std::fmt::Write;

use crate::http::{
    document::operations::{Extent, Operation},
    routes::{ROUTES, Route, Served},
    version::{FIELDS, OPERATIONS, When},
};

const INTRODUCTION: &str = "\
# Azure Batch compatibility

<!-- Written by the table that routes requests; `PIECEWORK_REGENERATE=1 cargo test --test tidy` writes it again. -->

The door serves the data plane of Azure Batch to unmodified clients: azure-batch 14 and 15 (Python), `az batch`, `@azure/batch` (Node), Airflow's AzureBatchOperator.
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
    versions(&mut page);
    page
}

fn table(page: &mut String, title: &str, routes: &[&Route]) {
    write!(page, "\n## {title}\n\n| Operation | Request | Served | What is missing, or why not |\n|---|---|---|---|\n")
        .expect("a text grows");
    for route in routes {
        let (level, note) = level(route);
        writeln!(page, "| {} | `{} {}` | {level} | {note} |", route.name, route.method, route.path.replace('*', "")).expect("a text grows");
    }
}

/// What not every version has.
fn versions(page: &mut String) {
    page.push_str("\n## Versions\n\nEvery field is taken from every client, and newer operations are served to older versions, too; answers to versions outside these bounds leave the field out, and what a newer version gave up is not found.\n");
    page.push_str("`GET /jobs/{job}/taskcounts` answers the counts of tasks alone, without an object around them, before 2020-09-01.\n");
    page.push_str("Pools that jobs and job schedules bring along (`autoPoolSpecification`) have the fields of CloudPool.\n\n");
    page.push_str("| Of | Field or operation | In versions |\n|---|---|---|\n");
    let when = |when: When| match when {
        When::Since(first) => format!("{first} and later"),
        When::Until(end) => format!("before {end}"),
    };
    for (kind, path, bound) in FIELDS {
        writeln!(page, "| {} | {path} | {} |", kind.name(), when(*bound)).expect("a text grows");
    }
    for (name, bound) in OPERATIONS {
        writeln!(page, "| operations | {name} | {} |", when(*bound)).expect("a text grows");
    }
}

fn level(route: &Route) -> (&'static str, &'static str) {
    match (route.served, Operation::of(route.name).map(|row| row.extent)) {
        (Served::NotYet(hint), _) => ("no", hint),
        (_, Some(Extent::But(missing))) => ("partly", missing),
        (_, Some(Extent::Refuses(why))) => ("no", why),
        _ => ("yes", ""),
    }
}
