"""Another CPU's rounding, imitated: `PYTHONPATH=. pytest -p tests.helpers.perturb tests/methods`.

Products and sums come out within one unit of the last place, which depends on the value and on the
shape: equal computations stay equal bit for bit, a batch and its rows differ. A bound that fails
here holds by the rounding of one machine. Processes that a test starts are not perturbed, so tests
that compare them with this one fail; so do tests that count bytes.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

BITS = {torch.float32: torch.int32, torch.float64: torch.int64, torch.bfloat16: torch.int16}
NAMES = "linear scaled_dot_product_attention cross_entropy matmul __matmul__ mm bmm sum mean"


def perturbed(f):
    @functools.wraps(f)
    def g(*args, **kw):
        y = f(*args, **kw)
        if type(y) is not torch.Tensor or y.dtype not in BITS:
            return y
        bits = y.detach().contiguous().view(BITS[y.dtype]).long()
        mixed = (bits * 2654435761 + 40503 * hash(tuple(y.shape)) % 2**20) ^ (bits >> 7)
        r = (mixed * 2246822519 + (mixed >> 13)).bitwise_and(0xFFFF) / 2**15 - 1  # in [-1, 1)
        if y.dtype == torch.bfloat16:  # few of whose results round otherwise
            r = r.sign() * (r.abs() > 0.97)
        return (y.double() * (1 + torch.finfo(y.dtype).eps * r.double())).to(y.dtype)

    return g


for home in (F, torch, torch.Tensor):
    for name in NAMES.split():
        if hasattr(home, name):
            setattr(home, name, perturbed(getattr(home, name)))
