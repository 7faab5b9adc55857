//! The wire format of verified ranges against the encoder and decoder of `bao-tree`, on files and ranges of any size.

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges,
    blake3::Hash,
    io::{
        outboard::{EmptyOutboard, PostOrderMemOutboard},
        sync::{decode_ranges, encode_ranges_validated},
    },
};
use opg_model_store::Pieces as _;
use opg_model_store::ranges::{
    Checked, Encoder, GROUP, RANGE_LIMIT, RangeError, Span, SpanError, decode, is_sound, make_outboard, missing,
    outboard_length,
};
use proptest::prelude::*;

const BLOCK: BlockSize = BlockSize::from_chunk_log(4);

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 253 + i / 65_521) as u8).collect()
}

fn outboard(data: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut outboard = Vec::new();
    let root = make_outboard(data, data.len() as u64, &mut outboard).unwrap();
    (outboard, root)
}

/// What a server sends.
fn encode(data: &[u8], span: Span, piece: usize) -> Vec<u8> {
    let (outboard, root) = outboard(data);
    let from = &data[usize::try_from(span.start()).unwrap()..];
    let mut encoder = Encoder::new(root, data.len() as u64, span, from, outboard.as_slice());
    let mut out = Vec::new();
    let mut piece = vec![0; GROUP as usize + piece];
    loop {
        let filled = encoder.fill(&mut piece).unwrap();
        if filled == 0 {
            return out;
        }
        out.extend_from_slice(&piece[..filled]);
    }
}

/// What a client makes of it: how far it came, and why no further.
fn read(data: &[u8], span: Span, encoded: &[u8]) -> (u64, Vec<u8>, Vec<u8>, Result<(), RangeError>) {
    let (size, root) = (data.len() as u64, *bao_tree::blake3::hash(data).as_bytes());
    let (mut to, mut hashes, mut until) = (Vec::new(), Vec::new(), span.start());
    to.resize(data.len(), 0);
    hashes.resize(usize::try_from(outboard_length(size)).unwrap(), 0);
    let result = decode(root, size, span, encoded, &mut to, &mut hashes, |at| until = at);
    (until, to, hashes, result)
}

fn chunks(span: Span, size: u64) -> ChunkRanges {
    if span.end() == size {
        ChunkRanges::from(ChunkNum(span.start() / 1024)..)
    } else {
        ChunkRanges::from(ChunkNum(span.start() / 1024)..ChunkNum(span.end() / 1024))
    }
}

#[test]
fn ranges_of_headers_are_rounded_to_groups_and_bounded() {
    let of = |value: &str| Span::of_header(value, 100_000);
    for (value, start, end) in [
        ("bao-blake3=0-0", 0, 16_384),
        ("bao-blake3=16383-16384", 0, 32_768),
        (" BAO-blake3 = 99999 - 99999 ", 98_304, 100_000),
        ("bao-blake3=20000-99999999999999999999999", 16_384, 100_000),
    ] {
        let span = of(value).unwrap().unwrap();
        assert_eq!((span.start(), span.end()), (start, end), "{value}");
        assert_eq!(of(&span.range()), Some(Ok(span)));
    }
    for value in ["bytes=0-1", "", "bao-blake3", "bao=0-1"] {
        assert_eq!(of(value), None, "{value}");
    }
    for value in [
        "bao-blake3=0-",
        "bao-blake3=-5",
        "bao-blake3=0-1,3-4",
        "bao-blake3=+1-2",
        "bao-blake3=0x0-1",
    ] {
        assert_eq!(of(value), Some(Err(SpanError::Syntax)), "{value}");
    }
    for value in [
        "bao-blake3=5-4",
        "bao-blake3=100000-100001",
        "bao-blake3=99999999999999999999-99999999999999999999",
    ] {
        assert!(matches!(of(value), Some(Err(SpanError::Outside { .. }))), "{value}");
    }
    let all = Span::of_header("bao-blake3=0-99999999999", 1 << 40).unwrap();
    assert!(matches!(all, Err(SpanError::Long { .. })));
    assert_eq!(
        Span::of_header("bao-blake3=0-0", 0).unwrap(),
        Err(SpanError::Outside {
            first: 0,
            last: 0,
            size: 0
        })
    );
    assert_eq!(Span::covering(5, 5, 10), None);
    let huge = Span::covering(u64::MAX - 1, u64::MAX, u64::MAX).unwrap();
    assert_eq!((huge.end(), huge.length()), (u64::MAX, GROUP - 1));
    assert!(RANGE_LIMIT.is_multiple_of(GROUP));
}

