"""Several processes that train one model: what they share, and the losses of one batch that is spread over them.

DDP and FSDP average the gradients of the processes. Each process therefore differentiates its own share times their
number, and the mean is the gradient of the loss of all images together.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rasa.errors import ConfigError
from rasa_ram.training.losses import Losses, combine
from rasa_ram.training.objective import Terms


@dataclass(frozen=True, slots=True, eq=False)
class Processes:
    """The processes of a run, as torchrun or ``accelerate launch`` started them; one if neither did.

    Attributes:
        device: Of this process.
        rank: Number of this process, from 0.
        count: Number of processes, W.
        sharded: Whether weights are split over the processes (FSDP).
    """

    device: torch.device
    rank: int
    count: int
    sharded: bool
    _accelerator: Accelerator = field(repr=False)

    @classmethod
    def join(cls, device: str = "auto", *, sharded: bool = False, unused: bool = False) -> Processes:
        """Join the other processes.

        Args:
            device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
            sharded: Whether to split weights over them.
            unused: Whether some weights that are trained may take no part in the losses.

        Raises:
            ConfigError: If there is no such device, or this process has trained on another kind already.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError('no GPU is visible to torch; set device = "cpu", or look at nvidia-smi')
        ddp = DistributedDataParallelKwargs(find_unused_parameters=unused, gradient_as_bucket_view=True)
        accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[ddp])
        if device not in {"auto", accelerator.device.type}:
            raise ConfigError(f"this process has joined on {accelerator.device.type} and cannot go on with {device}")
        rank, count = accelerator.process_index, accelerator.num_processes
        return cls(accelerator.device, rank, count, sharded and count > 1, accelerator)

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, module: nn.Module, blocks: Iterable[nn.Module] = ()) -> nn.Module:
        """Make the processes average the gradients of ``module``.

        Args:
            module: Whose ``forward`` is the whole forward pass, on its device.
            blocks: Parts with parameters of their own that FSDP gathers one at a time; it gathers the rest at once.
        """
        if self.count == 1:
            return module
        if not self.sharded:
            return cast("nn.Module", self._accelerator.prepare_model(module))
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)
        mesh = init_device_mesh(self.device.type, (self.count,))
        # It splits no scalars; `average_unsharded` takes care of them.
        scalars = {weight for weight in module.parameters() if not weight.ndim}
        for block in blocks:
            fully_shard(block, mesh=mesh)
        return cast("nn.Module", fully_shard(module, mesh=mesh, ignored_params=scalars))

    def average_unsharded(self, module: nn.Module) -> None:
        """Average the gradients that FSDP leaves alone, once all of them are there."""
        if self.sharded:
            for weight in module.parameters():
                if not isinstance(weight, DTensor) and weight.grad is not None:
                    weight.grad = cast("Tensor", self._accelerator.reduce(weight.grad, reduction="mean"))

    def without_sync(self, module: nn.Module) -> AbstractContextManager[Any]:
        """A backward pass whose gradients need not be averaged yet, because more will be added to them."""
        # FSDP reduces every time: the gradients that it holds back are as large as the whole model.
        return self._accelerator.no_sync(module) if self.count > 1 and not self.sharded else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over the processes, without a gradient."""
        return values if self.count == 1 else cast("Tensor", self._accelerator.reduce(values, reduction="sum"))

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in their order, without a gradient; each has as many."""
        return rows if self.count == 1 else cast("Tensor", self._accelerator.gather(rows))

    def gather_texts(self, text: str) -> list[str]:
        """One text of each process, in their order."""
        return [text] if self.count == 1 else list(gather_object([text]))

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process."""
        if self.count == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item() > 0)

    def wait(self) -> None:
        """Wait for the others."""
        self._accelerator.wait_for_everyone()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be split over processes, whole, without a gradient; all of them must ask."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def fill_from(tensor: Tensor, values: Tensor) -> None:
    """Give a tensor that may be split over processes the whole ``values``, each process its part."""
    with torch.no_grad():
        if isinstance(tensor, DTensor):
            given = values.to(tensor.device, tensor.dtype)
            tensor.copy_(distribute_tensor(given, tensor.device_mesh, tensor.placements))
        else:
            tensor.copy_(values)


def share_losses(terms: Terms, processes: Processes, *, loss_images: int | None = None) -> tuple[Tensor, Losses]:
    """Turn what each process has computed into the losses of all images together.

    Where the tagging loss is rescaled to the caption loss, its size does not matter and it is summed over all images.
    Where it is not (RAM++), and for the alignment, one device's sum counts and the devices are averaged, as published;
    with ``loss_images`` the sum is that of so many images, whatever the batch and the number of processes are.

    Args:
        terms: Of this process's batch; all processes call at once.
        processes: Who they are.
        loss_images: Images that the summed losses count as.

    Returns:
        What this process differentiates, such that the mean of all processes' gradients is that of ``total``; and the
        losses of all images, the same in each process.
    """
    count = processes.count
    images, tag, t2t, tokens, dis, alignment = _added_up(terms, processes)
    scale = 1.0 if loss_images is None else count * (loss_images / float(images))
    # The mean over devices of what they differentiate; a sum where the size does not matter.
    shown = count if terms.t2t is not None and loss_images is None else 1
    common = combine(
        tag=tag * (scale * shown / count),
        t2t=None if terms.t2t is None else t2t / tokens.clamp(min=1),
        dis=None if terms.dis is None else dis,
        alignment=None if terms.alignment is None else alignment * (scale / count),
    )
    if terms.t2t is None:
        total = terms.tag * scale
    else:
        factor = common.t2t / common.tag.clamp(min=torch.finfo(common.tag.dtype).eps)
        total = terms.t2t / tokens.clamp(min=1) * count + terms.tag * (scale * shown) * factor
    if terms.dis is not None:
        total = total + terms.dis * (count * (terms.images / float(images)))
    if terms.alignment is not None:
        total = total + terms.alignment * scale
    return total, common


def _added_up(terms: Terms, processes: Processes) -> tuple[Tensor, ...]:
    """Images, tag, t2t, tokens, dis and alignment of all processes, without gradients; sums, dis a mean."""
    zero = terms.tag.new_zeros(())
    given = (terms.tag, terms.t2t, terms.tokens, terms.dis, terms.alignment)
    tag, t2t, tokens, dis, alignment = (zero if term is None else term.detach() for term in given)
    images = zero + terms.images
    if processes.count == 1:
        return images, tag, t2t, tokens, dis, alignment
    # In float64: token counts and sums over millions of entries keep their digits.
    own = torch.stack([part.double() for part in (images, tag, t2t, tokens, dis * images, alignment)])
    images, tag, t2t, tokens, dis, alignment = processes.sum(own)
    return tuple(part.to(zero.dtype) for part in (images, tag, t2t, tokens, dis / images, alignment))
