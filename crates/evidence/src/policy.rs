//! What a relying party accepts. A policy never makes a verdict, it only refuses one.

use crate::{
    claims::{Claims, HexBytes, Kind, TcbStatus, UnixSeconds},
    reject::Reject,
    roots::{RootGrade, Verdict},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Rules for evidence of every kind, in the form that governance writes and `--policy FILE` reads (JSON; unknown fields
/// are refused).
///
/// The default asks for: no debug guest (never negotiable, so not a field), VMPL 0, any measurement, TCB status
/// UpToDate, dynamic platforms allowed, no nonce or binding. Roots are not a matter of policy: the verdict's type says
/// which they were.
///
/// ```
/// use opg_evidence::{Kind, Policy};
///
/// let policy: Policy = serde_json::from_str(r#"{"kinds": ["nitro"], "max_age_s": 300}"#)?;
/// assert!(policy.kinds.contains(&Kind::Nitro));
/// assert_eq!(policy.max_vmpl, 0);
/// assert!(serde_json::from_str::<Policy>(r#"{"allow_debug": true}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Kinds accepted; empty accepts every kind.
    pub kinds: BTreeSet<Kind>,
    /// Accepted measurements by kind: each entry is a set of registers that must all be present and equal. A kind that
    /// is absent here accepts any measurement; a kind with an empty list accepts none.
    pub measurements: BTreeMap<Kind, Vec<BTreeMap<String, HexBytes>>>,
    /// Least version number by kind and component (names: [`crate::claims::TcbVerdict::components`]); a component that
    /// the document lacks counts as 0.
    pub min_tcb: BTreeMap<Kind, BTreeMap<String, u64>>,
    /// Vendor statuses accepted.
    pub tcb_statuses: BTreeSet<TcbStatus>,
    /// Advisories accepted with a status other than UpToDate; each that applies must be here.
    pub accepted_advisories: BTreeSet<String>,
    /// Advisories refused under every status.
    pub denied_advisories: BTreeSet<String>,
    /// Least evaluation number of Intel's collateral, against a roll-back to older TCB data.
    pub min_eval_number: Option<u32>,
    /// Highest SNP privilege level accepted.
    pub max_vmpl: u8,
    /// Whether a VLEK (a cloud provider's shared chip key) may sign an SNP report.
    pub allow_vlek: bool,
    /// Whether Intel's dynamic platforms are accepted.
    pub allow_dynamic_platform: bool,
    /// Whether threads may share a core. Where false, a document that does not say is refused too.
    pub allow_smt: bool,
    /// Whether SNP guests with a migration agent are accepted.
    pub allow_migration: bool,
    /// Whether SNP firmware that is not committed is accepted.
    pub allow_provisional_firmware: bool,
    /// Greatest age of a document in seconds; a kind without a date of its own is refused where this is set.
    pub max_age_s: Option<u64>,
    /// For how many seconds registered evidence counts, at most and by default 12 hours; for a chain's policy only
    /// ([`crate::registration`]).
    pub validity_s: Option<u64>,
    /// Revoked signers, see [`crate::claims::Signer::revocation_key`].
    pub revoked_signers: BTreeSet<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            kinds: BTreeSet::new(),
            measurements: BTreeMap::new(),
            min_tcb: BTreeMap::new(),
            tcb_statuses: BTreeSet::from([TcbStatus::UpToDate]),
            accepted_advisories: BTreeSet::new(),
            denied_advisories: BTreeSet::new(),
            min_eval_number: None,
            max_vmpl: 0,
            allow_vlek: true,
            allow_dynamic_platform: true,
            allow_smt: true,
            allow_migration: false,
            allow_provisional_firmware: true,
            max_age_s: None,
            validity_s: None,
            revoked_signers: BTreeSet::new(),
        }
    }
}

/// What one request for evidence expects besides the policy. `None` asks for nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected<'a> {
    /// Nonce handed to the attester.
    pub nonce: Option<&'a [u8]>,
    /// Digest or report data that the document must bind. A value shorter than the document's field must be followed by
    /// zeros there.
    pub bound: Option<&'a [u8]>,
    /// Public key that the document must carry (Nitro).
    pub public_key: Option<&'a [u8]>,
}

/// A verdict that a policy has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<G: RootGrade>(Verdict<G>);

impl<G: RootGrade> Accepted<G> {
    /// The verdict.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict<G> {
        &self.0
    }

    /// What the document says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        self.0.claims()
    }
}

impl Policy {
    /// Judges a verdict at the time `at`, the same that it was made for.
    ///
    /// # Errors
    /// The first rule that refuses it (codes 5xx and 6xx).
    pub fn judge<G: RootGrade>(
        &self,
        verdict: Verdict<G>,
        expected: &Expected<'_>,
        at: UnixSeconds,
    ) -> Result<Accepted<G>, Reject> {
        let claims = verdict.claims();
        self.platform(claims)?;
        self.measurement(claims)?;
        self.age(claims, at)?;
        expected.check(claims)?;
        Ok(Accepted(verdict))
    }

