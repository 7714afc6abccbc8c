"""The rows of a set as tokens, each encoded when it is first asked for.

A run of a hundred steps reads a few thousand rows, and a file may have hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from ngdiff.lm.tokens import Example, may_exceed

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Row
    from ngdiff.lm.model import LM


class Texts(Sequence[Example]):
    """The rows of one set, encoded by a model's tokenizer and prompt.

    Errors, when it is made: ValueError for a row longer than the model's context. Rows that are
    short enough to fit in any case are not encoded for that. checked: all are known to fit.
    """

    def __init__(self, lm: LM, rows: Sequence[Row], checked: bool = False) -> None:
        self._lm, self._rows = lm, rows
        self._made: dict[int, Example] = {}
        for i, row in enumerate(() if checked else rows):
            if may_exceed(lm.text(row["question"], row["answer"]), lm.context):
                self[i]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> Example: ...

    @overload
    def __getitem__(self, i: slice) -> list[Example]: ...

    def __getitem__(self, i: int | slice) -> Example | list[Example]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        if i not in self._made:
            row = self._rows[i]
            self._made[i] = self._lm.encode(row["question"], row["answer"])
        return self._made[i]

    def __repr__(self) -> str:
        return f"<{len(self)} texts, {len(self._made)} encoded>"
