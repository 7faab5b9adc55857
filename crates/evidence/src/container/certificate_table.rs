//! The certificate table that a host gives an SNP guest beside its report (extended guest request; AMD document 56421,
//! "SEV-ES Guest-Hypervisor Communication Block", section "SNP Extended Guest Request").
//!
//! A list of entries of a GUID, an offset and a length (little-endian, 24 bytes), ended by a zero entry; the offsets
//! count from the start of the table. It is what `auxblob` of the kernel's report interface holds. The host writes it:
//! nothing in it is trusted, a wrong table is only of no use.

use crate::{bytes::Reader, reject::Reject};

/// Most bytes of a table: four pages is what drivers ask for, hosts may give more.
pub const MAX_TABLE: usize = 65_536;
const MAX_ENTRIES: usize = 16;
const WHAT: &str = "the SNP certificate table";

/// A GUID of RFC 4122 in the byte order of UEFI: the first three groups are little-endian.
const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> [u8; 16] {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rest;
    [a0, a1, a2, a3, b0, b1, c0, c1, r0, r1, r2, r3, r4, r5, r6, r7]
}

/// In both orders that tables were met in: as text, and as UEFI stores it.
const fn text_order(guid: [u8; 16]) -> [u8; 16] {
    let [a0, a1, a2, a3, b0, b1, c0, c1, r0, r1, r2, r3, r4, r5, r6, r7] = guid;
    [a3, a2, a1, a0, b1, b0, c1, c0, r0, r1, r2, r3, r4, r5, r6, r7]
}

/// Certificates that verifiers use: VCEK, VLEK, ASK (also ASVK), ARK. The table may hold others.
const KNOWN: [[u8; 16]; 4] = [
    guid(
        0x63da_758d,
        0xe664,
        0x4564,
        [0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd],
    ),
    guid(
        0xa807_4bc2,
        0xa25a,
        0x483e,
        [0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0, 0xb8, 0xa1],
    ),
    guid(
        0x4ab7_b379,
        0xbbac,
        0x4fe4,
        [0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82],
    ),
    guid(
        0xc0b4_06a4,
        0xa803,
        0x4952,
        [0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae],
    ),
];

/// The certificates of a table (DER), in its order. Entries of other GUIDs are left out; an empty table gives none.
///
/// # Errors
/// [`Reject::TooLong`], [`Reject::Truncated`] for a missing end entry or contents past the end,
/// [`Reject::ChainTooLong`] for more than 16 entries.
pub fn certificate_table(table: &[u8]) -> Result<Vec<Vec<u8>>, Reject> {
    if table.len() > MAX_TABLE {
        return Err(Reject::TooLong {
            what: WHAT,
            limit: MAX_TABLE,
            got: table.len(),
        });
    }
    let mut found = Vec::new();
    if table.is_empty() {
        return Ok(found);
    }
    let mut at = Reader::new(WHAT, table);
    for _ in 0..=MAX_ENTRIES {
        let id = at.array::<16>()?;
        let (offset, length) = (at.u32_le()?, at.u32_le()?);
        if *id == [0; 16] {
            return Ok(found);
        }
        if !KNOWN.iter().any(|known| known == id || text_order(*known) == *id) {
            continue;
        }
        let mut contents = Reader::new(WHAT, table);
        contents.take(usize::try_from(offset).unwrap_or(usize::MAX))?;
        found.push(contents.take(usize::try_from(length).unwrap_or(usize::MAX))?.to_vec());
    }
    Err(Reject::ChainTooLong {
        limit: MAX_ENTRIES,
        got: MAX_ENTRIES + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[([u8; 16], u32, u32)], contents: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, offset, length) in entries {
            out.extend(id);
            out.extend(offset.to_le_bytes());
            out.extend(length.to_le_bytes());
        }
        out.extend([0; 24]);
        out.extend(contents);
        out
    }

    #[test]
    fn tables() {
        let [vcek, _, ask, _] = KNOWN;
        let good = table(&[(vcek, 96, 3), ([9; 16], 96, 5), (text_order(ask), 99, 2)], b"abcde");
        assert_eq!(certificate_table(&good).unwrap(), [b"abc".to_vec(), b"de".to_vec()]);
        assert_eq!(certificate_table(&[]).unwrap().len(), 0);
        assert_eq!(certificate_table(&[0; 24]).unwrap().len(), 0);
        for cut in 1..96 {
            assert!(certificate_table(&good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(certificate_table(&table(&[(vcek, 48, 3)], b"ab")).is_err());
        assert!(certificate_table(&table(&[(vcek, u32::MAX, u32::MAX)], b"ab")).is_err());
        assert!(certificate_table(&table(&[([9; 16], 0, 0); 17], b"")).is_err());
        assert!(certificate_table(&vec![0; MAX_TABLE + 1]).is_err());
    }
}
