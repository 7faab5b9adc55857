//! System transactions: the proposer signs them, every validator recomputes them (ledger.md §7).

use crate::evidence::Judged;
use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::{Decodable2718 as _, Encodable2718 as _};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use opg_contracts::{
    addresses,
    channel_tx::{self, BatchItem},
    evidence, staking, system_tx,
};
use opg_payments::signature::sign_digest;
use secp256k1::SecretKey;

/// What a block has to record beside its batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Duties<'a> {
    /// Verdicts on what the block below asks.
    pub(crate) judged: &'a Judged,
    /// Calldata of `Staking.endEpoch`, in the last block of an epoch.
    pub(crate) end_epoch: Option<&'a Bytes>,
}

/// The unsigned system transactions of a block: a pure function of its batch, of the verdicts on what the parent asks, of the views of
/// an epoch that it ends, and of the proposer's place in the chain. Verdicts on attestation evidence come first, those on faults
/// next, the end of an epoch (calldata of `Staking.endEpoch`) last.
///
/// `nonce` is the proposer's at the parent, `base_fee` the block's.
pub(crate) fn transactions(
    chain_id: u64,
    height: u64,
    nonce: u64,
    base_fee: u64,
    root: B256,
    entries: &[BatchItem],
    duties: &Duties<'_>,
) -> Vec<TxEip1559> {
    let Duties { judged, end_epoch } = duties;
    let call = |to, gas_limit, input| TxEip1559 {
        chain_id,
        nonce: 0,
        gas_limit,
        max_fee_per_gas: u128::from(base_fee),
        max_priority_fee_per_gas: 0,
        to: TxKind::Call(to),
        value: U256::ZERO,
        access_list: Default::default(),
        input,
    };
    let attested = (!judged.evidence.is_empty()).then(|| {
        let input = evidence::calldata(&judged.evidence);
        call(addresses::EVIDENCE_REGISTRY, evidence::GAS_LIMIT, input)
    });
    let faults = (!judged.faults.is_empty()).then(|| {
        let input = staking::verdicts_calldata(judged.faults.clone());
        call(addresses::SLASHING, staking::VERDICTS_GAS, input)
    });
    let recorded = channel_tx::transactions(height, root, entries)
        .into_iter()
        .map(|input| call(addresses::RECEIPT_LEDGER, system_tx::GAS_LIMIT, input));
    let ended = end_epoch.map(|input| call(addresses::STAKING, staking::END_EPOCH_GAS, input.clone()));
    (nonce..)
        .zip(attested.into_iter().chain(faults).chain(recorded).chain(ended))
        .map(|(nonce, transaction)| TxEip1559 { nonce, ..transaction })
        .collect()
}

/// Signs a transaction; the EIP-2718 encoding.
pub(crate) fn sign(transaction: TxEip1559, key: &SecretKey) -> Bytes {
    let signature = sign_digest(transaction.signature_hash(), key);
    let (r, s) = (
        U256::from_be_slice(&signature[..32]),
        U256::from_be_slice(&signature[32..64]),
    );
    let signed = transaction.into_signed(Signature::new(r, s, signature[64] == 28));
    TxEnvelope::from(signed).encoded_2718().into()
}

/// A transaction at a place where another was recomputed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SystemTxError {
    /// There is none.
    #[error("system transaction {index} is missing")]
    Missing {
        /// Its place in the block.
        index: usize,
    },
    /// It is not an EIP-1559 transaction.
    #[error("transaction {index} is not a system transaction")]
    Kind {
        /// Its place in the block.
        index: usize,
    },
    /// It differs from the recomputed one.
    #[error("system transaction {index} differs from the recomputed one in {field}")]
    Differs {
        /// Its place in the block.
        index: usize,
        /// The first differing field.
        field: &'static str,
    },
}

/// Compares the transaction at `index` with the recomputed one, signature aside.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(index: usize, raw: Option<Bytes>, expected: &TxEip1559) -> Result<(), SystemTxError> {
    let raw = raw.ok_or(SystemTxError::Missing { index })?;
    let mut rest = raw.as_ref();
    let TxEnvelope::Eip1559(got) = TxEnvelope::decode_2718(&mut rest).map_err(|_| SystemTxError::Kind { index })?
    else {
        return Err(SystemTxError::Kind { index });
    };
    let got = got.tx();
    let fields = [
        ("to", got.to == expected.to),
        ("input", got.input == expected.input),
        ("nonce", got.nonce == expected.nonce),
        ("gas_limit", got.gas_limit == expected.gas_limit),
        ("max_fee_per_gas", got.max_fee_per_gas == expected.max_fee_per_gas),
        (
            "max_priority_fee_per_gas",
            got.max_priority_fee_per_gas == expected.max_priority_fee_per_gas,
        ),
        ("value", got.value == expected.value),
        ("access_list", got.access_list == expected.access_list),
        ("chain_id", got.chain_id == expected.chain_id),
    ];
    match fields.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(SystemTxError::Differs { index, field }),
        None => Ok(()),
    }
}

