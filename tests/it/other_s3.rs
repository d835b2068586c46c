//! A stack whose blobs are in an S3 store of somebody else.

use crate::{
    rest::Rest,
    stack::{Stack, text},
};

#[test]
fn a_stack_on_another_s3_store_stays_up_and_keeps_its_blobs_there() {
    let other = Stack::start();
    let s3 = &other.ready.s3;
    let endpoint = s3.endpoint.strip_prefix("http://").expect("a plain endpoint");
    let url = format!("s3+http://{}:{}@{endpoint}/elsewhere?region={}", s3.access_key, s3.secret_key, s3.region);
    let stack = Stack::start_with(&["--s3", &url]);
    // Too long for the task's row: it goes through the store.
    let out = stack.command().args(["run", "--", "/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"]).output().unwrap();
    let (said, err) = text(&out);
    assert!(out.status.success(), "{err}");
    assert_eq!((said.len(), said.trim_start_matches('x')), (1_000_000, ""), "{err}");
    assert_eq!(Rest::new(&stack.ready).get("/piecework/health")["status"], "ok");
    stack.stop();
    other.stop();
}
