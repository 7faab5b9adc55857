//! Registration of a keyset's evidence: what validators make of a submission (D13).
//!
//! [`judge`] is a pure function of the submission, the chain's policy, its roots and the timestamp of the block that holds
//! the submission, so every validator comes to the same verdict.

use crate::{
    Anchor, Claims, EvidenceVerifier, Expected, Kind, Policy, Reject, RootGrade, TrustRoots, UnixSeconds,
    binding::Binding,
    container::{Companions, Unwrapped},
    dcap::{SgxVerifier, TdxVerifier},
    nitro::NitroVerifier,
    roots::{Development, Hardware},
    snp::SnpVerifier,
};
use opg_primitives::{
    cbor::{Encoder, Limits, Value, decode_strict},
    hash::keccak,
    mode::Grade,
};

/// Longest time for which registered evidence counts, seconds (D13).
pub const MAX_VALIDITY_S: u64 = 12 * 3_600;
/// Most bytes of collateral in a submission: the contract's bound.
pub const MAX_COLLATERAL: usize = 65_536;
/// Most files in it.
const MAX_FILES: usize = 2 * crate::container::MAX_COMPANIONS + 4;

/// What a node submits.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Number of the kind ([`Kind::code`]).
    pub kind: u8,
    /// What the document has to bind.
    pub binding: &'a Binding,
    /// The document.
    pub document: &'a [u8],
    /// [`encode_collateral`] of what belongs to it.
    pub collateral: &'a [u8],
}

/// What the chain judges by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The policy; `None` accepts nothing.
    pub policy: Option<Policy>,
    /// The vendors' roots.
    pub hardware: TrustRoots<Hardware>,
    /// Roots of software attesters, on a development chain only (D9).
    pub development: Option<TrustRoots<Development>>,
}

impl Rules {
    /// The rules of a chain before its policy is read. `roots` are kind, label and certificate (DER) of the software attesters
    /// that its genesis names; they count on a development chain only, and what is no root of a known kind does not count.
    pub fn new<'a>(development: bool, roots: impl IntoIterator<Item = (&'a str, &'a str, &'a [u8])>) -> Self {
        let anchors: Vec<Anchor> = roots
            .into_iter()
            .filter_map(|(kind, label, der)| Some(Anchor::new(kind.parse().ok()?, label.to_owned(), der.to_vec())))
            .collect();
        Self {
            policy: None,
            hardware: TrustRoots::pinned(),
            development: (development && !anchors.is_empty()).then(|| TrustRoots::development(anchors)),
        }
    }
}

/// Accepted evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// What the document says.
    pub claims: Claims,
    /// By the roots that it verified under.
    pub grade: Grade,
    /// Hash of what runs there, see [`measurement_key`].
    pub measurement: [u8; 32],
    /// Hash of what signed, see [`signer_key`].
    pub signer: [u8; 32],
    /// Last second at which receipts may refer to it.
    pub expires_at: UnixSeconds,
}

/// Judges a submission at the time `at`.
///
/// # Errors
/// The first check that refuses it; its code stands on chain.
pub fn judge(submission: &Submission<'_>, rules: &Rules, at: UnixSeconds) -> Result<Registered, Reject> {
    let policy = rules.policy.as_ref().ok_or(Reject::NoPolicy)?;
    let (claims, grade) = answer(submission, Some(policy), rules, at)?;
    let validity = policy.validity_s.unwrap_or(MAX_VALIDITY_S).min(MAX_VALIDITY_S);
    Ok(Registered {
        grade,
        measurement: measurement_key(&claims),
        signer: signer_key(&claims),
        expires_at: at.saturating_add(validity),
        claims,
    })
}

/// What everybody can check without the chain's policy: signatures, chain and collateral at the time `at`, that the document
/// binds the statement, and that the guest is not in debug mode. Grade by the roots.
///
/// # Errors
/// The first check that refuses it.
pub fn examine(submission: &Submission<'_>, rules: &Rules, at: UnixSeconds) -> Result<(Claims, Grade), Reject> {
    answer(submission, None, rules, at)
}

fn answer(
    submission: &Submission<'_>,
    policy: Option<&Policy>,
    rules: &Rules,
    at: UnixSeconds,
) -> Result<(Claims, Grade), Reject> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.code() == submission.kind && *kind != Kind::NvidiaGpu)
        .ok_or(Reject::KindNotAllowed { got: "this number" })?;
    let bound = submission.binding.digest()?;
    let question = Question {
        kind,
        policy,
        bound: &bound,
        unwrapped: Unwrapped {
            document: submission.document.to_vec(),
            companions: decode_collateral(submission.collateral)?,
            ..Unwrapped::default()
        },
        at,
    };
    match (&rules.development, question.answer(&rules.hardware)) {
        // Only a foreign root leads to the other set: what is wrong with a vendor's document stays its verdict.
        (Some(development), Err(Reject::RootNotPinned { .. })) => question.answer(development),
        (_, found) => found,
    }
}

