//! Vendor collateral on chain: which versions it has seen, and handing in newer ones (docs/evidence.md).

use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolCall as _;
use opg_contracts::{EvidenceRegistry, addresses};

use crate::{Client, ClientError, Sent, Wallet};

impl Client {
    /// Number and date (Unix seconds) of the newest version of a part of vendor collateral that the chain has seen; zeros for none.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn newest_collateral(&self, subject: B256) -> Result<(u64, u64), ClientError> {
        let call = EvidenceRegistry::newestCall { subject };
        let newest = self.view(addresses::EVIDENCE_REGISTRY, call).await?;
        Ok((newest.number, newest.issuedAt.to()))
    }

    /// Hands in vendor collateral without a document: `kind` and bytes as `opg_evidence::registration` has them. What validators make of it
    /// is on chain one block later.
    ///
    /// # Errors
    /// If the wallet cannot pay the gas, the block has as much as it takes, or a minute passes.
    pub async fn submit_collateral(&self, wallet: &Wallet, kind: u8, collateral: Bytes) -> Result<Sent, ClientError> {
        let call = EvidenceRegistry::submitCollateralCall { kind, collateral };
        self.call(wallet, addresses::EVIDENCE_REGISTRY, call.abi_encode().into())
            .await
    }
}
