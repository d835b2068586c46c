//! Faults of requests as such: signatures, methods, paths, headers, queries, bodies.

use serde_json::json;

use super::{MIB, Signed, Table, pool, versioned};
use crate::signing::Wire;

pub(super) fn credentials(table: &mut Table) {
    table.signed("no signature", Signed::Not, 401, "Unauthorized");
    table.signed("an empty one", Signed::As(""), 400, "InvalidAuthenticationInfo");
    table.signed("another scheme", Signed::As("Bearer abc"), 400, "InvalidAuthenticationInfo");
    table.signed("basic", Signed::As("Basic dXNlcjpwYXNz"), 400, "InvalidAuthenticationInfo");
    table.signed("no colon", Signed::As("SharedKey account"), 400, "InvalidAuthenticationInfo");
    table.signed("no base64", Signed::As("SharedKey account:%%%"), 403, "AuthenticationFailed");
    table.signed("another key", Signed::WithOtherKey, 403, "AuthenticationFailed");
    table.signed("another account", Signed::ForOtherAccount, 403, "AuthenticationFailed");
    table.signed("another path", Signed::ForOtherPath, 403, "AuthenticationFailed");
    table.signed("another header", Signed::WithOtherHeader, 403, "AuthenticationFailed");
    table.signed("an hour old", Signed::Minutes(-60), 403, "AuthenticationFailed");
    table.signed("sixteen minutes old", Signed::Minutes(-16), 403, "AuthenticationFailed");
    table.signed("an hour early", Signed::Minutes(60), 403, "AuthenticationFailed");
    table.signed("no date at all", Signed::Dated(""), 403, "AuthenticationFailed");
    table.signed("a date of another form", Signed::Dated("2026-11-23T19:00:00Z"), 403, "AuthenticationFailed");
    table.signed("no date but words", Signed::Dated("now"), 403, "AuthenticationFailed");
}

