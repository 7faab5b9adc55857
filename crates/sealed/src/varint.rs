//! Variable-length integers of QUIC (RFC 9000, section 16), as Binary HTTP and chunked messages use them.

/// Appends the shortest form. Values above 2^62 - 1 do not occur: they count bytes in memory.
pub(crate) fn put(out: &mut Vec<u8>, value: usize) {
    let value = value as u64;
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Value and length of the integer at the start; `None` if it is not whole yet. Any form is accepted, as the RFC asks.
pub(crate) fn get(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let (head, rest) = bytes.get(..length)?.split_first()?;
    let value = rest
        .iter()
        .fold(u64::from(head & 0x3f), |sum, byte| sum << 8 | u64::from(*byte));
    Some((usize::try_from(value).unwrap_or(usize::MAX), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000, appendix A.1.
    #[test]
    fn vectors() {
        for (text, value) in [
            ("c2197c5eff14e88c", 151_288_809_941_952_652),
            ("9d7f3e7d", 494_878_333),
            ("7bbd", 15_293),
            ("25", 37),
        ] {
            let bytes = hex::decode(text).unwrap();
            assert_eq!(get(&bytes), Some((value, bytes.len())));
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(get(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(get(&[0x40, 0x25]), Some((37, 2)));
        assert_eq!(get(&[]), None);
    }
}
