//! `GET /metrics` for Prometheus, on the API's address or on one of its own.

use std::future;

use axum::{Router, body::Body, response::Response};
use broker_config::metrics::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, StatusCode, header};
use model::refusal::{Code, Refusal};
use tokio::net::TcpListener;

use crate::{
    answer::Answer,
    call::Call,
    listen::serve,
    state::{ApiState, MetricsPage},
};

const PATH: &str = "/metrics";

/// Answers with the metrics; 404 when they have an address of their own.
pub async fn get(api: &ApiState, _call: &Call) -> Result<Answer, Refusal> {
    let Some(page) = &api.metrics else {
        let refusal = Refusal::new(Code::ResourceNotFound, "The metrics are served on another address.");
        return Err(refusal.hint("The dispatcher was started with --metrics-listen: ask there."));
    };
    let answer = Answer { body: Body::from(page().await), ..Answer::empty(200) };
    Ok(answer.with(header::CONTENT_TYPE, CONTENT_TYPE).with(header::CACHE_CONTROL, "no-store"))
}

/// Serves only the metrics, by plain HTTP, until it is dropped.
pub async fn serve_metrics(listener: TcpListener, page: MetricsPage) {
    let router = Router::new().fallback(move |request: Request<Body>| alone(page.clone(), request));
    serve(listener, router, None, future::pending()).await;
}

async fn alone(page: MetricsPage, request: Request<Body>) -> Response {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, PATH) => (StatusCode::OK, page().await),
        (_, PATH) => (StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, format!("the metrics are at {PATH}\n")),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}
