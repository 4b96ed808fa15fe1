"""From the data, this hardware and a budget to a plan: model size, batch size, precision, time per phase.

Throughput is measured on the network itself, with the training step that will be used. Planning changes no file and
no weights, and a plan holds everything a training needs to be repeated.
"""
