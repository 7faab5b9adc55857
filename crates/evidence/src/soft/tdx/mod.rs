//! TDX quotes of the software attester: Intel's exact formats under a development root.
//!
//! It makes what Intel's infrastructure makes: root, platform authority, platform certificate with the SGX extension, a
//! quoting enclave's report, quotes of version 4, and the collateral. The platform's family is no real one ([`TDX_FMSPC`])
//! and the module's measurement is the hash of a sentence that says what it is.

mod collateral;
mod pki;

pub use collateral::TdxCollateralSpec;

use self::pki::{Identity, hash, sgx_extension};
use super::{
    MODULE_ID,
    encode::{basic_constraints, key_usage, pem},
};
use crate::{
    claims::{Kind, UnixSeconds},
    dcap::INTEL_VENDOR,
    roots::Anchor,
    x509::usage,
};
use sha2::{Digest, Sha256, Sha384};

/// Platform family of the software attester.
pub const TDX_FMSPC: [u8; 6] = *b"SOFTWA";
/// Version of every component of the platform.
const SVN: u8 = 1;
/// Version of the quoting enclave.
const QE_SVN: u16 = 4;

/// What a trust domain is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxRequest {
    /// Report data: the binding.
    pub report_data: [u8; 64],
    /// Build-time measurement.
    pub mr_td: [u8; 48],
    /// Run-time registers.
    pub rtmr: [[u8; 48]; 4],
    /// TD attributes; [`TdxRequest::new`] sets only `SEPT_VE_DISABLE` (bit 28).
    pub attributes: u64,
}

impl TdxRequest {
    /// A domain with sound attributes, a recognisable measurement and run-time registers that nothing has extended.
    #[must_use]
    pub fn new(report_data: [u8; 64]) -> Self {
        Self {
            report_data,
            mr_td: Sha384::digest(MODULE_ID).into(),
            rtmr: [[0; 48]; 4],
            attributes: 1 << 28,
        }
    }
}

/// A simulated platform. It makes quotes that verify under its own development root and under no other.
#[derive(Clone)]
pub struct SoftTdx {
    root: Identity,
    authority: Identity,
    platform: Identity,
    signer: Identity,
    attestation: Identity,
    qe_signer: [u8; 32],
    root_der: Vec<u8>,
    authority_der: Vec<u8>,
    platform_der: Vec<u8>,
    signer_der: Vec<u8>,
}

impl std::fmt::Debug for SoftTdx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftTdx").finish_non_exhaustive()
    }
}

impl SoftTdx {
    /// A platform of a seed with certificates valid from `not_before` to `not_after`.
    #[must_use]
    pub fn new(seed: &[u8; 32], not_before: UnixSeconds, not_after: UnixSeconds) -> Self {
        let identity = |label, serial| Identity::derive(seed, label, serial);
        let root = identity("SGX root", 1);
        let authority = identity("PCK authority", 2);
        let platform = identity("PCK", 3);
        let signer = identity("TCB signing", 4);
        let attestation = identity("attestation key", 5);
        let validity = (not_before, not_after);
        let authorities = [
            key_usage(usage::CERT_SIGN | usage::CRL_SIGN),
            basic_constraints(true, None),
        ]
        .concat();
        let leaf = [key_usage(usage::DIGITAL_SIGNATURE), basic_constraints(false, None)].concat();
        let ppid: Vec<u8> = hash(seed, "ppid").into_iter().take(16).collect();
        let platform_extensions = [leaf.as_slice(), &sgx_extension(&ppid, TDX_FMSPC, SVN)].concat();
        Self {
            qe_signer: hash(seed, "qe mrsigner"),
            root_der: root.certify(&root, validity, &authorities),
            authority_der: root.certify(&authority, validity, &authorities),
            platform_der: authority.certify(&platform, validity, &platform_extensions),
            signer_der: root.certify(&signer, validity, &leaf),
            root,
            authority,
            platform,
            signer,
            attestation,
        }
    }

    /// The development root.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        Anchor::new(Kind::Tdx, MODULE_ID, self.root_der.clone())
    }

    /// A quote of version 4.
    #[must_use]
    pub fn quote(&self, request: &TdxRequest) -> Vec<u8> {
        self.seal(&Self::statement(request))
    }

    /// Header and TD report of version 4: what is signed (Intel, "DCAP quote library API", appendix A.3).
    #[must_use]
    pub fn statement(request: &TdxRequest) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + 584);
        out.extend(4u16.to_le_bytes());
        out.extend(2u16.to_le_bytes());
        out.extend(0x81u32.to_le_bytes());
        out.extend([0; 4]);
        out.extend(INTEL_VENDOR);
        out.extend([0; 20]);
        // The second component is the module's version: 0, there is no module identity to look for.
        out.extend((0..16).map(|at| if at == 1 { 0 } else { SVN }));
        out.extend(Sha384::digest(super::ORGANISATION));
        // Signer and attributes of the module: zero, as Intel's own module has them.
        out.extend([0; 48 + 8]);
        out.extend(request.attributes.to_le_bytes());
        out.extend(3u64.to_le_bytes());
        out.extend(request.mr_td);
        out.extend([0; 3 * 48]);
        out.extend(request.rtmr.concat());
        out.extend(request.report_data);
        out
    }

    /// Signs any header and body, as a quoting enclave with other ideas about them would.
    #[must_use]
    pub fn seal(&self, statement: &[u8]) -> Vec<u8> {
        let attestation_key = self.attestation.point();
        let qe_auth: [u8; 32] = Sha256::digest("quoting enclave's authentication data").into();
        let bound = Sha256::new()
            .chain_update(&attestation_key)
            .chain_update(qe_auth)
            .finalize();
        let qe_report = self.qe_report(&bound);
        let chain = [&self.platform_der, &self.authority_der, &self.root_der].map(|der| pem(der));
        let inner = [
            qe_report.as_slice(),
            &self.platform.sign(&qe_report),
            &32u16.to_le_bytes(),
            &qe_auth,
            &5u16.to_le_bytes(),
            &sized(chain.concat().as_bytes()),
        ]
        .concat();
        let section = [
            self.attestation.sign(statement).as_slice(),
            &attestation_key,
            &6u16.to_le_bytes(),
            &sized(&inner),
        ]
        .concat();
        [statement, &sized(&section)].concat()
    }

    /// Report of the simulated quoting enclave over the hash of the attestation key.
    fn qe_report(&self, bound: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        out.extend([SVN; 16]);
        out.extend([0; 4 + 28]);
        out.extend([0x11, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([0; 8]);
        out.extend(Sha256::digest(MODULE_ID));
        out.extend([0; 32]);
        out.extend(self.qe_signer);
        out.extend([0; 96]);
        out.extend(2u16.to_le_bytes());
        out.extend(QE_SVN.to_le_bytes());
        out.extend([0; 60]);
        out.extend(bound);
        out.extend([0; 32]);
        out
    }
}

/// A length of four bytes, then the bytes; quotes stay far below 4 GiB.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), bytes].concat()
}
