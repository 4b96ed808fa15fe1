"""Sources of labelled images -> uint8 arrays -> splits. Nothing here needs torch but augment and loader."""

from timebox.data.align_labels import align_labels
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.data.images.decode import decode_image, decode_whole, fit_images
from timebox.data.inspection import Inspection, channel_statistics, image_hashes, inspect_data
from timebox.data.load import IN_MEMORY, as_loaded, load_data
from timebox.data.splits import (
    DataSplits,
    Origin,
    balanced_cut,
    parse_split_size,
    split_dataset,
    stratified_order,
    stratified_split,
)

__all__ = [
    "IN_MEMORY",
    "BadFile",
    "DataSplits",
    "ImageDataset",
    "Inspection",
    "LoadedData",
    "Origin",
    "SourceSplits",
    "as_loaded",
    "balanced_cut",
    "channel_statistics",
    "align_labels",
    "decode_image",
    "decode_whole",
    "split_dataset",
    "fit_images",
    "image_hashes",
    "inspect_data",
    "load_data",
    "parse_split_size",
    "stratified_order",
    "stratified_split",
]
