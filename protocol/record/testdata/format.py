"""Reads the examples of the format document: python3 format.py format.md

An outsider's reader, of the standard library alone: it decodes the dag-cbor that
the document describes, encodes it again, and recomputes CIDs, signed bytes, the
seals of the store and the model. Signatures are verified where the package
cryptography is installed.
"""

import base64
import fractions
import hashlib
import json
import re
import struct
import sys


class Link(str):
    """The CID that a link holds, as text."""


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | code]) + n.to_bytes(size, "big")
    raise ValueError("too large")


def encode(v):
    if v is True or v is False:
        return b"\xf5" if v else b"\xf4"
    if isinstance(v, Link):
        raw = b"\0" + base64.b32decode(v[1:].upper() + "=" * (-len(v[1:]) % 8))
        return head(6, 42) + encode(raw)
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, float):
        if v != v or v in (float("inf"), float("-inf")):
            raise ValueError("not a number")
        return b"\xfb" + struct.pack(">d", v)
    if isinstance(v, bytes):
        return head(2, len(v)) + v
    if isinstance(v, str):
        return head(3, len(v.encode())) + v.encode()
    if isinstance(v, list):
        return head(4, len(v)) + b"".join(map(encode, v))
    keys = sorted(v, key=lambda k: (len(k.encode()), k.encode()))
    return head(5, len(v)) + b"".join(encode(k) + encode(v[k]) for k in keys)


def item(b):
    """One value, and the bytes behind it."""
    major, n, b = b[0] >> 5, b[0] & 31, b[1:]
    if major == 7:
        if n in (20, 21):
            return n == 21, b
        if n != 27:
            raise ValueError("neither a boolean nor a float of 8 bytes")
        return struct.unpack(">d", b[:8])[0], b[8:]
    if n > 27:
        raise ValueError("no length")
    if n > 23:
        size = 1 << n - 24
        n, b = int.from_bytes(b[:size], "big"), b[size:]
    if major == 0:
        return n, b
    if major == 1:
        return -1 - n, b
    if major in (2, 3):
        if n > len(b):
            raise ValueError("cut short")
        return (b[:n] if major == 2 else b[:n].decode()), b[n:]
    if major == 4:
        values = []
        for _ in range(n):
            v, b = item(b)
            values.append(v)
        return values, b
    if major == 5:
        pairs = {}
        for _ in range(n):
            k, b = item(b)
            pairs[k], b = item(b)
        return pairs, b
    raw, b = item(b)
    if n != 42 or raw[0] != 0:
        raise ValueError("not a link")
    return Link(text(raw[1:])), b


def decode(b):
    v, rest = item(b)
    if rest or encode(v) != b:
        raise ValueError("not the one encoding")
    return v


def text(cid):
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def cid(codec, b):
    return text(bytes([1, codec, 0x12, 0x20]) + hashlib.sha256(b).digest())


def tensors(b):
    size = struct.unpack("<Q", b[:8])[0]
    header, data, out = json.loads(b[8 : 8 + size]), b[8 + size :], {}
    for name, t in header.items():
        if name == "__metadata__":
            out[name] = t
            continue
        start, end = t["data_offsets"]
        numbers = struct.unpack("<%dd" % ((end - start) // 8), data[start:end])
        out[name] = {"shape": t["shape"], "numbers": list(numbers)}
    return out


def spelled(v, names):
    """The value as the document writes it."""
    if isinstance(v, Link):
        return {"/": str(v)}
    if isinstance(v, bytes):
        if v and v in names:
            return {"example": names[v]}
        return {"/": {"bytes": base64.b64encode(v).decode().rstrip("=")}}
    if isinstance(v, list):
        return [spelled(e, names) for e in v]
    if isinstance(v, dict):
        return {k: spelled(e, names) for k, e in v.items()}
    return v


def check(ok, what):
    if not ok:
        sys.exit("wrong: " + what)


def signed(e):
    b = b"village record v1\0"
    for field in (e["federation"].encode(), e["kind"].encode(), e["subject"].encode(), e["author"], e["payload"]):
        b += struct.pack(">Q", len(field)) + field
    return b + struct.pack(">Q", e["number"])


def verifier():
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return None
    return lambda key, signature, b: Ed25519PublicKey.from_public_bytes(key).verify(signature, b)


def main(path):
    document = open(path, encoding="utf-8").read()
    form = r"\n#### (record|dag-cbor|safetensors|signed): ([^\n]+)\n\n(?:`([a-z0-9]+)`\n\n)?(?:```json\n(.*?)\n```\n\n)?```hex\n(.*?)\n```\n"
    examples = {}
    for kind, name, named, meaning, digits in re.findall(form, document, re.S):
        examples[name] = (kind, named, meaning, bytes.fromhex(digits.replace("\n", "")))
    names = {b: name for name, (_, _, _, b) in examples.items()}
    verify, verified = verifier(), 0

    for name, (kind, named, meaning, b) in examples.items():
        if kind == "signed":
            continue
        check(cid(0x55 if kind == "safetensors" else 0x71, b) == named, "the CID of " + name)
        v = tensors(b) if kind == "safetensors" else decode(b)
        if kind == "record":
            if verify:
                verify(v["author"], v["signature"], signed(v))
                verified += 1
            v["payload"] = decode(v["payload"])
        # Compared as text, for 1 is not 1.0 nor true.
        got, want = json.dumps(spelled(v, names), sort_keys=True), json.dumps(json.loads(meaning), sort_keys=True)
        check(got == want, "what %s means: %s" % (name, got))

    leave = decode(examples["leave of node 2"][3])
    check(signed(leave) == examples["what the signature of the leave covers"][3], "the signed bytes")

    for digits, why in re.findall(r"^\| `([0-9a-f]+)` \| (.*) \|$", document, re.M):
        try:
            decode(bytes.fromhex(digits))
            taken = True
        except (ValueError, IndexError, struct.error):
            taken = False
        check(taken == why.startswith("taken"), "%s is %s" % (digits, why))

    store = re.search(r"\n#### store: [^\n]+\n\n```json\n(.*?)\n```\n", document, re.S).group(1)
    for entry in json.loads(store):
        known = examples.get(entry["value"])
        value = known[3] if known else bytes.fromhex(entry["value"])
        if "seal" in entry:
            seal = hashlib.sha256(bytes.fromhex(entry["key"]) + value).hexdigest()
            check(seal == entry["seal"], "the seal of " + entry["key"])
        else:
            check(entry["key"].endswith(hashlib.sha256(value).hexdigest()), "the hash in " + entry["key"])

    # The model, exactly: Python's fractions round to the nearest, ties to even.
    parts = decode(examples["final set"][3])["parts"]
    vectors = [tensors(examples["vector of node %d" % (i + 1)][3]) for i in range(len(parts))]
    model = tensors(examples["model"][3])
    for tensor in ("weight", "bias"):
        total = sum(p["weight"] * round(fractions.Fraction(v[tensor]["numbers"][0]) * 2**64) for p, v in zip(parts, vectors))
        mean = fractions.Fraction(total, 2**64 * sum(p["weight"] for p in parts))
        check(float(mean) == model[tensor]["numbers"][0], tensor + " of the model")

    print("%d examples read, %s" % (len(examples), "%d signatures verified" % verified if verify else "signatures NOT verified: there is no package cryptography"))


main(sys.argv[1])
