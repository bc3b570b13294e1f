"""Readers of data: what they accept, and that each mistake is a sentence that names the file and the line."""

import json
import os
import pickle  # to write the files that the package must read without it
import re
import shutil
import signal
import struct
import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss import UserError, mask_files, train
from wsss.data import coco
from wsss.data.coco import read_coco
from wsss.data.folder import read_folder
from wsss.data.item import item
from wsss.data.labels import read_csv, read_xml
from wsss.data.npy import read_npy
from wsss.data.picture import read_mask, read_rgb
from wsss.data.source import read, with_masks
from wsss.data.translated import differences, translated
from wsss.data.voc import VOC_CLASSES, VOC_PALETTE, read_list, read_voc, voc_values
from wsss.preflight import Surveyed, photograph_faults, require_sound_splits, survey

IDS = ["2007_000001", "2007_000002", "2007_000003"]
BOXES = [["dog"], ["person", "dog"], ["cat", "cat"]]


def save_photograph(path, size=(24, 32), seed=0, **options):
    rgb = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)


def save_mask(path, values, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        picture.putpalette(VOC_PALETTE.tobytes())
    picture.convert(mode).save(path)


def annotation(names):
    parts = "<part><name>head</name></part>"
    objects = [f"<object><name>{n}</name><difficult>{i}</difficult>{parts}</object>" for i, n in enumerate(names)]
    return f"<annotation><filename>x.jpg</filename>{''.join(objects)}</annotation>"


@pytest.fixture
def devkit(tmp_path) -> Path:
    """An untouched devkit of three photographs, the last without a mask; its folder VOC2012."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for seed, (name, boxes) in enumerate(zip(IDS, BOXES, strict=True)):
        save_photograph(folder / "JPEGImages" / f"{name}.jpg", seed=seed)
        path = folder / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(annotation(boxes))
    for name in IDS[:2]:
        mask = np.zeros((24, 32))
        mask[:5], mask[5:7], mask[7:9] = 12, 255, 15
        save_mask(folder / "SegmentationClass" / f"{name}.png", mask)
    write_list(folder, "train", "\n".join(IDS) + "\n")
    return folder


def write_list(folder, split, text):
    path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A user's own folder: three pictures with names as they come, two masks."""
    root = tmp_path / "own"
    save_photograph(root / "images" / "Holiday 2024.JPG", seed=1)
    save_photograph(root / "images" / "zoo.png", seed=2)
    save_photograph(root / "images" / "schön.webp", seed=3)
    (root / "labels.csv").write_text("image,labels\nHoliday 2024.JPG,dog\nzoo,cat; dog\nschön.webp,cat\n", "utf-8")
    mask = np.zeros((24, 32))
    mask[3:9], mask[9:11] = 2, 255
    save_mask(root / "masks" / "zoo.png", mask, mode="L")
    save_mask(root / "masks" / "Holiday 2024.png", mask)
    return root


def square(top, left, side):
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


@pytest.fixture
def coco_root(tmp_path) -> Path:
    """COCO's layout: a dog under a smaller cat, a crowd of dogs, a photograph without objects."""
    root = tmp_path / "coco"
    for number in (1, 2, 3):
        save_photograph(root / "train2014" / f"photo_{number}.jpg", (20, 30), seed=number)
    crowd = {"counts": [0, 40, 560], "size": [20, 30]}  # columns first: the two leftmost ones
    content = {
        "images": [{"id": n, "file_name": f"photo_{n}.jpg", "height": 20, "width": 30} for n in (1, 2, 3)],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 17, "area": 16, "iscrowd": 0, "segmentation": square(6, 6, 4)},
            {"id": 2, "image_id": 1, "category_id": 18, "area": 144, "iscrowd": 0, "segmentation": square(4, 4, 12)},
            {"id": 3, "image_id": 3, "category_id": 18, "area": 40, "iscrowd": 1, "segmentation": crowd},
        ],
    }
    write_coco(root, content)
    return root


