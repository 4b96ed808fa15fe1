"""Object recognition: ImageNet and its subsets, Caltech, VOC, Office."""

from .miniature import Miniature
from .table import layout, reads, reads_or_refused, refused

SYNSETS = ("n01440764", "n02102040")


@layout(
    "ImageNet, val as published",
    "ILSVRC2012",
    reads(SYNSETS, says="val/", train=6),
    "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
)
def imagenet_flat_val(mini: Miniature) -> None:
    mini.class_folders("train/{label}/{label}_{k}.JPEG", SYNSETS)
    mini.unlabelled("val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")


@layout(
    "ImageNet, val in class folders",
    "imagenet",
    reads(SYNSETS, train=6, val=4),
    "https://github.com/pytorch/examples/tree/main/imagenet",
)
def imagenet_class_folders(mini: Miniature) -> None:
    mini.class_folders("train/{label}/{label}_{k}.JPEG", SYNSETS)
    mini.class_folders("val/{label}/ILSVRC2012_val_0000{k}_{label}.JPEG", SYNSETS, num=2, split="val")


@layout(
    "Imagenette",
    "imagenette2-160",
    reads(SYNSETS, train=6, val=4),
    "https://github.com/fastai/imagenette",
)
def imagenette(mini: Miniature) -> None:
    mini.class_folders("train/{label}/{label}_{k}.JPEG", SYNSETS)
    mini.class_folders("val/{label}/{label}_1{k}.JPEG", SYNSETS, num=2, split="val")
    rows = []
    for split, labels in mini.labels.items():
        for path, label in labels.items():
            noisy = SYNSETS[0]  # the noise: half of the labels are wrong
            rows.append(f"{path},{label},{label},{label},{noisy},{noisy},{split == 'val'}")
    header = "path,noisy_labels_0,noisy_labels_1,noisy_labels_5,noisy_labels_25,noisy_labels_50,is_valid"
    mini.table("noisy_imagenette.csv", header, rows)


@layout(
    "tiny-imagenet-200",
    "tiny-imagenet-200",
    reads(("n01443537", "n01629819"), says=(r"val_annotations\.txt", "test/"), train=6, val=4),
    "https://www.kaggle.com/c/tiny-imagenet/data",
)
def tiny_imagenet(mini: Miniature) -> None:
    classes = ("n01443537", "n01629819")
    mini.class_folders("train/{label}/images/{label}_{k}.JPEG", classes)
    for name in classes:
        mini.text(f"train/{name}/{name}_boxes.txt", f"{name}_0.JPEG\t0\t10\t63\t58\n")
    val = mini.pictures("val/images/val_{k}.JPEG", classes * 2, "val")
    lines = [f"{path.rpartition('/')[2]}\t{label}\t0\t32\t44\t62" for path, label in val]
    mini.text("val/val_annotations.txt", "\n".join(lines) + "\n")
    mini.unlabelled("test/images/test_0.JPEG", "test/images/test_1.JPEG")
    mini.text("wnids.txt", "\n".join(classes) + "\n")
    mini.text("words.txt", "n01443537\tgoldfish, Carassius auratus\nn01629819\tEuropean fire salamander\n")


@layout(
    "Caltech-101",
    "caltech-101",
    reads(("BACKGROUND_Google", "accordion", "airplanes"), says="101_ObjectCategories/", train=9),
    "https://data.caltech.edu/records/mzrjq-6wc02",
)
def caltech101(mini: Miniature) -> None:
    classes = ("BACKGROUND_Google", "accordion", "airplanes")
    mini.class_folders("101_ObjectCategories/{label}/image_000{k}.jpg", classes)
    mini.binary("Annotations/accordion/annotation_0001.mat")
    mini.binary("Annotations/Airplanes_Side_2/annotation_0001.mat")
    mini.text("show_annotation.m", "function show_annotation(imgfile, annotation_file)\n")


