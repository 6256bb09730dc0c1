"""`optogram study`: what it lists, what it refuses, and what it passes on."""

import pytest

from optogram import studies


def test_alone_it_lists_the_studies(optogram, printed):
    assert {"mlp-neurons", "higher-layers"} <= {row["name"] for row in printed("study")}
    assert "mlp-neurons    What hidden neurons" in optogram("study").stdout


def test_a_study_gets_what_was_typed_and_its_report_is_named(printed, monkeypatch, tmp_path):
    asked = {}

    def record(directory, **options):
        asked.update(options, directory=directory)
        return tmp_path / "index.html"

    monkeypatch.setattr(studies, "mlp_neurons", record)
    typed = ("-o", tmp_path, "--quick", "--seed", "3", "--data-root", "there")
    assert printed("study", "mlp-neurons", *typed) == {"path": str(tmp_path / "index.html")}
    assert asked == {
        "directory": str(tmp_path),
        "data_root": "there",
        "weights": None,
        "quick": True,
        "seed": 3,
    }


def test_a_study_into_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file" in refused("study", "mlp-neurons", "-o", tmp_path / "file")


def test_an_unknown_study_is_refused_by_name(refused):
    assert "mlp-neuron" in refused("study", "mlp-neuron", "-o", "x")


def test_an_interrupted_study_says_that_it_goes_on(refused, monkeypatch, tmp_path):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "mlp_neurons", stopped)
    said = refused("study", "mlp-neurons", "-o", tmp_path, code=130)
    assert "goes on after the last part" in said


@pytest.mark.parametrize("words", [("study", "--help"), ("study", "mlp-neurons", "--help")])
def test_help_is_there(optogram, words):
    assert "report" in optogram(*words).stdout


def test_the_study_of_higher_layers_gets_what_was_typed(printed, monkeypatch, tmp_path):
    asked = {}

    def record(directory, **options):
        asked.update(options, directory=directory)
        return tmp_path / "index.html"

    monkeypatch.setattr(studies, "higher_layers", record)
    typed = ("-o", tmp_path, "--quick", "--seed", "3", "--data-root", "there")
    assert printed("study", "higher-layers", *typed) == {"path": str(tmp_path / "index.html")}
    wanted = {"data_root": "there", "quick": True, "seed": 3}
    assert asked == {"directory": str(tmp_path), **wanted}
