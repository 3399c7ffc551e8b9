#!/usr/bin/env bash
# The whole story on made-up cases: check, train, predict, evaluate, report.
#   examples/tour.sh FOLDER [--set KEY=VALUE ...]     settings go to `check` and `train`
set -euo pipefail
out=${1:?"usage: examples/tour.sh FOLDER [--set KEY=VALUE ...]"}
shift
config=$(dirname "$0")/../configs/quickstart.yaml

# 1  Cases to learn from, and cases nobody has seen: four channels and a reference each.
python - "$out" <<'PYTHON'
import sys
from pathlib import Path
from medseg3d.data.phantom import write_phantoms
write_phantoms(Path(sys.argv[1]) / "known", num_cases=8)
write_phantoms(Path(sys.argv[1]) / "new", num_cases=2, seed=1)
PYTHON

# 2  Is every file whole, on one grid, with known labels?
medseg3d check "$config" --set "data.folder=$out/known" "$@"

# 3  Train; a run that is cut off goes on with --resume.
medseg3d train "$config" --out "$out/run" --set "data.folder=$out/known" "$@"

# 4  Segment the new cases, each onto its own grid.
medseg3d predict "$out/run/model.safetensors" "$out/new" --out "$out/results"

# 5  Score them, and write one page with scores, overlays and curves.
medseg3d evaluate "$out/results" "$out/new" --scheme brats2023 --out "$out/scores"
medseg3d report "$out/scores/scores.json" --run "$out/run" --images "$out/new" \
  --out "$out/report.html"