def write_coco(root, content, split="train2014"):
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def refusal(call, *arguments, **options) -> str:
    """The sentence with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def check(source, *, masks: bool = False) -> list[str]:
    """All faults of its photographs."""
    return list(chain.from_iterable(photograph_faults(source, masks=masks).values()))


def one_fault(source, **options) -> str:
    faults = check(source, **options)
    assert len(faults) == 1, faults
    return faults[0]


def line_of(devkit, line, split="train"):
    return f"{devkit / 'ImageSets' / 'Segmentation' / split}.txt:{line}"


# VOC


def test_the_classes_and_colors_of_voc_are_the_devkits():
    assert len(VOC_CLASSES) == 20
    assert voc_values(["cat", "cow", "dog", "horse", "person", "sheep"]) == (0, 8, 10, 12, 13, 15, 17)
    assert voc_values(["cat", "unicorn"]) is None
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {index: tuple(VOC_PALETTE[index].tolist()) for index in known} == known
    assert VOC_PALETTE[255].tolist() == [224, 224, 192] and VOC_PALETTE.dtype == np.uint8


@pytest.mark.parametrize("above", [0, 1, 2])
def test_the_devkit_is_found_from_its_own_folder_and_from_those_above(devkit, above):
    root = [devkit, devkit.parent, devkit.parent.parent][above]
    assert read("voc", root, "train").names == tuple(IDS)


def test_labels_come_from_the_boxes_the_difficult_ones_too_and_without_parts(devkit):
    source = read_voc(devkit, "train")
    assert source.classes == VOC_CLASSES and source.labels.dtype == np.float32
    for labels, boxes in zip(source.labels, BOXES, strict=True):
        assert {VOC_CLASSES[k] for k in np.flatnonzero(labels)} == set(boxes)


def test_masks_hold_class_indices_and_may_be_missing(devkit):
    source = read_voc(devkit, "train")
    assert np.unique(item(source, 0).mask).tolist() == [0, 12, 15, 255]
    assert item(source, 2).mask is None


def test_labels_never_come_from_masks(devkit):
    before = read_voc(devkit, "train").labels
    for path in (devkit / "SegmentationClass").iterdir():
        path.unlink()
    np.testing.assert_array_equal(read_voc(devkit, "train").labels, before)


def test_a_csv_at_the_root_chooses_the_classes_and_the_mask_follows(devkit):
    rows = "".join(f"{name},{i % 2},{(i + 1) % 2}\n" for i, name in enumerate(IDS))
    (devkit / "image_labels.csv").write_text("image,dog,cat\n" + rows)
    source = read_voc(devkit, "train")
    assert source.classes == ("dog", "cat")
    assert np.unique(source.mask(0)).tolist() == [0, 1, 255]  # the person is background now
    np.testing.assert_array_equal(source.labels, [[0, 1], [1, 0], [0, 1]])


def test_the_augmented_masks_serve_where_there_is_no_official_one(devkit):
    save_mask(devkit / "SegmentationClassAug" / f"{IDS[0]}.png", np.full((24, 32), 3))
    save_mask(devkit / "SegmentationClassAug" / f"{IDS[2]}.png", np.full((24, 32), 3))
    source = read_voc(devkit, "train")
    assert 3 not in source.mask(0)
    assert (source.mask(2) == 3).all()


@pytest.mark.parametrize(
    "text",
    [
        "\r\n".join(IDS),
        b"\xef\xbb\xbf" + "\n".join(IDS).encode(),
        "\n\n" + "  \n\n".join(IDS) + "\t \n\n",
        "".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in IDS),
        "".join(f"JPEGImages/{name}.jpg\n" for name in IDS),
    ],
    ids=["CRLF", "byte order mark", "blank lines and spaces", "two columns", "paths"],
)
def test_lists_are_read_however_they_were_saved(devkit, text):
    write_list(devkit, "mine", text)
    source = read_voc(devkit, "mine")
    assert source.names == tuple(IDS)
    assert [path.name for path in source.images] == [f"{name}.jpg" for name in IDS]


def test_a_mask_that_a_list_names_may_be_missing_where_none_is_needed(devkit):
    write_list(devkit, "mine", f"/JPEGImages/{IDS[0]}.jpg /SegmentationClassAug/{IDS[0]}.png\n")
    source = read_voc(devkit, "mine")
    assert check(source) == [] and source.mask(0) is None
    assert f"{IDS[0]}.jpg: has no mask" in one_fault(source, masks=True)


@pytest.mark.parametrize(
    "entry", ["../../etc/passwd", "/etc/passwd", "..", "a\\b", "/JPEGImages/../../x.jpg /m/x.png", "//etc/x.jpg /m.png"]
)
def test_an_entry_that_leads_out_of_the_folder_is_refused_by_line(devkit, entry):
    path = write_list(devkit, "mine", f"{IDS[0]}\n\n{entry}\n")
    sentence = refusal(read_voc, devkit, "mine")
    assert sentence.startswith(f"{path}:3: ") and ("leads out" in sentence or "is no id" in sentence)


def test_what_stands_twice_in_a_list_is_refused_also_in_another_case(tmp_path):
    path = write_list(tmp_path, "mine", "Cat\ndog\ncAT\n")
    assert refusal(read_list, path) == f"{path}:3: cAT stands in line 1 already; delete one of the lines"


def test_an_empty_list_and_one_that_is_no_text_are_refused(tmp_path):
    assert "the list is empty" in refusal(read_list, write_list(tmp_path, "blank", "\n \n"))
    assert "is empty" in refusal(read_list, write_list(tmp_path, "nothing", ""))
    assert "is not UTF-8" in refusal(read_list, write_list(tmp_path, "latin", "café".encode("latin-1")))


def test_a_missing_list_names_those_that_are_there_and_where_train_aug_belongs(devkit):
    assert refusal(read_voc, devkit, "vla").endswith("vla.txt: no such list; choose one that is there: train")
    sentence = refusal(read_voc, devkit, "train_aug")
    assert "train_aug.txt: no such list" in sentence and "at this path" in sentence
    assert "plain name" in refusal(read_voc, devkit, "../../../x")


def test_a_folder_without_voc_data_is_refused(tmp_path):
    assert refusal(read_voc, tmp_path, "train").startswith(f"{tmp_path}: holds no VOC data")


def test_a_photograph_without_labels_is_named_with_its_line(devkit):
    (devkit / "Annotations" / f"{IDS[1]}.xml").unlink()
    assert "train.txt:2: 2007_000002 has no labels" in refusal(read_voc, devkit, "train")
    table = devkit / "image_labels.csv"
    table.write_text(f"image,cat\n{IDS[0]},1\n")
    assert f"train.txt:2: 2007_000002 has no labels in {table}" in refusal(read_voc, devkit, "train")


def test_classes_that_are_not_vocs_are_refused(devkit):
    (devkit / "image_labels.csv").write_text("image,cat,unicorn\n" + "".join(f"{name},1,0\n" for name in IDS))
    assert "'unicorn' is no class of VOC" in refusal(read_voc, devkit, "train")


# Image-level labels


def write_csv(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_one_hot_table_keeps_the_order_of_its_columns(tmp_path):
    table = read_csv(write_csv(tmp_path, b"\xef\xbb\xbfimage,dog,cat\r\na,1,0\r\n\r\nb , 1 , 1\r\n"))
    assert table.classes == ("dog", "cat")
    assert {name: vector.tolist() for name, vector in table.vectors.items()} == {"a": [1, 0], "b": [1, 1]}


def test_a_column_of_splits_that_is_empty_is_none(tmp_path):
    assert read_csv(write_csv(tmp_path, "image,labels,split\na,cat,\nb,dog,\n")).splits == {}


def test_a_plain_table_sorts_its_classes_unless_they_are_given(tmp_path):
    path = write_csv(tmp_path, 'image,labels,split\n"a, b.jpg",dog;cat,train\nc.jpg, cat ,val\n')
    table = read_csv(path)
    assert table.classes == ("cat", "dog")
    assert table.vectors["a, b.jpg"].tolist() == [1, 1] and table.splits == {"a, b.jpg": "train", "c.jpg": "val"}
    assert read_csv(path, ("dog", "cow", "cat")).vectors["c.jpg"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("image,cat,dog\na,1,0.5\n", 2, "dog must be 0 or 1, got '0.5'"),
        ("image,labels,split\na,cat,train\nb,cat,\n", 3, "'b' has no split; name one"),
        ("image,cat,dog\na,1,0\nb,1,0\na,0,1\n", 4, "'a' stands in line 2 already"),
        ("image,cat,dog\na,1\n", 2, "has 2 fields, the header has 3"),
        ("image,cat,cat\na,1,1\n", 1, "class 'cat' is named twice"),
        ("image,background\na,1\n", 1, "'background' cannot be the name"),
        ("photo,cat\na,1\n", 1, "the header must be"),
        ("image;cat\na;1\n", 1, "the header must be"),
        ('image,labels\na,"cat\n', 2, "is not a CSV line"),
        ('image,labels\n"a,cat\nb,cat\n', 2, "is not a CSV line"),
        ('image,"cat,dog\na,1,0\n', 1, "is not a CSV line"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_file_and_line(tmp_path, text, line, words):
    path = write_csv(tmp_path, text)
    sentence = refusal(read_csv, path)
    assert sentence.startswith(f"{path}:{line}: ") and words in sentence


@pytest.mark.parametrize("flagged", [True, False])
def test_a_photograph_without_a_class_is_judged_but_not_learned_from(folder, flagged):
    table = "image,cat,dog\nzoo,1,1\nschön,0,0\nHoliday 2024,0,0\n"
    plain = "image,labels\nzoo,cat;dog\nschön,\nHoliday 2024,\n"
    (folder / "labels.csv").write_text(table if flagged else plain, "utf-8")
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert refusal(read, "folder", folder, "train").startswith(f"{folder / 'labels.csv'}:3: no class is given")
    source = read("folder", folder, "val", labelled=False)
    np.testing.assert_array_equal(source.labels, [[1, 1], [0, 0]])
    assert check(source, masks=True) == []


def test_a_photograph_of_voc_without_boxes_is_judged_but_not_learned_from(devkit):
    path = devkit / "Annotations" / f"{IDS[0]}.xml"
    path.write_text(annotation([]))
    assert refusal(read_voc, devkit, "train").startswith(f"{path}: no class is given")
    assert not read_voc(devkit, "train", labelled=False).labels[0].any()


def test_a_row_without_a_class_is_refused_only_in_its_own_split(devkit):
    (devkit / "image_labels.csv").write_text("image,cat,dog\n" + f"{IDS[0]},0,0\n" + f"{IDS[1]},1,0\n")
    write_list(devkit, "others", IDS[1] + "\n")
    assert read_voc(devkit, "others").names == (IDS[1],)
    write_list(devkit, "own", IDS[0] + "\n")
    assert refusal(read_voc, devkit, "own").startswith(f"{devkit / 'image_labels.csv'}:2: no class is given")


def test_data_are_seen_in_other_classes_by_their_names(folder):
    source = read("folder", folder, "val")  # of cats and dogs, the dogs alone in masks
    seen = translated(source, ("sheep", "dog"))
    np.testing.assert_array_equal(seen.labels, [[0, 1], [0, 1]])
    for index in range(2):
        mask = source.mask(index)
        np.testing.assert_array_equal(seen.mask(index), np.where(mask == 2, 2, np.where(mask == 255, 255, 0)))
        np.testing.assert_array_equal(seen.rgb(index), source.rgb(index))
    assert np.unique(translated(source, ("cat",)).mask(0)).tolist() == [0, 255]  # a dog is background there
    assert differences(source.classes, ("dog", "cat")) == []
    assert differences(source.classes, ("sheep", "dog")) == [
        "not known to the checkpoint, so background: cat",
        "not in the data, so wrong wherever it is seen: sheep",
    ]
    assert translated(source, ("cat", "dog")) is source
    assert "but the data hold cat, dog" in refusal(translated, source, ("cow", "sheep"))


def test_an_unknown_class_is_named_with_file_and_line(tmp_path):
    path = write_csv(tmp_path, "image,labels\na,cat\nb,cow\n")
    assert refusal(read_csv, path, ("cat",)) == f"{path}:3: there is no class 'cow'; the classes are cat"


@pytest.mark.parametrize("text", ["", "\n", "image,labels\n", b"image,labels\na,caf\xe9\n"])
def test_a_table_without_content_is_refused_by_name(tmp_path, text):
    path = write_csv(tmp_path, text)
    assert refusal(read_csv, path).startswith(str(path))


@pytest.mark.parametrize("text", [annotation(["unicorn"]), "<annotation>", "no xml", ""])
def test_a_wrong_annotation_is_refused_by_name(tmp_path, text):
    path = tmp_path / "x.xml"
    path.write_text(text)
    assert refusal(read_xml, path, VOC_CLASSES).startswith(str(path))


def published(path, by_id, protocol=4):
    """cls_labels.npy as numpy wrote it over the years; only the protocol of the pickle inside has changed."""
    array = np.array(by_id, dtype=object)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    return path


def vectors(dtype=np.float32):
    random = np.random.default_rng(0)
    made = {f"2007_{i:06d}": random.integers(0, 2, 20).astype(dtype) for i in range(50)}
    for vector in made.values():
        vector[0] = 1
    return made


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, bool, ">i4"])
def test_the_published_label_file_is_read_without_unpickling(tmp_path, protocol, dtype):
    expected = vectors(dtype)
    table = read_npy(published(tmp_path / "cls_labels.npy", expected, protocol), VOC_CLASSES)
    assert list(table.vectors) == list(expected)
    for name, vector in table.vectors.items():
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, expected[name])


def test_what_np_save_writes_of_a_dict_is_read(tmp_path):
    np.save(tmp_path / "cls_labels.npy", vectors(), allow_pickle=True)
    assert len(read_npy(tmp_path / "cls_labels.npy", VOC_CLASSES).vectors) == 50


@pytest.mark.parametrize("number", [int, np.int32, np.int64])
def test_irns_ids_which_are_numbers_are_read_as_names(tmp_path, number):
    by_id = {number(2007000032): np.eye(20)[3]}
    assert list(read_npy(published(tmp_path / "x.npy", by_id), VOC_CLASSES).vectors) == ["2007_000032"]


def test_a_voc_folder_takes_its_labels_from_the_published_file(devkit, tmp_path):
    (devkit / "image_labels.csv").unlink(missing_ok=True)
    published(devkit / "cls_labels.npy", {name: np.eye(20)[7] for name in IDS})
    assert (read_voc(devkit, "train").labels.argmax(1) == 7).all()


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["top", "value", "key", "beside"])
def test_code_in_a_label_file_is_never_run(tmp_path, protocol, place):
    marker = tmp_path / "it-ran"
    payload = Payload(marker)
    content = {
        "top": payload,
        "value": {"2007_000001": payload},
        "key": {(payload, 1): np.eye(20)[0]},
        "beside": {"2007_000001": np.eye(20)[0], "2007_000002": [payload]},
    }[place]
    path = published(tmp_path / "cls_labels.npy", content, protocol)
    reason = "it wants to call posix.system" if protocol >= 2 else "it holds the instruction PUT"
    assert reason in refusal(read_npy, path, VOC_CLASSES)
    assert not marker.exists()


def test_a_label_file_cut_or_damaged_anywhere_is_refused_or_read_but_never_breaks(tmp_path):
    whole = published(tmp_path / "whole.npy", vectors()).read_bytes()
    random, path, refused = np.random.default_rng(0), tmp_path / "cls_labels.npy", 0
    for trial in range(150):
        data = bytearray(whole[: random.integers(len(whole))] if trial % 2 else whole)
        for _ in range(3 * (trial % 2 == 0)):
            data[random.integers(len(data))] = random.integers(256)
        path.write_bytes(data)
        try:
            read_npy(path, VOC_CLASSES)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused >= 75, "the half that was cut, at least"


def test_a_table_of_numbers_alone_is_refused_with_the_form_that_is_wanted(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 20)))
    assert "image,CLASS,CLASS" in refusal(read_npy, tmp_path / "x.npy", VOC_CLASSES)


@pytest.mark.parametrize("vector", [np.zeros(20), np.full(20, 0.5), np.ones(6), np.ones((20, 1)), np.full(20, np.nan)])
def test_a_wrong_vector_in_a_label_file_is_named(tmp_path, vector):
    path = published(tmp_path / "x.npy", {"2007_000001": vector})
    assert re.match(f"{path}: the labels of 2007_000001 must be 20 values", refusal(read_npy, path, VOC_CLASSES))


# A user's own folder


def test_an_own_folder_needs_pictures_and_one_table_only(folder):
    source = read("folder", folder, "train")
    assert source.names == ("Holiday 2024", "zoo", "schön") and source.classes == ("cat", "dog")
    np.testing.assert_array_equal(source.labels, [[0, 1], [1, 1], [1, 0]])
    assert np.unique(item(source, 1).mask).tolist() == [0, 2, 255]
    assert item(source, 2).mask is None and not check(source)


def test_without_a_split_column_val_is_what_has_a_mask(folder):
    assert read_folder(folder, "val").names == ("Holiday 2024", "zoo")
    assert len(read_folder(folder, "all")) == 3
    assert "no column 'split'" in refusal(read_folder, folder, "vla")


def test_the_split_column_decides_where_there_is_one(folder):
    (folder / "labels.csv").write_text(
        "image,labels,split\nHoliday 2024.JPG,dog,val\nzoo.png,cat,train\nschön.webp,cat,train\n", "utf-8"
    )
    assert read_folder(folder, "train").names == ("zoo", "schön")
    assert read_folder(folder, "val").names == ("Holiday 2024",)
    assert "no row has the split 'test'; there are train, val" in refusal(read_folder, folder, "test")


def test_classes_txt_fixes_the_order_of_the_classes(folder):
    (folder / "classes.txt").write_text("dog\r\ncow\r\ncat\r\n")
    source = read_folder(folder, "train")
    assert source.classes == ("dog", "cow", "cat")
    np.testing.assert_array_equal(source.labels[1], [1, 0, 1])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("ghost.jpg,cat", r"labels.csv:5: there is no picture 'ghost.jpg'"),
        ("zoo.png,cat", r"labels.csv:5: zoo.png stands in line 3 already"),
        ("../own/images/zoo.png,cat", r"labels.csv:5: there is no picture"),
    ],
)
def test_a_row_that_fits_no_picture_is_named_with_its_line(folder, row, words):
    with (folder / "labels.csv").open("a") as file:
        file.write(row + "\n")
    assert words in refusal(read_folder, folder, "train")


def test_a_picture_without_a_row_is_named(folder):
    save_photograph(folder / "images" / "new.bmp")
    assert "new.bmp: has no row in labels.csv" in refusal(read_folder, folder, "train")


@pytest.mark.parametrize("name", ["zoo.jpg", "Zoo.jpg"])
def test_two_pictures_of_one_name_are_refused(folder, name):
    save_photograph(folder / "images" / name)
    assert "the same name but for case and suffix" in refusal(read_folder, folder, "train")


def test_a_folder_without_pictures_or_labels_is_refused(folder, tmp_path):
    (folder / "labels.csv").unlink()
    assert "labels.csv: no such file" in refusal(read_folder, folder, "train")
    write_csv(tmp_path, "image,labels\na,cat\n")
    assert "images: no such folder" in refusal(read_folder, tmp_path, "train")
    (tmp_path / "images").mkdir()
    assert "images: holds no picture" in refusal(read_folder, tmp_path, "train")


def test_a_folder_without_masks_is_told_how_it_can_be_trained_on(folder):
    shutil.rmtree(folder / "masks")
    assert "train with --val-split none" in refusal(read_folder, folder, "val")


# COCO


def test_coco_labels_are_the_categories_of_the_objects(coco_root):
    source = read("coco", coco_root, "train2014")
    assert source.classes == ("cat", "dog")  # by category number
    assert source.names == ("photo_1", "photo_3")  # the one without objects teaches nothing
    np.testing.assert_array_equal(source.labels, [[1, 1], [0, 1]])
    assert not check(source)


@pytest.mark.parametrize("split", ["val2014", "default"])
def test_photographs_of_coco_without_objects_are_judged_and_not_learned_from(split, coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    write_coco(coco_root, content, split)
    (coco_root / "train2014").rename(coco_root / "images")
    source = read("coco", coco_root, split, labelled=False)
    assert len(source) == 3 and not source.labels[1].any() and not check(source)
    assert read("coco", coco_root, split).names == ("photo_1", "photo_3")


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud83d.jpg", "a" * 300 + ".jpg"])
def test_a_name_in_coco_that_no_file_can_have_is_a_fault(name, coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    content["images"][2]["file_name"] = name
    write_coco(coco_root, content)
    assert one_fault(read_coco(coco_root, "train2014"))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0 with numpy 2
def test_coco_masks_show_the_smaller_object_on_top_and_crowds_as_their_class(coco_root):
    pytest.importorskip("pycocotools", reason="masks of COCO are drawn by pycocotools")
    source = read_coco(coco_root, "train2014")
    expected = np.zeros((20, 30))
    expected[4:16, 4:16], expected[6:10, 6:10] = 2, 1
    np.testing.assert_array_equal(item(source, 0).mask, expected)
    crowd = np.zeros((20, 30))
    crowd[:, :2] = 2
    np.testing.assert_array_equal(item(source, 1).mask, crowd)
    assert not check(source, masks=True)


def test_coco_without_pycocotools_has_labels_and_says_what_masks_need(coco_root, monkeypatch):
    monkeypatch.setattr(coco, "coco_mask", None)
    source = read_coco(coco_root, "train2014")
    assert source.labels.shape == (2, 2)
    assert "pip install pycocotools" in refusal(source.mask, 0)


def test_coco_without_pycocotools_is_told_before_training_when_it_is_evaluated_by_masks(coco_root, monkeypatch):
    monkeypatch.setattr(coco, "coco_mask", None)
    assert len(survey("coco", coco_root, "train2014").source) == 2
    assert "pip install pycocotools" in refusal(survey, "coco", coco_root, "train2014", masks=True)


def test_a_wrong_coco_file_is_refused_by_name(coco_root):
    path = coco_root / "annotations" / "instances_train2014.json"
    content = json.loads(path.read_text())
    assert "splits that are there: train2014" in refusal(read_coco, coco_root, "val2014")
    for wrong in (
        {"images": []},
        content | {"images": [{"id": 1, "file_name": "../../x.jpg", "height": 2, "width": 2}]},
        content | {"annotations": [{"id": 9, "image_id": 1, "category_id": 99, "area": 1, "segmentation": []}]},
        content | {"images": [{"id": 1, "file_name": "x.jpg", "height": float("inf"), "width": 2}]},
        content | {"categories": []},
        content | {"categories": [{"id": 17}, {"id": 18}]},
        content | {"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": 18}]},
        [],
    ):
        write_coco(coco_root, wrong)
        assert refusal(read_coco, coco_root, "train2014").startswith(f"{path}: ")
    path.write_text("{")
    assert "is not JSON" in refusal(read_coco, coco_root, "train2014")


def test_a_coco_category_whose_name_is_no_text_is_named(coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    path = write_coco(coco_root, content | {"categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": None}]})
    assert refusal(read_coco, coco_root, "train2014") == f"{path}: the name of category 18 must be a text, got None"


@pytest.mark.parametrize("what", ["categories", "images"])
def test_two_coco_entries_of_one_id_are_refused(what, coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    first, *others = content[what]
    path = write_coco(coco_root, content | {what: [first, first, *others]})
    sentence = refusal(read_coco, coco_root, "train2014")
    assert sentence == f"{path}: 2 {what} have the id {first['id']}; give each its own"


def test_two_coco_photographs_of_one_name_are_refused(coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    content["images"][2]["file_name"] = "more/PHOTO_1.png"
    path = write_coco(coco_root, content)
    sentence = refusal(read_coco, coco_root, "train2014")
    assert sentence.startswith(f"{path}: photo_1.jpg and PHOTO_1.png have the same name")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0 with numpy 2
def test_classes_that_differ_between_training_and_validation_are_refused_before_anything_is_made(coco_root, capsys):
    pytest.importorskip("pycocotools", reason="masks of COCO are drawn by pycocotools")
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    write_coco(coco_root, content | {"categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cow"}]}, "val2014")
    (coco_root / "train2014").rename(coco_root / "images")
    flags = ["--preset", "tiny", "--dataset", "coco", "--train-split", "train2014", "--val-split", "val2014"]
    assert train.main([*flags, "--data", str(coco_root), "--out", str(coco_root / "run")]) == 2
    assert "train2014 has the classes cat, dog, but val2014 has cow, dog" in capsys.readouterr().err
    assert not (coco_root / "run").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0 with numpy 2
def test_a_coco_object_without_an_outline_is_a_fault_only_where_masks_are_needed(coco_root):
    pytest.importorskip("pycocotools", reason="masks of COCO are drawn by pycocotools")
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    content["annotations"][2]["segmentation"] = []
    write_coco(coco_root, content)
    source = read_coco(coco_root, "train2014")
    assert check(source) == []
    assert "photo_3: the outline of an object cannot be drawn" in one_fault(source, masks=True)
    assert survey("coco", coco_root, "train2014", masks=True).source.names == ("photo_1",)


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ([[1e30, 1, 5, 5, 1e30, 9]], "lies far outside of its picture"),
        ([[float("nan"), 1, 5, 5, 9, 9]], "lies far outside of its picture"),
        ({"counts": [5, 10], "size": [30_000_000, 45_100_000]}, r"is for a picture of \[30000000, 45100000\]"),
        ({"counts": [5, 10]}, "is for a picture of None"),
        ([7], "cannot be drawn"),
    ],
)
def test_a_coco_outline_that_pycocotools_would_choke_on_is_a_fault(coco_root, outline, words):
    """For the first it takes all memory, by the third it ends the process."""
    pytest.importorskip("pycocotools", reason="masks of COCO are drawn by pycocotools")
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    content["annotations"][2]["segmentation"] = outline
    write_coco(coco_root, content)
    assert re.search(words, one_fault(read_coco(coco_root, "train2014"), masks=True))


def test_coco_photographs_whose_own_masks_do_not_fit_can_be_skipped(coco_root):
    made = coco_root / "made"
    save_mask(made / "photo_1.png", np.full((20, 30), 12))
    save_mask(made / "photo_3.png", np.full((20, 31), 12))

    def surveyed():
        return survey("coco", coco_root, "train2014", masks=True, masks_from=str(made))

    assert [
        "photo_3.jpg: is (20, 30), but the mask photo_3.png is (20, 31)" in fault for fault in surveyed().faults
    ] == [True]
    assert surveyed().source.names == ("photo_1",) and (surveyed().source.mask(0) == 2).all()
    (made / "photo_3.png").unlink()
    assert ["photo_3.jpg: has no mask" in fault for fault in surveyed().faults] == [True]
    (coco_root / "train2014" / "photo_1.jpg").write_bytes(b"")
    assert [fault.split(": ")[1] for fault in surveyed().faults] == ["is empty", "has no mask, which is needed here"]
    assert not len(surveyed().source)


def test_a_split_without_photographs_is_told_without_a_list_of_faults(coco_root):
    content = json.loads((coco_root / "annotations" / "instances_train2014.json").read_text())
    write_coco(coco_root, content | {"annotations": []})
    sentence = refusal(require_sound_splits, [survey("coco", coco_root, "train2014")], skip_bad=True)
    assert sentence == "the split train2014 holds no photograph"


def test_a_coco_photograph_of_another_size_than_annotated_is_a_fault(coco_root):
    save_photograph(coco_root / "train2014" / "photo_3.jpg", (20, 31))
    assert "photo_3.jpg: is (20, 31), but its annotation is (20, 30)" in one_fault(read_coco(coco_root, "train2014"))


# The check before a run


@pytest.fixture
def alarm():
    """Ends a test that waits for a file that never answers."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waited a minute for a file"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def broken(path, name):
    """Spoils one photograph in one of many ways."""
    data = path.read_bytes()
    path.unlink()
    if name == "empty":
        path.write_bytes(b"")
    elif name == "cut":
        path.write_bytes(data[: -len(data) // 8])  # behind the header, which stays whole
    elif name == "no picture":
        path.write_text("<html>not found</html>")
    elif name == "folder":
        path.mkdir()
    elif name == "FIFO":
        os.mkfifo(path)
    elif name == "link to a device":
        path.symlink_to("/dev/zero")
    elif name == "link out":
        outside = path.parents[3] / "outside.jpg"
        outside.write_bytes(data)
        path.symlink_to(outside)


@pytest.mark.parametrize(
    "how", ["missing", "empty", "cut", "no picture", "folder", "FIFO", "link to a device", "link out"]
)
@pytest.mark.parametrize("what", ["photograph", "mask"])
def test_a_file_that_cannot_be_used_is_named_and_never_waited_for(devkit, how, what, alarm):
    source = read_voc(devkit, "train")
    path = (source.images if what == "photograph" else source.masks)[1]
    broken(path, how)
    faults = check(source, masks=what == "mask")
    lacking = [f"{source.images[2]}: has no mask, which is needed here ({line_of(devkit, 3)})"]
    assert faults[0].startswith(f"{path}: ") and faults[0].endswith(f" ({line_of(devkit, 2)})")
    assert faults[1:] == (lacking if what == "mask" else [])
    if how != "link out":
        sentence = refusal(item, source, 1)
        assert str(path) in sentence
        assert ("is not a regular file" in sentence) == (how in ("folder", "FIFO", "link to a device"))


def test_a_sound_folder_has_no_fault_and_linked_folders_are_fine(devkit, tmp_path):
    elsewhere = tmp_path / "disk"
    (devkit / "JPEGImages").rename(elsewhere)
    (devkit / "JPEGImages").symlink_to(elsewhere)
    source = read_voc(devkit, "train")
    assert check(source) == []


@pytest.mark.parametrize("trailer", [b"a maker's trailer", b"\0\0\0\x18ftypmp42" + 101 * b"\xff\xda\0\2"])
def test_a_jpeg_with_bytes_behind_its_end_is_sound(devkit, trailer):
    source = read_voc(devkit, "train")
    with source.images[0].open("ab") as file:
        file.write(trailer)
    assert check(source) == []


def test_the_end_of_a_jpegs_preview_is_not_its_own(devkit):
    source = read_voc(devkit, "train")
    data, preview = source.images[0].read_bytes(), source.images[1].read_bytes()
    block = b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview
    scans = 101 * data[data.rindex(b"\xff\xda") : -2]
    source.images[0].write_bytes(data[:2] + block + data[2:])
    assert check(source) == []
    source.images[0].write_bytes(data[:2] + block + data[2:-2] + scans + data[-2:])
    assert "of more than 100 scans" in one_fault(source)


@pytest.mark.parametrize(("how", "words"), [("large", "has 8000x5001 pixels"), ("scans", "of more than 100 scans")])
def test_what_training_would_refuse_of_a_whole_jpeg_is_a_fault_before(devkit, how, words):
    source = read_voc(devkit, "train")
    if how == "large":
        Image.new("L", (8000, 5001)).save(source.images[2])
    else:
        data = source.images[2].read_bytes()
        scan = data[data.rindex(b"\xff\xda") : -2]
        source.images[2].write_bytes(data[:-2] + scan * 101 + data[-2:])
    assert words in one_fault(source) and words in refusal(source.rgb, 2)


def test_all_faults_are_told_at_once(devkit):
    source = read_voc(devkit, "train")
    source.images[0].unlink()
    source.masks[0].write_bytes(b"")
    save_mask(source.masks[1], np.zeros((24, 33)))
    faults = check(source, masks=True)
    assert len(faults) == 4 and len(check(source)) == 1, "a mask that is not asked for is nobody's fault"
    assert "2007_000002.jpg: is (24, 32), but the mask 2007_000002.png is (24, 33)" in faults[2]
    sentence = refusal(require_sound_splits, [survey("voc", devkit, "train", masks=True)], skip_bad=False)
    assert sentence.startswith("the data have 4 faults:\n") and all(fault in sentence for fault in faults)


def test_of_many_faults_twenty_are_shown_and_all_counted(devkit):
    names = [f"ghost_{i:02d}" for i in range(33)]
    write_list(devkit, "ghosts", "\n".join(names))
    (devkit / "image_labels.csv").write_text("image,cat\n" + "".join(f"{name},1\n" for name in names))
    lines = refusal(require_sound_splits, [survey("voc", devkit, "ghosts")], skip_bad=False).splitlines()
    assert lines[0] == "the data have 33 faults:" and lines[-2] == "... and 13 more" and len(lines) == 23


def test_a_missing_mask_is_a_fault_only_where_masks_are_needed(devkit):
    source = read_voc(devkit, "train")
    assert check(source) == []
    assert f"{IDS[2]}.jpg: has no mask" in one_fault(source, masks=True)


def test_values_of_no_class_are_a_fault_of_a_mask(folder):
    mask = np.zeros((24, 32))
    mask[0, 0] = 9
    save_mask(folder / "masks" / "zoo.png", mask, mode="L")
    assert "holds the values [9]; they must be 0 to 2, or 255" in one_fault(read_folder(folder, "val"), masks=True)


def test_with_a_part_of_vocs_classes_the_others_are_background_and_no_fault(devkit):
    (devkit / "image_labels.csv").write_text("image,dog\n" + "".join(f"{name},1\n" for name in IDS[:2]))
    write_list(devkit, "two", "\n".join(IDS[:2]))
    assert check(read_voc(devkit, "two"), masks=True) == []


def test_a_line_is_counted_as_the_tables_reader_counts_it(folder):
    """Other separators of lines than a table's are a part of a name."""
    lines = "image,labels\nHoliday 2024.JPG,dog;x\u2028y\nzoo,cat; dog\nschön.webp,\n"
    (folder / "labels.csv").write_text(lines, "utf-8")
    found = survey("folder", folder, "train")
    assert found.source.names == ("Holiday 2024", "zoo") and found.skipped == 1


def test_a_mask_without_any_label_is_a_fault(folder):
    save_mask(folder / "masks" / "zoo.png", np.full((24, 32), 255), mode="L")
    assert "zoo.png: is unlabelled (255) all over" in one_fault(read_folder(folder, "val"), masks=True)


@pytest.mark.parametrize("dataset", ["folder", "shapes"])
def test_a_mask_that_a_network_has_made_may_be_unlabelled_all_over(dataset, folder, tmp_path):
    source = read(dataset, folder, "val")
    (tmp_path / "made").mkdir()
    for index, name in enumerate(source.names):
        save_mask(tmp_path / "made" / f"{name}.png", np.full(source.rgb(index).shape[:2], 255), mode="L")
    assert check(with_masks(source, tmp_path / "made"), masks=True) == []


def test_a_broken_mask_of_a_drawn_picture_is_named_and_may_be_skipped(tmp_path):
    drawn = read("shapes", None, "val")
    for name in drawn.names:
        save_mask(tmp_path / f"{name}.png", np.zeros((96, 96)))
    (tmp_path / f"{drawn.names[3]}.png").write_bytes(b"no mask")
    found = survey("shapes", None, "val", masks=True, masks_from=str(tmp_path))
    assert f"{drawn.names[3]}.png" in refusal(require_sound_splits, [found], skip_bad=False)
    require_sound_splits([found], skip_bad=True)
    assert found.skipped == 1 and found.source.names == drawn.names[:3] + drawn.names[4:]
    np.testing.assert_array_equal(found.source.labels, np.delete(drawn.labels, 3, axis=0))
    np.testing.assert_array_equal(found.source.rgb(3), drawn.rgb(4))


def test_own_masks_whose_values_are_not_vocs_are_refused_where_the_classes_are_vocs(folder, tmp_path):
    faults = check(with_masks(read_folder(folder, "val"), folder / "masks"), masks=True)
    path = folder / "masks" / "zoo.png"
    said = f"{path}: holds the values [2]; they must be 0, 8, 12, or 255 ({folder / 'labels.csv'}:3)"
    assert len(faults) == 2 and said in faults
    for name in ("zoo", "Holiday 2024"):
        mask_files.save_mask(tmp_path / f"{name}.png", np.full((24, 32), 2), ("cat", "dog"))
    assert check(with_masks(read_folder(folder, "val"), tmp_path), masks=True) == []


def test_a_colored_mask_and_a_jpeg_mask_are_refused_with_the_reason(folder):
    path = folder / "masks" / "zoo.png"
    save_mask(path, np.zeros((24, 32)), mode="RGB")
    assert "must hold class indices" in one_fault(read_folder(folder, "val"), masks=True)
    save_photograph(path, format="JPEG")
    assert "must be a PNG" in one_fault(read_folder(folder, "val"), masks=True)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_gray_mask_keeps_its_values_whatever_its_depth(tmp_path, bits):
    values = np.arange(16, dtype=np.uint8).reshape(4, 4) & (2**bits - 1)
    digits = np.unpackbits(values[..., None], axis=-1)[..., -bits:]
    rows = np.packbits(digits.reshape(4, -1), axis=1)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header, pixels = struct.pack(">IIBBBBB", 4, 4, bits, 0, 0, 0, 0), zlib.compress(lines)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(whole)
    np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), values)


