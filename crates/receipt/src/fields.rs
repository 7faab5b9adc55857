//! Reading typed fields out of a decoded map, in key order, naming the field in each error.

use crate::error::ReceiptError;
use alloy_primitives::{Address, B256};
use opg_primitives::{
    cbor::{Encoder, Value},
    mode::{Grade, Mode, UnknownWord},
    money::{Amount, Price},
};

/// A map being read. The decoder has checked that keys are sorted and unique, so reading the fields in ascending order
/// and asking for the end accepts exactly the maps with these keys.
pub(crate) struct Fields {
    within: &'static str,
    pairs: std::iter::Peekable<std::vec::IntoIter<(Value, Value)>>,
}

impl Fields {
    pub(crate) fn of(value: Value, within: &'static str) -> Result<Self, ReceiptError> {
        match value {
            Value::Map(pairs) => Ok(Self {
                within,
                pairs: pairs.into_iter().peekable(),
            }),
            _ => Err(ReceiptError::Type {
                field: within,
                expected: "a map",
            }),
        }
    }

    pub(crate) fn optional(&mut self, key: u64) -> Option<Value> {
        self.pairs
            .next_if(|(found, _)| *found == Value::Uint(key))
            .map(|(_, value)| value)
    }

    pub(crate) fn take(&mut self, key: u64, field: &'static str) -> Result<Value, ReceiptError> {
        match self.pairs.peek() {
            Some((Value::Uint(found), _)) if *found == key => {}
            // A smaller key, or one that is not an integer below ours in the sort order, is not part of the format.
            Some((Value::Uint(found), _)) if *found < key => {
                return Err(ReceiptError::Unexpected { within: self.within });
            }
            _ => return Err(ReceiptError::Missing { field }),
        }
        self.pairs
            .next()
            .map(|(_, value)| value)
            .ok_or(ReceiptError::Missing { field })
    }

    pub(crate) fn map(&mut self, key: u64, field: &'static str) -> Result<Self, ReceiptError> {
        Self::of(self.take(key, field)?, field)
    }

    pub(crate) fn uint(&mut self, key: u64, field: &'static str) -> Result<u64, ReceiptError> {
        as_uint(self.take(key, field)?, field)
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self, key: u64, field: &'static str) -> Result<T, ReceiptError> {
        T::try_from(self.uint(key, field)?).map_err(|_| ReceiptError::Type {
            field,
            expected: "a smaller unsigned integer",
        })
    }

    pub(crate) fn array<const N: usize>(&mut self, key: u64, field: &'static str) -> Result<[u8; N], ReceiptError> {
        as_array(self.take(key, field)?, field)
    }

    pub(crate) fn b256(&mut self, key: u64, field: &'static str) -> Result<B256, ReceiptError> {
        Ok(B256::new(self.array(key, field)?))
    }

    pub(crate) fn address(&mut self, key: u64, field: &'static str) -> Result<Address, ReceiptError> {
        Ok(Address::new(self.array(key, field)?))
    }

    pub(crate) fn amount(&mut self, key: u64, field: &'static str) -> Result<Amount, ReceiptError> {
        Ok(Amount::from_be_bytes(self.array(key, field)?))
    }

    pub(crate) fn bytes(&mut self, key: u64, field: &'static str, limit: usize) -> Result<Vec<u8>, ReceiptError> {
        match self.take(key, field)? {
            Value::Bytes(bytes) if bytes.len() <= limit => Ok(bytes),
            Value::Bytes(bytes) => Err(ReceiptError::TooLong {
                what: field,
                limit,
                got: bytes.len(),
            }),
            _ => Err(ReceiptError::Type {
                field,
                expected: "bytes",
            }),
        }
    }

    pub(crate) fn text(&mut self, key: u64, field: &'static str) -> Result<String, ReceiptError> {
        match self.take(key, field)? {
            Value::Text(text) => Ok(text),
            _ => Err(ReceiptError::Type {
                field,
                expected: "text",
            }),
        }
    }

    pub(crate) fn bool(&mut self, key: u64, field: &'static str) -> Result<bool, ReceiptError> {
        match self.take(key, field)? {
            Value::Bool(value) => Ok(value),
            _ => Err(ReceiptError::Type {
                field,
                expected: "a boolean",
            }),
        }
    }

    pub(crate) fn mode(&mut self, key: u64, field: &'static str) -> Result<Mode, ReceiptError> {
        Mode::from_code(self.uint(key, field)?).map_err(|error| word(field, error))
    }

    pub(crate) fn grade(&mut self, key: u64, field: &'static str) -> Result<Grade, ReceiptError> {
        Grade::from_code(self.uint(key, field)?).map_err(|error| word(field, error))
    }

    /// `{1: per_call, 2: per_mtok_in, 3: per_mtok_out}`, or the first three keys of a larger map.
    pub(crate) fn price(&mut self) -> Result<Price, ReceiptError> {
        Ok(Price {
            per_call: self.amount(1, "price.per_call")?,
            per_mtok_in: self.amount(2, "price.per_mtok_in")?,
            per_mtok_out: self.amount(3, "price.per_mtok_out")?,
        })
    }

    /// Checks that nothing is left.
    pub(crate) fn end(mut self) -> Result<(), ReceiptError> {
        match self.pairs.next() {
            None => Ok(()),
            Some(_) => Err(ReceiptError::Unexpected { within: self.within }),
        }
    }
}

pub(crate) fn as_uint(value: Value, field: &'static str) -> Result<u64, ReceiptError> {
    match value {
        Value::Uint(value) => Ok(value),
        _ => Err(ReceiptError::Type {
            field,
            expected: "an unsigned integer",
        }),
    }
}

pub(crate) fn as_array<const N: usize>(value: Value, field: &'static str) -> Result<[u8; N], ReceiptError> {
    let expected = match N {
        16 => "16 bytes",
        20 => "20 bytes",
        32 => "32 bytes",
        64 => "64 bytes",
        _ => "bytes of a fixed length",
    };
    match value {
        Value::Bytes(bytes) => bytes.try_into().map_err(|_| ReceiptError::Type { field, expected }),
        _ => Err(ReceiptError::Type { field, expected }),
    }
}

/// Writes the three components of a price as keys 1 to 3 of the map whose header was just written.
pub(crate) fn write_price(encoder: &mut Encoder, price: &Price) {
    encoder.uint(1).bytes(&price.per_call.to_be_bytes());
    encoder.uint(2).bytes(&price.per_mtok_in.to_be_bytes());
    encoder.uint(3).bytes(&price.per_mtok_out.to_be_bytes());
}

fn word(field: &'static str, error: UnknownWord) -> ReceiptError {
    ReceiptError::Value {
        field,
        expected: error.expected.to_owned(),
        got: error.got,
    }
}
