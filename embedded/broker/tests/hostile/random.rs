//! Random streams, and valid ones with a few bytes changed. The seed is printed, so that a failure can be repeated.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embedded_broker::Broker;
use tokio::time::timeout;

use crate::{
    corpus::{Phase, cases},
    play::arrive,
    wire::frame,
};

/// Time limit of one stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(40);
/// Streams at a time.
const PLAYERS: u64 = 8;
/// Bytes of a random stream at most.
const RANDOM_BYTES_MAX: u64 = 512;

/// Duration of the test: `PIECEWORK_FUZZ_SECONDS`, 2 when it is not set.
pub fn seconds() -> Duration {
    let wanted = std::env::var("PIECEWORK_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("PIECEWORK_FUZZ_SECONDS is a number"));
    Duration::from_secs(wanted)
}

/// Marsaglia's xorshift: small, and the same on every platform.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.roll(most)).map(|_| self.roll(256) as u8).collect()
    }
}

/// One stream: noise, frames of noise, methods with random fields, or a case of the corpus with some bytes changed.
fn stream(dice: &mut Dice) -> (Phase, Vec<u8>) {
    let phase = [Phase::Greeting, Phase::Login, Phase::Open][dice.roll(3) as usize];
    let bytes = match dice.roll(4) {
        0 => dice.bytes(RANDOM_BYTES_MAX),
        1 => {
            let payload = dice.bytes(RANDOM_BYTES_MAX);
            frame([1, 2, 3, 8, 0, 255][dice.roll(6) as usize], dice.roll(3) as u16, &payload)
        }
        2 => {
            let class = [10, 20, 40, 50, 60, 85, 90][dice.roll(7) as usize];
            let fields = dice.bytes(64);
            let payload = [&[0, class, 0, (dice.roll(13) * 10 + dice.roll(2)) as u8][..], &fields].concat();
            frame(1, dice.roll(2) as u16, &payload)
        }
        _ => {
            let all = cases();
            let case = &all[dice.roll(all.len() as u64) as usize];
            let mut bytes = case.bytes.clone();
            for _ in 0..=dice.roll(4) {
                if bytes.is_empty() {
                    break;
                }
                let at = dice.roll(bytes.len() as u64) as usize;
                match dice.roll(3) {
                    0 => bytes[at] = dice.roll(256) as u8,
                    1 => bytes.truncate(at),
                    _ => bytes.insert(at, dice.roll(256) as u8),
                }
            }
            return (case.phase, bytes);
        }
    };
    (phase, bytes)
}

/// Plays streams until the time is over, at least one for each player.
pub async fn play_for(broker: &Broker, time: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seed = std::env::var("PIECEWORK_FUZZ_SEED").map_or(now, |text| text.parse().expect("PIECEWORK_FUZZ_SEED is a number"));
    println!("PIECEWORK_FUZZ_SEED={seed}");
    let end = Instant::now() + time;
    let player = async |number: u64| {
        let mut dice = Dice(seed.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1);
        loop {
            let (phase, bytes) = stream(&mut dice);
            let playing = async {
                let mut wire = arrive(broker, phase).await;
                wire.send(&bytes).await;
                wire.finish().await;
                wire.rest().await;
            };
            assert!(timeout(STREAM_TIMEOUT, playing).await.is_ok(), "a connection hangs at {phase:?} after {bytes:02x?}");
            if Instant::now() > end {
                return;
            }
        }
    };
    futures::future::join_all((0..PLAYERS).map(player)).await;
}