def test_a_damaged_mask_is_found(folder):
    path = folder / "masks" / "zoo.png"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 255
    path.write_bytes(data)
    assert one_fault(read_folder(folder, "val"), masks=True).startswith(f"{path}: cannot be read as a mask")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_compared_with_its_mask_as_it_is_seen(folder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (32, 24) if orientation >= 5 else (24, 32)
    save_photograph(folder / "images" / "Holiday 2024.JPG", size, exif=exif)
    source = read_folder(folder, "val")
    assert check(source, masks=True) == []
    assert item(source, 0).rgb.shape == (24, 32, 3)


def test_data_without_photographs_are_a_fault(devkit):
    source = read_voc(devkit, "train")
    nothing = type(source)((), (), np.zeros((0, 0), np.float32), (), (), (0,))
    found = Surveyed("train", nothing, [], 0)
    assert refusal(require_sound_splits, [found], skip_bad=False) == "the split train holds no photograph"


def test_a_photograph_with_16_bits_keeps_its_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "gray.png")
    assert read_rgb(tmp_path / "gray.png").mean() == pytest.approx(127.5, abs=1)


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "is not a picture of a known format" in refusal(read_rgb, path)
    assert "is not a picture" in refusal(read_mask, path)


@pytest.mark.parametrize("dataset", ["voc", "folder", "coco"])
def test_a_layout_without_its_folder_is_refused(dataset, tmp_path):
    assert "give one" in refusal(read, dataset, None, "train")
    assert "no such data folder" in refusal(read, dataset, tmp_path / "nowhere", "train")


