"""Round figures of a workstation that does not exist: a CPU, a GPU, an NVMe disk."""

from llmrun.hardware.speeds import DeviceSpeed, DiskSpeed, LinkSpeed, Speeds, Spread, WeightSpeed

GB = 1_000_000_000


def steady(figure: float) -> Spread:
    return Spread(figure, figure, figure)


def device(name: str, memory: float, peak_flops: float, link: LinkSpeed | None = None) -> DeviceSpeed:
    """A device that multiplies bf16 at its memory's speed until its FLOP/s end that."""
    tokens = (1, 8, 64, 512)
    rates = tuple(min(memory, peak_flops / n_tokens) for n_tokens in tokens)  # 2 FLOPs for 2 bytes
    weights = (WeightSpeed("BF16", tokens, rates),)
    return DeviceSpeed(name, f"the {name}", steady(memory), weights, memory, peak_flops, 1e-4, 1e-10, (), link)


CPU = device("cpu", 40 * GB, 800 * GB)
GPU = device("gpu:0", 400 * GB, 40_000 * GB, LinkSpeed(steady(12 * GB), 6 * GB, 12 * GB, 6 * GB, 1e-5))
SPEEDS = Speeds(
    measured_at="2025-01-01T00:00:00Z",
    host="a workstation",
    disk=DiskSpeed(steady(3 * GB), 1.5 * GB, 1e-4),
    devices=(CPU, GPU),
    reading_slowdown=1.2,
    startup_s=3.0,
    token_s=0.001,
)
