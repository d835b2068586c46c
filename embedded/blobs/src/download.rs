//! Sends object bytes: read in large blocks on blocking threads, one block ahead of the network.
//! The object's files are pinned until the stream ends, so that a replaced object can be read to its end.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use s3s::StdError;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::files::Files;
use crate::objects::Piece;
use crate::reaper;

const BLOCK_BYTES: u64 = 512 * 1024;

/// A range of one file.
#[derive(Debug)]
struct Stretch {
    file: String,
    range: Range<u64>,
}

/// Bytes read ahead, and the file when more of it is to be read.
struct Block {
    file: Option<File>,
    bytes: Vec<u8>,
}

/// A stream over a range of an object's files.
pub(crate) struct Outflow {
    files: Files,
    stretches: VecDeque<Stretch>,
    open: Option<File>,
    reading: Option<JoinHandle<io::Result<Block>>>,
    remaining: u64,
    _pin: reaper::Pin,
}

impl Outflow {
    /// Streams `range` of the bytes of `pieces`, in their order.
    pub(crate) fn new(files: Files, pieces: Vec<Piece>, range: Range<u64>, pin: reaper::Pin) -> Self {
        let mut outflow =
            Self { files, stretches: stretches(pieces, &range), open: None, reading: None, remaining: range.end - range.start, _pin: pin };
        outflow.read_ahead();
        outflow
    }

    fn read_ahead(&mut self) {
        let Some(stretch) = self.stretches.front_mut() else { return };
        let start = stretch.range.start;
        let wanted = BLOCK_BYTES.min(stretch.range.end - start);
        stretch.range.start += wanted;
        let is_last = stretch.range.is_empty();
        let id = stretch.file.clone();
        if is_last {
            self.stretches.pop_front();
        }
        let (files, open) = (self.files.clone(), self.open.take());
        self.reading = Some(spawn_blocking(move || {
            let mut file = match open {
                Some(file) => file,
                None => {
                    let mut file = files.read(&id)?;
                    file.seek(SeekFrom::Start(start))?;
                    file
                }
            };
            let mut bytes = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
            (&mut file).take(wanted).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Block { file: (!is_last).then_some(file), bytes })
        }));
    }
}

impl Stream for Outflow {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let outcome = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let Block { file, bytes } = match outcome.map_err(io::Error::other).flatten() {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "the bytes of a stored object could not be read from disk; the download breaks off");
                this.stretches.clear();
                return Poll::Ready(Some(Err(Box::new(error))));
            }
        };
        this.open = file;
        this.remaining -= bytes.len() as u64;
        this.read_ahead();
        Poll::Ready(Some(Ok(Bytes::from(bytes))))
    }
}

impl ByteStream for Outflow {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.remaining).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

/// Wraps bytes that are in memory already.
pub(crate) fn whole(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(s3s::Body::from(bytes))
}

fn stretches(pieces: Vec<Piece>, range: &Range<u64>) -> VecDeque<Stretch> {
    let mut start = 0;
    let mut stretches = VecDeque::new();
    for piece in pieces {
        let end = start + piece.size;
        let from = range.start.max(start);
        let to = range.end.min(end);
        if from < to {
            stretches.push_back(Stretch { file: piece.file, range: from - start..to - start });
        }
        start = end;
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_only_the_pieces_it_covers() {
        let piece = |file: &str, size| Piece { file: file.to_owned(), size };
        let pieces = vec![piece("a", 10), piece("b", 0), piece("c", 10), piece("d", 10)];
        let found: Vec<_> = stretches(pieces, &(5..15)).into_iter().map(|stretch| (stretch.file, stretch.range)).collect();
        assert_eq!(found, [("a".to_owned(), 5..10), ("c".to_owned(), 0..5)]);
    }
}
