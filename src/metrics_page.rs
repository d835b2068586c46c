//! Metrics of an agent or autoscaler that is a process of its own, where an address is given for them.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use broker_config::metrics;
use tokio::net::TcpListener;

/// Gathers them and serves them until the process ends; without an address nothing is gathered.
pub(crate) async fn serve(listen: Option<SocketAddr>) -> anyhow::Result<()> {
    let Some(listen) = listen else { return Ok(()) };
    metrics::install();
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} for metrics"))?;
    let address = listener.local_addr().with_context(|| format!("cannot listen on {listen} for metrics"))?;
    tracing::info!(%address, "metrics are served at /metrics");
    let page: api::MetricsPage = Arc::new(|| Box::pin(async { metrics::page(|| ()) }));
    tokio::spawn(api::serve_metrics(listener, page));
    Ok(())
}
