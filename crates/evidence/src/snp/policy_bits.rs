//! The two bit fields of a report: what the guest's owner demanded, and the state of the platform.

use crate::reject::Reject;

/// Guest policy, 0x08. The firmware launches no guest whose policy the platform does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    /// Bits that the ABI defines: 0 to 25.
    const KNOWN: u64 = (1 << 26) - 1;
    /// Bit 17 is reserved and always one.
    const ONE: u64 = 1 << 17;

    /// Reads the field. An unknown bit could weaken the guest as bit 19 does, so it is refused.
    ///
    /// # Errors
    /// [`Reject::FieldValue`] when bit 17 is zero or an unknown bit is set.
    pub fn from_bits(bits: u64) -> Result<Self, Reject> {
        if bits & !Self::KNOWN != 0 || bits & Self::ONE == 0 {
            return Err(Reject::FieldValue {
                what: "the guest policy",
                expected: "bit 17 set and no bit above 25",
                got: bits,
            });
        }
        Ok(Self(bits))
    }

    /// The raw field.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    const fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 == 1
    }

    /// Bits 15..8 and 7..0: least ABI version (major, minor).
    #[must_use]
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    /// Bit 16: simultaneous multithreading allowed.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.bit(16)
    }

    /// Bit 18: a migration agent may move the guest.
    #[must_use]
    pub const fn migration(self) -> bool {
        self.bit(18)
    }

    /// Bit 19: the host may read and write the guest's memory. Nothing that such a guest says is protected.
    #[must_use]
    pub const fn debug(self) -> bool {
        self.bit(19)
    }

    /// Bit 20: only one socket.
    #[must_use]
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }

    /// Bit 21: CXL devices and memory allowed.
    #[must_use]
    pub const fn cxl(self) -> bool {
        self.bit(21)
    }
}

/// Platform state, 0x40. Bits without a meaning here are kept raw: firmware adds them without a new report version
/// (real Turin reports set bit 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    const fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 == 1
    }

    /// Bit 0: simultaneous multithreading is on.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.bit(0)
    }

    /// Bit 1: transparent memory encryption is on.
    #[must_use]
    pub const fn tsme(self) -> bool {
        self.bit(1)
    }

    /// Bit 2: memory has error correction.
    #[must_use]
    pub const fn ecc(self) -> bool {
        self.bit(2)
    }

    /// Bit 3: power reporting is off.
    #[must_use]
    pub const fn rapl_disabled(self) -> bool {
        self.bit(3)
    }

    /// Bit 4: ciphertext hiding is on.
    #[must_use]
    pub const fn ciphertext_hiding(self) -> bool {
        self.bit(4)
    }

    /// Bit 5: memory was checked for aliases since the last reset (the answer to BadRAM, CVE-2024-21944).
    #[must_use]
    pub const fn alias_check(self) -> bool {
        self.bit(5)
    }
}
