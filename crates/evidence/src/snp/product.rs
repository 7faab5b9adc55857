//! Products: which processors there are, which root each has, how each orders its TCB bytes.

/// A processor generation with its own AMD root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004 (Bergamo and Siena use Genoa's root).
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// Every product that has a pinned root.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// AMD's name, as in `ARK-Milan`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Product of a certificate's `productName` extension. Older certificates add the stepping (`Milan-B0`).
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let base = name.split_once('-').map_or(name, |(base, _)| base);
        match base {
            "Milan" => Some(Self::Milan),
            "Genoa" | "Bergamo" | "Siena" => Some(Self::Genoa),
            "Turin" => Some(Self::Turin),
            _ => None,
        }
    }

    /// Product of a report's processor fields (family and model as `CPUID_1` combines them).
    #[must_use]
    pub const fn of_processor(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Significant bytes of the chip id: Turin uses 8 of the 64, the others all.
    #[must_use]
    pub const fn chip_id_bytes(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
