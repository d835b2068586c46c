//! Checksums of object bytes: those that a client sends, those that were computed, and their comparison.
//! Used by uploads (verify), objects and multipart (store and answer).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::ChecksumAlgorithm;
use s3s::{S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// The checksum algorithms of S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// Parses S3's name of the algorithm.
    pub(crate) fn parse(name: &ChecksumAlgorithm) -> S3Result<Self> {
        let wanted = name.as_str();
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(wanted))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    /// S3's name of the algorithm.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }
}

/// Checksums in base64, by algorithm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Sums(BTreeMap<Algorithm, String>);

impl Sums {
    /// The checksum of one algorithm.
    pub(crate) fn get(&self, algorithm: Algorithm) -> Option<&String> {
        self.0.get(&algorithm)
    }

    /// Adds a checksum if there is one.
    pub(crate) fn set(&mut self, algorithm: Algorithm, sum: Option<String>) {
        if let Some(sum) = sum {
            self.0.insert(algorithm, sum);
        }
    }

    /// The algorithms that have a checksum here.
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = Algorithm> + '_ {
        self.0.keys().copied()
    }

    /// True when no checksum is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// False when both have a checksum of one algorithm and the two differ.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        self.0.iter().all(|(algorithm, sum)| other.get(*algorithm).is_none_or(|known| known == sum))
    }
}

/// Parses the five checksum fields that many S3 inputs share.
macro_rules! sums_of {
    ($input:expr) => {{
        let mut sums = $crate::digest::Sums::default();
        sums.set($crate::digest::Algorithm::Crc32, $input.checksum_crc32.clone());
        sums.set($crate::digest::Algorithm::Crc32c, $input.checksum_crc32c.clone());
        sums.set($crate::digest::Algorithm::Crc64Nvme, $input.checksum_crc64nvme.clone());
        sums.set($crate::digest::Algorithm::Sha1, $input.checksum_sha1.clone());
        sums.set($crate::digest::Algorithm::Sha256, $input.checksum_sha256.clone());
        sums
    }};
}

/// Fills the five checksum fields that many S3 outputs share.
macro_rules! put_sums {
    ($output:expr, $sums:expr) => {{
        let sums = $sums;
        $output.checksum_crc32 = sums.get($crate::digest::Algorithm::Crc32).cloned();
        $output.checksum_crc32c = sums.get($crate::digest::Algorithm::Crc32c).cloned();
        $output.checksum_crc64nvme = sums.get($crate::digest::Algorithm::Crc64Nvme).cloned();
        $output.checksum_sha1 = sums.get($crate::digest::Algorithm::Sha1).cloned();
        $output.checksum_sha256 = sums.get($crate::digest::Algorithm::Sha256).cloned();
    }};
}

pub(crate) use {put_sums, sums_of};

/// The checksums that a client sends with its bytes.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    md5: Option<[u8; 16]>,
    sums: Sums,
    algorithm: Option<Algorithm>,
    trailers: Option<TrailingHeaders>,
}

impl Claims {
    /// Parses the checksums; `algorithm` is computed and stored even when the client sends no value.
    pub(crate) fn new(md5: Option<&str>, sums: Sums, algorithm: Option<Algorithm>, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let md5 = md5.map(parse_md5).transpose()?;
        Ok(Self { md5, sums, algorithm, trailers })
    }

    /// Starts the hashes that these checksums need.
    pub(crate) fn hasher(&self) -> Hasher {
        let wanted = |algorithm| self.algorithm == Some(algorithm) || self.sums.get(algorithm).is_some();
        Hasher {
            md5: Md5::new(),
            sums: ChecksumHasher {
                crc32: wanted(Algorithm::Crc32).then(Crc32::new),
                crc32c: wanted(Algorithm::Crc32c).then(Crc32c::new),
                sha1: wanted(Algorithm::Sha1).then(Sha1::new),
                sha256: wanted(Algorithm::Sha256).then(Sha256::new),
                crc64nvme: wanted(Algorithm::Crc64Nvme).then(Crc64Nvme::new),
            },
        }
    }

    /// Compares the client's checksums, those in trailers included, with the computed ones.
    pub(crate) fn verify(&self, digests: &Digests) -> S3Result<()> {
        if self.md5.is_some_and(|md5| md5 != digests.md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let mut claimed = self.sums.clone();
        if let Some(trailers) = self.trailers.as_ref().and_then(TrailingHeaders::take) {
            for algorithm in Algorithm::ALL {
                if let Some(value) = trailers.get(algorithm.header()) {
                    claimed.set(algorithm, value.to_str().ok().map(str::to_owned));
                }
            }
        }
        for algorithm in claimed.algorithms() {
            if claimed.get(algorithm) != digests.sums.get(algorithm) {
                return Err(s3_error!(BadDigest, "The {} you specified did not match the calculated checksum.", algorithm.name()));
            }
        }
        Ok(())
    }
}

/// Computes hashes of bytes in transit.
#[derive(Default)]
pub(crate) struct Hasher {
    md5: Md5,
    sums: ChecksumHasher,
}

impl Hasher {
    /// Adds the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sums.update(bytes);
    }

    /// Finishes the hashes.
    pub(crate) fn finish(self) -> Digests {
        let sums = self.sums.finalize();
        Digests { md5: self.md5.finalize(), sums: sums_of!(sums) }
    }
}

/// The hashes of one stream of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    /// Basis of the ETag.
    pub(crate) md5: [u8; 16],
    /// The checksums that the client asked for.
    pub(crate) sums: Sums,
}

impl Digests {
    /// The ETag of a plain object or part, without quotes.
    pub(crate) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// The ETag of a completed upload: the MD5 of its parts' MD5s, and their number.
pub(crate) fn etag_of_parts(etags: &[String]) -> String {
    let mut md5 = Md5::new();
    for etag in etags {
        md5.update(&unhex(etag));
    }
    format!("{}-{}", hex(&md5.finalize()), etags.len())
}

/// The composite checksum of a completed upload: the checksum of its parts' checksums, and their number.
pub(crate) fn composite(algorithm: Algorithm, sums: &[String]) -> Option<String> {
    let claims = Claims { algorithm: Some(algorithm), ..Claims::default() };
    let mut hasher = claims.hasher();
    for sum in sums {
        hasher.update(&BASE64.decode(sum).ok()?);
    }
    let sum = hasher.finish().sums.get(algorithm).cloned()?;
    Some(format!("{sum}-{}", sums.len()))
}

fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_known_etag() {
        let part = Hasher::default().finish().etag();
        assert_eq!(part, "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(etag_of_parts(&[part]), "59adb24ef3cdbe0297f05b395827453f-1");
    }

    #[test]
    fn a_wrong_claim_is_refused_and_a_right_one_is_not() {
        let mut sums = Sums::default();
        sums.set(Algorithm::Crc32, Some("NhCmhg==".to_owned()));
        let claims = Claims::new(None, sums, None, None).unwrap();
        let mut hasher = claims.hasher();
        hasher.update(b"hello");
        assert!(claims.verify(&hasher.finish()).is_ok());
        let mut hasher = claims.hasher();
        hasher.update(b"hellO");
        assert!(claims.verify(&hasher.finish()).is_err());
    }
}
