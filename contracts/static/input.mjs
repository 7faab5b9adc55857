// Writes the compiler's standard JSON input for static analysis into the folder given, with links to the sources that it names.
import { mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const out = process.argv[2];
/** What the analyser cannot read: it does not find the struct that Governor's constructor takes beside its many bases. */
const UNREADABLE = new Set(["src/Governor.sol"]);

const sources = {};
function add(path) {
  if (sources[path]) return;
  const content = readFileSync(join(root, path.startsWith("@") ? "node_modules" : "", path), "utf8");
  sources[path] = { content };
  for (const [, name] of content.matchAll(/import\s[^;]*?"([^"]+)"/g)) {
    add(name.startsWith(".") ? join(dirname(path), name) : name);
  }
}
for (const folder of ["src", "src/x402"]) {
  for (const name of readdirSync(join(root, folder)).sort()) {
    const path = `${folder}/${name}`;
    if (name.endsWith(".sol") && !UNREADABLE.has(path)) add(path);
  }
}
mkdirSync(out, { recursive: true });
for (const [name, target] of [["src", "src"], ["@openzeppelin", "node_modules/@openzeppelin"]]) {
  rmSync(join(out, name), { force: true });
  symlinkSync(join(root, target), join(out, name));
}
const settings = {
  optimizer: { enabled: true, runs: 200 },
  viaIR: true,
  evmVersion: "cancun",
  outputSelection: { "*": { "*": ["abi", "evm.bytecode", "evm.deployedBytecode"], "": ["ast"] } },
};
writeFileSync(join(out, "input.json"), JSON.stringify({ language: "Solidity", sources, settings }));
