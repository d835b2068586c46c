//! Every metric there is, each described once: the page's HELP lines, `docs/metrics.md` and the call sites come from here.

use super::descriptor::{Counters, Descriptor, Gauges, Histograms};

/// Pools with a name of their own in labels, the first ones since the start of the process; further ones share [`OTHER_POOLS`].
pub const POOLS_NAMED_MAX: usize = 100;
/// The label of pools beyond [`POOLS_NAMED_MAX`].
pub const OTHER_POOLS: &str = "other";
/// The label of pools that were made for one job or job schedule, of which there are as many as jobs.
pub const AUTO_POOLS: &str = "auto";

/// No histogram.
const NONE: &[f64] = &[];
/// Seconds that requests, commits and messages take.
const QUICK: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds that tasks take, up to a day.
const LONG: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0];
/// Inputs in a batch.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

macro_rules! table {
    ($($family:ident $constant:ident $name:literal $unit:literal [$($label:literal),*] $parts:literal $buckets:ident $meaning:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $constant: $family<{ <[&str]>::len(&[$($label),*]) }> = $family::new(&Descriptor {
                name: $name,
                kind: $family::<0>::KIND,
                unit: $unit,
                labels: &[$($label),*],
                parts: $parts,
                buckets: $buckets,
                meaning: $meaning,
            });
        )+
        /// All of them, in the order of the documentation.
        pub const ALL: &[&Descriptor] = &[$($constant.descriptor()),+];
    };
}

