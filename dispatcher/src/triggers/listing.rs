//! Finds objects whose event never came, by comparing a bucket page by page with the rows of what was seen.
//!
//! A row stays as long as its object is in the bucket, so no object is acted on twice, however often it is listed; and an
//! object without a row is acted on, so none is missed. What is gone from the bucket is forgotten a day later.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use api::triggers::{
    event::{self, Object},
    start,
};
use clients::blobs::BlobInfo;
use contract::time::Timestamp;
use model::trigger::{Advance, BucketSource, SeenKey, Source, TriggerRow};
use tokio::time::Instant;
use tracing::debug;

use crate::{
    submissions::Parts,
    triggers::progress::{Ended, Progress},
};

/// Objects of one page; S3's limit.
const PAGE_OBJECTS: usize = 1_000;
/// Rows that are read at once.
const SLICE_ROWS: usize = 2_000;
/// Events, or rows to forget, of one transaction at most.
const STEP_MAX: usize = 200;
/// Time for one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// A page waits for events at most this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Before a listing that failed goes on.
const PAUSE: Duration = Duration::from_secs(5);
/// Between two slices of old rows, and after the last of them.
const SWEEP_PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
/// How long an object is remembered that is gone or has changed: its event may come late, or again.
const GONE_MS: i64 = 24 * 60 * 60 * 1000;
/// How long anything is remembered where no listing says what is gone.
const UNLISTED_MS: i64 = 7 * GONE_MS;
/// Objects that are older than their trigger by more than this existed before it: clocks may differ, and some stores tell
/// times in whole seconds.
const EXISTING_MS: i64 = 60 * 1000;

/// The position in a bucket, or among the rows of a trigger that lists none.
pub(super) struct Listing {
    /// When the present listing began.
    began: Option<Timestamp>,
    after: Option<String>,
    /// The last row that was looked at.
    swept: Option<SeenKey>,
    /// When the last listing began, and when the last request for one came that it answers.
    last: Option<Timestamp>,
    not_before: Option<Instant>,
    looked_at: Instant,
}

impl Listing {
    pub(super) fn new(row: &TriggerRow) -> Listing {
        Listing { began: None, after: None, swept: None, last: row.progress.last_listing, not_before: None, looked_at: Instant::now() }
    }

    /// When the next page or slice is due.
    pub(super) fn due(&self, row: &TriggerRow, now: Timestamp) -> Option<Instant> {
        let soon = Instant::now();
        let wait = match &row.spec.source {
            _ if self.began.is_some() => Duration::ZERO,
            Source::Bucket(bucket) => {
                let is_asked = row.progress.asked.is_some_and(|asked| self.last.is_none_or(|last| last < asked));
                let interval = bucket.listing_interval.limit().filter(|interval| !interval.is_zero());
                match (is_asked, interval, self.last) {
                    (true, ..) | (_, Some(_), None) => Duration::ZERO,
                    (_, Some(interval), Some(last)) => interval.saturating_sub(Duration::from_millis(now.since(last).unsigned_abs())),
                    (_, None, _) => return None,
                }
            }
            Source::Exchange(_) | Source::Schedule(_) | Source::Webhook(_) => Duration::ZERO,
        };
        let at = soon.checked_add(wait)?;
        Some(self.not_before.map_or(at, |not_before| not_before.max(at)))
    }

    /// Whether a page or slice has waited long for events, which otherwise come first.
    pub(super) fn is_behind(&self, row: &TriggerRow, now: Timestamp) -> bool {
        let soon = Instant::now();
        soon.duration_since(self.looked_at) > PATIENCE && self.due(row, now).is_some_and(|due| due <= soon)
    }