struct Question<'a> {
    kind: Kind,
    policy: Option<&'a Policy>,
    bound: &'a [u8; 32],
    unwrapped: Unwrapped,
    at: UnixSeconds,
}

impl Question<'_> {
    fn answer<G: RootGrade>(&self, roots: &TrustRoots<G>) -> Result<(Claims, Grade), Reject> {
        let beside = &self.unwrapped.companions;
        match self.kind {
            Kind::Nitro => self.with(&NitroVerifier::new(), (), roots),
            Kind::Tdx => self.with(&TdxVerifier, beside.intel.clone(), roots),
            Kind::Sgx => self.with(&SgxVerifier, beside.intel.clone(), roots),
            Kind::Snp => self.with(&SnpVerifier::new(), beside.snp()?, roots),
            Kind::NvidiaGpu => Err(Reject::KindNotAllowed { got: "gpu" }),
        }
    }

    fn with<V: EvidenceVerifier<Collateral: Sized>, G: RootGrade>(
        &self,
        verifier: &V,
        collateral: V::Collateral,
        roots: &TrustRoots<G>,
    ) -> Result<(Claims, Grade), Reject> {
        let verdict = verifier.verify(&self.unwrapped.document, &collateral, roots, self.at)?;
        self.unwrapped.companions.check(verdict.claims())?;
        let expected = Expected {
            bound: Some(self.bound),
            ..Expected::default()
        };
        let claims = match self.policy {
            Some(policy) => policy.judge(verdict, &expected, self.at)?.claims().clone(),
            None => {
                let claims = verdict.claims().clone();
                if claims.debug {
                    return Err(Reject::DebugMode);
                }
                expected.check(&claims)?;
                claims
            }
        };
        Ok((claims, G::GRADE))
    }
}

/// What can be revoked about the software: `keccak256` of the registers that identify it, one after the other. Nitro `pcr0`
/// to `pcr2`, TDX `mrtd` and `rtmr0` to `rtmr2`, SGX `mrenclave`, SEV-SNP `measurement`.
#[must_use]
pub fn measurement_key(claims: &Claims) -> [u8; 32] {
    let registers: &[&str] = match claims.kind {
        Kind::Nitro => &["pcr0", "pcr1", "pcr2"],
        Kind::Tdx => &["mrtd", "rtmr0", "rtmr1", "rtmr2"],
        Kind::Sgx => &["mrenclave"],
        Kind::Snp => &["measurement"],
        Kind::NvidiaGpu => &[],
    };
    let values = registers.iter().filter_map(|name| claims.measurement.get(name));
    keccak(&values.collect::<Vec<_>>().concat()).0
}

/// What can be revoked about the hardware: `keccak256` of [`crate::claims::Signer::revocation_key`].
#[must_use]
pub fn signer_key(claims: &Claims) -> [u8; 32] {
    keccak(claims.signer.revocation_key().as_bytes()).0
}

/// What belongs to a document, as one deterministic CBOR list of files: certificates and lists in DER, Intel's collateral
/// in JSON. TPM quotes and event logs are not part of a registration.
///
/// # Errors
/// [`Reject::Collateral`] or [`Reject::TooLong`].
pub fn encode_collateral(companions: &Companions) -> Result<Vec<u8>, Reject> {
    let intel = companions.intel.as_ref().map(|intel| intel.to_json()).transpose()?;
    let files: Vec<&[u8]> = companions
        .certificates
        .iter()
        .chain(&companions.lists)
        .chain(&intel)
        .map(Vec::as_slice)
        .collect();
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let mut cbor = Encoder::with_capacity(files.iter().map(|file| file.len() + 5).sum::<usize>() + 5);
    cbor.array(files.len());
    for file in files {
        cbor.bytes(file);
    }
    let bytes = cbor.finish();
    if bytes.len() > MAX_COLLATERAL {
        return Err(Reject::TooLong {
            what: "the collateral",
            limit: MAX_COLLATERAL,
            got: bytes.len(),
        });
    }
    Ok(bytes)
}

/// Reads [`encode_collateral`]; nothing for no bytes.
///
/// # Errors
/// [`Reject`] for another form, or a file that nothing recognises.
pub fn decode_collateral(bytes: &[u8]) -> Result<Companions, Reject> {
    let mut companions = Companions::default();
    if bytes.is_empty() {
        return Ok(companions);
    }
    let limits = Limits {
        bytes: MAX_COLLATERAL,
        depth: 2,
        items: MAX_FILES + 1,
        tags: false,
    };
    let malformed = |why| Reject::Malformed {
        what: "the collateral",
        at: 0,
        why,
    };
    let Ok(Value::Array(files)) = decode_strict(bytes, limits) else {
        return Err(malformed("not a list of files in deterministic CBOR"));
    };
    for file in &files {
        let Value::Bytes(file) = file else {
            return Err(malformed("a file is no byte string"));
        };
        if companions.add(file)?.is_none() {
            return Err(malformed("a file is nothing that a verifier uses"));
        }
    }
    Ok(companions)
}
