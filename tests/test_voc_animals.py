"""The photographs that the results were measured on can be put together again from the lists that are shipped."""

from pathlib import Path

import pytest

from wsss.data.source import read

LISTS = Path(__file__).parent.parent / "analysis" / "results" / "voc-animals"
SIZES = {"train_aug": 2651, "train": 370, "val": 200}


def listed(split: str) -> list[str]:
    return (LISTS / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()


def test_the_lists_are_of_the_sizes_that_the_readme_tells_and_no_photograph_is_for_both():
    assert {split: len(set(listed(split))) for split in SIZES} == SIZES
    assert set(listed("train")) < set(listed("train_aug")) and not set(listed("val")) & set(listed("train_aug"))


@pytest.mark.parametrize("split", SIZES)
def test_with_the_photographs_of_voc_beside_them_they_are_a_data_set(animals_root, tmp_path, split):
    for part in LISTS.iterdir():
        (tmp_path / part.name).symlink_to(part)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (tmp_path / folder).symlink_to(animals_root / folder)
    ours, theirs = read("voc", tmp_path, split), read("voc", animals_root, split)
    assert (ours.names, ours.classes) == (theirs.names, theirs.classes)
    assert (ours.labels == theirs.labels).all()
    there, here = (
        [path.relative_to(root) for path in source.masks] for source, root in ((theirs, animals_root), (ours, tmp_path))
    )
    assert here == there
