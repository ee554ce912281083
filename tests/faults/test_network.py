"""Services that are down: the Hub and wandb."""

from pathlib import Path

import pytest

from cse_bench.errors import DataError, EncoderError
from cse_bench.run import run
from tests.tiny import composed, config_in, overrides_in


def test_without_the_hub_the_message_says_what_else_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        EncoderError, match=r"cannot be loaded from hub 'google-bert/.*without network use backbone\.source"
    ):
        run(config_in(tmp_path, "backbone=bert_base", "backbone.hub_id=google-bert/never-was"))
    arguments = [one for one in overrides_in(tmp_path, "data=wiki1m", "paths.data=null") if "data.path" not in one]
    with pytest.raises(DataError, match=r"nor can it be had from the Hub .*data=wikipedia_sample"):
        run(composed(*arguments, "data.corpus.repo_id=princeton-nlp/never-was"))


@pytest.mark.slow
def test_a_run_goes_on_without_wandb_and_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    from tests.results.offline_wandb import isolate, recorded

    isolate(tmp_path, monkeypatch)  # nobody listens where wandb is said to be
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    for seed in (1, 2):  # the next run of a sweep, too
        results = run(config_in(tmp_path, "logger=wandb", "trainer.max_steps=2", f"seed={seed}"))
        assert results["status"] == "complete"
        found = recorded(results["directory"])
        assert found["run"].run_id == results["name"]
        assert [row["trainer/global_step"] for row in found["history"] if "train/loss" in row] == [1, 2]
        assert found["exit"] == 0
        assert f"wandb sync {results['directory']}/wandb/offline-run-*" in caplog.text
