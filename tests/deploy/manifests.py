"""The manifests of deploy/kubernetes: valid by the Kubernetes schemas, hardened, and consistent with each other.

`manifests.py VARIANT…` reads what kustomize makes of each folder. At the end it breaks the manifests in every way that
it looks for, and fails where it does not notice: a check that finds nothing would be none.
"""

import copy
import subprocess
import sys
import tomllib

import jsonschema
import kubernetes_validate
import yaml

# The oldest version that knows everything that is used (sidecars, preStop.sleep), and the newest with a schema.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]

# The part of the Prometheus operator's definition that is used; it comes with no Kubernetes schema.
SERVICE_MONITOR = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "spec": {
            "type": "object",
            "required": ["selector", "endpoints"],
            "additionalProperties": False,
            "properties": {
                "jobLabel": {"type": "string"},
                "selector": {
                    "type": "object",
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["port", "path"],
                        "additionalProperties": False,
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(s|m)$"},
                            "scrapeTimeout": {"type": "string", "pattern": "^[0-9]+(s|m)$"},
                        },
                    },
                },
            },
        },
    },
}


def rendered(folder):
    made = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True)
    return [one for one in yaml.safe_load_all(made.stdout) if one]


def schema_problems(resources):
    for resource in resources:
        name = f"{resource.get('kind')}/{resource.get('metadata', {}).get('name')}"
        try:
            if resource.get("kind") == "ServiceMonitor":
                jsonschema.validate(resource, SERVICE_MONITOR)
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(resource, version, strict=True)
        except jsonschema.ValidationError as error:
            yield f"{name}: {error.message}"
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{name}: {getattr(error, 'message', error)}"


def of_kind(resources, kind):
    return [one for one in resources if one.get("kind") == kind]


