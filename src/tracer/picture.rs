//! Puts tiles together and writes the PNG.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::Context;

use super::job::Job;

/// All pixels of a picture from its tiles in order.
pub(crate) fn merge(job: &Job, tiles: &[Vec<u8>]) -> anyhow::Result<Vec<u8>> {
    let wanted = (job.tiles * job.tiles) as usize;
    anyhow::ensure!(tiles.len() == wanted, "{} tiles were given, {wanted} are needed", tiles.len());
    let mut pixels = vec![0; job.width as usize * job.height as usize * 3];
    for (index, tile) in (0..).zip(tiles) {
        let (left, top, right, bottom) = Job { tile: index, ..*job }.bounds();
        let row_bytes = (right - left) as usize * 3;
        let expected = row_bytes * (bottom - top) as usize;
        anyhow::ensure!(tile.len() == expected, "tile {index} has {} bytes, expected {expected}", tile.len());
        for (y, row) in (top..bottom).zip(tile.chunks(row_bytes)) {
            let start = (y as usize * job.width as usize + left as usize) * 3;
            pixels[start..start + row_bytes].copy_from_slice(row);
        }
    }
    Ok(pixels)
}

/// Writes a PNG.
pub(crate) fn write(job: &Job, pixels: &[u8], path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), job.width, job.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(())
}
