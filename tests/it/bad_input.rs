//! Everything that must be refused at the door: a table of requests with the status and code they get.
//!
//! `check` runs it against a running door and asserts that nothing has changed afterwards.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::signing::{Account, Got, Wire};

const V: &str = "api-version=2024-02-01.19.0";
const MIB: usize = 1024 * 1024;

/// How a request is signed.
#[derive(Debug, Clone)]
enum Signed {
    Well,
    Not,
    As(&'static str),
    WithOtherKey,
    ForOtherAccount,
    ForOtherPath,
    WithOtherHeader,
    Minutes(i64),
    Dated(&'static str),
}

/// One request that must be refused.
struct Case {
    name: String,
    wire: Wire,
    signed: Signed,
    status: u16,
    code: &'static str,
}

/// Cases under construction.
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, name: impl Into<String>, wire: Wire, status: u16, code: &'static str) {
        self.0.push(Case { name: name.into(), wire, signed: Signed::Well, status, code });
    }

    fn signed(&mut self, name: &str, signed: Signed, status: u16, code: &'static str) {
        let wire = Wire::new("GET", &format!("/jobs?{V}"), "");
        self.0.push(Case { name: name.to_owned(), wire, signed, status, code });
    }

    fn get(&mut self, target: &str, status: u16, code: &'static str) {
        self.add(format!("GET {target}"), Wire::new("GET", &versioned(target), ""), status, code);
    }

    fn send(&mut self, method: &str, target: &str, body: &Value, status: u16, code: &'static str) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let shown: String = text.chars().take(120).collect();
        let wire = Wire::new(method, &versioned(target), text).with("content-type", "application/json; odata=minimalmetadata");
        self.add(format!("{method} {target} {shown}"), wire, status, code);
    }

    fn post(&mut self, target: &str, body: Value, status: u16, code: &'static str) {
        self.send("POST", target, &body, status, code);
    }
}

fn versioned(target: &str) -> String {
    match target.split_once('?') {
        _ if target.starts_with("/piecework/") => target.to_owned(),
        Some((path, query)) => format!("{path}?{query}&{V}"),
        None => format!("{target}?{V}"),
    }
}

/// An object with some fields replaced; null removes one.
fn with(mut body: Value, changes: &[(&str, Value)]) -> Value {
    let fields = body.as_object_mut().expect("an object");
    for (name, value) in changes {
        if value.is_null() { drop(fields.remove(*name)) } else { drop(fields.insert((*name).to_owned(), value.clone())) }
    }
    body
}

fn pool(changes: &[(&str, Value)]) -> Value {
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    with(json!({"id": "never-pool", "vmSize": "small", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine}), changes)
}

fn job(changes: &[(&str, Value)]) -> Value {
    with(json!({"id": "never-job", "poolInfo": {"poolId": "bad-pool"}}), changes)
}

fn task(changes: &[(&str, Value)]) -> Value {
    with(json!({"id": "never-task", "commandLine": "/bin/true"}), changes)
}

fn resource(file: Value) -> Value {
    task(&[("resourceFiles", json!([file]))])
}

fn output(changes: &[(&str, Value)]) -> Value {
    let file = json!({
        "filePattern": "*", "destination": {"container": {"containerUrl": "s3://b/p"}}, "uploadOptions": {"uploadCondition": "tasksuccess"},
    });
    task(&[("outputFiles", json!([with(file, changes)]))])
}

fn cases() -> Vec<Case> {
    let mut table = Table(Vec::new());
    credentials(&mut table);
    protocol(&mut table);
    queries(&mut table);
    bodies(&mut table);
    pools(&mut table);
    jobs(&mut table);
    tasks(&mut table);
    files(&mut table);
    ours(&mut table);
    table.0
}

