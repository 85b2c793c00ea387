"""What the points look like, for the attacks that read it: from a run's data set, or as a signals file has it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attacks
from compleak.queries import signals_file
from compleak.queries.signals_file import Record
from compleak.runs.run import Run, dataset


def with_columns(
    records: Mapping[Path, Record], run: Run | None, chosen: Sequence[attacks.Attack]
) -> dict[Path, Record]:
    """The records with `columns`, read from the run's data set where a chosen attack wants them.

    Signals files that belong to no run keep the columns that they have, or none.
    """
    if run is None or not any(attack.columns for attack in chosen):
        return dict(records)
    data = dataset(run)
    columns = data.kind.summarise(data.as_read[signals_file.points(next(iter(records)))])
    return {path: record._replace(columns=columns) for path, record in records.items()}
