"""Planning: from the data, the hardware and a budget to a plan (model scale, batch size, precision, time per phase).

Throughput is measured with the training step and the network that will be trained. Planning writes no files. A plan
holds everything that is needed to repeat a training.
"""
