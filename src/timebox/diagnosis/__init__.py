"""`timebox doctor`: the state of this installation and this machine, and what is wrong with them.

Versions and limits are read, disks and training speed are measured, each in a file of its own, and
:func:`~timebox.diagnosis.findings.doctor` puts them together. Nothing here imports torch before it is asked to
measure: a torch that cannot be imported is one of the findings. There is no check of data here, which ``timebox
inspect`` does.
"""

from timebox.diagnosis.findings import Diagnosis, doctor

__all__ = ["Diagnosis", "doctor"]
