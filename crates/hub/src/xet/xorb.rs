//! Xorbs: chunks one after the other, each with a header of 8 bytes: version, compressed size (24 bits), compression,
//! uncompressed size (24 bits).

use super::{CHUNK_LIMIT, CHUNKS_LIMIT, XORB_LIMIT, XetError};
use lz4_flex::frame::FrameDecoder;
use std::io::Read as _;

/// Mark at which an optional trailer begins.
const TRAILER: &[u8] = b"XETBLOB";

/// One chunk's header and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Where the compressed bytes begin.
    pub start: usize,
    /// Number of compressed bytes.
    pub compressed: usize,
    /// 0 none, 1 LZ4, 2 LZ4 after grouping bytes by position modulo 4.
    pub compression: u8,
    /// Number of bytes of content.
    pub size: usize,
}

/// Reads the headers of a xorb.
///
/// # Errors
/// [`XetError`]; the bytes must be chunks from beginning to end, or to a trailer.
pub fn read_xorb(bytes: &[u8]) -> Result<Vec<ChunkHeader>, XetError> {
    let invalid = |reason| XetError::Invalid { what: "xorb", reason };
    // The trailer is not part of the limit: it has about 40 bytes a chunk.
    if bytes.len() > XORB_LIMIT + CHUNKS_LIMIT * 64 {
        return Err(invalid("is larger than 64 MiB"));
    }
    let mut chunks = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes
        .get(at..)
        .filter(|rest| !rest.is_empty() && !rest.starts_with(TRAILER))
    {
        let Some(&[version, a, b, c, compression, d, e, f]) = rest.first_chunk::<8>() else {
            return Err(XetError::Truncated { what: "xorb" });
        };
        let number = |a, b, c| u32::from_le_bytes([a, b, c, 0]) as usize;
        let chunk = ChunkHeader {
            start: at + 8,
            compressed: number(a, b, c),
            compression,
            size: number(d, e, f),
        };
        if version != 0 || compression > 2 {
            return Err(invalid("has a chunk of an unknown version or compression"));
        }
        if chunk.size == 0 || chunk.size > CHUNK_LIMIT || chunk.compressed > 2 * CHUNK_LIMIT {
            return Err(invalid("has a chunk that is empty or larger than 128 KiB"));
        }
        if chunk.compressed > rest.len() - 8 {
            return Err(XetError::Truncated { what: "xorb" });
        }
        if chunks.len() == CHUNKS_LIMIT {
            return Err(XetError::TooMany {
                what: "chunks",
                limit: CHUNKS_LIMIT,
            });
        }
        at = chunk.start + chunk.compressed;
        chunks.push(chunk);
    }
    if chunks.is_empty() {
        return Err(invalid("has no chunk"));
    }
    Ok(chunks)
}

/// The content of a chunk of `xorb`. Never more bytes than its header says, whatever the compressed bytes expand to.
///
/// # Errors
/// [`XetError`] if the content has another size, or is not LZ4.
pub fn decode_chunk(xorb: &[u8], chunk: &ChunkHeader) -> Result<Vec<u8>, XetError> {
    let invalid = |reason| XetError::Invalid { what: "chunk", reason };
    let end = chunk.start.saturating_add(chunk.compressed);
    let packed = xorb
        .get(chunk.start..end)
        .ok_or(XetError::Truncated { what: "chunk" })?;
    let content = if chunk.compression == 0 {
        packed.to_vec()
    } else {
        let mut content = Vec::with_capacity(chunk.size.min(CHUNK_LIMIT));
        FrameDecoder::new(packed)
            .take(chunk.size as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|_| invalid("is not LZ4"))?;
        content
    };
    if content.len() != chunk.size {
        return Err(invalid("does not have the size of its header"));
    }
    if chunk.compression == 2 {
        return Ok(ungroup(&content));
    }
    Ok(content)
}

/// Undoes the grouping: first all bytes of positions 0, 4, 8, …, then 1, 5, 9, …, and so on.
fn ungroup(grouped: &[u8]) -> Vec<u8> {
    let mut out = vec![0; grouped.len()];
    let mut rest = grouped;
    for lane in 0..4 {
        let count = (grouped.len() + 3 - lane) / 4;
        let (bytes, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        for (place, byte) in out.iter_mut().skip(lane).step_by(4).zip(bytes) {
            *place = *byte;
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lz4_flex::frame::FrameEncoder;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn pack(content: &[u8], compression: u8) -> Vec<u8> {
        let grouped: Vec<u8> = match compression {
            2 => (0..4)
                .flat_map(|lane| content.iter().skip(lane).step_by(4).copied())
                .collect(),
            _ => content.to_vec(),
        };
        let packed = if compression == 0 {
            grouped
        } else {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(&grouped).unwrap();
            encoder.finish().unwrap()
        };
        let (c, u) = (
            (packed.len() as u32).to_le_bytes(),
            (content.len() as u32).to_le_bytes(),
        );
        [&[0, c[0], c[1], c[2], compression, u[0], u[1], u[2]][..], &packed].concat()
    }

    proptest! {
        #[test]
        fn chunks_are_decoded(content in prop::collection::vec(any::<u8>(), 1..2000), compression in 0u8..3) {
            let mut xorb = pack(&content, compression);
            xorb.extend(pack(b"second", 0));
            xorb.extend(b"XETBLOB and what follows");
            let chunks = read_xorb(&xorb).unwrap();
            prop_assert_eq!(chunks.len(), 2);
            prop_assert_eq!(decode_chunk(&xorb, &chunks[0]).unwrap(), content);
            prop_assert_eq!(decode_chunk(&xorb, &chunks[1]).unwrap(), b"second");
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for first in [None, Some([0, 40, 0, 0, 1, 200, 0, 0])] {
                if let (Some(first), Some(place)) = (first, bytes.first_chunk_mut::<8>()) {
                    *place = first;
                }
                if let Ok(chunks) = read_xorb(&bytes) {
                    for chunk in chunks {
                        let _ = decode_chunk(&bytes, &chunk);
                    }
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut xorb = pack(&vec![0; CHUNK_LIMIT], 1);
        xorb[5..8].copy_from_slice(&[16, 0, 0]);
        let chunks = read_xorb(&xorb).unwrap();
        assert!(decode_chunk(&xorb, &chunks[0]).is_err());
    }
}
