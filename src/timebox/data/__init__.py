"""Labelled images: reading every supported format, splitting, and serving augmented batches on the device.

``ImageDataset`` is the common form: readers produce it, and splits, inspection and the loader take it. Models, recipes
and training do not belong here. Only ``device``, ``images.fit``, ``images.model_input`` and ``flip_invariance`` import
torch.
"""

from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits, align_labels
from timebox.data.images.decode import decode_image, decode_whole, fit_images
from timebox.data.inspection import Inspection, channel_statistics, image_hashes, inspect_data
from timebox.data.load import IN_MEMORY, load_data, load_images_in_memory
from timebox.data.splits import (
    DataSplits,
    SplitConfig,
    SplitOrigin,
    balanced_cut,
    parse_split_size,
    split_dataset,
    stratified_order,
    stratified_split,
)

__all__ = [
    "IN_MEMORY", "BadFile", "DataSplits", "ImageDataset", "Inspection", "LoadedData", "SourceSplits", "SplitConfig",
    "SplitOrigin",
    "align_labels", "balanced_cut", "channel_statistics", "decode_image", "decode_whole", "fit_images", "image_hashes",
    "inspect_data", "load_data", "load_images_in_memory", "parse_split_size", "split_dataset", "stratified_order",
    "stratified_split",
]  # fmt: skip
