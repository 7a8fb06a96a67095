"""What a variant is, the two engines, the epoch loop and the record that a training leaves.

Needs torch, numpy and safetensors alone, so that trainings and the self-test run anywhere.
"""
