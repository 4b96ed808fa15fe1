"""Sources of labelled images -> uint8 arrays -> splits. Nothing here needs torch but augment and loader."""

from timebox.data.align_labels import conform
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, Splits
from timebox.data.images.decode import decode_image, decode_whole, fit_images
from timebox.data.inspection import Inspection, channel_statistics, image_hashes, inspect_data
from timebox.data.load import IN_MEMORY, as_loaded, load_data
from timebox.data.splits import (
    Division,
    Origin,
    balanced_cut,
    divide,
    parse_portion,
    stratified_order,
    stratified_split,
)

__all__ = [
    "IN_MEMORY",
    "BadFile",
    "Division",
    "ImageDataset",
    "Inspection",
    "LoadedData",
    "Origin",
    "Splits",
    "as_loaded",
    "balanced_cut",
    "channel_statistics",
    "conform",
    "decode_image",
    "decode_whole",
    "divide",
    "fit_images",
    "image_hashes",
    "inspect_data",
    "load_data",
    "parse_portion",
    "stratified_order",
    "stratified_split",
]
