//! TCB values: the security versions of the firmware components that a key is derived from.

use super::{product::Product, report::WHAT};
use crate::reject::Reject;

/// Security versions of one platform state ("TCB_VERSION" of the ABI).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tcb {
    /// Firmware management controller; Turin only, 0 elsewhere.
    pub fmc: u8,
    /// Bootloader of the secure processor.
    pub bootloader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SEV-SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// Reads eight bytes in the order of `product`; `offset` is where they stand in the report.
    ///
    /// # Errors
    /// [`Reject::ReservedNotZero`] when a reserved byte is not zero.
    pub(super) fn decode(product: Product, bytes: [u8; 8], offset: usize) -> Result<Self, Reject> {
        let (tcb, first, reserved) = match (product, bytes) {
            (Product::Milan | Product::Genoa, [bootloader, tee, a, b, c, d, snp, microcode]) => (
                Self {
                    fmc: 0,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                2,
                [a, b, c, d],
            ),
            (Product::Turin, [fmc, bootloader, tee, snp, a, b, c, microcode]) => (
                Self {
                    fmc,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                4,
                [a, b, c, 0],
            ),
        };
        match reserved.iter().position(|byte| *byte != 0) {
            Some(at) => Err(Reject::ReservedNotZero {
                what: WHAT,
                at: offset.saturating_add(first).saturating_add(at),
            }),
            None => Ok(tcb),
        }
    }

    /// The eight bytes in the order of `product`.
    #[must_use]
    pub const fn encode(self, product: Product) -> [u8; 8] {
        match product {
            Product::Milan | Product::Genoa => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Product::Turin => [self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        }
    }

    /// Components by name, as claims and policies name them.
    #[must_use]
    pub const fn components(self) -> [(&'static str, u8); 5] {
        [
            ("fmc", self.fmc),
            ("bootloader", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ]
    }

    /// Whether no component is below the same component of `least`.
    #[must_use]
    pub const fn at_least(self, least: Self) -> bool {
        self.fmc >= least.fmc
            && self.bootloader >= least.bootloader
            && self.tee >= least.tee
            && self.snp >= least.snp
            && self.microcode >= least.microcode
    }
}

impl std::fmt::Display for Tcb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        } = self;
        write!(
            f,
            "fmc {fmc}, bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}"
        )
    }
}
