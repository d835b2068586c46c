//! Visible work for `demo`: a small path tracer that renders a scene in tiles, and merges tiles into a picture.
//!
//! Hidden subcommands, run as tasks: `trace-tile SCENE.json OUT.tile` and `trace-merge SCENE.json OUT.png TILE...`.

mod job;
mod picture;
mod scene;
mod vector;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

pub(crate) use self::job::Job;
use crate::exit_codes::OK;

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
