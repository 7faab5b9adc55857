//! The CBOR decoder against hostile input, and against an implementation that we did not write.

use opg_primitives::cbor::{CborError, Limits, Value, decode_strict};
use proptest::prelude::*;

/// Values with sorted, unique keys, as the decoder gives them.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(Value::Uint),
        (0u64..300).prop_map(Value::Uint),
        any::<u64>().prop_map(Value::Nint),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ".{0,20}".prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner.clone()), 0..6).prop_map(|mut pairs| {
                pairs.sort_by_key(|(key, _)| key.to_vec());
                pairs.dedup_by_key(|(key, _)| key.to_vec());
                Value::Map(pairs)
            }),
            (any::<u64>(), inner).prop_map(|(tag, value)| Value::Tag(tag, Box::new(value))),
        ]
    })
}

/// The same value in ciborium's model.
fn foreign(value: &Value) -> ciborium::Value {
    match value {
        Value::Uint(n) => ciborium::Value::Integer((*n).into()),
        Value::Nint(n) => {
            let n = -1i128 - i128::from(*n);
            ciborium::Value::Integer(n.try_into().expect("64 bits and a sign"))
        }
        Value::Bytes(bytes) => ciborium::Value::Bytes(bytes.clone()),
        Value::Text(text) => ciborium::Value::Text(text.clone()),
        Value::Array(items) => ciborium::Value::Array(items.iter().map(foreign).collect()),
        Value::Map(pairs) => ciborium::Value::Map(pairs.iter().map(|(k, v)| (foreign(k), foreign(v))).collect()),
        Value::Tag(tag, inner) => ciborium::Value::Tag(*tag, Box::new(foreign(inner))),
        Value::Bool(value) => ciborium::Value::Bool(*value),
        Value::Null => ciborium::Value::Null,
    }
}

/// Bignums, which ciborium folds into integers, are outside the common ground.
fn has_bignum_tag(value: &Value) -> bool {
    match value {
        Value::Tag(tag, inner) => matches!(tag, 2 | 3) || has_bignum_tag(inner),
        Value::Array(items) => items.iter().any(has_bignum_tag),
        Value::Map(pairs) => pairs.iter().any(|(k, v)| has_bignum_tag(k) || has_bignum_tag(v)),
        _ => false,
    }
}

const LIMITS: Limits = Limits {
    bytes: 1 << 16,
    depth: 8,
    items: 1 << 12,
    tags: true,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_global_rejects: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn decoding_inverts_encoding(value in value()) {
        prop_assert_eq!(decode_strict(&value.to_vec(), LIMITS), Ok(value));
    }

    #[test]
    fn ciborium_writes_and_reads_the_same_bytes(value in value()) {
        prop_assume!(!has_bignum_tag(&value));
        let mut bytes = Vec::new();
        ciborium::into_writer(&foreign(&value), &mut bytes).expect("writing to memory");
        prop_assert_eq!(&bytes, &value.to_vec());
        let read: ciborium::Value = ciborium::from_reader(bytes.as_slice()).expect("valid CBOR");
        prop_assert_eq!(read, foreign(&value));
    }

    /// Whatever is accepted is the one encoding of its value; nothing panics.
    #[test]
    fn accepted_bytes_are_canonical(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = decode_strict(&bytes, LIMITS) {
            prop_assert_eq!(value.to_vec(), bytes);
        }
    }

    #[test]
    fn mutated_encodings_never_read_as_the_same_value(
        value in value(),
        edit in opg_samples::edit(),
    ) {
        let good = value.to_vec();
        let mut bytes = good.clone();
        edit.apply(&mut bytes);
        if bytes != good {
            prop_assert_ne!(decode_strict(&bytes, LIMITS), Ok(value));
        }
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        bytes: 10,
        depth: 2,
        items: 3,
        tags: false,
    };
    assert_eq!(
        decode_strict(&[0; 11], limits),
        Err(CborError::TooLong { limit: 10, got: 11 })
    );
    assert_eq!(decode_strict(&[0x82, 0, 0], limits).map(|_| ()), Ok(()));
    assert!(matches!(
        decode_strict(&[0x83, 0, 0, 0], limits),
        Err(CborError::TooManyItems { limit: 3, .. })
    ));
    assert!(matches!(
        decode_strict(&[0x81, 0x81, 0], limits),
        Err(CborError::TooDeep { limit: 2, at: 2 })
    ));
}

/// A length of 2^63 is refused by comparison with what is left, before anything is allocated.
#[test]
fn huge_lengths_allocate_nothing() {
    for head in [0x5bu8, 0x7b, 0x9b, 0xbb] {
        let mut bytes = vec![head];
        bytes.extend([0x7f; 8]);
        bytes.extend([0; 100]);
        assert!(matches!(
            decode_strict(
                &bytes,
                Limits {
                    items: usize::MAX,
                    ..LIMITS
                }
            ),
            Err(CborError::Truncated { .. })
        ));
    }
}

#[test]
fn deep_nesting_ends_in_an_error_not_in_the_stack() {
    for head in [0x81u8, 0xc1] {
        assert!(matches!(
            decode_strict(&[head; 60_000], LIMITS),
            Err(CborError::TooDeep { limit: 8, .. })
        ));
    }
}

#[test]
fn a_doubled_key_encodes_to_what_the_decoder_refuses() {
    let doubled = Value::int_map(vec![(1, Value::Null), (1, Value::Null)]);
    assert_eq!(
        decode_strict(&doubled.to_vec(), LIMITS),
        Err(CborError::DuplicateKey { at: 3 })
    );
    let unsorted = Value::int_map(vec![(24, Value::Null), (1, Value::Null)]);
    assert_eq!(unsorted.to_vec(), [0xa2, 1, 0xf6, 0x18, 24, 0xf6]);
}
