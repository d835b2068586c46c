//! Lists: pages and their links, filters, selections, and lists that are always empty.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

fn add_tasks(dispatcher: &TestDispatcher, count: usize) {
    let tasks: Vec<_> = (0..count).map(|n| json!({"id": format!("task-{n:03}"), "commandLine": "x", "displayName": "d"})).collect();
    dispatcher.send("POST", "/jobs/Job/addtaskcollection", json!({"value": tasks}), 200);
}

fn ids(page: &Value) -> Vec<String> {
    page["value"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

/// Path and query of a link, which must lead back here.
fn follow(dispatcher: &TestDispatcher, page: &Value) -> Option<String> {
    let link = page.get("odata.nextLink")?.as_str().unwrap();
    Some(link.strip_prefix(&dispatcher.account.url).expect("an absolute link to where the client came from").to_owned())
}

#[test]
fn pages_hold_every_row_once_in_id_order_while_others_come_and_go() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    add_tasks(&dispatcher, 25);
    let mut target = "/jobs/Job/tasks?maxresults=10&$select=id&$filter=startswith(id,'task')".to_owned();
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = dispatcher.get(&target);
        seen.extend(ids(&page));
        pages += 1;
        assert_eq!(page["value"][0].as_object().unwrap().len(), 1, "only what was selected");
        if pages == 1 {
            dispatcher.send("DELETE", "/jobs/Job/tasks/task-009", Value::Null, 200);
            dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "task-000a", "commandLine": "x"}), 201);
        }
        match follow(&dispatcher, &page) {
            Some(next) => target = next,
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let sorted: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(seen, sorted.into_iter().collect::<Vec<_>>());
    assert_eq!(seen.len(), 25);
}

#[test]
fn filters_and_selections_limit_rows_and_fields() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    add_tasks(&dispatcher, 3);
    dispatcher.send("POST", "/jobs/Job/tasks/task-001/terminate", Value::Null, 204);
    let list = |query: &str| ids(&dispatcher.get(&format!("/jobs/Job/tasks?{query}")));
    assert_eq!(list("$filter=state%20eq%20'Completed'"), ["task-001"]);
    assert_eq!(list("$filter=state%20ne%20'completed'"), ["task-000", "task-002"]);
    assert_eq!(list("$filter=executionInfo/result%20eq%20'failure'"), ["task-001"]);
    assert_eq!(list("$filter=id%20eq%20'TASK-002'%20or%20id%20eq%20'task-000'"), ["task-000", "task-002"]);
    assert_eq!(list("$filter=creationTime%20gt%20DateTime'2099-01-01T00:00:00Z'").len(), 0);
    let page = dispatcher.get("/jobs/Job/tasks?$select=id,displayName,state&$filter=id%20eq%20'task-000'&$expand=stats");
    assert_eq!(page["value"][0], json!({"id": "task-000", "displayName": "d", "state": "active"}));
    let expanded = dispatcher.get("/jobs/Job/tasks?$select=id,executionInfo&$expand=executionInfo,nodeInfo&$filter=id%20eq%20'task-001'");
    assert_eq!(expanded["value"][0]["executionInfo"]["result"], "failure");
    assert_eq!(ids(&dispatcher.get("/jobs?$filter=executionInfo/poolId%20eq%20'pool'")), ["Job"]);
    assert_eq!(ids(&dispatcher.get("/pools?$filter=enableAutoScale%20eq%20true")).len(), 0);
    assert_eq!(ids(&dispatcher.get("/pools?$filter=enableAutoScale%20eq%20false")), ["Pool"]);
}

#[test]
fn account_lists_are_truthful() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for list in ["/applications", "/certificates", "/jobschedules", "/pools/Pool/nodes"] {
        assert_eq!(dispatcher.get(list)["value"], json!([]), "{list}");
    }
    let images = |query: &str| dispatcher.get(&format!("/supportedimages?{query}"))["value"].as_array().unwrap().clone();
    let all = images("$filter=osType%20eq%20'linux'%20and%20verificationType%20eq%20'verified'");
    assert_eq!(images("$filter=osType%20eq%20'windows'"), Vec::<Value>::new());
    let own = images("$filter=nodeAgentSKUId%20eq%20'piecework.node.linux'");
    assert_eq!(own[0]["imageReference"], json!({"publisher": "piecework", "offer": "host", "sku": "linux", "version": "latest"}));
    let jammy = |image: &&Value| image["imageReference"]["sku"] == "22_04-lts";
    assert_eq!(all.iter().find(jammy).unwrap()["nodeAgentSKUId"], "batch.node.ubuntu 22.04", "as programs for Azure look for it");
    for (publisher, offer, sku, agent) in [
        ("microsoft-dsvm", "ubuntu-hpc", "2404", "batch.node.ubuntu 24.04"),
        ("microsoft-azure-batch", "ubuntu-server-container", "20-04-lts", "batch.node.ubuntu 20.04"),
    ] {
        let reference = json!({"publisher": publisher, "offer": offer, "sku": sku, "version": "latest"});
        let image = all.iter().find(|image| image["imageReference"] == reference).unwrap();
        assert_eq!((&image["nodeAgentSKUId"], &image["capabilities"]), (&json!(agent), &json!(["DockerCompatible"])), "{image}");
    }
    let first = dispatcher.get("/supportedimages?maxresults=2");
    let second = dispatcher.get(&follow(&dispatcher, &first).unwrap());
    assert_eq!([&first["value"], &second["value"]], [&json!(all[..2]), &json!(all[2..4])]);
    let old = "api-version=2018-12-01.8.0";
    let agents = dispatcher.get(&format!("/nodeagentskus?{old}&$filter=osType%20eq%20'linux'"))["value"].clone();
    let ubuntu = agents.as_array().unwrap().iter().find(|agent| agent["id"] == "batch.node.ubuntu 24.04").unwrap();
    let offers: Vec<_> = ubuntu["verifiedImageReferences"].as_array().unwrap().iter().map(|image| image["offer"].clone()).collect();
    assert_eq!((&ubuntu["osType"], offers), (&json!("linux"), vec![json!("ubuntu-24_04-lts"), json!("ubuntu-hpc")]));
    let first = dispatcher.get(&format!("/nodeagentskus?{old}&maxresults=1"));
    assert_eq!(dispatcher.get(&follow(&dispatcher, &first).unwrap())["value"][0], agents[1]);
    assert_eq!(dispatcher.send("GET", "/nodeagentskus", Value::Null, 404).json()["code"], "ResourceNotFound", "newer versions list images");
    let counts = dispatcher.get("/nodecounts?$filter=poolId%20eq%20'pool'");
    assert_eq!(counts["value"][0]["poolId"], "Pool");
    assert_eq!(counts["value"][0]["dedicated"]["total"], 0);
    dispatcher.send("POST", "/jobs/Job/tasks", json!({"id": "t", "commandLine": "x"}), 201);
    assert_eq!(dispatcher.get("/jobs/Job/tasks/t/subtasksinfo")["value"], json!([]));
}
