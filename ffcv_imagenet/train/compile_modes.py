"""The values of ``training.compile``; without torch, so that help texts need not wait for it."""

#: Values of ``training.compile`` besides auto and off, and what they are for torch.compile.
COMPILE_MODES: dict[str, dict[str, str]] = {
    "default": {},
    "reduce-overhead": {"mode": "reduce-overhead"},
    "max-autotune": {"mode": "max-autotune"},
    "aot_eager": {"backend": "aot_eager"},
}
#: In these modes a GPU replays recorded graphs, whose gradients lie in memory that the next replay writes.
CUDA_GRAPH_MODES = ("reduce-overhead", "max-autotune")
