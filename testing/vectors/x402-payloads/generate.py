"""Payments signed by the unmodified public Python client. Writes pypi.json beside this file.

    pip install 'x402[evm,httpx]==2.25.0'
    python generate.py

Versions: x402 2.25.0, eth-account 0.14.0. Clock and randomness are fixed, so a second run writes the same bytes. Besides
the payments, the file holds what only the receiver's side of that library signs: claims and refunds. And it checks the
payloads of npm.json with this library's own verification, so that the two clients vouch for each other.
"""
import hashlib, json, os, pathlib, secrets, time

NOW = 1_800_000_000
time.time = lambda: float(NOW)
counter = 0


def fixed(n=32):
    global counter
    counter += 1
    return hashlib.sha256(f"pypi {counter}".encode()).digest()[:n]


secrets.token_bytes = fixed
secrets.token_hex = lambda n=32: fixed(n).hex()
secrets.randbits = lambda k: int.from_bytes(fixed(), "big") % (1 << k)
os.urandom = fixed

from eth_account import Account
from x402.http.utils import encode_payment_signature_header
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner, sign_claim_batch, sign_refund
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme, BatchSettlementEvmSchemeOptions
from x402.mechanisms.evm.batch_settlement.client.storage import BatchSettlementClientContext
from x402.mechanisms.evm.batch_settlement.types import ChannelConfig, VoucherClaim
from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id, get_batch_settlement_eip712_domain
from x402.mechanisms.evm.batch_settlement.constants import VOUCHER_TYPES
from x402.mechanisms.evm.exact.client import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto.client import UptoEvmScheme
from x402.schemas import PaymentPayload, PaymentRequirements, ResourceInfo
from eth_account.messages import encode_typed_data

HERE = pathlib.Path(__file__).parent
KEYS = {name: "0x" + byte * 32 for name, byte in (("payer", "07"), ("authorizer", "08"), ("delegate", "09"))}
payer, authorizer, delegate = (Account.from_key(KEYS[name]) for name in ("payer", "authorizer", "delegate"))
TOKEN, PAYEE, NETWORK = "0x0000000000000000000000000000000000001001", "0x00000000000000000000000000000000000000AA", "eip155:10740"
CHANNEL = {"receiverAuthorizer": authorizer.address, "withdrawDelay": 3600, "minDeposit": "1000000"}


def offer(scheme, amount, extra):
    return PaymentRequirements(
        scheme=scheme, network=NETWORK, amount=amount, asset=TOKEN, pay_to=PAYEE, max_timeout_seconds=120,
        extra={"name": "OpenGradient", "version": "1", **extra},
    )


vectors = []


def add(name, requirements, scheme):
    inner = scheme.create_payment_payload(requirements)
    payload = PaymentPayload(
        x402_version=2, payload=inner, accepted=requirements, resource=ResourceInfo(url="http://127.0.0.1:8610/v1/infer")
    )
    vectors.append({
        "name": name,
        "header": encode_payment_signature_header(payload),
        "payload": json.loads(payload.model_dump_json(by_alias=True, exclude_none=True)),
    })
    return inner


add("exact-eip3009", offer("exact", "1000000000000000", {}), ExactEvmScheme(payer))
add("exact-permit2", offer("exact", "1000000000000000", {"assetTransferMethod": "permit2"}), ExactEvmScheme(payer))
add("upto", offer("upto", "2000", {"facilitatorAddress": authorizer.address}), UptoEvmScheme(payer))
batch = BatchSettlementEvmScheme(payer)
deposit = add("batch-deposit-eip3009", offer("batch-settlement", "1000", CHANNEL), batch)
batch._storage.set(
    deposit["voucher"]["channelId"], BatchSettlementClientContext(charged_cumulative_amount="400", balance="1000000")
)
add("batch-voucher", offer("batch-settlement", "1000", CHANNEL), batch)
add("batch-deposit-permit2", offer("batch-settlement", "1000", {**CHANNEL, "assetTransferMethod": "permit2"}), BatchSettlementEvmScheme(payer))
add(
    "batch-deposit-delegated", offer("batch-settlement", "1000", CHANNEL),
    BatchSettlementEvmScheme(payer, BatchSettlementEvmSchemeOptions(voucher_signer=EthAccountSigner(delegate), salt="0x" + "42" * 32)),
)

config = ChannelConfig.from_dict(deposit["channelConfig"])
signer = LocalAuthorizerSigner(KEYS["authorizer"])
rows = [VoucherClaim(config, str(ceiling), deposit["voucher"]["signature"], str(claimed)) for ceiling, claimed in ((1400, 900), (2000, 2000), (5, 0))]
hexed = lambda text: text if text.startswith("0x") else "0x" + text
server = {
    "channelConfig": config.to_dict(),
    "channelId": compute_channel_id(config, NETWORK),
    "claims": [{"maxClaimableAmount": row.max_claimable_amount, "totalClaimed": row.total_claimed} for row in rows],
    "claimSignature": hexed(sign_claim_batch(signer, rows, NETWORK)),
    "refund": {"amount": "12345", "nonce": "7"},
    "refundSignature": hexed(sign_refund(signer, deposit["voucher"]["channelId"], "12345", "7", NETWORK)),
}

# The other client's vouchers, checked here.
checked = []
for vector in json.loads((HERE / "npm.json").read_text())["vectors"]:
    inner = vector["payload"]["payload"]
    if "voucher" not in inner:
        continue
    other = ChannelConfig.from_dict(inner["channelConfig"])
    assert compute_channel_id(other, NETWORK) == inner["voucher"]["channelId"], vector["name"]
    message = {"channelId": bytes.fromhex(inner["voucher"]["channelId"][2:]), "maxClaimableAmount": int(inner["voucher"]["maxClaimableAmount"])}
    typed = encode_typed_data(get_batch_settlement_eip712_domain(10740), VOUCHER_TYPES, message)
    assert Account.recover_message(typed, signature=inner["voucher"]["signature"]) == other.payer_authorizer, vector["name"]
    checked.append(vector["name"])

(HERE / "pypi.json").write_text(json.dumps({
    "made_with": {"x402": "2.25.0", "eth-account": "0.14.0"},
    "chain_id": 10740, "token": TOKEN, "token_name": "OpenGradient", "token_version": "1",
    "payer_key": KEYS["payer"], "authorizer_key": KEYS["authorizer"], "delegate_key": KEYS["delegate"], "now": NOW,
    "vectors": vectors, "receiver": server, "npm_vouchers_recovered_by_eth_account": checked,
}, indent=1) + "\n")
print("\n".join(v["name"] for v in vectors), checked)