fn credentials(table: &mut Table) {
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

fn protocol(table: &mut Table) {
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

fn queries(table: &mut Table) {
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

fn bodies(table: &mut Table) {
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

fn pools(table: &mut Table) {
    use Value::Null;
    let machine = |value: Value| ("virtualMachineConfiguration", value);
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("")), "InvalidPropertyValue"),
        (("id", json!("a b")), "InvalidPropertyValue"),
        (("id", json!("../etc")), "InvalidPropertyValue"),
        (("id", json!("ünder")), "InvalidPropertyValue"),
        (("id", json!("x".repeat(65))), "InvalidPropertyValue"),
        (("id", json!(5)), "InvalidPropertyValue"),
        (("displayName", json!("x".repeat(1025))), "InvalidPropertyValue"),
        (("vmSize", Null), "MissingRequiredProperty"),
        (("vmSize", json!("")), "InvalidPropertyValue"),
        (machine(Null), "MissingRequiredProperty"),
        (machine(json!("x")), "InvalidPropertyValue"),
        (machine(json!({"nodeAgentSKUId": "a"})), "MissingRequiredProperty"),
        (machine(json!({"imageReference": {"publisher": "p"}, "nodeAgentSKUId": "a"})), "MissingRequiredProperty"),
        (machine(json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}})), "MissingRequiredProperty"),
        (
            machine(
                json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a", "containerConfiguration": {"type": "dockerCompatible"}}),
            ),
            "UnsupportedProperty",
        ),
        (("cloudServiceConfiguration", json!({"osFamily": "5"})), "InvalidPropertyValue"),
        (("targetDedicatedNodes", Null), "MissingRequiredProperty"),
        (("targetDedicatedNodes", json!(-1)), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!(1.5)), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!("many")), "InvalidPropertyValue"),
        (("targetDedicatedNodes", json!(1_000_000_000)), "InvalidPropertyValue"),
        (("enableAutoScale", json!(true)), "InvalidPropertyValue"),
        (("enableAutoScale", json!("perhaps")), "InvalidPropertyValue"),
        (("autoScaleFormula", json!("$TargetDedicatedNodes = 1;")), "InvalidAutoScalingSettings"),
        (("resizeTimeout", json!("PT4M59S")), "InvalidPropertyValue"),
        (("resizeTimeout", json!("15 minutes")), "InvalidPropertyValue"),
        (("resizeTimeout", json!(900)), "InvalidPropertyValue"),
        (("taskSlotsPerNode", json!(0)), "InvalidPropertyValue"),
        (("taskSlotsPerNode", json!(257)), "InvalidPropertyValue"),
        (("taskSchedulingPolicy", json!({})), "MissingRequiredProperty"),
        (("taskSchedulingPolicy", json!({"nodeFillType": "even"})), "InvalidPropertyValue"),
        (("startTask", json!({})), "MissingRequiredProperty"),
        (("startTask", json!({"commandLine": "x", "maxTaskRetryCount": -2})), "InvalidPropertyValue"),
        (("startTask", json!({"commandLine": "x".repeat(33_000)})), "InvalidPropertyValue"),
        (("metadata", json!([{"name": "", "value": "v"}])), "EmptyMetadataKey"),
        (("metadata", json!([{"name": "a"}])), "MissingRequiredProperty"),
        (("metadata", json!({"a": "b"})), "InvalidPropertyValue"),
        (("metadata", json!([{"name": "a", "value": "x".repeat(65_536)}])), "MetadataTooLarge"),
        (("mountConfiguration", json!([{"nfsMountConfiguration": {"source": "s", "relativeMountPath": "p"}}])), "UnsupportedProperty"),
        (("userAccounts", json!([{"name": "u", "password": "p"}])), "UnsupportedProperty"),
        (("networkConfiguration", json!({"subnetId": "s"})), "UnsupportedProperty"),
    ] {
        table.post("/pools", pool(&[change]), 400, code);
    }
    let scaled =
        [("targetDedicatedNodes", Null), ("enableAutoScale", json!(true)), ("autoScaleFormula", json!("$TargetDedicatedNodes = ;"))];
    table.post("/pools", pool(&scaled), 400, "AutoScalingFormulaSyntaxError");
    table.post("/pools", pool(&[("id", json!("BAD-pool"))]), 409, "PoolExists");
    for (body, code) in [
        (json!({}), "MissingRequiredProperty"),
        (json!({"targetDedicatedNodes": -1}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "resizeTimeout": "PT1S"}), "InvalidPropertyValue"),
        (json!({"targetDedicatedNodes": 1, "nodeDeallocationOption": "explode"}), "InvalidPropertyValue"),
    ] {
        table.post("/pools/bad-pool/resize", body, 400, code);
    }
    table.post("/pools/bad-pool/removenodes", json!({}), 400, "MissingRequiredProperty");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": []}), 400, "InvalidPropertyValue");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": ["a b"]}), 400, "InvalidPropertyValue");
    table.post("/pools/bad-pool/removenodes", json!({"nodeList": vec!["n"; 101]}), 400, "InvalidPropertyValue");
    table.post("/pools/no-pool/resize", json!({"targetDedicatedNodes": 1}), 404, "PoolNotFound");
    table.get("/pools/no-pool", 404, "PoolNotFound");
    table.get("/pools/no-pool/nodes", 404, "PoolNotFound");
    table.get("/pools/bad-pool/nodes/no-node", 404, "NodeNotFound");
    table.send("DELETE", "/pools/no-pool", &Null, 404, "PoolNotFound");
    table.post("/pools/bad-pool/stopresize", Null, 409, "OperationInvalidForCurrentState");
}

