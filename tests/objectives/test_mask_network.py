"""The networks behind learned masks: against torch's own layers, what they keep of the states, their start, and their dropout."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from finegrain.objectives.mask_network import MaskNetwork, MaskReader, SimpleAll, SimpleLast, TwoLayerAll, TwoLayerLast

BLOCKS, WIDTH, TOKENS = 3, 6, 10
NETWORKS = {"simple-all": SimpleAll(), "simple-last": SimpleLast(), "two-layer-all": TwoLayerAll(hidden=4), "two-layer-last": TwoLayerLast(hidden=4)}


def states(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(TOKENS, WIDTH, generator=generator, dtype=torch.float64) + 1 for _ in range(BLOCKS)]


def made(kind: SimpleAll, count: int = 1, seed: int = 1) -> MaskReader:
    """A reader with every parameter off its start."""
    reader = kind.build(count, BLOCKS, WIDTH, torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return reader


def read(reader: MaskReader, given: list[Tensor]) -> Tensor:
    found: Tensor = reader([reader.read_block(number, own) for number, own in enumerate(given)])
    return found


def by_layers(network: MaskNetwork, given: list[Tensor]) -> Tensor:
    """The same of torch's layers, one after the other."""
    own = given[network.first :]
    numbers = []
    for place, block in enumerate(own):
        value = network.norm(block)
        if network.inner is not None:
            value = network.inner[place](value)
        numbers.append(network.outer[place](value))
    if network.mixer is None:
        return numbers[0]
    return network.mixer(relu(torch.cat(numbers, -1)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 2])
def test_it_is_norm_linear_and_mixture(name: str, count: int) -> None:
    """In value and in every parameter's gradient; several networks are side by side."""
    reader, given = made(NETWORKS[name], count).eval(), states()
    found = read(reader, given)
    networks = [network for network in reader.networks if isinstance(network, MaskNetwork)]
    wanted = torch.cat([by_layers(network, given) for network in networks], -1)
    assert found.shape == (TOKENS, count)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    parameters = list(reader.parameters())
    slopes = torch.autograd.grad(found.cos().sum(), parameters)
    for slope, want in zip(slopes, torch.autograd.grad(wanted.cos().sum(), parameters), strict=True):
        torch.testing.assert_close(slope, want, rtol=0, atol=1e-12)
        assert want.any()


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_start_near_1_and_by_their_own_seed(name: str) -> None:
    """Not dead, which for the usual start of a linear map every second is; the global generator is not drawn from."""
    before = torch.get_rng_state()
    build = lambda seed: NETWORKS[name].build(2, BLOCKS, WIDTH, torch.Generator().manual_seed(seed)).double().eval()
    found = read(build(5), states())
    assert torch.equal(torch.get_rng_state(), before)
    assert (found > 0).double().mean() > 0.8
    assert 0.5 < found.mean() < 1.6
    assert torch.equal(read(build(5), states()), found)
    assert not torch.equal(read(build(6), states()), found)
    assert not torch.equal(found[:, 0], found[:, 1]), "two networks begin apart"


@pytest.mark.parametrize(("name", "copies"), [("simple-all", BLOCKS), ("simple-last", 1)])
def test_of_the_states_one_copy_is_kept_of_every_block_that_is_read(name: str, copies: int) -> None:
    """For two networks too, and no tensor of all blocks; without a gradient nothing."""
    reader, given = made(NETWORKS[name], 2), states()
    kept: dict[int, torch.Size] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.update({tensor.data_ptr(): tensor.shape}) or tensor, lambda tensor: tensor):
        read(reader, given)
    assert sum(shape == (TOKENS, WIDTH) for shape in kept.values()) == copies
    assert max(shape.numel() for shape in kept.values()) == TOKENS * WIDTH
    kept.clear()
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.update({0: tensor.shape}) or tensor, lambda tensor: tensor):
        read(reader, given)
    assert not kept


def test_a_network_of_the_last_block_reads_no_other() -> None:
    reader, given = made(SimpleLast()).eval(), states()
    assert [reader.read_block(number, own).shape[-1] for number, own in enumerate(given)] == [0, 0, 1]
    others = [*states(4)[:2], given[2]]
    assert torch.equal(read(reader, others), read(reader, given))


def test_dropout_is_for_training_alone() -> None:
    reader, given = made(SimpleAll(dropout=0.4)), states()
    noisy = read(reader, given)
    assert (noisy == 0).any()
    assert not torch.equal(read(reader, given), noisy)
    reader.eval()
    assert torch.equal(read(reader, given), read(reader, given))
    certain = made(SimpleAll(dropout=0.0))
    assert torch.equal(read(certain, given), read(reader, given))
    assert isinstance(reader, nn.Module)
