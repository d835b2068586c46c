//! The recorder of the process, and the page that Prometheus reads.
//!
//! Counters and histograms gather in one recorder for the life of the process. Gauges of what exists at the moment are
//! recorded anew for each page, in a recorder that leaves with it: what is deleted is not on the next page.

use std::{sync::OnceLock, thread, time::Duration};

use ::metrics::{KeyName, Recorder, SharedString, set_global_recorder, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::{
    descriptor::Kind,
    process,
    table::{ALL, BUILD},
};

/// `Content-Type` of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Between two moves of observations into their buckets, so that they take no memory when nobody reads the page.
const UPKEEP: Duration = Duration::from_secs(5);
const UPKEEP_STACK_BYTES: usize = 128 * 1024;

static GATHERED: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to gather, once for the process; without this, recording does nothing and costs nearly nothing.
pub fn install() {
    GATHERED.get_or_init(|| {
        let recorder = recorder();
        let handle = recorder.handle();
        if set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is in place, so counters and histograms are not on the metrics page");
        }
        let gathered = handle.clone();
        let upkeep = thread::Builder::new().name("metrics".to_owned()).stack_size(UPKEEP_STACK_BYTES);
        let upkeep = upkeep.spawn(move || {
            loop {
                thread::sleep(UPKEEP);
                gathered.run_upkeep();
            }
        });
        if let Err(error) = upkeep {
            tracing::warn!(%error, "no thread for the upkeep of metrics; their observations take memory until the metrics page is read");
        }
        handle
    });
}

/// The page: what was gathered, the process's own figures, and what `record` records.
pub fn page(record: impl FnOnce()) -> String {
    let present = recorder();
    with_local_recorder(&present, || {
        BUILD.of([env!("CARGO_PKG_VERSION")]).set(1.0);
        process::record();
        record();
    });
    let mut text = present.handle().render();
    if let Some(gathered) = GATHERED.get() {
        text += &gathered.render();
    }
    text
}

fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let buckets = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets);
        builder = buckets.expect("every histogram of the table has buckets");
    }
    let recorder = builder.build_recorder();
    for metric in ALL {
        let (name, meaning) = (KeyName::from_const_str(metric.name), SharedString::const_str(metric.meaning));
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, meaning),
            Kind::Gauge => recorder.describe_gauge(name, None, meaning),
            Kind::Histogram => recorder.describe_histogram(name, None, meaning),
        }
    }
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ENGINE_BATCH_INPUTS, NO_LABELS, POOLS, TASKS};

    #[test]
    fn a_page_holds_what_exists_now_and_what_was_gathered() {
        install();
        install();
        ENGINE_BATCH_INPUTS.of(NO_LABELS).record(3.0);
        let first = page(|| TASKS.of(["p", "active"]).set(7.0));
        assert!(first.contains("piecework_tasks{pool=\"p\",state=\"active\"} 7\n"), "{first}");
        assert!(first.contains("piecework_engine_batch_inputs_bucket{le=\"4\"} 1\n"), "{first}");
        assert!(first.contains("# TYPE process_start_time_seconds gauge\n"), "{first}");
        let next = page(|| POOLS.of(NO_LABELS).set(0.0));
        assert!(!next.contains("pool=\"p\""), "a gauge of what is gone has left:\n{next}");
        assert!(next.contains("piecework_engine_batch_inputs_count 1\n"), "{next}");
        assert!(next.contains("# HELP piecework_pools Pools.\n# TYPE piecework_pools gauge\npiecework_pools 0\n"), "{next}");
    }
}
