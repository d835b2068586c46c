//! Functions through the API: packages that are what their names say, and invocations that name no pool.

use broker_config::settings::BlobSettings;
use clients::blobs::Blobs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::test_dispatcher::TestDispatcher;

const FUNCTIONS: &str = "/piecework/pools/pool/functions";

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Does something with the blob store.
fn with_blobs<T>(settings: &BlobSettings, act: impl AsyncFnOnce(&Blobs) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { act(&Blobs::new(settings.clone()).unwrap()).await })
}

#[test]
fn a_package_is_taken_only_if_it_is_what_its_name_says() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let hash = hash(b"the package");
    let (place, kept) = (format!("/piecework/functionpackages/{hash}"), format!("functions/{hash}.zip"));
    let uploaded = format!("transfer/functions/{hash}.zip");
    let upload = |content: &'static [u8]| {
        let begun = dispatcher.send("PUT", &place, json!({}), 200).json();
        assert_eq!(begun["state"], "pending");
        assert!(begun["uploadUrl"].as_str().unwrap().contains(&uploaded), "{begun}");
        with_blobs(&dispatcher.blobs, async |blobs| blobs.put("own", &uploaded, bytes::Bytes::from_static(content)).await.unwrap());
    };
    let function = |id: &str| json!({"id": id, "runtime": "exec", "commandLine": "cat", "package": hash});
    let missing = dispatcher.send("POST", FUNCTIONS, function("f"), 400);
    assert!(String::from_utf8_lossy(&missing.body).contains("Nothing has been uploaded"));
    upload(b"something else");
    let refused = dispatcher.send("POST", FUNCTIONS, function("f"), 400);
    assert!(String::from_utf8_lossy(&refused.body).contains("has another one"));
    upload(b"the package");
    dispatcher.send("POST", FUNCTIONS, function("f"), 201);
    let there = dispatcher.send("PUT", &place, json!({}), 200).json();
    assert_eq!((&there["state"], &there["bytes"], there.get("uploadUrl")), (&json!("active"), &json!(11), None));

    // Its URL may still be valid, and what comes by it then changes nothing.
    with_blobs(&dispatcher.blobs, async |blobs| {
        blobs.put("own", &uploaded, bytes::Bytes::from_static(b"something else")).await.unwrap();
        assert_eq!(blobs.get("own", &kept, None, 100).await.unwrap(), &b"the package"[..]);
    });
    dispatcher.send("POST", FUNCTIONS, function("g"), 201);
    with_blobs(&dispatcher.blobs, async |blobs| assert_eq!(blobs.get("own", &kept, None, 100).await.unwrap(), &b"the package"[..]));
}

#[test]
fn an_invocation_without_a_pool_goes_to_the_only_function_of_its_name() {
    let dispatcher = TestDispatcher::start();
    dispatcher.add_pool_and_job();
    let machine = json!({"imageReference": {"publisher": "p", "offer": "o", "sku": "s"}, "nodeAgentSKUId": "a"});
    let other = json!({"id": "other", "vmSize": "x", "targetDedicatedNodes": 0, "virtualMachineConfiguration": machine});
    dispatcher.send("POST", "/pools", other, 201);
    let function = |id: &str| json!({"id": id, "runtime": "exec", "commandLine": "cat"});
    for (pool, id) in [("pool", "mine"), ("pool", "both"), ("other", "BOTH")] {
        dispatcher.send("POST", &format!("/piecework/pools/{pool}/functions"), function(id), 201);
    }
    let sent = dispatcher.send("POST", "/piecework/functions/MINE/invoke-async", json!({"a": 1}), 202).json();
    let waiting = dispatcher.get("/piecework/queues/piecework.pool.pool/messages")["value"].clone();
    assert_eq!((&waiting[0]["messageId"], &waiting[0]["body"]), (&sent["messageId"], &json!(r#"{"a":1}"#)));
    for verb in ["invoke", "invoke-async"] {
        let refused = dispatcher.send("POST", &format!("/piecework/functions/both/{verb}"), Value::Null, 409);
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(text.contains("Pool") && text.contains("other"), "{text}");
        let missing = dispatcher.send("POST", &format!("/piecework/functions/none/{verb}"), Value::Null, 404).json();
        assert_eq!(missing["code"], "FunctionNotFound");
    }
}
