"""Dropout of a micro-batch that several devices share."""

import pytest
import torch

from aliquot.finetuning.dropout import DeviceShare, SharedDropout, rows_seen, share_dropout
from aliquot.finetuning.examples import Part

NUM_ROWS, WIDTH, DEPTH = 5, 7, 3


def dropped(inputs, share):
    torch.manual_seed(0)
    return SharedDropout(0.4, share)(inputs)


@pytest.mark.parametrize(
    ("tail", "flat"),
    [((WIDTH, DEPTH), False), ((WIDTH, DEPTH), True), ((WIDTH, 2, DEPTH), False), ((DEPTH,), False)],
)
@pytest.mark.parametrize("world", [2, 3, 5])
def test_devices_drop_of_their_rows_what_one_device_drops_of_all(tail, flat, world):
    inputs = torch.rand(NUM_ROWS, *tail) + 1
    shape = (lambda rows: rows.reshape(-1, DEPTH)) if flat else (lambda rows: rows)
    whole = dropped(shape(inputs), DeviceShare()).reshape(inputs.shape)
    assert 0.2 < (whole == 0).float().mean() < 0.6
    torch.testing.assert_close(whole[whole > 0], inputs[whole > 0] / 0.6)
    for rank in range(world):
        rows = slice(rank, None, world)
        share = DeviceShare(Part(0, NUM_ROWS, rows), (WIDTH,))
        assert torch.equal(dropped(shape(inputs[rows]), share).reshape(inputs[rows].shape), whole[rows])


def test_a_whole_micro_batch_may_have_any_shape_and_a_shared_one_only_shapes_whose_rows_are_known():
    routed = torch.rand(6, DEPTH)  # by luck a multiple of the rows
    dropped(routed, DeviceShare(Part(0, NUM_ROWS, slice(None)), (WIDTH,)))
    for inputs in (routed, torch.rand(4, WIDTH, DEPTH), torch.rand(7, DEPTH)):
        with pytest.raises(
            ValueError, match=r"takes inputs of shape .* 3 rows cannot be distinguished.*trainer.devices=1"
        ):
            dropped(inputs, DeviceShare(Part(0, NUM_ROWS, slice(0, None, 2)), (WIDTH,)))


def test_a_layer_whose_rows_cannot_be_told_apart_is_seen_before_they_are_shared():
    layers = torch.nn.ModuleList([SharedDropout(0.4, DeviceShare()), torch.nn.Linear(DEPTH, DEPTH)])
    inputs = torch.rand(NUM_ROWS, WIDTH, DEPTH)
    with rows_seen(layers, NUM_ROWS, (WIDTH,)) as seen:
        for passing in (inputs, inputs.reshape(-1, DEPTH), inputs[:, 0], inputs[0], inputs.reshape(-1, DEPTH)[:10]):
            layers[0](passing)
    assert seen == [True, True, True, False, False]
    layers[0](inputs)
    assert len(seen) == 5


def test_outside_training_nothing_is_dropped_and_only_dropout_of_adapters_is_replaced():
    inputs = torch.rand(2, 3)
    assert torch.equal(SharedDropout(0.5, DeviceShare()).eval()(inputs), inputs)
    layer = torch.nn.Module()
    layer.dropout = torch.nn.Dropout(0.1)
    layer.lora_dropout = torch.nn.ModuleDict({"a": torch.nn.Dropout(0.3), "none": torch.nn.Identity()})
    share_dropout(torch.nn.ModuleList([layer]))
    assert [type(d) for d in layer.lora_dropout.values()] == [SharedDropout, torch.nn.Identity]
    assert layer.lora_dropout["a"].p == 0.3
    assert type(layer.dropout) is torch.nn.Dropout
