"""What Ray sets aside for workers, by what its nodes have."""

import pytest

from farm.cluster.ray_nodes import shares
from farm.core.placement import Machine, Placement

NODE = Machine(tuple((cpu,) for cpu in range(16)), 64 << 30, ())
GPU_NODE = Machine(NODE.cores, 64 << 30, ("A", "A"))


@pytest.mark.parametrize(
    ("place", "count", "nodes", "expected"),
    [
        (Placement(0, (), "cpu", 1, 1, 1), 32, [NODE, NODE], (1, 0)),
        (Placement(0, (), "cpu", 1, 1, 1), 64, [NODE, NODE], (0.5, 0)),
        (Placement(0, (), "cpu", 20, 1, 1), 1, [NODE, NODE], (16, 0)),
        (Placement(0, (), "cuda:0", 1, 32, 8), 2, [GPU_NODE], (8, 1)),
        (Placement(0, (), "cuda:0", 1, 32, 4), 3, [GPU_NODE], (4, 0.5)),
        (Placement(0, (), "cuda:0", 1, 32, 4), 4, [GPU_NODE], (4, 0.5)),
        (Placement(0, (), "cuda:0", 1, 32, 2), 5, [GPU_NODE], (2, 0.3333)),
    ],
)
def test_what_ray_sets_aside_fits_on_its_nodes(place, count, nodes, expected):
    assert shares(place, count, nodes) == expected
