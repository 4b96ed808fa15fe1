"""From a data set to batches on the device: the loader, augmentation and progressive resizing.

Every transform works on whole batches, and is a function of (seed, epoch, image). Nothing here reads files.
"""
