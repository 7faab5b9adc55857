//! Registration of a keyset's evidence: what validators make of a submission (D13).
//!
//! [`judge`] is a pure function of the submission, the chain's policy, its roots and the timestamp of the block that holds
//! the submission, so every validator comes to the same verdict.

use crate::{
    Anchor, Claims, EvidenceVerifier, Expected, Kind, Policy, Reject, RootGrade, TrustRoots, UnixSeconds, Verdict,
    binding::Binding,
    container::{Companions, Unwrapped},
    dcap::{self, KnownSignatures, SgxVerifier, TdxVerifier},
    nitro::NitroVerifier,
    roots::{Development, Hardware},
    snp::{self, SnpVerifier},
    versions::CollateralVersion,
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
/// Most versions that one submission brings.
pub const MAX_VERSIONS: usize = 4;
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
    /// Versions of the collateral, all of them verified. It is for whoever keeps the newest ones to refuse older ones
    /// ([`CollateralVersion::is_older_than`]).
    pub versions: Vec<CollateralVersion>,
}

/// Signatures of chains and collateral that were found good before. With it a judgement costs less and is otherwise the same; bounded.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    nitro: NitroVerifier,
    snp: SnpVerifier,
    intel: KnownSignatures,
}

/// Judges a submission at the time `at`.
///
/// # Errors
/// The first check that refuses it; its code stands on chain.
pub fn judge(
    submission: &Submission<'_>,
    rules: &Rules,
    memory: &mut Memory,
    at: UnixSeconds,
) -> Result<Registered, Reject> {
    let policy = rules.policy.as_ref().ok_or(Reject::NoPolicy)?;
    let (claims, grade, versions) = answer(submission, Some(policy), rules, memory, at)?;
    let validity = policy.validity_s.unwrap_or(MAX_VALIDITY_S).min(MAX_VALIDITY_S);
    Ok(Registered {
        grade,
        measurement: measurement_key(&claims),
        signer: signer_key(&claims),
        expires_at: at.saturating_add(validity),
        versions,
        claims,
    })
}

/// Verifies collateral that comes without a document ([`encode_collateral`]): Intel's, or lists of AMD's roots. The versions of its parts, at
/// most [`MAX_VERSIONS`].
///
/// # Errors
/// The first check that refuses it; nothing in it may be unverified.
pub fn judge_collateral(
    kind: u8,
    collateral: &[u8],
    rules: &Rules,
    at: UnixSeconds,
) -> Result<Vec<CollateralVersion>, Reject> {
    fn under<G: RootGrade>(
        kind: Kind,
        beside: &Companions,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Vec<CollateralVersion>, Reject> {
        if let (Kind::Tdx | Kind::Sgx, Some(intel)) = (kind, &beside.intel) {
            return intel.verify_parts(kind, roots, at);
        }
        beside
            .lists
            .iter()
            .map(|list| snp::verify_list(list, roots, at))
            .collect()
    }
    let beside = decode_collateral(collateral)?;
    let (kind, fits) = match named(kind)? {
        kind @ (Kind::Tdx | Kind::Sgx) => (kind, beside.intel.is_some() && beside.lists.is_empty()),
        Kind::Snp => (
            Kind::Snp,
            beside.intel.is_none() && (1..=MAX_VERSIONS).contains(&beside.lists.len()),
        ),
        other => return Err(Reject::KindNotAllowed { got: other.as_str() }),
    };
    if !fits || !beside.certificates.is_empty() {
        return Err(Reject::NoCollateral {
            what: "Intel's collateral, or one to four revocation lists of AMD's roots, and nothing else,",
        });
    }
    match (&rules.development, under(kind, &beside, &rules.hardware, at)) {
        (Some(development), Err(Reject::RootNotPinned { .. })) => under(kind, &beside, development, at),
        (_, found) => found,
    }
}

fn named(kind: u8) -> Result<Kind, Reject> {
    Kind::ALL
        .into_iter()
        .find(|known| known.code() == kind && *known != Kind::NvidiaGpu)
        .ok_or(Reject::KindNotAllowed { got: "this number" })
}

/// What everybody can check without the chain's policy: signatures, chain and collateral at the time `at`, that the document
/// binds the statement, and that the guest is not in debug mode. Grade by the roots.
///
/// # Errors
/// The first check that refuses it.
pub fn examine(submission: &Submission<'_>, rules: &Rules, at: UnixSeconds) -> Result<(Claims, Grade), Reject> {
    let (claims, grade, _) = answer(submission, None, rules, &mut Memory::default(), at)?;
    Ok((claims, grade))
}

type Answer = (Claims, Grade, Vec<CollateralVersion>);

fn answer(
    submission: &Submission<'_>,
    policy: Option<&Policy>,
    rules: &Rules,
    memory: &mut Memory,
    at: UnixSeconds,
) -> Result<Answer, Reject> {
    let kind = named(submission.kind)?;
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
    match (&rules.development, question.answer(&rules.hardware, memory)) {
        // Only a foreign root leads to the other set: what is wrong with a vendor's document stays its verdict.
        (Some(development), Err(Reject::RootNotPinned { .. })) => question.answer(development, memory),
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
    fn answer<G: RootGrade>(&self, roots: &TrustRoots<G>, memory: &mut Memory) -> Result<Answer, Reject> {
        let Unwrapped {
            document, companions, ..
        } = &self.unwrapped;
        // Only what vendors signed is remembered, so that strangers cannot fill the memory, also not with guests that the policy refuses.
        let (verdict, versions) = match self.kind {
            Kind::Nitro => (memory.nitro.remember(document, roots, self.at)?, Vec::new()),
            Kind::Tdx | Kind::Sgx => match companions.intel.clone() {
                Some(intel) => {
                    let mut intel = intel.with_known(std::mem::take(&mut memory.intel).with_room());
                    let claims = intel.remember(self.kind, document, roots, self.at);
                    memory.intel = intel.known().clone();
                    let versions = dcap::versions(self.kind, document, &intel, roots);
                    (Verdict::new(claims?, roots), versions?)
                }
                // Refused, with the reason that the quote itself gives if there is one.
                None if self.kind == Kind::Tdx => (TdxVerifier.verify(document, &None, roots, self.at)?, Vec::new()),
                None => (SgxVerifier.verify(document, &None, roots, self.at)?, Vec::new()),
            },
            Kind::Snp => {
                let beside = companions.snp()?;
                let verdict = memory.snp.verify(document, &beside, roots, self.at)?;
                memory.snp.remember(&beside, roots, self.at)?;
                (verdict, SnpVerifier::versions(&beside, roots)?)
            }
            Kind::NvidiaGpu => return Err(Reject::KindNotAllowed { got: "gpu" }),
        };
        companions.check(verdict.claims())?;
        let expected = Expected {
            bound: Some(self.bound),
            ..Expected::default()
        };
        let claims = match self.policy {
            Some(policy) => policy.judge(verdict, &expected, self.at)?.claims().clone(),
            None => {
                let claims = verdict.into_claims();
                if claims.debug {
                    return Err(Reject::DebugMode);
                }
                expected.check(&claims)?;
                claims
            }
        };
        Ok((claims, G::GRADE, versions))
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
