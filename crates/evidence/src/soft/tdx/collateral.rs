//! Collateral of the simulated platform: TCB info, QE identity and both revocation lists.

use super::{SVN, SoftTdx, TDX_FMSPC};
use crate::{
    claims::{TcbStatus, UnixSeconds},
    dcap::IntelCollateral,
    soft::encode::{pem, rfc3339},
};
use dcap_qvl::QuoteCollateralV3;
use serde_json::{Value, json};

/// What collateral says. Public so that tests can make every wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxCollateralSpec {
    /// When all parts are issued.
    pub issued: UnixSeconds,
    /// From this second on all parts are stale.
    pub next_update: UnixSeconds,
    /// Evaluation number.
    pub eval_number: u32,
    /// Platform family; the platform's own is [`TDX_FMSPC`].
    pub fmspc: [u8; 6],
    /// Version that the one TCB level asks for, of every component; the platform has 1.
    pub svn: u8,
    /// Status at that level; a word that Intel does not use makes collateral that nothing accepts.
    pub status: TcbStatus,
    /// Advisories at that level.
    pub advisories: Vec<String>,
    /// Version that the quoting enclave must have; the simulated one has 4.
    pub qe_svn: u16,
    /// Whether the platform's certificate is on its authority's revocation list.
    pub platform_revoked: bool,
    /// Whether the authority is on the root's revocation list.
    pub authority_revoked: bool,
}

impl TdxCollateralSpec {
    /// Collateral under which the platform is up to date.
    #[must_use]
    pub const fn new(issued: UnixSeconds, next_update: UnixSeconds) -> Self {
        Self {
            issued,
            next_update,
            eval_number: 1,
            fmspc: TDX_FMSPC,
            svn: SVN,
            status: TcbStatus::UpToDate,
            advisories: Vec::new(),
            qe_svn: super::QE_SVN,
            platform_revoked: false,
            authority_revoked: false,
        }
    }

    fn tcb_info(&self) -> Value {
        let component = |svn: u8| json!({ "svn": svn });
        let all = |_| component(self.svn);
        let sgx: Vec<Value> = (0..16).map(all).collect();
        // The second one is the version of the TDX module: 0 in the quote, so that no module identity is looked for.
        let tdx: Vec<Value> = (0..16)
            .map(|at| component(if at == 1 { 0 } else { self.svn }))
            .collect();
        json!({
            "id": "TDX",
            "version": 3,
            "issueDate": rfc3339(self.issued),
            "nextUpdate": rfc3339(self.next_update),
            "fmspc": hex::encode_upper(self.fmspc),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": self.eval_number,
            "tdxModule": {
                "mrsigner": "0".repeat(96),
                "attributes": "0".repeat(16),
                "attributesMask": "F".repeat(16),
            },
            "tcbLevels": [{
                "tcb": { "sgxtcbcomponents": sgx, "pcesvn": self.svn, "tdxtcbcomponents": tdx },
                "tcbDate": rfc3339(self.issued),
                "tcbStatus": self.status.as_str(),
                "advisoryIDs": self.advisories,
            }],
        })
    }

    fn qe_identity(&self, signer: &[u8; 32]) -> Value {
        json!({
            "id": "TD_QE",
            "version": 2,
            "issueDate": rfc3339(self.issued),
            "nextUpdate": rfc3339(self.next_update),
            "tcbEvaluationDataNumber": self.eval_number,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": hex::encode_upper(signer),
            "isvprodid": 2,
            "tcbLevels": [{
                "tcb": { "isvsvn": self.qe_svn },
                "tcbDate": rfc3339(self.issued),
                "tcbStatus": "UpToDate",
            }],
        })
    }
}

impl SoftTdx {
    /// Collateral, signed by this platform's own infrastructure.
    #[must_use]
    pub fn collateral(&self, spec: &TdxCollateralSpec) -> IntelCollateral {
        let tcb_info = spec.tcb_info().to_string();
        let qe_identity = spec.qe_identity(&self.qe_signer).to_string();
        let signers = [pem(&self.signer_der), pem(&self.root_der)].concat();
        let listed = |revoked: bool, serial: u8| if revoked { vec![serial] } else { Vec::new() };
        let list = |issuer: &super::Identity, serials: &[u8]| issuer.revoke(serials, spec.issued, spec.next_update);
        IntelCollateral::from_parts(QuoteCollateralV3 {
            pck_crl_issuer_chain: [pem(&self.authority_der), pem(&self.root_der)].concat(),
            root_ca_crl: list(&self.root, &listed(spec.authority_revoked, self.authority.serial)),
            pck_crl: list(&self.authority, &listed(spec.platform_revoked, self.platform.serial)),
            tcb_info_signature: self.signer.sign(tcb_info.as_bytes()).to_vec(),
            tcb_info_issuer_chain: signers.clone(),
            tcb_info,
            qe_identity_signature: self.signer.sign(qe_identity.as_bytes()).to_vec(),
            qe_identity_issuer_chain: signers,
            qe_identity,
            pck_certificate_chain: None,
        })
    }
}
