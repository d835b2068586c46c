//! The API with everything behind it but nodes: engine, SQLite, a broker and a blob store, over real sockets.

mod access;
mod applications;
mod auto_pools;
#[path = "../../../tests/it/bad_input/mod.rs"]
mod bad_input;
mod bearers;
mod changes;
mod clients;
mod container_urls;
mod dead_letters;
mod fake_agent;
mod files;
mod filters;
mod functions;
mod job_tasks;
mod jobs;
mod lists;
mod metrics;
mod nodes;
mod pool_changes;
mod properties;
mod publishers;
mod queues;
mod scaling;
mod schedules;
#[path = "../../../tests/it/signing.rs"]
mod signing;
mod stats;
mod task_changes;
mod test_dispatcher;
mod tokens;
mod unknown;
mod unreadable;
mod versions;
mod words;

use test_dispatcher::TestDispatcher;

#[test]
fn bad_input_is_refused_with_the_right_code_and_changes_nothing() {
    bad_input::check(&TestDispatcher::start().account);
}
