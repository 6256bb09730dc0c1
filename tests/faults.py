"""Faults planted on purpose, to see that the tests find them: `python -m tests.faults [NUMBER...]`.

Each is one change of one line in a copy of the sources, and the tests that are to fail for it. A
fault that survives is a test that is missing; a line that is no longer there is said too.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Fault:
    """In `file` of the package `old` becomes `new`; `tests` are run, without the data."""

    file: str
    old: str
    new: str
    tests: str


FAULTS = [
    Fault("core/rules.py", "return passed.clamp_(min=0)", "return passed",
          "techniques/test_guided_backprop.py"),
    Fault("core/rules.py", "return gradient.clamp(min=0)",
          "return gradient.clamp(min=0) * (output > 0)", "techniques/test_deconvnet.py"),
    Fault("core/gradient.py", "values.sum(), inputs", "values.mean(), inputs",
          "core/test_gradient.py"),
    Fault("core/field.py", "self.first - padding * self.step", "self.first - padding",
          "core/test_field.py"),
    Fault("core/field.py", "end = max(self.first + self.size, other.first + other.size)",
          "end = self.first + self.size", "core/test_field.py"),
    Fault("core/chance.py", "self._keys(purpose, step)[:, None]", "self._keys(purpose, 0)[:, None]",
          "core/test_chance.py"),
    Fault("core/trust.py", "PASS, FAIL = 0.25, 0.5", "PASS, FAIL = 0.6, 0.9",
          "core/test_trust.py"),
    Fault("core/curves.py", "argsort(descending=True, stable=True)", "argsort(stable=True)",
          "core/test_curves.py"),
    Fault("ascent/loop.py", "lr=lr, maximize=True", "lr=lr, maximize=False",
          "ascent/test_loop.py"),
    Fault("ascent/loop.py", 'group["lr"] = lr * pace', 'group["lr"] = lr', "ascent/test_loop.py"),
    Fault("ascent/loop.py", "for n in range(1, looks):", "for n in range(1, 1):",
          "ascent/test_loop.py"),
    Fault("ascent/loop.py", "pull = pull / size[:, None, None, None]", "pass",
          "ascent/test_loop.py"),
    Fault("ascent/param.py", "away.mul_((self.radius / lengths",
          "away.mul_((lengths / lengths",
          "ascent/test_param.py"),
    Fault("ascent/verdict.py", 'return "excited" if reached >= best else "below data"',
          'return "excited"', "ascent/test_verdict.py"),
    Fault("techniques/integrated_gradients.py", "total += float(weight) * slopes",
          "total += slopes / steps", "techniques/test_gradients.py"),
    Fault("techniques/occlusion.py", "clean - occluded if drop", "occluded - clean if drop",
          "techniques/test_occlusion.py"),
    Fault("core/incremental/engine.py", "rows[ZERO], rows[LOWEST] = 0, -torch.inf",
          "rows[ZERO], rows[LOWEST] = 0, 0", "core/incremental"),
    Fault("core/incremental/operations.py",
          "first = starts * np.array(self.stride, np.int32) - np.array(self.padding, np.int32)",
          "first = starts * np.array(self.stride, np.int32)", "core/incremental"),
    Fault("survey/statistics.py", "away.square() * (self.count * other.count / count)",
          "away.square() * self.count", "survey/test_statistics.py"),
    Fault("survey/topk.py", "(images[:, None] <= holder)", "(images[:, None] > holder)",
          "survey/test_topk.py survey/test_scan.py"),
    Fault("survey/store.py", "if _hash(held) != about", "if False and _hash(held) != about",
          "survey/test_store.py"),
    Fault("pictures/files.py", "        draft.unlink(missing_ok=True)\n        raise\n    _sync",
          "        raise\n    _sync", "pictures/test_files.py"),
    Fault("pictures/attribution.py", "values=own(self.values)", "values=self.values",
          "pictures/test_attribution.py"),
]  # fmt: skip


def caught(fault: Fault, folder: Path) -> str:
    """ "caught", "survived" or "no such line", after running the fault's tests in a copy."""
    path = folder / "src" / "optogram" / fault.file
    text = path.read_text(encoding="utf-8")
    if fault.old not in text:
        return "no such line"
    path.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
    places = [f"tests/{name}" for name in fault.tests.split()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", *places]
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}
    environment.pop("OPTOGRAM_DATA", None)
    try:
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    return {0: "survived", 1: "caught"}.get(run.returncode, f"pytest ended with {run.returncode}")


def main(chosen: list[int]) -> int:
    """Plant the faults, one after the other; 0 if every one was caught."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("src", "tests", "docs", "benchmarks"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        for file in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / file, folder / file)
        found = {}
        for number in chosen:
            found[number] = caught(FAULTS[number], folder)
            print(f"{number:2} {found[number]:14} {FAULTS[number].file}", flush=True)
    return 0 if set(found.values()) <= {"caught"} else 1


if __name__ == "__main__":
    sys.exit(main([int(n) for n in sys.argv[1:]] or list(range(len(FAULTS)))))
