"""Pays calls of a node with the unmodified public Python clients of x402, and with OpenGradient's fork of them.

    python pay.py HTTP SCHEME URL RPC KEY CALLS

HTTP is httpx or requests; SCHEME is exact, upto or batch-settlement. Each call prints one JSON line: status, the answer's receipt id and
charge, and what the client was told about the payment. The one setting that a token of its own needs is `spend_controls`.
"""
import asyncio
import base64
import json
import sys

from eth_account import Account
from x402.client import x402Client, x402ClientSync
from x402.mechanisms.evm.exact.client import ExactEvmScheme
from x402.mechanisms.evm.upto.client import UptoEvmScheme

HTTP, SCHEME, URL, RPC, KEY, CALLS = sys.argv[1:]
TOKEN, NETWORK = "0x0000000000000000000000000000000000001001", "eip155:10740"
BODY = {"model": "demo/digits-mlp", "inputs": {"X": [[0.0] * 64]}}
try:
    from x402.mechanisms.evm.signers import EthAccountSignerWithRPC

    signer = EthAccountSignerWithRPC(Account.from_key(KEY), rpc_url=RPC)
except ImportError:
    from x402.mechanisms.evm.signers import EthAccountSigner

    signer = EthAccountSigner(Account.from_key(KEY))


def scheme():
    if SCHEME == "batch-settlement":
        from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme

        return BatchSettlementEvmScheme(signer)
    return {"exact": ExactEvmScheme, "upto": UptoEvmScheme}[SCHEME](signer)


def prepared(client):
    client.register("eip155:*", scheme())
    if hasattr(client, "set_spend_controls"):
        client.set_spend_controls({"allowed_assets": [{"network": NETWORK, "asset": TOKEN}]})
    return client


def report(response):
    answer = response.json()
    told = response.headers.get("payment-response")
    opg = answer.get("opg") or {}
    print(json.dumps({
        "status": response.status_code,
        "receipt_id": opg.get("receipt_id"),
        "charge": opg.get("charge"),
        "error": answer.get("error"),
        "payment": json.loads(base64.b64decode(told)) if told else None,
    }), flush=True)


async def with_httpx():
    from x402.http.clients.httpx import x402HttpxClient

    async with x402HttpxClient(prepared(x402Client()), trust_env=False, timeout=30) as client:
        for _ in range(int(CALLS)):
            report(await client.post(f"{URL}/v1/infer", json=BODY))


def with_requests():
    from x402.http.clients.requests import x402_requests

    session = x402_requests(prepared(x402ClientSync()))
    session.trust_env = False
    for _ in range(int(CALLS)):
        report(session.post(f"{URL}/v1/infer", json=BODY, timeout=30))


asyncio.run(with_httpx()) if HTTP == "httpx" else with_requests()
