"""The paper's tables, with a row of ours below its own."""

from __future__ import annotations

from typing import Any

# What the paper published (Nekrasov et al., ICRA 2019). Its depth protocol is not stated there; latency on a GPU.
_PAPER: dict[str, list[tuple[str, dict[str, float]]]] = {
    "I": [
        (
            "paper, 25,405 more images",
            {"miou_40": 0.4202, "rmse": 0.565, "rmse_log": 0.205, "parameters": 3.07e6, "gmac": 6.49, "latency_ms": 13},
        ),
        ("paper, 795 images alone", {"miou_40": 0.3248, "rmse": 0.6328}),
    ],
    "II": [
        (
            "paper, 25,405 more images",
            {
                "rmse": 0.565,
                "rmse_log": 0.205,
                "abs_rel": 0.149,
                "sqr_rel": 0.105,
                "delta1": 0.790,
                "delta2": 0.955,
                "delta3": 0.990,
            },
        )
    ],
    "V": [
        ("paper, KITTI alone", {"miou_6": 0.8702, "rmse": 3.453, "rmse_log": 0.182}),
        ("paper, NYU and KITTI in one", {"miou_6": 0.861, "rmse": 3.659, "rmse_log": 0.190}),
    ],
    "VI": [
        (
            "paper, three tasks",
            {
                "miou_40": 0.3866,
                "rmse": 0.566,
                "rmse_log": 0.209,
                "normal_mean_deg": 23.95,
                "normal_median_deg": 17.74,
            },
        ),
        ("paper, NYU and KITTI in one", {"miou_40": 0.3876, "rmse": 0.59, "rmse_log": 0.213}),
    ],
}
_TITLES = {
    "I": "Segmentation, depth and cost",
    "II": "Depth in detail",
    "V": "Segmentation of six classes, depth",
    "VI": "More tasks, more data sets",
}
_COLUMNS: dict[str, tuple[str, int, float]] = {  # figure -> heading, decimals, factor
    "miou_40": ("mIoU %", 2, 100),
    "miou_6": ("mIoU %", 2, 100),
    "rmse": ("RMSE m", 3, 1),
    "rmse_log": ("RMSE log", 3, 1),
    "abs_rel": ("abs rel", 3, 1),
    "sqr_rel": ("sqr rel", 3, 1),
    "delta1": ("d < 1.25", 3, 1),
    "delta2": ("d < 1.25^2", 3, 1),
    "delta3": ("d < 1.25^3", 3, 1),
    "normal_mean_deg": ("mean deg", 2, 1),
    "normal_median_deg": ("median deg", 2, 1),
    "parameters": ("param. M", 2, 1e-6),
    "gmac": ("GMAC", 2, 1),
    "latency_ms": ("ms", 1, 1),
}
_TABLES = {
    "I": ("miou_40", "rmse", "rmse_log", "parameters", "gmac", "latency_ms"),
    "II": ("rmse", "rmse_log", "abs_rel", "sqr_rel", "delta1", "delta2", "delta3"),
    "V": ("miou_6", "rmse", "rmse_log"),
    "VI": ("miou_40", "rmse", "rmse_log", "normal_mean_deg", "normal_median_deg"),
}


def tables(figures: dict[str, Any], name: str, data: str) -> str:
    """The paper's Tables I and II (NYUv2) or V (KITTI), and VI where normals were scored, with our row below its rows.

    The paper's figures are on its own test images; ours are on `data`, which each heading names beside them. FLOPs in
    the paper are its own count.
    """
    outdoors = figures.get("miou_6") is not None
    shown = ["V"] if outdoors else ["I", "II", *(["VI"] if figures.get("normal_mean_deg") is not None else [])]
    paper = "KITTI's test images" if outdoors else "all 654 test images of NYUv2"
    on = f"the paper on {paper}, {name} on {data}"
    return "\n\n".join(_table(number, figures, name, on) for number in shown)


def _table(number: str, figures: dict[str, Any], name: str, on: str) -> str:
    keys = _TABLES[number]
    rows = [*_PAPER[number], (f"{name} ({figures['images']} images, {figures['engine']})", figures)]
    first = max(len(row[0]) for row in rows)
    widths = [max(len(_COLUMNS[key][0]), 7) for key in keys]

    def cell(row: dict[str, Any], key: str) -> str:
        _, decimals, factor = _COLUMNS[key]
        value = row.get(key)
        return "-" if value is None else f"{value * factor:.{decimals}f}"

    lines = [f"Table {number}. {_TITLES[number]}: {on}"]
    lines.append("  ".join([" " * first, *(_COLUMNS[key][0].rjust(w) for key, w in zip(keys, widths, strict=True))]))
    for label, row in rows:
        cells = [cell(row, key).rjust(width) for key, width in zip(keys, widths, strict=True)]
        lines.append("  ".join([label.ljust(first), *cells]))
    return "\n".join(lines)
