//! Where a run's stdout and stderr go when it ends: along with the result when small, else to blobs.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use broker_config::{
    ids::RunKey,
    message::{INLINE_STREAM_BYTES_MAX, Stream},
};

use crate::room::Room;

/// Reads a small stream whole; a large one is only measured.
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

/// Uploads a stream that was only measured; when that fails it stays on the node.
pub async fn ship(room: &Room, stream: Stream, run: RunKey, folder: &Path, name: &str) -> Stream {
    let (Stream::Node { .. }, Some(blobs)) = (&stream, &room.blobs) else { return stream };
    let key = format!("logs/{}/{}/{}/{name}", run.uid.0, run.attempt, run.run);
    match blobs.upload_file(&blobs.settings().own_bucket, &key, &folder.join(name)).await {
        Ok(bytes) => Stream::Blob { key, bytes },
        Err(error) => {
            tracing::warn!(%error, uid = run.uid.0, name, "cannot ship a stream; it stays on the node");
            stream
        }
    }
}