table! {
    Gauges TASKS "piecework_tasks" "tasks" ["pool", "state"] "dispatcher" NONE
        "Tasks of jobs that are not completed, by state: active, preparing, running or completed. Completed ones leave with their job's end.";
    Counters TASKS_COMPLETED "piecework_tasks_completed_total" "tasks" ["pool", "result"] "dispatcher" NONE
        "Tasks that completed, by result: success or failure.";
    Counters ATTEMPTS_ENDED "piecework_task_attempts_ended_total" "attempts" ["reason"] "dispatcher" NONE
        "Started attempts that ended, by reason: what ended the last one of a task (success, exit_code, signal, timeout, stopped, staging, launch, disk_full, upload, node, ended, crashes, faults, unreadable), or why the task is tried again (retried, recovered, requested, unprepared).";
    Histograms TASK_QUEUE_SECONDS "piecework_task_queue_seconds" "seconds" ["pool"] "dispatcher" LONG
        "From when a task became active (created, or queued again) until a node started it, by the clocks of both. Time that a task waits for others it depends on counts.";
    Histograms TASK_RUN_SECONDS "piecework_task_run_seconds" "seconds" ["pool"] "dispatcher" LONG
        "Wall-clock time of runs that ended, staging of files included.";
    Gauges JOBS "piecework_jobs" "jobs" [] "dispatcher" NONE
        "Jobs that are not completed.";
    Gauges POOLS "piecework_pools" "pools" [] "dispatcher" NONE
        "Pools.";
    Gauges NODES "piecework_nodes" "nodes" ["pool", "state"] "dispatcher" NONE
        "Nodes by state, in Azure Batch's words.";
    Gauges SLOTS "piecework_task_slots" "slots" ["pool"] "dispatcher" NONE
        "Task slots of nodes that take tasks.";
    Gauges SLOTS_USED "piecework_task_slots_used" "slots" ["pool"] "dispatcher" NONE
        "Task slots that running and preparing tasks take.";
    Gauges POOL_WAITING_SECONDS "piecework_pool_waiting_seconds" "seconds" ["pool"] "dispatcher" NONE
        "For how long the pool has had tasks without a break that could run and did not; 0 when none waits.";
    Gauges OUTBOX "piecework_outbox_messages" "messages" [] "dispatcher" NONE
        "Tasks that were given to the broker and that it has not confirmed yet.";
    Counters ENGINE_BATCHES "piecework_engine_batches_total" "batches" [] "dispatcher" NONE
        "Transactions that the engine tried.";
    Counters ENGINE_BATCHES_REFUSED "piecework_engine_batches_refused_total" "batches" [] "dispatcher" NONE
        "Transactions that the store refused: changes are answered with an error, events are kept and tried again.";
    Counters EVENTS_REFUSED "piecework_engine_events_refused_total" "events" [] "dispatcher" NONE
        "Events of nodes that the store cannot hold and that were given up: their messages go to the dead queue, and the log says why.";
    Histograms ENGINE_BATCH_INPUTS "piecework_engine_batch_inputs" "inputs" [] "dispatcher" COUNTS
        "Requests, events and ticks that shared one transaction.";
    Histograms ENGINE_BATCH_SECONDS "piecework_engine_batch_seconds" "seconds" [] "dispatcher" QUICK
        "From a transaction's first input until it was committed or refused.";
    Gauges ENGINE_INPUTS_RATIO "piecework_engine_inputs_ratio" "ratio" [] "dispatcher" NONE
        "How full the engine's queue of inputs is, from 0 to 1; when it is full, requests are answered with ServerBusy.";
    Gauges UNSETTLED_SECONDS "piecework_oldest_unsettled_event_seconds" "seconds" [] "dispatcher" NONE
        "Age of the oldest event of a node that is not stored yet; 0 when there is none.";
    Counters UNREADABLE_MESSAGES "piecework_unreadable_messages_total" "messages" ["queue"] "dispatcher" NONE
        "Messages that could not be read, by queue: events, heartbeats or requests. Those of events and requests lie in the dead queue.";
    Counters SUBMISSIONS "piecework_submissions_total" "messages" ["result"] "dispatcher" NONE
        "Messages that submitted tasks, by result: accepted, repeated (a message that had been accepted before), or refused.";
    Gauges HEALTH_PROBLEMS "piecework_health_problems" "problems" ["part"] "dispatcher" NONE
        "What /piecework/health complains of, by part of the stack; no series when all is well.";
    Gauges STORE_BYTES "piecework_store_bytes" "bytes" ["file"] "dispatcher" NONE
        "Size of the store's files: database or wal.";
    Gauges STORE_FREE_BYTES "piecework_store_free_bytes" "bytes" [] "dispatcher" NONE
        "Bytes of pages inside the database that are free to be used again.";
    Gauges DISK_FREE_BYTES "piecework_store_disk_free_bytes" "bytes" [] "dispatcher" NONE
        "Free bytes of the disk that holds the store.";
    Counters HTTP_REQUESTS "piecework_http_requests_total" "requests" ["operation", "status"] "dispatcher" NONE
        "Requests answered by the API, by operation (none for paths and verbs that it does not have) and class of status: 2xx to 5xx.";
    Histograms HTTP_SECONDS "piecework_http_request_seconds" "seconds" ["operation"] "dispatcher" QUICK
        "From a request's head until its answer's head.";
    Gauges BROKER_CONNECTED "piecework_broker_connected" "0 or 1" ["part", "role"] "all" NONE
        "Whether a part's connection to the broker stands, by what it is for: publishing or consuming.";
    Gauges BROKER_BLOCKED "piecework_broker_blocked" "0 or 1" ["part", "role"] "all" NONE
        "Whether the broker takes no messages from the connection, as it does when its memory or disk is short.";
    Counters BROKER_LOST "piecework_broker_connections_lost_total" "connections" ["part", "role"] "all" NONE
        "Connections to the broker that broke and were made anew.";
    Counters PUBLISHED "piecework_broker_messages_published_total" "messages" ["result"] "all" NONE
        "Messages given to the broker, by result: confirmed, returned (no queue takes them), refused, or failed.";
    Histograms PUBLISH_SECONDS "piecework_broker_publish_seconds" "seconds" [] "all" QUICK
        "From handing over messages until the last is confirmed, the wait for a channel included.";
    Histograms CONFIRM_SECONDS "piecework_broker_confirm_seconds" "seconds" [] "all" QUICK
        "From writing a window of messages until the broker confirmed the last of them.";
    Counters BLOB_REQUESTS "piecework_blob_requests_total" "requests" ["operation", "result"] "all" NONE
        "Requests to the blob store, repeats not counted, by S3's name of the operation and result: ok, not_found, denied, refused, or unanswered.";
    Histograms BLOB_SECONDS "piecework_blob_request_seconds" "seconds" ["operation"] "all" QUICK
        "From a request to the blob store until the head of its answer, repeats included.";
    Counters NODES_ASKED "piecework_autoscaler_nodes_total" "nodes" ["action", "result"] "autoscaler" NONE
        "Nodes that the provider was asked to create, delete, stop or start, by result: ok or error.";
    Gauges RUNS "piecework_agent_runs" "runs" [] "agent" NONE
        "Runs that the agent has in hand.";
    Gauges INVOCATIONS_RUNNING "piecework_agent_invocations" "invocations" [] "agent" NONE
        "Invocations of functions that the agent has in hand.";
    Counters INVOCATIONS "piecework_agent_invocations_total" "invocations" ["function", "result"] "agent" NONE
        "Tries of invocations that ended, by function and result: ok, or the code of the failure. A pool has at most 100 functions at a time.";
    Counters COLD_STARTS "piecework_agent_cold_starts_total" "programs" ["function"] "agent" NONE
        "Programs of functions that were started for an invocation, by function.";
    Histograms INVOCATION_SECONDS "piecework_agent_invocation_seconds" "seconds" ["function"] "agent" LONG
        "Time in a function, by function, without the start of its program.";
    Gauges BUILD "piecework_build_info" "1" ["version"] "all" NONE
        "Always 1; the label has the version.";
    Gauges PROCESS_MEMORY "process_resident_memory_bytes" "bytes" [] "all" NONE
        "Memory of the process that is resident.";
    Counters PROCESS_CPU "process_cpu_seconds_total" "seconds" [] "all" NONE
        "Processor time that the process has used, in whole seconds.";
    Gauges PROCESS_FILES "process_open_fds" "descriptors" [] "all" NONE
        "Open file descriptors.";
    Gauges PROCESS_FILES_MAX "process_max_fds" "descriptors" [] "all" NONE
        "File descriptors that the process may open.";
    Gauges PROCESS_START "process_start_time_seconds" "seconds" [] "all" NONE
        "When the process started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::Kind;

    #[test]
    fn names_follow_prometheus_and_are_given_once() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is given twice");
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("piecework_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            let base = name.trim_end_matches("_total");
            for unit in ["seconds", "bytes", "ratio"] {
                assert_eq!(base.ends_with(unit), metric.unit == unit, "{name} is in {}", metric.unit);
            }
            assert!(!["_count", "_sum", "_bucket", "_info_total"].iter().any(|end| name.ends_with(end)), "{name}");
            assert_eq!(!metric.buckets.is_empty(), metric.kind == Kind::Histogram, "{name}");
            assert!(metric.buckets.is_sorted_by(|one, next| one < next), "{name}");
            assert!(metric.meaning.ends_with('.') && !metric.meaning.contains(['|', '\n', '\\']), "{name}");
            let bounded = [
                "pool",
                "function",
                "state",
                "result",
                "reason",
                "queue",
                "part",
                "file",
                "operation",
                "status",
                "role",
                "action",
                "version",
            ];
            assert!(metric.labels.iter().all(|label| bounded.contains(label)), "{name}: is every label bounded?");
        }
    }
}