@layout(
    "Caltech-256",
    "caltech256",
    reads(("001.ak47", "198.spider", "257.clutter"), says="256_ObjectCategories/", train=9),
    "https://data.caltech.edu/records/nyy15-4j048",
)
def caltech256(mini: Miniature) -> None:
    mini.class_folders("256_ObjectCategories/{label}/{label}_000{k}.jpg", ("001.ak47", "198.spider", "257.clutter"))
    mini.text("256_ObjectCategories/198.spider/RENAME2", "#!/usr/bin/perl\nforeach $file (<*.jpg>) {}\n")


@layout(
    "PASCAL VOC 2012",
    "VOC2012",
    refused(match="JPEGImages|SegmentationClass|Annotations"),
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
)
def voc2012(mini: Miniature) -> None:
    for k in range(4):
        mini.unlabelled(f"JPEGImages/2007_00003{k}.jpg")
        mini.unlabelled(f"SegmentationClass/2007_00003{k}.png", f"SegmentationObject/2007_00003{k}.png", mode="P")
        mini.text(f"Annotations/2007_00003{k}.xml", "<annotation><object><name>cat</name></object></annotation>\n")
    mini.text("ImageSets/Main/cat_train.txt", "2007_000030  1\n2007_000031 -1\n")


@layout(
    "Office-31",
    "office31",
    refused(match=r"(?s)(?=.*amazon)(?=.*dslr)"),
    "https://faculty.cc.gatech.edu/~judy/domainadapt/",
)
def office31(mini: Miniature) -> None:
    for domain in ("amazon", "dslr", "webcam"):
        for name in ("back_pack", "bike"):
            mini.unlabelled(*(f"{domain}/images/{name}/frame_000{k}.jpg" for k in range(2)))


@layout(
    "flower_photos",
    "flower_photos",
    reads(("daisy", "roses", "tulips"), train=9),
    "https://www.tensorflow.org/tutorials/load_data/images",
)
def flower_photos(mini: Miniature) -> None:
    mini.class_folders("{label}/10140303196_b88d3d6cec_{k}.jpg", ("daisy", "roses", "tulips"))
    mini.text("LICENSE.txt", "All images in this archive are licensed under the Creative Commons License\n")


@layout(
    "cats_and_dogs_filtered",
    "cats_and_dogs_filtered",
    reads(("cats", "dogs"), train=6, val=4),
    "https://www.tensorflow.org/tutorials/images/transfer_learning",
)
def cats_and_dogs_filtered(mini: Miniature) -> None:
    mini.class_folders("train/{label}/{label}.{k}.jpg", ("cats", "dogs"))
    mini.class_folders("validation/{label}/{label}.200{k}.jpg", ("cats", "dogs"), num=2, split="val")
    mini.text("vectorize.py", "import numpy as np\n")


@layout(
    "Hymenoptera",
    "hymenoptera_data",
    reads(("ants", "bees"), train=6, val=4),
    "https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
)
def hymenoptera(mini: Miniature) -> None:
    mini.class_folders("train/{label}/0013035_{k}.jpg", ("ants", "bees"))
    mini.class_folders("val/{label}/10308379_{k}.jpg", ("ants", "bees"), num=2, split="val")


@layout(
    "Animals-10",
    "animals10",
    reads(("cane", "cavallo", "gatto"), says="raw-img/", train=9),
    "https://www.kaggle.com/datasets/alessiocorrado99/animals10",
)
def animals10(mini: Miniature) -> None:
    mini.class_folders("raw-img/{label}/OIP--{k}z_zAuTMzgYM.jpeg", ("cane", "cavallo", "gatto"))
    mini.text("translate.py", 'translate = {"cane": "dog", "cavallo": "horse", "gatto": "cat"}\n')


@layout(
    "SUN397",
    "SUN397",
    reads_or_refused(r"abbey|ClassName\.txt|\ba\b", ("abbey", "airplane_cabin", "bedroom"), train=9),
    "https://vision.princeton.edu/projects/2010/SUN/",
)
def sun397(mini: Miniature) -> None:
    classes = ("abbey", "airplane_cabin", "bedroom")
    for name in classes:
        mini.class_folders(name[0] + "/{label}/sun_aaalbz{k}.jpg", (name,))
    mini.table("ClassName.txt", "/a/abbey", ("/a/airplane_cabin", "/b/bedroom"))
