//! Usage metrics and statistics as the API shows them.

use serde_json::{Value, json};

use crate::test_dispatcher::TestDispatcher;

#[test]
fn usage_is_empty_before_a_half_hour_has_ended_and_bounds_are_checked() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    for query in [
        "",
        "?startTime=2026-01-01T00:00:00.000Z",
        "?starttime=2026-01-01&EndTime=2026-01-02T00:00:00Z",
        "?$filter=poolId%20eq%20'Pool'&maxresults=5",
    ] {
        let page = dispatcher.get(&format!("/poolusagemetrics{query}"));
        assert_eq!(page["value"], json!([]), "{query}");
        assert!(page["odata.metadata"].as_str().unwrap().ends_with("$metadata#poolusagemetrics"));
    }
    for (query, code) in [
        ("?starttime=yesterday", "InvalidQueryParameterValue"),
        ("?starttime=2026-02-01T00:00:00Z&endtime=2026-01-01T00:00:00Z", "InvalidQueryParameterValue"),
        ("?$filter=vmSize%20eq%20'x'", "InvalidQueryParameterValue"),
        ("?$select=poolId", "UnsupportedQueryParameter"),
        ("?maxresults=0", "OutOfRangeQueryParameterValue"),
        ("?$skiptoken=MTpwb29s", "InvalidQueryParameterValue"),
    ] {
        let got = dispatcher.send("GET", &format!("/poolusagemetrics{query}"), Value::Null, 400);
        assert_eq!(got.json()["code"], code, "{query}");
    }
}
