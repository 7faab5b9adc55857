//! A protobuf walker that allocates nothing: fields of one message, in order, as slices of the input.
//!
//! It knows the wire format only. Groups, field number 0 and overlong integers are refused, and every length is
//! compared with the bytes that are left before it is used.

/// Why a message was refused. Offsets are in bytes from the start of the message that was being walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The input ends inside a field, or a length points past its end.
    #[error("ends at byte {at} inside a field")]
    Truncated {
        /// Offset of the field.
        at: usize,
    },
    /// An integer of more than 64 bits.
    #[error("integer at byte {at} has more than 64 bits")]
    Overlong {
        /// Offset of the integer.
        at: usize,
    },
    /// A wire type that proto3 does not write (groups, 6, 7) or field number 0.
    #[error("key {key} at byte {at} is not a field")]
    Key {
        /// Offset of the key.
        at: usize,
        /// The key.
        key: u64,
    },
    /// A field with another wire type than its definition.
    #[error("field {field} has the wrong wire type")]
    Type {
        /// Field number.
        field: u32,
    },
    /// A text that is not UTF-8.
    #[error("field {field} is not UTF-8")]
    NotUtf8 {
        /// Field number.
        field: u32,
    },
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1: 8 bytes.
    Fixed64(u64),
    /// Wire type 2: bytes, text, a message or a packed list.
    Bytes(&'a [u8]),
    /// Wire type 5: 4 bytes.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Field number, at least 1.
    pub number: u32,
    /// Its value.
    pub wire: Wire<'a>,
}

impl<'a> Field<'a> {
    /// The value as an integer.
    ///
    /// # Errors
    /// [`WireError::Type`] if it is none.
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.wire {
            Wire::Varint(value) => Ok(value),
            _ => Err(WireError::Type { field: self.number }),
        }
    }

    /// The value as `int64`, which protobuf writes in two's complement.
    ///
    /// # Errors
    /// [`WireError::Type`] if it is none.
    pub fn int64(&self) -> Result<i64, WireError> {
        Ok(self.varint()?.cast_signed())
    }

    /// The value as bytes or an embedded message.
    ///
    /// # Errors
    /// [`WireError::Type`] if it is none.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.wire {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type { field: self.number }),
        }
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`WireError::Type`] or [`WireError::NotUtf8`].
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotUtf8 { field: self.number })
    }
}

/// Iterates over the fields of a message; stops after the first error.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Message<'a> {
    /// The fields of a message.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireError::Truncated { at: start })?;
            self.at += 1;
            let low = u64::from(byte & 0x7f);
            // The tenth byte holds one bit only.
            if shift == 63 && low > 1 {
                break;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Overlong { at: start })
    }

    fn take(&mut self, count: u64, start: usize) -> Result<&'a [u8], WireError> {
        let truncated = WireError::Truncated { at: start };
        let count = usize::try_from(count).map_err(|_| truncated)?;
        let end = self.at.checked_add(count).ok_or(truncated)?;
        let slice = self.bytes.get(self.at..end).ok_or(truncated)?;
        self.at = end;
        Ok(slice)
    }

    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.at;
        let key = self.varint()?;
        let number = match u32::try_from(key >> 3) {
            Ok(number) if number > 0 => number,
            _ => return Err(WireError::Key { at: start, key }),
        };
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(
                self.take(8, start)?
                    .try_into()
                    .map_err(|_| WireError::Truncated { at: start })?,
            )),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length, start)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(
                self.take(4, start)?
                    .try_into()
                    .map_err(|_| WireError::Truncated { at: start })?,
            )),
            _ => return Err(WireError::Key { at: start, key }),
        };
        Ok(Field { number, wire })
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// Counts the integers in a packed list, and checks that it is one.
///
/// # Errors
/// [`WireError`] if the bytes are not whole integers.
pub fn packed_varints(bytes: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> + '_ {
    let mut message = Message::new(bytes);
    std::iter::from_fn(move || {
        if message.at >= message.bytes.len() {
            return None;
        }
        let value = message.varint();
        if value.is_err() {
            message.at = message.bytes.len();
        }
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_examples_of_the_encoding_guide() {
        // protobuf.dev/programming-guides/encoding: a = 150; b = "testing"
        let bytes = [0x08, 0x96, 0x01, 0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g'];
        let fields: Vec<_> = Message::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(
            fields[0],
            Field {
                number: 1,
                wire: Wire::Varint(150)
            }
        );
        assert_eq!(fields[1].text(), Ok("testing"));
        assert_eq!(fields[1].varint(), Err(WireError::Type { field: 2 }));
        let packed: Vec<_> = packed_varints(&[0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05])
            .map(Result::unwrap)
            .collect();
        assert_eq!(packed, [3, 270, 86942]);
    }

    #[test]
    fn refuses_what_is_not_a_field() {
        fn first(bytes: &[u8]) -> Result<Field<'_>, WireError> {
            Message::new(bytes).next().unwrap()
        }
        assert_eq!(first(&[0x00, 0x00]), Err(WireError::Key { at: 0, key: 0 }));
        assert_eq!(first(&[0x0b]), Err(WireError::Key { at: 0, key: 11 }));
        assert_eq!(first(&[0x08]), Err(WireError::Truncated { at: 1 }));
        assert_eq!(first(&[0x0a, 5, 1]), Err(WireError::Truncated { at: 0 }));
        let mut overlong = vec![0x08];
        overlong.extend([0xff; 9]);
        overlong.push(2);
        assert_eq!(first(&overlong), Err(WireError::Overlong { at: 1 }));
        // A length close to the address space must not overflow.
        let mut huge = vec![0x0a];
        huge.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert!(matches!(first(&huge), Err(WireError::Truncated { .. })));
    }
}
