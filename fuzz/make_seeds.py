"""Write the seed corpora: tiny JPEGs of every kind behind the fuzz targets' control bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SEEDS = Path(__file__).resolve().parent / "seeds"


def picture(width, height, rng):
    """Waves and noise, [height, width, 3] uint8."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 3) + np.cos(y / 5), np.sin((x + y) / 4), x / width + y / height], axis=-1)
    return np.clip(127 + 60 * waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)


def main():
    """One file per kind of JPEG and target."""
    rng = np.random.default_rng(0)
    kinds = {
        "420": ("RGB", (35, 37), {"subsampling": 2}),
        "422_restart": ("RGB", (40, 18), {"subsampling": 1, "restart_marker_blocks": 2}),
        "444_optimised": ("RGB", (23, 17), {"subsampling": 0, "optimize": True}),
        "420_restart_row": ("RGB", (50, 40), {"subsampling": 2, "restart_marker_rows": 1}),
        "grey": ("L", (19, 25), {}),
        "progressive": ("RGB", (17, 18), {"subsampling": 2, "progressive": True}),
        "cmyk": ("CMYK", (9, 11), {}),
        "rgb": ("RGB", (17, 9), {"keep_rgb": True}),
        "high_quality": ("RGB", (24, 24), {"subsampling": 0, "quality": 99}),
    }
    for name, (mode, size, options) in kinds.items():
        buffer = io.BytesIO()
        Image.fromarray(picture(*size, rng)).convert(mode).save(buffer, "JPEG", **{"quality": 60, **options})
        for target, control in (
            ("plain", [30, 40, 200, 220, 16, 20, 1, 0] + [0] * 8),
            ("indexed", [30, 40, 200, 220, 16, 20, 1, 0, 0, 1] + [0] * 6),
            ("patched", [90, 100, 60, 80, 16, 20, 0, 0, 2, 3] + [0] * 6 + [1, 0, 3, 0, 9, 0, 255, 0]),
        ):
            folder = SEEDS / ("plain" if target == "plain" else "indexed")
            folder.mkdir(parents=True, exist_ok=True)
            if target == "plain" or name not in ("progressive", "cmyk"):
                (folder / f"{name}_{target}").write_bytes(bytes(control) + buffer.getvalue())


if __name__ == "__main__":
    main()
