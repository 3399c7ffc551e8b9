"""How predictions are paired with references and scored."""

from typing import Literal

from pydantic import PositiveInt

from medseg3d.config.data import Pattern
from medseg3d.config.section import Section


class EvaluateConfig(Section):
    """Pairing and work; what the numbers mean is said by the scheme."""

    predicted: Pattern | None = None
    """Where predictions lie below their folder, such as `{case}_pred.nii.gz`; null as below."""
    reference: Pattern | None = None
    """Where references lie below their folder, such as `{case}/{case}-seg.nii.gz`; null tries the
    layouts of BraTS, nnU-Net and plain folders."""
    empty: Literal["penalty", "nan", "skip"] | None = None
    """What becomes of empty masks: `penalty` gives the numbers of the scheme's protocol, `nan` none
    where a measure has no meaning, `skip` none for regions that the reference does not have; null
    is the protocol's own choice."""
    workers: PositiveInt = 1
    """Processes that score cases; the result does not depend on it."""


class EvaluateRun(Section):
    """What `medseg3d evaluate --set` can set."""

    evaluate: EvaluateConfig = EvaluateConfig()
    """Pairing and work."""
