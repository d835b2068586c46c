//! Output streams as bytes: NULL for an empty one, otherwise a letter and its data.
//!
//! ```text
//! i BYTES          stored inline     n LENGTH         on the node
//! b LENGTH KEY     in the bucket     LENGTH is eight bytes, most significant first
//! ```

use contract::outcome::Stream;

use crate::{StoreError, sqlite::cells::Cells};

const INLINE: u8 = b'i';
const BLOB: u8 = b'b';
const NODE: u8 = b'n';

/// A stream as the database keeps it.
pub(super) fn encode(stream: &Stream) -> Option<Vec<u8>> {
    match stream {
        Stream::Empty => None,
        Stream::Inline { bytes } => Some([&[INLINE], bytes.as_slice()].concat()),
        Stream::Blob { key, bytes } => Some([&[BLOB], bytes.to_be_bytes().as_slice(), key.as_bytes()].concat()),
        Stream::Node { bytes } => Some([&[NODE], bytes.to_be_bytes().as_slice()].concat()),
    }
}

/// Reads a stream from a row of `task_texts`.
pub(super) fn read(texts: &Cells<'_>, column: &'static str) -> Result<Stream, StoreError> {
    match texts.bytes(column)? {
        None => Ok(Stream::Empty),
        Some(bytes) => decode(bytes).ok_or(StoreError::Corrupt { table: "task_texts", column }),
    }
}

fn decode(bytes: &[u8]) -> Option<Stream> {
    let (letter, rest) = bytes.split_first()?;
    match *letter {
        INLINE => Some(Stream::Inline { bytes: rest.to_vec() }),
        BLOB => {
            let (length, key) = rest.split_first_chunk()?;
            Some(Stream::Blob { key: str::from_utf8(key).ok()?.to_owned(), bytes: u64::from_be_bytes(*length) })
        }
        NODE => Some(Stream::Node { bytes: u64::from_be_bytes(rest.try_into().ok()?) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_survives() {
        for stream in [
            Stream::Inline { bytes: vec![0, 255, b'\n'] },
            Stream::Inline { bytes: Vec::new() },
            Stream::Blob { key: "logs/1/stdout".to_owned(), bytes: u64::MAX },
            Stream::Node { bytes: 7 },
        ] {
            assert_eq!(decode(&encode(&stream).unwrap()), Some(stream));
        }
        assert_eq!(encode(&Stream::Empty), None);
    }

    #[test]
    fn broken_bytes_are_no_stream() {
        for bytes in [&b""[..], b"x", b"n123", b"b1234567", b"b12345678\xff"] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
