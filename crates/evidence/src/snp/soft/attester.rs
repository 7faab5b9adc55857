//! The attester: one simulated chip that signs reports of version 5.

use super::pki::{SoftEndorsement, SoftError, SoftPki};
use crate::snp::{Product, REPORT_BYTES, SIGNED_BYTES, SigningKey, SnpCollateral, Tcb};
use opg_primitives::domain::Tag;
use p384::ecdsa::{Signature, signature::Signer};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// Policy of the simulated guest: ABI 0.31, threads allowed, the bit that is always one.
const POLICY: u64 = 0x3_001f;
/// What the launch measurement of every simulated guest is the SHA-384 of.
const MEASURED: &[u8] = b"SOFTWARE-ATTESTER-NOT-HARDWARE";

/// A simulated chip with its endorsement key and certificate.
#[derive(Clone)]
pub struct SoftSnp {
    endorsement: SoftEndorsement,
    key: p384::ecdsa::SigningKey,
    collateral: SnpCollateral,
}

impl std::fmt::Debug for SoftSnp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftSnp")
            .field("endorsement", &self.endorsement)
            .finish_non_exhaustive()
    }
}

impl SoftSnp {
    /// A chip with a VCEK, all from the seed.
    ///
    /// # Errors
    /// [`SoftError`].
    pub fn new(pki: &SoftPki, product: Product, seed: [u8; 32]) -> Result<Self, SoftError> {
        let mut chip_id = [0; 64];
        let digest = Sha512::new_with_prefix(Tag::SoftwareAttester.as_str())
            .chain_update("/snp/chip/")
            .chain_update(seed)
            .finalize();
        for (to, from) in chip_id.iter_mut().zip(digest.iter().take(product.chip_id_bytes())) {
            *to = *from;
        }
        let fmc = if product == Product::Turin { 1 } else { 0 };
        let tcb = Tcb {
            fmc,
            bootloader: 4,
            tee: 1,
            snp: 24,
            microcode: 84,
        };
        let validity = pki.validity();
        Self::with(
            pki,
            SoftEndorsement {
                key: SigningKey::Vcek,
                product,
                tcb,
                chip_id,
                validity,
            },
            seed,
        )
    }

    /// A chip with any endorsement.
    ///
    /// # Errors
    /// [`SoftError`].
    pub fn with(pki: &SoftPki, endorsement: SoftEndorsement, seed: [u8; 32]) -> Result<Self, SoftError> {
        let secret = Sha384::new_with_prefix(Tag::SoftwareAttester.as_str())
            .chain_update("/snp/key/")
            .chain_update(seed)
            .finalize();
        let key = p384::ecdsa::SigningKey::from_slice(&secret).map_err(|_| SoftError::Seed)?;
        let point = key.verifying_key().to_encoded_point(false);
        let certificate = pki.endorse(&endorsement, point.as_bytes())?;
        let authority = pki.authority(endorsement.product, endorsement.key)?;
        Ok(Self {
            endorsement,
            key,
            collateral: SnpCollateral::new(certificate, authority),
        })
    }

    /// Endorsement certificate and authority.
    #[must_use]
    pub const fn collateral(&self) -> &SnpCollateral {
        &self.collateral
    }

    /// The unsigned part of a report: version 5, no debug, VMPL 0.
    #[must_use]
    pub fn body(&self, report_data: [u8; 64]) -> [u8; SIGNED_BYTES] {
        let SoftEndorsement {
            key,
            product,
            tcb,
            chip_id,
            ..
        } = &self.endorsement;
        let tcb = tcb.encode(*product);
        let (family, model) = match product {
            Product::Milan => (0x19, 0x01),
            Product::Genoa => (0x19, 0x11),
            Product::Turin => (0x1a, 0x02),
        };
        let flags: u32 = if *key == SigningKey::Vlek { 1 << 2 } else { 0 };
        let chip = if *key == SigningKey::Vlek { [0; 64] } else { *chip_id };
        let firmware = [0x29, 55, 1, 0];
        let measurement = Sha384::digest(MEASURED);
        let report_id = Sha256::new_with_prefix(Tag::SoftwareAttester.as_str())
            .chain_update("/snp/report/")
            .chain_update(report_data)
            .finalize();
        let mut body = Body {
            bytes: [0; SIGNED_BYTES],
        };
        body.put(0x00, &5u32.to_le_bytes());
        body.put(0x08, &POLICY.to_le_bytes());
        body.put(0x34, &1u32.to_le_bytes());
        body.put(0x38, &tcb);
        body.put(0x40, &[0x25]);
        body.put(0x48, &flags.to_le_bytes());
        body.put(0x50, &report_data);
        body.put(0x90, &measurement);
        body.put(0x140, &report_id);
        body.put(0x160, &[0xff; 32]);
        body.put(0x180, &tcb);
        body.put(0x188, &[family, model, 1]);
        body.put(0x1a0, &chip);
        body.put(0x1e0, &tcb);
        body.put(0x1e8, &firmware);
        body.put(0x1ec, &firmware);
        body.put(0x1f0, &tcb);
        body.bytes
    }

    /// A report over 64 bytes of report data.
    #[must_use]
    pub fn quote(&self, report_data: [u8; 64]) -> Vec<u8> {
        self.sign(&self.body(report_data))
    }

    /// Signs any body, as firmware with other ideas about it would (RFC 6979: same body, same signature).
    #[must_use]
    pub fn sign(&self, body: &[u8; SIGNED_BYTES]) -> Vec<u8> {
        let signature: Signature = self.key.sign(body);
        let (r, s) = signature.split_bytes();
        let mut report = body.to_vec();
        for scalar in [r, s] {
            report.extend(scalar.iter().rev());
            report.extend([0; 24]);
        }
        report.resize(REPORT_BYTES, 0);
        report
    }
}

/// A report body under construction.
struct Body {
    bytes: [u8; SIGNED_BYTES],
}

impl Body {
    fn put(&mut self, at: usize, field: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    }
}
