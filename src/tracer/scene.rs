//! The scene, and the light that finds its way through it. Every pixel has its own seed, so tiles fit together.

use super::{job::Job, vector::Vector};

/// Mirrors and glass end a path after this many bounces.
const BOUNCES_MAX: u32 = 6;
/// Nearer hits are the surface that a path just left.
const NEAR: f32 = 1e-3;

#[derive(Debug, Clone, Copy)]
enum Surface {
    Matte(Vector),
    Mirror(Vector, f32),
    Glass,
    Light(Vector),
}

#[derive(Debug, Clone, Copy)]
struct Sphere {
    centre: Vector,
    radius: f32,
    surface: Surface,
}

struct Hit {
    distance: f32,
    normal: Vector,
    surface: Surface,
}

/// A fast generator; numbers only have to look random.
struct Dice(u64);

impl Dice {
    fn of_pixel(x: u32, y: u32) -> Dice {
        let mut dice = Dice((u64::from(y) << 32 | u64::from(x)) ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..4 {
            dice.roll();
        }
        dice
    }

    fn roll(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    fn on_sphere(&mut self) -> Vector {
        let (height, angle) = (self.roll() * 2.0 - 1.0, self.roll() * std::f32::consts::TAU);
        let radius = (1.0 - height * height).max(0.0).sqrt();
        Vector(radius * angle.cos(), height, radius * angle.sin())
    }
}

fn spheres() -> Vec<Sphere> {
    let sphere = |x, y, z, radius, surface| Sphere { centre: Vector(x, y, z), radius, surface };
    let mut all = vec![
        sphere(-1.1, 1.0, 0.3, 1.0, Surface::Mirror(Vector(0.95, 0.85, 0.6), 0.03)),
        sphere(1.2, 0.8, -0.3, 0.8, Surface::Glass),
        sphere(0.2, 0.45, 1.3, 0.45, Surface::Matte(Vector(0.8, 0.25, 0.2))),
        sphere(-3.0, 6.0, 3.5, 1.4, Surface::Light(Vector(11.0, 10.0, 8.5))),
    ];
    // A ring of small ones, the same in every tile.
    for index in 0..14u8 {
        let angle = f32::from(index) / 14.0 * std::f32::consts::TAU;
        let hue = |shift: f32| 0.5 + 0.45 * (angle + shift).sin();
        let colour = Vector(hue(0.0), hue(2.1), hue(4.2));
        let surface = if index % 3 == 0 { Surface::Mirror(colour, 0.15) } else { Surface::Matte(colour) };
        all.push(sphere(2.7 * angle.cos(), 0.25, 2.7 * angle.sin(), 0.25, surface));
    }
    all
}

/// Red, green and blue bytes of one tile, row by row.
pub(crate) fn render(job: &Job) -> Vec<u8> {
    let spheres = spheres();
    let (left, top, right, bottom) = job.bounds();
    let mut pixels = Vec::with_capacity(((right - left) * (bottom - top) * 3) as usize);
    for y in top..bottom {
        for x in left..right {
            let colour = pixel(job, &spheres, x, y);
            pixels.extend([colour.0, colour.1, colour.2].map(tone));
        }
    }
    pixels
}

fn pixel(job: &Job, spheres: &[Sphere], x: u32, y: u32) -> Vector {
    let eye = Vector(0.6, 2.3, 6.2);
    let forward = (Vector(0.0, 0.75, 0.0) - eye).unit();
    let across = forward.cross(Vector(0.0, 1.0, 0.0)).unit();
    let up = across.cross(forward);
    let (width, height) = (job.width as f32, job.height as f32);
    let (mut dice, mut sum) = (Dice::of_pixel(x, y), Vector::ZERO);
    for _ in 0..job.samples {
        let right = ((x as f32 + dice.roll()) / width - 0.5) * (width / height) * 0.85;
        let above = (0.5 - (y as f32 + dice.roll()) / height) * 0.85;
        sum = sum + light(spheres, eye, (forward + across * right + up * above).unit(), &mut dice);
    }
    sum * (1.0 / job.samples as f32)
}

fn light(spheres: &[Sphere], mut origin: Vector, mut direction: Vector, dice: &mut Dice) -> Vector {
    let mut strength = Vector::ONE;
    for _ in 0..BOUNCES_MAX {
        let Some(hit) = nearest(spheres, origin, direction) else {
            return strength.tint(sky(direction));
        };
        let point = origin + direction * hit.distance;
        direction = match hit.surface {
            Surface::Light(colour) => return strength.tint(colour),
            Surface::Matte(colour) => {
                strength = strength.tint(colour);
                (hit.normal + dice.on_sphere()).unit()
            }
            Surface::Mirror(colour, blur) => {
                strength = strength.tint(colour);
                (direction.reflect(hit.normal) + dice.on_sphere() * blur).unit()
            }
            Surface::Glass => through_glass(direction, hit.normal, dice),
        };
        origin = point;
    }
    Vector::ZERO
}

fn through_glass(direction: Vector, normal: Vector, dice: &mut Dice) -> Vector {
    let is_inside = direction.dot(normal) > 0.0;
    let (normal, ratio) = if is_inside { (-normal, 1.5) } else { (normal, 1.0 / 1.5) };
    let cosine = (-direction.dot(normal)).min(1.0);
    let bent = 1.0 - ratio * ratio * (1.0 - cosine * cosine);
    let mirrored = 0.04 + 0.96 * (1.0 - cosine).powi(5);
    if bent < 0.0 || dice.roll() < mirrored {
        return direction.reflect(normal);
    }
    (direction * ratio + normal * (ratio * cosine - bent.sqrt())).unit()
}

fn nearest(spheres: &[Sphere], origin: Vector, direction: Vector) -> Option<Hit> {
    let mut best = floor(origin, direction);
    for sphere in spheres {
        let to = origin - sphere.centre;
        let half = to.dot(direction);
        let inside = half * half - (to.dot(to) - sphere.radius * sphere.radius);
        if inside <= 0.0 {
            continue;
        }
        let root = inside.sqrt();
        let distance = if -half - root > NEAR { -half - root } else { -half + root };
        if distance > NEAR && best.as_ref().is_none_or(|best| distance < best.distance) {
            let normal = (origin + direction * distance - sphere.centre) * (1.0 / sphere.radius);
            best = Some(Hit { distance, normal, surface: sphere.surface });
        }
    }
    best
}

fn floor(origin: Vector, direction: Vector) -> Option<Hit> {
    let distance = -origin.1 / direction.1;
    if direction.1.abs() < 1e-5 || distance <= NEAR || distance > 60.0 {
        return None;
    }
    let point = origin + direction * distance;
    let is_dark = (point.0.floor() as i32 + point.2.floor() as i32).rem_euclid(2) == 0;
    let colour = if is_dark { Vector(0.16, 0.18, 0.22) } else { Vector(0.78, 0.76, 0.72) };
    Some(Hit { distance, normal: Vector(0.0, 1.0, 0.0), surface: Surface::Matte(colour) })
}

fn sky(direction: Vector) -> Vector {
    let height = 0.5 * (direction.1 + 1.0);
    (Vector(1.0, 0.95, 0.9) * (1.0 - height) + Vector(0.45, 0.62, 0.95) * height) * 0.85
}

fn tone(value: f32) -> u8 {
    let value = (value / (1.0 + value * 0.35)).clamp(0.0, 1.0);
    (value.powf(1.0 / 2.2) * 255.0 + 0.5) as u8
}
