use super::*;
use crate::canonical;
use alloy_primitives::keccak256;
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};
use proptest::prelude::*;

mod reference {
    alloy_sol_types::sol! {
        struct ChannelConfig {
            address payer; address payerAuthorizer; address receiver; address receiverAuthorizer; address token;
            uint40 withdrawDelay; bytes32 salt;
        }
        struct Voucher { bytes32 channelId; uint128 maxClaimableAmount; }
        struct ClaimEntry { bytes32 channelId; uint128 maxClaimableAmount; uint128 totalClaimed; }
        struct ClaimBatch { ClaimEntry[] claims; }
        struct Refund { bytes32 channelId; uint256 nonce; uint128 amount; }
        struct ReceiveWithAuthorization {
            address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
        }
    }
}

fn contract(chain_id: u64) -> Eip712Domain {
    eip712_domain! {
        name: "x402 Batch Settlement", version: "1", chain_id: chain_id, verifying_contract: canonical::BATCH_SETTLEMENT,
    }
}

fn config() -> ChannelConfig {
    ChannelConfig {
        payer: Address::repeat_byte(1),
        payer_authorizer: Address::repeat_byte(2),
        receiver: Address::repeat_byte(3),
        receiver_authorizer: Address::repeat_byte(4),
        token: Address::repeat_byte(5),
        withdraw_delay: 3600,
        salt: B256::ZERO,
    }
}

#[test]
fn a_receiver_refuses_channels_of_others() {
    let terms = ReceiverTerms {
        receiver: Address::repeat_byte(3),
        receiver_authorizer: Address::repeat_byte(4),
        token: Address::repeat_byte(5),
        min_withdraw_delay: 1800,
    };
    assert_eq!(config().check(&terms), Ok(()));
    let refused = |change: &dyn Fn(&mut ChannelConfig)| {
        let mut config = config();
        change(&mut config);
        config.check(&terms).unwrap_err()
    };
    let field = |error| match error {
        ConfigError::Field { field, .. } => field,
        other => panic!("{other}"),
    };
    assert_eq!(field(refused(&|c| c.receiver = Address::ZERO)), "receiver");
    assert_eq!(
        field(refused(&|c| c.receiver_authorizer = Address::ZERO)),
        "receiverAuthorizer"
    );
    assert_eq!(field(refused(&|c| c.token = Address::ZERO)), "token");
    assert_eq!(
        refused(&|c| c.withdraw_delay = 899),
        ConfigError::WithdrawDelay { got: 899 }
    );
    assert_eq!(
        refused(&|c| c.withdraw_delay = 2_592_001),
        ConfigError::WithdrawDelay { got: 2_592_001 }
    );
    assert_eq!(
        refused(&|c| c.withdraw_delay = 1799),
        ConfigError::DelayTooShort {
            expected: 1800,
            got: 1799
        }
    );
    assert_eq!(
        refused(&|c| c.payer_authorizer = Address::ZERO),
        ConfigError::NoAuthorizer
    );
}

proptest! {
    #[test]
    fn channel_digests_equal_the_general_implementation(
        addresses: [[u8; 20]; 5], delay in 0_u64..(1 << 40), salt: [u8; 32], max: u128, claimed: u128, nonce: [u8; 32], chain_id: u64, count in 0_usize..4,
    ) {
        let [payer, payer_authorizer, receiver, receiver_authorizer, token] = addresses.map(Address::from);
        let config = ChannelConfig { payer, payer_authorizer, receiver, receiver_authorizer, token, withdraw_delay: delay, salt: salt.into() };
        let general = reference::ChannelConfig {
            payer, payerAuthorizer: payer_authorizer, receiver, receiverAuthorizer: receiver_authorizer, token,
            withdrawDelay: alloy_primitives::aliases::U40::from(delay), salt: salt.into(),
        };
        let (ours, theirs) = (Domain::batch_settlement(chain_id), contract(chain_id));
        let id = config.id(&ours);
        prop_assert_eq!(id, general.eip712_signing_hash(&theirs));
        let voucher = Voucher { channel_id: id, max_claimable: Amount(max) };
        let general = reference::Voucher { channelId: id, maxClaimableAmount: max };
        prop_assert_eq!(voucher.digest(&ours), general.eip712_signing_hash(&theirs));
        let entry = ClaimEntry { channel_id: id, max_claimable: Amount(max), total_claimed: Amount(claimed) };
        let one = reference::ClaimEntry { channelId: id, maxClaimableAmount: max, totalClaimed: claimed };
        let general = reference::ClaimBatch { claims: vec![one; count] };
        prop_assert_eq!(claim_batch_digest(&ours, &vec![entry; count]), general.eip712_signing_hash(&theirs));
        let nonce = U256::from_be_bytes(nonce);
        let general = reference::Refund { channelId: id, nonce, amount: max };
        prop_assert_eq!(Refund { channel_id: id, nonce, amount: Amount(max) }.digest(&ours), general.eip712_signing_hash(&theirs));
        let deposit = Deposit::new(&config, &ours, Amount(max), DepositAuthorization::Erc3009 { valid_after: 1, valid_before: delay, salt: nonce });
        let general = reference::ReceiveWithAuthorization {
            from: payer, to: canonical::ERC3009_DEPOSIT_COLLECTOR, value: U256::from(max), validAfter: U256::from(1), validBefore: U256::from(delay),
            nonce: keccak256([id.0, nonce.to_be_bytes::<32>()].as_flattened()),
        };
        let token_domain = eip712_domain! { name: "OpenGradient", version: "1", chain_id: chain_id, verifying_contract: token, };
        prop_assert_eq!(
            deposit.digest(&Domain::opg(chain_id, token), &Domain::permit2(chain_id)),
            general.eip712_signing_hash(&token_domain)
        );
    }

    #[test]
    fn a_voucher_is_one_signers_for_one_ceiling(seed in 1_u8..255, max: u128, other: u128) {
        let key = SecretKey::from_byte_array(&[seed; 32]).unwrap();
        let domain = Domain::batch_settlement(10_740);
        let voucher = Voucher { channel_id: B256::repeat_byte(seed), max_claimable: Amount(max) };
        let signature = voucher.sign(&domain, &key);
        let signer = signature::address_of_secret(&key);
        let public = voucher.recover(&domain, &signature, signer).unwrap();
        prop_assert_eq!(voucher.verify(&domain, &signature, &public), Ok(()));
        prop_assert!(voucher.recover(&domain, &signature, Address::ZERO).is_err());
        prop_assert!(voucher.verify(&Domain::batch_settlement(1), &signature, &public).is_err());
        let changed = Voucher { max_claimable: Amount(other), ..voucher };
        prop_assert_eq!(changed.verify(&domain, &signature, &public).is_ok(), other == max);
    }
}