def pods(resources):
    """Name, labels and spec of every pod template."""
    for one in resources:
        template = (one.get("spec") or {}).get("template")
        if isinstance(template, dict):
            yield f"{one['kind']}/{one['metadata']['name']}", template.get("metadata", {}).get("labels", {}), template["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec.get("containers", [])


def hardening_problems(resources):
    for name, _, spec in pods(resources):
        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{name}: may run as root"
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: no seccomp profile"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: gets a token for the Kubernetes API"
        for word in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(word):
                yield f"{name}: {word}"
        if any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{name}: a folder of the node"
        for one in containers(spec):
            of = f"{name}, {one['name']}"
            own = one.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{of}: may get more rights"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{of}: its root file system can be written"
            if own.get("capabilities", {}) != {"drop": ["ALL"]}:
                yield f"{of}: keeps capabilities"
            if "memory" not in one.get("resources", {}).get("limits", {}) or "cpu" not in one["resources"].get("requests", {}):
                yield f"{of}: no bounds"
            if one["image"].endswith(":latest") or ":" not in one["image"]:
                yield f"{of}: no fixed image"
            if one["name"] == "linkgate":
                for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
                    asked = one.get(probe, {}).get("httpGet", {})
                    if (asked.get("path"), asked.get("port")) != (path, "health"):
                        yield f"{of}: {probe} asks {asked}"


def matches(selector, labels):
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "In" or labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def consistency_problems(resources):
    templates = list(pods(resources))
    serving = [(labels, spec) for _, labels, spec in templates if any(one["name"] == "linkgate" for one in containers(spec))]
    if len(serving) != 1:
        yield f"{len(serving)} pods with a container `linkgate`"
        return
    labels, spec = serving[0]
    ports = {port["name"]: port["containerPort"] for one in containers(spec) for port in one.get("ports", [])}
    if ports != {"public": 8080, "health": 8081}:
        yield f"ports {ports}"
    for one in of_kind(resources, "Service"):
        name, own = one["metadata"]["name"], one["spec"].get("selector") or {}
        reached = [pod for pod, of, _ in templates if matches({"matchLabels": own}, of)]
        if not own or len(reached) != 1 or not matches({"matchLabels": own}, labels):
            yield f"Service/{name} reaches {reached}"
        for port in one["spec"]["ports"]:
            if port.get("targetPort") not in ports:
                yield f"Service/{name}: there is no port {port.get('targetPort')}"
        if {port.get("targetPort") for port in one["spec"]["ports"]} == {"public", "health"}:
            yield f"Service/{name} exposes the health listener with the public one"
    for one in of_kind(resources, "StatefulSet"):
        own = one["spec"]["selector"]
        if not own.get("matchLabels") or not matches(own, one["spec"]["template"]["metadata"]["labels"]):
            yield "the StatefulSet does not select its own pods"
        if one["spec"]["serviceName"] not in [service["metadata"]["name"] for service in of_kind(resources, "Service")]:
            yield "the StatefulSet's service does not exist"
        if "replicas" in one["spec"]:
            yield "`replicas` would fight the autoscaler"
        claims = [claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])]
        mounts = {m["mountPath"]: m["name"] for c in containers(spec) if c["name"] == "linkgate" for m in c["volumeMounts"]}
        if mounts.get("/var/lib/linkgate") not in claims:
            yield "the journal is on no volume of its own"
    for one in of_kind(resources, "Deployment"):
        own = one["spec"]["selector"]
        if not own.get("matchLabels") or not matches(own, one["spec"]["template"]["metadata"]["labels"]):
            yield "the Deployment does not select its own pods"
        if "replicas" in one["spec"]:
            yield "`replicas` would fight the autoscaler"
        mounts = {m["mountPath"]: m["name"] for c in containers(spec) if c["name"] == "linkgate" for m in c["volumeMounts"]}
        copies = [v["name"] for v in spec.get("volumes", []) if "sizeLimit" in (v.get("emptyDir") or {})]
        if not {mounts.get("/var/lib/linkgate"), mounts.get("/tmp")} <= set(copies):
            yield "there is no bounded room for the working copy of the journal"
        kept = [tomllib.loads(c["data"]["linkgate.toml"])["audit"].get("store") for c in of_kind(resources, "ConfigMap")]
        if kept != ["postgres"]:
            yield "the journal is lost with the pod"
    for one in of_kind(resources, "PodDisruptionBudget"):
        if not one["spec"]["selector"].get("matchLabels") or not matches(one["spec"]["selector"], labels):
            yield "the disruption budget selects no replica"
    for one in of_kind(resources, "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        if not any(r["kind"] == target["kind"] and r["metadata"]["name"] == target["name"] for r in resources):
            yield "the autoscaler's target does not exist"
    for one in of_kind(resources, "ServiceMonitor"):
        services = [s for s in of_kind(resources, "Service") if matches(one["spec"]["selector"], s["metadata"].get("labels", {}))]
        offered = [port["name"] for service in services for port in service["spec"]["ports"]]
        if len(services) != 1 or any(endpoint["port"] not in offered for endpoint in one["spec"]["endpoints"]):
            yield f"the ServiceMonitor finds {[s['metadata']['name'] for s in services]}"
    policies = of_kind(resources, "NetworkPolicy")
    if not any(matches(policy["spec"]["podSelector"], labels) for policy in policies):
        yield "no network policy binds linkgate"
    for policy in policies:
        if set(policy["spec"].get("policyTypes", [])) != {"Ingress", "Egress"}:
            yield "a direction is left open"
        for rule in policy["spec"].get("ingress", []):
            if not rule.get("from") or not rule.get("ports"):
                yield "a listener is open to everybody"
            if any(port["port"] not in ports for port in rule.get("ports", [])):
                yield "the network policy names a port that does not exist"
        for rule in policy["spec"].get("egress", []):
            if not rule.get("to") or not rule.get("ports"):
                yield "linkgate may go anywhere"
            for peer in rule.get("to", []):
                # A peer is somebody else: kustomize can write our labels into it.
                if "linkgate" in (peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name"),):
                    yield "a peer of linkgate is linkgate"
    configured = {one["metadata"]["name"] for one in of_kind(resources, "ConfigMap")}
    for name, _, of in templates:
        for volume in of.get("volumes", []):
            if "configMap" in volume and volume["configMap"]["name"] not in configured:
                yield f"{name}: no configuration {volume['configMap']['name']}"
    if len(of_kind(resources, "StatefulSet") + of_kind(resources, "Deployment")) != 1:
        yield "there is not one workload"
    for kind in ["ServiceAccount", "Service", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler",
                 "ServiceMonitor", "ConfigMap"]:
        if not of_kind(resources, kind):
            yield f"there is no {kind}"


def problems(resources):
    return [*schema_problems(resources), *hardening_problems(resources), *consistency_problems(resources)]


def box(resources):
    return next(one for _, _, spec in pods(resources) for one in containers(spec) if one["name"] == "linkgate")


def pod(resources):
    return next(spec for _, _, spec in pods(resources) if any(one["name"] == "linkgate" for one in containers(spec)))


def first(resources, kind):
    return of_kind(resources, kind)[0]


# What would be wrong, and what must be said of it.
BREAKAGES = {
    "a type": (lambda r: first(r, "HorizontalPodAutoscaler")["spec"].update(minReplicas="two"), "two"),
    "a misspelt key": (lambda r: box(r).update(livenesProbe={}), "livenesProbe"),
    "a version": (lambda r: first(r, "PodDisruptionBudget").update(apiVersion="policy/v1beta9"), "policy/v1beta9"),
    "a value": (lambda r: first(r, "Service")["spec"].update(ports=[{"port": "http"}]), "http"),
    "the monitor": (lambda r: first(r, "ServiceMonitor")["spec"]["endpoints"][0].update(intervall="5s"), "intervall"),
    "root": (lambda r: pod(r)["securityContext"].update(runAsNonRoot=False), "may run as root"),
    "seccomp": (lambda r: pod(r)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    "token": (lambda r: pod(r).pop("automountServiceAccountToken"), "gets a token"),
    "writable": (lambda r: box(r)["securityContext"].pop("readOnlyRootFilesystem"), "can be written"),
    "capabilities": (lambda r: box(r)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "keeps capabilities"),
    "escalation": (lambda r: box(r)["securityContext"].update(allowPrivilegeEscalation=True), "may get more rights"),
    "memory": (lambda r: box(r)["resources"].pop("limits"), "no bounds"),
    "probe": (lambda r: box(r)["livenessProbe"]["httpGet"].update(path="/readyz"), "livenessProbe asks"),
    "selector": (lambda r: first(r, "Service")["spec"]["selector"].update({"app.kubernetes.io/name": "x"}), "reaches []"),
    "port": (lambda r: box(r)["ports"].pop(), "there is no port health"),
    "budget": (lambda r: first(r, "PodDisruptionBudget")["spec"].update(selector={}), "selects no replica"),
    "autoscaler": (lambda r: first(r, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x"), "target does not exist"),
    "scraper": (lambda r: first(r, "ServiceMonitor")["spec"]["endpoints"][0].update(port="http"), "the ServiceMonitor finds"),
    "peers": (
        lambda r: first(r, "NetworkPolicy")["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "linkgate"}
        ),
        "a peer of linkgate",
    ),
    "ingress": (lambda r: first(r, "NetworkPolicy")["spec"]["ingress"][1].pop("from"), "open to everybody"),
    "egress": (lambda r: first(r, "NetworkPolicy")["spec"]["policyTypes"].remove("Egress"), "left open"),
    "workload": (lambda r: [one.update(kind="DaemonSet") for one in of_kind(r, "StatefulSet") + of_kind(r, "Deployment")], "not one workload"),
    "nothing": (lambda r: r.remove(first(r, "NetworkPolicy")), "there is no NetworkPolicy"),
}

# The same where the journal is on a volume, and where it is kept in the database.
BREAKAGES_OF = {
    "StatefulSet": {
        "journal": (lambda r: first(r, "StatefulSet")["spec"].pop("volumeClaimTemplates"), "no volume of its own"),
    },
    "Deployment": {
        "journal": (
            lambda r: first(r, "ConfigMap")["data"].update({"linkgate.toml": "[audit]\nstore = \"disk\"\n"}),
            "lost with the pod",
        ),
        "working copy": (lambda r: pod(r)["volumes"].pop(), "no bounded room"),
        "selection": (lambda r: first(r, "Deployment")["spec"]["selector"].update(matchLabels={}), "select its own pods"),
        "count": (lambda r: first(r, "Deployment")["spec"].update(replicas=3), "fight the autoscaler"),
    },
}


def main(folders):
    wrong = 0
    for folder in folders:
        resources = rendered(folder)
        found = problems(resources)
        for problem in found:
            print(f"{folder}: {problem}", file=sys.stderr)
        wrong += len(found)
        breakages = dict(BREAKAGES)
        for kind, more in BREAKAGES_OF.items():
            breakages |= more if of_kind(resources, kind) else {}
        for what, (breaks, expected) in breakages.items():
            broken = copy.deepcopy(resources)
            breaks(broken)
            if not any(expected in problem for problem in problems(broken)):
                print(f"{folder}: not noticed when broken on purpose: {what}: {problems(broken)}", file=sys.stderr)
                wrong += 1
        print(f"{folder}: {len(resources)} manifests, {len(breakages)} ways to break them noticed, {len(found)} problems")
    return 1 if wrong else 0


sys.exit(main(sys.argv[1:]))
