"""Settings, initial weights, the two engines and the epoch loop.

Needs torch, numpy and safetensors alone, so that trainings and the self-test run anywhere.
"""
