"""Remote sensing, scenes, textures, traffic signs, waste, plants."""

from .miniature import Miniature
from .table import layout, reads, refused


@layout(
    "EuroSAT",
    "EuroSAT",
    reads(("AnnualCrop", "Forest", "SeaLake"), says="2750/", train=9),
    "https://github.com/phelber/EuroSAT",
)
def eurosat(mini: Miniature) -> None:
    mini.class_folders("2750/{label}/{label}_{k}.jpg", ("AnnualCrop", "Forest", "SeaLake"))


@layout(
    "UC Merced",
    "UCMerced_LandUse",
    reads(("agricultural", "airplane", "baseballdiamond"), says="Images/", train=9),
    "http://weegee.vision.ucmerced.edu/datasets/landuse.html",
)
def uc_merced(mini: Miniature) -> None:
    mini.class_folders("Images/{label}/{label}0{k}.tif", ("agricultural", "airplane", "baseballdiamond"))
    mini.text("readme.txt")


@layout(
    "NWPU-RESISC45",
    "NWPU-RESISC45",
    reads(("airplane", "airport", "baseball_diamond"), train=9),
    "https://www.tensorflow.org/datasets/catalog/resisc45",
)
def resisc45(mini: Miniature) -> None:
    mini.class_folders("{label}/{label}_00{k}.jpg", ("airplane", "airport", "baseball_diamond"))


@layout(
    "AID",
    "AID",
    reads(("Airport", "BareLand", "BaseballField"), train=9),
    "https://captain-whu.github.io/AID/",
)
def aid(mini: Miniature) -> None:
    mini.class_folders("{label}/{label}_{k}.jpg", ("Airport", "BareLand", "BaseballField"))


@layout(
    "MIT Indoor 67",
    "indoorCVPR_09",
    reads(("airport_inside", "bakery"), says="Images/", train=6),
    "https://web.mit.edu/torralba/www/indoor.html",
)
def mit_indoor(mini: Miniature) -> None:
    mini.class_folders("Images/{label}/{label}_000{k}.jpg", ("airport_inside", "bakery"))
    mini.text("Annotations/airport_inside/airport_inside_0000.xml", "<annotation></annotation>\n")
    mini.text("TrainImages.txt", "airport_inside/airport_inside_0000.jpg\nbakery/bakery_0000.jpg\n")
    mini.text("TestImages.txt", "airport_inside/airport_inside_0001.jpg\nbakery/bakery_0001.jpg\n")


@layout(
    "Places365",
    "places365_standard",
    reads(("airfield", "airplane_cabin"), train=6, val=4),
    "http://places2.csail.mit.edu/download.html",
)
def places365(mini: Miniature) -> None:
    mini.class_folders("train/{label}/0000000{k}.jpg", ("airfield", "airplane_cabin"))
    mini.class_folders("val/{label}/Places365_val_0000000{k}.jpg", ("airfield", "airplane_cabin"), 2, "val")
    mini.text("train.txt", "train/airfield/00000000.jpg\n")
    mini.text("val.txt", "val/airfield/Places365_val_00000000.jpg\n")


@layout(
    "Intel image classification",
    "intel-image-classification",
    reads(("buildings", "forest", "glacier"), says="seg_pred", train=9, test=6),
    "https://www.kaggle.com/datasets/puneet6060/intel-image-classification",
)
def intel(mini: Miniature) -> None:
    classes = ("buildings", "forest", "glacier")
    mini.class_folders("seg_train/seg_train/{label}/{k}.jpg", classes)
    mini.class_folders("seg_test/seg_test/{label}/2005{k}.jpg", classes, num=2, split="test")
    mini.unlabelled("seg_pred/seg_pred/24.jpg", "seg_pred/seg_pred/81.jpg")


@layout(
    "DTD",
    "dtd",
    reads(("banded", "blotchy"), says="images/", train=6),
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
)
def dtd(mini: Miniature) -> None:
    mini.class_folders("images/{label}/{label}_000{k}.jpg", ("banded", "blotchy"))
    mini.binary("imdb/imdb.mat")
    for split in ("train", "val", "test"):
        mini.text(f"labels/{split}1.txt", "banded/banded_0000.jpg\nblotchy/blotchy_0000.jpg\n")
    mini.text("labels/labels_joint_anno.txt", "banded/banded_0000.jpg banded\nblotchy/blotchy_0000.jpg blotchy\n")


@layout(
    "GTSRB",
    "gtsrb-german-traffic-sign",
    reads(("0", "1", "20"), says="Meta", train=9, test=6),
    "https://www.kaggle.com/datasets/meowmeowmeowmeowmeow/gtsrb-german-traffic-sign",
)
def gtsrb(mini: Miniature) -> None:
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    classes = ("0", "1", "20")
    mini.class_folders("Train/{label}/000{label}_00000_0000{k}.png", classes)
    rows = [f"27,26,5,5,22,20,{label},{path}" for path, label in mini.labels["train"].items()]
    mini.table("Train.csv", header, rows)
    test = mini.pictures("Test/0000{k}.png", classes * 2, "test")
    mini.table("Test.csv", header, [f"53,54,6,5,48,49,{label},{path}" for path, label in test])
    mini.unlabelled(*(f"Meta/{name}.png" for name in classes))
    rows = [f"Meta/{name}.png,{name},0,0,3.29" for name in classes]
    mini.table("Meta.csv", "Path,ClassId,ShapeId,ColorId,SignId", rows)


@layout(
    "Garbage classification",
    "garbage-classification",
    reads(("cardboard", "glass", "trash"), says="Garbage classification/", train=9),
    "https://www.kaggle.com/datasets/asdasdasasdas/garbage-classification",
)
def garbage(mini: Miniature) -> None:
    classes = ("cardboard", "glass", "trash")
    mini.class_folders("Garbage classification/Garbage classification/{label}/{label}{k}.jpg", classes)
    mini.text("one-indexed-files.txt", "glass0.jpg 1\ncardboard0.jpg 3\ntrash0.jpg 6\n")
    mini.text("zero-indexed-files.txt", "glass0.jpg 0\ncardboard0.jpg 2\ntrash0.jpg 5\n")
    for split in ("train", "val", "test"):
        mini.text(f"one-indexed-files-notrash_{split}.txt", "glass1.jpg 1\ncardboard1.jpg 3\n")


@layout(
    "RealWaste",
    "realwaste-main",
    reads(("Cardboard", "Food Organics", "Vegetation"), says="RealWaste/", train=9),
    "https://archive.ics.uci.edu/dataset/908/realwaste",
)
def realwaste(mini: Miniature) -> None:
    mini.class_folders("RealWaste/{label}/{label}_{k}.jpg", ("Cardboard", "Food Organics", "Vegetation"))
    mini.text("LICENSE")
    mini.text("README.md")


@layout(
    "PlantVillage",
    "plantvillage dataset",
    refused(match=r"(?=.*color)(?=.*grayscale)"),
    "https://www.kaggle.com/datasets/abdallahalidev/plantvillage-dataset",
)
def plantvillage(mini: Miniature) -> None:
    for version in ("color", "grayscale", "segmented"):
        for name in ("Apple___Apple_scab", "Apple___healthy"):
            mini.unlabelled(*(f"{version}/{name}/00075aa8-{k}.JPG" for k in range(2)))
