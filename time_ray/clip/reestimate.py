"""BatchNorm statistics of merged weights, estimated on data as stochastic weight averaging does (arXiv:1803.05407)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from time_ray.clip.arithmetic import Arithmetic
from time_ray.clip.batch_norm import layers, synchronised
from time_ray.clip.features import image_features, to_device
from time_ray.clip.models import Clip
from time_ray.core.errors import CellError
from time_ray.data.batch import Batch
from time_ray.data.prefetch import closed


def reestimated(
    clip: Clip, weights: Mapping[str, Tensor], batches: Iterable[Batch], *, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """The weights with the mean statistics of these batches, and with their number as the counter.

    As torch.optim.swa_utils.update_bn, but that only BatchNorm is in training mode: nothing is dropped at random.
    Under torch.distributed every worker passes its slice of each global batch, and all return the same.

    Args:
        clip: the architecture, all of whose BatchNorm layers are in its image tower; its module is working memory.
        weights: of a merge; they are not changed.
        batches: whose images are looked at, in float32.
        device: where the model runs.

    Returns:
        Tensors on the CPU, with the names and order of `weights`; all but BatchNorm's buffers are equal to theirs.

    Raises:
        CellError: naming the tensor, if a statistic is not finite.

    """
    module = clip.load(weights, device).eval()
    found = layers(module)
    momenta = [layer.momentum for layer in found]
    for layer in found:
        layer.reset_running_stats()
        layer.training, layer.momentum = True, None  # None: the mean over all batches
    device = torch.device(device)
    exact = Arithmetic("fp32", device).forward()
    with torch.no_grad(), exact, synchronised(module), closed(batches) as stream:
        for batch in stream:
            image_features(clip, to_device(batch.images, device).permute(0, 2, 3, 1))
    for layer, momentum in zip(found, momenta, strict=True):
        layer.training, layer.momentum = False, momentum
    state = module.state_dict()
    result = {name: state[name].to("cpu", copy=True) for name in weights}
    broken = [name for name, tensor in result.items() if not bool(tensor.isfinite().all())]
    if broken:
        msg = f"batch_norm.statistics: {broken[0]} is not finite on data; set it to average, or use another technique"
        raise CellError(msg)
    return result