def test_an_unknown_layout_is_refused(tmp_path):
    assert "there is no layout of data 'cityscapes'" in refusal(read, "cityscapes", tmp_path, "train")


def test_a_row_that_is_skipped_counts_once(folder):
    (folder / "classes.txt").write_text("cat\ndog\n")
    with (folder / "labels.csv").open("a") as file:
        file.write("my b.jpg,cow\n")
    save_photograph(folder / "images" / "my b.jpg")
    found = survey("folder", folder, "train")
    assert found.faults == [f"{folder / 'labels.csv'}:5: there is no class 'cow'; the classes are cat, dog"]
    assert found.skipped == 1 and len(found.source) == 3


def surveyed_rows(folder, rows, classes="cat\ndog\n"):
    """The survey of a folder with these rows."""
    if classes:
        (folder / "classes.txt").write_text(classes)
    (folder / "labels.csv").write_text("image,labels\n" + rows, "utf-8")
    return survey("folder", folder, "train")


def test_a_quote_without_its_end_costs_its_own_row_alone(folder):
    found = surveyed_rows(folder, 'Holiday 2024.JPG,"dog\nzoo,cat; dog\nschön.webp,cat\n')
    assert found.source.names == ("zoo", "schön") and found.skipped == 1
    (fault,) = found.faults
    assert fault.startswith(f"{folder / 'labels.csv'}:2: is not a CSV line")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_photograph_keeps_its_good_row_beside_a_bad_one_under_its_other_name(folder, swapped):
    rows = ["zoo,cat", "zoo.png,unicorn"]
    found = surveyed_rows(folder, "\n".join([*(rows[::-1] if swapped else rows), "schön,cat", "Holiday 2024,dog"]))
    assert found.source.names == ("zoo", "schön", "Holiday 2024")
    assert len(found.faults) == 1 and "there is no class 'unicorn'" in found.faults[0] and found.skipped == 0


