//! The attestation report, read from its raw bytes (SEV-SNP firmware ABI, AMD document 56860, "ATTESTATION_REPORT").
//!
//! Strict: exactly 1,184 bytes, known versions only, and every byte that the ABI reserves is zero, including the
//! padding of the signature. A parser that skips those bytes and re-encodes the report before it checks the signature
//! accepts changed evidence; here the signature is checked over [`Report::signed`], the bytes as they came.

use super::{
    policy_bits::{GuestPolicy, PlatformInfo},
    product::Product,
    tcb::Tcb,
};
use crate::{bytes::Reader, reject::Reject};

/// Name of the structure in messages.
pub(super) const WHAT: &str = "the SNP report";

/// Bytes of a report.
pub const REPORT_BYTES: usize = 0x4a0;
/// Bytes under the signature, from the start.
pub const SIGNED_BYTES: usize = 0x2a0;
/// `SIGNATURE_ALGO` of ECDSA P-384 with SHA-384, the only one that exists.
const ECDSA_P384_SHA384: u32 = 1;

/// Which key signed the report, bits 4..2 of the flags at 0x48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key: derived from one chip's secret and its TCB.
    Vcek,
    /// Versioned loaded endorsement key: given by AMD to a cloud provider.
    Vlek,
}

impl SigningKey {
    /// `VCEK` or `VLEK`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

/// Version of the SEV firmware, bytes build, minor, major, reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// Major ABI version.
    pub major: u8,
    /// Minor ABI version.
    pub minor: u8,
    /// Build number.
    pub build: u8,
}

/// `CPUID_1` values that report versions 3 and later carry at 0x188.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuId {
    /// Combined extended and base family.
    pub family: u8,
    /// Combined extended and base model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// Mitigation vectors of report version 5 (0x1F8 and 0x200): one bit per vulnerability that is mitigated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MitigationVectors {
    /// At the guest's launch.
    pub launch: u64,
    /// At the time of the report.
    pub current: u64,
}

/// One report, every field of the ABI as the firmware wrote it. Parsed is not verified: see
/// [`verify`](super::SnpVerifier).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Layout version: 2, 3, 4 or 5.
    pub version: u32,
    /// Security version of the guest image.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: GuestPolicy,
    /// Family id given at launch.
    pub family_id: [u8; 16],
    /// Image id given at launch.
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report, 0 (highest) to 3.
    pub vmpl: u32,
    /// TCB running now, eight bytes whose order depends on the product.
    pub current_tcb: [u8; 8],
    /// Platform state.
    pub platform: PlatformInfo,
    /// The author key digest is present.
    pub author_key: bool,
    /// Key that signed.
    pub signing_key: SigningKey,
    /// The 64 bytes that the guest chose.
    pub report_data: [u8; 64],
    /// Launch measurement, SHA-384.
    pub measurement: [u8; 48],
    /// Data that the host gave at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the id key, zero when none.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author key, zero when none.
    pub author_key_digest: [u8; 48],
    /// Id of this guest, changes at each launch.
    pub report_id: [u8; 32],
    /// Report id of the migration agent, all ones when none.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key was derived from.
    pub reported_tcb: [u8; 8],
    /// Processor, from version 3 on.
    pub cpuid: Option<CpuId>,
    /// Chip id, zero when masked. Turin uses the first eight bytes.
    pub chip_id: [u8; 64],
    /// TCB that the platform cannot go below.
    pub committed_tcb: [u8; 8],
    /// Firmware running now.
    pub current: FirmwareVersion,
    /// Firmware that the platform cannot go below.
    pub committed: FirmwareVersion,
    /// TCB at the guest's launch.
    pub launch_tcb: [u8; 8],
    /// Mitigations, version 5.
    pub mitigations: Option<MitigationVectors>,
    /// The signed bytes, raw.
    pub signed: [u8; SIGNED_BYTES],
    /// `r || s`, big-endian, 48 bytes each.
    pub signature: [u8; 96],
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// One [`Reject`] per thing that the ABI does not allow: length, version, algorithm, signing key, a reserved byte,
    /// padding of the signature, an unknown guest policy bit.
    pub fn parse(raw: &[u8]) -> Result<Self, Reject> {
        let Some(signed) = raw.first_chunk::<SIGNED_BYTES>() else {
            return Err(Reject::Truncated {
                what: WHAT,
                at: raw.len(),
            });
        };
        if raw.len() > REPORT_BYTES {
            return Err(Reject::TrailingBytes {
                what: WHAT,
                at: REPORT_BYTES,
            });
        }
        let mut at = Fields(Reader::new(WHAT, raw));
        let version = at.u32()?;
        if !(2..=5).contains(&version) {
            return Err(Reject::Version {
                what: WHAT,
                expected: "2 to 5",
                got: version.into(),
            });
        }
        let guest_svn = at.u32()?;
        let policy = GuestPolicy::from_bits(at.u64()?)?;
        let (family_id, image_id, vmpl) = (at.take()?, at.take()?, at.u32()?);
        if vmpl > 3 {
            return Err(Reject::FieldValue {
                what: "VMPL",
                expected: "0 to 3",
                got: vmpl.into(),
            });
        }
        if at.u32()? != ECDSA_P384_SHA384 {
            return Err(Reject::Algorithm {
                what: WHAT,
                expected: "ECDSA P-384 with SHA-384",
            });
        }
        let current_tcb = at.take()?;
        let platform = PlatformInfo(at.u64()?);
        let (author_key, signing_key) = flags(at.u32()?)?;
        at.zero(4)?;
        let (report_data, measurement, host_data) = (at.take()?, at.take()?, at.take()?);
        let (id_key_digest, author_key_digest) = (at.take()?, at.take()?);
        let (report_id, report_id_ma, reported_tcb) = (at.take()?, at.take()?, at.take()?);
        let cpuid = if version == 2 {
            at.zero(3)?;
            None
        } else {
            let [family, model, stepping] = at.take()?;
            Some(CpuId {
                family,
                model,
                stepping,
            })
        };
        at.zero(21)?;
        let (chip_id, committed_tcb) = (at.take()?, at.take()?);
        let (current, committed) = (at.firmware()?, at.firmware()?);
        let launch_tcb = at.take()?;
        let mitigations = if version >= 5 {
            Some(MitigationVectors {
                launch: at.u64()?,
                current: at.u64()?,
            })
        } else {
            at.zero(16)?;
            None
        };
        at.zero(152)?;
        let signature = at.signature()?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform,
            author_key,
            signing_key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            current,
            committed,
            launch_tcb,
            mitigations,
            signed: *signed,
            signature,
        })
    }

    /// The product that the report itself names; none in version 2, which has no processor fields.
    ///
    /// # Errors
    /// [`Reject::FieldValue`] for a family and model that is no known SEV-SNP processor.
    pub fn product(&self) -> Result<Option<Product>, Reject> {
        let Some(cpu) = self.cpuid else { return Ok(None) };
        let got = u64::from(u16::from_be_bytes([cpu.family, cpu.model]));
        Product::of_processor(cpu.family, cpu.model)
            .map(Some)
            .ok_or(Reject::FieldValue {
                what: "the processor's family and model",
                expected: "Milan, Genoa or Turin",
                got,
            })
    }

    /// The four TCB values in the byte order of `product`: current, reported, committed, launch.
    ///
    /// # Errors
    /// [`Reject::ReservedNotZero`] when a byte that the product reserves is not zero.
    pub fn tcbs(&self, product: Product) -> Result<Tcbs, Reject> {
        Ok(Tcbs {
            current: Tcb::decode(product, self.current_tcb, 0x38)?,
            reported: Tcb::decode(product, self.reported_tcb, 0x180)?,
            committed: Tcb::decode(product, self.committed_tcb, 0x1e0)?,
            launch: Tcb::decode(product, self.launch_tcb, 0x1f0)?,
        })
    }

    /// Whether the platform runs firmware that it could still roll back from: the committed version or TCB is below
    /// the current one.
    #[must_use]
    pub fn provisional(&self) -> bool {
        self.committed != self.current || self.committed_tcb != self.current_tcb
    }

    /// Whether a migration agent is bound to the guest.
    #[must_use]
    pub fn has_migration_agent(&self) -> bool {
        self.report_id_ma != [0xff; 32]
    }
}