pub(super) fn protocol(table: &mut Table) {
    for target in [
        "/",
        "/nothing",
        "/pools/",
        "//pools",
        "/pools/bad-pool/",
        "/pools/bad-pool/other",
        "/jobs/bad-job/tasks/bad-task/files/",
        "/piecework",
        "/piecework/other",
        "/pools/../jobs",
        "/JOBS/bad-job/things",
    ] {
        table.get(target, 404, "ResourceNotFound");
    }
    for (method, target) in [
        ("PUT", "/pools"),
        ("DELETE", "/pools"),
        ("POST", "/pools/bad-pool"),
        ("HEAD", "/pools"),
        ("PATCH", "/jobs"),
        ("GET", "/jobs/bad-job/terminate"),
        ("PUT", "/jobs/bad-job/tasks"),
        ("GET", "/jobs/bad-job/addtaskcollection"),
        ("OPTIONS", "/jobs"),
        ("TRACE", "/jobs"),
        ("PURGE", "/jobs"),
        ("POST", "/piecework/health"),
    ] {
        let code = if method == "HEAD" { "" } else { "UnsupportedHttpVerb" };
        table.add(format!("{method} {target}"), Wire::new(method, &versioned(target), ""), 405, code);
    }
    for (query, code) in [
        ("", "MissingRequiredQueryParameter"),
        ("?api-version=", "MissingRequiredQueryParameter"),
        ("?timeout=30", "MissingRequiredQueryParameter"),
        ("?api-version=1", "UnsupportedRequestVersion"),
        ("?api-version=latest", "UnsupportedRequestVersion"),
        ("?api-version=2024-02-01.19", "UnsupportedRequestVersion"),
        ("?api-version=2024-02-01.19.0.1", "UnsupportedRequestVersion"),
        ("?api-version=%ff", "InvalidQueryParameterValue"),
    ] {
        table.add(format!("version {query:?}"), Wire::new("GET", &format!("/jobs{query}"), ""), 400, code);
    }
    for target in [
        "/jobs/a%20b",
        "/jobs/a%2Fb",
        "/jobs/a.b/tasks",
        "/jobs/bad-job/tasks/a%00b",
        "/jobs/bad-job/tasks/%C3%A9",
        "/jobs/%ff",
        "/pools/a%3Ab",
        "/pools/bad-pool/nodes/..%2f",
    ] {
        table.get(target, 400, "InvalidUri");
    }
    table.get(&format!("/jobs/{}", "x".repeat(65)), 400, "InvalidUri");
    let get = |target: &str| Wire::new("GET", &versioned(target), "");
    for (name, wire, code) in [
        (
            "two conditions",
            get("/pools/bad-pool").with("if-match", "*").with("if-none-match", "0x1"),
            "MultipleConditionHeadersNotSupported",
        ),
        ("one twice", get("/pools/bad-pool").with("if-match", "*").with("if-match", "0x1"), "MultipleConditionHeadersNotSupported"),
        ("no date in a condition", get("/pools/bad-pool").with("if-modified-since", "yesterday"), "InvalidHeaderValue"),
        ("a condition on a list", get("/pools").with("if-match", "*"), "UnsupportedHeader"),
        ("an etag on a file", get("/jobs/bad-job/tasks/bad-task/files/wd%2Fa").with("if-none-match", "0x1"), "UnsupportedHeader"),
        ("a host with a path", get("/pools").with("host", "h/x?y"), "InvalidHeaderValue"),
        ("a host with quotes", get("/pools").with("host", "\"><script>"), "InvalidHeaderValue"),
    ] {
        table.add(name, wire, 400, code);
    }
    for (method, target) in [
        ("GET", "/pools/bad-pool"),
        ("DELETE", "/pools/bad-pool"),
        ("DELETE", "/jobs/bad-job"),
        ("POST", "/jobs/bad-job/terminate"),
        ("DELETE", "/jobs/bad-job/tasks/bad-task"),
        ("POST", "/jobs/bad-job/tasks/bad-task/terminate"),
        ("GET", "/jobs/bad-job/tasks/bad-task"),
    ] {
        let wire = Wire::new(method, &versioned(target), "").with("if-match", "0xFFFFFFFFFF");
        table.add(format!("{method} {target} with an old etag"), wire, 412, "ConditionNotMet");
    }
    table.add("a job schedule without a body", Wire::new("POST", &versioned("/jobschedules"), ""), 400, "InvalidRequestBody");
    let certificate = "/certificates(thumbprintAlgorithm=sha1,thumbprint=ff)";
    for (method, target, code) in [
        ("GET", "/pools/bad-pool/nodes/n/rdp", "NodeNotFound"),
        ("GET", "/pools/bad-pool/nodes/n/extensions/e", "NodeNotFound"),
        ("GET", certificate, "CertificateNotFound"),
        ("DELETE", certificate, "CertificateNotFound"),
    ] {
        table.add(format!("{method} {target}"), Wire::new(method, &versioned(target), ""), 404, code);
    }
    table.post("/certificates", json!({"thumbprint": "ff"}), 400, "MissingRequiredProperty");
    table.post("/jobs/bad-job/disable", json!({}), 400, "MissingRequiredProperty");
    table.post("/jobs/bad-job/disable", json!({"disableTasks": "later"}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/disable", json!({"disableTasks": 1}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/enable", json!({}), 409, "OperationInvalidForCurrentState");
}

pub(super) fn queries(table: &mut Table) {
    for (value, code) in [
        ("0", "OutOfRangeQueryParameterValue"),
        ("1001", "OutOfRangeQueryParameterValue"),
        ("-1", "OutOfRangeQueryParameterValue"),
        ("many", "InvalidQueryParameterValue"),
        ("1.5", "InvalidQueryParameterValue"),
        ("99999999999999999999", "InvalidQueryParameterValue"),
        ("%ff", "InvalidQueryParameterValue"),
    ] {
        table.get(&format!("/jobs?maxresults={value}"), 400, code);
    }
    table.get("/nodecounts?maxresults=11", 400, "OutOfRangeQueryParameterValue");
    table.get("/jobs?timeout=0", 400, "OutOfRangeQueryParameterValue");
    table.get("/jobs?timeout=soon", 400, "InvalidQueryParameterValue");
    for filter in [
        "nonsense",
        "state",
        "state%20eq",
        "state%20eq%20completed",
        "state%20eq%20'done'",
        "state%20gt%20'active'",
        "State%20eq%20'active'",
        "colour%20eq%20'red'",
        "id%20eq%205",
        "id%20eq%20'x",
        "id%20eq%20'x'%20and",
        "(id%20eq%20'x'",
        "not%20id%20eq%20'x'",
        "contains(id,'x')",
        "startswith(id)",
        "startswith(state,'a')",
        "creationTime%20gt%20'2026'",
        "creationTime%20gt%20DateTime'tomorrow'",
        "id%20eq%20'x'%3B%20drop%20table%20jobs",
        "id%20eq%20'%ff'",
    ] {
        table.get(&format!("/jobs?$filter={filter}"), 400, "InvalidQueryParameterValue");
    }
    let deep = format!("{}id%20eq%20'x'{}", "(".repeat(30), ")".repeat(30));
    let wide = vec!["id%20eq%20'x'"; 60].join("%20or%20");
    let long = format!("id%20eq%20'{}'", "x".repeat(5_000));
    for filter in [deep, wide, long] {
        table.get(&format!("/jobs?$filter={filter}"), 400, "InvalidQueryParameterValue");
    }
    table.get("/jobs/bad-job/tasks?$filter=executionInfo/exitCode%20eq%20'1'", 400, "InvalidQueryParameterValue");
    table.get("/jobs/bad-job/tasks?$filter=executionInfo/result%20eq%20'maybe'", 400, "InvalidQueryParameterValue");
    for target in [
        "/jobs?$select=colour",
        "/jobs?$select=id,,state",
        "/jobs?$expand=tasks",
        "/pools?$select=ID",
        "/jobs?$skiptoken=xyz",
        "/jobs?$skiptoken=MjphYmM",
        "/jobs/bad-job/tasks/bad-task/files?recursive=perhaps",
    ] {
        table.get(target, 400, "InvalidQueryParameterValue");
    }
    for target in [
        "/jobs?$orderby=id",
        "/jobs?$top=5",
        "/jobs?$skip=5",
        "/jobs?$count=true",
        "/jobs/bad-job?$filter=id%20eq%20'x'",
        "/jobs/bad-job?maxresults=5",
        "/jobs/bad-job/taskcounts?$select=active",
        "/supportedimages?$select=osType",
        "/pools/bad-pool/nodes?$expand=stats",
    ] {
        table.get(target, 400, "UnsupportedQueryParameter");
    }
}

pub(super) fn bodies(table: &mut Table) {
    let raw = |body: Vec<u8>| Wire::new("POST", &versioned("/pools"), body).with("content-type", "application/json");
    for (name, body) in [
        ("nothing", Vec::new()),
        ("blanks", b"  \n ".to_vec()),
        ("words", b"hello".to_vec()),
        ("half an object", b"{\"id\":\"x\"".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number", b"5".to_vec()),
        ("a text", b"\"pool\"".to_vec()),
        ("null", b"null".to_vec()),
        ("two objects", b"{}{}".to_vec()),
        ("a comma too many", b"{\"id\":\"x\",}".to_vec()),
        ("single quotes", b"{'id':'x'}".to_vec()),
        ("bytes that are no UTF-8", b"{\"id\":\"\xff\xfe\"}".to_vec()),
        ("half a surrogate", br#"{"id":"\ud800"}"#.to_vec()),
        ("a NUL", b"{\"id\":\"a\0b\"}".to_vec()),
        ("65 levels", format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64)).into_bytes()),
        ("a depth bomb", "[".repeat(500_000).into_bytes()),
        ("an object bomb", "{\"a\":".repeat(100_000).into_bytes()),
        ("XML", b"<pool/>".to_vec()),
        ("MessagePack", vec![0x81, 0xa2, b'i', b'd', 0xa1, b'x']),
        ("a number too large", b"{\"id\":1e999}".to_vec()),
    ] {
        table.add(format!("a body of {name}"), raw(body), 400, "InvalidRequestBody");
    }
    let huge = |bytes: usize| format!("{{\"id\":\"{}\"}}", "x".repeat(bytes - 9)).into_bytes();
    table.add("a body of 1 MiB and a byte", raw(huge(MIB + 1)), 413, "RequestBodyTooLarge");
    table.add("a body of 5 MiB", raw(huge(5 * MIB)), 413, "RequestBodyTooLarge");
    let many = Wire::new("POST", &versioned("/jobs/bad-job/addtaskcollection"), huge(2 * MIB));
    table.add("a collection of 2 MiB", many, 413, "RequestBodyTooLarge");
    table.post(
        "/pools",
        pool(&[("applicationPackageReferences", json!([{"applicationId": "none"}]))]),
        409,
        "InvalidApplicationPackageReferences",
    );
    table.add("a body of just 1 MiB", raw(huge(MIB)), 400, "InvalidPropertyValue");
}
