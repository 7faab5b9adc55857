// Pays calls of a node with the unmodified public TypeScript clients of x402.
//
//   node pay.mjs SCHEME URL RPC KEY CALLS
//
// SCHEME is exact, exact-permit2, upto, batch-settlement or refund. Each call prints one JSON line: status, the answer's receipt id and
// charge, and what the client was told about the payment. The one setting that a token of its own needs is `spendControls`.
import { x402Client } from "@x402/core/client";
import { wrapFetchWithPayment } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { toClientEvmSigner } from "@x402/evm";
import { createPublicClient, defineChain, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";

const [scheme, url, rpc, key, calls] = process.argv.slice(2);
const TOKEN = "0x0000000000000000000000000000000000001001";
const NETWORK = "eip155:10740";
const chain = defineChain({
  id: 10740, name: "OpenGradient", nativeCurrency: { name: "OPG", symbol: "OPG", decimals: 18 }, rpcUrls: { default: { http: [rpc] } },
});
const account = privateKeyToAccount(key);
// Permit2 clients look at the allowance, and a channel's client reads the chain when it has to resynchronise.
const signer = toClientEvmSigner(account, createPublicClient({ chain, transport: http(rpc) }));
const make = {
  exact: () => new ExactEvmScheme(signer),
  "exact-permit2": () => new ExactEvmScheme(signer),
  upto: () => new UptoEvmScheme(signer),
  "batch-settlement": () => new BatchSettlementEvmScheme(signer),
  refund: () => new BatchSettlementEvmScheme(signer),
}[scheme];
const client = x402Client.fromConfig({
  schemes: [{ network: "eip155:*", client: make() }],
  spendControls: { allowedAssets: [{ network: NETWORK, asset: TOKEN }] },
});
// Of two ways of one scheme, stock clients take the first; the second one is Permit2's.
const onlyPermit2 = async (input, init) => {
  const response = await fetch(input, init);
  const header = response.headers.get("PAYMENT-REQUIRED");
  if (scheme !== "exact-permit2" || !header) return response;
  const required = JSON.parse(atob(header));
  required.accepts = required.accepts.filter((way) => way.extra?.assetTransferMethod === "permit2");
  const headers = new Headers(response.headers);
  headers.set("PAYMENT-REQUIRED", btoa(JSON.stringify(required)));
  return new Response(await response.text(), { status: response.status, headers });
};
const pay = wrapFetchWithPayment(onlyPermit2, client);
const body = JSON.stringify({ model: "demo/digits-mlp", inputs: { X: [Array(64).fill(0)] } });
const post = (body) => pay(`${url}/v1/infer`, { method: "POST", headers: { "content-type": "application/json" }, body });
for (let call = 0; call < Number(calls); call++) {
  const response = await post(body);
  const answer = await response.json();
  const told = response.headers.get("PAYMENT-RESPONSE");
  console.log(JSON.stringify({
    status: response.status,
    receipt_id: answer.opg?.receipt_id,
    charge: answer.opg?.charge,
    error: answer.error,
    payment: told && JSON.parse(atob(told)),
  }));
}
