//! Visible work for `demo`: a small path tracer that renders a scene in tiles, and merges tiles into a picture.
//!
//! Hidden subcommands, run as tasks: `trace-tile SCENE.json OUT.tile` and `trace-merge SCENE.json OUT.png TILE...`.

mod picture;
mod scene;
mod vector;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::exit_codes::OK;

/// One tile of a picture, as a task gets it.
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
    /// Which tile, row by row.
    pub(crate) tile: u32,
}

impl Job {
    /// Left, top, right, bottom of the tile in pixels, the last two not included.
    fn bounds(&self) -> (u32, u32, u32, u32) {
        let (column, row) = (self.tile % self.tiles, self.tile / self.tiles);
        let edge = |index: u32, length: u32| (u64::from(length) * u64::from(index) / u64::from(self.tiles)) as u32;
        (edge(column, self.width), edge(row, self.height), edge(column + 1, self.width), edge(row + 1, self.height))
    }

    fn check(&self) -> anyhow::Result<()> {
        let is_sound = (1..=16_384).contains(&self.width)
            && (1..=16_384).contains(&self.height)
            && (1..=100_000).contains(&self.samples)
            && (1..=256).contains(&self.tiles)
            && self.tile < self.tiles * self.tiles;
        anyhow::ensure!(is_sound, "the tile's description is out of bounds: {self:?}");
        Ok(())
    }
}

/// Renders one tile
#[derive(Debug, Args)]
pub(crate) struct TileArgs {
    /// The tile's description in JSON
    job: PathBuf,
    /// Where the pixels go
    out: PathBuf,
}

/// Merges tiles into a PNG
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The description of any of the tiles
    job: PathBuf,
    /// Where the picture goes
    out: PathBuf,
    /// The tiles in order
    #[arg(required = true)]
    tiles: Vec<PathBuf>,
}

fn read_job(path: &std::path::Path) -> anyhow::Result<Job> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let job: Job = serde_json::from_slice(&text).with_context(|| format!("{} is no tile's description", path.display()))?;
    job.check()?;
    Ok(job)
}

/// Renders one tile.
pub(crate) fn tile(args: &TileArgs) -> anyhow::Result<u8> {
    let job = read_job(&args.job)?;
    let pixels = scene::render(&job);
    std::fs::write(&args.out, &pixels).with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("tile {} of {}: {} bytes", job.tile + 1, job.tiles * job.tiles, pixels.len());
    Ok(OK)
}

/// Merges all tiles.
pub(crate) fn merge(args: &MergeArgs) -> anyhow::Result<u8> {
    let job = read_job(&args.job)?;
    let tiles = args.tiles.iter().map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())));
    let pixels = picture::merge(&job, &tiles.collect::<anyhow::Result<Vec<_>>>()?)?;
    picture::write(&job, &pixels, &args.out)?;
    println!("{} by {} pixels from {} tiles", job.width, job.height, args.tiles.len());
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_picture_once() {
        let job = Job { width: 101, height: 37, samples: 1, tiles: 5, tile: 0 };
        let mut seen = vec![0u8; 101 * 37];
        for tile in 0..25 {
            let (left, top, right, bottom) = Job { tile, ..job }.bounds();
            for y in top..bottom {
                for x in left..right {
                    seen[(y * 101 + x) as usize] += 1;
                }
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
    }

    #[test]
    fn a_picture_in_tiles_equals_the_picture_in_one() {
        let whole = Job { width: 16, height: 12, samples: 2, tiles: 1, tile: 0 };
        let tiles: Vec<_> = (0..4).map(|tile| scene::render(&Job { tiles: 2, tile, ..whole })).collect();
        let merged = picture::merge(&Job { tiles: 2, ..whole }, &tiles).unwrap();
        assert_eq!(merged, scene::render(&whole));
        assert!(merged.iter().any(|byte| *byte > 0));
        assert!(picture::merge(&Job { tiles: 2, ..whole }, &tiles[..3]).is_err());
    }
}
