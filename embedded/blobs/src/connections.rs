//! The open connections. At the limit, the connection that has been idle for longest is closed for a new one; while all
//! of them have a request in progress, the new one waits. So idle clients cannot lock others out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// The open connections, counted against the limit.
#[derive(Clone)]
pub(crate) struct Connections {
    max: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    open: Mutex<Open>,
    /// Signals the end of a connection or of a request.
    changed: Notify,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// Idle connections by a counter that grows each time one becomes idle; the first has been idle for longest.
    quiet: BTreeMap<u64, Arc<Notify>>,
    count: usize,
}

/// The entry of one connection, until it is dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    activity: Mutex<Activity>,
    /// Asks the connection to end.
    pub(crate) leave: Arc<Notify>,
}

enum Activity {
    /// No request in progress, since this value of the counter.
    Quiet(u64),
    Busy,
}

/// A request in progress, until the last byte of its answer was sent.
pub(crate) struct Request(Arc<Place>);

/// The body of an answer; its connection is busy until the body is dropped.
pub(crate) struct Answer<B> {
    body: B,
    _request: Request,
}

impl Connections {
    /// No connections yet; at most `max`.
    pub(crate) fn new(max: usize) -> Connections {
        Connections { max, shared: Arc::default() }
    }

    /// Registers a new connection; waits while all connections are busy.
    pub(crate) async fn enter(&self) -> Arc<Place> {
        loop {
            let changed = self.shared.changed.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            changed.await;
        }
    }

    fn try_enter(&self) -> Option<Arc<Place>> {
        let mut open = self.shared.lock();
        if open.count >= self.max {
            // Its entry counts no more; the connection ends when its task runs.
            let (_, leave) = open.quiet.pop_first()?;
            leave.notify_one();
            open.count -= 1;
        }
        let leave = Arc::new(Notify::new());
        let since = open.begin_quiet(leave.clone());
        open.count += 1;
        Some(Arc::new(Place { shared: self.shared.clone(), activity: Mutex::new(Activity::Quiet(since)), leave }))
    }
}

impl Open {
    fn begin_quiet(&mut self, leave: Arc<Notify>) -> u64 {
        self.next += 1;
        self.quiet.insert(self.next, leave);
        self.next
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Starts a request; the connection is kept until it is answered.
    pub(crate) fn begin(self: &Arc<Place>) -> Request {
        let mut open = self.shared.lock();
        let mut activity = self.activity();
        if let Activity::Quiet(since) = *activity
            && open.quiet.remove(&since).is_none()
        {
            // It was asked to end, but this request came first: meanwhile one connection more than the limit is open.
            open.count += 1;
        }
        *activity = Activity::Busy;
        Request(self.clone())
    }

    /// True when no request is in progress.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(*self.activity(), Activity::Quiet(_))
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        let is_counted = match *self.activity() {
            // A connection that was asked to end does not count any more.
            Activity::Quiet(since) => open.quiet.remove(&since).is_some(),
            Activity::Busy => true,
        };
        if is_counted {
            open.count -= 1;
        }
        drop(open);
        self.shared.changed.notify_waiters();
    }
}

impl Request {
    /// Ties the request to the body of its answer.
    pub(crate) fn answered_by<B>(self, body: B) -> Answer<B> {
        Answer { body, _request: self }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut open = self.0.shared.lock();
        let since = open.begin_quiet(self.0.leave.clone());
        *self.0.activity() = Activity::Quiet(since);
        drop(open);
        self.0.shared.changed.notify_waiters();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn must_leave(place: &Place) -> bool {
        place.leave.notified().now_or_never().is_some()
    }

    #[test]
    fn the_longest_silent_connection_makes_room_and_a_busy_one_never() {
        let connections = Connections::new(2);
        let enter = || connections.enter().now_or_never();
        let (first, second) = (enter().unwrap(), enter().unwrap());
        let request = first.begin();
        let third = enter().unwrap();
        assert_eq!([&first, &second, &third].map(|place| must_leave(place)), [false, true, false]);
        drop(second);
        let other = third.begin();
        assert!(enter().is_none(), "all are busy");
        drop(request);
        let fourth = enter().unwrap();
        assert!(must_leave(&first) && !must_leave(&third));
        // A request that arrived before the connection could end is answered.
        let late = first.begin();
        drop((late, first, other, third, fourth));
        let open = connections.shared.lock();
        assert_eq!((open.count, open.quiet.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_newcomer_waits_for_the_end_of_a_request_where_all_are_busy() {
        let connections = Connections::new(1);
        let place = connections.enter().await;
        let answer = place.begin().answered_by(());
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(answer);
        waiting.await.unwrap();
        assert!(must_leave(&place));
    }
}
