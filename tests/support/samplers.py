"""Every way to sample that is not the reference's own, for what holds for all of them."""

from __future__ import annotations

from magnet_cli.options.sampling import SamplingConfig

STEPS = (5, 3, 3, 2)

SAMPLERS = {
    "constant guidance": SamplingConfig(STEPS, guidance_schedule="constant", guidance=3),
    "rising guidance": SamplingConfig(STEPS, guidance_schedule="rising"),
    "guidance in the middle": SamplingConfig(STEPS, guidance_start=0.3, guidance_end=0.7),
    "corput": SamplingConfig(STEPS, span_order="corput"),
    "hybrid": SamplingConfig(STEPS, span_order="hybrid"),
    "entropy": SamplingConfig(STEPS, entropy_bound=4.0),
    "entropy, corput": SamplingConfig((5, 8, 8, 8), entropy_bound=0.5, span_order="corput"),
    "remasking": SamplingConfig((8, 3, 3, 2), remask=1.0),
    "remasking, hybrid": SamplingConfig((8, 3, 3, 2), remask=0.8, span_order="hybrid", span_score="prod"),
    "noise": SamplingConfig(STEPS, order_noise=3.0),
    "noise, prod": SamplingConfig(STEPS, order_noise=3.0, span_score="prod", span_order="hybrid"),
    "noise, stride1": SamplingConfig(STEPS, order_noise=1.0, spans="stride1"),
}
