"""What stands in deploy/ agrees with the program: its metrics, its flags, its routes."""

import json
import re
import subprocess

import pytest

from server_process import BINARY, REPOSITORY

DEPLOY = REPOSITORY / "deploy"


@pytest.fixture(scope="module")
def series(start_probe):
    """Name to labels of everything in /metrics, of a server that has answered."""
    server = start_probe()
    assert server.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})[0] == 200
    found = {}
    for name, labels in re.findall(r"^([a-z0-9_:]+)\{(.*)\} \S+$", server.ask("/metrics")[2].decode(), re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def test_the_dashboard_shows_metrics_that_there_are(series):
    dashboard = json.loads((DEPLOY / "grafana" / "lanner.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    assert len(expressions) > 20
    used = set()
    for expression in expressions:
        names = re.findall(r"lanner:[a-z0-9_]+", expression)
        assert names, expression
        for name in names:
            assert name in series, f"{name} is in no answer of /metrics: {expression}"
            used.add(re.sub("_bucket$", "", name))
            # Prometheus adds "instance" itself.
            labels = set(re.findall(r'(\w+)=~?"', expression)) | set("".join(re.findall(r" by \(([^)]*)\)", expression)).split(","))
            assert labels - {"", "instance"} <= series[name], expression
    # And all there are, but those whose figure is another's.
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in series}
    assert shown <= used, "the dashboard leaves something out"


def test_the_dashboard_is_well_formed():
    dashboard = json.loads((DEPLOY / "grafana" / "lanner.json").read_text(encoding="utf-8"))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
             for y in range(place["y"], place["y"] + place["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


@pytest.fixture(scope="module")
def flags():
    text = subprocess.run([BINARY, "serve", "api_server", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<!\S)(?:-h,)?(--[a-z][a-z-]+)", text))


@pytest.mark.parametrize("path, least", [("systemd/lanner.service", 0), ("systemd/lanner.env", 2), ("docker/cpu.Dockerfile", 1),
                                         ("docker/cuda.Dockerfile", 1), ("helm/lanner/templates/deployment.yaml", 2),
                                         ("helm/lanner/values.yaml", 1), ("helm/example-values.yaml", 2)])
def test_flags_exist(flags, path, least):
    text = (DEPLOY / path).read_text(encoding="utf-8")
    if path.endswith("Dockerfile"):
        text = "\n".join(line for line in text.splitlines() if line.startswith("ENTRYPOINT"))
    used = re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)
    assert len(used) >= least
    assert set(used) <= flags


def test_probes_of_the_chart_are_routes(probe):
    text = (DEPLOY / "helm/lanner/templates/deployment.yaml").read_text(encoding="utf-8")
    paths = re.findall(r"path: (/health\S*)", text)
    assert len(paths) == 3
    for path in paths:
        assert probe.ask(path)[0] == 200
