//! What a document says once its signatures are verified, in one shape for every kind of evidence.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Time of a verdict or of a validity window: seconds since 1970-01-01T00:00:00Z. Always an argument (D13).
pub type UnixSeconds = u64;

/// Kind of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// AWS Nitro Enclaves attestation document.
    Nitro,
    /// Intel TDX quote.
    Tdx,
    /// Intel SGX quote.
    Sgx,
    /// AMD SEV-SNP attestation report.
    Snp,
    /// NVIDIA GPU measurement report (SPDM).
    #[serde(rename = "gpu")]
    NvidiaGpu,
}

impl Kind {
    /// Every kind, by code.
    pub const ALL: [Self; 5] = [Self::Nitro, Self::Tdx, Self::Sgx, Self::Snp, Self::NvidiaGpu];

    /// The number that stands in identifiers and on chain.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Nitro => 1,
            Self::Tdx => 2,
            Self::Sgx => 3,
            Self::Snp => 4,
            Self::NvidiaGpu => 5,
        }
    }

    /// The word for commands and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::Tdx => "tdx",
            Self::Sgx => "sgx",
            Self::Snp => "snp",
            Self::NvidiaGpu => "gpu",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("evidence kind {got:?}, expected nitro, tdx, sgx, snp or gpu")]
pub struct UnknownKind {
    /// The word found.
    pub got: String,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind { got: text.to_owned() })
    }
}

/// Bytes that show as lower-case hexadecimal in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HexBytes(#[serde(with = "hex::serde")] pub Vec<u8>);

impl fmt::Debug for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl From<&[u8]> for HexBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl AsRef<[u8]> for HexBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Measurement registers by name, all of them, zero ones included (a dropped zero register would let a subset match
/// pass a debug guest).
///
/// Names: Nitro `pcr0`..`pcr31`; TDX `mrseam`, `mrsignerseam`, `mrtd`, `mrconfigid`, `mrowner`, `mrownerconfig`,
/// `rtmr0`..`rtmr3`, `mrservicetd`; SGX `mrenclave`, `mrsigner`; SNP `measurement`, `host_data`, `id_key_digest`,
/// `author_key_digest`, `family_id`, `image_id`; GPU `m1`..`m64`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Measurement(pub BTreeMap<String, HexBytes>);

impl Measurement {
    /// Value of a register.
    #[must_use]
    pub fn get(&self, register: &str) -> Option<&[u8]> {
        self.0.get(register).map(AsRef::as_ref)
    }

    /// Sets a register.
    pub fn set(&mut self, register: impl Into<String>, value: &[u8]) {
        self.0.insert(register.into(), HexBytes::from(value));
    }
}

/// The vendor's judgement of a platform's patch level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TcbStatus {
    /// The vendor publishes no such judgement (Nitro), or it is a minimum set by the policy (SNP).
    NotApplicable,
    /// Nothing known is unpatched.
    UpToDate,
    /// Software inside the guest must harden itself.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform's configuration may leave it exposed.
    ConfigurationNeeded,
    /// Both of the above.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Patches are missing.
    OutOfDate,
    /// Patches are missing and the configuration may leave it exposed.
    OutOfDateConfigurationNeeded,
    /// The guest must be started again on the patched platform.
    RelaunchAdvised,
    /// As above, and the configuration may leave it exposed.
    RelaunchAdvisedConfigurationNeeded,
    /// The platform is revoked.
    Revoked,
    /// GPU measurements were not compared with the vendor's reference integrity manifest.
    RimNotChecked,
    /// No collateral was there to judge the platform (signature layer of TDX and SGX).
    NoCollateral,
}

impl TcbStatus {
    /// The vendor's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotApplicable => "NotApplicable",
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::RelaunchAdvised => "RelaunchAdvised",
            Self::RelaunchAdvisedConfigurationNeeded => "RelaunchAdvisedConfigurationNeeded",
            Self::Revoked => "Revoked",
            Self::RimNotChecked => "RimNotChecked",
            Self::NoCollateral => "NoCollateral",
        }
    }
}

