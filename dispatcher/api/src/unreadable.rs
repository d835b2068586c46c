//! `GET /piecework/unreadable`: scans the store for rows that cannot be read, a slice with each page, and says what to
//! do about them. A page may be empty although others follow.

use model::refusal::Refusal;
use serde::Serialize;
use store::read::ScanFrom;

use crate::{
    answer::Answer,
    call::Call,
    error::store_failed,
    left_out::advice,
    lists::{Paging, list},
    query::wrong,
    state::ApiState,
};

/// Rows that one page scans.
const LOOKED_AT: usize = 2_000;

#[derive(Serialize)]
struct View<'a> {
    table: &'a str,
    row: &'a str,
    column: &'a str,
    advice: &'a str,
}

fn from(token: &str) -> Option<ScanFrom> {
    let (table, row) = token.split_once(':')?;
    let row = if row.is_empty() { None } else { Some(row.parse().ok()?) };
    Some(ScanFrom { table: table.parse().ok()?, row })
}

/// Unreadable rows of a slice of the store.
pub async fn list_slice(api: &ApiState, call: &Call) -> Result<Answer, Refusal> {
    let paging = Paging::read(call, LOOKED_AT)?;
    let from = match paging.after.as_deref() {
        None => ScanFrom::default(),
        Some(token) => from(token).ok_or_else(|| wrong("$skiptoken", token, "The token was not made by this server."))?,
    };
    let scanned = api.read.scan(from, paging.rows_max).await.map_err(store_failed)?;
    let next = scanned.next.map(|next| format!("{}:{}", next.table, next.row.map(|row| row.to_string()).unwrap_or_default()));
    let views = scanned.unreadable.iter().map(|found| {
        let view = View { table: found.table, row: &found.row, column: found.column, advice: advice(found.table) };
        serde_json::to_vec(&view).expect("a view has a JSON form")
    });
    Ok(list(call, "piecework/unreadable", views, next.as_deref()))
}
