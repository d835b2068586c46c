//! Usage metrics: core hours of pools by half hours, including deleted pools.

use contract::time::Timestamp;
use model::{
    refusal::Refusal,
    usage::{INTERVAL_MS, UsageRow, interval_of},
};
use serde::Serialize;
use store::usage::UsagePage;

use crate::{
    answer::{Answer, Iso},
    call::Call,
    error::store_failed,
    filter::compile,
    lists::{Paging, ROWS_MAX},
    odata,
    query::wrong,
    state::ApiState,
};

const CORE_HOUR_MS: f64 = 3_600_000.0;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageMetrics<'a> {
    pool_id: &'a str,
    start_time: Iso,
    end_time: Iso,
    vm_size: &'a str,
    total_core_hours: f64,
}

fn time(call: &Call, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = call.query.text(name)? else { return Ok(None) };
    odata::time(text).map(Some).ok_or_else(|| wrong(name, text, "The value is not a time such as 2026-11-23T19:00:00Z."))
}

/// The requested intervals; without bounds, the last one that has ended.
fn span(call: &Call, now: Timestamp) -> Result<(Timestamp, Timestamp), Refusal> {
    let ended = interval_of(now);
    let until = time(call, "endtime")?.unwrap_or(ended);
    let from = time(call, "starttime")?.unwrap_or_else(|| interval_of(until).plus_ms(-INTERVAL_MS));
    if from > until {
        return Err(wrong("starttime", &from.iso(), "It is later than endtime."));
    }
    // An interval is shown once it is over, so that it never changes.
    Ok((from, until.min(ended)))
}

fn token(row: &UsageRow) -> String {
    format!("{} {}", row.interval.0, row.pool)
}

fn read_token(token: &str) -> Result<(Timestamp, String), Refusal> {
    let parts = token.split_once(' ').and_then(|(interval, pool)| Some((Timestamp(interval.parse().ok()?), pool.to_owned())));
    parts.ok_or_else(|| wrong("$skiptoken", token, "The token was not made for this list.").hint("List again from the start."))
}

/// Core hours by interval and pool.
pub async fn list(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, ROWS_MAX)?;
    let (from, until) = span(call, Timestamp::now())?;
    let after = paging.after.as_deref().map(read_token).transpose()?;
    let rows = match paging.page(compile(call, "PoolUsageMetrics")?) {
        None => Vec::new(),
        Some(page) => {
            let page = UsagePage { from, until, after, rows_max: page.rows_max, filter: page.filter, left_out: page.left_out };
            api.read.usage(page).await.map_err(store_failed)?
        }
    };
    let rows: Vec<(String, UsageRow)> = rows.into_iter().map(|row| (token(&row), row)).collect();
    let show = |(_, row): &(String, UsageRow)| {
        let shown = UsageMetrics {
            pool_id: row.pool.as_str(),
            start_time: Iso(row.interval),
            end_time: Iso(row.interval.plus_ms(INTERVAL_MS)),
            vm_size: &row.vm_size,
            total_core_hours: row.core_ms as f64 / CORE_HOUR_MS,
        };
        serde_json::to_vec(&shown).expect("plain values have a JSON form")
    };
    Ok(paging.answer(call, "poolusagemetrics", &rows, |(token, _)| token, show))
}