def test_of_two_pictures_of_one_name_the_one_that_a_row_names_stays(folder):
    save_photograph(folder / "images" / "zoo.gif")
    found = surveyed_rows(folder, "zoo.png,cat\nschön,cat\nHoliday 2024,dog\n")
    assert [path.name for path in found.source.images] == ["zoo.png", "schön.webp", "Holiday 2024.JPG"]
    assert "zoo.gif: zoo.png has the same name but for case and suffix" in found.faults[0] and found.skipped == 1


def test_the_first_of_two_rows_counts_and_the_second_names_no_class(folder):
    found = surveyed_rows(folder, "zoo,cat\nzoo,unicorn\nschön,cat\nHoliday 2024,dog\n", classes="")
    assert found.faults == [f"{folder / 'labels.csv'}:3: 'zoo' stands in line 2 already"]
    assert found.source.names == ("zoo", "schön", "Holiday 2024") and found.source.classes == ("cat", "dog")


def test_the_split_of_a_photograph_is_that_of_its_good_row(folder):
    rows = 'image,labels,split\nzoo,"cat,train\nzoo,dog,val\nschön,cat,train\nHoliday 2024,dog,val\n'
    (folder / "labels.csv").write_text(rows, "utf-8")
    kept = {split: survey("folder", folder, split).source.names for split in ("train", "val")}
    assert kept == {"train": ("schön",), "val": ("zoo", "Holiday 2024")}


