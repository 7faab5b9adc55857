//! The development public key infrastructure: root, the two authorities, endorsement certificates.

use crate::{
    claims::{Kind, UnixSeconds},
    der::tag,
    roots::Anchor,
    snp::{Product, SigningKey, Tcb},
    soft::{
        ORGANISATION,
        encode::{List, basic_constraints, bits, extension, integer, key_usage, sequence, time, tlv},
    },
    x509::usage,
};
use opg_primitives::domain::Tag;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rsa::{
    RsaPrivateKey,
    pss::BlindedSigningKey,
    sha2::Sha384,
    signature::{RandomizedSigner, SignatureEncoding},
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384, salt 48: AMD's `AlgorithmIdentifier`.
const PSS_SHA384: &[u8] = &[
    0x30, 0x41, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d,
    0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09,
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
    0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30,
];
/// `AlgorithmIdentifier` of rsaEncryption.
const RSA_ENCRYPTION: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// `AlgorithmIdentifier` of an EC key on P-384.
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
/// Size of AMD's keys.
const RSA_BITS: usize = 4_096;

/// Why the attester could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoftError {
    /// RSA key generation or signing.
    #[error("the development RSA key: {why}")]
    Rsa {
        /// The library's words.
        why: String,
    },
    /// The seed gives no valid P-384 scalar (chance 2^-190).
    #[error("the seed gives no P-384 key; take another seed")]
    Seed,
}

impl From<rsa::Error> for SoftError {
    fn from(error: rsa::Error) -> Self {
        Self::Rsa { why: error.to_string() }
    }
}

/// Validity of all certificates, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First valid second.
    pub not_before: UnixSeconds,
    /// Last valid second.
    pub not_after: UnixSeconds,
}

/// What an endorsement certificate shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftEndorsement {
    /// VCEK (with chip id, under the ASK) or VLEK (with a provider, under the ASVK).
    pub key: SigningKey,
    /// Processor.
    pub product: Product,
    /// TCB extensions.
    pub tcb: Tcb,
    /// Chip id; the product's length of it is used.
    pub chip_id: [u8; 64],
    /// Dates.
    pub validity: Validity,
}

/// Root and authorities of a development chain.
#[derive(Clone)]
pub struct SoftPki {
    seed: [u8; 32],
    validity: Validity,
    ark: RsaPrivateKey,
    ask: RsaPrivateKey,
    asvk: RsaPrivateKey,
}

impl std::fmt::Debug for SoftPki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftPki")
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl SoftPki {
    /// Generates three RSA keys of AMD's size, 4 096 bits, from a seed. Takes seconds.
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn generate(seed: [u8; 32], validity: Validity) -> Result<Self, SoftError> {
        Self::generate_with(seed, validity, RSA_BITS)
    }

    /// The same with keys of any size. Verifiers take 2 048 bits and more; that size takes a tenth of the time.
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn generate_with(seed: [u8; 32], validity: Validity, bits: usize) -> Result<Self, SoftError> {
        let key = |label: &str| RsaPrivateKey::new(&mut rng(&seed, label, &[]), bits);
        Ok(Self {
            seed,
            validity,
            ark: key("ark")?,
            ask: key("ask")?,
            asvk: key("asvk")?,
        })
    }

    /// Validity of root and authorities.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The self-signed root of a product, for the development trust set.
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn anchor(&self, product: Product) -> Result<Anchor, SoftError> {
        let name = name(&format!("ARK-{product}"));
        let root = self.certificate(&Template {
            serial: 1,
            issuer: &name,
            subject: &name,
            validity: self.validity,
            spki: rsa_spki(&self.ark),
            extensions: authority_extensions(None),
            signer: &self.ark,
        })?;
        Ok(Anchor::new(Kind::Snp, product.name(), root))
    }

    /// The authority of a product for one kind of key: ASK or ASVK (DER).
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn authority(&self, product: Product, key: SigningKey) -> Result<Vec<u8>, SoftError> {
        let (serial, own) = match key {
            SigningKey::Vcek => (2, &self.ask),
            SigningKey::Vlek => (3, &self.asvk),
        };
        self.certificate(&Template {
            serial,
            issuer: &name(&format!("ARK-{product}")),
            subject: &name(&authority_name(product, key)),
            validity: self.validity,
            spki: rsa_spki(own),
            extensions: authority_extensions(Some(0)),
            signer: &self.ark,
        })
    }

    /// An endorsement certificate (DER) for the uncompressed P-384 point `public_key`.
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn endorse(&self, subject: &SoftEndorsement, public_key: &[u8]) -> Result<Vec<u8>, SoftError> {
        let (common, signer) = match subject.key {
            SigningKey::Vcek => ("SEV-VCEK", &self.ask),
            SigningKey::Vlek => ("SEV-VLEK", &self.asvk),
        };
        self.certificate(&Template {
            serial: 0,
            issuer: &name(&authority_name(subject.product, subject.key)),
            subject: &name(common),
            validity: subject.validity,
            spki: sequence(&[EC_P384, &bits(public_key)]),
            extensions: endorsement_extensions(subject),
            signer,
        })
    }

    fn certificate(&self, template: &Template<'_>) -> Result<Vec<u8>, SoftError> {
        let dates = sequence(&[&time(template.validity.not_before), &time(template.validity.not_after)]);
        let tbs = sequence(&[
            &tlv(tag::context(0), &integer(&[2])),
            &integer(&[template.serial]),
            PSS_SHA384,
            template.issuer,
            &dates,
            template.subject,
            &template.spki,
            &tlv(tag::context(3), &sequence(&[&template.extensions])),
        ]);
        self.seal(&tbs, template.signer)
    }

    /// A revocation list (DER) of a product's root with these serial numbers: the authorities have 2 (ASK) and 3 (ASVK).
    ///
    /// # Errors
    /// [`SoftError::Rsa`].
    pub fn revocation_list(
        &self,
        product: Product,
        serials: &[u8],
        number: u8,
        validity: Validity,
    ) -> Result<Vec<u8>, SoftError> {
        let list = List {
            algorithm: PSS_SHA384,
            issuer: &name(&format!("ARK-{product}")),
            serials,
            number,
            this_update: validity.not_before,
            next_update: validity.not_after,
            more: &[],
        };
        self.seal(&list.tbs(), &self.ark)
    }

    fn seal(&self, tbs: &[u8], signer: &RsaPrivateKey) -> Result<Vec<u8>, SoftError> {
        // The salt comes from the seed and what is signed, so that the same seed gives the same certificate.
        let signature = BlindedSigningKey::<Sha384>::new(signer.clone())
            .try_sign_with_rng(&mut rng(&self.seed, "salt", tbs), tbs)
            .map_err(|error| SoftError::Rsa { why: error.to_string() })?;
        Ok(sequence(&[tbs, PSS_SHA384, &bits(&signature.to_vec())]))
    }
}

