//! The parts of Intel's collateral on their own: their versions, and their signatures without a quote.
//!
//! A quote is judged by `dcap-qvl` together with its collateral. What is here serves the rule that collateral is not rolled back: it reads
//! which version each part is, and lets anybody hand in newer collateral for which there is no quote at hand.

use super::judge::IntelCollateral;
use crate::{
    claims::{Kind, UnixSeconds},
    der::unix_seconds,
    pem,
    reject::Reject,
    roots::{Anchor, RootGrade, TrustRoots},
    versions::{CollateralVersion, subject},
    x509::{Certificate, ChainRules, RevocationList, SignatureAlgorithm, VerifiedLinks, usage, verify_chain},
};
use serde::Deserialize;

const ALGORITHMS: &[SignatureAlgorithm] = &[SignatureAlgorithm::EcdsaSha256];
const EXPECTED: &str = "ECDSA P-256 with SHA-256";
/// The signer of TCB info and QE identity, under the root.
const SIGNER: ChainRules<'static> = ChainRules {
    min: 2,
    max: 2,
    algorithms: ALGORITHMS,
    expected: EXPECTED,
    critical: &[],
    key_usage: true,
    leaf_usage: true,
};

/// What is read of a TCB info.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfo {
    /// `TDX` or `SGX` from version 3 on.
    #[serde(default)]
    id: String,
    issue_date: String,
    next_update: String,
    fmspc: String,
    pce_id: String,
    tcb_evaluation_data_number: u32,
}

/// What is read of a QE identity.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentity {
    id: String,
    issue_date: String,
    next_update: String,
    tcb_evaluation_data_number: u32,
}

fn malformed(what: &'static str) -> Reject {
    Reject::Collateral {
        why: format!("{what} cannot be read"),
    }
}

/// `2024-05-16T15:03:35Z`, the one form that Intel's service writes.
fn date(text: &str) -> Result<UnixSeconds, Reject> {
    let read = || {
        let bytes = text.as_bytes();
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
        if bytes.len() != 20 || marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
            return None;
        }
        let number = |from: usize, to: usize| {
            let digits = bytes.get(from..to)?;
            digits.iter().try_fold(0u64, |sum, digit| {
                digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
            })
        };
        unix_seconds(
            number(0, 4)?,
            number(5, 7)?,
            number(8, 10)?,
            number(11, 13)?,
            number(14, 16)?,
            number(17, 19)?,
        )
    };
    read().ok_or_else(|| malformed("a date of TCB info or QE identity"))
}

/// Documents, lists and dates of one collateral, parsed and not verified.
struct Parts {
    tcb_info: TcbInfo,
    qe_identity: QeIdentity,
}

impl IntelCollateral {
    fn documents(&self) -> Result<Parts, Reject> {
        let parts = self.parts();
        Ok(Parts {
            tcb_info: serde_json::from_str(&parts.tcb_info).map_err(|_| malformed("the TCB info"))?,
            qe_identity: serde_json::from_str(&parts.qe_identity).map_err(|_| malformed("the QE identity"))?,
        })
    }

    /// The version of each part, under the root with this SHA-256: TCB info, QE identity, and both revocation lists. Nothing is verified.
    ///
    /// # Errors
    /// [`Reject`] for parts that cannot be read.
    pub fn versions(&self, root: &[u8; 32]) -> Result<Vec<CollateralVersion>, Reject> {
        let Parts { tcb_info, qe_identity } = self.documents()?;
        let version = |part, what: &[&[u8]], number: u64, issued_at: UnixSeconds| CollateralVersion {
            part,
            subject: subject(root, what),
            number,
            issued_at,
        };
        let upper = |text: &str| text.to_ascii_uppercase();
        let mut versions = vec![
            version(
                "TCB info",
                &[
                    b"tcb-info",
                    tcb_info.id.as_bytes(),
                    upper(&tcb_info.fmspc).as_bytes(),
                    upper(&tcb_info.pce_id).as_bytes(),
                ],
                tcb_info.tcb_evaluation_data_number.into(),
                date(&tcb_info.issue_date)?,
            ),
            version(
                "QE identity",
                &[b"qe-identity", qe_identity.id.as_bytes()],
                qe_identity.tcb_evaluation_data_number.into(),
                date(&qe_identity.issue_date)?,
            ),
        ];
        for (part, raw) in [
            ("revocation list of the root", &self.parts().root_ca_crl),
            ("revocation list of platforms", &self.parts().pck_crl),
        ] {
            let list = RevocationList::parse(raw)?;
            versions.push(version(part, &[b"crl", list.issuer], list.number, list.this_update));
        }
        Ok(versions)
    }

