#!/usr/bin/env python3
"""Checks an access log with proofs, without anything of linkgate: audit_proof.py LOG.json AUDIT-KEYS.json

Python's standard library, and `openssl` for the one signature (Ed25519). The README, "Check a proof yourself", says why."""
import base64, hashlib, json, subprocess, sys, tempfile

OPENED = "id time partner_id partner_name user_id username action method path resource_type resource_id request_id client_ip user_agent"

def sha(*pieces): return hashlib.sha256(b"".join(pieces)).digest()
def number(n): return n.to_bytes(8, "big")

def need(holds, why):
    if not holds: raise ValueError(why)

def signed(note, keys):
    text, lines = note.rsplit("\n\n", 1)
    text += "\n"
    name = text.split("\n")[0]
    for _, who, data in (line.split(" ") for line in lines.splitlines()):
        data = base64.b64decode(data)
        for key in keys:
            if who == name and data[:4] == sha(name.encode(), b"\n\x01", key)[:4]:
                with tempfile.TemporaryDirectory() as folder:
                    files = {"key": bytes.fromhex("302a300506032b6570032100") + key, "text": text.encode(), "signature": data[4:]}
                    for file, content in files.items(): open(f"{folder}/{file}", "wb").write(content)
                    subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", f"{folder}/key", "-rawin", "-in", f"{folder}/text", "-sigfile", f"{folder}/signature"], check=True, stdout=subprocess.DEVNULL)
                return text.splitlines()
    raise ValueError("no known key signed the checkpoint")

def climb(index, size, node, path):
    last, path = size - 1, [bytes.fromhex(one) for one in path]
    need(0 <= index <= last, "outside of the checkpoint")
    while last:
        if index & 1: node = sha(b"\1", path.pop(0), node)
        elif index < last: node = sha(b"\1", node, path.pop(0))
        index, last = index >> 1, last >> 1
    need(not path, "the path is too long")
    return node

def shown(proof, checkpoint):
    root, first, last = checkpoint
    if proof["line"]:
        line = proof["line"]
        kind, text, texts = line["type"].encode(), line["pub"].encode(), {"whole": json.loads(line["pub"])}
        entry = sha(b"linkgate audit record 1\n", number(len(kind)), kind, number(len(text)), text, bytes.fromhex(line["priv"]), number(0), bytes.fromhex(line["prev"]), number(proof["seq"]))
    else:
        roots, texts = set(), {}
        for part in proof["parts"]["shown"]:
            node = sha(b"linkgate audit part 1\n", part["part"].encode(), b"\n", bytes.fromhex(part["salt"]), part["text"].encode())
            for beside in part["path"]: node = sha(b"\2", *sorted([node, bytes.fromhex(beside)]))
            roots.add(node)
            texts[part["part"]] = json.loads(part["text"])
        need(len(roots) == 1, "parts of different records")
        entry = bytes.fromhex(proof["parts"]["hash"]) + roots.pop()
    need(climb(proof["seq"] - first, last + 1 - first, sha(b"\0", entry), proof["path"]) == root, "not what the chain holds")
    return texts

def check(item, checkpoints):
    proof = item["proof"]
    texts = shown(proof["opening"], checkpoints[proof["chain_id"]])
    opening, own = texts.get("whole") or texts["common"], texts.get("slice")
    done = shown(proof["completion"], checkpoints[proof["chain_id"]])["whole"] if proof["completion"] else {}
    need(not done or done["id"] == opening["id"], "another record's completion")
    for name in OPENED.split():
        hidden = own and item[name] is None and name in ("path", "resource_id")
        need(hidden or item[name] == opening.get(name), name)
    need(item["status"] == done.get("status"), "status")
    said = {**opening, **done}
    if own and said["decision"] == "allow" and opening.get("managed_tenant_id") != own["managed_tenant_id"]: said = own
    need(item["decision"] == said["decision"] and item["reason"] == said.get("reason"), "decision or reason")
    return (own or opening)["managed_tenant_id"]

log, keys = (json.load(open(file)) for file in sys.argv[1:3])
keys = [base64.urlsafe_b64decode(key["x"] + "=") for key in keys["keys"]]
checkpoints = {}
for one in log["checkpoints"]:
    lines = signed(one["note"], keys)
    need(lines[0] == "linkgate/audit/" + one["chain_id"], "a checkpoint of another chain")
    checkpoints[one["chain_id"]] = (base64.b64decode(lines[2]), *map(int, lines[3].split(" ")[1].split("-")))
tenants = {check(item, checkpoints) for item in log["items"]}
need(len(tenants) <= 1, "records of several tenants")
print(f"{len(log['items'])} records about {tenants} are proven")
