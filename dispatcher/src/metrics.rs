//! Renders the dispatcher's metrics page from the engine, the store, and the health of the parts.

use std::{path::PathBuf, sync::Arc};

use api::MetricsPage;
use broker_config::{
    disk,
    metrics::{
        DISK_FREE_BYTES, ENGINE_INPUTS_RATIO, HEALTH_PROBLEMS, JOBS, NO_LABELS, NODES, OUTBOX, POOL_WAITING_SECONDS, POOLS, SLOTS,
        SLOTS_USED, STORE_BYTES, STORE_FREE_BYTES, TASKS, UNSETTLED_SECONDS, page,
    },
};
use clients::amqp::Acker;
use contract::state::NodeState;
use engine::{Engine, Figures, PoolFigures};
use model::health::Health;
use store::sqlite::{Sizes, SqliteReader};
use tokio::sync::watch;
use tracing::{debug, warn};

/// The sources of the figures.
pub(crate) struct Sources {
    pub engine: Engine,
    pub read: Arc<SqliteReader>,
    pub events: Acker,
    pub health: watch::Receiver<Health>,
    pub data: PathBuf,
}

/// The page, rendered for each request.
pub(crate) fn metrics_page(sources: Sources) -> MetricsPage {
    let sources = Arc::new(sources);
    Arc::new(move || {
        let sources = sources.clone();
        Box::pin(async move { sources.page().await })
    })
}

impl Sources {
    async fn page(&self) -> String {
        let (figures, sizes) = tokio::join!(self.engine.figures(), self.read.sizes());
        if figures.is_none() {
            debug!("the engine gave no figures in time; the metrics page comes without its gauges");
        }
        let sizes = sizes.inspect_err(|error| warn!(%error, "the store's size cannot be read; the metrics page comes without it")).ok();
        page(|| {
            if let Some(figures) = &figures {
                record_figures(figures);
            }
            if let Some(sizes) = sizes {
                record_sizes(sizes);
            }
            self.record_state();
        })
    }

    fn record_state(&self) {
        ENGINE_INPUTS_RATIO.of(NO_LABELS).set(self.engine.load());
        UNSETTLED_SECONDS.of(NO_LABELS).set(self.events.oldest().unwrap_or_default().as_secs_f64());
        for problem in &self.health.borrow().problems {
            HEALTH_PROBLEMS.of([problem.part.clone()]).increment(1.0);
        }
        match disk::free(&self.data) {
            Ok(free) => DISK_FREE_BYTES.of(NO_LABELS).set(free as f64),
            Err(error) => debug!(%error, "the free space is unknown; the metrics page comes without it"),
        }
    }
}

fn record_sizes(sizes: Sizes) {
    STORE_BYTES.of(["database"]).set(sizes.database_bytes as f64);
    STORE_BYTES.of(["wal"]).set(sizes.log_bytes as f64);
    STORE_FREE_BYTES.of(NO_LABELS).set(sizes.free_bytes as f64);
}

fn record_figures(figures: &Figures) {
    JOBS.of(NO_LABELS).set(figures.jobs as f64);
    POOLS.of(NO_LABELS).set(figures.pools as f64);
    OUTBOX.of(NO_LABELS).set(figures.unpublished as f64);
    for (pool, sums) in &figures.by_pool {
        let PoolFigures { active, preparing, running, completed, nodes, slots, slots_used, waiting_ms } = sums;
        for (state, count) in [("active", active), ("preparing", preparing), ("running", running), ("completed", completed)] {
            TASKS.of([pool.clone(), state.to_owned()]).set(*count as f64);
        }
        for state in NodeState::ALL {
            let count = nodes.get(state).copied().unwrap_or_default();
            NODES.of([pool.clone(), state.as_str().to_owned()]).set(count as f64);
        }
        SLOTS.of([pool.clone()]).set(*slots as f64);
        SLOTS_USED.of([pool.clone()]).set(*slots_used as f64);
        POOL_WAITING_SECONDS.of([pool.clone()]).set(*waiting_ms as f64 / 1000.0);
    }
}