def test_where_every_row_has_a_fault_all_are_told_and_nothing_is_left(folder):
    found = surveyed_rows(folder, "zoo,cow\nschön,cow\nHoliday 2024,cow\n")
    assert len(found.faults) == 3 and found.skipped == 3 and len(found.source) == 0
    assert "no photograph of the split train is left" in refusal(require_sound_splits, [found], skip_bad=True)


def test_a_row_of_empty_quotes_is_blank(folder):
    found = surveyed_rows(folder, '"zoo","cat"\n"",""\n,\n  \n"schön","cat"\n"Holiday 2024","dog"\n')
    assert found.faults == [] and len(found.source) == 3


def test_a_list_of_nothing_but_faults_leaves_no_photograph(devkit):
    write_list(devkit, "train", "a b c\n../x\n" + 300 * "x" + "\n")
    found = survey("voc", devkit, "train")
    assert len(found.source) == 0 and found.source.labels.shape == (0, 20)
    assert [fault.partition(": ")[0] for fault in found.faults[:2]] == [line_of(devkit, 1), line_of(devkit, 2)]
    assert len(found.faults) == found.skipped == 3


def test_a_picture_without_a_row_is_left_out_whatever_its_name(folder):
    save_photograph(folder / "images" / "shot 10: a.jpg")
    found = survey("folder", folder, "train")
    assert found.skipped == 1 and len(found.source) == 3
    assert "shot 10: a.jpg: has no row in labels.csv" in found.faults[0]


