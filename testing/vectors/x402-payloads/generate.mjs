// Payments signed by the unmodified public TypeScript clients, through their HTTP wrapper. Writes npm.json beside this file.
//
//   npm i --ignore-scripts --legacy-peer-deps   (with the package.json beside this file, in a folder of its own)
//   node generate.mjs
//
// Versions: @x402/core, @x402/evm, @x402/fetch, @x402/extensions 2.27.0, viem 2.49.3, ox 0.14.20. Clock and randomness are
// fixed, so a second run writes the same bytes.
import { writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { x402Client } from "@x402/core/client";
import { wrapFetchWithPayment } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { ExactEvmSchemeV1 } from "@x402/evm/exact/v1/client";
import { UptoEvmScheme } from "@x402/evm/upto/client";
import { BatchSettlementEvmScheme } from "@x402/evm/batch-settlement/client";
import { appendPaymentIdentifierToExtensions, declarePaymentIdentifierExtension } from "@x402/extensions/payment-identifier";
import { privateKeyToAccount } from "viem/accounts";

const NOW = 1_800_000_000;
Date.now = () => NOW * 1000;
let counter = 0;
crypto.getRandomValues = (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  for (let i = 0; i < bytes.length; i += 32) {
    bytes.set(createHash("sha256").update(`npm ${counter++}`).digest().subarray(0, Math.min(32, bytes.length - i)), i);
  }
  return array;
};

const PAYER_KEY = "0x" + "07".repeat(32);
const payer = privateKeyToAccount(PAYER_KEY);
const authorizer = privateKeyToAccount("0x" + "08".repeat(32));
const delegate = privateKeyToAccount("0x" + "09".repeat(32));
const TOKEN = "0x0000000000000000000000000000000000001001";
const PAYEE = "0x00000000000000000000000000000000000000AA";
const NETWORK = "eip155:10740";
const domain = { name: "OpenGradient", version: "1" };
const offer = (scheme, amount, extra) => ({
  scheme, network: NETWORK, amount, asset: TOKEN, payTo: PAYEE, maxTimeoutSeconds: 120, extra: { ...domain, ...extra },
});
const channel = { receiverAuthorizer: authorizer.address, withdrawDelay: 3600, minDeposit: "1000000" };

const vectors = [];
// One fake server: 402 with the offer, then 200 with what `answer` says; keeps the payment header.
function server(name, accepts, answer, extensions) {
  return async (input, init) => {
    const request = new Request(input, init);
    const header = request.headers.get("PAYMENT-SIGNATURE");
    if (!header) {
      const required = { x402Version: 2, error: "payment required", resource: { url: request.url }, accepts, ...(extensions && { extensions }) };
      return new Response("{}", { status: 402, headers: { "PAYMENT-REQUIRED": btoa(JSON.stringify(required)) } });
    }
    const payload = JSON.parse(atob(header));
    vectors.push({ name, header, payload });
    return new Response("{}", { headers: { "PAYMENT-RESPONSE": btoa(JSON.stringify(answer?.(payload) ?? { success: true, transaction: "", network: NETWORK, payer: payer.address })) } });
  };
}
const client = (scheme) =>
  x402Client.fromConfig({ schemes: [{ network: "eip155:*", client: scheme }], spendControls: { allowedAssets: [{ network: NETWORK, asset: TOKEN }] } });
const pay = async (name, scheme, accepts, answer, extensions) => {
  const paid = await wrapFetchWithPayment(server(name, accepts, answer, extensions), client(scheme))("http://127.0.0.1:8610/v1/infer", { method: "POST", body: "{}" });
  if (paid.status !== 200) throw new Error(`${name}: ${paid.status}`);
};

const exact = () => new ExactEvmScheme(payer);
await pay("exact-eip3009", exact(), [offer("exact", "1000000000000000", {})]);
await pay("exact-permit2", exact(), [offer("exact", "1000000000000000", { assetTransferMethod: "permit2" })]);
await pay("upto", new UptoEvmScheme(payer), [offer("upto", "2000", { facilitatorAddress: authorizer.address })]);

// One channel: a deposit, then two vouchers, each after a charge below its bound.
const charged = { total: 0n };
const charge = (amount) => (payload) => {
  charged.total += amount;
  return {
    success: true, transaction: "", network: NETWORK, payer: payer.address, amount: "",
    extra: {
      chargedAmount: amount.toString(),
      channelState: { channelId: payload.payload.voucher.channelId, balance: "1000000", totalClaimed: "0", withdrawRequestedAt: 0, refundNonce: "0", chargedCumulativeAmount: charged.total.toString() },
    },
  };
};
const batch = new BatchSettlementEvmScheme(payer);
await pay("batch-deposit-eip3009", batch, [offer("batch-settlement", "1000", channel)], charge(400n));
await pay("batch-voucher", batch, [offer("batch-settlement", "1000", channel)], charge(1000n));
await pay("batch-voucher-second", batch, [offer("batch-settlement", "700", channel)], charge(0n));
await pay("batch-deposit-permit2", new BatchSettlementEvmScheme(payer), [offer("batch-settlement", "1000", { ...channel, assetTransferMethod: "permit2" })]);
await pay("batch-deposit-delegated", new BatchSettlementEvmScheme(payer, { voucherSigner: delegate, salt: "0x" + "42".repeat(32) }), [offer("batch-settlement", "1000", channel)]);

const refundServer = server("batch-refund", [offer("batch-settlement", "1000", channel)], (payload) => ({
  success: true, transaction: "0x" + "01".repeat(32), network: NETWORK, payer: payer.address, amount: "5",
  extra: { channelState: { channelId: payload.payload.voucher.channelId, balance: "999995", totalClaimed: "1400", withdrawRequestedAt: 0, refundNonce: "1" } },
}));
globalThis.fetch = refundServer;
await batch.refund("http://127.0.0.1:8610/v1/infer", { amount: "5", fetch: refundServer });

// payment-identifier, added by the extension's own function before the payment is sent.
const identified = client(exact());
const extensions = { "payment-identifier": declarePaymentIdentifierExtension(false) };
const required = { x402Version: 2, resource: { url: "http://127.0.0.1:8610/v1/infer" }, accepts: [offer("exact", "7", {})], extensions };
appendPaymentIdentifierToExtensions(required.extensions, "pay_0123456789abcdef");
const payload = await identified.createPaymentPayload(required);
vectors.push({ name: "payment-identifier", header: btoa(JSON.stringify(payload)), payload });

// Version 1 on Base Sepolia: the signing part of the client inside its own envelope.
const v1 = { scheme: "exact", network: "base-sepolia", maxAmountRequired: "1000", resource: "http://127.0.0.1/v1", description: "", mimeType: "application/json", payTo: PAYEE, maxTimeoutSeconds: 60, asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", extra: { name: "USDC", version: "2" } };
const inner = await new ExactEvmSchemeV1(payer).createPaymentPayload(1, v1);
const v1payload = { x402Version: 1, scheme: "exact", network: "base-sepolia", payload: inner.payload };
vectors.push({ name: "v1-exact", header: btoa(JSON.stringify(v1payload)), payload: v1payload });

writeFileSync(new URL("npm.json", import.meta.url), JSON.stringify({
  made_with: { "@x402/core": "2.27.0", "@x402/evm": "2.27.0", "@x402/fetch": "2.27.0", "@x402/extensions": "2.27.0", viem: "2.49.3" },
  chain_id: 10740, token: TOKEN, token_name: domain.name, token_version: domain.version,
  payer_key: PAYER_KEY, authorizer_key: "0x" + "08".repeat(32), delegate_key: "0x" + "09".repeat(32), now: NOW, vectors,
}, null, 1) + "\n");
console.log(vectors.map((v) => v.name).join("\n"));
