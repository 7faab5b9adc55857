//! Changes of an input that parsers find hard.

/// Numbers from a seed (splitmix64): a run can be repeated.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub const fn below(&mut self, limit: usize) -> usize {
        if limit == 0 {
            0
        } else {
            (self.next() % limit as u64) as usize
        }
    }
}

/// Numbers at the edges of types and of CBOR's, DER's and JSON's forms.
const EDGES: [u8; 18] = [
    0, 1, 0x17, 0x18, 0x1b, 0x1f, 0x30, 0x58, 0x5f, 0x7b, 0x7f, 0x80, 0x82, 0x9f, 0xbf, 0xd2, 0xfe, 0xff,
];

/// Changes an input in one to eight places; `other` is another input, of which parts are taken.
pub fn mutate(random: &mut Random, input: &[u8], other: &[u8], limit: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(8) {
        step(random, &mut bytes, other);
    }
    bytes.truncate(limit);
    bytes
}

fn step(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len());
    let span = 1 + random.below(16).min(bytes.len().saturating_sub(at));
    match random.below(10) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = EDGES[random.below(EDGES.len())];
            }
        }
        3 => bytes.truncate(at),
        4 => {
            bytes.drain(at..(at + span).min(bytes.len()));
        }
        5 => {
            let new: Vec<u8> = (0..span).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, new);
        }
        // A part twice: repeated keys, repeated headers.
        6 => {
            let part = bytes[at..(at + span).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        7 => {
            let from = random.below(other.len());
            let long = 1 + random.below(64);
            let part = &other[from..(from + long).min(other.len())];
            bytes.splice(at..(at + part.len()).min(bytes.len()), part.iter().copied());
        }
        // A length or a number, in either order of bytes.
        8 => {
            let number: u64 = match random.below(4) {
                0 => u64::MAX,
                1 => 1 << random.below(64),
                2 => random.below(65_536) as u64,
                _ => random.next(),
            };
            let long = [1, 2, 4, 8][random.below(4)];
            let number = if random.below(2) == 0 {
                number.to_le_bytes()
            } else {
                number.to_be_bytes()
            };
            for (byte, new) in bytes.iter_mut().skip(at).take(long).zip(number) {
                *byte = new;
            }
        }
        _ => {
            if bytes.len() >= 2 {
                let to = random.below(bytes.len());
                bytes.swap(at, to);
            }
        }
    }
}
