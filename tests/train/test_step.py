"""The step: what it computes, eager and compiled, and that it never waits for the device."""

import copy
import shutil
import time

import pytest
import torch
import torch._inductor.config
from memory_trainer import CLASSES, DrawnLoader, draw_batch, make_trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.resnet import BasicBlock, ResNet

from ffcv_imagenet.augment.normalize import Normalize
from ffcv_imagenet.distributed import World
from ffcv_imagenet.losses import LOSSES
from ffcv_imagenet.models import build_model
from ffcv_imagenet.schedules import make_lr_schedule
from ffcv_imagenet.train.compile_modes import COMPILE_MODES, CUDA_GRAPH_MODES
from ffcv_imagenet.train.evaluation import evaluate
from ffcv_imagenet.train.step import EvaluationStep, choose_compile, compile_module
from ffcv_imagenet.train.wait_clock import WaitClock

BATCHES, BATCH_SIZE, EPOCHS = 5, 8, 2
SIDES = (32, 48)


@pytest.fixture(autouse=True)
def _compile_nothing_for_later():
    yield
    torch._dynamo.reset()


class TinyNet(torch.nn.Sequential):
    """Something of everything that a step has to do with: convolution, statistics, random numbers."""

    def __init__(self, dropout=0.1):
        layers = (
            torch.nn.Conv2d(3, 8, 5, stride=4),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout(dropout),
        )
        super().__init__(*layers, torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(32, CLASSES))


class DoubleTinyNet(TinyNet):
    """In float64, where rounding stays far below any mistake, and without dropout, so that a compiler draws nothing."""

    def __init__(self):
        super().__init__(dropout=0.0)
        self.double()

    def forward(self, images):
        return super().forward(images.double())


def resnet10():
    return build_model("resnet10", CLASSES, blurpool=True)


def double_resnet10():
    """In float64, see :class:`DoubleTinyNet`."""
    model = resnet10().double()
    model.conv1.register_forward_pre_hook(lambda module, images: images[0].double())
    return model


def trainer_of(make_model, loss="maxsup", **options):
    torch.manual_seed(7)
    defaults = {
        "epochs": EPOCHS,
        "lr": make_lr_schedule("piecewise", lr=0.2, epochs=EPOCHS, peak_epoch=1),
        "resolution": SIDES.__getitem__,
    }
    return make_trainer(make_model(), LOSSES.choose(loss), batches=BATCHES, batch_size=BATCH_SIZE, **defaults | options)


def train_losses(trainer):
    torch.manual_seed(1)  # of the dropout
    losses = []
    for epoch in range(EPOCHS):
        trainer.train_epoch(epoch)
        losses += trainer.progress.losses.tolist()
        trainer.epochs_done, trainer.progress = epoch + 1, trainer._new_epoch()
    return losses


