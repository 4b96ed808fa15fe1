"""Kaggle competitions and data sets: a table beside a flat folder, labels in file names, pixels in columns."""

import json

from .miniature import Miniature
from .table import layout, reads, refused


@layout(
    "Dogs vs. cats",
    "dogs-vs-cats",
    refused(match=r"train/|cat\.0\.jpg|test1"),
    "https://www.kaggle.com/c/dogs-vs-cats/data",
)
def dogs_vs_cats(mini: Miniature) -> None:
    mini.unlabelled(*(f"train/{name}.{k}.jpg" for name in ("cat", "dog") for k in range(3)))
    mini.unlabelled("test1/1.jpg", "test1/2.jpg", "test1/3.jpg")
    mini.table("sampleSubmission.csv", "id,label", ["1,0", "2,0", "3,0"])


@layout(
    "Microsoft PetImages",
    "kagglecatsanddogs_5340",
    reads(("Cat", "Dog"), ("Cat/666.jpg", "Dog/11702.jpg"), says="PetImages/", train=22),
    "https://www.microsoft.com/en-us/download/details.aspx?id=54765",
)
def pet_images(mini: Miniature) -> None:
    mini.class_folders("PetImages/{label}/{k}.jpg", ("Cat", "Dog"), num=11)
    for name, broken in (("Cat", 666), ("Dog", 11702)):
        mini.binary(f"PetImages/{name}/{broken}.jpg", b"")
        mini.binary(f"PetImages/{name}/Thumbs.db", b"\xd0\xcf\x11\xe0")
    mini.text("readme[1].txt")
    mini.binary("MSR-LA - 3467.docx", b"PK\3\4")


@layout(
    "Plant pathology 2020",
    "plant-pathology-2020-fgvc7",
    reads(("healthy", "multiple_diseases", "rust", "scab"), says="test", train=8),
    "https://www.kaggle.com/c/plant-pathology-2020-fgvc7/data",
)
def plant_pathology(mini: Miniature) -> None:
    classes = ("healthy", "multiple_diseases", "rust", "scab")
    train = mini.pictures("images/Train_{k}.jpg", classes * 2)
    header = ",".join(("image_id", *classes))
    rows = [f"Train_{k}," + ",".join(str(int(name == label)) for name in classes) for k, (_, label) in enumerate(train)]
    mini.table("train.csv", header, rows)
    mini.unlabelled("images/Test_0.jpg", "images/Test_1.jpg")
    mini.table("test.csv", "image_id", ["Test_0", "Test_1"])
    mini.table("sample_submission.csv", header, ["Test_0,0.25,0.25,0.25,0.25", "Test_1,0.25,0.25,0.25,0.25"])


@layout(
    "Cassava leaf disease",
    "cassava-leaf-disease-classification",
    reads(("0", "3", "4"), says="test", train=9),
    "https://www.kaggle.com/c/cassava-leaf-disease-classification/data",
)
def cassava(mini: Miniature) -> None:
    train = mini.pictures("train_images/100001515{k}.jpg", ("0", "3", "4") * 3)
    mini.table("train.csv", "image_id,label", [f"{path[13:]},{label}" for path, label in train])
    mini.text("label_num_to_disease_map.json", json.dumps({"0": "CBB", "3": "CMD", "4": "Healthy"}))
    mini.unlabelled("test_images/2216849948.jpg")
    mini.table("sample_submission.csv", "image_id,label", ["2216849948.jpg,4"])
    mini.binary("train_tfrecords/ld_train00-1338.tfrec", b"\0" * 16)
    mini.binary("test_tfrecords/ld_test00-1.tfrec", b"\0" * 16)


@layout(
    "Dog breed identification",
    "dog-breed-identification",
    reads(("beagle", "boxer"), says="test", train=6),
    "https://www.kaggle.com/c/dog-breed-identification/data",
)
def dog_breeds(mini: Miniature) -> None:
    train = mini.pictures("train/000bec180eb18c7604dcecc8fe0dba0{k}.jpg", ("beagle", "boxer") * 3)
    mini.table("labels.csv", "id,breed", [f"{path[6:-4]},{label}" for path, label in train])
    mini.unlabelled("test/000621fb3cbb32d8935728e48679680e.jpg")
    mini.table("sample_submission.csv", "id,beagle,boxer", ["000621fb3cbb32d8935728e48679680e,0.5,0.5"])


@layout(
    "CIFAR-10 of Kaggle",
    "cifar-10",
    reads(("automobile", "frog", "truck"), says="test", train=9),
    "https://www.kaggle.com/c/cifar-10/data",
)
def cifar10_kaggle(mini: Miniature) -> None:
    rows = []
    for k, label in enumerate(("frog", "truck", "automobile") * 3, 1):
        mini.picture(f"train/{k}.png", label)
        rows.append(f"{k},{label}")
    mini.table("trainLabels.csv", "id,label", rows)
    mini.unlabelled(*(f"test/{k}.png" for k in range(1, 5)))
    mini.table("sampleSubmission.csv", "id,label", [f"{k},cat" for k in range(1, 5)])


