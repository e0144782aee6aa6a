"""Matrix products."""

from __future__ import annotations

import math

import torch

from edgecheck.mil.call import Call, Handler


def _linear(call: Call) -> torch.Tensor:
    y = call.tensor("x") @ call.tensor("weight").T
    bias = call.optional("bias")
    return y if bias is None else y + bias


def _matmul(call: Call) -> torch.Tensor:
    operands = []
    for name in ("x", "y"):
        operand = call.tensor(name)
        if call.flag(f"transpose_{name}", False) and operand.ndim > 1:
            operand = operand.mT
        operands.append(operand)
    return operands[0] @ operands[1]


def _einsum(call: Call) -> torch.Tensor:
    product: torch.Tensor = torch.einsum(call.text("equation"), call.tensors("values"))
    return product


def _scaled_dot_product_attention(call: Call) -> torch.Tensor:
    """The formula of the operator's documentation, so that a row all masked is NaN as there."""
    query, key = call.tensor("query"), call.tensor("key")
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    mask = call.optional("attn_mask")
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ call.tensor("value")


HANDLERS: dict[str, Handler] = {
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _scaled_dot_product_attention,
}