/// Patch level of the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcbVerdict {
    /// The vendor's status.
    pub status: TcbStatus,
    /// Advisories that apply, as the vendor names them.
    pub advisories: Vec<String>,
    /// Evaluation number of the collateral, where there is one.
    pub eval_number: Option<u32>,
    /// Version numbers by component. SNP: `fmc` (Turin only), `bootloader`, `tee`, `snp`, `microcode`, `abi_major`,
    /// `abi_minor`. TDX: `tee0`..`tee15`, `pcesvn`. SGX: `isvsvn`, `pcesvn`.
    pub components: BTreeMap<String, u64>,
    /// Whether the platform can be re-composed of other packages (Intel's dynamic platform flag).
    pub dynamic_platform: Option<bool>,
}

impl TcbVerdict {
    /// A platform without a vendor's status.
    #[must_use]
    pub const fn not_applicable() -> Self {
        Self {
            status: TcbStatus::NotApplicable,
            advisories: Vec::new(),
            eval_number: None,
            components: BTreeMap::new(),
            dynamic_platform: None,
        }
    }
}

/// What signed the document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Signer {
    /// Nitro module identifier.
    ModuleId(String),
    /// Intel platform provisioning identifier.
    Ppid(HexBytes),
    /// AMD chip identifier as the certificate's hwID holds it (64 bytes; 8 on Turin).
    ChipId(HexBytes),
    /// AMD VLEK: a cloud provider's key without a chip; SHA-256 of its public key info.
    Vlek(HexBytes),
    /// GPU: SHA-256 of the device certificate's public key info.
    Device(HexBytes),
}

impl Signer {
    /// The text that a policy's revocation list names.
    #[must_use]
    pub fn revocation_key(&self) -> String {
        match self {
            Self::ModuleId(id) => format!("module:{id}"),
            Self::Ppid(id) => format!("ppid:{id:?}"),
            Self::ChipId(id) => format!("chip:{id:?}"),
            Self::Vlek(id) => format!("vlek:{id:?}"),
            Self::Device(id) => format!("device:{id:?}"),
        }
    }
}

/// Identity of a piece of evidence; see [`crate::identity`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EvidenceId(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Debug for EvidenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EvidenceId({self})")
    }
}

impl fmt::Display for EvidenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a document says, after its signatures and its chain are good and before any policy looked at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Kind of evidence.
    pub kind: Kind,
    /// Format as the vendor names it, for people: `nitro`, `tdx-v4-td10`, `snp-v3-milan`, `sgx-v3`, `spdm-1.1`...
    pub format: String,
    /// Measurement registers.
    pub measurement: Measurement,
    /// What the guest put in: 64 bytes of report data (TDX, SGX, SNP), the user data (Nitro, at most 512 bytes, empty
    /// where absent), empty for a GPU.
    pub bound: HexBytes,
    /// Nonce, where the format has a field of its own (Nitro, GPU).
    pub nonce: Option<HexBytes>,
    /// Public key, where the format has a field of its own (Nitro).
    pub public_key: Option<HexBytes>,
    /// Patch level.
    pub tcb: TcbVerdict,
    /// Debug guest: its operator reads its memory.
    pub debug: bool,
    /// Whether two threads may share a core; `None` where the document does not say.
    pub smt: Option<bool>,
    /// SNP privilege level; `None` for other kinds.
    pub vmpl: Option<u32>,
    /// SNP: a migration agent is associated, or allowed by the guest policy.
    pub migratable: Option<bool>,
    /// SNP: the committed TCB is below the current one.
    pub provisional_firmware: Option<bool>,
    /// What signed.
    pub signer: Signer,
    /// When the document was made, where it says so (Nitro).
    pub issued_at: Option<UnixSeconds>,
    /// First second at which every certificate and all collateral is valid.
    pub not_before: UnixSeconds,
    /// Last second at which every certificate and all collateral is valid.
    pub not_after: UnixSeconds,
    /// Identity: the same for every encoding of the same signed statement.
    pub evidence_id: EvidenceId,
}
