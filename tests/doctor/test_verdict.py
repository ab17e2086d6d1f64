"""The doctor's judgement, a pure function of numbers: made bottlenecks, what to change, and for how long."""

from dataclasses import replace

import pytest

from ffcv_imagenet.doctor.verdict import Findings, Rates, judge, judge_log, time_told

GIB = 1 << 30

#: A well-fed GPU: ImageNet in memory, 8 cores that decode more than the step takes.
FED = Findings(
    device="cuda",
    processes=1,
    batch_size=1024,
    accumulation=2,
    images=1_281_167,
    rates=(
        Rates(160, 12, step=2500.0, decode=9000.0, gpu_decode=20_000.0, copy=150_000.0, memory=30 * GIB),
        Rates(192, 4, step=1700.0, decode=8000.0, gpu_decode=18_000.0, copy=100_000.0, memory=40 * GIB),
    ),
    file_bytes=140 * GIB,
    raw_bytes=500 * GIB,
    cache_bytes=400 * GIB,
    workers=6,
    cores=8,
    random_read=8000.0,
    sequential_read=20_000.0,
    device_memory=78 * GIB,
    val_images=50_000,
    val_rate=5000.0,
    compiled=True,
)


def with_rates(found, **changes):
    return replace(found, rates=tuple(replace(rates, **changes) for rates in found.rates))


def test_a_step_that_is_fed_is_the_limit_and_there_is_nothing_to_change():
    verdict = judge(FED)
    assert (verdict.limit, verdict.fits, verdict.waits, verdict.advice) == ("step", True, 0.0, ())
    assert verdict.by == pytest.approx(9000 / 2500)  # at 160 px, which takes most of the time
    assert verdict.images_per_second == pytest.approx({160: 2500, 192: 1700})
    assert verdict.said == (
        "the limit is the step: 2,500 images/s at 160 px; next is decoding with 9,000 images/s, 3.6 x as many"
    )


def test_times_are_those_of_whole_batches_and_an_evaluation_and_the_first_epoch_reads_the_disk():
    verdict = judge(replace(FED, random_read=1000.0))
    images, val = 1251 * 1024, 10.0
    assert verdict.epoch_seconds == pytest.approx({160: images / 2500 + val, 192: images / 1700 + val})
    assert verdict.first_epoch_seconds == pytest.approx(images / 1000 + val)
    whole = 11 * (images / 2500 + val) + 4 * (images / 1700 + val) + images / 1000 + val
    assert verdict.training_seconds == pytest.approx(whole)
    assert time_told(verdict, 16) == (
        "an epoch takes 9 min at 160 px, 13 min at 192 px (the first 22 min, from the disk); 16 epochs: 2 h 48 min"
    )


def test_a_slow_disk_is_the_limit_only_where_the_file_does_not_stay_in_memory():
    slow = replace(FED, random_read=300.0, sequential_read=3000.0)
    assert judge(slow).limit == "step"
    verdict = judge(replace(slow, cache_bytes=70 * GIB))  # half of the file is read again in every epoch
    assert verdict.limit == "reading"
    assert verdict.images_per_second[160] == pytest.approx(600)
    assert verdict.waits == pytest.approx(1 - 600 / 2500)
    best, also = verdict.advice
    assert best.text == "--data.order=quasi_random, of a file written with --write.shuffle=1"
    assert best.gain == pytest.approx((12 + 4) / 600 / (12 / 2500 + 4 / 1700))  # then the step is the limit
    assert also.text == "more memory or a faster disk: the file has 140 GiB, memory for copies of it is 70 GiB"
    raw = judge(replace(slow, cache_bytes=70 * GIB, mode="raw", sequential_read=320.0))
    assert "--write.mode=jpg" in raw.advice[1].text
    assert raw.advice[0].gain == pytest.approx(320 / 300, rel=1e-3)


def test_one_core_is_a_limit_of_decoding_which_the_gpu_or_more_cores_lift():
    verdict = judge(with_rates(replace(FED, workers=1, cores=1), decode=1200.0))
    assert verdict.limit == "decoding"
    assert verdict.by == pytest.approx(2500 / 1200)
    assert verdict.waits == pytest.approx(1 - 1200 / 2500)
    assert verdict.said == (
        "the limit is decoding on the CPU: 1,200 images/s at 160 px; next is the step with 2,500 images/s, 2.1 x as "
        "many"
    )
    on_gpu = 1 / (1 / 2500 + 1 / 20_000), 1 / (1 / 1700 + 1 / 18_000)
    assert verdict.advice[0].text == "--data.decode=gpu"
    assert verdict.advice[0].gain == pytest.approx((16 / 1200) / (12 / on_gpu[0] + 4 / on_gpu[1]))
    assert verdict.advice[-1].text == "more cores: it has 1 core"
    few = judge(with_rates(replace(FED, workers=2, cores=16), decode=1200.0))
    assert few.advice[0].text == "--data.num_workers=14 in place of 2"
    without_index = with_rates(replace(FED, has_index=False, workers=6), decode=500.0, gpu_decode=None)
    texts = [advice.text for advice in judge(without_index).advice]
    assert texts[0].startswith("make the entry-point index: python -m ffcv_imagenet.data.index FILE.beton, ")
    assert not any("raw" in text for text in texts)  # 500 GiB of pixels do not fit into 400
    assert any(
        "--write.mode=raw" in advice.text for advice in judge(replace(without_index, cache_bytes=600 * GIB)).advice
    )


