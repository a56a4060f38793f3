"""Generators on a CUDA device, as rows: what any model's engine there is made of.

A plug-in describes its model to `generator.RowsGenerator` and brings its activations, as kernels and in plain torch.
`engine.CudaEngine` runs the result where it has shown that it computes what the module does.
"""