def test_the_line_of_a_fault_is_that_of_the_list_which_was_read(devkit):
    root = devkit.parent.parent
    for other in (root, root / "a", root / "z", devkit.parent / "VOC2007", devkit.parent / "VOC2013"):
        write_list(other, "train", "\n" * 5 + "\n".join(IDS))
    (devkit / "JPEGImages" / f"{IDS[1]}.jpg").unlink()
    (fault,) = survey("voc", root, "train").faults
    assert fault.endswith(f"({line_of(devkit, 2)})")


# The real photographs


def test_the_animals_are_as_many_as_their_readme_says(animals_root):
    train_aug, train, val = (read("voc", animals_root, split) for split in ("train_aug", "train", "val"))
    assert (len(train_aug), len(train), len(val)) == (2651, 370, 200)
    assert train_aug.classes == ("cat", "cow", "dog", "horse", "person", "sheep")
    assert train_aug.mask_values == (0, 8, 10, 12, 13, 15, 17)
    assert train_aug.labels.sum(0).tolist() == [826, 250, 931, 405, 521, 284]
    assert (train_aug.labels.sum(1) > 1).sum() == 559
    assert val.labels.sum(0).tolist() == [45, 40, 54, 37, 37, 28]
    assert set(train.names) <= set(train_aug.names) and not set(train_aug.names) & set(val.names)


