import json

import pytest
import torch

from warmstart.storage.packing import TensorTable, pack, unpack


def round_trip(value):
    table = TensorTable()
    text = json.dumps(pack(value, "it", table))
    return unpack(json.loads(text), table.tensors), table


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0.1 + 0.2,
        float("inf"),
        "text",
        [1, (2, 3), [(4,)]],
        {"betas": (0.9, 0.999), "params": [0, 1]},
        {0: {"exp": 1}, 17: {}},
        {(1, "a"): 2, None: 3},
        {"$tensor": "not one", "$tuple": [1]},
        {},
    ],
)
def test_plain_values_come_back_with_their_types(value):
    back, table = round_trip(value)

    assert back == value
    assert repr(back) == repr(value)
    assert table.tensors == {}


def test_tensors_are_named_by_the_way_to_them():
    _, table = round_trip({0: {"momentum_buffer": torch.ones(2)}, "list": [1, torch.zeros(1)]})

    assert set(table.tensors) == {"it.0.momentum_buffer", "it.list.1"}


def test_two_ways_that_spell_the_same_stay_apart():
    back, _ = round_trip({"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)})

    assert back["a"]["b"].item() == 0
    assert back["a.b"].item() == 1


def test_overlapping_views_are_stored_apart_and_equal_ones_once():
    base = torch.arange(6.0)
    value = {"all": base, "same": base.view(6), "half": base[:3], "turned": base.view(2, 3).T, "row": base[None]}

    back, table = round_trip(value)

    assert set(table.tensors) == {"it.all", "it.half", "it.turned", "it.row"}
    assert len({tensor.data_ptr() for tensor in table.tensors.values()}) == 4
    for name, tensor in value.items():
        assert torch.equal(back[name], tensor)


def test_a_permuted_stride_order_comes_back_and_an_expanded_one_is_filled_in():
    channels_last = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    back, _ = round_trip({"conv": channels_last, "wide": torch.ones(1, 3).expand(4, 3)})

    assert torch.equal(back["conv"], channels_last)
    assert back["conv"].stride() == channels_last.stride()
    assert torch.equal(back["wide"], torch.ones(4, 3))
    assert back["wide"].is_contiguous()


def test_what_cannot_be_stored_is_named():
    with pytest.raises(TypeError, match=r"it\.groups\.1\.hook: a function cannot be stored"):
        pack({"groups": [1, {"hook": lambda: None}]}, "it", TensorTable())
