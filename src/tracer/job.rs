//! The description of one tile of a picture.

use serde::{Deserialize, Serialize};

/// The description of one tile, which its task gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The picture's width in pixels.
    pub(crate) width: u32,
    /// The picture's height in pixels.
    pub(crate) height: u32,
    /// Paths for each pixel.
    pub(crate) samples: u32,
    /// Tiles in a row, and in a column.
    pub(crate) tiles: u32,
    /// The tile's number, row by row.
    pub(crate) tile: u32,
}

impl Job {
    /// Left, top, right, bottom of the tile in pixels, the last two not included.
    pub(super) fn bounds(&self) -> (u32, u32, u32, u32) {
        let (column, row) = (self.tile % self.tiles, self.tile / self.tiles);
        let edge = |index: u32, length: u32| (u64::from(length) * u64::from(index) / u64::from(self.tiles)) as u32;
        (edge(column, self.width), edge(row, self.height), edge(column + 1, self.width), edge(row + 1, self.height))
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let is_sound = (1..=16_384).contains(&self.width)
            && (1..=16_384).contains(&self.height)
            && (1..=100_000).contains(&self.samples)
            && (1..=256).contains(&self.tiles)
            && self.tile < self.tiles * self.tiles;
        anyhow::ensure!(is_sound, "the tile's description is out of bounds: {self:?}");
        Ok(())
    }
}
