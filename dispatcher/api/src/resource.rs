//! Gets and lists of everything that is kept in rows: pools, nodes, jobs, job schedules, tasks, and how jobs went on nodes.

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

/// A row that clients get and list.
pub trait Resource: Sized + Send + Sync {
    /// The shape of its answers; says what `$select`, `$filter` and versions know.
    const SHAPE: &'static str;
    /// Azure's word for its lists.
    const KIND: &'static str;
    /// What all rows of an answer share: where they are, and what shows in each.
    type Place: Send + Sync;
    /// What is read beside the row when it is asked for.
    type Extra: Send + Sync;

    /// What a link to the next page remembers of the last row.
    fn token(&self) -> String;
    /// Version and time, of what has an ETag.
    fn stamp(&self) -> Option<(u64, Timestamp)> {
        None
    }
    /// Where it is.
    fn url(&self, place: &Self::Place) -> String;
    /// What is read beside rows, in their order; none at all when the request does not ask for it.
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

/// One row, with what all answers about it share.
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

/// Whether a row exists.
pub fn exists<R: Resource>(call: &Call, place: &R::Place, row: &R) -> Result<Answer, Refusal> {
    let answer = Answer::empty(200).about(&row.url(place));
    let Some((version, at)) = row.stamp() else { return Ok(answer) };
    Ok(unchanged(&call.condition, version, at)?.map(|unchanged| unchanged.about(&row.url(place))).unwrap_or(answer).changed(version, at))
}

/// A page of the rows that pass.
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

/// Rows that were read with [`Paging::page`], and where reading stopped if that was not at the last of them.
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
