"""Fine-grained recognition: birds, food, pets, cars, dogs, flowers, aircraft, fruit, sports."""

import json

from .miniature import Miniature
from .table import layout, reads, refused


@layout(
    "CUB-200-2011",
    "CUB_200_2011",
    reads(("001.Black_footed_Albatross", "002.Laysan_Albatross"), says="images/", train=6),
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
)
def cub200(mini: Miniature) -> None:
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    mini.class_folders("images/{label}/Albatross_004{k}_{label}.jpg", classes)
    paths = [path.removeprefix("images/") for path in mini.labels["train"]]
    numbers = range(1, len(paths) + 1)
    mini.text("images.txt", "".join(f"{n} {path}\n" for n, path in zip(numbers, paths, strict=True)))
    mini.text("image_class_labels.txt", "".join(f"{n} {1 + (n > 3)}\n" for n in numbers))
    mini.text("train_test_split.txt", "".join(f"{n} {n % 2}\n" for n in numbers))
    mini.text("bounding_boxes.txt", "".join(f"{n} 60.0 27.0 325.0 304.0\n" for n in numbers))
    mini.text("classes.txt", "".join(f"{n} {name}\n" for n, name in enumerate(classes, 1)))
    mini.text("attributes/image_attribute_labels.txt", "1 1 0 3 27.7080\n")
    mini.text("parts/parts.txt", "1 back\n2 beak\n")
    mini.text("README", "The Caltech-UCSD Birds-200-2011 Dataset\n")


@layout(
    "Food-101",
    "food-101",
    reads(("apple_pie", "baby_back_ribs"), says="images/", train=6),
    "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
)
def food101(mini: Miniature) -> None:
    classes = ("apple_pie", "baby_back_ribs")
    mini.class_folders("images/{label}/100564{k}.jpg", classes)
    listed = {name: [f"{name}/100564{k}" for k in range(3)] for name in classes}
    mini.text("meta/train.json", json.dumps({name: paths[:2] for name, paths in listed.items()}))
    mini.text("meta/test.json", json.dumps({name: paths[2:] for name, paths in listed.items()}))
    mini.text("meta/train.txt", "\n".join(path for paths in listed.values() for path in paths[:2]))
    mini.text("meta/test.txt", "\n".join(path for paths in listed.values() for path in paths[2:]))
    mini.text("meta/classes.txt", "\n".join(classes))
    mini.text("meta/labels.txt", "Apple pie\nBaby back ribs\n")
    mini.text("license_agreement.txt")
    mini.text("README.txt")


@layout(
    "Oxford-IIIT Pets",
    "oxford-iiit-pet",
    refused(match="images/|annotations|trimaps|Abyssinian"),
    "https://www.robots.ox.ac.uk/~vgg/data/pets/",
)
def oxford_pets(mini: Miniature) -> None:
    for name in ("Abyssinian", "beagle"):
        for k in (1, 2, 3):
            mini.unlabelled(f"images/{name}_{k}.jpg")
            mini.unlabelled(f"annotations/trimaps/{name}_{k}.png", mode="L")
            mini.binary(f"annotations/trimaps/._{name}_{k}.png", b"\0\5\x16\7")
            mini.text(
                f"annotations/xmls/{name}_{k}.xml", f"<annotation><filename>{name}_{k}.jpg</filename></annotation>"
            )
    mini.binary("images/Abyssinian_100.mat")
    mini.text("annotations/list.txt", "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nbeagle_1 5 2 4\n")
    mini.text("annotations/trainval.txt", "Abyssinian_1 1 1 1\nbeagle_1 5 2 4\n")
    mini.text("annotations/test.txt", "Abyssinian_2 1 1 1\nbeagle_2 5 2 4\n")
    mini.text("annotations/README")


@layout(
    "Stanford Cars",
    "stanford_cars",
    refused(match="cars_train"),
    "https://docs.pytorch.org/vision/stable/_modules/torchvision/datasets/stanford_cars.html",
)
def stanford_cars(mini: Miniature) -> None:
    mini.unlabelled(*(f"cars_{split}/0000{k}.jpg" for split in ("train", "test") for k in (1, 2, 3)))
    for name in ("cars_meta", "cars_train_annos", "cars_test_annos"):
        mini.binary(f"devkit/{name}.mat")
    mini.text("devkit/train_perfect_preds.txt", "14\n3\n91\n")


