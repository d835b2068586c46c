//! Stores a run's stdout and stderr when it ends: small ones in its result, larger ones as blobs.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use contract::{
    ids::RunKey,
    outcome::{INLINE_STREAM_BYTES_MAX, Stream},
};

use crate::context::NodeContext;

/// Reads a small stream completely; of a large one only the length.
pub fn measure(file: &File) -> io::Result<Stream> {
    let bytes = file.metadata()?.len();
    match usize::try_from(bytes) {
        Ok(0) => Ok(Stream::Empty),
        Ok(length) if length < INLINE_STREAM_BYTES_MAX => {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, 0)?;
            Ok(Stream::Inline { bytes: buffer })
        }
        _ => Ok(Stream::Node { bytes }),
    }
}

/// Uploads a stream that is too large for the result; when that fails it stays on the node.
pub async fn ship(context: &NodeContext, stream: Stream, run: RunKey, file: &File, name: &str) -> Stream {
    let (Stream::Node { .. }, Some(blobs)) = (&stream, &context.blobs) else { return stream };
    let key = format!("logs/{}/{}/{}/{name}", run.uid.0, run.attempt, run.run);
    // By its descriptor: the task may have replaced the file of that name.
    let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
    match blobs.upload_file(&blobs.settings().own_bucket, &key, Path::new(&handle)).await {
        Ok(bytes) => Stream::Blob { key, bytes },
        Err(error) => {
            tracing::warn!(%error, uid = run.uid.0, name, "cannot upload a stream of a run; it stays on the node");
            stream
        }
    }
}
