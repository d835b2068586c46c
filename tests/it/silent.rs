//! Thousands of silent connections to every server of a stack delay no client and no task.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use broker_config::{
    settings::{BlobSettings, BrokerSettings, Secret},
    topology,
};
use clients::{amqp::Link, blobs::Blobs};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::{
    rest::Rest,
    stack::{PIECEWORK, Stack},
};

/// More than the API takes from one address, and than the blob store takes at all.
const CROWD: usize = 1_100;
/// Far longer than one round of work takes, and shorter than silent connections are let be.
const ROUND_MAX: Duration = Duration::from_secs(45);

fn address(url: &str) -> SocketAddr {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split_once('/').map_or(authority, |(authority, _)| authority);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host).parse().expect("an address")
}

#[test]
fn silent_connections_hold_up_neither_clients_nor_tasks() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("more descriptors");
    // The stack begins with few descriptors, as a shell may give it.
    let stack = Stack::start_by(|| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -S -n 256; exec \"$0\" \"$@\"", PIECEWORK]);
        command
    });
    let rest = Rest::new(&stack.ready);
    rest.add_pool("p", 1, 1);
    rest.add_job("job", "p");
    let s3 = &stack.ready.s3;
    let blobs = Blobs::new(BlobSettings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key: s3.access_key.clone(),
        secret_key: Secret::new(&s3.secret_key),
        bucket: s3.bucket.clone(),
        own_bucket: "piecework-own".to_owned(),
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (number, url) in [&stack.ready.url, &stack.ready.broker, &s3.endpoint].into_iter().enumerate() {
        let crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(address(url)).expect("a connection")).collect();
        let round = async {
            let link = Link::open(BrokerSettings { url: Secret::new(&stack.ready.broker), name: "test".to_owned() }).await.unwrap();
            assert!(link.depth(topology::EVENT_QUEUE).await.unwrap().is_some());
            link.close().await;
            blobs.put(&s3.bucket, "key", "bytes".into()).await.unwrap();
            assert_eq!(blobs.list(&s3.bucket, "key", None, 10).await.unwrap().blobs.len(), 1);
        };
        runtime.block_on(async { tokio::time::timeout(ROUND_MAX, round).await }).expect("clients are held up");
        // Connections that it kept from before were silent themselves.
        let rest = Rest::new(&stack.ready);
        rest.add_task("job", json!({"id": format!("t{number}"), "commandLine": "/bin/sh -c 'echo done'"}));
        rest.finished("job", &format!("t{number}"));
        assert_eq!(rest.send("GET", &format!("/jobs/job/tasks/t{number}/files/stdout.txt"), None).text(), "done\n");
        drop(crowd);
    }
    stack.stop();
}
