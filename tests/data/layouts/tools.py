"""Exports of tools: Roboflow and Hugging Face."""

import json

from .miniature import Miniature
from .table import layout, reads, refused

PETS = ("cat", "dog")
SPLIT_FOLDERS = (("train", "train", 3), ("valid", "val", 2), ("test", "test", 2))  # folder, split, images of a class


def roboflow_readmes(mini: Miniature) -> None:
    mini.text("README.dataset.txt", "# pets > v1\nProvided by a Roboflow user\n")
    mini.text("README.roboflow.txt", "pets - v1\nThis dataset was exported via roboflow.com\n")


@layout(
    "Roboflow folders",
    "pets.v1i.folder",
    reads(PETS, train=6, val=4, test=4),
    "https://roboflow.com/formats",
)
def roboflow_folders(mini: Miniature) -> None:
    for folder, split, num in SPLIT_FOLDERS:
        mini.class_folders(folder + "/{label}/IMG_10{k}_jpg.rf.f02ad8558ce1c882.jpg", PETS, num, split)
    roboflow_readmes(mini)


@layout(
    "Roboflow multi-class CSV",
    "pets.v1i.multiclass",
    reads(PETS, says=r"_classes\.csv|cat, dog", train=6, val=4, test=4),
    "https://roboflow.com/formats/multiclass-classification-csv",
)
def roboflow_csv(mini: Miniature) -> None:
    for folder, split, num in SPLIT_FOLDERS:
        pictures = mini.pictures(folder + "/IMG_" + folder + "{k}_jpg.rf.4ce1c882.jpg", PETS * num, split)
        rows = [f"{path.partition('/')[2]}, {int(label == 'cat')}, {int(label == 'dog')}" for path, label in pictures]
        mini.table(f"{folder}/_classes.csv", "filename, cat, dog", rows)
    roboflow_readmes(mini)


@layout(
    "Roboflow YOLO",
    "pets.v1i.yolov8",
    refused(match=r"'images'|images/|labels/|data\.yaml"),
    "https://roboflow.com/formats/yolov8-pytorch-txt",
)
def roboflow_yolo(mini: Miniature) -> None:
    for folder, _, num in SPLIT_FOLDERS:
        for k in range(num):
            mini.unlabelled(f"{folder}/images/IMG_{k}_jpg.rf.4ce1c882.jpg")
            mini.text(f"{folder}/labels/IMG_{k}_jpg.rf.4ce1c882.txt", f"{k % 2} 0.5 0.5 0.2 0.3\n")
    mini.text("data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")
    roboflow_readmes(mini)


@layout(
    "Hugging Face imagefolder",
    "imagefolder",
    reads(PETS, train=6, test=4),
    "https://huggingface.co/docs/datasets/image_dataset",
)
def imagefolder(mini: Miniature) -> None:
    mini.class_folders("train/{label}/golden_{k}.png", PETS)
    mini.class_folders("test/{label}/maine_coon_{k}.png", PETS, 2, "test")
    mini.text("README.md", "---\ntask_categories:\n- image-classification\n---\n")


@layout(
    "Hugging Face metadata.csv",
    "imagefolder-csv",
    reads(PETS, says=r"metadata\.csv|file_name", train=6, test=4),
    "https://huggingface.co/docs/datasets/image_dataset",
)
def imagefolder_csv(mini: Miniature) -> None:
    for split, num in (("train", 3), ("test", 2)):
        pictures = mini.pictures(split + "/" + split + "000{k}.png", PETS * num, split)
        rows = [f"{path.partition('/')[2]},{label}" for path, label in pictures]
        mini.table(f"{split}/metadata.csv", "file_name,label", rows)
    mini.text("README.md")


@layout(
    "Hugging Face metadata.jsonl",
    "imagefolder-jsonl",
    reads(PETS, says=r"metadata\.jsonl|file_name", train=6, test=4),
    "https://huggingface.co/docs/datasets/image_dataset",
)
def imagefolder_jsonl(mini: Miniature) -> None:
    for split, num in (("train", 3), ("test", 2)):
        pictures = mini.pictures(split + "/" + split + "000{k}.png", PETS * num, split)
        rows = [json.dumps({"file_name": path.partition("/")[2], "label": label}) for path, label in pictures]
        mini.text(f"{split}/metadata.jsonl", "\n".join(rows) + "\n")
    mini.text("README.md")
