"""Payloads signed by the public x402 library for Python, unmodified: what our contracts must accept exactly as it is.

    pip install 'x402[evm]==2.25.0'
    python3 generate.py > pypi.json

Clock and randomness are fixed, so that the output depends on the versions alone. The claim batch and the refund are what the
library's receiver side signs for the vouchers of this file.
"""

import json
import os
import time
from importlib.metadata import version

from eth_account import Account
from eth_utils import keccak
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner, sign_claim_batch, sign_refund
from x402.mechanisms.evm.batch_settlement.client.config import BatchSettlementEvmSchemeOptions
from x402.mechanisms.evm.batch_settlement.client.scheme import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.client.storage import BatchSettlementClientContext, InMemoryClientChannelStorage
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig, VoucherClaim
from x402.mechanisms.evm.exact.client import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto.client import UptoEvmScheme
from x402.schemas.payments import PaymentRequirements

NOW = 1_790_000_000
NETWORK = "eip155:10740"
counter = 0


def urandom(size):
    global counter
    counter += 1
    return bytes((counter * 41 + i * 13 + 7) & 255 for i in range(size))


time.time = lambda: float(NOW)
os.urandom = urandom


def account(label):
    return Account.from_key(keccak(text=label))


payer = account("alice")
facilitator = account("facilitator")
receiver_authorizer = account("settlement-0")
voucher_key = account("alice-vouchers")
domain = {"name": "OpenGradient", "version": "1"}
channel = {**domain, "receiverAuthorizer": receiver_authorizer.address, "withdrawDelay": 3600}


def pay(scheme, extra):
    accepted = {
        "scheme": scheme.scheme,
        "network": NETWORK,
        "asset": "0x0000000000000000000000000000000000001001",
        "amount": "1000003",
        "payTo": account("payee").address,
        "maxTimeoutSeconds": 600,
        "extra": extra,
    }
    payload = scheme.create_payment_payload(PaymentRequirements.model_validate(accepted))
    return {"accepted": accepted, "payload": payload.get("payload", payload)}


def channel_payments(extra, salt, voucher_signer=None):
    """Deposits, then signs a voucher as the client does once the server has answered."""
    storage = InMemoryClientChannelStorage()
    options = BatchSettlementEvmSchemeOptions(storage=storage, salt=salt)
    if voucher_signer is not None:
        options.voucher_signer = EthAccountSigner(voucher_signer)
        options.payer_authorizer = voucher_signer.address
    scheme = BatchSettlementEvmScheme(payer, options)
    deposit = pay(scheme, extra)
    payload = deposit["payload"]
    storage.set(
        payload["voucher"]["channelId"].lower(),
        BatchSettlementClientContext(
            charged_cumulative_amount="777777", balance=payload["deposit"]["amount"], total_claimed="0"
        ),
    )
    return {"deposit": deposit, "voucher": pay(scheme, extra)}


exact = ExactEvmScheme(payer)
batch_3009 = channel_payments(channel, "0x" + "03" * 32)
batch_permit2 = channel_payments({**channel, "assetTransferMethod": "permit2"}, "0x" + "04" * 32, voucher_key)

claims = []
for paid in (batch_3009, batch_permit2):
    voucher = paid["voucher"]["payload"]
    claims.append(
        VoucherClaim(
            channel=ChannelConfig.from_dict(voucher["channelConfig"]),
            max_claimable_amount=voucher["voucher"]["maxClaimableAmount"],
            signature=voucher["voucher"]["signature"],
            total_claimed="1500000",
        )
    )
signer = LocalAuthorizerSigner(receiver_authorizer)
first = batch_3009["voucher"]["payload"]["voucher"]["channelId"]
output = {
    "generator": {name: version(name) for name in ("x402", "eth-account")},
    "now": NOW,
    "exact3009": pay(exact, domain),
    "exactPermit2": pay(exact, {**domain, "assetTransferMethod": "permit2"}),
    "upto": pay(UptoEvmScheme(payer), {**domain, "facilitatorAddress": facilitator.address}),
    "batch3009": batch_3009,
    "batchPermit2": batch_permit2,
    "claimBatch": {
        "totalClaimed": "1500000",
        "signature": sign_claim_batch(signer, claims, NETWORK),
    },
    "refund": {
        "channelId": first,
        "amount": "1000",
        "nonce": "0",
        "signature": sign_refund(signer, first, "1000", "0", NETWORK),
    },
}
print(json.dumps(output, indent=1))
