"""The dashboard and the alert rules over a gateway under load: every query of every panel finds something, every rule can
be evaluated, and the alerts that the load asks for do fire.

`dashboard.py LINKGATE DIR [RESULTS]`: the binary, an empty folder, and a file that what the panels got is written to.
Prometheus itself evaluates (the command `prometheus`); Grafana is not needed.
"""

import json
import math
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
DASHBOARD = TOP / "deploy/grafana/linkgate.json"
RULES = TOP / "deploy/prometheus/linkgate.rules.yml"
PATIENCE = 120
# What the load must set off, and nothing else may.
EXPECTED_ALERTS = {"LinkgateContextSwitchesRefused", "LinkgateSuspensionInForce"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(url, headers=None, method="GET", body=None):
    data = body.encode() if body else None
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


def eventually(what, found):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            value = found()
        except OSError:
            value = None
        if value:
            return value
        time.sleep(0.5)
    sys.exit(f"never came: {what}")


class Running:
    """Programs that end with this one."""

    def __init__(self):
        self.children = []

    def start(self, arguments, log, **options):
        child = subprocess.Popen(arguments, stderr=open(log, "w"), **options)
        self.children.append(child)
        return child

    def end(self):
        for child in reversed(self.children):
            child.terminate()
            child.wait()


class Collector(BaseHTTPRequestHandler):
    """Takes every span."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def collector():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def load(base, document, stop):
    """All requests that the demo knows, over and over."""
    while not stop.is_set():
        for one in document["requests"]:
            if stop.is_set():
                return
            try:
                ask(base + one["path"], one["headers"], one["method"], one.get("body"))
            except OSError:
                return


def prometheus(running, directory, health):
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "linkgate", "static_configs": [{"targets": [f"127.0.0.1:{health}"]}]}],
    }
    # JSON is YAML.
    (directory / "prometheus.yml").write_text(json.dumps(configuration))
    running.start(
        ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb",
         f"--web.listen-address=127.0.0.1:{port}"],
        directory / "prometheus.log",
    )
    return f"http://127.0.0.1:{port}"


def api(base, path, **query):
    status, text = ask(f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}")
    answer = json.loads(text)
    if status != 200 or answer["status"] != "success":
        sys.exit(f"{path} {query}: {answer}")
    return answer["data"]


def queries():
    """Panel, expression as Grafana would send it, legend."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "10s").replace("$job", "linkgate").replace("$instance", ".*")
            if "$" in text:
                sys.exit(f"{panel['title']}: a variable that nobody sets: {text}")
            yield panel, text, target["legendFormat"]


def seen(base, text, since):
    data = api(base, "query_range", query=text, start=since, end=time.time(), step=1)
    return [one for one in data["result"] if any(not math.isnan(float(value)) for _, value in one["values"])]


def main(binary, directory, results=None):
    running = Running()
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    try:
        demo = running.start([binary, "demo", "--json", "--dir", f"{directory}/demo"], directory / "demo.log", stdout=subprocess.PIPE)
        document = json.loads(demo.stdout.readline())
        # A gateway of its own on the demo's services and database: without limits, traced as a whole, and with a shadow set
        # that differs.
        shadow = directory / "shadow"
        shutil.copytree(directory / "demo/policies", shadow)
        (shadow / "guardrails/closed.cedar").write_text(
            '@id("closed")\nforbid (principal, action in [Action::"support.read"], resource is Link);\n'
        )
        public, health = free_port(), free_port()
        environment = {f"LINKGATE__LIMITS__{name}": "0" for name in
                       ["LISTING", "DETAIL", "WRITE", "EXPORT", "TENANT", "REFUSAL", "UNAUTHENTICATED"]}
        environment |= {
            "LINKGATE__LISTEN__ADDRESS": f"127.0.0.1:{public}",
            "LINKGATE__HEALTH__ADDRESS": f"127.0.0.1:{health}",
            "LINKGATE__AUDIT__DIR": f"{directory}/audit",
            "LINKGATE__AUDIT__SHIP__FILE": f"{directory}/shipped.jsonl",
            "LINKGATE__POLICY__SHADOW": str(shadow),
            "LINKGATE__TRACING__ENDPOINT": f"http://127.0.0.1:{collector()}/v1/traces",
            "LINKGATE__TRACING__SAMPLE_RATIO": "1.0",
        }
        command = [binary, "--config", document["config_path"]]
        running.start([*command, "serve"], directory / "serve.log", env=environment)
        eventually("readiness", lambda: ask(f"http://127.0.0.1:{health}/readyz")[0] == 200)
        started = time.time()
        prom = prometheus(running, directory, health)
        eventually("prometheus", lambda: ask(f"{prom}/-/ready")[0] == 200)
        # What changes before the first look is no change to it.
        eventually("a first look", lambda: api(prom, "query", query="linkgate_change_latency_seconds_count")["result"])

        stop = threading.Event()
        clients = [threading.Thread(target=load, args=(f"http://127.0.0.1:{public}", document, stop)) for _ in range(2)]
        for client in clients:
            client.start()
        try:
            # Of a user that the load does not use.
            subprocess.run([*command, "--yes", "suspend", "user", "nobody-at-all", "--reason", "drill"],
                           check=True, capture_output=True)
            check(prom, started, results)
        finally:
            stop.set()
            for client in clients:
                client.join()
    finally:
        running.end()


def check(prom, started, results):
    found = {}
    wanted = list(queries())

    def all_seen():
        for panel, text, _ in wanted:
            if text not in found and (data := seen(prom, text, started)):
                found[text] = data
        return len(found) == len({text for _, text, _ in wanted})

    try:
        eventually("data for every panel", all_seen)
    except SystemExit:
        missing = [f"{panel['title']}: {text}" for panel, text, _ in wanted if text not in found]
        sys.exit("no data for\n  " + "\n  ".join(missing))

    # The collector takes them, so these are there to be seen and not to be nought.
    if not [one for one in api(prom, "query", query="linkgate_spans_exported_total > 0")["result"]]:
        sys.exit("no span was exported")
    if lost := api(prom, "query", query="linkgate_spans_dropped_total > 0")["result"]:
        sys.exit(f"spans were lost: {lost}")

    rules = [rule for group in api(prom, "rules")["groups"] for rule in group["rules"]]
    ill = [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] != "ok"]
    if ill:
        sys.exit("\n".join(ill))

    def firing():
        return {alert["labels"]["alertname"] for alert in api(prom, "alerts")["alerts"] if alert["state"] == "firing"}

    eventually(f"alerts {EXPECTED_ALERTS}", lambda: EXPECTED_ALERTS <= firing())
    if others := firing() - EXPECTED_ALERTS:
        sys.exit(f"these alerts fire too: {others}")
    if results:
        # Curves, to look at.
        time.sleep(20)
        found = {text: seen(prom, text, started) for text in found}
        panels = [{"panel": panel["title"], "type": panel["type"], "legend": legend, "expr": text, "data": found[text]}
                  for panel, text, legend in wanted]
        Path(results).write_text(json.dumps(panels))
    print(f"{len(wanted)} queries of the dashboard found data, {len(rules)} rules are well, {len(EXPECTED_ALERTS)} alerts fire")


main(*sys.argv[1:])
