//! The scan for unreadable rows, as `piecework doctor` requests it.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

#[test]
fn rows_that_cannot_be_read_are_named_with_what_to_do() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let page = dispatcher.get("/piecework/unreadable");
    assert_eq!((&page["value"], &page["odata.nextLink"]), (&json!([]), &Value::Null), "all is well, and one slice is enough");
    let store = rusqlite::Connection::open(dispatcher.folder.path().join("store/store.sqlite")).unwrap();
    assert_eq!(store.execute("UPDATE jobs SET environment = '['", []).unwrap(), 1);
    let page = dispatcher.get("/piecework/unreadable");
    let found = &page["value"].as_array().unwrap()[..];
    assert_eq!(found.len(), 1, "{page}");
    assert_eq!((&found[0]["table"], &found[0]["row"], &found[0]["column"]), (&json!("jobs"), &json!("1"), &json!("environment")));
    assert!(found[0]["advice"].as_str().unwrap().contains("delete the job"), "{page}");
    // "1:0:x" is no place in the store.
    let got = dispatcher.send("GET", "/piecework/unreadable?$skiptoken=MTowOng", Value::Null, 400);
    assert_eq!(got.json()["code"], "InvalidQueryParameterValue");
}
