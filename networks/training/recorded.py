"""A step's loss and gradients as one launch.

On a GPU the kernels of a small network take longer to launch than to run. A CUDA graph is recorded once for each kind
of batch, and then repeated with other images in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WARM_UPS = 3  # steps before one is recorded: algorithms are chosen and memory is taken in the first
Learned = tuple[Tensor, dict[str, Tensor], dict[str, int]]  # loss, terms of it, examples that concern each group


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: dict[str, Any]  # what it reads
    learned: Learned  # what it writes, each time anew
    gradients: list[tuple[nn.Parameter, Tensor]]


class RecordedGradients:
    """What `forward` says of a batch, and the gradients of its loss.

    Args:
        learner: whose parameters are learned; no gradient may be left over from an earlier batch.
        forward: batch -> loss, terms, examples. It may not wait for what the device found, and does the same with all
            batches of one kind: of the same shapes, and with examples of the same groups.
    """

    def __init__(self, learner: nn.Module, forward: Callable[[dict[str, Any]], Learned]) -> None:
        self._learner, self._forward = learner, forward
        self._stream = torch.cuda.Stream()
        self._memory = torch.cuda.graph_pool_handle()  # of all: they never run at once
        self._kinds: dict[tuple[object, ...], _Recording] = {}

    def __call__(self, batch: dict[str, Any]) -> Learned:
        kind = _kind(batch)
        if kind not in self._kinds:
            self._kinds[kind] = self._recorded(batch)
        recording = self._kinds[kind]
        for name, value in batch.items():
            if isinstance(value, Tensor):
                recording.batch[name].copy_(value)
        recording.graph.replay()
        for parameter, gradient in recording.gradients:
            parameter.grad = gradient
        loss, terms, examples = recording.learned
        return loss.clone(), {name: term.clone() for name, term in terms.items()}, examples

    def _recorded(self, batch: dict[str, Any]) -> _Recording:
        own = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                self._learner.zero_grad(set_to_none=True)
                self._forward(own)[0].backward()
        torch.cuda.current_stream().wait_stream(self._stream)
        self._learner.zero_grad(set_to_none=True)
        # the thread that makes the next batch goes on meanwhile: only what this one does is recorded
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"):
            loss, terms, examples = self._forward(own)
            loss.backward()
        gradients = [(p, p.grad) for p in self._learner.parameters() if p.grad is not None]
        return _Recording(graph, own, (loss.detach(), terms, examples), gradients)


def _kind(batch: dict[str, Any]) -> tuple[object, ...]:
    """What a recording is of: shapes, which tasks have examples, other settings."""
    parts: list[object] = []
    for name, value in sorted(batch.items()):
        if isinstance(value, Tensor):
            parts.append((name, tuple(value.shape), value.dtype))
        elif isinstance(value, dict):
            parts.append((name, tuple(sorted((key, bool(count)) for key, count in value.items()))))
        else:
            parts.append((name, value))
    return tuple(parts)
