//! Splits received bytes into frames. Type and size are checked on the first seven bytes, before anything is buffered.

use crate::refusal::{Outcome, Refusal};

/// Largest frame before a client has tuned the connection, in bytes.
pub(crate) const FRAME_MAX_BEFORE_TUNE: usize = 8_192;
/// Bytes of a frame in addition to its payload.
pub(crate) const FRAME_OVERHEAD: usize = 8;

const HEADER_BYTES: usize = 7;
const FRAME_END: u8 = 0xCE;

/// The frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    Header,
    Body,
    Heartbeat,
}

/// A frame, borrowed from the receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub kind: Kind,
    pub channel: u16,
    pub payload: &'a [u8],
}

/// The first frame of `input` and its whole length, or nothing while it is incomplete.
pub(crate) fn next_frame(input: &[u8], frame_max: usize) -> Outcome<Option<(Frame<'_>, usize)>> {
    let Some(&first) = input.first() else { return Ok(None) };
    let kind = match first {
        1 => Kind::Method,
        2 => Kind::Header,
        3 => Kind::Body,
        8 => Kind::Heartbeat,
        other => return Err(Refusal::frame_error(format!("unknown frame type {other}"))),
    };
    if input.len() < HEADER_BYTES {
        return Ok(None);
    }
    let channel = u16::from_be_bytes([input[1], input[2]]);
    let size = u32::from_be_bytes([input[3], input[4], input[5], input[6]]) as usize;
    if size > frame_max.saturating_sub(FRAME_OVERHEAD) {
        return Err(Refusal::frame_error(format!("frame of {size} bytes is larger than the negotiated {frame_max}")));
    }
    let total = size + FRAME_OVERHEAD;
    if input.len() < total {
        return Ok(None);
    }
    if input[total - 1] != FRAME_END {
        return Err(Refusal::frame_error("frame does not end with the end octet"));
    }
    let payload = &input[HEADER_BYTES..total - 1];
    Ok(Some((Frame { kind, channel, payload }, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_refused_before_the_payload_arrives() {
        let huge = [1, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(next_frame(&huge, 4096).unwrap_err().code, 501);
        assert_eq!(next_frame(&[7], 4096).unwrap_err().code, 501);
    }

    #[test]
    fn incomplete_frames_wait() {
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xCE];
        for cut in 0..heartbeat.len() {
            assert_eq!(next_frame(&heartbeat[..cut], 4096).unwrap(), None);
        }
        let (frame, length) = next_frame(&heartbeat, 4096).unwrap().unwrap();
        assert_eq!((frame.kind, length), (Kind::Heartbeat, 8));
    }
}