struct Template<'a> {
    serial: u8,
    issuer: &'a [u8],
    subject: &'a [u8],
    validity: Validity,
    spki: Vec<u8>,
    extensions: Vec<u8>,
    signer: &'a RsaPrivateKey,
}

fn rng(seed: &[u8; 32], label: &str, context: &[u8]) -> ChaCha20Rng {
    let mut hash = Sha256::new();
    hash.update(Tag::SoftwareAttester.as_str());
    hash.update("/snp/rsa/");
    hash.update(seed);
    hash.update([label.len() as u8]);
    hash.update(label);
    hash.update(context);
    ChaCha20Rng::from_seed(hash.finalize().into())
}

fn authority_name(product: Product, key: SigningKey) -> String {
    match key {
        SigningKey::Vcek => format!("SEV-{product}"),
        SigningKey::Vlek => format!("SEV-VLEK-{product}"),
    }
}

/// A name in AMD's shape whose organisation says what it is.
fn name(common: &str) -> Vec<u8> {
    crate::soft::encode::name(&[(11, "Engineering"), (10, ORGANISATION), (3, common)])
}

fn rsa_spki(key: &RsaPrivateKey) -> Vec<u8> {
    let public = sequence(&[&integer(&key.n().to_bytes_be()), &integer(&key.e().to_bytes_be())]);
    sequence(&[RSA_ENCRYPTION, &bits(&public)])
}

/// basicConstraints and keyUsage of an authority: certificates, and lists where there is no path length (the root).
fn authority_extensions(path: Option<u8>) -> Vec<u8> {
    let lists = if path.is_none() { usage::CRL_SIGN } else { 0 };
    [key_usage(usage::CERT_SIGN | lists), basic_constraints(true, path)].concat()
}

/// AMD's extensions, 1.3.6.1.4.1.3704.1.
fn endorsement_extensions(subject: &SoftEndorsement) -> Vec<u8> {
    let amd = |below: &[u8], value: &[u8]| {
        let oid = [&[0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01], below].concat();
        extension(&oid, false, value)
    };
    let number = |below: &[u8], value: u8| amd(below, &integer(&[value]));
    let tcb = subject.tcb;
    let mut out = vec![
        number(&[1], 1),
        amd(&[2], &tlv(tag::IA5_STRING, subject.product.name().as_bytes())),
        number(&[3, 1], tcb.bootloader),
        number(&[3, 2], tcb.tee),
        number(&[3, 3], tcb.snp),
        number(&[3, 8], tcb.microcode),
    ];
    if subject.product == Product::Turin {
        out.push(number(&[3, 9], tcb.fmc));
    }
    let chip: Vec<u8> = subject
        .chip_id
        .iter()
        .copied()
        .take(subject.product.chip_id_bytes())
        .collect();
    out.push(match subject.key {
        SigningKey::Vcek => amd(&[4], &chip),
        SigningKey::Vlek => amd(&[5], &tlv(tag::IA5_STRING, b"CN=software-attester.invalid")),
    });
    out.concat()
}
