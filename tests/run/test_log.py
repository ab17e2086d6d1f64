"""A line of the log: one definition for who writes and who reads it."""

import dataclasses
import json

from ffcv_imagenet.run.log import EpochLog, format_line

LINE = EpochLog(
    epoch=3,
    total_seconds=30.0,
    train_loss=1.5,
    top_1=0.25,
    top_k=0.5,
    k=3,
    val_loss=1.25,
    lr=0.1,
    resolution=160,
    images_per_second=1000.0,
    seconds=10.0,
    wait_share=0.0,
    skipped_steps=0,
    skipped=0,
    val_skipped=0,
    cpu_decoded=1.0,
    of_loss={"alpha": 0.2, "penalty": 3.5},
)


def test_a_line_is_flat_and_is_read_as_it_was_written():
    line = LINE.as_line()
    assert line["loss.alpha"] == 0.2
    assert not any(isinstance(value, dict) for value in line.values())
    assert EpochLog.from_line(json.loads(json.dumps(line))) == LINE


def test_what_an_earlier_version_did_not_log_is_unknown_and_what_a_later_one_adds_is_left_out():
    line = {key: value for key, value in LINE.as_line().items() if key not in ("cpu_decoded", "loss.alpha")}
    read = EpochLog.from_line(line | {"of_a_later_version": 1})
    assert read.cpu_decoded is None
    assert read.of_loss == {"penalty": 3.5}


def test_a_log_with_top_5_is_read_as_k_5():
    line = {key: value for key, value in LINE.as_line().items() if key not in ("top_k", "k")}
    read = EpochLog.from_line(line | {"top_5": 0.75})
    assert (read.top_k, read.k) == (0.75, 5)


def test_the_summary_shows_k_and_the_columns_of_the_loss():
    assert "top-1  25.00 %  top-3  50.00 %" in format_line(LINE, 16)
    assert "val loss 1.2500  alpha 0.2  penalty 3.5  lr 0.1" in format_line(LINE, 16)


def test_the_summary_of_an_epoch_without_evaluation_says_so():
    unknown = dict.fromkeys(("top_1", "top_k", "val_loss", "val_skipped", "val_nonfinite"))
    text = format_line(dataclasses.replace(LINE, **unknown), 16)
    assert "  not evaluated  train loss " in text
    assert "None" not in text
