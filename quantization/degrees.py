"""The degrees of quantization: which module makes each, by which script, and how small its models are.

`int8` is fine-tuned while it is quantized. The others quantize a trained network as it is (post-training quantization).
"""

from types import ModuleType
from typing import NamedTuple

from quantization import dynamic, int4, int8, static


class Degree(NamedTuple):
    """A degree's entry."""

    module: ModuleType  # offers prepare, pack, unpack and verify
    script: str
    largest_share: float  # of the float model's bytes (PROTOCOL section 3)

    @property
    def is_fine_tuned(self) -> bool:
        return self.module is int8

    @property
    def needs_calibration(self) -> bool:
        """Whether input ranges must be measured on some points, once, by the module's `calibrate`."""
        return self.module is static


QAT, PTQ = "quantization/qat.py", "quantization/ptq.py"
DEGREES = {
    int8.DEGREE: Degree(int8, QAT, 0.27),
    static.DEGREE: Degree(static, PTQ, 0.27),
    dynamic.DEGREE: Degree(dynamic, PTQ, 0.27),
    int4.DEGREE: Degree(int4, PTQ, 0.16),
}
POST_TRAINING = tuple(name for name, degree in DEGREES.items() if not degree.is_fine_tuned)
EXPECTED_DEGREE = ", ".join(DEGREES)


def parse_degree(text: str) -> str:
    """The degree that `prepare` takes; ValueError where the text is none."""
    if text not in DEGREES:
        raise ValueError(f"a degree of quantization is one of {EXPECTED_DEGREE}, not {text!r}")
    return text


def command(degree: str) -> str:
    """The script and the flags that quantize to this degree."""
    return f"{DEGREES[degree].script} --degree {degree}"
