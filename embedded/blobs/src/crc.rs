//! Combines the CRCs of two ranges of bytes into the CRC of both, without the bytes.
//! Used by completed uploads whose checksum covers the whole object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::digest::Algorithm;

/// A bit-reflected CRC with all bits set at its start and inverted at its end.
#[derive(Clone, Copy)]
struct Crc {
    bits: u32,
    polynomial: u64,
}

impl Crc {
    fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Crc32 => Some(Self { bits: 32, polynomial: 0xedb8_8320 }),
            Algorithm::Crc32c => Some(Self { bits: 32, polynomial: 0x82f6_3b78 }),
            Algorithm::Crc64Nvme => Some(Self { bits: 64, polynomial: 0x9a6c_9329_ac4b_c9b5 }),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }

    /// The product of two polynomials modulo that of the CRC; the highest bit is x⁰.
    fn product(self, one: u64, mut other: u64) -> u64 {
        let mut product = 0;
        for bit in (0..self.bits).rev() {
            if one >> bit & 1 == 1 {
                product ^= other;
            }
            other = if other & 1 == 1 { other >> 1 ^ self.polynomial } else { other >> 1 };
        }
        product
    }

    /// x to the power of eight times `bytes`: the effect of that many zero bytes on a CRC.
    fn shift(self, mut bytes: u64) -> u64 {
        let mut square = 1 << (self.bits - 9);
        let mut power = 1 << (self.bits - 1);
        while bytes > 0 {
            if bytes & 1 == 1 {
                power = self.product(square, power);
            }
            square = self.product(square, square);
            bytes >>= 1;
        }
        power
    }

    fn read(self, sum: &str) -> Option<u64> {
        let bytes = BASE64.decode(sum).ok().filter(|bytes| bytes.len() * 8 == self.bits as usize)?;
        Some(bytes.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte)))
    }

    fn show(self, number: u64) -> String {
        BASE64.encode(&number.to_be_bytes()[8 - self.bits as usize / 8..])
    }
}

/// True for algorithms whose checksums of parts can be combined into that of the whole object.
pub(crate) fn can_join(algorithm: Algorithm) -> bool {
    Crc::of(algorithm).is_some()
}

/// The checksum of all parts together, from each part's checksum and size; nothing when a checksum is malformed.
pub(crate) fn joined<'a>(algorithm: Algorithm, parts: impl IntoIterator<Item = (&'a str, u64)>) -> Option<String> {
    let crc = Crc::of(algorithm)?;
    let mut whole = 0;
    for (sum, bytes) in parts {
        whole = crc.product(crc.shift(bytes), whole) ^ crc.read(sum)?;
    }
    Some(crc.show(whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Claims, Sums};

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut hasher = Claims::new(None, Sums::default(), Some(algorithm), None).unwrap().hasher();
        hasher.update(bytes);
        hasher.finish().sums.get(algorithm).cloned().unwrap()
    }

    #[test]
    fn joined_parts_have_the_checksum_of_the_whole() {
        let bytes: Vec<u8> = (0..100_003_u32).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            for cuts in [vec![0, 1, 100_003], vec![0, 0, 65_536, 65_537, 100_003], vec![0, 50_000, 50_000, 99_999, 100_003]] {
                let parts: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
                let sums: Vec<_> = parts.iter().map(|part| (sum(algorithm, part), part.len() as u64)).collect();
                let named = sums.iter().map(|(sum, size)| (sum.as_str(), *size));
                assert_eq!(joined(algorithm, named).unwrap(), sum(algorithm, &bytes), "{algorithm:?} {cuts:?}");
            }
        }
    }

    #[test]
    fn hashes_cannot_be_joined() {
        assert!(!can_join(Algorithm::Sha256));
        assert_eq!(joined(Algorithm::Crc32, [("not base64", 1)]), None);
    }
}