/// The account that signed a raw transaction, and its hash. `None` if it can not be decoded or recovered.
pub(crate) fn sender(raw: &[u8]) -> Option<(Address, B256)> {
    let mut rest = raw;
    let envelope = TxEnvelope::decode_2718(&mut rest).ok()?;
    let signature = envelope.signature();
    let mut bytes = [0; 65];
    bytes[..32].copy_from_slice(&signature.r().to_be_bytes::<32>());
    bytes[32..64].copy_from_slice(&signature.s().to_be_bytes::<32>());
    bytes[64] = 27 + u8::from(signature.v());
    let address = opg_payments::signature::recover(envelope.signature_hash(), &bytes).ok()?;
    Some((address, *envelope.tx_hash()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_payments::signature::address_of_secret;

    fn entry(seq: u64) -> BatchItem {
        BatchItem::Payment(system_tx::BatchEntry {
            node_id: B256::repeat_byte(1),
            keyset: B256::repeat_byte(2),
            model_root: B256::repeat_byte(3),
            royalty_bps: 100,
            mode: 0,
            router: None,
            seq,
            method: opg_contracts::PaymentMethod::Erc3009,
            payer: Address::repeat_byte(4),
            nonce: B256::from(U256::from(seq)),
            amount: 10,
            charge: 7,
        })
    }

    #[test]
    fn signed_and_recomputed() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let entries: Vec<_> = (0..600).map(entry).collect();
        let nothing = Judged::default();
        let none = Duties {
            judged: &nothing,
            end_epoch: None,
        };
        let expected = transactions(10740, 9, 5, 1_000, B256::repeat_byte(8), &entries, &none);
        assert!(expected.len() > 1);
        for (index, transaction) in expected.iter().enumerate() {
            assert_eq!(
                (transaction.nonce, transaction.max_priority_fee_per_gas),
                (5 + index as u64, 0)
            );
            let raw = sign(transaction.clone(), &key);
            assert_eq!(sender(&raw).unwrap().0, address_of_secret(&key));
            compare(index, Some(raw), transaction).unwrap();
        }
        assert!(transactions(10740, 9, 5, 1_000, B256::ZERO, &[], &none).is_empty());
        // the end of an epoch is last, whatever else there is
        let input = Bytes::from_static(b"end");
        let duties = Duties {
            judged: &nothing,
            end_epoch: Some(&input),
        };
        let ending = transactions(10740, 9, 5, 1_000, B256::repeat_byte(8), &entries, &duties);
        assert_eq!(ending[..expected.len()], expected);
        let last = &ending[expected.len()];
        assert_eq!((last.to, &last.input), (TxKind::Call(addresses::STAKING), &input));
        assert_eq!(last.nonce, 5 + expected.len() as u64);
        // verdicts on faults come before the batch
        let judged = Judged {
            faults: vec![opg_contracts::Slashing::Verdict {
                id: U256::from(3),
                valid: true,
                fault: B256::repeat_byte(1),
                fee: 0,
                user: Address::ZERO,
            }],
            ..Judged::default()
        };
        let duties = Duties {
            judged: &judged,
            end_epoch: Some(&input),
        };
        let judging = transactions(10740, 9, 5, 1_000, B256::repeat_byte(8), &entries, &duties);
        assert_eq!(judging.len(), ending.len() + 1);
        let first = &judging[0];
        assert_eq!(first.input, staking::verdicts_calldata(judged.faults.clone()));
        assert_eq!(
            (first.to, first.gas_limit, first.nonce),
            (TxKind::Call(addresses::SLASHING), staking::VERDICTS_GAS, 5)
        );
        assert_eq!(judging[1].input, expected[0].input);
    }

    #[test]
    fn every_difference_is_found() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let good = transactions(
            10740,
            9,
            5,
            1_000,
            B256::repeat_byte(8),
            &[entry(0)],
            &Duties {
                judged: &Judged::default(),
                end_epoch: None,
            },
        )
        .remove(0);
        let changes: [(&str, fn(&mut TxEip1559)); 8] = [
            ("to", |t| t.to = TxKind::Create),
            ("input", |t| t.input = Bytes::from_static(b"x")),
            ("nonce", |t| t.nonce += 1),
            ("gas_limit", |t| t.gas_limit -= 1),
            ("max_fee_per_gas", |t| t.max_fee_per_gas += 1),
            ("max_priority_fee_per_gas", |t| t.max_priority_fee_per_gas = 1),
            ("value", |t| t.value = U256::ONE),
            ("chain_id", |t| t.chain_id = 1),
        ];
        for (field, change) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(
                compare(0, Some(sign(bad, &key)), &good),
                Err(SystemTxError::Differs { index: 0, field })
            );
        }
        assert_eq!(compare(3, None, &good), Err(SystemTxError::Missing { index: 3 }));
        assert_eq!(
            compare(3, Some(Bytes::from_static(&[2, 0xc0])), &good),
            Err(SystemTxError::Kind { index: 3 })
        );
    }
}
