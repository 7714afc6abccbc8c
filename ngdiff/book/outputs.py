"""The outputs of a built notebook: light ones of an execution, or those that it has."""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Iterable

import nbformat
from nbformat import NotebookNode

BUDGET = 500_000  # bytes of one built notebook
WIDTH = 900  # pixels; about 100 dpi at the width of a page
TEXT = 20_000  # characters of one text output


def _light_png(data: str, width: int, colours: int) -> str:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    if image.width > width:
        image = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _light(outputs: Iterable[NotebookNode], width: int, colours: int) -> list[NotebookNode]:
    """Return outputs without stderr (progress, warnings), widgets and timing.

    Pictures are scaled down, long texts cut.
    """
    kept = []
    for output in copy.deepcopy(list(outputs)):
        if output.output_type == "stream":
            if output.name == "stdout":
                output.text = output.text[:TEXT]
                kept.append(output)
            continue
        if "data" in output:
            data = {kind: value for kind, value in output.data.items() if "widget" not in kind}
            if "image/png" in data:
                data["image/png"] = _light_png(data["image/png"], width, colours)
            output.data, output.metadata = data, {}
        kept.append(output)
    return kept


def add_outputs(nb: NotebookNode, executed: NotebookNode, name: str = "") -> None:
    """Give every code cell the light outputs of the executed cell with the same id.

    The pictures get smaller until the notebook is within BUDGET; ValueError naming it where that is
    not enough.
    """
    found = {cell.id: cell.outputs for cell in executed.cells if cell.get("execution_count")}
    for width, colours in ((WIDTH, 256), (WIDTH, 64), (700, 64), (500, 32)):
        count = 0
        for cell in nb.cells:
            if cell.cell_type == "code" and cell.id in found:
                count += 1
                cell.outputs, cell.execution_count = _light(found[cell.id], width, colours), count
                for output in cell.outputs:
                    if output.output_type == "execute_result":
                        output.execution_count = count
        if len(dumps(nb).encode()) <= BUDGET:
            return
    raise ValueError(f"{name}: outputs are larger than {BUDGET} bytes; print and draw less")


def keep_outputs(nb: NotebookNode, built: NotebookNode) -> None:
    """Give every code cell the outputs of the built cell with the same id, byte for byte: a picture
    that is made smaller twice is another one.
    """
    found = {cell.id: cell for cell in built.cells if cell.get("execution_count")}
    for cell in nb.cells:
        if cell.cell_type == "code" and cell.id in found:
            same = found[cell.id]
            cell.outputs, cell.execution_count = same.outputs, same.execution_count


def dumps(nb: NotebookNode) -> str:
    """The file's text: sorted keys, one trailing newline."""
    nbformat.validate(nb)
    return nbformat.writes(nb).rstrip("\n") + "\n"
