"""What is in deploy/: each file by the checker of its kind, and against what the server really has."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shlex
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from outthink.cli.program import run as command
from outthink.server.keys import Keys
from tests.tools.server import Fault, Server, run, says
from tests.tools.serving import asked, chat, serving

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/outthink.json").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
SERVICES = COMPOSE["services"]
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h"}


@pytest.fixture(scope="module")
def series() -> dict[str, set[str]]:
    """The names of all series that a server has after some requests, with their labels."""

    keys = Keys({name: hashlib.sha256(name.encode()).digest() for name in ("ann", "metrics")})

    async def go() -> str:
        async with Server(says("The answer is 4.")) as up, serving(up, keys=keys) as (url, _):
            key = [("Authorization", "Bearer ann")]
            for body in (chat(), chat(stream=True), chat(outthink={"strategy": "nothing"})):
                await asked(url, body, headers=key)
            up.always = Fault(status=500, body=b"{}")
            await asked(url, chat(), headers=key)
            key = [("Authorization", "Bearer metrics")]
            return (await asked(url, None, method="GET", path="/metrics", headers=key)).body.decode()

    names: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(run(go())):
        for one in family.samples:
            names[one.name] |= set(one.labels)
    return names


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_every_query_of_the_dashboard_is_about_what_there_is(query: str, series: dict[str, set[str]]) -> None:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    used: dict[str, set[str]] = {}
    grouped: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            used[str(node.name)] = {matcher.name for matcher in node.matchers.matchers}
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(query), visit)
    assert used
    for name, labels in used.items():
        assert name in series
        assert labels | grouped <= series[name]


def test_the_dashboard_has_panels_that_do_not_overlap_and_a_source_that_is_provisioned() -> None:
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    uids = {one["uid"] for one in source["datasources"]}
    places = []
    for panel in DASHBOARD["panels"]:
        assert {panel["datasource"]["uid"], *(one["datasource"]["uid"] for one in panel["targets"])} <= uids
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        places += [(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])]
    assert len(places) == len(set(places))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_is_on_the_dashboard(series: dict[str, set[str]]) -> None:
    shown = " ".join(QUERIES.values())
    metrics = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series}
    assert not {name for name in metrics if name not in shown}


def test_the_compose_file_is_one_and_what_it_names_is_there() -> None:
    parsed = compose_spec.PyCompose.from_yaml((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    parsed.validate()
    assert {*parsed.service_names()} == {*SERVICES}
    made = {"keys.txt", "metrics.key"}  # by the commands at its head
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert source.removeprefix("./") in made or (DEPLOY / source).exists()
            else:
                assert source in COMPOSE["volumes"]
    build = SERVICES["outthink"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    head = (DEPLOY / "compose.yaml").read_text(encoding="utf-8").partition("name:")[0]
    assert all(name in head for name in made)


def test_prometheus_asks_the_services_where_they_listen() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = {target for job in jobs for one in job["static_configs"] for target in one["targets"]}
    assert targets == {"outthink:8000", "vllm:8000"}
    (ours,) = (job for job in jobs if job["job_name"] == "outthink")
    mounted = [volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]]
    assert ours["authorization"]["credentials_file"] in mounted


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: str(one["kind"]))
def test_every_manifest_is_one_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_manifests_belong_together() -> None:
    by_kind = {one["kind"]: one for one in MANIFESTS}
    pod = by_kind["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    for selector in (
        by_kind["Service"]["spec"]["selector"],
        by_kind["Deployment"]["spec"]["selector"]["matchLabels"],
        by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/ready", "/health"]
    assert {probe["port"] for probe in probes} | {by_kind["Service"]["spec"]["ports"][0]["targetPort"]} == ports
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert pod["spec"]["terminationGracePeriodSeconds"] > 30 + 5


OPTIONS = {
    "the file": (DEPLOY / "outthink.toml").read_text(encoding="utf-8"),
    "the manifests": str(MANIFESTS[0]["data"]["outthink.toml"]),
}


@pytest.mark.parametrize("text", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_options_are_right_once_there_are_keys(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    monkeypatch.setattr("sys.argv", ["outthink", "key", str(keys), "--name", "me"])
    assert command() == 0
    file = tmp_path / "outthink.toml"
    file.write_text(re.sub(r'(?<=api_key_file = )".*"', json.dumps(str(keys)), text), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["outthink", "serve", "--config", str(file), "--check"])
    capsys.readouterr()
    code = command()
    assert (code, capsys.readouterr().err) == (0, f"Nothing is wrong with {file} and the options.\n")
    options = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert (options["port"], options["host"]) == ("8000", '"0.0.0.0"'), "where all else looks for it"


def test_the_unit_starts_what_it_has_checked(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "outthink.service", encoding="utf-8")
    service = unit["Service"]
    start = shlex.split(service["ExecStart"])
    assert shlex.split(service["ExecStartPre"]) == [*start, "--check"]
    assert start[1:] == ["serve", "--config", "/etc/outthink/outthink.toml"]
    assert float(service["TimeoutStopSec"]) > 30 + 5
    if shutil.which("systemd-analyze"):
        checked = tmp_path / "outthink.service"
        text = (DEPLOY / "outthink.service").read_text(encoding="utf-8")
        checked.write_text(text.replace(start[0], shutil.which("true") or ""), encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", checked], capture_output=True, text=True, check=False
        )
        assert [line for line in done.stderr.splitlines() if "outthink" in line] == []