    /// Verifies every part without a quote: signatures up to a pinned root of `kind`, dates, and that no signer is revoked. The versions.
    ///
    /// # Errors
    /// The first failure.
    pub fn verify_parts<G: RootGrade>(
        &self,
        kind: Kind,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Vec<CollateralVersion>, Reject> {
        let parts = self.parts();
        let Parts { tcb_info, qe_identity } = self.documents()?;
        let root_list = RevocationList::parse(&parts.root_ca_crl)?;
        let mut anchor = None;
        for (chain, text, signature, what) in [
            (
                &parts.tcb_info_issuer_chain,
                &parts.tcb_info,
                &parts.tcb_info_signature,
                "the TCB info",
            ),
            (
                &parts.qe_identity_issuer_chain,
                &parts.qe_identity,
                &parts.qe_identity_signature,
                "the QE identity",
            ),
        ] {
            let ders = chain_of(chain)?;
            let found = pinned(kind, &ders, roots)?;
            let certificates = parse(&ders)?;
            verify_chain(&certificates, &SIGNER, at, &VerifiedLinks::default())?;
            let [signer, root] = certificates.as_slice() else {
                return Err(malformed("an issuer chain"));
            };
            root_list.verify(root, at)?;
            root_list.spares(signer, "the signer of TCB info or QE identity")?;
            if !signer.key.verifies_p256_fixed(text.as_bytes(), signature) {
                return Err(Reject::Signature { what });
            }
            anchor = Some(found);
        }
        let ders = chain_of(&parts.pck_crl_issuer_chain)?;
        pinned(kind, &ders, roots)?;
        let certificates = parse(&ders)?;
        let [authority, root] = certificates.as_slice() else {
            return Err(malformed("the issuer chain of the platform's revocation list"));
        };
        check_authority(authority, root, at)?;
        root_list.spares(authority, "the platform's authority")?;
        RevocationList::parse(&parts.pck_crl)?.verify(authority, at)?;
        for (issued, until, what) in [
            (&tcb_info.issue_date, &tcb_info.next_update, "the TCB info"),
            (&qe_identity.issue_date, &qe_identity.next_update, "the QE identity"),
        ] {
            if at < date(issued)? {
                return Err(Reject::CollateralNotYetValid { what });
            }
            if at >= date(until)? {
                return Err(Reject::CollateralExpired { what });
            }
        }
        let anchor = anchor.ok_or_else(|| malformed("an issuer chain"))?;
        self.versions(anchor.sha256())
    }
}

fn chain_of(text: &str) -> Result<Vec<Vec<u8>>, Reject> {
    pem::certificates(text.as_bytes(), SIGNER.max)
}

fn parse(ders: &[Vec<u8>]) -> Result<Vec<Certificate<'_>>, Reject> {
    ders.iter().map(|der| Certificate::parse(der)).collect()
}

fn pinned<'r, G: RootGrade>(kind: Kind, ders: &[Vec<u8>], roots: &'r TrustRoots<G>) -> Result<&'r Anchor, Reject> {
    ders.last()
        .and_then(|der| roots.find(kind, der))
        .ok_or(Reject::RootNotPinned { kind: kind.as_str() })
}

/// The authority that signs the platform's list, directly under the root.
fn check_authority(authority: &Certificate<'_>, root: &Certificate<'_>, at: UnixSeconds) -> Result<(), Reject> {
    const WHAT: &str = "the platform's authority";
    if authority.issuer != root.subject {
        return Err(Reject::ChainNames { what: WHAT });
    }
    if !ALGORITHMS.contains(&authority.algorithm) {
        return Err(Reject::CertAlgorithm {
            what: WHAT,
            expected: EXPECTED,
        });
    }
    if !authority.is_authority() {
        return Err(Reject::NotACa { what: WHAT });
    }
    if authority.key_usage.is_none_or(|bits| bits & usage::CRL_SIGN == 0) {
        return Err(Reject::KeyUsage {
            what: WHAT,
            needed: "cRLSign",
        });
    }
    authority.check_validity(WHAT, at)?;
    root.check_validity("Intel's root", at)?;
    if !authority.is_signed_by(&root.key) {
        return Err(Reject::CertSignature { what: WHAT });
    }
    Ok(())
}
