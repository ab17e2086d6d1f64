"""What C and Python both state is the same: error codes, filters, the layout of structs, threads per block."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ffcv_imagenet import native
from ffcv_imagenet.data.read import gather, kernels

INCLUDE = [f"-I{native.GPU_KERNELS.parent}", f"-I{Path(__file__).parents[1] / 'helpers'}"]


def fields_of(layout):
    """{field: (offset, size)} of a numpy or ctypes struct, and "" for the whole."""
    if isinstance(layout, np.dtype):
        fields = {name: (offset, dtype.itemsize) for name, (dtype, offset, *_) in layout.fields.items()}
        return fields | {"": (0, layout.itemsize)}
    fields = {name: (getattr(layout, name).offset, getattr(layout, name).size) for name, _ in layout._fields_}
    return fields | {"": (0, ctypes.sizeof(layout))}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A function that has the C compiler evaluate integer expressions over fic.h and the kernels."""
    folder = tmp_path_factory.mktemp("interface")

    def evaluate(expressions):
        lines = "".join(f'    printf("%lld\\n", (long long)({expression}));\n' for expression in expressions)
        headers = "".join(f"#include {name}\n" for name in ("<stddef.h>", "<stdio.h>", '"fic.h"', '"gpu_on_host.h"'))
        source = f"{headers}int main(void) {{\n{lines}}}\n"
        command = ["gcc", "-std=c11", *INCLUDE, "-x", "c", "-", "-o", str(folder / "program")]
        subprocess.run(command, input=source, text=True, check=True)
        answer = subprocess.run([folder / "program"], capture_output=True, text=True, check=True).stdout
        return [int(line) for line in answer.split()]

    return evaluate


def test_structs_are_laid_out_alike(evaluated):
    layouts = {
        "fic_gather_sample": gather._SAMPLE,
        "fic_gather_result": gather._RESULT,
        "fic_jpeg_info": native.JpegInfo,
    }
    expressions, expected = [], []
    for struct, layout in layouts.items():
        for field, place in fields_of(layout).items():
            member = f"(({struct} *)0)->{field}"
            expressions += [f"offsetof({struct}, {field})", f"sizeof {member}"] if field else ["0", f"sizeof({struct})"]
            expected += place
    assert evaluated(expressions) == expected


def test_numbers_have_the_same_names(evaluated):
    pairs = {f"FIC_ERROR_{error.name}": error for error in native.Error}
    pairs |= {f"FIC_RESIZE_{name.upper()}": number for name, number in native.RESIZE_FILTERS.items()}
    pairs |= {"FIC_LAST_ERROR": min(native.Error), "FIC_NUM_RESIZES": len(native.RESIZE_FILTERS)}
    pairs |= {"THREADS": kernels.THREADS}
    assert evaluated(pairs) == list(pairs.values())


def test_every_error_has_a_text_of_its_own():
    texts = {native.error_message(code) for code in (0, *native.Error)}
    assert len(texts) == len(native.Error) + 1
    for code in (min(native.Error) - 1, -(2**31), -1000):
        assert native.error_message(code) == "unknown error"
    assert native.error_message(2**31 - 1) == "success"


def test_beginning_to_store_is_advice(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        file.write(b"content")
        file.flush()
        for start, size in ((0, 7), (0, 1 << 40), (5, 0), (-1, 7)):
            native.begin_to_store(file.fileno(), start, size)
        file.seek(0)
        assert file.read() == b"content"
    native.begin_to_store(-1, 0, 7)
