//! Element types.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! dtypes {
    ($($name:ident = $code:literal, $text:literal, $bits:literal;)*) => {
        /// Element type of a tensor (`TensorProto.DataType`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum DType { $(
            #[doc = concat!("`", $text, "`")]
            #[serde(rename = $text)]
            $name,
        )* }

        impl DType {
            /// The type of an ONNX code.
            #[must_use]
            pub const fn from_code(code: i64) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }

            /// Short name, as in Rust where Rust has the type.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Bits of one element; 0 for strings, which have no fixed size.
            #[must_use]
            pub const fn bits(self) -> u64 {
                match self { $(Self::$name => $bits,)* }
            }
        }
    };
}

dtypes! {
    F32 = 1, "f32", 32;
    U8 = 2, "u8", 8;
    I8 = 3, "i8", 8;
    U16 = 4, "u16", 16;
    I16 = 5, "i16", 16;
    I32 = 6, "i32", 32;
    I64 = 7, "i64", 64;
    String = 8, "string", 0;
    Bool = 9, "bool", 8;
    F16 = 10, "f16", 16;
    F64 = 11, "f64", 64;
    U32 = 12, "u32", 32;
    U64 = 13, "u64", 64;
    C64 = 14, "c64", 64;
    C128 = 15, "c128", 128;
    Bf16 = 16, "bf16", 16;
    F8E4M3Fn = 17, "f8e4m3fn", 8;
    F8E4M3FnUz = 18, "f8e4m3fnuz", 8;
    F8E5M2 = 19, "f8e5m2", 8;
    F8E5M2FnUz = 20, "f8e5m2fnuz", 8;
    U4 = 21, "u4", 4;
    I4 = 22, "i4", 4;
    F4E2M1 = 23, "f4e2m1", 4;
    F8E8M0 = 24, "f8e8m0", 8;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