def test_tiny_memory_is_told_with_the_accumulation_that_fits():
    too_large = replace(FED, rates=(FED.rates[0], replace(FED.rates[1], memory=100 * GIB)), fitting=4)
    verdict = judge(too_large)
    assert (verdict.limit, verdict.fits) == ("memory", False)
    assert verdict.memory == "a micro-batch of 512 images of 192 px needs 100 GiB, the GPU has 78 GiB"
    assert verdict.advice[0].text == "--training.accumulation=4 (micro-batches of 256 images)"
    assert verdict.said.startswith(
        f"the limit is memory: {verdict.memory}; with --training.accumulation=4, the limit is the step"
    )
    assert verdict.training_seconds == judge(FED).training_seconds
    refused = judge(replace(FED, rates=(Rates(160, 16, step=None, memory=None),)))
    assert "needs more, the GPU has 78 GiB" in refused.said
    assert "a smaller network" in refused.advice[0].text
    assert judge(FED).memory == "a micro-batch of 512 images of 192 px needs 40 GiB of 78 GiB (51 %)"


def test_a_slow_step_on_a_cpu_shares_the_cores_with_decoding():
    found = Findings(
        device="cpu",
        processes=1,
        batch_size=64,
        accumulation=1,
        images=6400,
        rates=(Rates(160, 2, step=30.0, decode=6000.0),),
        file_bytes=GIB,
        raw_bytes=6 * GIB,
        cache_bytes=16 * GIB,
        workers=2,
        cores=2,
    )
    verdict = judge(found)
    assert (verdict.limit, verdict.by) == ("step", pytest.approx(200))
    assert verdict.images_per_second[160] == pytest.approx(1 / (1 / 30 + 1 / 6000))
    assert verdict.said == (
        "the limit is the step: 30 images/s at 160 px alone; it shares the cores with decoding (6,000 images/s alone), "
        "together 30 images/s"
    )
    assert verdict.advice[0].text.startswith("a GPU, or a smaller network")
    for precision, first in (("fp32", "--training.precision=bf16, in which"), ("bf16", "a GPU, or")):
        assert judge(replace(found, precision=precision, cpu_has_bf16=True)).advice[0].text.startswith(first)
    quick = judge(with_rates(found, step=100_000.0))
    assert quick.limit == "decoding"
    assert quick.advice[-1].text == "more cores: it has 2 cores"


def test_a_step_that_is_not_compiled_or_in_float32_is_told():
    texts = [advice.text for advice in judge(replace(FED, compiled=False, precision="fp32")).advice]
    assert "--training.compile=auto" in texts[0]
    assert texts[1] == "--training.precision=auto in place of fp32"


def test_a_slow_link_limits_what_the_cpu_decodes_and_not_what_the_gpu_does():
    slow = with_rates(FED, copy=1000.0)
    assert judge(slow).limit == "copying"
    assert judge(slow).advice[0].text == "--data.decode=gpu"
    assert judge(replace(slow, decoder="gpu")).limit == "step"


def test_decoding_on_the_gpu_takes_turns_with_the_step():
    verdict = judge(with_rates(replace(FED, decoder="gpu"), gpu_decode=2500.0))
    assert verdict.images_per_second[160] == pytest.approx(1250)
    assert verdict.waits == 0.0
    assert verdict.advice[0].text == "--data.decode=cpu"


def test_gradients_are_averaged_during_the_backward_pass():
    eight = replace(FED, processes=8, batch_size=4096, accumulation=1, random_read=80_000.0)
    step = 512 / 2500
    assert judge(replace(eight, all_reduce=0.6 * step)).limit == "step"
    verdict = judge(replace(eight, all_reduce=5 * step))
    assert verdict.limit == "all-reduce"
    assert verdict.images_per_second[160] == pytest.approx(4096 / (step / 3 + 5 * step))
    assert verdict.waits == 0.0


def test_processes_that_cannot_be_fed_are_told_to_be_fewer():
    starved = with_rates(replace(FED, processes=8, batch_size=4096, accumulation=1, random_read=80_000.0), decode=600.0)
    verdict = judge(with_rates(starved, gpu_decode=None))
    assert verdict.limit == "decoding"
    # 4 processes decode 1,200 each, less than they consume; 2 would decode 2,400 each, and take 1,700 at 192 px.
    assert verdict.advice[-1].text == (
        "--nproc-per-node=4 with --training.accumulation=2: about as fast, and 4 of the 8 GPUs are free"
    )
    assert not any("nproc" in advice.text for advice in judge(replace(FED, processes=8, batch_size=4096)).advice)


@pytest.mark.parametrize(
    ("epochs", "changes", "told"),
    [
        ([(60, 0.01), (60, 0.02)], {}, "the limit was the step: it waited for data 2 % of the time"),
        (
            [(100, 0.4), (60, 0.01), (60, 0.03)],
            {},
            "the limit was the step: it waited for data 2 % of the time, but 40 % of the first epoch, which reads the "
            "file from the disk",
        ),
        (
            [(100, 0.5), (60, 0.3), (180, 0.5)],
            {},
            "the limit was the data: the step waited for it 45 % of the time; in time, it would make the training 1.8 "
            "x as fast (--data.decode=gpu, or more cores; python -m ffcv_imagenet.doctor with the same options "
            "measures each part)",
        ),
        ([(60, 0.4)], {"cache_bytes": GIB}, "the file (140 GiB) does not fit into the memory for it (1.0 GiB)"),
        ([(60, 0.4)], {"device": "cpu"}, "decoding and the step share the cores"),
        ([(60, 0.4)], {"decoder": "gpu"}, "--data.decode=cpu where cores are many"),
    ],
)
def test_a_log_is_judged_in_one_line(epochs, changes, told):
    values = {"device": "cuda", "decoder": "cpu", "file_bytes": 140 * GIB, "cache_bytes": 400 * GIB}
    text = judge_log(epochs, **values | changes)
    assert told in text
    assert "\n" not in text
