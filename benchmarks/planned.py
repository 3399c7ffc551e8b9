"""How near memory plans come to what cases take: predicted over measured peak of whole processes.

Run: python benchmarks/planned.py; each case in a process of its own, under a minute in all.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

CASES = {
    "tiny": {},
    "small, 4 channels, resampled": {"images": 4, "spacing_mm": 1.0, "shape": [96, 96, 60]},
    "large, 2 labels": {"shape": [256, 256, 160]},
    "large, 25 labels, near-free": {"shape": [128, 128, 96], "labels": 25},
    "resampled, cropped": {"shape": [160, 160, 100], "spacing_mm": 1.0, "crop": "nonzero"},
    "resunet 32..128": {"channels": [32, 64, 128], "tile": 64},
    "resunet 32..128, tile batch 4": {"channels": [32, 64, 128], "tile": 64, "tile_batch": 4},
    "resunet 32..128, bf16": {"channels": [32, 64, 128], "tile": 64, "precision": "bf16"},
    "resunet 32..128, memory kept": {"channels": [32, 64, 128], "tile": 64, "keep": True},
    "mirrored": {"channels": [16, 32], "tile": 64, "mirror": ["i"]},
    "mirrored, uncertainty": {"tile": 64, "mirror": ["i"], "uncertainty": True,
                              "shape": [160, 160, 100]},
    "probabilities of 25 labels": {"shape": [128, 128, 96], "labels": 25, "probabilities": True},
    "probabilities, resampled": {"shape": [96, 96, 80], "labels": 25, "probabilities": True,
                                 "spacing_mm": 1.0},
    "2D, tile batch 4": {"channels": [32, 64], "tile": 256, "tile_batch": 4, "dims": 2,
                         "shape": [256, 256, 12]},
}  # fmt: skip


def run_case(folder: Path, case: dict) -> dict:
    """Predict a case and give the bytes that were planned and that were taken."""
    import numpy as np
    import torch

    from medseg3d.config.recipe import Recipe
    from medseg3d.data.cases import Case
    from medseg3d.io.files import write_volume
    from medseg3d.nets.bundle import Bundle, build_recipe_net
    from medseg3d.predict.allocator import keep_memory
    from medseg3d.predict.output import Output
    from medseg3d.predict.steps import Steps
    from medseg3d.volume import Volume

    torch.set_num_threads(1)
    dims, spacing_mm = case.get("dims", 3), case.get("spacing_mm")
    names = [f"c{n}" for n in range(case.get("images", 1))]
    recipe = Recipe.model_validate(
        {
            "images": {name: "{case}/" + name + ".nii.gz" for name in names},
            "labels": {"values": {n: f"l{n}" for n in range(1, case.get("labels", 3))}},
            "preprocess": {
                "spacing_mm": spacing_mm and [spacing_mm] * 3, "crop": case.get("crop", "none"),
            },
            "spatial_dims": dims,
            "network": {"kind": "resunet", "channels": case.get("channels", [4, 8])},
            "predict": {
                "tile_size": [case.get("tile", 64)] * dims, "mirror": case.get("mirror", []),
                "tile_batch": case.get("tile_batch", 1), "device": "cpu",
                "precision": case.get("precision", "fp32"), "overlap": 0.1,
                "keep_memory": case.get("keep", False),
            },
        }
    )  # fmt: skip
    paths = [folder / f"{name}.nii" for name in names]
    if not all(path.exists() for path in paths):
        rng = np.random.default_rng(0)
        for path in paths:
            grey = rng.integers(1, 900, (1, *case.get("shape", [80, 80, 80])), dtype=np.int16)
            write_volume(Volume(grey, np.diag([1.2, 1.2, 1.5, 1.0])), path)
        return {}  # what writing took is no part of it
    if recipe.predict.keep_memory:
        keep_memory()
    bundle = Bundle(build_recipe_net(recipe).eval(), recipe, "0")
    output = Output(
        uncertainty=case.get("uncertainty", False), probabilities=case.get("probabilities", False)
    )
    one = Case("case", dict(zip(names, paths, strict=True)))
    files = {one.id: output.files(folder, one)}
    steps = Steps.prepare([bundle], files, output, todo=[one], memory=None, report=None)
    steps = replace(steps, budget=replace(steps.budget, waiting=0))
    read = steps.read(one, steps.plan(one))
    steps.write(one, steps.compute(one, read))
    (plan,) = steps.plans
    # what getrusage says holds the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    taken = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return {"plan": sum(plan.host.values()), "taken": taken, "said": str(plan)}


def measure(case: dict) -> dict:
    """Run a case in a process of its own, the first time to write its images."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, __file__, folder, json.dumps(case)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
    return json.loads(done.stdout)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(run_case(Path(sys.argv[1]), json.loads(sys.argv[2]))))
    else:
        for name, case in CASES.items():
            row = measure(case)
            ratio = row["plan"] / row["taken"]
            print(f"{name:32} {row['taken'] / 2**20:6.0f} MiB  ×{ratio:.2f}  {row['said']}")