    /// Compares one page; a failure is told and tried again.
    pub(super) async fn page(
        &mut self,
        parts: &Parts,
        row: &TriggerRow,
        bucket: &BucketSource,
        progress: &mut Progress,
    ) -> Result<(), Ended> {
        let began = *self.began.get_or_insert_with(Timestamp::now);
        (self.not_before, self.looked_at) = (None, Instant::now());
        let listed = parts.blobs.list(&bucket.name, &bucket.prefix, self.after.as_deref(), PAGE_OBJECTS);
        let page = match tokio::time::timeout(PAGE_TIMEOUT, listed).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return self.failed(format!("The bucket {} cannot be listed: {error}.", bucket.name), progress).await,
            Err(_) => return self.failed(format!("The bucket {} cannot be listed: no answer in time.", bucket.name), progress).await,
        };
        match self.compare(parts, row, bucket, &page.blobs, page.next.clone(), progress).await? {
            Ok(()) => {}
            Err(reason) => return self.failed(reason, progress).await,
        }
        self.after = page.next;
        if self.after.is_none() {
            (self.began, self.last) = (None, Some(began));
            progress.recovered();
            debug!(trigger = %row.id, "a bucket was listed");
            return progress.store(Advance { listed_at: Some(began), ..Advance::default() }).await;
        }
        Ok(())
    }

    async fn failed(&mut self, reason: String, progress: &mut Progress) -> Result<(), Ended> {
        self.not_before = Some(Instant::now() + PAUSE);
        progress.fault(reason).await
    }

    /// Acts on the objects of a page that have no row, and forgets rows whose objects are gone.
    async fn compare(
        &self,
        parts: &Parts,
        row: &TriggerRow,
        bucket: &BucketSource,
        blobs: &[BlobInfo],
        next: Option<String>,
        progress: &mut Progress,
    ) -> Result<Result<(), String>, Ended> {
        let objects: Vec<Object> = blobs.iter().map(|blob| object(bucket, blob)).collect();
        let here: HashSet<SeenKey> = objects.iter().map(Object::seen).collect();
        let mut unseen: BTreeMap<SeenKey, Object> = BTreeMap::new();
        unseen.extend(objects.into_iter().filter(|object| bucket.takes(&object.key, object.bytes)).map(|object| (object.seen(), object)));
        // A store that lists in another order says nothing of what is gone.
        let is_ordered = blobs.windows(2).all(|pair| pair[0].key < pair[1].key)
            && blobs.first().is_none_or(|first| self.after.as_ref().is_none_or(|after| *after < first.key));
        let old = Timestamp::now().plus_ms(-GONE_MS);
        let mut from = self.after.clone().map(|key| SeenKey { key, content: [0xff; _] });
        loop {
            let rows = match parts.read.seen_between(row.uid, from, next.clone(), SLICE_ROWS).await {
                Ok(rows) => rows,
                Err(error) => return Ok(Err(format!("The store cannot be read: {error}."))),
            };
            let mut gone = Vec::new();
            for seen in &rows {
                unseen.remove(&seen.key);
                if is_ordered && seen.at < old && !here.contains(&seen.key) {
                    gone.push(seen.key.clone());
                }
            }
            for keys in gone.chunks(STEP_MAX) {
                progress.store(Advance { forgotten: keys.to_vec(), ..Advance::default() }).await?;
            }
            let is_last = rows.len() < SLICE_ROWS;
            from = rows.into_iter().next_back().map(|seen| seen.key);
            if is_last {
                break;
            }
        }
        if !is_ordered {
            // The range of keys that was compared is not that of the page.
            let keys = unseen.keys().cloned().collect();
            match parts.read.seen_of(row.uid, keys).await {
                Ok(seen) => unseen.retain(|key, _| !seen.contains(key)),
                Err(error) => return Ok(Err(format!("The store cannot be read: {error}."))),
            }
        }
        let is_first = row.progress.last_listing.is_none() && self.last.is_none();
        let existing = row.created_at.plus_ms(-EXISTING_MS);
        let is_passed = |object: &Object| is_first && !bucket.include_existing && object.at.is_some_and(|at| at < existing);
        let (passed, found): (Vec<_>, Vec<_>) = unseen.into_iter().partition(|(_, object)| is_passed(object));
        for keys in passed.chunks(STEP_MAX) {
            let keys = keys.iter().map(|(key, _)| key.clone()).collect();
            progress.store(Advance { passed: keys, ..Advance::default() }).await?;
        }
        self.act(parts, row, found.into_iter().map(|(_, object)| object), progress).await
    }

    async fn act(
        &self,
        parts: &Parts,
        row: &TriggerRow,
        mut found: impl Iterator<Item = Object>,
        progress: &mut Progress,
    ) -> Result<Result<(), String>, Ended> {
        let endpoint = &parts.blobs.settings().endpoint;
        loop {
            let events: Vec<_> = found.by_ref().take(STEP_MAX).map(|object| object.event(row.id.as_str(), endpoint)).collect();
            if events.is_empty() {
                return Ok(Ok(()));
            }
            let event_at = events.iter().filter_map(|event| event.at).min();
            match start::starts(row, events) {
                Ok(starts) => progress.store(Advance { starts, event_at, is_listing: true, ..Advance::default() }).await?,
                Err(refusal) => return Ok(Err(format!("The template cannot be filled: {refusal}."))),
            }
        }
    }

    /// Forgets a slice of old rows of a trigger whose objects or messages are never listed.
    pub(super) async fn sweep(&mut self, parts: &Parts, row: &TriggerRow, progress: &mut Progress) -> Result<(), Ended> {
        self.looked_at = Instant::now();
        let rows = parts.read.seen_between(row.uid, self.swept.take(), None, SLICE_ROWS).await.unwrap_or_default();
        let old = Timestamp::now().plus_ms(-UNLISTED_MS);
        let forgotten: Vec<SeenKey> = rows.iter().filter(|seen| seen.at < old).map(|seen| seen.key.clone()).collect();
        for keys in forgotten.chunks(STEP_MAX) {
            progress.store(Advance { forgotten: keys.to_vec(), ..Advance::default() }).await?;
        }
        let is_last = rows.len() < SLICE_ROWS;
        self.swept = rows.into_iter().next_back().map(|seen| seen.key).filter(|_| !is_last);
        self.not_before = Some(Instant::now() + SWEEP_PAUSES[usize::from(is_last)]);
        Ok(())
    }
}

/// An object as a listing shows it.
fn object(bucket: &BucketSource, blob: &BlobInfo) -> Object {
    Object {
        bucket: bucket.name.clone(),
        key: blob.key.clone(),
        bytes: Some(blob.length),
        etag: blob.etag.trim_matches('"').to_owned(),
        version: None,
        sequencer: None,
        at: Some(blob.modified_at),
        what: event::LISTED.to_owned(),
    }
}
