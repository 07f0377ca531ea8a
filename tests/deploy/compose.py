"""deploy/compose.yaml: everything it names is there, nothing runs as root or writes its image, nobody gets past the gateway."""

import copy
import sys
from pathlib import Path

import yaml


def problems(compose, folder):
    services, volumes, networks = compose["services"], compose["volumes"], compose["networks"]
    for name, one in services.items():
        for key in set(one) - {
            "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "mem_limit", "networks",
            "pids_limit", "ports", "read_only", "restart", "security_opt", "stop_grace_period", "user", "volumes",
        }:
            yield f"{name}: unknown key {key}"
        if "no-new-privileges:true" not in one.get("security_opt", []):
            yield f"{name}: may get more rights"
        # Postgres begins as root to own its folder, and writes beside it.
        if name != "postgres" and (one.get("user", "0").startswith("0") or not one.get("read_only") or one.get("cap_drop") != ["ALL"]):
            yield f"{name}: not locked up"
        if one["image"] != "linkgate" and one["image"].partition(":")[2] in ("", "latest"):
            yield f"{name}: no fixed image"
        for other, how in one.get("depends_on", {}).items():
            condition = how["condition"]
            if other not in services or (condition == "service_healthy" and "healthcheck" not in services[other]):
                yield f"{name}: waits for {other} in vain"
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            made = source == "./compose/signing.pem"
            if not (source in volumes or made or (source.startswith("./") and (folder / source).exists())):
                yield f"{name}: there is no {source}"
        for network in one.get("networks", []):
            if network not in networks:
                yield f"{name}: there is no network {network}"
        if name != "gateway" and ("ports" in one or set(one["networks"]) != {"back"} and name != "migrate"):
            yield f"{name}: can be reached past the gateway"
        for port in one.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name}: {port} is open to the network"
    if not networks["back"].get("internal"):
        yield "the inner network leads out"


def main(path):
    path = Path(path)
    compose = yaml.safe_load(path.read_text())
    found = list(problems(compose, path.parent))
    for what, breaks in {
        "root": lambda c: c["services"]["gateway"].update(user="0"),
        "a key": lambda c: c["services"]["gateway"].update(healtcheck={}),
        "a path": lambda c: c["services"]["isp"].update(ports=["127.0.0.1:8000:8000"]),
        "a file": lambda c: c["services"]["gateway"]["volumes"].append("./compose/nothing:/x"),
        "the network": lambda c: c["networks"]["back"].clear(),
    }.items():
        broken = copy.deepcopy(compose)
        breaks(broken)
        if not list(problems(broken, path.parent)):
            found.append(f"not noticed when broken on purpose: {what}")
    for problem in found:
        print(f"{path}: {problem}", file=sys.stderr)
    print(f"{path}: {len(compose['services'])} services, {len(found)} problems")
    return 1 if found else 0


sys.exit(main(sys.argv[1]))