def golden_losses(loss):
    """The same ten steps, written out with nothing but torch."""
    torch.manual_seed(7)
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def blur(module, inputs):
        """In front of a convolution of stride 2; a 1x1 convolution is given the pixels that it reads."""
        stride = 2 if module.kernel_size == (1, 1) else 1
        channels = module.in_channels
        x = torch.nn.functional.conv2d(
            inputs[0], kernel.expand(channels, 1, 3, 3).contiguous(), stride=stride, padding=1, groups=channels
        )
        if stride == 2:
            module.stride = (1, 1)
        return x

    for layer in (model.layer2, model.layer3, model.layer4):
        layer[0].conv1.register_forward_pre_hook(blur)
        layer[0].downsample[0].register_forward_pre_hook(blur)
    model = model.to(memory_format=torch.channels_last).train()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}],
        lr=0.0,
        momentum=0.9,
        fused=True,
    )
    mean = 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    losses = []
    for step in range(BATCHES * EPOCHS):
        done = step / BATCHES
        lr = 0.2 * (1e-4 + (1 - 1e-4) * done) if done <= 1 else 0.2 * (2 - done)
        for group in optimizer.param_groups:
            group["lr"] = lr
        images, labels, _ = draw_batch(1000 * (step // BATCHES) + step % BATCHES, BATCH_SIZE, SIDES[step // BATCHES])
        logits = model((images.float() - mean) * (1 / std))
        smoothing = 0.1 if loss == "label_smoothing" else 0.0
        value = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        excess = (logits.max(dim=1).values - logits.mean(dim=1)).mean()
        if loss == "maxsup":
            value = value + torch.tensor(0.1 + 0.1 * step / (BATCHES * EPOCHS)) * excess
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("loss", ["baseline", "label_smoothing", "maxsup"])
def test_ten_golden_steps_are_equal_to_the_last_bit(loss):
    assert train_losses(trainer_of(resnet10, loss)) == golden_losses(loss)


def test_compiling_changes_nothing_and_happens_before_the_first_step():
    eager, compiled = (trainer_of(TinyNet, skip_nonfinite=True, compile=mode) for mode in ("off", "aot_eager"))
    for trainer in (eager, compiled):
        torch.manual_seed(0)
        trainer.train_epoch(0)  # so that there are momenta and statistics
    before, random = snapshot(compiled), torch.get_rng_state()
    torch._dynamo.reset()
    assert compiled.warm_up() > 0
    after = snapshot(compiled)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in compiled.model.parameters())

    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 3  # two image sizes for training, one for validation
    assert train_losses(compiled) == train_losses(eager)
    eager.epochs_done = compiled.epochs_done = 0
    last = []
    for trainer in (eager, compiled):
        torch.manual_seed(2)
        last.append(trainer.fit(None, None))
    assert (last[0].train_loss, last[0].val_loss) == (last[1].train_loss, last[1].val_loss)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_a_compiler_that_fails_is_named_with_the_way_out(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setitem(COMPILE_MODES, "default", {"backend": broken})
    with pytest.raises(OSError, match=r"training.compile=default fails \(.*no compiler here.*\); allowed is off"):
        trainer_of(TinyNet, compile="default").warm_up()


def test_what_is_compiled_without_being_asked():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert [choose_compile("auto", device) for device in (gpu, cpu)] == ["default", "off"]
    assert choose_compile("auto", gpu, sync_bn=True) == "off"
    assert choose_compile("default", gpu, sync_bn=True) == "default"


@pytest.mark.parametrize("mode", CUDA_GRAPH_MODES)
def test_cuda_graphs_on_several_gpus_are_refused(mode):
    assert choose_compile(mode, torch.device("cuda")) == mode
    assert choose_compile(mode, torch.device("cpu"), processes=2) == mode
    with pytest.raises(ValueError, match=f"training.compile: got {mode}, .* such as --training.compile=default"):
        choose_compile(mode, torch.device("cuda"), processes=2)


class CountedStep(EvaluationStep):
    """Notes how many images it is given at a time."""

    def forward(self, images):
        self.sizes = [*getattr(self, "sizes", []), len(images)]
        return super().forward(images)


@pytest.mark.parametrize("flip_tta", [False, True])
def test_a_compiled_evaluation_keeps_its_shape_to_the_last_image(flip_tta):
    step = CountedStep(resnet10().double(), Normalize().double(), precision="fp32", device=torch.device("cpu"))
    loader = DrawnLoader(3, BATCH_SIZE, last=3)
    plain, filled = (
        evaluate(step, loader, resolution=32, flip_tta=flip_tta, top_k=2, forward=forward)
        for forward in (None, lambda images: step(images))
    )
    passes = 1 + flip_tta
    assert step.sizes == ([8, 8, 8, 8, 3, 3] if flip_tta else [8, 8, 3]) + [8] * 3 * passes
    assert filled.images == plain.images == 2 * BATCH_SIZE + 3
    assert (filled.top_1, filled.top_k) == (plain.top_1, plain.top_k)
    assert filled.loss == pytest.approx(plain.loss, rel=1e-12)


def test_every_call_that_may_replay_a_graph_begins_a_step(monkeypatch):
    from torch._inductor.cudagraph_trees import MarkStepBox

    linear, images = torch.nn.Linear(3, 2), torch.randn(4, 3)
    for mode, steps in (("reduce-overhead", 2), ("default", 0)):
        monkeypatch.setitem(COMPILE_MODES, mode, {"backend": "eager"})
        forward, before = compile_module(linear, mode, 1), MarkStepBox.mark_step_counter
        for _ in range(2):
            assert torch.equal(forward(images), linear(images))
        assert before - MarkStepBox.mark_step_counter == steps


def test_the_time_without_data_is_the_gpus(monkeypatch):
    """Simulated: the program records events, the GPU comes to them later."""
    device_time, passed = iter((0.0, 100.0, 5000.0, 5250.0)), set()

    class SimulatedEvent:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.milliseconds = next(device_time)

        def query(self):
            return self.milliseconds in passed

        def elapsed_time(self, later):
            assert {self.milliseconds, later.milliseconds} <= passed
            return later.milliseconds - self.milliseconds

    monkeypatch.setattr(torch.cuda, "Event", SimulatedEvent)
    clock = WaitClock(torch.device("cuda"), 3.0)
    with clock:
        pass
    assert clock.seconds() == 3.0
    passed |= {0.0, 100.0, 5000.0}
    with clock:
        pass
    assert clock.seconds() == pytest.approx(3.1)
    passed.add(5250.0)
    assert clock.seconds() == pytest.approx(3.35)
    assert clock.seconds() == pytest.approx(3.35)


def test_the_start_up_is_no_waiting_for_data(monkeypatch):
    """Simulated: the first batch takes 100 seconds, every other one 1, and a step 3."""
    now = 0.0

    def pass_time(seconds):
        nonlocal now
        now += seconds

    class SlowLoader(DrawnLoader):
        def epoch(self, epoch, resolution, first_batch=0):
            for batch in super().epoch(epoch, resolution, first_batch):
                pass_time(1.0 if now else 100.0)
                yield batch

    def lr(epoch):
        pass_time(3.0 if now else 0.0)  # Once per step; the first is before the first batch.
        return 0.1

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    trainer = trainer_of(TinyNet, train_loader=SlowLoader(BATCHES, BATCH_SIZE), lr=lr)
    trainer.fit(None, None)
    assert [line["wait_share"] for line in trainer.log] == [4 / (4 + 4 * 3), 5 / (5 + 5 * 3)]
    assert trainer.log[0]["seconds"] == 100 + 4 + 4 * 3


def snapshot(trainer):
    """All tensors of a trainer, copied."""
    tensors = {f"model {key}": value.clone() for key, value in trainer.model.state_dict().items()}
    for number, state in trainer.optimizer.state_dict()["state"].items():
        tensors[f"momentum {number}"] = state["momentum_buffer"].clone()
    of_loss = {f"loss {name}": value.clone() for name, value in trainer.loss.state.items()}
    return tensors | of_loss | {"losses": trainer.progress.losses.clone()}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@torch._inductor.config.patch(compile_threads=1)
def test_the_compiler_gives_the_same_losses_within_rounding():
    eager, compiled = (
        trainer_of(DoubleTinyNet, compile=mode, resolution=lambda epoch: 32) for mode in ("off", "default")
    )
    compiled.warm_up()
    torch.testing.assert_close(train_losses(compiled), train_losses(eager), rtol=1e-9, atol=0)


class NoReading(TorchDispatchMode):
    """Fails where a number leaves a tensor: on a GPU the program would wait there for the device."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert not name.startswith(self.READS), f"{name} in the step"
        return function(*args, **kwargs or {})


OPTIONS = [
    {},
    {"accumulation": 5, "skip_nonfinite": True, "ema": 0.9},
    {"precision": "bf16", "ema": 0.9},
    {"precision": "fp16", "skip_nonfinite": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_no_number_is_read_in_a_step(options):
    trainer = trainer_of(TinyNet if options else resnet10, **options)
    with NoReading():
        trainer.train_epoch(0)


@pytest.mark.parametrize("loss", LOSSES.kinds)
def test_no_loss_reads_a_number_in_a_step(loss):
    trainer = trainer_of(resnet10, loss, resolution=lambda epoch: 32)
    with NoReading():
        trainer.train_epoch(0)
    assert trainer.progress.losses.isfinite().all()


def test_zipf_ranks_by_the_votes_of_the_feature_maps_locations():
    """At 64 px ResNet's map has 2 x 2 locations."""
    trainer = trainer_of(resnet10, "zipf_label_smoothing")
    images, labels, _ = draw_batch(0, BATCH_SIZE, 64)
    reference, seen = copy.deepcopy(trainer.model).train(), []
    reference.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    logits = reference(trainer.step.module.normalize(images))
    local = torch.nn.functional.conv2d(seen[0], reference.fc.weight[:, :, None, None], reference.fc.bias).argmax(1)
    assert local.shape == (BATCH_SIZE, 2, 2)
    expected = trainer.loss(logits, labels, local.flatten(1))
    loss = trainer.step(images, labels)
    assert loss == expected
    for one, other in zip(
        torch.autograd.grad(loss, list(trainer.model.parameters())),
        torch.autograd.grad(expected, list(reference.parameters())),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_zipfs_votes_are_the_same_compiled():
    eager, compiled = (
        trainer_of(double_resnet10, "zipf_label_smoothing", compile=mode, resolution=lambda epoch: 64)
        for mode in ("off", "aot_eager")
    )
    torch.testing.assert_close(train_losses(compiled), train_losses(eager), rtol=1e-9, atol=0)


def test_a_number_that_is_read_would_be_noticed():
    with pytest.raises(AssertionError, match="_local_scalar_dense in the step"), NoReading():
        torch.ones(1).item()


def test_gradients_stay_where_a_replayed_graph_adds_them():
    plain, replaying = trainer_of(TinyNet), trainer_of(TinyNet)
    replaying.keeps_gradients = True
    for parameter in replaying.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    places = [parameter.grad.data_ptr() for parameter in replaying.model.parameters()]
    assert train_losses(replaying) == train_losses(plain)
    assert [parameter.grad.data_ptr() for parameter in replaying.model.parameters()] == places


def test_everything_is_channels_last():
    trainer = trainer_of(resnet10)
    images = trainer.step.module.normalize(draw_batch(0, 4, 32).images)
    assert images.is_contiguous(memory_format=torch.channels_last)
    seen = []
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda module, inputs, output: seen.extend([*inputs, output]))
    trainer.step(*draw_batch(0, 4, 32)[:2]).backward()
    assert len(seen) == 2 * 12  # behind every convolution
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)
    weights = [p for p in trainer.model.parameters() if p.ndim == 4]
    assert all(w.grad.is_contiguous(memory_format=torch.channels_last) for w in weights)


def on_a_gpu():
    return World(0, 1, 0, 1, torch.device("cuda", 0))


@pytest.mark.gpu
@pytest.mark.parametrize("compile", ["default", "reduce-overhead"])
@pytest.mark.parametrize("loss", ["baseline", "maxsup"])
def test_the_compiler_gives_the_same_losses_on_a_gpu(loss, compile):
    """With torch 2.11's compiler MaxSup had wrong gradients on a CPU: losses 5 % apart within ten steps."""
    options = {"world": on_a_gpu(), "resolution": lambda epoch: 32}
    eager, compiled = (trainer_of(DoubleTinyNet, loss, compile=mode, **options) for mode in ("off", compile))
    compiled.warm_up()
    torch.testing.assert_close(train_losses(compiled), train_losses(eager), rtol=1e-9, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("compile", ["off", "default", "reduce-overhead"])
@pytest.mark.parametrize("options", OPTIONS)
def test_no_step_waits_for_the_gpu(options, compile):
    trainer = trainer_of(TinyNet if options else resnet10, world=on_a_gpu(), compile=compile, **options)
    trainer.warm_up()
    trainer.train_loader.batches_on_device = [*trainer.train_loader.epoch(0, SIDES[0])]
    trainer.train_loader.epoch = lambda epoch, side, first_batch: (b for b in trainer.train_loader.batches_on_device)
    trainer.train_epoch(0)
    trainer.progress = trainer._new_epoch()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_epoch(0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.progress.losses.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("flip_tta", [False, True])
def test_graphs_are_recorded_before_the_first_epoch_only(monkeypatch, flip_tta):
    trainer = trainer_of(DoubleTinyNet, world=on_a_gpu(), compile="reduce-overhead", flip_tta=flip_tta)
    trainer.val_loader = DrawnLoader(4, BATCH_SIZE, last=BATCH_SIZE // 2, device=trainer.world.device)
    trainer.warm_up()

    def record(self, inputs, function_id):
        raise AssertionError("a graph is recorded inside an epoch")

    monkeypatch.setattr("torch._inductor.cudagraph_trees.CUDAGraphTreeManager.record_function", record)
    replayed = trainer.fit(None, None)
    eager = trainer_of(DoubleTinyNet, world=on_a_gpu(), flip_tta=flip_tta)
    eager.val_loader = trainer.val_loader
    assert replayed.val_loss == pytest.approx(eager.fit(None, None).val_loss, rel=1e-9)


@pytest.mark.gpu
def test_the_clock_of_a_gpu():
    clock = WaitClock(torch.device("cuda", 0))
    torch.cuda._sleep(10**9)  # cycles, half a second or so
    with clock:
        time.sleep(0.05)
    torch.cuda.synchronize()
    assert clock.seconds() < 0.02
    with clock:
        time.sleep(0.05)
    torch.cuda.synchronize()
    assert 0.04 < clock.seconds() < 1
