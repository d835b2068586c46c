//! Common implementation of get and list for everything that is stored in rows: pools, nodes, jobs, job schedules,
//! tasks, and results of job preparation.

use contract::time::Timestamp;
use model::refusal::Refusal;
use store::{StoreError, read::Page};

use crate::{
    answer::{Answer, Fields},
    call::Call,
    conditional::unchanged,
    error::store_failed,
    filter::Compiled,
    lists::{Paging, ROWS_MAX, shape, written},
    odata::Select,
    state::ApiState,
};

/// A row that clients can get and list.
pub trait Resource: Sized + Send + Sync {
    /// The shape of its answers; determines `$select`, `$filter` and the differences between versions.
    const SHAPE: &'static str;
    /// Azure's name of its lists.
    const KIND: &'static str;
    /// Facts that all rows of an answer share.
    type Place: Send + Sync;
    /// Data that is read in addition to the row when the request selects it.
    type Extra: Send + Sync;

    /// The row's position in the list, for the link to the next page.
    fn token(&self) -> String;
    /// Version and time of the resource; `None` for those without an ETag.
    fn stamp(&self) -> Option<(u64, Timestamp)> {
        None
    }
    /// Where it is.
    fn url(&self, place: &Self::Place) -> String;
    /// Additional data of rows, in their order; empty when the request does not select it.
    fn extras(
        api: &ApiState,
        call: &Call,
        select: Option<&Select>,
        place: &Self::Place,
        rows: &[Self],
    ) -> impl Future<Output = Result<Vec<Self::Extra>, Refusal>> + Send;
    /// Adds its properties.
    fn show<'a>(&self, fields: Fields<'a>, place: &Self::Place, extra: Option<&Self::Extra>) -> Fields<'a>;
}

/// Answers with one row.
pub async fn get<R: Resource>(
    api: &ApiState,
    call: &Call,
    found: impl Future<Output = Result<(R::Place, R), Refusal>>,
) -> Result<Answer, Refusal> {
    let select = shape(call, R::SHAPE)?;
    let (place, row) = found.await?;
    let stamp = row.stamp();
    if let Some((version, at)) = stamp
        && let Some(answer) = unchanged(&call.condition, version, at)?
    {
        return Ok(answer);
    }
    let extras = R::extras(api, call, select.as_ref(), &place, std::slice::from_ref(&row)).await?;
    let hidden = call.version.lacks(R::SHAPE);
    let fields = Fields::new(select.as_ref(), &hidden).always("odata.metadata", &format!("{}/$metadata#{}/@Element", call.base, R::KIND));
    let answer = Answer::json(row.show(fields, &place, extras.first()).finish());
    Ok(match stamp {
        Some((version, at)) => answer.changed(version, at).about(&row.url(&place)),
        None => answer,
    })
}

/// Answers whether a row exists.
pub fn exists<R: Resource>(call: &Call, place: &R::Place, row: &R) -> Result<Answer, Refusal> {
    let answer = Answer::empty(200).about(&row.url(place));
    let Some((version, at)) = row.stamp() else { return Ok(answer) };
    Ok(unchanged(&call.condition, version, at)?.map(|unchanged| unchanged.about(&row.url(place))).unwrap_or(answer).changed(version, at))
}

/// Answers with a page of the rows that pass the filter.
pub async fn list<R: Resource, F: Future<Output = Result<Vec<R>, StoreError>>>(
    api: &ApiState,
    call: &Call,
    filter: Compiled,
    place: R::Place,
    read: impl FnOnce(Page) -> F,
) -> Result<Answer, Refusal> {
    let select = shape(call, R::SHAPE)?;
    let paging = Paging::read(call, ROWS_MAX)?;
    let rows = match paging.page(filter) {
        None => Vec::new(),
        Some(page) => read(page).await.map_err(store_failed)?,
    };
    page(api, call, select.as_ref(), &paging, &place, (&rows, None)).await
}

/// Answers with rows read by [`Paging::page`]; `stopped_at` says where reading stopped before the last of them.
pub async fn page<R: Resource>(
    api: &ApiState,
    call: &Call,
    select: Option<&Select>,
    paging: &Paging,
    place: &R::Place,
    (rows, stopped_at): (&[R], Option<&str>),
) -> Result<Answer, Refusal> {
    let (shown, last) = paging.shown(rows);
    let extras = R::extras(api, call, select, place, shown).await?;
    let hidden = call.version.lacks(R::SHAPE);
    let write = |body, (at, row): (usize, &R)| row.show(Fields::after(body, select, &hidden), place, extras.get(at)).finish();
    let next = last.map(R::token);
    Ok(written(call, R::KIND, shown.iter().enumerate(), write, next.as_deref().or(stopped_at)))
}
