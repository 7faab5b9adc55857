//! Points of Ed25519 (RFC 8032 section 5.1) in extended coordinates, and tables of their multiples.
//!
//! Nothing here is secret, so nothing takes constant time.

use super::field::{Field, Loose, invert_all};

/// Bits of a table's digits. Measured: wider ones save additions and lose them again to the cache.
const WIDTH: usize = 8;
/// Entries of a row: multiples 1 to 128 of its power; the others are their negatives.
const ROW: usize = 1 << (WIDTH - 1);
/// Rows: scalars are below 2^253, and the last digit's carry needs no row of its own.
const ROWS: usize = 254_usize.div_ceil(WIDTH);

/// Constants of the curve, computed once from their definitions.
#[derive(Debug, Clone, Copy)]
struct Curve {
    /// `d = -121665 / 121666`.
    d: Field,
    two_d: Field,
    /// A square root of -1: `2^((p - 1) / 4)`.
    root: Field,
}

impl Curve {
    fn new() -> Self {
        let number = |value: u32| {
            let mut bytes = [0; 32];
            for (to, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
            Field::from_bytes(&bytes)
        };
        let d = number(121_665).negate().times(number(121_666).invert());
        let two = number(2);
        Self {
            d,
            two_d: d.plus(d).carry(),
            root: two.power_58().square().times(two),
        }
    }
}

/// A point, `x = X / Z`, `y = Y / Z`, `x y = T / Z`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    x: Field,
    y: Field,
    z: Field,
    t: Field,
}

/// A point in the form in which it is added: `y + x`, `y - x`, `2 d x y`.
#[derive(Debug, Clone, Copy)]
struct Addend {
    plus: Field,
    minus: Field,
    t2d: Field,
}

impl Point {
    pub(super) const IDENTITY: Self = Self {
        x: Field::ZERO,
        y: Field::ONE,
        z: Field::ONE,
        t: Field::ZERO,
    };

    /// The point of an encoding (RFC 8032 section 5.1.3), if there is one. That the encoding is the canonical one is not checked.
    fn decode(curve: &Curve, bytes: &[u8; 32]) -> Option<Self> {
        let mut bytes = *bytes;
        let sign = bytes[31] & 0x80 != 0;
        bytes[31] &= 0x7f;
        let y = Field::from_bytes(&bytes);
        let square = y.square();
        let u = square.minus(Field::ONE).carry();
        let v = curve.d.times(square).plus(Field::ONE).carry();
        // x = u v^3 (u v^7)^((p - 5) / 8), up to a root of -1
        let v3 = v.square().times(v);
        let mut x = u.times(v3).times(u.times(v3.square()).times(v).power_58());
        let got = v.times(x.square());
        if got == u.negate() && got != u {
            x = x.times(curve.root);
        } else if got != u {
            return None;
        }
        if x.is_odd() != sign {
            x = x.negate();
        }
        Some(Self {
            x,
            y,
            z: Field::ONE,
            t: x.times(y),
        })
    }

    /// The sum, also of a point with itself: the formula is complete (Hisil, Wong, Carter, Dawson 2008, section 3.1).
    fn plus(&self, other: &Self, curve: &Curve) -> Self {
        let a = self.y.minus(self.x).times(other.y.minus(other.x));
        let b = self.y.plus(self.x).times(other.y.plus(other.x));
        let c = self.t.times(curve.two_d).times(other.t);
        let z = self.z.times(other.z);
        complete(a, b, c, z.plus(z).carry(), false)
    }

    #[inline(always)]
    fn add(&self, other: &Addend, negate: bool) -> Self {
        let (plus, minus) = if negate {
            (other.minus, other.plus)
        } else {
            (other.plus, other.minus)
        };
        let a = self.y.minus(self.x).times(minus.loose());
        let b = self.y.plus(self.x).times(plus.loose());
        let c = self.t.times(other.t2d);
        complete(a, b, c, self.z.plus(self.z).carry(), negate)
    }
}

/// The common end of both additions; `negate` turns the sign of `c`.
#[inline(always)]
fn complete(a: Field, b: Field, c: Field, d: Field, negate: bool) -> Point {
    let (e, h) = (b.minus(a), b.plus(a));
    let (f, g): (Loose, Loose) = if negate {
        (d.plus(c), d.minus(c))
    } else {
        (d.minus(c), d.plus(c))
    };
    Point {
        x: e.times(f),
        y: g.times(h),
        z: f.times(g),
        t: e.times(h),
    }
}

/// Encodes points, with one inversion for all of them.
pub(super) fn encode(points: &[Point]) -> Vec<[u8; 32]> {
    let mut inverses: Vec<Field> = points.iter().map(|point| point.z).collect();
    invert_all(&mut inverses);
    let encode = |(point, inverse): (&Point, Field)| {
        let mut bytes = point.y.times(inverse).to_bytes();
        if point.x.times(inverse).is_odd() {
            bytes[31] |= 0x80;
        }
        bytes
    };
    points.iter().zip(inverses).map(encode).collect()
}

/// The multiples of a point that any scalar is made of: 4,096 points, half a megabyte, about two milliseconds to make. A product is then at most 32
/// additions and no doubling.
pub(super) struct Multiples(Vec<Addend>);

impl std::fmt::Debug for Multiples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Multiples({})", self.0.len())
    }
}

impl Multiples {
    /// Of the point of an encoding, if it has one.
    pub(super) fn of(encoding: &[u8; 32]) -> Option<Self> {
        let curve = Curve::new();
        let mut base = Point::decode(&curve, encoding)?;
        let mut points = Vec::with_capacity(ROWS * ROW);
        for _ in 0..ROWS {
            let mut multiple = base;
            points.push(multiple);
            for _ in 1..ROW {
                multiple = multiple.plus(&base, &curve);
                points.push(multiple);
            }
            // 2 * 2^(WIDTH - 1) times this row's
            base = multiple.plus(&multiple, &curve);
        }
        let mut inverses: Vec<Field> = points.iter().map(|point| point.z).collect();
        invert_all(&mut inverses);
        let addend = |(point, inverse): (&Point, Field)| {
            let (x, y) = (point.x.times(inverse), point.y.times(inverse));
            Addend {
                plus: y.plus(x).carry(),
                minus: y.minus(x).carry(),
                t2d: x.times(y).times(curve.two_d),
            }
        };
        Some(Self(points.iter().zip(inverses).map(addend).collect()))
    }

    /// `sum + scalar * point`, or minus. The scalar, little-endian, is below 2^253.
    pub(super) fn add_product(&self, sum: Point, scalar: &[u8; 32], negate: bool) -> Point {
        let mut sum = sum;
        let mut carry = 0;
        // A digit is a byte, from -127 to 128, so that half a row is enough.
        for (byte, row) in scalar.iter().zip(self.0.chunks_exact(ROW)) {
            let mut digit = i32::from(*byte) + carry;
            carry = i32::from(digit > ROW as i32);
            digit -= carry << WIDTH;
            let place = (digit.unsigned_abs() as usize).checked_sub(1);
            if let Some(addend) = place.and_then(|place| row.get(place)) {
                sum = sum.add(addend, (digit < 0) != negate);
            }
        }
        sum
    }
}
