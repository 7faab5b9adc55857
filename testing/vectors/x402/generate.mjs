// Payloads signed by the public x402 client library for npm, unmodified: what our contracts must accept exactly as it is.
//   npm i --ignore-scripts --legacy-peer-deps @x402/core@2.27.0 @x402/evm@2.27.0 viem@2.49.3 ox@0.14.20
//   node generate.mjs > npm.json
// Clock and randomness are fixed, so that the output depends on the versions alone.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const NOW = 1_790_000_000;
Date.now = () => NOW * 1000;
let counter = 0;
globalThis.crypto.getRandomValues = (bytes) => {
  counter += 1;
  bytes.forEach((_, i) => (bytes[i] = (counter * 37 + i * 11 + 5) & 255));
  return bytes;
};

const { privateKeyToAccount } = await import("viem/accounts");
const { keccak256, toBytes } = await import("viem");
const { ExactEvmScheme } = await import("@x402/evm/exact/client");
const { UptoEvmScheme } = await import("@x402/evm/upto/client");
const client = await import("@x402/evm/batch-settlement/client");

const account = (label) => privateKeyToAccount(keccak256(toBytes(label)));
const payer = account("alice");
const facilitator = account("facilitator");
const receiverAuthorizer = account("settlement-0");

const requirements = {
  network: "eip155:10740",
  asset: "0x0000000000000000000000000000000000001001",
  amount: "1000003",
  payTo: account("payee").address,
  maxTimeoutSeconds: 600,
};
const domain = { name: "OpenGradient", version: "1" };
const channel = { ...domain, receiverAuthorizer: receiverAuthorizer.address, withdrawDelay: 3600 };

async function pay(scheme, extra) {
  const accepted = { scheme: scheme.scheme, ...requirements, extra };
  const { payload } = await scheme.createPaymentPayload(2, accepted);
  return { accepted, payload };
}

/** Deposits, then signs a voucher and a refund voucher as the stock client does once the server has answered. */
async function channelPayments(extra, salt) {
  const storage = new client.InMemoryClientChannelStorage();
  const scheme = new client.BatchSettlementEvmScheme(payer, { storage, salt });
  const deposit = await pay(scheme, extra);
  const id = deposit.payload.voucher.channelId.toLowerCase();
  const { amount } = deposit.payload.deposit;
  await storage.set(id, { balance: amount, totalClaimed: "0", chargedCumulativeAmount: "777777" });
  const voucher = await pay(scheme, extra);
  const refund = await refundPayload(scheme, deposit.accepted);
  return { deposit, voucher, refund };
}

/** Lets the library's own refund run against a server that only answers its probe; what it sends is the payload. */
async function refundPayload(scheme, accepted) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64");
  let sent;
  const fetch = async (url, init) => {
    const headers = new Headers(init?.headers ?? (url instanceof Request ? url.headers : undefined));
    const header = headers.get("PAYMENT-SIGNATURE");
    if (header !== null) {
      sent = JSON.parse(Buffer.from(header, "base64").toString());
      return new Response("{}", { status: 500 });
    }
    const required = { x402Version: 2, resource: { url: "http://payee/" }, accepts: [accepted] };
    return new Response("{}", { status: 402, headers: { "PAYMENT-REQUIRED": encode(required) } });
  };
  await scheme.refund("http://payee/", { amount: "1000", fetch }).catch(() => {});
  return { accepted, payload: sent.payload };
}

const version = (name) => {
  const require = createRequire(import.meta.url);
  const main = require.resolve(name === "viem" ? "viem" : `${name}`);
  const root = main.slice(0, main.lastIndexOf(`node_modules/${name}/`) + `node_modules/${name}/`.length);
  return JSON.parse(readFileSync(`${root}package.json`)).version;
};

const salt = (byte) => `0x${byte.repeat(32)}`;
const exact = new ExactEvmScheme(payer);
const output = {
  generator: { "@x402/evm": version("@x402/evm"), "@x402/core": version("@x402/core"), viem: version("viem") },
  now: NOW,
  exact3009: await pay(exact, domain),
  exactPermit2: await pay(exact, { ...domain, assetTransferMethod: "permit2" }),
  upto: await pay(new UptoEvmScheme(payer), { ...domain, facilitatorAddress: facilitator.address }),
  batch3009: await channelPayments(channel, salt("01")),
  batchPermit2: await channelPayments({ ...channel, assetTransferMethod: "permit2" }, salt("02")),
};
console.log(JSON.stringify(output, null, 1));
