"""Training batches on the accelerator: resident images, augmentation, progressive resizing and the loader.

Every transform works on a whole batch and is a pure function of (seed, epoch, image). No file is read here.
"""
