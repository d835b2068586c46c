//! Hostile byte streams over real sockets: a corpus with expected results, and random streams for as long as wanted.
//! Through all of it one honest client goes on working, and before login no allocation is larger than 1 MiB.

mod allocation;
mod corpus;
mod play;
mod random;
#[path = "../wire/mod.rs"]
#[allow(dead_code, reason = "two suites share it, and neither needs all of it")]
mod wire;

use std::collections::{HashMap, HashSet};

use corpus::{Expect, Phase, cases};
use embedded_broker::{Broker, Settings};
use play::{Witness, play};

/// Upper bound of one allocation before login.
const UNAUTHENTICATED_BYTES_MAX: usize = 1 << 20;
/// Cases at a time.
const PLAYERS: usize = 16;
/// A measuring test runs alone; the others run together.
static QUIET: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

async fn serve(folder: &std::path::Path) -> Broker {
    Broker::start(Settings::new("127.0.0.1:0".parse().unwrap(), folder, "guest", "guest")).await.unwrap()
}

#[test]
fn the_corpus_is_large_distinct_and_tells_what_must_come() {
    let cases = cases();
    let mut streams = HashMap::new();
    let mut names = HashSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases are called {}", case.name);
        let twin = streams.insert((case.phase, &case.bytes), &case.name);
        assert_eq!(twin, None, "{} says the same", case.name);
    }
    assert!(cases.len() >= 200, "{} cases", cases.len());
    let exact = cases.iter().filter(|case| matches!(case.expect, Expect::Code(_) | Expect::Header)).count();
    assert!(exact >= 120, "{exact} cases name their answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_stream_is_answered_as_it_should_be_and_harms_nobody() {
    let _shared = QUIET.read().await;
    let folder = tempfile::tempdir().unwrap();
    let broker = serve(folder.path()).await;
    let witness = Witness::begin(&broker.url());
    let mut wrong = Vec::new();
    for batch in cases().chunks(PLAYERS) {
        let played = batch.iter().map(|case| play(&broker, case));
        wrong.extend(futures::future::join_all(played).await.into_iter().flatten());
    }
    assert!(wrong.is_empty(), "{} cases came out wrong:\n{}", wrong.len(), wrong.join("\n"));
    witness.end().await;
    broker.stop().await;
}

#[tokio::test]
async fn nothing_before_login_makes_a_large_allocation() {
    let _alone = QUIET.write().await;
    let folder = tempfile::tempdir().unwrap();
    let broker = serve(folder.path()).await;
    let mut worst = Vec::new();
    for case in cases().iter().filter(|case| case.phase != Phase::Open) {
        let largest = allocation::largest_while(play(&broker, case)).await;
        if largest > UNAUTHENTICATED_BYTES_MAX {
            worst.push(format!("{}: {largest} bytes", case.name));
        }
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_and_mutated_streams_harm_nobody() {
    let _shared = QUIET.read().await;
    let folder = tempfile::tempdir().unwrap();
    let broker = serve(folder.path()).await;
    let witness = Witness::begin(&broker.url());
    random::play_for(&broker, random::seconds()).await;
    witness.end().await;
    broker.stop().await;
}
