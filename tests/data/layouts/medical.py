"""Medical images."""

from .miniature import Miniature
from .table import layout, reads, reads_or_refused, refused

ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


@layout(
    "HAM10000",
    "skin-cancer-mnist-ham10000",
    reads(("bkl", "mel", "nv"), says=r"HAM10000_metadata\.csv", train=9),
    "https://www.kaggle.com/datasets/kmader/skin-cancer-mnist-ham10000",
)
def ham10000(mini: Miniature) -> None:
    rows = []
    for k, label in enumerate(("bkl", "mel", "nv") * 3):
        mini.picture(f"HAM10000_images_part_{1 + k % 2}/ISIC_002430{k}.jpg", label)
        rows.append(f"HAM_000011{k // 2},ISIC_002430{k},{label},histo,80.0,male,scalp")
    mini.table("HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", rows)
    for size, pixels in (("8_8_L", 64), ("8_8_RGB", 192), ("28_28_L", 784)):
        header = ",".join([*(f"pixel{p:04}" for p in range(pixels)), "label"])
        mini.table(f"hmnist_{size}.csv", header, [",".join(["200"] * pixels + [str(k % 3)]) for k in range(9)])


@layout(
    "ISIC 2019",
    "isic-2019",
    reads(("BCC", "MEL", "NV"), says=r"ISIC_2019_Training_GroundTruth\.csv", train=9),
    "https://challenge.isic-archive.com/data/#2019",
)
def isic2019(mini: Miniature) -> None:
    truth, metadata = [], []
    for k, label in enumerate(("BCC", "MEL", "NV") * 3):
        mini.picture(f"ISIC_2019_Training_Input/ISIC_000000{k}.jpg", label)
        truth.append(f"ISIC_000000{k}," + ",".join("1.0" if name == label else "0.0" for name in ISIC_CLASSES))
        metadata.append(f"ISIC_000000{k},55.0,anterior torso,,{'male' if k % 2 else 'female'}")
    mini.table("ISIC_2019_Training_GroundTruth.csv", ",".join(("image", *ISIC_CLASSES)), truth)
    mini.table("ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", metadata)
    mini.text("ISIC_2019_Training_Input/ATTRIBUTION.txt")
    mini.text("ISIC_2019_Training_Input/LICENSE.txt")


@layout(
    "Chest X-ray pneumonia",
    "chest_xray",
    reads(("NORMAL", "PNEUMONIA"), says="chest_xray", train=6, val=4, test=4),
    "https://www.kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
)
def chest_xray(mini: Miniature) -> None:
    classes = ("NORMAL", "PNEUMONIA")
    mini.class_folders("train/{label}/IM-0115-000{k}-{label}.jpeg", classes)
    mini.class_folders("val/{label}/{label}2-IM-142{k}.jpeg", classes, 2, "val")
    mini.class_folders("test/{label}/person1_{label}_{k}.jpeg", classes, 2, "test")
    for split in ("train", "val", "test"):
        mini.copy(split, f"chest_xray/{split}")
        mini.binary(f"{split}/.DS_Store", b"\0\0\0\1Bud1")
        mini.binary(f"__MACOSX/{split}/NORMAL/._IM-0115-0000-NORMAL.jpeg", b"\0\5\x16\7")


@layout(
    "NIH ChestX-ray14",
    "nih-chest-xrays",
    refused(match=r"Data_Entry_2017\.csv|Finding Labels"),
    "https://www.kaggle.com/datasets/nih-chest-xrays/data",
)
def chestxray14(mini: Miniature) -> None:
    findings = ("Cardiomegaly", "Atelectasis|Effusion", "No Finding", "Effusion", "No Finding", "Atelectasis|Mass")
    rows = []
    for k, finding in enumerate(findings):
        mini.unlabelled(f"images_00{1 + k % 3}/images/0000000{k}_000.png", mode="L")
        rows.append(f"0000000{k}_000.png,{finding},0,{k},058Y,M,PA,2682,2749,0.143,0.143,")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    mini.table("Data_Entry_2017.csv", header, rows)
    mini.table(
        "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", ["00000001_000.png,Effusion,1,2,3,4,,,"]
    )
    mini.text("train_val_list.txt", "00000000_000.png\n00000001_000.png\n")
    mini.text("test_list.txt", "00000002_000.png\n")
    mini.binary("README_CHESTXRAY.pdf", b"%PDF-1.5\n")


@layout(
    "Breast histopathology (IDC)",
    "IDC_regular_ps50_idx5",
    refused(match="10253"),
    "https://www.kaggle.com/datasets/paultimothymooney/breast-histopathology-images",
)
def idc(mini: Miniature) -> None:
    for patient in ("10253", "10254", "10255"):
        for label in (0, 1):
            mini.unlabelled(*(f"{patient}/{label}/{patient}_idx5_x{k}01_y1_class{label}.png" for k in range(2)))


