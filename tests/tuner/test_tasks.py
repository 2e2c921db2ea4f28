"""The tasks of a network's forms, and how much weight the network has with each."""

from __future__ import annotations

from schedules.graph.pipeline import prepare
from schedules.winograd import PRODUCT
from tests.schedules import networks
from tests.schedules.networks import Network
from tuner.search.alternatives import most_calls
from tuner.targets import host_target
from tuner.tasks import extract_tasks
from tuner.ways import Ways

CHANNELS = 16
DIRECT_BYTES = 4 * 9 * CHANNELS**2
WINOGRAD_BYTES = 4 * 36 * CHANNELS**2


def test_weights_are_those_of_the_network_that_a_task_is_part_of() -> None:
    n = Network(seed=3)
    t = "x"
    for _ in range(3):
        t = n.node("Relu", n.conv(t, inputs=CHANNELS, outputs=CHANNELS, pads=[1, 1, 1, 1]))
    ways = Ways(prepare(networks.imported(n.model(t, shape=(1, CHANNELS, 9, 11)))), host_target())
    tasks = {task.tuning.name: task.tuning for task in extract_tasks(ways, host_target(), seed=0)}
    direct = [task for name, task in tasks.items() if name.startswith("fused_conv2d")]
    assert sum(most_calls(task.uses) for task in direct) == 3
    assert {task.network_weight_bytes for task in direct} == {3 * DIRECT_BYTES}
    assert most_calls(tasks[PRODUCT].uses) == 3
    assert tasks[PRODUCT].network_weight_bytes == 3 * DIRECT_BYTES + 3 * WINOGRAD_BYTES
    assert tasks[PRODUCT].source.network_weight_bytes == tasks[PRODUCT].network_weight_bytes
