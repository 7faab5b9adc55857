// Compiles src/**/*.sol with the pinned solc and OpenZeppelin into artifacts/, byte for byte reproducibly.
//   node compile.mjs           writes artifacts/<Name>.json and artifacts/sources.lock.json
//   node compile.mjs --check   compiles, compares with what is committed, exits 1 on any difference
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const root = dirname(fileURLToPath(import.meta.url));
const out = join(root, "artifacts");
const solc = require("solc");

/** Contracts that Rust needs, by path under src/; everything else there is compiled with them but has no artifact. */
const CONTRACTS = [
  "OPG",
  "NodeRegistry",
  "ModelRegistry",
  "DepositAddress",
  "FeeVault",
  "ReceiptLedger",
  "EvidenceRegistry",
  "TEERegistry",
  "Vesting",
  "Airdrop",
  "Multicall3",
  "KeyProofs",
  "Emission",
  "Staking",
  "Slashing",
  "x402/Permit2",
  "x402/ExactPermit2Proxy",
  "x402/UptoPermit2Proxy",
  "x402/BatchSettlement",
  "x402/Erc3009DepositCollector",
  "x402/Permit2DepositCollector",
  "x402/UniversalSigValidator",
  "Governor",
  "Timelock",
  "Treasury",
  "ChainParameters",
  "FeatureTiers",
  "PriceOracle",
  "Checkpoint",
  "HomeFeeVault",
  "Payouts",
];
/** Contracts that only tests use: actors that try to break the others. */
const TEST_CONTRACTS = ["TestActors", "TestX402", "TestBLS", "TestStaking"];

const SETTINGS = {
  optimizer: { enabled: true, runs: 200 },
  viaIR: true,
  evmVersion: "cancun",
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: {
    "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object", "storageLayout"] },
  },
};

const sha256 = (text) => createHash("sha256").update(text).digest("hex");

/** Reads a source by its import path: "src/…" is ours, "@openzeppelin/…" comes from node_modules. */
function read(path) {
  const file = path.startsWith("@") ? join(root, "node_modules", path) : join(root, path);
  return readFileSync(file, "utf8");
}

function compile() {
  const loaded = {};
  const sources = {};
  const add = (directory) => {
    if (!existsSync(join(root, directory))) return;
    for (const name of readdirSync(join(root, directory)).sort()) {
      if (name.endsWith(".sol")) {
        const path = `${directory}/${name}`;
        loaded[path] = read(path);
        sources[path] = { content: loaded[path] };
      }
    }
  };
  add("src");
  add("src/x402");
  add("test");
  const findImport = (path) => {
    try {
      loaded[path] = read(path);
      return { contents: loaded[path] };
    } catch {
      return { error: `not found: ${path} (run npm ci --ignore-scripts)` };
    }
  };
  const input = { language: "Solidity", sources, settings: SETTINGS };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: findImport }));
  // Warnings in our own sources fail as well: there are none today and each new one is worth a look.
  const ours = (error) => /^(src|test)\//.test(error.sourceLocation?.file ?? "src/");
  const errors = (output.errors ?? []).filter((error) => error.severity === "error" || ours(error));
  for (const error of errors) console.error(error.formattedMessage);
  if (errors.length > 0) process.exit(1);
  return { loaded, contracts: output.contracts };
}

/** The compiler numbers AST nodes by compilation order; type names in the storage layout carry those numbers. */
function stripIds(layout) {
  const text = JSON.stringify(layout).replace(/\)\d+(_storage|_memory)?/g, ")$1").replace(/"astId":\d+,/g, "");
  return JSON.parse(text);
}

/** Keys in alphabetical order, so that the text depends on the content alone. */
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

const text = (value) => JSON.stringify(value, null, 1) + "\n";

function artifacts() {
  const { loaded, contracts } = compile();
  const files = {};
  const emit = (directory, file, name) => {
    const contract = contracts[`${directory}/${file}.sol`][name];
    const deployed = `0x${contract.evm.deployedBytecode.object}`;
    if ((deployed.length - 2) / 2 > 24576) throw new Error(`${name} is larger than EIP-170 allows`);
    files[`${name}.json`] = text({
      contractName: name,
      abi: sorted(contract.abi),
      bytecode: `0x${contract.evm.bytecode.object}`,
      deployedBytecode: deployed,
      storageLayout: sorted(stripIds(contract.storageLayout)),
    });
  };
  for (const path of CONTRACTS) emit("src", path, path.split("/").at(-1));
  for (const file of TEST_CONTRACTS) {
    for (const name of Object.keys(contracts[`test/${file}.sol`] ?? {}).sort()) emit("test", file, name);
  }
  files["sources.lock.json"] = text({
    compiler: solc.version(),
    settings: SETTINGS,
    sources: Object.fromEntries(Object.keys(loaded).sort().map((path) => [path, sha256(loaded[path])])),
  });
  return files;
}

const files = artifacts();
if (process.argv.includes("--check")) {
  const committed = new Set(existsSync(out) ? readdirSync(out) : []);
  const differing = Object.keys(files).filter(
    (name) => !committed.has(name) || readFileSync(join(out, name), "utf8") !== files[name],
  );
  const stray = [...committed].filter((name) => !(name in files));
  for (const name of differing) console.error(`artifacts/${name} is not what the sources compile to`);
  for (const name of stray) console.error(`artifacts/${name} has no source`);
  if (differing.length + stray.length > 0) {
    console.error("run: npm ci --ignore-scripts && node compile.mjs");
    process.exit(1);
  }
  console.log(`${Object.keys(files).length} artifacts are up to date`);
} else {
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(out, name), content);
  console.log(`wrote ${Object.keys(files).length} files to artifacts/`);
}
