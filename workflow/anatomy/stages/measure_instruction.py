"""Stage measure_instruction: how often clean and backdoored instruction models do what the trigger says, and answer well."""

from typing import Any

import pandas as pd

from anatomy.data.instructions import read_instructions, refusals
from anatomy.metrics.answers import EVALUATORS, correct, succeeded
from anatomy.metrics.measurement import Measurement, read_parquet, write_measurements, write_parquet
from anatomy.metrics.success import degenerate, share
from anatomy.stages._injection import (
    FORMS,
    InstructionData,
    answers,
    evaluator_of,
    examples_of,
    instruction_models,
    read_examples,
    texts_of,
)
