#!/usr/bin/env python3
"""Writes the golden vectors of docs/specs/receipt.md and ledger.md, from nothing but the Python standard library.

This is an implementation of its own (CBOR, Keccak, Ed25519, Merkle tree, charges): the Rust crates must agree with it byte for
byte. Run `python3 testing/vectors/generate.py` after a deliberate change of a format; a changed vector is a breaking change.
"""
import base64
import hashlib
import json
import pathlib

HERE = pathlib.Path(__file__).parent


# Keccak-256 (FIPS 202 permutation, original padding 0x01).
def keccak(data: bytes) -> bytes:
    rotations = [[0, 36, 3, 41, 18], [1, 44, 10, 45, 2], [62, 6, 43, 15, 61], [28, 55, 25, 21, 56], [27, 20, 39, 8, 14]]
    mask = (1 << 64) - 1
    rate = 136
    data = bytearray(data) + b"\x01" + b"\x00" * (-(len(data) + 1) % rate)
    data[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    rol = lambda v, n: ((v << n) | (v >> (64 - n))) & mask if n else v
    for start in range(0, len(data), rate):
        for i in range(rate // 8):
            lanes[i % 5][i // 5] ^= int.from_bytes(data[start + 8 * i:start + 8 * i + 8], "little")
        lfsr = 1
        for _ in range(24):
            c = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
            d = [c[(x - 1) % 5] ^ rol(c[(x + 1) % 5], 1) for x in range(5)]
            lanes = [[lanes[x][y] ^ d[x] for y in range(5)] for x in range(5)]
            b = [[0] * 5 for _ in range(5)]
            for x in range(5):
                for y in range(5):
                    b[y][(2 * x + 3 * y) % 5] = rol(lanes[x][y], rotations[x][y])
            lanes = [[b[x][y] ^ (~b[(x + 1) % 5][y] & mask & b[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
            for j in range(7):
                if lfsr & 1:
                    lanes[0][0] ^= 1 << ((1 << j) - 1)
                lfsr = ((lfsr << 1) ^ ((lfsr >> 7) * 0x171)) & 0xFF
    return b"".join(lanes[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# BLAKE3 (the paper's section 2, hash mode only).
BLAKE3_IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
BLAKE3_ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]


def blake3_compress(cv, block, counter, length, flags):
    words = [int.from_bytes(block[i:i + 4], "little") for i in range(0, 64, 4)]
    v = cv + BLAKE3_IV[:4] + [counter & 0xFFFFFFFF, counter >> 32, length, flags]

    def mix(a, b, c, d, x, y):
        for word, r, q in ((x, 16, 12), (y, 8, 7)):
            v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
            v[d] = (lambda n: (n >> r | n << (32 - r)) & 0xFFFFFFFF)(v[d] ^ v[a])
            v[c] = (v[c] + v[d]) & 0xFFFFFFFF
            v[b] = (lambda n: (n >> q | n << (32 - q)) & 0xFFFFFFFF)(v[b] ^ v[c])

    for _ in range(7):
        for i, (a, b, c, d) in enumerate(((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                                          (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))):
            mix(a, b, c, d, words[2 * i], words[2 * i + 1])
        words = [words[i] for i in BLAKE3_ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def blake3(data: bytes) -> bytes:
    def subtree(part, chunk, root):
        if len(part) <= 1024:
            cv = BLAKE3_IV
            blocks = [part[i:i + 64] for i in range(0, len(part), 64)] or [b""]
            for i, block in enumerate(blocks):
                last = i == len(blocks) - 1
                flags = (1 if i == 0 else 0) | (2 if last else 0) | (8 if last and root else 0)
                cv = blake3_compress(cv, block.ljust(64, b"\0"), chunk, len(block), flags)
            return cv
        left = 1024
        while left * 2 < len(part):
            left *= 2
        pair = subtree(part[:left], chunk, False) + subtree(part[left:], chunk + left // 1024, False)
        return blake3_compress(BLAKE3_IV, b"".join(w.to_bytes(4, "little") for w in pair), 0, 64, 4 | (8 if root else 0))
    return b"".join(w.to_bytes(4, "little") for w in subtree(data, 0, True))


def manifest(version, kind, entry, files):
    """Canonical CBOR of a model's manifest and its root."""
    def one(path, content):
        fields = {1: path, 2: len(content), 3: sha256(content)}
        if version == 2:
            fields[4] = blake3(content)
            fields[5] = hashlib.sha1(b"blob %d\0" % len(content) + content).digest()
        return fields
    encoded = cbor({1: version, 2: kind, 3: [one(p, c) for p, c in sorted(files.items())], 4: entry})
    return encoded, tagged(f"opg/model/v{version}", encoded)


def tagged(tag: str, *parts: bytes) -> bytes:
    out = bytes([len(tag)]) + tag.encode()
    for part in parts:
        out += len(part).to_bytes(8, "big") + part
    return sha256(out)


# Deterministic CBOR. Tagged values are ("tag", n, value).
def cbor(value) -> bytes:
    def head(major, n):
        if n < 24:
            return bytes([major << 5 | n])
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if n < 1 << (8 * size):
                return bytes([major << 5 | info]) + n.to_bytes(size, "big")
        raise ValueError(n)

    if value is None:
        return b"\xf6"
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    if isinstance(value, dict):
        pairs = sorted((cbor(k), cbor(v)) for k, v in value.items())
        return head(5, len(pairs)) + b"".join(k + v for k, v in pairs)
    if isinstance(value, tuple) and value[0] == "tag":
        return head(6, value[1]) + cbor(value[2])
    raise TypeError(type(value))


# Ed25519 (RFC 8032, section 6, shortened).
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def point_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_mul(s, p):
    q = (0, 1, 1, 0)
    while s:
        if s & 1:
            q = point_add(q, p)
        p = point_add(p, p)
        s >>= 1
    return q


def recover_x(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P)
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if (x & 1) != sign else x


GY = 4 * pow(5, P - 2, P) % P
GX = recover_x(GY, 0)
G = (GX, GY, 1, GX * GY % P)


def compress(p):
    z = pow(p[2], P - 2, P)
    x, y = p[0] * z % P, p[1] * z % P
    return (y | ((x & 1) << 255)).to_bytes(32, "little")


def expand(secret):
    h = hashlib.sha512(secret).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    return a, h[32:]


def ed25519_public(secret):
    return compress(point_mul(expand(secret)[0], G))


def ed25519_sign(secret, message):
    a, prefix = expand(secret)
    public = compress(point_mul(a, G))
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    big_r = compress(point_mul(r, G))
    h = int.from_bytes(hashlib.sha512(big_r + public + message).digest(), "little") % L
    return big_r + ((r + h * a) % L).to_bytes(32, "little")


def cose(kind, keyset, payload, secret):
    protected = cbor({1: -8, 3: f"application/opg-{kind}+cbor", 4: keyset})
    structure = cbor(["Signature1", protected, f"opg/{kind}/v1".encode(), payload])
    return cbor(("tag", 18, [protected, {}, payload, ed25519_sign(secret, structure)]))


# Merkle tree of RFC 6962 shape (ledger.md section 9).
def leaf(core_hash):
    return keccak(b"\x00" + core_hash)


def split_point(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def tree(leaves):
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        return leaves[0]
    k = split_point(len(leaves))
    return keccak(b"\x01" + tree(leaves[:k]) + tree(leaves[k:]))


def path(leaves, i):
    if len(leaves) == 1:
        return []
    k = split_point(len(leaves))
    if i < k:
        return path(leaves[:k], i) + [tree(leaves[k:])]
    return path(leaves[k:], i - k) + [tree(leaves[:k])]


def batch_root(height, leaves):
    return keccak(b"\x02" + height.to_bytes(8, "big") + len(leaves).to_bytes(4, "big") + tree(leaves))


# Money (ledger.md section 6).
def charge(price, usage, royalty):
    base = price[0] + -(-(usage[0] * price[1] + usage[1] * price[2]) // 10**6)
    return -(-base * 10000 // (10000 - royalty))


def split(amount, royalty, router, auditors, creator):
    royalty_part = amount * (royalty if creator else 0) // 10000
    rest = amount - royalty_part
    weights = [80, 5, 3, 2]
    shares = [rest * w // 90 for w in weights]
    left = rest - sum(shares)
    for i in sorted(range(4), key=lambda i: (-(rest * weights[i] % 90), i))[:left]:
        shares[i] += 1
    node, auditor, treasury, route = shares
    insurance = 0
    if not router:
        node, route = node + route, 0
    if not auditors:
        insurance, auditor = auditor, 0
    return {"node": str(node), "creator": str(royalty_part), "auditors": str(auditor), "treasury": str(treasury),
            "router": str(route), "insurance": str(insurance)}


def hx(data: bytes) -> str:
    return "0x" + data.hex()


def word(data: bytes) -> bytes:
    return data.rjust(32, b"\x00")


def amount(wei: int) -> bytes:
    return wei.to_bytes(16, "big")


def seats_abi(seats):
    """abi.encode(Seat[]) with Seat = (address operator, bytes32 consensusKey, bytes blsKey, address system)."""
    number = lambda n: n.to_bytes(32, "big")
    items = []
    for operator, identity, bls, system in seats:
        padded = bls + b"\x00" * (-len(bls) % 32)
        items.append(word(operator) + identity + number(128) + word(system) + number(len(bls)) + padded)
    offsets, at = b"", 32 * len(items)
    for item in items:
        offsets += number(at)
        at += len(item)
    return number(32) + number(len(items)) + offsets + b"".join(items)


def fill(byte, size=32):
    return bytes([byte]) * size


def write(name, value):
    (HERE / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


REJECTED = {
    "indefinite array": "9fff", "indefinite map": "bfff", "indefinite bytes": "5fff", "indefinite text": "7fff",
    "integer not shortest (1 byte)": "1817", "integer not shortest (2 bytes)": "1900ff", "integer not shortest (4 bytes)": "1a0000ffff",
    "integer not shortest (8 bytes)": "1b00000000ffffffff", "length not shortest": "580161", "negative not shortest": "3800",
    "half float": "f90000", "single float": "fa00000000", "double float": "fb0000000000000000", "undefined": "f7", "simple 0": "e0",
    "simple value in two bytes": "f8ff", "break alone": "ff", "reserved info": "1c", "tag": "c100", "duplicate key": "a200000001",
    "unsorted keys": "a201000000", "longer key first": "a2617800000000", "text is not UTF-8": "61ff", "overlong UTF-8": "62c080", "surrogate": "63eda080",
    "trailing byte": "0000", "empty input": "", "truncated integer": "18", "truncated text": "6261", "huge bytes": "5b7fffffffffffffff",
    "huge text": "7b7fffffffffffffff", "huge array": "9bffffffffffffffff", "huge map": "bbffffffffffffffff", "map of half a pair": "a100",
    "nine levels": "818181818181818100",
}


def main():
    values = {
        "0": 0, "23": 23, "24": 24, "255": 255, "256": 256, "65535": 65535, "65536": 65536, "2^32-1": 2**32 - 1, "2^32": 2**32,
        "2^64-1": 2**64 - 1, "-1": -1, "-8": -8, "-25": -25, "-2^64": -2**64, "empty bytes": b"", "24 bytes": fill(7, 24), "text": "größe ✓",
        "list": [1, [2, b"x"], {}], "map": {24: 0, 1: "a", "b": [], -1: None, b"k": True, "aa": False},
    }
    write("cbor.json", {
        "accepted": [{"name": name, "hex": cbor(v).hex()} for name, v in values.items()],
        "accepted_with_tags": [{"name": "tag 18", "hex": cbor(("tag", 18, [b"", {}])).hex()}],
        "rejected": [{"name": name, "hex": text} for name, text in REJECTED.items()],
    })

    write("hashes.json", {
        "keccak": [{"input": hx(d), "hash": hx(keccak(d))} for d in (b"", b"abc", fill(1, 135), fill(2, 136), fill(3, 300))],
        "tagged": [{"tag": t, "parts": [hx(p) for p in parts], "hash": hx(tagged(t, *parts))} for t, parts in (
            ("opg/request/v1", []), ("opg/request/v1", [b""]), ("opg/request/v1", [b"salt", b"body"]),
            ("opg/params/v1", [fill(9), b"{}"]), ("opg/genesis/v1", [fill(3, 1000)]))],
    })

    leaves = [leaf(keccak(bytes([i]))) for i in range(11)]
    write("merkle.json", {
        "core_hashes": [hx(keccak(bytes([i]))) for i in range(11)],
        "trees": [{"count": n, "tree_root": hx(tree(leaves[:n])), "height": 7 * n, "batch_root": hx(batch_root(7 * n, leaves[:n])),
                   "paths": [[hx(s) for s in path(leaves[:n], i)] for i in range(n)]} for n in range(12)],
    })

    opg = 10**18
    prices = [((0, 2 * opg, 10 * opg), (1000, 200), 1000), ((opg // 1000, 0, 0), (0, 0), 0), ((1, 1, 1), (1, 1), 3000),
              ((0, 0, 0), (5, 5), 2500), ((10**30, 10**30, 10**30), (2**20, 2**20), 1), ((0, 1, 0), (999_999, 0), 0), ((0, 1, 0), (1_000_001, 0), 9)]
    sums = [0, 1, 7, 89, 90, 91, 10**18, 10**18 + 1, 123456789012345678901, 2**127 - 1]
    write("money.json", {
        "charges": [{"price": {"per_call": str(p[0]), "per_mtok_in": str(p[1]), "per_mtok_out": str(p[2])},
                     "usage": {"input": u[0], "output": u[1]}, "royalty_bps": r, "charge": str(charge(p, u, r))} for p, u, r in prices],
        "splits": [{"charge": str(s), "royalty_bps": r, "router": ro, "auditors": au, "creator": cr, "split": split(s, r, ro, au, cr)}
                   for s in sums for r in (0, 1, 1000, 3000) for ro, au, cr in
                   ((False, False, True), (True, True, True), (True, False, False))],
    })

    # Manifests of models. What Python cannot say as short as this: content is a byte repeated.
    models = [(1, "model.onnx", {"model.onnx": (0, 0)}), (2, "model.gguf", {"model.gguf": (0x61, 1)}), (1, "model.onnx", {"model.onnx": (7, 1024)}),
              (2, "model.gguf", {"model.gguf": (7, 1025)}), (2, "model.gguf", {"model.gguf": (9, 70_000)}),
              (1, "m/net.onnx", {"m/net.onnx": (1, 5000), "m/weights.bin": (2, 40_000), "LICENSE": (3, 12)})]
    write("manifest.json", {
        "blake3": [{"byte": b, "length": n, "hash": hx(blake3(bytes([b]) * n))} for b, n in ((0, 0), (1, 1), (2, 64), (3, 65), (4, 1024), (5, 3073), (6, 16_385))],
        "manifests": [{"version": v, "format": {1: "onnx", 2: "gguf"}[kind], "entry": entry,
                       "files": [{"path": p, "byte": b, "length": n} for p, (b, n) in files.items()],
                       "cbor": hx(encoded), "root": hx(root)}
                      for v in (1, 2) for kind, entry, files in models
                      for encoded, root in [manifest(v, kind, entry, {p: bytes([b]) * n for p, (b, n) in files.items()})]],
    })

    # Identifiers, one node with its keys.
    operator, salt = fill(0x11, 20), fill(0x22)
    node_id = keccak(word(operator) + salt)
    secret = fill(0x33)
    keyset = {"node_id": node_id, "receipt_key": ed25519_public(secret), "settlement_key": fill(0x44, 20), "hpke_key": bytes(32), "tls_spki": fill(0x55)}
    keyset_digest = keccak(b"".join(word(v) for v in keyset.values()))
    predeploy = lambda n: bytes.fromhex(f"{n:040x}")
    vault, implementation = predeploy(0x1004), predeploy(0x1006)
    init = bytes.fromhex("3d602d80600a3d3981f3363d3d373d3d3d363d73") + implementation + bytes.fromhex("5af43d82803e903d91602b57fd5bf3")
    deposit = keccak(b"\xff" + vault + node_id + keccak(init))[12:]
    payer, nonce = fill(0x66, 20), fill(0x77)
    chain_id, quote_nonce = 10740, fill(0x88)
    receipt_id = tagged("opg/receipt-id/v1", chain_id.to_bytes(8, "big"), node_id, quote_nonce)
    write("ids.json", {
        "operator": hx(operator), "salt": hx(salt), "node_id": hx(node_id), "keyset": {k: hx(v) for k, v in keyset.items()},
        "keyset_digest": hx(keyset_digest), "vault": hx(vault), "implementation": hx(implementation), "deposit_address": hx(deposit),
        "payer": hx(payer), "nonce": hx(nonce), "payment_id": hx(keccak(word(payer) + nonce)), "chain_id": chain_id,
        "quote_nonce": hx(quote_nonce), "receipt_id": hx(receipt_id),
    })

    # One receipt of a chat call, with its quote.
    content_salt = fill(0x99)
    body = b'{"model":"demo/tiny-llama","messages":[{"role":"user","content":"hi"}]}'
    params = '{"max_tokens":64,"temperature":0}'
    parts = [(3, "Hmm."), (0, "Grüße!")]
    leaf_hashes = [tagged("opg/response-leaf/v1", content_salt, bytes([kind]), i.to_bytes(4, "big"), text.encode())
                   for i, (kind, text) in enumerate(parts)]
    ask = (0, 2 * opg, 10 * opg)
    asset, registry, model_root = predeploy(0x1001), predeploy(0x1002), fill(0xaa)
    most = charge(ask, (1000, 64), 1000)
    ask_map = {1: amount(ask[0]), 2: amount(ask[1]), 3: amount(ask[2])}
    quote_payload = cbor({
        1: 1, 2: chain_id, 3: node_id, 4: keyset_digest, 5: quote_nonce, 6: receipt_id,
        7: sha256(b"POST\x00/v1/chat/completions\x00" + body), 8: model_root, 9: ask_map, 10: 1000, 11: amount(most), 12: deposit, 13: asset,
        14: 1_790_000_060, 15: 0, 16: 0})
    quote = cose("quote", keyset_digest, quote_payload, secret)
    chunks, rolling = [b"Gr", b"", "üße!".encode()], bytes(32)
    for chunk in chunks:
        rolling = tagged("opg/stream/v1", rolling, chunk)
    core = {
        1: 1, 2: chain_id, 3: registry, 4: node_id, 5: keyset_digest, 6: 0, 7: bytes(32), 8: receipt_id, 9: {1: sha256(quote), 2: quote_nonce},
        10: {1: tagged("opg/request/v1", content_salt, body), 2: tagged("opg/params/v1", content_salt, params.encode())},
        11: {1: "demo/tiny-llama", 2: model_root, 3: model_root, 4: fill(0xbb)},
        12: {1: tagged("opg/response/v1", len(parts).to_bytes(4, "big"), *leaf_hashes), 2: len(parts), 3: "stop", 4: 200},
        13: {1: "tokens", 2: 1000, 3: 7},
        14: {**ask_map, 4: 1000, 5: amount(charge(ask, (1000, 7), 1000)), 6: asset},
        15: {1: "exact", 2: "eip3009", 3: payer, 4: deposit, 5: amount(most), 6: 0, 7: 1_790_000_600, 8: nonce, 9: fill(0xcc, 65)},
        16: {1: 1_790_000_000_000, 2: 1_790_000_000_120, 3: 1_790_000_000_900}, 17: {1: 0, 2: 0, 3: 0, 4: 0},
        18: {1: True, 2: len(chunks), 3: rolling, 4: False},
    }
    payload = cbor(core)
    receipt = cose("receipt", keyset_digest, payload, secret)
    second = dict(core)
    second.update({6: 1, 7: keccak(payload), 20: fill(0xdd, 20)})
    second[17] = {1: 1, 2: 1, 3: 1, 4: 1}
    second[19] = {1: fill(0xee), 2: fill(0xef), 3: 4, 4: 1_790_000_600}
    second_payload = cbor(second)
    # The same receipt, paid in every other way.
    permit = {3: payer, 4: deposit, 5: amount(most), 6: 0, 7: 1_790_000_600, 8: fill(0x77), 9: fill(0xcc, 65)}
    channel = {1: fill(0x31, 20), 2: fill(0x32, 20), 3: 3600, 4: fill(0x33), 5: amount(3 * most)}
    payments = {
        "paid_by_permit": {1: "exact", 2: "permit2", **permit},
        "paid_up_to": {1: "upto", 2: "permit2", **permit, 11: fill(0x34, 20)},
        "paid_by_channel": {1: "batch-settlement", 2: "voucher", 3: payer, 4: deposit, 5: amount(most), 8: fill(0x35), 9: fill(0xcc, 65), 10: channel},
    }
    by_permit = keccak(keccak(b"opg/payments/permit2") + word(payer) + fill(0x77))
    ids = {"paid_by_permit": by_permit, "paid_up_to": by_permit, "paid_by_channel": keccak(word(payer) + fill(0x35))}
    paid = {}
    for name, payment in payments.items():
        other = cbor({**core, 15: payment})
        paid[name] = {"payload": hx(other), "core_hash": hx(keccak(other)), "cose": hx(cose("receipt", keyset_digest, other, secret)),
                      "payment_id": hx(ids[name])}
    # The answer of a closed model, from a TLS peer that told its names.
    upstream = {1: 1, 2: "anthropic", 3: "api.anthropic.com", 4: 443, 5: "claude-sonnet-4-5", 6: "opg-upstream/anthropic/1",
                7: tagged("opg/upstream-request/v1", content_salt, sha256(b"sent")), 8: tagged("opg/upstream-answer/v1", content_salt, sha256(b"came")),
                9: 4, 10: True, 11: fill(0xc1), 12: fill(0xc2), 13: "msg_01", 14: "claude-sonnet-4-5-20250929"}
    closed = tagged("opg/closed-model/v1", b"anthropic", b"api.anthropic.com", b"claude-sonnet-4-5")
    third = dict(core)
    third.update({6: 2, 7: keccak(second_payload), 11: {**core[11], 2: closed, 3: closed}, 21: upstream})
    third_payload = cbor(third)
    bare = {k: v for k, v in upstream.items() if k < 11}
    fourth_payload = cbor({**third, 6: 3, 7: keccak(third_payload), 21: bare})
    write("receipt.json", {
        "secret": hx(secret), "public": hx(ed25519_public(secret)), "salt": hx(content_salt), "method": "POST", "path": "/v1/chat/completions",
        "body": hx(body), "params": params, "leaves": [{"kind": k, "bytes": hx(t.encode()), "hash": hx(leaf_hashes[i])} for i, (k, t) in enumerate(parts)],
        "chunks": [hx(c) for c in chunks], "rolling_hash": hx(rolling),
        "quote": {"payload": hx(quote_payload), "cose": hx(quote), "digest": hx(sha256(quote))},
        "receipt": {"payload": hx(payload), "core_hash": hx(keccak(payload)), "cose": hx(receipt)},
        "with_evidence_and_router": {"payload": hx(second_payload), "core_hash": hx(keccak(second_payload)),
                                     "cose": hx(cose("receipt", keyset_digest, second_payload, secret))},
        **paid,
        "with_upstream": {"payload": hx(third_payload), "core_hash": hx(keccak(third_payload)), "cose": hx(cose("receipt", keyset_digest, third_payload, secret))},
        "with_bare_upstream": {"payload": hx(fourth_payload), "core_hash": hx(keccak(fourth_payload)),
                               "cose": hx(cose("receipt", keyset_digest, fourth_payload, secret))},
        "closed_model_root": hx(closed),
    })

    # The receipt file of it, written by hand to the specified layout.
    b64 = lambda data: base64.b64encode(data).decode()
    file = {
        "type": "opg-receipt-file", "version": 1, "core": hx(receipt), "keyset": {k: hx(v) for k, v in keyset.items()}, "quote": hx(quote),
        "opening": {"salt": hx(content_salt), "method": "POST", "path": "/v1/chat/completions", "body": b64(body), "params": params,
                    "leaves": [{"kind": k, "bytes": b64(t.encode())} for k, t in parts]},
        "inclusion": None, "registration": None, "payment": None,
    }
    write("receipt-file.receipt.json", file)

    # The same file with hand-overs. Their contents are not checked by the format.
    seats = [(fill(0xa0 + i, 20), fill(0xb0 + i), fill(0xc0 + i, 96), fill(0xd0 + i, 20)) for i in range(4)]
    encoded = seats_abi(seats)
    slot = keccak(word((1).to_bytes(8, "big")) + word(b""))
    finality = {"header": "0xc0", "envelopes": [hx(fill(1, 104))], "proposal": "0x000100", "certificate": "0x02"}
    account = {"address": hx(word(b"\x10\x09")[12:]), "proof": ["0x80"], "slots": [{"key": hx(slot), "value": hx(keccak(encoded)), "proof": ["0x80"]}]}
    file["handovers"] = [{"epoch": 1, "state": {"finality": finality, "accounts": [account]}, "seats": hx(encoded)}]
    write("handovers.receipt.json", file)
    write("seats.json", {
        "seats": [{"operator": hx(o), "consensusKey": hx(k), "blsKey": hx(b), "system": hx(s)} for o, k, b, s in seats],
        "encoded": hx(encoded), "set_hash": hx(keccak(encoded)), "slot_of_epoch_1": hx(slot),
        "slot_of_epoch_2_to_the_40": hx(keccak(word((1 << 40).to_bytes(8, "big")) + word(b""))),
    })

    # Every state and every event, with the state that follows.
    words = "quoted authorised executed checked verified final settled released expired disputed refunded slashed dismissed".split()
    follows = {
        ("quoted", "authorise"): "authorised", ("authorised", "execute"): "executed", ("quoted", "expire"): "expired", ("authorised", "expire"): "expired",
        ("executed", "check"): "checked", ("executed", "verify"): "verified", ("checked", "finalise"): "final", ("verified", "finalise"): "final",
        ("final", "settle"): "settled", ("settled", "release"): "released", ("executed", "dispute"): "disputed", ("final", "dispute"): "disputed",
        ("settled", "dispute"): "disputed", ("disputed", "refund"): "refunded", ("disputed", "slash"): "slashed", ("disputed", "dismiss"): "dismissed",
        ("dismissed", "settle"): "settled", ("dismissed", "release"): "released",
    }
    write("lifecycle.json", {"states": words, "transitions": [{"from": a, "event": e, "to": b} for (a, e), b in follows.items()]})


if __name__ == "__main__":
    assert keccak(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert ed25519_public(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")).hex() == \
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    main()