def test_the_animals_are_sound(animals_root):
    assert check(read("voc", animals_root, "train")) == []
    assert check(read("voc", animals_root, "val"), masks=True) == []


def test_a_mask_of_the_animals_holds_no_other_class(animals_root):
    source = read("voc", animals_root, "val")
    assert set(np.unique(source.mask(0))) <= {*range(7), 255}


def test_a_bad_row_of_another_split_is_left_out_of_that_one_alone(folder):
    rows = ["image,labels,split", "Holiday 2024.JPG,dog,train", "zoo,cat,val", "schön.webp,unicorn,val"]
    (folder / "labels.csv").write_text("\n".join(rows), "utf-8")
    (folder / "classes.txt").write_text("cat\ndog\n")
    surveys = {split: survey("folder", folder, split) for split in ("train", "val")}
    assert {split: found.skipped for split, found in surveys.items()} == {"train": 0, "val": 1}
    assert surveys["train"].faults == surveys["val"].faults


@pytest.mark.parametrize("name", ["b.v2.jpg", "b.v2", "x, y.jpg"])
def test_a_row_whose_name_has_a_dot_or_a_comma_is_one_fault(folder, name):
    save_photograph(folder / "images" / (name.removesuffix(".jpg") + ".jpg"))
    with (folder / "labels.csv").open("a") as file:
        file.write(f'"{name}",unicorn\n')
    (folder / "classes.txt").write_text("cat\ndog\n")
    found = survey("folder", folder, "train")
    assert found.faults == [f"{folder / 'labels.csv'}:5: there is no class 'unicorn'; the classes are cat, dog"]
    assert found.skipped == 1


def test_ids_with_dots_are_found_in_their_list(devkit):
    for name in ("b.v2", "b.v3", "b"):
        save_photograph(devkit / "JPEGImages" / f"{name}.jpg")
        (devkit / "Annotations" / f"{name}.xml").write_text(annotation(["dog"]))
    path = write_list(devkit, "train", "b.v2\nb.v3\nb\n")
    (devkit / "Annotations" / "b.v2.xml").write_text("no xml")
    (devkit / "JPEGImages" / "b.jpg").write_text("no picture")
    found = survey("voc", devkit, "train")
    assert found.source.names == ("b.v3",) and found.skipped == 2
    assert found.faults[-1].endswith(f"({path}:3)")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("(-4:Insufficient memory) Failed to allocate 9 bytes")])
def test_a_full_memory_does_not_make_a_photograph_broken(error, devkit, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(type(error)):
        read_rgb(devkit / "JPEGImages" / f"{IDS[0]}.jpg")


def test_photographs_that_are_left_keep_their_own_labels(devkit):
    (devkit / "JPEGImages" / f"{IDS[0]}.jpg").write_bytes(b"")
    before, found = read_voc(devkit, "train"), survey("voc", devkit, "train")
    assert found.source.names == before.names[1:]
    np.testing.assert_array_equal(found.source.labels, before.labels[1:])


def test_an_own_table_comes_before_the_published_labels(devkit):
    published(devkit / "cls_labels.npy", {name: np.eye(20)[7] for name in IDS})
    (devkit / "image_labels.csv").write_text("image,dog\n" + "".join(f"{name},1\n" for name in IDS))
    assert read_voc(devkit, "train").classes == ("dog",)


def test_the_default_list_takes_all_of_an_own_folder(folder):
    assert len(read("folder", folder, "train_aug")) == 3
    assert refusal(read, "folder", folder, "train_other").endswith("not 'train_other'")


@pytest.mark.parametrize("count", [254, 255])
def test_as_many_classes_as_a_mask_has_values_for(tmp_path, count):
    path = tmp_path / "labels.csv"
    path.write_text("image," + ",".join(f"c{k}" for k in range(count)) + "\na" + ",1" * count + "\n")
    if count == 254:
        assert len(read_csv(path).classes) == 254
    else:
        assert "names 255 classes; a mask has values for 254" in refusal(read_csv, path)


def test_an_outline_may_reach_beyond_its_picture(coco_root):
    pytest.importorskip("pycocotools", reason="masks of COCO are drawn by pycocotools")
    path = coco_root / "annotations" / "instances_train2014.json"
    path.write_text(path.read_text().replace(str(square(6, 6, 4)), str(square(6, 6, 40))))
    assert (read("coco", coco_root, "train2014").mask(0)[7:, 17:] == 1).all()
