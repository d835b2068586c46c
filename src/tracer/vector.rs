//! Points, directions and colours of the path tracer.

use std::ops::{Add, Mul, Neg, Sub};

/// Three numbers: a point, a direction, or red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vector(pub(crate) f32, pub(crate) f32, pub(crate) f32);

impl Vector {
    pub(crate) const ZERO: Vector = Vector(0.0, 0.0, 0.0);
    pub(crate) const ONE: Vector = Vector(1.0, 1.0, 1.0);

    pub(crate) fn dot(self, other: Vector) -> f32 {
        self.0 * other.0 + self.1 * other.1 + self.2 * other.2
    }

    pub(crate) fn cross(self, other: Vector) -> Vector {
        Vector(self.1 * other.2 - self.2 * other.1, self.2 * other.0 - self.0 * other.2, self.0 * other.1 - self.1 * other.0)
    }

    pub(crate) fn unit(self) -> Vector {
        self * (1.0 / self.dot(self).sqrt().max(f32::MIN_POSITIVE))
    }

    /// Each part multiplied by the other's.
    pub(crate) fn tint(self, other: Vector) -> Vector {
        Vector(self.0 * other.0, self.1 * other.1, self.2 * other.2)
    }

    pub(crate) fn reflect(self, normal: Vector) -> Vector {
        self - normal * (2.0 * self.dot(normal))
    }
}

impl Add for Vector {
    type Output = Vector;
    fn add(self, other: Vector) -> Vector {
        Vector(self.0 + other.0, self.1 + other.1, self.2 + other.2)
    }
}

impl Sub for Vector {
    type Output = Vector;
    fn sub(self, other: Vector) -> Vector {
        self + -other
    }
}

impl Mul<f32> for Vector {
    type Output = Vector;
    fn mul(self, factor: f32) -> Vector {
        Vector(self.0 * factor, self.1 * factor, self.2 * factor)
    }
}

impl Neg for Vector {
    type Output = Vector;
    fn neg(self) -> Vector {
        self * -1.0
    }
}
