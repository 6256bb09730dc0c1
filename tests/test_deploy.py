"""The files for clusters are well-formed, and what they type at optogram and Ray is there."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from optogram.cli import main

DEPLOY = Path(__file__).parent.parent / "deploy"


def options_of(words: list[str]) -> set[str]:
    """What `optogram COMMAND` takes; the words after it must be among that, with a value each."""
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, f"no command {words[0]!r}"
    taken = {name for parameter in command.params for name in parameter.opts}
    given = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
    assert given <= taken, f"optogram {words[0]} has no {sorted(given - taken)}"
    return given


def test_the_slurm_script_is_bash_and_asks_for_a_shard_a_task():
    script = DEPLOY / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", text).groups())
    line = text[text.index("srun optogram") :].replace("\\\n", " ")
    words = shlex.split(line)[2:]
    assert {"--shard", "-o", "--weights", "--device"} <= options_of(words)
    assert words[words.index("--shard") + 1] == "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
    assert (first, last) == (0, 15)  # --shard counts from 0


def test_the_kubernetes_job_has_a_pod_for_every_shard():
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] in ("OnFailure", "Never")
    [container] = pod["containers"]
    words = shlex.split(container["args"][0])[1:]
    assert "--shard" in options_of(words)
    assert words[words.index("--shard") + 1] == f"$JOB_COMPLETION_INDEX/{spec['completions']}"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_ray_cluster_asks_for_no_more_machines_than_it_names():
    cluster = yaml.safe_load((DEPLOY / "ray.yaml").read_text(encoding="utf-8"))
    assert cluster["max_workers"] <= len(cluster["provider"]["worker_ips"])
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token" in line for line in cluster[part])
    ray = shutil.which("ray") or shutil.which("ray", path=str(DEPLOY.parent / ".venv" / "bin"))
    if ray is None:
        pytest.skip("Ray is not installed: what its command takes cannot be asked")
    told = subprocess.run([ray, "start", "--help"], capture_output=True, text=True, check=True)
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = next(line for line in cluster[part] if "ray start" in line)
        for option in re.findall(r"--[a-z-]+", start):
            assert option in told.stdout


def test_ray_takes_the_cluster_as_its_schema_says():
    autoscaler = pytest.importorskip("ray.autoscaler", reason="Ray is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="it comes with Ray")
    schema = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text("utf-8"))
    cluster = yaml.safe_load((DEPLOY / "ray.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_wrokers": 2}, schema)
