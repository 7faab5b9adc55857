//! Every way in which evidence is refused: one variant per failure, with a stable number and name.
//!
//! Numbers and names are part of the protocol (fraud proofs and the registry carry them): a variant may be added, its
//! number is never changed and never used again. Hundreds group them: 1 form, 2 certificates, 3 signatures, 4 platform
//! and collateral, 5 policy, 6 binding.

macro_rules! rejects {
    ($($(#[$doc:meta])* $code:literal $name:literal $variant:ident
        $({ $($field:ident : $ty:ty = $what:literal),* $(,)? })? => $message:literal;)*) => {
        /// Why evidence is refused.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum Reject {
            $($(#[$doc])* #[error($message)] $variant $({ $(#[doc = $what] $field: $ty),* })?,)*
        }

        impl Reject {
            /// Number and name of every variant, in order.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($code, $name)),*];

            /// The stable number, as stored on chain.
            #[must_use]
            pub const fn code(&self) -> u16 {
                match self { $(Self::$variant { .. } => $code,)* }
            }

            /// The stable name, as shown beside the number.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }
        }
    };
}

rejects! {
    // ---- 1xx: form ------------------------------------------------------------------------------------------------
    /// More bytes than any real document has.
    101 "TOO_LONG" TooLong { what: &'static str = "Which part.", limit: usize = "Most bytes accepted.", got: usize = "Bytes found." }
        => "{what} is {got} bytes, at most {limit} are accepted";
    /// The input ends early, or a length points past its end.
    102 "TRUNCATED" Truncated { what: &'static str = "Which part.", at: usize = "Offset of the missing byte." }
        => "{what} ends early at byte {at}; hand in the whole document";
    /// Bytes follow the end of the structure.
    103 "TRAILING_BYTES" TrailingBytes { what: &'static str = "Which part.", at: usize = "Where the structure ends." }
        => "bytes follow the end of {what} at byte {at}; strip any wrapper";
    /// The encoding breaks its grammar (CBOR, DER, PEM, JSON or a fixed layout).
    104 "MALFORMED" Malformed { what: &'static str = "Which part.", at: usize = "Offset.", why: &'static str = "Broken rule." }
        => "{what} at byte {at} is malformed: {why}";
    /// A value is encoded in a longer form than needed.
    105 "NOT_CANONICAL" NotCanonical { what: &'static str = "Which part.", at: usize = "Offset." }
        => "{what} at byte {at} is not in its shortest form";
    /// A key, certificate or extension appears twice.
    106 "DUPLICATE" Duplicate { what: &'static str = "What appears twice." } => "{what} appears twice";
    /// A field that must be there is not.
    107 "MISSING_FIELD" MissingField { what: &'static str = "Field." } => "{what} is missing";
    /// A field that nobody defines.
    108 "UNKNOWN_FIELD" UnknownField { what: &'static str = "Where." } => "{what} has a field that the format does not define";
    /// A field's length is outside its limits.
    109 "FIELD_LENGTH" FieldLength { what: &'static str = "Field.", min: usize = "Least.", max: usize = "Most.", got: usize = "Found." }
        => "{what} has length {got}, expected {min} to {max}";
    /// A field holds a value outside its definition.
    110 "FIELD_VALUE" FieldValue { what: &'static str = "Field.", expected: &'static str = "What is defined.", got: u64 = "Found." }
        => "{what} is {got}, expected {expected}";
    /// Reserved bytes are set.
    111 "RESERVED_NOT_ZERO" ReservedNotZero { what: &'static str = "Structure.", at: usize = "Offset." }
        => "reserved byte {at} of {what} is not zero";
    /// A format version that is not known.
    112 "VERSION" Version { what: &'static str = "Structure.", expected: &'static str = "Known versions.", got: u64 = "Found." }
        => "{what} has version {got}, expected {expected}";
    /// A signature algorithm that the vendor does not use.
    113 "ALGORITHM" Algorithm { what: &'static str = "Where.", expected: &'static str = "The one allowed." }
        => "{what} uses another algorithm than {expected}";
    /// The unprotected COSE header carries something.
    114 "UNPROTECTED_HEADER" UnprotectedHeader => "the unprotected COSE header must be empty";
    /// Claims without a signature (a token with algorithm none).
    115 "UNSIGNED_TOKEN" UnsignedToken => "the document is a token without a signature: claims, never evidence";
    /// Nested deeper than any real document.
    116 "TOO_DEEP" TooDeep { what: &'static str = "Which part.", limit: usize = "Accepted depth." }
        => "{what} is nested deeper than {limit} levels";
    /// Evidence of another kind than the verifier's.
    117 "WRONG_KIND" WrongKind { expected: &'static str = "Kind verified here." } => "the document is not {expected} evidence";

    // ---- 2xx: certificates ----------------------------------------------------------------------------------------
    /// The chain does not end in a pinned root.
    201 "ROOT_NOT_PINNED" RootNotPinned { kind: &'static str = "Kind of evidence." }
        => "the {kind} chain does not end in a pinned root of this trust set";
    /// A certificate's last valid second is past.
    202 "CERT_EXPIRED" CertExpired { what: &'static str = "Which certificate.", not_after: u64 = "Last valid second.", at: u64 = "Time of the verdict." }
        => "{what} expired at {not_after}, judged at {at} (Unix seconds)";
    /// A certificate's first valid second is ahead.
    203 "CERT_NOT_YET_VALID" CertNotYetValid { what: &'static str = "Which certificate.", not_before: u64 = "First valid second.", at: u64 = "Time of the verdict." }
        => "{what} is valid from {not_before}, judged at {at} (Unix seconds)";
    /// A certificate's signature does not verify under its issuer.
    204 "CERT_SIGNATURE" CertSignature { what: &'static str = "Which certificate." }
        => "the signature of {what} does not verify under its issuer's key";
    /// A certificate names another issuer than the one above it.
    205 "CHAIN_NAMES" ChainNames { what: &'static str = "Which certificate." }
        => "{what} names another issuer than the certificate above it";
    /// The chain is too short to hold a leaf and its issuers.
    206 "CHAIN_INCOMPLETE" ChainIncomplete { expected: usize = "Fewest certificates.", got: usize = "Found." }
        => "the chain has {got} certificates, at least {expected} are needed";
    /// More certificates than any vendor issues.
    207 "CHAIN_TOO_LONG" ChainTooLong { limit: usize = "Most certificates.", got: usize = "Found." }
        => "the chain has {got} certificates, at most {limit} are accepted";
    /// An issuer is not a certificate authority.
    208 "NOT_A_CA" NotACa { what: &'static str = "Which certificate." } => "{what} issues certificates but is no authority";
    /// The leaf is a certificate authority.
    209 "LEAF_IS_CA" LeafIsCa => "the signing certificate is itself an authority";
    /// More authorities below than a path length allows.
    210 "PATH_LENGTH" PathLength { what: &'static str = "Which certificate.", limit: u64 = "Its path length." }
        => "{what} allows {limit} authorities below it, the chain has more";
    /// A key is used for what its key usage does not allow.
    211 "KEY_USAGE" KeyUsage { what: &'static str = "Which certificate.", needed: &'static str = "Usage needed." }
        => "the key usage of {what} lacks {needed}";
    /// A critical extension that nobody here understands.
    212 "CRITICAL_EXTENSION" CriticalExtension { what: &'static str = "Which certificate." }
        => "{what} has a critical extension that is not understood";
    /// A key or signature algorithm outside the vendor's profile.
    213 "CERT_ALGORITHM" CertAlgorithm { what: &'static str = "Which certificate.", expected: &'static str = "Profile." }
        => "{what} uses another algorithm than {expected}";
    /// A certificate is revoked.
    214 "CERT_REVOKED" CertRevoked { what: &'static str = "Which certificate." } => "{what} is revoked by its issuer";
    /// A certificate's extension that the vendor always sets is missing.
    215 "CERT_EXTENSION" CertExtension { what: &'static str = "Which extension." } => "the certificate extension {what} is missing or malformed";

    // ---- 3xx: signatures ------------------------------------------------------------------------------------------
    /// The document's own signature does not verify.
    301 "SIGNATURE" Signature { what: &'static str = "Which document." }
        => "the signature of {what} does not verify: the document is altered or signed by another key";
    /// Bytes of a signature field past the signature are set.
    302 "SIG_PADDING" SigPadding { at: usize = "Offset." } => "the signature padding at byte {at} is not zero";
    /// The quoting enclave's report does not verify under the platform certificate.
    303 "QE_REPORT_SIGNATURE" QeReportSignature => "the quoting enclave's report does not verify under the platform certificate";
    /// The quoting enclave's report does not bind the key that signed the quote.
    304 "QE_KEY_BINDING" QeKeyBinding => "the quoting enclave's report does not bind the key that signed the quote";
    /// The SPDM signature of a GPU report does not verify.
    305 "SPDM_SIGNATURE" SpdmSignature => "the SPDM signature does not verify under the GPU's certificate";

    // ---- 4xx: platform and collateral -----------------------------------------------------------------------------
    /// Nothing beside the document says whether its platform is up to date.
    401 "NO_COLLATERAL" NoCollateral { what: &'static str = "What is missing." }
        => "no collateral: {what} is needed for a verdict, signatures alone are not one";
    /// Collateral is past its next update.
    402 "COLLATERAL_EXPIRED" CollateralExpired { what: &'static str = "Which part." }
        => "{what} is past its next update; fetch newer collateral";
    /// Collateral is issued after the time of the verdict.
    403 "COLLATERAL_NOT_YET_VALID" CollateralNotYetValid { what: &'static str = "Which part." }
        => "{what} is issued after the time of the verdict";
    /// Collateral is broken, badly signed or of another platform.
    404 "COLLATERAL" Collateral { why: String = "The checker's words." } => "the collateral does not fit: {why}";
    /// No level of the vendor's list matches the platform.
    405 "TCB_LEVEL" TcbLevel => "no level of the vendor's TCB list matches this platform";
    /// The quoting enclave is not Intel's or not the expected one.
    406 "QE_IDENTITY" QeIdentity => "the quoting enclave is not the one of the vendor's identity document";
    /// Attributes of a trust domain that the vendor's rules forbid.
    407 "TD_ATTRIBUTES" TdAttributes { why: String = "The checker's words." } => "the trust domain's attributes are refused: {why}";
    /// The checker refused for a reason without a variant of its own.
    408 "QUOTE" Quote { why: String = "The checker's words." } => "the quote is refused: {why}";
    /// The chip certificate's TCB differs from the report's.
    409 "VCEK_TCB" VcekTcb { component: &'static str = "Which component.", report: u8 = "In the report.", certificate: u8 = "In the certificate." }
        => "TCB component {component} is {report} in the report and {certificate} in the certificate";
    /// The chip certificate belongs to another chip.
    410 "CHIP_ID" ChipId => "the report comes from another chip than the certificate";
    /// Report and certificate are of different processor generations.
    411 "GENERATION" Generation { report: &'static str = "By the report.", certificate: &'static str = "By the certificate." }
        => "the report is of {report}, the certificate of {certificate}";
    /// The chip hides its identity, so nothing ties it to a certificate.
    412 "CHIP_ID_MASKED" ChipIdMasked => "the chip identity is masked; switch MASK_CHIP_ID off";
    /// The report says one signing key kind, the certificate another.
    413 "SIGNING_KEY" SigningKey { report: &'static str = "By the report.", certificate: &'static str = "By the certificate." }
        => "the report is signed by a {report}, the certificate is a {certificate}";
    /// The chip's certificate is not beside the report.
    414 "NO_VCEK" NoVcek => "no chip certificate beside the report; add the VCEK or VLEK and its chain";
    /// A document inside does not match its hash in the report (Azure runtime data).
    415 "INNER_HASH" InnerHash { what: &'static str = "Which document." } => "the hash of {what} differs from the one in the report";
    /// Firmware of the device certificate differs from the report's.
    416 "FWID" Fwid => "the firmware identity of the report differs from the one in the certificate";
    /// The events of a log do not lead to the registers of the quote.
    417 "EVENT_LOG" EventLog { register: u8 = "First run-time register that differs." }
        => "the event log replays to another value of RTMR{register} than the quote's";
    /// The chain has seen newer collateral than this (D13).
    418 "COLLATERAL_ROLLED_BACK" CollateralRolledBack
        => "the collateral is older than what this chain has seen; fetch the newest, with revocation lists where there are any";

    // ---- 5xx: policy ----------------------------------------------------------------------------------------------
    /// A debug guest: its operator reads its memory.
    501 "DEBUG_MODE" DebugMode => "the guest runs in debug mode, its operator can read its memory";
    /// The measurement is not on the policy's list.
    502 "MEASUREMENT" Measurement => "the measurement is not on the policy's list";
    /// A register that the policy names is not in the document.
    503 "REGISTER_ABSENT" RegisterAbsent { register: String = "Register." } => "measurement register {register} is absent";
    /// The platform is below the policy's minimum.
    504 "MIN_TCB" MinTcb { component: String = "Component.", minimum: u64 = "Policy.", got: u64 = "Found; 0 where absent." }
        => "TCB component {component} is {got}, the policy asks for {minimum}";
    /// The vendor's status of the platform is not allowed.
    505 "TCB_STATUS" TcbStatus { got: &'static str = "Status." } => "the platform's TCB status is {got}, which the policy does not allow";
    /// A security advisory applies that the policy does not accept.
    506 "ADVISORY" Advisory { id: String = "Advisory." } => "advisory {id} applies to the platform and the policy does not accept it";
    /// The guest runs at a privilege level that the policy does not allow.
    507 "VMPL" Vmpl { max: u8 = "Policy.", got: u32 = "Found." } => "the report is of privilege level {got}, the policy allows at most {max}";
    /// The document is older than the policy's maximum.
    508 "TOO_OLD" TooOld { max: u64 = "Policy, seconds.", got: u64 = "Age, seconds." } => "the document is {got} s old, the policy allows {max} s";
    /// The document is issued after the time of the verdict.
    509 "FROM_THE_FUTURE" FromTheFuture { issued: u64 = "Document.", at: u64 = "Verdict." } => "the document is issued at {issued}, judged at {at} (Unix seconds)";
    /// The policy limits the age and the document has no date.
    510 "NO_DATE" NoDate => "the policy limits the document's age and the document carries no date";
    /// The platform can be re-composed, which the policy forbids.
    511 "DYNAMIC_PLATFORM" DynamicPlatform => "the platform is a dynamic one, which the policy forbids";
    /// Two threads share a core, which the policy forbids.
    512 "SMT" Smt => "simultaneous multithreading is on (or not known to be off), which the policy forbids";
    /// A shared chip key (VLEK), which the policy forbids.
    513 "VLEK" Vlek => "the report is signed by a VLEK, which the policy forbids";
    /// The collateral's evaluation number is below the policy's minimum.
    514 "EVALUATION_NUMBER" EvaluationNumber { minimum: u32 = "Policy.", got: u32 = "Found; 0 where absent." }
        => "the collateral's evaluation number is {got}, the policy asks for {minimum}";
    /// The signing chip or module is revoked by the policy.
    515 "SIGNER_REVOKED" SignerRevoked => "the signing chip, platform or module is revoked by the policy";
    /// The kind of evidence is not allowed.
    516 "KIND" KindNotAllowed { got: &'static str = "Kind." } => "the policy does not allow evidence of kind {got}";
    /// Nothing compared the GPU's measurements with the vendor's reference.
    517 "RIM_NOT_CHECKED" RimNotChecked => "the GPU's measurements are not compared with the vendor's reference manifest: signatures only";
    /// Not committed firmware: the platform can be rolled back.
    518 "PROVISIONAL_FIRMWARE" ProvisionalFirmware => "the platform runs firmware that is not committed and can be rolled back";
    /// A migration agent may move the guest.
    519 "MIGRATION" Migration => "the guest may be migrated by an agent, which the policy forbids";

    /// The chain has no policy, or one that this software cannot read.
    520 "NO_POLICY" NoPolicy => "there is no policy that evidence could be judged by";

    // ---- 6xx: binding ---------------------------------------------------------------------------------------------
    /// The nonce is another one than asked for.
    601 "NONCE_MISMATCH" NonceMismatch => "the nonce differs from the one asked for: stale or replayed evidence";
    /// A nonce is asked for and the document has none.
    602 "NONCE_ABSENT" NonceAbsent => "a nonce is asked for and the document has none";
    /// The document binds other keys than those offered.
    603 "BINDING_MISMATCH" BindingMismatch => "the document binds another keyset, operator, address, endpoint or configuration";
    /// A binding is asked for and the document binds nothing.
    604 "BINDING_ABSENT" BindingAbsent => "a binding is asked for and the document's user data is empty or all zero";
    /// The document carries another public key than asked for.
    605 "PUBLIC_KEY_MISMATCH" PublicKeyMismatch => "the document carries another public key than asked for";
    /// The user data is not the layout that was asked for.
    606 "USER_DATA_LAYOUT" UserDataLayout { expected: &'static str = "Layout." } => "the user data is not {expected}";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_and_names_are_unique_and_grouped() {
        let codes: BTreeSet<u16> = Reject::ALL.iter().map(|(code, _)| *code).collect();
        let names: BTreeSet<&str> = Reject::ALL.iter().map(|(_, name)| *name).collect();
        assert_eq!(codes.len(), Reject::ALL.len());
        assert_eq!(names.len(), Reject::ALL.len());
        assert!(Reject::ALL.windows(2).all(|pair| pair[0].0 < pair[1].0), "ascending");
        assert!(Reject::ALL.iter().all(|(code, _)| (100..700).contains(code)));
    }

    #[test]
    fn the_table_agrees_with_the_methods() {
        let reject = Reject::CertExpired {
            what: "the leaf",
            not_after: 1,
            at: 2,
        };
        assert!(Reject::ALL.contains(&(reject.code(), reject.name())));
        assert_eq!((reject.code(), reject.name()), (202, "CERT_EXPIRED"));
    }
}
