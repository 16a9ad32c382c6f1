"""Miniature annotation files in the formats of the benchmarks."""

import json

import numpy as np
import PIL.Image

COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}, {"id": 9, "file_name": "c.jpg"}],
    "categories": [{"id": 4, "name": "airplane"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 5, 5], "area": 25},
        {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 5, 5], "area": 25},
        {"id": 3, "image_id": 3, "category_id": 4, "iscrowd": 0, "bbox": [0, 0, 5, 5], "area": 25},
    ],
}
PANOPTIC = {
    "images": COCO["images"],
    "categories": [{"id": 1, "name": "person", "isthing": 1}, {"id": 184, "name": "tree-merged", "isthing": 0}],
    "annotations": [
        {"image_id": 7, "file_name": "a.png", "segments_info": [{"id": 5, "category_id": 184, "iscrowd": 0}]},
        {"image_id": 9, "file_name": "c.png", "segments_info": [
            {"id": 5, "category_id": 1, "iscrowd": 0}, {"id": 6, "category_id": 184, "iscrowd": 0}]},
    ],
}  # fmt: skip
OBJECTS = """Idx\tRatio\tTrain\tVal\tName
1\t0.15\t11664\t1172\twall
2\t0.10\t6046\t612\tbuilding, edifice
3\t0.00\t144\t9\tbase, pedestal, stand
4\t0.00\t10\t1\tbuffet, counter, sideboard
5\t0.00\t10\t1\tcase, display case
6\t0.00\t10\t1\tland, ground, soil
7\t0.00\t10\t1\tstep, stair
8\t0.00\t10\t1\ttrade name, brand name
9\t0.00\t10\t1\tcrt screen
10\t0.00\t10\t1\twindowpane, window \n"""


def write_json(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_ade20k(folder, **labels):
    masks = folder / "validation"
    masks.mkdir()
    for name, rows in labels.items():
        PIL.Image.fromarray(np.array(rows, np.uint8)).save(masks / f"{name}.png")
    return masks, write_lines(folder / "objectInfo150.txt", OBJECTS)


def write_nus_wide(folder):
    (folder / "lists").mkdir()
    (folder / "truth").mkdir()
    write_lines(folder / "lists" / "Concepts81.txt", "airport", "beach")
    write_lines(folder / "lists" / "TestImagelist.txt", "actor\\0001_2.jpg", "actor\\0002_4.jpg", "zoo\\0003_1.jpg")
    write_lines(folder / "truth" / "Labels_airport_Test.txt", "0", "0", "1")
    write_lines(folder / "truth" / "Labels_beach_Test.txt", "1", "0", "1")
    return folder
