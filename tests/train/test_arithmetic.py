"""How numbers are computed: halves, sums of batches, means of weights, what is repeatable."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medseg3d.config.load import load_config
from medseg3d.config.train import TrainConfig
from medseg3d.errors import ConfigError
from medseg3d.io.events import read_events
from medseg3d.nets.bundle import load_bundle
from medseg3d.train.arithmetic import arithmetic
from medseg3d.train.checkpoint import load_checkpoint
from medseg3d.train.run import train_run

SHORT = ["train.epochs=2", "train.steps_per_epoch=4"]


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_bundle(run / f"{name}.safetensors").net.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_resumes(
    config_file: Path, tmp_path: Path, precision: str
) -> None:
    settings = [*SHORT, f"train.precision={precision}"]
    train_run(load_config(config_file, settings), tmp_path / "run")

    first, *_, last = (e for e in read_events(tmp_path / "run" / "metrics.jsonl") if e.loss)
    assert last.loss < first.loss
    facts = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").facts
    assert ("scale" in facts["scaler"]) == (precision == "fp16")
    assert all(t.dtype == torch.float32 for t in weights(tmp_path / "run").values())
    train_run(load_config(config_file, settings), tmp_path / "run", resume=True)


@pytest.mark.slow
def test_two_accumulated_batches_are_one_of_twice_the_size(
    config_file: Path, tmp_path: Path
) -> None:
    same = [*SHORT, "train.loss.per_batch=false", "train.optimizer=sgd", "network.dropout=0"]
    halves = [*same, "train.batch_size=2", "train.accumulate=2"]
    train_run(load_config(config_file, [*same, "train.batch_size=4"]), tmp_path / "whole")
    train_run(load_config(config_file, halves), tmp_path / "halves")

    other = weights(tmp_path / "halves")
    for name, tensor in weights(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-6)


def test_the_mean_of_the_weights_is_validated_and_shipped(
    config_file: Path, tmp_path: Path
) -> None:
    train_run(load_config(config_file, [*SHORT, "train.ema_decay=0.9"]), tmp_path / "run")

    parts = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors").parts
    name = next(iter(weights(tmp_path / "run")))
    assert torch.equal(weights(tmp_path / "run")[name], parts["ema"][name])
    assert not torch.equal(parts["net"][name], parts["ema"][name])
    assert torch.equal(load_file(tmp_path / "run" / "best.safetensors")[name], parts["ema"][name])


@pytest.mark.slow
def test_frozen_parts_stay_and_training_starts_from_a_bundle(
    config_file: Path, tmp_path: Path
) -> None:
    train_run(load_config(config_file, SHORT), tmp_path / "first")
    start = [f"train.start_from={tmp_path / 'first' / 'model.safetensors'}"]
    train_run(load_config(config_file, [*SHORT, *start, "train.frozen=[encoder]"]), tmp_path / "on")

    before, after = weights(tmp_path / "first"), weights(tmp_path / "on")
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("encoder."), name


def test_what_is_not_repeatable_is_refused_only_within_the_run() -> None:
    put = torch.zeros(3).put_
    strict = arithmetic(TrainConfig(deterministic=True))
    with pytest.raises(ConfigError, match=r"train\.deterministic cannot be kept: put_"), strict:
        put(torch.tensor([0]), torch.tensor([1.0]))

    assert not torch.are_deterministic_algorithms_enabled()
    put(torch.tensor([0]), torch.tensor([1.0]))


def test_a_caller_who_is_only_warned_stays_so() -> None:
    put = torch.zeros(3).put_
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with arithmetic(TrainConfig()), pytest.warns(UserWarning, match="put_"):
            put(torch.tensor([0]), torch.tensor([1.0]))
        with arithmetic(TrainConfig(deterministic=True)):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_cublas_asks_for_its_variable() -> None:
    said = "Deterministic behavior was enabled … set CUBLAS_WORKSPACE_CONFIG=:4096:8"
    strict = arithmetic(TrainConfig(deterministic=True))
    with pytest.raises(ConfigError, match=r"CUBLAS_WORKSPACE_CONFIG=:4096:8 before"), strict:
        raise RuntimeError(said)


def test_other_faults_pass_and_precision_is_the_callers_again() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with arithmetic(TrainConfig(precision="bf16")):
        assert torch.backends.cudnn.benchmark
        assert torch.get_float32_matmul_precision() == "high"
    with pytest.raises(RuntimeError, match="else"), arithmetic(TrainConfig()):
        raise RuntimeError("something else")
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark)


@pytest.mark.slow
def test_a_deterministic_run_gives_what_any_gives_on_a_cpu(
    config_file: Path, tmp_path: Path
) -> None:
    train_run(load_config(config_file, SHORT), tmp_path / "any")
    strict = load_config(config_file, [*SHORT, "train.deterministic=true"])
    train_run(strict, tmp_path / "strict")

    for name, tensor in weights(tmp_path / "any").items():
        assert torch.equal(tensor, weights(tmp_path / "strict")[name])