@layout(
    "Digit recognizer",
    "digit-recognizer",
    refused(match="pixel"),
    "https://www.kaggle.com/c/digit-recognizer/data",
)
def digit_recognizer(mini: Miniature) -> None:
    pixels = [f"pixel{p}" for p in range(784)]
    mini.table("train.csv", ",".join(["label", *pixels]), [",".join([str(k)] + ["0"] * 784) for k in range(10)])
    mini.table("test.csv", ",".join(pixels), [",".join(["0"] * 784) for _ in range(3)])
    mini.table("sample_submission.csv", "ImageId,Label", ["1,0", "2,0", "3,0"])


@layout(
    "FER-2013 table",
    "fer2013.csv",
    refused(match="pixels"),
    "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge/data",
)
def fer2013_table(mini: Miniature) -> None:
    usages = ("Training", "Training", "PublicTest", "PrivateTest")
    rows = [f"{k % 7},{' '.join(['70', '80'] * 1152)},{usages[k % 4]}" for k in range(12)]
    mini.root.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")


@layout(
    "FER-2013 folders",
    "fer2013",
    reads(("angry", "happy", "neutral"), train=9, test=6),
    "https://www.kaggle.com/datasets/msambare/fer2013",
)
def fer2013_folders(mini: Miniature) -> None:
    classes = ("angry", "happy", "neutral")
    mini.class_folders("train/{label}/Training_3908{k}.jpg", classes)
    mini.class_folders("test/{label}/PrivateTest_1013{k}.jpg", classes, 2, "test")


@layout(
    "ASL alphabet",
    "asl-alphabet",
    reads(("A", "B", "space"), says="asl_alphabet_test", train=9),
    "https://www.kaggle.com/datasets/grassknoted/asl-alphabet",
)
def asl_alphabet(mini: Miniature) -> None:
    mini.class_folders("asl_alphabet_train/asl_alphabet_train/{label}/{label}{k}.jpg", ("A", "B", "space"))
    mini.unlabelled(*(f"asl_alphabet_test/asl_alphabet_test/{name}_test.jpg" for name in ("A", "B", "space")))


@layout(
    "Real and fake faces",
    "real_and_fake_face",
    reads(("training_fake", "training_real"), train=6),
    "https://www.kaggle.com/datasets/ciplab/real-and-fake-face-detection",
)
def real_and_fake(mini: Miniature) -> None:
    mini.class_folders("{label}/easy_{k}_1110.jpg", ("training_fake", "training_real"))


@layout(
    "LFW",
    "lfw-py",
    reads(("Aaron_Eckhart", "Aaron_Peirsol", "Zico"), says="lfw/", train=6),
    "https://docs.pytorch.org/vision/stable/_modules/torchvision/datasets/lfw.html",
)
def lfw(mini: Miniature) -> None:
    for name, num in (("Aaron_Eckhart", 1), ("Aaron_Peirsol", 3), ("Zico", 2)):
        mini.class_folders("lfw/{label}/{label}_000{k}.jpg", (name,), num)
    mini.text("pairs.txt", "10\t300\nAaron_Peirsol\t1\t2\n")
    mini.text("lfw-names.txt", "Aaron_Eckhart\t1\nAaron_Peirsol\t3\nZico\t2\n")


@layout(
    "UTKFace",
    "UTKFace",
    refused(match=r"\d+_\d_\d_\d+"),
    "https://susanqq.github.io/UTKFace/",
)
def utkface(mini: Miniature) -> None:
    mini.unlabelled(*(f"{20 + k}_{k % 2}_{k % 3}_2017011221350090{k}.jpg.chip.jpg" for k in range(6)))


@layout(
    "CelebA",
    "celeba-dataset",
    refused(match="list_attr_celeba|list_eval_partition"),
    "https://www.kaggle.com/datasets/jessicali9530/celeba-dataset",
)
def celeba(mini: Miniature) -> None:
    names = [f"00000{k}.jpg" for k in range(1, 7)]
    mini.unlabelled(*(f"img_align_celeba/img_align_celeba/{name}" for name in names))
    attributes = [f"{name},-1,{1 - 2 * (k % 2)},1,{2 * (k // 3) - 1}" for k, name in enumerate(names)]
    mini.table("list_attr_celeba.csv", "image_id,5_o_Clock_Shadow,Male,Smiling,Young", attributes)
    mini.table("list_eval_partition.csv", "image_id,partition", [f"{name},{k // 2}" for k, name in enumerate(names)])
    mini.table("list_bbox_celeba.csv", "image_id,x_1,y_1,width,height", [f"{name},95,71,226,313" for name in names])