    fn platform(&self, claims: &Claims) -> Result<(), Reject> {
        if !self.kinds.is_empty() && !self.kinds.contains(&claims.kind) {
            return Err(Reject::KindNotAllowed {
                got: claims.kind.as_str(),
            });
        }
        if claims.debug {
            return Err(Reject::DebugMode);
        }
        if self.revoked_signers.contains(&claims.signer.revocation_key()) {
            return Err(Reject::SignerRevoked);
        }
        if let Some(got) = claims.vmpl.filter(|got| *got > u32::from(self.max_vmpl)) {
            return Err(Reject::Vmpl {
                max: self.max_vmpl,
                got,
            });
        }
        if !self.allow_vlek && matches!(claims.signer, crate::claims::Signer::Vlek(_)) {
            return Err(Reject::Vlek);
        }
        if !self.allow_dynamic_platform && claims.tcb.dynamic_platform != Some(false) && is_intel(claims.kind) {
            return Err(Reject::DynamicPlatform);
        }
        if !self.allow_smt && claims.smt != Some(false) {
            return Err(Reject::Smt);
        }
        if !self.allow_migration && claims.migratable == Some(true) {
            return Err(Reject::Migration);
        }
        if !self.allow_provisional_firmware && claims.provisional_firmware == Some(true) {
            return Err(Reject::ProvisionalFirmware);
        }
        self.tcb(claims)
    }

    fn tcb(&self, claims: &Claims) -> Result<(), Reject> {
        let tcb = &claims.tcb;
        let status = tcb.status;
        if status == TcbStatus::RimNotChecked && !self.tcb_statuses.contains(&status) {
            return Err(Reject::RimNotChecked);
        }
        if status != TcbStatus::NotApplicable && !self.tcb_statuses.contains(&status) {
            return Err(Reject::TcbStatus { got: status.as_str() });
        }
        let denied = |id: &String| {
            self.denied_advisories.contains(id)
                || (status != TcbStatus::UpToDate && !self.accepted_advisories.contains(id))
        };
        if let Some(id) = tcb.advisories.iter().find(|id| denied(id)) {
            return Err(Reject::Advisory { id: id.clone() });
        }
        if let Some(minimum) = self.min_eval_number.filter(|_| is_intel(claims.kind)) {
            let got = tcb.eval_number.unwrap_or(0);
            if got < minimum {
                return Err(Reject::EvaluationNumber { minimum, got });
            }
        }
        for (component, minimum) in self.min_tcb.get(&claims.kind).into_iter().flatten() {
            let got = tcb.components.get(component).copied().unwrap_or(0);
            if got < *minimum {
                return Err(Reject::MinTcb {
                    component: component.clone(),
                    minimum: *minimum,
                    got,
                });
            }
        }
        Ok(())
    }

    fn measurement(&self, claims: &Claims) -> Result<(), Reject> {
        let Some(sets) = self.measurements.get(&claims.kind) else {
            return Ok(());
        };
        // An entry without registers would match everything; it matches nothing.
        let matches = |set: &BTreeMap<String, HexBytes>| {
            !set.is_empty()
                && set
                    .iter()
                    .all(|(name, value)| claims.measurement.get(name) == Some(value.as_ref()))
        };
        if sets.iter().any(matches) {
            return Ok(());
        }
        let absent = sets
            .iter()
            .flat_map(BTreeMap::keys)
            .find(|name| claims.measurement.get(name).is_none());
        Err(match absent {
            Some(register) => Reject::RegisterAbsent {
                register: register.clone(),
            },
            None => Reject::Measurement,
        })
    }

    fn age(&self, claims: &Claims, at: UnixSeconds) -> Result<(), Reject> {
        if let Some(issued) = claims.issued_at.filter(|issued| *issued > at) {
            // Clocks of a hypervisor and of a block differ by a little; the certificate's own start bounds the rest.
            if issued - at > MAX_SKEW_S {
                return Err(Reject::FromTheFuture { issued, at });
            }
        }
        let Some(max) = self.max_age_s else {
            return Ok(());
        };
        let issued = claims.issued_at.ok_or(Reject::NoDate)?;
        let got = at.saturating_sub(issued);
        if got > max {
            Err(Reject::TooOld { max, got })
        } else {
            Ok(())
        }
    }
}

/// Most seconds by which a document may be ahead of the verdict's time.
pub const MAX_SKEW_S: u64 = 60;

const fn is_intel(kind: Kind) -> bool {
    matches!(kind, Kind::Tdx | Kind::Sgx)
}

impl Expected<'_> {
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), Reject> {
        if let Some(wanted) = self.nonce {
            match &claims.nonce {
                None => return Err(Reject::NonceAbsent),
                Some(nonce) if nonce.as_ref() != wanted => return Err(Reject::NonceMismatch),
                Some(_) => {}
            }
        }
        if let Some(wanted) = self.bound {
            let bound = claims.bound.as_ref();
            if bound.iter().all(|byte| *byte == 0) {
                return Err(Reject::BindingAbsent);
            }
            let rest = bound.strip_prefix(wanted).ok_or(Reject::BindingMismatch)?;
            // Quotes have a fixed field, padded with zeros; a Nitro document has exactly what was put in.
            if wanted.is_empty() || (claims.kind == Kind::Nitro && !rest.is_empty()) || rest.iter().any(|b| *b != 0) {
                return Err(Reject::BindingMismatch);
            }
        }
        if let Some(wanted) = self.public_key
            && claims.public_key.as_ref().map(AsRef::as_ref) != Some(wanted)
        {
            return Err(Reject::PublicKeyMismatch);
        }
        Ok(())
    }
}