fn jobs(table: &mut Table) {
    use Value::Null;
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("a/b")), "InvalidPropertyValue"),
        (("id", json!("schedule:job-1")), "InvalidPropertyValue"),
        (("poolInfo", Null), "MissingRequiredProperty"),
        (("poolInfo", json!({})), "MissingRequiredProperty"),
        (("poolInfo", json!("bad-pool")), "InvalidPropertyValue"),
        (("poolInfo", json!({"poolId": "a b"})), "InvalidPropertyValue"),
        (("poolInfo", json!({"poolId": "bad-pool", "autoPoolSpecification": {"poolLifetimeOption": "job"}})), "InvalidPropertyValue"),
        (("poolInfo", json!({"autoPoolSpecification": {"poolLifetimeOption": "job"}})), "UnsupportedProperty"),
        (("priority", json!(1001)), "InvalidPropertyValue"),
        (("priority", json!(-1001)), "InvalidPropertyValue"),
        (("priority", json!("high")), "InvalidPropertyValue"),
        (("maxParallelTasks", json!(0)), "InvalidPropertyValue"),
        (("maxParallelTasks", json!(-2)), "InvalidPropertyValue"),
        (("constraints", json!({"maxTaskRetryCount": -2})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "forever"})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "PT0S"})), "InvalidPropertyValue"),
        (("constraints", json!([])), "InvalidPropertyValue"),
        (("onAllTasksComplete", json!("celebrate")), "InvalidPropertyValue"),
        (("onTaskFailure", json!("panic")), "InvalidPropertyValue"),
        (("usesTaskDependencies", json!("very")), "InvalidPropertyValue"),
        (("commonEnvironmentSettings", json!([{"value": "x"}])), "MissingRequiredProperty"),
        (("commonEnvironmentSettings", json!([{"name": "A=B", "value": "x"}])), "InvalidPropertyValue"),
        (("commonEnvironmentSettings", json!([{"name": "", "value": "x"}])), "InvalidPropertyValue"),
        (("jobManagerTask", json!({"id": "m"})), "MissingRequiredProperty"),
        (("jobManagerTask", json!({"id": "m", "commandLine": "x", "runExclusive": 2})), "InvalidPropertyValue"),
        (("jobPreparationTask", json!({"commandLine": "x"})), "UnsupportedProperty"),
        (("networkConfiguration", json!({"subnetId": "s"})), "UnsupportedProperty"),
    ] {
        table.post("/jobs", job(&[change]), 400, code);
    }
    table.post("/jobs", job(&[("poolInfo", json!({"poolId": "no-pool"}))]), 404, "PoolNotFound");
    table.post("/jobs", job(&[("id", json!("Bad-Job"))]), 409, "JobExists");
    table.send("PATCH", "/jobs/bad-job", &json!({"priority": 5000}), 400, "InvalidPropertyValue");
    table.send("PATCH", "/jobs/bad-job", &json!({"poolInfo": {"poolId": "other"}}), 409, "OperationInvalidForCurrentState");
    table.send("PATCH", "/jobs/bad-job", &Null, 400, "InvalidRequestBody");
    table.send("PATCH", "/jobs/no-job", &json!({"priority": 1}), 404, "JobNotFound");
    table.send("PUT", "/jobs/bad-job", &json!({"priority": 1}), 400, "MissingRequiredProperty");
    table.post("/jobs/bad-job/terminate", json!({"terminateReason": 5}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/terminate", json!({"terminateReason": "x".repeat(2000)}), 400, "InvalidPropertyValue");
    table.post("/jobs/bad-job/terminate?force=maybe", Null, 400, "InvalidQueryParameterValue");
    table.post("/jobs/no-job/terminate", Null, 404, "JobNotFound");
    table.get("/jobs/no-job", 404, "JobNotFound");
    table.get("/jobs/no-job/tasks", 404, "JobNotFound");
    table.get("/jobs/no-job/taskcounts", 404, "JobNotFound");
    table.send("DELETE", "/jobs/no-job", &Null, 404, "JobNotFound");
}

fn tasks(table: &mut Table) {
    use Value::Null;
    let target = "/jobs/bad-job/tasks";
    for (change, code) in [
        (("id", Null), "MissingRequiredProperty"),
        (("id", json!("a.b")), "InvalidPropertyValue"),
        (("id", json!("x".repeat(65))), "InvalidPropertyValue"),
        (("id", json!(["t"])), "InvalidPropertyValue"),
        (("commandLine", Null), "MissingRequiredProperty"),
        (("commandLine", json!("")), "InvalidPropertyValue"),
        (("commandLine", json!("   ")), "InvalidPropertyValue"),
        (("commandLine", json!("a\u{0}b")), "InvalidPropertyValue"),
        (("commandLine", json!(["/bin/true"])), "InvalidPropertyValue"),
        (("commandLine", json!("x".repeat(200_000))), "InvalidPropertyValue"),
        (("requiredSlots", json!(0)), "InvalidPropertyValue"),
        (("requiredSlots", json!(257)), "InvalidPropertyValue"),
        (("constraints", json!({"maxTaskRetryCount": "often"})), "InvalidPropertyValue"),
        (("constraints", json!({"maxWallClockTime": "-PT5M"})), "InvalidPropertyValue"),
        (("constraints", json!({"retentionTime": "P1Y"})), "InvalidPropertyValue"),
        (("environmentSettings", json!([5])), "InvalidPropertyValue"),
        (("environmentSettings", json!({"A": "b"})), "InvalidPropertyValue"),
        (("userIdentity", json!({"username": "root"})), "UnsupportedProperty"),
        (("userIdentity", json!({"autoUser": {"elevationLevel": "god"}})), "InvalidPropertyValue"),
        (("affinityInfo", json!({})), "MissingRequiredProperty"),
        (("containerSettings", json!({"imageName": "x"})), "UnsupportedProperty"),
        (("multiInstanceSettings", json!({"numberOfInstances": 2})), "UnsupportedProperty"),
        (("dependsOn", json!({"taskIds": ["other"]})), "TaskDependenciesNotSpecifiedOnJob"),
        (("dependsOn", json!({"taskIds": ["never-task"]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIds": ["a b"]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 5, "end": 1}]})), "InvalidPropertyValue"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 1}]})), "MissingRequiredProperty"),
        (("dependsOn", json!({"taskIdRanges": [{"start": 1, "end": 2147483647}]})), "TaskDependencyRangesTooLong"),
        (("dependsOn", json!({"taskIds": (0..1001).map(|n| format!("{n:064}")).collect::<Vec<_>>()})), "TaskDependencyListTooLong"),
        (("exitConditions", json!({"exitCodes": [{"code": "x", "exitOptions": {}}]})), "InvalidPropertyValue"),
        (("exitConditions", json!({"exitCodes": [{"code": 1}]})), "MissingRequiredProperty"),
        (("exitConditions", json!({"exitCodeRanges": [{"start": 9, "end": 1, "exitOptions": {}}]})), "InvalidPropertyValue"),
        (("exitConditions", json!({"default": {"dependencyAction": "wait"}})), "InvalidPropertyValue"),
        (("exitConditions", json!({"default": {"jobAction": "terminate"}})), "InvalidPropertyValue"),
    ] {
        table.post(target, task(&[change]), 400, code);
    }
    for (file, code) in [
        (json!({}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x"}), "MissingRequiredProperty"),
        (json!({"httpUrl": "file:///etc/passwd", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "gopher://h/x", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": ""}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "../x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "a/../../x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "..\\x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "/etc/cron.d/x"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "a\nb"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "x", "fileMode": "rwx"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "storageContainerUrl": "s3://b", "filePath": "x"}), "InvalidPropertyValue"),
        (json!({"autoStorageContainerName": "../b"}), "InvalidPropertyValue"),
        (json!({"httpUrl": "http://h/x", "filePath": "x", "identityReference": {"resourceId": "r"}}), "UnsupportedProperty"),
    ] {
        table.post(target, resource(file), 400, code);
    }
    for (change, code) in [
        (("filePattern", Null), "MissingRequiredProperty"),
        (("destination", Null), "MissingRequiredProperty"),
        (("destination", json!({"container": {}})), "MissingRequiredProperty"),
        (("destination", json!({"container": {"containerUrl": "/tmp/out"}})), "InvalidPropertyValue"),
        (("destination", json!({"container": {"containerUrl": "s3://b", "path": "../x"}})), "InvalidPropertyValue"),
        (("uploadOptions", Null), "MissingRequiredProperty"),
        (("uploadOptions", json!({"uploadCondition": "always"})), "InvalidPropertyValue"),
    ] {
        table.post(target, output(&[change]), 400, code);
    }
    table.post(target, task(&[("id", json!("BAD-TASK"))]), 409, "TaskExists");
    table.post("/jobs/no-job/tasks", task(&[]), 404, "JobNotFound");
    let collection = "/jobs/bad-job/addtaskcollection";
    table.post(collection, json!({}), 400, "MissingRequiredProperty");
    table.post(collection, json!({"value": []}), 400, "InvalidPropertyValue");
    table.post(collection, json!({"value": {}}), 400, "InvalidPropertyValue");
    table.post(collection, json!({"value": [5]}), 400, "InvalidPropertyValue");
    table.post(
        collection,
        json!({"value": (0..101).map(|n| task(&[("id", json!(format!("never-{n}")))])).collect::<Vec<_>>()}),
        400,
        "InvalidPropertyValue",
    );
    table.post("/jobs/no-job/addtaskcollection", json!({"value": [task(&[])]}), 404, "JobNotFound");
    table.get("/jobs/bad-job/tasks/no-task", 404, "TaskNotFound");
    table.get("/jobs/bad-job/tasks/no-task/subtasksinfo", 404, "TaskNotFound");
    table.send("DELETE", "/jobs/bad-job/tasks/no-task", &Null, 404, "TaskNotFound");
    table.post("/jobs/bad-job/tasks/no-task/terminate", Null, 404, "TaskNotFound");
}

fn files(table: &mut Table) {
    let files = "/jobs/bad-job/tasks/bad-task/files";
    for path in ["..", "..%2Fx", "wd%2F..%2F..%2Fx", "%2Fetc%2Fpasswd", "%2F", "a%00b", "..%5Cx", "wd%2F%ff", "C:%5Cx"] {
        table.get(&format!("{files}/{path}"), 400, "InvalidUri");
    }
    table.get(&format!("{files}/stdout.txt"), 409, "TaskFilesUnavailable");
    table.get(&format!("{files}?$filter=name%20gt%20'a'"), 400, "InvalidQueryParameterValue");
    table.get(&format!("{files}?$filter=size%20eq%20'5'"), 400, "InvalidQueryParameterValue");
    table.get("/jobs/bad-job/tasks/no-task/files/stdout.txt", 404, "TaskNotFound");
    table.get("/jobs/no-job/tasks/bad-task/files", 404, "JobNotFound");
    table.get("/pools/bad-pool/nodes/no-node/files", 404, "NodeNotFound");
    table.get("/pools/bad-pool/nodes/no-node/files/startup%2Fstdout.txt", 404, "NodeNotFound");
    table.get("/pools/no-pool/nodes/n/files", 404, "PoolNotFound");
    table.send("DELETE", &format!("{files}/..%2Fother"), &Value::Null, 400, "InvalidUri");
    table.add("HEAD of a file outside", Wire::new("HEAD", &versioned(&format!("{files}/..%2Fx")), ""), 400, "");
    table.add("HEAD of no pool", Wire::new("HEAD", &versioned("/pools/no-pool"), ""), 404, "");
}

fn ours(table: &mut Table) {
    let policy = "/piecework/pools/bad-pool/policy";
    for (body, code) in [
        (json!({}), "MissingRequiredProperty"),
        (json!({"maxNodes": -1}), "InvalidPropertyValue"),
        (json!({"minNodes": 3, "maxNodes": 2}), "InvalidPropertyValue"),
        (json!({"maxNodes": 2, "idleMs": -5}), "InvalidPropertyValue"),
        (json!({"maxNodes": 2, "deallocation": "kindly"}), "InvalidPropertyValue"),
        (Value::Null, "InvalidRequestBody"),
    ] {
        table.send("PUT", policy, &body, 400, code);
    }
    table.send("PUT", "/piecework/pools/no-pool/policy", &json!({"maxNodes": 1}), 404, "PoolNotFound");
    table.get(policy, 404, "ResourceNotFound");
    table.get("/piecework/pools/no-pool", 404, "PoolNotFound");
}

fn send(case: &Case, account: &Account) -> Got {
    let now = SystemTime::now();
    let at = |minutes: i64| {
        let distance = Duration::from_secs(60 * minutes.unsigned_abs());
        if minutes < 0 { now - distance } else { now + distance }
    };
    let wire = case.wire.clone();
    let sign = |wire: Wire, name: &str, key: &str| {
        let authorization = wire.authorization(name, key);
        wire.with("authorization", authorization).send(account)
    };
    match &case.signed {
        Signed::Well => sign(wire.prepared(account, now), &account.name, &account.key),
        Signed::Not => wire.prepared(account, now).send(account),
        Signed::As(text) => wire.prepared(account, now).with("authorization", *text).send(account),
        Signed::WithOtherKey => sign(wire.prepared(account, now), &account.name, "b3RoZXI="),
        Signed::ForOtherAccount => sign(wire.prepared(account, now), "somebodyelse", &account.key),
        Signed::ForOtherPath => {
            let mut wire = wire.prepared(account, now);
            let authorization = wire.authorization(&account.name, &account.key);
            wire.target = format!("/pools?{V}");
            wire.with("authorization", authorization).send(account)
        }
        Signed::WithOtherHeader => {
            let wire = wire.prepared(account, now);
            let authorization = wire.authorization(&account.name, &account.key);
            wire.with("ocp-range", "bytes=0-1").with("authorization", authorization).send(account)
        }
        Signed::Minutes(minutes) => sign(wire.prepared(account, at(*minutes)), &account.name, &account.key),
        Signed::Dated(text) => {
            let mut wire = wire.prepared(account, now);
            wire.headers.retain(|(name, _)| name != "ocp-date");
            let wire = if text.is_empty() { wire } else { wire.with("ocp-date", *text) };
            sign(wire, &account.name, &account.key)
        }
    }
}

fn fault(case: &Case, got: &Got) -> Option<String> {
    let shown = || String::from_utf8_lossy(&got.body).chars().take(600).collect::<String>();
    if got.status != case.status {
        return Some(format!("status {} instead of {}: {}", got.status, case.status, shown()));
    }
    if got.header("request-id").is_none_or(|id| id.len() != 36) {
        return Some(format!("no request-id: {:?}", got.headers));
    }
    if case.code.is_empty() {
        return (!got.body.is_empty()).then(|| format!("a body: {}", shown()));
    }
    let body: Value = match serde_json::from_slice(&got.body) {
        Ok(body) => body,
        Err(error) => return Some(format!("{error}: {}", shown())),
    };
    let message = body["message"]["value"].as_str().unwrap_or_default();
    let is_whole =
        body["code"] == case.code && body["message"]["lang"] == "en-US" && message.contains("\nRequestId:") && message.contains("\nTime:");
    (!is_whole).then(|| format!("not {}: {}", case.code, shown()))
}

fn state(account: &Account) -> Vec<Value> {
    let read = |path: &str| {
        let got = Wire::new("GET", &versioned(path), "").send_signed(account);
        assert_eq!(got.status, 200, "GET {path}: {:?}", String::from_utf8_lossy(&got.body));
        got.json()["value"].clone()
    };
    vec![read("/pools"), read("/jobs"), read("/jobs/bad-job/tasks")]
}

/// Sends every request of the table; none may get another answer, or change anything.
pub fn check(account: &Account) {
    for (path, body) in [
        ("/pools", pool(&[("id", json!("bad-pool"))])),
        ("/jobs", job(&[("id", json!("bad-job"))])),
        ("/jobs/bad-job/tasks", task(&[("id", json!("bad-task"))])),
    ] {
        let got = Wire::new("POST", &versioned(path), body.to_string()).send_signed(account);
        assert_eq!(got.status, 201, "POST {path}: {:?}", String::from_utf8_lossy(&got.body));
    }
    let before = state(account);
    let cases = cases();
    assert!(cases.len() >= 300, "the table has {} cases", cases.len());
    let faults: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let got = send(case, account);
            fault(case, &got).map(|fault| format!("{}: {fault}", case.name.chars().take(200).collect::<String>()))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert_eq!(state(account), before, "bad input has changed something");
}
