//! Properties and metadata of a blob, from the headers that users give for an upload.
//!
//! Azure's names (`x-ms-blob-content-type`, `x-ms-meta-…`) and those of HTTP and S3 mean the same.

use std::collections::{BTreeMap, HashMap};

/// The longest value of a header, in bytes.
const VALUE_MAX: usize = 2 * 1024;
/// Bytes of the names and values of all metadata together; S3's limit.
const METADATA_BYTES_MAX: usize = 2 * 1024;

/// Adds headers to a request that writes a blob; both kinds of requests have the same setters.
macro_rules! with_headers {
    ($request:expr, $headers:expr) => {
        $request
            .set_content_type($headers.content_type.clone())
            .set_content_encoding($headers.content_encoding.clone())
            .set_content_language($headers.content_language.clone())
            .set_content_disposition($headers.content_disposition.clone())
            .set_cache_control($headers.cache_control.clone())
            .set_metadata($headers.metadata())
    };
}
pub(super) use with_headers;

/// Headers that a blob stores and is served with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobHeaders {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) cache_control: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl BlobHeaders {
    /// Parses names and values; the error is the name of a header that no blob stores, and the reason.
    pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<BlobHeaders, (String, &'static str)> {
        let mut read = BlobHeaders::default();
        for (name, value) in headers {
            read.add(&name.to_ascii_lowercase(), value).map_err(|reason| (name.to_owned(), reason))?;
        }
        match read.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() {
            0..=METADATA_BYTES_MAX => Ok(read),
            _ => Err(("x-ms-meta-".to_owned(), "All metadata together may have 2048 bytes.")),
        }
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if value.trim().is_empty() || value.len() > VALUE_MAX || !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err("Its value must have 1 to 2048 visible ASCII characters.");
        }
        let metadata = ["x-ms-meta-", "x-amz-meta-"].iter().find_map(|prefix| name.strip_prefix(prefix));
        if let Some(key) = metadata {
            let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            self.metadata.insert(key.to_owned(), value.to_owned());
            return if is_name { Ok(()) } else { Err("Metadata is named by letters, digits, '-' and '_'.") };
        }
        let place = match name.strip_prefix("x-ms-blob-").unwrap_or(name) {
            "content-type" => &mut self.content_type,
            "content-encoding" => &mut self.content_encoding,
            "content-language" => &mut self.content_language,
            "content-disposition" => &mut self.content_disposition,
            "cache-control" => &mut self.cache_control,
            _ => return Err("Blobs keep content-type, -encoding, -language, -disposition, cache-control and x-ms-meta-NAME."),
        };
        match place.replace(value.to_owned()) {
            None => Ok(()),
            Some(_) => Err("It is given twice."),
        }
    }

    pub(super) fn metadata(&self) -> Option<HashMap<String, String>> {
        (!self.metadata.is_empty()).then(|| self.metadata.clone().into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_both_stores_mean_the_same() {
        let azure = BlobHeaders::read([("x-ms-blob-content-type", "text/csv"), ("x-ms-meta-job", "j")]);
        let s3 = BlobHeaders::read([("Content-Type", "text/csv"), ("x-amz-meta-Job", "j")]);
        assert_eq!(azure, s3);
        assert_eq!(azure.unwrap().metadata(), Some(HashMap::from([("job".to_owned(), "j".to_owned())])));
    }

    #[test]
    fn what_no_blob_keeps_is_refused_by_its_name() {
        let long = "x".repeat(VALUE_MAX);
        for (name, value) in [
            ("x-ms-blob-type", "BlockBlob"),
            ("authorization", "x"),
            ("content-type", ""),
            ("content-type", "a\r\nb: c"),
            ("x-ms-meta-", "x"),
            ("x-ms-meta-a b", "x"),
            ("content-type", " "),
        ] {
            assert_eq!(BlobHeaders::read([(name, value)]).unwrap_err().0, name);
        }
        assert!(BlobHeaders::read([("x-ms-meta-a", long.as_str())]).is_err());
        assert_eq!(BlobHeaders::read([("content-type", "a"), ("x-ms-blob-content-type", "b")]).unwrap_err().1, "It is given twice.");
    }
}