@layout(
    "BreakHis",
    "BreaKHis_v1",
    reads_or_refused("breast|benign|SOB", ("benign", "malignant"), train=8),
    "https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
)
def breakhis(mini: Miniature) -> None:
    kinds = (("benign", "adenosis", "B_A"), ("malignant", "ductal_carcinoma", "M_DC"))
    for label, kind, code in kinds:
        for zoom in ("40X", "100X"):
            slide = f"SOB_{code}-14-22549AB"
            folder = f"histology_slides/breast/{label}/SOB/{kind}/{slide}/{zoom}"
            mini.class_folders(folder + "/" + slide + "-" + zoom + "-00{k}.png", (label,), num=1)
            mini.picture(f"{folder}/{slide}-{zoom}-001.png", label)
    mini.text("histology_slides/breast/README.txt")
    mini.text("histology_slides/breast/count_files.sh", "find . -name '*.png' | wc -l\n")


@layout(
    "BUSI breast ultrasound",
    "Dataset_BUSI_with_GT",
    reads(("benign", "malignant", "normal"), says="mask", train=9),
    "https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
)
def busi(mini: Miniature) -> None:
    for label in ("benign", "malignant", "normal"):
        for k in (1, 2, 3):
            mini.picture(f"{label}/{label} ({k}).png", label)
            mini.unlabelled(f"{label}/{label} ({k})_mask.png", mode="1")
    mini.unlabelled("benign/benign (3)_mask_1.png", mode="1")


@layout(
    "APTOS 2019",
    "aptos2019-blindness-detection",
    reads(("0", "2", "4"), says="test", train=9),
    "https://www.kaggle.com/c/aptos2019-blindness-detection/data",
)
def aptos2019(mini: Miniature) -> None:
    train = mini.pictures("train_images/000c1434d8d{k}.png", ("0", "2", "4") * 3)
    mini.table("train.csv", "id_code,diagnosis", [f"{path[13:25]},{label}" for path, label in train])
    mini.unlabelled("test_images/0005cfc8afb6.png", "test_images/003f0afdcd15.png")
    mini.table("test.csv", "id_code", ["0005cfc8afb6", "003f0afdcd15"])
    mini.table("sample_submission.csv", "id_code,diagnosis", ["0005cfc8afb6,0", "003f0afdcd15,0"])


@layout(
    "Histopathologic cancer detection",
    "histopathologic-cancer-detection",
    reads(("0", "1"), says="test", train=6),
    "https://www.kaggle.com/c/histopathologic-cancer-detection/data",
)
def histopathologic(mini: Miniature) -> None:
    train = mini.pictures("train/f38a6374c348f90b587e046aac6079959adf383{k}.tif", ("0", "1") * 3)
    mini.table("train_labels.csv", "id,label", [f"{path[6:-4]},{label}" for path, label in train])
    mini.unlabelled("test/0b2ea2a822ad23fdb1b5dd26653da899fbd2c0d5.tif")
    mini.table("sample_submission.csv", "id,label", ["0b2ea2a822ad23fdb1b5dd26653da899fbd2c0d5,0"])


@layout(
    "Brain tumour MRI",
    "brain-tumor-mri-dataset",
    reads(("glioma", "meningioma", "notumor"), train=9, test=6),
    "https://www.kaggle.com/datasets/masoudnickparvar/brain-tumor-mri-dataset",
)
def brain_tumour(mini: Miniature) -> None:
    classes = ("glioma", "meningioma", "notumor")
    mini.class_folders("Training/{label}/Tr-{label}_001{k}.jpg", classes)
    mini.class_folders("Testing/{label}/Te-{label}_001{k}.jpg", classes, 2, "test")


@layout(
    "Malaria cell images",
    "cell_images",
    reads_or_refused("cell_images|Parasitized", ("Parasitized", "Uninfected"), train=6),
    "https://www.kaggle.com/datasets/iarunava/cell-images-for-detecting-malaria",
)
def malaria(mini: Miniature) -> None:
    for label in ("Parasitized", "Uninfected"):
        mini.class_folders("{label}/C33P1thinF_cell_{k}.png", (label,))
        mini.copy(label, f"cell_images/{label}")
        mini.binary(f"{label}/Thumbs.db", b"\xd0\xcf\x11\xe0")


@layout(
    "COVID-19 radiography",
    "COVID-19_Radiography_Dataset",
    reads_or_refused("masks", ("COVID", "Normal"), train=6),
    "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
)
def covid_radiography(mini: Miniature) -> None:
    for label in ("COVID", "Normal"):
        for k in (1, 2, 3):
            mini.picture(f"{label}/images/{label}-{k}.png", label)
            mini.unlabelled(f"{label}/masks/{label}-{k}.png")
        mini.binary(f"{label}.metadata.xlsx", b"PK\3\4")
    mini.text("README.md.txt")