/// The TCB values of one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcbs {
    /// Running now.
    pub current: Tcb,
    /// Bound to the signing key.
    pub reported: Tcb,
    /// Lowest that the platform can go back to.
    pub committed: Tcb,
    /// At the guest's launch.
    pub launch: Tcb,
}

/// Bit 0: author key; bit 1: the signing key is masked, so nothing is signed; bits 4..2: which key.
fn flags(word: u32) -> Result<(bool, SigningKey), Reject> {
    if word >> 5 != 0 {
        return Err(Reject::ReservedNotZero { what: WHAT, at: 0x48 });
    }
    let key = match (word >> 1 & 1, word >> 2 & 7) {
        (0, 0) => SigningKey::Vcek,
        (0, 1) => SigningKey::Vlek,
        _ => {
            return Err(Reject::FieldValue {
                what: "the signing key",
                expected: "VCEK or VLEK",
                got: word.into(),
            });
        }
    };
    Ok((word & 1 == 1, key))
}

/// Reads the fields in their order.
struct Fields<'a>(Reader<'a>);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        self.0.array().copied()
    }

    fn u32(&mut self) -> Result<u32, Reject> {
        self.0.u32_le()
    }

    fn u64(&mut self) -> Result<u64, Reject> {
        self.take().map(u64::from_le_bytes)
    }

    /// Offset of the first byte of the next `n` that is not zero.
    fn first_set(&mut self, n: usize) -> Result<Option<usize>, Reject> {
        let start = self.0.at();
        let set = self.0.take(n)?.iter().position(|byte| *byte != 0);
        Ok(set.map(|at| start.saturating_add(at)))
    }

    /// `n` reserved bytes.
    fn zero(&mut self, n: usize) -> Result<(), Reject> {
        self.first_set(n)?
            .map_or(Ok(()), |at| Err(Reject::ReservedNotZero { what: WHAT, at }))
    }

    /// `n` bytes of the signature field that hold no signature.
    fn padding(&mut self, n: usize) -> Result<(), Reject> {
        self.first_set(n)?.map_or(Ok(()), |at| Err(Reject::SigPadding { at }))
    }

    fn firmware(&mut self) -> Result<FirmwareVersion, Reject> {
        let [build, minor, major] = self.take()?;
        self.zero(1)?;
        Ok(FirmwareVersion { major, minor, build })
    }

    /// `R` and `S`, 72 bytes little-endian each of which 48 are used, then 368 reserved bytes.
    fn signature(&mut self) -> Result<[u8; 96], Reject> {
        let (r, s) = (self.scalar()?, self.scalar()?);
        self.padding(368)?;
        let mut fixed = [0; 96];
        for (to, from) in fixed.iter_mut().zip(r.iter().rev().chain(s.iter().rev())) {
            *to = *from;
        }
        Ok(fixed)
    }

    fn scalar(&mut self) -> Result<[u8; 48], Reject> {
        let value = self.take()?;
        self.padding(24)?;
        Ok(value)
    }
}