/// Sizes around what makes trees differ: none, a chunk, a group, powers of two of them.
fn sizes() -> impl Strategy<Value = usize> {
    let group = usize::try_from(GROUP).unwrap();
    prop_oneof![
        1usize..3_000,
        (0usize..12, 0usize..3).prop_map(move |(groups, off)| (groups * group + off).saturating_sub(1).max(1)),
        1usize..300_000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_we_send_and_read_is_what_bao_tree_sends_and_reads(size in sizes(), a in 0.0..1.0f64, b in 0.0..1.0f64, piece in 1usize..200_000) {
        let data = bytes(size);
        let length = size as u64;
        let at = |part: f64| ((length as f64) * part) as u64;
        let (start, end) = (at(a.min(b)).min(length - 1), at(a.max(b)));
        let span = Span::covering(start, end.max(start + 1), length).unwrap();
        prop_assert!(span.start() <= start && span.end() >= end && span.start().is_multiple_of(GROUP));
        let encoded = encode(&data, span, piece);
        prop_assert_eq!(encoded.len() as u64, span.encoded_length(length));
        // Its encoder, byte for byte; and the outboard.
        let reference = PostOrderMemOutboard::create(&data, BLOCK);
        prop_assert_eq!(&outboard(&data).0, &reference.data);
        let ranges = chunks(span, length);
        let mut theirs = Vec::new();
        encode_ranges_validated(&data, &reference, &ranges, &mut theirs).unwrap();
        prop_assert_eq!(&encoded, &theirs);
        // Its decoder reads ours, ours reads its.
        let tree = BaoTree::new(length, BLOCK);
        let root: Hash = reference.root;
        let mut target = vec![0; size];
        decode_ranges(encoded.as_slice(), &ranges, &mut target, EmptyOutboard { tree, root }).unwrap();
        let (from, to) = (usize::try_from(span.start()).unwrap(), usize::try_from(span.end()).unwrap());
        prop_assert_eq!(&target[from..to], &data[from..to]);
        let (until, got, hashes, result) = read(&data, span, &theirs);
        prop_assert!(result.is_ok());
        prop_assert_eq!((until, &got), (span.end(), &target));
        // What is here now is what the disk proves to be here.
        let left = missing(*root.as_bytes(), length, &got, &hashes).unwrap();
        let expected: Vec<Span> = [Span::covering(0, span.start(), length), Span::covering(span.end(), length, length)]
            .into_iter().flatten().collect();
        prop_assert_eq!(left, expected);
    }

    #[test]
    fn a_wrong_byte_ends_an_answer_within_its_group(size in 20_000usize..400_000, at in 0.0..1.0f64, bit in 0u8..8) {
        let data = bytes(size);
        let span = Span::covering(0, size as u64, size as u64).unwrap();
        let mut encoded = encode(&data, span, 1 << 20);
        let at = ((encoded.len() as f64) * at) as usize;
        encoded[at] ^= 1 << bit;
        let (until, got, _, result) = read(&data, span, &encoded);
        let lied = matches!(result, Err(RangeError::Lied { at }) if at == until);
        prop_assert!(lied, "{result:?}");
        // All before is good; and no more was read than the group, and the hashes above it.
        let good = usize::try_from(until).unwrap();
        prop_assert_eq!(&got[..good], &data[..good]);
        prop_assert!(got[good..].iter().all(|byte| *byte == 0));
        prop_assert!(at >= good && at < good + GROUP as usize + 64 * (good / GROUP as usize + 64));
    }

    #[test]
    fn a_cut_answer_is_no_lie(size in 20_000usize..400_000, cut in 0.0..1.0f64) {
        let data = bytes(size);
        let span = Span::covering(0, size as u64, size as u64).unwrap();
        let encoded = encode(&data, span, 1 << 20);
        let (until, got, hashes, result) = read(&data, span, &encoded[..((encoded.len() as f64) * cut) as usize]);
        let short = matches!(result, Err(RangeError::Short { at }) if at == until);
        prop_assert!(short, "{result:?}");
        let good = usize::try_from(until).unwrap();
        prop_assert_eq!(&got[..good], &data[..good]);
        // After a crash, what is on disk says so by itself.
        let root = *bao_tree::blake3::hash(&data).as_bytes();
        let left = missing(root, size as u64, &got, &hashes).unwrap();
        prop_assert_eq!(left, vec![span.after(until).unwrap()]);
        let left = missing(root, size as u64, &got[..good], &hashes).unwrap();
        prop_assert_eq!(left, vec![span.after(until).unwrap()]);
    }

    #[test]
    fn strange_bytes_and_sizes_do_not_panic(encoded in prop::collection::vec(any::<u8>(), 0..2_000), size in 1u64..1 << 43, start in any::<u64>()) {
        let start = start % size;
        let span = Span::covering(start, start.saturating_add(RANGE_LIMIT - GROUP), size).unwrap();
        prop_assert!(span.encoded_length(size) < span.length() + span.length() / 200 + 64 * 64);
        let (mut data, mut hashes) = (Vec::new(), Vec::new());
        let result = decode([7; 32], size, span, encoded.as_slice(), &mut data, &mut hashes, |_| ());
        prop_assert!(result.is_err());
        prop_assert!(data.is_empty() && hashes.is_empty());
    }
}

/// What a client that cannot verify is sent.
fn plain(data: &[u8], kept: &[u8], (start, end): (u64, u64)) -> std::io::Result<Vec<u8>> {
    let (outboard, root) = outboard(kept);
    let size = kept.len() as u64;
    let span = Span::covering(start, end, size).unwrap();
    let from = std::io::Cursor::new(data[usize::try_from(span.start()).unwrap()..].to_vec());
    let mut part = Checked::new(root, size, (start, end), span, from, outboard);
    let (mut out, mut piece) = (Vec::new(), vec![0; 40_000]);
    loop {
        match part.fill(&mut piece)? {
            0 => return Ok(out),
            filled => out.extend_from_slice(&piece[..filled]),
        }
    }
}

#[test]
fn a_part_as_it_is_has_the_bytes_asked_for_and_none_that_is_wrong() {
    let data = bytes(200_000);
    let mut changed = data.clone();
    changed[100_000] ^= 1;
    for (start, end) in [
        (0, 1),
        (0, 200_000),
        (1, 199_999),
        (16_383, 16_385),
        (99_000, 100_000),
        (100_000, 100_001),
        (114_687, 114_688),
        (114_688, 114_689),
        (199_999, 200_000),
    ] {
        let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
        assert_eq!(
            plain(&data, &data, (start, end)).unwrap(),
            data[range.clone()],
            "{range:?}"
        );
        // The group of the wrong byte goes from 98304 to 114688.
        let met = start < 114_688 && end > 98_304;
        match plain(&changed, &data, (start, end)) {
            Ok(sent) => assert!(!met && sent == data[range], "{start} {end}"),
            Err(error) => assert!(met && error.kind() == std::io::ErrorKind::InvalidData, "{start} {end}"),
        }
    }
}

#[test]
fn damage_on_disk_is_not_sent() {
    let data = bytes(200_000);
    let (good_hashes, root) = outboard(&data);
    let span = Span::covering(0, 200_000, 200_000).unwrap();
    let send = |data: &[u8], hashes: &[u8]| {
        let mut encoder = Encoder::new(root, 200_000, span, data, hashes);
        let mut out = Vec::new();
        let mut piece = [0; GROUP as usize];
        assert_eq!(
            encoder.fill(&mut piece[1..]).unwrap_err().kind(),
            std::io::ErrorKind::InvalidInput
        );
        loop {
            match encoder.fill(&mut piece) {
                Ok(0) => return (out, None),
                Ok(filled) => out.extend_from_slice(&piece[..filled]),
                Err(error) => {
                    // It does not go on behind the damage.
                    assert!(encoder.fill(&mut piece).is_err());
                    return (out, Some(error.kind()));
                }
            }
        }
    };
    assert_eq!(send(&data, &good_hashes).1, None);
    let mut changed = data.clone();
    changed[100_000] ^= 1;
    let (sent, error) = send(&changed, &good_hashes);
    assert_eq!(error, Some(std::io::ErrorKind::InvalidData));
    let (until, _, _, result) = read(&data, span, &sent);
    assert!(
        matches!(result, Err(RangeError::Short { .. })) && until <= 100_000 && until > 60_000,
        "{until}"
    );
    // Outboards: damaged, too short, of another file. Too long ones have nothing that is read.
    assert!(is_sound(root, 200_000, &good_hashes).unwrap());
    for hashes in [
        {
            let mut hashes = good_hashes.clone();
            hashes[70] ^= 1;
            hashes
        },
        good_hashes[..good_hashes.len() - 1].to_vec(),
        Vec::new(),
        outboard(&changed).0,
    ] {
        assert_eq!(send(&data, &hashes).1, Some(std::io::ErrorKind::InvalidData));
        assert!(!is_sound(root, 200_000, &hashes).unwrap());
    }
    let long = [&good_hashes[..], &[1; 1_000]].concat();
    assert_eq!(send(&data, &long), send(&data, &good_hashes));
    assert_eq!(
        send(&data[..150_000], &good_hashes).1,
        Some(std::io::ErrorKind::UnexpectedEof)
    );
}