@layout(
    "Stanford Dogs",
    "stanford-dogs",
    reads(("n02085620-Chihuahua", "n02085782-Japanese_spaniel"), says="Images/", train=6),
    "http://vision.stanford.edu/aditya86/ImageNetDogs/",
)
def stanford_dogs(mini: Miniature) -> None:
    classes = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
    for name in classes:
        synset = name.partition("-")[0]
        mini.class_folders("Images/{label}/" + synset + "_1{k}.jpg", (name,))
        for k in range(3):
            mini.text(f"Annotation/{name}/{synset}_1{k}", f"<annotation><folder>{synset}</folder></annotation>")
    for name in ("file_list", "train_list", "test_list"):
        mini.binary(f"lists/{name}.mat")


@layout(
    "Oxford 102 Flowers",
    "flowers-102",
    refused(match=r"\.mat"),
    "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
)
def flowers102(mini: Miniature) -> None:
    mini.unlabelled(*(f"jpg/image_0000{k}.jpg" for k in range(1, 7)))
    mini.binary("imagelabels.mat")
    mini.binary("setid.mat")


@layout(
    "102 Flowers in numbered folders",
    "flower_data",
    reads(("1", "2", "10"), train=9, val=6),
    "https://github.com/udacity/aipnd-project",
)
def numbered_flowers(mini: Miniature) -> None:
    mini.class_folders("train/{label}/image_0673{k}.jpg", ("1", "2", "10"))
    mini.class_folders("valid/{label}/image_0676{k}.jpg", ("1", "2", "10"), num=2, split="val")
    mini.text("cat_to_name.json", json.dumps({"1": "pink primrose", "2": "hard-leaved orchid", "10": "globe thistle"}))


@layout(
    "FGVC-Aircraft",
    "fgvc-aircraft-2013b",
    refused(match="'images'|images/|images_variant|data/"),
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
)
def fgvc_aircraft(mini: Miniature) -> None:
    mini.unlabelled(*(f"data/images/003430{k}.jpg" for k in range(6)))
    for split in ("train", "val", "test"):
        mini.text(f"data/images_variant_{split}.txt", "0034300 707-320\n0034301 727-200\n")
    mini.text("data/images_box.txt", "0034300 3 144 998 431\n")
    mini.text("data/variants.txt", "707-320\n727-200\n")
    mini.text("vl_argparse.m", "function opts = vl_argparse(opts, args)\n")
    mini.text("README.md")


@layout(
    "Fruits-360",
    "fruits-360",
    reads(("Apple Braeburn 1", "Banana 1"), says="test-multiple_fruits", train=6, test=4),
    "https://github.com/fruits-360/fruits-360-100x100",
)
def fruits360(mini: Miniature) -> None:
    classes = ("Apple Braeburn 1", "Banana 1")
    mini.class_folders("Training/{label}/{k}_100.jpg", classes)
    mini.class_folders("Test/{label}/32{k}_100.jpg", classes, num=2, split="test")
    mini.unlabelled("test-multiple_fruits/apple_banana.jpg", "test-multiple_fruits/cherries_wax1.jpg")
    mini.binary("papers/fruits-360.pdf", b"%PDF-1.5\n")
    mini.text("LICENSE")
    mini.text("readme.md")


@layout(
    "100 sports",
    "sports-classification",
    reads(("air hockey", "ampute football"), train=6, val=4, test=4),
    "https://www.kaggle.com/datasets/gpiosenka/sports-classification",
)
def sports100(mini: Miniature) -> None:
    classes = ("air hockey", "ampute football")
    rows = []
    for folder, split, num in (("train", "train", 3), ("valid", "val", 2), ("test", "test", 2)):
        mini.class_folders(folder + "/{label}/00{k}.jpg", classes, num, split)
        for path, label in mini.labels[split].items():
            rows.append(f"{classes.index(label)},{path},{label},{folder}")
    mini.table("sports.csv", "class id,filepaths,labels,data set", rows)
    mini.binary("EfficientNetB0-100-(224 X 224)- 98.40.h5", b"\x89HDF\r\n\x1a\n")


@layout(
    "Fashion product images",
    "fashion-product-images-small",
    refused(match=r"styles\.csv"),
    "https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-small",
)
def fashion_products(mini: Miniature) -> None:
    rows = []
    for k in range(6):
        mini.unlabelled(f"images/1597{k}.jpg")
        kind = ("Topwear", "Shirts") if k % 2 else ("Bottomwear", "Jeans")
        rows.append(f"1597{k},{'Men' if k > 2 else 'Women'},Apparel,{kind[0]},{kind[1]},Blue,Fall,2011,Casual,Item {k}")
    header = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
    mini.table("styles.csv", header, rows)
