//! Message bodies: MessagePack with named fields, or JSON when `content_type` says so.
//!
//! Both are read on every queue, so any language can publish. The version is checked before the rest.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::message::VERSION;

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `application/msgpack`, also when no content type is given.
    MessagePack,
    /// `application/json`.
    Json,
}

/// A body that could not be encoded or decoded.
#[derive(Debug, Error)]
pub enum BodyError {
    #[error("body is not the expected MessagePack")]
    MessagePack(#[from] rmp_serde::decode::Error),
    #[error("body is not the expected JSON")]
    Json(#[from] serde_json::Error),
    /// The value has no MessagePack form.
    #[error("value cannot be written as MessagePack")]
    Write(#[from] rmp_serde::encode::Error),
    /// A newer version of Piecework, or another program, wrote the body.
    #[error("body has version {found}, this build reads {VERSION}")]
    Version { found: u32 },
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

impl Format {
    /// The format of a content type; no content type means MessagePack.
    pub fn of(content_type: Option<&str>) -> Format {
        match content_type {
            Some(text) if text.trim().to_ascii_lowercase().starts_with("application/json") => Format::Json,
            _ => Format::MessagePack,
        }
    }

    /// The value of the `content_type` property.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::MessagePack => "application/msgpack",
            Format::Json => "application/json",
        }
    }

    /// Encodes a value.
    pub fn write<T: Serialize>(self, value: &T) -> Result<Vec<u8>, BodyError> {
        match self {
            Format::MessagePack => Ok(rmp_serde::to_vec_named(value)?),
            Format::Json => Ok(serde_json::to_vec(value)?),
        }
    }

    /// Decodes a value that carries no version.
    pub fn read<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BodyError> {
        match self {
            Format::MessagePack => Ok(rmp_serde::from_slice(bytes)?),
            Format::Json => Ok(serde_json::from_slice(bytes)?),
        }
    }

    /// Decodes MessagePack whose lists and maps are nested no deeper than this: for bodies of anybody, as a value of no fixed
    /// type is read by recursion.
    pub fn read_messagepack<T: DeserializeOwned>(bytes: &[u8], depth_max: usize) -> Result<T, BodyError> {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        reader.set_max_depth(depth_max);
        Ok(T::deserialize(&mut reader)?)
    }

    /// Decodes a message; when that fails because of its version, the error says so.
    pub fn read_versioned<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, BodyError> {
        match self.read::<Versioned>(bytes) {
            Ok(Versioned { v }) if v != VERSION => Err(BodyError::Version { found: v }),
            _ => self.read(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Request, RequestKind};

    #[test]
    fn a_foreign_version_is_named() {
        let bytes = Format::MessagePack.write(&Request { v: 9, what: RequestKind::Snapshot }).unwrap();
        assert!(matches!(Format::MessagePack.read_versioned::<Request>(&bytes), Err(BodyError::Version { found: 9 })));
    }

    #[test]
    fn hostile_bytes_are_an_error_and_allocate_little() {
        for bytes in [&[0xdd, 0xff, 0xff, 0xff, 0xff][..], &[0xc6, 0x7f, 0xff, 0xff, 0xff, 1], b"", &[0xc1]] {
            assert!(Format::MessagePack.read_versioned::<Request>(bytes).is_err());
        }
    }

    #[test]
    fn the_content_type_decides() {
        assert_eq!(Format::of(Some("application/json; charset=utf-8")), Format::Json);
        assert_eq!(Format::of(None), Format::MessagePack);
    }
}
